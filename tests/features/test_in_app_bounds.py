"""
The limits of in-app messages: of pending events, of what is shown and of what is loaded.
"""

import asyncio

import pytest
from helpers.in_app import InAppFixture, message
from helpers.waiting import running, until
from hypothesis import given
from hypothesis import strategies as st

from exponea_async import Customer, Event
from exponea_async.features._shared.html.resources import MissingResourceError, ResourceCache
from exponea_async.features._shared.targeting.filters import TriggerEvent
from exponea_async.features.in_app.active import (
    MAX_KEPT,
    ActiveMessages,
    PendingTrigger,
    PendingTriggers,
    SessionStarts,
)
from exponea_async.messages import InAppMessage

ANN = Customer({"registered": "ann@x.com"})
#: How long an event waits for its message, in seconds.
MAX_WAIT = 3.0


def pending(name: str = "x", moment: float = 1.0, *, fingerprint: str = "ann", since: float = 0.0) -> PendingTrigger:
    return PendingTrigger(TriggerEvent(name, {}, moment), fingerprint, since)


def shown_on(device: str | None, id_: str = "m") -> InAppMessage:
    return InAppMessage(id=id_, name="M", device=device)


class TestPendingTriggers:
    def test_the_maximum_wait(self) -> None:
        """An event that has waited for three seconds is not returned any more."""
        triggers = PendingTriggers(MAX_WAIT)
        triggers.add("a", pending("old", since=10.0))
        triggers.add("a", pending("new", since=10.5))
        assert [each.event.event_type for each in triggers.take("a", "ann", 10.0 + MAX_WAIT).timely] == ["new"]
        assert triggers.take("a", "ann", 0.0).timely == []

    def test_the_wait_for_a_request_that_is_not_sent(self) -> None:
        """The patience of an event counts from when the request for its messages is sent."""
        triggers = PendingTriggers(MAX_WAIT)
        queued = PendingTrigger(TriggerEvent("x", {}, 1.0), "ann", since=10.0, is_queued=True)
        triggers.add("a", queued)
        triggers.note_sending("a", 20.0)
        triggers.note_sending("a", 22.0)  # another attempt
        taken = triggers.take("a", "ann", 19.9 + MAX_WAIT)
        assert ([each.event.event_type for each in taken.timely], taken.late) == (["x"], [])
        triggers.add("a", queued)
        triggers.note_sending("a", 20.0)
        taken = triggers.take("a", "ann", 20.0 + MAX_WAIT)
        assert (taken.timely, [each.event.event_type for each in taken.late]) == ([], ["x"])

    def test_the_latest_of_a_type(self) -> None:
        """The latest event of a type stays, and the second of two with the same timestamp."""
        triggers = PendingTriggers(MAX_WAIT)
        last = pending(moment=5.0)
        for each in (pending(moment=5.0), pending(moment=2.0), last, pending(moment=4.0)):
            triggers.add("a", each)
        assert triggers.take("a", "ann", 0.0).timely[0] is last

    def test_another_customer(self) -> None:
        """The events of one customer replace those of another one."""
        triggers = PendingTriggers(MAX_WAIT)
        triggers.add("a", pending("x", fingerprint="ann"))
        triggers.add("a", pending("y", fingerprint="ben"))
        assert triggers.take("a", "ann", 0.0).timely == []
        assert [each.fingerprint for each in triggers.take("a", "ben", 0.0).timely] == ["ben"]

    def test_expired_devices(self) -> None:
        """Devices whose events are far too late are removed when others are added; those that are just late stay."""
        triggers = PendingTriggers(MAX_WAIT)
        for number in range(5):
            triggers.add(str(number), pending(since=float(number)))
        triggers.add("0", pending("y", since=2.5))
        triggers.add("late", pending(since=1.0 + MAX_WAIT))
        assert len(triggers) == 6
        triggers.add("far too late", pending(since=1.0 + MAX_KEPT))
        assert len(triggers) == 6
        triggers.add("later", pending(since=1000.0))
        assert len(triggers) == 1

    def test_a_long_wait(self) -> None:
        """No event is forgotten before its own maximum wait has passed."""
        triggers = PendingTriggers(10 * MAX_KEPT)
        triggers.add("a", pending(since=0.0))
        triggers.add("b", pending(since=9 * MAX_KEPT))
        assert len(triggers.take("a", "ann", 9 * MAX_KEPT).timely) == 1

    @given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from("xyz"), st.integers(0, 20)), max_size=50))
    def test_any_order(self, adds: list[tuple[str, str, int]]) -> None:
        """In any order, each type of a device is returned once, with its latest event."""
        triggers, now = PendingTriggers(MAX_WAIT), 0.0
        for device, name, moment in adds:
            now += 0.1
            triggers.add(device, pending(name, float(moment), since=now))
        for device in "abc":
            latest = {
                name: max(m for d, n, m in adds if (d, n) == (device, name)) for d, name, _ in adds if d == device
            }
            waiting = triggers.take(device, "ann", now - MAX_WAIT).timely
            assert {each.event.event_type: each.timestamp for each in waiting} == latest
        assert len(triggers) == 0


