"""
In-app messages, and a client that shows them, behind a gateway that holds its requests.
"""

import asyncio
import gc
from collections.abc import AsyncIterator, Mapping
from typing import Any

import pytest

from exponea_async import Event, Exponea
from exponea_async._internal.streams import Subscription
from exponea_async.devices.impressions import Impression
from exponea_async.features.in_app.service import InAppMessages
from exponea_async.features.in_app.stored import NAME
from exponea_async.messages import InAppMessage, InAppMessageAction
from exponea_async.sandbox import Sandbox
from exponea_async.testing import idle, received
from helpers.app import App, PendingRecord
from helpers.gateway import Gateway
from helpers.internals import device_context, devices_of, feature_of

PATH = "/inappmessages"


def trigger(event_type: str, *conditions: Mapping[str, Any]) -> dict[str, Any]:
    """Return a trigger."""
    return {"event_type": event_type, "filter": list(conditions)}


def condition(name: str, operator: str, *operands: str, kind: str = "string") -> dict[str, Any]:
    """Return a condition of a trigger."""
    return {
        "attribute": {"type": "property", "property": name},
        "constraint": {
            "type": kind,
            "operator": operator,
            "operands": [{"type": "constant", "value": each} for each in operands],
        },
    }


def message(id_: str = "m", event: str = "x", **fields: Any) -> dict[str, Any]:
    """Return a message for events of a type, as the platform sends it."""
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
        "trigger": trigger(event),
        "date_filter": {"enabled": False},
        **fields,
    }


def html_message(id_: str = "m", event: str = "x", source: str = "<p>Sale</p>", **fields: Any) -> dict[str, Any]:
    """Return a message with HTML."""
    return message(id_, event, message_type="freeform", payload=None, payload_html=source, is_html=True, **fields)


def ids_of(messages: list[InAppMessage]) -> list[str]:
    """Return the ids of messages, in order."""
    return [each.id for each in messages]


def types_of(actions: Subscription[InAppMessageAction]) -> list[str]:
    """Take the actions that a subscription has received, and return their types."""
    return [each.type for each in received(actions)]


async def collect_garbage() -> None:
    """Free what is not referenced any more."""
    await asyncio.sleep(0)
    gc.collect()


class InAppFixture:
    """
    A client whose application shows messages, and the sandbox that returns them.

    Args:
        app: The application that runs the client.
        sandbox: The sandbox.
        gateway: The gateway between them.

    Attributes:
        messages: The subscription to messages, after a client was started.
    """

    def __init__(self, app: App, sandbox: Sandbox, gateway: Gateway) -> None:
        self.app = app
        self.sandbox = sandbox
        self.gateway = gateway
        self.messages: Subscription[InAppMessage]

    # The sandbox

    def put(self, *messages: Any, check: bool = True, to: Mapping[str, Any] | None = None) -> None:
        """Add messages for every customer, or for some, to the sandbox."""
        self.sandbox.messages.in_app_messages.put(*messages, check=check, to=to)

    @property
    def loads(self) -> int:
        """The number of requests for messages so far."""
        return len(self.bodies())

    def bodies(self) -> list[Any]:
        """Return the bodies of these requests."""
        return [each.body for each in self.sandbox.requests if each.path.endswith(PATH)]

    def hold(self, *, responses: bool = False) -> None:
        """Hold requests for messages, or their responses, until `release`."""
        self.gateway.hold(f"{PATH}$", responses=responses)

    @property
    def held(self) -> int:
        """The number of requests that were held since the last `hold`."""
        return len(self.gateway.held)

    async def release(self) -> None:
        """Forward what is held, and wait for all that follows."""
        self.gateway.release()
        await self.idle()

    # The client

    @property
    def client(self) -> Exponea:
        """The client that was started last."""
        return self.app.client

    @property
    def service(self) -> InAppMessages:
        """The client's instance of the feature."""
        return feature_of(self.client, InAppMessages)

    async def start(self, *messages: Any, listen: bool = True, **settings: Any) -> Exponea:
        """Start a client without automatic sessions, with a subscription to messages."""
        self.put(*messages)
        return await self._started(await self.app.start(**self._settings(settings)), listen=listen)

    async def restart(self, **settings: Any) -> Exponea:
        """Close the client and start another one."""
        return await self._started(await self.app.restart(**self._settings(settings)), listen=True)

    def _settings(self, settings: Mapping[str, Any]) -> dict[str, Any]:
        return {"automatic_session_tracking": False, "base_url": self.gateway.url, **settings}

    async def _started(self, client: Exponea, *, listen: bool) -> Exponea:
        # A slow machine must not make events stop waiting for the upload of an identification.
        self.service.max_upload_wait = 3600.0
        if listen:
            self.messages = client.in_app_messages()
        return client

    async def idle(self) -> None:
        """Wait until only tasks that wait for uploads are left."""
        await idle(self.client, timeout=60)

    # Messages

    async def track(self, name: str = "x", /, timestamp: float | None = None, **properties: Any) -> list[str]:
        """Track an event of the default device, and return the ids of the messages that are shown then."""
        await self.client.track_event(Event(name, properties, timestamp))
        return await self.shown()

    async def shown(self) -> list[str]:
        """Wait until the client is idle, and return the ids of the messages that were shown since the last call."""
        return ids_of(await self.received())

    async def received(self) -> list[InAppMessage]:
        """Wait until the client is idle, and return the messages that were shown since the last call."""
        await self.idle()
        return received(self.messages)

    async def first(self, name: str = "x", **properties: Any) -> InAppMessage:
        """Track an event of the default device, and return the only message that is shown."""
        await self.client.track_event(Event(name, properties))
        (only,) = await self.received()
        return only

    # What is tracked and stored

    async def banners(self, *actions: str) -> list[PendingRecord]:
        """Return the banner events in the queue; all, or those with some actions."""
        return [
            each for each in await self.app.pending("banner") if not actions or each.properties["action"] in actions
        ]

    async def actions(self) -> list[str]:
        """Return the actions of the banner events in the queue, in order."""
        return [each.properties["action"] for each in await self.banners()]

    async def impressions(self) -> Mapping[str, Impression]:
        """Return what the default device remembers of messages, by id."""
        state = await device_context(self.client).load_state()
        assert state is not None
        return state.messages

    async def stored(self) -> bytes | None:
        """Return the stored messages of the default device."""
        return await devices_of(self.client).load_data(f"{NAME}:@default")

    async def store(self, data: bytes | None) -> None:
        """Replace the stored messages of the default device."""
        await devices_of(self.client).save_data(f"{NAME}:@default", data)


@pytest.fixture
async def in_app(app: App, sandbox: Sandbox) -> AsyncIterator[InAppFixture]:
    """Return in-app messages behind a gateway."""
    async with Gateway(sandbox.url) as gateway:
        yield InAppFixture(app, sandbox, gateway)
