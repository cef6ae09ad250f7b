"""
``exponea-async sandbox``: the platform in a box, until somebody stops it.
"""

import argparse
import asyncio
import signal
from contextlib import suppress
from pathlib import Path

from exponea_async.cli.exits import Exit, UsageError
from exponea_async.cli.options import Commands, add_json, command, whole
from exponea_async.cli.terminal import print_json
from exponea_async.sandbox import DefinitionError, Project, Sandbox

PORT = 8765


def add_to(commands: Commands) -> None:
    """Add the command."""
    parser = command(
        commands,
        "sandbox",
        "serve a local stand-in of the platform",
        "It prints its address and runs until Ctrl-C. Give the address as EXPONEA_BASE_URL; any project token and\n"
        "any key will do, unless --project names those that exist.",
    )
    parser.add_argument("--port", type=_port, default=PORT, help=f"on 127.0.0.1, {PORT} by default; 0 is a free one")
    parser.add_argument("--rate-limit", type=whole, metavar="N", help="requests a second, beyond which it answers 429")
    parser.add_argument(
        "--project",
        dest="projects",
        action="append",
        type=_project,
        default=[],
        metavar="TOKEN[:KEY]",
        help="a project that exists, and a made-up key that opens it ('key' by default); repeatable",
    )
    parser.add_argument("--seed", type=int, default=0, help="of the order within a batch and of random faults")
    parser.add_argument(
        "--definitions",
        type=Path,
        metavar="FILE",
        help="JSON or TOML with the in-app messages, content blocks, inbox messages and so on that it serves",
    )
    add_json(parser)
    parser.set_defaults(run=run)


async def run(args: argparse.Namespace) -> int:
    """Serve until a signal comes."""
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        with suppress(NotImplementedError, RuntimeError, ValueError):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
    sandbox = _sandbox(args)
    try:
        await sandbox.start()
    except OSError as error:
        raise UsageError(f"port {args.port} can't be used: {error.strerror}") from None
    try:
        if args.json:
            print_json({"url": sandbox.url})
        else:
            print(sandbox.url, flush=True)
        await stop.wait()
    finally:
        await sandbox.aclose()
    return Exit.DONE


def _sandbox(args: argparse.Namespace) -> Sandbox:
    try:
        return Sandbox(
            port=args.port,
            projects=args.projects,
            rate_limit=args.rate_limit,
            seed=args.seed,
            definitions=args.definitions,
        )
    except DefinitionError as error:
        raise UsageError(str(error)) from None


def _port(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and int(text[:18]) < 65_536):
        raise argparse.ArgumentTypeError(f"{text!r} is no port")
    return int(text)


def _project(text: str) -> Project:
    token, _, key = text.partition(":")
    if not token:
        raise argparse.ArgumentTypeError("a project needs a token")
    return Project(token, tokens=(key or "key",))
