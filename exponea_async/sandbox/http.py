"""
Requests' bodies in, answers out, in the platform's shapes.
"""

import zlib
from collections.abc import Mapping
from typing import Any

from aiohttp import web

from exponea_async.sandbox.encoding import dumps, loads

MAX_BODY_BYTES = 10 * 1024 * 1024
# zlib's own word for "with a gzip header".
GZIP = 31


class BodyError(Exception):
    """
    A body can't be read.

    Attributes:
        status: 400, 413 or 415.
        reason: Why.
    """

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason


class Answer(web.Response):
    """
    A JSON answer.

    Args:
        payload: What it says.
        status: The HTTP status.
        headers: Further headers.
        commands: How many commands it answers; for the log only.
    """

    def __init__(
        self, payload: Any, status: int = 200, *, headers: Mapping[str, str] | None = None, commands: int = 0
    ) -> None:
        super().__init__(body=dumps(payload), status=status, headers=headers, content_type="application/json")
        self.commands = commands


def failure(status: int, *errors: str, headers: Mapping[str, str] | None = None, commands: int = 0) -> Answer:
    """Makes the answer to a request that failed."""
    return Answer({"success": False, "errors": errors}, status, headers=headers, commands=commands)


async def read_json(request: web.Request) -> Any:
    """
    Reads a body, compressed or not.

    Raises:
        BodyError: It is too large, unknown in encoding, broken, or no JSON.
    """
    try:
        raw = await request.read()
    except web.HTTPRequestEntityTooLarge:
        raise BodyError(413, "The request is too large.") from None
    try:
        return loads(_inflated(raw, request.headers.get("Content-Encoding", "identity")))
    except ValueError as error:
        raise BodyError(400, f"The body is no valid JSON: {error}") from None


async def read_object(request: web.Request) -> dict[str, Any]:
    """
    Reads a body that is a JSON object.

    Raises:
        BodyError: It is something else, or can't be read.
    """
    body = await read_json(request)
    if not isinstance(body, dict):
        raise BodyError(400, "The body should be a JSON object.")
    return body


def _inflated(raw: bytes, encoding: str) -> bytes:
    if encoding.lower() == "identity":
        return raw
    if encoding.lower() != "gzip":
        raise BodyError(415, "The only content encoding is gzip.")
    stream = zlib.decompressobj(GZIP)
    try:
        # The limit stands here too: a small body may hold gigabytes.
        body = stream.decompress(raw, MAX_BODY_BYTES + 1)
    except zlib.error:
        raise BodyError(400, "The body is no valid gzip.") from None
    if len(body) > MAX_BODY_BYTES:
        raise BodyError(413, "The request is too large.")
    if not stream.eof or stream.unused_data:
        raise BodyError(400, "The body is no valid gzip.")
    return body
