"""
What waits for in-app messages, what is shown and what is loaded for it: bounded, and let go of in time.
"""

import asyncio

import pytest
from helpers.app import Phone
from helpers.waiting import running, until
from hypothesis import given
from hypothesis import strategies as st
from in_app_world import World, message

from exponea_async import Customer, Event
from exponea_async.features._shared.html.resources import MissingResourceError, ResourceCache
from exponea_async.features._shared.targeting.filters import TriggerEvent
from exponea_async.features.in_app import active as _in_app_stage
from exponea_async.features.in_app import loader as _in_app_loader
from exponea_async.features.in_app import service as _in_app_pipeline
from exponea_async.features.in_app.active import (
    PATIENCE,
    ActiveMessages,
    PendingTrigger,
    PendingTriggers,
    SessionStarts,
)
from exponea_async.messages import InAppMessage
from exponea_async.sandbox import Sandbox

ANN = Customer({"registered": "ann@x.com"})


@pytest.fixture
def world(phone: Phone, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> World:
    return World(phone, sandbox, monkeypatch)


def request(name: str = "x", moment: float = 1.0, *, fingerprint: str = "ann", since: float = 0.0) -> PendingTrigger:
    return PendingTrigger(TriggerEvent(name, {}, moment), fingerprint, since)


def shown_on(device: str | None, id_: str = "m") -> InAppMessage:
    return InAppMessage(id=id_, name="M", device=device)


class TestRequests:
    def test_three_seconds(self) -> None:
        """What has waited for three seconds waits no more."""
        requests = PendingTriggers()
        requests.add("a", request("old", since=10.0))
        requests.add("a", request("new", since=10.5))
        assert [each.occasion.event_type for each in requests.take("a", "ann", 10.0 + PATIENCE)] == ["new"]
        assert requests.take("a", "ann", 0.0) == []

    def test_the_latest_of_a_type(self) -> None:
        """Of a type the latest event waits, and of two at one moment the second."""
        requests = PendingTriggers()
        last = request(moment=5.0)
        for each in (request(moment=5.0), request(moment=2.0), last, request(moment=4.0)):
            requests.add("a", each)
        assert requests.take("a", "ann", 0.0)[0] is last

    def test_somebody_else(self) -> None:
        """What one customer did does not wait with what another one did."""
        requests = PendingTriggers()
        requests.add("a", request("x", fingerprint="ann"))
        requests.add("a", request("y", fingerprint="ben"))
        assert requests.take("a", "ann", 0.0) == []
        assert [each.fingerprint for each in requests.take("a", "ben", 0.0)] == ["ben"]

    def test_devices_that_are_never_asked_about(self) -> None:
        """They are forgotten as soon as others come."""
        requests = PendingTriggers()
        for number in range(5):
            requests.add(str(number), request(since=float(number)))
        requests.add("0", request("y", since=2.5))
        requests.add("late", request(since=1.0 + PATIENCE))
        assert len(requests) == 5
        requests.add("later", request(since=100.0))
        assert len(requests) == 1

    @given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from("xyz"), st.integers(0, 20)), max_size=50))
    def test_any_order(self, adds: list[tuple[str, str, int]]) -> None:
        """Whatever comes, nothing is lost that is in time, and each type of a device waits once."""
        requests, now = PendingTriggers(), 0.0
        for device, name, moment in adds:
            now += 0.1
            requests.add(device, request(name, float(moment), since=now))
        for device in "abc":
            latest = {
                name: max(m for d, n, m in adds if (d, n) == (device, name)) for d, name, _ in adds if d == device
            }
            waiting = requests.take(device, "ann", now - PATIENCE)
            assert {each.occasion.event_type: each.moment for each in waiting} == latest
        assert len(requests) == 0


