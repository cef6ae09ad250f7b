"""
What is printed on a terminal with rich: tables, colors and a progress bar. Imported only where it is used.

All text is data, never markup: `rich.text.Text` does not interpret it. It is made printable before it gets here.
"""

from collections.abc import Iterable, Mapping, Sequence
from types import TracebackType
from typing import Self, TextIO

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn
from rich.table import Table
from rich.text import Text

STATUS_STYLES = {"ok": "green", "warning": "yellow", "failed": "bold red", "skipped": "dim"}
#: Counts that are bad news unless they are zero.
BAD_NEWS = frozenset({"bad", "dead", "lost", "rejected"})


def _console(stream: TextIO) -> Console:
    return Console(file=stream, highlight=False, markup=False, emoji=False)


def print_table(stream: TextIO, titles: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print rows; a cell that is too wide for the terminal continues on the next line."""
    table = Table(box=SIMPLE_HEAD, show_edge=False, pad_edge=False)
    for index, title in enumerate(titles):
        # The first column has the ids, which are copied from it.
        table.add_column(Text(title, style="bold"), overflow="fold", no_wrap=index == 0)
    for row in rows:
        table.add_row(*map(Text, row))
    _console(stream).print(table)


def print_summary(stream: TextIO, summary: Mapping[str, str]) -> None:
    """Print names and values, one pair per line."""
    table = Table.grid(padding=(0, 2))
    table.add_column(overflow="fold")
    table.add_column(justify="right", overflow="fold")
    for name, value in summary.items():
        style = "bold red" if name in BAD_NEWS and value != "0" else "bold"
        table.add_row(Text(f"  {name}"), Text(value, style=style))
    _console(stream).print(table)


def print_finding(stream: TextIO, status: str, name: str, detail: str, advice: str) -> None:
    """Print the result of a check, and below it what to do."""
    table = Table.grid(padding=(0, 2))
    table.add_column(width=7)
    table.add_column(width=14)
    table.add_column(overflow="fold")
    table.add_row(Text(status, style=STATUS_STYLES.get(status, "")), Text(name), Text(detail))
    if advice:
        table.add_row("", "", Text(advice, style="italic"))
    _console(stream).print(table)


class LiveProgress:
    """
    A progress bar in the last line of the terminal; a context manager, at whose end it disappears.

    Args:
        stream: The terminal.
    """

    def __init__(self, stream: TextIO) -> None:
        bar = BarColumn(bar_width=30)
        self._progress = Progress(
            bar,
            TaskProgressColumn(),
            TextColumn("{task.description}", markup=False),
            console=_console(stream),
            # Redrawn by the command itself, so that there is no other thread.
            auto_refresh=False,
            transient=True,
            # What a command prints as its result does not belong on standard error.
            redirect_stdout=False,
        )
        self._task = self._progress.add_task("", total=None)

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._progress.stop()

    def show(self, text: str, share: float | None) -> None:
        """Redraw the progress bar."""
        total = None if share is None else 1.0
        self._progress.update(self._task, description=text, completed=share or 0.0, total=total)
        self._progress.refresh()

    def print(self, line: str) -> None:
        """Print a line above the progress bar."""
        self._progress.console.print(Text(line))
