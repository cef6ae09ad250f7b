"""
In-app messages through the public coroutines: who receives them, when they are loaded, and when the next one is shown.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from helpers.environment import SetConstants
from helpers.in_app import InAppFixture, collect_garbage, condition, html_message, ids_of, message, trigger, types_of
from helpers.modules import uninstalled
from helpers.waiting import until

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
from exponea_async.messages import InAppMessage, InAppMessageButton
from exponea_async.sandbox import Fault
from exponea_async.testing import received

ANN, BEN = {"registered": "ann@x.com"}, {"registered": "ben@x.com"}
PICTURE = "https://i.example/1.png"

Release = Callable[[Exponea, InAppMessage], Awaitable[Any]]


class TestSubscriptions:
    async def test_without_subscription(self, in_app: InAppFixture) -> None:
        """Without a subscription nothing is loaded, shown or published."""
        client = await in_app.start(message(), listen=False)
        await client.track_event(Event("x"))
        await client.identify_customer(Customer(ANN))
        await client.flush_data()
        await client.anonymize()
        await in_app.idle()
        assert in_app.loads == 0
        assert not in_app.service.registry.has_subscribers
        assert await in_app.banners() == []

    async def test_each_device_has_its_own_messages(self, in_app: InAppFixture) -> None:
        """Two devices never receive each other's messages; the client receives all of them."""
        client = await in_app.start()
        in_app.put(message("for ann"), to=ANN)
        in_app.put(message("for ben"), to=BEN)
        ann, ben = client.device("ann"), client.device("ben")
        own = [ann.in_app_messages(), ben.in_app_messages()]
        await ann.identify_customer(Customer(ANN))
        await ben.identify_customer(Customer(BEN))
        await client.flush_data()
        await until(lambda: in_app.loads == 4)
        await asyncio.gather(ann.track_event(Event("x")), ben.track_event(Event("x")))

        assert {each.id: each.device for each in await in_app.received()} == {"for ann": "ann", "for ben": "ben"}
        assert [ids_of(received(each)) for each in own] == [["for ann"], ["for ben"]]

    async def test_only_devices_with_a_subscription(self, in_app: InAppFixture) -> None:
        """A subscription to one device loads nothing for the others."""
        client = await in_app.start(message(), listen=False)
        listener = client.device("a").in_app_messages()
        await client.device("b").track_event(Event("x"))
        await in_app.idle()
        assert in_app.loads == 0
        await client.device("a").track_event(Event("x"))
        await in_app.idle()
        assert ids_of(received(listener)) == ["m"]

    @pytest.mark.parametrize("how", ["aclose", "forgotten"])
    async def test_an_ended_subscription(self, in_app: InAppFixture, how: str) -> None:
        """After the subscription has ended, nothing is loaded."""
        client = await in_app.start(message())
        if how == "aclose":
            await in_app.messages.aclose()
        else:
            del in_app.messages
            await collect_garbage()
        await client.track_event(Event("x"))
        await client.track_event(Event("x"))
        await in_app.idle()
        assert in_app.loads == 0
        assert not in_app.service.registry.has_subscribers

    async def test_a_subscription_that_ends_too_early(self, in_app: InAppFixture) -> None:
        """A message that no subscription receives does not prevent the next one."""
        client = await in_app.start(message(load_delay=50))
        await client.track_event(Event("x"))
        await until(lambda: bool(in_app.service.active.preparing))
        await in_app.messages.aclose()
        await in_app.idle()
        assert len(in_app.service.active) == 0

    async def test_closing(self, in_app: InAppFixture) -> None:
        """Subscriptions end with the client, and later ones have ended from the beginning."""
        client = await in_app.start(message())
        actions = client.in_app_message_action_stream()
        await client.aclose(timeout=0)
        for listener in (in_app.messages, actions, client.in_app_messages(), client.in_app_message_action_stream()):
            assert [each async for each in listener] == []

    async def test_a_customer_tracker(self, in_app: InAppFixture) -> None:
        """A customer tracker has no stream; on a client, whatever is bound to it, the stream is that of all devices."""
        client = await in_app.start(message())
        assert not hasattr(client.for_customer(ANN), "in_app_messages")
        with client.bind(client.for_customer(ANN)):
            subscription = client.in_app_messages()
        await client.device("a").track_event(Event("x"))
        assert await in_app.shown() == ids_of(received(subscription)) == ["m"]


