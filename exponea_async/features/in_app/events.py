"""
What happened to in-app messages: the events about it, what devices remember of it, and who listens to it.
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from weakref import ref

from attrs import evolve

from exponea_async._internal.fields import FieldTypes, check_fields
from exponea_async._internal.streams import Stream, Subscription
from exponea_async.config import Configuration
from exponea_async.devices.context import SubjectContext
from exponea_async.devices.ids import COOKIE, read_ids, read_key
from exponea_async.devices.impressions import Impression, unexpired
from exponea_async.devices.state import DeviceState
from exponea_async.errors import InvalidEventError
from exponea_async.features._shared.banners import Banner, BannerAction, banner_event
from exponea_async.features._shared.consent import may_track
from exponea_async.features._shared.html.resources import safe_link, scheme_of
from exponea_async.messages import InAppMessage, InAppMessageAction, InAppMessageButton
from exponea_async.models import Event, EventType, Receipt

TYPE = "in-app message"
#: Texts above this many characters may not fit into an event, and are left out of it.
LONGEST_TEXT = 4_000

#: What the fields of a message that is told of, and of what was pressed in it, have to be.
_FIELDS: FieldTypes = MappingProxyType(
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
_WORDS: FieldTypes = MappingProxyType({"text": str | None, "url": str | None})

Update = Callable[[DeviceState, float], DeviceState]


class ActionStream:
    """
    Tells what happened to messages, to whoever wants to listen.

    How the SDK behaves meanwhile is up to the last one who began to listen, and as by default once they have gone.
    """

    def __init__(self) -> None:
        self._stream: Stream[InAppMessageAction] = Stream(max_early=1)
        self._last: Callable[[], Subscription[InAppMessageAction] | None] = lambda: None
        self._options = (False, True)

    @property
    def is_overridden(self) -> bool:
        """Whether the host does itself what follows from a press, such as opening a link."""
        return self._now()[0]

    @property
    def is_tracked(self) -> bool:
        """Whether presses are tracked."""
        return self._now()[1]

    def listen(self, *, override_default_behavior: bool, track_actions: bool) -> Subscription[InAppMessageAction]:
        """Begin to listen."""
        listener = self._stream.subscribe()
        self._last, self._options = ref(listener), (override_default_behavior, track_actions)
        return listener

    def publish(self, action: InAppMessageAction) -> None:
        """Let all listeners know."""
        self._stream.publish(action)

    def clear(self) -> None:
        """Hold nothing for who has not come yet."""
        self._stream.clear()

    def close(self) -> None:
        """Let all listeners go."""
        self._stream.close()

    def _now(self) -> tuple[bool, bool]:
        last = self._last()
        return (False, True) if last is None or last.is_closed else self._options


def event_of(
    configuration: Configuration,
    action: BannerAction,
    message: InAppMessage,
    *,
    interaction: bool = False,
    button: InAppMessageButton | None = None,
    error: str | None = None,
) -> Event:
    """Make the event of what happened to a message; the link of a button only counts for clicks."""
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
        configuration,
        action,
        banner,
        interaction=interaction,
        text=_fitting(text),
        link=_fitting(link) if action == "click" else None,
        error=error and error[:LONGEST_TEXT],
    )


def is_allowed(message: InAppMessage, *, consider_consent: bool = True, url: str | None = None) -> bool:
    """Tell whether something about a message may be tracked; a click on a link may be forced by it."""
    return may_track(
        has_consent=message.has_tracking_consent, consider_consent=consider_consent, url=url and url.strip()
    )


def shown(message_id: str) -> Update:
    """Make the change that remembers that a message was shown."""
    return _remembered(message_id, lambda display, at: evolve(display, displayed=at))


def pressed(message: InAppMessage) -> Update:
    """Make the change that remembers that a message was pressed, unless its device is somebody else's by now."""
    remember = _remembered(message.id, lambda display, at: evolve(display, interacted=at))

    def update(state: DeviceState, at: float) -> DeviceState:
        is_theirs = message.customer_ids.get(COOKIE, state.cookie) == state.cookie
        return remember(state, at) if is_theirs else state

    return update


async def report(
    context: SubjectContext,
    message: InAppMessage,
    event: Event,
    *,
    allowed: bool,
    counts_as_activity: bool,
    update: Update | None = None,
) -> Receipt:
    """
    Track what happened to a message, of the customer that it was shown to.

    Args:
        context: Its device; of one for a customer tracker, or made by hand, any subject.
        message: The message.
        event: What happened.
        allowed: Whether it may be tracked.
        counts_as_activity: Whether it is a sign of life of the customer.
        update: Changes what the device remembers.
    """
    ids = message.customer_ids or None
    if message.device is None and ids is not None:
        # No device remembers the message: a customer tracker loaded it, or the host created it.
        return await context.record_as(ids, EventType.BANNER, event, has_consent=allowed)
    receipt = await context.record_for(
        ids, EventType.BANNER, event, has_consent=allowed, counts_as_activity=counts_as_activity, remember=update
    )
    return context.recorder.dropped() if receipt is None else receipt


def link_to_open(button: InAppMessageButton) -> str | None:
    """Tell the link that is to be opened, as a whole address; None where there is none, or it could run something."""
    url = safe_link(button.url or "")
    return url if url is not None and scheme_of(url) else None


def check_message(message: InAppMessage) -> None:
    """
    Make sure of what a caller gave.

    Raises:
        InvalidEventError: It is no message.
    """
    if not isinstance(message, InAppMessage):
        raise InvalidEventError("message", f"a {type(message).__name__} is no InAppMessage", "Give one that was shown.")
    check_fields("message", message, _FIELDS)
    if message.customer_ids:
        read_ids(message.customer_ids, "message.customer_ids")
    if message.device is not None:
        read_key(message.device, "message.device")


def check_button(button: InAppMessageButton | None, *, needed: bool) -> None:
    """
    Make sure of what a caller gave.

    Raises:
        InvalidEventError: It is no button, and one is needed; or its text or link is no text.
    """
    if button is None and not needed:
        return
    if not isinstance(button, InAppMessageButton):
        trouble = f"a {type(button).__name__} is no InAppMessageButton"
        raise InvalidEventError("button", trouble, "Give one of message.buttons, or InAppMessageButton(text, url).")
    check_fields("button", button, _WORDS)


def _remembered(message_id: str, change: Callable[[Impression, float], Impression]) -> Update:
    def update(state: DeviceState, at: float) -> DeviceState:
        known = unexpired(state.messages, at)
        known[message_id] = change(known.get(message_id, Impression()), at)
        return evolve(state, messages=MappingProxyType(known))

    return update


def _fitting(text: str | None) -> str | None:
    return text if text is not None and len(text) <= LONGEST_TEXT else None
