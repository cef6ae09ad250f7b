"""
Carousels: their blocks, the rotation, clicks and events.
"""

import asyncio
from itertools import pairwise
from typing import Any

import pytest
from helpers.app import App
from helpers.content_blocks import BUNDLE, FORCED, LINK, ContentBlocksFixture, personal, static
from helpers.token_provider import BlockingTokenProvider

from exponea_async import Customer, Event, Hooks, InvalidEventError
from exponea_async._internal.streams import Subscription
from exponea_async.features.content_blocks.carousel import Carousel, CarouselChange
from exponea_async.messages import InAppContentBlock
from exponea_async.sandbox import Sandbox
from exponea_async.testing import received

ONCE: dict[str, Any] = {"frequency": "until_visitor_interacts"}


@pytest.fixture
def content(app: App, sandbox: Sandbox) -> ContentBlocksFixture:
    return ContentBlocksFixture(app, sandbox)


def ids(carousel: Carousel) -> str:
    """Return the ids of the blocks in a carousel, in order."""
    return " ".join(each.id for each in carousel.blocks)


async def yielded(carousel: Carousel, count: int) -> list[str]:
    """Return the ids of the first blocks that a carousel yields."""
    found: list[str] = []
    async with asyncio.timeout(60):
        async for block in carousel:
            found.append(block.id)
            if len(found) == count:
                break
    return found


async def described(changes: Subscription[CarouselChange]) -> list[str]:
    """Return all changes of a carousel, each with the id of its block."""
    return [
        each.type if each.type in ("messages", "empty") else f"{each.type} {each.block and each.block.id}"
        async for each in changes
    ]


class TestRotation:
    async def test_rotation(self, content: ContentBlocksFixture) -> None:
        """The blocks are yielded in order, and after the last one comes the first."""
        content.put(*(static(name) for name in "abc"))
        await content.app.start()
        async with content.client.content_block_carousel("top", scroll_delay=0.001) as carousel:
            assert await yielded(carousel, 7) == list("abcabca")
        assert await content.events() == [("show", name) for name in "abc"]

    async def test_without_a_reload(self, content: ContentBlocksFixture) -> None:
        """Iterating over a carousel loads it."""
        content.put(static("a"))
        await content.app.start()
        carousel = content.client.content_block_carousel("top")
        assert (carousel.blocks, carousel.index, carousel.count, carousel.block) == ((), -1, 0, None)
        assert await yielded(carousel, 1) == ["a"]
        assert (carousel.index, carousel.count) == (0, 1)

    async def test_no_blocks(self, content: ContentBlocksFixture) -> None:
        """Without blocks an iteration ends at once."""
        await content.app.start()
        async with content.client.content_block_carousel("top") as carousel:
            changes = carousel.changes()
            assert [each async for each in carousel] == []
            assert await carousel.next() is None
        assert await described(changes) == ["messages", "empty"]

    @pytest.mark.parametrize("delay", [0, -1])
    async def test_without_a_delay(self, content: ContentBlocksFixture, delay: float) -> None:
        """Without a delay only `next` moves the carousel, and iterations follow."""
        content.put(static("a"), static("b"))
        await content.app.start()
        async with content.client.content_block_carousel("top", scroll_delay=delay) as carousel:
            turns = aiter(carousel)
            assert (await anext(turns)).id == "a"
            waiting = asyncio.ensure_future(anext(turns))
            await asyncio.sleep(0.01)
            assert not waiting.done()
            moved = await carousel.next()
            assert (await waiting) is moved
            assert moved is not None
            assert (moved.id, carousel.index) == ("b", 1)

    async def test_one_block(self, content: ContentBlocksFixture) -> None:
        """A single block is yielded once."""
        content.put(static("a"))
        await content.app.start()
        async with content.client.content_block_carousel("top", scroll_delay=0.001) as carousel:
            turns = aiter(carousel)
            await anext(turns)
            waiting = asyncio.ensure_future(anext(turns))
            await asyncio.sleep(0.02)
            assert not waiting.done()
            await carousel.aclose()
            with pytest.raises(StopAsyncIteration):
                await waiting

    async def test_reload(self, content: ContentBlocksFixture) -> None:
        """A reload starts with the first block, and tracks it as shown again."""
        content.put(static("a"), static("b"))
        await content.app.start()
        async with content.client.content_block_carousel("top", scroll_delay=0) as carousel:
            await carousel.next()
            first = await carousel.reload()
            assert first is not None
            assert (first.id, carousel.index) == ("a", 0)
        assert await content.events() == [("show", "a"), ("show", "b"), ("show", "a")]

    async def test_two_iterations(self, content: ContentBlocksFixture) -> None:
        """Two iterations over one carousel yield the same blocks."""
        content.put(static("a"), static("b"))
        await content.app.start()
        async with content.client.content_block_carousel("top", scroll_delay=0.005) as carousel:
            one, two = await asyncio.gather(yielded(carousel, 4), yielded(carousel, 4))
        assert one[0] == two[0] == "a"
        assert all(here != there for turns in (one, two) for here, there in pairwise(turns))


