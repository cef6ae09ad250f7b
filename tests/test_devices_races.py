"""
Devices that many use at once, while much else happens: nothing is told twice, or under a mixed identity.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from typing import Any

import pytest
from attrs import define, evolve
from helpers.clients import Configure, kept

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
from exponea_async.devices import expirer as sweeper
from exponea_async.storage.base import StateChange

JANE = {"registered": "jane"}
TIMEOUT = 60.0


@define
class Clock:
    """A clock that stands still until it is turned."""

    now: float = 1_700_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(autouse=True)
def idle_sweeper(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is swept but on demand."""

    async def never(_: object) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(sweeper.SessionExpirer, "_run", never)


@pytest.fixture
async def client(configure: Configure, clock: Clock) -> AsyncIterator[Exponea]:
    async with Exponea(configure(flush_mode="MANUAL", session_timeout=TIMEOUT), clock=clock) as running:
        yield running


async def names(client: Exponea) -> Counter[str]:
    return Counter(data.get("event_type", "identify") for data in await kept(client))


class Refusing:
    """A storage's `write` that refuses some calls."""

    def __init__(self, client: Exponea, monkeypatch: pytest.MonkeyPatch) -> None:
        self.write = client._storage.write
        self.error: Exception | None = None
        monkeypatch.setattr(client._storage, "write", self)

    async def __call__(self, *arguments: Any) -> Any:
        if self.error is not None:
            raise self.error
        return await self.write(*arguments)


class TestAwakening:
    async def test_a_new_device_in_many_tasks(self, client: Exponea) -> None:
        """However many begin with a device at once, it is installed once and begins one session."""
        await asyncio.gather(*(client.track_event(Event("ping", {"number": number})) for number in range(200)))

        assert await names(client) == {"installation": 1, "session_start": 1, "ping": 200}
        assert len({data["customer_ids"]["cookie"] for data in await kept(client)}) == 1

    async def test_a_silent_device_in_many_tasks(self, client: Exponea, clock: Clock) -> None:
        """However many come back after the timeout at once, one session ends and one begins."""
        await client.device("tg:1").open()
        clock.now += TIMEOUT
        device = client.device("tg:1")
        await asyncio.gather(*(device.track_event(Event("ping", {"number": number})) for number in range(200)))

        assert await names(client) == {"installation": 1, "session_start": 2, "session_end": 1, "ping": 200}

    async def test_an_end_comes_after_all_else(self, client: Exponea, clock: Clock) -> None:
        """The end of a session is later than its start and not earlier than its events, by the moments told."""
        await client.device("tg:1").open()
        await client.device("tg:2").track_event(Event("ping"))
        await client.device("tg:3").track_event(Event("ping"))
        with client.bind(client.device("tg:3")):
            await client.track_many([Event("ping")] * 50)
        clock.now += TIMEOUT
        assert await client._session_expirer.expire() == 3

        by_cookie: dict[str, list[dict[str, Any]]] = {}
        for data in await kept(client):
            by_cookie.setdefault(data["customer_ids"]["cookie"], []).append(data)
        for events in by_cookie.values():
            _, start, *pings, end = events
            assert start["timestamp"] < end["timestamp"] >= max((each["timestamp"] for each in pings), default=0)
            assert end["properties"]["duration"] == 0

    async def test_moments_are_nobody_elses(self, client: Exponea) -> None:
        """Equal events have moments of their own, also where many of them wake a device."""
        await client.track_many([Event("ping")] * 50)
        await client.track_many([Event("ping")] * 50)
        await client.track_event(Event("ping"))

        moments = [data["timestamp"] for data in await kept(client)]
        assert moments == sorted(set(moments))
        assert len(moments) == 103

    async def test_ended_before_the_timeout_or_not(self, client: Exponea, clock: Clock) -> None:
        """A moment before the timeout a session goes on; at the timeout the next one begins."""
        await client.track_event(Event("ping"))
        clock.now += TIMEOUT - 0.001
        assert await client._session_expirer.expire() == 0
        await client.track_event(Event("ping"))
        clock.now += TIMEOUT
        await client.track_event(Event("ping"))

        assert await names(client) == {"installation": 1, "session_start": 2, "session_end": 1, "ping": 3}


