"""
HTTP: one request, answered by an `HttpResponse` or an `UnavailableError`.
"""

import asyncio
import base64
import io
import logging
import platform
import ssl
import time
import zlib
from contextlib import suppress
from functools import lru_cache, partial
from ipaddress import ip_address
from typing import Any
from urllib.parse import urlsplit

import aiohttp

from exponea_async._internal.secrets import Secret
from exponea_async._internal.user_code import calling
from exponea_async._pipeline.network import Network
from exponea_async._pipeline.resolver import DaemonResolver
from exponea_async._pipeline.responses import HttpResponse, parse_retry_after
from exponea_async._version import __version__
from exponea_async.config import UploadSettings
from exponea_async.errors import ConfigurationError, UnavailableError
from exponea_async.projects import BasicAuth
from exponea_async.requests import RequestReport

LOG = logging.getLogger("exponea_async")

#: Maximum size of a response body in bytes; that of a batch has a few thousand.
MAX_RESPONSE = 4_000_000
#: Bodies of this size or more are compressed on a thread, in bytes; for smaller ones the hop costs more.
COMPRESS_ON_THREAD = 100_000
#: Bodies of this size or more are passed as a file, in bytes; aiohttp warns about larger ones that are not.
LARGE_BODY = 1_000_000
#: What is raised if there is no valid response. The pure-Python parser of aiohttp lets its own errors through, and an
#: impossible host name fails when it is encoded.
REQUEST_ERRORS = (
    aiohttp.ClientError,
    aiohttp.http.HttpProcessingError,
    TimeoutError,
    ssl.SSLError,
    OSError,
    asyncio.IncompleteReadError,
    UnicodeError,
)


def authorization_header(authorization: str | BasicAuth) -> Secret:
    """Return the ``Authorization`` header for a public API token or private access."""
    if isinstance(authorization, BasicAuth):
        return Secret(f"Basic {_encoded_pair(authorization)}")
    return Secret(f"Token {authorization}")


def _encoded_pair(authorization: BasicAuth) -> str:
    return base64.b64encode(f"{authorization.key_id}:{authorization.secret}".encode()).decode()


#: The headers of all requests.
HEADERS = {
    "Accept": "application/json",
    "Content-Type": "application/json",
    "User-Agent": f"exponea-async/{__version__} python/{platform.python_version()}",
}


class _Pool:
    """
    A pool of connections.

    Attributes:
        session: The session with the connections.
        requests: Number of requests that are under way.
    """

    __slots__ = ("requests", "session")

    def __init__(self, session: aiohttp.ClientSession) -> None:
        self.session = session
        self.requests = 0


