"""
What a command reports: results on standard output, everything else on standard error, and an exit code.
"""

import asyncio
import logging
import os
import shutil
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager, nullcontext, suppress
from enum import IntEnum
from types import ModuleType
from typing import Any, TextIO

from attrs import frozen

from exponea_async._internal.printable import printable, printable_json

#: How often the progress line of a terminal is redrawn, in seconds.
REDRAW_INTERVAL = 0.1
#: The length of a progress bar in characters.
BAR_LENGTH = 20
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

    Attributes:
        subject: The option or the file.
        trouble: What is expected and what was given.
        hint: What to do.
    """

    def __init__(self, subject: object, trouble: str, hint: str) -> None:
        super().__init__(f"{subject}: {trouble}. {hint}")
        self.subject, self.trouble, self.hint = str(subject), trouble, hint


@frozen
class ProgressLine:
    """
    How far a command has come.

    Attributes:
        text: What is done, for example with the rate and the time left.
        share: Which part of all that is, from 0 to 1; None if it is unknown.
    """

    text: str
    share: float | None = None

    def __str__(self) -> str:
        if self.share is None:
            return self.text
        bar = "#" * round(self.share * BAR_LENGTH)
        return f"[{bar:.<{BAR_LENGTH}}] {self.share:4.0%}  {self.text}"


def _styled(stream: TextIO) -> ModuleType | None:
    """Return the module that prints with rich, or None for plain text: elsewhere than on a terminal, or on request."""
    if not stream.isatty() or os.environ.get("NO_COLOR") or os.environ.get("TERM") in ("dumb", "unknown"):
        return None
    try:
        from exponea_async.cli import styled  # noqa: PLC0415 - an extra, which takes longer to import than most commands
    except ImportError:
        return None
    return styled


class Progress:
    """
    A progress line on standard error: redrawn in place on a terminal, appended now and then elsewhere.
    """

    def __init__(self) -> None:
        self._is_terminal = sys.stderr.isatty()
        self._drawn = False
        # The progress bar of rich, while it is shown.
        self._bar: Any = None

    def show(self, progress: ProgressLine | str) -> None:
        """Show the progress line."""
        if self._bar is not None:
            step = progress if isinstance(progress, ProgressLine) else ProgressLine(progress)
            self._bar.show(printable(step.text), step.share)
            return
        line = printable(str(progress))
        if not self._is_terminal:
            print(line, file=sys.stderr, flush=True)
            return
        width = shutil.get_terminal_size().columns - 1
        print(f"\r\x1b[K{line[:width]}", end="", file=sys.stderr, flush=True)
        self._drawn = True

    def print(self, line: str) -> None:
        """Print a line that stays."""
        if self._bar is not None:
            self._bar.print(printable(line))
            return
        self.clear()
        print(printable(line), file=sys.stderr, flush=True)

    def clear(self) -> None:
        """Remove the progress line."""
        if self._drawn:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)
            self._drawn = False

    @asynccontextmanager
    async def refreshing(self, describe: Callable[[], ProgressLine | str]) -> AsyncIterator[None]:
        """Show what `describe` returns again and again inside the block."""
        styled = _styled(sys.stderr)
        try:
            with nullcontext() if styled is None else styled.LiveProgress(sys.stderr) as self._bar:
                task = asyncio.create_task(self._refresh(describe))
                try:
                    yield
                finally:
                    task.cancel()
                    with suppress(asyncio.CancelledError):
                        await task
        finally:
            self._bar = None
            self.clear()

    async def _refresh(self, describe: Callable[[], ProgressLine | str]) -> None:
        if self._is_terminal:
            self.show(describe())
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
    if styled := _styled(sys.stdout):
        styled.print_summary(sys.stdout, values)
        return
    left, right = max(map(len, values)), max(map(len, values.values()))
    for name, value in values.items():
        print(f"  {name:<{left}}  {value:>{right}}")


def print_table(titles: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print rows in columns that are as wide as their widest cell."""
    lines = [list(titles), *([printable(cell) for cell in row] for row in rows)]
    if styled := _styled(sys.stdout):
        styled.print_table(sys.stdout, lines[0], lines[1:])
        return
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        print("  ".join(f"{cell:<{width}}" for cell, width in zip(line, widths, strict=True)).rstrip())


def print_finding(status: str, name: str, detail: str, advice: str) -> None:
    """Print the result of a check, and below it what to do."""
    if styled := _styled(sys.stdout):
        styled.print_finding(sys.stdout, *map(printable, (status, name, detail, advice)))
        return
    print_line(f"{status:<7}  {name:<14}  {detail}")
    if advice:
        print_line(f"{'':<7}  {'':<14}  {advice}")


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
