"""
Receipts that somebody still holds, and the verdicts they wait for.
"""

import asyncio
from collections.abc import Iterable
from weakref import WeakSet, WeakValueDictionary

from exponea_async.errors import DeliveryError, DroppedError, RejectedError, StorageError
from exponea_async.models import Receipt
from exponea_async.storage.base import Storage, Written

#: How often awaited receipts are looked up, in seconds: another process that shares the queue may have sent them.
LOOK_UP = 1.0


class Receipts:
    """
    All receipts that somebody holds, by record.

    Args:
        storage: Where the records are.
    """

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._held: WeakValueDictionary[str, Receipt] = WeakValueDictionary()
        self._awaited: WeakSet[Receipt] = WeakSet()
        self._task: asyncio.Task[None] | None = None

    def issue(self, written: Written) -> Receipt:
        """Make the receipt for what one call wrote."""
        receipt = Receipt(written.ids, self._follow)
        for key in written.ids:
            self._held[key] = receipt
        return receipt

    def resolve(self, ids: Iterable[str], error: DeliveryError | None = None) -> None:
        """Tell receipts what became of their records."""
        for key in ids:
            receipt = self._held.pop(key, None)
            if receipt is not None:
                receipt.resolve(error)

    def drop_all(self, reason: str) -> None:
        """Tell all receipts that their records are gone unsent."""
        self.resolve(list(self._held), DroppedError(reason))

    async def aclose(self) -> None:
        """Stop looking."""
        if self._task:
            self._task.cancel()
            await asyncio.wait([self._task])

    def _follow(self, receipt: Receipt) -> None:
        self._awaited.add(receipt)
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._look_up(), name="exponea_async: receipts")

    async def _look_up(self) -> None:
        while self._awaited:
            await asyncio.sleep(LOOK_UP)
            ids = [key for receipt in self._awaited for key in receipt.ids if key in self._held]
            try:
                fates = await self._storage.find(ids)
            except StorageError:
                continue
            for key in ids:
                self._learn(key, fates.get(key))
            self._awaited = WeakSet(receipt for receipt in self._awaited if receipt.status == "queued")

    def _learn(self, key: str, fate: str | None) -> None:
        if fate is None:
            self.resolve([key])
        elif fate != "queued":
            self.resolve([key], RejectedError(fate))
