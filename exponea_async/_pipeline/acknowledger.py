"""
What becomes of leased records: written down, then told to whoever wants to know.
"""

import asyncio
import heapq
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from math import inf

from exponea_async._pipeline.receipts import Receipts
from exponea_async._pipeline.retry import storage_attempts
from exponea_async.errors import DeliveryError, RejectedError, StorageError
from exponea_async.hooks import DeliveryEvent, Hooks
from exponea_async.observability import Counters
from exponea_async.storage.base import Leased, Settlement, Storage

#: How long records are ours, in seconds. If this process dies, others get them after that time.
LEASE = 15.0
#: By how much the event loop's clock and the system's may run apart meanwhile, in seconds.
TOLERANCE = 0.05


class Acknowledger:
    """
    Writes verdicts down in groups, while the uploads go on.

    Args:
        storage: Where.
        receipts: Learn it afterwards.
        counters: Count it.
        hooks: Hear it.
    """

    def __init__(self, storage: Storage, receipts: Receipts, counters: Counters, hooks: Hooks) -> None:
        self._storage = storage
        self._receipts = receipts
        self._counters = counters
        self._hooks = hooks
        self._waiting: list[tuple[Settlement, Callable[[], None] | None]] = []
        self._wake = asyncio.Event()
        self._unwritten = 0
        # Leased, and nothing known yet.
        self._hand: dict[str, Leased] = {}
        self._written = asyncio.Event()
        self._dues: list[float] = []

    @property
    def load(self) -> int:
        """How many records are leased, their verdict unknown or not written down."""
        return len(self._hand) + self._unwritten

    def take(self, records: Iterable[Leased]) -> None:
        """Take charge of leased records."""
        self._hand.update((record.id, record) for record in records)

    # Verdicts

    def deliver(self, ids: tuple[str, ...]) -> None:
        """The platform accepted these."""

        def tell() -> None:
            self._counters.delivered += len(ids)
            self._receipts.resolve(ids)
            self._hooks.tell(DeliveryEvent("delivered", ids))

        self._settle(Settlement(ids, "delivered"), tell)

    def bury(self, ids: tuple[str, ...], reason: str) -> None:
        """These are refused for good."""

        def tell() -> None:
            error: DeliveryError = RejectedError(reason)
            self._counters.rejected += len(ids)
            self._receipts.resolve(ids, error)
            self._hooks.tell(DeliveryEvent("rejected", ids, reason=reason, error=error))

        self._settle(Settlement(ids, "dead", reason=reason), tell)

    def put_off(self, records: Sequence[Leased], wait: float, reason: str, *, failed: bool = False) -> None:
        """
        These are to be sent again.

        Args:
            records: The records.
            wait: How long to wait, in seconds.
            reason: Why.
            failed: Whether that was their own fault.
        """
        ids = tuple(record.id for record in records)

        def tell() -> None:
            self._counters.retried += len(ids)
            self._hooks.tell(DeliveryEvent("retried", ids, reason=reason))

        heapq.heappush(self._dues, asyncio.get_running_loop().time() + wait)
        for settlement in _later(records, time.time() + wait, reason, more=int(failed)):
            self._settle(settlement, None)
        self._settle(Settlement((), "later"), tell)

    def next_due(self) -> float:
        """Tell when something that was put off falls due, as the event loop's time; infinite if nothing was."""
        past = asyncio.get_running_loop().time() - TOLERANCE
        while self._dues and self._dues[0] < past:
            heapq.heappop(self._dues)
        return self._dues[0] if self._dues else inf

    def give_back(self, records: Sequence[Leased]) -> None:
        """These were not sent after all; anybody may take them at once."""
        for settlement in _later(records, time.time(), ""):
            self._settle(settlement, None)

    def _settle(self, settlement: Settlement, tell: Callable[[], None] | None) -> None:
        for key in settlement.ids:
            self._hand.pop(key, None)
        self._unwritten += len(settlement.ids)
        self._waiting.append((settlement, tell))
        self._wake.set()

    # Writing them down

    async def run(self) -> None:
        """Write verdicts down as they come; never ends by itself."""
        while True:
            await self._wake.wait()
            await self.write_down()

    async def write_down(self) -> None:
        """Write all verdicts down that are known, however long it takes."""
        self._wake.clear()
        group, self._waiting = self._waiting, []
        settlements = [settlement for settlement, _ in group if settlement.ids]
        try:
            await self._settle_surely(settlements)
        except BaseException:
            # Closing interrupts us, and writes the rest down itself.
            self._waiting[:0] = group
            raise
        for settlement, tell in group:
            self._unwritten -= len(settlement.ids)
            if tell is not None:
                tell()
        self._written.set()
        self._written = asyncio.Event()

    async def _settle_surely(self, settlements: Sequence[Settlement]) -> None:
        # The loop of attempts costs more than settling a batch does, and is hardly ever needed.
        with suppress(StorageError):
            await self._storage.settle(settlements)
            return
        async for attempt in storage_attempts():
            with attempt:
                await self._storage.settle(settlements)

    async def news(self) -> None:
        """Wait until verdicts are written down."""
        await self._written.wait()

    async def prolong(self) -> None:
        """Keep our hands on what takes long; never ends by itself."""
        while True:
            held = set(self._hand)
            await asyncio.sleep(LEASE / 3)
            slow = [record for key, record in self._hand.items() if key in held]
            if slow:
                # Where that fails the lease runs out, and somebody sends them once more.
                with suppress(StorageError):
                    await self._storage.settle(list(_later(slow, time.time() + LEASE, "")))

    async def release(self) -> None:
        """Give back what is in hand, and write down all that is known."""
        self.give_back(list(self._hand.values()))
        if self._waiting:
            await self.write_down()


def _later(records: Iterable[Leased], due: float, reason: str, *, more: int = 0) -> Iterable[Settlement]:
    by_failures: dict[int, list[str]] = {}
    for record in records:
        by_failures.setdefault(record.failures + more, []).append(record.id)
    for failures, ids in by_failures.items():
        yield Settlement(tuple(ids), "later", due=due, failures=failures, reason=reason)
