"""
The ids of customers. Pure.
"""

from collections.abc import Mapping

from exponea_async.errors import InvalidEventError

#: The soft id, which is the SDK's own.
COOKIE = "cookie"


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
