"""
Writing: the callers of one transaction, each written whole or not at all.
"""

import asyncio
from collections.abc import Iterator, Sequence
from heapq import merge
from itertools import islice
from operator import itemgetter

from exponea_async.errors import QueueFullError, StateConflictError, StorageError
from exponea_async.storage.base import Record, StateChange, StateCheck, Written
from exponea_async.storage.sqlite.connection import QueueConnection, Route
from exponea_async.storage.sqlite.schema import ROUTE_SHIFT

#: Rows of one INSERT. Each is one step of SQLite's, and one hand-over of the interpreter's lock; few sizes, so that
#: their statements stay in the connection's cache.
INSERTS = tuple((size * 3, "INSERT INTO record VALUES " + ",".join(["(?,?,?)"] * size)) for size in (128, 32, 8, 4, 2))
INSERT_ONE = "INSERT INTO record VALUES (?,?,?)"
PUT = (
    "INSERT INTO state (key, value, version, active) VALUES (?, ?, ?, ?) ON CONFLICT (key) DO UPDATE"
    " SET value = excluded.value, version = excluded.version, active = excluded.active"
)
#: The index is written to only where the activity does change. No numbered parameters: some Pythons refuse them.
TOUCH = "UPDATE state SET active = ? WHERE key = ? AND (active IS NULL OR active < ?)"


class PendingWrite:
    """
    One caller's write and what came of it: `written`, or `error`, or neither while it waits for room.

    Attributes:
        records: What to write.
        states: What to change or to check.
        future: What the caller waits for.
    """

    __slots__ = ("error", "future", "records", "states", "written")

    def __init__(
        self,
        records: Sequence[Record],
        states: Sequence[StateChange | StateCheck],
        future: "asyncio.Future[Written]",
    ) -> None:
        self.records = records
        self.states = states
        self.future = future
        self.written: Written | None = None
        self.error: Exception | None = None


