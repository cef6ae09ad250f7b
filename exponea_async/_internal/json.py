"""
Decodes JSON, and splits lists and objects without decoding their elements. Pure.

There are two codecs, orjson and the standard library. Which of them is used affects only the speed.
"""

import json
import re
from collections.abc import Callable, Iterator
from typing import Any

try:
    import orjson
except ImportError:
    orjson = None  # type: ignore[assignment]

#: Strings, whose brackets and commas do not count, and the tokens that structure a document.
_TOKENS = re.compile(rb'"(?:[^"\\]++|\\.)*+"|["\[\]{},]', re.DOTALL)
_KEY = re.compile(rb'\s*("(?:[^"\\]++|\\.)*+")\s*:', re.DOTALL)


def decode(data: bytes) -> Any:
    """
    Decode JSON bytes.

    Raises:
        ValueError: The bytes are not valid JSON, or nested too deeply.
    """
    try:
        return _loads(data)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def elements(data: bytes) -> Iterator[bytes]:
    """
    Split a JSON list into its elements without decoding them, so that an invalid element does not affect the others.

    Raises:
        ValueError: The bytes are not a complete list.
    """
    yield from _split(data, b"[", b"]")


def members(data: bytes) -> Iterator[tuple[str, bytes]]:
    """
    Split a JSON object into its keys and values without decoding the values.

    Raises:
        ValueError: The bytes are not a complete object, or a key is invalid.
    """
    for member in _split(data, b"{", b"}"):
        key = _KEY.match(member)
        if key is None:
            raise ValueError("expected a key in each member of the object")
        yield str(decode(key[1])), member[key.end() :].strip()


def _split(data: bytes, opening: bytes, closing: bytes) -> Iterator[bytes]:
    data = data.strip()
    if not data.startswith(opening):
        raise ValueError(f"expected {opening.decode()} at the beginning")
    start, depth = 1, 0
    for match in _TOKENS.finditer(data):
        token = data[match.start()]
        if match.group() == b'"':
            raise ValueError("unterminated string")
        if token in b"[{":
            depth += 1
        elif token in b"]}":
            depth -= 1
        if depth == 0 or (depth == 1 and token == ord(",")):
            if part := data[start : match.start()].strip():
                yield part
            start = match.end()
        if depth == 0:
            break
    else:
        raise ValueError(f"expected {closing.decode()} at the end")
    if data[start - 1 :] != closing:
        raise ValueError(f"expected nothing after {closing.decode()}")


def _json_loads(data: bytes) -> Any:
    string = data.decode()
    value = _json_decode(string)
    if "\\ud" in string.lower():
        # A string with half a surrogate pair fails here, and not later, when it is stored or shown.
        json.dumps(value, ensure_ascii=False).encode()
    return value


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not JSON")


_json_decode = json.JSONDecoder(parse_constant=_refuse).decode
_loads: Callable[[bytes], Any] = orjson.loads if orjson else _json_loads
