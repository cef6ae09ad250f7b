"""
The tables in PostgreSQL, and their migration.

One schema holds the queues of many projects. The id of a record has the number of its route in the upper bits, and in
the lower bits a number that is unique within the route, so the records of a route are one range of the primary key. A
client takes these numbers in blocks, before it writes: so it knows the ids of a commit whose outcome it has to find
out. Ids become visible in another order than that of their numbers, so there is no cursor: a record is untouched as
long as ``taken`` has no row for it. That table is small, since it has only the records that are being sent or retried.

``client`` has a row for each open client, with the number of its last commit, and ``counter`` has counters in rows that
only one connection of one client writes, so no two writers wait for each other. Their sums are the size of the queue.

``moved`` has, for each route of a file whose content was moved here, the last ids of records and dead letters that have
been, and ``move`` the states that were moved last, with their versions in the file.
"""

from collections.abc import Sequence
from typing import Any

import asyncpg
from attrs import frozen

from exponea_async.errors import SchemaError

#: The number of bits of an id below the number of its route.
ROUTE_SHIFT = 44
#: The first key of the advisory lock that a migration holds: "ExpQ".
MIGRATION_LOCK = int.from_bytes(b"ExpQ", "big")

#: Deleted rows are removed early, since each lease reads the oldest part of ``record`` and ``taken``.
_VACUUM = (
    "autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = {0}, autovacuum_analyze_scale_factor = 0,"
    " autovacuum_analyze_threshold = {0}, autovacuum_vacuum_cost_delay = 0"
)
_LARGE, _SMALL = _VACUUM.format(20_000), _VACUUM.format(5_000)

#: No index but the primary key has ``id``: the server would take it for look-ups by ``id`` where it believes a table to
#: be empty, and read all of the index for each of them.
#:
#: ``{s}`` is the name of the schema. Names of routes and keys of states are ``bytea``, since text in PostgreSQL can't
#: have a zero byte. Times are UNIX seconds; those in ``taken`` and ``rate_limit`` by the clock of the server.
FIRST_SCHEMA = f"""
CREATE TABLE {{s}}.meta (version integer NOT NULL);
INSERT INTO {{s}}.meta VALUES (0);
CREATE SEQUENCE {{s}}.client_number;
CREATE TABLE {{s}}.queue (
    id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY, name text NOT NULL UNIQUE, generation bigint NOT NULL
);
CREATE TABLE {{s}}.route (
    id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    queue integer,
    name bytea NOT NULL,
    next bigint NOT NULL DEFAULT 1
);
CREATE INDEX route_queue ON {{s}}.route (queue);
CREATE TABLE {{s}}.record (id bigint PRIMARY KEY, at double precision NOT NULL, body bytea NOT NULL)
    WITH ({_LARGE}, toast.autovacuum_vacuum_scale_factor = 0, toast.autovacuum_vacuum_threshold = 20000);
CREATE TABLE {{s}}.taken (
    id bigint PRIMARY KEY,
    route integer NOT NULL,
    due double precision NOT NULL,
    failures integer NOT NULL DEFAULT 0,
    reason text NOT NULL DEFAULT ''
) WITH (fillfactor = 70, {_SMALL});
CREATE INDEX taken_due ON {{s}}.taken (route, due);
CREATE TABLE {{s}}.dead (
    id bigint PRIMARY KEY,
    queue integer NOT NULL,
    at double precision NOT NULL,
    body bytea NOT NULL,
    died_at double precision NOT NULL,
    reason text NOT NULL
);
CREATE INDEX dead_by_age ON {{s}}.dead (queue, died_at);
CREATE TABLE {{s}}.mark (
    first bigint PRIMARY KEY, last bigint NOT NULL, outcome "char" NOT NULL, marked_at double precision NOT NULL
);
CREATE INDEX mark_by_age ON {{s}}.mark (marked_at);
CREATE TABLE {{s}}.state (
    queue integer NOT NULL,
    key bytea NOT NULL,
    value bytea NOT NULL,
    version bigint NOT NULL,
    active double precision,
    active_from double precision,
    PRIMARY KEY (queue, key)
) WITH (fillfactor = 60, {_SMALL});
CREATE INDEX state_active ON {{s}}.state (queue, active_from) WHERE active_from IS NOT NULL;
CREATE TABLE {{s}}.floor (queue integer NOT NULL, version bigint NOT NULL);
CREATE INDEX floor_version ON {{s}}.floor (queue, version);
CREATE TABLE {{s}}.client (
    id bigint PRIMARY KEY,
    queue integer NOT NULL,
    commit bigint NOT NULL DEFAULT 0,
    seen_at timestamptz NOT NULL DEFAULT clock_timestamp()
) WITH (fillfactor = 20, {_SMALL});
CREATE TABLE {{s}}.counter (
    queue integer NOT NULL,
    client bigint NOT NULL,
    lane smallint NOT NULL,
    route integer NOT NULL,
    waiting bigint NOT NULL DEFAULT 0,
    leased bigint NOT NULL DEFAULT 0,
    dead bigint NOT NULL DEFAULT 0,
    size bigint NOT NULL DEFAULT 0,
    PRIMARY KEY (queue, client, lane, route)
) WITH (fillfactor = 20, {_SMALL});
CREATE TABLE {{s}}.move (
    queue integer NOT NULL, source bigint NOT NULL, keys bytea[] NOT NULL, versions bigint[] NOT NULL,
    PRIMARY KEY (queue, source)
);
CREATE TABLE {{s}}.moved (
    queue integer NOT NULL, source bigint NOT NULL, route bigint NOT NULL,
    record bigint NOT NULL DEFAULT 0, dead bigint NOT NULL DEFAULT 0,
    PRIMARY KEY (queue, source, route)
);
CREATE TABLE {{s}}.rate_limit (name bytea PRIMARY KEY, next_at double precision NOT NULL)
    WITH (fillfactor = 20, {_SMALL});
"""

