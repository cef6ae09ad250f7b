"""
In-app messages: the message to show for an event, and what the customer did with it.

The host shows messages: it gets a message with everything that is to be seen, and reports what its user did with it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from exponea_async._internal.lazy import LazyModule, imports
from exponea_async._internal.streams import Subscription
from exponea_async.devices.context import SubjectContext
from exponea_async.devices.device_context import DeviceContext
from exponea_async.features._shared.verbs import SubjectVerbs, drops_invalid
from exponea_async.models import Event, Receipt

if TYPE_CHECKING:
    from exponea_async import messages
    from exponea_async.features.in_app import events, service
else:
    messages = LazyModule("exponea_async.messages")
    events = LazyModule("exponea_async.features.in_app.events")
    service = LazyModule("exponea_async.features.in_app.service")


class InAppStreamVerbs(SubjectVerbs):
    """The in-app messages of a device, as a stream."""

    __slots__ = ()

    def in_app_messages(self) -> Subscription[messages.InAppMessage]:
        """
        Subscribe to the in-app messages for the events that are tracked: of the device; on a client of all its devices.

        Messages are loaded and chosen only as long as there is a subscription. They are loaded with the first event
        and when they are 30 minutes old, after an ``identify_customer()`` was uploaded, and by an ``anonymize()``.
        Each message counts as shown from the time it is delivered: the host reports with `click_in_app_message`,
        `close_in_app_message` or `fail_in_app_message` what became of it, and until then its device gets no other one.

        Returns:
            An async iterator, which ends with its ``aclose()`` or that of the client.
        """
        # A client has no key; it subscribes to all devices, whatever subject is bound to it.
        return self._devices.features[service.InAppMessages].subscribe(getattr(self, "key", None))


class InAppVerbs(SubjectVerbs):
    """The in-app messages of a subject."""

    __slots__ = ()

    @imports(service)
    async def in_app_message_for(self, event: Event) -> messages.InAppMessage | None:
        """
        Choose the in-app message to show for an event now, and track that it is shown. The event is not tracked.

        Messages are loaded if they are not known or too old. The call waits for them for at most five seconds
        (`RequestLimits.in_app_messages_wait`); after that, and after a failure, nothing is requested for a while, and
        calls raise the error at once. The message counts as shown from now on; show it after its `load_delay`.

        A device counts how often a message was shown, and shows one at a time. A customer tracker remembers nothing: to
        it, each message was never shown before.

        Args:
            event: The event, as it would be tracked. Default properties count.

        Returns:
            The message to show; None if there is none, another one is shown, or the integration is stopped.

        Raises:
            InvalidEventError: The event could not be tracked.
            RequestRefusedError: The platform refused the request for messages.
            UnavailableError: There was no usable response in time.
            StorageError: The storage refused; nothing is shown.
            LifecycleError: The client was not started, or is closed.
        """
        return await self._devices.features[service.InAppMessages].message_for(self._context, event)

    # Interactions

    @imports(service)
    async def click_in_app_message(
        self, message: messages.InAppMessage | str, button: messages.InAppMessageButton | str
    ) -> str | None:
        """
        Report a click on a button or link of an in-app message, which is not shown any more.

        It is tracked with the message's consent, or if the link forces it, unless ``track_actions`` is False, for the
        customer to whom the message was shown, even if the device's customer has changed. A button that closes the
        message closes it. An address that no button has closes it without interaction, as in the Android SDK, except
        for ``about:blank``, which is not a click.

        Args:
            message: The message, or its `in_app_message_token`; then the event is about the current subject.
            button: One of its buttons; or another one, with its label and link; or the address that was opened.

        Returns:
            The link that the host is to open now; None if there is none, if it could run something, such as a
            ``javascript:`` link, or with ``override_default_behavior``.

        Raises:
            InvalidEventError: The message or the button, or a field of it, is of another type.
            StorageError: The storage refused; nothing was recorded.
            LifecycleError: The client was not started, or is closed.
        """
        message = events.message_of(self._context, message)
        events.check_message(message)
        context, presenter = self._context_of(message), self._devices.features[service.InAppMessages].presenter
        if isinstance(button, str):
            return await presenter.open(context, message, button)
        events.check_button(button, is_required=True)
        return await presenter.click(context, message, button)

    @imports(service)
    async def close_in_app_message(
        self,
        message: messages.InAppMessage | str,
        button: messages.InAppMessageButton | None = None,
        interaction: bool = True,
    ) -> None:
        """
        Report that an in-app message was closed.

        It is tracked with the message's consent, unless ``track_actions`` is False, for the customer to whom the
        message was shown. A message with a `close_timeout` closes by itself, without interaction.

        Args:
            message: The message, or its `in_app_message_token`; then the event is about the current subject.
            button: The button that closed it, or None.
            interaction: Whether the customer closed it.

        Raises:
            InvalidEventError: The message or the button, or a field of it, is of another type.
            StorageError: The storage refused; nothing was recorded.
            LifecycleError: The client was not started, or is closed.
        """
        message = events.message_of(self._context, message)
        events.check_message(message)
        events.check_button(button, is_required=False)
        context = self._context_of(message)
        await self._devices.features[service.InAppMessages].presenter.close(
            context, message, button, interaction=interaction
        )

    @imports(service)
    async def fail_in_app_message(self, message: messages.InAppMessage | str, error_message: str) -> None:
        """
        Report that an in-app message could not be shown. It is tracked with the message's consent.

        Args:
            message: The message, or its `in_app_message_token`; then the event is about the current subject.
            error_message: The reason.

        Raises:
            InvalidEventError: The message, or a field of it, is of another type.
            StorageError: The storage refused; nothing was recorded.
            LifecycleError: The client was not started, or is closed.
        """
        message = events.message_of(self._context, message)
        events.check_message(message)
        context = self._context_of(message)
        await self._devices.features[service.InAppMessages].presenter.fail(context, message, str(error_message))

    def in_app_message_action_stream(
        self,
        override_default_behavior: bool = False,
        track_actions: bool = True,
    ) -> Subscription[messages.InAppMessageAction]:
        """
        Subscribe to what happens to in-app messages, of all devices of the client.

        The first subscription also gets the last action before it. The options of the latest subscription apply until
        its ``aclose()``. A message that is dismissed, by ``stop_integration()`` or by an ``anonymize()`` of its device,
        is reported as closed without interaction, and is not tracked.

        Args:
            override_default_behavior: Whether `click_in_app_message` returns no link to open.
            track_actions: Whether clicks and closes are tracked; displays and failures are tracked in any case.

        Returns:
            An async iterator, which ends with its ``aclose()`` or that of the client.
        """
        actions = self._devices.features[service.InAppMessages].actions
        return actions.subscribe(override_default_behavior=override_default_behavior, track_actions=track_actions)

    def in_app_message_token(self, message: messages.InAppMessage) -> str:
        """
        Return a token that stands for an in-app message, to be put into a page.

        Any process with the same ``message_token_secret`` accepts it instead of the message. It is signed, URL-safe,
        and has no ids of a customer: an event is about the current subject.

        Args:
            message: The message.

        Raises:
            ConfigurationError: There is no ``message_token_secret``.
            InvalidEventError: The message is not an `InAppMessage`, or has more links than fit into a token.
        """
        return events.message_token(self._context.configuration, message)

    # Manual tracking

    @drops_invalid
    @imports(service)
    async def track_in_app_message_click(
        self,
        message: messages.InAppMessage | str,
        button: messages.InAppMessageButton,
        consider_consent: bool = True,
    ) -> Receipt:
        """
        Track a click on a button or link of an in-app message, and nothing else.

        It does not count for how often the message may be shown, and no stream gets it. The message is not shown any
        more.

        Args:
            message: The message, or its `in_app_message_token`; then the event is about the current subject.
            button: The button.
            consider_consent: Whether the message's consent decides if the click is tracked; a link may force it.

        Returns:
            The receipt; a dropped one without consent.

        Raises:
            InvalidEventError: The message or the button, or a field of it, is of another type.
            StorageError: The storage refused; nothing was recorded.
            LifecycleError: The client was not started, or is closed.
        """
        message = events.message_of(self._context, message)
        events.check_message(message)
        events.check_button(button, is_required=True)
        event = events.message_event(self._context_of(message), "click", message, interaction=True, button=button)
        has_consent = events.may_track_message(message, consider_consent=consider_consent, url=button.url)
        return await self._track(message, event, has_consent=has_consent)

    @drops_invalid
    @imports(service)
    async def track_in_app_message_close(
        self,
        message: messages.InAppMessage | str,
        button: messages.InAppMessageButton | None = None,
        interaction: bool = True,
        consider_consent: bool = True,
    ) -> Receipt:
        """
        Track that an in-app message was closed, and nothing else, as `track_in_app_message_click` does.

        Args:
            message: The message, or its `in_app_message_token`; then the event is about the current subject.
            button: The button that closed it, or None.
            interaction: Whether the customer closed it.
            consider_consent: Whether the message's consent decides if it is tracked.

        Returns:
            The receipt; a dropped one without consent.

        Raises:
            InvalidEventError: The message or the button, or a field of it, is of another type.
            StorageError: The storage refused; nothing was recorded.
            LifecycleError: The client was not started, or is closed.
        """
        message = events.message_of(self._context, message)
        events.check_message(message)
        events.check_button(button, is_required=False)
        event = events.message_event(
            self._context_of(message), "close", message, interaction=interaction, button=button
        )
        has_consent = events.may_track_message(message, consider_consent=consider_consent)
        return await self._track(message, event, has_consent=has_consent)

    async def _track(self, message: messages.InAppMessage, event: Event, *, has_consent: bool) -> Receipt:
        context = self._context_of(message)
        self._devices.features[service.InAppMessages].active.remove(message)
        return await events.track_message(context, message, event, has_consent=has_consent, counts_as_activity=True)

    def _context_of(self, message: messages.InAppMessage) -> SubjectContext:
        """Return the device that a message is shown on, whichever subject is current; else the current subject."""
        return self._context if message.device is None else DeviceContext(message.device, self._devices)
