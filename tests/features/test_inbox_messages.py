"""
The messages of the app inbox as the platform tells them, whatever it tells; and how they are kept.
"""

import json
import logging
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from inbox_world import html, ids_of, push

from exponea_async._internal import json as _json
from exponea_async.features._shared.html.reader import SafeHtml, read_html
from exponea_async.features.inbox import mailbox as _inbox_cache
from exponea_async.features.inbox.mailbox import Mailbox, Mailboxes, pack, read_entries, unpack
from exponea_async.features.inbox.parsing import FetchInfo, read_heads, read_message
from exponea_async.messages import AppInboxAction, AppInboxMessage

STAMP = FetchInfo({"registered": "jane"}, 1000.0, "token")
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=8,
)
CONTENT_KEYS = [
    "title", "message", "image", "action", "url", "actions", "data", "attributes", "url_params", "pre_header",
    "consent_category_tracking", "has_tracking_consent",
]  # fmt: skip


def page(source: str) -> SafeHtml | None:
    """Make HTML safe."""
    return read_html(source, ensure_close=False)


def encoded(*messages: Any) -> list[bytes]:
    """Make messages the pieces of an answer."""
    return [json.dumps(each).encode() for each in messages]


def read(*messages: Any) -> list[AppInboxMessage]:
    """Read messages."""
    return [entry.message for entry in read_entries(encoded(*messages), {}, STAMP, page)]


def read_one(message: Any) -> AppInboxMessage:
    """Read a message."""
    (told,) = read(message)
    return told


def mailbox(*messages: Any, token: str | None = "token") -> Mailbox:
    """Make a mailbox with messages."""
    return Mailbox("mark").merged(read_entries(encoded(*messages), {}, STAMP, page), token)


class TestReading:
    def test_a_push_message(self) -> None:
        """A message says all that is in it."""
        message = read_one(
            {
                **push(
                    image="https://img.example/2.png",
                    action="deeplink",
                    url="app://offers",
                    actions=[{"action": "browser", "title": "Web", "url": "https://s.example"}],
                    attributes={"campaign_id": "c1", "event_type": "campaign", "sent_timestamp": 1700000099.0},
                    url_params={"utm_source": "inbox", "xnpe_cmp": "zz", "other": "x"},
                    consent_category_tracking="push",
                    has_tracking_consent=True,
                ),
                "is_read": True,
            }
        )
        assert message == AppInboxMessage(
            id="m1",
            type="push",
            is_read=True,
            create_time=5.0,
            content=message.content,
            title="Hello",
            message="World",
            image_url="https://img.example/2.png",
            action=AppInboxAction("deeplink", None, "app://offers"),
            actions=(AppInboxAction("browser", "Web", "https://s.example"),),
            tracking_data={
                "campaign_id": "c1",
                "sent_timestamp": 1700000099.0,
                "utm_source": "inbox",
                "xnpe_cmp": "zz",
            },
            has_tracking_consent=True,
            consent_category_tracking="push",
            customer_ids={"registered": "jane"},
            sync_token="token",
        )
        assert message.content["title"] == "Hello"

    def test_an_html_message(self) -> None:
        """HTML is made safe, and its preview is the message's text."""
        message = read_one(
            html(source="<script>evil()</script><p onclick='evil()'>News</p>", image="https://i.example")
        )
        assert message.html == "<p>News</p>"
        assert (message.title, message.message, message.image_url) == ("News", "Short", "https://i.example")
        assert (message.action, message.actions) == (None, ())
        assert "evil" in message.content["message"]

    def test_attributes(self) -> None:
        """Of two places for them one counts, and in HTML only the other is one."""
        both: dict[str, Any] = {"data": {"a": 1}, "attributes": {"b": 2}}
        assert read_one(push(**both)).tracking_data == {"a": 1}
        assert read_one(html(**both)).tracking_data == {"b": 2}

    def test_texts_within(self) -> None:
        """Parts may be JSON within a text, as in push notifications."""
        message = read_one(
            push(
                actions='[{"action": "app", "title": "Open"}, 7, null]',
                attributes='{"campaign_id": "c2"}',
                url_params='{"utm_source": "mail"}',
            )
        )
        assert message.actions == (AppInboxAction("app", "Open"),)
        assert message.tracking_data == {"campaign_id": "c2", "utm_source": "mail"}
        assert read_one(push(actions="[{")).actions == ()

    @pytest.mark.parametrize(
        ("told", "action"),
        [
            ({}, None),
            ({"action": "app"}, AppInboxAction("app")),
            ({"action": "browser", "url": "https://s.example"}, AppInboxAction("browser", None, "https://s.example")),
            ({"action": "self-check"}, AppInboxAction("no_action")),
            ({"action": ["app"]}, AppInboxAction("no_action")),
            ({"url": "mailto:a@b.example"}, AppInboxAction("no_action", None, "mailto:a@b.example")),
            ({"action": "app", "url": " "}, AppInboxAction("app")),
        ],
    )
    def test_the_main_action(self, told: dict[str, Any], action: AppInboxAction | None) -> None:
        """What a press on the message does is one of three things, or nothing; links stay as they are."""
        assert read_one(push(**told)).action == action

    @pytest.mark.parametrize(
        ("told", "consent"),
        [
            (None, True), (True, True), (False, False), (1, True), (1.0, True), (0, False), (0.5, False), (2, False),
            ("true", True), ("TRUE", True), ("1", True), ("false", False), ("yes", False), ({}, False),
        ],
    )  # fmt: skip
    def test_consent(self, told: Any, consent: bool) -> None:  # noqa: FBT001 - parametrised
        """Consent may be told in many ways; the number 1 is a yes however it is written."""
        assert read_one(push(has_tracking_consent=told)).has_tracking_consent is consent

    @pytest.mark.parametrize("content", [None, [], "text", 7])
    def test_no_content(self, content: Any) -> None:
        """A message without a content that can be read is there, and may be tracked."""
        message = read_one({"id": "m", "type": "push", "content": content})
        assert (message.content, message.title, message.has_tracking_consent) == ({}, None, True)

    def test_numbers_for_texts(self) -> None:
        """Numbers and truth values are texts where texts should be; what has parts is none."""
        message = read_one(push(title=7, message=True, image={"a": 1}, consent_category_tracking=3))
        assert (message.title, message.message, message.image_url) == ("7", "true", None)
        assert message.consent_category_tracking == "3"

    @pytest.mark.parametrize(
        ("told", "create_time"),
        [("2024", 1000.0), (True, 1000.0), ([], 1000.0), (10**300, 1e300), (None, None), (3, 3.0), (-1.5, -1.5)],
    )
    def test_when_it_was_made(self, told: Any, create_time: float | None) -> None:
        """A moment that can't be read is that of the answer."""
        assert read_one({"id": "m", "type": "push", "create_time": told}).create_time == create_time
        assert read_one({"id": "m", "type": "push"}).create_time == 1000.0

    @pytest.mark.parametrize("told", ["1e999", str(10**400)])
    def test_moments_out_of_range(self, told: str, monkeypatch: pytest.MonkeyPatch) -> None:
        """What the standard library's codec lets through is no moment either."""
        monkeypatch.setattr(_json, "_loads", _json._json_loads)
        (head,) = read_heads([f'{{"id": "m", "type": "push", "create_time": {told}}}'.encode()], 1000.0)
        assert head.create_time == 1000.0

    @pytest.mark.parametrize("is_read", ["true", 1, None, {}, False])
    def test_unread(self, is_read: Any) -> None:
        """Only a plain yes makes a message a read one."""
        assert not read_one({**push(), "is_read": is_read}).is_read

    def test_order(self) -> None:
        """Newest first; those without a moment come last."""
        assert ids_of(read(push("a", None), push("b", 1), push("c", 2))) == ["c", "b", "a"]


