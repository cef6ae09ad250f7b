"""
What each call records: events, payments, customers, and many events at once.
"""

import asyncio
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
import pytest
from helpers.clients import PROJECT, Connect, DeliveryLog, numbered_events, pending_data
from helpers.queue_file import stored_bodies
from helpers.scripted_server import ReceivedRequest, ScriptedServer

from exponea_async import (
    Customer,
    DroppedError,
    Event,
    EventType,
    Exponea,
    ExponeaProject,
    Hooks,
    InvalidEventError,
    PurchasedItem,
    QueueFullError,
    QueueSettings,
    RejectedError,
)
from exponea_async.sandbox import Fault, Project, Sandbox
from exponea_async.testing import pending_records

ITEM = PurchasedItem(12.5, "EUR", "card", "mug-1", "Blue mug", "r-77")
JANE = {"registered": "jane@example.com"}
NONE: Any = None


class TestProperties:
    async def test_properties_of_an_event(self, connect: Connect) -> None:
        """The caller's properties override the default ones, and those of the SDK override both."""
        defaults, given = {"a": 1, "b": 2}, {"b": 9, "application_id": "evil", "device_id": "evil"}
        client = await connect(
            device=True, flush_mode="MANUAL", application_id="com.example.shop", default_properties=defaults
        )
        await client.identify_customer(Customer({"registered": "R"}))
        await client.track_event(Event("x", given, 5.5))
        _, _, identified, event = await pending_data(client)

        device_id = event["properties"].pop("device_id")
        assert event == {
            "customer_ids": {"registered": "R", "cookie": await client.get_customer_cookie()},
            "event_type": "x",
            "timestamp": 5.5,
            "properties": {"a": 1, "b": 9, "application_id": "com.example.shop"},
        }
        assert len(device_id) == 36
        assert client.default_properties == defaults == {"a": 1, "b": 2}
        assert given == {"b": 9, "application_id": "evil", "device_id": "evil"}
        assert "event_type" not in identified

    @pytest.mark.parametrize(("allowed", "defaults"), [(True, {"a": 1, "b": 2}), (False, {})])
    async def test_properties_of_a_customer(self, connect: Connect, allowed: bool, defaults: dict[str, int]) -> None:  # noqa: FBT001
        """The caller's properties override the default ones, if those are allowed; the SDK adds none."""
        client = await connect(
            device=True,
            flush_mode="MANUAL",
            default_properties={"a": 1, "b": 2},
            allow_default_customer_properties=allowed,
        )
        await client.identify_customer(Customer({"registered": "R", "cookie": "zzz"}, {"n": 1}))
        _, _, update = await pending_data(client)

        assert isinstance(update.pop("update_timestamp"), float)
        assert update == {
            "customer_ids": {"registered": "R", "cookie": await client.get_customer_cookie()},
            "properties": {**defaults, "n": 1},
        }

    async def test_no_name_of_a_property_is_reserved(self, connect: Connect) -> None:
        """All properties of a customer are sent, whatever their names."""
        properties = {"description": "tall", "platform": "x", "valid": True, "application_id": "1", "device_id": "2"}
        client = await connect(flush_mode="MANUAL")
        await client.identify_customer(Customer(JANE, properties))

        assert (await pending_data(client))[0]["properties"] == properties

    async def test_properties_do_not_leak_into_the_next_event(self, connect: Connect) -> None:
        """The properties of one event are not in the next one."""
        client = await connect(flush_mode="MANUAL", default_properties={"a": 1})
        await client.track_event(Event("x", {"once": 1}))
        await client.track_event(Event("x", {"a": 5}))
        await client.track_event(Event("x"))

        own = [data["properties"] for data in await pending_data(client)]
        assert [(each["a"], "once" in each) for each in own] == [(1, True), (5, False), (1, False)]

    async def test_any_name_is_an_event_type(self, connect: Connect, sandbox: Sandbox) -> None:
        """An event is sent as an event, whatever its name."""
        client = await connect()
        names = ["campaign_click", "payment", "customers", " x ", "ünïcødé", 'quo"te', "x" * 500]
        for name in names:
            await client.track_event(Event(name, {"url": "here"}))
        await client.flush_data(60)

        assert sorted(event.event_type for event in sandbox.engine.events()) == sorted(names)
        assert all(event.properties["url"] == "here" for event in sandbox.engine.events())

    async def test_values_arrive_as_they_were(self, connect: Connect, sandbox: Sandbox) -> None:
        """Integers stay integers, nothing is converted to a string, and nested values arrive."""
        properties = {
            "int": 1,
            "float": 1.5,
            "none": None,
            "list": [{"a": [None, True]}],
            "big": 2**53,
            "text": "🦊\x00",
        }
        client = await connect()
        await client.track_event(Event("x", properties))
        await client.flush_data(60)

        (event,) = sandbox.engine.events()
        found = {name: value for name, value in event.properties.items() if not name.endswith("_id")}
        # A null says nothing, and is left out as the vendor's SDK for iOS does.
        assert found == {
            **{name: properties[name] for name in ("int", "float", "big", "text")},
            "list": [{"a": [True]}],
        }
        assert type(found["int"]) is int


