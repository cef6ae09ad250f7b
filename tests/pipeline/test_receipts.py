"""
Receipts, and the verdicts that callers wait for.
"""

import asyncio
import gc
import traceback
from collections.abc import AsyncIterator, Iterable
from typing import Any

import pytest
from helpers.clients import Connect, DeliveryLog, numbered_events
from helpers.waiting import until

from exponea_async import Customer, Event, ExponeaProject, ProjectPausedError
from exponea_async._pipeline.receipts import Receipts
from exponea_async.errors import (
    ClosedError,
    DeliveryTimeoutError,
    DroppedError,
    LostError,
    RejectedError,
    StorageError,
)
from exponea_async.hooks import Hooks
from exponea_async.models import Receipt
from exponea_async.observability import Counters
from exponea_async.sandbox import Fault, Sandbox
from exponea_async.storage.base import Record, RecordStatus, Settlement, Written
from exponea_async.storage.memory import MemoryStorage

pytestmark = pytest.mark.both_storages


class UnreliableStorage(MemoryStorage):
    """A storage whose look-ups fail at first, and can be awaited."""

    def __init__(self) -> None:
        super().__init__()
        self.failures = 0
        self.looked_up = asyncio.Semaphore(0)

    async def find(self, ids: Iterable[str]) -> dict[str, RecordStatus]:
        self.looked_up.release()
        if self.failures:
            self.failures -= 1
            raise StorageError("busy")
        return await super().find(ids)


@pytest.fixture
async def storage() -> AsyncIterator[UnreliableStorage]:
    storage = UnreliableStorage()
    await storage.open()
    yield storage
    await storage.aclose()


@pytest.fixture
def counters() -> Counters:
    return Counters()


@pytest.fixture
async def receipts(storage: UnreliableStorage, counters: Counters, deliveries: DeliveryLog) -> AsyncIterator[Receipts]:
    receipts = Receipts(storage, counters, Hooks(listeners=[deliveries]), poll_interval=0.01)
    receipts.open()
    await asyncio.wait(polls())
    yield receipts
    await receipts.aclose()


async def written(storage: UnreliableStorage, count: int = 1) -> Written:
    return await storage.write([Record(f"route-{n}", b"x", 1.0) for n in range(count)])


async def settle(storage: UnreliableStorage, receipt: Receipt, settlement: Settlement) -> None:
    """Lease and settle records as another process would, of which our receipts are not informed."""
    await storage.lease(100, 60.0, 2.0)
    assert await storage.settle([settlement]) == len(receipt.ids)


def polls() -> list[asyncio.Task[Any]]:
    """Return the tasks that look records up."""
    return [task for task in asyncio.all_tasks() if task.get_name() == "exponea_async: receipts"]


async def waiting(receipt: Receipt) -> asyncio.Task[None]:
    task = asyncio.create_task(receipt.delivered())
    await asyncio.sleep(0)
    return task


