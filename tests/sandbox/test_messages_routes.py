"""
The routes of messages, over real HTTP: what each returns and rejects.
"""

import io
from collections.abc import Awaitable, Callable
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
def api(sandbox: Sandbox, session: aiohttp.ClientSession) -> SandboxClient:
    sandbox.engine.execute("shop", "customers", {"customer_ids": JANE, "properties": {"first_name": "<Jane>"}})
    return SandboxClient(session, sandbox.url)


class TestInAppMessages:
    async def test_messages_are_returned_in_order(self, api: SandboxClient, sandbox: Sandbox) -> None:
        """All messages are returned, in the order in which they were defined."""
        sandbox.messages.in_app_messages.put(MESSAGE, {**MESSAGE, "id": "m2", "payload_html": "{{ nothing }}!"})

        response = await api.in_app(JANE)

        assert (response.status, response.body["success"]) == (200, True)
        first, second = response.body["results"]
        assert first == {**MESSAGE, "payload": {"title": "Hello &lt;Jane&gt;"}}
        assert second["payload_html"] == "!"

    async def test_without_messages(self, api: SandboxClient) -> None:
        """Without definitions the list of results is empty."""
        assert (await api.in_app(JANE)).body == {"success": True, "results": []}

    @pytest.mark.parametrize("fields", [{"device": "fridge"}, {"device": None}, {"customer_ids": {"cookie": 1}}])
    async def test_invalid_requests(self, api: SandboxClient, fields: Any) -> None:
        """A request with an unknown device or invalid ids is rejected."""
        assert (await api.in_app(JANE, **fields)).status == 400

    @pytest.mark.parametrize("query", ["", "?compatibility=2"])
    async def test_other_versions_of_messages(self, api: SandboxClient, query: str) -> None:
        """A request for another version of the messages is rejected."""
        body = {"customer_ids": JANE, "device": "ios"}
        assert (await api.request("POST", f"/webxp/s/shop/inappmessages{query}", body)).status == 400


class TestContentBlocks:
    @pytest.mark.parametrize("platform", ["android", "ios"])
    async def test_the_bundle_is_the_same_for_every_customer(
        self, api: SandboxClient, sandbox: Sandbox, platform: str
    ) -> None:
        """The bundle contains all blocks without their personal parts."""
        sandbox.messages.content_blocks.put(STATIC, {**PERSONAL, "for": {"registered": "bob@x.com"}})

        response = await api.bundle(platform)

        personal = {name: PERSONAL[name] for name in ("id", "name", "placeholders")}
        assert response.body == {"success": True, "in_app_content_blocks": [STATIC, personal]}

    async def test_personalised_blocks(self, api: SandboxClient, sandbox: Sandbox) -> None:
        """Each requested block has a result: its content, filter_not_matched, or does_not_exist."""
        other = {**PERSONAL, "id": "other", "for": {"registered": "bob@x.com"}}
        sandbox.messages.content_blocks.put(PERSONAL, other, STATIC)

        response = await api.blocks(JANE, "other", "personal", "none", "static")

        assert response.body["success"] is True
        other, personal, none, static = response.body["data"]
        assert other == {"id": "other", "status": "filter_not_matched"}
        assert personal == {
            **PERSONAL["personal"],  # type: ignore[dict-item]
            "id": "personal",
            "status": "OK",
            "content": {"html": "<b>&lt;Jane&gt;</b>"},
        }
        assert none == {"id": "none", "status": "does_not_exist"}
        assert static["content"] == {"html": "<p>hi</p>"}

    async def test_variants(self, api: SandboxClient, sandbox: Sandbox) -> None:
        """Of a list of personal parts, the first whose condition is met is returned."""
        part: Any = PERSONAL["personal"]
        parts = [{**part, "variant_id": 7, "for": {"registered": "bob@x.com"}}, {**part, "variant_id": 8}]
        sandbox.messages.content_blocks.put({**PERSONAL, "personal": parts})

        assert [(await api.blocks(ids, "personal")).body["data"][0]["variant_id"] for ids in (BOB, JANE)] == [7, 8]

    @pytest.mark.parametrize("block_id", [1, "", None])
    async def test_invalid_block_ids(self, api: SandboxClient, block_id: Any) -> None:
        """The id of a block has to be a non-empty string."""
        assert (await api.blocks(JANE, "a", block_id)).status == 400

    async def test_other_versions_of_blocks(self, api: SandboxClient) -> None:
        """Requests for another version or platform are rejected."""
        body = {"customer_ids": JANE, "content_block_ids": []}
        assert (await api.request("GET", "/wxstatic/projects/shop/bundle-ios.json")).status == 400
        assert (await api.request("GET", "/wxstatic/projects/shop/bundle-tv.json?v=2")).status == 404
        assert (await api.request("POST", "/webxp/s/shop/inappcontentblocks?v=1", body)).status == 400


