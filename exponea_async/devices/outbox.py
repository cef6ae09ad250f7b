"""
Devices in a transaction of the application: their states are read and changed in it, and never cached.
"""

from collections.abc import Callable, Mapping
from typing import Any

from exponea_async._pipeline.outbox import OutboxRecorder
from exponea_async.devices.context import SubjectContext
from exponea_async.devices.customers import CustomerSnapshot, TrackedEvent
from exponea_async.devices.device_context import DeviceContext
from exponea_async.devices.features import FeatureRegistry
from exponea_async.devices.store import CachedDevice, DeviceStore
from exponea_async.errors import LifecycleError
from exponea_async.models import Receipt
from exponea_async.storage.base import TransactionStorage


class OutboxFeatures(FeatureRegistry):
    """
    Notifies the features of the client of what is tracked in a transaction, once that is committed.

    Args:
        devices: The devices of the client.
    """

    def __init__(self, devices: DeviceStore) -> None:
        super().__init__(_refuse)
        self._devices = devices
        self.has_subscribers = devices.features.has_subscribers
        self._notifications: list[Callable[[], None]] = []

    def notify_tracked(self, context: SubjectContext, event: TrackedEvent) -> None:
        """Notify the features that listen of an event, once it is committed."""
        receipt = event.receipt
        if receipt is None:
            return

        def notify() -> None:
            # It may have been rolled back with a savepoint.
            if receipt.status != "dropped":
                self._devices.features.notify_tracked(self._outside(context), event)

        self._notifications.append(notify)

    def notify_launched(self, context: SubjectContext) -> None:
        """Notify all features of a device's first activity, once it is committed."""
        self._notifications.append(lambda: self._devices.features.notify_launched(self._outside(context)))

    def notify_identified(self, context: SubjectContext, receipt: Receipt, previous: CustomerSnapshot | None) -> None:
        """Notify all features that a device's customer was identified, once that is committed."""

        def notify() -> None:
            if receipt.status != "dropped":
                self._devices.features.notify_identified(self._outside(context), receipt, previous)

        self._notifications.append(notify)

    def notify_anonymized(self, context: SubjectContext) -> None:
        """Notify all features that a device belongs to another customer, once that is committed."""
        self._notifications.append(lambda: self._devices.features.notify_anonymized(self._outside(context)))

    def publish(self) -> None:
        """Notify the features of everything so far: it is committed."""
        notifications, self._notifications = self._notifications, []
        for notify in notifications:
            notify()

    def _outside(self, context: SubjectContext) -> SubjectContext:
        """Return the context of the same device outside of the transaction."""
        outside = DeviceContext(context.key or "", self._devices)
        return outside.with_properties(context.properties)


class OutboxDevices(DeviceStore):
    """
    The devices as a transaction of the application sees them.

    Args:
        devices: The devices of the client.
        storage: Reads and writes in the transaction.
        recorder: Records their events in it.
        features: Notified once the transaction is committed.
    """

    def __init__(
        self, devices: DeviceStore, storage: TransactionStorage, recorder: OutboxRecorder, features: OutboxFeatures
    ) -> None:
        super().__init__(storage, recorder, devices.configuration, features, devices.api)
        self._outside = devices
        self.withdrawals = devices.withdrawals
        recorder.is_withdrawn = self.withdrawals.includes_customer
        self.opened, self.received = devices.opened, devices.received

    def cached(self, name: str) -> CachedDevice:
        """
        Return an entry for a device without its state, which is loaded again by each call.

        A savepoint may have been rolled back in between. Then another transaction may give the same version to another
        state, and the comparison of versions would not notice it.
        """
        known = self._cached.get(name) or self._outside.peek(name)
        device = CachedDevice(name, launched=known is not None and known.launched)
        if known in self.foreground or known in self._outside.foreground:
            self.foreground.add(device)
        self._cached[name] = device
        return device

    async def withdraw_device(self, key: str) -> int:  # noqa: ARG002 - of whichever device
        """Raise a `LifecycleError`: erasing is not part of a transaction."""
        raise _not_erased()

    async def withdraw_customer(self, ids: Mapping[str, str]) -> tuple[int, set[str]]:  # noqa: ARG002 - of whichever customer
        """Raise a `LifecycleError`: erasing is not part of a transaction."""
        raise _not_erased()


def _not_erased() -> LifecycleError:
    return LifecycleError(
        "What is stored about an end user can't be erased in a transaction.",
        hint="Use the forget() of the client's own device(key) or for_customer(ids).",
    )


def _refuse(kind: type[Any]) -> Any:
    # They would wait for the platform while the transaction is open, and go on with its devices after its end.
    raise LifecycleError(
        f"{kind.__name__} are not available in a transaction.", hint="Use the client or its device(key) instead."
    )
