"""
The events of content blocks, and what a device remembers of them.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from attrs import evolve, field, frozen

from exponea_async._internal.actions import ActionType
from exponea_async._internal.arguments import read_text
from exponea_async._internal.fields import FieldTypes, check_fields
from exponea_async.config import Configuration
from exponea_async.devices.context import Remember, SubjectContext
from exponea_async.devices.customers import CustomerSnapshot
from exponea_async.devices.device_context import DeviceContext
from exponea_async.devices.impressions import Impression
from exponea_async.devices.state import DeviceState
from exponea_async.errors import InvalidEventError
from exponea_async.features._shared.banners import Banner, BannerAction, banner_event
from exponea_async.features._shared.consent import may_track
from exponea_async.features._shared.html.reader import HtmlAction, find_action
from exponea_async.features._shared.targeting.schedule import ALWAYS, may_show
from exponea_async.features._shared.tokens import make_token, read_token
from exponea_async.features.content_blocks.parsing import MAX_TEXT_LENGTH, OK, content_type_of, has_tracking_consent
from exponea_async.messages import InAppContentBlock, InAppContentBlockAction, PersonalizedData
from exponea_async.models import Event, EventType, Receipt

INVALID_HTML = "Invalid HTML or empty"
INVALID_ACTION = "Invalid action definition"

_NO_IMPRESSIONS: Mapping[str, Impression] = MappingProxyType({})
#: The types of the fields that events need, of a block that a caller passes back.
_BLOCK_FIELDS: FieldTypes = MappingProxyType(
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
#: The same of an action.
_ACTION_FIELDS: FieldTypes = MappingProxyType({"type": str, "name": str | None, "url": str | None})


class OutdatedError(Exception):
    """The block may no longer be shown: another call has shown it, or the device belongs to another customer."""


@frozen
class Viewer:
    """
    The customer that content blocks are shown to.

    Attributes:
        customer: The customer.
        impressions: When blocks were shown and interacted with, by their ids.
        session_start: When the session began, UNIX seconds.
    """

    customer: CustomerSnapshot
    impressions: Mapping[str, Impression] = field(default=_NO_IMPRESSIONS)
    session_start: float = 0.0


async def load_viewer(context: SubjectContext, session_start: float) -> Viewer | None:
    """
    Return the present customer, which counts as activity; None where the integration is stopped.

    Args:
        context: The subject.
        session_start: The start of the session where none is open, UNIX seconds.

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
    return Viewer(customer, state.blocks, session_start if state.session_start is None else state.session_start)


def public_action(action: HtmlAction) -> InAppContentBlockAction:
    """Return the public value of an action."""
    return InAppContentBlockAction(ActionType(action.kind), action.text, action.url)


def clicked_action(block: InAppContentBlock, action: InAppContentBlockAction | str) -> InAppContentBlockAction | None:
    """
    Return the action of a block that was clicked.

    Args:
        block: The block.
        action: The action, or the URL that was opened.

    Returns:
        The action; None where no action of the block has the URL.

    Raises:
        InvalidEventError: It is neither an action nor a URL.
    """
    if not isinstance(action, str):
        check_action(action)
        return action
    actions = {HtmlAction(each.type, each.url, each.name): each for each in block.actions if each.url is not None}
    found = find_action(actions, action)
    return None if found is None else actions[found]


def is_close(action: InAppContentBlockAction) -> bool:
    """Return whether an action closes the block."""
    return action.type == ActionType.CLOSE


async def track(
    context: SubjectContext,
    placeholder: str,
    block: InAppContentBlock,
    action: BannerAction,
    *,
    clicked: InAppContentBlockAction | None = None,
    error: str | None = None,
    consider_consent: bool = True,
    remember: Remember | None = None,
    only_for: CustomerSnapshot | None = None,
    counts_as_activity: bool = True,
) -> Receipt:
    """
    Record an event about a block, for the customer that it was loaded for.

    Args:
        context: The subject.
        placeholder: The placeholder in which it was shown.
        block: The block.
        action: What happened.
        clicked: The action that was clicked.
        error: What went wrong.
        consider_consent: Whether the block's own consent to tracking counts.
        remember: What a device remembers of it, in the same commit.
        only_for: The customer that the device must belong to.
        counts_as_activity: Whether the event prolongs a device's session.

    Raises:
        InvalidEventError: The placeholder is not a non-empty string, or the block not an `InAppContentBlock`.
        OutdatedError: The device belongs to another customer than `only_for`.
        StorageError: The storage refused; nothing was recorded.
        LifecycleError: The client is not running.
    """
    check_block(placeholder, block)
    if action == "click":
        check_action(clicked)
    text, link = (None, None) if clicked is None else (clicked.name, clicked.url)
    event = block_event(context, placeholder, block, action, text=text, link=link, error=error)
    has_consent = may_track(has_consent=has_tracking_consent(block), consider_consent=consider_consent, url=link)
    receipt = await context.record_for(
        block.customer_ids or None,
        EventType.BANNER,
        event,
        has_consent=has_consent,
        counts_as_activity=counts_as_activity,
        remember=remember,
        only_for=only_for,
    )
    if receipt is None:
        raise OutdatedError
    return receipt


