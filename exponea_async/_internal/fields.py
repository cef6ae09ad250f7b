"""
Readers of the fields of JSON objects, and a check of the fields of values that callers pass back. Pure.

A converter, such as `as_string`, takes one decoded JSON value and raises a `FieldError` if it is of another type. A
reader applies a converter to a field::

    message = {"id": "welcome", "title": 7}
    required(message, "id", as_string, max_length=1_000)  # raises a FieldError if missing or wrong
    optional(message, "title", as_string)                 # None if missing or wrong
    nullable(message, "to_date", as_number)               # None if missing or null, a FieldError if wrong

A bool is never a number here, although Python's is an int.
"""

import math
from collections.abc import Callable, Mapping
from types import UnionType
from typing import Any, Concatenate, ParamSpec, TypeVar

from exponea_async.errors import InvalidEventError

P = ParamSpec("P")
T = TypeVar("T")

#: Larger integers fit neither SQLite nor most JSON readers.
MAX_INTEGER = 2**63 - 1
#: A timestamp beyond this is not in seconds: as seconds it would be in the year 5138, as milliseconds in 1973.
MAX_TIMESTAMP = 1e11

#: The types that the fields of a value must have, by name.
FieldTypes = Mapping[str, type | UnionType]


class FieldError(ValueError):
    """A field is missing, or its value is not of the expected type."""


def required(
    source: Mapping[str, Any],
    name: str,
    convert: Callable[Concatenate[Any, P], T],
    *args: P.args,
    **options: P.kwargs,
) -> T:
    """
    Return a field.

    Raises:
        FieldError: The field is missing, or the converter does not accept its value; names the field.
    """
    if name not in source:
        raise FieldError(f"{name}: missing")
    try:
        return convert(source[name], *args, **options)
    except FieldError as error:
        raise FieldError(f"{name}: {error}") from None


def nullable(
    source: Mapping[str, Any],
    name: str,
    convert: Callable[Concatenate[Any, P], T],
    *args: P.args,
    **options: P.kwargs,
) -> T | None:
    """
    Return a field, or None if it is missing or null.

    Raises:
        FieldError: The converter does not accept its value; names the field.
    """
    return None if source.get(name) is None else required(source, name, convert, *args, **options)


def optional(
    source: Mapping[str, Any],
    name: str,
    convert: Callable[Concatenate[Any, P], T],
    *args: P.args,
    **options: P.kwargs,
) -> T | None:
    """Return a field, or None if it is missing, null, or not accepted by the converter."""
    value = source.get(name)
    if value is None:
        return None
    try:  # suppress() would take as long as the rest
        return convert(value, *args, **options)
    except FieldError:
        return None


def as_string(
    value: Any, *, max_length: int | None = None, allow_empty: bool = True, coerce: tuple[type, ...] = ()
) -> str:
    """
    Return a string.

    Args:
        value: The value.
        max_length: Maximum length in characters.
        allow_empty: Whether the empty string is accepted.
        coerce: Which of int, float and bool are accepted, too, and written as in JSON.
    """
    if not isinstance(value, str):
        value = _scalar_as_string(value, coerce)
    if not value and not allow_empty:
        raise FieldError("expected a non-empty string, got ''")
    if max_length is not None and len(value) > max_length:
        raise FieldError(f"expected at most {max_length:,} characters, got {len(value):,}")
    return str(value)


def as_integer(value: Any, *, limit: int = MAX_INTEGER, coerce: tuple[type, ...] = ()) -> int:
    """
    Return an integer.

    Args:
        value: The value.
        limit: Largest absolute value.
        coerce: Accept also float, if it is a whole number, and str, if it consists of digits.
    """
    if not _is_number(value, (int, *coerce)):
        raise FieldError(_mismatch("an integer", value))
    try:
        number = int(value)
    except (ValueError, OverflowError):  # a string of something else; a float that is not finite
        raise FieldError(_mismatch("an integer", value)) from None
    if isinstance(value, float) and number != value:
        raise FieldError("expected an integer, got a fraction")
    if abs(number) > limit:
        raise FieldError(f"expected an integer between -{limit} and {limit}")
    return number


def as_number(value: Any, *, limit: float = math.inf, coerce: tuple[type, ...] = ()) -> float:
    """
    Return a finite number as a float.

    Args:
        value: The value.
        limit: Largest absolute value.
        coerce: Accept also str, if it is written like a number.
    """
    if not _is_number(value, (int, float, *coerce)):
        raise FieldError(_mismatch("a number", value))
    try:
        number = float(value)
    except (ValueError, OverflowError):  # a string of something else; an int beyond the range of floats
        raise FieldError(_mismatch("a number", value)) from None
    if not math.isfinite(number):
        raise FieldError("expected a finite number")
    if abs(number) > limit:
        raise FieldError(f"expected a number between -{limit:g} and {limit:g}")
    return number


def as_timestamp(value: Any, *, coerce: tuple[type, ...] = ()) -> float:
    """
    Return a UNIX timestamp in seconds. One that looks like milliseconds is not accepted.

    Args:
        value: The value.
        coerce: Accept also str, if it is written like a number.
    """
    return as_number(value, limit=MAX_TIMESTAMP, coerce=coerce)


def as_boolean(value: Any) -> bool:
    """Return a boolean."""
    if not isinstance(value, bool):
        raise FieldError(_mismatch("a boolean", value))
    return value


def as_mapping(value: Any) -> Mapping[str, Any]:
    """Return a JSON object."""
    if not isinstance(value, Mapping):
        raise FieldError(_mismatch("an object", value))
    return value


def as_list(value: Any) -> list[Any]:
    """Return a list."""
    if not isinstance(value, list):
        raise FieldError(_mismatch("a list", value))
    return value


def as_mappings(value: Any) -> list[Mapping[str, Any]]:
    """Return the JSON objects in a list; its other elements are left out."""
    return [each for each in as_list(value) if isinstance(each, Mapping)]


def is_encodable(value: object) -> bool:
    """Return whether a value is a string that UTF-8 can encode, i.e. without half a surrogate pair."""
    if not isinstance(value, str):
        return False
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def check_fields(path: str, value: object, types: FieldTypes) -> None:
    """
    Check the fields of a value that a caller passes back, for example a message that was changed by hand.

    Args:
        path: What the value is called in the error.
        value: The value.
        types: The type of each field that is used.

    Raises:
        InvalidEventError: A field has another type.
    """
    for name, kind in types.items():
        found = getattr(value, name)
        if not isinstance(found, kind):
            trouble = f"expected {_type_name(kind)}, got {type(found).__name__}"
            raise InvalidEventError(f"{path}.{name}", trouble, "Pass the object unmodified.")


def _scalar_as_string(value: Any, coerce: tuple[type, ...]) -> str:
    # By the very type: otherwise bool would count as int.
    if type(value) not in coerce or (isinstance(value, float) and not math.isfinite(value)):
        raise FieldError(_mismatch("a string", value))
    try:
        return str(value).lower() if isinstance(value, bool) else str(value)
    except ValueError:  # an int of more digits than Python is willing to print
        raise FieldError(_mismatch("a string", value)) from None


def _is_number(value: object, types: tuple[type, ...]) -> bool:
    return isinstance(value, types) and not isinstance(value, bool)


def _mismatch(expected: str, value: object) -> str:
    return f"expected {expected}, got {'None' if value is None else type(value).__name__}"


def _type_name(kind: type | UnionType) -> str:
    return kind.__name__ if isinstance(kind, type) else " or ".join(each.__name__ for each in kind.__args__)
