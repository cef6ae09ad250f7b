"""
Payloads of push notifications: what they say, and the events about them. Pure.

They come in two styles, which are read alike and may be mixed: flat maps of texts, whose structured parts are JSON, as
Android gets them, and nested maps, as iOS gets them and as manual calls of the Flutter SDK take them. Whatever part is
broken is left out, and what stands beside it stays.
"""

import json
import logging
import math
from collections.abc import Iterator, Mapping
from contextlib import suppress
from types import MappingProxyType
from typing import Any

from attrs import frozen

from exponea_async.devices.campaigns import Campaign, read_url_params
from exponea_async.errors import InvalidEventError
from exponea_async.features._shared.consent import forces_tracking, has_consent
from exponea_async.models import Event, EventType

LOG = logging.getLogger("exponea_async")

#: What a payload of Engagement's has as its ``source``.
SOURCE = "xnpe_platform"
CAMPAIGN = "campaign"

SHOWN, NOT_SHOWN = "shown", "not_shown"

#: The main action of the payload that the vendor's self-check sends: nothing is to be tracked or shown for it.
SELF_CHECK = "self-check"
#: What can be done at a press, by its names in payloads and in the Flutter SDK.
_KINDS = {"app": "app", "browser": "browser", "web": "browser", "deeplink": "deeplink", SELF_CHECK: SELF_CHECK}

#: Levels of nesting beyond which nobody reads attributes.
_DEPTH = 20
#: Moments beyond this, in UNIX seconds, are milliseconds, which events can't be stamped with.
_LATEST = 1e11
#: Integers beyond these can't be sent.
_LOWEST, _HIGHEST = -(2**63), 2**64 - 1


@frozen
class PushAction:
    """
    What a press leads to.

    Attributes:
        kind: ``"app"``, ``"browser"``, ``"deeplink"`` or ``"self-check"``; None where it is none of them.
        title: What the button says; None for the notification itself.
        url: Where it leads to, or None.
    """

    kind: str | None = None
    title: str | None = None
    url: str | None = None


@frozen(kw_only=True)
class PushPayload:
    """
    What a push notification says.

    Attributes:
        notification_id: Its number; None where it has none, so that two without one are not taken for the same.
        title: The headline; None where the payload has none at all.
        message: The text; None as for the title.
        image: The address of a picture, or None.
        sound: The name of a sound, or None.
        silent: Whether nothing is to be shown.
        action: What a press on it leads to; or what was pressed, where a manual call says so.
        actions: Its buttons.
        attributes: What Engagement wants to find in the events about it.
        event_type: The type of these events, where it is not Engagement's own.
        url_params: What tells of the campaign.
        sent_at: When it was sent, UNIX seconds, or None.
        received_at: When it was received, UNIX seconds, where a manual call says so.
        has_consent: Whether it may be tracked.
        consent_category: The category of the consent, or None.
    """

    notification_id: int | None = None
    title: str | None = None
    message: str | None = None
    image: str | None = None
    sound: str | None = None
    silent: bool = False
    action: PushAction = PushAction()
    actions: tuple[PushAction, ...] = ()
    attributes: Mapping[str, Any] = MappingProxyType({})
    event_type: str | None = None
    url_params: Mapping[str, Any] = MappingProxyType({})
    sent_at: float | None = None
    received_at: float | None = None
    has_consent: bool = True
    consent_category: str | None = None

    @property
    def is_self_check(self) -> bool:
        """Whether it only proves that notifications arrive."""
        return self.action.kind == SELF_CHECK

    @property
    def is_visible(self) -> bool:
        """Whether there is something to show. Where the payload has no place for a text, its owner showed one."""
        texts = [text for text in (self.title, self.message) if text is not None]
        return not self.silent and (not texts or any(map(str.strip, texts)))

    def campaign(self, now: float) -> Campaign | None:
        """Tell the campaign that brings somebody here who presses it now, UNIX seconds."""
        return read_url_params(self.url_params, now)


def is_bloomreach_notification(payload: Mapping[str, Any]) -> bool:
    """Tell whether a push notification comes from Engagement."""
    return isinstance(payload, Mapping) and payload.get("source") == SOURCE