class TestTimestamps:
    async def test_timestamps_are_unique(self, connect: Connect, sandbox: Sandbox) -> None:
        """Equal events at the same time have different timestamps, so the platform removes none as a duplicate."""
        client = await connect()
        await asyncio.gather(*(client.track_event(Event("same")) for _ in range(500)))
        await client.track_many([Event("same")] * 500)
        await client.flush_data(60)

        stamps = [event.timestamp for event in sandbox.engine.events()]
        assert (len(stamps), len(set(stamps)), sandbox.engine.duplicates) == (1000, 1000, 0)
        assert any(stamp % 1 for stamp in stamps)

    async def test_timestamps_are_in_the_order_of_the_calls(self, connect: Connect) -> None:
        """An earlier call has an earlier timestamp, also between events and customers."""
        client = await connect(flush_mode="MANUAL")
        await client.track_event(Event("a"))
        await client.identify_customer(Customer(JANE))
        await client.track_payment_event(ITEM)
        stamps: list[float] = [data.get("timestamp") or data["update_timestamp"] for data in await pending_data(client)]

        assert stamps == sorted(set(stamps))

    @pytest.mark.parametrize(
        ("given", "sent"),
        [(5, 5.0), (5.25, 5.25), (0, 0.0), (datetime(2026, 1, 1, tzinfo=UTC), 1767225600.0)],
    )
    async def test_the_timestamp_of_the_caller(self, connect: Connect, given: Any, sent: float) -> None:
        """A timestamp that is given is sent, in seconds."""
        client = await connect(flush_mode="MANUAL")
        await client.track_event(Event("x", {}, given))
        await client.track_payment_event(ITEM, given)

        assert [data["timestamp"] for data in await pending_data(client)] == [sent, sent]

    @pytest.mark.parametrize("given", ["now", datetime(2026, 1, 1), float("nan"), True, 1e12])  # noqa: DTZ001
    async def test_wrong_timestamps(self, connect: Connect, given: Any) -> None:
        """A value that is not a timestamp, or not one that the platform accepts, is refused by name."""
        client = await connect(flush_mode="MANUAL")
        with pytest.raises(InvalidEventError, match="timestamp"):
            await client.track_event(Event("x", {}, given))

        assert await pending_data(client) == []


