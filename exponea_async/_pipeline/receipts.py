"""
The receipts that callers still hold, by record.
"""

import asyncio
from collections.abc import Iterable
from weakref import WeakSet, ref

from exponea_async.errors import ClosedError, DeliveryError, DroppedError, RejectedError, StorageError
from exponea_async.models import Receipt
from exponea_async.storage.base import Storage, Written

#: How often the records of awaited receipts are looked up in the storage, in seconds: another process that shares the
#: queue may have sent them.
POLL_INTERVAL = 1.0


class _ReceiptRef(ref[Receipt]):
    """A weak reference to a receipt, with its record ids. It does what a WeakValueDictionary does at half the cost."""

    __slots__ = ("ids",)
    ids: tuple[str, ...]


class Receipts:
    """
    Issues receipts, and resolves them when the verdicts on their records are known.

    A receipt that its caller does not hold is not kept, so it costs nothing.

    Args:
        storage: Where the records are.
        poll_interval: Seconds between look-ups of awaited records.
    """

    def __init__(self, storage: Storage, *, poll_interval: float = POLL_INTERVAL) -> None:
        self._storage = storage
        self._poll_interval = poll_interval
        self._by_record: dict[str, _ReceiptRef] = {}
        self._awaited: WeakSet[Receipt] = WeakSet()
        self._task: asyncio.Task[None] | None = None
        self._is_closed = False

    def __len__(self) -> int:
        """Return the number of records whose receipts are referenced and not resolved."""
        return len(self._by_record)

    def issue(self, written: Written) -> Receipt:
        """Return the receipt for the records that one call has written."""
        receipt = Receipt(written.ids, self._watch)
        reference = _ReceiptRef(receipt, self._discard)
        reference.ids = written.ids
        for key in written.ids:
            self._by_record[key] = reference
        return receipt

    def resolve(self, ids: Iterable[str], error: DeliveryError | None = None) -> None:
        """Pass a verdict on records to their receipts: delivered, or an error."""
        for key in ids:
            reference = self._by_record.pop(key, None)
            receipt = reference() if reference else None
            if receipt is not None:
                receipt.resolve(error)

    def drop_all(self, reason: str) -> None:
        """Resolve all receipts: their records were deleted unsent."""
        self.resolve(list(self._by_record), DroppedError(reason))

    def open(self) -> None:
        """Allow callers to wait for verdicts, also after `aclose`."""
        self._is_closed = False

    async def aclose(self) -> None:
        """Raise a `ClosedError` to all callers that wait for a verdict, now and later."""
        self._is_closed = True
        for receipt in list(self._awaited):
            receipt.fail_waiters(
                ClosedError("The client was closed before there was a verdict; the event is still queued.")
            )
        if self._task:
            self._task.cancel()
            await asyncio.wait([self._task])

    def _discard(self, reference: _ReceiptRef) -> None:
        for key in reference.ids:
            self._by_record.pop(key, None)

    # Verdicts of other processes

    def _watch(self, receipt: Receipt) -> None:
        if self._is_closed:
            raise ClosedError("The client is closed, so there will be no verdict; the event is still queued.")
        self._awaited.add(receipt)
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._poll(), name="exponea_async: receipts")

    async def _poll(self) -> None:
        while any(receipt.is_awaited for receipt in self._awaited):
            await asyncio.sleep(self._poll_interval)
            awaited = (receipt.ids for receipt in self._awaited if receipt.is_awaited)
            await self._look_up([key for ids in awaited for key in ids if key in self._by_record])
        self._awaited.clear()

    async def _look_up(self, ids: list[str]) -> None:
        try:
            found = await self._storage.find(ids)
        except StorageError:
            return
        for key in ids:
            reason = found.get(key)
            if reason is None:
                # Records that are gone were delivered.
                self.resolve([key])
            elif reason != "queued":
                self.resolve([key], RejectedError(reason))
