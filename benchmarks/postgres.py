"""
The queue in PostgreSQL, compared with the raw limit: one connection that inserts ready rows in groups.

The benchmark starts the server, with its default settings, on the same machine. It measures the parts that are named,
or all of them: writes, leases, sizes, drain, clients.
"""

import asyncio
import statistics
import subprocess
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, Literal

import asyncpg
import bench
import database
import drain
import sink
from attrs import define, field

from exponea_async import Exponea, PostgresSettings, QueueSettings
from exponea_async.storage.base import Record, Settlement, Watermark
from exponea_async.storage.postgres.storage import PostgresStorage

ROUNDS = bench.size(3, 1)
TOTAL = bench.size(10_000, 100, 20_000)
DRAINED = bench.size(20_000, 1_000, 100_000)
#: The records in a short and in a long queue.
SHORT, LONG = bench.size((10_000, 200_000), (1_000, 2_000), (10_000, 1_000_000))
#: The records of which some are leased, and how many are leased in each size.
FILLED, LEASED = bench.size((100_000, 15_000), (5_000, 1_000))
CALLERS = bench.size((1, 10, 100, 1_000), (1, 10))
GROUP = 500
#: As many records as the uploader leases at most with four requests of 50 at a time.
LEASE = 400
CLIENTS = bench.size(20, 2)
REPETITIONS = bench.size(60, 3)
PGBENCH_SECONDS = bench.size(3, 1)
BODY = b"x" * 300
RAW_TABLE = """
    DROP TABLE IF EXISTS raw; CREATE TABLE raw (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, body bytea NOT NULL)
"""
DURABILITIES: dict[str, Literal["process", "power"]] = {"off": "process", "on": "power"}

Call = Callable[[int], Awaitable[object]]


@define
class Sample:
    """
    One measurement.

    Attributes:
        rate: Calls per second.
        cpu: CPU time of this process per call, in microseconds.
        waits: The duration of each call, in seconds.
    """

    rate: float
    cpu: float
    waits: list[float] = field(factory=list)


def total_of(callers: int) -> int:
    """Return the number of calls to measure: few callers make fewer calls a second."""
    return min(TOTAL, max(1_000, 200 * callers))


async def measure_calls(call: Call, callers: int) -> Sample:
    """Make calls with concurrent callers, each of which awaits its call before the next."""
    total = total_of(callers)
    waits: list[float] = []

    async def caller(numbers: Iterable[int]) -> None:
        for number in numbers:
            before = time.perf_counter()
            await call(number)
            waits.append(time.perf_counter() - before)

    used, started = bench.cpu(), time.perf_counter()
    await asyncio.gather(*(caller(range(first, total, callers)) for first in range(callers)))
    seconds = time.perf_counter() - started
    return Sample(total / seconds, (bench.cpu() - used) / total * 1e6, waits)


# The raw limit


class GroupedInsert:
    """The least that a grouped insert takes: one connection, one statement for the calls that have gathered."""

    def __init__(self, connection: Any) -> None:
        self.connection = connection
        self.waiting: list[tuple[bytes, asyncio.Future[None]]] = []
        self.task: asyncio.Task[None] | None = None

    def insert(self, _: int) -> "asyncio.Future[None]":
        future = asyncio.get_running_loop().create_future()
        self.waiting.append((BODY, future))
        if self.task is None:
            self.task = asyncio.create_task(self.run())
        return future

    async def run(self) -> None:
        while self.waiting:
            group, self.waiting = self.waiting[:GROUP], self.waiting[GROUP:]
            await self.connection.execute(
                "INSERT INTO raw (body) SELECT unnest($1::bytea[])", [body for body, _ in group]
            )
            for _, future in group:
                future.set_result(None)
            await asyncio.sleep(0)
        self.task = None


async def raw(url: str, callers: int, commit: str) -> Sample:
    """Insert bodies without any queue."""
    connection = await asyncpg.connect(url, server_settings={"synchronous_commit": commit})
    try:
        await connection.execute(RAW_TABLE)
        return await measure_calls(GroupedInsert(connection).insert, callers)
    finally:
        await connection.close()


