"""
The behavior that all backends share.
"""

import asyncio
import contextlib
import time
from collections.abc import Callable, Sequence

import pytest
from helpers.environment import SetConstants
from helpers.storages import (
    LEASE,
    NOW,
    MakeStorage,
    bodies,
    dead,
    delivered,
    ids,
    later,
    lease,
    record,
    records,
    write_dead,
)

from exponea_async.errors import QueueFullError, StateConflictError, StorageError
from exponea_async.storage.base import (
    DELETED_LETTER,
    MAX_DUE_AHEAD,
    DeadLetter,
    Leased,
    Record,
    RecordStatus,
    Settlement,
    State,
    StateChange,
    StateCheck,
    Storage,
    Written,
    replace_state,
)
from exponea_async.storage.erasure import Erased, Erasure


async def started(work: "asyncio.Task[Written]") -> bool:
    """Let a writer try; return whether it still waits."""
    done, _ = await asyncio.wait([work], timeout=0.05)
    return not done


class TestWriting:
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
        assert storage.number == first + 1

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
        with contextlib.suppress(UnicodeEncodeError):  # the storage in memory accepts any string
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


class TestRoutes:
    async def test_records_keep_their_ids(self, storage: Storage) -> None:
        """A route is renamed with all its records and dead letters, also to one that has records already."""
        first = await storage.write(records("a", "b", "c", route="old"))
        await storage.settle(dead(*ids(await lease(storage, 1))))
        second = await storage.write(records("d", route="new"))
        watermark = await storage.watermark()
        await storage.rename_route("old", "new")
        third = await storage.write(records("e", route="new"))

        assert (await storage.pending()).routes == {"new": 4}
        assert [each.route for each in await storage.dead(9)] == ["new"]
        assert await storage.remaining(watermark) == 3
        assert await storage.remaining(watermark, skip=["new"]) == 0
        assert len({*first.ids, *second.ids, *third.ids}) == 5
        assert await storage.revive() == 1
        leased = await lease(storage, only="new")
        assert {each.id for each in leased} == {*first.ids, *second.ids, *third.ids}
        assert {each.route for each in leased} == {"new"}
        assert await storage.settle(delivered(*ids(leased))) == 5

    async def test_leased_records_are_settled_after_the_renaming(self, storage: Storage) -> None:
        """The caller that leased a record before its route was renamed can settle it."""
        await storage.write(records("a", "b", route="old"))
        (leased,) = await lease(storage, 1)
        await storage.rename_route("old", "new")

        assert await storage.settle(delivered(leased.id)) == 1
        assert bodies(await lease(storage)) == ["b"]

    async def test_dropping(self, storage: Storage) -> None:
        """The records of some routes are deleted, leased or not, and those of others stay."""
        dropped = await storage.write(records("a", "b", "c", route="x"))
        await storage.write(records("d", route="y"))
        leased = await lease(storage, 1, only="x")
        await write_dead(storage, "dead", route="z")

        assert await storage.drop_waiting(["x", "z", "nowhere"]) == 3
        assert (await storage.pending()).waiting == 1
        assert len(await storage.dead(9)) == 1
        assert await storage.settle(delivered(*ids(leased))) == 0
        assert {each.kind for each in (await storage.find(dropped.ids[1:])).values()} == {"dropped"}
        again = await storage.write(records("e", route="x"))
        assert set(again.ids).isdisjoint(dropped.ids)
        assert sorted(bodies(await lease(storage))) == ["d", "e"]

    async def test_dropping_makes_room(self, make_storage: MakeStorage) -> None:
        """A write that waits for capacity is made when records are dropped."""
        storage = await make_storage(max_records=2, when_full="wait")
        await storage.write(records("a", "b", route="x"))
        writer = asyncio.create_task(storage.write(records("c", route="y")))
        await asyncio.sleep(0)
        await storage.drop_waiting(["x"])

        assert len((await asyncio.wait_for(writer, 10)).ids) == 1

    async def test_what_happens_to_waiting_records(self, storage: Storage) -> None:
        """A record is untouched, leased, or delayed with a reason."""
        await storage.write(records("a", "b", "c"))
        _, second = await lease(storage, 2)
        await storage.settle([Settlement((second.id,), "later", due=NOW + 50.0, failures=1, reason="HTTP 503")])
        waiting = {each.body: each for each in await storage.waiting(9)}

        assert [each.is_leased(NOW) for each in waiting.values()] == [True, False, False]
        assert (waiting[b"b"].due, waiting[b"b"].reason, waiting[b"b"].failures) == (NOW + 50.0, "HTTP 503", 1)
        assert waiting[b"c"].due == 0.0
        again = await lease(storage, 9, now=NOW + 55.0)
        assert ids(again) == (second.id, *[each.id for each in waiting.values() if each.body == b"c"])
        assert (await storage.waiting(9))[1].is_leased(NOW + 56.0)


