"""
The client of a process that synchronous and asynchronous code share.
"""

import asyncio
import logging
import threading
from collections.abc import Awaitable, Callable
from typing import ParamSpec, TypeVar

from exponea_async._lifecycle.forking import ForkHandler
from exponea_async.client import CLOSE_TIMEOUT, Exponea
from exponea_async.errors import LifecycleError
from exponea_async.portal import Portal, call_in

LOG = logging.getLogger("exponea_async")

P = ParamSpec("P")
T = TypeVar("T")


class SharedClient:
    """
    A client that runs in the event loop of the server, or in a portal where there is none.

    The first use decides: `adopt_loop` in the event loop of the server, or a call from anywhere else. Calls may come
    from all threads and event loops either way. In a forked child, everything begins anew.

    Args:
        exponea: The client, which is not started yet.

    Attributes:
        exponea: The client. Its coroutines are to be called through `call` and `acall` only.
    """

    def __init__(self, exponea: Exponea) -> None:
        self.exponea = exponea
        self._portal = Portal(exponea)
        self._fork_handler = ForkHandler(self._forget)
        self._forget()

    def _forget(self) -> None:
        """Forget the event loop of the parent process."""
        self._server_loop: asyncio.AbstractEventLoop | None = None
        self._is_started = False
        # Another thread of the parent may have held it.
        self._lock = threading.Lock()

    def adopt_loop(self) -> None:
        """Let the client run in the running event loop, which is that of the server, unless it runs elsewhere."""
        loop = asyncio.get_running_loop()
        if self._server_loop is loop:
            return
        with self._lock:
            if self._loop is None and not self._portal.is_running:
                self._server_loop, self._is_started = loop, False

    async def start(self) -> None:
        """
        Start the client in the running event loop, unless it runs elsewhere.

        Raises:
            StorageError: The queue can't be opened.
        """
        self.adopt_loop()
        if self._server_loop is asyncio.get_running_loop():
            await self.exponea.start()
            self._is_started = True

    async def aclose(self, timeout: float | None = CLOSE_TIMEOUT) -> None:  # noqa: ASYNC109 - as the client has it
        """Close the client, wherever it runs, as `Exponea.aclose` does."""
        loop = self._loop
        if loop is asyncio.get_running_loop():
            await self.exponea.aclose(timeout)
        else:
            await asyncio.to_thread(self.close, timeout)

    def close(self, timeout: float | None = CLOSE_TIMEOUT) -> None:
        """Close the client, wherever it runs, and wait for that, unless the caller is in the client's event loop."""
        loop = self._loop
        if loop is not None and loop is _running_loop():
            asyncio.run_coroutine_threadsafe(self.exponea.aclose(timeout), loop)
        elif loop is not None:
            self._close_in(loop, timeout)
        self._portal.close(timeout)

    def _close_in(self, loop: asyncio.AbstractEventLoop, timeout: float | None) -> None:
        try:
            call_in(loop, self.exponea.aclose, timeout)
        except LifecycleError:
            LOG.warning("The event loop of the server ended before the client was closed; the rest stays in its queue.")

    def call(self, function: Callable[P, Awaitable[T]], *args: P.args, **kwargs: P.kwargs) -> T:
        """
        Call a coroutine function of the client, and wait for its result; for synchronous code.

        Raises:
            LifecycleError: The caller is in the client's own event loop, which would wait for itself.
        """

        async def run() -> T:
            await self._make_sure_it_is_started()
            return await function(*args, **kwargs)

        if (loop := self._loop_of_server()) is None:
            return self._portal.call(function, *args, **kwargs)
        if _running_loop() is loop:
            raise LifecycleError("The call would block its own event loop.", hint="Await the asynchronous one.")
        return call_in(loop, run)

    async def acall(self, function: Callable[P, Awaitable[T]], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call a coroutine function of the client from any event loop, and return its result."""
        if self._server_loop is asyncio.get_running_loop():
            await self._make_sure_it_is_started()
            return await function(*args, **kwargs)
        # A thread may wait, also for the start of the portal.
        return await asyncio.to_thread(lambda: self.call(function, *args, **kwargs))

    async def _make_sure_it_is_started(self) -> None:
        if not self._is_started:
            await self.start()

    def _loop_of_server(self) -> asyncio.AbstractEventLoop | None:
        """Return the event loop of the server; where there is none, the portal is running afterwards."""
        if self._portal.is_running:
            return None
        with self._lock:
            if self._loop is None:
                self._portal.start()
            return self._loop

    @property
    def _loop(self) -> asyncio.AbstractEventLoop | None:
        """The event loop of the server that is still running."""
        loop = self._server_loop
        return loop if loop is not None and loop.is_running() else None


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None
