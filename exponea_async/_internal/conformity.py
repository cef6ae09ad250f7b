"""
Whether a value that was read from a file is what its type says.
"""

from collections.abc import Mapping
from math import isfinite
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin

import attrs


def misfit(instance: Any) -> str | None:
    """Return the name of the first field of an attrs instance whose value does not have the field's type, or None."""
    return next(
        (each.name for each in attrs.fields(type(instance)) if not _conforms(getattr(instance, each.name), each.type)),
        None,
    )


def _conforms(value: Any, hint: Any) -> bool:
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        return any(_conforms(value, each) for each in arguments)
    if origin is None:
        return _is_a(value, hint)
    if origin is Literal:
        return value in arguments
    if origin is tuple:
        return isinstance(value, tuple) and all(_conforms(each, arguments[0]) for each in value)
    keys, values = arguments
    return isinstance(value, Mapping) and all(
        _conforms(key, keys) and _conforms(each, values) for key, each in value.items()
    )


def _is_a(value: Any, kind: Any) -> bool:
    if kind is float:
        return type(value) in (int, float) and isfinite(value)
    if attrs.has(kind):
        return isinstance(value, kind) and misfit(value) is None
    # A bool is an int to isinstance.
    return value is None if kind in (None, type(None)) else type(value) is kind
