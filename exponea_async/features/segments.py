"""
Segments: the groups that a customer belongs to.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING

from exponea_async.config import Configuration
from exponea_async.features._parts import Part
from exponea_async.features._scope import Scope


class Segments(Part):
    """
    What is kept of segments for all subjects of a client.

    Args:
        configuration: The settings.
        clock: Tells UNIX seconds.
    """

    def __init__(self, configuration: Configuration, clock: Callable[[], float]) -> None:
        self._configuration = configuration
        self._clock = clock


class SegmentVerbs:
    """The verbs of segments."""

    __slots__ = ()

    if TYPE_CHECKING:

        @property
        def _scope(self) -> Scope: ...
