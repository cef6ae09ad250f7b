"""
In-app messages by numbered scenarios, on which the vendor's platforms agree or one of them was chosen.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from helpers.in_app import InAppFixture, condition, message, trigger, types_of
from helpers.waiting import until

from exponea_async import Customer, Event, PurchasedItem
from exponea_async.features._shared.consent import forces_tracking, has_consent
from exponea_async.messages import InAppMessage, InAppMessageAction
from exponea_async.sandbox import Fault
from exponea_async.testing import received

Scenario = Callable[[InAppFixture], Awaitable[None]]
PIPELINE: list[Any] = []
ACTIONS: list[Any] = []
FREQUENCY: list[Any] = []

ANN, BEN = Customer({"registered": "ann@x.com"}), Customer({"registered": "ben@x.com"})
LINK = "https://s.example/sale"
FORCED = f"{LINK}?xnpe_force_track=1"
PUSH = {"source": "xnpe_platform", "title": "Sale"}
FAILING = Fault("status", status=500, paths="/inappmessages$")


def vector(number: str, scenarios: list[Any] = PIPELINE) -> Callable[[Scenario], Scenario]:
    """Register a scenario under its number."""

    def register(scenario: Scenario) -> Scenario:
        scenarios.append(pytest.param(scenario, id=number))
        return scenario

    return register


# The pipeline


@vector("T01")
async def first_event(in_app: InAppFixture) -> None:
    """The first event ever loads the messages, and then shows one."""
    await in_app.start(message())
    assert await in_app.track() == ["m"]
    assert in_app.loads == 1
    cookie = await in_app.client.get_customer_cookie()
    assert in_app.bodies() == [{"customer_ids": {"cookie": cookie}, "device": "android"}]


@vector("T02")
async def two_starts(in_app: InAppFixture) -> None:
    """A second session start uses what the first one has loaded."""
    await in_app.start(message(event="session_start"))
    await in_app.client.track_session_start()
    (first,) = await in_app.received()
    await in_app.client.close_in_app_message(first)
    await in_app.client.track_session_start()
    assert await in_app.shown() == ["m"]
    assert in_app.loads == 1


@vector("T03")
async def many_first_events(in_app: InAppFixture) -> None:
    """Ten first events at once load once, and one message is shown."""
    await in_app.start(message())
    await asyncio.gather(*[in_app.client.track_event(Event("x")) for _ in range(10)])
    assert await in_app.shown() == ["m"]
    assert in_app.loads == 1


@vector("T04")
async def an_event_after_the_lifetime(in_app: InAppFixture) -> None:
    """An event with a timestamp 31 minutes later loads again."""
    await in_app.start()
    await in_app.track()
    await in_app.track(timestamp=1000 + 31 * 60.0)
    assert in_app.loads == 2


@vector("T05")
async def an_event_at_the_end_of_the_lifetime(in_app: InAppFixture) -> None:
    """An event with a timestamp exactly 30 minutes later does not."""
    await in_app.start()
    await in_app.track()
    await in_app.track(timestamp=1000 + 30 * 60.0)
    assert in_app.loads == 1


@vector("T06")
async def events_that_do_not_load(in_app: InAppFixture) -> None:
    """Push notifications and the end of a session load nothing, but messages that are loaded are shown for them."""
    client = await in_app.start(message("push", "campaign"), message("end", "session_end"), listen=False)
    await client.track_session_start()
    in_app.messages = client.in_app_messages()
    await client.track_delivered_push(PUSH)
    await client.track_clicked_push(PUSH)
    await client.track_session_end()
    assert await in_app.shown() == []
    assert in_app.loads == 0

    assert await in_app.track("y") == []
    await client.track_delivered_push(PUSH)
    (shown,) = await in_app.received()
    await client.close_in_app_message(shown)
    await client.track_session_start()
    await client.track_session_end()
    assert [shown.id, *await in_app.shown()] == ["push", "end"]
    assert in_app.loads == 1


@vector("T07")
async def a_banner_was_shown(in_app: InAppFixture) -> None:
    """That a banner was shown neither loads messages nor shows one."""
    client = await in_app.start(message(event="banner"), listen=False)
    await client.track_event(Event("y"))
    in_app.messages = client.in_app_messages()
    assert await in_app.track("banner", action="show") == []
    assert in_app.loads == 0
    assert await in_app.track("y") == []
    assert await in_app.track("banner", action="show") == []
    assert in_app.loads == 1


@vector("T08")
async def a_banner_was_clicked(in_app: InAppFixture) -> None:
    """That a banner was clicked is an event like any other."""
    client = await in_app.start(
        message("first"), message("second", trigger=trigger("banner", condition("action", "equals", "click")))
    )
    first = await in_app.first()
    await client.click_in_app_message(first, first.buttons[0])
    assert await in_app.shown() == ["second"]


@vector("T09")
async def paused(in_app: InAppFixture) -> None:
    """
    A phone shows nothing while its app is in the background. A server has no background: messages are shown as usual.
    """
    client = await in_app.start(message())
    await client.resume()
    await client.pause()
    assert await in_app.track() == ["m"]
    assert in_app.loads == 1


@vector("T10")
async def stopped(in_app: InAppFixture) -> None:
    """A client whose integration is stopped loads nothing and shows nothing."""
    client = await in_app.start(message())
    await client.stop_integration(everyone=True)
    assert await in_app.track() == []
    assert await client.in_app_message_for(Event("x")) is None
    assert in_app.loads == 0


@vector("T11")
async def stopped_while_loading(in_app: InAppFixture) -> None:
    """A response after a stop is ignored, and a caller that waits for it gets nothing."""
    client = await in_app.start(message())
    in_app.hold()
    await client.track_event(Event("x"))
    waiting = asyncio.create_task(client.in_app_message_for(Event("x")))
    await until(lambda: in_app.held == 1)
    await client.stop_integration(everyone=True)
    await in_app.release()
    assert await waiting is None
    assert await in_app.shown() == []
    assert len(in_app.service.cache) == 0


@vector("T12")
async def four_failures(in_app: InAppFixture) -> None:
    """The platform is requested four times; then the loaded messages stay as they are."""
    client = await in_app.start(message())
    shown = await in_app.first()
    await client.close_in_app_message(shown)
    in_app.sandbox.faults.add(FAILING)
    in_app.app.now = 9000.0
    assert await in_app.track() == []
    assert in_app.loads == 1 + 4
    (known,) = in_app.service.cache.customers.values()
    assert [each.id for each in known.messages.definitions] == ["m"]


@vector("T13")
async def three_failures(in_app: InAppFixture) -> None:
    """Three failures have no effect."""
    in_app.sandbox.faults.add(Fault("status", status=500, paths="/inappmessages$", times=3))
    await in_app.start(message())
    assert await in_app.track() == ["m"]
    assert in_app.loads == 4


@vector("T14")
async def an_event_while_loading(in_app: InAppFixture) -> None:
    """An event during a load does not load again, and a message is shown for it after the load."""
    client = await in_app.start(message())
    in_app.hold()
    await client.track_event(Event("y"))
    await client.track_event(Event("x"))
    await in_app.release()
    assert await in_app.shown() == ["m"]
    assert in_app.loads == 1


@vector("T15")
async def too_late(in_app: InAppFixture) -> None:
    """After three seconds no message is shown for an event any more."""
    client = await in_app.start(message())
    in_app.hold()
    await client.track_event(Event("x"))
    in_app.service.pending.max_wait = 0.0
    await in_app.release()
    assert await in_app.shown() == []


async def pending_timestamps(in_app: InAppFixture, *timestamps: float) -> list[float | None]:
    """Track events of one type during a load, and return the timestamps of those that are pending."""
    client = await in_app.start()
    in_app.hold()
    for timestamp in timestamps:
        await client.track_event(Event("x", timestamp=timestamp))
    pending = in_app.service.pending.of_device("@default")
    return [each.event.timestamp for each in pending if each.event.event_type == "x"]


@vector("T16")
async def one_of_a_type(in_app: InAppFixture) -> None:
    """Of eleven events of one type, the latest is pending."""
    assert await pending_timestamps(in_app, *range(1, 12)) == [11.0]


@vector("T17")
async def the_latest_of_a_type(in_app: InAppFixture) -> None:
    """The latest one is pending, in whichever order they are tracked."""
    assert await pending_timestamps(in_app, 20.0, 10.0) == [20.0]


@vector("T18")
async def another_customer_while_loading(in_app: InAppFixture) -> None:
    """No message is shown to a new customer for what the one before did."""
    client = await in_app.start(message())
    in_app.hold()
    await client.track_event(Event("x"))
    await client.anonymize()
    await in_app.release()
    assert await in_app.shown() == []


@vector("T19")
async def another_message_is_shown(in_app: InAppFixture) -> None:
    """While a message is shown no other one is chosen, and events do not stay pending."""
    client = await in_app.start(message())
    first = await in_app.first()
    assert await in_app.track() == []
    await client.close_in_app_message(first)
    assert await in_app.track("y") == []
    assert await in_app.track() == ["m"]


@vector("T20")
async def identify_in_manual_mode(in_app: InAppFixture) -> None:
    """
    In manual mode, messages are loaded once the customer was uploaded.

    The Android SDK also loads at once, and gets the messages of the customer whom the platform knew before.
    """
    client = await in_app.start(message(), message("ann", "y"))
    in_app.hold()
    await client.track_event(Event("x"))
    await client.identify_customer(ANN)
    await in_app.release()
    assert await in_app.shown() == []
    before = in_app.loads
    assert await in_app.track("y") == []
    assert in_app.loads == before
    await client.flush_data()
    await until(lambda: in_app.loads == before + 1)
    assert await in_app.shown() == ["ann"]
    assert in_app.bodies()[-1]["customer_ids"]["registered"] == "ann@x.com"


@vector("T21")
async def identify_in_immediate_mode(in_app: InAppFixture) -> None:
    """In immediate mode, they are loaded after the upload, and events before it are not pending any more."""
    in_app.sandbox.faults.add(Fault("status", status=503, path="/batch"))
    client = await in_app.start(
        message(), flush_mode="IMMEDIATE", upload={"backoff_initial": 0.05, "backoff_max": 0.05}
    )
    in_app.hold()
    await client.track_event(Event("x"))
    receipt = await client.identify_customer(ANN)
    await in_app.release()
    before = in_app.loads
    assert await in_app.track("y") == []
    assert (receipt.status, in_app.loads) == ("queued", before)
    in_app.sandbox.faults.clear()
    await receipt.delivered()
    await until(lambda: in_app.loads == before + 1)
    assert await in_app.shown() == []


@vector("T22")
async def a_custom_event(in_app: InAppFixture) -> None:
    """Other events do not replace those before."""
    client = await in_app.start(message())
    in_app.hold()
    await client.track_event(Event("x"))
    await client.track_payment_event(PurchasedItem(1.0, "EUR", "card", "1", "Mug"))
    await client.track_event(Event("y"))
    await in_app.release()
    assert await in_app.shown() == ["m"]


@vector("T23")
async def identify_twice(in_app: InAppFixture) -> None:
    """Messages that were loaded for one customer are not shown to the next one, whichever response is first."""
    client = await in_app.start()
    in_app.put(message("ann"), to={"registered": "ann@x.com"})
    in_app.put(message("ben"), to={"registered": "ben@x.com"})
    await client.identify_customer(ANN)
    await in_app.idle()
    in_app.hold()
    await client.flush_data()
    await until(lambda: in_app.held == 1)
    await client.anonymize()
    await client.identify_customer(BEN)
    await in_app.release()
    await client.flush_data()
    await until(lambda: [each["customer_ids"].get("registered") for each in in_app.bodies()][-1:] == ["ben@x.com"])
    assert await in_app.track() == ["ben"]


def blocked_loader(in_app: InAppFixture, *missing: str) -> tuple[asyncio.Event, Any]:
    """Return a function that loads all resources but some, and the event that unblocks it."""
    unblock = asyncio.Event()

    async def load(url: str) -> bytes | None:
        await unblock.wait()
        return None if url in missing else b"data"

    return unblock, load


@vector("T24")
async def another_customer_while_preparing(in_app: InAppFixture) -> None:
    """A new customer does not see a message that was prepared for the one before."""
    unblock, load = blocked_loader(in_app)
    client = await in_app.start(message(payload={"image_url": "https://i.example/1.png"}), resource_loader=load)
    cookie = await client.get_customer_cookie()
    await client.track_event(Event("x"))
    await until(lambda: ("@default", "m") in in_app.service.active.preparing)
    await client.anonymize()
    unblock.set()
    assert await in_app.shown() == []
    (event,) = await in_app.banners()
    assert (event.properties["action"], event.properties["error"]) == (
        "error",
        "Another customer login while resource load",
    )
    assert event.ids == {"cookie": cookie}


@vector("T25")
async def a_missing_image(in_app: InAppFixture) -> None:
    """A message whose image can't be loaded is not shown, which is tracked."""
    unblock, load = blocked_loader(in_app, "https://i.example/1.png")
    unblock.set()
    await in_app.start(message(payload={"image_url": "https://i.example/1.png"}), resource_loader=load)
    assert await in_app.track() == []
    (event,) = await in_app.banners()
    assert (event.properties["action"], event.properties["error"]) == ("error", "Resources has not been preloaded")
    assert event.properties["interaction"] is False