class TestPayments:
    async def test_the_properties_of_a_payment(self, connect: Connect) -> None:
        """A payment is an event of the type "payment" with the vendor's properties."""
        client = await connect(flush_mode="MANUAL")
        await client.track_payment_event(ITEM, 1767225600)
        (payment,) = await pending_data(client)

        assert (payment["event_type"], payment["timestamp"]) == ("payment", 1767225600.0)
        assert {name: value for name, value in payment["properties"].items() if not name.endswith("_id")} == {
            "brutto": 12.5,
            "currency": "EUR",
            "payment_system": "card",
            "product_title": "Blue mug",
            "receipt": "r-77",
        }
        assert payment["properties"]["item_id"] == "mug-1"

    @pytest.mark.parametrize(("value", "sent"), [(7, 7), (Decimal("7.99"), 7.99), (-3.5, -3.5), (np.int64(7), 7)])
    async def test_the_amount_of_a_payment(self, connect: Connect, value: Any, sent: float) -> None:
        """Any number is an amount; without a receipt there is no such property."""
        client = await connect(flush_mode="MANUAL")
        await client.track_payment_event(PurchasedItem(value, "EUR", "card", "1", "Mug"))
        (payment,) = await pending_data(client)

        assert float(payment["properties"]["brutto"]) == sent
        assert "receipt" not in payment["properties"]

    async def test_uuids_are_references(self, connect: Connect) -> None:
        """The id of a product and the reference of a payment may be UUIDs, which are sent as strings."""
        product, reference = uuid4(), uuid4()
        client = await connect(flush_mode="MANUAL")
        await client.track_payment_event(PurchasedItem(7, "EUR", "card", product, "Mug", reference))  # type: ignore[arg-type]
        (payment,) = await pending_data(client)

        assert payment["properties"]["item_id"] == str(product)
        assert payment["properties"]["receipt"] == str(reference)

    @pytest.mark.parametrize(
        ("item", "path"),
        [
            (PurchasedItem("7", "EUR", "card", "1", "Mug"), "item.value"),
            (
                PurchasedItem(value=True, currency="EUR", payment_system="card", product_id="1", product_title="Mug"),
                "item.value",
            ),
            (PurchasedItem(float("nan"), "EUR", "card", "1", "Mug"), "item.value"),
            (PurchasedItem(7, None, "card", "1", "Mug"), "item.currency"),  # type: ignore[arg-type]
            (PurchasedItem(7, "EUR", 5, "1", "Mug"), "item.payment_system"),  # type: ignore[arg-type]
            (PurchasedItem(7, "EUR", "card", 1, "Mug"), "item.product_id"),  # type: ignore[arg-type]
            (PurchasedItem(7, "EUR", "card", "1", b"Mug"), "item.product_title"),  # type: ignore[arg-type]
            (PurchasedItem(7, "EUR", "card", " ", "Mug"), "item.product_id"),
            (PurchasedItem(7, "EUR", "card", "1", "Mug", 5), "item.receipt"),  # type: ignore[arg-type]
            (PurchasedItem(7, "EUR", "card", "1", "Mug", ""), "item.receipt"),
            (PurchasedItem(7, "EUR", "card", "1", "\ud800"), "item.product_title"),
            ({"value": 7}, "item"),
            (None, "item"),
        ],
    )
    async def test_wrong_items(self, connect: Connect, item: Any, path: str) -> None:
        """A wrong field is named, and nothing is recorded."""
        client = await connect(flush_mode="MANUAL")
        with pytest.raises(InvalidEventError) as raised:
            await client.track_payment_event(item)

        assert raised.value.path == path
        assert await pending_data(client) == []


class TestInvalidEvents:
    @pytest.mark.parametrize(
        ("event", "path"),
        [
            (Event("", {}), "name"),
            (Event(" \n", {}), "name"),
            (Event(None), "name"),  # type: ignore[arg-type]
            (Event(5), "name"),  # type: ignore[arg-type]
            (Event("x", {"a": {"b": [1, object()]}}), "properties.a.b[1]"),
            (Event("x", {"a": float("inf")}), "properties.a"),
            (Event("x", {1: 2}), "properties"),  # type: ignore[dict-item]
            (Event("x", {"a": "x" * 17_000}), "properties.a"),
            (Event("x", [("a", 1)]), "properties"),  # type: ignore[arg-type]
            (Event("x", None), "properties"),  # type: ignore[arg-type]
            (Event("x", {"device_id": object()}), "properties.device_id"),
            ("x", "event"),
            (None, "event"),
        ],
    )
    async def test_the_path_is_named(self, connect: Connect, event: Any, path: str) -> None:
        """The error has the path of the wrong value, and nothing is recorded."""
        client = await connect(device=True, flush_mode="MANUAL")
        with pytest.raises(InvalidEventError) as raised:
            await client.track_event(event)

        assert raised.value.path.startswith(path)
        assert (await pending_data(client), client.stats().tracked) == ([], 0)

    async def test_an_event_of_800_kilobytes(self, connect: Connect) -> None:
        """An event that is too large for the platform is refused."""
        client = await connect(flush_mode="MANUAL")
        with pytest.raises(InvalidEventError, match="at most 819200 bytes"):
            await client.track_event(Event("x", {f"p{number}": "x" * 16_000 for number in range(60)}))

        assert await pending_data(client) == []

    @pytest.mark.parametrize("customer", [None, "jane", Customer(JANE, NONE), Customer(JANE, {"a": object()})])
    async def test_wrong_customers(self, connect: Connect, customer: Any) -> None:
        """A customer that cannot be sent is not recorded, and its ids are not remembered."""
        client = await connect(device=True, flush_mode="MANUAL")
        with pytest.raises(InvalidEventError):
            await client.identify_customer(customer)
        await client.track_event(Event("x"))

        found = [(data["event_type"], list(data["customer_ids"])) for data in await pending_data(client)]
        assert found == [(name, ["cookie"]) for name in ("installation", "session_start", "x")]


