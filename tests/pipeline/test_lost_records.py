"""
Receipts of records that leave the queue without a verdict of this process: never "delivered" without proof.
"""

import asyncio
import gc
from pathlib import Path

import pytest
from helpers.clients import Connect, DeliveryLog, numbered_events, opened_queue
from helpers.internals import held_records, run_statements
from helpers.waiting import until

from exponea_async import ClosedError, DroppedError, Event, ExponeaProject, Hooks, LostError
from exponea_async.sandbox import Fault, Sandbox

pytestmark = pytest.mark.both_storages


async def damage(path: Path) -> None:
    """Overwrite all pages of a file but the first."""
    with path.open("r+b") as file:
        file.seek(4096)
        file.write(b"garbage!" * (path.stat().st_size // 8))  # noqa: ASYNC240 - a short block


async def test_a_queue_that_another_process_wipes(
    connect: Connect, sandbox: Sandbox, deliveries: DeliveryLog, caplog: pytest.LogCaptureFixture
) -> None:
    """Events that wait out an outage and are wiped are lost: receipts, statistics, listeners and the log say so."""
    sandbox.faults.add(Fault("status", status=503))
    client = await connect(hooks=Hooks(listeners=[deliveries]), flush_mode="MANUAL")
    receipts = [await client.track_event(event) for event in numbered_events(20)]
    async with opened_queue(client) as queue:
        await queue.wipe()

    outcomes = await asyncio.gather(*(receipt.delivered(60) for receipt in receipts), return_exceptions=True)

    assert {type(outcome) for outcome in outcomes} == {LostError}
    assert {receipt.status for receipt in receipts} == {"lost"}
    assert (client.stats().lost, client.stats().delivered, sandbox.engine.events()) == (20, 0, [])
    assert sorted(key for event in deliveries if event.kind == "lost" for key in event.ids) == sorted(
        receipt.ids[0] for receipt in receipts
    )
    assert "20 committed records are lost: another process deleted the data" in caplog.text


@pytest.mark.file_only
async def test_a_damaged_file(connect: Connect, sandbox: Sandbox, tmp_path: Path) -> None:
    """Each event was delivered, or its receipt says that it is lost, even if no call waits for it."""
    client = await connect(flush_mode="MANUAL")
    receipts = await client.track_many(numbered_events(200))
    await run_statements(client, "PRAGMA wal_checkpoint(TRUNCATE)", "PRAGMA cache_size = 0")
    await damage(tmp_path / "queue.sqlite")
    await client.flush_data(60)
    later = await client.track_event(Event("after"))
    await client.flush_data(60)

    await until(lambda: all(receipt.status != "queued" for receipt in receipts))
    arrived = {event.properties["number"] for event in sandbox.engine.events(event_type="ping")}
    assert {number for number, receipt in enumerate(receipts) if receipt.status == "delivered"} == arrived
    assert {receipt.status for receipt in receipts} <= {"delivered", "lost"}
    assert (later.status, client.stats().lost) == ("delivered", 200 - len(arrived))


async def test_a_delivery_by_another_client(connect: Connect, sandbox: Sandbox) -> None:
    """What another client of the same file has delivered, or what was rejected there, is known here."""
    one = await connect(flush_mode="MANUAL")
    receipts = await one.track_many(numbered_events(150))
    two = await connect(flush_mode="MANUAL")
    assert (await two.flush_data(60)).remaining == 0

    await asyncio.gather(*(receipt.delivered(60) for receipt in receipts))

    assert (one.stats().lost, one.stats().delivered, len(sandbox.engine.events())) == (0, 0, 150)


class TestManyReceipts:
    """The receipts of one call with many events share their verdicts."""

    async def test_each_has_its_own_verdict(self, connect: Connect, sandbox: Sandbox) -> None:
        """Of many events, the rejected ones are the ones whose receipts say so."""
        client = await connect(flush_mode="MANUAL")
        sandbox.faults.add(Fault("reject", every_command=7))
        receipts = await client.track_many(numbered_events(300))
        assert {receipt.status for receipt in receipts} == {"queued"}
        await client.flush_data(60)

        arrived = {event.properties["number"] for event in sandbox.engine.events()}
        assert {number for number, receipt in enumerate(receipts) if receipt.status == "delivered"} == arrived
        assert {receipt.status for receipt in receipts} == {"delivered", "rejected"}

    async def test_a_record_may_have_several_verdicts(self, connect: Connect, sandbox: Sandbox) -> None:
        """An event that goes to two projects is delivered with the second of them."""
        mapping = {"TRACK_EVENT": [ExponeaProject("second", "key", sandbox.url)]}
        client = await connect(flush_mode="MANUAL", project_mapping=mapping)
        receipts = await client.track_many(numbered_events(120))
        waiting = asyncio.gather(*(receipt.delivered(60) for receipt in receipts))
        await client.flush_data(60)

        await waiting
        assert {(receipt.status, len(receipt.ids)) for receipt in receipts} == {("delivered", 2)}

    async def test_they_are_not_kept(self, connect: Connect, sandbox: Sandbox) -> None:
        """Receipts that are not referenced take no memory, and those that are stay valid without the others."""
        client = await connect(flush_mode="MANUAL")
        kept = (await client.track_many(numbered_events(6_000)))[5]
        assert kept.status == "queued"
        del kept
        await client.track_many(numbered_events(200))
        last = (await client.track_many(numbered_events(200)))[-1]
        gc.collect()

        await until(lambda: held_records(client) == 200)
        await client.flush_data(60)
        assert (last.status, held_records(client)) == ("delivered", 0)

    async def test_stopping(self, connect: Connect) -> None:
        """All of them are dropped at once, and calls that wait get the reason."""
        client = await connect(flush_mode="MANUAL")
        receipts = await client.track_many(numbered_events(5_000))
        waiting = [asyncio.create_task(receipt.delivered()) for receipt in receipts[::1_000]]
        await asyncio.sleep(0)
        await client.stop_integration(everyone=True)

        outcomes = await asyncio.gather(*waiting, return_exceptions=True)
        assert {type(outcome) for outcome in outcomes} == {DroppedError}
        assert {receipt.status for receipt in receipts} == {"dropped"}

    async def test_closing(self, connect: Connect) -> None:
        """Calls that wait are released, however many there are, and the events are still queued."""
        client = await connect(flush_mode="MANUAL")
        receipts = await client.track_many(numbered_events(5_000))
        waiting = [asyncio.create_task(receipt.delivered()) for receipt in receipts]
        await asyncio.sleep(0)
        await client.aclose()

        outcomes = await asyncio.gather(*waiting, return_exceptions=True)
        assert {type(outcome) for outcome in outcomes} == {ClosedError}
        assert {receipt.status for receipt in receipts} == {"queued"}
