"""
How content blocks are loaded: how often, for whom, and what becomes of it on bad days.
"""

import asyncio
import json
import logging
from contextlib import suppress
from typing import Any

import pytest
from blocks_world import BUNDLE, PERSONAL, Gate, World, personal, static
from helpers.app import Phone
from helpers.waiting import until

from exponea_async import ClosedError, ConfigurationChange, Customer, ExponeaProject
from exponea_async.features.content_blocks import cache as _blocks_kept
from exponea_async.features.content_blocks import loader as _blocks_loads
from exponea_async.features.content_blocks import verbs as content_blocks
from exponea_async.sandbox import Fault, Sandbox

WHO_AM_I = {"ttl_seconds": 120, "content_type": "html"}


@pytest.fixture
def world(phone: Phone, sandbox: Sandbox) -> World:
    return World(phone, sandbox)


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let what has failed be tried again at once."""
    monkeypatch.setattr(_blocks_loads, "PAUSE", 0.0)


def named() -> dict[str, Any]:
    """Make a block that says to each customer who they are."""
    block = personal()
    block["personal"] = lambda who: {
        **WHO_AM_I,
        "content": {"html": f"<p>{' '.join(sorted(value for values in who.ids.values() for value in values))}</p>"},
    }
    return block


class TestOnceForAll:
    async def test_for_one_customer(self, world: World) -> None:
        """Fifty calls at once ask twice: for all blocks, and for what they say to the customer."""
        world.put(personal("a"), personal("b"), static())
        await world.phone.start()
        await asyncio.gather(*(world.block() for _ in range(50)))
        assert world.asked() == ["bundle", "a b"]

    async def test_for_two_placeholders(self, world: World) -> None:
        """A block that is under way for one placeholder is not asked for by another."""
        world.put(personal("a", placeholders=("x", "y")), personal("b", placeholders=("y",)))
        gate = Gate(free=1)
        await world.phone.start(customer_token_provider=gate)
        first = asyncio.create_task(world.shown("x"))
        await gate.reached()
        second = asyncio.create_task(world.shown("y"))
        gate.open()
        assert await first == "a"
        assert await second in ("a", "b")
        assert world.asked() == ["bundle", "a", "b"]

    async def test_for_many_customers(self, world: World) -> None:
        """All customers share the list of all blocks, and each gets what is said to this one alone."""
        world.put(named())
        client = await world.phone.start()
        trackers = {f"c{number}": client.for_customer({"registered": f"c{number}"}) for number in range(20)}
        blocks = await asyncio.gather(*(world.block(of=each) for each in [*trackers.values()] * 3))

        assert [each.html for each in blocks] == [f"<p>{name}</p>" for name in trackers] * 3
        assert [dict(each.customer_ids) for each in blocks] == [{"registered": name} for name in trackers] * 3
        assert world.asked() == ["bundle"] + ["p1"] * 20

    async def test_one_who_goes_away(self, world: World) -> None:
        """Who gives up waiting takes nothing from those who wait for the same."""
        world.put(personal())
        gate = Gate(free=1)
        await world.phone.start(customer_token_provider=gate)
        calls = [asyncio.create_task(world.shown()) for _ in range(3)]
        await gate.reached()
        calls[0].cancel()
        await asyncio.sleep(0)
        gate.open()
        assert await asyncio.gather(*calls[1:]) == ["p1", "p1"]
        assert world.asked() == ["bundle", "p1"]

    async def test_nobody_asks(self, world: World) -> None:
        """A client that never asks for a block loads nothing, whatever becomes of its customers."""
        world.put(personal(), static())
        client = await world.phone.start()
        await client.identify_customer(Customer({"registered": "jane"}))
        await client.anonymize()
        await world.idle()
        assert world.asked() == []


class TestWhileItLoads:
    @pytest.mark.parametrize("change", ["identify", "anonymize"])
    async def test_another_customer(self, world: World, change: str) -> None:
        """What was loaded for who the device was is not used: it is loaded for who the device is."""
        world.put(named())
        gate = Gate(free=1)
        client = await world.phone.start(customer_token_provider=gate)
        old = {"cookie": await client.get_customer_cookie()}
        asking = asyncio.create_task(world.block())
        await gate.reached()
        if change == "identify":
            await client.identify_customer(Customer({"registered": "jane"}))
            new = {**old, "registered": "jane"}
        else:
            await client.anonymize()
            new = {"cookie": await client.get_customer_cookie()}
        gate.open()
        block = await asking

        assert block.customer_ids == new
        assert block.html == f"<p>{' '.join(sorted(new.values()))}</p>"
        assert [each.ids for each in await world.phone.kept("banner")] == [new]
        assert len(world.customers) == 1

    async def test_a_stop(self, world: World) -> None:
        """Who waits when the integration is stopped gets nothing, and nothing is kept."""
        world.put(personal())
        gate = Gate(free=1)
        client = await world.phone.start(customer_token_provider=gate)
        asking = asyncio.create_task(client.content_block("top"))
        await gate.reached()
        await client.stop_integration()
        gate.open()

        assert await asking is None
        assert len(world.customers) == 0
        assert not world.part.blocks.loads._bundles
        await client.start()
        assert await world.shown() == "p1"

    @pytest.mark.parametrize("path", [BUNDLE, PERSONAL])
    async def test_a_stop_while_the_platform_thinks(self, world: World, path: str) -> None:
        """Who waits for the platform when the integration is stopped gets nothing, too."""
        world.put(personal())
        world.sandbox.faults.add(Fault("timeout", seconds=60, path=path, times=1))
        client = await world.phone.start()
        asking = asyncio.create_task(client.content_block("top"))
        await until(lambda: not world.sandbox.faults.active)
        await client.stop_integration()
        assert await asking is None
        assert len(world.customers) == 0

    @pytest.mark.parametrize("free", [0, 1])
    async def test_a_close(self, world: World, free: int) -> None:
        """Who waits when the client is closed is told so, or gets nothing."""
        world.put(personal())
        gate = Gate(free=free)
        client = await world.phone.start(customer_token_provider=gate)
        asking = asyncio.create_task(client.content_block("top"))
        await gate.reached()
        await client.aclose(timeout=0)
        with suppress(ClosedError):
            assert await asking is None

    async def test_a_platform_that_hangs(self, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
        """Only those who come at first wait for it; all others are served at once, until there is an answer."""
        monkeypatch.setattr(_blocks_loads, "PATIENCE", 0.3)
        world.put(static())
        gate = Gate(free=0)
        await world.phone.start(customer_token_provider=gate)
        assert await world.shown() is None
        async with asyncio.timeout(6.0):  # with a wait for each they would take twelve seconds
            for _ in range(40):
                assert await world.shown() is None
        gate.open()
        await world.idle()
        assert await world.shown() == "s1"

    async def test_a_slow_platform(self, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
        """A page does not wait for long, and the next one finds what was loaded meanwhile."""
        monkeypatch.setattr(_blocks_loads, "PATIENCE", 0.01)
        world.put(static())
        gate = Gate(free=0)
        await world.phone.start(customer_token_provider=gate)
        assert await world.shown() is None
        gate.open()
        await world.idle()
        assert await world.shown() == "s1"
        assert world.asked() == ["bundle"]


class TestTime:
    async def test_the_list_of_all(self, world: World) -> None:
        """The list of all blocks is renewed in the background after half an hour; the old one serves meanwhile."""
        world.put(static("old"))
        await world.phone.start(automatic_session_tracking=False)
        await world.block()
        world.sandbox.messages.content_blocks.clear()
        world.put(static("new"))
        world.phone.now += 1800
        assert await world.shown() == "old"
        assert world.asked() == ["bundle"]
        world.phone.now += 1
        assert await world.shown() == "old"
        await world.idle()
        assert await world.shown() == "new"
        assert world.asked() == ["bundle", "bundle"]

    async def test_what_is_said_to_a_customer(self, world: World) -> None:
        """Content is loaded again once it has become too old, and only that."""
        world.put(personal("short", says={"ttl_seconds": 10}), personal("long", says={"ttl_seconds": 100}))
        await world.phone.start(automatic_session_tracking=False)
        for seconds in (0, 10, 10, 100):
            world.phone.now += seconds
            await world.block()
        assert world.asked() == ["bundle", "short long", "short", "short long"]

    async def test_a_clock_that_is_set_back(self, world: World) -> None:
        """A clock that was wrong makes no content last for longer."""
        world.put(personal())
        await world.phone.start(automatic_session_tracking=False)
        await world.block()
        world.phone.now -= 500
        await world.block()
        await world.idle()
        assert world.asked().count("p1") == 2

    @pytest.mark.usefixtures("at_once")
    async def test_old_content_on_a_bad_day(self, world: World) -> None:
        """What is too old serves where there is nothing newer to be had."""
        world.put(personal(says={"ttl_seconds": 0}))
        await world.phone.start()
        before = await world.block()
        world.break_down(PERSONAL)
        assert (await world.block()).html == before.html

    async def test_the_old_list_on_a_bad_day(self, world: World) -> None:
        """The list of all blocks serves for as long as no newer one is to be had."""
        world.put(static())
        await world.phone.start(automatic_session_tracking=False)
        await world.block()
        world.break_down(BUNDLE)
        for _ in range(3):
            world.phone.now += 3600
            assert await world.shown() == "s1"
            await world.idle()


class TestBadDays:
    @pytest.mark.parametrize("status", [500, 429, 404, 403, 401])
    @pytest.mark.parametrize("path", [BUNDLE, PERSONAL])
    async def test_a_failure(self, world: World, path: str, status: int, caplog: pytest.LogCaptureFixture) -> None:
        """A page is rendered without blocks that can't be loaded. It is logged once, and not tried for a while."""
        world.put(personal(load_priority=1))
        world.break_down(path, status=status)
        await world.phone.start()
        with caplog.at_level(logging.WARNING):
            assert [await world.shown() for _ in range(3)] == [None] * 3
        asked = len(world.sandbox.requests)

        assert asked <= _blocks_loads.TRIES + 1
        assert len([each for each in caplog.records if "Content blocks" in each.message]) == 1
        assert await world.shown() is None
        assert len(world.sandbox.requests) == asked

    @pytest.mark.usefixtures("at_once")
    async def test_after_it(self, world: World) -> None:
        """Once the platform answers again, there are blocks."""
        world.put(personal())
        world.break_down(BUNDLE, times=_blocks_loads.TRIES)
        await world.phone.start()
        assert await world.shown() is None
        world.break_down(PERSONAL, times=_blocks_loads.TRIES)
        assert await world.shown() is None
        assert await world.shown() == "p1"

    async def test_a_short_one(self, world: World) -> None:
        """A failure or two in a row nobody notices."""
        world.put(personal())
        world.break_down(BUNDLE, times=2)
        world.break_down(PERSONAL, times=2)
        await world.phone.start()
        assert await world.shown() == "p1"

    async def test_static_ones(self, world: World) -> None:
        """What is the same for all is shown where nothing can be loaded for the customer."""
        world.put(personal(load_priority=9), static())
        world.break_down(PERSONAL)
        await world.phone.start()
        assert await world.shown() == "s1"

    async def test_no_network(self, world: World) -> None:
        """Without a network there are no blocks, and no error."""
        await world.phone.start(base_url="http://127.0.0.1:9")
        assert await world.shown() is None

    async def test_one_who_is_refused(self, world: World) -> None:
        """A customer without a token is shown what is for all, and stands in nobody's way."""
        world.put(personal(load_priority=9), static())

        async def provider(ids: Any) -> str:
            if ids.get("registered") == "stranger":
                raise LookupError(ids)
            return "token"

        client = await world.phone.start(customer_token_provider=provider)
        jane, stranger = (client.for_customer({"registered": name}) for name in ("jane", "stranger"))
        shown = [await world.shown(of=each) for each in (jane, stranger, jane, stranger)]
        assert shown == ["p1", "s1", "p1", "s1"]

    async def test_a_start_without_a_token(self, world: World) -> None:
        """Where the host has no token for nobody yet, the first customer is not kept waiting for that."""
        world.put(static())

        async def provider(ids: Any) -> str:
            if "registered" not in ids:
                raise LookupError(ids)
            return "token"

        client = await world.phone.start(
            customer_token_provider=provider, in_app_content_block_placeholders_auto_load=["top"]
        )
        await world.idle()
        assert world.asked() == []
        assert await world.shown(of=client.for_customer({"registered": "jane"})) == "s1"


