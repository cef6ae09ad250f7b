"""
Whatever the platform responds, only what is broken in the response is lost: events are recorded, other elements are
used, and the event loop is not blocked.
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
from typing import Any, TypeVar, get_args

import attrs
import pytest
from aiohttp import web
from helpers.clients import Connect
from helpers.hostile_responses import (
    CONTENT,
    EVERYTHING,
    MAX_GAP,
    REPORTS,
    SURFACES,
    HostileFixture,
    ScriptedPlatform,
    Surface,
    check_log,
    hostile_fixture,
    wrong_attribute,
)
from helpers.waiting import LoopMonitor
from hypothesis import given, settings
from hypothesis import strategies as st

from exponea_async import Event
from exponea_async.devices.customers import CustomerSnapshot
from exponea_async.errors import ExponeaError, InvalidEventError, RequestRefusedError, UnavailableError
from exponea_async.features._shared.envelopes import read_envelope
from exponea_async.features._shared.html.reader import read_html
from exponea_async.features._shared.html.rules import HtmlRules
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
from exponea_async.requests import RequestKind, RequestLimits
from exponea_async.sandbox import Sandbox

T = TypeVar("T")

GOOD = ("good 1", "good 2", "good 3")
#: The size of large responses, in megabytes.
MEGABYTES = 10 if os.environ.get("EXPONEA_TEST_LONG_RUN") else 1
#: The number of elements of a response whose fields are wrong.
FEW = 40
DEPTH = 100_000
DEEP = "[" * DEPTH + "]" * DEPTH
LESS = "[" * 5_000 + "]" * 5_000

ENVELOPES: Mapping[str, Any] = {
    "nothing": "",
    "spaces": " \n ",
    "words": "Sorry!",
    "HTML": "<html><body>Bad gateway</body></html>",
    "null": "null",
    "a list": "[]",
    "a string": '"x"',
    "a number": "1e999",
    "NaN": "NaN",
    "no success": '{"results": []}',
    "a failure": '{"success": false, "errors": {"x": ["no"]}}',
    "a failure with a string": '{"success": false, "error": "no\\nno"}',
    "success is a string": '{"success": "true", "results": []}',
    "success is large": '{"success": [' + '{"a":1},' * 10_000 + "1]}",
    "success is deep": f'{{"success": {LESS}}}',
    "the token is deep": f'{{"success": true, "results": [], "sync_token": {LESS}}}',
    "the token is large": '{"success": true, "results": [], "sync_token": [' + '{"a":1},' * 10_000 + "1]}",
    "the token is half a surrogate pair": '{"success": true, "messages": [], "sync_token": "\\ud800"}',
    "an object for a list": '{"success": true, "results": {"a": 1}, "discovery": {"a": 1}}',
    "a string for a list": '{"success": true, "messages": "x", "discovery": "x"}',
    "deep": f'{{"success": true, "results": {DEEP}}}',
    "deep and open": '{"success": true, "results": ' + "[" * DEPTH,
    "an error that is deep": '{"success": false, "error": ' + "[" * 1_010 + "]" * 1_010 + "}",
    "a result whose error is deep": '{"success": true, "results": [{"success": false, "error": '
    + "[" * 1_010
    + "]" * 1_010
    + "}]}",
    "two at once": '{"success": true}{"success": true}',
    "success twice": '{"success": true, "success": false}',
    "a byte order mark": '\ufeff{"success": true, "results": []}',
    "UTF-16": '{"success": true}'.encode("utf-16"),
    "not UTF-8": b'{"success": true, "results": ["\xff\xfe"], "\xff": 1}',
    "a key that is half a surrogate pair": '{"success": true, "\\ud800": 1}',
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
async def hostile(connect: Connect, sandbox: Sandbox) -> HostileFixture:
    return await hostile_fixture(connect, sandbox)


def surfaces(*names: str) -> pytest.MarkDecorator:
    """Run a test for each call, or for some."""
    chosen = {name: each for name, each in SURFACES.items() if not names or name in names}
    return pytest.mark.parametrize("surface", chosen.values(), ids=chosen)


async def call_and_track(hostile: HostileFixture, surface: Surface, *ids: str) -> list[str] | ExponeaError:
    """Call, and return the ids of the results, or the error if there may be one; an event is recorded meanwhile."""
    receipt = await hostile.client.track_event(Event("before"))
    try:
        found: list[str] | ExponeaError = await surface.call(hostile, ids)
    except InvalidEventError:
        raise
    except ExponeaError as error:
        if surface.raises_nothing:
            raise
        found = error
    await receipt.delivered()
    return found


@pytest.mark.parametrize("surface", EVERYTHING.values(), ids=EVERYTHING)
async def test_envelopes(hostile: HostileFixture, surface: Surface, caplog: pytest.LogCaptureFixture) -> None:
    """A broken response is a known error or has no results, and the next response is used."""
    surface.prepare(hostile, GOOD)
    # Ids are linked once per device.
    hostile.fixed_device = None if surface.route == "link-ids" else await hostile.device()
    for case, body in ENVELOPES.items():
        hostile.sandbox.messages.set_response(surface.route, body)
        async with LoopMonitor() as monitor:
            found = await call_and_track(hostile, surface, *GOOD)
        if surface.route not in ("link-ids", "attributes", "appinbox/markasread"):
            assert isinstance(found, ExponeaError) or found == [], case
        assert monitor.gap < MAX_GAP, case
        check_log(caplog, case=case)
    for length in range(1, len(good := surface.body(*map(surface.element, GOOD))), len(good) // 5):
        hostile.sandbox.messages.set_response(surface.route, good[:length])
        await call_and_track(hostile, surface, *GOOD)
        check_log(caplog, case=f"cut off after {length}")
    hostile.fixed_device = None
    if surface in REPORTS.values():
        hostile.sandbox.messages.clear_response(surface.route)
        assert await call_and_track(hostile, surface) == ["good"]
    else:
        hostile.sandbox.messages.set_response(surface.route, good)
        assert await call_and_track(hostile, surface, *GOOD) == list(GOOD)


@pytest.mark.parametrize("surface", EVERYTHING.values(), ids=EVERYTHING)
async def test_statuses(hostile: HostileFixture, surface: Surface, caplog: pytest.LogCaptureFixture) -> None:
    """A status other than success is an error, whatever the response contains."""
    surface.prepare(hostile, GOOD)
    good = surface.body(*map(surface.element, GOOD))
    large = '{"errors": [' + "1," * 1_000_000 + "1]}"
    for status in STATUSES:
        for body in (good, "<html>", large) if status in (400, 500) else (good,):
            hostile.sandbox.messages.set_response(surface.route, body, status=status)
            async with LoopMonitor() as monitor:
                found = await call_and_track(hostile, surface, *GOOD)
            if status != 206 and surface.route != "link-ids":
                assert isinstance(found, ExponeaError) or found == [], status
            assert monitor.gap < MAX_GAP, status
            check_log(caplog, case=str(status))


@surfaces()
async def test_broken_elements(hostile: HostileFixture, surface: Surface, caplog: pytest.LogCaptureFixture) -> None:
    """A broken element is skipped, and the others are used."""
    surface.prepare(hostile, GOOD)
    first, *others = (surface.element(id_) for id_ in GOOD)
    # Responses with segments are small, and large ones are rejected.
    broken = [each.replace(DEEP, LESS) for each in BROKEN]
    if surface.route != "segments":
        broken += [DEEP]
    hostile.sandbox.messages.set_response(
        surface.route, surface.body(first, *broken, others[0], *broken[::-1], others[1])
    )
    async with LoopMonitor() as monitor:
        assert await call_and_track(hostile, surface, *GOOD) == list(GOOD)
    assert monitor.gap < MAX_GAP
    check_log(caplog)


def wrong_values() -> list[str]:
    """Return values for fields of another type, as JSON."""
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


def paths_of(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Return the paths of all fields of an element."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, each in inner:
        yield (*path, name)
        yield from paths_of(each, (*path, name))


def with_value(element: dict[str, Any], path: tuple[Any, ...], value: str) -> str:
    """Return an element with a value, JSON already, at a path."""
    copied: Any = json.loads(json.dumps(element))
    inner = copied
    for name in path[:-1]:
        inner = inner[name]
    inner[path[-1]] = "@@"
    return json.dumps(copied).replace('"@@"', value)


@surfaces()
async def test_fields(hostile: HostileFixture, surface: Surface, caplog: pytest.LogCaptureFixture) -> None:
    """Each field of an element may have any value: the results are of the declared types, and can be tracked."""
    elements = {
        ".".join(map(str, (*path, number))): (path, value)
        for path in paths_of(surface.element("x"))
        for number, value in enumerate(wrong_values())
        # A message may have a delay of up to a day.
        if path != ("load_delay",) or value not in LONG
    }
    first, last = json.dumps(surface.element(GOOD[0])), json.dumps(surface.element(GOOD[1]))
    count = 0
    for few in batched(elements.items(), FEW):
        ids = [GOOD[0], *(id_ for id_, _ in few), GOOD[1]]
        body = surface.body(first, *(with_value(surface.element(id_), *each) for id_, each in few), last)
        surface.prepare(hostile, ids)
        hostile.sandbox.messages.set_response(surface.route, body)
        async with LoopMonitor() as monitor:
            found = await call_and_track(hostile, surface, *ids)
        assert not isinstance(found, ExponeaError)
        assert {GOOD[0], GOOD[1]} <= set(map(str, found))
        assert monitor.gap < MAX_GAP
        count += len(found)
        check_log(caplog, 3 * FEW)
    assert count > 2 * (len(elements) // FEW + 1)
    assert [trouble for each in hostile.returned if (trouble := wrong_attribute(each, type(each)))] == []


def batched(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """Split values into lists of a size."""
    rest = iter(items)
    while few := list(islice(rest, size)):
        yield few


@surfaces()
async def test_large(hostile: HostileFixture, surface: Surface, caplog: pytest.LogCaptureFixture) -> None:
    """A large response is read without blocking the event loop, or not at all; its good elements are used."""
    surface.prepare(hostile, GOOD)
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
        hostile.sandbox.messages.set_response(surface.route, surface.body(*elements))
        async with LoopMonitor() as monitor:
            found = await call_and_track(hostile, surface, *GOOD)
        if case == "too large" or surface.route == "segments":
            assert isinstance(found, ExponeaError) or found == []
        else:
            assert not isinstance(found, ExponeaError), found
            assert set(found) >= set(GOOD), case
        assert monitor.gap < MAX_GAP, case
        check_log(caplog, case=case)


@surfaces("in-app messages", "inbox")
async def test_many_wrong_values(hostile: HostileFixture, surface: Surface, caplog: pytest.LogCaptureFixture) -> None:
    """A thousand messages with the same mistake are logged in a few lines."""
    odd = json.dumps(surface.element("x")).replace('consent": true', 'consent": "x"')
    many = [odd.replace('"x"', f'"{number}"', 1) for number in range(900)]
    hostile.sandbox.messages.set_response(surface.route, surface.body(*many))
    assert not isinstance(await call_and_track(hostile, surface), ExponeaError)
    if surface.route == "inappmessages":
        await surface.call(hostile, ["0"])
    check_log(caplog)


# The connection


class TestConnection:
    """The connection may be as hostile as the content of responses."""

    @pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
    async def test_redirects(self, connect: Connect, sandbox: Sandbox, status: int) -> None:
        """Redirects are not followed, and no cookies are sent."""

        async def respond(_: web.Request) -> web.StreamResponse:
            headers = {"Location": f"{elsewhere.url}/webxp", "Set-Cookie": "a=b; Path=/"}
            return web.Response(status=status, headers=headers)

        async with ScriptedPlatform(respond) as elsewhere, ScriptedPlatform(respond) as platform:
            hostile = await hostile_fixture(connect, sandbox, base_url=platform.url)
            for surface in EVERYTHING.values():
                if surface.route != "appinbox/markasread":
                    found = await call_and_track(hostile, surface, *GOOD)
                    assert isinstance(found, ExponeaError) or found == []
            assert elsewhere.requests == []
            assert len(platform.requests) >= len(SURFACES)
            assert [each.headers for each in platform.requests if "Cookie" in each.headers] == []

    @pytest.mark.parametrize("encoding", ["gzip", "deflate", "br", "zstd", "x", "gzip, gzip", "\xff"])
    async def test_wrong_encodings(
        self, connect: Connect, sandbox: Sandbox, encoding: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        """A body that says it is compressed, and is not, is not a response."""

        async def respond(_: web.Request) -> web.StreamResponse:
            return web.Response(body=b"no such thing", headers={"Content-Encoding": encoding})

        async with ScriptedPlatform(respond) as platform:
            hostile = await hostile_fixture(connect, sandbox, base_url=platform.url)
            for name in ("consents", "segments", "in-app messages", "bundle", "inbox"):
                found = await call_and_track(hostile, SURFACES[name], *GOOD)
                assert isinstance(found, ExponeaError) or found == []
                check_log(caplog)

    async def test_compression_bombs(
        self, connect: Connect, sandbox: Sandbox, caplog: pytest.LogCaptureFixture
    ) -> None:
        """A small body that decompresses to a huge one takes no more memory than a response may."""
        packer = zlib.compressobj(wbits=31)
        bomb = b"".join([*(packer.compress(b"\0" * 10_000_000) for _ in range(30)), packer.flush()])

        async def respond(_: web.Request) -> web.StreamResponse:
            return web.Response(body=bomb, headers={"Content-Encoding": "gzip"})

        async with ScriptedPlatform(respond) as platform:
            hostile = await hostile_fixture(connect, sandbox, base_url=platform.url)
            for name in ("consents", "segments", "bundle"):
                tracemalloc.start()
                async with LoopMonitor() as monitor:
                    found = await call_and_track(hostile, SURFACES[name], *GOOD)
                peak = tracemalloc.get_traced_memory()[1]
                tracemalloc.stop()
                assert isinstance(found, ExponeaError) or found == []
                assert peak < 200_000_000
                assert monitor.gap < MAX_GAP
                check_log(caplog)

    async def test_slow_responses(self, connect: Connect, sandbox: Sandbox, caplog: pytest.LogCaptureFixture) -> None:
        """A call waits no longer than its requests may take."""

        async def respond(request: web.Request) -> web.StreamResponse:
            response = web.StreamResponse()
            await response.prepare(request)
            with suppress(ConnectionError):
                while True:
                    await response.write(b" ")
                    await asyncio.sleep(0.02)
            return response

        async with ScriptedPlatform(respond) as platform:
            timeouts: dict[str, Any] = {f"{kind}_timeout": 0.1 for kind in get_args(RequestKind)}
            limits = RequestLimits(**timeouts)
            hostile = await hostile_fixture(connect, sandbox, base_url=platform.url, limits=limits)
            for surface in SURFACES.values():
                async with asyncio.timeout(60):
                    found = await call_and_track(hostile, surface, GOOD[0])
                assert isinstance(found, ExponeaError) or found == []
                check_log(caplog)

    @pytest.mark.parametrize(
        "wait", ["1800", "99999999999999999999", "1e400", "Fri, 31 Dec 9999 23:59:59 GMT", "-5", "soon", "\xff", ""]
    )
    async def test_long_waits(
        self, connect: Connect, sandbox: Sandbox, wait: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        """A call does not wait as long as the platform demands."""

        async def respond(_: web.Request) -> web.StreamResponse:
            return web.Response(status=429, headers={"Retry-After": wait})

        async with ScriptedPlatform(respond) as platform:
            hostile = await hostile_fixture(connect, sandbox, base_url=platform.url)
            for surface in SURFACES.values():
                async with asyncio.timeout(60):
                    found = await call_and_track(hostile, surface, GOOD[0])
                assert isinstance(found, ExponeaError) or found == []
                check_log(caplog)


# Arguments


class StringSubclass(str):
    """A string of another class."""

    __slots__ = ()


def odd_values() -> list[Any]:
    """Return values that a caller may pass by mistake."""
    numbers = [0, -1, 2**70, 1.5, float("nan"), float("inf"), True]
    texts = ["", " ", "x" * 100_000, "\ud800", "\0", StringSubclass("x"), b"x"]
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
#: Fields of in-app messages that are tested apart.
UNCHECKED = ("message.id", "message.device", "message.customer_ids")


def odd_calls(arguments: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Return the arguments of calls in which one argument, or one field of it, is odd."""
    for name, good in arguments.items():
        for odd in odd_values():
            yield name, {**arguments, name: odd}
            for each in attrs.fields(type(good)) if attrs.has(type(good)) else ():
                with suppress(InvalidEventError):
                    yield f"{name}.{each.name}", {**arguments, name: attrs.evolve(good, **{each.name: odd})}


