"""
What may be tracked about a message. Pure.
"""

import logging
from functools import lru_cache

from exponea_async.devices.campaigns import read_query

LOG = logging.getLogger("exponea_async")

#: The query parameter of a link whose clicks are tracked without consent.
FORCE_TRACK = "xnpe_force_track"

_YES = frozenset({"true", "1"})
_NO = frozenset({"false", "0"})


def has_consent(value: object) -> bool:
    """
    Return whether a message may be tracked, as the vendor's SDKs read its ``has_tracking_consent``.

    Args:
        value: True, 1, "true", "1" or None for yes, in any case; every other value is a no.
    """
    if value is None:
        return True
    if isinstance(value, int):
        return value == 1
    word = value.lower() if isinstance(value, str) else None
    if word not in _YES | _NO:
        warn_once(type(value).__name__)
    return word in _YES


@lru_cache(maxsize=100)
def warn_once(kind: str) -> None:
    """Log that the consent of a message has a wrong type, once for each type."""
    # A mistake in a campaign is in each of its messages.
    LOG.warning("has_tracking_consent: expected a boolean, got %s; the message is not tracked.", kind)


def forces_tracking(url: str | None) -> bool:
    """
    Return whether a click on a link is tracked without consent, as its ``xnpe_force_track`` says.

    The parameter without a value, or with an empty one, means yes, as in the Android SDK.

    Args:
        url: The link of a button or message, with any scheme, or None.
    """
    value = read_query(url).get(FORCE_TRACK) if url else None
    return value is not None and (not value or value.lower() in _YES)


def may_track(*, has_consent: bool, consider_consent: bool, url: str | None = None) -> bool:
    """
    Return whether an event about a message may be tracked.

    Args:
        has_consent: Whether the message says that the customer has consented.
        consider_consent: Whether that counts.
        url: The link that was clicked, if the event is a click: it may force the tracking.
    """
    return has_consent or not consider_consent or forces_tracking(url)
