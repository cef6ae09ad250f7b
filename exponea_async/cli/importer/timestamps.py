"""
Timestamps on the command line and in files.
"""

import argparse
import re
from datetime import UTC, datetime, tzinfo
from functools import lru_cache
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from attrs import frozen

AUTO, SECONDS, ISO = "auto", "seconds", "iso"
#: How many of each unit a second has.
UNITS = {SECONDS: 1, "milliseconds": 1_000, "microseconds": 1_000_000}
ALIASES = {"s": SECONDS, "ms": "milliseconds", "us": "microseconds", "µs": "microseconds"}
#: For `AUTO`, the numbers below which the unit is the one named. Seconds from 1970 to 5138, milliseconds from 1973 on
#: and microseconds from 1973 on have no numbers in common.
LIMITS = ((1e11, SECONDS), (1e14, "milliseconds"), (1e17, "microseconds"))
_NUMBER = re.compile(r"[+-]?\d+(\.\d*)?", re.ASCII)
#: Such as 20240501, 202405011200 and 20240501120000.
_DATE_LIKE = re.compile(r"(19|20)\d{6}|(19|20)\d\d(0[1-9]|1[0-2])([012]\d|3[01])\d{4}(\d\d)?", re.ASCII)
EXPECTED = "auto, seconds, milliseconds, microseconds, iso or a pattern such as %Y%m%d"


@frozen
class TimestampFormat:
    """
    The format of timestamps.

    Args:
        pattern: A key of `UNITS`, ``"iso"``, a strptime pattern, or ``"auto"``: a number whose size tells its unit, or
            ISO 8601.
        zone: The time zone of timestamps without an offset.
    """

    pattern: str = AUTO
    zone: tzinfo = UTC

    def parse(self, value: Any, name: Any = None) -> float:
        """
        Return the UNIX seconds of a timestamp.

        Args:
            value: The timestamp as it is in the file.
            name: The format of this one timestamp; None or an empty string for that of all.

        Raises:
            ValueError: The value is not a timestamp, or it is ambiguous; the message says what is expected.
        """
        if isinstance(value, bool) or not isinstance(value, str | int | float):
            raise ValueError(f"must be a timestamp, got {value!r:.60}")  # noqa: TRY004 - a value of a file
        seconds = _parse(self._pattern(name), self.zone, str(value).strip())
        if seconds < 0:
            raise ValueError(f"must not be before 1970, which Engagement rejects, got {value!r:.60}")
        return seconds

    def _pattern(self, name: Any) -> str:
        if name is None or (isinstance(name, str) and not name.strip()):
            return self.pattern
        pattern = _known_pattern(str(name).strip())
        if pattern is None:
            raise ValueError(f"must be {EXPECTED}, got the format {name!r:.60}")
        return pattern


# Neighbouring lines often have the same date, and strptime is slow.
@lru_cache(maxsize=4096)
def _parse(pattern: str, zone: tzinfo, string: str) -> float:
    if pattern == AUTO:
        if _DATE_LIKE.fullmatch(string):
            raise ValueError(
                f"is ambiguous: {string!r} may be a date or seconds. "
                "Write a date as 2024-05-01, or choose a format such as %Y%m%d."
            )
        pattern = _unit(float(string)) if _NUMBER.fullmatch(string) else ISO
    if pattern in UNITS:
        return _number(string) / UNITS[pattern]
    try:
        time = datetime.fromisoformat(string) if pattern == ISO else datetime.strptime(string, pattern)  # noqa: DTZ007
    except ValueError:
        expected = "UNIX seconds or an ISO 8601 date" if pattern == ISO else f"a date of the form {pattern}"
        raise ValueError(f"must be {expected}, got {string[:60]!r}") from None
    return (time if time.tzinfo else time.replace(tzinfo=zone)).timestamp()


def _unit(number: float) -> str:
    for limit, unit in LIMITS:
        if abs(number) < limit:
            return unit
    raise ValueError(f"must be in seconds, milliseconds or microseconds, got {number:g}, which is too large for all")


def _number(string: str) -> float:
    if not _NUMBER.fullmatch(string):
        raise ValueError(f"must be a number, got {string[:60]!r}")
    return float(string)


def timestamp(string: str) -> float:
    """Parse a timestamp of the command line: UNIX seconds, or ISO 8601 in UTC unless it has an offset."""
    try:
        return TimestampFormat().parse(string)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def timestamp_pattern(string: str) -> str:
    """Parse the pattern of a `TimestampFormat`."""
    pattern = _known_pattern(string)
    if pattern is None:
        raise argparse.ArgumentTypeError(f"must be {EXPECTED}, got {string!r}")
    return pattern


def _known_pattern(string: str) -> str | None:
    pattern = ALIASES.get(string, string)
    return pattern if pattern in (AUTO, ISO, *UNITS) or "%" in pattern else None


def time_zone(string: str) -> tzinfo:
    """Parse the name of a time zone."""
    if string.upper() in ("UTC", "Z"):
        return UTC
    try:
        return ZoneInfo(string)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise argparse.ArgumentTypeError(f"must be a time zone such as Europe/Prague, got {string!r}") from None
