"""
Storing the content of a file, a part at a time, with a note of what of the file is stored by then.

A part and its note are one transaction. So a part that is stored although its sender does not know it, because it was
killed or its connection was lost, is recognized when it is sent again.
"""

import time
from collections.abc import Sequence

from exponea_async.errors import WipedFileError
from exponea_async.storage.parts import MovedLetter, MovedRecord, MovedState
from exponea_async.storage.postgres.clock import ServerClock
from exponea_async.storage.postgres.connection import Connection, Connections
from exponea_async.storage.postgres.counters import ADD, MAINTENANCE_LANE
from exponea_async.storage.postgres.leases import printable_reason
from exponea_async.storage.postgres.maintenance import ALIVE, CLOSE, NOW
from exponea_async.storage.postgres.registration import GENERATION, Registration
from exponea_async.storage.postgres.schema import ROUTE_SHIFT
from exponea_async.storage.postgres.writes import ROW_SIZE

#: Until the transaction ends, nothing can be wiped; see `wiping.LOCK`.
LOCK = "LOCK TABLE {s}.record, {s}.state IN ROW EXCLUSIVE MODE"
MARKS = "SELECT route, record, dead FROM {s}.moved WHERE queue = $1 AND source = $2"
LAST_STATES = "SELECT keys, versions FROM {s}.move WHERE queue = $1 AND source = $2"
CREATE_MARK = "INSERT INTO {s}.moved (queue, source, route) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING"
LOCK_MARK = "SELECT record, dead FROM {s}.moved WHERE queue = $1 AND source = $2 AND route = $3 FOR UPDATE"
SET_RECORD = "UPDATE {s}.moved SET record = $4 WHERE queue = $1 AND source = $2 AND route = $3"
SET_DEAD = "UPDATE {s}.moved SET dead = $4 WHERE queue = $1 AND source = $2 AND route = $3"
SET_STATES = """
    INSERT INTO {s}.move (queue, source, keys, versions) VALUES ($1, $2, $3, $4)
        ON CONFLICT (queue, source) DO UPDATE SET keys = excluded.keys, versions = excluded.versions
"""
ADD_RECORDS = "INSERT INTO {s}.record (id, at, body) SELECT * FROM unnest($1::bigint[], $2::float8[], $3::bytea[])"
ADD_TAKEN = """
    INSERT INTO {s}.taken (id, route, due, failures, reason)
        SELECT u.id, $1, u.due, u.failures, u.reason
            FROM unnest($2::bigint[], $3::float8[], $4::integer[], $5::text[]) AS u (id, due, failures, reason)
"""
ADD_DEAD = """
    INSERT INTO {s}.dead (id, queue, at, body, died_at, reason)
        SELECT u.id, $1, u.at, u.body, u.died_at, u.reason FROM unnest(
            $2::bigint[], $3::float8[], $4::bytea[], $5::float8[], $6::text[]
        ) AS u (id, at, body, died_at, reason)
"""
COUNT = f"""
    INSERT INTO {{s}}.counter AS t (queue, client, lane, route, waiting, leased, dead, size)
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
    {ADD}
"""
OTHERS = """
    SELECT s.key FROM {s}.state AS s JOIN unnest($2::bytea[], $3::bytea[]) AS u (key, value) USING (key)
        WHERE s.queue = $1 AND s.value <> u.value
"""
#: A state that exists is the same one: the others were refused before.
ADD_STATES = """
    INSERT INTO {s}.state (queue, key, value, version, active, active_from)
        SELECT $1, u.key, u.value, greatest(u.version, 1 + coalesce((
                SELECT max(f.version) FROM {s}.floor AS f WHERE f.queue = $1
            ), 0)), u.active, u.active
            FROM unnest($2::bytea[], $3::bytea[], $4::bigint[], $5::float8[]) AS u (key, value, version, active)
            ORDER BY u.key
        ON CONFLICT (queue, key) DO NOTHING
"""


