"""
Change an event before it is kept; hear what became of it.
"""

import logging
from collections.abc import Callable, Sequence
from typing import Literal

from attrs import field, frozen

from exponea_async.errors import ExponeaError
from exponea_async.models import Event

LOG = logging.getLogger("exponea_async")


@frozen
class Notice:
    """
    Something that became of records, or of a project.

    Attributes:
        kind: ``"delivered"``, ``"rejected"``, ``"dropped"`` and ``"retried"`` are about records, ``"paused"``,
            ``"resumed"`` and ``"unavailable"`` about a project, ``"damaged"`` about the queue's file.
        ids: The records, as in `Receipt.ids`; empty where it is about no records.
        project: The project's address; empty where it is about none.
        reason: Why, in words.
        error: The error behind it, where there is one.
    """

    kind: Literal["delivered", "rejected", "dropped", "retried", "paused", "resumed", "unavailable", "damaged"]
    ids: tuple[str, ...] = ()
    project: str = ""
    reason: str = ""
    error: ExponeaError | None = None


@frozen
class Hooks:
    """
    What an application wants to have a say in.

    Args:
        before_track: A plain function that gets each `Event` before it is kept and returns it, changed or not, or
            None to drop it. What it raises reaches the caller of the verb, and nothing is kept.
        listeners: Plain functions that get each `Notice`. They run on the event loop and must be quick; what they
            raise is logged.
    """

    before_track: Callable[[Event], Event | None] | None = None
    listeners: Sequence[Callable[[Notice], None]] = field(default=(), converter=tuple)

    def tell(self, notice: Notice) -> None:
        """Let every listener know."""
        for listener in self.listeners:
            try:
                listener(notice)
            except Exception:
                LOG.exception("A listener failed on a %r notice.", notice.kind)
