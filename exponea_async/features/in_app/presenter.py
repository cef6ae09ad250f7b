"""
Shows in-app messages: what comes before a message is handed to the host, and what follows from what it says of it.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping
from typing import TypeVar

from attrs import evolve

from exponea_async._internal.concurrency import BackgroundTasks
from exponea_async.config import Configuration
from exponea_async.devices.context import SubjectContext
from exponea_async.devices.customers import CustomerSnapshot
from exponea_async.features._shared.envelopes import to_thread_if_large
from exponea_async.features._shared.html.reader import CLOSE, SafeHtml, read_html, resource_urls
from exponea_async.features._shared.html.resources import MissingResourceError, ResourceCache
from exponea_async.features.in_app.active import ActiveMessages
from exponea_async.features.in_app.events import (
    ActionStream,
    event_of,
    is_allowed,
    link_to_open,
    pressed,
    report,
    shown,
)
from exponea_async.features.in_app.parsing import Definition, payload_urls
from exponea_async.messages import InAppMessage, InAppMessageAction, InAppMessageButton
from exponea_async.models import EventType

LOG = logging.getLogger("exponea_async")

T = TypeVar("T")

#: What errors say, as in the vendor's SDKs: campaigns are watched for them.
ANOTHER_CUSTOMER = "Another customer login while resource load"
NO_RESOURCES = "Resources has not been preloaded"
NO_HTML = "Invalid HTML or empty"
#: How a button says that it closes the message.
CANCEL = "cancel"


class UnfitError(Exception):
    """A message can't be shown, for a reason that is told."""


