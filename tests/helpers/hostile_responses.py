"""
The calls that request something from the platform, each with good responses, for tests with hostile ones.
"""

import json
import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import attrs
import pytest
from aiohttp import web
from attrs import frozen

from exponea_async import Customer, Device, Event, Exponea
from exponea_async.features.content_blocks.service import ContentBlocks
from exponea_async.features.in_app.service import InAppMessages
from exponea_async.features.inbox.service import Inbox
from exponea_async.features.segments.service import Segments
from exponea_async.messages import RecommendationOptions
from exponea_async.sandbox import Sandbox
from helpers.clients import Connect
from helpers.internals import feature_of
from helpers.local_server import LocalServer

#: What must never be logged: the project's key, customers' tokens and ids, and the content of messages.
KEY, TOKEN, CUSTOMER, CONTENT = "s3cretkey", "s3crettoken", "s3cretcustomer", "s3cretcontent"
SECRETS = (KEY, TOKEN, CUSTOMER, CONTENT)
#: Maximum time for which the event loop may be blocked, in seconds: far more than usual, because machines may be busy.
MAX_GAP = 2.0
#: Maximum number of log lines for one response.
MAX_LINES = 12
#: The number of attributes that are requested at once.
MANY = 100


class HostileFixture:
    """
    A client of a sandbox, whose devices are used once each.

    Attributes:
        returned: The values that calls have returned.
        fixed_device: The device that is used instead of new ones, or None.
    """

    def __init__(self, client: Exponea, sandbox: Sandbox) -> None:
        self.client = client
        self.sandbox = sandbox
        self.returned: list[Any] = []
        self.fixed_device: Device | None = None
        self._count = 0

    async def device(self) -> Device:
        """Return a device of a new customer, or the fixed one."""
        for feature in (InAppMessages, ContentBlocks, Inbox, Segments):
            feature_of(self.client, feature).clear()
        if self.fixed_device is not None:
            return self.fixed_device
        self._count += 1
        device = self.client.device(f"device-{self._count}")
        await device.identify_customer(Customer({"registered": f"{CUSTOMER}{self._count}"}))
        return device


async def hostile_fixture(connect: Connect, sandbox: Sandbox, **settings: Any) -> HostileFixture:
    """Start a client with secrets in its settings."""

    async def provide() -> str:
        return TOKEN

    usual: dict[str, Any] = {
        "authorization_token": KEY,
        "customer_token_provider": provide,
        "automatic_session_tracking": False,
        "upload": {"backoff_initial": 0.001, "backoff_max": 0.002, **settings.pop("upload", {})},
    }
    return HostileFixture(await connect(**usual, **settings), sandbox)


