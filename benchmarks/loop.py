"""
What tracking costs the application: event-loop lag and CPU time at a fixed rate, including uploads; and how long single
calls with very many events, receipts or values, and very large responses, block the event loop.
"""

import asyncio
import gc
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import bench
import sink
from meters import TICK, measure_lags

from exponea_async import Event, Exponea, FlushMode, InvalidEventError, Receipt

CALLERS = 50
SECONDS = bench.size(3.0, 0.2, 5.0)
LAG_RATE = 5_000
RATES = (500, 2_000, 10_000)
MANY = bench.size(200_000, 2_000)
HELD = 5 * MANY
GAP_TARGET = "target under 50"


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


async def track(path: Path, base_url: str, rate: int, mode: FlushMode) -> tuple[list[float], float]:
    """Return the lags and the CPU time per event in microseconds, without the driver's."""
    lags: list[float] = []
    async with Exponea(bench.configuration(path, base_url, flush_mode=mode)) as exponea:
        await exponea.track_event(bench.event(0))
        meter = asyncio.create_task(measure_lags(lags))
        calls, used = await paced(exponea, rate)
        meter.cancel()
    meter = asyncio.create_task(measure_lags([]))
    _, used_by_driver = await paced(None, rate)
    meter.cancel()
    return lags, (used - used_by_driver) / calls * 1e6


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
    lags, _ = await track(folder / "lag.sqlite", base_url, LAG_RATE, FlushMode.IMMEDIATE)
    print_lags(f"tracking at {LAG_RATE:,}/s", lags, "target under 5", "target under 20")
    for rate in RATES:
        for mode in (FlushMode.MANUAL, FlushMode.IMMEDIATE):
            path = folder / f"{rate}-{mode.name}.sqlite"
            _, cost = await track(path, base_url, rate, mode)
            work = "stored and uploaded" if mode is FlushMode.IMMEDIATE else "stored only"
            bench.row(f"CPU time per event at {rate:,}/s, {work}", f"{cost:.0f} us")


# The longest gap


@asynccontextmanager
async def gap(label: str) -> AsyncIterator[None]:
    """Print the longest time for which the event loop is blocked within the block."""
    # Otherwise a collection of all that was created before would fall into the block.
    gc.collect()
    gc.freeze()
    lags: list[float] = []
    meter = asyncio.create_task(measure_lags(lags))
    await asyncio.sleep(5 * TICK)
    lags.clear()
    try:
        yield
        await asyncio.sleep(5 * TICK)
    finally:
        meter.cancel()
    bench.row(label, f"{max(lags) * 1000:.0f} ms", "", GAP_TARGET)


async def many_events(folder: Path) -> None:
    """Track very many events in one call, and drop their receipts."""
    async with Exponea(bench.configuration(folder / "many.sqlite")) as exponea, bench.customer(exponea):
        events = [bench.event(number) for number in range(MANY)]
        async with gap(f"track_many of {MANY:,}"):
            receipts = await exponea.track_many(events)
        async with gap(f"dropping {MANY:,} receipts"):
            del receipts


async def wait_for(receipts: list[Receipt]) -> "list[asyncio.Task[None]]":
    """Start a task for each receipt that waits for its verdict, in slices: creating tasks takes long, too."""
    tasks: list[asyncio.Task[None]] = []
    for start in range(0, len(receipts), 500):
        tasks += [asyncio.create_task(receipt.delivered()) for receipt in receipts[start : start + 500]]
        await asyncio.sleep(0)
    return tasks


async def awaited_receipts(folder: Path) -> None:
    """Wait for very many receipts, and close the client meanwhile."""
    exponea = Exponea(bench.configuration(folder / "awaited.sqlite"))
    await exponea.start()
    async with bench.customer(exponea):
        receipts = await exponea.track_many([bench.event(number) for number in range(MANY // 2)])
    async with gap(f"{MANY // 2:,} calls of delivered()"):
        tasks = await wait_for(receipts)
        await asyncio.sleep(1.5)
    async with gap("closing with these"):
        await exponea.aclose(timeout=0)
        for task in tasks:
            with suppress(Exception):
                await task


async def held_receipts(folder: Path) -> None:
    """Stop the integration while very many receipts are held."""
    async with Exponea(bench.configuration(folder / "held.sqlite")) as exponea:
        receipts: list[Receipt] = []
        async with bench.customer(exponea):
            for _ in range(HELD // MANY):
                receipts += await exponea.track_many([bench.event(0)] * MANY)
        async with gap(f"stop_integration() with {len(receipts):,} receipts held"):
            await exponea.stop_integration()


async def large_values(folder: Path) -> None:
    """Track events with values that are too large, or almost."""
    values: dict[str, dict[str, object]] = {
        "one property with 5 million Nones": {"list": [None] * 25 * MANY},
        "800 KB of properties": {f"text {number}": "x" * 16_000 for number in range(49)},
        "800 KB of properties, each a list of lists": {str(number): [[1, 2, 3]] * 1_900 for number in range(45)},
    }
    async with Exponea(bench.configuration(folder / "values.sqlite")) as exponea, bench.customer(exponea):
        for label, properties in values.items():
            async with gap(label):
                with suppress(InvalidEventError):
                    await exponea.track_event(Event("view", properties))


async def large_response(folder: Path) -> None:
    """Upload to a server whose responses have 4 MB of small objects."""
    body = b'{"success":true,"results":[' + b",".join([b"{}"] * 1_300_000) + b"]}"

    async def respond(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\n\r\n" + body)
            await writer.drain()
            writer.close()

    server = await asyncio.start_server(respond, "127.0.0.1", 0)
    async with server:
        address = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        async with (
            Exponea(bench.configuration(folder / "response.sqlite", address)) as exponea,
            bench.customer(exponea),
        ):
            await exponea.track_many([bench.event(number) for number in range(50)])
            async with gap("responses of 4 MB"):
                await exponea.flush_data(timeout=3)
            await exponea.aclose(timeout=0)


async def measure_gaps(folder: Path) -> None:
    """Measure and print the longest gaps."""
    bench.headline("loop: longest time for which one call blocks the event loop")
    for case in (many_events, awaited_receipts, held_receipts, large_values, large_response):
        await case(folder)


if __name__ == "__main__":
    SECONDS = float(bench.ARGUMENTS[0]) if bench.ARGUMENTS else SECONDS
    with bench.folder() as place, sink.running() as address:
        asyncio.run(measure(place, address))
        asyncio.run(measure_gaps(place))
