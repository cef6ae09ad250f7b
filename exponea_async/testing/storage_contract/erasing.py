"""
Erasing the records and states of an end user.
"""

import asyncio

import pytest

from exponea_async.errors import StateConflictError
from exponea_async.storage.base import StateChange, StateCheck, Storage
from exponea_async.storage.erasure import Erased, Erasure
from exponea_async.testing.storage_contract.builders import (
    MakeStorage,
    bodies,
    delivered,
    erasure,
    existing,
    ids,
    lease,
    records,
    soon,
    write_dead,
)
from exponea_async.testing.storage_contract.part import ContractPart


class ErasingContract(ContractPart):
    """Erasing the records and states of an end user."""

    async def test_selected_records_are_erased(self, storage: Storage) -> None:
        """Selected records are erased, leased or not, with their dead letters; all others stay, in their order."""
        await write_dead(storage, "x-dead", "a-dead")
        written = await storage.write(records("x1", "a1", "x2", "a2", "x3", "a3", "ax"))
        leased = await lease(storage, 2)
        erased = await storage.erase(erasure(b"x"))

        assert set(erased.records) == {written.ids[0], written.ids[2], written.ids[4]}
        assert [each.body for each in await storage.dead(9)] == [b"a-dead"]
        assert (await storage.pending()).waiting == 4
        assert {each.kind for each in (await storage.find(erased.records)).values()} == {"dropped"}
        assert await storage.settle(delivered(*ids(leased))) == 1
        await storage.write(records("a4"))
        assert sorted(bodies(await lease(storage))) == ["a2", "a3", "a4", "ax"]
        assert (await storage.pending()).waiting == 4

    async def test_erasing_several_traces(self, storage: Storage) -> None:
        """A record that contains several of the traces is erased, and counted, once."""
        await storage.write(records("xy", "x", "y", "a"))
        erased = await storage.erase(Erasure((b"x", b"y"), lambda _: True, lambda _: ()))
        assert len(erased.records) == 3
        assert bodies(await lease(storage)) == ["a"]

    async def test_erasing_what_is_being_written(self, storage: Storage) -> None:
        """Records of calls that were made before are erased, too, whether they are committed yet or not."""
        writes = [asyncio.ensure_future(storage.write(records(f"x{number}", "a"))) for number in range(5)]
        await asyncio.sleep(0)
        erased = await storage.erase(erasure(b"x"))
        await asyncio.gather(*writes)
        assert len(erased.records) == 5
        assert set(bodies(await lease(storage))) == {"a"}

    async def test_erasing_nothing(self, storage: Storage) -> None:
        """Where nothing is selected, nothing changes."""
        await storage.write(records("a", "b"), [StateChange("k", b"1", 0)])
        assert await storage.erase(erasure(b"x")) == Erased((), (), ())
        assert bodies(await lease(storage)) == ["a", "b"]
        assert existing(await storage.load_state("k")).value == b"1"

    async def test_selected_states_are_erased(self, storage: Storage) -> None:
        """Selected states are erased, others are stored whatever was there, and no version repeats."""
        await storage.write((), [StateChange("k", b"1", 0), StateChange("l", b"2", 0), StateChange("m", b"3", 0)])
        erased = await storage.erase(erasure(b"x", "k", "l", m=b"4", n=b"5"))

        assert set(erased.states) == {"k", "l"}
        assert [await storage.load_state(key) for key in "kl"] == [None, None]
        assert [existing(await storage.load_state(key)).value for key in "mn"] == [b"4", b"5"]
        with pytest.raises(StateConflictError):
            await storage.write((), [StateCheck("k", 1)])
        await storage.write((), [StateChange("k", b"new", 0)])
        assert existing(await storage.load_state("k")).version > 1

    async def test_erasing_makes_room(self, make_storage: MakeStorage) -> None:
        """A write that waits for capacity is made."""
        storage = await make_storage(max_records=2, when_full="wait")
        await storage.write(records("x1", "x2"))
        writer = asyncio.create_task(storage.write(records("a")))
        await asyncio.sleep(0)
        await storage.erase(erasure(b"x"))
        assert len((await soon(writer)).ids) == 1
