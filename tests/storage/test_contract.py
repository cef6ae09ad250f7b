"""
What every backend keeps to.
"""

import asyncio
import contextlib
from collections.abc import Callable, Sequence

import pytest
from stores import (
    LEASE,
    NOW,
    MakeStorage,
    bodies,
    bury,
    dead,
    delivered,
    each_backend,  # noqa: F401 - a fixture
    ids,
    later,
    open_storage,  # noqa: F401 - a fixture
    record,
    records,
    storage_maker,  # noqa: F401 - a fixture
    take,
)

from exponea_async.errors import QueueFullError, StateConflictError, StorageError
from exponea_async.storage.base import (
    MAX_DUE_AHEAD,
    DeadLetter,
    Leased,
    Record,
    State,
    StateChange,
    StateCheck,
    Storage,
    Written,
    replace_state,
)


async def started(work: "asyncio.Task[Written]") -> bool:
    """Let a writer try; tells whether it still waits."""
    done, _ = await asyncio.wait([work], timeout=0.05)
    return not done


class TestWriting:
    async def test_what_is_written_can_be_leased(self, storage: Storage) -> None:
        """A leased record is what was written, under the id that the write told."""
        written = await storage.write([Record("shop", b"{}", 5.0)])

        assert await take(storage) == [Leased(written.ids[0], "shop", b"{}", 5.0, 0)]
        assert written.dropped == ()

    async def test_ids_follow_the_records(self, storage: Storage) -> None:
        """One write of several routes tells the ids in the order of its records, all different."""
        written = await storage.write([record("a", "x"), record("b", "y"), record("c", "x")])
        found = {each.id: each.body for each in await take(storage)}

        assert [found[key] for key in written.ids] == [b"a", b"b", b"c"]

    async def test_nothing_to_write(self, storage: Storage) -> None:
        """A write of no records succeeds and tells no ids."""
        assert await storage.write([]) == Written(())
        assert (await storage.pending()).waiting == 0

    async def test_any_bytes_and_names(self, storage: Storage) -> None:
        """Bodies and route names are kept byte by byte, whatever they contain."""
        body, route = bytes(range(256)), "röute '\"; -- \x00"
        await storage.write([Record(route, body, NOW), Record("", b"", NOW)])

        assert {(each.route, each.body) for each in await take(storage)} == {(route, body), ("", b"")}

    async def test_many_records_in_one_write(self, storage: Storage) -> None:
        """A large write is kept whole and in order."""
        names = [str(number) for number in range(1_234)]
        written = await storage.write(records(*names))

        assert len(set(written.ids)) == len(names)
        assert bodies(await take(storage, 2_000)) == names

    async def test_concurrent_writers_get_their_own_ids(self, storage: Storage) -> None:
        """Writers at the same time each get the id of their own record."""
        written = await asyncio.gather(*(storage.write([record(str(number))]) for number in range(300)))
        found = {each.id: each.body.decode() for each in await take(storage, 300)}

        assert [found[each.ids[0]] for each in written] == [str(number) for number in range(300)]

    async def test_a_cancelled_writer_harms_nobody(self, storage: Storage) -> None:
        """Writers cancelled at any moment leave a record or none, and the others are written."""
        writers = [asyncio.create_task(storage.write([record(str(number))])) for number in range(60)]
        for place, writer in enumerate(writers):
            if place % 3 == 0:
                await asyncio.sleep(0)
                writer.cancel()
        results = await asyncio.gather(*writers, return_exceptions=True)

        kept = {result.ids[0] for result in results if isinstance(result, Written)}
        assert kept <= set(ids(await take(storage)))
        assert all(isinstance(result, Written | asyncio.CancelledError) for result in results)
        assert len(kept) >= 40

    async def test_a_bad_value_fails_its_author_only(self, storage: Storage) -> None:
        """A write that can't be stored fails alone, whoever shares its commit."""
        odd = asyncio.create_task(storage.write([], [StateChange("\ud800", b"", 0)]))
        good = [asyncio.create_task(storage.write([record(str(number))])) for number in range(3)]
        await asyncio.wait([odd, *good])

        assert [len(each.result().ids) for each in good] == [1, 1, 1]
        with contextlib.suppress(UnicodeEncodeError):  # memory takes any text
            odd.result()
        assert len((await storage.write([record("after")])).ids) == 1

    async def test_a_bad_question_fails_its_author_only(self, storage: Storage) -> None:
        """A look that can't be done fails alone, and what shares its moment is done once."""
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


