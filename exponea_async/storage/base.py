"""
The protocol that every storage backend implements, and its values.

The storage handles bytes and keys; their meaning is up to the callers.

A record is *untouched* from its write until it is leased for the first time. From then on it has a due time: the end
of its lease, or of the delay that a settlement gave it. A record that is due can be leased again. A record leaves the
queue when it is settled: as delivered for good, or as dead to the dead letters, from where it can be revived.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Literal, Protocol

from attrs import field, frozen

from exponea_async.errors import QueueFullError, StateConflictError, StorageError
from exponea_async.storage.erasure import Erased, Erasure

#: The reason of a record that was rejected, if its dead letter has been deleted.
DELETED_LETTER = "its dead letter, which had the reason, was deleted"
#: The longest delay of a due time, in seconds. A record due later than this counts as due: the clock that its due time
#: was made from has been set back since.
MAX_DUE_AHEAD = 3600.0
#: 2020-01-01. An earlier time of writing comes from a clock that was not set, and says nothing about an age.
FIRST_PLAUSIBLE_TIME = 1_577_836_800.0


@frozen
class Record:
    """
    An encoded command, ready for upload.

    Attributes:
        route: The destination; records of one route can share a request.
        body: The encoded command.
        at: The time of writing, or of the last revival, UNIX seconds by the system's clock.
    """

    route: str
    body: bytes
    at: float


@frozen
class Leased:
    """
    A record in the queue, as a lease returns it.

    Attributes:
        id: The record's id, unique in its storage.
        route: The destination.
        body: The encoded command.
        at: The time of writing, UNIX seconds.
        failures: How often the record was refused when sent alone, according to its last settlement.
    """

    id: str
    route: str
    body: bytes
    at: float
    failures: int


@frozen
class Waiting(Leased):
    """
    A record in the queue, as it is shown.

    Attributes:
        due: When the record can be leased again, UNIX seconds; 0 if it is untouched.
        reason: Why it is delayed until then; empty for a record that is leased or was given back.
    """

    due: float = 0.0
    reason: str = ""

    def is_leased(self, now: float) -> bool:
        """
        Return whether somebody is sending the record.

        Args:
            now: UNIX seconds.
        """
        return not self.reason and now < self.due <= now + MAX_DUE_AHEAD


@frozen
class Settlement:
    """
    The outcome of leased records.

    Attributes:
        ids: The ids of the records.
        verdict: ``"delivered"`` removes the records, ``"later"`` keeps them until `due`, ``"dead"`` moves them to the
            dead letters with `reason`.
        due: The next due time, UNIX seconds, at most `MAX_DUE_AHEAD` ahead; for ``"later"`` only.
        failures: The next value of `Leased.failures`; for ``"later"`` only.
        reason: The reason, in words.
    """

    ids: tuple[str, ...]
    verdict: Literal["delivered", "later", "dead"]
    due: float = 0.0
    failures: int = 0
    reason: str = ""


@frozen
class RecordStatus:
    """
    What became of a record.

    Attributes:
        kind: ``"queued"``, ``"delivered"``, ``"rejected"`` (it is a dead letter, or was one until it was deleted) or
            ``"dropped"`` (it was deleted unsent, on purpose).
        reason: Why it was rejected, in words; empty for the others.
    """

    kind: Literal["queued", "delivered", "rejected", "dropped"]
    reason: str = ""


@frozen
class DeadLetter:
    """
    A record that was refused for good.

    Attributes:
        id: The record's id, the same as in the queue.
        route: The destination.
        body: The encoded command.
        at: The time of writing, UNIX seconds.
        died_at: The time of the refusal, UNIX seconds.
        reason: The reason, in words.
    """

    id: str
    route: str
    body: bytes
    at: float
    died_at: float
    reason: str


@frozen
class State:
    """
    A stored value.

    Attributes:
        value: The bytes. The repr does not show them: they hold keys and personal data.
        version: Increases by 1 with each change. The first version is 1, or higher where a state was deleted before,
            so that a version read from an old state never matches a new one.
        active: The time of the last activity, UNIX seconds, or None. Activity is not part of the value: it changes
            without the version.
    """

    value: bytes = field(repr=False)
    version: int
    active: float | None = None


@frozen
class StateChange:
    """
    A change of a stored value, made only if the value has not been changed since it was read.

    Attributes:
        key: The key of the state.
        value: The new bytes, or None to delete the state.
        version: The version that was read; 0 if there was no state.
        active: The time of the last activity to store, UNIX seconds, even if it is earlier than the stored one; None
            stores none.
        seen: The last activity that was read, UNIX seconds. The change is refused if the stored one is later, that is
            if there was activity since. None accepts any.
    """

    key: str
    value: bytes | None = field(repr=False)
    version: int
    active: float | None = None
    seen: float | None = None


@frozen
class StateCheck:
    """
    A condition of a write: a stored value still has the version that was read.

    Attributes:
        key: The key of the state.
        version: The version that was read; 0 if there was no state.
        active: The time of an activity, UNIX seconds. The stored time is raised to it, never lowered, and set where
            there is none; the version stays. With None, or where there is no state, nothing is changed.
    """

    key: str
    version: int
    active: float | None = None


@frozen
class Written:
    """
    The result of a write.

    Attributes:
        ids: The ids of the records, in their order.
        dropped: The ids of older records that were deleted to stay within the capacity, with
            ``when_full="drop_oldest"``.
    """

    ids: tuple[str, ...]
    dropped: tuple[str, ...] = ()


@frozen
class Pending:
    """
    The number of records in the storage.

    Attributes:
        waiting: Records that are not delivered yet, leased or not.
        leased: Those of them that are leased or delayed.
        dead: Dead letters.
        routes: `waiting` by route.
    """

    waiting: int
    leased: int
    dead: int
    routes: Mapping[str, int]


#: What had been written at some time, for `Storage.remaining` of the same storage.
Watermark = Mapping[str, str]


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
                cancelled meanwhile.

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

    async def remaining(self, watermark: Watermark, *, skip: Iterable[str] = ()) -> int:
        """Return how many records at or below a watermark are still in the queue, not counting the routes in `skip`."""
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
        """
        Put dead letters, by default all, back into the queue under their ids, as if written now; return their number.
        """
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
