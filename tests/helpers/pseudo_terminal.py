"""
Commands in a process of their own, on a pseudo terminal.
"""

import os
import pty
import re
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from attrs import frozen

#: Sequences that move the cursor, clear, and set colors.
SEQUENCES = re.compile(r"\x1b(\[[0-9;?]*[A-Za-z]|\][^\x07]*\x07)")


@frozen
class Screen:
    """
    What a command wrote.

    Attributes:
        code: Its exit code.
        raw: Everything that it wrote to the terminal.
        out: What it wrote to standard output, where that was not the terminal.
    """

    code: int
    raw: str
    out: str = ""

    @property
    def text(self) -> str:
        """What it wrote to the terminal, without sequences of control."""
        return SEQUENCES.sub("", self.raw).replace("\r", "\n")

    @property
    def is_colored(self) -> bool:
        """Whether there are colors."""
        return re.search(r"\x1b\[[0-9;]*[1-9][0-9;]*m", self.raw) is not None


def run_on_terminal(
    *args: str | Path, columns: int = 120, only_errors: bool = False, program: str = "", **variables: str | None
) -> Screen:
    """
    Run a command on a terminal.

    Args:
        args: The arguments.
        columns: The width of the terminal.
        only_errors: Whether only standard error is the terminal.
        program: Python code that runs instead of the module.
        variables: Environment variables; None removes one.
    """
    start = ["-c", program] if program else ["-m", "exponea_async"]
    settings: dict[str, str | None] = {"TERM": "xterm-256color", "NO_COLOR": None, "FORCE_COLOR": None} | variables
    environment = {**os.environ, "COLUMNS": str(columns), **{name: value or "" for name, value in settings.items()}}
    for name in (name for name, value in settings.items() if value is None):
        environment.pop(name, None)
    return _run([sys.executable, *start, *map(str, args)], environment, only_errors=only_errors)


def _run(command: list[str], environment: Mapping[str, str], *, only_errors: bool) -> Screen:
    master, slave = pty.openpty()
    stdout = subprocess.PIPE if only_errors else slave
    with subprocess.Popen(command, stdin=slave, stdout=stdout, stderr=slave, env=environment) as process:
        os.close(slave)
        written = bytearray()
        # The end of a terminal is an error on Linux.
        with suppress(OSError):
            while part := os.read(master, 65_536):
                written += part
        out = process.stdout.read().decode() if process.stdout else ""
        process.wait()
    os.close(master)
    return Screen(process.returncode, written.decode(), out)
