"""
Recommendations, consents and attributes: what is asked, and what the platform may answer.
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
    checked,
    read_attributes,
    read_consents,
    read_recommendations,
    recommendation,
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


def answer(results: Any, **more: Any) -> bytes:
    return json.dumps({"success": True, "results": results, **more}).encode()


@pytest.fixture
async def client(connect: Connect) -> Exponea:
    return await connect(device=True, flush_mode="MANUAL")


class TestRecommendations:
    async def test_over_the_wire(self, client: Exponea, sandbox: Sandbox) -> None:
        """Options go out under the platform's mixed names, and items come back with their own data."""
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

    def test_usual_options(self) -> None:
        """What was not given is left out."""
        assert recommendation(OPTIONS) == {"type": "recommendation", "id": "66aa", "fillWithRandom": True, "size": 10}

    async def test_customer_trackers(self, client: Exponea, sandbox: Sandbox) -> None:
        """A customer tracker asks with exactly its ids."""
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
        """A wrong option is named, and nothing is asked."""
        with pytest.raises(InvalidEventError) as caught:
            await client.fetch_recommendations(evolve(OPTIONS, **{field: value}))
        assert caught.value.path.startswith(f"options.{field}")
        assert sandbox.request_count == 0

    async def test_no_options(self, client: Exponea) -> None:
        """What is no options is refused."""
        with pytest.raises(InvalidEventError, match="options"):
            await client.fetch_recommendations({"id": "66aa"})  # type: ignore[arg-type]

    async def test_no_such_engine(self, client: Exponea) -> None:
        """The platform's reason is told."""
        with pytest.raises(RequestRefusedError, match="66aa"):
            await client.fetch_recommendations(OPTIONS)

    @pytest.mark.parametrize(
        ("body", "error"),
        [
            (answer([]), RequestRefusedError),
            (b'{"success": true}', RequestRefusedError),
            (b'{"success": false, "errors": {"_global": ["no"]}}', RequestRefusedError),
            (answer([{"success": False, "error": "no permission"}]), RequestRefusedError),
            (answer([{"success": True, "value": None}]), RequestRefusedError),
            (answer([{"success": True}]), RequestRefusedError),
            (answer([{"value": [ITEM]}]), RequestRefusedError),
            (answer([{"success": True, "value": 7}]), UnavailableError),
            (answer(["x"]), UnavailableError),
            (answer("x"), UnavailableError),
            (b"[]", UnavailableError),
            (b"null", UnavailableError),
            (b"", UnavailableError),
            (b"<html>", UnavailableError),
        ],
    )
    async def test_failures(self, client: Exponea, sandbox: Sandbox, body: bytes, error: type[Exception]) -> None:
        """What is no list of items is an error: a refusal where the platform says so."""
        sandbox.messages.set_response("attributes", body)
        with pytest.raises(error):
            await client.fetch_recommendations(OPTIONS)

    def test_broken_items_are_left_out(self) -> None:
        """A broken item takes nothing from those beside it; ids may be whole numbers."""
        items = [7, {**ITEM, "item_id": None}, {"item_id": "x"}, {**ITEM, "item_id": 5, "recommendation_variant_id": 3}]
        read = read_recommendations(answer([{"success": True, "value": [*items, {**ITEM, "item_id": True}]}]))
        assert read == [Recommendation("pop", "5", "r1")]


class TestConsents:
    async def test_over_the_wire(self, client: Exponea, sandbox: Sandbox) -> None:
        """Categories come back with sources and translations; nothing is told of the customer."""
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
        asked = sandbox.requests[-1]
        assert (asked.method, asked.query, asked.body) == ("GET", "", None)

    async def test_none(self, client: Exponea) -> None:
        """A project without categories is no failure."""
        assert await client.fetch_consents() == []

    def test_broken_ones(self) -> None:
        """A category needs an id; of the rest, what is broken is as if it were not there."""
        broken = {"id": "a", "legitimate_interest": "yes", "sources": [1], "translations": {"en": 5, "de": {"x": 1}}}
        nothing = Consent("a", legitimate_interest=False, sources=ConsentSources(), translations={"en": {}, "de": {}})
        assert read_consents(answer([None, {}, {"id": []}, broken])) == [nothing]


