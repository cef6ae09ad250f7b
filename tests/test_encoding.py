"""
Values are encoded as JSON bytes: orjson and the standard library give the same bytes and the same errors.
"""

import asyncio
import enum
import json
import math
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from dataclasses import field as dataclass_field
from datetime import UTC, date, datetime, time, timedelta, timezone, tzinfo
from decimal import Decimal
from ipaddress import IPv4Address, IPv6Address
from pathlib import PurePosixPath
from types import MappingProxyType, ModuleType
from typing import Any, NamedTuple
from uuid import UUID

import attrs
import numpy as np
import pydantic
import pytest
from helpers.modules import import_copy
from hypothesis import given
from hypothesis import strategies as st

from exponea_async.errors import InvalidEventError

NAME = "exponea_async._internal.encoding"
#: A slow machine does not fail a test.


FAST, PLAIN = import_copy(NAME), import_copy(NAME, without="orjson")


@pytest.fixture(params=[FAST, PLAIN], ids=["orjson", "json"])
def encoding(request: pytest.FixtureRequest) -> ModuleType:
    module: ModuleType = request.param
    return module


class Colour(enum.Enum):
    RED = "red"
    NOTHING = None
    SHADES = (1, Decimal("0.5"))


class Size(enum.StrEnum):
    LARGE = "large"


class Level(enum.IntEnum):
    HIGH = 3


class String(str):
    __slots__ = ()


class Integer(int):
    pass


class Float(float):
    pass


class Point(NamedTuple):
    x: int
    y: int | None


@attrs.frozen
class Item:
    sku: str
    price: Decimal
    note: str | None = None


@dataclass
class Parcel:
    weight: float
    tags: tuple[str, ...] = ()
    unset: str = dataclass_field(init=False)


class NoOffset(tzinfo):
    def utcoffset(self, _timestamp: datetime | None) -> None:
        return None

    dst = tzname = utcoffset


#: More digits than Python is willing to print.
HUGE = 10**5000
NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
IDENTIFIER = UUID("0d0f5f3e-1f0a-4f0e-8d4a-6a4d0b7a9c11")


def member(value: Any) -> Any:
    """Return a member of an enum, which orjson writes by its value."""
    return enum.Enum("Made", {"MEMBER": value}).MEMBER  # type: ignore[attr-defined]


def error_of(encoding: ModuleType, value: Any) -> InvalidEventError:
    with pytest.raises(InvalidEventError) as caught:
        encoding.encode_object(value, "properties")
    return caught.value