class TestLeasing:
    async def test_a_leased_record_is_not_leased_again(self, storage: Storage) -> None:
        """Until its lease ends no other caller gets a record."""
        await storage.write(records("a", "b", "c"))

        assert bodies(await lease(storage, 2)) == ["a", "b"]
        assert bodies(await lease(storage)) == ["c"]
        assert await lease(storage) == []
        assert await lease(storage, now=NOW + LEASE - 1) == []

    async def test_a_lease_ends(self, storage: Storage) -> None:
        """A record that was not settled in time is leased again."""
        await storage.write(records("a", "b"))
        first = await lease(storage)

        assert await lease(storage, now=NOW + LEASE) == first

    async def test_the_length_of_a_lease_is_limited(self, storage: Storage) -> None:
        """A very long lease ends after `MAX_DUE_AHEAD`, and lasts until then."""
        await storage.write(records("a"))
        await storage.lease(1, 10 * MAX_DUE_AHEAD, NOW)

        assert await lease(storage, now=NOW + 1) == []
        assert bodies(await lease(storage, now=NOW + MAX_DUE_AHEAD)) == ["a"]

    async def test_a_clock_that_was_set_back(self, storage: Storage) -> None:
        """A record due later than `MAX_DUE_AHEAD` is due at once: the clock was wrong when it was leased."""
        await storage.write(records("a", "b"))
        await lease(storage, now=NOW + 2 * MAX_DUE_AHEAD)

        assert bodies(await lease(storage, now=NOW)) == ["a", "b"]

    async def test_a_clock_that_was_set_back_a_little(self, storage: Storage) -> None:
        """A clock set back by less than `MAX_DUE_AHEAD` ends no lease."""
        await storage.write(records("a"))
        await lease(storage)

        assert await lease(storage, now=NOW - 60) == []

    @pytest.mark.parametrize("limit", [0, -1])
    async def test_a_limit_of_zero_or_less(self, storage: Storage, limit: int) -> None:
        """A lease of no records returns none."""
        await storage.write(records("a"))
        await lease(storage)
        await storage.write(records("b"))

        assert await lease(storage, limit, now=NOW + LEASE) == []

    async def test_an_empty_storage(self, storage: Storage) -> None:
        """A lease from an empty storage returns nothing."""
        assert await lease(storage) == []
        assert await lease(storage, only="shop") == []

    async def test_routes_take_turns(self, storage: Storage) -> None:
        """A busy route does not starve the others: each comes first in its turn."""
        for route in ("x", "y", "z"):
            await storage.write(records(*"abcdef", route=route))
        firsts = [(await lease(storage, 1))[0].route for _ in range(6)]

        assert sorted(firsts) == ["x", "x", "y", "y", "z", "z"]

    async def test_one_lease_covers_several_routes(self, storage: Storage) -> None:
        """What the first route leaves of the limit goes to the next."""
        await storage.write(records("a", "b", route="x"))
        await storage.write(records("c", "d", route="y"))

        assert len(await lease(storage, 3)) == 3
        assert len(await lease(storage, 3)) == 1

    async def test_skipped_routes(self, storage: Storage) -> None:
        """A lease returns nothing from a route that it skips, leased before or not."""
        await storage.write(records("a", "b", route="x"))
        await storage.write(records("c", route="y"))
        await lease(storage, 1, only="x")

        found = await storage.lease(10, LEASE, NOW + LEASE, skip=["x"])
        assert bodies(found) == ["c"]

    async def test_only_one_route(self, storage: Storage) -> None:
        """A lease of one route returns nothing from others; a skipped or unknown one has nothing."""
        await storage.write(records("a", route="x"))
        await storage.write(records("b", route="y"))

        assert await storage.lease(10, LEASE, NOW, only="y", skip=["y"]) == []
        assert await lease(storage, only="nowhere") == []
        assert bodies(await lease(storage, only="y")) == ["b"]
        assert bodies(await lease(storage)) == ["a"]


