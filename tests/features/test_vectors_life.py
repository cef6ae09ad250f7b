"""
Numbered scenarios of links, push notifications, push tokens and anonymize().

Most rules are those of the Android SDK. Where this package decided otherwise, the scenario says so.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from helpers.app import App, PendingRecord

from exponea_async import ConfigurationChange, Customer, Event, ExponeaProject, TokenFrequency
from exponea_async.features._shared.payload import PushAction, clicked_event, delivered_event, read_payload

Scenario = Callable[[App], Awaitable[None]]
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


async def starts(app: App) -> list[dict[str, Any]]:
    return [each.own for each in await app.pending("session_start")]


async def only(app: App, name: str = "campaign") -> PendingRecord:
    (event,) = await app.pending(name)
    return event


async def tokens(app: App) -> list[tuple[str, bool, str]]:
    states = [each.own for each in await app.pending("notification_state")]
    return [(each["push_notification_token"], each["valid"], each["description"]) for each in states]


# Links and sessions


@vector("K01")
async def cold_start(app: App) -> None:
    """A cold start by a link is a click; the session has its campaign, but no ``location``, which equals ``url``."""
    client = await app.start()
    assert await client.handle_campaign_click(LINK) is True
    assert (await only(app, "click")).data["url"] == LINK
    assert await starts(app) == [CAMPAIGN]


@vector("K02")
async def cold_start_without_a_click(app: App) -> None:
    """A link without ``xnpe_cmp`` is not a click, but the session has its campaign."""
    client = await app.start()
    assert await client.handle_campaign_click(VISIT) is False
    assert await app.pending("click") == []
    assert await starts(app) == [{"url": VISIT, "utm_source": "mail"}]


@vector("K03")
async def session_goes_on(app: App) -> None:
    """A link during a session is a click and starts no session; the next session does not have its campaign."""
    client = await app.start()
    await client.track_event(Event("ping"))
    app.now += 30
    assert await client.handle_campaign_click(LINK) is True
    assert await starts(app) == [{}]
    app.now += 60
    await client.track_event(Event("ping"))
    assert await starts(app) == [{}, {}]


@vector("K04")
async def eleven_seconds(app: App) -> None:
    """A session eleven seconds after a link does not have its campaign."""
    assert await campaign_after(app, 11) == {}


@vector("K05")
async def ten_seconds(app: App) -> None:
    """A session exactly ten seconds after a link has its campaign."""
    assert await campaign_after(app, 10) == CAMPAIGN


@vector("K06")
async def parameter_twice(app: App) -> None:
    """Of a repeated parameter the first value counts."""
    client = await app.start()
    await client.handle_campaign_click("https://shop.example/?utm_source=a&utm_source=b")
    assert (await starts(app))[0]["utm_source"] == "a"


@vector("K07")
async def empty_campaign_parameter(app: App) -> None:
    """A link with an empty ``xnpe_cmp`` is not a click."""
    client = await app.start()
    assert await client.handle_campaign_click("https://shop.example/?utm_source=a&xnpe_cmp=") is False
    assert await app.pending("click") == []


@vector("K08")
async def second_link(app: App) -> None:
    """Of two links the session has the campaign of the later one."""
    client = await app.start(automatic_session_tracking=False)
    await client.handle_campaign_click("https://shop.example/?utm_source=first&utm_term=x")
    await client.handle_campaign_click(LINK)
    await client.track_session_start()
    assert await starts(app) == [CAMPAIGN]


@vector("K09")
async def clicked_notification(app: App) -> None:
    """A session within ten seconds after a clicked notification has its campaign."""
    client = await app.start(automatic_session_tracking=False)
    await client.track_clicked_push(push(url_params={"utm_source": "push", "xnpe_cmp": "q"}))
    app.now += 10
    await client.track_session_start()
    assert await starts(app) == [{"utm_source": "push", "xnpe_cmp": "q"}]


@vector("K10")
async def percent_signs(app: App) -> None:
    """Values are decoded; the link itself stays unchanged."""
    client = await app.start()
    link = "https://shop.example/?utm_campaign=Sale%20%26%20m%C3%A9r"
    await client.handle_campaign_click(link)
    assert await starts(app) == [{"url": link, "utm_campaign": "Sale & mér"}]


@vector("K11")
async def no_scheme(app: App) -> None:
    """A string without a scheme is not a link, and has no campaign."""
    client = await app.start()
    assert await client.handle_campaign_click("shop.example/?utm_source=a") is False
    await client.track_event(Event("ping"))
    assert await starts(app) == [{}]


@vector("K11b")
async def no_query(app: App) -> None:
    """A link without parameters is not a click; the session has its ``url``, but no ``location``."""
    client = await app.start()
    assert await client.handle_campaign_click("https://shop.example/p") is False
    assert await starts(app) == [{"url": "https://shop.example/p"}]


@vector("K12")
async def anonymize_after_link(app: App) -> None:
    """After an anonymize() the session of the new customer does not have the campaign."""
    client = await app.start(automatic_session_tracking=False)
    await client.handle_campaign_click(LINK)
    await client.anonymize()
    await client.track_session_start()
    assert await starts(app) == [{}]


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
async def test_timestamps_of_calls(app: App, times: Times, expected: tuple[float, float]) -> None:
    """The verbs track the same timestamps; but the time of a call is unique, and so after an equal delivery."""
    client = await app.start(at=times[2], automatic_session_tracking=False)
    await client.track_delivered_push(sent_and_received(times))
    await client.track_clicked_push(sent_and_received(times))
    delivered, clicked = [each.data["timestamp"] for each in await app.pending("campaign")]
    assert (times[0] or 0) < delivered < clicked
    assert delivered == expected[0]
    assert round(clicked, 3) == (times[2] if times[1] == times[2] else expected[1])


@vector("P10")
async def notifications_of_others(app: App) -> None:
    """Only notifications with Engagement's source are Engagement's; the application decides how to handle others."""
    client = await app.start()
    assert client.is_bloomreach_notification(push())
    assert not client.is_bloomreach_notification({"title": "Sale"})
    assert not client.is_bloomreach_notification(push(source="other"))


@vector("P11")
async def silent(app: App) -> None:
    """A silent notification was not shown."""
    assert await state_of(app, push(silent="true")) == "not_shown"


@vector("P12")
async def blank(app: App) -> None:
    """A notification without text was not shown."""
    assert await state_of(app, push(title=" ", message="")) == "not_shown"


@vector("P13")
async def title(app: App) -> None:
    """A notification with a title was shown."""
    assert await state_of(app, push()) == "shown"


@vector("P14")
async def same_id_twice(app: App) -> None:
    """
    Two notifications with the same id are both tracked.

    Other than in the vendor's SDKs, no system service passes a notification twice: the application makes each call.
    """
    assert await tracked(app, "7", "7") == 2


@vector("P15")
async def alternating_ids(app: App) -> None:
    """Notifications with alternating ids are all tracked."""
    assert await tracked(app, "1", "2", "1") == 3


@vector("P16")
async def self_check(app: App) -> None:
    """The notification of a self-check is not tracked."""
    client = await app.start()
    await client.track_delivered_push(push(action="self-check"))
    await client.track_clicked_push(push(action="self-check"))
    assert await app.pending("campaign") == []


@vector("P17")
async def no_consent(app: App) -> None:
    """Without consent a delivery is not tracked, but published to the stream."""
    client = await app.start()
    payload = push(has_tracking_consent="false")
    stream = client.received_push_stream()
    await client.track_delivered_push(payload)
    assert await app.pending("campaign") == []
    assert (await asyncio.wait_for(anext(stream), 60)).data == payload


@vector("P18")
async def forced_click(app: App) -> None:
    """Without consent a click that its link forces is tracked, and says so."""
    client = await app.start()
    await client.track_clicked_push(push(has_tracking_consent="false", url=FORCED))
    assert (await only(app)).own["tracking_forced"] is True


@vector("P19")
async def click_without_consent(app: App) -> None:
    """Without consent another click is not tracked."""
    client = await app.start()
    await client.track_clicked_push(push(has_tracking_consent="false", url="https://shop.example/"))
    assert await app.pending("campaign") == []


@vector("P20")
async def custom_event_type(app: App) -> None:
    """A custom event type of the notification is not a property of the event."""
    client = await app.start()
    await client.track_delivered_push(push(attributes={"event_type": "my_push", "campaign_id": "c-1"}))
    event = await only(app, "my_push")
    assert event.own["campaign_id"] == "c-1"
    assert "event_type" not in event.own


@vector("P21")
async def url_params(app: App) -> None:
    """The click and the session have the campaign parameters of the notification."""
    client = await app.start()
    await client.track_clicked_push(push(url_params='{"utm_source": "push"}'))
    assert (await only(app)).own["utm_source"] == "push"
    assert await starts(app) == [{"utm_source": "push"}]


@vector("P22")
async def two_buttons(_: App) -> None:
    """Buttons are read in order; the application names the clicked one, with ``actionType`` and so on."""
    buttons = '[{"action": "app", "title": "Open"}, {"action": "browser", "title": "Web", "url": "https://s.example"}]'
    read = read_payload(push(actions=buttons))
    assert read.actions == (PushAction("app", "Open"), PushAction("browser", "Web", "https://s.example"))


@vector("P23")
async def unknown_action(_: App) -> None:
    """An action of an unknown type is ignored."""
    assert read_payload(push(action="dance")).action.kind is None


@vector("P24")
async def click_on_the_notification(app: App) -> None:
    """A click on the notification itself opens the application."""
    client = await app.start()
    await client.track_clicked_push(push())
    own = (await only(app)).own
    assert (own["url"], own["cta"]) == ("app", "notification")


@vector("P25")
async def reserved_attributes(app: App) -> None:
    """
    Attributes do not replace what happened, as in the iOS SDK.

    In the Android SDK they do, so that a delivery can be tracked as something else.
    """
    client = await app.start()
    await client.track_delivered_push(push(attributes={"status": "x", "state": "y", "campaign_id": "c-1"}))
    own = (await only(app)).own
    assert (own["status"], own["state"], own["campaign_id"]) == ("delivered", "shown", "c-1")


@vector("P26")
async def url_without_scheme(app: App) -> None:
    """A URL without a scheme is a web address, of a button and of the notification."""
    assert read_payload(push(actions=[{"action": "browser", "url": "shop.example/x"}])).actions[0].url == (
        "http://shop.example/x"
    )
    client = await app.start()
    await client.track_clicked_push(push(url="shop.example/x"))
    assert (await only(app)).own["url"] == "http://shop.example/x"


# Push tokens and anonymize


@vector("N01")
async def same_token(app: App) -> None:
    """A token that was tracked is not tracked again."""
    client = await app.start()
    await client.handle_push_token("A")
    await client.handle_push_token("A")
    assert await tokens(app) == [("A", True, GRANTED)]


@vector("N02")
async def new_token(app: App) -> None:
    """A new token is tracked after the old one is invalidated."""
    client = await app.start()
    await client.handle_push_token("A")
    await client.handle_push_token("B")
    assert await tokens(app) == [("A", True, GRANTED), ("A", False, INVALIDATED), ("B", True, GRANTED)]


@vector("N03")
async def every_launch(app: App) -> None:
    """With `EVERY_LAUNCH` each call tracks the token."""
    client = await app.start(push_token_tracking_frequency=TokenFrequency.EVERY_LAUNCH)
    for _ in range(3):
        await client.handle_push_token("A")
    assert len(await tokens(app)) == 3


@vector("N04")
async def daily(app: App) -> None:
    """With `DAILY` the token is tracked once a day, by days in UTC, which are the same on all machines."""
    client = await app.start(at=DAY, push_token_tracking_frequency=TokenFrequency.DAILY)
    await client.handle_push_token("A")
    app.now = 2 * DAY - 1
    await client.handle_push_token("A")
    assert len(await tokens(app)) == 1
    app.now = 2 * DAY
    await client.handle_push_token("A")
    assert len(await tokens(app)) == 2


@vector("N05")
async def explicit_token(app: App) -> None:
    """`track_push_token` tracks a token with each call."""
    client = await app.start()
    await client.track_push_token("A")
    await client.track_push_token("A")
    assert await tokens(app) == [("A", True, GRANTED)] * 2


@vector("N06")
async def another_application(app: App) -> None:
    """With another application id the token is tracked again, with every frequency."""
    client = await app.start()
    await client.handle_push_token("A")
    client = await app.restart(application_id="com.example.other")
    await client.handle_push_token("A")
    states = await app.pending("notification_state")
    assert [each.properties["application_id"] for each in states] == ["default-application", "com.example.other"]


@vector("N07")
async def denied(app: App) -> None:
    """If permission is required and denied, the token is invalid."""
    client = await app.start(require_push_authorization=True)
    await client.handle_push_token("A")
    await client.verify_push_status_and_track_push_token(authorized=False)
    assert (await tokens(app))[-1] == ("A", False, DENIED)


@vector("N08")
async def anonymize(app: App) -> None:
    """The old customer's session ends and the token is invalidated; the new customer has a session and the token."""
    client = await app.start()
    await client.identify_customer(Customer({"registered": "R"}))
    await client.handle_push_token("A")
    old = {"cookie": await client.get_customer_cookie(), "registered": "R"}
    events = await app.new(client.anonymize)
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
async def anonymize_elsewhere(app: App) -> None:
    """The events of the old customer go to the old project, those of the new customer to the new project."""
    client = await app.start()
    await client.handle_push_token("A")
    change = ConfigurationChange(project=ExponeaProject("other", "key"))
    events = await app.new(lambda: client.anonymize(change))
    assert [each.project for each in events] == ["shop", "shop", "other", "other", "other"]


