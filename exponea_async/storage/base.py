"""
The protocol that every storage backend implements. The other parts of the package import its values from here, too.

The storage handles bytes and keys; their meaning is up to the callers. The terms are explained in `storage.values`.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Protocol, runtime_checkable

from exponea_async.errors import QueueFullError, StateConflictError, StorageError
from exponea_async.storage.erasure import Erased, Erasure
from exponea_async.storage.values import (
    DELETED_LETTER,
    FIRST_PLAUSIBLE_TIME,
    MAX_DUE_AHEAD,
    DeadLetter,
    Leased,
    Pending,
    Record,
    RecordStatus,
    Settlement,
    State,
    StateChange,
    StateCheck,
    Waiting,
    Watermark,
    Written,
)

__all__ = [
    "DELETED_LETTER",
    "FIRST_PLAUSIBLE_TIME",
    "MAX_DUE_AHEAD",
    "DeadLetter",
    "Leased",
    "Pending",
    "Record",
    "RecordStatus",
    "Settlement",
    "State",
    "StateChange",
    "StateCheck",
    "Storage",
    "TransactionStorage",
    "TransactionalStorage",
    "Waiting",
    "Watermark",
    "Written",
    "count_waiting",
    "queue_full",
    "replace_state",
]


class Storage(Protocol):
    """
    A queue of records and a store of states.

    Every coroutine raises `StorageError` where the storage refuses; nothing is half-written then. A closed storage may
    be opened again.
    """

    @property
    def commits(self) -> int:
        """The number of transactions that wrote records, states or settlements so far."""
        ...

    @property
    def number(self) -> int:
        """
        The number of this opening, from 0.

        Openings of one storage have different numbers, also in other processes, unless another program locks the file.
        """
        ...

    async def open(self) -> None:
        """Open the storage; to be called before everything else."""
        ...

    async def write(
        self,
        records: Sequence[Record],
        states: Sequence[StateChange | StateCheck] = (),
        on_commit: Callable[[Written], None] | None = None,
    ) -> Written:
        """
        Write records and states in one atomic commit, and return once it is durable.

        A write whose caller is cancelled may be committed all the same.

        Args:
            records: The records to send.
            states: The states to change, and those that must not have changed. Each version, and each
                `StateChange.seen`, is compared with the storage as it was before this call, including what others
                wrote earlier in the same commit. Only then the changes are made, in their order.
            on_commit: Called with the result once it is committed, before this returns; also if the caller has been
                cancelled meanwhile. It may be called once for several writes with the same function, with all that they
                have written.

        Raises:
            QueueFullError: The queue is full, and is set to raise.
            StateConflictError: The version of a state is not the stored one, or its stored activity is later than
                `StateChange.seen`; nothing was written.
        """
        ...

    async def lease(
        self,
        limit: int,
        seconds: float,
        now: float,
        *,
        skip: Iterable[str] = (),
        only: str | None = None,
        untouched_first: bool = False,
    ) -> list[Leased]:
        """
        Lease records that are due: no other caller gets them until the lease ends.

        Args:
            limit: The maximum number of records.
            seconds: The length of the lease, at most `MAX_DUE_AHEAD`.
            now: UNIX seconds.
            skip: Routes to leave out.
            only: The only route to lease from, or None for all.
            untouched_first: Whether records that were never leased come first within a route.

        Returns:
            The records; within a route, first those that were leased before, then the oldest others, or the other way
            round.
        """
        ...

    async def settle(self, settlements: Sequence[Settlement]) -> int:
        """
        Store the outcome of leased records durably.

        Ids that were never leased are ignored.

        Returns:
            The number of records that left the queue.
        """
        ...

    async def find(self, ids: Iterable[str]) -> dict[str, RecordStatus]:
        """
        Return what became of records, by id, including what other processes did with them.

        Ids of which the storage knows nothing are left out: the records were wiped, or lost with a file that was
        replaced, or it is long ago that they left the queue.
        """
        ...

    async def watermark(self) -> Watermark:
        """Return the watermark of all records written so far, for `remaining`."""
        ...

    async def remaining(self, watermark: Watermark, *, skip: Iterable[str] = (), at_most: int | None = None) -> int:
        """
        Return how many records at or below a watermark are still in the queue.

        Args:
            watermark: The watermark, of this storage.
            skip: Routes whose records are not counted.
            at_most: The count stops at this number, which is returned then; None for no limit. Where the caller only
                asks whether any record remains, 1 costs least.
        """
        ...

    async def pending(self) -> Pending:
        """Return the number of records, in a time that does not depend on the length of the queue."""
        ...

    async def waiting(self, limit: int) -> list[Waiting]:
        """Return the oldest records of the queue, leased or not, without leasing them."""
        ...

    async def dead(self, limit: int) -> list[DeadLetter]:
        """Return the newest dead letters."""
        ...

    async def revive(self, ids: Iterable[str] | None = None) -> int:
        """Put dead letters, by default all, back into the queue under their ids, as if written now; return how many."""
        ...

    async def prune(self, *, max_count: int | None = None, before: float = 0.0) -> tuple[str, ...]:
        """
        Delete the oldest dead letters, and return their ids, oldest first.

        Args:
            max_count: The number of the newest ones to keep at most; None for all.
            before: Those that died before this time, UNIX seconds, are deleted, except for times before
                `FIRST_PLAUSIBLE_TIME`.
        """
        ...

    async def purge(self, ids: Iterable[str] | None = None) -> int:
        """Delete dead letters, by default all; return their number."""
        ...

    async def rename_route(self, old: str, new: str) -> None:
        """
        Give all records and dead letters of a route another one, which may have records already; they keep their ids.

        Records that are leased at the moment are still settled by the caller that leased them.
        """
        ...

    async def drop_waiting(self, routes: Iterable[str]) -> int:
        """Delete the records of some routes, leased or not, but not their dead letters; return their number."""
        ...

    async def erase(self, erasure: Erasure) -> Erased:
        """Erase records, dead letters and states, and store others, in one atomic commit."""
        ...

    async def load_state(self, key: str) -> State | None:
        """Return a state, or None."""
        ...

    async def expired_sessions(self, before: float, limit: int) -> list[tuple[str, State]]:
        """
        Return the states, with their keys, whose last activity is before a time, earliest first.

        It takes no longer where there are more states. States without activity are left out.

        Args:
            before: UNIX seconds.
            limit: The maximum number of states.
        """
        ...

    async def reserve(self, name: str, count: int, rate: float) -> float:
        """
        Reserve requests of a rate limit that all clients of the storage share, first come, first served.

        The limit spans the processes that share the storage. Time in which no request was reserved is not saved up, or
        for at most one second.

        Args:
            name: The name of the limit.
            count: The number of requests to reserve, at least 1. They are spaced ``1 / rate`` seconds apart.
            rate: The maximum number of requests per second, of all clients together, greater than 0.

        Returns:
            The seconds from now until the first of the requests may be sent; 0 if it may be sent at once.
        """
        ...

    def subscribe(self, callback: Callable[[], None]) -> None:
        """
        Let a function be called whenever another process has written records, as far as the backend can tell.

        It is called in the event loop in which the storage is open, and may be called without a reason. There is one
        function: the last one replaces the one before. A backend that cannot tell never calls it.
        """
        ...

    async def generation(self) -> int:
        """
        Return a number that identifies the content of the storage.

        It changes when the records are lost without a verdict: with each `wipe`, and when a new file replaces a damaged
        or deleted one. No two files have the same number.
        """
        ...

    async def compact(self) -> int:
        """Give unused space back to the system; return how many bytes are free again."""
        ...

    async def wipe(self) -> None:
        """
        Delete all records, dead letters and states, and erase them from the disk; also while the storage is closed.

        Other clients of the same file get a `WipedFileError` for each call until they open it again.

        Raises:
            StorageError: Nothing was deleted, or the message says what was not; another call, or the next start,
                finishes it.
        """
        ...

    async def aclose(self, timeout: float | None = None) -> None:  # noqa: ASYNC109 - as asyncio.wait has it
        """
        Complete the calls made so far and close the storage; closing it again does nothing.

        Args:
            timeout: How long to wait for another program's lock, all calls together, in seconds; calls that need more
                get an error. None waits as long as for any other call.
        """
        ...

    def abandon(self) -> None:
        """Close the storage without waiting: the event loop in which it was opened has ended, and all calls with it."""
        ...


class TransactionStorage(Storage, Protocol):
    """A storage whose writes are part of a transaction of the application: they exist if it commits."""

    async def begin(self) -> None:
        """
        Check that there is a transaction; to be called before everything else.

        Raises:
            LifecycleError: The connection is not in a transaction.
            StorageError: The connection is not one to the storage's own database, or its role has no rights there.
        """
        ...

    def end(self) -> None:
        """Note that nothing more will be written, and that the application will end its transaction soon."""
        ...


@runtime_checkable
class TransactionalStorage(Protocol):
    """A storage in a database that applications use, too."""

    def within(self, connection: object, on_rollback: Callable[[tuple[str, ...]], None]) -> TransactionStorage:
        """
        Return a storage that writes in the transaction of the application on a connection.

        The ``on_commit`` of a write is called once the transaction is known to be committed, with the records that are
        part of it, and `find` returns "queued" until it is known what becomes of it.

        Args:
            connection: The connection.
            on_rollback: Called with the ids of records that were rolled back.

        Raises:
            TypeError: It is not a connection that the storage can use.
            StorageError: The storage is closed.
        """
        ...


async def count_waiting(storage: Storage) -> int | None:
    """Return how many records a closed storage has; None if it can't be opened, as on a full disk."""
    try:
        await storage.open()
        return (await storage.pending()).waiting
    except StorageError:
        return None
    finally:
        await storage.aclose()


async def replace_state(storage: Storage, key: str, value: bytes | None) -> None:
    """
    Store a value under a key, whatever is stored there; the last caller wins.

    Nothing is written where the value is already stored.

    Args:
        storage: The storage, open.
        key: The key of the state.
        value: The new value, or None to delete the state.

    Raises:
        StorageError: The storage refused the write.
    """
    while True:
        stored = await storage.load_state(key)
        if (stored.value if stored else None) == value:
            return
        try:
            await storage.write((), (StateChange(key, value, stored.version if stored else 0),))
        except StateConflictError:
            # Another caller wrote between the read and the write: compare again with what it stored.
            continue
        return


def queue_full(max_records: int, max_bytes: int | None = None) -> QueueFullError:
    """Return the error for a write that exceeds the capacity."""
    size = "" if max_bytes is None else f" and {max_bytes} bytes"
    return QueueFullError(
        f"The queue is full: it may hold {max_records} records{size}.",
        hint="Wait for uploads, raise QueueSettings.max_records or max_bytes, or set when_full to "
        '"wait" or "drop_oldest".',
    )
