"""
The events of what is shown: in-app messages and content blocks.
"""

from typing import Any, Literal

from attrs import frozen

from exponea_async.config import Configuration
from exponea_async.devices.sessions import device_properties
from exponea_async.features._shared.consent import is_forced
from exponea_async.models import Event

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
