"""
Links that campaigns lead people with: which campaign it was. Pure.
"""

from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Self
from urllib.parse import SplitResult, parse_qsl, urlsplit

from attrs import asdict, fields, frozen

#: What a link tells about its campaign; names of parameters and of event properties alike.
PARAMETERS = ("utm_source", "utm_medium", "utm_campaign", "utm_content", "utm_term", "xnpe_cmp")


@frozen(kw_only=True)
class Campaign:
    """
    The campaign that brought somebody here.

    Attributes:
        url: The whole link, as it was given; None where a push notification told the rest.
        utm_source: Where the link stood, such as ``"newsletter"``.
        utm_medium: By what it came, such as ``"email"``.
        utm_campaign: The campaign's name.
        utm_content: Which of its links it was.
        utm_term: What was searched for.
        xnpe_cmp: Engagement's own sign of the campaign.
        created_at: When somebody came, UNIX seconds.
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
        """Whether the visit is a click that Engagement can count: a link with an ``xnpe_cmp``."""
        return bool(self.url and self.xnpe_cmp)

    def properties(self) -> dict[str, str]:
        """Tell what is merged into the start of a session, or into an event about a push notification."""
        told = ((name, getattr(self, name)) for name in ("url", *PARAMETERS))
        return {name: value for name, value in told if value is not None}

    def as_dict(self) -> dict[str, Any]:
        """Tell all of it as JSON types, to be remembered."""
        return asdict(self)

    @classmethod
    def from_dict(cls, kept: Mapping[str, Any]) -> Self:
        """
        Read what `as_dict` told; what later versions may add is ignored.

        Raises:
            TypeError: The moment is missing.
        """
        return cls(**{each.name: kept[each.name] for each in fields(cls) if each.name in kept})


def read_link(url: str, now: float) -> Campaign | None:
    """
    Read the campaign of a link that somebody opened now.

    Any scheme will do, as for the Android SDK, and a link without any parameter is a visit too.

    Args:
        url: The link.
        now: The moment, UNIX seconds.

    Returns:
        The campaign, or None where the text is no link with a scheme.
    """
    parts = _split(url)
    if parts is None or not parts.scheme:
        return None
    query = read_query(url)
    return Campaign(url=url, created_at=now, **{name: query.get(name) for name in PARAMETERS})


def read_url_params(params: Mapping[str, Any], now: float) -> Campaign | None:
    """
    Read the campaign of a push notification that somebody opened now.

    Args:
        params: What the notification has as ``url_params``; other names than a link's are ignored.
        now: The moment, UNIX seconds.

    Returns:
        The campaign, or None where nothing is told of one.
    """
    told = {name: _text(params.get(name)) for name in PARAMETERS}
    if all(value is None for value in told.values()):
        return None
    return Campaign(created_at=now, **told)


def is_alive(campaign: Campaign, now: float, ttl: float) -> bool:
    """
    Tell whether a campaign may still be said to have led to what happens now.

    Args:
        campaign: The campaign.
        now: The moment, UNIX seconds.
        ttl: How long it may, in seconds. As in the Android SDK it counts both ways, for clocks that are set back.
    """
    return abs(now - campaign.created_at) <= ttl


def read_query(url: str) -> dict[str, str]:
    """
    Read the parameters in a link, the first of each name; there are none in what is no link, such as ``mailto:``.

    As in the Android SDK a ``+`` is a space.
    """
    parts = _split(url)
    # Not by the parts: urlsplit tells nothing of the slashes in "app://?a=1".
    if parts is None or (parts.scheme and not url.partition(":")[2].startswith("/")):
        return {}
    return dict(reversed(parse_qsl(parts.query, keep_blank_values=True)))


def _split(url: object) -> SplitResult | None:
    with suppress(ValueError):
        return urlsplit(url) if isinstance(url, str) else None
    return None


def _text(value: object) -> str | None:
    if isinstance(value, str):
        return value
    with suppress(ValueError):  # an int of more digits than Python is willing to print
        return str(value) if isinstance(value, int | float) and not isinstance(value, bool) else None
    return None