async def wrong_errors(hostile: HostileFixture, verb: str, *, checked: bool) -> list[str]:
    """Call a method with odd arguments, and return the errors that it must not raise."""
    device, trouble = hostile.client.device("d"), []
    for place, arguments in odd_calls(VERBS[verb]):
        if (place in UNCHECKED and "in_app_message" in verb) == checked:
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
async def test_odd_arguments(hostile: HostileFixture, verb: str) -> None:
    """An odd argument is rejected by its name, or does no harm; the device still works."""
    assert await wrong_errors(hostile, verb, checked=True) == []
    await (await hostile.client.device("d").track_event(Event("after"))).delivered()


@pytest.mark.parametrize("verb", [verb for verb in VERBS if "in_app_message" in verb and verb != "in_app_message_for"])
async def test_odd_messages(hostile: HostileFixture, verb: str) -> None:
    """An in-app message whose id or device is not a string is rejected by its name."""
    assert await wrong_errors(hostile, verb, checked=False) == []


# Memory


async def test_memory(hostile: HostileFixture, caplog: pytest.LogCaptureFixture) -> None:
    """Broken responses leave nothing in memory, however many there are."""
    # Log records refer to errors, and these to what was read.
    caplog.set_level(logging.CRITICAL, "exponea_async")
    chosen = [SURFACES[name] for name in ("in-app messages", "bundle", "inbox", "segments", "consents")]
    hostile.fixed_device = await hostile.device()

    async def rounds(numbers: range) -> int:
        for number in numbers:
            surface = chosen[number % len(chosen)]
            odd = json.dumps({**surface.element(f"{number}"), "id": 7, "x": "y" * 5_000})
            body = surface.body(odd, "{}", *BROKEN[:20], surface.element(GOOD[0]))
            hostile.sandbox.messages.set_response(surface.route, body[:-9] if number % 3 else body)
            with suppress(ExponeaError):
                await surface.call(hostile, GOOD[:1])
        hostile.returned.clear()
        hostile.sandbox.reset()
        gc.collect()
        return tracemalloc.get_traced_memory()[0]

    tracemalloc.start()
    try:
        sizes = [await rounds(range(50))]
        # What a busy machine has not cleaned up yet is gone later; what stays in memory would grow each time.
        while len(sizes) < 6 and (len(sizes) < 2 or sizes[-1] - sizes[-2] >= 200_000):
            sizes.append(await rounds(range(50, 250)))
    finally:
        tracemalloc.stop()
    assert sizes[-1] - sizes[-2] < 200_000