class ScriptedPlatform(LocalServer):
    """A platform that accepts events, and responds to other requests by a script; an async context manager."""

    def __init__(self, respond: Callable[[web.Request], Awaitable[web.StreamResponse]]) -> None:
        self.respond = respond
        self.requests: list[web.Request] = []
        super().__init__()

    async def handle(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        if not request.path.startswith("/track"):
            self.requests.append(request)
            return await self.respond(request)
        results = [{"command_id": each["command_id"], "success": True} for each in json.loads(body)["commands"]]
        return web.json_response({"success": True, "results": results})


def check_log(caplog: pytest.LogCaptureFixture, lines: int = MAX_LINES, *, case: str = "") -> None:
    """Check that few lines were logged since the last check, without a secret in them."""
    records = [each for each in caplog.records if each.levelno >= logging.WARNING]
    logged = "\n".join(logging.Formatter().format(each) for each in records)
    assert not [secret for secret in SECRETS if secret in logged], f"{case}: {logged}"
    assert len(records) <= lines, f"{case}: {logged[:2000]}"
    assert not [each for each in records if each.levelno >= logging.ERROR], f"{case}: {logged[:2000]}"
    caplog.clear()


Call = Callable[[HostileFixture, Sequence[str]], Awaitable[list[str]]]


@frozen
class Surface:
    """
    A call that requests something from the platform.

    Attributes:
        route: The route of the sandbox.
        element: Returns a good element with an id.
        envelope: Returns a response with elements that are JSON already.
        call: Sends a request, or one for each id, and returns the ids of the results.
        raises_nothing: Whether it raises nothing, whatever the response is.
        prepare: Adds what else is needed to the sandbox.
    """

    route: Any
    element: Callable[[str], dict[str, Any]]
    envelope: Callable[[Iterable[str]], str]
    call: Call
    raises_nothing: bool = False
    prepare: Callable[[HostileFixture, Sequence[str]], None] = lambda hostile, ids: None

    def body(self, *elements: Any) -> str:
        """Return a response with elements; a string is JSON already."""
        return self.envelope(each if isinstance(each, str) else json.dumps(each) for each in elements)


def _list_envelope(name: str) -> Callable[[Iterable[str]], str]:
    return lambda elements: f'{{"success": true, "{name}": [{",".join(elements)}]}}'


def _in_app(id_: str) -> dict[str, Any]:
    return {
        "id": id_,
        "name": f"Message {id_}",
        "message_type": "modal",
        "frequency": "always",
        "payload": {
            "title": CONTENT,
            "body_text": CONTENT,
            "image_url": "https://s.example/a.png",
            "buttons": [{"button_type": "deep-link", "button_text": CONTENT, "button_link": "app://cart"}],
        },
        "payload_html": f"<p>{CONTENT}</p>",
        "is_html": False,
        "is_rich_text": True,
        "variant_id": 0,
        "variant_name": "A",
        "trigger": {
            "event_type": f"on {id_}",
            "filter": [
                {
                    "attribute": {"type": "property", "property": "a"},
                    "constraint": {"type": "string", "operator": "is not set", "operands": []},
                }
            ],
        },
        "date_filter": {"enabled": True, "from_date": 5, "to_date": 9e9},
        "load_priority": 3,
        "load_delay": 0,
        "close_timeout": 60_000,
        "has_tracking_consent": True,
        "consent_category_tracking": "news",
    }


async def _call_in_app(hostile: HostileFixture, ids: Sequence[str]) -> list[str]:
    device, found = await hostile.device(), []
    for id_ in ids:
        message = await device.in_app_message_for(Event(f"on {id_}"))
        if message is None:
            continue
        found.append(id_)
        hostile.returned.append(message)
        for button in message.buttons[:1]:
            await device.click_in_app_message(message, button)
        await device.close_in_app_message(message)
    return found


def _block(id_: str) -> dict[str, Any]:
    return {
        "id": id_,
        "name": f"Block {id_}",
        "placeholders": ["all", f"at {id_}"],
        "date_filter": {"enabled": True, "from_date": 5, "to_date": 9e9},
        "frequency": "always",
        "load_priority": 3,
        "consent_category_tracking": "news",
        "content_type": "html",
        "content": {"html": f"<p>{CONTENT} <a href='https://s.example/'>go</a></p>"},
    }


def _personal(id_: str) -> dict[str, Any]:
    return {
        "id": id_,
        "status": "OK",
        "ttl_seconds": 60,
        "has_tracking_consent": True,
        "variant_id": 3,
        "variant_name": "B",
        "content_type": "html",
        "content": {"html": f"<p>{CONTENT} <a href='https://s.example/'>go</a></p>"},
    }


async def _call_blocks(hostile: HostileFixture, ids: Sequence[str]) -> list[str]:
    device, found = await hostile.device(), []
    await device.content_block("all")
    for id_ in ids:
        block = await device.content_block(f"at {id_}")
        if block is None:
            continue
        found.append(id_)
        hostile.returned.append(block)
        for action in block.actions[:1]:
            await device.click_content_block(f"at {id_}", block, action)
        await device.close_content_block(f"at {id_}", block)
    return found


def _personal_blocks(hostile: HostileFixture, ids: Sequence[str]) -> None:
    for id_ in ids:
        block = {**_block(id_), "content_type": None, "content": None, "personal": _personal(id_)}
        hostile.sandbox.messages.content_blocks.put(block)


def _inbox(id_: str) -> dict[str, Any]:
    return {
        "id": id_,
        "type": "push",
        "is_read": False,
        "create_time": 5.0,
        "content": {
            "title": CONTENT,
            "message": CONTENT,
            "image": "https://s.example/a.png",
            "action": "browser",
            "url": "https://s.example/",
            "actions": [{"action": "browser", "title": CONTENT, "url": "https://s.example/"}],
            "attributes": {"campaign_id": "c1", "sent_timestamp": 5.0, "event_type": "campaign"},
            "url_params": {"utm_campaign": "c"},
            "data": {"a": 1},
            "has_tracking_consent": True,
            "consent_category_tracking": "news",
        },
    }


async def _call_inbox(hostile: HostileFixture, _: Sequence[str]) -> list[str]:
    device = await hostile.device()
    messages = await device.fetch_app_inbox()
    hostile.returned += messages
    for message in messages[:50]:
        await device.track_app_inbox_opened(message)
        for action in message.actions[:1]:
            await device.track_app_inbox_click(action, message)
    assert [each.id for each in await device.fetch_app_inbox()] == [each.id for each in messages]
    return [message.id for message in messages]


async def _call_mark_as_read(hostile: HostileFixture, _: Sequence[str]) -> list[str]:
    device = await hostile.device()
    (message,) = await device.fetch_app_inbox()
    return ["good"] if await device.mark_app_inbox_as_read(message) else []


def _segment(id_: str) -> dict[str, Any]:
    return {"id": id_, "segmentation_id": f"s {id_}"}


async def _call_segments(hostile: HostileFixture, _: Sequence[str]) -> list[str]:
    segments = await (await hostile.device()).get_segments("discovery", force=True)
    hostile.returned += segments
    return [each["id"] for each in segments if "id" in each]


def _item(id_: str) -> dict[str, Any]:
    return {
        "item_id": id_,
        "engine_name": "e",
        "recommendation_id": "r",
        "recommendation_variant_id": "v",
        "price": {"EUR": 5, "says": CONTENT},
    }


async def _call_recommendations(hostile: HostileFixture, _: Sequence[str]) -> list[str]:
    items = await (await hostile.device()).fetch_recommendations(RecommendationOptions("e", fill_with_random=True))
    hostile.returned += items
    return [each.item_id for each in items]


async def _call_attributes(hostile: HostileFixture, _: Sequence[str]) -> list[str]:
    queries = [{"type": "property", "property": "p"}] * MANY
    attributes = await (await hostile.device()).fetch_attributes(queries)
    assert len(attributes) == MANY
    hostile.returned += attributes
    return [each.value for each in attributes if each.success]


def _consent(id_: str) -> dict[str, Any]:
    return {
        "id": id_,
        "legitimate_interest": False,
        "sources": {"crm": True, "import": False},
        "translations": {"en": {"name": CONTENT, "description": None}},
    }


async def _call_consents(hostile: HostileFixture, _: Sequence[str]) -> list[str]:
    consents = await (await hostile.device()).fetch_consents()
    hostile.returned += consents
    return [each.id for each in consents]


def _one_message(hostile: HostileFixture, _: Sequence[str]) -> None:
    hostile.sandbox.messages.inbox.put(_inbox("good"))


def _one_segment(hostile: HostileFixture, _: Sequence[str]) -> None:
    hostile.sandbox.messages.segments["discovery"].put(_segment("good"))


def _nothing(_: str) -> dict[str, Any]:
    return {}


SURFACES: Mapping[str, Surface] = {
    "in-app messages": Surface("inappmessages", _in_app, _list_envelope("results"), _call_in_app),
    "bundle": Surface("bundle", _block, _list_envelope("in_app_content_blocks"), _call_blocks, raises_nothing=True),
    "personal blocks": Surface(
        "inappcontentblocks",
        _personal,
        _list_envelope("data"),
        _call_blocks,
        raises_nothing=True,
        prepare=_personal_blocks,
    ),
    "inbox": Surface("appinbox/fetch", _inbox, _list_envelope("messages"), _call_inbox),
    "segments": Surface(
        "segments",
        _segment,
        lambda elements: f'{{"discovery": [{",".join(elements)}]}}',
        _call_segments,
        raises_nothing=True,
    ),
    "recommendations": Surface(
        "attributes",
        _item,
        lambda elements: f'{{"success": true, "results": [{{"success": true, "value": [{",".join(elements)}]}}]}}',
        _call_recommendations,
    ),
    "attributes": Surface(
        "attributes", lambda id_: {"success": True, "value": id_}, _list_envelope("results"), _call_attributes
    ),
    "consents": Surface("consents", _consent, _list_envelope("results"), _call_consents),
}
#: Calls that only report something, whose responses contain no elements.
REPORTS: Mapping[str, Surface] = {
    "mark as read": Surface(
        "appinbox/markasread",
        _nothing,
        _list_envelope("results"),
        _call_mark_as_read,
        raises_nothing=True,
        prepare=_one_message,
    ),
    "link ids": Surface(
        "link-ids", _nothing, _list_envelope("results"), _call_segments, raises_nothing=True, prepare=_one_segment
    ),
}


EVERYTHING: Mapping[str, Surface] = {**SURFACES, **REPORTS}


def wrong_attribute(value: Any, kind: type) -> str | None:
    """Return the attribute of a public value that is of a wrong type, or None."""
    if kind is dict:
        fine = all(isinstance(name, str) and isinstance(each, str) for name, each in value.items())
        return None if fine else repr(value)
    hints = get_type_hints(kind)
    for each in attrs.fields(kind):
        if not is_of_type(getattr(value, each.name), hints[each.name]):
            return f"{each.name} = {getattr(value, each.name)!r:.80}"
    return None


def is_of_type(value: Any, hint: Any) -> bool:
    """Return whether a value is of a declared type."""
    origin, inner = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        return any(is_of_type(value, each) for each in inner)
    if origin is Literal:
        return value in inner
    if origin is tuple:
        return isinstance(value, tuple) and all(is_of_type(each, inner[0]) for each in value)
    if origin is not None:
        parts = value.items() if isinstance(value, Mapping) else [(None, None)]
        return all(is_of_type(name, inner[0]) and is_of_type(each, inner[1]) for name, each in parts)
    return _is_plainly(value, hint)


def _is_plainly(value: Any, kind: Any) -> bool:
    if kind in (int, float):
        numbers = (int,) if kind is int else (int, float)
        return isinstance(value, numbers) and not isinstance(value, bool) and abs(value) < float("inf")
    if kind is Any or kind is type(None):
        return kind is Any or value is None
    return isinstance(value, kind) and (not attrs.has(kind) or wrong_attribute(value, kind) is None)
