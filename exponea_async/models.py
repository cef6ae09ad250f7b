"""
The values that the rooms share and that users meet.
"""

import asyncio
from collections.abc import Callable, Mapping
from datetime import datetime
from enum import Enum
from typing import Any, Literal, NamedTuple

from attrs import field, frozen

from exponea_async.errors import DeliveryError, DeliveryTimeoutError, DroppedError, ExponeaError

#: A moment: an aware `datetime.datetime`, or UNIX seconds; None means "now".
Timestamp = datetime | float | None


class EventType(Enum):
    """
    The kinds of tracked things that `Configuration.project_mapping` can route, as the vendor's SDKs name them.

    ``NOTIFICATION_STATE`` is another name of ``PUSH_TOKEN``.
    """

    INSTALL = "INSTALL"
    SESSION_START = "SESSION_START"
    SESSION_END = "SESSION_END"
    TRACK_EVENT = "TRACK_EVENT"
    TRACK_CUSTOMER = "TRACK_CUSTOMER"
    PAYMENT = "PAYMENT"
    PUSH_TOKEN = "PUSH_TOKEN"  # noqa: S105 - the vendor's word
    NOTIFICATION_STATE = PUSH_TOKEN
    PUSH_DELIVERED = "PUSH_DELIVERED"
    PUSH_OPENED = "PUSH_OPENED"
    CAMPAIGN_CLICK = "CAMPAIGN_CLICK"
    BANNER = "BANNER"
    APP_INBOX_OPENED = "APP_INBOX_OPENED"
    APP_INBOX_CLICKED = "APP_INBOX_CLICKED"

    # Enum's own is written in Python, and members are looked up for every event.
    __hash__ = object.__hash__


class FlushMode(Enum):
    """
    When queued events are uploaded.

    Attributes:
        IMMEDIATE: Soon after each call, bursts gathered into one request.
        PERIOD: Every `Configuration.flush_period` seconds.
        APP_CLOSE: When the client closes.
        MANUAL: Only when ``flush_data()`` is called.
    """

    IMMEDIATE = "IMMEDIATE"
    PERIOD = "PERIOD"
    APP_CLOSE = "APP_CLOSE"
    MANUAL = "MANUAL"


class TokenFrequency(Enum):
    """
    How often a push token is tracked again.

    Attributes:
        ON_TOKEN_CHANGE: When the token or the permission to push has changed.
        EVERY_LAUNCH: At every start of the client.
        DAILY: Once a day.
    """

    ON_TOKEN_CHANGE = "ON_TOKEN_CHANGE"  # noqa: S105 - the vendor's word
    EVERY_LAUNCH = "EVERY_LAUNCH"
    DAILY = "DAILY"


@frozen
class Event:
    """
    Something that happened.

    Args:
        name: The event type, such as ``"screen_view"``; any non-empty text.
        properties: What is told about it: JSON values, and all that the README lists beside them.
        timestamp: When it happened; by default the moment of the call.
    """

    name: str
    properties: Mapping[str, Any] = field(factory=dict)
    timestamp: Timestamp = None


@frozen
class Customer:
    """
    Who somebody is, and what is known of them.

    Args:
        ids: The customer's identifiers by kind, such as ``{"registered": "jane@example.com"}``; texts only.
        properties: Customer properties to set; what is not named stays as it is.
    """

    ids: Mapping[str, str]
    properties: Mapping[str, Any] = field(factory=dict)


@frozen
class PurchasedItem:
    """
    A payment for one product, as ``track_payment_event()`` takes it.

    Args:
        value: The price paid, as a number.
        currency: Its currency, such as ``"EUR"``.
        payment_system: How it was paid, such as ``"card"``.
        product_id: The product's id; goes out as ``item_id``.
        product_title: The product's name.
        receipt: The payment's own reference, left out where None.
    """

    value: Any
    currency: str
    payment_system: str
    product_id: str
    product_title: str
    receipt: str | None = None


@frozen
class FlushResult:
    """
    What a flush achieved.

    Attributes:
        delivered: Records that Engagement accepted while the flush ran.
        rejected: Records that went to the dead letters while the flush ran.
        remaining: Records written before the flush was asked for that still wait.
    """

    delivered: int
    rejected: int
    remaining: int


@frozen
class Stats:
    """
    What a client has done since it was started, and what waits now.

    Attributes:
        tracked: Records written; one call makes one for each project it goes to.
        delivered: Records that Engagement accepted.
        rejected: Records that went to the dead letters.
        dropped: Records given up on purpose, by reason.
        retried: Times that a record was put back to be sent again.
        requests: Requests made.
        failed_requests: Requests without a usable answer.
        bytes_sent: Bytes of the bodies sent, before compression.
        commits: Transactions that wrote records.
        in_flight: Records in requests under way now.
        paused: Projects that are paused, with the reason.
    """

    tracked: int
    delivered: int
    rejected: int
    dropped: Mapping[str, int]
    retried: int
    requests: int
    failed_requests: int
    bytes_sent: int
    commits: int
    in_flight: int
    paused: Mapping[str, str]


