"""
Group commit: the calls of many callers share one transaction, which is one call to the connection's thread.
"""

import asyncio
import logging
import sqlite3
import sys
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterator, Sequence
from itertools import groupby
from typing import Any, TypeVar

from exponea_async.errors import StorageError, WipedFileError
from exponea_async.storage.base import Leased, Record, StateChange, StateCheck, Written
from exponea_async.storage.sqlite.connection import QueueConnection
from exponea_async.storage.sqlite.file import is_busy
from exponea_async.storage.sqlite.jobs import Job, Lease, Read, copied, run_reads
from exponea_async.storage.sqlite.leases import LeaseRequest, has_due
from exponea_async.storage.sqlite.patience import Patience
from exponea_async.storage.sqlite.space import make_room, prepare_disk, tidy
from exponea_async.storage.sqlite.writes import BatchWriter, PendingWrite

LOG = logging.getLogger("exponea_async")

T = TypeVar("T")

#: Records in one transaction; with more of them the other callers only wait longer.
MAX_BATCH_RECORDS = 500
#: How long a commit waits for more writes once several have come at the same time, in seconds.
COMMIT_WINDOW = 0.002
#: The wait before the task is started again after it has ended unexpectedly, in seconds.
RESTART_DELAY = 0.1
#: How often writes that wait for capacity are tried again, in seconds. After a settlement they are tried at once.
CAPACITY_POLL = 0.05
#: The time without a commit after which unused space is given back, in seconds.
IDLE_TIME = 5.0


