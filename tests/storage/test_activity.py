"""
The moment of last activity beside a state, in every backend.
"""

import asyncio

import pytest
from stores import (
    NOW,
    MakeStorage,
    active,
    bodies,
    create,
    each_backend,  # noqa: F401 - a fixture
    expired,
    open_storage,  # noqa: F401 - a fixture
    record,
    records,
    storage_maker,  # noqa: F401 - a fixture
)

from exponea_async.errors import QueueFullError, StateConflictError
from exponea_async.storage.base import State, StateChange, StateCheck, Storage


class TestTouching:
    async def test_a_touch_raises(self, storage: Storage) -> None:
        """A touch moves the activity ahead and leaves value and version as they are."""
        await storage.write([], [StateChange("k", b"v", 0, active=5.0)])
        await storage.write(records("a"), [StateCheck("k", 1, active=6.5)])

        assert await storage.load_state("k") == State(b"v", 1, 6.5)

    async def test_a_touch_never_lowers(self, storage: Storage) -> None:
        """A touch earlier than the stored activity changes nothing, and is no conflict."""
        await storage.write([], [StateChange("k", b"v", 0, active=5.0)])
        await storage.write(records("a"), [StateCheck("k", 1, active=4.0)])

        assert await storage.load_state("k") == State(b"v", 1, 5.0)

    async def test_a_touch_sets_where_there_was_none(self, storage: Storage) -> None:
        """The first touch of a state without activity sets it, however early."""
        await storage.write([], [StateChange("k", b"v", 0)])
        assert await active(storage) is None
        await storage.write([], [StateCheck("k", 1, active=-3.0)])

        assert await active(storage) == -3.0

    async def test_a_check_alone_is_no_touch(self, storage: Storage) -> None:
        """A check without activity leaves the stored one alone."""
        await storage.write([], [StateChange("k", b"v", 0, active=5.0)])
        await storage.write(records("a"), [StateCheck("k", 1)])

        assert await active(storage) == 5.0

    async def test_nothing_to_touch(self, storage: Storage) -> None:
        """A touch makes no state, and none that is made later inherits it."""
        await asyncio.gather(
            storage.write(records("a"), [StateCheck("k", 0, active=5.0)]),
            storage.write([], [StateChange("k", b"v", 0)]),
        )

        assert await storage.load_state("k") == State(b"v", 1, None)

    async def test_the_latest_of_many(self, storage: Storage) -> None:
        """Of many touches at once the latest counts, whatever their order."""
        await create(storage, None, None)
        moments = [(n * 37) % 100 for n in range(100)]
        await asyncio.gather(
            *(storage.write(records("a"), [StateCheck(f"k{n % 2}", 1, active=n)]) for n in moments),
        )

        assert [await active(storage, "k0"), await active(storage, "k1")] == [98.0, 99.0]

    async def test_a_conflict_leaves_no_touch(self, storage: Storage) -> None:
        """A write that is refused touches nothing, not even with its checks that hold."""
        await create(storage, 1.0, 1.0)
        good = StateCheck("k0", 1, active=9.0)
        results = await asyncio.gather(
            storage.write(records("a"), [good, StateCheck("k1", 2, active=9.0)]),
            storage.write(records("b"), [StateCheck("k1", 1, active=2.0)]),
            return_exceptions=True,
        )

        assert [isinstance(result, StateConflictError) for result in results] == [True, False]
        assert [await active(storage, "k0"), await active(storage, "k1")] == [1.0, 2.0]
        assert bodies(await storage.waiting(9)) == ["b"]

    async def test_no_room_leaves_no_touch(self, make_storage: MakeStorage) -> None:
        """A write that finds no room touches nothing."""
        storage = await make_storage(max_records=1)
        await create(storage, 1.0)
        with pytest.raises(QueueFullError):
            await storage.write(records("a", "b"), [StateCheck("k0", 1, active=9.0)])

        assert await active(storage, "k0") == 1.0

    async def test_a_writer_that_waits_touches_when_written(self, make_storage: MakeStorage) -> None:
        """A writer that waits for room has not touched yet; a wipe lets it find its state gone."""
        storage = await make_storage(max_records=1, when_full="wait")
        await create(storage, 1.0)
        await storage.write(records("a"))
        writer = asyncio.create_task(storage.write(records("b"), [StateCheck("k0", 1, active=9.0)]))
        await asyncio.sleep(0.02)
        assert await active(storage, "k0") == 1.0

        await storage.wipe()
        with pytest.raises(StateConflictError):
            await writer
        assert await storage.load_state("k0") is None


class TestChanging:
    @pytest.mark.parametrize("moment", [None, 2.0, 8.0])
    async def test_a_change_sets(self, storage: Storage, moment: float | None) -> None:
        """A change sets the activity to what it says: later, earlier or none."""
        await storage.write([], [StateChange("k", b"v", 0, active=5.0)])
        await storage.write([], [StateChange("k", b"w", 1, active=moment)])

        assert await storage.load_state("k") == State(b"w", 2, moment)

    async def test_forgotten_with_its_state(self, storage: Storage) -> None:
        """The activity goes when the state goes, whatever the change says."""
        await storage.write([], [StateChange("k", b"v", 0, active=5.0)])
        await storage.write([], [StateChange("k", None, 1, active=6.0)])
        await storage.write([], [StateChange("k", b"w", 0)])

        assert await active(storage) is None

    @pytest.mark.parametrize(("stored", "refused"), [(None, False), (4.0, False), (5.0, False), (5.5, True)])
    async def test_seen(self, storage: Storage, stored: float | None, *, refused: bool) -> None:
        """A change that has seen less than the stored activity is refused, records and all."""
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

    async def test_seen_of_nothing(self, storage: Storage) -> None:
        """A state that is not there has no activity that could be too late."""
        await storage.write([], [StateChange("k", b"v", 0, active=9.0, seen=5.0)])

        assert await active(storage) == 9.0

    async def test_seen_when_forgetting(self, storage: Storage) -> None:
        """A state is not forgotten if somebody was active meanwhile."""
        await storage.write([], [StateChange("k", b"v", 0, active=9.0)])
        with pytest.raises(StateConflictError):
            await storage.write([], [StateChange("k", None, 1, seen=5.0)])

        assert await storage.load_state("k") == State(b"v", 1, 9.0)