class TestLeasing:
    async def test_a_leased_record_is_kept_from_others(self, storage: Storage) -> None:
        """Until its lease ends nobody else gets a record."""
        await storage.write(records("a", "b", "c"))

        assert bodies(await take(storage, 2)) == ["a", "b"]
        assert bodies(await take(storage)) == ["c"]
        assert await take(storage) == []
        assert await take(storage, now=NOW + LEASE - 1) == []

    async def test_a_lease_ends(self, storage: Storage) -> None:
        """A record that was not settled in time is leased again."""
        await storage.write(records("a", "b"))
        first = await take(storage)

        assert await take(storage, now=NOW + LEASE) == first

    async def test_a_lease_is_never_longer_than_the_horizon(self, storage: Storage) -> None:
        """A very long lease ends at the horizon, and is a lease until then."""
        await storage.write(records("a"))
        await storage.lease(1, 10 * MAX_DUE_AHEAD, NOW)

        assert await take(storage, now=NOW + 1) == []
        assert bodies(await take(storage, now=NOW + MAX_DUE_AHEAD)) == ["a"]

    async def test_a_clock_set_back_freezes_nothing(self, storage: Storage) -> None:
        """A record due further ahead than the horizon is due at once: the clock was wrong when it was leased."""
        await storage.write(records("a", "b"))
        await take(storage, now=NOW + 2 * MAX_DUE_AHEAD)

        assert bodies(await take(storage, now=NOW)) == ["a", "b"]

    async def test_a_small_step_back_changes_nothing(self, storage: Storage) -> None:
        """A clock set back by less than the horizon lets leases go on."""
        await storage.write(records("a"))
        await take(storage)

        assert await take(storage, now=NOW - 60) == []

    @pytest.mark.parametrize("limit", [0, -1])
    async def test_a_limit_of_nothing(self, storage: Storage, limit: int) -> None:
        """Who asks for no records gets none."""
        await storage.write(records("a"))
        await take(storage)
        await storage.write(records("b"))

        assert await take(storage, limit, now=NOW + LEASE) == []

    async def test_an_empty_storage(self, storage: Storage) -> None:
        """Where there is nothing, a lease finds nothing."""
        assert await take(storage) == []
        assert await take(storage, only="shop") == []

    async def test_routes_take_turns(self, storage: Storage) -> None:
        """A busy route does not keep the others waiting: each comes first in its turn."""
        for route in ("x", "y", "z"):
            await storage.write(records(*"abcdef", route=route))
        firsts = [(await take(storage, 1))[0].route for _ in range(6)]

        assert sorted(firsts) == ["x", "x", "y", "y", "z", "z"]

    async def test_one_lease_covers_several_routes(self, storage: Storage) -> None:
        """What the first route leaves of the limit goes to the next."""
        await storage.write(records("a", "b", route="x"))
        await storage.write(records("c", "d", route="y"))

        assert len(await take(storage, 3)) == 3
        assert len(await take(storage, 3)) == 1

    async def test_skipped_routes_are_left_alone(self, storage: Storage) -> None:
        """A lease takes nothing from a route that it skips, fresh or returning."""
        await storage.write(records("a", "b", route="x"))
        await storage.write(records("c", route="y"))
        await take(storage, 1, only="x")

        found = await storage.lease(10, LEASE, NOW + LEASE, skip=["x"])
        assert bodies(found) == ["c"]

    async def test_only_one_route(self, storage: Storage) -> None:
        """A lease of one route takes from no other; a skipped or unknown one gives nothing."""
        await storage.write(records("a", route="x"))
        await storage.write(records("b", route="y"))

        assert await storage.lease(10, LEASE, NOW, only="y", skip=["y"]) == []
        assert await take(storage, only="nowhere") == []
        assert bodies(await take(storage, only="y")) == ["b"]
        assert bodies(await take(storage)) == ["a"]


