"""
Numbered scenarios of links, push notifications, push tokens and anonymize().

Most rules are those of the Android SDK. Where this package decided otherwise, the scenario says so.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from helpers.app import Kept, Phone

from exponea_async import ConfigurationChange, Customer, Event, ExponeaProject, TokenFrequency
from exponea_async.features._shared.payload import PushAction, clicked_event, delivered_event, read_payload

Scenario = Callable[[Phone], Awaitable[None]]
VECTORS: list[Any] = []

LINK = "https://shop.example/p?utm_source=mail&xnpe_cmp=abc"
CAMPAIGN = {"url": LINK, "utm_source": "mail", "xnpe_cmp": "abc"}
VISIT = "https://shop.example/p?utm_source=mail"
FORCED = "https://shop.example/?xnpe_force_track=true"
GRANTED, DENIED, INVALIDATED = "Permission granted", "Permission denied", "Invalidated"
DAY = 86_400.0


def vector(number: str) -> Callable[[Scenario], Scenario]:
    """Register a scenario under its number."""

    def register(scenario: Scenario) -> Scenario:
        VECTORS.append(pytest.param(scenario, id=number))
        return scenario

    return register


def push(**parts: Any) -> dict[str, Any]:
    return {"source": "xnpe_platform", "title": "Sale", "attributes": {"campaign_id": "c-1"}, **parts}


async def starts(phone: Phone) -> list[dict[str, Any]]:
    return [each.own for each in await phone.kept("session_start")]


async def only(phone: Phone, name: str = "campaign") -> Kept:
    (event,) = await phone.kept(name)
    return event


async def tokens(phone: Phone) -> list[tuple[str, bool, str]]:
    states = [each.own for each in await phone.kept("notification_state")]
    return [(each["push_notification_token"], each["valid"], each["description"]) for each in states]


# Links and sessions


@vector("K01")
async def cold_start(phone: Phone) -> None:
    """A cold start by a link is a click; the session has its campaign, but no ``location``, which equals ``url``."""
    client = await phone.start()
    assert await client.handle_campaign_click(LINK) is True
    assert (await only(phone, "click")).data["url"] == LINK
    assert await starts(phone) == [CAMPAIGN]


@vector("K02")
async def cold_start_without_a_click(phone: Phone) -> None:
    """A link without ``xnpe_cmp`` is not a click, but the session has its campaign."""
    client = await phone.start()
    assert await client.handle_campaign_click(VISIT) is False
    assert await phone.kept("click") == []
    assert await starts(phone) == [{"url": VISIT, "utm_source": "mail"}]


@vector("K03")
async def session_goes_on(phone: Phone) -> None:
    """A link during a session is a click and starts no session; the next session does not have its campaign."""
    client = await phone.start()
    await client.track_event(Event("ping"))
    phone.now += 30
    assert await client.handle_campaign_click(LINK) is True
    assert await starts(phone) == [{}]
    phone.now += 60
    await client.track_event(Event("ping"))
    assert await starts(phone) == [{}, {}]


@vector("K04")
async def eleven_seconds(phone: Phone) -> None:
    """A session eleven seconds after a link does not have its campaign."""
    assert await campaign_after(phone, 11) == {}


@vector("K05")
async def ten_seconds(phone: Phone) -> None:
    """A session exactly ten seconds after a link has its campaign."""
    assert await campaign_after(phone, 10) == CAMPAIGN


@vector("K06")
async def parameter_twice(phone: Phone) -> None:
    """Of a repeated parameter the first value counts."""
    client = await phone.start()
    await client.handle_campaign_click("https://shop.example/?utm_source=a&utm_source=b")
    assert (await starts(phone))[0]["utm_source"] == "a"


@vector("K07")
async def empty_campaign_parameter(phone: Phone) -> None:
    """A link with an empty ``xnpe_cmp`` is not a click."""
    client = await phone.start()
    assert await client.handle_campaign_click("https://shop.example/?utm_source=a&xnpe_cmp=") is False
    assert await phone.kept("click") == []


@vector("K08")
async def second_link(phone: Phone) -> None:
    """Of two links the session has the campaign of the later one."""
    client = await phone.start(automatic_session_tracking=False)
    await client.handle_campaign_click("https://shop.example/?utm_source=first&utm_term=x")
    await client.handle_campaign_click(LINK)
    await client.track_session_start()
    assert await starts(phone) == [CAMPAIGN]


@vector("K09")
async def clicked_notification(phone: Phone) -> None:
    """A session within ten seconds after a clicked notification has its campaign."""
    client = await phone.start(automatic_session_tracking=False)
    await client.track_clicked_push(push(url_params={"utm_source": "push", "xnpe_cmp": "q"}))
    phone.now += 10
    await client.track_session_start()
    assert await starts(phone) == [{"utm_source": "push", "xnpe_cmp": "q"}]


@vector("K10")
async def percent_signs(phone: Phone) -> None:
    """Values are decoded; the link itself stays unchanged."""
    client = await phone.start()
    link = "https://shop.example/?utm_campaign=Sale%20%26%20m%C3%A9r"
    await client.handle_campaign_click(link)
    assert await starts(phone) == [{"url": link, "utm_campaign": "Sale & mér"}]


@vector("K11")
async def no_scheme(phone: Phone) -> None:
    """A string without a scheme is not a link, and has no campaign."""
    client = await phone.start()
    assert await client.handle_campaign_click("shop.example/?utm_source=a") is False
    await client.track_event(Event("ping"))
    assert await starts(phone) == [{}]


@vector("K11b")
async def no_query(phone: Phone) -> None:
    """A link without parameters is not a click; the session has its ``url``, but no ``location``."""
    client = await phone.start()
    assert await client.handle_campaign_click("https://shop.example/p") is False
    assert await starts(phone) == [{"url": "https://shop.example/p"}]


@vector("K12")
async def anonymize_after_link(phone: Phone) -> None:
    """After an anonymize() the session of the new customer does not have the campaign."""
    client = await phone.start(automatic_session_tracking=False)
    await client.handle_campaign_click(LINK)
    await client.anonymize()
    await client.track_session_start()
    assert await starts(phone) == [{}]


# Push notifications


# The times of sending, delivery and click; and the timestamps of the delivery and the click.
TIMES = [
    pytest.param((100, 200, 300), (200, 300), id="P01"),
    pytest.param((100, 100, 300), (101, 300), id="P02"),
    pytest.param((100, 90, 300), (101, 300), id="P03"),
    pytest.param((100, 90, 95), (101, 102), id="P04"),
    pytest.param((100, 200, 200), (200, 201), id="P05"),
    pytest.param((100, 200, 150), (200, 201), id="P06"),
    pytest.param((None, 200, 150), (200, 201), id="P07"),
]
Times = tuple[float | None, float, float]


def sent_and_received(times: Times) -> dict[str, Any]:
    sent, received, _ = times
    return push(attributes={} if sent is None else {"sent_timestamp": sent}, receivedSeconds=received)


@pytest.mark.parametrize(("times", "expected"), TIMES)
def test_timestamps(times: Times, expected: tuple[float, float]) -> None:
    """The delivery comes after sending and the click after the delivery, whatever the clocks say."""
    read = read_payload(sent_and_received(times))
    _, delivered = delivered_event(read, received_at=times[1])
    _, clicked = clicked_event(read, clicked_at=times[2])
    assert (delivered.timestamp, clicked.timestamp) == expected


@pytest.mark.parametrize(("times", "expected"), TIMES)
async def test_timestamps_of_calls(phone: Phone, times: Times, expected: tuple[float, float]) -> None:
    """The verbs track the same timestamps; but the time of a call is unique, and so after an equal delivery."""
    client = await phone.start(at=times[2], automatic_session_tracking=False)
    await client.track_delivered_push(sent_and_received(times))
    await client.track_clicked_push(sent_and_received(times))
    delivered, clicked = [each.data["timestamp"] for each in await phone.kept("campaign")]
    assert (times[0] or 0) < delivered < clicked
    assert delivered == expected[0]
    assert round(clicked, 3) == (times[2] if times[1] == times[2] else expected[1])


@vector("P10")
async def notifications_of_others(phone: Phone) -> None:
    """Only notifications with Engagement's source are Engagement's; the application decides how to handle others."""
    client = await phone.start()
    assert client.is_bloomreach_notification(push())
    assert not client.is_bloomreach_notification({"title": "Sale"})
    assert not client.is_bloomreach_notification(push(source="other"))


@vector("P11")
async def silent(phone: Phone) -> None:
    """A silent notification was not shown."""
    assert await state_of(phone, push(silent="true")) == "not_shown"


@vector("P12")
async def blank(phone: Phone) -> None:
    """A notification without text was not shown."""
    assert await state_of(phone, push(title=" ", message="")) == "not_shown"


@vector("P13")
async def title(phone: Phone) -> None:
    """A notification with a title was shown."""
    assert await state_of(phone, push()) == "shown"


@vector("P14")
async def same_id_twice(phone: Phone) -> None:
    """
    Two notifications with the same id are both tracked.

    Other than in the vendor's SDKs, no system service passes a notification twice: the application makes each call.
    """
    assert await tracked(phone, "7", "7") == 2


@vector("P15")
async def alternating_ids(phone: Phone) -> None:
    """Notifications with alternating ids are all tracked."""
    assert await tracked(phone, "1", "2", "1") == 3


@vector("P16")
async def self_check(phone: Phone) -> None:
    """The notification of a self-check is not tracked."""
    client = await phone.start()
    await client.track_delivered_push(push(action="self-check"))
    await client.track_clicked_push(push(action="self-check"))
    assert await phone.kept("campaign") == []


@vector("P17")
async def no_consent(phone: Phone) -> None:
    """Without consent a delivery is not tracked, but published to the stream."""
    client = await phone.start()
    payload = push(has_tracking_consent="false")
    stream = client.received_push_stream()
    await client.track_delivered_push(payload)
    assert await phone.kept("campaign") == []
    assert (await asyncio.wait_for(anext(stream), 10)).data == payload


@vector("P18")
async def forced_click(phone: Phone) -> None:
    """Without consent a click that its link forces is tracked, and says so."""
    client = await phone.start()
    await client.track_clicked_push(push(has_tracking_consent="false", url=FORCED))
    assert (await only(phone)).own["tracking_forced"] is True


@vector("P19")
async def click_without_consent(phone: Phone) -> None:
    """Without consent another click is not tracked."""
    client = await phone.start()
    await client.track_clicked_push(push(has_tracking_consent="false", url="https://shop.example/"))
    assert await phone.kept("campaign") == []


@vector("P20")
async def custom_event_type(phone: Phone) -> None:
    """A custom event type of the notification is not a property of the event."""
    client = await phone.start()
    await client.track_delivered_push(push(attributes={"event_type": "my_push", "campaign_id": "c-1"}))
    event = await only(phone, "my_push")
    assert event.own["campaign_id"] == "c-1"
    assert "event_type" not in event.own


@vector("P21")
async def url_params(phone: Phone) -> None:
    """The click and the session have the campaign parameters of the notification."""
    client = await phone.start()
    await client.track_clicked_push(push(url_params='{"utm_source": "push"}'))
    assert (await only(phone)).own["utm_source"] == "push"
    assert await starts(phone) == [{"utm_source": "push"}]


@vector("P22")
async def two_buttons(_: Phone) -> None:
    """Buttons are read in order; the application names the clicked one, with ``actionType`` and so on."""
    buttons = '[{"action": "app", "title": "Open"}, {"action": "browser", "title": "Web", "url": "https://s.example"}]'
    read = read_payload(push(actions=buttons))
    assert read.actions == (PushAction("app", "Open"), PushAction("browser", "Web", "https://s.example"))


@vector("P23")
async def unknown_action(_: Phone) -> None:
    """An action of an unknown type is ignored."""
    assert read_payload(push(action="dance")).action.kind is None


@vector("P24")
async def click_on_the_notification(phone: Phone) -> None:
    """A click on the notification itself opens the application."""
    client = await phone.start()
    await client.track_clicked_push(push())
    own = (await only(phone)).own
    assert (own["url"], own["cta"]) == ("app", "notification")


@vector("P25")
async def reserved_attributes(phone: Phone) -> None:
    """
    Attributes do not replace what happened, as in the iOS SDK.

    In the Android SDK they do, so that a delivery can be tracked as something else.
    """
    client = await phone.start()
    await client.track_delivered_push(push(attributes={"status": "x", "state": "y", "campaign_id": "c-1"}))
    own = (await only(phone)).own
    assert (own["status"], own["state"], own["campaign_id"]) == ("delivered", "shown", "c-1")


@vector("P26")
async def url_without_scheme(phone: Phone) -> None:
    """A URL without a scheme is a web address, of a button and of the notification."""
    assert read_payload(push(actions=[{"action": "browser", "url": "shop.example/x"}])).actions[0].url == (
        "http://shop.example/x"
    )
    client = await phone.start()
    await client.track_clicked_push(push(url="shop.example/x"))
    assert (await only(phone)).own["url"] == "http://shop.example/x"


# Push tokens and anonymize


@vector("N01")
async def same_token(phone: Phone) -> None:
    """A token that was tracked is not tracked again."""
    client = await phone.start()
    await client.handle_push_token("A")
    await client.handle_push_token("A")
    assert await tokens(phone) == [("A", True, GRANTED)]


@vector("N02")
async def new_token(phone: Phone) -> None:
    """A new token is tracked after the old one is invalidated."""
    client = await phone.start()
    await client.handle_push_token("A")
    await client.handle_push_token("B")
    assert await tokens(phone) == [("A", True, GRANTED), ("A", False, INVALIDATED), ("B", True, GRANTED)]


@vector("N03")
async def every_launch(phone: Phone) -> None:
    """With `EVERY_LAUNCH` each call tracks the token."""
    client = await phone.start(push_token_tracking_frequency=TokenFrequency.EVERY_LAUNCH)
    for _ in range(3):
        await client.handle_push_token("A")
    assert len(await tokens(phone)) == 3


@vector("N04")
async def daily(phone: Phone) -> None:
    """With `DAILY` the token is tracked once a day, by days in UTC, which are the same on all machines."""
    client = await phone.start(at=DAY, push_token_tracking_frequency=TokenFrequency.DAILY)
    await client.handle_push_token("A")
    phone.now = 2 * DAY - 1
    await client.handle_push_token("A")
    assert len(await tokens(phone)) == 1
    phone.now = 2 * DAY
    await client.handle_push_token("A")
    assert len(await tokens(phone)) == 2


@vector("N05")
async def explicit_token(phone: Phone) -> None:
    """`track_push_token` tracks a token with each call."""
    client = await phone.start()
    await client.track_push_token("A")
    await client.track_push_token("A")
    assert await tokens(phone) == [("A", True, GRANTED)] * 2


@vector("N06")
async def another_application(phone: Phone) -> None:
    """With another application id the token is tracked again, with every frequency."""
    client = await phone.start()
    await client.handle_push_token("A")
    client = await phone.restart(application_id="com.example.other")
    await client.handle_push_token("A")
    states = await phone.kept("notification_state")
    assert [each.properties["application_id"] for each in states] == ["default-application", "com.example.other"]


@vector("N07")
async def denied(phone: Phone) -> None:
    """If permission is required and denied, the token is invalid."""
    client = await phone.start(require_push_authorization=True)
    await client.handle_push_token("A")
    await client.verify_push_status_and_track_push_token(authorized=False)
    assert (await tokens(phone))[-1] == ("A", False, DENIED)


@vector("N08")
async def anonymize(phone: Phone) -> None:
    """The old customer's session ends and the token is invalidated; the new customer has a session and the token."""
    client = await phone.start()
    await client.identify_customer(Customer({"registered": "R"}))
    await client.handle_push_token("A")
    old = {"cookie": await client.get_customer_cookie(), "registered": "R"}
    events = await phone.new(client.anonymize)
    new = {"cookie": await client.get_customer_cookie()}

    assert [(each.name, each.own.get("valid"), each.own.get("description")) for each in events] == [
        ("session_end", None, None),
        ("notification_state", False, INVALIDATED),
        ("installation", None, None),
        ("session_start", None, None),
        ("notification_state", True, GRANTED),
    ]
    assert [each.ids for each in events] == [old, old, new, new, new]
    assert new["cookie"] != old["cookie"]


