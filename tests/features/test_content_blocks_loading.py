"""
Loading content blocks: shared loads, caches, failures and preloading.
"""

import asyncio
import json
import logging
from contextlib import suppress
from typing import Any

import pytest
from helpers.app import App
from helpers.content_blocks import BUNDLE, PERSONAL, ContentBlocksFixture, personal, static
from helpers.environment import SetConstants
from helpers.token_provider import BlockingTokenProvider
from helpers.waiting import running, until

from exponea_async import ClosedError, ConfigurationChange, Customer, ExponeaProject, RequestLimits
from exponea_async._internal.lru import LruCache
from exponea_async.features.content_blocks import loader, service
from exponea_async.features.content_blocks.cache import CustomerCache
from exponea_async.sandbox import Fault, Sandbox

DATA = {"ttl_seconds": 120, "content_type": "html"}


@pytest.fixture
def content(app: App, sandbox: Sandbox) -> ContentBlocksFixture:
    return ContentBlocksFixture(app, sandbox)


@pytest.fixture
def without_pauses(set_constants: SetConstants) -> None:
    """Load again right after a failure."""
    set_constants(loader, PAUSE=0.0)


def block_with_ids() -> dict[str, Any]:
    """Return a block with the ids of its customer as content."""
    block = personal()
    block["personal"] = lambda customer: {
        **DATA,
        "content": {
            "html": f"<p>{' '.join(sorted(value for values in customer.ids.values() for value in values))}</p>"
        },
    }
    return block


class TestSharedLoads:
    async def test_one_customer(self, content: ContentBlocksFixture) -> None:
        """Fifty concurrent calls send two requests: for the bundle, and for the customer's data."""
        content.put(personal("a"), personal("b"), static())
        await content.app.start()
        await asyncio.gather(*(content.block() for _ in range(50)))
        assert content.requests() == ["bundle", "a b"]

    async def test_two_placeholders(self, content: ContentBlocksFixture) -> None:
        """A block that is being loaded for one placeholder is not requested for another."""
        content.put(personal("a", placeholders=("x", "y")), personal("b", placeholders=("y",)))
        provider = BlockingTokenProvider(free=1)
        await content.app.start(customer_token_provider=provider)
        first = asyncio.create_task(content.shown("x"))
        await provider.blocks()
        second = asyncio.create_task(content.shown("y"))
        provider.unblock()
        assert await first == "a"
        assert await second in ("a", "b")
        assert content.requests() == ["bundle", "a", "b"]

    async def test_many_customers(self, content: ContentBlocksFixture) -> None:
        """All customers share the bundle, and each receives its own data."""
        content.put(block_with_ids())
        client = await content.app.start()
        trackers = {f"c{number}": client.for_customer({"registered": f"c{number}"}) for number in range(20)}
        blocks = await asyncio.gather(*(content.block(subject=each) for each in [*trackers.values()] * 3))

        assert [each.html for each in blocks] == [f"<p>{name}</p>" for name in trackers] * 3
        assert [dict(each.customer_ids) for each in blocks] == [{"registered": name} for name in trackers] * 3
        assert content.requests() == ["bundle"] + ["p1"] * 20

    async def test_cancelled_caller(self, content: ContentBlocksFixture) -> None:
        """Cancelling one caller does not affect the others that wait for the same load."""
        content.put(personal())
        provider = BlockingTokenProvider(free=1)
        await content.app.start(customer_token_provider=provider)
        calls = [asyncio.create_task(content.shown()) for _ in range(3)]
        await provider.blocks()
        calls[0].cancel()
        await asyncio.sleep(0)
        provider.unblock()
        assert await asyncio.gather(*calls[1:]) == ["p1", "p1"]
        assert content.requests() == ["bundle", "p1"]

    async def test_no_calls(self, content: ContentBlocksFixture) -> None:
        """A client that never shows a block loads nothing, even when its customers change."""
        content.put(personal(), static())
        client = await content.app.start()
        await client.identify_customer(Customer({"registered": "jane"}))
        await client.anonymize()
        await content.idle()
        assert content.requests() == []


