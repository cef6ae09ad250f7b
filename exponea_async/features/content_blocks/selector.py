"""
Which content block a placeholder shows.
"""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from random import Random

from attrs import frozen

from exponea_async._internal.concurrency import BackgroundTasks
from exponea_async.config import Configuration
from exponea_async.devices.context import SubjectContext
from exponea_async.features._shared.html.resources import import_libraries
from exponea_async.features._shared.html.rules import configured_rules, log_removed
from exponea_async.features._shared.targeting.priority import order_for_placeholder
from exponea_async.features._shared.targeting.schedule import may_show
from exponea_async.features.content_blocks.events import (
    INVALID_HTML,
    OutdatedError,
    Viewer,
    load_viewer,
    public_action,
    track,
    track_show,
)
from exponea_async.features.content_blocks.loader import BlockLoader
from exponea_async.features.content_blocks.pages import PageCache
from exponea_async.features.content_blocks.parsing import BlockDefinition, can_show, html_of, public_block
from exponea_async.messages import InAppContentBlock, PersonalizedData

#: Maximum number of attempts to choose a block, each of which fails if the customer changes or another call shows the
#: block first.
MAX_ATTEMPTS = 100


@frozen
class Candidate:
    """
    A block that may be shown.

    Attributes:
        definition: The block.
        data: Its personalized data; None where its content is the same for all customers.
    """

    definition: BlockDefinition
    data: PersonalizedData | None


class BlockSelector:
    """
    Chooses content blocks and renders them.

    Args:
        configuration: The settings.
        clock: Returns the current time in UNIX seconds.
        tasks: The background tasks of the feature.

    Attributes:
        loader: Loads the blocks.
        started_at: When the client was started, UNIX seconds: the start of the session where none is open.
    """

    def __init__(self, configuration: Configuration, clock: Callable[[], float], tasks: BackgroundTasks) -> None:
        self.loader = BlockLoader(configuration, clock, tasks)
        self.started_at = clock()
        self._pages = PageCache(configuration.resource_loader, configured_rules(configuration, is_embedded=True))
        self._clock = clock
        self._has_libraries = False
        self._random = Random()  # noqa: S311 - the choice of a block need not be unpredictable

    def clear(self) -> None:
        """Remove everything from memory, and cancel all loads."""
        self.loader.clear()
        self._pages.clear()

    async def next(self, context: SubjectContext, placeholder: str) -> InAppContentBlock | None:
        """
        Choose the block that a placeholder shows next, and track that it is shown; None where there is none.

        Raises:
            ImportError: The libraries that make HTML safe are missing.
            StorageError: The storage refused.
            LifecycleError: The client is not running.
        """
        for _ in range(MAX_ATTEMPTS):
            viewer = await load_viewer(context, self.started_at)
            if viewer is None:
                break
            with suppress(OutdatedError):
                block = await self._show_first(context, placeholder, viewer)
                if block is not None or await self.is_present(context, viewer):
                    return block if context.recorder.check_running() else None
        return None

    async def is_present(self, context: SubjectContext, viewer: Viewer) -> bool:
        """Return whether the viewer is still the subject's customer; also True where the integration is stopped."""
        current = await context.current_customer(counts_as_activity=False)
        return current is None or current.fingerprint == viewer.customer.fingerprint

    async def candidates(
        self, context: SubjectContext, placeholder: str, viewer: Viewer, *, load_all: bool
    ) -> list[Candidate]:
        """
        Return the blocks that a placeholder may show to a customer now.

        Args:
            context: The subject.
            placeholder: The placeholder.
            viewer: The customer.
            load_all: Whether to load also the data of blocks that may not be shown now, as the Android SDK does for a
                carousel.
        """
        if not self._has_libraries:
            # Checked by the first call, even if no block needs them yet.
            await asyncio.to_thread(import_libraries)
            self._has_libraries = True
        bundle = await self.loader.bundle(context, viewer.customer)
        if bundle is None:
            return []
        blocks, now = bundle.blocks_for(placeholder), self._clock()
        due = [each for each in blocks if _is_due(each, viewer, now)]
        data = await self.loader.personalized_data(context, viewer.customer, blocks if load_all else due)
        candidates = [Candidate(each, data.get(each.id) if each.is_personalized else None) for each in due]
        return [each for each in candidates if can_show(each.definition, each.data)]

    async def render(self, candidate: Candidate, viewer: Viewer) -> tuple[InAppContentBlock, bool]:
        """Return the block that a caller gets, and whether its HTML is valid; a block without HTML is valid."""
        definition, data, ids = candidate.definition, candidate.data, viewer.customer.ids
        source = html_of(definition, data)
        if source is None:
            return public_block(definition, data, ids=ids), True
        page = await self._pages.read(source)
        if page is None:
            return public_block(definition, data, ids=ids), False
        log_removed(f"content block {definition.name!r}", page.removed)
        actions = tuple(map(public_action, page.actions))
        return public_block(definition, data, ids=ids, html=page.html, actions=actions), True

    async def _show_first(self, context: SubjectContext, placeholder: str, viewer: Viewer) -> InAppContentBlock | None:
        """Return the first candidate that can be rendered, tracked as shown; None where there is none."""
        candidates = await self.candidates(context, placeholder, viewer, load_all=False)
        for candidate in order_for_placeholder(candidates, lambda each: each.definition.load_priority, self._random):
            block, is_valid = await self.render(candidate, viewer)
            if is_valid:
                await track_show(context, placeholder, block, viewer, only_if_due=True)
                return block
            # Other than in the vendor's SDKs, the placeholder does not stay empty: the next candidate is tried.
            await track(
                context,
                placeholder,
                block,
                "error",
                error=INVALID_HTML,
                only_for=viewer.customer,
                counts_as_activity=False,
            )
        return None


def _is_due(block: BlockDefinition, viewer: Viewer, now: float) -> bool:
    impression = viewer.impressions.get(block.id)
    return block.dates.includes(now) and may_show(block.effective_frequency, impression, viewer.session_start)