class TestSettling:
    async def test_delivered_records_leave(self, storage: Storage) -> None:
        """A delivered record never comes back, and the settlement counts it."""
        await storage.write(records("a", "b", "c"))
        taken = await take(storage)

        assert await storage.settle(delivered(taken[0].id, taken[2].id)) == 2
        assert bodies(await take(storage, now=NOW + LEASE)) == ["b"]

    async def test_put_off_until_due(self, storage: Storage) -> None:
        """A record put off comes back when it is due, not before, with its failures."""
        await storage.write(records("a"))
        (taken,) = await take(storage)

        assert await storage.settle(later(taken.id, due=NOW + 10, failures=3)) == 0
        assert await take(storage, now=NOW + 9) == []
        (again,) = await take(storage, now=NOW + 10)
        assert (again.id, again.failures) == (taken.id, 3)

    async def test_failures_outlast_a_lease(self, storage: Storage) -> None:
        """A record whose holder died still tells its failures."""
        await storage.write(records("a"))
        (taken,) = await take(storage)
        await storage.settle(later(taken.id, due=NOW, failures=2))
        await take(storage)

        assert [each.failures for each in await take(storage, now=NOW + LEASE)] == [2]

    async def test_returning_records_come_by_due_moment(self, storage: Storage) -> None:
        """Of the records put off, those due first come first, and all of them before fresh ones."""
        await storage.write(records("a", "b"))
        one, two = await take(storage)
        await storage.write(records("c"))
        await storage.settle([*later(one.id, due=NOW + 2), *later(two.id, due=NOW + 1)])

        assert bodies(await take(storage, now=NOW + 5)) == ["b", "a", "c"]

    async def test_dead_records_become_letters(self, storage: Storage) -> None:
        """A dead record leaves the queue and is kept with its reason."""
        await storage.write([record("a", at=5.0)])
        (taken,) = await take(storage)

        assert await storage.settle(dead(taken.id, reason="no such event")) == 1
        assert await take(storage, now=NOW + LEASE) == []
        (letter,) = await storage.dead(10)
        assert letter == DeadLetter(taken.id, "shop", b"a", 5.0, letter.died_at, "no such event")
        assert letter.died_at > NOW - 365 * 86_400

    async def test_all_verdicts_in_one_settlement(self, storage: Storage) -> None:
        """Different verdicts for the records of one batch each reach their own."""
        await storage.write(records("a", "b", "c"))
        one, two, three = ids(await take(storage))

        assert await storage.settle([*delivered(one), *later(two, due=NOW), *dead(three)]) == 2
        assert bodies(await take(storage)) == ["b"]
        assert bodies(await storage.dead(10)) == ["c"]

    async def test_a_large_settlement(self, storage: Storage) -> None:
        """Thousands of records with gaps between them can be settled at once, with each verdict."""
        await storage.write(records(*map(str, range(3_300))))
        keys = ids(await take(storage, 3_300))

        verdicts = [*delivered(*keys[0::3]), *dead(*keys[1::3]), *later(*keys[2::3], due=NOW)]
        assert await storage.settle(verdicts) == 2_200
        assert ids(await take(storage, 3_300)) == keys[2::3]

    async def test_unknown_ids_are_passed_over(self, storage: Storage) -> None:
        """Ids that were settled before, never given out, or are no ids, change nothing."""
        await storage.write(records("a", "b"))
        one, two = ids(await take(storage))
        await storage.settle(delivered(one))

        for verdict in (delivered, dead):
            assert await storage.settle(verdict(one, "1", "1.77", "99999999999999999999", "no id", "", "-1")) == 0
        await storage.settle(later(one, "x", due=NOW))
        assert await storage.dead(10) == []
        assert await storage.settle(delivered(two, two, one)) == 1

    async def test_untouched_records_can_not_be_settled(self, storage: Storage) -> None:
        """A record that nobody has leased stays, whatever a settlement says."""
        written = await storage.write(records("a", "b", "c"))

        assert await storage.settle([*delivered(written.ids[1]), *dead(written.ids[2])]) == 0
        assert await storage.settle(later(written.ids[0], due=NOW + 50)) == 0
        assert (await storage.pending()).waiting == 3
        assert bodies(await take(storage)) == ["a", "b", "c"]

    async def test_nothing_to_settle(self, storage: Storage) -> None:
        """A settlement of nothing is none."""
        assert await storage.settle([]) == 0
        assert await storage.settle(delivered()) == 0


