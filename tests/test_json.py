"""
JSON is decoded alike by both codecs, and can be split into its parts without decoding them.
"""

import json
from types import ModuleType
from typing import Any

import pytest
from helpers.modules import import_copy
from hypothesis import given
from hypothesis import strategies as st

from exponea_async._internal.json import decode, elements, members

NAME = "exponea_async._internal.json"
#: A slow machine does not fail a test.


FAST, PLAIN = import_copy(NAME), import_copy(NAME, without="orjson")

VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=12,
)
LAYOUTS = st.sampled_from([{}, {"indent": 2}, {"separators": (",", ":")}, {"ensure_ascii": False}])


@pytest.fixture(params=[FAST, PLAIN], ids=["orjson", "json"])
def reader(request: pytest.FixtureRequest) -> ModuleType:
    module: ModuleType = request.param
    return module


class TestDecoding:
    @pytest.mark.parametrize(
        "data",
        [
            b"",
            b"{",
            b"1 2",
            b"NaN",
            b"[Infinity]",
            b"\xff",
            b"\xef\xbb\xbf{}",
            b'"\\ud800"',
            "{}".encode("utf-16"),
            pytest.param(b"[" * 100_000, id="deep"),
        ],
    )
    def test_invalid_json_is_a_value_error(self, reader: ModuleType, data: bytes) -> None:
        """JSON that only the standard library accepts is invalid, too."""
        with pytest.raises(ValueError):  # noqa: PT011 - no more is promised
            reader.decode(data)

    def test_json_is_decoded(self, reader: ModuleType) -> None:
        """Strings with escapes, numbers, nested values and surrounding whitespace are decoded."""
        assert reader.decode(b' {"a": [1, 2.5, "\\u00e9\\ud83d\\uded2", null]}\n') == {
            "a": [1, 2.5, "é\U0001f6d2", None]
        }

    @given(
        st.binary(max_size=40)
        | VALUES.map(lambda value: json.dumps(value).encode(errors="replace"))
        | st.lists(st.sampled_from([*'{}[]:,"\\ \n-.0123e', "true", "null", "NaN", "\\ud800", "é"])).map(
            lambda tokens: "".join(tokens).encode()
        )
    )
    def test_decoding_raises_nothing_but_value_errors(self, data: bytes) -> None:
        """Each codec decodes any bytes or raises a ValueError, and both do the same."""
        outcomes = []
        for module in (FAST, PLAIN):
            try:
                outcomes.append(module.decode(data))
            except ValueError:
                outcomes.append("invalid")

        assert outcomes[0] == outcomes[1]


class TestSplitting:
    @given(st.lists(VALUES, max_size=5), LAYOUTS)
    def test_a_list_is_split_into_its_elements(self, values: list[Any], layout: dict[str, Any]) -> None:
        """Whatever its layout, each part is one element, in order."""
        data = json.dumps(values, **layout).encode(errors="replace")

        assert [json.loads(part) for part in elements(data)] == json.loads(data)

    @given(st.dictionaries(st.text(), VALUES, max_size=5), LAYOUTS)
    def test_an_object_is_split_into_its_members(self, values: dict[str, Any], layout: dict[str, Any]) -> None:
        """Whatever its layout, each part is the value of one member."""
        data = json.dumps(values, **layout).encode(errors="replace")

        assert {key: json.loads(part) for key, part in members(data)} == json.loads(data)

    def test_an_invalid_element_does_not_affect_the_others(self) -> None:
        """Whatever is between its brackets, the other elements are complete."""
        deep = b"[" * 100_000 + b"]" * 100_000
        parts = list(elements(b'[1, {"a": tru, "b": NaN}, ' + deep + b', "]", 2]'))

        assert parts == [b"1", b'{"a": tru, "b": NaN}', deep, b'"]"', b"2"]
        with pytest.raises(ValueError, match=r"."):
            decode(parts[2])

    @pytest.mark.parametrize("data", [b"", b"[", b"[1, 2", b'["1, 2]', b"{}", b"12", b"[1] 2", b"[1]]", b"null"])
    def test_incomplete_lists_are_invalid(self, data: bytes) -> None:
        """A list without an end, or with something after it, raises a ValueError."""
        with pytest.raises(ValueError, match=r"."):
            list(elements(data))

    @pytest.mark.parametrize("data", [b"", b"{", b'{"a": 1', b"[]", b"{1: 2}", b'{"a" 1}', b"{} {}", b'{"\\ud800": 1}'])
    def test_incomplete_objects_are_invalid(self, data: bytes) -> None:
        """An object without an end, or with a member without a key, raises a ValueError."""
        with pytest.raises(ValueError, match=r"."):
            list(members(data))

    @given(st.binary(max_size=60) | st.lists(st.sampled_from([*'{}[]:,"\\ 1a'])).map(lambda it: "".join(it).encode()))
    def test_splitting_raises_nothing_but_value_errors(self, data: bytes) -> None:
        """Any bytes are split or raise a ValueError."""
        for split in (elements, members):
            try:
                list(split(data))
            except ValueError:
                continue
