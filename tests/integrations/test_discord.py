"""
discord.py: each command, interaction and event is about the device of its user, whatever becomes of it.
"""

import asyncio
import logging
import random
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from typing import Any

import discord
import pytest
from discord import app_commands
from discord.ext import commands
from helpers.bots import cookies_by_user, is_one_each, keys, nothing_is_bound, recorded
from helpers.clients import Configure
from helpers.discord_server import (
    BOT,
    CHANNEL,
    GUILD,
    TOKEN,
    DiscordServer,
    click,
    command,
    interaction,
    member,
    message,
    submission,
    user,
)
from helpers.waiting import until

from exponea_async import Event, Exponea, LifecycleError
from exponea_async.integrations.discord import (
    ExponeaBot,
    ExponeaClientMixin,
    ExponeaCommandTree,
    ExponeaViewMixin,
)

# discord.py 2.5 calls aiohttp so.
pytestmark = pytest.mark.filterwarnings("ignore:parameter 'timeout' of type 'float':DeprecationWarning")

Interaction = discord.Interaction[Any]
Context = commands.Context[Any]


class Notes(list[tuple[str, object]]):
    """
    The names of what has run, each with the subject that was current.

    Args:
        exponea: The client.
    """

    def __init__(self, exponea: Exponea) -> None:
        super().__init__()
        self._exponea = exponea

    def add(self, name: str) -> None:
        """Note the current subject."""
        self.append((name, self._exponea.current))

    def keys(self, name: str) -> list[str | None]:
        """Return the keys of the devices that were current."""
        return keys([subject for each, subject in self if each == name])


class Card(ExponeaViewMixin, discord.ui.View):
    """A view with a button that works and one that fails."""

    def __init__(self, notes: Notes) -> None:
        super().__init__(timeout=None)
        self._notes = notes

    @discord.ui.button(label="Buy", custom_id="buy")
    async def buy(self, interaction: Interaction, _: discord.ui.Button["Card"]) -> None:
        self._notes.add("button")
        await interaction.response.send_modal(Form(self._notes))

    @discord.ui.button(label="Fail", custom_id="fail")
    async def fail(self, _: Interaction, __: discord.ui.Button["Card"]) -> None:
        raise ValueError("no")

    async def on_error(self, _: Interaction, __: Exception, ___: discord.ui.Item[Any], /) -> None:
        self._notes.add("error of a button")


class Form(ExponeaViewMixin, discord.ui.Modal, title="Address"):
    """A modal."""

    street: discord.ui.TextInput["Form"] = discord.ui.TextInput(label="Street", custom_id="street")

    def __init__(self, notes: Notes) -> None:
        super().__init__(custom_id="form")
        self._notes = notes

    async def on_submit(self, _: Interaction) -> None:
        self._notes.add("modal")


class Rating(ExponeaViewMixin, discord.ui.DynamicItem[discord.ui.Button[Any]], template="rate:(?P<stars>[1-5])"):
    """A button of a message of an earlier start of the bot."""

    def __init__(self) -> None:
        super().__init__(discord.ui.Button(label="Rate", custom_id="rate:5"))

    @classmethod
    async def from_custom_id(cls, *_: object) -> "Rating":
        """Create the item for a click."""
        return cls()

    async def callback(self, interaction: Interaction, /) -> None:
        """Note the subject."""
        assert isinstance(interaction.client, NotingBot)
        interaction.client.notes.add("dynamic item")


class CheckedButton(ExponeaViewMixin, discord.ui.Button[Any]):
    """A button with a check of its own, which comes before that of its view."""

    async def interaction_check(self, interaction: Interaction, /) -> bool:
        """Note the subject."""
        allowed = await super().interaction_check(interaction)
        assert isinstance(interaction.client, NotingBot)
        interaction.client.notes.add("check of a button")
        return allowed


class NotingBot(ExponeaBot):
    """A bot that its buttons ask for the notes."""

    notes: Notes


