"""
The tables of the queue's file, and the migration of older files.

Records are found without an index. A record's id has the number of its route in the upper bits, and in the lower bits
a number that increases by one within the route, so the records of a route are one contiguous range of the primary key.
The *cursor* of a route is the highest id that was ever leased. All records above it exist and are untouched. Each
record at or below it that still exists has a row in ``taken``, the table of records that have been leased at least
once, with the time at which it falls due again, in seconds since the start of the machine (see `storage.clock`). So a
lease reads a few rows at the cursor and a few of the small table ``taken``, however long the queue is, and the number
of untouched records is a subtraction.

What became of the records that are gone is in ``mark``, as ranges of ids; see `storage.sqlite.marks`.

The time of the last activity of a state changes with each event, so it is not in the wide row of the state but in
``activity``, of which a page holds almost two hundred rows, under the id of the state. Idle sessions are found by
``listed``, a time that is never later than the last activity. Most events only change ``active``, which no index has;
``listed`` is set to it when the session would be idle by ``listed``; see `storage.sqlite.queries.expired_sessions`.
"""

import json
import sqlite3
from collections.abc import Callable, Sequence
from itertools import islice

from exponea_async.errors import StorageError

#: The number of bits of an id below the number of its route.
ROUTE_SHIFT = 44

#: Marks the queues of this package, in the header of the file: "ExpQ".
APPLICATION_ID = int.from_bytes(b"ExpQ", "big")

#: What separates the address of the API from the rest, in the URLs that schema version 1 had as names of routes.
PROJECTS_PATH = "/track/v2/projects/"


def _separate_addresses(connection: sqlite3.Connection) -> None:
    """Let several routes have one name: clients give routes that are URLs their new names when they start."""
    connection.execute("ALTER TABLE route RENAME TO old_route")
    connection.execute("CREATE TABLE route (id INTEGER PRIMARY KEY, name TEXT NOT NULL, cursor INTEGER NOT NULL)")
    connection.execute("INSERT INTO route SELECT * FROM old_route")
    connection.execute("DROP TABLE old_route")
    rename_credentials(connection)


def rename_credentials(connection: sqlite3.Connection) -> None:
    """
    Name the credentials that switches of devices have stored by the token of their project; they were found by a URL.

    The address in the URL was that of the configuration, unless the switch gave one. It belongs to the project only if
    no configured project had the same.

    Args:
        connection: The connection, within a write transaction.
    """
    rows = connection.execute("SELECT key, value FROM state WHERE key LIKE 'key:%' ORDER BY id").fetchall()
    credentials = {key.removeprefix("key:"): value.decode() for key, value in rows}
    routes = [name for (name,) in connection.execute("SELECT name FROM route")]
    configured = {name.rpartition(PROJECTS_PATH)[0] for name in routes if name not in credentials}
    projects: dict[str, str] = {}
    for url, authorization in credentials.items():
        address, _, route = url.rpartition(PROJECTS_PATH)
        base_url = json.dumps(None if address in configured else address)
        projects[route.partition("/")[0]] = f'{{"authorization": {authorization}, "base_url": {base_url}}}'
    for token, stored in projects.items():
        connection.execute(
            "INSERT OR IGNORE INTO state (key, value, version)"
            " SELECT ?, ?, 1 + coalesce(max(value), 0) FROM counter WHERE name = 'state'",
            (f"project:{token}", stored.encode()),
        )
    connection.execute("DELETE FROM state WHERE key LIKE 'key:%'")


def _separate_activity(connection: sqlite3.Connection) -> None:
    """Move the last activities into a table of their own."""
    for statement in (
        "CREATE TABLE activity (id INTEGER PRIMARY KEY, active REAL NOT NULL, listed REAL NOT NULL)",
        "INSERT INTO activity SELECT id, active, active FROM state WHERE typeof(active) = 'real' ORDER BY id",
        "CREATE INDEX activity_listed ON activity (listed)",
        "DROP INDEX state_active",
        # A process of an older version that still has the file open gets errors, instead of missing activities.
        "ALTER TABLE state DROP COLUMN active",
        # The id of a deleted state may be given again.
        "CREATE TRIGGER state_deleted AFTER DELETE ON state BEGIN DELETE FROM activity WHERE id = OLD.id; END",
    ):
        connection.execute(statement)


