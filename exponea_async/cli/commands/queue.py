"""
``exponea-async queue``: inspect and compact the queue, revive or delete dead letters, give events to another project.
"""

import argparse
import asyncio
import re
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from attrs import evolve, frozen

from exponea_async._internal.printable import printable
from exponea_async._internal.validation import TOKEN as PROJECT_TOKEN
from exponea_async._pipeline.commands import project_of, read_command, split_route
from exponea_async._pipeline.projects import UNKNOWN_PROJECT_HINT, ProjectStore
from exponea_async.cli.commands import move
from exponea_async.cli.options import (
    Commands,
    add_help_as_default,
    add_json_option,
    add_parser,
    add_settings_options,
    positive_integer,
    read_storage_settings,
)
from exponea_async.cli.terminal import (
    Exit,
    UsageError,
    age,
    duration,
    print_diagnostic,
    print_json,
    print_summary,
    print_table,
)
from exponea_async.config import Configuration
from exponea_async.errors import InvalidEventError, StorageError
from exponea_async.storage import MEMORY, create_storage, is_in_postgres, storage_location
from exponea_async.storage.base import MAX_DUE_AHEAD, DeadLetter, Pending, Storage, Waiting

LIMIT = 20
#: The limit where all records are wanted.
NO_LIMIT = 1_000_000_000

DESCRIPTION = """\
The queue is that of the settings in the environment, EXPONEA_STORAGE or EXPONEA_PROJECT_TOKEN. No key is needed and
nothing is uploaded.
"""


TITLES = ("id", "project", "age", "event", "customer")


@frozen
class Queue:
    """
    The queue, and what the settings and the queue say about projects.

    Attributes:
        storage: The storage, open.
        projects: The configured projects, and those that are stored in the queue.
        is_in_database: Whether it is in PostgreSQL.
    """

    storage: Storage
    projects: ProjectStore
    is_in_database: bool = False

    async def address(self, project: str) -> str | None:
        """Return the address of a project, or None if neither the settings nor the queue name it."""
        access = await self.projects.find(project)
        return None if access is None else access.base_url


def register(commands: Commands) -> None:
    """Add the command with its actions."""
    parser = add_parser(commands, "queue", "inspect the queue, revive or delete dead letters", DESCRIPTION)
    add_help_as_default(parser)
    actions = parser.add_subparsers(title="actions", metavar="ACTION")
    _add_action(actions, "stats", "count the records in the queue", stats)
    _add_limit_option(_add_action(actions, "list", "show the oldest records that wait", show_waiting))
    _add_limit_option(
        _add_action(
            actions, "dead", "show the newest dead letters, which are never sent again by themselves", show_dead
        )
    )
    _add_ids(_add_action(actions, "revive", "move dead letters back into the queue", revive))
    _add_action(actions, "compact", "give unused disk space back to the system", compact)
    purge_parser = _add_action(actions, "purge", "delete dead letters, or the events that wait for a project", purge)
    group = _add_ids(purge_parser)
    group.add_argument("--waiting", action="store_true", help="the events that wait for the project of --project")
    purge_parser.add_argument("--project", metavar="TOKEN", help="the project, with --waiting")
    _add_yes(purge_parser)
    retarget_parser = _add_action(
        actions, "retarget", "give the events and dead letters of one project to another one", retarget
    )
    retarget_parser.add_argument("old", metavar="OLD", help="the token of the project that has the events")
    retarget_parser.add_argument("new", type=_token, metavar="NEW", help="the token of the project that is to get them")
    _add_yes(retarget_parser)
    drop_parser = _add_action(
        actions, "drop-project", "delete the events that wait for a project, and its dead letters", drop_project
    )
    drop_parser.add_argument("project", metavar="TOKEN", help="the token of the project")
    _add_yes(drop_parser)
    move.register(actions)


def _add_action(
    actions: Commands,
    name: str,
    summary: str,
    act: Callable[[Queue, argparse.Namespace], Awaitable[int]],
) -> argparse.ArgumentParser:
    async def run(args: argparse.Namespace) -> int:
        async with _open_queue(args) as queue:
            return await act(queue, args)

    parser = add_parser(actions, name, summary, DESCRIPTION)
    add_json_option(parser)
    add_settings_options(parser, key=False)
    parser.set_defaults(run=run)
    return parser


def _add_limit_option(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--limit",
        type=positive_integer,
        metavar="N",
        help=f"maximum number of records; {LIMIT} by default, with --json all",
    )


