"""
The platform that events about messages name: that of a phone only where a device stands for one.
"""

from typing import Any

import pytest
from helpers.content_blocks import static
from helpers.in_app import InAppFixture, message
from helpers.inbox import push

from exponea_async import AppInboxAction, Event

JANE = {"registered": "jane"}


@pytest.mark.parametrize(
    ("settings", "device", "web"),
    [
        ({}, ("Android", "Android"), (None, "web")),
        ({"message_platform": "ios"}, ("iOS", "iOS"), (None, "web")),
        ({"event_platform": "web"}, (None, "web"), (None, "web")),
        ({"event_platform": "ios"}, ("iOS", "iOS"), ("iOS", "iOS")),
    ],
)
async def test_banners(
    in_app: InAppFixture, settings: dict[str, Any], device: tuple[Any, Any], web: tuple[Any, Any]
) -> None:
    """The events about in-app messages and content blocks name no operating system for a customer tracker."""
    in_app.sandbox.messages.content_blocks.put(static())
    client = await in_app.start(message(), listen=False, **settings)
    for subject, expected in ((client.device("d"), device), (client.for_customer(JANE), web)):
        shown, block = await subject.in_app_message_for(Event("x")), await subject.content_block("top")
        assert shown is not None
        assert block is not None
        # Reported by the client, to which another subject may be bound.
        await client.close_in_app_message(shown)
        await client.close_content_block("top", block)
        banners = [each.properties for each in await in_app.banners()][-4:]
        assert [(each.get("os"), each["platform"]) for each in banners] == [expected] * 4


async def test_the_app_inbox(in_app: InAppFixture) -> None:
    """The events about the app inbox name the web for a customer tracker."""
    in_app.sandbox.messages.inbox.put(push())
    client = await in_app.start(listen=False)
    for subject, expected in ((client.device("d"), "android"), (client.for_customer(JANE), "web")):
        (item,) = await subject.fetch_app_inbox()
        await subject.track_app_inbox_opened(item)
        await subject.track_app_inbox_click(AppInboxAction("browser", "Open", "https://s.example"), item)
        tracked = await in_app.app.pending("campaign")
        assert [each.properties["platform"] for each in tracked][-2:] == [expected] * 2
