"""
A database that does not answer, refuses, or is locked: each call ends in time, and goes on by itself afterwards.
"""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import psycopg
import pytest
from helpers.database_proxy import DatabaseProxy, Mode
from helpers.postgres_server import StartPostgres
from helpers.postgres_storage import OpenPostgres, Tables, reason, storage_creator
from helpers.storages import delivered, lease, records
from helpers.waiting import running, until, until_succeeds

from exponea_async.errors import StorageError
from exponea_async.storage.base import StateChange
from exponea_async.storage.postgres.storage import PostgresStorage
from exponea_async.testing.storage_contract.builders import erasure

#: How long calls wait that are to fail. No call that is to succeed depends on it: such a call is repeated.
TIMEOUT = 2.0
#: What a busy machine may add to it; far below what the calls would take one after the other.
SLACK = 30.0

CALLS: dict[str, Callable[[PostgresStorage], Awaitable[Any]]] = {
    "write": lambda storage: storage.write(records("b")),
    "write a state": lambda storage: storage.write(records("b"), [StateChange("other", b"", 0)]),
    "lease": lease,
    "settle": lambda storage: storage.settle(delivered("1")),
    "find": lambda storage: storage.find(["1"]),
    "watermark": lambda storage: storage.watermark(),
    "remaining": lambda storage: storage.remaining({"1": "1"}),
    "pending": lambda storage: storage.pending(),
    "waiting": lambda storage: storage.waiting(9),
    "dead": lambda storage: storage.dead(9),
    "revive": lambda storage: storage.revive(),
    "purge": lambda storage: storage.purge(),
    "prune": lambda storage: storage.prune(max_count=0),
    "rename_route": lambda storage: storage.rename_route("a", "b"),
    "drop_waiting": lambda storage: storage.drop_waiting(["shop"]),
    "erase": lambda storage: storage.erase(erasure(b"a")),
    "reserve": lambda storage: storage.reserve("address", 1, 10.0),
    "load_state": lambda storage: storage.load_state("k"),
    "expired_sessions": lambda storage: storage.expired_sessions(1.0, 9),
    "generation": lambda storage: storage.generation(),
    "wipe": lambda storage: storage.wipe(),
}


async def check_calls(storage: PostgresStorage) -> None:
    """Make all calls at the same time; each raises in time."""
    start = time.monotonic()
    results = await asyncio.gather(*(call(storage) for call in CALLS.values()), return_exceptions=True)
    duration = time.monotonic() - start

    wrong = {name: result for name, result in zip(CALLS, results, strict=True) if type(result) is not StorageError}
    assert wrong == {}
    assert duration < TIMEOUT + SLACK


async def until_it_works(storage: PostgresStorage) -> None:
    """Wait until the storage can be used."""

    async def use() -> None:
        await storage.write(records("x"))
        await storage.pending()

    await until_succeeds(use, StorageError)


@pytest.mark.parametrize("mode", ["refusing", "silent"])
async def test_every_call_ends_in_time(
    open_postgres: OpenPostgres, proxy: DatabaseProxy, tables: Tables, caplog: pytest.LogCaptureFixture, mode: Mode
) -> None:
    """Every call raises a clear error while the database can't be reached, and works again afterwards."""
    storage = await open_postgres(proxy.url, lock_timeout=TIMEOUT)
    await until_it_works(storage)
    await proxy.set_mode(mode)
    await check_calls(storage)
    with pytest.raises(StorageError, match=r"can't be reached: .+"):
        await storage.pending()
    await proxy.set_mode("open")
    await until_it_works(storage)

    tables.check_counters()
    # Calls raise; there is nothing to log besides.
    assert [each for each in caplog.records if each.levelno >= logging.WARNING] == []


@pytest.mark.parametrize("mode", ["refusing", "silent"])
async def test_many_callers_wait_no_longer_than_one(
    open_postgres: OpenPostgres, proxy: DatabaseProxy, tables: Tables, mode: Mode
) -> None:
    """Thousands of callers at the same time all get their error after the same time, and nothing of them is left."""
    storage = await open_postgres(proxy.url, lock_timeout=TIMEOUT)
    await until_it_works(storage)
    await proxy.set_mode(mode)
    start = time.monotonic()
    writes = [storage.write(records("b")) for _ in range(3_000)]
    loads = [storage.load_state("k") for _ in range(3_000)]
    results = await asyncio.gather(*writes, *loads, return_exceptions=True)
    duration = time.monotonic() - start

    assert {type(each) for each in results} == {StorageError}
    assert duration < TIMEOUT + SLACK
    await until(lambda: not running("returning"))
    count = proxy.count
    await proxy.set_mode("open")
    await until_it_works(storage)
    # No connections are made for callers that are gone.
    assert proxy.count - count < 20
    tables.check_counters()


