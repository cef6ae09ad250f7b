"""
A carousel: all content blocks of a placeholder, one after another.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Iterable
from types import TracebackType
from typing import Any, Literal, Self

from attrs import evolve, frozen

from exponea_async._internal.streams import Stream, Subscription
from exponea_async._internal.user_code import calling
from exponea_async._internal.validation import short_repr
from exponea_async.devices.context import SubjectContext
from exponea_async.devices.impressions import Impression
from exponea_async.errors import InvalidEventError
from exponea_async.features._shared.html.reader import BLANK_PAGE
from exponea_async.features._shared.targeting.priority import order_for_carousel
from exponea_async.features._shared.targeting.schedule import ALWAYS, may_show
from exponea_async.features.content_blocks.events import (
    INVALID_ACTION,
    INVALID_HTML,
    OutdatedError,
    Viewer,
    check_block,
    check_placeholder,
    clicked_action,
    is_close,
    load_viewer,
    track,
    track_interaction,
    track_show,
)
from exponea_async.features.content_blocks.selector import MAX_ATTEMPTS, BlockSelector
from exponea_async.messages import InAppContentBlock, InAppContentBlockAction

LOG = logging.getLogger("exponea_async")

#: A function of the user's that filters or sorts blocks.
Arrange = Callable[[list[InAppContentBlock]], Iterable[InAppContentBlock]]

#: Maximum delay in seconds; event loops can't wait for an arbitrary time.
MAX_DELAY = 1e9


@frozen(kw_only=True)
class CarouselChange:
    """
    Something that happened to a carousel.

    Attributes:
        type: ``"show"``: a block is the current one. ``"messages"``: the blocks have changed. ``"empty"``: there is no
            block to show. ``"click"``, ``"close"`` and ``"error"``: what happened to a block.
        block: The block; None where the change is about all blocks.
        index: The index of the current block; -1 where there is none.
        blocks: All blocks, in order.
        action: The action that was clicked, of a click.
        error_message: What went wrong, of an error.
    """

    type: Literal["show", "messages", "empty", "click", "close", "error"]
    block: InAppContentBlock | None = None
    index: int = -1
    blocks: tuple[InAppContentBlock, ...] = ()
    action: InAppContentBlockAction | None = None
    error_message: str | None = None

    @property
    def count(self) -> int:
        """The number of blocks."""
        return len(self.blocks)


class Carousel:
    """
    All content blocks of a placeholder, one after another.

    It is an async context manager, which loads the blocks, and an async iterable, which yields the current block each
    time it changes; the iteration ends where there is no block to show::

        async with exponea.content_block_carousel("home_top") as carousel:
            async for block in carousel:
                print(block.id)  # spring
                break

    For a customer tracker, a carousel remembers what it has shown as long as it exists. Returned by
    ``content_block_carousel()``.

    Attributes:
        placeholder_id: The placeholder.
    """

    def __init__(
        self,
        selector: BlockSelector,
        context: SubjectContext,
        placeholder_id: str,
        *,
        max_items: int,
        delay: float,
        filter_blocks: Arrange | None,
        sort_blocks: Arrange | None,
        overrides_default_behavior: bool,
        tracks_actions: bool,
    ) -> None:
        check_placeholder(placeholder_id)
        _check_numbers(max_items, delay)
        self.placeholder_id = placeholder_id
        self._selector, self._context = selector, context
        self._max_items, self._delay = max_items, delay
        self._filter, self._sort = filter_blocks, sort_blocks
        self._overrides_default_behavior, self._tracks_actions = overrides_default_behavior, tracks_actions
        self._blocks: tuple[InAppContentBlock, ...] = ()
        self._index = -1
        self._viewer: Viewer | None = None
        self._impressions: dict[str, Impression] = {}
        # The ids of the blocks that were tracked as shown since the last load.
        self._shown: set[str] = set()
        self._stream: Stream[CarouselChange] = Stream()
        self._lock = asyncio.Lock()
        # Set, and replaced by another one, when iterators must check the state again.
        self._changed = asyncio.Event()
        # The number of times that a block became the current one.
        self._turn = 0
        self._is_paused = self._is_ended = False

    async def __aenter__(self) -> Self:
        await self.reload()
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.end()

    @property
    def blocks(self) -> tuple[InAppContentBlock, ...]:
        """The blocks, in order."""
        return self._blocks

    @property
    def count(self) -> int:
        """The number of blocks."""
        return len(self._blocks)

    @property
    def index(self) -> int:
        """The index of the current block; -1 where there is none."""
        return self._index

    @property
    def block(self) -> InAppContentBlock | None:
        """The current block, or None."""
        return self._blocks[self._index] if self._blocks else None

    def changes(self) -> Subscription[CarouselChange]:
        """
        Return a stream of what happens to the carousel.

        The first subscription also receives what happened before, at most 100 changes.

        Returns:
            An async iterator. It ends with its ``aclose()``, with the carousel, or with the client.
        """
        return self._stream.subscribe()

    async def reload(self) -> InAppContentBlock | None:
        """
        Load the blocks again, and start with the first one, which is tracked as shown.

        Returns:
            The first block; None where there is no block to show.

        Raises:
            ImportError: The libraries that make HTML safe are missing.
            StorageError: The storage refused.
            LifecycleError: The client is not running.
        """
        async with self._lock:
            return await self._reload()

    async def next(self) -> InAppContentBlock | None:
        """
        Go on to the next block, and after the last block to the first one.

        A block is tracked as shown the first time after each `reload`. If the customer has changed, the blocks are
        loaded again.

        Returns:
            The block; None where there is no block to show.

        Raises:
            ImportError: The libraries that make HTML safe are missing.
            StorageError: The storage refused.
            LifecycleError: The client is not running.
        """
        async with self._lock:
            return await self._advance()

    async def click(self, block: InAppContentBlock, action: InAppContentBlockAction | str) -> str | None:
        """
        Handle a click in a block, as ``click_content_block()`` does.

        A block that may not be shown again leaves the carousel. The rotation pauses until `resume`, `next` or
        `reload`.

        Args:
            block: The block.
            action: The action that was clicked, or the URL that was opened.

        Returns:
            The URL to open; None where there is none, or with ``override_default_behavior``.

        Raises:
            InvalidEventError: The block is not an `InAppContentBlock`, or the action is neither an action nor a URL.
            StorageError: The storage refused.
            LifecycleError: The client is not running.
        """
        check_block(self.placeholder_id, block)
        clicked = clicked_action(block, action)
        async with self._lock:
            if action == BLANK_PAGE or not self._context.recorder.check_running():
                return None
            if clicked is None:
                await self._track_error(block, INVALID_ACTION)
                return None
            if is_close(clicked):
                await self._track_interaction(block, None)
                return None
            await self._track_interaction(block, clicked)
            return None if self._overrides_default_behavior else clicked.url

    async def close(self, block: InAppContentBlock) -> None:
        """
        Handle that a block was closed. A block that may not be shown again leaves the carousel.

        Raises:
            InvalidEventError: The block is not an `InAppContentBlock`.
            StorageError: The storage refused.
            LifecycleError: The client is not running.
        """
        async with self._lock:
            if self._context.recorder.check_running():
                await self._track_interaction(block, None)

    def resume(self) -> None:
        """Continue the rotation after a click."""
        self._is_paused = False
        self._notify_iterators()

    async def aclose(self) -> None:
        """End all iterations and streams of changes, as the end of the ``async with`` block does."""
        self.end()

    def clear_for_other_customer(self, device: str | None, fingerprint: str = "") -> None:
        """
        Remove all blocks if they were loaded for a previous customer of a device; called by the feature.

        Args:
            device: The key of the device.
            fingerprint: The fingerprint of its present customer.
        """
        viewer = self._viewer
        if self._context.key == device and viewer is not None and viewer.customer.fingerprint != fingerprint:
            self.clear()

    def clear(self) -> None:
        """Remove all blocks; called by the feature when the integration is stopped."""
        was_loaded, self._viewer = self._viewer is not None, None
        self._shown.clear()
        self._impressions.clear()
        if was_loaded:
            self._set_blocks((), -1)

    def end(self) -> None:
        """End all iterations and streams of changes; called by the feature when the client is closed."""
        self._is_ended = True
        self._stream.close()
        self._notify_iterators()

    # Iterating

    async def __aiter__(self) -> AsyncIterator[InAppContentBlock]:
        yielded = -1
        while not self._is_ended and (block := await self._current_block()) is not None:
            if yielded != self._turn:
                yielded = self._turn
                yield block
            elif await self._delay_has_passed():
                await self._rotate(yielded)

    async def _current_block(self) -> InAppContentBlock | None:
        """Return the current block. Blocks of a previous customer are replaced first."""
        if not await self._has_present_viewer():
            await self.reload()
        return self.block

    async def _delay_has_passed(self) -> bool:
        """Wait until the next block has its turn; return False if something else happened first."""
        rotates = self._delay > 0 and not self._is_paused and len(self._blocks) > 1
        try:
            await asyncio.wait_for(self._changed.wait(), self._delay if rotates else None)
        except TimeoutError:
            return True
        return False

    async def _rotate(self, turn: int) -> None:
        async with self._lock:
            # Another caller may have moved the carousel while this one waited for the lock.
            if turn == self._turn and not self._is_paused:
                await self._advance()

    def _notify_iterators(self) -> None:
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    # Loading and moving, while the lock is held

    async def _has_present_viewer(self) -> bool:
        return self._viewer is not None and await self._selector.is_present(self._context, self._viewer)

    async def _advance(self) -> InAppContentBlock | None:
        if not await self._has_present_viewer():
            return await self._reload()
        self._is_paused = False
        if self._blocks:
            self._index = (self._index + 1) % len(self._blocks)
        return await self._show_or_reload()

    async def _show_or_reload(self) -> InAppContentBlock | None:
        try:
            return await self._show()
        except OutdatedError:
            return await self._reload()

    async def _reload(self) -> InAppContentBlock | None:
        for _ in range(MAX_ATTEMPTS):
            viewer = await load_viewer(self._context, self._selector.started_at)
            if viewer is None:
                return None
            viewer = viewer if self._context.is_device else evolve(viewer, impressions=self._impressions)
            blocks = await self._load(viewer)
            if not self._context.recorder.check_running() or not await self._selector.is_present(self._context, viewer):
                continue
            self._viewer, self._impressions, self._is_paused = viewer, dict(viewer.impressions), False
            self._shown.clear()
            self._set_blocks(blocks, 0 if blocks else -1)
            try:
                return await self._show()
            except OutdatedError:
                continue
        return None

    async def _load(self, viewer: Viewer) -> tuple[InAppContentBlock, ...]:
        candidates = await self._selector.candidates(self._context, self.placeholder_id, viewer, load_all=True)
        rendered = [await self._selector.render(each, viewer) for each in candidates]
        invalid = {block.id for block, is_valid in rendered if not is_valid}
        arranged = _arranged([block for block, _ in rendered], self._filter, self._sort)
        for block in arranged:
            if block.id in invalid:
                await self._track_error(block, INVALID_HTML)
        valid = tuple(block for block in arranged if block.id not in invalid)
        return valid[: self._max_items] if self._max_items > 0 else valid

    async def _show(self) -> InAppContentBlock | None:
        """Begin the turn of the current block, and track it as shown the first time."""
        block, viewer = self.block, self._viewer
        if block is None or viewer is None:
            return None
        if block.id not in self._shown:
            shown_at = await track_show(self._context, self.placeholder_id, block, viewer, only_if_due=False)
            if not await self._selector.is_present(self._context, viewer):
                raise OutdatedError
            if self._viewer is not viewer:
                # The integration was stopped in the meantime.
                return None
            self._shown.add(block.id)
            self._remember(block, displayed=shown_at)
        self._turn += 1
        self._notify_iterators()
        self._publish("show", block)
        return block

    async def _track_interaction(self, block: InAppContentBlock, clicked: InAppContentBlockAction | None) -> None:
        interacted_at = await track_interaction(
            self._context, self.placeholder_id, block, clicked, is_tracked=self._tracks_actions
        )
        viewer = self._viewer
        self._publish("close" if clicked is None else "click", block, action=clicked)
        self._is_paused = self._is_paused or clicked is not None
        if viewer is None:
            return
        self._remember(block, interacted=interacted_at)
        if not may_show(block.frequency or ALWAYS, self._impressions[block.id], viewer.session_start):
            await self._remove(block)

    async def _track_error(self, block: InAppContentBlock, reason: str) -> None:
        self._publish("error", block, error_message=reason)
        await track(self._context, self.placeholder_id, block, "error", error=reason, counts_as_activity=False)

    def _remember(self, block: InAppContentBlock, **timestamps: float) -> None:
        self._impressions[block.id] = evolve(self._impressions.get(block.id) or Impression(), **timestamps)

    async def _remove(self, block: InAppContentBlock) -> None:
        removed = next((index for index, each in enumerate(self._blocks) if each.id == block.id), None)
        if removed is None:
            return
        current = self.block
        blocks = self._blocks[:removed] + self._blocks[removed + 1 :]
        index = self._index - 1 if removed <= self._index else self._index
        self._set_blocks(blocks, max(index, 0) if blocks else -1)
        if self.block is not current:
            await self._show_or_reload()

    def _set_blocks(self, blocks: tuple[InAppContentBlock, ...], index: int) -> None:
        self._blocks, self._index = blocks, index
        self._publish("messages")
        if not blocks:
            self._publish("empty")
            self._notify_iterators()

    def _publish(self, type_: Any, block: InAppContentBlock | None = None, **details: Any) -> None:
        self._stream.publish(CarouselChange(type=type_, block=block, index=self._index, blocks=self._blocks, **details))


def _check_numbers(max_items: Any, delay: Any) -> None:
    if not isinstance(max_items, int):
        raise InvalidEventError(
            "max_messages_count", f"expected an integer, got {short_repr(max_items)}", "Use 0 for all blocks."
        )
    if isinstance(delay, bool) or not isinstance(delay, int | float) or not abs(delay) < MAX_DELAY:
        trouble = f"expected a number of seconds below {MAX_DELAY:g}, got {short_repr(delay)}"
        raise InvalidEventError("scroll_delay", trouble, "Use 0 for no rotation.")


def _arranged(
    blocks: list[InAppContentBlock], filter_blocks: Arrange | None, sort_blocks: Arrange | None
) -> list[InAppContentBlock]:
    """
    Return the blocks to show, in order.

    As in the vendor's SDKs, a filter that raises is ignored; if the sort function raises, the filter's order stays.

    Args:
        blocks: The blocks.
        filter_blocks: Returns the blocks to show; None shows all.
        sort_blocks: Returns the blocks in another order than by priority, and by name where that is equal.
    """
    filtered = blocks if filter_blocks is None else _call_safely(filter_blocks, blocks)
    filtered = blocks if filtered is None else filtered
    by_priority = order_for_carousel(filtered, lambda block: block.load_priority, lambda block: block.name)
    if sort_blocks is None:
        return by_priority
    # It gets the default order, so that returning the same list keeps that.
    in_order = _call_safely(sort_blocks, by_priority)
    return filtered if in_order is None else in_order


def _call_safely(arrange: Arrange, blocks: list[InAppContentBlock]) -> list[InAppContentBlock] | None:
    """Return those of the blocks that a user's function returns, in its order; None where it raises."""
    try:
        with calling("the function", arrange):
            found = list(arrange(list(blocks)))
    except Exception:
        LOG.exception("A function that filters or sorts the blocks of a carousel raised an error.")
        return None
    known = {id(each) for each in blocks}
    return [each for each in found if id(each) in known]