async def track_show(
    context: SubjectContext, placeholder: str, block: InAppContentBlock, viewer: Viewer, *, only_if_due: bool
) -> float:
    """
    Record that a block is shown, and remember it.

    Args:
        context: The subject.
        placeholder: The placeholder.
        block: The block.
        viewer: The customer that it is shown to.
        only_if_due: Whether its frequency is checked again, since another call may have shown it in the meantime.

    Returns:
        The time of the event, UNIX seconds.

    Raises:
        OutdatedError: The block may no longer be shown, or the device belongs to another customer.
    """
    shown_at: float | None = None

    def remember(state: DeviceState, at: float) -> DeviceState:
        nonlocal shown_at
        shown_at, impression = at, state.blocks.get(block.id)
        if only_if_due and not may_show(block.frequency or ALWAYS, impression, viewer.session_start):
            # An update that raises changes and records nothing.
            raise OutdatedError
        return _with_impression(state, block, evolve(impression or Impression(), displayed=at))

    await track(
        context, placeholder, block, "show", remember=remember, only_for=viewer.customer, counts_as_activity=False
    )
    return context.recorder.timestamp() if shown_at is None else shown_at


async def track_interaction(
    context: SubjectContext,
    placeholder: str,
    block: InAppContentBlock,
    clicked: InAppContentBlockAction | None,
    *,
    is_tracked: bool = True,
) -> float:
    """
    Record that an action of a block was clicked, or that the block was closed, and remember it.

    Args:
        context: The subject.
        placeholder: The placeholder in which it was shown.
        block: The block.
        clicked: The action; None where the block was closed.
        is_tracked: Whether an event is recorded; otherwise the interaction is only remembered.

    Returns:
        The time of the event, UNIX seconds.
    """
    interacted_at: float | None = None

    def remember(state: DeviceState, at: float) -> DeviceState:
        nonlocal interacted_at
        interacted_at = at
        if block.customer_ids and dict(block.customer_ids) != state.customer_ids:
            # The block was shown to a previous customer: the present one has not interacted with it.
            return state
        return _with_impression(state, block, evolve(state.blocks.get(block.id) or Impression(), interacted=at))

    if is_tracked:
        action: BannerAction = "close" if clicked is None else "click"
        await track(context, placeholder, block, action, clicked=clicked, remember=remember)
    else:
        check_block(placeholder, block)
        await context.remember(remember)
    return context.recorder.timestamp() if interacted_at is None else interacted_at


def block_event(
    context: SubjectContext,
    placeholder: str,
    block: InAppContentBlock,
    action: BannerAction,
    *,
    text: str | None = None,
    link: str | None = None,
    error: str | None = None,
) -> Event:
    """Return an event about a block."""
    data = block.personalized_data
    banner = Banner(
        type="in-app content block",
        id=block.id,
        name=block.name,
        banner_type=content_type_of(block),
        variant_id=None if data is None else data.variant_id,
        variant_name=None if data is None else data.variant_name,
        placeholder=placeholder,
        category=block.consent_category_tracking,
    )
    interaction = action in ("click", "close")
    text, link = text and text[:MAX_TEXT_LENGTH], link and link[:MAX_TEXT_LENGTH]
    return banner_event(
        context, block.customer_ids, action, banner, interaction=interaction, text=text, link=link, error=error
    )


def block_token(configuration: Configuration, block: InAppContentBlock) -> str:
    """Return a token that stands for a block; raises as `make_token` and `check_block` do."""
    check_block("placeholder", block)
    data = block.personalized_data
    content = {
        "id": block.id,
        "name": block.name,
        "frequency": block.frequency,
        "category": block.consent_category_tracking,
        "type": block.content_type,
        "actions": [[each.type, each.name, each.url] for each in block.actions],
        "data": data and [data.has_tracking_consent, data.variant_id, data.variant_name, data.content_type],
    }
    return make_token(configuration, "content_block", content)


def block_of(configuration: Configuration, block: InAppContentBlock | str) -> InAppContentBlock:
    """Return a block that a caller passes, or the one that a token stands for; raises as `read_token` does."""
    if not isinstance(block, str):
        return block
    content = read_token(configuration, "content_block", block)
    data = None
    if content["data"] is not None:
        has_consent, variant_id, variant_name, content_type = content["data"]
        data = PersonalizedData(
            id=content["id"],
            status=OK,
            has_tracking_consent=has_consent,
            variant_id=variant_id,
            variant_name=variant_name,
            content_type=content_type,
        )
    return InAppContentBlock(
        id=content["id"],
        name=content["name"],
        frequency=content["frequency"],
        consent_category_tracking=content["category"],
        content_type=content["type"],
        actions=tuple(InAppContentBlockAction(*each) for each in content["actions"]),
        personalized_data=data,
    )


def check_block(placeholder: Any, block: Any) -> None:
    """
    Check the arguments of a verb about a block.

    Raises:
        InvalidEventError: The placeholder is not a non-empty string, or the block not an `InAppContentBlock`, or one
            that was modified.
    """
    check_placeholder(placeholder)
    if not isinstance(block, InAppContentBlock):
        trouble = f"expected an InAppContentBlock, got {type(block).__name__}"
        raise InvalidEventError("content_block", trouble, "Pass a block that content_block() returned.")
    check_fields("content_block", block, _BLOCK_FIELDS)
    if block.personalized_data is not None:
        check_fields("content_block.personalized_data", block.personalized_data, {"content_type": str | None})


def check_action(action: Any) -> None:
    """
    Check the action of a click.

    Raises:
        InvalidEventError: It is not an `InAppContentBlockAction`, or one that was modified.
    """
    if not isinstance(action, InAppContentBlockAction):
        trouble = f"expected an InAppContentBlockAction, got {type(action).__name__}"
        raise InvalidEventError("action", trouble, "Pass one of the block's actions.")
    check_fields("action", action, _ACTION_FIELDS)


def check_placeholder(placeholder: Any) -> None:
    """
    Check the id of a placeholder.

    Raises:
        InvalidEventError: It is not a string, or blank.
    """
    read_text(placeholder, "placeholder_id", "Pass the id of the placeholder.")


def _with_impression(state: DeviceState, block: InAppContentBlock, impression: Impression) -> DeviceState:
    return evolve(state, blocks=MappingProxyType({**state.blocks, block.id: impression}))
