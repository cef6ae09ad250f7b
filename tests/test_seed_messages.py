"""
What the vendor's page on tracking promises, sentence by sentence: the messages that Engagement shows to a customer.

Each test meets the sandbox over HTTP.
"""

import asyncio
from typing import Any

import pytest
from helpers.app import Phone
from helpers.waiting import until

from exponea_async import Customer, Event, InAppMessage
from exponea_async.sandbox import Sandbox

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


def asked(sandbox: Sandbox, end: str) -> list[Any]:
    """Tell whose messages were asked for on a route, one after the other."""
    return [request.body and request.body["customer_ids"] for request in sandbox.requests if request.path.endswith(end)]


async def shown_on(phone: Phone) -> InAppMessage:
    """Have a message shown."""
    message = await phone.client.in_app_message_for(Event("page_visit"))
    assert message is not None
    return message


class TestAnonymize:
    async def test_messages_are_preloaded_for_the_new_customer(self, phone: Phone, platform: Sandbox) -> None:
        """In-app messages, content blocks and the inbox are asked for, under the new cookie."""
        client = await phone.start(preload_messages=True)
        await client.identify_customer(Customer({"registered": "jane"}))
        await client.anonymize()
        await until(lambda: all(asked(platform, end) for end in SURFACES))

        cookie = await client.get_customer_cookie()
        assert asked(platform, "/inappmessages") == asked(platform, "/appinbox/fetch") == [{"cookie": cookie}]

    async def test_what_was_preloaded_need_not_be_loaded(self, phone: Phone, platform: Sandbox) -> None:
        """The next event's message and the inbox are there at once."""
        client = await phone.start(preload_messages=True)
        await client.anonymize()
        await until(lambda: all(asked(platform, end) for end in SURFACES))
        await asyncio.sleep(0.05)
        await shown_on(phone)
        assert await client.fetch_app_inbox_item("hello") is not None

        assert len(asked(platform, "/inappmessages")) == len(asked(platform, "/appinbox/fetch")) == 1

    async def test_it_can_be_left_out(self, phone: Phone, platform: Sandbox) -> None:
        """Who shows no messages need not load any."""
        client = await phone.start(preload_messages=False)
        await client.anonymize()
        await asyncio.sleep(0.1)

        assert [asked(platform, end) for end in SURFACES] == [[], [], []]


class TestStopping:
    async def test_loaded_messages_are_cleared(self, phone: Phone, platform: Sandbox) -> None:
        """After the next start everything is asked for anew, and nothing is known of what was shown."""
        client = await phone.start()
        await shown_on(phone)
        await client.content_block("home")
        await client.fetch_app_inbox()
        before = [len(asked(platform, end)) for end in SURFACES]
        await client.stop_integration()
        await client.start()
        await shown_on(phone)
        await client.content_block("home")
        await client.fetch_app_inbox()

        assert [len(asked(platform, end)) - count for end, count in zip(SURFACES, before, strict=True)] == [1, 1, 1]

    async def test_nothing_is_displayed_any_more(self, phone: Phone, platform: Sandbox) -> None:
        """Neither messages nor blocks nor the inbox, until the integration is started again."""
        client = await phone.start()
        await client.stop_integration()
        count = platform.request_count

        assert await client.in_app_message_for(Event("page_visit")) is None
        assert await client.content_block("home") is None
        assert await client.fetch_app_inbox() == []
        assert await client.get_segments("discovery") == []
        assert platform.request_count == count

    async def test_displayed_messages_are_dismissed(self, phone: Phone, platform: Sandbox) -> None:
        """Who shows a message is told to take it away, and nothing of that is tracked."""
        client = await phone.start()
        actions = client.in_app_message_action_stream()
        message = await shown_on(phone)
        await client.stop_integration()
        told = [await anext(actions), await anext(actions)]

        assert [(action.type, action.interaction) for action in told] == [("show", None), ("close", False)]
        assert told[1].message == message
        assert platform.engine.events() == []

    async def test_who_did_not_listen_hears_nothing_of_it_later(self, phone: Phone, platform: Sandbox) -> None:
        """What was shown before the stop is forgotten."""
        client = await phone.start()
        await shown_on(phone)
        await client.stop_integration()
        await client.start()
        actions = client.in_app_message_action_stream()
        await shown_on(phone)

        assert (await anext(actions)).type == "show"


class TestConsentDialog:
    async def test_a_message_can_ask_for_consent(self, phone: Phone, platform: Sandbox) -> None:
        """As on the page: clicks and closes are tracked by whoever listens, and a denial stops everything."""
        client = await phone.start()
        actions = client.in_app_message_action_stream(override_default_behavior=False, track_actions=False)
        message = await shown_on(phone)
        assert (await anext(actions)).type == "show"
        assert await client.click_in_app_message(message, message.buttons[0]) == "app://allow"
        action = await anext(actions)
        assert (action.type, action.message, action.button) == ("click", message, message.buttons[0])
        assert action.message is not None
        assert action.button is not None
        await client.track_in_app_message_click(action.message, action.button)

        clicks = [each for each in await phone.kept("banner") if each.own["action"] == "click"]
        assert [(each.own["text"], each.own["link"]) for each in clicks] == [("Allow", "app://allow")]

        message = await shown_on(phone)
        await client.close_in_app_message(message, message.buttons[1])
        await client.stop_integration()
        assert client.is_stopped

    @pytest.mark.parametrize("override", [False, True])
    async def test_the_default_behaviour_can_be_overridden(
        self, phone: Phone, platform: Sandbox, *, override: bool
    ) -> None:
        """Then no link is handed out to open, and all else happens as ever."""
        client = await phone.start()
        actions = client.in_app_message_action_stream(override_default_behavior=override)
        message = await shown_on(phone)
        link = await client.click_in_app_message(message, message.buttons[0])

        assert link == (None if override else "app://allow")
        assert [each.own["action"] for each in await phone.kept("banner")] == ["show", "click"]
        await actions.aclose()


async def test_banner_events_tell_of_messages_and_blocks(phone: Phone, platform: Sandbox) -> None:
    """Showing an in-app message or a content block is tracked as a ``banner`` event, device properties included."""
    client = await phone.start()
    await shown_on(phone)
    await client.content_block("home")

    message, block = await phone.kept("banner")
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