class TestLooking:
    async def test_fates(self, storage: Storage) -> None:
        """A record is queued until it is delivered, when it is gone, or dead, when its reason is told."""
        written = await storage.write(records("a", "b", "c", "d"))
        one, two, three, _ = written.ids
        await take(storage, 3)
        await storage.settle([*delivered(one), *dead(two, reason="too old")])

        fates = await storage.find([*written.ids, "nonsense", "1"])
        assert fates == {two: "too old", three: "queued", written.ids[3]: "queued"}
        assert await storage.find([]) == {}

    async def test_pending_counts_everything(self, storage: Storage) -> None:
        """The count tells waiting, taken and dead records, and the waiting ones by route."""
        await storage.write(records("a", "b", "c", route="x"))
        await storage.write(records("d", route="y"))
        taken = await take(storage, 2, only="x")
        await storage.settle(dead(taken[0].id))

        count = await storage.pending()
        assert (count.waiting, count.leased, count.dead) == (3, 1, 1)
        assert count.routes == {"x": 2, "y": 1}

    async def test_pending_of_nothing(self, storage: Storage) -> None:
        """An empty storage counts nothing."""
        count = await storage.pending()
        assert (count.waiting, count.leased, count.dead, dict(count.routes)) == (0, 0, 0, {})

    async def test_waiting_shows_without_taking(self, storage: Storage) -> None:
        """The oldest records of all routes are shown by age, leased or not, and stay as they are."""
        await storage.write([record("b", "y", at=2.0), record("c", "x", at=3.0), record("a", "z", at=1.0)])
        await take(storage, 1, only="y")

        assert bodies(await storage.waiting(10)) == ["a", "b", "c"]
        assert bodies(await storage.waiting(2)) == ["a", "b"]
        assert (await storage.pending()).leased == 1

    async def test_the_newest_letters_come_first(self, storage: Storage) -> None:
        """Dead letters are shown newest first, as many as asked for."""
        for name in "abc":
            await bury(storage, name)

        assert bodies(await storage.dead(2)) == ["c", "b"]
        assert await storage.dead(0) == []

    async def test_a_mark_counts_down(self, storage: Storage) -> None:
        """What was written before a mark remains until it is delivered or dead; later writes don't count."""
        await storage.write(records("a", "b", "c"))
        watermark = await storage.watermark()
        await storage.write(records("d", "e"))

        assert await storage.remaining(watermark) == 3
        one, two, *rest = ids(await take(storage))
        assert await storage.remaining(watermark) == 3
        await storage.settle([*delivered(one), *dead(two), *delivered(rest[-1])])
        assert await storage.remaining(watermark) == 1
        await storage.settle(delivered(*rest))
        assert await storage.remaining(watermark) == 0

    async def test_a_mark_leaves_routes_out(self, storage: Storage) -> None:
        """Skipped routes and routes made after the mark don't count."""
        await storage.write(records("a", route="x"))
        await storage.write(records("b", "c", route="y"))
        watermark = await storage.watermark()
        await storage.write(records("d", route="z"))

        assert await storage.remaining(watermark) == 3
        assert await storage.remaining(watermark, skip=["y", "nowhere"]) == 1
        assert await storage.remaining({}) == 0

    async def test_a_mark_outlives_a_wipe(self, storage: Storage) -> None:
        """After a wipe nothing of a mark remains, whatever is written then."""
        await storage.write(records("a", "b"))
        watermark = await storage.watermark()
        await storage.wipe()
        await storage.write(records("c"))

        assert await storage.remaining(watermark) == 0


class TestRepair:
    async def test_revived_under_their_old_ids(self, storage: Storage) -> None:
        """Revived letters are due at once, under their ids, with no failures, and no letters any more."""
        keys = await bury(storage, "a", "b")

        assert await storage.revive() == 2
        again = await take(storage)
        assert ids(again) == keys
        assert [(each.body, each.failures) for each in again] == [(b"a", 0), (b"b", 0)]
        assert await storage.dead(10) == []

    async def test_some_are_revived(self, storage: Storage) -> None:
        """Only the named letters are revived, each once; ids of others are passed over."""
        one, two = await bury(storage, "a", "b")
        queued = (await storage.write(records("c"))).ids[0]

        assert await storage.revive([two, two, queued, "nonsense"]) == 1
        assert await storage.revive([two]) == 0
        assert ids(await storage.dead(10)) == (one,)
        assert sorted(bodies(await take(storage))) == ["b", "c"]

    async def test_revived_records_can_die_again(self, storage: Storage) -> None:
        """A revived record that is refused again is a letter again, with its new reason."""
        keys = await bury(storage, "a", reason="first")
        await storage.revive()
        await take(storage)
        await storage.settle(dead(*keys, reason="second"))

        assert [each.reason for each in await storage.dead(10)] == ["second"]
        assert await storage.find(keys) == {keys[0]: "second"}

    async def test_purged_for_good(self, storage: Storage) -> None:
        """Purged letters are gone: the named ones, or all."""
        one, _, _ = await bury(storage, "a", "b", "c")

        assert await storage.purge([one, one, "nonsense"]) == 1
        assert await storage.purge() == 2
        assert await storage.purge() == 0
        assert await storage.revive() == 0
        assert (await storage.pending()).dead == 0

    async def test_no_ids_are_not_all_ids(self, storage: Storage) -> None:
        """An empty choice of letters chooses none."""
        await bury(storage, "a")

        assert await storage.purge([]) == 0
        assert await storage.revive(iter(())) == 0
        assert (await storage.pending()).dead == 1


