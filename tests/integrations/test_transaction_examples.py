"""
The examples whose events are part of the transactions of their database.
"""

import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import httpx
import psycopg
import pytest
from helpers.clients import Configure
from helpers.postgres_server import StartPostgres

from exponea_async.sandbox import Sandbox

EXAMPLES = Path(__file__).parent.parent.parent / "examples"
sys.path.insert(0, str(EXAMPLES))

import fastapi_orders  # noqa: E402 - found only now


@pytest.fixture
def database(own_postgres: StartPostgres) -> str:
    """The URL of a database that no other test uses: the examples create tables."""
    return own_postgres().url


async def test_fastapi_and_sqlalchemy(database: str, configure: Configure, sandbox: Sandbox) -> None:
    """What could not be ordered leaves neither an order nor an event."""
    app = fastapi_orders.create_app(configure(storage=database))
    statuses: Counter[int] = Counter()
    transport = httpx.ASGITransport(app)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://shop") as browser,
    ):
        for product in ("mug", "mug", "plate"):
            response = await browser.post(f"/orders?product={product}&email=jane@example.com")
            statuses[response.status_code] += 1
    with psycopg.connect(database) as connection:
        orders = connection.execute("SELECT product FROM example_orders").fetchall()

    assert statuses == {200: 1, 409: 2}
    assert orders == [("mug",)]
    (event,) = sandbox.engine.events()
    assert (event.event_type, event.properties["product"]) == ("purchase", "mug")


def test_django(database: str) -> None:
    """Each order has its event, and those that failed have neither, also within a savepoint."""
    done = subprocess.run(
        [sys.executable, EXAMPLES / "django_orders.py"],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        env={**os.environ, "EXPONEA_STORAGE": database},
    )

    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == [
        "There are no teapots.",
        "There are no teapots.",
        "orders bowl mug plate",
        "events bowl mug plate",
    ]
