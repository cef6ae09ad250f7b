"""
A gateway between clients and a sandbox, which holds requests or responses until a test releases them.
"""

import asyncio
import re
from types import TracebackType
from typing import Self

import aiohttp
from aiohttp import web

from helpers.local_server import LocalServer

#: The headers that are forwarded.
REQUEST_HEADERS = ("Authorization", "Content-Type", "Content-Encoding")
RESPONSE_HEADERS = ("Content-Type", "Retry-After")


class Gateway(LocalServer):
    """
    An HTTP proxy of a sandbox; an async context manager.

    Args:
        target: The base URL of the sandbox.

    Attributes:
        url: The base URL of the gateway.
        held: The requests or responses that were held since the last `hold`, oldest first; setting one releases it.
    """

    auto_decompress = False

    def __init__(self, target: str) -> None:
        super().__init__()
        self.held: list[asyncio.Event] = []
        self._target = target
        self._holds_requests = self._holds_responses = False
        self._paths = re.compile("")

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(auto_decompress=False)
        return await super().__aenter__()

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.release()
        await super().__aexit__(exc_type, exc, traceback)
        await self._session.close()

    def hold(self, paths: str = "", *, responses: bool = False) -> None:
        """
        Hold requests before they reach the sandbox, or its responses.

        Args:
            paths: Holds only those in whose path this regular expression is found.
            responses: Whether the responses are held instead of the requests.
        """
        self._holds_requests, self._holds_responses = not responses, responses
        self._paths, self.held = re.compile(paths), []

    def release(self) -> None:
        """Forward all that is held, and hold nothing more."""
        self._holds_requests = self._holds_responses = False
        for each in self.held:
            each.set()

    async def handle(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        await self._wait(request, is_holding=self._holds_requests)
        headers = {name: request.headers[name] for name in REQUEST_HEADERS if name in request.headers}
        url = self._target + request.raw_path
        try:
            async with self._session.request(request.method, url, data=body, headers=headers) as response:
                content = await response.read()
        except aiohttp.ClientError:
            # The sandbox has dropped the connection.
            if request.transport is not None:
                request.transport.abort()
            return web.Response(status=502)
        await self._wait(request, is_holding=self._holds_responses)
        headers = {name: response.headers[name] for name in RESPONSE_HEADERS if name in response.headers}
        return web.Response(status=response.status, body=content, headers=headers)

    async def _wait(self, request: web.Request, *, is_holding: bool) -> None:
        if is_holding and self._paths.search(request.path):
            released = asyncio.Event()
            self.held.append(released)
            await released.wait()
