"""
Closing within a time limit, whatever is cancelled meanwhile, and calls from another event loop.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Collection, Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager
from contextvars import ContextVar, copy_context
from typing import Any, TypeVar
from weakref import ref

from exponea_async.errors import LifecycleError

LOG = logging.getLogger("exponea_async")

T = TypeVar("T")

#: For how long an event loop is believed to end, and how often `CallUnlessEnding` looks at it, in seconds.
LONGEST_END, LOOK_INTERVAL = 10.0, 0.1

#: The tasks that wait for the present one in `run_to_end`.
_CALLERS: ContextVar[Collection["ref[asyncio.Task[Any]]"]] = ContextVar("exponea_async.callers", default=())


def callers() -> set["asyncio.Task[Any] | None"]:
    """Return the present task, and those that wait for it in `run_to_end`. No task may wait for one of these to end."""
    return {asyncio.current_task(), *(each() for each in _CALLERS.get())}


class Deadline:
    """
    A time limit that several steps share, and that can be brought forward.

    Args:
        timeout: Seconds from now; None sets no limit.
    """

    def __init__(self, timeout: float | None) -> None:
        self._end = None if timeout is None else _loop_time() + timeout
        self._limits: dict[asyncio.Timeout, float] = {}
        self._calls: list[Callable[[], object]] = []

    @property
    def remaining(self) -> float | None:
        """Seconds until the deadline, at least 0; None where there is no limit."""
        return None if self._end is None else max(0.0, self._end - _loop_time())

    def expire(self) -> None:
        """Bring the deadline forward to now, unless it has passed."""
        now = _loop_time()
        if self._end is None or self._end > now:
            self._end = now
            for limit, grace in self._limits.items():
                limit.reschedule(now + grace)
            for call in self._calls:
                call()

    @contextmanager
    def calling(self, call: Callable[[], object]) -> Iterator[None]:
        """Call a function at the deadline, if that comes within the block."""
        timer = None if self._end is None else asyncio.get_running_loop().call_at(self._end, call)
        self._calls.append(call)
        try:
            yield
        finally:
            self._calls.remove(call)
            if timer is not None:
                timer.cancel()

    @asynccontextmanager
    async def limit(self, grace: float = 0.0) -> AsyncIterator[None]:
        """Cancel the block at the deadline, or a number of seconds later, and go on after it."""
        try:
            async with asyncio.timeout_at(None if self._end is None else self._end + grace) as limit:
                self._limits[limit] = grace
                try:
                    yield
                finally:
                    del self._limits[limit]
        except TimeoutError:
            LOG.debug("A step of closing did not end in time.")


class CallUnlessEnding:
    """
    Calls a function later, unless the event loop is about to be closed then.

    An event loop that ends cancels all tasks, waits for them and then for the threads of its executor, and is closed.
    Tasks that are started meanwhile are never waited for. An event loop that goes on may also have cancelled tasks:
    briefly, or for longer if a task ignores its cancellation. After `LONGEST_END` it is taken to go on.

    Args:
        delay: When to look at the event loop, seconds from now.
        call: The function.
    """

    def __init__(self, delay: float, call: Callable[[], object]) -> None:
        self._loop = asyncio.get_running_loop()
        self._call = call
        self._end = self._loop.time() + delay + LONGEST_END
        # How often in a row the event loop did not seem to end.
        self._looks = 0
        self._timer = self._loop.call_later(delay, self._look)

    def cancel(self) -> None:
        """Do not call the function."""
        self._timer.cancel()

    def _look(self) -> None:
        self._looks = 0 if self._seems_to_end() else self._looks + 1
        # Twice: there is a moment when all tasks have ended, and the executor still accepts work.
        if self._looks == 2 or self._loop.time() > self._end:
            self._call()
        else:
            self._timer = self._loop.call_later(LOOK_INTERVAL, self._look)

    def _seems_to_end(self) -> bool:
        return any(task.cancelling() for task in asyncio.all_tasks(self._loop)) or not _accepts_threads(self._loop)


def _accepts_threads(loop: asyncio.AbstractEventLoop) -> bool:
    try:
        loop.run_in_executor(None, _do_nothing)
    except RuntimeError:
        # The executor is shut down.
        return False
    return True


def _do_nothing() -> None:
    pass


def check_loop(loop: asyncio.AbstractEventLoop) -> None:
    """
    Make sure that the caller is in the event loop in which the client was started.

    Raises:
        LifecycleError: It is in another one.
    """
    try:
        if asyncio.get_running_loop() is loop:
            return
    except RuntimeError:
        # The caller is a plain function. What it gets is used in an event loop later.
        return
    raise wrong_loop(loop)


def wrong_loop(loop: asyncio.AbstractEventLoop) -> LifecycleError:
    """Return the error for a call in another event loop than the one in which the client was started."""
    if loop.is_running():
        trouble = "The client is running in the event loop of another thread."
        hint = "Use exponea_async.portal, or asyncio.run_coroutine_threadsafe() with that event loop."
    else:
        trouble = "The client was started in another event loop, which is not running any more."
        hint = "Await its start() in this event loop; its queue is opened again. Close it before its event loop ends."
    return LifecycleError(trouble, hint=hint)


async def run_to_end(
    work: Callable[[], Coroutine[Any, Any, T]], *, name: str, on_cancel: Callable[[], object] = _do_nothing
) -> T:
    """
    Run work in a task of its own, to its end, however often the caller is cancelled meanwhile.

    A cancel scope of anyio cancels each await of the caller again, so that shielding a single await is not enough.

    Args:
        work: Returns what the task runs. It must end soon after `on_cancel` was called.
        name: The name of the task.
        on_cancel: Called when the caller is cancelled, possibly more than once; by default nothing is.

    Raises:
        asyncio.CancelledError: The caller was cancelled; the work has ended all the same.
        LifecycleError: The task was cancelled, and the caller was not.
    """
    context = copy_context()
    # Weak, because the tasks of the client inherit the context.
    context.run(_CALLERS.set, [ref(each) for each in callers() if each is not None])
    has_begun = False
    cancelled: asyncio.CancelledError | None = None

    async def run() -> T:
        nonlocal has_begun
        has_begun = True
        return await work()

    while True:
        task = asyncio.create_task(run(), name=name, context=context)
        try:
            await wait_until_done(task, on_cancel=on_cancel)
        except asyncio.CancelledError as error:
            cancelled = error
        # A task that is cancelled before it has begun does nothing.
        if has_begun:
            break
    if cancelled is None:
        if task.cancelled():
            raise LifecycleError("The call was interrupted: a task of the client was cancelled.", hint="Call it again.")
        return task.result()
    failure = None if task.cancelled() else task.exception()
    if failure is not None:
        LOG.warning("%s failed after it was cancelled: %s", name, failure)
    raise cancelled


async def run_thread_to_end(work: Callable[[], T]) -> T:
    """
    Run work in a thread, and wait for its end, however often the caller is cancelled meanwhile.

    Raises:
        asyncio.CancelledError: The caller was cancelled; the work has ended all the same.
    """
    # Not a task, which the end of the event loop would cancel, while the thread goes on.
    running = asyncio.get_running_loop().run_in_executor(None, copy_context().run, work)
    await wait_until_done(running)
    return running.result()


async def wait_until_done(future: "asyncio.Future[Any]", *, on_cancel: Callable[[], object] = _do_nothing) -> None:
    """
    Wait until a future has a result or an error, however often the caller is cancelled meanwhile.

    Args:
        future: The future.
        on_cancel: Called when the caller is cancelled, possibly more than once.

    Raises:
        asyncio.CancelledError: The caller was cancelled; the future is done all the same.
    """
    cancelled: asyncio.CancelledError | None = None
    while not future.done():
        try:
            await asyncio.wait([future])
        except asyncio.CancelledError as error:
            cancelled = error
            on_cancel()
    if cancelled is not None:
        if not future.cancelled():
            # asyncio logs errors that nobody has looked at.
            future.exception()
        raise cancelled


def _loop_time() -> float:
    return asyncio.get_running_loop().time()
