"""
A server whose responses a test writes, for those that the sandbox never gives.
"""

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from aiohttp import web
from attrs import frozen

from helpers.local_server import LocalServer


@frozen
class ReceivedRequest:
    """
    A request that a scripted server received.

    Attributes:
        path: The path.
        headers: The headers.
        body: The body.
        commands: The commands of the batch.
        at: When it was received, in event-loop time.
        abort: Aborts the connection.
    """

    path: str
    headers: Mapping[str, str]
    body: bytes
    commands: list[dict[str, Any]]
    at: float
    abort: Callable[[], None] | None = None

    @property
    def numbers(self) -> list[Any]:
        """The numbers of the events, in order."""
        return [command["data"]["properties"].get("number") for command in self.commands]

    def accept(self) -> web.Response:
        """Return a response that accepts all commands."""
        return self.respond([None] * len(self.commands))

    def respond(self, errors: list[str | None]) -> web.Response:
        """Return a response with an error, or None, for each command."""
        results = [
            {"command_id": command["command_id"], "success": error is None, **({"errors": [error]} if error else {})}
            for command, error in zip(self.commands, errors, strict=True)
        ]
        return web.json_response({"success": True, "results": results})


Script = Callable[[ReceivedRequest], web.StreamResponse | Awaitable[web.StreamResponse]]


class ScriptedServer(LocalServer):
    """
    A server that responds by a script; an async context manager.

    Attributes:
        script: Returns the response to a request.
        requests: The requests so far.
        max_concurrent: The largest number of requests in progress at once.
    """

    def __init__(self, script: Script) -> None:
        self.script = script
        self.requests: list[ReceivedRequest] = []
        self.max_concurrent = self._active = 0
        super().__init__()

    async def handle(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        received = ReceivedRequest(
            path=request.path,
            headers=dict(request.headers),
            body=body,
            commands=json.loads(body)["commands"] if body else [],
            at=asyncio.get_running_loop().time(),
            abort=request.transport.abort if request.transport else None,
        )
        self.requests.append(received)
        self._active += 1
        self.max_concurrent = max(self.max_concurrent, self._active)
        try:
            response = self.script(received)
            return response if isinstance(response, web.StreamResponse) else await response
        finally:
            self._active -= 1
