"""
What the integrations read in the headers of a request. Pure.

Headers are text of strangers: what is taken from them is checked or cleaned, and never longer than a limit.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Any
from urllib.parse import parse_qsl, quote, urlencode, urlsplit

from attrs import field, frozen

from exponea_async._internal import validation as checks

#: The scope of a connection, as ASGI defines it. Frameworks have types of their own for it, all of which are mappings.
Scope = Mapping[str, Any]

#: The query parameters of a campaign.
CAMPAIGN = ("utm_source", "utm_medium", "utm_campaign", "utm_content", "utm_term")
#: Maximum length of a property that is taken from a request, in characters.
MAX_LENGTH = 1_000
#: How much of a query string is read, in bytes.
MAX_QUERY = 8_192

#: The value of the web SDK's cookie. ``\w`` would also match letters of other alphabets.
_VISITOR = re.compile(r"[A-Za-z0-9_-]{1,64}", re.ASCII)
#: The platform refuses these values as ids.
_NO_VISITOR = frozenset({"null", "undefined"})
#: What may be around a cookie. Without an argument, strip() would also remove control characters.
_BLANKS = " \t"
_BRACKETED = re.compile(r"\[([^\]]*)\](?::\d+)?")
_WITH_PORT = re.compile(r"([0-9.]+):\d+")


def header(scope: Scope, name: bytes) -> bytes:
    """Return the values of a header, joined as HTTP has it; empty where the request does not have it."""
    separator = b"; " if name == b"cookie" else b", "
    return separator.join(value for key, value in scope.get("headers") or () if key.lower() == name)


def visitor_cookie(scope: Scope, project: str) -> str | None:
    """
    Return the cookie by which the web SDK knows the visitor: the customer's id of the kind ``cookie``.

    Args:
        scope: The scope of the connection.
        project: The token of the project.

    Returns:
        The value; None where the browser sends none, or one that the web SDK would not have made.
    """
    cookies = _cookies(header(scope, b"cookie").decode("latin-1"))
    found = (cookies.get(f"xnpe_{project}"), cookies.get("__exponea_etc__"))
    return next((value for value in found if value is not None and _is_visitor(value)), None)


def _cookies(text: str) -> Mapping[str, str]:
    pairs = [pair.partition("=") for pair in text.split(";")]
    # Of several cookies of one name browsers send the most specific one first.
    return {name.strip(_BLANKS): _unquoted(value.strip(_BLANKS)) for name, _, value in reversed(pairs)}


def _unquoted(value: str) -> str:
    return value[1:-1] if len(value) > 1 and value[0] == value[-1] == '"' else value


def _is_visitor(value: str) -> bool:
    return bool(_VISITOR.fullmatch(value)) and value not in _NO_VISITOR and any(map(str.isalnum, value))


def _names(value: Sequence[str] | None) -> Sequence[str] | None:
    return None if value is None else checks.to_tuple(value)


_check_names = checks.check(
    (
        lambda value: not isinstance(value, tuple) or not all(isinstance(each, str) for each in value),
        "expected a list of names, got {value}",
    ),
    hint="Use the names of query parameters, such as ['q', 'page'], or an empty list for the path alone.",
)


@frozen(kw_only=True)
class RequestProperties:
    """
    What the events of a request carry as properties besides their own. Nothing, unless it is switched on here.

    A property that the event itself has takes precedence, and None as its value leaves it out. Control characters and
    what is not valid UTF-8 are removed, and values are cut to 1,000 characters.

    Args:
        ip: The address of the visitor as ``ip``: the number of trusted proxies in front of the application, each of
            which appends the address of its client to the header ``X-Forwarded-For``. With 0 it is the address that the
            server sees, with 1 the last one of the header, with 2 the one before. If the header has fewer, none is
            taken, as with None.
        user_agent: Whether to take the header ``User-Agent``, as ``user_agent``.
        location: The names of the query parameters that ``location`` has, besides the path; none for the path alone;
            None to leave it out. Queries may have secrets, such as the token of a link that resets a password.
        referrer: Whether to take the header ``Referer`` without its query, as ``referrer``.
        utm: Whether to take the query parameters ``utm_source``, ``utm_medium``, ``utm_campaign``, ``utm_content`` and
            ``utm_term``.

    Raises:
        ConfigurationError: A setting is invalid.
    """

    ip: int | None = field(default=None, validator=checks.optional(checks.integer(0)))
    user_agent: bool = field(default=False, validator=checks.boolean)
    location: Sequence[str] | None = field(default=None, converter=_names, validator=checks.optional(_check_names))
    referrer: bool = field(default=False, validator=checks.boolean)
    utm: bool = field(default=False, validator=checks.boolean)

    def read(self, scope: Scope) -> dict[str, str]:
        """Return the properties of a request, from its ASGI scope."""
        found = dict(self._read(scope))
        return {name: value for name, value in found.items() if value}

    def _read(self, scope: Scope) -> Iterator[tuple[str, str]]:
        if self.ip is not None:
            yield "ip", client_address(scope, self.ip)
        if self.user_agent:
            yield "user_agent", clean(header(scope, b"user-agent"))
        if self.location is not None:
            yield "location", location(scope, self.location)
        if self.referrer:
            yield "referrer", _without_query(clean(header(scope, b"referer")))
        if self.utm:
            yield from _query(scope, CAMPAIGN)


def clean(raw: bytes | str) -> str:
    """Return a text on one line, without control characters and invalid UTF-8, and not too long."""
    # Four bytes are one character at most.
    text = raw[: 4 * MAX_LENGTH].decode(errors="ignore") if isinstance(raw, bytes) else raw[: 2 * MAX_LENGTH]
    if not text.isprintable():
        # Ideographic blanks and line breaks are not printable, but separate words.
        text = "".join(" " if each.isspace() else each for each in text if each.isprintable() or each.isspace())
    return text[:MAX_LENGTH].strip()


def client_address(scope: Scope, proxies: int) -> str:
    """
    Return the address of the client; empty where it is not known.

    Args:
        scope: The scope of the connection.
        proxies: The number of proxies that are trusted.
    """
    if not proxies:
        client = scope.get("client")
        return _address(str(client[0])) if client else ""
    # Counted from the right: what is on the left may have been sent by the visitor.
    forwarded = header(scope, b"x-forwarded-for").decode("latin-1").split(",")
    return _address(forwarded[-proxies].strip()) if len(forwarded) >= proxies else ""


def _address(text: str) -> str:
    if bare := _BRACKETED.fullmatch(text) or _WITH_PORT.fullmatch(text):
        text = bare[1]
    with suppress(ValueError):
        return str(_without_mapping(ip_address(text.partition("%")[0])))
    return ""


def _without_mapping(address: IPv4Address | IPv6Address) -> IPv4Address | IPv6Address:
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return mapped or address


def location(scope: Scope, names: Iterable[str]) -> str:
    """Return the path of a request, and of its query only what has one of these names."""
    path = quote(clean(str(scope.get("path", ""))), safe="/:@!$&'()*+,;=~")
    query = urlencode(list(_query(scope, names)))
    return clean(f"{path}?{query}" if query else path)


def _query(scope: Scope, names: Iterable[str]) -> Iterator[tuple[str, str]]:
    raw = bytes(scope.get("query_string") or b"")[:MAX_QUERY].decode(errors="ignore")
    values = dict(reversed(parse_qsl(raw, encoding="utf-8", errors="ignore"))) if raw else {}
    yield from ((name, clean(values[name])) for name in names if name in values)


def _without_query(url: str) -> str:
    with suppress(ValueError):
        parts = urlsplit(url)
        if parts.scheme in ("http", "https") and parts.hostname:
            host = parts.netloc.rpartition("@")[2]
            return parts._replace(netloc=host, query="", fragment="").geturl()
    return ""
