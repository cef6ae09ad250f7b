"""
Encodes values as canonical JSON bytes. Pure.

Most events are flat and clean, so the encoder tries the fast way first: it encodes the value as it is, and then looks
for signs of what needs care. Only if there are any, or if encoding fails, it walks through all values: the walk knows
the path of each value, converts what can be converted, and raises for the rest.

There are two codecs, orjson and the standard library. Which of them is used affects only the speed.
"""

import dataclasses
import json
import math
from collections.abc import Callable, Iterable, Mapping
from datetime import date, datetime
from decimal import Decimal
from enum import Enum
from typing import Any
from uuid import UUID

import attrs

from exponea_async._internal.validation import short_repr
from exponea_async.errors import InvalidEventError

try:
    import orjson
except ImportError:
    orjson = None  # type: ignore[assignment]

#: The platform requires each property to take less than this, in bytes of JSON.
MAX_VALUE = 16_384
#: The platform refuses a larger event or customer update, in bytes of JSON.
MAX_MESSAGE = 819_200
#: Levels of nesting, the properties themselves included. A value that is nested deeper probably contains itself.
MAX_DEPTH = 100

_SCALARS = frozenset({str, int, float, bool})
#: Hardly any JSON reader accepts smaller or larger integers, and orjson does not write them.
_MIN_INTEGER, _MAX_INTEGER = -(2**63), 2**64 - 1
_SUPPORTED = (
    "Use str, numbers, booleans, None, lists, dicts, aware datetime, date, Decimal, UUID, Enum, set, tuple, attrs or "
    "dataclass instances."
)


class _Absent:
    """The type of the marker for values that are left out of the JSON."""


_ABSENT = _Absent()


def encode_object(values: Mapping[str, Any], path: str) -> bytes:
    """
    Encode a mapping as a JSON object. None values are left out at every depth.

    Args:
        values: The mapping.
        path: The name of the mapping in errors.

    Raises:
        InvalidEventError: A value can't be represented in JSON, or takes 16 KB or more. The error names its path.
    """
    encoded = _encode_fast(values)
    if encoded is None:
        values = _walk_object(values, path, 0)
        encoded = _dumps(values)
    if len(encoded) > MAX_VALUE:
        _check_sizes(values, path)
    return encoded


def encode_string(value: str, path: str) -> bytes:
    """
    Encode a non-empty string as a JSON string.

    Raises:
        InvalidEventError: The value is not a string, or empty, or contains half a surrogate pair.
    """
    if not isinstance(value, str):
        raise InvalidEventError(path, f"expected a non-empty string, got {type(value).__name__}", "Pass a str.")
    if not value:
        raise InvalidEventError(path, "must be a non-empty string, got ''", "Pass a str that is not empty.")
    return _dumps(_walk_string(value, path))


def encode_number(number: float) -> bytes:
    """Encode a finite number."""
    return _dumps(number)


def unix_seconds(timestamp: datetime | float, path: str) -> float:
    """
    Return a timestamp as UNIX seconds.

    Raises:
        InvalidEventError: The timestamp is naive, not finite, or looks like milliseconds.
    """
    if isinstance(timestamp, datetime):
        if timestamp.utcoffset() is None:
            hint = "Use an aware datetime, such as datetime.now(UTC)."
            raise InvalidEventError(path, f"must have a time zone, got {timestamp!r}", hint)
        return timestamp.timestamp()
    if isinstance(timestamp, bool) or not isinstance(timestamp, int | float) or not abs(timestamp) < math.inf:
        trouble = f"expected a datetime or a finite number, got {short_repr(timestamp)}"
        raise InvalidEventError(path, trouble, "Use an aware datetime or UNIX seconds.")
    # Compared before the conversion to float, which fails for very large integers.
    if abs(timestamp) > 1e11:
        trouble = f"expected seconds, got {short_repr(timestamp)}, which looks like milliseconds"
        raise InvalidEventError(path, trouble, "Use UNIX seconds.")
    return float(timestamp)


# The fast way


def _orjson_fast(values: Mapping[str, Any]) -> bytes | None:
    if type(values) is not dict:
        return None
    try:
        encoded = orjson.dumps(values, None, _ORJSON_OPTIONS)
    except TypeError:
        return None
    # A null is a None, which is left out, or a float that JSON can't represent, or just a word in a string.
    return None if b"null" in encoded or _is_deep(encoded) else encoded


def _is_deep(encoded: bytes) -> bool:
    # The depth is at most the number of brackets, which is counted fast, and need not be in short JSON.
    if len(encoded) <= 2 * MAX_DEPTH or encoded.count(b"[") + encoded.count(b"{") <= MAX_DEPTH:
        return False
    # Many brackets may also be side by side, which the walk would take milliseconds to find out. orjson reads at most
    # 1,024 levels, so it fails if the value is too deep when all other levels are put around it.
    try:
        orjson.loads(_PADDING[0] + encoded + _PADDING[1])
    except orjson.JSONDecodeError:
        return True
    return False


def _json_fast(values: Mapping[str, Any]) -> bytes | None:
    # The standard encoder turns keys such as 1 or None into strings, so only flat objects with clean keys go this way.
    if type(values) is not dict:
        return None
    for key, value in values.items():
        if type(key) is not str or type(value) not in _SCALARS or (type(value) is int and not _fits(value)):
            return None
    try:
        return _json_dumps(values)
    except ValueError:  # a number that is not finite, or half a surrogate pair
        return None


def _json_dumps(value: Any) -> bytes:
    return _json_encode(value).encode()


