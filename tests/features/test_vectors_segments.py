"""
The rules of segments by number, over HTTP.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from helpers.app import Phone
from helpers.waiting import until
from segments_world import Listener, World, held, segment, world_of

from exponea_async import Customer, Event
from exponea_async.sandbox import CustomerView, Fault, Sandbox

Scenario = Callable[[World], Awaitable[None]]
VECTORS: list[Any] = []

ANN = Customer({"registered": "ann@x.com"})
BEN = Customer({"registered": "ben@x.com"})


def vector(number: str) -> Callable[[Scenario], Scenario]:
    """Take a scenario for the vector of a number."""

    def take(scenario: Scenario) -> Scenario:
        VECTORS.append(pytest.param(scenario, id=number))
        return scenario

    return take


@pytest.fixture
async def world(phone: Phone, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[World]:
    async with world_of(phone, sandbox, monkeypatch) as world:
        yield world


def ids(segments: list[dict[str, str]]) -> list[str]:
    return [each["id"] for each in segments]


@vector("S01")
async def request_fails(world: World) -> None:
    """Where the request fails, what was known stays, and nobody is told."""
    world.answer(discovery=["a"])
    stream = await world.listen()
    assert held(stream) == [["a"]]

    world.answer(discovery=["b"])
    world.fail("segments")
    await world.track()
    assert held(stream) == []
    assert ids(await world.client.get_segments("discovery")) == ["a"]


@vector("S02")
async def empty_answer(world: World) -> None:
    """A first answer without anything is told only to who wants the first load."""
    world.answer()
    plain = await world.listen()
    first = await world.listen(include_first_load=True)
    assert (held(plain), held(first)) == ([], [[]])
    assert await world.client.get_segments("discovery") == []
    assert world.loads == 2


@vector("S03")
async def same_data(world: World) -> None:
    """The same segments in another order are not told again; that they were told anew makes them fresh."""
    world.answer(discovery=["a", "b"])
    stream = await world.listen()
    assert held(stream) == [["a", "b"]]

    world.answer(discovery=["b", "a"])
    world.phone.now += 6
    await world.track()
    assert held(stream) == []
    before = world.loads
    await world.client.get_segments("discovery")
    assert world.loads == before


@vector("S04")
async def one_category_changes(world: World) -> None:
    """Only who listens to a category that changed is told."""
    world.answer(discovery=["a"], content=["c"])
    discovery, content = await world.listen(), await world.listen("content")
    assert (held(discovery), held(content)) == ([["a"]], [])

    world.answer(discovery=["b"], content=["c"])
    await world.track()
    assert (held(discovery), held(content)) == ([["b"]], [])


@vector("S05")
async def category_goes(world: World) -> None:
    """A category that is not there any more is told as empty."""
    world.answer(discovery=["a"], content=["c"])
    discovery, content = await world.listen(), await world.listen("content")
    held(discovery)

    world.answer(content=["c"])
    await world.track()
    assert (held(discovery), held(content)) == ([[]], [])


@vector("S06")
async def many_triggers(world: World) -> None:
    """However much happens within the wait, the platform is asked once."""
    world.answer(discovery=["a"])
    await world.client.get_customer_cookie()
    await world.client.flush_data()
    streams = [world.client.segmentation_data_stream("discovery") for _ in range(33)]
    await world.quiet()
    assert world.asked() == ["segments"]
    assert [held(stream) for stream in streams if isinstance(stream, Listener)] == [[["a"]]] * 33


@vector("S07")
async def nobody_listens(world: World) -> None:
    """While nobody listens, an upload makes nobody ask."""
    world.answer(discovery=["a"])
    await world.track()
    assert world.asked() == []


@vector("S08")
async def listeners_leave(world: World) -> None:
    """Where all listeners leave during the wait, the platform is not asked."""
    world.answer(discovery=["a"])
    streams = [world.client.segmentation_data_stream("discovery") for _ in range(2)]
    await until(lambda: any("refresh" in task.get_name() for task in world.part._tasks._tasks))
    for stream in streams:
        await stream.aclose()
    await world.upload()
    assert world.asked() == []


@vector("S09")
async def launch_without_first_load(world: World) -> None:
    """A device that comes to life asks for nothing where nobody wants the first load."""
    world.answer(discovery=["a"])
    stream = await world.listen()
    before = world.loads
    # As where a device that was long out of use comes back into memory.
    world.client._devices.clear()
    await world.client.track_event(Event("ping"))
    await world.quiet()
    assert world.loads == before
    assert held(stream) == [["a"]]


@vector("S10")
async def launch_with_first_load(world: World) -> None:
    """After a restart only who wants the first load is told of segments that have not changed, once."""
    world.answer(discovery=["a"])
    held(await world.listen())
    before = world.loads
    await world.phone.restart()
    plain = world.client.segmentation_data_stream("discovery")
    first = world.client.segmentation_data_stream("discovery", include_first_load=True)
    await world.quiet()
    assert isinstance(plain, Listener)
    assert isinstance(first, Listener)
    assert world.loads == before + 1
    assert (held(plain), held(first)) == ([], [["a"]])

    await world.track()
    assert world.loads == before + 2
    assert (held(plain), held(first)) == ([], [])


@vector("S11")
async def listener_fails(world: World) -> None:
    """A listener that breaks down takes nothing from the others, who are told in the order they came."""
    world.answer(discovery=["a"])
    order: list[int] = []

    async def listen(number: int) -> None:
        async for _ in world.client.segmentation_data_stream("discovery"):
            order.append(number)
            if number == 0:
                raise ZeroDivisionError

    listeners = [asyncio.create_task(listen(number)) for number in range(3)]
    await until(lambda: len(order) == 3)
    world.answer(discovery=["b"])
    await world.track()
    await until(lambda: len(order) == 5)
    assert order == [0, 1, 2, 1, 2]
    for each in listeners[1:]:
        each.cancel()
    outcomes = await asyncio.gather(*listeners, return_exceptions=True)
    assert isinstance(outcomes[0], ZeroDivisionError)


@vector("S12")
async def linking(world: World) -> None:
    """Ids are linked before the first request for them: without a cache, with one of a nobody, with another's."""
    world.answer(discovery=["a"])
    await world.client.identify_customer(ANN)
    await world.client.get_segments("discovery")
    assert world.asked() == ["link-ids", "segments"]
    link = next(each for each in world.sandbox.requests if each.path.endswith("link-ids"))
    assert link.path.split("/")[-2] == await world.client.get_customer_cookie()
    assert link.body == {"external_ids": ANN.ids}

    await world.client.identify_customer(Customer({"registered": "ann@x.com", "card": "7"}))
    await world.client.get_segments("discovery")
    assert world.asked() == ["link-ids", "segments"] * 2

    other = world.client.device("other")
    await other.get_segments("discovery")
    await other.identify_customer(BEN)
    await other.get_segments("discovery")
    assert world.asked()[4:] == ["segments", "link-ids", "segments"]