class TestStates:
    async def test_create_change_delete(self, storage: Storage) -> None:
        """A state's version rises by one with each change; deleted, it is gone."""
        await storage.write([], [StateChange("k", b"one", 0)])
        assert await storage.load_state("k") == State(b"one", 1)
        await storage.write([], [StateChange("k", b"two", 1)])
        assert await storage.load_state("k") == State(b"two", 2)
        await storage.write([], [StateChange("k", None, 2)])
        assert await storage.load_state("k") is None

    async def test_an_unknown_key(self, storage: Storage) -> None:
        """What was never remembered is None, and deleting it does nothing."""
        await storage.write([], [StateChange("k", None, 0)])
        assert await storage.load_state("k") is None

    @pytest.mark.parametrize("version", [0, 1, 3])
    @pytest.mark.parametrize("value", [b"mine", None])
    async def test_a_conflict_writes_nothing(self, storage: Storage, version: int, value: bytes | None) -> None:
        """A change of another version fails, names the key, and neither its records nor its other changes are kept."""
        await storage.write([], [StateChange("k", b"one", 0)])
        await storage.write([], [StateChange("k", b"two", 1)])

        changes = [StateChange("other", b"x", 0), StateChange("k", value, version)]
        with pytest.raises(StateConflictError, match="'k'") as caught:
            await storage.write(records("a"), changes)
        assert caught.value.key == "k"
        assert (await storage.pending()).waiting == 0
        assert await storage.load_state("other") is None
        assert await storage.load_state("k") == State(b"two", 2)

    async def test_of_two_at_once_one_wins(self, storage: Storage) -> None:
        """Of several changes of one version at the same time just one is made, with its records."""
        writes = (storage.write([record(str(n))], [StateChange("k", str(n).encode(), 0)]) for n in range(20))
        results = await asyncio.gather(*writes, return_exceptions=True)

        assert sum(isinstance(result, StateConflictError) for result in results) == 19
        state = await storage.load_state("k")
        assert state is not None
        assert bodies(await take(storage)) == [state.value.decode()]

    async def test_losers_get_errors_of_their_own(self, storage: Storage) -> None:
        """No two callers are handed the same error object."""
        writes = (storage.write([], [StateCheck("k", 7)]) for _ in range(5))
        results = await asyncio.gather(*writes, return_exceptions=True)

        assert len(set(map(id, results))) == 5

    async def test_a_check_that_holds(self, storage: Storage) -> None:
        """A record is kept if the state still has the version; the check changes nothing."""
        await storage.write(records("a"), [StateCheck("k", 0)])
        await storage.write([], [StateChange("k", b"one", 0)])
        await storage.write(records("b"), [StateCheck("k", 1), StateCheck("none", 0)])

        assert bodies(await take(storage)) == ["a", "b"]
        assert await storage.load_state("k") == State(b"one", 1)

    @pytest.mark.parametrize("version", [0, 2])
    async def test_a_check_that_fails(self, storage: Storage, version: int) -> None:
        """A record is refused if the state has another version, or is there when it should not be."""
        await storage.write([], [StateChange("k", b"one", 0)])

        with pytest.raises(StateConflictError):
            await storage.write(records("a"), [StateChange("other", b"x", 0), StateCheck("k", version)])
        assert (await storage.pending()).waiting == 0
        assert await storage.load_state("other") is None

    async def test_checks_see_the_changes_before_them(self, storage: Storage) -> None:
        """Among writes at the same time a check holds until the change, and no longer."""
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
        assert bodies(await take(storage)) == ["a", "b", "d", "e"]

    @pytest.mark.parametrize("wiped", [False, True])
    async def test_a_new_state_is_not_the_old_one(self, storage: Storage, *, wiped: bool) -> None:
        """Who knew a state that was deleted or wiped is not fooled by a new one under its key."""
        await storage.write([], [StateChange("k", b"old", 0)])
        await (storage.wipe() if wiped else storage.write([], [StateChange("k", None, 1)]))
        await storage.write([], [StateChange("k", b"new", 0)])

        with pytest.raises(StateConflictError):
            await storage.write(records("a"), [StateCheck("k", 1)])
        state = await storage.load_state("k")
        assert state is not None
        await storage.write([], [StateChange("k", b"newer", state.version)])
        assert await storage.load_state("k") == State(b"newer", state.version + 1)

    async def test_replacing_a_value(self, storage: Storage) -> None:
        """A replaced value is stored whatever was there; the same value again is not written, and None deletes."""
        for value, version in ((b"one", 1), (b"two", 2), (b"two", 2)):
            await replace_state(storage, "k", value)
            assert await storage.load_state("k") == State(value, version)
        before = storage.commits
        await replace_state(storage, "other", None)
        assert storage.commits == before

        await replace_state(storage, "k", None)
        assert await storage.load_state("k") is None

    async def test_replacing_at_once(self, storage: Storage) -> None:
        """Callers that replace one value at the same time all succeed, and one of their values is stored."""
        values = [str(n).encode() for n in range(20)]
        await asyncio.gather(*(replace_state(storage, "k", value) for value in values))

        state = await storage.load_state("k")
        assert state is not None
        assert state.value in values


