"""
The rules of links, push notifications, push tokens and anonymize by number.

Most are the Android SDK's. Where this package decided otherwise, the scenario says so, and holds the decision.
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
LED = {"url": LINK, "utm_source": "mail", "xnpe_cmp": "abc"}
VISIT = "https://shop.example/p?utm_source=mail"
FORCED = "https://shop.example/?xnpe_force_track=true"
GRANTED, DENIED, INVALIDATED = "Permission granted", "Permission denied", "Invalidated"
DAY = 86_400.0


def vector(number: str) -> Callable[[Scenario], Scenario]:
    """Take a scenario for the vector of a number."""

    def take(scenario: Scenario) -> Scenario:
        VECTORS.append(pytest.param(scenario, id=number))
        return scenario

    return take


def push(**parts: Any) -> dict[str, Any]:
    return {"source": "xnpe_platform", "title": "Sale", "attributes": {"campaign_id": "c-1"}, **parts}


async def starts(phone: Phone) -> list[dict[str, Any]]:
    return [each.own for each in await phone.kept("session_start")]


async def only(phone: Phone, name: str = "campaign") -> Kept:
    (event,) = await phone.kept(name)
    return event


async def tokens(phone: Phone) -> list[tuple[str, bool, str]]:
    told = [each.own for each in await phone.kept("notification_state")]
    return [(each["push_notification_token"], each["valid"], each["description"]) for each in told]


# Links and sessions


@vector("K01")
async def cold_start(phone: Phone) -> None:
    """A cold start by a link is a click, and leads to the session; ``location``, a twin of the url, is left out."""
    client = await phone.start()
    assert await client.handle_campaign_click(LINK) is True
    assert (await only(phone, "click")).data["url"] == LINK
    assert await starts(phone) == [LED]


@vector("K02")
async def cold_start_without_a_click(phone: Phone) -> None:
    """Without an ``xnpe_cmp`` it is no click, and leads to the session all the same."""
    client = await phone.start()
    assert await client.handle_campaign_click(VISIT) is False
    assert await phone.kept("click") == []
    assert await starts(phone) == [{"url": VISIT, "utm_source": "mail"}]


@vector("K03")
async def session_goes_on(phone: Phone) -> None:
    """A link within a session is a click and starts none; the next session is not led by it."""
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
    """A link of eleven seconds ago leads to no session."""
    assert await led_after(phone, 11) == {}


@vector("K05")
async def ten_seconds(phone: Phone) -> None:
    """A link of exactly ten seconds ago does."""
    assert await led_after(phone, 10) == LED


@vector("K06")
async def parameter_twice(phone: Phone) -> None:
    """Of a parameter that is there twice the first counts."""
    client = await phone.start()
    await client.handle_campaign_click("https://shop.example/?utm_source=a&utm_source=b")
    assert (await starts(phone))[0]["utm_source"] == "a"


@vector("K07")
async def empty_sign(phone: Phone) -> None:
    """An empty ``xnpe_cmp`` makes no click."""
    client = await phone.start()
    assert await client.handle_campaign_click("https://shop.example/?utm_source=a&xnpe_cmp=") is False
    assert await phone.kept("click") == []


@vector("K08")
async def second_link(phone: Phone) -> None:
    """Of two links the later one leads to the session."""
    client = await phone.start(automatic_session_tracking=False)
    await client.handle_campaign_click("https://shop.example/?utm_source=first&utm_term=x")
    await client.handle_campaign_click(LINK)
    await client.track_session_start()
    assert await starts(phone) == [LED]


@vector("K09")
async def press_leads(phone: Phone) -> None:
    """A press on a notification leads to the session of the next ten seconds."""
    client = await phone.start(automatic_session_tracking=False)
    await client.track_clicked_push(push(url_params={"utm_source": "push", "xnpe_cmp": "q"}))
    phone.now += 10
    await client.track_session_start()
    assert await starts(phone) == [{"utm_source": "push", "xnpe_cmp": "q"}]


@vector("K10")
async def percent_signs(phone: Phone) -> None:
    """Values are decoded; the link itself is told as it was."""
    client = await phone.start()
    link = "https://shop.example/?utm_campaign=Sale%20%26%20m%C3%A9r"
    await client.handle_campaign_click(link)
    assert await starts(phone) == [{"url": link, "utm_campaign": "Sale & mér"}]


@vector("K11")
async def no_scheme(phone: Phone) -> None:
    """A text without a scheme is no link, and leads nowhere."""
    client = await phone.start()
    assert await client.handle_campaign_click("shop.example/?utm_source=a") is False
    await client.track_event(Event("ping"))
    assert await starts(phone) == [{}]


@vector("K11b")
async def no_query(phone: Phone) -> None:
    """A link without parameters is no click, and leads to the session by its ``url``; ``location`` is left out."""
    client = await phone.start()
    assert await client.handle_campaign_click("https://shop.example/p") is False
    assert await starts(phone) == [{"url": "https://shop.example/p"}]


@vector("K12")
async def anonymize_after_link(phone: Phone) -> None:
    """What led the customer here who has gone leads no other."""
    client = await phone.start(automatic_session_tracking=False)
    await client.handle_campaign_click(LINK)
    await client.anonymize()
    await client.track_session_start()
    assert await starts(phone) == [{}]


# Push notifications


# When it was sent, came and was pressed; and when the delivery and the press are told to have been.
MOMENTS = [
    pytest.param((100, 200, 300), (200, 300), id="P01"),
    pytest.param((100, 100, 300), (101, 300), id="P02"),
    pytest.param((100, 90, 300), (101, 300), id="P03"),
    pytest.param((100, 90, 95), (101, 102), id="P04"),
    pytest.param((100, 200, 200), (200, 201), id="P05"),
    pytest.param((100, 200, 150), (200, 201), id="P06"),
    pytest.param((None, 200, 150), (200, 201), id="P07"),
]
Happened = tuple[float | None, float, float]


def sent_and_received(happened: Happened) -> dict[str, Any]:
    sent, received, _ = happened
    return push(attributes={} if sent is None else {"sent_timestamp": sent}, receivedSeconds=received)


@pytest.mark.parametrize(("happened", "told"), MOMENTS)
def test_moments(happened: Happened, told: tuple[float, float]) -> None:
    """Whatever the clocks say, a notification was sent before it came, and came before it was pressed."""
    read = read_payload(sent_and_received(happened))
    _, delivered = delivered_event(read, received_at=happened[1])
    _, clicked = clicked_event(read, clicked_at=happened[2])
    assert (delivered.timestamp, clicked.timestamp) == told


@pytest.mark.parametrize(("happened", "told"), MOMENTS)
async def test_moments_of_calls(phone: Phone, happened: Happened, told: tuple[float, float]) -> None:
    """The verbs tell the same; but a call's own moment, which no other one has, is after an equal one as it is."""
    client = await phone.start(at=happened[2], automatic_session_tracking=False)
    await client.track_delivered_push(sent_and_received(happened))
    await client.track_clicked_push(sent_and_received(happened))
    delivered, clicked = [each.data["timestamp"] for each in await phone.kept("campaign")]
    assert (happened[0] or 0) < delivered < clicked
    assert delivered == told[0]
    assert round(clicked, 3) == (happened[2] if happened[1] == happened[2] else told[1])


