"""
The writes of one transaction: each of them is written whole or not at all.
"""

import asyncio
from collections.abc import Callable, Iterator, Sequence
from heapq import merge
from math import inf
from operator import itemgetter
from time import monotonic

from exponea_async.errors import StateConflictError, StorageError
from exponea_async.storage.base import Record, StateChange, StateCheck, Written, queue_full
from exponea_async.storage.sqlite.connection import QueueConnection, Route
from exponea_async.storage.sqlite.futures import PromptFuture
from exponea_async.storage.sqlite.schema import ROUTE_SHIFT
from exponea_async.storage.sqlite.space import used_bytes

# One is called for each event, and ``super()`` would take as long as the rest.
_init = asyncio.Future.__init__

#: INSERT statements by their number of values, three for each row. Each statement is one step of SQLite, for which the
#: interpreter's lock is released once. There are few sizes, so that all statements stay in the connection's cache.
INSERTS = tuple((size * 3, "INSERT INTO record VALUES " + ",".join(["(?,?,?)"] * size)) for size in (128, 32, 8, 4, 2))
INSERT_ONE = "INSERT INTO record VALUES (?,?,?)"
UPSERT_STATE = (
    "INSERT INTO state (key, value, version) VALUES (?, ?, ?) ON CONFLICT (key) DO UPDATE"
    " SET value = excluded.value, version = excluded.version"
)
SET_ACTIVITY = "INSERT OR REPLACE INTO activity SELECT id, ?, ? FROM state WHERE key = ?"
#: The index on `listed` is written only for the first activity. Not with numbered parameters: some Pythons refuse them.
RAISE_ACTIVITY = (
    "INSERT INTO activity SELECT id, ?, ? FROM state WHERE key = ?"
    " ON CONFLICT (id) DO UPDATE SET active = excluded.active WHERE active < excluded.active"
)
CLEAR_ACTIVITY = "DELETE FROM activity WHERE id = (SELECT id FROM state WHERE key = ?)"
READ_ACTIVITY = "SELECT active FROM activity WHERE id = (SELECT id FROM state WHERE key = ?)"

#: What a record takes in the file besides its body, in bytes.
ROW_SIZE = 24


