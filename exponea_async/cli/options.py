"""
What several commands share: options, the values given with them, and the client that they configure.
"""

import argparse
import asyncio
import json
import os
import re
import sys
from collections import Counter
from collections.abc import AsyncIterator, Coroutine, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, NoReturn

from attrs import evolve

from exponea_async._internal.secrets import to_secret
from exponea_async._pipeline.commands import project_of
from exponea_async.cli.terminal import Exit, UsageError
from exponea_async.client import CLOSE_TIMEOUT, Exponea
from exponea_async.config import BASE_URL, Configuration, is_postgres_url
from exponea_async.errors import ConfigurationError
from exponea_async.hooks import Hooks
from exponea_async.projects import BasicAuth
from exponea_async.storage import MEMORY, create_storage, is_in_memory

SETTINGS_HELP = """\
Settings are read from the environment: EXPONEA_PROJECT_TOKEN, EXPONEA_AUTHORIZATION_TOKEN (the public API key) and all
others that Configuration.from_env() reads. The key is never an argument, because other users of the machine can see
arguments.
"""

#: Stands for the project if there is none in the settings.
NO_PROJECT = "none"
#: A password in a URL: behind the user, or as a parameter.
_PASSWORD = re.compile(r"//[^/?]*:[^@]*@|password=", re.IGNORECASE)
Commands = Any  # argparse has no public name for what add_subparsers() returns