@pytest.mark.parametrize("mode", ["refusing", "silent"])
async def test_opening_and_closing_end_in_time(
    open_postgres: OpenPostgres, proxy: DatabaseProxy, postgres_schema: str, mode: Mode
) -> None:
    """Opening raises in time, closing ends within the time that is given, and no task is left."""
    opened = await open_postgres(proxy.url)
    await opened.write(records("a"))
    await proxy.set_mode(mode)
    storage = storage_creator(postgres_schema)(proxy.url, lock_timeout=TIMEOUT)
    start = time.monotonic()
    with pytest.raises(StorageError, match="can't be reached"):
        await storage.open()
    await storage.aclose()
    assert time.monotonic() - start < TIMEOUT + SLACK

    waiting = asyncio.gather(*(opened.write(records("b")) for _ in range(100)), return_exceptions=True)
    await asyncio.sleep(0.1)
    start = time.monotonic()
    await opened.aclose(0.3)
    # The limit of the storage itself is 60 seconds.
    assert time.monotonic() - start < 40.0
    assert {type(each) for each in await waiting} == {StorageError}
    await until(lambda: running() == [])
    await proxy.set_mode("open")
    await until_succeeds(storage.open, StorageError)
    await until_it_works(storage)
    await storage.aclose()


@asynccontextmanager
async def locked(tables: Tables, statement: str) -> AsyncIterator[None]:
    """Hold the locks of a statement in another transaction."""
    with psycopg.connect(tables.url) as other:
        other.execute(statement.replace("{s}", tables.schema).encode())
        yield


async def test_a_locked_table(open_postgres: OpenPostgres, tables: Tables) -> None:
    """A table that an administrator has locked delays calls no longer, and they leave no statements on the server."""
    storage = await open_postgres(lock_timeout=TIMEOUT)
    await until_it_works(storage)
    async with locked(tables, "LOCK TABLE {s}.record, {s}.state, {s}.queue IN ACCESS EXCLUSIVE MODE"):
        for _ in range(2):
            calls = (storage.write(records("b")), storage.load_state("k"))
            results = await asyncio.gather(*calls, return_exceptions=True)
            assert [type(each) for each in results] == [StorageError, StorageError]
        await until(lambda: not running("returning"))
        active = "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND wait_event_type = 'Lock'"
        # The storage looks after its own row meanwhile.
        await until(lambda: tables.fetch(active)[0][0] <= 1)
    await until_it_works(storage)
    tables.check_counters()


async def test_a_locked_state(open_postgres: OpenPostgres, tables: Tables) -> None:
    """A write about a state that another transaction has locked waits; the writes of others do not."""
    storage = await open_postgres()
    await storage.write([], [StateChange("k", b"1", 0), StateChange("l", b"1", 0)])
    async with locked(tables, "SELECT FROM {s}.state WHERE key = 'k' FOR UPDATE"):
        waiting = asyncio.create_task(storage.write(records("in time"), [StateChange("k", b"2", 1)]))
        await asyncio.gather(*(storage.write(records("b")) for _ in range(50)))
        await storage.write(records("c"), [StateChange("l", b"2", 1)])
        assert not waiting.done()
    await waiting

    assert "in time" in tables.bodies()
    tables.check_counters()


async def test_a_state_that_is_locked_for_too_long(open_postgres: OpenPostgres, tables: Tables) -> None:
    """A write about it raises an error that says so, and is not made later."""
    storage = await open_postgres(lock_timeout=TIMEOUT)
    await until_succeeds(lambda: storage.write([], [StateChange("k", b"1", 0)]), StorageError)
    async with locked(tables, "SELECT FROM {s}.state WHERE key = 'k' FOR UPDATE"):
        await reason(
            lambda: storage.write(records("late"), [StateChange("k", b"2", 1)]), "locked by another transaction"
        )
    await until_it_works(storage)

    assert "late" not in tables.bodies()
    tables.check_counters()


async def test_a_database_that_gets_silent_while_a_state_is_locked(
    open_postgres: OpenPostgres, proxy: DatabaseProxy, tables: Tables
) -> None:
    """The error of a write that has waited for the state names the lock; that of another one does not."""
    storage = await open_postgres(proxy.url)
    await storage.write([], [StateChange("k", b"1", 0)])
    async with locked(tables, "SELECT FROM {s}.state WHERE key = 'k' FOR UPDATE"):
        waiting = asyncio.create_task(storage.write(records("late"), [StateChange("k", b"2", 1)]))
        await asyncio.sleep(0)
        # It was tried with this one, or earlier.
        await storage.write(records("a"))
        await proxy.set_mode("silent")
        other = asyncio.create_task(storage.write(records("b")))
        await asyncio.sleep(0)
        await storage.aclose(0.5)
        results = await asyncio.gather(waiting, other, return_exceptions=True)

    assert [type(each) for each in results] == [StorageError, StorageError]
    assert ["locked by another transaction" in str(each) for each in results] == [True, False]


