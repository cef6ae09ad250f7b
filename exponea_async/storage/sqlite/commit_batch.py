"""
What goes to the connection's thread in one call: the calls of many callers, in one transaction.
"""

import logging
import sqlite3
from collections.abc import Callable, Collection, Iterator, Sequence
from itertools import groupby
from operator import attrgetter

from exponea_async.storage.base import Written
from exponea_async.storage.sqlite.connection import QueueConnection
from exponea_async.storage.sqlite.jobs import Job, Lease, Read, copied, run_reads
from exponea_async.storage.sqlite.leases import has_due
from exponea_async.storage.sqlite.space import make_room, prepare_disk
from exponea_async.storage.sqlite.writes import BatchWriter, PendingWrite

LOG = logging.getLogger("exponea_async")


class CommitBatch:
    """
    The jobs and writes that go to the connection's thread in one call.

    Args:
        writes: Records and states to write.
        changes: Jobs of the transaction that run before the writes, for which they may free capacity.
        leases: Jobs of the transaction that run last, so that they find what has just been written.
        preceding: Jobs that run before the transaction: reads, and jobs that begin transactions of their own.

    Attributes:
        committed: Whether there was a transaction.
        blocked: The writes that have to wait for capacity.
    """

    __slots__ = (
        "_delivered",
        "_recipients",
        "blocked",
        "changes",
        "committed",
        "leases",
        "preceding",
        "writes",
    )

    def __init__(
        self,
        writes: Sequence[PendingWrite] = (),
        changes: Sequence[Job] = (),
        leases: Sequence[Lease] = (),
        preceding: Sequence[Job] = (),
    ) -> None:
        self.writes = writes
        self.changes = changes
        self.leases = leases
        self.preceding = preceding
        self.committed = False
        self.blocked: list[PendingWrite] = []
        # All writes and jobs, from the begin of their delivery on, and how many of them have the outcome.
        self._recipients: list[PendingWrite | Job] | None = None
        self._delivered = 0

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to run."""
        return not (self.writes or self.changes or self.leases or self.preceding)

    def members(self) -> "list[PendingWrite | Job]":
        """Return all writes and jobs."""
        return [*self.writes, *self.changes, *self.leases, *self.preceding]

    @property
    def since(self) -> float:
        """When the first of the calls was made, in monotonic time."""
        if self.writes and not (self.changes or self.leases or self.preceding):
            # The usual case.
            return self.writes[0].since
        # Each list is in the order of the calls.
        lists: Sequence[Sequence[PendingWrite | Job]] = (self.writes, self.changes, self.leases, self.preceding)
        return min(members[0].since for members in lists if members)

    def split(self) -> "Iterator[CommitBatch]":
        """Yield a batch for each write and job."""
        yield from (CommitBatch(preceding=(job,)) for job in self.preceding)
        yield from (CommitBatch(changes=(job,)) for job in self.changes)
        yield from (CommitBatch(writes=(write,)) for write in self.writes)
        yield from (CommitBatch(leases=(job,)) for job in self.leases)

    # On the connection's thread

    def run(self, connection: QueueConnection) -> None:
        """
        Run everything.

        Raises:
            MovedFileError: The file at the path is not the one that is open any more; nothing was committed.
        """
        if self.preceding:
            self._run_preceding(connection)
        if self.writes or self.changes or self._is_any_due(connection):
            prepare_disk(connection)
            try:
                self._run_transaction(connection)
            except sqlite3.OperationalError as error:
                if not make_room(connection, error, for_upload=bool(self.changes or self.leases)):
                    raise
                self._run_transaction(connection)
            self.committed = True
            if self.changes:
                # They may have deleted records.
                connection.next_reclaim = 0.0
        else:
            connection.check_path()

    def _run_transaction(self, connection: QueueConnection) -> None:
        with connection.write_transaction():
            for job in self.changes:
                job.run(connection)
            if self.writes:
                self.blocked = BatchWriter(connection, self.writes).run()
            for job in self.leases:
                job.run(connection)
            # Before the commit: what is written to a file that is gone must not be there, too, when its content is
            # copied to a new file. If the file is lost after this, the next check finds what was committed.
            connection.check_path()

    def _run_preceding(self, connection: QueueConnection) -> None:
        for kind, jobs in groupby(self.preceding, type):
            if kind is Read:
                run_reads(connection, list(jobs))
            else:
                for job in jobs:
                    job.run_isolated(connection)

    def _is_any_due(self, connection: QueueConnection) -> bool:
        """Return whether any lease would find records: an idle queue is polled often, and must not be written then."""
        if not self.leases:
            return False
        for job in self.leases:
            job.value = []
        with connection.read_transaction():
            return any(has_due(connection, job.request) for job in self.leases)

    # On the event loop's thread

    def remove_blocked(self) -> None:
        """Remove the writes that wait for capacity: the next transaction may write them before the others go on."""
        blocked = set(self.blocked)
        self.writes = [write for write in self.writes if write not in blocked]

    def deliver(self, count: int) -> bool:
        """
        Give the next callers the outcome.

        The callers go on within this call, so it must not be called by a task. If it is interrupted, it can be called
        again for those who are left.

        Args:
            count: How many callers get it at most.

        Returns:
            Whether others are left.
        """
        members = self._recipients
        if members is None:
            self._recipients = members = self.members()
            self._report()
        end = self._delivered + count
        for member in members[self._delivered : end]:
            member.deliver()
        self._delivered = end
        return end < len(members)

    def _report(self) -> None:
        """Report what was committed, of consecutive writes with the same function together."""
        committed = (write for write in self.writes if write.written is not None)
        for report, writes in groupby(committed, attrgetter("on_commit")):
            if report is not None:
                _call(report, [write.written for write in writes if write.written])

    def deliver_preceding(self) -> None:
        """Deliver and remove the preceding jobs that are finished, so that they do not run again."""
        for job in self.preceding:
            if job.is_finished and not job.done():
                if job.error is not None:
                    job.set_exception(job.error)
                else:
                    job.set_result(job.value)
        self.preceding = [job for job in self.preceding if not job.is_finished]

    def fail(self, error: Exception, *, spare: "Collection[PendingWrite | Job]" = ()) -> None:
        """Give each caller an error, but those that are spared."""
        for member in self.members():
            if not member.done() and member not in spare:
                member.set_exception(copied(error))


def _call(report: Callable[[Written], None], parts: Sequence[Written]) -> None:
    ids = tuple([key for ids, _ in parts for key in ids])
    dropped = tuple([key for _, dropped in parts for key in dropped])
    try:
        report(Written(ids, dropped))
    except Exception:
        # It was committed all the same, and so were the writes of the others.
        LOG.exception("Unexpected error after a commit; continuing.")
