"""
Reading content blocks, whatever the platform sends, and making their HTML safe.
"""

import asyncio
from typing import Any

import pytest
from helpers.app import App
from helpers.content_blocks import ContentBlocksFixture, personal, static
from helpers.environment import SetConstants
from helpers.modules import uninstalled
from hypothesis import given
from hypothesis import strategies as st

from exponea_async.features._shared.html import resources
from exponea_async.features._shared.html.rules import HtmlRules
from exponea_async.features.content_blocks.pages import PageCache
from exponea_async.features.content_blocks.parsing import (
    OK,
    can_show,
    content_type_of,
    html_of,
    is_fresh,
    memory_size,
    public_block,
    read_definition,
    read_personalized_data,
    status_of,
)
from exponea_async.messages import InAppContentBlock, PersonalizedData
from exponea_async.sandbox import Sandbox

SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5)
JSON = st.recursive(SCALARS, lambda each: st.lists(each, max_size=3) | st.dictionaries(st.text(max_size=5), each))
KEYS = [
    "id name placeholders date_filter frequency load_priority consent_category_tracking",
    "content_type content status ttl_seconds has_tracking_consent variant_id variant_name",
]
#: The required fields, so that optional ones are read, too.
REQUIRED: dict[str, Any] = {"id": "a", "name": "a", "placeholders": ["top"], "status": OK, "content_type": None}
BLOCKS = st.dictionaries(st.sampled_from(" ".join(KEYS).split()), JSON).map(lambda wrong: {**REQUIRED, **wrong})
PICTURE = "https://img.example/a.png"


@pytest.fixture
def content(app: App, sandbox: Sandbox) -> ContentBlocksFixture:
    return ContentBlocksFixture(app, sandbox)


class TestReading:
    @given(BLOCKS | JSON, BLOCKS | JSON)
    def test_any_json(self, block: Any, data: Any) -> None:
        """Any JSON is read as a block or raises an error, and a block that was read can be used."""
        try:
            definition, personalized = read_definition(block), read_personalized_data(data, 5.0)
        except (ValueError, KeyError, TypeError):
            return
        is_fresh(definition, personalized, 5.0)
        assert can_show(definition, personalized) in (True, False)
        html_of(definition, personalized)
        made = public_block(definition, personalized, ids={"cookie": "c"})
        assert content_type_of(made) in ("html", "native", "not_defined", "unknown")
        assert memory_size(personalized) > 0
        assert personalized.ttl >= 0
        definition.dates.includes(5.0)

    @pytest.mark.parametrize(
        ("static_type", "personal_type", "expected"),
        [
            ("html", None, "html"),
            ("HTML", None, "html"),
            (None, "html", "html"),
            (None, "Native", "native"),
            (None, "foo", "unknown"),
            (None, None, "not_defined"),
        ],
    )
    def test_content_types(self, static_type: str | None, personal_type: str | None, expected: str) -> None:
        """Events have the type of the personalized content, or else of the static content."""
        data = None if static_type else PersonalizedData(id="a", content_type=personal_type)
        block = InAppContentBlock(id="a", name="a", content_type=static_type, personalized_data=data)
        assert content_type_of(block) == expected

    def test_statuses(self) -> None:
        """A static block is always OK, and a personalized block without data can't be shown."""
        assert status_of(read_definition(static()), None) == OK
        assert not can_show(read_definition({**static(), "content_type": None}), None)

    @pytest.mark.parametrize("ttl", [None, True, "60", -5, 10**400, [], float("inf")])
    def test_wrong_ttl(self, ttl: Any) -> None:
        """A time to live that is not a positive number is zero."""
        assert read_personalized_data({"id": "a", "ttl_seconds": ttl}, 0.0).ttl == 0

    @pytest.mark.parametrize("consent", [None, True, 1, "true", False, 0, "no", {}])
    def test_consent(self, consent: Any) -> None:
        """Consent is read as for push notifications: a missing value means yes."""
        personalized = read_personalized_data({"id": "a", "has_tracking_consent": consent}, 0.0)
        assert personalized.has_tracking_consent is (consent in (None, True, 1, "true"))


