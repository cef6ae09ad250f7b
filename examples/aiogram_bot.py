"""
A Telegram bot, written with aiogram, that tracks questions and shows in-app messages as cards.

Get a token from @BotFather, set ``TELEGRAM_TOKEN``, and run it with ``python examples/aiogram_bot.py``. It starts a
sandbox instead of Engagement, and its page shows what arrives.
"""

import asyncio
import os

from aiogram import Bot, Dispatcher, F
from aiogram.types import CallbackQuery, InlineKeyboardButton, InlineKeyboardMarkup, Message
from support_bot import DEFINITIONS

from exponea_async import ActionType, Configuration, Customer, Event, Exponea, InAppMessage, UnavailableError
from exponea_async.integrations.aiogram import setup
from exponea_async.sandbox import Sandbox

#: The card that each user has seen last.
Cards = dict[int, InAppMessage]


def make_dispatcher(configuration: Configuration) -> Dispatcher:
    """Return the dispatcher, which starts the client with the polling, or with the webhook, and closes it."""
    dispatcher = Dispatcher(cards=Cards())
    setup(dispatcher, Exponea(configuration))
    dispatcher.message.register(on_contact, F.contact)
    dispatcher.message.register(on_question, F.text, F.from_user)
    dispatcher.callback_query.register(on_button, F.data.startswith("card:"))
    return dispatcher


async def on_contact(message: Message, exponea: Exponea) -> None:
    """Identify a user who shares a phone number."""
    # Users can share the contacts of others, too.
    if message.contact is None or message.from_user is None or message.contact.user_id != message.from_user.id:
        await message.answer("Please share your own number.")
        return
    await exponea.identify_customer(Customer({"phone": message.contact.phone_number}))
    await message.answer("Thank you.")


async def on_question(message: Message, exponea: Exponea, cards: Cards) -> None:
    """Track a question, and answer with the in-app message for it."""
    question = Event("question_asked", {"topic": "delivery" if "parcel" in (message.text or "") else "other"})
    await exponea.track_event(question)
    if message.from_user and (unused := cards.pop(message.from_user.id, None)):
        # While a card is shown, there is no other one.
        await exponea.close_in_app_message(unused, interaction=False)
    card = await card_for(exponea, question)
    if card is None or message.from_user is None:
        await message.answer("We will get back to you.")
        return
    cards[message.from_user.id] = card
    buttons = [
        InlineKeyboardButton(text=button.text or "", callback_data=f"card:{number}")
        for number, button in enumerate(card.buttons)
    ]
    keyboard = InlineKeyboardMarkup(inline_keyboard=[buttons])
    await message.answer(text_of(card), reply_markup=keyboard)


async def on_button(query: CallbackQuery, exponea: Exponea, cards: Cards) -> None:
    """Report a click on a button of the user's card."""
    await query.answer()
    card = cards.pop(query.from_user.id, None)
    if card is None or query.data is None:
        return
    button = card.buttons[int(query.data.removeprefix("card:"))]
    if button.kind == ActionType.CLOSE:
        await exponea.close_in_app_message(card, button)
    elif (link := await exponea.click_in_app_message(card, button)) and query.message:
        await query.message.answer(link)


async def card_for(exponea: Exponea, event: Event) -> InAppMessage | None:
    """Return the in-app message for an event; None also if Engagement can't be reached."""
    try:
        return await exponea.in_app_message_for(event)
    except UnavailableError:
        return None


def text_of(card: InAppMessage) -> str:
    """Return the text of an in-app message, which may have no title or no body."""
    return "\n\n".join(filter(None, (card.title, card.body_text)))


async def main() -> None:
    """Run the bot, with a sandbox instead of Engagement."""
    token = os.environ.get("TELEGRAM_TOKEN")
    if not token:
        print("Set TELEGRAM_TOKEN to the token of a bot, which @BotFather gives you.")
        return
    async with Sandbox(definitions=DEFINITIONS) as sandbox, Bot(token) as bot:
        print(f"{sandbox.url}/ shows what arrives.")
        settings = Configuration(
            project_token="shop",
            authorization_token="key",
            base_url=sandbox.url,
            storage="memory:",
            default_device=False,
        )
        await make_dispatcher(settings).start_polling(bot)


if __name__ == "__main__":
    asyncio.run(main())