class TestSettling:
    async def test_delivered_records_leave_the_queue(self, storage: Storage) -> None:
        """A delivered record never comes back, and the settlement counts it."""
        await storage.write(records("a", "b", "c"))
        leased = await lease(storage)

        assert await storage.settle(delivered(leased[0].id, leased[2].id)) == 2
        assert bodies(await lease(storage, now=NOW + LEASE)) == ["b"]

    async def test_delayed_until_due(self, storage: Storage) -> None:
        """A delayed record comes back when it is due, not before, with its failures."""
        await storage.write(records("a"))
        (leased,) = await lease(storage)

        assert await storage.settle(later(leased.id, due=NOW + 10, failures=3)) == 0
        assert await lease(storage, now=NOW + 9) == []
        (again,) = await lease(storage, now=NOW + 10)
        assert (again.id, again.failures) == (leased.id, 3)

    async def test_failures_outlast_a_lease(self, storage: Storage) -> None:
        """A record whose lease ended without a settlement still has its failures."""
        await storage.write(records("a"))
        (leased,) = await lease(storage)
        await storage.settle(later(leased.id, due=NOW, failures=2))
        await lease(storage)

        assert [each.failures for each in await lease(storage, now=NOW + LEASE)] == [2]

    async def test_returning_records_are_ordered_by_due_time(self, storage: Storage) -> None:
        """Delayed records come in the order of their due times, and all of them before untouched ones."""
        await storage.write(records("a", "b"))
        one, two = await lease(storage)
        await storage.write(records("c"))
        await storage.settle([*later(one.id, due=NOW + 2), *later(two.id, due=NOW + 1)])

        assert bodies(await lease(storage, now=NOW + 5)) == ["b", "a", "c"]

    async def test_untouched_records_may_come_first(self, storage: Storage) -> None:
        """On request, records that were never leased come before those that were."""
        await storage.write(records("a", "b"))
        await storage.settle(later(*ids(await lease(storage)), due=NOW))
        await storage.write(records("c", "d"))

        some = await storage.lease(1, LEASE, NOW + 1, untouched_first=True)
        rest = await storage.lease(2, LEASE, NOW + 1, only="shop", untouched_first=True)
        assert (bodies(some), bodies(rest)) == (["c"], ["d", "a"])
        assert bodies(await storage.lease(9, LEASE, NOW + 1, untouched_first=True)) == ["b"]
        assert (await storage.pending()).waiting == 4

    async def test_dead_records_become_dead_letters(self, storage: Storage) -> None:
        """A dead record leaves the queue and is stored with its reason."""
        await storage.write([record("a", at=5.0)])
        (leased,) = await lease(storage)

        assert await storage.settle(dead(leased.id, reason="no such event")) == 1
        assert await lease(storage, now=NOW + LEASE) == []
        (letter,) = await storage.dead(10)
        assert letter == DeadLetter(leased.id, "shop", b"a", 5.0, letter.died_at, "no such event")
        assert letter.died_at > NOW - 365 * 86_400

    async def test_all_verdicts_in_one_settlement(self, storage: Storage) -> None:
        """Different verdicts for the records of one batch each apply to their own."""
        await storage.write(records("a", "b", "c"))
        one, two, three = ids(await lease(storage))

        assert await storage.settle([*delivered(one), *later(two, due=NOW), *dead(three)]) == 2
        assert bodies(await lease(storage)) == ["b"]
        assert bodies(await storage.dead(10)) == ["c"]

    async def test_a_large_settlement(self, storage: Storage) -> None:
        """Thousands of records with gaps between them can be settled at once, with each verdict."""
        await storage.write(records(*map(str, range(3_300))))
        keys = ids(await lease(storage, 3_300))

        verdicts = [*delivered(*keys[0::3]), *dead(*keys[1::3]), *later(*keys[2::3], due=NOW)]
        assert await storage.settle(verdicts) == 2_200
        assert ids(await lease(storage, 3_300)) == keys[2::3]

    async def test_unknown_ids_are_ignored(self, storage: Storage) -> None:
        """Ids that were settled before or never given, and strings that are not ids, change nothing."""
        await storage.write(records("a", "b"))
        one, two = ids(await lease(storage))
        await storage.settle(delivered(one))

        for verdict in (delivered, dead):
            assert await storage.settle(verdict(one, "1", "1.77", "99999999999999999999", "no id", "", "-1")) == 0
        await storage.settle(later(one, "x", due=NOW))
        assert await storage.dead(10) == []
        assert await storage.settle(delivered(two, two, one)) == 1

    async def test_untouched_records_cannot_be_settled(self, storage: Storage) -> None:
        """A record that was never leased stays, whatever a settlement says."""
        written = await storage.write(records("a", "b", "c"))

        assert await storage.settle([*delivered(written.ids[1]), *dead(written.ids[2])]) == 0
        assert await storage.settle(later(written.ids[0], due=NOW + 50)) == 0
        assert (await storage.pending()).waiting == 3
        assert bodies(await lease(storage)) == ["a", "b", "c"]

    async def test_nothing_to_settle(self, storage: Storage) -> None:
        """A settlement of nothing changes nothing."""
        assert await storage.settle([]) == 0
        assert await storage.settle(delivered()) == 0


