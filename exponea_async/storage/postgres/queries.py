"""
Reading the queue and the states.
"""

import time
from collections.abc import Iterable
from math import inf

from exponea_async.errors import WipedFileError
from exponea_async.storage.base import DELETED_LETTER, DeadLetter, Pending, RecordStatus, State, Waiting, Watermark
from exponea_async.storage.postgres.capacity import Capacity
from exponea_async.storage.postgres.clock import ServerClock
from exponea_async.storage.postgres.connection import Connection, Connections
from exponea_async.storage.postgres.leases import parse_ids
from exponea_async.storage.postgres.registration import GENERATION, Registration
from exponea_async.storage.postgres.schema import ROUTE_SHIFT

#: The highest number of rows.
NO_LIMIT = (1 << 63) - 1
#: How many of the first records of each route are compared to find the oldest one: revived ones have old ids.
MAX_COMPARED = 1000
#: States whose activity is looked at in one statement.
SLICE = 1000
#: Records that are looked up in one statement.
FIND_SLICE = 10_000

FIND = f"""
    SELECT r.id, 'q'::"char" AS outcome, '' AS reason FROM {{s}}.record AS r
        WHERE r.id = ANY ($2::bigint[]) AND EXISTS (
            SELECT FROM {{s}}.route AS o WHERE o.id = (r.id >> {ROUTE_SHIFT}) AND o.queue = $1
        )
    UNION ALL
    SELECT d.id, 'l', d.reason FROM {{s}}.dead AS d WHERE d.id = ANY ($2::bigint[]) AND d.queue = $1
"""
FIND_MARKS = f"""
    SELECT u.id, m.outcome FROM unnest($2::bigint[]) AS u (id) CROSS JOIN LATERAL (
        SELECT last, outcome FROM {{s}}.mark WHERE first <= u.id ORDER BY first DESC LIMIT 1
    ) AS m JOIN {{s}}.route AS o ON o.id = (u.id >> {ROUTE_SHIFT}) AND o.queue = $1 WHERE m.last >= u.id
"""
WATERMARK = f"""
    SELECT o.id, (
        SELECT max(r.id) FROM {{s}}.record AS r
            WHERE r.id >= o.id::bigint << {ROUTE_SHIFT} AND r.id < (o.id::bigint + 1) << {ROUTE_SHIFT}
    ) FROM {{s}}.route AS o WHERE o.queue = $1
"""
REMAINING = f"""
    SELECT count(*) FROM (
        SELECT FROM unnest($1::bigint[], $2::bigint[]) AS u (route, last) CROSS JOIN LATERAL (
            SELECT FROM {{s}}.record WHERE id >= u.route << {ROUTE_SHIFT} AND id <= u.last LIMIT $3
        ) AS r LIMIT $3
    ) AS found
"""
COUNTS = """
    SELECT o.name, sum(t.waiting)::bigint AS waiting, sum(t.leased)::bigint AS leased, sum(t.dead)::bigint AS dead,
            sum(t.size)::bigint AS size
        FROM {s}.route AS o JOIN {s}.counter AS t ON t.route = o.id AND t.queue = $1 WHERE o.queue = $1 GROUP BY o.name
"""
OLDEST = f"""
    SELECT min(first.at) FROM {{s}}.route AS o CROSS JOIN LATERAL (
        SELECT r.at FROM {{s}}.record AS r
            WHERE r.id >= o.id::bigint << {ROUTE_SHIFT} AND r.id < (o.id::bigint + 1) << {ROUTE_SHIFT}
            ORDER BY r.id LIMIT {MAX_COMPARED}
    ) AS first WHERE o.queue = $1
"""
SIZE = """
    SELECT sum(pg_total_relation_size(('{s}.' || name)::regclass))::bigint
        FROM unnest(ARRAY['record', 'taken', 'dead', 'mark', 'state', 'counter', 'client']) AS u (name)
"""
WAITING = f"""
    SELECT r.id, o.name, r.body, r.at, t.failures, t.due, t.reason
        FROM {{s}}.route AS o CROSS JOIN LATERAL (
            SELECT id, at, body FROM {{s}}.record
                WHERE id >= o.id::bigint << {ROUTE_SHIFT} AND id < (o.id::bigint + 1) << {ROUTE_SHIFT}
                ORDER BY id LIMIT $2
        ) AS r LEFT JOIN {{s}}.taken AS t ON t.id = r.id WHERE o.queue = $1 ORDER BY r.at, r.id LIMIT $2
"""
DEAD = f"""
    SELECT d.id, o.name, d.body, d.at, d.died_at, d.reason
        FROM {{s}}.dead AS d JOIN {{s}}.route AS o ON o.id = (d.id >> {ROUTE_SHIFT})
        WHERE d.queue = $1 ORDER BY d.died_at DESC, d.id DESC LIMIT $2
"""
STATE = "SELECT value, version, active FROM {s}.state WHERE queue = $1 AND key = $2"
#: ``active_from`` is never later than the activity. It is raised here only, since it has an index, and the activity
#: changes with each event.
RAISE_LATE = """
    WITH late AS (
        SELECT key FROM {s}.state WHERE queue = $1 AND active_from < $2 AND active_from <> active
            ORDER BY active_from LIMIT $3 FOR UPDATE SKIP LOCKED
    ), raised AS (
        UPDATE {s}.state AS s SET active_from = s.active FROM late WHERE s.queue = $1 AND s.key = late.key RETURNING 1
    )
    SELECT count(*) FROM raised
"""
EXPIRED = """
    SELECT key, value, version, active FROM {s}.state
        WHERE queue = $1 AND active_from < $2 AND active < $2 ORDER BY active_from, key LIMIT $3
"""