@vector("P10")
async def of_others(phone: Phone) -> None:
    """Only what has Engagement's source is a notification of Engagement's; who handles others is the host's to tell."""
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
    """One with nothing to read was not shown."""
    assert await state_of(phone, push(title=" ", message="")) == "not_shown"


@vector("P13")
async def headline(phone: Phone) -> None:
    """One with a headline was shown."""
    assert await state_of(phone, push()) == "shown"


@vector("P14")
async def same_number_twice(phone: Phone) -> None:
    """
    Two with the same number are both tracked.

    Here no service of the system hands notifications in, possibly twice: each call is one that the host means.
    """
    assert await tracked(phone, "7", "7") == 2


@vector("P15")
async def numbers_in_turn(phone: Phone) -> None:
    """Numbers that alternate are all tracked."""
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
    """Without consent an arrival is not tracked, and who listens hears of it all the same."""
    client = await phone.start()
    payload = push(has_tracking_consent="false")
    stream = client.received_push_stream()
    await client.track_delivered_push(payload)
    assert await phone.kept("campaign") == []
    assert (await asyncio.wait_for(anext(stream), 10)).data == payload


@vector("P18")
async def forced_press(phone: Phone) -> None:
    """Without consent a press is tracked that its link forces, and says so."""
    client = await phone.start()
    await client.track_clicked_push(push(has_tracking_consent="false", url=FORCED))
    assert (await only(phone)).own["tracking_forced"] is True


