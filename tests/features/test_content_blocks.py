"""
Content blocks through the verbs: what is chosen for a placeholder, what is told of it, and what is remembered.
"""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from blocks_world import FORCED, LINK, World, personal, static
from helpers.app import DEVICE, STAMPS, Phone

from exponea_async import (
    ClosedError,
    ConfigurationChange,
    Customer,
    DroppedError,
    Event,
    ExponeaProject,
    Hooks,
    InvalidEventError,
    NotStartedError,
)
from exponea_async.messages import InAppContentBlock, InAppContentBlockAction, PersonalizedData
from exponea_async.sandbox import Sandbox

CLICK = InAppContentBlockAction("BROWSER", "Sale", LINK)
MADE = InAppContentBlock(id="made", name="By hand", content_type="html")
HOSTILE = """<script>steal()</script><style>@import 'javascript:x'</style><p onclick="steal()">Hi</p>
<a href="javascript:steal()">a</a><a href="https://ok.example" onmouseover="steal()">ok</a><iframe src="//e.example">
</iframe><img src=x onerror=steal()><svg onload=steal()></svg><form action="//e.example"><input></form>"""


@pytest.fixture
def world(phone: Phone, sandbox: Sandbox) -> World:
    return World(phone, sandbox)


def by_hand(client: Any, verb: str, block: Any, consider: bool = True, placeholder: Any = "top") -> Any:  # noqa: FBT001, FBT002 - as in the verbs
    """Track something by hand."""
    extra = {"click": (CLICK,), "error": ("broken",)}.get(verb, ())
    return getattr(client, f"track_in_app_content_block_{verb}")(placeholder, block, *extra, consider)


HANDS = ["shown", "click", "close", "error"]


class TestWhatIsHandedOut:
    async def test_a_block_for_a_customer(self, world: World) -> None:
        """A block tells what it is for all, what it says to the customer, and whom it was loaded for."""
        world.put(
            personal(
                frequency="only_once",
                load_priority=7,
                consent_category_tracking="Marketing",
                date_filter={"enabled": False},
                says={"has_tracking_consent": False},
            )
        )
        client = await world.phone.start()
        block = await world.block()
        data = block.personalized_data

        assert (block.id, block.name, block.placeholders, block.frequency) == ("p1", "p1", ("top",), "only_once")
        assert (block.load_priority, block.consent_category_tracking) == (7, "Marketing")
        assert (block.date_filter, block.content_type, block.content) == ({"enabled": False}, None, None)
        assert block.customer_ids == {"cookie": await client.get_customer_cookie()}
        assert data is not None
        assert (data.id, data.status, data.ttl, data.loaded_at) == ("p1", "OK", 120, 1000)
        assert (data.has_tracking_consent, data.variant_id, data.variant_name) == (False, 3, "B")
        assert data.content_type == "html"

    async def test_what_can_be_pressed(self, world: World) -> None:
        """Its HTML is made safe, and it tells what can be pressed."""
        world.put(static())
        await world.phone.start()
        block = await world.block()

        assert [(each.type, each.name) for each in block.actions] == [
            ("BROWSER", "Sale"),
            ("BROWSER", "All"),
            ("CLOSE", "x"),
        ]
        assert all(each.url in (block.html or "") for each in block.actions if each.url)

    async def test_hostile_html(self, world: World) -> None:
        """Nothing that could run gets through, and what is harmless does."""
        world.put(static(html=HOSTILE))
        await world.phone.start()
        block = await world.block()

        assert block.html is not None
        assert not [word for word in ("steal", "script", "iframe", "import") if word in block.html]
        assert [each.url for each in block.actions] == ["https://ok.example"]

    async def test_nothing_is_shared(self, world: World) -> None:
        """What a host does to a block's content is its own affair."""
        world.put(personal("p", load_priority=9), static("s", placeholders=("other",)))
        await world.phone.start()
        first, second = await world.block(), await world.block("other")
        first.personalized_data.content["html"] = second.content["html"] = "<p>Mine</p>"  # type: ignore[index,union-attr]

        assert "Mine" not in str((await world.block()).html)
        assert "Mine" not in str((await world.block("other")).html)

    async def test_on_a_phone_of_apple(self, world: World) -> None:
        """Blocks for Apple's phones are other ones, and the events say so."""
        world.put(static())
        await world.phone.start(message_platform="ios")
        await world.block()

        assert world.sandbox.requests[-1].path == "/wxstatic/projects/shop/bundle-ios.json"
        event = (await world.last()).own
        assert (event["os"], event["platform"]) == ("iOS", "iOS")


