"""
Storages in PostgreSQL: fixtures that open them, and what is in their tables.
"""

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Protocol

import psycopg
import pytest
from attrs import frozen

from exponea_async.config import PostgresSettings
from exponea_async.errors import StorageError
from exponea_async.storage.postgres.storage import PostgresStorage
from helpers.database_proxy import DatabaseProxy
from helpers.waiting import until_succeeds

QUEUE = "shop"
#: How long a call waits for the database, in seconds, where a test is not about that limit.
PATIENCE = 60.0
#: The counters, and what they should be.
COUNTED = """
    SELECT coalesce(sum(waiting), 0)::bigint, coalesce(sum(leased), 0)::bigint, coalesce(sum(dead), 0)::bigint,
            coalesce(sum(size), 0)::bigint
        FROM {s}.counter AS t JOIN {s}.route AS o ON o.id = t.route AND o.queue = t.queue
        JOIN {s}.queue AS q ON q.id = o.queue AND q.name = %s
"""
RECOUNTED = """
    WITH o AS (SELECT route.id, q.id AS queue FROM {s}.route JOIN {s}.queue AS q ON q.id = queue AND q.name = %s)
    SELECT (SELECT count(*) FROM {s}.record AS r JOIN o ON o.id = r.id >> 44),
        (SELECT count(*) FROM {s}.taken AS t JOIN o ON o.id = t.route),
        (SELECT count(*) FROM {s}.dead AS d JOIN o ON o.id = d.id >> 44),
        (SELECT coalesce(sum(octet_length(r.body) + 80), 0)::bigint FROM {s}.record AS r JOIN o ON o.id = r.id >> 44)
"""
LOST = "SELECT count(*) FROM {s}.record WHERE NOT EXISTS (SELECT FROM {s}.route AS o WHERE o.id = record.id >> 44)"


@frozen
class Tables:
    """
    The tables of a schema.

    Attributes:
        url: The URL of the database.
        schema: The name of the schema.
    """

    url: str
    schema: str

    def fetch(self, statement: str, *values: object) -> list[tuple[Any, ...]]:
        """Return the rows of a statement, in which ``{s}`` is the name of the schema."""
        with psycopg.connect(self.url, autocommit=True) as connection:
            return connection.execute(statement.replace("{s}", self.schema).encode(), values or None).fetchall()

    def run(self, statement: str) -> None:
        """Run a statement that returns nothing."""
        with psycopg.connect(self.url, autocommit=True) as connection:
            connection.execute(statement.replace("{s}", self.schema).encode())

    def check_counters(self, queue: str = QUEUE) -> None:
        """Compare the counters of a queue with what is in the tables; no record may be without a route."""
        assert self.fetch(COUNTED, queue) == self.fetch(RECOUNTED, queue)
        assert self.fetch(LOST) == [(0,)]

    def bodies(self) -> list[str]:
        """Return the bodies of all records, sorted."""
        return sorted(bytes(body).decode() for (body,) in self.fetch("SELECT body FROM {s}.record"))


class OpenPostgres(Protocol):
    """Opens a storage in the test's schema; each is closed after the test."""

    async def __call__(self, url: str | None = None, *, queue: str = QUEUE, **settings: Any) -> PostgresStorage: ...


@pytest.fixture
def tables(postgres_url: str, postgres_schema: str) -> Tables:
    """The tables of the test's schema."""
    return Tables(postgres_url, postgres_schema)


@pytest.fixture
async def open_postgres(postgres_url: str, postgres_schema: str) -> AsyncIterator[OpenPostgres]:
    """Opens storages in the test's schema."""
    made: list[PostgresStorage] = []
    create = storage_creator(postgres_schema)

    async def make(url: str | None = None, *, queue: str = QUEUE, **settings: Any) -> PostgresStorage:
        if not made:
            # The tables are created first, however short the time limit is that the test sets.
            first = create(postgres_url, queue)
            await first.open()
            await first.aclose()
        storage = create(url or postgres_url, queue, **settings)
        made.append(storage)
        # Tried again where the time limit that the test sets is too short for a busy machine.
        await until_succeeds(storage.open, StorageError)
        return storage

    yield make
    for storage in made:
        await storage.aclose(1.0)


def storage_creator(schema: str) -> Callable[..., PostgresStorage]:
    """Return a function that creates storages in a schema."""

    def create(source: Any, queue: str = QUEUE, *, lock_timeout: float = PATIENCE, **settings: Any) -> PostgresStorage:
        postgres = PostgresSettings(schema=schema, **settings.pop("postgres", {}))
        return PostgresStorage(source, queue, settings=postgres, lock_timeout=lock_timeout, **settings)

    return create


async def reason(call: Callable[[], Awaitable[object]], expected: str) -> None:
    """
    Wait until a call, which must raise a StorageError each time, does so with a text in its message.

    The time limit of a call may end on a busy machine before the database has answered, and the error says that then.
    """
    for _ in range(20):
        with pytest.raises(StorageError) as caught:
            await call()
        if expected in str(caught.value):
            return
    pytest.fail(f"{expected!r} is not in {str(caught.value)!r}.")


@pytest.fixture
async def proxy(postgres_url: str) -> AsyncIterator[DatabaseProxy]:
    """A proxy in front of the database of the tests."""
    async with DatabaseProxy(postgres_url) as started:
        yield started
