"""
The rules of what users pass to the public coroutines: one for each kind of field. Pure.

A function returns the value as the SDK goes on with it, and raises an `InvalidEventError` that names the field.
"""

import math
from datetime import datetime
from decimal import Decimal
from typing import Any

from exponea_async._internal.validation import short_repr
from exponea_async.errors import InvalidEventError


def read_timestamp(timestamp: Any, path: str) -> float:
    """
    Return a timestamp as UNIX seconds.

    Args:
        timestamp: An aware datetime, or a number of seconds.
        path: The name of the field.

    Raises:
        InvalidEventError: It is naive, not finite, or looks like milliseconds.
    """
    if isinstance(timestamp, datetime):
        return _datetime_seconds(timestamp, path)
    seconds = _finite(timestamp)
    if seconds is None:
        trouble = f"expected a datetime or a finite number, got {short_repr(timestamp)}"
        raise InvalidEventError(path, trouble, "Use an aware datetime or UNIX seconds.")
    if abs(seconds) > 1e11:
        trouble = f"expected seconds, got {short_repr(timestamp)}, which looks like milliseconds"
        raise InvalidEventError(path, trouble, "Use UNIX seconds.")
    return seconds


def _datetime_seconds(timestamp: datetime, path: str) -> float:
    try:
        seconds = None if timestamp.utcoffset() is None else timestamp.timestamp()
    except Exception as error:  # as of NaT in pandas, a datetime whose methods raise
        trouble = f"expected an aware datetime, got a {type(timestamp).__qualname__} that raised {type(error).__name__}"
        raise InvalidEventError(path, trouble, "Leave missing timestamps out.") from error
    if seconds is None:
        hint = "Use an aware datetime, such as datetime.now(UTC)."
        raise InvalidEventError(path, f"must have a time zone, got {short_repr(timestamp)}", hint)
    return seconds


def _finite(number: Any) -> float | None:
    """Return a number as a float, or None if it is not a finite number. An int may be too large for a float."""
    if isinstance(number, bool) or not isinstance(number, int | float | Decimal):
        return None
    if isinstance(number, int):
        return float(number) if abs(number) < 10**300 else 1e300
    if isinstance(number, Decimal) and number.is_nan():  # float() raises for a signalling one
        return None
    return float(number) if math.isfinite(number) else None