class TestPages:
    async def test_same_source(self) -> None:
        """The same HTML is made safe once, even by concurrent calls."""
        cache = PageCache(None, HtmlRules())
        source = f"<p>{'x' * 20_000}<i data-actiontype=close>x</i></p>"
        read = await asyncio.gather(*(cache.read(source) for _ in range(10)))
        assert len({id(each) for each in read}) == 1
        assert await cache.read(source) is read[0]
        assert len(cache) == 1

    async def test_number_of_pages(self) -> None:
        """The least recently used page is evicted."""
        cache = PageCache(None, HtmlRules(), max_pages=2)
        first = await cache.read("a")
        await cache.read("b")
        assert await cache.read("a") is first
        await cache.read("c")
        assert await cache.read("a") is first
        assert len(cache) == 2

    async def test_size_of_pages(self) -> None:
        """Cached pages have a maximum size."""
        cache = PageCache(None, HtmlRules(), max_bytes=5_000)
        for letter in "abcdef":
            assert await cache.read(letter * 2_000)
            assert 0 < cache.size <= 5_000
        assert await cache.read("x" * 10_000)
        assert cache.size == 0
        cache.clear()
        assert (len(cache), cache.size) == (0, 0)

    @pytest.mark.parametrize("source", ["<script>x</script>", "<!-- nothing -->", "<style>p{}</style>"])
    async def test_nothing_to_show(self, source: str) -> None:
        """HTML without content is not a page."""
        assert await PageCache(None, HtmlRules()).read(source) is None


class TestHtmlExtra:
    async def test_missing_libraries(self, content: ContentBlocksFixture) -> None:
        """Without the libraries for HTML every call raises an error that says what to install."""
        await content.app.start()
        with uninstalled("selectolax.lexbor"):
            for _ in range(2):
                with pytest.raises(ImportError, match=r"exponea-async\[html\]"):
                    await content.client.content_block("top")
            with pytest.raises(ImportError, match=r"exponea-async\[html\]"):
                await content.client.content_block_carousel("top").reload()
        assert await content.events() == []


class TestResources:
    async def test_without_a_loader(self) -> None:
        """Without a resource loader the URLs of images stay."""
        page = await PageCache(None, HtmlRules()).read(f"<img src='{PICTURE}'>")
        assert page is not None
        assert PICTURE in page.html

    async def test_customer_changes_during_a_load(self, content: ContentBlocksFixture) -> None:
        """If the customer changes while an image is loaded, the new customer's block is shown."""
        content.put(personal(html=f"<img src='{PICTURE}'>"))

        async def load(url: str) -> bytes:
            await client.anonymize()
            return b"png"

        client = await content.app.start(resource_loader=load)
        block = await content.block()
        assert block.customer_ids == {"cookie": await client.get_customer_cookie()}
        assert [each.ids for each in await content.app.pending("banner")] == [block.customer_ids]

    async def test_with_a_loader(self, content: ContentBlocksFixture) -> None:
        """An image is loaded once and put into the page."""
        loaded: list[str] = []

        async def load(url: str) -> bytes:
            loaded.append(url)
            return b"png"

        content.put(static(html=f"<img src='{PICTURE}'><img src='{PICTURE}'>"))
        await content.app.start(resource_loader=load)
        blocks = await asyncio.gather(*(content.block() for _ in range(5)))
        assert all("data:image/png;base64,cG5n" in str(each.html) for each in blocks)
        assert loaded == [PICTURE]

    @pytest.mark.parametrize("result", [None, "text", LookupError("broken")])
    async def test_loader_that_fails(self, content: ContentBlocksFixture, result: Any) -> None:
        """A block whose image can't be loaded is tracked as an error; the next call loads it again."""
        results = [result, b"png"]

        async def load(url: str) -> Any:
            if isinstance(results[0], Exception):
                raise results.pop(0)
            return results.pop(0)

        content.put(static(html=f"<img src='{PICTURE}'>"))
        await content.app.start(resource_loader=load)
        assert await content.shown() is None
        assert await content.events() == [("error", "s1")]
        assert await content.shown() == "s1"

    async def test_slow_loader(self, content: ContentBlocksFixture, set_constants: SetConstants) -> None:
        """A block whose image takes too long to load is not shown."""
        set_constants(resources, LOAD_TIMEOUT=0.01)

        async def load(url: str) -> bytes:
            await asyncio.Event().wait()
            return b""

        content.put(static(html=f"<img src='{PICTURE}'>"))
        await content.app.start(resource_loader=load)
        assert await content.shown() is None

    async def test_too_many_images(self, content: ContentBlocksFixture) -> None:
        """A block with too many images is not shown, and none of them is loaded."""
        loaded: list[str] = []

        async def load(url: str) -> bytes:
            loaded.append(url)
            return b"png"

        content.put(
            static(
                html="".join(
                    f"<img src='https://img.example/{number}'>" for number in range(resources.MAX_RESOURCES + 1)
                )
            )
        )
        await content.app.start(resource_loader=load)
        assert await content.shown() is None
        assert loaded == []
