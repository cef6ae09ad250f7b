"""
The parameters in the query of a control route, with an error for each that is invalid.
"""

from collections.abc import Iterable

from aiohttp import web

from exponea_async.sandbox.errors import RequestError

DEFAULT_LIMIT = 100
MAX_LIMIT = 1000
# Longer numbers are not numbers of anything, and int() is quadratic in their length.
MAX_DIGITS = 15


def check_names(request: web.Request, *names: str) -> None:
    """
    Check that a query has known parameters only, since one that is misspelled would select too much.

    Raises:
        RequestError: 400; another parameter is given.
    """
    unknown = [name for name in request.query if name not in names]
    if unknown:
        raise RequestError(400, f"{unknown[0][:100]}: is unknown; expected one of {', '.join(names)}.")


def number(request: web.Request, name: str, default: int | None, minimum: int, maximum: int | None = None) -> int:
    """
    Return a whole number; the default where it is missing, and the maximum where it is above that.

    Raises:
        RequestError: 400; it is not a whole number, below the minimum, or missing without a default.
    """
    given = request.query.get(name)
    if given is None and default is not None:
        return default
    value = parse_number(given or "")
    if value is None or value < minimum:
        raise RequestError(400, f"{name}: should be a whole number of at least {minimum}, got {given!r:.100}.")
    return value if maximum is None else min(value, maximum)


def optional_number(request: web.Request, name: str) -> int | None:
    """
    Return a whole number of at least 0; None where it is missing.

    Raises:
        RequestError: 400; it is not one.
    """
    return number(request, name, None, 0) if name in request.query else None


def limit(request: web.Request) -> int:
    """
    Return the number of elements in a page.

    Raises:
        RequestError: 400; it is not a whole number of at least 0.
    """
    return number(request, "limit", DEFAULT_LIMIT, 0, MAX_LIMIT)


def choices(request: web.Request, name: str, allowed: Iterable[str]) -> frozenset[str]:
    """
    Return the values of a parameter that can be repeated; empty where it is missing.

    Raises:
        RequestError: 400; one of the values is not allowed.
    """
    values = frozenset(request.query.getall(name, []))
    allowed = tuple(allowed)
    for value in sorted(values):
        if value not in allowed:
            raise RequestError(400, f"{name}: should be one of {', '.join(allowed)}, got {value!r:.100}.")
    return values


def parse_number(digits: str) -> int | None:
    """Return a whole number of at least 0; None for any other string."""
    is_number = digits.isascii() and digits.isdecimal() and len(digits) <= MAX_DIGITS
    return int(digits) if is_number else None
