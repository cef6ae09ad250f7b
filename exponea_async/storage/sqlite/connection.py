"""
The connection to the queue's file: its transactions, and what is cached between them.
"""

import os
import random
import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from collections.abc import Set as AbstractSet
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import ParamSpec, TypeVar

from exponea_async.storage.clock import boot_number
from exponea_async.storage.sqlite import marks
from exponea_async.storage.sqlite.folder import locked_if_possible
from exponea_async.storage.sqlite.hold import Hold
from exponea_async.storage.sqlite.marks import Outcome
from exponea_async.storage.sqlite.patience import Patience
from exponea_async.storage.sqlite.schema import RATE, ROUTE_SHIFT

K = TypeVar("K", int, str)
P = ParamSpec("P")
T = TypeVar("T")

#: Ids in one statement; SQLite accepts at most 32,766 variables.
IDS_PER_STATEMENT = 500
#: From how many ids on, on average, ranges of ids are deleted one by one instead of single ids in long statements.
IDS_PER_RANGE = 8
#: How long SQLite itself waits for another program's lock, in seconds; see `QueueConnection.patiently`.
LOCK_STEP = 0.05
#: The largest log, in bytes. It grows beyond a few MB only while another program reads the file all the time.
MAX_LOG_SIZE, MIN_LOG_SIZE = 256_000_000, 8_000_000
#: After how many calls of `QueueConnection.mark` the marks are counted, and trimmed if there are too many.
MARKS_PER_TRIM = 1_000


class MovedFileError(Exception):
    """
    What is written is not in the file that other processes open.

    The file at the path, or its write-ahead log, is not the one that is open: it was moved by another process, or
    deleted.
    """


class Route:
    """
    A route as the file has it.

    Attributes:
        number: Its number, in the upper bits of its records' ids.
        name: Its name.
        cursor: The highest id that was ever leased.
        last: The highest id that was ever written.
        committed: The same, without what the present transaction has written.
    """

    __slots__ = ("committed", "cursor", "last", "name", "number")

    def __init__(self, number: int, name: str, cursor: int, last: int) -> None:
        self.number = number
        self.name = name
        self.cursor = cursor
        self.last = self.committed = last

    @property
    def end(self) -> int:
        """The first id after those of this route."""
        return (self.number + 1) << ROUTE_SHIFT