# The product


@asynccontextmanager
async def opened(url: str, queue: str = "storage", commit: str = "off") -> AsyncIterator[PostgresStorage]:
    """Open a storage with an empty queue."""
    # What the server does beside, such as a checkpoint, is to be measured, not to end the benchmark.
    storage = PostgresStorage(url, queue, durability=DURABILITIES[commit], max_records=10**8, lock_timeout=60.0)
    await storage.open()
    try:
        await storage.wipe()
        yield storage
    finally:
        await storage.aclose()


async def written(url: str, callers: int, commit: str) -> Sample:
    """Write the same bodies with the storage."""
    async with opened(url, commit=commit) as storage:
        record = Record("shop", BODY, 1.0)
        return await measure_calls(lambda _: storage.write([record]), callers)


async def tracked(url: str, callers: int, commit: str, *, device: bool) -> Sample:
    """Track for a customer, or on a device with a session, whose last activity is stored with each event."""
    events = [bench.event(number) for number in range(total_of(callers))]
    queue = QueueSettings(max_records=10**8, durability=DURABILITIES[commit])
    async with Exponea(bench.configuration(url, queue=queue)) as exponea:
        subject = exponea.device("bench") if device else exponea.for_customer({"registered": "jane@example.com"})
        await subject.track_event(events[0])
        return await measure_calls(lambda number: subject.track_event(events[number]), callers)


async def measure_writes(server: database.Database) -> None:
    """Print what the storage and the client reach of the raw limit."""
    url = server.url
    for commit in DURABILITIES:
        bench.headline(
            f"postgres: calls per second, synchronous_commit={commit}, bodies of {len(BODY)} bytes, medians of {ROUNDS}"
        )
        for callers in CALLERS:
            measures: dict[str, Callable[[int, str], Awaitable[Sample]]] = {
                "raw insert in groups": lambda callers, commit: raw(url, callers, commit),
                "  storage.write()": lambda callers, commit: written(url, callers, commit),
                "  track_event(), for a customer": lambda callers, commit: tracked(url, callers, commit, device=False),
                "  track_event(), on a device": lambda callers, commit: tracked(url, callers, commit, device=True),
            }
            samples: dict[str, list[Sample]] = {label: [] for label in measures}
            for _ in range(ROUNDS):
                # In turns, so that a busy machine slows all of them.
                for label, measure in measures.items():
                    samples[label].append(await measure(callers, commit))
            print_samples(callers, samples)
        bench.row("pgbench, one insert at a time, 1 client", f"{run_pgbench(server, 1, commit):,.0f}/s")
        bench.row("pgbench, one insert at a time, 10 clients", f"{run_pgbench(server, 10, commit):,.0f}/s")


def print_samples(callers: int, samples: dict[str, list[Sample]]) -> None:
    """Print the medians of all rounds, as ratios to the first."""
    limit = statistics.median(sample.rate for sample in samples["raw insert in groups"])
    for label, rounds in samples.items():
        rate, cpu = (statistics.median(getattr(sample, name) for sample in rounds) for name in ("rate", "cpu"))
        waits = [wait for sample in rounds for wait in sample.waits]
        middle, slow = statistics.median(waits) * 1000, bench.percentile(waits, 0.99) * 1000
        target = " (target 0.5)" if "track_event" in label and callers >= 100 else ""
        target += " (target under 30 us)" if "track_event" in label and callers == 1000 else ""
        ratio = "" if rate == limit else f"{rate / limit:.2f}"
        note = f"{cpu:.0f} us CPU, {middle:.2f} ms, 99% {slow:.2f} ms{target}"
        bench.row(
            f"{label}, {callers:,} callers" if callers > 1 else f"{label}, one caller", f"{rate:,.0f}/s", ratio, note
        )


