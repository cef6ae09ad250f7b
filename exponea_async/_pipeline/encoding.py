"""
Values to canonical JSON bytes. Pure.

Most events are flat and clean, so the encoder tries the fast way first: encode, then look at the bytes for signs of
what needs care (a ``null``, a huge number, a large value). Only then, or when encoding fails, every value is walked:
the walk knows the path of what it meets, converts what can be converted, and raises for the rest.
"""

import dataclasses
import json
import math
import re
from collections.abc import Callable, Mapping
from datetime import date, datetime
from decimal import Decimal
from enum import Enum
from typing import Any
from uuid import UUID

import attrs

from exponea_async.errors import InvalidEventError

try:
    import orjson
except ImportError:
    orjson = None  # type: ignore[assignment]

#: The platform refuses a property whose value takes more than this, in bytes of JSON.
MAX_VALUE = 16_384
#: The platform refuses an event or a customer update larger than this, in bytes of JSON.
MAX_MESSAGE = 819_200
#: Levels of nesting beyond which a value is taken for one that contains itself.
MAX_DEPTH = 100

_SCALARS = frozenset({str, int, float, bool})
_DIGITS = re.compile(rb"\d{19}")
_KNOWN = (
    "Give text, numbers, booleans, None, lists, dicts, datetime (aware), date, Decimal, UUID, Enum, set, tuple, "
    "attrs or dataclass instances."
)


class _Absent:
    """Marks what is left out of the JSON."""


_ABSENT = _Absent()


def encode_object(values: Mapping[str, Any], path: str) -> bytes:
    """
    Encode a mapping as a JSON object, None values left out at every depth.

    Args:
        values: What to encode.
        path: Its name, for messages.

    Raises:
        InvalidEventError: A value can't be told in JSON, or is larger than 16 KB; names its path.
    """
    encoded = _encode_fast(values)
    if encoded is None or b"null" in encoded or _DIGITS.search(encoded):
        values = _walk_object(values, path, 0)
        encoded = _dumps(values)
    if len(encoded) > MAX_VALUE:
        _check_sizes(values, path)
    return encoded


def decode(data: bytes) -> Any:
    """
    Decode JSON bytes.

    Raises:
        ValueError: They are none.
    """
    try:
        return orjson.loads(data) if orjson else json.loads(data)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def encode_text(text: str, path: str) -> bytes:
    """
    Encode a text as a JSON string.

    Raises:
        InvalidEventError: It is no text, empty, or has half of a surrogate pair in it.
    """
    if not isinstance(text, str) or not text:
        raise InvalidEventError(path, f"{text!r:.60} is not a non-empty text", "Give a str.")
    try:
        return _dumps(text)
    except (TypeError, UnicodeEncodeError):
        raise InvalidEventError(path, f"{text!r:.60} has half of a surrogate pair in it") from None


def unix_seconds(moment: datetime | float, path: str) -> float:
    """
    Tell a moment as UNIX seconds.

    Raises:
        InvalidEventError: It is naive, not finite, or looks like milliseconds.
    """
    if isinstance(moment, datetime):
        if moment.tzinfo is None or moment.utcoffset() is None:
            raise InvalidEventError(path, f"{moment!r} has no time zone", "Use an aware datetime, such as in UTC.")
        return moment.timestamp()
    if isinstance(moment, bool) or not isinstance(moment, int | float) or not math.isfinite(moment):
        raise InvalidEventError(path, f"{moment!r:.60} is no moment", "Give an aware datetime or UNIX seconds.")
    if abs(moment) > 1e11:
        raise InvalidEventError(path, f"{moment!r:.60} looks like milliseconds", "Give UNIX seconds.")
    return float(moment)


def _orjson_fast(values: Mapping[str, Any]) -> bytes | None:
    try:
        return orjson.dumps(values, None, _ORJSON_OPTIONS)
    except TypeError:
        return None


def _json_fast(values: Mapping[str, Any]) -> bytes | None:
    # The standard encoder turns keys like 1 or None into text, so only flat objects with clean keys go this way.
    for key, value in values.items():
        if type(key) is not str or type(value) not in _SCALARS:
            return None
    try:
        return _json_encode(values).encode()
    except (ValueError, UnicodeEncodeError):
        return None