# Neither cycles nor values that are nested too deeply get this far.
_json_encode = json.JSONEncoder(ensure_ascii=False, allow_nan=False, check_circular=False, separators=(",", ":")).encode
_encode_fast: Callable[[Mapping[str, Any]], bytes | None]
_dumps: Callable[[Any], bytes]
if orjson:
    _ORJSON_OPTIONS = (
        orjson.OPT_PASSTHROUGH_DATETIME | orjson.OPT_PASSTHROUGH_DATACLASS | orjson.OPT_PASSTHROUGH_SUBCLASS
    )
    _PADDING = (b"[" * (1024 - MAX_DEPTH), b"]" * (1024 - MAX_DEPTH))
    _encode_fast, _dumps = _orjson_fast, orjson.dumps
else:
    _encode_fast, _dumps = _json_fast, _json_dumps


def _fits(number: int) -> bool:
    return _MIN_INTEGER <= number <= _MAX_INTEGER


def _check_sizes(values: Mapping[str, Any], path: str) -> None:
    for key, value in values.items():
        size = len(_dumps(value))
        if size >= MAX_VALUE:
            trouble = f"must take less than {MAX_VALUE} bytes of JSON, got {size}"
            raise InvalidEventError(f"{path}.{key}", trouble, "Send a shorter value.")


# The walk


def _walk_object(values: Mapping[str, Any], path: str, depth: int) -> dict[str, Any]:
    if not isinstance(values, Mapping):
        raise InvalidEventError(path, f"expected a mapping, got {short_repr(values)}", "Use a dict with str keys.")
    _check_depth(path, depth)
    walked: dict[str, Any] = {}
    for key, value in values.items():
        if not isinstance(key, str):
            raise InvalidEventError(path, f"expected keys of type str, got {short_repr(key)}", "Use strings as keys.")
        name = _walk_string(key, path)
        plain = _walk(value, f"{path}.{name}", depth + 1)
        if plain is not _ABSENT:
            walked[name] = plain
    return walked


def _walk(value: Any, path: str, depth: int) -> Any:
    """Return a value as plain JSON types, or `_ABSENT`."""
    if value is None:
        return _ABSENT
    walk = _BY_TYPE.get(type(value)) or _find_walk(value)
    if walk is None:
        found = f"the class {value.__qualname__}" if isinstance(value, type) else type(value).__qualname__
        raise InvalidEventError(path, f"expected a value that JSON can represent, got {found}", _SUPPORTED)
    return walk(value, path, depth)


def _check_depth(path: str, depth: int) -> None:
    if depth >= MAX_DEPTH:
        trouble = f"must be nested at most {MAX_DEPTH} levels deep"
        raise InvalidEventError(path[:200], trouble, "Check whether the value contains itself.")


def _find_walk(value: Any) -> "_Walk | None":
    if isinstance(value, type):
        return None
    for kinds, walk in _BY_KIND:
        if isinstance(value, kinds):
            return walk
    return _walk_fields if attrs.has(type(value)) or dataclasses.is_dataclass(value) else None


def _walk_fields(value: Any, path: str, depth: int) -> dict[str, Any]:
    kind = type(value)
    fields: Iterable[Any] = attrs.fields(kind) if attrs.has(kind) else dataclasses.fields(value)
    # A dataclass field with init=False may never have been set.
    return _walk_object({each.name: getattr(value, each.name, None) for each in fields}, path, depth)


def _walk_string(value: str, path: str, _depth: int = 0) -> str:
    string = str.__str__(value)
    try:
        string.encode()
    except UnicodeEncodeError:
        trouble = f"must be valid Unicode, got {short_repr(string)} with half a surrogate pair"
        raise InvalidEventError(path, trouble, "Remove or replace the surrogate.") from None
    return string


def _walk_int(value: int, path: str, _depth: int) -> int:
    if not _fits(value):
        raise InvalidEventError(path, "must fit into 64 bits", "Send the number as a string.")
    return int(value)


def _walk_float(value: float | Decimal, path: str, _depth: int) -> float:
    try:
        number = float(value)
    except ValueError:  # a signalling NaN of Decimal
        number = math.nan
    if not math.isfinite(number):
        trouble = f"must be a finite number, got {short_repr(value)}"
        raise InvalidEventError(path, trouble, "Leave the value out, or send it as a string.")
    return number


def _walk_list(value: Any, path: str, depth: int) -> list[Any]:
    _check_depth(path, depth)
    walked = (_walk(item, f"{path}[{index}]", depth + 1) for index, item in enumerate(value))
    return [item for item in walked if item is not _ABSENT]


def _walk_set(value: Any, path: str, depth: int) -> list[Any]:
    # A set is unordered, but equal sets must give the same bytes with both codecs.
    return sorted(_walk_list(value, path, depth), key=repr)


_Walk = Callable[[Any, str, int], Any]
# The order matters: an Enum may also be a str, a bool is an int, and a datetime is a date.
_BY_KIND: tuple[tuple[Any, _Walk], ...] = (
    (Enum, lambda value, path, depth: _walk(value.value, path, depth)),
    (str, _walk_string),
    (bool, lambda value, _path, _depth: value),
    (int, _walk_int),
    ((float, Decimal), _walk_float),
    (datetime, lambda value, path, _depth: unix_seconds(value, path)),
    (date, lambda value, _path, _depth: value.isoformat()),
    (UUID, lambda value, _path, _depth: str(value)),
    (Mapping, _walk_object),
    ((list, tuple), _walk_list),
    ((set, frozenset), _walk_set),
)
# The usual types, found without a search.
_BY_TYPE: Mapping[type, _Walk] = {
    kind: next(walk for kinds, walk in _BY_KIND if issubclass(kind, kinds))
    for kind in (str, int, float, bool, dict, list, tuple, datetime, date, Decimal, UUID)
}
