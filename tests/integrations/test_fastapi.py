"""
FastAPI: the client as a dependency, customers of the application's own dependencies, and the lifespan.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Annotated, Any

import anyio
import httpx
import pytest
from fastapi import BackgroundTasks, Depends, FastAPI, Header, HTTPException, Request, WebSocket
from fastapi.requests import HTTPConnection
from fastapi.responses import JSONResponse, StreamingResponse
from helpers.clients import Configure
from helpers.web import call, http_scope, owners, tracked

from exponea_async import ClosedError, ConfigurationError, Event, Exponea, NoSubjectError, NotStartedError
from exponea_async.integrations.fastapi import (
    ExponeaClient,
    ExponeaMiddleware,
    bind_customer,
    client_lifespan,
    customer_from,
    identify_visitor,
)

User = Annotated[str | None, Header(alias="x-user")]


async def async_user(user: User = None) -> str | None:
    return user


def plain_user(user: User = None) -> str | None:
    return user


async def async_generator(user: User = None) -> AsyncIterator[str | None]:
    yield user


def plain_generator(user: User = None) -> Iterator[str | None]:
    yield user


async def binding_user(request: HTTPConnection, exponea: ExponeaClient, user: User = None) -> str | None:
    bind_customer(exponea, request.scope, user)
    return user


def plain_binding_user(request: HTTPConnection, exponea: ExponeaClient, user: User = None) -> str | None:
    bind_customer(exponea, request.scope, user)
    return user


DEPENDENCIES = {
    each.__name__: customer_from(each, lambda user: user)
    for each in (async_user, plain_user, async_generator, plain_generator)
} | {each.__name__: each for each in (binding_user, plain_binding_user)}


def shop(exponea: Exponea, *dependencies: Callable[..., Any], **options: Any) -> FastAPI:
    """Return an application that tracks in all the places that FastAPI has."""
    app = FastAPI(dependencies=[Depends(each) for each in dependencies])
    app.add_middleware(ExponeaMiddleware, exponea=exponea, **options)

    @app.get("/async")
    async def track(exponea: ExponeaClient) -> None:
        await exponea.track_event(Event("visit"))

    @app.get("/plain")
    def track_in_a_thread() -> None:
        anyio.from_thread.run(exponea.track_event, Event("visit"))

    @app.get("/stream")
    async def stream(exponea: ExponeaClient) -> StreamingResponse:
        async def body() -> AsyncIterator[str]:
            await exponea.track_event(Event("visit"))
            yield "body"

        return StreamingResponse(body())

    @app.get("/background")
    async def later(tasks: BackgroundTasks) -> None:
        tasks.add_task(exponea.track_event, Event("visit"))

    @app.get("/error")
    async def fail() -> None:
        raise HTTPException(418)

    @app.exception_handler(418)
    async def handle(request: Request, error: Exception) -> JSONResponse:
        await exponea.track_event(Event("visit"))
        return JSONResponse({}, 418)

    @app.websocket("/socket")
    async def socket(websocket: WebSocket, exponea: ExponeaClient) -> None:
        await websocket.accept()
        await exponea.track_event(Event("visit"))
        await websocket.close()

    return app


async def get(app: Any, path: str, user: str | None = None) -> httpx.Response:
    headers = {} if user is None else {"x-user": user}
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://shop.example") as client:
        return await client.get(path, headers=headers)


async def connect(app: FastAPI, user: str) -> None:
    """Open and close a WebSocket."""
    messages = iter([{"type": "websocket.connect"}, {"type": "websocket.disconnect", "code": 1000}])

    async def receive() -> Any:
        return next(messages)

    async def send(message: Any) -> None:
        pass

    await app(http_scope("/socket", headers=[("x-user", user)], type="websocket", subprotocols=[]), receive, send)


PATHS = ["/async", "/plain", "/stream", "/background", "/error"]


class TestDependencies:
    @pytest.mark.parametrize("path", PATHS)
    @pytest.mark.parametrize("dependency", DEPENDENCIES.values(), ids=DEPENDENCIES)
    async def test_customer_of_a_dependency(self, exponea: Exponea, dependency: Any, path: str) -> None:
        """The customer of the application's own dependency is the subject of the rest of the request."""
        await get(shop(exponea, dependency), path, "jane@example.com")

        assert await owners(exponea) == [("visit", {"registered": "jane@example.com"})]

    @pytest.mark.parametrize("dependency", DEPENDENCIES.values(), ids=DEPENDENCIES)
    async def test_nobody(self, exponea: Exponea, dependency: Any) -> None:
        """Where the dependency knows nobody, nothing is tracked."""
        await get(shop(exponea, dependency), "/async")

        assert await owners(exponea) == []
        assert exponea.stats().dropped == {"nobody": 1}

    @pytest.mark.parametrize("dependency", DEPENDENCIES.values(), ids=DEPENDENCIES)
    async def test_many_at_once(self, exponea: Exponea, dependency: Any) -> None:
        """Customers of requests at the same time do not mix, whatever kind of function the dependency is."""
        app = shop(exponea, dependency)
        requests = [(path, f"{path.strip('/')}-{number}") for path in PATHS for number in range(20)]
        await asyncio.gather(*(get(app, path, user) for path, user in requests))

        found = sorted(ids["registered"] for _, ids in await owners(exponea))
        assert found == sorted(user for _, user in requests)

    @pytest.mark.parametrize("dependency", DEPENDENCIES.values(), ids=DEPENDENCIES)
    async def test_websockets(self, exponea: Exponea, dependency: Any) -> None:
        """A dependency also binds the customer of a WebSocket."""
        await connect(shop(exponea, dependency), "jane@example.com")

        assert await owners(exponea) == [("visit", {"registered": "jane@example.com"})]

    async def test_called_once(self, exponea: Exponea) -> None:
        """The application's own dependency is called once in a request, though two depend on it."""
        calls: list[str | None] = []

        async def current_user(user: User = None) -> str | None:
            calls.append(user)
            return user

        app = shop(exponea, customer_from(current_user, lambda user: user))

        @app.get("/me")
        async def me(user: Annotated[str, Depends(current_user)], exponea: ExponeaClient) -> str:
            await exponea.track_event(Event("visit"))
            return user

        assert (await get(app, "/me", "jane@example.com")).json() == "jane@example.com"
        assert calls == ["jane@example.com"]
        assert await owners(exponea) == [("visit", {"registered": "jane@example.com"})]

    async def test_middleware_that_authenticates_inside(self, exponea: Exponea) -> None:
        """The user whom a middleware inside has put into the state of the request is known to the function."""
        app = FastAPI()

        @app.middleware("http")
        async def authenticate(request: Request, call_next: Any) -> Any:
            request.state.user = request.headers["x-user"]
            return await call_next(request)

        app.add_middleware(ExponeaMiddleware, exponea=exponea, customer=lambda scope: scope["state"].get("user"))

        @app.get("/")
        async def track(tasks: BackgroundTasks) -> None:
            await exponea.track_event(Event("visit"))
            tasks.add_task(exponea.track_event, Event("later"))

        await get(app, "/", "jane@example.com")

        jane = {"registered": "jane@example.com"}
        assert await owners(exponea) == [("visit", jane), ("later", jane)]

    @pytest.mark.parametrize("is_around", [False, True])
    async def test_handler_of_all_exceptions(self, exponea: Exponea, *, is_around: bool) -> None:
        """Starlette calls it outside of all middleware; the subject holds there if the application is wrapped."""
        app = FastAPI()
        found: list[str] = []

        @app.exception_handler(Exception)
        async def handle(request: Request, error: Exception) -> JSONResponse:
            try:
                found.append((await exponea.track_event(Event("failed"))).status)
            except NoSubjectError:
                found.append("no subject")
            return JSONResponse({}, 500)

        @app.get("/")
        async def fail() -> None:
            raise LookupError

        options: dict[str, Any] = {"exponea": exponea, "customer": lambda _: "jane@example.com"}
        if not is_around:
            app.add_middleware(ExponeaMiddleware, **options)
        application = ExponeaMiddleware(app, **options) if is_around else app
        with pytest.raises(LookupError):
            await call(application)

        assert found == (["queued"] if is_around else ["no subject"])

    async def test_sign_in(self, exponea: Exponea) -> None:
        """A handler that signs a visitor in binds the customer and joins both."""
        app = shop(exponea)

        @app.get("/sign-in")
        async def sign_in(request: Request, exponea: ExponeaClient) -> None:
            await exponea.track_event(Event("before"))
            bind_customer(exponea, request.scope, "jane@example.com")
            await identify_visitor(exponea, request.scope)
            await exponea.track_event(Event("after"))

        await call(app, http_scope("/sign-in", headers=[("cookie", "xnpe_shop=v1")]))

        jane = {"registered": "jane@example.com"}
        expected = [("before", {"cookie": "v1"}), ("customer", {"cookie": "v1", **jane}), ("after", jane)]
        assert await owners(exponea) == expected

    async def test_overridden(self, exponea: Exponea) -> None:
        """Tests of an application may override the dependency on its user as always."""
        app = shop(exponea, customer_from(async_user, lambda user: user))
        app.dependency_overrides[async_user] = lambda: "joe@example.com"
        await get(app, "/async")

        assert await owners(exponea) == [("visit", {"registered": "joe@example.com"})]

    async def test_without_middleware(self, exponea: Exponea) -> None:
        """Without the middleware the dependency says what is missing."""
        app = FastAPI()

        @app.get("/")
        async def track(exponea: ExponeaClient) -> None:
            await exponea.track_event(Event("visit"))

        with pytest.raises(ConfigurationError, match="Add ExponeaMiddleware"):
            await get(app, "/")

    async def test_openapi(self, exponea: Exponea) -> None:
        """The client is not a parameter of the documented API."""
        document = (await get(shop(exponea), "/openapi.json")).json()

        assert "parameters" not in document["paths"]["/async"]["get"]


