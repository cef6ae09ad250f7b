"""
The routes for messages, over real HTTP: what each tells, and what it refuses.
"""

import io
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import aiohttp
import pytest
from attrs import evolve
from helpers.sandbox_client import (
    BOB,
    CONSENT,
    JANE,
    MESSAGE,
    PERSONAL,
    PRODUCT,
    SEGMENT,
    STATIC,
    Response,
    SandboxClient,
)

from exponea_async.sandbox import Fault, Project, Sandbox

PATHS = [
    ("POST", "/webxp/s/shop/inappmessages?compatibility=3"),
    ("GET", "/wxstatic/projects/shop/bundle-android.json?v=2"),
    ("GET", "/wxstatic/projects/shop/bundle-ios.json?v=2"),
    ("POST", "/webxp/s/shop/inappcontentblocks?v=2"),
    ("POST", "/webxp/projects/shop/appinbox/fetch"),
    ("POST", "/webxp/projects/shop/appinbox/markasread"),
    ("GET", "/webxp/projects/shop/segments?cookie=c1"),
    ("POST", "/webxp/projects/shop/cookies/c1/link-ids"),
    ("GET", "/data/v2/projects/shop/consent/categories"),
    ("POST", "/data/v2/projects/shop/customers/attributes"),
    ("POST", "/campaigns/send-self-check-notification?project_id=shop"),
]
POSTS = [path for method, path in PATHS if method == "POST"]


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as opened:
        yield opened


@pytest.fixture
def api(sandbox: Sandbox, session: aiohttp.ClientSession) -> SandboxClient:
    sandbox.engine.execute("shop", "customers", {"customer_ids": JANE, "properties": {"first_name": "<Jane>"}})
    return SandboxClient(session, sandbox.url)


class TestInAppMessages:
    async def test_they_are_told_in_order(self, api: SandboxClient, sandbox: Sandbox) -> None:
        """All definitions come in the envelope, in the order in which they were given."""
        sandbox.messages.in_app_messages.put(MESSAGE, {**MESSAGE, "id": "m2", "payload_html": "{{ nothing }}!"})

        reply = await api.in_app(JANE)

        assert (reply.status, reply.body["success"]) == (200, True)
        first, second = reply.body["results"]
        assert first == {**MESSAGE, "payload": {"title": "Hello &lt;Jane&gt;"}}
        assert second["payload_html"] == "!"

    async def test_none_is_an_empty_list(self, api: SandboxClient) -> None:
        """Without definitions the list is there, and empty."""
        assert (await api.in_app(JANE)).body == {"success": True, "results": []}

    @pytest.mark.parametrize("fields", [{"device": "fridge"}, {"device": None}, {"customer_ids": {"cookie": 1}}])
    async def test_wrong_requests(self, api: SandboxClient, fields: Any) -> None:
        """An unknown device, or ids that are none, are refused."""
        assert (await api.in_app(JANE, **fields)).status == 400

    @pytest.mark.parametrize("query", ["", "?compatibility=2"])
    async def test_another_version(self, api: SandboxClient, query: str) -> None:
        """Another version of the messages is refused."""
        body = {"customer_ids": JANE, "device": "ios"}
        assert (await api.request("POST", f"/webxp/s/shop/inappmessages{query}", body)).status == 400


