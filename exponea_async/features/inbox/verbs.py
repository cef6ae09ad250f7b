"""
The app inbox: messages that wait to be read.
"""

import asyncio
import logging
from collections.abc import Callable
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from attrs import evolve, frozen

from exponea_async.config import Configuration
from exponea_async.devices.context import ApiRequest, SubjectContext
from exponea_async.devices.customers import CustomerSnapshot
from exponea_async.devices.features import Feature
from exponea_async.errors import ClosedError, ExponeaError, InvalidEventError, RequestRefusedError, UnavailableError
from exponea_async.features._shared.consent import may_track
from exponea_async.features._shared.envelopes import read_envelope, to_thread_if_large
from exponea_async.features._shared.verbs import SubjectVerbs
from exponea_async.features.inbox.events import clicked, opened, stamped_ids, track
from exponea_async.features.inbox.mailbox import Entry, Mailbox, read_entries
from exponea_async.features.inbox.parsing import HTML, FetchInfo
from exponea_async.features.inbox.store import HTML_WEIGHT, Store
from exponea_async.messages import AppInboxAction, AppInboxMessage
from exponea_async.models import EventType, Receipt

if TYPE_CHECKING:
    from exponea_async.features._shared.html.reader import SafeHtml

LOG = logging.getLogger("exponea_async")

FETCH = "/webxp/projects/{project}/appinbox/fetch"
MARK_AS_READ = "/webxp/projects/{project}/appinbox/markasread"
#: The platform does not know a sync token any more.
GONE = 410
#: A longer sync token is none.
MAX_TOKEN = 4_096


@frozen(eq=False)
class Flight:
    """
    A fetch that is under way.

    Attributes:
        fingerprint: Stands for the customer it is for.
        task: Gives the messages, or the error.
    """

    fingerprint: str
    task: "asyncio.Task[list[AppInboxMessage] | ExponeaError]"


