"""
``exponea-async queue``: look into the queue, and put dead letters right.
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

from exponea_async._pipeline.commands import read_command
from exponea_async.cli.exits import Exit, UsageError
from exponea_async.cli.options import Commands, add_json, add_settings, command, whole
from exponea_async.cli.terminal import age, complain, print_facts, print_json, print_table
from exponea_async.config import Configuration
from exponea_async.errors import DamagedFileError, InvalidEventError
from exponea_async.storage import MEMORY, create_storage, storage_location
from exponea_async.storage.base import DeadLetter, Leased, Storage

LIMIT = 20
#: How many are shown where all are asked for.
ALL = 1_000_000_000

SETTINGS = """\
The queue is that of the environment's settings, EXPONEA_STORAGE or EXPONEA_PROJECT_TOKEN; no key is needed and
nothing is uploaded.
"""


def add_to(commands: Commands) -> None:
    """Add the command, with commands of its own."""
    parser = command(commands, "queue", "look into the queue, revive or delete dead letters", SETTINGS)
    actions = parser.add_subparsers(title="actions", metavar="ACTION", required=True)
    _add(actions, "stats", "count what is in the queue", stats)
    _add_limit(_add(actions, "list", "show the oldest records that wait", show_waiting))
    _add_limit(_add(actions, "dead", "show the newest dead letters: what was refused for good", show_dead))
    _add_ids(_add(actions, "revive", "put dead letters back into the queue", revive))
    purging = _add_ids(_add(actions, "purge", "delete dead letters", purge))
    purging.add_argument("--yes", action="store_true", help="don't ask")


def _add(
    actions: Commands,
    name: str,
    summary: str,
    act: Callable[[Storage, argparse.Namespace], Awaitable[int]],
) -> argparse.ArgumentParser:
    async def run(args: argparse.Namespace) -> int:
        async with _opened(args) as storage:
            return await act(storage, args)

    parser = command(actions, name, summary, SETTINGS)
    add_json(parser)
    add_settings(parser, key=False)
    parser.set_defaults(run=run)
    return parser


def _add_limit(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--limit", type=whole, help=f"how many; {LIMIT} by default, with --json all")


def _add_ids(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
    group = parser.add_mutually_exclusive_group(required=True)
    group.add_argument("ids", nargs="*", default=[], metavar="ID", help="as 'queue dead' shows them")
    group.add_argument("--all", action="store_true", help="all dead letters")
    return parser


# The queue


@asynccontextmanager
async def _opened(args: argparse.Namespace) -> AsyncIterator[Storage]:
    damages: list[DamagedFileError] = []
    storage = await asyncio.to_thread(_storage, args, damages)
    await storage.open()
    try:
        yield storage
    finally:
        await storage.aclose()
    if damages:
        raise damages[0]


def _storage(args: argparse.Namespace, damages: list[DamagedFileError]) -> Storage:
    settings = _settings(args)
    location = storage_location(settings, settings.app_group)
    if location == MEMORY:
        raise UsageError("a queue in memory can only be seen from its own process")
    if isinstance(location, Path) and not location.exists():
        # To look must not make one.
        complain(f"there is no queue file at {location} yet")
        settings = evolve(settings, storage=MEMORY)
    return create_storage(settings, settings.app_group, damages.append)


def _settings(args: argparse.Namespace) -> Configuration:
    # Nothing is sent, so no key is asked for, and none can be wrong.
    given: dict[str, Any] = {"authorization_token": "none", "project_mapping": {}}
    if args.storage is not None:
        given["storage"] = args.storage
        # The file tells it all; whose it is need not be known.
        given["project_token"] = args.project_token or "any"
    elif args.project_token is not None:
        given["project_token"] = args.project_token
    return Configuration.from_env(**given)


# What can be done


async def stats(storage: Storage, args: argparse.Namespace) -> int:
    """Count."""
    pending = await storage.pending()
    projects: Counter[str] = Counter()
    for route, count in pending.routes.items():
        projects[_project(route)] += count
    facts = {"waiting": pending.waiting, "taken": pending.leased, "dead": pending.dead}
    if args.json:
        print_json({**facts, "projects": projects})
    else:
        print_facts({**facts, **{f"waiting for {project}": count for project, count in projects.items() if count}})
    return Exit.DONE


async def show_waiting(storage: Storage, args: argparse.Namespace) -> int:
    """Show the oldest."""
    records = await storage.waiting(_limit(args))
    _show([(each, f"failed {each.failures} times" if each.failures else "") for each in records], args)
    return Exit.DONE


async def show_dead(storage: Storage, args: argparse.Namespace) -> int:
    """Show the newest dead letters."""
    letters = await storage.dead(_limit(args))
    _show([(each, each.reason) for each in letters], args)
    return Exit.DONE


def _limit(args: argparse.Namespace) -> int:
    return args.limit or (ALL if args.json else LIMIT)


def _show(records: list[tuple[Leased | DeadLetter, str]], args: argparse.Namespace) -> None:
    if args.json:
        for record, reason in records:
            print_json(_described(record, reason))
        return
    rows = [_row(record, reason) for record, reason in records]
    print_table(("id", "project", "age", "event", "customer", "reason"), rows)


def _row(record: Leased | DeadLetter, reason: str) -> tuple[str, ...]:
    data = _data(record)
    ids = " ".join(f"{kind}={value}" for kind, value in data.get("customer_ids", {}).items())
    return record.id, _project(record.route), age(record.at), _event(data), ids, reason


def _described(record: Leased | DeadLetter, reason: str) -> dict[str, Any]:
    facts = {"id": record.id, "project": _project(record.route), "at": record.at, "reason": reason}
    if isinstance(record, DeadLetter):
        facts["died_at"] = record.died_at
    data = _data(record)
    return {**facts, "event": _event(data), "customer_ids": data.get("customer_ids", {}), "data": data}


def _data(record: Leased | DeadLetter) -> dict[str, Any]:
    try:
        data = read_command(record.body).get("data")
    except (ValueError, InvalidEventError):
        return {"event_type": "(unreadable)"}
    return data if isinstance(data, dict) else {}


def _event(data: dict[str, Any]) -> str:
    return str(data.get("event_type", "(customer properties)"))


def _project(route: str) -> str:
    return route.rpartition("/projects/")[2].partition("/")[0]


async def revive(storage: Storage, args: argparse.Namespace) -> int:
    """Put dead letters back."""
    return _report("revived", await storage.revive(_chosen(args)), args)


async def purge(storage: Storage, args: argparse.Namespace) -> int:
    """Delete dead letters."""
    count = (await storage.pending()).dead if args.all else len(_chosen(args) or ())
    if count and not args.yes and not await asyncio.to_thread(_confirmed, count):
        complain("nothing was deleted")
        return Exit.FAILED
    return _report("purged", await storage.purge(_chosen(args)), args)


def _chosen(args: argparse.Namespace) -> list[str] | None:
    return None if args.all else list(dict.fromkeys(args.ids))


def _confirmed(count: int) -> bool:
    if not sys.stdin.isatty():
        raise UsageError("there is nobody to ask; --yes deletes without asking")
    print(f"Delete {count:,} dead letters for good? [y/N] ", end="", file=sys.stderr, flush=True)
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def _report(verb: str, count: int, args: argparse.Namespace) -> int:
    unknown = 0 if args.all else len(_chosen(args) or ()) - count
    if args.json:
        print_json({verb: count, "unknown": unknown})
    else:
        print_facts({verb: count})
    if unknown:
        complain(f"unknown among the dead letters: {unknown} of {len(args.ids)}")
    return Exit.BAD_INPUT if unknown else Exit.DONE
