"""
The content blocks of all subjects.
"""

from collections.abc import Callable
from weakref import WeakSet

from exponea_async.config import Configuration
from exponea_async.devices.context import SubjectContext
from exponea_async.devices.customers import CustomerSnapshot
from exponea_async.devices.features import Feature
from exponea_async.features.content_blocks.carousel import Carousel
from exponea_async.features.content_blocks.selector import BlockSelector
from exponea_async.models import Receipt

#: Maximum number of devices whose blocks are preloaded at once. The blocks of other devices are loaded on request.
MAX_PRELOADS = 100


class ContentBlocks(Feature):
    """
    The content blocks of all subjects of a client.

    Args:
        configuration: The settings.
        clock: Returns the current time in UNIX seconds.

    Attributes:
        selector: Chooses blocks.
        carousels: The carousels that are referenced elsewhere.
    """

    name = "content blocks"

    def __init__(self, configuration: Configuration, clock: Callable[[], float]) -> None:
        super().__init__()
        self.selector = BlockSelector(configuration, clock, self.tasks)
        self.carousels: WeakSet[Carousel] = WeakSet()
        self._placeholders = configuration.in_app_content_block_placeholders_auto_load
        self._preloads_after_anonymize = configuration.preload_messages
        self._preload_count = 0

    def start(self, context: SubjectContext, at: float) -> None:
        """Preload the bundle, if blocks are to be preloaded."""
        self.selector.started_at = at
        if self._placeholders:
            self.tasks.start(self._preload(context, with_data=False), name="preloading content blocks")

    def launched(self, context: SubjectContext) -> None:
        """Preload the blocks of the configured placeholders for a device's customer."""
        if self._placeholders and self._preload_count < MAX_PRELOADS:
            self._preload_count += 1
            preload = self.tasks.start(self._preload(context, with_data=True), name="preloading content blocks")
            preload.add_done_callback(self._count_preload_end)

    def identified(self, context: SubjectContext, receipt: Receipt, previous: CustomerSnapshot | None) -> None:  # noqa: ARG002 - the base has it
        """Remove the data and the carousels' blocks of the previous customer."""
        if len(self.selector.loader.customers) or self.carousels:
            self.tasks.start(self._remove_previous_customer(context), name="removing content blocks")

    def anonymized(self, context: SubjectContext) -> None:
        """Remove the data and the carousels' blocks of the previous customer, and load the bundle again."""
        for carousel in list(self.carousels):
            carousel.clear_for_other_customer(context.key)
        if self.selector.loader.is_used or self._preloads_after_anonymize:
            self.tasks.start(self._renew(context), name="renewing content blocks")

    def clear(self) -> None:
        """Remove everything from memory, and all blocks from carousels."""
        self.selector.clear()
        for carousel in list(self.carousels):
            carousel.clear()

    def close(self) -> None:
        """End all carousels."""
        for carousel in list(self.carousels):
            carousel.end()

    def _count_preload_end(self, _: object) -> None:
        self._preload_count -= 1

    async def _preload(self, context: SubjectContext, *, with_data: bool) -> None:
        loader = self.selector.loader
        customer = await context.current_customer(counts_as_activity=False)
        bundle = None if customer is None else await loader.bundle(context, customer)
        if with_data and customer is not None and bundle is not None:
            blocks = {block.id: block for name in self._placeholders for block in bundle.blocks_for(name)}
            await loader.personalized_data(context, customer, blocks.values())

    async def _remove_previous_customer(self, context: SubjectContext) -> None:
        if (customer := await context.current_customer(counts_as_activity=False)) is not None:
            self.selector.loader.customers.remove_previous(customer)
            for carousel in list(self.carousels):
                carousel.clear_for_other_customer(customer.device, customer.fingerprint)

    async def _renew(self, context: SubjectContext) -> None:
        customer = await context.current_customer(counts_as_activity=False)
        if customer is None:
            return
        loader = self.selector.loader
        loader.customers.remove_previous(customer)
        load = loader.renew(context, customer)
        if load is not None and self._preloads_after_anonymize and self._placeholders:
            await load.wait()
            await self._preload(context, with_data=True)
