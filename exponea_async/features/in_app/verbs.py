"""
In-app messages: which one to show for an event, and what became of it.

The host shows them: it gets a message with all that is to be seen, and says what its user did with it.
"""

from exponea_async._internal.streams import Subscription
from exponea_async.devices.context import SubjectContext
from exponea_async.devices.device_context import DeviceContext
from exponea_async.errors import InvalidEventError
from exponea_async.features._shared.verbs import SubjectVerbs
from exponea_async.features.in_app.events import check_button, check_message, event_of, is_allowed, report
from exponea_async.features.in_app.service import InAppMessages
from exponea_async.messages import InAppMessage, InAppMessageAction, InAppMessageButton
from exponea_async.models import Event, Receipt

__all__ = ["InAppMessages", "InAppVerbs"]


class InAppVerbs(SubjectVerbs):
    """The verbs of in-app messages."""

    __slots__ = ()

    # Messages come

    def in_app_messages(self) -> Subscription[InAppMessage]:
        """
        Listen to in-app messages that are to be shown now, for what is tracked: of the device; on a client of all its
        devices.

        Only while somebody listens, messages are loaded and chosen for what is tracked. They are loaded with the
        first event and when they are 30 minutes old, once an ``identify_customer()`` was uploaded, and at an
        ``anonymize()``. Each message is shown as soon as it is handed out: the host says with `click_in_app_message`,
        `close_in_app_message` or `fail_in_app_message` what became of it, and until then there is no other one for
        its device.

        Returns:
            An async iterator, which ends with its ``aclose()`` or that of the client.

        Raises:
            InvalidEventError: On a customer tracker, whose events are not listened to; use `in_app_message_for`.
        """
        # A device's own, or that of a client, which has no key itself, whatever is bound to it.
        key = getattr(self, "key", None)
        if key is None and getattr(self, "ids", None) is not None:
            trouble = "nobody listens to what is tracked by a customer tracker"
            raise InvalidEventError("subject", trouble, "Await in_app_message_for(event), or use a device.")
        return self._devices.features[InAppMessages].listen(key)

    async def in_app_message_for(self, event: Event) -> InAppMessage | None:
        """
        Choose the in-app message to show for an event now, and track that it is shown. The event is not tracked.

        Messages are loaded where they are not known or too old. It takes as long as the message asks to wait before
        it is shown. On a device it counts how often a message was shown, and there is one at a time. A customer
        tracker remembers nothing: each message is as if it had never been shown.

        Args:
            event: The event, as it would be tracked. Default properties count.

        Returns:
            The message to show; None where there is none, or another one is shown, or the integration is stopped.

        Raises:
            InvalidEventError: The event could not be tracked.
            RefusedError: The platform refused to tell the messages.
            UnavailableError: It gave no usable answer.
            StorageError: The storage refused; nothing is shown.
            LifecycleError: The client was not started, or is closed.
        """
        context = self._context
        return await self._devices.features[InAppMessages].choose(context, event)

    # What became of them

    async def click_in_app_message(self, message: InAppMessage, button: InAppMessageButton) -> str | None:
        """
        Take a press on a button or link of an in-app message, which is shown no more.

        It is tracked with the message's consent, or where the link forces it, unless ``track_actions`` is False: of
        the customer that it was shown to, whoever is current now. A button that closes the message closes it.

        Args:
            message: The message.
            button: One of its buttons; or another one, with what it says and where it leads to.

        Returns:
            The link that the host is to open now; None where there is none, it could run something, as a
            ``javascript:`` one, or ``override_default_behavior``.

        Raises:
            InvalidEventError: The message or the button is none.
            StorageError: The storage refused; nothing was kept.
            LifecycleError: The client was not started, or is closed.
        """
        check_message(message)
        check_button(button, needed=True)
        context = self._context_of(message)
        return await self._devices.features[InAppMessages].presenter.click(context, message, button)

    async def close_in_app_message(
        self,
        message: InAppMessage,
        button: InAppMessageButton | None = None,
        interaction: bool = True,  # noqa: FBT001, FBT002 - the vendor's signature
    ) -> None:
        """
        Take the end of an in-app message, which is shown no more.

        It is tracked with the message's consent, unless ``track_actions`` is False, of the customer that it was shown
        to. A message with a `close_timeout` closes by itself, without interaction.

        Args:
            message: The message.
            button: What was pressed for it, or None.
            interaction: Whether somebody closed it.

        Raises:
            InvalidEventError: The message or the button is none.
            StorageError: The storage refused; nothing was kept.
            LifecycleError: The client was not started, or is closed.
        """
        check_message(message)
        check_button(button, needed=False)
        context = self._context_of(message)
        await self._devices.features[InAppMessages].presenter.close(context, message, button, interaction=interaction)

    async def fail_in_app_message(self, message: InAppMessage, error_message: str) -> None:
        """
        Take that an in-app message could not be shown. It is tracked with the message's consent.

        Args:
            message: The message.
            error_message: Why.

        Raises:
            InvalidEventError: The message is none.
            StorageError: The storage refused; nothing was kept.
            LifecycleError: The client was not started, or is closed.
        """
        check_message(message)
        context = self._context_of(message)
        await self._devices.features[InAppMessages].presenter.fail(context, message, str(error_message))

    def in_app_message_action_stream(
        self,
        override_default_behavior: bool = False,  # noqa: FBT001, FBT002 - the vendor's signature
        track_actions: bool = True,  # noqa: FBT001, FBT002 - the vendor's signature
    ) -> Subscription[InAppMessageAction]:
        """
        Listen to what happens to in-app messages, of all devices of the client.

        The first listener also gets the last action from before anybody listened. What the last listener asked for
        holds until its ``aclose()``. A message that is dismissed, by ``stop_integration()`` or by an ``anonymize()``
        of its device, is told as closed by nobody, and not tracked.

        Args:
            override_default_behavior: Whether `click_in_app_message` gives no link to open.
            track_actions: Whether presses and ends are tracked; that messages are shown or fail is tracked anyway.

        Returns:
            An async iterator, which ends with its ``aclose()`` or that of the client.
        """
        actions = self._devices.features[InAppMessages].actions
        return actions.listen(override_default_behavior=override_default_behavior, track_actions=track_actions)

    # Tracking by hand

    async def track_in_app_message_click(
        self,
        message: InAppMessage,
        button: InAppMessageButton,
        consider_consent: bool = True,  # noqa: FBT001, FBT002 - the vendor's signature
    ) -> Receipt:
        """
        Track a press on a button or link of an in-app message, and nothing else: how often the message may be shown
        does not change, and no stream tells of it. The message is shown no more.

        Args:
            message: The message.
            button: What was pressed.
            consider_consent: Whether it counts what the message says of the consent; a link may force the tracking.

        Returns:
            The receipt; a dropped one where there is no consent.

        Raises:
            InvalidEventError: The message or the button is none.
            StorageError: The storage refused; nothing was kept.
            LifecycleError: The client was not started, or is closed.
        """
        check_message(message)
        check_button(button, needed=True)
        event = event_of(self._context.configuration, "click", message, interaction=True, button=button)
        allowed = is_allowed(message, consider_consent=consider_consent, url=button.url)
        return await self._track(message, event, allowed=allowed)

    async def track_in_app_message_close(
        self,
        message: InAppMessage,
        button: InAppMessageButton | None = None,
        interaction: bool = True,  # noqa: FBT001, FBT002 - the vendor's signature
        consider_consent: bool = True,  # noqa: FBT001, FBT002 - the vendor's signature
    ) -> Receipt:
        """
        Track the end of an in-app message, and nothing else; as `track_in_app_message_click`.

        Args:
            message: The message.
            button: What was pressed for it, or None.
            interaction: Whether somebody closed it.
            consider_consent: Whether it counts what the message says of the consent.

        Returns:
            The receipt; a dropped one where there is no consent.

        Raises:
            InvalidEventError: The message or the button is none.
            StorageError: The storage refused; nothing was kept.
            LifecycleError: The client was not started, or is closed.
        """
        check_message(message)
        check_button(button, needed=False)
        event = event_of(self._context.configuration, "close", message, interaction=interaction, button=button)
        return await self._track(message, event, allowed=is_allowed(message, consider_consent=consider_consent))

    async def _track(self, message: InAppMessage, event: Event, *, allowed: bool) -> Receipt:
        context = self._context_of(message)
        self._devices.features[InAppMessages].stage.leave(message)
        return await report(context, message, event, allowed=allowed, counts_as_activity=True)

    def _context_of(self, message: InAppMessage) -> SubjectContext:
        """Tell whom something about a message is about: the device that it is shown on, whoever is current."""
        return self._context if message.device is None else DeviceContext(message.device, self._devices)
