"""
Numbered scenarios of content blocks. The vendor's SDKs agree on them, or one of them was chosen.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from attrs import evolve
from helpers.app import App
from helpers.content_blocks import FORCED, LINK, ContentBlocksFixture, personal, static
from helpers.token_provider import BlockingTokenProvider

from exponea_async import Customer
from exponea_async.features.content_blocks.parsing import is_fresh, read_definition, status_of
from exponea_async.messages import InAppContentBlockAction
from exponea_async.sandbox import Sandbox

Scenario = Callable[[ContentBlocksFixture], Awaitable[None]]
ACTION = InAppContentBlockAction("BROWSER", "Sale", LINK)
ONCE: dict[str, Any] = {"frequency": "until_visitor_interacts"}
NO_CONSENT: dict[str, Any] = {"has_tracking_consent": False}


@pytest.fixture
def content(app: App, sandbox: Sandbox) -> ContentBlocksFixture:
    return ContentBlocksFixture(app, sandbox)


async def static_block(content: ContentBlocksFixture) -> None:
    """A static block is always fresh and OK, and its data is never requested."""
    content.put(static())
    await content.app.start()
    block = await content.block()
    content.app.now += 20 * 60
    assert (await content.block()).html == block.html
    assert content.requests() == ["bundle"]
    definition = read_definition(static())
    assert is_fresh(definition, None, 10e10)
    assert status_of(definition, None) == "OK"


async def no_data(content: ContentBlocksFixture) -> None:
    """A personalized block without data is not fresh, and its status is unknown."""
    definition = read_definition({"id": "p", "name": "p", "placeholders": []})
    assert not is_fresh(definition, None, 0.0)
    assert status_of(definition, None) == "unknown"


async def still_fresh(content: ContentBlocksFixture) -> None:
    """Data with a time to live of 30 seconds is not loaded again after 29."""
    content.put(personal(data={"ttl_seconds": 30}))
    await content.app.start()
    await content.block()
    content.app.now += 29
    await content.block()
    assert content.requests() == ["bundle", "p1"]


async def stale(content: ContentBlocksFixture) -> None:
    """Data with a time to live of 30 seconds is loaded again after 31."""
    content.put(personal(data={"ttl_seconds": 30}))
    await content.app.start()
    await content.block()
    content.app.now += 31
    await content.block()
    assert content.requests() == ["bundle", "p1", "p1"]


async def no_time_to_live(content: ContentBlocksFixture) -> None:
    """Data without a time to live is loaded each time, and shown."""
    content.put(personal(data={"ttl_seconds": None}), check=False)
    await content.app.start()
    await content.block()
    content.app.now += 1
    await content.block()
    assert content.requests() == ["bundle", "p1", "p1"]


async def content_types(content: ContentBlocksFixture) -> None:
    """Of the content types html, native, foo and none, only html and none are supported."""
    blocks = [static("html"), static("native", content_type="native"), static("foo", content_type="foo")]
    content.put(*blocks, personal("none"))
    await content.app.start()
    await content.block()
    (bundle,) = content.loader.bundles.values()
    assert {each.id for each in bundle.blocks_for("top")} == {"html", "none"}


async def preloaded(content: ContentBlocksFixture) -> None:
    """With one placeholder to preload, only its blocks are requested."""
    content.put(personal("a", placeholders=("p1",)), personal("b", placeholders=("p2",)))
    client = await content.app.start(in_app_content_block_placeholders_auto_load=["p1"])
    await client.get_customer_cookie()
    await content.idle()
    assert content.requests() == ["bundle", "a"]


async def no_preload(content: ContentBlocksFixture) -> None:
    """Without a placeholder to preload, nothing is requested."""
    content.put(personal())
    await (await content.app.start()).get_customer_cookie()
    await content.idle()
    assert content.requests() == []


async def other_statuses(content: ContentBlocksFixture) -> None:
    """Blocks that do not match or do not exist are never shown."""
    content.put(personal("a", data={"status": "filter_not_matched"}), personal("b", data={"status": "does_not_exist"}))
    await content.app.start()
    assert await content.shown() is None
    assert await content.events() == []


async def priorities(content: ContentBlocksFixture) -> None:
    """Of the priorities 0, none and 5 the block with 5 is shown."""
    content.put(static("zero", load_priority=0), static("none"), static("five", load_priority=5))
    await content.app.start()
    assert [await content.shown() for _ in range(5)] == ["five"] * 5


async def empty_html(content: ContentBlocksFixture) -> None:
    """A block with empty HTML is returned without HTML, and tracked as shown."""
    content.put(personal(html=""))
    await content.app.start()
    block = await content.block()
    assert (block.html, block.actions) == (None, ())
    assert await content.events() == [("show", "p1")]


async def identify_while_shown(content: ContentBlocksFixture) -> None:
    """After an identification a shown block keeps its data and ids, and the cached data is removed."""
    content.put(personal())
    client = await content.app.start()
    block = await content.block()
    before = evolve(block)
    await client.identify_customer(Customer({"registered": "jane"}))
    await content.idle()
    assert block == before
    assert len(content.loader.customers) == 0


async def events_of_the_previous_customer(content: ContentBlocksFixture) -> None:
    """Events about a shown block are about the customer that it was loaded for, even after an identification."""
    content.put(personal(**ONCE))
    client = await content.app.start()
    cookie, block = await client.get_customer_cookie(), await content.block()
    await client.identify_customer(Customer({"registered": "jane"}))
    await client.track_in_app_content_block_shown("top", block)
    assert (await content.last_event()).ids == {"cookie": cookie}
    await client.click_content_block("top", block, LINK)
    assert (await content.last_event()).ids == {"cookie": cookie}
    # Jane has not interacted with it.
    assert await content.shown() == "p1"


async def no_consent(content: ContentBlocksFixture) -> None:
    """A click without consent is not tracked."""
    content.put(personal(data=NO_CONSENT))
    client = await content.app.start()
    assert await client.click_content_block("top", await content.block(), LINK) == LINK
    assert await content.events() == []


async def forced(content: ContentBlocksFixture) -> None:
    """A click without consent on a link that forces tracking is tracked, and says so."""
    content.put(personal(data=NO_CONSENT))
    client = await content.app.start()
    assert await client.click_content_block("top", await content.block(), FORCED) == FORCED
    assert await content.events() == [("click", "p1")]
    assert (await content.last_event()).own["tracking_forced"] is True


async def close_and_next(content: ContentBlocksFixture) -> None:
    """A block that is shown until an interaction is replaced by the next one when it is closed."""
    content.put(static("first", load_priority=9, **ONCE), static("second", load_priority=1))
    client = await content.app.start()
    block = await content.block()
    await client.close_content_block("top", block)
    assert (block.id, await content.shown()) == ("first", "second")


async def unknown_url(content: ContentBlocksFixture) -> None:
    """A URL that no action has is tracked as an error."""
    content.put(static())
    client = await content.app.start()
    assert await client.click_content_block("top", await content.block(), "https://other.example") is None
    event = await content.last_event()
    assert (event.own["action"], event.own["error"]) == ("error", "Invalid action definition")


async def blank_page(content: ContentBlocksFixture) -> None:
    """The blank page that a frame opens by itself is not a click."""
    content.put(static())
    client = await content.app.start()
    assert await client.click_content_block("top", await content.block(), "about:blank") is None
    assert await content.events() == [("show", "s1")]


async def stopped(content: ContentBlocksFixture) -> None:
    """After a stop no block is shown, even for calls that were made before."""
    content.put(static())
    provider = BlockingTokenProvider(free=0)
    client = await content.app.start(customer_token_provider=provider)
    call = asyncio.create_task(client.content_block("top"))
    await provider.blocks()
    await client.stop_integration(everyone=True)
    provider.unblock()
    assert await call is None
    assert await client.content_block("top") is None
    assert content.requests() == []


async def placeholders(content: ContentBlocksFixture) -> None:
    """A block with the placeholders a and b is shown in these, and not in c."""
    content.put(static(placeholders=("a", "b")))
    await content.app.start()
    assert [await content.shown(each) for each in "abc"] == ["s1", "s1", None]


async def missing_in_the_response(content: ContentBlocksFixture) -> None:
    """A block that is missing in the response keeps its previous data."""
    content.put(personal("a", load_priority=9, data={"ttl_seconds": 0}), personal("b", data={"ttl_seconds": 0}))
    await content.app.start()
    before = await content.block()
    content.sandbox.messages.set_response("inappcontentblocks", '{"success": true, "data": []}')
    assert (await content.block()).personalized_data == before.personalized_data


async def carousel_names(content: ContentBlocksFixture) -> None:
    """In a carousel blocks with the same priority are in the order of their names, case-insensitively."""
    content.put(static("b", name="beta"), static("a", name="Alpha"))
    await content.app.start()
    async with content.client.content_block_carousel("top") as carousel:
        assert [each.name for each in carousel.blocks] == ["Alpha", "beta"]


async def carousel_priorities(content: ContentBlocksFixture) -> None:
    """In a carousel the priority 9 comes before 1."""
    content.put(static("one", load_priority=1), static("nine", load_priority=9))
    await content.app.start()
    async with content.client.content_block_carousel("top") as carousel:
        assert [each.id for each in carousel.blocks] == ["nine", "one"]


async def carousel_limit(content: ContentBlocksFixture) -> None:
    """A carousel of at most 2 blocks has the first 2 of 5."""
    content.put(*(static(name, load_priority=place) for place, name in enumerate("abcde")))
    await content.app.start()
    async with content.client.content_block_carousel("top", max_messages_count=2) as carousel:
        assert [each.id for each in carousel.blocks] == ["e", "d"]


async def carousel_filter_raises(content: ContentBlocksFixture) -> None:
    """A filter that raises is ignored."""
    content.put(static("a"), static("b"))
    await content.app.start()

    def broken(blocks: Any) -> Any:
        raise ValueError(blocks)

    async with content.client.content_block_carousel("top", filter_content_blocks=broken) as carousel:
        assert [each.id for each in carousel.blocks] == ["a", "b"]


async def carousel_rotation(content: ContentBlocksFixture) -> None:
    """A block is shown in each rotation, and tracked as shown in the first."""
    content.put(static("a"), static("b"))
    await content.app.start()
    async with content.client.content_block_carousel("top", scroll_delay=0) as carousel:
        changes = carousel.changes()
        await carousel.next()
        await carousel.next()
    assert [each.block.id async for each in changes if each.type == "show" and each.block] == ["a", "b", "a"]
    assert await content.events() == [("show", "a"), ("show", "b")]


async def carousel_close_once(content: ContentBlocksFixture) -> None:
    """A block that is shown until an interaction leaves when it is closed."""
    content.put(static("a", **ONCE), static("b", **ONCE))
    await content.app.start()
    async with content.client.content_block_carousel("top", scroll_delay=0) as carousel:
        changes, first = carousel.changes(), carousel.blocks[0]
        await carousel.close(first)
        assert [each.id for each in carousel.blocks] == ["b"]
    assert [each.count async for each in changes if each.type == "messages"] == [2, 1]


async def carousel_close_always(content: ContentBlocksFixture) -> None:
    """A block that is always shown stays when it is closed."""
    content.put(static("a", frequency="always"), static("b"))
    await content.app.start()
    async with content.client.content_block_carousel("top", scroll_delay=0) as carousel:
        await carousel.close(carousel.blocks[0])
        assert (carousel.count, carousel.index) == (2, 0)
    assert await content.events() == [("show", "a"), ("close", "a")]


async def carousel_untracked(content: ContentBlocksFixture) -> None:
    """Without track_actions clicks and closes are not tracked, but shown blocks are."""
    content.put(static("a"))
    await content.app.start()
    async with content.client.content_block_carousel("top", track_actions=False) as carousel:
        assert await carousel.click(carousel.blocks[0], ACTION) == LINK
        await carousel.close(carousel.blocks[0])
    assert await content.events() == [("show", "a")]


async def carousel_stopped(content: ContentBlocksFixture) -> None:
    """Stopping the integration empties a carousel, which publishes that."""
    content.put(static("a"))
    client = await content.app.start()
    async with client.content_block_carousel("top") as carousel:
        changes = carousel.changes()
        await client.stop_integration(everyone=True)
        assert (carousel.blocks, carousel.index, carousel.count) == ((), -1, 0)
        assert await carousel.next() is None
    published = [(each.type, each.count) async for each in changes]
    assert published == [("messages", 1), ("show", 1), ("messages", 0), ("empty", 0)]


@pytest.mark.parametrize(
    "scenario",
    [
        pytest.param(static_block, id="C01"),
        pytest.param(no_data, id="C02"),
        pytest.param(still_fresh, id="C03"),
        pytest.param(stale, id="C04"),
        pytest.param(no_time_to_live, id="C05"),
        pytest.param(content_types, id="C06"),
        pytest.param(preloaded, id="C07"),
        pytest.param(no_preload, id="C08"),
        pytest.param(other_statuses, id="C09"),
        pytest.param(priorities, id="C10"),
        pytest.param(empty_html, id="C11"),
        pytest.param(identify_while_shown, id="C12"),
        pytest.param(events_of_the_previous_customer, id="C13"),
        pytest.param(no_consent, id="C14"),
        pytest.param(forced, id="C15"),
        pytest.param(close_and_next, id="C16"),
        pytest.param(unknown_url, id="C17"),
        pytest.param(blank_page, id="C18"),
        pytest.param(stopped, id="C19"),
        pytest.param(placeholders, id="C20"),
        pytest.param(missing_in_the_response, id="C21"),
        pytest.param(carousel_names, id="C22"),
        pytest.param(carousel_priorities, id="C23"),
        pytest.param(carousel_limit, id="C24"),
        pytest.param(carousel_filter_raises, id="C25"),
        pytest.param(carousel_rotation, id="C26"),
        pytest.param(carousel_close_once, id="C27"),
        pytest.param(carousel_close_always, id="C28"),
        pytest.param(carousel_untracked, id="C29"),
        pytest.param(carousel_stopped, id="C30"),
    ],
)
async def test_vector(content: ContentBlocksFixture, scenario: Scenario) -> None:
    """Each numbered scenario has the specified outcome."""
    await scenario(content)
