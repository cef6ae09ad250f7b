"""
The newest requests with their responses, for inspection; without credentials. No I/O.
"""

import re
import zlib
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from typing import Any
from urllib.parse import parse_qsl, urlencode

from attrs import asdict, define

from exponea_async.sandbox.bounded_log import BoundedLog
from exponea_async.sandbox.models import RequestLog

MAX_REQUESTS = 10_000
#: The bytes of a body that are kept.
MAX_BODY_BYTES = 1024 * 1024
MAX_HEADER_LENGTH = 1000
# What a request takes beside its bodies, in bytes.
REQUEST_BYTES = 2_000
SECRET = re.compile("auth|cookie|token|secret|key|password|jwt|session|credential|signature", re.IGNORECASE)
MASK = "***"
#: The headers whose values are addresses, which may have credentials in their queries.
URL_HEADERS = frozenset({"referer", "location", "content-location"})
SCHEMES = ("Token", "Basic", "Bearer")
# The value of zlib's wbits for "with a gzip header".
GZIP_WBITS = 31

Headers = tuple[tuple[str, str], ...]


@define(eq=False)
class Exchange:
    """
    A request and its response.

    Attributes:
        id: The number of the request, from 1 in order of arrival.
        project: The token of the project; empty for a request without one.
        fault: The kind of the fault that was injected, or None.
        raw_path: The path as it was sent, with its escapes.
        query: The query, without credentials.
        log: What the log of requests says; None while the request is running.
        headers: The headers, without credentials.
        body: The beginning of the body as transferred.
        is_gzip: Whether the body is compressed.
        response_headers: The headers of the response; empty for a dropped connection.
        response: The beginning of the body of the response.
        is_cut: Whether the body is longer than what is kept.
        is_response_cut: The same for the response.
    """

    id: int
    project: str = ""
    fault: str | None = None
    raw_path: str = ""
    query: str = ""
    log: RequestLog | None = None
    headers: Headers = ()
    body: bytes = b""
    is_gzip: bool = False
    response_headers: Headers = ()
    response: bytes = b""
    is_cut: bool = False
    is_response_cut: bool = False

    @property
    def size(self) -> int:
        """The memory that the request takes, about, in bytes."""
        return REQUEST_BYTES + len(self.body) + len(self.response)

    def set_body(self, body: bytes, *, is_gzip: bool) -> None:
        """Keep the beginning of the body."""
        self.body, self.is_cut, self.is_gzip = body[:MAX_BODY_BYTES], len(body) > MAX_BODY_BYTES, is_gzip

    def set_response(self, headers: Mapping[str, str], body: object) -> None:
        """Keep the headers and the beginning of the body of the response."""
        self.response_headers = masked_headers(headers.items())
        if isinstance(body, bytes):
            self.response, self.is_response_cut = body[:MAX_BODY_BYTES], len(body) > MAX_BODY_BYTES

    def as_dict(self) -> dict[str, Any]:
        """Return the values for a list of requests."""
        log: dict[str, Any] = {} if self.log is None else asdict(self.log, recurse=False)
        extra = {"bytes": log.get("size", 0), "project": self.project, "fault": self.fault}
        return {"id": self.id, **log, "query": masked_query(log.get("query", "")), **extra}

    def details(self) -> dict[str, Any]:
        """Return all values, with the bodies as text."""
        body, is_cut = self._text()
        return {
            **self.as_dict(),
            "raw_path": self.raw_path,
            "query": self.query,
            "headers": self.headers,
            "body": body,
            "body_truncated": self.is_cut or is_cut,
            "response_headers": self.response_headers,
            "response": self.response.decode(errors="replace"),
            "response_truncated": self.is_response_cut,
        }

    def _text(self) -> tuple[str, bool]:
        if not self.is_gzip:
            return self.body.decode(errors="replace"), False
        stream = zlib.decompressobj(GZIP_WBITS)
        try:
            # The size is limited here too: a small body may decompress to gigabytes.
            body = stream.decompress(self.body, MAX_BODY_BYTES)
        except zlib.error:
            return self.body.decode(errors="replace"), False
        return body.decode(errors="replace"), not stream.eof


class Exchanges:
    """
    The newest requests, in the order in which they ended.

    Args:
        max_bytes: The memory that they may take.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._latest_id = 0
        self.reset()

    def reset(self) -> None:
        """Delete all requests; their numbers go on, since requests may be running."""
        self.log: BoundedLog[Exchange] = BoundedLog(MAX_REQUESTS, self._max_bytes, self._forget)
        self._positions: dict[int, int] = {}

    def start(self) -> Exchange:
        """Return the record of a request that has just arrived."""
        self._latest_id += 1
        return Exchange(self._latest_id)

    def finish(self, exchange: Exchange, log: RequestLog) -> None:
        """Add a request that has ended."""
        exchange.log = log
        self._positions[exchange.id] = self.log.next
        self.log.append(exchange)

    def get(self, number: int) -> Exchange | None:
        """Return a request by its number; None where it is running or not kept."""
        position = self._positions.get(number)
        return None if position is None else self.log.get(position)

    def newest_first(self, before: int | None) -> Iterator[Exchange]:
        """Iterate over the requests that ended before another one, newest first; over none if that is not kept."""
        position = None if before is None else self._positions.get(before, 0)
        return (exchange for _, exchange in self.log.newest_first(before=position))

    def _forget(self, exchange: Exchange) -> None:
        self._positions.pop(exchange.id, None)


def masked_headers(headers: Iterable[tuple[str, str]]) -> Headers:
    """Return headers without the values of those that may contain credentials."""
    return tuple([(name, _masked(value)) if _is_secret(name) else _shown(name, value) for name, value in headers])


def masked_query(query: str) -> str:
    """Return a query without the values of parameters that may be credentials; the cookie is an id."""
    if not SECRET.search(query):
        return query
    pairs = parse_qsl(query, keep_blank_values=True)
    return urlencode([(name, MASK if SECRET.search(name) and name != "cookie" else value) for name, value in pairs])


def scheme_of(authorization: str) -> str:
    """Return the scheme of an ``Authorization`` header, or an empty string."""
    # Only known schemes: a header without a scheme may consist of the key alone.
    scheme = authorization.strip().partition(" ")[0].capitalize()
    return scheme if scheme in SCHEMES else ""


@lru_cache(1024)
def _is_secret(name: str) -> bool:
    return SECRET.search(name) is not None


# The headers of requests are mostly the same, so they share their strings, too.
@lru_cache(1024)
def _shown(name: str, value: str) -> tuple[str, str]:
    if name.lower() in URL_HEADERS:
        address, mark, query = value.partition("?")
        value = address + mark + masked_query(query)
    # aiohttp decodes a header that is not UTF-8 to a string that can't be encoded as JSON.
    return name, value[:MAX_HEADER_LENGTH].encode(errors="replace").decode()


def _masked(value: str) -> str:
    scheme = scheme_of(value)
    return f"{scheme} {MASK}" if scheme else MASK