class TestDuringALoad:
    @pytest.mark.parametrize("change", ["identify", "anonymize"])
    async def test_another_customer(self, content: ContentBlocksFixture, change: str) -> None:
        """Data of the previous customer is not used: it is loaded again for the present one."""
        content.put(block_with_ids())
        provider = BlockingTokenProvider(free=1)
        client = await content.app.start(customer_token_provider=provider)
        old = {"cookie": await client.get_customer_cookie()}
        call = asyncio.create_task(content.block())
        await provider.blocks()
        if change == "identify":
            await client.identify_customer(Customer({"registered": "jane"}))
            new = {**old, "registered": "jane"}
        else:
            await client.anonymize()
            new = {"cookie": await client.get_customer_cookie()}
        provider.unblock()
        block = await call

        assert block.customer_ids == new
        assert block.html == f"<p>{' '.join(sorted(new.values()))}</p>"
        assert [each.ids for each in await content.app.pending("banner")] == [new]
        assert len(content.loader.customers) == 1

    async def test_stop(self, content: ContentBlocksFixture) -> None:
        """Stopping the integration during a load returns None, and nothing is cached."""
        content.put(personal())
        provider = BlockingTokenProvider(free=1)
        client = await content.app.start(customer_token_provider=provider)
        call = asyncio.create_task(client.content_block("top"))
        await provider.blocks()
        await client.stop_integration(everyone=True)
        provider.unblock()

        assert await call is None
        assert len(content.loader.customers) == 0
        assert not content.loader.bundles
        await client.start()
        assert await content.shown() == "p1"

    @pytest.mark.parametrize("path", [BUNDLE, PERSONAL])
    async def test_stop_during_a_request(self, content: ContentBlocksFixture, path: str) -> None:
        """Stopping the integration during a request returns None, too."""
        content.put(personal())
        content.sandbox.faults.add(Fault("timeout", seconds=60, path=path, times=1))
        client = await content.app.start()
        call = asyncio.create_task(client.content_block("top"))
        await until(lambda: not content.sandbox.faults.active)
        await client.stop_integration(everyone=True)
        assert await call is None
        assert len(content.loader.customers) == 0

    @pytest.mark.parametrize("free", [0, 1])
    async def test_close(self, content: ContentBlocksFixture, free: int) -> None:
        """Closing the client during a load raises an error or returns None."""
        content.put(personal())
        provider = BlockingTokenProvider(free=free)
        client = await content.app.start(customer_token_provider=provider)
        call = asyncio.create_task(client.content_block("top"))
        await provider.blocks()
        await client.aclose(timeout=0)
        with suppress(ClosedError):
            assert await call is None

    async def test_platform_without_responses(self, content: ContentBlocksFixture) -> None:
        """Only the first callers wait for a load; later ones return at once, until there is a response."""
        content.put(static())
        provider = BlockingTokenProvider(free=0)
        limits = RequestLimits(content_blocks_wait=0.3)
        await content.app.start(customer_token_provider=provider, limits=limits)
        assert await content.shown() is None
        async with asyncio.timeout(60):  # far longer, if each of them waited
            for _ in range(400):
                assert await content.shown() is None
        provider.unblock()
        await content.idle()
        assert await content.shown() == "s1"

    async def test_slow_platform(self, content: ContentBlocksFixture) -> None:
        """A call waits for a limited time, which is counted, and a later one finds what was loaded in the meantime."""
        content.put(static())
        provider = BlockingTokenProvider(free=0)
        client = await content.app.start(
            customer_token_provider=provider, limits=RequestLimits(content_blocks_wait=0.01)
        )
        assert await content.shown() is None
        assert client.stats().not_shown == {"late": 1}
        provider.unblock()
        await content.idle()
        assert await content.shown() == "s1"
        assert content.requests() == ["bundle"]

    async def test_slow_personal_content(self, content: ContentBlocksFixture) -> None:
        """A customer whose content is late delays no other one."""
        content.put(personal())
        provider = BlockingTokenProvider(free=1)
        client = await content.app.start(
            customer_token_provider=provider, limits=RequestLimits(content_blocks_wait=1.0)
        )
        assert await client.content_block("top") is None
        async with asyncio.timeout(60):  # far longer, if each of them waited
            for number in range(100):
                assert await client.for_customer({"registered": str(number)}).content_block("top") is None
        assert client.stats().not_shown == {"late": 1}