class Shop(commands.Cog):
    """Commands and listeners that note their subject."""

    def __init__(self, notes: Notes) -> None:
        self._notes = notes

    @commands.command()
    async def prefix(self, _: Context) -> None:
        self._notes.add("prefix command")

    @commands.hybrid_command()  # type: ignore[arg-type]
    async def hybrid(self, _: Context) -> None:
        self._notes.add("hybrid command")

    @app_commands.command()
    async def slash(self, _: Interaction) -> None:
        self._notes.add("slash command")

    @app_commands.command()
    async def search(self, _: Interaction, query: str) -> None: ...

    @search.autocomplete("query")
    async def complete(self, _: Interaction, __: str) -> list[app_commands.Choice[str]]:
        self._notes.add("autocompletion")
        return []

    @commands.command()
    async def fail(self, _: Context) -> None:
        raise ValueError("no")

    @app_commands.command()
    async def fail_too(self, _: Interaction) -> None:
        raise ValueError("no")

    @commands.command()
    async def own(self, context: Context) -> None:
        context.bot.dispatch("shop_opened")

    @commands.Cog.listener()
    async def on_message(self, _: discord.Message) -> None:
        self._notes.add("listener of a cog")


#: The events of discord.py whose listeners note their subject.
LISTENED = (
    *("message", "message_edit", "message_delete", "interaction", "reaction_add", "raw_reaction_add", "typing"),
    *("reaction_remove", "raw_reaction_remove", "member_join", "voice_state_update", "command_error", "command"),
    *("command_completion", "app_command_completion", "guild_join", "guild_update", "ready", "shop_opened"),
)


class Tree(ExponeaCommandTree):
    """A tree with a check of its own, and a handler of errors that notes its subject."""

    notes: Notes

    async def interaction_check(self, interaction: discord.Interaction[ExponeaClientMixin], /) -> bool:
        return await super().interaction_check(interaction) and interaction.user.id != 9

    async def on_error(self, _: Interaction, __: app_commands.AppCommandError, /) -> None:
        self.notes.add("error of a slash command")


class Running:
    """
    A bot that is connected to a local server.

    Attributes:
        bot: The bot.
        server: The server.
        notes: What has run.
    """

    def __init__(self, bot: ExponeaBot, server: DiscordServer, notes: Notes) -> None:
        self.bot = bot
        self.server = server
        self.notes = notes

    async def keys(self, name: str, count: int = 1) -> list[str | None]:
        """Wait until something has run, and return the keys of the devices that were current."""
        await until(lambda: len(self.notes.keys(name)) >= count)
        return self.notes.keys(name)


Run = Callable[..., Any]


@pytest.fixture
def exponea(configure: Configure) -> Exponea:
    return Exponea(configure(flush_mode="MANUAL", default_device=False))


@pytest.fixture
async def run(exponea: Exponea) -> AsyncIterator[Run]:
    async with AsyncExitStack() as stack:

        async def start(kind: type[ExponeaBot] = ExponeaBot, **options: Any) -> Running:
            server, notes = await stack.enter_async_context(DiscordServer()), Notes(exponea)
            options = {"exponea": exponea, "tree_cls": Tree, "connector": server.connector, **options}
            quick: dict[str, Any] = {
                "guild_ready_timeout": 0.05,
                "chunk_guilds_at_startup": False,
                "help_command": None,
            }
            bot = kind("!", intents=discord.Intents.all(), **quick, **options)
            await prepare(bot, notes)
            task = asyncio.create_task(bot.start(TOKEN))
            stack.push_async_callback(stop, bot, task)
            await until(lambda: task.done() or bot.is_ready())
            return Running(bot, server, notes)

        yield start


async def prepare(bot: ExponeaBot, notes: Notes) -> None:
    """Add commands, listeners and a view that note their subject."""
    await bot.add_cog(Shop(notes))
    bot.add_view(Card(notes))
    if isinstance(bot.tree, Tree):
        bot.tree.notes = notes

    async def show(_: Interaction, __: discord.Member) -> None:
        notes.add("context menu")

    bot.tree.add_command(app_commands.ContextMenu(name="Show", callback=show))
    for event in LISTENED:

        async def listener(*_: object, event: str = event) -> None:
            notes.add(event)

        bot.add_listener(listener, f"on_{event}")


