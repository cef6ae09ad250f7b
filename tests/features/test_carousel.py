"""
Carousels: whose turn it is, what is tracked, and who leaves.
"""

import asyncio
from itertools import pairwise
from typing import Any

import pytest
from blocks_world import BUNDLE, FORCED, LINK, Gate, World, personal, static
from helpers.app import Phone

from exponea_async import Customer, Event, Hooks, InvalidEventError
from exponea_async._internal.streams import Subscription
from exponea_async.features.content_blocks.carousel import Carousel, CarouselChange
from exponea_async.messages import InAppContentBlock
from exponea_async.sandbox import Sandbox

ONCE: dict[str, Any] = {"frequency": "until_visitor_interacts"}


@pytest.fixture
def world(phone: Phone, sandbox: Sandbox) -> World:
    return World(phone, sandbox)


def ids(carousel: Carousel) -> str:
    """Tell the ids of the blocks in a carousel, in order."""
    return " ".join(each.id for each in carousel.blocks)


async def taken(carousel: Carousel, count: int) -> list[str]:
    """Take as many turns."""
    found: list[str] = []
    async with asyncio.timeout(20):
        async for block in carousel:
            found.append(block.id)
            if len(found) == count:
                break
    return found


async def told(listener: Subscription[CarouselChange]) -> list[str]:
    """Tell in words what a listener heard, until the end."""
    return [
        each.type if each.type in ("messages", "empty") else f"{each.type} {each.block and each.block.id}"
        async for each in listener
    ]


class TestTurns:
    async def test_round_and_round(self, world: World) -> None:
        """Each block has its turn, and after the last one comes the first."""
        world.put(*(static(name) for name in "abc"))
        await world.phone.start()
        async with world.client.content_block_carousel("top", scroll_delay=0.001) as carousel:
            assert await taken(carousel, 7) == list("abcabca")
        assert await world.told() == [("show", name) for name in "abc"]

    async def test_without_a_reload(self, world: World) -> None:
        """A loop over a carousel that was not loaded loads it."""
        world.put(static("a"))
        await world.phone.start()
        carousel = world.client.content_block_carousel("top")
        assert (carousel.blocks, carousel.index, carousel.count, carousel.block) == ((), -1, 0, None)
        assert await taken(carousel, 1) == ["a"]
        assert (carousel.index, carousel.count) == (0, 1)

    async def test_nothing_to_show(self, world: World) -> None:
        """Where there is nothing to show a loop ends at once."""
        await world.phone.start()
        async with world.client.content_block_carousel("top") as carousel:
            changes = carousel.changes()
            assert [each async for each in carousel] == []
            assert await carousel.next() is None
        assert await told(changes) == ["messages", "empty"]

    @pytest.mark.parametrize("delay", [0, -1])
    async def test_by_hand(self, world: World, delay: float) -> None:
        """Without a delay nothing moves but by hand, and whoever listens to the turns follows."""
        world.put(static("a"), static("b"))
        await world.phone.start()
        async with world.client.content_block_carousel("top", scroll_delay=delay) as carousel:
            turns = aiter(carousel)
            assert (await anext(turns)).id == "a"
            waiting = asyncio.ensure_future(anext(turns))
            await asyncio.sleep(0.01)
            assert not waiting.done()
            moved = await carousel.next()
            assert (await waiting) is moved
            assert moved is not None
            assert (moved.id, carousel.index) == ("b", 1)

    async def test_one_block(self, world: World) -> None:
        """A single block is not told again and again."""
        world.put(static("a"))
        await world.phone.start()
        async with world.client.content_block_carousel("top", scroll_delay=0.001) as carousel:
            turns = aiter(carousel)
            await anext(turns)
            waiting = asyncio.ensure_future(anext(turns))
            await asyncio.sleep(0.02)
            assert not waiting.done()
            await carousel.aclose()
            with pytest.raises(StopAsyncIteration):
                await waiting

    async def test_a_reload(self, world: World) -> None:
        """A reload sees what is new, begins with the first, and tracks anew what is shown."""
        world.put(static("a"), static("b"))
        await world.phone.start()
        async with world.client.content_block_carousel("top", scroll_delay=0) as carousel:
            await carousel.next()
            first = await carousel.reload()
            assert first is not None
            assert (first.id, carousel.index) == ("a", 0)
        assert await world.told() == [("show", "a"), ("show", "b"), ("show", "a")]

    async def test_two_loops(self, world: World) -> None:
        """Two who listen to the turns of one carousel are told the same."""
        world.put(static("a"), static("b"))
        await world.phone.start()
        async with world.client.content_block_carousel("top", scroll_delay=0.005) as carousel:
            one, two = await asyncio.gather(taken(carousel, 4), taken(carousel, 4))
        assert one[0] == two[0] == "a"
        assert all(here != there for turns in (one, two) for here, there in pairwise(turns))


