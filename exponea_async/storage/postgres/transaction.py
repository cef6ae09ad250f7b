"""
The transaction of a commit: states are locked and compared, then everything is written.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from math import inf
from typing import Any

from attrs import define, field

from exponea_async.errors import StorageError
from exponea_async.storage.base import StateCheck, Written, queue_full
from exponea_async.storage.postgres.capacity import AMPLE, Capacity, Room
from exponea_async.storage.postgres.connection import Connection, Connections
from exponea_async.storage.postgres.counters import WRITE_LANE
from exponea_async.storage.postgres.dropping import drop_oldest
from exponea_async.storage.postgres.registration import Registration, encode_name
from exponea_async.storage.postgres.schema import ROUTE_SHIFT
from exponea_async.storage.postgres.writes import ROW_SIZE, PendingWrite, StateTable, StoredState

#: How often a write is tried again that waits for a state which another transaction has locked, in seconds.
LOCK_POLL = 0.01

#: Everything of a commit but the states, if the client is registered, no later commit was made, the queue has not been
#: wiped, and the ids are reserved: a server that has lost its last commits may know neither them nor their routes.
_WRITE = f"""
    WITH {{checks}} me AS (
        UPDATE {{{{s}}}}.client SET commit = $2
            WHERE id = $1 AND commit < $2 AND EXISTS (SELECT FROM {{{{s}}}}.queue WHERE id = $3 AND generation = $4)
                AND NOT EXISTS (
                    SELECT FROM unnest($9::integer[], $12::bytea[], $13::bigint[]) AS u (route, name, last)
                        LEFT JOIN {{{{s}}}}.route AS r ON r.id = u.route AND r.queue = $3 AND r.name = u.name
                            AND r.next > u.last - (u.route::bigint << {ROUTE_SHIFT})
                        WHERE r.id IS NULL
                ) {{condition}}
            RETURNING set_config('synchronous_commit', $5, true)
    ), added AS (
        INSERT INTO {{{{s}}}}.record (id, at, body)
            SELECT u.* FROM unnest($6::bigint[], $7::float8[], $8::bytea[]) AS u, me
    ), counted AS (
        INSERT INTO {{{{s}}}}.counter AS t (queue, client, lane, route, waiting, size)
            SELECT $3, $1, {WRITE_LANE}, u.* FROM unnest($9::integer[], $10::bigint[], $11::bigint[]) AS u, me
            ON CONFLICT (queue, client, lane, route)
            DO UPDATE SET waiting = t.waiting + excluded.waiting, size = t.size + excluded.size
    ) {{raised}}
    SELECT count(*) FROM me
"""
WRITE = _WRITE.format(checks="", condition="", raised="")
#: The same for writes that only check states: if none of them has changed, or is locked by another transaction.
WRITE_CHECKED = _WRITE.format(
    checks="""
    locked AS MATERIALIZED (
        SELECT key, version FROM {s}.state WHERE queue = $3 AND key = ANY ($14::bytea[]) FOR UPDATE SKIP LOCKED
    ), unchanged AS MATERIALIZED (
        SELECT count(*) AS number FROM locked JOIN unnest($14::bytea[], $15::bigint[]) AS u (key, version)
            USING (key, version)
    ),""",
    condition="AND (SELECT number FROM unchanged) = cardinality($14::bytea[])",
    raised=""", raised AS (
        UPDATE {s}.state AS s SET active = u.active, active_from = coalesce(s.active_from, u.active)
            FROM unnest($14::bytea[], $16::float8[]) AS u (key, active), me
            WHERE s.queue = $3 AND s.key = u.key AND (s.active IS NULL OR s.active < u.active)
    )""",
)
#: Locked states are left out: another transaction, possibly one of the application, is about to change them.
LOCK_STATES = """
    SELECT key, version, active FROM {s}.state WHERE queue = $1 AND key = ANY ($2::bytea[]) FOR UPDATE SKIP LOCKED
"""
#: A state that does not exist can't be locked as a row.
LOCK_NUMBER = "hashtextextended('{s}' || $1::text || encode(key, 'hex'), 0)"
LOCK_KEYS = f"SELECT key FROM unnest($2::bytea[]) AS u (key) WHERE pg_try_advisory_xact_lock({LOCK_NUMBER})"
#: In a statement of its own, which sees what was committed until the keys were locked.
FIND_STATES = """
    SELECT ARRAY(SELECT key FROM {s}.state WHERE queue = $1 AND key = ANY ($2::bytea[])),
        coalesce((SELECT max(version) FROM {s}.floor WHERE queue = $1), 0)
