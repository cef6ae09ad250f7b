"""
The tables of the queue's file, and how an older file is brought up to date.

How records are found without an index on them: a record's id carries its route in the upper bits and a number that
rises by one within the route in the lower ones, so each route is one contiguous range of the primary key. A route's
*cursor* is the last id ever leased for the first time. Everything above it is there and untouched, everything below
it that still exists has a row in ``taken`` with the moment it falls due again. So a claim reads a few rows at the
cursor and a few of the small ``taken`` table, however long the queue is, and counting untouched records is a
subtraction.
"""

import sqlite3
from collections.abc import Sequence
from itertools import islice

from exponea_async.errors import StorageError

#: Bits of an id below its route's number.
ROUTE_SHIFT = 44

#: ``counter`` holds the highest route number ever given, and the highest version that a deleted state had, so that
#: neither ids nor versions come twice, not even after a wipe. States lie in the order in which they were made, not in
#: that of their keys: those that are active at the same time are often of the same age, and then share pages.
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
    CREATE TABLE state (
        id INTEGER PRIMARY KEY, key TEXT NOT NULL UNIQUE, value BLOB NOT NULL, version INTEGER NOT NULL, active REAL
    );
    CREATE INDEX state_active ON state (active, key) WHERE active IS NOT NULL;
    CREATE TABLE counter (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
    """,
)


def schema_version(db: sqlite3.Connection) -> int:
    """Tell how many migrations a file has seen."""
    version: int = db.execute("PRAGMA user_version").fetchone()[0]
    return version


def check_version(version: int, known: int) -> None:
    """
    Refuse a file from a later version of this package.

    Raises:
        StorageError: It has seen migrations that are not known here.
    """
    if version > known:
        raise StorageError(
            f"The queue file has schema {version}, this version knows {known}.",
            hint="Update exponea-async, or give another storage path.",
        )


def migrate(db: sqlite3.Connection, migrations: Sequence[str] = MIGRATIONS) -> None:
    """
    Bring the schema up to date, all steps or none.

    Raises:
        StorageError: The file is from a later version of this package.
    """
    check_version(schema_version(db), len(migrations))
    if schema_version(db) == len(migrations):
        return
    db.execute("BEGIN IMMEDIATE")
    try:
        # Asked again inside: another process may have been faster.
        version = schema_version(db)
        check_version(version, len(migrations))
        for script in islice(migrations, version, None):
            for statement in filter(str.strip, script.split(";")):
                db.execute(statement)
        db.execute(f"PRAGMA user_version = {len(migrations)}")
        db.execute("COMMIT")
    finally:
        if db.in_transaction:
            db.execute("ROLLBACK")
