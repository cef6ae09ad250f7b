"""
What a definition becomes for one customer: whom it is for, and the customer's properties in its texts. Pure.
"""

import re
from collections.abc import Mapping
from html import escape
from typing import Any

from exponea_async.sandbox.models import CustomerView

CONDITION = "for"
PROPERTIES = "properties"
PLACEHOLDER = re.compile(r"\{\{\s*(\w[\w .-]*?)\s*\}\}")


def delivered(element: Any, customer: CustomerView) -> list[Any]:
    """
    Makes what a customer gets of a definition.

    Args:
        element: An object with or without a condition, a callable, or anything that was handed over unchecked.
        customer: Who asks.

    Returns:
        Nothing where it is for others, else the one element; a callable may give many.
    """
    if callable(element):
        # What a callable gives is final: it has seen the customer, and its texts are its own.
        made = element(customer)
        return [] if made is None else made if isinstance(made, list) else [made]
    if not isinstance(element, Mapping):
        return [element]
    if not applies(element.get(CONDITION), customer):
        return []
    return [filled({name: value for name, value in element.items() if name != CONDITION}, customer)]


def applies(condition: Any, customer: CustomerView) -> bool:
    """
    Whether a customer is one of those whom a condition names.

    Args:
        condition: Kinds of id, each with its value or a list of values, and ``properties`` with theirs; a callable
            that is asked; or None for everybody. All of it has to be met.
        customer: The customer as the books know it.
    """
    if condition is None:
        return True
    if callable(condition):
        return bool(condition(customer))
    return all(_met(name, wanted, customer) for name, wanted in condition.items())


def filled(value: Any, customer: CustomerView) -> Any:
    """Copies a value with ``{{ property }}`` replaced in all its texts, escaped for HTML; empty where unknown."""
    if isinstance(value, str):
        return PLACEHOLDER.sub(lambda found: _shown(customer.properties.get(found[1])), value)
    if isinstance(value, Mapping):
        return {name: filled(inner, customer) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [filled(inner, customer) for inner in value]
    return value(customer) if callable(value) else value


def _met(name: str, wanted: Any, customer: CustomerView) -> bool:
    if name == PROPERTIES:
        properties = customer.properties
        return all(key in properties and properties[key] == value for key, value in wanted.items())
    values = [wanted] if isinstance(wanted, str) else wanted
    return any(value in customer.ids.get(name, ()) for value in values)


def _shown(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    return escape(str(value))
