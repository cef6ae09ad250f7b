"""
Segments: the verbs, the streams, and any response of the platform.
"""

import asyncio
import gc
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from helpers.app import App
from helpers.clients import Connect
from helpers.environment import SetConstants
from helpers.gateway import Gateway
from helpers.internals import context_of
from helpers.segments import SegmentsFixture, segment, segment_ids, started
from helpers.waiting import running, until
from hypothesis import given
from hypothesis import strategies as st

from exponea_async import (
    ClosedError,
    Customer,
    Event,
    InvalidEventError,
    NotStartedError,
    RequestLimits,
    RequestRefusedError,
    UnavailableError,
)
from exponea_async.devices.customers import CustomerSnapshot
from exponea_async.features.segments import watcher
from exponea_async.features.segments.parsing import (
    CachedSegments,
    changed_categories,
    link_request,
    read_segments,
    segments_request,
)
from exponea_async.features.segments.stored import NAME
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
).map(lambda drawn: {category: tuple(its) for category, its in drawn.items()})

#: Responses without a usable segment.
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
async def segments(app: App, sandbox: Sandbox, set_constants: SetConstants) -> AsyncIterator[SegmentsFixture]:
    async with started(app, sandbox, set_constants) as segments:
        yield segments


class TestResponses:
    @pytest.mark.parametrize("body", HOSTILE.values(), ids=HOSTILE)
    async def test_hostile(self, segments: SegmentsFixture, body: str | bytes) -> None:
        """A call returns an empty list, whatever the response is."""
        segments.sandbox.messages.set_response("segments", body)
        assert await segments.client.get_segments("discovery") == []

    @pytest.mark.parametrize("status", [301, 400, 401, 403, 404, 429, 500, 503])
    async def test_failures(self, segments: SegmentsFixture, status: int, caplog: pytest.LogCaptureFixture) -> None:
        """A failed request is logged, and the call returns an empty list."""
        segments.fail("segments", status=status)
        assert await segments.client.get_segments("discovery") == []
        assert "segments of @default failed" in caplog.text

    async def test_no_connection(self, segments: SegmentsFixture) -> None:
        """Without a connection a call returns fresh segments, or else an empty list."""
        segments.respond(discovery=["a"])
        await segments.client.get_segments("discovery")
        await segments.sandbox.aclose()
        assert await segments.client.get_segments("discovery") == [A]
        assert await segments.client.get_segments("discovery", force=True) == []

    def test_malformed_segments_are_skipped(self) -> None:
        """A malformed segment or category does not affect the others."""
        body = {"discovery": [A, 7, {"id": []}, {"id": 1, "segmentation_id": True, "more": [1]}], "x": 5, "content": []}
        assert read_segments(json.dumps(body).encode()) == {
            "discovery": (A, {"id": "1", "segmentation_id": "true"}),
            "content": (),
        }

    @given(JSON)
    def test_any_json(self, value: Any) -> None:
        """Any JSON is read as segments of strings, or raises an error of this package."""
        try:
            read = read_segments(json.dumps(value).encode())
        except (UnavailableError, RequestRefusedError):
            return
        strings = [string for its in read.values() for each in its for pair in each.items() for string in pair]
        assert all(isinstance(string, str) for string in strings)
        assert CachedSegments.decode(CachedSegments("m", 1.0, read).encode()) == CachedSegments("m", 1.0, read)

    @given(JSON)
    def test_any_stored_value(self, value: Any) -> None:
        """Any stored JSON is read, or raises a ValueError."""
        try:
            cached = CachedSegments.decode(json.dumps(value).encode())
        except ValueError:
            return
        assert isinstance(cached, CachedSegments)


class TestChangedCategories:
    @given(SEGMENTS, SEGMENTS)
    def test_symmetry(self, one: Any, other: Any) -> None:
        """The comparison is symmetric, and equal segments have no changed category."""
        assert changed_categories(one, other) == changed_categories(other, one)
        assert changed_categories(one, one) == frozenset()
        assert changed_categories(None, one) == one.keys()

    @pytest.mark.parametrize(
        ("before", "now", "changed"),
        [
            ({"d": (A, B)}, {"d": (B, A)}, set()),
            ({"d": (A,)}, {"d": (A, A)}, set()),
            ({"d": (A,)}, {"d": (B,)}, {"d"}),
            ({"d": (A,)}, {}, {"d"}),
            ({}, {"d": ()}, {"d"}),
            ({"d": ()}, {"d": ()}, set()),
        ],
    )
    def test_sets(self, before: Any, now: Any, changed: set[str]) -> None:
        """Segments are compared as sets; a category that appears or disappears has changed, even if it is empty."""
        assert changed_categories(before, now) == changed