class TestIdentities:
    async def test_identify_while_tracking(self, client: Exponea) -> None:
        """Events that are tracked while somebody is identified carry the ids of before or those of after."""
        cookie = await client.get_customer_cookie()
        verbs = [client.track_event(Event("ping", {"number": number})) for number in range(200)]
        await asyncio.gather(*verbs[:100], client.identify_customer(Customer(JANE)), *verbs[100:])

        found = [data["customer_ids"] for data in await kept(client)]
        assert all(ids in ({"cookie": cookie}, {"cookie": cookie, **JANE}) for ids in found)
        assert await names(client) == {"installation": 1, "session_start": 1, "ping": 200, "identify": 1}

    async def test_anonymize_while_tracking(self, client: Exponea) -> None:
        """Events that are tracked while a device changes hands are the old customer's or the new one's, all ids."""
        await client.identify_customer(Customer(JANE))
        old = await client.get_customer_cookie()
        verbs = [client.track_event(Event("ping", {"number": number})) for number in range(200)]
        await asyncio.gather(*verbs[:100], client.anonymize(), *verbs[100:])
        new = await client.get_customer_cookie()

        found = [data["customer_ids"] for data in await kept(client)][3:]
        assert all(ids in ({"cookie": old, **JANE}, {"cookie": new}) for ids in found)
        assert new != old
        wanted = {"installation": 2, "session_start": 2, "session_end": 1, "ping": 200, "identify": 1}
        assert await names(client) == wanted

    async def test_a_farewell_comes_last(self, client: Exponea) -> None:
        """What the old customer is told of comes before the end of the session, however close the calls are."""
        await client.track_event(Event("ping"))
        verbs = [client.track_event(Event("ping", {"number": number})) for number in range(50)]
        await asyncio.gather(client.anonymize(), *verbs, client.anonymize(), client.pause())

        customers: dict[str, list[dict[str, Any]]] = {}
        for data in await kept(client):
            customers.setdefault(data["customer_ids"]["cookie"], []).append(data)
        for events in customers.values():
            told = [data["event_type"] for data in sorted(events, key=lambda data: data["timestamp"])]
            assert told[:2] == ["installation", "session_start"]
            assert told.count("session_end") <= 1
            assert "session_end" not in told[:-1]

    async def test_a_rescued_device_is_installed_once(self, client: Exponea) -> None:
        """A device whose stored state was lost with its file goes on as itself, and is not installed again."""
        await client.identify_customer(Customer(JANE))
        cookie = await client.get_customer_cookie()
        await client._storage.wipe()
        client._devices.rescue()
        await client.track_event(Event("ping"))

        assert [data["customer_ids"] for data in await kept(client)] == [{"cookie": cookie, **JANE}]
        await client.anonymize()
        assert await names(client) == {"ping": 1, "session_end": 1, "installation": 1, "session_start": 1}


