"""
Reading the queue: the status of records, numbers, watermarks.
"""

import os

import pytest

from exponea_async.storage.base import Record, RecordStatus, StateChange, Storage
from exponea_async.testing.storage_contract.builders import (
    NOW,
    MakeStorage,
    bodies,
    dead,
    delivered,
    ids,
    lease,
    record,
    records,
    write_dead,
)
from exponea_async.testing.storage_contract.part import ContractPart


class ReadingContract(ContractPart):
    """Reading the queue: the status of records, numbers, watermarks."""

    async def test_the_status_of_records(self, storage: Storage) -> None:
        """A record is queued until it is delivered, or rejected for a reason; nothing is returned for unknown ids."""
        written = await storage.write(records("a", "b", "c", "d"))
        one, two, three, four = written.ids
        await lease(storage, 3)
        await storage.settle([*delivered(one), *dead(two, reason="too old")])

        statuses = await storage.find([*written.ids, "nonsense", "1"])
        assert statuses == {
            one: RecordStatus("delivered"),
            two: RecordStatus("rejected", "too old"),
            three: RecordStatus("queued"),
            four: RecordStatus("queued"),
        }
        assert await storage.find([]) == {}

    async def test_the_status_of_records_that_are_gone(self, make_storage: MakeStorage) -> None:
        """It stays known how a record left the queue: delivered, rejected or dropped."""
        storage = await make_storage(3, "drop_oldest")
        one, two, three = (await storage.write(records("a", "b", "c"))).ids
        await lease(storage, 2)
        await storage.settle([*delivered(one), *dead(two)])
        await storage.purge()
        await storage.write(records("d", "e", "f"))

        found = await storage.find([one, two, three])
        assert [found[key].kind for key in (one, two, three)] == ["delivered", "rejected", "dropped"]

    async def test_a_record_that_is_revived_and_delivered(self, storage: Storage) -> None:
        """The last outcome counts."""
        keys = await write_dead(storage, "a")
        await storage.revive()
        assert await storage.find(keys) == {keys[0]: RecordStatus("queued")}
        await storage.settle(delivered(*keys))

        assert await storage.find(keys) == {keys[0]: RecordStatus("delivered")}

    async def test_records_that_are_settled_out_of_order(self, storage: Storage) -> None:
        """Whatever the order, each record has its own status."""
        keys = (await storage.write(records(*map(str, range(60))))).ids
        await lease(storage)
        for step in (7, 5, 3, 2):
            await storage.settle(delivered(*keys[::step]))
        await storage.settle(dead(*keys[1::6]))

        statuses = await storage.find(keys)
        expected = {
            key: "delivered" if any(index % step == 0 for step in (7, 5, 3, 2)) else "queued"
            for index, key in enumerate(keys)
        }
        expected.update((key, "rejected") for key in keys[1::6] if expected[key] == "queued")
        assert {key: status.kind for key, status in statuses.items()} == expected

    async def test_pending_counts_everything(self, storage: Storage) -> None:
        """The numbers are those of waiting, leased and dead records, and of the waiting ones by route."""
        await storage.write(records("a", "b", "c", route="x"))
        await storage.write(records("d", route="y"))
        leased = await lease(storage, 2, only="x")
        await storage.settle(dead(leased[0].id))

        count = await storage.pending()
        assert (count.waiting, count.leased, count.dead) == (3, 1, 1)
        assert count.routes == {"x": 2, "y": 1}

    async def test_pending_of_an_empty_storage(self, storage: Storage) -> None:
        """The numbers of an empty storage are zero."""
        count = await storage.pending()
        assert (count.waiting, count.leased, count.dead, dict(count.routes)) == (0, 0, 0, {})

    async def test_pending_says_how_old_the_oldest_record_is(self, storage: Storage) -> None:
        """The oldest waiting record counts, leased or not, of any route; a revived one is as old as its revival."""
        assert (await storage.pending()).oldest_at is None
        await storage.write([record("a", "x", at=100.0), record("b", "x", at=200.0), record("c", "y", at=300.0)])
        assert (await storage.pending()).oldest_at == 100.0
        (first,) = await lease(storage, 1, only="x")
        assert (await storage.pending()).oldest_at == 100.0

        await storage.settle(dead(first.id))
        assert (await storage.pending()).oldest_at == 200.0
        await storage.revive()
        assert (await storage.pending()).oldest_at == 200.0
        for each in await lease(storage, 10):
            await storage.settle(delivered(each.id))
        assert (await storage.pending()).oldest_at is None

    async def test_pending_says_how_old_the_oldest_of_many_leased_records_is(self, storage: Storage) -> None:
        """The oldest record counts where thousands are leased, of several routes."""
        for route, start, count in (("x", 10.0, 1), ("y", 5000.0, 3000), ("x", 9000.0, 3000)):
            await storage.write([record("a", route, at=start + n) for n in range(count)])
        leased = await lease(storage, 6001)
        assert (await storage.pending()).oldest_at == 10.0

        await storage.settle(delivered(*(each.id for each in leased if each.at == 10.0)))
        assert (await storage.pending()).oldest_at == 5000.0
        await storage.settle(delivered(*(each.id for each in leased if each.route == "y")))
        assert (await storage.pending()).oldest_at == 9000.0

    async def test_pending_says_how_large_the_queue_is(self, storage: Storage) -> None:
        """The size grows with the records, and the storage is not full."""
        before = await storage.pending()
        # Bytes at random, since a storage may compress.
        await storage.write([Record("shop", os.urandom(10_000), NOW) for _ in range(50)])
        after = await storage.pending()

        assert after.size >= before.size + 500_000
        assert not before.is_full
        assert not after.is_full

    async def test_waiting_does_not_lease(self, storage: Storage) -> None:
        """The oldest records of all routes are returned by age, leased or not, and stay as they are."""
        await storage.write([record("b", "y", at=2.0), record("c", "x", at=3.0), record("a", "z", at=1.0)])
        await lease(storage, 1, only="y")

        assert bodies(await storage.waiting(10)) == ["a", "b", "c"]
        assert bodies(await storage.waiting(2)) == ["a", "b"]
        assert (await storage.pending()).leased == 1

    async def test_the_newest_dead_letters_come_first(self, storage: Storage) -> None:
        """Dead letters are returned newest first, up to the limit."""
        for name in "abc":
            await write_dead(storage, name)

        assert bodies(await storage.dead(2)) == ["c", "b"]
        assert await storage.dead(0) == []

    async def test_fewer_and_fewer_remain(self, storage: Storage) -> None:
        """What was written before a watermark remains until it is delivered or dead; later writes do not count."""
        await storage.write(records("a", "b", "c"))
        watermark = await storage.watermark()
        await storage.write(records("d", "e"))

        assert await storage.remaining(watermark) == 3
        one, two, *rest = ids(await lease(storage))
        assert await storage.remaining(watermark) == 3
        await storage.settle([*delivered(one), *dead(two), *delivered(rest[-1])])
        assert await storage.remaining(watermark) == 1
        await storage.settle(delivered(*rest))
        assert await storage.remaining(watermark) == 0

    async def test_skipped_routes_do_not_remain(self, storage: Storage) -> None:
        """Skipped routes, and routes made after the watermark, do not count."""
        await storage.write(records("a", route="x"))
        await storage.write(records("b", "c", route="y"))
        watermark = await storage.watermark()
        await storage.write(records("d", route="z"))

        assert await storage.remaining(watermark) == 3
        assert await storage.remaining(watermark, skip=["y", "nowhere"]) == 1
        assert await storage.remaining({}) == 0

    @pytest.mark.parametrize(("at_most", "count"), [(0, 0), (1, 1), (2, 2), (3, 3), (4, 4), (5, 4), (None, 4)])
    async def test_counting_what_remains_up_to_a_number(
        self, storage: Storage, at_most: int | None, count: int
    ) -> None:
        """Leased and untouched records of all routes are counted up to the number, or all of them."""
        await storage.write([*records("a", "b", route="x"), *records("c", "d", route="y")])
        await lease(storage, 1, only="x")
        await lease(storage, 2, only="y")
        watermark = await storage.watermark()
        await storage.write(records("e", route="x"))

        assert await storage.remaining(watermark, at_most=at_most) == count

    async def test_what_does_not_remain_is_not_counted_up_to_a_number(self, storage: Storage) -> None:
        """Delivered records and skipped routes do not count where the count stops at a number, either."""
        written = await storage.write(records("a", route="x"))
        await storage.write(records("b", route="y"))
        await lease(storage)
        await storage.settle(delivered(*written.ids))

        assert await storage.remaining(await storage.watermark(), skip=["y"], at_most=1) == 0

    async def test_nothing_remains_after_a_wipe(self, storage: Storage) -> None:
        """After a wipe nothing remains at an old watermark, whatever is written then."""
        await storage.write(records("a", "b"))
        watermark = await storage.watermark()
        await storage.wipe()
        await storage.write(records("c"))

        assert await storage.remaining(watermark) == 0

    async def test_wiping_a_closed_storage(self, storage: Storage) -> None:
        """A storage that is closed can be wiped, and is empty when it is opened again."""
        await storage.write(records("a"), [StateChange("k", b"v", 0)])
        await storage.aclose()
        await storage.wipe()

        await storage.open()
        assert (await storage.waiting(9), await storage.load_state("k")) == ([], None)

    async def test_the_generation_of_the_content(self, storage: Storage) -> None:
        """The generation stays while records come and go, and is a new one after each wipe."""
        first = await storage.generation()
        await storage.write(records("a", "b"))
        await storage.settle(delivered(*ids(await lease(storage))))
        assert await storage.generation() == first

        await storage.wipe()
        second = await storage.generation()
        await storage.wipe()
        assert len({first, second, await storage.generation()}) == 3
