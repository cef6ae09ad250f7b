"""
Servers with several worker processes on one queue file, as in production: their workers are ended while they serve.

Set the variable PRODUCTION_REQUESTS for more requests.
"""

import asyncio
import os
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from helpers.app_server import Visits, app_server, customer_of
from helpers.clients import PROJECT, Configure

from exponea_async import Exponea
from exponea_async.sandbox import Sandbox
from exponea_async.testing import pending_records

REQUESTS = int(os.environ.get("PRODUCTION_REQUESTS", "600"))
ENDINGS = 4

UVICORN = ("uvicorn", "--port", "0", "--workers", "2", "--no-access-log")
GUNICORN = ("gunicorn", "--bind", "127.0.0.1:0", "--workers", "2", "--preload")
SERVERS = {
    "FastAPI, Uvicorn": (*UVICORN, "fastapi_app:app"),
    "FastAPI, Gunicorn": (*GUNICORN, "--worker-class", "uvicorn_worker.UvicornWorker", "fastapi_app:app"),
    "Django, Uvicorn": (*UVICORN, "django_app:asgi"),
    "Django, Gunicorn": (*GUNICORN, "--threads", "4", "django_app:wsgi"),
    "aiohttp, Gunicorn": (*GUNICORN, "--worker-class", "aiohttp.GunicornWebWorker", "aiohttp_app:app"),
}


@pytest.fixture
def env(sandbox: Sandbox, tmp_path: Path) -> Mapping[str, str]:
    return {
        "EXPONEA_PROJECT_TOKEN": PROJECT,
        "EXPONEA_AUTHORIZATION_TOKEN": "key",
        "EXPONEA_BASE_URL": sandbox.url,
        "EXPONEA_STORAGE": str(tmp_path / "queue.sqlite"),
    }


def numbers(events: Any) -> list[int]:
    return [event.properties["number"] for event in events]


class TestWorkers:
    @pytest.mark.parametrize("command", SERVERS.values(), ids=SERVERS)
    async def test_nothing_is_lost(
        self, command: tuple[str, ...], configure: Configure, sandbox: Sandbox, env: Mapping[str, str], tmp_path: Path
    ) -> None:
        """
        Workers are killed and told to end in turn. The event of each answered request is at the platform, once and with
        its customer, or in the file, from which it is delivered.
        """
        async with app_server(tmp_path, *command, env=env) as server:
            visits = Visits(f"{server.url}/{'async/' if 'django_app:asgi' in command else ''}visit/")
            made = asyncio.create_task(visits.make(REQUESTS))
            sent = await visits.end_workers(REQUESTS, ENDINGS, made.done)
            await made
            await server.stop()
        delivered = numbers(sandbox.engine.events())
        async with Exponea(configure(flush_mode="MANUAL")) as client:
            waiting = numbers(await pending_records(client))
            result = await client.flush_data(60)
        events = sandbox.engine.events()

        assert sent == [signal.SIGKILL, signal.SIGTERM] * (ENDINGS // 2)
        assert visits.errors == []
        assert visits.answered - set(delivered) - set(waiting) == set()
        assert result.remaining == 0
        assert visits.answered <= set(numbers(events)) <= visits.answered | visits.failed
        assert len(events) == len(set(numbers(events)))
        assert all(event.customer_ids == {"registered": customer_of(event.properties["number"])} for event in events)

    @pytest.mark.parametrize("name", ["FastAPI, Uvicorn", "Django, Gunicorn"])
    async def test_shutdown(self, name: str, sandbox: Sandbox, env: Mapping[str, str], tmp_path: Path) -> None:
        """A server that is told to end uploads what waits, and leaves nothing in the file."""
        # Events wait for company for a minute, or for the end.
        async with app_server(tmp_path, *SERVERS[name], env={**env, "EXPONEA_UPLOAD_LINGER": "60"}) as server:
            visits = Visits(f"{server.url}/visit/")
            await visits.make(20, concurrency=2)
            # A worker without events of its own takes those of the others when it looks at the queue.
            while len(sandbox.engine.events()) == len(visits.answered):
                await visits.make(len(visits.answered) + 1, concurrency=1)
            code = await server.stop()

        assert set(numbers(sandbox.engine.events())) == visits.answered
        assert code in (0, -signal.SIGTERM)
        assert "Traceback" not in server.log.read_text()
