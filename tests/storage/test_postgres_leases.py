"""
Leases in PostgreSQL begin where the last one has ended, and find records with lower ids all the same.
"""

import time
from collections.abc import AsyncIterator
from functools import partial

import asyncpg
import pytest
from helpers.environment import SetConstants

from exponea_async.config import PostgresSettings
from exponea_async.storage.base import Record, Settlement, Storage
from exponea_async.storage.postgres import leases
from exponea_async.storage.postgres.storage import PostgresStorage
from exponea_async.testing.storage_contract import MakeStorage, storage_factory

LIMIT = 10


@pytest.fixture
async def make_storage(postgres_url: str, postgres_schema: str) -> AsyncIterator[MakeStorage]:
    settings = PostgresSettings(schema=postgres_schema)
    async with storage_factory(
        partial(PostgresStorage, postgres_url, "shop", settings=settings, lock_timeout=60.0)
    ) as make:
        yield make


async def write(storage: Storage, count: int, body: bytes = b"") -> None:
    await storage.write([Record("orders", body, 1.0)] * count)


async def lease(storage: Storage) -> list[bytes]:
    return [record.body for record in await storage.lease(LIMIT, 60.0, time.time())]


async def test_lower_ids_when_few_are_left(make_storage: MakeStorage, set_constants: SetConstants) -> None:
    """A record that got a lower id, but was written later, is found by the lease that finds no full number."""
    set_constants(leases, START_VALID=3600.0)
    slow, fast = await make_storage(), await make_storage()
    await write(slow, 1, b"first")
    await write(fast, 2 * LIMIT)
    assert (await lease(fast))[0] == b"first"
    await write(slow, 1, b"late")
    assert await lease(fast) == [b""] * LIMIT
    assert sorted(await lease(fast)) == [b"", b"late"]


async def test_lower_ids_while_there_are_many(make_storage: MakeStorage, set_constants: SetConstants) -> None:
    """After a while, a record with a lower id is found although all leases find a full number."""
    slow, fast = await make_storage(), await make_storage()
    await write(slow, 1, b"first")
    await write(fast, 10 * LIMIT)
    set_constants(leases, START_VALID=-1.0)
    await lease(fast)
    await write(slow, 1, b"late")
    assert (await lease(fast))[0] == b"late"


async def test_records_that_are_given_back(make_storage: MakeStorage) -> None:
    """Records that are given back are leased before those that are untouched, although their ids are lower."""
    storage = await make_storage()
    await write(storage, LIMIT, b"first")
    await write(storage, 5 * LIMIT)
    records = await storage.lease(LIMIT, 60.0, time.time())
    await lease(storage)
    await storage.settle([Settlement(tuple(record.id for record in records), "later", due=time.time())])
    assert await lease(storage) == [b"first"] * LIMIT


async def test_a_lease_that_ends(make_storage: MakeStorage) -> None:
    """Records whose lease has ended are leased again, although other leases have gone on behind them."""
    storage = await make_storage()
    await write(storage, LIMIT, b"first")
    await write(storage, 5 * LIMIT)
    await storage.lease(LIMIT, 0.0, time.time())
    assert await lease(storage) == [b"first"] * LIMIT


async def test_look_ups_by_id(make_storage: MakeStorage, postgres_url: str, postgres_schema: str) -> None:
    """Only primary keys have the column id, so no look-up by id reads another index from its beginning to its end."""
    await make_storage()
    connection = await asyncpg.connect(postgres_url)
    names = await connection.fetch(
        "SELECT DISTINCT i.indexrelid::regclass::text FROM pg_index AS i JOIN pg_class AS c ON c.oid = i.indrelid"
        " JOIN pg_attribute AS a ON a.attrelid = c.oid AND a.attnum = ANY (i.indkey::int2[])"
        " WHERE c.relnamespace = $1::regnamespace AND a.attname = 'id' AND NOT i.indisprimary",
        postgres_schema,
    )
    await connection.close()
    assert names == []
