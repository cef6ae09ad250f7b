"""
A Discord bot that tracks questions and shows in-app messages as cards.

Create an application on Discord's page for developers, set ``DISCORD_TOKEN``, and run it with ``python
examples/discord_bot.py``. It starts a sandbox instead of Engagement, and its page shows what arrives.
"""

import asyncio
import os
from contextlib import suppress
from typing import Any

import discord
from discord import app_commands
from discord.ext import commands
from support_bot import DEFINITIONS

from exponea_async import (
    ActionType,
    Configuration,
    Customer,
    Event,
    Exponea,
    InAppMessage,
    InAppMessageButton,
    UnavailableError,
)
from exponea_async.integrations.discord import ExponeaBot, ExponeaViewMixin
from exponea_async.sandbox import Sandbox

Interaction = discord.Interaction[Any]

#: The codes that the shop's page shows to customers who are signed in, each with the customer.
CODES = {"4711": "jane@example.com"}


class ShopBot(ExponeaBot):
    """The bot, which starts the client before it logs in, and closes it with itself."""

    async def setup_hook(self) -> None:
        """Tell Discord which slash commands there are."""
        await self.add_cog(Shop(self.exponea))
        await self.tree.sync()


def make_bot(configuration: Configuration, **options: Any) -> ShopBot:
    """Return the bot."""
    intents = discord.Intents(guilds=True, guild_messages=True, guild_reactions=True, dm_messages=True)
    return ShopBot(commands.when_mentioned, intents=intents, exponea=Exponea(configuration), **options)


class Shop(commands.Cog):
    """
    The commands and listeners of the shop.

    Args:
        exponea: The client.
    """

    def __init__(self, exponea: Exponea) -> None:
        self._exponea = exponea

    @app_commands.command()
    async def ask(self, interaction: Interaction, question: str) -> None:
        """Ask the shop a question."""
        event = Event("question_asked", {"topic": "delivery" if "parcel" in question else "other"})
        await self._exponea.track_event(event)
        card = await card_for(self._exponea, event)
        if card is None:
            await interaction.response.send_message("We will get back to you.", ephemeral=True)
            return
        # Others can't see it, and so can't use its buttons.
        text = "\n".join(filter(None, (card.title, card.body_text)))
        await interaction.response.send_message(text, view=Card(self._exponea, card), ephemeral=True)

    @app_commands.command()
    async def link(self, interaction: Interaction, code: str) -> None:
        """Link your account of the shop, with the code that its page shows you."""
        # Not with an e-mail address, which might be another customer's.
        if (email := CODES.get(code)) is None:
            await interaction.response.send_message("This code is not valid.", ephemeral=True)
            return
        await self._exponea.identify_customer(Customer({"registered": email}))
        await interaction.response.send_message("Your account is linked.", ephemeral=True)

    @commands.Cog.listener()
    async def on_raw_reaction_add(self, payload: discord.RawReactionActionEvent) -> None:
        """Track a reaction to a message."""
        await self._exponea.track_event(Event("reaction_added", {"emoji": payload.emoji.name}))


class Card(ExponeaViewMixin, discord.ui.View):
    """
    The buttons of an in-app message.

    Args:
        exponea: The client.
        card: The message.
    """

    def __init__(self, exponea: Exponea, card: InAppMessage) -> None:
        super().__init__()
        for button in card.buttons:
            self.add_item(CardButton(exponea, card, button))


class CardButton(discord.ui.Button[Card]):
    """
    A button of an in-app message.

    Args:
        exponea: The client.
        card: The message.
        button: Its button.
    """

    def __init__(self, exponea: Exponea, card: InAppMessage, button: InAppMessageButton) -> None:
        super().__init__(label=button.text)
        self._exponea = exponea
        self._card = card
        self._button = button

    async def callback(self, interaction: Interaction) -> None:
        """Report the click."""
        link = None
        if self._button.kind == ActionType.CLOSE:
            await self._exponea.close_in_app_message(self._card, self._button)
        else:
            link = await self._exponea.click_in_app_message(self._card, self._button)
        await interaction.response.edit_message(content=link or "Closed.", view=None)


async def card_for(exponea: Exponea, event: Event) -> InAppMessage | None:
    """Return the in-app message for an event; None also if Engagement can't be reached."""
    try:
        return await exponea.in_app_message_for(event)
    except UnavailableError:
        return None


async def main() -> None:
    """Run the bot, with a sandbox instead of Engagement."""
    token = os.environ.get("DISCORD_TOKEN")
    if not token:
        print("Set DISCORD_TOKEN to the token of a bot, from https://discord.com/developers/applications.")
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
        async with make_bot(settings) as bot:
            await bot.start(token)


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        asyncio.run(main())
