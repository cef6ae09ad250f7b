"""
What several commands share: options, the values given with them, and the client that they configure.
"""

import argparse
import asyncio
import json
from collections.abc import AsyncIterator, Coroutine, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NoReturn

from exponea_async.cli.terminal import UsageError
from exponea_async.client import CLOSE_TIMEOUT, Exponea
from exponea_async.config import Configuration
from exponea_async.hooks import Hooks
from exponea_async.projects import BasicAuth
from exponea_async.storage import MEMORY

SETTINGS_HELP = """\
Settings are read from the environment: EXPONEA_PROJECT_TOKEN, EXPONEA_AUTHORIZATION_TOKEN and all others that
Configuration.from_env() reads. The key is never an argument, because other users of the machine can see arguments.
"""

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


def add_settings_options(parser: argparse.ArgumentParser, *, key: bool = True) -> None:
    """
    Add the options for settings.

    Args:
        parser: The parser of the command.
        key: Whether the command uploads, so that it needs the address of the platform and a key.
    """
    group = parser.add_argument_group("settings", "they override the environment")
    group.add_argument("--project-token", metavar="TOKEN", help="the project")
    group.add_argument("--storage", metavar="PATH", help="the file of the queue")
    for name in ("--authorization-token", "--authorization", "--token", "--key"):
        group.add_argument(name, nargs="?", action=_RefuseKey, help=argparse.SUPPRESS)
    if key:
        group.add_argument("--base-url", metavar="URL", help="the address of the Engagement API")
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
    given: dict[str, Any] = {
        name: getattr(args, name)
        for name in ("project_token", "base_url", "storage")
        if getattr(args, name) is not None
    }
    if args.authorization_file is not None:
        given["authorization_token"] = _read_key(args.authorization_file)
    configuration = Configuration.from_env(**given)
    if configuration.storage == MEMORY:
        raise UsageError(
            "--storage",
            f"must be a file, got {MEMORY!r}: the queue would be lost when the command ends",
            "Name a file.",
        )
    return configuration


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
