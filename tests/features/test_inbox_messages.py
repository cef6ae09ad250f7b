"""
The messages of the app inbox: reading any response of the platform, and the stored form.
"""

import json
import logging
from contextlib import suppress
from typing import Any

import pytest
from helpers.environment import SetConstants
from helpers.inbox import html, ids_of, push
from helpers.modules import import_copy
from hypothesis import given
from hypothesis import strategies as st

from exponea_async.features._shared.html.reader import SafeHtml, read_html
from exponea_async.features._shared.html.rules import HtmlRules
from exponea_async.features.inbox import parsing
from exponea_async.features.inbox.mailbox import Mailbox, mailbox_cache, newest, pack, read_messages, unpack
from exponea_async.features.inbox.parsing import FetchInfo, read_headers, read_message
from exponea_async.messages import AppInboxAction, AppInboxMessage

INFO = FetchInfo({"registered": "jane"}, 1000.0, "token")
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
    """Return safe HTML."""
    return read_html(source, HtmlRules())


def encoded(*messages: Any) -> list[bytes]:
    """Return messages as JSON."""
    return [json.dumps(each).encode() for each in messages]


def read(*messages: Any) -> list[AppInboxMessage]:
    """Read messages of a response."""
    return [entry.message for entry in read_messages(encoded(*messages), {}, INFO, page)]


def read_one(message: Any) -> AppInboxMessage:
    """Read a response with one message."""
    (found,) = read(message)
    return found


def mailbox(*messages: Any, token: str | None = "token") -> Mailbox:
    """Return a mailbox with messages."""
    return Mailbox("mark").merged(read_messages(encoded(*messages), {}, INFO, page), token)


class TestReading:
    @pytest.mark.parametrize("url", ["javascript:alert(1)", "data:text/html,x", "java\tscript:x", "file:///etc/passwd"])
    def test_dangerous_links(self, url: str) -> None:
        """Links that could run something are not handed out, only with the content as it came."""
        buttons = [{"action": "browser", "title": "Web", "url": url}]
        message = read_one(push(image=url, action="browser", url=url, actions=buttons))
        assert message.image_url is None
        assert message.action == AppInboxAction("browser", None, None)
        assert message.actions == (AppInboxAction("browser", "Web", None),)
        assert message.content["url"] == url

    def test_push_message(self) -> None:
        """All parts of a message are read."""
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

    def test_html_message(self) -> None:
        """HTML is made safe, and its preview is the text of the message."""
        message = read_one(
            html(source="<script>evil()</script><p onclick='evil()'>News</p>", image="https://i.example")
        )
        assert message.html == "<p>News</p>"
        assert (message.title, message.message, message.image_url) == ("News", "Short", "https://i.example")
        assert (message.action, message.actions) == (None, ())
        assert "evil" in message.content["message"]

    def test_attributes(self) -> None:
        """In push messages `data` has precedence over `attributes`; HTML messages have `attributes` only."""
        both: dict[str, Any] = {"data": {"a": 1}, "attributes": {"b": 2}}
        assert read_one(push(**both)).tracking_data == {"a": 1}
        assert read_one(html(**both)).tracking_data == {"b": 2}

    def test_json_in_strings(self) -> None:
        """Parts may be JSON in a string, as in push notifications."""
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
        ("content", "action"),
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
    def test_main_action(self, content: dict[str, Any], action: AppInboxAction | None) -> None:
        """The action of a message is one of three, or `no_action`; links stay unchanged."""
        assert read_one(push(**content)).action == action

    @pytest.mark.parametrize(
        ("value", "has_consent"),
        [
            (None, True), (True, True), (False, False), (1, True), (1.0, True), (0, False), (0.5, False), (2, False),
            ("true", True), ("TRUE", True), ("1", True), ("false", False), ("yes", False), ({}, False),
        ],
    )  # fmt: skip
    def test_consent(self, value: Any, has_consent: bool) -> None:  # noqa: FBT001 - parametrised
        """Consent has several forms; the number 1 means yes as an integer and as a float."""
        assert read_one(push(has_tracking_consent=value)).has_tracking_consent is has_consent

    @pytest.mark.parametrize("content", [None, [], "text", 7])
    def test_no_content(self, content: Any) -> None:
        """A message with malformed content is returned, and may be tracked."""
        message = read_one({"id": "m", "type": "push", "content": content})
        assert (message.content, message.title, message.has_tracking_consent) == ({}, None, True)

    def test_numbers_as_strings(self) -> None:
        """Numbers and booleans are accepted as strings; objects are not."""
        message = read_one(push(title=7, message=True, image={"a": 1}, consent_category_tracking=3))
        assert (message.title, message.message, message.image_url) == ("7", "true", None)
        assert message.consent_category_tracking == "3"

    @pytest.mark.parametrize(
        ("value", "create_time"),
        [("2024", 1000.0), (True, 1000.0), ([], 1000.0), (10**300, 1e300), (None, None), (3, 3.0), (-1.5, -1.5)],
    )
    def test_create_time(self, value: Any, create_time: float | None) -> None:
        """A malformed creation time is replaced by the time of the fetch."""
        assert read_one({"id": "m", "type": "push", "create_time": value}).create_time == create_time
        assert read_one({"id": "m", "type": "push"}).create_time == 1000.0

    @pytest.mark.parametrize("value", ["1e999", str(10**400)])
    def test_create_time_out_of_range(self, value: str, set_constants: SetConstants) -> None:
        """Numbers out of range, which the standard library's decoder accepts, are malformed, too."""
        set_constants(parsing, decode=import_copy("exponea_async._internal.json", without="orjson").decode)
        (header,) = read_headers([f'{{"id": "m", "type": "push", "create_time": {value}}}'.encode()], 1000.0)
        assert header.create_time == 1000.0

    @pytest.mark.parametrize("is_read", ["true", 1, None, {}, False])
    def test_unread(self, is_read: Any) -> None:
        """A message is read only if `is_read` is true."""
        assert not read_one({**push(), "is_read": is_read}).is_read

    def test_order(self) -> None:
        """Messages are in order, newest first, then those without a creation time."""
        assert ids_of(read(push("a", None), push("b", 1), push("c", 2))) == ["c", "b", "a"]


