"""
Receipts that somebody still holds, and the verdicts they wait for.
"""

import asyncio
from collections.abc import Iterable
from weakref import WeakSet, ref

from exponea_async.errors import ClosedError, DeliveryError, DroppedError, RejectedError, StorageError
from exponea_async.models import Receipt
from exponea_async.storage.base import Storage, Written

#: How often awaited receipts are looked up, in seconds: another process that shares the queue may have sent them.
LOOK_UP = 1.0


class _Hold(ref[Receipt]):
    """A receipt that is not kept alive, and its records. Does the work of a WeakValueDictionary at half the price."""

    __slots__ = ("ids",)
    ids: tuple[str, ...]


class Receipts:
    """
    All receipts that somebody holds, by record.

    Args:
        storage: Where the records are.
    """

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._held: dict[str, _Hold] = {}
        self._awaited: WeakSet[Receipt] = WeakSet()
        self._task: asyncio.Task[None] | None = None
        self._closed = False

    def issue(self, written: Written) -> Receipt:
        """Make the receipt for what one call wrote."""
        receipt = Receipt(written.ids, self._follow)
        hold = _Hold(receipt, self._let_go)
        hold.ids = written.ids
        for key in written.ids:
            self._held[key] = hold
        return receipt

    def resolve(self, ids: Iterable[str], error: DeliveryError | None = None) -> None:
        """Tell receipts what became of their records."""
        for key in ids:
            hold = self._held.pop(key, None)
            receipt = hold() if hold else None
            if receipt is not None:
                receipt.resolve(error)

    def drop_all(self, reason: str) -> None:
        """Tell all receipts that their records are gone unsent."""
        self.resolve(list(self._held), DroppedError(reason))

    def open(self) -> None:
        """Let verdicts be waited for, after a close too."""
        self._closed = False

    async def aclose(self) -> None:
        """Stop looking, and send away who still waits."""
        self._closed = True
        for receipt in list(self._awaited):
            receipt.give_up(ClosedError("The client was closed before a verdict came; the event is still queued."))
        if self._task:
            self._task.cancel()
            await asyncio.wait([self._task])

    def _let_go(self, hold: _Hold) -> None:
        for key in hold.ids:
            self._held.pop(key, None)

    def _follow(self, receipt: Receipt) -> None:
        if self._closed:
            raise ClosedError("The client is closed, so no verdict will come; the event is still queued.")
        self._awaited.add(receipt)
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._look_up(), name="exponea_async: receipts")

    async def _look_up(self) -> None:
        while any(receipt.is_awaited for receipt in self._awaited):
            await asyncio.sleep(LOOK_UP)
            awaited = (receipt.ids for receipt in self._awaited if receipt.is_awaited)
            await self._ask([key for ids in awaited for key in ids if key in self._held])
        self._awaited.clear()

    async def _ask(self, ids: list[str]) -> None:
        try:
            fates = await self._storage.find(ids)
        except StorageError:
            return
        for key in ids:
            self._learn(key, fates.get(key))

    def _learn(self, key: str, fate: str | None) -> None:
        if fate is None:
            self.resolve([key])
        elif fate != "queued":
            self.resolve([key], RejectedError(fate))