@vector("T26")
async def a_blank_image(in_app: InAppFixture) -> None:
    """A blank URL is not an image."""
    _, load = blocked_loader(in_app)
    await in_app.start(message(payload={"title": "Hi", "image_url": "  "}), resource_loader=load)
    assert await in_app.track() == ["m"]


@vector("T27")
async def a_delay(in_app: InAppFixture) -> None:
    """A message with a delay is not shown before."""
    loop = asyncio.get_running_loop()
    await in_app.start(message(load_delay=1234))
    began = loop.time()
    assert await in_app.track() == ["m"]
    assert loop.time() - began >= 1.234


@vector("T28")
async def a_timeout(in_app: InAppFixture) -> None:
    """A message closes by itself after its timeout, without interaction."""
    loop = asyncio.get_running_loop()
    await in_app.start(message(close_timeout=900))
    began = loop.time()
    shown = await in_app.first()
    assert shown.close_timeout == 0.9
    await until(lambda: len(in_app.service.active) == 0)
    await in_app.idle()
    assert loop.time() - began >= 0.9
    (event,) = await in_app.banners("close")
    assert event.properties["interaction"] is False
    assert "text" not in event.properties


@vector("T29")
async def a_slide_in(in_app: InAppFixture) -> None:
    """A slide-in message closes after four seconds."""
    loop = asyncio.get_running_loop()
    await in_app.start(message(message_type="slide_in"))
    began = loop.time()
    shown = await in_app.first()
    assert shown.close_timeout == 4.0
    await until(lambda: len(in_app.service.active) == 0)
    assert loop.time() - began >= 4.0


