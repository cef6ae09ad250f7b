"""
The ``banner`` events: what customers did with in-app messages and content blocks. Pure.
"""

from collections.abc import Mapping
from typing import Any, Literal

from attrs import frozen

from exponea_async.devices.context import SubjectContext
from exponea_async.devices.ids import COOKIE
from exponea_async.devices.sessions import device_properties
from exponea_async.features._shared.consent import forces_tracking
from exponea_async.models import Event

BANNER = "banner"
#: The names of the platforms in events.
_PLATFORMS = {"android": "Android", "ios": "iOS"}
WEB = "web"

BannerAction = Literal["show", "click", "close", "error"]


@frozen(kw_only=True)
class Banner:
    """
    An in-app message or a content block, as events describe it.

    Attributes:
        type: ``"in-app message"`` or ``"in-app content block"``.
        id: The id.
        name: The name.
        banner_type: The layout, such as ``"modal"`` or ``"html"``.
        variant_id: The variant of an A/B test, or None.
        variant_name: The name of the variant, or None.
        placeholder: The placeholder of a content block, or None.
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


def platform_of(context: SubjectContext, ids: Mapping[str, str]) -> str:
    """
    Return the platform that an event about a message names: that of a device's messages; the web without a device.

    Args:
        context: The subject.
        ids: The ids of the customer that the message was loaded for; only those of a device have a cookie.
    """
    configuration, is_device = context.configuration, COOKIE in ids if ids else context.is_device
    return configuration.event_platform or (configuration.message_platform if is_device else WEB)


def banner_event(
    context: SubjectContext,
    ids: Mapping[str, str],
    action: BannerAction,
    banner: Banner,
    *,
    interaction: bool,
    text: str | None = None,
    link: str | None = None,
    error: str | None = None,
) -> Event:
    """
    Return the event of what happened to a message or content block.

    Args:
        context: The subject.
        ids: The ids of the customer that it was loaded for, or empty.
        action: What happened.
        banner: The message or content block.
        interaction: Whether a person did it.
        text: The label of the clicked button.
        link: The link of the clicked button; one that forces tracking is marked in the event.
        error: Why it could not be shown.
    """
    platform = platform_of(context, ids)
    optional = {
        # Nothing is known about the operating system of a visitor of a page.
        "os": _PLATFORMS.get(platform),
        "variant_id": banner.variant_id,
        "variant_name": banner.variant_name,
        "placeholder": banner.placeholder,
        "text": text,
        "link": link,
        "error": error,
        "consent_category_tracking": banner.category,
        "tracking_forced": forces_tracking(link) or None,
    }
    properties: dict[str, Any] = {
        "action": action,
        "banner_id": banner.id,
        "banner_name": banner.name,
        "banner_type": banner.banner_type,
        "interaction": interaction,
        "platform": _PLATFORMS.get(platform, platform),
        "type": banner.type,
        **device_properties(context.configuration),
        **{name: value for name, value in optional.items() if value is not None},
    }
    return Event(BANNER, properties)
