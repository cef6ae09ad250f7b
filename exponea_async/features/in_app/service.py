"""
Chooses the in-app message for each event of a device, and delivers it to subscriptions.
"""

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from functools import partial
from random import Random
from weakref import WeakValueDictionary

from attrs import evolve

from exponea_async._internal.printable import printable
from exponea_async._internal.streams import Stream, Subscription
from exponea_async._internal.throttle import Throttle
from exponea_async.config import Configuration
from exponea_async.devices.context import SubjectContext
from exponea_async.devices.customers import CustomerSnapshot, TrackedEvent
from exponea_async.devices.device_context import DeviceContext
from exponea_async.devices.features import Feature
from exponea_async.devices.impressions import Impression
from exponea_async.errors import DeliveryTimeoutError, ExponeaError
from exponea_async.features._shared.banners import BANNER
from exponea_async.features._shared.targeting.filters import TriggerEvent
from exponea_async.features._shared.targeting.priority import choose_by_priority
from exponea_async.features.in_app.active import (
    MAX_DEVICES,
    ActiveMessages,
    PendingTrigger,
    PendingTriggers,
    SessionStarts,
)
from exponea_async.features.in_app.cache import LoadedMessages, MessageCache
from exponea_async.features.in_app.events import ActionStream
from exponea_async.features.in_app.loader import LoadResult, MessageLoader
from exponea_async.features.in_app.parsing import (
    MessageDefinition,
    allowed_by_frequency,
    matching_messages,
    priority_of,
)
from exponea_async.features.in_app.presenter import Presenter
from exponea_async.messages import InAppMessage, InAppMessageAction
from exponea_async.models import Event, EventType, Receipt

LOG = logging.getLogger("exponea_async")

#: Events for which messages are shown but not requested, as in the vendor's SDKs.
NOT_LOADING = frozenset({EventType.PUSH_DELIVERED, EventType.PUSH_OPENED, EventType.SESSION_END})
#: Maximum number of identified customers whose upload is awaited; the messages of others are loaded with their next
#: event.
MAX_UPLOADS = 1_000
#: How long events wait for this upload, in seconds; it is short in `FlushMode.IMMEDIATE`, unless there is an outage.
MAX_UPLOAD_WAIT = 1.0
#: The key of the stream with the messages of all devices; no device has it.
ALL_DEVICES = ""

#: Events, each with the messages that are meant for it.
Candidates = list[tuple[TriggerEvent, list[MessageDefinition]]]


