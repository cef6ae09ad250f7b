"""
Leasing records.
"""

import pytest

from exponea_async.storage.base import MAX_DUE_AHEAD, Storage
from exponea_async.testing.storage_contract.builders import LEASE, NOW, bodies, lease, records
from exponea_async.testing.storage_contract.part import ContractPart


class LeasingContract(ContractPart):
    """Leasing records."""

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
    async def test_a_lease_of_zero_records_or_fewer(self, storage: Storage, limit: int) -> None:
        """A lease of no records returns none."""
        await storage.write(records("a"))
        await lease(storage)
        await storage.write(records("b"))

        assert await lease(storage, limit, now=NOW + LEASE) == []

    async def test_a_lease_of_an_empty_storage(self, storage: Storage) -> None:
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

    async def test_skipped_routes_are_not_leased(self, storage: Storage) -> None:
        """A lease returns nothing from a route that it skips, leased before or not."""
        await storage.write(records("a", "b", route="x"))
        await storage.write(records("c", route="y"))
        await lease(storage, 1, only="x")

        found = await storage.lease(10, LEASE, NOW + LEASE, skip=["x"])
        assert bodies(found) == ["c"]

    async def test_a_lease_of_one_route(self, storage: Storage) -> None:
        """A lease of one route returns nothing from others; a skipped or unknown one has nothing."""
        await storage.write(records("a", route="x"))
        await storage.write(records("b", route="y"))

        assert await storage.lease(10, LEASE, NOW, only="y", skip=["y"]) == []
        assert await lease(storage, only="nowhere") == []
        assert bodies(await lease(storage, only="y")) == ["b"]
        assert bodies(await lease(storage)) == ["a"]
