"""
How events are recorded.
"""

import pytest

from exponea_async import Configuration, Event, EventType, Hooks, InvalidEventError, NotStartedError
from exponea_async._pipeline.commands import read_command
from exponea_async._pipeline.projects import ProjectStore
from exponea_async._pipeline.receipts import Receipts
from exponea_async._pipeline.recorder import EventRecorder
from exponea_async.observability import Counters
from exponea_async.storage.memory import MemoryStorage


@pytest.fixture
def woken() -> list[int]:
    return []


@pytest.fixture
async def storage() -> MemoryStorage:
    storage = MemoryStorage()
    await storage.open()
    return storage


@pytest.fixture
def recorder(storage: MemoryStorage, woken: list[int]) -> EventRecorder:
    configuration = Configuration(project_token="shop", authorization_token="key")
    return EventRecorder(
        configuration=configuration,
        hooks=Hooks(),
        storage=storage,
        receipts=Receipts(storage, Counters(), Hooks()),
        counters=Counters(),
        clock=lambda: 5.0,
        note_written=woken.append,
        projects=ProjectStore(configuration, storage),
    )


async def test_a_draft_is_not_affected_by_later_changes(recorder: EventRecorder) -> None:
    """A draft is encoded, so changes of the properties by the caller have no effect."""
    properties = {"list": [1]}
    draft = recorder.draft_event(EventType.TRACK_EVENT, Event("x", properties))
    properties["list"].append(2)

    assert draft is not None
    assert draft.properties == b'"list":[1]'


async def test_push_tokens_have_no_default_properties(recorder: EventRecorder, storage: MemoryStorage) -> None:
    """The properties of a push token are a protocol of their own."""
    recorder.set_default_properties({"a": 1})
    drafts = [recorder.draft_event(kind, Event("x")) for kind in (EventType.PUSH_TOKEN, EventType.SESSION_START)]
    who = recorder.identity({"cookie": "c"}, "d")
    await recorder.record_many(who, [(None, draft) for draft in drafts if draft])

    bare, full = [read_command(record.body)["data"]["properties"] for record in await storage.waiting(2)]
    assert ("a" in bare, full["a"]) == (False, 1)


async def test_the_upload_is_woken_after_a_write(recorder: EventRecorder, woken: list[int]) -> None:
    """It learns of each commit and the number of its records, and of no call that raises an error."""
    who = recorder.identity({"cookie": "c"}, None)
    draft = recorder.draft_event(EventType.TRACK_EVENT, Event("x"))
    assert draft is not None
    await recorder.record_many(who, [(None, draft)] * 3)
    recorder.refuse(NotStartedError("Not started."))
    with pytest.raises(NotStartedError):
        await recorder.record_many(who, [(None, draft)])

    assert woken == [3]


async def test_each_refused_call_raises_a_new_error(recorder: EventRecorder) -> None:
    """Two calls do not share a traceback."""
    recorder.refuse(NotStartedError("Not started.", hint="Start it."))
    errors = []
    for _ in range(2):
        with pytest.raises(NotStartedError, match="Not started") as raised:
            recorder.draft_event(EventType.TRACK_EVENT, Event("x"))
        errors.append(raised.value)

    assert errors[0] is not errors[1]


async def test_a_stopped_recorder_drops_events(recorder: EventRecorder, storage: MemoryStorage) -> None:
    """Events and drafts are dropped until it accepts events again."""
    who = recorder.identity({"cookie": "c"}, None)
    draft = recorder.draft_event(EventType.TRACK_EVENT, Event("x"))
    assert draft is not None
    recorder.stop()

    assert recorder.draft_event(EventType.TRACK_EVENT, Event("x")) is None
    assert [receipt.status for receipt in await recorder.record_many(who, [(None, draft)])] == ["dropped"]
    assert (await storage.pending()).waiting == 0
    recorder.accept()
    assert [receipt.status for receipt in await recorder.record_many(who, [(None, draft)])] == ["queued"]


async def test_properties_must_be_a_mapping(recorder: EventRecorder) -> None:
    """The error names the field."""
    with pytest.raises(InvalidEventError, match="properties"):
        recorder.draft_event(EventType.TRACK_EVENT, Event("x", 5))  # type: ignore[arg-type]
