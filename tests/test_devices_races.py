"""
Devices that many tasks use at once: nothing is tracked twice or under mixed ids.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from attrs import define, evolve
from helpers.clients import Configure, pending_data
from helpers.environment import SetConstants
from helpers.internals import before_storage_call, devices_of
from helpers.queue_file import failing, lose_rows, store_states, stored_state
from helpers.waiting import until

from exponea_async import (
    ConfigurationChange,
    Customer,
    Event,
    Exponea,
    ExponeaProject,
    Hooks,
    QueueFullError,
    QueueSettings,
    StorageError,
)
from exponea_async.devices import expirer
from exponea_async.testing import end_idle_sessions

JANE = {"registered": "jane"}
TIMEOUT = 60.0

pytestmark = pytest.mark.usefixtures("no_periodic_expiry")


@define
class Clock:
    """A clock that stands still until it is turned."""

    now: float = 1_700_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "queue.sqlite"


@pytest.fixture
async def client(configure: Configure, clock: Clock) -> AsyncIterator[Exponea]:
    async with Exponea(configure(flush_mode="MANUAL", session_timeout=TIMEOUT), clock=clock) as running:
        yield running


async def names(client: Exponea) -> Counter[str]:
    return Counter(data.get("event_type", "identify") for data in await pending_data(client))


class TestFirstActivity:
    async def test_a_new_device_in_many_tasks(self, client: Exponea) -> None:
        """A new device that many tasks use at once has one installation and one session."""
        await asyncio.gather(*(client.track_event(Event("ping", {"number": number})) for number in range(200)))

        assert await names(client) == {"installation": 1, "session_start": 1, "ping": 200}
        assert len({data["customer_ids"]["cookie"] for data in await pending_data(client)}) == 1

    async def test_an_idle_device_in_many_tasks(self, client: Exponea, clock: Clock) -> None:
        """When many tasks use a device after the timeout at once, one session ends and one begins."""
        await client.device("tg:1").open()
        clock.now += TIMEOUT
        device = client.device("tg:1")
        await asyncio.gather(*(device.track_event(Event("ping", {"number": number})) for number in range(200)))

        assert await names(client) == {"installation": 1, "session_start": 2, "session_end": 1, "ping": 200}

    async def test_the_end_of_a_session_comes_last(self, client: Exponea, clock: Clock) -> None:
        """The end of a session is later than its start, and not earlier than its events."""
        await client.device("tg:1").open()
        await client.device("tg:2").track_event(Event("ping"))
        await client.device("tg:3").track_event(Event("ping"))
        with client.bind(client.device("tg:3")):
            await client.track_many([Event("ping")] * 50)
        clock.now += TIMEOUT
        assert await end_idle_sessions(client) == 3

        by_cookie: dict[str, list[dict[str, Any]]] = {}
        for data in await pending_data(client):
            by_cookie.setdefault(data["customer_ids"]["cookie"], []).append(data)
        for events in by_cookie.values():
            _, start, *pings, end = events
            assert start["timestamp"] < end["timestamp"] >= max((each["timestamp"] for each in pings), default=0)
            assert end["properties"]["duration"] == 0

    async def test_timestamps_are_unique(self, client: Exponea) -> None:
        """Equal events have timestamps of their own, also those that create a device."""
        await client.track_many([Event("ping")] * 50)
        await client.track_many([Event("ping")] * 50)
        await client.track_event(Event("ping"))

        timestamps = [data["timestamp"] for data in await pending_data(client)]
        assert timestamps == sorted(set(timestamps))
        assert len(timestamps) == 103

    async def test_sessions_end_at_the_timeout(self, client: Exponea, clock: Clock) -> None:
        """Just before the timeout a session goes on; at the timeout the next one begins."""
        await client.track_event(Event("ping"))
        clock.now += TIMEOUT - 0.001
        assert await end_idle_sessions(client) == 0
        await client.track_event(Event("ping"))
        clock.now += TIMEOUT
        await client.track_event(Event("ping"))

        assert await names(client) == {"installation": 1, "session_start": 2, "session_end": 1, "ping": 3}


class Gate:
    """
    Lets a client's writes wait while it is closed.

    Args:
        client: The client.

    Attributes:
        waiting: The number of writes that wait since the last release.
    """

    def __init__(self, client: Exponea) -> None:
        self.waiting = 0
        self._opened = asyncio.Event()
        before_storage_call(client, "write", self._pass)

    async def release(self, count: int, *, stay_open: bool = False) -> None:
        """Wait until so many writes wait, and let them go on, and with ``stay_open`` all that follow."""
        await until(lambda: self.waiting == count)
        self.waiting = 0
        self._opened.set()
        if not stay_open:
            self._opened = asyncio.Event()

    async def _pass(self) -> None:
        self.waiting += 1
        await self._opened.wait()


class TestSharedCommits:
    async def test_a_new_device_in_many_tasks(self, client: Exponea) -> None:
        """The first caller creates a device alone; the events of all others are written together after it."""
        gate = Gate(client)
        calls = [asyncio.create_task(client.track_event(Event("ping"))) for _ in range(200)]
        await gate.release(1)
        await gate.release(199, stay_open=True)
        await asyncio.gather(*calls)

        assert await names(client) == {"installation": 1, "session_start": 1, "ping": 200}

    async def test_many_new_devices(self, client: Exponea) -> None:
        """Devices that begin at the same time share the look for withdrawals of other processes."""
        loads = 0

        async def count() -> None:
            nonlocal loads
            loads += 1

        before_storage_call(client, "load_state", count)
        await asyncio.gather(*(client.device(str(number)).track_event(Event("ping")) for number in range(200)))

        # One for each device, and a few looks.
        assert 200 < loads < 250
        assert await names(client) == {"installation": 200, "session_start": 200, "ping": 200}

    async def test_a_device_that_another_client_changes(self, client: Exponea, configure: Configure) -> None:
        """Where another client has replaced a device, its state is loaded once, and all events are written together."""
        await client.track_event(Event("ping"))
        async with Exponea(configure(flush_mode="MANUAL")) as other:
            await other.anonymize()
            cookie = await other.get_customer_cookie()
        gate = Gate(client)
        calls = [asyncio.create_task(client.track_event(Event("late"))) for _ in range(200)]
        await gate.release(200)
        await gate.release(200, stay_open=True)
        await asyncio.gather(*calls)

        late = [data for data in await pending_data(client) if data.get("event_type") == "late"]
        assert [data["customer_ids"]["cookie"] for data in late] == [cookie] * 200


class TestIdentities:
    async def test_identify_while_tracking(self, client: Exponea) -> None:
        """Events that are tracked during an identification carry the ids from before it or from after it."""
        cookie = await client.get_customer_cookie()
        verbs = [client.track_event(Event("ping", {"number": number})) for number in range(200)]
        await asyncio.gather(*verbs[:100], client.identify_customer(Customer(JANE)), *verbs[100:])

        found = [data["customer_ids"] for data in await pending_data(client)]
        assert all(ids in ({"cookie": cookie}, {"cookie": cookie, **JANE}) for ids in found)
        assert await names(client) == {"installation": 1, "session_start": 1, "ping": 200, "identify": 1}

    async def test_anonymize_while_tracking(self, client: Exponea) -> None:
        """Events that are tracked while a device is anonymized carry all ids of the old or of the new customer."""
        await client.identify_customer(Customer(JANE))
        old = await client.get_customer_cookie()
        verbs = [client.track_event(Event("ping", {"number": number})) for number in range(200)]
        await asyncio.gather(*verbs[:100], client.anonymize(), *verbs[100:])
        new = await client.get_customer_cookie()

        found = [data["customer_ids"] for data in await pending_data(client)][3:]
        assert all(ids in ({"cookie": old, **JANE}, {"cookie": new}) for ids in found)
        assert new != old
        expected = {"installation": 2, "session_start": 2, "session_end": 1, "ping": 200, "identify": 1}
        assert await names(client) == expected

    async def test_the_old_customers_session_ends_last(self, client: Exponea) -> None:
        """The events of the old customer are earlier than the end of the session, however close the calls are."""
        await client.track_event(Event("ping"))
        verbs = [client.track_event(Event("ping", {"number": number})) for number in range(50)]
        await asyncio.gather(client.anonymize(), *verbs, client.anonymize(), client.pause())

        customers: dict[str, list[dict[str, Any]]] = {}
        for data in await pending_data(client):
            customers.setdefault(data["customer_ids"]["cookie"], []).append(data)
        for events in customers.values():
            tracked = [data["event_type"] for data in sorted(events, key=lambda data: data["timestamp"])]
            assert tracked[:2] == ["installation", "session_start"]
            assert tracked.count("session_end") <= 1
            assert "session_end" not in tracked[:-1]

    @pytest.mark.file_only
    async def test_a_rescued_device_is_installed_once(self, client: Exponea, path: Path) -> None:
        """A device whose stored state was lost with its file keeps its identity, and is not installed again."""
        await client.identify_customer(Customer(JANE))
        cookie = await client.get_customer_cookie()
        lose_rows(path)
        devices_of(client).rescue()
        await client.track_event(Event("ping"))

        assert [data["customer_ids"] for data in await pending_data(client)] == [{"cookie": cookie, **JANE}]
        await client.anonymize()
        assert await names(client) == {"ping": 1, "session_end": 1, "installation": 1, "session_start": 1}


class TestExpiry:
    async def test_activity_at_the_timeout(self, client: Exponea, clock: Clock) -> None:
        """When sessions are expired during activity at the timeout, each ends once and one new session follows."""
        devices = [client.device(f"tg:{number}") for number in range(50)]
        await asyncio.gather(*(device.track_event(Event("ping")) for device in devices))
        clock.now += TIMEOUT
        tracked = [device.track_event(Event("ping")) for device in devices]
        expiries = [end_idle_sessions(client) for _ in range(3)]
        await asyncio.gather(expiries[0], *tracked[:25], expiries[1], *tracked[25:], expiries[2])

        expected = {"installation": 50, "session_start": 100, "session_end": 50, "ping": 100}
        assert await names(client) == expected

    @pytest.mark.file_only
    async def test_a_failed_call_does_not_keep_a_session_open(self, client: Exponea, clock: Clock, path: Path) -> None:
        """A call that the storage refused counts as activity, but the session still ends after the timeout."""
        await client.track_event(Event("ping"))
        clock.now += 10
        with failing(path), pytest.raises(StorageError):
            await client.track_event(Event("pong"))
        clock.now += TIMEOUT

        assert await end_idle_sessions(client) == 1
        assert await end_idle_sessions(client) == 0
        *_, end = await pending_data(client)
        assert (end["event_type"], round(end["properties"]["duration"])) == ("session_end", 10)

    @pytest.mark.file_only
    async def test_states_that_cannot_be_read(
        self,
        client: Exponea,
        clock: Clock,
        path: Path,
        set_constants: SetConstants,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        """They are set aside with one notice each, and the sessions behind them are ended."""
        set_constants(expirer, BATCH=5)
        await store_states(path, {f"device:{number}": b"{" for number in range(12)}, active=1.0)
        await client.track_event(Event("ping"))
        clock.now += TIMEOUT

        assert [await end_idle_sessions(client) for _ in range(3)] == [1, 0, 0]
        assert len(caplog.messages) == 12

    async def test_a_hook_that_fails(self, configure: Configure, clock: Clock) -> None:
        """A hook that raises at the end of one session costs that event; the session ends, and so do others."""

        def before_track(event: Event) -> Event:
            if event.name == "session_end" and event.properties["duration"] > 5:
                raise ZeroDivisionError
            return event

        settings = configure(flush_mode="MANUAL", session_timeout=TIMEOUT)
        async with Exponea(settings, hooks=Hooks(before_track), clock=clock) as client:
            await client.device("a").open()
            clock.now += 10
            await client.device("a").pause()
            await client.device("b").open()
            clock.now += TIMEOUT
            assert [await end_idle_sessions(client) for _ in range(2)] == [2, 0]
            assert (await names(client))["session_end"] == client.stats().dropped["before_track_failed"] == 1

    async def test_two_clients_on_one_file(self, configure: Configure, clock: Clock) -> None:
        """Two clients that expire sessions of one file at once end each session once."""
        settings = configure(flush_mode="MANUAL", session_timeout=TIMEOUT)
        async with Exponea(settings, clock=clock) as one, Exponea(settings, clock=clock) as two:
            await asyncio.gather(*(one.device(f"tg:{number}").open() for number in range(150)))
            clock.now += TIMEOUT + 1
            ended = await asyncio.gather(end_idle_sessions(one), end_idle_sessions(two))
            assert sum(ended) == (await names(one))["session_end"] == 150

    async def test_a_device_in_the_foreground_of_another_client(
        self, client: Exponea, configure: Configure, clock: Clock
    ) -> None:
        """If another client has ended its session, the next event begins a new one, also if it was read before."""
        device = client.device("tg:1")
        await device.resume()
        clock.now += TIMEOUT
        async with Exponea(configure(flush_mode="MANUAL", session_timeout=TIMEOUT), clock=clock) as other:
            await end_idle_sessions(other)
        assert await end_idle_sessions(client) == 0
        # As features do that read a customer in the background, which is no activity.
        devices = devices_of(client)
        await devices.load(devices.cached("device:tg:1"))
        await device.track_event(Event("ping"))

        types = [data["event_type"] for data in await pending_data(client)]
        assert types == ["installation", "session_start", "session_end", "session_start", "ping"]


class TestFailures:
    @pytest.mark.file_only
    @pytest.mark.parametrize("verb", ["track", "identify", "anonymize", "token", "click", "resume"])
    async def test_a_failed_first_activity_leaves_nothing(
        self, client: Exponea, clock: Clock, path: Path, verb: str
    ) -> None:
        """A call that the storage refuses leaves a device unchanged, and the next call tracks everything."""
        verbs: dict[str, Callable[[], Awaitable[object]]] = {
            "track": lambda: client.track_event(Event("ping")),
            "identify": lambda: client.identify_customer(Customer(JANE)),
            "anonymize": client.anonymize,
            "token": lambda: client.handle_push_token("T"),
            "click": lambda: client.handle_campaign_click("https://shop.example/?xnpe_cmp=x"),
            "resume": client.resume,
        }
        cookie = await client.get_customer_cookie()
        for state in ("new", "idle"):
            before = await pending_data(client)
            device = client.device("fresh") if state == "new" else client.current
            clock.now += TIMEOUT
            with failing(path), client.bind(device), pytest.raises(StorageError):
                await verbs[verb]()
            assert await pending_data(client) == before
        await client.device("fresh").track_event(Event("ping"))
        await client.track_event(Event("ping"))

        tracked = await pending_data(client)
        new, old = [
            [data for data in tracked if (data["customer_ids"] == {"cookie": cookie}) is own] for own in (False, True)
        ]
        assert [data["event_type"] for data in new] == ["installation", "session_start", "ping"]
        whole = ["installation", "session_start", "session_end", "session_start", "ping"]
        assert [data["event_type"] for data in old] == whole

    @pytest.mark.file_only
    async def test_a_full_queue(self, configure: Configure, path: Path) -> None:
        """A device that needs more capacity than there is is not created in part."""
        queue = QueueSettings(max_records=4)
        async with Exponea(configure(flush_mode="MANUAL", queue=queue)) as client:
            await client.device("a").open()
            with pytest.raises(QueueFullError):
                await client.device("b").track_event(Event("ping"))
            assert stored_state(path, "device:b") is None
            assert await names(client) == {"installation": 1, "session_start": 1}

    @pytest.mark.parametrize("steps", range(6))
    async def test_cancelled_calls(self, client: Exponea, clock: Clock, steps: int) -> None:
        """A cancelled call tracks everything or nothing, and the device works on."""
        for number in range(3):
            tasks = [
                asyncio.create_task(verb)
                for verb in (client.track_event(Event("ping")), client.anonymize(), client.resume())
            ]
            for _ in range(steps):
                await asyncio.sleep(0)
            tasks[number].cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            clock.now += TIMEOUT
        await client.track_event(Event("last"))
        await client.pause()
        clock.now += TIMEOUT
        await end_idle_sessions(client)

        tracked = await names(client)
        cookies = {data["customer_ids"]["cookie"] for data in await pending_data(client)}
        assert tracked["session_start"] == tracked["session_end"]
        assert (tracked["installation"], tracked["last"]) == (len(cookies), 1)


class TestStopping:
    async def expire(self, client: Exponea) -> None:
        # The client's own task logs it.
        with suppress(StorageError):
            await end_idle_sessions(client)

    @pytest.mark.parametrize("steps", [0, 1, 3, 8, 20])
    async def test_stopping_during_activity(self, client: Exponea, clock: Clock, steps: int) -> None:
        """Calls and expiries that meet a stop raise nothing and leave nothing, and a start is a new installation."""
        cookie = await client.device("tg:1").get_customer_cookie()
        clock.now += TIMEOUT
        change = ConfigurationChange(ExponeaProject("other", "secret"))
        devices = [client.device(f"tg:{number}") for number in range(5)]
        tasks = [
            asyncio.create_task(verb)
            for device in devices
            for verb in (
                device.track_event(Event("ping")),
                device.identify_customer(Customer(JANE)),
                device.anonymize(change),
                device.handle_push_token("T"),
                device.handle_campaign_click("https://shop.example/?xnpe_cmp=x"),
                device.resume(),
                device.get_customer_cookie(),
                self.expire(client),
            )
        ]
        for _ in range(steps):
            await asyncio.sleep(0)
        await client.stop_integration(everyone=True)
        await asyncio.gather(*tasks)
        assert await devices[0].handle_campaign_click("https://shop.example/?xnpe_cmp=x") is False
        assert [each.status for each in await devices[0].anonymize(change)] == ["dropped"]
        await client.start()

        assert await pending_data(client) == []
        assert await client.device("tg:1").get_customer_cookie() != cookie
        assert await names(client) == {"installation": 1, "session_start": 1}


async def test_a_manual_end_of_an_automatic_session(configure: Configure, clock: Clock) -> None:
    """A session that began automatically and was ended by a call does not end again."""
    settings = configure(flush_mode="MANUAL", session_timeout=TIMEOUT)
    async with Exponea(settings, clock=clock) as client:
        await client.get_customer_cookie()
    async with Exponea(evolve(settings, automatic_session_tracking=False), clock=clock) as client:
        clock.now += 5
        await client.track_session_end()
    async with Exponea(settings, clock=clock) as client:
        clock.now += TIMEOUT
        assert await end_idle_sessions(client) == 0
        assert await names(client) == {"installation": 1, "session_start": 1, "session_end": 1}