class TestFullRaises:
    async def test_a_full_queue_refuses(self, make_storage: MakeStorage) -> None:
        """A write without room for all its records is refused whole; one that fits is kept."""
        storage = await make_storage(3)
        await storage.write(records("a", "b"))

        with pytest.raises(QueueFullError, match="may hold 3 records"):
            await storage.write(records("c", "d"))
        await storage.write(records("e"))
        assert bodies(await take(storage)) == ["a", "b", "e"]

    async def test_a_refused_write_changes_no_state(self, make_storage: MakeStorage) -> None:
        """A write refused for want of room leaves its states unchanged."""
        storage = await make_storage(1)
        with pytest.raises(QueueFullError):
            await storage.write(records("a", "b"), [StateChange("k", b"", 0)])

        assert await storage.load_state("k") is None

    async def test_states_need_no_room(self, make_storage: MakeStorage) -> None:
        """A full queue still takes states."""
        storage = await make_storage(1)
        await storage.write(records("a"), [StateChange("k", b"", 0)])
        await storage.write([], [StateChange("k", b"new", 1)])

        assert await storage.load_state("k") == State(b"new", 2)

    async def test_leased_records_take_room(self, make_storage: MakeStorage) -> None:
        """Records in somebody's hands count; delivered and dead ones don't."""
        storage = await make_storage(2)
        await storage.write(records("a", "b"))
        one, two = ids(await take(storage))
        with pytest.raises(QueueFullError):
            await storage.write(records("c"))

        await storage.settle([*delivered(one), *dead(two)])
        await storage.write(records("c", "d"))
        assert (await storage.pending()).waiting == 2

    async def test_revived_records_take_room(self, make_storage: MakeStorage) -> None:
        """More may be revived than there is room for, and then nothing else comes in."""
        storage = await make_storage(2)
        await bury(storage, "a", "b")
        await storage.write(records("c"))

        assert await storage.revive() == 2
        with pytest.raises(QueueFullError):
            await storage.write(records("d"))
        assert await storage.write([], [StateChange("k", b"", 0)]) == Written(())

    async def test_writers_at_once_share_the_room(self, make_storage: MakeStorage) -> None:
        """Of many writers at the same time exactly those are kept for whom there is room."""
        storage = await make_storage(10)
        writes = (storage.write([record(str(number))]) for number in range(25))
        results = await asyncio.gather(*writes, return_exceptions=True)

        assert sum(isinstance(result, Written) for result in results) == 10
        assert sum(isinstance(result, QueueFullError) for result in results) == 15


class TestFullWaits:
    async def test_a_writer_waits_for_room(self, make_storage: MakeStorage) -> None:
        """A write without room returns when a settlement has made some."""
        storage = await make_storage(2, "wait")
        await storage.write(records("a", "b"))
        writer = asyncio.create_task(storage.write(records("c")))
        assert await started(writer)

        await storage.settle(delivered(*ids(await take(storage))))
        assert len((await writer).ids) == 1
        assert bodies(await take(storage)) == ["c"]

    async def test_in_the_order_of_their_coming(self, make_storage: MakeStorage) -> None:
        """Writers get room in order, and a small one does not overtake a large one."""
        storage = await make_storage(2, "wait")
        await storage.write(records("a"))
        held = await take(storage)
        large = asyncio.create_task(storage.write(records("b", "c")))
        small = [asyncio.create_task(storage.write(records(name))) for name in "de"]
        assert await started(small[1])

        await storage.settle(delivered(*ids(held)))
        await large
        taken = await take(storage)
        assert bodies(taken) == ["b", "c"]
        await storage.settle(delivered(*ids(taken)))
        await asyncio.gather(*small)
        assert bodies(await take(storage)) == ["d", "e"]

    async def test_a_cancelled_waiter_is_forgotten(self, make_storage: MakeStorage) -> None:
        """A writer that gives up waiting leaves nothing, and does not block those behind it."""
        storage = await make_storage(1, "wait")
        await storage.write(records("a"))
        impatient = asyncio.create_task(storage.write(records("b")))
        patient = asyncio.create_task(storage.write(records("c")))
        assert await started(patient)

        impatient.cancel()
        await asyncio.wait([impatient])
        await storage.settle(delivered(*ids(await take(storage))))
        await patient
        assert bodies(await take(storage)) == ["c"]

    async def test_other_calls_go_on(self, make_storage: MakeStorage) -> None:
        """While a writer waits, states are written and the queue can be looked at."""
        storage = await make_storage(1, "wait")
        await storage.write(records("a"))
        writer = asyncio.create_task(storage.write(records("b"), [StateCheck("k", 0)]))
        assert await started(writer)

        await storage.write([], [StateChange("k", b"", 0)])
        assert (await storage.pending()).waiting == 1
        await storage.settle(delivered(*ids(await take(storage))))
        with pytest.raises(StateConflictError):
            await writer

    async def test_a_conflict_does_not_wait(self, make_storage: MakeStorage) -> None:
        """A write whose state has changed fails at once, room or not."""
        storage = await make_storage(1, "wait")
        await storage.write(records("a"))

        with pytest.raises(StateConflictError):
            await storage.write(records("b"), [StateCheck("k", 5)])

    async def test_more_than_there_can_be(self, make_storage: MakeStorage) -> None:
        """A write larger than the queue can ever hold is refused, not left to wait for ever."""
        storage = await make_storage(2, "wait")
        with pytest.raises(QueueFullError):
            await storage.write(records("a", "b", "c"))

    async def test_closing_ends_the_wait(self, make_storage: MakeStorage) -> None:
        """Who waits for room when the storage is closed gets an error, and their records are not kept."""
        storage = await make_storage(1, "wait")
        await storage.write(records("a"))
        writers = [asyncio.create_task(storage.write(records(name))) for name in "bcd"]
        assert await started(writers[-1])

        await storage.aclose()
        results = await asyncio.gather(*writers, return_exceptions=True)
        assert [type(result) for result in results] == [StorageError] * 3

    async def test_a_wipe_makes_room(self, make_storage: MakeStorage) -> None:
        """Writers that wait are written once the queue was wiped."""
        storage = await make_storage(1, "wait")
        await storage.write(records("a"))
        writer = asyncio.create_task(storage.write(records("b")))
        assert await started(writer)

        await storage.wipe()
        await writer
        assert bodies(await take(storage)) == ["b"]

    async def test_many_wait(self, make_storage: MakeStorage) -> None:
        """However many wait, all are written in the end, each once and in order."""
        storage = await make_storage(7, "wait")
        writers = [asyncio.create_task(storage.write(records(str(number)))) for number in range(700)]
        seen: list[str] = []
        while len(seen) < 700:
            taken = await take(storage)
            await storage.settle(delivered(*ids(taken)))
            seen += bodies(taken)
            await asyncio.sleep(0)

        await asyncio.gather(*writers)
        assert seen == [str(number) for number in range(700)]


