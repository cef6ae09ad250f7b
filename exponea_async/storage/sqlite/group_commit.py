"""
Group commit: many callers, one transaction, one hop to the connection's thread.
"""

import asyncio
import sys
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

from exponea_async.errors import StorageError
from exponea_async.storage.base import Leased, Record, StateChange, StateCheck, Written
from exponea_async.storage.sqlite.commit_batch import CommitBatch, Job, Lease, Look
from exponea_async.storage.sqlite.connection import QueueConnection
from exponea_async.storage.sqlite.leases import LeaseRequest
from exponea_async.storage.sqlite.writes import PendingWrite

T = TypeVar("T")

#: Records in one transaction; larger ones only make the others wait.
GROUP = 500
#: How long a commit waits for company once callers have come in company, in seconds.
WINDOW = 0.002
#: How long writers that wait for room sleep before they look again, in seconds. A settlement wakes them at once.
ROOM_POLL = 0.05


class GroupCommitter:
    """
    The callers that wait, and the one task that serves them all.

    Args:
        hop: Runs work on the connection's thread. Raises `StorageError` where the file is to blame.
        window: How long a commit waits for company at the most, in seconds.

    Attributes:
        count: How many transactions have been committed.
    """

    def __init__(self, hop: Callable[[Callable[[QueueConnection], None]], Awaitable[None]], window: float) -> None:
        self.count = 0
        self._hop = hop
        self._window = window
        self._loop: asyncio.AbstractEventLoop
        self._closing = True
        self._writes: deque[PendingWrite] = deque()
        self._blocked: deque[PendingWrite] = deque()
        self._changes: list[Job] = []
        self._leases: list[Lease] = []
        self._looks: list[Job] = []
        self._wake: asyncio.Future[None] | None = None
        self._company = 1
        self._until = 0.0
        self._group = CommitBatch()
        self._task: asyncio.Task[None] | None = None

    @property
    def serving(self) -> bool:
        """Whether callers are served."""
        return not self._closing

    def start(self) -> None:
        """Begin to serve."""
        self._loop = asyncio.get_running_loop()
        self._closing = False
        self._task = asyncio.create_task(self._serve_for_ever(), name="exponea_async: commits")

    async def aclose(self) -> None:
        """Serve who is waiting, and end; writers that wait for room get an error."""
        self._closing = True
        self._rouse()
        if self._task:
            # Waited for, not awaited: who gives up closing must not end the commits.
            await asyncio.wait([self._task])

    # Callers

    def write(self, records: Sequence[Record], states: Sequence[StateChange | StateCheck]) -> "asyncio.Future[Written]":
        """Have records and states written."""
        if self._closing:
            raise closed()
        future: asyncio.Future[Written] = self._loop.create_future()
        self._writes.append(PendingWrite(records, states, future))
        if self._wake is not None and len(self._writes) >= self._company:
            self._rouse()
        return future

    def lease(self, claim: LeaseRequest) -> "asyncio.Future[list[Leased]]":
        """Have records taken."""
        future: asyncio.Future[list[Leased]] = self._future()
        self._leases.append(Lease(claim, future))
        return future

    def change(self, work: Callable[[QueueConnection], T]) -> "asyncio.Future[T]":
        """Have work done in a transaction."""
        future: asyncio.Future[T] = self._future()
        self._changes.append(Job(work, future))
        return future

    def look(self, work: Callable[[QueueConnection], T]) -> "asyncio.Future[T]":
        """Have work done on one state of the file, without a right to write."""
        future: asyncio.Future[T] = self._future()
        self._looks.append(Look(work, future))
        return future

    def run(self, work: Callable[[QueueConnection], T]) -> "asyncio.Future[T]":
        """Have work done outside a transaction."""
        future: asyncio.Future[T] = self._future()
        self._looks.append(Job(work, future))
        return future

    def _future(self) -> "asyncio.Future[Any]":
        if self._closing:
            raise closed()
        self._rouse()
        return self._loop.create_future()

    def _rouse(self) -> None:
        wake, self._wake = self._wake, None
        if wake is not None and not wake.done():
            wake.set_result(None)

    # The task

    async def _serve_for_ever(self) -> None:
        try:
            while not self._closing or self._has_jobs() or self._writes or self._blocked:
                await self._gather()
                self._group = self._take_group()
                self._until = self._loop.time() + self._window
                await self._serve(self._group)
        finally:
            # Reached with callers still waiting only if the loop broke: they must not wait for ever.
            self._closing = True
            self._group.fail(closed())
            self._take_group(everyone=True).fail(closed())

    async def _gather(self) -> None:
        """
        Wait for work.

        Callers that came in company are likely to come again in company, so a commit waits for as many as the one
        before had, but not longer than the window. A lone caller never waits.
        """
        while not (self._closing or self._has_jobs() or len(self._writes) >= self._company):
            self._wake = self._loop.create_future()
            timer = self._loop.call_at(self._until, self._expect_nobody) if self._company > 1 else None
            await self._wake
            if timer:
                timer.cancel()

    def _expect_nobody(self) -> None:
        self._company = 0 if self._blocked else 1
        self._rouse()

    def _has_jobs(self) -> bool:
        return bool(self._leases or self._changes or self._looks)

    def _take_group(self, *, everyone: bool = False) -> CommitBatch:
        writes: list[PendingWrite] = []
        if self._blocked:
            self._line_up(writes)
        queue = self._blocked or self._writes
        count = 0
        while queue and (everyone or count < GROUP):
            write = queue.popleft()
            if not write.future.done():
                writes.append(write)
                count += len(write.records)
        group = CommitBatch(writes, self._changes, self._leases, self._looks)
        self._changes, self._leases, self._looks = [], [], []
        return group

    def _line_up(self, writes: list[PendingWrite]) -> None:
        """Send new writers behind those that wait for room, except those who need none."""
        while self._writes:
            write = self._writes.popleft()
            (self._blocked if write.records else writes).append(write)

    async def _serve(self, group: CommitBatch) -> None:
        if group.is_empty():
            return
        self._company = max(1, len(group.writes))
        try:
            await self._hop(group.run)
        except Exception as error:  # noqa: BLE001 - whatever it is, the callers must hear it and the task must go on
            await self._blame(group, error)
            return
        self.count += group.committed
        self._hold_back(group)
        if self._writes:
            # The next transaction can start meanwhile.
            self._loop.call_soon(group.answer)
        else:
            group.answer()
            # Who comes again at once has come by then, and need not wake this task.
            await asyncio.sleep(0)

    async def _blame(self, group: CommitBatch, error: Exception) -> None:
        """Fail a group, or find out whose fault it was if it need not be the file's."""
        group.answer_looks()
        if isinstance(error, StorageError) or len(group.members()) == 1:
            group.fail(error)
            return
        behind, self._blocked = self._blocked, deque()
        for single in group.singly():
            await self._serve(single)
        # Each was put in front of the one before it.
        self._blocked = deque([*reversed(self._blocked), *behind])

    def _hold_back(self, group: CommitBatch) -> None:
        """Put writers without room back in front, until a settlement makes some or a while has passed."""
        if self._closing:
            for write in group.blocked:
                write.error = StorageError("The storage was closed before there was room in the queue.")
        elif group.blocked:
            self._blocked.extendleft(reversed(group.blocked))
            self._company = sys.maxsize
            self._until = self._loop.time() + ROOM_POLL
        elif self._blocked:
            self._company = 0


def closed() -> StorageError:
    """Make the error for a call outside the storage's life."""
    return StorageError("The storage is closed.")