@frozen
class OpenedPush:
    """
    A push notification that somebody pressed.

    Attributes:
        action: What it led to: ``"app"``, ``"browser"`` or ``"deeplink"``.
        url: Where it led to, or None.
        data: What the notification carried along.
    """

    action: str
    url: str | None
    data: Mapping[str, Any]


@frozen
class ReceivedPush:
    """
    A push notification that came.

    Attributes:
        data: Its payload.
    """

    data: Mapping[str, Any]


@frozen
class Identity:
    """
    Who an event is about, ready for the wire. There is one for each device in memory, so it holds nothing else.

    Attributes:
        encoded_ids: The identifiers by kind, as JSON.
        encoded_stamps: The properties stamped on each event as JSON members, without the braces.
        is_device: Whether a device's id is among the stamps.
        routes: Where each kind goes, where that is not as configured.
    """

    encoded_ids: bytes
    encoded_stamps: bytes
    is_device: bool
    routes: Mapping[EventType, tuple[str, ...]] | None = None


class Draft(NamedTuple):
    """
    What a verb asks to be kept, checked and encoded, but for whom it is about.

    A tuple, since one is made for each event and a frozen class of attrs takes twice the time.

    Attributes:
        kind: Tells which projects get it.
        name: The event type as JSON, or a click's link; empty for an update of a customer.
        properties: The properties as JSON members, without the braces.
        timestamp: When it happened, UNIX seconds; None is stamped when it is kept.
        own_device: A ``device_id`` of the caller's own, as a JSON member, for subjects that have none.
        event: The event with its default properties, where somebody wants to hear of it.
    """

    kind: EventType
    name: bytes
    properties: bytes
    timestamp: float | None
    own_device: bytes = b""
    event: Event | None = None


class Receipt:
    """
    What a verb hands back: the way to learn what became of its event.

    A receipt that nobody holds on to costs nothing.

    Attributes:
        ids: The ids of the records in the queue, one for each project that the event goes to.
    """

    __slots__ = ("__weakref__", "_error", "_follow", "_open", "_waiting", "ids")

    def __init__(self, ids: tuple[str, ...], follow: "Callable[[Receipt], None]") -> None:
        self.ids = ids
        self._open = len(ids)
        self._error: DeliveryError | None = None
        # One for each coroutine in `delivered`; a set is only made when there is a first one.
        self._waiting: set[asyncio.Future[None]] | None = None
        self._follow = follow

    def __repr__(self) -> str:
        return f"<Receipt {', '.join(self.ids) or '-'}: {self.status}>"

    @property
    def status(self) -> Literal["queued", "delivered", "rejected", "dropped"]:
        """``"queued"``, ``"delivered"``, ``"rejected"`` or ``"dropped"``, as far as this process has heard."""
        if isinstance(self._error, DroppedError):
            return "dropped"
        if self._error:
            return "rejected"
        return "queued" if self._open else "delivered"

    async def delivered(self, timeout: float | None = None) -> None:  # noqa: ASYNC109 - as asyncio.wait has it
        """
        Wait until Engagement has accepted the event, in each of its projects.

        Args:
            timeout: How long to wait at the most, in seconds; None waits as long as it takes.

        Raises:
            RejectedError: Engagement refused it; it lies in the dead letters.
            DroppedError: It was given up on purpose before it was sent.
            DeliveryTimeoutError: No verdict in time; it is still queued.
            ClosedError: The client was closed before there was a verdict; it is still queued.
        """
        if self.status == "queued":
            await self._verdict(timeout)
        if self._error:
            # Raised for each who asks: without this, every one would see where all the others were.
            raise self._error.with_traceback(None)

    @property
    def is_awaited(self) -> bool:
        """Whether somebody is in `delivered` now."""
        return bool(self._waiting)

    def resolve(self, error: DeliveryError | None = None) -> None:
        """Take in what became of one of the records; called by the pipeline."""
        self._open -= 1
        self._error = self._error or error
        if self._waiting and self.status != "queued":
            for waiter in self._waiting:
                if not waiter.done():
                    waiter.set_result(None)

    def give_up(self, error: ExponeaError) -> None:
        """Send away who waits, since no verdict will come; called by the pipeline."""
        for waiter in self._waiting or ():
            if not waiter.done():
                waiter.set_exception(error)

    async def _verdict(self, timeout: float | None) -> None:  # noqa: ASYNC109 - see `delivered`
        waiter = asyncio.get_running_loop().create_future()
        self._waiting = self._waiting or set()
        self._waiting.add(waiter)
        try:
            self._follow(self)
            async with asyncio.timeout(timeout):
                await waiter
        except TimeoutError:
            raise DeliveryTimeoutError(f"No verdict after {timeout} seconds; the event is still queued.") from None
        finally:
            self._waiting.discard(waiter)
