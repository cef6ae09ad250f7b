"""
The thread on which the connection to the queue's file is used.
"""

import asyncio
import sqlite3
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from threading import Lock
from typing import Any, ParamSpec, TypeVar, cast

import aiosqlite

from exponea_async._internal.closing import run_thread_to_end, wait_until_done
from exponea_async.storage.sqlite import forking
from exponea_async.storage.sqlite.connection import MovedFileError, QueueConnection

P = ParamSpec("P")
T = TypeVar("T")


class _CallResult:
    """What a call of the thread returns: what aiosqlite needs of a future, also after the end of the event loop."""

    __slots__ = ("_future",)

    def __init__(self, future: "asyncio.Future[Any]") -> None:
        self._future = future

    def get_loop(self) -> "_CallResult":
        """Return what the result is given to."""
        return self

    def call_soon_threadsafe(self, set_outcome: Callable[..., None], _result: object, outcome: object) -> None:
        """Set the outcome in the event loop, unless it is closed: then there is no caller any more."""
        with suppress(RuntimeError):
            self._future.get_loop().call_soon_threadsafe(set_outcome, self._future, outcome)


class _Submission:
    """The same for work whose end is reported to a function, in one turn of the event loop."""

    __slots__ = ("_finish", "_loop")

    def __init__(self, finish: Callable[[Exception | None], None]) -> None:
        self._finish = finish
        self._loop = asyncio.get_running_loop()

    def get_loop(self) -> "_Submission":
        """Return what the end is reported to."""
        return self

    def call_soon_threadsafe(self, _set_outcome: object, _result: object, outcome: Any) -> None:
        """Report the end in the event loop, unless that is closed."""
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._finish, outcome)


class ConnectionThread(aiosqlite.Connection):
    """
    The thread of a `QueueConnection`, on which functions run as a whole.

    A transaction must be one call to the thread: each of aiosqlite's own calls runs a single statement, and sending it
    to the thread and back takes longer than most statements. aiosqlite has no public call that runs a function, so this
    class adds `call`. It is the only code that uses protected members of aiosqlite: ``_tx``, ``_connection`` and
    ``_running``, of which aiosqlite's own calls consist, and the thread. They have to be checked for each new minor
    version of aiosqlite, before the dependency's upper bound is raised.

    Args:
        connect: Opens the connection; runs on the thread.
    """

    def __init__(self, connect: Callable[[], QueueConnection]) -> None:
        # Held while the connection is in use.
        self._in_use = Lock()
        super().__init__(connect, iter_chunk_size=64)
        # An application that forgets to close the client must still be able to exit.
        self._thread.daemon = True

    def _exclusive(self, work: Callable[P, T]) -> Callable[P, T]:
        def run(*args: P.args, **kwargs: P.kwargs) -> T:
            with self._in_use:
                return work(*args, **kwargs)

        return run

    def _put(self, fn: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> "asyncio.Future[T]":
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        # aiosqlite's own futures end the thread with a traceback if their event loop was closed in the meantime.
        result: Any = _CallResult(future)
        self._tx.put_nowait((result, partial(self._exclusive(fn), *args, **kwargs)))
        return future

    def submit(self, work: Callable[[QueueConnection], None], finish: Callable[[Exception | None], None]) -> bool:
        """Start work on the thread, behind what was called before, and return whether the connection is open."""
        if not self._running or self._connection is None:
            return False
        result: Any = _Submission(finish)
        self._tx.put_nowait((result, partial(self._exclusive(work), cast("QueueConnection", self._connection))))
        return True

    # Forks

    def begin_fork(self) -> None:
        """Wait until the connection is not in use, and keep others from using it."""
        self._in_use.acquire()

    def end_fork(self) -> None:
        """Let the connection be used again, in the parent."""
        self._in_use.release()

    def close_copy(self) -> None:
        """Close the copy of the connection, in the child."""
        connection, self._connection = self._connection, None
        if connection is not None:
            # Not its own `close`, which would release a lock that the child shares with the parent.
            sqlite3.Connection.close(connection)

    async def open(self) -> None:
        """Start the thread and open the connection; if that fails or is cancelled, both are gone afterwards."""
        self._thread.start()
        # Not aiosqlite's own way: where that is cancelled, it forgets a connection that the thread is just opening.
        opening = self._put(self._open_now)
        try:
            await wait_until_done(opening)
            opening.result()
        except BaseException:
            self.abandon()
            # The thread's last result must not go to an event loop that is closed by then.
            await run_thread_to_end(self._thread.join)
            raise

    def _open_now(self) -> None:
        # On the thread: this waits for a fork that is under way, and the next one closes the child's copy of what is
        # open, also if the event loop does not know of it yet.
        forking.register(self)
        self._connection = self._connector()

    async def call(self, work: Callable[[QueueConnection], T]) -> T:
        """Run work on the thread, behind what was called before."""
        return await self.begin(work)

    def begin(self, work: Callable[[QueueConnection], T]) -> "asyncio.Future[T]":
        """Start work on the thread, behind what was called before, and return a future of its result."""
        if not self._running or self._connection is None:
            raise ValueError("The connection is closed.")
        return self._put(work, cast("QueueConnection", self._connection))

    async def is_moved(self) -> bool:
        """Return whether the file that is open is not at its path any more: reading one that was wiped may fail."""
        try:
            await self.call(QueueConnection.check_path)
        except MovedFileError:
            return True
        return False

    async def close(self) -> None:
        """Close the connection and end the thread, though the caller is cancelled."""
        if not self._running or self._connection is None:
            return
        closing = self._put(self._close_and_end)
        self._running = False
        with suppress(sqlite3.Error):
            await wait_until_done(closing)
            closing.result()

    def abandon(self) -> None:
        """Close the connection and end the thread, without waiting for that."""
        self._running = False
        self._tx.put_nowait((None, self._exclusive(self._close_and_end)))

    def _close_and_end(self) -> None:
        # On the thread, and not before it closes: a fork closes the child's copy only of what is known to be open.
        connection, self._connection = self._connection, None
        try:
            if connection is not None:
                connection.close()
        finally:
            # Even if the closing failed. This thread has no event loop, so aiosqlite reports the end to none: it would
            # raise an error if that was closed meanwhile.
            self.stop()
