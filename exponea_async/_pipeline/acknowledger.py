"""
Verdicts on leased records: written to the storage in groups, and then published.

A sender states what happened to the records of a batch and goes on at once. One task writes all verdicts that have
come in meanwhile in a single transaction, and only then counts them, resolves receipts and calls listeners.
"""

import asyncio
import heapq
import logging
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from itertools import count
from math import inf
from typing import Literal

from attrs import evolve, frozen

from exponea_async._pipeline.dead_letters import DeadLetterLimits, RejectionLog, dead_letter_error
from exponea_async._pipeline.receipts import Receipts
from exponea_async._pipeline.retry import storage_attempts
from exponea_async.errors import ProjectPausedError, RejectedError, StorageError
from exponea_async.hooks import DeliveryEvent, Hooks
from exponea_async.observability import Counters
from exponea_async.storage.base import Leased, Settlement, Storage
from exponea_async.storage.values import postponements

LOG = logging.getLogger("exponea_async")

#: Length of a lease in seconds. If this process dies, other processes can lease its records after that time.
LEASE = 15.0
#: By how much the clocks of the event loop and of the system may drift apart within a wait, in seconds.
CLOCK_TOLERANCE = 0.05


@frozen
class Verdict:
    """
    What happened to records.

    Attributes:
        outcome: ``"delivered"``, ``"rejected"`` for good, ``"retried"`` later, ``"returned"``: not sent after all, or
            ``"revived"``: rejected before, and in the queue again.
        ids: The records.
        settlements: The same for the storage, but due in event-loop time: the system's clock may be set before they are
            stored.
        reason: Why, unless they were delivered or returned.
    """

    outcome: Literal["delivered", "rejected", "retried", "returned", "revived"]
    ids: tuple[str, ...]
    settlements: tuple[Settlement, ...]
    reason: str = ""