def read_payload(payload: Mapping[str, Any]) -> PushPayload:
    """
    Read the payload of a push notification, of either style.

    Raises:
        InvalidEventError: It is no mapping.
    """
    if not isinstance(payload, Mapping):
        raise InvalidEventError("payload", f"a {type(payload).__name__} is no mapping", "Give the payload as a dict.")
    attributes = _object(payload, "data") or _object(payload, "attributes")
    return PushPayload(
        notification_id=_whole(payload, "notification_id"),
        title=_text(payload, "title"),
        message=_text(payload, "message"),
        image=_text(payload, "image"),
        sound=_text(payload, "sound"),
        silent=_is_set(payload.get("silent")),
        action=_pressed(payload),
        actions=tuple(_buttons(payload)),
        attributes=MappingProxyType(attributes),
        event_type=_custom_type(attributes),
        url_params=MappingProxyType(_object(payload, "url_params")),
        sent_at=_moment(attributes, "sent_timestamp"),
        received_at=_moment(payload, "receivedSeconds"),
        has_consent=has_consent(payload.get("has_tracking_consent")),
        consent_category=_text(payload, "consent_category_tracking"),
    )


def delivered_event(
    payload: PushPayload, *, received_at: float, shown: bool = True, platform: str | None = None
) -> tuple[EventType, Event]:
    """
    Make the event of a push notification's arrival. Its moment is after the sending, whatever the clocks say.

    Args:
        payload: The notification.
        received_at: When it came, UNIX seconds.
        shown: Whether it was shown; one that has nothing to show was not.
        platform: Where, such as ``"android"``; None is as the notification says, or else Android.
    """
    properties = {
        **_told(payload, received_at),
        "status": "delivered",
        "platform": _platform(payload, platform),
        "state": SHOWN if shown and payload.is_visible else NOT_SHOWN,
        **_category(payload),
    }
    return _event(payload, EventType.PUSH_DELIVERED, properties, _after(received_at, payload.sent_at))


def clicked_event(
    payload: PushPayload,
    *,
    clicked_at: float,
    delivered_at: float | None = None,
    action: PushAction | None = None,
    url: str | None = None,
    cta: str | None = None,
    platform: str | None = None,
) -> tuple[EventType, Event]:
    """
    Make the event of a press on a push notification. Its moment is after the arrival, whatever the clocks say.

    Args:
        payload: The notification.
        clicked_at: When it was pressed, UNIX seconds.
        delivered_at: When it came, UNIX seconds; None is as the notification says.
        action: What was pressed; None is what the notification says, or else itself.
        url: Where it led to; None is as the action says, or else ``"app"``.
        cta: What the button said; None is as the action says, or else ``"notification"``.
        platform: Where, such as ``"android"``; None is as the notification says, or else Android.
    """
    pressed = action or payload.action
    target = url or pressed.url
    properties: dict[str, Any] = {
        "action_type": "mobile notification",
        **_told(payload, clicked_at),
        "status": "clicked",
        "platform": _platform(payload, platform),
        "url": target or "app",
        "cta": cta or pressed.title or "notification",
        **_category(payload),
    }
    if forces_tracking(target):
        properties["tracking_forced"] = True
    moment = _after(clicked_at, _delivered_at(payload, clicked_at, delivered_at))
    return _event(payload, EventType.PUSH_OPENED, properties, moment)


def _event(payload: PushPayload, kind: EventType, properties: dict[str, Any], moment: float) -> tuple[EventType, Event]:
    if payload.event_type:
        return EventType.TRACK_EVENT, Event(payload.event_type, properties, moment)
    return kind, Event(CAMPAIGN, properties, moment)


def _told(payload: PushPayload, now: float) -> dict[str, Any]:
    """Tell what the notification itself wants in the events about it."""
    attributes = {name: value for name, value in payload.attributes.items() if name != "event_type"}
    campaign = payload.campaign(now)
    return {**attributes, **campaign.properties()} if campaign else attributes


def _category(payload: PushPayload) -> dict[str, str]:
    return {"consent_category_tracking": payload.consent_category} if payload.consent_category else {}


def _platform(payload: PushPayload, platform: str | None) -> str:
    told = payload.attributes.get("platform")
    return platform or (told if isinstance(told, str) and told else "android")


def _after(moment: float, earlier: float | None) -> float:
    return moment if earlier is None or moment > earlier else earlier + 1


