"""
In-app messages by numbered scenarios, on which the platforms agree or one of them was chosen.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from helpers.app import Phone
from helpers.waiting import until
from in_app_world import World, has, message, taken, types, upon

from exponea_async import Customer, Event, PurchasedItem
from exponea_async.features._shared.consent import forces_tracking, has_consent
from exponea_async.features.in_app import active as _in_app_stage
from exponea_async.messages import InAppMessage, InAppMessageAction
from exponea_async.sandbox import Fault, Sandbox

Scenario = Callable[[World], Awaitable[None]]
PIPELINE: list[Any] = []
ACTIONS: list[Any] = []
FREQUENCY: list[Any] = []

ANN, BEN = Customer({"registered": "ann@x.com"}), Customer({"registered": "ben@x.com"})
LINK = "https://s.example/sale"
FORCED = f"{LINK}?xnpe_force_track=1"
PUSH = {"source": "xnpe_platform", "title": "Sale"}
FAILING = Fault("status", status=500, paths="/inappmessages$")


def vector(number: str, among: list[Any] = PIPELINE) -> Callable[[Scenario], Scenario]:
    """Take a scenario for the vector of a number."""

    def take(scenario: Scenario) -> Scenario:
        among.append(pytest.param(scenario, id=number))
        return scenario

    return take


@pytest.fixture
def world(phone: Phone, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> World:
    return World(phone, sandbox, monkeypatch)


# The pipeline


@vector("T01")
async def first_event(world: World) -> None:
    """The first event ever fetches, and then shows."""
    await world.start(message())
    assert await world.track() == ["m"]
    assert world.fetches == 1
    cookie = await world.client.get_customer_cookie()
    assert world.bodies() == [{"customer_ids": {"cookie": cookie}, "device": "android"}]


@vector("T02")
async def two_starts(world: World) -> None:
    """A second session start finds what the first one has loaded."""
    await world.start(message(event="session_start"))
    await world.client.track_session_start()
    (first,) = await world.given()
    await world.client.close_in_app_message(first)
    await world.client.track_session_start()
    assert await world.shown() == ["m"]
    assert world.fetches == 1


@vector("T03")
async def many_first_events(world: World) -> None:
    """Ten first events at once fetch once, and one message is shown."""
    await world.start(message())
    await asyncio.gather(*[world.client.track_event(Event("x")) for _ in range(10)])
    assert await world.shown() == ["m"]
    assert world.fetches == 1


@vector("T04")
async def an_event_after_the_lifetime(world: World) -> None:
    """An event that tells of 31 minutes later fetches again."""
    await world.start()
    await world.track()
    await world.track(timestamp=1000 + 31 * 60.0)
    assert world.fetches == 2


@vector("T05")
async def an_event_at_the_end_of_the_lifetime(world: World) -> None:
    """An event that tells of exactly 30 minutes later does not."""
    await world.start()
    await world.track()
    await world.track(timestamp=1000 + 30 * 60.0)
    assert world.fetches == 1


@vector("T06")
async def quiet_events(world: World) -> None:
    """Push notifications and the end of a session fetch nothing, and show what is known."""
    client = await world.start(message("push", "campaign"), message("end", "session_end"), listen=False)
    await client.track_session_start()
    world.messages = client.in_app_messages()
    await client.track_delivered_push(PUSH)
    await client.track_clicked_push(PUSH)
    await client.track_session_end()
    assert await world.shown() == []
    assert world.fetches == 0

    assert await world.track("y") == []
    await client.track_delivered_push(PUSH)
    (given,) = await world.given()
    await client.close_in_app_message(given)
    await client.track_session_start()
    await client.track_session_end()
    assert [given.id, *await world.shown()] == ["push", "end"]
    assert world.fetches == 1


@vector("T07")
async def a_banner_was_shown(world: World) -> None:
    """That a banner was shown neither fetches nor shows, nor is it shown upon later."""
    client = await world.start(message(event="banner"), listen=False)
    await client.track_event(Event("y"))
    world.messages = client.in_app_messages()
    assert await world.track("banner", action="show") == []
    assert world.fetches == 0
    assert await world.track("y") == []
    assert await world.track("banner", action="show") == []
    assert world.fetches == 1


@vector("T08")
async def a_banner_was_clicked(world: World) -> None:
    """That a banner was clicked is an event like any other."""
    client = await world.start(
        message("first"), message("second", trigger=upon("banner", has("action", "equals", "click")))
    )
    first = await world.first()
    await client.click_in_app_message(first, first.buttons[0])
    assert await world.shown() == ["second"]


@vector("T09")
async def away(world: World) -> None:
    """A phone shows nothing while its app is away. A host that listens is always there: messages come as ever."""
    client = await world.start(message())
    await client.resume()
    await client.pause()
    assert await world.track() == ["m"]
    assert world.fetches == 1


@vector("T10")
async def stopped(world: World) -> None:
    """A client whose integration is stopped fetches nothing and shows nothing."""
    client = await world.start(message())
    await client.stop_integration()
    assert await world.track() == []
    assert await client.in_app_message_for(Event("x")) is None
    assert world.fetches == 0


@vector("T11")
async def stopped_while_fetching(world: World) -> None:
    """What comes after a stop is ignored, and whoever waits for it gets nothing."""
    client = await world.start(message())
    world.hold()
    await client.track_event(Event("x"))
    waiting = asyncio.create_task(client.in_app_message_for(Event("x")))
    await until(lambda: len(world.part._loader._flights) == 1)
    await client.stop_integration()
    await world.release()
    assert await waiting is None
    assert await world.shown() == []
    assert len(world.part._cache) == 0


@vector("T12")
async def four_failures(world: World) -> None:
    """It asks four times, and then leaves what is known as it is."""
    client = await world.start(message())
    given = await world.first()
    await client.close_in_app_message(given)
    world.sandbox.faults.add(FAILING)
    world.phone.now = 9000.0
    assert await world.track() == []
    assert world.fetches == 1 + 4
    (known,) = world.part._cache._customers.values()
    assert [each.id for each in known.content.definitions] == ["m"]


@vector("T13")
async def three_failures(world: World) -> None:
    """Three failures are none."""
    world.sandbox.faults.add(Fault("status", status=500, paths="/inappmessages$", times=3))
    await world.start(message())
    assert await world.track() == ["m"]
    assert world.fetches == 4


@vector("T14")
async def an_event_while_fetching(world: World) -> None:
    """An event while messages are fetched does not fetch them again, and is shown upon when they are there."""
    client = await world.start(message())
    world.hold()
    await client.track_event(Event("y"))
    await client.track_event(Event("x"))
    await world.release()
    assert await world.shown() == ["m"]
    assert world.fetches == 1


@vector("T15")
async def too_late(world: World) -> None:
    """After three seconds nobody wants a message for an event any more."""
    client = await world.start(message())
    world.hold()
    await client.track_event(Event("x"))
    world.monkeypatch.setattr(_in_app_stage, "PATIENCE", 0.0)
    await world.release()
    assert await world.shown() == []


async def latest_waiting(world: World, *moments: float) -> list[float | None]:
    """Track one type of event at some moments while messages are fetched, and tell what waits."""
    client = await world.start()
    world.hold()
    for moment in moments:
        await client.track_event(Event("x", timestamp=moment))
    waiting = world.part._requests._devices["default"]
    return [each.occasion.timestamp for name, each in waiting.items() if name == "x"]


@vector("T16")
async def one_of_a_type(world: World) -> None:
    """Of eleven events of one type the latest waits."""
    assert await latest_waiting(world, *range(1, 12)) == [11.0]


@vector("T17")
async def the_latest_of_a_type(world: World) -> None:
    """It is the latest one that waits, in whichever order they come."""
    assert await latest_waiting(world, 20.0, 10.0) == [20.0]


@vector("T18")
async def somebody_else_meanwhile(world: World) -> None:
    """What one customer did is not shown upon to another one."""
    client = await world.start(message())
    world.hold()
    await client.track_event(Event("x"))
    await client.anonymize()
    await world.release()
    assert await world.shown() == []


@vector("T19")
async def another_one_is_shown(world: World) -> None:
    """While a message is shown nothing is picked, and what waited does not wait any more."""
    client = await world.start(message())
    first = await world.first()
    assert await world.track() == []
    await client.close_in_app_message(first)
    assert await world.track("y") == []
    assert await world.track() == ["m"]


@vector("T20")
async def identify_by_hand(world: World) -> None:
    """
    Where uploads are made by hand, messages are fetched once the customer was uploaded.

    The Android SDK fetches at once, too, and gets what is meant for whom the platform knew before.
    """
    client = await world.start(message(), message("ann", "y"))
    world.hold()
    await client.track_event(Event("x"))
    await client.identify_customer(ANN)
    await world.release()
    assert await world.shown() == []
    before = world.fetches
    assert await world.track("y") == []
    assert world.fetches == before
    await client.flush_data()
    await until(lambda: world.fetches == before + 1)
    assert await world.shown() == ["ann"]
    assert world.bodies()[-1]["customer_ids"]["registered"] == "ann@x.com"


@vector("T21")
async def identify_in_immediate_mode(world: World) -> None:
    """Where uploads are made at once, they are fetched then, and what waited before does not wait any more."""
    world.sandbox.faults.add(Fault("status", status=503, path="/batch"))
    client = await world.start(message(), flush_mode="IMMEDIATE", upload={"backoff_initial": 0.05, "backoff_max": 0.05})
    world.hold()
    await client.track_event(Event("x"))
    receipt = await client.identify_customer(ANN)
    await world.release()
    before = world.fetches
    assert await world.track("y") == []
    assert (receipt.status, world.fetches) == ("queued", before)
    world.sandbox.faults.clear()
    await receipt.delivered()
    await until(lambda: world.fetches == before + 1)
    assert await world.shown() == []


@vector("T22")
async def a_custom_event(world: World) -> None:
    """Other events don't keep those before from being shown upon."""
    client = await world.start(message())
    world.hold()
    await client.track_event(Event("x"))
    await client.track_payment_event(PurchasedItem(1.0, "EUR", "card", "1", "Mug"))
    await client.track_event(Event("y"))
    await world.release()
    assert await world.shown() == ["m"]


