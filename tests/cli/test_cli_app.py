"""
The frame of the command line: help, errors, exit codes.
"""

import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from cli_stage import Stage, run, staged, start, until

from exponea_async import __version__


@pytest.fixture
def stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stage]:
    with staged(tmp_path, monkeypatch) as stage:
        yield stage


def test_version() -> None:
    """It tells the package's version."""
    assert run("--version").out == f"exponea-async {__version__}\n"


def test_help_tells_commands_and_exit_codes() -> None:
    """The help names every command and what each exit code means."""
    text = run("--help").out
    for word in ("demo", "sandbox", "track", "identify", "import", "queue", "flush", "130  interrupted"):
        assert word in text


@pytest.mark.parametrize(
    "command", ["demo", "sandbox", "track", "identify", "import", "queue", "queue stats", "queue purge", "flush"]
)
def test_each_command_has_help(command: str) -> None:
    """Each command explains itself."""
    outcome = run(*command.split(), "--help")
    assert (outcome.code, outcome.err) == (0, "")


def test_help_says_that_keys_are_no_arguments() -> None:
    """The help of what takes settings says why the key is not among its arguments."""
    assert "other users of the machine can see" in run("track", "--help").out


def test_no_command_is_wrong_usage() -> None:
    """Without a command there is nothing to do."""
    assert run().code == 2


def test_module_is_the_command() -> None:
    """``python -m exponea_async`` is the same."""
    process = start("--version")
    assert process.communicate()[0] == f"exponea-async {__version__}\n"
    assert process.returncode == 0


def test_missing_setting_is_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A setting that is missing is named in one line."""
    monkeypatch.setenv("EXPONEA_STORAGE", str(tmp_path / "queue.sqlite"))
    outcome = run("flush")
    assert outcome.code == 2
    assert outcome.err.startswith("exponea-async: EXPONEA_PROJECT_TOKEN: is missing.")
    assert outcome.err.count("\n") == 1


def test_unknown_variable_is_wrong_configuration(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """A misspelled variable is not passed over."""
    monkeypatch.setenv("EXPONEA_BASE_URI", "http://127.0.0.1")
    assert stage.run("flush").code == 2


def test_queue_in_memory_is_refused(stage: Stage) -> None:
    """A queue that would end with the command is of no use to it."""
    assert stage.run("track", "ping", "--storage", "memory:").code == 2


def test_storage_trouble_fails(stage: Stage) -> None:
    """A queue that can't be opened is a failure, told in one line."""
    outcome = stage.run("track", "ping", "--storage", stage.folder)
    assert outcome.code == 1
    assert outcome.err.count("\n") == 1


def test_bug_is_one_line(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """Even a bug shows no traceback."""
    monkeypatch.setattr("exponea_async.cli.commands.flush.configuration", lambda args: args.nothing)
    outcome = stage.run("flush")
    assert outcome.code == 1
    assert "a bug, AttributeError" in outcome.err
    assert outcome.err.count("\n") == 1


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interruption_has_its_own_code(stage: Stage, number: signal.Signals) -> None:
    """Ctrl-C and SIGTERM end a command with a word and without a traceback."""
    stage.fault("status", status=503)
    with stage.start("track", "ping", "--wait", "60") as process:
        until(lambda: stage.sandbox.request_count)
        process.send_signal(number)
        _, err = process.communicate()
    assert process.returncode == 130
    assert err.splitlines()[-1] == "exponea-async: interrupted"
    assert "Traceback" not in err


def test_reader_that_leaves_is_no_trouble(stage: Stage) -> None:
    """Output that nobody reads, as after ``head``, brings no traceback."""
    stage.run("track", "ping")
    command = [sys.executable, "-m", "exponea_async", "queue", "stats"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        err = process.stderr.read()
    assert err == ""