class Transport:
    """
    A pool of HTTP connections. It makes single attempts and knows nothing of records.

    Args:
        settings: The time limit of a request, the response included, and the function that creates sessions.
        network: The proxy and the certificates.
        connections: Maximum number of open connections.
        is_upload: Whether it uploads records; for the reports of its requests.
    """

    def __init__(
        self, settings: UploadSettings, network: Network, *, connections: int, is_upload: bool = False
    ) -> None:
        self._is_upload = is_upload
        self._timeout = aiohttp.ClientTimeout(total=settings.request_timeout)
        self._settings = settings
        self._network = network
        self._connections = connections
        self._loop = asyncio.get_running_loop()
        self._pool = self._new_pool()
        self._pools = {self._pool}
        self._is_closed = False

    def _new_pool(self) -> "_Pool":
        return _Pool(_new_session(self._settings, self._connections))

    async def send(
        self,
        method: str,
        url: str,
        body: bytes | None,
        authorization: str,
        *,
        max_response: int = MAX_RESPONSE,
        compress: bool = False,
        timeout: float | None = None,  # noqa: ASYNC109 - aiohttp's own
        records: int = 0,
    ) -> HttpResponse:
        """
        Make one request, and report it.

        Args:
            method: ``"GET"`` or ``"POST"``.
            url: The URL.
            body: The body, or None.
            authorization: The ``Authorization`` header.
            max_response: Maximum size of the response body in bytes.
            compress: Whether the body is compressed.
            timeout: Time limit in seconds, the response included; None stands for ``request_timeout``.
            records: The number of records in the body; for the report.

        Raises:
            UnavailableError: There was no valid response, or its body is too large.
        """
        limit = self._timeout if timeout is None else aiohttp.ClientTimeout(total=timeout)
        attempt = partial(
            self._send, method, url, body, authorization, max_response=max_response, limit=limit, compress=compress
        )
        if self._network.report is None:
            return await attempt()
        at, started = time.time(), time.perf_counter()
        status, trouble = 0, "it was cancelled"
        try:
            response = await attempt()
            status, trouble = response.status, "" if 200 <= response.status < 300 else f"HTTP {response.status}"
        except UnavailableError as error:
            status, trouble = error.status, str(error)
            raise
        finally:
            parts = urlsplit(url)
            self._network.report(
                RequestReport(
                    method=method,
                    host=parts.netloc.rpartition("@")[2],
                    path=parts.path,
                    is_upload=self._is_upload,
                    records=records,
                    bytes_sent=len(body or b""),
                    at=at,
                    seconds=time.perf_counter() - started,
                    status=status,
                    error=trouble,
                )
            )
        return response

    async def _send(
        self,
        method: str,
        url: str,
        body: bytes | None,
        authorization: str,
        *,
        max_response: int,
        limit: aiohttp.ClientTimeout,
        compress: bool,
    ) -> HttpResponse:
        headers: dict[str, str] = {**HEADERS, "Authorization": Secret(authorization)}
        if url.startswith("http://"):
            warn_of_clear_text(url[: url.find("/", len("http://"))])
        if compress and body is not None:
            headers["Content-Encoding"] = "gzip"
            body = await _compress(body)
        data = io.BytesIO(body) if body is not None and len(body) >= LARGE_BODY else body
        pool = self._pool
        pool.requests += 1
        try:
            # A redirect is not followed: it would turn a POST into a GET, or send the key to another host.
            async with pool.session.request(
                method,
                url,
                data=data,
                headers=headers,
                allow_redirects=False,
                timeout=limit,
                ssl=self._network.tls or True,
                **self._proxy(url, headers),
            ) as response:
                return await _read(response, max_response)
        except TimeoutError as error:
            self._replace(pool)
            raise UnavailableError("no response in time") from error
        except REQUEST_ERRORS as error:
            if not isinstance(error, aiohttp.ClientConnectorError):
                self._replace(pool)
            raise UnavailableError(f"{type(error).__name__}: {error}") from error
        finally:
            pool.requests -= 1
            if pool is not self._pool and not pool.requests and pool in self._pools:
                self._pools.discard(pool)
                await pool.session.close()

    def _replace(self, pool: "_Pool") -> None:
        """
        Open new connections from now on, since a connection of a pool has failed.

        If one connection is dead, for example because the machine was asleep, usually all of them are, and each would
        cost a request its time limit. Requests that are under way go on. Sessions of the application stay: only it
        knows which of them share their connections.
        """
        if pool is self._pool and not self._is_closed and self._settings.session_factory is None:
            self._pool = self._new_pool()
            self._pools.add(self._pool)

    def _proxy(self, url: str, headers: dict[str, str]) -> dict[str, Any]:
        """Return the arguments that lead a request through its proxy, and add the header of a request in clear text."""
        proxy = self._network.proxy_for(url)
        if proxy is None:
            return {}
        if proxy.authorization is None:
            return {"proxy": proxy.url}
        credentials = {"Proxy-Authorization": proxy.authorization}
        if url.startswith("https://"):
            # The platform must not get these: they are in the request that opens the tunnel.
            return {"proxy": proxy.url, "proxy_headers": credentials}
        headers.update(credentials)
        return {"proxy": proxy.url}

    async def aclose(self) -> None:
        """Close the connections."""
        self._is_closed = True
        while self._pools:
            await self._pools.pop().session.close()

    def abandon(self) -> None:
        """Let go of the connections without waiting: the event loop has ended, and they with it."""
        self._is_closed = True
        while self._pools:
            session = self._pools.pop().session
            connector = session.connector
            session.detach()
            if connector is not None and self._loop.is_closed():
                _close_at_once(connector)


def _close_at_once(connector: aiohttp.BaseConnector) -> None:
    """Close a connector whose event loop is closed. Otherwise aiohttp would complain of it, and name no client."""
    # There is nothing to wait for: without its event loop a connector only forgets its connections.
    with suppress(StopIteration):
        next(connector.close().__await__())


def _new_session(settings: UploadSettings, connections: int) -> aiohttp.ClientSession:
    if settings.session_factory is None:
        return aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=connections, resolver=DaemonResolver()),
            # Cookies of the platform have no use here, and would be shared by all customers.
            cookie_jar=aiohttp.DummyCookieJar(),
            # Otherwise a key in .netrc would apply; the proxies of the environment are read by `Network`.
            trust_env=False,
        )
    session: Any = None
    with calling("the session_factory", settings.session_factory):
        session = settings.session_factory()
    if not isinstance(session, aiohttp.ClientSession):
        trouble = f"must return an aiohttp.ClientSession, returned {type(session).__name__}"
        raise ConfigurationError("upload.session_factory", trouble, "Return a new session from a plain function.")
    return session


@lru_cache(maxsize=100)
def warn_of_clear_text(origin: str) -> None:
    """Log once that an address is not encrypted, unless it is on this machine."""
    host = urlsplit(origin).hostname or ""
    with suppress(ValueError):
        if ip_address(host).is_loopback:
            return
    if host != "localhost" and not host.endswith(".localhost"):
        LOG.warning("%s is not encrypted: the key and all data are sent in clear text. Use https.", origin)


async def _read(response: aiohttp.ClientResponse, max_response: int) -> HttpResponse:
    body = bytearray()
    async for chunk in response.content.iter_any():
        body += chunk
        if len(body) > max_response:
            raise UnavailableError("response body too large", status=response.status)
    return HttpResponse(
        status=response.status,
        body=bytes(body),
        retry_after=parse_retry_after(response.headers.get("Retry-After"), time.time()),
        location=response.headers.get("Location", "")[:200] if 300 <= response.status < 400 else "",
    )


async def _compress(body: bytes) -> bytes:
    if len(body) < COMPRESS_ON_THREAD:
        return _gzip(body)
    try:
        return await asyncio.to_thread(_gzip, body)
    except RuntimeError:
        # No thread pool accepts work any more at the exit of the process, where a portal uploads what waits.
        return _gzip(body)


def _gzip(body: bytes) -> bytes:
    compressor = zlib.compressobj(level=1, wbits=31)
    return compressor.compress(body) + compressor.flush()
