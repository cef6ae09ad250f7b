"""
Subjects: devices, customers, and the current one.
"""

import asyncio
import gc
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from aiohttp import web
from helpers.clients import Connect, pending_data
from helpers.environment import SetConstants
from helpers.queue_file import store_states, stored_state
from helpers.scripted_server import ReceivedRequest, ScriptedServer
from helpers.waiting import until

from exponea_async import Customer, DeliveryEvent, Device, Event, Exponea, Hooks, InvalidEventError
from exponea_async.devices import store
from exponea_async.sandbox import Sandbox

JANE = {"registered": "jane@example.com"}


#: The events that a new device tracks by itself.
LIFE = ["installation", "session_start"]


@pytest.fixture
def connect(connect: Connect) -> Connect:
    """Start clients whose verbs are about the default device."""
    return partial(connect, device=True)


async def names_of(client: Exponea) -> list[str]:
    return [data.get("event_type", "") for data in await pending_data(client)]


async def tracked(client: Exponea) -> list[dict[str, Any]]:
    """Return the data of the queue, without the events that devices track by themselves."""
    return [data for data in await pending_data(client) if data.get("event_type") not in LIFE]


async def ids_of(client: Exponea) -> list[dict[str, str]]:
    return [data["customer_ids"] for data in await tracked(client)]


def cached_devices() -> set[store.CachedDevice]:
    """Return the devices in memory, those that other tests have left included."""
    # By type(): isinstance() would make the lazy objects of other libraries load what they stand for.
    return {each for each in gc.get_objects() if type(each) is store.CachedDevice}


