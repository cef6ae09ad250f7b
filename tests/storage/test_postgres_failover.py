"""
Servers that are killed, and standbys that take over.
"""

import asyncio
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psycopg
import pytest
from helpers.database_proxy import DatabaseProxy
from helpers.postgres_server import PostgresServer, StartPostgres
from helpers.postgres_storage import Tables, storage_creator
from helpers.server_process import PATIENCE, account, free_port, port_of
from helpers.storages import records
from helpers.waiting import until, until_succeeds

from exponea_async.errors import StorageError
from exponea_async.storage.base import StateChange
from exponea_async.storage.postgres.storage import PostgresStorage

REPLICATING = "SELECT count(*) FROM pg_stat_replication WHERE state = 'streaming' AND sync_state = ANY (%s)"


class Writers:
    """Callers that write one record after the other, with states, until they are stopped."""

    def __init__(self, storage: PostgresStorage) -> None:
        self._storage = storage
        self._is_stopped = False
        self._tasks: list[asyncio.Task[None]] = []
        self.acknowledged: set[str] = set()
        self.failed: set[str] = set()

    def start(self, prefix: str) -> None:
        """Start them."""
        self._is_stopped = False
        self._tasks = [asyncio.create_task(self._write(f"{prefix}-{number}")) for number in range(10)]

    async def stop(self) -> None:
        """Let each of them end its last call."""
        self._is_stopped = True
        await asyncio.gather(*self._tasks)

    async def _write(self, prefix: str) -> None:
        number = 0
        while not self._is_stopped:
            number += 1
            name = f"{prefix}-{number}"
            states = [StateChange(name, b"", 0)] if number % 5 == 0 else []
            try:
                await self._storage.write(records(name), states)
            except StorageError:
                self.failed.add(name)
            else:
                self.acknowledged.add(name)

    async def more(self, count: int = 50) -> None:
        """Wait until more was acknowledged."""
        goal, end = len(self.acknowledged) + count, time.monotonic() + PATIENCE
        while len(self.acknowledged) < goal:
            assert time.monotonic() < end
            await asyncio.sleep(0.01)

    def check(self, tables: Tables, *, may_lose: bool = False) -> None:
        """Compare what was acknowledged with what is stored."""
        stored = tables.bodies()
        assert len(stored) == len(set(stored))
        assert set(stored) <= self.acknowledged | self.failed
        assert may_lose or self.acknowledged <= set(stored)
        tables.check_counters()


@pytest.mark.parametrize("durability", ["power", "process"])
async def test_a_server_that_is_killed(own_postgres: StartPostgres, postgres_schema: str, durability: str) -> None:
    """
    Nothing that was acknowledged is lost with the durability "power".

    With "process", the commits of the last moments may be, but whole ones, and nothing is written twice.
    """
    server = own_postgres()
    storage = storage_creator(postgres_schema)(server.url, durability=durability)
    await storage.open()
    writers = Writers(storage)
    writers.start("first")
    for _ in range(2):
        await writers.more()
        await asyncio.to_thread(server.kill)
        await asyncio.to_thread(server.start)
    await writers.more()
    await writers.stop()

    writers.check(Tables(server.url, postgres_schema), may_lose=durability == "process")
    await storage.aclose()


@pytest.fixture
def pair(own_postgres: StartPostgres) -> Iterator[tuple[PostgresServer, PostgresServer]]:
    """A server and a standby that replicates it."""
    primary = own_postgres()
    assert primary.programs
    with (primary.folder / "data" / "pg_hba.conf").open("a") as file:
        file.write("host replication postgres 127.0.0.1/32 trust\n")
    with psycopg.connect(primary.url, autocommit=True) as connection:
        connection.execute("SELECT pg_reload_conf()")
    standby = _standby(primary, primary.programs)
    yield primary, standby
    with suppress(ProcessLookupError):
        standby.stop("immediate")


