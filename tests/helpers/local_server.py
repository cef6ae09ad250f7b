"""
A local HTTP server for tests.
"""

import ssl
from abc import ABC, abstractmethod
from types import TracebackType
from typing import ClassVar, Self

from aiohttp import web


class LocalServer(ABC):
    """
    An HTTP server on a free port of 127.0.0.1 while it is entered; a subclass responds to all requests.

    Attributes:
        url: Its address.
        max_body: Maximum size of a request body, in bytes.
        auto_decompress: Whether request bodies are decompressed.
        tls: The TLS settings, if it is to be reached by https; set before it is entered.
    """

    max_body: ClassVar[int] = 100_000_000
    auto_decompress: ClassVar[bool] = True

    def __init__(self) -> None:
        self.url = ""
        self.tls: ssl.SSLContext | None = None

    @abstractmethod
    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Respond to a request."""

    async def __aenter__(self) -> Self:
        app = web.Application(client_max_size=self.max_body)
        app.add_routes([web.route("*", "/{path:.*}", self.handle)])
        self._runner = web.AppRunner(app, access_log=None, auto_decompress=self.auto_decompress, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0, ssl_context=self.tls).start()
        self.url = f"{'https' if self.tls else 'http'}://127.0.0.1:{self._runner.addresses[0][1]}"
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._runner.cleanup()
