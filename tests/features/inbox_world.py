"""
What the tests of the app inbox share: messages, a phone beside a platform, and a provider of tokens that waits.
"""

import asyncio
from collections.abc import Mapping
from typing import Any

from helpers.app import Phone

from exponea_async import Exponea
from exponea_async.messages import AppInboxMessage
from exponea_async.sandbox import RequestLog, Sandbox

FETCH, MARK_AS_READ = "/appinbox/fetch", "/appinbox/markasread"


def push(id_: str = "m1", created: float | None = 5.0, **content: Any) -> dict[str, Any]:
    """Make a message of the type of push notifications, as the platform tells it."""
    told = {"title": "Hello", "message": "World", "attributes": {"campaign_id": "c1"}, **content}
    return {"id": id_, "type": "push", "create_time": created, "content": told}


def html(id_: str = "h1", created: float | None = 7.0, source: str = "<p>News</p>", **content: Any) -> dict[str, Any]:
    """Make a message of HTML, as the platform tells it."""
    told = {"title": "News", "pre_header": "Short", "message": source, **content}
    return {"id": id_, "type": "html", "create_time": created, "content": told}


def ids_of(messages: list[AppInboxMessage]) -> list[str]:
    """Tell the ids of messages, in order."""
    return [message.id for message in messages]


class Gate:
    """
    A provider of customers' tokens that gives none before it is opened, so that a test decides how long a call lasts.

    Attributes:
        calls: How many calls have come.
    """

    def __init__(self) -> None:
        self.calls = 0
        self._is_open = asyncio.Event()
        self._arrived = asyncio.Event()

    async def __call__(self) -> str:
        """Wait, and give a token."""
        self.calls += 1
        self._arrived.set()
        await self._is_open.wait()
        return "token"

    def open(self) -> None:
        """Let all pass."""
        self._is_open.set()

    def close(self) -> None:
        """Let nobody pass any more."""
        self._is_open.clear()
        self._arrived.clear()

    async def reached(self) -> None:
        """Wait until somebody stands before it."""
        await self._arrived.wait()


class World:
    """
    A phone, and the platform that it speaks to.

    Args:
        phone: The phone.
        sandbox: The platform.

    Attributes:
        gate: Gives tokens of customers, for settings that want it.
    """

    def __init__(self, phone: Phone, sandbox: Sandbox) -> None:
        self.phone = phone
        self.sandbox = sandbox
        self.gate = Gate()

    @property
    def client(self) -> Exponea:
        """The client that runs now."""
        return self.phone.client

    def asked(self, path: str = FETCH) -> list[RequestLog]:
        """Tell the requests so far of a path's end."""
        return [each for each in self.sandbox.requests if each.path.endswith(path)]

    def bodies(self, path: str = FETCH) -> list[Mapping[str, Any]]:
        """Tell what was asked so far."""
        return [each.body for each in self.asked(path) if each.body is not None]

    def put(self, *messages: Any, check: bool = True) -> None:
        """Let the platform have messages for everybody."""
        self.sandbox.messages.inbox.put(*messages, check=check)

    async def fetch(self) -> list[AppInboxMessage]:
        """Fetch with the default device."""
        return await self.client.fetch_app_inbox()

    async def fetched(self, message: dict[str, Any]) -> AppInboxMessage:
        """Put a message and fetch it."""
        self.put(message)
        return next(each for each in await self.fetch() if each.id == message["id"])

    async def all_wait(self) -> None:
        """Let all who asked about the default device before come to where they wait for an answer."""
        for _ in range(5):
            # They stand in one line for the device's state, as this does.
            await self.client.get_customer_cookie()
