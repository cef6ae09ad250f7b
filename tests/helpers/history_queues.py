"""
The queues of random histories: in a file, or in PostgreSQL.
"""

import sqlite3
import subprocess
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, Protocol

import psycopg
from attrs import define
from psycopg import sql

from exponea_async import PostgresSettings
from helpers.queue_file import locked

WAITING = """
    SELECT count(*), convert_from(route.name, 'UTF8'), min(due), max(due), failures, reason
        FROM taken JOIN route ON route.id = taken.route GROUP BY 2, 5, 6
"""
#: Sequences would give the numbers of copied rows again.
SET_SEQUENCES = """
    SELECT setval(pg_get_serial_sequence(%(new)s || '.queue', 'id'), 1 + (SELECT count(*) FROM queue));
    SELECT setval(pg_get_serial_sequence(%(new)s || '.route', 'id'), 1 + (SELECT coalesce(max(id), 0) FROM route));
    SELECT setval(%(new)s || '.client_number', (SELECT last_value + 1 FROM client_number))
"""


class HistoryQueue(Protocol):
    """The queue that the clients of a history share."""

    @property
    def settings(self) -> dict[str, Any]:
        """The settings that select it."""
        ...

    def count(self) -> int:
        """Return the number of records."""
        ...

    def waiting(self) -> list[tuple[Any, ...]]:
        """Return how many records wait, when they are due and why."""
        ...

    def go_on_with_copy(self) -> None:
        """Select a copy of the queue as it is now, and leave the present one to clients that count as killed."""
        ...

    def forget_killed(self) -> None:
        """Let killed clients count as gone: they are not told from running ones for a while."""
        ...


@define
class FileQueue:
    """A queue in a file."""

    folder: Path
    _files: int = 0

    @property
    def path(self) -> Path:
        """The file."""
        return self.folder / f"queue-{self._files}.sqlite"

    @property
    def settings(self) -> dict[str, Any]:
        """The settings that select it."""
        return {"storage": self.path}

    def count(self) -> int:
        """Return the number of records."""
        if not self.path.exists():
            return 0
        with closing(sqlite3.connect(self.path)) as connection:
            return int(connection.execute("SELECT count(*) FROM record").fetchone()[0])

    def waiting(self) -> list[tuple[Any, ...]]:
        """Return how many records wait, when they are due and why."""
        due = time.clock_gettime(time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else time.monotonic()
        text = (
            f"SELECT count(*), route.name, min(due) - {due}, max(due) - {due}, failures, reason FROM taken JOIN route"
        )
        with closing(sqlite3.connect(self.path)) as connection:
            return connection.execute(f"{text} ON route.id = taken.route GROUP BY 2, 5, 6").fetchall()

    def go_on_with_copy(self) -> None:
        """Select a copy of the file as it is now."""
        before = self.path
        with locked(before):
            self._files += 1
            # Not in this process: closing the file would release the locks that SQLite has on it.
            for part in ("", "-wal"):
                subprocess.run(["cp", f"{before}{part}", f"{self.path}{part}"], check=True)

    def forget_killed(self) -> None:
        """Do nothing: the locks of killed processes are gone."""


@define
class PostgresQueue:
    """A queue in a schema of PostgreSQL, with further schemas for its copies."""

    url: str
    schema: str
    _copies: int = 0

    @property
    def current(self) -> str:
        """The name of the present schema."""
        return f"{self.schema}_{self._copies}"

    @property
    def settings(self) -> dict[str, Any]:
        """The settings that select it."""
        return {"storage": self.url, "postgres": PostgresSettings(schema=self.current)}

    @contextmanager
    def _connect(self) -> Iterator["psycopg.Connection[Any]"]:
        with psycopg.connect(self.url, options=f"-c search_path={self.current}") as connection:
            yield connection

    def count(self) -> int:
        """Return the number of records."""
        with self._connect() as connection:
            found = connection.execute("SELECT to_regclass('record')").fetchone()
            if found == (None,):
                return 0
            row = connection.execute("SELECT count(*) FROM record").fetchone()
            return int(row[0]) if row else 0

    def waiting(self) -> list[tuple[Any, ...]]:
        """Return how many records wait, when they are due and why."""
        with self._connect() as connection:
            return connection.execute(WAITING).fetchall()

    def go_on_with_copy(self) -> None:
        """Select a copy of the schema as it is now."""
        done = False
        while not done:
            # The clients that go on meanwhile lock tables in another order.
            try:
                done = self._copy()
            except psycopg.errors.DeadlockDetected:
                time.sleep(0.01)
        self._copies += 1

    def _copy(self) -> bool:
        old, new = self.current, f"{self.schema}_{self._copies + 1}"
        with self._connect() as connection:
            tables = connection.execute("SELECT tablename FROM pg_tables WHERE schemaname = %s", [old]).fetchall()
            names = [sql.Identifier(name) for (name,) in tables]
            connection.execute(sql.SQL("LOCK TABLE {} IN SHARE MODE").format(sql.SQL(", ").join(names)))
            connection.execute(sql.SQL("CREATE SCHEMA {}").format(sql.Identifier(new)))
            for name in names:
                copy = sql.SQL("CREATE TABLE {new}.{name} (LIKE {name} INCLUDING ALL)")
                connection.execute(copy.format(new=sql.Identifier(new), name=name))
                copy = sql.SQL("INSERT INTO {new}.{name} OVERRIDING SYSTEM VALUE SELECT * FROM {name}")
                connection.execute(copy.format(new=sql.Identifier(new), name=name))
            connection.execute(sql.SQL("CREATE SEQUENCE {}.client_number").format(sql.Identifier(new)))
            for statement in SET_SEQUENCES.split(";"):
                connection.execute(statement, {"new": new})
        return True

    def forget_killed(self) -> None:
        """Let their last signs of life be long ago."""
        with self._connect() as connection:
            connection.execute("UPDATE client SET seen_at = seen_at - interval '1 hour'")

    def drop(self) -> None:
        """Drop all schemas."""
        with psycopg.connect(self.url, autocommit=True) as connection:
            for number in range(self._copies + 1):
                name = sql.Identifier(f"{self.schema}_{number}")
                connection.execute(sql.SQL("DROP SCHEMA IF EXISTS {} CASCADE").format(name))
