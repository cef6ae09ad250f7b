"""
Shows in-app messages: what is done before the host gets a message, and what follows from its interactions.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping
from typing import TypeVar

from attrs import evolve

from exponea_async._internal.actions import ActionType
from exponea_async._internal.concurrency import BackgroundTasks
from exponea_async._internal.throttle import Throttle
from exponea_async.config import Configuration
from exponea_async.devices.context import SubjectContext
from exponea_async.devices.customers import CustomerSnapshot
from exponea_async.features._shared.envelopes import to_thread_if_large
from exponea_async.features._shared.html.reader import BLANK_PAGE, SafeHtml, read_html, resource_urls
from exponea_async.features._shared.html.resources import MissingResourceError, ResourceCache
from exponea_async.features._shared.html.rules import configured_rules, log_removed
from exponea_async.features.in_app.active import ActiveMessages
from exponea_async.features.in_app.events import (
    ActionStream,
    button_of,
    link_to_open,
    may_track_message,
    message_event,
    remember_display,
    remember_interaction,
    track_message,
)
from exponea_async.features.in_app.parsing import MessageDefinition, payload_urls
from exponea_async.messages import InAppMessage, InAppMessageAction, InAppMessageButton
from exponea_async.models import EventType

LOG = logging.getLogger("exponea_async")

T = TypeVar("T")

#: The wording of error events is that of the vendor's SDKs, because campaigns are monitored for it.
ANOTHER_CUSTOMER = "Another customer login while resource load"
NO_RESOURCES = "Resources has not been preloaded"
NO_HTML = "Invalid HTML or empty"
#: Seconds after which a message is logged that the host has not reported anything about, and that does not close by
#: itself: until it is reported, its device gets no other one.
UNREPORTED = 3_600.0


class CannotShowError(Exception):
    """A message can't be shown, for a reason that is tracked."""


