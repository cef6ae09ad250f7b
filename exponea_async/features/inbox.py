"""
The app inbox: messages that wait to be read.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING

from exponea_async.config import Configuration
from exponea_async.features._parts import Part
from exponea_async.features._scope import Scope


class Inbox(Part):
    """
    What is kept of the app inbox for all subjects of a client.

    Args:
        configuration: The settings.
        clock: Tells UNIX seconds.
    """

    def __init__(self, configuration: Configuration, clock: Callable[[], float]) -> None:
        self._configuration = configuration
        self._clock = clock


class InboxVerbs:
    """The verbs of the app inbox."""

    __slots__ = ()

    if TYPE_CHECKING:

        @property
        def _scope(self) -> Scope: ...
