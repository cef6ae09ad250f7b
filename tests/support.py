"""
What the tests of the client share: a platform that follows a script, and patience.
"""

import asyncio
import importlib.util
import json
import sys
import time
from collections.abc import Awaitable, Callable, Mapping
from types import ModuleType, TracebackType
from typing import Any, Protocol, Self

import pytest
from aiohttp import web
from attrs import frozen

from exponea_async import Configuration, DeliveryEvent, Event, Exponea, Hooks
from exponea_async._pipeline.commands import read_command

PROJECT = "shop"
#: A customer, of whom nothing is tracked but what a test tracks.
SOMEONE = {"registered": "someone"}


class Configure(Protocol):
    """Makes the settings of a client of the sandbox; each test's clients share one SQLite file."""

    def __call__(self, **settings: Any) -> Configuration: ...


class Connect(Protocol):
    """
    Starts a client of the sandbox, which is closed after the test, uploading nothing.

    Its verbs are about a customer when nothing is bound; with `device` they are about the default device, which tracks
    its coming to life, too.
    """

    async def __call__(self, *, hooks: Hooks | None = None, device: bool = False, **settings: Any) -> Exponea: ...


def speak_of(ids: Mapping[str, str], client: Exponea, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a client's verbs be about a customer when nothing is bound, in whatever task."""
    monkeypatch.setattr(client, "_default", client.for_customer(ids))


async def until(condition: Callable[[], bool], seconds: float = 20.0) -> None:
    """Wait until something holds true."""
    end = asyncio.get_running_loop().time() + seconds
    while not condition():
        if asyncio.get_running_loop().time() > end:
            pytest.fail("It never held true.")
        await asyncio.sleep(0.005)


def numbered(count: int, start: int = 0) -> list[Event]:
    """Make events that tell each other apart by a number."""
    return [Event("ping", {"number": number}) for number in range(start, start + count)]


class Heard(list[DeliveryEvent]):
    """A listener that keeps what it hears."""

    def __call__(self, notice: DeliveryEvent) -> None:
        """Hear."""
        self.append(notice)

    def kinds(self) -> list[str]:
        """Tell the kinds of what was heard."""
        return [notice.kind for notice in self]


@frozen
class Seen:
    """
    A request as a scripted platform saw it.

    Attributes:
        path: Its path.
        headers: Its headers.
        commands: The commands in it.
        at: When it came, as the event loop's time.
        cut: Cuts its connection.
    """

    path: str
    headers: Mapping[str, str]
    commands: list[dict[str, Any]]
    at: float
    cut: Callable[[], None] | None = None

    @property
    def names(self) -> list[Any]:
        """Tell the numbers of its events, in order."""
        return [command["data"]["properties"].get("number") for command in self.commands]

    def accept(self) -> web.Response:
        """Answer that all of it was accepted."""
        return self.answer([None] * len(self.commands))

    def answer(self, errors: list[str | None]) -> web.Response:
        """Answer with an error, or None, for each command."""
        results = [
            {"command_id": command["command_id"], "success": error is None, **({"errors": [error]} if error else {})}
            for command, error in zip(self.commands, errors, strict=True)
        ]
        return web.json_response({"success": True, "results": results})


Script = Callable[[Seen], web.StreamResponse | Awaitable[web.StreamResponse]]


class Scripted:
    """
    A platform that answers by a script, an async context manager; for answers that the sandbox never gives.

    Attributes:
        script: Answers a request.
        seen: The requests so far.
        most: How many requests were under way at once, at the most.
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
        seen = Seen(request.path, dict(request.headers), commands, asyncio.get_running_loop().time(), cut)
        self.seen.append(seen)
        self._active += 1
        self.most = max(self.most, self._active)
        try:
            answer = self.script(seen)
            return answer if isinstance(answer, web.StreamResponse) else await answer
        finally:
            self._active -= 1


async def kept(client: Exponea) -> list[dict[str, Any]]:
    """Tell the data of what waits in a client's queue, in order: what will go over the wire."""
    return [read_command(record.body)["data"] for record in await client._storage.waiting(100_000)]


def copy_of(name: str, *, without: str = "") -> ModuleType:
    """Load a copy of a module of its own, one that does not find a library where one is named."""
    spec = importlib.util.find_spec(name)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        if without:
            patch.setitem(sys.modules, without, None)
        spec.loader.exec_module(module)
    return module


class Ticking:
    """
    Tells how long others would have waited for the event loop at the most, within a block.

    It counts the time that the loop's own thread was computing in one go, so that a busy machine changes nothing.
    """

    def __init__(self) -> None:
        self.gap = 0.0

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._tick())
        await asyncio.sleep(0)
        return self

    async def __aexit__(self, *_: object) -> None:
        await asyncio.sleep(0.002)
        self._task.cancel()

    async def _tick(self) -> None:
        last = time.thread_time()
        while True:
            await asyncio.sleep(0.001)
            last, before = time.thread_time(), last
            self.gap = max(self.gap, last - before)
