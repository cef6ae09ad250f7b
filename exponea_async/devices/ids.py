"""
The ids of customers and the keys of devices. Pure.
"""

from collections.abc import Mapping

from exponea_async.errors import InvalidEventError

#: The type of the soft id, which the SDK creates itself.
COOKIE = "cookie"

_EXAMPLE = "Use ids such as {'registered': 'jane@example.com'}."


def read_key(key: str, path: str) -> str:
    """
    Return the key of a device.

    Raises:
        InvalidEventError: It is not a non-empty string.
    """
    if not isinstance(key, str) or not key:
        raise InvalidEventError(path, f"expected a non-empty string, got {key!r:.60}", "Use a key such as 'tg:42'.")
    if not key.isascii():
        try:
            key.encode()
        except UnicodeEncodeError:
            hint = "Remove the incomplete character."
            raise InvalidEventError(path, "contains one half of a surrogate pair", hint) from None
    return key


def read_ids(ids: Mapping[str, str], path: str) -> dict[str, str]:
    """
    Return a customer's ids as a dict.

    Raises:
        InvalidEventError: They are not a mapping of non-empty strings.
    """
    if not isinstance(ids, Mapping):
        raise InvalidEventError(path, f"expected a mapping, got {ids!r:.60}", _EXAMPLE)
    for kind, value in ids.items():
        if not isinstance(kind, str) or not kind:
            raise InvalidEventError(path, f"expected non-empty strings as id types, got {kind!r:.60}", _EXAMPLE)
        if not isinstance(value, str) or not value:
            given = "''" if value == "" else type(value).__name__
            hint = "Use the id as a string."
            raise InvalidEventError(f"{path}.{kind}", f"expected a non-empty string, got {given}", hint)
    return dict(ids)
