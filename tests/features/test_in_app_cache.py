"""
In-app messages in memory: each distinct message once, and within the limits.
"""

import json
import logging
from typing import Any

import pytest
from helpers.in_app import condition, message, trigger
from hypothesis import given
from hypothesis import strategies as st

from exponea_async.errors import RequestRefusedError, UnavailableError
from exponea_async.features._shared.targeting.filters import TriggerEvent
from exponea_async.features.in_app.cache import ENTRY_OVERHEAD, LIST_OVERHEAD, MessageCache
from exponea_async.features.in_app.parsing import (
    MessageDefinition,
    digest_of,
    matching_messages,
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


def definition(**fields: Any) -> MessageDefinition:
    source = json.dumps(message(**fields)).encode()
    return read_definition(json.loads(source), source)


def ids(cache: MessageCache, fingerprint: str) -> list[str] | None:
    loaded = cache.get(fingerprint)
    return None if loaded is None else [each.id for each in loaded.messages.definitions]


class TestReading:
    def test_a_whole_message(self) -> None:
        """All fields of a message are read, durations in seconds."""
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
        """A message with HTML is freeform; an unknown type is modal, as in the Android SDK."""
        assert read_message(message(**fields)).message_type == kind

    @pytest.mark.parametrize("name", ["id", "name", "frequency", "variant_id", "variant_name"])
    @pytest.mark.parametrize("wrong", [..., None, [], {}, True, "x" * 2000])
    def test_required_fields(self, name: str, wrong: Any) -> None:
        """A message without one of these fields can't be used."""
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
    def test_optional_fields(self, name: str, wrong: Any) -> None:
        """Any other field that is wrong counts as missing, and the message is used."""
        assert read_definition({**message(), name: wrong}, b"").id == "m"

    @given(st.dictionaries(st.sampled_from(list(message())), JSON), JSON)
    def test_any_json(self, fields: dict[str, Any], payload: Any) -> None:
        """Any JSON is a message, or raises one of these errors."""
        for value in ({**message(), **fields}, {**message(), "payload": payload}, payload):
            try:
                payload_urls(read_message(value))
                read_definition(value, b"")
            except (ValueError, KeyError):
                continue

    def test_buttons(self) -> None:
        """Something else than a button is left out, and an unknown type is a deep link."""
        payload = {"buttons": [1, {"button_type": "zoom", "button_link": " a:b "}, {"button_enabled": False}]}
        assert [each.kind for each in read_message(message(payload=payload)).buttons] == ["deep-link", "deep-link"]
        assert read_message(message(payload={"buttons": "none"})).buttons == ()

    @pytest.mark.parametrize("switch", [True, False, None, 1, "true", ...])
    @pytest.mark.parametrize("kind", ["modal", "fullscreen", "slide_in", "alert"])
    @pytest.mark.parametrize("is_rich", [True, False])
    def test_parts_that_are_switched_on(self, switch: Any, kind: str, *, is_rich: bool) -> None:
        """In the rich-text style, a part is shown only if the payload switches it on; alerts have no such style."""
        switches = {"title": "title_enabled", "body_text": "body_enabled", "image_url": "image_enabled"}
        payload: dict[str, Any] = {"title": "T", "body_text": "B", "image_url": "https://i"}
        button: dict[str, Any] = {"button_text": "Open", "button_link": "a:b"}
        if switch is not ...:
            payload |= dict.fromkeys(switches.values(), switch)
            button["button_enabled"] = switch
        payload["buttons"] = [button]
        read = read_message(message(payload=payload, is_rich_text=is_rich, message_type=kind))

        is_shown = not is_rich or kind == "alert" or switch is True
        expected = ("T", "B", "https://i", 1) if is_shown else (None, None, None, 0)
        assert (read.title, read.body_text, read.image_url, len(read.buttons)) == expected
        assert read.payload == payload

    @pytest.mark.parametrize("text", ["", None, ...])
    def test_buttons_without_text(self, text: Any) -> None:
        """In the rich-text style, a button without a text is not shown."""
        button = {"button_enabled": True, "button_link": "a:b"} | ({} if text is ... else {"button_text": text})
        payload = {"buttons": [button, {"button_enabled": True, "button_text": "Open"}]}
        rich = read_message(message(payload=payload, is_rich_text=True))
        assert [each.text for each in rich.buttons] == ["Open"]
        assert len(read_message(message(payload=payload)).buttons) == 2

    def test_urls_of_parts_that_are_switched_off(self) -> None:
        """The images and fonts of parts that are not shown are not needed."""
        fields = ("image_url", "close_button_image_url", "title_font_url", "body_font_url")
        payload: dict[str, Any] = {name: f"https://{name}" for name in fields}
        payload["buttons"] = [{"button_text": "Open", "button_font_url": "https://button"}]
        assert payload_urls(read_message(message(payload=payload, is_rich_text=True))) == [
            "https://close_button_image_url"
        ]
        payload |= {"image_enabled": True, "body_enabled": True}
        payload["buttons"][0]["button_enabled"] = True
        assert payload_urls(read_message(message(payload=payload, is_rich_text=True))) == [
            "https://image_url",
            "https://close_button_image_url",
            "https://body_font_url",
            "https://button",
        ]

    def test_urls(self) -> None:
        """The URLs of images and fonts are returned once each, without blank ones."""
        payload = {
            "image_url": "https://i/1",
            "close_button_image_url": " https://i/1 ",
            "title_font_url": "",
            "body_font_url": "https://f/1",
            "buttons": [{"button_font_url": "https://f/2"}, {"button_font_url": None}, 7],
        }
        assert payload_urls(read_message(message(payload=payload))) == ["https://i/1", "https://f/1", "https://f/2"]

    def test_too_many_conditions(self) -> None:
        """A trigger with too many conditions is not used."""
        with pytest.raises(ValueError, match="at most 100 conditions, got 101"):
            definition(trigger=trigger("x", *[condition("a", "is set")] * 101))

    def test_no_trigger(self) -> None:
        """A message without a trigger is never shown."""
        assert matching_messages((definition(trigger=None),), TriggerEvent("x", {}), 0.0) == []


class TestSharing:
    def test_the_same_response(self) -> None:
        """Customers with the same response share one list."""
        cache = MessageCache()
        for fingerprint in ("a", "b"):
            cache.put(fingerprint, cache.read(body(message())), 0.0)
        first, second = cache.get("a"), cache.get("b")
        assert first is not None
        assert second is not None
        assert first.messages is second.messages

    def test_the_same_message(self) -> None:
        """Lists with the same message share it."""
        cache = MessageCache()
        one, two = body(message("a"), message("b")), body(message("b"), message("c"))
        # Both are read before either is known, as where many load at once.
        read = cache.read(one), cache.read(two)
        for fingerprint, content in zip("12", read, strict=True):
            cache.put(fingerprint, content, 0.0)
        first, second = cache.get("1"), cache.get("2")
        assert first is not None
        assert second is not None
        assert first.messages.definitions[1] is second.messages.definitions[0]
        assert (
            cache.size
            == sum(definition(id_=each).memory_size for each in "abc") + 2 * LIST_OVERHEAD + 4 * ENTRY_OVERHEAD
        )

    def test_nothing_is_left(self) -> None:
        """A message is removed with the last customer who has it."""
        cache = MessageCache()
        for fingerprint, letters in {"1": "ab", "2": "bc", "3": "ab"}.items():
            cache.put(fingerprint, cache.read(body(*map(message, letters))), 0.0)
        cache.put("1", cache.read(body()), 1.0)
        for fingerprint in "123":
            assert cache.size > 0
            cache.drop(fingerprint)
        assert (cache.size, cache.definitions, cache.lists, cache.uses) == (0, {}, {}, {})

    def test_the_order_is_kept(self) -> None:
        """Messages are in the order of the response, each once, whether they were known or not."""
        cache = MessageCache()
        cache.put("1", cache.read(body(message("b"))), 0.0)
        cache.put("2", cache.read(body(message("c"), message("b"), message("a"), message("c"))), 0.0)
        assert ids(cache, "2") == ["c", "b", "a"]

    def test_a_broken_message_is_logged_once(self, caplog: pytest.LogCaptureFixture) -> None:
        """A broken message is logged once, and not for each customer who has it."""
        cache = MessageCache()
        with caplog.at_level(logging.WARNING):
            for fingerprint in ("a", "b"):
                cache.put(
                    fingerprint, cache.read(body({"id": fingerprint}, {"id": "broken"}, message(fingerprint))), 0.0
                )
        assert len(caplog.records) == 3
        assert (ids(cache, "a"), ids(cache, "b")) == (["a"], ["b"])


class TestLimits:
    def test_customers(self) -> None:
        """The least recently used customers are evicted first."""
        cache = MessageCache(max_customers=2)
        for fingerprint in "ab":
            cache.put(fingerprint, cache.read(body(message(fingerprint))), 0.0)
        cache.get("a")
        cache.put("c", cache.read(body()), 0.0)
        assert [ids(cache, fingerprint) for fingerprint in "abc"] == [["a"], None, []]
        assert len(cache) == 2

    def test_bytes(self) -> None:
        """Customers are evicted until the distinct messages fit; the latest customer stays in any case."""
        size = definition(id_="0").memory_size
        cache = MessageCache(max_bytes=5 * size)
        for number in range(9):
            cache.put(str(number), cache.read(body(message(str(number)))), 0.0)
        assert cache.size <= 5 * size
        assert ids(cache, "8") == ["8"]
        assert 2 <= len(cache) <= 5
        cache.put("large", cache.read(body(*[message(str(number)) for number in range(20, 30)])), 0.0)
        assert len(cache) == 1
        assert len(ids(cache, "large") or ()) == 10

    def test_clear(self) -> None:
        """After clearing the cache, nothing is left."""
        cache = MessageCache()
        cache.put("a", cache.read(body(message())), 0.0)
        cache.clear()
        assert (cache.get("a"), cache.size, len(cache)) == (None, 0, 0)

    @given(st.lists(st.tuples(st.sampled_from("123"), st.text("abcd", max_size=4)), max_size=30))
    def test_the_size_is_that_of_the_content(self, puts: list[tuple[str, str]]) -> None:
        """The size is that of the distinct lists and messages, whatever was added and evicted."""
        cache = MessageCache(max_bytes=12_000, max_customers=2)
        for fingerprint, letters in puts:
            cache.put(fingerprint, cache.read(body(*map(message, letters))), 0.0)
        contents = {id(each.messages): each.messages for each in cache.customers.values()}.values()
        there = {id(each): each for content in contents for each in content.definitions}.values()
        assert cache.size == sum(each.memory_size for each in there) + sum(
            LIST_OVERHEAD + ENTRY_OVERHEAD * len(each.definitions) for each in contents
        )


class TestResponses:
    @pytest.mark.parametrize(
        "response", [b"", b"<html>", b"[]", b"null", b"{}", b'{"success": 1}', b'{"success": true']
    )
    def test_no_envelope(self, response: bytes) -> None:
        """A body that is not a response is not read as one without messages."""
        with pytest.raises(UnavailableError):
            MessageCache().read(response)

    def test_a_failure(self) -> None:
        """A failure that the platform reports is raised."""
        with pytest.raises(RequestRefusedError, match="not today"):
            MessageCache().read(b'{"success": false, "errors": ["not today"]}')

    @pytest.mark.parametrize(
        "response", [b'{"success": true}', b'{"success": true, "results": null}', b'{"success": true, "results": []}']
    )
    def test_no_messages(self, response: bytes) -> None:
        """A response may contain no messages."""
        assert MessageCache().read(response).definitions == ()

    def test_digests(self) -> None:
        """Equal bytes have equal digests, and different ones have different digests."""
        assert digest_of(b"a") == digest_of(b"a") != digest_of(b"b")