@vector("S13")
async def linked_already(world: World) -> None:
    """Ids whose segments are known are not linked again, after a restart neither."""
    world.answer(discovery=["a"])
    await world.client.identify_customer(ANN)
    for _ in range(2):
        await world.client.get_segments("discovery", force=True)
    await world.phone.restart()
    await world.client.get_segments("discovery", force=True)
    assert world.asked() == ["link-ids", "segments", "segments", "segments"]


@vector("S14")
async def nothing_to_link(world: World) -> None:
    """A customer without ids has nothing linked, and is asked about by the cookie."""
    await world.client.get_segments("discovery")
    assert world.asked() == ["segments"]
    assert world.sandbox.requests[-1].query == f"cookie={await world.client.get_customer_cookie()}"


@vector("S15")
async def link_fails(world: World) -> None:
    """Where ids can't be linked, segments are not asked for."""
    world.answer(discovery=["a"])
    world.fail("link-ids")
    await world.client.identify_customer(ANN)
    stream = await world.listen(include_first_load=True)
    assert await world.client.get_segments("discovery") == []
    assert world.loads == 0
    assert held(stream) == []

    world.recover()
    await world.track()
    assert held(stream) == [["a"]]


@vector("S16")
async def customer_changes(world: World) -> None:
    """A customer who changes during the wait is not asked about; one who changes during the request is not told."""
    world.answer(discovery=["a"])
    stream = world.client.segmentation_data_stream("discovery", include_first_load=True)
    await until(lambda: any("refresh" in task.get_name() for task in world.part._tasks._tasks))
    await asyncio.sleep(0)
    await world.client.identify_customer(ANN)
    await world.quiet()
    assert world.asked() == []

    world.sandbox.faults.add(Fault("latency", seconds=0.3, paths="/segments$", times=1))
    part = world.part.of(world.client._context)
    part.refresh()
    await until(lambda: "link-ids" in world.asked())
    await world.client.identify_customer(BEN)
    await world.quiet()
    assert isinstance(stream, Listener)
    assert world.loads == 1
    assert held(stream) == []

    await world.upload()
    assert held(stream) == [["a"]]


