"""
Segments through the verbs, and what the platform may answer.
"""

import asyncio
import gc
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from helpers.app import Phone
from helpers.clients import Connect
from helpers.waiting import until
from hypothesis import given
from hypothesis import strategies as st
from segments_world import Listener, World, held, segment, world_of

from exponea_async import (
    ClosedError,
    Customer,
    Event,
    InvalidEventError,
    NotStartedError,
    RequestRefusedError,
    UnavailableError,
)
from exponea_async.devices.customers import CustomerSnapshot
from exponea_async.devices.state import ProjectRef
from exponea_async.features.segments import watcher as _segments_device
from exponea_async.features.segments.parsing import Known, ask_for, link_for, news, read_segments
from exponea_async.features.segments.watcher import NAME
from exponea_async.sandbox import CustomerView, Fault, Sandbox

A, B = segment("a"), segment("b")
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=12,
)
SEGMENTS = st.dictionaries(
    st.sampled_from(["discovery", "content", "x"]),
    st.lists(
        st.dictionaries(st.sampled_from(["id", "segmentation_id"]), st.sampled_from("ab"), min_size=1), max_size=3
    ),
).map(lambda told: {category: tuple(its) for category, its in told.items()})

#: Answers of which nothing can be used.
HOSTILE = {
    "null": "null",
    "list": "[1, 2]",
    "text": '"discovery"',
    "number": "7",
    "empty": "",
    "cut": '{"discovery": [{"id": "a", "segmentation_id"',
    "html": "<html>Bad gateway</html>",
    "bytes": b"\xff\xfe\x00",
    "deep": '{"discovery": [' + '{"id":' * 50_000 + "1" + "}" * 50_000 + "]}",
    "deep list": "[" * 100_000,
    "huge": json.dumps({"discovery": [segment(str(number)) for number in range(30_000)]}),
    "category is text": '{"discovery": "a"}',
    "category is object": '{"discovery": {"id": "a"}}',
    "category is null": '{"discovery": null}',
    "segments are texts": '{"discovery": ["a", 1, null, true, []]}',
    "segment is empty": '{"discovery": [{}]}',
    "ids are objects": '{"discovery": [{"id": {"a": 1}, "segmentation_id": []}]}',
    "ids are null": '{"discovery": [{"id": null, "segmentation_id": null}]}',
    "half a pair": '{"discovery": [{"id": "\\ud800", "segmentation_id": "s"}]}',
    "no number": '{"discovery": [{"id": NaN}]}',
    "failure": '{"success": false, "errors": ["no"]}',
}


