"""
The events that triggers match.
"""

import json
from collections import UserDict
from collections.abc import Mapping
from datetime import UTC, date, datetime
from decimal import Decimal
from enum import Enum, StrEnum
from typing import Any
from uuid import UUID

import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st
from vectors_filters import BROKEN, CART, CART_TIME, CASES, MATCH, NEVER, Case, condition

from exponea_async._internal.fields import FieldError
from exponea_async.features._shared.targeting.filters import Trigger, TriggerEvent, comparison_string, read_trigger
from exponea_async.features._shared.targeting.patterns import MAX_PATTERN

CART_UPDATE = TriggerEvent("cart_update", CART, CART_TIME)

TEAL = condition("color", "string", "equals", "Teal")
RED = condition("color", "string", "equals", "Red")
NO_COUNT = condition("qty", "number", "greater than")


def trigger(*conditions: Mapping[str, Any], event_type: str = "cart_update") -> Trigger:
    """Return a trigger with conditions."""
    read = read_trigger({"event_type": event_type, "filter": list(conditions)})
    assert read is not None
    return read


def matches(value: object, **properties: Any) -> bool:
    """Return whether a condition on ``x`` is true for an event with these properties."""
    assert isinstance(value, dict)
    return trigger(value).matches(TriggerEvent("cart_update", properties))


class TestConditions:
    @pytest.mark.parametrize("case", [pytest.param(case, id=case.number) for case in CASES if case.outcome != BROKEN])
    def test_each_operator(self, case: Case) -> None:
        """A condition is true in the same cases as in the Android SDK, and one with the wrong operands never is."""
        read = trigger(case.condition)
        assert read.matches(CART_UPDATE) is (case.outcome == MATCH)
        if case.outcome == NEVER:
            assert read.trouble

    @pytest.mark.parametrize("case", [pytest.param(case, id=case.number) for case in CASES if case.outcome == BROKEN])
    def test_unknown_words(self, case: Case) -> None:
        """An unknown type or operator makes the whole message unusable."""
        with pytest.raises(FieldError, match="expected one of"):
            trigger(case.condition)

    @pytest.mark.parametrize(
        ("operator", "more", "expected"),
        [
            pytest.param("contains", {"value": "ea"}, True, id="value-as-operand"),
            pytest.param("contains", {}, False, id="no-value"),
            pytest.param("is", {}, False, id="is-without-value"),
            pytest.param("in between", {"value": "1"}, False, id="one-of-two"),
            pytest.param("in", {"value": "Teal"}, True, id="in"),
            pytest.param("not in", {}, True, id="not-in-nothing"),
        ],
    )
    def test_any_operator_in_a_boolean(self, operator: str, more: dict[str, str], *, expected: bool) -> None:
        """A boolean condition accepts the operators of the others, with its value as the operand."""
        assert trigger(condition("color", "boolean", operator, **more)).matches(CART_UPDATE) is expected

    @pytest.mark.parametrize(
        ("kind", "operator", "operand"),
        [
            pytest.param("number", "equals", "7", id="string-in-number"),
            pytest.param("string", "equal to", "7.0", id="number-in-string"),
            pytest.param("string", "is", "7", id="boolean-in-string"),
        ],
    )
    def test_any_operator_anywhere(self, kind: str, operator: str, operand: str) -> None:
        """The type of a condition does not limit its operators."""
        assert trigger(condition("qty", kind, operator, operand)).matches(CART_UPDATE)


