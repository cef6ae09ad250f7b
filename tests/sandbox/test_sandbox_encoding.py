"""
The JSON of the standard library is as strict as orjson.
"""

import math
from typing import Any

import pytest
from hypothesis import given
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
DECODERS = pytest.mark.parametrize("decode", [loads, plain_loads])


@given(VALUES)
def test_round_trips(value: Any) -> None:
    """A value is the same after encoding and decoding, with any pair of encoder and decoder."""
    for encoded in (dumps(value), plain_dumps(value)):
        assert loads(encoded) == plain_loads(encoded) == value


@DECODERS
@pytest.mark.parametrize(
    "raw",
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
def test_invalid_json(decode: Any, raw: bytes) -> None:
    """Both decoders reject the same input."""
    with pytest.raises(ValueError, match=r"."):
        decode(raw)


@DECODERS
@pytest.mark.parametrize("number", [2**64 - 1, 2**64, -(2**63), -(2**63) - 1, 10**30, 10**17, 10**18])
def test_large_numbers(decode: Any, number: int) -> None:
    """Both decoders return exact integers up to 64 bits, and floats beyond."""
    value = decode(str(number).encode())

    assert isinstance(value, int) == (-(2**63) <= number < 2**64)
    assert math.isclose(value, number)
    assert isinstance(value, float) or value == number


@pytest.mark.parametrize("encode", [dumps, plain_dumps])
def test_nesting(encode: Any) -> None:
    """Both encoders reject values that nest too deeply; some versions of orjson accept a level more."""
    value: list[Any] = []
    for _ in range(MAX_DEPTH - 1):
        value = [value]

    assert encode(value) == b"[" * MAX_DEPTH + b"]" * MAX_DEPTH
    with pytest.raises(ValueError, match=r"."):
        encode([[value]])