class TestWhatIsInIt:
    async def test_all_is_loaded_in_one(self, world: World) -> None:
        """All content is loaded in one request, also of what may not be shown now."""
        late: dict[str, Any] = {"date_filter": {"enabled": True, "from_date": 2000}}
        world.put(personal("a"), personal("b", **late), personal("c", says={"status": "filter_not_matched"}), static())
        await world.phone.start()
        async with world.client.content_block_carousel("top") as carousel:
            assert ids(carousel) == "a s1"
        assert world.asked() == ["bundle", "a b c"]

    @pytest.mark.parametrize(
        ("sort", "order"),
        [
            (None, "c a b"),
            (lambda blocks: blocks, "c a b"),
            (list, "c a b"),
            (lambda blocks: sorted(blocks, key=lambda each: each.id, reverse=True), "c b a"),
            (lambda blocks: blocks.sort(key=lambda each: each.id) or blocks, "a b c"),
            (lambda blocks: blocks[9].id, "a b c"),
            (lambda blocks: None, "a b c"),
            (lambda blocks: [blocks[1], "made up"], "a"),
        ],
    )
    async def test_an_order_of_the_hosts(self, world: World, sort: Any, order: str) -> None:
        """The host's order counts, and the usual one where it changes nothing; who raises leaves it as it came."""
        world.put(static("a"), static("b"), static("c", load_priority=3))
        await world.phone.start()
        async with world.client.content_block_carousel("top", sort_content_blocks=sort) as carousel:
            assert ids(carousel) == order

    async def test_a_filter_of_the_hosts(self, world: World) -> None:
        """The host sees what is to be shown, and leaves out what it wants, before it is limited and sorted."""
        world.put(*(static(name) for name in "abcd"))
        await world.phone.start()
        seen: list[Any] = []

        def leave_out(blocks: list[InAppContentBlock]) -> Any:
            seen.extend(each.html is not None for each in blocks)
            return (each for each in blocks if each.id != "b")

        carousel = world.client.content_block_carousel("top", 2, filter_content_blocks=leave_out)
        await carousel.reload()
        assert (ids(carousel), seen) == ("a c", [True] * 4)

    async def test_broken_html(self, world: World) -> None:
        """A block whose HTML can't be shown is an error and left out; one without HTML is in it."""
        world.put(static("a", html="<script>x</script>"), static("b", html=""), static("c"))
        await world.phone.start()
        async with world.client.content_block_carousel("top", 2) as carousel:
            changes = carousel.changes()
            assert ids(carousel) == "b c"
        assert await world.told() == [("error", "a"), ("show", "b")]
        assert await told(changes) == ["error a", "messages", "show b"]

    @pytest.mark.parametrize("numbers", [("2", 3.0), (2.5, 3.0), (0, "3"), (0, True), (0, float("nan"))])
    async def test_no_numbers(self, world: World, numbers: tuple[Any, Any]) -> None:
        """What is no number is refused."""
        client = await world.phone.start()
        with pytest.raises(InvalidEventError):
            client.content_block_carousel("top", *numbers)

    async def test_a_bad_day(self, world: World) -> None:
        """Where nothing can be loaded there is nothing to show."""
        world.put(static())
        world.break_down(BUNDLE, status=403)
        await world.phone.start()
        async with world.client.content_block_carousel("top") as carousel:
            assert carousel.count == 0


