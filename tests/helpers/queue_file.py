"""
A client's queue file that fails, and that another process holds.
"""

import sqlite3
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path

from exponea_async._pipeline.commands import event_command
from exponea_async.storage.base import StateChange
from exponea_async.storage.sqlite import folder
from exponea_async.storage.sqlite.schema import MIGRATIONS, ROUTE_SHIFT, migrate
from exponea_async.storage.sqlite.storage import SQLiteStorage


@contextmanager
def failing(path: Path, statement: str = "INSERT ON record", *, unexpected: bool = False) -> Iterator[None]:
    """
    Make all statements of a kind fail within the block, in every process that has the file open.

    Args:
        path: The file.
        statement: The kind of statement and its table, such as ``"DELETE ON record"``.
        unexpected: Whether the error is one that SQLite never raises for correct code, as after a fault in the package;
            otherwise it is reported as a `StorageError`.
    """
    action = "SELECT RAISE(ABORT, 'unexpected')" if unexpected else "INSERT INTO missing VALUES (1)"
    _run(path, f'CREATE TRIGGER "failing {statement}" BEFORE {statement} BEGIN {action}; END')
    try:
        yield
    finally:
        _run(path, f'DROP TRIGGER "failing {statement}"')


@contextmanager
def unreadable(path: Path) -> Iterator[None]:
    """Make all reads of the queue fail within the block, as a faulty disk does."""
    _run(path, "ALTER TABLE route RENAME TO hidden")
    try:
        yield
    finally:
        _run(path, "ALTER TABLE hidden RENAME TO route")


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock of writers on a file within the block, as another process may."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        yield
        connection.execute("ROLLBACK")


@contextmanager
def folder_locked(path: Path) -> Iterator[None]:
    """Hold the lock on a file's folder within the block, as a process does that is about to replace the file."""
    is_held, end = threading.Event(), threading.Event()

    def hold() -> None:
        with folder.locked(path.parent):
            is_held.set()
            end.wait()

    thread = threading.Thread(target=hold)
    thread.start()
    is_held.wait()
    try:
        yield
    finally:
        end.set()
        thread.join()


def stored_state(path: Path, key: str) -> bytes | None:
    """Return what is stored under a key, or None."""
    with closing(sqlite3.connect(path)) as connection:
        row = connection.execute("SELECT value FROM state WHERE key = ?", (key,)).fetchone()
    return row[0] if row else None


def stored_bodies(path: Path) -> list[bytes]:
    """Return the encoded commands in the queue, in order."""
    with closing(sqlite3.connect(path)) as connection:
        return [body for (body,) in connection.execute("SELECT body FROM record ORDER BY id")]


async def store_states(path: Path, values: Mapping[str, bytes], active: float | None = None) -> None:
    """
    Store new states under their keys.

    Args:
        path: The file.
        values: What to store, by key.
        active: The time of the last activity of all of them, UNIX seconds.
    """
    storage = SQLiteStorage(path)
    await storage.open()
    try:
        await storage.write((), [StateChange(key, value, 0, active) for key, value in values.items()])
    finally:
        await storage.aclose()


def write_version_1(path: Path, records: Mapping[str, int], states: Mapping[str, bytes], *, leased: int = 0) -> None:
    """
    Write a file as the first version of this package did, in which a route was the URL of the endpoint.

    Args:
        path: The file.
        records: The number of events by route; they have consecutive numbers as a property.
        states: What is stored, by key.
        leased: How many of each route's events have been leased, and are due again.
    """
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        migrate(connection, MIGRATIONS[:1])
        number = 0
        for route, (name, count) in enumerate(records.items(), start=7):
            start = route << ROUTE_SHIFT
            connection.execute("INSERT INTO route VALUES (?, ?, ?)", (route, name, start + leased))
            for key in range(start + 1, start + count + 1):
                body = event_command(b'{"registered":"jane"}', b'"ping"', 1e9 + number, b'"number":%d' % number)
                connection.execute("INSERT INTO record VALUES (?, ?, ?)", (key, time.time(), body))
                number += 1
            rows = [(key, route) for key in range(start + 1, start + leased + 1)]
            connection.executemany("INSERT INTO taken VALUES (?, ?, 0, 0, '')", rows)
        connection.execute("INSERT INTO counter VALUES ('route', ?)", (7 + len(records),))
        for state, value in states.items():
            connection.execute("INSERT INTO state (key, value, version) VALUES (?, ?, 1)", (state, value))


async def wipe(path: Path) -> None:
    """Delete everything."""
    storage = SQLiteStorage(path)
    await storage.open()
    try:
        await storage.wipe()
    finally:
        await storage.aclose()


def lose_rows(path: Path) -> None:
    """Delete all records and states, as they are lost with a damaged file."""
    for table in ("record", "taken", "state"):
        _run(path, f"DELETE FROM {table}")


def _run(path: Path, statement: str) -> None:
    with closing(sqlite3.connect(path, timeout=60.0, isolation_level=None)) as connection:
        connection.execute(statement)
