"""
The app inbox of all subjects: fetched once for concurrent callers, and kept per device.
"""

import logging
from collections.abc import Callable
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from attrs import evolve, frozen

from exponea_async._internal.concurrency import SharedLoad, SingleFlight
from exponea_async.config import Configuration
from exponea_async.devices.context import SubjectContext
from exponea_async.devices.customers import CustomerSnapshot
from exponea_async.devices.features import Feature
from exponea_async.errors import ClosedError, ExponeaError, RequestRefusedError, UnavailableError
from exponea_async.features._shared.envelopes import read_envelope, to_thread_if_large
from exponea_async.features._shared.html.rules import configured_rules
from exponea_async.features.inbox.mailbox import CachedMessage, Mailbox, read_messages
from exponea_async.features.inbox.parsing import HTML, FetchInfo
from exponea_async.features.inbox.store import HTML_COST, MailboxStore
from exponea_async.messages import AppInboxMessage
from exponea_async.models import Receipt
from exponea_async.requests import ApiRequest

if TYPE_CHECKING:
    from exponea_async.features._shared.html.reader import SafeHtml

LOG = logging.getLogger("exponea_async")

FETCH = "/webxp/projects/{project}/appinbox/fetch"
MARK_AS_READ = "/webxp/projects/{project}/appinbox/markasread"
#: The HTTP status of a sync token that the platform no longer knows.
GONE = 410
#: Maximum length of a sync token in characters; a longer one is ignored.
MAX_TOKEN_LENGTH = 4_096


@frozen(eq=False)
class FetchResult:
    """
    The result of a fetch, for all callers that share it.

    Attributes:
        customer: The customer that the messages were fetched for.
        outcome: The messages, or the error of the fetch.
    """

    customer: CustomerSnapshot
    outcome: list[AppInboxMessage] | ExponeaError

    def messages(self) -> list[AppInboxMessage]:
        """Return a copy of the messages, or raise the error."""
        if isinstance(self.outcome, ExponeaError):
            # Raised for each caller: without this, every traceback would show the frames of all the others.
            raise self.outcome.with_traceback(None)
        return list(self.outcome)