@vector("S17")
async def a_second_old(world: World) -> None:
    """Segments of a second ago do."""
    assert await loads_after(world, 1) == 0


@vector("S18")
async def forced(world: World) -> None:
    """Segments that must be of now are asked for."""
    assert await loads_after(world, 1, force=True) == 1


@vector("S19")
async def six_seconds_old(world: World) -> None:
    """Segments of six seconds ago don't do; of five they still do."""
    assert await loads_after(world, 5) == 0
    assert await loads_after(world, 6) == 1


@vector("S20")
async def ids_changed(world: World) -> None:
    """Another customer's segments don't do."""
    world.answer(discovery=["a"])
    await world.client.get_segments("discovery")
    await world.client.identify_customer(ANN)
    await world.client.get_segments("discovery")
    assert world.loads == 2


@vector("S21")
async def at_the_same_time(world: World) -> None:
    """Calls at the same time share one request, each with its own category."""
    world.answer(discovery=["a"], content=["c"])
    categories = ["discovery", "content", "discovery", "content", "discovery"]
    told = await asyncio.gather(*(world.client.get_segments(each) for each in categories))
    assert [ids(each) for each in told] == [["a"], ["c"], ["a"], ["c"], ["a"]]
    assert world.loads == 1


@vector("S22")
async def customer_changes_meanwhile(world: World) -> None:
    """Where the customer changes during the call, the new one's segments are told."""
    world.sandbox.messages.segments["discovery"].put(his_own)
    await world.client.identify_customer(ANN)
    await world.client.flush_data()
    world.sandbox.faults.add(Fault("latency", seconds=0.3, paths="/segments$", times=1))
    call = asyncio.create_task(world.client.get_segments("discovery"))
    await until(lambda: "link-ids" in world.asked())
    await world.client.identify_customer(BEN)
    assert ids(await call) == ["ben@x.com"]
    assert world.asked() == ["link-ids", "segments"] * 2


@vector("S23")
async def stopped(world: World) -> None:
    """After the integration was stopped there are none, and the platform is not asked."""
    world.answer(discovery=["a"])
    await world.client.get_segments("discovery")
    await world.client.stop_integration()
    assert await world.client.get_segments("discovery", force=True) == []
    assert world.loads == 1


@vector("S24")
async def anonymized(world: World) -> None:
    """Who waits while the customer is anonymized gets none, at once."""
    world.answer(discovery=["a"])
    await world.client.get_segments("discovery")
    world.sandbox.faults.add(Fault("latency", seconds=60, paths="/segments$"))
    calls = [asyncio.create_task(world.client.get_segments("discovery", force=True)) for _ in range(2)]
    await until(lambda: world.part.of(world.client._context)._loading is not None)
    await world.client.anonymize()
    assert await asyncio.wait_for(asyncio.gather(*calls), 30) == [[], []]


@vector("S25")
async def custom_category(world: World) -> None:
    """A category of the project's own is told like any other, whatever its segments hold."""
    world.answer(seasons=[{"name": "winter", "rank": 3, "open": True, "until": None}])
    stream = await world.listen("seasons")
    assert list(stream._pending) == [[{"name": "winter", "rank": "3", "open": "true"}]]
    assert await world.client.get_segments("seasons") == [{"name": "winter", "rank": "3", "open": "true"}]


@pytest.mark.parametrize("scenario", VECTORS)
async def test_vector(world: World, scenario: Scenario) -> None:
    """The scenario of this number ends as the rules say."""
    await scenario(world)


def test_no_number_is_missing() -> None:
    """There is one scenario for each number."""
    assert [each.id for each in VECTORS] == [f"S{number:02}" for number in range(1, 26)]


def his_own(customer: CustomerView) -> dict[str, str] | None:
    """Put each customer into a segment of their own."""
    return segment(customer.ids["registered"][-1]) if "registered" in customer.ids else None


async def loads_after(world: World, seconds: float, *, force: bool = False) -> int:
    """Ask twice with some time between, and tell how often the platform is asked the second time."""
    world.answer(discovery=["a"])
    await world.client.get_segments("discovery", force=True)
    before = world.loads
    world.phone.now += seconds
    assert ids(await world.client.get_segments("discovery", force=force)) == ["a"]
    return world.loads - before