@vector("T23")
async def identify_twice(world: World) -> None:
    """What was fetched for one customer is not for the next one, whatever comes first."""
    client = await world.start()
    world.put(message("ann"), to={"registered": "ann@x.com"})
    world.put(message("ben"), to={"registered": "ben@x.com"})
    await client.identify_customer(ANN)
    await world.rest()
    world.hold()
    await client.flush_data()
    await until(lambda: len(world.part._loader._flights) == 1)
    await client.anonymize()
    await client.identify_customer(BEN)
    await world.release()
    await client.flush_data()
    await until(lambda: [each["customer_ids"].get("registered") for each in world.bodies()][-1:] == ["ben@x.com"])
    assert await world.track() == ["ben"]


def loading(world: World, *missing: str) -> tuple[asyncio.Event, Any]:
    """Make a way to load resources that waits for a sign, and finds all but some."""
    sign = asyncio.Event()

    async def load(url: str) -> bytes | None:
        await sign.wait()
        return None if url in missing else b"data"

    return sign, load


@vector("T24")
async def another_customer_while_loading(world: World) -> None:
    """Whoever comes while a picture is loaded does not see what was meant for the one before."""
    sign, load = loading(world)
    client = await world.start(message(payload={"image_url": "https://i.example/1.png"}), resource_loader=load)
    cookie = await client.get_customer_cookie()
    await client.track_event(Event("x"))
    await until(lambda: ("default", "m") in world.part.stage._preparing)
    await client.anonymize()
    sign.set()
    assert await world.shown() == []
    (event,) = await world.banners()
    assert (event.properties["action"], event.properties["error"]) == (
        "error",
        "Another customer login while resource load",
    )
    assert event.ids == {"cookie": cookie}