class Presenter:
    """
    Shows messages.

    Args:
        configuration: The settings.
        active: The messages that are shown.
        actions: The stream of what happens to messages.
        tasks: Runs what closes messages by themselves.
    """

    def __init__(
        self, configuration: Configuration, active: ActiveMessages, actions: ActionStream, tasks: BackgroundTasks
    ) -> None:
        self._active = active
        self._actions = actions
        self._tasks = tasks
        self._resources = ResourceCache(configuration.resource_loader)
        self._rules = configured_rules(configuration, ensure_close=True)
        self._has_warned = False
        self._throttle = Throttle()

    def clear(self) -> None:
        """Empty the cache of resources."""
        self._resources.clear()

    # Before a message is shown

    async def show(
        self,
        context: SubjectContext,
        customer: CustomerSnapshot,
        definition: MessageDefinition,
        *,
        waits_for_delay: bool = True,
    ) -> InAppMessage | None:
        """
        Prepare a message, and remember and track that it is shown.

        Args:
            context: The subject.
            customer: The customer.
            definition: The message.
            waits_for_delay: Whether to wait for the message's delay first. Otherwise that is left to the host.

        Returns:
            The message for the host to show; None if there is nothing to show, or if it can't be shown.
        """
        if customer.device is None:
            # Nothing is remembered of it, so any number of callers may get it at once.
            return await self._prepare(context, customer, definition, waits_for_delay=waits_for_delay)
        key = (customer.device, definition.id)
        if not self._active.start_preparing(key):
            return None
        try:
            return await self._prepare(context, customer, definition, waits_for_delay=waits_for_delay)
        finally:
            self._active.stop_preparing(key)

    async def _prepare(
        self,
        context: SubjectContext,
        customer: CustomerSnapshot,
        definition: MessageDefinition,
        *,
        waits_for_delay: bool,
    ) -> InAppMessage | None:
        message = await to_thread_if_large(len(definition.source), lambda: definition.message(customer))
        try:
            if definition.is_control:
                await self._track_show(context, customer, message)
            elif definition.has_content:
                return await self._show(context, customer, message, waits_for_delay=waits_for_delay)
            else:
                LOG.info("In-app message %r has nothing to show.", message.name)
        except CannotShowError as error:
            LOG.warning("In-app message %r can't be shown: %s.", message.name, error)
            await self._track_failure(context, message, str(error))
        return None

    async def _show(
        self, context: SubjectContext, customer: CustomerSnapshot, message: InAppMessage, *, waits_for_delay: bool
    ) -> InAppMessage | None:
        """Load what a message needs, possibly wait for its delay, and show it; raises `CannotShowError`."""
        resources = await self._load_resources(message)
        if not await _is_running(context, customer):
            return None
        if resources is None:
            raise CannotShowError(NO_RESOURCES)
        if message.load_delay and waits_for_delay:
            await asyncio.sleep(message.load_delay)
            if not await _is_running(context, customer):
                return None
            message = evolve(message, load_delay=0.0)
        if self._active.is_busy(message.device):
            return None
        if message.is_html:
            message = await self._with_safe_html(message, resources)
        if not self._active.add(message):
            return None
        return await self._track_active(context, customer, message)

    async def _track_active(
        self, context: SubjectContext, customer: CustomerSnapshot, message: InAppMessage
    ) -> InAppMessage | None:
        is_shown = False
        try:
            is_shown = await self._track_show(context, customer, message)
        finally:
            if not is_shown:
                self._active.remove(message)
        if not is_shown:
            return None
        seconds = UNREPORTED if message.close_timeout is None else message.close_timeout
        self._active.schedule(message, message.load_delay + seconds, lambda: self._time_out(context, message))
        return message

    async def _track_show(self, context: SubjectContext, customer: CustomerSnapshot, message: InAppMessage) -> bool:
        event = message_event(context, "show", message)
        receipt = await context.record_for(
            None,
            EventType.BANNER,
            event,
            has_consent=may_track_message(message),
            counts_as_activity=False,
            remember=remember_display(message.id),
            only_for=customer,
        )
        if receipt is None:
            raise CannotShowError(ANOTHER_CUSTOMER)
        if not context.recorder.check_running():
            return False
        self._actions.publish(InAppMessageAction("show", message))
        return True

    async def _load_resources(self, message: InAppMessage) -> dict[str, bytes] | None:
        """Return the images and fonts that a message needs; None if one is missing."""
        if not self._resources.is_used:
            return {}
        urls = payload_urls(message)
        if message.is_html and message.payload_html:
            source = message.payload_html
            needed = await self._read_in_thread(lambda: resource_urls(source))
            urls += [*needed.images, *needed.fonts]
        try:
            return dict(await self._resources.load(urls))
        except MissingResourceError as error:
            LOG.debug("In-app message %r lacks a resource: %s", message.name, error)
            return None

    async def _with_safe_html(self, message: InAppMessage, loaded: Mapping[str, bytes]) -> InAppMessage:
        """Return a message with its HTML made safe, and with what can be clicked in it as its buttons."""
        source, resources = message.payload_html or "", loaded if self._resources.is_used else None
        safe = await self._read_in_thread(lambda: read_html(source, self._rules, resources=resources))
        if safe is None:
            raise CannotShowError(NO_HTML)
        log_removed(f"in-app message {message.name!r}", safe.removed)
        return evolve(message, html=safe.html, buttons=_buttons(safe))

    async def _read_in_thread(self, read: Callable[[], T]) -> T:
        """Call a function that reads HTML in a thread, because it takes some milliseconds at least."""
        try:
            return await asyncio.to_thread(read)
        except ImportError as error:
            if not self._has_warned:
                self._has_warned = True
                LOG.warning("In-app messages with HTML can't be shown: %s.", error)
            raise CannotShowError(str(error)) from error

    # While a message is shown

    async def open(self, context: SubjectContext, message: InAppMessage, url: str) -> str | None:
        """Handle that an address was opened, and return the link that the host is to open now."""
        if url == BLANK_PAGE:
            return None
        button = button_of(message, url)
        if button is not None:
            return await self.click(context, message, button)
        # As in the Android SDK: the message has left its page, which is not the click of a button.
        await self.close(context, message, None, interaction=False)
        return None

    async def click(self, context: SubjectContext, message: InAppMessage, button: InAppMessageButton) -> str | None:
        """Handle a click on a button, and return the link that the host is to open now."""
        if button.kind == ActionType.CLOSE:
            await self.close(context, message, button, interaction=True)
            return None
        self._active.remove(message)
        # The options are read before the event is recorded: a subscription may end meanwhile.
        remember, is_overridden = remember_interaction(message), self._actions.overrides_default_behavior
        if self._actions.tracks_actions:
            event = message_event(context, "click", message, interaction=True, button=button)
            has_consent = may_track_message(message, url=button.url)
            await track_message(
                context, message, event, has_consent=has_consent, counts_as_activity=True, remember=remember
            )
        elif message.device is not None:
            await context.remember(remember)
        if not context.recorder.check_running():
            return None
        self._actions.publish(InAppMessageAction("click", message, button))
        return None if is_overridden else link_to_open(button)

    async def close(
        self, context: SubjectContext, message: InAppMessage, button: InAppMessageButton | None, *, interaction: bool
    ) -> None:
        """Handle that a message was closed, by the customer or by itself."""
        self._active.remove(message)
        if self._actions.tracks_actions:
            event = message_event(context, "close", message, interaction=interaction, button=button)
            has_consent = may_track_message(message)
            await track_message(context, message, event, has_consent=has_consent, counts_as_activity=interaction)
        if context.recorder.check_running():
            self._actions.publish(InAppMessageAction("close", message, button, interaction))

    async def fail(self, context: SubjectContext, message: InAppMessage, error_message: str) -> None:
        """Handle that a message could not be shown."""
        self._active.remove(message)
        await self._track_failure(context, message, error_message)

    async def _track_failure(self, context: SubjectContext, message: InAppMessage, error_message: str) -> None:
        event = message_event(context, "error", message, error=error_message)
        has_consent = may_track_message(message)
        await track_message(context, message, event, has_consent=has_consent, counts_as_activity=False)
        if context.recorder.check_running():
            self._actions.publish(InAppMessageAction("error", message, error_message=error_message))

    def _time_out(self, context: SubjectContext, message: InAppMessage) -> None:
        """Close a message that the host has not reported anything about, or log that it is still there."""
        seconds = message.close_timeout
        if seconds is not None:
            LOG.info("In-app message %r was not reported within %g s, and closes by itself.", message.name, seconds)
            self._close_by_itself(context, message)
        elif self._active.is_shown(message) and (more := self._throttle.admit()) is not None:
            trouble = "In-app message %r was not reported within %g s; its device %r gets no other one until then.%s"
            LOG.warning(trouble, message.name, UNREPORTED, message.device, more)

    def _close_by_itself(self, context: SubjectContext, message: InAppMessage) -> None:
        # Removed at once, so that it is closed only once if the customer closes it now.
        if self._active.remove(message):
            self._tasks.start(self.close(context, message, None, interaction=False), name="closing an in-app message")


async def _is_running(context: SubjectContext, customer: CustomerSnapshot) -> bool:
    """Return False if the integration was stopped; raises `CannotShowError` if the customer has changed."""
    if await context.is_current(customer):
        return True
    if context.recorder.check_running():
        raise CannotShowError(ANOTHER_CUSTOMER)
    return False


def _buttons(safe: SafeHtml) -> tuple[InAppMessageButton, ...]:
    return tuple(InAppMessageButton(each.text, each.url, ActionType(each.kind)) for each in safe.actions)
