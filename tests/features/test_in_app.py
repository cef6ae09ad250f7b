"""
In-app messages through the verbs: who gets them, when they are loaded, and what lets the next one come.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from helpers.app import Phone
from helpers.waiting import until
from in_app_world import World, gone, has, ids_of, message, page, taken, types, upon

from exponea_async import (
    ClosedError,
    Customer,
    DroppedError,
    Event,
    Exponea,
    Hooks,
    InvalidEventError,
    NotStartedError,
    RequestRefusedError,
    UnavailableError,
)
from exponea_async.features._shared.html import resources
from exponea_async.features.in_app import presenter as _in_app_presenter
from exponea_async.messages import InAppMessage, InAppMessageButton
from exponea_async.sandbox import Fault, Sandbox

ANN, BEN = {"registered": "ann@x.com"}, {"registered": "ben@x.com"}
PICTURE = "https://i.example/1.png"

Release = Callable[[Exponea, InAppMessage], Awaitable[Any]]


@pytest.fixture
def world(phone: Phone, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> World:
    return World(phone, sandbox, monkeypatch)


class TestListening:
    async def test_nobody_listens(self, world: World) -> None:
        """Then nothing is asked, kept or heard."""
        client = await world.start(message(), listen=False)
        await client.track_event(Event("x"))
        await client.identify_customer(Customer(ANN))
        await client.flush_data()
        await client.anonymize()
        await world.rest()
        assert world.fetches == 0
        assert not client._features.has_subscribers
        assert await world.banners() == []

    async def test_each_device_has_its_own(self, world: World) -> None:
        """Two devices never see each other's messages; the client sees all."""
        client = await world.start()
        world.put(message("for ann"), to=ANN)
        world.put(message("for ben"), to=BEN)
        ann, ben = client.device("ann"), client.device("ben")
        own = [ann.in_app_messages(), ben.in_app_messages()]
        await ann.identify_customer(Customer(ANN))
        await ben.identify_customer(Customer(BEN))
        await client.flush_data()
        await until(lambda: world.fetches == 4)
        await asyncio.gather(ann.track_event(Event("x")), ben.track_event(Event("x")))

        assert {each.id: each.device for each in await world.given()} == {"for ann": "ann", "for ben": "ben"}
        assert [ids_of(taken(each)) for each in own] == [["for ann"], ["for ben"]]

    async def test_only_devices_that_somebody_listens_to(self, world: World) -> None:
        """A listener of one device costs the others nothing."""
        client = await world.start(message(), listen=False)
        listener = client.device("a").in_app_messages()
        await client.device("b").track_event(Event("x"))
        await world.rest()
        assert world.fetches == 0
        await client.device("a").track_event(Event("x"))
        await world.rest()
        assert ids_of(taken(listener)) == ["m"]

    @pytest.mark.parametrize("how", ["aclose", "forgotten"])
    async def test_a_listener_that_goes(self, world: World, how: str) -> None:
        """Once it has gone nothing is asked for any more."""
        client = await world.start(message())
        if how == "aclose":
            await world.messages.aclose()
        else:
            del world.messages
            await gone()
        await client.track_event(Event("x"))
        await client.track_event(Event("x"))
        await world.rest()
        assert world.fetches == 0
        assert not client._features.has_subscribers

    async def test_a_listener_that_goes_too_early(self, world: World) -> None:
        """A message that nobody gets is not in the way of the next one."""
        client = await world.start(message(load_delay=50))
        await client.track_event(Event("x"))
        await until(lambda: bool(world.part.stage._preparing))
        await world.messages.aclose()
        await world.rest()
        assert len(world.part.stage) == 0

    async def test_the_end(self, world: World) -> None:
        """Listeners end with the client, and who comes later ends at once."""
        client = await world.start(message())
        actions = client.in_app_message_action_stream()
        await client.aclose(timeout=0)
        for listener in (world.messages, actions, client.in_app_messages(), client.in_app_message_action_stream()):
            assert [each async for each in listener] == []

    async def test_a_customer_tracker(self, world: World) -> None:
        """Nobody listens to what a web backend tracks."""
        client = await world.start()
        with pytest.raises(InvalidEventError, match="in_app_message_for"):
            client.for_customer(ANN).in_app_messages()
        with client.bind(client.for_customer(ANN)):
            assert client.in_app_messages() is not None


