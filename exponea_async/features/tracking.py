"""
Events, payments and who a customer is.
"""

import logging
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from exponea_async.devices.context import SubjectContext
from exponea_async.devices.ids import COOKIE, read_ids
from exponea_async.errors import InvalidEventError
from exponea_async.models import Customer, Event, EventType, PurchasedItem, Receipt, Timestamp

LOG = logging.getLogger("exponea_async")

PAYMENT = "payment"
# Asking the class for it costs as much as the rest of a verb.
_TRACK_EVENT = EventType.TRACK_EVENT


class TrackingVerbs:
    """The verbs that every subject has."""

    __slots__ = ()

    if TYPE_CHECKING:

        @property
        def _context(self) -> SubjectContext: ...

    async def track_event(self, event: Event) -> Receipt:
        """
        Track an event of any type.

        The event is durable when this returns. It carries the default properties under its own, and the SDK's
        ``application_id`` and, for a device, ``device_id`` over them.

        Args:
            event: What happened.

        Raises:
            InvalidEventError: It can't be sent as it is; the path of the trouble is named, and nothing was kept.
            QueueFullError: The queue has no room, and ``when_full="raise"``.
            StorageError: The storage refused; nothing was kept.
            LifecycleError: The client was not started, or is closed.
        """
        context = self._context
        draft = context.recorder.draft_event(_TRACK_EVENT, event)
        return context.recorder.dropped() if draft is None else await context.keep(draft)

    async def track_payment_event(self, item: PurchasedItem, timestamp: Timestamp = None) -> Receipt:
        """
        Track a payment, as the event ``payment``.

        Args:
            item: What was bought.
            timestamp: When; by default the moment of the call.

        Raises:
            InvalidEventError: A field of the item is wrong; it is named, and nothing was kept.
            QueueFullError: The queue has no room, and ``when_full="raise"``.
            StorageError: The storage refused; nothing was kept.
            LifecycleError: The client was not started, or is closed.
        """
        context = self._context
        draft = context.recorder.draft_event(EventType.PAYMENT, payment(item, timestamp))
        return context.recorder.dropped() if draft is None else await context.keep(draft)

    async def identify_customer(self, customer: Customer) -> Receipt:
        """
        Tell who the subject is, and what is known of it.

        On a device the ids are remembered, beside those it has; all its later events carry them. Earlier ones keep
        the ids they were tracked with. A ``cookie`` among the ids is ignored: the SDK has its own.

        Args:
            customer: The ids, and properties to set.

        Raises:
            InvalidEventError: An id is no non-empty text, or a property can't be sent; nothing was kept.
            QueueFullError: The queue has no room, and ``when_full="raise"``.
            StorageError: The storage refused; nothing was kept.
            LifecycleError: The client was not started, or is closed.
        """
        if not isinstance(customer, Customer):
            raise InvalidEventError("customer", f"{customer!r:.60} is no Customer", "Give Customer(ids, properties).")
        context = self._context
        ids = read_ids(customer.ids, "customer.ids")
        if ids.pop(COOKIE, None) is not None:
            LOG.warning("A 'cookie' given to identify_customer() is ignored: the SDK has its own.")
        draft = context.recorder.draft_customer(customer.properties)
        return context.recorder.dropped() if draft is None else await context.identify(ids, draft)


def payment(item: PurchasedItem, timestamp: Timestamp) -> Event:
    """
    Make the event of a payment.

    Raises:
        InvalidEventError: It is no `PurchasedItem`, or a field of it is wrong.
    """
    if not isinstance(item, PurchasedItem):
        raise InvalidEventError(
            "item", f"{item!r:.60} is no PurchasedItem", "Give PurchasedItem(value, currency, ...)."
        )
    if isinstance(item.value, bool) or not isinstance(item.value, int | float | Decimal):
        raise InvalidEventError("item.value", f"{item.value!r:.60} is no number", "Give the price, such as 7.99.")
    for name in ("currency", "payment_system", "product_id", "product_title"):
        if not isinstance(getattr(item, name), str):
            raise InvalidEventError(f"item.{name}", f"{getattr(item, name)!r:.60} is no text", "Give a text.")
    properties: dict[str, Any] = {
        "brutto": item.value,
        "currency": item.currency,
        "payment_system": item.payment_system,
        "item_id": item.product_id,
        "product_title": item.product_title,
    }
    if item.receipt is not None:
        properties["receipt"] = item.receipt
    return Event(PAYMENT, properties, timestamp)