@vector("T30")
async def an_event_without_consent(in_app: InAppFixture) -> None:
    """A message is shown also for an event that must not be tracked."""
    client = await in_app.start(message(event="campaign"))
    await in_app.track("y")
    receipt = await client.track_delivered_push({**PUSH, "has_tracking_consent": False})
    assert receipt.status == "dropped"
    assert await in_app.shown() == ["m"]


@vector("T31")
async def a_message_without_consent(in_app: InAppFixture) -> None:
    """A message that must not be tracked is shown, remembered and published."""
    client = await in_app.start(message(has_tracking_consent=False, frequency="only_once"))
    actions = client.in_app_message_action_stream()
    shown = await in_app.first()
    assert types_of(actions) == ["show"]
    assert await in_app.banners() == []
    await client.close_in_app_message(shown)
    assert await in_app.track() == []


@vector("T32")
async def no_messages_any_more(in_app: InAppFixture) -> None:
    """A response without messages replaces the earlier ones."""
    client = await in_app.start(message())
    await client.close_in_app_message(await in_app.first())
    in_app.sandbox.messages.in_app_messages.clear()
    in_app.app.now = 9000.0
    assert await in_app.track() == []
    assert await in_app.track() == []
    assert in_app.loads == 2


@vector("T33")
async def many_at_once(in_app: InAppFixture) -> None:
    """However many events happen at once, no message is lost or shown twice."""
    client = await in_app.start(*[message(f"m{number}", f"x{number}") for number in range(20)])
    await in_app.track("y")
    seen: list[str] = []
    for number in range(20):
        await asyncio.gather(*[client.track_event(Event(f"x{number}")) for _ in range(3)])
        for shown in await in_app.received():
            seen.append(shown.id)
            await client.close_in_app_message(shown)
    assert seen == [f"m{number}" for number in range(20)]
    assert len(in_app.service.pending) == 0
    assert (await in_app.actions()).count("show") == 20


