"""
Push tokens: when to tell Engagement of one, and what. Pure.

Each function takes what was told last and gives what is to be remembered then, with the states to track, in order.
"""

from collections.abc import Mapping
from typing import Any, Literal, Self, TypedDict, Unpack

from attrs import asdict, evolve, field, fields, frozen

from exponea_async.errors import InvalidEventError
from exponea_async.models import TokenFrequency

Platform = Literal["android", "huawei", "ios"]

GRANTED = "Permission granted"
DENIED = "Permission denied"
INVALIDATED = "Invalidated"

_DAY = 86_400
_LEGACY: Mapping[Platform, str] = {
    "android": "google_push_notification_id",
    "huawei": "huawei_push_notification_id",
    "ios": "apple_push_notification_id",
}


@frozen
class TokenState:
    """
    What Engagement is told of a token.

    Attributes:
        token: The token.
        platform: Whose it is.
        valid: Whether notifications may be sent to it.
        description: Why, in the vendor's words.
    """

    token: str = field(repr=False)
    platform: Platform
    valid: bool
    description: str

    def properties(self) -> dict[str, Any]:
        """Tell the properties of the event ``notification_state``."""
        return {
            "push_notification_token": self.token,
            "platform": self.platform,
            "valid": self.valid,
            "description": self.description,
        }


@frozen(kw_only=True)
class TokenMemory:
    """
    What a device remembers of its token.

    Attributes:
        token: The token.
        platform: Whose it is.
        tracked_at: When it was tracked last, UNIX seconds.
        granted: Whether the user allows notifications, as far as is known.
        app_version: The application's version when it was tracked.
        application_id: The application's id when it was tracked.
        valid: Whether it was told to be valid.
    """

    token: str = field(repr=False)
    platform: Platform
    tracked_at: float
    granted: bool
    app_version: str | None
    application_id: str
    valid: bool

    def state(self) -> TokenState:
        """Tell the state that goes with it."""
        return TokenState(self.token, self.platform, self.valid, GRANTED if self.valid else DENIED)

    def as_dict(self) -> dict[str, Any]:
        """Tell all of it as JSON types, to be remembered."""
        return asdict(self)

    @classmethod
    def from_dict(cls, kept: Mapping[str, Any]) -> Self:
        """
        Read what `as_dict` told; what later versions may add is ignored.

        Raises:
            TypeError: Something is missing.
        """
        return cls(**{each.name: kept[each.name] for each in fields(cls) if each.name in kept})


class Facts(TypedDict):
    """
    What else decides about a token.

    Attributes:
        granted: Whether the user allows notifications; None is as last known, or else yes.
        require: Whether a token needs that to be valid.
        now: The moment, UNIX seconds.
        app_version: The application's version.
        application_id: The application's id.
    """

    granted: bool | None
    require: bool
    now: float
    app_version: str | None
    application_id: str


States = tuple[TokenState, ...]


def verify(
    memory: TokenMemory | None, *, frequency: TokenFrequency, **facts: Unpack[Facts]
) -> tuple[TokenMemory | None, States]:
    """
    Check the token again, as is done when the application starts or becomes active.

    It is due when it is no longer as it was told, or else as the frequency has it. That the user denies notifications
    is told once.

    Args:
        memory: What is remembered; None where there is no token yet, and then there is nothing to do.
        frequency: How often the same is told again; a day is one of UTC's.
        **facts: See `Facts`.
    """
    if memory is None:
        return None, ()
    fresh = _tracked(memory, memory.token, memory.platform, **facts)
    if _is_due(memory, fresh, frequency):
        return fresh, (fresh.state(),)
    return evolve(memory, granted=fresh.granted), ()


def handle(
    memory: TokenMemory | None, token: str, platform: Platform, *, frequency: TokenFrequency, **facts: Unpack[Facts]
) -> tuple[TokenMemory | None, States]:
    """
    Take the token that the service for push notifications has given out.

    One that differs from the remembered one is told whatever the frequency, after the old one was invalidated. The
    same one is checked as `verify` does.

    Args:
        memory: What is remembered, or None.
        token: The token.
        platform: Whose it is.
        frequency: How often the same is told again.
        **facts: See `Facts`.

    Raises:
        InvalidEventError: The token is no text, or blank.
    """
    if memory and (memory.token, memory.platform) == (token, platform):
        return verify(memory, frequency=frequency, **facts)
    fresh, states = track(memory, token, platform, **facts)
    return fresh, invalidate(memory) + states


def track(
    memory: TokenMemory | None, token: str, platform: Platform, **facts: Unpack[Facts]
) -> tuple[TokenMemory, States]:
    """
    Tell a token as it is, whatever was told before; another one that is remembered is not invalidated.

    Args:
        memory: What is remembered, or None.
        token: The token.
        platform: Whose it is.
        **facts: See `Facts`.

    Raises:
        InvalidEventError: The token is no text, or blank.
    """
    if not isinstance(token, str) or not token.strip():
        raise InvalidEventError(
            "token", f"this {type(token).__name__} is no text with a token in it", "Give the token."
        )
    fresh = _tracked(memory, token, platform, **facts)
    return fresh, (fresh.state(),)


def invalidate(memory: TokenMemory | None) -> States:
    """Tell that the remembered token is no longer the customer's; nothing where there is none."""
    return (TokenState(memory.token, memory.platform, valid=False, description=INVALIDATED),) if memory else ()


def reassign(memory: TokenMemory | None, **facts: Unpack[Facts]) -> tuple[TokenMemory | None, States]:
    """
    Tell the remembered token again, for the customer that the device belongs to from now on.

    Args:
        memory: What is remembered; None where there is no token, and then there is nothing to do.
        **facts: See `Facts`.
    """
    return (None, ()) if memory is None else track(memory, memory.token, memory.platform, **facts)


def legacy_property(platform: Platform) -> str:
    """Tell the customer property that holds the token where no ``notification_state`` is tracked."""
    return _LEGACY[platform]


def _tracked(memory: TokenMemory | None, token: str, platform: Platform, **facts: Unpack[Facts]) -> TokenMemory:
    """Make what is remembered once the token was tracked now."""
    granted = facts["granted"]
    if granted is None:
        granted = memory.granted if memory else True
    return TokenMemory(
        token=token,
        platform=platform,
        tracked_at=facts["now"],
        granted=granted,
        app_version=facts["app_version"],
        application_id=facts["application_id"],
        # As the vendor documents it: where permission is not required, nobody asks for it.
        valid=granted or not facts["require"],
    )


def _is_due(memory: TokenMemory, fresh: TokenMemory, frequency: TokenFrequency) -> bool:
    # Its validity is more than the frequency's business: Engagement would go on with what is no longer true.
    if any(getattr(memory, name) != getattr(fresh, name) for name in ("valid", "app_version", "application_id")):
        return True
    if not fresh.valid:
        # The Android SDK says "Permission denied" at each check.
        return False
    if frequency is TokenFrequency.DAILY:
        return memory.tracked_at // _DAY != fresh.tracked_at // _DAY
    return frequency is TokenFrequency.EVERY_LAUNCH or memory.granted != fresh.granted
