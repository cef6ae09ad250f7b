"""
The program: parses the arguments, runs one command and turns errors into exit codes.
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
from exponea_async.cli.commands import completion, db, flush, queue, sandbox, track
from exponea_async.cli.demo import command as demo
from exponea_async.cli.doctor import command as doctor
from exponea_async.cli.importer import command as importer
from exponea_async.cli.options import add_help_as_default
from exponea_async.cli.terminal import EXIT_CODES_HELP, Exit, LineHandler, UsageError, print_diagnostic
from exponea_async.cli.worker import command as worker
from exponea_async.errors import (
    ConfigurationError,
    DeliveryError,
    DeliveryTimeoutError,
    ExponeaError,
    InvalidEventError,
)

LOG = logging.getLogger("exponea_async")

DESCRIPTION = """\
Track to Bloomreach Engagement from the command line and manage the queue.

first steps, without an account:
  exponea-async sandbox
      serves an Engagement API on this machine, with a page of what arrives, at http://127.0.0.1:8765
  export EXPONEA_BASE_URL=http://127.0.0.1:8765 EXPONEA_PROJECT_TOKEN=shop EXPONEA_AUTHORIZATION_TOKEN=key
  exponea-async doctor
  exponea-async track purchase --id registered=jane@example.com --property total_price=7.99 --wait 10

'exponea-async COMMAND --help' lists the options of a command. Without EXPONEA_BASE_URL, the commands use the platform.
"""

#: The modules that define commands, in the order of ``--help``. Each has a function ``register(commands)`` that adds a
#: parser with ``commands.add_parser`` and sets its default ``run``: a coroutine function that takes the parsed
#: arguments and returns the exit code.
COMMANDS = (demo, sandbox, doctor, track, importer, queue, flush, worker, db, completion)

#: The exit code of each error; the first class that matches counts.
EXIT_CODES: tuple[tuple[type[Exception], int], ...] = (
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
    Run a command.

    Args:
        argv: The arguments; by default those of the process.

    Returns:
        The exit code.
    """
    args = create_parser().parse_args(argv)
    with _log_lines(args.log_level):
        try:
            code = _run(args.run(args))
            sys.stdout.flush()
        except BrokenPipeError:
            return _discard_output()
        except (KeyboardInterrupt, asyncio.CancelledError):
            print_diagnostic("interrupted")
            return Exit.INTERRUPTED
        except Exception as error:  # noqa: BLE001 - a script expects one line and an exit code, whatever the error is
            return _report_error(error)
    return code


def create_parser() -> argparse.ArgumentParser:
    """Return the parser of the arguments of all commands."""
    parser = argparse.ArgumentParser(
        prog="exponea-async",
        description=DESCRIPTION,
        epilog=EXIT_CODES_HELP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    parser.set_defaults(log_level=logging.WARNING, program=parser)
    add_help_as_default(parser)
    commands = parser.add_subparsers(title="commands", metavar="COMMAND")
    for module in COMMANDS:
        module.register(commands)
    return parser


def _run(command: Coroutine[Any, Any, int]) -> int:
    async def run() -> int:
        task = asyncio.current_task()
        if task is not None:
            # Not supported on every platform, nor outside the main thread; there the signal has its default effect.
            with suppress(NotImplementedError, RuntimeError, ValueError):
                asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
        return await command

    return asyncio.run(run())


def _report_error(error: Exception) -> int:
    for kind, code in EXIT_CODES:
        if isinstance(error, kind):
            print_diagnostic(_message(error))
            return code
    if sys.flags.dev_mode:
        raise error
    print_diagnostic(
        f"internal error, {type(error).__name__}: {error}. Run 'python -X dev -m exponea_async' to see the traceback."
    )
    return Exit.FAILED


def _message(error: Exception) -> str:
    if isinstance(error, OSError) and not isinstance(error, ExponeaError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return str(error)


def _discard_output() -> int:
    """Discard the rest of the output: its reader, such as ``head``, has exited, and Python would fail to flush it."""
    with suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return Exit.FAILED


@contextmanager
def _log_lines(level: int) -> Iterator[None]:
    """Print the log records of the SDK inside the block, one line each."""
    handler, own_level = LineHandler(level), LOG.level
    LOG.addHandler(handler)
    if LOG.getEffectiveLevel() > level:
        LOG.setLevel(level)
    try:
        yield
    finally:
        LOG.removeHandler(handler)
        LOG.setLevel(own_level)