class TestWhatIsTold:
    async def test_a_show(self, world: World) -> None:
        """What is shown is told with all that is known of it."""
        world.put(personal(consent_category_tracking="Marketing"))
        await world.phone.start()
        await world.block()
        event = await world.last()

        assert event.own == {
            "action": "show",
            "banner_id": "p1",
            "banner_name": "p1",
            "banner_type": "html",
            "interaction": False,
            "os": "Android",
            "platform": "Android",
            "type": "in-app content block",
            "placeholder": "top",
            "variant_id": 3,
            "variant_name": "B",
            "consent_category_tracking": "Marketing",
        }
        assert event.properties.keys() >= DEVICE | STAMPS
        assert event.at == 1000

    async def test_a_click_and_a_close(self, world: World) -> None:
        """A click tells what was pressed, and a close does not; who did it was somebody."""
        world.put(static())
        client = await world.phone.start()
        block = await world.block()
        assert await client.click_content_block("top", block, block.actions[0]) == LINK
        await client.close_content_block("top", block)
        shown, click, close = [each.own for each in await world.phone.kept("banner")]

        assert click == {**shown, "action": "click", "interaction": True, "text": "Sale", "link": LINK}
        assert close == {**shown, "action": "close", "interaction": True}
        assert "variant_id" not in shown

    @pytest.mark.parametrize("url", [LINK, LINK + "/", "https://s.example:443/sale#part"])
    async def test_an_address_that_was_opened(self, world: World, url: str) -> None:
        """What was pressed is found by the address that was opened."""
        world.put(static())
        client = await world.phone.start()
        assert await client.click_content_block("top", await world.block(), url) == LINK
        assert (await world.last()).own["text"] == "Sale"

    async def test_a_press_that_closes(self, world: World) -> None:
        """A press on a button to close is a close, by its address too."""
        world.put(static())
        client = await world.phone.start()
        block = await world.block()
        close = block.actions[2]
        assert await client.click_content_block("top", block, close) is None
        assert await client.click_content_block("top", block, close.url or "") is None
        assert await world.told() == [("show", "s1"), ("close", "s1"), ("close", "s1")]

    async def test_html_that_can_not_be_shown(self, world: World) -> None:
        """A block with nothing in its HTML is an error, and the next one gets its turn."""
        world.put(static("broken", html="<script>x</script>", load_priority=9), static("fine"))
        await world.phone.start()
        assert await world.shown() == "fine"
        assert await world.told() == [("error", "broken"), ("show", "fine")]
        error = (await world.phone.kept("banner"))[0].own
        assert (error["error"], error["interaction"]) == ("Invalid HTML or empty", False)

    @pytest.mark.parametrize("consent", [True, False])
    @pytest.mark.parametrize("url", [LINK, FORCED])
    @pytest.mark.parametrize("consider", [True, False])
    @pytest.mark.parametrize("verb", HANDS)
    async def test_by_hand(self, world: World, verb: str, consider: bool, url: str, consent: bool) -> None:  # noqa: FBT001
        """Without consent only that is tracked by hand which is asked for all the same, or a click that is forced."""
        world.put(personal(says={"has_tracking_consent": consent}, frequency="until_visitor_interacts"))
        client = await world.phone.start()
        block = await world.block()
        before = len(await world.told())
        click = InAppContentBlockAction("BROWSER", "Go", url)
        extra = {"click": (click,), "error": ("broken",)}.get(verb, ())
        receipt = await getattr(client, f"track_in_app_content_block_{verb}")("top", block, *extra, consider)

        forced = verb == "click" and url == FORCED
        kept = (await world.phone.kept("banner"))[before:]
        assert len(kept) == (consent or forced or not consider)
        assert receipt.status == ("queued" if kept else "dropped")
        assert [each.own.get("tracking_forced") for each in kept] == [True if forced else None] * len(kept)
        # What is told by hand is remembered by hand.
        assert await world.shown() == "p1"

    async def test_made_by_hand(self, world: World) -> None:
        """A block that a host has made is told of the present customer, with what is known of it."""
        client = await world.phone.start()
        await client.track_in_app_content_block_error("side", MADE, "no room")
        event = await world.last()

        assert (event.own["banner_id"], event.own["placeholder"], event.own["error"]) == ("made", "side", "no room")
        assert event.ids == {"cookie": await client.get_customer_cookie()}

    async def test_the_want_of_consent_is_counted(self, world: World) -> None:
        """What is not tracked for want of consent is counted, and remembered as shown all the same."""
        world.put(personal(says={"has_tracking_consent": False}, frequency="only_once"))
        client = await world.phone.start()
        assert [await world.shown() for _ in range(2)] == ["p1", None]
        assert client.stats().dropped == {"no_consent": 1}
        with pytest.raises(DroppedError, match="consent"):
            await (await client.track_in_app_content_block_close("top", personal_block())).delivered()

    async def test_endless_words(self, world: World) -> None:
        """The words of a link that go on for ever are cut in the event, which is sent."""
        world.put(static(html=f"<a href='{LINK}'>{'word ' * 10_000}</a>"))
        client = await world.phone.start()
        assert await client.click_content_block("top", await world.block(), LINK) == LINK
        assert len((await world.last()).own["text"]) == 4_000