class TestValues:
    @pytest.mark.parametrize(
        ("value", "expected"),
        [
            ({}, b"{}"),
            ({"a": 1, "b": 1.0, "c": True, "d": False}, b'{"a":1,"b":1.0,"c":true,"d":false}'),
            ({"a": -0.0}, b'{"a":-0.0}'),
            ({"a": 'é\u2028\x7f"\\/\n\x01'}, '{"a":"é\u2028\x7f\\"\\\\/\\n\\u0001"}'.encode()),
            ({"a": 2**64 - 1, "b": -(2**63)}, b'{"a":18446744073709551615,"b":-9223372036854775808}'),
            ({"a": 12345678901234567890}, b'{"a":12345678901234567890}'),
            ({"a": "1234567890123456789012"}, b'{"a":"1234567890123456789012"}'),
            ({"a": "null"}, b'{"a":"null"}'),
            ({"null": "a null b", "n": [None, "null"]}, b'{"null":"a null b","n":["null"]}'),
            ({"a": String("t"), String("k"): Integer(7), "r": Float(0.5)}, b'{"a":"t","k":7,"r":0.5}'),
            ({"a": OrderedDict(x=1), "b": MappingProxyType({"y": None})}, b'{"a":{"x":1},"b":{}}'),
            ({"a": Decimal("7.90"), "b": Decimal(3)}, b'{"a":7.9,"b":3.0}'),
            ({"a": IDENTIFIER}, b'{"a":"0d0f5f3e-1f0a-4f0e-8d4a-6a4d0b7a9c11"}'),
            ({"a": NOON, "b": NOON.date()}, b'{"a":1767268800.0,"b":"2026-01-01"}'),
            ({"a": NOON.astimezone(timezone(timedelta(hours=5)))}, b'{"a":1767268800.0}'),
            ({"a": Colour.RED, "b": Colour.SHADES, "c": Colour.NOTHING}, b'{"a":"red","b":[1,0.5]}'),
            ({"a": Size.LARGE, Size.LARGE: Level.HIGH}, b'{"a":"large","large":3}'),
            ({"a": (1, "x"), "b": Point(1, None), "c": ()}, b'{"a":[1,"x"],"b":[1],"c":[]}'),
            ({"a": {3, 1, 2}, "b": frozenset({"z", "y"})}, b'{"a":[1,2,3],"b":["y","z"]}'),
            ({"a": Item("s", Decimal("1.5"))}, b'{"a":{"sku":"s","price":1.5}}'),
            ({"a": Parcel(2.5, ("x",))}, b'{"a":{"weight":2.5,"tags":["x"]}}'),
        ],
    )
    def test_each_type_has_its_json(self, encoding: ModuleType, value: Any, expected: bytes) -> None:
        """Every supported type is encoded as the same bytes by both codecs."""
        assert encoding.encode_object(value, "properties") == expected

    def test_none_is_left_out_at_every_depth(self, encoding: ModuleType) -> None:
        """Neither objects nor lists contain a null."""
        value = {"a": None, "b": {"c": None, "d": [None, 1, {"e": None}]}, "f": (None,), "g": {None}}

        assert encoding.encode_object(value, "properties") == b'{"b":{"d":[1,{}]},"f":[],"g":[]}'

    def test_any_mapping_is_accepted(self, encoding: ModuleType) -> None:
        """The properties need not be a dict."""
        assert encoding.encode_object(MappingProxyType({"a": 1}), "properties") == b'{"a":1}'

    def test_the_values_of_the_caller_are_not_changed(self, encoding: ModuleType) -> None:
        """Encoding works on copies."""
        value = {"a": None, "b": [None, {"c": None}]}

        encoding.encode_object(value, "properties")

        assert value == {"a": None, "b": [None, {"c": None}]}

    def test_both_codecs_sort_sets_alike(self) -> None:
        """Numbers that the codecs write differently are still in the same order."""
        value = {"a": {1e-10, 1e-5, 1e16, 15.0, 2e-7}}

        assert json.loads(FAST.encode_object(value, "p")) == json.loads(PLAIN.encode_object(value, "p"))