class TestSegments:
    async def test_segments_of_the_customer_with_the_cookie(self, api: SandboxClient, sandbox: Sandbox) -> None:
        """The segments of the customer with the cookie are returned by category, including custom categories."""
        sandbox.messages.segments["discovery"].put(SEGMENT, to={"registered": "jane@x.com"})
        sandbox.messages.segments["own"].put({**SEGMENT, "id": "s2"})

        assert (await api.segments()).body == {
            "content": [],
            "discovery": [SEGMENT],
            "merchandising": [],
            "own": [{**SEGMENT, "id": "s2"}],
        }

    async def test_an_unknown_cookie(self, api: SandboxClient, sandbox: Sandbox) -> None:
        """An unknown cookie has no segments, not even those for every customer."""
        sandbox.messages.segments["discovery"].put(SEGMENT)

        body = (await api.segments("?cookie=unknown")).body

        assert body == {"content": [], "discovery": [], "merchandising": []}

    @pytest.mark.parametrize("query", ["", "?cookie="])
    async def test_without_a_cookie(self, api: SandboxClient, query: str) -> None:
        """A request for segments without a cookie is rejected."""
        assert (await api.segments(query)).status == 400

    async def test_link(self, api: SandboxClient, sandbox: Sandbox) -> None:
        """Linking adds the cookie to the stored customer; special characters are preserved."""
        sandbox.messages.segments["content"].put(SEGMENT, to={"registered": "jane@x.com"})

        response = await api.link("new%2Fc%20%26", {"registered": "jane@x.com"})

        assert (response.status, response.body) == (200, {})
        customer = sandbox.engine.customer("shop", {"cookie": "new/c &"})
        assert customer is not None
        assert customer.ids["registered"] == ("jane@x.com",)
        assert (await api.segments("?cookie=new%2Fc%20%26")).body["content"] == [SEGMENT]

    @pytest.mark.parametrize("ids", [{}, None, [], {"registered": ""}, {"registered": "j", "cookie": "c"}])
    async def test_invalid_links(self, api: SandboxClient, ids: Any) -> None:
        """A link needs at least one valid external id, and no cookie among them."""
        assert (await api.link("c", ids)).status == 400

    async def test_links_in_conflict(self, api: SandboxClient, sandbox: Sandbox) -> None:
        """Hard ids of two customers can't be linked."""
        sandbox.engine.execute("shop", "customers", {"customer_ids": {"registered": "bob", "loyalty": "7"}})

        response = await api.link("c9", {"registered": "jane@x.com", "loyalty": "7"})

        assert response.status == 400
        assert "different customers" in response.body["errors"][0]


class TestConsents:
    async def test_categories(self, api: SandboxClient, sandbox: Sandbox) -> None:
        """The consent categories are returned as they were defined."""
        sandbox.messages.consents.put(CONSENT)

        assert (await api.consents()).body == {"success": True, "results": [CONSENT]}


