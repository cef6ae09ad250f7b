"""
Many transactions that end at random: the sandbox has exactly the events of those that were committed.
"""

import asyncio
import os
from collections import Counter
from itertools import count
from random import Random

import asyncpg
from helpers.clients import Connect
from helpers.waiting import until

from exponea_async import Event, Exponea, PostgresSettings, TransactionTracker
from exponea_async.sandbox import Sandbox

#: How many transactions there are.
TRANSACTIONS = int(os.environ.get("EXPONEA_TEST_TRANSACTIONS", "500"))
#: How many of them run at the same time, each on a connection of its own.
CONNECTIONS = 8
DEVICES = 12


class Application:
    """
    An application that tracks within transactions and outside of them.

    Attributes:
        committed: The numbers of the events that must arrive.
        rolled_back: The number of those that must not.
    """

    def __init__(self, client: Exponea, url: str, seed: int) -> None:
        self.committed: list[int] = []
        self.rolled_back = 0
        self._client = client
        self._url = url
        self._random = Random(seed)
        self._numbers = count()
        self._transactions = iter(range(TRANSACTIONS))

    async def run(self) -> None:
        """Run transactions until there have been enough."""
        connection = await asyncpg.connect(self._url)
        for _ in self._transactions:
            await self._run_transaction(connection)
            if self._random.random() < 0.3:
                number = next(self._numbers)
                subject = self._client.device(self._device())
                await subject.track_event(Event("x", {"n": number}))
                self.committed.append(number)
        await connection.close()

    def _device(self) -> str:
        return f"device {self._random.randrange(DEVICES)}"

    async def _run_transaction(self, connection: "asyncpg.Connection[asyncpg.Record]") -> None:
        transaction, device = connection.transaction(), self._device()
        await transaction.start()
        written: list[int] = []
        async with self._client.transaction(connection) as tracked:
            for _ in range(self._random.randint(1, 3)):
                written += await self._track(tracked, device)
                if self._random.random() < 0.3:
                    written += await self._run_savepoint(connection, tracked, device)
        if self._random.random() < 0.5:
            await transaction.rollback()
            self.rolled_back += len(written)
        else:
            await transaction.commit()
            self.committed += written

    async def _run_savepoint(
        self, connection: "asyncpg.Connection[asyncpg.Record]", tracked: TransactionTracker, device: str
    ) -> list[int]:
        savepoint = connection.transaction()
        await savepoint.start()
        written = await self._track(tracked, device)
        if self._random.random() < 0.5:
            await savepoint.commit()
            return written
        await savepoint.rollback()
        self.rolled_back += len(written)
        return []

    async def _track(self, tracked: TransactionTracker, device: str) -> list[int]:
        subject = (
            tracked.device(device) if self._random.random() < 0.7 else tracked.for_customer({"registered": device})
        )
        if self._random.random() < 0.2:
            numbers = [next(self._numbers) for _ in range(3)]
            await tracked.track_many([({"registered": device}, Event("x", {"n": number})) for number in numbers])
            return numbers
        number = next(self._numbers)
        await subject.track_event(Event("x", {"n": number}))
        return [number]


async def test_the_books_agree(postgres_url: str, postgres_schema: str, connect: Connect, sandbox: Sandbox) -> None:
    """Each event that was committed arrives once, no other one does, and each device is installed once."""
    seed = Random().randrange(1 << 32)
    client = await connect(
        storage=postgres_url, postgres=PostgresSettings(schema=postgres_schema), session_timeout=3600.0
    )
    application = Application(client, postgres_url, seed)
    await asyncio.gather(*(application.run() for _ in range(CONNECTIONS)))
    await client.flush_data(120)

    arrived = [event.properties["n"] for event in sandbox.engine.events("shop", "x")]
    assert Counter(arrived) == Counter(application.committed), f"seed {seed}"
    assert sandbox.engine.duplicates == 0
    installed = Counter(event.customer_ids["cookie"] for event in sandbox.engine.events("shop", "installation"))
    started = Counter(event.customer_ids["cookie"] for event in sandbox.engine.events("shop", "session_start"))
    used = {
        event.customer_ids["cookie"] for event in sandbox.engine.events("shop", "x") if "cookie" in event.customer_ids
    }
    assert used <= installed.keys() == started.keys()
    assert set(installed.values()) == set(started.values()) == {1}
    assert len(installed) <= DEVICES
    await until(lambda: client.stats().tracked == len(arrived) + 2 * len(installed))
    assert (await client.health()).problems == ()