@pytest.mark.parametrize("scenario", PIPELINE)
async def test_pipeline(in_app: InAppFixture, scenario: Scenario) -> None:
    """From an event to a message."""
    await scenario(in_app)


# What the host's user does


async def shown_message(
    in_app: InAppFixture, *, track: bool = True, override: bool = False, link: str = LINK, **fields: Any
) -> tuple[InAppMessage, Any]:
    """Show a message to an application with a stream of actions, and return both."""
    payload = {
        "buttons": [
            {"button_type": "browser", "button_text": "Go", "button_link": f" {link} "},
            {"button_type": "cancel", "button_text": "No", "button_link": "https://never.example"},
        ]
    }
    client = await in_app.start(message(payload=payload, **fields))
    actions = client.in_app_message_action_stream(override, track)
    shown = await in_app.first()
    assert types_of(actions) == ["show"]
    return shown, actions


async def check_click(in_app: InAppFixture, *, opened: str | None, tracked: bool, **options: Any) -> None:
    """Click the first button of a message, and check what follows."""
    shown, actions = await shown_message(in_app, **options)
    assert await in_app.client.click_in_app_message(shown, shown.buttons[0]) == opened
    assert received(actions) == [InAppMessageAction("click", shown, shown.buttons[0])]
    events = await in_app.banners("click")
    assert len(events) == tracked
    for event in events:
        assert event.properties["text"] == "Go"
        assert event.properties["interaction"] is True
    assert (await in_app.impressions())["m"].interacted is not None
    # A press is no close.
    assert await in_app.banners("close") == []


