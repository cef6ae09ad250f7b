"""
The events of what is shown: in-app messages and content blocks.
"""

from collections.abc import Callable, Mapping
from typing import Any, Literal

from attrs import evolve, frozen

from exponea_async.config import Configuration
from exponea_async.devices.context import SubjectContext
from exponea_async.devices.customers import CustomerSnapshot
from exponea_async.devices.owners import owner_of
from exponea_async.devices.sessions import device_properties
from exponea_async.devices.state import DeviceState, PendingEvent, TimestampSequence, UpdateResult
from exponea_async.features._shared.consent import is_forced
from exponea_async.models import Event, EventType, Receipt

BANNER = "banner"
#: How the platforms call themselves in events.
_PLATFORMS = {"android": "Android", "ios": "iOS"}

Action = Literal["show", "click", "close", "error"]


@frozen(kw_only=True)
class About:
    """
    What a banner event is about.

    Attributes:
        type: What it is, ``"in-app message"`` or ``"in-app content block"``.
        id: Its id.
        name: Its name.
        banner_type: How it looks, such as ``"modal"`` or ``"html"``.
        variant_id: Its variant in an A/B test, or None.
        variant_name: The variant's name, or None.
        placeholder: Where it is shown, of a content block.
        category: The category of the consent to track it, or None.
    """

    type: str
    id: str
    name: str
    banner_type: str
    variant_id: int | None = None
    variant_name: str | None = None
    placeholder: str | None = None
    category: str | None = None


def banner(
    configuration: Configuration,
    action: Action,
    about: About,
    *,
    interaction: bool,
    text: str | None = None,
    link: str | None = None,
    error: str | None = None,
) -> Event:
    """
    Make the event of what happened to something that is shown.

    Args:
        configuration: The settings.
        action: What happened.
        about: What it is about.
        interaction: Whether somebody did it.
        text: What the pressed button says.
        link: Where it leads to; it may force the tracking, which the event then says.
        error: What went wrong.
    """
    platform = _PLATFORMS[configuration.message_platform]
    told = {
        "variant_id": about.variant_id,
        "variant_name": about.variant_name,
        "placeholder": about.placeholder,
        "text": text,
        "link": link,
        "error": error,
        "consent_category_tracking": about.category,
        "tracking_forced": is_forced(link) or None,
    }
    properties: dict[str, Any] = {
        "action": action,
        "banner_id": about.id,
        "banner_name": about.name,
        "banner_type": about.banner_type,
        "interaction": interaction,
        "os": platform,
        "platform": platform,
        "type": about.type,
        **device_properties(configuration),
        **{name: value for name, value in told.items() if value is not None},
    }
    return Event(BANNER, properties)


async def tell(
    context: SubjectContext,
    event: Event,
    *,
    allowed: bool,
    ids: Mapping[str, str] | None = None,
    wake: bool = False,
    update: Callable[[DeviceState, float], DeviceState] | None = None,
    only_for: CustomerSnapshot | None = None,
    is_remembered: bool = True,
) -> Receipt | None:
    """
    Track a banner event, and what the device is to remember of it, in one commit.

    Args:
        context: The subject.
        event: The event.
        allowed: Whether it may be tracked. Otherwise it only changes what is remembered, and the rooms hear of it.
        ids: The customer it is about, where that need not be who the subject is now.
        wake: Whether it is a sign of life of the customer.
        update: Changes what the device remembers, at a moment, UNIX seconds.
        only_for: Do nothing where the device is somebody else's by now.
        is_remembered: Whether a device has a part in it at all; otherwise only the customer has.

    Returns:
        The receipt; a dropped one where it may not be tracked. None where the device is somebody else's.

    Raises:
        StorageError: The storage refused; nothing was kept.
        LifecycleError: The client is not running.
    """
    if not context.recorder.check_running():
        return context.recorder.dropped()
    if not context.is_device or not is_remembered:
        return await _tell_of_customer(context, event, ids, allowed=allowed)
    found: DeviceState | None = None

    def plan(state: DeviceState, moments: TimestampSequence) -> UpdateResult:
        nonlocal found
        found = state if only_for is None or state.customer_ids == only_for.ids else None
        if found is None:
            return state, ()
        at = moments.next()
        changed = update(state, at) if update else state
        told = PendingEvent(owner_of(context.recorder, changed, ids), EventType.BANNER, evolve(event, timestamp=at))
        return changed, [told] if allowed else []

    receipts = await context.change(plan, wake=wake)
    if found is None:
        # Also where the integration was stopped meanwhile, and nothing was asked of the plan.
        return None if context.recorder.check_running() else context.recorder.dropped()
    if allowed:
        return receipts[-1]
    await context.hear(EventType.BANNER, event, state=found)
    if only_for is not None:
        # To be heard takes a moment, in which somebody else may have come.
        now = await context.who(wake=False)
        if now is not None and now.ids != only_for.ids:
            return None
    return _unconsented(context)


async def _tell_of_customer(
    context: SubjectContext, event: Event, ids: Mapping[str, str] | None, *, allowed: bool
) -> Receipt:
    if not allowed:
        return _unconsented(context)
    draft = context.recorder.draft_event(EventType.BANNER, event)
    if draft is None:
        return context.recorder.dropped()
    if not ids:
        return await context.keep(draft)
    return (await context.keep_all([(context.recorder.identity(ids, None), draft)]))[0]


def _unconsented(context: SubjectContext) -> Receipt:
    return context.recorder.dropped("there is no consent to track it", count="no_consent")
