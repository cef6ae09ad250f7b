"""
A Telegram bot, written with python-telegram-bot, that tracks questions and shows in-app messages as cards.

Get a token from @BotFather, set ``TELEGRAM_TOKEN``, and run it with ``python examples/telegram_bot.py``. It starts a
sandbox instead of Engagement, and its page shows what arrives.
"""

import asyncio
import os
from contextlib import suppress
from typing import Any

from support_bot import DEFINITIONS
from telegram import InlineKeyboardButton, InlineKeyboardMarkup, Update
from telegram.ext import (
    Application,
    ApplicationBuilder,
    CallbackContext,
    CallbackQueryHandler,
    ContextTypes,
    MessageHandler,
    filters,
)

from exponea_async import ActionType, Configuration, Customer, Event, Exponea, InAppMessage, UnavailableError
from exponea_async.integrations.telegram import get_exponea, setup
from exponea_async.sandbox import Sandbox

Builder = ApplicationBuilder[Any, Any, Any, Any, Any, Any]
Bot = Application[Any, Any, Any, Any, Any, Any]
Context = ContextTypes.DEFAULT_TYPE
#: How long after a question the user is reminded of the answer, in seconds.
REMINDER = 3600.0


def make_application(builder: Builder, configuration: Configuration) -> Bot:
    """Return the application, which starts the client when it is initialized, and closes it at its shutdown."""
    application: Bot = setup(builder, Exponea(configuration)).build()
    application.add_handler(MessageHandler(filters.CONTACT, on_contact))
    application.add_handler(MessageHandler(filters.TEXT & filters.ChatType.PRIVATE, on_question))
    application.add_handler(CallbackQueryHandler(on_button, pattern="^card:"))
    return application


async def on_contact(update: Update, context: Context) -> None:
    """Identify a user who shares a phone number."""
    message, user = update.effective_message, update.effective_user
    if message is None or message.contact is None or user is None:
        return
    # Users can share the contacts of others, too.
    if message.contact.user_id != user.id:
        await message.reply_text("Please share your own number.")
        return
    await get_exponea(context).identify_customer(Customer({"phone": message.contact.phone_number}))
    await message.reply_text("Thank you.")


async def on_question(update: Update, context: Context) -> None:
    """Track a question, answer with the in-app message for it, and remind the user later."""
    message, user, exponea = update.effective_message, update.effective_user, get_exponea(context)
    if message is None or user is None or context.user_data is None:
        return
    question = Event("question_asked", {"topic": "delivery" if "parcel" in (message.text or "") else "other"})
    await exponea.track_event(question)
    if context.job_queue is not None:
        context.job_queue.run_once(remind, REMINDER, user_id=user.id, chat_id=message.chat_id)
    if unused := context.user_data.pop("card", None):
        # While a card is shown, there is no other one.
        await exponea.close_in_app_message(unused, interaction=False)
    card = await card_for(exponea, question)
    if card is None:
        await message.reply_text("We will get back to you.")
        return
    context.user_data["card"] = card
    buttons = [
        InlineKeyboardButton(button.text or "", callback_data=f"card:{number}")
        for number, button in enumerate(card.buttons)
    ]
    await message.reply_text(text_of(card), reply_markup=InlineKeyboardMarkup([buttons]))


async def on_button(update: Update, context: Context) -> None:
    """Report a click on a button of the user's card."""
    query, exponea = update.callback_query, get_exponea(context)
    if query is None or query.data is None or context.user_data is None:
        return
    await query.answer()
    card: InAppMessage | None = context.user_data.pop("card", None)
    if card is None:
        return
    button = card.buttons[int(query.data.removeprefix("card:"))]
    if button.kind == ActionType.CLOSE:
        await exponea.close_in_app_message(card, button)
    elif (link := await exponea.click_in_app_message(card, button)) and update.effective_chat:
        await update.effective_chat.send_message(link)


async def remind(context: CallbackContext[Any, Any, Any, Any]) -> None:
    """Remind the user of a job, and track it."""
    if context.job is not None and context.job.chat_id is not None:
        await context.bot.send_message(context.job.chat_id, "Did we answer your question?")
        await get_exponea(context).track_event(Event("reminder_sent"))


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
    async with Sandbox(definitions=DEFINITIONS) as sandbox:
        print(f"{sandbox.url}/ shows what arrives.")
        settings = Configuration(
            project_token="shop",
            authorization_token="key",
            base_url=sandbox.url,
            storage="memory:",
            default_device=False,
        )
        application = make_application(Application.builder().token(token), settings)
        # An application that has the event loop for itself calls application.run_polling() instead.
        async with application:
            await application.start()
            if application.updater is not None:
                await application.updater.start_polling()
                try:
                    await asyncio.Event().wait()
                finally:
                    await application.updater.stop()
                    await application.stop()


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        asyncio.run(main())
