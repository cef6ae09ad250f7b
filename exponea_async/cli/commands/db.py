"""
``exponea-async db``: create and update the schema in PostgreSQL, give roles their rights, and show what is there.
"""

import argparse
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from attrs import asdict

from exponea_async.cli.database import add_database_options, open_database, read_database_settings
from exponea_async.cli.options import Commands, add_help_as_default, add_json_option, add_parser
from exponea_async.cli.terminal import (
    Exit,
    number,
    print_diagnostic,
    print_json,
    print_line,
    print_summary,
    print_table,
)
from exponea_async.config import Configuration
from exponea_async.errors import SchemaError
from exponea_async.storage import check_postgres_library

if TYPE_CHECKING:
    from exponea_async.storage.postgres.connection import Connections
    from exponea_async.storage.postgres.queues import QueueSummary
    from exponea_async.storage.postgres.schema import SchemaStatus

#: How long a migration may wait for the transactions of clients, in seconds.
TIMEOUT = 60.0

DESCRIPTION = """\
The database is that of the setting EXPONEA_STORAGE, and the schema that of EXPONEA_POSTGRES_SCHEMA. Neither a project
nor a key is needed. Clients may run meanwhile.
"""


def register(commands: Commands) -> None:
    """Add the command with its actions."""
    parser = add_parser(commands, "db", "create and update the queue's schema in PostgreSQL", DESCRIPTION)
    add_help_as_default(parser)
    actions = parser.add_subparsers(title="actions", metavar="ACTION")
    for name, summary in (
        ("init", "create the schema, or bring it up to date"),
        ("migrate", "bring the schema, which exists, up to date"),
    ):
        action = _add_action(actions, name, summary)
        action.add_argument(
            "--grant",
            action="append",
            default=[],
            metavar="ROLE",
            help="give a role the rights to record, send and maintain the queues; may be repeated",
        )
        action.add_argument(
            "--grant-producer",
            action="append",
            default=[],
            metavar="ROLE",
            help="give a role the rights to record only; may be repeated",
        )
        action.add_argument("--sql", action="store_true", help="print the statements instead of running them")
        action.set_defaults(run=init if name == "init" else migrate)
    _add_action(actions, "status", "show the version of the schema, and its queues").set_defaults(run=status)


def _add_action(actions: Commands, name: str, summary: str) -> argparse.ArgumentParser:
    parser = add_parser(actions, name, summary, DESCRIPTION)
    add_json_option(parser)
    add_database_options(parser)
    return parser


async def init(args: argparse.Namespace) -> int:
    """Create the schema, or bring it up to date."""
    configuration = read_database_settings(args)
    if args.sql:
        # Without a connection: an administrator may apply it where this machine has no access.
        check_postgres_library()
        from exponea_async.storage.postgres.schema import statements  # noqa: PLC0415 - asyncpg is an extra

        _print_sql([*statements(configuration.postgres.schema), *_grants(configuration, args)])
        return Exit.DONE
    async with open_database(configuration, TIMEOUT) as connections:
        return await _apply(connections, configuration, args)


async def migrate(args: argparse.Namespace) -> int:
    """Bring the schema up to date."""
    configuration = read_database_settings(args)
    async with open_database(configuration, TIMEOUT) as connections:
        found = await _status(connections)
        if found is None:
            raise _missing(configuration)
        if not args.sql:
            return await _apply(connections, configuration, args)
    from exponea_async.storage.postgres.schema import statements  # noqa: PLC0415 - asyncpg is an extra

    steps = statements(configuration.postgres.schema, found.version, is_missing=False)
    _print_sql([*steps, *_grants(configuration, args)])
    return Exit.DONE


async def _apply(connections: "Connections", configuration: Configuration, args: argparse.Namespace) -> int:
    from exponea_async.storage.postgres.schema import migrate as migrate_schema  # noqa: PLC0415 - asyncpg is an extra

    async def create() -> int:
        async with connections.acquire() as connection:
            return await migrate_schema(connection, connections.schema)

    async def grant(connection: Any) -> None:
        for statement in _grants(configuration, args):
            await connection.execute(statement)

    steps = await connections.attempt(create)
    await connections.change(grant)
    found = await _status(connections)
    version = found.version if found else 0
    roles = [*args.grant, *args.grant_producer]
    if args.json:
        print_json({"schema": connections.schema, "version": version, "migrations": steps, "granted": roles})
        return Exit.DONE
    print_summary({"schema": connections.schema, "version": version, "migrations": steps})
    for role in roles:
        print_line(f"  role {role} has its rights")
    return Exit.DONE


def _grants(configuration: Configuration, args: argparse.Namespace) -> Iterator[str]:
    from exponea_async.storage.postgres.roles import grants  # noqa: PLC0415 - not needed by other commands

    schema = configuration.postgres.schema
    for role in args.grant:
        yield from grants(schema, role, "uploader")
    for role in args.grant_producer:
        yield from grants(schema, role, "producer")


def _print_sql(statements: Sequence[str]) -> None:
    print_line("BEGIN;")
    for statement in statements:
        # Not `print_line`, for which a line break is no printable character.
        print(f"{statement.strip().removesuffix(';')};")
    print_line("COMMIT;")


async def status(args: argparse.Namespace) -> int:
    """Show the version of the schema, and its queues."""
    configuration = read_database_settings(args)
    async with open_database(configuration) as connections:
        found = await _status(connections)
        if found is None:
            raise _missing(configuration)
        queues = await _list_queues(connections) if found.is_current else []
    _print_status(connections, found, queues, args)
    if found.is_current:
        return Exit.DONE
    advice = "Run 'exponea-async db migrate'" if found.version < found.known else "Update exponea-async"
    print_diagnostic(f"this version of exponea-async needs version {found.known} of the schema. {advice}.")
    return Exit.FAILED


def _print_status(
    connections: "Connections", found: "SchemaStatus", queues: "Sequence[QueueSummary]", args: argparse.Namespace
) -> None:
    if args.json:
        summary = {"schema": connections.schema, "version": found.version, "known": found.known}
        print_json({**summary, "current": found.is_current, "queues": [asdict(queue) for queue in queues]})
        return
    print_summary({"database": connections.location, "schema": connections.schema, "version": found.version})
    if queues:
        numbers = ("waiting", "leased", "dead", "size", "clients")
        rows = [(queue.name, *(number(getattr(queue, name)) for name in numbers)) for queue in queues]
        print_table(("queue", *numbers), rows)


async def _status(connections: "Connections") -> "SchemaStatus | None":
    from exponea_async.storage.postgres.schema import status as schema_status  # noqa: PLC0415 - asyncpg is an extra

    async def read() -> "SchemaStatus | None":
        async with connections.acquire() as connection:
            return await schema_status(connection, connections.schema)

    return await connections.attempt(read)


async def _list_queues(connections: "Connections") -> "list[QueueSummary]":
    from exponea_async.storage.postgres.queues import list_queues  # noqa: PLC0415 - asyncpg is an extra

    async def read(connection: Any) -> "list[QueueSummary]":
        return await list_queues(connection, connections.schema)

    return await connections.change(read)


def _missing(configuration: Configuration) -> SchemaError:
    return SchemaError(
        f"The database has no schema {configuration.postgres.schema}.", hint="Run 'exponea-async db init' once."
    )
