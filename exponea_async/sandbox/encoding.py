"""
JSON as the platform reads and writes it: strict, UTF-8, no NaN.

With orjson where that is installed, else with the standard library, which is made as strict as orjson.
"""

import json
import math
from typing import Any, NoReturn

# What orjson allows when it writes; a command that nests deeper is refused.
MAX_DEPTH = 254


def plain_loads(raw: bytes) -> Any:
    """
    Reads a JSON text with the standard library.

    Raises:
        ValueError: It is not JSON, or no UTF-8, or holds a number that is not finite.
    """
    try:
        value = json.loads(raw.decode(), parse_constant=_refuse, parse_float=_finite, parse_int=_integer)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    if b"\\u" in raw:
        # A lone surrogate passes json.loads, but can't be written as UTF-8 any more.
        json.dumps(value, ensure_ascii=False).encode()
    return value


def plain_dumps(value: Any) -> bytes:
    """
    Writes a value as compact JSON with sorted keys, with the standard library.

    Raises:
        ValueError: It nests deeper than `MAX_DEPTH`, or holds a number that is not finite.
    """
    if _deeper(value, MAX_DEPTH):
        raise ValueError("nested too deeply")
    text = json.dumps(
        value, allow_nan=False, check_circular=False, ensure_ascii=False, separators=(",", ":"), sort_keys=True
    )
    return text.encode()


def _deeper(value: Any, allowed: int) -> bool:
    if not isinstance(value, dict | list):
        return False
    if allowed == 0:
        return True
    inner = value.values() if isinstance(value, dict) else value
    return any(_deeper(item, allowed - 1) for item in inner)


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no JSON value")


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError("number too large")
    return number


def _integer(text: str) -> int | float:
    # Beyond 64 bits orjson reads a float. Long digits never reach int(), whose time grows with their square.
    number = int(text) if len(text) <= 20 else _finite(text)
    return number if -(2**63) <= number < 2**64 else float(number)


try:
    import orjson
except ImportError:  # pragma: no cover
    loads, dumps = plain_loads, plain_dumps
else:

    def loads(raw: bytes) -> Any:
        """
        Reads a JSON text.

        Raises:
            ValueError: It is not JSON, or no UTF-8, or holds a number that is not finite.
        """
        return orjson.loads(raw)

    def dumps(value: Any) -> bytes:
        """
        Writes a value as compact JSON with sorted keys.

        Raises:
            ValueError: It nests deeper than `MAX_DEPTH`.
        """
        try:
            return orjson.dumps(value, option=orjson.OPT_SORT_KEYS)
        except TypeError as error:
            raise ValueError(str(error)) from None