class TestContentBlocks:
    @pytest.mark.parametrize("platform", ["android", "ios"])
    async def test_the_bundle_is_for_everybody(self, api: SandboxClient, sandbox: Sandbox, platform: str) -> None:
        """The bundle has all blocks, without what is personal of them."""
        sandbox.messages.content_blocks.put(STATIC, {**PERSONAL, "for": {"registered": "bob@x.com"}})

        reply = await api.bundle(platform)

        personal = {name: PERSONAL[name] for name in ("id", "name", "placeholders")}
        assert reply.body == {"success": True, "in_app_content_blocks": [STATIC, personal]}

    async def test_personal_answers(self, api: SandboxClient, sandbox: Sandbox) -> None:
        """Each wanted block is answered: with content, as not for the customer, or as not existing."""
        other = {**PERSONAL, "id": "other", "for": {"registered": "bob@x.com"}}
        sandbox.messages.content_blocks.put(PERSONAL, other, STATIC)

        reply = await api.blocks(JANE, "other", "personal", "none", "static")

        assert reply.body["success"] is True
        other, personal, none, static = reply.body["data"]
        assert other == {"id": "other", "status": "filter_not_matched"}
        assert personal == {
            **PERSONAL["personal"],  # type: ignore[dict-item]
            "id": "personal",
            "status": "OK",
            "content": {"html": "<b>&lt;Jane&gt;</b>"},
        }
        assert none == {"id": "none", "status": "does_not_exist"}
        assert static["content"] == {"html": "<p>hi</p>"}

    async def test_one_of_many_variants(self, api: SandboxClient, sandbox: Sandbox) -> None:
        """Of a list of personal parts, the first one for the customer is told."""
        part: Any = PERSONAL["personal"]
        parts = [{**part, "variant_id": 7, "for": {"registered": "bob@x.com"}}, {**part, "variant_id": 8}]
        sandbox.messages.content_blocks.put({**PERSONAL, "personal": parts})

        assert [(await api.blocks(ids, "personal")).body["data"][0]["variant_id"] for ids in (BOB, JANE)] == [7, 8]

    @pytest.mark.parametrize("wanted", [1, "", None])
    async def test_wrong_ids(self, api: SandboxClient, wanted: Any) -> None:
        """An id of a block is a text."""
        assert (await api.blocks(JANE, "a", wanted)).status == 400

    async def test_other_versions(self, api: SandboxClient) -> None:
        """Both routes want their version."""
        body = {"customer_ids": JANE, "content_block_ids": []}
        assert (await api.request("GET", "/wxstatic/projects/shop/bundle-ios.json")).status == 400
        assert (await api.request("GET", "/wxstatic/projects/shop/bundle-tv.json?v=2")).status == 404
        assert (await api.request("POST", "/webxp/s/shop/inappcontentblocks?v=1", body)).status == 400


class TestSegments:
    async def test_by_the_customer_of_the_cookie(self, api: SandboxClient, sandbox: Sandbox) -> None:
        """The customer whose cookie it is gets its segments, without an envelope; custom categories are there too."""
        sandbox.messages.segments["discovery"].put(SEGMENT, to={"registered": "jane@x.com"})
        sandbox.messages.segments["own"].put({**SEGMENT, "id": "s2"})

        assert (await api.segments()).body == {
            "content": [],
            "discovery": [SEGMENT],
            "merchandising": [],
            "own": [{**SEGMENT, "id": "s2"}],
        }

    async def test_an_unknown_cookie(self, api: SandboxClient, sandbox: Sandbox) -> None:
        """A cookie that the books don't know has no segments, not even those of everybody."""
        sandbox.messages.segments["discovery"].put(SEGMENT)

        body = (await api.segments("?cookie=nobody")).body

        assert body == {"content": [], "discovery": [], "merchandising": []}

    @pytest.mark.parametrize("query", ["", "?cookie="])
    async def test_without_a_cookie(self, api: SandboxClient, query: str) -> None:
        """A cookie is needed."""
        assert (await api.segments(query)).status == 400

    async def test_linking(self, api: SandboxClient, sandbox: Sandbox) -> None:
        """Linking makes the cookie the customer's, in the books too; odd characters stay what they are."""
        sandbox.messages.segments["content"].put(SEGMENT, to={"registered": "jane@x.com"})

        reply = await api.link("new%2Fc%20%26", {"registered": "jane@x.com"})

        assert (reply.status, reply.body) == (200, {})
        customer = sandbox.engine.customer("shop", {"cookie": "new/c &"})
        assert customer is not None
        assert customer.ids["registered"] == ("jane@x.com",)
        assert (await api.segments("?cookie=new%2Fc%20%26")).body["content"] == [SEGMENT]

    @pytest.mark.parametrize("ids", [{}, None, [], {"registered": ""}, {"registered": "j", "cookie": "c"}])
    async def test_wrong_links(self, api: SandboxClient, ids: Any) -> None:
        """At least one external id is needed, and the cookie is none."""
        assert (await api.link("c", ids)).status == 400

    async def test_a_link_that_can_t_be(self, api: SandboxClient, sandbox: Sandbox) -> None:
        """Ids of two customers can't be linked."""
        sandbox.engine.execute("shop", "customers", {"customer_ids": {"registered": "bob", "loyalty": "7"}})

        reply = await api.link("c9", {"registered": "jane@x.com", "loyalty": "7"})

        assert reply.status == 400
        assert "different customers" in reply.body["errors"][0]


class TestConsents:
    async def test_categories(self, api: SandboxClient, sandbox: Sandbox) -> None:
        """The categories come in the envelope."""
        sandbox.messages.consents.put(CONSENT)

        assert (await api.consents()).body == {"success": True, "results": [CONSENT]}