class TestAskingForOne:
    async def test_a_device(self, world: World) -> None:
        """The message is shown and tracked, the event is not; what is known is not asked for again."""
        client = await world.start(message(), listen=False)
        given = await client.in_app_message_for(Event("x"))
        assert given is not None
        assert (given.id, given.device) == ("m", "default")
        assert await world.told() == ["show"]
        assert await world.phone.kept("x") == []
        assert await client.in_app_message_for(Event("x")) is None
        await client.close_in_app_message(given)
        assert await client.in_app_message_for(Event("x")) is not None
        assert world.fetches == 1
        assert not client._features.has_subscribers

    async def test_a_customer(self, world: World) -> None:
        """Nothing is remembered of a customer: each time is the first one, and many may ask at once."""
        client = await world.start(listen=False)
        world.put(message(frequency="only_once", close_timeout=1), to=ANN)
        ann = client.for_customer(ANN)
        await ann.track_event(Event("y"))
        await client.flush_data()
        given = await asyncio.gather(*[ann.in_app_message_for(Event("x")) for _ in range(5)])

        assert [each and (each.id, each.device) for each in given] == [("m", None)] * 5
        assert world.fetches == 1
        assert world.bodies()[0]["customer_ids"] == ANN
        events = await world.banners()
        assert [each.ids for each in events] == [ANN] * 5
        assert await ann.click_in_app_message(given[0], given[0].buttons[0]) == "app://cart"  # type: ignore[arg-type,union-attr]
        assert (await world.banners("click"))[0].ids == ANN
        assert len(world.part.stage) == 0

    async def test_conditions(self, world: World) -> None:
        """All that would be tracked counts, as for events that are."""
        trigger = upon("x", has("a", "equals", "1"), has("device_id", "is set"), has("shop", "equals", "nice"))
        client = await world.start(message(trigger=trigger), listen=False, default_properties={"shop": "nice"})
        assert await client.in_app_message_for(Event("x", {"a": 2})) is None
        assert await client.in_app_message_for(Event("x", {"a": 1})) is not None

    async def test_hooks(self, world: World) -> None:
        """An event that would not be tracked is none."""
        hooks = Hooks(before_track=lambda event: None if event.name == "x" else event)
        client = await world.phone.start(hooks=hooks)
        world.put(message())
        assert await client.in_app_message_for(Event("x")) is None
        assert world.fetches == 0

    async def test_a_banner_that_was_shown(self, world: World) -> None:
        """There would be no end to it."""
        client = await world.start(message(event="banner"), listen=False)
        assert await client.in_app_message_for(Event("banner", {"action": "show"})) is None
        assert await client.in_app_message_for(Event("banner", {"action": "close"})) is not None

    async def test_errors(self, world: World) -> None:
        """Whoever asks is told what went wrong."""
        client = await world.start(message(), listen=False)
        with pytest.raises(InvalidEventError, match=r"properties\.a"):
            await client.in_app_message_for(Event("x", {"a": float("nan")}))
        with pytest.raises(InvalidEventError):
            await client.in_app_message_for("x")  # type: ignore[arg-type]
        world.sandbox.faults.add(Fault("status", status=500, paths="/inappmessages$"))
        with pytest.raises(UnavailableError):
            await client.in_app_message_for(Event("x"))
        world.sandbox.faults.clear()
        world.sandbox.faults.add(Fault("status", status=403, paths="/inappmessages$", times=1))
        with pytest.raises(RequestRefusedError):
            await client.in_app_message_for(Event("x"))
        assert await client.in_app_message_for(Event("x")) is not None

    async def test_lifecycle(self, world: World) -> None:
        """A client that does not run says so."""
        client = world.phone.make()
        with pytest.raises(NotStartedError):
            await client.in_app_message_for(Event("x"))
        await client.start()
        await client.aclose(timeout=0)
        with pytest.raises(ClosedError):
            await client.in_app_message_for(Event("x"))


