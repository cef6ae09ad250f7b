"""
What a device remembers of the messages that were shown on it. Pure.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from attrs import frozen

#: Seconds after which an impression is forgotten.
RETENTION = 30 * 86_400.0


@frozen
class Impression:
    """
    When a message was last shown to the customer, and when the customer last interacted with it.

    Attributes:
        displayed: The time of the last display, UNIX seconds; None if never.
        interacted: The time of the last interaction, UNIX seconds; None if never.
    """

    displayed: float | None = None
    interacted: float | None = None


def unexpired(impressions: Mapping[str, Impression], now: float) -> dict[str, Impression]:
    """
    Return the impressions that are not older than `RETENTION`.

    Args:
        impressions: The impressions by message id.
        now: The current time, UNIX seconds.
    """
    return {name: each for name, each in impressions.items() if _is_fresh(each, now - RETENTION)}


def as_list(impressions: Mapping[str, Impression]) -> list[list[Any]]:
    """Return the impressions as JSON types, in little space."""
    return [
        [name, each.displayed] if each.interacted is None else [name, each.displayed, each.interacted]
        for name, each in impressions.items()
    ]


def from_list(stored: Iterable[Iterable[Any]]) -> dict[str, Impression]:
    """
    Read what `as_list` returned.

    Raises:
        TypeError: It is something else.
    """
    # A name that is not a string was a host's mistake, and must not make the whole device unreadable.
    return {name: Impression(*times) for name, *times in stored if isinstance(name, str)}


def _is_fresh(impression: Impression, since: float) -> bool:
    return any(at is not None and at >= since for at in (impression.displayed, impression.interacted))
