"""
The command ``worker`` with many queues, and with queues that it can't serve.
"""

from collections.abc import AsyncIterator

import asyncpg
import pytest
from helpers.clients import PROJECT, SOMEONE
from helpers.waiting import until
from helpers.workers import Workers

from exponea_async import Event, Exponea
from exponea_async.sandbox import Sandbox

MANY = 60


@pytest.fixture
async def connection(postgres_url: str) -> AsyncIterator[asyncpg.Connection]:
    opened = await asyncpg.connect(postgres_url)
    yield opened
    await opened.close()


async def create_queues(connection: asyncpg.Connection, schema: str, *names: str) -> None:
    """Create queues as another program may, with whatever names."""
    statement = f"INSERT INTO {schema}.queue (name, generation) SELECT u, 5 FROM unnest($1::text[]) AS u"
    await connection.execute(statement, list(names))


async def track(client: Exponea, name: str) -> None:
    await client.for_customer(SOMEONE).track_event(Event(name))


async def test_queues_that_no_client_can_have(
    workers: Workers, sandbox: Sandbox, connection: asyncpg.Connection, postgres_schema: str
) -> None:
    """A queue whose name is not that of a client is left alone with a warning, and the others are served."""
    producer = await workers.producer(app_group="eu")
    await track(producer, "first")
    names = f"{PROJECT}@", f"{PROJECT}@ ", f"{PROJECT}@{'x' * 600}"
    await create_queues(connection, postgres_schema, *names)
    worker = await workers.start_ready()
    await until(lambda: len(sandbox.engine.events(PROJECT)) == 1)

    assert await worker.metric("worker_queues") == 1
    assert [await worker.metric("worker_unserved", queue=name) for name in names] == [0, 0, 0]
    assert await worker.stop() == 0
    warnings = [line for line in worker.log.splitlines() if "no client can have it" in line]
    assert len(warnings) == 3
    assert "EXPONEA_OTHER_PROJECTS" not in worker.log


async def test_connections(
    workers: Workers, sandbox: Sandbox, connection: asyncpg.Connection, postgres_schema: str
) -> None:
    """The queues of a worker share their connections, so their number does not matter to the server."""
    producer = await workers.producer(app_group="z")
    await create_queues(connection, postgres_schema, *(f"{PROJECT}@{number}" for number in range(MANY)))
    worker = await workers.start_ready(POSTGRES_MAX_CONNECTIONS="2")
    await worker.wait_for("worker_queues", lambda value: value == MANY + 1)
    # That of the last queue in their order, which is not among those with a connection for notifications.
    await track(producer, "last")
    await until(lambda: len(sandbox.engine.events(PROJECT)) == 1)

    used = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%' || $1 || '%' AND pid <> pg_backend_pid()"
    assert await connection.fetchval(used, postgres_schema) <= 4 * 2 + 8 + 5
    assert await worker.stop() == 0
