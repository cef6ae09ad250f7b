"""
Requests to ASGI applications in memory, and the customers that events in a queue are about.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any

from exponea_async import Exponea
from exponea_async.testing import StoredRecord, pending_records

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Any, Any, Any], Awaitable[None]]

COOKIE = "xnpe_shop"


def http_scope(path: str = "/", *, query: str = "", headers: Iterable[tuple[str, str]] = (), **more: Any) -> Scope:
    """Return the scope of a request, or of a WebSocket, as a server makes it."""
    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "GET",
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "root_path": "",
        "query_string": query.encode(),
        "headers": [(name.lower().encode(), value.encode("utf-8", "surrogateescape")) for name, value in headers],
        "client": ("192.0.2.1", 4711),
        "server": ("127.0.0.1", 80),
        "state": {},
        **more,
    }
    if scope["type"] == "websocket":
        del scope["method"]
    return scope


def visitor(value: str, name: str = COOKIE) -> tuple[str, str]:
    """Return the header of a request of the web SDK's visitor."""
    return "cookie", f"{name}={value}"


def receiver() -> Receive:
    """Return the `receive` of a request without a body, of a client that stays connected."""
    messages = iter([{"type": "http.request", "body": b"", "more_body": False}])

    async def receive() -> Message:
        await asyncio.sleep(0)
        if (message := next(messages, None)) is not None:
            return message
        await asyncio.Event().wait()
        raise AssertionError

    return receive


async def call(application: Application, scope: Scope | None = None) -> list[Message]:
    """Send a request to an application, and return what it sends."""
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    await application(http_scope() if scope is None else scope, receiver(), send)
    return sent


async def tracked(client: Exponea, *names: str) -> list[StoredRecord]:
    """Return what waits in the queue of a client."""
    return await pending_records(client, *names)


async def owners(client: Exponea) -> list[tuple[str, dict[str, str]]]:
    """Return the names of the events that wait, each with the ids of the customer it is about."""
    return [(record.name, record.customer_ids) for record in await pending_records(client)]