class TestInvalidValues:
    @pytest.mark.parametrize(
        ("value", "path", "trouble"),
        [
            ({"a": math.nan}, "properties.a", "must be a finite number, got "),
            ({"a": [1, -math.inf]}, "properties.a[1]", "must be a finite number, got "),
            ({"a": float("1e400")}, "properties.a", "must be a finite number, got "),
            ({"a": Decimal("1e400")}, "properties.a", "must be a finite number, got "),
            ({"a": Decimal("NaN")}, "properties.a", "must be a finite number, got "),
            ({"a": Decimal("sNaN")}, "properties.a", "must be a finite number, got "),
            (
                {"items": [{}, {}, {}, {"price": math.nan}]},
                "properties.items[3].price",
                "must be a finite number, got ",
            ),
            ({"a": {1: 2}}, "properties.a", "expected keys of type str, got 1"),
            ({"a": [{"b": {None: 2}}]}, "properties.a[0].b", "expected keys of type str, got None"),
            ({True: 2}, "properties", "expected keys of type str, got True"),
            ({HUGE: 2}, "properties", "expected keys of type str, got this int"),
            ({"a": datetime(2026, 1, 1)}, "properties.a", "must have a time zone, got datetime"),  # noqa: DTZ001
            ({"a": datetime(2026, 1, 1, tzinfo=NoOffset())}, "properties.a", "must have a time zone, got datetime"),
            ({"a": "\ud800"}, "properties.a", "half a surrogate pair"),
            ({"a": ["x", String("\udfff")]}, "properties.a[1]", "half a surrogate pair"),
            ({"\ud800": math.nan}, "properties", "half a surrogate pair"),
            ({"a": 2**64}, "properties.a", "must fit into 64 bits"),
            ({"a": -(2**63) - 1}, "properties.a", "must fit into 64 bits"),
            ({"a": [HUGE]}, "properties.a[0]", "must fit into 64 bits"),
            ({"a": object()}, "properties.a", "expected a value that JSON can represent, got object"),
            ({"a": b"bytes"}, "properties.a", "expected a value that JSON can represent, got bytes"),
            ({"a": time(12)}, "properties.a", "expected a value that JSON can represent, got time"),
            ({"a": 1j}, "properties.a", "expected a value that JSON can represent, got complex"),
            ({"a": iter(())}, "properties.a", "expected a value that JSON can represent, got tuple_iterator"),
            ({"a": Item}, "properties.a", "got the class Item"),
            ({"a": Item("s", Decimal("inf"))}, "properties.a.price", "must be a finite number, got "),
            ({"a": Parcel(math.nan)}, "properties.a.weight", "must be a finite number, got "),
            ([1], "properties", "expected a mapping, got "),
            ("text", "properties", "expected a mapping, got "),
            (None, "properties", "expected a mapping, got "),
            pytest.param(HUGE, "properties", "expected a mapping, got ", id="huge"),
        ],
    )
    def test_the_error_names_the_path_of_the_value(
        self, encoding: ModuleType, value: Any, path: str, trouble: str
    ) -> None:
        """A value that JSON can't represent raises an error with its path and what is wrong, which can be printed."""
        error = error_of(encoding, value)

        assert error.path == path
        assert trouble in str(error)
        assert str(error).encode()

    def test_a_value_that_contains_itself_is_invalid(self, encoding: ModuleType) -> None:
        """Cycles raise an error, through lists and through dicts."""
        ring: list[Any] = []
        ring.append(ring)
        loop: dict[str, Any] = {"x": 1}
        loop["loop"] = {"again": loop, "twice": loop}

        assert error_of(encoding, {"a": ring}).path.startswith("properties.a[0][0]")
        assert "contains itself" in str(error_of(encoding, loop))

    @pytest.mark.parametrize("innermost", [1, "x", "]}", Level.HIGH, Float(0.5), NOON])
    @pytest.mark.parametrize("kind", [lambda inner: [inner], lambda inner: (inner,), lambda inner: {"[{": inner}])
    def test_the_depth_is_limited_alike_with_both_codecs(
        self, encoding: ModuleType, kind: Callable[[Any], Any], innermost: Any
    ) -> None:
        """A value may be nested 100 levels deep, the properties included, whatever a codec could do."""
        deep = innermost
        for _ in range(99):
            deep = kind(deep)

        assert encoding.encode_object({"a": deep}, "properties")
        for deeper in (kind(deep), [deep], {"b": deep}, (deep,), kind(kind(deep))):
            assert "at most 100 levels" in str(error_of(encoding, {"wide": [[]] * 200, "a": deeper}))

    @pytest.mark.parametrize("levels", [100, 253, 254, 255, 300, 900, 2_500, 100_000])
    @pytest.mark.parametrize("kind", [list, tuple])
    def test_far_deeper_values_are_invalid_alike(self, encoding: ModuleType, levels: int, kind: Any) -> None:
        """Beyond what orjson can write, or would overwrite foreign memory for, the error is the same."""
        innermosts: list[Any] = [1, [], {}]
        for innermost in innermosts:
            deep = innermost
            for _ in range(levels):
                deep = kind((deep,))
            assert error_of(encoding, {"a": deep}).path.startswith("properties.a[0][0]")
            assert error_of(encoding, {"a": member(deep)}).path.startswith("properties.a[0][0]")

    def test_brackets_side_by_side_are_not_nesting(self, encoding: ModuleType) -> None:
        """Many shallow lists, or brackets in strings, do not count as nesting."""
        value = {"a": [{"b": [n]} for n in range(150)], "c": "[{" * 200}

        assert json.loads(encoding.encode_object(value, "properties")) == value


class Raises:
    """A value of an application's class whose methods raise."""

    def __init__(self, error: BaseException) -> None:
        self.error = error

    def tolist(self) -> Any:
        raise self.error

    @property
    def dtype(self) -> Any:
        raise self.error

    __repr__ = tolist


