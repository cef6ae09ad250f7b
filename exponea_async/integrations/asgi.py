"""
Middleware for every ASGI application, whichever framework it is written with.

::

    async def shop(scope, receive, send):
        await exponea.track_event(Event("page_visit", {"path": scope["path"]}))

    application = ExponeaMiddleware(shop, exponea, customer=lambda scope: scope.get("user"))

In a request, `ExponeaMiddleware` makes the customer whom the application has authenticated the current subject. Without
a customer it is the visitor that the web SDK has given a cookie; without such a cookie it is nobody, of whom nothing is
tracked. `ClientLifespan` starts and closes the client of an application that does not do so itself.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any, Protocol
from uuid import UUID

from exponea_async._internal.binding import unbound_context
from exponea_async.client import CLOSE_TIMEOUT, Exponea
from exponea_async.integrations._headers import RequestProperties, Scope, visitor_cookie
from exponea_async.integrations._request import ConsentFunction, CustomerFunction, RequestRules, find_subject
from exponea_async.models import Receipt

__all__ = [
    "ClientLifespan",
    "ExponeaMiddleware",
    "RequestProperties",
    "bind_customer",
    "identify_visitor",
    "visitor_cookie",
]

LOG = logging.getLogger("exponea_async")

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
#: Each framework has its own types of the arguments.
Application = Callable[[Any, Any, Any], Awaitable[None]]

#: The scopes that are about one end user.
CONNECTIONS = ("http", "websocket")


class ExponeaMiddleware:
    """
    Makes the customer of each request, or of each connection of a WebSocket, the current subject of a client.

    The subject is bound until the application has returned: while the response is streamed, and in its background
    tasks, too. Other scopes pass through.

    A function of the application that fails has an effect only where something is tracked: the coroutine raises an
    `InvalidEventError`, or with ``Configuration(on_invalid="log")`` the event is dropped, counted and logged. Never is
    the event tracked as somebody else's.

    Args:
        app: The ASGI application.
        exponea: The client. The application starts it, or `ClientLifespan` does.
        customer: Returns the ids of the customer whom the application has authenticated, from the scope: a mapping
            such as ``{"registered": "jane@example.com"}``, or the ``registered`` id alone, or None where nobody is
            authenticated. A plain function is called when something is tracked, until it returns ids, so it does not
            matter whether the middleware that authenticates is inside or outside of this one. An async function is
            awaited before the application is called, so authentication must be outside.
        visitor: Whether a request without a customer is about the visitor that the web SDK's cookie names.
        consent: Returns whether the visitor may be tracked, from the scope. A plain function is called whenever
            something is tracked, an async function as that of `customer`. None tracks everyone.
        properties: What the events of a request carry besides their own properties; by default nothing.

    Raises:
        ConfigurationError: An argument is invalid.
    """

    def __init__(
        self,
        app: Application,
        exponea: Exponea,
        *,
        customer: CustomerFunction | None = None,
        visitor: bool = True,
        consent: ConsentFunction | None = None,
        properties: RequestProperties | None = None,
    ) -> None:
        self.app = app
        self._rules = RequestRules(
            exponea, customer=customer, visitor=visitor, consent=consent, properties=properties or RequestProperties()
        )

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Call the application."""
        if scope["type"] not in CONNECTIONS:
            await self.app(scope, receive, send)
            return
        subject = await self._rules.subject_of(scope)
        with subject.bind():
            await self.app(scope, receive, send)


def bind_customer(exponea: Exponea, scope: Scope, ids: Mapping[str, str] | str | UUID | None) -> None:
    """
    Make a customer the subject of the rest of a request or connection.

    For customers that become known while the request is handled: after a sign-in, or in a dependency that
    authenticates. It also takes effect if it is called in a thread, and for tasks of the request that run already.

    Args:
        exponea: The client.
        scope: The scope of the connection, which has passed `ExponeaMiddleware`.
        ids: The ids, as the function ``customer`` of the middleware returns them. None changes nothing.

    Raises:
        InvalidEventError: The platform would refuse an id.
        ConfigurationError: The connection did not pass the middleware with this client.
    """
    find_subject(exponea, scope).set_customer(ids)


