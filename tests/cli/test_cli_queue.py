"""
The command ``queue``.
"""

import asyncio
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from helpers.command_line import CommandLine, command_line, run, wait_until
from helpers.environment import Environment, SetConstants

import exponea_async
from exponea_async import PostgresSettings
from exponea_async.storage.base import Record
from exponea_async.storage.postgres.storage import PostgresStorage

JANE = ("--id", "registered=jane@example.com")


#: Tests with this mark run with a queue in a file, and with one in PostgreSQL.
BACKENDS = pytest.mark.parametrize("backend", ["file", "postgres"])


@pytest.fixture
def backend() -> str:
    """Where the queue is."""
    return "file"


@pytest.fixture
def cli(
    tmp_path: Path, environment: Environment, backend: str, request: pytest.FixtureRequest
) -> Iterator[CommandLine]:
    """Two dead letters, the second one a customer update, and one record that waits."""
    with command_line(tmp_path, environment) as cli:
        if backend == "postgres":
            environment(
                EXPONEA_STORAGE=request.getfixturevalue("postgres_url"),
                EXPONEA_POSTGRES_SCHEMA=request.getfixturevalue("postgres_schema"),
            )
        cli.fault("reject", times=2)
        cli.run("track", "purchase", *JANE)
        cli.run("identify", *JANE)
        environment(EXPONEA_FLUSH_MODE="MANUAL")
        cli.run("track", "wait\x1b[2J", *JANE)
        yield cli


class Terminal:
    """A terminal at which the user enters an answer."""

    def __init__(self, answer: str) -> None:
        self.answer = answer

    def isatty(self) -> bool:
        return True

    def readline(self) -> str:
        return self.answer


def rows(cli: CommandLine, *options: str | Path) -> list[Any]:
    return [json.loads(line) for line in cli.run("queue", "list", "--json", *options).out.splitlines()]


def dead_letters(cli: CommandLine) -> list[Any]:
    return [json.loads(line) for line in cli.run("queue", "dead", "--json").out.splitlines()]


def dead_ids(cli: CommandLine) -> list[str]:
    return [letter["id"] for letter in dead_letters(cli)]


@BACKENDS
def test_stats(cli: CommandLine) -> None:
    """``stats`` counts the records that wait, in total and by project, and the dead letters."""
    assert cli.run("queue", "stats", "--json").json == {
        "waiting": 1,
        "leased": 0,
        "dead": 2,
        "projects": {"shop": 1},
        "unknown": [],
    }
    assert "waiting for shop  1" in cli.run("queue", "stats").out


@BACKENDS
def test_list(cli: CommandLine) -> None:
    """``list`` shows the records that wait, and escapes control codes of the terminal."""
    out = cli.run("queue", "list").out
    assert "shop" in out
    assert "wait\\x1b[2J" in out
    assert "registered=jane@example.com" in out
    assert "\x1b" not in out


def test_list_shows_where_records_are_sent_and_what_happens_to_them(cli: CommandLine, environment: Environment) -> None:
    """Each record has the address of its project, and says whether it is being sent or why it waits."""
    (waiting,) = rows(cli)
    assert (waiting["address"], waiting["sending"], waiting["reason"]) == (cli.sandbox.url, False, "")
    cli.fault("status", status=503)
    # Once more where the machine stops until the time is over.
    for _ in range(20):
        cli.run("flush", "--timeout", "0.5")
        if rows(cli)[0]["reason"]:
            break
    assert "HTTP 503" in rows(cli)[0]["reason"]
    assert "HTTP 503" in cli.run("queue", "list").out
    cli.sandbox.faults.clear()
    cli.fault("latency", seconds=30)
    with cli.start("flush") as process:
        wait_until(lambda: rows(cli)[0]["sending"])
        assert "is being sent" in cli.run("queue", "list").out
        process.kill()
    environment(EXPONEA_PROJECT_TOKEN="elsewhere")
    assert rows(cli, "--storage", cli.folder / "queue.sqlite")[0]["address"] == ""


