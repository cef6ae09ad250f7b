"""
Short names for records, settlements and calls of a storage, and the function that opens the storages of a test.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from typing import Any, Literal, Protocol, TypeVar

from exponea_async.storage.base import DeadLetter, Leased, Record, Settlement, State, StateChange, Storage, Waiting
from exponea_async.storage.erasure import Erasure

T = TypeVar("T")

WhenFull = Literal["raise", "wait", "drop_oldest"]

#: The usual time of a test, UNIX seconds: 2026-01-01.
NOW = 1_767_225_600.0
#: The usual length of a lease, in seconds.
LEASE = 60.0
#: How long a test waits for what must happen, in seconds.
PATIENCE = 60.0


class MakeStorage(Protocol):
    """Creates and opens a storage. All storages of a test have the same data, which is empty at its start."""

    def __call__(
        self,
        max_records: int = ...,
        when_full: WhenFull = ...,
        max_bytes: int | None = ...,
        *,
        opened: bool = ...,
    ) -> Awaitable[Storage]:
        """
        Return a storage.

        Args:
            max_records: The capacity of the queue.
            when_full: What happens to a write that exceeds it.
            max_bytes: The same for the size of the queue in bytes, or None.
            opened: Whether it is opened.
        """
        ...


@asynccontextmanager
async def storage_factory(create: Callable[..., Storage]) -> AsyncIterator[MakeStorage]:
    """
    Make the storages of a test, and close them at the end of the block.

    Args:
        create: Returns a new storage, not open, of the test's data. It gets the keywords `max_records`, `when_full` and
            `max_bytes` of `MakeStorage`.
    """
    made: list[Storage] = []

    async def make(
        max_records: int = 1_000_000,
        when_full: WhenFull = "raise",
        max_bytes: int | None = None,
        *,
        opened: bool = True,
    ) -> Storage:
        storage = create(max_records=max_records, when_full=when_full, max_bytes=max_bytes)
        made.append(storage)
        if opened:
            await storage.open()
        return storage

    try:
        yield make
    finally:
        for storage in made:
            await storage.aclose()


# Values


def record(body: str, route: str = "shop", at: float = NOW) -> Record:
    """Return a record."""
    return Record(route, body.encode(), at)


def records(*bodies: str, route: str = "shop") -> list[Record]:
    """Return records of one route."""
    return [record(body, route) for body in bodies]


def bodies(found: Iterable[Leased | Waiting | DeadLetter]) -> list[str]:
    """Return the bodies of records, as text."""
    return [each.body.decode() for each in found]


def ids(found: Iterable[Leased | Waiting | DeadLetter]) -> tuple[str, ...]:
    """Return the ids of records."""
    return tuple(each.id for each in found)


def delivered(*keys: str) -> list[Settlement]:
    """Return the settlement of records that were delivered."""
    return [Settlement(keys, "delivered")]


def later(*keys: str, due: float, failures: int = 0) -> list[Settlement]:
    """Return the settlement of records that are delayed until a time, UNIX seconds."""
    return [Settlement(keys, "later", due=due, failures=failures, reason="busy")]


def dead(*keys: str, reason: str = "bad name") -> list[Settlement]:
    """Return the settlement of records that become dead letters."""
    return [Settlement(keys, "dead", reason=reason)]


def erasure(trace: bytes, *keys: str, **states: bytes) -> Erasure:
    """Return what erases the records that begin with a trace and the states with some keys, and stores other states."""
    return Erasure(
        (trace,),
        lambda body: body.startswith(trace),
        lambda found: {key for key, _ in found} & set(keys),
        states,
    )


def existing(state: State | None) -> State:
    """Return a state, which must not be None."""
    assert state is not None
    return state


# Calls


async def lease(storage: Storage, limit: int = 100, now: float = NOW, only: str | None = None) -> list[Leased]:
    """Lease records for `LEASE` seconds."""
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
    return existing(await storage.load_state(key)).active


async def expired_keys(storage: Storage, before: float = NOW, limit: int = 100) -> list[str]:
    """Return the keys of expired sessions."""
    return [key for key, _ in await storage.expired_sessions(before, limit)]


async def is_waiting(work: "asyncio.Task[Any]") -> bool:
    """Let a task run for a moment; return whether it still waits."""
    done, _ = await asyncio.wait([work], timeout=0.05)
    return not done


async def soon(work: Awaitable[T]) -> T:
    """Await what a storage must let end. A test of a storage that does not fails, and does not hang."""
    return await asyncio.wait_for(work, PATIENCE)
