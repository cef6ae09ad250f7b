"""
The connections of a client to PostgreSQL.
"""

import asyncio
import gc
import logging

import pytest
from helpers.postgres_storage import storage_creator
from helpers.waiting import until_succeeds

from exponea_async.config import PostgresSettings
from exponea_async.errors import StorageError
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


@pytest.mark.parametrize("steps", range(1, 30))
def test_the_event_loop_ends_during_the_close(
    postgres_url: str, postgres_schema: str, recwarn: pytest.WarningsRecorder, steps: int
) -> None:
    """The end of the event loop, which cancels the closing of a storage at any step, leaves no connection open."""

    async def begin_to_close() -> "asyncio.Task[None]":
        storage = storage_creator(postgres_schema)(postgres_url)
        await storage.open()
        await asyncio.gather(*(storage.load_state(str(number)) for number in range(3)))
        closing = asyncio.create_task(storage.aclose(2.0))
        for _ in range(steps):
            await asyncio.sleep(0)
        return closing

    assert asyncio.run(begin_to_close()).done()
    gc.collect()

    assert [each for each in recwarn.list if each.category is ResourceWarning] == []