class TestProjects:
    @pytest.fixture
    def left_over(self, cli: CommandLine, environment: Environment) -> CommandLine:
        """Beside one record of the configured project, two records of another one that is not configured any more."""
        for name in ("a", "b"):
            cli.run("track", name, *JANE, "--project-token", "outlet")
        return cli

    def test_stats_names_unknown_projects(self, left_over: CommandLine) -> None:
        """A project that can't be sent to is named, with the ways out."""
        result = left_over.run("queue", "stats", "--json")
        assert (result.json["projects"], result.json["unknown"]) == ({"shop": 1, "outlet": 2}, ["outlet"])
        for way_out in ("other_projects", "queue retarget", "queue drop-project"):
            assert way_out in result.err

    def test_other_projects_are_known(self, left_over: CommandLine, environment: Environment) -> None:
        """A project of ``EXPONEA_OTHER_PROJECTS`` is known, and a flush delivers its records."""
        environment(EXPONEA_OTHER_PROJECTS='[{"project_token": "outlet", "authorization_token": "key"}]')
        assert left_over.run("queue", "stats", "--json").json["unknown"] == []
        assert left_over.run("flush", "--json").json["delivered"] == 3

    def test_flush_ends_well(self, left_over: CommandLine) -> None:
        """Records of a project that is not configured do not make a flush fail, but it names them."""
        result = left_over.run("flush", "--json")
        assert (result.code, result.json["remaining"], list(result.json["reasons"])) == (0, 0, ["outlet"])
        assert "events for another project wait" in result.err

    def test_retarget(self, left_over: CommandLine) -> None:
        """All records of a project, dead letters included, are given to another one and sent there."""
        result = left_over.run("queue", "retarget", "outlet", "shop", "--yes", "--json")
        assert (result.code, result.json) == (0, {"retargeted": 2})
        assert left_over.run("flush", "--json").json["delivered"] == 3
        assert sorted(event.event_type for event in left_over.events) == ["a", "b", "wait\x1b[2J"]
        assert left_over.run("queue", "retarget", "shop", "outlet", "--yes", "--json").json == {"retargeted": 2}
        assert {letter["project"] for letter in dead_letters(left_over)} == {"outlet"}
        assert left_over.run("queue", "revive", "--all").code == 0
        assert left_over.run("queue", "stats", "--json").json["projects"] == {"outlet": 2}

    def test_retarget_to_an_unknown_project(self, left_over: CommandLine) -> None:
        """The command says that nothing will be sent to a project that is not known."""
        assert "new is neither in the settings" in left_over.run("queue", "retarget", "outlet", "new", "--yes").err
        assert left_over.run("queue", "retarget", "outlet", "not a token", "--yes").code == 2

    def test_drop_project(self, left_over: CommandLine) -> None:
        """The records of a project that wait are deleted, with its dead letters; those of others stay."""
        assert left_over.run("queue", "drop-project", "outlet", "--yes", "--json").json == {"dropped": 2}
        assert left_over.run("queue", "stats", "--json").json["dead"] == 2
        assert left_over.run("queue", "drop-project", "shop", "--yes", "--json").json == {"dropped": 3}
        assert left_over.run("queue", "drop-project", "shop", "--yes").code == 3

    def test_purge_waiting(self, left_over: CommandLine) -> None:
        """The records of a project that wait are deleted, and no dead letters."""
        result = left_over.run("queue", "purge", "--waiting", "--project", "outlet", "--yes", "--json")
        assert (result.code, result.json) == (0, {"purged": 2})
        stats = left_over.run("queue", "stats", "--json").json
        assert (stats["waiting"], stats["dead"]) == (1, 2)

    @pytest.mark.parametrize("options", [("--waiting",), ("--all", "--project", "shop"), ("--waiting", "--all")])
    def test_wrong_options(self, cli: CommandLine, options: tuple[str, ...]) -> None:
        """The project and ``--waiting`` belong together."""
        assert cli.run("queue", "purge", "--yes", *options).code == 2

    @pytest.mark.parametrize(
        "command",
        [("retarget", "outlet", "shop"), ("drop-project", "outlet"), ("purge", "--waiting", "--project", "outlet")],
    )
    def test_confirmation(self, left_over: CommandLine, set_constants: SetConstants, command: tuple[str, ...]) -> None:
        """Without a confirmation nothing is changed."""
        set_constants(sys, stdin=Terminal("n\n"))
        result = left_over.run("queue", *command)
        assert result.code == 1
        assert "2 " in result.err
        assert left_over.run("queue", "stats", "--json").json["projects"] == {"shop": 1, "outlet": 2}


def test_compact(cli: CommandLine) -> None:
    """``compact`` says how many bytes are free again, and what is in the queue stays."""
    for _ in range(5):
        cli.run("track", "large", *JANE, "--project-token", "outlet", "--property", f"text={'x' * 16_000}")
    cli.run("queue", "drop-project", "outlet", "--yes")

    assert cli.run("queue", "compact", "--json").json["freed_bytes"] > 5 * 16_000
    assert "freed_bytes" in cli.run("queue", "compact").out
    assert cli.run("queue", "stats", "--json").json["waiting"] == 1


@BACKENDS
def test_dead(cli: CommandLine) -> None:
    """``dead`` shows the dead letters, newest first, with the reason of the platform."""
    head, first, second = cli.run("queue", "dead").out.splitlines()
    assert head.split() == ["id", "project", "age", "event", "customer", "reason"]
    assert "(customer properties)" in first
    assert "purchase" in second
    assert "rejected by fault injection" in second
    assert len(cli.run("queue", "dead", "--limit", "1").out.splitlines()) == 2


