"""
What the benchmarks share: events, settings, clocks and the output.

On a busy machine a single figure means little, so each is printed with a limit measured in the same run, as a ratio.
"""

import os
import platform
import sqlite3
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, TypeVar

if "--without-orjson" in sys.argv:
    # Set before the package is imported, because it selects its JSON encoder then.
    sys.modules["orjson"] = None  # type: ignore[assignment]

import results
from meters import cpu as cpu  # noqa: PLC0414 - a part of this module
from meters import percentile as percentile  # noqa: PLC0414
from meters import resident as resident  # noqa: PLC0414

from exponea_async import Configuration, Event, Exponea, FlushMode, QueueSettings, UploadSettings

T = TypeVar("T")
#: The arguments of the command without its options.
ARGUMENTS = [each for each in sys.argv[1:] if not each.startswith("--")]


def event(number: int) -> Event:
    """Return an event with five properties, as a shop would track it."""
    return Event(
        "view_item",
        {"item_id": f"sku-{number % 997}", "price": 12.5, "quantity": number % 7, "category": "mugs", "in_stock": True},
    )


def configuration(storage: Path | str, base_url: str = "http://127.0.0.1:9", **changes: Any) -> Configuration:
    """Return settings with which nothing is uploaded except by a flush."""
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
    """Make a customer, who has no session, the current subject inside the block."""
    with exponea.bind(exponea.for_customer({"registered": "jane@example.com"})):
        yield


@contextmanager
def folder() -> Iterator[Path]:
    """Create a temporary folder on disk for the duration of the block."""
    with tempfile.TemporaryDirectory(prefix="exponea-bench-") as path:
        yield Path(path)


def median_of(times: int, measure: Callable[[], float]) -> float:
    """Measure several times and return the median."""
    return statistics.median(measure() for _ in range(times))


def size(usual: T, quick: T, long: T | None = None) -> T:
    """Return the extent of a measurement: with ``--quick``, it only shows that the program works."""
    if "--quick" in sys.argv:
        return quick
    return long if long is not None and "--long" in sys.argv else usual


def headline(title: str) -> None:
    """Print what is measured, on which machine, and the command that measures it again."""
    codec = "json of the standard library" if sys.modules.get("orjson") is None else "orjson"
    print(f"\n{title}")
    print(f"  command  python {' '.join(sys.argv)}")
    print(
        f"  machine  {os.cpu_count()} cores, {platform.machine()}, {platform.system()} {platform.release()},"
        f" Python {platform.python_version()}, SQLite {sqlite3.sqlite_version}, {codec}"
    )
    print(f"  load     {os.getloadavg()[0]:.1f} at the start, {time.strftime('%Y-%m-%d %H:%M')}\n")


def row(label: str, figure: str, ratio: str = "", target: str = "") -> None:
    """Print one line of a table, and record it."""
    print(f"  {label:<58} {figure:>16} {ratio:>10}  {target}")
    results.add(label, figure, ratio, target)


def record(label: str, figure: str) -> None:
    """Record a figure that is printed elsewhere."""
    results.add(label, figure, "", "")