class TestCopies:
    async def test_changes_after_the_call_have_no_effect(self, connect: Connect) -> None:
        """The arguments are recorded as they were when the call began, however long it waits."""
        client = await connect(device=True, flush_mode="MANUAL")
        properties: dict[str, Any] = {"list": [1], "dict": {"a": 1}}
        ids = dict(JANE)
        verbs = [
            client.track_event(Event("x", properties)),
            client.track_many([(ids, Event("x", properties))]),
            client.identify_customer(Customer(ids, properties)),
        ]
        tasks = [asyncio.ensure_future(verb) for verb in verbs]
        await asyncio.sleep(0)
        properties["list"].append(2)
        properties["dict"]["a"] = 2
        ids["registered"] = "eve@example.com"
        await asyncio.gather(*tasks)

        recorded = [data for data in await pending_data(client) if "list" in data["properties"]]
        assert len(recorded) == 3
        assert all(data["properties"]["list"] == [1] for data in recorded)
        assert all(data["properties"]["dict"] == {"a": 1} for data in recorded)
        assert all(data["customer_ids"].get("registered") in (None, JANE["registered"]) for data in recorded)


class TestTrackMany:
    async def test_one_commit_for_all(self, connect: Connect) -> None:
        """Many events share a transaction, and each has its receipt, in order."""
        client = await connect(device=True, flush_mode="MANUAL")
        await client.get_customer_cookie()
        own, before = len(await pending_data(client)), client.stats().commits
        receipts = await client.track_many(numbered_events(250))

        assert client.stats().commits == before + 1
        assert len({receipt.ids for receipt in receipts}) == 250
        waiting = (await pending_records(client))[own:]
        assert [(record.id,) for record in waiting] == [receipt.ids for receipt in receipts]
        assert [data["properties"]["number"] for data in (await pending_data(client))[own:]] == list(range(250))

    async def test_all_or_none(self, connect: Connect) -> None:
        """If one event is invalid none is recorded, and the error has its position."""
        client = await connect(flush_mode="MANUAL")
        events = numbered_events(10)
        events[3] = Event("x", {"items": [{"price": float("nan")}]})
        with pytest.raises(InvalidEventError) as raised:
            await client.track_many(events)

        assert raised.value.path == "events[3].properties.items[0].price"
        assert await pending_data(client) == []

    async def test_mixed_subjects(self, connect: Connect) -> None:
        """Events about the current subject and about customers can be in one call."""
        client = await connect(device=True, flush_mode="MANUAL")
        await client.track_many([Event("own"), (JANE, Event("hers")), ({"registered": "joe"}, Event("his"))])
        _, _, own, hers, his = await pending_data(client)

        assert list(own["customer_ids"]) == ["cookie"]
        assert (hers["customer_ids"], his["customer_ids"]) == (JANE, {"registered": "joe"})
        assert ["device_id" in data["properties"] for data in (own, hers, his)] == [True, False, False]

    @pytest.mark.parametrize(
        "given",
        ["x", None, (JANE,), (JANE, "x"), (JANE, Event("x"), 1), ({"registered": 1}, Event("x")), ("jane", Event("x"))],
    )
    async def test_wrong_elements(self, connect: Connect, given: Any) -> None:
        """Each element must be an event or a pair of ids and event; the error has the position of a wrong one."""
        client = await connect(flush_mode="MANUAL")
        with pytest.raises(InvalidEventError, match=r"events\[1\]"):
            await client.track_many([Event("x"), given])

        assert await pending_data(client) == []

    async def test_any_iterable(self, connect: Connect) -> None:
        """An empty list records nothing; any iterable is accepted."""
        client = await connect(flush_mode="MANUAL")

        assert await client.track_many([]) == []
        assert len(await client.track_many(event for event in numbered_events(3))) == 3

    async def test_a_full_queue(self, connect: Connect) -> None:
        """If there is not enough capacity for all events none is recorded."""
        client = await connect(flush_mode="MANUAL", queue=QueueSettings(max_records=10))
        await client.track_many(numbered_events(8))
        with pytest.raises(QueueFullError):
            await client.track_many(numbered_events(3))
        with pytest.raises(QueueFullError):
            await client.track_many(numbered_events(11))
        await client.track_many(numbered_events(2))

        assert (len(await pending_data(client)), client.stats().tracked) == (10, 10)

    async def test_a_full_queue_that_drops_the_oldest(self, connect: Connect, deliveries: DeliveryLog) -> None:
        """Listeners are notified of each dropped record once."""
        queue = QueueSettings(max_records=10, when_full="drop_oldest")
        client = await connect(flush_mode="MANUAL", queue=queue, hooks=Hooks(listeners=[deliveries]))
        first = await client.track_many(numbered_events(10))
        second = await client.track_many(numbered_events(4, 10))

        assert [receipt.status for receipt in first] == ["dropped"] * 4 + ["queued"] * 6
        assert {receipt.status for receipt in second} == {"queued"}
        assert client.stats().dropped == {"queue_full": 4}
        assert [(notice.kind, len(notice.ids)) for notice in deliveries] == [("dropped", 4)]
        with pytest.raises(DroppedError, match="full"):
            await first[0].delivered()

    async def test_a_full_queue_that_waits(self, connect: Connect) -> None:
        """A call without capacity waits until an upload has made room."""
        client = await connect(flush_mode="MANUAL", queue=QueueSettings(max_records=10, when_full="wait"))
        await client.track_many(numbered_events(10))
        waiting = asyncio.create_task(client.track_event(Event("x")))
        await asyncio.sleep(0.05)
        assert not waiting.done()
        await client.flush_data(60)

        # Its record may have been sent by the same flush.
        assert (await waiting).status in ("queued", "delivered")


