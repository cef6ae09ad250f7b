"""
Copying what can be read of a lost or damaged file into the file that replaces it.

The rows of a table are read from both ends of a range of keys towards a page that can't be read, and the range between
is halved, so that every row outside of such pages is found. Ids stay as they are, and what the new file knows already
is left out. So several processes that had the same file open can do this one after the other.
"""

import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

from attrs import frozen

from exponea_async.errors import DamagedFileError
from exponea_async.storage.sqlite.connection import QueueConnection
from exponea_async.storage.sqlite.marks import find_marks
from exponea_async.storage.sqlite.schema import ROUTE_SHIFT, rename_credentials

#: How often reading a table may fail without a row in between, before the rest of it is given up: more rows than fit
#: into a page.
MAX_FAILURES = 2_000
#: How far the ids of new records are from those of the old file, in which another process may have written since.
GAP = 1 << 20
#: Ids of lost records that are listed.
MAX_LISTED = 100_000
#: Rows that are copied with one statement.
CHUNK = 1_000
#: The columns of each table. The first one is the key.
COLUMNS = {
    "route": "id, name, cursor",
    "record": "id, at, body",
    "taken": "id, route, due, failures, reason",
    "dead": "id, at, body, died_at, reason",
    "state": "id, key, value, version",
    "activity": "id, active",
    "mark": "first, last, outcome, marked_at",
}

Row = tuple[Any, ...]


@frozen
class Salvaged:
    """
    What was copied.

    Attributes:
        saved: The number of records that were copied.
        lost: The ids of records that are known to be lost; the file may have held others.
        is_complete: Whether everything could be read.
    """

    saved: int = 0
    lost: tuple[str, ...] = ()
    is_complete: bool = True

    def with_more(self, other: "Salvaged") -> "Salvaged":
        """Return the sum with what a second source had, which is older."""
        return Salvaged(self.saved + other.saved, self.lost, self.is_complete)


def replaced(
    target: QueueConnection, moved_to: str, reason: str, source: QueueConnection | None = None, *, keep: bool = True
) -> DamagedFileError:
    """
    Copy what can be read of a file into the one that has replaced it, and return the report.

    Args:
        target: The connection to the new file, on its thread, outside of a transaction.
        moved_to: The path of the old file now; ``""`` if this process did not move it.
        reason: Why it was replaced.
        source: The connection to the old file, whose thread is idle; None if there is none.
        keep: Whether the old file is damaged, and kept. Otherwise it is deleted once it was copied.
    """
    target.raise_state_versions()
    # Where not even that can be opened, nobody knows what it held.
    found = salvage(source, target) if source else Salvaged(is_complete=not moved_to)
    if moved_to and (source is None or not keep):
        # Another process may have written to the file at the path since, if only the log was lost.
        with suppress(sqlite3.DatabaseError), closing(_open_read_only(moved_to)) as copy:
            more = salvage(copy, target)
            found = found.with_more(more) if source else more
        if not keep and found.is_complete:
            for suffix in ("", "-wal", "-shm"):
                Path(f"{moved_to}{suffix}").unlink(missing_ok=True)
            moved_to = ""
    return DamagedFileError(
        target.path, moved_to, reason, saved=found.saved, lost=found.lost, complete=found.is_complete
    )


def _open_read_only(path: str) -> sqlite3.Connection:
    return sqlite3.connect(f"{Path(path).absolute().as_uri()}?mode=ro", uri=True, isolation_level=None)


def salvage(source: sqlite3.Connection, target: QueueConnection) -> Salvaged:
    """Copy what can be read of one file into another one."""
    return _Salvage(source, target).run()