FILTERS: dict[str, tuple[TriggerEvent, list[Mapping[str, Any]], bool]] = {
    "W01": (CART_UPDATE, [], True),
    "W02": (evolve(CART_UPDATE, event_type="Cart_Update"), [], False),
    "W03": (evolve(CART_UPDATE, event_type="purchase"), [], False),
    "W04": (CART_UPDATE, [TEAL, condition("qty", "number", "greater than", "6")], True),
    "W05": (CART_UPDATE, [TEAL, condition("qty", "number", "greater than", "7")], False),
    "W06": (CART_UPDATE, [RED, NO_COUNT], False),
    "W07": (CART_UPDATE, [TEAL, NO_COUNT], False),
    "W10": (
        evolve(CART_UPDATE, properties={**CART, "application_id": "shop-app"}),
        [condition("application_id", "string", "equals", "shop-app")],
        True,
    ),
    "W11": (
        evolve(CART_UPDATE, properties={"language": "cs", **CART}),
        [condition("language", "string", "equals", "cs")],
        True,
    ),
    "W12": (evolve(CART_UPDATE, timestamp=None), [condition("timestamp", "string", "is set")], False),
    "W13": (
        evolve(CART_UPDATE, timestamp=1700000000.001),
        [condition("timestamp", "number", "greater than", "1700000000")],
        True,
    ),
    "W14": (
        CART_UPDATE,
        [condition("price", "number", "greater than", "10"), condition("price", "number", "less than", "20")],
        True,
    ),
}


class TestTriggers:
    @pytest.mark.parametrize(
        ("event", "conditions", "expected"), [pytest.param(*case, id=number) for number, case in FILTERS.items()]
    )
    def test_whole_filters(self, event: TriggerEvent, conditions: list[Mapping[str, Any]], *, expected: bool) -> None:
        """The event type must be equal, and all conditions must be true."""
        assert trigger(*conditions).matches(event) is expected

    @pytest.mark.parametrize("value", [pytest.param(None, id="W08")])
    def test_no_trigger(self, value: object) -> None:
        """A message without a trigger is never shown."""
        assert read_trigger(value) is None

    @pytest.mark.parametrize("more", [pytest.param({"type": "event"}, id="W09")])
    def test_other_fields(self, more: dict[str, str]) -> None:
        """Other fields of the platform make no difference."""
        source = {"event_type": "cart_update", "filter": [TEAL]}
        assert read_trigger(source | more) == read_trigger(source)

    @pytest.mark.parametrize(
        "case", [pytest.param(case, id=f"W15-{case.number}") for case in CASES if case.outcome != BROKEN]
    )
    def test_equal_json_gives_equal_triggers(self, case: Case) -> None:
        """Triggers that are read from equal JSON are equal, although each is compiled anew."""
        once = trigger(case.condition, TEAL)
        assert trigger(json.loads(json.dumps(case.condition)), TEAL) == once

    @pytest.mark.parametrize("operands", [pytest.param({}, id="W16"), pytest.param({"operands": None}, id="null")])
    def test_no_operands(self, operands: dict[str, None]) -> None:
        """An operator that takes no operands needs no list of them."""
        constraint = {"type": "string", "operator": "is set", **operands}
        assert trigger({"attribute": {"type": "property", "property": "color"}, "constraint": constraint}).matches(
            CART_UPDATE
        )

    @pytest.mark.parametrize(
        "value",
        [
            pytest.param("cart_update", id="string"),
            pytest.param([], id="list"),
            pytest.param({}, id="empty"),
            pytest.param({"filter": []}, id="no-type"),
            pytest.param({"event_type": None, "filter": []}, id="null-type"),
            pytest.param({"event_type": 7, "filter": []}, id="number-type"),
            pytest.param({"event_type": "a"}, id="no-filter"),
            pytest.param({"event_type": "a", "filter": None}, id="null-filter"),
            pytest.param({"event_type": "a", "filter": {}}, id="object-filter"),
            pytest.param({"event_type": "a", "filter": [None]}, id="null-condition"),
            pytest.param({"event_type": "a", "filter": [{}]}, id="empty-condition"),
            pytest.param({"event_type": "a", "filter": [{**TEAL, "attribute": "color"}]}, id="string-attribute"),
            pytest.param({"event_type": "a", "filter": [{**TEAL, "attribute": {"type": "property"}}]}, id="no-name"),
            pytest.param({"event_type": "a", "filter": [{**TEAL, "constraint": None}]}, id="no-constraint"),
            pytest.param({"event_type": "a", "filter": [{**TEAL, "constraint": {"type": []}}]}, id="list-type"),
        ],
    )
    def test_broken_triggers(self, value: object) -> None:
        """A broken trigger raises an error that says what is expected."""
        with pytest.raises(FieldError, match=r"^trigger: .*(expected an? \w+, got |missing$)"):
            read_trigger(value)

    @pytest.mark.parametrize("operands", ["Teal", {}, [None], ["Teal"], [{}], [{"value": 7}], [{"value": None}]])
    def test_broken_operands(self, operands: object) -> None:
        """Operands must be constants, which are strings."""
        constraint = {"type": "string", "operator": "in", "operands": operands}
        with pytest.raises(FieldError):
            trigger({**TEAL, "constraint": constraint})

    def test_a_broken_value(self) -> None:
        """The value of a boolean condition must be a string."""
        with pytest.raises(FieldError):
            trigger({**TEAL, "constraint": {"type": "boolean", "operator": "is", "value": True}})


