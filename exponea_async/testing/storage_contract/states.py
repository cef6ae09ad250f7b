"""
States, and writes that depend on them.
"""

import asyncio

import pytest

from exponea_async.errors import StateConflictError
from exponea_async.storage.base import State, StateChange, StateCheck, Storage, replace_state
from exponea_async.testing.storage_contract.builders import bodies, lease, record, records
from exponea_async.testing.storage_contract.part import ContractPart


class StateContract(ContractPart):
    """States, and writes that depend on them."""

    async def test_a_state_is_created_changed_and_deleted(self, storage: Storage) -> None:
        """The version of a state increases by one with each change; a deleted state is gone."""
        await storage.write([], [StateChange("k", b"one", 0)])
        assert await storage.load_state("k") == State(b"one", 1)
        await storage.write([], [StateChange("k", b"two", 1)])
        assert await storage.load_state("k") == State(b"two", 2)
        await storage.write([], [StateChange("k", None, 2)])
        assert await storage.load_state("k") is None

    async def test_a_state_with_an_unknown_key(self, storage: Storage) -> None:
        """A state that was never stored is None, and deleting it does nothing."""
        await storage.write([], [StateChange("k", None, 0)])
        assert await storage.load_state("k") is None

    @pytest.mark.parametrize("version", [0, 1, 3])
    @pytest.mark.parametrize("value", [b"mine", None])
    async def test_a_conflict_writes_nothing(self, storage: Storage, version: int, value: bytes | None) -> None:
        """A change of another version fails with the key, and neither its records nor its other changes are stored."""
        await storage.write([], [StateChange("k", b"one", 0)])
        await storage.write([], [StateChange("k", b"two", 1)])

        changes = [StateChange("other", b"x", 0), StateChange("k", value, version)]
        with pytest.raises(StateConflictError, match="'k'") as caught:
            await storage.write(records("a"), changes)
        assert caught.value.key == "k"
        assert (await storage.pending()).waiting == 0
        assert await storage.load_state("other") is None
        assert await storage.load_state("k") == State(b"two", 2)

    async def test_of_several_changes_one_wins(self, storage: Storage) -> None:
        """Of several changes of one version at the same time just one is made, with its records."""
        writes = (storage.write([record(str(n))], [StateChange("k", str(n).encode(), 0)]) for n in range(20))
        results = await asyncio.gather(*writes, return_exceptions=True)

        assert sum(isinstance(result, StateConflictError) for result in results) == 19
        state = await storage.load_state("k")
        assert state is not None
        assert bodies(await lease(storage)) == [state.value.decode()]

    async def test_each_caller_gets_its_own_conflict(self, storage: Storage) -> None:
        """No two callers get the same error object."""
        writes = (storage.write([], [StateCheck("k", 7)]) for _ in range(5))
        results = await asyncio.gather(*writes, return_exceptions=True)

        assert len(set(map(id, results))) == 5

    async def test_a_check_that_holds(self, storage: Storage) -> None:
        """A record is written if the state still has the version; the check changes nothing."""
        await storage.write(records("a"), [StateCheck("k", 0)])
        await storage.write([], [StateChange("k", b"one", 0)])
        await storage.write(records("b"), [StateCheck("k", 1), StateCheck("none", 0)])

        assert bodies(await lease(storage)) == ["a", "b"]
        assert await storage.load_state("k") == State(b"one", 1)

    @pytest.mark.parametrize("version", [0, 2])
    async def test_a_check_that_fails(self, storage: Storage, version: int) -> None:
        """A record is refused if the state has another version, or exists where it should not."""
        await storage.write([], [StateChange("k", b"one", 0)])

        with pytest.raises(StateConflictError):
            await storage.write(records("a"), [StateChange("other", b"x", 0), StateCheck("k", version)])
        assert (await storage.pending()).waiting == 0
        assert await storage.load_state("other") is None

    async def test_checks_see_the_changes_before_them(self, storage: Storage) -> None:
        """Among writes at the same time a check holds until the change, and not after it."""
        results = await asyncio.gather(
            storage.write(records("a"), [StateCheck("k", 0)]),
            storage.write(records("b"), [StateChange("k", b"one", 0)]),
            storage.write(records("c"), [StateCheck("k", 0)]),
            storage.write(records("d"), [StateCheck("k", 1)]),
            storage.write(records("e"), [StateChange("k", None, 1)]),
            storage.write(records("f"), [StateCheck("k", 1)]),
            return_exceptions=True,
        )

        conflicts = [isinstance(result, StateConflictError) for result in results]
        assert conflicts == [False, False, True, False, False, True]
        assert bodies(await lease(storage)) == ["a", "b", "d", "e"]

    @pytest.mark.parametrize("wiped", [False, True])
    async def test_a_new_state_is_not_the_old_one(self, storage: Storage, *, wiped: bool) -> None:
        """A version read from a state that was deleted or wiped does not match a new state under its key."""
        await storage.write([], [StateChange("k", b"old", 0)])
        await (storage.wipe() if wiped else storage.write([], [StateChange("k", None, 1)]))
        await storage.write([], [StateChange("k", b"new", 0)])

        with pytest.raises(StateConflictError):
            await storage.write(records("a"), [StateCheck("k", 1)])
        state = await storage.load_state("k")
        assert state is not None
        await storage.write([], [StateChange("k", b"newer", state.version)])
        assert await storage.load_state("k") == State(b"newer", state.version + 1)

    async def test_replacing_a_state(self, storage: Storage) -> None:
        """A replaced value is stored whatever was there; the same value again is not written, and None deletes."""
        for value, version in ((b"one", 1), (b"two", 2), (b"two", 2)):
            await replace_state(storage, "k", value)
            assert await storage.load_state("k") == State(value, version)
        before = storage.commits
        await replace_state(storage, "other", None)
        assert storage.commits == before

        await replace_state(storage, "k", None)
        assert await storage.load_state("k") is None

    async def test_replacing_a_state_at_once(self, storage: Storage) -> None:
        """Callers that replace one value at the same time all succeed, and one of their values is stored."""
        values = [str(n).encode() for n in range(20)]
        await asyncio.gather(*(replace_state(storage, "k", value) for value in values))

        state = await storage.load_state("k")
        assert state is not None
        assert state.value in values
