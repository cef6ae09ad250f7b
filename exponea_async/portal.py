"""
A client for code that is not asynchronous: one event loop in a thread, which all threads of the process call.

::

    portal = Portal(Exponea(configuration))
    portal.call(portal.exponea.track_event, Event("purchase", {"total_price": 7.99}))
    portal.close(timeout=0)

A portal starts its thread with the first call, also in each forked child, and closes its client at the exit of the
process. So a module may create it where it is imported.
"""

import asyncio
import atexit
import logging
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from types import TracebackType
from typing import ParamSpec, Self, TypeVar
from weakref import WeakSet

from exponea_async._lifecycle.forking import ForkHandler, abandon
from exponea_async.client import CLOSE_TIMEOUT, Exponea
from exponea_async.errors import ClosedError, LifecycleError

LOG = logging.getLogger("exponea_async")

P = ParamSpec("P")
T = TypeVar("T")

#: How long the exit of the process may wait for the upload of what waits in the queue, in seconds.
EXIT_TIMEOUT = 5.0
#: How long closing may take after its timeout, in seconds; then the thread is left to itself.
CLOSE_GRACE = 5.0
#: How often a call checks whether the event loop is still running, in seconds.
LOOP_CHECK = 1.0

_portals: "WeakSet[Portal]" = WeakSet()


class Portal:
    """
    Runs a client in an event loop of its own, in a thread of its own.

    A context manager: the client is closed at the end of the block. All methods may be called from any thread.

    Args:
        exponea: The client, which is not started yet. The portal starts and closes it.

    Attributes:
        exponea: The client. Its coroutines are to be called through `call` only.
    """

    def __init__(self, exponea: Exponea) -> None:
        self.exponea = exponea
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._is_closed = False
        self._fork_handler = ForkHandler(self._forget)
        _portals.add(self)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    @property
    def is_running(self) -> bool:
        """Whether the thread and the client are started in this process, and the portal is not closed."""
        return self._loop is not None

    def start(self) -> None:
        """
        Start the thread and the client; do nothing if they are started already. The first `call` does so, too.

        Raises:
            StorageError: The queue can't be opened; the next call tries again.
            ClosedError: The portal is closed.
        """
        self._started_loop()

    def call(self, function: Callable[P, Awaitable[T]], *args: P.args, **kwargs: P.kwargs) -> T:
        """
        Call a coroutine function in the client's event loop, and wait for its result.

        It runs with the context variables of the caller, so that the subject that is bound by ``exponea.bind()`` is
        the current one. If the wait is interrupted, for example by Ctrl-C, the call is cancelled.

        Args:
            function: The coroutine function, such as ``portal.exponea.track_event``.
            args: Its arguments.
            kwargs: Its keyword arguments.

        Returns:
            Its result; an exception that it raises is raised here.

        Raises:
            LifecycleError: The caller is in the portal's own event loop, which would wait for itself.
            StorageError: The queue can't be opened.
            ClosedError: The portal is closed.
        """
        loop = self._started_loop()
        if self._thread is threading.current_thread():
            raise LifecycleError("The call comes from the portal's own event loop.", hint="Await the coroutine.")
        return call_in(loop, function, *args, **kwargs)

    def close(self, timeout: float | None = CLOSE_TIMEOUT) -> None:
        """
        Close the client, as its ``aclose()`` does, and end the thread; do nothing if the portal is closed already.

        Args:
            timeout: Maximum duration in seconds; cancelling what is in flight may take a few more. 0 uploads nothing,
                None waits without a limit.
        """
        with self._lock:
            self._is_closed = True
            loop, thread = self._loop, self._thread
            self._loop = self._thread = None
        if loop is None or thread is None:
            return
        closing = asyncio.run_coroutine_threadsafe(self.exponea.aclose(timeout), loop)
        try:
            closing.result(None if timeout is None else timeout + CLOSE_GRACE)
        except TimeoutError:
            LOG.warning("The client of a portal could not be closed in time; what was not sent stays in its queue.")
        finally:
            loop.call_soon_threadsafe(loop.stop)
            if thread is not threading.current_thread():
                thread.join(CLOSE_GRACE)

    def _started_loop(self) -> asyncio.AbstractEventLoop:
        loop = self._loop
        if loop is not None:
            return loop
        with self._lock:
            if self._is_closed:
                raise ClosedError("The portal is closed.", hint="Create a new one.")
            if self._loop is None:
                started: Future[asyncio.AbstractEventLoop] = Future()
                # A daemon, so that a call that never ends can't keep the process alive.
                self._thread = threading.Thread(target=self._run, args=(started,), name="exponea_async", daemon=True)
                self._thread.start()
                self._loop = started.result()
            return self._loop

    def _run(self, started: "Future[asyncio.AbstractEventLoop]") -> None:
        with asyncio.Runner() as runner:
            try:
                runner.run(self.exponea.start())
            except BaseException as error:  # noqa: BLE001 - the caller gets it, whatever it is
                started.set_exception(error)
                return
            loop = runner.get_loop()
            started.set_result(loop)
            loop.run_forever()

    def _forget(self) -> None:
        """Forget the thread in a forked child, which has a copy of everything but the thread."""
        if self._loop is not None:
            abandon(self._loop)
        self._loop = self._thread = None
        # Another thread may have held it.
        self._lock = threading.Lock()


def call_in(
    loop: asyncio.AbstractEventLoop, function: Callable[P, Awaitable[T]], *args: P.args, **kwargs: P.kwargs
) -> T:
    """
    Call a coroutine function in the event loop of another thread, with the caller's context, and wait for its result.

    If the wait is interrupted, for example by Ctrl-C, the call is cancelled.

    Args:
        loop: The event loop, which is running in another thread.
        function: The coroutine function.
        args: Its arguments.
        kwargs: Its keyword arguments.

    Returns:
        Its result; an exception that it raises is raised here.

    Raises:
        LifecycleError: The event loop has ended, or ends before the call does.
    """

    async def run() -> T:
        return await function(*args, **kwargs)

    call = run()
    try:
        result = asyncio.run_coroutine_threadsafe(call, loop)
    except RuntimeError as error:
        call.close()
        raise _loop_ended() from error
    try:
        return _wait_for(result, loop)
    finally:
        # Without an effect where it has ended.
        result.cancel()


def _wait_for(result: "Future[T]", loop: asyncio.AbstractEventLoop) -> T:
    while True:
        try:
            return result.result(LOOP_CHECK)
        except TimeoutError:
            # The call may have raised it.
            if result.done():
                return result.result()
            # What is scheduled in an event loop that is just ending may never run, and nobody cancels it.
            if not loop.is_running():
                raise _loop_ended() from None


def _loop_ended() -> LifecycleError:
    return LifecycleError("The client's event loop has ended.", hint="Call it before the shutdown of the program.")


def _close_all() -> None:
    for portal in list(_portals):
        portal.close(EXIT_TIMEOUT)


atexit.register(_close_all)
