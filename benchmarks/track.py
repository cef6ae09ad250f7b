"""
Durable calls per second, compared with the raw limit: `sqlite3.executemany` of the same rows in one transaction.
"""

import asyncio
import sqlite3
import statistics
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Literal

import aiosqlite
import bench

from exponea_async import Configuration, Event, Exponea, QueueSettings

ROUNDS = bench.size(5, 1)
FEWER_ROUNDS = bench.size(3, 1)
TOTAL = bench.size(20_000, 2_000)
TABLE = "CREATE TABLE record (id INTEGER PRIMARY KEY, at REAL NOT NULL, body BLOB NOT NULL)"
INSERT = "INSERT INTO record VALUES (?, ?, ?)"
SYNCHRONOUS: dict[str, str] = {"process": "NORMAL", "power": "FULL"}

Row = tuple[int, float, bytes]
Durability = Literal["process", "power"]


def rows(path: Path) -> list[Row]:
    """Return the rows that a client has written."""
    return sqlite3.connect(path).execute("SELECT id, at, body FROM record").fetchall()


def raw(folder: Path, ready: list[Row], durability: Durability) -> float:
    """Insert ready rows in one transaction and return the rows per second."""
    path = folder / f"raw-{time.monotonic_ns()}.sqlite"
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute(f"PRAGMA synchronous = {SYNCHRONOUS[durability]}")
    connection.execute(TABLE)
    started = time.perf_counter()
    connection.execute("BEGIN IMMEDIATE")
    connection.executemany(INSERT, ready)
    connection.execute("COMMIT")
    return len(ready) / (time.perf_counter() - started)


async def bare(folder: Path, ready: list[Row], durability: Durability) -> float:
    """Insert and commit one row after the other with aiosqlite; return the rows per second."""
    async with aiosqlite.connect(folder / f"bare-{time.monotonic_ns()}.sqlite") as connection:
        await connection.execute("PRAGMA journal_mode = WAL")
        await connection.execute(f"PRAGMA synchronous = {SYNCHRONOUS[durability]}")
        await connection.execute(TABLE)
        started = time.perf_counter()
        for row in ready:
            await connection.execute(INSERT, row)
            await connection.commit()
        return len(ready) / (time.perf_counter() - started)


async def tracked(
    folder: Path, callers: int, total: int, durability: Durability, waits: list[float], *, device: bool = True
) -> float:
    """
    Track with concurrent callers, each of which awaits its call before the next; return the calls per second.

    A device stores its last activity with each event; a customer has no session.
    """
    # Creating events is up to the application, so it is not measured.
    events = [bench.event(number) for number in range(total)]

    async def call(mine: list[Event]) -> None:
        for event in mine:
            before = time.perf_counter()
            await subject.track_event(event)
            waits.append(time.perf_counter() - before)

    async with Exponea(settings(folder, durability)) as exponea:
        subject = exponea.device("bench") if device else exponea.for_customer({"registered": "jane@example.com"})
        await subject.track_event(events[0])
        started = time.perf_counter()
        await asyncio.gather(*[call(events[first::callers]) for first in range(callers)])
        return total / (time.perf_counter() - started)


async def tracked_together(folder: Path, size: int, total: int) -> float:
    """Track with one caller and `track_many`; return the events per second."""
    async with Exponea(settings(folder, "process")) as exponea:
        started = time.perf_counter()
        for first in range(0, total, size):
            await exponea.track_many([bench.event(number) for number in range(first, first + size)])
        return total / (time.perf_counter() - started)


def settings(folder: Path, durability: Durability) -> Configuration:
    """Return settings with a new file."""
    path = folder / f"queue-{time.monotonic_ns()}.sqlite"
    return bench.configuration(path, queue=QueueSettings(max_records=10**7, durability=durability))


async def ready_rows(folder: Path) -> list[Row]:
    """Let a client write rows, and return them."""
    path = folder / "ready.sqlite"
    async with Exponea(bench.configuration(path)) as exponea:
        await exponea.track_many([bench.event(number) for number in range(TOTAL)])
    return rows(path)


async def side_by_side(
    limit: Callable[[], Awaitable[float]], ours: Callable[[], Awaitable[float]]
) -> tuple[float, float]:
    """Measure both alternately, so that a busy machine slows both; return the medians."""
    pairs = [(await limit(), await ours()) for _ in range(ROUNDS)]
    return statistics.median(pair[0] for pair in pairs), statistics.median(pair[1] for pair in pairs)


async def measure(folder: Path) -> None:
    """Measure and print the results."""
    ready = await ready_rows(folder)
    size = statistics.mean(len(body) for _, _, body in ready)
    bench.headline(f"track: durable calls per second; rows of {size:.0f} bytes on average; medians of {ROUNDS}")
    floor = 0.15 if "--without-orjson" in sys.argv else 0.35
    durabilities: tuple[Durability, ...] = ("process", "power")
    for durability in durabilities:
        waits: list[float] = []

        async def limit(durability: Durability = durability) -> float:
            return await asyncio.to_thread(raw, folder, ready, durability)

        async def many(durability: Durability = durability, waits: list[float] = waits) -> float:
            return await tracked(folder, 1000, TOTAL, durability, waits)

        raw_rate, rate = await side_by_side(limit, many)
        bench.row(f"raw executemany, durability={durability}", f"{raw_rate:,.0f}/s")
        target = f"target {floor}" if durability == "process" else ""
        bench.row(
            "  1,000 concurrent callers, on a device with a session", f"{rate:,.0f}/s", f"{rate / raw_rate:.2f}", target
        )
        bench.row("    duration of a call: median", f"{statistics.median(waits) * 1000:.2f} ms")
        bench.row("    duration of a call: 99th percentile", f"{bench.percentile(waits, 0.99) * 1000:.2f} ms")
        for callers in (1000, 100, 10):
            some = statistics.median(
                [await tracked(folder, callers, TOTAL // 2, durability, [], device=False) for _ in range(FEWER_ROUNDS)]
            )
            bench.row(
                f"  {callers:,} concurrent callers, for a customer",
                f"{some:,.0f}/s",
                f"{some / raw_rate:.2f}",
                target if callers == 1000 else "",
            )
        count = TOTAL // (10 if durability == "process" else 40)

        async def single_limit(durability: Durability = durability, count: int = count) -> float:
            return await bare(folder, ready[:count], durability)

        async def single(durability: Durability = durability, count: int = count) -> float:
            return await tracked(folder, 1, count, durability, [], device=False)

        bare_rate, single_rate = await side_by_side(single_limit, single)
        bench.row(f"bare aiosqlite, insert and commit, durability={durability}", f"{bare_rate:,.0f}/s")
        bench.row(
            "  one caller at a time, for a customer",
            f"{single_rate:,.0f}/s",
            f"{single_rate / bare_rate:.2f}",
            "target 1.0",
        )
    for size_of_call in (50, 500):
        together = statistics.median([await tracked_together(folder, size_of_call, TOTAL) for _ in range(FEWER_ROUNDS)])
        bench.row(f"track_many({size_of_call}), one caller, durability=process", f"{together:,.0f}/s")


if __name__ == "__main__":
    with bench.folder() as place:
        asyncio.run(measure(place))