class TestReading:
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


class TestErasing:
    @staticmethod
    def of(trace: bytes, *keys: str, **states: bytes) -> Erasure:
        """Return what erases the records that begin with a trace, and the states with some keys."""
        return Erasure(
            (trace,), lambda body: body.startswith(trace), lambda found: {k for k, _ in found} & set(keys), states
        )

    async def test_selected_records(self, storage: Storage) -> None:
        """Selected records are erased, leased or not, with their dead letters; all others stay, in their order."""
        await write_dead(storage, "x-dead", "a-dead")
        written = await storage.write(records("x1", "a1", "x2", "a2", "x3", "a3", "ax"))
        leased = await lease(storage, 2)
        erased = await storage.erase(self.of(b"x"))

        assert set(erased.records) == {written.ids[0], written.ids[2], written.ids[4]}
        assert [each.body for each in await storage.dead(9)] == [b"a-dead"]
        assert (await storage.pending()).waiting == 4
        assert {each.kind for each in (await storage.find(erased.records)).values()} == {"dropped"}
        assert await storage.settle(delivered(*ids(leased))) == 1
        await storage.write(records("a4"))
        assert sorted(bodies(await lease(storage))) == ["a2", "a3", "a4", "ax"]
        assert (await storage.pending()).waiting == 4

    async def test_several_traces(self, storage: Storage) -> None:
        """A record that contains several of the traces is erased, and counted, once."""
        await storage.write(records("xy", "x", "y", "a"))
        erased = await storage.erase(Erasure((b"x", b"y"), lambda _: True, lambda _: ()))
        assert len(erased.records) == 3
        assert bodies(await lease(storage)) == ["a"]

    async def test_nothing_is_selected(self, storage: Storage) -> None:
        """Where nothing is selected, nothing changes."""
        await storage.write(records("a", "b"), [StateChange("k", b"1", 0)])
        assert await storage.erase(self.of(b"x")) == Erased((), (), ())
        assert bodies(await lease(storage)) == ["a", "b"]
        assert (await storage.load_state("k") or fail()).value == b"1"

    async def test_states(self, storage: Storage) -> None:
        """Selected states are erased, others are stored whatever was there, and no version repeats."""
        await storage.write((), [StateChange("k", b"1", 0), StateChange("l", b"2", 0), StateChange("m", b"3", 0)])
        erased = await storage.erase(self.of(b"x", "k", "l", m=b"4", n=b"5"))

        assert set(erased.states) == {"k", "l"}
        assert [await storage.load_state(key) for key in "kl"] == [None, None]
        assert [(await storage.load_state(key) or fail()).value for key in "mn"] == [b"4", b"5"]
        with pytest.raises(StateConflictError):
            await storage.write((), [StateCheck("k", 1)])
        await storage.write((), [StateChange("k", b"new", 0)])
        assert (await storage.load_state("k") or fail()).version > 1

    async def test_it_makes_room(self, make_storage: MakeStorage) -> None:
        """A write that waits for capacity is made."""
        storage = await make_storage(max_records=2, when_full="wait")
        await storage.write(records("x1", "x2"))
        writer = asyncio.create_task(storage.write(records("a")))
        await asyncio.sleep(0)
        await storage.erase(self.of(b"x"))
        assert len((await asyncio.wait_for(writer, 10)).ids) == 1