class TestVerdicts:
    async def test_a_receipt_is_queued_then_delivered(self, receipts: Receipts) -> None:
        """The verdict changes the status, and waiting for a verdict that is known returns at once."""
        receipt = receipts.issue(Written(("1",)))
        assert (receipt.ids, receipt.status) == (("1",), "queued")

        receipts.resolve(["1"])

        assert receipt.status == "delivered"
        await receipt.delivered()

    @pytest.mark.parametrize(
        ("error", "status"), [(RejectedError("bad"), "rejected"), (DroppedError("full"), "dropped")]
    )
    async def test_a_bad_verdict_is_raised(
        self, receipts: Receipts, error: RejectedError | DroppedError, status: str
    ) -> None:
        """Calls that wait and later calls raise the same error."""
        receipt = receipts.issue(Written(("1",)))
        task = await waiting(receipt)

        receipts.resolve(["1"], error)

        for awaitable in (task, receipt.delivered()):
            with pytest.raises(type(error)) as caught:
                await awaitable
            assert caught.value is error
        assert receipt.status == status

    async def test_all_projects_must_accept(self, receipts: Receipts) -> None:
        """A receipt of several records is delivered only with the last of them."""
        receipt = receipts.issue(Written(("1", "2")))
        task = await waiting(receipt)

        receipts.resolve(["2"])
        await asyncio.sleep(0)
        assert (receipt.status, task.done()) == ("queued", False)

        receipts.resolve(["1"])
        await task
        assert receipt.status == "delivered"

    async def test_one_rejection_is_enough(self, receipts: Receipts) -> None:
        """The first error is the verdict of the receipt; later ones do not change it."""
        receipt = receipts.issue(Written(("1", "2", "3")))
        task = await waiting(receipt)

        receipts.resolve(["2"], RejectedError("first"))
        with pytest.raises(RejectedError, match="first"):
            await task
        receipts.resolve(["1"])
        receipts.resolve(["3"], DroppedError("second"))

        assert receipt.status == "rejected"

    async def test_a_verdict_counts_once(self, receipts: Receipts) -> None:
        """Another verdict on the same record, or one on an unknown record, changes nothing."""
        receipt = receipts.issue(Written(("1", "2")))

        receipts.resolve(["1", "1", "unknown"])
        receipts.resolve(["1"])

        assert receipt.status == "queued"

    async def test_all_receipts_can_be_dropped(self, receipts: Receipts) -> None:
        """Each receipt without a verdict gets the reason."""
        issued = [receipts.issue(Written((str(n),))) for n in range(3)]
        receipts.resolve(["0"])

        await receipts.drop_all("stopped")

        assert [receipt.status for receipt in issued] == ["delivered", "dropped", "dropped"]
        with pytest.raises(DroppedError, match="stopped"):
            await issued[1].delivered()

    async def test_the_repr_of_a_receipt(self, receipts: Receipts) -> None:
        """It has the ids and the status."""
        assert repr(receipts.issue(Written(("1", "2")))) == "<Receipt 1, 2: queued>"
        assert repr(receipts.issue(Written(()))) == "<Receipt -: delivered>"


class TestWaiting:
    async def test_several_calls_may_wait(self, receipts: Receipts) -> None:
        """A verdict ends all calls that wait for it."""
        receipt = receipts.issue(Written(("1",)))
        tasks = [await waiting(receipt) for _ in range(5)]

        receipts.resolve(["1"])

        assert await asyncio.gather(*tasks) == [None] * 5
        assert not receipt.is_awaited

    async def test_cancelling_one_call_does_not_end_the_others(self, receipts: Receipts) -> None:
        """The other calls go on waiting."""
        receipt = receipts.issue(Written(("1",)))
        first, second = await waiting(receipt), await waiting(receipt)

        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        assert receipt.is_awaited
        receipts.resolve(["1"])

        await second

    async def test_a_verdict_while_a_call_is_cancelled(self, receipts: Receipts) -> None:
        """A verdict that arrives for a call that is being cancelled is still stored."""
        receipt = receipts.issue(Written(("1",)))
        task = await waiting(receipt)

        task.cancel()
        receipts.resolve(["1"])

        with pytest.raises(asyncio.CancelledError):
            await task
        assert receipt.status == "delivered"

    @pytest.mark.parametrize("seconds", [0, 0.01])
    async def test_a_timeout(self, receipts: Receipts, seconds: float) -> None:
        """Without a verdict in time an error is raised, and the receipt can be awaited again."""
        receipt = receipts.issue(Written(("1",)))

        with pytest.raises(DeliveryTimeoutError, match="still queued") as caught:
            await receipt.delivered(timeout=seconds)
        assert isinstance(caught.value, TimeoutError)
        assert receipt.status == "queued"

        receipts.resolve(["1"])
        await receipt.delivered(timeout=seconds)

    async def test_the_traceback_of_an_error_does_not_grow(self, receipts: Receipts) -> None:
        """Each call that raises the error has a traceback of its own."""
        receipt = receipts.issue(Written(("1",)))
        receipts.resolve(["1"], RejectedError("bad"))
        depths = set()
        for _ in range(5):
            with pytest.raises(RejectedError) as caught:
                await receipt.delivered()
            depths.add(len(traceback.extract_tb(caught.value.__traceback__)))

        assert len(depths) == 1