class TestPresses:
    async def test_a_click(self, world: World) -> None:
        """A click is tracked and gives the link; the block stays if it may be shown again."""
        world.put(static("a"), static("b"))
        await world.phone.start()
        async with world.client.content_block_carousel("top", scroll_delay=0) as carousel:
            changes = carousel.changes()
            assert await carousel.click(carousel.blocks[0], LINK) == LINK
            assert carousel.count == 2
        assert await told(changes) == ["messages", "show a", "click a"]
        assert await world.told() == [("show", "a"), ("click", "a")]

    async def test_the_rotation_rests(self, world: World) -> None:
        """After a click nothing moves until it is resumed."""
        world.put(static("a"), static("b"))
        await world.phone.start()
        async with world.client.content_block_carousel("top", scroll_delay=0.001) as carousel:
            turns = aiter(carousel)
            block = await anext(turns)
            await carousel.click(block, LINK)
            waiting = asyncio.ensure_future(anext(turns))
            await asyncio.sleep(0.02)
            assert not waiting.done()
            carousel.resume()
            assert (await waiting).id == "b"

    async def test_a_host_that_opens_by_itself(self, world: World) -> None:
        """With override_default_behavior no link is given, and the click is tracked all the same."""
        world.put(static("a"))
        await world.phone.start()
        async with world.client.content_block_carousel("top", override_default_behavior=True) as carousel:
            assert await carousel.click(carousel.blocks[0], FORCED) is None
        assert await world.told() == [("show", "a"), ("click", "a")]

    async def test_other_presses(self, world: World) -> None:
        """A button to close closes, an unknown address is an error, and a blank page is nothing."""
        world.put(static("a"))
        await world.phone.start()
        async with world.client.content_block_carousel("top") as carousel:
            changes, block = carousel.changes(), carousel.blocks[0]
            assert await carousel.click(block, "about:blank") is None
            assert await carousel.click(block, "https://other.example") is None
            assert await carousel.click(block, block.actions[2]) is None
        assert await told(changes) == ["messages", "show a", "error a", "close a"]
        assert await world.told() == [("show", "a"), ("error", "a"), ("close", "a")]

    @pytest.mark.parametrize("tracks", [True, False])
    async def test_it_is_remembered(self, world: World, tracks: bool) -> None:  # noqa: FBT001
        """What was pressed is remembered, tracked or not."""
        world.put(static("a", **ONCE), static("b", **ONCE))
        await world.phone.start()
        async with world.client.content_block_carousel("top", track_actions=tracks) as carousel:
            await carousel.click(carousel.blocks[0], LINK)
            await carousel.close(carousel.blocks[0])
            assert carousel.count == 0
            assert await carousel.reload() is None
        assert await world.shown() is None

    @pytest.mark.parametrize(
        ("steps", "closed", "index", "turns"),
        [
            (0, "a", 0, ["show b"]),
            (1, "b", 0, ["show a"]),
            (2, "c", 1, ["show b"]),
            (1, "a", 0, []),
            (1, "c", 1, []),
        ],
    )
    async def test_who_is_next(self, world: World, steps: int, closed: str, index: int, turns: list[str]) -> None:
        """When the present block leaves, the one before it has its turn; when another does, the present one stays."""
        world.put(*(static(name, **ONCE) for name in "abc"))
        await world.phone.start()
        async with world.client.content_block_carousel("top", scroll_delay=0) as carousel:
            for _ in range(steps):
                await carousel.next()
            changes = carousel.changes()
            while changes._pending:
                await anext(changes)
            await carousel.close(next(each for each in carousel.blocks if each.id == closed))
            assert (carousel.count, carousel.index) == (2, index)
        assert await told(changes) == [f"close {closed}", "messages", *turns]

    async def test_a_block_that_left(self, world: World) -> None:
        """Closing a block twice, or one of another placeholder, takes no other away."""
        world.put(static("a", **ONCE), static("b", **ONCE), static("else", placeholders=("side",), **ONCE))
        await world.phone.start()
        other = await world.block("side")
        async with world.client.content_block_carousel("top") as carousel:
            first = carousel.blocks[0]
            for block in (first, first, other):
                await carousel.close(block)
            assert ids(carousel) == "b"

    async def test_closing_the_last_one_ends_the_loop(self, world: World) -> None:
        """Once all blocks have left, a loop ends."""
        world.put(static("a", **ONCE), static("b", **ONCE))
        await world.phone.start()
        found = []
        async with asyncio.timeout(20), world.client.content_block_carousel("top") as carousel:
            async for block in carousel:
                found.append(block.id)
                await carousel.close(block)
        assert found == ["a", "b"]


