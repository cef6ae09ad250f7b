"""
What tracking costs the application: event-loop lag and CPU time at a fixed rate, including uploads.
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


async def measure_lags(lags: list[float]) -> None:
    """Sleep for a tick again and again, and append how late each wake-up is."""
    loop = asyncio.get_running_loop()
    while True:
        due = loop.time() + TICK
        await asyncio.sleep(TICK)
        lags.append(loop.time() - due)


async def paced(exponea: Exponea | None, rate: int) -> tuple[int, float]:
    """Track at a fixed rate, or without a client only wait; return the number of calls and the CPU time in seconds."""
    loop = asyncio.get_running_loop()
    started, calls = loop.time(), 0

    async def call(first: int) -> None:
        nonlocal calls
        number = first
        while (due := started + number / rate) < started + SECONDS:
            await asyncio.sleep(due - loop.time())
            event = bench.event(number)
            if exponea is not None:
                await exponea.track_event(event)
            calls += 1
            number += CALLERS

    used = bench.cpu()
    await asyncio.gather(*map(call, range(CALLERS)))
    return calls, bench.cpu() - used


async def track(path: Path, base_url: str, rate: int, mode: FlushMode) -> tuple[list[float], float, float]:
    """Return the lags, the calls per second, and the CPU time per event in microseconds, without the driver's."""
    lags: list[float] = []
    async with Exponea(bench.configuration(path, base_url, flush_mode=mode)) as exponea:
        await exponea.track_event(bench.event(0))
        meter = asyncio.create_task(measure_lags(lags))
        calls, used = await paced(exponea, rate)
        meter.cancel()
    meter = asyncio.create_task(measure_lags([]))
    _, used_by_driver = await paced(None, rate)
    meter.cancel()
    return lags, calls / SECONDS, (used - used_by_driver) / calls * 1e6


async def idle() -> list[float]:
    """Return the lags of a loop in which only the driver runs."""
    lags: list[float] = []
    meter = asyncio.create_task(measure_lags(lags))
    await paced(None, LAG_RATE)
    meter.cancel()
    return lags


def print_lags(label: str, lags: list[float], p99_target: str = "", max_target: str = "") -> None:
    """Print the 99th percentile and the maximum of the lags."""
    bench.row(f"{label}: lag, 99th percentile", f"{bench.percentile(lags, 0.99) * 1000:.2f} ms", "", p99_target)
    bench.row(f"{label}: lag, maximum", f"{max(lags) * 1000:.2f} ms", "", max_target)


async def measure(folder: Path, base_url: str) -> None:
    """Measure and print the results."""
    bench.headline(f"loop: {CALLERS} callers at a fixed rate for {SECONDS:g} s each, uploads in immediate mode")
    print_lags(f"only the driver at {LAG_RATE:,}/s", await idle())
    lags, rate, _ = await track(folder / "lag.sqlite", base_url, LAG_RATE, FlushMode.IMMEDIATE)
    print_lags(f"tracking at {rate:,.0f}/s", lags, "target under 5", "target under 20")
    for target_rate in RATES:
        for mode in (FlushMode.MANUAL, FlushMode.IMMEDIATE):
            path = folder / f"{target_rate}-{mode.name}.sqlite"
            _, rate, cost = await track(path, base_url, target_rate, mode)
            work = "stored and uploaded" if mode is FlushMode.IMMEDIATE else "stored only"
            bench.row(f"CPU time per event at {rate:,.0f}/s, {work}", f"{cost:.0f} us")


if __name__ == "__main__":
    SECONDS = float(sys.argv[1]) if len(sys.argv) > 1 else SECONDS
    with bench.folder() as place, sink.running() as address:
        asyncio.run(measure(place, address))
