"""
Content blocks: the verbs, their events, and what a device remembers.
"""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from helpers.app import DEVICE, STAMPS, App
from helpers.content_blocks import FORCED, LINK, ContentBlocksFixture, personal, static

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

ACTION = InAppContentBlockAction("BROWSER", "Sale", LINK)
OWN_BLOCK = InAppContentBlock(id="made", name="Made by the caller", content_type="html")
HOSTILE = """<script>steal()</script><style>@import 'javascript:x'</style><p onclick="steal()">Hi</p>
<a href="javascript:steal()">a</a><a href="https://ok.example" onmouseover="steal()">ok</a><iframe src="//e.example">
</iframe><img src=x onerror=steal()><svg onload=steal()></svg><form action="//e.example"><input></form>"""


@pytest.fixture
def content(app: App, sandbox: Sandbox) -> ContentBlocksFixture:
    return ContentBlocksFixture(app, sandbox)


def track(client: Any, verb: str, block: Any, consider: bool = True, placeholder: Any = "top") -> Any:  # noqa: FBT001, FBT002 - as in the verbs
    """Call one of the verbs that track an event explicitly."""
    extra = {"click": (ACTION,), "error": ("broken",)}.get(verb, ())
    return getattr(client, f"track_in_app_content_block_{verb}")(placeholder, block, *extra, consider)


TRACKING_VERBS = ["shown", "click", "close", "error"]


class TestBlocks:
    async def test_personalized_block(self, content: ContentBlocksFixture) -> None:
        """A block has its definition, its personalized data, and the ids of its customer."""
        content.put(
            personal(
                frequency="only_once",
                load_priority=7,
                consent_category_tracking="Marketing",
                date_filter={"enabled": False},
                data={"has_tracking_consent": False},
            )
        )
        client = await content.app.start()
        block = await content.block()
        data = block.personalized_data

        assert (block.id, block.name, block.placeholders, block.frequency) == ("p1", "p1", ("top",), "only_once")
        assert (block.load_priority, block.consent_category_tracking) == (7, "Marketing")
        assert (block.date_filter, block.content_type, block.content) == ({"enabled": False}, None, None)
        assert block.customer_ids == {"cookie": await client.get_customer_cookie()}
        assert data is not None
        assert (data.id, data.status, data.ttl, data.loaded_at) == ("p1", "OK", 120, 1000)
        assert (data.has_tracking_consent, data.variant_id, data.variant_name) == (False, 3, "B")
        assert data.content_type == "html"

    async def test_actions(self, content: ContentBlocksFixture) -> None:
        """A block has the actions of its safe HTML."""
        content.put(static())
        await content.app.start()
        block = await content.block()

        assert [(each.type, each.name) for each in block.actions] == [
            ("BROWSER", "Sale"),
            ("BROWSER", "All"),
            ("CLOSE", "x"),
        ]
        assert all(each.url in (block.html or "") for each in block.actions if each.url)

    async def test_unsafe_html(self, content: ContentBlocksFixture) -> None:
        """Safe HTML has no scripts, but harmless links."""
        content.put(static(html=HOSTILE))
        await content.app.start()
        block = await content.block()

        assert block.html is not None
        assert not [word for word in ("steal", "script", "iframe", "import") if word in block.html]
        assert [each.url for each in block.actions] == ["https://ok.example"]

    async def test_blocks_are_copies(self, content: ContentBlocksFixture) -> None:
        """Changing the content of a block does not change later blocks."""
        content.put(personal("p", load_priority=9), static("s", placeholders=("other",)))
        await content.app.start()
        first, second = await content.block(), await content.block("other")
        first.personalized_data.content["html"] = second.content["html"] = "<p>Mine</p>"  # type: ignore[index,union-attr]

        assert "Mine" not in str((await content.block()).html)
        assert "Mine" not in str((await content.block("other")).html)

    async def test_ios(self, content: ContentBlocksFixture) -> None:
        """With the platform iOS another bundle is loaded, and events name the platform."""
        content.put(static())
        await content.app.start(message_platform="ios")
        await content.block()

        assert content.sandbox.requests[-1].path == "/wxstatic/projects/shop/bundle-ios.json"
        event = (await content.last_event()).own
        assert (event["os"], event["platform"]) == ("iOS", "iOS")