@vector("T25")
async def a_picture_is_missing(world: World) -> None:
    """A message whose picture can't be had is not shown, and that is told."""
    sign, load = loading(world, "https://i.example/1.png")
    sign.set()
    await world.start(message(payload={"image_url": "https://i.example/1.png"}), resource_loader=load)
    assert await world.track() == []
    (event,) = await world.banners()
    assert (event.properties["action"], event.properties["error"]) == ("error", "Resources has not been preloaded")
    assert event.properties["interaction"] is False


@vector("T26")
async def a_blank_picture(world: World) -> None:
    """A blank address is no picture."""
    _, load = loading(world)
    await world.start(message(payload={"title": "Hi", "image_url": "  "}), resource_loader=load)
    assert await world.track() == ["m"]


@vector("T27")
async def a_delay(world: World) -> None:
    """A message that is to wait is not shown before."""
    loop = asyncio.get_running_loop()
    await world.start(message(load_delay=1234))
    began = loop.time()
    assert await world.track() == ["m"]
    assert loop.time() - began >= 1.234


@vector("T28")
async def a_timeout(world: World) -> None:
    """A message closes by itself after its time, which nobody did."""
    loop = asyncio.get_running_loop()
    await world.start(message(close_timeout=900))
    began = loop.time()
    given = await world.first()
    assert given.close_timeout == 0.9
    await until(lambda: len(world.part.stage) == 0)
    await world.rest()
    assert loop.time() - began >= 0.9
    (event,) = await world.banners("close")
    assert event.properties["interaction"] is False
    assert "text" not in event.properties


