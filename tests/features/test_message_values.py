"""
The values of messages can be stored, and reported by another process.
"""

import json
import pickle
from typing import Any

import pytest
from attrs import asdict
from helpers.app import App

from exponea_async import AppInboxMessage, Customer, Event, InAppContentBlock, InAppMessage
from exponea_async.sandbox import Sandbox

HTML = "<a href='https://s.example/sale'>Sale</a>"
MESSAGE: dict[str, Any] = {
    "id": "m",
    "name": "Message",
    "frequency": "always",
    "variant_id": 0,
    "variant_name": "A",
    "trigger": {"event_type": "x", "filter": []},
    "date_filter": {"enabled": False},
    "is_html": True,
    "payload_html": HTML,
}
BLOCK: dict[str, Any] = {
    "id": "b",
    "name": "Block",
    "placeholders": ["top"],
    "personal": {"ttl_seconds": 60, "content_type": "html", "content": {"html": HTML}},
}
INBOX_MESSAGE: dict[str, Any] = {
    "id": "l",
    "type": "html",
    "content": {"title": "Inbox message", "message": HTML, "attributes": {"campaign_id": "c", "deep": {"a": [1]}}},
}


@pytest.fixture
async def shown(app: App, sandbox: Sandbox) -> tuple[InAppMessage, InAppContentBlock, AppInboxMessage]:
    sandbox.messages.in_app_messages.put(MESSAGE)
    sandbox.messages.content_blocks.put(BLOCK)
    sandbox.messages.inbox.put(INBOX_MESSAGE)
    client = await app.start()
    await client.identify_customer(Customer({"registered": "jane"}))
    message = await client.in_app_message_for(Event("x"))
    block = await client.content_block("top")
    item = await client.fetch_app_inbox_item("l")
    assert message is not None
    assert block is not None
    assert item is not None
    return message, block, item


async def test_storing(shown: tuple[Any, ...]) -> None:
    """Messages can be pickled, and converted to JSON."""
    for each in shown:
        assert pickle.loads(pickle.dumps(each)) == each
        assert json.loads(json.dumps(asdict(each)))["id"] == each.id


async def test_events_of_another_process(app: App, sandbox: Sandbox, shown: tuple[Any, ...]) -> None:
    """Events about a stored message are about the customer it was shown to, even after a restart and an anonymize()."""
    stored = pickle.dumps(shown)
    client = await app.restart(at=2000)
    await client.anonymize()
    message, block, item = pickle.loads(stored)
    assert await client.click_in_app_message(message, message.buttons[0]) == "https://s.example/sale"
    assert await client.click_content_block("top", block, "https://s.example/sale") == "https://s.example/sale"
    await client.track_app_inbox_click(item.actions[0], item)
    assert await client.mark_app_inbox_as_read(item)
    await client.flush_data(60)

    events = [
        event for event in sandbox.engine.events() if event.timestamp >= 2000 and "registered" in event.customer_ids
    ]
    clicks = [each for each in events if each.event_type in ("banner", "campaign")]
    assert [each.customer_ids["registered"] for each in clicks] == ["jane"] * 3
