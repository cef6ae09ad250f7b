"""
Measures the queue now and then, for the statistics.
"""

import asyncio
import logging

from exponea_async._internal.concurrency import RestartReport, Supervisor
from exponea_async.errors import StorageError
from exponea_async.observability import Counters, QueueSize
from exponea_async.storage.base import Storage

LOG = logging.getLogger("exponea_async")

#: How often the queue is measured, in seconds.
INTERVAL = 5.0


class QueueMonitor:
    """
    Measures the queue on demand, and every few seconds while it is started.

    Args:
        storage: The queue.
        counters: Get the result.
        report: Called when its task has ended unexpectedly; see `Supervisor`.
    """

    def __init__(self, storage: Storage, counters: Counters, report: RestartReport) -> None:
        self._storage = storage
        self._counters = counters
        self._report = report
        self._task: Supervisor | None = None

    def start(self) -> None:
        """Start the task."""
        self._task = Supervisor(self._report)
        self._task.start(self._run, name="exponea_async: queue monitor")

    async def aclose(self) -> None:
        """Stop the task."""
        task, self._task = self._task, None
        if task is not None:
            await task.aclose()

    async def measure(self) -> QueueSize:
        """
        Return what is in the queue now, and note it in the statistics.

        Raises:
            StorageError: The storage refused; it is noted as the last error.
        """
        try:
            pending = await self._storage.pending()
        except StorageError as error:
            self._counters.note_error(str(error))
            raise
        size = QueueSize(
            pending.waiting, pending.leased, pending.dead, pending.oldest_at, pending.size, pending.is_full
        )
        self._counters.queue = size
        return size

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(INTERVAL)
            try:
                await self.measure()
            except StorageError as error:
                LOG.debug("The queue can't be measured now: %s", error)
