"""
Group commit: the writes of many callers share one transaction.

While one commit is on its way, the writes of other callers wait for the next one. A commit whose outcome is not known,
because the connection was lost, is looked up: the row of the client has the number of its last commit.
"""

import asyncio
import logging
import time
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Sequence
from contextvars import Context, copy_context
from copy import copy

import asyncpg

from exponea_async.errors import StorageError
from exponea_async.storage.base import Record, StateChange, StateCheck, Written
from exponea_async.storage.postgres.capacity import AMPLE, Capacity
from exponea_async.storage.postgres.connection import (
    FIRST_SHARE,
    FIRST_WAIT,
    LONGEST_WAIT,
    LOSSES,
    RETRYABLE,
    Connections,
    closed_error,
    is_outage,
    shown,
)
from exponea_async.storage.postgres.registration import Registration
from exponea_async.storage.postgres.transaction import LOCK_POLL, Commit, CommitTransaction, locked_error
from exponea_async.storage.postgres.writes import PendingWrite, merge_checks

LOG = logging.getLogger("exponea_async")

#: Records in one commit, and their size in bytes; with more of them the other callers only wait longer.
MAX_BATCH_RECORDS = 500
MAX_BATCH_SIZE = 8_000_000
#: New states in one commit: each takes a lock, and the server's memory for them is limited.
MAX_NEW_STATES = 200
#: How often writes that wait for capacity are tried again, in seconds. After a settlement they are tried at once.
CAPACITY_POLL = 0.05

LAST_COMMIT = "SELECT commit FROM {s}.client WHERE id = $1 FOR UPDATE NOWAIT"
#: A statement may still be on its way to the server, after its connection was lost. Once there is a later commit, it
#: does nothing any more.
FENCE = "UPDATE {s}.client SET commit = $2 WHERE id = $1"