async def _stop(client: Exponea, _message: InAppMessage) -> None:
    await client.stop_integration()
    await client.start()


RELEASES: dict[str, Release] = {
    "click": lambda client, given: client.click_in_app_message(given, InAppMessageButton()),
    "close": lambda client, given: client.close_in_app_message(given),
    "fail": lambda client, given: client.fail_in_app_message(given, "no screen"),
    "track click": lambda client, given: client.track_in_app_message_click(given, InAppMessageButton("a", "b:c")),
    "track close": lambda client, given: client.track_in_app_message_close(given),
    "anonymize": lambda client, _: client.device("a").anonymize(),
    "stop": _stop,
}


class TestOneAtATime:
    @pytest.mark.parametrize("release", list(RELEASES))
    async def test_the_next_one(self, world: World, release: str) -> None:
        """It comes once the one before is over; other devices have their own."""
        client = await world.start(message(close_timeout=60_000))
        devices = [client.device("a"), client.device("b")]
        for device in devices:
            await device.track_event(Event("x"))
        given = {each.device: each for each in await world.given()}
        assert set(given) == {"a", "b"}
        await devices[0].track_event(Event("x"))
        assert await world.shown() == []
        timer = world.part.stage._devices["a"].timer

        # Whichever subject is current, it is about the device that the message is shown on.
        await RELEASES[release](client, given["a"])
        assert timer is not None
        assert timer.cancelled()
        await devices[0].track_event(Event("x"))
        assert [each.device for each in await world.given()] == ["a"]

    async def test_another_message_is_not_released(self, world: World) -> None:
        """What is said of a message that is not shown changes nothing for the one that is."""
        client = await world.start(message())
        await world.first()
        await client.close_in_app_message(InAppMessage(id="other", name="Other", device="default"))
        assert await world.track() == []

    async def test_who_it_is_about(self, world: World) -> None:
        """Events are about the device that the message is shown on."""
        client = await world.start(message())
        await client.device("a").track_event(Event("x"))
        (given,) = await world.given()
        await client.click_in_app_message(given, given.buttons[0])
        cookie = await client.device("a").get_customer_cookie()
        assert [each.ids for each in await world.banners()] == [{"cookie": cookie}] * 2

    async def test_what_is_no_message(self, world: World) -> None:
        """It is refused in the hands of its author."""
        client = await world.start()
        wrong: Any = "m"
        good, button = InAppMessage(id="m", name="M"), InAppMessageButton()
        for call in (
            client.click_in_app_message(wrong, button),
            client.click_in_app_message(good, wrong),
            client.click_in_app_message(good, None),  # type: ignore[arg-type]
            client.click_in_app_message(good, InAppMessageButton(text=wrong, url=7)),  # type: ignore[arg-type]
            client.close_in_app_message(wrong),
            client.close_in_app_message(good, wrong),
            client.fail_in_app_message(wrong, "x"),
            client.track_in_app_message_click(good, wrong),
            client.track_in_app_message_close(wrong),
        ):
            with pytest.raises(InvalidEventError):
                await call

    async def test_after_a_stop(self, world: World) -> None:
        """Nothing happens, and a receipt says so."""
        client = await world.start(message())
        given = await world.first()
        actions = client.in_app_message_action_stream()
        taken(actions)
        await client.stop_integration()
        assert types(actions) == ["close"]  # it was dismissed
        assert await client.click_in_app_message(given, given.buttons[0]) is None
        await client.close_in_app_message(given)
        await client.fail_in_app_message(given, "x")
        receipt = await client.track_in_app_message_click(given, given.buttons[0])
        with pytest.raises(DroppedError):
            await receipt.delivered()
        assert types(actions) == []

    @pytest.mark.parametrize(
        ("url", "opened"),
        [
            (" app://x ", "app://x"),
            ("mailto:a@b.c", "mailto:a@b.c"),
            ("www.x.com", None),
            ("", None),
            (None, None),
            ("javascript:alert(1)", None),
            (" JavaScript:alert(1)", None),
            ("java\nscript:alert(1)", None),
            ("data:text/html,<script>alert(1)</script>", None),
        ],
    )
    async def test_links(self, world: World, url: str | None, opened: str | None) -> None:
        """A link to open is a whole address."""
        client = await world.start(message())
        given = await world.first()
        assert await client.click_in_app_message(given, InAppMessageButton("Go", url)) == opened

    async def test_texts_beyond_measure(self, world: World) -> None:
        """What would not fit into an event does not keep the press from being tracked."""
        client = await world.start(message())
        given = await world.first()
        long = "a:" + "x" * 20_000
        assert await client.click_in_app_message(given, InAppMessageButton(long, long)) == long
        await client.fail_in_app_message(given, long)
        click, error = (await world.banners())[1:]
        assert "text" not in click.properties
        assert "link" not in click.properties
        assert error.properties["error"] == long[:4000]


