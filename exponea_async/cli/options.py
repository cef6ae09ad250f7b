"""
What several commands take: settings, customer ids, properties, moments.
"""

import argparse
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NoReturn

from exponea_async.cli.exits import UsageError
from exponea_async.client import CLOSE_TIMEOUT, Exponea
from exponea_async.config import BasicAuth, Configuration
from exponea_async.hooks import Hooks
from exponea_async.storage import MEMORY

SETTINGS = """\
Settings come from the environment: EXPONEA_PROJECT_TOKEN, EXPONEA_AUTHORIZATION_TOKEN and all others that
Configuration.from_env() reads. The key is never an argument, since other users of the machine can see those.
"""
KEY_HINT = "use the variable EXPONEA_AUTHORIZATION_TOKEN or --authorization-file"

Commands = Any  # argparse has no public name for what add_subparsers() returns


def command(commands: Commands, name: str, summary: str, description: str = "") -> argparse.ArgumentParser:
    """Add a command."""
    parser: argparse.ArgumentParser = commands.add_parser(
        name,
        help=summary,
        description=f"{summary[0].upper()}{summary[1:]}.\n\n{description}".strip(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    return parser


def add_json(parser: argparse.ArgumentParser) -> None:
    """Let a command answer in JSON."""
    parser.add_argument("--json", action="store_true", help="print the result as a line of JSON")


# Settings


class _RefuseKey(argparse.Action):
    """Refuses a key as an argument, without repeating it."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> NoReturn:
        parser.error(f"a key as an argument is visible to other users; {KEY_HINT}")


def add_settings(parser: argparse.ArgumentParser, *, key: bool = True) -> None:
    """Let settings be given on the command line."""
    group = parser.add_argument_group("settings", "they win over the environment")
    group.add_argument("--project-token", metavar="TOKEN", help="the project")
    group.add_argument("--storage", metavar="PATH", help="the queue's file")
    for name in ("--authorization-token", "--authorization", "--token", "--key"):
        group.add_argument(name, nargs="?", action=_RefuseKey, help=argparse.SUPPRESS)
    if key:
        group.add_argument("--base-url", metavar="URL", help="where Engagement is reached")
        group.add_argument(
            "--authorization-file",
            metavar="FILE",
            help='a file that holds the public API key, or {"key_id": ..., "secret": ...} for private access; the key '
            "itself is never an argument, since other users of the machine can see those",
        )


def configuration(args: argparse.Namespace) -> Configuration:
    """
    Make the settings of arguments and environment.

    Raises:
        ConfigurationError: A setting is wrong.
        UsageError: The key's file can't be read, or the queue would end with the command.
    """
    given: dict[str, Any] = {
        name: getattr(args, name)
        for name in ("project_token", "base_url", "storage")
        if getattr(args, name) is not None
    }
    if args.authorization_file is not None:
        given["authorization_token"] = _key(args.authorization_file)
    settings = Configuration.from_env(**given)
    if settings.storage == MEMORY:
        raise UsageError("a queue in memory ends with the command; let --storage name a file")
    return settings


def _key(path: str) -> str | BasicAuth:
    # Neither the path nor the content is shown: somebody may have given the key itself.
    try:
        text = Path(path).read_text(encoding="utf-8").strip()
        if not text.startswith("{"):
            return text
        pair = json.loads(text)
        return BasicAuth(pair["key_id"], pair["secret"])
    except OSError as error:
        raise UsageError(f"the file that --authorization-file names can't be read: {error.strerror}") from None
    except (KeyError, json.JSONDecodeError, UnicodeDecodeError):
        raise UsageError(
            'the file that --authorization-file names holds neither a key nor {"key_id": ..., "secret": ...}'
        ) from None


@asynccontextmanager
async def opened(settings: Configuration, hooks: Hooks | None = None, **more: Any) -> AsyncIterator[Exponea]:
    """Open a client; it uploads at its close as usual, but not when the command was interrupted or has failed."""
    exponea = Exponea(settings, hooks=hooks, **more)
    await exponea.start()
    timeout = 0.0
    try:
        yield exponea
        timeout = CLOSE_TIMEOUT
    finally:
        await exponea.aclose(timeout)


# Values


def read_value(text: str) -> Any:
    """Read JSON where it is some, else the text itself."""
    try:
        return json.loads(text, parse_constant=_refuse)
    except (ValueError, RecursionError):
        return text


def _refuse(constant: str) -> NoReturn:
    # Infinity and NaN are words here; JSON has no such numbers.
    raise ValueError(constant)


def pair(text: str) -> tuple[str, str]:
    """Read ``name=value``."""
    name, mark, value = text.partition("=")
    if not name or not mark:
        raise argparse.ArgumentTypeError(f"{text!r} is not of the form name=value")
    return name, value


def seconds(text: str) -> float:
    """Read a duration of 0 seconds or more."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is no number of seconds")
    return value


def whole(text: str) -> int:
    """Read a whole number above 0."""
    if not (text.isascii() and text.isdecimal() and int(text[:18])):
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number above 0")
    return int(text[:18])


def mapping(option: str, pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    """
    Make a mapping of pairs.

    Raises:
        UsageError: A name stands there twice.
    """
    given = dict(pairs)
    if len(given) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise UsageError(f"{option} {twice}=... is given more than once")
    return given