BROKEN = ["", "{", "null", "[]", '"x"', "5", "{}", '{"success": null}', '{"success": "yes"}', '{"success": false}']
HOLLOW = [
    '{"success": true}',
    '{"success": true, "data": null}',
    '{"success": true, "data": [null, 5, "x", [], {}, {"id": 5}, {"id": ""}, {"id": "p1"}]}',
    '{"success": true, "data": [{"id": "other", "status": "OK", "content_type": "html", "content": {"html": "x"}}]}',
    '{"success": true, "data": [{"id": "p1", "status": "OK", "content_type": "native", "content": {"html": "x"}}]}',
    '{"success": true, "data": [{"id": "p1", "status": "ok", "content_type": "html", "content": {"html": "x"}}]}',
]


class TestHostileAnswers:
    @pytest.mark.parametrize("answer", [*BROKEN, *HOLLOW, '{"success": true, "data": {"id": "p1"}}'])
    @pytest.mark.parametrize("route", ["bundle", "inappcontentblocks"])
    async def test_an_answer(self, world: World, route: Any, answer: str) -> None:
        """Whatever a platform answers, nothing is shown and nothing raised."""
        world.put(personal())
        world.sandbox.messages.set_response(route, answer)
        await world.phone.start()
        assert await world.shown() is None

    async def test_broken_beside_right(self, world: World) -> None:
        """A broken block takes none of the others away, in neither answer."""
        broken: list[Any] = [
            None,
            {"id": "a"},
            {"id": "b", "name": "b", "placeholders": "top"},
            {"id": "c", "name": "c", "placeholders": ["top"], "date_filter": 5},
            {"id": "d", "name": "d" * 20_000, "placeholders": ["top"]},
        ]
        right = [personal("p1", placeholders=("top",)), static("s1", placeholders=("side",))]
        told = {"success": True, "in_app_content_blocks": [*broken, *right, *broken]}
        data = [
            5,
            {"id": None},
            {"id": "p1", "status": "OK", "content_type": "HTML", "content": {"html": "<p>x</p>"}},
            {},
        ]
        world.sandbox.messages.set_response("bundle", json.dumps(told))
        world.sandbox.messages.set_response("inappcontentblocks", json.dumps({"success": True, "data": data}))
        await world.phone.start()
        assert [await world.shown("top"), await world.shown("side")] == ["p1", "s1"]

    async def test_wrong_details(self, world: World) -> None:
        """What is wrong beside what a block has to have counts as not there."""
        wrong = {"frequency": 5, "load_priority": "high", "consent_category_tracking": [], "content": None}
        data = {
            "id": "p1",
            "status": "OK",
            "ttl_seconds": "long",
            "has_tracking_consent": True,
            "variant_id": 10**30,
            "variant_name": {},
            "content_type": "html",
            "content": {"html": "<p>x</p>", "deep": json.loads("[" * 100 + "]" * 100)},
        }
        block = {"id": "p1", "name": "p1", "placeholders": ["top", 5, None], **wrong}
        world.sandbox.messages.set_response("bundle", json.dumps({"success": True, "in_app_content_blocks": [block]}))
        world.sandbox.messages.set_response("inappcontentblocks", json.dumps({"success": True, "data": [data]}))
        await world.phone.start()
        shown = await world.block()

        assert (shown.frequency, shown.load_priority, shown.placeholders) == (None, None, ("top",))
        assert shown.personalized_data is not None
        assert (shown.personalized_data.ttl, shown.personalized_data.variant_id) == (0.0, None)
        assert shown.html == "<p>x</p>"

    async def test_a_large_one(self, world: World) -> None:
        """A project may have thousands of blocks."""
        world.put(*(static(f"s{number}", placeholders=(f"place{number}",)) for number in range(3_000)))
        await world.phone.start()
        assert await world.shown("place2999") == "s2999"

    async def test_what_is_for_others(self, world: World, caplog: pytest.LogCaptureFixture) -> None:
        """Blocks that only applications on phones can show are no trouble."""
        world.put(static("n", content_type="native"), static("f", content_type="foo"), static("s1"))
        world.put(static("odd", content_type=5), check=False)
        await world.phone.start()
        with caplog.at_level(logging.WARNING):
            assert {await world.shown() for _ in range(10)} == {"s1"}
        assert [each for each in caplog.records if "skipped" in each.message] == []
        assert world.asked() == ["bundle"]

    async def test_an_id_twice(self, world: World) -> None:
        """Of several blocks with one id the first counts."""
        told = {"success": True, "in_app_content_blocks": [static("a", name="one"), static("a", name="two")]}
        world.sandbox.messages.set_response("bundle", json.dumps(told))
        await world.phone.start()
        assert {(await world.block()).name for _ in range(10)} == {"one"}


