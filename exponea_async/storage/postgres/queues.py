"""
The queues of a schema, for administrators and for a process that serves all of them.
"""

import asyncpg
from attrs import evolve, frozen

from exponea_async.config import PostgresSettings
from exponea_async.storage.postgres import schema as tables
from exponea_async.storage.postgres.connection import Connection, Connections
from exponea_async.storage.postgres.registration import GONE_AFTER

#: How many times as many connections as one client the process may have, whatever the number of queues is.
SHARED_FACTOR = 4

#: The counters of a wiped queue belong to routes that are no longer the queue's.
LIST_QUEUES = """
    SELECT q.name, coalesce(sum(t.waiting), 0)::bigint, coalesce(sum(t.leased), 0)::bigint,
            coalesce(sum(t.dead), 0)::bigint, coalesce(sum(t.size), 0)::bigint, (
                SELECT count(*) FROM {s}.client AS c WHERE c.queue = q.id
                    AND c.seen_at > clock_timestamp() - make_interval(secs => $1::float8)
            )
        FROM {s}.queue AS q LEFT JOIN ({s}.counter AS t JOIN {s}.route AS o ON o.id = t.route)
            ON t.queue = q.id AND o.queue = q.id
        GROUP BY q.id ORDER BY q.name
"""


@frozen
class QueueSummary:
    """
    A queue of a schema.

    Attributes:
        name: Its name: the token of the project, with ``@`` and the app group if there is one.
        waiting: The number of records in the queue, those that are leased included.
        leased: The number of those that are being sent, or are to be sent again later.
        dead: The number of dead letters.
        size: What the records take, in bytes.
        clients: The number of clients that have it open.
    """

    name: str
    waiting: int = 0
    leased: int = 0
    dead: int = 0
    size: int = 0
    clients: int = 0


async def list_queues(connection: Connection, schema: str) -> list[QueueSummary]:
    """
    Return all queues of a schema, by name.

    Args:
        connection: A connection of asyncpg.
        schema: The name of the schema, which exists.
    """
    rows = await connection.fetch(LIST_QUEUES.replace("{s}", schema), GONE_AFTER)
    return [QueueSummary(*row) for row in rows]


class QueueCatalog:
    """
    Lists the queues of a schema again and again, with connections that the clients of the queues share.

    With a pool for each queue, hundreds of queues would take all connections that the server has.

    Args:
        url: The URL of the database, or a pool.
        settings: The name of the schema, and whether it is created or migrated.
        timeout: How long a call waits for the database, in seconds.

    Attributes:
        location: The database and the schema, without secrets.
    """

    def __init__(self, url: str, settings: PostgresSettings, timeout: float) -> None:
        self._settings = settings
        shared = evolve(settings, max_connections=SHARED_FACTOR * settings.max_connections)
        self._connections = Connections(url, shared, durability="power", timeout=timeout)
        self._is_open = False
        self.location = f"{self._connections.location} (schema {settings.schema})"

    @property
    def pool(self) -> asyncpg.Pool:
        """
        The connections, once queues were looked for.

        Raises:
            StorageError: That was not done yet.
        """
        return self._connections.pool

    async def find(self) -> list[QueueSummary]:
        """
        Return all queues, by name; connect before, if that was not done yet.

        Raises:
            SchemaError: The schema is missing, or is that of another version.
            StorageError: The database can't be used.
        """
        if not self._is_open:
            await self._connections.open()
            self._is_open = True
        return await self._connections.attempt(self._find)

    async def _find(self) -> list[QueueSummary]:
        # The schema is looked at each time: it may have been migrated by another version meanwhile.
        async with self._connections.acquire() as connection:
            await tables.prepare(connection, self._settings.schema, may_migrate=self._settings.migrate)
        async with self._connections.transaction() as connection:
            return await list_queues(connection, self._settings.schema)

    async def aclose(self) -> None:
        """Close the connections; the clients that share them are closed."""
        self._is_open = False
        await self._connections.aclose()