class TestDevices:
    async def test_a_device_survives_a_restart(self, connect: Connect) -> None:
        """The cookie, the ids and the device id are the same after a restart."""
        for _ in range(2):
            client = await connect(flush_mode="MANUAL")
            await client.device("tg:1").identify_customer(Customer({"telegram": "1"}))
            await client.device("tg:1").track_event(Event("ping"))
            await client.aclose()
        client = await connect(flush_mode="MANUAL")
        first, event, again, last = await tracked(client)

        assert first["customer_ids"] == event["customer_ids"] == again["customer_ids"] == last["customer_ids"]
        assert event["properties"] == last["properties"]
        assert set(event["customer_ids"]) == {"cookie", "telegram"}
        assert (await names_of(client))[:2] == LIFE

    async def test_devices_are_independent(self, connect: Connect) -> None:
        """Each device has ids of its own; no key of an application is that of the client's own device."""
        client = await connect(flush_mode="MANUAL")
        for subject in (client, client.device("default"), client.device("tg:1"), client.device("tg:2")):
            await subject.track_event(Event("ping"))
        own, default, one, two = await tracked(client)

        assert own["customer_ids"] != default["customer_ids"]
        assert len({data["customer_ids"]["cookie"] for data in (own, one, two)}) == 3
        assert len({data["properties"]["device_id"] for data in (own, one, two)}) == 3
        assert not {own["customer_ids"]["cookie"]} & {own["properties"]["device_id"]}

    async def test_events_carry_the_ids_of_their_time(self, connect: Connect) -> None:
        """Earlier events keep the ids that they were tracked with, later ones carry all."""
        client = await connect(flush_mode="MANUAL")
        await client.track_event(Event("a"))
        await client.identify_customer(Customer({"registered": "R"}))
        await client.track_event(Event("b"))
        cookie = await client.get_customer_cookie()

        everything = {"cookie": cookie, "registered": "R"}
        assert await ids_of(client) == [{"cookie": cookie}, everything, everything]

    async def test_ids_are_merged(self, connect: Connect) -> None:
        """New kinds of ids are added, equal kinds are replaced, and no ids change nothing."""
        client = await connect(flush_mode="MANUAL")
        for ids in ({"registered": "R", "crm": "1"}, {"registered": "S"}, {}):
            await client.identify_customer(Customer(ids))
        *_, changed, same = await ids_of(client)

        assert changed == same == {"cookie": changed["cookie"], "registered": "S", "crm": "1"}

    async def test_every_identify_is_sent(self, connect: Connect, sandbox: Sandbox) -> None:
        """Three updates are three updates on the platform, in their order."""
        client = await connect()
        for number in range(3):
            await client.identify_customer(Customer(JANE, {"number": number, f"n{number}": True}))
        await client.flush_data(60)

        (customer,) = sandbox.engine.customers()
        assert customer.properties == {"number": 2, "n0": True, "n1": True, "n2": True}

    async def test_a_cookie_among_the_ids_is_ignored(self, connect: Connect, caplog: pytest.LogCaptureFixture) -> None:
        """A cookie among the ids is ignored, with a warning that does not show it."""
        client = await connect(flush_mode="MANUAL")
        await client.identify_customer(Customer({"registered": "R", "cookie": "zzz"}))

        assert await ids_of(client) == [{"registered": "R", "cookie": await client.get_customer_cookie()}]
        (warning,) = caplog.messages
        assert "cookie" in warning
        assert "zzz" not in warning

    @pytest.mark.parametrize(
        ("ids", "path"),
        [
            ({"registered": 5}, "customer.ids.registered"),
            ({"registered": ""}, "customer.ids.registered"),
            ({"registered": " \t"}, "customer.ids.registered"),
            ({"registered": "null"}, "customer.ids.registered"),
            ({"registered": " undefined "}, "customer.ids.registered"),
            ({"registered": "-@."}, "customer.ids.registered"),
            ({"registered": "jane\ud800"}, "customer.ids.registered"),
            ({5: "x"}, "customer.ids"),
            ({"": "x"}, "customer.ids"),
            ({" ": "x"}, "customer.ids"),
            ("registered", "customer.ids"),
            (None, "customer.ids"),
        ],
    )
    async def test_wrong_ids(self, connect: Connect, ids: Any, path: str) -> None:
        """Ids that the platform refuses are refused by name, and neither recorded nor remembered."""
        client = await connect(flush_mode="MANUAL")
        with pytest.raises(InvalidEventError) as raised:
            await client.identify_customer(Customer(ids))
        await client.track_event(Event("ping"))

        assert raised.value.path == path
        assert [set(each) for each in await ids_of(client)] == [{"cookie"}]

    @pytest.mark.parametrize("key", ["", " ", None, 5, b"x", "\ud800"])
    async def test_wrong_keys(self, connect: Connect, key: Any) -> None:
        """The key of a device must be a string that is not blank."""
        with pytest.raises(InvalidEventError, match="key"):
            (await connect()).device(key)

    @pytest.mark.parametrize("key", ["x" * 2000, "🦊", "a\nb", "default ", "'; DROP TABLE state; --"])
    async def test_strange_keys(self, connect: Connect, key: str) -> None:
        """Any non-empty string is the key of a device of its own."""
        client = await connect()
        await client.device(key).open()

        assert await client.device(key).get_customer_cookie() != await client.get_customer_cookie()

    async def test_opening_a_device(self, connect: Connect) -> None:
        """A device that is only opened tracks its installation and a session, once, with its cookie and device id."""
        client = await connect(flush_mode="MANUAL")
        await client.device("tg:1").open()
        await client.device("tg:1").open()
        cookie = await client.device("tg:1").get_customer_cookie()
        everything = await pending_data(client)

        assert [data["event_type"] for data in everything] == LIFE
        assert [data["customer_ids"] for data in everything] == [{"cookie": cookie}] * 2
        assert len({data["properties"]["device_id"] for data in everything}) == 1
        assert repr(client.device("tg:1")) == "<Device 'tg:1'>"

    @pytest.mark.file_only
    async def test_a_client_alone_creates_no_device(self, connect: Connect, tmp_path: Path) -> None:
        """A client that tracks for customers only stores no device."""
        client = await connect(flush_mode="MANUAL")
        await client.for_customer(JANE).track_event(Event("ping"))
        await client.track_many([(JANE, Event("ping"))])

        assert await names_of(client) == ["ping", "ping"]
        assert stored_state(tmp_path / "queue.sqlite", "device:@default") is None

    async def test_one_device_in_many_tasks(self, connect: Connect) -> None:
        """A new device that many tasks use at once is created once."""
        client = await connect(flush_mode="MANUAL")
        await asyncio.gather(*(client.device("tg:1").track_event(Event("ping")) for _ in range(100)))

        assert len({data["customer_ids"]["cookie"] for data in await pending_data(client)}) == 1
        assert await names_of(client) == [*LIFE, *["ping"] * 100]

    async def test_concurrent_identifies_lose_nothing(self, connect: Connect) -> None:
        """Ids of concurrent calls are all remembered."""
        client = await connect(flush_mode="MANUAL")
        await asyncio.gather(*(client.identify_customer(Customer({f"id{each}": "x"})) for each in range(20)))
        await client.track_event(Event("ping"))

        assert set((await ids_of(client))[-1]) == {"cookie", *(f"id{each}" for each in range(20))}

    async def test_more_devices_than_fit_in_memory(self, connect: Connect, set_constants: SetConstants) -> None:
        """Devices that were evicted from memory are the same when they are used again, also while they are in use."""
        before = cached_devices()
        set_constants(store, CAPACITY=5)
        client = await connect(flush_mode="MANUAL")
        keys = [f"tg:{number}" for number in range(60)]
        for _ in range(3):
            await asyncio.gather(*(client.device(key).identify_customer(Customer({"telegram": key})) for key in keys))
            await asyncio.gather(*(client.device(key).track_event(Event("ping")) for key in reversed(keys)))

        found = {(ids["telegram"], ids["cookie"]) for ids in await ids_of(client)}
        assert len(found) == 60
        assert (await names_of(client)).count("installation") == 60
        assert len(cached_devices() - before) == 5

    @pytest.mark.file_only
    @pytest.mark.parametrize(
        "stored",
        [
            b'{"cookie": 1',
            b'{"cookie": 1, "device_id": "d"}',
            b'{"cookie": "c", "device_id": "d", "ids": {"registered": 5}}',
            b'{"cookie": "c", "device_id": "d", "session_start": "yesterday"}',
            b'{"cookie": "c", "device_id": "d", "session_start": NaN}',
            b'{"cookie": "c", "device_id": "d", "messages": [["m", "t", null]]}',
            b'{"cookie": "c", "device_id": "d", "campaign": {"created_at": 1.0, "url": []}}',
            b'{"cookie": "c", "device_id": "d", "mapping": []}',
            b"[]",
            b"\xff\x00",
        ],
    )
    async def test_a_state_that_cannot_be_used(
        self, connect: Connect, tmp_path: Path, stored: bytes, caplog: pytest.LogCaptureFixture
    ) -> None:
        """It is set aside with one notice, and the device starts afresh and goes on; others are not affected."""
        deliveries: list[DeliveryEvent] = []
        client = await connect(flush_mode="MANUAL", hooks=Hooks(listeners=[deliveries.append]))
        await store_states(tmp_path / "queue.sqlite", {"device:tg:1": stored})
        await client.device("tg:1").track_event(Event("ping"))
        await client.device("tg:1").identify_customer(Customer({"registered": "jane@example.com"}))
        await client.device("tg:1").anonymize()
        await client.device("tg:2").track_event(Event("ping"))

        assert (await names_of(client))[: len(LIFE) + 1] == [*LIFE, "ping"]
        assert stored_state(tmp_path / "queue.sqlite", "damaged:device:tg:1") == stored
        (notice,) = [record for record in caplog.records if record.levelname == "ERROR"]
        assert "'device:tg:1'" in notice.getMessage()
        assert "starts afresh" in notice.getMessage()
        assert [event.kind for event in deliveries] == ["damaged"]


