"""
What a command reports: results on standard output, everything else on standard error, and an exit code.
"""

import asyncio
import logging
import shutil
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from enum import IntEnum
from typing import Any

from exponea_async._internal.printable import printable, printable_json

#: How often the progress line of a terminal is redrawn, in seconds.
REDRAW_INTERVAL = 0.1
#: How often a progress line is appended where the output is not a terminal, in seconds.
APPEND_INTERVAL = 5.0

EXIT_CODES_HELP = """\
exit codes:
  0    done
  1    failed: a storage error, or events were lost
  2    wrong usage or configuration
  3    some input is invalid, or Engagement rejected some events
  4    some events are unsent; they are kept in the queue
  130  interrupted
"""


class Exit(IntEnum):
    """The exit codes."""

    DONE = 0
    FAILED = 1
    USAGE = 2
    BAD_INPUT = 3
    UNSENT = 4
    INTERRUPTED = 130


class UsageError(Exception):
    """
    A command can't run with these arguments.

    Args:
        subject: The option or the file.
        trouble: What is expected and what was given.
        hint: What to do, in one imperative sentence.
    """

    def __init__(self, subject: object, trouble: str, hint: str) -> None:
        super().__init__(f"{subject}: {trouble}. {hint}")


class Progress:
    """
    A progress line on standard error: redrawn in place on a terminal, appended now and then elsewhere.
    """

    def __init__(self) -> None:
        self._is_terminal = sys.stderr.isatty()
        self._drawn = False

    def show(self, line: str) -> None:
        """Show the progress line."""
        line = printable(line)
        if not self._is_terminal:
            print(line, file=sys.stderr, flush=True)
            return
        width = shutil.get_terminal_size().columns - 1
        print(f"\r\x1b[K{line[:width]}", end="", file=sys.stderr, flush=True)
        self._drawn = True

    def print(self, line: str) -> None:
        """Print a line that stays."""
        self.clear()
        print(printable(line), file=sys.stderr, flush=True)

    def clear(self) -> None:
        """Remove the progress line."""
        if self._drawn:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)
            self._drawn = False

    @asynccontextmanager
    async def refreshing(self, describe: Callable[[], str]) -> AsyncIterator[None]:
        """Show what `describe` returns again and again inside the block."""
        task = asyncio.create_task(self._refresh(describe))
        try:
            yield
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
            self.clear()

    async def _refresh(self, describe: Callable[[], str]) -> None:
        while True:
            await asyncio.sleep(REDRAW_INTERVAL if self._is_terminal else APPEND_INTERVAL)
            self.show(describe())


class LineHandler(logging.Handler):
    """Prints log records as single lines, without tracebacks."""

    def emit(self, record: logging.LogRecord) -> None:
        """Print a log record."""
        message = record.getMessage()
        if record.exc_info and record.exc_info[1] is not None:
            message += f" ({type(record.exc_info[1]).__name__}: {record.exc_info[1]})"
        print_diagnostic(message)


def print_diagnostic(message: str) -> None:
    """Print an error or a warning on standard error, in one line."""
    start = "\r\x1b[K" if sys.stderr.isatty() else ""
    print(f"{start}exponea-async: {printable(' '.join(message.split()))}", file=sys.stderr, flush=True)


def print_line(line: str) -> None:
    """Print a line of the result."""
    print(printable(line), flush=True)


def print_json(value: Any) -> None:
    """Print one line of JSON."""
    print(printable_json(value), flush=True)


def print_summary(summary: Mapping[str, Any]) -> None:
    """Print names and values, one pair per line."""
    values = {name: number(value) if isinstance(value, int | float) else str(value) for name, value in summary.items()}
    values = {printable(name): printable(value) for name, value in values.items()}
    left, right = max(map(len, values)), max(map(len, values.values()))
    for name, value in values.items():
        print(f"  {name:<{left}}  {value:>{right}}")


def print_table(titles: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print rows in columns that are as wide as their widest cell."""
    lines = [list(titles), *([printable(cell) for cell in row] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        print("  ".join(f"{cell:<{width}}" for cell, width in zip(line, widths, strict=True)).rstrip())


def number(value: float) -> str:
    """Format a number for people: 12,345 or 12.3."""
    return f"{value:,}" if isinstance(value, int) else f"{value:,.1f}"


def duration(seconds: float) -> str:
    """Format a duration for people: 45 s, 3 min 20 s, 2 h 10 min, 3 d 4 h."""
    whole = max(0, round(seconds))
    for size, unit, smaller_size, smaller in ((86_400, "d", 3600, "h"), (3600, "h", 60, "min"), (60, "min", 1, "s")):
        if whole >= size:
            return f"{whole // size} {unit} {whole % size // smaller_size} {smaller}"
    return f"{whole} s"


def age(timestamp: float) -> str:
    """Format the time since a timestamp, in UNIX seconds, for people."""
    return duration(time.time() - timestamp)