class TestAttributes:
    async def test_recommendations(self, api: SandboxClient, sandbox: Sandbox) -> None:
        """An engine's items are told as many as wanted, with the wanted fields of the catalog."""
        items = [{**PRODUCT, "item_id": f"sku-{number}"} for number in range(12)]
        sandbox.messages.recommendations["pop"].put(*items)
        wanted = {"type": "recommendation", "id": "pop", "fillWithRandom": True}

        plain = (await api.attributes(JANE, wanted)).body["results"][0]
        narrow = {**wanted, "size": 1, "items": {"sku-1": "5"}, "catalogAttributesWhitelist": ["price"]}
        one = (await api.attributes(JANE, narrow)).body["results"][0]

        assert (plain["success"], len(plain["value"]), plain["value"][0]) == (True, 10, items[0])
        assert one["value"] == [{name: value for name, value in items[0].items() if name != "title"}]

    async def test_what_the_books_know(self, api: SandboxClient, sandbox: Sandbox) -> None:
        """Properties and ids are read from the books, all else from the definitions."""
        sandbox.messages.attributes["segmentation"].put({"id": "g1", "value": "vip"}, to={"registered": "jane@x.com"})
        sandbox.messages.attributes["consent"].put({"id": "sms", "value": False}, {"id": "newsletter", "value": True})
        wanted = [
            {"type": "property", "property": "first_name"},
            {"type": "id", "id": "registered"},
            {"type": "segmentation", "id": "g1"},
            {"type": "consent", "category": "newsletter"},
        ]

        reply = await api.attributes({"cookie": "c1"}, *wanted)

        assert [each["value"] for each in reply.body["results"]] == ["<Jane>", "jane@x.com", "vip", True]

    @pytest.mark.parametrize(
        "wanted",
        [
            {"type": "recommendation", "id": "none"},
            {"type": "property", "property": "none"},
            {"type": "expression", "id": "none"},
            {"type": "oddity", "id": "none"},
            {},
        ],
    )
    async def test_the_unknown(self, api: SandboxClient, wanted: Any) -> None:
        """What isn't known fails alone, and says why."""
        reply = await api.attributes(JANE, {"type": "property", "property": "first_name"}, wanted)

        assert (reply.status, reply.body["success"]) == (200, True)
        known, unknown = reply.body["results"]
        assert (known["success"], unknown["success"], bool(unknown["error"])) == (True, False, True)

    @pytest.mark.parametrize(
        "wanted",
        [
            5,
            {"type": "property"},
            {"type": "property", "property": 5},
            {"type": "recommendation", "id": "r", "size": 0},
            {"type": "recommendation", "id": "r", "size": True},
            {"type": "recommendation", "id": "r", "items": {"a": 5}},
            {"type": "recommendation", "id": "r", "no_track": "no"},
            {"type": "recommendation", "id": "r", "fillWithRandom": 1},
            {"type": "recommendation", "id": "r", "catalogAttributesWhitelist": [1]},
        ],
    )
    async def test_wrong_shapes(self, api: SandboxClient, wanted: Any) -> None:
        """An attribute that is asked for in a wrong shape is refused."""
        assert (await api.attributes(JANE, wanted)).status == 400

    async def test_none_at_all(self, api: SandboxClient) -> None:
        """At least one attribute has to be asked for."""
        assert (await api.attributes(JANE)).status == 400


class TestSelfCheck:
    async def test_it_succeeds(self, api: SandboxClient) -> None:
        """A check with a push token succeeds."""
        assert (await api.self_check()).body == {"success": True}

    @pytest.mark.parametrize("fields", [{"platform": "tv"}, {"push_notification_id": ""}, {"query": ""}])
    async def test_wrong_checks(self, api: SandboxClient, fields: Any) -> None:
        """A platform, a push token and a project are needed."""
        assert (await api.self_check(**fields)).status == 400


