"""
The payloads of push notifications, and the events about them.
"""

import json
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exponea_async._internal.arguments import read_timestamp
from exponea_async._internal.encoding import encode_object, encode_string
from exponea_async.devices.campaigns import Campaign
from exponea_async.errors import InvalidEventError
from exponea_async.features._shared.consent import may_track
from exponea_async.features._shared.payload import (
    PushAction,
    PushPayload,
    clicked_event,
    delivered_event,
    is_bloomreach_notification,
    read_payload,
)
from exponea_async.models import Event, EventType

ATTRIBUTES = {"campaign_id": "c9", "campaign_name": "Sale", "event_type": "campaign", "sent_timestamp": 1700000200.25}
URL_PARAMS = {"utm_source": "push", "utm_campaign": "sale", "xnpe_cmp": "q1"}
BUTTONS = [{"action": "app", "title": "Open"}, {"action": "browser", "title": "Web", "url": "https://s.example"}]
NESTED = {
    "source": "xnpe_platform",
    "notification_id": 17,
    "silent": False,
    "title": "Sale",
    "message": "Today only",
    "image": "https://img.example/p.png",
    "action": "deeplink",
    "url": "app://sale",
    "actions": BUTTONS,
    "attributes": ATTRIBUTES,
    "url_params": URL_PARAMS,
    "consent_category_tracking": "push",
    "has_tracking_consent": True,
}
FLAT = {
    **NESTED,
    "notification_id": "17",
    "silent": "false",
    "actions": json.dumps(BUTTONS),
    "attributes": json.dumps(ATTRIBUTES),
    "url_params": json.dumps(URL_PARAMS),
    "has_tracking_consent": "true",
}
FORCED = "https://s.example/?xnpe_force_track=true"


def delivered(payload: Mapping[str, Any], received_at: float = 1.0, **more: Any) -> Event:
    """Return the properties and the timestamp of a delivery."""
    return delivered_event(read_payload(payload), received_at=received_at, **more)[1]


def clicked(payload: Mapping[str, Any], clicked_at: float = 1.0, **more: Any) -> Event:
    """Return the properties and the timestamp of a click."""
    return clicked_event(read_payload(payload), clicked_at=clicked_at, **more)[1]


class TestRecognition:
    @pytest.mark.parametrize("payload", [FLAT, NESTED, {"source": "xnpe_platform"}, MappingProxyType(FLAT)])
    def test_ours(self, payload: Mapping[str, Any]) -> None:
        """The source says whether a notification comes from Engagement."""
        assert is_bloomreach_notification(payload)

    @pytest.mark.parametrize(
        "payload",
        [
            pytest.param({}, id="P10-missing"),
            pytest.param({"source": "other"}, id="P10-other"),
            pytest.param({"source": None}, id="P10-none"),
            pytest.param({"source": ["xnpe_platform"]}, id="P10-list"),
            pytest.param(None, id="no-payload"),
            pytest.param("xnpe_platform", id="string"),
        ],
    )
    def test_not_ours(self, payload: Any) -> None:
        """Any other source, or none, means another sender."""
        assert not is_bloomreach_notification(payload)