class Size(Enum):
    LARGE = "L"
    SOME = 7


class Tint(StrEnum):
    TEAL = "teal"


NESTED: list[Any] = []
NESTED.append(NESTED)


class TestComparisonStrings:
    @pytest.mark.parametrize(
        ("value", "expected"),
        [
            ("Teal", "Teal"),
            (Tint.TEAL, "teal"),
            (True, "true"),
            (False, "false"),
            (7, "7"),
            (-(2**63), "-9223372036854775808"),
            (2.0, "2.0"),
            (19.5, "19.5"),
            (1e22, "1e+22"),
            (Decimal("19.50"), "19.5"),
            (datetime(2023, 11, 14, 22, 13, 20, tzinfo=UTC), "1700000000.0"),
            (date(2023, 11, 14), "2023-11-14"),
            (UUID(int=7), "00000000-0000-0000-0000-000000000007"),
            (Size.LARGE, "L"),
            (Size.SOME, "7"),
            ([1, None, "á", [True]], '[1,"á",[true]]'),
            (("a", 2.0), '["a",2.0]'),
            ({"b": {"c": None, "d": 1}, "a": Decimal(1)}, '{"b":{"d":1},"a":1.0}'),
            (UserDict({"a": 1}), '{"a":1}'),
            ({"b", "a"}, '["a","b"]'),
        ],
    )
    def test_comparison_string(self, value: object, expected: str) -> None:
        """A value is compared by the string that is sent."""
        assert comparison_string(value) == expected

    @pytest.mark.parametrize(
        "value",
        [
            None,
            object(),
            b"teal",
            str,
            Size,
            10**5000,
            [10**5000],
            {10**5000},
            {1: "a"},
            {"a": object()},
            Decimal("sNaN"),
            datetime.min,  # noqa: DTZ901 - what must not crash
            NESTED,
        ],
        ids=lambda value: type(value).__name__,
    )
    def test_values_without_a_string(self, value: object) -> None:
        """A value that can't be sent counts as present, but no comparison with it is true."""
        if value is not None and not isinstance(value, datetime):
            assert matches(condition("x", "string", "has value"), x=value)
        if not isinstance(value, datetime):
            assert comparison_string(value) is None
        assert not matches(condition("x", "string", "equals", ""), x=value)
        assert not matches(condition("x", "number", "not between", "1", "2"), x=value)

    @pytest.mark.parametrize(
        ("string", "is_number"),
        [
            *[(string, True) for string in ("7", "+7", "-7", "007", "7.0", "1e3", "1E+3", "1.5e-3", "0", "9" * 400)],
            *[
                (string, False)
                for string in ("", " 7", "7\n", "7d", "0x10", "1_000", ".5", "5.", "1e", "NaN", "inf", "\u0667")
            ],
        ],
    )
    def test_numbers(self, string: str, *, is_number: bool) -> None:
        """A number consists of digits, with an optional sign, fraction and exponent, and of nothing else."""
        assert matches(condition("x", "number", "greater than", "-1e9"), x=string) is is_number
        assert bool(trigger(condition("x", "number", "equal to", string)).trouble) is not is_number

    @pytest.mark.parametrize("value", [float("nan"), float("inf"), Decimal("Infinity")])
    def test_infinite_numbers(self, value: object) -> None:
        """A value that JSON can't represent as a number is not one."""
        assert not matches(condition("x", "number", "not between", "1", "2"), x=value)