# Random responses

NUMBERS = st.integers() | st.floats() | st.sampled_from((2**63, -(2**63), 2**64, 10**400, 1e308, 5e-324))
JSON = st.recursive(
    st.none() | st.booleans() | NUMBERS | st.text(max_size=8) | st.sampled_from(("\ud800", "true", "html", "OK", "\0")),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner, max_size=4),
    max_leaves=12,
)


def read_in_app(body: bytes) -> list[Any]:
    """Read in-app messages as a whole."""
    who = CustomerSnapshot({"cookie": "c"}, "shop", "d")
    return [each.message(who) for each in MessageCache().read(body).definitions]


def read_bundle(body: bytes) -> list[Any]:
    """Read content blocks, as they are returned."""
    blocks = block_loader.read_bundle(body, 5.0).placeholders.values()
    return [public_block(each, None, ids={}) for place in blocks for each in place]


def read_personal(body: bytes) -> list[Any]:
    """Read the personalized content of blocks."""
    return list(block_loader.read_data(body, frozenset(GOOD), 5.0).values())


def read_inbox(body: bytes) -> list[Any]:
    """Read inbox messages."""
    stamp = FetchInfo({}, 5.0)
    entries = read_messages(read_envelope(body).elements, {}, stamp, lambda source: read_html(source, HtmlRules()))
    return [entry.message for entry in entries]