class TestHooks:
    async def test_before_track_changes_events(self, connect: Connect) -> None:
        """The event that ``before_track`` returns is recorded, payments too; its argument is the caller's."""
        seen: list[Event] = []

        def change(event: Event) -> Event:
            seen.append(event)
            return Event(event.name.upper(), {**event.properties, "changed": True}, 7)

        client = await connect(flush_mode="MANUAL", hooks=Hooks(before_track=change))
        await client.track_event(Event("x", {"a": 1}))
        await client.track_payment_event(ITEM)
        await client.track_many([Event("y")])

        assert [data["event_type"] for data in await pending_data(client)] == ["X", "PAYMENT", "Y"]
        assert all(data["properties"]["changed"] and data["timestamp"] == 7 for data in await pending_data(client))
        assert seen[0] == Event("x", {"a": 1})

    async def test_before_track_drops_events(self, connect: Connect) -> None:
        """If it returns None the event is counted as dropped, its receipt says so, and nothing is recorded."""
        hooks = Hooks(before_track=lambda event: None if event.name == "secret" else event)
        client = await connect(flush_mode="MANUAL", hooks=hooks)
        receipt = await client.track_event(Event("secret"))
        many = await client.track_many([Event("a"), Event("secret"), Event("b")])

        assert [each.status for each in (receipt, *many)] == ["dropped", "queued", "dropped", "queued"]
        assert client.stats().dropped == {"before_track": 2}
        assert [data["event_type"] for data in await pending_data(client)] == ["a", "b"]
        with pytest.raises(DroppedError, match="before_track"):
            await receipt.delivered()

    async def test_errors_of_before_track(self, connect: Connect) -> None:
        """An error of ``before_track`` is raised to the caller, and nothing is recorded."""

        def fail(event: Event) -> Event:
            raise ZeroDivisionError

        client = await connect(flush_mode="MANUAL", hooks=Hooks(before_track=fail))
        with pytest.raises(ZeroDivisionError):
            await client.track_event(Event("x"))
        with pytest.raises(ZeroDivisionError):
            await client.track_many([Event("x")])

        assert await pending_data(client) == []

    @pytest.mark.parametrize("answer", [5, {}, "x", False])
    async def test_before_track_must_return_an_event(self, connect: Connect, answer: Any) -> None:
        """Any other value than an event or None is an error."""
        client = await connect(flush_mode="MANUAL", hooks=Hooks(before_track=lambda _: answer))
        with pytest.raises(InvalidEventError, match="before_track"):
            await client.track_event(Event("x"))

        assert await pending_data(client) == []

    async def test_listeners_are_notified_of_outcomes(
        self, connect: Connect, sandbox: Sandbox, deliveries: DeliveryLog
    ) -> None:
        """Listeners get each record once, by the ids of its receipt, and an error of one does not affect the others."""

        def fail(_: object) -> None:
            raise ZeroDivisionError

        sandbox.faults.add(Fault("reject", every_command=4))
        client = await connect(hooks=Hooks(listeners=[fail, deliveries]))
        receipts = await client.track_many(numbered_events(8))
        await client.flush_data(60)

        notified = {
            kind: [key for notice in deliveries if notice.kind == kind for key in notice.ids]
            for kind in deliveries.kinds()
        }
        for kind in ("delivered", "rejected"):
            expected = [receipt.ids[0] for receipt in receipts if receipt.status == kind]
            assert sorted(notified[kind]) == sorted(expected)
        assert (len(notified["delivered"]), len(notified["rejected"])) == (6, 2)


