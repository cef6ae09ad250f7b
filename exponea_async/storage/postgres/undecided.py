"""
The transactions of applications in which events were written, until it is known whether they were committed.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import TypeVar

import asyncpg
from attrs import frozen

from exponea_async.errors import StorageError
from exponea_async.storage.base import Written
from exponea_async.storage.postgres.capacity import NOTHING, Room
from exponea_async.storage.postgres.connection import Connections
from exponea_async.storage.postgres.queries import Queries

LOG = logging.getLogger("exponea_async")

T = TypeVar("T")

#: The shortest and the longest time between two looks at the transactions, in seconds.
FIRST_WAIT, LONGEST_WAIT = 0.02, 1.0
#: Ids that are looked up in one statement.
SLICE = 5_000

STATUS = "SELECT u.xid, pg_xact_status(u.xid::xid8) FROM unnest($1::text[]) AS u (xid)"
IN_PROGRESS = "in progress"
ABORTED = "aborted"


@frozen
class HostWrite:
    """
    What one call has written in a transaction of the application.

    Attributes:
        ids: The ids of the records.
        size: The size of the records in bytes.
        on_commit: Called with those that are committed.
        on_rollback: Called with those that were rolled back.
    """

    ids: tuple[str, ...]
    size: int
    on_commit: Callable[[Written], None]
    on_rollback: Callable[[tuple[str, ...]], None]


class UndecidedTransactions:
    """
    Finds out which transactions were committed and which were rolled back.

    Args:
        connections: The connections.
        queries: Finds the records of committed transactions: a savepoint may have been rolled back.
        after_commit: Called after transactions were committed; returns the ids of records that were deleted, since
            the queue is full.
    """

    def __init__(
        self, connections: Connections, queries: Queries, after_commit: Callable[[], Awaitable[tuple[str, ...]]]
    ) -> None:
        self._connections = connections
        self._queries = queries
        self._after_commit = after_commit
        self._writes: dict[int, list[HostWrite]] = {}
        self._ids: set[str] = set()
        self._totals: dict[int, Room] = {}
        self._wait = FIRST_WAIT
        self._wakeup = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._is_open = False

    def start(self) -> None:
        """Accept transactions from now on, in this event loop."""
        self._is_open, self._wakeup = True, asyncio.Event()

    async def aclose(self) -> None:
        """Look at the transactions a last time. Those that are not decided by then are forgotten."""
        self._is_open = False
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.wait([task])
        await self._look()
        self._forget()

    def abandon(self) -> None:
        """Forget everything: the event loop has ended."""
        self._is_open, self._task = False, None
        self._forget()

    def _forget(self) -> None:
        self._writes.clear()
        self._ids.clear()
        self._totals.clear()

    def add(self, transaction: int, write: HostWrite) -> None:
        """Watch a transaction, and call the functions of a write in it once it is decided."""
        if not self._is_open:
            return
        self._writes.setdefault(transaction, []).append(write)
        self._ids.update(write.ids)
        total = self.total(transaction)
        self._totals[transaction] = Room(total.records + len(write.ids), total.size + write.size)
        self.expect()
        if self._task is None:
            self._task = asyncio.create_task(self._run(), name="exponea_async: transactions")
            self._task.add_done_callback(self._finish)

    def expect(self) -> None:
        """Look soon: a transaction is about to end."""
        self._wait = FIRST_WAIT
        self._wakeup.set()

    def total(self, transaction: int) -> Room:
        """Return how much was written in a transaction, which others do not see before it is committed."""
        return self._totals.get(transaction, NOTHING)

    def among(self, ids: Iterable[str]) -> list[str]:
        """Return the ids whose transactions are not decided."""
        return [key for key in ids if key in self._ids] if self._ids else []

    # The task

    def _finish(self, task: "asyncio.Task[None]") -> None:
        if self._task is task:
            self._task = None
            if self._writes and not task.get_loop().is_closed():
                # It was cancelled by others, as at the end of a program.
                task.get_loop().call_later(LONGEST_WAIT, self._resume)

    def _resume(self) -> None:
        if self._is_open and self._writes and self._task is None:
            self._task = asyncio.create_task(self._run(), name="exponea_async: transactions")
            self._task.add_done_callback(self._finish)

    async def _run(self) -> None:
        while self._writes:
            if self._wait > FIRST_WAIT:
                await self._sleep(self._wait)
            self._wakeup.clear()
            await asyncio.sleep(FIRST_WAIT)
            self._wait = min(2 * self._wait, LONGEST_WAIT)
            await self._look()

    async def _sleep(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._wakeup.wait()
        except TimeoutError:
            return

    async def _look(self) -> None:
        if not self._writes:
            return
        try:
            statuses = await self._statuses(list(self._writes))
            aborted = [key for key, status in statuses.items() if status == ABORTED]
            ended = [key for key, status in statuses.items() if status not in (IN_PROGRESS, ABORTED)]
            await self._decide(aborted, ended)
        except StorageError as error:
            LOG.debug("It can't be found out now which transactions are committed: %s", error)

    async def _statuses(self, transactions: Sequence[int]) -> dict[int, str | None]:
        """Return the states of transactions; None for one that ended too long ago."""
        try:
            rows = await self._connections.fetch(STATUS, [str(each) for each in transactions])
        except StorageError as error:
            if not isinstance(error.__cause__, asyncpg.InvalidParameterValueError):
                raise
            # The database does not know one of them: it is a standby that took over without its last transactions.
            if len(transactions) == 1:
                return {transactions[0]: ABORTED}
            middle = len(transactions) // 2
            return {**await self._statuses(transactions[:middle]), **await self._statuses(transactions[middle:])}
        return {int(key): status for key, status in rows}

    async def _decide(self, aborted: Sequence[int], ended: Sequence[int]) -> None:
        found = await self._find([each for key in ended for write in self._writes[key] for each in write.ids])
        dropped = await self._after_commit() if found else ()
        writes = [write for key in (*aborted, *ended) for write in self._writes.pop(key)]
        self._ids.difference_update(*(write.ids for write in writes))
        for key in (*aborted, *ended):
            self._totals.pop(key, None)
        # What was rolled back comes first: subscribers that are notified of a commit ask for the receipts.
        for write in writes:
            lost = tuple(key for key in write.ids if key not in found)
            if lost:
                _call(write.on_rollback, lost)
        for write in writes:
            kept = tuple(key for key in write.ids if key in found)
            if kept:
                _call(write.on_commit, Written(kept, dropped))
                dropped = ()

    async def _find(self, ids: Sequence[str]) -> set[str]:
        """Return the ids of the records that are there, or were: the others were rolled back with a savepoint."""
        found: set[str] = set()
        for start in range(0, len(ids), SLICE):
            found.update(await self._queries.find(ids[start : start + SLICE]))
        return found


def _call(function: Callable[[T], None], value: T) -> None:
    try:
        function(value)
    except Exception:
        # The transaction is decided all the same, and so are the others.
        LOG.exception("Unexpected error after a transaction; continuing.")