def read_discovery(body: bytes) -> list[Any]:
    """Read segments."""
    return [dict(each) for each in read_segments(body).get("discovery", ())]


READERS: Mapping[str, Callable[[bytes], list[Any]]] = {
    "in-app messages": read_in_app,
    "bundle": read_bundle,
    "personal blocks": read_personal,
    "inbox": read_inbox,
    "segments": read_discovery,
    "recommendations": read_recommendations,
    "attributes": lambda body: read_attributes(body, 5),
    "consents": read_consents,
}


def read(name: str, body: str) -> list[Any]:
    """Read a response, whose values must be of the declared types."""
    values = READERS[name](body.encode(errors="surrogatepass"))
    assert [trouble for each in values if (trouble := wrong_attribute(each, type(each)))] == []
    return values


@pytest.mark.parametrize("name", READERS)
@settings(max_examples=60)
@given(data=st.data())
def test_any_element(name: str, data: st.DataObject) -> None:
    """A good element is used, whatever is next to it."""
    surface = SURFACES[name]
    junk = data.draw(st.lists(JSON.map(json.dumps), max_size=3))
    assert read(name, surface.body(*junk, surface.element(GOOD[0])))


@pytest.mark.parametrize("name", READERS)
@settings(max_examples=150)
@given(data=st.data())
def test_any_field(name: str, data: st.DataObject) -> None:
    """An element with one other field is of the declared types, or skipped."""
    surface = SURFACES[name]
    element = surface.element(GOOD[0])
    path = data.draw(st.sampled_from(list(paths_of(element))))
    odd = with_value(element, path, json.dumps(data.draw(JSON)))
    assert read(name, surface.body(odd, surface.element(GOOD[1])))


@pytest.mark.parametrize("name", READERS)
@settings(max_examples=100)
@given(body=st.text() | JSON.map(json.dumps))
def test_any_response(name: str, body: str) -> None:
    """Anything is a response, or a known error."""
    with suppress(RequestRefusedError, UnavailableError):
        read(name, body)