class InAppMessages(Feature):
    """
    The in-app messages of all subjects of a client.

    Args:
        configuration: The settings.
        clock: Returns the time as UNIX seconds.

    Attributes:
        cache: The messages in memory.
        loader: Loads messages.
        pending: The events that wait for their messages.
        uploads: The tasks that wait for the upload of an identified customer, by device.
        max_uploads: Maximum number of these tasks.
        settling: The devices whose events wait for such an upload.
        max_upload_wait: How long they wait for it, in seconds.
        actions: The stream of what happens to messages.
        active: The messages that are shown.
        presenter: Shows messages.
    """

    name = "in-app messages"

    def __init__(self, configuration: Configuration, clock: Callable[[], float]) -> None:
        super().__init__()
        self._configuration = configuration
        self._clock = clock
        self._random = Random()  # noqa: S311 - which message is shown is not a secret
        self.cache = MessageCache()
        self.loader = MessageLoader(
            self.cache, self.tasks, clock, configuration, on_loaded=self._loaded, on_sent=self._sent
        )
        self.pending = PendingTriggers(configuration.limits.in_app_messages_event_wait)
        self._throttle = Throttle()
        self.uploads: dict[str, asyncio.Task[None]] = {}
        self.max_uploads = MAX_UPLOADS
        self.settling: set[str] = set()
        self.max_upload_wait = MAX_UPLOAD_WAIT
        self._session_starts = SessionStarts()
        # By device; each exists as long as it has subscriptions.
        self._streams: WeakValueDictionary[str, Stream[InAppMessage]] = WeakValueDictionary()
        self._is_closed = False
        self.actions = ActionStream()
        self.active = ActiveMessages()
        self.presenter = Presenter(configuration, self.active, self.actions, self.tasks)

    # Life cycle

    @property
    def is_listening(self) -> bool:
        """Whether there are subscriptions to messages."""
        return len(self._streams) > 0

    def subscribe(self, device: str | None) -> Subscription[InAppMessage]:
        """Return a subscription to the messages of a device, or of all devices with None."""
        key = ALL_DEVICES if device is None else device
        stream = self._streams.get(key)
        if stream is None:
            stream = self._streams[key] = Stream(max_early=0, max_pending=MAX_DEVICES)
        subscription = stream.subscribe()
        if self._is_closed:
            subscription.close()
        self.registry.refresh()
        return subscription

    def start(self, context: SubjectContext, at: float) -> None:  # noqa: ARG002 - no device is concerned
        """Handle that the client was started."""
        self._session_starts.reset(at)

    def clear(self) -> None:
        """Dismiss what is shown, and forget everything: the integration was stopped."""
        self._dismiss(self.active.clear())
        self._forget()

    def _dismiss(self, messages: Iterable[InAppMessage]) -> None:
        """Make the host close messages, without tracking it."""
        for message in messages:
            for stream in list(self._streams.values()):
                stream.retract(message)
            self.actions.publish(InAppMessageAction("close", message, interaction=False))

    def _forget(self) -> None:
        self.tasks.cancel()
        self.loader.clear()
        self.uploads.clear()
        self.settling.clear()
        self.cache.clear()
        self.pending.clear()
        self.actions.clear()
        self.presenter.clear()

    def close(self) -> None:
        """End all streams: the client is closing."""
        self._is_closed = True
        for stream in list(self._streams.values()):
            stream.close()
        self.actions.close()
        self.active.clear()
        self._forget()

    # Events of devices

    def tracked(self, context: SubjectContext, event: TrackedEvent) -> None:
        """Choose a message for an event, or load the messages for it."""
        customer, device, kind = event.customer, event.customer.device, event.kind
        if device is None:
            return
        if kind is EventType.SESSION_START:
            self._session_starts.record(device, event.timestamp)
        if not self._has_subscription(device) or _is_display(event.event):
            return
        trigger_event = TriggerEvent(event.event.name, event.event.properties, event.timestamp)
        is_queued = not self.loader.has_sent(customer)
        self.pending.add(device, PendingTrigger(trigger_event, customer.fingerprint, _loop_time(), is_queued))
        if self.loader.is_loading(customer):
            return
        loaded, is_settling = self.cache.get(customer.fingerprint), device in self.settling
        is_known = loaded is not None and (kind in NOT_LOADING or loaded.is_fresh_at(event.timestamp))
        if loaded is not None and is_known and not (is_settling and loaded.is_inherited):
            self._choose_for_pending(context, customer, loaded)
        elif is_settling:
            return
        elif self.loader.may_start(customer):
            self.loader.start(context, customer, event.timestamp, allow_request=kind not in NOT_LOADING)
        elif kind not in NOT_LOADING:
            self._report_not_loaded(context, device, [event.event.name])

    def identified(self, context: SubjectContext, receipt: Receipt, previous: CustomerSnapshot | None) -> None:
        """Load messages again, once the platform knows the customer's ids."""
        device = context.key
        if device is None:
            return
        self.pending.drop(device)
        self._cancel_upload(device)
        if previous is not None:
            self.tasks.start(self._delete_previous(context, previous), name="deleting in-app messages")
        if self._has_subscription(device) and len(self.uploads) < self.max_uploads:
            work = self._load_after_upload(context, device, receipt, previous)
            upload = self.uploads[device] = self.tasks.start(work, name="in-app messages after an identify")
            self.settling.add(device)
            # Also where it has failed, or was cancelled before it has begun.
            upload.add_done_callback(partial(self._end_upload, device))

    def anonymized(self, context: SubjectContext) -> None:
        """Dismiss the message of the old customer, and load those of the new one."""
        device = context.key
        if device is None:
            return
        self._dismiss(self.active.remove_device(device))
        self._cancel_upload(device)
        # Only events of the new customer are pending: the first of them has replaced those of the old one.
        self.tasks.start(self._replace_customer(context), name="in-app messages of a new customer")

    def _has_subscription(self, device: str) -> bool:
        return ALL_DEVICES in self._streams or device in self._streams

    def _cancel_upload(self, device: str) -> None:
        self.settling.discard(device)
        upload = self.uploads.pop(device, None)
        if upload is not None:
            upload.cancel()

    def _end_upload(self, device: str, task: "asyncio.Task[None] | None") -> None:
        if self.uploads.get(device) is task:
            del self.uploads[device]
            self.settling.discard(device)

    async def _load_after_upload(
        self, context: SubjectContext, device: str, receipt: Receipt, previous: CustomerSnapshot | None
    ) -> None:
        """
        Load messages when an identification was uploaded.

        Usually that takes an instant, for which events wait. If it takes longer, because of the flush mode or an
        outage, events are handled as before, with the messages from before the identification if they are the same
        customer's.
        """
        customer = await context.current_customer(counts_as_activity=False)
        if customer is not None and previous is not None:
            self.loader.inherit(customer, previous)
        try:
            with self.tasks.dormant():
                await _settle(receipt, self.max_upload_wait)
                if receipt.status != "delivered":
                    self.settling.discard(device)
                    await self._handle_pending(context)
                    await _settle(receipt, None)
        finally:
            self._end_upload(device, asyncio.current_task())
        customer = await context.current_customer(counts_as_activity=False)
        if receipt.status == "delivered" and customer is not None:
            self.loader.start(context, customer, self._clock(), force_request=True)

    async def _handle_pending(self, context: SubjectContext) -> None:
        """Choose a message for the events that have waited for an upload, or load messages for them."""
        customer = await context.current_customer(counts_as_activity=False)
        pending = [] if customer is None else self.pending.of_device(customer.device or ALL_DEVICES)
        if customer is None or not pending or self.loader.is_loading(customer):
            return
        loaded, latest = self.cache.get(customer.fingerprint), max(each.timestamp for each in pending)
        if loaded is not None and loaded.is_fresh_at(latest):
            self._choose_for_pending(context, customer, loaded)
        elif self.loader.may_start(customer):
            self.loader.start(context, customer, latest)

    async def _delete_previous(self, context: SubjectContext, previous: CustomerSnapshot) -> None:
        customer = await context.current_customer(counts_as_activity=False)
        if customer is not None and customer.fingerprint != previous.fingerprint:
            await self.loader.delete_stored_of_others(context, customer)

    async def _replace_customer(self, context: SubjectContext) -> None:
        """Delete the messages of the old customer, and load those of the new one, if the settings say so."""
        try:
            await self.loader.delete_stored(context)
            if not self._configuration.preload_messages:
                return
            customer = await context.current_customer(counts_as_activity=False)
            if customer is not None and not self.loader.is_loading(customer):
                await self.loader.load(context, customer, self._clock())
        except ExponeaError as error:
            LOG.debug("In-app messages could not be preloaded: %s", error)

    # From events to messages

    def _sent(self, customer: CustomerSnapshot) -> None:
        if customer.device is not None:
            self.pending.note_sending(customer.device, _loop_time())

    def _loaded(self, context: SubjectContext, customer: CustomerSnapshot, result: LoadResult) -> None:
        device = customer.device
        if device is None:
            return
        if result.messages is not None:
            self._choose_for_pending(context, customer, result.messages)
        elif result.is_failed:
            taken = self.pending.take(device, customer.fingerprint, _loop_time())
            self._report_not_loaded(context, device, [each.event.event_type for each in (*taken.timely, *taken.late)])
        elif not result.is_final:
            # Pending are events that must not cause a request, and nothing was stored.
            self.pending.drop(device)

    def _choose_for_pending(self, context: SubjectContext, customer: CustomerSnapshot, loaded: LoadedMessages) -> None:
        """Choose a message for the pending events of a device, which are not pending any more."""
        device, now = customer.device or ALL_DEVICES, self._clock()
        taken = self.pending.take(device, customer.fingerprint, _loop_time())
        if self.active.is_busy(device):
            return
        late = [each.event.event_type for each in taken.late if _matching(loaded, each.event, now)]
        if late:
            context.recorder.count_not_shown("late", len(late))
            seconds = self.pending.max_wait
            self._warn(f"In-app messages were loaded too late, after {seconds:g} s or more, to be shown", device, late)
        matched = [(each.event, _matching(loaded, each.event, now)) for each in taken.timely]
        candidates = [each for each in matched if each[1]]
        if candidates:
            self.tasks.start(self._deliver(context, customer, candidates), name="showing an in-app message")

    def _report_not_loaded(self, context: SubjectContext, device: str, events: list[str]) -> None:
        """Report events for which no message can be shown, because the messages can't be loaded now."""
        if events:
            context.recorder.count_not_shown("not_loaded", len(events))
            self._warn("In-app messages can't be loaded now", device, events)

    def _warn(self, trouble: str, device: str, events: list[str]) -> None:
        if (more := self._throttle.admit()) is not None:
            names = printable(", ".join(events))
            LOG.warning("%s, for events of device %r: %.200s.%s", trouble, device, names, more)

    async def _deliver(self, context: SubjectContext, customer: CustomerSnapshot, candidates: Candidates) -> None:
        """Show one of the candidates, and deliver it to the subscriptions."""
        definition = await self._choose(context, customer, candidates)
        message = None if definition is None else await self.presenter.show(context, customer, definition)
        if message is None or customer.device is None:
            return
        streams = [self._streams.get(key) for key in (customer.device, ALL_DEVICES)]
        for stream in streams:
            if stream is not None:
                stream.publish(message)
        if not any(streams):
            # All subscriptions have ended meanwhile.
            self.active.remove(message)

    async def message_for(self, context: SubjectContext, event: Event) -> InAppMessage | None:
        """Choose a message for an event that is not tracked, and show it."""
        complete = _as_tracked(context, event)
        customer = None if complete is None or _is_display(complete) else await context.current_customer()
        if complete is None or customer is None or self.active.is_busy(customer.device):
            return None
        trigger_event = _trigger_event(context, customer, complete, self._clock())
        loaded = await self.loader.load(context, customer, trigger_event.timestamp or 0.0)
        if loaded is None:
            return None
        matching = _matching(loaded, trigger_event, self._clock())
        definition = await self._choose(context, customer, [(trigger_event, matching)]) if matching else None
        if definition is None:
            return None
        return await self.presenter.show(context, customer, definition, waits_for_delay=False)

    async def _choose(
        self, context: SubjectContext, customer: CustomerSnapshot, candidates: Candidates
    ) -> MessageDefinition | None:
        """Return one of the candidates that may be shown again; None if there is none, or the customer has changed."""
        impressions: Mapping[str, Impression] = {}
        session_start = self._session_starts.client_start
        if isinstance(context, DeviceContext):
            current, state = await context.load_customer(counts_as_activity=False)
            if state is None or current is None or current.fingerprint != customer.fingerprint:
                return None
            impressions = state.messages
            session_start = self._session_starts.latest(customer.device, state.session_start)
        allowed = [
            (event, allowed_by_frequency(matching, impressions, session_start)) for event, matching in candidates
        ]
        chosen = choose_by_priority(allowed, priority_of, self._random)
        return None if chosen is None else chosen[1]


