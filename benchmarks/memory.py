"""
Memory while a million events wait in the queue.
"""

import asyncio
import gc
import sys
from pathlib import Path

import bench

from exponea_async import Exponea

TOTAL = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000
CHUNK = 500


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


if __name__ == "__main__":
    with bench.folder() as place:
        asyncio.run(measure(place))
        on_disk(place)
