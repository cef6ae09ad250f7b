"""
The events of the app inbox. They are about the customer that a message was fetched for.
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
from exponea_async.features.inbox.parsing import MAX_TEXT_LENGTH
from exponea_async.messages import AppInboxAction, AppInboxMessage
from exponea_async.models import Event, EventType, Receipt

LOG = logging.getLogger("exponea_async")

CAMPAIGN = "campaign"
#: The types of the fields that events need, of a message that a caller passes back.
_MESSAGE_FIELDS: FieldTypes = MappingProxyType(
    {
        "id": str,
        "tracking_data": Mapping,
        "consent_category_tracking": str | None,
        "customer_ids": Mapping,
        "sync_token": str | None,
    }
)
#: The same of an action.
_ACTION_FIELDS: FieldTypes = MappingProxyType({"title": str | None, "url": str | None})


def owner_ids(message: AppInboxMessage) -> dict[str, str]:
    """
    Return the ids of the customer that a message was fetched for; empty for a message that the caller made.

    Raises:
        InvalidEventError: It is not a message, or its fields have other types.
    """
    if not isinstance(message, AppInboxMessage):
        trouble = f"expected an AppInboxMessage, got {type(message).__name__}"
        raise InvalidEventError("message", trouble, "Pass a message that fetch_app_inbox() returned.")
    check_fields("message", message, _MESSAGE_FIELDS)
    return read_ids(message.customer_ids, "message.customer_ids")


def opened(message: AppInboxMessage, platform: str) -> Event:
    """Return the event that a message was opened."""
    return Event(CAMPAIGN, {**message.tracking_data, "status": "opened", **_common(message, platform)})


def clicked(action: AppInboxAction, message: AppInboxMessage, platform: str) -> Event:
    """
    Return the event that an action of a message was clicked.

    Raises:
        InvalidEventError: It is not an action, or its fields have other types.
    """
    if not isinstance(action, AppInboxAction):
        trouble = f"expected an AppInboxAction, got {type(action).__name__}"
        raise InvalidEventError("action", trouble, "Pass the action first, then the message.")
    check_fields("action", action, _ACTION_FIELDS)
    # A message's own properties must not replace what happened, as in the iOS SDK.
    properties = {
        **message.tracking_data,
        "status": "clicked",
        "url": (action.url or "app")[:MAX_TEXT_LENGTH],
        "cta": (action.title or "inbox")[:MAX_TEXT_LENGTH],
        **({"tracking_forced": True} if forces_tracking(action.url) else {}),
        **_common(message, platform),
    }
    return Event(CAMPAIGN, properties)


async def track(
    context: SubjectContext, kind: EventType, event: Event, ids: Mapping[str, str], *, has_consent: bool
) -> Receipt:
    """
    Record an event about a message, which is activity of a device, with or without consent.

    Args:
        context: The subject.
        kind: The type of the event.
        event: The event.
        ids: The ids of the message's customer; without any, the event is dropped.
        has_consent: Whether it may be tracked. Otherwise only subscribers are notified.

    Raises:
        InvalidEventError: The event can't be sent as it is.
        StorageError: The storage refused; nothing was recorded.
        LifecycleError: The client is not running.
    """
    recorder = context.recorder
    if not recorder.check_running():
        return recorder.dropped()
    if not ids:
        LOG.warning("A message of the app inbox was not loaded for any customer; its event is dropped.")
        await context.current_customer()
        return recorder.dropped("the message was not loaded for any customer")
    receipt = await context.record_for(ids, kind, event, has_consent=has_consent)
    return recorder.dropped() if receipt is None else receipt


def _common(message: AppInboxMessage, platform: str) -> dict[str, Any]:
    category = message.consent_category_tracking
    consent = {"consent_category_tracking": category} if category else {}
    return {**consent, "platform": platform, "action_type": "app inbox"}
