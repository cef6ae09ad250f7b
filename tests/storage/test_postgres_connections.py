"""
The connections of a client to PostgreSQL.
"""

import asyncio
import logging

import pytest
from helpers.database_proxy import DatabaseProxy
from helpers.environment import SetConstants
from helpers.postgres_storage import OpenPostgres
from helpers.waiting import until, until_succeeds

from exponea_async.config import PostgresSettings
from exponea_async.errors import StorageError
from exponea_async.storage.postgres import listening
from exponea_async.storage.postgres.connection import Connections


async def test_a_connection_outlives_a_call_that_waited_too_long(
    postgres_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A connection whose statement was cancelled is given back, and used again."""
    settings = PostgresSettings(max_connections=1)
    connections = Connections(postgres_url, settings, durability="process", timeout=2.0)
    await until_succeeds(connections.open, StorageError)
    for _ in range(2):
        with pytest.raises(StorageError):
            await connections.fetch("SELECT pg_sleep(600)")
        rows = await until_succeeds(lambda: connections.fetch("SELECT 7"), StorageError)
        assert [tuple(row) for row in rows] == [(7,)]
    await connections.aclose()

    assert asyncio.all_tasks() == {asyncio.current_task()}
    assert [each for each in caplog.records if each.levelno >= logging.ERROR] == []


async def test_a_server_that_falls_silent_while_a_connection_is_made(
    open_postgres: OpenPostgres, proxy: DatabaseProxy
) -> None:
    """Connections that never answer their first statement do not use up those that a client may have."""
    storage = await open_postgres(proxy.url, lock_timeout=1.0, postgres={"max_connections": 2})
    faults = [proxy.fail(b"SET enable_seqscan", "silent") for _ in range(2)]
    proxy.lose_connections()
    async with asyncio.timeout(60):
        while not all(fault.is_over for fault in faults):
            await asyncio.gather(*(storage.load_state("k") for _ in range(6)), return_exceptions=True)

    await until_succeeds(lambda: storage.load_state("k"), StorageError)


async def test_a_server_that_falls_silent_before_it_notifies(
    open_postgres: OpenPostgres, proxy: DatabaseProxy, set_constants: SetConstants
) -> None:
    """A connection on which the server does not confirm that it will send notifications is replaced."""
    set_constants(listening, ANSWER_TIMEOUT=0.5)
    fault = proxy.fail(b"LISTEN", "silent")
    storage = await open_postgres(proxy.url)
    written = asyncio.Event()
    storage.subscribe(written.set)
    await until(lambda: fault.is_over)
    # Once it listens, it looks at the queue.
    await asyncio.wait_for(written.wait(), 60.0)