@vector("A01", ACTIONS)
async def click(in_app: InAppFixture) -> None:
    """A click is tracked and published, and the link is returned."""
    await check_click(in_app, opened=LINK, tracked=True)


@vector("A02", ACTIONS)
async def overridden_click(in_app: InAppFixture) -> None:
    """An application that opens links itself gets none."""
    await check_click(in_app, override=True, opened=None, tracked=True)


@vector("A03", ACTIONS)
async def untracked_click(in_app: InAppFixture) -> None:
    """An application that tracks itself gets the link, and nothing is tracked."""
    await check_click(in_app, track=False, opened=LINK, tracked=False)


@vector("A04", ACTIONS)
async def untracked_and_overridden_click(in_app: InAppFixture) -> None:
    """An application that does both itself is only notified."""
    await check_click(in_app, track=False, override=True, opened=None, tracked=False)


@vector("A05", ACTIONS)
async def cancel(in_app: InAppFixture) -> None:
    """A cancel button closes the message, with its label and without a link."""
    shown, actions = await shown_message(in_app)
    no = shown.buttons[1]
    assert await in_app.client.click_in_app_message(shown, no) is None
    assert received(actions) == [InAppMessageAction("close", shown, no, interaction=True)]
    (event,) = await in_app.banners("close")
    assert (event.properties["text"], event.properties["interaction"]) == ("No", True)
    assert "link" not in event.properties
    assert await in_app.banners("click") == []


@vector("A06", ACTIONS)
async def close(in_app: InAppFixture) -> None:
    """A close has no text, and is an interaction."""
    shown, actions = await shown_message(in_app)
    await in_app.client.close_in_app_message(shown)
    assert received(actions) == [InAppMessageAction("close", shown, None, interaction=True)]
    (event,) = await in_app.banners("close")
    assert event.properties["interaction"] is True
    assert "text" not in event.properties


@vector("A07", ACTIONS)
async def untracked_close(in_app: InAppFixture) -> None:
    """An application that tracks itself is notified of the close."""
    shown, actions = await shown_message(in_app, track=False)
    await in_app.client.close_in_app_message(shown)
    assert types_of(actions) == ["close"]
    assert await in_app.banners("close") == []


