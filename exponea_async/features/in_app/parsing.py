"""
In-app messages as Engagement sends them: what is needed to choose one, and what is handed to whoever shows it. Pure.
"""

import logging
from collections.abc import Callable, Iterator, Mapping
from hashlib import blake2b
from operator import attrgetter
from time import perf_counter
from typing import Any

from attrs import evolve, frozen

from exponea_async._internal.json import decode
from exponea_async.devices.customers import CustomerSnapshot
from exponea_async.devices.impressions import Impression
from exponea_async.features._shared.consent import has_consent
from exponea_async.features._shared.targeting.filters import Trigger, TriggerEvent, read_trigger
from exponea_async.features._shared.targeting.schedule import DateFilter, may_show, read_date_filter
from exponea_async.messages import InAppMessage, InAppMessageButton

LOG = logging.getLogger("exponea_async")

#: Tells a definition's priority, or None. It is asked of each for every event, and in C at half the price.
priority_of: Callable[["Definition"], int | None] = attrgetter("priority")

CONTROL_GROUP = -1
#: A message that slides in closes by itself after this, in seconds, as in the vendor's SDKs.
SLIDE_IN_TIMEOUT = 4.0
#: No message is delayed or shown for longer than this, in seconds.
LONGEST = 86_400.0
#: Choosing takes some microseconds; triggers that make it take longer than this, in seconds, were not made by people.
LONGEST_CHOICE = 0.5
#: Conditions of a trigger at the most; campaigns have a few.
MOST_CONDITIONS = 100

#: Names above this many characters would not fit into an event.
LONGEST_NAME = 1_000

#: So many are looked at between looks at the clock.
_PART = 10
#: Whole numbers beyond this are none to JSON.
_MOST = 2**53
_TYPES = frozenset({"modal", "alert", "fullscreen", "slide_in", "freeform"})
_KINDS = frozenset({"deep-link", "browser", "cancel"})
#: Addresses of pictures and fonts in a payload, and of the font of a button.
_PICTURES = ("image_url", "close_button_image_url")
_FONTS = ("title_font_url", "body_font_url")
_BUTTON_FONT = "button_font_url"
#: What a message and each of its conditions take in memory beside its source, in bytes, as measured.
_OVERHEAD, _PER_CONDITION = 1_400, 900


@frozen(eq=False)
class Definition:
    """
    A message as it is kept: what decides whether it is shown, and the rest as it came, for most are never shown.

    Attributes:
        id: Its id.
        trigger: Upon which events; None is upon none.
        dates: Between which dates.
        frequency: How often.
        priority: The higher one comes first, or None.
        is_control: Whether it is for the control group of a test, which is shown nothing.
        has_content: Whether there is anything to show.
        source: The message as Engagement sent it.
        digest: Stands for the source.
    """

    id: str
    trigger: Trigger | None
    dates: DateFilter
    frequency: str
    priority: int | None
    is_control: bool
    has_content: bool
    source: bytes
    digest: bytes

    @property
    def cost(self) -> int:
        """What it takes in memory, in bytes, about."""
        conditions = len(self.trigger.conditions) if self.trigger else 0
        return len(self.source) + _OVERHEAD + _PER_CONDITION * conditions

    def message(self, customer: CustomerSnapshot) -> InAppMessage:
        """Read all of it, for a customer."""
        return evolve(read_message(decode(self.source)), device=customer.device, customer_ids=dict(customer.ids))


def digest_of(data: bytes) -> bytes:
    """Make what stands for some bytes."""
    return blake2b(data, digest_size=16).digest()


def read_definition(value: Any, source: bytes) -> Definition:
    """
    Read a message, so far that it can be chosen; all of it is looked at, so that it can be shown, too.

    Args:
        value: The message.
        source: The same as JSON.

    Raises:
        ValueError: It is not written as it should be.
        KeyError: Something is missing that it has to have.
    """
    message = read_message(value)
    trigger = read_trigger(message.trigger)
    if trigger is not None and len(trigger.conditions) > MOST_CONDITIONS:
        raise ValueError(f"a trigger has {len(trigger.conditions)} conditions")
    return Definition(
        id=message.id,
        trigger=trigger,
        dates=read_date_filter(message.date_filter),
        frequency=message.frequency,
        priority=message.load_priority,
        is_control=message.variant_id == CONTROL_GROUP,
        has_content=isinstance(value.get("payload"), Mapping) or (message.is_html and bool(message.payload_html)),
        source=source,
        digest=digest_of(source),
    )