_QUEUED = RecordStatus("queued")
_BY_OUTCOME = {
    b"d": RecordStatus("delivered"),
    b"r": RecordStatus("rejected", DELETED_LETTER),
    b"x": RecordStatus("dropped"),
}


class Queries:
    """
    Reads the queue and the states.

    Args:
        connections: The connections.
        registration: The client.
        clock: The clock of the server.
        capacity: The limits of the queue.
    """

    def __init__(
        self, connections: Connections, registration: Registration, clock: ServerClock, capacity: Capacity
    ) -> None:
        self._connections = connections
        self._registration = registration
        self._clock = clock
        self._capacity = capacity

    @property
    def _queue(self) -> int:
        return self._registration.queue

    async def find(self, ids: Iterable[str]) -> dict[str, RecordStatus]:
        """Return what became of records, by id."""
        since, numbers = time.monotonic(), parse_ids(ids)
        found: dict[str, RecordStatus] = {}
        # In parts, so that the event loop goes on between them.
        for start in range(0, len(numbers), FIND_SLICE):
            await self._find(numbers[start : start + FIND_SLICE], found, since)
        return found

    async def _find(self, numbers: list[int], found: dict[str, RecordStatus], since: float) -> None:
        # The marks second: a record that leaves the queue between the two statements has one by then.
        for key, outcome, reason in await self._connections.fetch(FIND, self._queue, numbers, since=since):
            found[str(key)] = _QUEUED if outcome == b"q" else RecordStatus("rejected", reason)
        missing = [number for number in numbers if str(number) not in found]
        if missing:
            for key, outcome in await self._connections.fetch(FIND_MARKS, self._queue, missing, since=since):
                found[str(key)] = _BY_OUTCOME[outcome]

    async def watermark(self) -> Watermark:
        """Return the last id of each route, by its number."""
        rows = await self._connections.fetch(WATERMARK, self._queue)
        return {str(route): str(last) for route, last in rows if last is not None}

    async def remaining(self, watermark: Watermark, skip: frozenset[str], at_most: int | None) -> int:
        """Return how many records at or below a watermark are still in the queue."""
        await self._registration.load_routes()
        names = self._registration.routes
        marks = [
            (int(route), int(last))
            for route, last in watermark.items()
            if int(route) in names and names[int(route)] not in skip
        ]
        if not marks:
            return 0
        routes, lasts = [route for route, _ in marks], [last for _, last in marks]
        limit = NO_LIMIT if at_most is None else at_most
        rows = await self._connections.fetch(REMAINING, routes, lasts, limit)
        return int(rows[0][0])

    async def pending(self) -> Pending:
        """Return the number of records."""
        return await self._connections.change(self._pending, durable=False)

    async def _pending(self, connection: Connection) -> Pending:
        sql, queue = self._connections.sql, self._queue
        if await connection.fetchval(sql(GENERATION), queue) != self._registration.generation:
            raise WipedFileError(self._registration.location)
        rows = await connection.fetch(sql(COUNTS), queue)
        routes = {row["name"].decode(errors="surrogatepass"): row["waiting"] for row in rows}
        waiting, size = sum(routes.values()), sum(row["size"] for row in rows)
        oldest_at = await connection.fetchval(sql(OLDEST), queue) if waiting else None
        return Pending(
            waiting,
            sum(row["leased"] for row in rows),
            sum(row["dead"] for row in rows),
            routes,
            oldest_at,
            await connection.fetchval(sql(SIZE)),
            waiting >= self._capacity.max_records or size >= (self._capacity.max_bytes or inf),
        )

    async def generation(self) -> int:
        """Return the number that identifies the content of the queue."""
        rows = await self._connections.fetch(GENERATION, self._queue)
        return int(rows[0][0]) if rows else 0

    async def waiting(self, limit: int) -> list[Waiting]:
        """Return the oldest records."""
        rows = await self._connections.fetch(WAITING, self._queue, max(0, limit))
        return [
            Waiting(
                str(key),
                name.decode(errors="surrogatepass"),
                body,
                at,
                failures or 0,
                0.0 if due is None else self._clock.to_unix(due),
                reason or "",
            )
            for key, name, body, at, failures, due, reason in rows
        ]

    async def dead(self, limit: int) -> list[DeadLetter]:
        """Return the newest dead letters."""
        rows = await self._connections.fetch(DEAD, self._queue, max(0, limit))
        return [DeadLetter(str(key), name.decode(errors="surrogatepass"), *others) for key, name, *others in rows]

    async def load_state(self, key: str) -> State | None:
        """Return a state, or None."""
        rows = await self._connections.fetch(STATE, self._queue, key.encode())
        return State(*rows[0]) if rows else None

    async def expired_sessions(self, before: float, limit: int) -> list[tuple[str, State]]:
        """Return the states whose last activity is before a time."""
        count = SLICE
        while count == SLICE:
            rows = await self._connections.fetch(RAISE_LATE, self._queue, before, SLICE)
            count = rows[0][0]
        rows = await self._connections.fetch(EXPIRED, self._queue, before, max(0, limit))
        return [(key.decode(), State(*others)) for key, *others in rows]
