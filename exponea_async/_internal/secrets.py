"""
Keys and tokens, masked.
"""

from typing import Any

MASK = "'***'"


class Secret(str):
    """
    A string whose repr is masked, for keys and what is made of them.

    Tools that report errors show the local variables of all frames, errors of aiohttp the headers of their request.
    What is cut out of a secret, or formatted with it, is a plain string again, so it must be a secret at once.
    """

    __slots__ = ()

    def __repr__(self) -> str:
        return MASK


class SecretBytes(bytes):
    """The same of bytes."""

    __slots__ = ()

    def __repr__(self) -> str:
        return f"b{MASK}"


def to_secret(value: Any) -> Any:
    """Convert a string to a `Secret`; return other values as they are."""
    return Secret(value) if isinstance(value, str) else value
