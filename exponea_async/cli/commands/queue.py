"""
``exponea-async queue``: inspect the queue, revive or delete dead letters.
"""

import argparse
import asyncio
import sys
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from attrs import evolve

from exponea_async._pipeline.commands import project_of, read_command
from exponea_async.cli.options import Commands, add_json_option, add_parser, add_settings_options, positive_integer
from exponea_async.cli.terminal import (
    Exit,
    UsageError,
    age,
    print_diagnostic,
    print_json,
    print_summary,
    print_table,
)
from exponea_async.config import Configuration
from exponea_async.errors import InvalidEventError, StorageError
from exponea_async.storage import MEMORY, create_storage, storage_location
from exponea_async.storage.base import DeadLetter, Storage, Waiting

LIMIT = 20
#: The limit where all records are wanted.
NO_LIMIT = 1_000_000_000

DESCRIPTION = """\
The queue is that of the settings in the environment, EXPONEA_STORAGE or EXPONEA_PROJECT_TOKEN. No key is needed and
nothing is uploaded.
"""


def register(commands: Commands) -> None:
    """Add the command with its actions."""
    parser = add_parser(commands, "queue", "inspect the queue, revive or delete dead letters", DESCRIPTION)
    actions = parser.add_subparsers(title="actions", metavar="ACTION", required=True)
    _add_action(actions, "stats", "count the records in the queue", stats)
    _add_limit_option(_add_action(actions, "list", "show the oldest records that wait", show_waiting))
    _add_limit_option(
        _add_action(
            actions, "dead", "show the newest dead letters, which are never sent again by themselves", show_dead
        )
    )
    _add_ids(_add_action(actions, "revive", "move dead letters back into the queue", revive))
    purge_parser = _add_ids(_add_action(actions, "purge", "delete dead letters", purge))
    purge_parser.add_argument("--yes", action="store_true", help="delete without asking for confirmation")


def _add_action(
    actions: Commands,
    name: str,
    summary: str,
    act: Callable[[Storage, argparse.Namespace], Awaitable[int]],
) -> argparse.ArgumentParser:
    async def run(args: argparse.Namespace) -> int:
        async with _open_storage(args) as storage:
            return await act(storage, args)

    parser = add_parser(actions, name, summary, DESCRIPTION)
    add_json_option(parser)
    add_settings_options(parser, key=False)
    parser.set_defaults(run=run)
    return parser


def _add_limit_option(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--limit", type=positive_integer, help=f"maximum number of records; {LIMIT} by default, with --json all"
    )


