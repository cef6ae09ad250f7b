"""
The command ``queue move``.
"""

import asyncio
import random
import shutil
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from attrs import frozen
from helpers.command_line import Result, finish, run
from helpers.environment import Environment, SetConstants

from exponea_async import PostgresSettings
from exponea_async.storage import moving
from exponea_async.storage.base import Record, Settlement, StateChange
from exponea_async.storage.postgres.storage import PostgresStorage
from exponea_async.storage.sqlite.storage import SQLiteStorage

NOW = time.time()
#: Runs the program with small parts, and kills it some seconds after a number of steps.
SMALL_PARTS = """
import os, signal, sys, threading
from exponea_async.cli import main
from exponea_async.storage import moving

def die():
    os.kill(os.getpid(), signal.SIGKILL)

async def count(*args):
    global steps
    steps -= 1
    if steps == 0:
        threading.Timer(delay, die).start() if delay else die()
    return await in_thread(*args)

steps, delay = int(sys.argv[1]), float(sys.argv[2])
in_thread, moving.in_thread = moving.in_thread, count
moving.MAX_RECORDS, moving.MAX_STATES = 7, 3
sys.exit(main(sys.argv[3:]))
"""


@frozen
class Content:
    """What a queue has, in an order that ids do not decide."""

    records: list[Any]
    letters: list[Any]
    states: dict[str, Any]


async def read(storage: Any, keys: range) -> Content:
    """Return what a queue has."""
    waiting, dead = await storage.waiting(10**6), await storage.dead(10**6)
    states = {}
    for number in keys:
        state = await storage.load_state(f"device:{number}")
        states[f"device:{number}"] = state and (state.value, state.version, state.active)
    return Content(
        [(r.route, r.body, r.at, r.failures, r.reason, r.due and round(r.due)) for r in waiting],
        sorted((d.route, d.body, d.at, d.died_at, d.reason) for d in dead),
        states,
    )


@frozen
class Case:
    """A file and a schema."""

    path: Path
    url: str
    schema: str

    def fill(self, count: int) -> Content:
        """Fill the file with records, dead letters and states of all kinds, and return them."""
        return asyncio.run(self._fill(count))

    async def _fill(self, count: int) -> Content:
        storage = SQLiteStorage(self.path)
        await storage.open()
        for number in range(count):
            records = [Record(f"shop{number % 2}", b"%d" % number, NOW - count + number)]
            await storage.write(records, [StateChange(f"device:{number}", b"v%d" % number, 0, active=NOW + number)])
        await storage.write([], [StateChange("device:0", b"again", 1), StateChange("device:1", None, 1)])
        leased = await storage.lease(count // 2, 300.0, time.time())
        third = len(leased) // 3
        later = tuple(each.id for each in leased[:third])
        dead = tuple(each.id for each in leased[third : 2 * third])
        await storage.settle(
            [
                Settlement(later, "later", time.time() + 900, 3, "the platform is busy"),
                Settlement(dead, "dead", reason="refused"),
            ]
        )
        content = await read(storage, range(count))
        await storage.aclose()
        return content

    def moved(self, count: int) -> Content:
        """Return what the queue in the database has."""

        async def read_it() -> Content:
            storage = PostgresStorage(
                self.url, "shop", settings=PostgresSettings(schema=self.schema), lock_timeout=60.0
            )
            await storage.open()
            try:
                content = await read(storage, range(count))
                pending = await storage.pending()
                assert (pending.waiting, pending.dead) == (len(content.records), len(content.letters))
                assert pending.leased == sum(record[-1] > 0 for record in content.records)
                return content
            finally:
                await storage.aclose()

        return asyncio.run(read_it())

    def run(self, *options: str | Path) -> Result:
        """Move the file."""
        return run("queue", "move", self.path, *options)

    def is_empty(self) -> bool:
        """Return whether nothing is left in the file."""
        with closing(sqlite3.connect(self.path)) as connection:
            tables = ("record", "taken", "dead", "state")
            return not any(connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0] for table in tables)


@pytest.fixture
def case(tmp_path: Path, postgres_url: str, postgres_schema: str, environment: Environment) -> Case:
    """A file, and a schema in the environment's settings."""
    environment(EXPONEA_STORAGE=postgres_url, EXPONEA_POSTGRES_SCHEMA=postgres_schema, EXPONEA_PROJECT_TOKEN="shop")
    return Case(tmp_path / "queue.sqlite", postgres_url, postgres_schema)


def assert_same(moved: Content, expected: Content) -> None:
    assert moved.letters == expected.letters
    assert moved.states == expected.states
    # The clock of the database is measured, so due times may be a second off.
    assert [each[:-1] for each in moved.records] == [each[:-1] for each in expected.records]
    for one, other in zip(moved.records, expected.records, strict=True):
        assert one[-1] == pytest.approx(other[-1], abs=3)


def test_everything_is_moved(case: Case, set_constants: SetConstants) -> None:
    """Records with their times, order, failures and reasons, dead letters and states with activity are moved."""
    expected = case.fill(100)
    set_constants(moving, MAX_RECORDS=9, MAX_STATES=7)
    result = case.run("--json")
    assert result.code == 0, result.err
    assert result.json == {"records": len(expected.records), "letters": len(expected.letters), "states": 99}
    assert_same(case.moved(100), expected)
    assert case.is_empty()
    assert case.run("--json").json == {"records": 0, "letters": 0, "states": 0}


