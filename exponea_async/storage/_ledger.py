"""
The SQLite side of the queue: schema, transactions, queries. Runs on the connection's own thread.

How records are found without an index on them: a record's id carries its route in the upper bits and a number that
rises by one within the route in the lower ones, so each route is one contiguous range of the primary key. A route's
*cursor* is the last id ever leased for the first time. Everything above it is there and untouched, everything below
it that still exists has a row in ``taken`` with the moment it falls due again. So a claim reads a few rows at the
cursor and a few of the small ``taken`` table, however long the queue is, and counting needs no counter.
"""

import sqlite3
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import Any

from exponea_async.errors import QueueFullError, StateConflictError, StorageError
from exponea_async.storage.base import (
    HORIZON,
    DeadLetter,
    Leased,
    Mark,
    Pending,
    Record,
    Settlement,
    State,
    StateChange,
    StateCheck,
    Written,
)

#: Bits of an id below its route's number. The first number is the time in ms, so that ids of a file that
#: replaces another one never repeat those of its predecessor.
ROUTE_SHIFT = 44
#: Ids in one statement; SQLite takes 32,766 variables at the most.
CHUNK = 500
#: Rows of one INSERT; few sizes, so that their statements stay in the connection's cache.
INSERT_SIZES = (128, 16, 1)

MIGRATIONS: tuple[str, ...] = (
    """
    CREATE TABLE route (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, cursor INTEGER NOT NULL);
    CREATE TABLE record (id INTEGER PRIMARY KEY, at REAL NOT NULL, body BLOB NOT NULL);
    CREATE TABLE taken (
        id INTEGER PRIMARY KEY, route INTEGER NOT NULL, due REAL NOT NULL,
        failures INTEGER NOT NULL, reason TEXT NOT NULL
    );
    CREATE INDEX taken_due ON taken (route, due);
    CREATE TABLE dead (
        id INTEGER PRIMARY KEY, at REAL NOT NULL, body BLOB NOT NULL, died_at REAL NOT NULL, reason TEXT NOT NULL
    );
    CREATE INDEX dead_died_at ON dead (died_at);
    CREATE TABLE state (key TEXT PRIMARY KEY, value BLOB NOT NULL, version INTEGER NOT NULL) WITHOUT ROWID;
    """,
)


class Entry:
    """One caller's write, and what came of it."""

    __slots__ = ("blocked", "error", "records", "states", "written")

    def __init__(self, records: Sequence[Record], states: Sequence[StateChange | StateCheck]) -> None:
        self.records = records
        self.states = states
        self.written: Written | None = None
        self.error: StorageError | None = None
        self.blocked = False


