"""
aiogram 3: each update is about the device of its user.

::

    dispatcher = Dispatcher()
    setup(dispatcher, Exponea(configuration))


    @dispatcher.message()
    async def on_message(message: TelegramObject, exponea: Exponea) -> None:
        await exponea.track_event(Event("message_received"))
"""

from collections.abc import Awaitable, Callable
from typing import Any

from aiogram import BaseMiddleware, Dispatcher
from aiogram.dispatcher.middlewares.user_context import UserContextMiddleware
from aiogram.types import ErrorEvent, TelegramObject, Update
from aiogram.types.update import UpdateTypeLookupError

from exponea_async.client import CLOSE_TIMEOUT, Exponea
from exponea_async.integrations._bots import SubjectRule
from exponea_async.subjects import Device, Nobody

__all__ = ["ExponeaMiddleware", "setup", "user_key"]

Key = Callable[[Update], str | None]
Consent = Callable[[Update], bool | Awaitable[bool]]

#: Under which name handlers get the client.
CLIENT = "exponea"
#: The beginning of the name under which the subject of an update is passed on to the handlers of its errors.
SUBJECT = "exponea_subject"


def user_key(update: Update) -> str | None:
    """
    Return the key of the device of the user who caused an update, such as ``"telegram:42"``.

    Returns:
        None where there is no user: channel posts, votes and messages in the name of a chat, anonymous reactions,
        polls, and updates that a bot has caused, such as the one that stands for all anonymous administrators.
    """
    try:
        event = update.event
    except UpdateTypeLookupError:
        return None
    # Telegram then also names a user, who is the same for all chats.
    if getattr(event, "sender_chat", None) is not None or getattr(event, "voter_chat", None) is not None:
        return None
    user = UserContextMiddleware.resolve_event_context(update).user
    return None if user is None or user.is_bot else f"telegram:{user.id}"


class ExponeaMiddleware(BaseMiddleware):
    """
    An outer middleware that binds the subject of an update while it is handled.

    Handlers get the client as the argument ``exponea``. Register the same middleware for updates and for errors, as
    `setup` does, so that a handler of errors has the subject of the update that has failed::

        dispatcher, middleware = Dispatcher(), ExponeaMiddleware(exponea)
        dispatcher.update.outer_middleware(middleware)
        dispatcher.error.outer_middleware(middleware)

    Args:
        exponea: The client.
        key: Returns the key of the device that an update is about; None for nobody.
        consent: Returns whether the user of an update has consented to be tracked, or something to await that does;
            if not, the subject is ``exponea.nobody()``.
    """

    def __init__(self, exponea: Exponea, *, key: Key = user_key, consent: Consent | None = None) -> None:
        self._exponea = exponea
        self._rule = SubjectRule(exponea, key, consent)
        # Not the same for all: a bot may have several clients.
        self._entry = f"{SUBJECT}_{id(self)}"

    async def __call__(
        self,
        handler: Callable[[TelegramObject, dict[str, Any]], Awaitable[Any]],
        event: TelegramObject,
        data: dict[str, Any],
    ) -> Any:
        """Handle an update, or the error of one, with its subject bound."""
        subject = data[self._entry] = await self._subject(event, data)
        data[CLIENT] = self._exponea
        with self._exponea.bind(subject):
            return await handler(event, data)

    async def _subject(self, event: TelegramObject, data: dict[str, Any]) -> Device | Nobody:
        if isinstance(event, ErrorEvent):
            subject: Device | Nobody | None = data.get(self._entry)
            return subject or await self._rule.choose(event.update)
        # The middleware may also be registered for a router's messages only.
        return await self._rule.choose(event if isinstance(event, Update) else data["event_update"])


def setup(
    dispatcher: Dispatcher,
    exponea: Exponea,
    *,
    key: Key = user_key,
    consent: Consent | None = None,
    timeout: float | None = CLOSE_TIMEOUT,
) -> ExponeaMiddleware:
    """
    Start and close a client with a dispatcher, by polling and by webhook, and bind the subject of each update.

    Start-up and shutdown handlers that use the client are to be registered after and before this call, respectively,
    because aiogram calls both in the order of their registration.

    Args:
        dispatcher: The dispatcher.
        exponea: The client, which is not started yet.
        key: Returns the key of the device that an update is about; None for nobody.
        consent: Returns whether the user of an update has consented to be tracked, or something to await that does.
        timeout: Maximum duration of the upload at shutdown, in seconds; None sets no limit.

    Returns:
        The middleware.
    """
    middleware = ExponeaMiddleware(exponea, key=key, consent=consent)
    dispatcher.update.outer_middleware(middleware)
    dispatcher.error.outer_middleware(middleware)
    dispatcher[CLIENT] = exponea

    # aiogram passes what it has by name, which could be a timeout.
    async def start() -> None:
        await exponea.start()

    async def close() -> None:
        await exponea.aclose(timeout)

    dispatcher.startup.register(start)
    dispatcher.shutdown.register(close)
    return middleware
