"""
Content blocks: what to put into a placeholder, and what became of it.
"""

import asyncio
from collections.abc import Callable
from weakref import WeakSet

from exponea_async.config import Configuration
from exponea_async.devices.context import SubjectContext
from exponea_async.devices.features import Feature
from exponea_async.features._shared.verbs import SubjectVerbs
from exponea_async.features.content_blocks.carousel import Carousel
from exponea_async.features.content_blocks.carousel_order import Arrange
from exponea_async.features.content_blocks.events import (
    INVALID_ACTION,
    NOT_PRESSED,
    check_block,
    check_placeholder,
    interact,
    is_close,
    pressed,
    track,
)
from exponea_async.features.content_blocks.service import Blocks
from exponea_async.messages import InAppContentBlock, InAppContentBlockAction
from exponea_async.models import Receipt

#: Devices whose blocks are being loaded ahead, at the most; those of others are loaded when they are asked for.
MAX_AHEAD = 100


class ContentBlocks(Feature):
    """
    What is kept of content blocks for all subjects of a client.

    Args:
        configuration: The settings.
        clock: Tells UNIX seconds.

    Attributes:
        blocks: Chooses them.
        carousels: Those that are about.
    """

    def __init__(self, configuration: Configuration, clock: Callable[[], float]) -> None:
        super().__init__()
        self.blocks = Blocks(configuration, clock, self.tasks)
        self.carousels: WeakSet[Carousel] = WeakSet()
        self._ahead = configuration.in_app_content_block_placeholders_auto_load
        self._preloads = configuration.preload_messages
        self._clock = clock
        self._under_way = 0

    def start(self, context: SubjectContext) -> None:
        """Load the list of all blocks ahead, where some are to be."""
        self.blocks.since = self._clock()
        if self._ahead:
            self.blocks.loads.tasks.start(self._load_ahead(context, personal=False), name="content blocks ahead")

    def launched(self, context: SubjectContext) -> None:
        """Load what the chosen placeholders say to a device's customer ahead."""
        if self._ahead and self._under_way < MAX_AHEAD:
            self._under_way += 1
            load = self.blocks.loads.tasks.start(self._load_ahead(context, personal=True), name="content blocks ahead")
            load.add_done_callback(self._landed)

    def identified(self, context: SubjectContext, receipt: Receipt) -> None:  # noqa: ARG002 - the base has it
        """Forget what blocks said to whoever the device was before."""
        if len(self.blocks.loads.customers) or self.carousels:
            self.blocks.loads.tasks.start(self._forget(context), name="forgetting content blocks")

    def anonymized(self, context: SubjectContext) -> None:
        """Forget what blocks said to whoever the device was before, and load the list of all anew, as at a start."""
        for carousel in list(self.carousels):
            carousel.leave_to(context.key)
        loads = self.blocks.loads
        if loads.is_used or self._preloads:
            loads.tasks.start(self._renew(context), name="renewing content blocks")

    def clear(self) -> None:
        """Forget everything, and take all blocks out of carousels."""
        self.blocks.clear()
        for carousel in list(self.carousels):
            carousel.clear()

    async def aclose(self) -> None:
        """End what is under way, and all carousels."""
        await self.blocks.loads.tasks.aclose()
        for carousel in list(self.carousels):
            carousel.end()

    def _landed(self, _: object) -> None:
        self._under_way -= 1

    async def _load_ahead(self, context: SubjectContext, *, personal: bool) -> None:
        loads = self.blocks.loads
        customer = await context.current_customer(counts_as_activity=False)
        bundle = None if customer is None else await loads.bundle(context, customer)
        if personal and customer is not None and bundle is not None:
            wanted = {block.id: block for name in self._ahead for block in bundle.of(name)}
            await loads.personal(context, customer, wanted.values())

    async def _forget(self, context: SubjectContext) -> None:
        if (customer := await context.current_customer(counts_as_activity=False)) is not None:
            self.blocks.loads.customers.settle(customer)
            for carousel in list(self.carousels):
                carousel.leave_to(customer.device, customer.fingerprint)

    async def _renew(self, context: SubjectContext) -> None:
        customer = await context.current_customer(counts_as_activity=False)
        if customer is None:
            return
        loads = self.blocks.loads
        loads.customers.settle(customer)
        load = loads.renew(context, customer)
        if load is not None and self._preloads and self._ahead:
            await asyncio.wait({load})
            await self._load_ahead(context, personal=True)