class PendingWrite(PromptFuture[Written]):
    """
    The write of one caller, who waits for it, and its outcome: `written`, or `error`, or neither while it waits for
    capacity.

    Args:
        records: The records to write.
        states: The states to change or to check.
        on_commit: Called with the result, whether the caller still waits or not; or None.
        loop: The event loop of the caller.

    Attributes:
        since: When the caller made the call, in monotonic time.
    """

    __slots__ = ("error", "on_commit", "records", "since", "states", "written")

    written: Written | None
    error: Exception | None

    def __init__(
        self,
        records: Sequence[Record],
        states: Sequence[StateChange | StateCheck],
        on_commit: Callable[[Written], None] | None,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        _init(self, loop=loop)
        self._callback = self.written = self.error = None
        self.records = records
        self.states = states
        self.since = monotonic()
        self.on_commit = on_commit

    def deliver(self) -> None:
        """Give the caller the outcome."""
        if self.done():
            return
        if self.written is not None:
            self.resolve_now(self.written)
        elif self.error is not None:
            self.set_exception(self.error)


class BatchWriter:
    """
    The writer of one transaction.

    Args:
        connection: The connection, within a write transaction.
        writes: The writes, in order.
    """

    def __init__(self, connection: QueueConnection, writes: Sequence[PendingWrite]) -> None:
        self._connection = connection
        self._writes = writes
        self._capacity = connection.free_capacity()
        self._is_refused = connection.is_disk_full or connection.log_size > connection.max_log_size
        # Whether more than the number of records decides on a write.
        self._is_limited = self._is_refused or connection.max_bytes is not None
        self._bytes = inf if connection.max_bytes is None else connection.max_bytes - used_bytes(connection)
        # The values of rows that are not inserted yet, and the latest activity of states that is not stored yet.
        self._values: list[int | float | bytes] = []
        self._activity: dict[str, float] = {}

    def run(self) -> list[PendingWrite]:
        """Write everything, and return the writes that have to wait for capacity."""
        blocked: list[PendingWrite] = []
        self._connection.load_versions({state.key for write in self._writes for state in write.states})
        for index, write in enumerate(self._writes):
            # Reset for a batch that runs again on a new file.
            write.written = write.error = None
            states, records = write.states, write.records
            if states and not self._check_states(write):
                continue
            dropped: tuple[str, ...] = ()
            if records and (self._is_limited or len(records) > self._capacity):
                admitted = self._admit(index)
                if admitted is None:
                    if write.error is None:
                        blocked.append(write)
                    continue
                dropped = admitted
            self._capacity -= len(records)
            write.written = Written(self._add(records), dropped)
            for state in states:
                if isinstance(state, StateChange):
                    self._change(state)
                elif state.active is not None:
                    self._raise_activity(state.key, state.active)
        self._insert()
        self._store_activity()
        return blocked

    # States

    def _check_states(self, write: PendingWrite) -> bool:
        versions = self._connection.versions
        for state in write.states:
            if versions[state.key] != state.version or not (isinstance(state, StateCheck) or self._has_seen(state)):
                write.error = StateConflictError(state.key)
                return False
        return True

    def _has_seen(self, change: StateChange) -> bool:
        """Return whether there was no activity later than the one that a change has seen."""
        key, seen = change.key, change.seen
        if seen is None:
            return True
        if self._activity.get(key, seen) > seen:
            return False
        row = self._connection.execute(READ_ACTIVITY, (key,)).fetchone()
        return not row or not isinstance(row[0], float) or row[0] <= seen

    def _raise_activity(self, key: str, active: float) -> None:
        # Collected first: most are of few keys, and the others are written together.
        if self._connection.versions[key]:
            self._activity[key] = max(active, self._activity.get(key, active))

    def _change(self, change: StateChange) -> None:
        # A change replaces the activity, too.
        self._activity.pop(change.key, None)
        change_state(self._connection, change.key, change.value, change.version, change.active)

    def _store_activity(self) -> None:
        # In the order of the keys, which is the order of the index that finds them.
        activity = sorted(self._activity.items())
        if activity:
            self._connection.executemany(RAISE_ACTIVITY, [(active, active, key) for key, active in activity])

    # Records

    def _add(self, records: Sequence[Record]) -> tuple[str, ...]:
        connection = self._connection
        ids: list[str] = []
        for name, body, at in records:
            route = connection.routes.get(name) or connection.create_route(name)
            route.last = last = route.last + 1
            self._values += (last, at, body)
            ids.append(str(last))
        return tuple(ids)

    def _insert(self) -> None:
        """Insert the rows that were added, in as few statements as possible."""
        values, start = self._values, 0
        for size, sql in INSERTS:
            while len(values) - start >= size:
                self._connection.execute(sql, values[start : start + size])
                start += size
        if start < len(values):
            self._connection.execute(INSERT_ONE, values[start:])
        self._values = []

    # Capacity

    def _admit(self, index: int) -> tuple[str, ...] | None:
        """Make sure that there is room for a write; return as `_make_capacity` does."""
        write = self._writes[index]
        if self._is_refused:
            write.error = self._refusal()
            return None
        size = self._size(write)
        dropped: tuple[str, ...] | None = ()
        if len(write.records) > self._capacity or size > self._bytes:
            dropped = self._make_capacity(index)
        if dropped is not None:
            self._bytes -= size
        return dropped

    def _refusal(self) -> StorageError:
        connection = self._connection
        if connection.is_disk_full:
            return StorageError(
                f"The queue file {connection.path} cannot be used: the disk is full, and what is left of it is used "
                "for the upload.",
                hint="Free some disk space.",
            )
        return StorageError(
            f"The write-ahead log of the queue file {connection.path} has {connection.log_size} bytes and can't be "
            "emptied, because another program has been reading the file since.",
            hint="End the other program, or its transaction.",
        )

    def _size(self, write: PendingWrite) -> int:
        if self._connection.max_bytes is None:
            return 0
        return sum(len(record.body) + ROW_SIZE for record in write.records)

    def _make_capacity(self, index: int) -> tuple[str, ...] | None:
        """Return the ids of the records that were dropped for a write, or None if it cannot be written now."""
        connection, write = self._connection, self._writes[index]
        if not self._can_fit(write) or connection.when_full == "raise":
            write.error = queue_full(connection.max_records, connection.max_bytes)
            return None
        if connection.when_full == "wait":
            # The writes behind this one wait, too, however small: none may overtake.
            self._capacity = 0
            return None
        # For all writes that are left at once: a full queue stays full, and each of them would have to search.
        left = [write for write in self._writes[index:] if self._can_fit(write)]
        wanted = min(sum(len(write.records) for write in left), connection.max_records)
        wanted_bytes = min(sum(map(self._size, left)), (connection.max_bytes or 0) // 2)
        self._insert()
        self._capacity = max(0, self._capacity)
        dropped = self._drop(wanted - self._capacity, max(wanted_bytes, self._size(write)) - self._bytes)
        self._capacity += len(dropped)
        return tuple(map(str, dropped))

    def _can_fit(self, write: PendingWrite) -> bool:
        connection = self._connection
        fits = connection.max_bytes is None or self._size(write) <= connection.max_bytes // 2
        return fits and len(write.records) <= connection.max_records

    def _drop(self, count: int, size: float) -> list[int]:
        """
        Delete the oldest untouched records, and leased ones, oldest first, only where there are no others.

        Args:
            count: How many at least.
            size: How many bytes at least.
        """
        connection = self._connection
        dropped: list[int] = []
        freed = 0
        for _, key, length in _oldest(connection):
            if len(dropped) >= count and freed >= size:
                break
            dropped.append(key)
            freed += length + ROW_SIZE
        for key in dropped:
            route = connection.routes_by_number[key >> ROUTE_SHIFT]
            route.cursor = max(route.cursor, key)
        for route in connection.routes_by_number.values():
            connection.move_cursor(route, route.cursor)
        self._bytes += freed
        connection.remove(dropped, "dropped")
        return dropped


def change_state(
    connection: QueueConnection, key: str, value: bytes | None, version: int, active: float | None = None
) -> None:
    """Replace a state that has a version, 0 if there is none; None deletes it."""
    if value is None:
        connection.execute("DELETE FROM state WHERE key = ?", (key,))
        connection.versions[key] = 0
        # The versions of new states are higher, so that none of them is mistaken for the deleted one.
        connection.set_counter("state", max(connection.counter("state"), version))
        return
    version = (version or connection.counter("state")) + 1
    connection.execute(UPSERT_STATE, (key, value, version))
    if active is None:
        connection.execute(CLEAR_ACTIVITY, (key,))
    else:
        connection.execute(SET_ACTIVITY, (active, active, key))
    connection.versions[key] = version


def _oldest(connection: QueueConnection) -> Iterator[tuple[float, int, int]]:
    """Yield the untouched records of all routes and then the others, oldest first: time of writing, id, size."""
    yield from untouched_by_age(connection)
    sql = "SELECT CAST(r.at AS REAL), r.id, length(r.body) FROM taken t JOIN record r ON r.id = t.id ORDER BY 1, 2"
    yield from connection.execute(sql)


def untouched_by_age(connection: QueueConnection) -> Iterator[tuple[float, int, int]]:
    """Yield the untouched records of all routes, oldest first: time of writing, id, size."""
    return merge(*(_untouched(connection, route) for route in connection.routes_by_number.values()), key=itemgetter(0))


def _untouched(connection: QueueConnection, route: Route) -> Iterator[tuple[float, int, int]]:
    sql = "SELECT CAST(at AS REAL), id, length(body) FROM record WHERE id > ? AND id < ? ORDER BY id"
    yield from connection.execute(sql, (route.cursor, route.end))