class Presenter:
    """
    Shows messages.

    Args:
        configuration: The settings.
        stage: What is shown where.
        actions: Told of what happens.
        tasks: Where messages close by themselves.
    """

    def __init__(
        self, configuration: Configuration, stage: ActiveMessages, actions: ActionStream, tasks: BackgroundTasks
    ) -> None:
        self._configuration = configuration
        self._stage = stage
        self._actions = actions
        self._tasks = tasks
        self._resources = ResourceCache(configuration.resource_loader)
        self._has_warned = False

    def clear(self) -> None:
        """Forget what was loaded."""
        self._resources.clear()

    # Before it is shown

    async def show(
        self, context: SubjectContext, customer: CustomerSnapshot, definition: Definition
    ) -> InAppMessage | None:
        """
        Make a message ready, wait as long as it is to wait, remember and track that it is shown.

        Returns:
            The message, for the host to show; None where there is nothing to show, or it can't be shown.
        """
        if customer.device is None:
            # Nothing is remembered of it, so many may get it at once.
            return await self._show(context, customer, definition)
        which = (customer.device, definition.id)
        if not self._stage.prepare(which):
            return None
        try:
            return await self._show(context, customer, definition)
        finally:
            self._stage.prepared(which)

    async def _show(
        self, context: SubjectContext, customer: CustomerSnapshot, definition: Definition
    ) -> InAppMessage | None:
        message = await to_thread_if_large(len(definition.source), lambda: definition.message(customer))
        try:
            if definition.is_control:
                await self._track_show(context, customer, message)
            elif definition.has_content:
                return await self._presented(context, customer, message)
            else:
                LOG.info("In-app message %r has nothing to show.", message.name)
        except UnfitError as error:
            LOG.warning("In-app message %r can't be shown: %s.", message.name, error)
            await self._track_failure(context, message, str(error))
        return None

    async def _presented(
        self, context: SubjectContext, customer: CustomerSnapshot, message: InAppMessage
    ) -> InAppMessage | None:
        """Make a message ready and show it; raises `UnfitError`."""
        loaded = await self._loaded(message)
        if not await _is_still(context, customer):
            return None
        if loaded is None:
            raise UnfitError(NO_RESOURCES)
        if message.load_delay:
            await asyncio.sleep(message.load_delay)
            if not await _is_still(context, customer):
                return None
        if self._stage.is_busy(message.device):
            return None
        if message.is_html:
            message = await self._with_page(message, loaded)
        if not self._stage.enter(message):
            return None
        return await self._entered(context, customer, message)

    async def _entered(
        self, context: SubjectContext, customer: CustomerSnapshot, message: InAppMessage
    ) -> InAppMessage | None:
        is_shown = False
        try:
            is_shown = await self._track_show(context, customer, message)
        finally:
            if not is_shown:
                self._stage.leave(message)
        if not is_shown:
            return None
        self._stage.close_later(message, lambda: self._time_out(context, message))
        return message

    async def _track_show(self, context: SubjectContext, customer: CustomerSnapshot, message: InAppMessage) -> bool:
        event = event_of(self._configuration, "show", message)
        receipt = await context.record_for(
            None,
            EventType.BANNER,
            event,
            has_consent=is_allowed(message),
            counts_as_activity=False,
            remember=shown(message.id),
            only_for=customer,
        )
        if receipt is None:
            raise UnfitError(ANOTHER_CUSTOMER)
        if not context.recorder.check_running():
            return False
        self._actions.publish(InAppMessageAction("show", message))
        return True

    async def _loaded(self, message: InAppMessage) -> dict[str, bytes] | None:
        """Load what a message needs; None where something is missing."""
        if not self._resources.is_used:
            return {}
        urls = payload_urls(message)
        if message.is_html and message.payload_html:
            source = message.payload_html
            needed = await self._with_extra(lambda: resource_urls(source))
            urls += [*needed.images, *needed.fonts]
        try:
            return dict(await self._resources.load(urls))
        except MissingResourceError as error:
            LOG.debug("In-app message %r lacks a resource: %s", message.name, error)
            return None

    async def _with_page(self, message: InAppMessage, loaded: Mapping[str, bytes]) -> InAppMessage:
        """Make a message's HTML safe to show, and tell what can be pressed in it."""
        source, resources = message.payload_html or "", loaded if self._resources.is_used else None
        page = await self._with_extra(lambda: read_html(source, ensure_close=True, resources=resources))
        if page is None:
            raise UnfitError(NO_HTML)
        return evolve(message, html=page.html, buttons=_buttons(page))

    async def _with_extra(self, read: Callable[[], T]) -> T:
        """Do something with HTML on a thread, for it takes some milliseconds at least."""
        try:
            return await asyncio.to_thread(read)
        except ImportError as error:
            if not self._has_warned:
                self._has_warned = True
                LOG.warning("In-app messages of HTML can't be shown: %s.", error)
            raise UnfitError(str(error)) from error

    # While it is shown

    async def click(self, context: SubjectContext, message: InAppMessage, button: InAppMessageButton) -> str | None:
        """Take a press on a button, and tell the link that the host is to open now."""
        if button.kind == CANCEL:
            await self.close(context, message, button, interaction=True)
            return None
        self._stage.leave(message)
        update, is_overridden = pressed(message), self._actions.is_overridden
        if self._actions.is_tracked:
            event = event_of(self._configuration, "click", message, interaction=True, button=button)
            allowed = is_allowed(message, url=button.url)
            await report(context, message, event, allowed=allowed, counts_as_activity=True, update=update)
        elif message.device is not None:
            await context.remember(update)
        if not context.recorder.check_running():
            return None
        self._actions.publish(InAppMessageAction("click", message, button))
        return None if is_overridden else link_to_open(button)

    async def close(
        self, context: SubjectContext, message: InAppMessage, button: InAppMessageButton | None, *, interaction: bool
    ) -> None:
        """Take the end of a message, by somebody or by itself."""
        self._stage.leave(message)
        if self._actions.is_tracked:
            event = event_of(self._configuration, "close", message, interaction=interaction, button=button)
            await report(context, message, event, allowed=is_allowed(message), counts_as_activity=interaction)
        if context.recorder.check_running():
            self._actions.publish(InAppMessageAction("close", message, button, interaction))

    async def fail(self, context: SubjectContext, message: InAppMessage, error_message: str) -> None:
        """Take that a message could not be shown."""
        self._stage.leave(message)
        await self._track_failure(context, message, error_message)

    async def _track_failure(self, context: SubjectContext, message: InAppMessage, text: str) -> None:
        event = event_of(self._configuration, "error", message, error=text)
        await report(context, message, event, allowed=is_allowed(message), counts_as_activity=False)
        if context.recorder.check_running():
            self._actions.publish(InAppMessageAction("error", message, error_message=text))

    def _time_out(self, context: SubjectContext, message: InAppMessage) -> None:
        # Left at once, so that nobody is told twice where somebody closes it now.
        if self._stage.leave(message):
            self._tasks.start(self.close(context, message, None, interaction=False), name="closing an in-app message")


async def _is_still(context: SubjectContext, customer: CustomerSnapshot) -> bool:
    """Tell whether the integration runs; raises `UnfitError` where somebody else is there now."""
    now = await context.current_customer(counts_as_activity=False)
    if now is not None and now.fingerprint != customer.fingerprint:
        raise UnfitError(ANOTHER_CUSTOMER)
    return now is not None


def _buttons(page: SafeHtml) -> tuple[InAppMessageButton, ...]:
    return tuple(
        InAppMessageButton(each.text, each.url, CANCEL if each.kind == CLOSE else each.kind) for each in page.actions
    )