class Ledger(sqlite3.Connection):
    """
    A connection that runs whole jobs.

    aiosqlite pays one hop to its thread for each call. `commit` therefore runs the job that waits at the head of
    `jobs`, so that begin, statements and commit are one call together.
    """

    max_records = 1_000_000
    when_full = "raise"

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.jobs: deque[Callable[[], None]] = deque()
        self._turn = 0

    def commit(self) -> None:
        """Run the next job."""
        self.jobs.popleft()()

    def transact(self, work: Callable[[], None]) -> None:
        """Run work in a write transaction: all of it or nothing."""
        self.execute("BEGIN IMMEDIATE")
        try:
            work()
            self.execute("COMMIT")
        except BaseException:
            # A full disk may have ended the transaction already.
            if self.in_transaction:
                self.execute("ROLLBACK")
            raise

    def migrate(self, migrations: Sequence[str] = MIGRATIONS) -> None:
        """Bring the schema up to date, or refuse a file from a later version."""
        if self.schema_version() == len(migrations):
            return

        def steps() -> None:
            # Asked again inside: another process may have been faster.
            version = self.schema_version()
            if version > len(migrations):
                raise StorageError(
                    f"The queue file has schema {version}, this version knows {len(migrations)}.",
                    hint="Update exponea-async, or give another storage path.",
                )
            for script in islice(migrations, version, None):
                for statement in filter(str.strip, script.split(";")):
                    self.execute(statement)
            self.execute(f"PRAGMA user_version = {len(migrations)}")

        self.transact(steps)

    def schema_version(self) -> int:
        """Tell how many migrations this file has seen."""
        version: int = self.execute("PRAGMA user_version").fetchone()[0]
        return version

    # Writing

    def append(self, entries: Sequence[Entry]) -> None:
        """Write entries, each whole or not at all; inside a transaction."""
        room = self._room() if entries else 0
        batch = _Batch(self)
        versions: dict[str, int] = {}
        for entry in entries:
            entry.written, entry.error, entry.blocked = None, None, False
            count = len(entry.records)
            if entry.states and not self._agree(entry, versions):
                continue
            if count and count > room and not self._make_room(entry, count, room, batch):
                continue
            if entry.states:
                self._change_states(entry.states, versions)
            dropped = entry.written.dropped if entry.written else ()
            entry.written = Written(tuple(map(batch.add, entry.records)), dropped)
            room += len(dropped) - count
        batch.insert()

    def _room(self) -> int:
        waiting = self.execute("SELECT count(*) FROM taken").fetchone()[0]
        return self.max_records - int(waiting) - sum(last - cursor for _, _, last, cursor in self._routes())

    def _make_room(self, entry: Entry, count: int, room: int, batch: "_Batch") -> bool:
        if count > self.max_records or self.when_full == "raise":
            entry.error = QueueFullError(
                f"The queue is full: it may hold {self.max_records} records.",
                hint='Wait for uploads, raise QueueSettings.max_records, or set when_full to "wait" or "drop_oldest".',
            )
        elif self.when_full == "wait":
            entry.blocked = True
        else:
            batch.insert()
            entry.written = Written((), tuple(map(str, self._drop_oldest(count - max(0, room)))))
        return entry.written is not None

    def _drop_oldest(self, count: int) -> list[int]:
        """Delete the oldest untouched records; those in somebody's hands only when no others are left."""
        dropped: list[int] = []
        heads = self.execute(
            "SELECT t.id, t.cursor, (SELECT at FROM record WHERE id > t.cursor ORDER BY id LIMIT 1)"
            " FROM route t ORDER BY 3"
        ).fetchall()
        for number, cursor, _ in heads:
            ids = self._ids(
                "SELECT id FROM record WHERE id > ? AND id < ? ORDER BY id LIMIT ?",
                cursor,
                (number + 1) << ROUTE_SHIFT,
                count - len(dropped),
            )
            if ids:
                self.execute("UPDATE route SET cursor = ? WHERE id = ?", (ids[-1], number))
                dropped += ids
        dropped += self._ids("SELECT id FROM taken ORDER BY id LIMIT ?", count - len(dropped))
        self._remove(dropped)
        return dropped

    def _agree(self, entry: Entry, versions: dict[str, int]) -> bool:
        """Hold an entry's states against the stored versions, each looked up once in a transaction."""
        for state in entry.states:
            version = versions.get(state.key)
            if version is None:
                row = self.execute("SELECT version FROM state WHERE key = ?", (state.key,)).fetchone()
                version = versions[state.key] = row[0] if row else 0
            if version != state.version:
                entry.error = StateConflictError(state.key)
                return False
        return True

    def _change_states(self, states: Sequence[StateChange | StateCheck], versions: dict[str, int]) -> None:
        for state in states:
            if isinstance(state, StateCheck):
                continue
            if state.value is None:
                self.execute("DELETE FROM state WHERE key = ?", (state.key,))
                versions[state.key] = 0
            else:
                versions[state.key] = state.version + 1
                self.execute(
                    "INSERT OR REPLACE INTO state VALUES (?, ?, ?)", (state.key, state.value, state.version + 1)
                )

    # Leasing and settling

    def lease(self, limit: int, due: float, now: float, skip: frozenset[str], only: str | None) -> list[Leased]:
        """Take due records; inside a transaction."""
        routes = [route for route in self._routes() if route[1] not in skip and only in (None, route[1])]
        taken: list[Leased] = []
        # Routes take turns at being first, so that a busy one does not starve the others.
        self._turn += 1
        for place in range(len(routes)):
            number, name, last, cursor = routes[(place + self._turn) % len(routes)]
            if len(taken) < limit:
                taken += self._lease_again(number, name, limit - len(taken), due, now)
            if len(taken) < limit and last > cursor:
                taken += self._lease_first(number, name, limit - len(taken), due, cursor)
        return taken

    def _lease_again(self, number: int, name: str, limit: int, due: float, now: float) -> list[Leased]:
        rows = self.execute(
            "SELECT t.id, r.body, r.at, t.failures FROM taken t JOIN record r ON r.id = t.id"
            " WHERE t.route = ? AND t.due <= ? ORDER BY t.due LIMIT ?",
            (number, now, limit),
        ).fetchall()
        rows += self.execute(
            "SELECT t.id, r.body, r.at, t.failures FROM taken t JOIN record r ON r.id = t.id"
            " WHERE t.route = ? AND t.due > ? LIMIT ?",
            (number, now + HORIZON, limit - len(rows)),
        ).fetchall()
        for marks, ids in _chunks([row[0] for row in rows]):
            self.execute(f"UPDATE taken SET due = ? WHERE id IN ({marks})", (due, *ids))
        return [Leased(str(key), name, body, at, failures) for key, body, at, failures in rows]

    def _lease_first(self, number: int, name: str, limit: int, due: float, cursor: int) -> list[Leased]:
        rows = self.execute(
            "SELECT id, body, at FROM record WHERE id > ? AND id < ? ORDER BY id LIMIT ?",
            (cursor, (number + 1) << ROUTE_SHIFT, limit),
        ).fetchall()
        last = rows[-1][0]
        self.execute(
            "INSERT INTO taken SELECT id, ?, ?, 0, '' FROM record WHERE id > ? AND id <= ?",
            (number, due, cursor, last),
        )
        self.execute("UPDATE route SET cursor = ? WHERE id = ?", (last, number))
        return [Leased(str(key), name, body, at, 0) for key, body, at in rows]

    def has_due(self, now: float, skip: frozenset[str], only: str | None) -> bool:
        """Tell whether a lease would find anything, without taking the write lock."""
        for number, name, last, cursor in self._routes():
            if name in skip or only not in (None, name):
                continue
            if last > cursor:
                return True
            sql = "SELECT 1 FROM taken WHERE route = ? AND (due <= ? OR due > ?) LIMIT 1"
            if self.execute(sql, (number, now, now + HORIZON)).fetchone():
                return True
        return False

    def settle(self, settlement: Settlement) -> int:
        """Act on one verdict; inside a transaction."""
        ids = list(map(int, settlement.ids))
        if settlement.verdict == "later":
            self._put_off(ids, settlement)
            return 0
        if settlement.verdict == "dead":
            for marks, some in _chunks(ids):
                self.execute(
                    f"INSERT OR IGNORE INTO dead SELECT id, at, body, ?, ? FROM record WHERE id IN ({marks})",
                    (time.time(), settlement.reason, *some),
                )
        return self._remove(ids)

    def _put_off(self, ids: list[int], settlement: Settlement) -> None:
        for marks, some in _chunks(ids):
            self.execute(
                f"UPDATE taken SET due = ?, failures = ?, reason = ? WHERE id IN ({marks})",
                (settlement.due, settlement.failures, settlement.reason, *some),
            )

    def _remove(self, ids: list[int]) -> int:
        if not ids:
            return 0
        ids = sorted(ids)
        if ids[-1] - ids[0] == len(ids) - 1:
            # The usual case, a batch delivered whole, is one range.
            self.execute("DELETE FROM taken WHERE id BETWEEN ? AND ?", (ids[0], ids[-1]))
            return self.execute("DELETE FROM record WHERE id BETWEEN ? AND ?", (ids[0], ids[-1])).rowcount
        removed = 0
        for marks, some in _chunks(ids):
            self.execute(f"DELETE FROM taken WHERE id IN ({marks})", some)
            removed += self.execute(f"DELETE FROM record WHERE id IN ({marks})", some).rowcount
        return removed

    # Looking

    def _routes(self) -> list[tuple[int, str, int, int]]:
        """Tell each route's number, name, last id and cursor."""
        return [
            (number, name, self._last(number, cursor), cursor)
            for number, name, cursor in self.execute("SELECT id, name, cursor FROM route")
        ]

    def _last(self, number: int, cursor: int) -> int:
        row = self.execute(
            "SELECT id FROM record WHERE id > ? AND id < ? ORDER BY id DESC LIMIT 1",
            (cursor, (number + 1) << ROUTE_SHIFT),
        ).fetchone()
        return int(row[0]) if row else cursor

    def _ids(self, sql: str, *values: int) -> list[int]:
        return [row[0] for row in self.execute(sql, values)]

    def route_end(self, name: str) -> tuple[int, int]:
        """Tell a route's number and last id, making the route if it is new; inside a transaction."""
        row = self.execute("SELECT id, cursor FROM route WHERE name = ?", (name,)).fetchone()
        if row:
            return row[0], self._last(*row)
        number = self.execute("SELECT coalesce(max(id), 0) + 1 FROM route").fetchone()[0]
        start = (number << ROUTE_SHIFT) + int(time.time() * 1000)
        self.execute("INSERT INTO route VALUES (?, ?, ?)", (number, name, start))
        return number, start

    def mark(self) -> Mark:
        """Tell each route's last id."""
        return {name: str(last) for _, name, last, _ in self._routes()}

    def remaining(self, mark: Mark, skip: frozenset[str]) -> int:
        """Count what is left at or below a mark."""
        left = 0
        for number, name, _, cursor in self._routes():
            if name in mark and name not in skip:
                end = int(mark[name])
                sql = "SELECT count(*) FROM taken WHERE route = ? AND id <= ?"
                left += max(0, end - cursor) + self.execute(sql, (number, end)).fetchone()[0]
        return left

    def pending(self) -> Pending:
        """Count everything."""
        held = dict(self.execute("SELECT route, count(*) FROM taken GROUP BY route"))
        routes = {name: last - cursor + held.get(number, 0) for number, name, last, cursor in self._routes()}
        dead = self.execute("SELECT count(*) FROM dead").fetchone()[0]
        return Pending(sum(routes.values()), sum(held.values()), dead, routes)

    def find(self, ids: Iterable[str]) -> dict[str, str]:
        """Tell the fate of records."""
        wanted = _numbers(ids)
        fates: dict[str, str] = {}
        for marks, some in _chunks(wanted):
            fates.update(
                (str(row[0]), "queued") for row in self.execute(f"SELECT id FROM record WHERE id IN ({marks})", some)
            )
            fates.update(
                (str(key), reason)
                for key, reason in self.execute(f"SELECT id, reason FROM dead WHERE id IN ({marks})", some)
            )
        return fates

    def waiting(self, limit: int) -> list[Leased]:
        """Look at the oldest records."""
        names = dict(self.execute("SELECT id, name FROM route"))
        rows = self.execute(
            "SELECT r.id, r.body, r.at, coalesce(t.failures, 0) FROM record r LEFT JOIN taken t ON t.id = r.id"
            " ORDER BY r.id LIMIT ?",
            (limit,),
        )
        return [Leased(str(key), names[key >> ROUTE_SHIFT], body, at, failures) for key, body, at, failures in rows]

    def dead(self, limit: int) -> list[DeadLetter]:
        """Look at the newest dead letters."""
        names = dict(self.execute("SELECT id, name FROM route"))
        rows = self.execute(
            "SELECT id, body, at, died_at, reason FROM dead ORDER BY died_at DESC, id DESC LIMIT ?", (limit,)
        )
        return [DeadLetter(str(key), names[key >> ROUTE_SHIFT], *rest) for key, *rest in rows]

    def load_state(self, key: str) -> State | None:
        """Look a state up."""
        row = self.execute("SELECT value, version FROM state WHERE key = ?", (key,)).fetchone()
        return State(*row) if row else None

    # Repair

    def revive(self, ids: Iterable[str] | None) -> int:
        """Put dead letters back, due at once; inside a transaction."""
        # Below the cursor again, so they need their rows in `taken`.
        revived = 0
        for clause, values in _selection(ids):
            self.execute(f"INSERT OR IGNORE INTO record SELECT id, at, body FROM dead{clause}", values)
            self.execute(
                f"INSERT OR IGNORE INTO taken SELECT id, id >> {ROUTE_SHIFT}, 0, 0, '' FROM dead{clause}",
                values,
            )
            revived += self.execute(f"DELETE FROM dead{clause}", values).rowcount
        return revived

    def purge(self, ids: Iterable[str] | None) -> int:
        """Delete dead letters; inside a transaction."""
        return sum(self.execute(f"DELETE FROM dead{clause}", values).rowcount for clause, values in _selection(ids))

    def wipe(self) -> None:
        """Delete everything, from the disk too."""

        def work() -> None:
            for table in ("record", "taken", "dead", "state", "route"):
                self.execute(f"DELETE FROM {table}")

        # Else the bytes stay in free pages and in the write-ahead log.
        self.execute("PRAGMA secure_delete = ON")
        self.transact(work)
        self.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        self.execute("PRAGMA secure_delete = OFF")