class TestHostileResponses:
    @pytest.mark.parametrize(
        "malformed",
        [
            None, 7, "text", [], {}, {"id": "x"}, {"type": "push"}, {"id": 7, "type": "push"},
            {"id": "", "type": "push"},
            {"id": "x", "type": 7}, {"id": "x", "type": ["push"]}, {"id": None, "type": "html"},
        ],
    )  # fmt: skip
    def test_malformed_message_is_skipped(self, malformed: Any, caplog: pytest.LogCaptureFixture) -> None:
        """A message without id or type is skipped and logged; the others stay."""
        assert ids_of(read(push("a", 2), malformed, push("b", 1))) == ["a", "b"]
        assert "1 messages of the app inbox can't be read" in caplog.text

    def test_many_malformed_messages(self, caplog: pytest.LogCaptureFixture) -> None:
        """Any number of malformed messages is logged in one line."""
        assert read_headers([b"7"] * 10_000, 0.0) == []
        assert [record.levelno for record in caplog.records] == [logging.WARNING]

    @pytest.mark.parametrize("raw_json", [b"{", b"[" * 100_000, b'{"id": "\xff", "type": "push"}', b'{"id": NaN}'])
    def test_malformed_json(self, raw_json: bytes) -> None:
        """Malformed JSON, or JSON that is nested too deeply, is skipped."""
        assert read_headers([raw_json], 0.0) == []

    def test_large_message(self) -> None:
        """A message of several megabytes is skipped."""
        assert read(push("a", title="x" * 3_000_000), push("b")) == read(push("b"))

    @given(st.dictionaries(st.sampled_from(CONTENT_KEYS), JSON) | JSON, st.sampled_from(["push", "html"]), JSON, JSON)
    def test_any_json(self, content: Any, kind: str, create_time: Any, is_read: Any) -> None:
        """A message with an id and a type is read, whatever its other fields are."""
        message = {"id": "m", "type": kind, "content": content, "create_time": create_time, "is_read": is_read}
        assert read_one(message).id == "m"

    @pytest.mark.parametrize("name", CONTENT_KEYS)
    def test_deep_content(self, name: str) -> None:
        """Content that is nested as deeply as JSON may be is read."""
        deep: Any = "x"
        for _ in range(400):
            deep = [deep] if name == "actions" else {"a": deep}
        assert read_one(push(**{name: deep})).id == "m1"

    def test_many_messages(self, caplog: pytest.LogCaptureFixture) -> None:
        """Of very many messages the newest are kept, and only their HTML is read."""
        sources: list[str] = []

        def counted(source: str) -> None:
            sources.append(source)

        many = encoded(*(html(f"h{number}", number) for number in range(5_000)))
        entries = read_messages(many, {}, INFO, counted)
        assert [entry.message.id for entry in entries] == [f"h{number}" for number in range(4_999, 3_999, -1)]
        assert len(sources) == 1_000
        assert "its 4000 oldest messages are left out" in caplog.text

    def test_many_bytes(self, caplog: pytest.LogCaptureFixture) -> None:
        """The newest messages are kept up to the maximum size."""
        headers = read_headers(encoded(*(push(str(number), number, title="x" * 300) for number in range(5))), 1000.0)
        assert [header.id for header in newest(headers, max_bytes=1_000)] == ["4", "3"]
        assert "its 3 oldest messages are left out" in caplog.text