@vector("N09")
async def anonymize_elsewhere(phone: Phone) -> None:
    """The events of the old customer go to the old project, those of the new customer to the new project."""
    client = await phone.start()
    await client.handle_push_token("A")
    change = ConfigurationChange(project=ExponeaProject("other", "key"))
    events = await phone.new(lambda: client.anonymize(change))
    assert [each.project for each in events] == ["shop", "shop", "other", "other", "other"]


@vector("N10")
async def anonymize_without_token(phone: Phone) -> None:
    """Without a token no event about a token is tracked."""
    client = await phone.start()
    await client.track_event(Event("ping"))
    events = await phone.new(client.anonymize)
    assert [each.name for each in events] == ["session_end", "installation", "session_start"]


@pytest.mark.parametrize("scenario", VECTORS)
async def test_vector(phone: Phone, scenario: Scenario) -> None:
    """Each numbered scenario has the specified outcome."""
    await scenario(phone)


def test_no_number_is_missing() -> None:
    """There is one scenario per number."""
    links = [f"K{number:02}" for number in range(1, 12)] + ["K11b", "K12"]
    pushes = [f"P{number}" for number in range(10, 27)]
    rest = [f"N{number:02}" for number in range(1, 11)]
    assert [each.id for each in VECTORS] == links + pushes + rest


async def campaign_after(phone: Phone, seconds: float) -> dict[str, Any]:
    """Start a session some time after a link, and return its campaign."""
    client = await phone.start(automatic_session_tracking=False)
    await client.handle_campaign_click(LINK)
    phone.now += seconds
    await client.track_session_start()
    (campaign,) = await starts(phone)
    return campaign


async def state_of(phone: Phone, payload: dict[str, Any]) -> Any:
    """Track a delivery, and return whether it was shown."""
    client = await phone.start()
    await client.track_delivered_push(payload)
    return (await only(phone)).own["state"]


async def tracked(phone: Phone, *numbers: str) -> int:
    """Track deliveries of notifications with these ids, and return the number of events."""
    client = await phone.start()
    for number in numbers:
        await client.track_delivered_push(push(notification_id=number))
    return len(await phone.kept("campaign"))
