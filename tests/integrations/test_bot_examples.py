"""
The examples of bots run with local servers instead of Telegram, Discord and Engagement.
"""

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiogram import Bot
from aiogram.client.session.aiohttp import AiohttpSession
from aiogram.client.telegram import TelegramAPIServer
from helpers import discord_server
from helpers.clients import Configure
from helpers.discord_server import DiscordServer
from helpers.telegram_server import TOKEN, TelegramServer, callback_update, message_update
from helpers.waiting import until
from telegram import Update
from telegram.ext import Application

from exponea_async import Configuration
from exponea_async.sandbox import Sandbox

EXAMPLES = Path(__file__).parent.parent.parent / "examples"
sys.path.insert(0, str(EXAMPLES))

import aiogram_bot  # noqa: E402 - found only now
import discord_bot  # noqa: E402
import support_bot  # noqa: E402
import telegram_bot  # noqa: E402

# discord.py 2.5 calls aiohttp so.
pytestmark = pytest.mark.filterwarnings("ignore:parameter 'timeout' of type 'float':DeprecationWarning")

CARD = "Where is my parcel?\n\nYou can track it on its way."


@pytest.fixture
async def sandbox() -> AsyncIterator[Sandbox]:
    async with Sandbox(definitions=support_bot.DEFINITIONS) as running:
        yield running


@pytest.fixture
async def telegram() -> AsyncIterator[TelegramServer]:
    async with TelegramServer() as server:
        yield server


@asynccontextmanager
async def run_with_aiogram(telegram: TelegramServer, configuration: Configuration) -> AsyncIterator[None]:
    async with Bot(TOKEN, session=AiohttpSession(api=TelegramAPIServer.from_base(telegram.url))) as bot:
        dispatcher = aiogram_bot.make_dispatcher(configuration)
        task = asyncio.create_task(
            dispatcher.start_polling(bot, handle_signals=False, close_bot_session=False, polling_timeout=0)
        )
        try:
            yield
        finally:
            await dispatcher.stop_polling()
            await task


@asynccontextmanager
async def run_with_telegram(telegram: TelegramServer, configuration: Configuration) -> AsyncIterator[None]:
    builder = Application.builder().token(TOKEN).base_url(f"{telegram.url}/bot")
    application = telegram_bot.make_application(builder, configuration)
    async with application:
        await application.start()
        assert application.updater is not None
        await application.updater.start_polling(timeout=0, allowed_updates=Update.ALL_TYPES)
        try:
            yield
        finally:
            await application.updater.stop()
            await application.stop()


def contact(owner: int) -> dict[str, Any]:
    return {"contact": {"phone_number": f"+49{owner}", "first_name": "User", "user_id": owner}}


