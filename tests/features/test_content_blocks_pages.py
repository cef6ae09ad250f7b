"""
What is read of content blocks, whatever a platform sends, and their HTML made safe once for all.
"""

import asyncio
import sys
from typing import Any

import pytest
from blocks_world import World, personal, static
from helpers.app import Phone
from hypothesis import given
from hypothesis import strategies as st

from exponea_async.features._shared.html import resources
from exponea_async.features.content_blocks import pages as _blocks_pages
from exponea_async.features.content_blocks.pages import Pages
from exponea_async.features.content_blocks.parsing import (
    OK,
    can_show,
    handed_out,
    is_fresh,
    read_definition,
    read_personal,
    source_of,
    status_of,
    told_type,
    weight,
)
from exponea_async.messages import InAppContentBlock, PersonalizedData
from exponea_async.sandbox import Sandbox

SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5)
JSON = st.recursive(SCALARS, lambda each: st.lists(each, max_size=3) | st.dictionaries(st.text(max_size=5), each))
KEYS = [
    "id name placeholders date_filter frequency load_priority consent_category_tracking",
    "content_type content status ttl_seconds has_tracking_consent variant_id variant_name",
]
#: Mostly as it should be, so that what comes later is reached, too.
RIGHT: dict[str, Any] = {"id": "a", "name": "a", "placeholders": ["top"], "status": OK, "content_type": None}
BLOCKS = st.dictionaries(st.sampled_from(" ".join(KEYS).split()), JSON).map(lambda wrong: {**RIGHT, **wrong})
PICTURE = "https://img.example/a.png"


@pytest.fixture
def world(phone: Phone, sandbox: Sandbox) -> World:
    return World(phone, sandbox)


class TestWhatIsRead:
    @given(BLOCKS | JSON, BLOCKS | JSON)
    def test_anything(self, block: Any, data: Any) -> None:
        """Whatever JSON comes is a block or a refusal, and a block can be used in all ways."""
        try:
            definition, said = read_definition(block), read_personal(data, 5.0)
        except (ValueError, KeyError, TypeError):
            return
        is_fresh(definition, said, 5.0)
        assert can_show(definition, said) in (True, False)
        source_of(definition, said)
        made = handed_out(definition, said, ids={"cookie": "c"})
        assert told_type(made) in ("html", "native", "not_defined", "unknown")
        assert weight(said) > 0
        assert said.ttl >= 0
        definition.dates.includes(5.0)

    @pytest.mark.parametrize(
        ("static_type", "personal_type", "told"),
        [
            ("html", None, "html"),
            ("HTML", None, "html"),
            (None, "html", "html"),
            (None, "Native", "native"),
            (None, "foo", "unknown"),
            (None, None, "not_defined"),
        ],
    )
    def test_types(self, static_type: str | None, personal_type: str | None, told: str) -> None:
        """Events tell the type of what is said to the customer, or else to all."""
        data = None if static_type else PersonalizedData(id="a", content_type=personal_type)
        block = InAppContentBlock(id="a", name="a", content_type=static_type, personalized_data=data)
        assert told_type(block) == told

    def test_static_ones_have_no_status(self) -> None:
        """A block that is the same for all is all right, and one that nothing is known of is not."""
        assert status_of(read_definition(static()), None) == OK
        assert not can_show(read_definition({**static(), "content_type": None}), None)

    @pytest.mark.parametrize("ttl", [None, True, "60", -5, 10**400, [], float("inf")])
    def test_no_time_to_live(self, ttl: Any) -> None:
        """What is no span of time is none at all."""
        assert read_personal({"id": "a", "ttl_seconds": ttl}, 0.0).ttl == 0

    @pytest.mark.parametrize("consent", [None, True, 1, "true", False, 0, "no", {}])
    def test_consent(self, consent: Any) -> None:
        """Consent is read as it is of notifications: what is not said is a yes."""
        said = read_personal({"id": "a", "has_tracking_consent": consent}, 0.0)
        assert said.has_tracking_consent is (consent in (None, True, 1, "true"))


