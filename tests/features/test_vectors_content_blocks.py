"""
Content blocks by numbered scenarios, on which the platforms agree or one of them was chosen.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from attrs import evolve
from blocks_world import FORCED, LINK, Gate, World, personal, static
from helpers.app import Phone

from exponea_async import Customer
from exponea_async.features.content_blocks.parsing import is_fresh, read_definition, status_of
from exponea_async.messages import InAppContentBlockAction
from exponea_async.sandbox import Sandbox

Scenario = Callable[[World], Awaitable[None]]
CLICK = InAppContentBlockAction("BROWSER", "Sale", LINK)
ONCE: dict[str, Any] = {"frequency": "until_visitor_interacts"}
SILENT: dict[str, Any] = {"has_tracking_consent": False}


@pytest.fixture
def world(phone: Phone, sandbox: Sandbox) -> World:
    return World(phone, sandbox)


async def static_block(world: World) -> None:
    """A block of HTML of its own holds for ever, is all right, and is never asked for."""
    world.put(static())
    await world.phone.start()
    block = await world.block()
    world.phone.now += 20 * 60
    assert (await world.block()).html == block.html
    assert world.asked() == ["bundle"]
    definition = read_definition(static())
    assert is_fresh(definition, None, 10e10)
    assert status_of(definition, None) == "OK"


async def no_data(world: World) -> None:
    """A personalised block of which nothing was loaded is not fresh, and its status is not known."""
    definition = read_definition({"id": "p", "name": "p", "placeholders": []})
    assert not is_fresh(definition, None, 0.0)
    assert status_of(definition, None) == "unknown"


async def still_fresh(world: World) -> None:
    """What holds for 30 seconds is not loaded again after 29."""
    world.put(personal(says={"ttl_seconds": 30}))
    await world.phone.start()
    await world.block()
    world.phone.now += 29
    await world.block()
    assert world.asked() == ["bundle", "p1"]


async def stale(world: World) -> None:
    """What holds for 30 seconds is loaded again after 31."""
    world.put(personal(says={"ttl_seconds": 30}))
    await world.phone.start()
    await world.block()
    world.phone.now += 31
    await world.block()
    assert world.asked() == ["bundle", "p1", "p1"]


async def no_time_to_live(world: World) -> None:
    """What holds for no time is loaded each time, and shown all the same."""
    world.put(personal(says={"ttl_seconds": None}), check=False)
    await world.phone.start()
    await world.block()
    world.phone.now += 1
    await world.block()
    assert world.asked() == ["bundle", "p1", "p1"]


async def types_of_content(world: World) -> None:
    """Of html, native, none and foo only html and none are kept."""
    blocks = [static("html"), static("native", content_type="native"), static("foo", content_type="foo")]
    world.put(*blocks, personal("none"))
    await world.phone.start()
    await world.block()
    (kept,) = world.part.blocks.loads._bundles.values()
    assert {each.id for each in kept.of("top")} == {"html", "none"}


async def loaded_ahead(world: World) -> None:
    """With one placeholder to be loaded ahead, only its blocks are asked for."""
    world.put(personal("a", placeholders=("p1",)), personal("b", placeholders=("p2",)))
    client = await world.phone.start(in_app_content_block_placeholders_auto_load=["p1"])
    await client.get_customer_cookie()
    await world.idle()
    assert world.asked() == ["bundle", "a"]


async def nothing_ahead(world: World) -> None:
    """With none to be loaded ahead, nothing is asked at all."""
    world.put(personal())
    await (await world.phone.start()).get_customer_cookie()
    await world.idle()
    assert world.asked() == []


async def other_statuses(world: World) -> None:
    """What was not matched or does not exist is never shown."""
    world.put(personal("a", says={"status": "filter_not_matched"}), personal("b", says={"status": "does_not_exist"}))
    await world.phone.start()
    assert await world.shown() is None
    assert await world.told() == []


async def priorities(world: World) -> None:
    """Of priorities 0, none and 5 that of 5 is chosen."""
    world.put(static("zero", load_priority=0), static("none"), static("five", load_priority=5))
    await world.phone.start()
    assert [await world.shown() for _ in range(5)] == ["five"] * 5


async def empty_html(world: World) -> None:
    """A block without HTML is handed out with nothing to render, and tracked as shown."""
    world.put(personal(html=""))
    await world.phone.start()
    block = await world.block()
    assert (block.html, block.actions) == (None, ())
    assert await world.told() == [("show", "p1")]


async def identify_while_shown(world: World) -> None:
    """A block that is shown keeps its data and ids; what is kept for the next call is forgotten."""
    world.put(personal())
    client = await world.phone.start()
    block = await world.block()
    before = evolve(block)
    await client.identify_customer(Customer({"registered": "jane"}))
    await world.idle()
    assert block == before
    assert len(world.customers) == 0


async def told_of_the_old_one(world: World) -> None:
    """What happens to a block that is shown is told of the customer that it was loaded for, who was pressed or not."""
    world.put(personal(**ONCE))
    client = await world.phone.start()
    cookie, block = await client.get_customer_cookie(), await world.block()
    await client.identify_customer(Customer({"registered": "jane"}))
    await client.track_in_app_content_block_shown("top", block)
    assert (await world.last()).ids == {"cookie": cookie}
    await client.click_content_block("top", block, LINK)
    assert (await world.last()).ids == {"cookie": cookie}
    # Jane has not done anything with it.
    assert await world.shown() == "p1"


async def no_consent(world: World) -> None:
    """A click without consent is not kept."""
    world.put(personal(says=SILENT))
    client = await world.phone.start()
    assert await client.click_content_block("top", await world.block(), LINK) == LINK
    assert await world.told() == []


async def forced(world: World) -> None:
    """A click without consent on a link that forces tracking is kept, and says so."""
    world.put(personal(says=SILENT))
    client = await world.phone.start()
    assert await client.click_content_block("top", await world.block(), FORCED) == FORCED
    assert await world.told() == [("click", "p1")]
    assert (await world.last()).own["tracking_forced"] is True


async def close_and_next(world: World) -> None:
    """A block that is shown until somebody interacts makes way when it is closed."""
    world.put(static("first", load_priority=9, **ONCE), static("second", load_priority=1))
    client = await world.phone.start()
    block = await world.block()
    await client.close_content_block("top", block)
    assert (block.id, await world.shown()) == ("first", "second")


async def unknown_address(world: World) -> None:
    """An address that is not among the actions is an error."""
    world.put(static())
    client = await world.phone.start()
    assert await client.click_content_block("top", await world.block(), "https://other.example") is None
    event = await world.last()
    assert (event.own["action"], event.own["error"]) == ("error", "Invalid action definition")


async def blank_page(world: World) -> None:
    """The blank page that a frame opens by itself is nobody's press."""
    world.put(static())
    client = await world.phone.start()
    assert await client.click_content_block("top", await world.block(), "about:blank") is None
    assert await world.told() == [("show", "s1")]