class ContentBlockVerbs(SubjectVerbs):
    """The verbs of content blocks."""

    __slots__ = ()

    @property
    def _blocks(self) -> Blocks:
        return self._devices.features[ContentBlocks].blocks

    async def content_block(self, placeholder_id: str) -> InAppContentBlock | None:
        """
        Choose what a placeholder shows now, and track that it is shown.

        It is the block of the highest priority that is meant for the moment and for this customer; equal ones are
        chosen by chance. Where the ``html`` of the block is None, the customer belongs to the control group of a test
        and is shown nothing, which is tracked all the same. A block whose HTML can't be shown is tracked as an error,
        and the next one gets its turn.

        The list of all blocks is loaded once for all customers and renewed in the background, what they say to a
        customer is loaded when it is asked for, and kept for as long as Engagement says; both in memory. Trouble with
        the network raises nothing, and a page never waits for long: each of the two is waited for five seconds at
        the most, and loaded on for the next call.

        A device remembers what it was shown, and what was pressed, for blocks that are not always to be shown. A
        customer tracker remembers nothing: to it, each block was never shown before.

        Args:
            placeholder_id: The placeholder's id.

        Returns:
            The block, which is not changed any more; None where there is nothing to show, or the integration is
            stopped.

        Raises:
            InvalidEventError: The id is no non-empty text.
            ImportError: The libraries that make HTML safe are missing; ``pip install 'exponea-async[html]'``.
            StorageError: The storage refused.
            LifecycleError: The client was not started, or is closed.
        """
        check_placeholder(placeholder_id)
        return await self._blocks.next(self._context, placeholder_id)

    async def click_content_block(
        self, placeholder_id: str, block: InAppContentBlock, action: InAppContentBlockAction | str
    ) -> str | None:
        """
        Take a press in a content block: track it and remember it. The next `content_block` gives the next block.

        A link that forces tracking is tracked without consent too. A press that closes the block is taken as
        `close_content_block` takes it. An address that is not among the block's actions is tracked as an error, but
        for ``about:blank``, which is nothing that anybody pressed.

        Args:
            placeholder_id: Where it is shown.
            block: The block as `content_block` gave it. It is tracked of the customer that it was loaded for.
            action: What was pressed, one of ``block.actions``, or the address that was opened.

        Returns:
            The link to open; None where there is none, or the integration is stopped.

        Raises:
            InvalidEventError: The id is no non-empty text, or the block is none.
            StorageError: The storage refused; nothing was kept.
            LifecycleError: The client was not started, or is closed.
        """
        context = self._context
        check_block(placeholder_id, block)
        found = pressed(block, action)
        if action == NOT_PRESSED or not context.recorder.check_running():
            return None
        if found is None:
            await track(context, placeholder_id, block, "error", error=INVALID_ACTION)
            return None
        closes = is_close(found)
        await interact(context, placeholder_id, block, None if closes else found)
        return None if closes else found.url

    async def close_content_block(self, placeholder_id: str, block: InAppContentBlock) -> None:
        """
        Take that somebody closed a content block: track it and remember it.

        Other than for in-app messages, it counts as an interaction, as in the Android SDK. The next `content_block`
        gives the next block.

        Args:
            placeholder_id: Where it is shown.
            block: The block as `content_block` gave it. It is tracked of the customer that it was loaded for.

        Raises:
            InvalidEventError: The id is no non-empty text, or the block is none.
            StorageError: The storage refused; nothing was kept.
            LifecycleError: The client was not started, or is closed.
        """
        if self._context.recorder.check_running():
            await interact(self._context, placeholder_id, block, None)

    def content_block_carousel(  # noqa: PLR0917 - the vendor's parameters, best given by name
        self,
        placeholder_id: str,
        max_messages_count: int = 0,
        scroll_delay: float = 3.0,
        filter_content_blocks: Arrange | None = None,
        sort_content_blocks: Arrange | None = None,
        override_default_behavior: bool = False,  # noqa: FBT001, FBT002 - the vendor's signature
        track_actions: bool = True,  # noqa: FBT001, FBT002 - the vendor's signature
    ) -> Carousel:
        """
        Make a carousel: all blocks of a placeholder, one after the other.

        It is about who is current now, whoever is later.

        Args:
            placeholder_id: The placeholder's id.
            max_messages_count: How many blocks at the most; 0 is all.
            scroll_delay: How long each has its turn, in seconds; at 0 or below nothing moves by itself.
            filter_content_blocks: Gets a list of the blocks and gives those to show; where it raises, all are.
            sort_content_blocks: Gets a list of these, by priority and equal ones by name, and gives them in another
                order; where it raises, they stay as they came.
            override_default_behavior: Whether the host knows by itself what to open: a click gives no link.
            track_actions: Whether clicks and closes are tracked; what is shown, and errors, are always.

        Raises:
            InvalidEventError: The id is no non-empty text, or a number is none.
        """
        part = self._devices.features[ContentBlocks]
        carousel = Carousel(
            part.blocks,
            self._context,
            placeholder_id,
            most=max_messages_count,
            delay=scroll_delay,
            leave_out=filter_content_blocks,
            sort=sort_content_blocks,
            override=override_default_behavior,
            track_actions=track_actions,
        )
        part.carousels.add(carousel)
        return carousel

    async def track_in_app_content_block_shown(
        self,
        placeholder_id: str,
        content_block: InAppContentBlock,
        consider_consent: bool = True,  # noqa: FBT001, FBT002 - the vendor's signature
    ) -> Receipt:
        """
        Track by hand that a content block is shown, which `content_block` does by itself; nothing is remembered.

        Args:
            placeholder_id: Where.
            content_block: The block. It is tracked of the customer that it was loaded for.
            consider_consent: Whether it counts whether the block may be tracked.

        Returns:
            The receipt; a dropped one where there is no consent.

        Raises:
            InvalidEventError: The id is no non-empty text, or the block is none.
            StorageError: The storage refused; nothing was kept.
            LifecycleError: The client was not started, or is closed.
        """
        return await track(self._context, placeholder_id, content_block, "show", consider_consent=consider_consent)

    async def track_in_app_content_block_click(
        self,
        placeholder_id: str,
        content_block: InAppContentBlock,
        action: InAppContentBlockAction,
        consider_consent: bool = True,  # noqa: FBT001, FBT002 - the vendor's signature
    ) -> Receipt:
        """
        Track by hand that something was pressed in a content block, which `click_content_block` does by itself.

        A link that forces tracking is tracked without consent too, and says so. Nothing is remembered. Otherwise as
        `track_in_app_content_block_shown`.
        """
        return await track(
            self._context, placeholder_id, content_block, "click", pressed=action, consider_consent=consider_consent
        )

    async def track_in_app_content_block_close(
        self,
        placeholder_id: str,
        content_block: InAppContentBlock,
        consider_consent: bool = True,  # noqa: FBT001, FBT002 - the vendor's signature
    ) -> Receipt:
        """
        Track by hand that a content block was closed, which `close_content_block` does by itself.

        Nothing is remembered. Otherwise as `track_in_app_content_block_shown`.
        """
        return await track(self._context, placeholder_id, content_block, "close", consider_consent=consider_consent)

    async def track_in_app_content_block_error(
        self,
        placeholder_id: str,
        content_block: InAppContentBlock,
        error_message: str,
        consider_consent: bool = True,  # noqa: FBT001, FBT002 - the vendor's signature
    ) -> Receipt:
        """
        Track that a content block could not be shown. Otherwise as `track_in_app_content_block_shown`.
        """
        return await track(
            self._context,
            placeholder_id,
            content_block,
            "error",
            error=error_message,
            consider_consent=consider_consent,
        )
