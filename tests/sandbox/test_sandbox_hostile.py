"""
Hostile data in the log of the sandbox, over real HTTP: it is shown as it is, and makes no route fail.
"""

import json
from typing import Any

import aiohttp
import pytest
from helpers.sandbox_engine import PROJECT, track
from helpers.sandbox_page import Page, event, update

from exponea_async.sandbox import Sandbox

BIDI = "\u202etxt.exe\u2066\u200b"
MARKUP = "<script>alert(1)</script>\"'&<!--"
CONTROL = "\x00\x1b[2J\r\n\x7f\u2028"
STRINGS = [BIDI, MARKUP, CONTROL, "💥" * 50, "__proto__", "constructor", "a.b[0]", "../../etc", "%2e%2e", "' OR 1=1 --"]


@pytest.fixture
def page(sandbox: Sandbox, session: aiohttp.ClientSession) -> Page:
    return Page(session, sandbox.url)


async def everything(page: Page) -> dict[str, Any]:
    """Return the responses of all routes that show data."""
    found = {path: await page.get(path) for path in ("log?limit=1000", "facets", "customers?limit=1000", "summary")}
    for entry in found["log?limit=1000"]["entries"]:
        found[f"log/{entry['id']}"] = await page.get(f"log/{entry['id']}")
    for customer in found["customers?limit=1000"]["customers"]:
        path = f"customers/{customer['project']}/{customer['key']}"
        found[path] = await page.get(path)
    found["requests?limit=1000"] = await page.get("requests?limit=1000")
    return found


@pytest.mark.parametrize("string", STRINGS)
async def test_strings(page: Page, string: str) -> None:
    """Any string is returned unchanged, wherever it stands."""
    data = {"customer_ids": {f"k{string}": f"r{string}"}, "event_type": string, "properties": {string: [string]}}
    await page.send_commands({"name": "customers/events", "data": data})
    await page.send_commands(update({"registered": string + "r"}, None, **{string: string, "first_name": string}))
    await page.send_commands({"name": string, "data": string})

    found = await everything(page)

    assert found["log/1"]["data"] == data
    assert (found["log/1"]["name"], found["facets"]["types"][string]) == (string, 2)
    assert found["log/3"]["name"] == found["log/3"]["data"] == string
    assert found[f"customers/shop/{found['log/2']['customer']}"]["properties"][string] == string
    for query in ({"text": string[:20]}, {"type": string}, {"customer": f"r{string}".strip()}):
        async with page.session.get(f"{page.url}/sandbox/log", params=query) as response:
            listed = await response.json()
        assert response.status == 200
        assert 1 in [entry["id"] for entry in listed["entries"]], query


@pytest.mark.parametrize(
    "data",
    [
        None,
        5,
        "text",
        [],
        [[[]]],
        {},
        {"customer_ids": [], "event_type": {}, "properties": "x", "timestamp": []},
        {"customer_ids": {"cookie": {}, "": "x", "registered": None}, "event_type": ["a"]},
        {"customer_ids": {"cookie": True}, "timestamp": 1e300, "properties": [1]},
        {
            "customer_ids": {"cookie": "c"},
            "event_type": "x",
            "timestamp": 1e20,
            "update_timestamp": "x",
        },
        {"customer_ids": "c", "properties": {"a": {"b": None}}, "url": {}},
    ],
)
async def test_wrong_types(page: Page, data: Any) -> None:
    """Data of any wrong type is an entry with errors that has exactly this data."""
    for name in ("customers/events", "customers", "campaigns/clicks"):
        await page.send_commands({"name": name, "data": data})
        url = f"{page.url}/track/v2/projects/shop/{name}"
        async with page.session.post(url, json=data, headers={"Authorization": "Token k"}) as response:
            assert response.status == 400

    found = await everything(page)

    entries = found["log?limit=1000"]["entries"]
    assert {entry["verdict"] for entry in entries} == {"rejected"}
    assert all(entry["errors"] for entry in entries)
    # A single command has to be an object; otherwise it is no command at all.
    details = [found[f"log/{entry['id']}"] for entry in entries]
    assert [each["data"] for each in details] == [data] * (6 if isinstance(data, dict) else 3)


