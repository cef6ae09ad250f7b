"""
What the middleware and one event add to a request, against the same application without them, in the same run.

The applications are called in memory, so that neither the network nor a server hides what is added.
"""

import asyncio
import gc
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import bench
from fastapi import FastAPI

from exponea_async import Exponea
from exponea_async.integrations.asgi import ExponeaMiddleware, RequestProperties

Application = Callable[[Any, Any, Any], Awaitable[None]]

# Many short rounds, so that some of them are not interrupted by what else the machine does.
REQUESTS = 200
ROUNDS = bench.size(70, 1)
CONCURRENT = 50
#: The middleware alone, as a share of a request of FastAPI that does nothing.
TARGET = 0.25

COOKIE = b"session=abcdef0123456789; xnpe_bench=0b5a1f2e-visitor; theme=dark"
HEADERS = [
    (b"host", b"shop.example"),
    (b"user-agent", b"Mozilla/5.0 (X11; Linux x86_64; rv:143.0) Gecko/20100101 Firefox/143.0"),
    (b"accept", b"text/html,application/xhtml+xml"),
    (b"referer", b"https://shop.example/mugs"),
    (b"x-forwarded-for", b"203.0.113.9, 198.51.100.1"),
    (b"cookie", COOKIE),
]
EVERYTHING = RequestProperties(ip=1, user_agent=True, location=["q"], referrer=True, utm=True)


def scope() -> dict[str, Any]:
    return {
        "type": "http",
        "method": "GET",
        "path": "/",
        "raw_path": b"/",
        "root_path": "",
        "scheme": "http",
        "http_version": "1.1",
        "query_string": b"q=mugs&utm_source=mail",
        "headers": HEADERS,
        "client": ("192.0.2.1", 4711),
        "server": ("127.0.0.1", 80),
    }


async def receive() -> dict[str, Any]:
    return {"type": "http.request", "body": b"", "more_body": False}


async def send(_: Any) -> None:
    return


async def seconds_per_request(app: Application, concurrent: int) -> float:
    """Return the time of a request: with many at once, the time of all divided by their number."""

    async def some() -> None:
        for _ in range(REQUESTS // concurrent):
            await app(scope(), receive, send)

    gc.collect()
    started = time.perf_counter()
    await asyncio.gather(*(some() for _ in range(concurrent)))
    return (time.perf_counter() - started) / REQUESTS


async def fastest(apps: dict[str, Application], concurrent: int = 1) -> dict[str, float]:
    """Measure applications in turn, several times, and return the fastest, which other load has affected least."""
    measured: dict[str, list[float]] = {name: [] for name in apps}
    for _ in range(ROUNDS):
        for name, app in apps.items():
            measured[name].append(await seconds_per_request(app, concurrent))
    return {name: min(values) for name, values in measured.items()}


def create_app(exponea: Exponea, *, tracks: bool) -> FastAPI:
    app = FastAPI()

    @app.get("/")
    async def handle() -> dict[str, str]:
        if tracks:
            await exponea.track_event(bench.event(7))
        return {"status": "ok"}

    return app


async def empty(_scope: Any, _receive: Any, _send: Any) -> None:
    """Do nothing, so that only the middleware is measured."""


def wrapped(exponea: Exponea, app: Application, properties: RequestProperties | None = None) -> Application:
    return ExponeaMiddleware(app, exponea, customer=lambda scope: scope.get("user"), properties=properties)


def print_rows(measured: dict[str, float]) -> float:
    """Print the applications against the first one; return what the second one adds to it, as a share."""
    bare = next(iter(measured.values()))
    for name, seconds in measured.items():
        added = "" if seconds == bare else f"{(seconds - bare) * 1e6:+.1f} µs"
        bench.row(name, f"{seconds * 1e6:.1f} µs", f"{seconds / bare:.2f} x", added)
    return list(measured.values())[1] / bare - 1


async def main(folder: Path) -> None:
    async with Exponea(bench.configuration(folder / "queue.sqlite", default_device=False)) as exponea:
        bare, tracking = create_app(exponea, tracks=False), create_app(exponea, tracks=True)
        apps: dict[str, Application] = {
            "FastAPI, a handler that does nothing": bare,
            "  with the middleware": wrapped(exponea, bare),
            "  with the middleware and one event": wrapped(exponea, tracking),
            "  the same, with all properties of the request": wrapped(exponea, tracking, EVERYTHING),
        }
        bench.headline("Time of a call of an ASGI application that does nothing at all")
        print_rows(await fastest({"the application": empty, "  with the middleware": wrapped(exponea, empty)}))
        bench.headline("Time of a request in memory, one after the other")
        share = print_rows(await fastest(apps))
        bench.headline(f"Time per request with {CONCURRENT} at the same time, whose events share commits")
        print_rows(await fastest(apps, CONCURRENT))
    if share > bench.size(TARGET, 100.0):
        raise SystemExit(f"The middleware adds {share:.0%}, more than {TARGET:.0%}.")


if __name__ == "__main__":
    with bench.folder() as path:
        asyncio.run(main(path))
