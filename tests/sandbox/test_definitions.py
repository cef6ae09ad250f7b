"""
Definitions of messages: in Python, from files and over HTTP, and the errors of invalid ones.
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


def customer(**properties: Any) -> CustomerView:
    return CustomerView("shop", 1, {"registered": ("jane@x.com",)}, properties, 0)


class TestFiles:
    def test_json(self, tmp_path: Path) -> None:
        """A JSON file can define everything, and as_dict() returns the same."""
        path = tmp_path / "all.json"
        path.write_text(json.dumps(ALL))
        definitions = Definitions()

        definitions.load(path)

        assert definitions.as_dict() == ALL

    def test_toml(self, tmp_path: Path) -> None:
        """A TOML file with the same keys is loaded too."""
        path = tmp_path / "some.toml"
        path.write_text(TOML)
        definitions = Definitions()

        definitions.load(str(path))

        (message,) = definitions.in_app_messages.for_customer("shop", customer(vip=True, first_name="J"))
        assert (message["payload_html"], "for" in message) == ("<b>J</b>", False)
        assert definitions.in_app_messages.for_customer("shop", customer(vip=False)) == []
        (item,) = definitions.inbox.for_customer("blog", customer())
        assert (item["is_read"], item["create_time"] > 1e9) == (False, True)
        assert definitions.inbox.for_customer("shop", customer()) == []

    @pytest.mark.parametrize(
        ("name", "content", "reason"),
        [
            ("a.json", "{", "is not valid JSON"),
            ("a.json", "[]", "expected an object, got list"),
            ("a.toml", "= 5", "is not valid TOML"),
            ("a.yaml", "", "a .json or a .toml"),
            ("a.toml", "[[inbox]]\nid = 'a'\ntype = 'push'\nsent = 2026-01-01", r"inbox\[0\].sent.*JSON"),
            ("none/a.json", None, "can't be read: No such file"),
        ],
    )
    def test_unreadable_files(self, tmp_path: Path, name: str, content: str | None, reason: str) -> None:
        """The error for an unreadable file gives the reason."""
        path = tmp_path / name
        if content is not None:
            path.write_text(content)

        with pytest.raises(DefinitionError, match=reason):
            Definitions().load(path)


def invalid(section: str, element: Any, **changes: Any) -> dict[str, Any]:
    return {section: [element, {**element, "id": "x", **changes}]}


DATES = MESSAGE["date_filter"]


class TestErrors:
    @pytest.mark.parametrize(
        ("source", "path"),
        [
            (invalid("in_app_messages", MESSAGE, id=None), "in_app_messages[1].id"),
            (invalid("in_app_messages", MESSAGE, id=5), "in_app_messages[1].id"),
            (invalid("in_app_messages", MESSAGE, frequency="often"), "in_app_messages[1].frequency"),
            (invalid("in_app_messages", MESSAGE, variant_id=True), "in_app_messages[1].variant_id"),
            (invalid("in_app_messages", MESSAGE, is_html=1), "in_app_messages[1].is_html"),
            (invalid("in_app_messages", MESSAGE, load_delay=-1), "in_app_messages[1].load_delay"),
            (invalid("in_app_messages", MESSAGE, payload=[]), "in_app_messages[1].payload"),
            (invalid("in_app_messages", MESSAGE, payload={"x": float("nan")}), "in_app_messages[1].payload.x"),
            (invalid("in_app_messages", MESSAGE, payload={"x": [{5: 1}]}), "in_app_messages[1].payload.x[0]"),
            (invalid("in_app_messages", MESSAGE, date_filter={}), "in_app_messages[1].date_filter.enabled"),
            (invalid("in_app_messages", MESSAGE, trigger={"event_type": "a", "filter": 5}),
             "in_app_messages[1].trigger.filter"),
            (invalid("in_app_messages", MESSAGE, **{"for": {}}), "in_app_messages[1].for"),
            (invalid("in_app_messages", MESSAGE, **{"for": {"registered": 5}}), "in_app_messages[1].for.registered"),
            (invalid("in_app_messages", MESSAGE, **{"for": {"properties": 5}}), "in_app_messages[1].for.properties"),
            ({"in_app_messages": MESSAGE}, "in_app_messages"),
            ({"in_app_messages": [5]}, "in_app_messages[0]"),
            (invalid("content_blocks", STATIC, placeholders="top"), "content_blocks[1].placeholders"),
            (invalid("content_blocks", STATIC, content_type=None), "content_blocks[1]"),
            (invalid("content_blocks", STATIC, **{"for": {"registered": "j"}}), "content_blocks[1].for"),
            (invalid("content_blocks", STATIC, content={"html": str}), "content_blocks[1].content.html"),
            (invalid("content_blocks", PERSONAL, placeholders=[str]), "content_blocks[1].placeholders"),
            (invalid("content_blocks", PERSONAL, personal={}), "content_blocks[1].personal.ttl_seconds"),
            (invalid("content_blocks", PERSONAL, personal=[5]), "content_blocks[1].personal[0]"),
            ({"content_blocks": [str]}, "content_blocks[0]"),
            (invalid("inbox", ITEM, type="survey"), "inbox[1].type"),
            (invalid("inbox", ITEM, create_time="now"), "inbox[1].create_time"),
            (invalid("consents", CONSENT, sources={"crm": "yes"}), "consents[1].sources"),
            (invalid("consents", CONSENT, translations={"en": {"name": 5}}), "consents[1].translations"),
            (invalid("consents", CONSENT, more=[str]), "consents[1].more[0]"),
            (invalid("consents", CONSENT, **{"for": {"registered": "j"}}), "consents[1].for"),
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
    def test_the_path_of_the_error(self, source: dict[str, Any], path: str) -> None:
        """An error contains the path of the invalid value, and nothing of the source is defined."""
        definitions = Definitions()

        with pytest.raises(DefinitionError) as caught:
            definitions.load({"inbox": [ITEM], "recommendations": {"new": []}, **source})

        assert caught.value.path == path
        assert str(caught.value).startswith(f"{path}: ")
        assert definitions.as_dict() == {}

    def test_put(self) -> None:
        """If one of several elements is invalid, none of them is defined."""
        definitions = Definitions()

        with pytest.raises(
            DefinitionError, match=r"^segments.discovery\[1\].id: is missing; expected a non-empty string$"
        ):
            definitions.segments["discovery"].put(SEGMENT, {"segmentation_id": "g"})
        with pytest.raises(DefinitionError, match=r"^inbox\[0\]: expected an object, got 5$"):
            definitions.inbox.put(5, to={"registered": "j"})

        assert definitions.inbox.for_customer("shop", customer()) == []


class TestChanges:
    def test_the_same_id_replaces(self) -> None:
        """An element replaces the one with the same id and condition, at its position."""
        section = Definitions().inbox
        section.put(ITEM, {**ITEM, "id": "i2"})

        section.put({**ITEM, "type": "html"})

        assert [(each["id"], each["type"]) for each in section.as_list(None)] == [("i1", "html"), ("i2", "push")]

    def test_the_first_condition_that_is_met(self) -> None:
        """Of several elements with one id, the first whose condition is met is returned."""
        section = Definitions().in_app_messages
        section.put({**MESSAGE, "variant_id": 1, "for": {"registered": "bob"}}, {**MESSAGE, "variant_id": 2})
        section.put({**MESSAGE, "variant_id": 3}, to={"properties": {"vip": True}})

        assert [each["variant_id"] for each in section.for_customer("shop", customer(vip=True))] == [2]

    def test_change(self) -> None:
        """Fields of an element can be changed, but not to invalid values."""
        section = Definitions().inbox
        section.put(ITEM)

        section.change("i1", {"type": "html"})
        with pytest.raises(DefinitionError, match=r"inbox\[i1\].type"):
            section.change("i1", {"type": 5})
        section.change("i1", {"id": "i9"})

        assert [(each["id"], each["type"]) for each in section.as_list(None)] == [("i9", "html")]
        with pytest.raises(KeyError):
            section.change("i1", {})

    def test_change_of_unchecked_elements(self) -> None:
        """An element that was defined without a check can be changed to any values."""
        section = Definitions().segments["own"]
        section.put({"id": "s"}, check=False)

        section.change("s", {"segmentation_id": 5})

        assert section.as_list(None) == [{"id": "s", "segmentation_id": 5}]

    def test_section_groups(self) -> None:
        """A category always has the same section; an engine may have no items."""
        definitions = Definitions()
        definitions.segments["own"].put(SEGMENT)
        definitions.segments["own"].put({**SEGMENT, "id": "s2"})
        definitions.recommendations["pop"].put()

        assert [each["id"] for each in definitions.segments["own"].as_list(None)] == ["s1", "s2"]
        assert definitions.recommendations.names("shop") == ["pop"]
        assert definitions.recommendations.names("blog") == ["pop"]

    def test_remove(self) -> None:
        """An element is removed by its id, a callable by the callable itself."""
        section = Definitions().inbox
        section.put(ITEM, function := lambda _: ITEM)

        section.remove("i1")
        assert len(section.for_customer("shop", customer())) == 1
        section.remove(function)
        assert section.for_customer("shop", customer()) == []
        with pytest.raises(KeyError):
            section.remove("i1")

    def test_elements_of_a_project(self) -> None:
        """For a project, its own element replaces the one with the same id for every project."""
        section = Definitions().inbox
        section.put(ITEM, {**ITEM, "id": "i2"})
        section.put({**ITEM, "type": "html"}, project="shop")

        assert [(each["id"], each["type"]) for each in section.for_customer("shop", customer())] == [
            ("i2", "push"),
            ("i1", "html"),
        ]
        section.change("i1", {"type": "push"}, project="shop")
        section.remove("i1", project="shop")
        assert [each["id"] for each in section.for_customer("shop", customer())] == ["i1", "i2"]

    def test_definitions_are_copies(self) -> None:
        """A later change of the passed object doesn't change the definition."""
        section, element = Definitions().inbox, {**ITEM, "content": {"title": "a"}}
        section.put(element)

        element["content"]["title"] = "b"  # type: ignore[index]

        assert section.as_list(None)[0]["content"]["title"] == "a"


