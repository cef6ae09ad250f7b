"""
In-app messages from a platform that answers anything: events are kept, other messages are shown, nobody waits.
"""

import json
import logging
from typing import Any

import pytest
from helpers.app import Phone
from helpers.waiting import Ticking
from hypothesis import given
from hypothesis import strategies as st
from in_app_world import World, has, message, page, upon

from exponea_async import Event
from exponea_async.errors import RequestRefusedError, UnavailableError
from exponea_async.features.in_app import active as _in_app_stage
from exponea_async.features.in_app.cache import Cache
from exponea_async.sandbox import Sandbox

#: The event loop may be kept for so long at the most, in seconds: far more than is usual, for machines that are busy.
GAP = 1.0
DEEP = "[" * 100_000 + "]" * 100_000


def answer(*elements: str) -> str:
    """Make an answer of elements that are JSON already."""
    return f'{{"success": true, "results": [{",".join(elements)}]}}'


GOOD = json.dumps(message("good"))
BROKEN_ANSWERS = {
    "empty": "",
    "no JSON": "Sorry!",
    "HTML": "<html><body>Bad gateway</body></html>",
    "null": "null",
    "a list": f"[{GOOD}]",
    "a number": "1e999",
    "cut off": answer(GOOD)[:-9],
    "no success": '{"results": []}',
    "a failure": '{"success": false, "errors": {"x": ["no"]}}',
    "messages that are no list": '{"success": true, "results": {"a": 1}}',
    "deep": f'{{"success": true, "results": {DEEP}',
    "no end of it": '{"success": true, "results": [' + GOOD + ",",
}
BROKEN_ELEMENTS = {
    "null": "null",
    "a number": "1e400",
    "a text": '"x"',
    "a list": "[[]]",
    "nothing in it": "{}",
    "deep": DEEP,
    "a half of a letter": json.dumps(message("m", name="x")).replace('"x"', '"\\ud800"', 1),
    "NaN": GOOD.replace('"variant_id": 0', '"variant_id": NaN'),
    "an unknown operator": json.dumps(message(trigger=upon("x", has("a", "resembles", "b")))),
    "an unknown constraint": json.dumps(message(trigger=upon("x", has("a", "equals", "b", kind="colour")))),
    "a trigger that is a text": json.dumps(message(trigger="x")),
    "dates that are words": json.dumps(message(date_filter={"enabled": "yes"})),
    "a list of dates": json.dumps(message(date_filter=[1])),
    "no id": json.dumps(message(id=7)),
    "a name of no end": json.dumps(message(name="x" * 100_000)),
    "a variant beyond measure": json.dumps(message(variant_id=10**30)),
    "no end of conditions": json.dumps(message(trigger=upon("x", *[has("a", "is not set")] * 5_000))),
    "too large": json.dumps(message(payload={"title": "x" * 2_500_000})),
}
ODD_ELEMENTS = {
    "a payload of lists": message(payload={"buttons": {"a": 1}, "title": [1], "image_url": {}}),
    "no end of buttons": message(payload={"buttons": [{"button_text": "x"}] * 1_000}),
    "a delay that is a text": message(load_delay="soon"),
    "a delay below nothing": message(load_delay=-5),
    "a delay that is a bool": message(load_delay=True),
    "a priority of words": message(load_priority="high"),
    "a consent that is a list": message(has_tracking_consent=[]),
    "a category of no end": message(consent_category_tracking="x" * 100_000),
    "a frequency that nobody knows": message(frequency="sometimes"),
    "an answer within": message(success=False, results=[{}]),
    "brackets in a text": message(payload={"title": ']}],{"[\\"'}),
}


