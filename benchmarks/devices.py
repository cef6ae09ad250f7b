"""
What many devices cost: calls per second, memory, tasks, and ending ten thousand sessions at once.

With ``--states``, it measures instead how fast devices are tracked whose states are spread over a file of millions.
"""

import asyncio
import gc
import sqlite3
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack, closing
from pathlib import Path
from uuid import uuid4

import bench
from loop import print_lags
from meters import measure_lags

from exponea_async import Exponea
from exponea_async.devices import store as devices
from exponea_async.devices.state import DeviceState

ROUNDS = bench.size(3, 1, 9)
TOTAL = bench.size(20_000, 1_000)
CALLERS = 1_000
COUNTS = bench.size((1, 1_000, 100_000), (1, 100, 1_000))
EXPIRED = bench.size(10_000, 100)
#: The states in the file with ``--states``, and how many states there are for each device that is active.
STATES = bench.size(4_000_000, 10_000)
STRIDE = 40
#: The session timeout: longer than any run, in seconds.
TIMEOUT = 86_400.0
#: Created once: neither their creation nor the garbage collector's scan of waiting ones is to be measured.
EVENTS = [bench.event(number) for number in range(CALLERS)]


def client(path: Path, *, clock: Callable[[], float] = time.time, timeout: float = TIMEOUT) -> Exponea:
    """Return a client whose devices have automatic sessions."""
    return Exponea(bench.configuration(path, session_timeout=timeout), clock=clock)


async def open_devices(path: Path, devices: int, *, age: float = 0.0) -> float:
    """Open new devices, at a time that is `age` seconds ago; return the devices per second."""
    numbers = iter(range(devices))

    async def call() -> None:
        for number in numbers:
            await exponea.device(f"tg:{number}").open()

    async with client(path, clock=lambda: time.time() - age) as exponea:
        started = time.perf_counter()
        await asyncio.gather(*[call() for _ in range(CALLERS)])
        return devices / (time.perf_counter() - started)


async def track(exponea: Exponea, devices: int, total: int, first: int = 0, stride: int = 1) -> float:
    """Track with concurrent callers, one device after the other; return the calls per second."""

    async def call(offset: int) -> None:
        for number in range(offset, total, CALLERS):
            await exponea.device(f"tg:{(first + number) % devices * stride}").track_event(EVENTS[offset])

    started = time.perf_counter()
    await asyncio.gather(*[call(offset) for offset in range(CALLERS)])
    return total / (time.perf_counter() - started)


def path_of(folder: Path, count: int) -> Path:
    """Return the file with this number of devices."""
    return folder / f"{count}.sqlite"


async def speed(folder: Path) -> None:
    """Track on few and on many devices alternately, and print the rates."""
    rates: dict[int, list[float]] = {number: [] for number in COUNTS}
    async with AsyncExitStack() as stack:
        clients = {each: await stack.enter_async_context(client(path_of(folder, each))) for each in COUNTS}
        for number, exponea in clients.items():
            await track(exponea, number, max(number, CALLERS))
        for round_number in range(ROUNDS):
            for number, exponea in clients.items():
                rates[number].append(await track(exponea, number, TOTAL, round_number * TOTAL))
    one = statistics.median(rates[COUNTS[0]])
    for number, measured in rates.items():
        rate = statistics.median(measured)
        change = "" if number == COUNTS[0] else f"{rate / one - 1:+.0%}"
        target = "target over -25%" if number == COUNTS[-1] else ""
        bench.row(f"{CALLERS:,} concurrent callers on {number:,} devices", f"{rate:,.0f}/s", change, target)


async def size(folder: Path) -> None:
    """Use many devices, and print the growth of memory and the number of tasks."""
    many = COUNTS[-1]
    async with client(path_of(folder, many)) as exponea:
        # Before, let the calls themselves allocate what they need.
        await track_in_parts(exponea, 1, TOTAL)
        before, tasks = resident(), len(asyncio.all_tasks())
        cached = min(many, devices.CAPACITY)
        await track_in_parts(exponea, cached, cached)
        bench.row(f"memory per device, {cached:,} devices", f"{(resident() - before) / cached * 1e6:,.0f} bytes")
        await track_in_parts(exponea, many, 2 * many)
        bench.row(f"growth with {many:,} active devices", f"{resident() - before:.1f} MB")
        bench.row(f"tasks that {many:,} devices add", f"{len(asyncio.all_tasks()) - tasks}", "", "target 0")