@vector("T29")
async def a_slide_in(world: World) -> None:
    """One that slides in closes after four seconds."""
    await world.start(message(message_type="slide_in"))
    given = await world.first()
    timer = world.part.stage._devices["default"].timer
    assert given.close_timeout == 4.0
    assert timer is not None
    assert 0 < timer.when() - asyncio.get_running_loop().time() <= 4.0


@vector("T30")
async def an_event_without_consent(world: World) -> None:
    """An event that may not be tracked has happened, and is shown upon."""
    client = await world.start(message(event="campaign"))
    await world.track("y")
    receipt = await client.track_delivered_push({**PUSH, "has_tracking_consent": False})
    assert receipt.status == "dropped"
    assert await world.shown() == ["m"]


@vector("T31")
async def a_message_without_consent(world: World) -> None:
    """A message that may not be tracked is shown, remembered and told of."""
    client = await world.start(message(has_tracking_consent=False, frequency="only_once"))
    actions = client.in_app_message_action_stream()
    given = await world.first()
    assert types(actions) == ["show"]
    assert await world.banners() == []
    await client.close_in_app_message(given)
    assert await world.track() == []


@vector("T32")
async def nothing_any_more(world: World) -> None:
    """An answer without messages leaves none."""
    client = await world.start(message())
    await client.close_in_app_message(await world.first())
    world.sandbox.messages.in_app_messages.clear()
    world.phone.now = 9000.0
    assert await world.track() == []
    assert await world.track() == []
    assert world.fetches == 2


@vector("T33")
async def many_at_once(world: World) -> None:
    """However many events come at once, none is lost and none is shown twice."""
    client = await world.start(*[message(f"m{number}", f"x{number}") for number in range(20)])
    await world.track("y")
    seen: list[str] = []
    for number in range(20):
        await asyncio.gather(*[client.track_event(Event(f"x{number}")) for _ in range(3)])
        for given in await world.given():
            seen.append(given.id)
            await client.close_in_app_message(given)
    assert seen == [f"m{number}" for number in range(20)]
    assert len(world.part._requests) == 0
    assert (await world.told()).count("show") == 20


@pytest.mark.parametrize("scenario", PIPELINE)
async def test_pipeline(world: World, scenario: Scenario) -> None:
    """From an event to a message."""
    await scenario(world)


# What the host's user does