class TestReading:
    @pytest.mark.parametrize("payload", [FLAT, NESTED, {**NESTED, "actions": json.dumps(BUTTONS)}])
    def test_all_fields(self, payload: Mapping[str, Any]) -> None:
        """Flat, nested and mixed payloads have the same meaning."""
        assert read_payload(payload) == PushPayload(
            notification_id=17,
            title="Sale",
            message="Today only",
            image="https://img.example/p.png",
            action=PushAction("deeplink", None, "app://sale"),
            actions=(PushAction("app", "Open"), PushAction("browser", "Web", "https://s.example")),
            attributes=ATTRIBUTES,
            url_params=URL_PARAMS,
            sent_at=1700000200.25,
            consent_category="push",
        )

    def test_an_empty_payload(self) -> None:
        """An empty payload has no fields, and consent."""
        assert read_payload({}) == PushPayload()
        assert PushPayload().has_consent

    def test_it_is_a_copy(self) -> None:
        """Later changes of the caller's mapping have no effect."""
        given: dict[str, Any] = {"attributes": {"tags": ["a"]}}
        payload = read_payload(given)
        given["attributes"]["tags"].append("b")
        assert payload.attributes == {"tags": ["a"]}

    @pytest.mark.parametrize("payload", [None, "{}", [], 5])
    def test_something_else(self, payload: Any) -> None:
        """Something else than a mapping is rejected."""
        with pytest.raises(InvalidEventError, match=r"^payload: "):
            read_payload(payload)

    @pytest.mark.parametrize(
        ("flag", "expected"),
        [
            pytest.param("true", True, id="P11"),
            pytest.param(True, True, id="true"),
            pytest.param(1, True, id="1"),
            pytest.param("1", True, id="string-1"),
            pytest.param("false", False, id="string-false"),
            pytest.param(False, False, id="false"),
            pytest.param(0, False, id="0"),
            pytest.param(None, False, id="none"),
            pytest.param("yes", False, id="yes"),
            pytest.param([1], False, id="list"),
        ],
    )
    def test_silent(self, flag: object, *, expected: bool) -> None:
        """True and 1 mean silent, as strings too."""
        assert read_payload({"silent": flag}).silent is expected

    @pytest.mark.parametrize(
        ("sent", "expected"),
        [
            (5, 5.0),
            (5.5, 5.5),
            ("5.5", 5.5),
            (None, None),
            ("soon", None),
            (True, None),
            ([5], None),
            (float("nan"), None),
            ("inf", None),
            pytest.param(10**5000, None, id="endless"),
            pytest.param(1767225610000, None, id="milliseconds"),
        ],
    )
    def test_the_time_of_sending(self, sent: object, expected: float | None) -> None:
        """Numbers are accepted, as strings too; anything else is no timestamp."""
        assert read_payload({"attributes": {"sent_timestamp": sent}}).sent_at == expected

    @pytest.mark.parametrize(
        ("number", "expected"),
        [("41", 41), (41, 41), (41.0, 41), (0, 0), ("x", None), (None, None), (True, None), (float("inf"), None)],
    )
    def test_the_number(self, number: object, expected: int | None) -> None:
        """A missing number is not 0, so that two notifications without one are not the same."""
        assert read_payload({"notification_id": number}).notification_id == expected

    @pytest.mark.parametrize(
        ("payload", "expected"),
        [
            pytest.param({"data": {"a": 1}, "attributes": {"b": 2}}, {"a": 1}, id="both"),
            pytest.param({"data": '{"a": 1}', "attributes": '{"b": 2}'}, {"a": 1}, id="both-flat"),
            pytest.param({"attributes": {"b": 2}}, {"b": 2}, id="one"),
            pytest.param({"data": None, "attributes": {"b": 2}}, {"b": 2}, id="none"),
            pytest.param({"data": "{broken", "attributes": {"b": 2}}, {"b": 2}, id="broken"),
        ],
    )
    def test_data_before_attributes(self, payload: Mapping[str, Any], expected: object) -> None:
        """The field `data` takes precedence if it has content."""
        assert read_payload(payload).attributes == expected

    @pytest.mark.parametrize(
        ("payload", "expected"),
        [
            pytest.param({"action": "app"}, PushAction("app"), id="app"),
            pytest.param(
                {"action": "browser", "url": "https://a"}, PushAction("browser", None, "https://a"), id="browser"
            ),
            pytest.param({"action": "dance"}, PushAction(), id="P23"),
            pytest.param(
                {"action": "browser", "url": "s.example/x"}, PushAction("browser", None, "http://s.example/x")
            ),
            pytest.param({"url": " "}, PushAction(), id="blank-link"),
            pytest.param(
                {"action": "app", "actionType": "web", "actionName": "Look", "url": "https://a"},
                PushAction("browser", "Look", "https://a"),
                id="manual",
            ),
        ],
    )
    def test_the_main_action(self, payload: Mapping[str, Any], expected: PushAction) -> None:
        """The action is what a click does, or what was clicked if a manual call says so."""
        assert read_payload(payload).action == expected

    @pytest.mark.parametrize(
        ("buttons", "expected"),
        [
            pytest.param(
                BUTTONS, (PushAction("app", "Open"), PushAction("browser", "Web", "https://s.example")), id="P22"
            ),
            pytest.param([{"action": "dance", "title": "Go"}], (PushAction(None, "Go"),), id="P23"),
            pytest.param([{"url": "shop.example/x"}], (PushAction(None, None, "http://shop.example/x"),), id="P26"),
            pytest.param([5, {"title": "Go"}, None], (PushAction(None, "Go"),), id="broken-button"),
            pytest.param([{"title": 5, "action": "app"}], (PushAction("app"),), id="broken-title"),
            pytest.param({"title": "Go"}, (), id="no-list"),
            pytest.param([], (), id="none"),
        ],
    )
    def test_the_buttons(self, buttons: object, expected: tuple[PushAction, ...]) -> None:
        """Buttons are in order, flat or nested; a broken one is ignored."""
        assert read_payload({"actions": buttons}).actions == expected
        assert read_payload({"actions": json.dumps(buttons)}).actions == expected

    @pytest.mark.parametrize(
        ("action", "expected"), [("self-check", True), ("app", False), (None, False), ("dance", False)]
    )
    def test_self_check(self, action: object, *, expected: bool) -> None:
        """P16: a self-check can be recognized."""
        assert read_payload({"action": action}).is_self_check is expected

    @pytest.mark.parametrize(("received", "expected"), [(5.5, 5.5), ("5.5", 5.5), (5, 5.0), (None, None), ("x", None)])
    def test_the_time_of_receipt(self, received: object, expected: float | None) -> None:
        """A manual call may say when the notification was received."""
        assert read_payload({"receivedSeconds": received}).received_at == expected

    def test_the_campaign(self) -> None:
        """P21: the campaign is that of a customer who clicks now."""
        payload = read_payload({"url_params": '{"utm_source": "push", "x": "y"}'})
        assert payload.campaign(7.0) == Campaign(utm_source="push", created_at=7.0)
        assert read_payload({}).campaign(7.0) is None