class TestLoading:
    async def test_a_restart(self, world: World) -> None:
        """What was loaded is there after a restart, for as long as it holds."""
        await world.start(message())
        assert await world.track() == ["m"]
        await world.phone.restart(automatic_session_tracking=False)
        world.messages = world.client.in_app_messages()
        assert await world.track() == ["m"]
        assert world.fetches == 1
        await world.phone.restart(automatic_session_tracking=False, at=9000.0)
        world.messages = world.client.in_app_messages()
        assert await world.track() == ["m"]
        assert world.fetches == 2

    @pytest.mark.parametrize("stored", [b"", b"x", b"[1]\n", b'["a", 1.0]\nnothing', None])
    async def test_what_is_stored_is_broken(self, world: World, stored: bytes | None) -> None:
        """Then it is loaded again."""
        client = await world.start(message())
        await client.track_event(Event("y"))
        await world.rest()
        if stored is None:
            stored = (await client._context.load_data("in_app_messages") or b"")[:-9]
        await client._context.save_data("in_app_messages", stored)
        world.part._cache.clear()
        assert await world.track() == ["m"]
        assert world.fetches == 2

    async def test_what_is_stored_is_somebody_elses(self, world: World) -> None:
        """A new customer does not get what the one before had."""
        client = await world.start(message())
        await world.track("y")
        world.sandbox.messages.in_app_messages.clear()
        await client.anonymize()
        assert await world.track() == []
        await client._context.load_data("in_app_messages")
        assert world.fetches == 2

    async def test_memory_that_is_short(self, world: World) -> None:
        """What was put out of memory comes from the storage."""
        client = await world.start(message(event="campaign"))
        await world.track("y")
        world.part._cache.clear()
        # Not even a push notification, for which nothing is ever loaded, misses it.
        await client.track_delivered_push({"source": "xnpe_platform", "title": "Sale"})
        assert await world.shown() == ["m"]
        assert world.fetches == 1

    async def test_a_platform_that_refuses(self, world: World) -> None:
        """It is left in peace for a while, by all devices."""
        world.sandbox.faults.add(Fault("status", status=403, paths="/inappmessages$", times=1))
        client = await world.start(message())
        for number in range(3):
            await client.device(str(number)).track_event(Event("x"))
            await world.rest()
        assert world.fetches == 1
        await client.anonymize()
        await client.identify_customer(Customer(ANN))
        await client.flush_data()
        await until(lambda: world.fetches >= 2)

    async def test_platforms(self, world: World) -> None:
        """Messages are asked for as for the phone that stands for the host."""
        await world.start(message(), message_platform="ios")
        await world.track()
        assert world.bodies()[0]["device"] == "ios"
        assert (await world.banners())[0].properties["platform"] == "iOS"

    @pytest.mark.parametrize(("preload", "fetches"), [(True, 1), (False, 0)])
    async def test_ahead(self, world: World, preload: bool, fetches: int) -> None:  # noqa: FBT001
        """Messages of a new customer are loaded at once, where the settings say so; quietly."""
        client = await world.start(message(), listen=False, preload_messages=preload)
        await client.track_event(Event("y"))
        world.messages = client.in_app_messages()
        world.monkeypatch.setattr(type(world.part), "tracked", lambda *_: None)
        await client.anonymize()
        await world.rest()
        assert world.fetches == fetches
        world.sandbox.faults.add(Fault("status", status=403, paths="/inappmessages$"))
        await client.anonymize()
        await world.rest()

    async def test_a_refused_identify(self, world: World) -> None:
        """Nothing is loaded for it, and the next event goes on as ever."""
        client = await world.start(message())
        await world.track("y")
        world.sandbox.faults.add(Fault("reject", every_command=1))
        receipt = await client.identify_customer(Customer(ANN))
        await client.flush_data()
        await until(lambda: not world.part._uploads)
        assert (receipt.status, world.fetches) == ("rejected", 1)
        assert await world.track() == ["m"]

    async def test_what_holds_is_shown_while_an_upload_waits(self, world: World) -> None:
        """An update of a customer who stays the same does not keep known messages back."""
        client = await world.start(message())
        await client.identify_customer(Customer(ANN))
        await client.flush_data()
        await until(lambda: world.fetches == 2)
        await client.identify_customer(Customer(ANN, {"likes": "mugs"}))
        assert await world.track() == ["m"]


