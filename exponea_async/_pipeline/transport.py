"""
One HTTP attempt: bytes out, an `HttpResponse` or an `UnavailableError` back.
"""

import asyncio
import base64
import io
import platform
import ssl
import time
import zlib

import aiohttp

from exponea_async._pipeline.commands import HttpResponse, read_retry_after
from exponea_async._version import __version__
from exponea_async.config import BasicAuth
from exponea_async.errors import UnavailableError

#: An answer may have this many bytes; a batch's has a few thousand.
MAX_ANSWER = 4_000_000
#: Bodies from this size on are compressed on a thread, in bytes: below it, the hop costs more.
COMPRESS_ON_THREAD = 100_000
#: Bodies from this size on, in bytes, are handed over as a file: aiohttp warns of larger ones that are not.
LARGE_BODY = 1_000_000
#: What can go wrong between here and there without an answer. aiohttp's parser in Python lets its own errors through,
#: and a host with an impossible name fails when it is encoded.
_TROUBLES = (
    aiohttp.ClientError,
    aiohttp.http.HttpProcessingError,
    TimeoutError,
    ssl.SSLError,
    OSError,
    asyncio.IncompleteReadError,
    UnicodeError,
)


class _Secret(str):
    """A text that does not show itself: aiohttp's errors carry the headers of their request."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "'***'"


def authorization_header(authorization: str | BasicAuth) -> str:
    """Tell the ``Authorization`` header for a public token or a private key."""
    if isinstance(authorization, BasicAuth):
        pair = f"{authorization.key_id}:{authorization.secret}".encode()
        return f"Basic {base64.b64encode(pair).decode()}"
    return f"Token {authorization}"


class Transport:
    """
    The way to the platform. Knows nothing of records.

    Args:
        timeout: How long one request may take in all, in seconds.
        connections: How many connections may be open.
        gzip: Whether bodies are compressed.
    """

    def __init__(self, *, timeout: float, connections: int, gzip: bool) -> None:
        self._gzip = gzip
        self._session = aiohttp.ClientSession(
            timeout=aiohttp.ClientTimeout(total=timeout),
            connector=aiohttp.TCPConnector(limit=connections),
            # A tracking platform has no business with the host's cookies.
            cookie_jar=aiohttp.DummyCookieJar(),
            headers={
                "Accept": "application/json",
                "Content-Type": "application/json",
                "User-Agent": f"exponea-async/{__version__} python/{platform.python_version()}",
            },
            # A key in the user's .netrc or a proxy of the environment must not get between unasked.
            trust_env=False,
        )

    async def post(self, url: str, body: bytes, authorization: str) -> HttpResponse:
        """
        Send a body once.

        Raises:
            UnavailableError: There was no answer.
        """
        return await self.send("POST", url, body, authorization)

    async def send(
        self, method: str, url: str, body: bytes | None, authorization: str, *, most: int = MAX_ANSWER
    ) -> HttpResponse:
        """
        Make one request.

        Args:
            method: ``"GET"`` or ``"POST"``.
            url: Where to.
            body: What to send, or nothing.
            authorization: What opens it.
            most: How many bytes the answer may have.

        Raises:
            UnavailableError: There was no answer, or one of no end.
        """
        headers: dict[str, str] = {"Authorization": _Secret(authorization)}
        if self._gzip and body is not None:
            headers["Content-Encoding"] = "gzip"
            body = await _compressed(body)
        try:
            # A redirect is not followed: it would turn a POST into a GET, or carry the key elsewhere.
            data = io.BytesIO(body) if body is not None and len(body) >= LARGE_BODY else body
            async with self._session.request(
                method, url, data=data, headers=headers, allow_redirects=False
            ) as response:
                return await _read(response, most)
        except TimeoutError as error:
            raise UnavailableError("no answer in time") from error
        except _TROUBLES as error:
            raise UnavailableError(f"{type(error).__name__}: {error}") from error

    async def aclose(self) -> None:
        """Close the connections."""
        await self._session.close()


async def _read(response: aiohttp.ClientResponse, most: int) -> HttpResponse:
    body = bytearray()
    async for chunk in response.content.iter_any():
        body += chunk
        if len(body) > most:
            raise UnavailableError("an answer of no end", status=response.status)
    return HttpResponse(
        status=response.status,
        body=bytes(body),
        retry_after=read_retry_after(response.headers.get("Retry-After"), time.time()),
        location=response.headers.get("Location", "")[:200] if 300 <= response.status < 400 else "",
    )


async def _compressed(body: bytes) -> bytes:
    if len(body) < COMPRESS_ON_THREAD:
        return _gzip(body)
    return await asyncio.to_thread(_gzip, body)


def _gzip(body: bytes) -> bytes:
    packer = zlib.compressobj(level=1, wbits=31)
    return packer.compress(body) + packer.flush()
