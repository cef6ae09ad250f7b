"""
The queue in an SQLite file: durable, shared by the processes of one machine, with one commit for many callers.
"""

import asyncio
import contextlib
import logging
import sqlite3
import threading
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Literal

import aiosqlite

from exponea_async.errors import DamagedFileError
from exponea_async.storage.base import (
    MAX_DUE_AHEAD,
    DeadLetter,
    Leased,
    Pending,
    Record,
    Settlement,
    State,
    StateChange,
    StateCheck,
    Watermark,
    Written,
)
from exponea_async.storage.sqlite import leases as _claims
from exponea_async.storage.sqlite import queries as _queries
from exponea_async.storage.sqlite.connection import MovedFileError, QueueConnection
from exponea_async.storage.sqlite.file import is_damage, move_aside, open_ledger, translated
from exponea_async.storage.sqlite.group_commit import WINDOW, GroupCommitter

LOG = logging.getLogger("exponea_async")

#: How long SQLite waits for another process's lock, in seconds.
LOCK_TIMEOUT = 5.0


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
        lock_timeout: How long to wait for another process's lock on the file, in seconds.
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
        lock_timeout: float = LOCK_TIMEOUT,
    ) -> None:
        self.path = Path(path)
        self._synchronous = "FULL" if durability == "power" else "NORMAL"
        self._max_records = max_records
        self._when_full = when_full
        self._report = report
        self._lock_timeout = lock_timeout
        self._connection: aiosqlite.Connection | None = None
        self._ledger: QueueConnection | None = None
        self._damage: DamagedFileError | None = None
        self._commits = GroupCommitter(self._hop, window)

    @property
    def commits(self) -> int:
        """How many transactions have been committed."""
        return self._commits.count

    # Life

    async def open(self) -> None:
        """
        Open the file, moving it aside where it is damaged; idempotent.

        Raises:
            StorageError: The file can't be used.
        """
        if not self._commits.serving:
            try:
                await self._hop(lambda _: None)
            except BaseException:
                # Who gives up opening is not going to close.
                await self._disconnect()
                raise
            self._commits.start()

    async def aclose(self) -> None:
        """Commit what was asked for and close the file; idempotent."""
        await self._commits.aclose()
        await self._disconnect()

    async def _connect(self) -> tuple[aiosqlite.Connection, QueueConnection]:
        connection = aiosqlite.connect(
            self.path,
            timeout=self._lock_timeout,
            isolation_level=None,
            factory=self._open_ledger,
        )
        thread: Any = getattr(connection, "_thread", connection)  # older versions are threads
        # An application that forgets to close the client must still be able to exit.
        thread.daemon = True
        opening = asyncio.ensure_future(connection)
        try:
            self._connection = await asyncio.shield(opening)
        except BaseException:
            await self._abandon(opening, thread)
            raise
        damage, self._damage = self._damage, None
        if damage and damage.moved_to:
            LOG.error("%s", damage)
            asyncio.get_running_loop().call_soon(self._report, damage)
        assert self._ledger  # noqa: S101 - the factory has set it
        return self._connection, self._ledger

    async def _abandon(self, opening: "asyncio.Future[aiosqlite.Connection]", thread: threading.Thread) -> None:
        """See an opening through that failed, or whose caller was cancelled."""
        await asyncio.wait([opening])
        if opening.exception() is None:
            self._connection = opening.result()
            await self._disconnect()
        else:
            # Told to end but not waited for: it would answer to a loop that may be closed by then.
            await asyncio.to_thread(thread.join)

    def _open_ledger(self, *args: Any, **kwargs: Any) -> QueueConnection:
        """Run on the connection's thread: whatever touches the disk is done here."""

        def attempt() -> QueueConnection:
            return open_ledger(
                self.path, lambda: QueueConnection(*args, **kwargs), self._synchronous, self._lock_timeout
            )

        try:
            ledger = attempt()
        except DamagedFileError as damage:
            self._damage = damage
            ledger = attempt()
        if self._damage:
            ledger.start_over()
        ledger.max_records, ledger.when_full = self._max_records, self._when_full
        self._ledger = ledger
        return ledger

    async def _disconnect(self) -> None:
        connection, self._connection, self._ledger = self._connection, None, None
        if connection:
            with contextlib.suppress(sqlite3.Error, ValueError):
                await connection.close()

    # One hop to the connection's thread

    async def _hop(self, work: Callable[[QueueConnection], None]) -> None:
        """
        Run work on the connection's thread; where the file proves damaged or gone, once more on a fresh one.

        Raises:
            StorageError: The file can't be used.
        """
        try:
            try:
                await self._run(work)
            except (sqlite3.DatabaseError, MovedFileError) as error:
                if not isinstance(error, MovedFileError) and not is_damage(error):
                    raise
                await self._give_up_file(error)
                await self._run(work)
        except Exception as error:
            translation = translated(error, self.path)
            if translation is None or translation is error:
                raise
            raise translation from error

    async def _run(self, work: Callable[[QueueConnection], None]) -> None:
        connection, ledger = self._connection, self._ledger
        if connection is None or ledger is None:
            connection, ledger = await self._connect()

        def job() -> None:
            work(ledger)
            ledger.check_place()

        ledger.jobs.append(job)
        await connection.commit()

    async def _give_up_file(self, error: Exception) -> None:
        """Leave a file that is damaged, moving it aside, or that another process has moved already."""
        if self._ledger and is_damage(error):
            moved_to = await asyncio.to_thread(move_aside, self.path, self._ledger.inode)
            self._damage = DamagedFileError(str(self.path), moved_to, str(error))
        else:
            LOG.warning("The queue file %s has been moved or deleted; a fresh one is in use.", self.path)
        await self._disconnect()

    # Callers

    async def write(self, records: Sequence[Record], states: Sequence[StateChange | StateCheck] = ()) -> Written:
        """Keep records and states in one commit, shared with whoever writes at the same time."""
        return await self._commits.write(records, states)

    async def lease(
        self, limit: int, seconds: float, now: float, *, skip: Iterable[str] = (), only: str | None = None
    ) -> list[Leased]:
        """Take due records."""
        claim = _claims.LeaseRequest(limit, now + min(seconds, MAX_DUE_AHEAD), now, frozenset(skip), only)
        return await self._commits.lease(claim)

    async def settle(self, settlements: Sequence[Settlement]) -> int:
        """Act on verdicts, in the next transaction."""
        return await self._commits.change(lambda ledger: _claims.settle(ledger, settlements))

    async def find(self, ids: Iterable[str]) -> dict[str, str]:
        """Tell the fate of records."""
        wanted = list(ids)
        return await self._commits.look(lambda ledger: _queries.find(ledger, wanted))

    async def watermark(self) -> Watermark:
        """Draw a line under what is written."""
        return await self._commits.look(_queries.watermark)

    async def remaining(self, watermark: Watermark, *, skip: Iterable[str] = ()) -> int:
        """Count what is left from before a mark."""
        skipped = frozenset(skip)
        return await self._commits.look(lambda ledger: _queries.remaining(ledger, watermark, skipped))

    async def pending(self) -> Pending:
        """Count what is here."""
        return await self._commits.look(_queries.pending)

    async def waiting(self, limit: int) -> list[Leased]:
        """Look at the oldest waiting records."""
        return await self._commits.look(lambda ledger: _queries.waiting(ledger, limit))

    async def dead(self, limit: int) -> list[DeadLetter]:
        """Look at the newest dead letters."""
        return await self._commits.look(lambda ledger: _queries.dead(ledger, limit))

    async def revive(self, ids: Iterable[str] | None = None) -> int:
        """Put dead letters back into the queue."""
        wanted = None if ids is None else list(ids)
        return await self._commits.change(lambda ledger: _queries.revive(ledger, wanted))

    async def purge(self, ids: Iterable[str] | None = None) -> int:
        """Delete dead letters."""
        wanted = None if ids is None else list(ids)
        return await self._commits.change(lambda ledger: _queries.purge(ledger, wanted))

    async def load_state(self, key: str) -> State | None:
        """Look a remembered value up."""
        return await self._commits.look(lambda ledger: _queries.load_state(ledger, key))

    async def expired_sessions(self, before: float, limit: int) -> list[tuple[str, State]]:
        """Look at the states without activity since a moment."""
        return await self._commits.look(lambda ledger: _queries.expired_sessions(ledger, before, limit))

    async def wipe(self) -> None:
        """Delete everything, from the disk too."""
        await self._commits.run(_queries.wipe)
