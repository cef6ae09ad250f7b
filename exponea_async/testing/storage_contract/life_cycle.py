"""
Opening, closing and wiping.
"""

import asyncio
from collections.abc import Callable, Sequence

import pytest

from exponea_async.errors import StorageError
from exponea_async.storage.base import StateChange, Storage
from exponea_async.testing.storage_contract.builders import (
    LEASE,
    NOW,
    MakeStorage,
    bodies,
    delivered,
    lease,
    record,
    records,
    soon,
    write_dead,
)
from exponea_async.testing.storage_contract.part import ContractPart

Call = Callable[[Storage], object]
CALLS: Sequence[Call] = (
    lambda storage: storage.write([]),
    lambda storage: storage.write(records("a")),
    lambda storage: storage.lease(1, LEASE, NOW),
    lambda storage: storage.settle([]),
    lambda storage: storage.find([]),
    lambda storage: storage.watermark(),
    lambda storage: storage.remaining({}),
    lambda storage: storage.pending(),
    lambda storage: storage.waiting(1),
    lambda storage: storage.dead(1),
    lambda storage: storage.revive(),
    lambda storage: storage.purge(),
    lambda storage: storage.prune(),
    lambda storage: storage.load_state("k"),
    lambda storage: storage.expired_sessions(NOW, 1),
    lambda storage: storage.reserve("address", 1, 1.0),
)


class LifeCycleContract(ContractPart):
    """Opening, closing and wiping."""

    # Wiping

    async def test_wiping_deletes_everything(self, storage: Storage) -> None:
        """Records, leases, dead letters and states are gone, and old ids are unknown."""
        keys = await write_dead(storage, "a")
        written = await storage.write(records("b", "c"), [StateChange("k", b"", 0)])
        await lease(storage, 1)
        await storage.wipe()

        count = await storage.pending()
        assert (count.waiting, count.leased, count.dead, dict(count.routes)) == (0, 0, 0, {})
        assert await storage.load_state("k") is None
        assert await storage.find([*keys, *written.ids]) == {}
        assert await lease(storage, now=NOW + LEASE) == []
        assert await storage.watermark() == {}

    async def test_a_wiped_storage_can_be_used(self, storage: Storage) -> None:
        """After a wipe the storage works, and never gives an id a second time."""
        before: set[str] = set()
        for _ in range(3):
            before.update((await storage.write(records(*map(str, range(2_000))))).ids)
            await storage.wipe()
        written = await storage.write(records("b"))

        assert before.isdisjoint(written.ids)
        assert await storage.settle(delivered(*before)) == 0
        assert bodies(await lease(storage)) == ["b"]

    # Opening and closing

    @pytest.mark.parametrize("call", CALLS)
    async def test_use_before_open(self, make_storage: MakeStorage, call: Call) -> None:
        """Before it is opened, a storage refuses everything."""
        work = call(await make_storage(opened=False))
        assert asyncio.iscoroutine(work)
        with pytest.raises(StorageError, match="closed"):
            await work

    @pytest.mark.parametrize("call", CALLS)
    async def test_use_after_close(self, storage: Storage, call: Call) -> None:
        """Once closed, a storage refuses everything."""
        await storage.aclose()
        work = call(storage)
        assert asyncio.iscoroutine(work)
        with pytest.raises(StorageError, match="closed"):
            await work

    async def test_closing_twice(self, make_storage: MakeStorage) -> None:
        """A storage can be closed again and again, concurrently, and before it was ever opened."""
        storage = await make_storage(opened=False)
        await storage.aclose()
        await storage.open()
        await asyncio.gather(storage.aclose(), storage.aclose())
        await storage.aclose()

    async def test_a_closed_storage_can_be_opened_again(self, storage: Storage) -> None:
        """A closed storage can be opened again and used."""
        await storage.aclose()
        await storage.open()

        await storage.write(records("a"))
        assert bodies(await lease(storage)) == ["a"]

    async def test_closing_completes_the_writes(self, storage: Storage) -> None:
        """Writes that were called before the closing are all committed."""
        writers = [asyncio.create_task(storage.write([record(str(number))])) for number in range(50)]
        await asyncio.sleep(0)
        await storage.aclose()

        assert len({(await soon(writer)).ids for writer in writers}) == 50

    async def test_a_cancelled_closing(self, storage: Storage) -> None:
        """A closing that is cancelled can be repeated, and what was being written is written."""
        writer = asyncio.create_task(storage.write(records("a")))
        await asyncio.sleep(0)
        closing = asyncio.create_task(storage.aclose())
        await asyncio.sleep(0)
        closing.cancel()
        await asyncio.wait([closing])
        await storage.aclose()

        assert len((await soon(writer)).ids) == 1

    async def test_commits_are_counted(self, storage: Storage) -> None:
        """Each write and settlement that shares no batch with others is one commit; reading is none."""
        before = storage.commits
        await storage.write(records("a"))
        assert storage.commits == before + 1
        await storage.pending()
        await storage.find(["1"])
        assert storage.commits == before + 1
        await storage.settle(delivered("1"))
        assert storage.commits == before + 2
