"""
From events to in-app messages: what is heard of devices, and which message is shown for it.
"""

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from random import Random
from weakref import WeakValueDictionary

from attrs import evolve

from exponea_async._internal.streams import Stream, Subscription
from exponea_async.config import Configuration
from exponea_async.devices.context import SubjectContext
from exponea_async.devices.customers import CustomerSnapshot, TrackedEvent
from exponea_async.devices.device_context import DeviceContext
from exponea_async.devices.features import Feature
from exponea_async.devices.impressions import Impression
from exponea_async.errors import DeliveryError, ExponeaError
from exponea_async.features._shared.banners import BANNER
from exponea_async.features._shared.targeting.filters import TriggerEvent
from exponea_async.features._shared.targeting.priority import choose_by_priority
from exponea_async.features.in_app.active import (
    MOST_DEVICES,
    ActiveMessages,
    PendingTrigger,
    PendingTriggers,
    SessionStarts,
)
from exponea_async.features.in_app.cache import Cache, Loaded
from exponea_async.features.in_app.events import ActionStream
from exponea_async.features.in_app.loader import Loader
from exponea_async.features.in_app.parsing import Definition, due, matching, priority_of
from exponea_async.features.in_app.presenter import Presenter
from exponea_async.messages import InAppMessage, InAppMessageAction
from exponea_async.models import Event, EventType, Receipt

LOG = logging.getLogger("exponea_async")

#: Events upon which messages are shown but never loaded, as in the vendor's SDKs.
QUIET = frozenset({EventType.PUSH_DELIVERED, EventType.PUSH_OPENED, EventType.SESSION_END})
#: Identified customers whose upload is waited for; the messages of more are loaded with their next event.
MOST_UPLOADS = 1_000
#: Under which name those listen who want the messages of all devices; no device has it.
ALL = ""

Found = list[tuple[TriggerEvent, list[Definition]]]


