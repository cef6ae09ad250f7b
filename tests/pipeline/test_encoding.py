"""
Values to JSON bytes, with orjson and with the standard library: the same bytes, the same errors.
"""

import enum
import json
import math
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from dataclasses import field as dataclass_field
from datetime import UTC, date, datetime, time, timedelta, timezone, tzinfo
from decimal import Decimal
from types import MappingProxyType, ModuleType
from typing import Any, NamedTuple
from uuid import UUID

import attrs
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support import copy_of

from exponea_async.errors import InvalidEventError

NAME = "exponea_async._pipeline.encoding"
#: A slow machine is no failure.
UNHURRIED = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])


FAST, PLAIN = copy_of(NAME), copy_of(NAME, without="orjson")


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


class Text(str):
    __slots__ = ()


class Whole(int):
    pass


class Ratio(float):
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


class Nowhere(tzinfo):
    def utcoffset(self, _moment: datetime | None) -> None:
        return None

    dst = tzname = utcoffset


#: More digits than Python is willing to print.
HUGE = 10**5000
NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
IDENTIFIER = UUID("0d0f5f3e-1f0a-4f0e-8d4a-6a4d0b7a9c11")


def nested(levels: int, innermost: Any = 1) -> Any:
    value = innermost
    for _ in range(levels):
        value = [value]
    return value


def refusal(encoding: ModuleType, value: Any) -> InvalidEventError:
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
            ({"a": Text("t"), Text("k"): Whole(7), "r": Ratio(0.5)}, b'{"a":"t","k":7,"r":0.5}'),
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
    def test_each_kind_has_its_json(self, encoding: ModuleType, value: Any, expected: bytes) -> None:
        """Every supported kind of value becomes the same bytes with either codec."""
        assert encoding.encode_object(value, "properties") == expected

    def test_none_is_left_out_at_every_depth(self, encoding: ModuleType) -> None:
        """A None vanishes from objects and from lists, however deep."""
        value = {"a": None, "b": {"c": None, "d": [None, 1, {"e": None}]}, "f": (None,), "g": {None}}

        assert encoding.encode_object(value, "properties") == b'{"b":{"d":[1,{}]},"f":[],"g":[]}'

    def test_any_mapping_will_do(self, encoding: ModuleType) -> None:
        """The properties need not be a dict."""
        assert encoding.encode_object(MappingProxyType({"a": 1}), "properties") == b'{"a":1}'

    def test_the_callers_values_stay_as_they_are(self, encoding: ModuleType) -> None:
        """Encoding changes nothing of what it was given."""
        value = {"a": None, "b": [None, {"c": None}]}

        encoding.encode_object(value, "properties")

        assert value == {"a": None, "b": [None, {"c": None}]}

    def test_a_set_has_one_order_with_both_codecs(self) -> None:
        """Numbers that the codecs spell differently are sorted the same."""
        value = {"a": {1e-10, 1e-5, 1e16, 15.0, 2e-7}}

        assert json.loads(FAST.encode_object(value, "p")) == json.loads(PLAIN.encode_object(value, "p"))


