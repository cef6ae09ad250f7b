"""
aiohttp.web: the life of the client, and whom the events of a request are about.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from typing import Any, Protocol

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer, make_mocked_request
from helpers.clients import Configure
from helpers.waiting import until
from helpers.web import owners, tracked, visitor
from yarl import URL

from exponea_async import ConfigurationError, Event, Exponea, InvalidEventError, NoSubjectError
from exponea_async.integrations.aiohttp import CLIENT, RequestProperties, bind_customer, identify_visitor, setup
from exponea_async.sandbox import Sandbox
from exponea_async.testing import assert_tracked, sandbox_configuration

JANE = {"registered": "jane@example.com"}
VISITOR = dict([visitor("v1")])
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def user(request: web.Request) -> str | None:
    """Return the user whom a header names."""
    return request.headers.get("X-User")


async def track(request: web.Request, name: str = "visit", **properties: Any) -> None:
    await request.config_dict[CLIENT].track_event(Event(name, properties))


async def visit(request: web.Request) -> web.Response:
    await track(request, request.path[1:])
    return web.Response(text="shown")


class Site:
    """A running application, and a browser of it."""

    def __init__(self, url: str, session: aiohttp.ClientSession) -> None:
        self.url = url
        self.session = session

    async def get(self, path: str, headers: Mapping[str, str] = {}) -> tuple[int, str]:
        async with self.session.get(f"{self.url}{path}", headers=headers) as response:
            return response.status, await response.text()


class Serve(Protocol):
    """Runs an application with a handler for all paths."""

    async def __call__(self, handler: Handler, *, app: web.Application | None = None, **settings: Any) -> Site: ...


@pytest.fixture
async def serve(exponea: Exponea, session: aiohttp.ClientSession) -> AsyncIterator[Serve]:
    async with AsyncExitStack() as stack:

        async def start(handler: Handler, *, app: web.Application | None = None, **settings: Any) -> Site:
            app = app or web.Application()
            app.add_routes([web.get("/{path:.*}", handler)])
            setup(app, exponea, **settings, timeout=0)
            runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
            await runner.setup()
            stack.push_async_callback(runner.cleanup)
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            return Site(f"http://127.0.0.1:{runner.addresses[0][1]}", session)

        yield start


class TestSubject:
    async def test_customer(self, serve: Serve, exponea: Exponea) -> None:
        """The events of a request are about the customer, and not about the visitor, too."""
        site = await serve(visit, customer=user)
        await site.get("/shown", {"X-User": "jane@example.com", **VISITOR})

        assert await owners(exponea) == [("shown", JANE)]

    async def test_visitor(self, serve: Serve, exponea: Exponea) -> None:
        """Without a customer they are about the visitor whom the web SDK has given a cookie, or about nobody."""
        site = await serve(visit, customer=user)
        await site.get("/shown", VISITOR)
        await site.get("/not_shown")

        assert await owners(exponea) == [("shown", {"cookie": "v1"})]

    async def test_consent(self, serve: Serve, exponea: Exponea) -> None:
        """Nothing is tracked of those who have not consented."""
        site = await serve(visit, customer=user, consent=lambda request: "X-Consent" in request.headers)
        await site.get("/before", {"X-User": "jane@example.com"})
        await site.get("/after", {"X-User": "jane@example.com", "X-Consent": "yes"})

        assert await owners(exponea) == [("after", JANE)]

    async def test_async_function(self, serve: Serve, exponea: Exponea) -> None:
        """An async function is awaited before the handler."""

        async def load(request: web.Request) -> str | None:
            await asyncio.sleep(0)
            return user(request)

        site = await serve(visit, customer=load)
        await site.get("/shown", {"X-User": "jane@example.com"})

        assert await owners(exponea) == [("shown", JANE)]

    async def test_bound_later(self, serve: Serve, exponea: Exponea) -> None:
        """A customer that becomes known in a handler is the subject of the rest of the request."""

        async def sign_in(request: web.Request) -> web.Response:
            await track(request, "before")
            bind_customer(request, "jane@example.com")
            await track(request, "after")
            return web.Response()

        site = await serve(sign_in)
        await site.get("/", VISITOR)

        assert await owners(exponea) == [("before", {"cookie": "v1"}), ("after", JANE)]

    async def test_identify(self, serve: Serve, exponea: Exponea) -> None:
        """The customer and the visitor become one where the handler says so, and only if a customer is known."""

        async def sign_in(request: web.Request) -> web.Response:
            try:
                await identify_visitor(request)
            except InvalidEventError:
                return web.Response(status=403)
            return web.Response()

        site = await serve(sign_in, customer=user)

        assert (await site.get("/", VISITOR))[0] == 403
        assert (await site.get("/", {"X-User": "jane@example.com", **VISITOR}))[0] == 200
        assert await owners(exponea) == [("customer", {"cookie": "v1", **JANE})]

    async def test_properties(self, serve: Serve, exponea: Exponea) -> None:
        """The events of a request carry what was asked for."""
        properties = RequestProperties(ip=0, user_agent=True, location=["page"], utm=True)
        site = await serve(visit, properties=properties)
        await site.get("/sh%C3%B6wn?page=2&token=3&utm_source=m%C3%A4il", {"User-Agent": "Browser/1", **VISITOR})

        (record,) = await tracked(exponea)
        found = {name: record.properties[name] for name in ("ip", "user_agent", "location", "utm_source")}
        assert found == {
            "ip": "127.0.0.1",
            "user_agent": "Browser/1",
            "location": "/sh%C3%B6wn?page=2",
            "utm_source": "mäil",
        }

    async def test_subapplications(self, serve: Serve, exponea: Exponea) -> None:
        """A handler of a subapplication has the client and the subject of the application."""
        app, inner = web.Application(), web.Application()
        inner.add_routes([web.get("/shown", visit)])
        app.add_subapp("/inner", inner)
        site = await serve(visit, app=app, customer=user)
        await site.get("/inner/shown", {"X-User": "jane@example.com"})

        assert await owners(exponea) == [("inner/shown", JANE)]


class TestContext:
    @pytest.mark.parametrize(
        ("error", "status"), [(web.HTTPFound("/elsewhere"), 302), (web.HTTPForbidden(), 403), (KeyError("mine"), 500)]
    )
    async def test_exceptions(
        self,
        serve: Serve,
        exponea: Exponea,
        caplog: pytest.LogCaptureFixture,
        error: Exception,
        status: int,
    ) -> None:
        """An exception ends the binding; one of aiohttp that stands for a response is a response and nothing else."""

        async def leave(request: web.Request) -> web.Response:
            await track(request)
            raise error

        site = await serve(leave, customer=user)
        async with site.session.get(site.url, headers={"X-User": "jane@example.com"}, allow_redirects=False) as got:
            assert got.status == status

        assert await owners(exponea) == [("visit", JANE)]
        assert [record.name for record in caplog.records] == (["aiohttp.server"] if status == 500 else [])

    async def test_websockets(self, serve: Serve, exponea: Exponea) -> None:
        """The subject is bound for the life of a WebSocket; each has its own."""

        async def chat(request: web.Request) -> web.StreamResponse:
            socket = web.WebSocketResponse()
            await socket.prepare(request)
            async for message in socket:
                await track(request, message.data)
            await track(request, "left")
            return socket

        site = await serve(chat, customer=user)
        names = [f"u{number}" for number in range(5)]
        sockets = [await site.session.ws_connect(site.url, headers={"X-User": name}) for name in names]
        for _ in range(2):
            for name, socket in zip(names, sockets, strict=True):
                await socket.send_str(name)
        for socket in sockets:
            await socket.close()
        await until(lambda: exponea.stats().tracked == 15)

        assert sorted(await owners(exponea), key=str) == sorted(
            [(name, {"registered": each}) for each in names for name in (each, each, "left")], key=str
        )

    async def test_streams(self, serve: Serve, exponea: Exponea) -> None:
        """The subject is bound while a response is streamed, by the handler or as an iterator."""

        async def stream(request: web.Request) -> web.StreamResponse:
            async def parts() -> AsyncIterator[bytes]:
                for number in range(2):
                    await track(request, "part")
                    yield b"%d;" % number

            if request.path == "/body":
                return web.Response(body=parts(), content_type="text/plain")
            response = web.StreamResponse()
            await response.prepare(request)
            async for part in parts():
                await response.write(part)
            return response

        site = await serve(stream, customer=user)
        for path in ("/body", "/handler"):
            async with site.session.get(f"{site.url}{path}", headers={"X-User": "jane@example.com"}) as response:
                assert await response.text() == "0;1;"
                assert (response.content_type == "text/plain") == (path == "/body")

        assert await owners(exponea) == [("part", JANE)] * 4

    async def test_no_leaks(self, serve: Serve, exponea: Exponea) -> None:
        """Of many requests at once, on connections that are used again, each is about its own customer."""

        async def pause(request: web.Request) -> web.Response:
            await track(request, of=user(request))
            await asyncio.sleep(0.001)
            await track(request, of=user(request))
            if user(request) == "u7":
                raise web.HTTPNotFound
            return web.Response()

        site = await serve(pause, customer=user)
        await asyncio.gather(*(site.get("/", {"X-User": f"u{number % 13}"}) for number in range(500)))

        records = await tracked(exponea)
        assert len(records) == 1000
        assert all(record.properties["of"] == record.customer_ids["registered"] for record in records)

    async def test_cancelled_requests(self, serve: Serve, exponea: Exponea) -> None:
        """If the browser goes away and the handler is cancelled, nothing remains bound."""
        entered = asyncio.Event()

        async def wait(request: web.Request) -> web.Response:
            entered.set()
            await asyncio.sleep(60)
            return web.Response()

        site = await serve(wait, customer=user)
        request = asyncio.create_task(site.get("/", {"X-User": "jane@example.com"}))
        await entered.wait()
        request.cancel()
        await asyncio.wait([request])

        with pytest.raises(NoSubjectError):
            await exponea.track_event(Event("after"))


class TestLife:
    async def test_start_and_end(self, configure: Configure, sandbox: Sandbox) -> None:
        """The client is open while the application runs, and uploads what waits at its end."""
        app = web.Application()
        setup(app, Exponea(configure()))
        runner = web.AppRunner(app)
        await runner.setup()
        assert "open" in repr(app[CLIENT])
        await app[CLIENT].for_customer(JANE).track_event(Event("visit"))
        await runner.cleanup()

        assert "closed" in repr(app[CLIENT])
        assert len(sandbox.engine.events()) == 1

    async def test_the_test_kit(self, sandbox: Sandbox) -> None:
        """A test of an application finds its events with the functions of the package for tests."""
        app = web.Application()
        app.add_routes([web.get("/{path:.*}", visit)])
        setup(app, Exponea(sandbox_configuration(sandbox)), customer=user)
        async with TestClient(TestServer(app)) as browser:
            await browser.get("/shown", headers={"X-User": "jane@example.com"})
            assert_tracked(sandbox, "shown", customer=JANE)

    async def test_another_part_that_fails(self, configure: Configure) -> None:
        """If another part of the application can't start, the client is closed."""

        async def fail(_: web.Application) -> AsyncIterator[None]:
            raise LookupError
            yield

        app = web.Application()
        setup(app, Exponea(configure()))
        app.cleanup_ctx.append(fail)
        with pytest.raises(LookupError):
            await web.AppRunner(app).setup()
        await app.cleanup()

        assert "closed" in repr(app[CLIENT])

    async def test_wrong_settings(self, exponea: Exponea) -> None:
        """Wrong arguments are errors where the application is made."""
        with pytest.raises(ConfigurationError, match="customer: expected a function, got 5"):
            setup(web.Application(), exponea, customer=5)  # type: ignore[arg-type]

    async def test_without_setup(self, session: aiohttp.ClientSession) -> None:
        """A function that needs the subject says that the application has none."""

        async def sign_in(request: web.Request) -> web.Response:
            with pytest.raises(ConfigurationError, match="the application has no client") as raised:
                bind_customer(request, "jane")
            return web.Response(text=str(raised.value))

        app = web.Application()
        app.add_routes([web.get("/", sign_in)])
        async with TestServer(app) as server:
            status, text = await Site(str(server.make_url("")), session).get("/")

        assert (status, text.endswith("Call setup(app, exponea) where the application is made.")) == (200, True)


async def test_invalid_queries(exponea: Exponea) -> None:
    """A query that is not UTF-8, which aiohttp lets pass where it has no C extensions, is no fault."""
    app = web.Application()
    setup(app, exponea, customer=lambda _: "jane@example.com", properties=RequestProperties(utm=True))
    url = URL.build(path="/visit", query_string="utm_source=a\udcff", encoded=True)
    request = make_mocked_request("GET", "/visit", app=app).clone(rel_url=url)
    middleware: Any = app.middlewares[-1]

    async def handler(_: web.Request) -> web.Response:
        await exponea.track_event(Event("visit"))
        return web.Response()

    assert (await middleware(request, handler)).status == 200
    assert (await tracked(exponea))[0].properties["utm_source"] == "a"


def test_two_clients(exponea: Exponea) -> None:
    """An application has one client; a second one is an error and does not replace it."""
    app = web.Application()
    setup(app, exponea)

    with pytest.raises(ConfigurationError, match="has a client already"):
        setup(app, exponea)