class TestMessageFor:
    async def test_a_device(self, in_app: InAppFixture) -> None:
        """The message is shown and tracked, but the event is not; what is loaded is not requested again."""
        client = await in_app.start(message(), listen=False)
        shown = await client.in_app_message_for(Event("x"))
        assert shown is not None
        assert (shown.id, shown.device) == ("m", "@default")
        assert await in_app.actions() == ["show"]
        assert await in_app.app.pending("x") == []
        assert await client.in_app_message_for(Event("x")) is None
        await client.close_in_app_message(shown)
        assert await client.in_app_message_for(Event("x")) is not None
        assert in_app.loads == 1
        assert not in_app.service.registry.has_subscribers

    async def test_a_customer(self, in_app: InAppFixture) -> None:
        """
        Nothing is remembered of a customer: each message was never shown before, and may be shown many times at once.
        """
        client = await in_app.start(listen=False)
        in_app.put(message(frequency="only_once", close_timeout=1), to=ANN)
        ann = client.for_customer(ANN)
        await ann.track_event(Event("y"))
        await client.flush_data()
        shown = await asyncio.gather(*[ann.in_app_message_for(Event("x")) for _ in range(5)])

        assert [each and (each.id, each.device) for each in shown] == [("m", None)] * 5
        assert in_app.loads == 1
        assert in_app.bodies()[0]["customer_ids"] == ANN
        events = await in_app.banners()
        assert [each.ids for each in events] == [ANN] * 5
        assert await ann.click_in_app_message(shown[0], shown[0].buttons[0]) == "app://cart"  # type: ignore[arg-type,union-attr]
        assert (await in_app.banners("click"))[0].ids == ANN
        assert len(in_app.service.active) == 0

    async def test_conditions(self, in_app: InAppFixture) -> None:
        """All properties that would be tracked count, as for tracked events."""
        conditions = (
            condition("a", "equals", "1"),
            condition("device_id", "is set"),
            condition("shop", "equals", "nice"),
        )
        client = await in_app.start(
            message(trigger=trigger("x", *conditions)), listen=False, default_properties={"shop": "nice"}
        )
        assert await client.in_app_message_for(Event("x", {"a": 2})) is None
        assert await client.in_app_message_for(Event("x", {"a": 1})) is not None

    async def test_hooks(self, in_app: InAppFixture) -> None:
        """No message is shown for an event that would not be tracked."""
        hooks = Hooks(before_track=lambda event: None if event.name == "x" else event)
        client = await in_app.app.start(hooks=hooks)
        in_app.put(message())
        assert await client.in_app_message_for(Event("x")) is None
        assert in_app.loads == 0

    async def test_a_banner_event(self, in_app: InAppFixture) -> None:
        """No message is shown because a banner was shown: there would be no end."""
        client = await in_app.start(message(event="banner"), listen=False)
        assert await client.in_app_message_for(Event("banner", {"action": "show"})) is None
        assert await client.in_app_message_for(Event("banner", {"action": "close"})) is not None

    async def test_errors(self, in_app: InAppFixture) -> None:
        """The errors are raised to the caller."""
        client = await in_app.start(message(), listen=False)
        with pytest.raises(InvalidEventError, match=r"properties\.a"):
            await client.in_app_message_for(Event("x", {"a": float("nan")}))
        with pytest.raises(InvalidEventError):
            await client.in_app_message_for("x")  # type: ignore[arg-type]
        in_app.sandbox.faults.add(Fault("status", status=500, paths="/inappmessages$"))
        with pytest.raises(UnavailableError):
            await client.in_app_message_for(Event("x"))
        in_app.sandbox.faults.clear()
        in_app.service.loader.pauses.clear()
        in_app.sandbox.faults.add(Fault("status", status=403, paths="/inappmessages$", times=1))
        with pytest.raises(RequestRefusedError):
            await client.in_app_message_for(Event("x"))
        in_app.service.loader.pauses.clear()
        assert await client.in_app_message_for(Event("x")) is not None

    async def test_lifecycle(self, in_app: InAppFixture) -> None:
        """A client that is not running raises an error."""
        client = in_app.app.make()
        with pytest.raises(NotStartedError):
            await client.in_app_message_for(Event("x"))
        await client.start()
        await client.aclose(timeout=0)
        with pytest.raises(ClosedError):
            await client.in_app_message_for(Event("x"))


