"""
Small words for the tests of storages, and their fixtures.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from pathlib import Path
from typing import Any, Literal, Protocol, TypeVar

import pytest

from exponea_async.errors import DamagedFileError
from exponea_async.storage.base import DeadLetter, Leased, Record, Settlement, StateChange, Storage
from exponea_async.storage.memory import MemoryStorage
from exponea_async.storage.sqlite.connection import QueueConnection
from exponea_async.storage.sqlite.storage import SQLiteStorage

T = TypeVar("T")

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


async def take(storage: Storage, limit: int = 100, now: float = NOW, only: str | None = None) -> list[Leased]:
    return await storage.lease(limit, LEASE, now, only=only)


async def bury(storage: Storage, *names: str, route: str = "shop", reason: str = "bad name") -> tuple[str, ...]:
    """Write records and have them refused for good."""
    written = await storage.write(records(*names, route=route))
    await take(storage, only=route)
    await storage.settle(dead(*written.ids, reason=reason))
    return written.ids


async def active(storage: Storage, key: str = "k") -> float | None:
    """Tell a state's activity."""
    state = await storage.load_state(key)
    assert state
    return state.active


async def create(storage: Storage, *moments: float | None) -> None:
    """Make states ``k0``, ``k1`` and so on, with these activities."""
    await storage.write([], [StateChange(f"k{n}", b"v", 0, moment) for n, moment in enumerate(moments)])


async def expired(storage: Storage, before: float = NOW, limit: int = 100) -> list[str]:
    """Tell the keys of expired sessions."""
    return [key for key, _ in await storage.expired_sessions(before, limit)]


WhenFull = Literal["raise", "wait", "drop_oldest"]


class MakeStorage(Protocol):
    """Makes an open storage; each is closed after the test."""

    def __call__(self, max_records: int = ..., when_full: WhenFull = ...) -> Awaitable[Storage]: ...


@pytest.fixture(name="backend", params=["sqlite", "memory"])
def each_backend(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[..., Storage]:
    def make(**settings: Any) -> Storage:
        if request.param == "memory":
            return MemoryStorage(**settings)
        return SQLiteStorage(tmp_path / "queue.sqlite", **settings)

    return make


@pytest.fixture(name="make_storage")
async def storage_maker(backend: Callable[..., Storage]) -> AsyncIterator[MakeStorage]:
    made: list[Storage] = []

    async def make(max_records: int = 1_000_000, when_full: WhenFull = "raise") -> Storage:
        storage = backend(max_records=max_records, when_full=when_full)
        made.append(storage)
        await storage.open()
        return storage

    yield make
    for storage in made:
        await storage.aclose()


@pytest.fixture(name="storage")
async def open_storage(make_storage: MakeStorage) -> Storage:
    return await make_storage()


class OpenFile(Protocol):
    """Opens the storage of a test's file; each is closed after the test."""

    def __call__(
        self,
        *,
        durability: Literal["process", "power"] = ...,
        max_records: int = ...,
        when_full: WhenFull = ...,
        report: Callable[[DamagedFileError], None] = ...,
        lock_timeout: float = ...,
    ) -> Awaitable[SQLiteStorage]: ...


@pytest.fixture(name="path")
def file_path(tmp_path: Path) -> Path:
    return tmp_path / "folder" / "queue.sqlite"


@pytest.fixture(name="open_file")
async def file_opener(path: Path) -> AsyncIterator[OpenFile]:
    made: list[SQLiteStorage] = []

    async def make(**settings: Any) -> SQLiteStorage:
        storage = SQLiteStorage(path, **settings)
        made.append(storage)
        await storage.open()
        return storage

    yield make
    for storage in made:
        await storage.aclose()


async def on_thread(storage: SQLiteStorage, work: Callable[[QueueConnection], T]) -> T:
    """Run something on the connection's own thread."""
    return await storage.run(work)


def parts(path: Path) -> list[Path]:
    """Tell a file and its companions."""
    return [Path(f"{path}{part}") for part in ("", "-wal", "-shm")]


def content(path: Path) -> bytes:
    """Read a file."""
    return path.read_bytes()


def aside(path: Path) -> list[Path]:
    """Tell the damaged files that were moved aside, without their companions."""
    return [each for each in path.parent.glob("*.damaged-*") if not each.name.endswith(("-wal", "-shm"))]
