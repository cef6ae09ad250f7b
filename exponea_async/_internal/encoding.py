"""
Encodes values as canonical JSON bytes. Pure.

Most events are flat and clean, so the encoder tries the fast way first: where all values are of types that the codec
knows, it encodes them as they are, and then looks for signs of what needs care. Only if there are any, or if encoding
fails, it walks through all values: the walk knows the path of each value, converts what can be converted, and raises
for the rest.

There are two codecs, orjson and the standard library. Which of them is used affects only the speed.
"""

import dataclasses
import json
import math
from asyncio import CancelledError
from collections.abc import Callable, Iterable, Mapping
from datetime import date, datetime, timedelta
from enum import Enum
from ipaddress import IPv4Address, IPv6Address
from pathlib import PurePath
from typing import Any
from uuid import UUID

import attrs

from exponea_async._internal.arguments import is_decimal, plain_string, read_text, read_timestamp
from exponea_async._internal.user_code import FunctionError, calling
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
#: Elements of all lists and dicts together; each takes two bytes of JSON or more, unless it is None.
#: The second number is for a single value of the mapping.
MAX_ELEMENTS, MAX_VALUE_ELEMENTS = MAX_MESSAGE // 2, 2 * MAX_VALUE

_SCALARS = frozenset({str, int, float, bool})
#: Types without elements that the fast codec writes as the walk does.
_FLAT = _SCALARS | {type(None), UUID}
_are_flat = _FLAT.issuperset
#: Types with elements that the fast codec writes as the walk does.
_NESTED = frozenset({dict, list, tuple})
#: The kinds of numpy's data types whose elements are plain values: booleans, numbers, strings and objects. Not those of
#: timestamps and durations, which have no time zone, and whose unit is lost.
_ARRAY_KINDS = frozenset("biufUO")
#: Hardly any JSON reader accepts smaller or larger integers, and orjson does not write them.
_MIN_INTEGER, _MAX_INTEGER = -(2**63), 2**64 - 1
_SUPPORTED = (
    "Use str, numbers, booleans, None, lists, dicts, aware datetime, date, timedelta, Decimal, UUID, Enum, set, tuple, "
    "paths, IP addresses, attrs or dataclass instances, pydantic models or numpy values, or pass a "
    "Configuration(encoder=...)."
)

#: Converts a value that the SDK does not know to one that it knows. It returns other values as they are.
Encoder = Callable[[Any], Any]


class _Absent:
    """The type of the marker for values that are left out of the JSON."""


_ABSENT = _Absent()


def encode_object(values: Mapping[str, Any], path: str, encoder: Encoder | None = None) -> bytes:
    """
    Encode a mapping as a JSON object. None values are left out at every depth.

    Args:
        values: The mapping.
        path: The name of the mapping in errors.
        encoder: Converts values of types that are not known here.

    Raises:
        InvalidEventError: A value can't be represented in JSON, or takes 16 KB or more. The error names its path.
    """
    encoded = _encode_fast(values, path)
    if encoded is None:
        values = plain_object(values, path, encoder)
        encoded = _dumps(values)
    if len(encoded) > MAX_VALUE:
        _check_sizes(values, path)
        if len(encoded) > MAX_MESSAGE:
            trouble = f"must take at most {MAX_MESSAGE} bytes of JSON in all, got {len(encoded)}"
            raise InvalidEventError(path, trouble, "Send fewer or shorter values.")
    return encoded


def plain_object(values: Mapping[str, Any], path: str, encoder: Encoder | None = None) -> dict[str, Any]:
    """Return a mapping as a dict of JSON types, as `encode_object` encodes it; raises as it does, but not for sizes."""
    return _Walk(encoder).convert_object(values, path, 0)


def encode_string(value: str, path: str) -> bytes:
    """
    Encode a non-blank string as a JSON string.

    Raises:
        InvalidEventError: The value is not a string, or blank, or contains half a surrogate pair.
    """
    return _dumps(read_text(value, path, "Pass a str that is not blank."))


def encode_number(number: float) -> bytes:
    """Encode a finite number."""
    return _dumps(number)


# The fast way


def _orjson_fast(values: Mapping[str, Any], path: str) -> bytes | None:
    if type(values) is not dict or not (_are_flat(map(type, values.values())) or _is_clean(values, path)):
        return None
    try:
        encoded = orjson.dumps(values, None, _ORJSON_OPTIONS)
    except TypeError:
        return None
    # A null is a None, which is left out, or a float that JSON can't represent, or just a word in a string.
    return None if b"null" in encoded else encoded