def _add_ids(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
    group = parser.add_mutually_exclusive_group(required=True)
    group.add_argument("ids", nargs="*", default=[], metavar="ID", help="an id that 'queue dead' shows")
    group.add_argument("--all", action="store_true", help="all dead letters")
    return parser


# The queue


@asynccontextmanager
async def _open_storage(args: argparse.Namespace) -> AsyncIterator[Storage]:
    damages: list[StorageError] = []
    storage = await asyncio.to_thread(_storage, args, damages)
    await storage.open()
    try:
        yield storage
    finally:
        await storage.aclose()
    if damages:
        raise damages[0]


def _storage(args: argparse.Namespace, damages: list[StorageError]) -> Storage:
    configuration = _configuration(args)
    location = storage_location(configuration)
    if location == MEMORY:
        raise UsageError(
            "--storage", f"must be a file, got {MEMORY!r}: a queue in memory is private to its process", "Name a file."
        )
    if isinstance(location, Path) and not location.exists():
        # Opening the storage would create the file.
        print_diagnostic(f"there is no queue file at {location} yet")
        configuration = evolve(configuration, storage=MEMORY)
    return create_storage(configuration, damages.append)


def _configuration(args: argparse.Namespace) -> Configuration:
    # Nothing is sent, so neither a key nor the settings of other projects are needed.
    given: dict[str, Any] = {"authorization_token": "none", "project_mapping": {}}
    if args.storage is not None:
        given["storage"] = args.storage
        # The project and the group only choose the file, which is given.
        given["project_token"] = args.project_token or "any"
        given["app_group"] = None
    elif args.project_token is not None:
        given["project_token"] = args.project_token
    return Configuration.from_env(**given)


# The actions


async def stats(storage: Storage, args: argparse.Namespace) -> int:
    """Count the records in the queue."""
    pending = await storage.pending()
    projects: Counter[str] = Counter()
    for route, count in pending.routes.items():
        projects[project_of(route)] += count
    summary = {"waiting": pending.waiting, "taken": pending.leased, "dead": pending.dead}
    if args.json:
        print_json({**summary, "projects": projects})
    else:
        print_summary({**summary, **{f"waiting for {project}": count for project, count in projects.items() if count}})
    return Exit.DONE


async def show_waiting(storage: Storage, args: argparse.Namespace) -> int:
    """Show the oldest records that wait."""
    records = await storage.waiting(_limit(args))
    _show([(each, f"failed {each.failures} times" if each.failures else "") for each in records], args)
    return Exit.DONE


async def show_dead(storage: Storage, args: argparse.Namespace) -> int:
    """Show the newest dead letters."""
    letters = await storage.dead(_limit(args))
    _show([(each, each.reason) for each in letters], args)
    return Exit.DONE


def _limit(args: argparse.Namespace) -> int:
    return args.limit or (NO_LIMIT if args.json else LIMIT)


def _show(records: list[tuple[Waiting | DeadLetter, str]], args: argparse.Namespace) -> None:
    if args.json:
        for record, reason in records:
            print_json(_as_json(record, reason))
        return
    rows = [_row(record, reason) for record, reason in records]
    print_table(("id", "project", "age", "event", "customer", "reason"), rows)


def _row(record: Waiting | DeadLetter, reason: str) -> tuple[str, ...]:
    data = _data(record)
    ids = " ".join(f"{kind}={value}" for kind, value in data.get("customer_ids", {}).items())
    return record.id, project_of(record.route), age(record.at), _event_type(data), ids, reason


def _as_json(record: Waiting | DeadLetter, reason: str) -> dict[str, Any]:
    fields = {"id": record.id, "project": project_of(record.route), "at": record.at, "reason": reason}
    if isinstance(record, DeadLetter):
        fields["died_at"] = record.died_at
    data = _data(record)
    return {**fields, "event": _event_type(data), "customer_ids": data.get("customer_ids", {}), "data": data}


def _data(record: Waiting | DeadLetter) -> dict[str, Any]:
    try:
        data = read_command(record.body).get("data")
    except (ValueError, InvalidEventError):
        return {"event_type": "(unreadable)"}
    return data if isinstance(data, dict) else {}


def _event_type(data: dict[str, Any]) -> str:
    return str(data.get("event_type", "(customer properties)"))


async def revive(storage: Storage, args: argparse.Namespace) -> int:
    """Move dead letters back into the queue."""
    return _report("revived", await storage.revive(_selected_ids(args)), args)


async def purge(storage: Storage, args: argparse.Namespace) -> int:
    """Delete dead letters."""
    count = (await storage.pending()).dead if args.all else len(_selected_ids(args) or ())
    if count and not args.yes and not await asyncio.to_thread(_is_confirmed, count):
        print_diagnostic("nothing was deleted")
        return Exit.FAILED
    return _report("purged", await storage.purge(_selected_ids(args)), args)


def _selected_ids(args: argparse.Namespace) -> list[str] | None:
    """Return the ids that were given, or None for all dead letters."""
    return None if args.all else list(dict.fromkeys(args.ids))


def _is_confirmed(count: int) -> bool:
    if not sys.stdin.isatty():
        raise UsageError(
            "--yes", "is required where standard input is not a terminal", "Pass it to delete without asking."
        )
    print(f"Delete {count:,} dead letters permanently? [y/N] ", end="", file=sys.stderr, flush=True)
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def _report(outcome: str, count: int, args: argparse.Namespace) -> int:
    unknown = 0 if args.all else len(_selected_ids(args) or ()) - count
    if args.json:
        print_json({outcome: count, "unknown": unknown})
    else:
        print_summary({outcome: count})
    if unknown:
        print_diagnostic(f"{unknown} of {len(args.ids)} ids are not ids of dead letters")
    return Exit.BAD_INPUT if unknown else Exit.DONE