class TestUnreferencedReceipts:
    async def test_an_unreferenced_receipt_is_not_kept(self, receipts: Receipts) -> None:
        """Receipts that callers do not reference take no memory, and their verdicts are ignored."""
        kept = receipts.issue(Written(("kept",)))
        for n in range(1000):
            receipts.issue(Written((f"{n}a", f"{n}b")))
        gc.collect()

        assert len(receipts) == 1
        receipts.resolve(["1a", "kept"])
        assert (kept.status, len(receipts)) == ("delivered", 0)

    async def test_a_receipt_is_not_kept_after_it_was_awaited(
        self, storage: UnreliableStorage, receipts: Receipts
    ) -> None:
        """After a timeout, too, the receipt is only kept by its caller."""
        receipt = receipts.issue(await written(storage))
        # In a task of its own, since a task keeps the last error that was thrown into it.
        (outcome,) = await asyncio.gather(receipt.delivered(timeout=0), return_exceptions=True)
        assert isinstance(outcome, DeliveryTimeoutError)

        del receipt, outcome
        await asyncio.sleep(0)
        gc.collect()

        assert len(receipts) == 0


class TestOtherProcesses:
    async def test_a_delivery_by_another_process_is_found(self, storage: UnreliableStorage, receipts: Receipts) -> None:
        """A record that another process has settled as delivered is delivered."""
        receipt = receipts.issue(await written(storage, 2))
        task = await waiting(receipt)

        await settle(storage, receipt, Settlement(receipt.ids, "delivered"))

        await task
        assert receipt.status == "delivered"

    async def test_a_rejection_found_by_another_process_is_found(
        self, storage: UnreliableStorage, receipts: Receipts
    ) -> None:
        """The error has the reason of the dead letter."""
        receipt = receipts.issue(await written(storage))
        task = await waiting(receipt)

        await settle(storage, receipt, Settlement(receipt.ids, "dead", reason="too old"))

        with pytest.raises(RejectedError, match="too old"):
            await task

    async def test_a_deleted_dead_letter_is_a_rejection(self, storage: UnreliableStorage, receipts: Receipts) -> None:
        """Where another process has deleted the dead letter, too, the error says that its reason is not known."""
        receipt = receipts.issue(await written(storage))
        await settle(storage, receipt, Settlement(receipt.ids, "dead", reason="too old"))
        assert await storage.purge() == 1

        with pytest.raises(RejectedError, match="was deleted"):
            await receipt.delivered()

    async def test_a_record_that_another_process_dropped(self, receipts: Receipts) -> None:
        """A record that was deleted for want of capacity is dropped, not delivered."""
        storage = MemoryStorage(max_records=1, when_full="drop_oldest")
        await storage.open()
        receipts = Receipts(storage, Counters(), Hooks(), poll_interval=0.01)
        receipt = receipts.issue(await storage.write([Record("r", b"x", 1.0)]))
        await storage.write([Record("r", b"y", 2.0)])

        with pytest.raises(DroppedError, match="another process"):
            await receipt.delivered()
        await receipts.aclose()

    async def test_a_record_that_is_gone_is_lost(
        self, storage: UnreliableStorage, receipts: Receipts, counters: Counters, deliveries: DeliveryLog
    ) -> None:
        """
        A record that is gone without a mark is not delivered. It is counted, listeners learn of it, and other receipts
        that are held are looked up, too.
        """
        receipt, other = receipts.issue(await written(storage, 2)), receipts.issue(await written(storage))
        await storage.wipe()
        safe = receipts.issue(await written(storage))

        with pytest.raises(LostError, match="another process deleted the data"):
            await receipt.delivered()
        await until(lambda: other.status == "lost")

        assert (receipt.status, safe.status, counters.lost) == ("lost", "queued", 3)
        assert deliveries.kinds() == ["lost", "lost"]
        assert deliveries[0].ids == receipt.ids
        assert isinstance(deliveries[0].error, LostError)

    async def test_held_receipts_can_be_looked_up(self, storage: UnreliableStorage, receipts: Receipts) -> None:
        """On request all receipts are looked up, also those that no call waits for."""
        receipt = receipts.issue(await written(storage))
        await storage.wipe()

        receipts.check_all()

        await until(lambda: receipt.status == "lost")

    async def test_a_record_in_flight_is_not_lost(self, storage: UnreliableStorage, receipts: Receipts) -> None:
        """While this process itself is about to get a verdict, it is waited for."""
        receipt = receipts.issue(await written(storage))
        receipts.leave_out(lambda key: key in receipt.ids)
        await storage.wipe()
        task = await waiting(receipt)
        for _ in range(3):
            await storage.looked_up.acquire()

        assert receipt.status == "queued"
        receipts.resolve(receipt.ids)
        await task

    async def test_a_failed_look_up_is_repeated(self, storage: UnreliableStorage, receipts: Receipts) -> None:
        """A storage error is not a verdict."""
        storage.failures = 3
        receipt = receipts.issue(await written(storage))
        task = await waiting(receipt)
        await settle(storage, receipt, Settlement(receipt.ids, "delivered"))

        await task

        assert (receipt.status, storage.failures) == ("delivered", 0)

    async def test_a_queued_record_is_looked_up_again(self, storage: UnreliableStorage, receipts: Receipts) -> None:
        """A record that is still in the queue has no verdict."""
        receipt = receipts.issue(await written(storage))
        task = await waiting(receipt)

        for _ in range(3):
            await storage.looked_up.acquire()

        assert (receipt.status, task.done()) == ("queued", False)
        receipts.resolve(receipt.ids)
        await task

    async def test_look_ups_go_on_after_their_task_was_cancelled(
        self, storage: UnreliableStorage, receipts: Receipts
    ) -> None:
        """An application that cancels all tasks does not make a call wait for ever."""
        receipt = receipts.issue(await written(storage))
        task = await waiting(receipt)
        polls()[0].cancel()
        await settle(storage, receipt, Settlement(receipt.ids, "delivered"))

        await task

    async def test_records_are_looked_up_only_while_a_call_waits(
        self, storage: UnreliableStorage, receipts: Receipts
    ) -> None:
        """Look-ups begin with the first call that waits and end after the last, even if the receipt is kept."""
        receipt = receipts.issue(await written(storage))
        assert polls() == []

        with pytest.raises(DeliveryTimeoutError):
            await receipt.delivered(timeout=0.03)
        await asyncio.wait_for(asyncio.gather(*polls()), timeout=60)
        assert polls() == []

        # It begins again with the next one.
        await settle(storage, receipt, Settlement(receipt.ids, "delivered"))
        await receipt.delivered()


