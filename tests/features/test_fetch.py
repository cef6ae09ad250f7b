"""
Recommendations, consents and attributes: the requests, and any response of the platform.
"""

import asyncio
import json
from typing import Any

import pytest
from attrs import evolve
from helpers.clients import Configure, Connect
from helpers.waiting import until
from hypothesis import given
from hypothesis import strategies as st

from exponea_async import (
    ClosedError,
    Exponea,
    InvalidEventError,
    NotStartedError,
    RequestRefusedError,
    UnavailableError,
)
from exponea_async.features.fetch.parsing import (
    attribute_queries,
    read_attributes,
    read_consents,
    read_recommendations,
    recommendation_query,
)
from exponea_async.messages import (
    Consent,
    ConsentSources,
    CustomerAttribute,
    Recommendation,
    RecommendationOptions,
)
from exponea_async.sandbox import Fault, Sandbox

OPTIONS = RecommendationOptions("66aa", fill_with_random=True)
ITEM = {"engine_name": "pop", "item_id": "sku-1", "recommendation_id": "r1", "recommendation_variant_id": None}
NEWSLETTER = {
    "id": "newsletter",
    "legitimate_interest": False,
    "sources": {
        "crm": True,
        "import": True,
        "page": True,
        "private_api": True,
        "public_api": False,
        "scenario": True,
        "list_unsubscribe": True,
    },
    "translations": {"": {"description": None, "name": "Newsletter"}, "en": {"name": "Newsletter"}},
}
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["id", "success", "value", "results", "error", "item_id", "x"]), inner)
    ),
    max_leaves=12,
)
VERBS = {
    "recommendations": lambda client: client.fetch_recommendations(OPTIONS),
    "consents": lambda client: client.fetch_consents(),
    "attributes": lambda client: client.fetch_attributes([{"type": "property", "property": "age"}]),
}
each_verb = pytest.mark.parametrize("name", VERBS)


def response(results: Any, **more: Any) -> bytes:
    """Return the body of a successful response."""
    return json.dumps({"success": True, "results": results, **more}).encode()


@pytest.fixture
async def client(connect: Connect) -> Exponea:
    return await connect(device=True, flush_mode="MANUAL")


