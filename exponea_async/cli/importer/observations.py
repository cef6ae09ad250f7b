"""
What looks like a mistake in a file, although every line by itself is valid.
"""

import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from attrs import define, field

from exponea_async.cli.terminal import number
from exponea_async.models import Customer, Event

#: How many ids and how many events are remembered at most, to compare others with them.
MAX_IDS, MAX_EVENTS = 100_000, 200_000
#: 1980-01-01. A timestamp of today that is read in too large a unit is in January 1970.
EARLY = 315_532_800.0
DAY = 86_400.0


@define
class _Count:
    """How often something was seen, and what it was the first time."""

    count: int = 0
    first: str = ""

    def add(self, first: str) -> None:
        """Count it once more."""
        self.first = self.first or first
        self.count += 1


@define(eq=False)
class Observations:
    """
    Compares the lines of a file with each other and with the clock.

    Attributes:
        earliest: The earliest timestamp, UNIX seconds; None if there is none.
        latest: The latest one.
        is_complete: Whether all ids and events were compared; beyond a limit no more are remembered.
    """

    earliest: float | None = None
    latest: float | None = None
    is_complete: bool = True
    _similar: _Count = field(factory=_Count)
    _equal: _Count = field(factory=_Count)
    _future: _Count = field(factory=_Count)
    _early: _Count = field(factory=_Count)
    _tomorrow: float = field(factory=lambda: time.time() + DAY)
    _ids: dict[tuple[str, str], str] = field(factory=dict)
    _reported: set[tuple[str, str]] = field(factory=set)
    _events: set[int] = field(factory=set)

    @property
    def customers(self) -> int:
        """How many customers there are, by the ids that were remembered; several spellings of one id count once."""
        return len(self._ids)

    def add_event(self, line: int, ids: Mapping[str, str], event: Event) -> None:
        """Look at the event of a line."""
        self._compare_ids(line, ids)
        timestamp = event.timestamp
        if isinstance(timestamp, float):
            self._look_at(line, timestamp)
        self._compare_event(line, hash((event.name, timestamp, repr(ids), repr(event.properties))))

    def add_customer(self, line: int, customer: Customer) -> None:
        """Look at the customer of a line."""
        self._compare_ids(line, customer.ids)

    def _compare_ids(self, line: int, ids: Mapping[str, str]) -> None:
        for kind, value in ids.items():
            key = (kind, "".join(value.split()).casefold())
            other = self._ids.get(key)
            if other is None:
                if len(self._ids) < MAX_IDS:
                    self._ids[key] = value
                else:
                    self.is_complete = False
            elif other != value and key not in self._reported:
                self._reported.add(key)
                self._similar.add(f"{value!r} in line {number(line)} and {other!r} before it")

    def _look_at(self, line: int, timestamp: float) -> None:
        self.earliest = timestamp if self.earliest is None else min(self.earliest, timestamp)
        self.latest = timestamp if self.latest is None else max(self.latest, timestamp)
        if timestamp > self._tomorrow:
            self._future.add(f"{day(timestamp)} in line {number(line)}")
        elif timestamp < EARLY:
            self._early.add(f"{day(timestamp)} in line {number(line)}")

    def _compare_event(self, line: int, digest: int) -> None:
        if digest in self._events:
            self._equal.add(f"line {number(line)}")
        elif len(self._events) < MAX_EVENTS:
            self._events.add(digest)
        else:
            self.is_complete = False

    def warnings(self) -> list[str]:
        """Return what looks like a mistake, each in a sentence."""
        found = [
            (
                self._similar,
                "ids that differ only in case or blanks, and are different customers: {count}, such as {first}",
            ),
            (
                self._equal,
                "events that equal one before and are stored only once (see --line-number): {count}, first in {first}",
            ),
            (self._future, "timestamps that are later than tomorrow: {count}, such as {first}"),
            (
                self._early,
                "timestamps before 1980, as of a wrong unit: {count}, such as {first}; see --timestamp-format",
            ),
        ]
        lines = [text.format(count=number(each.count), first=each.first) for each, text in found if each.count]
        if not self.is_complete:
            lines.append(
                f"only the first {number(MAX_IDS)} ids and {number(MAX_EVENTS)} events were compared with each other"
            )
        return lines

    def as_json(self) -> dict[str, Any]:
        """Return the number of each kind of mistake."""
        return {
            "similar_ids": self._similar.count,
            "equal_events": self._equal.count,
            "future": self._future.count,
            "early": self._early.count,
            "all_compared": self.is_complete,
        }


def day(timestamp: float) -> str:
    """Return the day of a timestamp in UTC, or the seconds of one that is beyond any calendar."""
    try:
        return datetime.fromtimestamp(timestamp, UTC).date().isoformat()
    except (ValueError, OverflowError, OSError):
        return f"{timestamp:g} s"
