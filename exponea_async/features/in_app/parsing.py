"""
In-app messages as Engagement sends them: what is needed to choose one, and the whole that is shown. Pure.
"""

import logging
from collections.abc import Callable, Iterator, Mapping
from hashlib import blake2b
from operator import attrgetter
from time import perf_counter
from typing import Any

from attrs import evolve, frozen

from exponea_async._internal.actions import ActionType
from exponea_async._internal.fields import as_integer, as_mapping, as_mappings, as_string, optional, required
from exponea_async._internal.json import decode
from exponea_async._internal.links import safe_image, safe_link
from exponea_async.devices.customers import CustomerSnapshot
from exponea_async.devices.impressions import Impression
from exponea_async.features._shared.consent import has_consent
from exponea_async.features._shared.targeting.filters import Trigger, TriggerEvent, read_trigger
from exponea_async.features._shared.targeting.schedule import DateFilter, may_show, read_date_filter
from exponea_async.messages import InAppMessage, InAppMessageButton, is_enabled

LOG = logging.getLogger("exponea_async")

#: Returns the priority of a definition, or None. It is called for each of them for each event, and in C costs half.
priority_of: Callable[["MessageDefinition"], int | None] = attrgetter("priority")

CONTROL_GROUP = -1
#: Seconds after which a slide-in message closes by itself, as in the vendor's SDKs.
SLIDE_IN_TIMEOUT = 4.0
#: Maximum delay of a message, and maximum time until it closes, in seconds.
MAX_DURATION = 86_400.0
#: Choosing takes some microseconds; triggers that make it take longer than this, in seconds, are an attack.
MAX_CHOICE_TIME = 0.5
#: Maximum number of conditions of a trigger; campaigns have a few.
MAX_CONDITIONS = 100

#: Maximum length of a name, in characters. A longer one might not fit into an event.
MAX_NAME_LENGTH = 1_000

#: The number of messages after which the time is checked.
_CHUNK = 10
#: The largest integer that JSON readers agree on.
_MAX_INTEGER = 2**53
_TYPES = frozenset({"modal", "alert", "fullscreen", "slide_in", "freeform"})
_KINDS = {"browser": ActionType.BROWSER, "cancel": ActionType.CLOSE}
#: The fields of a payload with addresses of images and fonts, each with the key that switches its part on, and that of
#: a button with the address of its font.
_RESOURCES = {
    "image_url": "image_enabled",
    "close_button_image_url": None,
    "title_font_url": "title_enabled",
    "body_font_url": "body_enabled",
}
_BUTTON_FONT = "button_font_url"
#: Memory of a message and of each of its conditions, beside the source, in bytes, as measured.
_MESSAGE_OVERHEAD, _CONDITION_OVERHEAD = 1_400, 900


@frozen(eq=False)
class MessageDefinition:
    """
    A message in memory: what decides whether it is shown, and its source, because most are never shown.

    Attributes:
        id: The id.
        trigger: The events for which it is shown; None for no events.
        dates: The dates between which it may be shown.
        frequency: How often it may be shown.
        priority: The highest is shown first; None if it has no priority.
        is_control: Whether it is for the control group of a test, to which nothing is shown.
        has_content: Whether there is anything to show.
        source: The message as Engagement sent it.
        digest: The digest of the source.
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
    def memory_size(self) -> int:
        """The memory it takes, in bytes, approximately."""
        conditions = len(self.trigger.conditions) if self.trigger else 0
        return len(self.source) + _MESSAGE_OVERHEAD + _CONDITION_OVERHEAD * conditions

    def message(self, customer: CustomerSnapshot) -> InAppMessage:
        """Return the whole message, for a customer."""
        return evolve(read_message(decode(self.source)), device=customer.device, customer_ids=dict(customer.ids))


def digest_of(data: bytes) -> bytes:
    """Return the digest of some bytes."""
    return blake2b(data, digest_size=16).digest()


def read_definition(value: Any, source: bytes) -> MessageDefinition:
    """
    Read what is needed to choose a message. The whole is checked, so that it can be shown later.

    Args:
        value: The message.
        source: The same as JSON.

    Raises:
        FieldError: A field is missing or wrong.
        ValueError: The trigger has too many conditions.
    """
    message = read_message(value)
    trigger = read_trigger(message.trigger)
    if trigger is not None and len(trigger.conditions) > MAX_CONDITIONS:
        raise ValueError(f"trigger.filter: expected at most {MAX_CONDITIONS} conditions, got {len(trigger.conditions)}")
    return MessageDefinition(
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
    Read a message. An optional field that is wrong counts as missing.

    Raises:
        FieldError: A required field is missing or wrong.
    """
    source = as_mapping(value)
    kind, payload = _type(source), optional(source, "payload", as_mapping) or {}
    is_rich, timeout = source.get("is_rich_text") is True, _seconds(source, "close_timeout")
    return InAppMessage(
        id=required(source, "id", as_string, max_length=MAX_NAME_LENGTH),
        name=required(source, "name", as_string, max_length=MAX_NAME_LENGTH),
        message_type=kind,
        frequency=required(source, "frequency", as_string, max_length=MAX_NAME_LENGTH),
        variant_id=required(source, "variant_id", as_integer, limit=_MAX_INTEGER, coerce=(float,)),
        variant_name=required(source, "variant_name", as_string, max_length=MAX_NAME_LENGTH),
        payload=payload,
        payload_html=optional(source, "payload_html", as_string),
        buttons=tuple(_buttons(payload, message_type=kind, is_rich_text=is_rich)),
        trigger=source.get("trigger"),
        date_filter=source.get("date_filter") or {},
        load_priority=optional(source, "load_priority", as_integer, limit=_MAX_INTEGER, coerce=(float,)),
        load_delay=_seconds(source, "load_delay") or 0.0,
        close_timeout=SLIDE_IN_TIMEOUT if timeout is None and kind == "slide_in" else timeout,
        is_html=source.get("is_html") is True,
        is_rich_text=is_rich,
        has_tracking_consent=has_consent(source.get("has_tracking_consent")),
        consent_category_tracking=optional(source, "consent_category_tracking", as_string, max_length=MAX_NAME_LENGTH),
    )


