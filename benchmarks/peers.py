"""
This SDK compared with libraries that do a similar job for other platforms, in one run on one machine.

Each client is in a process of its own, with a new interpreter, and sends to `sink.py`, another process on the same
machine, over loopback. All track the same event with five properties, as their documentation says, from coroutines on
one event loop:

* this SDK: ``await exponea.for_customer(...).track_event(Event(...))``, with the queue in a file, in immediate mode,
  and with both durabilities. An event is on the disk when the call returns; the peers keep it in memory.
* Segment: ``Client("key", host=...).track(...)``, which a thread uploads, 100 at a time.
* PostHog: ``AsyncPosthog("key", host=...).capture(...)``, which a task on the same loop uploads, 100 at a time.
* Amplitude: ``Amplitude("key", Config(server_url=...)).track(BaseEvent(...))``, which threads upload, 200 at a time.
* Snowplow: ``Tracker(..., AsyncEmitter(...)).track(SelfDescribing(...))``, which a thread uploads, 10 or more at a
  time, on a new connection each time. The JSON of the event is not encoded in base64, which is faster.
* OpenTelemetry: ``logger.emit(event_name=..., attributes=...)`` with a `BatchLogRecordProcessor` and an exporter for
  OTLP over HTTP, which a thread uploads, 512 at a time.
* Sentry: ``sentry_sdk.init(dsn, enable_logs=True)`` and ``sentry_sdk.logger.info(..., attributes=...)``, which a thread
  uploads, compressed, 100 or more at a time.

Calls that do not wait are followed by ``await asyncio.sleep(0)``, as otherwise each task would do all its calls before
another one runs. In the first table the limits of the queues are raised, so that nothing is dropped: ``max_queue_size``
of PostHog, Segment and OpenTelemetry, ``buffer_capacity`` of Snowplow, ``transport_queue_size`` of Sentry and the limit
of its buffer of logs, ``max_records`` of this SDK, and its ``requests_per_second``, which is 100 by default as its
platform demands. All else, and everything in the other tables, is as the libraries have it by default.

CPU time is that of all threads of the client's process, from the first call until the last event has arrived: in the
first table without that of the task that measures the lag of the event loop; in the second also without that of the
same process with no client ("net"). RSS: what opening the client adds, and the largest growth afterwards.
"""

import argparse
import asyncio
import json
import statistics
import time
from collections.abc import Callable, Coroutine
from importlib import metadata
from pathlib import Path
from typing import Any

import bench
import peer_runs
import peer_tables
from peer_clients import KINDS
from peer_runs import NotMeasuredError, Result

import exponea_async

RATES = (300, 2_000)
#: What is measured: the usual extent, and the quick one.
USUAL = {
    "rounds": 3,
    "total": 20_000,
    "seconds": 9.0,
    "left": 1_000,
    "killed": 20_000,
    "outage": 2_000,
    "afterwards": 90.0,
}
QUICK = {**USUAL, "rounds": 1, "total": 5_000, "seconds": 3.0, "killed": 5_000, "afterwards": 30.0}

Results = dict[str, Any]


async def attempt(work: Coroutine[Any, Any, Result]) -> Result:
    """Return the figures of a client, or why it could not be measured."""
    try:
        return await work
    except NotMeasuredError as error:
        return {"error": str(error)}


def median(rounds: list[Result]) -> Result:
    """Return the median of each figure; of losses the largest."""
    if failed := [each for each in rounds if "error" in each]:
        return failed[0]
    return {name: (max if name == "lost" else statistics.median)(each[name] for each in rounds) for name in rounds[0]}


async def in_turn(kinds: list[str], rounds: int, work: Callable[[str], Coroutine[Any, Any, Result]]) -> Results:
    """Measure all clients in turn, several times, so that other load affects all of them; return medians."""
    measured: dict[str, list[Result]] = {kind: [] for kind in kinds}
    for _ in range(rounds):
        for kind in kinds:
            measured[kind].append(await attempt(work(kind)))
    return {kind: median(each) for kind, each in measured.items()}


async def full(kinds: list[str], extent: dict[str, Any]) -> Results:
    """Measure the first table."""
    return await in_turn(kinds, extent["rounds"], lambda kind: peer_runs.full(kind, extent["total"]))


async def paced(kinds: list[str], extent: dict[str, Any]) -> Results:
    """Measure the second table."""
    results: Results = {}
    for rate in RATES:

        async def work(kind: str, rate: int = rate) -> Result:
            return await peer_runs.paced(kind, rate, extent["seconds"])

        figures = await in_turn(["driver", *kinds], 1, work)
        for each in figures.values():
            if "error" not in each:
                each["net"] = each["gross"] - figures["driver"]["gross"]
        results[str(rate)] = figures
    return results


async def losses(kinds: list[str], extent: dict[str, Any]) -> Results:
    """Measure the third table. Nothing depends on speed in it, so the outages of all clients are at the same time."""
    left = await in_turn(kinds, 1, lambda kind: peer_runs.left(kind, extent["left"]))
    killed = await in_turn(kinds, 1, lambda kind: peer_runs.killed(kind, extent["killed"]))
    outages = await asyncio.gather(
        *[attempt(peer_runs.outage(kind, extent["outage"], extent["afterwards"])) for kind in kinds]
    )
    return {
        kind: {"left": left[kind], "killed": killed[kind], "outage": outage}
        for kind, outage in zip(kinds, outages, strict=True)
    }


def versions(kinds: list[str]) -> list[str]:
    """Return the names and versions of the clients' distributions."""
    found = {"exponea-async": exponea_async.__version__}
    for name in [name for kind in kinds for name in KINDS[kind].distributions]:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "not installed"
    return [f"{name} {version}" for name, version in found.items()]


def parsed() -> argparse.Namespace:
    """Return the options of the command line."""
    parser = argparse.ArgumentParser(description="Compare this SDK with its peers.")
    parser.add_argument("--quick", action="store_true", help="fewer events, one round")
    parser.add_argument("--only", default=",".join(KINDS), help=f"names, separated by commas: {', '.join(KINDS)}")
    parser.add_argument("--tables", default="1,2,3", help="which tables to measure, such as 1,3")
    parser.add_argument("--rounds", type=int, help="of the first table; 3 by default")
    parser.add_argument("--json", type=Path, help="write all figures to this file")
    parser.add_argument("--markdown", action="store_true", help="print the tables in Markdown")
    options = parser.parse_args()
    options.kinds = options.only.split(",")
    if unknown := set(options.kinds) - set(KINDS):
        parser.error(f"--only: expected some of {', '.join(KINDS)}, got {', '.join(sorted(unknown))}")
    return options


def main() -> None:
    """Measure the tables and print them."""
    options = parsed()
    extent = dict(QUICK if options.quick else USUAL)
    extent["rounds"] = options.rounds or extent["rounds"]
    output = peer_tables.Output(markdown=options.markdown, extent=extent)
    bench.headline("peers: this SDK compared with libraries for other platforms, all on the same machine")
    for line in versions(options.kinds):
        print(f"  {line}")
    results: Results = {"at": time.strftime("%Y-%m-%d %H:%M"), "versions": versions(options.kinds), "extent": extent}
    for number, measure, show in ((1, full, output.full), (2, paced, output.paced), (3, losses, output.losses)):
        if str(number) in options.tables.split(","):
            results[str(number)] = asyncio.run(measure(options.kinds, extent))
            show(results[str(number)])
    if options.json:
        options.json.write_text(json.dumps(results, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
