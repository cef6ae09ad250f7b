"""
Whatever a platform answers, at most what is broken in it is lost: no event, no other element, not the event loop.
"""

import asyncio
import gc
import json
import logging
import os
import tracemalloc
import zlib
from collections.abc import Callable, Coroutine, Iterable, Iterator, Mapping
from contextlib import suppress
from itertools import islice
from typing import Any, TypeVar

import attrs
import pytest
from aiohttp import web
from helpers.clients import Connect
from helpers.hostile_responses import (
    CONTENT,
    EVERYTHING,
    GAP,
    SURFACES,
    TELLING,
    Platform,
    Surface,
    World,
    check_log,
    conforms,
    world_of,
)
from helpers.waiting import Ticking
from hypothesis import given as drawn
from hypothesis import settings
from hypothesis import strategies as st

from exponea_async import Event
from exponea_async.devices.customers import CustomerSnapshot
from exponea_async.devices.state import ProjectRef
from exponea_async.errors import ExponeaError, InvalidEventError, RequestRefusedError, UnavailableError
from exponea_async.features._shared.envelopes import read_envelope
from exponea_async.features._shared.html.reader import read_html
from exponea_async.features.content_blocks import loader as block_loader
from exponea_async.features.content_blocks.parsing import public_block
from exponea_async.features.fetch.parsing import read_attributes, read_consents, read_recommendations
from exponea_async.features.in_app.cache import MessageCache
from exponea_async.features.inbox.mailbox import read_messages
from exponea_async.features.inbox.parsing import FetchInfo
from exponea_async.features.segments.parsing import read_segments
from exponea_async.messages import (
    AppInboxAction,
    AppInboxMessage,
    InAppContentBlock,
    InAppContentBlockAction,
    InAppMessage,
    InAppMessageButton,
    PersonalizedData,
    RecommendationOptions,
)
from exponea_async.sandbox import Sandbox

T = TypeVar("T")

GOOD = ("good 1", "good 2", "good 3")
#: The size of what takes long to read, in megabytes.
MEGABYTES = 10 if os.environ.get("EXPONEA_TEST_LONG_RUN") else 1
#: Elements in an answer whose fields are wrong.
FEW = 40
DEPTH = 100_000
DEEP = "[" * DEPTH + "]" * DEPTH
LESS = "[" * 5_000 + "]" * 5_000

ENVELOPES: Mapping[str, Any] = {
    "nothing": "",
    "blanks": " \n ",
    "words": "Sorry!",
    "HTML": "<html><body>Bad gateway</body></html>",
    "null": "null",
    "a list": "[]",
    "a text": '"x"',
    "a number": "1e999",
    "NaN": "NaN",
    "no success": '{"results": []}',
    "a failure": '{"success": false, "errors": {"x": ["no"]}}',
    "a failure of words": '{"success": false, "error": "no\\nno"}',
    "success is a text": '{"success": "true", "results": []}',
    "success is large": '{"success": [' + '{"a":1},' * 10_000 + "1]}",
    "success is deep": f'{{"success": {LESS}}}',
    "the token is deep": f'{{"success": true, "results": [], "sync_token": {LESS}}}',
    "the token is large": '{"success": true, "results": [], "sync_token": [' + '{"a":1},' * 10_000 + "1]}",
    "the token is a half": '{"success": true, "messages": [], "sync_token": "\\ud800"}',
    "an object for a list": '{"success": true, "results": {"a": 1}, "discovery": {"a": 1}}',
    "a text for a list": '{"success": true, "messages": "x", "discovery": "x"}',
    "deep": f'{{"success": true, "results": {DEEP}}}',
    "deep and open": '{"success": true, "results": ' + "[" * DEPTH,
    "an error that is deep": '{"success": false, "error": ' + "[" * 1_010 + "]" * 1_010 + "}",
    "a result whose error is deep": '{"success": true, "results": [{"success": false, "error": '
    + "[" * 1_010
    + "]" * 1_010
    + "}]}",
    "two at once": '{"success": true}{"success": true}',
    "twice success": '{"success": true, "success": false}',
    "a mark of byte order": '\ufeff{"success": true, "results": []}',
    "UTF-16": '{"success": true}'.encode("utf-16"),
    "no UTF-8": b'{"success": true, "results": ["\xff\xfe"], "\xff": 1}',
    "a key that is a half": '{"success": true, "\\ud800": 1}',
    "zeros": b"\0" * 1_000,
    "many members": "{" + ",".join(f'"{number}": 1' for number in range(10_000)) + "}",
    "members of lists": "{" + ",".join(f'"{number}": [1, 2]' for number in range(8_000)) + "}",
}
LONG = ("1e308", "1e999", "9" * 400, str(2**63))
STATUSES = (204, 206, 300, 302, 304, 400, 401, 404, 410, 413, 418, 429, 500, 503, 599)
BROKEN: tuple[str, ...] = (
    "null", "true", "7", "1e999", "-1e999", "1" + "0" * 4_000, "NaN", "Infinity", '"x"', '"\\ud800"', "[]", "[[]]",
    "{}", '{"id": {}}', '{"id": "a" "b"}', '{"id": 1e999, "id": NaN}', '{"\\ud800": 1}', '{"": ""}', '{"\\u0000": []}',
    "{1: 2}", "{true: 2}", "'x'", "nul", "\\", '{"a": "\x01"}', DEEP, f'{{"id": {LESS}}}',
    '{"a":' * 500 + "1" + "}" * 500,
)  # fmt: skip


