"""
The lifespan of a client around that of an ASGI application, which the application may lack.
"""

import asyncio
import logging
from collections.abc import AsyncIterator
from typing import Any

import pytest
import uvicorn
from helpers.clients import Configure
from helpers.waiting import until
from helpers.web import Application, Receive, Scope, Send, call, http_scope, owners
from starlette.applications import Starlette

from exponea_async import ClosedError, DeliveryEvent, Event, Exponea, Hooks, NoSubjectError, StorageError
from exponea_async.integrations.asgi import ClientLifespan, ExponeaMiddleware

JANE = {"registered": "jane@example.com"}
STARTUP, SHUTDOWN = {"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}
COMPLETE = ["lifespan.startup.complete", "lifespan.shutdown.complete"]


class Server:
    """The lifespan events of a server, and the answers to them."""

    def __init__(self, app: Application) -> None:
        self.answers: list[str] = []
        self.messages: list[str] = []
        self._events: asyncio.Queue[dict[str, str]] = asyncio.Queue()
        self._task = asyncio.ensure_future(app({"type": "lifespan", "state": {}}, self._events.get, self._send))

    async def _send(self, message: Any) -> None:
        self.answers.append(message["type"])
        self.messages.append(message.get("message", ""))

    async def event(self, event: dict[str, str]) -> None:
        """Send an event, and wait for the answer or the end."""
        count = len(self.answers)
        self._events.put_nowait(event)
        await until(lambda: len(self.answers) > count or self._task.done())

    async def end(self) -> None:
        """Wait until the application has returned."""
        await self._task


@pytest.fixture
async def client(configure: Configure) -> AsyncIterator[Exponea]:
    client = Exponea(configure(storage="memory:", flush_mode="MANUAL", default_device=False))
    yield client
    await client.aclose()


async def without(scope: Scope, receive: Receive, send: Send) -> None:
    """Return at once: an application that ignores lifespan events."""


async def refusing(scope: Scope, receive: Receive, send: Send) -> None:
    """Fail, as Django does."""
    if scope["type"] == "lifespan":
        raise ValueError("Django can only handle ASGI/HTTP connections, not lifespan.")


async def failing_late(scope: Scope, receive: Receive, send: Send) -> None:
    """Fail at the first event that is not understood."""
    await receive()
    raise KeyError


async def leaving(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer the startup only."""
    await receive()
    await send({"type": "lifespan.startup.complete"})


def named(app: Any) -> str:
    return getattr(app, "__name__", type(app).__name__)


class TestApplications:
    @pytest.mark.parametrize("app", [without, refusing, failing_late, leaving, Starlette()], ids=named)
    async def test_opened_and_closed(self, client: Exponea, app: Any) -> None:
        """Whatever the application does with lifespan events, the client is open from startup to shutdown."""
        server = Server(ClientLifespan(app, client))
        await server.event(STARTUP)
        with client.bind(client.for_customer(JANE)):
            assert (await client.track_event(Event("visit"))).status == "queued"
        await server.event(SHUTDOWN)
        await server.end()

        assert server.answers == COMPLETE
        with pytest.raises(ClosedError):
            await client.for_customer(JANE).track_event(Event("after"))

    async def test_open_within_the_lifespan_of_the_application(self, client: Exponea) -> None:
        """The application can track while it starts and while it shuts down."""
        statuses: list[str] = []

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            for _ in range(2):
                event = (await receive())["type"]
                statuses.append((await client.for_customer(JANE).track_event(Event("step"))).status)
                await send({"type": f"{event}.complete"})

        server = Server(ClientLifespan(app, client))
        await server.event(STARTUP)
        await server.event(SHUTDOWN)
        await server.end()

        assert (server.answers, statuses) == (COMPLETE, ["queued", "queued"])

    @pytest.mark.parametrize("app", [without, refusing, Starlette()], ids=named)
    async def test_client_that_can_not_start(self, configure: Configure, app: Any, tmp_path: Any) -> None:
        """If the client can't start, the server is told why, and does not serve."""
        client = Exponea(configure(storage=tmp_path))
        server = Server(ClientLifespan(app, client))
        await server.event(STARTUP)
        with pytest.raises(StorageError):
            await server.end()

        assert server.answers == ["lifespan.startup.failed"]
        assert str(tmp_path) in server.messages[0]

    async def test_application_that_can_not_start(self, client: Exponea) -> None:
        """If the application says that it can't start, the client is closed."""

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await receive()
            await send({"type": "lifespan.startup.failed", "message": "no database"})

        server = Server(ClientLifespan(app, client))
        await server.event(STARTUP)
        await server.end()

        assert (server.answers, server.messages) == (["lifespan.startup.failed"], ["no database"])
        with pytest.raises(ClosedError):
            await client.for_customer(JANE).track_event(Event("after"))


class TestServersWithoutLifespan:
    async def test_first_request(self, client: Exponea, caplog: pytest.LogCaptureFixture) -> None:
        """The first requests start the client, which is logged once."""

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await client.track_event(Event("visit"))

        wrapped = ClientLifespan(ExponeaMiddleware(app, client, customer=lambda _: JANE), client)
        await asyncio.gather(*(call(wrapped, http_scope()) for _ in range(10)))

        assert await owners(client) == [("visit", JANE)] * 10
        assert len([each for each in caplog.records if "no lifespan events" in each.message]) == 1

    async def test_listeners_of_the_client(self, configure: Configure) -> None:
        """A client that the first request starts does not keep the customer of that request for its listeners."""
        noticed: list[asyncio.Task[object]] = []

        def track(event: DeliveryEvent) -> None:
            noticed.append(asyncio.ensure_future(exponea.track_event(Event("noticed"))))

        settings = configure(storage="memory:", default_device=False)
        exponea = Exponea(settings, hooks=Hooks(listeners=[track]))

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await (await exponea.track_event(Event("visit"))).delivered(timeout=60)

        wrapped = ClientLifespan(app, exponea)
        await call(ExponeaMiddleware(wrapped, exponea, customer=lambda _: JANE), http_scope())
        await call(ExponeaMiddleware(wrapped, exponea, customer=lambda _: JANE), http_scope())
        await until(lambda: len(noticed) == 2)
        results = await asyncio.gather(*noticed, return_exceptions=True)
        await exponea.aclose()

        assert [type(result) for result in results] == [NoSubjectError] * 2

    async def test_uvicorn(self, client: Exponea, caplog: pytest.LogCaptureFixture) -> None:
        """Uvicorn opens and closes the client of an application without a lifespan."""
        caplog.set_level(logging.INFO, "exponea_async")
        config = uvicorn.Config(ClientLifespan(refusing, client), port=0, log_config=None, ws="none", lifespan="on")
        server = uvicorn.Server(config)
        task = asyncio.create_task(server.serve())
        await until(lambda: server.started)
        with client.bind(client.for_customer(JANE)):
            await client.track_event(Event("visit"))
        server.should_exit = True
        await task

        with pytest.raises(ClosedError):
            await client.for_customer(JANE).track_event(Event("after"))
        assert any("does not support lifespan" in record.message for record in caplog.records)


@pytest.mark.parametrize("app", [refusing, Starlette()], ids=named)
async def test_nothing_is_awaited_after_the_last_answer(client: Exponea, app: Application) -> None:
    """The lifespan has ended with its last answer, since Hypercorn then cancels what has not."""
    cancelled: list[bool] = []
    events = iter([STARTUP, SHUTDOWN])

    async def receive() -> dict[str, str]:
        return next(events)

    async def send(message: Any) -> None:
        if message["type"] == "lifespan.shutdown.complete":
            asyncio.get_running_loop().call_soon(lambda: cancelled.append(task.cancel()))

    task = asyncio.ensure_future(ClientLifespan(app, client)({"type": "lifespan", "state": {}}, receive, send))
    await task

    await until(lambda: bool(cancelled))
    assert cancelled == [False]
    with pytest.raises(ClosedError):
        await client.for_customer(JANE).track_event(Event("visit"))
