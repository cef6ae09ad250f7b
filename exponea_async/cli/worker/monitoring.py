"""
The HTTP server with the health and the metrics of a worker.
"""

import logging

from aiohttp import web

from exponea_async._internal.printable import printable
from exponea_async.cli.worker.metrics import CONTENT_TYPE, render
from exponea_async.cli.worker.service import Worker

LOG = logging.getLogger("exponea_async")

#: How long closing waits for a request under way, in seconds.
CLOSE_TIMEOUT = 1.0


class MonitoringServer:
    """
    Serves ``/healthz``, ``/readyz`` and ``/metrics``.

    Args:
        worker: The worker.
        host: The address to listen on.
        port: The port; 0 for a free one.
    """

    def __init__(self, worker: Worker, host: str, port: int) -> None:
        self._worker = worker
        self._host, self._port = host, port
        app = web.Application()
        app.add_routes(
            [
                web.get("/healthz", self._health),
                web.get("/readyz", self._readiness),
                web.get("/metrics", self._metrics),
            ]
        )
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=CLOSE_TIMEOUT)

    @property
    def url(self) -> str:
        """The address, once the server is started."""
        host, port = self._runner.addresses[0][:2]
        return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"

    async def start(self) -> None:
        """
        Start to listen.

        Raises:
            OSError: The address can't be used.
        """
        await self._runner.setup()
        await web.TCPSite(self._runner, self._host, self._port).start()

    async def aclose(self) -> None:
        """Stop to listen."""
        await self._runner.cleanup()

    async def _health(self, _: web.Request) -> web.Response:
        if self._worker.is_alive:
            return web.Response(text="ok\n")
        return web.Response(status=503, text="the task that looks for queues hangs\n")

    async def _readiness(self, _: web.Request) -> web.Response:
        problems = self._worker.problems
        if not problems:
            return web.Response(text="ok\n")
        return web.Response(status=503, text="".join(f"{printable(each)}\n" for each in problems))

    async def _metrics(self, _: web.Request) -> web.Response:
        return web.Response(body=render(self._worker).encode(), headers={"Content-Type": CONTENT_TYPE})