def matching_messages(
    definitions: tuple[MessageDefinition, ...], event: TriggerEvent, now: float
) -> list[MessageDefinition]:
    """Return the messages that are meant for an event and a time, UNIX seconds, however often they were shown."""
    found: list[MessageDefinition] = []
    second, deadline = int(now), perf_counter() + MAX_CHOICE_TIME
    for first in range(0, len(definitions), _CHUNK):
        chunk = definitions[first : first + _CHUNK]
        found += [
            each
            for each in chunk
            if each.trigger is not None and each.dates.includes(second) and each.trigger.matches(event)
        ]
        if perf_counter() > deadline:
            LOG.warning("The triggers of some in-app messages take too long, and the remaining messages are ignored.")
            break
    return found


def allowed_by_frequency(
    definitions: list[MessageDefinition], impressions: Mapping[str, Impression], session_start: float
) -> list[MessageDefinition]:
    """Return the messages that may be shown again in a session that began at a time, UNIX seconds."""
    if not impressions:
        return definitions
    return [each for each in definitions if may_show(each.frequency, impressions.get(each.id), session_start)]


def payload_urls(message: InAppMessage) -> list[str]:
    """Return the addresses of the images and fonts that a message's payload shows, each once."""
    payload, kind, is_rich_text = message.payload, message.message_type, message.is_rich_text
    found = [
        payload.get(name)
        for name, switch in _RESOURCES.items()
        if switch is None or is_enabled(payload, switch, message_type=kind, is_rich_text=is_rich_text)
    ]
    buttons = _shown_buttons(payload, message_type=kind, is_rich_text=is_rich_text)
    found += [button.get(_BUTTON_FONT) for button in buttons]
    # The host's function loads them, from wherever they are: it must not be asked for the host's own files.
    return list(dict.fromkeys(url for each in found if isinstance(each, str) and (url := safe_image(each))))


def _type(source: Mapping[str, Any]) -> str:
    if source.get("is_html") is True:
        return "freeform"
    name = (optional(source, "message_type", as_string) or "").lower()
    # An unknown type is shown as in the Android SDK.
    return name if name in _TYPES else "modal"


def _buttons(payload: Mapping[str, Any], *, message_type: str, is_rich_text: bool) -> Iterator[InAppMessageButton]:
    for button in _shown_buttons(payload, message_type=message_type, is_rich_text=is_rich_text):
        kind = (optional(button, "button_type", as_string) or "").lower()
        known = _KINDS.get(kind, ActionType.DEEP_LINK)
        link = safe_link(optional(button, "button_link", as_string))
        yield InAppMessageButton(optional(button, "button_text", as_string), link, known)


def _shown_buttons(payload: Mapping[str, Any], *, message_type: str, is_rich_text: bool) -> Iterator[Mapping[str, Any]]:
    has_style = is_rich_text and message_type != "alert"
    for button in optional(payload, "buttons", as_mappings) or ():
        has_text = bool(optional(button, "button_text", as_string)) or not has_style
        if has_text and is_enabled(button, "button_enabled", message_type=message_type, is_rich_text=is_rich_text):
            yield button


def _seconds(source: Mapping[str, Any], name: str) -> float | None:
    """Return a duration in milliseconds as seconds, limited to `MAX_DURATION`; None if it is not a number."""
    number = source.get(name)
    if isinstance(number, bool) or not isinstance(number, int | float) or not number >= 0:
        return None
    return float(min(number, MAX_DURATION * 1000) / 1000)