class NotATime(datetime):
    """As NaT in pandas: a datetime whose methods raise."""

    def utcoffset(self) -> Any:
        raise ValueError("NaTType does not support utcoffset")

    timestamp = __repr__ = utcoffset


class NotADate(date):
    def isoformat(self) -> str:
        raise ValueError("NaTType does not support isoformat")


class Broken(Mapping[str, Any]):
    """A mapping that cannot be read, as a row of a closed database."""

    def __getitem__(self, _key: str) -> Any:
        raise OSError("closed")

    def __iter__(self) -> Any:
        raise OSError("closed")

    def __len__(self) -> int:
        return 1


class Proxy:
    """As a proxy of a web framework outside of a request: not even its class can be asked for."""

    @property
    def __class__(self) -> Any:
        raise RuntimeError("working outside of a request")

    @__class__.setter
    def __class__(self, _kind: Any) -> None: ...


class Cart(pydantic.BaseModel):
    items: list[Any]
    total: Decimal


def raise_cancelled(_value: Any) -> Any:
    raise asyncio.CancelledError


class TestOtherTypes:
    @pytest.mark.parametrize(
        ("value", "expected"),
        [
            (timedelta(minutes=1.5), 90.0),
            (IPv4Address("10.0.0.1"), "10.0.0.1"),
            (IPv6Address("::1"), "::1"),
            (PurePosixPath("/a/b"), "/a/b"),
            (Cart(items=["mug"], total=Decimal("7.5")), {"items": ["mug"], "total": 7.5}),
            (np.int64(5), 5),
            (np.float32(0.5), 0.5),
            (np.bool_(True), True),  # noqa: FBT003
            (np.str_("text"), "text"),
            (np.array([[1, 2], [3, 4]]), [[1, 2], [3, 4]]),
            (np.array([Decimal(1), None, "x"], dtype=object), [1.0, "x"]),
            (np.array(7), 7),
        ],
    )
    def test_types_whose_meaning_is_clear(self, encoding: ModuleType, value: Any, expected: Any) -> None:
        """A duration becomes its seconds, an address and a path a string, numpy's values and models their content."""
        assert json.loads(encoding.encode_object({"a": value, "b": [value]}, "p")) == {"a": expected, "b": [expected]}

    @pytest.mark.parametrize(
        ("value", "path"),
        [
            (np.datetime64("2026-01-01"), "p.a"),
            (np.array(["2026-01-01"], dtype="datetime64[ns]"), "p.a"),
            (np.timedelta64(5, "s"), "p.a"),
            (np.complex128(1j), "p.a"),
            (np.longdouble(1), "p.a"),
            (np.array([1.0, math.nan]), "p.a[1]"),
            (np.float64("nan"), "p.a"),
            (Cart, "p.a"),
            (Cart.model_construct(items=[1j], total=Decimal(1)), "p.a.items[0]"),
        ],
    )
    def test_types_whose_meaning_is_unclear(self, encoding: ModuleType, value: Any, path: str) -> None:
        """Times without a zone or a unit, and numbers that JSON does not have, are errors with their path."""
        with pytest.raises(InvalidEventError) as caught:
            encoding.encode_object({"a": value}, "p")

        assert caught.value.path == path

    @pytest.mark.parametrize(
        "value",
        [
            Raises(ZeroDivisionError()),
            Raises(asyncio.CancelledError()),
            Raises(RecursionError()),
            NotATime(2026, 1, 1),
            NotADate(2026, 1, 1),
            Broken(),
            Proxy,
        ],
    )
    def test_values_whose_methods_raise(self, encoding: ModuleType, value: Any) -> None:
        """Whatever a method of a value raises, the error is one about the event, and names the value's path."""
        if value is Proxy:  # pytest itself could not handle an instance
            value = Proxy()
        for values, path in (({"a": value}, "p.a"), ({"a": [1, {"b": value}]}, "p.a[1].b")):
            with pytest.raises(InvalidEventError) as caught:
                encoding.encode_object(values, "p")
            assert caught.value.path == path
            assert str(caught.value)

    def test_the_encoder_converts_unknown_types(self, encoding: ModuleType) -> None:
        """It gets values that are neither of JSON nor standard, before the SDK converts them, and its result counts."""
        seen: list[Any] = []

        def convert(value: Any) -> Any:
            seen.append(value)
            return {timedelta(1): "a day", 1j: {"imaginary": (1, None)}}.get(value, value)

        given = {"a": timedelta(1), "b": [1j], "c": timedelta(2), "d": Decimal(1), "e": None}
        encoded = encoding.encode_object(given, "p", convert)

        assert json.loads(encoded) == {"a": "a day", "b": [{"imaginary": [1]}], "c": 172_800.0, "d": 1.0}
        assert seen == [timedelta(1), 1j, timedelta(2)]

    @pytest.mark.parametrize(
        ("convert", "trouble"),
        [
            (lambda _value: math.nan, "must be a finite number"),
            (lambda value: [value], "at most 100 levels"),
            (lambda _value: object(), "at most 100 levels"),
            (lambda value: 1 / 0, "the encoder raised ZeroDivisionError. Correct the encoder"),
            (raise_cancelled, "the encoder raised CancelledError. Correct the encoder"),
            (lambda value: value, "expected a value that JSON can represent, got complex"),
        ],
    )
    def test_an_encoder_that_does_not_help(
        self, encoding: ModuleType, convert: Callable[[Any], Any], trouble: str
    ) -> None:
        """What an encoder returns is checked as any value, and an error of it is one about the event."""
        with pytest.raises(InvalidEventError, match=trouble) as caught:
            encoding.encode_object({"a": 1j}, "p", convert)

        assert caught.value.path.startswith("p.a")


