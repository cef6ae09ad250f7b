"""
discord.py: each command, interaction and event is about the device of its user.

::

    bot = ExponeaBot("!", intents=discord.Intents.default(), exponea=Exponea(configuration))


    @bot.command()
    async def order(ctx: commands.Context[ExponeaBot]) -> None:
        await ctx.bot.exponea.track_event(Event("order_started"))
"""

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from inspect import iscoroutinefunction
from typing import Any

import discord
from discord import app_commands
from discord.ext import commands

from exponea_async.client import CLOSE_TIMEOUT, Exponea
from exponea_async.integrations._bots import SubjectRule
from exponea_async.subjects import Device, Nobody, bound

__all__ = [
    "ExponeaBot",
    "ExponeaClientMixin",
    "ExponeaCommandTree",
    "ExponeaViewMixin",
    "acting_user",
    "user_key",
]

User = discord.User | discord.Member
Key = Callable[[User], str | None]
Consent = Callable[[User], bool]


def user_key(user: User) -> str | None:
    """
    Return the key of a user's device, such as ``"discord:42"``.

    Returns:
        None for bots, which webhooks are as well, and for Discord itself.
    """
    return None if user.bot or user.system else f"discord:{user.id}"


class ExponeaClientMixin(discord.Client):
    """
    A base class of clients, beside ``discord.Client``, ``commands.Bot`` or the sharded ones, which it precedes.

    It starts the client of Engagement before ``setup_hook()``, closes it with the bot, and binds the subject of each
    event while its listeners run, prefix commands included: the user whom `acting_user` returns. Commands of a tree and
    components have tasks of their own: use `ExponeaCommandTree` and `ExponeaViewMixin` for them.

    Args:
        args: As for the other base class.
        exponea: The client of Engagement, which is not started yet.
        key: Returns the key of a user's device; None for nobody.
        consent: Returns whether a user has consented to be tracked; if not, the subject is ``exponea.nobody()``. A
            plain function, because discord.py starts listeners in one.
        upload_timeout: Maximum duration of the upload when the bot is closed, in seconds; None sets no limit.
        options: As for the other base class.

    Attributes:
        exponea: The client of Engagement.

    Raises:
        TypeError: ``consent`` is a coroutine function.
    """

    def __init__(
        self,
        *args: Any,
        exponea: Exponea,
        key: Key = user_key,
        consent: Consent | None = None,
        upload_timeout: float | None = CLOSE_TIMEOUT,
        **options: Any,
    ) -> None:
        if iscoroutinefunction(consent):
            raise TypeError("consent: expected a plain function, got a coroutine function. Keep the answers in memory.")
        super().__init__(*args, **options)
        self.exponea = exponea
        self._upload_timeout = upload_timeout
        self._rule = SubjectRule(exponea, key, consent)

    def subject_of(self, user: User | None) -> Device | Nobody:
        """Return the device of a user who has consented, else nobody."""
        return self.exponea.nobody() if user is None else self._rule.choose_now(user)

    async def login(self, token: str) -> None:
        """Start the client of Engagement, then log in."""
        await self.exponea.start()
        await super().login(token)

    async def close(self) -> None:
        """Close the connection to Discord, then the client of Engagement."""
        try:
            await super().close()
        finally:
            await self.exponea.aclose(self._upload_timeout)

    def dispatch(self, event: str, /, *args: Any, **kwargs: Any) -> None:
        """Start the listeners of an event with the subject of its user bound, which each task keeps until it ends."""
        # An event of the application's own, such as one that a command dispatches, is about the same user.
        is_own = event not in ACTING_USERS and bound(self.exponea) is not None
        with ExitStack() as stack:
            if not is_own:
                stack.enter_context(self.exponea.bind(self.subject_of(acting_user(self, event, *args))))
            super().dispatch(event, *args, **kwargs)


class ExponeaCommandTree(app_commands.CommandTree[ExponeaClientMixin]):
    """
    A command tree that binds the subject of each command, context menu and autocompletion.

    Its client is an `ExponeaBot`, or has the `ExponeaClientMixin`. A class that overrides ``interaction_check`` calls
    that of this class first.
    """

    async def interaction_check(self, interaction: discord.Interaction[ExponeaClientMixin], /) -> bool:
        """Bind the subject until the end of the task, which is that of the command."""
        _bind_in_task(interaction)
        return await super().interaction_check(interaction)


