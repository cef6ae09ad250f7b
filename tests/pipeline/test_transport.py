"""
Single HTTP requests to real servers, valid and invalid ones.
"""

import asyncio
import base64
import contextlib
import gc
import gzip
import inspect
import logging
import platform
import ssl
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import client_exceptions, web
from helpers.environment import Environment
from helpers.local_server import LocalServer
from helpers.waiting import until_succeeds

from exponea_async._pipeline.network import Network
from exponea_async._pipeline.responses import HttpResponse
from exponea_async._pipeline.transport import (
    COMPRESS_ON_THREAD,
    LARGE_BODY,
    MAX_RESPONSE,
    REQUEST_ERRORS,
    Transport,
    authorization_header,
)
from exponea_async._version import __version__
from exponea_async.config import UploadSettings
from exponea_async.errors import UnavailableError
from exponea_async.projects import BasicAuth

SECRET = "s3cret-key"
HEADER = f"Token {SECRET}"
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def connect(settings: UploadSettings, *, connections: int) -> Transport:
    """Return a transport without a proxy."""
    return Transport(settings, Network(settings), connections=connections)


@pytest.fixture
async def transport() -> AsyncIterator[Transport]:
    transport = connect(UploadSettings(request_timeout=60.0), connections=4)
    yield transport
    await transport.aclose()


