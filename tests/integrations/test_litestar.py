"""
Litestar: the plugin.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any

import httpx
import pytest
from helpers.clients import Configure
from helpers.waiting import until
from helpers.web import http_scope, owners, tracked
from litestar import Litestar, Request, WebSocket, get, websocket
from litestar.background_tasks import BackgroundTask
from litestar.connection import ASGIConnection
from litestar.events import listener
from litestar.middleware import AbstractAuthenticationMiddleware, AuthenticationResult, DefineMiddleware
from litestar.response import Response, Stream

from exponea_async import ClosedError, ConfigurationError, Event, Exponea, NoSubjectError, NotStartedError
from exponea_async.integrations.litestar import (
    ExponeaClient,
    ExponeaPlugin,
    RequestProperties,
    bind_customer,
    identify_visitor,
)


class Authentication(AbstractAuthenticationMiddleware):
    """The application's own authentication, which runs within the plugin's middleware."""

    async def authenticate_request(self, connection: ASGIConnection[Any, Any, Any, Any]) -> AuthenticationResult:
        """Return the user whom the request names."""
        return AuthenticationResult(connection.headers.get("x-user"), None)


@get("/async")
async def track(exponea: ExponeaClient) -> str:
    await exponea.track_event(Event("visit"))
    return "body"


@get("/stream")
async def stream(exponea: ExponeaClient) -> Stream:
    async def body() -> AsyncIterator[str]:
        yield "some"
        await exponea.track_event(Event("visit"))
        yield "more"

    return Stream(body())


@get("/background")
async def later(exponea: ExponeaClient) -> Response[str]:
    return Response("body", background=BackgroundTask(exponea.track_event, Event("visit")))


@get("/error")
async def fail(exponea: ExponeaClient) -> None:
    await exponea.track_event(Event("visit"))
    raise ZeroDivisionError


@get("/sign-in")
async def sign_in(exponea: ExponeaClient, request: Request[Any, Any, Any]) -> str:
    bind_customer(exponea, request.scope, "joe@example.com")
    await identify_visitor(exponea, request.scope)
    return "body"


@websocket("/socket")
async def socket(exponea: ExponeaClient, socket: WebSocket[Any, Any, Any]) -> None:
    await socket.accept()
    await exponea.track_event(Event("visit"))
    await socket.close()


HANDLERS = [track, stream, later, fail, sign_in, socket]


def user_of(scope: Any) -> Any:
    return scope.get("user")


def shop(exponea: Exponea, **options: Any) -> Litestar:
    return Litestar(
        route_handlers=HANDLERS,
        middleware=[DefineMiddleware(Authentication)],
        plugins=[ExponeaPlugin(exponea, customer=user_of, **options)],
    )


async def request(app: Any, path: str, user: str, **headers: str) -> httpx.Response:
    transport = httpx.ASGITransport(app=app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://shop.example") as client:
        return await client.get(path, headers={"x-user": user, **headers})


class TestPlugin:
    @pytest.mark.parametrize("path", ["/async", "/stream", "/background", "/error"])
    async def test_authenticated(self, exponea: Exponea, path: str) -> None:
        """The user of the application's own authentication is the subject, wherever the application tracks."""
        await request(shop(exponea), path, "jane@example.com")

        assert await owners(exponea) == [("visit", {"registered": "jane@example.com"})]

    async def test_many_at_once(self, exponea: Exponea) -> None:
        """Customers of requests at the same time do not mix."""
        app = shop(exponea)
        requests = [(path, f"{path.strip('/')}-{number}") for path in ("/async", "/stream") for number in range(50)]
        await asyncio.gather(*(request(app, path, user) for path, user in requests))

        found = sorted(ids["registered"] for _, ids in await owners(exponea))
        assert found == sorted(user for _, user in requests)

    async def test_websocket(self, exponea: Exponea) -> None:
        """The user is the subject of a WebSocket, too."""
        messages = iter([{"type": "websocket.connect"}, {"type": "websocket.disconnect", "code": 1000}])

        async def receive() -> Any:
            return next(messages)

        async def send(message: Any) -> None:
            pass

        scope = http_scope("/socket", headers=[("x-user", "jane@example.com")], type="websocket", subprotocols=[])
        await shop(exponea)(scope, receive, send)  # type: ignore[arg-type]

        assert await owners(exponea) == [("visit", {"registered": "jane@example.com"})]

    async def test_sign_in(self, exponea: Exponea) -> None:
        """A handler can bind a customer that becomes known, and join the visitor."""
        await request(shop(exponea), "/sign-in", "jane@example.com", cookie="xnpe_shop=v1")

        assert await owners(exponea) == [("customer", {"cookie": "v1", "registered": "joe@example.com"})]

    async def test_properties(self, exponea: Exponea) -> None:
        """The options of the middleware are those of the plugin."""
        app = shop(exponea, properties=RequestProperties(user_agent=True), consent=lambda scope: scope["user"] != "joe")
        for user in ("jane", "joe"):
            await request(app, "/async", user, **{"user-agent": "Firefox"})

        (event,) = await tracked(exponea)
        assert (event.customer_ids, event.properties["user_agent"]) == ({"registered": "jane"}, "Firefox")

    async def test_lifespan(self, configure: Configure) -> None:
        """The client is started before the application and closed after it."""
        exponea = Exponea(configure(storage="memory:", flush_mode="MANUAL"))
        order: list[str] = []

        async def step() -> None:
            order.append((await exponea.track_event(Event("step"))).status)

        @asynccontextmanager
        async def own(app: Litestar) -> AsyncIterator[None]:
            await step()
            yield
            await step()

        plugin = ExponeaPlugin(exponea, timeout=0)
        app = Litestar(plugins=[plugin], on_startup=[step], on_shutdown=[step], lifespan=[own])
        with pytest.raises(NotStartedError):
            await exponea.track_event(Event("before"))
        async with app.lifespan():
            pass
        with pytest.raises(ClosedError):
            await exponea.track_event(Event("after"))

        assert order == ["queued"] * 4

    async def test_name_of_the_dependency(self, exponea: Exponea) -> None:
        """The name of the parameter that gets the client can be chosen."""

        @get("/")
        async def visit(analytics: ExponeaClient) -> str:
            return (await analytics.track_event(Event("visit"))).status

        app = Litestar([visit], plugins=[ExponeaPlugin(exponea, customer=lambda _: "jane", dependency="analytics")])

        assert (await request(app, "/", "")).text == "queued"

    async def test_taken_name(self, exponea: Exponea) -> None:
        """A dependency of the application with the same name is an error, rather than replaced."""
        with pytest.raises(ConfigurationError, match="dependency"):
            Litestar(plugins=[ExponeaPlugin(exponea)], dependencies={"exponea": lambda: None})

    async def test_arguments(self, exponea: Exponea) -> None:
        """A wrong argument is an error where the plugin is made."""
        with pytest.raises(ConfigurationError, match="customer"):
            ExponeaPlugin(exponea, customer="jane")  # type: ignore[arg-type]


