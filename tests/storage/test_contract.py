"""
The behavior that all backends share.
"""

from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path

import pytest
from helpers.postgres_storage import storage_creator

from exponea_async.storage.memory import MemoryStorage
from exponea_async.storage.sqlite.storage import SQLiteStorage
from exponea_async.testing.storage_contract import MakeStorage, StorageContract, storage_factory


class TestSQLite(StorageContract):
    """The storage in a file."""

    @pytest.fixture
    async def make_storage(self, tmp_path: Path) -> AsyncIterator[MakeStorage]:
        async with storage_factory(partial(SQLiteStorage, tmp_path / "queue.sqlite")) as make:
            yield make


class TestMemory(StorageContract):
    """The storage in memory."""

    @pytest.fixture
    async def make_storage(self) -> AsyncIterator[MakeStorage]:
        async with storage_factory(MemoryStorage) as make:
            yield make


class TestPostgres(StorageContract):
    """The storage in PostgreSQL."""

    @pytest.fixture
    async def make_storage(self, postgres_url: str, postgres_schema: str) -> AsyncIterator[MakeStorage]:
        async with storage_factory(partial(storage_creator(postgres_schema), postgres_url)) as make:
            yield make
