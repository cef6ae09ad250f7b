"""
The shops of the examples, served by Uvicorn; and many requests to one of them at the same time.
"""

import asyncio
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn
import websockets
from fastapi import FastAPI, WebSocket
from fastapi.responses import StreamingResponse
from helpers.clients import Configure
from helpers.waiting import until

from exponea_async import Configuration, Event, Exponea
from exponea_async.integrations.fastapi import ExponeaClient, ExponeaMiddleware, client_lifespan
from exponea_async.sandbox import Sandbox

sys.path.insert(0, str(Path(__file__).parent.parent.parent / "examples"))

import fastapi_shop
import litestar_shop
import starlette_shop

JANE = {"registered": "jane@example.com"}
VISITOR = "xnpe_shop=visitor-1"


@asynccontextmanager
async def served(app: Any) -> AsyncIterator[str]:
    """Serve an application on a free port."""
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="warning", lifespan="on"))
    task = asyncio.create_task(server.serve())
    await until(lambda: server.started)
    yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    server.should_exit = True
    await task


@pytest.fixture
def serve(configure: Configure, sandbox: Sandbox) -> Callable[[Callable[[Configuration], Any]], Any]:
    return lambda create: served(create(configure(default_device=False)))


def arrived(sandbox: Sandbox) -> list[tuple[str, dict[str, str]]]:
    return [(event.event_type, dict(event.customer_ids)) for event in sandbox.engine.events()]


async def test_fastapi(serve: Any, sandbox: Sandbox) -> None:
    """A visitor looks at an item, signs in and orders it; the platform knows that both are the same person."""
    async with serve(fastapi_shop.create_app) as url, httpx.AsyncClient(base_url=url) as browser:
        headers = {"cookie": VISITOR, "user-agent": "Firefox"}
        await browser.get("/items/mug?q=cup&token=secret&utm_source=mail", headers=headers)
        session = (await browser.post("/sign-in?email=jane@example.com", headers=headers)).cookies["session"]
        signed_in = {"cookie": f"{VISITOR}; session={session}"}
        assert (await browser.post("/orders?item_id=mug", headers=signed_in)).json() == {"ordered": "mug"}
        await browser.get("/items/plate", headers={**signed_in, "sec-gpc": "1"})
        browser.cookies.clear()
        await browser.get("/items/bowl")

    events = sandbox.engine.events()
    assert sorted((event.event_type, event.properties["item_id"]) for event in events) == [
        ("confirmation_sent", "mug"),
        ("purchase", "mug"),
        ("view_item", "mug"),
    ]
    (view,) = sandbox.engine.events(event_type="view_item")
    assert view.properties["location"] == "/items/mug?q=cup"
    assert (view.properties["utm_source"], view.properties["user_agent"]) == ("mail", "Firefox")
    (customer,) = sandbox.engine.customers()
    assert customer.ids == {"cookie": ("visitor-1",), "registered": ("jane@example.com",)}


@pytest.mark.parametrize("create", [starlette_shop.create_app, litestar_shop.create_app], ids=["starlette", "litestar"])
async def test_others(serve: Any, sandbox: Sandbox, create: Any) -> None:
    """Customers who are signed in are tracked by their ids, visitors by their cookie, and others not at all."""
    async with serve(create) as url, httpx.AsyncClient(base_url=url) as browser:
        for cookie in (f"{VISITOR}; signed_in_as=jane@example.com", VISITOR, "other=1"):
            assert (await browser.get("/items/mug", headers={"cookie": cookie})).json() == {"item_id": "mug"}

    assert sorted(arrived(sandbox), key=str) == [("view_item", {"cookie": "visitor-1"}), ("view_item", JANE)]


async def test_litestar_joins(serve: Any, sandbox: Sandbox) -> None:
    """The customer and the visitor are joined by the handler that says so."""
    async with serve(litestar_shop.create_app) as url, httpx.AsyncClient(base_url=url) as browser:
        headers = {"cookie": f"{VISITOR}; signed_in_as=jane@example.com"}
        assert (await browser.post("/welcome", headers=headers)).json() == {"status": "queued"}

    (customer,) = sandbox.engine.customers()
    assert customer.ids.keys() == {"cookie", "registered"}


def create_busy(configuration: Configuration) -> FastAPI:
    """Return an application that tracks in a handler, while it streams, and in a WebSocket."""
    exponea = Exponea(configuration)
    app = FastAPI(lifespan=client_lifespan(exponea))
    app.add_middleware(
        ExponeaMiddleware, exponea=exponea, customer=lambda scope: dict(scope["headers"]).get(b"x-user", b"").decode()
    )

    @app.get("/stream/{who}")
    async def stream(who: str, exponea: ExponeaClient) -> StreamingResponse:
        async def body() -> AsyncIterator[str]:
            for part in range(3):
                await exponea.track_event(Event("part", {"who": who, "part": part}))
                yield "part"
                await asyncio.sleep(0)

        await exponea.track_event(Event("request", {"who": who}))
        return StreamingResponse(body())

    @app.websocket("/socket/{who}")
    async def socket(websocket: WebSocket, who: str, exponea: ExponeaClient) -> None:
        await websocket.accept()
        for _ in range(3):
            await exponea.track_event(Event("message", {"who": who, "text": await websocket.receive_text()}))
        await websocket.close()

    return app


async def test_many_connections(serve: Any, sandbox: Sandbox) -> None:
    """Under Uvicorn, each event of hundreds of requests and WebSockets at the same time is its own customer's."""
    limit = asyncio.Semaphore(50)

    async def request(browser: httpx.AsyncClient, number: int) -> None:
        async with limit:
            await browser.get(f"/stream/user-{number}", headers={"x-user": f"user-{number}"})

    async def leave(browser: httpx.AsyncClient, number: int) -> None:
        """Disconnect while the response is streamed."""
        headers = {"x-user": f"user-{number}"}
        async with limit, browser.stream("GET", f"/stream/user-{number}", headers=headers):
            pass

    async def connect(url: str, number: int) -> None:
        address = f"{url.replace('http', 'ws', 1)}/socket/user-{number}"
        async with limit, websockets.connect(address, additional_headers={"x-user": f"user-{number}"}) as socket:
            for text in ("a", "b", "c"):
                await socket.send(text)
            await socket.wait_closed()

    async with serve(create_busy) as url, httpx.AsyncClient(base_url=url, timeout=60) as browser:
        await asyncio.gather(
            *(request(browser, number) for number in range(200)),
            *(leave(browser, number) for number in range(200, 300)),
            *(connect(url, number) for number in range(300, 400)),
        )

    events = sandbox.engine.events()
    assert [event for event in events if event.customer_ids != {"registered": event.properties["who"]}] == []
    assert len([event for event in events if event.event_type == "message"]) == 300
    assert len([event for event in events if event.event_type == "request"]) == 300
    assert len([event for event in events if event.event_type == "part"]) >= 600