class TestBlocks:
    async def test_one_request(self, content: ContentBlocksFixture) -> None:
        """The data of all blocks is loaded in one request, also of those that may not be shown now."""
        late: dict[str, Any] = {"date_filter": {"enabled": True, "from_date": 2000}}
        content.put(
            personal("a"), personal("b", **late), personal("c", data={"status": "filter_not_matched"}), static()
        )
        await content.app.start()
        async with content.client.content_block_carousel("top") as carousel:
            assert ids(carousel) == "a s1"
        assert content.requests() == ["bundle", "a b c"]

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
    async def test_sort(self, content: ContentBlocksFixture, sort: Any, order: str) -> None:
        """The sort function gets the default order; if it raises, the blocks stay in the order of the bundle."""
        content.put(static("a"), static("b"), static("c", load_priority=3))
        await content.app.start()
        async with content.client.content_block_carousel("top", sort_content_blocks=sort) as carousel:
            assert ids(carousel) == order

    async def test_filter(self, content: ContentBlocksFixture) -> None:
        """The filter gets rendered blocks, before they are sorted and limited."""
        content.put(*(static(name) for name in "abcd"))
        await content.app.start()
        seen: list[Any] = []

        def without_b(blocks: list[InAppContentBlock]) -> Any:
            seen.extend(each.html is not None for each in blocks)
            return (each for each in blocks if each.id != "b")

        carousel = content.client.content_block_carousel("top", 2, filter_content_blocks=without_b)
        await carousel.reload()
        assert (ids(carousel), seen) == ("a c", [True] * 4)

    async def test_invalid_html(self, content: ContentBlocksFixture) -> None:
        """A block with invalid HTML is tracked as an error and left out; a block without HTML is kept."""
        content.put(static("a", html="<script>x</script>"), static("b", html=""), static("c"))
        await content.app.start()
        async with content.client.content_block_carousel("top", 2) as carousel:
            changes = carousel.changes()
            assert ids(carousel) == "b c"
        assert await content.events() == [("error", "a"), ("show", "b")]
        assert await described(changes) == ["error a", "messages", "show b"]

    @pytest.mark.parametrize("numbers", [("2", 3.0), (2.5, 3.0), (0, "3"), (0, True), (0, float("nan"))])
    async def test_wrong_numbers(self, content: ContentBlocksFixture, numbers: tuple[Any, Any]) -> None:
        """A value that is not a number raises an error."""
        client = await content.app.start()
        with pytest.raises(InvalidEventError):
            client.content_block_carousel("top", *numbers)

    async def test_failed_load(self, content: ContentBlocksFixture) -> None:
        """If the bundle can't be loaded, the carousel is empty."""
        content.put(static())
        content.fail(BUNDLE, status=403)
        await content.app.start()
        async with content.client.content_block_carousel("top") as carousel:
            assert carousel.count == 0