async def test_writes_that_are_put_off_keep_their_order(open_postgres: OpenPostgres, tables: Tables) -> None:
    """Writes about one state, which is locked for a while, are made in the order of the calls."""
    storage = await open_postgres()
    await storage.write([], [StateChange("k", b"", 0)])
    async with locked(tables, "SELECT FROM {s}.state WHERE key = 'k' FOR UPDATE"):
        calls = []
        for number in range(100):
            calls.append(asyncio.create_task(storage.write([], [StateChange("k", b"%d" % number, number + 1)])))
            await asyncio.sleep(0.002)
        assert not any(call.done() for call in calls)
    await asyncio.gather(*calls)

    state = await storage.load_state("k")
    assert state is not None
    assert (state.value, state.version) == (b"99", 101)


async def test_a_server_that_is_stopped(own_postgres: StartPostgres, postgres_schema: str) -> None:
    """Writes wait for a server that restarts, and leases go on."""
    server = own_postgres()
    storage = storage_creator(postgres_schema)(server.url)
    await storage.open()
    await storage.write(records("a"))
    await asyncio.to_thread(server.stop, "fast")
    writes = asyncio.gather(*(storage.write(records(f"b{number}")) for number in range(100)))
    await asyncio.sleep(0.2)
    await asyncio.to_thread(server.start)

    await writes
    assert len(await lease(storage, 1_000)) == 101
    Tables(server.url, postgres_schema).check_counters()
    await storage.aclose()


async def test_a_server_that_accepts_no_more_connections(own_postgres: StartPostgres, postgres_schema: str) -> None:
    """It is refused with the server's reason, and works once there is a connection again."""
    server = own_postgres()
    url = server.create_role("shop", "secret")
    with psycopg.connect(server.url, autocommit=True) as administrator:
        administrator.execute("ALTER ROLE shop CONNECTION LIMIT 1")
        administrator.execute("GRANT CREATE ON DATABASE postgres TO shop")
    create = storage_creator(postgres_schema)
    first = create(url, postgres={"max_connections": 1, "listen_url": server.url})
    await first.open()
    second = create(url, lock_timeout=TIMEOUT)
    await reason(second.open, "refused: too many connections")
    await first.write(records("a"))
    await first.aclose()
    await until_succeeds(second.open, StorageError)
    await until_it_works(second)
    await second.aclose()


async def test_a_database_that_only_reads(open_postgres: OpenPostgres, tables: Tables) -> None:
    """Writes are refused with the server's reason, as those on a standby are, and what reads goes on."""
    storage, reading = await open_postgres(lock_timeout=TIMEOUT), await open_postgres()
    await reading.write(records("a"))
    database, role = tables.fetch("SELECT current_database(), current_user")[0]
    setting = f"ALTER ROLE {role} IN DATABASE {database} "
    tables.run(f"{setting} SET default_transaction_read_only = on")
    try:
        tables.run("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()")
        for _ in range(5):
            await reading.waiting(9)
        await reason(lambda: storage.write(records("b")), "read-only")
        assert len(await reading.waiting(9)) == 1
    finally:
        with psycopg.connect(tables.url, autocommit=True) as connection:
            connection.execute("SET default_transaction_read_only = off")
            connection.execute(f"{setting} RESET default_transaction_read_only".encode())
    tables.run("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()")
    await until_it_works(storage)


async def test_a_connection_that_died_without_a_sign(open_postgres: OpenPostgres, proxy: DatabaseProxy) -> None:
    """A call whose connection gets no answer is made on another one, within its time."""
    # Half of it is what the first attempt may take.
    storage = await open_postgres(proxy.url, lock_timeout=10.0)
    await storage.write(records("a"))
    proxy.silence_connections()

    await storage.write(records("b"))
    assert (await storage.pending()).waiting == 2


async def test_calls_that_are_canceled(open_postgres: OpenPostgres, proxy: DatabaseProxy, tables: Tables) -> None:
    """Canceled callers leave no connection behind, and no statement that runs on."""
    storage = await open_postgres(proxy.url)
    await storage.write(records("a"))
    await proxy.set_mode("silent")
    calls = [asyncio.create_task(storage.load_state("k")) for _ in range(500)]
    await asyncio.sleep(0.05)
    for call in calls:
        call.cancel()
    await asyncio.wait(calls)
    assert all(call.cancelled() for call in calls)
    await proxy.set_mode("open")
    await until_it_works(storage)
    tables.check_counters()