class TestEvents:
    async def test_show(self, content: ContentBlocksFixture) -> None:
        """A show event has all properties of the block."""
        content.put(personal(consent_category_tracking="Marketing"))
        await content.app.start()
        await content.block()
        event = await content.last_event()

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

    async def test_click_and_close(self, content: ContentBlocksFixture) -> None:
        """Clicks and closes are interactions; a click has the text and link of its action."""
        content.put(static())
        client = await content.app.start()
        block = await content.block()
        assert await client.click_content_block("top", block, block.actions[0]) == LINK
        await client.close_content_block("top", block)
        shown, click, close = [each.own for each in await content.app.pending("banner")]

        assert click == {**shown, "action": "click", "interaction": True, "text": "Sale", "link": LINK}
        assert close == {**shown, "action": "close", "interaction": True}
        assert "variant_id" not in shown

    @pytest.mark.parametrize("url", [LINK, LINK + "/", "https://s.example:443/sale#part"])
    async def test_opened_url(self, content: ContentBlocksFixture, url: str) -> None:
        """The clicked action is found by the opened URL."""
        content.put(static())
        client = await content.app.start()
        assert await client.click_content_block("top", await content.block(), url) == LINK
        assert (await content.last_event()).own["text"] == "Sale"

    async def test_click_that_closes(self, content: ContentBlocksFixture) -> None:
        """A click on a close button is a close, also by its URL."""
        content.put(static())
        client = await content.app.start()
        block = await content.block()
        close = block.actions[2]
        assert await client.click_content_block("top", block, close) is None
        assert await client.click_content_block("top", block, close.url or "") is None
        assert await content.events() == [("show", "s1"), ("close", "s1"), ("close", "s1")]

    async def test_invalid_html(self, content: ContentBlocksFixture) -> None:
        """A block without content in its HTML is tracked as an error, and the next block is shown."""
        content.put(static("broken", html="<script>x</script>", load_priority=9), static("fine"))
        await content.app.start()
        assert await content.shown() == "fine"
        assert await content.events() == [("error", "broken"), ("show", "fine")]
        error = (await content.app.pending("banner"))[0].own
        assert (error["error"], error["interaction"]) == ("Invalid HTML or empty", False)

    @pytest.mark.parametrize("consent", [True, False])
    @pytest.mark.parametrize("url", [LINK, FORCED])
    @pytest.mark.parametrize("consider", [True, False])
    @pytest.mark.parametrize("verb", TRACKING_VERBS)
    async def test_explicit_events(
        self,
        content: ContentBlocksFixture,
        verb: str,
        consider: bool,  # noqa: FBT001
        url: str,
        consent: bool,  # noqa: FBT001
    ) -> None:
        """Without consent an explicit event is tracked only if consent does not count, or if its link forces it."""
        content.put(personal(data={"has_tracking_consent": consent}, frequency="until_visitor_interacts"))
        client = await content.app.start()
        block = await content.block()
        before = len(await content.events())
        action = InAppContentBlockAction("BROWSER", "Go", url)
        extra = {"click": (action,), "error": ("broken",)}.get(verb, ())
        receipt = await getattr(client, f"track_in_app_content_block_{verb}")("top", block, *extra, consider)

        forced = verb == "click" and url == FORCED
        kept = (await content.app.pending("banner"))[before:]
        assert len(kept) == (consent or forced or not consider)
        assert receipt.status == ("queued" if kept else "dropped")
        assert [each.own.get("tracking_forced") for each in kept] == [True if forced else None] * len(kept)
        # Explicit events are not remembered.
        assert await content.shown() == "p1"

    async def test_block_made_by_the_caller(self, content: ContentBlocksFixture) -> None:
        """An event about a block that the caller made is about the present customer."""
        client = await content.app.start()
        await client.track_in_app_content_block_error("side", OWN_BLOCK, "no room")
        event = await content.last_event()

        assert (event.own["banner_id"], event.own["placeholder"], event.own["error"]) == ("made", "side", "no room")
        assert event.ids == {"cookie": await client.get_customer_cookie()}

    async def test_missing_consent_is_counted(self, content: ContentBlocksFixture) -> None:
        """An event that is dropped for want of consent is counted, but the block is remembered as shown."""
        content.put(personal(data={"has_tracking_consent": False}, frequency="only_once"))
        client = await content.app.start()
        assert [await content.shown() for _ in range(2)] == ["p1", None]
        assert client.stats().dropped == {"no_consent": 1}
        with pytest.raises(DroppedError, match="consent"):
            await (await client.track_in_app_content_block_close("top", block_without_consent())).delivered()

    async def test_long_text(self, content: ContentBlocksFixture) -> None:
        """A long text of a link is cut in the event."""
        content.put(static(html=f"<a href='{LINK}'>{'word ' * 10_000}</a>"))
        client = await content.app.start()
        assert await client.click_content_block("top", await content.block(), LINK) == LINK
        assert len((await content.last_event()).own["text"]) == 4_000