class Inbox(Feature):
    """
    What is kept of the app inbox for all subjects of a client.

    Args:
        configuration: The settings.
        clock: Tells UNIX seconds.
    """

    def __init__(self, configuration: Configuration, clock: Callable[[], float]) -> None:
        super().__init__()
        self._configuration = configuration
        self._clock = clock
        self._store = Store(configuration.application_id, self._page)
        self._flights: dict[tuple[str | None, str], Flight] = {}
        self._is_closed = False
        self._has_warned = False

    async def fetch(self, context: SubjectContext) -> list[AppInboxMessage]:
        """
        Ask for the messages of whoever the subject is. Who asks meanwhile gets the same answer.

        Raises:
            RefusedError: The platform refused.
            UnavailableError: There was no usable answer.
            StorageError: The storage refused.
            LifecycleError: The client is not running, or was closed meanwhile.
        """
        while (customer := await context.current_customer(counts_as_activity=False)) is not None:
            flight = self._flight(context, customer)
            # Whoever waits here and is cancelled does not take the others down.
            await asyncio.wait([flight.task])
            if flight.task.cancelled():
                break
            now = await context.current_customer(counts_as_activity=False)
            # Somebody else by now gets nothing of it: the answer, an error too, was for another customer.
            if now is not None and now.fingerprint == flight.fingerprint:
                return _given(flight.task.result())
        if self._is_closed:
            raise ClosedError("The client is closed.", hint="Make a new one.")
        return []

    async def find(
        self, context: SubjectContext, customer: CustomerSnapshot, message_id: str
    ) -> AppInboxMessage | None:
        """Find a message among those that are kept for a customer."""
        return (await self._store.load(context, customer)).message(message_id)

    async def note_read(self, context: SubjectContext, customer: CustomerSnapshot, message_id: str) -> None:
        """Remember that a customer has read a message, if it is theirs what is kept."""
        mailbox, now = (
            await self._store.load(context, customer),
            await context.current_customer(counts_as_activity=False),
        )
        if now is not None and now.fingerprint == customer.fingerprint and message_id in mailbox.entries:
            await self._store.save(context, customer, mailbox.read(message_id))

    # What the client tells

    def identified(self, context: SubjectContext, receipt: Receipt) -> None:  # noqa: ARG002 - Part has it
        """What was kept for another customer is forgotten; where there is nothing, nobody is asked."""
        if not self._store.is_empty:
            self.tasks.start(self._renew(context), name="forget an app inbox")

    def anonymized(self, context: SubjectContext) -> None:
        """What was kept is forgotten, and the new customer's messages are loaded ahead."""
        preload = self._configuration.preload_messages
        self.tasks.start(self._renew(context, unseen=True, preload=preload), name="renew an app inbox")

    def clear(self) -> None:
        """Forget everything; who waits gets nothing."""
        self.tasks.cancel()
        self._flights.clear()
        self._store.clear()

    async def aclose(self) -> None:
        """Break off what is under way; who waits is told that the client is closed."""
        self._is_closed = True
        await self.tasks.aclose()

    async def _renew(self, context: SubjectContext, *, unseen: bool = False, preload: bool = False) -> None:
        customer = await context.current_customer(counts_as_activity=False)
        if customer is None:
            return
        await self._store.forget_others(context, customer, unseen=unseen)
        if preload:
            try:
                await self.fetch(context)
            except (RequestRefusedError, UnavailableError) as error:
                LOG.debug("An app inbox could not be loaded ahead: %s", error)

    # Flights

    def _flight(self, context: SubjectContext, customer: CustomerSnapshot) -> Flight:
        # A device's customer may change meanwhile: even then there is only one request at a time.
        key = (customer.device, "" if customer.device else customer.fingerprint)
        flight = self._flights.get(key)
        if flight is None:
            if self._is_closed:
                raise ClosedError("The client is closed.", hint="Make a new one.")
            task = self.tasks.start(self._load(context, customer), name="fetch an app inbox")
            flight = self._flights[key] = Flight(customer.fingerprint, task)
            task.add_done_callback(partial(self._land, key))
        return flight

    def _land(self, key: tuple[str | None, str], task: "asyncio.Task[Any]") -> None:
        flight = self._flights.get(key)
        if flight is not None and flight.task is task:
            del self._flights[key]

    async def _load(self, context: SubjectContext, customer: CustomerSnapshot) -> list[AppInboxMessage] | ExponeaError:
        try:
            mailbox = await self._store.load(context, customer)
            try:
                return await self._ask(context, customer, mailbox)
            except RequestRefusedError as error:
                if error.status != GONE or mailbox.token is None:
                    raise
            LOG.info("The sync token of an app inbox is not known any more; all of it is asked for.")
            await self._store.forget(context, customer)
            return await self._ask(context, customer, Mailbox(customer.fingerprint))
        except ExponeaError as error:
            # Not raised: those who wait hear of it, and nobody else needs to.
            return error

    async def _ask(
        self, context: SubjectContext, customer: CustomerSnapshot, mailbox: Mailbox
    ) -> list[AppInboxMessage]:
        body: dict[str, Any] = {
            "customer_ids": dict(customer.ids),
            "application_id": self._configuration.application_id,
        }
        if mailbox.token is not None:
            body["sync_token"] = mailbox.token
        answer = await context.request(customer, ApiRequest(FETCH, body, is_personal=True))
        if answer is None:
            return []
        stamp = FetchInfo(MappingProxyType(dict(customer.ids)), self._clock(), mailbox.token)
        entries, token = await to_thread_if_large(_weight(answer), partial(self._read, answer, mailbox, stamp))
        now = await context.current_customer(counts_as_activity=False)
        # Something may have been marked as read meanwhile.
        before = self._store.latest(customer, mailbox)
        changed = before.merged(entries, token)
        if now is not None and now.fingerprint == customer.fingerprint and (entries or changed.token != before.token):
            await self._store.save(context, customer, changed)
        return changed.messages

    def _read(self, answer: bytes, mailbox: Mailbox, stamp: FetchInfo) -> tuple[list[Entry], str | None]:
        reply = read_envelope(answer)
        token = reply.sync_token if reply.sync_token and len(reply.sync_token) <= MAX_TOKEN else None
        # An answer without a token leaves the one before in force, and marks its messages with it.
        stamp = evolve(stamp, sync_token=token or stamp.sync_token)
        return read_entries(reply.elements, mailbox.entries, stamp, self._page), token

    def _page(self, source: str) -> "SafeHtml | None":
        from exponea_async.features._shared.html.reader import read_html  # noqa: PLC0415 - few need it

        try:
            return read_html(source, ensure_close=False)
        except ImportError as error:
            if not self._has_warned:
                self._has_warned = True
                LOG.warning("Messages of the app inbox come without their HTML: %s", error)
            return None


