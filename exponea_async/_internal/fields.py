"""
What callers hand back to us: values that we handed out, or that they made by hand. Pure.
"""

from collections.abc import Mapping
from typing import Any

from exponea_async.errors import InvalidEventError

#: What the fields of such a value have to be, by name.
Fields = Mapping[str, Any]


def check_fields(path: str, value: object, fields: Fields) -> None:
    """
    Make sure of the fields that something depends on.

    Args:
        path: What the value is called, for the error.
        value: The value.
        fields: What they have to be.

    Raises:
        InvalidEventError: One of them is something else.
    """
    for name, kind in fields.items():
        if not isinstance(each := getattr(value, name), kind):
            raise InvalidEventError(f"{path}.{name}", f"a {type(each).__name__} is none", "Give it as you got it.")