class TestAge:
    async def test_bundle(self, content: ContentBlocksFixture) -> None:
        """The bundle is renewed in the background after half an hour; the old one is used in the meantime."""
        content.put(static("old"))
        await content.app.start(automatic_session_tracking=False)
        await content.block()
        content.sandbox.messages.content_blocks.clear()
        content.put(static("new"))
        content.app.now += 1800
        assert await content.shown() == "old"
        assert content.requests() == ["bundle"]
        content.app.now += 1
        assert await content.shown() == "old"
        await content.idle()
        assert await content.shown() == "new"
        assert content.requests() == ["bundle", "bundle"]

    async def test_personalized_data(self, content: ContentBlocksFixture) -> None:
        """Data is loaded again once it has expired, and only that."""
        content.put(personal("short", data={"ttl_seconds": 10}), personal("long", data={"ttl_seconds": 100}))
        await content.app.start(automatic_session_tracking=False)
        for seconds in (0, 10, 10, 100):
            content.app.now += seconds
            await content.block()
        assert content.requests() == ["bundle", "short long", "short", "short long"]

    async def test_clock_is_set_back(self, content: ContentBlocksFixture) -> None:
        """Setting the clock back does not prolong the time to live."""
        content.put(personal())
        await content.app.start(automatic_session_tracking=False)
        await content.block()
        content.app.now -= 500
        await content.block()
        await content.idle()
        assert content.requests().count("p1") == 2

    @pytest.mark.usefixtures("without_pauses")
    async def test_expired_data_after_a_failure(self, content: ContentBlocksFixture) -> None:
        """Expired data is used if it can't be loaded again."""
        content.put(personal(data={"ttl_seconds": 0}))
        await content.app.start()
        before = await content.block()
        content.fail(PERSONAL)
        assert (await content.block()).html == before.html

    async def test_old_bundle_after_a_failure(self, content: ContentBlocksFixture) -> None:
        """The bundle is used as long as it can't be renewed."""
        content.put(static())
        await content.app.start(automatic_session_tracking=False)
        await content.block()
        content.fail(BUNDLE)
        for _ in range(3):
            content.app.now += 3600
            assert await content.shown() == "s1"
            await content.idle()


class TestFailures:
    @pytest.mark.parametrize("status", [500, 429, 404, 403, 401])
    @pytest.mark.parametrize("path", [BUNDLE, PERSONAL])
    async def test_failure(
        self, content: ContentBlocksFixture, path: str, status: int, caplog: pytest.LogCaptureFixture
    ) -> None:
        """A failed load returns None, is logged once, and begins a pause."""
        content.put(personal(load_priority=1))
        content.fail(path, status=status)
        await content.app.start()
        with caplog.at_level(logging.WARNING):
            assert [await content.shown() for _ in range(3)] == [None] * 3
        requests = len(content.sandbox.requests)

        assert requests <= loader.MAX_ATTEMPTS + 1
        assert len([each for each in caplog.records if "Content blocks" in each.message]) == 1
        assert await content.shown() is None
        assert len(content.sandbox.requests) == requests

    @pytest.mark.usefixtures("without_pauses")
    async def test_recovery(self, content: ContentBlocksFixture) -> None:
        """Blocks are loaded once the platform responds again."""
        content.put(personal())
        content.fail(BUNDLE, times=loader.MAX_ATTEMPTS)
        await content.app.start()
        assert await content.shown() is None
        content.fail(PERSONAL, times=loader.MAX_ATTEMPTS)
        assert await content.shown() is None
        assert await content.shown() == "p1"

    async def test_short_failure(self, content: ContentBlocksFixture) -> None:
        """Two failures in a row are not noticed."""
        content.put(personal())
        content.fail(BUNDLE, times=2)
        content.fail(PERSONAL, times=2)
        await content.app.start()
        assert await content.shown() == "p1"

    async def test_static_blocks(self, content: ContentBlocksFixture) -> None:
        """Static blocks are shown if personalized data can't be loaded."""
        content.put(personal(load_priority=9), static())
        content.fail(PERSONAL)
        await content.app.start()
        assert await content.shown() == "s1"

    async def test_no_network(self, content: ContentBlocksFixture) -> None:
        """Without a connection no block is shown, and no error is raised."""
        await content.app.start(base_url="http://127.0.0.1:9")
        assert await content.shown() is None

    async def test_customer_without_a_token(self, content: ContentBlocksFixture) -> None:
        """A customer without a token is shown static blocks, and does not affect other customers."""
        content.put(personal(load_priority=9), static())

        async def provider(ids: Any) -> str:
            if ids.get("registered") == "stranger":
                raise LookupError(ids)
            return "token"

        client = await content.app.start(customer_token_provider=provider)
        jane, stranger = (client.for_customer({"registered": name}) for name in ("jane", "stranger"))
        shown = [await content.shown(subject=each) for each in (jane, stranger, jane, stranger)]
        assert shown == ["p1", "s1", "p1", "s1"]

    async def test_start_without_a_token(self, content: ContentBlocksFixture) -> None:
        """A preload that fails at the start for lack of a token does not begin a pause for customers with a token."""
        content.put(static())

        async def provider(ids: Any) -> str:
            if "registered" not in ids:
                raise LookupError(ids)
            return "token"

        client = await content.app.start(
            customer_token_provider=provider, in_app_content_block_placeholders_auto_load=["top"]
        )
        await content.idle()
        assert content.requests() == []
        assert await content.shown(subject=client.for_customer({"registered": "jane"})) == "s1"


