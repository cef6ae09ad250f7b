"""
In-app messages from a platform that responds with anything: events are recorded, other messages are shown, and nothing
blocks.
"""

import json
import logging
from typing import Any

import pytest
from helpers.in_app import InAppFixture, condition, html_message, message, trigger
from helpers.waiting import LoopMonitor
from hypothesis import given
from hypothesis import strategies as st

from exponea_async import Event
from exponea_async.errors import RequestRefusedError, UnavailableError
from exponea_async.features.in_app.cache import MessageCache

#: Maximum time for which the event loop may be blocked, in seconds: far more than usual, because machines may be busy.
MAX_GAP = 2.0
DEEP = "[" * 100_000 + "]" * 100_000


def response(*elements: str) -> str:
    """Return a response with elements that are JSON already."""
    return f'{{"success": true, "results": [{",".join(elements)}]}}'


GOOD = json.dumps(message("good"))
BROKEN_RESPONSES = {
    "empty": "",
    "no JSON": "Sorry!",
    "HTML": "<html><body>Bad gateway</body></html>",
    "null": "null",
    "a list": f"[{GOOD}]",
    "a number": "1e999",
    "cut off": response(GOOD)[:-9],
    "no success": '{"results": []}',
    "a failure": '{"success": false, "errors": {"x": ["no"]}}',
    "an object for the list": '{"success": true, "results": {"a": 1}}',
    "deep": f'{{"success": true, "results": {DEEP}',
    "an open list": '{"success": true, "results": [' + GOOD + ",",
}
BROKEN_ELEMENTS = {
    "null": "null",
    "a number": "1e400",
    "a string": '"x"',
    "a list": "[[]]",
    "an empty object": "{}",
    "deep": DEEP,
    "half a surrogate pair": json.dumps(message("m", name="x")).replace('"x"', '"\\ud800"', 1),
    "NaN": GOOD.replace('"variant_id": 0', '"variant_id": NaN'),
    "an unknown operator": json.dumps(message(trigger=trigger("x", condition("a", "resembles", "b")))),
    "an unknown constraint": json.dumps(message(trigger=trigger("x", condition("a", "equals", "b", kind="colour")))),
    "a trigger that is a string": json.dumps(message(trigger="x")),
    "dates that are strings": json.dumps(message(date_filter={"enabled": "yes"})),
    "a list of dates": json.dumps(message(date_filter=[1])),
    "no id": json.dumps(message(id=7)),
    "a long name": json.dumps(message(name="x" * 100_000)),
    "a huge variant": json.dumps(message(variant_id=10**30)),
    "too many conditions": json.dumps(message(trigger=trigger("x", *[condition("a", "is not set")] * 5_000))),
    "too large": json.dumps(message(payload={"title": "x" * 2_500_000})),
}
ODD_ELEMENTS = {
    "a payload of lists": message(payload={"buttons": {"a": 1}, "title": [1], "image_url": {}}),
    "many buttons": message(payload={"buttons": [{"button_text": "x"}] * 1_000}),
    "a delay that is a string": message(load_delay="soon"),
    "a negative delay": message(load_delay=-5),
    "a delay that is a bool": message(load_delay=True),
    "a priority that is a string": message(load_priority="high"),
    "a consent that is a list": message(has_tracking_consent=[]),
    "a long category": message(consent_category_tracking="x" * 100_000),
    "an unknown frequency": message(frequency="sometimes"),
    "fields of an envelope": message(success=False, results=[{}]),
    "brackets in a string": message(payload={"title": ']}],{"[\\"'}),
}


async def start(in_app: InAppFixture, body: str) -> None:
    """Start a client of a platform with this response."""
    in_app.sandbox.messages.set_response("inappmessages", body)
    await in_app.start()
    # However long a busy machine takes to read a huge response, its messages must not be too late.
    in_app.service.pending.max_wait = 60.0