class TestMemory:
    async def test_customers(self, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
        """Of so many customers content is kept, and whoever was asked for longest ago is loaded again."""
        monkeypatch.setattr(_blocks_kept, "MAX_CUSTOMERS", 3)
        world.put(personal())
        client = await world.phone.start()
        for name in ("a", "b", "c", "a", "d", "a", "b"):
            await world.block(of=client.for_customer({"registered": name}))
        assert len(world.customers) == 3
        assert world.asked() == ["bundle"] + ["p1"] * 5

    async def test_bytes(self, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
        """What is kept stays below so many bytes; also what does not fit is shown."""
        monkeypatch.setattr(_blocks_kept, "MAX_BYTES", 30_000)
        world.put(personal(html=f"<p>{'x' * 10_000}</p>"), personal("huge", html="y" * 40_000, placeholders=("side",)))
        client = await world.phone.start()
        for number in range(9):
            await world.block(of=client.for_customer({"registered": str(number)}))
            assert world.customers.size <= 30_000
        assert len(world.customers) == 2
        assert await world.shown("side") == "huge"
        assert (len(world.customers), world.customers.size) == (0, 0)

    async def test_projects(self, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
        """Of so many projects blocks are kept."""
        monkeypatch.setattr(_blocks_loads, "MAX_PROJECTS", 1)
        world.put(static())
        client = await world.phone.start()
        await world.block()
        await world.device("other").anonymize(ConfigurationChange(project=ExponeaProject("outlet", "key")))
        await world.idle()
        assert [each.project_token for each in world.part.blocks.loads._bundles] == ["outlet"]
        assert await world.shown(of=client) == "s1"

    async def test_a_device(self, world: World) -> None:
        """Of who a device was before nothing is kept."""
        world.put(personal())
        client = await world.phone.start()
        for name in ("a", "b", "c"):
            await world.block()
            await client.identify_customer(Customer({"registered": name}))
            await world.idle()
        assert (len(world.customers), world.customers.size) == (0, 0)
        await world.block()
        await client.anonymize()
        await world.idle()
        assert len(world.customers) == 0


class TestAhead:
    async def test_at_the_start(self, world: World) -> None:
        """The list of all is loaded when the client starts, though nobody is there yet; it creates no customer."""
        world.put(personal())
        await world.phone.start(in_app_content_block_placeholders_auto_load=["top"])
        await world.idle()
        assert world.asked() == ["bundle"]
        assert await world.phone.kept() == []
        assert await world.shown(of=world.client.for_customer({"registered": "jane"})) == "p1"
        assert world.asked() == ["bundle", "p1"]

    async def test_when_a_device_comes_to_life(self, world: World) -> None:
        """What the chosen placeholders say is there when a device asks for it."""
        world.put(personal("a"), personal("b", placeholders=("side", "top")), personal("c", placeholders=("else",)))
        await world.phone.start(in_app_content_block_placeholders_auto_load=["top", "side"])
        await world.device("tg:1").get_customer_cookie()
        await world.idle()
        assert world.asked() == ["bundle", "a b"]
        await world.block(of=world.device("tg:1"))
        assert world.asked() == ["bundle", "a b"]

    async def test_a_failure(self, world: World) -> None:
        """What can't be loaded ahead is loaded later; nobody is bothered."""
        world.put(personal())
        world.break_down("", status=403)
        client = await world.phone.start(in_app_content_block_placeholders_auto_load=["top"])
        await client.get_customer_cookie()
        await world.idle()
        assert await world.shown() is None

    async def test_many_devices(self, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
        """Where very many come to life at once, for most of them nothing is loaded ahead."""
        monkeypatch.setattr(content_blocks, "MAX_AHEAD", 2)
        world.put(personal())
        gate = Gate(free=1)
        await world.phone.start(customer_token_provider=gate, in_app_content_block_placeholders_auto_load=["top"])
        await world.idle()
        for number in range(10):
            await world.device(f"d{number}").get_customer_cookie()
        await gate.reached()
        assert world.part._under_way == 2
        gate.open()
        await world.idle()
        assert world.asked() == ["bundle", "p1", "p1"]
        await world.device("late").get_customer_cookie()
        await world.idle()
        assert world.asked() == ["bundle", "p1", "p1", "p1"]

    @pytest.mark.parametrize(
        ("asks", "preloads", "ahead", "loaded"),
        [
            (False, False, (), []),
            (False, True, (), ["bundle"]),
            (True, False, (), ["bundle"]),
            (True, True, (), ["bundle"]),
            (False, False, ("top",), ["bundle"]),
            (False, True, ("top",), ["bundle", "p1"]),
        ],
    )
    async def test_after_anonymize(
        self,
        world: World,
        asks: bool,  # noqa: FBT001
        preloads: bool,  # noqa: FBT001
        ahead: tuple[str, ...],
        loaded: list[str],
    ) -> None:
        """The list of all is renewed for a new customer where it is in use or wanted ahead, and so is the content."""
        world.put(personal())
        settings: dict[str, Any] = {"preload_messages": preloads, "in_app_content_block_placeholders_auto_load": ahead}
        client = await world.phone.start(**settings)
        await client.get_customer_cookie()
        if asks:
            await world.block()
        await world.idle()
        before = len(world.asked())
        await client.anonymize()
        await world.idle()
        assert world.asked()[before:] == loaded

    async def test_after_a_switch(self, world: World) -> None:
        """A device that was switched to another project finds that one's blocks loaded."""
        world.put(static())
        client = await world.phone.start()
        await world.block()
        await client.anonymize(ConfigurationChange(project=ExponeaProject("outlet", "key")))
        await world.idle()
        paths = [each.path for each in world.sandbox.requests if each.path.endswith(BUNDLE)]
        assert paths == [f"/wxstatic/projects/{name}{BUNDLE}" for name in ("shop", "outlet")]

    async def test_a_stop(self, world: World) -> None:
        """What is loaded ahead is broken off by a stop, and begins anew with the client."""
        world.put(personal())
        gate = Gate(free=0)
        client = await world.phone.start(
            customer_token_provider=gate, in_app_content_block_placeholders_auto_load=["top"]
        )
        await gate.reached()
        await client.stop_integration()
        await world.idle()
        assert world.asked() == []
        gate.open()
        await client.start()
        await world.idle()
        assert world.asked() == ["bundle"]