MALFORMED = ["", "{", "null", "[]", '"x"', "5", "{}", '{"success": null}', '{"success": "yes"}', '{"success": false}']
UNUSABLE = [
    '{"success": true}',
    '{"success": true, "data": null}',
    '{"success": true, "data": [null, 5, "x", [], {}, {"id": 5}, {"id": ""}, {"id": "p1"}]}',
    '{"success": true, "data": [{"id": "other", "status": "OK", "content_type": "html", "content": {"html": "x"}}]}',
    '{"success": true, "data": [{"id": "p1", "status": "OK", "content_type": "native", "content": {"html": "x"}}]}',
    '{"success": true, "data": [{"id": "p1", "status": "ok", "content_type": "html", "content": {"html": "x"}}]}',
]


class TestHostileResponses:
    @pytest.mark.parametrize("response", [*MALFORMED, *UNUSABLE, '{"success": true, "data": {"id": "p1"}}'])
    @pytest.mark.parametrize("route", ["bundle", "inappcontentblocks"])
    async def test_response(self, content: ContentBlocksFixture, route: Any, response: str) -> None:
        """A response without a usable block shows no block, and raises no error."""
        content.put(personal())
        content.sandbox.messages.set_response(route, response)
        await content.app.start()
        assert await content.shown() is None

    async def test_malformed_blocks(self, content: ContentBlocksFixture) -> None:
        """A malformed block does not affect the others, in either response."""
        malformed: list[Any] = [
            None,
            {"id": "a"},
            {"id": "b", "name": "b", "placeholders": "top"},
            {"id": "c", "name": "c", "placeholders": ["top"], "date_filter": 5},
            {"id": "d", "name": "d" * 20_000, "placeholders": ["top"]},
        ]
        blocks = [personal("p1", placeholders=("top",)), static("s1", placeholders=("side",))]
        bundle = {"success": True, "in_app_content_blocks": [*malformed, *blocks, *malformed]}
        data = [
            5,
            {"id": None},
            {"id": "p1", "status": "OK", "content_type": "HTML", "content": {"html": "<p>x</p>"}},
            {},
        ]
        content.sandbox.messages.set_response("bundle", json.dumps(bundle))
        content.sandbox.messages.set_response("inappcontentblocks", json.dumps({"success": True, "data": data}))
        await content.app.start()
        assert [await content.shown("top"), await content.shown("side")] == ["p1", "s1"]

    async def test_wrong_fields(self, content: ContentBlocksFixture) -> None:
        """Optional fields of a wrong type are treated as missing."""
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
        content.sandbox.messages.set_response("bundle", json.dumps({"success": True, "in_app_content_blocks": [block]}))
        content.sandbox.messages.set_response("inappcontentblocks", json.dumps({"success": True, "data": [data]}))
        await content.app.start()
        shown = await content.block()

        assert (shown.frequency, shown.load_priority, shown.placeholders) == (None, None, ("top",))
        assert shown.personalized_data is not None
        assert (shown.personalized_data.ttl, shown.personalized_data.variant_id) == (0.0, None)
        assert shown.html == "<p>x</p>"

    async def test_large_bundle(self, content: ContentBlocksFixture) -> None:
        """A bundle may have thousands of blocks."""
        content.put(*(static(f"s{number}", placeholders=(f"place{number}",)) for number in range(3_000)))
        await content.app.start()
        assert await content.shown("place2999") == "s2999"

    async def test_unsupported_content(self, content: ContentBlocksFixture, caplog: pytest.LogCaptureFixture) -> None:
        """Blocks with content of other types are ignored without a warning."""
        content.put(static("n", content_type="native"), static("f", content_type="foo"), static("s1"))
        content.put(static("odd", content_type=5), check=False)
        await content.app.start()
        with caplog.at_level(logging.WARNING):
            assert {await content.shown() for _ in range(10)} == {"s1"}
        assert [each for each in caplog.records if "skipped" in each.message] == []
        assert content.requests() == ["bundle"]

    async def test_duplicate_id(self, content: ContentBlocksFixture) -> None:
        """Of several blocks with the same id the first one counts."""
        bundle = {"success": True, "in_app_content_blocks": [static("a", name="one"), static("a", name="two")]}
        content.sandbox.messages.set_response("bundle", json.dumps(bundle))
        await content.app.start()
        assert {(await content.block()).name for _ in range(10)} == {"one"}


