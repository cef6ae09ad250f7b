"""
The worker: a client for each queue, and the task that looks for queues.
"""

import asyncio
import logging
import time
from collections.abc import Mapping

from exponea_async._internal.log_fields import log_fields
from exponea_async._internal.printable import printable
from exponea_async._internal.throttle import Throttle
from exponea_async.cli.worker.queues import FoundQueue, QueueSource
from exponea_async.client import Exponea
from exponea_async.errors import StorageError
from exponea_async.observability import Stats

LOG = logging.getLogger("exponea_async")

#: What to do about a queue whose project is not configured.
ADD_PROJECT = " Add the project to EXPONEA_OTHER_PROJECTS with its key, or run a worker for it."
#: How often the worker looks for queues, and whether the database answers, in seconds.
INTERVAL = 2.0
#: The first and the longest wait after the database did not answer, in seconds; it doubles in between.
FIRST_WAIT, LONGEST_WAIT = 0.5, 5.0
#: After this time without a sign of life, the worker's own task hangs, in seconds. All that it waits for is limited to
#: a multiple of `QueueSettings.lock_timeout`.
HANG_TIME = 120.0


class Worker:
    """
    Sends what other processes have written to the queues.

    Args:
        source: Where the queues are.

    Attributes:
        queues: The clients by the name of their queue.
        unserved: The number of waiting records in the queues of projects that are not configured, by their names.
    """

    def __init__(self, source: QueueSource) -> None:
        self._source = source
        self._clients: dict[str, Exponea] = {}
        self._reported: set[str] = set()
        self._throttle = Throttle()
        self._trouble = "the queues were not looked up yet"
        self._is_started = self._is_closing = False
        self._alive_at = time.monotonic()
        self.unserved: dict[str, int] = {}

    @property
    def queues(self) -> Mapping[str, Exponea]:
        """The clients by the name of their queue."""
        return self._clients

    @property
    def problems(self) -> list[str]:
        """Why the worker does not upload now, in words; empty if it does."""
        if self._is_closing:
            return ["the worker is being stopped"]
        stopped = [f"the queue {name} is closed" for name, client in self._clients.items() if client.is_stopped]
        return [self._trouble, *stopped] if self._trouble else stopped

    @property
    def is_alive(self) -> bool:
        """Whether the worker's task goes on, whatever the database does."""
        return self._is_closing or time.monotonic() - self._alive_at < HANG_TIME

    def stats(self) -> dict[str, Stats]:
        """Return the numbers of each client."""
        return {name: client.stats() for name, client in self._clients.items()}

    async def run(self) -> None:
        """
        Serve all queues, also those that appear later and in an outage of the database, until this is cancelled.

        Raises:
            ConfigurationError: The ``upload.ca_file`` can't be loaded.
        """
        wait = FIRST_WAIT
        while True:
            self._alive_at = time.monotonic()
            try:
                await self._serve(await self._source.find())
            except StorageError as error:
                self._report_trouble(error)
                await asyncio.sleep(wait)
                wait = min(2 * wait, LONGEST_WAIT)
            else:
                self._report_service()
                wait = FIRST_WAIT
                await asyncio.sleep(INTERVAL)

    async def _serve(self, found: list[FoundQueue]) -> None:
        self.unserved = {each.name: each.waiting for each in found if each.configuration is None}
        for queue in found:
            self._alive_at = time.monotonic()
            if queue.configuration is None:
                self._warn_of(queue)
            elif queue.name not in self._clients:
                client = Exponea(queue.configuration)
                await client.start()
                self._clients[queue.name] = client
            elif self._clients[queue.name].is_stopped:
                # Another client has deleted the content of the queue. What is written from now on is sent again.
                await self._clients[queue.name].start()

    def _warn_of(self, queue: FoundQueue) -> None:
        key = queue.name if queue.trouble else queue.project
        if key in self._reported:
            return
        self._reported.add(key)
        LOG.warning(
            "The queue %s is not served, since %s; %d records wait in it.%s",
            printable(queue.name),
            queue.trouble or f"its project {printable(queue.project)} is not configured",
            queue.waiting,
            "" if queue.trouble else ADD_PROJECT,
            extra=log_fields("unserved", project=queue.project, queue=queue.name, waiting=queue.waiting),
        )

    def _report_trouble(self, error: StorageError) -> None:
        reason, is_new = str(error), str(error) != self._trouble
        self._trouble = reason
        suffix = "" if is_new else self._throttle.admit()
        if suffix is not None:
            LOG.warning(
                "The queues can't be looked up; trying again: %s%s",
                reason,
                suffix,
                extra=log_fields("queue_error", reason=reason),
            )

    def _report_service(self) -> None:
        was_troubled, self._trouble = bool(self._trouble), ""
        if self._is_started and was_troubled:
            LOG.info("The queues of %s are served again.", self._source.location)
        if not self._is_started:
            self._is_started = True
            LOG.info(
                "The worker serves %s of %s%s",
                "1 queue" if len(self._clients) == 1 else f"{len(self._clients)} queues",
                self._source.location,
                ": " + ", ".join(self._clients) + "." if self._clients else ", and waits for the first one.",
                extra=log_fields("worker_started", queues=list(self._clients)),
            )

    # Closing

    async def aclose(self, drain: float) -> None:
        """
        Lease nothing more, wait for the requests under way, and close all clients; `run` must have ended.

        Args:
            drain: How long to wait for the requests, in seconds.
        """
        self._is_closing = True
        clients = self._clients.values()
        try:
            await asyncio.gather(*[client.aclose(drain, only_started=True) for client in clients])
        finally:
            await self._source.aclose()
        totals = self.stats().values()
        delivered, rejected = sum(each.delivered for each in totals), sum(each.rejected for each in totals)
        waiting = sum(each.waiting for each in totals)
        LOG.info(
            "The worker has ended: %d records were delivered, %d became dead letters, %d wait.",
            delivered,
            rejected,
            waiting,
            extra=log_fields("worker_ended", delivered=delivered, rejected=rejected, waiting=waiting),
        )