class TestHostileAnswers:
    @pytest.mark.parametrize(
        "broken",
        [
            None, 7, "text", [], {}, {"id": "x"}, {"type": "push"}, {"id": 7, "type": "push"},
            {"id": "", "type": "push"},
            {"id": "x", "type": 7}, {"id": "x", "type": ["push"]}, {"id": None, "type": "html"},
        ],
    )  # fmt: skip
    def test_a_broken_one_is_left_out(self, broken: Any, caplog: pytest.LogCaptureFixture) -> None:
        """What has no id or type is lost, and told; those beside it stay."""
        assert ids_of(read(push("a", 2), broken, push("b", 1))) == ["a", "b"]
        assert "1 messages of the app inbox can't be read" in caplog.text

    def test_many_broken_ones_are_one_line(self, caplog: pytest.LogCaptureFixture) -> None:
        """However many can't be read, the log is told once."""
        assert read_heads([b"7"] * 10_000, 0.0) == []
        assert [record.levelno for record in caplog.records] == [logging.WARNING]

    @pytest.mark.parametrize("piece", [b"{", b"[" * 100_000, b'{"id": "\xff", "type": "push"}', b'{"id": NaN}'])
    def test_what_is_no_json(self, piece: bytes) -> None:
        """What is no JSON, or nested too deeply, is left out."""
        assert read_heads([piece], 0.0) == []

    def test_a_giant_is_left_out(self) -> None:
        """A message of several megabytes is none."""
        assert read(push("a", title="x" * 3_000_000), push("b")) == read(push("b"))

    @given(st.dictionaries(st.sampled_from(CONTENT_KEYS), JSON) | JSON, st.sampled_from(["push", "html"]), JSON, JSON)
    def test_any_json(self, content: Any, kind: str, create_time: Any, is_read: Any) -> None:
        """Whatever a message holds, it comes through."""
        message = {"id": "m", "type": kind, "content": content, "create_time": create_time, "is_read": is_read}
        assert read_one(message).id == "m"

    @pytest.mark.parametrize("name", CONTENT_KEYS)
    def test_deep_content(self, name: str) -> None:
        """A content as deep as JSON may be does no harm."""
        deep: Any = "x"
        for _ in range(400):
            deep = [deep] if name == "actions" else {"a": deep}
        assert read_one(push(**{name: deep})).id == "m1"

    def test_a_flood(self, caplog: pytest.LogCaptureFixture) -> None:
        """Of very many messages the newest are kept, and only their HTML is read."""
        pages: list[str] = []

        def counted(source: str) -> None:
            pages.append(source)

        flood = encoded(*(html(f"h{number}", number) for number in range(5_000)))
        entries = read_entries(flood, {}, STAMP, counted)
        assert [entry.message.id for entry in entries] == [f"h{number}" for number in range(4_999, 3_999, -1)]
        assert len(pages) == 1_000
        assert "its 4000 oldest messages are left out" in caplog.text

    def test_many_bytes(self, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
        """Nor are more bytes kept than a mailbox holds."""
        monkeypatch.setattr(_inbox_cache, "MOST_BYTES", 1_000)
        told = mailbox(*(push(str(number), number, title="x" * 300) for number in range(5)))
        assert ids_of(told.messages) == ["4", "3"]
        assert "its 3 oldest messages are left out" in caplog.text


class TestMailbox:
    def test_merging(self) -> None:
        """What comes takes the place of what was there; the token stays where none comes."""
        before = mailbox(push("a", 1), push("b", 2), token="one")
        entries = read_entries(encoded(push("a", 3, title="New")), before.entries, STAMP, page)
        after = before.merged(entries, None)
        assert [(each.id, each.title) for each in after.messages] == [("a", "New"), ("b", "Hello")]
        assert (after.token, before.merged((), "two").token) == ("one", "two")

    def test_the_same_again(self) -> None:
        """HTML that came again as it was is not read again, but has the new mark."""
        before = mailbox(html())
        assert before.messages[0].html == "<p>News</p>"
        stamp = FetchInfo(STAMP.ids, 2000.0, "later")
        (again,) = read_entries(encoded(html()), before.read("h1").entries, stamp, lambda _: None)
        assert (again.message.html, again.message.sync_token, again.message.is_read) == ("<p>News</p>", "later", False)

    def test_packing(self) -> None:
        """What is packed can be read again, with all that was noted of it."""
        kept = mailbox(push("a", 5), html("b", 4), {"id": "c", "type": "push"}).read("a")
        packed = pack(kept, "app")
        restored = unpack(packed, Mailbox("mark"), "app", STAMP.ids, page)
        assert restored.messages == kept.messages
        assert restored.token == kept.token
        # The moment of its coming, which is not in the message itself.
        assert restored.messages[0].create_time == 1000.0

    def test_somebody_elses(self) -> None:
        """What is another customer's, or another application's, is not read."""
        packed = pack(mailbox(push()), "app")
        other, same = Mailbox("other"), Mailbox("mark")
        assert unpack(packed, other, "app", STAMP.ids, page) is other
        assert unpack(packed, same, "other", STAMP.ids, page) is same

    @given(st.data())
    def test_damage(self, data: st.DataObject) -> None:
        """Damaged bytes are told apart, or make a mailbox; they do no other harm."""
        packed = bytearray(pack(mailbox(push("a"), html("b")), "app"))
        for _ in range(data.draw(st.integers(1, 4))):
            packed[data.draw(st.integers(0, len(packed) - 1))] = data.draw(st.integers(0, 255))
        cut = data.draw(st.integers(0, len(packed)))
        for damaged in (bytes(packed), bytes(packed[:cut])):
            with suppress(ValueError):
                assert unpack(damaged, Mailbox("mark"), "app", STAMP.ids, page)


class TestMailboxes:
    def test_those_used_last_stay(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Who was not used for longest makes room for others."""
        monkeypatch.setattr(_inbox_cache, "CAPACITY", 2)
        boxes, box = Mailboxes(), mailbox(push())
        boxes.put("a", box)
        boxes.put("b", box)
        assert boxes.get("a") is box
        boxes.put("c", box)
        assert [boxes.get(key) for key in "abc"] == [box, None, box]

    def test_so_many_bytes(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Nor do they take more than so many bytes; the latest one stays anyway."""
        box = mailbox(push())
        monkeypatch.setattr(_inbox_cache, "CAPACITY_BYTES", 2 * box.size)
        boxes = Mailboxes()
        for key in "abbc":
            boxes.put(key, box)
        assert [boxes.get(key) for key in "abc"] == [None, box, box]
        monkeypatch.setattr(_inbox_cache, "CAPACITY_BYTES", 1)
        boxes.put("a", box)
        assert [boxes.get(key) for key in "abc"] == [box, None, None]

    def test_forgetting(self) -> None:
        """What is forgotten takes no room."""
        boxes, box = Mailboxes(), mailbox(push())
        boxes.put("a", box)
        boxes.drop("a")
        boxes.drop("a")
        assert (len(boxes), boxes._size) == (0, 0)


def test_a_message_is_stamped() -> None:
    """Each message carries for whom it was loaded."""
    (head,) = read_heads(encoded(push()), 0.0)
    assert read_message(head, STAMP, page).customer_ids == {"registered": "jane"}
