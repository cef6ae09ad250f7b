"""
A support bot for many chats, with in-app messages as cards and the app inbox as a list.

``python examples/support_bot.py`` runs it with a sandbox in the place of Engagement and a short conversation in the
place of a chat network, and ends by itself.
"""

import asyncio
from typing import Any

from exponea_async import Configuration, Customer, Event, Exponea, InAppMessage
from exponea_async.sandbox import Sandbox

#: What the marketers have made: a card for whoever asks about a delivery, and two messages that wait in the inbox.
DEFINITIONS: dict[str, Any] = {
    "in_app_messages": [
        {
            "id": "parcels",
            "name": "Track your parcel",
            "message_type": "modal",
            "frequency": "until_visitor_interacts",
            "variant_id": 0,
            "variant_name": "A",
            "trigger": {
                "event_type": "question_asked",
                "filter": [
                    {
                        "attribute": {"type": "property", "property": "topic"},
                        "constraint": {
                            "type": "string",
                            "operator": "equals",
                            "operands": [{"type": "constant", "value": "delivery"}],
                        },
                    }
                ],
            },
            "date_filter": {"enabled": False},
            "payload": {
                "title": "Where is my parcel?",
                "body_text": "You can follow it on its way.",
                "buttons": [
                    {"button_type": "deep-link", "button_text": "Follow it", "button_link": "shopbot://parcels"},
                    {"button_type": "cancel", "button_text": "No, thanks"},
                ],
            },
        }
    ],
    "inbox": [
        {
            "id": "welcome",
            "type": "push",
            "create_time": 1_700_000_000.0,
            "content": {"title": "Welcome", "message": "Good to have you here.", "attributes": {"campaign_id": "c1"}},
        },
        {
            "id": "sale",
            "type": "push",
            "create_time": 1_700_000_100.0,
            "content": {"title": "Sale", "message": "Mugs are half the price.", "attributes": {"campaign_id": "c2"}},
        },
    ],
}


class Bot:
    """
    The bot: each chat is a device of its own, so that nobody sees what is meant for somebody else.

    Args:
        exponea: The client.
    """

    def __init__(self, exponea: Exponea) -> None:
        self._exponea = exponea
        self._cards: dict[str, InAppMessage] = {}
        self._arrived = asyncio.Event()
        self._messages = exponea.in_app_messages()

    async def show_cards(self) -> None:
        """Show each message in the chat that it is for, until the client closes."""
        async for message in self._messages:
            chat = str(message.device)
            self._cards[chat] = message
            buttons = "  ".join(f"[{button.text}]" for button in message.buttons)
            print(f"  {chat}  bot: *{message.title}* {message.body_text}  {buttons}")
            self._arrived.set()

    async def hear(self, chat: str, text: str) -> None:
        """Take what somebody says."""
        print(f"  {chat}  they: {text}")
        device = self._exponea.device(chat)
        if text == "/inbox":
            await self._list_inbox(chat)
        elif text.startswith("/login "):
            await device.identify_customer(Customer({"registered": text.removeprefix("/login ")}))
        else:
            topic = "delivery" if "parcel" in text else "other"
            await device.track_event(Event("question_asked", {"topic": topic}))

    async def press(self, chat: str, label: str) -> None:
        """Take a press on a button of the card in a chat."""
        card = self._cards.pop(chat)
        button = next(each for each in card.buttons if each.text == label)
        print(f"  {chat}  they: [{label}]")
        if button.kind == "cancel":
            await self._exponea.close_in_app_message(card, button)
        elif link := await self._exponea.click_in_app_message(card, button):
            print(f"  {chat}  bot: here you are: {link}")

    async def wait_for_card(self) -> None:
        """Wait until a card was shown."""
        await asyncio.wait_for(self._arrived.wait(), timeout=10)
        self._arrived.clear()

    async def _list_inbox(self, chat: str) -> None:
        device = self._exponea.device(chat)
        messages = await device.fetch_app_inbox()
        for message in messages:
            print(f"  {chat}  bot: {' ' if message.is_read else '*'} {message.title}: {message.message}")
            await device.track_app_inbox_opened(message)
            await device.mark_app_inbox_as_read(message)
        unread = sum(not message.is_read for message in messages)
        print(f"  {chat}  bot: that is all; {unread} of {len(messages)} were new.")


async def converse(bot: Bot) -> None:
    """Play two customers who talk to the bot."""
    await bot.hear("chat:1", "/login jane@example.com")
    await bot.hear("chat:1", "where is my parcel?")
    await bot.wait_for_card()
    await bot.press("chat:1", "Follow it")
    await bot.hear("chat:2", "my parcel is late")
    await bot.wait_for_card()
    await bot.press("chat:2", "No, thanks")
    await bot.hear("chat:1", "/inbox")
    await bot.hear("chat:1", "/inbox")
    await bot.hear("chat:1", "and the other parcel?")  # she has pressed the card's button, so it does not come again


async def main() -> None:
    """Let the bot live for one conversation."""
    async with Sandbox(definitions=DEFINITIONS) as sandbox:
        settings = Configuration(
            project_token="shop", authorization_token="key", base_url=sandbox.url, storage="memory:"
        )
        async with Exponea(settings) as exponea:
            bot = Bot(exponea)
            cards = asyncio.create_task(bot.show_cards())
            await converse(bot)
            await exponea.flush_data(timeout=10)
        await cards
        print("Engagement has learned:")
        for event in sorted(sandbox.engine.events(), key=lambda event: event.timestamp):
            if event.event_type in ("banner", "campaign"):
                told = event.properties
                print("  ", event.event_type, told.get("action") or told.get("status"), told.get("text", ""))


if __name__ == "__main__":
    asyncio.run(main())