class TestClosing:
    async def test_waiting_calls_end_with_the_client(self, receipts: Receipts) -> None:
        """They raise ClosedError; the event is still queued."""
        receipt, other = receipts.issue(Written(("1",))), receipts.issue(Written(("2",)))
        tasks = [await waiting(receipt), await waiting(receipt), await waiting(other)]
        tasks[0].cancel()

        await receipts.aclose()

        outcomes = await asyncio.gather(*tasks, return_exceptions=True)
        assert [type(each) for each in outcomes] == [asyncio.CancelledError, ClosedError, ClosedError]
        assert receipt.status == "queued"

    async def test_later_calls_do_not_wait(self, receipts: Receipts) -> None:
        """After closing, a known verdict is still returned; without one, ClosedError is raised."""
        known, unknown = receipts.issue(Written(("1",))), receipts.issue(Written(("2",)))
        receipts.resolve(["1"])
        await receipts.aclose()

        await known.delivered()
        with pytest.raises(ClosedError, match="still queued"):
            await unknown.delivered()
        assert not unknown.is_awaited

    async def test_receipts_can_be_awaited_after_opening_again(self, receipts: Receipts) -> None:
        """A receipt from before the close can get its verdict."""
        receipt = receipts.issue(Written(("1",)))
        await receipts.aclose()

        receipts.open()
        task = await waiting(receipt)
        receipts.resolve(["1"])

        await task

    async def test_closing_twice(self, receipts: Receipts) -> None:
        """The second time has no effect, and no task is left."""
        await waiting(receipts.issue(Written(("1",))))

        await receipts.aclose()
        await receipts.aclose()

        assert polls() == []


