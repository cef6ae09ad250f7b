"""
Definitions of messages: by Python, from files, over HTTP, and what is said about broken ones.
"""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from helpers.sandbox_client import BOB, CONSENT, ITEM, JANE, MESSAGE, PERSONAL, PRODUCT, SEGMENT, STATIC, SandboxClient

from exponea_async.sandbox import CustomerView, DefinitionError, Definitions, Sandbox

ALL = {
    "in_app_messages": [MESSAGE],
    "content_blocks": [STATIC, PERSONAL],
    "inbox": [{**ITEM, "is_read": False}],
    "consents": [CONSENT],
    "segments": {"discovery": [SEGMENT]},
    "recommendations": {"pop": [PRODUCT], "none": []},
    "attributes": {"segmentation": [{"id": "g1", "value": "vip", "for": {"properties": {"vip": True}}}]},
    "projects": {"blog": {"inbox": [{**ITEM, "id": "other", "is_read": True}], "segments": {"own": [SEGMENT]}}},
}
TOML = """
[[in_app_messages]]
id = "m1"
name = "Hello"
frequency = "always"
variant_id = 0
variant_name = "A"
payload_html = "<b>{{ first_name }}</b>"
is_html = true
date_filter = {enabled = false}
for = {registered = ["jane@x.com", "joe@x.com"], properties = {vip = true}}

[[segments.discovery]]
id = "s1"
segmentation_id = "g1"

[[projects.blog.inbox]]
id = "i1"
type = "push"
"""


def someone(**properties: Any) -> CustomerView:
    return CustomerView("shop", 1, {"registered": ("jane@x.com",)}, properties, 0)


class TestFiles:
    def test_json(self, tmp_path: Path) -> None:
        """A JSON file defines all there is, and is told again as it was."""
        path = tmp_path / "all.json"
        path.write_text(json.dumps(ALL))
        definitions = Definitions()

        definitions.load(path)

        assert definitions.as_dict() == ALL

    def test_toml(self, tmp_path: Path) -> None:
        """A TOML file has the same keys."""
        path = tmp_path / "some.toml"
        path.write_text(TOML)
        definitions = Definitions()

        definitions.load(str(path))

        (message,) = definitions.in_app_messages.for_customer("shop", someone(vip=True, first_name="J"))
        assert (message["payload_html"], "for" in message) == ("<b>J</b>", False)
        assert definitions.in_app_messages.for_customer("shop", someone(vip=False)) == []
        (item,) = definitions.inbox.for_customer("blog", someone())
        assert (item["is_read"], item["create_time"] > 1e9) == (False, True)
        assert definitions.inbox.for_customer("shop", someone()) == []

    @pytest.mark.parametrize(
        ("name", "text", "reason"),
        [
            ("a.json", "{", "is not valid JSON"),
            ("a.json", "[]", "expected an object, got list"),
            ("a.toml", "= 5", "is not valid TOML"),
            ("a.yaml", "", "a .json or a .toml"),
            ("a.toml", "[[inbox]]\nid = 'a'\ntype = 'push'\nsent = 2026-01-01", r"inbox\[0\].sent.*JSON"),
            ("none/a.json", None, "can't be read: No such file"),
        ],
    )
    def test_what_can_t_be_read(self, tmp_path: Path, name: str, text: str | None, reason: str) -> None:
        """A file that can't be read says why."""
        path = tmp_path / name
        if text is not None:
            path.write_text(text)

        with pytest.raises(DefinitionError, match=reason):
            Definitions().load(path)


def broken(section: str, element: Any, **changes: Any) -> dict[str, Any]:
    return {section: [element, {**element, "id": "x", **changes}]}


DATES = MESSAGE["date_filter"]