async def act(
    world: World, *, track: bool = True, override: bool = False, link: str = LINK, **fields: Any
) -> tuple[InAppMessage, Any]:
    """Show a message to a host with options, and tell it with the host's stream."""
    payload = {
        "buttons": [
            {"button_type": "browser", "button_text": "Go", "button_link": f" {link} "},
            {"button_type": "cancel", "button_text": "No", "button_link": "https://never.example"},
        ]
    }
    client = await world.start(message(payload=payload, **fields))
    actions = client.in_app_message_action_stream(override, track)
    given = await world.first()
    assert types(actions) == ["show"]
    return given, actions


async def clicked(world: World, *, opened: str | None, tracked: bool, **options: Any) -> None:
    """Press the first button of a message, and look at what comes of it."""
    given, actions = await act(world, **options)
    assert await world.client.click_in_app_message(given, given.buttons[0]) == opened
    assert taken(actions) == [InAppMessageAction("click", given, given.buttons[0])]
    events = await world.banners("click")
    assert len(events) == tracked
    for event in events:
        assert event.properties["text"] == "Go"
        assert event.properties["interaction"] is True
    state = await world.client._device_context.load_state()
    assert state is not None
    assert state.messages["m"].interacted is not None
    # A press is no close.
    assert await world.banners("close") == []


@vector("A01", ACTIONS)
async def click(world: World) -> None:
    """A press is tracked and told, and the host gets the link to open."""
    await clicked(world, opened=LINK, tracked=True)


@vector("A02", ACTIONS)
async def overridden_click(world: World) -> None:
    """A host that opens links itself gets none."""
    await clicked(world, override=True, opened=None, tracked=True)


@vector("A03", ACTIONS)
async def untracked_click(world: World) -> None:
    """A host that tracks itself gets the link, and nothing is tracked."""
    await clicked(world, track=False, opened=LINK, tracked=False)


@vector("A04", ACTIONS)
async def all_up_to_the_host(world: World) -> None:
    """A host that does all by itself is told."""
    await clicked(world, track=False, override=True, opened=None, tracked=False)


@vector("A05", ACTIONS)
async def cancel(world: World) -> None:
    """A button to cancel closes the message, with what it says and without a link."""
    given, actions = await act(world)
    no = given.buttons[1]
    assert await world.client.click_in_app_message(given, no) is None
    assert taken(actions) == [InAppMessageAction("close", given, no, interaction=True)]
    (event,) = await world.banners("close")
    assert (event.properties["text"], event.properties["interaction"]) == ("No", True)
    assert "link" not in event.properties
    assert await world.banners("click") == []


@vector("A06", ACTIONS)
async def close(world: World) -> None:
    """A close has no text, and somebody did it."""
    given, actions = await act(world)
    await world.client.close_in_app_message(given)
    assert taken(actions) == [InAppMessageAction("close", given, None, interaction=True)]
    (event,) = await world.banners("close")
    assert event.properties["interaction"] is True
    assert "text" not in event.properties


@vector("A07", ACTIONS)
async def untracked_close(world: World) -> None:
    """A host that tracks itself is told of the close."""
    given, actions = await act(world, track=False)
    await world.client.close_in_app_message(given)
    assert types(actions) == ["close"]
    assert await world.banners("close") == []


@vector("A08", ACTIONS)
async def show_is_tracked(world: World) -> None:
    """That a message is shown is tracked in any case."""
    await act(world, track=False)
    (event,) = await world.banners()
    assert event.properties["action"] == "show"


@vector("A09", ACTIONS)
async def failure_is_tracked(world: World) -> None:
    """That it could not be shown is, too."""
    given, actions = await act(world, track=False, override=True)
    await world.client.fail_in_app_message(given, "no screen")
    assert taken(actions) == [InAppMessageAction("error", given, error_message="no screen")]
    (event,) = await world.banners("error")
    assert (event.properties["error"], event.properties["interaction"]) == ("no screen", False)


@vector("A10", ACTIONS)
async def tracked_by_the_listener(world: World) -> None:
    """A listener that tracks a press itself makes one event of it."""
    given, actions = await act(world, track=False)
    await world.client.click_in_app_message(given, given.buttons[0])
    heard = await anext(actions)
    await world.client.track_in_app_message_click(heard.message, heard.button)
    assert len(await world.banners("click")) == 1
    assert types(actions) == []