class CommitBatch:
    """
    The jobs and writes that go to the connection's thread in one call.

    Args:
        writes: Records and states to write.
        changes: Jobs of the transaction that run before the writes, for which they may free capacity.
        leases: Jobs of the transaction that run last, so that they find what has just been written.
        preceding: Jobs that run before the transaction: reads, and jobs that begin transactions of their own.

    Attributes:
        committed: Whether there was a transaction.
        blocked: The writes that have to wait for capacity.
    """

    __slots__ = ("blocked", "changes", "committed", "leases", "preceding", "writes")

    def __init__(
        self,
        writes: Sequence[PendingWrite] = (),
        changes: Sequence[Job] = (),
        leases: Sequence[Lease] = (),
        preceding: Sequence[Job] = (),
    ) -> None:
        self.writes = writes
        self.changes = changes
        self.leases = leases
        self.preceding = preceding
        self.committed = False
        self.blocked: list[PendingWrite] = []

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to run."""
        return not (self.writes or self.changes or self.leases or self.preceding)

    def members(self) -> "list[PendingWrite | Job]":
        """Return all writes and jobs."""
        return [*self.writes, *self.changes, *self.leases, *self.preceding]

    @property
    def since(self) -> float:
        """When the first of the calls was made, in monotonic time."""
        if self.writes and not (self.changes or self.leases or self.preceding):
            # The usual case.
            return self.writes[0].since
        # Each list is in the order of the calls.
        lists: Sequence[Sequence[PendingWrite | Job]] = (self.writes, self.changes, self.leases, self.preceding)
        return min(members[0].since for members in lists if members)

    def split(self) -> "Iterator[CommitBatch]":
        """Yield a batch for each write and job."""
        yield from (CommitBatch(preceding=(job,)) for job in self.preceding)
        yield from (CommitBatch(changes=(job,)) for job in self.changes)
        yield from (CommitBatch(writes=(write,)) for write in self.writes)
        yield from (CommitBatch(leases=(job,)) for job in self.leases)

    # On the connection's thread

    def run(self, connection: QueueConnection) -> None:
        """
        Run everything.

        Raises:
            MovedFileError: The file at the path is not the one that is open any more; nothing was committed.
        """
        self._run_preceding(connection)
        if self.writes or self.changes or self._is_any_due(connection):
            prepare_disk(connection)
            try:
                self._run_transaction(connection)
            except sqlite3.OperationalError as error:
                if not make_room(connection, error, for_upload=bool(self.changes or self.leases)):
                    raise
                self._run_transaction(connection)
            self.committed = True
            if self.changes:
                # They may have deleted records.
                connection.next_reclaim = 0.0
        else:
            connection.check_path()

    def _run_transaction(self, connection: QueueConnection) -> None:
        with connection.write_transaction():
            for job in self.changes:
                job.run(connection)
            if self.writes:
                self.blocked = BatchWriter(connection, self.writes).run()
            for job in self.leases:
                job.run(connection)
            # Before the commit: what is written to a file that is gone must not be there, too, when its content is
            # copied to a new file. If the file is lost after this, the next check finds what was committed.
            connection.check_path()

    def _run_preceding(self, connection: QueueConnection) -> None:
        for kind, jobs in groupby(self.preceding, type):
            if kind is Read:
                run_reads(connection, list(jobs))
            else:
                for job in jobs:
                    job.run_isolated(connection)

    def _is_any_due(self, connection: QueueConnection) -> bool:
        """Return whether any lease would find records: an idle queue is polled often, and must not be written then."""
        if not self.leases:
            return False
        for job in self.leases:
            job.result = []
        with connection.read_transaction():
            return any(has_due(connection, job.request) for job in self.leases)

    # On the event loop's thread

    def resolve(self) -> None:
        """Give each caller the outcome; writes that wait for capacity have none."""
        for write in self.writes:
            future = write.future
            if write.written is not None and write.on_commit is not None:
                _report(write.on_commit, write.written)
            if future.done():
                continue
            if write.written is not None:
                future.set_result(write.written)
            elif write.error is not None:
                future.set_exception(write.error)
        for jobs in (self.changes, self.leases, self.preceding):
            for job in jobs:
                job.resolve()

    def resolve_preceding(self) -> None:
        """Resolve and remove the preceding jobs that are done, so that they do not run again with the transaction."""
        for job in self.preceding:
            if job.done:
                job.resolve()
        self.preceding = [job for job in self.preceding if not job.done]

    def fail(self, error: Exception) -> None:
        """Give each caller an error."""
        for member in self.members():
            if not member.future.done():
                member.future.set_exception(copied(error))


class GroupCommitter:
    """
    The queue of calls, and the task that runs them in batches.

    Args:
        call: Runs a function on the connection's thread. Raises `StorageError` for an error of the file.
        window: How long a commit waits for more writes at most, in seconds.
        patience: How long the connection waits for another program's lock.

    Attributes:
        count: The number of transactions committed so far.
    """

    def __init__(
        self, call: Callable[[Callable[[QueueConnection], None]], Awaitable[None]], window: float, patience: Patience
    ) -> None:
        self.count = 0
        self._call = call
        self._window = window
        self._patience = patience
        self._loop: asyncio.AbstractEventLoop
        self._closing = True
        self._idle_timer: asyncio.TimerHandle | None = None
        self._writes: deque[PendingWrite] = deque()
        self._blocked: deque[PendingWrite] = deque()
        self._changes: list[Job] = []
        self._leases: list[Lease] = []
        self._preceding: list[Job] = []
        # The task waits for this future while it has nothing to do, and until this time for the expected writes.
        self._wakeup: asyncio.Future[None] | None = None
        self._deadline = 0.0
        self._expected = 1
        self._batch = CommitBatch()
        self._task: asyncio.Task[None] | None = None

    @property
    def is_running(self) -> bool:
        """Whether calls are accepted."""
        return not self._closing

    def start(self) -> None:
        """Start the task."""
        self._loop = asyncio.get_running_loop()
        self._closing = False
        self._begin()

    def _begin(self) -> None:
        if not self._closing:
            self._task = self._loop.create_task(self._run_batches(), name="exponea_async: commits")
            self._task.add_done_callback(self._finish)

    def _finish(self, task: "asyncio.Task[None]") -> None:
        error = None if task.cancelled() else task.exception()
        if self._closing or isinstance(error, KeyboardInterrupt | SystemExit):
            return
        # Not at once: at the end of a program, all tasks are cancelled just before the event loop is closed.
        self._loop.call_later(RESTART_DELAY, self._begin)
        if error is not None:
            LOG.critical("The task that commits has failed, and is started again.", exc_info=error)

    async def aclose(self) -> None:
        """Complete the calls made so far and end the task; writes that wait for capacity get an error."""
        self._closing = True
        if self._idle_timer is not None:
            self._idle_timer.cancel()
            self._idle_timer = None
        self._wake()
        if self._task:
            # Waited for, not awaited: a caller that is cancelled here must not cancel the commits.
            await asyncio.wait([self._task])
        # There are calls only if the task has ended before, and was about to be started again.
        self._next_batch(limit=sys.maxsize).fail(closed_error())

    # Calls

    def write(
        self,
        records: Sequence[Record],
        states: Sequence[StateChange | StateCheck],
        on_commit: Callable[[Written], None] | None = None,
    ) -> "asyncio.Future[Written]":
        """Write records and states."""
        if self._closing:
            raise closed_error()
        future: asyncio.Future[Written] = self._loop.create_future()
        self._writes.append(PendingWrite(records, states, future, on_commit))
        if self._wakeup is not None and len(self._writes) >= self._expected:
            self._wake()
        return future

    def lease(self, request: LeaseRequest) -> "asyncio.Future[list[Leased]]":
        """Lease records."""
        future: asyncio.Future[list[Leased]] = self._future()
        self._leases.append(Lease(request, future))
        return future

    def change(self, work: Callable[[QueueConnection], T]) -> "asyncio.Future[T]":
        """Run work within the transaction."""
        future: asyncio.Future[T] = self._future()
        self._changes.append(Job(work, future))
        return future

    def read(self, work: Callable[[QueueConnection], T]) -> "asyncio.Future[T]":
        """Run work that only reads, on one state of the file."""
        future: asyncio.Future[T] = self._future()
        self._preceding.append(Read(work, future))
        return future

    def run(self, work: Callable[[QueueConnection], T]) -> "asyncio.Future[T]":
        """Run work outside of any transaction."""
        future: asyncio.Future[T] = self._future()
        self._preceding.append(Job(work, future))
        return future

    def _future(self) -> "asyncio.Future[Any]":
        if self._closing:
            raise closed_error()
        self._wake()
        return self._loop.create_future()

    def _wake(self) -> None:
        wakeup, self._wakeup = self._wakeup, None
        if wakeup is not None and not wakeup.done():
            wakeup.set_result(None)

    # The task

    async def _run_batches(self) -> None:
        try:
            while not self._closing or self._has_jobs() or self._writes or self._blocked:
                await self._wait_for_work()
                self._batch = self._next_batch()
                self._deadline = self._loop.time() + self._window
                await self._run(self._batch)
        finally:
            # Callers are left only if the task was cancelled: they must not wait for ever.
            error = closed_error() if self._closing else StorageError("The commit was interrupted.")
            self._batch.fail(error)
            self._next_batch(limit=sys.maxsize).fail(error)

    async def _wait_for_work(self) -> None:
        """
        Wait for a job, or for as many writes as are expected.

        Where several callers have written at the same time, they are likely to do so again. So a commit waits for as
        many writes as the one before had, but not longer than the window. A single caller never waits.
        """
        while not (self._closing or self._has_jobs() or len(self._writes) >= self._expected):
            self._wakeup = self._loop.create_future()
            timer = self._loop.call_at(self._deadline, self._stop_waiting) if self._expected > 1 else None
            await self._wakeup
            if timer:
                timer.cancel()

    def _stop_waiting(self) -> None:
        self._expected = 0 if self._blocked else 1
        self._wake()

    def _has_jobs(self) -> bool:
        return bool(self._leases or self._changes or self._preceding)

    def _next_batch(self, limit: int = MAX_BATCH_RECORDS) -> CommitBatch:
        writes: list[PendingWrite] = []
        if self._blocked:
            self._queue_behind_blocked(writes)
        queue = self._blocked or self._writes
        count = 0
        while queue and count < limit:
            write = queue.popleft()
            if not write.future.done():
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

    async def _run(self, batch: CommitBatch) -> None:
        if batch.is_empty:
            return
        self._expected = max(1, len(batch.writes))
        # All callers wait at the same time: one that has waited in the queue already waits no longer for the file.
        self._patience.begin(batch.since)
        try:
            await self._call(batch.run)
        except Exception as error:  # noqa: BLE001 - the callers get it, whatever it is, and the task continues
            await self._handle_failure(batch, error)
            return
        self.count += batch.committed
        if batch.committed and self._idle_timer is None:
            self._watch_idle_time()
        self._requeue_blocked(batch)
        if self._writes:
            # The next transaction can start meanwhile.
            self._loop.call_soon(batch.resolve)
        else:
            batch.resolve()
            # Callers that write again at once have done so by then, and need not wake this task.
            await asyncio.sleep(0)

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

    async def _handle_failure(self, batch: CommitBatch, error: Exception) -> None:
        """Fail a batch; where the error may be that of a single member, run each of them alone to find it."""
        if not isinstance(error, WipedFileError):
            # Otherwise they have read what is left of deleted data.
            batch.resolve_preceding()
        if is_busy(error):
            self._fail_impatient(batch, error)
            return
        if isinstance(error, StorageError) or len(batch.members()) == 1:
            batch.fail(error)
            return
        behind, self._blocked = self._blocked, deque()
        for single in batch.split():
            await self._run(single)
        # Each one was put in front of the one before it.
        self._blocked = deque([*reversed(self._blocked), *behind])

    def _fail_impatient(self, batch: CommitBatch, error: Exception) -> None:
        """Fail the callers that have waited for another program's lock for long enough, and let the others go on."""
        for member in batch.members():
            if self._patience.is_over(member.since) and not member.future.done():
                member.future.set_exception(copied(error))
        self._writes.extendleft(write for write in reversed(batch.writes) if not write.future.done())
        self._changes[:0] = [job for job in batch.changes if not job.future.done()]
        self._leases[:0] = [job for job in batch.leases if not job.future.done()]
        self._preceding[:0] = [job for job in batch.preceding if not job.future.done()]

    def _requeue_blocked(self, batch: CommitBatch) -> None:
        """Put the writes that exceed the capacity back in front, to be tried after a settlement or a while."""
        if self._closing:
            for write in batch.blocked:
                write.error = StorageError("The storage was closed before the queue had capacity for the write.")
        elif batch.blocked:
            for write in batch.blocked:
                # The wait for capacity has no limit, and is not one for a lock.
                write.since = time.monotonic()
            self._blocked.extendleft(reversed(batch.blocked))
            self._expected = sys.maxsize
            self._deadline = self._loop.time() + CAPACITY_POLL
        elif self._blocked:
            self._expected = 0


def _report(on_commit: Callable[[Written], None], written: Written) -> None:
    try:
        on_commit(written)
    except Exception:
        # It was committed all the same, and so were the writes of the others.
        LOG.exception("Unexpected error after a commit; continuing.")


def closed_error() -> StorageError:
    """Return the error for a call while the storage is not open."""
    return StorageError("The storage is closed.")