def run_pgbench(server: database.Database, clients: int, commit: str) -> float:
    """Return the transactions per second of PostgreSQL's own benchmark, each of which inserts one row."""
    url = f"{server.url}?options=-csynchronous_commit%3D{commit}"
    command = [
        server.programs / "pgbench",
        "-n",
        "-M",
        "prepared",
        "-T",
        str(PGBENCH_SECONDS),
        "-f",
        "-",
        "-c",
        clients,
        url,
    ]
    script = f"INSERT INTO raw (body) VALUES (decode('{BODY.hex()}', 'hex'));"
    done = subprocess.run([str(each) for each in command], input=script, capture_output=True, text=True, check=True)
    return float(done.stdout.rpartition("tps = ")[2].split()[0])


# Leases and settlements


async def lease_and_settle(storage: PostgresStorage, size: int) -> tuple[float, float]:
    """Lease records and settle them as delivered; return the seconds of both."""
    started = time.perf_counter()
    records = await storage.lease(size, 60.0, time.time())
    leased = time.perf_counter()
    assert await storage.settle([Settlement(tuple(record.id for record in records), "delivered")]) == size
    return leased - started, time.perf_counter() - leased


async def fill(storage: PostgresStorage, count: int) -> None:
    for _ in range(0, count, GROUP):
        await storage.write([Record("shop", BODY, 1.0)] * GROUP)