class TestSizes:
    def test_values_are_counted_before_they_are_walked(self, encoding: ModuleType) -> None:
        """A value of millions of elements, or of a few that contain each other many times, is an error at once."""
        doubled: Any = [1]
        for _ in range(90):
            doubled = [doubled, doubled]
        for large in ([None] * 5_000_000, doubled, np.zeros(5_000_000), dict.fromkeys(map(str, range(500_000)))):
            assert "elements in all" in str(error_of(encoding, {"a": large}))

    def test_values_of_the_usual_types_are_not_walked_for_that(self) -> None:
        """Where only all values together are too many, the error is about all of them."""
        values = {str(number): [[1, 2]] * 3_000 for number in range(48)}
        assert str(error_of(FAST, values)).startswith("properties: must have at most 409600 elements in all")

    def test_a_single_value_has_a_limit_of_its_own(self, encoding: ModuleType) -> None:
        """A value may have 32,768 elements, far more than fit into its bytes; others begin to count anew."""
        longest = [None] * 32_768

        assert encoding.encode_object({"a": longest, "b": longest}, "p") == b'{"a":[],"b":[]}'
        assert "at most 32768 elements" in str(error_of(encoding, {"b": 1, "a": [[None] * 10_000] * 4}))

    @pytest.mark.parametrize("length", [16_381, 10])
    def test_a_value_below_the_limit_is_valid(self, encoding: ModuleType, length: int) -> None:
        """Only single values are limited, to less than 16,384 bytes with their quotes."""
        value = {f"p{n}": "x" * length for n in range(5)}

        assert json.loads(encoding.encode_object(value, "properties")) == value

    @pytest.mark.parametrize("large", ["x" * 16_382, "é" * 8_191, ["x" * 9_000, "y" * 9_000], {"k": "x" * 20_000}])
    def test_a_value_of_16_kb_is_invalid(self, encoding: ModuleType, large: Any) -> None:
        """The error names the property that takes 16,384 bytes or more."""
        error = error_of(encoding, {"fine": "x" * 16_000, "large": large})

        assert error.path == "properties.large"
        assert "less than 16384" in str(error)

    def test_size_is_measured_after_conversion(self, encoding: ModuleType) -> None:
        """A value is measured as it will be sent."""
        assert error_of(encoding, {"a": {Decimal(n) / 7 for n in range(2_000)}}).path == "properties.a"
        assert encoding.encode_object({"a": [None] * 20_000}, "properties") == b'{"a":[]}'