class TestFullDrops:
    async def test_the_oldest_make_room(self, make_storage: MakeStorage) -> None:
        """A write without room takes the place of the oldest records, whatever their route, and tells their ids."""
        storage = await make_storage(3, "drop_oldest")
        old = await storage.write([record("a", "x", at=1.0), record("b", "y", at=2.0), record("c", "x", at=3.0)])

        written = await storage.write([record("d", "y", at=4.0), record("e", "z", at=5.0)])
        assert written.dropped == old.ids[:2]
        assert bodies(await storage.waiting(10)) == ["c", "d", "e"]
        assert await storage.find(old.ids[:2]) == {}
        assert sorted(bodies(await take(storage))) == ["c", "d", "e"]

    async def test_records_in_hand_are_dropped_last(self, make_storage: MakeStorage) -> None:
        """Untouched records make room first; leased ones, oldest first, only when no others are left."""
        storage = await make_storage(3, "drop_oldest")
        old = await storage.write([record("a", at=1.0), record("b", at=2.0), record("c", at=3.0)])
        await take(storage, 2)

        first = await storage.write([record("d", at=4.0)])
        assert first.dropped == old.ids[2:]
        second = await storage.write([record("e", at=5.0), record("f", at=6.0)])
        assert second.dropped == (*first.ids, old.ids[0])
        assert bodies(await storage.waiting(10)) == ["b", "e", "f"]

    async def test_what_a_holder_lost_can_be_settled(self, make_storage: MakeStorage) -> None:
        """A settlement of records that were dropped meanwhile changes nothing."""
        storage = await make_storage(1, "drop_oldest")
        await storage.write(records("a"))
        held = await take(storage)
        await storage.write(records("b"))

        assert await storage.settle(delivered(*ids(held))) == 0
        assert bodies(await take(storage)) == ["b"]

    async def test_a_refused_write_drops_nothing(self, make_storage: MakeStorage) -> None:
        """A conflict, and a write larger than the queue, leave the old records where they are."""
        storage = await make_storage(2, "drop_oldest")
        await storage.write(records("a", "b"))

        with pytest.raises(StateConflictError):
            await storage.write(records("c"), [StateCheck("k", 1)])
        with pytest.raises(QueueFullError):
            await storage.write(records("c", "d", "e"))
        assert bodies(await take(storage)) == ["a", "b"]

    async def test_letters_are_not_dropped(self, make_storage: MakeStorage) -> None:
        """Dead letters neither take room nor make it."""
        storage = await make_storage(1, "drop_oldest")
        await bury(storage, "a")

        assert (await storage.write(records("b"))).dropped == ()
        assert len((await storage.write(records("c"))).dropped) == 1
        assert bodies(await storage.dead(10)) == ["a"]

    async def test_writers_at_once(self, make_storage: MakeStorage) -> None:
        """However many write at once, the queue keeps its size, and each record is either there or told dropped."""
        storage = await make_storage(10, "drop_oldest")
        written = await asyncio.gather(*(storage.write(records(str(number), "+")) for number in range(40)))

        given = [key for each in written for key in each.ids]
        dropped = [key for each in written for key in each.dropped]
        left = ids(await take(storage))
        assert len(left) == 10
        assert sorted([*dropped, *left]) == sorted(given)

    async def test_a_mark_forgets_the_dropped(self, make_storage: MakeStorage) -> None:
        """Dropped records do not remain at a mark."""
        storage = await make_storage(3, "drop_oldest")
        await storage.write(records("a", "b", "c"))
        await take(storage, 1)
        watermark = await storage.watermark()
        await storage.write(records("d"))

        assert await storage.remaining(watermark) == 2


