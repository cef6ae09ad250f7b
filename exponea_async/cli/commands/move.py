"""
``exponea-async queue move``: move the content of a queue's file to PostgreSQL.
"""

import argparse
import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from attrs import asdict

from exponea_async.cli.database import EXAMPLE, open_database
from exponea_async.cli.options import Commands, add_json_option, add_parser, read_storage_settings, storage_argument
from exponea_async.cli.terminal import (
    Exit,
    Progress,
    ProgressLine,
    UsageError,
    number,
    print_diagnostic,
    print_json,
    print_summary,
)
from exponea_async.errors import StorageError
from exponea_async.storage import check_postgres_library, is_in_postgres, queue_name

if TYPE_CHECKING:
    from exponea_async.config import Configuration
    from exponea_async.storage.moving import Move

#: How long a part may wait for the database, in seconds.
TIMEOUT = 60.0

DESCRIPTION = """\
Events that wait, dead letters, devices, projects and withdrawn consent go to the queue of the project and the app group
in the settings. No process may have the file open. The command may be interrupted at any time; until it was run again
to the end, clients refuse to open the file.
"""


def register(actions: Commands) -> None:
    """Add the action."""
    parser = add_parser(actions, "move", "move everything from a queue's file to PostgreSQL", DESCRIPTION)
    parser.add_argument("source", type=Path, metavar="FILE", help="the file of the queue")
    parser.add_argument(
        "storage",
        nargs="?",
        type=storage_argument,
        metavar="URL",
        help="the URL of the PostgreSQL database, without a password; by default that of EXPONEA_STORAGE",
    )
    group = parser.add_mutually_exclusive_group()
    group.add_argument("--delete-source", action="store_true", help="delete the file, which is empty by then")
    group.add_argument(
        "--stop", action="store_true", help="end an interrupted move: what was not moved yet stays in the file"
    )
    parser.add_argument("--project-token", metavar="TOKEN", help="the token of the project (EXPONEA_PROJECT_TOKEN)")
    add_json_option(parser)
    parser.set_defaults(run=run)


async def run(args: argparse.Namespace) -> int:
    """Move the content of a file."""
    configuration = read_storage_settings(args)
    if not is_in_postgres(configuration):
        raise UsageError("URL", "must be that of a PostgreSQL database, got a file or nothing", EXAMPLE)
    if not await asyncio.to_thread(args.source.is_file):
        raise UsageError(args.source, "there is no such file", "Name the file of a queue.")
    damages: list[StorageError] = []
    async with _open(configuration, args.source.absolute(), damages) as move:
        if args.stop:
            await move.recover()
            await move.end()
        else:
            async with Progress().refreshing(lambda: _describe(move)):
                await move.run()
        if args.delete_source:
            await move.delete_source()
    _print(move, args)
    for damage in damages:
        print_diagnostic(str(damage))
    return Exit.FAILED if damages else Exit.DONE


@asynccontextmanager
async def _open(configuration: "Configuration", path: Path, damages: list[StorageError]) -> "AsyncIterator[Move]":
    check_postgres_library()
    from exponea_async.storage.moving import Move, in_thread, open_source  # noqa: PLC0415 - asyncpg is an extra
    from exponea_async.storage.postgres.moving import MoveTarget  # noqa: PLC0415 - asyncpg is an extra
    from exponea_async.storage.postgres.schema import prepare  # noqa: PLC0415 - asyncpg is an extra

    async with open_database(configuration, TIMEOUT) as connections:

        async def prepare_schema() -> None:
            async with connections.acquire() as connection:
                await prepare(connection, connections.schema, may_migrate=configuration.postgres.migrate)

        await connections.attempt(prepare_schema)
        source = await open_source(path, damages.append)
        try:
            target = MoveTarget(connections, queue_name(configuration), source.generation)
            await target.open()
            try:
                yield Move(source, target)
            finally:
                # Otherwise the row of a client that is not running any more is removed later.
                with suppress(StorageError):
                    await target.aclose()
        finally:
            await in_thread(source.close)


def _describe(move: "Move") -> ProgressLine:
    progress = move.progress
    done = progress.records + progress.letters + progress.states
    text = f"{number(done)} of {number(progress.total)} moved"
    return ProgressLine(text, min(1.0, done / progress.total) if progress.total else None)


def _print(move: "Move", args: argparse.Namespace) -> None:
    moved = asdict(move.progress)
    del moved["total"]
    if args.json:
        print_json(moved)
    else:
        print_summary({"events": moved["records"], "dead letters": moved["letters"], "states": moved["states"]})
