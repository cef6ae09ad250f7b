"""
Content blocks: the content of a placeholder, and the events about it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from exponea_async._internal.lazy import LazyModule, imports
from exponea_async.features._shared.verbs import SubjectVerbs, drops_invalid
from exponea_async.models import Receipt

if TYPE_CHECKING:
    from exponea_async import messages
    from exponea_async.features._shared.html import reader
    from exponea_async.features.content_blocks import carousel, events, service
else:
    messages = LazyModule("exponea_async.messages")
    reader = LazyModule("exponea_async.features._shared.html.reader")
    carousel = LazyModule("exponea_async.features.content_blocks.carousel")
    events = LazyModule("exponea_async.features.content_blocks.events")
    service = LazyModule("exponea_async.features.content_blocks.service")


class ContentBlockVerbs(SubjectVerbs):
    """The content blocks of the customer."""

    __slots__ = ()

    @imports(service)
    async def content_block(self, placeholder_id: str) -> messages.InAppContentBlock | None:
        """
        Choose the block that a placeholder shows now, and track that it is shown.

        It is the block with the highest priority that may be shown now and to this customer; of several with the same
        priority, one is chosen at random. If the ``html`` of the block is None, the customer belongs to the control
        group of an A/B test and is shown nothing, which is tracked nevertheless. A block whose HTML can't be shown is
        tracked as an error, and the next one is tried.

        The definitions of all blocks are loaded once for all customers and renewed in the background. Personalized
        content is loaded on request and kept for the time that Engagement sets. Both are kept in memory. Errors of the
        network are not raised, and a page is not delayed for long: each of the two is awaited for at most five seconds,
        and the load goes on for the next call.

        A device remembers which blocks were shown and clicked, as far as their frequency needs it. A customer tracker
        remembers nothing: each block is shown as if for the first time.

        Args:
            placeholder_id: The id of the placeholder.

        Returns:
            The block, which does not change any more; None where there is none to show, or the integration is stopped.

        Raises:
            InvalidEventError: The id is not a non-empty string.
            ImportError: The libraries that make HTML safe are missing; ``pip install 'exponea-async[html]'``.
            StorageError: The storage refused.
            LifecycleError: The client was not started, or is closed.
        """
        events.check_placeholder(placeholder_id)
        return await self._devices.features[service.ContentBlocks].selector.next(self._context, placeholder_id)

    @imports(service)
    async def click_content_block(
        self,
        placeholder_id: str,
        block: messages.InAppContentBlock | str,
        action: messages.InAppContentBlockAction | str,
    ) -> str | None:
        """
        Handle a click in a content block: track and remember it. The next `content_block` returns the next block.

        A click on a link that forces tracking is tracked without consent, too. A click that closes the block is handled
        as by `close_content_block`. A URL that no action of the block has is tracked as an error, except for
        ``about:blank``, which is not a click.

        Args:
            placeholder_id: The placeholder in which the block is shown.
            block: The block that `content_block` returned, or its `content_block_token`. The event is about the
                customer that it was loaded for; with a token, about the current one.
            action: The action that was clicked, one of ``block.actions``, or the URL that was opened.

        Returns:
            The URL to open; None where there is none, or the integration is stopped.

        Raises:
            InvalidEventError: The id is not a non-empty string, the block not an `InAppContentBlock`, or the action
                neither an action nor a URL.
            StorageError: The storage refused; nothing was recorded.
            LifecycleError: The client was not started, or is closed.
        """
        context, block = self._context, self._block(block)
        events.check_block(placeholder_id, block)
        clicked = events.clicked_action(block, action)
        if action == reader.BLANK_PAGE or not context.recorder.check_running():
            return None
        if clicked is None:
            await events.track(context, placeholder_id, block, "error", error=events.INVALID_ACTION)
            return None
        closes = events.is_close(clicked)
        await events.track_interaction(context, placeholder_id, block, None if closes else clicked)
        return None if closes else clicked.url

    @imports(service)
    async def close_content_block(self, placeholder_id: str, block: messages.InAppContentBlock | str) -> None:
        """
        Handle that a content block was closed: track and remember it.

        Other than for in-app messages, this is an interaction, as in the Android SDK. The next `content_block` returns
        the next block.

        Args:
            placeholder_id: The placeholder in which the block is shown.
            block: The block that `content_block` returned, or its `content_block_token`. The event is about the
                customer that it was loaded for; with a token, about the current one.

        Raises:
            InvalidEventError: The id is not a non-empty string, or the block not an `InAppContentBlock`.
            StorageError: The storage refused; nothing was recorded.
            LifecycleError: The client was not started, or is closed.
        """
        if self._context.recorder.check_running():
            await events.track_interaction(self._context, placeholder_id, self._block(block), None)

    def content_block_token(self, block: messages.InAppContentBlock) -> str:
        """
        Return a token that stands for a content block, to be put into a page.

        Any process with the same ``message_token_secret`` accepts it instead of the block. It is signed, URL-safe, and
        has no ids of a customer: an event is about the current subject.

        Args:
            block: The block that `content_block` returned.

        Raises:
            ConfigurationError: There is no ``message_token_secret``.
            InvalidEventError: The block is not an `InAppContentBlock`, or has more links than fit into a token.
        """
        return events.block_token(self._context.configuration, block)

    def _block(self, block: messages.InAppContentBlock | str) -> messages.InAppContentBlock:
        return events.block_of(self._context.configuration, block)

    def content_block_carousel(  # noqa: PLR0917 - the vendor's parameters, best passed by name
        self,
        placeholder_id: str,
        max_messages_count: int = 0,
        scroll_delay: float = 3.0,
        filter_content_blocks: carousel.Arrange | None = None,
        sort_content_blocks: carousel.Arrange | None = None,
        override_default_behavior: bool = False,
        track_actions: bool = True,
    ) -> carousel.Carousel:
        """
        Return a carousel: all blocks of a placeholder, one after another.

        It is about the subject that is current now, whichever is current later.

        Args:
            placeholder_id: The id of the placeholder.
            max_messages_count: Maximum number of blocks; 0 shows all.
            scroll_delay: How long each block is shown, in seconds; with 0 or less, the carousel does not rotate.
            filter_content_blocks: Gets a list of the blocks and returns those to show; if it raises, all are shown.
            sort_content_blocks: Gets a list of these, by priority and, where that is equal, by name, and returns them
                in another order; if it raises, they stay in the order in which they came.
            override_default_behavior: Whether the application itself knows what to open: a click returns no URL.
            track_actions: Whether clicks and closes are tracked; shown blocks and errors are always tracked.

        Raises:
            InvalidEventError: The id is not a non-empty string, or one of the numbers not a number.
        """
        feature = self._devices.features[service.ContentBlocks]
        created = carousel.Carousel(
            feature.selector,
            self._context,
            placeholder_id,
            max_items=max_messages_count,
            delay=scroll_delay,
            filter_blocks=filter_content_blocks,
            sort_blocks=sort_content_blocks,
            overrides_default_behavior=override_default_behavior,
            tracks_actions=track_actions,
        )
        feature.carousels.add(created)
        return created

    @drops_invalid
    @imports(service)
    async def track_in_app_content_block_shown(
        self,
        placeholder_id: str,
        content_block: messages.InAppContentBlock | str,
        consider_consent: bool = True,
    ) -> Receipt:
        """
        Track that a content block is shown, which `content_block` does itself; nothing is remembered.

        Args:
            placeholder_id: The placeholder in which the block is shown.
            content_block: The block, or its `content_block_token`, as for `click_content_block`.
            consider_consent: Whether the block's own consent to tracking counts.

        Returns:
            The receipt; a dropped one without consent.

        Raises:
            InvalidEventError: The id is not a non-empty string, or the block not an `InAppContentBlock`.
            StorageError: The storage refused; nothing was recorded.
            LifecycleError: The client was not started, or is closed.
        """
        return await events.track(
            self._context, placeholder_id, self._block(content_block), "show", consider_consent=consider_consent
        )

    @drops_invalid
    @imports(service)
    async def track_in_app_content_block_click(
        self,
        placeholder_id: str,
        content_block: messages.InAppContentBlock | str,
        action: messages.InAppContentBlockAction,
        consider_consent: bool = True,
    ) -> Receipt:
        """
        Track that an action of a content block was clicked, which `click_content_block` does itself.

        A click on a link that forces tracking is tracked without consent, too, and the event says so. Nothing is
        remembered. Otherwise as `track_in_app_content_block_shown`.
        """
        return await events.track(
            self._context,
            placeholder_id,
            self._block(content_block),
            "click",
            clicked=action,
            consider_consent=consider_consent,
        )

    @drops_invalid
    @imports(service)
    async def track_in_app_content_block_close(
        self,
        placeholder_id: str,
        content_block: messages.InAppContentBlock | str,
        consider_consent: bool = True,
    ) -> Receipt:
        """
        Track that a content block was closed, which `close_content_block` does itself.

        Nothing is remembered. Otherwise as `track_in_app_content_block_shown`.
        """
        return await events.track(
            self._context, placeholder_id, self._block(content_block), "close", consider_consent=consider_consent
        )

    @drops_invalid
    @imports(service)
    async def track_in_app_content_block_error(
        self,
        placeholder_id: str,
        content_block: messages.InAppContentBlock | str,
        error_message: str,
        consider_consent: bool = True,
    ) -> Receipt:
        """
        Track that a content block could not be shown. Otherwise as `track_in_app_content_block_shown`.
        """
        return await events.track(
            self._context,
            placeholder_id,
            self._block(content_block),
            "error",
            error=error_message,
            consider_consent=consider_consent,
        )
