"""
Clients that only record: another process uploads what they have written.
"""

import asyncio

import pytest
from helpers.clients import Connect, numbered_events
from helpers.waiting import running

from exponea_async import Event, FlushMode, FlushResult, RejectedError
from exponea_async.sandbox import Fault, Sandbox
from exponea_async.testing import end_idle_sessions, idle, pending_records

DISABLED = {"enabled": False}


@pytest.mark.parametrize("mode", FlushMode)
async def test_nothing_is_uploaded(connect: Connect, sandbox: Sandbox, mode: FlushMode) -> None:
    """In no flush mode, by no flush and not by closing, anything is sent; all of it stays in the queue."""
    client = await connect(flush_mode=mode, flush_period=0.02, upload=DISABLED)
    await client.track_many(numbered_events(3))
    result = await client.flush_data()
    await idle(client)
    await asyncio.sleep(0.1)

    assert (result.delivered, result.rejected, result.remaining) == (0, 0, 3)
    assert "UploadSettings.enabled" in result.reasons["shop"]
    assert running("sender") == running("leasing") == running("period") == []
    await client.aclose()
    assert sandbox.request_count == 0
    again = await connect(flush_mode="MANUAL")
    assert (await again.flush_data(60)).delivered == 3


async def test_another_flush_mode(connect: Connect, sandbox: Sandbox) -> None:
    """Changing the mode or the period begins no upload."""
    client = await connect(flush_mode="MANUAL", upload=DISABLED)
    await client.track_event(Event("x"))
    for mode in FlushMode:
        await client.set_flush_mode(mode)
        await client.set_flush_period(0.02)
        await asyncio.sleep(0.05)

    assert sandbox.request_count == 0
    assert len(await pending_records(client)) == 1


async def test_nothing_to_flush(connect: Connect) -> None:
    """A flush of an empty queue returns nothing, and no reason."""
    client = await connect(upload=DISABLED)

    assert await client.flush_data() == FlushResult(0, 0, 0)


async def test_only_some_projects_are_flushed(connect: Connect) -> None:
    """Records of other projects are not counted, and have no reason."""
    client = await connect(upload=DISABLED)
    await client.track_event(Event("x"))

    assert await client.flush_data(projects=["another"]) == FlushResult(0, 0, 0)


async def test_receipts_of_what_another_client_uploads(connect: Connect, sandbox: Sandbox) -> None:
    """The receipts of a client that only records resolve when another one on the same file uploads."""
    sandbox.faults.add(Fault("reject", times=1))
    producer = await connect(upload=DISABLED)
    receipts = [await producer.track_event(event) for event in numbered_events(2)]
    uploader = await connect()
    errors = await asyncio.gather(*(receipt.delivered(60) for receipt in receipts), return_exceptions=True)

    assert {type(error) for error in errors} == {RejectedError, type(None)}
    assert sorted(receipt.status for receipt in receipts) == ["delivered", "rejected"]
    assert (uploader.stats().delivered, producer.stats().delivered) == (1, 0)


async def test_sessions_are_ended(connect: Connect) -> None:
    """Idle sessions are ended, and the events of their end are in the queue."""
    client = await connect(device=True, upload=DISABLED, session_timeout=0.01)
    await client.track_event(Event("x"))
    await asyncio.sleep(0.05)
    await end_idle_sessions(client)

    assert "session_end" in [record.data.get("event_type") for record in await pending_records(client)]


async def test_stopping(connect: Connect, sandbox: Sandbox) -> None:
    """Stopping with a flush sends nothing, and deletes what is in the queue, as it always does at last."""
    client = await connect(upload=DISABLED)
    await client.track_event(Event("x"))
    result = await client.stop_integration(flush=True, everyone=True)

    assert (result.delivered, result.remaining) == (0, 1)
    assert sandbox.request_count == 0


async def test_it_is_healthy(connect: Connect) -> None:
    """Records that wait for another process are not a problem of the client that has recorded them."""
    client = await connect(upload=DISABLED)
    await client.track_event(Event("x"))
    await asyncio.sleep(0.05)
    health = await client.health(max_age=0.01)

    assert (health.is_ready, health.is_delivering, health.problems) == (True, True, ())
    assert health.stats.delivered == 0
