"""
What goes to the connection's thread in one hop, and what comes of it for each caller.
"""

import asyncio
from collections.abc import Callable, Iterator, Sequence
from copy import copy
from itertools import groupby
from typing import Any

from exponea_async.storage.base import Leased
from exponea_async.storage.sqlite.connection import QueueConnection
from exponea_async.storage.sqlite.file import is_damage, translated
from exponea_async.storage.sqlite.leases import LeaseRequest, has_due, lease
from exponea_async.storage.sqlite.writes import BatchWriter, PendingWrite


class Job:
    """Something else that a caller wants done, and what came of it: `result`, or `error`."""

    __slots__ = ("done", "error", "future", "result", "work")

    def __init__(self, work: Callable[[QueueConnection], Any], future: "asyncio.Future[Any]") -> None:
        self.work = work
        self.future = future
        self.result: Any = None
        self.error: Exception | None = None
        self.done = False

    def run(self, ledger: QueueConnection) -> None:
        """Do it, on the connection's thread."""
        self.result = self.work(ledger)

    def run_apart(self, ledger: QueueConnection) -> None:
        """Do it, keeping its trouble from others; only that of a damaged file is everybody's."""
        self.error = None
        try:
            self.run(ledger)
        except Exception as error:
            if is_damage(error):
                raise
            self.error = translated(error, ledger.path) or error
        self.done = True

    def fail(self, error: Exception) -> None:
        """Note an error that is that of others too: one that is raised in many places gathers all their tracebacks."""
        self.error = copy(error)
        self.error.__cause__ = error.__cause__
        self.done = True

    def answer(self) -> None:
        """Give the caller what came of it."""
        if self.future.done():
            return
        if self.error is not None:
            self.future.set_exception(self.error)
        else:
            self.future.set_result(self.result)


class Look(Job):
    """A job that only reads, in one transaction with those beside it."""

    __slots__ = ()


class Lease(Job):
    """A claim, which is worth a transaction only if something is due."""

    __slots__ = ("claim",)

    def __init__(self, claim: LeaseRequest, future: "asyncio.Future[list[Leased]]") -> None:
        super().__init__(self._take, future)
        self.claim = claim

    def _take(self, ledger: QueueConnection) -> list[Leased]:
        return lease(ledger, self.claim)


class CommitBatch:
    """
    What goes to the connection's thread in one hop.

    Attributes:
        looks: Jobs that come first: they only read, or see to their transactions themselves.
        changes: Jobs of the transaction that come before the writes: they may make room.
        writes: New records and states.
        leases: Jobs of the transaction that come last, to find what has just been written.
        committed: Whether there was a transaction.
        blocked: Writes that have to wait for room.
    """

    __slots__ = ("blocked", "changes", "committed", "leases", "looks", "writes")

    def __init__(
        self,
        writes: Sequence[PendingWrite] = (),
        changes: Sequence[Job] = (),
        leases: Sequence[Lease] = (),
        looks: Sequence[Job] = (),
    ) -> None:
        self.writes = writes
        self.changes = changes
        self.leases = leases
        self.looks = looks
        self.committed = False
        self.blocked: list[PendingWrite] = []

    def is_empty(self) -> bool:
        """Tell whether nobody wants anything."""
        return not (self.writes or self.changes or self.leases or self.looks)

    def members(self) -> "list[PendingWrite | Job]":
        """Tell all callers."""
        return [*self.writes, *self.changes, *self.leases, *self.looks]

    def singly(self) -> "Iterator[CommitBatch]":
        """Make a group of each caller."""
        yield from (CommitBatch(looks=(job,)) for job in self.looks)
        yield from (CommitBatch(changes=(job,)) for job in self.changes)
        yield from (CommitBatch(writes=(write,)) for write in self.writes)
        yield from (CommitBatch(leases=(job,)) for job in self.leases)

    def run(self, ledger: QueueConnection) -> None:
        """Do everything, on the connection's thread."""
        for kind, jobs in groupby(self.looks, type):
            if kind is Look:
                _look(ledger, list(jobs))
            else:
                for job in jobs:
                    job.run_apart(ledger)
        if self.writes or self.changes or (self.leases and ledger.look(self._is_due)):
            ledger.transact(self._change)
            self.committed = True

    def _is_due(self, ledger: QueueConnection) -> bool:
        # An idle queue is polled often, and must not be written to for that.
        for job in self.leases:
            job.result = []
        return any(has_due(ledger, job.claim) for job in self.leases)

    def _change(self, ledger: QueueConnection) -> None:
        for job in self.changes:
            job.run(ledger)
        if self.writes:
            self.blocked = BatchWriter(ledger, self.writes).run()
        for job in self.leases:
            job.run(ledger)

    def answer(self) -> None:
        """Give each caller its result; writers that wait for room have none."""
        for write in self.writes:
            future = write.future
            if future.done():
                continue
            if write.written is not None:
                future.set_result(write.written)
            elif write.error is not None:
                future.set_exception(write.error)
        for jobs in (self.changes, self.leases, self.looks):
            for job in jobs:
                job.answer()

    def answer_looks(self) -> None:
        """Part with the looks that are done, whatever becomes of the transaction: they must not be done again."""
        for look in self.looks:
            if look.done:
                look.answer()
        self.looks = [look for look in self.looks if not look.done]

    def fail(self, error: Exception) -> None:
        """Give each caller an error of its own: one that is raised in many places gathers the tracebacks of all."""
        for member in self.members():
            if not member.future.done():
                own = copy(error)
                own.__cause__ = error.__cause__
                member.future.set_exception(own)


def _look(ledger: QueueConnection, looks: Sequence[Job]) -> None:
    """Have looks done in one transaction: for a small one, its begin and its end are most of the price."""

    def run_each(ledger: QueueConnection) -> None:
        for look in looks:
            look.run_apart(ledger)

    for look in looks:
        look.done = False
    try:
        ledger.look(run_each)
    except Exception as error:
        if is_damage(error):
            raise
        # There was no transaction. That is the trouble of the looks only: the writes beside them are still tried.
        for look in looks:
            if not look.done:
                look.fail(translated(error, ledger.path) or error)
