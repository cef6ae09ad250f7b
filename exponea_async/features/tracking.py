"""
Events, payments, campaign clicks, and who a customer is.
"""

import asyncio
import logging
from collections.abc import Iterable, Mapping
from typing import Any

from attrs import evolve

from exponea_async._internal.arguments import plain_string, read_number, read_reference
from exponea_async._internal.validation import short_repr
from exponea_async.devices.campaigns import read_link
from exponea_async.devices.context import SubjectContext
from exponea_async.devices.device_context import DeviceContext
from exponea_async.devices.ids import COOKIE, read_id_changes, read_ids
from exponea_async.devices.state import DeviceState, PendingEvent, TimestampSequence, UpdateResult
from exponea_async.devices.withdrawals import WITHDRAWN, WITHDRAWN_COUNT
from exponea_async.errors import InvalidEventError
from exponea_async.features._shared.verbs import SubjectVerbs, drops_invalid
from exponea_async.models import Customer, Draft, Event, EventType, Identity, PurchasedItem, Receipt, Timestamp

LOG = logging.getLogger("exponea_async")

PAYMENT = "payment"
#: The properties of campaign clicks.
CLICK_PROPERTIES = {"platform": "server"}
#: The number of events that are encoded before other tasks get the event loop.
BATCH = 100
# Looking the member up on the enum class costs as much as the rest of the method.
_TRACK_EVENT = EventType.TRACK_EVENT

#: An event of the current subject, or a customer's ids with an event.
Addressed = Event | tuple[Mapping[str, str], Event]


class TrackingVerbs(SubjectVerbs):
    """Events, payments and updates of customers, on every subject."""

    __slots__ = ()

    async def track_event(self, event: Event) -> Receipt:
        """
        Track an event of any type.

        The event is durable when this returns. It carries the default properties, unless the event has properties of
        the same names, and the SDK's ``application_id`` and, for a device, ``device_id``, which take precedence.

        Args:
            event: The event.

        Returns:
            The receipt.

        Raises:
            InvalidEventError: The event can't be sent as it is; the error names the path, and nothing was recorded.
            QueueFullError: The queue is full, with ``when_full="raise"``.
            StorageError: The storage refused; nothing was recorded.
            LifecycleError: The client was not started, or is closed.
        """
        context = self._context
        try:
            return await context.record(_TRACK_EVENT, event)
        except InvalidEventError as error:
            return context.recorder.invalid(error)

    @drops_invalid
    async def track_payment_event(self, item: PurchasedItem, timestamp: Timestamp = None) -> Receipt:
        """
        Track a payment, as the event ``payment``.

        Args:
            item: The purchased item.
            timestamp: When it was purchased; by default the time of the call.

        Returns:
            The receipt.

        Raises:
            InvalidEventError: A field of the item is invalid; the error names it, and nothing was recorded.
            QueueFullError: The queue is full, with ``when_full="raise"``.
            StorageError: The storage refused; nothing was recorded.
            LifecycleError: The client was not started, or is closed.
        """
        return await self._context.record(EventType.PAYMENT, payment(item, timestamp))

    @drops_invalid
    async def identify_customer(self, customer: Customer | Mapping[str, str | None]) -> Receipt:
        """
        Set who the subject is, and the customer's properties.

        A device remembers the ids beside those it has, and all its later events carry them. Earlier events keep the
        ids they were tracked with. An id whose value is None is taken back: the device forgets it, and later events do
        not carry it. A ``cookie`` among the ids is ignored: the SDK creates its own.

        Args:
            customer: The ids, and the properties to set; or the ids alone.

        Returns:
            The receipt.

        Raises:
            InvalidEventError: The platform would refuse an id, or a property can't be sent; or an id of a customer
                tracker, which remembers none, is None. Nothing was recorded.
            QueueFullError: The queue is full, with ``when_full="raise"``.
            StorageError: The storage refused; nothing was recorded.
            LifecycleError: The client was not started, or is closed.
        """
        if not isinstance(customer, Customer | Mapping):
            trouble = f"expected a Customer, or a mapping of ids, got {short_repr(customer)}"
            raise InvalidEventError("customer", trouble, "Use Customer(ids, properties).")
        given, properties = (customer.ids, customer.properties) if isinstance(customer, Customer) else (customer, {})
        context = self._context
        ids = read_id_changes(given, "customer.ids", context.configuration.normalize_id)
        if COOKIE in ids:
            del ids[COOKIE]
            LOG.warning("The 'cookie' given to identify_customer() is ignored: the SDK creates its own.")
        return await context.identify(ids, properties)


class BulkVerbs(SubjectVerbs):
    """Many events at once."""

    __slots__ = ()

    async def track_many(self, events: Iterable[Addressed]) -> list[Receipt]:
        """
        Track many events in one commit: all of them are recorded, or none.

        Other tasks run meanwhile, so do not change the events before this returns.

        Args:
            events: Each an `Event` of the current subject, or a pair of a customer's ids and an `Event`.

        Returns:
            The receipts, in the order of the events.

        Raises:
            InvalidEventError: It is not an iterable; or an event can't be sent as it is, and the error names its index
                and path.
            QueueFullError: The queue is full, with ``when_full="raise"``.
            StorageError: The storage refused; nothing was recorded.
            LifecycleError: The client was not started, or is closed.
        """
        if not isinstance(events, Iterable):
            trouble = f"expected events, got {short_repr(events)}"
            raise InvalidEventError("events", trouble, "Use a list of events or of pairs (ids, Event).")
        context = self._context
        drafts: list[tuple[Identity | None, Draft] | Receipt] = []
        for index, event in enumerate(events):
            try:
                drafts.append(_draft(context, event))
            except InvalidEventError as error:
                drafts.append(context.recorder.invalid(error.within(f"events[{index}]")))
            if index % BATCH == BATCH - 1:
                await asyncio.sleep(0)
        wanted = [draft for draft in drafts if not isinstance(draft, Receipt)]
        recorded = await context.record_many(wanted) if wanted else []
        if len(recorded) == len(drafts):
            return recorded
        receipts = iter(recorded)
        return [draft if isinstance(draft, Receipt) else next(receipts) for draft in drafts]