class TestMemory:
    async def test_number_of_customers(self, content: ContentBlocksFixture) -> None:
        """The data of the least recently used customer is evicted."""
        content.put(personal())
        client = await content.app.start()
        content.loader.customers = CustomerCache(max_customers=3)
        for name in ("a", "b", "c", "a", "d", "a", "b"):
            await content.block(subject=client.for_customer({"registered": name}))
        assert len(content.loader.customers) == 3
        assert content.requests() == ["bundle"] + ["p1"] * 5

    async def test_size_of_data(self, content: ContentBlocksFixture) -> None:
        """Cached data has a maximum size; data that is larger is shown, but not cached."""
        content.put(
            personal(html=f"<p>{'x' * 10_000}</p>"), personal("huge", html="y" * 40_000, placeholders=("side",))
        )
        client = await content.app.start()
        content.loader.customers = CustomerCache(max_bytes=30_000)
        for number in range(9):
            await content.block(subject=client.for_customer({"registered": str(number)}))
            assert content.loader.customers.size <= 30_000
        assert len(content.loader.customers) == 2
        assert await content.shown("side") == "huge"
        assert (len(content.loader.customers), content.loader.customers.size) == (0, 0)

    async def test_number_of_projects(self, content: ContentBlocksFixture) -> None:
        """The bundle of the least recently used project is evicted."""
        content.put(static())
        client = await content.app.start()
        content.loader.bundles = LruCache(1)
        await content.block()
        await content.device("other").anonymize(ConfigurationChange(project=ExponeaProject("outlet", "key")))
        await content.idle()
        assert list(content.loader.bundles) == ["outlet"]
        assert await content.shown(subject=client) == "s1"

    async def test_previous_customers(self, content: ContentBlocksFixture) -> None:
        """The data of a device's previous customers is removed."""
        content.put(personal())
        client = await content.app.start()
        for name in ("a", "b", "c"):
            await content.block()
            await client.identify_customer(Customer({"registered": name}))
            await content.idle()
        assert (len(content.loader.customers), content.loader.customers.size) == (0, 0)
        await content.block()
        await client.anonymize()
        await content.idle()
        assert len(content.loader.customers) == 0


