"""
Fields of JSON objects are read by type; what is wrong is told by the name of the field.
"""

from collections.abc import Callable, Mapping
from typing import Any

import pytest
from attrs import frozen

from exponea_async._internal.fields import (
    MAX_INTEGER,
    as_boolean,
    as_integer,
    as_list,
    as_mapping,
    as_mappings,
    as_number,
    as_string,
    as_timestamp,
    check_fields,
    is_encodable,
    nullable,
    optional,
    required,
)
from exponea_async.errors import InvalidEventError

#: A value of each type that JSON has.
VALUES: Mapping[str, Any] = {
    "null": None,
    "boolean": True,
    "integer": 7,
    "fraction": 0.5,
    "string": "text",
    "list": [1],
    "object": {"a": 1},
}

Converter = Callable[[Any], Any]

ACCEPTED = [
    (as_string, {"string"}),
    (as_integer, {"integer"}),
    (as_number, {"integer", "fraction"}),
    (as_timestamp, {"integer", "fraction"}),
    (as_boolean, {"boolean"}),
    (as_mapping, {"object"}),
    (as_list, {"list"}),
    (as_mappings, {"list"}),
]


@pytest.mark.parametrize(("convert", "accepted"), ACCEPTED)
def test_converters_accept_their_own_type_only(convert: Converter, accepted: set[str]) -> None:
    """A boolean is not a number, and nothing is turned into a string by itself."""
    found = {name for name in VALUES if optional(VALUES, name, convert) is not None}
    assert found == accepted


@pytest.mark.parametrize(("convert", "accepted"), ACCEPTED)
@pytest.mark.parametrize("name", VALUES)
def test_wrong_types_are_reported_by_field(convert: Converter, accepted: set[str], name: str) -> None:
    """The error of a required field names the field, what is expected and what was given."""
    if name in accepted:
        assert required(VALUES, name, convert) is not None
    else:
        with pytest.raises(ValueError, match=rf"^{name}: expected an? \w+, got \w+$"):
            required(VALUES, name, convert)


def test_missing_fields() -> None:
    """A missing field is an error if it is required; otherwise it is None."""
    with pytest.raises(ValueError, match=r"^id: missing$"):
        required({}, "id", as_string)
    assert optional({}, "id", as_string) is None
    assert nullable({}, "id", as_string) is None


def test_null_fields() -> None:
    """A null is an error if the field is required; otherwise it counts as missing."""
    with pytest.raises(ValueError, match=r"^id: expected a string, got None$"):
        required({"id": None}, "id", as_string)
    assert optional({"id": None}, "id", as_string) is None
    assert nullable({"id": None}, "id", as_string) is None


def test_wrong_optional_and_nullable_fields() -> None:
    """A wrong value of an optional field counts as missing; of a nullable one it is an error."""
    assert optional({"id": 5}, "id", as_string) is None
    with pytest.raises(ValueError, match=r"^id: expected a string, got int$"):
        nullable({"id": 5}, "id", as_string)


def test_the_length_of_strings_is_limited_on_request() -> None:
    """Both bounds are inclusive, and an error tells the length and not the string."""
    assert as_string("abc", max_length=3) == "abc"
    assert as_string("") == ""
    with pytest.raises(ValueError, match=r"^name: expected at most 1,000 characters, got 1,001$"):
        required({"name": "x" * 1001}, "name", as_string, max_length=1000)
    with pytest.raises(ValueError, match=r"^name: expected a non-empty string, got ''$"):
        required({"name": ""}, "name", as_string, allow_empty=False)


@pytest.mark.parametrize(
    ("value", "expected"),
    [(7, "7"), (-0.5, "-0.5"), (True, "true"), (False, "false"), ("x", "x"), (float("nan"), None)],
)
def test_scalars_become_strings_on_request(value: object, expected: str | None) -> None:
    """They are written as in JSON; numbers that JSON can't write are not accepted."""
    assert optional({"id": value}, "id", as_string, coerce=(int, float, bool)) == expected


def test_an_integer_of_too_many_digits_is_not_a_string() -> None:
    """Python refuses to print an integer of more than 4300 digits."""
    assert optional({"id": 10**5000}, "id", as_string, coerce=(int,)) is None


def test_only_the_named_types_become_strings() -> None:
    """Where integers are accepted as strings, booleans and fractions still are not."""
    found = {name for name in VALUES if optional(VALUES, name, as_string, coerce=(int,)) is not None}
    assert found == {"string", "integer"}


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (MAX_INTEGER, MAX_INTEGER),
        (MAX_INTEGER + 1, None),
        (-MAX_INTEGER - 1, None),
        (7.0, 7),
        (7.5, None),
        (float("inf"), None),
        (float("nan"), None),
        ("12", 12),
        ("x", None),
        ("9" * 5000, None),
        (True, None),
    ],
)
def test_integers(value: object, expected: int | None) -> None:
    """On request whole floats and strings of digits count as integers; all have to fit into 64 bits."""
    assert optional({"n": value}, "n", as_integer, coerce=(float, str)) == expected


def test_the_limit_of_integers_can_be_lower() -> None:
    """Larger absolute values are not accepted."""
    assert as_integer(-5, limit=5) == -5
    with pytest.raises(ValueError, match=r"^n: expected an integer between -5 and 5$"):
        required({"n": 6}, "n", as_integer, limit=5)


@pytest.mark.parametrize(
    ("value", "expected"),
    [(1, 1.0), ("1.5", 1.5), ("x", None), ("nan", None), (float("inf"), None), (10**400, None), (False, None)],
)
def test_numbers(value: object, expected: float | None) -> None:
    """Numbers are finite floats; on request strings are read, too."""
    found = optional({"n": value}, "n", as_number, coerce=(str,))
    assert found == expected
    assert found is None or type(found) is float


def test_timestamps_are_seconds() -> None:
    """What looks like milliseconds is not accepted."""
    assert as_timestamp(1_700_000_000) == 1_700_000_000.0
    assert as_timestamp("1700000000.5", coerce=(str,)) == 1_700_000_000.5
    with pytest.raises(ValueError, match=r"^at: expected a number between -1e\+11 and 1e\+11$"):
        required({"at": 1_700_000_000_000}, "at", as_timestamp)


def test_lists_of_objects_leave_out_other_elements() -> None:
    """One wrong element does no harm to the others."""
    assert as_mappings([{"a": 1}, 5, None, {}]) == [{"a": 1}, {}]


def test_encodable_strings() -> None:
    """A string with half a surrogate pair can't be sent; other values are not strings."""
    assert is_encodable("žluť 🐎")
    assert not is_encodable("\ud800")
    assert not is_encodable(5)


@frozen
class Sample:
    """A value that callers pass back."""

    id: Any = "1"
    url: Any = None


def test_values_passed_back_unchanged_are_accepted() -> None:
    """Fields of the right types pass."""
    check_fields("message", Sample(), {"id": str, "url": str | None})


def test_fields_of_values_that_were_changed_are_reported() -> None:
    """The error says which field, what is expected, what was given, and what to do."""
    with pytest.raises(InvalidEventError) as raised:
        check_fields("message", Sample(id=5), {"id": str})
    assert str(raised.value) == "message.id: expected str, got int. Pass the object unmodified."
    with pytest.raises(InvalidEventError) as raised:
        check_fields("message", Sample(url=5), {"url": str | None})
    assert str(raised.value) == "message.url: expected str or NoneType, got int. Pass the object unmodified."