@vector("A11", ACTIONS)
async def click_without_consent(world: World) -> None:
    """Without consent nothing is tracked, and all else is as ever."""
    await clicked(world, opened=LINK, tracked=False, has_tracking_consent=False)


@vector("A12", ACTIONS)
async def forced_click_without_consent(world: World) -> None:
    """A link may have its press tracked without consent."""
    await clicked(world, link=FORCED, opened=FORCED, tracked=True, has_tracking_consent=False)
    (event,) = await world.banners()
    assert (event.properties["link"], event.properties["tracking_forced"]) == (FORCED, True)


@vector("A13", ACTIONS)
async def forced_click_with_consent(world: World) -> None:
    """It says so even where there is consent."""
    await clicked(world, link=FORCED, opened=FORCED, tracked=True)
    (event,) = await world.banners("click")
    assert event.properties["tracking_forced"] is True


@vector("A14", ACTIONS)
async def close_by_hand(world: World) -> None:
    """Whoever does not consider the consent has a close tracked, and else not."""
    given, actions = await act(world, has_tracking_consent=False)
    assert (await world.client.track_in_app_message_close(given)).status == "dropped"
    assert await world.banners() == []
    receipt = await world.client.track_in_app_message_close(given, consider_consent=False)
    assert receipt.status == "queued"
    (event,) = await world.banners()
    assert (event.properties["action"], event.properties["interaction"]) == ("close", True)
    assert types(actions) == []


@vector("A15", ACTIONS)
async def late_listener(world: World) -> None:
    """A listener that comes late gets the last action only."""
    client = await world.start(message())
    given = await world.first()
    await client.close_in_app_message(given)
    assert types(client.in_app_message_action_stream()) == ["close"]
    assert types(client.in_app_message_action_stream()) == []


@vector("A16", ACTIONS)
async def listener_goes(world: World) -> None:
    """Once the listener has gone, all is as by default again."""
    given, actions = await act(world, track=False, override=True)
    await actions.aclose()
    assert await world.client.click_in_app_message(given, given.buttons[0]) == LINK
    assert len(await world.banners("click")) == 1


@pytest.mark.parametrize("scenario", ACTIONS)
async def test_actions(world: World, scenario: Scenario) -> None:
    """From what a host's user does to what is tracked."""
    await scenario(world)


# How often, and which


@vector("Q16", FREQUENCY)
async def once_for_all_identities(world: World) -> None:
    """What was shown to a device stays shown when the customer says who they are."""
    client = await world.start(message(frequency="only_once"))
    await client.close_in_app_message(await world.first())
    await client.identify_customer(ANN)
    await client.flush_data()
    await until(lambda: world.fetches == 2)
    assert await world.track() == []


@vector("Q18", FREQUENCY)
async def once_for_each_customer(world: World) -> None:
    """A new customer of the device has seen nothing yet."""
    client = await world.start(message(frequency="only_once"))
    await client.close_in_app_message(await world.first())
    assert await world.track() == []
    await client.anonymize()
    assert await world.track() == ["m"]


@vector("Q20", FREQUENCY)
async def control_group(world: World) -> None:
    """Who is in the control group sees nothing, and that counts as seen, once."""
    client = await world.start(message(frequency="only_once", variant_id=-1, variant_name="Control group"))
    actions = client.in_app_message_action_stream()
    assert await world.track() == []
    assert await world.track() == []
    (event,) = await world.banners()
    assert (event.properties["action"], event.properties["variant_id"]) == ("show", -1)
    assert types(actions) == ["show"]


@vector("W10", FREQUENCY)
async def stamps_count(world: World) -> None:
    """What the SDK stamps on events is there for triggers."""
    client = await world.start(
        message(trigger=upon("x", has("application_id", "equals", "com.shop"))), application_id="com.shop"
    )
    assert await world.track() == ["m"]
    assert await client.device("other").in_app_message_for(Event("x")) is not None


