"""
What goes on in the background of a room.
"""

import asyncio
import logging
from collections.abc import Coroutine
from typing import Any

from exponea_async.errors import ExponeaError, LifecycleError

LOG = logging.getLogger("exponea_async")


class Tasks:
    """Background tasks, held on to until they end; what goes wrong in them is logged."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()

    def start(self, work: Coroutine[Any, Any, Any], *, name: str) -> "asyncio.Task[Any]":
        """Begin some work."""
        task = asyncio.create_task(work, name=f"exponea_async: {name}")
        self._tasks.add(task)
        task.add_done_callback(self._end)
        return task

    def cancel(self) -> None:
        """Break all of it off."""
        for task in self._tasks:
            task.cancel()

    async def aclose(self) -> None:
        """Break all of it off and wait for its end."""
        self.cancel()
        # Who closes may be one of them, as where a message makes its listener stop the client.
        others = self._tasks - {asyncio.current_task()}
        if others:
            await asyncio.wait(others)

    def _end(self, task: "asyncio.Task[Any]") -> None:
        self._tasks.discard(task)
        if task.cancelled() or (error := task.exception()) is None:
            return
        if isinstance(error, LifecycleError):
            LOG.debug("%s was broken off: %s", task.get_name(), error)
        elif isinstance(error, ExponeaError):
            LOG.warning("%s failed: %s", task.get_name(), error)
        else:
            LOG.error("%s has broken down.", task.get_name(), exc_info=error)
