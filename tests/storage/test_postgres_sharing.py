"""
Several clients on one queue at the same time, in one process and in several.
"""

import asyncio
import random
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Awaitable
from typing import Any

import pytest
from helpers.environment import SetConstants
from helpers.postgres_storage import OpenPostgres, Tables, storage_creator
from helpers.storages import LEASE, bodies, dead, delivered, ids, later, lease, records
from helpers.waiting import until

from exponea_async.config import PostgresSettings
from exponea_async.errors import LifecycleError, QueueFullError, StateConflictError, StorageError, WipedFileError
from exponea_async.storage.base import Settlement, StateChange
from exponea_async.storage.postgres import maintenance
from exponea_async.storage.postgres.storage import PostgresStorage, wipe_unused_queue
from exponea_async.testing.storage_contract.builders import erasure

START = """
import asyncio, os, sys, time
from exponea_async.config import PostgresSettings
from exponea_async.errors import StateConflictError
from exponea_async.storage.base import Record, Settlement, StateChange
from exponea_async.storage.postgres.storage import PostgresStorage

def report(*words):
    os.write(1, (" ".join(words) + "\\n").encode())

async def main(url, schema, name):
    storage = PostgresStorage(url, "shop", settings=PostgresSettings(schema=schema), lock_timeout=60.0)
    await storage.open()
    await work(storage, name)
    await storage.aclose()

asyncio.run(main(*sys.argv[1:]))
"""

#: Writes and leases at the same time, and reports both.
SHARE = """
async def write(storage, body):
    await storage.write([Record("shop", body.encode(), time.time())])
    report("wrote", body)

async def upload(storage):
    leased = await storage.lease(7, 60, time.time())
    for each in leased:
        report("leased", each.body.decode())
    await storage.settle([Settlement(tuple(each.id for each in leased), "delivered")])

async def work(storage, name):
    for step in range(15):
        await asyncio.gather(*(write(storage, f"{name}-{step}-{n}") for n in range(10)), upload(storage))
"""

#: Counts in a state, and creates states that the other process creates, too.
COUNT = """
async def change(storage, key, count):
    while count:
        state = await storage.load_state(key)
        value, version = (int(state.value), state.version) if state else (0, 0)
        try:
            await storage.write([], [StateChange(key, b"%d" % (value + 1), version)])
        except StateConflictError:
            continue
        count -= 1

async def create(storage, key):
    try:
        await storage.write([], [StateChange(key, b"", 0)])
    except StateConflictError:
        return
    report("created", key)

async def work(storage, name):
    await change(storage, "counter", 250)
    await asyncio.gather(*(change(storage, "counter", 10) for _ in range(5)))
    await asyncio.gather(*(create(storage, f"k{n}") for n in range(500)))
"""


def run(script: str, tables: Tables, count: int) -> list[list[str]]:
    """Run a script in some processes at the same time; return the words of the lines that they print."""
    code = START.replace("async def main", f"{script}\nasync def main")
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", code, tables.url, tables.schema, str(number)], stdout=subprocess.PIPE, text=True
        )
        for number in range(count)
    ]
    output = [process.communicate(timeout=120)[0] for process in processes]
    assert [process.returncode for process in processes] == [0] * count
    return [line.split() for each in output for line in each.splitlines()]


async def test_processes_share_a_queue(open_postgres: OpenPostgres, tables: Tables) -> None:
    """Each record is leased once, by one of the processes, which may all create the schema."""
    lines = await asyncio.to_thread(run, SHARE, tables, 3)
    written = Counter(body for word, body in lines if word == "wrote")
    leased = Counter(body for word, body in lines if word == "leased")
    storage = await open_postgres()
    leased.update(bodies(await lease(storage, 1_000, now=time.time())))

    assert len(written) == 450
    assert leased == written
    tables.check_counters()


async def test_processes_change_a_state(open_postgres: OpenPostgres, tables: Tables) -> None:
    """No change of a state is lost, and each state is created by one of the processes only."""
    lines = await asyncio.to_thread(run, COUNT, tables, 2)
    state = await (await open_postgres()).load_state("counter")

    assert state is not None
    assert int(state.value) == 600
    created = Counter(key for _, key in lines)
    assert len(created) == 500
    assert set(created.values()) == {1}