class TestRecommendations:
    async def test_over_the_wire(self, client: Exponea, sandbox: Sandbox) -> None:
        """Options are sent under the platform's names, and the items are returned with their own data."""
        sandbox.messages.recommendations["66aa"].put({**ITEM, "title": "Mug", "price": 9.9})
        options = RecommendationOptions(
            "66aa",
            fill_with_random=False,
            size=3,
            items={"sku-1": "5"},
            no_track=True,
            catalog_attributes_whitelist=("title",),
        )
        (item,) = await client.fetch_recommendations(options)
        assert item == Recommendation("pop", "sku-1", "r1", None, {"title": "Mug"})
        body = sandbox.requests[-1].body
        assert body is not None
        assert body["customer_ids"] == {"cookie": await client.get_customer_cookie()}
        assert body["attributes"] == [
            {
                "type": "recommendation",
                "id": "66aa",
                "fillWithRandom": False,
                "size": 3,
                "items": {"sku-1": "5"},
                "no_track": True,
                "catalogAttributesWhitelist": ["title"],
            }
        ]

    def test_default_options_are_not_sent(self) -> None:
        """Options that are None are not sent."""
        assert recommendation_query(OPTIONS) == {
            "type": "recommendation",
            "id": "66aa",
            "fillWithRandom": True,
            "size": 10,
        }

    async def test_customer_tracker(self, client: Exponea, sandbox: Sandbox) -> None:
        """The request of a customer tracker has exactly its ids."""
        sandbox.messages.recommendations["66aa"].put(ITEM)
        assert len(await client.for_customer({"registered": "ann"}).fetch_recommendations(OPTIONS)) == 1
        assert sandbox.requests[-1].body is not None
        assert sandbox.requests[-1].body["customer_ids"] == {"registered": "ann"}

    @pytest.mark.parametrize(
        ("field", "value"),
        [
            ("id", ""),
            ("id", " "),
            ("id", None),
            ("id", "\ud800"),
            ("fill_with_random", 1),
            ("size", 0),
            ("size", True),
            ("size", 2.0),
            ("items", ["sku-1"]),
            ("items", {"sku-1": 5}),
            ("items", {1: "5"}),
            ("no_track", "yes"),
            ("catalog_attributes_whitelist", "title"),
            ("catalog_attributes_whitelist", [1]),
            ("catalog_attributes_whitelist", 7),
        ],
    )
    async def test_wrong_options(self, client: Exponea, sandbox: Sandbox, field: str, value: Any) -> None:
        """The error names the wrong option, and no request is sent."""
        with pytest.raises(InvalidEventError) as caught:
            await client.fetch_recommendations(evolve(OPTIONS, **{field: value}))
        assert caught.value.path.startswith(f"options.{field}")
        assert sandbox.request_count == 0

    async def test_options_of_another_type(self, client: Exponea) -> None:
        """Options of another type raise an error."""
        with pytest.raises(InvalidEventError, match="options"):
            await client.fetch_recommendations({"id": "66aa"})  # type: ignore[arg-type]

    async def test_unknown_engine(self, client: Exponea) -> None:
        """The error for an unknown engine carries the platform's reason."""
        with pytest.raises(RequestRefusedError, match="66aa"):
            await client.fetch_recommendations(OPTIONS)

    @pytest.mark.parametrize(
        ("body", "error"),
        [
            (response([]), RequestRefusedError),
            (b'{"success": true}', RequestRefusedError),
            (b'{"success": false, "errors": {"_global": ["no"]}}', RequestRefusedError),
            (response([{"success": False, "error": "no permission"}]), RequestRefusedError),
            (response([{"success": True, "value": None}]), RequestRefusedError),
            (response([{"success": True}]), RequestRefusedError),
            (response([{"value": [ITEM]}]), RequestRefusedError),
            (response([{"success": True, "value": 7}]), UnavailableError),
            (response(["x"]), UnavailableError),
            (response("x"), UnavailableError),
            (b"[]", UnavailableError),
            (b"null", UnavailableError),
            (b"", UnavailableError),
            (b"<html>", UnavailableError),
        ],
    )
    async def test_failures(self, client: Exponea, sandbox: Sandbox, body: bytes, error: type[Exception]) -> None:
        """A response without a list of items raises an error: a refusal where the platform says so."""
        sandbox.messages.set_response("attributes", body)
        with pytest.raises(error):
            await client.fetch_recommendations(OPTIONS)

    def test_malformed_items_are_skipped(self) -> None:
        """A malformed item does not affect the others; ids may be integers."""
        items = [7, {**ITEM, "item_id": None}, {"item_id": "x"}, {**ITEM, "item_id": 5, "recommendation_variant_id": 3}]
        read = read_recommendations(response([{"success": True, "value": [*items, {**ITEM, "item_id": True}]}]))
        assert read == [Recommendation("pop", "5", "r1")]


class TestConsents:
    async def test_over_the_wire(self, client: Exponea, sandbox: Sandbox) -> None:
        """Categories have sources and translations; the request says nothing about the customer."""
        sandbox.messages.consents.put(NEWSLETTER)
        sources = ConsentSources(
            created_from_crm=True,
            imported=True,
            from_consent_page=True,
            private_api=True,
            public_api=False,
            tracked_from_scenario=True,
        )
        translations: dict[str, dict[str, str | None]] = {
            "": {"description": None, "name": "Newsletter"},
            "en": {"name": "Newsletter"},
        }
        consent = Consent("newsletter", legitimate_interest=False, sources=sources, translations=translations)
        assert await client.fetch_consents() == [consent]
        request = sandbox.requests[-1]
        assert (request.method, request.query, request.body) == ("GET", "", None)

    async def test_no_categories(self, client: Exponea) -> None:
        """A project without categories returns an empty list."""
        assert await client.fetch_consents() == []

    def test_malformed_categories(self) -> None:
        """A category needs an id; other fields that are malformed are treated as missing."""
        malformed = {"id": "a", "legitimate_interest": "yes", "sources": [1], "translations": {"en": 5, "de": {"x": 1}}}
        expected = Consent("a", legitimate_interest=False, sources=ConsentSources(), translations={"en": {}, "de": {}})
        assert read_consents(response([None, {}, {"id": []}, malformed])) == [expected]


