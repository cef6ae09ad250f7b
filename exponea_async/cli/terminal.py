"""
What a command says: results on standard output, all else on standard error.
"""

import asyncio
import json
import logging
import shutil
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any

#: How often a line that is rewritten changes, in seconds.
REDRAW = 0.1
#: How often a new line is written where none can be rewritten, in seconds.
REPORT = 5.0


class Progress:
    """
    One line on standard error that tells how far it is: rewritten on a terminal, a line now and then elsewhere.
    """

    def __init__(self) -> None:
        self.live = sys.stderr.isatty()
        self._drawn = False

    def show(self, text: str) -> None:
        """Tell how far it is."""
        if not self.live:
            print(text, file=sys.stderr, flush=True)
            return
        width = shutil.get_terminal_size().columns - 1
        print(f"\r\x1b[K{text[:width]}", end="", file=sys.stderr, flush=True)
        self._drawn = True

    def say(self, text: str) -> None:
        """Tell something that stays."""
        self.clear()
        print(text, file=sys.stderr, flush=True)

    def clear(self) -> None:
        """Take the line away."""
        if self._drawn:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)
            self._drawn = False

    @asynccontextmanager
    async def telling(self, describe: Callable[[], str]) -> AsyncIterator[None]:
        """Tell again and again how far it is, inside the block."""
        task = asyncio.create_task(self._tell(describe))
        try:
            yield
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
            self.clear()

    async def _tell(self, describe: Callable[[], str]) -> None:
        while True:
            await asyncio.sleep(REDRAW if self.live else REPORT)
            self.show(describe())


class LineHandler(logging.Handler):
    """Shows log records as single lines, without tracebacks."""

    def emit(self, record: logging.LogRecord) -> None:
        """Show one."""
        text = record.getMessage()
        if record.exc_info and record.exc_info[1] is not None:
            text += f" ({type(record.exc_info[1]).__name__}: {record.exc_info[1]})"
        complain(text)


def complain(text: str) -> None:
    """Say on standard error that something is wrong, in one line."""
    start = "\r\x1b[K" if sys.stderr.isatty() else ""
    print(f"{start}exponea-async: {printable(' '.join(text.split()))}", file=sys.stderr, flush=True)


def print_json(value: Any) -> None:
    """Print one line of JSON."""
    print(json.dumps(value, ensure_ascii=False, allow_nan=False), flush=True)


def print_facts(facts: Mapping[str, Any]) -> None:
    """Print names and numbers, one pair a line."""
    texts = {name: number(value) if isinstance(value, int | float) else str(value) for name, value in facts.items()}
    left, right = max(map(len, texts)), max(map(len, texts.values()))
    for name, text in texts.items():
        print(f"  {name:<{left}}  {text:>{right}}")


def print_table(titles: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print rows in columns that are as wide as they need to be; the last one is as wide as it likes."""
    lines = [list(titles), *([printable(cell) for cell in row] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        print("  ".join(f"{cell:<{width}}" for cell, width in zip(line, widths, strict=True)).rstrip())


def number(value: float) -> str:
    """Write a number for people: 12,345 or 12.3."""
    return f"{value:,}" if isinstance(value, int) else f"{value:,.1f}"


def duration(seconds: float) -> str:
    """Write a duration for people: 45 s, 3 min 20 s, 2 h 10 min, 3 d 4 h."""
    whole = max(0, round(seconds))
    for size, unit, smaller_size, smaller in ((86_400, "d", 3600, "h"), (3600, "h", 60, "min"), (60, "min", 1, "s")):
        if whole >= size:
            return f"{whole // size} {unit} {whole % size // smaller_size} {smaller}"
    return f"{whole} s"


def age(at: float) -> str:
    """Write how long ago a UNIX second was."""
    return duration(time.time() - at)


def printable(text: str) -> str:
    """Make a text harmless for a terminal: what others named may hold its control codes."""
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() else ascii(each)[1:-1] for each in text)