def _matching(loaded: LoadedMessages, event: TriggerEvent, now: float) -> list[MessageDefinition]:
    return matching_messages(loaded.messages.for_event_type(event.event_type), event, now)


def _as_tracked(context: SubjectContext, event: Event) -> Event | None:
    """Return an event as it would be tracked, with default properties; None if it would not be tracked."""
    draft = context.recorder.draft_event(EventType.TRACK_EVENT, context.complete(event), carries_event=True)
    return None if draft is None or draft.event is None else evolve(draft.event, timestamp=draft.timestamp)


def _trigger_event(context: SubjectContext, customer: CustomerSnapshot, event: Event, now: float) -> TriggerEvent:
    """Return an event as triggers see it, with all properties that would be added to it."""
    added = {"application_id": context.configuration.application_id}
    if customer.device_id is not None:
        added["device_id"] = customer.device_id
    timestamp = event.timestamp if isinstance(event.timestamp, float) else now
    return TriggerEvent(event.name, {**event.properties, **added}, timestamp)


def _is_display(event: Event) -> bool:
    """Return whether an event says that something was shown. No message is shown for it, or there would be no end."""
    return event.name == BANNER and event.properties.get("action") == "show"


async def _settle(receipt: Receipt, timeout: float | None) -> None:  # noqa: ASYNC109 - as Receipt.decided has it
    """Wait until there is a verdict, or until the timeout in seconds."""
    with suppress(DeliveryTimeoutError):
        await receipt.decided(timeout)


def _loop_time() -> float:
    return asyncio.get_running_loop().time()
