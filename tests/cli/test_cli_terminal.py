"""
The output of commands, on a terminal and elsewhere.
"""

import asyncio
import io
import json
import logging
from contextlib import redirect_stderr

import pytest
from helpers.environment import Environment

from exponea_async.cli.terminal import (
    LineHandler,
    Progress,
    duration,
    number,
    print_diagnostic,
    print_json,
    print_line,
    print_summary,
    print_table,
)


class Terminal(io.StringIO):
    """A stream that claims to be a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.fixture
def terminal(environment: Environment) -> Terminal:
    # Plain text; what rich prints is in test_cli_rich.py.
    environment(COLUMNS="21", NO_COLOR="1")
    return Terminal()


async def test_terminal_has_one_progress_line(terminal: Terminal) -> None:
    """On a terminal one line is redrawn, cut to the width of the terminal, and removed at the end."""
    described = asyncio.Event()

    def describe() -> str:
        asyncio.get_running_loop().call_soon(described.set)
        return "x" * 100

    with redirect_stderr(terminal):
        async with Progress().refreshing(describe):
            await described.wait()
    output = terminal.getvalue()
    assert output.startswith(f"\r\x1b[K{'x' * 20}")
    assert output.endswith("\r\x1b[K")
    assert "\n" not in output


def test_printed_line_replaces_the_progress_line(terminal: Terminal) -> None:
    """A line that stays does not mix with the progress line."""
    with redirect_stderr(terminal):
        progress = Progress()
        progress.show("half")
        progress.print("done")
    assert terminal.getvalue() == "\r\x1b[Khalf\r\x1b[Kdone\n"


def test_file_has_plain_lines(capsys: pytest.CaptureFixture[str]) -> None:
    """In a file, progress is written as plain lines."""
    progress = Progress()
    progress.show("half")
    progress.clear()
    assert capsys.readouterr().err == "half\n"


def test_log_records_are_lines(capsys: pytest.CaptureFixture[str]) -> None:
    """A log record is printed as one line, without its traceback."""
    logger = logging.getLogger("test_log_records_are_lines")
    logger.addHandler(LineHandler())
    logger.error("It broke.", exc_info=ValueError("a\nb"))
    assert capsys.readouterr().err == "exponea-async: It broke. (ValueError: a b)\n"


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        (-1, "0 s"),
        (59.4, "59 s"),
        (200, "3 min 20 s"),
        (7800, "2 h 10 min"),
        (273_600, "3 d 4 h"),
    ],
)
def test_durations(seconds: float, expected: str) -> None:
    """Durations have at most two units."""
    assert duration(seconds) == expected


def test_numbers() -> None:
    """Numbers have separators of thousands."""
    assert (number(12_345), number(1234.56)) == ("12,345", "1,234.6")


def test_tables(capsys: pytest.CaptureFixture[str]) -> None:
    """Columns are as wide as their widest cell."""
    print_table(("id", "name"), [("1", "long name"), ("1000", "n")])
    print_summary({"one": 1, "twelve": 1234})
    assert capsys.readouterr().out == "id    name\n1     long name\n1000  n\n  one         1\n  twelve  1,234\n"


def test_every_output_is_printable(capsys: pytest.CaptureFixture[str]) -> None:
    """Whatever a command prints, no control of the terminal is in it; JSON has the same values."""
    evil = "čaj\x1b[31m\r\n\x9b2J\u202e\ud800"
    print_line(evil)
    print_json({evil: [evil]})
    print_diagnostic(evil)
    print_summary({evil: evil})
    print_table(("id",), [(evil,)])
    Progress().show(evil)
    Progress().print(evil)
    output = capsys.readouterr()
    lines = (output.out + output.err).rstrip("\n").split("\n")

    assert [line for line in lines if not line.isprintable()] == []
    assert json.loads(output.out.split("\n")[1]) == {evil: [evil]}
