"""
The calls that a group commit runs: the work of one caller each, with its outcome.
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from copy import copy
from functools import partial
from typing import Any

from exponea_async.storage.sqlite.connection import QueueConnection
from exponea_async.storage.sqlite.file import is_damage, storage_error
from exponea_async.storage.sqlite.futures import PromptFuture
from exponea_async.storage.sqlite.leases import LeaseRequest, lease


class Job(PromptFuture[Any]):
    """
    The work of one caller, who waits for it, and its outcome: `value`, or `error`.

    Args:
        work: Runs on the connection's thread.
        loop: The event loop of the caller.

    Attributes:
        since: When the caller made the call, in monotonic time.
    """

    __slots__ = ("error", "is_finished", "since", "value", "work")

    def __init__(self, work: Callable[[QueueConnection], Any], loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop)
        self.work = work
        self.since = time.monotonic()
        self.value: Any = None
        self.error: Exception | None = None
        self.is_finished = False

    def run(self, connection: QueueConnection) -> None:
        """Run the work, on the connection's thread."""
        self.value = self.work(connection)

    def run_isolated(self, connection: QueueConnection) -> None:
        """Run the work and store its error, so that it affects no other job; only damage of the file is raised."""
        self.error = None
        try:
            self.run(connection)
        except Exception as error:
            if is_damage(error):
                raise
            self.error = storage_error(error, connection.path) or error
        self.is_finished = True

    def fail(self, error: Exception) -> None:
        """Store an error that other jobs get, too."""
        self.error = copied(error)
        self.is_finished = True

    def deliver(self) -> None:
        """Give the caller the outcome."""
        if self.done():
            return
        if self.error is not None:
            self.set_exception(self.error)
        else:
            self.resolve_now(self.value)


class Read(Job):
    """A job that only reads, and shares one transaction with the reads next to it."""

    __slots__ = ()


class Lease(Job):
    """A job that leases records; it needs a transaction only if any of them is due."""

    __slots__ = ("request",)

    def __init__(self, request: LeaseRequest, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(partial(lease, request=request), loop)
        self.request = request


def run_reads(connection: QueueConnection, reads: Sequence[Job]) -> None:
    """Run reads in one transaction: for a small one, the transaction's begin and end are most of the cost."""
    for read in reads:
        read.is_finished = False
    try:
        with connection.read_transaction():
            for read in reads:
                read.run_isolated(connection)
    except Exception as error:
        if is_damage(error):
            raise
        # There was no transaction. That concerns the reads only: the writes of the batch are still tried.
        for read in reads:
            if not read.is_finished:
                read.fail(storage_error(error, connection.path) or error)


def copied(error: Exception) -> Exception:
    """Return a copy of an error: one that is raised for several callers collects the tracebacks of all."""
    own = copy(error)
    own.__cause__ = error.__cause__
    return own