class TestBroken:
    @pytest.mark.parametrize(
        ("source", "place"),
        [
            (broken("in_app_messages", MESSAGE, id=None), "in_app_messages[1].id"),
            (broken("in_app_messages", MESSAGE, id=5), "in_app_messages[1].id"),
            (broken("in_app_messages", MESSAGE, frequency="often"), "in_app_messages[1].frequency"),
            (broken("in_app_messages", MESSAGE, variant_id=True), "in_app_messages[1].variant_id"),
            (broken("in_app_messages", MESSAGE, is_html=1), "in_app_messages[1].is_html"),
            (broken("in_app_messages", MESSAGE, load_delay=-1), "in_app_messages[1].load_delay"),
            (broken("in_app_messages", MESSAGE, payload=[]), "in_app_messages[1].payload"),
            (broken("in_app_messages", MESSAGE, payload={"x": float("nan")}), "in_app_messages[1].payload.x"),
            (broken("in_app_messages", MESSAGE, payload={"x": [{5: 1}]}), "in_app_messages[1].payload.x[0]"),
            (broken("in_app_messages", MESSAGE, date_filter={}), "in_app_messages[1].date_filter.enabled"),
            (broken("in_app_messages", MESSAGE, trigger={"event_type": "a", "filter": 5}),
             "in_app_messages[1].trigger.filter"),
            (broken("in_app_messages", MESSAGE, **{"for": {}}), "in_app_messages[1].for"),
            (broken("in_app_messages", MESSAGE, **{"for": {"registered": 5}}), "in_app_messages[1].for.registered"),
            (broken("in_app_messages", MESSAGE, **{"for": {"properties": 5}}), "in_app_messages[1].for.properties"),
            ({"in_app_messages": MESSAGE}, "in_app_messages"),
            ({"in_app_messages": [5]}, "in_app_messages[0]"),
            (broken("content_blocks", STATIC, placeholders="top"), "content_blocks[1].placeholders"),
            (broken("content_blocks", STATIC, content_type=None), "content_blocks[1]"),
            (broken("content_blocks", STATIC, **{"for": {"registered": "j"}}), "content_blocks[1].for"),
            (broken("content_blocks", STATIC, content={"html": str}), "content_blocks[1].content.html"),
            (broken("content_blocks", PERSONAL, placeholders=[str]), "content_blocks[1].placeholders"),
            (broken("content_blocks", PERSONAL, personal={}), "content_blocks[1].personal.ttl_seconds"),
            (broken("content_blocks", PERSONAL, personal=[5]), "content_blocks[1].personal[0]"),
            ({"content_blocks": [str]}, "content_blocks[0]"),
            (broken("inbox", ITEM, type="survey"), "inbox[1].type"),
            (broken("inbox", ITEM, create_time="now"), "inbox[1].create_time"),
            (broken("consents", CONSENT, sources={"crm": "yes"}), "consents[1].sources"),
            (broken("consents", CONSENT, translations={"en": {"name": 5}}), "consents[1].translations"),
            (broken("consents", CONSENT, more=[str]), "consents[1].more[0]"),
            (broken("consents", CONSENT, **{"for": {"registered": "j"}}), "consents[1].for"),
            ({"consents": [str]}, "consents[0]"),
            ({"segments": []}, "segments"),
            ({"segments": {"discovery": SEGMENT}}, "segments.discovery"),
            ({"segments": {"discovery": [{"id": "s"}]}}, "segments.discovery[0].segmentation_id"),
            ({"recommendations": {"pop": [{}]}}, "recommendations.pop[0].item_id"),
            ({"attributes": {"consent": [{"value": 5}]}}, "attributes.consent[0].id"),
            ({"projects": {"blog": {"inbox": [{}]}}}, "projects.blog.inbox[0].id"),
            ({"projects": {"blog": 5}}, "projects.blog"),
            ({"projects": {"blog": {"projects": {}}}}, "projects.blog.projects"),
            ({"messages": []}, "messages"),
        ],
    )  # fmt: skip
    def test_the_place_is_named(self, source: dict[str, Any], place: str) -> None:
        """A broken definition names its place, and nothing of its source is defined."""
        definitions = Definitions()

        with pytest.raises(DefinitionError) as caught:
            definitions.load({"inbox": [ITEM], "recommendations": {"new": []}, **source})

        assert caught.value.path == place
        assert str(caught.value).startswith(f"{place}: ")
        assert definitions.as_dict() == {}

    def test_by_python(self) -> None:
        """A broken element among others defines none of them."""
        definitions = Definitions()

        with pytest.raises(
            DefinitionError, match=r"^segments.discovery\[1\].id: is missing; expected a non-empty string$"
        ):
            definitions.segments["discovery"].put(SEGMENT, {"segmentation_id": "g"})
        with pytest.raises(DefinitionError, match=r"^inbox\[0\]: expected an object, got 5$"):
            definitions.inbox.put(5, to={"registered": "j"})

        assert definitions.inbox.for_customer("shop", someone()) == []


