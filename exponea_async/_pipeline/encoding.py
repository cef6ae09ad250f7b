"""
Values to canonical JSON bytes. Pure.

Most events are flat and clean, so the encoder tries the fast way first: encode, then look for signs of what needs care.
Only if there are any, or when encoding fails, every value is walked: the walk knows the path of what it meets, converts
what can be converted, and raises for the rest.

There are two codecs, orjson's and the standard library's; which of them is used decides nothing but the speed.
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

from exponea_async._internal.validation import shown
from exponea_async.errors import InvalidEventError

try:
    import orjson
except ImportError:
    orjson = None  # type: ignore[assignment]

#: The platform wants each property's value to take less than this, in bytes of JSON.
MAX_VALUE = 16_384
#: The platform refuses an event or a customer update larger than this, in bytes of JSON.
MAX_MESSAGE = 819_200
#: Levels of nesting, the properties themselves included, beyond which a value is taken for one that contains itself.
MAX_DEPTH = 100

_SCALARS = frozenset({str, int, float, bool})
#: Smaller and larger integers are read by hardly anybody, and written by orjson neither.
_LOWEST, _HIGHEST = -(2**63), 2**64 - 1
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
        InvalidEventError: A value can't be told in JSON, or takes 16 KB or more; names its path.
    """
    encoded = _encode_fast(values)
    if encoded is None:
        values = _walk_object(values, path, 0)
        encoded = _dumps(values)
    if len(encoded) > MAX_VALUE:
        _check_sizes(values, path)
    return encoded


def encode_text(text: str, path: str) -> bytes:
    """
    Encode a text as a JSON string.

    Raises:
        InvalidEventError: It is no text, empty, or has half of a surrogate pair in it.
    """
    if not isinstance(text, str) or not text:
        raise InvalidEventError(path, f"{shown(text)} is not a non-empty text", "Give a str.")
    return _dumps(_walk_text(text, path))


def encode_number(number: float) -> bytes:
    """Encode a finite number."""
    return _dumps(number)


def unix_seconds(moment: datetime | float, path: str) -> float:
    """
    Tell a moment as UNIX seconds.

    Raises:
        InvalidEventError: It is naive, not finite, or looks like milliseconds.
    """
    if isinstance(moment, datetime):
        if moment.utcoffset() is None:
            raise InvalidEventError(path, f"{moment!r} has no time zone", "Use an aware datetime, such as in UTC.")
        return moment.timestamp()
    if isinstance(moment, bool) or not isinstance(moment, int | float) or not abs(moment) < math.inf:
        raise InvalidEventError(path, f"{shown(moment)} is no moment", "Give an aware datetime or UNIX seconds.")
    # Compared before it becomes a float, which not every int can.
    if abs(moment) > 1e11:
        raise InvalidEventError(path, f"{shown(moment)} looks like milliseconds", "Give UNIX seconds.")
    return float(moment)


def _orjson_fast(values: Mapping[str, Any]) -> bytes | None:
    if type(values) is not dict:
        return None
    try:
        encoded = orjson.dumps(values, None, _ORJSON_OPTIONS)
    except TypeError:
        return None
    # A null is a None, to be left out, or a float that JSON does not know, or only a word in a text.
    return None if b"null" in encoded or _is_deep(encoded) else encoded


def _is_deep(encoded: bytes) -> bool:
    # No deeper than there are brackets, which are counted fast and need not be in short ones.
    if len(encoded) <= 2 * MAX_DEPTH or encoded.count(b"[") + encoded.count(b"{") <= MAX_DEPTH:
        return False
    # A wide one would take the walk milliseconds. orjson promises to read 1,024 levels and no more, so with all but
    # ours put round it, it tells which of both it is.
    try:
        orjson.loads(_ROUND[0] + encoded + _ROUND[1])
    except orjson.JSONDecodeError:
        return True
    return False


def _json_fast(values: Mapping[str, Any]) -> bytes | None:
    # The standard encoder turns keys like 1 or None into text, so only flat objects with clean keys go this way.
    if type(values) is not dict:
        return None
    for key, value in values.items():
        if type(key) is not str or type(value) not in _SCALARS or (type(value) is int and not _fits(value)):
            return None
    try:
        return _json_dumps(values)
    except ValueError:  # not finite, or half of a surrogate pair
        return None


def _json_dumps(value: Any) -> bytes:
    return _json_encode(value).encode()


# Cycles never come this far, and neither does what is nested too deeply.
_json_encode = json.JSONEncoder(ensure_ascii=False, allow_nan=False, check_circular=False, separators=(",", ":")).encode
_encode_fast: Callable[[Mapping[str, Any]], bytes | None]
_dumps: Callable[[Any], bytes]
if orjson:
    _ORJSON_OPTIONS = (
        orjson.OPT_PASSTHROUGH_DATETIME | orjson.OPT_PASSTHROUGH_DATACLASS | orjson.OPT_PASSTHROUGH_SUBCLASS
    )
    _ROUND = (b"[" * (1024 - MAX_DEPTH), b"]" * (1024 - MAX_DEPTH))
    _encode_fast, _dumps = _orjson_fast, orjson.dumps