def _add_yes(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--yes", action="store_true", help="do not ask for confirmation")


def _token(string: str) -> str:
    if not re.fullmatch(PROJECT_TOKEN, string):
        raise argparse.ArgumentTypeError(f"must consist of ASCII letters, digits and '-', got {string!r}")
    return string


def _add_ids(parser: argparse.ArgumentParser) -> Any:
    group = parser.add_mutually_exclusive_group(required=True)
    group.add_argument("ids", nargs="*", default=[], metavar="ID", help="an id that 'queue dead' shows")
    group.add_argument("--all", action="store_true", help="all dead letters")
    return group


# The queue


@asynccontextmanager
async def _open_queue(args: argparse.Namespace) -> AsyncIterator[Queue]:
    damages: list[StorageError] = []
    configuration = read_storage_settings(args)
    storage = await asyncio.to_thread(_storage, configuration, damages)
    await storage.open()
    try:
        yield Queue(storage, ProjectStore(configuration, storage), is_in_postgres(configuration))
    finally:
        await storage.aclose()
    if damages:
        raise damages[0]


def _storage(configuration: Configuration, damages: list[StorageError]) -> Storage:
    location = storage_location(configuration)
    if location == MEMORY:
        raise UsageError(
            "--storage",
            f"must be a file or a database, got {MEMORY!r}: a queue in memory is private to its process",
            "Name a file or the URL of a PostgreSQL database.",
        )
    if isinstance(location, Path) and not location.exists():
        # Opening the storage would create the file.
        print_diagnostic(f"there is no queue file at {location} yet")
        configuration = evolve(configuration, storage=MEMORY)
    # Neither does looking at a queue create or migrate a schema.
    postgres = evolve(configuration.postgres, migrate=False)
    return create_storage(evolve(configuration, postgres=postgres), damages.append)


# The actions


async def stats(queue: Queue, args: argparse.Namespace) -> int:
    """Count the records in the queue."""
    pending = await queue.storage.pending()
    waiting = _by_project(pending)
    unknown = [project for project, count in waiting.items() if count and await queue.address(project) is None]
    summary = {"waiting": pending.waiting, "leased": pending.leased, "dead": pending.dead}
    if args.json:
        print_json({**summary, "projects": waiting, "unknown": unknown})
    else:
        print_summary({**summary, **{f"waiting for {project}": count for project, count in waiting.items() if count}})
    for project in unknown:
        print_diagnostic(
            f"project {project} is neither in the settings of this command nor in the queue. If those of the "
            f"application do not name it either, its events can't be sent. {UNKNOWN_PROJECT_HINT}"
        )
    return Exit.DONE


def _by_project(pending: Pending) -> dict[str, int]:
    projects: Counter[str] = Counter()
    for route, count in pending.routes.items():
        projects[project_of(route)] += count
    return dict(projects)


async def compact(queue: Queue, args: argparse.Namespace) -> int:
    """Give unused space back to the system."""
    summary = {"freed_bytes": max(0, await queue.storage.compact())}
    if queue.is_in_database:
        print_diagnostic("the space of deleted rows is reused: the server's autovacuum frees it by itself")
    if args.json:
        print_json(summary)
    else:
        print_summary(summary)
    return Exit.DONE


async def show_waiting(queue: Queue, args: argparse.Namespace) -> int:
    """Show the oldest records that wait."""
    records = await queue.storage.waiting(_limit(args))
    addresses = {
        project: await queue.address(project) or "" for project in {project_of(each.route) for each in records}
    }
    now = time.time()
    if args.json:
        for record in records:
            address = addresses[project_of(record.route)]
            sending, reason = record.is_leased(now), _reason(record)
            print_json({**_as_json(record, reason), "address": address, "sending": sending, "due": record.due})
        return Exit.DONE
    rows = [
        (*_row(record), addresses[project_of(record.route)] or "unknown", _state(record, now)) for record in records
    ]
    print_table((*TITLES, "address", "state"), rows)
    return Exit.DONE


def _state(record: Waiting, now: float) -> str:
    """Return what happens to a record in the queue, in words."""
    if record.is_leased(now):
        return "is being sent"
    wait = f"waits {duration(record.due - now)}" if now < record.due <= now + MAX_DUE_AHEAD else "waits"
    reason = _reason(record)
    return f"{wait}: {reason}" if reason else wait


def _reason(record: Waiting) -> str:
    return "; ".join(filter(None, (record.reason, f"failed {record.failures} times" if record.failures else "")))


async def show_dead(queue: Queue, args: argparse.Namespace) -> int:
    """Show the newest dead letters."""
    letters = await queue.storage.dead(_limit(args))
    if args.json:
        for letter in letters:
            print_json({**_as_json(letter, letter.reason), "died_at": letter.died_at})
    else:
        print_table((*TITLES, "reason"), [(*_row(letter), letter.reason) for letter in letters])
    return Exit.DONE


def _limit(args: argparse.Namespace) -> int:
    return args.limit or (NO_LIMIT if args.json else LIMIT)


def _row(record: Waiting | DeadLetter) -> tuple[str, ...]:
    data = _data(record)
    ids = " ".join(f"{kind}={value}" for kind, value in data.get("customer_ids", {}).items())
    return record.id, project_of(record.route), age(record.at), _event_type(data), ids


def _as_json(record: Waiting | DeadLetter, reason: str) -> dict[str, Any]:
    data = _data(record)
    return {
        "id": record.id,
        "project": project_of(record.route),
        "at": record.at,
        "reason": reason,
        "event": _event_type(data),
        "customer_ids": data.get("customer_ids", {}),
        "data": data,
    }


def _data(record: Waiting | DeadLetter) -> dict[str, Any]:
    try:
        data = read_command(record.body).get("data")
    except (ValueError, InvalidEventError):
        return {"event_type": "(unreadable)"}
    return data if isinstance(data, dict) else {}


def _event_type(data: dict[str, Any]) -> str:
    return str(data.get("event_type", "(customer properties)"))


# Dead letters


async def revive(queue: Queue, args: argparse.Namespace) -> int:
    """Move dead letters back into the queue."""
    return _report("revived", await queue.storage.revive(_selected_ids(args)), args)


async def purge(queue: Queue, args: argparse.Namespace) -> int:
    """Delete dead letters, or the records of a project that wait."""
    if args.waiting:
        return await _purge_waiting(queue, args)
    if args.project:
        raise UsageError("--project", "is for --waiting", "Add --waiting; 'drop-project' deletes dead letters, too.")
    count = (await queue.storage.pending()).dead if args.all else len(_selected_ids(args) or ())
    if count and not await _is_confirmed(f"Delete {count:,} dead letters permanently?", args):
        return Exit.FAILED
    return _report("purged", await queue.storage.purge(_selected_ids(args)), args)


def _selected_ids(args: argparse.Namespace) -> list[str] | None:
    """Return the ids that were given, or None for all dead letters."""
    return None if args.all else list(dict.fromkeys(args.ids))


def _report(outcome: str, count: int, args: argparse.Namespace) -> int:
    unknown = 0 if args.all else len(_selected_ids(args) or ()) - count
    if args.json:
        print_json({outcome: count, "unknown": unknown})
    else:
        print_summary({outcome: count})
    if unknown:
        print_diagnostic(f"{unknown} of {len(args.ids)} ids are not ids of dead letters")
    return Exit.BAD_INPUT if unknown else Exit.DONE


async def _is_confirmed(question: str, args: argparse.Namespace) -> bool:
    if args.yes:
        return True
    if not sys.stdin.isatty():
        raise UsageError("--yes", "is required where standard input is not a terminal", "Pass it to skip the question.")
    print(f"{printable(question)} [y/N] ", end="", file=sys.stderr, flush=True)
    answer = await asyncio.to_thread(sys.stdin.readline)
    if answer.strip().lower() in ("y", "yes"):
        return True
    print_diagnostic("nothing was changed")
    return False


# Projects


async def _purge_waiting(queue: Queue, args: argparse.Namespace) -> int:
    if not args.project:
        raise UsageError("--project", "is missing", "Name the project whose waiting events are to be deleted.")
    routes = await _routes_with(queue, args.project)
    count = sum(routes.values())
    question = f"Delete {count:,} events that wait for project {args.project} permanently?"
    if count and not await _is_confirmed(question, args):
        return Exit.FAILED
    return _report_project("purged", await queue.storage.drop_waiting(routes), args.project, args)


async def drop_project(queue: Queue, args: argparse.Namespace) -> int:
    """Delete the records of a project that wait, and its dead letters."""
    routes = await _routes_with(queue, args.project)
    letters = [each.id for each in await queue.storage.dead(NO_LIMIT) if project_of(each.route) == args.project]
    count = sum(routes.values())
    question = f"Delete {count:,} waiting events and {len(letters):,} dead letters of {args.project} permanently?"
    if (count or letters) and not await _is_confirmed(question, args):
        return Exit.FAILED
    dropped = await queue.storage.drop_waiting(routes) + await queue.storage.purge(letters)
    return _report_project("dropped", dropped, args.project, args)


async def retarget(queue: Queue, args: argparse.Namespace) -> int:
    """Give the records of a project to another one."""
    routes = await _routes_with(queue, args.old)
    letters = sum(project_of(each.route) == args.old for each in await queue.storage.dead(NO_LIMIT))
    count = sum(routes.values()) + letters
    question = f"Give {count:,} events of project {args.old}, dead letters included, to project {args.new}?"
    if count and args.old != args.new and not await _is_confirmed(question, args):
        return Exit.FAILED
    for route in routes:
        await queue.storage.rename_route(route, f"{args.new}{split_route(route)[1].removeprefix(args.old)}")
    if await queue.address(args.new) is None:
        print_diagnostic(
            f"project {args.new} is neither in the settings of this command nor in the queue; its events are sent "
            "only if those of the application name it"
        )
    return _report_project("retargeted", count, args.old, args)


async def _routes_with(queue: Queue, project: str) -> dict[str, int]:
    """Return the routes of a project, with the number of their records that wait."""
    routes = (await queue.storage.pending()).routes
    return {route: count for route, count in routes.items() if project_of(route) == project}


def _report_project(outcome: str, count: int, project: str, args: argparse.Namespace) -> int:
    if args.json:
        print_json({outcome: count})
    else:
        print_summary({outcome: count})
    if not count:
        print_diagnostic(f"the queue has no such events of project {project}")
    return Exit.DONE if count else Exit.BAD_INPUT