class TestChanges:
    def test_the_same_id_replaces(self) -> None:
        """An element of the same id and condition takes the other's place in the order."""
        section = Definitions().inbox
        section.put(ITEM, {**ITEM, "id": "i2"})

        section.put({**ITEM, "type": "html"})

        assert [(each["id"], each["type"]) for each in section.as_list(None)] == [("i1", "html"), ("i2", "push")]

    def test_the_first_that_applies(self) -> None:
        """Of several elements with one id and different conditions, the first that applies is told."""
        section = Definitions().in_app_messages
        section.put({**MESSAGE, "variant_id": 1, "for": {"registered": "bob"}}, {**MESSAGE, "variant_id": 2})
        section.put({**MESSAGE, "variant_id": 3}, to={"properties": {"vip": True}})

        assert [each["variant_id"] for each in section.for_customer("shop", someone(vip=True))] == [2]

    def test_changing(self) -> None:
        """Some fields of an element can be changed, but not into something wrong."""
        section = Definitions().inbox
        section.put(ITEM)

        section.change("i1", {"type": "html"})
        with pytest.raises(DefinitionError, match=r"inbox\[i1\].type"):
            section.change("i1", {"type": 5})
        section.change("i1", {"id": "i9"})

        assert [(each["id"], each["type"]) for each in section.as_list(None)] == [("i9", "html")]
        with pytest.raises(KeyError):
            section.change("i1", {})

    def test_changing_what_isn_t_checked(self) -> None:
        """What was handed over unchecked can be changed into anything."""
        section = Definitions().segments["own"]
        section.put({"id": "s"}, check=False)

        section.change("s", {"segmentation_id": 5})

        assert section.as_list(None) == [{"id": "s", "segmentation_id": 5}]

    def test_groups_keep_their_sections(self) -> None:
        """A category has one section, however often it is asked for; an engine may be there without items."""
        definitions = Definitions()
        definitions.segments["own"].put(SEGMENT)
        definitions.segments["own"].put({**SEGMENT, "id": "s2"})
        definitions.recommendations["pop"].put()

        assert [each["id"] for each in definitions.segments["own"].as_list(None)] == ["s1", "s2"]
        assert definitions.recommendations.names("shop") == ["pop"]
        assert definitions.recommendations.names("blog") == ["pop"]

    def test_removing(self) -> None:
        """An element is removed by its id, a callable by itself."""
        section = Definitions().inbox
        section.put(ITEM, made := lambda _: ITEM)

        section.remove("i1")
        assert len(section.for_customer("shop", someone())) == 1
        section.remove(made)
        assert section.for_customer("shop", someone()) == []
        with pytest.raises(KeyError):
            section.remove("i1")

    def test_a_project_s_own(self) -> None:
        """A project's own element stands for that of all with the same id."""
        section = Definitions().inbox
        section.put(ITEM, {**ITEM, "id": "i2"})
        section.put({**ITEM, "type": "html"}, project="shop")

        assert [(each["id"], each["type"]) for each in section.for_customer("shop", someone())] == [
            ("i2", "push"),
            ("i1", "html"),
        ]
        section.change("i1", {"type": "push"}, project="shop")
        section.remove("i1", project="shop")
        assert [each["id"] for each in section.for_customer("shop", someone())] == ["i1", "i2"]

    def test_what_was_given_stays_the_giver_s(self) -> None:
        """A definition is a copy."""
        section, given = Definitions().inbox, {**ITEM, "content": {"title": "a"}}
        section.put(given)

        given["content"]["title"] = "b"  # type: ignore[index]

        assert section.as_list(None)[0]["content"]["title"] == "a"


