"""
Taking the content of a queue out of its file, a part at a time, while no other process can open the file.

A part is deleted here once it is stored elsewhere. Between the two it is in both places, and the file has a mark for
that time, which is the generation of the queue that the content is moved to: with it, no client opens the file.
"""

import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

from exponea_async.errors import LifecycleError
from exponea_async.storage.clock import boot_number, to_unix
from exponea_async.storage.parts import MovedLetter, MovedRecord, MovedState
from exponea_async.storage.sqlite.file import is_busy, storage_error
from exponea_async.storage.sqlite.folder import locked, locked_if_possible
from exponea_async.storage.sqlite.ownership import check_existing, delete_companions
from exponea_async.storage.sqlite.schema import MOVING, ROUTE_SHIFT, migrate, schema_version

RECORDS = """
    SELECT r.id, CAST(r.at AS REAL), r.body, t.due, coalesce(t.failures, 0), coalesce(t.reason, '')
        FROM record AS r LEFT JOIN taken AS t ON t.id = r.id WHERE r.id >= ? AND r.id < ? ORDER BY r.id LIMIT ?
"""
DEAD = """
    SELECT id, CAST(at AS REAL), body, CAST(died_at AS REAL), reason
        FROM dead WHERE id >= ? AND id < ? ORDER BY id LIMIT ?
"""