def _is_clean(values: dict[str, Any], path: str) -> bool:
    """
    Return whether orjson may get these values: it knows their types, and they are not nested too deeply.

    orjson does not limit the depth of tuples, and overwrites foreign memory where they are nested some thousand levels.

    Raises:
        InvalidEventError: There are too many. The walk would find that, too, but block the event loop meanwhile.
    """
    nested: list[Any] = [values]
    elements = 0
    for _ in range(MAX_DEPTH):
        found: list[Any] = []
        for each in nested:
            elements += len(each)
            if elements > MAX_ELEMENTS:
                raise _too_many(MAX_ELEMENTS, path)
            found += each.values() if type(each) is dict else each
        if _are_flat(map(type, found)):
            return True
        nested = [value for value in found if type(value) not in _FLAT]
        if not _NESTED.issuperset(map(type, nested)):
            return False
    return False


def _json_fast(values: Mapping[str, Any], _path: str) -> bytes | None:
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
_encode_fast: Callable[[Mapping[str, Any], str], bytes | None]
_dumps: Callable[[Any], bytes]
if orjson:
    _ORJSON_OPTIONS = (
        orjson.OPT_PASSTHROUGH_DATETIME | orjson.OPT_PASSTHROUGH_DATACLASS | orjson.OPT_PASSTHROUGH_SUBCLASS
    )
    _encode_fast, _dumps = _orjson_fast, orjson.dumps
else:
    _encode_fast, _dumps = _json_fast, _json_dumps


def _fits(number: int) -> bool:
    return _MIN_INTEGER <= number <= _MAX_INTEGER


def _check_sizes(values: Mapping[str, Any], path: str) -> None:
    for key, value in values.items():
        # A very long string is not encoded again, which would block the event loop.
        size = len(value) + 2 if isinstance(value, str) and len(value) > MAX_MESSAGE else len(_dumps(value))
        if size >= MAX_VALUE:
            trouble = f"must take less than {MAX_VALUE} bytes of JSON, got {size}"
            raise InvalidEventError(f"{path}.{key}", trouble, "Send a shorter value.")


# The walk


def _call_encoder(encoder: Encoder, value: Any, path: str) -> Any:
    try:
        with calling("the encoder", encoder):
            return encoder(value)
    except Exception as error:
        # What is not an `Exception` is the cause of one here.
        raised = error.__cause__ if isinstance(error, FunctionError) else error
        trouble = f"can't be converted to JSON: the encoder raised {type(raised).__name__}"
        raise InvalidEventError(path, trouble, "Correct the encoder.") from error


class _Walk:
    """
    Converts the values of one mapping to JSON types.

    Args:
        encoder: Converts values of types that are not known here.
    """

    __slots__ = ("_elements", "_encoder", "_within_value")

    def __init__(self, encoder: Encoder | None) -> None:
        self._encoder = encoder
        # The number of elements that were entered, in all and within the present one of the mapping's values.
        self._elements = self._within_value = 0

    def convert_object(self, values: Mapping[str, Any], path: str, depth: int) -> dict[str, Any]:
        """Return a mapping as a dict of JSON types."""
        if not isinstance(values, Mapping):
            raise InvalidEventError(path, f"expected a mapping, got {short_repr(values)}", "Use a dict with str keys.")
        self._enter(len(values), path, depth)
        converted: dict[str, Any] = {}
        for key, value in values.items():
            if not isinstance(key, str):
                trouble = f"expected keys of type str, got {short_repr(key)}"
                raise InvalidEventError(path, trouble, "Use strings as keys.")
            name = key if type(key) is str and key.isascii() else plain_string(key, path)
            if not depth:
                self._within_value = 0
            plain = value if _is_plain(value) else self._convert(value, f"{path}.{name}", depth + 1)
            if plain is not _ABSENT:
                converted[name] = plain
        return converted

    def _convert(self, value: Any, path: str, depth: int) -> Any:
        """Return a value as plain JSON types, or `_ABSENT`."""
        if value is None:
            return _ABSENT
        try:
            convert = _BY_TYPE.get(type(value)) or _find_converter(value)
            return convert(self, value, path, depth)
        except InvalidEventError:
            raise
        except (Exception, CancelledError) as error:  # a method of the value may raise anything
            trouble = f"can't be converted to JSON: the {type(value).__qualname__} raised {type(error).__name__}"
            raise InvalidEventError(path, trouble, _SUPPORTED) from error

    def _enter(self, elements: int, path: str, depth: int) -> None:
        """Check the depth and the number of elements, before they are walked."""
        _check_depth(path, depth)
        self._elements += elements
        self._within_value += elements if depth else 0
        if self._elements > MAX_ELEMENTS or self._within_value > MAX_VALUE_ELEMENTS:
            limit = MAX_ELEMENTS if self._elements > MAX_ELEMENTS else MAX_VALUE_ELEMENTS
            raise _too_many(limit, path)

    def convert_list(self, value: Any, path: str, depth: int) -> list[Any]:
        """Return a list or tuple as a list of JSON types."""
        self._enter(len(value), path, depth)
        converted = (
            item if _is_plain(item) else self._convert(item, f"{path}[{index}]", depth + 1)
            for index, item in enumerate(value)
        )
        return [item for item in converted if item is not _ABSENT]

    def convert_set(self, value: Any, path: str, depth: int) -> list[Any]:
        """Return a set as a list: a set is unordered, but equal sets must give the same bytes with both codecs."""
        return sorted(self.convert_list(value, path, depth), key=repr)

    def convert_enum(self, value: Enum, path: str, depth: int) -> Any:
        """Return the value of a member."""
        return self._convert(value.value, path, depth)

    def convert_fields(self, value: Any, path: str, depth: int) -> dict[str, Any]:
        """Return the fields of an instance of an attrs class or a dataclass."""
        kind = type(value)
        fields: Iterable[Any] = attrs.fields(kind) if attrs.has(kind) else dataclasses.fields(value)
        # A dataclass field with init=False may never have been set.
        return self.convert_object({each.name: getattr(value, each.name, None) for each in fields}, path, depth)

    def convert_other(self, value: Any, path: str, depth: int) -> Any:
        """Return what the encoder of the application makes of a value, or else what its own methods make of it."""
        # An encoder may return one unknown value after another.
        _check_depth(path, depth)
        converted = value
        if self._encoder is not None:
            converted = _call_encoder(self._encoder, value, path)
        if converted is value:
            converted = self._by_duck_type(value, path, depth)
        return self._convert(converted, path, depth + 1)

    def _by_duck_type(self, value: Any, path: str, depth: int) -> Any:
        """Return a value as one of simpler types. The libraries that define its type are not imported for that."""
        kind = type(value)
        if isinstance(value, timedelta):
            return value.total_seconds()
        if isinstance(value, IPv4Address | IPv6Address | PurePath):
            return str(value)
        if getattr(getattr(value, "dtype", None), "kind", "") in _ARRAY_KINDS:  # a scalar or an array of numpy
            self._enter(value.size, path, depth)
            plain = value.tolist()
            if type(plain) is not kind:  # as of a float of more than 64 bits
                return plain
        elif not isinstance(value, type) and callable(getattr(kind, "model_dump", None)):  # a model of pydantic
            return value.model_dump()
        found = f"the class {value.__qualname__}" if isinstance(value, type) else kind.__qualname__
        raise InvalidEventError(path, f"expected a value that JSON can represent, got {found}", _SUPPORTED)


