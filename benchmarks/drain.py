"""
Uploading the queue, compared with a bare aiohttp loop that posts the same bodies at the same concurrency.
"""

import asyncio
import statistics
import time
from pathlib import Path

import aiohttp
import bench
import sink

from exponea_async import Exponea
from exponea_async._pipeline.commands import request_body
from exponea_async.storage.base import Leased
from exponea_async.storage.sqlite.storage import SQLiteStorage

ROUNDS = bench.size(5, 1)
TOTAL = bench.size(20_000, 1_000)
CONCURRENCY = 4
BATCH = 50
#: Leases are measured at the head of a short and of a long queue.
LEASES = bench.size(200, 10)
SHORT, LONG = bench.size((11_000, 300_000), (500, 1_000), (11_000, 1_000_000))


async def fill(path: Path | str, base_url: str, total: int = TOTAL) -> None:
    """Put events into a queue."""
    async with Exponea(bench.configuration(path, base_url)) as exponea, bench.customer(exponea):
        for first in range(0, total, 500):
            await exponea.track_many([bench.event(number) for number in range(first, first + 500)])


async def bodies_of(path: Path) -> list[bytes]:
    """Return the request bodies of the batches in a queue."""
    storage = SQLiteStorage(path)
    await storage.open()
    waiting = await storage.waiting(TOTAL)
    await storage.aclose()
    records = [Leased(each.id, each.route, each.body, each.at, each.failures) for each in waiting]
    return [request_body(records[first : first + BATCH]) for first in range(0, TOTAL, BATCH)]


async def bare(url: str, bodies: list[bytes]) -> float:
    """Post ready bodies and return the events per second."""
    remaining = iter(bodies)

    async def post(session: aiohttp.ClientSession) -> None:
        for body in remaining:
            headers = {"Content-Type": "application/json", "Authorization": "Token key"}
            async with session.post(url, data=body, headers=headers) as response:
                assert b'"success":true' in await response.read()

    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=CONCURRENCY)) as session:
        started = time.perf_counter()
        await asyncio.gather(*[post(session) for _ in range(CONCURRENCY)])
        return TOTAL / (time.perf_counter() - started)


async def drained(
    path: Path | str, base_url: str, total: int = TOTAL, *, is_filled: bool = False
) -> tuple[float, float]:
    """Upload a full queue; return the events per second, and the CPU time per event in microseconds."""
    if not is_filled:
        await fill(path, base_url, total)
    async with Exponea(bench.configuration(path, base_url)) as exponea:
        used, started = bench.cpu(), time.perf_counter()
        result = await exponea.flush_data()
        seconds, used = time.perf_counter() - started, bench.cpu() - used
    assert result.delivered == total, result
    assert result.remaining == 0, result
    return total / seconds, used / total * 1e6


async def lease_cost(path: Path, base_url: str, total: int) -> float:
    """Lease one batch after the other at the head of a queue; return the microseconds per record."""
    await fill(path, base_url, total)
    storage = SQLiteStorage(path)
    await storage.open()
    rounds = []
    for _ in range(LEASES):
        started = time.perf_counter()
        leased = await storage.lease(BATCH, 60, time.time())
        rounds.append(time.perf_counter() - started)
        assert len(leased) == BATCH
    await storage.aclose()
    return statistics.median(rounds) / BATCH * 1e6


async def measure(folder: Path, base_url: str) -> None:
    """Measure and print the results."""
    bench.headline(f"drain: {TOTAL:,} events in batches of {BATCH}, concurrency {CONCURRENCY}; medians of {ROUNDS}")
    ready = folder / "ready.sqlite"
    await fill(ready, base_url)
    bodies = await bodies_of(ready)
    limits, ours, cpus = [], [], []
    for number in range(ROUNDS):
        limits.append(await bare(f"{base_url}/track/v2/projects/bench/batch", bodies))
        rate, used = await drained(folder / f"queue-{number}.sqlite", base_url)
        ours.append(rate)
        cpus.append(used)
    limit, rate = statistics.median(limits), statistics.median(ours)
    bench.row("bare aiohttp POST loop of the same bodies", f"{limit:,.0f}/s")
    bench.row("  flush_data() of a full queue", f"{rate:,.0f}/s", f"{rate / limit:.2f}", "target 0.35")
    bench.row("  CPU time per event, all threads", f"{statistics.median(cpus):.1f} us", "", "target under 40")
    short = await lease_cost(folder / "short.sqlite", base_url, SHORT)
    long = await lease_cost(folder / "long.sqlite", base_url, LONG)
    bench.row(f"leasing with {SHORT:,} rows, per record", f"{short:.2f} us")
    bench.row(f"leasing with {LONG:,} rows, per record", f"{long:.2f} us", f"{long / short:.2f}", "target 1.20")


if __name__ == "__main__":
    with bench.folder() as place, sink.running() as address:
        asyncio.run(measure(place, address))