@vector("A08", ACTIONS)
async def show_is_tracked(in_app: InAppFixture) -> None:
    """A display is tracked in any case."""
    await shown_message(in_app, track=False)
    (event,) = await in_app.banners()
    assert event.properties["action"] == "show"


@vector("A09", ACTIONS)
async def failure_is_tracked(in_app: InAppFixture) -> None:
    """A failure is tracked in any case."""
    shown, actions = await shown_message(in_app, track=False, override=True)
    await in_app.client.fail_in_app_message(shown, "no screen")
    assert received(actions) == [InAppMessageAction("error", shown, error_message="no screen")]
    (event,) = await in_app.banners("error")
    assert (event.properties["error"], event.properties["interaction"]) == ("no screen", False)


@vector("A10", ACTIONS)
async def tracked_by_the_subscriber(in_app: InAppFixture) -> None:
    """A subscriber that tracks a click itself tracks one event."""
    shown, actions = await shown_message(in_app, track=False)
    await in_app.client.click_in_app_message(shown, shown.buttons[0])
    action = await anext(actions)
    await in_app.client.track_in_app_message_click(action.message, action.button)
    assert len(await in_app.banners("click")) == 1
    assert types_of(actions) == []


@vector("A11", ACTIONS)
async def click_without_consent(in_app: InAppFixture) -> None:
    """Without consent nothing is tracked, and everything else is as usual."""
    await check_click(in_app, opened=LINK, tracked=False, has_tracking_consent=False)


@vector("A12", ACTIONS)
async def forced_click_without_consent(in_app: InAppFixture) -> None:
    """A link may force that a click on it is tracked without consent."""
    await check_click(in_app, link=FORCED, opened=FORCED, tracked=True, has_tracking_consent=False)
    (event,) = await in_app.banners()
    assert (event.properties["link"], event.properties["tracking_forced"]) == (FORCED, True)


@vector("A13", ACTIONS)
async def forced_click_with_consent(in_app: InAppFixture) -> None:
    """The event says so even with consent."""
    await check_click(in_app, link=FORCED, opened=FORCED, tracked=True)
    (event,) = await in_app.banners("click")
    assert event.properties["tracking_forced"] is True


@vector("A14", ACTIONS)
async def manual_close(in_app: InAppFixture) -> None:
    """A close without consent is tracked only if the consent is not considered."""
    shown, actions = await shown_message(in_app, has_tracking_consent=False)
    assert (await in_app.client.track_in_app_message_close(shown)).status == "dropped"
    assert await in_app.banners() == []
    receipt = await in_app.client.track_in_app_message_close(shown, consider_consent=False)
    assert receipt.status == "queued"
    (event,) = await in_app.banners()
    assert (event.properties["action"], event.properties["interaction"]) == ("close", True)
    assert types_of(actions) == []


@vector("A15", ACTIONS)
async def late_subscription(in_app: InAppFixture) -> None:
    """A late subscription gets the last action only."""
    client = await in_app.start(message())
    shown = await in_app.first()
    await client.close_in_app_message(shown)
    assert types_of(client.in_app_message_action_stream()) == ["close"]
    assert types_of(client.in_app_message_action_stream()) == []


@vector("A16", ACTIONS)
async def ended_subscription(in_app: InAppFixture) -> None:
    """After the end of the subscription, the defaults apply again."""
    shown, actions = await shown_message(in_app, track=False, override=True)
    await actions.aclose()
    assert await in_app.client.click_in_app_message(shown, shown.buttons[0]) == LINK
    assert len(await in_app.banners("click")) == 1


@pytest.mark.parametrize("scenario", ACTIONS)
async def test_actions(in_app: InAppFixture, scenario: Scenario) -> None:
    """From what the user of an application does to what is tracked."""
    await scenario(in_app)


# How often, and which


@vector("Q16", FREQUENCY)
async def once_for_all_identities(in_app: InAppFixture) -> None:
    """What was shown to a device counts as shown after an identify."""
    client = await in_app.start(message(frequency="only_once"))
    await client.close_in_app_message(await in_app.first())
    await client.identify_customer(ANN)
    await client.flush_data()
    await until(lambda: in_app.loads == 2)
    assert await in_app.track() == []