class TestWhose:
    async def test_a_customer(self, world: World) -> None:
        """For a customer tracker a carousel remembers by itself, as long as it lives."""
        world.put(static("a", **ONCE), static("b", frequency="only_once"))
        client = await world.phone.start()
        jane = client.for_customer({"registered": "jane"})
        async with jane.content_block_carousel("top", scroll_delay=0) as carousel:
            await carousel.next()
            await carousel.close(carousel.blocks[0])
            assert ids(carousel) == "b"
            assert await carousel.reload() is None
        async with jane.content_block_carousel("top") as carousel:
            assert ids(carousel) == "a b"
        assert {str(each.ids) for each in await world.phone.kept("banner")} == {"{'registered': 'jane'}"}

    async def test_another_customer(self, world: World) -> None:
        """Whoever the device is now gets nothing that was loaded for who it was."""
        world.put(personal("a"), personal("b"))
        client = await world.phone.start()
        async with client.content_block_carousel("top", scroll_delay=0) as carousel:
            await client.identify_customer(Customer({"registered": "jane"}))
            block = await carousel.next()
            assert block is not None
            assert (block.id, block.customer_ids["registered"]) == ("a", "jane")
        shows = [each.ids.get("registered") for each in await world.phone.kept("banner")]
        assert shows == [None, "jane"]

    async def test_another_customer_at_the_last_moment(self, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
        """Also who has become another one just before a block is tracked gets what is for the new one."""
        world.put(personal("a"), personal("b"))
        client = await world.phone.start()
        async with client.content_block_carousel("top", scroll_delay=0) as carousel:
            choose = world.part.blocks.choices

            async def choices(*args: Any, **options: Any) -> Any:
                found = await choose(*args, **options)
                if len(names) > 0:
                    await client.identify_customer(Customer({"registered": names.pop()}))
                return found

            async def is_present(*_: Any) -> bool:
                return True

            names = ["bob"]
            monkeypatch.setattr(world.part.blocks, "choices", choices)
            monkeypatch.setattr(world.part.blocks, "is_present", is_present)
            await client.identify_customer(Customer({"registered": "jane"}))
            block = await carousel.next()
            assert block is not None
            assert (block.id, block.customer_ids["registered"]) == ("a", "bob")
        assert [each.ids.get("registered") for each in await world.phone.kept("banner")] == [None, "bob"]

    @pytest.mark.parametrize("act", ["reload", "next"])
    async def test_many_changes_at_once(self, world: World, act: str) -> None:
        """However customers and turns cross each other, each is tracked as shown what was loaded for this one."""
        world.put(*(personal(name) for name in "abc"))
        client = await world.phone.start()
        carousel = client.content_block_carousel("top", scroll_delay=0)
        for number in range(20):
            block, _ = await asyncio.gather(
                getattr(carousel, act)(), client.identify_customer(Customer({"registered": str(number)}))
            )
            assert block is not None
            last = (await world.phone.kept("banner"))[-1]
            assert last.ids == block.customer_ids

    async def test_who_is_bound(self, world: World) -> None:
        """A carousel is about who was current when it was made."""
        world.put(static("a"))
        client = await world.phone.start()
        with client.bind(client.for_customer({"registered": "jane"})):
            carousel = client.content_block_carousel("top")
        await carousel.reload()
        assert (await world.last()).ids == {"registered": "jane"}


class TestItsEnd:
    async def test_a_stop(self, world: World) -> None:
        """A stop ends a loop, whoever waits in it; after a new start a carousel can be loaded again."""
        world.put(static("a"), static("b"))
        client = await world.phone.start()
        carousel = client.content_block_carousel("top", scroll_delay=0)
        turns = aiter(carousel)
        assert (await anext(turns)).id == "a"
        waiting = asyncio.ensure_future(anext(turns))
        await asyncio.sleep(0)
        await client.stop_integration()
        with pytest.raises(StopAsyncIteration):
            await asyncio.wait_for(waiting, 20)
        assert await carousel.reload() is None
        assert await carousel.click(static_block(), LINK) is None
        await carousel.close(static_block())
        await client.start()
        assert await taken(carousel, 1) == ["a"]

    async def test_the_clients_end(self, world: World) -> None:
        """Loops and streams of changes end with the client."""
        world.put(static("a"), static("b"))
        client = await world.phone.start()
        carousel = client.content_block_carousel("top", scroll_delay=0)
        changes = carousel.changes()
        turns = aiter(carousel)
        assert (await anext(turns)).id == "a"
        waiting = asyncio.ensure_future(anext(turns))
        await asyncio.sleep(0)
        await client.aclose(timeout=0)
        with pytest.raises(StopAsyncIteration):
            await asyncio.wait_for(waiting, 20)
        assert await told(changes) == ["messages", "show a"]

    async def test_a_stop_while_it_loads(self, world: World) -> None:
        """What is loaded while the integration is stopped is not in it."""
        world.put(static("a"))
        gate = Gate(free=0)
        client = await world.phone.start(customer_token_provider=gate)
        carousel = client.content_block_carousel("top")
        loading = asyncio.create_task(carousel.reload())
        await gate.reached()
        await client.stop_integration()
        assert await loading is None
        assert (carousel.count, carousel.index) == (0, -1)

    async def test_a_stop_while_it_tracks(self, world: World) -> None:
        """A block that was being tracked as shown while all is taken out has no turn."""
        world.put(static("a"), static("b"))

        def stop(event: Event) -> Event:
            if event.properties.get("banner_id") == "b":
                carousel.clear()
            return event

        client = await world.phone.start(hooks=Hooks(before_track=stop))
        carousel = client.content_block_carousel("top")
        await carousel.reload()
        assert await carousel.next() is None
        assert (carousel.count, carousel.block) == (0, None)

    async def test_a_press_before_it_was_loaded(self, world: World) -> None:
        """A block of before is told of, though the carousel does not know it."""
        world.put(static("a"))
        client = await world.phone.start()
        block = await world.block()
        carousel = client.content_block_carousel("top")
        assert await carousel.click(block, LINK) == LINK
        await carousel.close(block)
        assert await world.told() == [("show", "a"), ("click", "a"), ("close", "a")]

    async def test_it_is_let_go(self, world: World) -> None:
        """A carousel that nobody holds is forgotten."""
        client = await world.phone.start()
        client.content_block_carousel("top")
        assert len(world.part.carousels) == 0


def static_block() -> InAppContentBlock:
    """Make a block by hand."""
    return InAppContentBlock(id="a", name="a", content_type="html")
