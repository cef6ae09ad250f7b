"""
Messages of the app inbox, and a client that fetches them from a sandbox.
"""

from collections.abc import Mapping
from typing import Any

from exponea_async import Exponea
from exponea_async.features.inbox.service import Inbox
from exponea_async.messages import AppInboxMessage
from exponea_async.sandbox import Sandbox
from exponea_async.sandbox.models import RequestLog
from helpers.app import App
from helpers.internals import devices_of, feature_of
from helpers.token_provider import BlockingTokenProvider

FETCH, MARK_AS_READ = "/appinbox/fetch", "/appinbox/markasread"


def push(id_: str = "m1", created: float | None = 5.0, **content: Any) -> dict[str, Any]:
    """Return a message of type push, as the platform sends it."""
    content = {"title": "Hello", "message": "World", "attributes": {"campaign_id": "c1"}, **content}
    return {"id": id_, "type": "push", "create_time": created, "content": content}


def html(id_: str = "h1", created: float | None = 7.0, source: str = "<p>News</p>", **content: Any) -> dict[str, Any]:
    """Return a message of type HTML, as the platform sends it."""
    content = {"title": "News", "pre_header": "Short", "message": source, **content}
    return {"id": id_, "type": "html", "create_time": created, "content": content}


def ids_of(messages: list[AppInboxMessage]) -> list[str]:
    """Return the ids of messages, in order."""
    return [message.id for message in messages]


class InboxFixture:
    """
    A client that fetches messages, and the sandbox that returns them.

    Args:
        app: The application that runs the client.
        sandbox: The sandbox.

    Attributes:
        provider: A token provider that blocks requests, for clients that are configured with it.
    """

    def __init__(self, app: App, sandbox: Sandbox) -> None:
        self.app = app
        self.sandbox = sandbox
        self.provider = BlockingTokenProvider()

    @property
    def client(self) -> Exponea:
        """The running client."""
        return self.app.client

    @property
    def service(self) -> Inbox:
        """The client's instance of the feature."""
        return feature_of(self.client, Inbox)

    def requests(self, path: str = FETCH) -> list[RequestLog]:
        """Return the requests so far whose path has this end."""
        return [each for each in self.sandbox.requests if each.path.endswith(path)]

    def bodies(self, path: str = FETCH) -> list[Mapping[str, Any]]:
        """Return the bodies of these requests."""
        return [each.body for each in self.requests(path) if each.body is not None]

    def put(self, *messages: Any, check: bool = True) -> None:
        """Add messages for every customer to the sandbox."""
        self.sandbox.messages.inbox.put(*messages, check=check)

    async def fetch(self) -> list[AppInboxMessage]:
        """Fetch the messages of the default device."""
        return await self.client.fetch_app_inbox()

    async def fetched(self, message: dict[str, Any]) -> AppInboxMessage:
        """Add a message to the sandbox and fetch it."""
        self.put(message)
        return next(each for each in await self.fetch() if each.id == message["id"])

    async def callers_wait(self) -> None:
        """Wait until earlier calls about the default device wait for the response."""
        for _ in range(5):
            # They take the lock of the device's state in order, as this call does.
            await self.client.get_customer_cookie()

    async def stored(self) -> bytes | None:
        """Return the stored mailbox of the default device."""
        return await devices_of(self.client).load_data("inbox:@default")