class TestCallables:
    async def test_they_see_the_customer(self, sandbox: Sandbox) -> None:
        """A callable makes one element, many or none for each customer; conditions may be callables too."""
        messages = sandbox.messages
        messages.in_app_messages.put(lambda customer: {**MESSAGE, "name": customer.ids["registered"][0]})
        messages.in_app_messages.put(lambda customer: [MESSAGE, 5] if customer.properties.get("vip") else None)
        messages.in_app_messages.put({**MESSAGE, "id": "c", "for": lambda customer: customer.key == 0})
        messages.in_app_messages.put({**MESSAGE, "id": "d", "payload": lambda customer: {"key": customer.key}})
        messages.in_app_messages.put(lambda _: MESSAGE, to={"registered": "bob@x.com"})
        messages.content_blocks.put({**PERSONAL, "personal": lambda customer: {"variant_id": customer.key}})
        sandbox.engine.execute("shop", "customers", {"customer_ids": JANE, "properties": {"vip": True}})

        async with aiohttp.ClientSession() as session:
            api = SandboxClient(session, sandbox.url)
            jane, bob = (await api.in_app(JANE)).body["results"], (await api.in_app(BOB)).body["results"]
            block = (await api.blocks(JANE, "personal")).body["data"]

        assert [jane[0]["name"], *jane[1:3], jane[3]["payload"]] == ["jane@x.com", MESSAGE, 5, {"key": 1}]
        assert [bob[0]["name"], bob[1]["id"], bob[2]["id"], bob[3:]] == ["bob@x.com", "c", "d", [MESSAGE]]
        assert block == [{"id": "personal", "status": "OK", "variant_id": 1}]

    async def test_broken_elements(self, sandbox: Sandbox) -> None:
        """Anything can be sent where it isn't checked, twice the same too."""
        broken = [5, None, {"id": 5}, {"id": "m1", "trigger": "<script>"}, {"id": "m1"}]
        sandbox.messages.in_app_messages.put(*broken, check=False)
        sandbox.messages.content_blocks.put("no block", {"id": "b", "personal": 5}, check=False)
        sandbox.messages.content_blocks.put(str, check=False)

        async with aiohttp.ClientSession() as session:
            api = SandboxClient(session, sandbox.url)
            assert (await api.in_app(JANE)).body["results"] == broken
            assert (await api.bundle()).body["in_app_content_blocks"] == ["no block", {"id": "b"}]
            assert (await api.blocks(JANE, "b")).body["data"] == [5]


class TestSandbox:
    async def test_from_the_start(self, tmp_path: Path) -> None:
        """A sandbox may begin with definitions, and a reset brings them back."""
        path = tmp_path / "all.json"
        path.write_text(json.dumps(ALL))
        sandbox = Sandbox(definitions=path)
        sandbox.messages.in_app_messages.clear()
        sandbox.messages.set_response("bundle", b"")

        sandbox.reset()

        assert sandbox.messages.as_dict() == ALL
        assert sandbox.messages.take_response("bundle") is None
        with pytest.raises(DefinitionError):
            Sandbox(definitions={"inbox": 5})

    @pytest.fixture
    async def session(self, sandbox: Sandbox) -> AsyncIterator[aiohttp.ClientSession]:
        async with aiohttp.ClientSession(sandbox.url) as opened:
            yield opened

    async def test_by_http(self, sandbox: Sandbox, session: aiohttp.ClientSession) -> None:
        """Definitions are added, told and taken away over HTTP; a callable is told as one."""
        async with session.post("/sandbox/messages", json=ALL) as response:
            assert (response.status, await response.json()) == (200, ALL)
        sandbox.messages.inbox.put(lambda _: None)
        async with session.get("/sandbox/messages") as response:
            assert (await response.json())["inbox"] == [*ALL["inbox"], "(a callable)"]  # type: ignore[misc]
        async with session.delete("/sandbox/messages") as response:
            assert await response.json() == {}

    @pytest.mark.parametrize(
        ("options", "status"),
        [
            ({"json": {"inbox": [{}]}}, 400),
            ({"json": []}, 400),
            ({"data": "{}", "headers": {"Content-Type": "text/plain"}}, 415),
        ],
    )
    async def test_wrong_ones_by_http(
        self, sandbox: Sandbox, session: aiohttp.ClientSession, options: Any, status: int
    ) -> None:
        """Broken definitions are refused over HTTP, and all that a foreign page could send."""
        async with session.post("/sandbox/messages", **options) as response:
            assert response.status == status
        assert sandbox.messages.as_dict() == {}