class TestVisits:
    async def test_once_per_visit(self, world: World) -> None:
        """A message is shown once in a session, and once more in the next one."""
        client = await world.start(message(frequency="once_per_visit"), automatic_session_tracking=True)
        await client.close_in_app_message(await world.first())
        assert await world.track() == []
        world.phone.now += 30
        assert await world.track() == []
        world.phone.now += 61
        assert await world.track() == ["m"]

    async def test_sessions_by_hand(self, world: World) -> None:
        """Between sessions the last one counts, and before the first the start of the client."""
        client = await world.start(message(frequency="once_per_visit"))
        await client.close_in_app_message(await world.first())
        assert await world.track() == []
        world.phone.now += 5
        await client.track_session_start()
        await client.close_in_app_message(await world.first())
        await client.track_session_end()
        assert await world.track() == []


class TestContent:
    async def test_html(self, world: World) -> None:
        """HTML is made safe; its links and buttons are there to press, and one to close."""
        source = "<script>x()</script><a href='https://s.example/?a=1'>Sale</a><b data-actiontype='close'>Bye</b>"
        client = await world.start(page(source=source))
        given = await world.first()
        assert given.html is not None
        assert "script" not in given.html
        sale, bye = given.buttons
        assert (sale.text, sale.url, sale.kind, bye.kind) == ("Sale", "https://s.example/?a=1", "browser", "cancel")
        assert await client.click_in_app_message(given, bye) is None
        (event,) = await world.banners("close")
        assert event.properties["text"] == "Bye"
        assert event.properties["banner_type"] == "freeform"

    @pytest.mark.parametrize("source", ["<script>x()</script>", "   ", "<div>" * 500])
    async def test_html_that_is_nothing(self, world: World, source: str) -> None:
        """It is not shown, and that is told; the next one is."""
        client = await world.start(page(source=source), message("n", "y"))
        actions = client.in_app_message_action_stream()
        assert await world.track() == []
        assert [each.properties["error"] for each in await world.banners()] == ["Invalid HTML or empty"]
        assert types(actions) == ["error"]
        assert await world.track("y") == ["n"]

    async def test_the_extra_is_missing(self, world: World, caplog: pytest.LogCaptureFixture) -> None:
        """What is missing is told, once in the log; messages that are no HTML are shown."""

        def missing(*_: Any, **__: Any) -> None:
            raise ImportError("Reading HTML needs an extra: pip install 'exponea-async[html]'")

        world.monkeypatch.setattr(_in_app_presenter, "read_html", missing)
        client = await world.start(page(), message("n", "y"))
        actions = client.in_app_message_action_stream()
        with caplog.at_level(logging.WARNING):
            for _ in range(3):
                assert await world.track() == []
                assert "exponea-async[html]" in taken(actions)[-1].error_message
        assert caplog.text.count("In-app messages of HTML") == 1
        assert await world.track("y") == ["n"]

    @pytest.mark.parametrize("fields", [{"payload": None}, {"payload": None, "payload_html": "<p>Hi"}, {"payload": 7}])
    async def test_nothing_to_show(self, world: World, fields: dict[str, Any]) -> None:
        """A message without content is neither shown nor tracked, nor remembered."""
        world.put(message(**fields), check=False)
        client = await world.start()
        assert await world.track() == []
        assert await world.banners() == []
        state = await client._device_context.load_state()
        assert state is not None
        assert state.messages == {}

    async def test_resources(self, world: World) -> None:
        """What a message needs is loaded once, by the host's way, and put into HTML."""
        asked: list[str] = []

        async def load(url: str) -> bytes:
            asked.append(url)
            return b"data"

        source = f"<img src='{PICTURE}'><p>Sale</p>"
        client = await world.start(
            page(source=source), message("n", "y", payload={"image_url": PICTURE}), resource_loader=load
        )
        given = await world.first()
        assert given.html is not None
        assert "data:image/png;base64,ZGF0YQ==" in given.html
        await client.close_in_app_message(given)
        assert await world.track("y") == ["n"]
        assert asked == [PICTURE]

    async def test_no_way_to_load(self, world: World) -> None:
        """Without one, pictures stay on the web."""
        await world.start(page(source=f"<img src='{PICTURE}'><p>Sale</p>"))
        given = await world.first()
        assert given.html is not None
        assert PICTURE in given.html

    @pytest.mark.parametrize("fault", ["raises", "hangs", "gives a text"])
    async def test_a_way_that_fails(self, world: World, fault: str) -> None:
        """Whatever it does, the message is not shown, and that is told."""
        world.monkeypatch.setattr(resources, "LOAD_TIMEOUT", 0.05)

        async def load(_url: str) -> Any:
            if fault == "raises":
                raise KeyError("x")
            await asyncio.sleep(60 if fault == "hangs" else 0)
            return "text"

        await world.start(message(payload={"image_url": PICTURE, "title_font_url": "https://f"}), resource_loader=load)
        assert await world.track() == []
        assert [each.properties["error"] for each in await world.banners()] == ["Resources has not been preloaded"]