async def stopped(world: World) -> None:
    """There are no blocks after a stop, nor for who asked before it."""
    world.put(static())
    gate = Gate(free=0)
    client = await world.phone.start(customer_token_provider=gate)
    asking = asyncio.create_task(client.content_block("top"))
    await gate.reached()
    await client.stop_integration()
    gate.open()
    assert await asking is None
    assert await client.content_block("top") is None
    assert world.asked() == []


async def placeholders(world: World) -> None:
    """A block of placeholders a and b is found for these, and not for c."""
    world.put(static(placeholders=("a", "b")))
    await world.phone.start()
    assert [await world.shown(each) for each in "abc"] == ["s1", "s1", None]


async def missing_in_the_answer(world: World) -> None:
    """A block that the answer leaves out keeps what it said before."""
    world.put(personal("a", load_priority=9, says={"ttl_seconds": 0}), personal("b", says={"ttl_seconds": 0}))
    await world.phone.start()
    before = await world.block()
    world.sandbox.messages.set_response("inappcontentblocks", '{"success": true, "data": []}')
    assert (await world.block()).personalized_data == before.personalized_data


async def carousel_names(world: World) -> None:
    """In a carousel those of one priority come by name, whatever the case."""
    world.put(static("b", name="beta"), static("a", name="Alpha"))
    await world.phone.start()
    async with world.client.content_block_carousel("top") as carousel:
        assert [each.name for each in carousel.blocks] == ["Alpha", "beta"]


async def carousel_priorities(world: World) -> None:
    """In a carousel 9 comes before 1."""
    world.put(static("one", load_priority=1), static("nine", load_priority=9))
    await world.phone.start()
    async with world.client.content_block_carousel("top") as carousel:
        assert [each.id for each in carousel.blocks] == ["nine", "one"]


async def carousel_limit(world: World) -> None:
    """A carousel of at most 2 takes the first of 5."""
    world.put(*(static(name, load_priority=place) for place, name in enumerate("abcde")))
    await world.phone.start()
    async with world.client.content_block_carousel("top", max_messages_count=2) as carousel:
        assert [each.id for each in carousel.blocks] == ["e", "d"]


