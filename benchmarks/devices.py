"""
What many devices cost: calls a second, memory, tasks, and the end of ten thousand sessions at once.
"""

import asyncio
import gc
import statistics
import sys
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path

import bench
from loop import lags, show

from exponea_async import Exponea
from exponea_async.devices import store as devices

ROUNDS = 9
TOTAL = 20_000
CALLERS = 1_000
COUNTS = (1, 1_000, 100_000)
SILENT = 10_000
#: Longer than any run, in seconds.
TIMEOUT = 86_400.0
#: Made once, for making them is not what is measured, nor is how Python's collector goes through those that wait.
EVENTS = [bench.event(number) for number in range(CALLERS)]


def client(path: Path, *, clock: Callable[[], float] = time.time, timeout: float = TIMEOUT) -> Exponea:
    """Make a client whose devices have automatic sessions."""
    return Exponea(bench.configuration(path, session_timeout=timeout), clock=clock)


async def prepared(path: Path, devices: int, *, age: float = 0.0) -> float:
    """Bring devices to life, an age ago; devices a second."""
    waiting = iter(range(devices))

    async def call() -> None:
        for number in waiting:
            await exponea.device(f"tg:{number}").open()

    async with client(path, clock=lambda: time.time() - age) as exponea:
        started = time.perf_counter()
        await asyncio.gather(*[call() for _ in range(CALLERS)])
        return devices / (time.perf_counter() - started)


async def tracked(exponea: Exponea, devices: int, total: int, first: int = 0) -> float:
    """Track with many callers, one device after the other, each awaiting its call before the next; calls a second."""

    async def call(offset: int) -> None:
        for number in range(offset, total, CALLERS):
            await exponea.device(f"tg:{(first + number) % devices}").track_event(EVENTS[offset])

    started = time.perf_counter()
    await asyncio.gather(*[call(offset) for offset in range(CALLERS)])
    return total / (time.perf_counter() - started)


def path_of(folder: Path, count: int) -> Path:
    """Tell the file of so many devices."""
    return folder / f"{count}.sqlite"


async def speed(folder: Path) -> None:
    """Track over few and many devices, by turns."""
    rates: dict[int, list[float]] = {number: [] for number in COUNTS}
    async with AsyncExitStack() as stack:
        clients = {each: await stack.enter_async_context(client(path_of(folder, each))) for each in COUNTS}
        for number, exponea in clients.items():
            await tracked(exponea, number, max(number, CALLERS))
        for turn in range(ROUNDS):
            for number, exponea in clients.items():
                rates[number].append(await tracked(exponea, number, TOTAL, turn * TOTAL))
    one = statistics.median(rates[COUNTS[0]])
    for number, measured in rates.items():
        rate = statistics.median(measured)
        change = "" if number == COUNTS[0] else f"{rate / one - 1:+.0%}"
        target = "target over -25%" if number == COUNTS[-1] else ""
        bench.row(f"{CALLERS:,} callers at once over {number:,} devices", f"{rate:,.0f}/s", change, target)


async def size(folder: Path) -> None:
    """Have many devices active, and tell the growth of memory and of tasks."""
    many = COUNTS[-1]
    async with client(path_of(folder, many)) as exponea:
        # What the calls themselves take is taken before.
        await around(exponea, 1, TOTAL)
        before, tasks = resident(), len(asyncio.all_tasks())
        held = min(many, devices.CAPACITY)
        await around(exponea, held, held)
        bench.row(f"memory for each of {held:,} devices", f"{(resident() - before) / held * 1e6:,.0f} bytes")
        await around(exponea, many, 2 * many)
        bench.row(f"growth with {many:,} devices active", f"{resident() - before:.1f} MB")
        bench.row(f"tasks that {many:,} devices add", f"{len(asyncio.all_tasks()) - tasks}", "", "target 0")


async def around(exponea: Exponea, devices: int, total: int) -> None:
    """Track over devices, in parts."""
    for first in range(0, total, TOTAL):
        await tracked(exponea, devices, TOTAL, first)


def resident() -> float:
    """Tell the memory in use, in megabytes, without what is only waiting to be collected."""
    gc.collect()
    return bench.resident()


async def sweep(folder: Path) -> None:
    """Start a client that finds silent devices, and tell how long the end of their sessions keeps it."""
    path = folder / "silent.sqlite"
    await prepared(path, SILENT, age=3600.0)
    late: list[float] = []
    watch = asyncio.create_task(lags(late))
    await asyncio.sleep(1.0)
    show("nothing to do", late)
    late.clear()
    async with client(path, timeout=60.0) as exponea:
        started = time.perf_counter()
        while exponea.stats().tracked < SILENT:  # noqa: ASYNC110 - the sweep tells nobody
            await asyncio.sleep(0.005)
        took = time.perf_counter() - started
        await asyncio.sleep(0.1)
    watch.cancel()
    bench.row(f"the end of {SILENT:,} sessions", f"{took:.2f} s")
    bench.row("  sessions", f"{SILENT / took:,.0f}/s")
    show("  meanwhile", late, "target under 5", "target under 20")


async def measure(folder: Path) -> None:
    """Measure and print all."""
    bench.headline(
        f"devices: all with open sessions, in a file; medians of {ROUNDS}; {devices.CAPACITY:,} kept in memory"
    )
    for number in COUNTS:
        rate = await prepared(path_of(folder, number), number)
    bench.row(f"new devices: {COUNTS[-1]:,} come to life", f"{rate:,.0f}/s")
    await size(folder)
    await sweep(folder)
    await speed(folder)


if __name__ == "__main__":
    ROUNDS = int(sys.argv[1]) if len(sys.argv) > 1 else ROUNDS
    with bench.folder() as place:
        asyncio.run(measure(place))