class Inbox(Feature):
    """
    The app inbox of all subjects of a client.

    Args:
        configuration: The settings.
        clock: Returns the current time in UNIX seconds.

    Attributes:
        store: The mailboxes of devices.
    """

    name = "app inbox"

    def __init__(self, configuration: Configuration, clock: Callable[[], float]) -> None:
        super().__init__()
        self._configuration = configuration
        self._clock = clock
        self._rules = configured_rules(configuration, is_embedded=True)
        self.store = MailboxStore(configuration.application_id, self._read_html)
        # By device key and, for customer trackers, the customer's fingerprint.
        self._fetches: SingleFlight[tuple[str | None, str], FetchResult] = SingleFlight(self.tasks)
        self._is_closed = False
        self._has_warned = False

    async def fetch(self, context: SubjectContext) -> list[AppInboxMessage]:
        """
        Fetch the messages of the present customer. Concurrent callers share one request.

        Raises:
            RequestRefusedError: The platform refused.
            UnavailableError: There was no usable response.
            StorageError: The storage refused.
            LifecycleError: The client is not running, or was closed in the meantime.
        """
        while (customer := await context.current_customer(counts_as_activity=False)) is not None:
            load = self._share_fetch(context, customer)
            if not await load.wait():
                break
            result = load.result()
            # The result for a previous customer, which may be an error, must not reach the present one.
            if await context.is_current(result.customer):
                return result.messages()
        if self._is_closed and context.recorder.check_running():
            raise ClosedError("The client is closed.", hint="Create a new client.")
        return []

    async def find(
        self, context: SubjectContext, customer: CustomerSnapshot, message_id: str
    ) -> AppInboxMessage | None:
        """Return a message from a customer's mailbox, or None."""
        return (await self.store.load(context, customer)).message(message_id)

    async def set_read(self, context: SubjectContext, customer: CustomerSnapshot, message_id: str) -> None:
        """Mark a message as read in a customer's mailbox, if the customer is still the present one."""
        mailbox = await self.store.load(context, customer)
        if await context.is_current(customer) and message_id in mailbox.entries:
            await self.store.save(context, customer, mailbox.with_read(message_id))

    # Notifications

    def identified(self, context: SubjectContext, receipt: Receipt, previous: CustomerSnapshot | None) -> None:  # noqa: ARG002 - the base has it
        """Delete the mailbox of the previous customer, also one that an earlier process has stored."""
        if previous is not None:
            self.tasks.start(self._delete_previous(context, previous), name="delete an app inbox")

    def anonymized(self, context: SubjectContext) -> None:
        """Delete the mailbox of the previous customer, and fetch the new customer's messages ahead."""
        preload = self._configuration.preload_messages
        self.tasks.start(self._renew(context, preload=preload), name="renew an app inbox")

    def clear(self) -> None:
        """Remove everything from memory; callers that wait for a fetch get an empty list."""
        self.tasks.cancel()
        self._fetches.clear()
        self.store.clear()

    def close(self) -> None:
        """Let callers that wait for a fetch, which is cancelled next, get a `ClosedError`."""
        self._is_closed = True

    async def _delete_previous(self, context: SubjectContext, previous: CustomerSnapshot) -> None:
        customer = await context.current_customer(counts_as_activity=False)
        if customer is not None and customer.fingerprint != previous.fingerprint:
            await self.store.delete_others(context, customer)

    async def _renew(self, context: SubjectContext, *, preload: bool) -> None:
        customer = await context.current_customer(counts_as_activity=False)
        if customer is None:
            return
        await self.store.delete_others(context, customer)
        if preload:
            try:
                await self.fetch(context)
            except (RequestRefusedError, UnavailableError) as error:
                LOG.debug("An app inbox could not be fetched ahead: %s", error)

    # Fetching

    def _share_fetch(self, context: SubjectContext, customer: CustomerSnapshot) -> "SharedLoad[FetchResult]":
        # One request at a time for a device, even if its customer changes in the meantime.
        key = (customer.device, "" if customer.device else customer.fingerprint)
        if self._is_closed and self._fetches.get(key) is None and context.recorder.check_running():
            raise ClosedError("The client is closed.", hint="Create a new client.")
        return self._fetches.share(key, lambda: self._fetch(context, customer), name="fetch an app inbox")

    async def _fetch(self, context: SubjectContext, customer: CustomerSnapshot) -> FetchResult:
        try:
            return FetchResult(customer, await self._fetch_messages(context, customer))
        except ExponeaError as error:
            # Part of the result, because only callers with the same customer may get it.
            return FetchResult(customer, error)

    async def _fetch_messages(self, context: SubjectContext, customer: CustomerSnapshot) -> list[AppInboxMessage]:
        mailbox = await self.store.load(context, customer)
        try:
            return await self._fetch_changes(context, customer, mailbox)
        except RequestRefusedError as error:
            if error.status != GONE or mailbox.sync_token is None:
                raise
        LOG.info("The platform no longer knows the sync token of an app inbox; all messages are fetched.")
        await self.store.delete(context, customer)
        return await self._fetch_changes(context, customer, Mailbox(customer.fingerprint))

    async def _fetch_changes(
        self, context: SubjectContext, customer: CustomerSnapshot, mailbox: Mailbox
    ) -> list[AppInboxMessage]:
        """Fetch what has changed since a mailbox was fetched, and return all its messages."""
        body: dict[str, Any] = {
            "customer_ids": dict(customer.ids),
            "application_id": self._configuration.application_id,
        }
        if mailbox.sync_token is not None:
            body["sync_token"] = mailbox.sync_token
        response = await context.request(customer, ApiRequest("app_inbox", FETCH, body, is_personal=True))
        if response is None:
            return []
        info = FetchInfo(MappingProxyType(dict(customer.ids)), self._clock(), mailbox.sync_token)
        entries, token = await to_thread_if_large(_read_cost(response), partial(self._read, response, mailbox, info))
        is_current = await context.is_current(customer)
        # A message may have been marked as read in the meantime.
        before = self.store.latest(customer, mailbox)
        after = before.merged(entries, token)
        if is_current and (entries or after.sync_token != before.sync_token):
            await self.store.save(context, customer, after)
        return after.messages

    def _read(self, response: bytes, mailbox: Mailbox, info: FetchInfo) -> tuple[list[CachedMessage], str | None]:
        envelope = read_envelope(response)
        token = envelope.sync_token
        token = token if token and len(token) <= MAX_TOKEN_LENGTH else None
        # After a response without a token the previous one stays valid, for the messages of the response as well.
        info = evolve(info, sync_token=token or info.sync_token)
        return read_messages(envelope.elements, mailbox.entries, info, self._read_html), token

    def _read_html(self, source: str) -> "SafeHtml | None":
        from exponea_async.features._shared.html.reader import read_html  # noqa: PLC0415 - few applications need it

        try:
            return read_html(source, self._rules)
        except ImportError as error:
            if not self._has_warned:
                self._has_warned = True
                LOG.warning("Messages of the app inbox are returned without their HTML: %s", error)
            return None


def _read_cost(response: bytes) -> int:
    """Return the size of a response in bytes, weighted by how long it takes to read."""
    return len(response) * (HTML_COST if f'"{HTML}"'.encode() in response else 1)
