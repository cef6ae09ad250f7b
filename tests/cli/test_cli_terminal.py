"""
What commands say, on a terminal and elsewhere.
"""

import asyncio
import io
import logging
from contextlib import redirect_stderr

import pytest

from exponea_async.cli.terminal import (
    LineHandler,
    Progress,
    duration,
    number,
    print_facts,
    print_table,
    printable,
)


class Terminal(io.StringIO):
    """Text that believes to be a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    monkeypatch.setenv("COLUMNS", "21")
    return Terminal()


async def test_a_terminal_has_one_line(terminal: Terminal) -> None:
    """On a terminal one line is rewritten, cut to its width, and taken away in the end."""
    told = asyncio.Event()

    def describe() -> str:
        asyncio.get_running_loop().call_soon(told.set)
        return "x" * 100

    with redirect_stderr(terminal):
        async with Progress().telling(describe):
            await told.wait()
    text = terminal.getvalue()
    assert text.startswith(f"\r\x1b[K{'x' * 20}")
    assert text.endswith("\r\x1b[K")
    assert "\n" not in text


def test_what_stays_comes_before_the_line(terminal: Terminal) -> None:
    """A message that stays does not mix with the line."""
    with redirect_stderr(terminal):
        progress = Progress()
        progress.show("half")
        progress.say("done")
    assert terminal.getvalue() == "\r\x1b[Khalf\r\x1b[Kdone\n"


def test_elsewhere_there_are_plain_lines(capsys: pytest.CaptureFixture[str]) -> None:
    """Into a file go plain lines."""
    progress = Progress()
    progress.show("half")
    progress.clear()
    assert capsys.readouterr().err == "half\n"


def test_log_records_are_lines(capsys: pytest.CaptureFixture[str]) -> None:
    """A log record is one line, its traceback left out."""
    logger = logging.getLogger("test_log_records_are_lines")
    logger.addHandler(LineHandler())
    logger.error("It broke.", exc_info=ValueError("a\nb"))
    assert capsys.readouterr().err == "exponea-async: It broke. (ValueError: a b)\n"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-1, "0 s"),
        (59.4, "59 s"),
        (200, "3 min 20 s"),
        (7800, "2 h 10 min"),
        (273_600, "3 d 4 h"),
    ],
)
def test_durations(seconds: float, text: str) -> None:
    """Durations are told in two units at the most."""
    assert duration(seconds) == text


def test_numbers() -> None:
    """Numbers are grouped."""
    assert (number(12_345), number(1234.56)) == ("12,345", "1,234.6")


def test_control_codes_are_shown() -> None:
    """What could move the cursor is written out; other letters stay."""
    assert printable("čaj\x1b[31m\n\x07\u202e") == "čaj\\x1b[31m\\n\\x07\\u202e"


def test_tables(capsys: pytest.CaptureFixture[str]) -> None:
    """Columns are as wide as they need to be."""
    print_table(("id", "name"), [("1", "long name"), ("1000", "n")])
    print_facts({"one": 1, "twelve": 1234})
    assert capsys.readouterr().out == "id    name\n1     long name\n1000  n\n  one         1\n  twelve  1,234\n"
