"""
The queues of a schema in PostgreSQL, and what several clients see of them.
"""

from collections.abc import AsyncIterator, Sequence

import asyncpg
import pytest
from helpers.postgres_storage import OpenPostgres

from exponea_async import PostgresSettings
from exponea_async.errors import SchemaError
from exponea_async.storage.base import Record, Settlement
from exponea_async.storage.postgres.queues import QueueCatalog, QueueSummary, list_queues

NOW = 1_767_225_600.0
LEASE = 60.0


@pytest.fixture
def settings(postgres_schema: str) -> PostgresSettings:
    return PostgresSettings(schema=postgres_schema)


@pytest.fixture
async def catalog(postgres_url: str, settings: PostgresSettings) -> AsyncIterator[QueueCatalog]:
    catalog = QueueCatalog(postgres_url, settings, 60.0)
    yield catalog
    await catalog.aclose()


def numbers(found: Sequence[QueueSummary]) -> list[tuple[str, int, int, int, int]]:
    """Return the name of each queue with the numbers of records, leases, dead letters and clients."""
    return [(each.name, each.waiting, each.leased, each.dead, each.clients) for each in found]


async def test_a_route_of_another_client(open_postgres: OpenPostgres) -> None:
    """A client that writes nothing leases the records of a route that another client has created after its start."""
    reader, writer = await open_postgres(queue="shop"), await open_postgres(queue="shop")
    assert await reader.lease(10, LEASE, NOW) == []
    await writer.write([Record("new", b"{}", NOW)])
    assert [(each.route, each.body) for each in await reader.lease(10, LEASE, NOW)] == [("new", b"{}")]


async def test_the_queues_of_a_schema(open_postgres: OpenPostgres, catalog: QueueCatalog) -> None:
    """Each queue is listed with its numbers, also an empty one; a queue that appears later is found, too."""
    assert await catalog.find() == []
    storage = await open_postgres(queue="shop@eu")
    assert numbers(await catalog.find()) == [("shop@eu", 0, 0, 0, 1)]
    await storage.write([Record("r", b"{}", NOW) for _ in range(3)])
    leased = await storage.lease(2, LEASE, NOW)
    await storage.settle([Settlement((leased[0].id,), "dead", reason="refused")])
    await open_postgres(queue="another")
    assert numbers(await catalog.find()) == [("another", 0, 0, 0, 1), ("shop@eu", 2, 1, 1, 1)]


async def test_a_wiped_queue_is_empty(open_postgres: OpenPostgres, catalog: QueueCatalog) -> None:
    """After everything of a queue was deleted, it has no records."""
    storage = await open_postgres(queue="shop")
    await storage.write([Record("r", b"{}", NOW)])
    await storage.wipe()
    assert numbers(await catalog.find()) == [("shop", 0, 0, 0, 1)]


async def test_a_connection_of_the_application(
    open_postgres: OpenPostgres, postgres_url: str, settings: PostgresSettings
) -> None:
    """The queues can be listed on any connection."""
    await open_postgres(queue="shop")
    connection = await asyncpg.connect(postgres_url)
    assert numbers(await list_queues(connection, settings.schema)) == [("shop", 0, 0, 0, 1)]
    await connection.close()


async def test_a_schema_that_must_not_be_created(postgres_url: str, postgres_schema: str) -> None:
    """Without the right to migrate, a missing schema is an error, and looking again finds one that was created."""
    catalog = QueueCatalog(postgres_url, PostgresSettings(schema=postgres_schema, migrate=False), 60.0)
    with pytest.raises(SchemaError, match="db init"):
        await catalog.find()
    other = QueueCatalog(postgres_url, PostgresSettings(schema=postgres_schema), 60.0)
    assert await other.find() == []
    await other.aclose()
    assert await catalog.find() == []
    await catalog.aclose()
