"""
Receipts that somebody holds, and the verdicts they wait for.
"""

import asyncio
import gc
import traceback
from collections.abc import AsyncIterator, Iterable

import pytest

from exponea_async._pipeline.receipts import Receipts
from exponea_async.errors import ClosedError, DeliveryTimeoutError, DroppedError, RejectedError, StorageError
from exponea_async.models import Receipt
from exponea_async.storage.base import Record, Settlement, Written
from exponea_async.storage.memory import MemoryStorage


class Shaky(MemoryStorage):
    """A storage that refuses look-ups for a while, and lets wait for them."""

    def __init__(self) -> None:
        super().__init__()
        self.refusals = 0
        self.looked = asyncio.Semaphore(0)

    async def find(self, ids: Iterable[str]) -> dict[str, str]:
        self.looked.release()
        if self.refusals:
            self.refusals -= 1
            raise StorageError("busy")
        return await super().find(ids)


@pytest.fixture
async def storage() -> AsyncIterator[Shaky]:
    storage = Shaky()
    await storage.open()
    yield storage
    await storage.aclose()


@pytest.fixture
async def receipts(storage: Shaky) -> AsyncIterator[Receipts]:
    receipts = Receipts(storage, poll_interval=0.01)
    yield receipts
    await receipts.aclose()


async def written(storage: Shaky, count: int = 1) -> Written:
    return await storage.write([Record(f"route-{n}", b"x", 1.0) for n in range(count)])


async def settle(storage: Shaky, receipt: Receipt, settlement: Settlement) -> None:
    """Do what another process would: lease the records and settle them, without a word to our receipts."""
    await storage.lease(100, 60.0, 2.0)
    assert await storage.settle([settlement]) == len(receipt.ids)


async def waiting(receipt: Receipt) -> asyncio.Task[None]:
    task = asyncio.create_task(receipt.delivered())
    await asyncio.sleep(0)
    return task


class TestVerdicts:
    async def test_a_receipt_is_queued_then_delivered(self, receipts: Receipts) -> None:
        """The status follows the verdict, and waiting for one that is there returns at once."""
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
        """A refusal or a drop reaches who waits and who asks later, as the same error."""
        receipt = receipts.issue(Written(("1",)))
        task = await waiting(receipt)

        receipts.resolve(["1"], error)

        for awaitable in (task, receipt.delivered()):
            with pytest.raises(type(error)) as caught:
                await awaitable
            assert caught.value is error
        assert receipt.status == status

    async def test_all_projects_must_accept(self, receipts: Receipts) -> None:
        """With several records it is delivered only with the last one."""
        receipt = receipts.issue(Written(("1", "2")))
        task = await waiting(receipt)

        receipts.resolve(["2"])
        await asyncio.sleep(0)
        assert (receipt.status, task.done()) == ("queued", False)

        receipts.resolve(["1"])
        await task
        assert receipt.status == "delivered"

    async def test_one_refusal_is_enough(self, receipts: Receipts) -> None:
        """The first bad verdict is the receipt's; later ones do not change it."""
        receipt = receipts.issue(Written(("1", "2", "3")))
        task = await waiting(receipt)

        receipts.resolve(["2"], RejectedError("first"))
        with pytest.raises(RejectedError, match="first"):
            await task
        receipts.resolve(["1"])
        receipts.resolve(["3"], DroppedError("second"))

        assert receipt.status == "rejected"

    async def test_a_verdict_counts_once(self, receipts: Receipts) -> None:
        """Hearing of a record twice, or of one that is not ours, changes nothing."""
        receipt = receipts.issue(Written(("1", "2")))

        receipts.resolve(["1", "1", "unknown"])
        receipts.resolve(["1"])

        assert receipt.status == "queued"

    async def test_all_can_be_dropped_at_once(self, receipts: Receipts) -> None:
        """When everything is given up, every open receipt hears why."""
        issued = [receipts.issue(Written((str(n),))) for n in range(3)]
        receipts.resolve(["0"])

        receipts.drop_all("stopped")

        assert [receipt.status for receipt in issued] == ["delivered", "dropped", "dropped"]
        with pytest.raises(DroppedError, match="stopped"):
            await issued[1].delivered()

    async def test_a_receipt_tells_itself(self, receipts: Receipts) -> None:
        """Its repr has ids and status."""
        assert repr(receipts.issue(Written(("1", "2")))) == "<Receipt 1, 2: queued>"
        assert repr(receipts.issue(Written(()))) == "<Receipt -: delivered>"


