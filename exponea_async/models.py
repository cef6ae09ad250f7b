"""
Values that are passed to the client and returned by it: events, customers, receipts, results.
"""

import asyncio
from collections.abc import Mapping
from datetime import datetime
from enum import Enum
from typing import Any, Literal, NamedTuple, Protocol

from attrs import field, frozen

from exponea_async._internal.actions import ActionType, to_action_type
from exponea_async._internal.arguments import read_timeout
from exponea_async.errors import (
    DeliveryError,
    DeliveryTimeoutError,
    DroppedError,
    ExponeaError,
    LostError,
    ProjectPausedError,
)

#: An aware `datetime.datetime`, or UNIX seconds, which may also be a Decimal. None stands for the time of the call.
Timestamp = datetime | float | None


class EventType(Enum):
    """
    Kinds of events that `Configuration.project_mapping` can route to further projects, named as in the vendor's SDKs.

    ``NOTIFICATION_STATE`` is an alias of ``PUSH_TOKEN``.
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

    # Enum.__hash__ is written in Python, and members are looked up for every event.
    __hash__ = object.__hash__


class FlushMode(Enum):
    """
    When queued events are uploaded.

    Attributes:
        IMMEDIATE: Soon after each call; a burst of events becomes one request.
        PERIOD: Every `Configuration.flush_period` seconds, and when the client is closed.
        APP_CLOSE: When the client is closed.
        MANUAL: Only by ``flush_data()``.
    """

    IMMEDIATE = "IMMEDIATE"
    PERIOD = "PERIOD"
    APP_CLOSE = "APP_CLOSE"
    MANUAL = "MANUAL"


class TokenFrequency(Enum):
    """
    How often a push token is tracked again.

    Attributes:
        ON_TOKEN_CHANGE: When the token or the permission to send notifications has changed.
        EVERY_LAUNCH: After every start of the client.
        DAILY: Once a day.
    """

    ON_TOKEN_CHANGE = "ON_TOKEN_CHANGE"  # noqa: S105 - the vendor's word
    EVERY_LAUNCH = "EVERY_LAUNCH"
    DAILY = "DAILY"


@frozen
class Event:
    """
    An event to track.

    Args:
        name: The event type, such as ``"screen_view"``. Any string that is not blank.
        properties: The properties of the event. Besides JSON values they may have aware datetimes, dates, timedeltas,
            decimals, UUIDs, enums, sets, tuples, paths, IP addresses, attrs and dataclass instances, pydantic models,
            and scalars and arrays of numpy; others with `Configuration.encoder`. None values are left out.
        timestamp: When the event happened: an aware datetime or UNIX seconds. By default the time of the call.
    """

    name: str
    properties: Mapping[str, Any] = field(factory=dict)
    timestamp: Timestamp = None


@frozen
class Customer:
    """
    A customer to identify, and properties to set.

    Args:
        ids: The customer's ids by type, such as ``{"registered": "jane@example.com"}``. Their values are strings or
            UUIDs, and none is without a letter or a digit, ``"null"`` or ``"undefined"``.
        properties: The customer properties to set. Others keep their values.
    """

    ids: Mapping[str, str]
    properties: Mapping[str, Any] = field(factory=dict)


@frozen
class PurchasedItem:
    """
    A payment for one product, for ``track_payment_event()``.

    Args:
        value: The price paid, a number.
        currency: The currency, such as ``"EUR"``.
        payment_system: The means of payment, such as ``"card"``.
        product_id: The id of the product, a string or a UUID. It is sent as ``item_id``.
        product_title: The name of the product.
        receipt: The reference of the payment, a string or a UUID; None leaves it out.
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
    The result of ``flush_data()`` or ``stop_integration()``.

    Attributes:
        delivered: Number of records that Engagement accepted during the flush.
        rejected: Number of records that became dead letters during the flush.
        remaining: Number of records that were written before the flush and are still queued; after
            ``stop_integration()`` the number of those that were deleted unsent.
        lost: Number of records that were found to be lost during the flush; see `Stats.lost`.
        reasons: Why records remain, by the token of their project, as far as the client knows.
    """

    delivered: int
    rejected: int
    remaining: int
    lost: int = 0
    reasons: Mapping[str, str] = field(factory=dict, eq=False)


@frozen
class OpenedPush:
    """
    A push notification that was clicked.

    Attributes:
        action: What it opened: `ActionType.APP`, ``BROWSER`` or ``DEEP_LINK``.
        url: The URL that it opened; None if there is none, or if it could run something, such as ``javascript:``.
        data: The additional data of the notification.
    """

    action: ActionType = field(converter=to_action_type)
    url: str | None
    data: Mapping[str, Any]


@frozen
class ReceivedPush:
    """
    A push notification that was delivered.

    Attributes:
        data: The payload of the notification.
    """

    data: Mapping[str, Any]


@frozen
class Identity:
    """
    The customer that an event is about, encoded. There is one for each device in memory, so it holds nothing else.

    Attributes:
        encoded_ids: The ids by type, a JSON object.
        encoded_stamps: The properties that are added to each event, as JSON members without the braces.
        is_device: Whether the id of a device is among these properties.
        routes: The routes of each kind of event, if they are not those of the configuration.
    """

    encoded_ids: bytes
    encoded_stamps: bytes
    is_device: bool
    routes: Mapping[EventType, tuple[str, ...]] | None = None


class Draft(NamedTuple):
    """
    An event or customer update that was checked and encoded, without the customer that it is about.

    A tuple, since one is made for each event, and an instance of a frozen attrs class takes twice as long to make.

    Attributes:
        kind: The kind of event, which decides on its routes.
        name: The event type, a JSON string; the link of a campaign click; empty for a customer update.
        properties: The properties as JSON members, without the braces.
        timestamp: When it happened, UNIX seconds; None is replaced by the time when it is recorded.
        own_device: A ``device_id`` given by the caller, as a JSON member, for subjects that are not devices.
        event: The event with its default properties, if a feature or a subscriber needs it.
    """

    kind: EventType
    name: bytes
    properties: bytes
    timestamp: float | None
    own_device: bytes = b""
    event: Event | None = None


class Receipt:
    """
    The receipt of a tracked event, with which a caller can find out or wait for what happens to it.

    It is safe to ignore: a receipt that is not referenced costs nothing.

    ::

        receipt = await exponea.track_event(Event("purchase"))
        await receipt.delivered(timeout=10)

    Attributes:
        ids: The ids of the records in the queue, one for each project that gets the event.
        routes: Where these records are sent: the token of the project and the endpoint.
    """

    __slots__ = ("__weakref__", "_error", "_keeper", "_undecided", "_waiters", "ids", "routes")

    def __init__(self, ids: tuple[str, ...], keeper: "ReceiptKeeper", routes: tuple[str, ...] = ()) -> None:
        self.ids = ids
        self.routes = routes
        self._undecided = len(ids)
        self._error: DeliveryError | None = None
        # One for each call that waits, and whether it waits through a pause. Only created with the first one.
        self._waiters: dict[asyncio.Future[None], bool] | None = None
        self._keeper = keeper

    def __repr__(self) -> str:
        return f"<Receipt {', '.join(self.ids) or '-'}: {self.status}>"

    @property
    def status(self) -> Literal["queued", "delivered", "rejected", "dropped", "lost"]:
        """
        ``"queued"``, ``"delivered"``, ``"rejected"``, ``"dropped"`` or ``"lost"``, as far as this process knows.

        It is "queued" until there is a verdict of all projects, and "rejected" as soon as one has rejected the event.
        "delivered" is always a verdict of Engagement, whichever process got it: an event that has left the queue in any
        other way is "dropped" or "lost".
        """
        error = self._find_error()
        if isinstance(error, LostError):
            return "lost"
        if isinstance(error, DroppedError):
            return "dropped"
        if error:
            return "rejected"
        return "delivered" if self._is_decided() else "queued"

    async def delivered(self, timeout: float | None = None) -> None:  # noqa: ASYNC109 - as asyncio.wait has it
        """
        Wait until Engagement has accepted the event in all of its projects.

        Args:
            timeout: Maximum wait in seconds; None sets no limit.

        Raises:
            RejectedError: Engagement rejected the event; it is kept as a dead letter.
            DroppedError: The event was discarded on purpose before it was sent.
            LostError: The event is not in the queue any more, and nothing proves that it was delivered.
            ProjectPausedError: The project is paused, so there will be no verdict soon; the event is still queued.
            DeliveryTimeoutError: There was no verdict in time; the event is still queued.
            ClosedError: The client was closed before there was a verdict; the event is still queued.
            LifecycleError: It is awaited in the block of `Exponea.transaction`, whose end the verdict would wait for.
            InvalidEventError: The timeout is not a duration.
        """
        seconds = read_timeout(timeout)
        if self.status == "queued":
            await self._wait_for_verdict(seconds, through_pauses=False)
        error = self._find_error()
        if error:
            # Raised for each caller: without this, every traceback would show the frames of all the others.
            raise error.with_traceback(None)

    async def decided(self, timeout: float | None = None) -> None:  # noqa: ASYNC109 - as asyncio.wait has it
        """
        Wait until `status` is no longer "queued", also while a project is paused.

        Args:
            timeout: Maximum wait in seconds; None sets no limit.

        Raises:
            DeliveryTimeoutError: There was no verdict in time; the event is still queued.
            ClosedError: The client was closed before there was a verdict; the event is still queued.
        """
        seconds = read_timeout(timeout)
        if self.status == "queued":
            await self._wait_for_verdict(seconds, through_pauses=True)

    @property
    def is_awaited(self) -> bool:
        """Whether a call is waiting."""
        return bool(self._waiters)

    def resolve(self, error: DeliveryError | None = None) -> None:
        """Set the verdict on one of the records: delivered, or an error. Called by the pipeline."""
        self._undecided -= 1
        self._error = self._error or error
        self.wake()

    def wake(self) -> None:
        """End the calls that wait if there is a verdict. Called by the pipeline."""
        if self._waiters and self.status != "queued":
            for waiter in self._waiters:
                if not waiter.done():
                    waiter.set_result(None)

    def fail_waiters(self, error: ExponeaError) -> None:
        """Raise an error in all calls that wait, since there will be no verdict. Called by the pipeline."""
        for waiter in self._waiters or ():
            if not waiter.done():
                waiter.set_exception(error)

    def fail_if_paused(self) -> None:
        """Raise the error of a pause in all calls that do not wait through it. Called by the pipeline."""
        for waiter, through_pauses in (self._waiters or {}).items():
            error = None if through_pauses or waiter.done() else self._keeper.pause_of(self)
            if error:
                waiter.set_exception(error)

    def _find_error(self) -> DeliveryError | None:
        return self._error

    def _is_decided(self) -> bool:
        return not self._undecided

    async def _wait_for_verdict(self, timeout: float | None, *, through_pauses: bool) -> None:  # noqa: ASYNC109 - see `delivered`
        waiter = asyncio.get_running_loop().create_future()
        if self._waiters is None:
            self._waiters = {}
        self._waiters[waiter] = through_pauses
        try:
            self._begin_waiting()
            self.fail_if_paused()
            if timeout is None:
                await waiter
            else:
                async with asyncio.timeout(timeout):
                    await waiter
        except TimeoutError:
            raise DeliveryTimeoutError(f"No verdict within {timeout} seconds; the event is still queued.") from None
        finally:
            del self._waiters[waiter]
            if not self._waiters:
                self._end_waiting()

    def _begin_waiting(self) -> None:
        self._keeper.watch(self)

    def _end_waiting(self) -> None:
        self._keeper.unwatch(self)


class ReceiptKeeper(Protocol):
    """The part of the pipeline that knows which receipts are awaited."""

    def watch(self, receipt: Receipt) -> None:
        """Find out what becomes of the records of a receipt, until `unwatch`."""
        ...

    def unwatch(self, receipt: Receipt) -> None:
        """Find it out no longer: no call waits for it any more."""
        ...

    def pause_of(self, receipt: Receipt) -> ProjectPausedError | None:
        """Return why there will be no verdict on a receipt soon, or None."""
        ...