class TestProjects:
    @pytest.fixture
    async def fan(self, connect: Connect) -> Exponea:
        mapping = {
            EventType.PAYMENT: [ExponeaProject("finance", "other-key"), ExponeaProject(PROJECT, "key")],
            "TRACK_CUSTOMER": [ExponeaProject("finance", "other-key")],
        }
        return await connect(project_mapping=mapping)

    async def test_events_of_mapped_types(self, fan: Exponea, sandbox: Sandbox) -> None:
        """A mapped type is sent to its projects and the main one, once to each; other types to the main one only."""
        payment, event = await fan.track_payment_event(ITEM), await fan.track_event(Event("x"))
        customer = await fan.identify_customer(Customer(JANE))
        await fan.flush_data(60)

        assert [len(receipt.ids) for receipt in (payment, event, customer)] == [2, 1, 2]
        assert [event.event_type for event in sandbox.engine.events("finance")] == ["payment"]
        assert sorted(event.event_type for event in sandbox.engine.events(PROJECT)) == ["payment", "x"]
        assert sandbox.engine.customer("finance", JANE) is not None
        assert (fan.stats().tracked, fan.stats().delivered) == (5, 5)

    async def test_a_receipt_covers_all_projects(self, fan: Exponea, sandbox: Sandbox) -> None:
        """It is delivered when all projects have accepted, and rejected when one has rejected."""
        sandbox.faults.add(Fault("reject", project="finance"))
        payment = await fan.track_payment_event(ITEM)

        with pytest.raises(RejectedError, match="fault injection"):
            await payment.delivered(60)
        assert payment.status == "rejected"
        assert len(sandbox.engine.events(PROJECT)) == 1

    async def test_each_project_has_its_own_key(self, connect: Connect) -> None:
        """No request carries another project's key, which the sandbox would refuse."""
        projects = [Project(PROJECT, ["key"]), Project("finance", ["other-key"])]
        async with Sandbox(projects=projects) as strict:
            mapping = {"PAYMENT": [ExponeaProject("finance", "other-key")]}
            client = await connect(project_mapping=mapping, base_url=strict.url)
            await client.track_payment_event(ITEM)

            assert (await client.flush_data(60)).delivered == 2
            await client.aclose()

    async def test_projects_are_independent(self, fan: Exponea, sandbox: Sandbox) -> None:
        """While one project is unavailable the other one gets its events."""
        sandbox.faults.add(Fault("status", status=503, project="finance"))
        await fan.track_payment_event(ITEM)
        await fan.track_many(numbered_events(100))
        result = await fan.flush_data(0.5)

        assert len(sandbox.engine.events(PROJECT)) == 101
        assert result.remaining == 1


@pytest.mark.file_only
async def test_events_are_encoded_once(connect: Connect, tmp_path: Path) -> None:
    """An event is encoded when it is tracked: the bytes in the queue are the bytes that are sent."""
    async with ScriptedServer(ReceivedRequest.accept) as platform:
        client = await connect(flush_mode="MANUAL", base_url=platform.url)
        await client.track_event(Event("x", {"a": [1, {"b": "ü"}]}, 1.5))
        (body,) = stored_bodies(tmp_path / "queue.sqlite")
        await client.flush_data(60)

    assert body in platform.requests[0].body
