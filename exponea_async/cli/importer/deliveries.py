"""
What became of the events of one import.
"""

import asyncio
from collections.abc import Iterable
from contextlib import suppress

from exponea_async.errors import ExponeaError
from exponea_async.models import Receipt

#: How many open receipts are a sign that another process uploads from this queue, so that ours hear nothing.
MANY = 20_000
#: How long to wait for receipts that ask the queue itself, in seconds; they do so each second.
ASKING = 2.5


class Deliveries:
    """
    Counts verdicts; a receipt is kept only as long as it has none.

    Attributes:
        delivered: How many events Engagement has accepted.
        rejected: How many it has refused.
    """

    def __init__(self) -> None:
        self.delivered = 0
        self.rejected = 0
        self._open: list[Receipt] = []

    @property
    def open(self) -> int:
        """How many have no verdict yet."""
        return len(self._open)

    async def add(self, receipts: Iterable[Receipt]) -> None:
        """Watch these too."""
        self._open += receipts
        self._sweep()
        if len(self._open) > MANY:
            await self.ask()

    async def ask(self) -> None:
        """Let receipts without a verdict look into the queue."""
        self._sweep()
        await asyncio.gather(*map(_asked, self._open))
        self._sweep()

    def _sweep(self) -> None:
        still: list[Receipt] = []
        for receipt in self._open:
            if receipt.status == "queued":
                still.append(receipt)
            elif receipt.status == "delivered":
                self.delivered += 1
            else:
                self.rejected += 1
        self._open = still


async def _asked(receipt: Receipt) -> None:
    with suppress(ExponeaError):
        await receipt.delivered(ASKING)