async def test_clients_that_start_at_the_same_time(postgres_url: str, postgres_schema: str, tables: Tables) -> None:
    """All of them find one schema, one queue and one route."""
    storages = [storage_creator(postgres_schema)(postgres_url) for _ in range(6)]
    await asyncio.gather(*(storage.open() for storage in storages))
    written = await asyncio.gather(*(storage.write(records("a")) for storage in storages))
    await asyncio.gather(*(storage.aclose() for storage in storages))

    assert len({key for each in written for key in each.ids}) == 6
    assert tables.fetch("SELECT count(*) FROM {s}.queue") == [(1,)]
    tables.check_counters()


def delayed(*keys: str) -> list[Settlement]:
    """Return the settlement of records that are due again."""
    return later(*keys, due=time.time())


class Storm:
    """Random calls of all kinds, until each of several tasks has made some."""

    def __init__(self, storages: list[PostgresStorage]) -> None:
        self._storages = storages
        self._known: list[str] = []
        self._random = random.Random(7)

    async def run(self, tasks: int, calls: int) -> None:
        """Make the calls."""
        await asyncio.gather(*(self._make(calls) for _ in range(tasks)))

    async def _make(self, calls: int) -> None:
        for _ in range(calls):
            storage = self._random.choice(self._storages)
            try:
                await self._call(storage)
            except (StateConflictError, WipedFileError):
                continue

    def _some(self) -> tuple[str, ...]:
        return tuple(self._random.sample(self._known[-300:], min(len(self._known[-300:]), 20)))

    def _call(self, storage: PostgresStorage) -> Awaitable[Any]:
        choice = self._random.random()
        if choice < 0.3:
            return self._write(storage)
        if choice < 0.4:
            # The leases have expired by then, so several clients settle the same records.
            return lease(storage, 20, now=time.time() + self._random.choice([0.0, 2 * LEASE]))
        if choice < 0.8:
            settle = self._random.choice([delivered, dead, delayed])
            return storage.settle([*settle(*self._some()), *delivered(*self._some())])
        others = (
            storage.revive(),
            storage.purge(self._some()),
            storage.prune(max_count=5),
            storage.rename_route("x", "y"),
            storage.rename_route("y", "x"),
            storage.drop_waiting(["z"]),
            storage.erase(erasure(b"body-1", "k1", k2=b"erased")),
            storage.pending(),
            storage.expired_sessions(time.time(), 5),
        )
        chosen = self._random.randrange(len(others))
        for number, other in enumerate(others):
            if number != chosen:
                other.close()
        return others[chosen]

    async def _write(self, storage: PostgresStorage) -> None:
        route, key = self._random.choice("xyz"), f"k{self._random.randrange(5)}"
        state = await storage.load_state(key)
        change = StateChange(key, b"v", state.version if state else 0, time.time() - 1)
        number = self._random.randrange(1_000)
        written = await storage.write(records(f"body-{number}", f"body-{number + 1}", route=route), [change])
        self._known += written.ids


async def test_calls_of_all_kinds_at_the_same_time(
    open_postgres: OpenPostgres, tables: Tables, set_constants: SetConstants
) -> None:
    """No call fails, since deadlocks are tried again, and the counters are exact afterwards."""
    set_constants(maintenance, INTERVAL=0.02, CLEARING=1)
    storages = [await open_postgres() for _ in range(3)]
    await Storm(storages).run(tasks=12, calls=30)

    tables.check_counters()


