"""
Writing in the transaction of an application, on its own connection: what is written exists if it commits.

The application's transaction may be long, so it holds no lock that a group commit would wait for: it has a row of
counters of its own, and the states that it has changed are left out by others until it ends. It waits for other
transactions in the same way, by trying again, so there are no deadlocks. A write is one statement, so a caller that is
cancelled leaves all of it or nothing.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from exponea_async.errors import LifecycleError, QueueFullError, StateConflictError, StorageError
from exponea_async.storage.base import Record, State, StateChange, StateCheck, Storage, Written, queue_full
from exponea_async.storage.postgres.capacity import Capacity
from exponea_async.storage.postgres.connection import Connections
from exponea_async.storage.postgres.hosts import Rows, driver_error, host_connection, message, shown
from exponea_async.storage.postgres.queries import STATE
from exponea_async.storage.postgres.registration import Registration
from exponea_async.storage.postgres.schema import ROUTE_SHIFT
from exponea_async.storage.postgres.transaction import LOCK_NUMBER, LOCK_POLL, locked_error
from exponea_async.storage.postgres.undecided import HostWrite, UndecidedTransactions
from exponea_async.storage.postgres.writes import ROW_SIZE

#: The number of the transaction is that of the outermost one, whatever savepoints there are.
BEGIN = """
    SELECT pg_current_xact_id()::text, to_regclass($1::text) IS NOT NULL, current_setting('transaction_isolation')
"""
FIND_QUEUE = "SELECT pg_current_xact_id()::text, (SELECT generation FROM {s}.queue WHERE id = $1::integer)"
#: A state that does not exist can't be locked as a row.
LOCK_KEYS = f"SELECT count(*) FROM unnest($2::bytea[]) AS u (key) WHERE pg_try_advisory_xact_lock({LOCK_NUMBER})"
#: Nothing is written unless it is still the same transaction and the same queue, all states are locked and have the
#: versions that the caller has seen. The parameters: 1 to 4 the queue, its generation, the transaction and the number
#: that stands for a client; 5 to 7 the records; 8 to 10 their counters by route; 11 to 13 the states that exist; 14
#: the others; 15 to 18 the new values; 19 and 20 the activities; 21 and 22 the states to delete.
WRITE = """
    WITH wanted AS (
        SELECT u.* FROM unnest($11::bytea[], $12::bigint[], $13::float8[]) AS u (key, version, seen)
    ), locked AS (
        SELECT key, version, active FROM {s}.state
            WHERE queue = $1::integer AND key = ANY ($11::bytea[]) FOR UPDATE SKIP LOCKED
    ), changed AS (
        SELECT FROM locked AS l JOIN wanted AS w USING (key) WHERE l.version <> w.version OR l.active > w.seen
        UNION ALL SELECT FROM wanted AS w WHERE NOT EXISTS (
            SELECT FROM {s}.state AS s WHERE s.queue = $1::integer AND s.key = w.key AND s.version = w.version
        )
        UNION ALL SELECT FROM {s}.state WHERE queue = $1::integer AND key = ANY ($14::bytea[])
    ), same AS (
        SELECT FROM {s}.queue WHERE id = $1::integer AND generation = $2::bigint
            AND pg_current_xact_id_if_assigned()::text = $3::text
    ), ok AS (
        SELECT coalesce((SELECT max(version) FROM {s}.floor WHERE queue = $1::integer), 0) AS floor FROM same
            WHERE (SELECT count(*) FROM locked) = cardinality($11::bytea[]) AND NOT EXISTS (SELECT FROM changed)
    ), added AS (
        INSERT INTO {s}.record (id, at, body)
            SELECT u.id, u.at, u.body FROM unnest($5::bigint[], $6::float8[], $7::bytea[]) AS u (id, at, body), ok
    ), counted AS (
        INSERT INTO {s}.counter AS t (queue, client, lane, route, waiting, size)
            SELECT $1::integer, $4::bigint, 0, u.route, u.waiting, u.size
                FROM unnest($8::integer[], $9::bigint[], $10::bigint[]) AS u (route, waiting, size), ok
            ON CONFLICT (queue, client, lane, route)
            DO UPDATE SET waiting = t.waiting + excluded.waiting, size = t.size + excluded.size
    ), stored AS (
        INSERT INTO {s}.state AS s (queue, key, value, version, active, active_from)
            SELECT $1::integer, u.key, u.value, CASE WHEN u.version = 0 THEN ok.floor ELSE u.version END + 1, u.active,
                    u.active
                FROM unnest($15::bytea[], $16::bytea[], $17::bigint[], $18::float8[])
                    AS u (key, value, version, active), ok
            ON CONFLICT (queue, key) DO UPDATE SET
                value = excluded.value, version = excluded.version, active = excluded.active,
                active_from = CASE WHEN excluded.active >= s.active_from THEN s.active_from ELSE excluded.active END
    ), raised AS (
        UPDATE {s}.state AS s SET active = u.active, active_from = coalesce(s.active_from, u.active)
            FROM unnest($19::bytea[], $20::float8[]) AS u (key, active), ok
            WHERE s.queue = $1::integer AND s.key = u.key AND (s.active IS NULL OR s.active < u.active)
    ), gone AS (
        DELETE FROM {s}.state AS s USING ok WHERE s.queue = $1::integer AND s.key = ANY ($21::bytea[])
    ), floored AS (
        INSERT INTO {s}.floor (queue, version) SELECT $1::integer, greatest(ok.floor, $22::bigint)
            FROM ok WHERE cardinality($21::bytea[]) > 0
    )
    SELECT EXISTS (SELECT FROM ok), EXISTS (SELECT FROM same), EXISTS (SELECT FROM changed)
