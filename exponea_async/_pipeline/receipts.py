"""
The receipts that callers still hold, by record.

A receipt says "delivered" only for a verdict: one that this process got, or one that another process got and marked in
the storage. A record that is gone without either is lost.
"""

import asyncio
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from copy import copy
from typing import TypeVar
from weakref import ref

from exponea_async._internal.closing import check_loop
from exponea_async._internal.log_fields import log_fields
from exponea_async._pipeline.dead_letters import dead_letter_error
from exponea_async.errors import ClosedError, DeliveryError, DroppedError, LostError, ProjectPausedError, StorageError
from exponea_async.hooks import DeliveryEvent, Hooks
from exponea_async.models import Receipt
from exponea_async.observability import Counters
from exponea_async.storage.base import RecordStatus, Storage, Written

LOG = logging.getLogger("exponea_async")

T = TypeVar("T")

#: How often the records of awaited receipts are looked up in the storage, in seconds: another process that shares the
#: queue may have sent them.
POLL_INTERVAL = 1.0
#: Receipts that are handled without letting other tasks run. A million of them may be held.
SLICE = 2_000
#: Receipts whose callers are woken without letting other tasks run.
WAKE_SLICE = 500
#: Number of receipts of one call from which on they share their verdicts.
BULK = 100
#: Why a record is lost.
WIPED = "another process deleted the data of the queue, or the queue file was damaged or deleted"
UNKNOWN = "it is not in the queue any more, and the storage has no mark that it was delivered"


