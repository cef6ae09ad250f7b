"""
The connection to the queue's file: transactions, and what is known of the file between them.

Everything here runs on the connection's own thread.
"""

import os
import random
import sqlite3
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from collections.abc import Set as AbstractSet
from typing import Any, TypeVar

from exponea_async.storage.sqlite.schema import ROUTE_SHIFT

K = TypeVar("K", int, str)
T = TypeVar("T")

#: Ids in one statement; SQLite takes 32,766 variables at the most.
CHUNK = 500
#: State versions kept in memory between transactions: at about 105 bytes each, keys included, up to 21 MB.
VERSIONS = 200_000


class MovedFileError(Exception):
    """The file at the path is no longer the one that is open: another process has moved it, or somebody deleted it."""


class Route:
    """A route's place in the file."""

    __slots__ = ("cursor", "last", "name", "number")

    def __init__(self, number: int, name: str, cursor: int, last: int) -> None:
        self.number = number
        self.name = name
        self.cursor = cursor
        self.last = last

    @property
    def end(self) -> int:
        """The first id past those of this route."""
        return (self.number + 1) << ROUTE_SHIFT


class QueueConnection(sqlite3.Connection):
    """
    A connection that runs whole jobs.

    aiosqlite pays one hop to its thread for each call. `commit` therefore runs the job that waits at the head of
    `jobs`, so that begin, statements and commit are one call together.

    Attributes:
        path: The file.
        inode: The number of the file that was opened, by which another file at the same path is told from it.
        max_records: How many records may wait.
        when_full: What happens to a write without room.
        jobs: What the next calls of `commit` run.
        turn: Rises with each lease, so that routes take turns at being first.
        routes: All routes by name; as the other fields below, valid within a transaction only.
        numbers: All routes by number.
        versions: State versions that have been looked up, by key; 0 where there is none.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.path = ""
        self.inode = 0
        self.max_records = 1_000_000
        self.when_full = "raise"
        self.jobs: deque[Callable[[], None]] = deque()
        self.turn = 0
        self.routes: dict[str, Route] = {}
        self.numbers: dict[int, Route] = {}
        self.versions: dict[str, int] = {}
        self._taken: int | None = None
        self._seen = -1

    def commit(self) -> None:
        """Run the next job."""
        self.jobs.popleft()()

    def check_place(self) -> None:
        """
        Make sure that what was just committed lies where others look for it.

        Raises:
            MovedFileError: It lies elsewhere.
        """
        try:
            if os.stat(self.path).st_ino == self.inode:  # noqa: PTH116 - a third of the price, paid for each commit
                return
        except (FileNotFoundError, NotADirectoryError):
            pass
        except OSError:
            # It can't be told, as after a change of the user; what is committed stays committed.
            return
        raise MovedFileError("it has been moved or deleted meanwhile")

    # Transactions

    def transact(self, work: "Callable[[QueueConnection], T]") -> T:
        """Run work in a write transaction: all of it or nothing."""
        return self._run("BEGIN IMMEDIATE", work)

    def look(self, work: "Callable[[QueueConnection], T]") -> T:
        """Run work that only reads, on one state of the file."""
        return self._run("BEGIN", work)

    def _run(self, begin: str, work: "Callable[[QueueConnection], T]") -> T:
        self.execute(begin)
        try:
            self._refresh()
            result = work(self)
            self.execute("COMMIT")
        except BaseException:
            self._seen = -1
            # A full disk may have ended the transaction already.
            if self.in_transaction:
                self.execute("ROLLBACK")
            raise
        return result

    def _refresh(self) -> None:
        """Read anew what is known between transactions, if another connection has changed the file."""
        (seen,) = self.execute("PRAGMA data_version").fetchone()
        if seen != self._seen:
            self.reload()
            self._seen = seen

    def reload(self) -> None:
        """Read anew what is known between transactions."""
        self._taken = None
        self.versions.clear()
        self.routes = {}
        self.numbers = {}
        for number, name, cursor in self.execute("SELECT id, name, cursor FROM route ORDER BY id").fetchall():
            self._learn(Route(number, name, cursor, self._last(number, cursor)))

    def _learn(self, route: Route) -> Route:
        self.routes[route.name] = self.numbers[route.number] = route
        return route

    def _last(self, number: int, cursor: int) -> int:
        end = (number + 1) << ROUTE_SHIFT
        sql = "SELECT id FROM record WHERE id > ? AND id < ? ORDER BY id DESC LIMIT 1"
        row = self.execute(sql, (cursor, end)).fetchone()
        return int(row[0]) if row else cursor

    # What is known

    def make_route(self, name: str) -> Route:
        """Make a route that is not there yet."""
        # The first number is any, and the first id the time in ms, so that the ids of a file that replaces another
        # one don't repeat those of its predecessor.
        number = (self.counter("route") or random.randrange(1 << 12)) + 1  # noqa: S311 - nothing to guess
        self.set_counter("route", number)
        start = (number << ROUTE_SHIFT) + int(time.time() * 1000)
        self.execute("INSERT INTO route VALUES (?, ?, ?)", (number, name, start))
        return self._learn(Route(number, name, start, start))

    def move_cursor(self, route: Route, cursor: int) -> None:
        """Remember that a route's records up to an id are no longer untouched."""
        self.execute("UPDATE route SET cursor = ? WHERE id = ?", (cursor, route.number))
        route.cursor = cursor
        route.last = max(route.last, cursor)

    def taken(self) -> int:
        """Tell how many records have rows in ``taken``."""
        if self._taken is None:
            self._taken = int(self.execute("SELECT count(*) FROM taken").fetchone()[0])
        return self._taken

    def count_taken(self, change: int) -> None:
        """Follow a change of ``taken``."""
        if self._taken is not None:
            self._taken += change

    def room(self) -> int:
        """Tell how many records may still come; negative where revived ones are too many."""
        return self.max_records - self.taken() - sum(route.last - route.cursor for route in self.routes.values())

    def look_versions_up(self, keys: AbstractSet[str]) -> None:
        """Make sure that `versions` tells those of some states; they are remembered until somebody else writes."""
        versions = self.versions
        # Subtracting the dictionary's keys would go through all of them.
        unknown = [key for key in keys if key not in versions]
        if unknown and len(versions) + len(unknown) > VERSIONS:
            # Not all, nor the oldest: who goes round more keys than there is room for shall still find some of them.
            for key in list(versions)[::2]:
                del versions[key]
            unknown = [key for key in keys if key not in versions]
        for marks, some in chunks(unknown):
            versions.update(dict.fromkeys(some, 0))
            versions.update(self.execute(f"SELECT key, version FROM state WHERE key IN ({marks})", some).fetchall())

    def counter(self, name: str) -> int:
        """Tell a counter's value."""
        row = self.execute("SELECT value FROM counter WHERE name = ?", (name,)).fetchone()
        return int(row[0]) if row else 0

    def start_over(self) -> None:
        """Make sure that in a file that replaces another one no state has a version that it had there."""
        self.transact(lambda ledger: ledger.set_counter("state", int(time.time())))

    def set_counter(self, name: str, value: int) -> None:
        """Set a counter."""
        self.execute("INSERT OR REPLACE INTO counter VALUES (?, ?)", (name, value))

    # Removing

    def remove(self, ids: Sequence[int]) -> int:
        """Delete records, taken or not; returns how many were there."""
        if not ids:
            return 0
        ids = sorted(set(ids))
        if ids[-1] - ids[0] == len(ids) - 1:
            # The usual case, a batch delivered whole, is one range.
            return self._remove("BETWEEN ? AND ?", (ids[0], ids[-1]))
        return sum(self._remove(f"IN ({marks})", some) for marks, some in chunks(ids))

    def _remove(self, clause: str, values: Sequence[int]) -> int:
        self.count_taken(-self.execute(f"DELETE FROM taken WHERE id {clause}", values).rowcount)
        return self.execute(f"DELETE FROM record WHERE id {clause}", values).rowcount


def chunks(ids: Sequence[K]) -> Iterator[tuple[str, Sequence[K]]]:
    """Cut ids, or keys, into parts for one statement each, with their placeholders."""
    for start in range(0, len(ids), CHUNK):
        some = ids[start : start + CHUNK]
        yield ",".join("?" * len(some)), some


def numbers(ids: Iterable[str]) -> list[int]:
    """Read ids, passing over what can't be one of ours."""
    keys = list(ids)
    try:
        found = list(map(int, keys))
    except ValueError:
        found = [int(key) for key in keys if key.isdecimal()]
    # A larger one would be too much for SQLite.
    return found if max(found, default=0) < 1 << 63 else [number for number in found if number < 1 << 63]