async def stop(bot: ExponeaBot, task: asyncio.Task[None]) -> None:
    await bot.close()
    await task


FROM_MESSAGES = message(user(8), "hello", id="5")
REACTION = {"user_id": "7", "message_id": "5", "channel_id": CHANNEL, "guild_id": GUILD, "type": 0, "burst": False}
ADDED = {**REACTION, "emoji": {"id": None, "name": "👍"}, "member": member(user=user(7))}
TYPING = {"channel_id": CHANNEL, "guild_id": GUILD, "user_id": "7", "timestamp": 1, "member": member(user=user(7))}
VOICE = {"guild_id": GUILD, "channel_id": None, "user_id": "7", "session_id": "1", "member": member(user=user(7))}
FLAGS = dict.fromkeys(("deaf", "mute", "self_deaf", "self_mute", "self_video", "suppress"), False)
MENU = {"type": 2, "target_id": "8", "resolved": {"users": {"8": user(8)}, "members": {"8": member(permissions="0")}}}
SEARCH = {"id": "1", "name": "search", "type": 1}
QUERY = {"name": "query", "type": 3, "value": "m", "focused": True}

#: What user 7 does, by what runs then: the events of the gateway.
BY_USER: dict[str, list[tuple[str, dict[str, Any]]]] = {
    "prefix command": [("MESSAGE_CREATE", message(user(7), "!prefix"))],
    "hybrid command": [("MESSAGE_CREATE", message(user(7), "!hybrid"))],
    "listener of a cog": [("MESSAGE_CREATE", message(user(7), "hello"))],
    "message": [("MESSAGE_CREATE", message(user(7), "hello"))],
    "command": [("MESSAGE_CREATE", message(user(7), "!prefix"))],
    "command_completion": [("MESSAGE_CREATE", message(user(7), "!prefix"))],
    "command_error": [("MESSAGE_CREATE", message(user(7), "!fail"))],
    "shop_opened": [("MESSAGE_CREATE", message(user(7), "!own"))],
    "slash command": [("INTERACTION_CREATE", command(7, "slash"))],
    "app_command_completion": [("INTERACTION_CREATE", command(7, "slash"))],
    "error of a slash command": [("INTERACTION_CREATE", command(7, "fail_too"))],
    "context menu": [("INTERACTION_CREATE", command(7, "Show", **MENU))],
    "autocompletion": [("INTERACTION_CREATE", interaction(4, 7, {**SEARCH, "options": [QUERY]}))],
    "interaction": [("INTERACTION_CREATE", command(7, "slash"))],
    "button": [("INTERACTION_CREATE", click(7, "buy"))],
    "error of a button": [("INTERACTION_CREATE", click(7, "fail"))],
    "reaction_add": [("MESSAGE_CREATE", FROM_MESSAGES), ("MESSAGE_REACTION_ADD", ADDED)],
    "raw_reaction_add": [("MESSAGE_REACTION_ADD", ADDED)],
    "reaction_remove": [
        ("MESSAGE_CREATE", FROM_MESSAGES),
        ("MESSAGE_REACTION_ADD", ADDED),
        ("MESSAGE_REACTION_REMOVE", ADDED),
    ],
    "raw_reaction_remove": [("MESSAGE_REACTION_REMOVE", ADDED)],
    "typing": [("TYPING_START", TYPING)],
    "voice_state_update": [("VOICE_STATE_UPDATE", VOICE | FLAGS)],
    "member_join": [
        ("GUILD_MEMBER_REMOVE", {"guild_id": GUILD, "user": user(7)}),
        ("GUILD_MEMBER_ADD", {"guild_id": GUILD, **member(user=user(7))}),
    ],
    "message_edit": [
        ("MESSAGE_CREATE", message(user(7), "hello", id="6")),
        ("MESSAGE_UPDATE", message(user(7), "hello!", id="6")),
    ],
}