class TestSweeping:
    async def test_activity_at_the_boundary(self, client: Exponea, clock: Clock) -> None:
        """Sweeps that meet verbs at the timeout end each session once, and what follows is one new session."""
        devices = [client.device(f"tg:{number}") for number in range(50)]
        await asyncio.gather(*(device.track_event(Event("ping")) for device in devices))
        clock.now += TIMEOUT
        tracked = [device.track_event(Event("ping")) for device in devices]
        sweeps = [client._session_expirer.expire() for _ in range(3)]
        await asyncio.gather(sweeps[0], *tracked[:25], sweeps[1], *tracked[25:], sweeps[2])

        wanted = {"installation": 50, "session_start": 100, "session_end": 50, "ping": 100}
        assert await names(client) == wanted

    async def test_a_verb_that_failed_keeps_no_session_open(
        self, client: Exponea, clock: Clock, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A verb that the storage refused was a sign of life, but its session ends when the device stays silent."""
        storage = Refusing(client, monkeypatch)
        await client.track_event(Event("ping"))
        storage.error = StorageError("The disk is full.")
        clock.now += 10
        with pytest.raises(StorageError):
            await client.track_event(Event("pong"))
        storage.error = None
        clock.now += TIMEOUT

        assert await client._session_expirer.expire() == 1
        assert await client._session_expirer.expire() == 0
        *_, end = await kept(client)
        assert (end["event_type"], round(end["properties"]["duration"])) == ("session_end", 10)

    async def test_the_hopeless_do_not_stand_in_the_way(
        self, client: Exponea, clock: Clock, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        """States that can't be read are complained of once, and the sessions behind them are ended."""
        monkeypatch.setattr(sweeper, "BATCH", 5)
        broken = [StateChange(f"device:{number}", b"{", 0, active=1.0) for number in range(12)]
        await client._storage.write((), broken)
        await client.track_event(Event("ping"))
        clock.now += TIMEOUT

        assert [await client._session_expirer.expire() for _ in range(3)] == [1, 0, 0]
        assert len(caplog.messages) == 12

    async def test_a_hook_that_fails(self, configure: Configure, clock: Clock) -> None:
        """A hook that raises on the end of one session does not keep others from ending, then or later."""
        broken = True

        def before_track(event: Event) -> Event:
            if broken and event.name == "session_end" and event.properties["duration"] > 5:
                raise ZeroDivisionError
            return event

        settings = configure(flush_mode="MANUAL", session_timeout=TIMEOUT)
        async with Exponea(settings, hooks=Hooks(before_track), clock=clock) as client:
            await client.device("a").open()
            clock.now += 10
            await client.device("a").pause()
            await client.device("b").open()
            clock.now += TIMEOUT
            assert await client._session_expirer.expire() == 1
            broken = False
            assert await client._session_expirer.expire() == 1

    async def test_sessions_of_many_processes(self, configure: Configure, clock: Clock) -> None:
        """Two clients that sweep one file at once end each session once."""
        settings = configure(flush_mode="MANUAL", session_timeout=TIMEOUT)
        async with Exponea(settings, clock=clock) as one, Exponea(settings, clock=clock) as two:
            await asyncio.gather(*(one.device(f"tg:{number}").open() for number in range(150)))
            clock.now += TIMEOUT + 1
            ended = await asyncio.gather(one._session_expirer.expire(), two._session_expirer.expire())
            assert sum(ended) == (await names(one))["session_end"] == 150


class TestRefusals:
    @pytest.mark.parametrize("verb", ["track", "identify", "anonymize", "token", "click", "resume"])
    async def test_a_refused_awakening_leaves_nothing(
        self, client: Exponea, clock: Clock, monkeypatch: pytest.MonkeyPatch, verb: str
    ) -> None:
        """A verb that wakes a device and is refused leaves it as it was, to be told completely by the next one."""
        verbs: dict[str, Callable[[], Awaitable[object]]] = {
            "track": lambda: client.track_event(Event("ping")),
            "identify": lambda: client.identify_customer(Customer(JANE)),
            "anonymize": client.anonymize,
            "token": lambda: client.handle_push_token("T"),
            "click": lambda: client.handle_campaign_click("https://shop.example/?xnpe_cmp=x"),
            "resume": client.resume,
        }
        storage = Refusing(client, monkeypatch)
        cookie = await client.get_customer_cookie()
        for state in ("new", "silent"):
            before = await kept(client)
            storage.error = StorageError("The disk is full.")
            device = client.device("fresh") if state == "new" else client.device("default")
            clock.now += TIMEOUT
            with client.bind(device), pytest.raises(StorageError):
                await verbs[verb]()
            assert await kept(client) == before
            storage.error = None
        await client.device("fresh").track_event(Event("ping"))
        await client.track_event(Event("ping"))

        told = await kept(client)
        new, old = [
            [data for data in told if (data["customer_ids"] == {"cookie": cookie}) is own] for own in (False, True)
        ]
        assert [data["event_type"] for data in new] == ["installation", "session_start", "ping"]
        whole = ["installation", "session_start", "session_end", "session_start", "ping"]
        assert [data["event_type"] for data in old] == whole

    async def test_a_full_queue(self, configure: Configure) -> None:
        """A device that needs more room than there is does not come to life by halves."""
        queue = QueueSettings(max_records=4)
        async with Exponea(configure(flush_mode="MANUAL", queue=queue)) as client:
            await client.device("a").open()
            with pytest.raises(QueueFullError):
                await client.device("b").track_event(Event("ping"))
            assert await client._storage.load_state("device:b") is None
            assert await names(client) == {"installation": 1, "session_start": 1}

    @pytest.mark.parametrize("steps", range(6))
    async def test_given_up(self, client: Exponea, clock: Clock, steps: int) -> None:
        """A verb whose caller gives up is told wholly or not at all, and the device works on."""
        for round_ in range(3):
            tasks = [
                asyncio.create_task(verb)
                for verb in (client.track_event(Event("ping")), client.anonymize(), client.resume())
            ]
            for _ in range(steps):
                await asyncio.sleep(0)
            tasks[round_].cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            clock.now += TIMEOUT
        await client.track_event(Event("last"))
        await client.pause()
        clock.now += TIMEOUT
        await client._session_expirer.expire()

        told = await names(client)
        cookies = {data["customer_ids"]["cookie"] for data in await kept(client)}
        assert told["session_start"] == told["session_end"]
        assert (told["installation"], told["last"]) == (len(cookies), 1)


class TestStopping:
    async def expire(self, client: Exponea) -> None:
        # What a sweep raises is logged by its task.
        with suppress(StorageError):
            await client._session_expirer.expire()

    @pytest.mark.parametrize("steps", [0, 1, 3, 8, 20])
    async def test_during_all_of_that(self, client: Exponea, clock: Clock, steps: int) -> None:
        """Verbs and sweeps that meet a stop raise nothing and leave nothing, and a start is a fresh install."""
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
        await client.stop_integration()
        await asyncio.gather(*tasks)
        assert await devices[0].handle_campaign_click("https://shop.example/?xnpe_cmp=x") is False
        assert [each.status for each in await devices[0].anonymize(change)] == ["dropped"]
        await client.start()

        assert await kept(client) == []
        assert await client.device("tg:1").get_customer_cookie() != cookie
        assert await names(client) == {"installation": 1, "session_start": 1}


async def test_manual_after_automatic(configure: Configure, clock: Clock) -> None:
    """A session that began automatically and was ended by hand is not ended again by the sweep."""
    settings = configure(flush_mode="MANUAL", session_timeout=TIMEOUT)
    async with Exponea(settings, clock=clock) as client:
        await client.device("default").open()
    async with Exponea(evolve(settings, automatic_session_tracking=False), clock=clock) as client:
        clock.now += 5
        await client.track_session_end()
    async with Exponea(settings, clock=clock) as client:
        clock.now += TIMEOUT
        assert await client._session_expirer.expire() == 0
        assert await names(client) == {"installation": 1, "session_start": 1, "session_end": 1}
