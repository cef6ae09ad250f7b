"""
JSON as the platform reads and writes it: strict, UTF-8, no NaN.

Uses orjson if it is installed, else the standard library with checks that make it as strict as orjson.
"""

import json
import math
from typing import Any, NoReturn

# The limit of orjson for writing; a command that nests deeper is rejected.
MAX_DEPTH = 254


def plain_loads(raw: bytes) -> Any:
    """
    Decode JSON with the standard library.

    Raises:
        ValueError: The input is not JSON, not UTF-8, or contains a number that is not finite.
    """
    try:
        value = json.loads(
            raw.decode(), parse_constant=_reject_constant, parse_float=_parse_float, parse_int=_parse_int
        )
    except RecursionError:
        raise ValueError("nested too deeply") from None
    if b"\\u" in raw:
        # json.loads accepts a lone surrogate, which can't be encoded as UTF-8.
        json.dumps(value, ensure_ascii=False).encode()
    return value


def plain_dumps(value: Any) -> bytes:
    """
    Encode a value as compact JSON with sorted keys, with the standard library.

    Raises:
        ValueError: The value nests deeper than `MAX_DEPTH`, or contains a number that is not finite.
    """
    return _plain(value, sort=True)


def plain_encode(value: Any) -> bytes:
    """
    Encode a value as compact JSON with keys in their own order, with the standard library.

    Raises:
        ValueError: The value nests deeper than `MAX_DEPTH`, or contains a number that is not finite.
    """
    return _plain(value, sort=False)


def _plain(value: Any, *, sort: bool) -> bytes:
    if _is_deeper(value, MAX_DEPTH):
        raise ValueError("nested too deeply")
    return json.dumps(
        value, allow_nan=False, check_circular=False, ensure_ascii=False, separators=(",", ":"), sort_keys=sort
    ).encode()


def _is_deeper(value: Any, max_depth: int) -> bool:
    if not isinstance(value, dict | list):
        return False
    if max_depth == 0:
        return True
    inner = value.values() if isinstance(value, dict) else value
    return any(_is_deeper(item, max_depth - 1) for item in inner)


def _reject_constant(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not a JSON value")


def _parse_float(digits: str) -> float:
    number = float(digits)
    if not math.isfinite(number):
        raise ValueError("number too large")
    return number


def _parse_int(digits: str) -> int | float:
    # Beyond 64 bits orjson returns a float. Long numbers never reach int(), whose time is quadratic in their length.
    number = int(digits) if len(digits) <= 20 else _parse_float(digits)
    return number if -(2**63) <= number < 2**64 else float(number)


try:
    import orjson
except ImportError:  # pragma: no cover
    loads, dumps, encode = plain_loads, plain_dumps, plain_encode
else:

    def loads(raw: bytes) -> Any:
        """
        Decode JSON.

        Raises:
            ValueError: The input is not JSON, not UTF-8, or contains a number that is not finite.
        """
        return orjson.loads(raw)

    def dumps(value: Any) -> bytes:
        """
        Encode a value as compact JSON with sorted keys.

        Raises:
            ValueError: The value nests deeper than `MAX_DEPTH`, or contains a type that JSON doesn't have.
        """
        try:
            return orjson.dumps(value, option=orjson.OPT_SORT_KEYS)
        except TypeError as error:
            raise ValueError(str(error)) from None

    def encode(value: Any) -> bytes:
        """
        Encode a value as compact JSON, with keys in their own order.

        Raises:
            ValueError: The value nests deeper than `MAX_DEPTH`, or contains a type that JSON doesn't have.
        """
        try:
            return orjson.dumps(value)
        except TypeError as error:
            raise ValueError(str(error)) from None
