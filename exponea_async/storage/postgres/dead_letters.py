"""
Maintaining the dead letters and the routes.
"""

import time
from collections.abc import Iterable, Sequence

from exponea_async.storage.base import FIRST_PLAUSIBLE_TIME
from exponea_async.storage.postgres.connection import Connection, Connections
from exponea_async.storage.postgres.counters import MAINTENANCE_LANE, add_counts
from exponea_async.storage.postgres.leases import parse_ids
from exponea_async.storage.postgres.registration import Registration, encode_name
from exponea_async.storage.postgres.removal import DROPPED, REJECTED, mark, remove
from exponea_async.storage.postgres.schema import ROUTE_SHIFT
from exponea_async.storage.postgres.writes import ROW_SIZE

_OWNER = ("$1::integer", "$2::bigint", str(MAINTENANCE_LANE))
#: All dead letters of the queue where no ids are given.
_SELECTED = "queue = $1 AND ($3::bigint[] IS NULL OR id = ANY ($3::bigint[]))"

_COUNT_REVIVED = add_counts(
    "letter", *_OWNER, waiting="count(*)", leased="count(*)", dead="-count(*)", size="sum(size)"
)
#: Revived records are due at once.
REVIVE = f"""
    WITH letter AS (
        DELETE FROM {{s}}.dead WHERE {_SELECTED} RETURNING id, body, octet_length(body) + {ROW_SIZE} AS size
    ),
    revived AS (INSERT INTO {{s}}.record (id, at, body) SELECT id, $4, body FROM letter),
    due AS (INSERT INTO {{s}}.taken (id, route, due) SELECT id, id >> {ROUTE_SHIFT}, 0 FROM letter),
    counted AS ({_COUNT_REVIVED})
    SELECT count(*) FROM letter
"""
PURGE = f"""
    WITH letter AS (DELETE FROM {{s}}.dead WHERE {_SELECTED} RETURNING id),
    marked AS ({mark("letter", '$4::"char"')}),
    counted AS ({add_counts("letter", *_OWNER, dead="-count(*)")})
    SELECT count(*) FROM letter
"""
BEYOND = "SELECT id FROM {s}.dead WHERE queue = $1 ORDER BY died_at DESC, id DESC OFFSET $2"
OLD = "SELECT id FROM {s}.dead WHERE queue = $1 AND died_at >= $2 AND died_at < $3"
BY_AGE = "SELECT id FROM {s}.dead WHERE id = ANY ($1::bigint[]) ORDER BY died_at, id"
RENAME = "UPDATE {s}.route SET name = $3 WHERE queue = $1 AND name = $2"
WAITING_IDS = f"""
    SELECT r.id FROM {{s}}.route AS o JOIN {{s}}.record AS r
        ON r.id >= o.id::bigint << {ROUTE_SHIFT} AND r.id < (o.id::bigint + 1) << {ROUTE_SHIFT}
        WHERE o.queue = $1 AND o.name = ANY ($2::bytea[]) LIMIT $3
"""
#: Records that are deleted in one statement.
SLICE = 10_000


class DeadLetters:
    """
    Maintains the dead letters and the routes.

    Args:
        connections: The connections.
        registration: The client.
    """

    def __init__(self, connections: Connections, registration: Registration) -> None:
        self._connections = connections
        self._registration = registration

    async def revive(self, ids: Iterable[str] | None) -> int:
        """Put dead letters back into the queue, due at once; return their number."""
        return await self._on_letters(REVIVE, None if ids is None else parse_ids(ids), time.time())

    async def purge(self, ids: Iterable[str] | None) -> int:
        """Delete dead letters; return their number."""
        return await self._on_letters(PURGE, None if ids is None else parse_ids(ids), REJECTED)

    async def _on_letters(self, statement: str, ids: Sequence[int] | None, value: object) -> int:
        async def work(connection: Connection) -> int:
            return await self._run(connection, statement, ids, value)

        return await self._connections.change(work)

    async def _run(self, connection: Connection, statement: str, ids: Sequence[int] | None, value: object) -> int:
        registration = self._registration
        count: int = await connection.fetchval(
            self._connections.sql(statement), registration.queue, registration.client, ids, value
        )
        return count

    async def prune(self, max_count: int | None, before: float) -> tuple[str, ...]:
        """Delete the oldest dead letters; return their ids, oldest first."""

        async def work(connection: Connection) -> tuple[str, ...]:
            sql, queue = self._connections.sql, self._registration.queue
            rows = await connection.fetch(sql(OLD), queue, FIRST_PLAUSIBLE_TIME, before)
            if max_count is not None:
                rows += await connection.fetch(sql(BEYOND), queue, max_count)
            if not rows:
                return ()
            ordered = await connection.fetch(sql(BY_AGE), [row["id"] for row in rows])
            ids = [row["id"] for row in ordered]
            await self._run(connection, PURGE, ids, REJECTED)
            return tuple(map(str, ids))

        return await self._connections.change(work)

    async def rename_route(self, old: str, new: str) -> None:
        """Give the records of a route another one."""

        async def work(connection: Connection) -> None:
            queue = self._registration.queue
            await connection.execute(self._connections.sql(RENAME), queue, encode_name(old), encode_name(new))

        await self._connections.change(work)
        await self._registration.load_routes()

    async def drop_waiting(self, names: Iterable[str]) -> int:
        """Delete the records of some routes; return their number."""
        encoded = [encode_name(name) for name in names]
        total = 0
        while count := await self._connections.change(lambda connection: self._drop(connection, encoded)):
            total += count
        return total

    async def _drop(self, connection: Connection, names: Sequence[bytes]) -> int:
        sql, registration = self._connections.sql, self._registration
        rows = await connection.fetch(sql(WAITING_IDS), registration.queue, names, SLICE)
        ids = [row["id"] for row in rows]
        if not ids:
            return 0
        owner = registration.queue, registration.client, MAINTENANCE_LANE
        return await remove(connection, self._connections, ids, owner, DROPPED)