class TestRefusals:
    @pytest.mark.parametrize(
        ("value", "path", "trouble"),
        [
            ({"a": math.nan}, "properties.a", "no finite number"),
            ({"a": [1, -math.inf]}, "properties.a[1]", "no finite number"),
            ({"a": float("1e400")}, "properties.a", "no finite number"),
            ({"a": Decimal("1e400")}, "properties.a", "no finite number"),
            ({"a": Decimal("NaN")}, "properties.a", "no finite number"),
            ({"a": Decimal("sNaN")}, "properties.a", "no finite number"),
            ({"items": [{}, {}, {}, {"price": math.nan}]}, "properties.items[3].price", "no finite number"),
            ({"a": {1: 2}}, "properties.a", "key 1 is no text"),
            ({"a": [{"b": {None: 2}}]}, "properties.a[0].b", "key None is no text"),
            ({True: 2}, "properties", "key True is no text"),
            ({HUGE: 2}, "properties", "key this int is no text"),
            ({"a": datetime(2026, 1, 1)}, "properties.a", "no time zone"),  # noqa: DTZ001
            ({"a": datetime(2026, 1, 1, tzinfo=Nowhere())}, "properties.a", "no time zone"),
            ({"a": "\ud800"}, "properties.a", "surrogate"),
            ({"a": ["x", Text("\udfff")]}, "properties.a[1]", "surrogate"),
            ({"\ud800": math.nan}, "properties", "surrogate"),
            ({"a": 2**64}, "properties.a", "64 bits"),
            ({"a": -(2**63) - 1}, "properties.a", "64 bits"),
            ({"a": [HUGE]}, "properties.a[0]", "64 bits"),
            ({"a": object()}, "properties.a", "type object can't be sent"),
            ({"a": b"bytes"}, "properties.a", "type bytes can't be sent"),
            ({"a": time(12)}, "properties.a", "type time can't be sent"),
            ({"a": timedelta(1)}, "properties.a", "type timedelta can't be sent"),
            ({"a": 1j}, "properties.a", "type complex can't be sent"),
            ({"a": iter(())}, "properties.a", "type tuple_iterator can't be sent"),
            ({"a": Item}, "properties.a", "is a class"),
            ({"a": Item("s", Decimal("inf"))}, "properties.a.price", "no finite number"),
            ({"a": Parcel(math.nan)}, "properties.a.weight", "no finite number"),
            ([1], "properties", "no mapping"),
            ("text", "properties", "no mapping"),
            (None, "properties", "no mapping"),
            pytest.param(HUGE, "properties", "no mapping", id="huge"),
        ],
    )
    def test_what_json_cannot_tell_is_refused_with_its_path(
        self, encoding: ModuleType, value: Any, path: str, trouble: str
    ) -> None:
        """A value that can't be sent raises an error that names the place and the trouble, and can be printed."""
        error = refusal(encoding, value)

        assert error.path == path
        assert trouble in str(error)
        assert str(error).encode()

    def test_a_value_that_contains_itself_is_refused(self, encoding: ModuleType) -> None:
        """Cycles end in an error, through lists and through dicts."""
        ring: list[Any] = []
        ring.append(ring)
        loop: dict[str, Any] = {"x": 1}
        loop["loop"] = {"again": loop, "twice": loop}

        assert refusal(encoding, {"a": ring}).path.startswith("properties.a[0][0]")
        assert "contain itself" in str(refusal(encoding, loop))

    @pytest.mark.parametrize("innermost", [1, "x", "]}", Level.HIGH, Ratio(0.5), NOON])
    @pytest.mark.parametrize("kind", [lambda inner: [inner], lambda inner: (inner,), lambda inner: {"[{": inner}])
    def test_nesting_has_the_same_end_with_both_codecs(
        self, encoding: ModuleType, kind: Callable[[Any], Any], innermost: Any
    ) -> None:
        """A value is taken up to 100 levels deep, the properties included, and no deeper, whatever a codec could do."""
        deep = innermost
        for _ in range(99):
            deep = kind(deep)

        assert encoding.encode_object({"a": deep}, "properties")
        for deeper in (kind(deep), [deep], {"b": deep}, (deep,), kind(kind(deep))):
            assert "deeper than 100" in str(refusal(encoding, {"wide": [[]] * 200, "a": deeper}))

    @pytest.mark.parametrize("levels", [100, 253, 254, 255, 300, 900])
    def test_what_is_far_too_deep_is_refused_alike(self, encoding: ModuleType, levels: int) -> None:
        """Beyond what orjson writes by itself, and with nothing inside, the error is the same."""
        innermosts: list[Any] = [1, [], {}]
        for innermost in innermosts:
            assert refusal(encoding, {"a": nested(levels, innermost)}).path.startswith("properties.a[0][0]")

    def test_many_shallow_lists_are_not_deep(self, encoding: ModuleType) -> None:
        """Brackets side by side, or in texts, do not count as nesting."""
        value = {"a": [{"b": [n]} for n in range(150)], "c": "[{" * 200}

        assert json.loads(encoding.encode_object(value, "properties")) == value


class TestSizes:
    @pytest.mark.parametrize("length", [16_381, 10])
    def test_a_value_below_the_limit_passes(self, encoding: ModuleType, length: int) -> None:
        """Many values may together be large, as long as each takes less than 16,384 bytes with its quotes."""
        value = {f"p{n}": "x" * length for n in range(5)}

        assert json.loads(encoding.encode_object(value, "properties")) == value

    @pytest.mark.parametrize("large", ["x" * 16_382, "é" * 8_191, ["x" * 9_000, "y" * 9_000], {"k": "x" * 20_000}])
    def test_a_value_of_16_kb_is_refused_by_name(self, encoding: ModuleType, large: Any) -> None:
        """The platform wants less than 16,384 bytes, so the error names the property that has them or more."""
        error = refusal(encoding, {"fine": "x" * 16_000, "large": large})

        assert error.path == "properties.large"
        assert "less than 16384" in str(error)

    def test_size_is_measured_after_conversion(self, encoding: ModuleType) -> None:
        """What is converted is measured as it will be sent."""
        assert refusal(encoding, {"a": {Decimal(n) / 7 for n in range(2_000)}}).path == "properties.a"
        assert encoding.encode_object({"a": [None] * 20_000}, "properties") == b'{"a":[]}'