class Receipts:
    """
    Issues receipts, and resolves them when the verdicts on their records are known.

    A receipt that its caller does not hold is not kept, so it costs nothing.

    Args:
        storage: Where the records are.
        counters: Count lost records.
        hooks: Notified of lost records.
        poll_interval: Seconds between look-ups of awaited records.
    """

    def __init__(
        self, storage: Storage, counters: Counters, hooks: Hooks, *, poll_interval: float = POLL_INTERVAL
    ) -> None:
        self._storage = storage
        self._counters = counters
        self._hooks = hooks
        self._poll_interval = poll_interval
        self._by_record: dict[str, _ReceiptRef | _BulkRef] = {}
        # One bound method for all: each reference would keep one of its own, 64 bytes.
        self._on_death = self._discard
        # An ordered set.
        self._awaited: dict[Receipt, None] = {}
        self._paused: dict[str, ProjectPausedError] = {}
        self._is_in_flight: Callable[[str], bool] = lambda _: False
        self._note_await: Callable[[], None] = lambda: None
        self._checks: list[Callable[[Receipt], None]] = []
        self._must_check_all = False
        self._generation: int | None = None
        self._task: asyncio.Task[None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._is_closed = False

    def __len__(self) -> int:
        """Return the number of records whose receipts are referenced and not resolved."""
        return len(self._by_record)

    def issue(self, written: Written, routes: tuple[str, ...] = ()) -> Receipt:
        """Return the receipt for the records that one call has written, with the route of each."""
        receipt = Receipt(written.ids, self, routes)
        reference = _ReceiptRef(receipt, self._on_death)
        reference.ids = written.ids
        for key in written.ids:
            self._by_record[key] = reference
        return receipt

    async def issue_many(
        self, written: Written, ends: Sequence[int], routes: Sequence[tuple[str, ...]]
    ) -> list[Receipt]:
        """
        Return the receipts of a call that has written many events.

        Args:
            written: The result of the write.
            ends: For each receipt, the index behind its last record.
            routes: For each receipt, the routes of its records.
        """
        if len(ends) < BULK:
            spans = zip((0, *ends), ends, routes, strict=False)
            return [self.issue(Written(written.ids[start:end]), each) for start, end, each in spans]
        bulk = _Bulk()
        reference = _BulkRef(bulk, self._discard_in_slices)
        reference.ids = ids = written.ids
        # Before any other task runs, since there may be verdicts soon.
        self._by_record.update(dict.fromkeys(ids, reference))
        receipts: list[Receipt] = []
        start = 0
        for part in _slices(ends):
            if receipts:
                await asyncio.sleep(0)
            for end in part:
                receipts.append(_BulkReceipt(ids[start:end], self, routes[len(receipts)], bulk))
                start = end
        return receipts

    def resolve(self, ids: Iterable[str], error: DeliveryError | None = None) -> None:
        """Pass a verdict on records to their receipts: delivered, or an error."""
        for key in ids:
            reference = self._by_record.pop(key, None)
            holder = reference() if reference else None
            if isinstance(holder, Receipt):
                holder.resolve(error)
            elif holder is not None:
                holder.resolve(key, error)

    async def drop_all(self, reason: str) -> None:
        """Resolve all receipts: their records were deleted unsent."""
        error = DroppedError(reason)
        keys = list(self._by_record)
        for part in _slices(keys):
            self.resolve(part, error)
            if len(part) < len(keys):
                await asyncio.sleep(0)

    async def lose_all(self) -> None:
        """Resolve all receipts: their records are gone, and what became of them is not known any more."""
        keys = list(self._by_record)
        for part in _slices(keys):
            self._resolve_lost(tuple(part), WIPED)
            if len(part) < len(keys):
                await asyncio.sleep(0)

    def _discard(self, reference: "_ReceiptRef") -> None:
        for key in reference.ids:
            self._by_record.pop(key, None)

    def _discard_in_slices(self, reference: "_BulkRef") -> None:
        _call_in_slices(lambda key: self._by_record.pop(key, None), reference.ids)

    # Life cycle

    def open(self) -> None:
        """Allow callers in this event loop to wait for verdicts, also after `aclose`; the storage is open."""
        self._is_closed, self._loop = False, asyncio.get_running_loop()
        self._generation = None
        self._start_polling()

    def abandon(self) -> None:
        """Raise a `ClosedError` to all callers that wait for a verdict from now on."""
        self._is_closed, self._task = True, None

    async def aclose(self) -> None:
        """Raise a `ClosedError` to all callers that wait for a verdict, now and later."""
        self._is_closed = True
        error = ClosedError("The client was closed before there was a verdict; the event is still queued.")
        # Not awaited, so that all callers are released even if the one that closes is cancelled.
        _call_in_slices(lambda receipt: receipt.fail_waiters(error), list(self._awaited), size=WAKE_SLICE)
        if self._task:
            self._task.cancel()
            await asyncio.wait([self._task])

    # Receipts that are awaited, and verdicts of other processes

    def watch(self, receipt: Receipt) -> None:
        """
        Look up the records of a receipt until `unwatch`.

        Raises:
            ClosedError: There will be no verdict.
            LifecycleError: It is awaited within the block of its transaction.
        """
        for check in self._checks:
            check(receipt)
        if self._is_closed:
            raise ClosedError("The client is closed, so there will be no verdict; the event is still queued.")
        if self._loop is not None:
            check_loop(self._loop)
        self._awaited[receipt] = None
        self._note_await()
        self._start_polling()

    def add_check(self, check: Callable[[Receipt], None]) -> None:
        """Let a function raise an error where a receipt is about to be awaited."""
        self._checks.append(check)

    def remove_check(self, check: Callable[[Receipt], None]) -> None:
        """Call a function no longer."""
        if check in self._checks:
            self._checks.remove(check)

    def unwatch(self, receipt: Receipt) -> None:
        """Look up the records of a receipt no longer."""
        self._awaited.pop(receipt, None)

    def pause(self, route: str, error: ProjectPausedError) -> None:
        """Raise an error to all callers that wait for records of a route and not through a pause, now and later."""
        self._paused[route] = error
        _call_in_slices(Receipt.fail_if_paused, list(self._awaited), size=WAKE_SLICE)

    def resume(self, route: str | None = None) -> None:
        """Let callers wait for the records of a route, or of all routes, again."""
        if route is None:
            self._paused.clear()
        else:
            self._paused.pop(route, None)

    def pause_of(self, receipt: Receipt) -> ProjectPausedError | None:
        """Return an error that says why a record of a receipt will have no verdict soon, or None."""
        if self._paused:
            for key, route in zip(receipt.ids, receipt.routes, strict=False):
                if key in self._by_record and route in self._paused:
                    # Raised for each caller: they must not share a traceback.
                    return copy(self._paused[route])
        return None

    def leave_out(self, is_in_flight: Callable[[str], bool]) -> None:
        """Do not look up the records on which this process itself will have a verdict."""
        self._is_in_flight = is_in_flight

    def on_await(self, function: Callable[[], None]) -> None:
        """Call a function whenever a receipt is awaited that was not."""
        self._note_await = function

    def check_all(self) -> None:
        """Look up the records of all receipts that are held once, since some may be lost."""
        self._must_check_all = True
        self._start_polling()

    def report_lost(self, ids: Sequence[str], reason: str) -> None:
        """State that records are lost, but for those on which this process itself will have a verdict."""
        lost = tuple(key for key in ids if not self._is_in_flight(key))
        if lost:
            self._resolve_lost(lost, reason)

    def _start_polling(self) -> None:
        if not self._is_closed and (self._task is None or self._task.done()):
            self._task = asyncio.create_task(self._poll(), name="exponea_async: receipts")
            self._task.add_done_callback(self._resume_polling)

    def _resume_polling(self, task: "asyncio.Task[None]") -> None:
        # The task ends by itself once nothing is awaited; the application may have cancelled it.
        if (self._awaited or self._must_check_all) and not self._is_closed:
            task.get_loop().call_later(self._poll_interval, self._start_polling)

    async def _poll(self) -> None:
        if self._generation is None:
            with suppress(StorageError):
                self._generation = await self._storage.generation()
        while self._awaited or self._must_check_all:
            await asyncio.sleep(self._poll_interval)
            for part in _slices(list(self._awaited)):
                await self._look_up([key for receipt in part for key in receipt.ids if key in self._by_record])
            if self._must_check_all:
                await self._check_all_now()

    async def _check_all_now(self) -> None:
        self._must_check_all, is_done = False, False
        try:
            # Each of them, also where one of the others could not be looked up.
            found = [await self._look_up(keys) for keys in _slices(list(self._by_record))]
            is_done = all(found)
        finally:
            self._must_check_all = self._must_check_all or not is_done

    async def _look_up(self, ids: Sequence[str]) -> bool:
        """Resolve the receipts of records that have a verdict or are lost; return whether that could be found out."""
        try:
            found, generation = await self._storage.find(ids), await self._storage.generation()
        except StorageError:
            return False
        except Exception:
            LOG.exception("Unexpected error while looking up records; trying again.")
            return False
        self._generation = self._generation or generation
        lost: list[str] = []
        for key in ids:
            status = found.get(key)
            if status is not None:
                self._resolve_as(key, status)
            elif key in self._by_record and not self._is_in_flight(key):
                lost.append(key)
        if lost:
            self._resolve_lost(tuple(lost), UNKNOWN if self._generation == generation else WIPED)
        return True

    def _resolve_as(self, key: str, status: RecordStatus) -> None:
        if status.kind == "delivered":
            self.resolve([key])
        elif status.kind == "rejected":
            self.resolve([key], dead_letter_error(status.reason))
        elif status.kind == "dropped":
            self.resolve([key], DroppedError("another process deleted it unsent"))

    def _resolve_lost(self, ids: tuple[str, ...], reason: str) -> None:
        # What happened to them may have happened to others.
        self._must_check_all = True
        error = LostError(reason)
        self._counters.lost += len(ids)
        self.resolve(ids, error)
        fields = log_fields("lost", count=len(ids), reason=reason)
        LOG.error("%d committed records are lost: %s.", len(ids), reason, extra=fields)
        self._hooks.notify(DeliveryEvent("lost", ids, reason=reason, error=error))


class _ReceiptRef(ref[Receipt]):
    """A weak reference to a receipt, with its record ids. It does what a WeakValueDictionary does at half the cost."""

    __slots__ = ("ids",)
    ids: tuple[str, ...]


class _Bulk:
    """
    The verdicts of the records of one call, which its receipts share.

    One weak reference to it replaces one to each receipt: with a callback for each, dropping hundreds of thousands of
    receipts would block the event loop.

    Attributes:
        awaited: The receipts that callers wait for, by the ids of their records.
    """

    __slots__ = ("__weakref__", "_delivered", "_errors", "_places", "awaited")

    def __init__(self) -> None:
        self._delivered: set[str] = set()
        # The errors, and their places in the order in which they came. Not one dict with pairs, since a million new
        # pairs would start garbage collections that block the event loop.
        self._errors: dict[str, DeliveryError] = {}
        self._places: dict[str, int] = {}
        self.awaited: dict[str, Receipt] = {}

    def resolve(self, key: str, error: DeliveryError | None) -> None:
        """Set the verdict on one of the records: delivered, or an error."""
        if error is None:
            self._delivered.add(key)
        else:
            self._places[key] = len(self._errors)
            self._errors[key] = error
        receipt = self.awaited.get(key)
        if receipt is not None:
            receipt.wake()

    def error(self, ids: Iterable[str]) -> DeliveryError | None:
        """Return the first error of some of the records, or None."""
        known = self._errors
        if not known:
            return None
        failed = [key for key in ids if key in known]
        return known[min(failed, key=self._places.__getitem__)] if failed else None

    def is_decided(self, ids: Iterable[str]) -> bool:
        """Return whether there is a verdict on each of some of the records."""
        delivered, errors = self._delivered, self._errors
        for key in ids:  # noqa: SIM110 - a generator takes three times as long for one id
            if key not in delivered and key not in errors:
                return False
        return True


class _BulkRef(ref[_Bulk]):
    """A weak reference to the verdicts of a call, with its record ids."""

    __slots__ = ("ids",)
    ids: tuple[str, ...]


class _BulkReceipt(Receipt):
    """One of the receipts of a call with many events."""

    __slots__ = ("_bulk",)

    def __init__(self, ids: tuple[str, ...], keeper: Receipts, routes: tuple[str, ...], bulk: _Bulk) -> None:
        super().__init__(ids, keeper, routes)
        self._bulk = bulk

    def _find_error(self) -> DeliveryError | None:
        return self._bulk.error(self.ids)

    def _is_decided(self) -> bool:
        return self._bulk.is_decided(self.ids)

    def _begin_waiting(self) -> None:
        for key in self.ids:
            self._bulk.awaited[key] = self
        super()._begin_waiting()

    def _end_waiting(self) -> None:
        super()._end_waiting()
        for key in self.ids:
            self._bulk.awaited.pop(key, None)


def _slices(items: Sequence[T]) -> Iterator[Sequence[T]]:
    for start in range(0, len(items), SLICE):
        yield items[start : start + SLICE]


def _call_in_slices(function: Callable[[T], object], items: Sequence[T], start: int = 0, size: int = SLICE) -> None:
    """Call a function with each of the items, and let other tasks run now and then if there is an event loop."""
    end = start + size
    for item in items[start:end]:
        function(item)
    if end >= len(items):
        return
    with suppress(RuntimeError):
        asyncio.get_running_loop().call_soon(_call_in_slices, function, items, end, size)
        return
    for item in items[end:]:
        function(item)
