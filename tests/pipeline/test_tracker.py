"""
The stamps of events, and the street's beginning on its own.
"""

from collections.abc import Iterable
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exponea_async import Configuration, Event, EventType, Hooks, InvalidEventError, NotStartedError
from exponea_async._pipeline.clock import CORRECTION, UniqueClock
from exponea_async._pipeline.commands import read_command
from exponea_async._pipeline.credentials import CredentialStore
from exponea_async._pipeline.receipts import Receipts
from exponea_async._pipeline.recorder import EventRecorder
from exponea_async.observability import Counters
from exponea_async.storage.memory import MemoryStorage


def stamps(readings: Iterable[float]) -> list[float]:
    """Tell the stamps that a clock with these readings leads to."""
    readings = list(readings)
    source = UniqueClock(iter(readings).__next__)
    return [source.next() for _ in readings]


class TestStamps:
    def test_a_clock_that_stands_still(self) -> None:
        """Stamps go on rising, by no more than they have to."""
        found = stamps([100.0] * 1000)

        assert found == sorted(set(found))
        assert found[-1] < 100.01

    def test_a_clock_that_trembles(self) -> None:
        """A step back within a second is ridden out."""
        found = stamps([100.0, 99.9, 99.5, 100.2])

        assert found == sorted(set(found))
        assert found[-1] == 100.2

    def test_a_clock_that_was_set_back(self) -> None:
        """A correction is followed: the time before it was wrong."""
        assert stamps([100.0, 50.0, 51.0]) == [100.0, 50.0, 51.0]

    @given(st.lists(st.floats(1.7e9, 1.7e9 + 5), max_size=50))
    def test_neighbours_differ(self, readings: list[float]) -> None:
        """Whatever the clock does, no two stamps in a row are equal, and none is far from the clock."""
        found = stamps(readings)

        assert all(one != two for one, two in pairwise(found))
        assert all(abs(stamp - reading) <= CORRECTION + 1e-3 for stamp, reading in zip(found, readings, strict=True))


class TestTracker:
    @pytest.fixture
    def woken(self) -> list[int]:
        return []

    @pytest.fixture
    async def storage(self) -> MemoryStorage:
        storage = MemoryStorage()
        await storage.open()
        return storage

    @pytest.fixture
    def tracker(self, storage: MemoryStorage, woken: list[int]) -> EventRecorder:
        return EventRecorder(
            configuration=Configuration(project_token="shop", authorization_token="key"),
            hooks=Hooks(),
            storage=storage,
            receipts=Receipts(storage),
            counters=Counters(),
            clock=lambda: 5.0,
            wake=lambda: woken.append(1),
            credentials=CredentialStore((), storage),
        )

    async def test_nothing_mutable_passes(self, tracker: EventRecorder) -> None:
        """A draft is bytes: what the caller changes afterwards does not get in."""
        properties = {"list": [1]}
        draft = tracker.draft_event(EventType.TRACK_EVENT, Event("x", properties))
        properties["list"].append(2)

        assert draft is not None
        assert draft.properties == b'"list":[1]'

    async def test_defaults_stay_out_of_push_tokens(self, tracker: EventRecorder, storage: MemoryStorage) -> None:
        """The properties of a push token are a protocol of their own."""
        tracker.set_default_properties({"a": 1})
        drafts = [tracker.draft_event(kind, Event("x")) for kind in (EventType.PUSH_TOKEN, EventType.SESSION_START)]
        who = tracker.identity({"cookie": "c"}, "d")
        await tracker.record_many(who, [(None, draft) for draft in drafts if draft])

        bare, full = [read_command(record.body)["data"]["properties"] for record in await storage.waiting(2)]
        assert ("a" in bare, full["a"]) == (False, 1)

    async def test_the_upload_is_woken_after_the_write(self, tracker: EventRecorder, woken: list[int]) -> None:
        """Who is told of records finds them; who is refused tells nobody."""
        who = tracker.identity({"cookie": "c"}, None)
        draft = tracker.draft_event(EventType.TRACK_EVENT, Event("x"))
        assert draft is not None
        await tracker.record_many(who, [(None, draft)] * 3)
        tracker.refuse(NotStartedError("Not started."))
        with pytest.raises(NotStartedError):
            await tracker.record_many(who, [(None, draft)])

        assert woken == [1]

    async def test_a_refusal_is_a_new_error_each_time(self, tracker: EventRecorder) -> None:
        """Two callers who are refused do not share a traceback."""
        tracker.refuse(NotStartedError("Not started.", hint="Start."))
        errors = []
        for _ in range(2):
            with pytest.raises(NotStartedError, match="Not started") as raised:
                tracker.draft_event(EventType.TRACK_EVENT, Event("x"))
            errors.append(raised.value)

        assert errors[0] is not errors[1]

    async def test_a_stopped_one_drops(self, tracker: EventRecorder, storage: MemoryStorage) -> None:
        """What comes after a stop, or was on its way, is not kept."""
        who = tracker.identity({"cookie": "c"}, None)
        draft = tracker.draft_event(EventType.TRACK_EVENT, Event("x"))
        assert draft is not None
        tracker.stop()

        assert tracker.draft_event(EventType.TRACK_EVENT, Event("x")) is None
        assert [receipt.status for receipt in await tracker.record_many(who, [(None, draft)])] == ["dropped"]
        assert (await storage.pending()).waiting == 0
        tracker.accept()
        assert [receipt.status for receipt in await tracker.record_many(who, [(None, draft)])] == ["queued"]

    async def test_properties_of_any_mapping(self, tracker: EventRecorder) -> None:
        """Properties are a mapping; what is none is named."""
        with pytest.raises(InvalidEventError, match="properties"):
            tracker.draft_event(EventType.TRACK_EVENT, Event("x", 5))  # type: ignore[arg-type]