async def track_in_parts(exponea: Exponea, devices: int, total: int) -> None:
    """Track on devices, in parts of `TOTAL` calls."""
    for first in range(0, total, TOTAL):
        await track(exponea, devices, TOTAL, first)


def resident() -> float:
    """Return the resident memory in megabytes after a garbage collection."""
    gc.collect()
    return bench.resident()


async def expire(folder: Path) -> None:
    """Start a client that finds expired sessions, and print how long ending them takes."""
    path = folder / "expired.sqlite"
    await open_devices(path, EXPIRED, age=3600.0)
    lags: list[float] = []
    meter = asyncio.create_task(measure_lags(lags))
    await asyncio.sleep(1.0)
    print_lags("idle", lags)
    lags.clear()
    async with client(path, timeout=60.0) as exponea:
        started = time.perf_counter()
        while exponea.stats().tracked < EXPIRED:  # noqa: ASYNC110 - the end of sessions has no listener
            await asyncio.sleep(0.005)
        took = time.perf_counter() - started
        await asyncio.sleep(0.1)
    meter.cancel()
    bench.row(f"ending {EXPIRED:,} sessions", f"{took:.2f} s")
    bench.row("  sessions", f"{EXPIRED / took:,.0f}/s")
    print_lags("  meanwhile", lags, "target under 5", "target under 20")


async def many_states(folder: Path) -> None:
    """Track on one device, and alternately on devices whose states are spread over a large file; print the rates."""
    bench.headline(f"devices: {STATES:,} states in a file, every {STRIDE}th device is active; medians of {ROUNDS}")
    active = STATES // STRIDE
    async with client(path_of(folder, 1)) as one, client(path_of(folder, STATES)) as many:
        started = time.perf_counter()
        await asyncio.to_thread(create_states, path_of(folder, STATES))
        bench.row(f"writing {STATES:,} states", f"{time.perf_counter() - started:.0f} s")
        await track(one, 1, CALLERS)
        rate = await track(many, active, active, stride=STRIDE)
        bench.row("first event of a device, whose state is loaded", f"{rate:,.0f}/s")
        rates = [
            (await track(one, 1, TOTAL), await track(many, active, TOTAL, number * TOTAL, STRIDE))
            for number in range(ROUNDS)
        ]
    single, spread = (statistics.median(each) for each in zip(*rates, strict=True))
    bench.row(f"{CALLERS:,} concurrent callers on 1 device", f"{single:,.0f}/s")
    change = f"{spread / single - 1:+.0%}"
    bench.row(f"{CALLERS:,} concurrent callers on {active:,} devices", f"{spread:,.0f}/s", change, "target over -40%")


def create_states(path: Path) -> None:
    """Write states of devices with open sessions into a client's file, as the client writes them, but faster."""
    now = time.time()

    def states() -> Iterator[tuple[str, bytes]]:
        for number in range(STATES):
            state = DeviceState(cookie=str(uuid4()), device_id=str(uuid4()), session_start=now)
            yield f"device:tg:{number}", state.encode()

    with closing(sqlite3.connect(path, timeout=60.0)) as file, file:
        file.executemany("INSERT INTO state (key, value, version) VALUES (?, ?, 1)", states())
        file.execute("INSERT INTO activity SELECT id, ?, ? FROM state", (now, now))


async def measure(folder: Path) -> None:
    """Measure and print the results."""
    bench.headline(
        f"devices: all with open sessions, in a file; medians of {ROUNDS}; {devices.CAPACITY:,} cached in memory"
    )
    for number in COUNTS:
        rate = await open_devices(path_of(folder, number), number)
    bench.row(f"opening {COUNTS[-1]:,} new devices", f"{rate:,.0f}/s")
    await size(folder)
    await expire(folder)
    await speed(folder)


if __name__ == "__main__":
    ROUNDS = int(bench.ARGUMENTS[0]) if bench.ARGUMENTS else ROUNDS
    with bench.folder() as place:
        asyncio.run(many_states(place) if "--states" in sys.argv else measure(place))
