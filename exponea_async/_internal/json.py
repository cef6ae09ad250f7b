"""
JSON that comes in. Pure.

There are two codecs, orjson's and the standard library's; which of them is used decides nothing but the speed.
"""

import json
import re
from collections.abc import Callable, Iterator
from typing import Any

try:
    import orjson
except ImportError:
    orjson = None  # type: ignore[assignment]

#: Texts, whose brackets and commas don't count, and what gives a document its form.
_MARKS = re.compile(rb'"(?:[^"\\]++|\\.)*+"|["\[\]{},]', re.DOTALL)
_KEY = re.compile(rb'\s*("(?:[^"\\]++|\\.)*+")\s*:', re.DOTALL)


def decode(data: bytes) -> Any:
    """
    Decode JSON bytes.

    Raises:
        ValueError: They are none.
    """
    try:
        return _loads(data)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def elements(data: bytes) -> Iterator[bytes]:
    """
    Cut a JSON list into its elements without decoding them, so that a broken one does no harm to those beside it.

    Raises:
        ValueError: It has no end, or is no list.
    """
    yield from _cut(data, b"[", b"]")


def members(data: bytes) -> Iterator[tuple[str, bytes]]:
    """
    Cut a JSON object into its members without decoding their values.

    Raises:
        ValueError: It has no end, or is no object, or a key is none.
    """
    for member in _cut(data, b"{", b"}"):
        key = _KEY.match(member)
        if key is None:
            raise ValueError("a member without a key")
        yield str(decode(key[1])), member[key.end() :].strip()


def _cut(data: bytes, opening: bytes, closing: bytes) -> Iterator[bytes]:
    data = data.strip()
    if not data.startswith(opening):
        raise ValueError(f"no {opening.decode()} at the beginning")
    start, depth = 1, 0
    for mark in _MARKS.finditer(data):
        sign = data[mark.start()]
        if mark.group() == b'"':
            raise ValueError("a text without an end")
        if sign in b"[{":
            depth += 1
        elif sign in b"]}":
            depth -= 1
        if depth == 0 or (depth == 1 and sign == ord(",")):
            if piece := data[start : mark.start()].strip():
                yield piece
            start = mark.end()
        if depth == 0:
            break
    else:
        raise ValueError("no end")
    if data[start - 1 :] != closing:
        raise ValueError("the end is not at the end")


def _json_loads(data: bytes) -> Any:
    text = data.decode()
    value = _json_decode(text)
    if "\\ud" in text.lower():
        # An escaped half of a surrogate pair is no text: it fails here and not where it is stored or shown.
        json.dumps(value, ensure_ascii=False).encode()
    return value


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not JSON")


_json_decode = json.JSONDecoder(parse_constant=_refuse).decode
_loads: Callable[[bytes], Any] = orjson.loads if orjson else _json_loads