@pytest.fixture
async def world(connect: Connect, sandbox: Sandbox) -> World:
    return await world_of(connect, sandbox)


def surfaces(*names: str) -> pytest.MarkDecorator:
    """Run a test for each thing that is asked of the platform, or for some."""
    chosen = {name: each for name, each in SURFACES.items() if not names or name in names}
    return pytest.mark.parametrize("surface", chosen.values(), ids=chosen)


async def asked(world: World, surface: Surface, *ids: str) -> list[str] | ExponeaError:
    """Ask, and tell the ids of what comes of it, or the error, where there may be one; events are kept meanwhile."""
    receipt = await world.client.track_event(Event("before"))
    try:
        found: list[str] | ExponeaError = await surface.ask(world, ids)
    except InvalidEventError:
        raise
    except ExponeaError as error:
        if surface.is_quiet:
            raise
        found = error
    await receipt.delivered()
    return found


@pytest.mark.parametrize("surface", EVERYTHING.values(), ids=EVERYTHING)
async def test_envelopes(world: World, surface: Surface, caplog: pytest.LogCaptureFixture) -> None:
    """Nothing comes of an answer that is none but an error that is known, and the next one is as good as ever."""
    surface.prepare(world, GOOD)
    # Ids are linked once for each device.
    world.only = None if surface.route == "link-ids" else await world.device()
    for case, body in ENVELOPES.items():
        world.sandbox.messages.set_response(surface.route, body)
        async with Ticking() as ticking:
            found = await asked(world, surface, *GOOD)
        if surface.route not in ("link-ids", "attributes", "appinbox/markasread"):
            assert isinstance(found, ExponeaError) or found == [], case
        assert ticking.gap < GAP, case
        check_log(caplog, case=case)
    for length in range(1, len(good := surface.body(*map(surface.element, GOOD))), len(good) // 5):
        world.sandbox.messages.set_response(surface.route, good[:length])
        await asked(world, surface, *GOOD)
        check_log(caplog, case=f"cut off after {length}")
    world.only = None
    if surface in TELLING.values():
        world.sandbox.messages.clear_response(surface.route)
        assert await asked(world, surface) == ["good"]
    else:
        world.sandbox.messages.set_response(surface.route, good)
        assert await asked(world, surface, *GOOD) == list(GOOD)


@pytest.mark.parametrize("surface", EVERYTHING.values(), ids=EVERYTHING)
async def test_statuses(world: World, surface: Surface, caplog: pytest.LogCaptureFixture) -> None:
    """A status other than success is an error, whatever is in the answer."""
    surface.prepare(world, GOOD)
    good = surface.body(*map(surface.element, GOOD))
    large = '{"errors": [' + "1," * 1_000_000 + "1]}"
    for status in STATUSES:
        for body in (good, "<html>", large) if status in (400, 500) else (good,):
            world.sandbox.messages.set_response(surface.route, body, status=status)
            async with Ticking() as ticking:
                found = await asked(world, surface, *GOOD)
            if status != 206 and surface.route != "link-ids":
                assert isinstance(found, ExponeaError) or found == [], status
            assert ticking.gap < GAP, status
            check_log(caplog, case=str(status))


@surfaces()
async def test_broken_elements(world: World, surface: Surface, caplog: pytest.LogCaptureFixture) -> None:
    """An element that is broken loses only itself."""
    surface.prepare(world, GOOD)
    first, *others = (surface.element(id_) for id_ in GOOD)
    # Of segments there are few, and answers that are large are none.
    broken = [each.replace(DEEP, LESS) for each in BROKEN]
    if surface.route != "segments":
        broken += [DEEP]
    world.sandbox.messages.set_response(
        surface.route, surface.body(first, *broken, others[0], *broken[::-1], others[1])
    )
    async with Ticking() as ticking:
        assert await asked(world, surface, *GOOD) == list(GOOD)
    assert ticking.gap < GAP
    check_log(caplog)


def wrong_values() -> list[str]:
    """Make what stands in a place where it should not, as JSON."""
    texts = ('""', '"x"', '"\\ud800"', '"\\u0000\\n"', json.dumps("x" * 20_000))
    numbers = ("0", "-1.5", "1e308", "1e999", str(2**63), "9" * 400, "NaN")
    others = ("null", "true", "false", "[]", '[1, "a", null, {}, [[]]]', "{}", '{"a": {"b": [1]}, "": null}')
    return [
        *texts,
        *numbers,
        *others,
        "[" * 900 + "]" * 900,
        json.dumps({"a": "x" * 20_000}),
        json.dumps(["x"] * 9_000),
    ]


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Tell all places in an element."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, each in inner:
        yield (*path, name)
        yield from places(each, (*path, name))


def spoiled(element: dict[str, Any], path: tuple[Any, ...], value: str) -> str:
    """Put a value, JSON already, into an element's place."""
    copied: Any = json.loads(json.dumps(element))
    inner = copied
    for name in path[:-1]:
        inner = inner[name]
    inner[path[-1]] = "@@"
    return json.dumps(copied).replace('"@@"', value)


@surfaces()
async def test_fields(world: World, surface: Surface, caplog: pytest.LogCaptureFixture) -> None:
    """Each field of an element may be anything: what comes out is of the declared types, and can be told of."""
    elements = {
        ".".join(map(str, (*path, number))): (path, value)
        for path in places(surface.element("x"))
        for number, value in enumerate(wrong_values())
        # A message may ask for a delay of a day at the most, and gets it.
        if path != ("load_delay",) or value not in LONG
    }
    first, last = json.dumps(surface.element(GOOD[0])), json.dumps(surface.element(GOOD[1]))
    count = 0
    for few in batched(elements.items(), FEW):
        ids = [GOOD[0], *(id_ for id_, _ in few), GOOD[1]]
        body = surface.body(first, *(spoiled(surface.element(id_), *each) for id_, each in few), last)
        surface.prepare(world, ids)
        world.sandbox.messages.set_response(surface.route, body)
        async with Ticking() as ticking:
            found = await asked(world, surface, *ids)
        assert not isinstance(found, ExponeaError)
        assert {GOOD[0], GOOD[1]} <= set(map(str, found))
        assert ticking.gap < GAP
        count += len(found)
        check_log(caplog, 3 * FEW)
    assert count > 2 * (len(elements) // FEW + 1)
    assert [trouble for each in world.handed_out if (trouble := conforms(each, type(each)))] == []


def batched(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """Cut into lists of a size."""
    rest = iter(items)
    while few := list(islice(rest, size)):
        yield few


@surfaces()
async def test_large(world: World, surface: Surface, caplog: pytest.LogCaptureFixture) -> None:
    """What is large is read beside the event loop, or not at all; what is good beside it is there."""
    surface.prepare(world, GOOD)
    good = [json.dumps(surface.element(id_)) for id_ in GOOD]
    filled = json.dumps(surface.element("x")).replace(CONTENT, "x" * 1_000)
    many = [filled.replace('"x"', f'"{number}"') for number in range(MEGABYTES * 1_000_000 // len(filled))]
    cases = {
        "one of 10 MB": [good[0], json.dumps({**surface.element("x"), "y": "x" * 10_000_000}), *good[1:]],
        "one of many parts": [good[0], "[" + "{}," * (MEGABYTES * 300_000) + "1]", *good[1:]],
        "escapes": [good[0], '"' + "\\\\" * (MEGABYTES * 500_000) + '"', *good[1:]],
        "many": [*good, *many],
        "30 MB": [good[0], json.dumps("x" * 30_000_000), *good[1:]],
        "too large": [*good, json.dumps("x" * 33_000_000)],
    }
    if surface.route not in ("inappmessages", "appinbox/fetch") and MEGABYTES == 1:
        cases = dict(list(cases.items())[1:4])
    for case, elements in cases.items():
        world.sandbox.messages.set_response(surface.route, surface.body(*elements))
        async with Ticking() as ticking:
            found = await asked(world, surface, *GOOD)
        if case == "too large" or surface.route == "segments":
            assert isinstance(found, ExponeaError) or found == []
        else:
            assert not isinstance(found, ExponeaError), found
            assert set(found) >= set(GOOD), case
        assert ticking.gap < GAP, case
        check_log(caplog, case=case)


@surfaces("in-app messages", "inbox")
async def test_many_words(world: World, surface: Surface, caplog: pytest.LogCaptureFixture) -> None:
    """A thousand messages with the same slip are told of in a few lines."""
    odd = json.dumps(surface.element("x")).replace('consent": true', 'consent": "x"')
    many = [odd.replace('"x"', f'"{number}"', 1) for number in range(900)]
    world.sandbox.messages.set_response(surface.route, surface.body(*many))
    assert not isinstance(await asked(world, surface), ExponeaError)
    if surface.route == "inappmessages":
        await surface.ask(world, ["0"])
    check_log(caplog)


# What is wrong on the way


class TestWire:
    """The way an answer takes may be as hostile as what is in it."""

    @pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
    async def test_elsewhere(self, connect: Connect, sandbox: Sandbox, status: int) -> None:
        """Nobody goes where a redirect points to, or carries cookies along."""

        async def answer(_: web.Request) -> web.StreamResponse:
            headers = {"Location": f"{elsewhere.url}/webxp", "Set-Cookie": "a=b; Path=/"}
            return web.Response(status=status, headers=headers)

        async with Platform(answer) as elsewhere, Platform(answer) as platform:
            world = await world_of(connect, sandbox, base_url=platform.url)
            for surface in EVERYTHING.values():
                if surface.route != "appinbox/markasread":
                    found = await asked(world, surface, *GOOD)
                    assert isinstance(found, ExponeaError) or found == []
            assert elsewhere.seen == []
            assert len(platform.seen) >= len(SURFACES)
            assert [each.headers for each in platform.seen if "Cookie" in each.headers] == []

    @pytest.mark.parametrize("encoding", ["gzip", "deflate", "br", "zstd", "x", "gzip, gzip", "\xff"])
    async def test_wrong_encodings(
        self, connect: Connect, sandbox: Sandbox, encoding: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        """What says that it is compressed, and is not, is no answer."""

        async def answer(_: web.Request) -> web.StreamResponse:
            return web.Response(body=b"no such thing", headers={"Content-Encoding": encoding})

        async with Platform(answer) as platform:
            world = await world_of(connect, sandbox, base_url=platform.url)
            for name in ("consents", "segments", "in-app messages", "bundle", "inbox"):
                found = await asked(world, SURFACES[name], *GOOD)
                assert isinstance(found, ExponeaError) or found == []
                check_log(caplog)

    async def test_bombs(self, connect: Connect, sandbox: Sandbox, caplog: pytest.LogCaptureFixture) -> None:
        """What is small and unpacks to something huge takes no more room than an answer may."""
        packer = zlib.compressobj(wbits=31)
        bomb = b"".join([*(packer.compress(b"\0" * 10_000_000) for _ in range(30)), packer.flush()])

        async def answer(_: web.Request) -> web.StreamResponse:
            return web.Response(body=bomb, headers={"Content-Encoding": "gzip"})

        async with Platform(answer) as platform:
            world = await world_of(connect, sandbox, base_url=platform.url)
            for name in ("consents", "segments", "bundle"):
                tracemalloc.start()
                async with Ticking() as ticking:
                    found = await asked(world, SURFACES[name], *GOOD)
                peak = tracemalloc.get_traced_memory()[1]
                tracemalloc.stop()
                assert isinstance(found, ExponeaError) or found == []
                assert peak < 200_000_000
                assert ticking.gap < GAP
                check_log(caplog)

    async def test_drips(self, connect: Connect, sandbox: Sandbox, caplog: pytest.LogCaptureFixture) -> None:
        """Nobody waits for longer than a request may take, so often as it is made."""

        async def answer(request: web.Request) -> web.StreamResponse:
            response = web.StreamResponse()
            await response.prepare(request)
            with suppress(ConnectionError):
                while True:
                    await response.write(b" ")
                    await asyncio.sleep(0.02)
            return response

        async with Platform(answer) as platform:
            world = await world_of(connect, sandbox, base_url=platform.url, upload={"request_timeout": 0.1})
            for surface in SURFACES.values():
                async with asyncio.timeout(10):
                    found = await asked(world, surface, GOOD[0])
                assert isinstance(found, ExponeaError) or found == []
                check_log(caplog)

    @pytest.mark.parametrize(
        "wait", ["1800", "99999999999999999999", "1e400", "Fri, 31 Dec 9999 23:59:59 GMT", "-5", "soon", "\xff", ""]
    )
    async def test_waits(self, connect: Connect, sandbox: Sandbox, wait: str, caplog: pytest.LogCaptureFixture) -> None:
        """A platform that wants nobody to ask for long is not waited for."""

        async def answer(_: web.Request) -> web.StreamResponse:
            return web.Response(status=429, headers={"Retry-After": wait})

        async with Platform(answer) as platform:
            world = await world_of(connect, sandbox, base_url=platform.url)
            for surface in SURFACES.values():
                async with asyncio.timeout(10):
                    found = await asked(world, surface, GOOD[0])
                assert isinstance(found, ExponeaError) or found == []
                check_log(caplog)


# What the host gives


class Text(str):
    """A text of another class."""

    __slots__ = ()


def given() -> list[Any]:
    """Make what a host may give by mistake."""
    numbers = [0, -1, 2**70, 1.5, float("nan"), float("inf"), True]
    texts = ["", " ", "x" * 100_000, "\ud800", "\0", Text("x"), b"x"]
    return [None, *numbers, *texts, [], [[1]], (), {}, {"a": object()}, {1: 2}, set(), object(), int, len]


BUTTON, MESSAGE = InAppMessageButton("t", "app://x"), InAppMessage(id="m", name="n")
ACTION, PART = InAppContentBlockAction("BROWSER", "n", "https://s.example/"), PersonalizedData(id="b")
BLOCK = InAppContentBlock(id="b", name="n", customer_ids={"registered": "x"}, personalized_data=PART, actions=(ACTION,))
LETTER = AppInboxMessage(id="i", type="push", customer_ids={"registered": "x"}, sync_token="t")
PRESS = AppInboxAction("browser", "t", "https://s.example/")
VERBS: Mapping[str, Mapping[str, Any]] = {
    "in_app_message_for": {"event": Event("x")},
    "click_in_app_message": {"message": MESSAGE, "button": BUTTON},
    "close_in_app_message": {"message": MESSAGE, "button": BUTTON, "interaction": True},
    "fail_in_app_message": {"message": MESSAGE, "error_message": "e"},
    "track_in_app_message_click": {"message": MESSAGE, "button": BUTTON, "consider_consent": True},
    "track_in_app_message_close": {"message": MESSAGE, "button": BUTTON, "interaction": True},
    "content_block": {"placeholder_id": "p"},
    "click_content_block": {"placeholder_id": "p", "block": BLOCK, "action": ACTION},
    "close_content_block": {"placeholder_id": "p", "block": BLOCK},
    "track_in_app_content_block_shown": {"placeholder_id": "p", "content_block": BLOCK},
    "track_in_app_content_block_click": {"placeholder_id": "p", "content_block": BLOCK, "action": ACTION},
    "track_in_app_content_block_close": {"placeholder_id": "p", "content_block": BLOCK},
    "track_in_app_content_block_error": {"placeholder_id": "p", "content_block": BLOCK, "error_message": "e"},
    "content_block_carousel": {"placeholder_id": "p", "max_messages_count": 0, "scroll_delay": 3.0},
    "fetch_app_inbox_item": {"message_id": "x"},
    "mark_app_inbox_as_read": {"message": LETTER},
    "track_app_inbox_opened": {"message": LETTER},
    "track_app_inbox_click": {"action": PRESS, "message": LETTER},
    "get_segments": {"exposing_category": "discovery"},
    "segmentation_data_stream": {"exposing_category": "discovery"},
    "fetch_recommendations": {"options": RecommendationOptions("e", fill_with_random=True)},
    "fetch_attributes": {"attributes": [{"type": "property", "property": "p"}]},
}
#: Fields of in-app messages that nobody looks at before they are used.
UNSEEN = ("message.id", "message.device", "message.customer_ids")


def odd_calls(arguments: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Make the arguments of a call with one of them, or one field of them, being something else."""
    for name, good in arguments.items():
        for odd in given():
            yield name, {**arguments, name: odd}
            for each in attrs.fields(type(good)) if attrs.has(type(good)) else ():
                with suppress(InvalidEventError):
                    yield f"{name}.{each.name}", {**arguments, name: attrs.evolve(good, **{each.name: odd})}


async def trouble_of(world: World, verb: str, *, seen: bool) -> list[str]:
    """Call a verb with odd arguments, and tell what was raised that should not be."""
    device, trouble = world.client.device("d"), []
    for place, arguments in odd_calls(VERBS[verb]):
        if (place in UNSEEN and "in_app_message" in verb) == seen:
            continue
        try:
            result = getattr(device, verb)(**arguments)
            if isinstance(result, Coroutine):
                await result
        except (InvalidEventError, RequestRefusedError, UnavailableError):
            continue
        except Exception as error:  # noqa: BLE001 - that there is none other is what is to be shown
            trouble.append(f"{place}: {type(error).__name__}: {error}"[:200])
    return trouble


@pytest.mark.parametrize("verb", VERBS)
async def test_odd_arguments(world: World, verb: str) -> None:
    """What a host gives by mistake is refused by name, or does no harm; the device is as good as before."""
    assert await trouble_of(world, verb, seen=True) == []
    await (await world.client.device("d").track_event(Event("after"))).delivered()


@pytest.mark.parametrize("verb", [verb for verb in VERBS if "in_app_message" in verb and verb != "in_app_message_for"])
async def test_odd_messages(world: World, verb: str) -> None:
    """An in-app message whose id or device is no text is refused by name."""
    assert await trouble_of(world, verb, seen=False) == []


# What is left behind


async def test_memory(world: World, caplog: pytest.LogCaptureFixture) -> None:
    """Answers that are broken leave nothing behind, however many there are."""
    # Records of the log hold on to errors, and these to what was read.
    caplog.set_level(logging.CRITICAL, "exponea_async")
    chosen = [SURFACES[name] for name in ("in-app messages", "bundle", "inbox", "segments", "consents")]
    world.only = await world.device()

    async def rounds(numbers: range) -> int:
        for number in numbers:
            surface = chosen[number % len(chosen)]
            odd = json.dumps({**surface.element(f"{number}"), "id": 7, "x": "y" * 5_000})
            body = surface.body(odd, "{}", *BROKEN[:20], surface.element(GOOD[0]))
            world.sandbox.messages.set_response(surface.route, body[:-9] if number % 3 else body)
            with suppress(ExponeaError):
                await surface.ask(world, GOOD[:1])
        world.handed_out.clear()
        world.sandbox.reset()
        gc.collect()
        return tracemalloc.get_traced_memory()[0]

    tracemalloc.start()
    try:
        before = await rounds(range(50))
        after = await rounds(range(50, 250))
    finally:
        tracemalloc.stop()
    assert after - before < 200_000


# Anything at all

NUMBERS = st.integers() | st.floats() | st.sampled_from((2**63, -(2**63), 2**64, 10**400, 1e308, 5e-324))
JSON = st.recursive(
    st.none() | st.booleans() | NUMBERS | st.text(max_size=8) | st.sampled_from(("\ud800", "true", "html", "OK", "\0")),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner, max_size=4),
    max_leaves=12,
)


def read_in_app(body: bytes) -> list[Any]:
    """Read in-app messages, all of them."""
    who = CustomerSnapshot({"cookie": "c"}, ProjectRef("https://s.example", "shop"), "d")
    return [each.message(who) for each in MessageCache().read(body).definitions]


def read_bundle(body: bytes) -> list[Any]:
    """Read content blocks, as they are handed out."""
    blocks = block_loader.read_bundle(body, 5.0).placeholders.values()
    return [public_block(each, None, ids={}) for place in blocks for each in place]


def read_found(body: bytes) -> list[Any]:
    """Read what blocks say to a customer."""
    return list(block_loader.read_data(body, frozenset(GOOD), 5.0).values())


def read_inbox(body: bytes) -> list[Any]:
    """Read messages of the inbox."""
    stamp = FetchInfo({}, 5.0)
    entries = read_messages(
        read_envelope(body).elements, {}, stamp, lambda source: read_html(source, ensure_close=False)
    )
    return [entry.message for entry in entries]


def read_discovery(body: bytes) -> list[Any]:
    """Read segments."""
    return [dict(each) for each in read_segments(body).get("discovery", ())]


READERS: Mapping[str, Callable[[bytes], list[Any]]] = {
    "in-app messages": read_in_app,
    "bundle": read_bundle,
    "personal blocks": read_found,
    "inbox": read_inbox,
    "segments": read_discovery,
    "recommendations": read_recommendations,
    "attributes": lambda body: read_attributes(body, 5),
    "consents": read_consents,
}


def read(name: str, body: str) -> list[Any]:
    """Read an answer, of values of the declared types."""
    values = READERS[name](body.encode(errors="surrogatepass"))
    assert [trouble for each in values if (trouble := conforms(each, type(each)))] == []
    return values


@pytest.mark.parametrize("name", READERS)
@settings(max_examples=60)
@drawn(data=st.data())
def test_anything(name: str, data: st.DataObject) -> None:
    """Whatever stands beside a good element, the good one is there."""
    surface = SURFACES[name]
    junk = data.draw(st.lists(JSON.map(json.dumps), max_size=3))
    assert read(name, surface.body(*junk, surface.element(GOOD[0])))


@pytest.mark.parametrize("name", READERS)
@settings(max_examples=150)
@drawn(data=st.data())
def test_anything_within(name: str, data: st.DataObject) -> None:
    """An element with one thing changed is one of the declared types, or left out."""
    surface = SURFACES[name]
    element = surface.element(GOOD[0])
    path = data.draw(st.sampled_from(list(places(element))))
    odd = spoiled(element, path, json.dumps(data.draw(JSON)))
    assert read(name, surface.body(odd, surface.element(GOOD[1])))


@pytest.mark.parametrize("name", READERS)
@settings(max_examples=100)
@drawn(body=st.text() | JSON.map(json.dumps))
def test_any_answer(name: str, body: str) -> None:
    """Anything is an answer, or an error that is known."""
    with suppress(RequestRefusedError, UnavailableError):
        read(name, body)