@pytest.fixture
def self_signed(tmp_path: Path) -> ssl.SSLContext:
    key, certificate = tmp_path / "key.pem", tmp_path / "cert.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=127.0.0.1"]
    subprocess.run([*command, "-keyout", key, "-out", certificate], check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    return context


@contextlib.asynccontextmanager
async def serving(handler: Handler) -> AsyncIterator[str]:
    """Run an HTTP server within a block, and yield its URL."""
    app = web.Application(client_max_size=2**26)
    app.router.add_route("*", "/{rest:.*}", handler)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        host, port = runner.addresses[0][:2]
        yield f"http://{host}:{port}"
    finally:
        await runner.cleanup()


@contextlib.asynccontextmanager
async def sending(*parts: bytes, stay: bool = False, context: ssl.SSLContext | None = None) -> AsyncIterator[str]:
    """Respond to every connection with these bytes, one write each, and then close it or keep it open."""
    ended = asyncio.Event()
    connections: set[asyncio.Task[Any] | None] = set()

    async def respond(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connections.add(asyncio.current_task())
        # An SSLError is an OSError, too.
        with contextlib.suppress(OSError):
            await reader.read(2**16)
            for part in parts:
                writer.write(part)
                await writer.drain()
                await asyncio.sleep(0.02)
            if stay:
                await ended.wait()
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()

    server = await asyncio.start_server(respond, "127.0.0.1", 0, ssl=context)
    try:
        yield f"{'https' if context else 'http'}://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        ended.set()
        await asyncio.gather(*filter(None, connections))
        server.close()
        await server.wait_closed()


def responding(**response: Any) -> tuple[Handler, list[tuple[Any, bytes]]]:
    """Return a handler with a fixed response, and a list of the headers and bodies that it receives."""
    seen: list[tuple[Any, bytes]] = []

    async def handle(request: web.Request) -> web.Response:
        seen.append((request.headers.copy(), await request.content.read()))
        return web.Response(**response)

    return handle, seen


async def error_of(transport: Transport, url: str) -> UnavailableError:
    with pytest.raises(UnavailableError) as caught:
        await transport.send("POST", url, b"{}", HEADER)
    return caught.value


class TestRequests:
    async def test_the_headers_and_the_body_of_a_request(self, transport: Transport) -> None:
        """There are headers for the key, the content types and the user agent; the body is sent unchanged."""
        handler, seen = responding(text='{"success":true}')
        async with serving(handler) as url:
            response = await transport.send("POST", f"{url}/track", b'{"a":1}', HEADER)

        ((headers, body),) = seen
        assert response == HttpResponse(200, b'{"success":true}')
        assert body == b'{"a":1}'
        assert headers["Authorization"] == HEADER
        assert headers["Content-Type"] == headers["Accept"] == "application/json"
        assert headers["User-Agent"] == f"exponea-async/{__version__} python/{platform.python_version()}"
        assert "Content-Encoding" not in headers

    @pytest.mark.parametrize(
        ("authorization", "header"),
        [
            ("key", "Token key"),
            (BasicAuth("id", "s:ecret"), "Basic " + base64.b64encode(b"id:s:ecret").decode()),
        ],
    )
    def test_the_header_of_each_kind_of_credentials(self, authorization: str | BasicAuth, header: str) -> None:
        """A public key has the scheme Token, private access has the scheme Basic."""
        assert authorization_header(authorization) == header

    @pytest.mark.parametrize("size", [0, 10_000, COMPRESS_ON_THREAD + 1, LARGE_BODY, 2 * 2**20])
    @pytest.mark.parametrize("compressed", [False, True])
    async def test_bodies_of_all_sizes_arrive(self, size: int, *, compressed: bool) -> None:
        """Compressed or not, small or larger than aiohttp accepts without a warning, bodies arrive complete."""
        body = bytes(range(256)) * (size // 256)
        received = []

        async def handle(request: web.Request) -> web.Response:
            received.append((await request.read(), request.headers.get("Content-Encoding")))
            return web.Response()

        transport = connect(UploadSettings(request_timeout=60.0), connections=1)
        async with serving(handle) as url, contextlib.aclosing(transport):
            await transport.send("POST", url, body, HEADER, compress=compressed)

        assert received == [(body, "gzip" if compressed else None)]

    async def test_cookies_are_not_stored(self, transport: Transport) -> None:
        """A cookie that a response sets is not sent with the next request."""
        handler, seen = responding(headers={"Set-Cookie": "a=b"})
        async with serving(handler) as url:
            await transport.send("POST", url, b"{}", HEADER)
            await transport.send("POST", url, b"{}", HEADER)

        assert all("Cookie" not in headers for headers, _ in seen)

    async def test_netrc_and_proxies_of_the_environment_are_ignored(
        self, transport: Transport, tmp_path: Path, environment: Environment
    ) -> None:
        """The environment changes neither the key nor the host."""
        (tmp_path / "netrc").write_text("machine 127.0.0.1 login someone password else\n")
        environment(NETRC=str(tmp_path / "netrc"))
        environment(HTTP_PROXY="http://127.0.0.1:1")
        handler, seen = responding()
        async with serving(handler) as url:
            await transport.send("POST", url, b"{}", HEADER)

        assert seen[0][0]["Authorization"] == HEADER


class TestResponses:
    @pytest.mark.parametrize("status", [200, 204, 400, 401, 404, 429, 500, 503])
    async def test_every_status_is_returned(self, transport: Transport, status: int) -> None:
        """The transport does not interpret it."""
        handler, _ = responding(status=status, body=None if status == 204 else b"x")
        async with serving(handler) as url:
            assert (await transport.send("POST", url, b"{}", HEADER)).status == status

    @pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
    async def test_a_redirect_is_not_followed(self, transport: Transport, status: int) -> None:
        """The key is not sent to another host; the response has the target."""
        handler, seen = responding(status=status, headers={"Location": "/elsewhere"})
        async with serving(handler) as url:
            response = await transport.send("POST", url, b"{}", HEADER)

        assert (response.status, response.location, len(seen)) == (status, "/elsewhere", 1)

    async def test_retry_after_is_returned(self, transport: Transport) -> None:
        """``Retry-After`` is returned in seconds."""
        handler, _ = responding(status=429, headers={"Retry-After": "7"})
        async with serving(handler) as url:
            assert (await transport.send("POST", url, b"{}", HEADER)).retry_after == 7.0

    async def test_a_compressed_response_is_decompressed(self, transport: Transport) -> None:
        """The platform may compress its responses."""
        handler, _ = responding(body=gzip.compress(b'{"success":true}'), headers={"Content-Encoding": "gzip"})
        async with serving(handler) as url:
            assert (await transport.send("POST", url, b"{}", HEADER)).body == b'{"success":true}'


HEAD = b"HTTP/1.1 200 OK\r\n"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"


class TestErrors:
    @pytest.mark.parametrize(
        "parts",
        [
            (),
            (b"hello there\r\n\r\n",),
            (b"\x16\x03\x01\x02\x00",),
            (HEAD + b"Content-Length: 100\r\n\r\n", b"only this"),
            (HEAD + b"Content-Length: -5\r\n\r\nabc",),
            (HEAD + b"X: " + b"a" * 100_000 + b"\r\n\r\n",),
            (CHUNKED + b"zz\r\nabc",),
            (CHUNKED + b"3\r\nabcdefgh\r\n",),
            (CHUNKED, b"3\r\na"),
            (HEAD + b"Content-Encoding: gzip\r\nContent-Length: 3\r\n\r\nabc",),
            (HEAD + b"Content-Encoding: gzip\r\nContent-Length: 30\r\n\r\n", b"abc" * 10),
            (HEAD + b"Content-Encoding: br\r\nContent-Length: 3\r\n\r\nabc",),
            (b"HTTP/1.1 100 Continue\r\n\r\n" * 3,),
        ],
    )
    async def test_an_invalid_response(self, transport: Transport, parts: tuple[bytes, ...]) -> None:
        """Any invalid bytes raise an UnavailableError, and neither it nor its cause contains the key."""
        async with sending(*parts) as url:
            error = await error_of(transport, url)

        assert error.retryable
        assert SECRET not in f"{error} {error!r} {error.__cause__!r} {error.__cause__}"

    async def test_a_missing_response_times_out(self) -> None:
        """A server accepts the request and sends nothing."""
        transport = connect(UploadSettings(request_timeout=0.1), connections=1)
        async with sending(stay=True) as url, contextlib.aclosing(transport):
            assert "no response in time" in str(await error_of(transport, url))

    async def test_an_incomplete_body_times_out(self) -> None:
        """The time limit is for the complete response."""
        transport = connect(UploadSettings(request_timeout=0.1), connections=1)
        async with (
            sending(HEAD + b"Content-Length: 100\r\n\r\n", b"x", stay=True) as url,
            contextlib.aclosing(transport),
        ):
            assert "no response in time" in str(await error_of(transport, url))

    async def test_an_endless_response(self, transport: Transport) -> None:
        """Only a few megabytes are read."""
        chunk = b"%x\r\n%b\r\n" % (2**20, b"x" * 2**20)
        async with sending(CHUNKED, *[chunk] * (MAX_RESPONSE // 2**20 + 2), stay=True) as url:
            error = await error_of(transport, url)

        assert (error.status, "too large" in str(error)) == (200, True)

    async def test_a_refused_connection(self, transport: Transport) -> None:
        """It raises an UnavailableError."""
        async with sending() as url:
            pass

        assert "Cannot connect" in str(await error_of(transport, url))

    @pytest.mark.parametrize("host", ["nowhere.invalid", "a" * 64 + ".invalid", "ex..ample", "\u00ad.com", "1.2.3.4.5"])
    async def test_invalid_host_names(self, transport: Transport, host: str) -> None:
        """Unknown and impossible names raise an UnavailableError without a status."""
        assert (await error_of(transport, f"http://{host}/")).status == 0

    async def test_tls_with_a_server_without_tls(self, transport: Transport) -> None:
        """A failed handshake raises an UnavailableError."""
        async with sending(b"HTTP/1.1 400 Bad Request\r\n\r\n") as url:
            assert (await error_of(transport, url.replace("http", "https"))).retryable

    async def test_a_self_signed_certificate(self, transport: Transport, self_signed: ssl.SSLContext) -> None:
        """Certificates are verified before the key is sent."""
        async with sending(HEAD + b"Content-Length: 0\r\n\r\n", context=self_signed) as url:
            error = await error_of(transport, url)

        assert "CERTIFICATE_VERIFY_FAILED" in str(error)

    async def test_a_cancelled_request_is_cancelled(self, transport: Transport) -> None:
        """Cancellation is not turned into another error."""
        async with sending(stay=True) as url:
            task = asyncio.create_task(transport.send("POST", url, b"{}", HEADER))
            await asyncio.sleep(0.05)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

    async def test_the_transport_is_usable_after_an_error(self, transport: Transport) -> None:
        """An invalid response does not affect the next request."""
        handler, _ = responding()
        async with sending(b"nonsense\r\n\r\n") as invalid, serving(handler) as url:
            await error_of(transport, invalid)
            assert (await transport.send("POST", url, b"{}", HEADER)).status == 200


def test_all_errors_of_aiohttp_are_translated() -> None:
    """All client errors of aiohttp become an UnavailableError, except those of WebSockets."""
    kinds = [
        kind
        for _, kind in inspect.getmembers(client_exceptions, inspect.isclass)
        if issubclass(kind, Exception) and kind.__module__ == client_exceptions.__name__
    ]

    assert len(kinds) > 20
    assert [kind for kind in kinds if not issubclass(kind, REQUEST_ERRORS)] == [aiohttp.WSMessageTypeError]


async def test_the_key_is_not_logged(transport: Transport, caplog: pytest.LogCaptureFixture) -> None:
    """No line contains the key, even if all loggers log everything."""
    caplog.set_level(logging.DEBUG)
    asyncio.get_running_loop().set_debug(True)
    handler, _ = responding(status=401, text="no")
    async with serving(handler) as url, sending(b"nonsense\r\n\r\n") as invalid:
        await transport.send("POST", url, b"{}", HEADER)
        try:
            await transport.send("POST", invalid, b"{}", HEADER)
        except UnavailableError:
            logging.getLogger("exponea_async").exception("It failed.")

    assert "It failed." in caplog.text
    assert SECRET not in caplog.text


class FreezingServer(LocalServer):
    """
    A server all of whose connections die when it freezes; new ones work.

    Attributes:
        dead: The connections that do not respond any more.
        seen: The connections so far.
        unanswered: Number of requests on dead connections.
    """

    def __init__(self) -> None:
        self.dead: set[Any] = set()
        self.seen: set[Any] = set()
        self.unanswered = 0
        self.ended = asyncio.Event()
        self._arrived = 0
        self._all = asyncio.Event()
        super().__init__()

    def freeze(self) -> None:
        """Let all present connections die."""
        self.dead |= self.seen

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.seen.add(request.transport)
        if request.transport in self.dead:
            self.unanswered += 1
            await self.ended.wait()
        if request.path == "/together":
            self._arrived += 1
            if self._arrived == 4:
                self._all.set()
            await self._all.wait()
        return web.json_response({})


class TestDeadConnections:
    async def test_only_one_request_meets_them(self) -> None:
        """After the first request that has no response, no connection from before is used."""
        transport = connect(UploadSettings(request_timeout=0.3), connections=4)
        async with FreezingServer() as server, contextlib.aclosing(transport):

            async def send(path: str = "") -> HttpResponse:
                return await transport.send("POST", f"{server.url}{path}", b"{}", HEADER)

            # Repeated where the machine stops for longer than the time limit.
            await until_succeeds(lambda: asyncio.gather(*(send("/together") for _ in range(4))), UnavailableError)
            server.freeze()
            assert "no response in time" in str(await error_of(transport, server.url))
            responses = [await until_succeeds(send, UnavailableError) for _ in range(4)]
            server.ended.set()

        assert len(server.dead) >= 4
        assert server.unanswered == 1
        assert {response.status for response in responses} == {200}

    async def test_requests_that_are_under_way_go_on(self) -> None:
        """A request on another connection is not ended by the failure of the first one."""
        begun, may_end = asyncio.Event(), asyncio.Event()

        async def handle(request: web.Request) -> web.Response:
            if request.path == "/slow":
                begun.set()
                await may_end.wait()
            elif request.path == "/cut" and request.transport:
                request.transport.abort()
            return web.Response()

        transport = connect(UploadSettings(request_timeout=60.0), connections=4)
        async with serving(handle) as url, contextlib.aclosing(transport):
            slow = asyncio.create_task(transport.send("POST", f"{url}/slow", b"{}", HEADER))
            await begun.wait()
            await error_of(transport, f"{url}/cut")
            await transport.send("POST", url, b"{}", HEADER)
            may_end.set()

            assert (await slow).status == 200

    async def test_nothing_stays_open(self, caplog: pytest.LogCaptureFixture) -> None:
        """Closing closes the connections from before a failure, too, and ends the requests on them."""
        begun, never = asyncio.Event(), asyncio.Event()

        async def handle(request: web.Request) -> web.Response:
            if request.path == "/cut" and request.transport:
                request.transport.abort()
                return web.Response()
            begun.set()
            await never.wait()
            return web.Response()

        transport = connect(UploadSettings(request_timeout=60.0), connections=4)
        async with serving(handle) as url:
            slow = asyncio.create_task(transport.send("POST", url, b"{}", HEADER))
            await begun.wait()
            await error_of(transport, f"{url}/cut")
            await transport.aclose()
            with pytest.raises(UnavailableError):
                await slow
            never.set()
        del transport
        gc.collect()

        assert "Unclosed" not in caplog.text
