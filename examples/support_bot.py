"""
A support bot for many chats that shows in-app messages as cards and the app inbox as a list.

Run it with ``python examples/support_bot.py``. It starts a sandbox instead of Engagement, simulates a short
conversation instead of connecting to a chat network, and ends by itself.
"""

import asyncio
from typing import Any

from exponea_async import ActionType, Configuration, Customer, Event, Exponea, InAppMessage
from exponea_async.sandbox import Sandbox

#: What marketers have created: a card for questions about a delivery, and two messages in the inbox.
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
                "body_text": "You can track it on its way.",
                "buttons": [
                    {"button_type": "deep-link", "button_text": "Track it", "button_link": "shopbot://parcels"},
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
    The bot. Each chat is a device, so that no chat shows a message that is meant for another one.

    Args:
        exponea: The client.
    """

    def __init__(self, exponea: Exponea) -> None:
        self._exponea = exponea
        self._cards: dict[str, InAppMessage] = {}
        self._card_shown = asyncio.Event()
        self._messages = exponea.in_app_messages()

    async def show_cards(self) -> None:
        """Show each in-app message in its chat, until the client is closed."""
        async for message in self._messages:
            chat = str(message.device)
            self._cards[chat] = message
            buttons = "  ".join(f"[{button.text}]" for button in message.buttons)
            print(f"  {chat}  bot: *{message.title}* {message.body_text}  {buttons}")
            self._card_shown.set()

    async def on_message(self, chat: str, text: str) -> None:
        """Handle a message of the user."""
        print(f"  {chat}  user: {text}")
        device = self._exponea.device(chat)
        if text == "/inbox":
            await self._list_inbox(chat)
        elif text.startswith("/login "):
            await device.identify_customer(Customer({"registered": text.removeprefix("/login ")}))
        else:
            topic = "delivery" if "parcel" in text else "other"
            await device.track_event(Event("question_asked", {"topic": topic}))

    async def on_button(self, chat: str, label: str) -> None:
        """Handle a click on a button of the card in a chat."""
        card = self._cards.pop(chat)
        button = next(each for each in card.buttons if each.text == label)
        print(f"  {chat}  user: [{label}]")
        if button.kind == ActionType.CLOSE:
            await self._exponea.close_in_app_message(card, button)
        elif link := await self._exponea.click_in_app_message(card, button):
            print(f"  {chat}  bot: {link}")

    async def wait_for_card(self) -> None:
        """Wait until a card has been shown."""
        await asyncio.wait_for(self._card_shown.wait(), timeout=10)
        self._card_shown.clear()

    async def _list_inbox(self, chat: str) -> None:
        device = self._exponea.device(chat)
        messages = await device.fetch_app_inbox()
        for message in messages:
            print(f"  {chat}  bot: {' ' if message.is_read else '*'} {message.title}: {message.message}")
            await device.track_app_inbox_opened(message)
            await device.mark_app_inbox_as_read(message)
        unread = sum(not message.is_read for message in messages)
        print(f"  {chat}  bot: {unread} of {len(messages)} messages were unread.")


async def converse(bot: Bot) -> None:
    """Simulate two users who write to the bot."""
    await bot.on_message("chat:1", "/login jane@example.com")
    await bot.on_message("chat:1", "where is my parcel?")
    await bot.wait_for_card()
    await bot.on_button("chat:1", "Track it")
    await bot.on_message("chat:2", "my parcel is late")
    await bot.wait_for_card()
    await bot.on_button("chat:2", "No, thanks")
    await bot.on_message("chat:1", "/inbox")
    await bot.on_message("chat:1", "/inbox")
    await bot.on_message("chat:1", "and the other parcel?")  # no card, because the user has clicked its button


async def main() -> None:
    """Run the bot for one conversation."""
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
        print("Events in Engagement:")
        for event in sorted(sandbox.engine.events(), key=lambda event: event.timestamp):
            if event.event_type in ("banner", "campaign"):
                properties = event.properties
                action = properties.get("action") or properties.get("status")
                print("  ", event.event_type, action, properties.get("text", ""))


if __name__ == "__main__":
    asyncio.run(main())
