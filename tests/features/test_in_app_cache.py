"""
In-app messages in memory: each distinct one once, and not more than there is room for.
"""

import json
import logging
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from in_app_world import has, message, upon

from exponea_async.errors import RequestRefusedError, UnavailableError
from exponea_async.features._shared.targeting.filters import TriggerEvent
from exponea_async.features.in_app.cache import PER_LIST, PER_PLACE, Cache
from exponea_async.features.in_app.parsing import (
    Definition,
    digest_of,
    matching,
    payload_urls,
    read_definition,
    read_message,
)

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


def body(*messages: Any) -> bytes:
    return json.dumps({"success": True, "results": list(messages)}).encode()


def definition(**fields: Any) -> Definition:
    source = json.dumps(message(**fields)).encode()
    return read_definition(json.loads(source), source)


def ids(cache: Cache, mark: str) -> list[str] | None:
    loaded = cache.find(mark)
    return None if loaded is None else [each.id for each in loaded.content.definitions]


class TestReading:
    def test_a_message_as_a_whole(self) -> None:
        """All that the platform tells of a message is there, in seconds where it is a span."""
        read = read_message(
            message(
                "65ab01",
                message_type="SLIDE_IN",
                load_priority=5,
                load_delay=500,
                close_timeout=None,
                has_tracking_consent=True,
                consent_category_tracking="newsletter",
            )
        )
        assert (read.id, read.name, read.message_type) == ("65ab01", "Message 65ab01", "slide_in")
        assert (read.load_priority, read.load_delay, read.close_timeout) == (5, 0.5, 4.0)
        assert (read.title, read.body_text, read.image_url) == ("Still thinking?", "Your basket waits", None)
        assert [(each.text, each.url, each.kind) for each in read.buttons] == [
            ("Open", "app://cart", "deep-link"),
            ("No", None, "cancel"),
        ]
        assert read.consent_category_tracking == "newsletter"

    @pytest.mark.parametrize(
        ("fields", "kind"),
        [
            ({"message_type": "alert"}, "alert"),
            ({"message_type": "Fullscreen"}, "fullscreen"),
            ({"message_type": "carousel"}, "modal"),
            ({"message_type": None}, "modal"),
            ({"message_type": 7}, "modal"),
            ({"message_type": "alert", "is_html": True}, "freeform"),
        ],
    )
    def test_types(self, fields: dict[str, Any], kind: str) -> None:
        """HTML is freeform; one that is not known is modal, as the Android SDK takes it."""
        assert read_message(message(**fields)).message_type == kind

    @pytest.mark.parametrize("name", ["id", "name", "frequency", "variant_id", "variant_name"])
    @pytest.mark.parametrize("wrong", [..., None, [], {}, True, "x" * 2000])
    def test_what_has_to_be_there(self, name: str, wrong: Any) -> None:
        """A message without one of these can't be used."""
        value = {**message(), name: wrong}
        if wrong is ...:
            del value[name]
        with pytest.raises((ValueError, KeyError)):
            read_definition(value, b"")

    @pytest.mark.parametrize("wrong", [None, [], {}, True, "x", -1, 10**400, 1e308, -(10**400)])
    @pytest.mark.parametrize(
        "name",
        [
            "message_type",
            "payload",
            "payload_html",
            "is_html",
            "is_rich_text",
            "load_priority",
            "load_delay",
            "close_timeout",
            "has_tracking_consent",
            "consent_category_tracking",
        ],
    )
    def test_what_may_be_wrong(self, name: str, wrong: Any) -> None:
        """What is wrong beside that counts as not there, and the message is used."""
        assert read_definition({**message(), name: wrong}, b"").id == "m"

    @given(st.dictionaries(st.sampled_from(list(message())), JSON), JSON)
    def test_anything(self, fields: dict[str, Any], payload: Any) -> None:
        """Whatever is sent is a message, or an error that is known."""
        for value in ({**message(), **fields}, {**message(), "payload": payload}, payload):
            try:
                payload_urls(read_message(value))
                read_definition(value, b"")
            except (ValueError, KeyError):
                continue

    def test_buttons(self) -> None:
        """What is no button is left out; one that is switched off is, where buttons can be."""
        payload = {"buttons": [1, {"button_type": "zoom", "button_link": " a:b "}, {"button_enabled": False}]}
        assert [each.kind for each in read_message(message(payload=payload)).buttons] == ["deep-link", "deep-link"]
        (rich,) = read_message(message(payload=payload, is_rich_text=True)).buttons
        assert rich.url == "a:b"
        assert read_message(message(payload={"buttons": "none"})).buttons == ()

    def test_addresses(self) -> None:
        """Pictures and fonts, each once, and no blank ones."""
        payload = {
            "image_url": "https://i/1",
            "close_button_image_url": " https://i/1 ",
            "title_font_url": "",
            "body_font_url": "https://f/1",
            "buttons": [{"button_font_url": "https://f/2"}, {"button_font_url": None}, 7],
        }
        assert payload_urls(read_message(message(payload=payload))) == ["https://i/1", "https://f/1", "https://f/2"]

    def test_too_many_conditions(self) -> None:
        """A trigger that nobody made by hand is not used."""
        with pytest.raises(ValueError, match="101 conditions"):
            definition(trigger=upon("x", *[has("a", "is set")] * 101))

    def test_no_trigger(self) -> None:
        """A message without a trigger is never shown."""
        assert matching((definition(trigger=None),), TriggerEvent("x", {}), 0.0) == []


