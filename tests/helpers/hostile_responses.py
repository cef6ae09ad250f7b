"""
What the tests of hostile answers share: each thing that is asked of the platform, with good answers and how to ask.
"""

import json
import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from types import TracebackType, UnionType
from typing import Any, Literal, Self, Union, get_args, get_origin, get_type_hints

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

#: What must never be seen in a log: the project's key, customers' tokens and ids, and what messages say.
KEY, TOKEN, CUSTOMER, CONTENT = "s3cretkey", "s3crettoken", "s3cretcustomer", "s3cretcontent"
SECRETS = (KEY, TOKEN, CUSTOMER, CONTENT)
#: The event loop may be kept for so long at the most, in seconds: far more than is usual, for machines that are busy.
GAP = 0.5
#: Lines of the log for one answer.
LINES = 12
#: Attributes that are asked for at once.
MANY = 100


class World:
    """A client of a sandbox, of whose devices each is used once."""

    def __init__(self, client: Exponea, sandbox: Sandbox) -> None:
        self.client = client
        self.sandbox = sandbox
        self.handed_out: list[Any] = []
        self.only: Device | None = None
        self._count = 0

    async def device(self) -> Device:
        """Make a device of a customer who is known nowhere; or give the only one."""
        for part in (InAppMessages, ContentBlocks, Inbox, Segments):
            self.client._features[part].clear()
        if self.only is not None:
            return self.only
        self._count += 1
        device = self.client.device(f"device-{self._count}")
        await device.identify_customer(Customer({"registered": f"{CUSTOMER}{self._count}"}))
        return device


async def world_of(connect: Connect, sandbox: Sandbox, **settings: Any) -> World:
    """Start a client with secrets."""

    async def provide() -> str:
        return TOKEN

    usual: dict[str, Any] = {
        "authorization_token": KEY,
        "customer_token_provider": provide,
        "automatic_session_tracking": False,
        "upload": {"backoff_initial": 0.001, "backoff_max": 0.002, **settings.pop("upload", {})},
    }
    return World(await connect(**usual, **settings), sandbox)


class Platform:
    """A platform that takes events, and answers all else by a script; an async context manager."""

    def __init__(self, answer: Callable[[web.Request], Awaitable[web.StreamResponse]]) -> None:
        self.answer = answer
        self.seen: list[web.Request] = []
        self.url = ""

    async def __aenter__(self) -> Self:
        app = web.Application()
        app.add_routes([web.route("*", "/{path:.*}", self._answer)])
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._runner.cleanup()

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        if not request.path.startswith("/track"):
            self.seen.append(request)
            return await self.answer(request)
        results = [{"command_id": each["command_id"], "success": True} for each in json.loads(body)["commands"]]
        return web.json_response({"success": True, "results": results})


def check_log(caplog: pytest.LogCaptureFixture, lines: int = LINES, *, case: str = "") -> None:
    """Make sure that few lines were logged since the last time, without a secret in them."""
    records = [each for each in caplog.records if each.levelno >= logging.WARNING]
    told = "\n".join(logging.Formatter().format(each) for each in records)
    assert not [secret for secret in SECRETS if secret in told], f"{case}: {told}"
    assert len(records) <= lines, f"{case}: {told[:2000]}"
    assert not [each for each in records if each.levelno >= logging.ERROR], f"{case}: {told[:2000]}"
    caplog.clear()


Ask = Callable[[World, Sequence[str]], Awaitable[list[str]]]


@frozen
class Surface:
    """
    One thing that is asked of the platform.

    Attributes:
        route: Its route of the sandbox.
        element: Makes a good element, by its id.
        envelope: Puts elements, JSON already, into an answer.
        ask: Asks anew and tells the ids of what comes of it; of these, where there is one question for each.
        is_quiet: Whether it raises nothing, whatever the platform answers.
        prepare: Lets the sandbox have what else it takes.
    """

    route: Any
    element: Callable[[str], dict[str, Any]]
    envelope: Callable[[Iterable[str]], str]
    ask: Ask
    is_quiet: bool = False
    prepare: Callable[[World, Sequence[str]], None] = lambda world, ids: None

    def body(self, *elements: Any) -> str:
        """Make an answer of elements; a text is JSON already."""
        return self.envelope(each if isinstance(each, str) else json.dumps(each) for each in elements)


def _listed(name: str) -> Callable[[Iterable[str]], str]:
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


async def _ask_in_app(world: World, ids: Sequence[str]) -> list[str]:
    device, found = await world.device(), []
    for id_ in ids:
        message = await device.in_app_message_for(Event(f"on {id_}"))
        if message is None:
            continue
        found.append(id_)
        world.handed_out.append(message)
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


async def _ask_blocks(world: World, ids: Sequence[str]) -> list[str]:
    device, found = await world.device(), []
    await device.content_block("all")
    for id_ in ids:
        block = await device.content_block(f"at {id_}")
        if block is None:
            continue
        found.append(id_)
        world.handed_out.append(block)
        for action in block.actions[:1]:
            await device.click_content_block(f"at {id_}", block, action)
        await device.close_content_block(f"at {id_}", block)
    return found


def _personal_blocks(world: World, ids: Sequence[str]) -> None:
    for id_ in ids:
        block = {**_block(id_), "content_type": None, "content": None, "personal": _personal(id_)}
        world.sandbox.messages.content_blocks.put(block)


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


