"""
The parent's side of `peers.py`: runs one client in a process of its own against a sink, and returns what was measured.
"""

import asyncio
import json
import sys
import tempfile
import time
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import IO, Any

import bench
import sink
from peer_process import PREFIX
from sink import Recorder

#: How long a client may take for anything, and how long nothing may arrive before it is given up, in seconds.
PATIENCE = 180.0
SILENCE = 8.0
#: How long the outage lasts, in seconds.
OUTAGE = 15.0

Result = dict[str, Any]


class NotMeasuredError(Exception):
    """A client could not be measured, for a reason that is printed in its row."""


class Child:
    """A process with a client."""

    def __init__(self, process: Process, errors: IO[bytes]) -> None:
        self.process = process
        self.errors = errors

    async def told(self, state: str) -> Result:
        """Wait for the results of a state."""
        assert self.process.stdout
        async with asyncio.timeout(PATIENCE):
            # What the libraries print themselves is left out.
            async for line in self.process.stdout:
                if line.startswith(PREFIX.encode()):
                    told: Result = json.loads(line[len(PREFIX) :])
                    if told["state"] == "failed":
                        raise NotMeasuredError(told["reason"])
                    if told["state"] == state:
                        return told
        status = await self.process.wait()
        self.errors.seek(0)
        last = self.errors.read().decode(errors="replace").strip().rpartition("\n")[2]
        raise NotMeasuredError(f"the process ended with {status} before it was {state}: {last}")

    async def go_on(self) -> None:
        """Let the process go on."""
        assert self.process.stdin
        self.process.stdin.write(b"\n")
        await self.process.stdin.drain()

    async def ended(self) -> None:
        """Wait until the process has ended by itself."""
        async with asyncio.timeout(PATIENCE):
            await self.process.wait()


@asynccontextmanager
async def child(kind: str, url: str, folder: Path, scenario: str, **options: Any) -> AsyncIterator[Child]:
    """Start the process of a client, and kill it at the end of the block if it still runs."""
    given = json.dumps({"kind": kind, "url": url, "folder": str(folder), "scenario": scenario, **options})
    script = str(Path(__file__).with_name("peer_process.py"))
    with tempfile.TemporaryFile() as errors:
        process = await asyncio.create_subprocess_exec(
            sys.executable, script, given, stdin=PIPE, stdout=PIPE, stderr=errors, limit=2**24
        )
        try:
            yield Child(process, errors)
        except TimeoutError:
            raise NotMeasuredError(f"it took more than {PATIENCE:.0f} s") from None
        finally:
            with suppress(ProcessLookupError):
                process.kill()
            await process.wait()


async def arrived(recorder: Recorder, total: int, patience: float = SILENCE, limit: float = PATIENCE) -> int:
    """Wait until all events have arrived, or none for some time, or until the limit; return their number."""
    last, since, deadline = -1, time.monotonic(), time.monotonic() + limit
    while True:
        count = await asyncio.to_thread(recorder.count)
        now = time.monotonic()
        if count != last:
            last, since = count, now
        if count >= total or now - since > patience or now > deadline:
            return count
        await asyncio.sleep(0.05)


async def measured(kind: str, scenario: str, **options: Any) -> Result:
    """Track, flush, and wait until all has arrived; return the measurements, with those of the sink."""
    with bench.folder() as folder, sink.recording() as recorder:
        async with child(kind, recorder.url, folder, scenario, **options) as process:
            opened = await process.told("opened")
            calls = (await process.told("flushed"))["calls"]
            count = await arrived(recorder, 0 if kind == "driver" else calls)
            await process.go_on()
            result = await process.told("measured")
        report = recorder.report()
    return {**opened, **result, **report, "arrived": count}


async def full(kind: str, total: int) -> Result:
    """Track as fast as possible; return the figures of the first table."""
    result = await measured(kind, "full", total=total, tuned=True)
    calls, finished = result["calls"], max((event[2] for event in result["events"]), default=0.0)
    # The meter of the lag runs for as long as the client needs, which differs.
    used = result["cpu"] - result["ticks"] * result["tick"]
    return {
        "calls": calls / result["called"],
        "end": result["arrived"] / (finished - result["started"]) if finished else 0.0,
        "cpu": used / calls * 1e6,
        "p99": result["lag_p99_all"] * 1e3,
        "max": result["lag_max"] * 1e3,
        "opened": result["opened"],
        "growth": result["growth"],
        "lost": calls - result["arrived"],
        "size": calls / max(1, len(result["sizes"])),
    }


async def paced(kind: str, rate: int, seconds: float) -> Result:
    """Track at a fixed rate; return the figures of the second table."""
    result = await measured(kind, "paced", rate=rate, seconds=seconds)
    # Events of the last third may have been sent by the flush, sooner than they would have been otherwise.
    until = result["started"] + seconds * 2 / 3
    delays = [arrival - sent for _, sent, arrival in result["events"] if sent < until] or [float("nan")]
    return {
        "gross": result["cpu"] / result["calls"] * 1e6,
        "p99": result["lag_p99"] * 1e3,
        "max": result["lag_max"] * 1e3,
        "half": bench.percentile(delays, 0.5),
        "most": bench.percentile(delays, 0.99),
        "lost": result["calls"] - result["arrived"],
        "size": result["calls"] / max(1, len(result["sizes"])),
    }


async def left(kind: str, total: int) -> Result:
    """End without a flush; return how many events have not arrived, and how many not even after the next start."""
    with bench.folder() as folder, sink.recording() as recorder:
        async with child(kind, recorder.url, folder, "leave", total=total) as process:
            await process.told("tracked")
            await process.ended()
        return await lost(kind, recorder, folder, total)


async def killed(kind: str, total: int) -> Result:
    """Kill the process after the last call; return how many events have not arrived, as `left`."""
    with bench.folder() as folder, sink.recording() as recorder:
        async with child(kind, recorder.url, folder, "stay", total=total) as process:
            await process.told("tracked")
            process.process.kill()
            await process.process.wait()
        return await lost(kind, recorder, folder, total)


async def lost(kind: str, recorder: Recorder, folder: Path, total: int) -> Result:
    """Return how many events have not arrived, and how many not even after the next start on the same folder."""
    before = await arrived(recorder, total, 0.5)
    async with child(kind, recorder.url, folder, "resume") as process:
        await process.told("flushed")
        return {"lost": total - before, "finally": total - await arrived(recorder, total, 0.5)}


async def outage(kind: str, total: int, afterwards: float) -> Result:
    """
    Respond with 503 for some time, then accept; return how many events have arrived, and when the last did.

    Args:
        kind: The client.
        total: The number of events.
        afterwards: How long events may arrive after the end of the outage, in seconds.
    """
    with bench.folder() as folder, sink.recording() as recorder:
        recorder.respond_with(503)
        async with child(kind, recorder.url, folder, "stay", total=total) as process:
            await process.told("tracked")
            await asyncio.sleep(OUTAGE)
            recorder.respond_with(200)
            ended = time.time()
            count = await arrived(recorder, total, afterwards, afterwards)
        report = recorder.report()
    last = max((event[2] for event in report["events"]), default=ended)
    return {"delivered": count, "after": last - ended, "refused": report["refused"]}
