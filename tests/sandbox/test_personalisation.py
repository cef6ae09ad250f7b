"""
Personalisation of definitions, without a server.
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
    ("condition", "expected"),
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
def test_conditions(condition: Any, *, expected: bool) -> None:
    """A condition is met if all of its parts are met."""
    assert is_met(condition, JANE) is expected


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ("Hi {{ age }}, {{age}}", "Hi 33, 33"),
        ("{{ name }}", "&lt;J&gt; &amp; {{ vip }}"),
        ("{{ vip }}{{ none }}{{ unknown }}", "true"),
        ("{{ first name }}", "Jane"),
        ("{ age } {{ }} {{{ age }}}", "{ age } {{ }} {33}"),
    ],
)
def test_placeholders(template: str, expected: str) -> None:
    """Placeholders are replaced once by escaped properties; an unknown property is empty."""
    assert fill_placeholders(template, JANE) == expected


def test_nested_placeholders() -> None:
    """Placeholders are replaced at any depth, callables are called, and other values are unchanged."""
    value = {"a": ["{{ age }}", {"b": ("{{ age }}", 5, None, True)}], "c": lambda customer: customer.key}

    assert fill_placeholders(value, JANE) == {"a": ["33", {"b": ["33", 5, None, True]}], "c": 1}


def test_the_condition_is_removed() -> None:
    """A personalised element doesn't contain its condition; it is empty for other customers."""
    assert personalise({"id": "a", "for": {"registered": "jane"}}, JANE) == [{"id": "a"}]
    assert personalise({"id": "a", "for": {"registered": "bob"}}, JANE) == []