class TestWiping:
    async def test_everything_is_gone(self, storage: Storage) -> None:
        """Records, leases, letters and states are gone, and old ids mean nothing."""
        keys = await bury(storage, "a")
        written = await storage.write(records("b", "c"), [StateChange("k", b"", 0)])
        await take(storage, 1)
        await storage.wipe()

        count = await storage.pending()
        assert (count.waiting, count.leased, count.dead, dict(count.routes)) == (0, 0, 0, {})
        assert await storage.load_state("k") is None
        assert await storage.find([*keys, *written.ids]) == {}
        assert await take(storage, now=NOW + LEASE) == []
        assert await storage.watermark() == {}

    async def test_it_can_be_used_on(self, storage: Storage) -> None:
        """After a wipe the storage works, and never gives an id a second time."""
        before: set[str] = set()
        for _ in range(3):
            before.update((await storage.write(records(*map(str, range(2_000))))).ids)
            await storage.wipe()
        written = await storage.write(records("b"))

        assert before.isdisjoint(written.ids)
        assert await storage.settle(delivered(*before)) == 0
        assert bodies(await take(storage)) == ["b"]


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
    lambda storage: storage.load_state("k"),
    lambda storage: storage.expired_sessions(NOW, 1),
    lambda storage: storage.wipe(),
)


class TestLife:
    @pytest.mark.parametrize("call", CALLS)
    async def test_use_before_open(self, backend: Callable[..., Storage], call: Callable[[Storage], object]) -> None:
        """Before it is open, a storage refuses everything."""
        work = call(backend())
        assert asyncio.iscoroutine(work)
        with pytest.raises(StorageError, match="closed"):
            await work

    @pytest.mark.parametrize("call", CALLS)
    async def test_use_after_close(self, storage: Storage, call: Callable[[Storage], object]) -> None:
        """Once closed, a storage refuses everything."""
        await storage.aclose()
        work = call(storage)
        assert asyncio.iscoroutine(work)
        with pytest.raises(StorageError, match="closed"):
            await work

    async def test_closing_twice(self, backend: Callable[..., Storage]) -> None:
        """A storage can be closed again and again, at once and before it was ever opened."""
        storage = backend()
        await storage.aclose()
        await storage.open()
        await asyncio.gather(storage.aclose(), storage.aclose())
        await storage.aclose()

    async def test_it_can_be_opened_again(self, storage: Storage) -> None:
        """A closed storage can be opened again and used."""
        await storage.aclose()
        await storage.open()

        await storage.write(records("a"))
        assert bodies(await take(storage)) == ["a"]

    async def test_closing_finishes_what_was_begun(self, storage: Storage) -> None:
        """Writers that came before the closing are all written."""
        writers = [asyncio.create_task(storage.write([record(str(number))])) for number in range(50)]
        await asyncio.sleep(0)
        await storage.aclose()

        assert len({(await writer).ids for writer in writers}) == 50

    async def test_who_gives_up_closing_breaks_nothing(self, storage: Storage) -> None:
        """A closing that is cancelled can be repeated, and what was being written is written."""
        writer = asyncio.create_task(storage.write(records("a")))
        await asyncio.sleep(0)
        closing = asyncio.create_task(storage.aclose())
        await asyncio.sleep(0)
        closing.cancel()
        await asyncio.wait([closing])
        await storage.aclose()

        assert len((await writer).ids) == 1

    async def test_commits_are_counted(self, storage: Storage) -> None:
        """Each write and settlement that nobody else shares is one commit; looking is none."""
        before = storage.commits
        await storage.write(records("a"))
        assert storage.commits == before + 1
        await storage.pending()
        await storage.find(["1"])
        assert storage.commits == before + 1
        await storage.settle(delivered("1"))
        assert storage.commits == before + 2
