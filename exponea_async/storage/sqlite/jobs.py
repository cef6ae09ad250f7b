"""
The jobs of a group commit: the work of one caller each, with its outcome.
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from copy import copy
from typing import Any

from exponea_async.storage.base import Leased
from exponea_async.storage.sqlite.connection import QueueConnection
from exponea_async.storage.sqlite.file import is_damage, storage_error
from exponea_async.storage.sqlite.leases import LeaseRequest, lease


class Job:
    """
    The work of one caller and its outcome: `result`, or `error`.

    Args:
        work: Runs on the connection's thread.
        future: The caller waits for it.

    Attributes:
        since: When the caller made the call, in monotonic time.
    """

    __slots__ = ("done", "error", "future", "result", "since", "work")

    def __init__(self, work: Callable[[QueueConnection], Any], future: "asyncio.Future[Any]") -> None:
        self.work = work
        self.future = future
        self.since = time.monotonic()
        self.result: Any = None
        self.error: Exception | None = None
        self.done = False

    def run(self, connection: QueueConnection) -> None:
        """Run the work, on the connection's thread."""
        self.result = self.work(connection)

    def run_isolated(self, connection: QueueConnection) -> None:
        """Run the work and store its error, so that it affects no other job; only damage of the file is raised."""
        self.error = None
        try:
            self.run(connection)
        except Exception as error:
            if is_damage(error):
                raise
            self.error = storage_error(error, connection.path) or error
        self.done = True

    def fail(self, error: Exception) -> None:
        """Store an error that other jobs get, too."""
        self.error = copied(error)
        self.done = True

    def resolve(self) -> None:
        """Give the caller the outcome."""
        if self.future.done():
            return
        if self.error is not None:
            self.future.set_exception(self.error)
        else:
            self.future.set_result(self.result)


class Read(Job):
    """A job that only reads, and shares one transaction with the reads next to it."""

    __slots__ = ()


class Lease(Job):
    """A job that leases records; it needs a transaction only if any of them is due."""

    __slots__ = ("request",)

    def __init__(self, request: LeaseRequest, future: "asyncio.Future[list[Leased]]") -> None:
        super().__init__(self._lease, future)
        self.request = request

    def _lease(self, connection: QueueConnection) -> list[Leased]:
        return lease(connection, self.request)


def run_reads(connection: QueueConnection, reads: Sequence[Job]) -> None:
    """Run reads in one transaction: for a small one, the transaction's begin and end are most of the cost."""
    for read in reads:
        read.done = False
    try:
        with connection.read_transaction():
            for read in reads:
                read.run_isolated(connection)
    except Exception as error:
        if is_damage(error):
            raise
        # There was no transaction. That concerns the reads only: the writes of the batch are still tried.
        for read in reads:
            if not read.done:
                read.fail(storage_error(error, connection.path) or error)


def copied(error: Exception) -> Exception:
    """Return a copy of an error: one that is raised for several callers collects the tracebacks of all."""
    own = copy(error)
    own.__cause__ = error.__cause__
    return own