def _json_dumps(value: Any) -> bytes:
    return _json_encode(value).encode()


_json_encode = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode
_encode_fast: Callable[[Mapping[str, Any]], bytes | None]
_dumps: Callable[[Any], bytes]
if orjson:
    _ORJSON_OPTIONS = (
        orjson.OPT_PASSTHROUGH_DATETIME | orjson.OPT_PASSTHROUGH_DATACLASS | orjson.OPT_PASSTHROUGH_SUBCLASS
    )
    _encode_fast, _dumps = _orjson_fast, orjson.dumps
else:
    _encode_fast, _dumps = _json_fast, _json_dumps


def _check_sizes(values: Mapping[str, Any], path: str) -> None:
    for key, value in values.items():
        size = len(_dumps(value))
        if size > MAX_VALUE:
            raise InvalidEventError(
                f"{path}.{key}", f"its value takes {size} bytes", f"The platform takes {MAX_VALUE} at the most."
            )


def _walk_object(values: Mapping[str, Any], path: str, depth: int) -> dict[str, Any]:
    if not isinstance(values, Mapping):
        raise InvalidEventError(path, f"{values!r:.60} is no mapping", "Give a dict with texts as keys.")
    walked: dict[str, Any] = {}
    for key, value in values.items():
        if not isinstance(key, str) or isinstance(key, Enum):
            raise InvalidEventError(path, f"the key {key!r:.60} is no text", "Use texts as keys.")
        plain = _walk(value, f"{path}.{key}", depth + 1)
        if plain is not _ABSENT:
            walked[_walk_text(key, path)] = plain
    return walked


def _walk(value: Any, path: str, depth: int) -> Any:
    """Give a value as plain JSON types, or `_ABSENT`."""
    if value is None:
        return _ABSENT
    if depth > MAX_DEPTH:
        raise InvalidEventError(path[:200], f"it is nested deeper than {MAX_DEPTH} levels", "Does it contain itself?")
    if isinstance(value, type):
        raise InvalidEventError(path, f"{value!r:.60} is a class", _KNOWN)
    for kinds, walk in _WALKS:
        if isinstance(value, kinds):
            return walk(value, path, depth)
    if attrs.has(type(value)):
        return _walk_object(attrs.asdict(value, recurse=False), path, depth)
    if dataclasses.is_dataclass(value):
        fields = {each.name: getattr(value, each.name) for each in dataclasses.fields(value)}
        return _walk_object(fields, path, depth)
    raise InvalidEventError(path, f"a value of type {type(value).__qualname__} can't be sent", _KNOWN)


def _walk_text(value: str, path: str, _depth: int = 0) -> str:
    text = str.__str__(value)
    try:
        text.encode()
    except UnicodeEncodeError:
        raise InvalidEventError(path, f"{text!r:.60} has half of a surrogate pair in it") from None
    return text


def _walk_int(value: int, path: str, _depth: int) -> int:
    if not -(2**63) <= value < 2**64:
        raise InvalidEventError(path, "the number needs more than 64 bits", "Send it as text.")
    return int(value)


def _walk_float(value: float | Decimal, path: str, _depth: int) -> float:
    number = float(value)
    if not math.isfinite(number):
        raise InvalidEventError(path, f"{value!r:.60} is no finite number", "JSON has none; leave it out or send text.")
    return number


def _walk_list(value: Any, path: str, depth: int) -> list[Any]:
    walked = (_walk(item, f"{path}[{place}]", depth + 1) for place, item in enumerate(value))
    return [item for item in walked if item is not _ABSENT]


def _walk_set(value: Any, path: str, depth: int) -> list[Any]:
    # A set has no order of its own; the same set must give the same bytes.
    return sorted(_walk_list(value, path, depth), key=_dumps)


# The order matters: an Enum may be a text too, a bool is an int, a datetime is a date.
_WALKS: tuple[tuple[Any, Callable[[Any, str, int], Any]], ...] = (
    (Enum, lambda value, path, depth: _walk(value.value, path, depth + 1)),
    (str, _walk_text),
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
