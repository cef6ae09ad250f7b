"""
Group commit: the calls of many callers share one transaction, which is one call to the connection's thread.
"""

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

from exponea_async.errors import StorageError, WipedFileError
from exponea_async.storage.base import Leased, Record, StateChange, StateCheck, Written
from exponea_async.storage.clock import to_uptime
from exponea_async.storage.sqlite.commit_batch import CommitBatch
from exponea_async.storage.sqlite.connection import QueueConnection
from exponea_async.storage.sqlite.file import is_busy
from exponea_async.storage.sqlite.jobs import Job, Lease, Read, copied
from exponea_async.storage.sqlite.leases import LeaseRequest, settle
from exponea_async.storage.sqlite.patience import Patience
from exponea_async.storage.sqlite.space import tidy
from exponea_async.storage.sqlite.writes import PendingWrite
from exponea_async.storage.values import postponements

T = TypeVar("T")

#: Records in one transaction; with more of them the other callers only wait longer.
MAX_BATCH_RECORDS = 500
#: So many writes begin a transaction while the callers of the one before still get their results.
EARLY = 250
#: So many callers go on before other tasks run.
SLICE = 25
#: How often writes that wait for capacity are tried again, in seconds. After a settlement they are tried at once.
CAPACITY_POLL = 0.05
#: The time without a commit after which unused space is given back, in seconds.
IDLE_TIME = 5.0

#: Work on the connection's thread.
Work = Callable[[QueueConnection], None]
#: Called in the event loop with the error of the work, or None.
Finish = Callable[[Exception | None], None]


