"""
Which push tokens a customer has, as the platform learns it from events and from older SDKs' properties. Pure.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from exponea_async.sandbox.models import PushToken

NOTIFICATION_STATE = "notification_state"
DEFAULT_APPLICATION = "default-application"
#: Older SDKs set a property of the customer, and empty it when the token is gone.
LEGACY = {
    "google_push_notification_id": "android",
    "huawei_push_notification_id": "huawei",
    "apple_push_notification_id": "ios",
}

#: A customer has one token for each platform and application.
Tokens = dict[tuple[str, str], PushToken]


def told_by_event(event_type: str, properties: Mapping[str, Any], at: float) -> Iterator[PushToken]:
    """Reads the token that an event tells of, if it does."""
    if event_type != NOTIFICATION_STATE:
        return
    token: Any = properties.get("push_notification_token")
    platform: Any = properties.get("platform")
    application: Any = properties.get("application_id", DEFAULT_APPLICATION)
    if token and all(isinstance(each, str) for each in (token, platform, application)):
        # "Permission denied" and "Invalidated" say the same as `valid`.
        yield PushToken(token, platform, application, properties.get("valid") is True, at)


def told_by_properties(properties: Mapping[str, Any], at: float) -> Iterator[PushToken]:
    """Reads the tokens that an update of a customer sets, or takes away."""
    for name, platform in LEGACY.items():
        if name in properties:
            value = properties[name]
            token = value if isinstance(value, str) else ""
            yield PushToken(token, platform, DEFAULT_APPLICATION, token != "", at)


def note(tokens: Tokens, fresh: Iterable[PushToken]) -> None:
    """Takes over each state of a token that is not older than the kept one."""
    for each in fresh:
        place = (each.platform, each.application_id)
        kept = tokens.get(place)
        if kept is None or kept.at <= each.at:
            tokens[place] = each


class Owners:
    """Who of all customers has a token: who said so last, for the device may be another customer's now."""

    def __init__(self) -> None:
        self._latest: dict[tuple[str, str, str], PushToken] = {}

    def note(self, fresh: Iterable[PushToken]) -> None:
        """Hears what a customer says; who says that it has no token takes it from nobody."""
        for each in fresh:
            place = (each.platform, each.application_id, each.token)
            kept = self._latest.get(place)
            if each.valid and (kept is None or kept.at <= each.at):
                self._latest[place] = each

    def shown(self, tokens: Tokens) -> tuple[PushToken, ...]:
        """Tells a customer's tokens, without those that another one has now."""
        return tuple(each for each in tokens.values() if each.token and self._is_own(each))

    def _is_own(self, each: PushToken) -> bool:
        # The very object: another customer's may be equal to it.
        return not each.valid or self._latest[each.platform, each.application_id, each.token] is each
