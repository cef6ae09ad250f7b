"""
Content blocks: what to put into a placeholder, and what became of it.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING

from exponea_async.config import Configuration
from exponea_async.features._parts import Part
from exponea_async.features._scope import Scope


class ContentBlocks(Part):
    """
    What is kept of content blocks for all subjects of a client.

    Args:
        configuration: The settings.
        clock: Tells UNIX seconds.
    """

    def __init__(self, configuration: Configuration, clock: Callable[[], float]) -> None:
        self._configuration = configuration
        self._clock = clock


class ContentBlockVerbs:
    """The verbs of content blocks."""

    __slots__ = ()

    if TYPE_CHECKING:

        @property
        def _scope(self) -> Scope: ...