class Committer:
    """
    The queue of writes, and the task that commits them in groups.

    Args:
        connections: The connections.
        registration: The client.
        capacity: The limits of the queue.
        report: Called with an error that ends the use of the queue for this client.

    Attributes:
        count: The number of transactions committed so far.
        lock: Held during a commit.
    """

    def __init__(
        self,
        connections: Connections,
        registration: Registration,
        capacity: Capacity,
        report: Callable[[StorageError], None],
    ) -> None:
        self.count = 0
        self._connections = connections
        self._registration = registration
        self._capacity = capacity
        self._report = report
        self._loop: asyncio.AbstractEventLoop
        self._context: Context
        self.lock = asyncio.Lock()
        self.abandon()

    def abandon(self) -> None:
        """Forget everything: the event loop has ended, and the calls with it."""
        self._closing = True
        self._writes: deque[PendingWrite] = deque()
        # Writes with records that wait for capacity, and none may overtake; and those that wait for a locked state.
        self._blocked: deque[PendingWrite] = deque()
        self._locked: list[PendingWrite] = []
        self._retry_at: float | None = None
        # Whether the outcome of a commit is not known.
        self._is_uncertain = False
        self._task: asyncio.Task[None] | None = None

    @property
    def is_running(self) -> bool:
        """Whether calls are accepted."""
        return not self._closing

    def start(self) -> None:
        """Accept calls."""
        self._loop, self.lock = asyncio.get_running_loop(), asyncio.Lock()
        self._context = copy_context()
        self._closing = False

    async def aclose(self) -> None:
        """Complete the calls made so far; writes that wait for capacity get an error."""
        if self._closing:
            return
        self._closing = True
        self.wake()
        while self._task:
            # Waited for, not awaited: a caller that is cancelled here must not cancel the commits.
            await asyncio.wait([self._task])
        self._fail_all(StorageError("The storage was closed before the queue had capacity for the write."))
        self._retry_at = None

    def refuse(self) -> None:
        """Accept no more calls; those that wait get an error."""
        self._closing = True
        self._fail_all(closed_error())

    def write(
        self,
        records: Sequence[Record],
        states: Sequence[StateChange | StateCheck],
        on_commit: Callable[[Written], None] | None = None,
    ) -> Awaitable[Written]:
        """Write records and states."""
        if self._closing:
            raise closed_error()
        write = PendingWrite(records, states, self._loop.create_future(), on_commit)
        self._writes.append(write)
        if self._task is None:
            self.wake()
        return write.future

    def wake(self) -> None:
        """Commit what waits, and try the writes again that wait for capacity: some may be free now."""
        self._retry_at = None
        if self._task is None and self._has_work():
            # Not in the context of the caller, which may be about an end user.
            self._task = self._context.run(self._begin)
            self._task.add_done_callback(self._finish)

    def _begin(self) -> "asyncio.Task[None]":
        return self._loop.create_task(self._run(), name="exponea_async: commits")

    # The task, which ends when there is nothing to do, so that the end of the event loop does not find it waiting

    def _has_work(self) -> bool:
        if self._writes or (self._locked and self._closing):
            return True
        return bool(self._blocked or self._locked) and self._retry_at is None

    async def _run(self) -> None:
        try:
            while self._has_work():
                await self._commit_next()
                if len(self._writes) < MAX_BATCH_RECORDS:
                    # Callers that write again at once have done so by then, and share the next commit. Where there are
                    # enough others, they write while the server makes it.
                    await asyncio.sleep(0)
        except BaseException:
            # The task has failed or was cancelled: callers must not wait for ever.
            self._fail_all(closed_error() if self._closing else StorageError("The commit was interrupted."))
            raise

    def _finish(self, task: "asyncio.Task[None]") -> None:
        self._task = None
        error = None if task.cancelled() else task.exception()
        if isinstance(error, KeyboardInterrupt | SystemExit):
            return
        if error is not None:
            LOG.critical("The task that commits has failed; the next write starts it again.", exc_info=error)
        if self._has_work():
            self.wake()
        elif self._retry_at is not None:
            self._loop.call_at(self._retry_at, self._retry, self._retry_at)

    def _retry(self, at: float) -> None:
        if self._retry_at == at:
            self.wake()

    async def _commit_next(self) -> None:
        writes = self._next_writes()
        if not writes:
            return
        try:
            async with self.lock:
                await self._commit(writes)
        except Exception as error:  # noqa: BLE001 - the callers get it, whatever it is, and the task continues
            if isinstance(error, StorageError) and not error.retryable:
                self._report(error)
            if is_outage(error):
                self._fail_overdue(self._overdue(writes), error)
            else:
                self._fail(writes, error)
        except BaseException:
            self._fail(writes, self._interrupted())
            raise

    def _interrupted(self) -> StorageError:
        """Return the error for callers whose commit was cancelled."""
        outcome = ", and whether it was made is not known" if self._is_uncertain else ""
        return StorageError(f"The commit was interrupted{outcome}.")

    def _overdue(self, writes: Sequence[PendingWrite]) -> list[PendingWrite]:
        """Return the writes that have waited long enough for the database, and let the others wait on."""
        limit = time.monotonic() + LONGEST_WAIT
        queue = self._blocked or self._writes
        if self._is_uncertain:
            overdue = list(writes)
        else:
            overdue = [write for write in writes if self._connections.deadline(write.since) <= limit]
            queue.extendleft(write for write in reversed(writes) if self._connections.deadline(write.since) > limit)
        while self._writes and self._connections.deadline(self._writes[0].since) <= limit:
            overdue.append(self._writes.popleft())
        return overdue

    def _fail_overdue(self, writes: Sequence[PendingWrite], error: Exception) -> None:
        """Give up writes after an outage; those that have waited for a locked state get that as the reason."""
        # The last attempts of a write have so little time that a database which is only slow does not answer in it.
        is_silent = isinstance(error.__cause__, TimeoutError) and not self._is_uncertain
        locked = locked_error(self._registration.location, is_silent=True)
        for write in writes:
            self._fail([write], locked if is_silent and write.is_locked else error)

    def _next_writes(self) -> list[PendingWrite]:
        """Take the writes of the next commit out of the queue."""
        chosen, count = [each for each in self._locked if not each.future.done()], 0
        self._locked = []
        limit = MAX_BATCH_RECORDS
        if self._capacity.when_full == "drop_oldest":
            # Not more than the whole queue: a write may replace those of the commit before.
            limit = min(limit, self._capacity.max_records)
        if self._blocked:
            self._queue_behind_blocked(chosen)
        queue = self._blocked or self._writes
        size = new = 0
        while queue and not (chosen and self._is_full(queue[0], limit - count, size, new)):
            write = queue.popleft()
            if not write.future.done():
                chosen.append(write)
                count, size, new = count + len(write.records), size + write.size, new + write.new_states
        return chosen

    @staticmethod
    def _is_full(write: PendingWrite, room: int, size: int, new: int) -> bool:
        """Return whether a commit has no room for another write."""
        return (
            len(write.records) > room
            or size + write.size > MAX_BATCH_SIZE
            or bool(new and new + write.new_states > MAX_NEW_STATES)
        )

    def _queue_behind_blocked(self, chosen: list[PendingWrite]) -> None:
        """Move new writes behind those that wait for capacity, and choose those that need none."""
        while self._writes:
            write = self._writes.popleft()
            (self._blocked if write.records else chosen).append(write)

    # One commit

    async def _commit(self, writes: Sequence[PendingWrite]) -> None:
        since = self._since(writes)
        if self._is_uncertain:
            # The number of a commit that may still be made must not be used for another one.
            await self._registration.renew(since)
            self._is_uncertain = False
        commit = Commit(writes, self._registration.commit + 1)
        count, size = sum(len(write.records) for write in writes), sum(write.size for write in writes)
        commit.room = await self._capacity.room_for(count, size, since)
        await self._run_commit(commit, since)
        self.count += any(write.written for write in writes)
        self._resolve(commit)

    def _since(self, writes: Sequence[PendingWrite]) -> float:
        """Return when the first call was made, without those that have waited for another transaction for long."""
        limit = time.monotonic() + LONGEST_WAIT
        calls = [write.since for write in writes]
        return min((since for since in calls if self._connections.deadline(since) > limit), default=max(calls))

    async def _run_commit(self, commit: Commit, since: float) -> None:
        """Run a commit until it is known that it is committed."""
        connections, wait, share = self._connections, FIRST_WAIT, FIRST_SHARE
        try:
            while True:
                try:
                    async with connections.limit(share * (connections.deadline(since) - time.monotonic())):
                        if await self._attempt(commit, since):
                            break
                    if time.monotonic() >= connections.deadline(since):
                        raise connections.translated(TimeoutError())
                except StorageError:
                    raise
                except (asyncpg.PostgresError, *RETRYABLE) as error:
                    if not isinstance(error, RETRYABLE):
                        raise connections.translated(error) from None
                    if time.monotonic() + wait >= connections.deadline(since):
                        raise self._give_up(commit, error) from shown(error)
                    await connections.pause(wait)
                    wait, share = min(2 * wait, LONGEST_WAIT), 1.0
        except BaseException:
            self._is_uncertain = commit.is_sent
            raise
        self._registration.commit = commit.number

    async def _attempt(self, commit: Commit, since: float) -> bool:
        """Find out whether a commit was made, or make it; return whether it is made."""
        if commit.is_sent and await self._is_committed(commit):
            return True
        commit.is_sent = False
        if not commit.ids:
            counts = Counter(record.route for write in commit.writes for record in write.records)
            reserve_ids = self._registration.reserve_ids
            commit.ids = {route: await reserve_ids(route, count, since) for route, count in counts.items()}
        try:
            if await self._try(commit):
                return True
        except asyncpg.UniqueViolationError:
            # A server that has lost its last commits has given the ids to another client, too.
            LOG.debug("Ids of %s were given twice; the records get other ones.", self._registration.location)
        except asyncpg.PostgresError as error:
            # Refused by the server, so it was not made, unless it is an error of the connection.
            commit.is_sent = commit.is_sent and isinstance(error, LOSSES)
            raise
        commit.is_sent, commit.ids = False, {}
        await self._registration.renew(since)
        commit.number = self._registration.commit + 1
        return False

    async def _try(self, commit: Commit) -> bool:
        """Run a commit once; return whether it could be made by this client and with these ids."""
        checks = merge_checks(commit.writes) if self._may_be_alone(commit) else None
        if checks is not None:
            async with self._connections.acquire() as connection:
                if await self._transaction(commit).run_alone(connection, checks):
                    return True
            if not checks:
                return False
        async with self._connections.transaction() as connection:
            return await self._transaction(commit).run(connection)

    def _may_be_alone(self, commit: Commit) -> bool:
        """Return whether a commit may be a single statement, unless its writes change states."""
        connections = self._connections
        if commit.room is not AMPLE or connections.keeps_transactions:
            return False
        return connections.is_own or not any(write.states for write in commit.writes)

    def _transaction(self, commit: Commit) -> CommitTransaction:
        return CommitTransaction(self._connections, self._registration, self._capacity, commit)

    async def _is_committed(self, commit: Commit) -> bool:
        """
        Return whether a commit whose connection was lost was made; it fails while that is still running.

        If it was not made, it gets another number, and can't be made under the old one any more.
        """
        sql, client = self._connections.sql, self._registration.client
        self._registration.discard_blocks()
        # It ends with a commit that is as durable as the one that is looked for, whose statement may have been canceled
        # while it waited for a standby.
        async with self._connections.transaction() as connection:
            last = await connection.fetchval(sql(LAST_COMMIT), client)
            if last is None:
                # The client was suspended for so long that others have deleted its row, or the server has lost it.
                raise self._unknown("")
            if last != commit.number:
                await connection.execute(sql(FENCE), client, commit.number + 1)
        if last == commit.number:
            return True
        self._registration.commit = commit.number + 1
        commit.number += 2
        return False

    def _give_up(self, commit: Commit, error: Exception) -> StorageError:
        """Return the error for callers that have waited long enough for a database that can't be reached."""
        translated = self._connections.translated(error)
        return self._unknown(translated.hint) if commit.is_sent else translated

    def _unknown(self, hint: str) -> StorageError:
        """Return the error for callers of a commit whose outcome is not known."""
        return StorageError(
            f"The connection to {self._connections.location} was lost during a commit, and it could not be found out in"
            " time whether it was made.",
            hint=hint,
        )

    # Results

    def _resolve(self, commit: Commit) -> None:
        for write in commit.writes:
            if write.written is not None:
                if write.on_commit is not None:
                    _report(write.on_commit, write.written)
                if not write.future.done():
                    write.future.set_result(write.written)
            elif write.error is not None and not write.future.done():
                write.future.set_exception(write.error)
        if commit.locked or commit.blocked:
            self._put_off(commit)

    def _put_off(self, commit: Commit) -> None:
        """Keep the writes that have to wait, and give those up that have waited too long for a locked state."""
        now = time.monotonic()
        for write in commit.locked:
            write.is_locked = True
            if self._connections.deadline(write.since) <= now:
                self._fail([write], locked_error(self._registration.location))
            else:
                self._locked.append(write)
        for write in commit.blocked:
            # The wait for capacity has no limit, and is not one for the database.
            write.since, write.is_locked = now, False
        self._blocked.extendleft(reversed(commit.blocked))
        self._retry_at = self._loop.time() + (LOCK_POLL if self._locked else CAPACITY_POLL)

    def _fail(self, writes: "Sequence[PendingWrite] | deque[PendingWrite]", error: Exception) -> None:
        for write in writes:
            if not write.future.done():
                # One that is raised for several callers collects the tracebacks of all.
                own = copy(error)
                own.__cause__ = error.__cause__
                write.future.set_exception(own)

    def _fail_all(self, error: Exception) -> None:
        for queue in (self._writes, self._blocked, self._locked):
            self._fail(queue, error)
            queue.clear()


def _report(on_commit: Callable[[Written], None], written: Written) -> None:
    try:
        on_commit(written)
    except Exception:
        # It was committed all the same, and so were the writes of the others.
        LOG.exception("Unexpected error after a commit; continuing.")