async def shown_for(in_app: InAppFixture, body: str) -> list[str]:
    """Track an event on a platform with this response, and return the ids of the messages that are shown."""
    await start(in_app, body)
    async with LoopMonitor() as ticking:
        shown = await in_app.track()
    assert [each.name for each in await in_app.app.pending("x")] == ["x"]
    assert ticking.gap < MAX_GAP
    return shown


@pytest.mark.parametrize("body", BROKEN_RESPONSES.values(), ids=BROKEN_RESPONSES)
async def test_broken_responses(in_app: InAppFixture, body: str) -> None:
    """Nothing is shown for a broken response, which is an error to a caller; the next response is used."""
    assert await shown_for(in_app, body) == []
    with pytest.raises((UnavailableError, RequestRefusedError)):
        await in_app.client.in_app_message_for(Event("x"))
    in_app.sandbox.messages.set_response("inappmessages", response(GOOD))
    assert await in_app.track() == ["good"]


@pytest.mark.parametrize("element", BROKEN_ELEMENTS.values(), ids=BROKEN_ELEMENTS)
async def test_broken_elements(in_app: InAppFixture, element: str, caplog: pytest.LogCaptureFixture) -> None:
    """A broken message is skipped, and the others are used."""
    with caplog.at_level(logging.WARNING):
        assert await shown_for(in_app, response(element, GOOD, element)) == ["good"]
    assert "In-app message 0 of a response is skipped" in caplog.text


@pytest.mark.parametrize("element", ODD_ELEMENTS.values(), ids=ODD_ELEMENTS)
async def test_odd_elements(in_app: InAppFixture, element: dict[str, Any]) -> None:
    """A message is shown in spite of wrong optional fields."""
    assert await shown_for(in_app, response(json.dumps(element))) == ["m"]
    active = in_app.service.active.on_device("@default")
    assert active is not None
    for button in active.message.buttons[:3]:
        await in_app.client.click_in_app_message(active.message, button)
    await in_app.client.close_in_app_message(active.message)


async def test_ten_megabytes(in_app: InAppFixture) -> None:
    """A large response is read without blocking the event loop."""
    many = [json.dumps(message(f"m{number}", payload={"title": "x" * 20_000})) for number in range(500)]
    assert await shown_for(in_app, response(*many, GOOD)) != []


async def test_twice_as_many_elements_as_are_read(in_app: InAppFixture) -> None:
    """Messages beyond the limit are ignored."""
    assert await shown_for(in_app, response(GOOD, *["{}"] * 400_000)) == ["good"]


async def test_large_html(in_app: InAppFixture) -> None:
    """Large HTML is read without blocking the event loop."""
    source = "<p>Sale <a href='https://s.example/'>now</a></p>" * 8_000
    assert await shown_for(in_app, response(json.dumps(html_message(source=source)))) in (["m"], [])


async def test_slow_triggers(in_app: InAppFixture) -> None:
    """Triggers that take too long do not block the event loop."""
    slow = [
        json.dumps(
            message(f"m{number}", trigger=trigger("x", condition("text", "regex", "(a+)+$"), condition("n", "is set")))
        )
        for number in range(300)
    ]
    await start(in_app, response(*slow))
    async with LoopMonitor() as ticking:
        await in_app.track(text="a" * 5_000 + "b")
    assert ticking.gap < MAX_GAP


JUNK = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=8,
)


@given(st.lists(st.dictionaries(st.sampled_from(list(message())), JUNK) | JUNK, max_size=4), st.integers(0, 4))
def test_anything_beside_a_good_one(junk: list[Any], place: int) -> None:
    """A good message is used, whatever is next to it."""
    elements = [json.dumps({**message("odd"), **each} if isinstance(each, dict) else each) for each in junk]
    elements.insert(place, GOOD)
    content = MessageCache().read(response(*elements).encode())
    assert [each.id for each in content.definitions].count("good") == 1


@given(st.binary() | st.text().map(str.encode))
def test_any_bytes(body: bytes) -> None:
    """Any bytes are a response, or raise one of these errors."""
    try:
        MessageCache().read(body)
    except (UnavailableError, RequestRefusedError):
        return