CHECK = StateCheck("k", 1, active=7.0)
AGAIN = StateCheck("k", 2, active=6.0)
CHANGE = StateChange("k", b"w", 1, active=3.0)
CAREFUL = StateChange("k", b"w", 1, active=3.0, seen=5.0)
FORGET = StateChange("k", None, 1, seen=5.0)


class TestAtOnce:
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
    async def test_each_sees_those_before_it(
        self,
        storage: Storage,
        writes: tuple[StateChange | StateCheck, ...],
        kept: str,
        left: tuple[int, float | None] | None,
    ) -> None:
        """Touches and changes of one key at once act in their order, each seeing what came before."""
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
    async def test_in_one_write(
        self, storage: Storage, states: tuple[StateChange | StateCheck, ...], left: tuple[int, float] | None
    ) -> None:
        """Within one write all are held against what was there before it, and then act in their order."""
        await storage.write([], [StateChange("k", b"v", 0, active=1.0)])
        await storage.write(records("a"), states)

        state = await storage.load_state("k")
        assert (state and (state.version, state.active)) == left


class TestExpired:
    async def test_earliest_first(self, storage: Storage) -> None:
        """Those with activity before the moment come, earliest first, with their states."""
        await create(storage, NOW - 5, NOW - 9, None, NOW, NOW + 1, NOW - 7)

        assert await storage.expired_sessions(NOW, 9) == [
            ("k1", State(b"v", 1, NOW - 9)),
            ("k5", State(b"v", 1, NOW - 7)),
            ("k0", State(b"v", 1, NOW - 5)),
        ]
        assert await expired(storage) == ["k1", "k5", "k0"]

    @pytest.mark.parametrize("limit", [-1, 0, 1, 2, 3, 4])
    async def test_no_more_than_asked_for(self, storage: Storage, limit: int) -> None:
        """The limit cuts off the latest; none is no state."""
        await create(storage, NOW - 2, NOW - 1, NOW - 3)

        assert await expired(storage, limit=limit) == ["k2", "k0", "k1"][: max(0, limit)]

    async def test_equal_moments(self, storage: Storage) -> None:
        """Of equal moments the keys tell the order."""
        await create(storage, *[NOW - 1] * 30)

        assert await expired(storage) == sorted(f"k{n}" for n in range(30))

    async def test_touched_meanwhile(self, storage: Storage) -> None:
        """A state that is touched takes its new place, or none."""
        await create(storage, NOW - 9, NOW - 8, NOW - 7)
        assert await expired(storage) == ["k0", "k1", "k2"]
        await storage.write([], [StateCheck("k0", 1, active=NOW - 1), StateCheck("k1", 1, active=NOW)])

        assert await expired(storage) == ["k2", "k0"]
        assert await expired(storage, NOW + 1) == ["k2", "k0", "k1"]

    async def test_lowered_and_raised(self, storage: Storage) -> None:
        """A state whose activity was set back and forth is found once, at its last place."""
        await create(storage, NOW - 5, NOW - 6)
        for version, moment in enumerate([NOW - 9, NOW - 2, NOW - 8, NOW - 5, NOW - 7], start=1):
            await storage.write([], [StateChange("k0", b"v", version, moment)])
            assert sorted(await expired(storage)) == ["k0", "k1"]

        assert await expired(storage) == ["k0", "k1"]
        assert await expired(storage, NOW - 6) == ["k0"]

    async def test_cleared(self, storage: Storage) -> None:
        """States whose activity was cleared, and those that are gone, are not found."""
        await create(storage, NOW - 3, NOW - 2, NOW - 1)
        await storage.write([], [StateChange("k0", b"v", 1), StateChange("k2", None, 1)])
        assert await expired(storage) == ["k1"]

        await storage.wipe()
        assert await expired(storage) == []

    async def test_looking_changes_nothing(self, storage: Storage) -> None:
        """The expired stay so until somebody clears them."""
        await create(storage, NOW - 3, NOW - 2)
        before = storage.commits
        assert await expired(storage, limit=1) == await expired(storage, limit=1) == ["k0"]
        assert storage.commits == before

        await storage.write([], [StateChange("k0", b"v", 1, seen=NOW - 3)])
        assert await expired(storage, limit=1) == ["k1"]

    async def test_of_two_sweepers_one_ends_a_session(self, storage: Storage) -> None:
        """Two who find the same expired session can not both end it."""
        await create(storage, NOW - 3)
        found = [await storage.expired_sessions(NOW, 1) for _ in range(2)]
        ends = [[StateChange(key, b"", state.version, seen=state.active) for key, state in each] for each in found]
        results = await asyncio.gather(
            *(storage.write(records("end"), end) for end in ends),
            return_exceptions=True,
        )

        assert [isinstance(result, StateConflictError) for result in results] == [False, True]
        assert bodies(await storage.waiting(9)) == ["end"]
