"""
A client of the sandbox's control routes, and a reader of its live stream.
"""

import io
import json
from collections.abc import AsyncGenerator
from typing import Any

import aiohttp
from attrs import frozen

#: The path of the batches of the project "shop".
BATCH = "/track/v2/projects/shop/batch"


@frozen
class Message:
    """
    A message of the stream.

    Attributes:
        event: Its kind; empty for a comment.
        data: The decoded data.
        id: The id, or an empty string.
    """

    event: str
    data: Any
    id: str = ""


@frozen
class Page:
    """
    The control routes of a sandbox.

    Attributes:
        session: The HTTP session.
        url: The base URL of the sandbox.
    """

    session: aiohttp.ClientSession
    url: str

    async def get(self, path: str, status: int = 200, **headers: str) -> Any:
        """Return the decoded response to a GET of a control route, which has to have a status."""
        return await self.send("GET", path, status, headers=headers)

    async def send(self, method: str, path: str, status: int = 200, **options: Any) -> Any:
        """Return the decoded response to a request to a control route, which has to have a status."""
        async with self.session.request(method, f"{self.url}/sandbox/{path}", **options) as response:
            body = await response.json()
            assert response.status == status, body
            return body

    async def send_commands(self, *commands: Any, project: str = "shop") -> Any:
        """Send commands in one batch; return the results."""
        path = f"{self.url}/track/v2/projects/{project}/batch"
        headers = {"Authorization": "Token hidden-key", "Content-Type": "application/json"}
        # aiohttp warns of large bodies that are bytes.
        body = io.BytesIO(json.dumps({"commands": commands}).encode())
        async with self.session.post(path, data=body, headers=headers) as response:
            assert response.status == 200
            return (await response.json())["results"]

    async def messages(self, after: str | int | None = None, last_id: str = "") -> AsyncGenerator[Message, None]:
        """Iterate over the messages of the live stream until it ends."""
        query = "" if after is None else f"?after={after}"
        headers = {"Last-Event-ID": last_id} if last_id else {}
        async with self.session.get(f"{self.url}/sandbox/stream{query}", headers=headers) as response:
            assert response.status == 200
            while block := await _block(response.content):
                yield _message(block)


async def _block(content: aiohttp.StreamReader) -> str:
    lines = []
    while line := await content.readuntil(b"\n"):
        if line == b"\n":
            break
        lines.append(line.decode())
    return "".join(lines)


def _message(block: str) -> Message:
    fields = dict(line.partition(": ")[::2] for line in block.splitlines())
    return Message(fields.get("event", ""), json.loads(fields.get("data", "null")), fields.get("id", ""))


def event(ids: dict[str, Any], event_type: str = "ping", **fields: Any) -> dict[str, Any]:
    """Return a command that tracks an event."""
    return {"name": "customers/events", "data": {"customer_ids": ids, "event_type": event_type, **fields}}


def update(ids: dict[str, Any], at: float | None = None, **properties: Any) -> dict[str, Any]:
    """Return a command that updates a customer."""
    return {
        "name": "customers",
        "data": {"customer_ids": ids, "properties": properties, "update_timestamp": at},
    }