class TestInteractions:
    async def test_click(self, content: ContentBlocksFixture) -> None:
        """A click is tracked and returns the link; the block stays if it may be shown again."""
        content.put(static("a"), static("b"))
        await content.app.start()
        async with content.client.content_block_carousel("top", scroll_delay=0) as carousel:
            changes = carousel.changes()
            assert await carousel.click(carousel.blocks[0], LINK) == LINK
            assert carousel.count == 2
        assert await described(changes) == ["messages", "show a", "click a"]
        assert await content.events() == [("show", "a"), ("click", "a")]

    async def test_click_pauses_the_rotation(self, content: ContentBlocksFixture) -> None:
        """After a click the rotation pauses until it is resumed."""
        content.put(static("a"), static("b"))
        await content.app.start()
        async with content.client.content_block_carousel("top", scroll_delay=0.001) as carousel:
            turns = aiter(carousel)
            block = await anext(turns)
            await carousel.click(block, LINK)
            waiting = asyncio.ensure_future(anext(turns))
            await asyncio.sleep(0.02)
            assert not waiting.done()
            carousel.resume()
            assert (await waiting).id == "b"

    async def test_override_default_behavior(self, content: ContentBlocksFixture) -> None:
        """With override_default_behavior a click returns no link, but is tracked."""
        content.put(static("a"))
        await content.app.start()
        async with content.client.content_block_carousel("top", override_default_behavior=True) as carousel:
            assert await carousel.click(carousel.blocks[0], FORCED) is None
        assert await content.events() == [("show", "a"), ("click", "a")]

    async def test_other_clicks(self, content: ContentBlocksFixture) -> None:
        """A close button closes, an unknown URL is an error, and the blank page is ignored."""
        content.put(static("a"))
        await content.app.start()
        async with content.client.content_block_carousel("top") as carousel:
            changes, block = carousel.changes(), carousel.blocks[0]
            assert await carousel.click(block, "about:blank") is None
            assert await carousel.click(block, "https://other.example") is None
            assert await carousel.click(block, block.actions[2]) is None
        assert await described(changes) == ["messages", "show a", "error a", "close a"]
        assert await content.events() == [("show", "a"), ("error", "a"), ("close", "a")]

    @pytest.mark.parametrize("tracks", [True, False])
    async def test_interactions_are_remembered(self, content: ContentBlocksFixture, tracks: bool) -> None:  # noqa: FBT001
        """Interactions are remembered, whether or not they are tracked."""
        content.put(static("a", **ONCE), static("b", **ONCE))
        await content.app.start()
        async with content.client.content_block_carousel("top", track_actions=tracks) as carousel:
            await carousel.click(carousel.blocks[0], LINK)
            await carousel.close(carousel.blocks[0])
            assert carousel.count == 0
            assert await carousel.reload() is None
        assert await content.shown() is None

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
    async def test_next_block_after_a_close(
        self, content: ContentBlocksFixture, steps: int, closed: str, index: int, turns: list[str]
    ) -> None:
        """When the current block leaves, the previous one becomes current; when another block leaves, it stays."""
        content.put(*(static(name, **ONCE) for name in "abc"))
        await content.app.start()
        async with content.client.content_block_carousel("top", scroll_delay=0) as carousel:
            for _ in range(steps):
                await carousel.next()
            changes = carousel.changes()
            received(changes)
            await carousel.close(next(each for each in carousel.blocks if each.id == closed))
            assert (carousel.count, carousel.index) == (2, index)
        assert await described(changes) == [f"close {closed}", "messages", *turns]

    async def test_unknown_blocks(self, content: ContentBlocksFixture) -> None:
        """Closing a block twice, or a block of another placeholder, removes no other block."""
        content.put(static("a", **ONCE), static("b", **ONCE), static("else", placeholders=("side",), **ONCE))
        await content.app.start()
        other = await content.block("side")
        async with content.client.content_block_carousel("top") as carousel:
            first = carousel.blocks[0]
            for block in (first, first, other):
                await carousel.close(block)
            assert ids(carousel) == "b"

    async def test_closing_all_blocks(self, content: ContentBlocksFixture) -> None:
        """An iteration ends when all blocks have left."""
        content.put(static("a", **ONCE), static("b", **ONCE))
        await content.app.start()
        found = []
        async with asyncio.timeout(60), content.client.content_block_carousel("top") as carousel:
            async for block in carousel:
                found.append(block.id)
                await carousel.close(block)
        assert found == ["a", "b"]