@vector("P19")
async def plain_press(phone: Phone) -> None:
    """Without consent another press is not."""
    client = await phone.start()
    await client.track_clicked_push(push(has_tracking_consent="false", url="https://shop.example/"))
    assert await phone.kept("campaign") == []


@vector("P20")
async def type_of_its_own(phone: Phone) -> None:
    """A type of the notification's own is that of the event, and no property."""
    client = await phone.start()
    await client.track_delivered_push(push(attributes={"event_type": "my_push", "campaign_id": "c-1"}))
    event = await only(phone, "my_push")
    assert event.own["campaign_id"] == "c-1"
    assert "event_type" not in event.own


@vector("P21")
async def url_params(phone: Phone) -> None:
    """What tells of the campaign is told with the press, and leads to the session."""
    client = await phone.start()
    await client.track_clicked_push(push(url_params='{"utm_source": "push"}'))
    assert (await only(phone)).own["utm_source"] == "push"
    assert await starts(phone) == [{"utm_source": "push"}]


@vector("P22")
async def two_buttons(_: Phone) -> None:
    """Buttons are read in their order; which was pressed is the host's to tell, with ``actionType`` and so on."""
    buttons = '[{"action": "app", "title": "Open"}, {"action": "browser", "title": "Web", "url": "https://s.example"}]'
    read = read_payload(push(actions=buttons))
    assert read.actions == (PushAction("app", "Open"), PushAction("browser", "Web", "https://s.example"))


@vector("P23")
async def unknown_action(_: Phone) -> None:
    """An unknown kind of action is none."""
    assert read_payload(push(action="dance")).action.kind is None


@vector("P24")
async def press_on_itself(phone: Phone) -> None:
    """A press on the notification itself leads into the application."""
    client = await phone.start()
    await client.track_clicked_push(push())
    own = (await only(phone)).own
    assert (own["url"], own["cta"]) == ("app", "notification")


@vector("P25")
async def attributes_named_alike(phone: Phone) -> None:
    """
    An attribute does not take the place of what happened, as in the iOS SDK.

    In the Android SDK it does, and a delivery can be told as anything.
    """
    client = await phone.start()
    await client.track_delivered_push(push(attributes={"status": "x", "state": "y", "campaign_id": "c-1"}))
    own = (await only(phone)).own
    assert (own["status"], own["state"], own["campaign_id"]) == ("delivered", "shown", "c-1")


@vector("P26")
async def address_without_scheme(phone: Phone) -> None:
    """An address without a scheme is one of the web, of a button and of the notification alike."""
    assert read_payload(push(actions=[{"action": "browser", "url": "shop.example/x"}])).actions[0].url == (
        "http://shop.example/x"
    )
    client = await phone.start()
    await client.track_clicked_push(push(url="shop.example/x"))
    assert (await only(phone)).own["url"] == "http://shop.example/x"


# Push tokens and anonymize


@vector("N01")
async def same_token(phone: Phone) -> None:
    """A token that was told is not told again."""
    client = await phone.start()
    await client.handle_push_token("A")
    await client.handle_push_token("A")
    assert await tokens(phone) == [("A", True, GRANTED)]


@vector("N02")
async def new_token(phone: Phone) -> None:
    """A new token is told after the old one was invalidated."""
    client = await phone.start()
    await client.handle_push_token("A")
    await client.handle_push_token("B")
    assert await tokens(phone) == [("A", True, GRANTED), ("A", False, INVALIDATED), ("B", True, GRANTED)]


@vector("N03")
async def every_launch(phone: Phone) -> None:
    """With `EVERY_LAUNCH` each call tells it."""
    client = await phone.start(push_token_tracking_frequency=TokenFrequency.EVERY_LAUNCH)
    for _ in range(3):
        await client.handle_push_token("A")
    assert len(await tokens(phone)) == 3


@vector("N04")
async def daily(phone: Phone) -> None:
    """With `DAILY` it is told once a day; the days are those of UTC, the same on each machine."""
    client = await phone.start(at=DAY, push_token_tracking_frequency=TokenFrequency.DAILY)
    await client.handle_push_token("A")
    phone.now = 2 * DAY - 1
    await client.handle_push_token("A")
    assert len(await tokens(phone)) == 1
    phone.now = 2 * DAY
    await client.handle_push_token("A")
    assert len(await tokens(phone)) == 2


