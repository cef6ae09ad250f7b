"""
Personalisation of definitions: the condition in ``for``, and placeholders for the properties of a customer. Pure.
"""

import re
from collections.abc import Mapping
from html import escape
from typing import Any

from exponea_async.sandbox.models import CustomerView

CONDITION = "for"
PROPERTIES = "properties"
PLACEHOLDER = re.compile(r"\{\{\s*(\w[\w .-]*?)\s*\}\}")


def personalise(element: Any, customer: CustomerView) -> list[Any]:
    """
    Return what a customer gets for an element.

    Args:
        element: An object with or without a condition, a callable, or any value that was defined without a check.
        customer: The customer.

    Returns:
        Nothing if the condition is not met, else the one element; a callable may return many.
    """
    if callable(element):
        # The result is not changed any further: the callable had the customer.
        result = element(customer)
        return [] if result is None else result if isinstance(result, list) else [result]
    if not isinstance(element, Mapping):
        return [element]
    if not is_met(element.get(CONDITION), customer):
        return []
    return [fill_placeholders({name: value for name, value in element.items() if name != CONDITION}, customer)]


def is_met(condition: Any, customer: CustomerView) -> bool:
    """
    Return whether a customer meets a condition.

    Args:
        condition: Kinds of id with a value or a list of values each, and ``properties`` with their values, all of
            which have to match; a callable that returns whether the condition is met; or None for every customer.
        customer: The customer.
    """
    if condition is None:
        return True
    if callable(condition):
        return bool(condition(customer))
    return all(_matches(name, expected, customer) for name, expected in condition.items())


def fill_placeholders(value: Any, customer: CustomerView) -> Any:
    """
    Return a copy of a value with ``{{ property }}`` replaced in all strings, and with all callables called.

    Properties are escaped for HTML; an unknown property becomes an empty string.
    """
    if isinstance(value, str):
        return PLACEHOLDER.sub(lambda match: _as_html(customer.properties.get(match[1])), value)
    if isinstance(value, Mapping):
        return {name: fill_placeholders(inner, customer) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [fill_placeholders(inner, customer) for inner in value]
    return value(customer) if callable(value) else value


def _matches(name: str, expected: Any, customer: CustomerView) -> bool:
    if name == PROPERTIES:
        properties = customer.properties
        return all(key in properties and properties[key] == value for key, value in expected.items())
    values = [expected] if isinstance(expected, str) else expected
    return any(value in customer.ids.get(name, ()) for value in values)


def _as_html(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    return escape(str(value))