def fail() -> State:
    """Fail: there must be a state."""
    raise AssertionError


class TestDeadLetters:
    async def test_revived_under_their_old_ids(self, storage: Storage) -> None:
        """Revived records are due at once, under their ids, with no failures, and are not dead letters any more."""
        keys = await write_dead(storage, "a", "b")

        assert await storage.revive() == 2
        again = await lease(storage)
        assert ids(again) == keys
        assert [(each.body, each.failures) for each in again] == [(b"a", 0), (b"b", 0)]
        assert await storage.dead(10) == []

    async def test_some_are_revived(self, storage: Storage) -> None:
        """Only the named dead letters are revived, each once; other ids are ignored."""
        one, two = await write_dead(storage, "a", "b")
        queued = (await storage.write(records("c"))).ids[0]

        assert await storage.revive([two, two, queued, "nonsense"]) == 1
        assert await storage.revive([two]) == 0
        assert ids(await storage.dead(10)) == (one,)
        assert sorted(bodies(await lease(storage))) == ["b", "c"]

    async def test_revived_records_can_die_again(self, storage: Storage) -> None:
        """A revived record that is refused again is a dead letter again, with its new reason."""
        keys = await write_dead(storage, "a", reason="first")
        await storage.revive()
        await lease(storage)
        await storage.settle(dead(*keys, reason="second"))

        assert [each.reason for each in await storage.dead(10)] == ["second"]
        assert await storage.find(keys) == {keys[0]: RecordStatus("rejected", "second")}

    async def test_revived_records_count_as_written_now(self, storage: Storage) -> None:
        """A record that was given up for its age is not too old again when it is revived."""
        written = await storage.write([record("a", at=5.0)])
        await lease(storage)
        await storage.settle(dead(*written.ids))
        before = time.time()
        await storage.revive()

        (again,) = await lease(storage)
        assert before <= again.at <= time.time()

    async def test_the_oldest_beyond_a_number_are_pruned(self, storage: Storage) -> None:
        """The newest dead letters stay; the ids of the others are returned, and their records are marked."""
        keys = [(await write_dead(storage, name))[0] for name in "abcde"]

        assert await storage.prune(max_count=2) == tuple(keys[:3])
        assert ids(await storage.dead(10)) == (keys[4], keys[3])
        assert (await storage.find(keys[:1]))[keys[0]] == RecordStatus("rejected", DELETED_LETTER)
        assert await storage.prune(max_count=2) == ()
        assert await storage.prune(max_count=0) == tuple(keys[3:])
        assert (await storage.pending()).dead == 0

    async def test_old_ones_are_pruned(self, storage: Storage, set_constants: SetConstants) -> None:
        """Those that died before a time are deleted, but not those that died when the clock was not set."""
        times = {"unset": 5.0, "old": NOW, "new": NOW + 10}
        keys = {}
        for name, died_at in times.items():
            set_constants(time, time=lambda died_at=died_at: died_at)
            (keys[name],) = await write_dead(storage, name)

        assert await storage.prune() == ()
        assert await storage.prune(before=NOW) == ()
        assert await storage.prune(before=NOW + 10) == (keys["old"],)
        assert set(ids(await storage.dead(10))) == {keys["unset"], keys["new"]}

    async def test_purged(self, storage: Storage) -> None:
        """Purged dead letters are gone: the named ones, or all."""
        one, _, _ = await write_dead(storage, "a", "b", "c")

        assert await storage.purge([one, one, "nonsense"]) == 1
        assert await storage.purge() == 2
        assert await storage.purge() == 0
        assert await storage.revive() == 0
        assert (await storage.pending()).dead == 0

    async def test_no_ids_are_not_all_ids(self, storage: Storage) -> None:
        """An empty list of ids selects no dead letters."""
        await write_dead(storage, "a")

        assert await storage.purge([]) == 0
        assert await storage.revive(iter(())) == 0
        assert (await storage.pending()).dead == 1