class QueueConnection(sqlite3.Connection):
    """
    A connection with the queue's transactions, and with what is cached of the file between them.

    It is created and used on one thread, that of a `ConnectionThread`.

    Args:
        path: The file.
        patience: How long to wait for another program's lock on the file; None for not at all.
        max_records: The capacity of the queue.
        max_bytes: The same for the size of the file, or None.
        when_full: What happens to a write that exceeds it.

    Attributes:
        path: The file.
        inode: The inode of the file that is open, by which another file at the same path is recognized.
        log_inode: The inode of its write-ahead log, for the same purpose.
        log_size: The size of that log at the last check, in bytes.
        max_log_size: Above this size, new records are refused until the log could be emptied.
        next_reclaim: When unused space may be looked for again, in monotonic time.
        has_reserve: Whether the reserve was created, or could not be.
        is_disk_full: Whether new records are refused, because the reserve of the disk is used for the upload.
        hold: The lock that keeps that log alive.
        release: Called once the file is closed.
        max_records: The capacity of the queue.
        max_bytes: The same for the size of the file, or None.
        when_full: What happens to a write that exceeds it.
        lease_count: The number of leases so far; it decides which route comes first in the next one.
        routes: The routes that new records get, by name. This and the following attributes are valid within a
            transaction only.
        routes_by_number: All routes by number. Several of them have the same name where a route was renamed to that of
            another one.
        versions: The state versions that have been read, by key; 0 where there is no state.
        max_cached_versions: The size of that cache; an entry takes about 105 bytes, its key included, so up to 21 MB.
    """

    max_cached_versions = 200_000

    def __init__(
        self,
        path: Path | str,
        *,
        patience: Patience | None = None,
        max_records: int = 1_000_000,
        max_bytes: int | None = None,
        when_full: str = "raise",
    ) -> None:
        # Without an isolation level the sqlite3 module begins no transactions of its own. What a lost file holds is
        # read on the thread of the connection that replaces it, while its own thread is idle.
        super().__init__(str(path), timeout=LOCK_STEP, isolation_level=None, check_same_thread=False)
        self._patience = patience or Patience(0.0)
        self.path = str(path)
        self._log = f"{path}-wal"
        self.inode = self.log_inode = self.log_size = 0
        self.max_log_size = MAX_LOG_SIZE if max_bytes is None else max(max_bytes, MIN_LOG_SIZE)
        self.is_disk_full = self.has_reserve = False
        self.next_reclaim = 0.0
        self.hold: Hold | None = None
        self.release: Callable[[], None] = _nothing
        self.max_records = max_records
        self.max_bytes = max_bytes
        self.when_full = when_full
        self.lease_count = 0
        self.routes: dict[str, Route] = {}
        self.routes_by_number: dict[int, Route] = {}
        self.versions: dict[str, int] = {}
        self._leased: int | None = None
        self._data_version = -1
        self._marked = 0

    def close(self) -> None:
        """Close the file; closing it again does nothing."""
        hold, self.hold = self.hold, None
        with locked_if_possible(Path(self.path).parent) as is_locked:
            # Otherwise the log at the path may be that of a new file. SQLite would delete it all the same if the file
            # that is open was emptied by a wipe.
            may_delete_log = is_locked and self._owns_log()
            if hold and may_delete_log:
                hold.unlock()
            super().close()
        if hold and not may_delete_log:
            hold.unlock()
        if hold:
            hold.close()
        release, self.release = self.release, _nothing
        release()

    def keep_log(self, hold: Hold) -> None:
        """
        Keep the write-ahead log, which exists by now, until the connection is closed.

        Raises:
            MovedFileError: It was deleted since.
        """
        try:
            self.log_inode = Path(self._log).stat().st_ino
        except FileNotFoundError:
            raise MovedFileError("its write-ahead log was deleted while it was opened") from None
        hold.lock()
        self.hold = hold

    def check_path(self) -> None:
        """
        Make sure that what is being committed is in the file that other processes open.

        Raises:
            MovedFileError: There is another file or log at the path, or none.
        """
        try:
            # Not `Path.stat`: this runs for each commit, and takes a third of its time.
            if os.stat(self.path).st_ino != self.inode:  # noqa: PTH116
                raise MovedFileError("it was moved or deleted while it was in use")
            log = os.stat(self._log)  # noqa: PTH116
            self.log_size = log.st_size
            if log.st_ino != self.log_inode:
                raise MovedFileError("its write-ahead log was deleted while it was in use")
        except (FileNotFoundError, NotADirectoryError):
            raise MovedFileError("it, or its write-ahead log, was deleted while it was in use") from None
        except OSError:
            # Unknown, as after a change of the process's user; what is committed stays committed.
            return

    def _owns_log(self) -> bool:
        """Return whether the log at the path, if there is one, belongs to the file that is open."""
        try:
            if Path(self.path).stat().st_ino != self.inode:
                return False
            return Path(self._log).stat().st_ino == self.log_inode
        except FileNotFoundError:
            # Without its log, SQLite still copies what it has of it into the file.
            return Path(self.path).exists()
        except OSError:
            return False

    def measure_log(self) -> None:
        """Read the size of the write-ahead log again."""
        with suppress(OSError):
            self.log_size = Path(self._log).stat().st_size

    # Transactions

    def write_transaction(self) -> AbstractContextManager[None]:
        """Commit what is written within the context, or nothing if an exception leaves it."""
        return self._transaction("BEGIN IMMEDIATE")

    def read_transaction(self) -> AbstractContextManager[None]:
        """Let everything within the context read the same state of the file."""
        return self._transaction("BEGIN")

    @contextmanager
    def _transaction(self, begin: str) -> Iterator[None]:
        try:
            self._begin(begin)
        except sqlite3.OperationalError as error:
            if primary_code(error) != sqlite3.SQLITE_BUSY:
                raise
            self.patiently(lambda: self._begin(begin))
        try:
            yield
            self.execute("COMMIT")
            for route in self.routes.values():
                route.committed = route.last
        except BaseException:
            self._data_version = -1
            # A full disk may have ended the transaction already.
            if self.in_transaction:
                self.execute("ROLLBACK")
            raise

    def patiently(self, work: Callable[[], T]) -> T:
        """Run work, outside of a transaction, again and again while another program holds the lock of the file."""
        while True:
            try:
                return work()
            except sqlite3.OperationalError as error:
                # SQLite has waited for `LOCK_STEP`.
                if primary_code(error) != sqlite3.SQLITE_BUSY or self._patience.is_over():
                    raise

    def _begin(self, statement: str) -> None:
        self.execute(statement)
        try:
            # This read is the first one, for which a log may have to be recovered.
            self._reload_if_changed()
        except BaseException:
            self._data_version = -1
            # The error may have ended the transaction already.
            if self.in_transaction:
                self.execute("ROLLBACK")
            raise

    def _reload_if_changed(self) -> None:
        """Read the cached values again if another connection has changed the file."""
        (data_version,) = self.execute("PRAGMA data_version").fetchone()
        if data_version != self._data_version:
            self.reload()
            self._data_version = data_version

    def reload(self) -> None:
        """Read the cached values again."""
        self._leased = None
        self.versions.clear()
        self.routes = {}
        self.routes_by_number = {}
        for number, name, cursor in self.execute("SELECT id, name, cursor FROM route ORDER BY id").fetchall():
            self._add_route(Route(number, name, cursor, self._last_id(number, cursor)))

    def _add_route(self, route: Route) -> Route:
        self.routes[route.name] = self.routes_by_number[route.number] = route
        return route

    def _last_id(self, number: int, cursor: int) -> int:
        end = (number + 1) << ROUTE_SHIFT
        sql = "SELECT id FROM record WHERE id > ? AND id < ? ORDER BY id DESC LIMIT 1"
        row = self.execute(sql, (cursor, end)).fetchone()
        return int(row[0]) if row else cursor

    # Cached values

    def create_route(self, name: str) -> Route:
        """Create a route."""
        # The first number is random, and the first id is the time in ms, so that the ids of a file that replaces
        # another one do not repeat the ids of the old file.
        number = (self.counter("route") or random.randrange(1 << 12)) + 1  # noqa: S311 - not for secrecy
        self.set_counter("route", number)
        start = (number << ROUTE_SHIFT) + int(time.time() * 1000)
        self.execute("INSERT INTO route VALUES (?, ?, ?)", (number, name, start))
        return self._add_route(Route(number, name, start, start))

    def move_cursor(self, route: Route, cursor: int) -> None:
        """Store that a route's records up to an id are no longer untouched."""
        self.execute("UPDATE route SET cursor = ? WHERE id = ?", (cursor, route.number))
        route.cursor = cursor
        route.last = max(route.last, cursor)

    def leased(self) -> int:
        """Return the number of records that are leased or delayed: the rows of ``taken``."""
        if self._leased is None:
            self._leased = int(self.execute("SELECT count(*) FROM taken").fetchone()[0])
        return self._leased

    def add_leased(self, change: int) -> None:
        """Adjust `leased` to a change of ``taken``."""
        if self._leased is not None:
            self._leased += change

    def free_capacity(self) -> int:
        """Return how many more records fit; negative where revived records exceed the capacity."""
        return self.max_records - self.leased() - self._untouched()

    def _untouched(self) -> int:
        return sum(route.last - route.cursor for route in self.routes_by_number.values())

    def load_versions(self, keys: AbstractSet[str]) -> None:
        """Make sure that `versions` has the versions of some states; they are cached until another process writes."""
        versions = self.versions
        # Not `keys - versions.keys()`, which would go through all of the cached ones.
        missing = [key for key in keys if key not in versions]
        if missing and len(versions) + len(missing) > self.max_cached_versions:
            # Every other one is removed, not all, and not the oldest: callers that use more keys in turn than the
            # cache can hold must still find some of them.
            for key in list(versions)[::2]:
                del versions[key]
            missing = [key for key in keys if key not in versions]
        for placeholders, some in chunks(missing):
            versions.update(dict.fromkeys(some, 0))
            sql = f"SELECT key, CAST(version AS INTEGER) FROM state WHERE key IN ({placeholders})"
            versions.update(self.execute(sql, some).fetchall())

    def counter(self, name: str) -> int:
        """Return the value of a counter, 0 by default."""
        row = self.execute("SELECT CAST(value AS INTEGER) FROM counter WHERE name = ?", (name,)).fetchone()
        return int(row[0]) if row else 0

    def set_counter(self, name: str, value: int) -> None:
        """Set a counter."""
        self.execute("INSERT OR REPLACE INTO counter VALUES (?, ?)", (name, value))

    def check_due_times(self) -> None:
        """
        Forget all times of the machine's clock if the machine was started since.

        All records become due: the processes that had leased them are gone.
        """
        number = boot_number()
        if self.counter("boot") != number:
            with self.write_transaction():
                self.set_counter("boot", number)
                self.execute("UPDATE taken SET due = 0")
                self.execute("DELETE FROM counter WHERE substr(name, 1, ?) = ?", (len(RATE), RATE))

    def take_number(self) -> int:
        """Return a number that no other opening of the file gets; if that can't be written, the process's own."""
        sql = "INSERT INTO counter VALUES ('opened', 1) ON CONFLICT (name) DO UPDATE SET value = value + 1"
        try:
            # A transaction of its own, which does not wait long for another program's lock.
            return int(self.execute(f"{sql} RETURNING value").fetchall()[0][0]) - 1
        except sqlite3.OperationalError:
            return os.getpid()

    def raise_state_versions(self) -> None:
        """Make sure that no state of this file gets a version that it had in the file that this one replaces."""
        with self.write_transaction():
            self.set_counter("state", time.time_ns() // 1000)

    # Removing

    def remove(self, ids: Sequence[int], outcome: Outcome | None) -> int:
        """
        Delete records, leased or not.

        Args:
            ids: Their ids.
            outcome: What became of them, or None if they are now in another table.

        Returns:
            How many there were.
        """
        if not ids:
            return 0
        ids = sorted(set(ids))
        if outcome:
            self.mark(ids, outcome)
        ranges = list(marks.ranges(ids))
        if len(ranges) == 1 or len(ranges) * IDS_PER_RANGE <= len(ids):
            # The usual case: batches that were delivered as a whole are few ranges.
            return sum(self._remove("BETWEEN ? AND ?", bounds) for bounds in ranges)
        return sum(self._remove(f"IN ({placeholders})", some) for placeholders, some in chunks(ids))

    def mark(self, ids: Sequence[int], outcome: Outcome) -> None:
        """Note what became of records, whose ids are in ascending order."""
        marks.mark(self, ids, outcome)
        self._marked += 1
        if self._marked % MARKS_PER_TRIM == 0:
            marks.trim(self)

    def _remove(self, condition: str, values: Sequence[int]) -> int:
        self.add_leased(-self.execute(f"DELETE FROM taken WHERE id {condition}", values).rowcount)
        return self.execute(f"DELETE FROM record WHERE id {condition}", values).rowcount


def _nothing() -> None:
    """Do nothing."""


def primary_code(error: BaseException) -> int:
    """Return the code of one of SQLite's errors without its details, or 0 for another error."""
    # Errors that the sqlite3 module itself raises have no code. Those of the storage have SQLite's as their cause.
    cause = error if isinstance(error, sqlite3.Error) else error.__cause__
    return int(getattr(cause, "sqlite_errorcode", 0)) & 0xFF


def chunks(ids: Sequence[K]) -> Iterator[tuple[str, Sequence[K]]]:
    """Split ids, or keys, into parts for one statement each; yield the placeholders and the part."""
    for start in range(0, len(ids), IDS_PER_STATEMENT):
        some = ids[start : start + IDS_PER_STATEMENT]
        yield ",".join("?" * len(some)), some


def parse_ids(ids: Iterable[str]) -> list[int]:
    """Return ids as numbers, without those that cannot be ids of this storage."""
    keys = list(ids)
    try:
        numbers = list(map(int, keys))
    except ValueError:
        numbers = [int(key) for key in keys if key.isdecimal()]
    # SQLite has no larger numbers.
    return numbers if max(numbers, default=0) < 1 << 63 else [number for number in numbers if number < 1 << 63]