class TestPreloading:
    async def test_start(self, content: ContentBlocksFixture) -> None:
        """The bundle is loaded when the client starts, which creates no customer."""
        content.put(personal())
        await content.app.start(in_app_content_block_placeholders_auto_load=["top"])
        await content.idle()
        assert content.requests() == ["bundle"]
        assert await content.app.pending() == []
        assert await content.shown(subject=content.client.for_customer({"registered": "jane"})) == "p1"
        assert content.requests() == ["bundle", "p1"]

    async def test_first_activity(self, content: ContentBlocksFixture) -> None:
        """The first activity of a device loads the data of the configured placeholders."""
        content.put(personal("a"), personal("b", placeholders=("side", "top")), personal("c", placeholders=("else",)))
        await content.app.start(in_app_content_block_placeholders_auto_load=["top", "side"])
        await content.device("tg:1").get_customer_cookie()
        await content.idle()
        assert content.requests() == ["bundle", "a b"]
        await content.block(subject=content.device("tg:1"))
        assert content.requests() == ["bundle", "a b"]

    async def test_failure(self, content: ContentBlocksFixture) -> None:
        """A failed preload raises no error."""
        content.put(personal())
        content.fail("", status=403)
        client = await content.app.start(in_app_content_block_placeholders_auto_load=["top"])
        await client.get_customer_cookie()
        await content.idle()
        assert await content.shown() is None

    async def test_many_devices(self, content: ContentBlocksFixture, set_constants: SetConstants) -> None:
        """Data is preloaded for a limited number of devices at once."""
        set_constants(service, MAX_PRELOADS=2)
        content.put(personal())
        provider = BlockingTokenProvider(free=1)
        await content.app.start(customer_token_provider=provider, in_app_content_block_placeholders_auto_load=["top"])
        await content.idle()
        for number in range(10):
            await content.device(f"d{number}").get_customer_cookie()
        await provider.blocks()
        assert len(running("preloading content blocks")) == 2
        provider.unblock()
        await content.idle()
        assert content.requests() == ["bundle", "p1", "p1"]
        await content.device("late").get_customer_cookie()
        await content.idle()
        assert content.requests() == ["bundle", "p1", "p1", "p1"]

    @pytest.mark.parametrize(
        ("shows", "preloads", "placeholders", "requests"),
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
        content: ContentBlocksFixture,
        shows: bool,  # noqa: FBT001
        preloads: bool,  # noqa: FBT001
        placeholders: tuple[str, ...],
        requests: list[str],
    ) -> None:
        """An anonymize() renews the bundle if it is in use or preloaded, and then preloads the new customer's data."""
        content.put(personal())
        settings: dict[str, Any] = {
            "preload_messages": preloads,
            "in_app_content_block_placeholders_auto_load": placeholders,
        }
        client = await content.app.start(**settings)
        await client.get_customer_cookie()
        if shows:
            await content.block()
        await content.idle()
        before = len(content.requests())
        await client.anonymize()
        await content.idle()
        assert content.requests()[before:] == requests

    async def test_switch_of_the_project(self, content: ContentBlocksFixture) -> None:
        """Switching a device to another project loads the bundle of that project."""
        content.put(static())
        client = await content.app.start()
        await content.block()
        await client.anonymize(ConfigurationChange(project=ExponeaProject("outlet", "key")))
        await content.idle()
        paths = [each.path for each in content.sandbox.requests if each.path.endswith(BUNDLE)]
        assert paths == [f"/wxstatic/projects/{name}{BUNDLE}" for name in ("shop", "outlet")]

    async def test_stop(self, content: ContentBlocksFixture) -> None:
        """Stopping the integration cancels a preload, and starting the client begins it again."""
        content.put(personal())
        provider = BlockingTokenProvider(free=0)
        client = await content.app.start(
            customer_token_provider=provider, in_app_content_block_placeholders_auto_load=["top"]
        )
        await provider.blocks()
        await client.stop_integration(everyone=True)
        await content.idle()
        assert content.requests() == []
        provider.unblock()
        await client.start()
        await content.idle()
        assert content.requests() == ["bundle"]