"""
UPSERT_STATES = """
    INSERT INTO {s}.state AS s (queue, key, value, version, active, active_from)
        SELECT $1, u.key, u.value, u.version, u.active, u.active
            FROM unnest($2::bytea[], $3::bytea[], $4::bigint[], $5::float8[]) AS u (key, value, version, active)
        ON CONFLICT (queue, key) DO UPDATE SET
            value = excluded.value, version = excluded.version, active = excluded.active,
            active_from = CASE WHEN excluded.active >= s.active_from THEN s.active_from ELSE excluded.active END
"""
RAISE_ACTIVITY = """
    UPDATE {s}.state AS s SET active = u.active, active_from = coalesce(s.active_from, u.active)
        FROM unnest($2::bytea[], $3::float8[]) AS u (key, active) WHERE s.queue = $1 AND s.key = u.key
"""
DELETE_STATES = """
    WITH gone AS (DELETE FROM {s}.state WHERE queue = $1 AND key = ANY ($2::bytea[]))
    INSERT INTO {s}.floor VALUES ($1, $3)
"""


@define(eq=False)
class Commit:
    """
    The writes that are committed together.

    Attributes:
        writes: The writes, in the order of the calls.
        number: The number of the commit.
        ids: The ids that are reserved for their records, by route, in ascending order.
        room: What may be written.
        blocked: The writes that must wait for capacity.
        locked: The writes that must wait because another transaction has locked a state.
        is_sent: Whether it may have been made.
    """

    writes: Sequence[PendingWrite]
    number: int
    ids: dict[str, list[int]] = field(factory=dict)
    room: Room = AMPLE
    blocked: list[PendingWrite] = field(factory=list)
    locked: list[PendingWrite] = field(factory=list)
    is_sent: bool = False


class CommitTransaction:
    """
    Runs a commit on a connection; it may run again if it was not committed.

    Args:
        connections: The connections.
        registration: The client.
        capacity: The limits of the queue.
        commit: What is written.
    """

    def __init__(
        self, connections: Connections, registration: Registration, capacity: Capacity, commit: Commit
    ) -> None:
        self._connections = connections
        self._registration = registration
        self._capacity = capacity
        self._commit = commit
        self._ids = {route: iter(ids) for route, ids in commit.ids.items()}
        self._accepted: list[PendingWrite] = []
        # The ids of the records of the accepted writes, in the same order.
        self._keys: list[int] = []
        self._table = StateTable({}, 0)
        commit.blocked.clear()
        commit.locked.clear()
        for write in commit.writes:
            write.written = write.error = None

    async def run_alone(self, connection: Connection, checks: dict[bytes, StateCheck]) -> bool:
        """
        Run a commit in one statement.

        Args:
            connection: The connection, outside a transaction.
            checks: All that its writes are about besides records.

        Returns:
            Whether it could be made by this client, with these ids, and with no write refused or put off.
        """
        for write in self._commit.writes:
            self._accept(write)
        is_made = await self._write(connection, checks)
        self._commit.is_sent = is_made
        return is_made

    async def run(self, connection: Connection) -> bool:
        """Run the commit within a transaction; return whether it could be made by this client and with these ids."""
        locked = await self._lock_states(connection)
        self._decide(locked)
        if not self._accepted:
            return True
        await self._make_room(connection)
        if not await self._write(connection, {}):
            return False
        await self._store_states(connection)
        return True

    # States

    async def _lock_states(self, connection: Connection) -> set[bytes]:
        """Lock and load the states; return the keys of those that another transaction has locked."""
        sql, queue = self._connections.sql, self._registration.queue
        keys = {key for write in self._commit.writes for key in write.keys}
        if not keys:
            return set()
        rows = await connection.fetch(sql(LOCK_STATES), queue, list(keys))
        stored = {
            row["key"]: StoredState(row["version"], row["active"], is_stored=True, stored_version=row["version"])
            for row in rows
        }
        missing = keys - stored.keys()
        if not missing:
            self._table = StateTable(stored, 0)
            return set()
        got = [row["key"] for row in await connection.fetch(sql(LOCK_KEYS), str(queue), sorted(missing))]
        found, floor = await connection.fetchrow(sql(FIND_STATES), queue, got)
        self._table = StateTable(stored, floor)
        return missing - set(got) | set(found)

    async def _store_states(self, connection: Connection) -> None:
        sql, queue, table = self._connections.sql, self._registration.queue, self._table
        if changed := table.changed("value"):
            await connection.execute(
                sql(UPSERT_STATES),
                queue,
                [key for key, _ in changed],
                [state.value for _, state in changed],
                [state.version for _, state in changed],
                [state.active for _, state in changed],
            )
        if active := table.changed("activity"):
            keys, times = [key for key, _ in active], [state.active for _, state in active]
            await connection.execute(sql(RAISE_ACTIVITY), queue, keys, times)
        if deleted := [key for key, state in table.changed("deleted") if state.is_stored]:
            await connection.execute(sql(DELETE_STATES), queue, deleted, table.floor)

    # Decisions

    def _decide(self, locked: set[bytes]) -> None:
        """Accept, refuse or put off each write, in the order of the calls."""
        room, size = self._commit.room.records, self._commit.room.size
        drops, is_blocked = self._capacity.when_full == "drop_oldest", False
        for write in self._commit.writes:
            if not locked.isdisjoint(write.keys):
                # None of the later writes about the same states may overtake.
                locked.update(write.keys)
                self._commit.locked.append(write)
                continue
            if write.states and (conflict := self._table.conflict(write)):
                write.error = conflict
                continue
            count = len(write.records)
            if count and (is_blocked or count > room or write.size > size):
                if not self._capacity.can_fit(write) or self._capacity.when_full == "raise":
                    write.error = queue_full(self._capacity.max_records, self._capacity.max_bytes)
                    continue
                if not drops:
                    # The writes behind this one wait, too, however small: none may overtake.
                    is_blocked = True
                    self._commit.blocked.append(write)
                    continue
            room, size = room - count, size - write.size
            self._accept(write)
            self._table.apply(write)

    def _accept(self, write: PendingWrite) -> None:
        keys = [next(self._ids[record.route]) for record in write.records]
        write.written = Written(tuple(map(str, keys)))
        self._accepted.append(write)
        self._keys += keys

    async def _make_room(self, connection: Connection) -> None:
        """Delete the oldest records for the accepted writes that exceed the capacity."""
        room = self._commit.room
        records = sum(len(write.records) for write in self._accepted) - room.records
        size = sum(write.size for write in self._accepted) - (room.size if room.size != inf else inf)
        if records <= 0 and size <= 0:
            return
        dropped = await drop_oldest(connection, self._connections, self._registration, records, size)
        first = next(write for write in self._accepted if write.records)
        if dropped and first.written:
            first.written = Written(first.written.ids, dropped)

    # Records

    async def _write(self, connection: Connection, checks: dict[bytes, StateCheck]) -> bool:
        keys, records = self._keys, [record for write in self._accepted for record in write.records]
        bodies = [record.body for record in records]
        counts: Counter[int] = Counter()
        sizes: Counter[int] = Counter()
        for key, body in zip(keys, bodies, strict=True):
            counts[key >> ROUTE_SHIFT] += 1
            sizes[key >> ROUTE_SHIFT] += len(body) + ROW_SIZE
        routes = sorted(counts)
        # The names are those of the records: another process may have renamed the routes.
        reserved = {key >> ROUTE_SHIFT: (name, key) for name, keys in self._commit.ids.items() for key in keys}
        registration = self._registration
        self._commit.is_sent = True
        found: int = await connection.fetchval(
            self._connections.sql(WRITE_CHECKED if checks else WRITE),
            registration.client,
            self._commit.number,
            registration.queue,
            registration.generation,
            "on" if self._connections.is_synchronous else "off",
            keys,
            [record.at for record in records],
            bodies,
            routes,
            [counts[route] for route in routes],
            [sizes[route] for route in routes],
            [encode_name(reserved[route][0]) for route in routes],
            [reserved[route][1] for route in routes],
            *_columns(checks),
        )
        return found == 1


def _columns(checks: dict[bytes, StateCheck]) -> Iterator[list[Any]]:
    """Return the parameters for checks, of which there are none without checks."""
    if checks:
        yield list(checks)
        yield [check.version for check in checks.values()]
        yield [check.active for check in checks.values()]


def locked_error(location: str, *, is_silent: bool = False) -> StorageError:
    """
    Return the error for a write that has waited too long for another transaction.

    Args:
        location: The database.
        is_silent: Whether the database did not answer in time when the write was tried for the last time.
    """
    trouble = "which had not ended at the last answer of the database" if is_silent else "which has not ended"
    return StorageError(
        f"A device's state is locked by another transaction on {location}, {trouble}.",
        hint="Keep the transactions short in which a device is tracked.",
    )
