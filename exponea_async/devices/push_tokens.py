"""
Push tokens: when a token's state is tracked, and which. Pure.

Each function takes what is remembered of the last tracked token, and returns what is to be remembered from then on
with the states to track, in order.
"""

from collections.abc import Mapping
from typing import Any, Literal, Self, TypedDict, Unpack

from attrs import asdict, evolve, field, fields, frozen

from exponea_async._internal.arguments import read_text
from exponea_async.models import TokenFrequency

Platform = Literal["android", "huawei", "ios"]
#: How Engagement is told of a token: by ``notification_state`` events, or by a customer property.
TokenForm = Literal["event", "property"]

GRANTED = "Permission granted"
DENIED = "Permission denied"
INVALIDATED = "Invalidated"

#: What is tracked when it changes, whatever the frequency: Engagement would go on with what is no longer true.
CHANGES = ("valid", "app_version", "application_id")
_DAY = 86_400
_LEGACY: Mapping[Platform, str] = {
    "android": "google_push_notification_id",
    "huawei": "huawei_push_notification_id",
    "ios": "apple_push_notification_id",
}


@frozen
class TokenState:
    """
    The state of a token, as Engagement gets it.

    Attributes:
        token: The token.
        platform: The platform that issued it.
        valid: Whether notifications may be sent to it.
        description: The reason, in the vendor's words.
        form: How Engagement is told of it.
    """

    token: str = field(repr=False)
    platform: Platform
    valid: bool
    description: str
    form: TokenForm = "event"

    def properties(self) -> dict[str, Any]:
        """Return the properties of the event ``notification_state``."""
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
        platform: The platform that issued it.
        tracked_at: When it was last tracked, UNIX seconds.
        granted: Whether the user allows notifications, as far as is known.
        app_version: The application's version when it was tracked.
        application_id: The application's id when it was tracked.
        valid: Whether it was tracked as valid.
        form: How it was tracked, and has to be taken back; None where an earlier version of this package did, which
            did not store it.
    """

    token: str = field(repr=False)
    platform: Platform
    tracked_at: float
    granted: bool
    app_version: str | None
    application_id: str
    valid: bool
    form: TokenForm | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return the memory as JSON types, to be stored."""
        return asdict(self)

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any]) -> Self:
        """
        Read what `as_dict` returned; fields of later versions are ignored.

        Raises:
            TypeError: A field is missing.
        """
        return cls(**{each.name: stored[each.name] for each in fields(cls) if each.name in stored})


class TokenConditions(TypedDict):
    """
    What the state of a token depends on besides the token.

    Attributes:
        granted: Whether the user allows notifications; None stands for what was last known, or else for yes.
        require: Whether a token is valid only with that permission.
        now: The current time, UNIX seconds.
        app_version: The application's version.
        application_id: The application's id.
        form: How Engagement is told of tokens.
    """

    granted: bool | None
    require: bool
    now: float
    app_version: str | None
    application_id: str
    form: TokenForm


States = tuple[TokenState, ...]


def verify(
    memory: TokenMemory | None, *, frequency: TokenFrequency, **conditions: Unpack[TokenConditions]
) -> tuple[TokenMemory | None, States]:
    """
    Verify the remembered token, as is done when the application starts or becomes active.

    It is tracked again when it no longer is as it was tracked, or else as often as the frequency says. That the user
    denies notifications is tracked once.

    Args:
        memory: What is remembered; None if there is no token yet, and then nothing is tracked.
        frequency: How often the same state is tracked again; a day is one of UTC.
        **conditions: See `TokenConditions`.
    """
    if memory is None:
        return None, ()
    fresh = _tracked(memory, memory.token, memory.platform, **conditions)
    if _is_due(memory, fresh, frequency):
        return fresh, (*_old_form(memory, fresh), _state(fresh, conditions["form"]))
    return evolve(memory, granted=fresh.granted, form=fresh.form), ()


