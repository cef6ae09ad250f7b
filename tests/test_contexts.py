"""
The contexts of subjects: what features are notified of, what they store and what they request.
"""

import asyncio
from pathlib import Path

import pytest
from attrs import evolve
from helpers.app import App
from helpers.clients import SOMEONE, Connect
from helpers.internals import context_of, device_context, features_of
from helpers.queue_file import failing
from helpers.waiting import until

from exponea_async import (
    ClosedError,
    ConfigurationChange,
    Customer,
    Event,
    Exponea,
    ExponeaProject,
    Hooks,
    NotStartedError,
    Receipt,
    RequestRefusedError,
)
from exponea_async.devices.context import SubjectContext
from exponea_async.devices.customers import CustomerSnapshot, TrackedEvent
from exponea_async.devices.features import Feature
from exponea_async.devices.impressions import Impression
from exponea_async.devices.state import DeviceState, TimestampSequence, UpdateResult
from exponea_async.messages import AppInboxMessage, InAppMessage
from exponea_async.models import EventType
from exponea_async.requests import ApiRequest
from exponea_async.sandbox import Fault, Sandbox

PAYLOAD = {"source": "xnpe_platform", "title": "Sale", "has_tracking_consent": "false"}


class Probe(Feature):
    """A feature that keeps what it is notified of."""

    name = "probe"

    def __init__(self) -> None:
        super().__init__()
        self.listening = True
        self.events: list[TrackedEvent] = []
        self.calls: list[tuple[str, str | None]] = []
        self.receipts: list[Receipt] = []

    @property
    def is_listening(self) -> bool:
        return self.listening

    def tracked(self, context: SubjectContext, event: TrackedEvent) -> None:
        self.events.append(event)

    def launched(self, context: SubjectContext) -> None:
        self.calls.append(("launched", context.key))

    def identified(self, context: SubjectContext, receipt: Receipt, previous: CustomerSnapshot | None) -> None:
        self.calls.append(("identified", context.key))
        self.receipts.append(receipt)

    def anonymized(self, context: SubjectContext) -> None:
        self.calls.append(("anonymized", context.key))

    def clear(self) -> None:
        self.calls.append(("clear", None))

    def close(self) -> None:
        self.calls.append(("close", None))

    def names(self) -> list[str]:
        return [each.event.name for each in self.events]


def add_probe(client: Exponea) -> Probe:
    """Add a probe to the features of a client."""
    probe = Probe()
    features_of(client).add(probe)
    return probe


