"""
The rules of what users pass to the public coroutines: one for each kind of field. Pure.

A function returns the value as the SDK goes on with it, and raises an `InvalidEventError` that names the field.
"""

import math
import sys
from asyncio import CancelledError
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any
from uuid import UUID

from exponea_async._internal.lazy import LazyModule
from exponea_async._internal.validation import short_repr
from exponea_async.errors import InvalidEventError

if TYPE_CHECKING:
    import numbers
else:
    numbers = LazyModule("numbers")

#: Returns an id as it is to be used, from its type and its value.
Normalizer = Callable[[str, str], str]

#: Values that the platform accepts as no id: JavaScript makes them of a value that is missing.
_MISSING_IDS = frozenset({"null", "undefined"})


def read_text(value: Any, path: str, hint: str, *, is_secret: bool = False) -> str:
    """
    Return a text such as the name of an event, the key of a device, or a token: any string that is not blank.

    Args:
        value: The text.
        path: The name of the field.
        hint: What to do in case of an error.
        is_secret: Whether the error must not show the value.

    Raises:
        InvalidEventError: It is not a string, or blank, or contains half a surrogate pair.
    """
    if not isinstance(value, str) or not value.strip():
        given = "a blank string" if isinstance(value, str) else type(value).__name__
        given = given if is_secret or not isinstance(value, str) else short_repr(value)
        raise InvalidEventError(path, f"expected a non-blank string, got {given}", hint)
    return plain_string(value, path, is_secret=is_secret)


def plain_string(value: str, path: str, *, is_secret: bool = False) -> str:
    """
    Return an instance of a subclass of str as a str.

    Raises:
        InvalidEventError: It contains half a surrogate pair, which can't be stored or sent.
    """
    string = str.__str__(value)
    try:
        string.encode()
    except UnicodeEncodeError:
        given = "a string" if is_secret else short_repr(string)
        trouble = f"must be valid Unicode, got {given} with half a surrogate pair"
        raise InvalidEventError(path, trouble, "Remove or replace the surrogate.") from None
    return string


def read_reference(value: Any, path: str, hint: str) -> str:
    """
    Return what refers to something, such as a product: a string that is not blank, or a UUID as a string.

    Raises:
        InvalidEventError: It is neither.
    """
    return str(value) if isinstance(value, UUID) else read_text(value, path, hint)


def read_id(kind: Any, value: Any, path: str, normalize: Normalizer | None = None) -> tuple[str, str]:
    """
    Return the type and the value of a customer's id, the value without blanks round it, as the platform uses it.

    Args:
        kind: The type of the id.
        value: Its value, a string or a UUID.
        path: The name of the field that has all ids.
        normalize: The function of the application that normalizes ids.

    Raises:
        InvalidEventError: The type is not a non-blank string, or the platform would refuse the value.
    """
    kind = read_text(kind, path, "Use ids such as {'registered': 'jane@example.com'}.")
    path = f"{path}.{kind}"
    string = _check_id(value, path)
    if normalize is None:
        return kind, string
    try:
        normalized = normalize(kind, string)
    except (Exception, CancelledError) as error:  # a function of the application may raise anything
        trouble = f"can't be normalized: normalize_id raised {type(error).__name__}"
        raise InvalidEventError(path, trouble, "Correct the function.") from error
    return kind, _check_id(normalized, path)


def _check_id(value: Any, path: str) -> str:
    string = read_reference(value, path, "Use the id as a string; leave out an id that is not known.").strip()
    if string in _MISSING_IDS:
        trouble = f"expected an id, got {string!r}, which the platform refuses"
        raise InvalidEventError(path, trouble, "Leave out an id that is not known.")
    if not any(map(str.isalnum, string)):
        trouble = f"expected an id with a letter or a digit, got {short_repr(string)}, which the platform refuses"
        raise InvalidEventError(path, trouble, "Leave out an id that is not known.")
    return string


def read_mapping(properties: Any) -> dict[str, Any]:
    """
    Return properties as a dict.

    Raises:
        InvalidEventError: They are not a mapping, or can't be read.
    """
    try:
        if isinstance(properties, Mapping):
            return dict(properties)
    except Exception as error:  # a mapping of the application, whose methods may raise anything
        trouble = f"can't be read: the {type(properties).__qualname__} raised {type(error).__name__}"
        raise InvalidEventError("properties", trouble, "Use a dict.") from error
    raise InvalidEventError("properties", f"expected a mapping, got {short_repr(properties)}", "Use a dict.")


def read_number(number: Any, path: str, hint: str) -> float:
    """
    Return a number: an int, or a float of anything else, such as a Decimal.

    Raises:
        InvalidEventError: It is not a finite number.
    """
    finite = _finite(number)
    if finite is None:
        raise InvalidEventError(path, f"expected a finite number, got {short_repr(number)}", hint)
    return int(number) if isinstance(number, int) else finite


def read_timeout(timeout: Any, path: str = "timeout") -> float | None:
    """
    Return the maximum duration of a call in seconds; None, also for infinity, is no limit.

    Raises:
        InvalidEventError: It is neither a number of 0 or more, nor a timedelta of that, nor None.
    """
    if timeout is None or timeout == math.inf:
        return None
    seconds = _finite(timeout.total_seconds() if isinstance(timeout, timedelta) else timeout)
    if seconds is None or seconds < 0:
        trouble = f"expected seconds of 0 or more, or None, got {short_repr(timeout)}"
        raise InvalidEventError(path, trouble, "Use a number, a timedelta, or None for no limit.")
    return seconds


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


def is_decimal(value: Any) -> bool:
    """Return whether a value is a `Decimal`. Their module takes long to import; where there is one, it is imported."""
    # Another thread may be importing it just now.
    kind = getattr(sys.modules.get("decimal"), "Decimal", None)
    return kind is not None and isinstance(value, kind)


def _finite(number: Any) -> float | None:
    """Return a number as a float, or None if it is not a finite number. An int may be too large for a float."""
    if isinstance(number, bool):
        return None
    if isinstance(number, int):
        return float(number) if abs(number) < 10**300 else 1e300
    if is_decimal(number):
        if number.is_nan():  # float() raises for a signalling one
            return None
    elif not isinstance(number, float) and not isinstance(number, numbers.Real):
        return None
    return float(number) if math.isfinite(number) else None