"""
READ_COMMITTED = "read committed"


class HostStorage:
    """
    A storage whose writes and states are in the transaction of an application. The rest is that of the client.

    A write that exceeds the capacity raises a `QueueFullError` also with ``when_full="wait"``: a transaction must not
    be kept open until records are sent. With ``"drop_oldest"`` the oldest records are deleted after the commit.

    Args:
        storage: The storage of the client.
        connection: The connection of the application.
        connections: The connections of the client.
        registration: The client.
        capacity: The limits of the queue.
        undecided: Finds out what becomes of the transaction.
        on_rollback: Called with the ids of records that were rolled back.

    Raises:
        TypeError: The connection is of a library that is not supported.
    """

    def __init__(
        self,
        storage: Storage,
        connection: object,
        *,
        connections: Connections,
        registration: Registration,
        capacity: Capacity,
        undecided: UndecidedTransactions,
        on_rollback: Callable[[tuple[str, ...]], None],
    ) -> None:
        self._storage = storage
        self._host = host_connection(connection)
        self._connections = connections
        self._registration = registration
        self._capacity = capacity
        self._undecided = undecided
        self._on_rollback = on_rollback
        self._transaction = ""
        self._isolation = READ_COMMITTED
        self._has_ended = False
        # One statement at a time: libraries refuse a second one on the same connection.
        self._lock = asyncio.Lock()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._storage, name)

    # The transaction

    async def begin(self) -> None:
        """
        Check that there is a transaction, on the database of the queue.

        Raises:
            LifecycleError: The connection is not in a transaction.
            StorageError: It is a connection to another database, or its role has no rights there.
        """
        ((self._transaction, has_schema, self._isolation),) = await self._fetch(BEGIN, f"{self._schema}.queue")
        if not self._host.is_in_transaction:
            raise _no_transaction()
        if not has_schema:
            raise self._elsewhere(f"its database has no schema {self._schema}")

    def end(self) -> None:
        """Look soon what became of the transaction, and write nothing more."""
        self._has_ended = True
        self._undecided.expect()

    async def _check(self) -> None:
        """Raise the reason why nothing could be written."""
        ((transaction, generation),) = await self._fetch(FIND_QUEUE, self._registration.queue)
        if transaction != self._transaction:
            raise _no_transaction()
        if generation != self._registration.generation:
            await self._registration.check_generation()
            raise self._elsewhere("it sees another queue there, or none")

    # The protocol

    async def write(
        self,
        records: Sequence[Record],
        states: Sequence[StateChange | StateCheck] = (),
        on_commit: Callable[[Written], None] | None = None,
    ) -> Written:
        """
        Write records and states; ``on_commit`` is called once the application has committed.

        The states must have different keys.

        Raises:
            LifecycleError: The transaction has ended, or there was none.
            QueueFullError: The queue is full.
            StateConflictError: A state is not what it was assumed to be; nothing was written.
            StorageError: The database refused, so the transaction has to be rolled back; or a state is locked by
                another transaction, and nothing was written.
        """
        ids = await self._reserve(records)
        await self._lock_new([state.key.encode() for state in states if not state.version])
        await self._run(self._values(ids, records, states), states)
        written = Written(tuple(map(str, ids)))
        if ids:
            done = on_commit or _ignore
            write = HostWrite(written.ids, size_of(records), done, self._on_rollback)
            self._undecided.add(int(self._transaction), write)
        if self._isolation != READ_COMMITTED:
            # The transaction does not see what was wiped after it began. What it has written keeps off later wipes.
            await self._registration.check_generation()
        return written

    async def load_state(self, key: str) -> State | None:
        """Return a state as the transaction sees it, or None."""
        rows = await self._fetch(STATE, self._registration.queue, key.encode())
        return State(*rows[0]) if rows else None

    # A write

    async def _reserve(self, records: Sequence[Record]) -> list[int]:
        """Return the ids of records, if there is room for them."""
        size = size_of(records)
        uncounted = self._undecided.total(int(self._transaction))
        room = await self._capacity.room_for(len(records), size, uncounted=uncounted)
        if (len(records) > room.records or size > room.size) and self._capacity.when_full != "drop_oldest":
            raise self._full()
        counts = Counter(record.route for record in records)
        ids = {route: iter(await self._registration.reserve_ids(route, count)) for route, count in counts.items()}
        return [next(ids[record.route]) for record in records]

    def _full(self) -> QueueFullError:
        return queue_full(self._capacity.max_records, self._capacity.max_bytes)

    async def _lock_new(self, keys: Sequence[bytes]) -> None:
        """Lock the keys of states that do not exist."""
        if not keys:
            return
        end = self._connections.deadline()
        while True:
            ((count,),) = await self._fetch(LOCK_KEYS, str(self._registration.queue), keys)
            if count == len(keys):
                return
            await self._wait(end)

    async def _run(self, values: Sequence[object], states: Sequence[StateChange | StateCheck]) -> None:
        end = self._connections.deadline()
        while True:
            ((is_written, is_same, is_changed),) = await self._fetch(WRITE, *values)
            if is_written:
                return
            if not is_same:
                await self._check()
            if is_changed:
                raise StateConflictError(states[0].key)
            await self._wait(end)

    async def _wait(self, end: float) -> None:
        if time.monotonic() + LOCK_POLL > end:
            raise locked_error(self._registration.location)
        await asyncio.sleep(LOCK_POLL)

    def _values(
        self, ids: Sequence[int], records: Sequence[Record], states: Sequence[StateChange | StateCheck]
    ) -> list[object]:
        registration = self._registration
        counts = Counter(key >> ROUTE_SHIFT for key in ids)
        sizes: Counter[int] = Counter()
        for key, record in zip(ids, records, strict=True):
            sizes[key >> ROUTE_SHIFT] += len(record.body) + ROW_SIZE
        return [
            registration.queue,
            registration.generation,
            self._transaction,
            # Clients have positive numbers. The counters of such a row are added to those of a client later.
            -int(self._transaction),
            list(ids),
            [record.at for record in records],
            [record.body for record in records],
            list(counts),
            list(counts.values()),
            [sizes[route] for route in counts],
            *_state_values(states),
        ]

    # The connection

    @property
    def _schema(self) -> str:
        return self._connections.schema

    async def _fetch(self, statement: str, *values: object) -> Rows:
        async with self._lock:
            if self._has_ended:
                # A call that was made in the block, and is not awaited there.
                raise _no_transaction()
            try:
                return await self._host.fetch(self._connections.sql(statement), values)
            except self._host.errors as error:
                # A server that took over may not know of the ids that are reserved.
                self._registration.discard_blocks()
                cause = driver_error(error)
                raise self._refused(cause) from shown(cause)

    def _refused(self, error: BaseException) -> StorageError:
        return StorageError(
            f"In the transaction of the application, the database refused: {message(error)}.",
            hint="Roll the transaction back; run it again after an error that passes, such as a serialization failure.",
        )

    def _elsewhere(self, reason: str) -> StorageError:
        return StorageError(
            f"The connection of the application can't be used for {self._registration.location}: {reason}.",
            hint="Use a connection to the same database.",
        )


def _state_values(states: Sequence[StateChange | StateCheck]) -> list[object]:
    known = [state for state in states if state.version]
    changes = [state for state in states if isinstance(state, StateChange)]
    stored = [change for change in changes if change.value is not None]
    deleted = [change for change in changes if change.value is None]
    active = [state for state in known if isinstance(state, StateCheck) and state.active is not None]
    return [
        _keys(known),
        [state.version for state in known],
        [state.seen if isinstance(state, StateChange) else None for state in known],
        _keys([state for state in states if not state.version]),
        _keys(stored),
        [change.value for change in stored],
        [change.version for change in stored],
        [change.active for change in stored],
        _keys(active),
        [state.active for state in active],
        _keys(deleted),
        max((change.version for change in deleted), default=0),
    ]


def size_of(records: Sequence[Record]) -> int:
    """Return the size of records, as it is counted."""
    return sum(len(record.body) + ROW_SIZE for record in records)


def _keys(states: Sequence[StateChange | StateCheck]) -> list[bytes]:
    return [state.key.encode() for state in states]


def _ignore(_: Written) -> None:
    """Do nothing."""


def _no_transaction() -> LifecycleError:
    return LifecycleError(
        "The connection is not in the transaction that 'async with exponea.transaction(connection)' needs.",
        hint="Begin a transaction first, leave the block before it ends, and use a block for each transaction.",
    )
