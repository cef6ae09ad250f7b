"""
Writing records.
"""

import asyncio
import contextlib

import pytest

from exponea_async.errors import QueueFullError, StateConflictError, StorageError
from exponea_async.storage.base import Leased, Record, StateChange, StateCheck, Storage, Written
from exponea_async.testing.storage_contract.builders import NOW, MakeStorage, bodies, ids, lease, record, records
from exponea_async.testing.storage_contract.part import ContractPart


class WritingContract(ContractPart):
    """Writing records."""

    async def test_what_is_written_can_be_leased(self, storage: Storage) -> None:
        """A leased record is the one that was written, under the id that the write returned."""
        written = await storage.write([Record("shop", b"{}", 5.0)])

        assert await lease(storage) == [Leased(written.ids[0], "shop", b"{}", 5.0, 0)]
        assert written.dropped == ()

    async def test_ids_are_in_the_order_of_the_records(self, storage: Storage) -> None:
        """One write to several routes returns the ids in the order of its records, all different."""
        written = await storage.write([record("a", "x"), record("b", "y"), record("c", "x")])
        found = {each.id: each.body for each in await lease(storage)}

        assert [found[key] for key in written.ids] == [b"a", b"b", b"c"]

    async def test_each_opening_has_a_number(self, storage: Storage) -> None:
        """The number changes with each opening, and opening an open storage again does nothing."""
        first = storage.number
        await storage.open()
        assert storage.number == first

        await storage.aclose()
        await storage.open()
        assert storage.number != first

    async def test_nothing_to_write(self, storage: Storage) -> None:
        """A write of no records succeeds and returns no ids."""
        assert await storage.write([]) == Written(())
        assert (await storage.pending()).waiting == 0

    async def test_any_bytes_and_names(self, storage: Storage) -> None:
        """Bodies and route names are stored byte by byte, whatever they contain."""
        body, route = bytes(range(256)), "röute '\"; -- \x00"
        await storage.write([Record(route, body, NOW), Record("", b"", NOW)])

        assert {(each.route, each.body) for each in await lease(storage)} == {(route, body), ("", b"")}

    async def test_many_records_in_one_write(self, storage: Storage) -> None:
        """A large write is stored whole and in order."""
        names = [str(number) for number in range(1_234)]
        written = await storage.write(records(*names))

        assert len(set(written.ids)) == len(names)
        assert bodies(await lease(storage, 2_000)) == names

    async def test_concurrent_writers_get_their_own_ids(self, storage: Storage) -> None:
        """Writers at the same time each get the id of their own record."""
        written = await asyncio.gather(*(storage.write([record(str(number))]) for number in range(300)))
        found = {each.id: each.body.decode() for each in await lease(storage, 300)}

        assert [found[each.ids[0]] for each in written] == [str(number) for number in range(300)]

    async def test_a_cancelled_writer_affects_no_other(self, storage: Storage) -> None:
        """Writers cancelled at any time leave a record or none, and the others are written."""
        writers = [asyncio.create_task(storage.write([record(str(number))])) for number in range(60)]
        for number, writer in enumerate(writers):
            if number % 3 == 0:
                await asyncio.sleep(0)
                writer.cancel()
        results = await asyncio.gather(*writers, return_exceptions=True)

        kept = {result.ids[0] for result in results if isinstance(result, Written)}
        assert kept <= set(ids(await lease(storage)))
        assert all(isinstance(result, Written | asyncio.CancelledError) for result in results)
        assert len(kept) >= 40

    async def test_commits_are_reported_also_to_cancelled_writers(self, storage: Storage) -> None:
        """Each record in the queue was reported once, before its write returned."""
        reported: list[str] = []
        writers = [
            asyncio.create_task(storage.write([record(str(number))], (), lambda written: reported.extend(written.ids)))
            for number in range(60)
        ]
        for number, writer in enumerate(writers):
            await asyncio.sleep(0)
            if number % 2:
                writer.cancel()
        await asyncio.wait(writers)
        returned = {writer.result().ids[0] for writer in writers if not writer.cancelled()}

        assert returned <= set(reported)
        assert sorted(reported) == sorted(ids(await lease(storage)))

    async def test_a_refused_write_is_not_reported(self, make_storage: MakeStorage) -> None:
        """Where nothing was written, nothing is reported."""
        storage, reported = await make_storage(max_records=1), list[Written]()
        with pytest.raises(QueueFullError):
            await storage.write(records("a", "b"), (), reported.append)
        with pytest.raises(StateConflictError):
            await storage.write([], [StateCheck("k", 1)], reported.append)

        assert reported == []

    async def test_a_bad_value_fails_its_own_write_only(self, storage: Storage) -> None:
        """A write that cannot be stored fails alone, whatever shares its commit."""
        odd = asyncio.create_task(storage.write([], [StateChange("\ud800", b"", 0)]))
        good = [asyncio.create_task(storage.write([record(str(number))])) for number in range(3)]
        await asyncio.wait([odd, *good])

        assert [len(each.result().ids) for each in good] == [1, 1, 1]
        with contextlib.suppress(UnicodeEncodeError, StorageError):  # the storage in memory accepts any string
            odd.result()
        assert len((await storage.write([record("after")])).ids) == 1

    async def test_a_bad_read_fails_alone(self, storage: Storage) -> None:
        """A read that cannot be done fails alone, and the calls that share its batch are done once."""
        before = await storage.write(records("old"))
        results = await asyncio.gather(
            storage.write(records("a")),
            storage.wipe(),
            storage.write([], [StateChange("\ud800", b"", 0)]),
            storage.load_state("\ud800"),
            storage.find(before.ids),
            storage.write(records("b")),
            return_exceptions=True,
        )

        kept = set(await storage.find([*results[0].ids, *results[5].ids]))  # type: ignore[union-attr]
        assert "b" in bodies(await storage.waiting(9))
        assert set(results[5].ids) <= kept  # type: ignore[union-attr]
        assert len(bodies(await storage.waiting(9))) == len(set(bodies(await storage.waiting(9))))