def add_parser(commands: Commands, name: str, summary: str, description: str = "") -> argparse.ArgumentParser:
    """Add the parser of a command; without a description, its help is the summary."""
    parser: argparse.ArgumentParser = commands.add_parser(
        name,
        help=summary,
        description=f"{summary[0].upper()}{summary[1:]}.\n\n{description}".strip(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    return parser


def add_help_as_default(parser: argparse.ArgumentParser) -> None:
    """Let a parser whose commands are missing print its help, as wrong usage."""

    async def run(_: argparse.Namespace) -> int:
        parser.print_help(sys.stderr)
        return Exit.USAGE

    parser.set_defaults(run=run)


def add_json_option(parser: argparse.ArgumentParser) -> None:
    """Add the option ``--json``."""
    parser.add_argument("--json", action="store_true", help="print the result as one line of JSON")


# Settings


class _RefuseKey(argparse.Action):
    """Refuses a key on the command line, without repeating it."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> NoReturn:
        parser.error(
            "a key on the command line is visible to other users of the machine. "
            "Use the variable EXPONEA_AUTHORIZATION_TOKEN or --authorization-file."
        )


def storage_argument(string: str) -> str:
    """Parse the place of a queue: a path, or the URL of a database without a password."""
    if is_postgres_url(string) and _PASSWORD.search(string):
        # Not repeated: the message may be kept where the arguments are not.
        raise argparse.ArgumentTypeError(
            "a password on the command line is visible to other users of the machine. Use the variable EXPONEA_STORAGE,"
            " or leave the password out of the URL and use PGPASSWORD or a password file"
        )
    return string


def add_settings_options(parser: argparse.ArgumentParser, *, key: bool = True) -> None:
    """
    Add the options for settings.

    Args:
        parser: The parser of the command.
        key: Whether the command uploads, so that it needs the address of the platform and a key.
    """
    group = parser.add_argument_group("settings", "they override the environment")
    group.add_argument("--project-token", metavar="TOKEN", help="the token of the project (EXPONEA_PROJECT_TOKEN)")
    group.add_argument(
        "--storage",
        type=storage_argument,
        metavar="PATH",
        help="the file of the queue, or the URL of a PostgreSQL database (EXPONEA_STORAGE); by default a file for each "
        "project, in the user's state directory",
    )
    for name in ("--authorization-token", "--authorization", "--token", "--key"):
        group.add_argument(name, nargs="?", action=_RefuseKey, help=argparse.SUPPRESS)
    if key:
        group.add_argument(
            "--base-url",
            metavar="URL",
            help=f"the address of the Engagement API (EXPONEA_BASE_URL), {BASE_URL} by default",
        )
        group.add_argument(
            "--authorization-file",
            metavar="FILE",
            help='a file that contains the public API key, or {"key_id": ..., "secret": ...} for private access; the '
            "key itself is never an argument, because other users of the machine can see arguments",
        )


def read_configuration(args: argparse.Namespace) -> Configuration:
    """
    Return the settings from the arguments and the environment.

    Raises:
        ConfigurationError: A setting is wrong.
        UsageError: The file of the key can't be read, or the queue would be in memory.
    """
    configuration = read_settings(args)
    if is_in_memory(configuration):
        raise UsageError(
            "--storage",
            f"must be a file or a database, got {MEMORY!r}: the queue would be lost when the command ends",
            "Name a file or the URL of a PostgreSQL database.",
        )
    return configuration


def with_uploads(configuration: Configuration) -> Configuration:
    """Return settings for a command that uploads, even where the application's clients only record."""
    return evolve(configuration, upload=evolve(configuration.upload, enabled=True))


def read_settings(args: argparse.Namespace) -> Configuration:
    """
    Return the settings from the arguments and the environment, whatever the queue is.

    Raises:
        ConfigurationError: A setting is wrong.
        UsageError: The file of the key can't be read.
    """
    given: dict[str, Any] = {
        name: getattr(args, name)
        for name in ("project_token", "base_url", "storage")
        if getattr(args, name) is not None
    }
    if args.authorization_file is not None:
        given["authorization_token"] = _read_key(args.authorization_file)
    return Configuration.from_env(**given)


def read_storage_settings(args: argparse.Namespace) -> Configuration:
    """
    Return settings for a command that only uses the queue: a key and other projects may be missing.

    Raises:
        ConfigurationError: A setting that chooses the queue is missing or wrong.
    """
    given: dict[str, Any] = {}
    if args.project_token is not None:
        given["project_token"] = args.project_token
    is_file = args.storage is not None and not is_postgres_url(args.storage)
    if args.storage is not None:
        given["storage"] = to_secret(args.storage)
    if is_file:
        # The group only chooses the file, which is given. In a database, it chooses the queue.
        given["app_group"] = None
    with suppress(ConfigurationError):
        return Configuration.from_env(**given)
    # Nothing is sent, so neither a key nor the settings of other projects are required.
    given |= {"authorization_token": "none", "project_mapping": {}, "other_projects": ()}
    if is_file and not os.environ.get("EXPONEA_PROJECT_TOKEN"):
        # Without a file, the project chooses it, and in a database its queue.
        given.setdefault("project_token", NO_PROJECT)
    return Configuration.from_env(**given)


def _read_key(path: str) -> str | BasicAuth:
    # Neither the path nor the content is printed: the user may have given the key itself.
    try:
        content = Path(path).read_text(encoding="utf-8").strip()
        if not content.startswith("{"):
            return content
        key = json.loads(content)
        return BasicAuth(key["key_id"], key["secret"])
    except OSError as error:
        raise UsageError(
            "--authorization-file", f"the file can't be read: {error.strerror}", "Name a file that contains the key."
        ) from None
    except (KeyError, json.JSONDecodeError, UnicodeDecodeError):
        raise UsageError(
            "--authorization-file",
            "the content of the file is not a key",
            'Write the public API key into it, or {"key_id": ..., "secret": ...}.',
        ) from None


# The client


@asynccontextmanager
async def open_client(
    configuration: Configuration, hooks: Hooks | None = None, **options: Any
) -> AsyncIterator[Exponea]:
    """Open a client; on closing it uploads as usual, but not when the command has failed or was interrupted."""
    exponea = Exponea(configuration, hooks=hooks, **options)
    await exponea.start()
    timeout = 0.0
    try:
        yield exponea
        timeout = CLOSE_TIMEOUT
    finally:
        await exponea.aclose(timeout)


async def waiting_by_project(configuration: Configuration) -> Counter[str]:
    """
    Return how many events wait in the queue, by the token of their project.

    Raises:
        StorageError: The queue can't be read.
    """
    storage = create_storage(configuration, lambda _: None)
    await storage.open()
    try:
        routes = (await storage.pending()).routes
    finally:
        await storage.aclose()
    waiting: Counter[str] = Counter()
    for route, count in routes.items():
        waiting[project_of(route)] += count
    return waiting


async def first_completed(*coroutines: Coroutine[Any, Any, Any]) -> None:
    """Run coroutines until the first one ends, and cancel the others; raises the error of the first one."""
    tasks = [asyncio.create_task(each) for each in coroutines]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            await task
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


# Values


def parse_value(string: str) -> Any:
    """Return the value of a string that is JSON, or else the string itself."""
    try:
        return json.loads(string, parse_constant=_refuse_constant)
    except (ValueError, RecursionError):
        return string


def _refuse_constant(constant: str) -> NoReturn:
    # JSON has no Infinity and no NaN, so they are ordinary strings.
    raise ValueError(constant)


def name_and_value(string: str) -> tuple[str, str]:
    """Parse an argument of the form ``name=value``."""
    name, separator, value = string.partition("=")
    if not name or not separator:
        raise argparse.ArgumentTypeError(f"must have the form name=value, got {string!r}")
    return name, value


def seconds(string: str) -> float:
    """Parse a duration of 0 seconds or more."""
    try:
        value = float(string)
    except ValueError:
        value = -1.0
    if not 0 <= value < float("inf"):
        raise argparse.ArgumentTypeError(f"must be a number of seconds, 0 or more, got {string!r}")
    return value


def port_number(string: str) -> int:
    """Parse the number of a port; 0 stands for any free one."""
    if not (string.isascii() and string.isdecimal() and int(string[:18]) < 65_536):
        raise argparse.ArgumentTypeError(f"must be a port from 0 to 65535, got {string!r}")
    return int(string)


def positive_integer(string: str) -> int:
    """Parse an integer above 0."""
    if not (string.isascii() and string.isdecimal() and int(string[:18])):
        raise argparse.ArgumentTypeError(f"must be an integer above 0, got {string!r}")
    return int(string[:18])


def unique_names(option: str, pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    """
    Return the pairs that were given with a repeatable option as a dict.

    Raises:
        UsageError: A name was given more than once.
    """
    given = dict(pairs)
    if len(given) < len(pairs):
        names = [name for name, _ in pairs]
        repeated = next(name for name in names if names.count(name) > 1)
        raise UsageError(
            option, f"each name must be given once, got {repeated!r} more than once", "Remove one of them."
        )
    return given
