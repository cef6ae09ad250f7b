"""
What a definition becomes for a customer, without any server.
"""

from typing import Any

import pytest

from exponea_async.sandbox import CustomerView
from exponea_async.sandbox.messages.personalisation import fill_placeholders, is_met, personalise

JANE = CustomerView(
    "shop",
    1,
    {"registered": ("jane",), "cookie": ("a", "b")},
    {"name": "<J> & {{ vip }}", "vip": True, "age": 33, "none": None, "first name": "Jane"},
    0,
)


@pytest.mark.parametrize(
    ("condition", "met"),
    [
        (None, True),
        ({"registered": "jane"}, True),
        ({"registered": "bob"}, False),
        ({"registered": ["bob", "jane"]}, True),
        ({"cookie": "b"}, True),
        ({"loyalty": "7"}, False),
        ({"properties": {"vip": True}}, True),
        ({"properties": {"vip": True, "age": 34}}, False),
        ({"properties": {"none": None}}, True),
        ({"properties": {"unknown": None}}, False),
        ({"registered": "jane", "properties": {"vip": False}}, False),
        (lambda customer: customer.key == 1, True),
    ],
)
def test_conditions(condition: Any, met: bool) -> None:  # noqa: FBT001
    """A condition is met when all of it is."""
    assert is_met(condition, JANE) is met


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Hi {{ age }}, {{age}}", "Hi 33, 33"),
        ("{{ name }}", "&lt;J&gt; &amp; {{ vip }}"),
        ("{{ vip }}{{ none }}{{ unknown }}", "true"),
        ("{{ first name }}", "Jane"),
        ("{ age } {{ }} {{{ age }}}", "{ age } {{ }} {33}"),
    ],
)
def test_placeholders(text: str, expected: str) -> None:
    """Properties are put in once, escaped; what isn't known is empty."""
    assert fill_placeholders(text, JANE) == expected


def test_placeholders_everywhere() -> None:
    """Texts are filled however deep they lie; all else stays what it is."""
    value = {"a": ["{{ age }}", {"b": ("{{ age }}", 5, None, True)}], "c": lambda customer: customer.key}

    assert fill_placeholders(value, JANE) == {"a": ["33", {"b": ["33", 5, None, True]}], "c": 1}


def test_the_condition_isn_t_told() -> None:
    """A customer doesn't learn for whom a message is."""
    assert personalise({"id": "a", "for": {"registered": "jane"}}, JANE) == [{"id": "a"}]
    assert personalise({"id": "a", "for": {"registered": "bob"}}, JANE) == []
