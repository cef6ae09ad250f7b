"""
What tracking adds to the requests of a web server: the same application under Uvicorn with one worker, over HTTP,
without the SDK, with its middleware, and with one event in each request. The events are uploaded meanwhile.
"""

import asyncio
import os
import socket
import sys
import time
from collections.abc import AsyncIterator, MutableMapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import bench
import sink

from exponea_async import Configuration, Exponea
from exponea_async.integrations.asgi import ClientLifespan, ExponeaMiddleware

NAMES = {"without": "without the SDK", "middleware": "with the middleware", "tracking": "with one event each"}
KINDS = tuple(NAMES)
REQUESTS = bench.size(1_000, 50)
ROUNDS = bench.size(3, 1, 5)
CALLERS = (1, 16)

Scope = MutableMapping[str, Any]


class Page:
    """An ASGI application that responds with a short text, and may track an event."""

    def __init__(self, exponea: Exponea | None) -> None:
        self._exponea = exponea

    async def __call__(self, scope: Scope, receive: Any, send: Any) -> None:  # noqa: ARG002 - as ASGI has it
        if scope["type"] != "http":
            raise NotImplementedError
        if self._exponea is not None:
            await self._exponea.track_event(bench.event(1))
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"5")]})
        await send({"type": "http.response.body", "body": b"hello"})


def application() -> Any:
    """Return the application that the environment names; Uvicorn calls this."""
    kind = os.environ["BENCH_KIND"]
    if kind == "without":
        return Page(None)
    exponea = Exponea(Configuration.from_env())
    page = Page(exponea if kind == "tracking" else None)
    return ClientLifespan(ExponeaMiddleware(page, exponea, customer=lambda _: "jane@example.com"), exponea)


@asynccontextmanager
async def served(kind: str, folder: Path, sink_url: str) -> AsyncIterator[str]:
    """Run the application under Uvicorn, and yield its address."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    environment = {
        **os.environ,
        "BENCH_KIND": kind,
        "EXPONEA_PROJECT_TOKEN": "bench",
        "EXPONEA_AUTHORIZATION_TOKEN": "key",
        "EXPONEA_BASE_URL": sink_url,
        "EXPONEA_STORAGE": str(folder / "queue.sqlite"),
        "EXPONEA_UPLOAD_REQUESTS_PER_SECOND": "1000000",
        "PYTHONPATH": os.pathsep.join(sys.path),
    }
    command = ["uvicorn", "latency:application", "--factory", "--port", str(port), "--log-level", "warning"]
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", *command, "--no-access-log", env=environment, cwd=Path(__file__).parent
    )
    try:
        yield f"http://127.0.0.1:{port}/"
    finally:
        process.terminate()
        await process.wait()


async def measure(url: str, callers: int) -> list[float]:
    """Return how long requests take, in seconds, on connections that are used again."""
    taken: list[float] = []
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=callers)) as session:
        await respond(session, url)

        async def call() -> None:
            while len(taken) < REQUESTS:
                started = time.perf_counter()
                async with session.get(url) as response:
                    await response.read()
                taken.append(time.perf_counter() - started)

        await asyncio.gather(*(call() for _ in range(callers)))
    return taken


async def respond(session: aiohttp.ClientSession, url: str) -> None:
    """Wait until the server responds."""
    for _ in range(3_000):
        try:
            async with session.get(url) as response:
                assert response.status == 200
                return
        except aiohttp.ClientConnectionError:
            await asyncio.sleep(0.01)
    raise TimeoutError(url)


async def compare(sink_url: str) -> dict[tuple[str, int], list[float]]:
    """Measure all kinds in turn, several times, so that other load affects all of them."""
    taken: dict[tuple[str, int], list[float]] = {(kind, callers): [] for kind in KINDS for callers in CALLERS}
    for _ in range(ROUNDS):
        for kind in KINDS:
            with bench.folder() as folder:
                async with served(kind, folder, sink_url) as url:
                    for callers in CALLERS:
                        taken[kind, callers] += await measure(url, callers)
    return taken


def main() -> None:
    """Print the results."""
    bench.headline("The duration of a request: the median")
    with sink.running() as sink_url:
        taken = asyncio.run(compare(sink_url))
    for callers in CALLERS:
        base = bench.percentile(taken["without", callers], 0.5)
        for kind in KINDS:
            half, most = (bench.percentile(taken[kind, callers], share) for share in (0.5, 0.99))
            bench.row(f"{callers} callers, {NAMES[kind]}", f"{half * 1e6:,.0f} us", f"{half / base:.2f}")
            bench.row("  99th percentile", f"{most * 1e6:,.0f} us")


if __name__ == "__main__":
    main()
