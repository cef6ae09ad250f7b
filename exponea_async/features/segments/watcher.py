"""
The segments of one device: when they are loaded, and which subscriptions receive them.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Coroutine
from itertools import count
from typing import Any

from exponea_async._internal.concurrency import BackgroundTasks, SharedLoad, SingleFlight
from exponea_async._internal.pauses import Pauses
from exponea_async._internal.streams import Stream, Subscription
from exponea_async.devices.context import SubjectContext
from exponea_async.devices.customers import CustomerSnapshot
from exponea_async.devices.ids import COOKIE
from exponea_async.errors import RequestRefusedError, UnavailableError
from exponea_async.features._shared.envelopes import to_thread_if_large
from exponea_async.features.segments.parsing import (
    CachedSegments,
    changed_categories,
    link_request,
    read_segments,
    segments_request,
)
from exponea_async.features.segments.stored import NAME
from exponea_async.models import Receipt

LOG = logging.getLogger("exponea_async")

SegmentList = list[dict[str, str]]

#: How long to wait for another trigger before segments are loaded, in seconds, as in the Android SDK.
DEBOUNCE = 5.0
#: Maximum wait after the first trigger, in seconds, however many others follow.
MAX_WAIT = 60.0
#: Time in seconds after a failed load, and one that callers have waited for too long, during which `DeviceSegments.get`
#: requests nothing.
PAUSE = 10.0
#: Maximum number of attempts per request.
MAX_ATTEMPTS = 3
#: Maximum number of events whose upload is awaited. The oldest are dropped first, since the upload of a newer event
#: triggers a load as well.
MAX_RECEIPTS = 20

_NUMBERS = count()


class SegmentSubscription(Subscription[SegmentList]):
    """
    A subscription to a device's segments of one category. It holds only the latest segments.

    Args:
        source: The device's segments.
        category: The category.
        include_first_load: Whether it receives the segments that are loaded next, even if they have not changed.
    """

    def __init__(self, source: "DeviceSegments", category: str, *, include_first_load: bool) -> None:
        super().__init__(source, deque())
        self.category = category
        self.awaits_first_load = include_first_load
        self.number = next(_NUMBERS)

    def deliver(self, value: SegmentList) -> None:
        """Receive segments, which replace those that were not yielded yet."""
        self._pending.clear()
        super().deliver(value)

    def discard(self) -> None:
        """Discard the segments that were not yielded yet."""
        self._pending.clear()


class DeviceSegments(Stream[SegmentList]):
    """
    The segments of one device. It is referenced by its subscriptions and its running tasks only.

    Args:
        context: The device.
        clock: Returns the current time in UNIX seconds.
        tasks: Where background work runs.
        pauses: The projects from which `get` requests nothing now.
        max_wait: How long `get` waits for segments, in seconds.

    Attributes:
        receipts: The latest events whose upload is awaited.
    """

    def __init__(
        self,
        context: SubjectContext,
        clock: Callable[[], float],
        tasks: BackgroundTasks,
        pauses: Pauses[str],
        max_wait: float,
    ) -> None:
        super().__init__()
        self._context = context
        self._clock = clock
        self._tasks = tasks
        self._pauses = pauses
        self._max_wait = max_wait
        # By the customer's fingerprint.
        self._loads: SingleFlight[str, CachedSegments | None] = SingleFlight(tasks)
        self._delayed_load: asyncio.Task[None] | None = None
        self._first_trigger_at: float | None = None
        self.receipts: deque[Receipt] = deque(maxlen=MAX_RECEIPTS)
        self._upload_watch: asyncio.Task[None] | None = None

    # Subscriptions

    def subscribe_to(self, category: str, *, include_first_load: bool) -> SegmentSubscription:
        """Return a new subscription, which counts as activity of the device as every verb does."""
        subscription = SegmentSubscription(self, category, include_first_load=include_first_load)
        self._subscriptions.add(subscription)
        self._start(self._begin(), "first load")
        return subscription

    @property
    def awaits_first_load(self) -> bool:
        """Whether a subscription waits for the segments that are loaded next, even if they have not changed."""
        return any(each.awaits_first_load for each in self._in_order())

    def unsubscribe(self, subscription: Subscription[SegmentList]) -> None:
        """Deliver nothing more to a subscription; without any subscription, nothing more is loaded."""
        super().unsubscribe(subscription)
        if not self.has_subscribers:
            self._cancel_triggers()

    def forget(self) -> None:
        """Discard everything about the previous customer; callers that wait for a load get an empty list."""
        for subscription in self._in_order():
            subscription.discard()
        if self._delayed_load is not None:
            self._delayed_load.cancel()
        self._delayed_load = self._first_trigger_at = None
        self._loads.clear()

    # Triggers

    def load_after_upload(self, receipt: Receipt) -> None:
        """Load the segments once an event has been uploaded."""
        self.receipts.append(receipt)
        if self._upload_watch is None or self._upload_watch.done():
            self._upload_watch = self._start(self._watch_uploads(), "waiting for uploads")

    def load_soon(self) -> None:
        """Load the segments after `DEBOUNCE` seconds without another trigger."""
        now = asyncio.get_running_loop().time()
        if self._first_trigger_at is None:
            self._first_trigger_at = now
        if self._delayed_load is not None:
            self._delayed_load.cancel()
        delay = min(DEBOUNCE, self._first_trigger_at + MAX_WAIT - now)
        self._delayed_load = self._start(self._load_delayed(delay), "delayed load")

    async def get(self, category: str, *, force: bool) -> SegmentList:
        """
        Return the segments of a category, loaded unless they are fresh; none where they can't be loaded in time.

        After a failure, and a wait that was too long, nothing is requested for a while.

        Raises:
            StorageError: The storage could not load the device.
            LifecycleError: The client is not running.
        """
        deadline = asyncio.get_running_loop().time() + self._max_wait
        while (customer := await self._context.current_customer()) is not None:
            cached = None if force else await self._load_cached(customer)
            if cached is None or not cached.is_fresh(self._clock()):
                load = await self._load_in_time(customer, deadline)
                if load is None:
                    break
                cached = load.result()
            now = await self._context.current_customer(counts_as_activity=False)
            if now is None or now.ids[COOKIE] != customer.ids[COOKIE]:
                break
            # After an identification the segments are loaded again.
            if cached is not None and now.fingerprint == customer.fingerprint:
                return cached.for_category(category)
        return []

    async def _load_in_time(
        self, customer: CustomerSnapshot, deadline: float
    ) -> "SharedLoad[CachedSegments | None] | None":
        """Return a load that has succeeded; None where there is none until the deadline, in event-loop time."""
        # Also while a load is in progress: its earlier callers have waited for it in vain.
        if (error := self._pauses.error(customer.project)) is not None:
            LOG.debug("Segments of %s are not requested now: %s", customer.device, error)
            return None
        load = self._share_load(customer)
        if await load.wait(deadline - asyncio.get_running_loop().time()):
            # An error of the load has been logged.
            return load if load.task.exception() is None else None
        if not load.task.done() and self._pauses.error(customer.project) is None:
            late = UnavailableError(f"no segments within {self._max_wait:g} s (limits.segments_wait)")
            LOG.warning("Segments of project %s are late: %s", customer.project, late)
            self._pauses.begin(customer.project, PAUSE, late)
        return None

    async def _begin(self) -> None:
        if await self._context.current_customer() is not None:
            self.load_soon()

    async def _watch_uploads(self) -> None:
        while self.receipts and self.has_subscribers:
            receipt = self.receipts.popleft()
            with self._tasks.dormant():
                await receipt.decided()
            if receipt.status == "delivered":
                self.load_soon()
        self._upload_watch = None

    async def _load_delayed(self, delay: float) -> None:
        customer = await self._context.current_customer(counts_as_activity=False)
        await asyncio.sleep(delay)
        # From here on another trigger does not cancel this load, but leads to another one.
        self._delayed_load = self._first_trigger_at = None
        if customer is None or not self.has_subscribers or not await self._context.is_current(customer):
            return
        # A load in progress may have started before the triggers of this one.
        earlier = self._loads.get(customer.fingerprint)
        if earlier is not None:
            await earlier.wait()
        await self._share_load(customer).wait()

    # Loading

    def _share_load(self, customer: CustomerSnapshot) -> "SharedLoad[CachedSegments | None]":
        name = f"segments of {customer.device}"
        return self._loads.share(customer.fingerprint, lambda: self._load(customer), name=name)

    async def _load(self, customer: CustomerSnapshot) -> CachedSegments | None:
        """Load a customer's segments; return None where the device belongs to another customer by now."""
        before = await self._load_cached(customer)
        try:
            if before is None and (link := link_request(customer, MAX_ATTEMPTS)) is not None:
                await self._context.request(customer, link)
            body = await self._context.request(customer, segments_request(customer, MAX_ATTEMPTS))
        except (RequestRefusedError, UnavailableError) as error:
            self._pauses.begin(customer.project, PAUSE, error)
            raise
        self._pauses.end(customer.project)
        if body is None:
            return None
        segments = await to_thread_if_large(len(body), lambda: read_segments(body))
        if not await self._context.is_current(customer):
            return None
        loaded = CachedSegments(customer.fingerprint, self._clock(), segments)
        self._publish_changes(before, loaded)
        await self._context.save_data(NAME, loaded.encode())
        return loaded

    def _publish_changes(self, before: CachedSegments | None, loaded: CachedSegments) -> None:
        changed = changed_categories(None if before is None else before.segments, loaded.segments)
        for subscription in self._in_order():
            if subscription.awaits_first_load or subscription.category in changed:
                subscription.awaits_first_load = False
                subscription.deliver(loaded.for_category(subscription.category))

    async def _load_cached(self, customer: CustomerSnapshot) -> CachedSegments | None:
        """Return the stored segments of a customer, or None."""
        stored = await self._context.load_data(NAME)
        try:
            cached = None if stored is None else CachedSegments.decode(stored)
        except ValueError as error:
            LOG.warning("The stored segments of device %r can't be read: %s", customer.device, error)
            return None
        return cached if cached is not None and cached.fingerprint == customer.fingerprint else None

    def _start(self, work: Coroutine[Any, Any, None], purpose: str) -> "asyncio.Task[None]":
        return self._tasks.start(work, name=f"segments, {purpose}")

    def _cancel_triggers(self) -> None:
        for task in (self._delayed_load, self._upload_watch):
            if task is not None:
                task.cancel()
        self._delayed_load = self._first_trigger_at = self._upload_watch = None
        self.receipts.clear()

    def _in_order(self) -> list[SegmentSubscription]:
        """Return the subscriptions in the order in which they were made."""
        subscriptions = [each for each in self._subscriptions if isinstance(each, SegmentSubscription)]
        return sorted(subscriptions, key=lambda each: each.number)
