"""
The rules of what may be tracked. Pure.
"""

import logging
from functools import lru_cache

from exponea_async.devices.campaigns import read_query

LOG = logging.getLogger("exponea_async")

#: The parameter of a link that has the click tracked without consent.
FORCE_TRACK = "xnpe_force_track"

_YES = frozenset({"true", "1"})
_NO = frozenset({"false", "0"})


def has_consent(value: object) -> bool:
    """
    Tell whether a ``has_tracking_consent`` says that its message may be tracked, as the vendor's SDKs read it.

    Args:
        value: A bool, 1 or 0, either as a text too, or None, which is a yes. All else is a no.
    """
    if value is None:
        return True
    if isinstance(value, int):
        return value == 1
    word = value.lower() if isinstance(value, str) else None
    if word not in _YES | _NO:
        _tell_once(type(value).__name__)
    return word in _YES


@lru_cache(maxsize=100)
def _tell_once(kind: str) -> None:
    # A slip in a campaign is in each of its messages.
    LOG.warning("A has_tracking_consent of type %s is not understood; nothing is tracked.", kind)


def is_forced(url: str | None) -> bool:
    """
    Tell whether a click on a link is to be tracked without consent, as its ``xnpe_force_track`` says.

    Alone or with an empty value it is a yes, as in the Android SDK.

    Args:
        url: The link of a button or a message, of any scheme, or None.
    """
    value = read_query(url).get(FORCE_TRACK) if url else None
    return value is not None and (not value or value.lower() in _YES)


def may_track(consent: bool, *, consider_consent: bool, url: str | None = None) -> bool:  # noqa: FBT001 - what it is about
    """
    Tell whether something about a message may be tracked.

    Args:
        consent: Whether the message has consent.
        consider_consent: Whether that counts.
        url: Where a click leads to, if it is a click: the link may force its tracking.
    """
    return consent or not consider_consent or is_forced(url)
