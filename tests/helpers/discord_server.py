"""
A local stand-in for Discord: its gateway and its API.
"""

import asyncio
import json
import socket
import ssl
from itertools import count
from typing import Any, Self

import aiohttp
import discord
import trustme
from aiohttp import web
from aiohttp.abc import AbstractResolver, ResolveResult

from helpers.local_server import LocalServer

TOKEN = "token"
BOT = {"id": "42", "username": "shop", "discriminator": "0", "avatar": None, "bot": True}
GUILD, CHANNEL = "100", "200"

_numbers = count(1000)


def _next_id() -> str:
    return str(next(_numbers) << 22)


def user(number: int, **fields: Any) -> dict[str, Any]:
    usual: dict[str, Any] = {
        "id": str(number),
        "username": f"user{number}",
        "discriminator": "0",
        "avatar": None,
        "global_name": None,
    }
    return {**usual, **fields}


def member(**fields: Any) -> dict[str, Any]:
    times = {"joined_at": "2026-01-01T00:00:00+00:00", "premium_since": None}
    return {"roles": [], "nick": None, "avatar": None, "deaf": False, "mute": False, "flags": 0, **times, **fields}


def message(author: dict[str, Any], text: str, **fields: Any) -> dict[str, Any]:
    """Return a message in the channel of the guild."""
    usual: dict[str, Any] = {
        "id": _next_id(),
        "channel_id": CHANNEL,
        "guild_id": GUILD,
        "author": author,
        "member": member(),
        "content": text,
        "timestamp": "2026-01-01T00:00:00+00:00",
        "edited_timestamp": None,
        "tts": False,
        "mention_everyone": False,
        "mentions": [],
        "mention_roles": [],
        "attachments": [],
        "embeds": [],
        "pinned": False,
        "type": 0,
        "flags": 0,
    }
    return {**usual, **fields}


def interaction(kind: int, number: int, data: dict[str, Any], **fields: Any) -> dict[str, Any]:
    """Return an interaction of a user with the bot."""
    usual: dict[str, Any] = {
        "id": _next_id(),
        "application_id": BOT["id"],
        "type": kind,
        "data": data,
        "guild_id": GUILD,
        "channel_id": CHANNEL,
        "channel": {"id": CHANNEL, "type": 0, "name": "shop", "position": 0, "permission_overwrites": []},
        "member": member(user=user(number), permissions="0"),
        "token": f"interaction-{number}",
        "version": 1,
        "locale": "en-US",
        "guild_locale": "en-US",
        "app_permissions": "0",
        "attachment_size_limit": 0,
        "entitlements": [],
        "entitlement_sku_ids": [],
        "authorizing_integration_owners": {},
        "context": 0,
    }
    return {**usual, **fields}


def command(number: int, name: str, **data: Any) -> dict[str, Any]:
    """Return the command of a user."""
    return interaction(2, number, {"id": "1", "name": name, "type": 1, "options": [], **data})


def click(number: int, custom_id: str, shown: dict[str, Any] | None = None) -> dict[str, Any]:
    """Return the click of a user on a button of a message of the bot."""
    shown = shown or message(BOT, "Choose")
    return interaction(3, number, {"custom_id": custom_id, "component_type": 2}, message=shown)


def submission(number: int, custom_id: str) -> dict[str, Any]:
    """Return a modal that a user has filled in."""
    return interaction(5, number, {"custom_id": custom_id, "components": []})


class LoopbackResolver(AbstractResolver):
    """Resolves each name to a port of 127.0.0.1."""

    def __init__(self, port: int) -> None:
        self._port = port

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """Resolve a name."""
        return [
            ResolveResult(hostname=host, host="127.0.0.1", port=self._port, family=socket.AF_INET, proto=0, flags=0)
        ]

    async def close(self) -> None:
        """Do nothing."""


