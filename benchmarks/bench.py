"""
What the benchmarks share: events, clients, clocks, and how figures are printed.

Figures of a busy machine mean little by themselves, so each is printed beside a limit of the same run, as a ratio.
"""

import os
import platform
import resource
import sqlite3
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

if "--without-orjson" in sys.argv:
    # Before the package is imported, which looks for it.
    sys.modules["orjson"] = None  # type: ignore[assignment]

from exponea_async import Configuration, Event, Exponea, FlushMode, QueueSettings, UploadSettings


def event(number: int) -> Event:
    """Make an event of five properties, as a shop would track it."""
    return Event(
        "view_item",
        {"item_id": f"sku-{number % 997}", "price": 12.5, "quantity": number % 7, "category": "mugs", "in_stock": True},
    )


def configuration(storage: Path, base_url: str = "http://127.0.0.1:9", **changes: Any) -> Configuration:
    """Make settings under which nothing is uploaded unless it is asked for."""
    settings: dict[str, Any] = {
        "project_token": "bench",
        "authorization_token": "key",
        "base_url": base_url,
        "storage": storage,
        "flush_mode": FlushMode.MANUAL,
        "default_properties": {"channel": "web"},
        "queue": QueueSettings(max_records=10_000_000),
        "upload": UploadSettings(requests_per_second=1e6),
    }
    return Configuration(**{**settings, **changes})


@asynccontextmanager
async def customer(exponea: Exponea) -> AsyncIterator[None]:
    """Track for a customer, who has no session, inside a block."""
    with exponea.bind(exponea.for_customer({"registered": "jane@example.com"})):
        yield


@contextmanager
def folder() -> Iterator[Path]:
    """Give a folder on disk for the length of a block."""
    with tempfile.TemporaryDirectory(prefix="exponea-bench-") as path:
        yield Path(path)


def median_of(times: int, measure: Callable[[], float]) -> float:
    """Measure several times and tell the median."""
    return statistics.median(measure() for _ in range(times))


def percentile(values: Sequence[float], share: float) -> float:
    """Tell the value that a share of the values does not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


def cpu() -> float:
    """Tell the seconds of CPU that this process has used, all threads together."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def resident() -> float:
    """Tell the megabytes of memory that this process has now."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def headline(title: str) -> None:
    """Say what is measured, where, and how to measure it again."""
    codec = "json of the standard library" if sys.modules.get("orjson") is None else "orjson"
    print(f"\n{title}")
    print(f"  command  python {' '.join(sys.argv)}")
    print(
        f"  machine  {os.cpu_count()} cores, {platform.machine()}, {platform.system()} {platform.release()},"
        f" Python {platform.python_version()}, SQLite {sqlite3.sqlite_version}, {codec}"
    )
    print(f"  load     {os.getloadavg()[0]:.1f} at the start, {time.strftime('%Y-%m-%d %H:%M')}\n")


def row(label: str, figure: str, ratio: str = "", target: str = "") -> None:
    """Print one line of a table."""
    print(f"  {label:<58} {figure:>16} {ratio:>10}  {target}")