def personal_block() -> InAppContentBlock:
    """Make a block by hand that may not be tracked."""
    return InAppContentBlock(id="x", name="x", personalized_data=PersonalizedData(id="x", has_tracking_consent=False))


class TestHowOften:
    @pytest.mark.parametrize(
        ("frequency", "again", "after_close", "next_visit"),
        [
            (None, True, True, True),
            ("always", True, True, True),
            ("from time to time", True, True, True),
            ("only_once", False, False, False),
            ("once_per_visit", False, False, True),
            ("until_visitor_interacts", True, False, False),
        ],
    )
    async def test_a_frequency(
        self,
        world: World,
        frequency: str | None,
        again: bool,  # noqa: FBT001
        after_close: bool,  # noqa: FBT001
        next_visit: bool,  # noqa: FBT001
    ) -> None:
        """A device is shown a block as often as its frequency allows, in this visit and the next, restarts included."""
        world.put(static(frequency=frequency), check=False)
        client = await world.phone.start()
        block = await world.block()
        world.phone.now += 1
        assert (await world.shown() is not None) is again
        await client.close_content_block("top", block)
        await world.phone.restart()
        assert (await world.shown() is not None) is after_close
        world.phone.now += 3600
        assert (await world.shown() is not None) is next_visit

    @pytest.mark.parametrize(
        ("dates", "is_shown"),
        [
            ({"enabled": True, "from_date": 1001}, False),
            ({"enabled": True, "from_date": 1000, "to_date": 1000}, True),
            ({"enabled": True, "to_date": 999}, False),
            ({"enabled": False, "to_date": 999}, True),
        ],
    )
    async def test_dates(self, world: World, dates: dict[str, Any], is_shown: bool) -> None:  # noqa: FBT001
        """A block is shown between its dates."""
        world.put(static(date_filter=dates))
        await world.phone.start()
        assert (await world.shown() is not None) is is_shown

    @pytest.mark.parametrize("frequency", ["only_once", "once_per_visit"])
    async def test_many_at_once(self, world: World, frequency: str) -> None:
        """Of many who ask at the same moment one is shown what is shown once, and the others what comes next."""
        world.put(static("once", frequency=frequency, load_priority=2), static("next", frequency=frequency))
        await world.phone.start()
        shown = await asyncio.gather(*(world.shown() for _ in range(20)))

        assert sorted(str(each) for each in shown) == ["None"] * 18 + ["next", "once"]
        assert sorted(await world.told()) == [("show", "next"), ("show", "once")]

    async def test_equal_ones(self, world: World) -> None:
        """Those of one priority are chosen by chance."""
        world.put(static("a"), static("b"))
        await world.phone.start()
        assert {await world.shown() for _ in range(60)} == {"a", "b"}

    @pytest.mark.parametrize("change", ["identify", "anonymize"])
    async def test_another_customer(self, world: World, change: str) -> None:
        """Nobody has seen what somebody else was shown."""
        world.put(static(frequency="only_once"))
        client = await world.phone.start()
        await world.block()
        assert await world.shown() is None
        if change == "identify":
            await client.identify_customer(Customer({"registered": "jane"}))
        else:
            await client.anonymize()
        assert await world.shown() == "s1"

    async def test_two_devices(self, world: World) -> None:
        """What one device was shown is new to another."""
        world.put(static(frequency="only_once"))
        await world.phone.start()
        shown = [await world.shown(of=world.device(key)) for key in ("a", "b", "a")]
        assert shown == ["s1", "s1", None]