BROKEN = [
    pytest.param("title", ["jane@x.example"], id="title"),
    pytest.param("message", {"jane@x.example": 1}, id="message"),
    pytest.param("image", 5, id="image"),
    pytest.param("sound", True, id="sound"),
    pytest.param("url", ["jane@x.example"], id="url"),
    pytest.param("action", 5, id="action"),
    pytest.param("actions", "[jane@x.example", id="actions"),
    pytest.param("actions", "5", id="actions-number"),
    pytest.param("data", "jane@x.example", id="data"),
    pytest.param("data", '["jane@x.example"]', id="data-list"),
    pytest.param("data", "[" * 100_000, id="data-deep"),
    pytest.param("data", {"email": "jane@x.example", "half": "\ud800"}, id="data-half-a-character"),
    pytest.param("data", '{"email": "jane@x.example", "far": 1e999}', id="data-infinite"),
    pytest.param("data", {5: "jane@x.example"}, id="data-key"),
    pytest.param("data", {"jane@x.example": object()}, id="data-object"),
    pytest.param("data", {"event_type": ["jane@x.example"]}, id="event-type"),
    pytest.param("data", {"sent_timestamp": "jane@x.example"}, id="sent"),
    pytest.param("url_params", "jane@x.example", id="url-params"),
    pytest.param("notification_id", "jane@x.example", id="number"),
    pytest.param("receivedSeconds", "jane@x.example", id="received"),
    pytest.param("consent_category_tracking", "jane@x.example\ud800", id="category"),
    pytest.param("has_tracking_consent", "jane@x.example", id="consent"),
]


class TestBrokenFields:
    @pytest.mark.parametrize(("name", "value"), BROKEN)
    def test_only_the_field_is_ignored(self, name: str, value: object, caplog: pytest.LogCaptureFixture) -> None:
        """A broken field is logged without its value, and the others are read."""
        whole, payload = read_payload(FLAT), read_payload({**FLAT, name: value})
        assert [record.levelname for record in caplog.records] == ["WARNING"]
        assert "jane" not in caplog.text
        field = {"has_tracking_consent": "has_consent", "consent_category_tracking": "consent_category"}.get(name, name)
        beside = {"notification_id", "title", "message", "actions", "url_params", "has_consent", "consent_category"}
        for each in beside - {field}:
            assert getattr(payload, each) == getattr(whole, each)

    def test_values_that_can_not_be_sent(self) -> None:
        """Only attributes that no event can have are left out."""
        bad: dict[Any, Any] = {"n": float("nan"), "half": "\ud800", "\ud800": 1, "big": 2**64, "o": object(), 5: 5}
        payload = read_payload({"data": {**bad, "good": 1, "deep": {**bad, "list": [1, float("inf"), None, (2,)]}}})
        assert payload.attributes == {"good": 1, "deep": {"list": [1, [2]]}}

    def test_endless_attributes(self) -> None:
        """Attributes that contain themselves are cut off."""
        endless: dict[str, Any] = {"a": 1}
        endless["b"] = endless
        assert read_payload({"data": endless}).attributes["b"]["b"]["a"] == 1