class TestCustomers:
    async def test_customer_tracker(self, content: ContentBlocksFixture) -> None:
        """For a customer tracker a carousel itself remembers what it has shown."""
        content.put(static("a", **ONCE), static("b", frequency="only_once"))
        client = await content.app.start()
        jane = client.for_customer({"registered": "jane"})
        async with jane.content_block_carousel("top", scroll_delay=0) as carousel:
            await carousel.next()
            await carousel.close(carousel.blocks[0])
            assert ids(carousel) == "b"
            assert await carousel.reload() is None
        async with jane.content_block_carousel("top") as carousel:
            assert ids(carousel) == "a b"
        assert {str(each.ids) for each in await content.app.pending("banner")} == {"{'registered': 'jane'}"}

    async def test_another_customer(self, content: ContentBlocksFixture) -> None:
        """Blocks of a previous customer are replaced by those of the present one."""
        content.put(personal("a"), personal("b"))
        client = await content.app.start()
        async with client.content_block_carousel("top", scroll_delay=0) as carousel:
            await client.identify_customer(Customer({"registered": "jane"}))
            block = await carousel.next()
            assert block is not None
            assert (block.id, block.customer_ids["registered"]) == ("a", "jane")
        shows = [each.ids.get("registered") for each in await content.app.pending("banner")]
        assert shows == [None, "jane"]

    async def test_another_customer_before_the_event(
        self, content: ContentBlocksFixture, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """If the customer changes just before a block is tracked, the new customer's blocks are loaded."""
        content.put(personal("a"), personal("b"))
        client = await content.app.start()
        async with client.content_block_carousel("top", scroll_delay=0) as carousel:
            select = content.service.selector.candidates

            async def candidates(*args: Any, **options: Any) -> Any:
                found = await select(*args, **options)
                if len(names) > 0:
                    await client.identify_customer(Customer({"registered": names.pop()}))
                return found

            async def is_present(*_: Any) -> bool:
                return True

            names = ["bob"]
            monkeypatch.setattr(content.service.selector, "candidates", candidates)
            monkeypatch.setattr(content.service.selector, "is_present", is_present)
            await client.identify_customer(Customer({"registered": "jane"}))
            block = await carousel.next()
            assert block is not None
            assert (block.id, block.customer_ids["registered"]) == ("a", "bob")
        assert [each.ids.get("registered") for each in await content.app.pending("banner")] == [None, "bob"]

    @pytest.mark.parametrize("method", ["reload", "next"])
    async def test_concurrent_changes(self, content: ContentBlocksFixture, method: str) -> None:
        """With concurrent identifications each shown block is tracked for the customer it was loaded for."""
        content.put(*(personal(name) for name in "abc"))
        client = await content.app.start()
        carousel = client.content_block_carousel("top", scroll_delay=0)
        for number in range(20):
            block, _ = await asyncio.gather(
                getattr(carousel, method)(), client.identify_customer(Customer({"registered": str(number)}))
            )
            assert block is not None
            last = (await content.app.pending("banner"))[-1]
            assert last.ids == block.customer_ids

    async def test_bound_subject(self, content: ContentBlocksFixture) -> None:
        """A carousel is about the subject that was current when it was made."""
        content.put(static("a"))
        client = await content.app.start()
        with client.bind(client.for_customer({"registered": "jane"})):
            carousel = client.content_block_carousel("top")
        await carousel.reload()
        assert (await content.last_event()).ids == {"registered": "jane"}


class TestEnd:
    async def test_stop(self, content: ContentBlocksFixture) -> None:
        """Stopping the integration ends the carousel for good; after a new start another one can be created."""
        content.put(static("a"), static("b"))
        client = await content.app.start()
        carousel = client.content_block_carousel("top", scroll_delay=0)
        turns = aiter(carousel)
        assert (await anext(turns)).id == "a"
        waiting = asyncio.ensure_future(anext(turns))
        await asyncio.sleep(0)
        await client.stop_integration(everyone=True)
        with pytest.raises(StopAsyncIteration):
            await asyncio.wait_for(waiting, 60)
        assert await carousel.reload() is None
        assert await carousel.click(static_block(), LINK) is None
        await carousel.close(static_block())
        await client.start()
        assert await carousel.reload() is None
        assert await yielded(client.content_block_carousel("top", scroll_delay=0), 1) == ["a"]

    async def test_close_of_the_client(self, content: ContentBlocksFixture) -> None:
        """Iterations and streams of changes end with the client."""
        content.put(static("a"), static("b"))
        client = await content.app.start()
        carousel = client.content_block_carousel("top", scroll_delay=0)
        changes = carousel.changes()
        turns = aiter(carousel)
        assert (await anext(turns)).id == "a"
        waiting = asyncio.ensure_future(anext(turns))
        await asyncio.sleep(0)
        await client.aclose(timeout=0)
        with pytest.raises(StopAsyncIteration):
            await asyncio.wait_for(waiting, 60)
        assert await described(changes) == ["messages", "show a"]

    async def test_stop_during_a_load(self, content: ContentBlocksFixture) -> None:
        """A load during which the integration is stopped leaves the carousel empty."""
        content.put(static("a"))
        provider = BlockingTokenProvider(free=0)
        client = await content.app.start(customer_token_provider=provider)
        carousel = client.content_block_carousel("top")
        loading = asyncio.create_task(carousel.reload())
        await provider.blocks()
        await client.stop_integration(everyone=True)
        assert await loading is None
        assert (carousel.count, carousel.index) == (0, -1)

    async def test_clear_during_an_event(self, content: ContentBlocksFixture) -> None:
        """A block that is tracked as shown while the carousel is cleared does not become current."""
        content.put(static("a"), static("b"))

        def stop(event: Event) -> Event:
            if event.properties.get("banner_id") == "b":
                carousel.clear()
            return event

        client = await content.app.start(hooks=Hooks(before_track=stop))
        carousel = client.content_block_carousel("top")
        await carousel.reload()
        assert await carousel.next() is None
        assert (carousel.count, carousel.block) == (0, None)

    async def test_click_before_a_load(self, content: ContentBlocksFixture) -> None:
        """Interactions with a block that the carousel has not loaded are tracked."""
        content.put(static("a"))
        client = await content.app.start()
        block = await content.block()
        carousel = client.content_block_carousel("top")
        assert await carousel.click(block, LINK) == LINK
        await carousel.close(block)
        assert await content.events() == [("show", "a"), ("click", "a"), ("close", "a")]

    async def test_unreferenced_carousel(self, content: ContentBlocksFixture) -> None:
        """A carousel without a reference is collected."""
        client = await content.app.start()
        client.content_block_carousel("top")
        assert len(content.service.carousels) == 0


def static_block() -> InAppContentBlock:
    """Return a block that the caller made."""
    return InAppContentBlock(id="a", name="a", content_type="html")