class TestAttributes:
    async def test_over_the_wire(self, client: Exponea, sandbox: Sandbox) -> None:
        """Each attribute is returned in its place, with its value or without success."""
        sandbox.messages.attributes["segmentation"].put({"id": "s1", "value": "VIP"})
        sandbox.messages.attributes["consent"].put({"id": "newsletter", "value": True})
        queries = [
            {"type": "segmentation", "id": "s1"},
            {"type": "prediction", "id": "p1"},
            {"type": "consent", "category": "newsletter"},
        ]
        first, second, third = await client.fetch_attributes(queries)
        assert first == CustomerAttribute(success=True, value="VIP")
        assert (second.success, second.value) == (False, None)
        assert second.error
        assert third == CustomerAttribute(success=True, value=True)
        assert sandbox.requests[-1].body is not None
        assert sandbox.requests[-1].body["attributes"] == queries

    async def test_no_attributes(self, client: Exponea, sandbox: Sandbox) -> None:
        """An empty query returns an empty list without a request."""
        assert await client.fetch_attributes([]) == []
        assert sandbox.request_count == 0

    @pytest.mark.parametrize(
        ("attributes", "path"),
        [
            ("age", "attributes"),
            ({"type": "property"}, "attributes"),
            (None, "attributes"),
            (["age"], "attributes[0]"),
            ([{}], "attributes[0].type"),
            ([{"type": ""}], "attributes[0].type"),
            ([{"type": "id", "id": "x"}, {"type": "property"}], "attributes[1].property"),
            ([{"type": "consent", "id": "x"}], "attributes[0].category"),
            ([{"type": "aggregate", "id": 5}], "attributes[0].id"),
            ([{"type": "new", "x": float("nan")}], "attributes[0]"),
            ([{"type": "new", "x": {1, 2}}], "attributes[0]"),
            ([{"type": "new", "x": "\ud800"}], "attributes[0]"),
        ],
    )
    def test_wrong_attributes(self, attributes: Any, path: str) -> None:
        """The error names the attribute that can't be queried."""
        with pytest.raises(InvalidEventError) as caught:
            attribute_queries(attributes)
        assert caught.value.path == path

    def test_unknown_types(self) -> None:
        """An attribute of an unknown type is sent unchanged."""
        assert attribute_queries([{"type": "new", "anything": [1]}]) == [{"type": "new", "anything": [1]}]

    def test_results_keep_their_places(self) -> None:
        """Malformed and missing results keep their places, and surplus results are left out."""
        deep = b'{"success": true, "value": ' + b"[" * 100_000 + b"]" * 100_000 + b"}"
        body = b'{"success": true, "results": [7, {"success": true, "value": 1}, ' + deep + b"]}"
        results = read_attributes(body, 4)
        assert [each.success for each in results] == [False, True, False, False]
        assert all(each.error for each in results if not each.success)
        assert read_attributes(response([{"success": True, "value": 1}] * 3), 1) == [CustomerAttribute(True, 1)]  # noqa: FBT003