class GroupCommitter:
    """
    Gathers the calls and runs them in batches, one after the other.

    A batch begins with the next turn of the event loop after a call, unless another one is running. When that ends, its
    callers go on, and their next calls are in the next batch. So a single caller waits for its own commit only, and
    many callers share one.

    Args:
        submit: Starts work on the connection's thread; returns whether there is a connection.
        call: Runs work on the connection's thread and repairs what can be repaired, given the error of an attempt that
            was made before, or None. Work that has begun has ended when it returns, or is cancelled. Raises
            `StorageError` for an error of the file.
        patience: How long the connection waits for another program's lock.

    Attributes:
        count: The number of transactions committed so far.
    """

    def __init__(
        self,
        submit: Callable[[Work, Finish], bool],
        call: Callable[[Work, Exception | None], Awaitable[None]],
        patience: Patience,
    ) -> None:
        self.count = 0
        self._submit = submit
        self._call = call
        self._patience = patience
        self._loop: asyncio.AbstractEventLoop
        self._closing = True
        self._reset()

    def _reset(self) -> None:
        self._writes: deque[PendingWrite] = deque()
        # The writes that wait for capacity, and whether it is time to try them again.
        self._blocked: deque[PendingWrite] = deque()
        self._must_retry = False
        self._changes: list[Job] = []
        self._leases: list[Lease] = []
        self._preceding: list[Job] = []
        # The batch that is running, the task that repairs the file where it has failed, and the batches before whose
        # callers are getting their results.
        self._batch: CommitBatch | None = None
        self._repair: asyncio.Task[None] | None = None
        self._delivering: deque[CommitBatch] = deque()
        # Whether the next batch begins in the next turn of the event loop.
        self._is_scheduled = False
        # Ends the wait for capacity; looks for unused space; set once all is done.
        self._poll_timer: asyncio.TimerHandle | None = None
        self._idle_timer: asyncio.TimerHandle | None = None
        self._drained: asyncio.Event | None = None
        self._when_drained: list[Callable[[], None]] = []

    @property
    def is_running(self) -> bool:
        """Whether calls are accepted."""
        return not self._closing

    def start(self) -> None:
        """Accept calls."""
        self._loop = asyncio.get_running_loop()
        self._reset()
        self._closing = False

    async def aclose(self) -> None:
        """Complete the calls made so far; writes that wait for capacity get an error."""
        if not self._closing:
            self._refuse()
            self._begin()
        await self.wait_closed()

    def abandon(self) -> None:
        """Accept no more calls, without waiting for those made so far; they are lost if their event loop has ended."""
        if self._closing:
            return
        drained = self._refuse()
        if asyncio._get_running_loop() is self._loop:  # noqa: SLF001 - the public function raises if there is none
            self._loop.call_soon(self._begin)
        else:
            drained.set()

    def _refuse(self) -> asyncio.Event:
        self._closing = True
        for timer in (self._idle_timer, self._poll_timer):
            if timer is not None:
                timer.cancel()
        self._must_retry = True
        self._drained = asyncio.Event()
        return self._drained

    def when_drained(self, call: Callable[[], None]) -> None:
        """Call a function once the calls are complete that were made before the queue was closed."""
        if self._drained is not None and not self._drained.is_set():
            self._when_drained.append(call)

    async def wait_closed(self) -> None:
        """Wait for the calls that were made before the queue was closed, unless their event loop has ended."""
        if self._drained is not None and self._loop is asyncio.get_running_loop():
            await self._drained.wait()

    # Calls

    def write(
        self,
        records: Sequence[Record],
        states: Sequence[StateChange | StateCheck],
        on_commit: Callable[[Written], None] | None = None,
    ) -> PendingWrite:
        """Write records and states."""
        if self._closing:
            raise closed_error()
        write = PendingWrite(records, states, on_commit, self._loop)
        writes = self._writes
        writes.append(write)
        if self._delivering:
            # The others go on at once, too, and their writes share the commit.
            if self._batch is None and len(writes) >= EARLY:
                self._begin()
            return write
        self._begin_soon()
        return write

    async def lease(self, request: LeaseRequest) -> list[Leased]:
        """Lease records."""
        lease = Lease(request, self._check_open())
        self._leases.append(lease)
        self._begin_soon()
        try:
            # Waited for, not awaited: they may be leased although the caller is cancelled.
            await asyncio.wait([lease])
        except asyncio.CancelledError:
            lease.add_done_callback(self._give_back)
            raise
        leased: list[Leased] = lease.result()
        return leased

    def _give_back(self, lease: "asyncio.Future[list[Leased]]") -> None:
        """Let records be leased again that nobody has got, which otherwise wait until the leases run out."""
        if not self._closing and not lease.cancelled() and lease.exception() is None:
            now = time.time()
            timed = [(each, to_uptime(now)) for each in postponements(lease.result(), now)]
            self.change(lambda connection: settle(connection, timed))

    def change(self, work: Callable[[QueueConnection], T]) -> "asyncio.Future[T]":
        """Run work within the transaction."""
        job = Job(work, self._check_open())
        self._changes.append(job)
        self._begin_soon()
        return job

    def read(self, work: Callable[[QueueConnection], T]) -> "asyncio.Future[T]":
        """Run work that only reads, on one state of the file."""
        return self._precede(Read(work, self._check_open()))

    def run(self, work: Callable[[QueueConnection], T]) -> "asyncio.Future[T]":
        """Run work outside of any transaction."""
        return self._precede(Job(work, self._check_open()))

    def _precede(self, job: Job) -> "asyncio.Future[Any]":
        self._preceding.append(job)
        self._begin_soon()
        return job

    def _check_open(self) -> asyncio.AbstractEventLoop:
        if self._closing:
            raise closed_error()
        return self._loop

    # Batches

    def _begin_soon(self) -> None:
        """Run what is waiting in the next turn of the event loop, with the calls that others make until then."""
        if self._batch is None and not self._is_scheduled:
            self._is_scheduled = True
            self._loop.call_soon(self._begin)

    def _begin(self) -> None:
        """Run what is waiting, unless a batch is running; that begins the next one itself."""
        self._is_scheduled = False
        if self._batch is not None:
            return
        batch = self._next_batch() if self._has_work() else None
        if batch is None or batch.is_empty:
            if self._drained is not None and not self._delivering:
                self._drained.set()
                for call in self._when_drained:
                    call()
            return
        self._batch = batch
        # All callers wait at the same time: one that has waited in the queue already waits no longer for the file.
        self._patience.begin(batch.since)
        if not self._submit(batch.run, self._finish):
            self._finish(None, is_run=False)

    def _has_work(self) -> bool:
        if self._changes or self._leases or self._preceding:
            return True
        return self._must_retry if self._blocked else bool(self._writes)

    def _next_batch(self) -> CommitBatch:
        writes: list[PendingWrite] = []
        self._must_retry = False
        if self._blocked:
            self._queue_behind_blocked(writes)
        queue = self._blocked or self._writes
        count = 0
        while queue and count < MAX_BATCH_RECORDS:
            write = queue.popleft()
            if not write.done():
                writes.append(write)
                count += len(write.records)
        batch = CommitBatch(writes, self._changes, self._leases, self._preceding)
        self._changes, self._leases, self._preceding = [], [], []
        return batch

    def _queue_behind_blocked(self, writes: list[PendingWrite]) -> None:
        """Move new writes behind those that wait for capacity, and those that need none into a batch."""
        while self._writes:
            write = self._writes.popleft()
            (self._blocked if write.records else writes).append(write)

    def _finish(self, error: Exception | None, *, is_run: bool = True) -> None:
        """Go on after a batch was run; called by the event loop."""
        batch = self._batch
        if batch is None:
            return
        if error is None and is_run:
            self._complete(batch)
        else:
            self._repair = self._loop.create_task(self._run(batch, error), name="exponea_async: commits")
            self._repair.add_done_callback(self._end_repair)

    def _complete(self, batch: CommitBatch) -> None:
        self._note_commit(batch)
        self._batch = None
        if self._writes or self._has_work():
            # The next transaction runs meanwhile.
            self._begin()
        self._delivering.append(batch)
        if len(self._delivering) == 1:
            self._deliver()

    def _deliver(self) -> None:
        """Let the next callers go on, and the other callers in further turns of the event loop."""
        are_left = True
        try:
            # If this raises, a caller has ended the program. The others go on all the same, if the event loop does.
            are_left = self._delivering[0].deliver(SLICE)
        finally:
            if not are_left:
                self._delivering.popleft()
            if self._delivering:
                self._loop.call_soon(self._deliver)
            else:
                self._begin()

    def _note_commit(self, batch: CommitBatch) -> None:
        self.count += batch.committed
        if batch.committed and self._idle_timer is None and not self._closing:
            self._watch_idle_time()
        self._requeue_blocked(batch)

    def _watch_idle_time(self) -> None:
        """Give unused space back when there was no commit for a while."""
        count = self.count

        def look() -> None:
            self._idle_timer = None
            if self._closing:
                return
            if self.count != count:
                self._watch_idle_time()
            else:
                self.run(tidy)

        self._idle_timer = self._loop.call_later(IDLE_TIME, look)

    # Capacity

    def _requeue_blocked(self, batch: CommitBatch) -> None:
        """Put the writes that exceed the capacity back in front, to be tried after a settlement or a while."""
        if self._closing:
            for write in batch.blocked:
                write.error = StorageError("The storage was closed before the queue had capacity for the write.")
            self._must_retry = True
        elif batch.blocked:
            for write in batch.blocked:
                # The wait for capacity has no limit, and is not one for a lock.
                write.since = time.monotonic()
            batch.remove_blocked()
            self._blocked.extendleft(reversed(batch.blocked))
            if self._poll_timer is None:
                self._poll_timer = self._loop.call_later(CAPACITY_POLL, self._retry_blocked)
        elif self._blocked:
            self._must_retry = True

    def _retry_blocked(self) -> None:
        self._poll_timer = None
        self._must_retry = True
        self._begin()

    # Failures

    def _end_repair(self, repair: "asyncio.Task[None]") -> None:
        batch, self._batch, self._repair = self._batch, None, None
        if batch is not None and (repair.cancelled() or repair.exception()):
            # Callers must not wait for ever.
            committed = {member for each in self._delivering for member in each.members()}
            batch.fail(StorageError("The commit was interrupted."), spare=committed)
        # After a failure, nothing else would try the writes again that were not in the batch.
        self._must_retry = True
        self._begin()

    async def _run(self, batch: CommitBatch, error: Exception | None) -> None:
        """Run a batch after a failure of the file, which is repaired if that is possible."""
        self._patience.begin(batch.since)
        try:
            await self._call(batch.run, error)
        except asyncio.CancelledError:
            if batch.committed:
                self._deliver_soon(batch)
            raise
        except Exception as raised:  # noqa: BLE001 - the callers get it, whatever it is, and the others go on
            await self._handle_failure(batch, raised)
            return
        self._deliver_soon(batch)

    def _deliver_soon(self, batch: CommitBatch) -> None:
        self._note_commit(batch)
        self._delivering.append(batch)
        if len(self._delivering) == 1:
            # Not within a task; see `CommitBatch.deliver`.
            self._loop.call_soon(self._deliver)

    async def _handle_failure(self, batch: CommitBatch, error: Exception) -> None:
        """Fail a batch; where the error may be that of a single member, run each of them alone to find it."""
        if not isinstance(error, WipedFileError):
            # Otherwise they have read what is left of deleted data.
            batch.deliver_preceding()
        if is_busy(error):
            self._fail_impatient(batch, error)
            return
        if isinstance(error, StorageError) or len(batch.members()) == 1:
            batch.fail(error)
            return
        behind, self._blocked = self._blocked, deque()
        try:
            for single in batch.split():
                await self._run(single, None)
        finally:
            # Each one was put in front of the one before it.
            self._blocked = deque([*reversed(self._blocked), *behind])

    def _fail_impatient(self, batch: CommitBatch, error: Exception) -> None:
        """Fail the callers that have waited for another program's lock for long enough, and let the others go on."""
        for member in batch.members():
            if self._patience.is_over(member.since) and not member.done():
                member.set_exception(copied(error))
        # In front of those that were made later.
        (self._blocked or self._writes).extendleft(write for write in reversed(batch.writes) if not write.done())
        self._changes[:0] = [job for job in batch.changes if not job.done()]
        self._leases[:0] = [job for job in batch.leases if not job.done()]
        self._preceding[:0] = [job for job in batch.preceding if not job.done()]


def closed_error() -> StorageError:
    """Return the error for a call while the storage is not open."""
    return StorageError("The storage is closed.")
