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

AUTO, SECONDS, MILLISECONDS, ISO = "auto", "seconds", "milliseconds", "iso"
_NUMBER = re.compile(r"[+-]?\d+(\.\d*)?", re.ASCII)
_DATE_LIKE = re.compile(r"(19|20)\d{6}", re.ASCII)


@frozen
class TimestampFormat:
    """
    The format of timestamps.

    Args:
        pattern: ``"seconds"``, ``"milliseconds"``, ``"iso"``, a strptime pattern, or ``"auto"``: seconds or ISO 8601.
        zone: The time zone of timestamps without an offset.
    """

    pattern: str = AUTO
    zone: tzinfo = UTC

    def parse(self, value: Any) -> float:
        """
        Return the UNIX seconds of a timestamp.

        Raises:
            ValueError: The value is not a timestamp, or it is ambiguous; the message says what is expected.
        """
        if isinstance(value, bool) or not isinstance(value, str | int | float):
            raise ValueError(f"must be a timestamp, got {value!r:.60}")  # noqa: TRY004 - a value of a file
        return _parse(self.pattern, self.zone, str(value).strip())


# Neighbouring lines often have the same date, and strptime is slow.
@lru_cache(maxsize=4096)
def _parse(pattern: str, zone: tzinfo, string: str) -> float:
    if pattern == AUTO:
        if _DATE_LIKE.fullmatch(string):
            raise ValueError(
                f"is ambiguous: {string!r} may be a date or seconds. "
                "Write a date as 2024-05-01, or choose a format such as %Y%m%d."
            )
        pattern = SECONDS if _NUMBER.fullmatch(string) else ISO
    if pattern in (SECONDS, MILLISECONDS):
        return _number(string) / (1000 if pattern == MILLISECONDS else 1)
    try:
        time = datetime.fromisoformat(string) if pattern == ISO else datetime.strptime(string, pattern)  # noqa: DTZ007
    except ValueError:
        expected = "UNIX seconds or an ISO 8601 date" if pattern == ISO else f"a date of the form {pattern}"
        raise ValueError(f"must be {expected}, got {string[:60]!r}") from None
    return (time if time.tzinfo else time.replace(tzinfo=zone)).timestamp()


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
    if string not in (AUTO, SECONDS, MILLISECONDS, ISO) and "%" not in string:
        raise argparse.ArgumentTypeError(
            f"must be seconds, milliseconds, iso or a pattern such as %Y%m%d, got {string!r}"
        )
    return string


def time_zone(string: str) -> tzinfo:
    """Parse the name of a time zone."""
    if string.upper() in ("UTC", "Z"):
        return UTC
    try:
        return ZoneInfo(string)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise argparse.ArgumentTypeError(f"must be a time zone such as Europe/Prague, got {string!r}") from None
