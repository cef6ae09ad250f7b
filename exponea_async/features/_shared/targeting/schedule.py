"""
When a message may be shown: the dates it is meant for, and how often a customer may see it. Pure.
"""

from collections.abc import Mapping
from typing import Any

from attrs import frozen

from exponea_async.devices.impressions import Impression
from exponea_async.features._shared.targeting.filters import FilterError

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


def may_show(frequency: str, display: Impression | None, visit_start: float) -> bool:
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


def _moment(source: Mapping[str, Any], name: str) -> float | None:
    value = source.get(name)
    if value is None or (isinstance(value, int | float) and not isinstance(value, bool)):
        return value
    raise FilterError(f"A {type(value).__name__} is no moment, as {name!r} is.")
