"""
How the HTML of messages is written, and the log of what was left out of it.
"""

import logging
from functools import lru_cache

from attrs import frozen

from exponea_async.config import Configuration

LOG = logging.getLogger("exponea_async")


@frozen(kw_only=True)
class HtmlRules:
    """
    How messages are written.

    Attributes:
        ensure_close: Whether to add a close button if there is none.
        allow_remote_media: Whether style sheets may refer to images and fonts of the web.
        scope_styles: Whether style sheets are limited to the message. Otherwise they apply to the whole page.
        is_embedded: Whether the message is part of a page, in which it must stay in its place.
    """

    ensure_close: bool = False
    allow_remote_media: bool = False
    scope_styles: bool = True
    is_embedded: bool = False


def configured_rules(
    configuration: Configuration, *, ensure_close: bool = False, is_embedded: bool = False
) -> HtmlRules:
    """Return the rules that a client is configured with."""
    return HtmlRules(
        ensure_close=ensure_close,
        allow_remote_media=configuration.allow_remote_media,
        scope_styles=configuration.scope_message_styles,
        is_embedded=is_embedded,
    )


@lru_cache(maxsize=1000)
def log_removed(message: str, removed: tuple[str, ...]) -> None:
    """
    Log what was left out of a message, once for each message.

    Args:
        message: The message, in words.
        removed: What was left out, in words.
    """
    if removed:
        LOG.warning("The HTML of %s is shown without: %s.", message, ", ".join(removed))
