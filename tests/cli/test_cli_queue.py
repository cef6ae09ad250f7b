"""
The command ``queue``.
"""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from cli_stage import Stage, run, staged

JANE = ("--id", "registered=jane@example.com")


@pytest.fixture
def stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stage]:
    """Two dead letters, the second about a customer update, and one record that waits."""
    with staged(tmp_path, monkeypatch) as stage:
        stage.fault("reject", times=2)
        stage.run("track", "purchase", *JANE)
        stage.run("identify", *JANE)
        monkeypatch.setenv("EXPONEA_FLUSH_MODE", "MANUAL")
        stage.run("track", "wait\x1b[2J", *JANE)
        yield stage


def dead_ids(stage: Stage) -> list[str]:
    return [json.loads(line)["id"] for line in stage.run("queue", "dead", "--json").out.splitlines()]


def test_stats(stage: Stage) -> None:
    """It counts what waits, by project too, and the dead letters."""
    assert stage.run("queue", "stats", "--json").json == {
        "waiting": 1,
        "taken": 0,
        "dead": 2,
        "projects": {"shop": 1},
    }
    assert "waiting for shop  1" in stage.run("queue", "stats").out


def test_list(stage: Stage) -> None:
    """It shows what waits, and lets no control code through to the terminal."""
    out = stage.run("queue", "list").out
    assert "shop" in out
    assert "wait\\x1b[2J" in out
    assert "registered=jane@example.com" in out
    assert "\x1b" not in out


def test_dead(stage: Stage) -> None:
    """It shows dead letters, newest first, with the platform's reason."""
    head, first, second = stage.run("queue", "dead").out.splitlines()
    assert head.split() == ["id", "project", "age", "event", "customer", "reason"]
    assert "(customer properties)" in first
    assert "purchase" in second
    assert "rejected by fault injection" in second
    assert len(stage.run("queue", "dead", "--limit", "1").out.splitlines()) == 2


def test_dead_as_json(stage: Stage) -> None:
    """Dead letters are exported whole, one a line."""
    letters = [json.loads(line) for line in stage.run("queue", "dead", "--json").out.splitlines()]
    assert [letter["event"] for letter in letters] == ["(customer properties)", "purchase"]
    assert letters[1]["data"]["customer_ids"] == {"registered": "jane@example.com"}
    assert letters[1]["died_at"] >= letters[1]["at"]


def test_revive(stage: Stage) -> None:
    """Revived dead letters are uploaded by the next flush."""
    assert stage.run("queue", "revive", dead_ids(stage)[1]).code == 0
    assert stage.run("queue", "revive", "--all", "--json").json == {"revived": 1, "unknown": 0}
    assert stage.run("flush", "--json").json == {"delivered": 3, "rejected": 0, "remaining": 0}


def test_unknown_ids(stage: Stage) -> None:
    """An id that is no dead letter's is told, and the others are taken care of."""
    outcome = stage.run("queue", "revive", dead_ids(stage)[0], "12345", "no-id")
    assert outcome.code == 3
    assert "2 of 3" in outcome.err


def test_purge(stage: Stage) -> None:
    """Purged dead letters are gone."""
    assert stage.run("queue", "purge", dead_ids(stage)[0], "--yes").code == 0
    assert stage.run("queue", "purge", "--all", "--yes", "--json").json == {"purged": 1, "unknown": 0}
    assert dead_ids(stage) == []


class Terminal:
    """Somebody at the keyboard."""

    def __init__(self, answer: str) -> None:
        self.answer = answer

    def isatty(self) -> bool:
        return True

    def readline(self) -> str:
        return self.answer


@pytest.mark.parametrize(("answer", "code", "left"), [("y\n", 0, 0), ("n\n", 1, 2), ("\n", 1, 2), ("", 1, 2)])
def test_purge_asks(stage: Stage, monkeypatch: pytest.MonkeyPatch, answer: str, code: int, left: int) -> None:
    """Without --yes somebody has to agree."""
    monkeypatch.setattr("sys.stdin", Terminal(answer))
    outcome = stage.run("queue", "purge", "--all")
    assert outcome.code == code
    assert "Delete 2 dead letters for good?" in outcome.err
    assert len(dead_ids(stage)) == left


def test_purge_without_anybody_to_ask(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a script, --yes is needed."""
    with (stage.folder / "empty").open("w+") as nobody:
        monkeypatch.setattr("sys.stdin", nobody)
        assert stage.run("queue", "purge", "--all").code == 2


def test_some_or_all(stage: Stage) -> None:
    """Neither nothing nor both is taken for all."""
    assert stage.run("queue", "revive").code == 2
    assert stage.run("queue", "revive", "1", "--all").code == 2


def test_no_queue_yet(stage: Stage) -> None:
    """To look at a queue that is not there makes none."""
    path = stage.folder / "nothing.sqlite"
    outcome = stage.run("queue", "stats", "--json", "--storage", path)
    assert (outcome.code, outcome.json["waiting"]) == (0, 0)
    assert "no queue file" in outcome.err
    assert not path.exists()


def test_neither_key_nor_project_is_needed(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """To look into a file, one need not know whose it is."""
    for name in ("PROJECT_TOKEN", "AUTHORIZATION_TOKEN", "STORAGE"):
        monkeypatch.delenv(f"EXPONEA_{name}")
    assert stage.run("queue", "stats", "--storage", stage.folder / "queue.sqlite", "--json").json["dead"] == 2
    assert run("queue", "stats").code == 2


def test_memory_is_elsewhere(stage: Stage) -> None:
    """A queue in memory can't be looked into from here."""
    assert stage.run("queue", "stats", "--storage", "memory:").code == 2


def test_damaged_file_is_a_failure(stage: Stage) -> None:
    """A file that was damaged and had to be moved aside is told."""
    path = stage.write("damaged.sqlite", "this is no database at all" * 100)
    outcome = stage.run("queue", "stats", "--storage", path)
    assert outcome.code == 1
    assert "is damaged" in outcome.err
