"""
The background tasks of the storage, which go on where an application cancels all tasks that it finds.
"""

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any

from exponea_async._internal.closing import CallUnlessEnding

LOG = logging.getLogger("exponea_async")

#: The wait before a task is started again after it has ended unexpectedly, in seconds.
RESTART_DELAY = 0.1


class BackgroundTask:
    """
    A task that runs until it is closed or its work returns; it is started again where it was cancelled or has failed.

    Args:
        work: Returns what the task runs.
        name: The name of the task.
    """

    def __init__(self, work: Callable[[], Coroutine[Any, Any, None]], name: str) -> None:
        self._work = work
        self._name = name
        self._task: asyncio.Task[None] | None = None
        self._is_running = False
        # Starts the task again.
        self._timer: asyncio.TimerHandle | CallUnlessEnding | None = None

    def start(self) -> None:
        """Start the task."""
        self._is_running = True
        self._begin()

    def _begin(self) -> None:
        if self._is_running:
            self._task = asyncio.get_running_loop().create_task(self._work(), name=self._name)
            self._task.add_done_callback(self._finish)

    def _finish(self, task: "asyncio.Task[None]") -> None:
        error = None if task.cancelled() else task.exception()
        if not self._is_running or (error is None and not task.cancelled()):
            return
        if isinstance(error, KeyboardInterrupt | SystemExit):
            return
        if error is not None:
            LOG.critical("The task %r has failed, and is started again.", self._name, exc_info=error)
            self._timer = task.get_loop().call_later(RESTART_DELAY, self._begin)
        else:
            # At the end of a program, all tasks are cancelled just before the event loop is closed.
            self._timer = CallUnlessEnding(RESTART_DELAY, self._begin)

    def _stop(self) -> "asyncio.Task[None] | None":
        """Do not start the task again, and return it."""
        task, timer = self._task, self._timer
        self._task, self._timer, self._is_running = None, None, False
        if timer is not None:
            timer.cancel()
        return task

    async def aclose(self, *, cancel: bool = True) -> None:
        """
        Wait for the end of the task.

        Args:
            cancel: Whether to cancel it; otherwise its work is about to return.
        """
        task = self._stop()
        if task is not None:
            if cancel:
                task.cancel()
            await asyncio.wait([task])

    def abandon(self) -> None:
        """Forget the task without waiting: its event loop has ended."""
        self._stop()
