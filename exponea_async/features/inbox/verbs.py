"""
The app inbox: messages that stay available until they expire.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from attrs import evolve

from exponea_async._internal.lazy import LazyModule, imports
from exponea_async.errors import InvalidEventError, RequestRefusedError, UnavailableError
from exponea_async.features._shared.consent import may_track
from exponea_async.features._shared.verbs import SubjectVerbs, drops_invalid
from exponea_async.models import EventType, Receipt
from exponea_async.requests import ApiRequest

LOG = logging.getLogger("exponea_async")

if TYPE_CHECKING:
    from exponea_async import messages
    from exponea_async.features._shared import banners, envelopes
    from exponea_async.features.inbox import events, service
else:
    messages = LazyModule("exponea_async.messages")
    banners = LazyModule("exponea_async.features._shared.banners")
    envelopes = LazyModule("exponea_async.features._shared.envelopes")
    events = LazyModule("exponea_async.features.inbox.events")
    service = LazyModule("exponea_async.features.inbox.service")


class InboxVerbs(SubjectVerbs):
    """The app inbox of the customer."""

    __slots__ = ()

    @imports(service, events, banners)
    async def fetch_app_inbox(self) -> list[messages.AppInboxMessage]:
        """
        Fetch the customer's messages, newest first.

        A device remembers its messages and requests only what has changed since; concurrent calls share one request.
        If the customer changes in the meantime, the new customer's messages are fetched. A customer tracker remembers
        nothing, and requests all messages.

        At most the newest 1,000 messages, or 8 MB of them, are returned.

        Returns:
            The messages; empty where the integration is stopped.

        Raises:
            RequestRefusedError: The platform refused, or ``customer_token_provider`` returned no token.
            UnavailableError: There was no usable response; another fetch may succeed.
            StorageError: The storage refused.
            LifecycleError: The client was not started, or is closed.
        """
        context = self._context
        if await context.current_customer() is None:
            return []
        return await self._devices.features[service.Inbox].fetch(context)

    @imports(service, events, banners)
    async def fetch_app_inbox_item(self, message_id: str) -> messages.AppInboxMessage | None:
        """
        Return one of the customer's messages: one that the device remembers, or else one that is fetched.

        Args:
            message_id: The id of the message.

        Returns:
            The message; None where it does not exist.

        Raises:
            InvalidEventError: The id is not a string.
            ExponeaError: As `fetch_app_inbox`.
        """
        if not isinstance(message_id, str):
            trouble = f"expected a string, got {type(message_id).__name__}"
            raise InvalidEventError("message_id", trouble, "Pass the id of a message.")
        context = self._context
        inbox = self._devices.features[service.Inbox]
        while (customer := await context.current_customer()) is not None:
            found = await inbox.find(context, customer, message_id)
            if found is None:
                return next((each for each in await inbox.fetch(context) if each.id == message_id), None)
            # The customer may have changed while the message was loaded from the storage.
            if await context.is_current(customer):
                return found
        return None

    @imports(service, events, banners)
    async def mark_app_inbox_as_read(self, message: messages.AppInboxMessage) -> bool:
        """
        Mark a message as read in Engagement, for the customer it was fetched for. No event is tracked.

        Args:
            message: The message as it was fetched.

        Returns:
            Whether Engagement accepted it; False for a message that the caller made.

        Raises:
            InvalidEventError: The message is not an `AppInboxMessage`, or was modified.
            StorageError: The storage refused.
            LifecycleError: The client was not started, or is closed.
        """
        context, ids = self._context, events.owner_ids(message)
        customer = await context.current_customer()
        if customer is None:
            return False
        if not ids or not message.sync_token:
            LOG.warning("A message of the app inbox was not fetched, and can't be marked as read.")
            return False
        owner = evolve(customer, ids=ids)
        body = {"customer_ids": ids, "message_ids": [message.id], "sync_token": message.sync_token}
        try:
            response = await context.request(
                owner, ApiRequest("app_inbox", service.MARK_AS_READ, body, is_personal=True)
            )
            if response is None:
                return False
            envelopes.read_envelope(response)
        except (RequestRefusedError, UnavailableError) as error:
            LOG.warning("A message of the app inbox could not be marked as read: %s", error)
            return False
        await self._devices.features[service.Inbox].set_read(context, owner, message.id)
        return True

    @drops_invalid
    @imports(service, events, banners)
    async def track_app_inbox_opened(self, message: messages.AppInboxMessage, consider_consent: bool = True) -> Receipt:
        """
        Track that a message was opened, for the customer it was fetched for.

        Args:
            message: The message as it was fetched.
            consider_consent: Whether the message's own consent to tracking counts.

        Returns:
            The receipt; a dropped one without consent, or for a message that the caller made.

        Raises:
            InvalidEventError: The message is not an `AppInboxMessage`, or was modified.
            StorageError: The storage refused; nothing was recorded.
            LifecycleError: The client was not started, or is closed.
        """
        context, ids = self._context, events.owner_ids(message)
        event = events.opened(message, banners.platform_of(context, ids))
        has_consent = may_track(has_consent=message.has_tracking_consent, consider_consent=consider_consent)
        return await events.track(context, EventType.APP_INBOX_OPENED, event, ids, has_consent=has_consent)

    @drops_invalid
    @imports(service, events, banners)
    async def track_app_inbox_click(
        self,
        action: messages.AppInboxAction,
        message: messages.AppInboxMessage,
        consider_consent: bool = True,
    ) -> Receipt:
        """
        Track that an action of a message was clicked, for the customer it was fetched for.

        A click on a link that forces tracking is tracked without consent, too, and the event says so.

        Args:
            action: The action that was clicked.
            message: The message as it was fetched.
            consider_consent: Whether the message's own consent to tracking counts.

        Returns:
            The receipt; a dropped one without consent, or for a message that the caller made.

        Raises:
            InvalidEventError: The action is not an `AppInboxAction`, or the message not an `AppInboxMessage`, or one of
                them was modified.
            StorageError: The storage refused; nothing was recorded.
            LifecycleError: The client was not started, or is closed.
        """
        context, ids = self._context, events.owner_ids(message)
        event = events.clicked(action, message, banners.platform_of(context, ids))
        has_consent = may_track(
            has_consent=message.has_tracking_consent, consider_consent=consider_consent, url=action.url
        )
        return await events.track(context, EventType.APP_INBOX_CLICKED, event, ids, has_consent=has_consent)
