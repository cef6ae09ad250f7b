"""
The command ``queue``.
"""

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers.command_line import CommandLine, command_line, run
from helpers.environment import Environment, SetConstants

JANE = ("--id", "registered=jane@example.com")


@pytest.fixture
def cli(tmp_path: Path, environment: Environment) -> Iterator[CommandLine]:
    """Two dead letters, the second one a customer update, and one record that waits."""
    with command_line(tmp_path, environment) as cli:
        cli.fault("reject", times=2)
        cli.run("track", "purchase", *JANE)
        cli.run("identify", *JANE)
        environment(EXPONEA_FLUSH_MODE="MANUAL")
        cli.run("track", "wait\x1b[2J", *JANE)
        yield cli


def dead_ids(cli: CommandLine) -> list[str]:
    return [json.loads(line)["id"] for line in cli.run("queue", "dead", "--json").out.splitlines()]


def test_stats(cli: CommandLine) -> None:
    """``stats`` counts the records that wait, in total and by project, and the dead letters."""
    assert cli.run("queue", "stats", "--json").json == {
        "waiting": 1,
        "taken": 0,
        "dead": 2,
        "projects": {"shop": 1},
    }
    assert "waiting for shop  1" in cli.run("queue", "stats").out


def test_list(cli: CommandLine) -> None:
    """``list`` shows the records that wait, and escapes control codes of the terminal."""
    out = cli.run("queue", "list").out
    assert "shop" in out
    assert "wait\\x1b[2J" in out
    assert "registered=jane@example.com" in out
    assert "\x1b" not in out


def test_dead(cli: CommandLine) -> None:
    """``dead`` shows the dead letters, newest first, with the reason of the platform."""
    head, first, second = cli.run("queue", "dead").out.splitlines()
    assert head.split() == ["id", "project", "age", "event", "customer", "reason"]
    assert "(customer properties)" in first
    assert "purchase" in second
    assert "rejected by fault injection" in second
    assert len(cli.run("queue", "dead", "--limit", "1").out.splitlines()) == 2


def test_dead_as_json(cli: CommandLine) -> None:
    """In JSON, dead letters are printed completely, one per line."""
    letters = [json.loads(line) for line in cli.run("queue", "dead", "--json").out.splitlines()]
    assert [letter["event"] for letter in letters] == ["(customer properties)", "purchase"]
    assert letters[1]["data"]["customer_ids"] == {"registered": "jane@example.com"}
    assert letters[1]["died_at"] >= letters[1]["at"]


def test_revive(cli: CommandLine) -> None:
    """Revived dead letters are uploaded by the next flush."""
    assert cli.run("queue", "revive", dead_ids(cli)[1]).code == 0
    assert cli.run("queue", "revive", "--all", "--json").json == {"revived": 1, "unknown": 0}
    assert cli.run("flush", "--json").json == {"delivered": 3, "rejected": 0, "remaining": 0}


def test_unknown_ids(cli: CommandLine) -> None:
    """Unknown ids are reported, and the others are revived all the same."""
    result = cli.run("queue", "revive", dead_ids(cli)[0], "12345", "no-id")
    assert result.code == 3
    assert "2 of 3" in result.err


def test_purge(cli: CommandLine) -> None:
    """Purged dead letters are deleted."""
    assert cli.run("queue", "purge", dead_ids(cli)[0], "--yes").code == 0
    assert cli.run("queue", "purge", "--all", "--yes", "--json").json == {"purged": 1, "unknown": 0}
    assert dead_ids(cli) == []


class Terminal:
    """A terminal at which the user enters an answer."""

    def __init__(self, answer: str) -> None:
        self.answer = answer

    def isatty(self) -> bool:
        return True

    def readline(self) -> str:
        return self.answer


@pytest.mark.parametrize(("answer", "code", "left"), [("y\n", 0, 0), ("n\n", 1, 2), ("\n", 1, 2), ("", 1, 2)])
def test_purge_asks_for_confirmation(
    cli: CommandLine, set_constants: SetConstants, answer: str, code: int, left: int
) -> None:
    """Without --yes the user has to confirm."""
    set_constants(sys, stdin=Terminal(answer))
    result = cli.run("queue", "purge", "--all")
    assert result.code == code
    assert "Delete 2 dead letters permanently?" in result.err
    assert len(dead_ids(cli)) == left


def test_purge_without_a_terminal(cli: CommandLine, set_constants: SetConstants) -> None:
    """Where standard input is not a terminal, --yes is required."""
    with (cli.folder / "empty").open("w+") as file:
        set_constants(sys, stdin=file)
        assert cli.run("queue", "purge", "--all").code == 2


def test_ids_or_all(cli: CommandLine) -> None:
    """Either ids or --all must be given, but not both."""
    assert cli.run("queue", "revive").code == 2
    assert cli.run("queue", "revive", "1", "--all").code == 2


def test_missing_queue(cli: CommandLine) -> None:
    """A command for a queue that does not exist does not create its file."""
    path = cli.folder / "nothing.sqlite"
    result = cli.run("queue", "stats", "--json", "--storage", path)
    assert (result.code, result.json["waiting"]) == (0, 0)
    assert "no queue file" in result.err
    assert not path.exists()


def test_neither_key_nor_project_is_needed(cli: CommandLine, environment: Environment) -> None:
    """With the file of the queue, neither the project nor a key has to be known."""
    environment(EXPONEA_PROJECT_TOKEN=None, EXPONEA_AUTHORIZATION_TOKEN=None, EXPONEA_STORAGE=None)
    assert cli.run("queue", "stats", "--storage", cli.folder / "queue.sqlite", "--json").json["dead"] == 2
    assert run("queue", "stats").code == 2


def test_queue_in_memory_is_refused(cli: CommandLine) -> None:
    """A queue in memory can't be read from another process."""
    assert cli.run("queue", "stats", "--storage", "memory:").code == 2


def test_damaged_file_is_a_failure(cli: CommandLine) -> None:
    """A damaged queue, which was moved aside, is reported."""
    path = cli.folder / "queue.sqlite"
    with path.open("r+b") as file:
        # Behind the header, by which a queue is recognized.
        file.seek(104)
        file.write(b"garbage" * 1_000)
    result = cli.run("queue", "stats", "--storage", path)
    assert result.code == 1
    assert "is damaged" in result.err


@pytest.mark.parametrize("command", [("queue", "stats"), ("flush",), ("track", "view", "--id", "registered=jane")])
def test_file_of_somebody_else_is_refused(cli: CommandLine, environment: Environment, command: tuple[str, ...]) -> None:
    """A file that is not a queue is named as such and left as it is, whatever the command."""
    path = cli.write("orders.csv", "id,email\n1,jane@example.com\n" * 100)
    environment(EXPONEA_STORAGE=path)
    before = sorted(cli.folder.iterdir())
    result = cli.run(*command)
    assert result.code == 1
    assert "is not a queue of exponea_async" in result.err
    assert path.read_text().startswith("id,email\n1,jane")
    assert sorted(cli.folder.iterdir()) == before
