"""
Many records through the queue in PostgreSQL, written, leased and settled: how its tables grow, and what leases take.

At the end, a transaction of another program stays open for a while, so the server can't remove what is deleted then.

    python benchmarks/postgres_bloat.py [RECORDS] [RECORDS DURING THE TRANSACTION]
"""

import asyncio
import os
import statistics
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
import bench
import database
from attrs import define, field
from postgres import BODY, opened

from exponea_async.storage.base import Record, Settlement
from exponea_async.storage.postgres.storage import PostgresStorage

#: As the uploader leases at most, with four requests of 50 records at a time.
LEASE = 400
BACKLOG = 10_000
STEPS = 20
TABLES = ("record", "taken", "mark", "counter", "client")
SIZES = """
    SELECT relname, pg_relation_size(relid), pg_indexes_size(relid), n_dead_tup, autovacuum_count
        FROM pg_stat_user_tables WHERE relname = ANY ($1::text[])
"""


@define
class Step:
    """
    A part of the records.

    Attributes:
        leases: The duration of each lease, in seconds.
        settles: The same for each settlement.
        started: When it began.
    """

    leases: list[float] = field(factory=list)
    settles: list[float] = field(factory=list)
    started: float = field(factory=time.perf_counter)


class Traffic:
    """A producer and a consumer, who keep a backlog in the queue."""

    def __init__(self, storage: PostgresStorage, observer: Any) -> None:
        self.storage = storage
        self.observer = observer
        self.done = 0
        self.step = Step()
        # The writes that the backlog has room for.
        self.room = asyncio.Semaphore(BACKLOG // LEASE)

    async def write(self, count: int) -> None:
        for _ in range(0, count, LEASE):
            await self.room.acquire()
            await self.storage.write([Record("shop", BODY, 1.0)] * LEASE)

    async def consume(self, count: int) -> None:
        left = count
        while left > 0:
            started = time.perf_counter()
            records = await self.storage.lease(LEASE, 60.0, time.time())
            leased = time.perf_counter()
            settled = await self.storage.settle([Settlement(tuple(record.id for record in records), "delivered")])
            self.step.leases.append(leased - started)
            self.step.settles.append(time.perf_counter() - leased)
            for _ in range(self.done // LEASE, (self.done + settled) // LEASE):
                self.room.release()
            left, self.done = left - settled, self.done + settled

    async def run(self, count: int, label: str = "") -> float:
        """Write and consume records, print a line, and return the median of the leases in milliseconds."""
        self.step = Step()
        await asyncio.gather(self.write(count), self.consume(count))
        return await self.print_step(count, label)

    async def print_step(self, count: int, label: str) -> float:
        step = self.step
        rate = count / (time.perf_counter() - step.started)
        lease, settle = (statistics.median(each) * 1000 for each in (step.leases, step.settles))
        slow = bench.percentile(step.leases, 0.99) * 1000
        rows = {row[0]: row[1:] for row in await self.observer.fetch(SIZES, TABLES)}
        sizes = "  ".join(
            f"{name} {rows[name][0] / 1e6:.1f}+{rows[name][1] / 1e6:.1f} ({rows[name][2]:,})" for name in TABLES
        )
        print(
            f"  {self.done:>12,}  {rate:>8,.0f}/s  lease {lease:.1f} ms, 99% {slow:.1f} ms  settle {settle:.1f} ms"
            f"  {sizes}  load {os.getloadavg()[0]:.1f}  {label}",
            flush=True,
        )
        return lease


@asynccontextmanager
async def open_transaction(url: str) -> AsyncIterator[None]:
    """Keep a transaction open that has a snapshot, as a slow report or a backup has."""
    connection = await asyncpg.connect(url)
    async with connection.transaction(isolation="repeatable_read"):
        await connection.fetchval("SELECT count(*) FROM pg_class")
        yield
    await connection.close()


async def measure(url: str, total: int, held: int) -> None:
    """Measure and print the results."""
    bench.headline(
        f"postgres_bloat: {total:,} records of {len(BODY)} bytes, a backlog of {BACKLOG:,}, {LEASE} in a lease;"
        " MB of tables + indexes, (dead rows)"
    )
    observer = await asyncpg.connect(url)
    async with opened(url, "bloat") as storage:
        traffic = Traffic(storage, observer)
        part = total // STEPS
        first = await traffic.run(part)
        for _ in range(STEPS - 1):
            last = await traffic.run(part)
        bench.row("a lease after all, against the first ones", f"{last:.1f} ms", f"{last / first:.2f}")
        async with open_transaction(url):
            for _ in range(5):
                worst = await traffic.run(held // 5, "a transaction is open")
        for _ in range(5):
            after = await traffic.run(held // 5, "it has ended")
        bench.row("a lease while another transaction is open", f"{worst:.1f} ms", f"{worst / last:.2f}")
        bench.row("a lease some time after its end", f"{after:.1f} ms", f"{after / last:.2f}")
    await observer.close()


if __name__ == "__main__":
    count, count_held = (
        int(sys.argv[place]) if len(sys.argv) > place else default for place, default in ((1, 10_000_000), (2, 500_000))
    )
    with database.running() as server:
        asyncio.run(measure(server.url, count, count_held))
