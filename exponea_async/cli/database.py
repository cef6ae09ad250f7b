"""
The database of the queue, for commands that use it without a client.
"""

import argparse
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from attrs import evolve

from exponea_async.cli.options import NO_PROJECT, storage_argument
from exponea_async.cli.terminal import UsageError
from exponea_async.config import Configuration
from exponea_async.storage import check_postgres_library, is_in_postgres

if TYPE_CHECKING:
    from exponea_async.storage.postgres.connection import Connections

EXAMPLE = "Set EXPONEA_STORAGE to 'postgresql://user:password@host:5432/database'."


def add_database_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that choose a database and a schema."""
    group = parser.add_argument_group("settings", "they override the environment")
    group.add_argument(
        "--storage",
        type=storage_argument,
        metavar="URL",
        help="the URL of the PostgreSQL database, without a password (EXPONEA_STORAGE, which may have one)",
    )
    group.add_argument("--schema", metavar="NAME", help="the name of the schema (EXPONEA_POSTGRES_SCHEMA)")


def read_database_settings(args: argparse.Namespace) -> Configuration:
    """
    Return the settings that choose a database; no project is needed.

    Raises:
        ConfigurationError: One of them is wrong.
        UsageError: The queue is not in a database.
    """
    given: dict[str, Any] = {"project_token": NO_PROJECT, "authorization_token": NO_PROJECT, "app_group": None}
    given |= {} if args.storage is None else {"storage": args.storage}
    configuration = Configuration.from_env(project_mapping={}, other_projects=(), **given)
    if args.schema is not None:
        configuration = evolve(configuration, postgres=evolve(configuration.postgres, schema=args.schema))
    if not is_in_postgres(configuration):
        raise UsageError("--storage", "must be the URL of a PostgreSQL database, got a file or nothing", EXAMPLE)
    return configuration


@asynccontextmanager
async def open_database(
    configuration: Configuration,
    timeout: float | None = None,  # noqa: ASYNC109 - it is that of each call
) -> "AsyncIterator[Connections]":
    """
    Connect to the database of the settings.

    Args:
        configuration: The settings.
        timeout: How long each call waits for the database, in seconds; by default as the settings say.

    Raises:
        ConfigurationError: The library for PostgreSQL is not installed.
        StorageError: The database can't be reached, or refuses the connection.
    """
    check_postgres_library()
    from exponea_async.storage.postgres.connection import Connections  # noqa: PLC0415 - asyncpg is an extra

    seconds = configuration.queue.lock_timeout if timeout is None else timeout
    source = configuration.storage
    connections = Connections(str(source), configuration.postgres, durability="power", timeout=seconds)
    await connections.open()
    try:
        yield connections
    finally:
        await connections.aclose()
