"""
Looking at a database and a queue without changing anything: nothing is created, and no client is registered.
"""

import re
import time
from collections.abc import Mapping, Sequence
from typing import Any

import asyncpg
from attrs import field, frozen

from exponea_async.storage.postgres import schema as tables
from exponea_async.storage.postgres.connection import Connection
from exponea_async.storage.postgres.queries import OLDEST
from exponea_async.storage.postgres.registration import GONE_AFTER
from exponea_async.storage.postgres.roles import RIGHTS, RoleKind
from exponea_async.storage.postgres.schema import SchemaStatus
from exponea_async.storage.postgres.wiping import OPEN_CLIENTS

#: The oldest version of PostgreSQL that has everything that is used, such as the state of a transaction by its number.
OLDEST_SERVER = 13
#: A transaction that is open for longer is reported, in seconds.
LONG = 300.0

SERVER = """
    SELECT current_user::text, pg_backend_pid(), pg_is_in_recovery(), extract(epoch FROM clock_timestamp())::float8,
        (SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()), inet_client_addr() IS NULL
            OR inet_client_addr() << '127.0.0.0/8' OR inet_client_addr() = '::1'
"""
SETTINGS = """
    SELECT name, setting FROM pg_settings
        WHERE name IN ('fsync', 'synchronous_commit', 'full_page_writes', 'autovacuum')
"""
LONG_TRANSACTIONS = """
    SELECT pid, coalesce(usename::text, ''), extract(epoch FROM clock_timestamp() - xact_start)::float8
        FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()
            AND (backend_xmin IS NOT NULL OR backend_xid IS NOT NULL OR state LIKE 'idle in transaction%')
            AND xact_start < clock_timestamp() - make_interval(secs => $1::float8)
        ORDER BY xact_start LIMIT 5
"""
DEAD_ROWS = """
    SELECT relname::text, n_dead_tup FROM pg_stat_user_tables
        WHERE schemaname = $1 AND n_dead_tup > 100000 AND n_dead_tup > n_live_tup ORDER BY n_dead_tup DESC
"""
RIGHT = "SELECT has_table_privilege($1::text, $2::text)"
COLUMN_RIGHT = "SELECT has_any_column_privilege($1::text, $2::text)"
_RIGHTS = re.compile(r"([A-Z]+)( \([^)]*\))?")
USAGE = "SELECT has_schema_privilege($1::text, 'USAGE')"
QUEUE = "SELECT id FROM {s}.queue WHERE name = $1"
COUNTS = """
    SELECT o.name, coalesce(sum(t.waiting), 0)::bigint, coalesce(sum(t.leased), 0)::bigint,
            coalesce(sum(t.dead), 0)::bigint
        FROM {s}.route AS o LEFT JOIN {s}.counter AS t ON t.route = o.id WHERE o.queue = $1 GROUP BY o.name
"""
PROJECTS = "SELECT key FROM {s}.state WHERE queue = $1 AND key >= 'project:'::bytea AND key < 'project;'::bytea"


@frozen(kw_only=True)
class ServerInspection:
    """
    What is known about a server and the role.

    Attributes:
        version: The major version.
        role: The name of the role.
        is_pooled: Whether there is a pooler such as PgBouncer between.
        is_standby: Whether it is a standby, which can't be written.
        is_encrypted: Whether the server's connection uses TLS.
        is_local: Whether the connection comes from the same machine.
        ahead: By how many seconds the clock of this machine is ahead.
        uncertainty: How exact that is, in seconds.
        settings: Some settings, by name.
        long: The process, the role and the age in seconds of transactions that are open for long.
    """

    version: int
    role: str
    is_pooled: bool
    is_standby: bool
    is_encrypted: bool
    is_local: bool
    ahead: float
    uncertainty: float
    settings: Mapping[str, str]
    long: Sequence[tuple[int, str, float]]


