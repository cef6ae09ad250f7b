"""
From arguments to a command, and from what happens to an exit code.
"""

import argparse
import asyncio
import logging
import os
import signal
import sys
from collections.abc import Coroutine, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

from exponea_async._version import __version__
from exponea_async.cli.commands.flush import add_to as add_flush
from exponea_async.cli.commands.queue import add_to as add_queue
from exponea_async.cli.commands.sandbox import add_to as add_sandbox
from exponea_async.cli.commands.track import add_to as add_track
from exponea_async.cli.demo.command import add_to as add_demo
from exponea_async.cli.exits import EPILOG, Exit, UsageError
from exponea_async.cli.importer.command import add_to as add_import
from exponea_async.cli.terminal import LineHandler, complain
from exponea_async.errors import (
    ConfigurationError,
    DeliveryError,
    DeliveryTimeoutError,
    ExponeaError,
    InvalidEventError,
)

LOG = logging.getLogger("exponea_async")

#: Which exit code an error stands for; the first that fits counts.
CODES: tuple[tuple[type[Exception], int], ...] = (
    (UsageError, Exit.USAGE),
    (ConfigurationError, Exit.USAGE),
    (InvalidEventError, Exit.BAD_INPUT),
    (DeliveryError, Exit.BAD_INPUT),
    (DeliveryTimeoutError, Exit.UNSENT),
    (ExponeaError, Exit.FAILED),
    (OSError, Exit.FAILED),
)


def main(argv: Sequence[str] | None = None) -> int:
    """
    Carry out a command.

    Args:
        argv: The arguments; by default those of the process.

    Returns:
        The exit code.
    """
    args = _parser().parse_args(argv)
    with _log_lines(args.log_level):
        try:
            code = _run(args.run(args))
            sys.stdout.flush()
        except BrokenPipeError:
            return _let_go()
        except (KeyboardInterrupt, asyncio.CancelledError):
            complain("interrupted")
            return Exit.INTERRUPTED
        except Exception as error:  # noqa: BLE001 - a script wants one line and a code, whatever it is
            return _failed(error)
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="exponea-async",
        description="Track to Bloomreach Engagement from the command line, and look after the queue.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    parser.set_defaults(log_level=logging.WARNING)
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for add in (add_demo, add_sandbox, add_track, add_import, add_queue, add_flush):
        add(commands)
    return parser


def _run(command: Coroutine[Any, Any, int]) -> int:
    async def run() -> int:
        task = asyncio.current_task()
        if task is not None:
            # Not everywhere, and not in a thread; then the signal has its usual effect.
            with suppress(NotImplementedError, RuntimeError, ValueError):
                asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
        return await command

    return asyncio.run(run())


def _failed(error: Exception) -> int:
    for kind, code in CODES:
        if isinstance(error, kind):
            complain(_told(error))
            return code
    if sys.flags.dev_mode:
        raise error
    complain(f"a bug, {type(error).__name__}: {error} ('python -X dev -m exponea_async' tells where)")
    return Exit.FAILED


def _told(error: Exception) -> str:
    if isinstance(error, OSError) and not isinstance(error, ExponeaError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return str(error)


def _let_go() -> int:
    """Whoever read our output has gone, such as ``head``; without this, Python would complain at the exit."""
    with suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return Exit.FAILED


@contextmanager
def _log_lines(level: int) -> Iterator[None]:
    """Show what the SDK logs, a line each, as long as a command runs."""
    handler = LineHandler(level)
    LOG.addHandler(handler)
    try:
        yield
    finally:
        LOG.removeHandler(handler)