class TestAllRoutes:
    @pytest.mark.parametrize("path", POSTS)
    @pytest.mark.parametrize("body", [[], "text", {}, {"customer_ids": {}}, {"customer_ids": JANE, "message_ids": 5}])
    async def test_wrong_shapes(self, api: SandboxClient, path: str, body: Any) -> None:
        """A body of a wrong shape is refused with the platform's failure."""
        reply = await api.request("POST", path, body)

        assert (reply.status, reply.body["success"], bool(reply.body["errors"])) == (400, False, True)

    @pytest.mark.parametrize(("method", "path"), PATHS)
    async def test_keys(self, session: aiohttp.ClientSession, method: str, path: str) -> None:
        """Every route opens with the project's key only."""
        async with Sandbox(projects=[Project("shop", ["right"]), Project("blog", ["other"])]) as sandbox:
            api = SandboxClient(session, sandbox.url)
            keys = ("", "Token wrong", "Bearer right", "Token other", "Token right")
            statuses = [(await evolve(api, authorization=key).request(method, path, {})).status for key in keys]

        assert statuses[:4] == [401, 401, 401, 403]
        assert statuses[4] in {200, 400}

    @pytest.mark.parametrize(("method", "path"), PATHS)
    async def test_an_unknown_project(self, session: aiohttp.ClientSession, method: str, path: str) -> None:
        """No route knows a project that isn't there."""
        async with Sandbox(projects=[Project("blog", ["key"], jwt_secret="s")]) as sandbox:
            api = SandboxClient(session, sandbox.url)
            statuses = [
                (await evolve(api, authorization=f"{scheme} key").request(method, path, {})).status
                for scheme in ("Token", "Bearer")
            ]

        assert statuses[0] == 404
        assert statuses[1] in {401, 404}

    async def test_raw_answers(self, api: SandboxClient, sandbox: Sandbox) -> None:
        """A route can be made to give any bytes, for some time or for good."""
        calls: dict[Any, Callable[[], Awaitable[Response]]] = {
            "inappmessages": lambda: api.in_app(JANE),
            "bundle": api.bundle,
            "segments": api.segments,
        }
        for route, call in calls.items():
            sandbox.messages.set_response(route, b"\xff{", status=203, times=2)
            replies = [await call() for _ in range(3)]
            assert [reply.status for reply in replies] == [203, 203, 200]
            assert replies[0].raw == b"\xff{"

        sandbox.messages.set_response("consents", "null", content_type="text/plain")
        assert [(await api.consents()).raw for _ in range(2)] == [b"null", b"null"]
        sandbox.messages.clear_response("consents")
        assert (await api.consents()).body["results"] == []
        with pytest.raises(ValueError, match="route: must be one of"):
            sandbox.messages.set_response("nowhere", b"")  # type: ignore[arg-type]


class TestTraffic:
    async def test_faults_of_some_paths(self, api: SandboxClient, sandbox: Sandbox) -> None:
        """A fault can be for these routes only, chosen by a pattern."""
        sandbox.faults.add(Fault("status", status=503, paths="^/webxp/.*(segments|inapp)"))

        statuses = [(await call).status for call in (api.in_app(JANE), api.segments(), api.consents())]

        assert statuses == [503, 503, 200]

    async def test_faults_of_a_project(self, api: SandboxClient, sandbox: Sandbox) -> None:
        """The self-check names its project in the query, and faults know it."""
        sandbox.faults.add(Fault("status", status=500, project="shop"))

        assert [(await api.self_check()).status, (await api.self_check("?project_id=blog")).status] == [500, 200]

    async def test_a_cut_connection(self, api: SandboxClient, sandbox: Sandbox) -> None:
        """A fetch can be cut; what was asked is in the log all the same."""
        sandbox.faults.add(Fault("drop", times=1, paths="inapp"))

        with pytest.raises(aiohttp.ClientConnectionError):
            await api.in_app(JANE)

        assert (sandbox.requests[-1].status, sandbox.requests[-1].body["device"]) == (0, "android")

    async def test_the_rate_limit(self, session: aiohttp.ClientSession) -> None:
        """These routes count towards the rate limit."""
        async with Sandbox(rate_limit=1) as sandbox:
            api = SandboxClient(session, sandbox.url)
            assert 429 in [(await api.consents()).status for _ in range(3)]

    async def test_the_log(self, api: SandboxClient, sandbox: Sandbox) -> None:
        """The log holds the query, the scheme and the body, but no credential."""
        await api.in_app(JANE)
        await evolve(api, authorization="hidden").segments()
        for body in (b'{"much": "%s"}' % (b"x" * 40_000), b"{", b"[" * 300 + b"]" * 300):
            async with api.session.post(api.url + POSTS[0], data=body):
                pass

        first, second, *others = sandbox.requests
        assert first.target == "/webxp/s/shop/inappmessages?compatibility=3"
        assert (first.scheme, first.body) == ("Token", {"customer_ids": JANE, "device": "android"})
        assert (second.scheme, second.query, second.body) == ("", "cookie=c1", None)
        assert [each.body for each in others] == [None] * 3
        assert "hidden" not in str(sandbox.requests)

    async def test_a_body_that_is_too_large(self, api: SandboxClient) -> None:
        """A body that is too large is refused, and what is left of it isn't taken for a body."""
        body = io.BytesIO(b" " * 11_000_000)
        async with api.session.post(api.url + POSTS[0], data=body) as response:
            assert response.status == 413