def block_without_consent() -> InAppContentBlock:
    """Return a block that may not be tracked."""
    return InAppContentBlock(id="x", name="x", personalized_data=PersonalizedData(id="x", has_tracking_consent=False))


class TestFrequency:
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
    async def test_frequency(
        self,
        content: ContentBlocksFixture,
        frequency: str | None,
        again: bool,  # noqa: FBT001
        after_close: bool,  # noqa: FBT001
        next_visit: bool,  # noqa: FBT001
    ) -> None:
        """A device shows a block as often as its frequency allows, in this visit and the next, even after a restart."""
        content.put(static(frequency=frequency), check=False)
        client = await content.app.start()
        block = await content.block()
        content.app.now += 1
        assert (await content.shown() is not None) is again
        await client.close_content_block("top", block)
        await content.app.restart()
        assert (await content.shown() is not None) is after_close
        content.app.now += 3600
        assert (await content.shown() is not None) is next_visit

    @pytest.mark.parametrize(
        ("dates", "is_shown"),
        [
            ({"enabled": True, "from_date": 1001}, False),
            ({"enabled": True, "from_date": 1000, "to_date": 1000}, True),
            ({"enabled": True, "to_date": 999}, False),
            ({"enabled": False, "to_date": 999}, True),
        ],
    )
    async def test_dates(self, content: ContentBlocksFixture, dates: dict[str, Any], is_shown: bool) -> None:  # noqa: FBT001
        """A block is shown between its dates only."""
        content.put(static(date_filter=dates))
        await content.app.start()
        assert (await content.shown() is not None) is is_shown

    @pytest.mark.parametrize("frequency", ["only_once", "once_per_visit"])
    async def test_concurrent_calls(self, content: ContentBlocksFixture, frequency: str) -> None:
        """Concurrent calls show a block that is shown once only to one of them, and the next block to another."""
        content.put(static("once", frequency=frequency, load_priority=2), static("next", frequency=frequency))
        await content.app.start()
        shown = await asyncio.gather(*(content.shown() for _ in range(20)))

        assert sorted(str(each) for each in shown) == ["None"] * 18 + ["next", "once"]
        assert sorted(await content.events()) == [("show", "next"), ("show", "once")]

    async def test_equal_priorities(self, content: ContentBlocksFixture) -> None:
        """Of blocks with the same priority one is chosen at random."""
        content.put(static("a"), static("b"))
        await content.app.start()
        assert {await content.shown() for _ in range(60)} == {"a", "b"}

    @pytest.mark.parametrize("change", ["identify", "anonymize"])
    async def test_another_customer(self, content: ContentBlocksFixture, change: str) -> None:
        """A block that the previous customer has seen is new to the present one."""
        content.put(static(frequency="only_once"))
        client = await content.app.start()
        await content.block()
        assert await content.shown() is None
        if change == "identify":
            await client.identify_customer(Customer({"registered": "jane"}))
        else:
            await client.anonymize()
        assert await content.shown() == "s1"

    async def test_two_devices(self, content: ContentBlocksFixture) -> None:
        """A block that one device has shown is new to another."""
        content.put(static(frequency="only_once"))
        await content.app.start()
        shown = [await content.shown(subject=content.device(key)) for key in ("a", "b", "a")]
        assert shown == ["s1", "s1", None]