class TestCalls:
    def test_cookies_are_quoted(self) -> None:
        """A cookie with any characters is one segment of the path or one value of the query."""
        customer = CustomerSnapshot({"cookie": "a/b?{c}&d é", "registered": "x"}, "p")
        link = link_request(customer, 1)
        assert segments_request(customer, 1).path.endswith("?cookie=a%2Fb%3F%7Bc%7D%26d%20%C3%A9")
        assert link is not None
        assert "/cookies/a%2Fb%3F%7Bc%7D%26d%20%C3%A9/" in link.path

    @pytest.mark.parametrize("category", ["", None, 5, b"x"])
    async def test_wrong_categories(self, segments: SegmentsFixture, category: Any) -> None:
        """A category that is not a non-empty string raises an error."""
        with pytest.raises(InvalidEventError, match="exposing_category"):
            await segments.client.get_segments(category)
        with pytest.raises(InvalidEventError, match="exposing_category"):
            segments.client.segmentation_data_stream(category)

    async def test_customer_tracker(self, segments: SegmentsFixture) -> None:
        """A customer tracker has no verbs for segments, and as the current subject it raises an error."""
        tracker = segments.client.for_customer({"registered": "x"})
        assert not hasattr(tracker, "get_segments")
        with segments.client.bind(tracker):
            with pytest.raises(InvalidEventError, match="Use a device"):
                await segments.client.get_segments("discovery")
            with pytest.raises(InvalidEventError, match="Use a device"):
                segments.client.segmentation_data_stream("discovery")

    async def test_client_that_does_not_run(self, app: App) -> None:
        """Before the start and after the end of the client the verbs raise an error."""
        client = app.make()
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

    async def test_cancelled_caller(self, segments: SegmentsFixture) -> None:
        """Cancelling one of several callers does not affect the others, which share one request."""
        segments.respond(discovery=["a"])
        segments.delay(0.2, times=1)
        calls = [asyncio.create_task(segments.client.get_segments("discovery")) for _ in range(2)]
        await segments.request_arrived()
        calls[0].cancel()
        assert await calls[1] == [A]
        assert segments.loads == 1

    async def test_a_platform_that_does_not_respond(
        self, segments: SegmentsFixture, caplog: pytest.LogCaptureFixture
    ) -> None:
        """A call waits for a limited time; later ones request nothing and do not wait, until there is a response."""
        segments.respond(discovery=["a"])
        async with Gateway(segments.sandbox.url) as gateway:
            client = await segments.app.start(limits=RequestLimits(segments_wait=0.3), base_url=gateway.url)
            gateway.hold("/segments$", responses=True)
            assert await client.get_segments("discovery") == []
            async with asyncio.timeout(60):  # far longer, if each of them waited
                for subject in (*[client] * 300, *(client.device(str(number)) for number in range(10))):
                    assert await subject.get_segments("discovery") == []
            assert "Segments of project" in caplog.text
            gateway.release()
            await segments.idle()
            assert await client.get_segments("discovery") == [A]
            await client.aclose(timeout=0)
        assert segments.loads == 1

    async def test_a_platform_that_fails(self, segments: SegmentsFixture, set_constants: SetConstants) -> None:
        """After a failure nothing is requested for a while, for any device; then the platform is asked again."""
        segments.respond(discovery=["a"])
        client = await segments.app.start()
        segments.fail("segments")
        assert await client.get_segments("discovery") == []
        assert await client.device("other").get_segments("discovery", force=True) == []
        assert segments.loads == watcher.MAX_ATTEMPTS
        segments.recover()
        set_constants(watcher, PAUSE=0.0)
        assert await segments.stream() is not None
        await segments.idle()
        assert await client.get_segments("discovery", force=True) == [A]

    async def test_copies(self, segments: SegmentsFixture) -> None:
        """Changing a returned list does not affect what others receive."""
        segments.respond(discovery=["a"])
        stream = await segments.stream()
        first = await anext(stream)
        first[0]["id"] = "x"
        first.clear()
        assert await segments.client.get_segments("discovery") == [A]

    async def test_malformed_stored_segments(self, segments: SegmentsFixture) -> None:
        """Stored segments that can't be read are loaded again."""
        segments.respond(discovery=["a"])
        await segments.client.get_segments("discovery")
        await context_of(segments.client).save_data(NAME, b"nonsense")
        assert await segments.client.get_segments("discovery") == [A]
        assert segments.loads == 2