Migration = str | Callable[[sqlite3.Connection], None]

#: The schema of the first version of this package.
FIRST_SCHEMA = """
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
"""

#: What precedes the name of a rate limit in the names of counters.
RATE = "rate:"

#: The counter that a file has while its content is moved to another queue: the generation of that queue.
MOVING = "moving"

#: What precedes the key of a device in the keys of its states.
DEVICE_STATES = ("device", "damaged:device", "inbox", "in_app_messages", "segments")

#: What brings a file from one schema version to the next: statements, or a function.
#:
#: ``counter`` has the highest route number ever given (``route``) and the highest version of a deleted state
#: (``state``), so that neither ids nor versions repeat, not even after a wipe. It also has the ``generation`` of the
#: content, which no two files share, the number of the wipe (``wiped``) after which the file was created, and when the
#: next request of each shared rate limit may be sent, in microseconds since the start of the machine. States are stored
#: in the order of their creation, not of their keys: states that are active at the same time are often of the same age,
#: and then share pages.
MIGRATIONS: tuple[Migration, ...] = (
    FIRST_SCHEMA,
    f"""
    PRAGMA application_id = {APPLICATION_ID};
    INSERT INTO counter
        VALUES ('generation', CAST(strftime('%s', 'now') AS INTEGER) * 1000000 + abs(random() % 1000000));
    """,
    """
    CREATE TABLE mark (
        first INTEGER PRIMARY KEY, last INTEGER NOT NULL, outcome TEXT NOT NULL, marked_at REAL NOT NULL
    );
    """,
    _separate_addresses,
    # A client's own device had a key that an application could use, too.
    f"""
    UPDATE OR IGNORE state SET key = substr(key, 1, length(key) - 7) || '@default'
        WHERE key IN ({", ".join(f"'{each}:default'" for each in DEVICE_STATES)});
    """,
    _separate_activity,
)


def schema_version(connection: sqlite3.Connection) -> int:
    """Return how many migrations a file has had."""
    version: int = connection.execute("PRAGMA user_version").fetchone()[0]
    return version


def check_version(version: int, known: int) -> None:
    """
    Refuse a file from a later version of this package.

    Args:
        version: The file's schema version.
        known: The highest known schema version.

    Raises:
        StorageError: The file's schema version is higher.
    """
    if version > known:
        raise StorageError(
            f"The queue file has schema version {version}, but this version of exponea-async supports at most {known}.",
            hint="Update exponea-async, or use another storage path.",
        )


def migrate(connection: sqlite3.Connection, migrations: Sequence[Migration] = MIGRATIONS) -> None:
    """
    Bring the schema up to date: all steps or none.

    Raises:
        StorageError: The file is from a later version of this package.
    """
    check_version(schema_version(connection), len(migrations))
    if schema_version(connection) == len(migrations):
        return
    connection.execute("BEGIN IMMEDIATE")
    try:
        # Read again inside of the transaction: another process may have migrated the file meanwhile.
        version = schema_version(connection)
        check_version(version, len(migrations))
        for migration in islice(migrations, version, None):
            _run(connection, migration)
        connection.execute(f"PRAGMA user_version = {len(migrations)}")
        connection.execute("COMMIT")
    finally:
        if connection.in_transaction:
            connection.execute("ROLLBACK")


def _run(connection: sqlite3.Connection, migration: Migration) -> None:
    if callable(migration):
        migration(connection)
        return
    for statement in filter(str.strip, migration.split(";")):
        connection.execute(statement)