class TestTrackedEvents:
    async def test_features_get_the_event_as_it_is_sent(self, app: App) -> None:
        """With the default properties, those of the SDK, the timestamp, the customer and the receipt."""
        client = await app.start(default_properties={"shop": "nice"}, application_id="com.shop")
        probe = add_probe(client)
        receipt = await client.track_event(Event("view", {"item": "mug", "application_id": "evil"}))

        tracked = probe.events[-1]
        cookie, device_id = await client.get_customer_cookie(), (await app.pending("view"))[0].properties["device_id"]
        assert tracked.event.properties == {
            "shop": "nice",
            "item": "mug",
            "application_id": "com.shop",
            "device_id": device_id,
        }
        assert (tracked.event.name, tracked.kind, tracked.receipt) == ("view", EventType.TRACK_EVENT, receipt)
        assert (tracked.customer.ids, tracked.customer.device) == ({"cookie": cookie}, "@default")
        assert round(tracked.timestamp, 3) == 1000.0

    async def test_the_timestamp_of_the_caller(self, app: App) -> None:
        """The timestamp that an event was given is passed on, also 0."""
        client = await app.start()
        await client.track_event(Event("first"))
        probe = add_probe(client)
        for timestamp in (20.0, 0.0):
            await client.track_event(Event("a", timestamp=timestamp))

        assert [each.timestamp for each in probe.events] == [20.0, 0.0]

    async def test_events_that_a_device_tracks_by_itself(self, app: App) -> None:
        """The installation and the sessions, in order, each once."""
        client = await app.start(at=1000)
        probe = add_probe(client)
        await client.track_event(Event("a"))
        app.now = 2000
        await client.track_event(Event("b"))
        await client.track_event(Event("c"))

        assert probe.names() == ["installation", "session_start", "a", "session_end", "session_start", "b", "c"]
        assert [each.kind for each in probe.events[:2]] == [EventType.INSTALL, EventType.SESSION_START]

    async def test_many_events(self, app: App) -> None:
        """The events of one commit are passed on, except those about other customers."""
        client = await app.start()
        await client.track_event(Event("first"))
        probe = add_probe(client)
        await client.track_many([Event("a"), ({"registered": "joe"}, Event("joe's")), Event("b", timestamp=5.0)])

        assert [(each.event.name, round(each.timestamp, 3)) for each in probe.events] == [
            ("a", 1000.0),
            ("b", 5.0),
        ]

    async def test_events_without_consent(self, app: App) -> None:
        """They are not recorded, but they have happened."""
        client = await app.start()
        probe = add_probe(client)
        await client.track_delivered_push(PAYLOAD)
        await client.track_clicked_push(PAYLOAD)

        tracked = probe.events[-2:]
        assert [each.event.properties["status"] for each in tracked] == ["delivered", "clicked"]
        assert [each.receipt for each in tracked] == [None, None]
        assert await app.pending("campaign") == []

    async def test_events_are_not_carried_without_subscribers(self, app: App) -> None:
        """While no feature listens, the recorder does not keep events for them."""
        client = await app.start()
        probe = add_probe(client)
        await client.track_event(Event("a"))
        probe.listening = False
        await client.track_event(Event("b"))
        assert features_of(client).has_subscribers is False
        probe.listening = True
        await client.track_event(Event("c"))

        assert "b" not in probe.names()
        assert "c" not in probe.names()

    async def test_events_of_a_customer_tracker(self, app: App) -> None:
        """They are not passed on, since nothing is remembered about the customer."""
        client = await app.start()
        probe = add_probe(client)
        await client.for_customer(SOMEONE).track_event(Event("a"))

        assert probe.events == []

    async def test_before_track_comes_first(self, app: App) -> None:
        """Events that ``before_track`` drops are not passed on, and others as it has changed them."""
        hooks = Hooks(
            before_track=lambda event: None if event.name == "secret" else evolve(event, name="x-" + event.name)
        )
        client = await app.start(hooks=hooks)
        probe = add_probe(client)
        await client.track_event(Event("secret"))
        await client.track_event(Event("a"))

        assert probe.names() == ["x-installation", "x-session_start", "x-a"]


class TestEventsWhereTheClientDoesNotRun:
    @pytest.mark.parametrize("consent", [True, False])
    async def test_a_closed_client_raises(self, app: App, *, consent: bool) -> None:
        """An event about a customer raises an error, also if it would not be tracked for want of consent."""
        client = await app.start()
        message = InAppMessage(id="m", name="M", has_tracking_consent=consent, customer_ids=SOMEONE)
        await client.aclose(timeout=0)

        with pytest.raises(ClosedError):
            await client.track_in_app_message_close(message)
        with pytest.raises(ClosedError):
            await client.for_customer(SOMEONE).track_in_app_message_close(message)

    @pytest.mark.parametrize("consent", [True, False])
    async def test_a_stop_drops_an_event_once(self, app: App, *, consent: bool) -> None:
        """An event that a stop overtakes is dropped, and counts as one dropped event."""
        client = await app.start()
        message = AppInboxMessage(id="m", type="push", has_tracking_consent=consent, customer_ids=SOMEONE)
        receipt, _ = await asyncio.gather(
            client.track_app_inbox_opened(message), client.stop_integration(everyone=True)
        )

        assert receipt.status == "dropped"
        assert client.stats().dropped == {"stopped": 1}