@pytest.fixture
async def world(phone: Phone, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[World]:
    async with world_of(phone, sandbox, monkeypatch) as world:
        yield world


class TestAnswers:
    @pytest.mark.parametrize("body", HOSTILE.values(), ids=HOSTILE)
    async def test_hostile(self, world: World, body: str | bytes) -> None:
        """Whatever the platform answers, a call gets an empty list."""
        world.sandbox.messages.set_response("segments", body)
        assert await world.client.get_segments("discovery") == []

    @pytest.mark.parametrize("status", [301, 400, 401, 403, 404, 429, 500, 503])
    async def test_failures(self, world: World, status: int, caplog: pytest.LogCaptureFixture) -> None:
        """A failure is an empty list, and is logged."""
        world.fail("segments", status=status)
        assert await world.client.get_segments("discovery") == []
        assert "segments of default failed" in caplog.text

    async def test_no_connection(self, world: World) -> None:
        """Without a platform there are no segments, but those that are known."""
        world.answer(discovery=["a"])
        await world.client.get_segments("discovery")
        await world.sandbox.aclose()
        assert await world.client.get_segments("discovery") == [A]
        assert await world.client.get_segments("discovery", force=True) == []

    def test_what_is_broken_is_left_out(self) -> None:
        """A broken segment or category takes nothing from those beside it."""
        body = {"discovery": [A, 7, {"id": []}, {"id": 1, "segmentation_id": True, "more": [1]}], "x": 5, "content": []}
        assert read_segments(json.dumps(body).encode()) == {
            "discovery": (A, {"id": "1", "segmentation_id": "true"}),
            "content": (),
        }

    @given(JSON)
    def test_any_json(self, value: Any) -> None:
        """Any JSON is read as segments of texts, or refused with an error of ours."""
        try:
            read = read_segments(json.dumps(value).encode())
        except (UnavailableError, RequestRefusedError):
            return
        texts = [text for its in read.values() for each in its for pair in each.items() for text in pair]
        assert all(isinstance(text, str) for text in texts)
        assert Known.decode(Known("m", 1.0, read).encode()) == Known("m", 1.0, read)

    @given(JSON)
    def test_any_memory(self, value: Any) -> None:
        """What is stored is read, or refused."""
        try:
            known = Known.decode(json.dumps(value).encode())
        except ValueError:
            return
        assert isinstance(known, Known)


class TestNews:
    @given(SEGMENTS, SEGMENTS)
    def test_both_ways(self, one: Any, other: Any) -> None:
        """What is new in the one after the other is new the other way round, and nothing is new in the same."""
        assert news(one, other) == news(other, one)
        assert news(one, one) == frozenset()
        assert news(None, one) == one.keys()

    @pytest.mark.parametrize(
        ("before", "now", "told"),
        [
            ({"d": (A, B)}, {"d": (B, A)}, set()),
            ({"d": (A,)}, {"d": (A, A)}, set()),
            ({"d": (A,)}, {"d": (B,)}, {"d"}),
            ({"d": (A,)}, {}, {"d"}),
            ({}, {"d": ()}, {"d"}),
            ({"d": ()}, {"d": ()}, set()),
        ],
    )
    def test_sets(self, before: Any, now: Any, told: set[str]) -> None:
        """Segments are compared as sets; a category that comes or goes is news, be it empty."""
        assert news(before, now) == told


class TestQuestions:
    def test_cookies_are_quoted(self) -> None:
        """Whatever is in a cookie, it is one part of the address."""
        who = CustomerSnapshot({"cookie": "a/b?{c}&d é", "registered": "x"}, ProjectRef("https://x.com", "p"))
        link = link_for(who, 1)
        assert ask_for(who, 1).path.endswith("?cookie=a%2Fb%3F%7Bc%7D%26d%20%C3%A9")
        assert link is not None
        assert "/cookies/a%2Fb%3F%7Bc%7D%26d%20%C3%A9/" in link.path

    @pytest.mark.parametrize("category", ["", None, 5, b"x"])
    async def test_categories_are_texts(self, world: World, category: Any) -> None:
        """What is no category is refused."""
        with pytest.raises(InvalidEventError, match="exposing_category"):
            await world.client.get_segments(category)
        with pytest.raises(InvalidEventError, match="exposing_category"):
            world.client.segmentation_data_stream(category)

    async def test_only_devices(self, world: World) -> None:
        """A customer tracker has no verbs of segments, and as the current subject it is refused."""
        tracker = world.client.for_customer({"registered": "x"})
        assert not hasattr(tracker, "get_segments")
        with world.client.bind(tracker):
            with pytest.raises(InvalidEventError, match="Use a device"):
                await world.client.get_segments("discovery")
            with pytest.raises(InvalidEventError, match="Use a device"):
                world.client.segmentation_data_stream("discovery")

    async def test_outside_of_its_life(self, phone: Phone) -> None:
        """Before the start and after the end the verbs are refused."""
        client = phone.make()
        with pytest.raises(NotStartedError):
            await client.get_segments("discovery")
        with pytest.raises(NotStartedError):
            client.segmentation_data_stream("discovery")
        await client.start()
        await client.aclose()
        with pytest.raises(ClosedError):
            await client.get_segments("discovery")
        with pytest.raises(ClosedError):
            client.segmentation_data_stream("discovery")

    async def test_given_up(self, world: World) -> None:
        """Who gives a shared question up takes nothing from the others."""
        world.answer(discovery=["a"])
        world.sandbox.faults.add(Fault("latency", seconds=0.2, paths="/segments$", times=1))
        calls = [asyncio.create_task(world.client.get_segments("discovery")) for _ in range(2)]
        await until(lambda: world.part.of(world.client._context)._loading is not None)
        calls[0].cancel()
        assert await calls[1] == [A]
        assert world.loads == 1

    async def test_copies(self, world: World) -> None:
        """Who changes what was told changes it for nobody else."""
        world.answer(discovery=["a"])
        stream = await world.listen()
        first = await anext(stream)
        first[0]["id"] = "x"
        first.clear()
        assert await world.client.get_segments("discovery") == [A]

    async def test_stored_nonsense(self, world: World) -> None:
        """What is stored and can't be read is asked for again."""
        world.answer(discovery=["a"])
        await world.client.get_segments("discovery")
        await world.client._context.save_data(NAME, b"nonsense")
        assert await world.client.get_segments("discovery") == [A]
        assert world.loads == 2


class TestDevices:
    async def test_their_own(self, world: World) -> None:
        """Devices never see each other's segments, whatever happens at the same time."""
        world.sandbox.messages.segments["discovery"].put(one_of_each)
        devices = [world.client.device(f"d{number}") for number in range(12)]
        streams = [each.segmentation_data_stream("discovery", include_first_load=True) for each in devices]
        for number, device in enumerate(devices):
            await device.identify_customer(Customer({"registered": f"c{number}"}))
        await world.upload()
        told = await asyncio.gather(*(each.get_segments("discovery", force=True) for each in devices))
        assert [[each["id"] for each in its] for its in told] == [[f"c{number}"] for number in range(12)]
        for number, stream in enumerate(streams):
            assert isinstance(stream, Listener)
            assert held(stream)[-1:] == [[f"c{number}"]]

    async def test_current_at_the_call(self, world: World) -> None:
        """A stream is about the device that was current when it was asked for."""
        world.answer(discovery=["a"])
        with world.client.bind(world.client.device("other")):
            stream = world.client.segmentation_data_stream("discovery")
        await world.upload()
        assert await anext(stream) == [A]
        other = await world.client.device("other").get_customer_cookie()
        assert world.sandbox.requests[-1].query == f"cookie={other}"


class TestStreams:
    async def test_awaited(self, world: World) -> None:
        """A stream may be awaited, as the vendor's is, and gives itself; a block closes it."""
        stream = world.client.segmentation_data_stream("discovery")
        assert await stream is stream
        async with stream as same:
            assert same is stream
        assert stream.is_closed
        assert [value async for value in stream] == []

    async def test_last_one_held(self, world: World) -> None:
        """Of what nobody has taken yet only the last is told."""
        world.answer(discovery=["a"])
        stream = await world.listen()
        world.answer(discovery=["b"])
        await world.track()
        assert await anext(stream) == [B]
        assert held(stream) == []

    async def test_asked_by_hand(self, world: World) -> None:
        """What a call finds to be new is told to streams too."""
        world.answer(discovery=["a"])
        stream = await world.listen()
        assert held(stream) == [["a"]]
        world.answer(discovery=["b"])
        await world.client.get_segments("content", force=True)
        assert held(stream) == [["b"]]

    async def test_first_load_after_a_failure(self, world: World) -> None:
        """Who wants the first load gets it even if the first try fails."""
        world.answer(discovery=["a"])
        world.fail("segments")
        stream = await world.listen(include_first_load=True)
        assert held(stream) == []
        world.recover()
        await world.track()
        assert held(stream) == [["a"]]

    async def test_first_load_at_a_launch(self, world: World) -> None:
        """Who still waits for the first load gets it when the device comes to life again."""
        world.answer(discovery=["a"])
        world.fail("segments")
        stream = await world.listen(include_first_load=True)
        world.recover()
        # As where a device that was long out of use comes back into memory.
        world.client._devices.clear()
        await world.client.track_event(Event("ping"))
        await world.quiet()
        assert held(stream) == [["a"]]

    async def test_older_answers_do_not_do(self, world: World) -> None:
        """What was asked before the wait was over is not taken for what has to be asked after it."""
        world.answer(discovery=["a"])
        stream = await world.listen()
        before = world.loads
        world.sandbox.faults.add(Fault("latency", seconds=0.5, paths="/segments$", times=1))
        call = asyncio.create_task(world.client.get_segments("discovery", force=True))
        device = world.part.of(world.client._context)
        await until(lambda: device._loading is not None)
        device.refresh()
        assert await call == [A]
        await world.quiet()
        assert world.loads == before + 2
        await stream.aclose()

    async def test_refused_events(self, world: World) -> None:
        """An event that was refused makes nobody ask; the next one that was accepted does."""
        stream = await world.listen()
        before = world.loads
        world.sandbox.faults.add(Fault("reject", times=1))
        await world.track()
        assert world.loads == before
        await world.track()
        assert world.loads == before + 1
        await stream.aclose()

    async def test_customer_updates(self, world: World) -> None:
        """A customer's update is an event like any other."""
        stream = await world.listen()
        before = world.loads
        await world.client.identify_customer(Customer({"registered": "ann"}))
        await world.upload()
        assert world.loads == before + 1
        await stream.aclose()

    async def test_never_quiet(self, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
        """Where something happens all the time, the platform is asked after the longest wait all the same."""
        monkeypatch.setattr(_segments_device, "DEBOUNCE", 60.0)
        monkeypatch.setattr(_segments_device, "LONGEST_WAIT", 0.2)
        world.answer(discovery=["a"])
        stream = world.client.segmentation_data_stream("discovery")
        device = world.part.of(world.client._context)
        while not world.loads:
            device.refresh()
            await asyncio.sleep(0.01)
        assert await anext(stream) == [A]

    async def test_abandoned(self, world: World) -> None:
        """Who goes away without a word is not held on to."""
        await world.listen()
        gc.collect()
        assert not world.part.is_listening
        before = world.loads
        await world.track()
        assert world.loads == before

    async def test_closed_ones(self, world: World) -> None:
        """Once the last stream is closed nothing is waited for any more."""
        stream = world.client.segmentation_data_stream("discovery")
        await world.quiet()
        await world.client.track_event(Event("ping"))
        await stream.aclose()
        await until(lambda: not world.part._tasks._tasks)
        del stream
        gc.collect()
        assert not world.part.is_listening

    async def test_waiting_for_many(self, world: World) -> None:
        """However many events wait for their upload, one task waits for some of them."""
        stream = await world.listen()
        for _ in range(_segments_device.RECEIPTS * 3):
            await world.client.track_event(Event("ping"))
        device = world.part.of(world.client._context)
        assert len(device._receipts) <= _segments_device.RECEIPTS
        assert len(world.part._tasks._tasks) == 1
        before = world.loads
        await world.upload()
        assert world.loads == before + 1
        await stream.aclose()


class TestEnds:
    async def test_anonymize(self, world: World) -> None:
        """An anonymized device forgets, asks for nothing by itself, and goes on with what the new customer does."""
        world.answer(discovery=["a"])
        stream = await world.listen()
        before = world.loads
        await world.client.anonymize()
        await world.quiet()
        assert held(stream) == []
        assert await world.client._context.load_data(NAME) is None
        assert world.loads == before

        await world.upload()
        assert world.loads == before + 1
        assert held(stream) == [["a"]]

    async def test_anonymize_during_the_wait(self, world: World) -> None:
        """What was to be asked for the customer who has gone is not asked any more."""
        stream = world.client.segmentation_data_stream("discovery", include_first_load=True)
        await until(lambda: any("refresh" in task.get_name() for task in world.part._tasks._tasks))
        await world.client.anonymize()
        await world.quiet()
        assert world.asked() == []
        await stream.aclose()

    async def test_stop(self, world: World) -> None:
        """Stopping ends streams, and leaves nothing; after a new start there are none of before."""
        world.answer(discovery=["a"])
        stream = await world.listen()
        held(stream)
        taken = asyncio.create_task(anext(stream, None))
        world.sandbox.faults.add(Fault("latency", seconds=60, paths="/segments$"))
        call = asyncio.create_task(world.client.get_segments("discovery", force=True))
        await until(lambda: world.part.of(world.client._context)._loading is not None)
        await world.client.stop_integration()
        assert await asyncio.wait_for(call, 30) == []
        assert await taken is None
        assert [value async for value in world.client.segmentation_data_stream("discovery")] == []

        world.recover()
        await world.client.start()
        await world.track()
        assert world.loads == 1
        assert len(await world.client.get_segments("discovery")) == 1

    async def test_close(self, world: World) -> None:
        """Closing ends streams and lets who waits go, without a warning."""
        stream = await world.listen()
        world.sandbox.faults.add(Fault("latency", seconds=60, paths="/segments$"))
        call = asyncio.create_task(world.client.get_segments("discovery", force=True))
        await until(lambda: world.part.of(world.client._context)._loading is not None)
        await world.client.aclose()
        assert await asyncio.wait_for(call, 30) == []
        assert [value async for value in stream if value] == []

    async def test_real_waits(self, connect: Connect) -> None:
        """A client that closes right after a stream was asked for does not wait for it."""
        client = await connect(device=True)
        stream = client.segmentation_data_stream("discovery", include_first_load=True)
        await client.aclose()
        assert [value async for value in stream] == []


def one_of_each(customer: CustomerView) -> dict[str, str] | None:
    return segment(customer.ids["registered"][-1]) if "registered" in customer.ids else None