async def test_large_data(page: Page) -> None:
    """The size of a list does not depend on that of the data; the details are whole."""
    large = "x" * 1_000_000
    commands = [
        event({"cookie": "c"}, large),
        event({"cookie": large, large: large}, "buy"),
        event({f"k{number}": 5 for number in range(20_000)}, "buy"),
        event({"cookie": "c"}, "buy", properties={large: large}),
        event({"cookie": "c"}, "buy", properties={str(number): number for number in range(50_000)}),
        event({"i" * 300_000: 5}, "buy"),
        {"name": large, "data": {}},
        update({"registered": "r" * 700_000}),
    ]
    for command in commands:
        await page.send_commands(command)

    async with page.session.get(f"{page.url}/sandbox/log") as response:
        listed = await response.read()
    found = await everything(page)

    assert len(listed) < 150_000
    for number, command in enumerate(commands, 1):
        assert found[f"log/{number}"]["data"] == command["data"]
    assert len(json.dumps(found["facets"])) < 2_000


async def test_deep_data(page: Page) -> None:
    """Data that nests too deeply is an entry without data; the body of its request has it."""
    for depth in (240, 250, 255, 500):
        path = f"{page.url}/track/v2/projects/shop/customers/events"
        nested = "[" * depth + "]" * depth
        body = f'{{"customer_ids": {{"cookie": "c"}}, "event_type": "x", "properties": {{"a": {nested}}}}}'
        async with page.session.post(path, data=body, headers={"Authorization": "Token k"}) as response:
            assert response.status == (200 if depth == 240 else 400)

    found = await everything(page)

    entries = [found[f"log/{number}"] for number in range(1, 5)]
    assert [entry["readable"] for entry in entries] == [True, False, False, False]
    assert entries[3]["data"] is None
    assert "[" * 500 in (await page.get(f"requests/{entries[3]['request']}"))["body"]


async def test_strings_that_are_not_unicode(page: Page, sandbox: Sandbox) -> None:
    """A command that Python code executes with a lone surrogate does not make a list fail."""
    track(sandbox.engine, {"cookie": "\ud800"}, "\ud800")
    track(sandbox.engine, {"\ud800": "x"})
    sandbox.engine.execute(PROJECT, "customers", {"customer_ids": {"cookie": "c"}, "properties": {"a": "\udfff"}})

    found = await everything(page)

    assert [found[f"log/{number}"]["verdict"] for number in (1, 2, 3)] == ["rejected"] * 3


async def test_many_types(page: Page, sandbox: Sandbox) -> None:
    """The facets have the most frequent types only."""
    for number in range(1_500):
        track(sandbox.engine, {"cookie": "c"}, f"type-{number}")
    track(sandbox.engine, {"cookie": "c"}, "type-1400", timestamp=7)

    types = (await page.get("facets"))["types"]

    assert len(types) == 1_000
    assert next(iter(types.items())) == ("type-1400", 2)


@pytest.mark.parametrize("method", ["POST", "PUT"])
async def test_deep_definitions(page: Page, sandbox: Sandbox, method: str) -> None:
    """Definitions that nest too deeply are a 400 and change nothing."""
    sandbox.messages.inbox.put({"id": "i", "type": "push", "content": {}})
    for depth in (260, 900):
        content = "[" * depth + "]" * depth
        body = f'{{"inbox": [{{"id": "j", "type": "push", "content": {{"a": {content}}}}}]}}'
        await page.send(method, "messages", 400, data=body, headers={"Content-Type": "application/json"})

    assert [each["id"] for each in (await page.get("messages"))["inbox"]] == ["i"]
