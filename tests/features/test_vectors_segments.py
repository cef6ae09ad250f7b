"""
Numbered scenarios of segments, over HTTP.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from helpers.app import App
from helpers.environment import SetConstants
from helpers.segments import SegmentsFixture, segment, segment_ids, started
from helpers.waiting import until

from exponea_async import Customer, Event
from exponea_async.sandbox import CustomerView, Sandbox
from exponea_async.testing import received

Scenario = Callable[[SegmentsFixture], Awaitable[None]]
VECTORS: list[Any] = []

ANN = Customer({"registered": "ann@x.com"})
BEN = Customer({"registered": "ben@x.com"})


def vector(number: str) -> Callable[[Scenario], Scenario]:
    """Register a scenario under its number."""

    def register(scenario: Scenario) -> Scenario:
        VECTORS.append(pytest.param(scenario, id=number))
        return scenario

    return register


@pytest.fixture
async def segments(app: App, sandbox: Sandbox, set_constants: SetConstants) -> AsyncIterator[SegmentsFixture]:
    async with started(app, sandbox, set_constants) as segments:
        yield segments


def ids(found: list[dict[str, str]]) -> list[str]:
    return [each["id"] for each in found]


@vector("S01")
async def request_fails(segments: SegmentsFixture) -> None:
    """After a failed request the previous segments stay, and streams yield nothing."""
    segments.respond(discovery=["a"])
    stream = await segments.stream()
    assert segment_ids(stream) == [["a"]]

    segments.respond(discovery=["b"])
    segments.fail("segments")
    await segments.track()
    assert segment_ids(stream) == []
    assert ids(await segments.client.get_segments("discovery")) == ["a"]


@vector("S02")
async def empty_answer(segments: SegmentsFixture) -> None:
    """A first response without segments is yielded only by streams with the first load."""
    segments.respond()
    plain = await segments.stream()
    first = await segments.stream(include_first_load=True)
    assert (segment_ids(plain), segment_ids(first)) == ([], [[]])
    before = segments.loads
    assert await segments.client.get_segments("discovery") == []
    assert segments.loads == before


@vector("S03")
async def same_data(segments: SegmentsFixture) -> None:
    """The same segments in another order are not yielded again, but count as fresh again."""
    segments.respond(discovery=["a", "b"])
    stream = await segments.stream()
    assert segment_ids(stream) == [["a", "b"]]

    segments.respond(discovery=["b", "a"])
    segments.app.now += 6
    await segments.track()
    assert segment_ids(stream) == []
    before = segments.loads
    await segments.client.get_segments("discovery")
    assert segments.loads == before


@vector("S04")
async def one_category_changes(segments: SegmentsFixture) -> None:
    """Only streams of a category that changed yield a value."""
    segments.respond(discovery=["a"], content=["c"])
    discovery, content = await segments.stream(), await segments.stream("content")
    assert (segment_ids(discovery), segment_ids(content)) == ([["a"]], [])

    segments.respond(discovery=["b"], content=["c"])
    await segments.track()
    assert (segment_ids(discovery), segment_ids(content)) == ([["b"]], [])


@vector("S05")
async def category_goes(segments: SegmentsFixture) -> None:
    """A category that is missing from the response is yielded as empty."""
    segments.respond(discovery=["a"], content=["c"])
    discovery, content = await segments.stream(), await segments.stream("content")
    segment_ids(discovery)

    segments.respond(content=["c"])
    await segments.track()
    assert (segment_ids(discovery), segment_ids(content)) == ([[]], [])


@vector("S06")
async def many_triggers(segments: SegmentsFixture) -> None:
    """Many triggers within the wait lead to one request."""
    segments.respond(discovery=["a"])
    await segments.client.get_customer_cookie()
    await segments.client.flush_data()
    streams = [segments.client.segmentation_data_stream("discovery") for _ in range(33)]
    await segments.idle()
    assert segments.requests() == ["segments"]
    assert [segment_ids(stream) for stream in streams] == [[["a"]]] * 33


@vector("S07")
async def no_streams(segments: SegmentsFixture) -> None:
    """Without streams an upload triggers no load."""
    segments.respond(discovery=["a"])
    await segments.track()
    assert segments.requests() == []


@vector("S08")
async def streams_are_closed(segments: SegmentsFixture) -> None:
    """Closing all streams during the wait cancels the load."""
    segments.respond(discovery=["a"])
    streams = [segments.client.segmentation_data_stream("discovery") for _ in range(2)]
    await segments.load_is_delayed()
    for stream in streams:
        await stream.aclose()
    await segments.upload()
    assert segments.requests() == []


@vector("S09")
async def first_activity_without_first_load(segments: SegmentsFixture) -> None:
    """The first activity of a device triggers no load without a stream that waits for the first load."""
    segments.respond(discovery=["a"])
    stream = await segments.stream()
    before = segments.loads
    segments.evict_devices()
    await segments.client.track_event(Event("ping"))
    await segments.idle()
    assert segments.loads == before
    assert segment_ids(stream) == [["a"]]


@vector("S10")
async def first_activity_with_first_load(segments: SegmentsFixture) -> None:
    """After a restart only streams with the first load yield unchanged segments, once."""
    segments.respond(discovery=["a"])
    segment_ids(await segments.stream())
    before = segments.loads
    await segments.app.restart()
    plain = segments.client.segmentation_data_stream("discovery")
    first = segments.client.segmentation_data_stream("discovery", include_first_load=True)
    await segments.idle()
    assert segments.loads == before + 1
    assert (segment_ids(plain), segment_ids(first)) == ([], [["a"]])

    await segments.track()
    assert segments.loads == before + 2
    assert (segment_ids(plain), segment_ids(first)) == ([], [])


@vector("S11")
async def consumer_fails(segments: SegmentsFixture) -> None:
    """A consumer that fails does not affect the others, which receive values in the order of their streams."""
    segments.respond(discovery=["a"])
    order: list[int] = []

    async def consume(number: int) -> None:
        async for _ in segments.client.segmentation_data_stream("discovery"):
            order.append(number)
            if number == 0:
                raise ZeroDivisionError

    consumers = [asyncio.create_task(consume(number)) for number in range(3)]
    await until(lambda: len(order) == 3)
    segments.respond(discovery=["b"])
    await segments.track()
    await until(lambda: len(order) == 5)
    assert order == [0, 1, 2, 1, 2]
    for each in consumers[1:]:
        each.cancel()
    outcomes = await asyncio.gather(*consumers, return_exceptions=True)
    assert isinstance(outcomes[0], ZeroDivisionError)


@vector("S12")
async def linking(segments: SegmentsFixture) -> None:
    """Ids are linked before the first request about a customer: without a cache, or with another customer's."""
    segments.respond(discovery=["a"])
    await segments.client.identify_customer(ANN)
    await segments.client.get_segments("discovery")
    assert segments.requests() == ["link-ids", "segments"]
    link = next(each for each in segments.sandbox.requests if each.path.endswith("link-ids"))
    assert link.path.split("/")[-2] == await segments.client.get_customer_cookie()
    assert link.body == {"external_ids": ANN.ids}

    await segments.client.identify_customer(Customer({"registered": "ann@x.com", "card": "7"}))
    await segments.client.get_segments("discovery")
    assert segments.requests() == ["link-ids", "segments"] * 2

    other = segments.client.device("other")
    await other.get_segments("discovery")
    await other.identify_customer(BEN)
    await other.get_segments("discovery")
    assert segments.requests()[4:] == ["segments", "link-ids", "segments"]