class TestPages:
    async def test_once_for_all(self) -> None:
        """The same HTML is made safe once, whoever asks, also where they ask at the same time."""
        pages = Pages(None)
        source = f"<p>{'x' * 20_000}<i data-actiontype=close>x</i></p>"
        read = await asyncio.gather(*(pages.read(source) for _ in range(10)))
        assert len({id(each) for each in read}) == 1
        assert await pages.read(source) is read[0]
        assert len(pages) == 1

    async def test_so_many(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Of so many pages the one that was asked for longest ago makes room."""
        monkeypatch.setattr(_blocks_pages, "MAX_PAGES", 2)
        pages = Pages(None)
        first = await pages.read("a")
        await pages.read("b")
        assert await pages.read("a") is first
        await pages.read("c")
        assert await pages.read("a") is first
        assert len(pages) == 2

    async def test_so_many_bytes(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """What is kept stays below so many bytes."""
        monkeypatch.setattr(_blocks_pages, "MAX_BYTES", 5_000)
        pages = Pages(None)
        for letter in "abcdef":
            assert await pages.read(letter * 2_000)
            assert 0 < pages.size <= 5_000
        assert await pages.read("x" * 10_000)
        assert pages.size == 0
        pages.clear()
        assert (len(pages), pages.size) == (0, 0)

    @pytest.mark.parametrize("source", ["<script>x</script>", "<!-- nothing -->", "<style>p{}</style>"])
    async def test_nothing_to_show(self, source: str) -> None:
        """What holds nothing to show is no page."""
        assert await Pages(None).read(source) is None


class TestTheExtra:
    async def test_it_is_missing(self, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
        """Who has not the libraries for HTML is told what to install at the first call, be there a block or none."""
        await world.phone.start()
        monkeypatch.setitem(sys.modules, "selectolax.lexbor", None)
        for _ in range(2):
            with pytest.raises(ImportError, match=r"exponea-async\[html\]"):
                await world.client.content_block("top")
        with pytest.raises(ImportError, match=r"exponea-async\[html\]"):
            await world.client.content_block_carousel("top").reload()
        assert await world.told() == []


class TestResources:
    async def test_without_a_loader(self) -> None:
        """Pictures stay on the web where nobody loads them."""
        page = await Pages(None).read(f"<img src='{PICTURE}'>")
        assert page is not None
        assert PICTURE in page.html

    async def test_a_loader_that_signs_out(self, world: World) -> None:
        """Who has become somebody else while a picture is loaded is shown what is for the new one."""
        world.put(personal(html=f"<img src='{PICTURE}'>"))

        async def load(url: str) -> bytes:
            await client.anonymize()
            return b"png"

        client = await world.phone.start(resource_loader=load)
        block = await world.block()
        assert block.customer_ids == {"cookie": await client.get_customer_cookie()}
        assert [each.ids for each in await world.phone.kept("banner")] == [block.customer_ids]

    async def test_with_one(self, world: World) -> None:
        """A picture that the host loads is put into the page, once for all."""
        loaded: list[str] = []

        async def load(url: str) -> bytes:
            loaded.append(url)
            return b"png"

        world.put(static(html=f"<img src='{PICTURE}'><img src='{PICTURE}'>"))
        await world.phone.start(resource_loader=load)
        blocks = await asyncio.gather(*(world.block() for _ in range(5)))
        assert all("data:image/png;base64,cG5n" in str(each.html) for each in blocks)
        assert loaded == [PICTURE]

    @pytest.mark.parametrize("answer", [None, "text", LookupError("broken")])
    async def test_one_that_fails(self, world: World, answer: Any) -> None:
        """A block whose picture can't be had is an error, and tried again the next time."""
        answers = [answer, b"png"]

        async def load(url: str) -> Any:
            if isinstance(answers[0], Exception):
                raise answers.pop(0)
            return answers.pop(0)

        world.put(static(html=f"<img src='{PICTURE}'>"))
        await world.phone.start(resource_loader=load)
        assert await world.shown() is None
        assert await world.told() == [("error", "s1")]
        assert await world.shown() == "s1"

    async def test_a_slow_one(self, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
        """A loader that takes too long has nothing."""
        monkeypatch.setattr(resources, "LOAD_TIMEOUT", 0.01)

        async def load(url: str) -> bytes:
            await asyncio.Event().wait()
            return b""

        world.put(static(html=f"<img src='{PICTURE}'>"))
        await world.phone.start(resource_loader=load)
        assert await world.shown() is None

    async def test_too_many(self, world: World) -> None:
        """A block that needs pictures without end loads none of them."""
        loaded: list[str] = []

        async def load(url: str) -> bytes:
            loaded.append(url)
            return b"png"

        world.put(
            static(
                html="".join(
                    f"<img src='https://img.example/{number}'>" for number in range(resources.MAX_RESOURCES + 1)
                )
            )
        )
        await world.phone.start(resource_loader=load)
        assert await world.shown() is None
        assert loaded == []
