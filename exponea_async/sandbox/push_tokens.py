"""
The push tokens of customers, read from events and from the properties that older SDKs set. Pure.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from exponea_async.sandbox.models import PushToken

NOTIFICATION_STATE = "notification_state"
DEFAULT_APPLICATION = "default-application"
#: The customer properties of older SDKs with their platforms; an empty property means that there is no token.
LEGACY_PROPERTIES = {
    "google_push_notification_id": "android",
    "huawei_push_notification_id": "huawei",
    "apple_push_notification_id": "ios",
}

#: The tokens of a customer by platform and application.
Tokens = dict[tuple[str, str], PushToken]


def tokens_of_event(event_type: str, properties: Mapping[str, Any], at: float) -> Iterator[PushToken]:
    """Return the push token in an event, if there is one."""
    if event_type != NOTIFICATION_STATE:
        return
    token: Any = properties.get("push_notification_token")
    platform: Any = properties.get("platform")
    application: Any = properties.get("application_id", DEFAULT_APPLICATION)
    if token and all(isinstance(each, str) for each in (token, platform, application)):
        # The descriptions "Permission denied" and "Invalidated" repeat what `valid` says.
        yield PushToken(token, platform, application, properties.get("valid") is True, at)


def tokens_of_properties(properties: Mapping[str, Any], at: float) -> Iterator[PushToken]:
    """Return the push tokens that an update of a customer sets or removes."""
    for name, platform in LEGACY_PROPERTIES.items():
        if name in properties:
            value = properties[name]
            token = value if isinstance(value, str) else ""
            yield PushToken(token, platform, DEFAULT_APPLICATION, token != "", at)


def update_tokens(tokens: Tokens, updates: Iterable[PushToken]) -> None:
    """Store each update that is not older than the stored token."""
    for update in updates:
        key = (update.platform, update.application_id)
        current = tokens.get(key)
        if current is None or current.at <= update.at:
            tokens[key] = update


class TokenOwners:
    """The latest owner of each token: a device, and so its token, can pass from one customer to another."""

    def __init__(self) -> None:
        self._latest: dict[tuple[str, str, str], PushToken] = {}

    def update(self, updates: Iterable[PushToken]) -> None:
        """Store the owners of valid tokens; an invalid token changes no owner."""
        for update in updates:
            key = _key(update)
            current = self._latest.get(key)
            if update.valid and (current is None or current.at <= update.at):
                self._latest[key] = update

    def owned(self, tokens: Tokens) -> tuple[PushToken, ...]:
        """Return the tokens of a customer without those that another customer owns now."""
        return tuple(each for each in tokens.values() if each.token and self._is_owned(each))

    def _is_owned(self, token: PushToken) -> bool:
        # Compared by identity: the token of another customer may be equal.
        return not token.valid or self._latest[_key(token)] is token


def _key(token: PushToken) -> tuple[str, str, str]:
    return (token.platform, token.application_id, token.token)