class TestLifespan:
    async def test_own_lifespan(self, configure: Configure) -> None:
        """The client is open within the application's own lifespan, whose state is passed on."""
        exponea = Exponea(configure(storage="memory:", flush_mode="MANUAL"))
        order: list[str] = []

        @asynccontextmanager
        async def own(app: FastAPI) -> AsyncIterator[dict[str, str]]:
            order.append((await exponea.track_event(Event("up"))).status)
            yield {"name": "shop"}
            order.append((await exponea.track_event(Event("down"))).status)

        app = FastAPI(lifespan=client_lifespan(exponea, own, timeout=0))
        with pytest.raises(NotStartedError):
            await exponea.track_event(Event("before"))
        async with app.router.lifespan_context(app) as state:
            order.append((state or {})["name"])
        with pytest.raises(ClosedError):
            await exponea.track_event(Event("after"))

        assert order == ["queued", "shop", "queued"]

    async def test_failing_lifespan(self, configure: Configure) -> None:
        """The client is closed where the application can't start."""
        exponea = Exponea(configure(storage="memory:"))

        @asynccontextmanager
        async def own(app: FastAPI) -> AsyncIterator[None]:
            raise ZeroDivisionError
            yield

        app = FastAPI(lifespan=client_lifespan(exponea, own))
        with pytest.raises(ZeroDivisionError):
            async with app.router.lifespan_context(app):
                pass
        with pytest.raises(ClosedError):
            await exponea.track_event(Event("after"))

    async def test_without_own_lifespan(self, configure: Configure) -> None:
        """Without a lifespan of its own an application has just that of the client."""
        exponea = Exponea(configure(storage="memory:", flush_mode="MANUAL"))
        app = FastAPI(lifespan=client_lifespan(exponea))
        async with app.router.lifespan_context(app):
            with exponea.bind(exponea.for_customer({"registered": "jane@example.com"})):
                await exponea.track_event(Event("visit"))
            assert len(await tracked(exponea)) == 1