# What the SDK takes, beside what an independent reading of DESIGN makes of it.
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
moments = st.datetimes(datetime(1900, 1, 1), datetime(2200, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001
scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**63), 2**64 - 1),
    st.floats(allow_nan=False, allow_infinity=False),
    texts,
    st.sampled_from(["null", "1234567890123456789", "\\ud800", "[{", Text("t"), Whole(5), Ratio(2.5)]),
    st.sampled_from([*Colour, *Size, *Level]),
    moments,
    st.dates(),
    st.uuids(),
    st.decimals(-(10**9), 10**9, allow_nan=False, allow_infinity=False),
)
values = st.recursive(
    scalars,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.tuples(inner, inner),
        st.dictionaries(texts, inner, max_size=4),
        st.dictionaries(texts, inner, max_size=2).map(MappingProxyType),
        st.builds(Item, sku=texts, price=st.just(Decimal(1)), note=inner),
        st.builds(Parcel, weight=inner),
    ),
    max_leaves=12,
)


def expected(value: Any) -> Any:  # noqa: PLR0911 - a table
    """Tell what a JSON reader should see of a value; None where it is left out."""
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
            return [told for each in value if (told := expected(each)) is not None]
    return {key: told for key, each in value.items() if (told := expected(each)) is not None}


class TestProperties:
    @UNHURRIED
    @given(st.dictionaries(texts, values, max_size=5))
    def test_both_codecs_agree_with_an_independent_reading(self, value: dict[str, Any]) -> None:
        """Any supported value becomes valid JSON that says just that, in its types too."""
        for module in (FAST, PLAIN):
            read = json.loads(module.encode_object(value, "properties"))
            assert repr(read) == repr(json.loads(json.dumps(expected(value))))

    @UNHURRIED
    @given(st.dictionaries(texts, st.one_of(texts, st.booleans(), st.integers(-(2**63), 2**64 - 1)), max_size=5))
    def test_flat_values_without_floats_are_the_same_bytes(self, value: dict[str, Any]) -> None:
        """The codecs only ever differ in how they spell a float."""
        assert FAST.encode_object(value, "properties") == PLAIN.encode_object(value, "properties")

    @UNHURRIED
    @given(
        st.dictionaries(
            st.one_of(st.text(max_size=3), st.integers()),
            st.recursive(
                st.one_of(st.text(max_size=3), st.floats(), st.integers(), st.binary(max_size=2), st.none()),
                lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.none() | texts, inner, max_size=2),
                max_leaves=4,
            ),
            max_size=3,
        )
    )
    def test_both_codecs_refuse_the_same(self, value: dict[Any, Any]) -> None:
        """Any value at all is encoded by both codecs, or refused by both with the same words."""
        outcomes = []
        for module in (FAST, PLAIN):
            try:
                outcomes.append(repr(json.loads(module.encode_object(value, "properties"))))
            except InvalidEventError as error:
                outcomes.append(str(error))

        assert outcomes[0] == outcomes[1]


class TestTexts:
    @pytest.mark.parametrize("text", ["purchase", "Nákup \U0001f6d2", 'say "hi"', Text("t"), Size.LARGE])
    def test_any_text_can_be_a_name(self, encoding: ModuleType, text: str) -> None:
        """Every non-empty text becomes a JSON string, subclasses by their content."""
        assert json.loads(encoding.encode_text(text, "name")) == str(text)

    @pytest.mark.parametrize("text", ["", None, 5, b"name", pytest.param(HUGE, id="huge"), "\ud800", Text("\ud800")])
    def test_what_is_no_text_is_refused(self, encoding: ModuleType, text: Any) -> None:
        """An empty name, another type or half a surrogate pair raises with the path."""
        with pytest.raises(InvalidEventError) as caught:
            encoding.encode_text(text, "name")

        assert caught.value.path == "name"


class TestMoments:
    @pytest.mark.parametrize(
        ("moment", "seconds"),
        [(NOON, 1767268800.0), (5, 5.0), (5.5, 5.5), (-1, -1.0), (Ratio(2.0), 2.0), (1e11, 1e11)],
    )
    def test_moments_are_unix_seconds(self, encoding: ModuleType, moment: Any, seconds: float) -> None:
        """Aware datetimes and numbers are told as float seconds."""
        told = encoding.unix_seconds(moment, "timestamp")

        assert (type(told), told) == (float, seconds)

    @pytest.mark.parametrize(
        ("moment", "trouble"),
        [
            (datetime(2026, 1, 1), "no time zone"),  # noqa: DTZ001
            (datetime(2026, 1, 1, tzinfo=Nowhere()), "no time zone"),
            (math.nan, "no moment"),
            (math.inf, "no moment"),
            (-math.inf, "no moment"),
            (True, "no moment"),
            ("now", "no moment"),
            (None, "no moment"),
            (Decimal(5), "no moment"),
            (1_767_268_800_000, "milliseconds"),
            (10**400, "milliseconds"),
            pytest.param(HUGE, "milliseconds", id="huge"),
        ],
    )
    def test_what_is_no_moment_is_refused(self, encoding: ModuleType, moment: Any, trouble: str) -> None:
        """Naive, unlimited, and suspiciously large moments raise with the path."""
        with pytest.raises(InvalidEventError, match=trouble) as caught:
            encoding.unix_seconds(moment, "timestamp")

        assert caught.value.path == "timestamp"