class TestTelegramBots:
    @pytest.mark.parametrize("run", [run_with_aiogram, run_with_telegram])
    async def test_conversation(
        self, telegram: TelegramServer, sandbox: Sandbox, configure: Configure, run: Any
    ) -> None:
        """Questions are tracked, cards are shown and clicked, and only one's own number identifies a user."""

        def sent() -> list[str]:
            return [each["text"] for each in telegram.sent("sendMessage")]

        configuration = configure(default_device=False, preload_messages=True)

        async with run(telegram, configuration):
            telegram.updates.append(message_update(7, **contact(9)))
            await until(lambda: sent() == ["Please share your own number."])
            telegram.updates.append(message_update(7, **contact(7)))
            await until(lambda: sent()[1:] == ["Thank you."])
            for number in (7, 8):
                telegram.updates.append(message_update(number, "Where is my parcel?"))
            await until(lambda: sent()[2:] == [CARD, CARD])
            markup = telegram.sent("sendMessage")[2]["reply_markup"]
            labels = [button["text"] for button in markup["inline_keyboard"][0]]
            telegram.updates += [callback_update(7, "card:0"), callback_update(8, "card:1")]
            await until(lambda: sent()[4:] == ["shopbot://parcels"])
            telegram.updates.append(message_update(8, "Do you have mugs?"))
            await until(lambda: sent()[5:] == ["We will get back to you."])

        assert labels == ["Track it", "No, thanks"]
        questions = sandbox.engine.events("shop", "question_asked")
        assert sorted(each.properties["topic"] for each in questions) == ["delivery", "delivery", "other"]
        assert [each.customer_ids.get("phone") for each in questions if each.properties["topic"] == "other"] == [None]
        banners = {
            (each.properties["action"], each.customer_ids.get("phone"))
            for each in sandbox.engine.events("shop", "banner")
        }
        assert banners == {("show", "+497"), ("click", "+497"), ("show", None), ("close", None)}

    async def test_reminder(
        self,
        telegram: TelegramServer,
        sandbox: Sandbox,
        configure: Configure,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """The reminder is about the user who has asked."""
        monkeypatch.setattr(telegram_bot, "REMINDER", 0.01)
        async with run_with_telegram(telegram, configure(default_device=False)):
            telegram.updates.append(message_update(7, "Do you have mugs?"))
            await until(lambda: len(telegram.sent("sendMessage")) == 2)

        (question,) = sandbox.engine.events("shop", "question_asked")
        await until(lambda: bool(sandbox.engine.events("shop", "reminder_sent")))
        (reminder,) = sandbox.engine.events("shop", "reminder_sent")
        assert reminder.customer_ids == question.customer_ids


class TestDiscordBot:
    async def test_conversation(self, sandbox: Sandbox, configure: Configure) -> None:
        """Questions are tracked, cards are shown and clicked, and only a valid code links an account."""
        async with DiscordServer() as server:
            bot = discord_bot.make_bot(
                configure(default_device=False), connector=server.connector, guild_ready_timeout=0.05
            )
            task = asyncio.create_task(bot.start(discord_server.TOKEN))
            await until(lambda: task.done() or bot.is_ready())

            async def answer(interaction: dict[str, Any]) -> dict[str, Any]:
                count = len(server.sent("/callback"))
                await server.dispatch("INTERACTION_CREATE", interaction)
                await until(lambda: len(server.sent("/callback")) > count)
                data: dict[str, Any] = server.sent("/callback")[-1]["data"]
                return data

            assert (await answer(command(7, "link", code="0000")))["content"] == "This code is not valid."
            assert (await answer(command(7, "link", code="4711")))["content"] == "Your account is linked."
            card = await answer(command(7, "ask", question="Where is my parcel?"))
            other_card = await answer(command(8, "ask", question="Where is my parcel?"))
            assert "Where is my parcel?" in card["content"]
            clicked = await answer(discord_server.click(7, button_id(card, "Track it"), server.answers[-2]))
            closed = await answer(discord_server.click(8, button_id(other_card, "No, thanks"), server.answers[-1]))
            assert (clicked["content"], closed["content"]) == ("shopbot://parcels", "Closed.")
            await bot.close()
            await task

        banners = {
            (each.properties["action"], each.customer_ids.get("registered"))
            for each in sandbox.engine.events("shop", "banner")
        }
        jane = "jane@example.com"
        assert banners == {("show", jane), ("click", jane), ("show", None), ("close", None)}
        assert len(sandbox.engine.events("shop", "question_asked")) == 2


def command(number: int, name: str, **options: str) -> dict[str, Any]:
    given = [{"name": key, "type": 3, "value": value} for key, value in options.items()]
    return discord_server.command(number, name, options=given)


def button_id(answer: dict[str, Any], label: str) -> str:
    """Return the id of a button of a message."""
    buttons = [button for row in answer["components"] for button in row["components"]]
    return next(str(button["custom_id"]) for button in buttons if button["label"] == label)


@pytest.mark.parametrize("name", ["aiogram_bot", "telegram_bot", "discord_bot"])
def test_without_a_token(name: str) -> None:
    """An example without a token says what to do."""
    environment = {key: value for key, value in os.environ.items() if not key.endswith("_TOKEN")}
    done = subprocess.run(
        [sys.executable, EXAMPLES / f"{name}.py"],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        env=environment,
    )

    assert (done.returncode, done.stderr) == (0, "")
    assert "_TOKEN to the token of a bot" in done.stdout
