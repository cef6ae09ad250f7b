"""
What the tests of in-app messages share: messages, and a phone whose host shows them, beside a platform.
"""

import asyncio
import gc
from collections.abc import Mapping
from typing import Any

import pytest
from helpers.app import Kept, Phone

from exponea_async import Event, Exponea
from exponea_async._internal.streams import Subscription
from exponea_async.features.in_app.verbs import InAppMessages
from exponea_async.messages import InAppMessage, InAppMessageAction
from exponea_async.sandbox import Sandbox
from exponea_async.testing import idle, received

PATH = "/inappmessages"


def upon(event_type: str, *conditions: Mapping[str, Any]) -> dict[str, Any]:
    """Make a trigger."""
    return {"event_type": event_type, "filter": list(conditions)}


def has(name: str, operator: str, *operands: str, kind: str = "string") -> dict[str, Any]:
    """Make a condition of a trigger."""
    return {
        "attribute": {"type": "property", "property": name},
        "constraint": {
            "type": kind,
            "operator": operator,
            "operands": [{"type": "constant", "value": each} for each in operands],
        },
    }


def message(id_: str = "m", event: str = "x", **fields: Any) -> dict[str, Any]:
    """Make a message upon an event, as the platform tells it."""
    return {
        "id": id_,
        "name": f"Message {id_}",
        "message_type": "modal",
        "frequency": "always",
        "payload": {
            "title": "Still thinking?",
            "body_text": "Your basket waits",
            "buttons": [
                {"button_type": "deep-link", "button_text": "Open", "button_link": "app://cart"},
                {"button_type": "cancel", "button_text": "No"},
            ],
        },
        "variant_id": 0,
        "variant_name": "A",
        "trigger": upon(event),
        "date_filter": {"enabled": False},
        **fields,
    }


def page(id_: str = "m", event: str = "x", source: str = "<p>Sale</p>", **fields: Any) -> dict[str, Any]:
    """Make a message of HTML."""
    return message(id_, event, message_type="freeform", payload=None, payload_html=source, is_html=True, **fields)


def ids_of(messages: list[InAppMessage]) -> list[str]:
    """Tell the ids of messages, in order."""
    return [each.id for each in messages]


class World:
    """
    A phone whose host shows messages, and the platform that it speaks to.

    Args:
        phone: The phone.
        sandbox: The platform.
        monkeypatch: Holds calls.
    """

    def __init__(self, phone: Phone, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
        self.phone = phone
        self.sandbox = sandbox
        self.monkeypatch = monkeypatch
        self.messages: Subscription[InAppMessage]
        self._gate = asyncio.Event()
        self._gate.set()

    # The platform

    def put(self, *messages: Any, check: bool = True, to: Mapping[str, Any] | None = None) -> None:
        """Let the platform have messages."""
        self.sandbox.messages.in_app_messages.put(*messages, check=check, to=to)

    @property
    def fetches(self) -> int:
        """How often messages were asked for."""
        return len(self.bodies())

    def bodies(self) -> list[Any]:
        """Tell what was asked so far."""
        return [each.body for each in self.sandbox.requests if each.path.endswith(PATH)]

    # The phone

    @property
    def client(self) -> Exponea:
        """The client that runs now."""
        return self.phone.client

    @property
    def part(self) -> InAppMessages:
        """What the client keeps of messages."""
        return self.client._features[InAppMessages]

    async def start(self, *messages: Any, listen: bool = True, **settings: Any) -> Exponea:
        """Start a client, whose host listens, and which tracks no sessions of its own accord."""
        self.put(*messages)
        client = await self.phone.start(**{"automatic_session_tracking": False, **settings})
        ask = client._devices.api.request

        async def held(*args: Any, **options: Any) -> bytes:
            await self._gate.wait()
            return await ask(*args, **options)

        self.monkeypatch.setattr(client._devices.api, "request", held)
        if listen:
            self.messages = client.in_app_messages()
        return client

    def hold(self) -> None:
        """Let no call reach the platform before `release`."""
        self._gate.clear()

    async def release(self) -> None:
        """Let calls reach the platform."""
        self._gate.set()
        await self.rest()

    async def track(self, name: str = "x", /, timestamp: float | None = None, **properties: Any) -> list[str]:
        """Track something with the default device, and tell the ids of what is shown then."""
        await self.client.track_event(Event(name, properties, timestamp))
        return await self.shown()

    async def shown(self) -> list[str]:
        """Tell the ids of what was handed out since it was asked last, once all is quiet."""
        return ids_of(await self.given())

    async def given(self) -> list[InAppMessage]:
        """Tell what was handed out since it was asked last, once all is quiet."""
        await self.rest()
        return taken(self.messages)

    async def first(self, name: str = "x", **properties: Any) -> InAppMessage:
        """Track something with the default device, and tell the one message that is shown."""
        await self.client.track_event(Event(name, properties))
        (given,) = await self.given()
        return given

    async def rest(self) -> None:
        """Wait until nothing goes on but what waits for somebody else."""
        await idle(self.client)

    async def banners(self, *actions: str) -> list[Kept]:
        """Tell the banner events that wait; all, or those of some actions."""
        return [each for each in await self.phone.kept("banner") if not actions or each.properties["action"] in actions]

    async def told(self) -> list[str]:
        """Tell the actions of the banner events that wait, in order."""
        return [each.properties["action"] for each in await self.banners()]


def taken(listener: Subscription[Any]) -> list[Any]:
    """Take what a listener has heard."""
    return received(listener)


def types(listener: Subscription[InAppMessageAction]) -> list[str]:
    """Take what a listener has heard of actions, and tell their types."""
    return [each.type for each in taken(listener)]


async def gone() -> None:
    """Let what nobody holds any more be freed."""
    await asyncio.sleep(0)
    gc.collect()