class TestTwoProcesses:
    async def test_a_new_device_is_created_once(self, connect: Connect) -> None:
        """Two clients that use a new device at the same time agree on its cookie."""
        one, two = await connect(flush_mode="MANUAL"), await connect(flush_mode="MANUAL")
        keys = [f"tg:{number}" for number in range(30)]
        cookies = await asyncio.gather(
            *(client.device(key).get_customer_cookie() for key in keys for client in (one, two))
        )

        assert cookies[::2] == cookies[1::2]
        assert sorted(await names_of(one)) == sorted(LIFE * 30)

    async def test_ids_of_the_other_client_are_used(self, connect: Connect) -> None:
        """After one client has identified the device, the next event of the other one carries the new ids."""
        one, two = await connect(flush_mode="MANUAL"), await connect(flush_mode="MANUAL")
        await one.track_event(Event("a"))
        await two.identify_customer(Customer(JANE))
        await one.track_event(Event("b"))
        await one.identify_customer(Customer({"crm": "1"}))
        await two.track_event(Event("c"))

        assert [len(ids) for ids in await ids_of(one)] == [1, 2, 2, 3, 3]
        assert len({ids["cookie"] for ids in await ids_of(one)}) == 1

    async def test_ids_of_both_clients_are_remembered(self, connect: Connect) -> None:
        """The ids of concurrent calls of two clients are all remembered."""
        clients = [await connect(flush_mode="MANUAL"), await connect(flush_mode="MANUAL")]
        await asyncio.gather(
            *(clients[each % 2].identify_customer(Customer({f"id{each}": "x"})) for each in range(20)),
            *(clients[each % 2].track_event(Event("ping")) for each in range(20)),
        )
        await clients[0].track_event(Event("last"))

        assert len((await ids_of(clients[0]))[-1]) == 21

    async def test_a_device_that_the_other_client_deleted(self, connect: Connect) -> None:
        """After one client has deleted everything, the other one drops events; once started, it has a new device."""
        one, two = await connect(flush_mode="MANUAL"), await connect(flush_mode="MANUAL")
        await one.identify_customer(Customer(JANE))
        cookie = await two.get_customer_cookie()
        await one.stop_integration()
        assert (await two.track_event(Event("ping"))).status == "dropped"
        assert two.is_stopped
        await two.start()
        await two.track_event(Event("ping"))

        assert await names_of(two) == [*LIFE, "ping"]
        (ids,) = await ids_of(two)
        assert set(ids) == {"cookie"}
        assert ids["cookie"] != cookie


