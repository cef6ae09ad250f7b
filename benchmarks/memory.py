"""
Memory while very many events wait in the queue, and that of receipts which the application keeps.
"""

import asyncio
import gc
from collections.abc import Awaitable, Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import bench

from exponea_async import Exponea
from exponea_async.models import Receipt

TOTAL = int(bench.ARGUMENTS[0]) if bench.ARGUMENTS else bench.size(500_000, 20_000, 1_000_000)
CHUNK = 500
HELD = bench.size(100_000, 10_000)
CALLERS = 200
#: The largest number of bytes that a receipt may take.
RECEIPT = 400


async def measure(folder: Path) -> None:
    """Fill a queue and print how much the memory grows."""
    bench.headline(f"memory: {TOTAL:,} events waiting in the queue")
    async with Exponea(bench.configuration(folder / "queue.sqlite")) as exponea:
        for first in range(0, 10_000, CHUNK):
            await exponea.track_many([bench.event(number) for number in range(first, first + CHUNK)])
        gc.collect()
        before = peak = bench.resident()
        bench.row("resident after the first 10,000", f"{before:.1f} MB")
        for first in range(10_000, TOTAL, CHUNK):
            await exponea.track_many([bench.event(number) for number in range(first, first + CHUNK)])
            peak = max(peak, bench.resident())
        bench.row("peak", f"{peak:.1f} MB")
        waiting = exponea.stats().tracked
        bench.row(f"growth with {waiting:,} waiting", f"{peak - before:.1f} MB", "", "target under 30")


def on_disk(folder: Path) -> None:
    """Print the size of the queue."""
    size = sum(each.stat().st_size for each in folder.iterdir())
    bench.row("on disk, per event", f"{size / TOTAL:.0f} bytes")


def held_alone(count: int) -> float:
    """Keep the receipts of events that concurrent callers track one by one, and return how much the memory grows."""

    async def track(exponea: Exponea, count: int) -> list[Receipt]:
        async def call(number: int) -> list[Receipt]:
            return [await exponea.track_event(bench.event(each)) for each in range(number, count, CALLERS)]

        parts = await asyncio.gather(*[call(number) for number in range(CALLERS)])
        return [receipt for part in parts for receipt in part]

    return asyncio.run(hold(track, count))


def held_together(count: int) -> float:
    """Do the same with the receipts of `Exponea.track_many`."""

    async def track(exponea: Exponea, count: int) -> list[Receipt]:
        held: list[Receipt] = []
        for first in range(0, count, CHUNK):
            held += await exponea.track_many([bench.event(number) for number in range(first, first + CHUNK)])
        return held

    return asyncio.run(hold(track, count))


async def hold(track: Callable[[Exponea, int], Awaitable[list[Receipt]]], count: int) -> float:
    """Return by how many megabytes the memory grows while receipts are kept."""
    with bench.folder() as folder:
        async with Exponea(bench.configuration(folder / "queue.sqlite")) as exponea, bench.customer(exponea):
            await track(exponea, 5_000)
            gc.collect()
            before = bench.resident()
            held = await track(exponea, count)
            gc.collect()
            grown = bench.resident() - before
            if len(held) != count or any(receipt.status != "queued" for receipt in held):
                raise AssertionError("The receipts are not those of waiting events.")
            return grown


def measure_held() -> None:
    """Print the memory of kept receipts, each kind in a process of its own."""
    for name, function in (("track_event", held_alone), ("track_many", held_together)):
        with ProcessPoolExecutor(1, get_context("spawn")) as process:
            grown = process.submit(function, HELD).result()
        limit = HELD * RECEIPT / 1e6
        label = f"{HELD:,} receipts of {name} that are kept"
        bench.row(label, f"{grown:.1f} MB", f"{grown / limit:.2f}", f"of {limit:.0f} MB, target under 1")


if __name__ == "__main__":
    with bench.folder() as place:
        asyncio.run(measure(place))
        on_disk(place)
    measure_held()