class TestACustomer:
    async def test_nothing_is_remembered(self, world: World) -> None:
        """To a customer tracker each block was never shown; its events carry exactly the ids."""
        world.put(personal(frequency="only_once"))
        client = await world.phone.start()
        jane = client.for_customer({"registered": "jane"})
        block = await world.block(of=jane)
        await jane.click_content_block("top", block, LINK)
        await jane.close_content_block("top", block)

        assert await world.shown(of=jane) == "p1"
        told = await world.phone.kept()
        assert [each.own["action"] for each in told] == ["show", "click", "close", "show"]
        assert [each.ids for each in told] == [{"registered": "jane"}] * 4
        assert block.customer_ids == {"registered": "jane"}

    async def test_the_block_of_another_one(self, world: World) -> None:
        """What happens to a block is told of whom it was loaded for, whoever is told to be current."""
        world.put(static())
        client = await world.phone.start()
        block = await world.block(of=client.for_customer({"registered": "jane"}))
        await client.for_customer({"registered": "bob"}).close_content_block("top", block)
        await client.click_content_block("top", block, LINK)

        assert [each.ids for each in await world.phone.kept("banner")] == [{"registered": "jane"}] * 3

    async def test_the_bound_one(self, world: World) -> None:
        """The client's verbs are about who is bound."""
        world.put(static())
        client = await world.phone.start()
        with client.bind(client.for_customer({"registered": "jane"})):
            await world.block()
        assert (await world.last()).ids == {"registered": "jane"}


class TestHooks:
    @pytest.mark.parametrize("who", ["device", "customer"])
    async def test_an_event_that_is_dropped(self, world: World, who: str) -> None:
        """What a hook does not want tracked is not, and the block is there all the same."""
        world.put(static(frequency="only_once"))
        hooks = Hooks(before_track=lambda event: None if event.name == "banner" else event)
        client = await world.phone.start(hooks=hooks)
        subject = client.device("d") if who == "device" else client.for_customer({"registered": "jane"})
        block = await world.block(of=subject)
        assert await subject.click_content_block("top", block, LINK) == LINK
        assert (await subject.track_in_app_content_block_close("top", block)).status == "dropped"
        assert await world.told() == []
        assert (await world.shown(of=subject) is None) is (who == "device")


