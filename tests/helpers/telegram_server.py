"""
A local stand-in for Telegram's Bot API, and updates as it sends them.
"""

import asyncio
import json
from collections.abc import Callable
from itertools import count
from typing import Any

from aiohttp import web

from helpers.local_server import LocalServer

TOKEN = "42:token"
BOT = {"id": 42, "is_bot": True, "first_name": "Shop", "username": "shop_bot"}
#: The user that Telegram names for all administrators who write in the name of their group.
ANONYMOUS = {"id": 1087968824, "is_bot": True, "first_name": "Group", "username": "GroupAnonymousBot"}
#: The user that Telegram names for posts of a channel that are forwarded into its group. It is not marked as a bot.
SERVICE = {"id": 777000, "is_bot": False, "first_name": "Telegram"}
GROUP = {"id": -100, "type": "supergroup", "title": "Shoppers"}
CHANNEL = {"id": -200, "type": "channel", "title": "News"}

Update = dict[str, Any]
_numbers = count(1)


def user(number: int) -> dict[str, Any]:
    return {"id": number, "is_bot": False, "first_name": f"User {number}"}


def message(sender: int | dict[str, Any] | None, text: str = "hello", **fields: Any) -> dict[str, Any]:
    """Return a message, by default in the private chat of its sender."""
    if isinstance(sender, int):
        sender = user(sender)
    chat = {"id": sender["id"], "type": "private", "first_name": "User"} if sender else CHANNEL
    own = {"from": sender} if sender else {}
    length = len(text.split(maxsplit=1)[0]) if text.startswith("/") else 0
    entities = [{"type": "bot_command", "offset": 0, "length": length}] if length else []
    usual = {"message_id": next(_numbers), "date": 1_700_000_000, "chat": chat, "text": text, "entities": entities}
    return {**usual, **own, **fields}


def update(kind: str, content: dict[str, Any]) -> Update:
    return {"update_id": next(_numbers), kind: content}


def message_update(sender: int | dict[str, Any] | None, text: str = "hello", **fields: Any) -> Update:
    return update("message", message(sender, text, **fields))


def callback_update(sender: int, data: str, **fields: Any) -> Update:
    """Return the click of a user on a button below a message of the bot."""
    content = message(BOT, "Choose", chat={"id": sender, "type": "private", "first_name": "User"})
    click = {"id": str(next(_numbers)), "from": user(sender), "chat_instance": "1", "data": data, "message": content}
    return update("callback_query", {**click, **fields})


_MEMBER = {"user": user(9), "status": "left"}
_CHANGE = {"chat": GROUP, "date": 1_700_000_000, "old_chat_member": _MEMBER, "new_chat_member": _MEMBER}
_LIKE = [{"type": "emoji", "emoji": "👍"}]
_REACTION = {"chat": GROUP, "message_id": 1, "date": 1_700_000_000, "old_reaction": [], "new_reaction": _LIKE}
_VOTE = {"poll_id": "1", "option_ids": [0], "option_persistent_ids": ["0"]}
_POLL = {
    "id": "1",
    "question": "Tea?",
    "options": [{"persistent_id": "0", "text": "Yes", "voter_count": 1}],
    "total_voter_count": 1,
    "is_closed": False,
    "is_anonymous": True,
    "type": "regular",
    "allows_multiple_answers": False,
    "allows_revoting": False,
    "members_only": False,
}

#: Updates that user 7 has caused.
BY_USER: dict[str, Callable[[], Update]] = {
    "private message": lambda: message_update(7),
    "message in a group": lambda: message_update(7, chat=GROUP),
    "edited message": lambda: update("edited_message", message(7, edit_date=1_700_000_001)),
    "click": lambda: callback_update(7, "buy"),
    "click in a channel": lambda: callback_update(7, "buy", message=message(None, sender_chat=CHANNEL)),
    "inline query": lambda: update("inline_query", {"id": "1", "from": user(7), "query": "mug", "offset": ""}),
    "inline result": lambda: update("chosen_inline_result", {"result_id": "1", "from": user(7), "query": "mug"}),
    "vote": lambda: update("poll_answer", {**_VOTE, "user": user(7)}),
    "reaction": lambda: update("message_reaction", {**_REACTION, "user": user(7)}),
    "block of the bot": lambda: update("my_chat_member", {**_CHANGE, "from": user(7)}),
    "join request": lambda: update(
        "chat_join_request", {"chat": GROUP, "from": user(7), "user_chat_id": 7, "date": 1_700_000_000}
    ),
}
#: Updates that no user has caused, or one who is not known.
BY_NOBODY: dict[str, Callable[[], Update]] = {
    "channel post": lambda: update("channel_post", message(None, sender_chat=CHANNEL)),
    "edited post": lambda: update("edited_channel_post", message(None, sender_chat=CHANNEL, edit_date=1_700_000_001)),
    "anonymous administrator": lambda: message_update(ANONYMOUS, chat=GROUP, sender_chat=GROUP),
    "forwarded post": lambda: message_update(SERVICE, chat=GROUP, sender_chat=CHANNEL, is_automatic_forward=True),
    "change by an anonymous administrator": lambda: update("chat_member", {**_CHANGE, "from": ANONYMOUS}),
    "vote of a channel": lambda: update("poll_answer", {**_VOTE, "voter_chat": CHANNEL, "user": user(136817688)}),
    "anonymous reaction": lambda: update("message_reaction", {**_REACTION, "actor_chat": GROUP}),
    "counts of reactions": lambda: update(
        "message_reaction_count", {"chat": CHANNEL, "message_id": 1, "date": 1_700_000_000, "reactions": []}
    ),
    "poll": lambda: update("poll", _POLL),
}


class TelegramServer(LocalServer):
    """
    A server of the Bot API on 127.0.0.1.

    Attributes:
        calls: The methods that were called, each with its arguments.
        updates: The updates that the bot has not got yet.
    """

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[str, dict[str, Any]]] = []
        self.updates: list[Update] = []

    def sent(self, method: str) -> list[dict[str, Any]]:
        """Return the arguments of the calls of a method."""
        return [arguments for name, arguments in self.calls if name == method]

    async def handle(self, request: web.Request) -> web.Response:
        """Respond to a call of a method."""
        method = request.path.rpartition("/")[2]
        arguments = {name: _decoded(value) for name, value in (await request.post()).items()}
        if method != "getUpdates":
            self.calls.append((method, arguments))
        result = await self._result(method, arguments)
        return web.json_response({"ok": True, "result": result})

    async def _result(self, method: str, arguments: dict[str, Any]) -> Any:
        if method == "getMe":
            return BOT
        if method == "getUpdates":
            return await self._next_updates(int(arguments.get("offset") or 0))
        if method == "sendMessage":
            return message(BOT, str(arguments["text"]), chat={"id": arguments["chat_id"], "type": "private"})
        return True

    async def _next_updates(self, offset: int) -> list[Update]:
        self.updates = [each for each in self.updates if each["update_id"] >= offset]
        if not self.updates:
            await asyncio.sleep(0.02)
        return self.updates


def _decoded(value: object) -> Any:
    try:
        return json.loads(str(value))
    except ValueError:
        return value