class TestWaiting:
    async def test_many_may_wait(self, receipts: Receipts) -> None:
        """One verdict wakes all who wait for it."""
        receipt = receipts.issue(Written(("1",)))
        tasks = [await waiting(receipt) for _ in range(5)]

        receipts.resolve(["1"])

        assert await asyncio.gather(*tasks) == [None] * 5
        assert not receipt.is_awaited

    async def test_who_is_cancelled_leaves_the_others_waiting(self, receipts: Receipts) -> None:
        """One awaiter's end is not the others'."""
        receipt = receipts.issue(Written(("1",)))
        first, second = await waiting(receipt), await waiting(receipt)

        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        assert receipt.is_awaited
        receipts.resolve(["1"])

        await second

    async def test_a_verdict_at_the_moment_of_cancelling(self, receipts: Receipts) -> None:
        """A verdict that meets a cancelled awaiter harms nobody."""
        receipt = receipts.issue(Written(("1",)))
        task = await waiting(receipt)

        task.cancel()
        receipts.resolve(["1"])

        with pytest.raises(asyncio.CancelledError):
            await task
        assert receipt.status == "delivered"

    @pytest.mark.parametrize("seconds", [0, 0.01])
    async def test_patience_ends(self, receipts: Receipts, seconds: float) -> None:
        """Without a verdict in time the error says so, and the receipt can be awaited again."""
        receipt = receipts.issue(Written(("1",)))

        with pytest.raises(DeliveryTimeoutError, match="still queued") as caught:
            await receipt.delivered(timeout=seconds)
        assert isinstance(caught.value, TimeoutError)
        assert receipt.status == "queued"

        receipts.resolve(["1"])
        await receipt.delivered(timeout=seconds)

    async def test_an_error_does_not_grow_with_each_who_hears_it(self, receipts: Receipts) -> None:
        """Whoever gets the error sees only the way to himself."""
        receipt = receipts.issue(Written(("1",)))
        receipts.resolve(["1"], RejectedError("bad"))
        depths = set()
        for _ in range(5):
            with pytest.raises(RejectedError) as caught:
                await receipt.delivered()
            depths.add(len(traceback.extract_tb(caught.value.__traceback__)))

        assert len(depths) == 1


class TestWeakness:
    async def test_a_dropped_receipt_frees_its_entry(self, receipts: Receipts) -> None:
        """Nobody's receipts cost nothing, and their verdicts go nowhere."""
        kept = receipts.issue(Written(("kept",)))
        for n in range(1000):
            receipts.issue(Written((f"{n}a", f"{n}b")))
        gc.collect()

        assert list(receipts._by_record) == ["kept"]
        receipts.resolve(["1a", "kept"])
        assert (kept.status, receipts._by_record) == ("delivered", {})

    async def test_a_receipt_is_not_kept_by_having_been_awaited(self, storage: Shaky, receipts: Receipts) -> None:
        """After a wait that came to nothing the receipt can go as well."""
        receipt = receipts.issue(await written(storage))
        # In a task of its own, since a task remembers the last error that was thrown into it.
        (outcome,) = await asyncio.gather(receipt.delivered(timeout=0), return_exceptions=True)
        assert isinstance(outcome, DeliveryTimeoutError)

        del receipt, outcome
        await asyncio.sleep(0)
        gc.collect()

        assert not receipts._by_record


