"""
Settling leased records.
"""

from exponea_async.storage.base import DeadLetter, Storage
from exponea_async.testing.storage_contract.builders import (
    LEASE,
    NOW,
    bodies,
    dead,
    delivered,
    ids,
    later,
    lease,
    record,
    records,
)
from exponea_async.testing.storage_contract.part import ContractPart


class SettlingContract(ContractPart):
    """Settling leased records."""

    async def test_delivered_records_leave_the_queue(self, storage: Storage) -> None:
        """A delivered record never comes back, and the settlement counts it."""
        await storage.write(records("a", "b", "c"))
        leased = await lease(storage)

        assert await storage.settle(delivered(leased[0].id, leased[2].id)) == 2
        assert bodies(await lease(storage, now=NOW + LEASE)) == ["b"]

    async def test_delayed_records_are_leased_when_due(self, storage: Storage) -> None:
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
