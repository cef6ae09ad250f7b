"""
What a device remembers of the messages that were shown on it. Pure.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from attrs import frozen

#: What is remembered of a message is forgotten after this, in seconds.
MEMORY = 30 * 86_400.0


@frozen
class Impression:
    """
    When a message was last shown to somebody, and when they last did something with it.

    Attributes:
        displayed: The former, UNIX seconds; None is never.
        interacted: The latter, UNIX seconds; None is never.
    """

    displayed: float | None = None
    interacted: float | None = None


def purged(displays: Mapping[str, Impression], now: float) -> dict[str, Impression]:
    """
    Forget of which messages nothing happened for more than `MEMORY`.

    Args:
        displays: What is remembered, by the message's id.
        now: The moment, UNIX seconds.

    Returns:
        What is still to be remembered.
    """
    return {name: each for name, each in displays.items() if _is_fresh(each, now - MEMORY)}


def as_list(displays: Mapping[str, Impression]) -> list[list[Any]]:
    """Tell what is remembered as JSON types, in little room."""
    return [
        [name, each.displayed] if each.interacted is None else [name, each.displayed, each.interacted]
        for name, each in displays.items()
    ]


def from_list(kept: Iterable[Iterable[Any]]) -> dict[str, Impression]:
    """
    Read what `as_list` told.

    Raises:
        TypeError: It is something else.
    """
    # A name that is no text was a host's mistake, and must not make the whole device unreadable.
    return {name: Impression(*moments) for name, *moments in kept if isinstance(name, str)}


def _is_fresh(display: Impression, since: float) -> bool:
    return any(moment is not None and moment >= since for moment in (display.displayed, display.interacted))