class TestOptions:
    async def test_the_last_listener_decides(self, world: World) -> None:
        """All hear of everything, and how the SDK behaves is up to the last one."""
        client = await world.start(message())
        first = client.in_app_message_action_stream(True, False)  # noqa: FBT003
        second = client.in_app_message_action_stream(track_actions=False)
        given = await world.first()
        assert await client.click_in_app_message(given, given.buttons[0]) == "app://cart"
        assert await world.told() == ["show"]
        assert types(first) == types(second) == ["show", "click"]

    async def test_a_listener_that_went_away(self, world: World) -> None:
        """Once nobody holds it any more, all is as by default."""
        client = await world.start(message())
        client.in_app_message_action_stream(True, False)  # noqa: FBT003
        await gone()
        given = await world.first()
        assert await client.click_in_app_message(given, given.buttons[0]) == "app://cart"
        assert await world.told() == ["show", "click"]

    async def test_a_timeout_that_is_not_tracked(self, world: World) -> None:
        """It is told all the same."""
        client = await world.start(message(close_timeout=10))
        actions = client.in_app_message_action_stream(track_actions=False)
        await client.track_event(Event("x"))
        await until(lambda: len(actions._pending) == 2)
        assert [(each.type, each.interaction) for each in taken(actions)] == [("show", None), ("close", False)]
        assert await world.told() == ["show"]