class TestDelivered:
    def test_all_properties(self) -> None:
        """The event has the notification's own properties, its campaign, and what became of it."""
        kind, event = delivered_event(read_payload(FLAT), received_at=1700000300.0)
        assert kind is EventType.PUSH_DELIVERED
        assert event == Event(
            "campaign",
            {
                "campaign_id": "c9",
                "campaign_name": "Sale",
                "sent_timestamp": 1700000200.25,
                "utm_source": "push",
                "utm_campaign": "sale",
                "xnpe_cmp": "q1",
                "status": "delivered",
                "platform": "android",
                "state": "shown",
                "consent_category_tracking": "push",
            },
            1700000300.0,
        )

    @pytest.mark.parametrize(
        ("payload", "state"),
        [
            pytest.param({"silent": "true", "title": "Hi"}, "not_shown", id="P11"),
            pytest.param({"title": "", "message": " "}, "not_shown", id="P12"),
            pytest.param({"title": ""}, "not_shown", id="P12-title-only"),
            pytest.param({"title": "Hi"}, "shown", id="P13"),
            pytest.param({"title": "", "message": "Hi"}, "shown", id="P13-message"),
            pytest.param({"attributes": {"a": 1}}, "shown", id="no-text-at-all"),
            pytest.param({"silent": 1}, "not_shown", id="silent-manual"),
        ],
    )
    def test_the_state(self, payload: Mapping[str, Any], state: str) -> None:
        """A silent or empty notification was not shown, nor was one that the caller says was not."""
        assert delivered(payload).properties["state"] == state
        assert delivered(payload, shown=False).properties["state"] == "not_shown"

    def test_reserved_properties(self) -> None:
        """P25: the SDK's properties take precedence over the notification's own."""
        attributes = {"status": "x", "state": "x", "utm_source": "x", "action_type": "x", "b": 1}
        payload = {"attributes": attributes, "url_params": {"utm_source": "push"}}
        expected = {"status": "delivered", "state": "shown", "utm_source": "push", "action_type": "x", "b": 1}
        assert delivered(payload).properties == {**expected, "platform": "android"}


