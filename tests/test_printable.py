"""
Text from outside is made printable, in logs, in errors and in JSON.
"""

import asyncio
import json
import logging
from collections.abc import Callable

import pytest
from aiohttp import web
from helpers.clients import Connect, DeliveryLog
from helpers.scripted_server import ReceivedRequest, ScriptedServer
from hypothesis import given
from hypothesis import strategies as st

from exponea_async import Event, Hooks, InvalidEventError, RejectedError
from exponea_async._internal.printable import printable, printable_json
from exponea_async.testing import dead_letters

#: A red text, a forged line of a log, an escape sequence in one character, and reversed text.
EVIL = "\x1b[31mred\r\n2026-01-01 CRITICAL forged\x9b2J\u202e"


@given(st.text())
def test_any_text(text: str) -> None:
    """The result is printable, and a printable text stays as it is."""
    assert printable(text).isprintable()
    assert text == printable(text) or not text.isprintable()


@given(
    st.recursive(
        st.text() | st.none() | st.integers(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)
    )
)
def test_any_json(value: object) -> None:
    """The JSON is one printable line, and means the same."""
    assert printable_json(value).isprintable()
    assert json.loads(printable_json(value)) == value


def test_arguments_of_the_log(caplog: pytest.LogCaptureFixture) -> None:
    """Texts and errors in a line of the package's log are printable, numbers are formatted as usual."""
    logging.getLogger("exponea_async").warning("%s %r %s %d %.1f", EVIL, EVIL, ValueError(EVIL), 5, 0.25)

    assert caplog.messages[0].isprintable()
    assert caplog.messages[0].endswith("5 0.2")


def _rejected(request: ReceivedRequest) -> web.Response:
    return request.respond([EVIL] * len(request.commands))


def _forbidden(_request: ReceivedRequest) -> web.Response:
    return web.json_response({"errors": [EVIL]}, status=403)


def _redirected(_request: ReceivedRequest) -> web.Response:
    return web.Response(status=302, headers={"Location": "https://other.example/\x1b[31m\x9b"})


def _unavailable(_request: ReceivedRequest) -> web.Response:
    return web.json_response({"message": EVIL}, status=503)


@pytest.mark.parametrize("script", [_rejected, _forbidden, _redirected, _unavailable])
async def test_text_of_the_platform(
    connect: Connect, script: Callable[[ReceivedRequest], web.Response], caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever a response says, it reaches logs, listeners, statistics, receipts and dead letters printable."""
    caplog.set_level(logging.DEBUG, "exponea_async")
    deliveries = DeliveryLog()
    noted = asyncio.Event()
    async with ScriptedServer(script) as server:
        hooks = Hooks(listeners=[deliveries, lambda _event: noted.set()])
        client = await connect(base_url=server.url, hooks=hooks)
        receipt = await client.track_event(Event("x"))
        await noted.wait()
        letters = await dead_letters(client)
    texts = [*caplog.messages, *client.stats().paused.values(), *(letter.reason for letter in letters)]
    texts += [text for each in deliveries for text in (each.reason, str(each.error))]
    if receipt.status == "rejected":
        with pytest.raises(RejectedError) as caught:
            await receipt.delivered()
        texts += [str(caught.value), caught.value.reason]

    assert len(texts) > 1
    assert [text for text in texts if not text.isprintable()] == []


async def test_text_of_the_application(connect: Connect) -> None:
    """A name of a property, a type of an id and a device's key are printable in errors."""
    client = await connect()
    errors = []
    for call in (
        client.track_event(Event("x", {EVIL: object()})),
        client.identify_customer({EVIL: ""}),
        client.track_event(Event("x", timestamp=EVIL)),  # type: ignore[arg-type]
    ):
        with pytest.raises(InvalidEventError) as caught:
            await call
        errors.append(caught.value)

    assert all(str(error).isprintable() for error in errors)
    assert errors[0].path == f"properties.{EVIL}"