class ExponeaViewMixin:
    """
    A base class of views, layouts and modals, which it precedes: it binds the subject of whoever uses them.

    It is one of dynamic items, too, which have no view, and of items with a check of their own, which comes before that
    of the view. A class that overrides ``interaction_check`` calls that of this class first::

        class Card(ExponeaViewMixin, discord.ui.View): ...
    """

    async def interaction_check(self, interaction: discord.Interaction[Any], /) -> bool:
        """Bind the subject until the end of the task, which is that of the interaction."""
        _bind_in_task(interaction)
        allowed: bool = await super().interaction_check(interaction)  # type: ignore[misc] # of the other base class
        return allowed


class ExponeaBot(ExponeaClientMixin, commands.Bot):
    """
    A bot whose commands and listeners are about the device of their user.

    Args:
        command_prefix: As for ``commands.Bot``, as are all options that are not listed here.
        exponea: The client of Engagement, which is not started yet.
        key: Returns the key of a user's device; None for nobody.
        consent: Returns whether a user has consented to be tracked; if not, the subject is ``exponea.nobody()``.
        upload_timeout: Maximum duration of the upload when the bot is closed, in seconds; None sets no limit.
        tree_cls: The class of the command tree.
        options: The other options.
    """

    def __init__(
        self,
        command_prefix: Any,
        *,
        exponea: Exponea,
        key: Key = user_key,
        consent: Consent | None = None,
        upload_timeout: float | None = CLOSE_TIMEOUT,
        tree_cls: type[app_commands.CommandTree[Any]] = ExponeaCommandTree,
        **options: Any,
    ) -> None:
        super().__init__(
            command_prefix,
            exponea=exponea,
            key=key,
            consent=consent,
            upload_timeout=upload_timeout,
            tree_cls=tree_cls,
            **options,
        )


def acting_user(client: discord.Client, event: str, *args: Any) -> User | None:
    """
    Return the user whose action an event of discord.py reports.

    Args:
        client: The client, whose cache may know a user.
        event: The name of the event, without ``on_``.
        args: The arguments of its listeners.

    Returns:
        None for events that nobody in particular has caused, and for those of which Discord does not tell who did.
    """
    find = ACTING_USERS.get(event)
    return None if find is None else find(client, *args)


def _of_message(_: discord.Client, message: discord.Message, *__: Any) -> User:
    return message.author


def _of_edit(_: discord.Client, __: discord.Message, message: discord.Message) -> User:
    return message.author


def _of_interaction(_: discord.Client, interaction: discord.Interaction[Any], *__: Any) -> User:
    return interaction.user


def _of_context(_: discord.Client, context: commands.Context[Any], *__: Any) -> User:
    return context.author


def _first(_: discord.Client, user: User, *__: Any) -> User:
    return user


def _second(_: discord.Client, __: object, user: User | None, *___: Any) -> User | None:
    return user


def _of_reaction(client: discord.Client, payload: discord.RawReactionActionEvent) -> User | None:
    return payload.member or client.get_user(payload.user_id)


#: The events that a user causes, each with the function that finds the user.
ACTING_USERS: Mapping[str, Callable[..., User | None]] = {
    "message": _of_message,
    "message_edit": _of_edit,
    "interaction": _of_interaction,
    "app_command_completion": _of_interaction,
    "command": _of_context,
    "command_completion": _of_context,
    "command_error": _of_context,
    "reaction_add": _second,
    "reaction_remove": _second,
    "raw_reaction_add": _of_reaction,
    "raw_reaction_remove": _of_reaction,
    "typing": _second,
    "poll_vote_add": _first,
    "poll_vote_remove": _first,
    "scheduled_event_user_add": _second,
    "scheduled_event_user_remove": _second,
    "member_join": _first,
    "voice_state_update": _first,
}


def _bind_in_task(interaction: discord.Interaction[Any]) -> None:
    client = interaction.client
    if not isinstance(client, ExponeaClientMixin):
        name = type(client).__name__
        raise TypeError(f"client: expected an ExponeaBot, got {name}. Derive it from ExponeaClientMixin as well.")
    # It is never exited: the checks and the command run in one task, which has a context of its own.
    ExitStack().enter_context(client.exponea.bind(client.subject_of(interaction.user)))
