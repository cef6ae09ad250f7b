"""
Connections that are not the storage's own: those of PgBouncer, and those of the application's pool.
"""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import suppress
from functools import partial
from typing import Any

import asyncpg
import pytest
from helpers.postgres_storage import OpenPostgres, Tables, storage_creator
from helpers.storages import lease, records
from helpers.waiting import until_succeeds

from exponea_async.errors import StorageError
from exponea_async.storage.base import StateChange
from exponea_async.testing.storage_contract import MakeStorage, StorageContract, storage_factory


class TestPgBouncer(StorageContract):
    """The storage through PgBouncer, which gives each transaction another connection."""

    @pytest.fixture
    async def make_storage(self, pgbouncer_url: str, postgres_schema: str) -> AsyncIterator[MakeStorage]:
        create = partial(storage_creator(postgres_schema), pgbouncer_url)
        async with storage_factory(
            lambda **settings: create(postgres={"transaction_pooling": True}, **settings)
        ) as make:
            yield make


class Row(asyncpg.Record):  # type: ignore[misc] # asyncpg has no types
    """A class of rows as applications have it."""


async def prepare(connection: Any) -> None:
    """Set up a connection as applications do."""
    await connection.set_type_codec("jsonb", encoder=json.dumps, decoder=json.loads, schema="pg_catalog")
    await connection.execute("SET default_transaction_isolation = 'repeatable read'")


class TestApplicationPool(StorageContract):
    """The storage with a pool of the application, which has a single connection and settings of its own."""

    @pytest.fixture
    async def make_storage(self, postgres_url: str, postgres_schema: str) -> AsyncIterator[MakeStorage]:
        pool = asyncpg.create_pool(
            postgres_url,
            min_size=1,
            max_size=1,
            init=prepare,
            command_timeout=30.0,
            statement_cache_size=0,
            record_class=Row,
        )
        async with pool, storage_factory(partial(storage_creator(postgres_schema), pool)) as make:
            yield make


async def test_the_pool_of_the_application_stays_open(postgres_url: str, postgres_schema: str, tables: Tables) -> None:
    """The application goes on with its pool, all connections of which are free, and as they were."""
    async with asyncpg.create_pool(postgres_url, min_size=2, max_size=2) as pool:
        storage = storage_creator(postgres_schema)(pool)
        await storage.open()
        writes = [storage.write(records("a"), [StateChange(f"k{number}", b"", 0)]) for number in range(50)]
        await asyncio.gather(*writes, *(storage.load_state("k1") for _ in range(50)))
        cancelled = [asyncio.create_task(storage.load_state("k1")) for _ in range(50)]
        await asyncio.sleep(0)
        for each in cancelled:
            each.cancel()
        await asyncio.wait(cancelled)
        await storage.aclose()

        async with pool.acquire() as first, pool.acquire() as second:
            assert await first.fetchval("SHOW enable_seqscan") == "on"
            assert await second.fetchval("SHOW synchronous_commit") == "on"
            assert not first.is_in_transaction()
    tables.check_counters()


async def test_a_pool_whose_connections_are_all_taken(postgres_url: str, postgres_schema: str) -> None:
    """The storage waits for the application to give one back, but not longer than for the database."""
    async with asyncpg.create_pool(postgres_url, min_size=1, max_size=1) as pool:
        storage = storage_creator(postgres_schema)(pool, lock_timeout=0.5)
        await until_succeeds(storage.open, StorageError)
        async with pool.acquire():
            results = await asyncio.gather(
                *(storage.write(records("a")) for _ in range(100)),
                *(storage.load_state("k") for _ in range(100)),
                return_exceptions=True,
            )
            assert {type(each) for each in results} == {StorageError}
        await until_succeeds(lambda: storage.write(records("b")), StorageError)
        leased = await until_succeeds(lambda: lease(storage), StorageError)
        assert {each.body for each in leased} == {b"b"}
        await storage.aclose()


async def test_a_connection_that_comes_too_late(postgres_url: str, postgres_schema: str) -> None:
    """The pool gets a connection back that arrives although the wait for it was cancelled."""

    async def set_up(_: object) -> None:
        # As `asyncio.wait_for` does where the cancellation comes at the same time as the result.
        with suppress(asyncio.CancelledError):
            await asyncio.Event().wait()

    async with asyncpg.create_pool(postgres_url, min_size=0, max_size=4, setup=set_up) as pool:
        storage = storage_creator(postgres_schema)(pool, lock_timeout=0.5)
        with pytest.raises(StorageError):
            await storage.open()
        await asyncio.wait_for(pool.close(), 60)


async def test_a_pool_that_can_not_be_used(postgres_url: str, postgres_schema: str) -> None:
    """A pool that was closed, or is not open yet, is refused with a clear error."""
    create = storage_creator(postgres_schema)
    pool = asyncpg.create_pool(postgres_url, min_size=1, max_size=1)
    with pytest.raises(StorageError, match="pool is not initialized"):
        await create(pool, lock_timeout=0.2).open()
    await pool
    await pool.close()
    with pytest.raises(StorageError, match="pool is clos"):
        await create(pool, lock_timeout=0.2).open()


async def test_notifications_beside_pgbouncer(
    open_postgres: OpenPostgres, pgbouncer_url: str, postgres_url: str
) -> None:
    """With a direct URL for it, a client whose connections are PgBouncer's is notified of the records of others."""
    written = asyncio.Event()
    listening = await open_postgres(pgbouncer_url, postgres={"transaction_pooling": True, "listen_url": postgres_url})
    listening.subscribe(written.set)
    writing = await open_postgres(pgbouncer_url, postgres={"transaction_pooling": True})
    await asyncio.wait_for(written.wait(), 60.0)
    written.clear()
    await writing.write(records("a"))
    await asyncio.wait_for(written.wait(), 60.0)
