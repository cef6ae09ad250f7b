"""
The payloads of push notifications, and the events about them. Pure.

A payload has one of two forms, which are read in the same way and may be mixed: a flat mapping of strings, whose
structured fields are JSON, as Android receives it, and a nested mapping, as iOS receives it and as manual calls of the
Flutter SDK expect it. A broken field is ignored, and the others are read.
"""

import json
import logging
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from types import MappingProxyType
from typing import Any, TypeVar

from attrs import frozen

from exponea_async._internal.fields import FieldError, as_string, as_timestamp, is_encodable, nullable
from exponea_async.devices.campaigns import Campaign, read_url_params
from exponea_async.errors import InvalidEventError
from exponea_async.features._shared.consent import forces_tracking, has_consent
from exponea_async.models import Event, EventType

LOG = logging.getLogger("exponea_async")

T = TypeVar("T")

#: The ``source`` of Engagement's payloads.
SOURCE = "xnpe_platform"
CAMPAIGN = "campaign"

SHOWN, NOT_SHOWN = "shown", "not_shown"

#: The main action of the payload that the vendor's self-check sends: it is neither tracked nor shown.
SELF_CHECK = "self-check"
#: The kinds of actions, by their names in payloads and in the Flutter SDK.
_KINDS = {"app": "app", "browser": "browser", "web": "browser", "deeplink": "deeplink", SELF_CHECK: SELF_CHECK}

#: Maximum depth of the attributes.
_MAX_DEPTH = 20
#: The integers that can be sent.
_MIN_INTEGER, _MAX_INTEGER = -(2**63), 2**64 - 1


@frozen
class PushAction:
    """
    What a click on a notification, or on one of its buttons, does.

    Attributes:
        kind: ``"app"``, ``"browser"``, ``"deeplink"`` or ``"self-check"``; None if it is unknown.
        title: The label of the button; None for the notification itself.
        url: The link, or None.
    """

    kind: str | None = None
    title: str | None = None
    url: str | None = None


