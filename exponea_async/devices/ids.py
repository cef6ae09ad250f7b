"""
The ids of customers. Pure.
"""

from collections.abc import Mapping

from exponea_async.errors import InvalidEventError

#: The soft id, which is the SDK's own.
COOKIE = "cookie"


def read_key(key: str, path: str) -> str:
    """
    Check the key of a device.

    Raises:
        InvalidEventError: It is no non-empty text.
    """
    if not isinstance(key, str) or not key:
        raise InvalidEventError(path, f"{key!r:.60} is no non-empty text", "Give a text, such as 'tg:42'.")
    if not key.isascii():
        try:
            key.encode()
        except UnicodeEncodeError:
            raise InvalidEventError(path, "it has half of a surrogate pair in it", "Give a whole text.") from None
    return key


def read_ids(ids: Mapping[str, str], path: str) -> dict[str, str]:
    """
    Check a customer's ids.

    Raises:
        InvalidEventError: They are no mapping of non-empty texts.
    """
    if not isinstance(ids, Mapping):
        raise InvalidEventError(path, f"{ids!r:.60} is no mapping", "Give ids such as {'registered': 'jane@x.com'}.")
    for kind, value in ids.items():
        if not isinstance(kind, str) or not kind:
            raise InvalidEventError(path, f"the kind of id {kind!r:.60} is no non-empty text", "Give texts.")
        if not isinstance(value, str) or not value:
            raise InvalidEventError(f"{path}.{kind}", f"a {type(value).__name__} is no non-empty text", "Give a text.")
    return dict(ids)
