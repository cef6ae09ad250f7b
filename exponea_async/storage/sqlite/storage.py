"""
The storage in an SQLite file: durable, shared by the processes of one machine, with one commit for many callers.
"""

import asyncio
import logging
import sqlite3
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack, suppress
from functools import partial
from itertools import count
from pathlib import Path
from typing import Literal, TypeVar

from exponea_async._internal.closing import run_thread_to_end, wait_until_done
from exponea_async.errors import DamagedFileError, StorageError, WipedFileError
from exponea_async.storage.base import (
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
from exponea_async.storage.clock import to_uptime
from exponea_async.storage.erasure import Erased, Erasure
from exponea_async.storage.sqlite import erasing, forking, leases, queries, space
from exponea_async.storage.sqlite.connection import MovedFileError, QueueConnection
from exponea_async.storage.sqlite.file import absolute, is_damage, is_disk_full, move_aside, open_file, storage_error
from exponea_async.storage.sqlite.folder import locked
from exponea_async.storage.sqlite.group_commit import Finish, GroupCommitter, Work
from exponea_async.storage.sqlite.patience import Patience
from exponea_async.storage.sqlite.salvage import replaced
from exponea_async.storage.sqlite.thread import ConnectionThread
from exponea_async.storage.sqlite.wiping import finish_wipe, wipe

#: The largest number in SQLite.
NO_LIMIT = (1 << 63) - 1

LOG = logging.getLogger("exponea_async")

T = TypeVar("T")

#: How often one call continues in a new file. Other processes may move or wipe several, one after the other.
MAX_REPLACEMENTS = 5
#: How long SQLite waits for another process's lock, in seconds.
LOCK_TIMEOUT = 5.0


class SQLiteStorage:
    """
    The default storage.

    Concurrent writes share a transaction: each ``write()`` returns when the transaction with its records is committed.
    Several processes may use one file. The file and its companions are readable by their owner only.

    Args:
        path: The file; it is created, with its folder, if it does not exist.
        durability: ``"process"`` survives the death of the process, ``"power"`` that of the machine, too.
        max_records: The capacity of the queue.
        max_bytes: The same for the size of the file, or None.
        when_full: What happens to a write that exceeds it: ``"raise"``, ``"wait"`` or ``"drop_oldest"``.
        report: Called with a `DamagedFileError` when a new file has replaced a damaged or lost one, and with a
            `WipedFileError` when another client has wiped the queue.
        lock_timeout: How long to wait for another process's lock on the file, in seconds.
        follow_links: Whether the path may be that of a symbolic link.
    """

    def __init__(
        self,
        path: Path | str,
        *,
        durability: Literal["process", "power"] = "process",
        max_records: int = 1_000_000,
        max_bytes: int | None = None,
        when_full: Literal["raise", "wait", "drop_oldest"] = "raise",
        report: Callable[[StorageError], None] = lambda _: None,
        lock_timeout: float = LOCK_TIMEOUT,
        follow_links: bool = False,
    ) -> None:
        self.path = Path(path)
        self._follow_links = follow_links
        self._patience = Patience(lock_timeout)
        self._new_connection = partial(
            QueueConnection, patience=self._patience, max_records=max_records, max_bytes=max_bytes, when_full=when_full
        )
        self._synchronous = "FULL" if durability == "power" else "NORMAL"
        self._report = report
        self._lock_timeout = lock_timeout
        self._connection: ConnectionThread | None = None
        self._loss: DamagedFileError | None = None
        # The number of the last wipe, by which one of another client is noticed; None if this storage does not know it.
        self._wipe_number: int | None = None
        self._number = 0
        self._committer = GroupCommitter(self._submit, partial(self._call, to_end=True), self._patience)

    @property
    def commits(self) -> int:
        """The number of transactions committed so far."""
        return self._committer.count

    @property
    def number(self) -> int:
        """The number of this opening."""
        return self._number

    # Life cycle

    async def open(self) -> None:
        """
        Open the file, moving a damaged one aside; opening it again does nothing.

        Raises:
            StorageError: The file cannot be used.
        """
        if not self._committer.is_running:
            # A closing that was cancelled may have left calls.
            await self._committer.wait_closed()
            self._patience.reset()
            self._patience.begin(time.monotonic())
            try:
                await self._open()
            except BaseException:
                # A caller whose opening failed or was cancelled does not close.
                await self._disconnect()
                raise
            self._committer.start()

    async def _open(self) -> None:
        while True:
            # A wipe before now does not matter, even one between the steps of opening.
            self._wipe_number = None
            with suppress(WipedFileError):
                return await self._call(self._take_number)

    async def aclose(self, timeout: float | None = None) -> None:  # noqa: ASYNC109 - see `Storage.aclose`
        """Commit the calls made so far and close the file; closing it again does nothing."""
        was_open = self._committer.is_running
        if timeout is not None:
            self._patience.end_within(timeout)
        try:
            await self._committer.aclose()
            if was_open:
                # What was committed last may be in a file that was deleted at the same time.
                await self._tidy()
            await self._disconnect()
        finally:
            # It is still connected if this is cancelled, because the event loop ends.
            if was_open and not self._committer.is_running:
                self.abandon()

    async def _tidy(self) -> None:
        try:
            await self._call(space.tidy_before_close)
        except WipedFileError:
            return
        except StorageError as error:
            if self._connection is not None and await self._connection.is_moved():
                # It could not be copied into the file that has replaced it.
                self._loss = DamagedFileError(str(self.path), "", str(error.__cause__ or error))
                self._report_loss()

    def abandon(self) -> None:
        """Close the file without waiting, as where the event loop has ended, and the calls with it."""
        self._committer.abandon()
        self._let_go()
        # What still waits opens the file again.
        self._committer.when_drained(self._let_go)

    def _let_go(self) -> None:
        connection, self._connection = self._connection, None
        if connection:
            connection.abandon()

    def _take_number(self, connection: QueueConnection) -> None:
        connection.check_path()
        self._number = connection.take_number()

    async def _connect(self) -> ConnectionThread:
        connection = ConnectionThread(self._open_file)
        try:
            await connection.open()
        except WipedFileError as error:
            if self._committer.is_running:
                asyncio.get_running_loop().call_soon(self._report, error)
            raise
        self._connection = connection
        self._report_loss()
        return connection

    def _open_file(self) -> QueueConnection:
        """Open the file, or a new one in place of a damaged one; on the connection's thread, as all disk access."""
        path = self._fix_path()
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        open_once = partial(
            open_file,
            path,
            partial(self._new_connection, path),
            synchronous=self._synchronous,
            timeout=self._lock_timeout,
        )
        with locked(path.parent):
            finish_wipe(path)
            connection = self._open_or_replace(open_once)
            with ExitStack() as on_error:
                on_error.callback(connection.close)
                # Before the folder is free: another client's wipe empties the file.
                self._check_wipe(connection)
                on_error.pop_all()
        return connection

    def _open_or_replace(self, open_once: Callable[[], QueueConnection]) -> QueueConnection:
        try:
            return open_once()
        except DamagedFileError as error:
            connection = open_once()
            with ExitStack() as on_error:
                on_error.callback(connection.close)
                self._loss = replaced(connection, error.moved_to, str(error.__cause__))
                on_error.pop_all()
            return connection

    def _fix_path(self) -> Path:
        self.path = absolute(self.path, follow_links=self._follow_links)
        return self.path

    def _check_wipe(self, connection: QueueConnection) -> None:
        """Raise a `WipedFileError` if another client has wiped the queue since this storage was opened."""
        wipe_number = connection.counter("wiped")
        if self._wipe_number is not None and wipe_number not in (0, self._wipe_number):
            raise WipedFileError(str(self.path))
        if self._wipe_number and not wipe_number:
            # The file replaces a damaged or deleted one. Clients that have the wiped file must still notice the wipe.
            with connection.write_transaction():
                connection.set_counter("wiped", self._wipe_number)
        self._wipe_number = wipe_number or self._wipe_number or 0

    async def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection:
            await connection.close()

    def _report_loss(self) -> None:
        loss, self._loss = self._loss, None
        if loss:
            level = logging.ERROR if loss.moved_to or loss.lost else logging.WARNING
            LOG.log(level, "%s", loss, extra={"exponea_event": "damaged", "exponea_queue": str(self.path)})
            asyncio.get_running_loop().call_soon(self._report, loss)

    # The connection's thread

    def _submit(self, work: Work, finish: Finish) -> bool:
        """Start work on the connection's thread, and return whether there is a connection."""
        return self._connection is not None and self._connection.submit(work, finish)

    async def _call(self, work: Work, error: Exception | None = None, *, to_end: bool = False) -> None:
        """
        Run work on the connection's thread; if the file proves damaged or moved, once more on a new file.

        Args:
            work: The work.
            error: The error of an attempt that was made before.
            to_end: Whether this waits for the end of work that has begun though it is cancelled.

        Raises:
            StorageError: The file cannot be used.
        """
        try:
            connection = self._connection or await self._connect()
            for attempt in count():
                try:
                    if error is not None:
                        raise error
                    running = connection.begin(work)
                    if to_end:
                        await wait_until_done(running)
                    return await running
                except (sqlite3.DatabaseError, MovedFileError) as raised:
                    is_gone = isinstance(raised, MovedFileError) or await connection.is_moved()
                    can_replace = is_gone or (not attempt and is_damage(raised))
                    if not can_replace or attempt == MAX_REPLACEMENTS:
                        raise
                    connection = await self._replace_file(connection, raised)
                    error = None
        except Exception as raised:
            translated = storage_error(raised, self.path)
            if translated is None or translated is raised:
                raise
            raise translated from raised

    async def _replace_file(self, old: ConnectionThread, error: Exception) -> ConnectionThread:
        """
        Continue in a new file, with what can be read of the old one.

        The old file may exist nowhere but in its connection, so that is closed last.
        """
        is_wiped = self._wipe_number is None
        moved_to = await old.call(lambda connection: move_aside(self.path, connection.inode, connection.log_inode))
        source: QueueConnection = await old.call(lambda connection: connection)
        try:
            new = await self._connect()
        except WipedFileError:
            # Nothing must be copied.
            self._connection = None
            await old.close()
            raise
        except BaseException:
            self._connection = old
            raise
        if is_wiped:
            # By this storage: nothing must be copied.
            await old.close()
            return new
        copying = new.begin(
            lambda connection: replaced(connection, moved_to, str(error), source, keep=is_damage(error))
        )
        try:
            # Also where this is cancelled: the old file is read until then.
            await wait_until_done(copying)
        finally:
            if not copying.done():
                # The event loop was closed, and nothing can be waited for any more.
                new.abandon()
            elif copying.exception() is None:
                self._loss = copying.result()
                self._report_loss()
                await old.close()
            else:
                # What the old file holds may be nowhere else: the next call copies it.
                self._connection = old
                await new.close()
        copying.result()
        return new

    async def run(self, work: Callable[[QueueConnection], T]) -> T:
        """Run work on the connection's thread, outside of any transaction."""
        return await self._committer.run(work)

    # The protocol

    async def write(
        self,
        records: Sequence[Record],
        states: Sequence[StateChange | StateCheck] = (),
        on_commit: Callable[[Written], None] | None = None,
    ) -> Written:
        """Write records and states, in one commit with the writes of other callers."""
        return await self._committer.write(records, states, on_commit)

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
        """Lease due records."""
        start = to_uptime(now)
        due = start + min(seconds, MAX_DUE_AHEAD)
        request = leases.LeaseRequest(limit, due, start, frozenset(skip), only, untouched_first=untouched_first)
        return await self._committer.lease(request)

    async def settle(self, settlements: Sequence[Settlement]) -> int:
        """Store the outcome of leased records."""
        # Now, since the system's clock may be set while this waits for another program's lock.
        timed = [(each, to_uptime(each.due)) for each in settlements]
        try:
            return await self._committer.change(lambda connection: leases.settle(connection, timed))
        except WipedFileError:
            # The records are gone, whatever became of them.
            return 0
        except StorageError as error:
            halves = leases.halves(settlements) if is_disk_full(error) else ()
            if not halves:
                raise
            # What is deleted is written to the log first. In small steps, the log can be emptied in between.
            return sum([await self.settle(half) for half in halves])

    async def find(self, ids: Iterable[str]) -> dict[str, RecordStatus]:
        """Return what became of records, by id."""
        wanted = list(ids)
        return await self._committer.read(lambda connection: queries.find(connection, wanted))

    async def watermark(self) -> Watermark:
        """Return the watermark of all records written so far."""
        return await self._committer.read(queries.watermark)

    async def remaining(self, watermark: Watermark, *, skip: Iterable[str] = (), at_most: int | None = None) -> int:
        """Return how many records at or below a watermark are still in the queue."""
        skipped, limit = frozenset(skip), NO_LIMIT if at_most is None else at_most
        return await self._committer.read(lambda connection: queries.remaining(connection, watermark, skipped, limit))

    async def pending(self) -> Pending:
        """Return the number of records."""
        return await self._committer.read(queries.pending)

    async def waiting(self, limit: int) -> list[Waiting]:
        """Return the oldest records of the queue."""
        return await self._committer.read(lambda connection: queries.waiting(connection, limit))

    async def dead(self, limit: int) -> list[DeadLetter]:
        """Return the newest dead letters."""
        return await self._committer.read(lambda connection: queries.dead(connection, limit))

    async def revive(self, ids: Iterable[str] | None = None) -> int:
        """Put dead letters back into the queue."""
        wanted = None if ids is None else list(ids)
        return await self._committer.change(lambda connection: queries.revive(connection, wanted))

    async def purge(self, ids: Iterable[str] | None = None) -> int:
        """Delete dead letters."""
        wanted = None if ids is None else list(ids)
        return await self._committer.change(lambda connection: queries.purge(connection, wanted))

    async def prune(self, *, max_count: int | None = None, before: float = 0.0) -> tuple[str, ...]:
        """Delete the oldest dead letters."""
        most = min(max_count, NO_LIMIT) if max_count is not None else NO_LIMIT
        # It is called for each rejection, and hardly ever deletes anything.
        if not await self._committer.read(lambda connection: queries.must_prune(connection, most, before)):
            return ()
        return await self._committer.change(lambda connection: queries.prune(connection, most, before))

    async def rename_route(self, old: str, new: str) -> None:
        """Give the records of a route another one."""
        await self._committer.change(lambda connection: queries.rename_route(connection, old, new))

    async def drop_waiting(self, routes: Iterable[str]) -> int:
        """Delete the records of some routes."""
        names = frozenset(routes)
        return await self._committer.change(lambda connection: queries.drop_waiting(connection, names))

    async def erase(self, erasure: Erasure) -> Erased:
        """Erase records, dead letters and states."""
        # Behind the writes of calls that were made before, so that the erasure includes them.
        await self.write((), ())
        return await self._committer.change(lambda connection: erasing.erase(connection, erasure))

    async def load_state(self, key: str) -> State | None:
        """Return a state, or None."""
        return await self._committer.read(lambda connection: queries.load_state(connection, key))

    async def expired_sessions(self, before: float, limit: int) -> list[tuple[str, State]]:
        """Return the states whose last activity is before a time."""
        while True:
            found = await self._committer.read(lambda connection: queries.expired_sessions(connection, before, limit))
            if found is not None:
                return found
            await self._committer.change(lambda connection: queries.relist(connection, before, limit))

    async def reserve(self, name: str, count: int, rate: float) -> float:
        """Reserve requests of a rate limit that all processes with this file share."""
        return await self._committer.change(lambda connection: queries.reserve(connection, name, count, rate))

    def subscribe(self, callback: Callable[[], None]) -> None:
        """Do nothing: SQLite does not report what other processes write."""

    async def generation(self) -> int:
        """Return the number that identifies the content of the file."""
        return await self._committer.read(queries.generation)

    async def compact(self) -> int:
        """Rewrite the file without unused space."""
        return await self.run(space.compact)

    async def wipe(self) -> None:
        """Delete everything, with all copies, and erase it from the disk; also while the storage is closed."""
        if not self._committer.is_running:
            await run_thread_to_end(partial(forking.call_between_forks, lambda: wipe(self._fix_path())))
            return
        is_wiped = False

        def work(_: QueueConnection) -> None:
            nonlocal is_wiped
            # The file that is open is gone afterwards, so this runs once more on the new one.
            if not is_wiped:
                wipe(self._fix_path())
                is_wiped = True
                self._wipe_number = None

        try:
            await self.run(work)
        except StorageError:
            # There may be no space for a new file yet.
            if not is_wiped:
                raise
