"""
A server whose responses a test writes, for those that the sandbox never gives.
"""

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping
from types import TracebackType
from typing import Any, Self

from aiohttp import web
from attrs import frozen


@frozen
class Seen:
    """
    A request that a scripted server received.

    Attributes:
        path: The path.
        headers: The headers.
        body: The body.
        commands: The commands of the batch.
        at: When it was received, in event-loop time.
        cut: Aborts the connection.
    """

    path: str
    headers: Mapping[str, str]
    body: bytes
    commands: list[dict[str, Any]]
    at: float
    cut: Callable[[], None] | None = None

    @property
    def names(self) -> list[Any]:
        """The numbers of the events, in order."""
        return [command["data"]["properties"].get("number") for command in self.commands]

    def accept(self) -> web.Response:
        """Return a response that accepts all commands."""
        return self.answer([None] * len(self.commands))

    def answer(self, errors: list[str | None]) -> web.Response:
        """Return a response with an error, or None, for each command."""
        results = [
            {"command_id": command["command_id"], "success": error is None, **({"errors": [error]} if error else {})}
            for command, error in zip(self.commands, errors, strict=True)
        ]
        return web.json_response({"success": True, "results": results})


Script = Callable[[Seen], web.StreamResponse | Awaitable[web.StreamResponse]]


class Scripted:
    """
    A server that responds by a script; an async context manager.

    Attributes:
        script: Returns the response to a request.
        seen: The requests so far.
        most: The largest number of requests in progress at once.
    """

    def __init__(self, script: Script) -> None:
        self.script = script
        self.seen: list[Seen] = []
        self.most = self._active = 0
        self.url = ""

    async def __aenter__(self) -> Self:
        app = web.Application(client_max_size=10_000_000)
        app.add_routes([web.route("*", "/{path:.*}", self._answer)])
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._runner.cleanup()

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        commands = json.loads(body)["commands"] if body else []
        cut = request.transport.abort if request.transport else None
        seen = Seen(request.path, dict(request.headers), body, commands, asyncio.get_running_loop().time(), cut)
        self.seen.append(seen)
        self._active += 1
        self.most = max(self.most, self._active)
        try:
            answer = self.script(seen)
            return answer if isinstance(answer, web.StreamResponse) else await answer
        finally:
            self._active -= 1