class TestStates:
    async def test_create_change_delete(self, storage: Storage) -> None:
        """The version of a state increases by one with each change; a deleted state is gone."""
        await storage.write([], [StateChange("k", b"one", 0)])
        assert await storage.load_state("k") == State(b"one", 1)
        await storage.write([], [StateChange("k", b"two", 1)])
        assert await storage.load_state("k") == State(b"two", 2)
        await storage.write([], [StateChange("k", None, 2)])
        assert await storage.load_state("k") is None

    async def test_an_unknown_key(self, storage: Storage) -> None:
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

    async def test_each_caller_gets_its_own_error(self, storage: Storage) -> None:
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
        """A write that exceeds the capacity is refused as a whole; one that fits is stored."""
        storage = await make_storage(3)
        await storage.write(records("a", "b"))

        with pytest.raises(QueueFullError, match="may hold 3 records"):
            await storage.write(records("c", "d"))
        await storage.write(records("e"))
        assert bodies(await lease(storage)) == ["a", "b", "e"]

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

    async def test_leased_records_count(self, make_storage: MakeStorage) -> None:
        """Leased records count against the capacity; delivered and dead ones do not."""
        storage = await make_storage(2)
        await storage.write(records("a", "b"))
        one, two = ids(await lease(storage))
        with pytest.raises(QueueFullError):
            await storage.write(records("c"))

        await storage.settle([*delivered(one), *dead(two)])
        await storage.write(records("c", "d"))
        assert (await storage.pending()).waiting == 2

    async def test_revived_records_count(self, make_storage: MakeStorage) -> None:
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