async def test_a_queue_that_is_wiped_while_others_write(
    open_postgres: OpenPostgres, tables: Tables, set_constants: SetConstants
) -> None:
    """Nothing of before is left, and each of the others reports once that its queue was wiped."""
    set_constants(maintenance, INTERVAL=0.05)
    reports: list[list[StorageError]] = [[], []]
    others = [await open_postgres(report=each.append) for each in reports]
    wiping = await open_postgres()

    async def write(storage: PostgresStorage, name: str) -> None:
        for number in range(100_000):
            try:
                await storage.write(records(f"{name} {number}"), [StateChange(f"{name} {number}", b"", 0)])
                await lease(storage, 3)
            except WipedFileError:
                return

    writing = [asyncio.create_task(write(storage, f"{number}")) for number, storage in enumerate(others * 5)]
    await until(lambda: len(tables.bodies()) > 50)
    await wiping.wipe()
    await wiping.write(records("new"))
    await asyncio.gather(*writing)
    await until(lambda: all(reports))

    assert tables.bodies() == ["new"]
    assert tables.fetch("SELECT count(*) FROM {s}.state") == [(0,)]
    assert [[type(each) for each in report] for report in reports] == [[WipedFileError]] * 2
    assert (await wiping.pending()).waiting == 1
    tables.check_counters()


async def test_records_of_a_wiped_queue_are_not_leased(open_postgres: OpenPostgres, tables: Tables) -> None:
    """A client that does not know yet that its queue was wiped gets none of its records, and spoils no counters."""
    other, wiping = await open_postgres(), await open_postgres()
    await other.write(records("a", "b", "c"))
    (first,) = await lease(other, 1)
    # As while the records are being deleted.
    tables.run("UPDATE {s}.route SET queue = NULL; DELETE FROM {s}.counter")
    assert await lease(other) == []
    await other.settle(delivered(first.id))
    await wiping.write(records("new"))
    assert bodies(await lease(wiping)) == ["new"]
    tables.check_counters()


async def test_a_client_that_was_suspended(
    open_postgres: OpenPostgres, tables: Tables, set_constants: SetConstants
) -> None:
    """It goes on correctly after others have deleted its row and taken over its counters."""
    set_constants(maintenance, INTERVAL=0.05)
    storage, other = await open_postgres(), await open_postgres()
    first = await storage.write(records("a", "b"), [StateChange("k", b"1", 0)])
    await lease(storage, 1)
    tables.run(f"DELETE FROM {{s}}.client WHERE id = {storage.number + 1}")
    await until(lambda: tables.fetch("SELECT count(DISTINCT client) FROM {s}.counter WHERE client > 0") == [(1,)])
    second = await storage.write(records("c"), [StateChange("k", b"2", 1)])
    await storage.settle(delivered(*first.ids))
    await lease(other)

    assert set(first.ids).isdisjoint(second.ids)
    assert tables.bodies() == ["b", "c"]
    tables.check_counters()


async def test_a_queue_is_full_for_all_clients(open_postgres: OpenPostgres, tables: Tables) -> None:
    """Writes of one client wait for the settlements of another, and none exceeds the capacity when it is alone."""
    raising = await open_postgres(max_records=10)
    waiting = await open_postgres(max_records=10, when_full="wait")
    dropping = await open_postgres(max_records=10, when_full="drop_oldest")
    await waiting.write(records(*"abcdefghij"))
    with pytest.raises(QueueFullError):
        await raising.write(records("k"))
    late = asyncio.create_task(waiting.write(records("l")))
    await raising.settle(delivered(*ids(await lease(raising, 2))))
    await late
    await dropping.write(records("m", "n", "o"))

    assert tables.bodies() == sorted("efghijlmno")
    tables.check_counters()


async def test_a_queue_in_use_is_not_wiped(open_postgres: OpenPostgres, postgres_url: str, tables: Tables) -> None:
    """A queue is not wiped from outside before its last client is closed."""
    storage = await open_postgres()
    settings = PostgresSettings(schema=tables.schema)
    with pytest.raises(LifecycleError):
        await wipe_unused_queue(postgres_url, "shop", settings, 60.0)
    await storage.aclose()
    await wipe_unused_queue(postgres_url, "shop", settings, 60.0)


async def test_many_new_states_at_once(open_postgres: OpenPostgres, tables: Tables) -> None:
    """Thousands of devices may be new at the same time."""
    storage = await open_postgres()
    calls = [storage.write(records("a"), [StateChange(f"k{number}", b"", 0)]) for number in range(5_000)]
    await asyncio.gather(*calls)
    await storage.write([], [StateChange(f"l{number}", b"", 0) for number in range(1_000)])

    assert tables.fetch("SELECT count(*) FROM {s}.state") == [(6_000,)]
    tables.check_counters()