def _delivered_at(payload: PushPayload, clicked_at: float, delivered_at: float | None) -> float | None:
    received = payload.received_at if delivered_at is None else delivered_at
    if received is not None:
        return _after(received, payload.sent_at)
    if payload.sent_at is None or clicked_at > payload.sent_at:
        return None
    # A clock that is late now was late at the arrival too, which then was told as right after the sending.
    return payload.sent_at + 1


def _custom_type(attributes: Mapping[str, Any]) -> str | None:
    name = _text(attributes, "event_type")
    return name if name and name.strip() and name != CAMPAIGN else None


def _pressed(payload: Mapping[str, Any]) -> PushAction:
    kind = _text(payload, "actionType") or _text(payload, "action")
    return PushAction(_KINDS.get(kind or ""), _text(payload, "actionName") or None, _address(payload))


def _buttons(payload: Mapping[str, Any]) -> Iterator[PushAction]:
    buttons = _parsed(payload, "actions")
    if buttons is not None and not isinstance(buttons, list | tuple):
        _tell_broken("actions")
        return
    for button in buttons or ():
        if isinstance(button, Mapping):
            kind = _text(button, "action")
            yield PushAction(_KINDS.get(kind or ""), _text(button, "title") or None, _address(button))
        else:
            _tell_broken("actions")


def _address(source: Mapping[str, Any]) -> str | None:
    url = _text(source, "url")
    if not url or not url.strip():
        return None
    return url if "://" in url else f"http://{url}"  # as the Android SDK opens it


def _is_set(flag: object) -> bool:
    return flag.lower() in ("true", "1") if isinstance(flag, str) else isinstance(flag, int) and flag == 1


def _text(source: Mapping[str, Any], name: str) -> str | None:
    value = source.get(name)
    if value is None or _is_text(value):
        return value
    _tell_broken(name)
    return None


def _whole(source: Mapping[str, Any], name: str) -> int | None:
    value = source.get(name)
    if value is None:
        return None
    with suppress(ValueError, OverflowError):
        if isinstance(value, str | int | float) and not isinstance(value, bool):
            return int(value)
    _tell_broken(name)
    return None


def _moment(source: Mapping[str, Any], name: str) -> float | None:
    value = source.get(name)
    if value is None:
        return None
    with suppress(ValueError, OverflowError):
        if isinstance(value, str | int | float) and not isinstance(value, bool) and abs(float(value)) <= _LATEST:
            return float(value)
    _tell_broken(name)
    return None


def _object(source: Mapping[str, Any], name: str) -> dict[str, Any]:
    value = _parsed(source, name)
    if isinstance(value, Mapping):
        broken: list[object] = []
        sound = _mapping(value, broken, 0)
        if broken:
            LOG.warning("%d values in the %s of a push notification can't be sent.", len(broken), name)
        return sound
    if value is not None:
        _tell_broken(name)
    return {}


def _parsed(source: Mapping[str, Any], name: str) -> Any:
    value = source.get(name)
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value) if value.strip() else None
    except (ValueError, RecursionError):
        _tell_broken(name)
        return None


def _tell_broken(name: str) -> None:
    # Not the value, which may be personal data.
    LOG.warning("The %s of a push notification, or a part of it, can't be read.", name)


def _mapping(values: Mapping[Any, Any], broken: list[object], depth: int) -> dict[str, Any]:
    """Copy what can be sent, and collect what can't."""
    broken.extend(name for name in values if not _is_text(name))
    named = {name: _value(value, broken, depth) for name, value in values.items() if _is_text(name)}
    return {name: value for name, value in named.items() if value is not None}


def _value(value: Any, broken: list[object], depth: int) -> Any:
    if value is None or _is_scalar(value):
        return value
    if depth < _DEPTH and isinstance(value, Mapping):
        return _mapping(value, broken, depth + 1)
    if depth < _DEPTH and isinstance(value, list | tuple):
        items = (_value(item, broken, depth + 1) for item in value)
        return [item for item in items if item is not None]
    broken.append(value)
    return None


def _is_scalar(value: object) -> bool:
    if isinstance(value, float):
        return math.isfinite(value)
    return _LOWEST <= value <= _HIGHEST if isinstance(value, int) else _is_text(value)


def _is_text(value: object) -> bool:
    if not isinstance(value, str):
        return False
    try:
        value.encode()
    except UnicodeEncodeError:  # half of a surrogate pair
        return False
    return True
