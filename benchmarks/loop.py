"""
What tracking costs the application: event-loop lag and CPU at a paced rate, uploads included.
"""

import asyncio
import sys
from pathlib import Path

import bench
import sink

from exponea_async import Exponea, FlushMode

CALLERS = 50
SECONDS = 5.0
TICK = 0.001
LAG_RATE = 5_000
RATES = (500, 2_000, 10_000)


async def lags(into: list[float]) -> None:
    """Sleep for a tick again and again, and note how late each awakening is."""
    loop = asyncio.get_running_loop()
    while True:
        due = loop.time() + TICK
        await asyncio.sleep(TICK)
        into.append(loop.time() - due)


async def paced(exponea: Exponea | None, rate: int) -> tuple[int, float]:
    """Track at a rate with a number of callers, or only go through the motions; calls made and CPU seconds used."""
    loop = asyncio.get_running_loop()
    started, made = loop.time(), 0

    async def call(first: int) -> None:
        nonlocal made
        number = first
        while (due := started + number / rate) < started + SECONDS:
            await asyncio.sleep(due - loop.time())
            event = bench.event(number)
            if exponea is not None:
                await exponea.track_event(event)
            made += 1
            number += CALLERS

    used = bench.cpu()
    await asyncio.gather(*map(call, range(CALLERS)))
    return made, bench.cpu() - used


async def tracked(path: Path, base_url: str, rate: int, mode: FlushMode) -> tuple[list[float], float, float]:
    """Track at a rate; the lags, the calls a second, and the CPU of an event in microseconds without the driver's."""
    late: list[float] = []
    async with Exponea(bench.configuration(path, base_url, flush_mode=mode)) as exponea:
        await exponea.track_event(bench.event(0))
        watch = asyncio.create_task(lags(late))
        made, used = await paced(exponea, rate)
        watch.cancel()
    watch = asyncio.create_task(lags([]))
    _, motions = await paced(None, rate)
    watch.cancel()
    return late, made / SECONDS, (used - motions) / made * 1e6


async def idle() -> list[float]:
    """Tell the lags of a loop in which only the driver runs."""
    late: list[float] = []
    watch = asyncio.create_task(lags(late))
    await paced(None, LAG_RATE)
    watch.cancel()
    return late


def show(label: str, late: list[float], p99: str = "", worst: str = "") -> None:
    """Print lags."""
    bench.row(f"{label}: lag, 99 of 100", f"{bench.percentile(late, 0.99) * 1000:.2f} ms", "", p99)
    bench.row(f"{label}: lag, the worst", f"{max(late) * 1000:.2f} ms", "", worst)


async def measure(folder: Path, base_url: str) -> None:
    """Measure and print all."""
    bench.headline(f"loop: {CALLERS} callers at a paced rate for {SECONDS:g} s each, uploads in immediate mode")
    show(f"only the driver at {LAG_RATE:,}/s", await idle())
    late, rate, _ = await tracked(folder / "lag.sqlite", base_url, LAG_RATE, FlushMode.IMMEDIATE)
    show(f"tracking at {rate:,.0f}/s", late, "target under 5", "target under 20")
    for wanted in RATES:
        for mode in (FlushMode.MANUAL, FlushMode.IMMEDIATE):
            path = folder / f"{wanted}-{mode.name}.sqlite"
            _, rate, cost = await tracked(path, base_url, wanted, mode)
            what = "kept and uploaded" if mode is FlushMode.IMMEDIATE else "kept only"
            bench.row(f"CPU for an event at {rate:,.0f}/s, {what}", f"{cost:.0f} us")


if __name__ == "__main__":
    SECONDS = float(sys.argv[1]) if len(sys.argv) > 1 else SECONDS
    with bench.folder() as place, sink.running() as address:
        asyncio.run(measure(place, address))