@frozen(kw_only=True)
class PushPayload:
    """
    The content of a push notification.

    Attributes:
        notification_id: Its number; None if it has none, so that two without one are not the same notification.
        title: The title; None if the payload has no such field.
        message: The text; None as for the title.
        image: The address of an image, or None.
        sound: The name of a sound, or None.
        silent: Whether nothing is to be shown.
        action: What a click does; or what was clicked, if a manual call says so.
        actions: Its buttons.
        attributes: The properties that the events about it have.
        event_type: The type of these events, if it is not Engagement's own.
        url_params: The campaign.
        sent_at: When it was sent, UNIX seconds, or None.
        received_at: When it was received, UNIX seconds, if a manual call says so.
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
        """Whether it only checks that notifications arrive."""
        return self.action.kind == SELF_CHECK

    @property
    def is_visible(self) -> bool:
        """Whether there is something to show. A payload without fields for text comes from a caller that showed one."""
        texts = [text for text in (self.title, self.message) if text is not None]
        return not self.silent and (not texts or any(map(str.strip, texts)))

    def campaign(self, now: float) -> Campaign | None:
        """Return the campaign of a customer who clicks the notification now, UNIX seconds."""
        return read_url_params(self.url_params, now)


def is_bloomreach_notification(payload: Mapping[str, Any]) -> bool:
    """Return whether a push notification comes from Engagement."""
    return isinstance(payload, Mapping) and payload.get("source") == SOURCE


def read_payload(payload: Mapping[str, Any]) -> PushPayload:
    """
    Read the payload of a push notification, of either form.

    Raises:
        InvalidEventError: It is not a mapping.
    """
    if not isinstance(payload, Mapping):
        trouble = f"expected a mapping, got {type(payload).__name__}"
        raise InvalidEventError("payload", trouble, "Pass the payload as a dict.")
    attributes = _object(payload, "data") or _object(payload, "attributes")
    return PushPayload(
        notification_id=_field(payload, "notification_id", _as_notification_id),
        title=_string(payload, "title"),
        message=_string(payload, "message"),
        image=_string(payload, "image"),
        sound=_string(payload, "sound"),
        silent=_is_set(payload.get("silent")),
        action=_main_action(payload),
        actions=tuple(_buttons(payload)),
        attributes=MappingProxyType(attributes),
        event_type=_custom_type(attributes),
        url_params=MappingProxyType(_object(payload, "url_params")),
        sent_at=_field(attributes, "sent_timestamp", _as_timestamp),
        received_at=_field(payload, "receivedSeconds", _as_timestamp),
        has_consent=has_consent(payload.get("has_tracking_consent")),
        consent_category=_string(payload, "consent_category_tracking"),
    )


# Events


def delivered_event(
    payload: PushPayload, *, received_at: float, shown: bool = True, platform: str | None = None
) -> tuple[EventType, Event]:
    """
    Return the event of a delivered notification. Its timestamp is after the sending, even if the clocks differ.

    Args:
        payload: The notification.
        received_at: When it was received, UNIX seconds.
        shown: Whether it was shown; one with nothing to show counts as not shown.
        platform: The platform, such as ``"android"``; None for that of the payload, or else Android.
    """
    properties = {
        **_own_properties(payload, received_at),
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
    Return the event of a clicked notification. Its timestamp is after the delivery, even if the clocks differ.

    Args:
        payload: The notification.
        clicked_at: When it was clicked, UNIX seconds.
        delivered_at: When it was delivered, UNIX seconds; None for the time in the payload.
        action: What was clicked; None for the action of the payload.
        url: The link; None for that of the action, or else ``"app"``.
        cta: The label of the button; None for that of the action, or else ``"notification"``.
        platform: The platform, such as ``"android"``; None for that of the payload, or else Android.
    """
    clicked = action or payload.action
    target = url or clicked.url
    properties: dict[str, Any] = {
        "action_type": "mobile notification",
        **_own_properties(payload, clicked_at),
        "status": "clicked",
        "platform": _platform(payload, platform),
        "url": target or "app",
        "cta": cta or clicked.title or "notification",
        **_category(payload),
    }
    if forces_tracking(target):
        properties["tracking_forced"] = True
    timestamp = _after(clicked_at, _delivered_at(payload, clicked_at, delivered_at))
    return _event(payload, EventType.PUSH_OPENED, properties, timestamp)


def _event(
    payload: PushPayload, kind: EventType, properties: dict[str, Any], timestamp: float
) -> tuple[EventType, Event]:
    if payload.event_type:
        return EventType.TRACK_EVENT, Event(payload.event_type, properties, timestamp)
    return kind, Event(CAMPAIGN, properties, timestamp)


def _own_properties(payload: PushPayload, now: float) -> dict[str, Any]:
    """Return the properties that the notification itself adds to the events about it."""
    attributes = {name: value for name, value in payload.attributes.items() if name != "event_type"}
    campaign = payload.campaign(now)
    return {**attributes, **campaign.properties()} if campaign else attributes


def _category(payload: PushPayload) -> dict[str, str]:
    return {"consent_category_tracking": payload.consent_category} if payload.consent_category else {}


def _platform(payload: PushPayload, platform: str | None) -> str:
    own = payload.attributes.get("platform")
    return platform or (own if isinstance(own, str) and own else "android")


def _after(timestamp: float, earlier: float | None) -> float:
    return timestamp if earlier is None or timestamp > earlier else earlier + 1


def _delivered_at(payload: PushPayload, clicked_at: float, delivered_at: float | None) -> float | None:
    received = payload.received_at if delivered_at is None else delivered_at
    if received is not None:
        return _after(received, payload.sent_at)
    if payload.sent_at is None or clicked_at > payload.sent_at:
        return None
    # A clock that is slow now was slow at the delivery too, which then was tracked as right after the sending.
    return payload.sent_at + 1


# Fields