class TestCustomers:
    async def test_exactly_the_ids_given(self, connect: Connect) -> None:
        """Events about a customer carry its ids, and neither a cookie nor a device id of the process."""
        client = await connect(flush_mode="MANUAL")
        await client.track_event(Event("of the process"))
        tracker = client.for_customer(JANE)
        await tracker.track_event(Event("a", {"application_id": "evil"}))
        await tracker.identify_customer(Customer({"crm": "1"}, {"n": 1}))
        await tracker.track_event(Event("b"))
        _, first, update, second = await tracked(client)

        assert first["customer_ids"] == second["customer_ids"] == JANE
        assert first["properties"] == second["properties"] == {"application_id": "default-application"}
        assert update["customer_ids"] == {**JANE, "crm": "1"}

    async def test_a_device_id_from_the_caller(self, connect: Connect) -> None:
        """Events about a customer may carry a device id of the caller's; a device has its own."""
        client = await connect(flush_mode="MANUAL")
        for subject in (client.for_customer(JANE), client):
            await subject.track_event(Event("ping", {"device_id": "till 5"}))
        told, own = await tracked(client)

        assert told["properties"]["device_id"] == "till 5"
        assert own["properties"]["device_id"] != "till 5"

    async def test_a_cookie_that_is_given_is_sent(self, connect: Connect) -> None:
        """A web backend can pass on its visitor's own cookie."""
        client = await connect(flush_mode="MANUAL")
        await client.for_customer({"cookie": "of the browser"}).track_event(Event("ping"))

        assert await ids_of(client) == [{"cookie": "of the browser"}]

    async def test_ids_are_a_copy(self, connect: Connect) -> None:
        """Later changes of the dict that was given have no effect."""
        client = await connect(flush_mode="MANUAL")
        given = dict(JANE)
        tracker = client.for_customer(given)
        given["registered"] = "eve@example.com"
        await tracker.track_event(Event("ping"))

        assert dict(tracker.ids) == JANE
        assert await ids_of(client) == [JANE]
        assert "jane" not in repr(tracker)

    @pytest.mark.parametrize("ids", [{}, None, "jane", {"registered": 5}, {"registered": "null"}, {5: "x"}, ["a"]])
    async def test_wrong_ids(self, connect: Connect, ids: Any) -> None:
        """A customer has at least one id, and all ids are such that the platform accepts them."""
        with pytest.raises(InvalidEventError, match="ids"):
            (await connect()).for_customer(ids)

    async def test_a_customer_has_no_cookie(self, connect: Connect) -> None:
        """Requesting the cookie while a customer is bound is an error."""
        client = await connect()
        with client.bind(client.for_customer(JANE)), pytest.raises(InvalidEventError, match="no cookie"):
            await client.get_customer_cookie()


