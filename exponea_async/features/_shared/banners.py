"""
The ``banner`` events: what customers did with in-app messages and content blocks. Pure.
"""

from typing import Any, Literal

from attrs import frozen

from exponea_async.config import Configuration
from exponea_async.devices.sessions import device_properties
from exponea_async.features._shared.consent import forces_tracking
from exponea_async.models import Event

BANNER = "banner"
#: The names of the platforms in events.
_PLATFORMS = {"android": "Android", "ios": "iOS"}

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


def banner_event(
    configuration: Configuration,
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
        configuration: The settings.
        action: What happened.
        banner: The message or content block.
        interaction: Whether a person did it.
        text: The label of the clicked button.
        link: The link of the clicked button; one that forces tracking is marked in the event.
        error: Why it could not be shown.
    """
    platform = _PLATFORMS[configuration.message_platform]
    optional = {
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
        "os": platform,
        "platform": platform,
        "type": banner.type,
        **device_properties(configuration),
        **{name: value for name, value in optional.items() if value is not None},
    }
    return Event(BANNER, properties)