class TestDevices:
    async def test_each_device_has_its_own(self, segments: SegmentsFixture) -> None:
        """Concurrent devices receive their own segments only."""
        segments.sandbox.messages.segments["discovery"].put(own_segment)
        devices = [segments.client.device(f"d{number}") for number in range(12)]
        streams = [each.segmentation_data_stream("discovery", include_first_load=True) for each in devices]
        for number, device in enumerate(devices):
            await device.identify_customer(Customer({"registered": f"c{number}"}))
        await segments.upload()
        found = await asyncio.gather(*(each.get_segments("discovery", force=True) for each in devices))
        assert [[each["id"] for each in its] for its in found] == [[f"c{number}"] for number in range(12)]
        for number, stream in enumerate(streams):
            assert segment_ids(stream)[-1:] == [[f"c{number}"]]

    async def test_stream_keeps_its_device(self, segments: SegmentsFixture) -> None:
        """A stream is about the device that was current when it was made."""
        segments.respond(discovery=["a"])
        with segments.client.bind(segments.client.device("other")):
            stream = segments.client.segmentation_data_stream("discovery")
        await segments.upload()
        assert await anext(stream) == [A]
        other = await segments.client.device("other").get_customer_cookie()
        assert segments.sandbox.requests[-1].query == f"cookie={other}"


class TestStreams:
    async def test_awaited(self, segments: SegmentsFixture) -> None:
        """Awaiting a stream returns it, as with the vendor's; the end of an `async with` block closes it."""
        stream = segments.client.segmentation_data_stream("discovery")
        assert await stream is stream
        async with stream as same:
            assert same is stream
        assert stream.is_closed
        assert [value async for value in stream] == []

    async def test_only_the_latest_value_is_held(self, segments: SegmentsFixture) -> None:
        """Of several values that were not yielded yet only the latest is yielded."""
        segments.respond(discovery=["a"])
        stream = await segments.stream()
        segments.respond(discovery=["b"])
        await segments.track()
        assert await anext(stream) == [B]
        assert segment_ids(stream) == []

    async def test_changes_found_by_a_call(self, segments: SegmentsFixture) -> None:
        """Changes that a call finds are published to streams, too."""
        segments.respond(discovery=["a"])
        stream = await segments.stream()
        assert segment_ids(stream) == [["a"]]
        segments.respond(discovery=["b"])
        await segments.client.get_segments("content", force=True)
        assert segment_ids(stream) == [["b"]]

    async def test_first_load_after_a_failure(self, segments: SegmentsFixture) -> None:
        """A stream with the first load yields it even if the first attempt failed."""
        segments.respond(discovery=["a"])
        segments.fail("segments")
        stream = await segments.stream(include_first_load=True)
        assert segment_ids(stream) == []
        segments.recover()
        await segments.track()
        assert segment_ids(stream) == [["a"]]

    async def test_first_load_at_a_first_activity(self, segments: SegmentsFixture) -> None:
        """A stream that still waits for the first load yields it after the device's first activity."""
        segments.respond(discovery=["a"])
        segments.fail("segments")
        stream = await segments.stream(include_first_load=True)
        segments.recover()
        segments.evict_devices()
        await segments.client.track_event(Event("ping"))
        await segments.idle()
        assert segment_ids(stream) == [["a"]]

    async def test_load_in_progress_is_not_reused(self, segments: SegmentsFixture) -> None:
        """A load that started before a trigger does not replace the load after the trigger."""
        segments.respond(discovery=["a"])
        stream = await segments.stream()
        before = segments.loads
        segments.delay(0.5, times=1)
        call = asyncio.create_task(segments.client.get_segments("discovery", force=True))
        await segments.request_arrived()
        await segments.trigger()
        assert await call == [A]
        await segments.idle()
        assert segments.loads == before + 2
        await stream.aclose()

    async def test_rejected_events(self, segments: SegmentsFixture) -> None:
        """A rejected event triggers no load; the next accepted event does."""
        stream = await segments.stream()
        before = segments.loads
        segments.sandbox.faults.add(Fault("reject", times=1))
        await segments.track()
        assert segments.loads == before
        await segments.track()
        assert segments.loads == before + 1
        await stream.aclose()

    async def test_customer_updates(self, segments: SegmentsFixture) -> None:
        """An upload of a customer update triggers a load as an event does."""
        stream = await segments.stream()
        before = segments.loads
        await segments.client.identify_customer(Customer({"registered": "ann"}))
        await segments.upload()
        assert segments.loads == before + 1
        await stream.aclose()

    async def test_continuous_triggers(self, segments: SegmentsFixture, set_constants: SetConstants) -> None:
        """Continuous triggers delay a load up to the maximum wait only."""
        set_constants(watcher, DEBOUNCE=60.0)
        set_constants(watcher, MAX_WAIT=0.2)
        segments.respond(discovery=["a"])
        stream = segments.client.segmentation_data_stream("discovery")
        while not segments.loads:
            await segments.trigger()
        assert await anext(stream) == [A]

    async def test_unreferenced_stream(self, segments: SegmentsFixture) -> None:
        """A stream without a reference is collected, and triggers no more loads."""
        await segments.stream()
        gc.collect()
        assert not segments.service.is_listening
        before = segments.loads
        await segments.track()
        assert segments.loads == before

    async def test_closed_stream(self, segments: SegmentsFixture) -> None:
        """Closing the last stream ends all tasks of its device."""
        stream = segments.client.segmentation_data_stream("discovery")
        await segments.idle()
        before = segments.loads
        await segments.client.track_event(Event("ping"))
        await stream.aclose()
        await until(lambda: not running("segments"))
        del stream
        gc.collect()
        assert not segments.service.is_listening
        await segments.track()
        assert segments.loads == before

    async def test_many_events(self, segments: SegmentsFixture, set_constants: SetConstants) -> None:
        """One task waits for the upload of all events of a device, which triggers one load."""
        # Longer than a busy machine needs between the verdicts of two batches.
        set_constants(watcher, DEBOUNCE=2.0)
        stream = await segments.stream()
        for _ in range(watcher.MAX_RECEIPTS * 3):
            await segments.client.track_event(Event("ping"))
        assert len(running("segments")) == 1
        device = segments.service.for_device(context_of(segments.client))
        assert len(device.receipts) <= watcher.MAX_RECEIPTS
        before = segments.loads
        await segments.upload()
        assert segments.loads == before + 1
        await stream.aclose()