else:
    _encode_fast, _dumps = _json_fast, _json_dumps


def _fits(number: int) -> bool:
    return _LOWEST <= number <= _HIGHEST


def _check_sizes(values: Mapping[str, Any], path: str) -> None:
    for key, value in values.items():
        size = len(_dumps(value))
        if size >= MAX_VALUE:
            raise InvalidEventError(
                f"{path}.{key}", f"its value takes {size} bytes", f"The platform takes less than {MAX_VALUE}."
            )


def _walk_object(values: Mapping[str, Any], path: str, depth: int) -> dict[str, Any]:
    if not isinstance(values, Mapping):
        raise InvalidEventError(path, f"{shown(values)} is no mapping", "Give a dict with texts as keys.")
    _check_depth(path, depth)
    walked: dict[str, Any] = {}
    for key, value in values.items():
        if not isinstance(key, str):
            raise InvalidEventError(path, f"the key {shown(key)} is no text", "Use texts as keys.")
        name = _walk_text(key, path)
        plain = _walk(value, f"{path}.{name}", depth + 1)
        if plain is not _ABSENT:
            walked[name] = plain
    return walked


def _walk(value: Any, path: str, depth: int) -> Any:
    """Give a value as plain JSON types, or `_ABSENT`."""
    if value is None:
        return _ABSENT
    walk = _BY_TYPE.get(type(value)) or _walk_of(value)
    if walk is None:
        what = f"{shown(value)} is a class" if isinstance(value, type) else f"{_kind(value)} can't be sent"
        raise InvalidEventError(path, what, _KNOWN)
    return walk(value, path, depth)


def _check_depth(path: str, depth: int) -> None:
    if depth >= MAX_DEPTH:
        raise InvalidEventError(path[:200], f"it is nested deeper than {MAX_DEPTH} levels", "Does it contain itself?")


def _walk_of(value: Any) -> "_Walk | None":
    if isinstance(value, type):
        return None
    for kinds, walk in _BY_KIND:
        if isinstance(value, kinds):
            return walk
    return _walk_fields if attrs.has(type(value)) or dataclasses.is_dataclass(value) else None


def _kind(value: object) -> str:
    return f"a value of type {type(value).__qualname__}"


def _walk_fields(value: Any, path: str, depth: int) -> dict[str, Any]:
    kind = type(value)
    fields: Iterable[Any] = attrs.fields(kind) if attrs.has(kind) else dataclasses.fields(value)
    # A field may never have been set.
    return _walk_object({each.name: getattr(value, each.name, None) for each in fields}, path, depth)


def _walk_text(value: str, path: str, _depth: int = 0) -> str:
    text = str.__str__(value)
    try:
        text.encode()
    except UnicodeEncodeError:
        raise InvalidEventError(path, f"{shown(text)} has half of a surrogate pair in it") from None
    return text


def _walk_int(value: int, path: str, _depth: int) -> int:
    if not _fits(value):
        raise InvalidEventError(path, "the number needs more than 64 bits", "Send it as text.")
    return int(value)


def _walk_float(value: float | Decimal, path: str, _depth: int) -> float:
    try:
        number = float(value)
    except ValueError:  # a signalling NaN of Decimal's
        number = math.nan
    if not math.isfinite(number):
        raise InvalidEventError(
            path, f"{shown(value)} is no finite number", "JSON has none; leave it out or send text."
        )
    return number


def _walk_list(value: Any, path: str, depth: int) -> list[Any]:
    _check_depth(path, depth)
    walked = (_walk(item, f"{path}[{place}]", depth + 1) for place, item in enumerate(value))
    return [item for item in walked if item is not _ABSENT]


def _walk_set(value: Any, path: str, depth: int) -> list[Any]:
    # A set has no order of its own; the same set must give the same bytes, whatever the codec writes.
    return sorted(_walk_list(value, path, depth), key=repr)


_Walk = Callable[[Any, str, int], Any]
# The order matters: an Enum may be a text too, a bool is an int, a datetime is a date.
_BY_KIND: tuple[tuple[Any, _Walk], ...] = (
    (Enum, lambda value, path, depth: _walk(value.value, path, depth)),
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
# What most values are, found without a search.
_BY_TYPE: Mapping[type, _Walk] = {
    kind: next(walk for kinds, walk in _BY_KIND if issubclass(kind, kinds))
    for kind in (str, int, float, bool, dict, list, tuple, datetime, date, Decimal, UUID)
}