async def carousel_filter_raises(world: World) -> None:
    """A filter that raises filters nothing."""
    world.put(static("a"), static("b"))
    await world.phone.start()

    def broken(blocks: Any) -> Any:
        raise ValueError(blocks)

    async with world.client.content_block_carousel("top", filter_content_blocks=broken) as carousel:
        assert [each.id for each in carousel.blocks] == ["a", "b"]


async def carousel_round(world: World) -> None:
    """A block has its turn in each round, and is tracked as shown in the first."""
    world.put(static("a"), static("b"))
    await world.phone.start()
    async with world.client.content_block_carousel("top", scroll_delay=0) as carousel:
        changes = carousel.changes()
        await carousel.next()
        await carousel.next()
    assert [each.block.id async for each in changes if each.type == "show" and each.block] == ["a", "b", "a"]
    assert await world.told() == [("show", "a"), ("show", "b")]


async def carousel_close_once(world: World) -> None:
    """A block that is shown until somebody interacts leaves when it is closed."""
    world.put(static("a", **ONCE), static("b", **ONCE))
    await world.phone.start()
    async with world.client.content_block_carousel("top", scroll_delay=0) as carousel:
        changes, first = carousel.changes(), carousel.blocks[0]
        await carousel.close(first)
        assert [each.id for each in carousel.blocks] == ["b"]
    assert [each.count async for each in changes if each.type == "messages"] == [2, 1]


async def carousel_close_always(world: World) -> None:
    """A block that is always shown stays when it is closed."""
    world.put(static("a", frequency="always"), static("b"))
    await world.phone.start()
    async with world.client.content_block_carousel("top", scroll_delay=0) as carousel:
        await carousel.close(carousel.blocks[0])
        assert (carousel.count, carousel.index) == (2, 0)
    assert await world.told() == [("show", "a"), ("close", "a")]


async def carousel_untracked(world: World) -> None:
    """With track_actions off neither clicks nor closes are tracked, but what is shown is."""
    world.put(static("a"))
    await world.phone.start()
    async with world.client.content_block_carousel("top", track_actions=False) as carousel:
        assert await carousel.click(carousel.blocks[0], CLICK) == LINK
        await carousel.close(carousel.blocks[0])
    assert await world.told() == [("show", "a")]


async def carousel_stopped(world: World) -> None:
    """A stop empties a carousel, which says so."""
    world.put(static("a"))
    client = await world.phone.start()
    async with client.content_block_carousel("top") as carousel:
        changes = carousel.changes()
        await client.stop_integration()
        assert (carousel.blocks, carousel.index, carousel.count) == ((), -1, 0)
        assert await carousel.next() is None
    told = [(each.type, each.count) async for each in changes]
    assert told == [("messages", 1), ("show", 1), ("messages", 0), ("empty", 0)]


@pytest.mark.parametrize(
    "scenario",
    [
        pytest.param(static_block, id="C01"),
        pytest.param(no_data, id="C02"),
        pytest.param(still_fresh, id="C03"),
        pytest.param(stale, id="C04"),
        pytest.param(no_time_to_live, id="C05"),
        pytest.param(types_of_content, id="C06"),
        pytest.param(loaded_ahead, id="C07"),
        pytest.param(nothing_ahead, id="C08"),
        pytest.param(other_statuses, id="C09"),
        pytest.param(priorities, id="C10"),
        pytest.param(empty_html, id="C11"),
        pytest.param(identify_while_shown, id="C12"),
        pytest.param(told_of_the_old_one, id="C13"),
        pytest.param(no_consent, id="C14"),
        pytest.param(forced, id="C15"),
        pytest.param(close_and_next, id="C16"),
        pytest.param(unknown_address, id="C17"),
        pytest.param(blank_page, id="C18"),
        pytest.param(stopped, id="C19"),
        pytest.param(placeholders, id="C20"),
        pytest.param(missing_in_the_answer, id="C21"),
        pytest.param(carousel_names, id="C22"),
        pytest.param(carousel_priorities, id="C23"),
        pytest.param(carousel_limit, id="C24"),
        pytest.param(carousel_filter_raises, id="C25"),
        pytest.param(carousel_round, id="C26"),
        pytest.param(carousel_close_once, id="C27"),
        pytest.param(carousel_close_always, id="C28"),
        pytest.param(carousel_untracked, id="C29"),
        pytest.param(carousel_stopped, id="C30"),
    ],
)
async def test_vector(world: World, scenario: Scenario) -> None:
    """A scenario, which its function tells, comes out as it should."""
    await scenario(world)
