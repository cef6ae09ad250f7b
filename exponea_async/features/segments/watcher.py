"""
The segments of one device: when they are asked for, and who is told of them.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Coroutine
from contextlib import suppress
from itertools import count
from typing import Any

from exponea_async._internal.concurrency import BackgroundTasks
from exponea_async._internal.streams import Stream, Subscription
from exponea_async.devices.context import SubjectContext
from exponea_async.devices.customers import CustomerSnapshot
from exponea_async.devices.ids import COOKIE
from exponea_async.errors import DeliveryError
from exponea_async.features._shared.envelopes import to_thread_if_large
from exponea_async.features.segments.parsing import Known, ask_for, link_for, news, read_segments
from exponea_async.models import Receipt

LOG = logging.getLogger("exponea_async")

Told = list[dict[str, str]]

#: How long to wait for more to happen before segments are asked for, in seconds, as in the Android SDK.
DEBOUNCE = 5.0
#: The longest wait, in seconds, of a device to which something happens all the time.
LONGEST_WAIT = 60.0
#: How often the platform is asked at the most.
TRIES = 3
#: Events whose upload is waited for; of more the oldest are left out, since the upload of a newer one does as well.
RECEIPTS = 20
#: Under which name they are kept for the device.
NAME = "segments"

_NUMBERS = count()


class SegmentListener(Subscription[Told]):
    """
    Who listens to a device's segments of one category. Of what it has not taken yet only the last counts.

    Args:
        source: The device's segments.
        category: The category.
        include_first_load: Whether to tell those first that are loaded next, be they new or not.
    """

    def __init__(self, source: "DeviceSegments", category: str, *, include_first_load: bool) -> None:
        super().__init__(source, deque())
        self.category = category
        self.wants_first = include_first_load
        self.number = next(_NUMBERS)

    def deliver(self, value: Told) -> None:
        """Take segments in, instead of those before."""
        self._pending.clear()
        super().deliver(value)

    def forget(self) -> None:
        """Hold nothing of what was heard."""
        self._pending.clear()


class DeviceSegments(Stream[Told]):
    """
    The segments of one device. It lives as long as somebody listens, or something is under way.

    Args:
        context: The device.
        clock: Tells UNIX seconds.
        tasks: The background.
    """

    def __init__(self, context: SubjectContext, clock: Callable[[], float], tasks: BackgroundTasks) -> None:
        super().__init__()
        self._context = context
        self._clock = clock
        self._tasks = tasks
        self._due: asyncio.Task[None] | None = None
        self._since: float | None = None
        self._loading: tuple[str, asyncio.Task[Known | None]] | None = None
        self._receipts: deque[Receipt] = deque(maxlen=RECEIPTS)
        self._following: asyncio.Task[None] | None = None

    # Who listens

    def listen_to(self, category: str, *, include_first_load: bool) -> SegmentListener:
        """Begin to listen, which brings the device to life as each verb does."""
        listener = SegmentListener(self, category, include_first_load=include_first_load)
        self._subscriptions.add(listener)
        self._start(self._greet(), "coming to life")
        return listener

    @property
    def wants_first(self) -> bool:
        """Whether somebody waits for the segments that are loaded first."""
        return any(listener.wants_first for listener in self._ordered())

    def unsubscribe(self, listener: Subscription[Told]) -> None:
        """Tell a listener nothing more; without any, nothing more is asked for."""
        super().unsubscribe(listener)
        if not self.has_subscribers:
            self._break_off()

    def forget(self) -> None:
        """The device is another customer's: who waits gets nothing, and what was told is nobody's business any more."""
        for listener in self._ordered():
            listener.forget()
        if self._due is not None:
            self._due.cancel()
        self._due = self._since = None
        if self._loading is not None:
            self._loading[1].cancel()

    # What makes segments be asked for

    def follow(self, receipt: Receipt) -> None:
        """Ask for segments once an event has been uploaded."""
        self._receipts.append(receipt)
        if self._following is None or self._following.done():
            self._following = self._start(self._follow(), "waiting for uploads")

    def refresh(self) -> None:
        """Ask for segments soon, once nothing more happens."""
        now = asyncio.get_running_loop().time()
        self._since = now if self._since is None else self._since
        if self._due is not None:
            self._due.cancel()
        self._due = self._start(self._refresh(min(DEBOUNCE, self._since + LONGEST_WAIT - now)), "refresh")

    async def get(self, category: str, *, force: bool) -> Told:
        """
        Tell the segments of a category, those of a moment ago where they will do.

        Raises:
            StorageError: The storage refused to tell who the device is.
            LifecycleError: The client is not running.
        """
        while (customer := await self._context.current_customer()) is not None:
            known = None if force else await self._kept(customer)
            if known is None or not known.is_fresh(self._clock()):
                loading = self._load(customer)
                await asyncio.wait([loading])
                if loading.cancelled() or loading.exception() is not None:
                    break
                known = loading.result()
            now = await self._context.current_customer(counts_as_activity=False)
            if now is None or now.ids[COOKIE] != customer.ids[COOKIE]:
                break
            # Who was identified meanwhile is asked about anew.
            if known is not None and now.fingerprint == customer.fingerprint:
                return known.of(category)
        return []

    async def _greet(self) -> None:
        if await self._context.current_customer() is not None:
            self.refresh()

    async def _follow(self) -> None:
        while self._receipts and self.has_subscribers:
            with suppress(DeliveryError):
                await self._receipts.popleft().delivered()
                self.refresh()
        self._following = None

    async def _refresh(self, wait: float) -> None:
        customer = await self._context.current_customer(counts_as_activity=False)
        await asyncio.sleep(wait)
        # What goes on from here is not broken off by what happens meanwhile, which will have another refresh.
        self._due = self._since = None
        if customer is None or not self.has_subscribers or not await self._is_still(customer):
            return
        if self._loading is not None:
            await asyncio.wait([self._loading[1]])
        await asyncio.wait([self._load(customer)])

    # How they are loaded

    def _load(self, customer: CustomerSnapshot) -> "asyncio.Task[Known | None]":
        """Ask the platform, or join those who wait for the same answer."""
        if self._loading is None or self._loading[0] != customer.fingerprint or self._loading[1].done():
            self._loading = (
                customer.fingerprint,
                self._tasks.start(self._loaded(customer), name=f"segments of {customer.device}"),
            )
        return self._loading[1]

    async def _loaded(self, customer: CustomerSnapshot) -> Known | None:
        """Ask the platform; None where the answer is about somebody else than the device's customer of now."""
        try:
            before = await self._kept(customer)
            if before is None and (link := link_for(customer, TRIES)) is not None:
                await self._context.request(customer, link)
            body = await self._context.request(customer, ask_for(customer, TRIES))
            if body is None:
                return None
            segments = await to_thread_if_large(len(body), lambda: read_segments(body))
            if not await self._is_still(customer):
                return None
            known = Known(customer.fingerprint, self._clock(), segments)
            self._tell(before, known)
            await self._context.save_data(NAME, known.encode())
        finally:
            if self._loading is not None and self._loading[1] is asyncio.current_task():
                self._loading = None
        return known

    def _tell(self, before: Known | None, known: Known) -> None:
        changed = news(None if before is None else before.segments, known.segments)
        for listener in self._ordered():
            if listener.wants_first or listener.category in changed:
                listener.wants_first = False
                listener.deliver(known.of(listener.category))

    async def _kept(self, customer: CustomerSnapshot) -> Known | None:
        """Find what is remembered of a customer."""
        kept = await self._context.load_data(NAME)
        try:
            known = None if kept is None else Known.decode(kept)
        except ValueError as error:
            LOG.warning("The stored segments of device %r can't be read: %s", customer.device, error)
            return None
        return known if known is not None and known.fingerprint == customer.fingerprint else None

    async def _is_still(self, customer: CustomerSnapshot) -> bool:
        now = await self._context.current_customer(counts_as_activity=False)
        return now is not None and now.fingerprint == customer.fingerprint

    def _start(self, work: Coroutine[Any, Any, None], what: str) -> "asyncio.Task[None]":
        return self._tasks.start(work, name=f"segments, {what}")

    def _break_off(self) -> None:
        """Wait for nothing more."""
        for task in (self._due, self._following):
            if task is not None:
                task.cancel()
        self._due = self._since = self._following = None
        self._receipts.clear()

    def _ordered(self) -> list[SegmentListener]:
        """Tell who listens, the first one first."""
        listeners = [each for each in self._subscriptions if isinstance(each, SegmentListener)]
        return sorted(listeners, key=lambda each: each.number)