#: What brings a schema from one version to the next.
MIGRATIONS: Sequence[str] = (FIRST_SCHEMA,)

#: Not by ``to_regclass``, which may remember within a transaction that there was no such table: another client may have
#: created it while this one waited for the lock.
EXISTS = """
    SELECT EXISTS (
        SELECT FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
            WHERE n.nspname = $1 AND c.relname = 'meta'
    )
"""
SCHEMA_EXISTS = "SELECT EXISTS (SELECT FROM pg_catalog.pg_namespace WHERE nspname = $1)"


@frozen
class SchemaStatus:
    """
    The state of a schema.

    Attributes:
        version: How many migrations it has had.
        known: How many migrations this version of the package knows.
    """

    version: int
    known: int

    @property
    def is_current(self) -> bool:
        """Whether this version of the package can use the schema as it is."""
        return self.version == self.known


async def status(connection: "asyncpg.Connection[Any]", schema: str) -> SchemaStatus | None:
    """Return the state of a schema, or None if it does not exist."""
    if not await connection.fetchval(EXISTS, schema):
        return None
    return SchemaStatus(await connection.fetchval(f"SELECT version FROM {schema}.meta"), len(MIGRATIONS))


async def migrate(connection: "asyncpg.Connection[Any]", schema: str) -> int:
    """
    Create a schema, or bring it up to date: all steps or none.

    Args:
        connection: A connection whose role may create the schema, or owns it.
        schema: The name of the schema.

    Returns:
        The number of migrations that were made.

    Raises:
        SchemaError: It is from a later version of this package.
    """
    async with connection.transaction():
        # Two clients that start at the same time must not both create it.
        await connection.execute(f"SELECT pg_advisory_xact_lock({MIGRATION_LOCK}, hashtext($1))", schema)
        found = await status(connection, schema)
        version = found.version if found else 0
        check_version(version, schema)
        # Not IF NOT EXISTS, which needs the right to create schemas even for one that exists.
        is_missing = not await connection.fetchval(SCHEMA_EXISTS, schema)
        for statement in statements(schema, version, is_missing=is_missing):
            await connection.execute(statement)
    return len(MIGRATIONS) - version


def statements(schema: str, version: int = 0, *, is_missing: bool = True) -> list[str]:
    """
    Return the statements that bring a schema up to date, each of which may be several.

    Args:
        schema: The name of the schema.
        version: The version that it has; 0 if it has no tables.
        is_missing: Whether it has to be created.
    """
    if version >= len(MIGRATIONS):
        return []
    created = [f"CREATE SCHEMA {schema};\n"] if is_missing else []
    steps = [migration.replace("{s}", schema).lstrip("\n") for migration in MIGRATIONS[version:]]
    return [*created, *steps, f"UPDATE {schema}.meta SET version = {len(MIGRATIONS)};\n"]


async def require_current(connection: "asyncpg.Connection[Any]", schema: str) -> None:
    """
    Do nothing if the schema can be used as it is.

    Raises:
        SchemaError: It does not exist, or has another version.
    """
    found = await status(connection, schema)
    if found is None:
        raise SchemaError(f"The database has no schema {schema}.", hint="Run 'exponea-async db init' once.")
    check_version(found.version, schema)
    if not found.is_current:
        raise SchemaError(
            f"The schema {schema} has version {found.version}; this version of exponea-async needs {found.known}.",
            hint="Run 'exponea-async db migrate'.",
        )


async def prepare(connection: "asyncpg.Connection[Any]", schema: str, *, may_migrate: bool) -> None:
    """
    Create the schema or bring it up to date, if it is not, and if that is allowed.

    Args:
        connection: The connection.
        schema: The name of the schema.
        may_migrate: Whether the schema may be created or migrated.

    Raises:
        SchemaError: It does not exist, or has another version.
    """
    found = await status(connection, schema)
    if may_migrate and (found is None or found.version < found.known):
        await migrate(connection, schema)
    await require_current(connection, schema)


def check_version(version: int, schema: str) -> None:
    """
    Refuse a schema from a later version of this package.

    Raises:
        SchemaError: The schema's version is higher than the known ones.
    """
    if version > len(MIGRATIONS):
        raise SchemaError(
            f"The schema {schema} has version {version}, but this version of exponea-async supports at most"
            f" {len(MIGRATIONS)}.",
            hint="Update exponea-async.",
        )
