"""
JSON that comes in: decoded by either codec alike, and cut into pieces without being decoded.
"""

import json
from types import ModuleType
from typing import Any

import pytest
from helpers.modules import copy_of
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from exponea_async._internal.json import decode, elements, members

NAME = "exponea_async._internal.json"
#: A slow machine is no failure.
UNHURRIED = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])


FAST, PLAIN = copy_of(NAME), copy_of(NAME, without="orjson")

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
    def test_what_is_no_json_is_a_value_error(self, reader: ModuleType, data: bytes) -> None:
        """The leniencies of the standard library are taken back."""
        with pytest.raises(ValueError):  # noqa: PT011 - no more is promised
            reader.decode(data)

    def test_json_is_decoded(self, reader: ModuleType) -> None:
        """Texts with escapes, numbers and nesting come back, blanks around them or not."""
        assert reader.decode(b' {"a": [1, 2.5, "\\u00e9\\ud83d\\uded2", null]}\n') == {
            "a": [1, 2.5, "é\U0001f6d2", None]
        }

    @UNHURRIED
    @given(
        st.binary(max_size=40)
        | VALUES.map(lambda value: json.dumps(value).encode(errors="replace"))
        | st.lists(st.sampled_from([*'{}[]:,"\\ \n-.0123e', "true", "null", "NaN", "\\ud800", "é"])).map(
            lambda tokens: "".join(tokens).encode()
        )
    )
    def test_decoding_raises_nothing_but_value_errors(self, data: bytes) -> None:
        """Whatever comes, either codec decodes it or raises a ValueError, and both do the same."""
        outcomes = []
        for module in (FAST, PLAIN):
            try:
                outcomes.append(module.decode(data))
            except ValueError:
                outcomes.append("refused")

        assert outcomes[0] == outcomes[1]


class TestCutting:
    @UNHURRIED
    @given(st.lists(VALUES, max_size=5), LAYOUTS)
    def test_a_list_is_cut_into_its_elements(self, values: list[Any], layout: dict[str, Any]) -> None:
        """However it is written, each piece is one element, in order."""
        data = json.dumps(values, **layout).encode(errors="replace")

        assert [json.loads(piece) for piece in elements(data)] == json.loads(data)

    @UNHURRIED
    @given(st.dictionaries(st.text(), VALUES, max_size=5), LAYOUTS)
    def test_an_object_is_cut_into_its_members(self, values: dict[str, Any], layout: dict[str, Any]) -> None:
        """However it is written, each piece is one member's value under its key."""
        data = json.dumps(values, **layout).encode(errors="replace")

        assert {key: json.loads(piece) for key, piece in members(data)} == json.loads(data)

    def test_a_broken_element_does_no_harm_to_those_beside_it(self) -> None:
        """Whatever stands between its brackets, the pieces beside it are cut out whole."""
        deep = b"[" * 100_000 + b"]" * 100_000
        pieces = list(elements(b'[1, {"a": tru, "b": NaN}, ' + deep + b', "]", 2]'))

        assert pieces == [b"1", b'{"a": tru, "b": NaN}', deep, b'"]"', b"2"]
        with pytest.raises(ValueError, match=r"."):
            decode(pieces[2])

    @pytest.mark.parametrize("data", [b"", b"[", b"[1, 2", b'["1, 2]', b"{}", b"12", b"[1] 2", b"[1]]", b"null"])
    def test_what_is_no_whole_list_is_refused(self, data: bytes) -> None:
        """A list without an end, or with more behind it, is not taken for one."""
        with pytest.raises(ValueError, match=r"."):
            list(elements(data))

    @pytest.mark.parametrize("data", [b"", b"{", b'{"a": 1', b"[]", b"{1: 2}", b'{"a" 1}', b"{} {}", b'{"\\ud800": 1}'])
    def test_what_is_no_whole_object_is_refused(self, data: bytes) -> None:
        """An object without an end, or with members that have no key, is not taken for one."""
        with pytest.raises(ValueError, match=r"."):
            list(members(data))

    @UNHURRIED
    @given(st.binary(max_size=60) | st.lists(st.sampled_from([*'{}[]:,"\\ 1a'])).map(lambda it: "".join(it).encode()))
    def test_cutting_raises_nothing_but_value_errors(self, data: bytes) -> None:
        """Whatever comes, it is cut into pieces or refused."""
        for cut in (elements, members):
            try:
                list(cut(data))
            except ValueError:
                continue