class TestMisuse:
    @pytest.mark.parametrize("placeholder", ["", None, 5])
    async def test_no_placeholder(self, world: World, placeholder: Any) -> None:
        """What names no placeholder is refused by all verbs, and nothing is asked or kept."""
        client = await world.phone.start()
        acts: list[Callable[[], Any]] = [
            lambda: client.content_block(placeholder),
            lambda: client.click_content_block(placeholder, MADE, CLICK),
            lambda: client.close_content_block(placeholder, MADE),
            *(lambda verb=verb: by_hand(client, verb, MADE, placeholder=placeholder) for verb in HANDS),
        ]
        for act in acts:
            with pytest.raises(InvalidEventError, match="placeholder_id"):
                await act()
        with pytest.raises(InvalidEventError, match="placeholder_id"):
            client.content_block_carousel(placeholder)
        assert await world.phone.kept() == []
        assert world.asked() == []

    @pytest.mark.parametrize("block", [None, "s1", {"id": "s1"}])
    async def test_no_block(self, world: World, block: Any) -> None:
        """What is no block is refused."""
        client = await world.phone.start()
        acts: list[Callable[[], Any]] = [
            lambda: client.click_content_block("top", block, CLICK),
            lambda: client.close_content_block("top", block),
            *(lambda verb=verb: by_hand(client, verb, block) for verb in HANDS),
        ]
        for act in acts:
            with pytest.raises(InvalidEventError, match="content_block"):
                await act()

    @pytest.mark.parametrize("action", [None, 5, {"url": LINK}, InAppContentBlockAction(None)])  # type: ignore[arg-type]
    async def test_no_action(self, world: World, action: Any) -> None:
        """What nobody can have pressed is refused."""
        client = await world.phone.start()
        carousel = client.content_block_carousel("top")
        acts: list[Callable[[], Any]] = [
            lambda: client.click_content_block("top", MADE, action),
            lambda: client.track_in_app_content_block_click("top", MADE, action),
            lambda: carousel.click(MADE, action),
        ]
        for act in acts:
            with pytest.raises(InvalidEventError, match="action"):
                await act()
        assert await world.phone.kept() == []

    async def test_after_a_stop(self, world: World) -> None:
        """A stopped client shows, tracks and opens nothing."""
        world.put(static())
        client = await world.phone.start()
        block, asked = await world.block(), world.asked()
        await client.stop_integration()

        assert await client.content_block("top") is None
        assert await client.click_content_block("top", block, LINK) is None
        await client.close_content_block("top", block)
        assert [(await by_hand(client, verb, block)).status for verb in HANDS] == ["dropped"] * 4
        assert world.asked() == asked

    async def test_after_a_stop_and_a_start(self, world: World) -> None:
        """A client that was started again knows nothing of before, and loads all anew."""
        world.put(static(frequency="only_once"))
        client = await world.phone.start()
        await world.block()
        await client.stop_integration()
        await client.start()

        assert await world.shown() == "s1"
        assert world.asked() == ["bundle"] * 2

    @pytest.mark.parametrize(("close", "error"), [(False, NotStartedError), (True, ClosedError)])
    async def test_outside_its_life(self, world: World, close: bool, error: type[Exception]) -> None:  # noqa: FBT001
        """A client that does not run says so."""
        client = world.phone.make()
        if close:
            await client.start()
            await client.aclose(timeout=0)
        acts: list[Callable[[], Any]] = [
            lambda: client.content_block("top"),
            lambda: client.click_content_block("top", MADE, CLICK),
            lambda: client.close_content_block("top", MADE),
            lambda: client.content_block_carousel("top").reload(),
            *(lambda verb=verb: by_hand(client, verb, MADE) for verb in HANDS),
        ]
        for act in acts:
            with pytest.raises(error):
                await act()


class TestInOtherPlaces:
    async def test_another_project(self, world: World) -> None:
        """Who was switched to another project is shown that one's blocks."""
        section = world.sandbox.messages.content_blocks
        section.put(static("here"), project="shop")
        section.put(static("there"), project="outlet")
        client = await world.phone.start()
        assert await world.shown() == "here"
        await client.anonymize(ConfigurationChange(project=ExponeaProject("outlet", "key")))

        assert await world.shown() == "there"
        assert (await world.last()).project == "outlet"
        assert await world.shown(of=world.device("other")) == "here"

    async def test_an_event_before_it(self, world: World) -> None:
        """A block is a sign of life: the device tells first that it is there."""
        world.put(static())
        client = await world.phone.start()
        await world.block()
        await client.track_event(Event("ping"))
        assert [each.name for each in await world.phone.kept()] == ["installation", "session_start", "banner", "ping"]