class TestEnds:
    async def test_anonymize(self, segments: SegmentsFixture) -> None:
        """After an anonymize() segments are deleted, and loaded only after the new customer's next upload."""
        segments.respond(discovery=["a"])
        stream = await segments.stream()
        before = segments.loads
        await segments.client.anonymize()
        await segments.idle()
        assert segment_ids(stream) == []
        assert await context_of(segments.client).load_data(NAME) is None
        assert segments.loads == before

        await segments.upload()
        assert segments.loads == before + 1
        assert segment_ids(stream) == [["a"]]

    async def test_anonymize_before_a_delayed_load(self, segments: SegmentsFixture) -> None:
        """A delayed load of the previous customer is cancelled."""
        stream = segments.client.segmentation_data_stream("discovery", include_first_load=True)
        await segments.load_is_delayed()
        await segments.client.anonymize()
        await segments.idle()
        assert segments.requests() == []
        await stream.aclose()

    async def test_stop(self, segments: SegmentsFixture) -> None:
        """Stopping the integration ends streams and calls; after a new start streams of before stay closed."""
        segments.respond(discovery=["a"])
        stream = await segments.stream()
        segment_ids(stream)
        before = segments.loads
        value = asyncio.create_task(anext(stream, None))
        segments.delay(60)
        call = asyncio.create_task(segments.client.get_segments("discovery", force=True))
        await segments.request_arrived()
        await segments.client.stop_integration(everyone=True)
        assert await asyncio.wait_for(call, 60) == []
        assert await value is None
        assert [value async for value in segments.client.segmentation_data_stream("discovery")] == []

        segments.recover()
        await segments.client.start()
        await segments.track()
        assert segments.loads == before
        assert len(await segments.client.get_segments("discovery")) == 1

    async def test_close(self, segments: SegmentsFixture) -> None:
        """Closing the client ends streams and calls without a warning."""
        stream = await segments.stream()
        segments.delay(60)
        call = asyncio.create_task(segments.client.get_segments("discovery", force=True))
        await segments.request_arrived()
        await segments.client.aclose()
        assert await asyncio.wait_for(call, 60) == []
        assert [value async for value in stream if value] == []

    async def test_close_with_the_real_delay(self, connect: Connect) -> None:
        """Closing the client right after a stream was made does not wait for the delayed load."""
        client = await connect(device=True)
        stream = client.segmentation_data_stream("discovery", include_first_load=True)
        await client.aclose()
        assert [value async for value in stream] == []


def own_segment(customer: CustomerView) -> dict[str, str] | None:
    """Return a segment that only this customer belongs to."""
    return segment(customer.ids["registered"][-1]) if "registered" in customer.ids else None
