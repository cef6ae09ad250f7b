"""
The statements of the vendor's tracking documentation, one by one: messages.

The tests use the sandbox over HTTP.
"""

from typing import Any

import pytest
from helpers.app import App

from exponea_async import Customer, Event, InAppMessage
from exponea_async.sandbox import Sandbox
from exponea_async.testing import idle

MESSAGE: dict[str, Any] = {
    "id": "consent",
    "name": "May we?",
    "message_type": "modal",
    "frequency": "always",
    "variant_id": 0,
    "variant_name": "A",
    "trigger": {"event_type": "page_visit", "filter": []},
    "date_filter": {"enabled": False},
    "payload": {
        "title": "May we track you?",
        "buttons": [
            {"button_type": "deep-link", "button_text": "Allow", "button_link": "app://allow"},
            {"button_type": "cancel", "button_text": "Deny"},
        ],
    },
}
BLOCK: dict[str, Any] = {
    "id": "top",
    "name": "Top",
    "placeholders": ["home"],
    "personal": {"ttl_seconds": 60, "content_type": "html", "content": {"html": "<b>for {{ name }}</b>"}},
}
INBOX: dict[str, Any] = {"id": "hello", "type": "push", "content": {"title": "Hello"}}
SURFACES = ("/inappmessages", "/bundle-android.json", "/appinbox/fetch")


@pytest.fixture
def platform(sandbox: Sandbox) -> Sandbox:
    sandbox.messages.in_app_messages.put(MESSAGE)
    sandbox.messages.content_blocks.put(BLOCK)
    sandbox.messages.inbox.put(INBOX)
    return sandbox


def requested(sandbox: Sandbox, end: str) -> list[Any]:
    """Return the customers for whom messages were requested on a route, in order."""
    return [request.body and request.body["customer_ids"] for request in sandbox.requests if request.path.endswith(end)]


async def show(app: App) -> InAppMessage:
    """Show a message."""
    message = await app.client.in_app_message_for(Event("page_visit"))
    assert message is not None
    return message


class TestAnonymize:
    async def test_messages_are_preloaded_for_the_new_customer(self, app: App, platform: Sandbox) -> None:
        """In-app messages, content blocks and the inbox are requested with the new cookie."""
        client = await app.start(preload_messages=True)
        await client.identify_customer(Customer({"registered": "jane"}))
        await client.anonymize()
        await idle(client)

        cookie = await client.get_customer_cookie()
        assert requested(platform, "/inappmessages") == requested(platform, "/appinbox/fetch") == [{"cookie": cookie}]

    async def test_preloaded_messages_are_used(self, app: App, platform: Sandbox) -> None:
        """The message of the next event and the inbox are shown without another request."""
        client = await app.start(preload_messages=True)
        await client.anonymize()
        await idle(client)
        await show(app)
        assert await client.fetch_app_inbox_item("hello") is not None

        assert len(requested(platform, "/inappmessages")) == len(requested(platform, "/appinbox/fetch")) == 1

    async def test_preloading_can_be_disabled(self, app: App, platform: Sandbox) -> None:
        """An application that shows no messages need not load any."""
        client = await app.start(preload_messages=False)
        await client.anonymize()
        await idle(client)

        assert [requested(platform, end) for end in SURFACES] == [[], [], []]


class TestStopping:
    async def test_loaded_messages_are_cleared(self, app: App, platform: Sandbox) -> None:
        """After the next start all messages are requested again, and impressions are forgotten."""
        client = await app.start()
        await show(app)
        await client.content_block("home")
        await client.fetch_app_inbox()
        before = [len(requested(platform, end)) for end in SURFACES]
        await client.stop_integration()
        await client.start()
        await show(app)
        await client.content_block("home")
        await client.fetch_app_inbox()

        assert [len(requested(platform, end)) - count for end, count in zip(SURFACES, before, strict=True)] == [1, 1, 1]

    async def test_nothing_is_displayed_any_more(self, app: App, platform: Sandbox) -> None:
        """Neither messages nor blocks nor the inbox are returned until the integration is started again."""
        client = await app.start()
        await client.stop_integration()
        count = platform.request_count

        assert await client.in_app_message_for(Event("page_visit")) is None
        assert await client.content_block("home") is None
        assert await client.fetch_app_inbox() == []
        assert await client.get_segments("discovery") == []
        assert platform.request_count == count

    async def test_displayed_messages_are_dismissed(self, app: App, platform: Sandbox) -> None:
        """The application is notified to close a message, and nothing of that is tracked."""
        client = await app.start()
        actions = client.in_app_message_action_stream()
        message = await show(app)
        await client.stop_integration()
        received = [await anext(actions), await anext(actions)]

        assert [(action.type, action.interaction) for action in received] == [("show", None), ("close", False)]
        assert received[1].message == message
        assert platform.engine.events() == []

    async def test_later_subscriptions_get_no_old_actions(self, app: App, platform: Sandbox) -> None:
        """What was shown before the stop is forgotten."""
        client = await app.start()
        await show(app)
        await client.stop_integration()
        await client.start()
        actions = client.in_app_message_action_stream()
        await show(app)

        assert (await anext(actions)).type == "show"


class TestConsentDialog:
    async def test_a_message_can_ask_for_consent(self, app: App, platform: Sandbox) -> None:
        """As on the page, the application tracks clicks and closes from the actions, and a denial stops everything."""
        client = await app.start()
        actions = client.in_app_message_action_stream(override_default_behavior=False, track_actions=False)
        message = await show(app)
        assert (await anext(actions)).type == "show"
        assert await client.click_in_app_message(message, message.buttons[0]) == "app://allow"
        action = await anext(actions)
        assert (action.type, action.message, action.button) == ("click", message, message.buttons[0])
        assert action.message is not None
        assert action.button is not None
        await client.track_in_app_message_click(action.message, action.button)

        clicks = [each for each in await app.pending("banner") if each.own["action"] == "click"]
        assert [(each.own["text"], each.own["link"]) for each in clicks] == [("Allow", "app://allow")]

        message = await show(app)
        await client.close_in_app_message(message, message.buttons[1])
        await client.stop_integration()
        assert client.is_stopped

    @pytest.mark.parametrize("override", [False, True])
    async def test_the_default_behaviour_can_be_overridden(
        self, app: App, platform: Sandbox, *, override: bool
    ) -> None:
        """Then no link is returned to open, and everything else happens as usual."""
        client = await app.start()
        actions = client.in_app_message_action_stream(override_default_behavior=override)
        message = await show(app)
        link = await client.click_in_app_message(message, message.buttons[0])

        assert link == (None if override else "app://allow")
        assert [each.own["action"] for each in await app.pending("banner")] == ["show", "click"]
        await actions.aclose()


async def test_banner_events(app: App, platform: Sandbox) -> None:
    """Showing a message or a block is tracked as a ``banner`` event, with the properties of the device."""
    client = await app.start()
    await show(app)
    await client.content_block("home")

    message, block = await app.pending("banner")
    assert message.own == {
        "action": "show",
        "banner_id": "consent",
        "banner_name": "May we?",
        "banner_type": "modal",
        "interaction": False,
        "os": "Android",
        "platform": "Android",
        "type": "in-app message",
        "variant_id": 0,
        "variant_name": "A",
    }
    assert block.own == {
        "action": "show",
        "banner_id": "top",
        "banner_name": "Top",
        "banner_type": "html",
        "interaction": False,
        "os": "Android",
        "platform": "Android",
        "type": "in-app content block",
        "placeholder": "home",
    }
    assert {"sdk", "os_name", "device_type"} <= set(message.properties)