@vector("S13")
async def linked_already(segments: SegmentsFixture) -> None:
    """Ids are not linked again while their segments are stored, even after a restart."""
    segments.respond(discovery=["a"])
    await segments.client.identify_customer(ANN)
    for _ in range(2):
        await segments.client.get_segments("discovery", force=True)
    await segments.app.restart()
    await segments.client.get_segments("discovery", force=True)
    assert segments.requests() == ["link-ids", "segments", "segments", "segments"]


@vector("S14")
async def nothing_to_link(segments: SegmentsFixture) -> None:
    """Without ids nothing is linked, and the request has the cookie."""
    await segments.client.get_segments("discovery")
    assert segments.requests() == ["segments"]
    assert segments.sandbox.requests[-1].query == f"cookie={await segments.client.get_customer_cookie()}"


@vector("S15")
async def link_fails(segments: SegmentsFixture) -> None:
    """After a failed link request segments are not requested."""
    segments.respond(discovery=["a"])
    segments.fail("link-ids")
    await segments.client.identify_customer(ANN)
    stream = await segments.stream(include_first_load=True)
    assert await segments.client.get_segments("discovery") == []
    assert segments.loads == 0
    assert segment_ids(stream) == []

    segments.recover()
    await segments.track()
    assert segment_ids(stream) == [["a"]]


@vector("S16")
async def customer_changes(segments: SegmentsFixture) -> None:
    """An identification during the wait cancels the load; one during the request discards its result."""
    segments.respond(discovery=["a"])
    stream = segments.client.segmentation_data_stream("discovery", include_first_load=True)
    await segments.load_is_delayed()
    await asyncio.sleep(0)
    await segments.client.identify_customer(ANN)
    await segments.idle()
    assert segments.requests() == []

    segments.delay(0.3, times=1)
    await segments.trigger()
    await until(lambda: "link-ids" in segments.requests())
    await segments.client.identify_customer(BEN)
    await segments.idle()
    assert segments.loads == 1
    assert segment_ids(stream) == []

    await segments.upload()
    assert segment_ids(stream) == [["a"]]