class TestMailbox:
    def test_merging(self) -> None:
        """New messages replace known ones with the same id; without a new sync token the previous one stays."""
        before = mailbox(push("a", 1), push("b", 2), token="one")
        entries = read_messages(encoded(push("a", 3, title="New")), before.entries, INFO, page)
        after = before.merged(entries, None)
        assert [(each.id, each.title) for each in after.messages] == [("a", "New"), ("b", "Hello")]
        assert (after.sync_token, before.merged((), "two").sync_token) == ("one", "two")

    def test_unchanged_message(self) -> None:
        """The HTML of an unchanged message is not read again, but the message has the new sync token."""
        before = mailbox(html())
        assert before.messages[0].html == "<p>News</p>"
        info = FetchInfo(INFO.customer_ids, 2000.0, "later")
        (again,) = read_messages(encoded(html()), before.with_read("h1").entries, info, lambda _: None)
        assert (again.message.html, again.message.sync_token, again.message.is_read) == ("<p>News</p>", "later", False)

    def test_packing(self) -> None:
        """A stored mailbox has the same messages, read marks and sync token."""
        original = mailbox(push("a", 5), html("b", 4), {"id": "c", "type": "push"}).with_read("a")
        packed = pack(original, "app")
        restored = unpack(packed, Mailbox("mark"), "app", INFO.customer_ids, page)
        assert restored.messages == original.messages
        assert restored.sync_token == original.sync_token
        # The time of the fetch, which is not in the message itself.
        assert restored.messages[0].create_time == 1000.0

    def test_other_owners(self) -> None:
        """A mailbox of another customer or another application is not read."""
        packed = pack(mailbox(push()), "app")
        other, same = Mailbox("other"), Mailbox("mark")
        assert unpack(packed, other, "app", INFO.customer_ids, page) is other
        assert unpack(packed, same, "other", INFO.customer_ids, page) is same

    @given(st.data())
    def test_damage(self, data: st.DataObject) -> None:
        """Damaged bytes raise a ValueError or are read as a mailbox; they raise no other error."""
        packed = bytearray(pack(mailbox(push("a"), html("b")), "app"))
        for _ in range(data.draw(st.integers(1, 4))):
            packed[data.draw(st.integers(0, len(packed) - 1))] = data.draw(st.integers(0, 255))
        cut = data.draw(st.integers(0, len(packed)))
        for damaged in (bytes(packed), bytes(packed[:cut])):
            with suppress(ValueError):
                assert unpack(damaged, Mailbox("mark"), "app", INFO.customer_ids, page)


class TestMailboxCache:
    def test_number_of_mailboxes(self) -> None:
        """The least recently used mailbox is evicted first."""
        cache, box = mailbox_cache(max_mailboxes=2), mailbox(push())
        cache.put("a", box)
        cache.put("b", box)
        assert cache.get("a") is box
        cache.put("c", box)
        assert [cache.get(key) for key in "abc"] == [box, None, box]

    def test_size_of_mailboxes(self) -> None:
        """Mailboxes are kept up to the maximum size; the latest one stays in any case."""
        box = mailbox(push())
        cache = mailbox_cache(max_bytes=2 * box.size)
        for key in "abbc":
            cache.put(key, box)
        assert [cache.get(key) for key in "abc"] == [None, box, box]
        cache = mailbox_cache(max_bytes=1)
        cache.put("b", box)
        cache.put("a", box)
        assert [cache.get(key) for key in "abc"] == [box, None, None]

    def test_removal(self) -> None:
        """A mailbox that was removed takes no room."""
        cache, box = mailbox_cache(), mailbox(push())
        cache.put("a", box)
        cache.pop("a")
        cache.pop("a")
        assert (len(cache), cache.weight) == (0, 0)


def test_customer_ids() -> None:
    """Each message has the ids of the customer it was fetched for."""
    (header,) = read_headers(encoded(push()), 0.0)
    assert read_message(header, INFO, page).customer_ids == {"registered": "jane"}