class TestLifeCycle:
    async def test_the_life_of_a_device(self, app: App) -> None:
        """Features are notified once each of a device's launch, identification and anonymization."""
        client = await app.start()
        probe = add_probe(client)
        receipt = await client.device("d").identify_customer(Customer({"registered": "jane"}))
        await client.device("d").track_event(Event("a"))
        await client.device("d").anonymize()

        assert probe.calls == [("launched", "d"), ("identified", "d"), ("anonymized", "d")]
        assert probe.receipts == [receipt]

    async def test_the_end_of_a_client(self, app: App) -> None:
        """Stopping the integration clears the features, closing the client closes them."""
        client = await app.start()
        probe = add_probe(client)
        await client.stop_integration(everyone=True)
        await client.aclose(timeout=0)

        assert probe.calls == [("clear", None), ("close", None)]


class TestCurrentCustomer:
    async def test_fingerprints(self, app: App) -> None:
        """Only identifying, anonymizing and switching the project change the fingerprint."""
        client = await app.start()
        context, marks = device_context(client), []

        async def mark() -> None:
            customer = await context.current_customer()
            assert customer is not None
            marks.append(customer.fingerprint)

        await mark()
        await client.track_event(Event("a"))
        await mark()
        assert marks[0] == marks[1]
        await client.identify_customer(Customer({"registered": "jane"}))
        await mark()
        await client.anonymize()
        await mark()
        await client.anonymize(ConfigurationChange(project=ExponeaProject("other", "key")))
        await mark()
        assert len(set(marks)) == 4

    async def test_background_work_is_not_activity(self, app: App) -> None:
        """Without `counts_as_activity` a device is neither created nor kept active."""
        client = await app.start()
        customer = await device_context(client).current_customer(counts_as_activity=False)

        assert await app.pending() == []
        assert customer is not None
        await device_context(client).current_customer()
        assert await app.names() == ["installation", "session_start"]

    async def test_the_customer_of_a_tracker(self, app: App) -> None:
        """A tracker has the given ids and no device."""
        client = await app.start()
        context = context_of(client.for_customer(SOMEONE))
        customer = await context.current_customer()

        assert customer is not None
        assert (customer.ids, customer.device, context.is_device) == (SOMEONE, None, False)

    async def test_no_customer_after_a_stop(self, app: App) -> None:
        """A stopped integration has no customer, and a client that is not running raises."""
        client = app.make()
        with pytest.raises(NotStartedError):
            await device_context(client).current_customer(counts_as_activity=False)
        await client.start()
        await client.stop_integration(everyone=True)
        assert await device_context(client).current_customer() is None
        assert await device_context(client).current_customer(counts_as_activity=False) is None


