"""
Hostile data, large data, notifications and clocks.
"""

import asyncio
import time

import pytest
from helpers.postgres_storage import OpenPostgres, Tables, storage_creator
from helpers.storages import LEASE, bodies, delivered, lease, records
from helpers.waiting import LoopMonitor

from exponea_async.errors import ConfigurationError
from exponea_async.storage.base import Record, StateChange

HOSTILE = ("", "a\0b", "'; DROP TABLE record; --", '"', "\\", "{s}", "$1", "%s", "röute 🙂", "x" * 3_000)


@pytest.mark.parametrize("text", [*HOSTILE, "\udc80"])
async def test_names_of_routes(open_postgres: OpenPostgres, tables: Tables, text: str) -> None:
    """A route may have any name."""
    storage = await open_postgres()
    await storage.write([Record(text, b"a", 1.0)])
    (leased,) = await lease(storage, only=text)

    assert leased.route == text
    await storage.rename_route(text, f"{text} 2")
    assert (await storage.pending()).routes == {f"{text} 2": 1}
    tables.check_counters()


@pytest.mark.parametrize("text", HOSTILE)
async def test_keys_of_states(open_postgres: OpenPostgres, text: str) -> None:
    """A state may have any key."""
    storage = await open_postgres()
    await storage.write([], [StateChange(text, b"\0'\"", 0, 1.0)])
    state = await storage.load_state(text)

    assert state is not None
    assert state.value == b"\0'\""
    assert [key for key, _ in await storage.expired_sessions(2.0, 9)] == [text]


@pytest.mark.parametrize("text", [each for each in HOSTILE if each and "\0" not in each])
async def test_names_of_queues(open_postgres: OpenPostgres, text: str) -> None:
    """Queues with any names are kept apart."""
    storage, other = await open_postgres(queue=text[:500]), await open_postgres(queue="shop")
    await storage.write(records("a"))

    assert await lease(other) == []
    assert bodies(await lease(storage)) == ["a"]


@pytest.mark.parametrize("schema", ["a; DROP SCHEMA public", 'a"b', "a.b", "a b", "A", "", "1a", "x" * 64])
def test_names_of_schemas(schema: str) -> None:
    """A name that would have to be quoted is refused."""
    with pytest.raises(ConfigurationError, match="schema"):
        storage_creator(schema)("postgresql://localhost/shop")


async def test_the_longest_name_of_a_schema(postgres_url: str) -> None:
    """Notifications arrive, too, where the name of the schema is as long as PostgreSQL allows."""
    tables = Tables(postgres_url, "s" * 63)
    storages = [storage_creator(tables.schema)(postgres_url) for _ in range(2)]
    notified = asyncio.Event()
    storages[0].subscribe(notified.set)
    try:
        for storage in storages:
            await storage.open()
        # It is called when it listens, too.
        await asyncio.wait_for(notified.wait(), 60.0)
        notified.clear()
        await storages[1].write(records("a"))
        await asyncio.wait_for(notified.wait(), 60.0)
    finally:
        for storage in storages:
            await storage.aclose()
        tables.run("DROP SCHEMA IF EXISTS {s} CASCADE")


async def test_notifications_after_a_loss(open_postgres: OpenPostgres, tables: Tables) -> None:
    """A lost connection for notifications is opened again; those of other queues are not received."""
    event = asyncio.Event()
    storage = await open_postgres()
    storage.subscribe(event.set)
    same, other = await open_postgres(), await open_postgres(queue="other")
    # It is called when it listens, too.
    await asyncio.wait_for(event.wait(), 60.0)
    event.clear()
    tables.run("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'LISTEN%'")
    await asyncio.wait_for(event.wait(), 60.0)
    event.clear()
    await other.write(records("a"))
    await storage.write(records("a"))
    await asyncio.sleep(0.3)
    assert not event.is_set()
    await same.write(records("b"))
    await asyncio.wait_for(event.wait(), 60.0)


async def test_large_records(open_postgres: OpenPostgres, tables: Tables) -> None:
    """Many large records at the same time are written in several commits."""
    storage = await open_postgres(lock_timeout=60.0)
    body = b"x" * 800_000
    await asyncio.gather(*(storage.write([Record("shop", body, 1.0)]) for _ in range(30)))

    assert storage.commits >= 3
    assert sum(len(each.body) for each in await lease(storage, 30)) == 30 * len(body)
    tables.check_counters()


async def test_a_write_of_very_many_records(open_postgres: OpenPostgres, tables: Tables) -> None:
    """They are written in one commit, found, leased and settled."""
    storage = await open_postgres(lock_timeout=60.0)
    async with LoopMonitor() as monitor:
        written = await storage.write([Record("shop", b"%d" % number, 1.0) for number in range(20_000)])
        found = await storage.find(written.ids)
    assert monitor.gap < 1.0
    assert len(found) == 20_000
    leased = await storage.lease(20_000, LEASE, time.time())
    assert await storage.settle(delivered(*(each.id for each in leased))) == 20_000
    tables.check_counters()
