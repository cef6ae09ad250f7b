"""
The campaign of a link or of a push notification. Pure.
"""

from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Self
from urllib.parse import SplitResult, parse_qsl, urlsplit

from attrs import asdict, fields, frozen

#: The query parameters of a campaign, which are the names of the event properties too.
PARAMETERS = ("utm_source", "utm_medium", "utm_campaign", "utm_content", "utm_term", "xnpe_cmp")


@frozen(kw_only=True)
class Campaign:
    """
    The campaign that led a customer here.

    Attributes:
        url: The whole link as it was given; None for a push notification.
        utm_source: The source of the link, such as ``"newsletter"``.
        utm_medium: The medium, such as ``"email"``.
        utm_campaign: The campaign's name.
        utm_content: Which of the campaign's links it is.
        utm_term: The search term.
        xnpe_cmp: Engagement's own id of the campaign.
        created_at: When the link was opened, UNIX seconds.
    """

    url: str | None = None
    utm_source: str | None = None
    utm_medium: str | None = None
    utm_campaign: str | None = None
    utm_content: str | None = None
    utm_term: str | None = None
    xnpe_cmp: str | None = None
    created_at: float

    @property
    def is_click(self) -> bool:
        """Whether Engagement can count the visit as a click: it has a link with an ``xnpe_cmp``."""
        return bool(self.url and self.xnpe_cmp)

    def properties(self) -> dict[str, str]:
        """Return the properties that are merged into a ``session_start`` or an event about a push notification."""
        values = ((name, getattr(self, name)) for name in ("url", *PARAMETERS))
        return {name: value for name, value in values if value is not None}

    def as_dict(self) -> dict[str, Any]:
        """Return the campaign as JSON types, to be stored."""
        return asdict(self)

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any]) -> Self:
        """
        Read what `as_dict` returned; fields of later versions are ignored.

        Raises:
            TypeError: ``created_at`` is missing.
        """
        return cls(**{each.name: stored[each.name] for each in fields(cls) if each.name in stored})


def read_link(url: str, now: float) -> Campaign | None:
    """
    Return the campaign of a link that was opened now.

    Any scheme is accepted, and a link without parameters is a visit too, as in the Android SDK.

    Args:
        url: The link.
        now: The current time, UNIX seconds.

    Returns:
        The campaign, or None if the string is not a link with a scheme.
    """
    parts = _split(url)
    if parts is None or not parts.scheme:
        return None
    query = read_query(url)
    return Campaign(url=url, created_at=now, **{name: query.get(name) for name in PARAMETERS})


def read_url_params(params: Mapping[str, Any], now: float) -> Campaign | None:
    """
    Return the campaign of a push notification that was opened now.

    Args:
        params: The ``url_params`` of the notification; names other than those of a link are ignored.
        now: The current time, UNIX seconds.

    Returns:
        The campaign, or None if no parameter names one.
    """
    values = {name: _string(params.get(name)) for name in PARAMETERS}
    if all(value is None for value in values.values()):
        return None
    return Campaign(created_at=now, **values)


def is_alive(campaign: Campaign, now: float, ttl: float) -> bool:
    """
    Return whether an event of now may be attributed to a campaign.

    Args:
        campaign: The campaign.
        now: The current time, UNIX seconds.
        ttl: Seconds of validity. They count in both directions, as in the Android SDK, for clocks that are set back.
    """
    return abs(now - campaign.created_at) <= ttl


def read_query(url: str) -> dict[str, str]:
    """
    Return the query parameters of a link, the first of each name.

    An address such as ``mailto:jane@example.com`` has none.

    A ``+`` is a space, as in the Android SDK.
    """
    parts = _split(url)
    # The parts are not enough: urlsplit drops the slashes of "app://?a=1".
    if parts is None or (parts.scheme and not url.partition(":")[2].startswith("/")):
        return {}
    return dict(reversed(parse_qsl(parts.query, keep_blank_values=True)))


def _split(url: object) -> SplitResult | None:
    with suppress(ValueError):
        return urlsplit(url) if isinstance(url, str) else None
    return None


def _string(value: object) -> str | None:
    if isinstance(value, str):
        return value
    with suppress(ValueError):  # an int with more digits than Python converts
        return str(value) if isinstance(value, int | float) and not isinstance(value, bool) else None
    return None
