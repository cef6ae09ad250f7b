"""
Features with state that all subjects of a client share, and the registry that notifies them.
"""

import asyncio
from collections.abc import Iterable, Iterator
from typing import Any, TypeVar, cast

from exponea_async._internal.concurrency import BackgroundTasks
from exponea_async.devices.context import SubjectContext
from exponea_async.devices.customers import CustomerSnapshot, TrackedEvent
from exponea_async.models import Receipt

F = TypeVar("F", bound="Feature")


class Feature:
    """
    What a feature shares between all subjects of a client: one instance per client, alive as long as the client.

    All methods but `aclose` are called on the event loop by the call that tracks something, so they must be quick and
    must not raise.

    Attributes:
        registry: The registry of the client, which sets this.
        tasks: The background tasks of the feature.
    """

    registry: "FeatureRegistry"

    def __init__(self) -> None:
        self.tasks = BackgroundTasks()

    @property
    def is_listening(self) -> bool:
        """Whether `tracked` is to be called. The feature calls ``registry.refresh()`` when this becomes true."""
        return False

    def start(self, context: SubjectContext) -> None:
        """
        Prepare for a client that was started, possibly again after the integration was stopped.

        Args:
            context: Any subject, for requests about the project itself; it must not be counted as active for that.
        """

    def tracked(self, context: SubjectContext, event: TrackedEvent) -> None:
        """Handle an event of a device; only called while `is_listening`."""

    def launched(self, context: SubjectContext) -> None:
        """Handle the first activity of a device in this process."""

    def identified(self, context: SubjectContext, receipt: Receipt, previous: CustomerSnapshot | None) -> None:
        """
        Handle the identification of a device's customer.

        Args:
            context: The device.
            receipt: The receipt of the update.
            previous: The customer before; None where the integration is stopped.
        """

    def anonymized(self, context: SubjectContext) -> None:
        """Handle that a device belongs to another customer from now on."""

    def clear(self) -> None:
        """Forget everything and end what is shown: the integration was stopped."""

    async def aclose(self) -> None:
        """End background work and all streams: the client is closing."""


class FeatureRegistry:
    """
    The features of a client, by class.

    Args:
        features: One instance of each.

    Attributes:
        has_subscribers: Whether any feature listens to tracked events. Each event reads it, so it is a plain attribute.
    """

    def __init__(self, features: Iterable[Feature]) -> None:
        self.has_subscribers = False
        self._features: dict[type[Any], Any] = {}
        for feature in features:
            self.add(feature)

    def add(self, feature: Feature) -> None:
        """Add a feature."""
        feature.registry = self
        self._features[type(feature)] = feature
        self.refresh()

    def refresh(self) -> None:
        """Find out again whether any feature listens."""
        self.has_subscribers = any(feature.is_listening for feature in self)

    def __getitem__(self, kind: type[F]) -> F:
        return cast("F", self._features[kind])

    def __iter__(self) -> Iterator[Feature]:
        return iter(self._features.values())

    def notify_tracked(self, context: SubjectContext, event: TrackedEvent) -> None:
        """Notify the features that listen of an event."""
        for feature in self:
            if feature.is_listening:
                feature.tracked(context, event)
        self.refresh()

    def notify_launched(self, context: SubjectContext) -> None:
        """Notify all features of a device's first activity in this process."""
        for feature in self:
            feature.launched(context)

    def notify_identified(self, context: SubjectContext, receipt: Receipt, previous: CustomerSnapshot | None) -> None:
        """Notify all features that a device's customer was identified."""
        for feature in self:
            feature.identified(context, receipt, previous)

    def notify_anonymized(self, context: SubjectContext) -> None:
        """Notify all features that a device belongs to another customer."""
        for feature in self:
            feature.anonymized(context)

    def active_tasks(self) -> set["asyncio.Task[Any]"]:
        """Return the background tasks of all features, except the dormant ones."""
        return set().union(*(feature.tasks.active for feature in self))

    def start(self, context: SubjectContext) -> None:
        """Start all features."""
        for feature in self:
            feature.start(context)

    def clear(self) -> None:
        """Clear all features."""
        for feature in self:
            feature.clear()

    async def aclose(self) -> None:
        """Close all features."""
        for feature in self:
            await feature.aclose()