#: What no user has done, or one who is not known.
BY_NOBODY: dict[str, tuple[str, list[tuple[str, dict[str, Any]]]]] = {
    "message of a bot": ("message", [("MESSAGE_CREATE", message(user(77, bot=True), "hello"))]),
    "message of the bot itself": ("message", [("MESSAGE_CREATE", message(BOT, "hello"))]),
    "message of a webhook": (
        "message",
        [("MESSAGE_CREATE", message(user(77, bot=True), "hello", webhook_id="7"))],
    ),
    "message of Discord": ("message", [("MESSAGE_CREATE", message(user(77, system=True), "hello"))]),
    "deletion, of which nobody knows who did it": (
        "message_delete",
        [
            ("MESSAGE_CREATE", message(user(7), "hello", id="6")),
            ("MESSAGE_DELETE", {"id": "6", "channel_id": CHANNEL, "guild_id": GUILD}),
        ],
    ),
    "reaction of somebody who is not known": (
        "raw_reaction_remove",
        [("MESSAGE_REACTION_REMOVE", {**ADDED, "user_id": "77"})],
    ),
    "start": ("ready", []),
}


class TestSubjects:
    @pytest.mark.parametrize("name", BY_USER)
    async def test_actions_of_users(self, run: Run, name: str) -> None:
        """Whatever a user's action runs is about the device of this user."""
        running = await run()

        for event, data in BY_USER[name]:
            await running.server.dispatch(event, data)

        assert (await running.keys(name))[-1:] == ["discord:7"]

    async def test_hybrid_commands(self, run: Run) -> None:
        """A hybrid command is about its user when it is called as a slash command."""
        running = await run()

        await running.server.dispatch("INTERACTION_CREATE", command(7, "hybrid"))

        assert await running.keys("hybrid command") == ["discord:7"]

    async def test_modals(self, run: Run) -> None:
        """A modal is about the user who fills it in."""
        running = await run()
        await running.server.dispatch("INTERACTION_CREATE", click(7, "buy"))
        await until(lambda: bool(running.server.sent("/callback")))

        await running.server.dispatch("INTERACTION_CREATE", submission(7, "form"))

        assert await running.keys("modal") == ["discord:7"]

    @pytest.mark.parametrize("case", BY_NOBODY.values(), ids=BY_NOBODY)
    async def test_events_of_nobody(self, run: Run, case: tuple[str, list[tuple[str, dict[str, Any]]]]) -> None:
        """An event that no user has caused, or one who is not known, is about nobody."""
        running = await run()

        name, events = case
        for event, data in events:
            await running.server.dispatch(event, data)

        assert await running.keys(name) == [None]

    async def test_another_key(self, run: Run) -> None:
        """The application may choose the key, for example one for each server."""

        def member_key(user: discord.User | discord.Member) -> str | None:
            return f"{user.guild.id}:{user.id}" if isinstance(user, discord.Member) else None

        running = await run(key=member_key)
        await running.server.dispatch("MESSAGE_CREATE", message(user(7), "!prefix"))
        await running.server.dispatch("INTERACTION_CREATE", command(7, "slash"))

        assert await running.keys("prefix command") == await running.keys("slash command") == ["100:7"]

    async def test_consent(self, run: Run) -> None:
        """Users who have not consented are nobody."""
        running = await run(consent=lambda user: user.id == 7)

        for number in (7, 8):
            await running.server.dispatch("MESSAGE_CREATE", message(user(number), "!prefix"))
            await running.server.dispatch("INTERACTION_CREATE", command(number, "slash"))
            await running.server.dispatch("INTERACTION_CREATE", click(number, "buy"))

        for name in ("prefix command", "slash command", "button"):
            assert sorted(await running.keys(name, 2), key=str) == [None, "discord:7"]

    async def test_consent_that_must_be_awaited(
        self, run: Run, exponea: Exponea, caplog: pytest.LogCaptureFixture
    ) -> None:
        """Consent comes from a plain function; one that returns something to await is an error, and not a consent."""

        async def has_consented(_: object) -> bool:
            return True

        with pytest.raises(TypeError, match="expected a plain function"):
            ExponeaBot("!", intents=discord.Intents.all(), exponea=exponea, consent=has_consented)  # type: ignore[arg-type]

        future = asyncio.get_running_loop().create_future()
        running = await run(consent=lambda _: future)
        await running.server.dispatch("MESSAGE_CREATE", message(user(7), "!prefix"))

        assert await running.keys("prefix command") == [None]
        assert "got an awaitable" in caplog.text

    async def test_failures_of_functions(self, run: Run, caplog: pytest.LogCaptureFixture) -> None:
        """If a function of the application raises an error, it is logged, and the bot goes on, about nobody."""

        def fail(_: object) -> str:
            raise ValueError("no")

        running = await run(key=fail)
        await running.server.dispatch("MESSAGE_CREATE", message(user(7), "!prefix"))

        assert await running.keys("prefix command") == [None]
        assert "The subject of an update is not known" in caplog.text

    async def test_items_of_messages(self, run: Run) -> None:
        """An item without a view is about its user, and so is the check of an item, if they have the base class."""
        running = await run(NotingBot)
        running.bot.notes = running.notes
        running.bot.add_dynamic_items(Rating)
        running.bot.add_view(discord.ui.View(timeout=None).add_item(CheckedButton(custom_id="checked")))
        row = {"type": 1, "components": [{"type": 2, "style": 1, "label": "Rate", "custom_id": "rate:5"}]}
        shown = message(BOT, "Rate", components=[row])

        for number in (7, 8):
            await running.server.dispatch("INTERACTION_CREATE", click(number, "rate:5", shown))
            await running.server.dispatch("INTERACTION_CREATE", click(number, "checked"))

        assert await running.keys("dynamic item", 2) == ["discord:7", "discord:8"]
        assert await running.keys("check of a button", 2) == ["discord:7", "discord:8"]

    async def test_a_refused_interaction(self, run: Run) -> None:
        """A tree may still refuse an interaction."""
        running = await run()

        for number in (9, 7):
            await running.server.dispatch("INTERACTION_CREATE", command(number, "slash"))

        assert await running.keys("slash command") == ["discord:7"]