class CampaignVerbs(SubjectVerbs):
    """Campaign links that led the customer here."""

    __slots__ = ()

    async def handle_campaign_click(self, url: str, timestamp: Timestamp = None) -> bool:
        """
        Handle a link that the customer opened.

        On a device, its campaign becomes part of the session that starts with it, or within ten seconds. A link with an
        ``xnpe_cmp`` is also tracked as a campaign click; on a customer tracker, which has no session, nothing else is.

        Args:
            url: The link, of any scheme.
            timestamp: When it was opened; by default the time of the call.

        Returns:
            Whether a click was tracked.

        Raises:
            InvalidEventError: The timestamp is not a timestamp.
            StorageError: The storage refused; nothing was recorded.
            LifecycleError: The client was not started, or is closed.
        """
        context = self._context
        try:
            return await _handle_link(context, url, context.recorder.read_timestamp(timestamp))
        except InvalidEventError as error:
            context.recorder.invalid(error)
            return False


async def _handle_link(context: SubjectContext, url: str, clicked_at: float | None) -> bool:
    link = read_link(url, 0.0)
    if not context.recorder.check_running() or link is None:
        return False
    if isinstance(context, DeviceContext):
        return await _open_link(context, url, clicked_at)
    draft = context.recorder.draft_click(url, CLICK_PROPERTIES) if link.is_click else None
    if draft is None:
        return False
    (receipt,) = await context.record_many([(None, draft._replace(timestamp=clicked_at))])
    return receipt.status != "dropped"


async def _open_link(context: DeviceContext, url: str, clicked_at: float | None) -> bool:
    """Attribute the session of a device to a link, and track its click; return whether that was tracked."""

    def attribute(state: DeviceState, timestamps: TimestampSequence) -> UpdateResult:
        return evolve(state, campaign=read_link(url, timestamps.first)), ()

    def click(state: DeviceState, timestamps: TimestampSequence) -> UpdateResult:
        campaign = read_link(url, timestamps.first)
        if campaign is None or not campaign.is_click:
            return state, ()
        at = timestamps.next() if clicked_at is None else clicked_at
        return state, [PendingEvent(state, EventType.CAMPAIGN_CLICK, Event(url, CLICK_PROPERTIES, at))]

    receipts = await context.transact(click, before=attribute)
    return any(receipt.status != "dropped" for receipt in receipts)


def _draft(context: SubjectContext, given: Addressed) -> tuple[Identity | None, Draft] | Receipt:
    """Return what is to be recorded, or the receipt of an event that is dropped."""
    ids, event = given if isinstance(given, tuple) and len(given) == 2 else (None, given)
    known = None if ids is None else read_ids(ids, "ids", context.configuration.normalize_id)
    if not isinstance(event, Event):
        trouble = f"expected an Event or a pair (ids, Event), got {short_repr(given)}"
        raise InvalidEventError("event", trouble, "Use Event(name, properties).")
    if known is None:
        own = context.draft(EventType.TRACK_EVENT, event)
        return context.recorder.dropped() if own is None else (None, own)
    # Whatever becomes of the events of the subject.
    recorder = context.recorder.for_others
    draft = recorder.draft_event(EventType.TRACK_EVENT, event)
    if draft is None:
        return recorder.dropped()
    if recorder.is_withdrawn(known):
        return recorder.dropped(WITHDRAWN, count=WITHDRAWN_COUNT)
    return recorder.identity(known, None), draft


def payment(item: PurchasedItem, timestamp: Timestamp) -> Event:
    """
    Return the event of a payment.

    Raises:
        InvalidEventError: It is not a `PurchasedItem`, or a field of it is invalid.
    """
    if not isinstance(item, PurchasedItem):
        trouble = f"expected a PurchasedItem, got {short_repr(item)}"
        raise InvalidEventError("item", trouble, "Use PurchasedItem(value, currency, ...).")
    properties: dict[str, Any] = {
        "brutto": read_number(item.value, "item.value", "Use a price such as 7.99."),
        "currency": _text(item.currency, "item.currency"),
        "payment_system": _text(item.payment_system, "item.payment_system"),
        "item_id": read_reference(item.product_id, "item.product_id", "Use the id as a string."),
        "product_title": _text(item.product_title, "item.product_title"),
    }
    if item.receipt is not None:
        hint = "Use a string, or None to leave it out."
        properties["receipt"] = read_reference(item.receipt, "item.receipt", hint)
    return Event(PAYMENT, properties, timestamp)


def _text(value: Any, path: str) -> str:
    if not isinstance(value, str):
        raise InvalidEventError(path, f"expected a string, got {short_repr(value)}", "Use a string.")
    return plain_string(value, path)
