"""
The capacity of the queue, and what happens to a write that exceeds it.
"""

import asyncio

import pytest

from exponea_async.errors import QueueFullError, StateConflictError, StorageError
from exponea_async.storage.base import RecordStatus, State, StateChange, StateCheck, Written
from exponea_async.testing.storage_contract.builders import (
    PATIENCE,
    MakeStorage,
    bodies,
    dead,
    delivered,
    ids,
    is_waiting,
    lease,
    record,
    records,
    soon,
    write_dead,
)
from exponea_async.testing.storage_contract.part import ContractPart


class CapacityContract(ContractPart):
    """The capacity of the queue, and what happens to a write that exceeds it."""

    # A full queue raises

    async def test_a_full_queue_refuses(self, make_storage: MakeStorage) -> None:
        """A write that exceeds the capacity is refused as a whole; one that fits is stored."""
        storage = await make_storage(3)
        await storage.write(records("a", "b"))

        with pytest.raises(QueueFullError, match="may hold 3 records"):
            await storage.write(records("c", "d"))
        await storage.write(records("e"))
        assert bodies(await lease(storage)) == ["a", "b", "e"]

    async def test_a_write_that_takes_all_the_room(self, make_storage: MakeStorage) -> None:
        """One write that takes all or most of the capacity leaves room for no more than the rest."""
        storage = await make_storage(20)
        await storage.write(records(*map(str, range(17))))
        await storage.write(records("a"))
        await storage.write(records("b", "c"))

        with pytest.raises(QueueFullError):
            await storage.write(records("d"))
        assert (await storage.pending()).waiting == 20

    async def test_a_refused_write_changes_no_state(self, make_storage: MakeStorage) -> None:
        """A write that exceeds the capacity leaves its states unchanged."""
        storage = await make_storage(1)
        with pytest.raises(QueueFullError):
            await storage.write(records("a", "b"), [StateChange("k", b"", 0)])

        assert await storage.load_state("k") is None

    async def test_states_need_no_capacity(self, make_storage: MakeStorage) -> None:
        """States can be changed while the queue is full."""
        storage = await make_storage(1)
        await storage.write(records("a"), [StateChange("k", b"", 0)])
        await storage.write([], [StateChange("k", b"new", 1)])

        assert await storage.load_state("k") == State(b"new", 2)

    async def test_leased_records_count_against_the_capacity(self, make_storage: MakeStorage) -> None:
        """Leased records count against the capacity; delivered and dead ones do not."""
        storage = await make_storage(2)
        await storage.write(records("a", "b"))
        one, two = ids(await lease(storage))
        with pytest.raises(QueueFullError):
            await storage.write(records("c"))

        await storage.settle([*delivered(one), *dead(two)])
        await storage.write(records("c", "d"))
        assert (await storage.pending()).waiting == 2

    async def test_revived_records_count_against_the_capacity(self, make_storage: MakeStorage) -> None:
        """More records may be revived than the capacity allows, and then no others can be written."""
        storage = await make_storage(2)
        await write_dead(storage, "a", "b")
        await storage.write(records("c"))

        assert await storage.revive() == 2
        with pytest.raises(QueueFullError):
            await storage.write(records("d"))
        assert await storage.write([], [StateChange("k", b"", 0)]) == Written(())

    async def test_concurrent_writers_share_the_capacity(self, make_storage: MakeStorage) -> None:
        """Of many writers at the same time exactly those are served for whom there is capacity."""
        storage = await make_storage(10)
        writes = (storage.write([record(str(number))]) for number in range(25))
        results = await asyncio.gather(*writes, return_exceptions=True)

        assert sum(isinstance(result, Written) for result in results) == 10
        assert sum(isinstance(result, QueueFullError) for result in results) == 15

    # A full queue lets writers wait

    async def test_a_writer_waits_for_capacity(self, make_storage: MakeStorage) -> None:
        """A write that exceeds the capacity returns once a settlement has freed some."""
        storage = await make_storage(2, "wait")
        await storage.write(records("a", "b"))
        writer = asyncio.create_task(storage.write(records("c")))
        assert await is_waiting(writer)

        await storage.settle(delivered(*ids(await lease(storage))))
        assert len((await soon(writer)).ids) == 1
        assert bodies(await lease(storage)) == ["c"]

    async def test_waiting_writers_are_served_in_order(self, make_storage: MakeStorage) -> None:
        """Writers are served in order, and a small write does not overtake a large one."""
        storage = await make_storage(2, "wait")
        await storage.write(records("a"))
        leased = await lease(storage)
        large = asyncio.create_task(storage.write(records("b", "c")))
        small = [asyncio.create_task(storage.write(records(name))) for name in "de"]
        assert await is_waiting(small[1])

        await storage.settle(delivered(*ids(leased)))
        await soon(large)
        leased = await lease(storage)
        assert bodies(leased) == ["b", "c"]
        await storage.settle(delivered(*ids(leased)))
        await soon(asyncio.gather(*small))
        assert bodies(await lease(storage)) == ["d", "e"]

    async def test_a_cancelled_waiting_writer(self, make_storage: MakeStorage) -> None:
        """A writer that is cancelled while it waits does not block those behind it."""
        storage = await make_storage(1, "wait")
        await storage.write(records("a"))
        cancelled = asyncio.create_task(storage.write(records("b")))
        other = asyncio.create_task(storage.write(records("c")))
        assert await is_waiting(other)

        cancelled.cancel()
        await asyncio.wait([cancelled])
        written: list[str] = []

        async def deliver() -> None:
            while "c" not in written:
                leased = await lease(storage)
                await storage.settle(delivered(*ids(leased)))
                written.extend(bodies(leased))
                await asyncio.sleep(0.01)

        await soon(deliver())
        await soon(other)
        # An attempt to write that had begun before the cancellation may be made.
        assert [each for each in written if each != "b"] == ["a", "c"]

    async def test_other_calls_do_not_wait_for_capacity(self, make_storage: MakeStorage) -> None:
        """While a writer waits, states are written and the queue can be read."""
        storage = await make_storage(1, "wait")
        await storage.write(records("a"))
        writer = asyncio.create_task(storage.write(records("b"), [StateCheck("k", 0)]))
        assert await is_waiting(writer)

        await storage.write([], [StateChange("k", b"", 0)])
        assert (await storage.pending()).waiting == 1
        await storage.settle(delivered(*ids(await lease(storage))))
        with pytest.raises(StateConflictError):
            await soon(writer)

    async def test_a_conflict_does_not_wait_for_capacity(self, make_storage: MakeStorage) -> None:
        """A write whose state has changed fails at once, full queue or not."""
        storage = await make_storage(1, "wait")
        await storage.write(records("a"))

        with pytest.raises(StateConflictError):
            await storage.write(records("b"), [StateCheck("k", 5)])

    async def test_a_write_larger_than_the_capacity_does_not_wait(self, make_storage: MakeStorage) -> None:
        """A write larger than the whole capacity is refused, and does not wait for ever."""
        storage = await make_storage(2, "wait")
        with pytest.raises(QueueFullError):
            await soon(storage.write(records("a", "b", "c")))

    async def test_closing_ends_the_wait_for_capacity(self, make_storage: MakeStorage) -> None:
        """Writers that wait for capacity when the storage is closed get an error, and their records are not stored."""
        storage = await make_storage(1, "wait")
        await storage.write(records("a"))
        writers = [asyncio.create_task(storage.write(records(name))) for name in "bcd"]
        assert await is_waiting(writers[-1])

        await storage.aclose()
        results = await soon(asyncio.gather(*writers, return_exceptions=True))
        assert [type(result) for result in results] == [StorageError] * 3

    async def test_a_wipe_frees_capacity(self, make_storage: MakeStorage) -> None:
        """Writers that wait are served once the queue was wiped."""
        storage = await make_storage(1, "wait")
        await storage.write(records("a"))
        writer = asyncio.create_task(storage.write(records("b")))
        assert await is_waiting(writer)

        await storage.wipe()
        await soon(writer)
        assert bodies(await lease(storage)) == ["b"]

    async def test_many_writers_wait_for_capacity(self, make_storage: MakeStorage) -> None:
        """However many writers wait, all records are written in the end, each once and in order."""
        storage = await make_storage(21, "wait")
        writers = [asyncio.create_task(storage.write(records(str(number)))) for number in range(700)]
        seen: list[str] = []
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(PATIENCE) as limit:
            are_done = False
            while len(seen) < 700 and not are_done:
                # Where all are done and nothing is left, a record was lost.
                are_done = all(writer.done() for writer in writers) and not await storage.waiting(1)
                leased = await lease(storage)
                await storage.settle(delivered(*ids(leased)))
                seen += bodies(leased)
                if leased:
                    # However slow the storage is, it is waited for while it makes progress.
                    limit.reschedule(loop.time() + PATIENCE)
                await asyncio.sleep(0)

        await soon(asyncio.gather(*writers))
        assert seen == [str(number) for number in range(700)]

    # A full queue drops the oldest records

    async def test_the_oldest_records_are_dropped(self, make_storage: MakeStorage) -> None:
        """A write that exceeds the capacity replaces the oldest records of all routes, and returns their ids."""
        storage = await make_storage(3, "drop_oldest")
        old = await storage.write([record("a", "x", at=1.0), record("b", "y", at=2.0), record("c", "x", at=3.0)])

        written = await storage.write([record("d", "y", at=4.0), record("e", "z", at=5.0)])
        assert written.dropped == old.ids[:2]
        assert bodies(await storage.waiting(10)) == ["c", "d", "e"]
        assert await storage.find(old.ids[:2]) == dict.fromkeys(old.ids[:2], RecordStatus("dropped"))
        assert sorted(bodies(await lease(storage))) == ["c", "d", "e"]

    async def test_leased_records_are_dropped_last(self, make_storage: MakeStorage) -> None:
        """Untouched records are dropped first; leased ones, oldest first, only where there are no others."""
        storage = await make_storage(3, "drop_oldest")
        old = await storage.write([record("a", at=1.0), record("b", at=2.0), record("c", at=3.0)])
        await lease(storage, 2)

        first = await storage.write([record("d", at=4.0)])
        assert first.dropped == old.ids[2:]
        second = await storage.write([record("e", at=5.0), record("f", at=6.0)])
        assert second.dropped == (*first.ids, old.ids[0])
        assert bodies(await storage.waiting(10)) == ["b", "e", "f"]

    async def test_dropped_records_can_be_settled(self, make_storage: MakeStorage) -> None:
        """A settlement of leased records that were dropped meanwhile changes nothing."""
        storage = await make_storage(1, "drop_oldest")
        await storage.write(records("a"))
        leased = await lease(storage)
        await storage.write(records("b"))

        assert await storage.settle(delivered(*ids(leased))) == 0
        assert bodies(await lease(storage)) == ["b"]

    async def test_a_refused_write_drops_nothing(self, make_storage: MakeStorage) -> None:
        """A conflict, and a write larger than the whole capacity, leave the old records as they are."""
        storage = await make_storage(2, "drop_oldest")
        await storage.write(records("a", "b"))

        with pytest.raises(StateConflictError):
            await storage.write(records("c"), [StateCheck("k", 1)])
        with pytest.raises(QueueFullError):
            await storage.write(records("c", "d", "e"))
        assert bodies(await lease(storage)) == ["a", "b"]

    async def test_dead_letters_are_not_dropped(self, make_storage: MakeStorage) -> None:
        """Dead letters neither count against the capacity nor are they dropped."""
        storage = await make_storage(1, "drop_oldest")
        await write_dead(storage, "a")

        assert (await storage.write(records("b"))).dropped == ()
        assert len((await storage.write(records("c"))).dropped) == 1
        assert bodies(await storage.dead(10)) == ["a"]

    async def test_concurrent_writers_drop_the_oldest(self, make_storage: MakeStorage) -> None:
        """However many write at once, the queue keeps its size, and each record is there or returned as dropped."""
        storage = await make_storage(10, "drop_oldest")
        written = await asyncio.gather(*(storage.write(records(str(number), "+")) for number in range(40)))

        given = [key for each in written for key in each.ids]
        dropped = [key for each in written for key in each.dropped]
        left = ids(await lease(storage))
        assert len(left) == 10
        assert sorted([*dropped, *left]) == sorted(given)

    async def test_dropped_records_do_not_remain(self, make_storage: MakeStorage) -> None:
        """Dropped records do not remain at a watermark."""
        storage = await make_storage(3, "drop_oldest")
        await storage.write(records("a", "b", "c"))
        await lease(storage, 1)
        watermark = await storage.watermark()
        await storage.write(records("d"))

        assert await storage.remaining(watermark) == 2