class TestAllVerbs:
    @each_verb
    async def test_retries(self, client: Exponea, sandbox: Sandbox, name: str) -> None:
        """Without a usable response three attempts are made, and then the error is raised."""
        sandbox.faults.add(Fault("status", status=503))
        with pytest.raises(UnavailableError) as caught:
            await VERBS[name](client)
        assert caught.value.status == 503
        assert sandbox.request_count == 3

    @each_verb
    async def test_dropped_connections(self, client: Exponea, sandbox: Sandbox, name: str) -> None:
        """Two dropped connections do not make the call fail."""
        sandbox.faults.add(Fault("drop", times=2))
        sandbox.messages.recommendations["66aa"].put(ITEM)
        await VERBS[name](client)
        assert sandbox.request_count == 3

    @each_verb
    @pytest.mark.parametrize("status", [400, 401, 403, 404])
    async def test_refusals(self, client: Exponea, sandbox: Sandbox, name: str, status: int) -> None:
        """A refusal is raised with its status, without another attempt."""
        sandbox.faults.add(Fault("status", status=status))
        with pytest.raises(RequestRefusedError) as caught:
            await VERBS[name](client)
        assert caught.value.status == status
        assert sandbox.request_count == 1

    @each_verb
    async def test_stopped(self, client: Exponea, sandbox: Sandbox, name: str) -> None:
        """A stopped integration returns an empty list, and sends no request."""
        await client.stop_integration(everyone=True)
        assert await VERBS[name](client) == []
        assert sandbox.request_count == 0

    @each_verb
    @pytest.mark.parametrize("end", ["stop", "close"])
    async def test_the_end_of_the_client_between_two_attempts(
        self, client: Exponea, sandbox: Sandbox, name: str, end: str
    ) -> None:
        """The call does not wait for the next attempt, for which the platform asks to wait."""
        sandbox.faults.add(Fault("status", status=503, retry_after=25))
        fetching = asyncio.ensure_future(VERBS[name](client))
        await until(lambda: sandbox.request_count == 1)
        began = asyncio.get_running_loop().time()
        await (client.stop_integration(everyone=True) if end == "stop" else client.aclose(timeout=0))
        await asyncio.wait([fetching])
        assert asyncio.get_running_loop().time() - began < 20
        if end == "stop":
            assert fetching.result() == []
        else:
            with pytest.raises(ClosedError):
                fetching.result()

    @each_verb
    async def test_client_that_does_not_run(self, connect: Connect, configure: Configure, name: str) -> None:
        """Before the start and after the end of the client the verbs raise an error."""
        client = Exponea(configure())
        with pytest.raises(NotStartedError):
            await VERBS[name](client)
        client = await connect()
        await client.aclose()
        with pytest.raises(ClosedError):
            await VERBS[name](client)

    @each_verb
    async def test_client_is_closed_during_a_call(self, client: Exponea, sandbox: Sandbox, name: str) -> None:
        """Closing the client ends calls that wait for a response."""
        sandbox.faults.add(Fault("latency", seconds=60))
        waiting = asyncio.create_task(VERBS[name](client))
        await until(lambda: sandbox.request_count > 0)
        await client.aclose()
        with pytest.raises((ClosedError, UnavailableError)):
            await asyncio.wait_for(waiting, 60)

    @each_verb
    @given(value=JSON)
    def test_any_json(self, name: str, value: Any) -> None:
        """Any JSON is read, or raises an error of this package."""
        read: Any = {
            "recommendations": read_recommendations,
            "consents": read_consents,
            "attributes": lambda body: read_attributes(body, 2),
        }[name]
        for body in (
            json.dumps(value).encode(),
            response(value),
            response([value]),
            response([{"success": True, "value": value}]),
        ):
            try:
                assert isinstance(read(body), list)
            except (RequestRefusedError, UnavailableError):
                continue

    async def test_large_response(self, client: Exponea, sandbox: Sandbox) -> None:
        """A large response is read on a thread, and returned whole."""
        items = [{**ITEM, "item_id": str(number), "text": "x" * 1000} for number in range(300)]
        sandbox.messages.recommendations["66aa"].put(*items)
        found = await client.fetch_recommendations(evolve(OPTIONS, size=300))
        assert [item.item_id for item in found] == [str(number) for number in range(300)]