class _Batch:
    """Rows gathered for as few INSERTs as can be."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._last: dict[str, int] = {}
        self._values: list[int | float | bytes] = []

    def add(self, record: Record) -> str:
        """Give a record the next id of its route."""
        route = record.route
        last = self._last.get(route)
        if last is None:
            last = self._ledger.route_end(route)[1]
        self._last[route] = last = last + 1
        self._values += (last, record.at, record.body)
        return str(last)

    def insert(self) -> None:
        """Write what has gathered."""
        values, start = self._values, 0
        for size in INSERT_SIZES:
            sql = "INSERT INTO record VALUES " + ",".join(["(?,?,?)"] * size)
            while len(values) - start >= size * 3:
                self._ledger.execute(sql, values[start : start + size * 3])
                start += size * 3
        self._values = []


def _chunks(ids: Sequence[int]) -> Iterator[tuple[str, Sequence[int]]]:
    for start in range(0, len(ids), CHUNK):
        some = ids[start : start + CHUNK]
        yield ",".join("?" * len(some)), some


def _numbers(ids: Iterable[str]) -> list[int]:
    """Read ids, passing over what can't be one of ours."""
    return [int(key) for key in ids if key.isdecimal() and len(key) < 19]


def _selection(ids: Iterable[str] | None) -> Iterator[tuple[str, Sequence[int]]]:
    """Make the WHERE clauses that name some dead letters, or all."""
    if ids is None:
        yield "", ()
        return
    for marks, some in _chunks(_numbers(ids)):
        yield f" WHERE id IN ({marks})", some