class InboxVerbs(SubjectVerbs):
    """The verbs of the app inbox."""

    __slots__ = ()

    async def fetch_app_inbox(self) -> list[AppInboxMessage]:
        """
        Fetch the customer's messages, newest first.

        A device remembers what it was told and asks only for what is new since; who asks while an answer is under way
        gets the same one. Where the customer changes meanwhile, the new one's messages are fetched. A customer tracker
        remembers nothing, and asks for all.

        At most 1,000 messages, or 8 MB of them, are told, the newest.

        Returns:
            The messages; none where the integration is stopped.

        Raises:
            RefusedError: The platform refused, or ``customer_token_provider`` gave no token.
            UnavailableError: There was no usable answer; another fetch may succeed.
            StorageError: The storage refused.
            LifecycleError: The client was not started, or is closed.
        """
        context = self._context
        if await context.current_customer() is None:
            return []
        return await self._devices.features[Inbox].fetch(context)

    async def fetch_app_inbox_item(self, message_id: str) -> AppInboxMessage | None:
        """
        Find one of the customer's messages: among those that the device remembers, or else by fetching.

        Args:
            message_id: Its id.

        Returns:
            The message; None where there is none.

        Raises:
            InvalidEventError: The id is no text.
            ExponeaError: As `fetch_app_inbox`.
        """
        if not isinstance(message_id, str):
            raise InvalidEventError("message_id", f"a {type(message_id).__name__} is no text", "Give a message's id.")
        context = self._context
        inbox = self._devices.features[Inbox]
        while (customer := await context.current_customer()) is not None:
            found = await inbox.find(context, customer, message_id)
            if found is None:
                return next((each for each in await inbox.fetch(context) if each.id == message_id), None)
            now = await context.current_customer(counts_as_activity=False)
            if now is not None and now.fingerprint == customer.fingerprint:
                return found
            # It was read from the storage, which takes a moment: the customer is another one by now.
        return None

    async def mark_app_inbox_as_read(self, message: AppInboxMessage) -> bool:
        """
        Tell Engagement that a message was read, by the customer it was fetched for. No event is tracked.

        Args:
            message: The message, as it was fetched.

        Returns:
            Whether Engagement took note. It cannot where the message was not fetched but made by hand.

        Raises:
            InvalidEventError: It is no message.
            StorageError: The storage refused.
            LifecycleError: The client was not started, or is closed.
        """
        context, ids = self._context, stamped_ids(message)
        customer = await context.current_customer()
        if customer is None:
            return False
        if not ids or not message.sync_token:
            LOG.warning("A message of the app inbox was not fetched, and can't be marked as read.")
            return False
        owner = evolve(customer, ids=ids)
        body = {"customer_ids": ids, "message_ids": [message.id], "sync_token": message.sync_token}
        try:
            answer = await context.request(owner, ApiRequest(MARK_AS_READ, body, is_personal=True))
            if answer is None:
                return False
            read_envelope(answer)
        except (RequestRefusedError, UnavailableError) as error:
            LOG.warning("A message of the app inbox could not be marked as read: %s", error)
            return False
        await self._devices.features[Inbox].note_read(context, owner, message.id)
        return True

    async def track_app_inbox_opened(self, message: AppInboxMessage, consider_consent: bool = True) -> Receipt:  # noqa: FBT001, FBT002 - the vendor's signature
        """
        Track that a message was opened, by the customer it was fetched for.

        Args:
            message: The message, as it was fetched.
            consider_consent: Whether it counts what the message says of the consent to be tracked.

        Returns:
            The receipt; a dropped one where there is no consent, or where the message was made by hand.

        Raises:
            InvalidEventError: It is no message.
            StorageError: The storage refused; nothing was kept.
            LifecycleError: The client was not started, or is closed.
        """
        context, ids = self._context, stamped_ids(message)
        event = opened(message, context.configuration.message_platform)
        allowed = may_track(has_consent=message.has_tracking_consent, consider_consent=consider_consent)
        return await track(context, EventType.APP_INBOX_OPENED, event, ids, allowed=allowed)

    async def track_app_inbox_click(
        self,
        action: AppInboxAction,
        message: AppInboxMessage,
        consider_consent: bool = True,  # noqa: FBT001, FBT002 - the vendor's signature
    ) -> Receipt:
        """
        Track that something was pressed in a message, by the customer it was fetched for.

        A link that forces tracking is tracked without consent too, and says so.

        Args:
            action: What was pressed.
            message: The message, as it was fetched.
            consider_consent: Whether it counts what the message says of the consent to be tracked.

        Returns:
            The receipt; a dropped one where there is no consent, or where the message was made by hand.

        Raises:
            InvalidEventError: It is no action, or no message.
            StorageError: The storage refused; nothing was kept.
            LifecycleError: The client was not started, or is closed.
        """
        context, ids = self._context, stamped_ids(message)
        event = clicked(action, message, context.configuration.message_platform)
        allowed = may_track(has_consent=message.has_tracking_consent, consider_consent=consider_consent, url=action.url)
        return await track(context, EventType.APP_INBOX_CLICKED, event, ids, allowed=allowed)


def _given(outcome: list[AppInboxMessage] | ExponeaError) -> list[AppInboxMessage]:
    if isinstance(outcome, ExponeaError):
        # Raised for each who waits: without this, every one would see where all the others were.
        raise outcome.with_traceback(None)
    return list(outcome)


def _weight(answer: bytes) -> int:
    return len(answer) * (HTML_WEIGHT if f'"{HTML}"'.encode() in answer else 1)
