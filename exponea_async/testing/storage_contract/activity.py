"""
The time of the last activity of a state.
"""

import asyncio

import pytest

from exponea_async.errors import QueueFullError, StateConflictError
from exponea_async.storage.base import State, StateChange, StateCheck, Storage
from exponea_async.testing.storage_contract.builders import (
    NOW,
    MakeStorage,
    bodies,
    create_states,
    expired_keys,
    last_activity,
    record,
    records,
    soon,
)
from exponea_async.testing.storage_contract.part import ContractPart

CHECK = StateCheck("k", 1, active=7.0)
AGAIN = StateCheck("k", 2, active=6.0)
CHANGE = StateChange("k", b"w", 1, active=3.0)
CAREFUL = StateChange("k", b"w", 1, active=3.0, seen=5.0)
FORGET = StateChange("k", None, 1, seen=5.0)


class ActivityContract(ContractPart):
    """The time of the last activity of a state."""

    # Checks

    async def test_activity_is_raised(self, storage: Storage) -> None:
        """A check with a later activity raises the stored one, and leaves value and version as they are."""
        await storage.write([], [StateChange("k", b"v", 0, active=5.0)])
        await storage.write(records("a"), [StateCheck("k", 1, active=6.5)])

        assert await storage.load_state("k") == State(b"v", 1, 6.5)

    async def test_activity_is_never_lowered(self, storage: Storage) -> None:
        """A check with an earlier activity than the stored one changes nothing, and is not a conflict."""
        await storage.write([], [StateChange("k", b"v", 0, active=5.0)])
        await storage.write(records("a"), [StateCheck("k", 1, active=4.0)])

        assert await storage.load_state("k") == State(b"v", 1, 5.0)

    async def test_activity_is_set_where_there_was_none(self, storage: Storage) -> None:
        """The first activity of a state sets it, however early."""
        await storage.write([], [StateChange("k", b"v", 0)])
        assert await last_activity(storage) is None
        await storage.write([], [StateCheck("k", 1, active=-3.0)])

        assert await last_activity(storage) == -3.0

    async def test_a_check_without_activity(self, storage: Storage) -> None:
        """A check without activity leaves the stored one alone."""
        await storage.write([], [StateChange("k", b"v", 0, active=5.0)])
        await storage.write(records("a"), [StateCheck("k", 1)])

        assert await last_activity(storage) == 5.0

    async def test_activity_without_a_state(self, storage: Storage) -> None:
        """A check with activity creates no state, and a state created later does not inherit the activity."""
        await asyncio.gather(
            storage.write(records("a"), [StateCheck("k", 0, active=5.0)]),
            storage.write([], [StateChange("k", b"v", 0)]),
        )

        assert await storage.load_state("k") == State(b"v", 1, None)

    async def test_the_latest_of_many_activities(self, storage: Storage) -> None:
        """Of many times of activity at once the latest counts, whatever their order."""
        await create_states(storage, None, None)
        times = [(n * 37) % 100 for n in range(100)]
        await asyncio.gather(
            *(storage.write(records("a"), [StateCheck(f"k{n % 2}", 1, active=n)]) for n in times),
        )

        assert [await last_activity(storage, "k0"), await last_activity(storage, "k1")] == [98.0, 99.0]

    async def test_a_conflict_changes_no_activity(self, storage: Storage) -> None:
        """A write that is refused changes no activity, not even that of its checks that hold."""
        await create_states(storage, 1.0, 1.0)
        good = StateCheck("k0", 1, active=9.0)
        results = await asyncio.gather(
            storage.write(records("a"), [good, StateCheck("k1", 2, active=9.0)]),
            storage.write(records("b"), [StateCheck("k1", 1, active=2.0)]),
            return_exceptions=True,
        )

        assert [isinstance(result, StateConflictError) for result in results] == [True, False]
        assert [await last_activity(storage, "k0"), await last_activity(storage, "k1")] == [1.0, 2.0]
        assert bodies(await storage.waiting(9)) == ["b"]

    async def test_a_full_queue_changes_no_activity(self, make_storage: MakeStorage) -> None:
        """A write that exceeds the capacity changes no activity."""
        storage = await make_storage(max_records=1)
        await create_states(storage, 1.0)
        with pytest.raises(QueueFullError):
            await storage.write(records("a", "b"), [StateCheck("k0", 1, active=9.0)])

        assert await last_activity(storage, "k0") == 1.0

    async def test_a_writer_that_waits_changes_no_activity(self, make_storage: MakeStorage) -> None:
        """A writer that waits for capacity has not changed the activity yet; after a wipe it finds its state gone."""
        storage = await make_storage(max_records=1, when_full="wait")
        await create_states(storage, 1.0)
        await storage.write(records("a"))
        writer = asyncio.create_task(storage.write(records("b"), [StateCheck("k0", 1, active=9.0)]))
        await asyncio.sleep(0.02)
        assert await last_activity(storage, "k0") == 1.0

        await storage.wipe()
        with pytest.raises(StateConflictError):
            await soon(writer)
        assert await storage.load_state("k0") is None

    # Changes

    @pytest.mark.parametrize("active", [None, 2.0, 8.0])
    async def test_a_change_sets_the_activity(self, storage: Storage, active: float | None) -> None:
        """A change sets the activity to its own: later, earlier or none."""
        await storage.write([], [StateChange("k", b"v", 0, active=5.0)])
        await storage.write([], [StateChange("k", b"w", 1, active=active)])

        assert await storage.load_state("k") == State(b"w", 2, active)

    async def test_activity_is_deleted_with_its_state(self, storage: Storage) -> None:
        """The activity is deleted with its state, whatever the change says."""
        await storage.write([], [StateChange("k", b"v", 0, active=5.0)])
        await storage.write([], [StateChange("k", None, 1, active=6.0)])
        await storage.write([], [StateChange("k", b"w", 0)])

        assert await last_activity(storage) is None

    @pytest.mark.parametrize(("stored", "refused"), [(None, False), (4.0, False), (5.0, False), (5.5, True)])
    async def test_a_change_that_has_seen_less_activity(
        self, storage: Storage, stored: float | None, *, refused: bool
    ) -> None:
        """A change that has seen less than the stored activity is refused, with its records."""
        await storage.write([], [StateChange("k", b"v", 0, active=stored)])
        change = StateChange("k", b"w", 1, active=None, seen=5.0)
        if not refused:
            await storage.write(records("a"), [change])
            assert await storage.load_state("k") == State(b"w", 2)
            return
        with pytest.raises(StateConflictError, match="'k'"):
            await storage.write(records("a"), [change])
        assert await storage.load_state("k") == State(b"v", 1, stored)
        assert await storage.waiting(9) == []

    async def test_a_change_that_has_seen_activity_and_no_state(self, storage: Storage) -> None:
        """A state that does not exist has no activity that could be too late."""
        await storage.write([], [StateChange("k", b"v", 0, active=9.0, seen=5.0)])

        assert await last_activity(storage) == 9.0

    async def test_a_deletion_that_has_seen_less_activity(self, storage: Storage) -> None:
        """A state is not deleted if there was activity since it was read."""
        await storage.write([], [StateChange("k", b"v", 0, active=9.0)])
        with pytest.raises(StateConflictError):
            await storage.write([], [StateChange("k", None, 1, seen=5.0)])

        assert await storage.load_state("k") == State(b"v", 1, 9.0)

    # Both at once

    @pytest.mark.parametrize(
        ("writes", "kept", "left"),
        [
            ((CHECK, CHANGE), "11", (2, 3.0)),
            ((CHANGE, CHECK), "10", (2, 3.0)),
            ((CHECK, CAREFUL), "10", (1, 7.0)),
            ((CAREFUL, CHECK), "10", (2, 3.0)),
            ((CAREFUL, AGAIN), "11", (2, 6.0)),
            ((CHECK, CHANGE, AGAIN), "111", (2, 6.0)),
            ((CHANGE, AGAIN, StateChange("k", b"x", 2, seen=3.0)), "110", (2, 6.0)),
            ((CHANGE, AGAIN, StateChange("k", b"x", 2, seen=6.0)), "111", (3, None)),
            ((CHECK, FORGET), "10", (1, 7.0)),
            ((FORGET, CHECK), "10", None),
            ((CHECK, StateChange("k", None, 1), StateChange("k", b"x", 0)), "111", (2, None)),
            ((StateCheck("k", 1, active=4.0), CAREFUL, AGAIN), "111", (2, 6.0)),
        ],
    )
    async def test_checks_and_changes_see_those_before_them(
        self,
        storage: Storage,
        writes: tuple[StateChange | StateCheck, ...],
        kept: str,
        left: tuple[int, float | None] | None,
    ) -> None:
        """Checks and changes of one key at the same time act in their order, each seeing those before it."""
        await storage.write([], [StateChange("k", b"v", 0, active=1.0)])
        before = storage.commits
        results = await asyncio.gather(
            *(storage.write([record(str(n))], [write]) for n, write in enumerate(writes)), return_exceptions=True
        )

        assert "".join("0" if isinstance(result, StateConflictError) else "1" for result in results) == kept
        assert storage.commits - before <= len(writes)
        assert bodies(await storage.waiting(9)) == [str(n) for n in range(len(writes)) if kept[n] == "1"]
        state = await storage.load_state("k")
        assert (state and (state.version, state.active)) == left

    @pytest.mark.parametrize(
        ("states", "left"),
        [
            ((CHECK, CAREFUL), (2, 3.0)),
            ((CAREFUL, CHECK), (2, 7.0)),
            ((CHECK, StateCheck("k", 1, active=6.0)), (1, 7.0)),
            ((CHECK, FORGET), None),
            ((FORGET, CHECK), None),
        ],
    )
    async def test_checks_and_changes_in_one_write(
        self, storage: Storage, states: tuple[StateChange | StateCheck, ...], left: tuple[int, float] | None
    ) -> None:
        """Within one write all conditions are checked first, and then all changes are made in order."""
        await storage.write([], [StateChange("k", b"v", 0, active=1.0)])
        await storage.write(records("a"), states)

        state = await storage.load_state("k")
        assert (state and (state.version, state.active)) == left

    # Expired sessions

    async def test_expired_sessions_come_earliest_first(self, storage: Storage) -> None:
        """States with activity before the time are returned, earliest first."""
        await create_states(storage, NOW - 5, NOW - 9, None, NOW, NOW + 1, NOW - 7)

        assert await storage.expired_sessions(NOW, 9) == [
            ("k1", State(b"v", 1, NOW - 9)),
            ("k5", State(b"v", 1, NOW - 7)),
            ("k0", State(b"v", 1, NOW - 5)),
        ]
        assert await expired_keys(storage) == ["k1", "k5", "k0"]

    @pytest.mark.parametrize("limit", [-1, 0, 1, 2, 3, 4])
    async def test_the_limit_of_expired_sessions(self, storage: Storage, limit: int) -> None:
        """The limit leaves out the latest ones; a limit of zero or less returns none."""
        await create_states(storage, NOW - 2, NOW - 1, NOW - 3)

        assert await expired_keys(storage, limit=limit) == ["k2", "k0", "k1"][: max(0, limit)]

    async def test_expired_sessions_of_equal_times(self, storage: Storage) -> None:
        """States of equal activity are returned in the order of their keys."""
        await create_states(storage, *[NOW - 1] * 30)

        assert await expired_keys(storage) == sorted(f"k{n}" for n in range(30))

    async def test_sessions_whose_activity_is_raised(self, storage: Storage) -> None:
        """A state whose activity is raised gets its new place, or none."""
        await create_states(storage, NOW - 9, NOW - 8, NOW - 7)
        assert await expired_keys(storage) == ["k0", "k1", "k2"]
        await storage.write([], [StateCheck("k0", 1, active=NOW - 1), StateCheck("k1", 1, active=NOW)])

        assert await expired_keys(storage) == ["k2", "k0"]
        assert await expired_keys(storage, NOW + 1) == ["k2", "k0", "k1"]

    async def test_a_session_whose_activity_is_lowered_and_raised(self, storage: Storage) -> None:
        """A state whose activity was lowered and raised again is returned once, at its last place."""
        await create_states(storage, NOW - 5, NOW - 6)
        for version, active in enumerate([NOW - 9, NOW - 2, NOW - 8, NOW - 5, NOW - 7], start=1):
            await storage.write([], [StateChange("k0", b"v", version, active)])
            assert sorted(await expired_keys(storage)) == ["k0", "k1"]

        assert await expired_keys(storage) == ["k0", "k1"]
        assert await expired_keys(storage, NOW - 6) == ["k0"]

    async def test_sessions_whose_activity_is_cleared(self, storage: Storage) -> None:
        """States whose activity was cleared, and deleted ones, are not returned."""
        await create_states(storage, NOW - 3, NOW - 2, NOW - 1)
        await storage.write([], [StateChange("k0", b"v", 1), StateChange("k2", None, 1)])
        assert await expired_keys(storage) == ["k1"]

        await storage.wipe()
        assert await expired_keys(storage) == []

    async def test_reading_expired_sessions_changes_nothing(self, storage: Storage) -> None:
        """Expired sessions stay expired until their activity is cleared."""
        await create_states(storage, NOW - 3, NOW - 2)
        before = storage.commits
        assert await expired_keys(storage, limit=1) == await expired_keys(storage, limit=1) == ["k0"]
        assert storage.commits == before

        await storage.write([], [StateChange("k0", b"v", 1, seen=NOW - 3)])
        assert await expired_keys(storage, limit=1) == ["k1"]

    async def test_of_two_callers_one_ends_a_session(self, storage: Storage) -> None:
        """Of two callers that find the same expired session only one can end it."""
        await create_states(storage, NOW - 3)
        found = [await storage.expired_sessions(NOW, 1) for _ in range(2)]
        ends = [[StateChange(key, b"", state.version, seen=state.active) for key, state in each] for each in found]
        results = await asyncio.gather(
            *(storage.write(records("end"), end) for end in ends),
            return_exceptions=True,
        )

        assert [isinstance(result, StateConflictError) for result in results] == [False, True]
        assert bodies(await storage.waiting(9)) == ["end"]