class TestPausedProjects:
    @pytest.mark.parametrize("count", [1, 500])
    async def test_awaited_receipts_fail_at_once(self, connect: Connect, sandbox: Sandbox, count: int) -> None:
        """A call that waits when the project is paused gets the reason, and so does one that begins to wait later."""
        sandbox.faults.add(Fault("status", status=401, body='{"errors": ["wrong key"]}'))
        client = await connect(flush_mode="MANUAL")
        receipts = await client.track_many(numbered_events(count))
        waiting = asyncio.create_task(receipts[-1].delivered())
        await client.flush_data(60)

        for call in (waiting, receipts[0].delivered(), receipts[-1].delivered(60)):
            with pytest.raises(ProjectPausedError, match="wrong key"):
                await asyncio.wait_for(call, 60)
        assert {receipt.status for receipt in receipts} == {"queued"}

    async def test_a_call_may_wait_through_a_pause(self, connect: Connect, sandbox: Sandbox) -> None:
        """`decided` ends with the verdict, and afterwards `delivered` waits again."""
        sandbox.faults.add(Fault("status", status=401))
        client = await connect(flush_mode="MANUAL")
        receipt = await client.track_event(Event("x"))
        await client.flush_data(60)
        patient = asyncio.create_task(receipt.decided(60))
        await asyncio.sleep(0)
        sandbox.faults.clear()
        await client.flush_data(60)
        await patient
        later = await client.track_event(Event("x"))
        waiting = asyncio.create_task(later.delivered(60))
        await client.flush_data(60)

        await waiting
        assert (receipt.status, later.status) == ("delivered", "delivered")

    async def test_other_projects_are_waited_for(self, connect: Connect, sandbox: Sandbox) -> None:
        """A receipt of two projects fails while its record for the paused one has no verdict, and others do not."""
        sandbox.faults.add(Fault("status", status=403, project="other"))
        mapping = {"TRACK_EVENT": [ExponeaProject("other", "key")]}
        client = await connect(project_mapping=mapping)
        both = await client.track_event(Event("x"))
        with pytest.raises(ProjectPausedError) as raised:
            await both.delivered(60)
        one = await client.identify_customer(Customer({"registered": "someone"}, {"a": 1}))
        await one.delivered(60)

        assert raised.value.project == "other"

    async def test_delivered_records_of_a_paused_project(self, connect: Connect, sandbox: Sandbox) -> None:
        """A record that was delivered before the pause is delivered."""
        client = await connect()
        receipt = await client.track_event(Event("x"))
        await receipt.delivered(60)
        sandbox.faults.add(Fault("status", status=401))
        await client.track_event(Event("x"))
        await client.flush_data(60)

        await receipt.delivered(60)

    async def test_a_new_start_waits_again(self, connect: Connect, sandbox: Sandbox) -> None:
        """A client that was stopped and started waits for verdicts, whatever was paused before."""
        sandbox.faults.add(Fault("status", status=401, times=1))
        client = await connect(flush_mode="MANUAL")
        await client.track_event(Event("x"))
        await client.flush_data(60)
        await client.stop_integration(everyone=True)
        await client.start()
        receipt = await client.track_event(Event("x"))
        waiting = asyncio.create_task(receipt.delivered(60))
        await client.flush_data(60)

        await waiting