class TestCustomerTracker:
    async def test_nothing_is_remembered(self, content: ContentBlocksFixture) -> None:
        """A customer tracker shows each block as if for the first time; its events have exactly its ids."""
        content.put(personal(frequency="only_once"))
        client = await content.app.start()
        jane = client.for_customer({"registered": "jane"})
        block = await content.block(subject=jane)
        await jane.click_content_block("top", block, LINK)
        await jane.close_content_block("top", block)

        assert await content.shown(subject=jane) == "p1"
        events = await content.app.pending()
        assert [each.own["action"] for each in events] == ["show", "click", "close", "show"]
        assert [each.ids for each in events] == [{"registered": "jane"}] * 4
        assert block.customer_ids == {"registered": "jane"}

    async def test_block_of_another_customer(self, content: ContentBlocksFixture) -> None:
        """Events about a block are about the customer that it was loaded for, whichever subject tracks them."""
        content.put(static())
        client = await content.app.start()
        block = await content.block(subject=client.for_customer({"registered": "jane"}))
        await client.for_customer({"registered": "bob"}).close_content_block("top", block)
        await client.click_content_block("top", block, LINK)

        assert [each.ids for each in await content.app.pending("banner")] == [{"registered": "jane"}] * 3

    async def test_bound_subject(self, content: ContentBlocksFixture) -> None:
        """The client's verbs are about the bound subject."""
        content.put(static())
        client = await content.app.start()
        with client.bind(client.for_customer({"registered": "jane"})):
            await content.block()
        assert (await content.last_event()).ids == {"registered": "jane"}


class TestHooks:
    @pytest.mark.parametrize("who", ["device", "customer"])
    @pytest.mark.parametrize("hook", [lambda _event: None, lambda event: event.no_such_attribute])
    async def test_dropped_event(self, content: ContentBlocksFixture, who: str, hook: Any) -> None:
        """An event that a hook drops, or on which it fails, is not tracked, but the block is shown."""
        content.put(static(frequency="only_once"))
        hooks = Hooks(before_track=lambda event: hook(event) if event.name == "banner" else event)
        client = await content.app.start(hooks=hooks)
        subject = client.device("d") if who == "device" else client.for_customer({"registered": "jane"})
        block = await content.block(subject=subject)
        assert await subject.click_content_block("top", block, LINK) == LINK
        assert (await subject.track_in_app_content_block_close("top", block)).status == "dropped"
        assert await content.events() == []
        assert (await content.shown(subject=subject) is None) is (who == "device")