class TestStage:
    async def test_one_at_a_time(self) -> None:
        """A device has one message, and a customer tracker any number."""
        stage = ActiveMessages()
        assert stage.enter(shown_on("a"))
        assert not stage.enter(shown_on("a", "n"))
        assert stage.enter(shown_on("b"))
        assert stage.enter(shown_on(None))
        assert stage.enter(shown_on(None))
        assert len(stage) == 2
        assert not stage.leave(shown_on("a", "n"))
        assert not stage.leave(shown_on(None))
        assert stage.leave(shown_on("a"))
        assert not stage.is_busy("a")
        assert not stage.is_busy(None)

    async def test_bounds(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Hosts that never say what became of messages don't fill the memory."""
        monkeypatch.setattr(_in_app_stage, "MOST_DEVICES", 2)
        monkeypatch.setattr(_in_app_stage, "MOST_PREPARED", 2)
        stage, visits = ActiveMessages(), SessionStarts()
        for device in "abc":
            stage.enter(shown_on(device))
            visits.begin(device, 5.0)
        assert [stage.is_busy(device) for device in "abc"] == [False, True, True]
        assert [visits.start_of(device, None) for device in "abc"] == [0.0, 5.0, 5.0]
        assert [stage.prepare(("a", str(number))) for number in range(3)] == [True, True, False]
        stage.prepared(("a", "0"))
        assert [stage.prepare(("a", "1")), stage.prepare(("a", "2"))] == [False, True]

    async def test_one_that_left_has_no_timer(self) -> None:
        """A message that is not shown any more does not close by itself."""
        stage, closed = ActiveMessages(), list[str]()
        given = InAppMessage(id="m", name="M", device="a", close_timeout=0.0)
        stage.close_later(given, lambda: closed.append("m"))
        stage.enter(given)
        stage.close_later(given, lambda: closed.append("m"))
        stage.drop("a")
        await asyncio.sleep(0.01)
        assert closed == []


class TestResources:
    async def test_each_is_loaded_once(self) -> None:
        """However often it is needed, at once not more than a few."""
        asked: list[str] = []
        active = most = 0

        async def load(url: str) -> bytes:
            nonlocal active, most
            active += 1
            most = max(most, active)
            asked.append(url)
            await asyncio.sleep(0)
            active -= 1
            return url.encode()

        cache = ResourceCache(load)
        urls = [str(number) for number in range(20)]
        assert await cache.load(urls + urls) == {url: url.encode() for url in urls}
        assert await cache.load(urls[:3]) == {url: url.encode() for url in urls[:3]}
        assert (sorted(asked), most) == (sorted(urls), 6)
        cache.clear()
        await cache.load(urls[:1])
        assert len(asked) == 21

    async def test_the_cache_is_bounded(self) -> None:
        """The least recently used resource is evicted first, and one that is too large is not cached."""
        asked: list[str] = []

        async def load(url: str) -> bytes:
            asked.append(url)
            return bytes(int(url[-1]))

        cache = ResourceCache(load, max_bytes=10, max_resource_bytes=6)
        for url in ("a4", "b4", "a4", "c5", "a4", "b4", "d9", "d9"):
            await cache.load([url])
        assert asked == ["a4", "b4", "c5", "b4", "d9", "d9"]

    async def test_too_many(self) -> None:
        """A message that needs no end of them is not shown."""

        async def load(_url: str) -> bytes:
            return b""

        with pytest.raises(MissingResourceError, match="101"):
            await ResourceCache(load).load(map(str, range(101)))

    async def test_no_way(self) -> None:
        """Without a way to load, nothing is."""
        assert await ResourceCache(None).load(["a"]) == {}


class TestUploads:
    async def test_the_latest_counts(self, world: World) -> None:
        """Of several identifies of a device the last one is waited for, and none by a device that is anonymized."""
        client = await world.start()
        for number in range(3):
            await client.identify_customer(Customer(ANN.ids, {"number": number}))
        await until(lambda: len(running("in-app")) == 1)
        await client.anonymize()
        assert world.part._uploads == {}
        await until(lambda: running("in-app") == [])
        await client.flush_data()
        await world.rest()
        assert [each["customer_ids"].get("registered") for each in world.bodies()].count("ann@x.com") == 0

    async def test_more_than_are_waited_for(self, world: World) -> None:
        """Their messages come with their next event."""
        world.monkeypatch.setattr(_in_app_pipeline, "MOST_UPLOADS", 1)
        client = await world.start(message())
        for key in ("a", "b"):
            await client.device(key).identify_customer(ANN)
        await client.device("b").track_event(Event("x"))
        assert [each.device for each in await world.given()] == ["b"]

    async def test_a_customer_tracker(self, world: World) -> None:
        """It has no device whose messages were to be loaded."""
        client = await world.start()
        await client.for_customer(ANN.ids).identify_customer(ANN)
        assert (world.part._uploads, world.fetches) == ({}, 0)


class TestStoring:
    async def test_one_that_is_too_large(self, world: World) -> None:
        """It is loaded again after a restart."""
        world.monkeypatch.setattr(_in_app_loader, "LARGEST", 10)
        client = await world.start(message())
        assert await world.track() == ["m"]
        assert await client._context.load_data("in_app_messages") is None

    async def test_many_at_once(self, world: World) -> None:
        """There is an end to what is asked for at once."""
        world.monkeypatch.setattr(_in_app_loader, "MOST", 3)
        client = await world.start(message())
        world.hold()
        for number in range(5):
            await client.device(str(number)).track_event(Event("x"))
        assert len(world.part._loader._flights) == 3
        await world.release()
        assert len(await world.given()) == 3
        await client.device("4").track_event(Event("x"))
        assert [each.device for each in await world.given()] == ["4"]