class TestCallables:
    async def test_callables_get_the_customer(self, sandbox: Sandbox) -> None:
        """A callable returns one element, many or none for a customer; conditions can be callables too."""
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

    async def test_unchecked_elements(self, sandbox: Sandbox) -> None:
        """Without a check any value can be sent, also twice with the same id."""
        elements = [5, None, {"id": 5}, {"id": "m1", "trigger": "<script>"}, {"id": "m1"}]
        sandbox.messages.in_app_messages.put(*elements, check=False)
        sandbox.messages.content_blocks.put("no block", {"id": "b", "personal": 5}, check=False)
        sandbox.messages.content_blocks.put(str, check=False)

        async with aiohttp.ClientSession() as session:
            api = SandboxClient(session, sandbox.url)
            assert (await api.in_app(JANE)).body["results"] == elements
            assert (await api.bundle()).body["in_app_content_blocks"] == ["no block", {"id": "b"}]
            assert (await api.blocks(JANE, "b")).body["data"] == [5]


class TestSandbox:
    async def test_initial_definitions(self, tmp_path: Path) -> None:
        """A sandbox can start with definitions, and a reset restores them."""
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

    async def test_control_routes(self, sandbox: Sandbox, session: aiohttp.ClientSession) -> None:
        """Definitions are added, returned and removed over HTTP; a callable is returned as "(a callable)"."""
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
    async def test_invalid_requests(
        self, sandbox: Sandbox, session: aiohttp.ClientSession, options: Any, status: int
    ) -> None:
        """Invalid definitions are rejected over HTTP, and everything that a page of another origin could send."""
        async with session.post("/sandbox/messages", **options) as response:
            assert response.status == status
        assert sandbox.messages.as_dict() == {}

    async def test_replacing_everything(self, sandbox: Sandbox, session: aiohttp.ClientSession) -> None:
        """A PUT replaces all definitions, of every project; fixed responses stay."""
        sandbox.messages.load(ALL)
        sandbox.messages.set_response("segments", "{}")
        new = {"inbox": [{**ITEM, "is_read": True}], "projects": {"blog": {"consents": [CONSENT]}}}

        async with session.put("/sandbox/messages", json=new) as response:
            assert (response.status, await response.json()) == (200, new)
        assert sandbox.messages.take_response("segments") is not None
        async with session.put("/sandbox/messages", json={}) as response:
            assert await response.json() == {}

    @pytest.mark.parametrize(
        ("body", "path"),
        [
            ({"inbox": [ITEM, {}]}, "inbox[1].id"),
            ({"inbox": [ITEM], "inbx": []}, "inbx"),
            ({"segments": {"own": [SEGMENT, 5]}}, "segments.own[1]"),
            ({"projects": {"blog": {"inbox": {}}}}, "projects.blog.inbox"),
            ({"inbox": ["(a callable)"]}, "inbox[0]"),
        ],
    )
    async def test_invalid_replacements(
        self, sandbox: Sandbox, session: aiohttp.ClientSession, body: Any, path: str
    ) -> None:
        """Invalid definitions replace nothing, and the error has the path of the problem."""
        sandbox.messages.load(ALL)

        async with session.put("/sandbox/messages", json=body) as response:
            assert response.status == 400
            (error,) = (await response.json())["errors"]

        assert error.startswith(f"{path}: ")
        assert sandbox.messages.as_dict() == ALL