# Supported values, and what an independent implementation makes of them.
strings = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
timestamps = st.datetimes(datetime(1900, 1, 1), datetime(2200, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001
scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**63), 2**64 - 1),
    st.floats(allow_nan=False, allow_infinity=False),
    strings,
    st.sampled_from(["null", "1234567890123456789", "\\ud800", "[{", String("t"), Integer(5), Float(2.5)]),
    st.sampled_from([*Colour, *Size, *Level]),
    timestamps,
    st.dates(),
    st.uuids(),
    st.decimals(-(10**9), 10**9, allow_nan=False, allow_infinity=False),
)
values = st.recursive(
    scalars,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.tuples(inner, inner),
        st.dictionaries(strings, inner, max_size=4),
        st.dictionaries(strings, inner, max_size=2).map(MappingProxyType),
        st.builds(Item, sku=strings, price=st.just(Decimal(1)), note=inner),
        st.builds(Parcel, weight=inner),
    ),
    max_leaves=12,
)


def expected(value: Any) -> Any:  # noqa: PLR0911 - a table
    """Return what a JSON reader should see of a value; None if it is left out."""
    match value:
        case enum.Enum():
            return expected(value.value)
        case None | bool() | int() | str() | float():
            return value
        case datetime():
            return (value - datetime(1970, 1, 1, tzinfo=UTC)) / timedelta(seconds=1)
        case date() | UUID():
            return str(value)
        case Decimal():
            return float(value)
        case Item():
            return expected({"sku": value.sku, "price": value.price, "note": value.note})
        case Parcel():
            return expected({"weight": value.weight, "tags": value.tags})
        case list() | tuple():
            return [plain for each in value if (plain := expected(each)) is not None]
    return {key: plain for key, each in value.items() if (plain := expected(each)) is not None}


class TestProperties:
    @given(st.dictionaries(strings, values, max_size=5))
    def test_both_codecs_agree_with_an_independent_implementation(self, value: dict[str, Any]) -> None:
        """Any supported value becomes valid JSON with the expected values and types."""
        for module in (FAST, PLAIN):
            read = json.loads(module.encode_object(value, "properties"))
            assert repr(read) == repr(json.loads(json.dumps(expected(value))))

    @given(st.dictionaries(strings, st.one_of(strings, st.booleans(), st.integers(-(2**63), 2**64 - 1)), max_size=5))
    def test_flat_values_without_floats_are_the_same_bytes(self, value: dict[str, Any]) -> None:
        """The codecs differ only in how they write floats."""
        assert FAST.encode_object(value, "properties") == PLAIN.encode_object(value, "properties")

    @given(
        st.dictionaries(
            st.one_of(st.text(max_size=3), st.integers()),
            st.recursive(
                st.one_of(st.text(max_size=3), st.floats(), st.integers(), st.binary(max_size=2), st.none()),
                lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.none() | strings, inner, max_size=2),
                max_leaves=4,
            ),
            max_size=3,
        )
    )
    def test_both_codecs_raise_the_same_errors(self, value: dict[Any, Any]) -> None:
        """Any value is encoded by both codecs, or raises the same error with both."""
        outcomes = []
        for module in (FAST, PLAIN):
            try:
                outcomes.append(repr(json.loads(module.encode_object(value, "properties"))))
            except InvalidEventError as error:
                outcomes.append(str(error))

        assert outcomes[0] == outcomes[1]


class TestStrings:
    @pytest.mark.parametrize("string", ["purchase", "Nákup \U0001f6d2", 'say "hi"', String("t"), Size.LARGE])
    def test_any_non_empty_string_can_be_a_name(self, encoding: ModuleType, string: str) -> None:
        """Every non-empty string becomes a JSON string, instances of subclasses, too."""
        assert json.loads(encoding.encode_string(string, "name")) == str(string)

    @pytest.mark.parametrize("value", ["", None, 5, b"name", pytest.param(HUGE, id="huge"), "\ud800", String("\ud800")])
    def test_other_values_are_invalid_names(self, encoding: ModuleType, value: Any) -> None:
        """An empty string, another type or half a surrogate pair raises an error with the path."""
        with pytest.raises(InvalidEventError) as caught:
            encoding.encode_string(value, "name")

        assert caught.value.path == "name"