class TestSharing:
    def test_the_same_answer(self) -> None:
        """Whoever has the same answer has the same list."""
        cache = Cache()
        for mark in ("a", "b"):
            cache.put(mark, cache.read(body(message())), 0.0)
        first, second = cache.find("a"), cache.find("b")
        assert first is not None
        assert second is not None
        assert first.content is second.content

    def test_the_same_message(self) -> None:
        """Another answer with a message that is known has that one."""
        cache = Cache()
        one, two = body(message("a"), message("b")), body(message("b"), message("c"))
        # Both are read before either is known, as where many load at once.
        read = cache.read(one), cache.read(two)
        for mark, content in zip("12", read, strict=True):
            cache.put(mark, content, 0.0)
        first, second = cache.find("1"), cache.find("2")
        assert first is not None
        assert second is not None
        assert first.content.definitions[1] is second.content.definitions[0]
        assert cache.cost == sum(definition(id_=each).cost for each in "abc") + 2 * PER_LIST + 4 * PER_PLACE

    def test_nothing_is_left(self) -> None:
        """When the last customer who has a message goes, the message goes."""
        cache = Cache()
        for mark, its in {"1": "ab", "2": "bc", "3": "ab"}.items():
            cache.put(mark, cache.read(body(*map(message, its))), 0.0)
        cache.put("1", cache.read(body()), 1.0)
        for mark in "123":
            assert cache.cost > 0
            cache.drop(mark)
        assert (cache.cost, cache._definitions, cache._contents, cache._uses) == (0, {}, {}, {})

    def test_the_order_is_kept(self) -> None:
        """Messages are in the order of the answer, known or not, each once."""
        cache = Cache()
        cache.put("1", cache.read(body(message("b"))), 0.0)
        cache.put("2", cache.read(body(message("c"), message("b"), message("a"), message("c"))), 0.0)
        assert ids(cache, "2") == ["c", "b", "a"]

    def test_one_that_is_broken_is_told_once(self, caplog: pytest.LogCaptureFixture) -> None:
        """Not for each customer who has it."""
        cache = Cache()
        with caplog.at_level(logging.WARNING):
            for mark in ("a", "b"):
                cache.put(mark, cache.read(body({"id": mark}, {"id": "broken"}, message(mark))), 0.0)
        assert len(caplog.records) == 3
        assert (ids(cache, "a"), ids(cache, "b")) == (["a"], ["b"])


class TestRoom:
    def test_customers(self) -> None:
        """Those who were asked for longest ago make room."""
        cache = Cache(capacity=2)
        for mark in "ab":
            cache.put(mark, cache.read(body(message(mark))), 0.0)
        cache.find("a")
        cache.put("c", cache.read(body()), 0.0)
        assert [ids(cache, mark) for mark in "abc"] == [["a"], None, []]
        assert len(cache) == 2

    def test_bytes(self) -> None:
        """Distinct messages do, once there is no room for them; the latest stays in any case."""
        size = definition(id_="0").cost
        cache = Cache(budget=5 * size)
        for number in range(9):
            cache.put(str(number), cache.read(body(message(str(number)))), 0.0)
        assert cache.cost <= 5 * size
        assert ids(cache, "8") == ["8"]
        assert 2 <= len(cache) <= 5
        cache.put("large", cache.read(body(*[message(str(number)) for number in range(20, 30)])), 0.0)
        assert len(cache) == 1
        assert len(ids(cache, "large") or ()) == 10

    def test_clear(self) -> None:
        """Nothing is left."""
        cache = Cache()
        cache.put("a", cache.read(body(message())), 0.0)
        cache.clear()
        assert (cache.find("a"), cache.cost, len(cache)) == (None, 0, 0)

    @given(st.lists(st.tuples(st.sampled_from("123"), st.text("abcd", max_size=4)), max_size=30))
    def test_the_cost_is_that_of_what_is_there(self, puts: list[tuple[str, str]]) -> None:
        """Whatever comes and goes."""
        cache = Cache(budget=12_000, capacity=2)
        for mark, its in puts:
            cache.put(mark, cache.read(body(*map(message, its))), 0.0)
        contents = {id(each.content): each.content for each in cache._customers.values()}.values()
        there = {id(each): each for content in contents for each in content.definitions}.values()
        assert cache.cost == sum(each.cost for each in there) + sum(
            PER_LIST + PER_PLACE * len(each.definitions) for each in contents
        )


class TestAnswers:
    @pytest.mark.parametrize("answer", [b"", b"<html>", b"[]", b"null", b"{}", b'{"success": 1}', b'{"success": true'])
    def test_no_envelope(self, answer: bytes) -> None:
        """What is no answer is not taken for one without messages."""
        with pytest.raises(UnavailableError):
            Cache().read(answer)

    def test_a_failure(self) -> None:
        """The platform may say that it failed."""
        with pytest.raises(RequestRefusedError, match="not today"):
            Cache().read(b'{"success": false, "errors": ["not today"]}')

    @pytest.mark.parametrize(
        "answer", [b'{"success": true}', b'{"success": true, "results": null}', b'{"success": true, "results": []}']
    )
    def test_nothing(self, answer: bytes) -> None:
        """There may be no messages."""
        assert Cache().read(answer).definitions == ()

    def test_digests(self) -> None:
        """A message is known by its bytes."""
        assert digest_of(b"a") == digest_of(b"a") != digest_of(b"b")