def _custom_type(attributes: Mapping[str, Any]) -> str | None:
    name = _string(attributes, "event_type")
    return name if name and name.strip() and name != CAMPAIGN else None


def _main_action(payload: Mapping[str, Any]) -> PushAction:
    kind = _string(payload, "actionType") or _string(payload, "action")
    return PushAction(_KINDS.get(kind or ""), _string(payload, "actionName") or None, _url(payload))


def _buttons(payload: Mapping[str, Any]) -> Iterator[PushAction]:
    buttons = _parsed(payload, "actions")
    if buttons is not None and not isinstance(buttons, list | tuple):
        _warn_broken("actions")
        return
    for button in buttons or ():
        if isinstance(button, Mapping):
            kind = _string(button, "action")
            yield PushAction(_KINDS.get(kind or ""), _string(button, "title") or None, _url(button))
        else:
            _warn_broken("actions")


def _url(source: Mapping[str, Any]) -> str | None:
    url = _string(source, "url")
    if not url or not url.strip():
        return None
    return url if "://" in url else f"http://{url}"  # as the Android SDK opens it


def _is_set(flag: object) -> bool:
    return flag.lower() in ("true", "1") if isinstance(flag, str) else isinstance(flag, int) and flag == 1


def _field(source: Mapping[str, Any], name: str, convert: Callable[[Any], T]) -> T | None:
    try:
        return nullable(source, name, convert)
    except FieldError:
        _warn_broken(name)
        return None


def _string(source: Mapping[str, Any], name: str) -> str | None:
    return _field(source, name, _as_encodable)


def _as_encodable(value: Any) -> str:
    if not is_encodable(value):
        raise FieldError("can't be encoded")
    return as_string(value)


def _as_timestamp(value: Any) -> float:
    return as_timestamp(value, coerce=(str,))


def _as_notification_id(value: Any) -> int:
    # A fraction is dropped, and numbers of any size are accepted.
    with suppress(ValueError, OverflowError):
        if isinstance(value, str | int | float) and not isinstance(value, bool):
            return int(value)
    raise FieldError("expected an integer")


def _object(source: Mapping[str, Any], name: str) -> dict[str, Any]:
    value = _parsed(source, name)
    if isinstance(value, Mapping):
        broken: list[object] = []
        copied = _copy_mapping(value, broken, 0)
        if broken:
            LOG.warning("%d values in the %s of a push notification can't be sent.", len(broken), name)
        return copied
    if value is not None:
        _warn_broken(name)
    return {}


def _parsed(source: Mapping[str, Any], name: str) -> Any:
    value = source.get(name)
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value) if value.strip() else None
    except (ValueError, RecursionError):
        _warn_broken(name)
        return None


def _warn_broken(name: str) -> None:
    # Without the value, which may be personal data.
    LOG.warning("The field %s of a push notification, or a part of it, can't be read.", name)


def _copy_mapping(values: Mapping[Any, Any], broken: list[object], depth: int) -> dict[str, Any]:
    """Return a copy of what can be sent, and add everything else to `broken`."""
    broken.extend(name for name in values if not is_encodable(name))
    named = {name: _copy(value, broken, depth) for name, value in values.items() if is_encodable(name)}
    return {name: value for name, value in named.items() if value is not None}


def _copy(value: Any, broken: list[object], depth: int) -> Any:
    if value is None or _is_scalar(value):
        return value
    if depth < _MAX_DEPTH and isinstance(value, Mapping):
        return _copy_mapping(value, broken, depth + 1)
    if depth < _MAX_DEPTH and isinstance(value, list | tuple):
        items = (_copy(item, broken, depth + 1) for item in value)
        return [item for item in items if item is not None]
    broken.append(value)
    return None


def _is_scalar(value: object) -> bool:
    if isinstance(value, float):
        return math.isfinite(value)
    return _MIN_INTEGER <= value <= _MAX_INTEGER if isinstance(value, int) else is_encodable(value)
