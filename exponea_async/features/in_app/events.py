"""
What happened to in-app messages: the events, what devices remember of it, and the stream of actions.
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from weakref import ref

from attrs import evolve

from exponea_async._internal.fields import FieldTypes, check_fields
from exponea_async._internal.links import safe_link, scheme_of
from exponea_async._internal.streams import Stream, Subscription
from exponea_async.config import Configuration
from exponea_async.devices.context import Remember, SubjectContext
from exponea_async.devices.ids import COOKIE, read_ids, read_key
from exponea_async.devices.impressions import Impression, unexpired
from exponea_async.devices.state import DeviceState
from exponea_async.errors import InvalidEventError
from exponea_async.features._shared.banners import Banner, BannerAction, banner_event
from exponea_async.features._shared.consent import may_track
from exponea_async.features._shared.html.reader import HtmlAction, find_action
from exponea_async.features._shared.tokens import make_token, read_token
from exponea_async.messages import InAppMessage, InAppMessageAction, InAppMessageButton
from exponea_async.models import Event, EventType, Receipt

TYPE = "in-app message"
#: Maximum length of a text, in characters; a longer one might not fit into an event, and is left out.
MAX_TEXT_LENGTH = 4_000

#: The types of the fields that are used of a message, and of a button, that a caller passes back.
_MESSAGE_FIELDS: FieldTypes = MappingProxyType(
    {
        "id": str,
        "name": str,
        "message_type": str,
        "variant_name": str | None,
        "consent_category_tracking": str | None,
        "device": str | None,
        "customer_ids": Mapping,
    }
)
_BUTTON_FIELDS: FieldTypes = MappingProxyType({"text": str | None, "url": str | None, "kind": str})


class ActionStream:
    """
    The stream of what happens to messages.

    The options of the latest subscription apply as long as it is open; then the defaults apply again.
    """

    def __init__(self) -> None:
        self._stream: Stream[InAppMessageAction] = Stream(max_early=1)
        self._latest: Callable[[], Subscription[InAppMessageAction] | None] = lambda: None
        self._options = (False, True)

    @property
    def overrides_default_behavior(self) -> bool:
        """Whether the host itself does what follows from a click, such as opening a link."""
        return self._current_options()[0]

    @property
    def tracks_actions(self) -> bool:
        """Whether clicks and closes are tracked."""
        return self._current_options()[1]

    def subscribe(self, *, override_default_behavior: bool, track_actions: bool) -> Subscription[InAppMessageAction]:
        """Return a new subscription, whose options apply from now on."""
        subscription = self._stream.subscribe()
        self._latest, self._options = ref(subscription), (override_default_behavior, track_actions)
        return subscription

    def publish(self, action: InAppMessageAction) -> None:
        """Deliver an action to all subscriptions."""
        self._stream.publish(action)

    def clear(self) -> None:
        """Discard what is kept for the first subscription."""
        self._stream.clear()

    def close(self) -> None:
        """End all subscriptions."""
        self._stream.close()

    def _current_options(self) -> tuple[bool, bool]:
        latest = self._latest()
        return (False, True) if latest is None or latest.is_closed else self._options


# Events


def message_event(
    context: SubjectContext,
    action: BannerAction,
    message: InAppMessage,
    *,
    interaction: bool = False,
    button: InAppMessageButton | None = None,
    error: str | None = None,
) -> Event:
    """Return the event of what happened to a message; the link of a button is part of a click only."""
    banner = Banner(
        type=TYPE,
        id=message.id,
        name=message.name,
        banner_type=message.message_type,
        variant_id=message.variant_id,
        variant_name=message.variant_name,
        category=message.consent_category_tracking,
    )
    text, link = (button.text, button.url and button.url.strip()) if button else (None, None)
    return banner_event(
        context,
        message.customer_ids,
        action,
        banner,
        interaction=interaction,
        text=_if_short(text),
        link=_if_short(link) if action == "click" else None,
        error=error and error[:MAX_TEXT_LENGTH],
    )


def may_track_message(message: InAppMessage, *, consider_consent: bool = True, url: str | None = None) -> bool:
    """Return whether an event about a message may be tracked; the link of a click may force it."""
    return may_track(
        has_consent=message.has_tracking_consent, consider_consent=consider_consent, url=url and url.strip()
    )


async def track_message(
    context: SubjectContext,
    message: InAppMessage,
    event: Event,
    *,
    has_consent: bool,
    counts_as_activity: bool,
    remember: Remember | None = None,
) -> Receipt:
    """
    Track an event about a message, for the customer to whom it was shown.

    Args:
        context: The device of the message; any subject for a message without a device.
        message: The message.
        event: The event.
        has_consent: Whether it may be tracked.
        counts_as_activity: Whether it prolongs the session.
        remember: What the device remembers of it.
    """
    ids = message.customer_ids or None
    if message.device is None and ids is not None:
        # No device remembers the message: a customer tracker loaded it, or the host created it.
        return await context.record_as(ids, EventType.BANNER, event, has_consent=has_consent)
    receipt = await context.record_for(
        ids,
        EventType.BANNER,
        event,
        has_consent=has_consent,
        counts_as_activity=counts_as_activity,
        remember=remember,
    )
    return context.recorder.dropped() if receipt is None else receipt


def message_token(configuration: Configuration, message: InAppMessage) -> str:
    """Return a token that stands for a message; raises as `make_token` and `check_message` do."""
    check_message(message)
    content = {
        "id": message.id,
        "name": message.name,
        "type": message.message_type,
        "variant": [message.variant_id, message.variant_name],
        "consent": [message.has_tracking_consent, message.consent_category_tracking],
        "buttons": [[each.text, each.url, each.kind] for each in message.buttons],
    }
    return make_token(configuration, "message", content)


def message_of(context: SubjectContext, message: InAppMessage | str) -> InAppMessage:
    """
    Return a message that a caller passes, or the one that a token stands for; raises as `read_token` does.

    Args:
        context: The subject that the message of a token is about.
        message: The message or token.
    """
    if not isinstance(message, str):
        return message
    content = read_token(context.configuration, "message", message)
    variant_id, variant_name = content["variant"]
    has_consent, category = content["consent"]
    return InAppMessage(
        id=content["id"],
        name=content["name"],
        message_type=content["type"],
        variant_id=variant_id,
        variant_name=variant_name,
        buttons=tuple(InAppMessageButton(*each) for each in content["buttons"]),
        has_tracking_consent=has_consent,
        consent_category_tracking=category,
        device=context.key,
    )


def button_of(message: InAppMessage, url: str) -> InAppMessageButton | None:
    """Return the button of a message that has an address; None if there is none."""
    known = {HtmlAction(each.kind, each.url, each.text): each for each in message.buttons if each.url is not None}
    found = find_action(known, url)
    return None if found is None else known[found]


def link_to_open(button: InAppMessageButton) -> str | None:
    """Return the link that is to be opened; None if there is none, if it has no scheme, or could run something."""
    url = safe_link(button.url)
    return url if url is not None and scheme_of(url) else None


# What a device remembers


def remember_display(message_id: str) -> Remember:
    """Return the change that remembers that a message was shown."""
    return _remember(message_id, lambda impression, at: evolve(impression, displayed=at))


def remember_interaction(message: InAppMessage) -> Remember:
    """Return the change that remembers a click, unless the device belongs to another customer by now."""
    remember = _remember(message.id, lambda impression, at: evolve(impression, interacted=at))

    def remember_for_customer(state: DeviceState, at: float) -> DeviceState:
        is_same_customer = message.customer_ids.get(COOKIE, state.cookie) == state.cookie
        return remember(state, at) if is_same_customer else state

    return remember_for_customer


def _remember(message_id: str, change: Callable[[Impression, float], Impression]) -> Remember:
    def remember(state: DeviceState, at: float) -> DeviceState:
        impressions = unexpired(state.messages, at)
        impressions[message_id] = change(impressions.get(message_id, Impression()), at)
        return evolve(state, messages=MappingProxyType(impressions))

    return remember


# Checks


def check_message(message: InAppMessage) -> None:
    """
    Check a message that a caller passes.

    Raises:
        InvalidEventError: It is not a message, or a field of it is of another type.
    """
    if not isinstance(message, InAppMessage):
        trouble = f"expected an InAppMessage, got {type(message).__name__}"
        raise InvalidEventError("message", trouble, "Pass a message that was shown.")
    check_fields("message", message, _MESSAGE_FIELDS)
    if message.customer_ids:
        read_ids(message.customer_ids, "message.customer_ids")
    if message.device is not None:
        read_key(message.device, "message.device")


def check_button(button: InAppMessageButton | None, *, is_required: bool) -> None:
    """
    Check a button that a caller passes.

    Raises:
        InvalidEventError: It is not a button, or a field of it is of another type.
    """
    if button is None and not is_required:
        return
    if not isinstance(button, InAppMessageButton):
        trouble = f"expected an InAppMessageButton, got {type(button).__name__}"
        raise InvalidEventError("button", trouble, "Pass one of message.buttons, or InAppMessageButton(text, url).")
    check_fields("button", button, _BUTTON_FIELDS)


def _if_short(text: str | None) -> str | None:
    return text if text is not None and len(text) <= MAX_TEXT_LENGTH else None
