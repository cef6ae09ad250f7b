"""
Storages: fixtures that open them, and short names for records, settlements and calls.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from pathlib import Path
from typing import Any, Literal, Protocol

import pytest

from exponea_async.errors import DamagedFileError
from exponea_async.storage.base import DeadLetter, Leased, Record, Settlement, StateChange, Storage
from exponea_async.storage.memory import MemoryStorage
from exponea_async.storage.sqlite.storage import SQLiteStorage

WhenFull = Literal["raise", "wait", "drop_oldest"]

NOW = 1_767_225_600.0
LEASE = 60.0


def record(body: str, route: str = "shop", at: float = NOW) -> Record:
    return Record(route, body.encode(), at)


def records(*bodies: str, route: str = "shop") -> list[Record]:
    return [record(body, route) for body in bodies]


def bodies(found: Iterable[Leased | DeadLetter]) -> list[str]:
    return [each.body.decode() for each in found]


def ids(found: Iterable[Leased | DeadLetter]) -> tuple[str, ...]:
    return tuple(each.id for each in found)


def delivered(*keys: str) -> list[Settlement]:
    return [Settlement(keys, "delivered")]


def later(*keys: str, due: float, failures: int = 0) -> list[Settlement]:
    return [Settlement(keys, "later", due=due, failures=failures, reason="busy")]


def dead(*keys: str, reason: str = "bad name") -> list[Settlement]:
    return [Settlement(keys, "dead", reason=reason)]


async def lease(storage: Storage, limit: int = 100, now: float = NOW, only: str | None = None) -> list[Leased]:
    return await storage.lease(limit, LEASE, now, only=only)


async def write_dead(storage: Storage, *names: str, route: str = "shop", reason: str = "bad name") -> tuple[str, ...]:
    """Write records and settle them as dead letters; return their ids."""
    written = await storage.write(records(*names, route=route))
    await lease(storage, only=route)
    await storage.settle(dead(*written.ids, reason=reason))
    return written.ids


async def create_states(storage: Storage, *activity: float | None) -> None:
    """Create the states ``k0``, ``k1`` and so on, with these times of activity."""
    await storage.write([], [StateChange(f"k{n}", b"v", 0, active) for n, active in enumerate(activity)])


async def last_activity(storage: Storage, key: str = "k") -> float | None:
    """Return the time of a state's last activity."""
    state = await storage.load_state(key)
    assert state
    return state.active


async def expired_keys(storage: Storage, before: float = NOW, limit: int = 100) -> list[str]:
    """Return the keys of expired sessions."""
    return [key for key, _ in await storage.expired_sessions(before, limit)]


# Fixtures for every backend


class MakeStorage(Protocol):
    """Returns an open storage; each is closed after the test."""

    def __call__(
        self, max_records: int = ..., when_full: WhenFull = ..., max_bytes: int | None = ...
    ) -> Awaitable[Storage]: ...


@pytest.fixture(params=["sqlite", "memory"])
def backend(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[..., Storage]:
    def make(**settings: Any) -> Storage:
        if request.param == "memory":
            return MemoryStorage(**settings)
        return SQLiteStorage(tmp_path / "queue.sqlite", **settings)

    return make


@pytest.fixture
async def make_storage(backend: Callable[..., Storage]) -> AsyncIterator[MakeStorage]:
    made: list[Storage] = []

    async def make(
        max_records: int = 1_000_000, when_full: WhenFull = "raise", max_bytes: int | None = None
    ) -> Storage:
        storage = backend(max_records=max_records, when_full=when_full, max_bytes=max_bytes)
        made.append(storage)
        await storage.open()
        return storage

    yield make
    for storage in made:
        await storage.aclose()


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


def content(path: Path) -> bytes:
    """Return the bytes of a file."""
    return path.read_bytes()


def moved_aside(path: Path) -> list[Path]:
    """Return the damaged files that were moved aside, without their companions."""
    return [each for each in path.parent.glob("*.damaged-*") if not each.name.endswith(("-wal", "-shm"))]