class TestPatterns:
    @pytest.mark.parametrize(
        ("pattern", "string", "expected"),
        [
            ("https?://(www\\.)?shop\\.example/(en|de)/.*", f"https://shop.example/de/{'a' * 10_000}", True),
            ("^(\\d{1,3}\\.){3}\\d{1,3}$", "127.0.0.1", True),
            ("^(\\d{1,3}\\.){3}\\d{1,3}$", "127.0.0", False),
            ("(?<city>Brno|Praha)", "Praha 7", True),
        ],
    )
    def test_usual_patterns(self, pattern: str, string: str, *, expected: bool) -> None:
        """A pattern is found anywhere in a string."""
        assert matches(condition("x", "string", "regex", pattern), x=string) is expected

    @pytest.mark.parametrize("pattern", ["a" * (MAX_PATTERN + 1), ".*(?i)a", "\\", "[a", "(?R)"])
    def test_rejected_patterns(self, pattern: str) -> None:
        """A pattern that can't be read, or is too large, matches nothing, and the trigger says why."""
        read = trigger(condition("x", "string", "regex", pattern))
        assert "regular expression" in (read.trouble or "")
        assert not read.matches(TriggerEvent("cart_update", {"x": "a"}))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)
VALUES = JSON | st.sampled_from(["Teal", "7", "7.0", "true", "1e3", 7, 2.0, True]) | st.decimals() | st.datetimes()
WORDS = st.sampled_from(["", "Teal", "ea", "7", "7.0", "2", "1000", "true", "seven", "-1"]) | st.text(max_size=3)
OPERATORS = [
    *("is set", "is not set", "has value", "has no value", "equals", "does not equal", "in", "not in", "contains"),
    *("does not contain", "starts with", "ends with", "is", "equal to", "in between", "not between", "less than"),
    *("greater than",),
]
CONDITIONS = st.builds(
    lambda attribute, kind, operator, operands: condition(attribute, kind, operator, *operands),
    st.sampled_from(["x", "y", "timestamp"]),
    st.sampled_from(["string", "number"]),
    st.sampled_from(OPERATORS),
    st.lists(WORDS, max_size=2),
)


def digits(string: str) -> bool:
    return string != "" and set(string) <= set("0123456789")


def is_number(string: str) -> bool:
    """Return whether a string is a number, by an independent implementation."""
    mantissa, letter, exponent = string.lower().partition("e")
    whole, dot, fraction = mantissa.partition(".")
    signless = [part[1:] if part[:1] in ("+", "-") else part for part in (whole, exponent)]
    return digits(signless[0]) and (not dot or digits(fraction)) and (not letter or digits(signless[1]))


def expected_string(value: Any) -> str | None:
    """Return the comparison string of a JSON value, by an independent implementation."""
    if value is None or isinstance(value, str):
        return value
    return json.dumps(without_null(value), ensure_ascii=False, separators=(",", ":"))


def without_null(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: without_null(each) for name, each in value.items() if each is not None}
    return [without_null(each) for each in value if each is not None] if isinstance(value, list) else value