class _Salvage:
    def __init__(self, source: sqlite3.Connection, target: QueueConnection) -> None:
        self._reader = _Reader(source)
        # Another one, since activities are read while states are.
        self._activities = _Reader(source)
        self._target = target
        # What was written last, as the connection remembers it: the end of the table may be what can't be read.
        known = source.routes_by_number if isinstance(source, QueueConnection) else {}
        self._last = {number: route.committed for number, route in known.items()}
        self._names = {number: (route.name, 0) for number, route in known.items()}

    def run(self) -> Salvaged:
        target, reader = self._target, self._reader
        with target.write_transaction():
            self._copy_counters()
            self._copy("mark", _is_mark)
            self._copy_states()
            for number, name, cursor in reader.rows("route"):
                if _are_ints(number, cursor) and isinstance(name, str):
                    self._names[number] = (name, max(cursor, self._names.get(number, ("", 0))[1]))
            own = {number for number, (name, _) in self._names.items() if self._add_route(number, name)}
            # The damaged file may be of the first version.
            rename_credentials(target)
            saved, lost = self._copy_records(own)
            if self._reader.value("SELECT value FROM counter WHERE name = 'boot'") != target.counter("boot"):
                target.execute("UPDATE taken SET due = 0")
            self._copy("dead", self._is_new)
            target.reload()
        return Salvaged(saved, lost, not (reader.failures or self._activities.failures))

    # Tables

    def _copy(self, table: str, is_wanted: Callable[[Row], bool]) -> None:
        columns = COLUMNS[table]
        sql = f"INSERT OR IGNORE INTO {table} ({columns}) VALUES ({','.join('?' * (columns.count(',') + 1))})"
        for rows in _chunks(self._reader.rows(table)):
            self._target.executemany(sql, [row for row in rows if is_wanted(row)])

    def _copy_states(self) -> None:
        # Their ids are given anew, in the same order. States that the file has already keep their activity.
        insert = "INSERT OR IGNORE INTO state (key, value, version) VALUES (?, ?, ?)"
        activate = "INSERT OR IGNORE INTO activity SELECT id, ?, ? FROM state WHERE key = ? AND id > ?"
        for rows in _chunks(self._reader.rows("state")):
            (last,) = self._target.execute("SELECT coalesce(max(id), 0) FROM state").fetchone()
            self._target.executemany(insert, [row[1:] for row in rows])
            activity = self._activity({row[0] for row in rows})
            active = [(activity[row[0]], activity[row[0]], row[1], last) for row in rows if row[0] in activity]
            self._target.executemany(activate, active)

    def _activity(self, ids: set[int]) -> dict[int, float]:
        """Return the last activities of states that have any."""
        # In files of older versions it is a column of the state.
        table = "activity" if self._activities.has("activity") else "state"
        rows = self._activities.rows(table, min(ids) - 1, max(ids) + 1, columns=COLUMNS["activity"])
        return {key: active for key, active in rows if key in ids and isinstance(active, float)}

    def _copy_counters(self) -> None:
        for name in ("route", "state", "wiped"):
            value = self._reader.value("SELECT value FROM counter WHERE name = ?", name)
            if isinstance(value, int):
                self._target.set_counter(name, max(value, self._target.counter(name)))

    def _add_route(self, number: int, name: str) -> bool:
        """Add a route unless the file has its number, and return whether it has this number there."""
        target = self._target
        target.execute("INSERT OR IGNORE INTO route VALUES (?, ?, ?)", (number, name, number << ROUTE_SHIFT))
        target.reload()
        if target.routes_by_number[number].name == name:
            return True
        if name not in target.routes:
            target.create_route(name)
        return False

    # Records

    def _copy_records(self, own: set[int]) -> tuple[int, tuple[str, ...]]:
        """Copy the records, and return their number and the ids of those that are known to be lost."""
        taken = {row[0]: row for row in self._reader.rows("taken") if _are_ints(*row[:2], row[3]) and None not in row}
        saved, lost = 0, []
        for number in self._names:
            low, high = number << ROUTE_SHIFT, (number + 1) << ROUTE_SHIFT
            found: list[int] = []
            for chunk in _chunks(self._reader.rows("record", low, high)):
                # A page of zeros is read as rows without values.
                rows = [row for row in chunk if None not in row]
                found += [row[0] for row in rows]
                new = self._new(rows)
                saved += len(new)
                if number in own:
                    self._insert(number, new, taken)
                else:
                    self._append(self._names[number][0], new)
            lost += self._missing(number, found, taken)
            if number in own:
                self._move_cursor(number, found)
        return saved, tuple(map(str, lost))

    def _new(self, rows: Sequence[Row]) -> list[Row]:
        """Return the records that the new file does not know."""
        if not rows:
            return []
        ids = [row[0] for row in rows]
        span = (min(ids), max(ids))
        known = {key for (key,) in self._target.execute("SELECT id FROM record WHERE id BETWEEN ? AND ?", span)}
        known.update(key for (key,) in self._target.execute("SELECT id FROM dead WHERE id BETWEEN ? AND ?", span))
        known.update(find_marks(self._target, ids))
        return [row for row in rows if row[0] not in known]

    def _insert(self, number: int, rows: Sequence[Row], taken: "dict[int, Row]") -> None:
        """Add records under their ids, all of them as leased before."""
        self._target.executemany("INSERT INTO record VALUES (?, ?, ?)", rows)
        due = [taken.get(row[0], (row[0], number, 0.0, 0, "")) for row in rows]
        self._target.executemany("INSERT OR REPLACE INTO taken VALUES (?, ?, ?, ?, ?)", due)

    def _append(self, name: str, rows: Sequence[Row]) -> None:
        """Add records to a route that another process has created under another number."""
        route = self._target.routes[name]
        for _, at, body in rows:
            route.last += 1
            self._target.execute("INSERT INTO record VALUES (?, ?, ?)", (route.last, at, body))

    def _move_cursor(self, number: int, found: Sequence[int]) -> None:
        """Move a route's cursor behind all records that it had, each of which has a row in ``taken`` now."""
        route = self._target.routes_by_number[number]
        end = max([self._names[number][1], self._last.get(number, 0), *found])
        if route.cursor < end:
            self._target.move_cursor(route, end + GAP)

    def _missing(self, number: int, found: Sequence[int], taken: "dict[int, Row]") -> list[int]:
        """Return the ids of records that the file had, and that could not be read."""
        present, cursor = set(found), self._names[number][1] or self._last.get(number, 0)
        last = max([self._last.get(number, 0), cursor, *present])
        wanted = [key for key, row in taken.items() if row[1] == number]
        wanted += range(cursor + 1, min(last, cursor + MAX_LISTED) + 1)
        missing = [key for key in dict.fromkeys(wanted) if key not in present]
        return [row[0] for row in self._new([(key,) for key in missing])]

    def _is_new(self, row: Row) -> bool:
        return row[0] >> ROUTE_SHIFT in self._target.routes_by_number and bool(self._new([row]))