class TestBinding:
    async def test_it_is_that_of_the_task(self, run: Run, exponea: Exponea) -> None:
        """No event leaves anything bound for the next one, and tasks that a command starts keep its subject."""
        running, go = await run(), asyncio.Event()
        tasks: list[asyncio.Task[object]] = []

        @running.bot.listen()  # type: ignore[untyped-decorator]
        async def on_command(_: Context) -> None:
            async def look() -> object:
                await go.wait()
                return exponea.current

            tasks.append(asyncio.create_task(look()))

        for number in (7, 8):
            await running.server.dispatch("MESSAGE_CREATE", message(user(number), "!prefix"))
            await running.server.dispatch("INTERACTION_CREATE", command(number, "slash"))
            await running.server.dispatch("INTERACTION_CREATE", click(number, "buy"))
        await running.server.dispatch("GUILD_UPDATE", {"id": GUILD, "name": "Buyers"})
        await until(lambda: len(tasks) == 2)
        go.set()

        assert keys(await asyncio.gather(*tasks)) == ["discord:7", "discord:8"]
        assert await running.keys("guild_update") == [None]
        assert nothing_is_bound(exponea)

    async def test_nothing_else_is_tracked(self, run: Run, exponea: Exponea) -> None:
        """An event alone tracks nothing, and creates no device."""
        running = await run()

        for name, events in BY_USER.items():
            for event, data in events:
                await running.server.dispatch(event, data)
            await running.keys(name)

        assert await recorded(exponea) == []