class DiscordServer(LocalServer):
    """
    A server on 127.0.0.1 that a bot takes for Discord, if it has the connector of this server.

    Attributes:
        calls: The calls of the API: method, path and body.
        answers: The messages with which the bot has answered interactions.
        is_identified: Set when the bot is connected to the gateway.
    """

    def __init__(self) -> None:
        super().__init__()
        # An older one ignores the connector, and so would connect to Discord itself.
        assert discord.version_info[:2] >= (2, 5)
        authority = trustme.CA()
        self.tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        authority.issue_cert("discord.com", "gateway.discord.gg").configure_cert(self.tls)
        self._trust = ssl.create_default_context()
        authority.configure_trust(self._trust)
        self.calls: list[tuple[str, str, Any]] = []
        self.answers: list[dict[str, Any]] = []
        self.is_identified = asyncio.Event()
        self._sequence = count(1)
        self._socket: web.WebSocketResponse | None = None

    async def __aenter__(self) -> Self:
        await super().__aenter__()
        port = int(self.url.rpartition(":")[2])
        self.connector = aiohttp.TCPConnector(resolver=LoopbackResolver(port), ssl=self._trust)
        return self

    def sent(self, path: str) -> list[Any]:
        """Return the bodies of the calls whose path has this end."""
        return [body for method, each, body in self.calls if each.endswith(path) and method != "GET"]

    async def dispatch(self, event: str, data: dict[str, Any]) -> None:
        """Send an event to the bot."""
        assert self._socket is not None
        await self._socket.send_json({"op": 0, "t": event, "s": next(self._sequence), "d": data})

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Respond to a request."""
        if "websocket" in request.headers.get("Upgrade", ""):
            return await self._connect(request)
        text = await request.text()
        body = json.loads(text) if text.startswith("{") else text
        self.calls.append((request.method, request.path, body))
        result = json.dumps(self._result(request.path, body)).encode()
        # Without a charset, as the library expects it.
        return web.Response(body=result, headers={"Content-Type": "application/json"})

    def _result(self, path: str, body: Any) -> Any:
        if path.endswith("/users/@me"):
            return BOT
        if path.endswith("/applications/@me"):
            return {"id": BOT["id"], "name": "shop", "description": "", "icon": None, "flags": 0, "owner": user(1)} | {
                "bot_public": True,
                "bot_require_code_grant": False,
                "verify_key": "",
                "team": None,
                "rpc_origins": [],
            }
        if path.endswith("/callback"):
            return self._answer(path, body)
        if path.endswith("/messages"):
            return message(BOT, str(body.get("content", "")))
        return {}

    def _answer(self, path: str, body: Any) -> dict[str, Any]:
        answer: dict[str, Any] = {"id": _next_id(), "type": 2}
        if body["type"] != 4:
            return {"interaction": answer}
        _, answered, token, _ = path.rsplit("/", 3)
        author = user(int(token.removeprefix("interaction-")))
        origin = {"id": answered, "type": 2, "user": author, "authorizing_integration_owners": {}}
        shown = message(BOT, body["data"]["content"], interaction_metadata=origin)
        self.answers.append(shown)
        return {
            "interaction": {**answer, "response_message_id": shown["id"]},
            "resource": {"type": 4, "message": shown},
        }

    async def _connect(self, request: web.Request) -> web.WebSocketResponse:
        self._socket = gateway = web.WebSocketResponse()
        await gateway.prepare(request)
        await gateway.send_json({"op": 10, "d": {"heartbeat_interval": 40_000}})
        async for each in gateway:
            operation = json.loads(each.data)["op"]
            if operation == 1:
                await gateway.send_json({"op": 11})
            elif operation == 2:
                await self._welcome()
        return gateway

    async def _welcome(self) -> None:
        application = {"id": BOT["id"], "flags": 0}
        ready = {"v": 10, "user": BOT, "guilds": [{"id": GUILD, "unavailable": True}], "application": application}
        await self.dispatch(
            "READY", {**ready, "session_id": "1", "resume_gateway_url": "wss://gateway.discord.gg", "shard": [0, 1]}
        )
        await self.dispatch("GUILD_CREATE", _guild())
        self.is_identified.set()


def _guild() -> dict[str, Any]:
    everyone = {"id": GUILD, "name": "@everyone", "permissions": "0", "position": 0, "color": 0, "hoist": False}
    role = everyone | {"managed": False, "mentionable": False, "flags": 0}
    channel = {"id": CHANNEL, "type": 0, "name": "shop", "position": 0, "permission_overwrites": [], "parent_id": None}
    members = [member(user=user(number)) for number in (7, 8)]
    lists: dict[str, list[Any]] = {
        name: []
        for name in (
            *("emojis", "stickers", "threads", "voice_states", "presences", "stage_instances"),
            *("guild_scheduled_events", "features", "soundboard_sounds"),
        )
    }
    levels = ("verification_level", "default_message_notifications", "explicit_content_filter", "mfa_level")
    return {
        "id": GUILD,
        "name": "Shoppers",
        "owner_id": "7",
        "roles": [role],
        "channels": [channel],
        "members": members,
        "member_count": 2,
        "large": False,
        "unavailable": False,
        "afk_timeout": 0,
        "afk_channel_id": None,
        "system_channel_id": None,
        "system_channel_flags": 0,
        "premium_tier": 0,
        "nsfw_level": 0,
        "preferred_locale": "en-US",
        "joined_at": "2026-01-01T00:00:00+00:00",
        "icon": None,
        **dict.fromkeys(levels, 0),
        **lists,
    }
