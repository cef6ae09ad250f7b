"""
JSON requests and responses in the formats of the platform.
"""

import zlib
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from aiohttp import web

from exponea_async.sandbox.encoding import encode, loads
from exponea_async.sandbox.errors import AccessError, RequestError
from exponea_async.sandbox.exchanges import GZIP_WBITS, Exchange

MAX_BODY_BYTES = 10 * 1024 * 1024

IDENTITY = "identity"
#: The key of a request's `Exchange`. aiohttp 3.13 has no RequestKey, and later versions warn of strings.
EXCHANGE: Any = web.RequestKey("exchange", Exchange) if hasattr(web, "RequestKey") else "exchange"

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class JsonResponse(web.Response):
    """
    A response with a JSON body.

    Args:
        payload: The body.
        status: The HTTP status.
        headers: Additional headers.
        commands: The number of commands that the request contained; only for the request log.
    """

    def __init__(
        self, payload: Any, status: int = 200, *, headers: Mapping[str, str] | None = None, commands: int = 0
    ) -> None:
        super().__init__(body=encode(payload), status=status, headers=headers, content_type="application/json")
        self.commands = commands


def failure(status: int, *errors: str, headers: Mapping[str, str] | None = None, commands: int = 0) -> JsonResponse:
    """Return the response to a request that failed."""
    return JsonResponse({"success": False, "errors": errors}, status, headers=headers, commands=commands)


def error_response(error: RequestError) -> JsonResponse:
    """Return the response for an error."""
    if isinstance(error, AccessError) and error.status != 404:
        # The platform has a separate format for missing and invalid credentials.
        return JsonResponse({"errors": {"_global": [error.reason]}}, error.status)
    return failure(error.status, error.reason)


async def read_body(request: web.Request) -> bytes:
    """
    Read a body as transferred.

    Raises:
        RequestError: The body is too large (413).
    """
    try:
        return await request.read()
    except web.HTTPRequestEntityTooLarge:
        raise RequestError(413, "The request is too large.") from None


def decode_json(raw: bytes, encoding: str) -> Any:
    """
    Decode a JSON body, with or without gzip compression.

    Raises:
        RequestError: The body is too large (413), has an unknown encoding (415), or is not valid gzip or JSON (400).
    """
    try:
        return loads(_decompress(raw, encoding))
    except ValueError as error:
        raise RequestError(400, f"The body is not valid JSON: {error}") from None


async def read_json(request: web.Request) -> Any:
    """
    Read a JSON body, with or without gzip compression.

    Raises:
        RequestError: The body is too large (413), has an unknown encoding (415), or is not valid gzip or JSON (400).
    """
    return decode_json(await read_body(request), request.headers.get("Content-Encoding", IDENTITY))


def require_json(request: web.Request) -> None:
    """
    Check that a body is declared as JSON.

    A web page of another origin can post a form, but JSON only after a preflight, which is never granted.

    Raises:
        RequestError: 415; it is not.
    """
    if request.content_type != "application/json":
        raise RequestError(415, "The Content-Type should be application/json.")


def request_number(request: web.Request) -> int | None:
    """Return the number of a request of an SDK; None for other requests."""
    exchange: Exchange | None = request.get(EXCHANGE)
    return None if exchange is None else exchange.id


async def read_object(request: web.Request) -> dict[str, Any]:
    """
    Read a body that is a JSON object.

    Raises:
        RequestError: The body can't be read, or is not an object.
    """
    body = await read_json(request)
    if not isinstance(body, dict):
        raise RequestError(400, "The body should be a JSON object.")
    return body


def _decompress(raw: bytes, encoding: str) -> bytes:
    if encoding.lower() == IDENTITY:
        return raw
    if encoding.lower() != "gzip":
        raise RequestError(415, "The only content encoding is gzip.")
    stream = zlib.decompressobj(GZIP_WBITS)
    try:
        # The size is limited here too: a small body may decompress to gigabytes.
        body = stream.decompress(raw, MAX_BODY_BYTES + 1)
    except zlib.error:
        raise RequestError(400, "The body is not valid gzip.") from None
    if len(body) > MAX_BODY_BYTES:
        raise RequestError(413, "The request is too large.")
    if not stream.eof or stream.unused_data:
        raise RequestError(400, "The body is not valid gzip.")
    return body
