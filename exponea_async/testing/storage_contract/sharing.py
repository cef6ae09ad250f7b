"""
What clients of one storage share: rate limits, and the report of records that others have written.
"""

import asyncio
import time
from itertools import pairwise

from exponea_async.storage.base import Storage
from exponea_async.testing.storage_contract.builders import MakeStorage, bodies, lease, records
from exponea_async.testing.storage_contract.part import ContractPart

#: A rate so low that the time that a test takes does not matter: a request every 100 seconds.
LOW_RATE = 0.01
#: How much unused time of a rate limit may be saved up at most, in seconds.
MAX_SAVED_TIME = 1.0


class SharingContract(ContractPart):
    """What clients of one storage share: rate limits, and the report of records that others have written."""

    # Rate limits

    async def test_the_first_request_is_sent_at_once(self, storage: Storage) -> None:
        """Nothing was reserved before, so there is nothing to wait for."""
        assert await storage.reserve("address", 1, LOW_RATE) == 0.0

    async def test_reserved_requests_wait_for_those_before(self, storage: Storage) -> None:
        """The wait is that of all requests that were reserved before."""
        await storage.reserve("address", 3, LOW_RATE)
        second = await storage.reserve("address", 1, LOW_RATE)
        third = await storage.reserve("address", 2, LOW_RATE)

        assert 200.0 < second <= 300.0
        assert 300.0 < third <= 400.0

    async def test_requests_that_are_reserved_at_the_same_time(self, storage: Storage) -> None:
        """Each of several callers gets a turn of its own."""
        waits = sorted(await asyncio.gather(*(storage.reserve("address", 1, LOW_RATE) for _ in range(10))))

        assert waits[0] == 0.0
        assert all(later - earlier > 50.0 for earlier, later in pairwise(waits))

    async def test_each_name_is_a_rate_limit_of_its_own(self, storage: Storage) -> None:
        """What is reserved under one name delays no other, whatever the names contain."""
        for name in ("address", "", "Address", "röute '\"; -- %", "wiped"):
            assert await storage.reserve(name, 10, LOW_RATE) == 0.0

    async def test_requests_at_different_rates(self, storage: Storage) -> None:
        """A caller with a higher rate waits, too, for what was reserved before."""
        await storage.reserve("address", 1, LOW_RATE)

        assert await storage.reserve("address", 1, 1_000.0) > 50.0

    async def test_unused_time_is_hardly_saved_up(self, storage: Storage) -> None:
        """However long nothing was reserved, only the requests of a short time may be sent at once."""
        rate, start = 20.0, time.monotonic()
        waits = [await storage.reserve("address", 1, rate) for _ in range(100)]
        duration = time.monotonic() - start

        assert waits.count(0.0) <= 1 + rate * (MAX_SAVED_TIME + duration)

    async def test_reserved_requests_outlast_a_closing(self, storage: Storage) -> None:
        """What was reserved stays reserved when the storage is closed and opened again."""
        await storage.reserve("address", 1, LOW_RATE)
        await storage.aclose()
        await storage.open()

        assert await storage.reserve("address", 1, LOW_RATE) > 50.0

    async def test_a_reservation_changes_nothing_else(self, storage: Storage) -> None:
        """Records and the generation stay as they are."""
        generation = await storage.generation()
        await storage.write(records("a"))
        await storage.reserve("address", 1, LOW_RATE)

        assert bodies(await lease(storage)) == ["a"]
        assert await storage.generation() == generation

    # Records that others have written

    async def test_a_function_to_report_to(self, storage: Storage) -> None:
        """A function can be given again and again; the storage works as before."""
        storage.subscribe(lambda: None)
        storage.subscribe(lambda: None)
        await storage.write(records("a"))

        assert bodies(await lease(storage)) == ["a"]

    async def test_a_function_to_report_to_before_the_opening(self, make_storage: MakeStorage) -> None:
        """A function can be given before the storage is opened, and outlasts a closing."""
        storage = await make_storage(opened=False)
        storage.subscribe(lambda: None)
        await storage.open()
        await storage.write(records("a"))
        await storage.aclose()
        await storage.open()

        assert bodies(await lease(storage)) == ["a"]