class TestStoredData:
    async def test_data_of_a_device(self, app: App) -> None:
        """Stored data survives a restart, under the device's key, until it is deleted."""
        client = await app.start()
        await device_context(client, "a").save_data("cache", b"one")
        await device_context(client, "a").save_data("cache", b"two")
        await device_context(client, "b").save_data("cache", b"three")
        client = await app.restart()

        assert await device_context(client, "a").load_data("cache") == b"two"
        assert await device_context(client, "b").load_data("cache") == b"three"
        await device_context(client, "a").save_data("cache", None)
        assert await device_context(client, "a").load_data("cache") is None
        await device_context(client, "a").save_data("cache", b"four")
        assert await device_context(client, "a").load_data("cache") == b"four"

    async def test_concurrent_writes(self, app: App) -> None:
        """The last one wins, and none fails."""
        client = await app.start()
        await asyncio.gather(*[device_context(client).save_data("cache", b"%d" % number) for number in range(20)])

        assert await device_context(client).load_data("cache") is not None

    async def test_a_stop_deletes_the_data(self, app: App) -> None:
        """Nothing is left, and nothing is stored while the integration is stopped."""
        client = await app.start()
        await device_context(client).save_data("cache", b"one")
        await client.stop_integration(everyone=True)
        await device_context(client).save_data("cache", b"two")
        assert await device_context(client).load_data("cache") is None
        await client.start()
        assert await device_context(client).load_data("cache") is None

    @pytest.mark.file_only
    async def test_a_failed_write_is_logged(self, app: App, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        """Data that cannot be stored is logged and not raised, since it is only a cache."""
        client = await app.start()
        with failing(tmp_path / "queue.sqlite", "INSERT ON state"):
            await device_context(client).save_data("cache", b"one")

        assert "could not be stored" in caplog.text

    async def test_a_customer_tracker_stores_nothing(self, app: App) -> None:
        """Data that a tracker saves is not stored."""
        context = context_of((await app.start()).for_customer(SOMEONE))
        await context.save_data("cache", b"one")

        assert await context.load_data("cache") is None

    async def test_impressions_are_stored(self, app: App) -> None:
        """They survive a restart. Identifying deletes those of blocks, anonymizing deletes all, and old ones expire."""
        client = await app.start(at=1000)

        def update(state: DeviceState, _: TimestampSequence) -> UpdateResult:
            shown = {"m": Impression(1000.0, None), "n": Impression(None, 900.5)}
            return evolve(state, messages=shown, blocks=shown), ()

        async def shown() -> tuple[set[str], set[str]]:
            state = await device_context(app.client).load_state()
            assert state is not None
            return set(state.messages), set(state.blocks)

        await device_context(client).transact(update)
        client = await app.restart()
        assert await shown() == ({"m", "n"}, {"m", "n"})
        await client.identify_customer(Customer({"registered": "jane"}))
        assert await shown() == ({"m", "n"}, set())
        await app.restart(at=950 + 30 * 86_400)
        assert await shown() == ({"m"}, set())
        await app.client.anonymize()
        assert await shown() == (set(), set())


class TestRequests:
    async def test_requests_go_to_the_devices_project(self, app: App, sandbox: Sandbox) -> None:
        """The path has the project's token, also after a device was switched to another one."""
        client = await app.start()
        context = device_context(client)
        await client.anonymize(ConfigurationChange(project=ExponeaProject("other", "other-key")))
        customer = await context.current_customer()
        assert customer is not None
        request = ApiRequest("customer_data", "/data/v2/projects/{project}/consent/categories")
        assert await context.request(customer, request) is not None

        assert sandbox.requests[-1].path.startswith("/data/v2/projects/other/")

    async def test_no_request_after_a_stop(self, app: App, sandbox: Sandbox) -> None:
        """There is neither a response nor an error, also if the integration is stopped during the request."""
        client = await app.start()
        context = device_context(client)
        customer = await context.current_customer()
        assert customer is not None
        sandbox.faults.add(Fault("timeout", seconds=600, paths="/webxp/"))
        request = ApiRequest("in_app_messages", "/webxp/s/{project}/inappmessages", {}, max_attempts=4)
        waiting = asyncio.create_task(context.request(customer, request))
        await until(lambda: sandbox.request_count > 0)
        await client.stop_integration(everyone=True)
        count = sandbox.request_count

        assert await asyncio.wait_for(waiting, 60) is None
        assert await context.request(customer, request) is None
        assert sandbox.request_count == count

    async def test_a_request_of_a_closed_client(self, app: App) -> None:
        """A request after the close raises an error."""
        client = await app.start()
        context = device_context(client)
        customer = await context.current_customer()
        assert customer is not None
        await client.aclose(timeout=0)

        with pytest.raises(ClosedError):
            await context.request(customer, ApiRequest("in_app_messages", "/webxp/s/{project}/inappmessages", {}))

    async def test_a_refused_request(self, connect: Connect) -> None:
        """A request that the platform refuses raises an error, and tracking goes on."""
        client = await connect()
        context = context_of(client.for_customer(SOMEONE))
        customer = await context.current_customer()
        assert customer is not None
        with pytest.raises(RequestRefusedError):
            await context.request(customer, ApiRequest("customer_data", "/nowhere/{project}"))
        await (await client.track_event(Event("a"))).delivered(timeout=60)