def _standby(primary: PostgresServer, programs: Path) -> PostgresServer:
    folder, port = primary.folder / "standby", free_port()
    account().run("mkdir", folder)
    old_port = port_of(primary.url)
    done = account().run(
        programs / "pg_basebackup", "-D", folder / "data", "-R", "-h", "127.0.0.1", "-p", old_port, "-U", "postgres"
    )
    assert done.returncode == 0, done.stderr
    with (folder / "data" / "postgresql.auto.conf").open("a") as file:
        file.write(f"port = {port}\nunix_socket_directories = '{folder}'\n")
    standby = PostgresServer(primary.url.replace(f":{old_port}/", f":{port}/"), programs, folder)
    assert standby.starts()
    return standby


def replicating(primary: PostgresServer, *kinds: str) -> bool:
    """Return whether a standby of one of these kinds is connected."""
    with psycopg.connect(primary.url) as connection:
        row = connection.execute(REPLICATING, [list(kinds)]).fetchone()
        return row == (1,)


async def until_replicating(primary: PostgresServer, *kinds: str) -> None:
    """Wait until a standby of one of these kinds is connected."""
    end = time.monotonic() + PATIENCE
    while not await asyncio.to_thread(replicating, primary, *kinds):
        assert time.monotonic() < end
        await asyncio.sleep(0.05)


async def until_stored(tables: Tables, body: str) -> None:
    """Wait until a record is stored."""
    await until(lambda: body in tables.bodies())


def promote(standby: PostgresServer) -> None:
    """Let a standby take over."""
    with psycopg.connect(standby.url, autocommit=True) as connection:
        connection.execute("SELECT pg_promote()")


async def test_a_synchronous_standby_takes_over(
    pair: tuple[PostgresServer, PostgresServer], postgres_schema: str
) -> None:
    """Nothing that was acknowledged is lost, though the calls went on all the time."""
    primary, standby = pair
    with psycopg.connect(primary.url, autocommit=True) as connection:
        connection.execute("ALTER SYSTEM SET synchronous_standby_names = '*'")
        connection.execute("SELECT pg_reload_conf()")
    await until_replicating(primary, "sync")
    async with DatabaseProxy(primary.url) as proxy:
        storage = storage_creator(postgres_schema)(proxy.url, durability="power")
        await storage.open()
        writers = Writers(storage)
        writers.start("first")
        await writers.more()
        await proxy.set_mode("refusing")
        await asyncio.to_thread(primary.kill)
        await asyncio.to_thread(promote, standby)
        proxy.target = port_of(standby.url)
        await proxy.set_mode("open")
        await writers.more()
        await writers.stop()

        writers.check(Tables(standby.url, postgres_schema))
        await storage.aclose()


async def test_an_asynchronous_standby_takes_over(
    pair: tuple[PostgresServer, PostgresServer], postgres_schema: str
) -> None:
    """What it has not got is lost; everything later is stored once, with other ids, and in a route that exists."""
    primary, standby = pair
    await until_replicating(primary, "async")
    async with DatabaseProxy(primary.url) as proxy:
        create = storage_creator(postgres_schema)
        storages = [create(proxy.url) for _ in range(2)]
        await storages[0].open()
        await storages[0].write(records("kept"))
        await until_succeeds(lambda: until_stored(Tables(standby.url, postgres_schema), "kept"), psycopg.Error)
        await asyncio.to_thread(standby.stop, "fast")
        # Neither the second client nor the second route ever gets to the standby.
        await storages[1].open()
        for storage in storages:
            await storage.write(records("lost"))
            await storage.write(records("lost, too", route="other"))
        await asyncio.to_thread(primary.kill)
        await asyncio.to_thread(standby.start)
        await asyncio.to_thread(promote, standby)
        proxy.target = port_of(standby.url)
        proxy.lose_connections()
        both = [Writers(storage) for storage in storages]
        for number, writers in enumerate(both):
            writers.start(f"later-{number}")
        for writers in both:
            await writers.more()
            await writers.stop()
        for storage in storages:
            await storage.write(records("later", route="other"))

        tables = Tables(standby.url, postgres_schema)
        stored = tables.bodies()
        for writers in both:
            assert writers.failed == set()
            assert writers.acknowledged <= set(stored)
        assert stored.count("later") == 2
        tables.check_counters()
        await asyncio.gather(*(storage.aclose() for storage in storages))