@BACKENDS
def test_dead_as_json(cli: CommandLine) -> None:
    """In JSON, dead letters are printed completely, one per line."""
    letters = [json.loads(line) for line in cli.run("queue", "dead", "--json").out.splitlines()]
    assert [letter["event"] for letter in letters] == ["(customer properties)", "purchase"]
    assert letters[1]["data"]["customer_ids"] == {"registered": "jane@example.com"}
    assert letters[1]["died_at"] >= letters[1]["at"]


@BACKENDS
def test_revive(cli: CommandLine) -> None:
    """Revived dead letters are uploaded by the next flush."""
    assert cli.run("queue", "revive", dead_ids(cli)[1]).code == 0
    assert cli.run("queue", "revive", "--all", "--json").json == {"revived": 1, "unknown": 0}
    assert cli.run("flush", "--json").json == {"delivered": 3, "rejected": 0, "remaining": 0, "reasons": {}}


@BACKENDS
def test_unknown_ids(cli: CommandLine) -> None:
    """Unknown ids are reported, and the others are revived all the same."""
    result = cli.run("queue", "revive", dead_ids(cli)[0], "12345", "no-id")
    assert result.code == 3
    assert "2 of 3" in result.err


@BACKENDS
def test_purge(cli: CommandLine) -> None:
    """Purged dead letters are deleted."""
    assert cli.run("queue", "purge", dead_ids(cli)[0], "--yes").code == 0
    assert cli.run("queue", "purge", "--all", "--yes", "--json").json == {"purged": 1, "unknown": 0}
    assert dead_ids(cli) == []


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


class TestPostgres:
    """What differs where the queue is in PostgreSQL."""

    @pytest.fixture
    def backend(self) -> str:
        """Where the queue is."""
        return "postgres"

    def write(self, cli: CommandLine, url: str, schema: str) -> None:
        """Write records of another project into the queue."""

        async def write() -> None:
            storage = PostgresStorage(url, "shop", settings=PostgresSettings(schema=schema), lock_timeout=60.0)
            await storage.open()
            await storage.write([Record("outlet", b'{"name": "x", "data": {}}', 1.7e9) for _ in range(2)])
            await storage.aclose()

        asyncio.run(write())

    def test_projects(self, cli: CommandLine, postgres_url: str, postgres_schema: str) -> None:
        """Records are given to another project, and deleted by project."""
        self.write(cli, postgres_url, postgres_schema)
        assert cli.run("queue", "stats", "--json").json["unknown"] == ["outlet"]
        assert cli.run("queue", "retarget", "outlet", "mall", "--yes", "--json").json == {"retargeted": 2}
        assert cli.run("queue", "stats", "--json").json["projects"]["mall"] == 2
        assert cli.run("queue", "purge", "--waiting", "--project", "mall", "--yes", "--json").json == {"purged": 2}
        self.write(cli, postgres_url, postgres_schema)
        assert cli.run("queue", "drop-project", "outlet", "--yes", "--json").json == {"dropped": 2}
        assert cli.run("queue", "stats", "--json").json["dead"] == 2

    def test_flush(self, cli: CommandLine) -> None:
        """``flush`` uploads the queue."""
        assert cli.run("flush", "--json").json["delivered"] == 1

    def test_compact(self, cli: CommandLine) -> None:
        """``compact`` says that the server reuses space by itself."""
        result = cli.run("queue", "compact", "--json")
        assert (result.code, result.json) == (0, {"freed_bytes": 0})
        assert "autovacuum" in result.err

    def test_nothing_is_created(self, cli: CommandLine, environment: Environment) -> None:
        """Where there is no schema, looking at the queue creates none."""
        environment(EXPONEA_POSTGRES_SCHEMA="missing_schema")
        result = cli.run("queue", "stats")
        assert result.code == 1
        assert "Run 'exponea-async db init' once." in result.err
        assert cli.run("db", "status").code == 1

    def test_import(self, cli: CommandLine) -> None:
        """Lines are imported into the queue in the database, and uploaded."""
        file = cli.write("events.csv", "email,at\na@example.com,2026-01-01T00:00:00Z\n")
        result = cli.run("import", file, "--event", "e", "--id", "registered=email", "--timestamp", "at", "--json")
        assert result.code == 0, result.err
        assert "e" in [event.event_type for event in cli.events]

    def test_hints_name_commands_that_exist(self) -> None:
        """Every command that a hint in the package names has a parser."""
        root = Path(exponea_async.__file__).parent
        text = "".join(path.read_text() for path in root.rglob("*.py"))
        named = set(re.findall(r"'exponea-async ((?:db|queue) [a-z-]+|[a-z]+)", text)) - {"exponea"}
        assert {"db init", "db migrate", "queue move", "queue dead"} <= named
        for words in sorted(named - {"COMMAND"}):
            assert run(*words.split(), "--help").code == 0, words