@vector("S17")
async def a_second_old(segments: SegmentsFixture) -> None:
    """Segments that are one second old are fresh."""
    assert await loads_after(segments, 1) == 0


@vector("S18")
async def forced(segments: SegmentsFixture) -> None:
    """With `force` fresh segments are loaded again."""
    assert await loads_after(segments, 1, force=True) == 1


@vector("S19")
async def six_seconds_old(segments: SegmentsFixture) -> None:
    """Segments that are five seconds old are fresh; at six seconds they are not."""
    assert await loads_after(segments, 5) == 0
    assert await loads_after(segments, 6) == 1


@vector("S20")
async def ids_changed(segments: SegmentsFixture) -> None:
    """After an identification the segments are loaded again."""
    segments.respond(discovery=["a"])
    await segments.client.get_segments("discovery")
    await segments.client.identify_customer(ANN)
    await segments.client.get_segments("discovery")
    assert segments.loads == 2


@vector("S21")
async def concurrent_calls(segments: SegmentsFixture) -> None:
    """Concurrent calls for several categories share one request."""
    segments.respond(discovery=["a"], content=["c"])
    categories = ["discovery", "content", "discovery", "content", "discovery"]
    found = await asyncio.gather(*(segments.client.get_segments(each) for each in categories))
    assert [ids(each) for each in found] == [["a"], ["c"], ["a"], ["c"], ["a"]]
    assert segments.loads == 1


@vector("S22")
async def customer_changes_during_a_call(segments: SegmentsFixture) -> None:
    """After an identification during a call the new customer's segments are returned."""
    segments.sandbox.messages.segments["discovery"].put(own_segment)
    await segments.client.identify_customer(ANN)
    await segments.client.flush_data()
    segments.delay(0.3, times=1)
    call = asyncio.create_task(segments.client.get_segments("discovery"))
    await until(lambda: "link-ids" in segments.requests())
    await segments.client.identify_customer(BEN)
    assert ids(await call) == ["ben@x.com"]
    assert segments.requests() == ["link-ids", "segments"] * 2


@vector("S23")
async def stopped(segments: SegmentsFixture) -> None:
    """A stopped integration returns an empty list, and sends no request."""
    segments.respond(discovery=["a"])
    await segments.client.get_segments("discovery")
    await segments.client.stop_integration(everyone=True)
    assert await segments.client.get_segments("discovery", force=True) == []
    assert segments.loads == 1


@vector("S24")
async def anonymized(segments: SegmentsFixture) -> None:
    """Calls that wait during an anonymize() return an empty list at once."""
    segments.respond(discovery=["a"])
    await segments.client.get_segments("discovery")
    segments.delay(60)
    calls = [asyncio.create_task(segments.client.get_segments("discovery", force=True)) for _ in range(2)]
    await segments.request_arrived()
    await segments.client.anonymize()
    assert await asyncio.wait_for(asyncio.gather(*calls), 60) == [[], []]


@vector("S25")
async def custom_category(segments: SegmentsFixture) -> None:
    """A category of the project's own is returned like any other, with the fields of its segments as strings."""
    segments.respond(seasons=[{"name": "winter", "rank": 3, "open": True, "until": None}])
    stream = await segments.stream("seasons")
    assert received(stream) == [[{"name": "winter", "rank": "3", "open": "true"}]]
    assert await segments.client.get_segments("seasons") == [{"name": "winter", "rank": "3", "open": "true"}]


@pytest.mark.parametrize("scenario", VECTORS)
async def test_vector(segments: SegmentsFixture, scenario: Scenario) -> None:
    """Each numbered scenario has the specified outcome."""
    await scenario(segments)


def test_no_number_is_missing() -> None:
    """There is one scenario per number."""
    assert [each.id for each in VECTORS] == [f"S{number:02}" for number in range(1, 26)]


def own_segment(customer: CustomerView) -> dict[str, str] | None:
    """Return a segment that only this customer belongs to."""
    return segment(customer.ids["registered"][-1]) if "registered" in customer.ids else None


async def loads_after(segments: SegmentsFixture, seconds: float, *, force: bool = False) -> int:
    """Call twice with some seconds between, and return the number of requests of the second call."""
    segments.respond(discovery=["a"])
    await segments.client.get_segments("discovery", force=True)
    before = segments.loads
    segments.app.now += seconds
    assert ids(await segments.client.get_segments("discovery", force=force)) == ["a"]
    return segments.loads - before