class TestWhereTheSubjectHolds:
    async def test_guards_and_dependencies(self, exponea: Exponea) -> None:
        """Guards, dependencies and exception handlers track about the same customer as the handler."""
        tasks: list[asyncio.Task[object]] = []

        async def track_name(name: str) -> str:
            return (await exponea.track_event(Event(name))).status

        async def guard(connection: ASGIConnection[Any, Any, Any, Any], handler: Any) -> None:
            tasks.append(asyncio.ensure_future(track_name("guard")))

        async def dependency() -> str:
            return await track_name("dependency")

        def handle(request: Request[Any, Any, Any], error: Exception) -> Response[str]:
            tasks.append(asyncio.ensure_future(track_name("exception")))
            return Response(str(error))

        @get("/", guards=[guard], dependencies={"status": dependency}, exception_handlers={LookupError: handle})
        async def fail(status: Annotated[str, "a dependency"]) -> str:
            raise LookupError(status)

        app = Litestar([fail], plugins=[ExponeaPlugin(exponea, customer=lambda _: "jane")])
        assert (await request(app, "/", "")).text == "queued"
        await asyncio.gather(*tasks)

        jane = {"registered": "jane"}
        assert sorted(await owners(exponea), key=str) == [(name, jane) for name in ("dependency", "exception", "guard")]

    async def test_event_listeners(self, exponea: Exponea) -> None:
        """Nothing is bound in the listeners of Litestar's events, which run in tasks of the application."""
        errors: list[str] = []

        @listener("ordered")
        async def notice() -> None:
            try:
                await exponea.track_event(Event("noticed"))
            except NoSubjectError as error:
                errors.append(type(error).__name__)

        @get("/")
        async def order(request: Request[Any, Any, Any]) -> str:
            request.app.emit("ordered")
            return "body"

        plugin = ExponeaPlugin(exponea, customer=lambda _: "jane")
        app = Litestar([order], plugins=[plugin], listeners=[notice])
        async with app.lifespan():
            await request(app, "/", "")
            await until(lambda: bool(errors))