class TestAttributes:
    async def test_over_the_wire(self, client: Exponea, sandbox: Sandbox) -> None:
        """Each attribute is answered in its place, with its value or without success."""
        sandbox.messages.attributes["segmentation"].put({"id": "s1", "value": "VIP"})
        sandbox.messages.attributes["consent"].put({"id": "newsletter", "value": True})
        asked = [
            {"type": "segmentation", "id": "s1"},
            {"type": "prediction", "id": "p1"},
            {"type": "consent", "category": "newsletter"},
        ]
        first, second, third = await client.fetch_attributes(asked)
        assert first == CustomerAttribute(success=True, value="VIP")
        assert (second.success, second.value) == (False, None)
        assert second.error
        assert third == CustomerAttribute(success=True, value=True)
        assert sandbox.requests[-1].body is not None
        assert sandbox.requests[-1].body["attributes"] == asked

    async def test_nothing_asked(self, client: Exponea, sandbox: Sandbox) -> None:
        """Who asks for nothing gets nothing, without a request."""
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
    def test_wrong_ones(self, attributes: Any, path: str) -> None:
        """What can't be asked is named."""
        with pytest.raises(InvalidEventError) as caught:
            checked(attributes)
        assert caught.value.path == path

    def test_other_types(self) -> None:
        """A type that we don't know is sent as it is."""
        assert checked([{"type": "new", "anything": [1]}]) == [{"type": "new", "anything": [1]}]

    def test_in_their_places(self) -> None:
        """Broken and missing answers keep their places, and surplus ones are left out."""
        deep = b'{"success": true, "value": ' + b"[" * 100_000 + b"]" * 100_000 + b"}"
        body = b'{"success": true, "results": [7, {"success": true, "value": 1}, ' + deep + b"]}"
        told = read_attributes(body, 4)
        assert [each.success for each in told] == [False, True, False, False]
        assert all(each.error for each in told if not each.success)
        assert read_attributes(answer([{"success": True, "value": 1}] * 3), 1) == [CustomerAttribute(True, 1)]  # noqa: FBT003


class TestAll:
    @each_verb
    async def test_retries(self, client: Exponea, sandbox: Sandbox, name: str) -> None:
        """Without a usable answer it is asked three times, and then it is given up."""
        sandbox.faults.add(Fault("status", status=503))
        with pytest.raises(UnavailableError) as caught:
            await VERBS[name](client)
        assert caught.value.status == 503
        assert sandbox.request_count == 3

    @each_verb
    async def test_bad_moments(self, client: Exponea, sandbox: Sandbox, name: str) -> None:
        """A bad moment of the network is not noticed."""
        sandbox.faults.add(Fault("drop", times=2))
        sandbox.messages.recommendations["66aa"].put(ITEM)
        await VERBS[name](client)
        assert sandbox.request_count == 3

    @each_verb
    @pytest.mark.parametrize("status", [400, 401, 403, 404])
    async def test_refusals(self, client: Exponea, sandbox: Sandbox, name: str, status: int) -> None:
        """A refusal is told with its status, and not asked again."""
        sandbox.faults.add(Fault("status", status=status))
        with pytest.raises(RequestRefusedError) as caught:
            await VERBS[name](client)
        assert caught.value.status == status
        assert sandbox.request_count == 1

    @each_verb
    async def test_stopped(self, client: Exponea, sandbox: Sandbox, name: str) -> None:
        """After the integration was stopped there is nothing, and nothing is asked."""
        await client.stop_integration()
        assert await VERBS[name](client) == []
        assert sandbox.request_count == 0

    @each_verb
    async def test_outside_of_its_life(self, connect: Connect, configure: Configure, name: str) -> None:
        """Before the start and after the end the verbs are refused."""
        client = Exponea(configure())
        with pytest.raises(NotStartedError):
            await VERBS[name](client)
        client = await connect()
        await client.aclose()
        with pytest.raises(ClosedError):
            await VERBS[name](client)

    @each_verb
    async def test_closed_meanwhile(self, client: Exponea, sandbox: Sandbox, name: str) -> None:
        """Who waits for an answer when the client closes does not wait for ever."""
        sandbox.faults.add(Fault("latency", seconds=60))
        waiting = asyncio.create_task(VERBS[name](client))
        await until(lambda: client._api._transport is not None)
        await client.aclose()
        with pytest.raises((ClosedError, UnavailableError)):
            await asyncio.wait_for(waiting, 30)

    @each_verb
    @given(value=JSON)
    def test_any_json(self, name: str, value: Any) -> None:
        """Any JSON is read, or is an error of ours."""
        read: Any = {
            "recommendations": read_recommendations,
            "consents": read_consents,
            "attributes": lambda body: read_attributes(body, 2),
        }[name]
        for body in (
            json.dumps(value).encode(),
            answer(value),
            answer([value]),
            answer([{"success": True, "value": value}]),
        ):
            try:
                assert isinstance(read(body), list)
            except (RequestRefusedError, UnavailableError):
                continue

    async def test_large_ones(self, client: Exponea, sandbox: Sandbox) -> None:
        """A large answer is read away from the event loop."""
        items = [{**ITEM, "item_id": str(number), "text": "x" * 1000} for number in range(300)]
        sandbox.messages.recommendations["66aa"].put(*items)
        told = await client.fetch_recommendations(evolve(OPTIONS, size=300))
        assert [item.item_id for item in told] == [str(number) for number in range(300)]
