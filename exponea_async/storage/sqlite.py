"""
The queue in an SQLite file: durable, shared by the processes of one machine, with one commit for many callers.
"""

import asyncio
import contextlib
import logging
import os
import sqlite3
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar

import aiosqlite

from exponea_async.errors import DamagedFileError, StorageError
from exponea_async.storage._ledger import Entry, Ledger
from exponea_async.storage.base import (
    DeadLetter,
    Leased,
    Mark,
    Pending,
    Record,
    Settlement,
    State,
    StateChange,
    StateCheck,
    Written,
)

T = TypeVar("T")

LOG = logging.getLogger("exponea_async")

#: Records in one transaction; larger ones only make the others wait.
GROUP = 500
#: How long a commit waits for company once callers have come in company, in seconds.
WINDOW = 0.002
#: How long writers that wait for room sleep before they look again, in seconds. A settlement wakes them at once.
ROOM_POLL = 0.05
#: How long SQLite waits for another process's lock, in seconds.
LOCK_TIMEOUT = 5.0


class _Job:
    """Something else to be done in the next transaction: a lease or a settlement."""

    __slots__ = ("error", "future", "result", "work")

    def __init__(self, work: Callable[[Ledger], Any], future: "asyncio.Future[Any]") -> None:
        self.work = work
        self.future = future
        self.result: Any = None
        self.error: Exception | None = None


class _Write(Entry):
    __slots__ = ("future",)

    def __init__(
        self, records: Sequence[Record], states: Sequence[StateChange | StateCheck], future: "asyncio.Future[Written]"
    ) -> None:
        super().__init__(records, states)
        self.future = future