class TestClicked:
    def test_all_properties(self) -> None:
        """The event has the notification's own properties, its campaign, and what was clicked."""
        kind, event = clicked_event(read_payload(FLAT), clicked_at=1700000300.0)
        assert kind is EventType.PUSH_OPENED
        assert event == Event(
            "campaign",
            {
                "campaign_id": "c9",
                "campaign_name": "Sale",
                "sent_timestamp": 1700000200.25,
                "utm_source": "push",
                "utm_campaign": "sale",
                "xnpe_cmp": "q1",
                "action_type": "mobile notification",
                "status": "clicked",
                "platform": "android",
                "url": "app://sale",
                "cta": "notification",
                "consent_category_tracking": "push",
            },
            1700000300.0,
        )

    @pytest.mark.parametrize(
        ("payload", "pressed", "url", "cta"),
        [
            pytest.param({}, {}, "app", "notification", id="P24"),
            pytest.param({"url": "app://a"}, {}, "app://a", "notification", id="main-action"),
            pytest.param(
                {"url": "app://a"}, {"action": PushAction("app", "Go")}, "app", "Go", id="button-without-link"
            ),
            pytest.param({"url": "app://a"}, {"action": PushAction("app", "Go", "b://c")}, "b://c", "Go", id="button"),
            pytest.param({"url": "app://a"}, {"url": "x", "cta": "y"}, "x", "y", id="given"),
            pytest.param({"actionType": "app", "actionName": "Go", "url": "a://b"}, {}, "a://b", "Go", id="manual"),
        ],
    )
    def test_what_was_clicked(self, payload: Mapping[str, Any], pressed: Any, url: str, cta: str) -> None:
        """The caller's values count first, then the action's, then those of the notification itself."""
        properties = clicked(payload, **pressed).properties
        assert (properties["url"], properties["cta"]) == (url, cta)

    def test_reserved_properties(self) -> None:
        """P25: the SDK's properties take precedence, except for the action type."""
        attributes = {"status": "x", "url": "x", "cta": "x", "action_type": "x", "state": "x"}
        expected = {"status": "clicked", "url": "app", "cta": "notification", "action_type": "x", "state": "x"}
        assert clicked({"attributes": attributes}).properties == {**expected, "platform": "android"}

    def test_no_kind_of_action(self) -> None:
        """A null is not a kind of action."""
        assert clicked({"attributes": {"action_type": None}}).properties["action_type"] == "mobile notification"

    @pytest.mark.parametrize(
        ("payload", "pressed", "forced"),
        [
            pytest.param({"url": FORCED}, {}, True, id="main-action"),
            pytest.param({}, {"url": FORCED}, True, id="given"),
            pytest.param({}, {"action": PushAction("browser", None, FORCED)}, True, id="button"),
            pytest.param({"url": FORCED}, {"action": PushAction("app", "Go")}, False, id="another-button"),
            pytest.param({"url": "https://s.example"}, {}, False, id="plain"),
            pytest.param({}, {}, False, id="no-link"),
        ],
    )
    def test_forced(self, payload: Mapping[str, Any], pressed: Any, *, forced: bool) -> None:
        """A link that forces tracking is marked, with consent too; any other is not."""
        assert clicked(payload, **pressed).properties.get("tracking_forced") is (True if forced else None)


class TestConsent:
    @pytest.mark.parametrize(
        ("url", "expected"),
        [pytest.param(FORCED, True, id="P18"), pytest.param("https://s.example", False, id="P19")],
    )
    def test_without_consent(self, url: str, *, expected: bool) -> None:
        """P17: without consent nothing is tracked, except a click on a link that forces it."""
        payload = read_payload({"has_tracking_consent": "false", "url": url})
        assert not may_track(has_consent=payload.has_consent, consider_consent=True)
        event = clicked_event(payload, clicked_at=1.0)[1]
        assert (
            may_track(has_consent=payload.has_consent, consider_consent=True, url=event.properties["url"]) is expected
        )


class TestBoth:
    @pytest.mark.parametrize(
        ("name", "custom"),
        [
            pytest.param("my_push", True, id="P20"),
            pytest.param("campaign", False, id="the-usual"),
            pytest.param("", False, id="empty"),
            pytest.param("  ", False, id="blank"),
            pytest.param(None, False, id="none"),
            pytest.param(5, False, id="number"),
        ],
    )
    def test_the_type(self, name: object, *, custom: bool) -> None:
        """A custom type makes a custom event; the type itself is not a property."""
        payload = read_payload({"attributes": {"event_type": name, "a": 1}})
        for usual, (kind, event) in (
            (EventType.PUSH_DELIVERED, delivered_event(payload, received_at=1.0)),
            (EventType.PUSH_OPENED, clicked_event(payload, clicked_at=1.0)),
        ):
            assert kind is (EventType.TRACK_EVENT if custom else usual)
            assert event.name == (name if custom else "campaign")
            assert event.properties["a"] == 1
            assert "event_type" not in event.properties

    @pytest.mark.parametrize(
        ("own", "given", "expected"),
        [(None, None, "android"), ("ios", None, "ios"), ("ios", "huawei", "huawei"), (5, None, "android")],
    )
    def test_the_platform(self, own: object, given: str | None, expected: str) -> None:
        """The caller's platform counts first, then the notification's."""
        payload = {"attributes": {"platform": own}}
        assert delivered(payload, platform=given).properties["platform"] == expected
        assert clicked(payload, platform=given).properties["platform"] == expected


MOMENTS = st.floats(0, 1e10)