class MoveTarget:
    """
    The queue that the content of a file is moved to.

    Args:
        connections: The connections, open.
        queue: The name of the queue.
        source: The generation of the file.
    """

    def __init__(self, connections: Connections, queue: str, source: int) -> None:
        self._connections = connections
        self._registration = Registration(connections, queue)
        self._source = source
        self._clock = ServerClock()

    @property
    def generation(self) -> int:
        """The number that identifies the content of the queue."""
        return self._registration.generation

    async def open(self) -> None:
        """Find or create the queue, and register as a client, so that nothing wipes it as unused."""
        await self._registration.open()
        before = time.time()
        rows = await self._connections.fetch(NOW)
        self._clock.measure(rows[0][0], before)

    async def aclose(self) -> None:
        """Remove the client."""

        async def remove(connection: Connection) -> None:
            await connection.execute(self._connections.sql(CLOSE), self._registration.client)

        await self._connections.change(remove)

    # What is stored already

    async def marks(self) -> dict[int, tuple[int, int]]:
        """Return the last ids of records and dead letters that are stored, by the route's number in the file."""
        rows = await self._connections.fetch(MARKS, self._registration.queue, self._source)
        return {route: (record, dead) for route, record, dead in rows}

    async def last_states(self) -> list[tuple[str, int]]:
        """Return the states that were stored last, with their versions in the file."""
        rows = await self._connections.fetch(LAST_STATES, self._registration.queue, self._source)
        return [(key.decode(), version) for keys, versions in rows for key, version in zip(keys, versions, strict=True)]

    async def other_states(self, values: Sequence[tuple[str, bytes]]) -> list[str]:
        """Return the keys of the states that exist and have another value."""
        keys = [key.encode() for key, _ in values]
        rows = await self._connections.fetch(OTHERS, self._registration.queue, keys, [value for _, value in values])
        return [row["key"].decode() for row in rows]

    # Storing

    async def add_records(self, route: int, name: str, records: Sequence[MovedRecord]) -> None:
        """
        Store records of one route, in the order of their ids, unless they are stored already.

        Args:
            route: The number of the route in the file.
            name: The name of the route.
            records: The records.
        """
        ids = await self._registration.reserve_ids(name, len(records))

        async def work(connection: Connection) -> None:
            if (await self._lock_mark(connection, route))[0] >= records[-1].id:
                return
            await self._execute(connection, ADD_RECORDS, ids, [r.at for r in records], [r.body for r in records])
            await self._add_taken(connection, ids, records)
            for number, some in _by_route(ids):
                waiting = [record for key, record in zip(ids, records, strict=True) if key in some]
                leased = sum(record.due is not None for record in waiting)
                size = sum(len(record.body) + ROW_SIZE for record in waiting)
                await self._count(connection, number, len(waiting), leased, 0, size)
            await self._execute(connection, SET_RECORD, self._registration.queue, self._source, route, records[-1].id)

        await self._connections.change(work, durable=True)

    async def _add_taken(self, connection: Connection, ids: Sequence[int], records: Sequence[MovedRecord]) -> None:
        for number, some in _by_route(ids):
            rows = [
                (key, self._clock.to_server(record.due), record.failures, printable_reason(record.reason))
                for key, record in zip(ids, records, strict=True)
                if record.due is not None and key in some
            ]
            if rows:
                await self._execute(connection, ADD_TAKEN, number, *map(list, zip(*rows, strict=True)))

    async def add_letters(self, route: int, name: str, letters: Sequence[MovedLetter]) -> None:
        """
        Store dead letters of one route, in the order of their ids, unless they are stored already.

        Args:
            route: The number of the route in the file.
            name: The name of the route.
            letters: The dead letters.
        """
        ids = await self._registration.reserve_ids(name, len(letters))
        last = letters[-1].id

        async def work(connection: Connection) -> None:
            if (await self._lock_mark(connection, route))[1] >= last:
                return
            await self._execute(
                connection,
                ADD_DEAD,
                self._registration.queue,
                ids,
                [letter.at for letter in letters],
                [letter.body for letter in letters],
                [letter.died_at for letter in letters],
                [printable_reason(letter.reason) for letter in letters],
            )
            for number, some in _by_route(ids):
                await self._count(connection, number, 0, 0, len(some), 0)
            await self._execute(connection, SET_DEAD, self._registration.queue, self._source, route, last)

        await self._connections.change(work, durable=True)

    async def add_states(self, states: Sequence[MovedState]) -> None:
        """Store states, unless they are stored already."""
        keys = [state.key.encode() for state in states]
        versions = [state.version for state in states]

        async def work(connection: Connection) -> None:
            await self._begin(connection)
            queue = self._registration.queue
            known = await connection.fetchrow(self._connections.sql(LAST_STATES), queue, self._source)
            if known is not None and (known["keys"], known["versions"]) == (keys, versions):
                return
            values, active = [state.value for state in states], [state.active for state in states]
            await self._execute(connection, ADD_STATES, queue, keys, values, versions, active)
            await self._execute(connection, SET_STATES, queue, self._source, keys, versions)

        await self._connections.change(work, durable=True)

    # Parts of a transaction

    async def _begin(self, connection: Connection) -> None:
        """
        Make sure that the queue is still the one that was opened, until the transaction ends.

        Raises:
            WipedFileError: The queue was wiped.
        """
        await self._execute(connection, LOCK)
        generation = await connection.fetchval(self._connections.sql(GENERATION), self._registration.queue)
        if generation != self._registration.generation:
            raise WipedFileError(self._registration.location)
        await self._execute(connection, ALIVE, self._registration.client)

    async def _lock_mark(self, connection: Connection, route: int) -> tuple[int, int]:
        await self._begin(connection)
        key = self._registration.queue, self._source, route
        await self._execute(connection, CREATE_MARK, *key)
        row = await connection.fetchrow(self._connections.sql(LOCK_MARK), *key)
        return row["record"], row["dead"]

    async def _count(self, connection: Connection, route: int, *counts: int) -> None:
        registration = self._registration
        await self._execute(
            connection, COUNT, registration.queue, registration.client, MAINTENANCE_LANE, route, *counts
        )

    async def _execute(self, connection: Connection, statement: str, *values: object) -> None:
        await connection.execute(self._connections.sql(statement), *values)


def _by_route(ids: Sequence[int]) -> list[tuple[int, set[int]]]:
    """Return the ids by the number of their route: there are two where another client has renamed the first one."""
    numbers = sorted({key >> ROUTE_SHIFT for key in ids})
    return [(number, {key for key in ids if key >> ROUTE_SHIFT == number}) for number in numbers]