class TestMisuse:
    @pytest.mark.parametrize("placeholder", ["", None, 5])
    async def test_wrong_placeholder(self, content: ContentBlocksFixture, placeholder: Any) -> None:
        """All verbs raise an error for a wrong placeholder id, and request and track nothing."""
        client = await content.app.start()
        calls: list[Callable[[], Any]] = [
            lambda: client.content_block(placeholder),
            lambda: client.click_content_block(placeholder, OWN_BLOCK, ACTION),
            lambda: client.close_content_block(placeholder, OWN_BLOCK),
            *(lambda verb=verb: track(client, verb, OWN_BLOCK, placeholder=placeholder) for verb in TRACKING_VERBS),
        ]
        for call in calls:
            with pytest.raises(InvalidEventError, match="placeholder_id"):
                await call()
        with pytest.raises(InvalidEventError, match="placeholder_id"):
            client.content_block_carousel(placeholder)
        assert await content.app.pending() == []
        assert content.requests() == []

    @pytest.mark.parametrize("block", [None, "s1", {"id": "s1"}])
    async def test_wrong_block(self, content: ContentBlocksFixture, block: Any) -> None:
        """A value that is not a block raises an error."""
        client = await content.app.start()
        calls: list[Callable[[], Any]] = [
            lambda: client.click_content_block("top", block, ACTION),
            lambda: client.close_content_block("top", block),
            *(lambda verb=verb: track(client, verb, block) for verb in TRACKING_VERBS),
        ]
        for call in calls:
            with pytest.raises(InvalidEventError, match="content_block"):
                await call()

    @pytest.mark.parametrize("action", [None, 5, {"url": LINK}, InAppContentBlockAction(None)])  # type: ignore[arg-type]
    async def test_wrong_action(self, content: ContentBlocksFixture, action: Any) -> None:
        """A value that is not an action raises an error, and nothing is tracked."""
        client = await content.app.start()
        carousel = client.content_block_carousel("top")
        calls: list[Callable[[], Any]] = [
            lambda: client.click_content_block("top", OWN_BLOCK, action),
            lambda: client.track_in_app_content_block_click("top", OWN_BLOCK, action),
            lambda: carousel.click(OWN_BLOCK, action),
        ]
        for call in calls:
            with pytest.raises(InvalidEventError, match="action"):
                await call()
        assert await content.app.pending() == []

    async def test_stopped(self, content: ContentBlocksFixture) -> None:
        """A stopped integration shows, tracks and requests nothing."""
        content.put(static())
        client = await content.app.start()
        block, before = await content.block(), content.requests()
        await client.stop_integration(everyone=True)

        assert await client.content_block("top") is None
        assert await client.click_content_block("top", block, LINK) is None
        await client.close_content_block("top", block)
        assert [(await track(client, verb, block)).status for verb in TRACKING_VERBS] == ["dropped"] * 4
        assert content.requests() == before

    async def test_stopped_and_started(self, content: ContentBlocksFixture) -> None:
        """A client that was started again remembers nothing, and loads everything again."""
        content.put(static(frequency="only_once"))
        client = await content.app.start()
        await content.block()
        await client.stop_integration(everyone=True)
        await client.start()

        assert await content.shown() == "s1"
        assert content.requests() == ["bundle"] * 2

    @pytest.mark.parametrize(("close", "error"), [(False, NotStartedError), (True, ClosedError)])
    async def test_client_that_does_not_run(
        self,
        content: ContentBlocksFixture,
        close: bool,  # noqa: FBT001
        error: type[Exception],
    ) -> None:
        """A client that does not run raises an error."""
        client = content.app.make()
        if close:
            await client.start()
            await client.aclose(timeout=0)
        calls: list[Callable[[], Any]] = [
            lambda: client.content_block("top"),
            lambda: client.click_content_block("top", OWN_BLOCK, ACTION),
            lambda: client.close_content_block("top", OWN_BLOCK),
            lambda: client.content_block_carousel("top").reload(),
            *(lambda verb=verb: track(client, verb, OWN_BLOCK) for verb in TRACKING_VERBS),
        ]
        for call in calls:
            with pytest.raises(error):
                await call()


class TestProjectsAndSessions:
    async def test_another_project(self, content: ContentBlocksFixture) -> None:
        """A device that was switched to another project shows the blocks of that project."""
        section = content.sandbox.messages.content_blocks
        section.put(static("here"), project="shop")
        section.put(static("there"), project="outlet")
        client = await content.app.start()
        assert await content.shown() == "here"
        await client.anonymize(ConfigurationChange(project=ExponeaProject("outlet", "key")))

        assert await content.shown() == "there"
        assert (await content.last_event()).project == "outlet"
        assert await content.shown(subject=content.device("other")) == "here"

    async def test_activity(self, content: ContentBlocksFixture) -> None:
        """Showing a block is activity of the device: its installation and session come first."""
        content.put(static())
        client = await content.app.start()
        await content.block()
        await client.track_event(Event("ping"))
        assert [each.name for each in await content.app.pending()] == [
            "installation",
            "session_start",
            "banner",
            "ping",
        ]
