"""
Any sequence of calls, compared with a model, for every backend.
"""

import secrets
import tempfile
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest
from helpers.postgres_server import PostgresServer
from helpers.postgres_storage import Tables, storage_creator
from hypothesis import settings
from hypothesis.stateful import invariant, rule

from exponea_async.storage.base import Storage
from exponea_async.storage.memory import MemoryStorage
from exponea_async.storage.sqlite.storage import SQLiteStorage
from exponea_async.testing.storage_contract.model import DurableStorageMachine, StorageMachine


class MemoryMachine(StorageMachine):
    """The storage in memory."""

    def create(self) -> Storage:
        return MemoryStorage()


class SQLiteMachine(DurableStorageMachine):
    """The storage in a file."""

    def __init__(self) -> None:
        self.folder = tempfile.TemporaryDirectory()
        super().__init__()

    def create(self) -> Storage:
        return SQLiteStorage(Path(self.folder.name) / "queue.sqlite")

    def teardown(self) -> None:
        super().teardown()
        self.folder.cleanup()


class PostgresMachine(DurableStorageMachine):
    """The storage in PostgreSQL: each sequence has a queue of its own in the same schema."""

    tables: Tables
    queues = count()

    def __init__(self) -> None:
        self.queue = f"queue {next(self.queues)}"
        super().__init__()

    def create(self) -> Storage:
        return storage_creator(self.tables.schema)(self.tables.url, self.queue)

    @rule()
    def another_process(self) -> None:
        """Another client changes nothing by opening the queue, and takes over the counters of those that are gone."""
        other = self.create()
        self.run_(other.open())
        self.run_(other.aclose())

    @invariant()
    def counters_are_exact(self) -> None:
        """The sums of the counters are those of the tables."""
        self.tables.check_counters(self.queue)


@pytest.fixture(autouse=True, scope="module")
def _postgres_tables(postgres_server: PostgresServer) -> Iterator[None]:
    schema = f"model_{secrets.token_hex(8)}"
    PostgresMachine.tables = Tables(postgres_server.url, schema)
    yield
    PostgresMachine.tables.run("DROP SCHEMA IF EXISTS {s} CASCADE")


EFFORT = settings(max_examples=25, stateful_step_count=30)

TestMemoryModel = MemoryMachine.TestCase
TestMemoryModel.settings = EFFORT
TestSQLiteModel = SQLiteMachine.TestCase
TestSQLiteModel.settings = EFFORT
TestPostgresModel = PostgresMachine.TestCase
TestPostgresModel.settings = settings(EFFORT, max_examples=10)