async def identify_visitor(exponea: Exponea, scope: Scope, properties: Mapping[str, Any] | None = None) -> Receipt:
    """
    Tell the platform that the customer of a request and the visitor that the web SDK has given a cookie are the same.

    The platform merges the two, and that can't be undone. So this is never done automatically, and only for customers
    whom the application has authenticated. Call it after a sign-in, with a request from the browser.

    Args:
        exponea: The client.
        scope: The scope of the connection, which has passed `ExponeaMiddleware`.
        properties: Properties of the customer to set.

    Returns:
        The receipt of the update of the customer. Without a cookie it has the customer's ids alone. Without consent it
        is a dropped one.

    Raises:
        InvalidEventError: The application has authenticated nobody, or the properties can't be sent as they are.
            Nothing was recorded.
        ConfigurationError: The connection did not pass the middleware with this client.
        StorageError: The storage refused; nothing was recorded.
        LifecycleError: The client was not started, or is closed.
    """
    return await find_subject(exponea, scope).identify(properties or {})


class Startable(Protocol):
    """A client, or what stands for one that also code in other event loops and threads uses."""

    async def start(self) -> None:
        """Start it."""

    async def aclose(self, timeout: float | None = CLOSE_TIMEOUT) -> None:  # noqa: ASYNC109 - as the client has it
        """Close it."""


class ClientLifespan:
    """
    Starts a client before an ASGI application starts, and closes it after the application has shut down.

    For applications that have no lifespan of their own, such as Django's, and for those that have one. If the server
    sends no lifespan events, the first request starts the client, and nothing closes it: what was not sent stays in
    the queue, and the next start sends it.

    Args:
        app: The ASGI application.
        exponea: The client.
        timeout: How long closing uploads what waits in the queue, in seconds, as for ``aclose()``.
    """

    def __init__(self, app: Application, exponea: Startable, *, timeout: float | None = CLOSE_TIMEOUT) -> None:
        self.app = app
        self._exponea = exponea
        self._timeout = timeout
        self._is_started = False

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Call the application, or handle the lifespan events that it does not handle."""
        if scope["type"] == "lifespan":
            self._is_started = True
            await _Lifespan(self._exponea, self._timeout, receive, send).run(self.app, scope)
            return
        if not self._is_started:
            await self._start_late()
        await self.app(scope, receive, send)

    async def _start_late(self) -> None:
        # The client's tasks must not inherit the subject of a request. A caller that is cancelled cancels this one.
        await asyncio.create_task(self._exponea.start(), context=unbound_context())
        if not self._is_started:
            self._is_started = True
            LOG.warning(
                "The server sends no lifespan events, so the first request has started the client, and nothing will"
                " close it. What is not sent until the process ends stays in the queue."
            )


class _Lifespan:
    """
    The lifespan of an application, with that of a client around it.

    Args:
        exponea: The client.
        timeout: How long closing uploads what waits in the queue, in seconds.
        receive: That of the server.
        send: That of the server.
    """

    def __init__(self, exponea: Startable, timeout: float | None, receive: Receive, send: Send) -> None:
        self._exponea = exponea
        self._timeout = timeout
        self._server_receive = receive
        self._server_send = send
        self._received: set[str] = set()
        self._sent: set[str] = set()
        self._failure: Exception | None = None
        self._is_closed = False

    async def run(self, app: Application, scope: Scope) -> None:
        """Run the lifespan of the application, and what it does not handle."""
        try:
            try:
                await app(scope, self._receive, self._send)
            except Exception as error:
                if self._sent or self._failure is not None:
                    raise
                # As servers have it: an application that fails before it answers does not support lifespan events.
                LOG.info("The application does not support lifespan events: %s", type(error).__name__)
            await self._run_rest()
        except Exception:
            if self._failure is not None and not self._sent:
                await self._send({"type": "lifespan.startup.failed", "message": str(self._failure)})
            raise
        finally:
            await self._close()

    async def _run_rest(self) -> None:
        """Answer the events that the application has not answered."""
        if not self._sent:
            if "lifespan.startup" not in self._received:
                await self._receive()
            await self._send({"type": "lifespan.startup.complete"})
        if self._sent == {"lifespan.startup.complete"}:
            if "lifespan.shutdown" not in self._received:
                await self._receive()
            await self._send({"type": "lifespan.shutdown.complete"})

    async def _receive(self) -> Message:
        """Return the next event of the server; at startup the client is started first."""
        message = await self._server_receive()
        self._received.add(message["type"])
        if message["type"] == "lifespan.startup":
            try:
                await self._exponea.start()
            except Exception as error:
                self._failure = error
                raise
        return message

    async def _send(self, message: Message) -> None:
        """Pass an answer on; the client is closed before the server learns of the end."""
        self._sent.add(message["type"])
        if message["type"] != "lifespan.startup.complete":
            await self._close()
        await self._server_send(message)

    async def _close(self) -> None:
        # Some servers cancel a task that still waits for something after its last answer.
        if not self._is_closed:
            await self._exponea.aclose(self._timeout)
            self._is_closed = True