async def measure_leases(server: database.Database) -> None:
    """Print how many records a second are leased and settled."""
    bench.headline("postgres: a lease and the settlement of its records as delivered, one after the other")
    async with opened(server.url) as storage:
        await fill(storage, FILLED)
        for size in (50, 200, LEASE):
            rounds = [await lease_and_settle(storage, size) for _ in range(LEASED // size)]
            lease, settle = (statistics.median(each) for each in zip(*rounds, strict=True))
            note = f"lease {lease * 1000:.2f} ms, settlement {settle * 1000:.2f} ms"
            target = ", target over 20,000/s" if size == LEASE else ""
            bench.row(f"{size} records at a time", f"{size / (lease + settle):,.0f}/s", "", note + target)


# The size of the queue


async def measure_costs(storage: PostgresStorage, watermark: Watermark, rounds: dict[str, list[float]]) -> None:
    """Add the duration of each operation in seconds; the size of the queue stays the same."""

    async def timed(name: str, call: Awaitable[object]) -> None:
        started = time.perf_counter()
        await call
        rounds.setdefault(name, []).append(time.perf_counter() - started)

    await timed(f"write() of {LEASE}", storage.write([Record("shop", BODY, 1.0)] * LEASE))
    lease, settle = await lease_and_settle(storage, LEASE)
    rounds.setdefault(f"lease() of {LEASE}", []).append(lease)
    rounds.setdefault(f"settle() of {LEASE}", []).append(settle)
    await timed("pending()", storage.pending())
    await timed("remaining(), at most 1", storage.remaining(watermark, at_most=1))


async def measure_sizes(server: database.Database) -> None:
    """Print what operations cost with a short and with a long queue."""
    bench.headline(f"postgres: operations with {SHORT:,} and {LONG:,} records in the queue; medians of {REPETITIONS}")
    few: dict[str, list[float]] = {}
    many: dict[str, list[float]] = {}
    async with opened(server.url, "short") as short, opened(server.url, "long") as long:
        await fill(long, LONG)
        await fill(short, SHORT)
        watermarks = await short.watermark(), await long.watermark()
        for _ in range(REPETITIONS):
            await measure_costs(short, watermarks[0], few)
            await measure_costs(long, watermarks[1], many)
    for name, values in many.items():
        few_ms, many_ms = (statistics.median(each) * 1000 for each in (few[name], values))
        bench.row(name, f"{few_ms:.2f}, {many_ms:.2f} ms", f"{many_ms / few_ms:.2f}", "target 1.30")


# A whole client


async def measure_drain(server: database.Database) -> None:
    """Print how fast a client uploads a queue in PostgreSQL, and one in a file."""
    bench.headline(
        f"postgres: uploading {DRAINED:,} events in batches of {drain.BATCH}, concurrency {drain.CONCURRENCY}"
    )
    with bench.folder() as folder, sink.running() as base_url:
        for _ in range(ROUNDS):
            rate, used = await drain.drained(folder / f"{time.monotonic_ns()}.sqlite", base_url, DRAINED)
            bench.row("from SQLite", f"{rate:,.0f}/s", "", f"{used:.1f} us CPU for an event")
            await drain.fill(server.url, base_url, DRAINED)
            before = server.cpu()
            ours, used = await drain.drained(server.url, base_url, DRAINED, is_filled=True)
            served = (server.cpu() - before) / DRAINED * 1e6
            note = f"{used:.1f} us CPU for an event, {served:.1f} us of the server"
            bench.row("from PostgreSQL", f"{ours:,.0f}/s", f"{ours / rate:.2f}", note)


# Many clients


async def measure_clients(server: database.Database) -> None:
    """Print what it costs that many clients have the queue open."""
    bench.headline(f"postgres: {CLIENTS} clients of one queue, each of which writes, leases and settles")
    observer = await asyncpg.connect(server.url)

    async def rows() -> int:
        return int(await observer.fetchval("SELECT count(*) FROM exponea_async.counter"))

    async def pending(storage: PostgresStorage) -> float:
        started = time.perf_counter()
        await storage.pending()
        return time.perf_counter() - started

    async with opened(server.url, "many") as first:
        await fill(first, 10_000)
        alone, before = statistics.median([await pending(first) for _ in range(30)]), await rows()
        async with AsyncExitStack() as stack:
            settings = PostgresSettings(max_connections=2)
            storages = [
                PostgresStorage(server.url, "many", settings=settings, max_records=10**8) for _ in range(CLIENTS)
            ]
            for storage in storages:
                await storage.open()
                stack.push_async_callback(storage.aclose)
            started = time.perf_counter()
            await asyncio.gather(*(use(storage) for storage in storages))
            seconds = time.perf_counter() - started
            together = statistics.median([await pending(first) for _ in range(30)])
            bench.row("records written, leased and settled by all", f"{CLIENTS * 10 * LEASE / seconds:,.0f}/s")
            bench.row("pending() of one client alone", f"{alone * 1000:.2f} ms")
            bench.row(f"  with {CLIENTS} others", f"{together * 1000:.2f} ms", f"{together / alone:.2f}")
            bench.row("rows of counters", f"{before}")
            bench.row(f"  with {CLIENTS} others", f"{await rows()}")
        while await rows() > before + 2:  # noqa: ASYNC110 - another task clears them away, now and then
            await asyncio.sleep(0.1)
        bench.row("  some seconds after their end", f"{await rows()}")
    await observer.close()


async def use(storage: PostgresStorage) -> None:
    for _ in range(10):
        await storage.write([Record("shop", BODY, 1.0)] * LEASE)
        records = await storage.lease(LEASE, 60.0, time.time())
        await storage.settle([Settlement(tuple(record.id for record in records), "delivered")])


PARTS: dict[str, Callable[[database.Database], Awaitable[None]]] = {
    "writes": measure_writes,
    "leases": measure_leases,
    "sizes": measure_sizes,
    "drain": measure_drain,
    "clients": measure_clients,
}


async def measure(server: database.Database, parts: Iterable[str]) -> None:
    """Measure and print the results."""
    for part in parts:
        await clear(server.url)
        await PARTS[part](server)


async def clear(url: str) -> None:
    """Delete what the parts before have left in the queue."""
    connection = await asyncpg.connect(url)
    await connection.execute(f"DROP SCHEMA IF EXISTS {PostgresSettings().schema} CASCADE")
    await connection.close()


if __name__ == "__main__":
    with database.running() as running:
        asyncio.run(measure(running, bench.ARGUMENTS or PARTS))