class TestOtherProcesses:
    async def test_what_another_process_delivered_is_found(self, storage: Shaky, receipts: Receipts) -> None:
        """A record that is gone was delivered, though nobody told us."""
        receipt = receipts.issue(await written(storage, 2))
        task = await waiting(receipt)

        await settle(storage, receipt, Settlement(receipt.ids, "delivered"))

        await task
        assert receipt.status == "delivered"

    async def test_what_another_process_saw_refused_is_found(self, storage: Shaky, receipts: Receipts) -> None:
        """A dead letter's reason is raised here too."""
        receipt = receipts.issue(await written(storage))
        task = await waiting(receipt)

        await settle(storage, receipt, Settlement(receipt.ids, "dead", reason="too old"))

        with pytest.raises(RejectedError, match="too old"):
            await task

    async def test_a_storage_that_refuses_is_asked_again(self, storage: Shaky, receipts: Receipts) -> None:
        """Trouble with a look-up is no verdict."""
        storage.refusals = 3
        receipt = receipts.issue(await written(storage))
        task = await waiting(receipt)
        await settle(storage, receipt, Settlement(receipt.ids, "delivered"))

        await task

        assert (receipt.status, storage.refusals) == ("delivered", 0)

    async def test_what_is_still_queued_goes_on_waiting(self, storage: Shaky, receipts: Receipts) -> None:
        """A look-up that finds the record in the queue is no verdict either."""
        receipt = receipts.issue(await written(storage))
        task = await waiting(receipt)

        for _ in range(3):
            await storage.looked.acquire()

        assert (receipt.status, task.done()) == ("queued", False)
        receipts.resolve(receipt.ids)
        await task

    async def test_nobody_looks_when_nobody_waits(self, storage: Shaky, receipts: Receipts) -> None:
        """Looking begins with the first who waits and ends after the last, though the receipt is held."""
        receipt = receipts.issue(await written(storage))
        assert receipts._task is None

        with pytest.raises(DeliveryTimeoutError):
            await receipt.delivered(timeout=0.03)
        assert receipts._task is not None
        await asyncio.wait_for(receipts._task, timeout=5)

        # It begins again with the next one.
        await settle(storage, receipt, Settlement(receipt.ids, "delivered"))
        await receipt.delivered()


class TestClosing:
    async def test_who_waits_is_sent_away(self, receipts: Receipts) -> None:
        """No wait outlasts the client; the event is still queued."""
        receipt, other = receipts.issue(Written(("1",))), receipts.issue(Written(("2",)))
        tasks = [await waiting(receipt), await waiting(receipt), await waiting(other)]
        tasks[0].cancel()

        await receipts.aclose()

        outcomes = await asyncio.gather(*tasks, return_exceptions=True)
        assert [type(each) for each in outcomes] == [asyncio.CancelledError, ClosedError, ClosedError]
        assert receipt.status == "queued"

    async def test_a_later_wait_does_not_begin(self, receipts: Receipts) -> None:
        """After closing, a verdict that is known is told, and another is not waited for."""
        known, unknown = receipts.issue(Written(("1",))), receipts.issue(Written(("2",)))
        receipts.resolve(["1"])
        await receipts.aclose()

        await known.delivered()
        with pytest.raises(ClosedError, match="still queued"):
            await unknown.delivered()
        assert not unknown.is_awaited

    async def test_a_client_that_opens_again_gives_verdicts_again(self, receipts: Receipts) -> None:
        """A receipt from before the close may be waited for once more."""
        receipt = receipts.issue(Written(("1",)))
        await receipts.aclose()

        receipts.open()
        task = await waiting(receipt)
        receipts.resolve(["1"])

        await task

    async def test_closing_twice_is_fine(self, receipts: Receipts) -> None:
        """Nothing happens the second time, and no task is left."""
        await waiting(receipts.issue(Written(("1",))))

        await receipts.aclose()
        await receipts.aclose()

        assert receipts._task is not None
        assert receipts._task.done()
