"""
Routes: renaming and dropping them.
"""

import asyncio

from exponea_async.storage.base import Settlement, Storage
from exponea_async.testing.storage_contract.builders import (
    NOW,
    MakeStorage,
    bodies,
    dead,
    delivered,
    ids,
    lease,
    records,
    soon,
    write_dead,
)
from exponea_async.testing.storage_contract.part import ContractPart


class RouteContract(ContractPart):
    """Routes: renaming and dropping them."""

    async def test_renaming_a_route_keeps_the_ids(self, storage: Storage) -> None:
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

    async def test_leased_records_are_settled_after_their_route_is_renamed(self, storage: Storage) -> None:
        """The caller that leased a record before its route was renamed can settle it."""
        await storage.write(records("a", "b", route="old"))
        (leased,) = await lease(storage, 1)
        await storage.rename_route("old", "new")

        assert await storage.settle(delivered(leased.id)) == 1
        assert bodies(await lease(storage)) == ["b"]

    async def test_dropping_routes(self, storage: Storage) -> None:
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

    async def test_dropping_routes_makes_room(self, make_storage: MakeStorage) -> None:
        """A write that waits for capacity is made when records are dropped."""
        storage = await make_storage(max_records=2, when_full="wait")
        await storage.write(records("a", "b", route="x"))
        writer = asyncio.create_task(storage.write(records("c", route="y")))
        await asyncio.sleep(0)
        await storage.drop_waiting(["x"])

        assert len((await soon(writer)).ids) == 1

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