def expected_match(constraint: Mapping[str, Any], value: Any, *, is_set: bool) -> bool:
    """Return whether a condition is true, by an independent implementation."""
    operator, operands = constraint["operator"], [each["value"] for each in constraint["operands"]]
    presence = {
        "is set": is_set,
        "is not set": not is_set,
        "has value": is_set and value is not None,
        "has no value": is_set and value is None,
    }
    if operator in presence:
        return not operands and presence[operator]
    string = expected_string(value)
    if string is None or (operator not in ("in", "not in") and len(operands) != 1 + operator.endswith("between")):
        return False
    if operator in ("equal to", "in between", "not between", "less than", "greater than"):
        return all(map(is_number, [string, *operands])) and expected_number_match(
            operator, float(string), *map(float, operands)
        )
    return expected_string_match(operator, string, operands)


def expected_number_match(operator: str, number: float, *bounds: float) -> bool:
    low, high = bounds[0], bounds[-1]
    below, above = number < low, number > high
    answers = {"less than": below, "greater than": above, "not between": below or above}
    return answers.get(operator, not below and not above)


def expected_string_match(operator: str, string: str, operands: list[str]) -> bool:
    found = {
        "contain": any(string[place:].startswith(each) for each in operands for place in range(len(string) + 1)),
        "start": any(string[: len(each)] == each for each in operands),
        "end": any(string[::-1][: len(each)] == each[::-1] for each in operands),
    }
    *negation, word = operator.removesuffix(" with").removeprefix("does ").split()
    return found.get(word.rstrip("s"), string in operands) is not bool(negation)


class TestOracle:
    @given(CONDITIONS, st.dictionaries(st.sampled_from(["x", "y"]), JSON | WORDS), st.none() | st.floats(0, 1e6))
    def test_conditions(self, source: dict[str, Any], properties: dict[str, Any], timestamp: float | None) -> None:
        """Every operator agrees with an independent implementation."""
        attribute = source["attribute"]
        values = properties if "property" in attribute else {} if timestamp is None else {None: timestamp}
        name = attribute.get("property")
        expected = expected_match(source["constraint"], values.get(name), is_set=name in values)
        assert trigger(source).matches(TriggerEvent("cart_update", properties, timestamp)) is expected

    @given(st.lists(CONDITIONS, max_size=4), st.dictionaries(st.sampled_from(["x", "y"]), VALUES))
    def test_all_conditions_count(self, sources: list[dict[str, Any]], properties: dict[str, Any]) -> None:
        """A trigger matches if each of its conditions matches alone."""
        event = TriggerEvent("cart_update", properties)
        assert trigger(*sources).matches(event) is all(trigger(each).matches(event) for each in sources)


SHAPES = st.fixed_dictionaries(
    {},
    optional={
        "event_type": st.just("cart_update") | JSON,
        "filter": st.lists(
            CONDITIONS
            | JSON
            | st.fixed_dictionaries(
                {"attribute": st.just(TEAL["attribute"]) | JSON},
                optional={
                    "constraint": JSON
                    | st.fixed_dictionaries(
                        {"type": st.sampled_from(["string", "boolean"]) | JSON, "operator": st.sampled_from(OPERATORS)},
                        optional={"operands": JSON, "value": JSON},
                    )
                },
            ),
            max_size=3,
        )
        | JSON,
    },
)


class TestAnyInput:
    @given(JSON | SHAPES, st.dictionaries(st.sampled_from(["x", "color"]), VALUES))
    def test_any_json(self, value: Any, properties: dict[str, Any]) -> None:
        """Any JSON is a trigger, no trigger, or raises this error."""
        try:
            read = read_trigger(value)
        except FieldError:
            return
        if read is not None:
            assert read.matches(TriggerEvent("cart_update", properties)) in (True, False)
            assert read_trigger(value) == read

    @given(st.text(max_size=20) | st.text("()[]{}?*+|^$\\.,:=!<>#Pix01ab-", max_size=20))
    def test_any_pattern(self, pattern: str) -> None:
        """Any regular expression can be searched for."""
        assert matches(condition("x", "string", "regex", pattern), x="Teal") in (True, False)
