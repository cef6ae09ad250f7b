"""
The program itself: help, errors and exit codes.
"""

import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers.command_line import CommandLine, command_line, finish, run, start, wait_until
from helpers.environment import Environment, SetConstants

from exponea_async import __version__
from exponea_async.cli.commands import flush

DEVICE = ("--device", "default")


@pytest.fixture
def cli(tmp_path: Path, environment: Environment) -> Iterator[CommandLine]:
    with command_line(tmp_path, environment) as cli:
        yield cli


def test_version() -> None:
    """The version is that of the package."""
    assert run("--version").out == f"exponea-async {__version__}\n"


def test_help_lists_commands_and_exit_codes() -> None:
    """The help lists every command and the meaning of each exit code."""
    text = run("--help").out
    for word in (
        "demo",
        "sandbox",
        "doctor",
        "track",
        "identify",
        "import",
        "queue",
        "flush",
        "completion",
        "130  interrupted",
    ):
        assert word in text


@pytest.mark.parametrize(
    "command",
    [
        "demo",
        "sandbox",
        "doctor",
        "track",
        "identify",
        "import",
        "queue",
        "queue stats",
        "queue purge",
        "flush",
        "completion",
    ],
)
def test_each_command_has_help(command: str) -> None:
    """Each command has a help text."""
    result = run(*command.split(), "--help")
    assert (result.code, result.err) == (0, "")


def test_help_says_why_a_key_is_not_an_argument() -> None:
    """The help of a command with settings says why the key is not among its arguments."""
    assert "other users of the machine can see" in run("track", "--help").out


def test_missing_command_is_wrong_usage() -> None:
    """Without a command or an action, the help is shown; that is wrong usage."""
    for arguments, word in (((), "sandbox"), (("queue",), "retarget")):
        result = run(*arguments)
        assert (result.code, result.out) == (2, "")
        assert word in result.err


def test_module_is_the_program() -> None:
    """``python -m exponea_async`` runs the same program."""
    process = start("--version")
    assert finish(process)[0] == f"exponea-async {__version__}\n"
    assert process.returncode == 0


def test_missing_setting_is_one_line(environment: Environment, tmp_path: Path) -> None:
    """A missing setting is reported in one line."""
    environment(EXPONEA_STORAGE=tmp_path / "queue.sqlite")
    result = run("flush")
    assert result.code == 2
    assert result.err.startswith("exponea-async: EXPONEA_PROJECT_TOKEN: is missing.")
    assert result.err.count("\n") == 1


def test_unknown_variable_is_wrong_configuration(cli: CommandLine, environment: Environment) -> None:
    """A misspelled variable is not ignored."""
    environment(EXPONEA_BASE_URI="http://127.0.0.1")
    assert cli.run("flush").code == 2


def test_queue_in_memory_is_refused(cli: CommandLine) -> None:
    """A queue in memory is refused, because it would be lost when the command ends."""
    assert cli.run("track", "ping", *DEVICE, "--storage", "memory:").code == 2


def test_storage_error_is_a_failure(cli: CommandLine) -> None:
    """A queue that can't be opened is a failure, reported in one line."""
    result = cli.run("track", "ping", *DEVICE, "--storage", cli.folder)
    assert result.code == 1
    assert result.err.count("\n") == 1


def test_internal_error_is_one_line(cli: CommandLine, set_constants: SetConstants) -> None:
    """Not even an internal error prints a traceback."""
    set_constants(flush, read_configuration=lambda args: args.nothing)
    result = cli.run("flush")
    assert result.code == 1
    assert "internal error, AttributeError" in result.err
    assert result.err.count("\n") == 1


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interruption_has_its_own_exit_code(cli: CommandLine, number: signal.Signals) -> None:
    """Ctrl-C and SIGTERM end a command with a message and without a traceback."""
    cli.fault("status", status=503)
    with cli.start("track", "ping", *DEVICE, "--wait", "60") as process:
        wait_until(lambda: cli.sandbox.request_count)
        process.send_signal(number)
        _, err = finish(process)
    assert process.returncode == 130
    assert err.splitlines()[-1] == "exponea-async: interrupted"
    assert "Traceback" not in err


def test_closed_output_is_not_an_error(cli: CommandLine) -> None:
    """A reader that closes the output early, such as ``head``, causes no traceback."""
    cli.run("track", "ping", *DEVICE)
    command = [sys.executable, "-m", "exponea_async", "queue", "stats"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        err = process.stderr.read()
    assert err == ""
