"""
What the actions of messages do, under one name for each.
"""

from enum import StrEnum


class ActionType(StrEnum):
    """
    What a link or button of a message or push notification does.

    The vendor's SDKs spell it in several ways, such as ``"DEEPLINK"`` and ``"deep-link"``. Each of them is accepted,
    and a member is equal to each of them; its hash is that of its own value.
    """

    BROWSER = "browser"
    DEEP_LINK = "deep-link"
    CLOSE = "close"
    APP = "app"
    NO_ACTION = "no-action"

    @classmethod
    def _missing_(cls, value: object) -> "ActionType | None":
        return _SPELLINGS.get(_bare(value)) if isinstance(value, str) else None

    def __eq__(self, other: object) -> bool:
        return isinstance(other, str) and (str.__eq__(self, other) or _SPELLINGS.get(_bare(other)) is self)

    def __ne__(self, other: object) -> bool:
        return not self == other

    def __hash__(self) -> int:
        return str.__hash__(self)


def _bare(spelling: str) -> str:
    return spelling.strip().lower().replace("-", "").replace("_", "")


_SPELLINGS = {_bare(each.value): each for each in ActionType} | {
    "web": ActionType.BROWSER,
    "cancel": ActionType.CLOSE,
}


def to_action_type(value: str) -> ActionType:
    """Convert a spelling of an action type; anything else is returned as it is, and refused where it is used."""
    if isinstance(value, str) and (known := _SPELLINGS.get(_bare(value))) is not None:
        return known
    return value  # type: ignore[return-value]


def to_optional_action_type(value: str | None) -> ActionType | None:
    """Convert a spelling of an action type, or None."""
    return None if value is None else to_action_type(value)
