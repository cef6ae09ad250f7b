"""
The standard library's JSON, made as strict as orjson.
"""

import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from exponea_async.sandbox.encoding import MAX_DEPTH, dumps, loads, plain_dumps, plain_loads

VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)
READERS = pytest.mark.parametrize("read", [loads, plain_loads])


@settings(deadline=None)
@given(VALUES)
def test_both_read_what_either_writes(value: Any) -> None:
    """A value survives any pair of writer and reader."""
    for text in (dumps(value), plain_dumps(value)):
        assert loads(text) == plain_loads(text) == value


@READERS
@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"NaN",
        b"[Infinity]",
        b"-Infinity",
        b"1e400",
        b"9" * 400,
        b"9" * 5_000,
        b'"\\ud800"',
        b'"\xff"',
        b"\xef\xbb\xbf{}",
        b"{'a': 1}",
        b"[1,]",
        b"[" * 100_000,
    ],
)
def test_what_is_no_json_is_refused(read: Any, text: bytes) -> None:
    """Both readers refuse the same texts."""
    with pytest.raises(ValueError, match=r"."):
        read(text)


@READERS
@pytest.mark.parametrize("number", [2**64 - 1, 2**64, -(2**63), -(2**63) - 1, 10**30, 10**17, 10**18])
def test_beyond_64_bits_a_number_is_a_float(read: Any, number: int) -> None:
    """Both readers keep 64 bits exactly, and read a float beyond."""
    value = read(str(number).encode())

    assert isinstance(value, int) == (-(2**63) <= number < 2**64)
    assert math.isclose(value, number)
    assert isinstance(value, float) or value == number


@pytest.mark.parametrize("write", [dumps, plain_dumps])
def test_both_write_equally_deep(write: Any) -> None:
    """Both writers refuse what nests too deeply, at the same depth."""
    value: list[Any] = []
    for _ in range(MAX_DEPTH - 1):
        value = [value]

    assert write(value) == b"[" * MAX_DEPTH + b"]" * MAX_DEPTH
    with pytest.raises(ValueError, match=r"."):
        write([value])
