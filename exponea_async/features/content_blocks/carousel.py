"""
A carousel: all content blocks of a placeholder, one after the other.
"""

import asyncio
from collections.abc import AsyncIterator
from types import TracebackType
from typing import Any, Literal, Self

from attrs import evolve, frozen

from exponea_async._internal.streams import Stream, Subscription
from exponea_async.devices.context import SubjectContext
from exponea_async.devices.impressions import Impression
from exponea_async.errors import InvalidEventError
from exponea_async.features._shared.targeting.schedule import ALWAYS, may_show
from exponea_async.features.content_blocks.carousel_order import Arrange, arranged
from exponea_async.features.content_blocks.events import (
    INVALID_ACTION,
    INVALID_HTML,
    NOT_PRESSED,
    OvertakenError,
    Viewer,
    check_block,
    check_placeholder,
    interact,
    is_close,
    pressed,
    show,
    track,
    viewer_of,
)
from exponea_async.features.content_blocks.service import ROUNDS, Blocks
from exponea_async.messages import InAppContentBlock, InAppContentBlockAction


@frozen(kw_only=True)
class CarouselChange:
    """
    Something that happened to a carousel.

    Attributes:
        type: ``"show"``: a block has its turn. ``"messages"``: there are others than before. ``"empty"``: there is
            nothing to show. ``"click"``, ``"close"`` and ``"error"`` as they say.
        block: The block; None where it is about all of them.
        index: The place of the block that has its turn, from 0; -1 where there is none.
        blocks: All blocks, in order.
        action: What was pressed, of a click.
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
        """How many blocks there are."""
        return len(self.blocks)


class Carousel:
    """
    All content blocks of a placeholder, one after the other, for whoever renders them.

    An async context manager, which loads the blocks, and an async iterable, which tells the block whose turn it is,
    each time that it is another's turn; it ends where there is nothing to show::

        async with exponea.content_block_carousel("home_top") as carousel:
            async for block in carousel:
                print(block.id)  # spring
                break

    What is shown for a customer tracker is remembered as long as the carousel lives. Made by
    ``content_block_carousel()``.

    Attributes:
        placeholder_id: The placeholder.
    """

    def __init__(
        self,
        room: Blocks,
        context: SubjectContext,
        placeholder_id: str,
        *,
        most: int,
        delay: float,
        leave_out: Arrange | None,
        sort: Arrange | None,
        override: bool,
        track_actions: bool,
    ) -> None:
        check_placeholder(placeholder_id)
        _check_numbers(most, delay)
        self.placeholder_id = placeholder_id
        self._room, self._context = room, context
        self._most, self._delay = most, delay
        self._leave_out, self._sort = leave_out, sort
        self._overrides, self._tracks = override, track_actions
        self._blocks: tuple[InAppContentBlock, ...] = ()
        self._index = -1
        self._viewer: Viewer | None = None
        self._displays: dict[str, Impression] = {}
        self._shown: set[str] = set()
        self._stream: Stream[CarouselChange] = Stream()
        self._door = asyncio.Lock()
        # Set, and replaced, whenever whoever waits for the next turn has to look again.
        self._news = asyncio.Event()
        self._turn = 0
        self._is_paused = self._is_over = False

    async def __aenter__(self) -> Self:
        await self.reload()
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.end()

    @property
    def blocks(self) -> tuple[InAppContentBlock, ...]:
        """The blocks in it, in order."""
        return self._blocks

    @property
    def count(self) -> int:
        """How many blocks are in it."""
        return len(self._blocks)

    @property
    def index(self) -> int:
        """The place of the block whose turn it is, from 0; -1 where there is none."""
        return self._index

    @property
    def block(self) -> InAppContentBlock | None:
        """The block whose turn it is, or None."""
        return self._blocks[self._index] if self._blocks else None

    def changes(self) -> Subscription[CarouselChange]:
        """
        Listen to what happens to it. The first listener also gets what happened before, at most 100 changes.

        Returns:
            An async iterator, which ends with its ``aclose()``, with the carousel, or with the client.
        """
        return self._stream.subscribe()

    async def reload(self) -> InAppContentBlock | None:
        """
        Load the blocks anew, and begin with the first one, which is tracked as shown.

        Returns:
            The first one; None where there is nothing to show.

        Raises:
            ImportError: The libraries that make HTML safe are missing.
            StorageError: The storage refused.
            LifecycleError: The client is not running.
        """
        async with self._door:
            return await self._reloaded()

    async def next(self) -> InAppContentBlock | None:
        """
        Go on to the following block, and after the last one to the first.

        It is tracked as shown the first time after each `reload`. Where the customer has become another one, the
        blocks are loaded anew.

        Returns:
            The block; None where there is nothing to show.

        Raises:
            ImportError: The libraries that make HTML safe are missing.
            StorageError: The storage refused.
            LifecycleError: The client is not running.
        """
        async with self._door:
            return await self._advanced()

    async def click(self, block: InAppContentBlock, action: InAppContentBlockAction | str) -> str | None:
        """
        Take a press in a block, as ``click_content_block()`` does.

        A block that may not be shown again leaves the carousel. The rotation rests until `resume`, `next` or
        `reload`.

        Args:
            block: The block.
            action: What was pressed, or the address that was opened.

        Returns:
            The link to open; None where there is none, or ``override_default_behavior`` was asked for.

        Raises:
            StorageError: The storage refused.
            LifecycleError: The client is not running.
        """
        check_block(self.placeholder_id, block)
        found = pressed(block, action)
        async with self._door:
            if action == NOT_PRESSED or not self._context.recorder.check_running():
                return None
            if found is None:
                await self._failed(block, INVALID_ACTION)
                return None
            if is_close(found):
                await self._interacted(block, None)
                return None
            await self._interacted(block, found)
            return None if self._overrides else found.url

    async def close(self, block: InAppContentBlock) -> None:
        """
        Take that somebody closed a block. One that may not be shown again leaves the carousel.

        Raises:
            StorageError: The storage refused.
            LifecycleError: The client is not running.
        """
        async with self._door:
            if self._context.recorder.check_running():
                await self._interacted(block, None)

    def resume(self) -> None:
        """Let the rotation go on after a click."""
        self._is_paused = False
        self._wake()

    async def aclose(self) -> None:
        """End the rotation and the streams of changes, as the end of the ``async with`` block does."""
        self.end()

    def leave_to(self, device: str | None, fingerprint: str = "") -> None:
        """Take all blocks out where a device is another customer's by now, for whom a mark stands."""
        if (
            self._context.key == device
            and self._viewer is not None
            and self._viewer.customer.fingerprint != fingerprint
        ):
            self.clear()

    def clear(self) -> None:
        """Take all blocks out, as is done where the integration is stopped."""
        had, self._viewer = self._viewer is not None, None
        self._shown.clear()
        self._displays.clear()
        if had:
            self._take((), -1)

    def end(self) -> None:
        """End the rotation and the streams of changes, as is done where the client is closed."""
        self._is_over = True
        self._stream.close()
        self._wake()

    async def __aiter__(self) -> AsyncIterator[InAppContentBlock]:
        told = -1
        while not self._is_over and (block := await self._current()) is not None:
            if told != self._turn:
                told = self._turn
                yield block
            elif await self._is_time():
                await self._scroll(told)

    async def _current(self) -> InAppContentBlock | None:
        """Tell the block whose turn it is; what was loaded for somebody is for nobody else."""
        if self._viewer is None or not await self._room.is_present(self._context, self._viewer):
            await self.reload()
        return self.block

    async def _is_time(self) -> bool:
        """Wait for the next block's turn; tells False where something else happened first."""
        rotates = self._delay > 0 and not self._is_paused and len(self._blocks) > 1
        try:
            await asyncio.wait_for(self._news.wait(), self._delay if rotates else None)
        except TimeoutError:
            return True
        return False

    async def _scroll(self, told: int) -> None:
        async with self._door:
            # Somebody may have moved it while this waited for the door.
            if told == self._turn and not self._is_paused:
                await self._advanced()

    async def _advanced(self) -> InAppContentBlock | None:
        if self._viewer is None or not await self._room.is_present(self._context, self._viewer):
            # What was loaded for somebody is for nobody else.
            return await self._reloaded()
        self._is_paused = False
        if self._blocks:
            self._index = (self._index + 1) % len(self._blocks)
        return await self._turned()

    async def _turned(self) -> InAppContentBlock | None:
        try:
            return await self._present()
        except OvertakenError:
            return await self._reloaded()

    async def _reloaded(self) -> InAppContentBlock | None:
        for _ in range(ROUNDS):
            viewer = await viewer_of(self._context, self._room.since)
            if viewer is None:
                return None
            viewer = viewer if self._context.is_device else evolve(viewer, displays=self._displays)
            blocks = await self._loaded(viewer)
            if not self._context.recorder.check_running() or not await self._room.is_present(self._context, viewer):
                continue
            self._viewer, self._displays, self._is_paused = viewer, dict(viewer.displays), False
            self._shown.clear()
            self._take(blocks, 0 if blocks else -1)
            try:
                return await self._present()
            except OvertakenError:
                continue
        return None

    async def _loaded(self, viewer: Viewer) -> tuple[InAppContentBlock, ...]:
        choices = await self._room.choices(self._context, self.placeholder_id, viewer, everything=True)
        made = [await self._room.made(each, viewer) for each in choices]
        broken = {block.id for block, is_right in made if not is_right}
        order = arranged([block for block, _ in made], self._leave_out, self._sort)
        for block in order:
            if block.id in broken:
                await self._failed(block, INVALID_HTML)
        whole = tuple(block for block in order if block.id not in broken)
        return whole[: self._most] if self._most > 0 else whole

    async def _present(self) -> InAppContentBlock | None:
        """Let the present block have its turn."""
        block, viewer = self.block, self._viewer
        if block is None or viewer is None:
            return None
        if block.id not in self._shown:
            moment = await show(self._context, self.placeholder_id, block, viewer, if_due=False)
            if not await self._room.is_present(self._context, viewer):
                raise OvertakenError
            if self._viewer is not viewer:
                # The integration was stopped meanwhile.
                return None
            self._shown.add(block.id)
            self._remember(block, displayed=moment)
        self._turn += 1
        self._wake()
        self._tell("show", block)
        return block

    async def _interacted(self, block: InAppContentBlock, action: InAppContentBlockAction | None) -> None:
        moment = await interact(self._context, self.placeholder_id, block, action, is_tracked=self._tracks)
        viewer = self._viewer
        self._tell("close" if action is None else "click", block, action=action)
        self._is_paused = self._is_paused or action is not None
        if viewer is None:
            return
        self._remember(block, interacted=moment)
        if not may_show(block.frequency or ALWAYS, self._displays[block.id], viewer.visit_start):
            await self._remove(block)

    async def _remove(self, block: InAppContentBlock) -> None:
        place = next((place for place, each in enumerate(self._blocks) if each.id == block.id), None)
        if place is None:
            return
        present = self.block
        left = self._blocks[:place] + self._blocks[place + 1 :]
        index = self._index - 1 if place <= self._index else self._index
        self._take(left, max(index, 0) if left else -1)
        if self.block is not present:
            await self._turned()

    def _take(self, blocks: tuple[InAppContentBlock, ...], index: int) -> None:
        self._blocks, self._index = blocks, index
        self._tell("messages")
        if not blocks:
            self._tell("empty")
            self._wake()

    def _remember(self, block: InAppContentBlock, **timestamps: float) -> None:
        self._displays[block.id] = evolve(self._displays.get(block.id) or Impression(), **timestamps)

    async def _failed(self, block: InAppContentBlock, reason: str) -> None:
        self._tell("error", block, error_message=reason)
        await track(self._context, self.placeholder_id, block, "error", error=reason, counts_as_activity=False)

    def _wake(self) -> None:
        news, self._news = self._news, asyncio.Event()
        news.set()

    def _tell(self, type_: Any, block: InAppContentBlock | None = None, **more: Any) -> None:
        self._stream.publish(CarouselChange(type=type_, block=block, index=self._index, blocks=self._blocks, **more))


def _check_numbers(most: object, delay: object) -> None:
    if not isinstance(most, int):
        raise InvalidEventError("max_messages_count", f"{most!r:.60} is no whole number", "Use 0 for all.")
    # No event loop can wait for numbers beyond measure.
    if isinstance(delay, bool) or not isinstance(delay, int | float) or not abs(delay) < 1e9:
        raise InvalidEventError("scroll_delay", f"{delay!r:.60} is no number of seconds", "Use 0 for no rotation.")
