"""
When a message may be shown again: the dates it is meant for, and how often somebody saw it. Pure.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from attrs import frozen

from exponea_async.features._filters import FilterError

#: What is remembered of a message is forgotten after this, in seconds.
MEMORY = 30 * 86_400.0

ALWAYS = "always"
ONLY_ONCE = "only_once"
ONCE_PER_VISIT = "once_per_visit"
UNTIL_VISITOR_INTERACTS = "until_visitor_interacts"


@frozen
class DateFilter:
    """
    The dates between which a message may be shown, both included.

    Attributes:
        enabled: Whether they count.
        from_date: The first moment, UNIX seconds; None is no bound.
        to_date: The last moment, UNIX seconds; None is no bound.
    """

    enabled: bool = False
    from_date: float | None = None
    to_date: float | None = None

    def passes(self, now: float) -> bool:
        """Tell whether a message may be shown at a moment, UNIX seconds, of which whole ones count as on Android."""
        if not self.enabled:
            return True
        second = int(now)
        return (self.from_date is None or self.from_date <= second) and (self.to_date is None or self.to_date >= second)


@frozen
class Display:
    """
    When a message was last shown to somebody, and when they last did something with it.

    Attributes:
        displayed: The former, UNIX seconds; None is never.
        interacted: The latter, UNIX seconds; None is never.
    """

    displayed: float | None = None
    interacted: float | None = None


def read_date_filter(value: object) -> DateFilter:
    """
    Read the ``date_filter`` of a message or content block.

    Args:
        value: Its JSON value; None lets every moment pass.

    Raises:
        FilterError: It is not written as it should be.
    """
    if value is None:
        return DateFilter()
    if not isinstance(value, Mapping):
        raise FilterError(f"A {type(value).__name__} is no 'date_filter'.")
    enabled = value.get("enabled")
    if enabled is not None and not isinstance(enabled, bool):
        raise FilterError(f"A {type(enabled).__name__} is no bool, as 'enabled' is.")
    return DateFilter(bool(enabled), _moment(value, "from_date"), _moment(value, "to_date"))


def may_show(frequency: str, display: Display | None, visit_start: float) -> bool:
    """
    Tell whether a message may be shown to somebody once more.

    Args:
        frequency: How often it may, such as ``"only_once"``, in whatever case; an unknown one is always, as in the
            vendor's SDKs.
        display: When it was shown; None is never.
        visit_start: When the session began, UNIX seconds.
    """
    if display is None:
        return True
    often = frequency.lower()
    if often == ONLY_ONCE:
        return display.displayed is None
    if often == ONCE_PER_VISIT:
        return display.displayed is None or display.displayed < visit_start
    return often != UNTIL_VISITOR_INTERACTS or display.interacted is None


def purged(displays: Mapping[str, Display], now: float) -> dict[str, Display]:
    """
    Forget of which messages nothing happened for more than `MEMORY`.

    Args:
        displays: What is remembered, by the message's id.
        now: The moment, UNIX seconds.

    Returns:
        What is still to be remembered.
    """
    return {name: each for name, each in displays.items() if _is_fresh(each, now - MEMORY)}


def as_list(displays: Mapping[str, Display]) -> list[list[Any]]:
    """Tell what is remembered as JSON types, in little room."""
    return [
        [name, each.displayed] if each.interacted is None else [name, each.displayed, each.interacted]
        for name, each in displays.items()
    ]


def from_list(kept: Iterable[Iterable[Any]]) -> dict[str, Display]:
    """
    Read what `as_list` told.

    Raises:
        TypeError: It is something else.
    """
    # A name that is no text was a host's mistake, and must not make the whole device unreadable.
    return {name: Display(*moments) for name, *moments in kept if isinstance(name, str)}


def _is_fresh(display: Display, since: float) -> bool:
    return any(moment is not None and moment >= since for moment in (display.displayed, display.interacted))


def _moment(source: Mapping[str, Any], name: str) -> float | None:
    value = source.get(name)
    if value is None or (isinstance(value, int | float) and not isinstance(value, bool)):
        return value
    raise FilterError(f"A {type(value).__name__} is no moment, as {name!r} is.")