@vector("W11", FREQUENCY)
async def defaults_count(world: World) -> None:
    """Default properties are, too."""
    client = await world.start(
        message(trigger=upon("x", has("shop", "equals", "nice"))), default_properties={"shop": "nice"}
    )
    assert await world.track() == ["m"]
    assert await client.device("other").in_app_message_for(Event("x", {"shop": "bad"})) is None


@vector("R08", FREQUENCY)
async def the_best_of_two_events(world: World) -> None:
    """Of what is meant for two events that wait, the message of the higher priority is shown."""
    client = await world.start(message("a", load_priority=1), message("b", "y", load_priority=9))
    world.hold()
    await client.track_event(Event("x"))
    await client.track_event(Event("y"))
    await world.release()
    assert await world.shown() == ["b"]


async def drawn(world: World, *events: str) -> set[str]:
    """Track events while messages are fetched, many times, and tell what was shown in all."""
    seen: set[str] = set()
    for _ in range(30):
        world.hold()
        world.part._cache.clear()
        world.phone.now += 3600.0
        for event in events:
            await world.client.track_event(Event(event))
        await world.release()
        for given in await world.given():
            seen.add(given.id)
            await world.client.close_in_app_message(given)
    return seen


@vector("R09", FREQUENCY)
async def chance_among_events(world: World) -> None:
    """Of two without a priority either may be shown."""
    await world.start(message("a"), message("b", "y"))
    assert await drawn(world, "x", "y") == {"a", "b"}


@vector("R10", FREQUENCY)
async def chance_among_messages(world: World) -> None:
    """Of several upon one event each may be shown."""
    await world.start(message("a"), message("b"), message("c"))
    assert await drawn(world, "x") == {"a", "b", "c"}


@pytest.mark.parametrize("scenario", FREQUENCY)
async def test_choice(world: World, scenario: Scenario) -> None:
    """Which message is shown, and how often."""
    await scenario(world)


# Consent

BASE = "https://x.example/"


@pytest.mark.parametrize(
    ("url", "forced"),
    [
        pytest.param(f"{BASE}?xnpe_force_track=true", True, id="G01"),
        pytest.param(f"{BASE}?xnpe_force_track=TRUE", True, id="G02"),
        pytest.param(f"{BASE}?a=1&xnpe_force_track=1", True, id="G03"),
        pytest.param(f"{BASE}?a=1&xnpe_force_track", True, id="G04"),
        # As in the Android SDK; iOS' takes it for a no.
        pytest.param(f"{BASE}?xnpe_force_track=", True, id="G05"),
        pytest.param(f"{BASE}?xnpe_force_track=false", False, id="G06-false"),
        pytest.param(f"{BASE}?xnpe_force_track=FALSE", False, id="G06-FALSE"),
        pytest.param(f"{BASE}?xnpe_force_track=0", False, id="G06-0"),
        pytest.param(f"{BASE}?xnpe_force_track=yes", False, id="G07"),
        pytest.param(f"{BASE}?q=xnpe_force_track%3Dtrue", False, id="G08-value"),
        pytest.param(f"{BASE}xnpe_force_track=true", False, id="G08-path"),
        pytest.param(None, False, id="G09-none"),
        pytest.param("mailto:a@b.example", False, id="G09-mail"),
        pytest.param(BASE, False, id="G09-no-query"),
        pytest.param("app://deep?xnpe_force_track=true", True, id="G10"),
    ],
)
def test_forced_links(url: str | None, forced: bool) -> None:  # noqa: FBT001
    """Which links have their press tracked without consent."""
    assert forces_tracking(url) is forced


@pytest.mark.parametrize(
    ("value", "consent"),
    [
        *[pytest.param(value, True, id=f"G11-{value!r}") for value in (None, True, "1", 1)],
        *[pytest.param(value, False, id=f"G12-{value!r}") for value in (False, "0", 0, "yes", 2)],
    ],
)
async def test_consent(world: World, value: object, consent: bool) -> None:  # noqa: FBT001
    """What a message's ``has_tracking_consent`` means, as read and as tracked."""
    assert has_consent(value) is consent
    world.put(message(has_tracking_consent=value), check=False)
    await world.start()
    assert await world.track() == ["m"]
    assert len(await world.banners("show")) == consent
