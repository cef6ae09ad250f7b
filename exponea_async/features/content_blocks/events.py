"""
What is told of content blocks, and what the device remembers of it.
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from attrs import evolve, field, frozen

from exponea_async._internal.fields import FieldTypes, check_fields
from exponea_async.devices.context import SubjectContext
from exponea_async.devices.customers import CustomerSnapshot
from exponea_async.devices.device_context import DeviceContext
from exponea_async.devices.impressions import Impression
from exponea_async.devices.state import DeviceState
from exponea_async.errors import InvalidEventError
from exponea_async.features._shared.banners import Banner, BannerAction, banner_event
from exponea_async.features._shared.consent import may_track
from exponea_async.features._shared.html.reader import CLOSE, HtmlAction, find_action
from exponea_async.features._shared.targeting.schedule import ALWAYS, may_show
from exponea_async.features.content_blocks.parsing import MAX_TEXT, has_tracking_consent, told_type
from exponea_async.messages import InAppContentBlock, InAppContentBlockAction, PersonalizedData
from exponea_async.models import Event, EventType, Receipt

INVALID_HTML = "Invalid HTML or empty"
INVALID_ACTION = "Invalid action definition"
#: What a frame opens by itself, which nobody pressed.
NOT_PRESSED = "about:blank"

_TYPES = {"browser": "BROWSER", "deep-link": "DEEPLINK", CLOSE: "CLOSE"}
_KINDS = {type_: kind for kind, type_ in _TYPES.items()}
_NOTHING: Mapping[str, Any] = MappingProxyType({})
#: What the fields of a block that is told of, and of what was pressed in it, have to be.
_FIELDS: FieldTypes = MappingProxyType(
    {
        "id": str,
        "name": str,
        "frequency": str | None,
        "actions": tuple | list,
        "content_type": str | None,
        "consent_category_tracking": str | None,
        "personalized_data": PersonalizedData | None,
        "customer_ids": Mapping,
    }
)
_WORDS: FieldTypes = MappingProxyType({"type": str, "name": str | None, "url": str | None})


class OvertakenError(Exception):
    """Somebody else showed the block to the customer meanwhile, or the customer is another one by now."""


@frozen
class Viewer:
    """
    Who is to see content blocks, and what is remembered of what they saw.

    Attributes:
        customer: The customer.
        displays: When blocks were shown and pressed, by their ids.
        visit_start: When the session began, UNIX seconds.
    """

    customer: CustomerSnapshot
    displays: Mapping[str, Impression] = field(default=_NOTHING)
    visit_start: float = 0.0


async def viewer_of(context: SubjectContext, visit_start: float) -> Viewer | None:
    """
    Tell who is to see content blocks, which is a sign of life; None where the integration is stopped.

    Args:
        context: The subject.
        visit_start: What counts as the begin of a session where none is open, UNIX seconds.

    Raises:
        StorageError: The storage refused.
        LifecycleError: The client is not running.
    """
    if not isinstance(context, DeviceContext):
        customer = await context.current_customer()
        return None if customer is None else Viewer(customer)
    customer, state = await context.load_customer()
    if customer is None or state is None:
        return None
    start = visit_start if state.session_start is None else state.session_start
    return Viewer(customer, state.blocks, start)


def action_of(action: HtmlAction) -> InAppContentBlockAction:
    """Make the public value of what can be pressed."""
    return InAppContentBlockAction(_TYPES[action.kind], action.text, action.url)


def pressed(block: InAppContentBlock, action: InAppContentBlockAction | str) -> InAppContentBlockAction | None:
    """
    Tell what was pressed in a block.

    Args:
        block: The block.
        action: What was pressed, or the address that was opened.

    Returns:
        What was pressed; None where nothing in the block has that address.

    Raises:
        InvalidEventError: It is neither.
    """
    if not isinstance(action, str):
        check_action(action)
        return action
    known = {HtmlAction(_kind(each), each.url, each.name): each for each in block.actions if each.url is not None}
    found = find_action(known, action)
    return None if found is None else known[found]


def is_close(action: InAppContentBlockAction) -> bool:
    """Tell whether what was pressed closes the block."""
    return _kind(action) == CLOSE


async def track(
    context: SubjectContext,
    placeholder: str,
    block: InAppContentBlock,
    action: BannerAction,
    *,
    pressed: InAppContentBlockAction | None = None,
    error: str | None = None,
    consider_consent: bool = True,
    update: Callable[[DeviceState, float], DeviceState] | None = None,
    only_for: CustomerSnapshot | None = None,
    counts_as_activity: bool = True,
) -> Receipt:
    """
    Track what happened to a block, of the customer that it was loaded for.

    Args:
        context: The subject.
        placeholder: Where it was shown.
        block: The block.
        action: What happened.
        pressed: What was pressed.
        error: What went wrong.
        consider_consent: Whether it counts whether the block may be tracked.
        update: Changes what the device remembers, at a moment, UNIX seconds.
        only_for: Who the subject has to be.
        counts_as_activity: Whether it is a sign of life of the customer.

    Raises:
        InvalidEventError: It is no placeholder, or no block.
        OvertakenError: The device is somebody else's by now.
        StorageError: The storage refused; nothing was kept.
        LifecycleError: The client is not running.
    """
    check_block(placeholder, block)
    if action == "click":
        check_action(pressed)
    text, link = (None, None) if pressed is None else (pressed.name, pressed.url)
    event = event_of(context, placeholder, block, action, text=text, link=link, error=error)
    has_consent = may_track(has_consent=has_tracking_consent(block), consider_consent=consider_consent, url=link)
    receipt = await context.record_for(
        block.customer_ids or None,
        EventType.BANNER,
        event,
        has_consent=has_consent,
        counts_as_activity=counts_as_activity,
        remember=update,
        only_for=only_for,
    )
    if receipt is None:
        raise OvertakenError
    return receipt


async def show(
    context: SubjectContext, placeholder: str, block: InAppContentBlock, viewer: Viewer, *, if_due: bool
) -> float:
    """
    Track that a block is shown, and remember it.

    Args:
        context: The subject.
        placeholder: Where.
        block: The block.
        viewer: Whom it is shown to.
        if_due: Only if it may be shown still, for somebody else may have shown it meanwhile.

    Returns:
        The moment, UNIX seconds.

    Raises:
        OvertakenError: It may not be shown any more, or the device is somebody else's.
    """
    moment: float | None = None

    def update(state: DeviceState, at: float) -> DeviceState:
        nonlocal moment
        moment, known = at, state.blocks.get(block.id)
        if if_due and not may_show(block.frequency or ALWAYS, known, viewer.visit_start):
            # Nothing is changed or kept where a plan raises.
            raise OvertakenError
        return _with(state, block, evolve(known or Impression(), displayed=at))

    await track(context, placeholder, block, "show", update=update, only_for=viewer.customer, counts_as_activity=False)
    return context.recorder.timestamp() if moment is None else moment


async def interact(
    context: SubjectContext,
    placeholder: str,
    block: InAppContentBlock,
    action: InAppContentBlockAction | None,
    *,
    is_tracked: bool = True,
) -> float:
    """
    Track that something was pressed in a block, or that it was closed, and remember that.

    Args:
        context: The subject.
        placeholder: Where it was shown.
        block: The block.
        action: What was pressed; None where it was closed.
        is_tracked: Whether it is told, or only remembered.

    Returns:
        The moment, UNIX seconds.
    """
    moment: float | None = None

    def update(state: DeviceState, at: float) -> DeviceState:
        nonlocal moment
        moment = at
        if block.customer_ids and dict(block.customer_ids) != state.customer_ids:
            # The customer it was shown to is gone: the present one has not done anything with it.
            return state
        return _with(state, block, evolve(state.blocks.get(block.id) or Impression(), interacted=at))

    if is_tracked:
        kind: BannerAction = "close" if action is None else "click"
        await track(context, placeholder, block, kind, pressed=action, update=update)
    else:
        check_block(placeholder, block)
        await context.remember(update)
    return context.recorder.timestamp() if moment is None else moment


def event_of(
    context: SubjectContext,
    placeholder: str,
    block: InAppContentBlock,
    action: BannerAction,
    *,
    text: str | None = None,
    link: str | None = None,
    error: str | None = None,
) -> Event:
    """Make the event of what happened to a block."""
    data = block.personalized_data
    banner = Banner(
        type="in-app content block",
        id=block.id,
        name=block.name,
        banner_type=told_type(block),
        variant_id=None if data is None else data.variant_id,
        variant_name=None if data is None else data.variant_name,
        placeholder=placeholder,
        category=block.consent_category_tracking,
    )
    interaction = action in ("click", "close")
    text, link = text and text[:MAX_TEXT], link and link[:MAX_TEXT]
    return banner_event(
        context.configuration, action, banner, interaction=interaction, text=text, link=link, error=error
    )


def _with(state: DeviceState, block: InAppContentBlock, display: Impression) -> DeviceState:
    return evolve(state, blocks=MappingProxyType({**state.blocks, block.id: display}))


def _kind(action: InAppContentBlockAction) -> str:
    return _KINDS.get(action.type.upper(), action.type)


def check_block(placeholder: object, block: object) -> None:
    """
    Refuse what can't be told of.

    Raises:
        InvalidEventError: It is no placeholder, or no block.
    """
    check_placeholder(placeholder)
    if not isinstance(block, InAppContentBlock):
        raise InvalidEventError("content_block", f"a {type(block).__name__} is none", "Give an InAppContentBlock.")
    check_fields("content_block", block, _FIELDS)
    if block.personalized_data is not None:
        check_fields("content_block.personalized_data", block.personalized_data, {"content_type": str | None})


def check_action(action: object) -> None:
    """
    Refuse what can't have been pressed.

    Raises:
        InvalidEventError: It is no action.
    """
    if not isinstance(action, InAppContentBlockAction):
        raise InvalidEventError("action", f"a {type(action).__name__} is none", "Give an InAppContentBlockAction.")
    check_fields("action", action, _WORDS)


def check_placeholder(placeholder: object) -> None:
    """
    Refuse what names no placeholder.

    Raises:
        InvalidEventError: It is no non-empty text.
    """
    if not isinstance(placeholder, str) or not placeholder:
        raise InvalidEventError("placeholder_id", f"{placeholder!r:.60} is no non-empty text", "Give its id.")