def handle(
    memory: TokenMemory | None,
    token: str,
    platform: Platform,
    *,
    frequency: TokenFrequency,
    **conditions: Unpack[TokenConditions],
) -> tuple[TokenMemory | None, States]:
    """
    Handle a token that the push service has issued.

    One that differs from the remembered one is tracked whatever the frequency, after the old one is invalidated. The
    same one is verified as `verify` does.

    Args:
        memory: What is remembered, or None.
        token: The token.
        platform: The platform that issued it.
        frequency: How often the same state is tracked again.
        **conditions: See `TokenConditions`.

    Raises:
        InvalidEventError: The token is not a non-blank string.
    """
    if memory and (memory.token, memory.platform) == (token, platform):
        return verify(memory, frequency=frequency, **conditions)
    fresh = _tracked(memory, _checked(token), platform, **conditions)
    return fresh, (*invalidate(memory, conditions["form"]), _state(fresh, conditions["form"]))


def track(
    memory: TokenMemory | None, token: str, platform: Platform, **conditions: Unpack[TokenConditions]
) -> tuple[TokenMemory, States]:
    """
    Track a token as it is, whatever was tracked before; another remembered token is not invalidated.

    But what was tracked in another form is taken back, since the new form does not replace it.

    Args:
        memory: What is remembered, or None.
        token: The token.
        platform: The platform that issued it.
        **conditions: See `TokenConditions`.

    Raises:
        InvalidEventError: The token is not a non-blank string.
    """
    fresh = _tracked(memory, _checked(token), platform, **conditions)
    return fresh, (*_old_form(memory, fresh), _state(fresh, conditions["form"]))


def invalidate(memory: TokenMemory | None, form: TokenForm) -> States:
    """
    Return the state that the remembered token no longer belongs to the customer, if there is a token.

    It is told in the form in which the token was tracked.

    Args:
        memory: What is remembered, or None.
        form: How Engagement is told of tokens now; for a memory without a form.
    """
    if memory is None:
        return ()
    return (TokenState(memory.token, memory.platform, valid=False, description=INVALIDATED, form=memory.form or form),)


def reassign(memory: TokenMemory | None, **conditions: Unpack[TokenConditions]) -> tuple[TokenMemory | None, States]:
    """
    Track the remembered token again, for the customer that the device belongs to from now on.

    Args:
        memory: What is remembered; None if there is no token, and then nothing is tracked.
        **conditions: See `TokenConditions`.
    """
    if memory is None:
        return None, ()
    fresh = _tracked(memory, memory.token, memory.platform, **conditions)
    return fresh, (_state(fresh, conditions["form"]),)


def legacy_property(platform: Platform) -> str:
    """Return the customer property that holds the token where ``notification_state`` is not tracked."""
    return _LEGACY[platform]


def _checked(token: str) -> str:
    # The error does not show the token, which may be a secret.
    return read_text(token, "token", "Pass the token as it was issued.", is_secret=True)


def _old_form(memory: TokenMemory | None, fresh: TokenMemory) -> States:
    """Return the state that takes the remembered token back if it was tracked in another form than from now on."""
    has_old_form = memory is not None and memory.form not in (None, fresh.form)
    return invalidate(memory, "event") if has_old_form else ()


def _state(memory: TokenMemory, form: TokenForm) -> TokenState:
    description = GRANTED if memory.valid else DENIED
    return TokenState(memory.token, memory.platform, memory.valid, description, form)


def _tracked(
    memory: TokenMemory | None, token: str, platform: Platform, **conditions: Unpack[TokenConditions]
) -> TokenMemory:
    """Return what is remembered of a token that is tracked now."""
    granted = conditions["granted"]
    if granted is None:
        granted = memory.granted if memory else True
    return TokenMemory(
        token=token,
        platform=platform,
        tracked_at=conditions["now"],
        granted=granted,
        app_version=conditions["app_version"],
        application_id=conditions["application_id"],
        # As the vendor documents: a permission that is not required is not checked.
        valid=granted or not conditions["require"],
        form=conditions["form"],
    )


def _is_due(memory: TokenMemory, fresh: TokenMemory, frequency: TokenFrequency) -> bool:
    if any(getattr(memory, name) != getattr(fresh, name) for name in CHANGES) or _old_form(memory, fresh):
        return True
    if not fresh.valid:
        # The Android SDK tracks "Permission denied" at each verification.
        return False
    if frequency is TokenFrequency.DAILY:
        return memory.tracked_at // _DAY != fresh.tracked_at // _DAY
    return frequency is TokenFrequency.EVERY_LAUNCH or memory.granted != fresh.granted