@frozen(kw_only=True)
class SchemaInspection:
    """
    What is known about a schema and one of its queues.

    Attributes:
        status: The version; None if there is no schema.
        may_use: Whether the role has any rights on the schema.
        kind: Which kind of role it is, or None if it lacks rights of both.
        missing: The rights that it lacks for an uploader.
        dead_rows: The tables with many deleted rows that were not removed yet, and their numbers.
        waiting: The number of records by route.
        dead: The number of dead letters.
        oldest: When the oldest record was written, UNIX seconds, or None.
        clients: The number of clients that have the queue open.
        projects: The projects whose addresses and keys are stored.
    """

    status: SchemaStatus | None
    may_use: bool = True
    kind: RoleKind | None = None
    missing: Sequence[str] = ()
    dead_rows: Sequence[tuple[str, int]] = ()
    waiting: Mapping[str, int] = field(factory=dict)
    dead: int = 0
    oldest: float | None = None
    clients: int = 0
    projects: frozenset[str] = frozenset()


async def connect(url: str, timeout: float) -> Connection:  # noqa: ASYNC109 - asyncpg's own
    """
    Connect without prepared statements, which a pooler may not have.

    Raises:
        OSError: The server can't be reached in time, or refuses the connection.
    """
    try:
        return await asyncpg.connect(url, timeout=timeout, command_timeout=timeout, statement_cache_size=0)
    except (asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        # Such as a wrong password; the message of the server does not repeat it.
        raise ConnectionError(str(error)) from None


async def inspect_server(connection: Connection) -> ServerInspection:
    """Return what is known about the server."""
    before = time.time()
    role, pid, is_standby, now, ssl, is_local = await connection.fetchrow(SERVER)
    took = time.time() - before
    return ServerInspection(
        version=connection.get_server_version().major,
        role=role,
        is_pooled=connection.get_server_pid() != pid,
        is_standby=is_standby,
        is_encrypted=bool(ssl),
        is_local=is_local,
        ahead=before + took / 2 - now,
        uncertainty=took / 2,
        settings=dict(await connection.fetch(SETTINGS)),
        long=[tuple(row) for row in await connection.fetch(LONG_TRANSACTIONS, LONG)],
    )


async def inspect_schema(connection: Connection, schema: str, queue: str) -> SchemaInspection:
    """
    Return what is known about a schema and a queue.

    Args:
        connection: The connection.
        schema: The name of the schema.
        queue: The name of the queue.
    """
    if not await connection.fetchval(tables.EXISTS, schema):
        return SchemaInspection(status=None)
    if not await connection.fetchval(USAGE, schema):
        return SchemaInspection(status=None, may_use=False)
    missing = {kind: await _missing(connection, schema, kind) for kind in RIGHTS}
    kind = next((kind for kind, rights in missing.items() if not rights), None)
    if not await connection.fetchval(RIGHT, f"{schema}.meta", "SELECT"):
        return SchemaInspection(status=None, may_use=False)
    found = await tables.status(connection, schema)
    if kind is None or found is None or not found.is_current:
        return SchemaInspection(status=found, kind=kind, missing=missing["uploader"])
    return await _inspect_queue(connection, schema, queue, found, kind)


async def _missing(connection: Connection, schema: str, kind: RoleKind) -> list[str]:
    """Return the rights that the role lacks."""
    missing = []
    for table, rights in RIGHTS[kind].items():
        for right, columns in _RIGHTS.findall(rights):
            # Those on columns only are checked for any of them.
            statement = COLUMN_RIGHT if columns else RIGHT
            if not await connection.fetchval(statement, f"{schema}.{table}", right):
                missing.append(f"{right} on {table}")
    return missing


async def _inspect_queue(
    connection: Connection, schema: str, name: str, found: SchemaStatus, kind: RoleKind
) -> SchemaInspection:
    def sql(statement: str) -> str:
        return statement.replace("{s}", schema)

    dead_rows = [tuple(row) for row in await connection.fetch(DEAD_ROWS, schema)]
    queue = await connection.fetchval(sql(QUEUE), name)
    rows: Sequence[Any] = [] if queue is None else await connection.fetch(sql(COUNTS), queue)
    projects = [] if queue is None else await connection.fetch(sql(PROJECTS), queue)
    return SchemaInspection(
        status=found,
        kind=kind,
        dead_rows=dead_rows,
        waiting={row[0].decode(errors="surrogatepass"): row[1] for row in rows},
        dead=sum(row[3] for row in rows),
        oldest=None if queue is None else await connection.fetchval(sql(OLDEST), queue),
        clients=await connection.fetchval(sql(OPEN_CLIENTS), name, GONE_AFTER),
        projects=frozenset(row[0].decode().removeprefix("project:") for row in projects),
    )
