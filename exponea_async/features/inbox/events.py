"""
The events of the app inbox. They are about the customer whom a message was loaded for, whoever the device is by now.
"""

import logging
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from exponea_async._internal.fields import FieldTypes, check_fields
from exponea_async.devices.context import SubjectContext
from exponea_async.devices.ids import read_ids
from exponea_async.errors import InvalidEventError
from exponea_async.features._shared.consent import forces_tracking
from exponea_async.features.inbox.parsing import MAX_TEXT
from exponea_async.messages import AppInboxAction, AppInboxMessage
from exponea_async.models import Event, EventType, Receipt

LOG = logging.getLogger("exponea_async")

CAMPAIGN = "campaign"
#: What the fields of a message that is told of, and of what was pressed in it, have to be.
_FIELDS: FieldTypes = MappingProxyType(
    {
        "id": str,
        "tracking_data": Mapping,
        "consent_category_tracking": str | None,
        "customer_ids": Mapping,
        "sync_token": str | None,
    }
)
_WORDS: FieldTypes = MappingProxyType({"title": str | None, "url": str | None})


def stamped_ids(message: AppInboxMessage) -> dict[str, str]:
    """
    Tell the ids that a message was loaded for; there are none where it is hand-made.

    Raises:
        InvalidEventError: It is no message, or they are no ids.
    """
    if not isinstance(message, AppInboxMessage):
        trouble = f"a {type(message).__name__} is no AppInboxMessage"
        raise InvalidEventError("message", trouble, "Give one of fetch_app_inbox().")
    check_fields("message", message, _FIELDS)
    return read_ids(message.customer_ids, "message.customer_ids")


def opened(message: AppInboxMessage, platform: str) -> Event:
    """Make the event of a message that was opened."""
    return Event(CAMPAIGN, {**message.tracking_data, "status": "opened", **_always(message, platform)})


def clicked(action: AppInboxAction, message: AppInboxMessage, platform: str) -> Event:
    """
    Make the event of what was pressed in a message.

    Raises:
        InvalidEventError: It is no action.
    """
    if not isinstance(action, AppInboxAction):
        raise InvalidEventError("action", f"a {type(action).__name__} is no AppInboxAction", "The action comes first.")
    check_fields("action", action, _WORDS)
    # What was pressed is a fact, which a message's own properties don't change, as in the iOS SDK.
    properties = {
        **message.tracking_data,
        "status": "clicked",
        "url": (action.url or "app")[:MAX_TEXT],
        "cta": (action.title or "inbox")[:MAX_TEXT],
        **({"tracking_forced": True} if forces_tracking(action.url) else {}),
        **_always(message, platform),
    }
    return Event(CAMPAIGN, properties)


async def track(
    context: SubjectContext, kind: EventType, event: Event, ids: Mapping[str, str], *, allowed: bool
) -> Receipt:
    """
    Track an event; on a device that is a sign of life, whether or not it may be tracked.

    Args:
        context: The subject.
        kind: The event's kind.
        event: The event.
        ids: The customer it is about; nothing is tracked of a message that tells none.
        allowed: Whether it may be tracked. Otherwise the rooms hear of it.

    Raises:
        InvalidEventError: It can't be sent as it is.
        StorageError: The storage refused; nothing was kept.
        LifecycleError: The client is not running.
    """
    recorder = context.recorder
    if not recorder.check_running():
        return recorder.dropped()
    if not ids:
        LOG.warning("A message of the app inbox was not loaded for any customer; nothing is tracked of it.")
        await context.current_customer()
        return recorder.dropped("the message was not loaded for any customer")
    receipt = await context.record_for(ids, kind, event, has_consent=allowed)
    return recorder.dropped() if receipt is None else receipt


def _always(message: AppInboxMessage, platform: str) -> dict[str, Any]:
    category = message.consent_category_tracking
    told = {"consent_category_tracking": category} if category else {}
    return {**told, "platform": platform, "action_type": "app inbox"}
