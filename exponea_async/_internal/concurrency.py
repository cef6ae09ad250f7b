"""
Background tasks and their supervision, work that concurrent callers share, and locks by key.
"""

import asyncio
import logging
from collections.abc import Callable, Coroutine, Hashable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, Generic, TypeVar
from weakref import WeakValueDictionary, ref

from exponea_async._internal.closing import CallUnlessEnding, callers
from exponea_async._internal.log_fields import log_fields
from exponea_async.errors import ExponeaError, LifecycleError

LOG = logging.getLogger("exponea_async")

#: The wait before a task is started again that has ended unexpectedly, in seconds. It doubles each time.
MIN_RESTART_DELAY, MAX_RESTART_DELAY = 0.1, 30.0

K = TypeVar("K", bound=Hashable)
T = TypeVar("T")


#: See `Supervisor`.
RestartReport = Callable[[str, BaseException | None], None]


class BackgroundTasks:
    """Running background tasks, each referenced until it ends. Their errors are logged."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()
        self._dormant: set[asyncio.Task[Any] | None] = set()

    @property
    def active(self) -> set["asyncio.Task[Any]"]:
        """The running tasks, except those inside `dormant`."""
        return self._tasks - self._dormant

    def start(self, work: Coroutine[Any, Any, T], *, name: str, log_errors: bool = True) -> "asyncio.Task[T]":
        """
        Start a task.

        Args:
            work: What it runs.
            name: Its name in log lines.
            log_errors: Whether an `ExponeaError` is logged; without it, the caller must take it from the task. Other
                errors are faults of this package and always logged.
        """
        task = asyncio.create_task(work, name=f"exponea_async: {name}")
        self._tasks.add(task)
        task.add_done_callback(partial(self._finish, log_errors=log_errors))
        return task

    @contextmanager
    def dormant(self) -> Iterator[None]:
        """Mark the current task as one that waits for an event outside of the feature, which may never happen."""
        task = asyncio.current_task()
        self._dormant.add(task)
        try:
            yield
        finally:
            self._dormant.discard(task)

    def cancel(self) -> None:
        """Cancel all tasks."""
        for task in self._tasks:
            task.cancel()

    async def aclose(self) -> None:
        """Cancel all tasks and wait until they have ended, except the one that calls this, which goes on."""
        # The caller may be one of the tasks, for example when a message makes its listener stop the client.
        others = self._tasks - callers()
        for task in others:
            task.cancel()
        if others:
            await asyncio.wait(others)

    def _finish(self, task: "asyncio.Task[Any]", *, log_errors: bool) -> None:
        self._tasks.discard(task)
        if task.cancelled():
            if not task.cancelling():
                LOG.error("%s has ended with a CancelledError, although it was not cancelled.", task.get_name())
            return
        error = task.exception()
        if error is None:
            return
        if not isinstance(error, ExponeaError):
            LOG.error("Unexpected error in %s.", task.get_name(), exc_info=error)
        elif log_errors:
            level = logging.DEBUG if isinstance(error, LifecycleError) else logging.WARNING
            LOG.log(level, "%s failed: %s", task.get_name(), error)


class _Job:
    """A task of a supervisor."""

    __slots__ = ("delay", "error", "name", "started_at", "task", "timer", "work")

    def __init__(self, work: Callable[[], Coroutine[Any, Any, object]], name: str) -> None:
        self.work = work
        self.name = name
        self.task: asyncio.Task[object] | None = None
        self.started_at = 0.0
        self.error: BaseException | None = None
        self.delay = 0.0
        self.timer: asyncio.TimerHandle | CallUnlessEnding | None = None


class Supervisor:
    """
    Tasks that run until they are closed. One that ends before, for whatever reason, is reported and started again.

    Args:
        report: Called with the name of such a task, and with its error or None if it returned or was cancelled.
    """

    def __init__(self, report: RestartReport) -> None:
        self._report = report
        self._jobs: dict[str, _Job] = {}
        self._is_closed = False

    @property
    def is_running(self) -> bool:
        """Whether there are tasks, and none of them has failed and waits to be started again."""
        return bool(self._jobs) and all(job.error is None for job in self._jobs.values())

    def start(self, work: Callable[[], Coroutine[Any, Any, object]], *, name: str) -> None:
        """
        Start a task.

        Args:
            work: Returns what the task runs.
            name: The name of the task.
        """
        self._jobs[name] = _Job(work, name)
        self._begin(name)

    async def aclose(self) -> None:
        """Cancel all tasks, and wait until they have ended."""
        self._is_closed = True
        jobs, self._jobs = self._jobs, {}
        for job in jobs.values():
            if job.timer:
                job.timer.cancel()
        tasks = [job.task for job in jobs.values() if job.task]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    def restart(self, name: str) -> None:
        """Start a task again that has ended."""
        job = self._jobs[name]
        error, job.error = job.error, None
        if error is None:
            message = "The task %r was cancelled or has ended unexpectedly, and is started again."
            LOG.critical(message, job.name, extra=log_fields("restarted", task=job.name))
        self._begin(name)
        self._report(job.name, error)

    def _begin(self, name: str) -> None:
        job = self._jobs[name]
        job.timer = None
        job.started_at = asyncio.get_running_loop().time()
        job.task = asyncio.create_task(job.work(), name=job.name)
        job.task.add_done_callback(partial(self._finish, name))

    def _finish(self, name: str, task: "asyncio.Task[object]") -> None:
        error = None if task.cancelled() else task.exception()
        # What ends the program ends the task, too.
        if self._is_closed or isinstance(error, KeyboardInterrupt | SystemExit):
            return
        job = self._jobs[name]
        job.error = error
        if error is not None:
            fields = log_fields("restarted", task=job.name)
            LOG.critical("The task %r has failed, and is started again.", job.name, exc_info=error, extra=fields)
        loop = asyncio.get_running_loop()
        was_stable = loop.time() - job.started_at > MAX_RESTART_DELAY
        job.delay = MIN_RESTART_DELAY if was_stable or not job.delay else min(2 * job.delay, MAX_RESTART_DELAY)
        restart = partial(_restart, ref(self), name)
        if error is None:
            # At the end of a program, all tasks are cancelled just before the event loop is closed.
            job.timer = CallUnlessEnding(job.delay, restart)
        else:
            job.timer = loop.call_later(job.delay, restart)


def _restart(supervisor: ref[Supervisor], name: str) -> None:
    # A client that was never closed must not be kept alive by a timer.
    alive = supervisor()
    if alive is not None:
        alive.restart(name)


class SharedLoad(Generic[T]):
    """
    A load in progress or finished, for any number of callers that wait for it.

    Args:
        task: The task that loads.

    Attributes:
        task: The task that loads.
        started_at: When it was started, in event-loop time.
        is_replaced: Whether a later load has replaced it, so that its result is outdated.
    """

    __slots__ = ("is_replaced", "started_at", "task")

    def __init__(self, task: "asyncio.Task[T]") -> None:
        self.task = task
        self.is_replaced = False
        self.started_at = asyncio.get_running_loop().time()

    async def wait(self, timeout: float | None = None) -> bool:  # noqa: ASYNC109 - as asyncio.wait has it
        """
        Wait until the load has ended. A caller that is cancelled meanwhile does not cancel the load.

        Args:
            timeout: Maximum wait in seconds; None waits as long as it takes.

        Returns:
            Whether `result` can be called: False after the timeout, and if the load itself was cancelled.
        """
        await asyncio.wait({self.task}, timeout=None if timeout is None else max(0.0, timeout))
        return self.task.done() and not self.task.cancelled()

    def result(self) -> T:
        """Return what was loaded, or raise the error of the load; callable once `wait` has returned True."""
        error = self.task.exception()
        if error is not None:
            # Raised for each caller: without this, every traceback would show the frames of all the others.
            raise error.with_traceback(None)
        return self.task.result()


class SingleFlight(Generic[K, T]):
    """
    At most one load per key at a time, shared by all concurrent callers.

    * A caller that is cancelled stops waiting; the load goes on for the others.
    * An error is raised to every caller that waits, by `SharedLoad.result`.
    * A load that has ended is dropped, so the next caller starts a new one.

    ::

        loads = SingleFlight(BackgroundTasks())
        load = loads.share("a key", lambda: asyncio.sleep(0, "a value"), name="values")
        if await load.wait():  # False if the load was cancelled
            print(load.result())  # a value

    Args:
        tasks: Where loads run.
        log_errors: Whether an `ExponeaError` of a load is logged, besides being raised to the callers that wait.
    """

    def __init__(self, tasks: BackgroundTasks, *, log_errors: bool = True) -> None:
        self._tasks = tasks
        self._log_errors = log_errors
        self._loads: dict[K, SharedLoad[T]] = {}

    def __len__(self) -> int:
        return len(self._loads)

    def get(self, key: K) -> SharedLoad[T] | None:
        """Return the load in progress for a key, or None."""
        return self._loads.get(key)

    def share(self, key: K, work: Callable[[], Coroutine[Any, Any, T]], *, name: str) -> SharedLoad[T]:
        """Return the load in progress for a key, or start one."""
        return self._loads.get(key) or self.start([key], work(), name=name)

    def start(self, keys: Iterable[K], work: Coroutine[Any, Any, T], *, name: str) -> SharedLoad[T]:
        """
        Start a load for one or more keys.

        A load that is already in progress for one of them goes on, but later callers no longer find it.
        """
        load = SharedLoad(self._tasks.start(work, name=name, log_errors=self._log_errors))
        known = tuple(keys)
        for key in known:
            if key in self._loads:
                self._loads[key].is_replaced = True
        self._loads.update(dict.fromkeys(known, load))
        load.task.add_done_callback(lambda _: self._drop(known, load))
        return load

    def is_current(self, key: K) -> bool:
        """Return whether the running task is the load that callers find under a key."""
        load = self._loads.get(key)
        return load is not None and load.task is asyncio.current_task()

    def discard(self, key: K) -> None:
        """Let later callers no longer find the load of a key, which goes on."""
        self._loads.pop(key, None)

    def clear(self) -> None:
        """Cancel all loads; later callers start new ones at once."""
        loads, self._loads = self._loads, {}
        for load in loads.values():
            load.task.cancel()

    def _drop(self, keys: tuple[K, ...], load: SharedLoad[T]) -> None:
        for key in keys:
            # Another load may have been started for the key meanwhile.
            if self._loads.get(key) is load:
                del self._loads[key]


class KeyedLocks(Generic[K]):
    """
    Locks by key.

    A lock exists only while it is referenced, since hardly any key is ever used by two tasks at once.
    """

    def __init__(self) -> None:
        self._locks: WeakValueDictionary[K, asyncio.Lock] = WeakValueDictionary()

    def __len__(self) -> int:
        return len(self._locks)

    def for_key(self, key: K) -> asyncio.Lock:
        """Return the lock of a key, to be used right away: ``async with locks.for_key(key): ...``."""
        lock = self._locks.get(key)
        if lock is None:
            lock = self._locks[key] = asyncio.Lock()
        return lock
