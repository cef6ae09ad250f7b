"""
Features with state that all subjects of a client share, and the registry that notifies them.
"""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack
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
        name: The name of the feature, which no other one has.
        registry: The registry of the client, which sets this.
        tasks: The background tasks of the feature.
    """

    name: str
    registry: "FeatureRegistry"

    def __init__(self) -> None:
        self.tasks = BackgroundTasks()

    @property
    def is_listening(self) -> bool:
        """Whether `tracked` is to be called. The feature calls ``registry.refresh()`` when this becomes true."""
        return False

    def start(self, context: SubjectContext, at: float) -> None:
        """
        Prepare for a client that was started, possibly again after the integration was stopped.

        Args:
            context: Any subject, for requests about the project itself; it must not be counted as active for that.
            at: When the client was started, UNIX seconds; a feature that is used later is started later.
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

    def close(self) -> None:
        """End all streams: the client is closing. The background tasks are cancelled afterwards."""


class FeatureRegistry:
    """
    The features of a client, by class. Each is created when it is used first, so that the others need not be imported.

    Args:
        create: Creates a feature of a class.

    Attributes:
        has_subscribers: Whether any feature listens to tracked events. Each event reads it, so it is a plain attribute.
    """

    def __init__(self, create: Callable[[type[Any]], Any]) -> None:
        self.has_subscribers = False
        self._create = create
        self._features: dict[str, Any] = {}
        self._start: tuple[SubjectContext, float] | None = None
        self._is_closed = False

    def add(self, feature: Feature) -> None:
        """Add a feature."""
        feature.registry = self
        self._features[feature.name] = feature
        self.refresh()

    def refresh(self) -> None:
        """Find out again whether any feature listens."""
        self.has_subscribers = any(feature.is_listening for feature in self)

    def __getitem__(self, kind: type[F]) -> F:
        feature = self._features.get(kind.name)
        return cast("F", self.use(kind) if feature is None else feature)

    def __iter__(self) -> Iterator[Feature]:
        return iter(tuple(self._features.values()))

    def is_used(self, name: str) -> bool:
        """Return whether a feature was created."""
        return name in self._features

    def use(self, kind: type[F]) -> F:
        """Create a feature, which was not used yet."""
        feature: F = self._create(kind)
        self.add(feature)
        if self._start is not None:
            feature.start(*self._start)
        if self._is_closed:
            feature.close()
        return feature

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

    def start(self, context: SubjectContext, at: float) -> None:
        """Start all features; those that are used later are started then, with the same arguments."""
        self._start = (context, at)
        for feature in self:
            feature.start(context, at)

    def clear(self) -> None:
        """Clear all features."""
        for feature in self:
            feature.clear()

    async def aclose(self) -> None:
        """Close all features."""
        self._is_closed = True
        async with AsyncExitStack() as stack:
            # All streams end, and the tasks of all features, also where this is cancelled.
            for feature in self:
                feature.close()
                stack.push_async_callback(feature.tasks.aclose)