class TestActiveMessages:
    async def test_one_at_a_time(self) -> None:
        """A device has one message, and a customer tracker any number."""
        active = ActiveMessages()
        assert active.add(shown_on("a"))
        assert not active.add(shown_on("a", "n"))
        assert active.add(shown_on("b"))
        assert active.add(shown_on(None))
        assert active.add(shown_on(None))
        assert len(active) == 2
        assert not active.remove(shown_on("a", "n"))
        assert not active.remove(shown_on(None))
        assert active.remove(shown_on("a"))
        assert not active.is_busy("a")
        assert not active.is_busy(None)

    async def test_limits(self) -> None:
        """Messages that are never closed are limited in number."""
        active, starts = ActiveMessages(max_devices=2, max_preparing=2), SessionStarts(max_devices=2)
        for device in "abc":
            active.add(shown_on(device))
            starts.record(device, 5.0)
        assert [active.is_busy(device) for device in "abc"] == [False, True, True]
        assert [starts.latest(device, None) for device in "abc"] == [0.0, 5.0, 5.0]
        assert [active.start_preparing(("a", str(number))) for number in range(3)] == [True, True, False]
        active.stop_preparing(("a", "0"))
        assert [active.start_preparing(("a", "1")), active.start_preparing(("a", "2"))] == [False, True]

    async def test_a_removed_message_has_no_timer(self) -> None:
        """A message that is not shown any more does not close by itself."""
        active, closed = ActiveMessages(), list[str]()
        given = InAppMessage(id="m", name="M", device="a", close_timeout=0.0)
        active.schedule(given, 0.0, lambda: closed.append("m"))
        active.add(given)
        active.schedule(given, 0.0, lambda: closed.append("m"))
        active.remove_device("a")
        await asyncio.sleep(0.01)
        assert closed == []


class TestResources:
    async def test_each_is_loaded_once(self) -> None:
        """A resource is loaded once however often it is needed, and only a few are loaded at once."""
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
        """A message that needs too many resources can't be shown."""

        async def load(_url: str) -> bytes:
            return b""

        with pytest.raises(MissingResourceError, match="101"):
            await ResourceCache(load).load(map(str, range(101)))

    async def test_without_loader(self) -> None:
        """Without a function to load them, no resources are loaded."""
        assert await ResourceCache(None).load(["a"]) == {}


class TestUploads:
    async def test_the_latest_identify_counts(self, in_app: InAppFixture) -> None:
        """Of several identifies of a device, the last upload is awaited, and none after an anonymize."""
        client = await in_app.start()
        for number in range(3):
            await client.identify_customer(Customer(ANN.ids, {"number": number}))
        await until(lambda: len(running("in-app")) == 1)
        await client.anonymize()
        assert in_app.service.uploads == {}
        await until(lambda: running("in-app") == [])
        await client.flush_data()
        await in_app.idle()
        assert [each["customer_ids"].get("registered") for each in in_app.bodies()].count("ann@x.com") == 0

    async def test_too_many_identifies(self, in_app: InAppFixture) -> None:
        """The messages of customers beyond the limit are loaded with their next event."""
        client = await in_app.start(message())
        in_app.service.max_uploads = 1
        for key in ("a", "b"):
            await client.device(key).identify_customer(ANN)
        await client.device("b").track_event(Event("x"))
        assert [each.device for each in await in_app.received()] == ["b"]

    async def test_a_customer_tracker(self, in_app: InAppFixture) -> None:
        """The identify of a customer tracker loads nothing."""
        client = await in_app.start()
        await client.for_customer(ANN.ids).identify_customer(ANN)
        assert (in_app.service.uploads, in_app.loads) == ({}, 0)


class TestLoads:
    async def test_a_large_response(self, in_app: InAppFixture) -> None:
        """A large response is not stored."""
        await in_app.start(message())
        in_app.service.loader.max_stored_bytes = 10
        assert await in_app.track() == ["m"]
        assert await in_app.stored() is None

    async def test_many_at_once(self, in_app: InAppFixture) -> None:
        """The number of concurrent loads is limited."""
        client = await in_app.start(message())
        in_app.service.loader.max_loads = 3
        in_app.hold()
        for number in range(5):
            await client.device(str(number)).track_event(Event("x"))
        assert len(in_app.service.loader.loads) == 3
        await in_app.release()
        assert len(await in_app.received()) == 3
        await client.device("4").track_event(Event("x"))
        assert [each.device for each in await in_app.received()] == ["4"]
