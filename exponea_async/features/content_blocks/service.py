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
from exponea_async.features._shared.targeting.priority import order_for_placeholder
from exponea_async.features._shared.targeting.schedule import may_show
from exponea_async.features.content_blocks.events import (
    INVALID_HTML,
    OvertakenError,
    Viewer,
    action_of,
    show,
    track,
    viewer_of,
)
from exponea_async.features.content_blocks.loader import BlockLoader
from exponea_async.features.content_blocks.pages import Pages
from exponea_async.features.content_blocks.parsing import Definition, can_show, handed_out, source_of
from exponea_async.messages import InAppContentBlock, PersonalizedData

#: How often a choice is begun anew, where the customer became another one, or somebody else was faster.
ROUNDS = 100


@frozen
class Candidate:
    """
    A block that may be shown.

    Attributes:
        definition: The block.
        data: What it says to the customer; None where it says the same to all.
    """

    definition: Definition
    data: PersonalizedData | None


class Blocks:
    """
    Chooses content blocks and makes them ready.

    Args:
        configuration: The settings.
        clock: Tells UNIX seconds.
        tasks: The background tasks of the feature.

    Attributes:
        loads: What was loaded.
        pages: Their HTML made safe.
        since: What counts as the begin of a session where none is open, UNIX seconds.
    """

    def __init__(self, configuration: Configuration, clock: Callable[[], float], tasks: BackgroundTasks) -> None:
        self.loads = BlockLoader(configuration, clock, tasks)
        self.pages = Pages(configuration.resource_loader)
        self.since = clock()
        self._clock = clock
        self._is_ready = False
        self._chance = Random()  # noqa: S311 - which block is shown is no secret

    def clear(self) -> None:
        """Forget everything, and break off what is under way."""
        self.loads.clear()
        self.pages.clear()

    async def next(self, context: SubjectContext, placeholder: str) -> InAppContentBlock | None:
        """
        Choose what a placeholder shows next, and track that it does; None where there is nothing.

        Raises:
            ImportError: The libraries that make HTML safe are missing.
            StorageError: The storage refused.
            LifecycleError: The client is not running.
        """
        for _ in range(ROUNDS):
            viewer = await viewer_of(context, self.since)
            if viewer is None:
                break
            with suppress(OvertakenError):
                block = await self._shown(context, placeholder, viewer)
                if block is not None or await self.is_present(context, viewer):
                    return block if context.recorder.check_running() else None
        return None

    async def is_present(self, context: SubjectContext, viewer: Viewer) -> bool:
        """Tell whether a customer is the present one still; also where the integration is stopped."""
        present = await context.current_customer(counts_as_activity=False)
        return present is None or present.fingerprint == viewer.customer.fingerprint

    async def choices(
        self, context: SubjectContext, placeholder: str, viewer: Viewer, *, everything: bool
    ) -> list[Candidate]:
        """
        Tell the blocks that a placeholder may show to somebody.

        Args:
            context: The subject.
            placeholder: The placeholder.
            viewer: Whom they are shown to.
            everything: Whether to load also what may not be shown now, as the Android SDK does for a carousel.
        """
        if not self._is_ready:
            # Said at the first call, and not once there is a block that needs them.
            await asyncio.to_thread(import_libraries)
            self._is_ready = True
        bundle = await self.loads.bundle(context, viewer.customer)
        if bundle is None:
            return []
        blocks, now = bundle.of(placeholder), self._clock()
        due = [
            each
            for each in blocks
            if each.dates.includes(now) and may_show(each.often, viewer.displays.get(each.id), viewer.visit_start)
        ]
        found = await self.loads.personal(context, viewer.customer, blocks if everything else due)
        choices = [Candidate(each, found.get(each.id) if each.is_personalized else None) for each in due]
        return [each for each in choices if can_show(each.definition, each.data)]

    async def made(self, choice: Candidate, viewer: Viewer) -> tuple[InAppContentBlock, bool]:
        """Make what a user gets of a block, and tell whether its HTML is all right; where it is not, there is none."""
        definition, data, ids = choice.definition, choice.data, viewer.customer.ids
        source = source_of(definition, data)
        if source is None:
            return handed_out(definition, data, ids=ids), True
        page = await self.pages.read(source)
        if page is None:
            return handed_out(definition, data, ids=ids), False
        actions = tuple(map(action_of, page.actions))
        return handed_out(definition, data, ids=ids, html=page.html, actions=actions), True

    async def _shown(self, context: SubjectContext, placeholder: str, viewer: Viewer) -> InAppContentBlock | None:
        choices = await self.choices(context, placeholder, viewer, everything=False)
        for choice in order_for_placeholder(choices, lambda each: each.definition.load_priority, self._chance):
            block, is_right = await self.made(choice, viewer)
            if is_right:
                await show(context, placeholder, block, viewer, if_due=True)
                return block
            # A hole in a page helps nobody: other than on a phone, the next one gets its turn.
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