class InAppMessages(Feature):
    """
    What is kept of in-app messages for all subjects of a client.

    Args:
        configuration: The settings.
        clock: Tells UNIX seconds.

    Attributes:
        actions: Told of what happens to messages.
        stage: What is shown where.
        presenter: Shows messages.
    """

    def __init__(self, configuration: Configuration, clock: Callable[[], float]) -> None:
        super().__init__()
        self._configuration = configuration
        self._clock = clock
        self._chance = Random()  # noqa: S311 - nothing that anybody would want to foretell
        self._cache = Cache()
        self._loader = Loader(self._cache, self.tasks, clock, configuration.message_platform, self._landed)
        self._requests = PendingTriggers()
        self._visits = SessionStarts()
        self._uploads: dict[str, asyncio.Task[None]] = {}
        # By the device; each is there for as long as somebody listens.
        self._streams: WeakValueDictionary[str, Stream[InAppMessage]] = WeakValueDictionary()
        self._is_over = False
        self.actions = ActionStream()
        self.stage = ActiveMessages()
        self.presenter = Presenter(configuration, self.stage, self.actions, self.tasks)

    # Its life

    @property
    def is_listening(self) -> bool:
        """Whether anybody waits for messages."""
        return len(self._streams) > 0

    def listen(self, device: str | None) -> Subscription[InAppMessage]:
        """Begin to hand out the messages of a device; None is of all."""
        key = ALL if device is None else device
        stream = self._streams.get(key)
        if stream is None:
            stream = self._streams[key] = Stream(max_early=0, max_pending=MOST_DEVICES)
        listener = stream.subscribe()
        if self._is_over:
            listener.close()
        self.registry.refresh()
        return listener

    def start(self, context: SubjectContext) -> None:  # noqa: ARG002 - the default device's, which has no part in it
        """The client was started."""
        self._visits.clear(self._clock())

    def clear(self) -> None:
        """The integration was stopped: what is shown is dismissed."""
        self._dismiss(self.stage.clear())
        self._forget()

    def _dismiss(self, messages: Iterable[InAppMessage]) -> None:
        """Have the host take messages away, of which nothing is tracked any more."""
        for message in messages:
            for stream in list(self._streams.values()):
                stream.retract(message)
            self.actions.publish(InAppMessageAction("close", message, interaction=False))

    def _forget(self) -> None:
        self.tasks.cancel()
        self._loader.clear()
        self._uploads.clear()
        self._cache.clear()
        self._requests.clear()
        self.actions.clear()
        self.presenter.clear()

    async def aclose(self) -> None:
        """The client is closing."""
        self._is_over = True
        for stream in list(self._streams.values()):
            stream.close()
        self.actions.close()
        self.stage.clear()
        self._forget()
        await self.tasks.aclose()

    # What is heard

    def tracked(self, context: SubjectContext, heard: TrackedEvent) -> None:
        """Show a message upon an event, or have messages loaded for it."""
        customer, device, kind = heard.customer, heard.customer.device, heard.kind
        if device is None:
            return
        if kind is EventType.SESSION_START:
            self._visits.begin(device, heard.timestamp)
        if not self._is_wanted(device) or _is_show(heard.event):
            return
        occasion = TriggerEvent(heard.event.name, heard.event.properties, heard.timestamp)
        self._requests.add(device, PendingTrigger(occasion, customer.fingerprint, _now()))
        if self._loader.is_loading(customer):
            return
        loaded = self._cache.find(customer.fingerprint)
        if loaded is not None and (kind in QUIET or loaded.is_good_for(heard.timestamp)):
            self._pick(context, customer, loaded)
        elif device not in self._uploads and self._loader.may_start(customer):
            self._loader.start(context, customer, heard.timestamp, asks=kind not in QUIET)

    def identified(self, context: SubjectContext, receipt: Receipt) -> None:
        """Have messages loaded anew, once the platform knows who the customer is."""
        device = context.key
        if device is None:
            return
        self._requests.drop(device)
        earlier = self._uploads.pop(device, None)
        if earlier is not None:
            earlier.cancel()
        if self._is_wanted(device) and len(self._uploads) < MOST_UPLOADS:
            work = self._after_upload(context, device, receipt)
            self._uploads[device] = self.tasks.start(work, name="in-app messages after an identify")

    def anonymized(self, context: SubjectContext) -> None:
        """Show nothing of the old customer's any more, and have the new one's messages loaded."""
        device = context.key
        if device is None:
            return
        self._dismiss(self.stage.drop(device))
        earlier = self._uploads.pop(device, None)
        if earlier is not None:
            earlier.cancel()
        # What was tracked of the new customer waits already, and what was of the old one does not any more.
        self.tasks.start(self._renew(context), name="in-app messages of a new customer")

    def _is_wanted(self, device: str) -> bool:
        return ALL in self._streams or device in self._streams

    async def _after_upload(self, context: SubjectContext, device: str, receipt: Receipt) -> None:
        me = asyncio.current_task()
        try:
            with suppress(DeliveryError), self.tasks.dormant():
                await receipt.delivered()
        finally:
            if self._uploads.get(device) is me:
                del self._uploads[device]
        if (
            receipt.status == "delivered"
            and (customer := await context.current_customer(counts_as_activity=False)) is not None
        ):
            self._loader.start(context, customer, self._clock(), fresh=True)

    async def _renew(self, context: SubjectContext) -> None:
        """Keep nothing of the old customer's, and load the new one's messages ahead, if that is wanted."""
        try:
            await self._loader.forget(context)
            customer = (
                await context.current_customer(counts_as_activity=False)
                if self._configuration.preload_messages
                else None
            )
            if customer is not None and not self._loader.is_loading(customer):
                await self._loader.load(context, customer, self._clock())
        except ExponeaError as error:
            LOG.debug("In-app messages could not be loaded ahead: %s", error)

    # From events to messages

    def _landed(self, context: SubjectContext, customer: CustomerSnapshot, loaded: Loaded | None, asked: bool) -> None:  # noqa: FBT001 - a callback
        if customer.device is None:
            return
        if loaded is not None:
            self._pick(context, customer, loaded)
        elif not asked:
            # What is shown without being loaded for was looked for, in vain.
            self._requests.drop(customer.device)

    def _pick(self, context: SubjectContext, customer: CustomerSnapshot, loaded: Loaded) -> None:
        """Choose among what is meant for the events that wait; from here on none of them waits."""
        device, now = customer.device or ALL, self._clock()
        waiting = self._requests.take(device, customer.fingerprint, _now())
        if self.stage.is_busy(device):
            return
        matched = [
            (each.occasion, matching(loaded.content.upon(each.occasion.event_type), each.occasion, now))
            for each in waiting
        ]
        found = [each for each in matched if each[1]]
        if found:
            self.tasks.start(self._hand_over(context, customer, found), name="showing an in-app message")

    async def _hand_over(self, context: SubjectContext, customer: CustomerSnapshot, found: Found) -> None:
        definition = await self._chosen(context, customer, found)
        message = None if definition is None else await self.presenter.show(context, customer, definition)
        if message is None or customer.device is None:
            return
        streams = [self._streams.get(key) for key in (customer.device, ALL)]
        for stream in streams:
            if stream is not None:
                stream.publish(message)
        if not any(streams):
            # Whoever listened has gone meanwhile.
            self.stage.leave(message)

    async def choose(self, context: SubjectContext, event: Event) -> InAppMessage | None:
        """Choose a message for an event, and show it."""
        tracked = _as_tracked(context, event)
        customer = None if tracked is None or _is_show(tracked) else await context.current_customer()
        if tracked is None or customer is None or self.stage.is_busy(customer.device):
            return None
        occasion = _occasion(context, customer, tracked, self._clock())
        loaded = await self._loader.load(context, customer, occasion.timestamp or 0.0)
        if loaded is None:
            return None
        meant = matching(loaded.content.upon(occasion.event_type), occasion, self._clock())
        definition = await self._chosen(context, customer, [(occasion, meant)]) if meant else None
        return None if definition is None else await self.presenter.show(context, customer, definition)

    async def _chosen(self, context: SubjectContext, customer: CustomerSnapshot, found: Found) -> Definition | None:
        displays: Mapping[str, Impression] = {}
        start = self._visits.since
        if isinstance(context, DeviceContext):
            present, state = await context.load_customer(counts_as_activity=False)
            if state is None or present is None or present.fingerprint != customer.fingerprint:
                return None
            displays, start = state.messages, self._visits.start_of(customer.device, state.session_start)
        fresh = [(occasion, due(meant, displays, start)) for occasion, meant in found]
        chosen = choose_by_priority(fresh, priority_of, self._chance)
        return None if chosen is None else chosen[1]


def _as_tracked(context: SubjectContext, event: Event) -> Event | None:
    """Make of an event what would be tracked of it, with default properties; None where nothing would be."""
    draft = context.recorder.draft_event(EventType.TRACK_EVENT, event, carries_event=True)
    return None if draft is None or draft.event is None else evolve(draft.event, timestamp=draft.timestamp)


def _occasion(context: SubjectContext, customer: CustomerSnapshot, event: Event, now: float) -> TriggerEvent:
    """Make of an event what triggers get to see, with all that would be stamped on it."""
    stamps = {"application_id": context.configuration.application_id}
    if customer.device_id is not None:
        stamps["device_id"] = customer.device_id
    moment = event.timestamp
    return TriggerEvent(event.name, {**event.properties, **stamps}, moment if isinstance(moment, float) else now)


def _is_show(event: Event) -> bool:
    """Tell whether an event says that something was shown, upon which nothing else is: there would be no end to it."""
    return event.name == BANNER and event.properties.get("action") == "show"


def _now() -> float:
    return asyncio.get_running_loop().time()