async def _ask_inbox(world: World, _: Sequence[str]) -> list[str]:
    device = await world.device()
    messages = await device.fetch_app_inbox()
    world.handed_out += messages
    for message in messages[:50]:
        await device.track_app_inbox_opened(message)
        for action in message.actions[:1]:
            await device.track_app_inbox_click(action, message)
    assert [each.id for each in await device.fetch_app_inbox()] == [each.id for each in messages]
    return [message.id for message in messages]


async def _ask_to_mark(world: World, _: Sequence[str]) -> list[str]:
    device = await world.device()
    (message,) = await device.fetch_app_inbox()
    return ["good"] if await device.mark_app_inbox_as_read(message) else []


def _segment(id_: str) -> dict[str, Any]:
    return {"id": id_, "segmentation_id": f"s {id_}"}


async def _ask_segments(world: World, _: Sequence[str]) -> list[str]:
    segments = await (await world.device()).get_segments("discovery", force=True)
    world.handed_out += segments
    return [each["id"] for each in segments if "id" in each]


def _item(id_: str) -> dict[str, Any]:
    return {
        "item_id": id_,
        "engine_name": "e",
        "recommendation_id": "r",
        "recommendation_variant_id": "v",
        "price": {"EUR": 5, "says": CONTENT},
    }


async def _ask_recommendations(world: World, _: Sequence[str]) -> list[str]:
    items = await (await world.device()).fetch_recommendations(RecommendationOptions("e", fill_with_random=True))
    world.handed_out += items
    return [each.item_id for each in items]


async def _ask_attributes(world: World, _: Sequence[str]) -> list[str]:
    asked = [{"type": "property", "property": "p"}] * MANY
    attributes = await (await world.device()).fetch_attributes(asked)
    assert len(attributes) == MANY
    world.handed_out += attributes
    return [each.value for each in attributes if each.success]


def _consent(id_: str) -> dict[str, Any]:
    return {
        "id": id_,
        "legitimate_interest": False,
        "sources": {"crm": True, "import": False},
        "translations": {"en": {"name": CONTENT, "description": None}},
    }


async def _ask_consents(world: World, _: Sequence[str]) -> list[str]:
    consents = await (await world.device()).fetch_consents()
    world.handed_out += consents
    return [each.id for each in consents]


def _one_message(world: World, _: Sequence[str]) -> None:
    world.sandbox.messages.inbox.put(_inbox("good"))


def _one_segment(world: World, _: Sequence[str]) -> None:
    world.sandbox.messages.segments["discovery"].put(_segment("good"))


def _nothing(_: str) -> dict[str, Any]:
    return {}


SURFACES: Mapping[str, Surface] = {
    "in-app messages": Surface("inappmessages", _in_app, _listed("results"), _ask_in_app),
    "bundle": Surface("bundle", _block, _listed("in_app_content_blocks"), _ask_blocks, is_quiet=True),
    "personal blocks": Surface(
        "inappcontentblocks", _personal, _listed("data"), _ask_blocks, is_quiet=True, prepare=_personal_blocks
    ),
    "inbox": Surface("appinbox/fetch", _inbox, _listed("messages"), _ask_inbox),
    "segments": Surface(
        "segments", _segment, lambda elements: f'{{"discovery": [{",".join(elements)}]}}', _ask_segments, is_quiet=True
    ),
    "recommendations": Surface(
        "attributes",
        _item,
        lambda elements: f'{{"success": true, "results": [{{"success": true, "value": [{",".join(elements)}]}}]}}',
        _ask_recommendations,
    ),
    "attributes": Surface(
        "attributes", lambda id_: {"success": True, "value": id_}, _listed("results"), _ask_attributes
    ),
    "consents": Surface("consents", _consent, _listed("results"), _ask_consents),
}
#: What is told to the platform, whose answers say nothing but whether it took note.
TELLING: Mapping[str, Surface] = {
    "mark as read": Surface(
        "appinbox/markasread", _nothing, _listed("results"), _ask_to_mark, is_quiet=True, prepare=_one_message
    ),
    "link ids": Surface("link-ids", _nothing, _listed("results"), _ask_segments, is_quiet=True, prepare=_one_segment),
}


EVERYTHING: Mapping[str, Surface] = {**SURFACES, **TELLING}


def conforms(value: Any, kind: type) -> str | None:
    """Tell which attribute of a public value is of a wrong type, or None."""
    if kind is dict:
        fine = all(isinstance(name, str) and isinstance(each, str) for name, each in value.items())
        return None if fine else repr(value)
    hints = get_type_hints(kind)
    for each in attrs.fields(kind):
        if not fits(getattr(value, each.name), hints[each.name]):
            return f"{each.name} = {getattr(value, each.name)!r:.80}"
    return None


def fits(value: Any, hint: Any) -> bool:
    """Tell whether a value is of a declared type."""
    origin, inner = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        return any(fits(value, each) for each in inner)
    if origin is Literal:
        return value in inner
    if origin is tuple:
        return isinstance(value, tuple) and all(fits(each, inner[0]) for each in value)
    if origin is not None:
        parts = value.items() if isinstance(value, Mapping) else [(None, None)]
        return all(fits(name, inner[0]) and fits(each, inner[1]) for name, each in parts)
    return _is_plainly(value, hint)


def _is_plainly(value: Any, kind: Any) -> bool:
    if kind in (int, float):
        numbers = (int,) if kind is int else (int, float)
        return isinstance(value, numbers) and not isinstance(value, bool) and abs(value) < float("inf")
    if kind is Any or kind is type(None):
        return kind is Any or value is None
    return isinstance(value, kind) and (not attrs.has(kind) or conforms(value, kind) is None)
