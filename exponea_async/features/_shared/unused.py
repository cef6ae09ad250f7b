"""
What stands in for features that were not used yet, whose modules are not imported.
"""

from collections.abc import Callable
from types import ModuleType

from exponea_async._internal.lazy import import_in_thread
from exponea_async.devices.context import SubjectContext
from exponea_async.devices.customers import CustomerSnapshot
from exponea_async.devices.features import Feature, FeatureRegistry
from exponea_async.models import Receipt

#: Returns the fingerprint of the customer whose data was stored; None if the stored form is damaged.
OwnerOf = Callable[[bytes], str | None]


class UnusedFeature(Feature):
    """
    Stands in for a feature until it is used; from then on it does nothing.

    An earlier process may have used the feature, so what is stored of a device's previous customer is deleted.

    Args:
        name: The name of the feature.
        stored: The name under which the feature stores data for a device; None if it stores nothing.
        owner_of: Returns whose data it is; None if it is deleted only where the device has a new customer.
        module: The module with the class of the feature, which is imported when the new customer's messages are to be
            loaded ahead; None if they are not.
        use: Returns the feature, and so creates it.
    """

    def __init__(
        self,
        name: str,
        *,
        stored: str | None = None,
        owner_of: OwnerOf | None = None,
        module: ModuleType | None = None,
        use: Callable[[FeatureRegistry], Feature],
    ) -> None:
        super().__init__()
        self.name = f"unused {name}"
        self._feature = name
        self._stored = stored
        self._owner_of = owner_of
        self._module = module
        self._use = use

    def identified(self, context: SubjectContext, receipt: Receipt, previous: CustomerSnapshot | None) -> None:  # noqa: ARG002 - the base has it
        """Delete what is stored of the previous customer."""
        if previous is not None and self._owner_of is not None and not self.registry.is_used(self._feature):
            self.tasks.start(self._delete_previous(context, previous), name=f"deleting stored {self._feature}")

    def anonymized(self, context: SubjectContext) -> None:
        """Delete what is stored of the previous customer, and let the feature load ahead if the settings say so."""
        if not self.registry.is_used(self._feature):
            self.tasks.start(self._replace_customer(context), name=f"renewing {self._feature}")

    async def _delete_previous(self, context: SubjectContext, previous: CustomerSnapshot) -> None:
        customer = await context.current_customer(counts_as_activity=False)
        if customer is not None and customer.fingerprint != previous.fingerprint:
            await self._delete_others(context, customer)

    async def _replace_customer(self, context: SubjectContext) -> None:
        customer = await context.current_customer(counts_as_activity=False)
        if customer is not None:
            await self._delete_others(context, customer)
        if self._module is None:
            return
        await import_in_thread(self._module.__name__)
        # What was used in the meantime is used for the new customer.
        if not self.registry.is_used(self._feature):
            self._use(self.registry).anonymized(context)

    async def _delete_others(self, context: SubjectContext, customer: CustomerSnapshot) -> None:
        """Delete what is stored for the device, unless it is the present customer's."""
        if self._stored is None:
            return
        stored = await context.load_data(self._stored)
        is_own = stored is not None and self._owner_of is not None and self._owner_of(stored) == customer.fingerprint
        if stored is not None and not is_own:
            await context.save_data(self._stored, None)