@vector("Q18", FREQUENCY)
async def once_for_each_customer(in_app: InAppFixture) -> None:
    """Nothing was shown yet to a new customer of the device."""
    client = await in_app.start(message(frequency="only_once"))
    await client.close_in_app_message(await in_app.first())
    assert await in_app.track() == []
    await client.anonymize()
    assert await in_app.track() == ["m"]


@vector("Q20", FREQUENCY)
async def control_group(in_app: InAppFixture) -> None:
    """Nothing is shown to the control group, which counts as shown, once."""
    client = await in_app.start(message(frequency="only_once", variant_id=-1, variant_name="Control group"))
    actions = client.in_app_message_action_stream()
    assert await in_app.track() == []
    assert await in_app.track() == []
    (event,) = await in_app.banners()
    assert (event.properties["action"], event.properties["variant_id"]) == ("show", -1)
    assert types_of(actions) == ["show"]


@vector("W10", FREQUENCY)
async def added_properties_count(in_app: InAppFixture) -> None:
    """The properties that the SDK adds count for triggers."""
    client = await in_app.start(
        message(trigger=trigger("x", condition("application_id", "equals", "com.shop"))), application_id="com.shop"
    )
    assert await in_app.track() == ["m"]
    assert await client.device("other").in_app_message_for(Event("x")) is not None


@vector("W11", FREQUENCY)
async def default_properties_count(in_app: InAppFixture) -> None:
    """Default properties count, too."""
    client = await in_app.start(
        message(trigger=trigger("x", condition("shop", "equals", "nice"))), default_properties={"shop": "nice"}
    )
    assert await in_app.track() == ["m"]
    assert await client.device("other").in_app_message_for(Event("x", {"shop": "bad"})) is None


@vector("R08", FREQUENCY)
async def the_highest_priority_of_two_events(in_app: InAppFixture) -> None:
    """Of the messages for two pending events, the one of the higher priority is shown."""
    client = await in_app.start(message("a", load_priority=1), message("b", "y", load_priority=9))
    in_app.hold()
    await client.track_event(Event("x"))
    await client.track_event(Event("y"))
    await in_app.release()
    assert await in_app.shown() == ["b"]


async def shown_in_many_rounds(in_app: InAppFixture, *events: str) -> set[str]:
    """Track events during a load, many times, and return the ids of all messages that were shown."""
    seen: set[str] = set()
    for _ in range(30):
        in_app.hold()
        in_app.service.cache.clear()
        in_app.app.now += 3600.0
        for event in events:
            await in_app.client.track_event(Event(event))
        await in_app.release()
        for shown in await in_app.received():
            seen.add(shown.id)
            await in_app.client.close_in_app_message(shown)
    return seen


@vector("R09", FREQUENCY)
async def chance_among_events(in_app: InAppFixture) -> None:
    """Of two messages without a priority, either may be shown."""
    await in_app.start(message("a"), message("b", "y"))
    assert await shown_in_many_rounds(in_app, "x", "y") == {"a", "b"}


@vector("R10", FREQUENCY)
async def chance_among_messages(in_app: InAppFixture) -> None:
    """Of several messages for one event, each may be shown."""
    await in_app.start(message("a"), message("b"), message("c"))
    assert await shown_in_many_rounds(in_app, "x") == {"a", "b", "c"}


@pytest.mark.parametrize("scenario", FREQUENCY)
async def test_choice(in_app: InAppFixture, scenario: Scenario) -> None:
    """Which message is shown, and how often."""
    await scenario(in_app)


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
    """These links force that a click on them is tracked."""
    assert forces_tracking(url) is forced


@pytest.mark.parametrize(
    ("value", "consent"),
    [
        *[pytest.param(value, True, id=f"G11-{value!r}") for value in (None, True, "1", 1)],
        *[pytest.param(value, False, id=f"G12-{value!r}") for value in (False, "0", 0, "yes", 2)],
    ],
)
async def test_consent(in_app: InAppFixture, value: object, consent: bool) -> None:  # noqa: FBT001
    """A ``has_tracking_consent`` has the same meaning when it is read and when an event is tracked."""
    assert has_consent(value) is consent
    in_app.put(message(has_tracking_consent=value), check=False)
    await in_app.start()
    assert await in_app.track() == ["m"]
    assert len(await in_app.banners("show")) == consent
