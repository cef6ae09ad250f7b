"""
What rooms keep for all subjects of a client.
"""

from collections.abc import Iterable
from typing import Any, TypeVar, cast

from exponea_async.devices.context import SubjectContext
from exponea_async.devices.customers import TrackedEvent
from exponea_async.models import Receipt

P = TypeVar("P")


class Feature:
    """
    What a room keeps for all subjects of a client. One is made for each client and lives as long.

    All but `aclose` are called on the event loop by whoever tracks something, so they must be quick and never raise.
    """

    @property
    def is_listening(self) -> bool:
        """Whether it wants to hear what is tracked. If so, it sets ``recorder.has_subscribers``."""
        return False

    def start(self, context: SubjectContext) -> None:
        """
        The client was started, maybe again after the integration was stopped.

        Args:
            context: Some subject, for what is asked of the project itself; it is not to be brought to life for that.
        """

    def heard(self, context: SubjectContext, heard: TrackedEvent) -> None:
        """Something was tracked on a device; only told while somebody listens."""

    def launched(self, context: SubjectContext) -> None:
        """A device has come to life in this process."""

    def identified(self, context: SubjectContext, receipt: Receipt) -> None:
        """A device's customer was identified; the receipt is that of the update."""

    def anonymized(self, context: SubjectContext) -> None:
        """A device is another customer's from now on."""

    def clear(self) -> None:
        """The integration was stopped: forget everything, show nothing more, let whoever waits go."""

    async def aclose(self) -> None:
        """The client is closing: end what is under way, and all streams."""


class FeatureRegistry:
    """
    The parts of a client, by their class.

    Args:
        parts: One of each.
    """

    def __init__(self, parts: Iterable[Feature]) -> None:
        self._parts: dict[type[Any], Any] = {type(part): part for part in parts}

    def __getitem__(self, kind: type[P]) -> P:
        return cast("P", self._parts[kind])

    @property
    def is_listening(self) -> bool:
        """Whether any wants to hear what is tracked."""
        return any(part.is_listening for part in self._parts.values())

    def start(self, context: SubjectContext) -> None:
        """Tell all that the client was started."""
        for part in self._parts.values():
            part.start(context)

    def heard(self, context: SubjectContext, heard: TrackedEvent) -> None:
        """Tell those that listen."""
        for part in self._parts.values():
            if part.is_listening:
                part.heard(context, heard)

    def launched(self, context: SubjectContext) -> None:
        """Tell all that a device has come to life."""
        for part in self._parts.values():
            part.launched(context)

    def identified(self, context: SubjectContext, receipt: Receipt) -> None:
        """Tell all that a device's customer was identified."""
        for part in self._parts.values():
            part.identified(context, receipt)

    def anonymized(self, context: SubjectContext) -> None:
        """Tell all that a device is another customer's."""
        for part in self._parts.values():
            part.anonymized(context)

    def clear(self) -> None:
        """Tell all that the integration was stopped."""
        for part in self._parts.values():
            part.clear()

    async def aclose(self) -> None:
        """Close all."""
        for part in self._parts.values():
            await part.aclose()