@pytest.fixture
def world(phone: Phone, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> World:
    return World(phone, sandbox, monkeypatch)


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    # However long a busy machine takes to read a huge answer, its messages are not to come too late.
    monkeypatch.setattr(_in_app_stage, "PATIENCE", 60.0)


async def told(world: World, body: str) -> list[str]:
    """Track something with a platform that answers so, and tell what is shown; the event is kept and nobody waits."""
    world.sandbox.messages.set_response("inappmessages", body)
    await world.start()
    async with Ticking() as ticking:
        shown = await world.track()
    assert [each.name for each in await world.phone.kept("x")] == ["x"]
    assert ticking.gap < GAP
    return shown


@pytest.mark.parametrize("body", BROKEN_ANSWERS.values(), ids=BROKEN_ANSWERS)
async def test_answers(world: World, body: str) -> None:
    """Nothing is shown for an answer that is none; the next answer is as good as ever, and who asks is told."""
    assert await told(world, body) == []
    with pytest.raises((UnavailableError, RequestRefusedError)):
        await world.client.in_app_message_for(Event("x"))
    world.sandbox.messages.set_response("inappmessages", answer(GOOD))
    assert await world.track() == ["good"]


@pytest.mark.parametrize("element", BROKEN_ELEMENTS.values(), ids=BROKEN_ELEMENTS)
async def test_elements(world: World, element: str, caplog: pytest.LogCaptureFixture) -> None:
    """A message that is broken loses only itself."""
    with caplog.at_level(logging.WARNING):
        assert await told(world, answer(element, GOOD, element)) == ["good"]
    assert "In-app message 0 of a response is skipped" in caplog.text


@pytest.mark.parametrize("element", ODD_ELEMENTS.values(), ids=ODD_ELEMENTS)
async def test_odd_elements(world: World, element: dict[str, Any]) -> None:
    """A message is shown in spite of what is wrong beside what it has to have."""
    assert await told(world, answer(json.dumps(element))) == ["m"]
    (given,) = [shown.message for shown in world.part.stage._devices.values()]
    for button in given.buttons[:3]:
        await world.client.click_in_app_message(given, button)
    await world.client.close_in_app_message(given)


async def test_ten_megabytes(world: World) -> None:
    """A large answer is read beside the event loop."""
    many = [json.dumps(message(f"m{number}", payload={"title": "x" * 20_000})) for number in range(500)]
    assert await told(world, answer(*many, GOOD)) != []


async def test_a_million_elements(world: World) -> None:
    """Nobody looks at more messages than people could have made."""
    assert await told(world, answer(GOOD, *["{}"] * 1_000_000)) == ["good"]


async def test_large_html(world: World) -> None:
    """So is large HTML."""
    source = "<p>Sale <a href='https://s.example/'>now</a></p>" * 8_000
    assert await told(world, answer(json.dumps(page(source=source)))) in (["m"], [])


async def test_slow_triggers(world: World) -> None:
    """Triggers that take long are not waited for beyond measure."""
    slow = [
        json.dumps(message(f"m{number}", trigger=upon("x", has("text", "regex", "(a+)+$"), has("n", "is set"))))
        for number in range(300)
    ]
    world.sandbox.messages.set_response("inappmessages", answer(*slow))
    await world.start()
    async with Ticking() as ticking:
        await world.track(text="a" * 5_000 + "b")
    assert ticking.gap < GAP


JUNK = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=8,
)


@given(st.lists(st.dictionaries(st.sampled_from(list(message())), JUNK) | JUNK, max_size=4), st.integers(0, 4))
def test_anything_beside_a_good_one(junk: list[Any], place: int) -> None:
    """Whatever stands beside a good message, the good one is there."""
    elements = [json.dumps({**message("odd"), **each} if isinstance(each, dict) else each) for each in junk]
    elements.insert(place, GOOD)
    content = Cache().read(answer(*elements).encode())
    assert [each.id for each in content.definitions].count("good") == 1


@given(st.binary() | st.text().map(str.encode))
def test_any_bytes(body: bytes) -> None:
    """Any bytes are an answer, or an error that is known."""
    try:
        Cache().read(body)
    except (UnavailableError, RequestRefusedError):
        return