class TestAttributes:
    async def test_recommendations(self, api: SandboxClient, sandbox: Sandbox) -> None:
        """The result has the requested number of items with the requested catalog fields."""
        items = [{**PRODUCT, "item_id": f"sku-{number}"} for number in range(12)]
        sandbox.messages.recommendations["pop"].put(*items)
        query = {"type": "recommendation", "id": "pop", "fillWithRandom": True}

        default = (await api.attributes(JANE, query)).body["results"][0]
        filtered = {**query, "size": 1, "items": {"sku-1": "5"}, "catalogAttributesWhitelist": ["price"]}
        one = (await api.attributes(JANE, filtered)).body["results"][0]

        assert (default["success"], len(default["value"]), default["value"][0]) == (True, 10, items[0])
        assert one["value"] == [{name: value for name, value in items[0].items() if name != "title"}]

    async def test_values_of_attributes(self, api: SandboxClient, sandbox: Sandbox) -> None:
        """Properties and ids are those of the stored customer, other values come from the definitions."""
        sandbox.messages.attributes["segmentation"].put({"id": "g1", "value": "vip"}, to={"registered": "jane@x.com"})
        sandbox.messages.attributes["consent"].put({"id": "sms", "value": False}, {"id": "newsletter", "value": True})
        queries = [
            {"type": "property", "property": "first_name"},
            {"type": "id", "id": "registered"},
            {"type": "segmentation", "id": "g1"},
            {"type": "consent", "category": "newsletter"},
        ]

        response = await api.attributes({"cookie": "c1"}, *queries)

        assert [each["value"] for each in response.body["results"]] == ["<Jane>", "jane@x.com", "vip", True]

    @pytest.mark.parametrize(
        "query",
        [
            {"type": "recommendation", "id": "none"},
            {"type": "property", "property": "none"},
            {"type": "expression", "id": "none"},
            {"type": "oddity", "id": "none"},
            {},
        ],
    )
    async def test_unknown_attributes(self, api: SandboxClient, query: Any) -> None:
        """An unknown attribute fails with an error; the others succeed."""
        response = await api.attributes(JANE, {"type": "property", "property": "first_name"}, query)

        assert (response.status, response.body["success"]) == (200, True)
        known, unknown = response.body["results"]
        assert (known["success"], unknown["success"], bool(unknown["error"])) == (True, False, True)

    @pytest.mark.parametrize(
        "query",
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
    async def test_invalid_queries(self, api: SandboxClient, query: Any) -> None:
        """An invalid query is rejected."""
        assert (await api.attributes(JANE, query)).status == 400

    async def test_without_queries(self, api: SandboxClient) -> None:
        """A request for no attributes is rejected."""
        assert (await api.attributes(JANE)).status == 400


class TestSelfCheck:
    async def test_self_check(self, api: SandboxClient) -> None:
        """A self-check with a push token succeeds."""
        assert (await api.self_check()).body == {"success": True}

    @pytest.mark.parametrize("fields", [{"platform": "tv"}, {"push_notification_id": ""}, {"query": ""}])
    async def test_invalid_self_checks(self, api: SandboxClient, fields: Any) -> None:
        """A self-check needs a platform, a push token and a project."""
        assert (await api.self_check(**fields)).status == 400


class TestAllRoutes:
    @pytest.mark.parametrize("path", POSTS)
    @pytest.mark.parametrize("body", [[], "text", {}, {"customer_ids": {}}, {"customer_ids": JANE, "message_ids": 5}])
    async def test_invalid_bodies(self, api: SandboxClient, path: str, body: Any) -> None:
        """An invalid body is rejected in the platform's format of errors."""
        response = await api.request("POST", path, body)

        assert (response.status, response.body["success"], bool(response.body["errors"])) == (400, False, True)

    @pytest.mark.parametrize(("method", "path"), PATHS)
    async def test_api_keys(self, session: aiohttp.ClientSession, method: str, path: str) -> None:
        """Every route accepts only a key of the project."""
        async with Sandbox(projects=[Project("shop", ["right"]), Project("blog", ["other"])]) as sandbox:
            api = SandboxClient(session, sandbox.url)
            keys = ("", "Token wrong", "Bearer right", "Token other", "Token right")
            statuses = [(await evolve(api, authorization=key).request(method, path, {})).status for key in keys]

        assert statuses[:4] == [401, 401, 401, 403]
        assert statuses[4] in {200, 400}

    @pytest.mark.parametrize(("method", "path"), PATHS)
    async def test_an_unknown_project(self, session: aiohttp.ClientSession, method: str, path: str) -> None:
        """Every route rejects requests for an unknown project."""
        async with Sandbox(projects=[Project("blog", ["key"], jwt_secret="s")]) as sandbox:
            api = SandboxClient(session, sandbox.url)
            statuses = [
                (await evolve(api, authorization=f"{scheme} key").request(method, path, {})).status
                for scheme in ("Token", "Bearer")
            ]

        assert statuses[0] == 404
        assert statuses[1] in {401, 404}

    async def test_fixed_responses(self, api: SandboxClient, sandbox: Sandbox) -> None:
        """A route can return any bytes, for a number of requests or until they are cleared."""
        calls: dict[Any, Callable[[], Awaitable[Response]]] = {
            "inappmessages": lambda: api.in_app(JANE),
            "bundle": api.bundle,
            "segments": api.segments,
        }
        for route, call in calls.items():
            sandbox.messages.set_response(route, b"\xff{", status=203, times=2)
            responses = [await call() for _ in range(3)]
            assert [response.status for response in responses] == [203, 203, 200]
            assert responses[0].raw == b"\xff{"

        sandbox.messages.set_response("consents", "null", content_type="text/plain")
        assert [(await api.consents()).raw for _ in range(2)] == [b"null", b"null"]
        sandbox.messages.clear_response("consents")
        assert (await api.consents()).body["results"] == []
        with pytest.raises(ValueError, match="route: must be one of"):
            sandbox.messages.set_response("nowhere", b"")  # type: ignore[arg-type]


class TestTraffic:
    async def test_faults_of_some_paths(self, api: SandboxClient, sandbox: Sandbox) -> None:
        """A fault affects only paths that match its pattern."""
        sandbox.faults.add(Fault("status", status=503, paths="^/webxp/.*(segments|inapp)"))

        statuses = [(await call).status for call in (api.in_app(JANE), api.segments(), api.consents())]

        assert statuses == [503, 503, 200]

    async def test_faults_of_a_project(self, api: SandboxClient, sandbox: Sandbox) -> None:
        """A fault for a project affects a self-check, whose project is in the query."""
        sandbox.faults.add(Fault("status", status=500, project="shop"))

        assert [(await api.self_check()).status, (await api.self_check("?project_id=blog")).status] == [500, 200]

    async def test_a_dropped_connection(self, api: SandboxClient, sandbox: Sandbox) -> None:
        """A request whose connection was dropped is in the log, with its body."""
        sandbox.faults.add(Fault("drop", times=1, paths="inapp"))

        with pytest.raises(aiohttp.ClientConnectionError):
            await api.in_app(JANE)

        assert (sandbox.requests[-1].status, sandbox.requests[-1].body["device"]) == (0, "android")

    async def test_the_rate_limit(self, session: aiohttp.ClientSession) -> None:
        """Requests for messages count towards the rate limit."""
        async with Sandbox(rate_limit=1) as sandbox:
            api = SandboxClient(session, sandbox.url)
            assert 429 in [(await api.consents()).status for _ in range(3)]

    async def test_the_log(self, api: SandboxClient, sandbox: Sandbox) -> None:
        """The log contains the query, the scheme and the body, but no credential."""
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

    async def test_a_large_body(self, api: SandboxClient) -> None:
        """A body that is too large is rejected, and its unread rest is not taken for a body."""
        body = io.BytesIO(b" " * 11_000_000)
        async with api.session.post(api.url + POSTS[0], data=body) as response:
            assert response.status == 413