class MovableFile:
    """
    The file of a queue that no process has open, and that none can open meanwhile; to be used by one thread at a time.

    Args:
        path: The file, which exists.

    Raises:
        LifecycleError: A process has the file open.
        StorageError: What is at the path is not a queue, or can't be read.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            # Until the file is locked: SQLite deletes the log of a new file at the path if that it opens was emptied.
            with locked(path.parent):
                check_existing(path)
                self._connection = sqlite3.connect(path, timeout=0.0, isolation_level=None, check_same_thread=False)
                try:
                    self._lock()
                except BaseException:
                    self.close()
                    raise
        except (OSError, sqlite3.Error) as error:
            raise storage_error(error, path) or error from error

    def _lock(self) -> None:
        try:
            self._connection.execute("PRAGMA locking_mode = EXCLUSIVE")
            self._connection.execute("PRAGMA synchronous = FULL")
            # What was moved must not be left in free pages.
            self._connection.execute("PRAGMA secure_delete = ON")
            self._connection.execute("BEGIN IMMEDIATE")
            self._connection.execute("COMMIT")
        except sqlite3.DatabaseError as error:
            if is_busy(error):
                raise LifecycleError(
                    f"The queue file {self.path} is open in another process.", hint="Stop all clients that use it."
                ) from None
            raise storage_error(error, self.path) or error from error

    def close(self) -> None:
        """Close the file; other processes can open it again."""
        with locked_if_possible(self.path.parent):
            self._connection.close()

    def delete(self) -> None:
        """Close and delete the file."""
        with locked(self.path.parent):
            self._connection.close()
            self.path.unlink(missing_ok=True)
            delete_companions(self.path)

    def migrate(self) -> None:
        """Bring the schema up to date, as for a move that an older version of this package has begun."""
        migrate(self._connection)

    # What is moved, and where

    @property
    def version(self) -> int:
        """The version of the schema; 0 if nothing was written yet."""
        return schema_version(self._connection)

    @property
    def generation(self) -> int:
        """The number that identifies the content of the file."""
        return self._counter("generation")

    @property
    def target(self) -> int:
        """The generation of the queue that the content is being moved to; 0 if it is not."""
        return self._counter(MOVING) if self.version else 0

    def set_target(self, generation: int) -> None:
        """Note the generation of the queue that the content is moved to; 0 lets clients open the file again."""
        self._connection.execute("DELETE FROM counter WHERE name = ?", (MOVING,))
        if generation:
            self._connection.execute("INSERT INTO counter VALUES (?, ?)", (MOVING, generation))

    def _counter(self, name: str) -> int:
        row = self._connection.execute("SELECT CAST(value AS INTEGER) FROM counter WHERE name = ?", (name,)).fetchone()
        return int(row[0]) if row else 0

    def count(self) -> tuple[int, int, int]:
        """Return the numbers of records, dead letters and states."""
        counts = [
            int(self._connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0])
            for table in ("record", "dead", "state")
        ]
        return counts[0], counts[1], counts[2]

    # Reading

    def routes(self) -> dict[int, str]:
        """Return the names of the routes by their numbers."""
        return dict(self._connection.execute("SELECT id, name FROM route ORDER BY id").fetchall())

    def records(self, route: int, limit: int) -> list[MovedRecord]:
        """Return the first records of a route."""
        rows = self._connection.execute(RECORDS, (*_bounds(route), limit)).fetchall()
        # Times of an earlier start of the machine mean nothing: such records are due.
        is_same_start = self._counter("boot") == boot_number()
        return [
            MovedRecord(key, at, body, None if due is None else to_unix(due) if due and is_same_start else 0.0, *others)
            for key, at, body, due, *others in rows
        ]

    def letters(self, route: int, limit: int) -> list[MovedLetter]:
        """Return the first dead letters of a route, by their ids."""
        return [MovedLetter(*row) for row in self._connection.execute(DEAD, (*_bounds(route), limit)).fetchall()]

    def states(self, limit: int, after: str = "") -> list[MovedState]:
        """Return the first states behind a key, in the order of their keys."""
        rows = self._connection.execute(
            "SELECT key, value, CAST(version AS INTEGER), CAST(active AS REAL)"
            " FROM state LEFT JOIN activity USING (id) WHERE key > ? ORDER BY key LIMIT ?",
            (after, limit),
        )
        return [MovedState(*row) for row in rows.fetchall()]

    # Deleting

    def delete_records(self, route: int, last: int) -> None:
        """Delete the records of a route up to an id."""
        bounds = (_bounds(route)[0], last)
        with self._transaction():
            self._connection.execute("DELETE FROM taken WHERE id >= ? AND id <= ?", bounds)
            self._connection.execute("DELETE FROM record WHERE id >= ? AND id <= ?", bounds)
            # All ids above the cursor are counted as records, and none below it is given again.
            self._connection.execute("UPDATE route SET cursor = max(cursor, ?) WHERE id = ?", (last, route))

    def delete_letters(self, route: int, last: int) -> None:
        """Delete the dead letters of a route up to an id."""
        self._connection.execute("DELETE FROM dead WHERE id >= ? AND id <= ?", (_bounds(route)[0], last))

    def delete_states(self, versions: Sequence[tuple[str, int]]) -> None:
        """Delete states that still have these versions, by key."""
        with self._transaction():
            self._connection.executemany("DELETE FROM state WHERE key = ? AND version = ?", versions)
            # The versions of new states are higher, so that none of them is mistaken for the deleted one.
            highest = max((version for _, version in versions), default=0)
            self._connection.execute("INSERT OR IGNORE INTO counter VALUES ('state', 0)")
            self._connection.execute("UPDATE counter SET value = max(value, ?) WHERE name = 'state'", (highest,))

    def compact(self) -> None:
        """Give the space of what was deleted back to the system."""
        self._connection.execute("VACUUM")

    def _transaction(self) -> sqlite3.Connection:
        self._connection.execute("BEGIN IMMEDIATE")
        # As a context manager, it commits or rolls back.
        return self._connection


def is_being_moved(path: Path) -> bool:
    """
    Return whether the content of a file is being moved.

    Raises:
        LifecycleError: A process has the file open.
        StorageError: What is at the path is not a queue, or can't be read.
    """
    with closing(MovableFile(path)) as file:
        try:
            return bool(file.target)
        except sqlite3.DatabaseError:
            # Damaged: opening it as a client does saves what can be read.
            return False


def _bounds(route: int) -> tuple[int, int]:
    return route << ROUTE_SHIFT, (route + 1) << ROUTE_SHIFT
