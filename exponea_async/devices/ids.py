"""
The ids of customers and the keys of devices. Pure.
"""

from collections.abc import Mapping

from exponea_async._internal.arguments import Normalizer, read_id, read_text
from exponea_async._internal.validation import short_repr
from exponea_async.errors import InvalidEventError

#: The type of the soft id, which the SDK creates itself.
COOKIE = "cookie"


def read_key(key: str, path: str) -> str:
    """
    Return the key of a device.

    Raises:
        InvalidEventError: It is not a non-blank string.
    """
    return read_text(key, path, "Use a key such as 'tg:42'.")


def read_ids(ids: Mapping[str, str], path: str, normalize: Normalizer | None = None) -> dict[str, str]:
    """
    Return a customer's ids as the platform uses them.

    Args:
        ids: The ids by type.
        path: The name of the field in errors.
        normalize: The function of the application that normalizes ids.

    Raises:
        InvalidEventError: They are not a mapping of ids that the platform accepts.
    """
    return dict(read_id(kind, value, path, normalize) for kind, value in _items(ids, path))


def read_id_changes(
    ids: Mapping[str, str | None], path: str, normalize: Normalizer | None = None
) -> dict[str, str | None]:
    """
    Return the ids that a customer is to have, as `read_ids` does, and those to take back, whose value is None.

    Raises:
        InvalidEventError: They are not a mapping of ids that the platform accepts, or None.
    """
    changes: dict[str, str | None] = {}
    for kind, value in _items(ids, path):
        # The type of an id that is taken back is as it was stored, which may have been before a rule was made.
        changes |= {kind: None} if value is None else dict([read_id(kind, value, path, normalize)])
    return changes


def changed_ids(ids: Mapping[str, str], changes: Mapping[str, str | None]) -> dict[str, str]:
    """Return ids after changes."""
    return {kind: value for kind, value in {**ids, **changes}.items() if value is not None}


def _items(ids: Mapping[str, str | None], path: str) -> list[tuple[str, str | None]]:
    if not isinstance(ids, Mapping):
        hint = "Use ids such as {'registered': 'jane@example.com'}."
        raise InvalidEventError(path, f"expected a mapping, got {short_repr(ids)}", hint)
    return list(ids.items())