class TestLeaks:
    async def test_many_events_at_once(self, run: Run, exponea: Exponea, caplog: pytest.LogCaptureFixture) -> None:
        """Of 600 commands, slash commands and clicks of 150 users, some of which fail, each is about its own user."""
        caplog.set_level(logging.CRITICAL, logger="discord")
        running, pauses, tasks = await run(), random.Random(5), list[asyncio.Task[Any]]()

        async def track(name: str, number: int) -> None:
            for _ in range(pauses.randrange(4)):
                await asyncio.sleep(0)
            await exponea.track_event(Event(name, {"user": number}))

        async def handle(number: int) -> None:
            await track("seen", number)
            tasks.append(asyncio.create_task(track("seen_later", number)))
            if number % 7 == 0:
                raise ValueError("no")

        class Buttons(ExponeaViewMixin, discord.ui.View):
            @discord.ui.button(custom_id="seen")
            async def seen(self, interaction: Interaction, _: Any) -> None:
                await handle(interaction.user.id)

        async def seen(context: Context) -> None:
            await handle(context.author.id)

        async def seen_too(interaction: Interaction) -> None:
            await handle(interaction.user.id)

        running.bot.add_command(commands.Command(seen))
        running.bot.tree.add_command(app_commands.Command(name="seen", description="see", callback=seen_too))
        running.bot.add_view(Buttons(timeout=None))
        makes: list[Callable[[int], tuple[str, dict[str, Any]]]] = [
            lambda number: ("MESSAGE_CREATE", message(user(number), "!seen")),
            lambda number: ("INTERACTION_CREATE", command(number, "seen")),
            lambda number: ("INTERACTION_CREATE", click(number, "seen")),
        ]
        events = [makes[number % 3](1000 + number % 150) for number in range(600)]
        events += [("MESSAGE_CREATE", message(user(77, bot=True), "hello")) for _ in range(60)]
        pauses.shuffle(events)
        for event, data in events:
            await running.server.dispatch(event, data)
        await until(lambda: len(tasks) == 600)
        await asyncio.gather(*tasks)

        names = await recorded(exponea)
        assert (names.count("seen"), names.count("seen_later"), names.count("installation")) == (600, 600, 150)
        cookies = await cookies_by_user(exponea, "seen", "seen_later")
        assert sorted(cookies) == list(range(1000, 1150))
        assert is_one_each(cookies)


class TestLifeCycle:
    async def test_with_the_bot(self, run: Run, exponea: Exponea) -> None:
        """The client is open from ``setup_hook()`` until the bot is closed."""

        class Bot(ExponeaBot):
            async def setup_hook(self) -> None:
                await self.exponea.device("shop").track_event(Event("bot_started"))

        running = await run(Bot)
        assert "bot_started" in await recorded(exponea)
        await running.bot.close()

        with pytest.raises(LifecycleError, match="closed"):
            await exponea.device("shop").track_event(Event("late"))

    async def test_sharded_bots(self, exponea: Exponea) -> None:
        """The base class works with each client of discord.py."""

        class Sharded(ExponeaClientMixin, commands.AutoShardedBot): ...

        class Plain(ExponeaClientMixin, discord.Client): ...

        for kind in (Sharded, Plain):
            options: dict[str, Any] = {"command_prefix": "!"} if kind is Sharded else {}
            client = kind(exponea=exponea, intents=discord.Intents.default(), **options)
            assert client.exponea is exponea
        await exponea.aclose()

    async def test_a_client_without_the_base_class(self, exponea: Exponea) -> None:
        """A tree or view of another client says what is missing."""
        found: list[BaseException] = []

        class Noting(ExponeaCommandTree):
            async def interaction_check(self, interaction: Interaction, /) -> bool:
                try:
                    return await super().interaction_check(interaction)
                except TypeError as error:
                    found.append(error)
                    return False

        async with DiscordServer() as server:
            bot = commands.Bot(
                "!",
                intents=discord.Intents.all(),
                tree_cls=Noting,
                connector=server.connector,
                guild_ready_timeout=0.05,
                chunk_guilds_at_startup=False,
            )
            task = asyncio.create_task(bot.start(TOKEN))
            await server.is_identified.wait()
            await server.dispatch("INTERACTION_CREATE", command(7, "slash"))
            await until(lambda: bool(found))
            await bot.close()
            await task

        assert "expected an ExponeaBot, got Bot" in str(found[0])
