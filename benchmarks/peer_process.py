"""
The process of one client in `peers.py`: one scenario, with its settings in the first argument as JSON. It prints its
results as lines of JSON.
"""

import asyncio
import gc
import json
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import meters
import peer_clients
from peer_clients import Client

CALLERS = 50
TASKS = 200
PREFIX = "@"


def properties(number: int, *, stamped: bool = True) -> dict[str, Any]:
    """Return five properties as those of `bench.event`; the first says which event it is, and when it was tracked."""
    item = f"sku-{number}-{time.time():.6f}" if stamped else f"sku-{number}"
    return {"item_id": item, "price": 12.5, "quantity": number % 7, "category": "mugs", "in_stock": True}


def tell(**values: Any) -> None:
    """Write results for the parent."""
    print(PREFIX + json.dumps(values), flush=True)


async def wait_for_parent() -> None:
    """Wait until the parent writes a line."""
    await asyncio.to_thread(sys.stdin.readline)


async def track_all(client: Client, total: int, *, stamped: bool) -> None:
    """Track with many tasks, each of which awaits its call before the next."""

    async def call(first: int) -> None:
        for number in range(first, total, TASKS):
            await client.track(properties(number, stamped=stamped))

    await asyncio.gather(*[call(first) for first in range(TASKS)])


async def track_paced(client: Client, rate: int, seconds: float) -> int:
    """Track with callers at a fixed rate for some time; return the number of calls."""
    loop = asyncio.get_running_loop()
    started = loop.time()

    async def call(first: int) -> int:
        number = first
        while (due := started + number / rate) < started + seconds:
            await asyncio.sleep(due - loop.time())
            await client.track(properties(number))
            number += CALLERS
        return (number - first) // CALLERS

    return sum(await asyncio.gather(*map(call, range(CALLERS))))


async def cost_of_tick() -> float:
    """Return the CPU time of one tick of the meter of the lag, in seconds."""
    lags: list[float] = []
    used = meters.cpu()
    task = asyncio.create_task(meters.measure_lags(lags))
    await asyncio.sleep(0.5)
    task.cancel()
    return (meters.cpu() - used) / max(1, len(lags))


async def measured(client: Client, work: Callable[[], Awaitable[int]]) -> None:
    """Do the work, flush, and tell what it took."""
    await client.track({**properties(0), "item_id": "warm-up"})
    await client.flush()
    lags: list[float] = []
    gc.collect()
    before = meters.resident()
    meter = asyncio.create_task(meters.measure_lags(lags))
    started, used = time.time(), meters.cpu()
    calls = await work()
    called = time.time() - started
    ticks = len(lags)
    await client.flush()
    meter.cancel()
    tell(state="flushed", calls=calls)
    # Some clients return from a flush before all is sent.
    await wait_for_parent()
    used = meters.cpu() - used
    tell(
        state="measured",
        calls=calls,
        started=started,
        called=called,
        cpu=used,
        ticks=len(lags),
        lag_p99=meters.percentile(lags[:ticks] or [0.0], 0.99),
        lag_max=max(lags, default=0.0),
        lag_p99_all=meters.percentile(lags or [0.0], 0.99),
        growth=meters.peak() - before,
    )


async def full(client: Client, options: dict[str, Any]) -> None:
    """Track as fast as possible."""

    async def work() -> int:
        await track_all(client, options["total"], stamped=False)
        return int(options["total"])

    await measured(client, work)


async def paced(client: Client, options: dict[str, Any]) -> None:
    """Track at a fixed rate."""
    await measured(client, lambda: track_paced(client, options["rate"], options["seconds"]))


async def leave(client: Client, options: dict[str, Any]) -> None:
    """Track, and end without a flush."""
    await track_all(client, options["total"], stamped=True)
    tell(state="tracked")


async def stay(client: Client, options: dict[str, Any]) -> None:
    """Track, and do nothing more, until the parent writes a line or kills this process."""
    await track_all(client, options["total"], stamped=True)
    tell(state="tracked")
    await wait_for_parent()


async def resume(client: Client, _: dict[str, Any]) -> None:
    """Send what an earlier process has left."""
    await client.flush()
    tell(state="flushed")


SCENARIOS = {"full": full, "paced": paced, "leave": leave, "stay": stay, "resume": resume}


async def main(options: dict[str, Any]) -> None:
    """Open the client and run the scenario."""
    kind = peer_clients.KINDS.get(options["kind"], peer_clients.DRIVER)
    tick, before = await cost_of_tick(), meters.resident()
    try:
        client = await kind.start(
            peer_clients.Place(options["url"], Path(options["folder"]), options.get("tuned", False))
        )
    except Exception as error:  # noqa: BLE001 - the reason is printed in the row
        tell(state="failed", reason=f"{type(error).__name__}: {error}")
        return
    tell(state="opened", tick=tick, opened=meters.resident() - before)
    await SCENARIOS[options["scenario"]](client, options)


if __name__ == "__main__":
    asyncio.run(main(json.loads(sys.argv[1])))
