"""
The values of messages: a host may store them, and report what became of them from another process.
"""

import json
import pickle
from typing import Any

import pytest
from attrs import asdict
from helpers.app import Phone

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
LETTER: dict[str, Any] = {
    "id": "l",
    "type": "html",
    "content": {"title": "Letter", "message": HTML, "attributes": {"campaign_id": "c", "deep": {"a": [1]}}},
}


@pytest.fixture
async def handed_out(phone: Phone, sandbox: Sandbox) -> tuple[InAppMessage, InAppContentBlock, AppInboxMessage]:
    sandbox.messages.in_app_messages.put(MESSAGE)
    sandbox.messages.content_blocks.put(BLOCK)
    sandbox.messages.inbox.put(LETTER)
    client = await phone.start()
    await client.identify_customer(Customer({"registered": "jane"}))
    message = await client.in_app_message_for(Event("x"))
    block = await client.content_block("top")
    letter = await client.fetch_app_inbox_item("l")
    assert message is not None
    assert block is not None
    assert letter is not None
    return message, block, letter


async def test_they_can_be_stored(handed_out: tuple[Any, ...]) -> None:
    """Whole, with pickle, and as JSON for whoever shows them elsewhere."""
    for each in handed_out:
        assert pickle.loads(pickle.dumps(each)) == each
        assert json.loads(json.dumps(asdict(each)))["id"] == each.id


async def test_they_can_be_reported_by_another_process(
    phone: Phone, sandbox: Sandbox, handed_out: tuple[Any, ...]
) -> None:
    """What comes back from a store is told of the customer that it was shown to, whoever is current."""
    stored = pickle.dumps(handed_out)
    client = await phone.restart(at=2000)
    await client.anonymize()
    message, block, letter = pickle.loads(stored)
    assert await client.click_in_app_message(message, message.buttons[0]) == "https://s.example/sale"
    assert await client.click_content_block("top", block, "https://s.example/sale") == "https://s.example/sale"
    await client.track_app_inbox_click(letter.actions[0], letter)
    assert await client.mark_app_inbox_as_read(letter)
    await client.flush_data(10)

    told = [
        event for event in sandbox.engine.events() if event.timestamp >= 2000 and "registered" in event.customer_ids
    ]
    pressed = [each for each in told if each.event_type in ("banner", "campaign")]
    assert [each.customer_ids["registered"] for each in pressed] == ["jane"] * 3