class _Reader:
    """
    Reads the rows of tables with pages that can't be read.

    Args:
        source: The file.

    Attributes:
        failures: How often reading has failed.
    """

    def __init__(self, source: sqlite3.Connection) -> None:
        self._source = source
        self.failures = 0
        self._limit = MAX_FAILURES
        self._has_failed = False
        # Finds damaged rows in pages that are read.
        self.value("PRAGMA cell_size_check = ON")
        # Otherwise SQLite reads no page of a file that is shorter than its header says.
        self.value("PRAGMA writable_schema = ON")

    def value(self, sql: str, *arguments: object) -> object:
        """Return the first value of a query, or None."""
        try:
            row = self._source.execute(sql, arguments).fetchone()
        except sqlite3.DatabaseError:
            self.failures += 1
            return None
        return row[0] if row else None

    def has(self, table: str) -> bool:
        """Return whether the file has a table, or may have it: files of older versions have fewer tables."""
        return self.value("SELECT count(*) FROM sqlite_master WHERE name = ?", table) != 0

    def rows(self, table: str, low: int = -1, high: int = 1 << 62, *, columns: str = "") -> Iterator[Row]:
        """Yield the rows of a table with keys between two bounds."""
        self._limit = self.failures + MAX_FAILURES
        if self.has(table):
            columns = columns or COLUMNS[table]
            key = columns.partition(",")[0]
            yield from self._between(
                f"SELECT {columns} FROM {table} WHERE {key} > ? AND {key} < ? ORDER BY {key}", low, high
            )

    def _between(self, sql: str, low: int, high: int) -> Iterator[Row]:
        for row in self._until_failure(sql, low, high):
            yield row
            low = row[0]
        if not self._has_failed:
            return
        for row in self._until_failure(f"{sql} DESC", low, high):
            yield row
            high = row[0]
        middle = (low + high) // 2
        if high - low > 2 and self._has_failed and self.failures < self._limit:
            yield from self._between(sql, low, middle + 1)
            yield from self._between(sql, middle, high)

    def _until_failure(self, sql: str, low: int, high: int) -> Iterator[Row]:
        self._has_failed = False
        try:
            for row in self._source.execute(sql, (low, high)):
                yield row
                self._limit = self.failures + MAX_FAILURES
        except sqlite3.DatabaseError:
            self._has_failed = True
            self.failures += 1


def _is_mark(row: Row) -> bool:
    return _are_ints(*row[:2]) and row[2] in ("delivered", "rejected", "dropped")


def _are_ints(*values: object) -> bool:
    return all(type(value) is int for value in values)


def _chunks(rows: Iterator[Row]) -> Iterator[list[Row]]:
    chunk: list[Row] = []
    for row in rows:
        chunk.append(row)
        if len(chunk) == CHUNK:
            yield chunk
            chunk = []
    if chunk:
        yield chunk