@vector("N05")
async def told_by_hand(phone: Phone) -> None:
    """`track_push_token` tells a token whenever it is called."""
    client = await phone.start()
    await client.track_push_token("A")
    await client.track_push_token("A")
    assert await tokens(phone) == [("A", True, GRANTED)] * 2


@vector("N06")
async def another_application(phone: Phone) -> None:
    """Under another application id the token is told again, whatever the frequency."""
    client = await phone.start()
    await client.handle_push_token("A")
    client = await phone.restart(application_id="com.example.other")
    await client.handle_push_token("A")
    told = await phone.kept("notification_state")
    assert [each.properties["application_id"] for each in told] == ["default-application", "com.example.other"]


@vector("N07")
async def denied(phone: Phone) -> None:
    """Where permission is required and denied, the token is not valid."""
    client = await phone.start(require_push_authorization=True)
    await client.handle_push_token("A")
    await client.verify_push_status_and_track_push_token(authorized=False)
    assert (await tokens(phone))[-1] == ("A", False, DENIED)


@vector("N08")
async def anonymize(phone: Phone) -> None:
    """The customer who goes ends the session and gives the token back; the new one begins with all of it."""
    client = await phone.start()
    await client.identify_customer(Customer({"registered": "R"}))
    await client.handle_push_token("A")
    old = {"cookie": await client.get_customer_cookie(), "registered": "R"}
    told = await phone.new(client.anonymize)
    new = {"cookie": await client.get_customer_cookie()}

    assert [(each.name, each.own.get("valid"), each.own.get("description")) for each in told] == [
        ("session_end", None, None),
        ("notification_state", False, INVALIDATED),
        ("installation", None, None),
        ("session_start", None, None),
        ("notification_state", True, GRANTED),
    ]
    assert [each.ids for each in told] == [old, old, new, new, new]
    assert new["cookie"] != old["cookie"]


@vector("N09")
async def anonymize_elsewhere(phone: Phone) -> None:
    """What the customer who goes leaves behind goes to the old project, the rest to the new one."""
    client = await phone.start()
    await client.handle_push_token("A")
    change = ConfigurationChange(project=ExponeaProject("other", "key"))
    told = await phone.new(lambda: client.anonymize(change))
    assert [each.project for each in told] == ["shop", "shop", "other", "other", "other"]


@vector("N10")
async def anonymize_without_token(phone: Phone) -> None:
    """Without a token nothing is told of one."""
    client = await phone.start()
    await client.track_event(Event("ping"))
    told = await phone.new(client.anonymize)
    assert [each.name for each in told] == ["session_end", "installation", "session_start"]


@pytest.mark.parametrize("scenario", VECTORS)
async def test_vector(phone: Phone, scenario: Scenario) -> None:
    """The scenario of this number ends as the rules say."""
    await scenario(phone)


def test_no_number_is_missing() -> None:
    """There is one scenario for each number."""
    links = [f"K{number:02}" for number in range(1, 12)] + ["K11b", "K12"]
    pushes = [f"P{number}" for number in range(10, 27)]
    rest = [f"N{number:02}" for number in range(1, 11)]
    assert [each.id for each in VECTORS] == links + pushes + rest


async def led_after(phone: Phone, seconds: float) -> dict[str, Any]:
    """Start a session by hand some time after a link, and tell what led to it."""
    client = await phone.start(automatic_session_tracking=False)
    await client.handle_campaign_click(LINK)
    phone.now += seconds
    await client.track_session_start()
    (led,) = await starts(phone)
    return led


async def state_of(phone: Phone, payload: dict[str, Any]) -> Any:
    """Track an arrival, and tell whether it was shown."""
    client = await phone.start()
    await client.track_delivered_push(payload)
    return (await only(phone)).own["state"]


async def tracked(phone: Phone, *numbers: str) -> int:
    """Track the arrivals of notifications with these numbers, and tell how many were."""
    client = await phone.start()
    for number in numbers:
        await client.track_delivered_push(push(notification_id=number))
    return len(await phone.kept("campaign"))