class TestFullWaits:
    async def test_a_writer_waits_for_capacity(self, make_storage: MakeStorage) -> None:
        """A write that exceeds the capacity returns once a settlement has freed some."""
        storage = await make_storage(2, "wait")
        await storage.write(records("a", "b"))
        writer = asyncio.create_task(storage.write(records("c")))
        assert await started(writer)

        await storage.settle(delivered(*ids(await lease(storage))))
        assert len((await writer).ids) == 1
        assert bodies(await lease(storage)) == ["c"]

    async def test_in_the_order_of_the_calls(self, make_storage: MakeStorage) -> None:
        """Writers are served in order, and a small write does not overtake a large one."""
        storage = await make_storage(2, "wait")
        await storage.write(records("a"))
        leased = await lease(storage)
        large = asyncio.create_task(storage.write(records("b", "c")))
        small = [asyncio.create_task(storage.write(records(name))) for name in "de"]
        assert await started(small[1])

        await storage.settle(delivered(*ids(leased)))
        await large
        leased = await lease(storage)
        assert bodies(leased) == ["b", "c"]
        await storage.settle(delivered(*ids(leased)))
        await asyncio.gather(*small)
        assert bodies(await lease(storage)) == ["d", "e"]

    async def test_a_cancelled_waiting_writer(self, make_storage: MakeStorage) -> None:
        """A writer that is cancelled while it waits writes nothing, and does not block those behind it."""
        storage = await make_storage(1, "wait")
        await storage.write(records("a"))
        cancelled = asyncio.create_task(storage.write(records("b")))
        other = asyncio.create_task(storage.write(records("c")))
        assert await started(other)

        cancelled.cancel()
        await asyncio.wait([cancelled])
        await storage.settle(delivered(*ids(await lease(storage))))
        await other
        assert bodies(await lease(storage)) == ["c"]

    async def test_other_calls_do_not_wait(self, make_storage: MakeStorage) -> None:
        """While a writer waits, states are written and the queue can be read."""
        storage = await make_storage(1, "wait")
        await storage.write(records("a"))
        writer = asyncio.create_task(storage.write(records("b"), [StateCheck("k", 0)]))
        assert await started(writer)

        await storage.write([], [StateChange("k", b"", 0)])
        assert (await storage.pending()).waiting == 1
        await storage.settle(delivered(*ids(await lease(storage))))
        with pytest.raises(StateConflictError):
            await writer

    async def test_a_conflict_does_not_wait(self, make_storage: MakeStorage) -> None:
        """A write whose state has changed fails at once, full queue or not."""
        storage = await make_storage(1, "wait")
        await storage.write(records("a"))

        with pytest.raises(StateConflictError):
            await storage.write(records("b"), [StateCheck("k", 5)])

    async def test_more_than_the_capacity(self, make_storage: MakeStorage) -> None:
        """A write larger than the whole capacity is refused, and does not wait for ever."""
        storage = await make_storage(2, "wait")
        with pytest.raises(QueueFullError):
            await storage.write(records("a", "b", "c"))

    async def test_closing_ends_the_wait(self, make_storage: MakeStorage) -> None:
        """Writers that wait for capacity when the storage is closed get an error, and their records are not stored."""
        storage = await make_storage(1, "wait")
        await storage.write(records("a"))
        writers = [asyncio.create_task(storage.write(records(name))) for name in "bcd"]
        assert await started(writers[-1])

        await storage.aclose()
        results = await asyncio.gather(*writers, return_exceptions=True)
        assert [type(result) for result in results] == [StorageError] * 3

    async def test_a_wipe_frees_capacity(self, make_storage: MakeStorage) -> None:
        """Writers that wait are served once the queue was wiped."""
        storage = await make_storage(1, "wait")
        await storage.write(records("a"))
        writer = asyncio.create_task(storage.write(records("b")))
        assert await started(writer)

        await storage.wipe()
        await writer
        assert bodies(await lease(storage)) == ["b"]

    async def test_many_writers_wait(self, make_storage: MakeStorage) -> None:
        """However many writers wait, all records are written in the end, each once and in order."""
        storage = await make_storage(7, "wait")
        writers = [asyncio.create_task(storage.write(records(str(number)))) for number in range(700)]
        seen: list[str] = []
        while len(seen) < 700:
            leased = await lease(storage)
            await storage.settle(delivered(*ids(leased)))
            seen += bodies(leased)
            await asyncio.sleep(0)

        await asyncio.gather(*writers)
        assert seen == [str(number) for number in range(700)]


class TestFullDrops:
    async def test_the_oldest_are_dropped(self, make_storage: MakeStorage) -> None:
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

    async def test_concurrent_writers(self, make_storage: MakeStorage) -> None:
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


class TestWiping:
    async def test_everything_is_gone(self, storage: Storage) -> None:
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

    async def test_it_can_be_used_afterwards(self, storage: Storage) -> None:
        """After a wipe the storage works, and never gives an id a second time."""
        before: set[str] = set()
        for _ in range(3):
            before.update((await storage.write(records(*map(str, range(2_000))))).ids)
            await storage.wipe()
        written = await storage.write(records("b"))

        assert before.isdisjoint(written.ids)
        assert await storage.settle(delivered(*before)) == 0
        assert bodies(await lease(storage)) == ["b"]


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
)


class TestLifeCycle:
    @pytest.mark.parametrize("call", CALLS)
    async def test_use_before_open(self, backend: Callable[..., Storage], call: Callable[[Storage], object]) -> None:
        """Before it is opened, a storage refuses everything."""
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
        """A storage can be closed again and again, concurrently, and before it was ever opened."""
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
        assert bodies(await lease(storage)) == ["a"]

    async def test_closing_completes_the_writes(self, storage: Storage) -> None:
        """Writes that were called before the closing are all committed."""
        writers = [asyncio.create_task(storage.write([record(str(number))])) for number in range(50)]
        await asyncio.sleep(0)
        await storage.aclose()

        assert len({(await writer).ids for writer in writers}) == 50

    async def test_a_cancelled_closing(self, storage: Storage) -> None:
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
        """Each write and settlement that shares no batch with others is one commit; reading is none."""
        before = storage.commits
        await storage.write(records("a"))
        assert storage.commits == before + 1
        await storage.pending()
        await storage.find(["1"])
        assert storage.commits == before + 1
        await storage.settle(delivered("1"))
        assert storage.commits == before + 2
