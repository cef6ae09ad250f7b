"""
``exponea-async sandbox``: serve a local sandbox of the Engagement API until a signal stops it.
"""

import argparse
import asyncio
import signal
from contextlib import suppress
from pathlib import Path

from exponea_async.cli.options import Commands, add_json_option, add_parser, port_number, positive_integer
from exponea_async.cli.terminal import Exit, UsageError, print_json
from exponea_async.sandbox import DefinitionError, Project, Sandbox
from exponea_async.sandbox.journal import MAX_BYTES, MAX_ENTRIES

PORT = 8765


def register(commands: Commands) -> None:
    """Add the command."""
    parser = add_parser(
        commands,
        "sandbox",
        "serve a local sandbox of the Engagement API",
        "The command prints the address of the sandbox and runs until Ctrl-C. Set EXPONEA_BASE_URL to this address.\n"
        "In a browser, the address shows a page of everything that arrives.\n"
        "Any project token and any key are accepted, unless --project lists the projects that exist.",
    )
    parser.add_argument(
        "--port", type=port_number, default=PORT, help=f"the port on 127.0.0.1, {PORT} by default; 0 chooses a free one"
    )
    parser.add_argument(
        "--rate-limit", type=positive_integer, metavar="N", help="requests per second, above which it responds with 429"
    )
    parser.add_argument(
        "--project",
        dest="projects",
        action="append",
        type=_project,
        default=[],
        metavar="TOKEN[:KEY]",
        help="a project that exists, and the key that it accepts ('key' by default); repeatable",
    )
    parser.add_argument(
        "--seed", type=int, default=0, help="the seed of the order within a batch and of random faults, 0 by default"
    )
    parser.add_argument(
        "--definitions",
        type=Path,
        metavar="FILE",
        help="a JSON or TOML file with the in-app messages, content blocks, inbox messages etc. that it returns",
    )
    parser.add_argument(
        "--max-entries",
        type=positive_integer,
        default=MAX_ENTRIES,
        metavar="N",
        help=f"the number of commands that it keeps, with their events, {MAX_ENTRIES} by default",
    )
    parser.add_argument(
        "--max-bytes",
        type=positive_integer,
        default=MAX_BYTES,
        metavar="N",
        help=f"the memory that they may take, in bytes, {MAX_BYTES} by default; the oldest are forgotten",
    )
    add_json_option(parser)
    parser.set_defaults(run=run)


async def run(args: argparse.Namespace) -> int:
    """Serve the sandbox until SIGINT or SIGTERM."""
    stop = stop_event()
    sandbox = _sandbox(args)
    try:
        await sandbox.start()
    except OSError as error:
        raise UsageError(
            "--port", f"port {args.port} can't be used: {error.strerror}", "Choose another one; 0 finds a free one."
        ) from None
    try:
        if args.json:
            print_json({"url": sandbox.url, "page": page_url(sandbox)})
        else:
            # The address stands alone on the first line, for scripts.
            print(f"{sandbox.url}\npage: {page_url(sandbox)}", flush=True)
        await stop.wait()
    finally:
        await sandbox.aclose()
    return Exit.DONE


def stop_event() -> asyncio.Event:
    """Return an event that is set by SIGINT and SIGTERM, which no longer interrupt the command."""
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        with suppress(NotImplementedError, RuntimeError, ValueError):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
    return stop


def page_url(sandbox: Sandbox) -> str:
    """Return the address of the page that shows what arrives at a sandbox."""
    return f"{sandbox.url}/"


def _sandbox(args: argparse.Namespace) -> Sandbox:
    try:
        return Sandbox(
            port=args.port,
            projects=args.projects,
            rate_limit=args.rate_limit,
            seed=args.seed,
            definitions=args.definitions,
            max_entries=args.max_entries,
            max_bytes=args.max_bytes,
        )
    except DefinitionError as error:
        raise UsageError("--definitions", str(error).removesuffix("."), "Correct the file.") from None


def _project(string: str) -> Project:
    token, _, key = string.partition(":")
    if not token:
        raise argparse.ArgumentTypeError("must have the form TOKEN or TOKEN:KEY, got no token")
    return Project(token, tokens=(key or "key",))
