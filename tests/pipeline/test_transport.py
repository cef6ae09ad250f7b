"""
One HTTP attempt, against real servers, well-behaved and not.
"""

import asyncio
import base64
import contextlib
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
from exponea_async.config import BasicAuth
from exponea_async.errors import UnavailableError

SECRET = "s3cret-key"
HEADER = f"Token {SECRET}"
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@pytest.fixture
async def transport() -> AsyncIterator[Transport]:
    transport = Transport(timeout=5.0, connections=4, gzip=False)
    yield transport
    await transport.aclose()


@pytest.fixture
def self_made(tmp_path: Path) -> ssl.SSLContext:
    key, certificate = tmp_path / "key.pem", tmp_path / "cert.pem"
    made = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=127.0.0.1"]
    subprocess.run([*made, "-keyout", key, "-out", certificate], check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    return context


@contextlib.asynccontextmanager
async def serving(handler: Handler) -> AsyncIterator[str]:
    """Serve HTTP for as long as the block lasts; gives the address."""
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
async def speaking(*parts: bytes, stay: bool = False, context: ssl.SSLContext | None = None) -> AsyncIterator[str]:
    """Answer every connection with these bytes, one write each, then hang up, or stay silent."""
    over = asyncio.Event()
    talks: set[asyncio.Task[Any] | None] = set()

    async def speak(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        talks.add(asyncio.current_task())
        # An SSLError is an OSError as well.
        with contextlib.suppress(OSError):
            await reader.read(2**16)
            for part in parts:
                writer.write(part)
                await writer.drain()
                await asyncio.sleep(0.02)
            if stay:
                await over.wait()
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()

    server = await asyncio.start_server(speak, "127.0.0.1", 0, ssl=context)
    try:
        yield f"{'https' if context else 'http'}://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        over.set()
        await asyncio.gather(*filter(None, talks))
        server.close()
        await server.wait_closed()


def answering(**response: Any) -> tuple[Handler, list[tuple[Any, bytes]]]:
    """Make a handler that keeps what it gets, as pairs of headers and body as sent, and answers the same to all."""
    seen: list[tuple[Any, bytes]] = []

    async def handle(request: web.Request) -> web.Response:
        seen.append((request.headers.copy(), await request.content.read()))
        return web.Response(**response)

    return handle, seen


async def failure(transport: Transport, url: str) -> UnavailableError:
    with pytest.raises(UnavailableError) as caught:
        await transport.post(url, b"{}", HEADER)
    return caught.value


class TestRequests:
    async def test_what_a_request_carries(self, transport: Transport) -> None:
        """The key, the kinds of content and who we are go along; the body goes as it is."""
        handler, seen = answering(text='{"success":true}')
        async with serving(handler) as url:
            answer = await transport.post(f"{url}/track", b'{"a":1}', HEADER)

        ((headers, body),) = seen
        assert answer == HttpResponse(200, b'{"success":true}')
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
    def test_each_kind_of_access_has_its_header(self, authorization: str | BasicAuth, header: str) -> None:
        """A public key is a token, private access is a basic pair."""
        assert authorization_header(authorization) == header

    @pytest.mark.parametrize("size", [0, 10_000, COMPRESS_ON_THREAD + 1, LARGE_BODY, 2 * 2**20])
    @pytest.mark.parametrize("compressed", [False, True])
    async def test_bodies_of_all_sizes_arrive(self, size: int, *, compressed: bool) -> None:
        """Compressed or not, small or larger than aiohttp likes, the server reads what was sent."""
        body = bytes(range(256)) * (size // 256)
        received = []

        async def handle(request: web.Request) -> web.Response:
            received.append((await request.read(), request.headers.get("Content-Encoding")))
            return web.Response()

        transport = Transport(timeout=5.0, connections=1, gzip=compressed)
        async with serving(handle) as url, contextlib.aclosing(transport):
            await transport.post(url, body, HEADER)

        assert received == [(body, "gzip" if compressed else None)]

    async def test_no_cookie_is_kept(self, transport: Transport) -> None:
        """What one answer sets is not sent with the next request."""
        handler, seen = answering(headers={"Set-Cookie": "a=b"})
        async with serving(handler) as url:
            await transport.post(url, b"{}", HEADER)
            await transport.post(url, b"{}", HEADER)

        assert all("Cookie" not in headers for headers, _ in seen)

    async def test_neither_netrc_nor_proxies_get_between(
        self, transport: Transport, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The surroundings change neither the key nor the way."""
        (tmp_path / "netrc").write_text("machine 127.0.0.1 login someone password else\n")
        monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
        monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
        handler, seen = answering()
        async with serving(handler) as url:
            await transport.post(url, b"{}", HEADER)

        assert seen[0][0]["Authorization"] == HEADER


class TestAnswers:
    @pytest.mark.parametrize("status", [200, 204, 400, 401, 404, 429, 500, 503])
    async def test_every_status_is_an_answer(self, transport: Transport, status: int) -> None:
        """What it means is not the transport's business."""
        handler, _ = answering(status=status, body=None if status == 204 else b"x")
        async with serving(handler) as url:
            assert (await transport.post(url, b"{}", HEADER)).status == status

    @pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
    async def test_a_redirect_is_not_followed(self, transport: Transport, status: int) -> None:
        """The key goes nowhere else; where it pointed is told."""
        handler, seen = answering(status=status, headers={"Location": "/elsewhere"})
        async with serving(handler) as url:
            answer = await transport.post(url, b"{}", HEADER)

        assert (answer.status, answer.location, len(seen)) == (status, "/elsewhere", 1)

    async def test_a_wish_to_wait_is_read(self, transport: Transport) -> None:
        """``Retry-After`` arrives as seconds."""
        handler, _ = answering(status=429, headers={"Retry-After": "7"})
        async with serving(handler) as url:
            assert (await transport.post(url, b"{}", HEADER)).retry_after == 7.0

    async def test_a_compressed_answer_is_inflated(self, transport: Transport) -> None:
        """The platform may compress what it says."""
        handler, _ = answering(body=gzip.compress(b'{"success":true}'), headers={"Content-Encoding": "gzip"})
        async with serving(handler) as url:
            assert (await transport.post(url, b"{}", HEADER)).body == b'{"success":true}'


HEAD = b"HTTP/1.1 200 OK\r\n"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"


class TestTroubles:
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
    async def test_a_broken_answer_is_none(self, transport: Transport, parts: tuple[bytes, ...]) -> None:
        """Whatever is wrong with the bytes, the error says unavailable, and neither it nor its cause has the key."""
        async with speaking(*parts) as url:
            error = await failure(transport, url)

        assert error.retryable
        assert SECRET not in f"{error} {error!r} {error.__cause__!r} {error.__cause__}"

    async def test_silence_ends_in_time(self) -> None:
        """A server that takes the request and says nothing is given up."""
        transport = Transport(timeout=0.1, connections=1, gzip=False)
        async with speaking(stay=True) as url, contextlib.aclosing(transport):
            assert "no response in time" in str(await failure(transport, url))

    async def test_a_body_that_stops_midway_ends_in_time(self) -> None:
        """The time is for the whole answer, not only for its first byte."""
        transport = Transport(timeout=0.1, connections=1, gzip=False)
        async with (
            speaking(HEAD + b"Content-Length: 100\r\n\r\n", b"x", stay=True) as url,
            contextlib.aclosing(transport),
        ):
            assert "no response in time" in str(await failure(transport, url))

    async def test_an_endless_answer_is_cut(self, transport: Transport) -> None:
        """A few megabytes are read and no more."""
        chunk = b"%x\r\n%b\r\n" % (2**20, b"x" * 2**20)
        async with speaking(CHUNKED, *[chunk] * (MAX_RESPONSE // 2**20 + 2), stay=True) as url:
            error = await failure(transport, url)

        assert (error.status, "too large" in str(error)) == (200, True)

    async def test_nobody_there(self, transport: Transport) -> None:
        """A refused connection is trouble like any other."""
        async with speaking() as url:
            pass

        assert "Cannot connect" in str(await failure(transport, url))

    @pytest.mark.parametrize("host", ["nowhere.invalid", "a" * 64 + ".invalid", "ex..ample", "\u00ad.com", "1.2.3.4.5"])
    async def test_a_name_that_leads_nowhere(self, transport: Transport, host: str) -> None:
        """Unknown and impossible names are trouble like any other."""
        assert (await failure(transport, f"http://{host}/")).status == 0

    async def test_speaking_tls_to_who_does_not(self, transport: Transport) -> None:
        """A failed handshake is trouble like any other."""
        async with speaking(b"HTTP/1.1 400 Bad Request\r\n\r\n") as url:
            assert (await failure(transport, url.replace("http", "https"))).retryable

    async def test_a_certificate_that_nobody_vouches_for(self, transport: Transport, self_made: ssl.SSLContext) -> None:
        """Certificates are checked; a self-made one is refused before the key is sent."""
        async with speaking(HEAD + b"Content-Length: 0\r\n\r\n", context=self_made) as url:
            error = await failure(transport, url)

        assert "CERTIFICATE_VERIFY_FAILED" in str(error)

    async def test_a_cancelled_request_is_cancelled(self, transport: Transport) -> None:
        """Cancellation is nobody's trouble and comes through."""
        async with speaking(stay=True) as url:
            task = asyncio.create_task(transport.post(url, b"{}", HEADER))
            await asyncio.sleep(0.05)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

    async def test_the_connection_is_usable_after_trouble(self, transport: Transport) -> None:
        """A broken answer does not spoil the next request."""
        handler, _ = answering()
        async with speaking(b"nonsense\r\n\r\n") as broken, serving(handler) as url:
            await failure(transport, broken)
            assert (await transport.post(url, b"{}", HEADER)).status == 200


def test_every_error_of_aiohttp_is_covered() -> None:
    """No class of aiohttp's client errors gets past the transport, but those of WebSockets."""
    kinds = [
        kind
        for _, kind in inspect.getmembers(client_exceptions, inspect.isclass)
        if issubclass(kind, Exception) and kind.__module__ == client_exceptions.__name__
    ]

    assert len(kinds) > 20
    assert [kind for kind in kinds if not issubclass(kind, REQUEST_ERRORS)] == [aiohttp.WSMessageTypeError]


async def test_the_key_is_in_no_log(transport: Transport, caplog: pytest.LogCaptureFixture) -> None:
    """With every logger at its most talkative, the key is in no line."""
    caplog.set_level(logging.DEBUG)
    asyncio.get_running_loop().set_debug(True)
    handler, _ = answering(status=401, text="no")
    async with serving(handler) as url, speaking(b"nonsense\r\n\r\n") as broken:
        await transport.post(url, b"{}", HEADER)
        try:
            await transport.post(broken, b"{}", HEADER)
        except UnavailableError:
            logging.getLogger("exponea_async").exception("It failed.")

    assert "It failed." in caplog.text
    assert SECRET not in caplog.text