class BatchWriter:
    """
    The writes of one transaction.

    Args:
        ledger: Where to write, in a transaction.
        entries: The callers.
    """

    def __init__(self, ledger: QueueConnection, entries: Sequence[PendingWrite]) -> None:
        self._ledger = ledger
        self._entries = entries
        self._room = ledger.room() if entries else 0
        self._values: list[int | float | bytes] = []
        self._touches: dict[str, float] = {}

    def run(self) -> list[PendingWrite]:
        """Write the entries, in order; returns those that have to wait for room."""
        blocked: list[PendingWrite] = []
        self._ledger.look_versions_up({state.key for entry in self._entries for state in entry.states})
        for place, entry in enumerate(self._entries):
            # Set before, for a transaction that is run again on a fresh file.
            entry.written = entry.error = None
            states, count = entry.states, len(entry.records)
            if states and not self._agree(entry):
                continue
            dropped = self._make_room(place) if count and count > self._room else ()
            if dropped is None:
                if entry.error is None:
                    blocked.append(entry)
                continue
            self._room -= count
            entry.written = Written(self._add(entry.records), dropped)
            for state in states:
                if isinstance(state, StateChange):
                    self._change(state)
                elif state.active is not None:
                    self._touch(state.key, state.active)
        self._insert()
        self._write_touches()
        return blocked

    def _agree(self, entry: PendingWrite) -> bool:
        known = self._ledger.versions
        for state in entry.states:
            if known[state.key] != state.version or not (isinstance(state, StateCheck) or self._is_seen(state)):
                entry.error = StateConflictError(state.key)
                return False
        return True

    def _is_seen(self, change: StateChange) -> bool:
        """Tell whether there was no activity later than a change knows of."""
        key, seen = change.key, change.seen
        if seen is None:
            return True
        if self._touches.get(key, seen) > seen:
            return False
        row = self._ledger.execute("SELECT active FROM state WHERE key = ?", (key,)).fetchone()
        return not row or row[0] is None or row[0] <= seen

    def _touch(self, key: str, active: float) -> None:
        # Gathered, for most of them are of few keys, or are written together.
        if self._ledger.versions[key]:
            self._touches[key] = max(active, self._touches.get(key, active))

    def _change(self, change: StateChange) -> None:
        ledger = self._ledger
        # What it sets is set whatever was there.
        self._touches.pop(change.key, None)
        if change.value is None:
            ledger.execute("DELETE FROM state WHERE key = ?", (change.key,))
            ledger.versions[change.key] = 0
            # The next state under any key begins above, so that nobody takes it for the one that they knew.
            ledger.set_counter("state", max(ledger.counter("state"), change.version))
            return
        version = (change.version or ledger.counter("state")) + 1
        ledger.execute(PUT, (change.key, change.value, version, change.active))
        ledger.versions[change.key] = version

    def _add(self, records: Sequence[Record]) -> tuple[str, ...]:
        ledger, values = self._ledger, self._values
        ids: list[str] = []
        for record in records:
            route = ledger.routes.get(record.route) or ledger.make_route(record.route)
            route.last = last = route.last + 1
            values += (last, record.at, record.body)
            ids.append(str(last))
        return tuple(ids)

    def _insert(self) -> None:
        """Write the rows that have gathered, in as few statements as can be."""
        values, start = self._values, 0
        for size, sql in INSERTS:
            while len(values) - start >= size:
                self._ledger.execute(sql, values[start : start + size])
                start += size
        if start < len(values):
            self._ledger.execute(INSERT_ONE, values[start:])
        self._values = []

    def _write_touches(self) -> None:
        # In the order of the keys, in which they are looked up.
        touches = sorted(self._touches.items())
        if touches:
            self._ledger.executemany(TOUCH, [(active, key, active) for key, active in touches])

    # Room

    def _make_room(self, place: int) -> tuple[str, ...] | None:
        """Tell what was dropped for an entry, or None if it can't be written."""
        ledger, entry = self._ledger, self._entries[place]
        if len(entry.records) > ledger.max_records or ledger.when_full == "raise":
            entry.error = full(ledger.max_records)
            return None
        if ledger.when_full == "wait":
            # Nor those behind it, however small: they would overtake.
            self._room = 0
            return None
        # For the rest of the callers at once: a full queue stays full, and each would have to search.
        sizes = (len(entry.records) for entry in self._entries[place:])
        wanted = min(sum(size for size in sizes if size <= ledger.max_records), ledger.max_records)
        self._insert()
        self._room = max(0, self._room)
        dropped = self._drop(wanted - self._room)
        self._room += len(dropped)
        return tuple(map(str, dropped))

    def _drop(self, count: int) -> list[int]:
        """Delete the oldest untouched records; those in somebody's hands only when no others are left."""
        ledger = self._ledger
        dropped = [key for _, key, _ in islice(oldest(ledger), count)]
        for key in dropped:
            route = ledger.numbers[key >> ROUTE_SHIFT]
            route.cursor = max(route.cursor, key)
        for route in ledger.numbers.values():
            ledger.move_cursor(route, route.cursor)
        if len(dropped) < count:
            sql = "SELECT r.id FROM taken t JOIN record r ON r.id = t.id ORDER BY r.at, r.id LIMIT ?"
            dropped += [key for (key,) in ledger.execute(sql, (count - len(dropped),)).fetchall()]
        ledger.remove(dropped)
        return dropped


def oldest(ledger: QueueConnection) -> Iterator[tuple[float, int, bytes]]:
    """Go through the untouched records of all routes by age: when written, id, body."""
    return merge(*(_untouched(ledger, route) for route in ledger.numbers.values()), key=itemgetter(0))


def _untouched(ledger: QueueConnection, route: Route) -> Iterator[tuple[float, int, bytes]]:
    sql = "SELECT at, id, body FROM record WHERE id > ? AND id < ? ORDER BY id"
    yield from ledger.execute(sql, (route.cursor, route.end))


def full(max_records: int) -> StorageError:
    """Make the error for a write without room."""
    return QueueFullError(
        f"The queue is full: it may hold {max_records} records.",
        hint='Wait for uploads, raise QueueSettings.max_records, or set when_full to "wait" or "drop_oldest".',
    )