class SQLiteStorage:
    """
    The default storage.

    Concurrent writers share a transaction: each ``write()`` returns when the one that carries it is committed.
    Several processes may use one file. The file and its companions are readable by their owner only.

    Args:
        path: The file; made with its folder if it is not there.
        durability: ``"process"`` survives the death of the process, ``"power"`` that of the machine too.
        max_records: How many records may wait.
        when_full: What happens to a write without room: ``"raise"``, ``"wait"`` or ``"drop_oldest"``.
        report: Called with the error when a damaged file was moved aside.
        window: How long a commit waits for company at the most, in seconds; never when the queue was idle.
    """

    def __init__(
        self,
        path: Path | str,
        *,
        durability: Literal["process", "power"] = "process",
        max_records: int = 1_000_000,
        when_full: Literal["raise", "wait", "drop_oldest"] = "raise",
        report: Callable[[DamagedFileError], None] = lambda _: None,
        window: float = WINDOW,
    ) -> None:
        self.path = Path(path)
        self.commits = 0
        self._durability = durability
        self._max_records = max_records
        self._when_full = when_full
        self._report = report
        self._window = window
        self._connection: aiosqlite.Connection | None = None
        self._ledger: Ledger | None = None
        self._inode = 0
        self._writes: deque[_Write] = deque()
        self._jobs: deque[_Job] = deque()
        self._wake: asyncio.Future[None] | None = None
        self._company = 1
        self._until = 0.0
        self._mended = asyncio.Lock()
        self._writer: asyncio.Task[None] | None = None
        self._closing = False

    # Life

    async def open(self) -> None:
        """Open the file, mending or moving it aside where needed."""
        await self._connect()
        self._writer = asyncio.create_task(self._commit_for_ever(), name="exponea_async: commits")

    async def aclose(self) -> None:
        """Commit what was asked for and close the file; idempotent."""
        self._closing = True
        if self._writer:
            self._rouse()
            await self._writer
            self._writer = None
        await self._disconnect()

    async def _connect(self) -> None:
        try:
            await self._connect_once()
        except (sqlite3.Error, OSError) as error:
            if not isinstance(error, sqlite3.Error) or not _is_damage(error):
                raise _translated(error, self.path) from error
            await self._replace(str(error))

    async def _connect_once(self) -> None:
        connection = aiosqlite.connect(self.path, timeout=LOCK_TIMEOUT, isolation_level=None, factory=self._open_ledger)
        # An application that forgets to close the client must still be able to exit.
        setattr(getattr(connection, "_thread", connection), "daemon", True)  # noqa: B010 - older versions are threads
        self._connection = await connection

    def _open_ledger(self, *args: Any, **kwargs: Any) -> Ledger:
        """Run on the connection's thread: whatever touches the disk is done here."""
        _make_file(self.path)
        ledger = Ledger(*args, **kwargs)
        try:
            ledger.execute("PRAGMA journal_mode = WAL")
            ledger.execute(f"PRAGMA synchronous = {'FULL' if self._durability == 'power' else 'NORMAL'}")
            ledger.migrate()
            ledger.pending()
        except BaseException:
            ledger.close()
            raise
        ledger.max_records, ledger.when_full = self._max_records, self._when_full
        self._inode = self.path.stat().st_ino
        self._ledger = ledger
        return ledger

    async def _disconnect(self) -> None:
        connection, self._connection, self._ledger = self._connection, None, None
        if connection:
            with contextlib.suppress(sqlite3.Error, ValueError):
                await connection.close()

    async def _replace(self, reason: str) -> None:
        """Move a damaged file aside, unless another process has done so already, and start a fresh one."""
        inode = self._inode
        await self._disconnect()
        moved_to = await asyncio.to_thread(_move_aside, self.path, inode)
        try:
            await self._connect_once()
        except (sqlite3.Error, OSError) as error:
            raise _translated(error, self.path) from error
        if moved_to:
            damage = DamagedFileError(str(self.path), moved_to, reason)
            LOG.error("%s", damage)
            self._report(damage)

    # The street: callers queue up, one task commits

    async def write(self, records: Sequence[Record], states: Sequence[StateChange | StateCheck] = ()) -> Written:
        """Keep records and states in one commit, shared with whoever writes at the same time."""
        self._check_open()
        future: asyncio.Future[Written] = asyncio.get_running_loop().create_future()
        self._writes.append(_Write(records, states, future))
        if len(self._writes) >= self._company:
            self._rouse()
        return await future

    async def lease(
        self, limit: int, seconds: float, now: float, *, skip: Iterable[str] = (), only: str | None = None
    ) -> list[Leased]:
        """Take due records."""
        skipped = frozenset(skip)
        # A look first: an idle queue is polled often, and must not be written to for that.
        if not self._writes and not await self._call(lambda ledger: ledger.has_due(now, skipped, only)):
            return []
        return await self._join(lambda ledger: ledger.lease(limit, now + seconds, now, skipped, only))

    async def settle(self, settlements: Sequence[Settlement]) -> int:
        """Act on verdicts, in the next transaction."""
        return await self._join(lambda ledger: sum(map(ledger.settle, settlements)))

    async def _join(self, work: Callable[[Ledger], T]) -> T:
        """Have work done in the writer's next transaction."""
        self._check_open()
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._jobs.append(_Job(work, future))
        self._rouse()
        return await future

    def _check_open(self) -> None:
        if self._closing or self._connection is None:
            raise StorageError("The storage is closed.")

    def _rouse(self) -> None:
        if self._wake is not None and not self._wake.done():
            self._wake.set_result(None)

    async def _commit_for_ever(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            while not self._closing or self._writes or self._jobs:
                await self._gather()
                self._until = loop.time() + self._window
                await self._commit(*self._take_group())
        finally:
            # Reached with callers still waiting only if the loop broke: they must not wait for ever.
            self._closing = True
            _fail_all([*self._writes, *self._jobs], StorageError("The storage is closed."))

    async def _gather(self) -> None:
        """
        Wait for work.

        Callers that came in company are likely to come again in company, so a commit waits for as many as the one
        before had, but not longer than the window. A lone caller never waits.
        """
        loop = asyncio.get_running_loop()
        while not (self._closing or self._jobs or len(self._writes) >= self._company):
            self._wake = loop.create_future()
            timer = loop.call_at(self._until, self._expect_nobody) if self._company > 1 else None
            await self._wake
            self._wake = None
            if timer:
                timer.cancel()

    def _expect_nobody(self) -> None:
        self._company = 1
        self._rouse()

    def _take_group(self) -> tuple[list[_Write], list[_Job]]:
        writes: list[_Write] = []
        count = 0
        while self._writes and count < GROUP:
            write = self._writes.popleft()
            if not write.future.cancelled():
                writes.append(write)
                count += len(write.records)
        jobs = list(self._jobs)
        self._jobs.clear()
        return writes, jobs

    async def _commit(self, writes: list[_Write], jobs: list[_Job]) -> None:
        def steps(ledger: Ledger) -> None:
            ledger.append(writes)
            for job in jobs:
                job.result = job.work(ledger)

        if not writes and not jobs:
            return
        self._company = max(1, len(writes))
        try:
            await self._call(lambda ledger: ledger.transact(lambda: steps(ledger)))
        except StorageError as error:
            _fail_all([*writes, *jobs], error)
            return
        self.commits += 1
        for job in jobs:
            _answer(job.future, job.result)
        for write in writes:
            if write.error:
                _fail(write.future, write.error)
            elif write.written:
                _answer(write.future, write.written)
        self._hold_back([write for write in writes if write.blocked])

    def _hold_back(self, blocked: list[_Write]) -> None:
        """Put writers without room back in front, until a settlement makes some or a while has passed."""
        if self._closing:
            for write in blocked:
                _fail(write.future, StorageError("The storage was closed before there was room in the queue."))
        elif blocked:
            self._writes.extendleft(reversed(blocked))
            self._company = sys.maxsize
            self._until = asyncio.get_running_loop().time() + ROOM_POLL

    # One hop to the connection's thread

    async def _call(self, work: Callable[[Ledger], T]) -> T:
        """Run work on the connection's thread; where the file proves damaged, once more on a fresh one."""
        async with self._mended:
            inode = self._inode
        try:
            return await self._hop(work)
        except sqlite3.DatabaseError as error:
            if not _is_damage(error):
                raise _translated(error, self.path) from error
            reason = str(error)
        async with self._mended:
            if inode == self._inode:
                await self._replace(reason)
        try:
            return await self._hop(work)
        except sqlite3.Error as error:
            raise _translated(error, self.path) from error

    async def _hop(self, work: Callable[[Ledger], T]) -> T:
        connection, ledger = self._connection, self._ledger
        if connection is None or ledger is None:
            raise StorageError("The storage is closed.")
        results: list[T] = []
        ledger.jobs.append(lambda: results.append(work(ledger)))
        await connection.commit()
        return results[0]

    async def _change(self, work: Callable[[Ledger], T]) -> T:
        """Run work in a transaction of its own."""
        results: list[T] = []
        await self._call(lambda ledger: ledger.transact(lambda: results.append(work(ledger))))
        return results[-1]

    async def find(self, ids: Iterable[str]) -> dict[str, str]:
        """Tell the fate of records."""
        wanted = list(ids)
        return await self._call(lambda ledger: ledger.find(wanted))

    async def mark(self) -> Mark:
        """Draw a line under what is written."""
        return await self._call(Ledger.mark)

    async def remaining(self, mark: Mark, *, skip: Iterable[str] = ()) -> int:
        """Count what is left from before a mark."""
        skipped = frozenset(skip)
        return await self._call(lambda ledger: ledger.remaining(mark, skipped))

    async def pending(self) -> Pending:
        """Count what is here."""
        return await self._call(Ledger.pending)

    async def waiting(self, limit: int) -> list[Leased]:
        """Look at the oldest waiting records."""
        return await self._call(lambda ledger: ledger.waiting(limit))

    async def dead(self, limit: int) -> list[DeadLetter]:
        """Look at the newest dead letters."""
        return await self._call(lambda ledger: ledger.dead(limit))

    async def revive(self, ids: Iterable[str] | None = None) -> int:
        """Put dead letters back into the queue."""
        wanted = None if ids is None else list(ids)
        return await self._change(lambda ledger: ledger.revive(wanted))

    async def purge(self, ids: Iterable[str] | None = None) -> int:
        """Delete dead letters."""
        wanted = None if ids is None else list(ids)
        return await self._change(lambda ledger: ledger.purge(wanted))

    async def load_state(self, key: str) -> State | None:
        """Look a remembered value up."""
        return await self._call(lambda ledger: ledger.load_state(key))

    async def wipe(self) -> None:
        """Delete everything, from the disk too."""
        await self._call(Ledger.wipe)


def _answer(future: "asyncio.Future[T]", result: T) -> None:
    if not future.done():
        future.set_result(result)


def _fail(future: "asyncio.Future[Any]", error: StorageError) -> None:
    if not future.done():
        future.set_exception(error)


def _fail_all(members: "Sequence[_Write | _Job]", error: StorageError) -> None:
    for member in members:
        _fail(member.future, error)


def _is_damage(error: sqlite3.Error) -> bool:
    # Errors that the sqlite3 module itself raises carry no code; the upper bits tell details.
    return getattr(error, "sqlite_errorcode", 0) & 0xFF in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


def _translated(error: Exception, path: Path) -> StorageError:
    hints = {
        "full": "Free some disk space.",
        "locked": "Another process holds the file for long; keep other tools off it.",
        "readonly": "Give this process the right to write the file and its folder.",
        "unable to open": "Give this process the right to write the file and its folder.",
    }
    text = str(error)
    hint = next((hint for word, hint in hints.items() if word in text), "")
    return StorageError(f"The queue file {path} refused: {text}.", hint=hint)


def _make_file(path: Path) -> None:
    """Make a file that only its owner can read; SQLite gives its companions the same mode."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
    if path.stat().st_mode & 0o077:
        path.chmod(0o600)


def _move_aside(path: Path, inode: int) -> str:
    """Rename a damaged file and its companions; returns the new name, or nothing if it is no longer there."""
    try:
        if inode and path.stat().st_ino != inode:
            return ""
    except FileNotFoundError:
        return ""
    target = path.with_name(f"{path.name}.damaged-{time.strftime('%Y%m%dT%H%M%S')}-{os.getpid()}")
    # The companions first: a fresh file must never meet the old one's log.
    for suffix in ("-wal", "-shm", ""):
        with contextlib.suppress(FileNotFoundError):
            Path(f"{path}{suffix}").rename(f"{target}{suffix}")
    return str(target)