async def _stop(client: Exponea, _message: InAppMessage) -> None:
    await client.stop_integration(everyone=True)
    await client.start()


RELEASES: dict[str, Release] = {
    "click": lambda client, shown: client.click_in_app_message(shown, InAppMessageButton()),
    "close": lambda client, shown: client.close_in_app_message(shown),
    "fail": lambda client, shown: client.fail_in_app_message(shown, "no screen"),
    "track click": lambda client, shown: client.track_in_app_message_click(shown, InAppMessageButton("a", "b:c")),
    "track close": lambda client, shown: client.track_in_app_message_close(shown),
    "anonymize": lambda client, _: client.device("a").anonymize(),
    "stop": _stop,
}


class TestOneAtATime:
    @pytest.mark.parametrize("release", list(RELEASES))
    async def test_the_next_message(self, in_app: InAppFixture, release: str) -> None:
        """The next message is shown once the one before has ended; other devices have their own."""
        client = await in_app.start(message(close_timeout=60_000))
        devices = [client.device("a"), client.device("b")]
        for device in devices:
            await device.track_event(Event("x"))
        shown = {each.device: each for each in await in_app.received()}
        assert set(shown) == {"a", "b"}
        await devices[0].track_event(Event("x"))
        assert await in_app.shown() == []
        active = in_app.service.active.on_device("a")

        # Whichever subject is current, it is about the device that the message is shown on.
        await RELEASES[release](client, shown["a"])
        if release == "stop":
            in_app.messages = client.in_app_messages()
        assert active is not None
        assert active.timer is not None
        assert active.timer.cancelled()
        await devices[0].track_event(Event("x"))
        assert [each.device for each in await in_app.received()] == ["a"]

    async def test_an_interaction_with_another_message(self, in_app: InAppFixture) -> None:
        """An interaction with a message that is not shown changes nothing for the one that is."""
        client = await in_app.start(message())
        await in_app.first()
        await client.close_in_app_message(InAppMessage(id="other", name="Other", device="@default"))
        assert await in_app.track() == []

    async def test_interactions_are_about_the_device(self, in_app: InAppFixture) -> None:
        """Interactions are tracked for the device on which the message is shown."""
        client = await in_app.start(message())
        await client.device("a").track_event(Event("x"))
        (shown,) = await in_app.received()
        await client.click_in_app_message(shown, shown.buttons[0])
        cookie = await client.device("a").get_customer_cookie()
        assert [each.ids for each in await in_app.banners()] == [{"cookie": cookie}] * 2

    async def test_invalid_arguments(self, in_app: InAppFixture) -> None:
        """A wrong message or button is rejected, and so is a text that is not a token."""
        client = await in_app.start(message_token_secret="s" * 16)
        wrong: Any = "m"
        good, button = InAppMessage(id="m", name="M"), InAppMessageButton()
        for call in (
            client.click_in_app_message(wrong, button),
            client.click_in_app_message(good, 7),  # type: ignore[arg-type]
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

    async def test_after_a_stop(self, in_app: InAppFixture) -> None:
        """After a stop nothing happens, and receipts are dropped."""
        client = await in_app.start(message())
        shown = await in_app.first()
        actions = client.in_app_message_action_stream()
        received(actions)
        await client.stop_integration(everyone=True)
        assert types_of(actions) == ["close"]  # it was dismissed
        assert await client.click_in_app_message(shown, shown.buttons[0]) is None
        await client.close_in_app_message(shown)
        await client.fail_in_app_message(shown, "x")
        receipt = await client.track_in_app_message_click(shown, shown.buttons[0])
        with pytest.raises(DroppedError):
            await receipt.delivered()
        assert types_of(actions) == []

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
    async def test_links(self, in_app: InAppFixture, url: str | None, opened: str | None) -> None:
        """A link that is opened is a complete, harmless URL."""
        client = await in_app.start(message())
        shown = await in_app.first()
        assert await client.click_in_app_message(shown, InAppMessageButton("Go", url)) == opened

    async def test_long_texts(self, in_app: InAppFixture) -> None:
        """A click is tracked without texts that would not fit into an event."""
        client = await in_app.start(message())
        shown = await in_app.first()
        long = "a:" + "x" * 20_000
        assert await client.click_in_app_message(shown, InAppMessageButton(long, long)) == long
        await client.fail_in_app_message(shown, long)
        click, error = (await in_app.banners())[1:]
        assert "text" not in click.properties
        assert "link" not in click.properties
        assert error.properties["error"] == long[:4000]


class TestLoading:
    async def test_a_restart(self, in_app: InAppFixture) -> None:
        """What was loaded is still there after a restart, until it is too old."""
        await in_app.start(message())
        assert await in_app.track() == ["m"]
        await in_app.restart()
        assert await in_app.track() == ["m"]
        assert in_app.loads == 1
        await in_app.restart(at=9000.0)
        assert await in_app.track() == ["m"]
        assert in_app.loads == 2

    @pytest.mark.parametrize("stored", [b"", b"x", b"[1]\n", b'["a", 1.0]\nnothing', None])
    async def test_broken_stored_messages(self, in_app: InAppFixture, stored: bytes | None) -> None:
        """Broken stored messages are loaded again."""
        client = await in_app.start(message())
        await client.track_event(Event("y"))
        await in_app.idle()
        if stored is None:
            stored = (await in_app.stored() or b"")[:-9]
        await in_app.store(stored)
        in_app.service.cache.clear()
        assert await in_app.track() == ["m"]
        assert in_app.loads == 2

    async def test_stored_messages_of_another_customer(self, in_app: InAppFixture) -> None:
        """A new customer does not get the stored messages of the one before."""
        client = await in_app.start(message())
        await in_app.track("y")
        in_app.sandbox.messages.in_app_messages.clear()
        await client.anonymize()
        assert await in_app.track() == []
        assert in_app.loads == 2

    async def test_evicted_messages(self, in_app: InAppFixture) -> None:
        """Messages that were evicted from memory are read from the storage."""
        client = await in_app.start(message(event="campaign"))
        await in_app.track("y")
        in_app.service.cache.clear()
        # Not even a push notification, for which nothing is ever loaded, misses it.
        await client.track_delivered_push({"source": "xnpe_platform", "title": "Sale"})
        assert await in_app.shown() == ["m"]
        assert in_app.loads == 1

    async def test_a_refused_request(self, in_app: InAppFixture) -> None:
        """After a refusal no device requests messages for a while, except for an identify."""
        in_app.sandbox.faults.add(Fault("status", status=403, paths="/inappmessages$", times=1))
        client = await in_app.start(message())
        for number in range(3):
            await client.device(str(number)).track_event(Event("x"))
            await in_app.idle()
        assert in_app.loads == 1
        await client.anonymize()
        await client.identify_customer(Customer(ANN))
        await client.flush_data()
        await until(lambda: in_app.loads >= 2)

    async def test_platforms(self, in_app: InAppFixture) -> None:
        """Messages are requested for the configured platform."""
        await in_app.start(message(), message_platform="ios")
        await in_app.track()
        assert in_app.bodies()[0]["device"] == "ios"
        assert (await in_app.banners())[0].properties["platform"] == "iOS"

    @pytest.mark.parametrize(("preload", "fetches"), [(True, 1), (False, 0)])
    async def test_preloading(self, in_app: InAppFixture, preload: bool, fetches: int) -> None:  # noqa: FBT001
        """The messages of a new customer are preloaded if the settings say so; a failure raises nothing."""
        client = await in_app.start(message(), listen=False, preload_messages=preload)
        await client.track_event(Event("y"))
        await client.anonymize()
        await in_app.idle()
        assert in_app.loads == fetches
        in_app.sandbox.faults.add(Fault("status", status=403, paths="/inappmessages$"))
        await client.anonymize()
        await in_app.idle()

    async def test_a_rejected_identify(self, in_app: InAppFixture) -> None:
        """Nothing is loaded for a rejected identify, and the next event is handled as usual."""
        client = await in_app.start(message())
        await in_app.track("y")
        in_app.sandbox.faults.add(Fault("reject", every_command=1))
        receipt = await client.identify_customer(Customer(ANN))
        await client.flush_data()
        await until(lambda: not in_app.service.uploads)
        assert (receipt.status, in_app.loads) == ("rejected", 1)
        assert await in_app.track() == ["m"]

    async def test_fresh_messages_while_an_upload_waits(self, in_app: InAppFixture) -> None:
        """Fresh messages are shown while the update of the same customer waits for its upload."""
        client = await in_app.start(message())
        await client.identify_customer(Customer(ANN))
        await client.flush_data()
        await until(lambda: in_app.loads == 2)
        await client.identify_customer(Customer(ANN, {"likes": "mugs"}))
        assert await in_app.track() == ["m"]


class TestSessions:
    async def test_once_per_visit(self, in_app: InAppFixture) -> None:
        """A message is shown once in a session, and again in the next one."""
        client = await in_app.start(message(frequency="once_per_visit"), automatic_session_tracking=True)
        await client.close_in_app_message(await in_app.first())
        assert await in_app.track() == []
        in_app.app.now += 30
        assert await in_app.track() == []
        in_app.app.now += 61
        assert await in_app.track() == ["m"]

    async def test_manual_sessions(self, in_app: InAppFixture) -> None:
        """Between sessions the last one counts, and before the first the start of the client."""
        client = await in_app.start(message(frequency="once_per_visit"))
        await client.close_in_app_message(await in_app.first())
        assert await in_app.track() == []
        in_app.app.now += 5
        await client.track_session_start()
        await client.close_in_app_message(await in_app.first())
        await client.track_session_end()
        assert await in_app.track() == []


class TestContent:
    async def test_html(self, in_app: InAppFixture) -> None:
        """HTML is made safe; its links and buttons can be clicked, one of them to close the message."""
        source = "<script>x()</script><a href='https://s.example/?a=1'>Sale</a><b data-actiontype='close'>Bye</b>"
        client = await in_app.start(html_message(source=source))
        shown = await in_app.first()
        assert shown.html is not None
        assert "script" not in shown.html
        sale, bye = shown.buttons
        assert (sale.text, sale.url, sale.kind, bye.kind) == ("Sale", "https://s.example/?a=1", "browser", "cancel")
        assert await client.click_in_app_message(shown, bye) is None
        (event,) = await in_app.banners("close")
        assert event.properties["text"] == "Bye"
        assert event.properties["banner_type"] == "freeform"

    @pytest.mark.parametrize("source", ["<script>x()</script>", "   ", "<div>" * 500])
    async def test_unusable_html(self, in_app: InAppFixture, source: str) -> None:
        """Unusable HTML is not shown, which is tracked; the next message is shown."""
        client = await in_app.start(html_message(source=source), message("n", "y"))
        actions = client.in_app_message_action_stream()
        assert await in_app.track() == []
        assert [each.properties["error"] for each in await in_app.banners()] == ["Invalid HTML or empty"]
        assert types_of(actions) == ["error"]
        assert await in_app.track("y") == ["n"]

    async def test_the_extra_is_missing(self, in_app: InAppFixture, caplog: pytest.LogCaptureFixture) -> None:
        """A missing extra is tracked, and logged once; messages without HTML are shown."""
        client = await in_app.start(html_message(), message("n", "y"))
        actions = client.in_app_message_action_stream()
        with caplog.at_level(logging.WARNING), uninstalled("nh3"):
            for _ in range(3):
                assert await in_app.track() == []
                assert "exponea-async[html]" in (received(actions)[-1].error_message or "")
        assert caplog.text.count("In-app messages with HTML") == 1
        assert await in_app.track("y") == ["n"]

    @pytest.mark.parametrize("fields", [{"payload": None}, {"payload": None, "payload_html": "<p>Hi"}, {"payload": 7}])
    async def test_nothing_to_show(self, in_app: InAppFixture, fields: dict[str, Any]) -> None:
        """A message without content is not shown, tracked or remembered."""
        in_app.put(message(**fields), check=False)
        await in_app.start()
        assert await in_app.track() == []
        assert await in_app.banners() == []
        assert await in_app.impressions() == {}

    async def test_resources(self, in_app: InAppFixture) -> None:
        """A resource is loaded once with the user's function, and inlined into HTML."""
        asked: list[str] = []

        async def load(url: str) -> bytes:
            asked.append(url)
            return b"data"

        source = f"<img src='{PICTURE}'><p>Sale</p>"
        client = await in_app.start(
            html_message(source=source), message("n", "y", payload={"image_url": PICTURE}), resource_loader=load
        )
        shown = await in_app.first()
        assert shown.html is not None
        assert "data:image/png;base64,ZGF0YQ==" in shown.html
        await client.close_in_app_message(shown)
        assert await in_app.track("y") == ["n"]
        assert asked == [PICTURE]

    async def test_dangerous_links(self, in_app: InAppFixture) -> None:
        """Links that could run something are neither handed out nor loaded, and the payload has them as they came."""
        asked: list[str] = []

        async def load(url: str) -> bytes:
            asked.append(url)
            return b"data"

        button = {"button_type": "browser", "button_text": "Open", "button_link": "javascript:alert(1)"}
        payload = {"image_url": "file:///etc/passwd", "buttons": [button], "title": "Sale"}
        await in_app.start(message(payload=payload), resource_loader=load)
        shown = await in_app.first()
        assert (shown.buttons[0].url, shown.image_url, asked) == (None, None, [])
        assert shown.payload == payload

    async def test_what_html_loses(self, in_app: InAppFixture, caplog: pytest.LogCaptureFixture) -> None:
        """What the HTML of a message loses is logged, once for each message."""
        source = "<p>Sale</p><style>@import 'https://h.example/x.css';</style>"
        client = await in_app.start(html_message(source=source, frequency="always"))
        for _ in range(2):
            await client.close_in_app_message(await in_app.first())
        logged = [each.getMessage() for each in caplog.records if "is shown without" in each.getMessage()]
        assert logged == ["The HTML of in-app message 'Message m' is shown without: @import."]

    async def test_without_loader(self, in_app: InAppFixture) -> None:
        """Without a function to load them, images keep their URLs."""
        await in_app.start(html_message(source=f"<img src='{PICTURE}'><p>Sale</p>"))
        shown = await in_app.first()
        assert shown.html is not None
        assert PICTURE in shown.html

    @pytest.mark.parametrize("fault", ["raises", "hangs", "gives a text"])
    async def test_a_loader_that_fails(self, in_app: InAppFixture, fault: str, set_constants: SetConstants) -> None:
        """A message whose resource can't be loaded is not shown, which is tracked."""
        set_constants(resources, LOAD_TIMEOUT=0.05)

        async def load(_url: str) -> Any:
            if fault == "raises":
                raise KeyError("x")
            await asyncio.sleep(60 if fault == "hangs" else 0)
            return "text"

        await in_app.start(message(payload={"image_url": PICTURE, "title_font_url": "https://f"}), resource_loader=load)
        assert await in_app.track() == []
        assert [each.properties["error"] for each in await in_app.banners()] == ["Resources has not been preloaded"]


class TestOptions:
    async def test_the_latest_subscription_decides(self, in_app: InAppFixture) -> None:
        """All subscriptions receive everything; the options of the latest one apply."""
        client = await in_app.start(message())
        first = client.in_app_message_action_stream(True, False)  # noqa: FBT003
        second = client.in_app_message_action_stream(track_actions=False)
        shown = await in_app.first()
        assert await client.click_in_app_message(shown, shown.buttons[0]) == "app://cart"
        assert await in_app.actions() == ["show"]
        assert types_of(first) == types_of(second) == ["show", "click"]

    async def test_an_abandoned_subscription(self, in_app: InAppFixture) -> None:
        """The options of a subscription that is not referenced any more do not apply."""
        client = await in_app.start(message())
        client.in_app_message_action_stream(True, False)  # noqa: FBT003
        await collect_garbage()
        shown = await in_app.first()
        assert await client.click_in_app_message(shown, shown.buttons[0]) == "app://cart"
        assert await in_app.actions() == ["show", "click"]

    async def test_an_untracked_timeout(self, in_app: InAppFixture) -> None:
        """A message that closes by itself is published also if it is not tracked."""
        client = await in_app.start(message(close_timeout=10))
        actions = client.in_app_message_action_stream(track_actions=False)
        await client.track_event(Event("x"))
        seen: list[tuple[str, bool | None]] = []
        while len(seen) < 2:
            action = await anext(actions)
            seen.append((action.type, action.interaction))
        assert seen == [("show", None), ("close", False)]
        assert await in_app.actions() == ["show"]
