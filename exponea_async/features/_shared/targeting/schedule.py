"""
When a message may be shown: between which dates, and how often to one customer. Pure.
"""

from math import ceil, floor
from typing import Any

from attrs import frozen

from exponea_async._internal.fields import FieldError, as_boolean, as_mapping, as_number, nullable
from exponea_async.devices.impressions import Impression

ALWAYS = "always"
ONLY_ONCE = "only_once"
ONCE_PER_VISIT = "once_per_visit"
UNTIL_VISITOR_INTERACTS = "until_visitor_interacts"


@frozen
class DateFilter:
    """
    The dates between which a message may be shown, both inclusive.

    Attributes:
        enabled: Whether they count.
        from_date: The first second, UNIX time; None for no bound.
        to_date: The last second, UNIX time; None for no bound.
    """

    enabled: bool = False
    from_date: int | None = None
    to_date: int | None = None

    def includes(self, now: float) -> bool:
        """Return whether a message may be shown at a time, UNIX seconds; fractions do not count, as on Android."""
        if not self.enabled:
            return True
        second = int(now)
        return (self.from_date is None or self.from_date <= second) and (self.to_date is None or self.to_date >= second)


def read_date_filter(value: Any) -> DateFilter:
    """
    Read the ``date_filter`` of a message or content block.

    Args:
        value: Its JSON value; None allows all times.

    Raises:
        FieldError: A field is of another type.
    """
    if value is None:
        return DateFilter()
    try:
        source = as_mapping(value)
        enabled = nullable(source, "enabled", as_boolean)
        from_date, to_date = nullable(source, "from_date", as_number), nullable(source, "to_date", as_number)
    except FieldError as error:
        raise FieldError(f"date_filter: {error}") from None
    # Integers, because comparing an integer with a float takes longer, and this is done for each message and event.
    return DateFilter(
        bool(enabled), None if from_date is None else ceil(from_date), None if to_date is None else floor(to_date)
    )


def may_show(frequency: str, impression: Impression | None, session_start: float) -> bool:
    """
    Return whether a message may be shown to a customer again.

    Args:
        frequency: How often it may be shown, such as ``"only_once"``, in any case; an unknown one means always, as in
            the vendor's SDKs.
        impression: When it was shown; None if never.
        session_start: When the session began, UNIX seconds.
    """
    if impression is None:
        return True
    rule = frequency.lower()
    if rule == ONLY_ONCE:
        return impression.displayed is None
    if rule == ONCE_PER_VISIT:
        return impression.displayed is None or impression.displayed < session_start
    return rule != UNTIL_VISITOR_INTERACTS or impression.interacted is None