class TestTimestamps:
    @pytest.mark.parametrize(
        ("sent", "received", "pressed", "delivered_at", "clicked_at"),
        [
            pytest.param(100, 200, 300, 200, 300, id="P01"),
            pytest.param(100, 100, 300, 101, 300, id="P02"),
            pytest.param(100, 90, 300, 101, 300, id="P03"),
            pytest.param(100, 90, 95, 101, 102, id="P04"),
            pytest.param(100, 200, 200, 200, 201, id="P05"),
            pytest.param(100, 200, 150, 200, 201, id="P06"),
            pytest.param(None, 200, 150, 200, 201, id="P07"),
            pytest.param(100.0, 99.0, 101.0, 101.0, 102.0, id="late-clock"),
            pytest.param(100.0, 100.5, 101.0, 100.5, 101.0, id="half-a-second"),
            pytest.param(100.0, 100.0, 101.2, 101.0, 101.2, id="just-after"),
            pytest.param("100", 99.0, 101.0, 101.0, 102.0, id="written-number"),
        ],
    )
    def test_the_table(
        self, sent: Any, received: float, pressed: float, delivered_at: float, clicked_at: float
    ) -> None:
        """Sent, delivered, clicked: each is a second after the one before if the clocks say otherwise."""
        payload = {"attributes": {"sent_timestamp": sent}}
        assert delivered(payload, received).timestamp == delivered_at
        assert clicked(payload, pressed, delivered_at=delivered_at).timestamp == clicked_at
        # The time of the delivery itself may be used too, passed by the caller or in the payload.
        assert clicked(payload, pressed, delivered_at=received).timestamp == clicked_at
        assert clicked({**payload, "receivedSeconds": received}, pressed).timestamp == clicked_at

    @pytest.mark.parametrize(
        ("sent", "pressed", "expected"),
        [(None, 5.0, 5.0), (100.0, 300.0, 300.0), (100.0, 100.0, 102.0), (100.0, 95.0, 102.0)],
    )
    def test_an_unknown_delivery(self, sent: float | None, pressed: float, expected: float) -> None:
        """If the delivery is not known, the click leaves room for it."""
        assert clicked({"attributes": {"sent_timestamp": sent}}, pressed).timestamp == expected

    @given(MOMENTS, MOMENTS, MOMENTS)
    def test_whatever_the_clocks_say(self, sent: float, received: float, pressed: float) -> None:
        """A notification is sent before it is delivered, and delivered before it is clicked, for all clocks."""
        payload = read_payload({"attributes": {"sent_timestamp": sent}})
        arrival = delivered_event(payload, received_at=received)[1].timestamp
        assert isinstance(arrival, float)
        click = clicked_event(payload, clicked_at=pressed, delivered_at=arrival)[1].timestamp
        assert isinstance(click, float)
        assert sent < arrival < click


TEXTS = st.text(max_size=5) | st.sampled_from(["{}", "[]", "true", "1e999", '{"a": "\\ud800"}', "NaN", "\ud800"])
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.binary(max_size=3) | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS | st.integers(), inner, max_size=3),
    max_leaves=4,
)
KNOWN = ["event_type", "sent_timestamp", "platform", "action_type", "utm_source", "xnpe_cmp", "title", "url", "action"]
OBJECTS = st.dictionaries(st.sampled_from(KNOWN) | TEXTS, ANYTHING, max_size=3)
PAYLOADS = st.dictionaries(
    st.sampled_from([*FLAT, "data", "actionType", "actionName", "receivedSeconds"]),
    ANYTHING | OBJECTS | st.lists(OBJECTS, max_size=2) | OBJECTS.map(lambda value: json.dumps(value, default=str)),
    max_size=6,
)


class TestAnyPayload:
    @given(PAYLOADS)
    def test_any_payload(self, given: dict[str, Any]) -> None:
        """Any payload can be read, and the events about it can be sent."""
        payload = read_payload(given)
        for _, event in (
            delivered_event(payload, received_at=5.0),
            clicked_event(payload, clicked_at=6.0),
            *(clicked_event(payload, clicked_at=6.0, action=action) for action in payload.actions),
        ):
            assert encode_string(event.name, "name")
            assert encode_object(event.properties, "properties")
            assert event.timestamp is not None
            assert read_timestamp(event.timestamp, "timestamp") >= 5.0
