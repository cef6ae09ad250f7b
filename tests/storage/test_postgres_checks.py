"""
Writes that only check states and raise their activity, which PostgreSQL commits in one statement.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial

import asyncpg
import pytest

from exponea_async.config import PostgresSettings
from exponea_async.errors import StateConflictError
from exponea_async.storage.base import Record, StateChange, StateCheck, Storage
from exponea_async.storage.postgres.storage import PostgresStorage
from exponea_async.testing.storage_contract import MakeStorage, storage_factory

RECORD = Record("orders", b"{}", 1.0)


@pytest.fixture(params=["own connections", "a pool of the application"])
async def make_storage(
    postgres_url: str, postgres_schema: str, request: pytest.FixtureRequest
) -> AsyncIterator[MakeStorage]:
    settings = PostgresSettings(schema=postgres_schema)
    async with asyncpg.create_pool(postgres_url, min_size=1, max_size=4) as pool:
        source = postgres_url if request.param == "own connections" else pool
        async with storage_factory(
            partial(PostgresStorage, source, "shop", settings=settings, lock_timeout=60.0)
        ) as make:
            yield make


async def version_of(storage: Storage, key: str) -> int:
    """Create a state, and return its version."""
    await storage.write([], [StateChange(key, b"value", 0, active=10.0)])
    state = await storage.load_state(key)
    assert state is not None
    return state.version


async def active_of(storage: Storage, key: str) -> float | None:
    state = await storage.load_state(key)
    assert state is not None
    return state.active


async def together(*writes: Callable[[], Awaitable[object]]) -> list[object]:
    """Make writes that share a commit, and return their results and errors."""
    return await asyncio.gather(*(write() for write in writes), return_exceptions=True)


async def test_the_latest_activity(make_storage: MakeStorage) -> None:
    """The activity of a state is raised to the latest of all that share the commit, and is never lowered."""
    storage = await make_storage()
    first, second = await version_of(storage, "first"), await version_of(storage, "second")
    await together(
        lambda: storage.write([RECORD], [StateCheck("first", first, 30.0), StateCheck("second", second)]),
        lambda: storage.write([RECORD], [StateCheck("first", first, 20.0), StateCheck("second", second, 5.0)]),
    )
    assert [await active_of(storage, "first"), await active_of(storage, "second")] == [30.0, 10.0]
    assert (await storage.pending()).waiting == 2


async def test_only_those_that_have_changed(make_storage: MakeStorage) -> None:
    """Of the writes that share a commit, only those are refused whose state has another version."""
    storage = await make_storage()
    version = await version_of(storage, "first")
    results = await together(
        lambda: storage.write([RECORD], [StateCheck("first", version, 30.0)]),
        lambda: storage.write([RECORD], [StateCheck("first", version + 1, 40.0)]),
        lambda: storage.write([RECORD], [StateCheck("unknown", 7, 40.0)]),
        lambda: storage.write([RECORD]),
    )
    assert [isinstance(result, StateConflictError) for result in results] == [False, True, True, False]
    assert await active_of(storage, "first") == 30.0
    assert (await storage.pending()).waiting == 2


async def test_a_changed_state(make_storage: MakeStorage) -> None:
    """A write is refused if another client has changed the state, also if all writes of the commit agree."""
    storage, other = await make_storage(), await make_storage()
    version = await version_of(storage, "first")
    await other.write([], [StateChange("first", b"other", version, active=50.0)])
    with pytest.raises(StateConflictError):
        await storage.write([RECORD], [StateCheck("first", version, 60.0)])
    assert await active_of(storage, "first") == 50.0
    assert (await storage.pending()).waiting == 0


async def test_a_locked_state(make_storage: MakeStorage, postgres_url: str, postgres_schema: str) -> None:
    """A write waits for a transaction that has locked the state, and the writes about other states do not."""
    storage = await make_storage()
    first, second = await version_of(storage, "first"), await version_of(storage, "second")
    connection = await asyncpg.connect(postgres_url)
    transaction = connection.transaction()
    await transaction.start()
    await connection.execute(f"UPDATE {postgres_schema}.state SET active = 20 WHERE key = 'first'")
    blocked = asyncio.ensure_future(storage.write([RECORD], [StateCheck("first", first, 30.0)]))
    await storage.write([RECORD], [StateCheck("second", second, 30.0)])
    assert not blocked.done()
    await transaction.commit()
    await blocked
    assert await active_of(storage, "first") == 30.0
    await connection.close()
