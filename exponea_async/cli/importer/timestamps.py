"""
Moments as people and files write them.
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
class Format:
    """
    How moments are written.

    Args:
        pattern: ``"seconds"``, ``"milliseconds"``, ``"iso"``, a pattern of strptime's, or ``"auto"``: seconds or ISO.
        zone: Where the clock hung that shows times without an offset.
    """

    pattern: str = AUTO
    zone: tzinfo = UTC

    def read(self, value: Any) -> float:
        """
        Read a moment as UNIX seconds.

        Raises:
            ValueError: It is none, or not for sure; says so in words.
        """
        if isinstance(value, bool) or not isinstance(value, str | int | float):
            raise ValueError(f"{value!r:.60} is no moment")  # noqa: TRY004 - of a value from a file
        return _read(self.pattern, self.zone, str(value).strip())


# Neighbouring lines often tell the same day, and strptime is slow.
@lru_cache(maxsize=4096)
def _read(pattern: str, zone: tzinfo, text: str) -> float:
    if pattern == AUTO:
        if _DATE_LIKE.fullmatch(text):
            raise ValueError(f"{text!r} may be a date or seconds; tell the format, such as %Y%m%d or seconds")
        pattern = SECONDS if _NUMBER.fullmatch(text) else ISO
    if pattern in (SECONDS, MILLISECONDS):
        return _number(text) / (1000 if pattern == MILLISECONDS else 1)
    try:
        moment = datetime.fromisoformat(text) if pattern == ISO else datetime.strptime(text, pattern)  # noqa: DTZ007
    except ValueError:
        what = "neither seconds nor an ISO date" if pattern == ISO else f"not of the form {pattern}"
        raise ValueError(f"{text[:60]!r} is {what}") from None
    return (moment if moment.tzinfo else moment.replace(tzinfo=zone)).timestamp()


def _number(text: str) -> float:
    if not _NUMBER.fullmatch(text):
        raise ValueError(f"{text[:60]!r} is no number")
    return float(text)


def moment(text: str) -> float:
    """Read a moment of the command line: seconds, or ISO in UTC where it tells no offset."""
    try:
        return Format().read(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def pattern(text: str) -> str:
    """Read the name of a format."""
    if text not in (AUTO, SECONDS, MILLISECONDS, ISO) and "%" not in text:
        raise argparse.ArgumentTypeError(f"{text!r} is none of seconds, milliseconds, iso, or a pattern such as %Y%m%d")
    return text


def zone(text: str) -> tzinfo:
    """Read the name of a time zone."""
    if text.upper() in ("UTC", "Z"):
        return UTC
    try:
        return ZoneInfo(text)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise argparse.ArgumentTypeError(f"{text!r} is no time zone, such as Europe/Prague") from None
