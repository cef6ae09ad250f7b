"""
The connections of a client to PostgreSQL.
"""

import asyncio
import logging

import pytest
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