def without(kind: str) -> Callable[[ReceivedRequest], web.Response]:
    """Return the script of a project that does not have a type of id."""

    def respond(request: ReceivedRequest) -> web.Response:
        return request.respond(
            [f"Unknown id {kind}." if kind in each["data"]["customer_ids"] else None for each in request.commands]
        )

    return respond


class TestIds:
    async def test_ids_are_trimmed(self, connect: Connect, sandbox: Sandbox) -> None:
        """Blanks round an id do not count, as on the platform: the SDK compares and remembers ids without them."""
        client = await connect(flush_mode="MANUAL")
        await client.identify_customer({"registered": " jane\n"})
        await client.for_customer({"registered": "\tjane "}).track_event(Event("ping"))
        await client.track_many([({"registered": "jane\u00a0"}, Event("ping"))])
        await client.flush_data(60)

        assert {event.customer_ids.get("registered") for event in sandbox.engine.events(event_type="ping")} == {"jane"}
        assert client.stats().rejected == 0

    async def test_uuids(self, connect: Connect) -> None:
        """An id may be a UUID, which is sent as a string."""
        identifier = uuid4()
        client = await connect(flush_mode="MANUAL")
        await client.for_customer({"registered": identifier}).track_event(Event("ping"))  # type: ignore[dict-item]

        assert await ids_of(client) == [{"registered": str(identifier)}]

    async def test_ids_are_normalized(self, connect: Connect) -> None:
        """The function of the configuration gets each id that the application gives, trimmed, and its result counts."""

        def lower(kind: str, value: str) -> str:
            return f"{value.lower()} " if kind == "email" else value

        client = await connect(flush_mode="MANUAL", normalize_id=lower)
        ids = {"email": " Jane@Example.com", "registered": "J"}
        await client.identify_customer(ids)
        await client.for_customer(ids).track_event(Event("ping"))
        await client.track_many([(ids, Event("ping"))])

        cookie = await client.get_customer_cookie()
        expected = {"email": "jane@example.com", "registered": "J"}
        assert await ids_of(client) == [{"cookie": cookie, **expected}, expected, expected]

    @pytest.mark.parametrize(
        "normalize", [lambda _kind, _value: "null", lambda _kind, _value: None, lambda _kind, value: value / 0]
    )
    async def test_a_function_that_fails(self, connect: Connect, normalize: Any) -> None:
        """What it raises, or returns instead of an id, is an error that names the id."""
        client = await connect(normalize_id=normalize)
        for call in (client.for_customer, client.identify_customer):
            with pytest.raises(InvalidEventError, match=r"ids\.registered"):
                await call(JANE)  # type: ignore[misc]

    async def test_an_id_is_taken_back(self, connect: Connect, sandbox: Sandbox) -> None:
        """A device forgets an id whose value is None, also after a restart; its other ids stay."""
        client = await connect(flush_mode="MANUAL")
        await client.identify_customer(Customer({"registerd": "jane", "email": "jane@example.com"}))
        await client.identify_customer({"registerd": None, "unknown": None, "cookie": None})
        await client.track_event(Event("ping"))
        await client.aclose(timeout=0)
        client = await connect(flush_mode="MANUAL")
        await client.identify_customer({"registered": "jane", "registerd": None})

        wrong, *later = await ids_of(client)
        assert wrong.pop("registerd") == "jane"
        assert later == [wrong, wrong, {**wrong, "registered": "jane"}]

    async def test_a_rejected_device_is_healed(self, connect: Connect) -> None:
        """After a type of id that the project does not have is taken back, the platform accepts later events."""
        server = ScriptedServer(without("registerd"))
        async with server:
            client = await connect(flush_mode="MANUAL", base_url=server.url)
            await client.identify_customer({"registerd": "jane"})
            await client.track_event(Event("ping"))
            before = await client.flush_data(60)
            await client.identify_customer({"registerd": None})
            await client.track_event(Event("ping"))
            after = await client.flush_data(60)

        assert (before.rejected, after.rejected, after.delivered) == (2, 0, 2)

    async def test_a_customer_tracker_has_nothing_to_take_back(self, connect: Connect) -> None:
        """It is an error there, since its ids are those it was created with."""
        client = await connect()
        with pytest.raises(InvalidEventError, match=r"customer\.ids\.registered"):
            await client.for_customer(JANE).identify_customer({"registered": None})


