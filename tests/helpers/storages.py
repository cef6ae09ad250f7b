"""
Storages: fixtures that open them, and short names for records, settlements and calls.
"""

from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any, Literal, Protocol

import pytest

from exponea_async.errors import DamagedFileError
from exponea_async.storage.base import Storage
from exponea_async.storage.memory import MemoryStorage
from exponea_async.storage.sqlite.storage import SQLiteStorage
from exponea_async.testing.storage_contract.builders import (
    LEASE,
    NOW,
    MakeStorage,
    WhenFull,
    bodies,
    create_states,
    dead,
    delivered,
    expired_keys,
    ids,
    last_activity,
    later,
    lease,
    record,
    records,
    storage_factory,
    write_dead,
)

#: The names that tests of storages use, with those that the contract has.
__all__ = [
    "LEASE",
    "NOW",
    "MakeStorage",
    "OpenFile",
    "WhenFull",
    "bodies",
    "content",
    "create_states",
    "dead",
    "delivered",
    "expired_keys",
    "files",
    "ids",
    "last_activity",
    "later",
    "lease",
    "moved_aside",
    "names_in",
    "record",
    "records",
    "write_dead",
]


# Fixtures for every backend


@pytest.fixture(params=["sqlite", "memory"])
def backend(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[..., Storage]:
    def make(**settings: Any) -> Storage:
        if request.param == "memory":
            return MemoryStorage(**settings)
        return SQLiteStorage(tmp_path / "queue.sqlite", **settings)

    return make


@pytest.fixture
async def make_storage(backend: Callable[..., Storage]) -> AsyncIterator[MakeStorage]:
    async with storage_factory(backend) as make:
        yield make


@pytest.fixture
async def storage(make_storage: MakeStorage) -> Storage:
    return await make_storage()


# Fixtures for SQLite


class OpenFile(Protocol):
    """Opens the storage in a test's file; each is closed after the test."""

    def __call__(
        self,
        *,
        durability: Literal["process", "power"] = ...,
        max_records: int = ...,
        when_full: WhenFull = ...,
        report: Callable[[DamagedFileError], None] = ...,
        lock_timeout: float = ...,
    ) -> Awaitable[SQLiteStorage]: ...


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "folder" / "queue.sqlite"


@pytest.fixture
async def open_file(path: Path) -> AsyncIterator[OpenFile]:
    made: list[SQLiteStorage] = []

    async def make(**settings: Any) -> SQLiteStorage:
        storage = SQLiteStorage(path, **settings)
        made.append(storage)
        await storage.open()
        return storage

    yield make
    for storage in made:
        await storage.aclose()


def files(path: Path) -> list[Path]:
    """Return the paths of a file and its companions."""
    return [Path(f"{path}{suffix}") for suffix in ("", "-wal", "-shm")]


def names_in(folder: Path) -> set[str]:
    """Return the names of all that is in a folder."""
    return {each.name for each in folder.iterdir()}


def content(path: Path) -> bytes:
    """Return the bytes of a file."""
    return path.read_bytes()


def moved_aside(path: Path) -> list[Path]:
    """Return the damaged files that were moved aside, without their companions."""
    return [each for each in path.parent.glob("*.damaged-*") if not each.name.endswith(("-wal", "-shm"))]