class Acknowledger:
    """
    Holds leased records until their verdict is stored.

    Args:
        storage: Where verdicts are stored.
        receipts: Resolved afterwards.
        counters: Updated afterwards.
        hooks: Notified afterwards.
        limits: Enforced after records have become dead letters.
    """

    def __init__(
        self, storage: Storage, receipts: Receipts, counters: Counters, hooks: Hooks, limits: DeadLetterLimits
    ) -> None:
        self._storage = storage
        self._limits = limits
        # Pauses that callers are told of once the verdicts before them are.
        self._pauses: dict[str, ProjectPausedError] = {}
        # Every project is tried again.
        receipts.resume()
        self._log = RejectionLog()
        self._receipts = receipts
        self._counters = counters
        self._hooks = hooks
        # Leased records without a verdict.
        self._leased: dict[str, Leased] = {}
        # Verdicts that are not stored yet, those that are being stored, and the number of the records of both.
        self._verdicts: list[Verdict] = []
        self._storing: list[Verdict] = []
        self._unstored = 0
        self._wake = asyncio.Event()
        self._stored = asyncio.Event()
        # When records that are retried fall due, in event-loop time, with a number that is unique, and the settlements
        # that say so; a heap.
        self._dues: list[tuple[float, int, tuple[Settlement, ...]]] = []
        self._due_numbers = count()

    @property
    def outstanding(self) -> int:
        """Number of leased records whose verdict is not known or not stored yet."""
        return len(self._leased) + self._unstored

    @property
    def is_reviving(self) -> bool:
        """Whether dead letters are being put back into the queue."""
        return any(verdict.outcome == "revived" for verdict in (*self._verdicts, *self._storing))

    def is_outstanding(self, key: str) -> bool:
        """Return whether a record is leased, and its verdict is not known or not stored yet."""
        return key in self._leased or any(key in verdict.ids for verdict in (*self._verdicts, *self._storing))

    def undecided(self, records: Iterable[Leased]) -> list[Leased]:
        """Return those of some leased records that have no verdict yet."""
        return [record for record in records if record.id in self._leased]

    def pause(self, route: str, error: ProjectPausedError) -> None:
        """State that a route is paused: there will be no verdict soon on its records that have none yet."""
        self._pauses[route] = error
        self._wake.set()

    def resume(self, route: str) -> None:
        """State that a route is no longer paused."""
        self._pauses.pop(route, None)
        self._receipts.resume(route)

    def add(self, records: Sequence[Leased]) -> list[Leased]:
        """
        Take over records that were leased: their leases are renewed until they have a verdict.

        Returns:
            The records that are to be sent. Leases run out unnoticed where the machine or the event loop stands still;
            records whose request is under way, or whose fate is known and not stored yet, are then leased once more.
        """
        decided = self._decided_ids()
        new = [record for record in records if record.id not in self._leased and record.id not in decided]
        self._leased.update({record.id: record for record in new})
        return new

    def _decided_ids(self) -> set[str]:
        """Return the records that leave the queue as soon as their verdict is stored."""
        settlements = [each for verdict in (*self._verdicts, *self._storing) for each in verdict.settlements]
        return {key for each in settlements if each.verdict != "later" for key in each.ids}

    # Verdicts

    def mark_delivered(self, ids: tuple[str, ...]) -> None:
        """State that the platform accepted records."""
        self._decide(Verdict("delivered", ids, (Settlement(ids, "delivered"),)))

    def dead_letter(self, ids: tuple[str, ...], reason: str) -> None:
        """State that records are rejected for good."""
        for key in ids:
            if record := self._leased.get(key):
                self._log.note(record, reason)
        self._decide(Verdict("rejected", ids, (Settlement(ids, "dead", reason=reason),), reason))

    def retry_later(self, records: Sequence[Leased], delay: float, reason: str, *, is_fault: bool = False) -> None:
        """
        State that records are to be sent again.

        Args:
            records: The records.
            delay: When, in seconds from now.
            reason: Why.
            is_fault: Whether the failure is the fault of the records, and counts for each of them.
        """
        due = asyncio.get_running_loop().time() + delay
        settlements = postponements(records, due, reason, failures=int(is_fault))
        heapq.heappush(self._dues, (due, next(self._due_numbers), settlements))
        self._decide(Verdict("retried", _ids(records), settlements, reason))

    def give_back(self, records: Sequence[Leased]) -> None:
        """State that records were not sent after all: any process may lease them at once."""
        now = asyncio.get_running_loop().time()
        self._decide(Verdict("returned", _ids(records), postponements(records, now)))

    def revive(self, ids: tuple[str, ...], reason: str) -> None:
        """State that dead letters were no fault of theirs: they are put back into the queue."""
        self._decide(Verdict("revived", ids, (), reason))

    def next_due(self) -> float:
        """Return when the next of the retried records falls due, in event-loop time; infinity if there is none."""
        return self._dues[0][0] if self._dues else inf

    def begin_look(self) -> None:
        """State that the queue is looked at from now on, which finds the records that are due."""
        past = asyncio.get_running_loop().time() - CLOCK_TOLERANCE
        # What is not stored yet is not found, and must be looked for again.
        while self._dues and self._dues[0][0] < past and not self._is_unstored(self._dues[0][2]):
            heapq.heappop(self._dues)

    def _is_unstored(self, settlements: tuple[Settlement, ...]) -> bool:
        return any(verdict.settlements is settlements for verdict in (*self._verdicts, *self._storing))

    def expedite(self) -> None:
        """Let the records that are to be sent again later fall due now."""
        now = asyncio.get_running_loop().time()
        waiting = [each for due, _, settlements in self._dues if due > now for each in settlements]
        if waiting:
            settlements = tuple(each._replace(due=now) for each in waiting)
            self._dues = [(now, next(self._due_numbers), settlements)]
            # Without ids: the verdict on these records is stored already, or about to be.
            self._decide(Verdict("returned", (), settlements))

    def _decide(self, verdict: Verdict) -> None:
        for key in verdict.ids:
            self._leased.pop(key, None)
        self._unstored += len(verdict.ids)
        self._verdicts.append(verdict)
        self._wake.set()

    # Storing and publishing

    async def run(self) -> None:
        """Store and publish verdicts as they come, until cancelled."""
        while True:
            await self._wake.wait()
            await self.store()

    async def store(self) -> None:
        """Store and publish all verdicts that are known, however long the storage fails."""
        self._wake.clear()
        verdicts, self._verdicts = self._verdicts, []
        self._storing = verdicts
        try:
            await self._settle([settlement for verdict in verdicts for settlement in verdict.settlements])
            revived = [key for verdict in verdicts if verdict.outcome == "revived" for key in verdict.ids]
            if revived:
                # Not to be settled again: a record that is revived would become a dead letter once more.
                verdicts = self._storing = [evolve(verdict, settlements=()) for verdict in verdicts]
                await self._revive(revived)
        except BaseException:
            # Closing cancels this task, and stores the rest itself; otherwise the task is started again.
            self._verdicts[:0] = verdicts
            self._storing = []
            self._wake.set()
            raise
        for verdict in verdicts:
            self._unstored -= len(verdict.ids)
            try:
                self._publish(verdict)
            except Exception:
                # The others must be published all the same.
                LOG.exception("Unexpected error while publishing a verdict.")
        self._storing = []
        while self._pauses:
            self._receipts.pause(*self._pauses.popitem())
        self._stored.set()
        self._stored = asyncio.Event()
        if any(verdict.outcome == "rejected" for verdict in verdicts):
            await self._limits.enforce()

    async def wait_stored(self) -> None:
        """Wait until verdicts are stored the next time."""
        await self._stored.wait()

    async def _settle(self, settlements: Sequence[Settlement]) -> None:
        # The retry loop costs more than settling a batch does, and is hardly ever needed.
        with suppress(StorageError):
            await self._storage.settle(_in_unix_time(settlements))
            return
        async for attempt in storage_attempts():
            with attempt:
                await self._storage.settle(_in_unix_time(settlements))

    async def _revive(self, ids: Sequence[str]) -> None:
        async for attempt in storage_attempts():
            with attempt:
                # Where closing cancels this task, they are revived all the same, and must be counted.
                await asyncio.shield(asyncio.ensure_future(self._revive_once(ids)))

    async def _revive_once(self, ids: Sequence[str]) -> None:
        # What was revived or deleted before is not counted.
        self._counters.revived += await self._storage.revive(ids)

    def _publish(self, verdict: Verdict) -> None:
        if verdict.outcome == "returned":
            return
        error: RejectedError | None = None
        if verdict.outcome == "delivered":
            self._counters.delivered += len(verdict.ids)
            self._receipts.resolve(verdict.ids)
        elif verdict.outcome == "rejected":
            error = dead_letter_error(verdict.reason)
            self._counters.rejected += len(verdict.ids)
            self._receipts.resolve(verdict.ids, error)
        elif verdict.outcome == "retried":
            self._counters.retried += len(verdict.ids)
        self._hooks.notify(DeliveryEvent(verdict.outcome, verdict.ids, reason=verdict.reason, error=error))

    # Leases

    async def renew_leases(self) -> None:
        """Renew the leases of records whose request takes long, until cancelled."""
        while True:
            before = set(self._leased)
            await asyncio.sleep(LEASE / 3)
            slow = [record for key, record in self._leased.items() if key in before]
            if slow:
                # If this fails, the leases run out and the records are sent once more.
                with suppress(StorageError):
                    await self._storage.settle(postponements(slow, time.time() + LEASE))

    async def release(self) -> None:
        """Give back all records without a verdict, and store all verdicts."""
        if self._leased:
            self.give_back(list(self._leased.values()))
        if self._verdicts:
            await self.store()


def _ids(records: Iterable[Leased]) -> tuple[str, ...]:
    return tuple(record.id for record in records)


def _in_unix_time(settlements: Sequence[Settlement]) -> list[Settlement]:
    """Return settlements that are due in event-loop time with their UNIX time, as the storage needs it."""
    offset = time.time() - asyncio.get_running_loop().time()
    return [each._replace(due=each.due + offset) if each.verdict == "later" else each for each in settlements]