class TestBinding:
    async def test_the_bound_subject_is_current(self, connect: Connect) -> None:
        """Within the block the client's verbs are about the subject; after it, about the previous one."""
        client = await connect(flush_mode="MANUAL")
        tracker, device = client.for_customer(JANE), client.device("tg:1")
        seen = [client.current]
        with client.bind(tracker):
            seen.append(client.current)
            await client.track_event(Event("a"))
            with client.bind(device):
                seen.append(client.current)
                await client.identify_customer(Customer({"telegram": "1"}))
            seen.append(client.current)
            await client.track_many([Event("b")])
        seen.append(client.current)

        assert seen[1:4] == [tracker, device, tracker]
        assert seen[0] is seen[4]
        assert isinstance(seen[0], Device)
        assert [sorted(ids) for ids in await ids_of(client)] == [["registered"], ["cookie", "telegram"], ["registered"]]

    async def test_an_error_ends_the_binding(self, connect: Connect) -> None:
        """After a block that failed nothing is bound."""
        client = await connect()
        with pytest.raises(ZeroDivisionError), client.bind(client.for_customer(JANE)):
            raise ZeroDivisionError

        assert isinstance(client.current, Device)

    async def test_bindings_of_tasks_are_independent(self, connect: Connect) -> None:
        """Concurrent tasks are about their own customers, and so are the tasks that they start."""
        client = await connect(flush_mode="MANUAL")

        async def request(who: str) -> None:
            with client.bind(client.for_customer({"registered": who})):
                for _ in range(5):
                    await asyncio.create_task(client.track_event(Event(who)))
                    await asyncio.sleep(0)

        await asyncio.gather(*(request(f"customer {number}") for number in range(10)))

        everything = await pending_data(client)
        assert len(everything) == 50
        assert all(data["event_type"] == data["customer_ids"]["registered"] for data in everything)

    async def test_the_subject_of_the_call_counts(self, connect: Connect) -> None:
        """A subject that is bound while an earlier verb waits does not get that verb's event."""
        client = await connect(flush_mode="MANUAL")
        earlier = asyncio.create_task(client.track_event(Event("ping")))
        await asyncio.sleep(0)
        with client.bind(client.for_customer(JANE)):
            await earlier

        assert [list(ids) for ids in await ids_of(client)] == [["cookie"]]

    async def test_bindings_of_clients_are_independent(self, connect: Connect, tmp_path: Any) -> None:
        """A subject is current for the client that it was bound to."""
        one, two = await connect(flush_mode="MANUAL"), await connect(flush_mode="MANUAL", storage=tmp_path / "2")
        with one.bind(one.for_customer(JANE)), two.bind(two.device("tg:1")):
            await one.track_event(Event("a"))
            await two.track_event(Event("b"))

        assert (await ids_of(one), [list(ids) for ids in await ids_of(two)]) == ([JANE], [["cookie"]])

    async def test_a_subject_of_another_client(self, connect: Connect, tmp_path: Any) -> None:
        """A subject can be bound to its own client only."""
        one, two = await connect(), await connect(storage=tmp_path / "2")
        for subject in (two.device("tg:1"), two.for_customer(JANE), two, "tg:1", None):
            with pytest.raises(TypeError, match="subject"):
                one.bind(subject)  # type: ignore[arg-type]


async def test_the_platform_merges_a_customer(connect: Connect, sandbox: Sandbox) -> None:
    """Events before and after the login belong to one customer on the platform; another device's do not."""
    client = await connect()
    await client.track_event(Event("before"))
    await client.identify_customer(Customer(JANE))
    await client.track_event(Event("after"))
    await client.device("tg:1").track_event(Event("other"))
    await client.flush_data(60)
    await until(lambda: len(sandbox.engine.events()) == 3 + 2 * len(LIFE))

    jane = sandbox.engine.customer("shop", JANE)
    assert jane is not None
    assert (jane.events, len(sandbox.engine.customers())) == (2 + len(LIFE), 2)
    assert json.loads(json.dumps(jane.ids)) == {"registered": [JANE["registered"]], "cookie": list(jane.ids["cookie"])}