def read_message(value: Any) -> InAppMessage:
    """
    Read all of a message. What is wrong beside what it has to have counts as not there.

    Raises:
        ValueError: It is not written as it should be.
        KeyError: Something is missing that it has to have.
    """
    if not isinstance(value, Mapping):
        raise ValueError(f"a {type(value).__name__} is no message")  # noqa: TRY004 - broken like any other
    kind, payload, is_rich = _type(value), _mapping(value, "payload"), value.get("is_rich_text") is True
    timeout = _seconds(value, "close_timeout")
    return InAppMessage(
        id=_required(value, "id"),
        name=_required(value, "name"),
        message_type=kind,
        frequency=_required(value, "frequency"),
        variant_id=_variant(value),
        variant_name=_required(value, "variant_name"),
        payload=payload,
        payload_html=_text(value, "payload_html"),
        buttons=tuple(_buttons(payload, is_rich=is_rich)),
        trigger=value.get("trigger"),
        date_filter=value.get("date_filter") or {},
        load_priority=_whole(value.get("load_priority")),
        load_delay=_seconds(value, "load_delay") or 0.0,
        close_timeout=SLIDE_IN_TIMEOUT if timeout is None and kind == "slide_in" else timeout,
        is_html=value.get("is_html") is True,
        is_rich_text=is_rich,
        has_tracking_consent=has_consent(value.get("has_tracking_consent")),
        consent_category_tracking=_category(value),
    )


def matching(definitions: tuple[Definition, ...], occasion: TriggerEvent, now: float) -> list[Definition]:
    """Keep what is meant for an event, and for a moment, UNIX seconds; how often it was shown is another question."""
    found: list[Definition] = []
    second, latest = int(now), perf_counter() + LONGEST_CHOICE
    for first in range(0, len(definitions), _PART):
        part = definitions[first : first + _PART]
        found += [
            each
            for each in part
            if each.trigger is not None and each.dates.includes(second) and each.trigger.matches(occasion)
        ]
        if perf_counter() > latest:
            LOG.warning("Some in-app messages take too long to choose among, and the rest of them is left out.")
            break
    return found


def due(definitions: list[Definition], displays: Mapping[str, Impression], visit_start: float) -> list[Definition]:
    """Keep what somebody may be shown once more, whose visit began at a moment, UNIX seconds."""
    if not displays:
        return definitions
    return [each for each in definitions if may_show(each.frequency, displays.get(each.id), visit_start)]


def payload_urls(message: InAppMessage) -> list[str]:
    """Tell the addresses of the pictures and fonts in a message's payload, each once."""
    payload = message.payload
    found = [payload.get(name) for name in (*_PICTURES, *_FONTS)]
    found += [button.get(_BUTTON_FONT) for button in _button_objects(payload)]
    return list(dict.fromkeys(url.strip() for url in found if isinstance(url, str) and url.strip()))


def _type(value: Mapping[str, Any]) -> str:
    if value.get("is_html") is True:
        return "freeform"
    name = (_text(value, "message_type") or "").lower()
    # As the Android SDK takes one that it does not know.
    return name if name in _TYPES else "modal"


def _buttons(payload: Mapping[str, Any], *, is_rich: bool) -> Iterator[InAppMessageButton]:
    for button in _button_objects(payload):
        if is_rich and button.get("button_enabled") is False:
            continue
        kind = (_text(button, "button_type") or "").lower()
        known = kind if kind in _KINDS else "deep-link"
        link = _text(button, "button_link")
        yield InAppMessageButton(_text(button, "button_text"), link and link.strip(), known)


def _button_objects(payload: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    buttons = payload.get("buttons")
    return [each for each in buttons if isinstance(each, Mapping)] if isinstance(buttons, list) else []


def _required(value: Mapping[str, Any], name: str) -> str:
    text = value[name]
    if not isinstance(text, str):
        raise ValueError(f"{name} is a {type(text).__name__} and no text")  # noqa: TRY004 - broken like any other
    if len(text) > LONGEST_NAME:
        raise ValueError(f"{name} has {len(text)} characters")
    return text


def _variant(value: Mapping[str, Any]) -> int:
    number = _whole(value["variant_id"])
    if number is None:
        raise ValueError("variant_id is no whole number")
    return number


def _text(value: Mapping[str, Any], name: str) -> str | None:
    text = value.get(name)
    return text if isinstance(text, str) else None


def _category(value: Mapping[str, Any]) -> str | None:
    name = _text(value, "consent_category_tracking")
    return name if name is not None and len(name) <= LONGEST_NAME else None


def _mapping(value: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    inner = value.get(name)
    return inner if isinstance(inner, Mapping) else {}


def _whole(number: Any) -> int | None:
    if isinstance(number, bool) or not isinstance(number, int | float) or not abs(number) <= _MOST:
        return None
    return int(number) if number == int(number) else None


def _seconds(value: Mapping[str, Any], name: str) -> float | None:
    """Tell a span that is written in milliseconds."""
    number = value.get(name)
    if isinstance(number, bool) or not isinstance(number, int | float) or not number >= 0:
        return None
    return float(min(number, LONGEST * 1000) / 1000)