def _is_plain(value: Any) -> bool:
    """Return whether a value is one of the usual ones that need no conversion, so that no path is made for it."""
    kind = type(value)
    if kind is str:
        return value.isascii()  # type: ignore[no-any-return]
    return kind is bool or (kind is int and _fits(value))


def _too_many(limit: int, path: str) -> InvalidEventError:
    trouble = f"must have at most {limit} elements in all, the nested ones included"
    return InvalidEventError(path[:200], trouble, "Send fewer values, or check whether one contains itself.")


def _check_depth(path: str, depth: int) -> None:
    if depth >= MAX_DEPTH:
        trouble = f"must be nested at most {MAX_DEPTH} levels deep"
        raise InvalidEventError(path[:200], trouble, "Check whether the value contains itself.")


def _find_converter(value: Any) -> "_Converter":
    if not isinstance(value, type):
        for kinds, convert in _BY_KIND:
            if isinstance(value, kinds):
                return convert
        if is_decimal(value):
            return _convert_float
        if attrs.has(type(value)) or dataclasses.is_dataclass(value):
            return _Walk.convert_fields
    return _Walk.convert_other


def _plain_int(value: int, path: str) -> int:
    if not _fits(value):
        raise InvalidEventError(path, "must fit into 64 bits", "Send the number as a string.")
    return int(value)


def _convert_float(_: "_Walk", value: Any, path: str, _depth: int) -> float:
    try:
        number = float(value)
    except ValueError:  # a signalling NaN of Decimal
        number = math.nan
    if not math.isfinite(number):
        trouble = f"must be a finite number, got {short_repr(value)}"
        raise InvalidEventError(path, trouble, "Leave the value out, or send it as a string.")
    return number


_Converter = Callable[[_Walk, Any, str, int], Any]
# The order matters: an Enum may also be a str, a bool is an int, and a datetime is a date.
_BY_KIND: tuple[tuple[Any, _Converter], ...] = (
    (Enum, _Walk.convert_enum),
    (str, lambda _, value, path, _depth: plain_string(value, path)),
    (bool, lambda _, value, _path, _depth: value),
    (int, lambda _, value, path, _depth: _plain_int(value, path)),
    (float, _convert_float),
    (datetime, lambda _, value, path, _depth: read_timestamp(value, path)),
    (date, lambda _, value, _path, _depth: value.isoformat()),
    (UUID, lambda _, value, _path, _depth: str(value)),
    (Mapping, _Walk.convert_object),
    ((list, tuple), _Walk.convert_list),
    ((set, frozenset), _Walk.convert_set),
)
# The usual types, found without a search.
_BY_TYPE: Mapping[type, _Converter] = {
    kind: next(convert for kinds, convert in _BY_KIND if issubclass(kind, kinds))
    for kind in (str, int, float, bool, dict, list, tuple, datetime, date, UUID)
}