@vector("N10")
async def anonymize_without_token(app: App) -> None:
    """Without a token no event about a token is tracked."""
    client = await app.start()
    await client.track_event(Event("ping"))
    events = await app.new(client.anonymize)
    assert [each.name for each in events] == ["session_end", "installation", "session_start"]


@pytest.mark.parametrize("scenario", VECTORS)
async def test_vector(app: App, scenario: Scenario) -> None:
    """Each numbered scenario has the specified outcome."""
    await scenario(app)


def test_no_number_is_missing() -> None:
    """There is one scenario per number."""
    links = [f"K{number:02}" for number in range(1, 12)] + ["K11b", "K12"]
    pushes = [f"P{number}" for number in range(10, 27)]
    rest = [f"N{number:02}" for number in range(1, 11)]
    assert [each.id for each in VECTORS] == links + pushes + rest


async def campaign_after(app: App, seconds: float) -> dict[str, Any]:
    """Start a session some time after a link, and return its campaign."""
    client = await app.start(automatic_session_tracking=False)
    await client.handle_campaign_click(LINK)
    app.now += seconds
    await client.track_session_start()
    (campaign,) = await starts(app)
    return campaign


async def state_of(app: App, payload: dict[str, Any]) -> Any:
    """Track a delivery, and return whether it was shown."""
    client = await app.start()
    await client.track_delivered_push(payload)
    return (await only(app)).own["state"]


async def tracked(app: App, *numbers: str) -> int:
    """Track deliveries of notifications with these ids, and return the number of events."""
    client = await app.start()
    for number in numbers:
        await client.track_delivered_push(push(notification_id=number))
    return len(await app.pending("campaign"))