def test_the_file_can_be_used_and_moved_again(case: Case) -> None:
    """The empty file is an ordinary queue, whose new content can be moved, too."""
    case.fill(20)
    case.run()

    async def write() -> None:
        storage = SQLiteStorage(case.path)
        await storage.open()
        await storage.write([Record("shop0", b"new", NOW)], [StateChange("device:99", b"new", 0)])
        await storage.aclose()

    asyncio.run(write())
    assert case.run("--json").json == {"records": 1, "letters": 0, "states": 1}
    assert len([each for each in case.moved(20).records if each[1] == b"new"]) == 1


def test_the_file_can_be_deleted(case: Case) -> None:
    """``--delete-source`` deletes the file and the files beside it."""
    expected = case.fill(20)
    assert case.run("--delete-source").code == 0
    assert not list(case.path.parent.iterdir())
    assert_same(case.moved(20), expected)


def test_a_copy_is_refused(case: Case) -> None:
    """A copy of a file that was moved is refused, and nothing is doubled."""
    expected = case.fill(20)
    copy = shutil.copy(case.path, case.path.with_name("copy.sqlite"))
    case.run()
    result = run("queue", "move", copy)
    assert result.code == 1
    assert "is a copy of a file whose content was moved already" in result.err
    assert_same(case.moved(20), expected)


def test_an_open_file_is_refused(case: Case) -> None:
    """A file that a client has open is refused, and stays as it is."""
    expected = case.fill(20)

    async def move() -> Result:
        storage = SQLiteStorage(case.path)
        await storage.open()
        try:
            return await asyncio.to_thread(case.run)
        finally:
            await storage.aclose()

    result = asyncio.run(move())
    assert result.code == 1
    assert "is open in another process" in result.err
    assert case.run().code == 0
    assert_same(case.moved(20), expected)


def test_other_states_are_refused(case: Case) -> None:
    """States that the queue in the database has with another value are refused before anything is moved."""
    expected = case.fill(20)

    async def write() -> None:
        storage = PostgresStorage(case.url, "shop", settings=PostgresSettings(schema=case.schema), lock_timeout=60.0)
        await storage.open()
        await storage.write([], [StateChange("device:5", b"other", 0), StateChange("device:7", b"v7", 0)])
        await storage.aclose()

    asyncio.run(write())
    result = case.run()
    assert result.code == 1
    assert "other values for 1 states" in result.err
    assert not case.moved(20).records

    async def read_file() -> Content:
        storage = SQLiteStorage(case.path)
        await storage.open()
        try:
            return await read(storage, range(20))
        finally:
            await storage.aclose()

    assert_same(asyncio.run(read_file()), expected)


def interrupted(case: Case, steps: int, delay: float = 0.0) -> bool:
    """Run the command in a process that kills itself some seconds after a step; return whether it got that far."""
    command = [sys.executable, "-c", SMALL_PARTS, str(steps), str(delay), "queue", "move", str(case.path)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    _, errors = finish(process)
    assert process.returncode in (0, -9), errors
    return process.returncode == -9


def is_being_moved(case: Case) -> bool:
    with closing(sqlite3.connect(case.path)) as connection:
        return bool(connection.execute("SELECT count(*) FROM counter WHERE name = 'moving'").fetchone()[0])


def test_killed_at_random(case: Case) -> None:
    """However often it is killed, nothing is lost, doubled or changed in the end."""
    expected = case.fill(300)
    generator = random.Random(12)
    kills = 0
    while interrupted(case, generator.randrange(1, 60) + 10 * kills, generator.uniform(0.0, 0.02)):
        kills += 1
    assert kills
    assert_same(case.moved(300), expected)
    assert case.is_empty()


def test_an_interrupted_move_keeps_clients_out(case: Case) -> None:
    """Until an interrupted move is run again or given up, no client opens the file: a part may be in both places."""
    expected = case.fill(300)
    steps = 1
    while not is_being_moved(case):
        assert interrupted(case, steps)
        steps += 40
    refused = run("queue", "stats", "--storage", case.path)
    assert refused.code == 1
    assert "queue move" in refused.err
    other = run("queue", "move", case.path, "--project-token", "another")
    assert "being moved to another queue" in other.err
    assert case.run("--stop").code == 0
    left = run("queue", "stats", "--storage", case.path, "--json").json
    moved = case.moved(300)
    assert left["waiting"] + len(moved.records) == len(expected.records)
    assert left["dead"] + len(moved.letters) == len(expected.letters)
    assert case.run().code == 0
    assert_same(case.moved(300), expected)


def test_wrong_arguments(case: Case, environment: Environment, tmp_path: Path) -> None:
    """A source that does not exist or is no queue, and a target that is not a database, are errors."""
    assert "there is no such file" in case.run().err
    case.path.write_text("something else")
    assert "is not a queue" in case.run().err
    assert case.path.read_text() == "something else"
    environment(EXPONEA_STORAGE=tmp_path / "other.sqlite")
    result = case.run()
    assert result.code == 2
    assert "must be that of a PostgreSQL database" in result.err
