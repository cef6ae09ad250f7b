"""
Hostile data: nothing of it is more than text, wherever it is shown.
"""

import json
from collections.abc import Mapping
from typing import Any

import aiohttp
import pytest
from helpers.browser import Visitor, customer, event
from playwright.async_api import Page, expect

SCRIPT = "<script>window.hacked = 1; alert(1)</script>"
IMAGE = '"><img src="http://evil.example/x.png" onerror="window.hacked = 1; alert(2)">'
LINK = "javascript:window.hacked=1"
BIDI = "invoice\u202egpj.exe\u2066"
CONTROL = "nul\u0000 escape\u001b[31m del\u007f c1\u0085 zero\u200b line\u2028 end"
PERCENT = "../../../etc/passwd%00?&=#\\"
HOSTILE = [SCRIPT, IMAGE, LINK, BIDI, CONTROL, PERCENT, "{{ constructor }}", "${7*7}", "__proto__"]
VIEWS = [
    "/?entry=1",
    "/?view=customers&person=shop%2F1",
    "/?view=requests&request=1",
    "/?view=faults",
    "/?view=messages",
]


async def check(page: Page) -> None:
    """Check that no data has become markup, style or program."""
    assert await page.evaluate("window.hacked") is None
    foreign = "#page script, #page img, #page object, #page embed, #page [onerror], #page [href^='javascript']"
    assert await page.locator(foreign).count() == 0
    # Nothing changes the order of the characters beyond its own text.
    text = await page.evaluate("document.body.innerText")
    assert not set(text) & set("\u202e\u2066\u0000\u001b\u007f\u0085\u2028")


def commands(text: str) -> list[Mapping[str, Any]]:
    ids = {"registered": f"a {text}", "cookie": f"c-{text}"}
    properties = {text: text, "list": [text, {text: [text]}], "text": text}
    return [
        event(f"e {text}", properties, ids),
        customer({f"p {text}": text}, ids, update_timestamp=5.0),
        customer({f"p {text}": f"{text}{text}"}, ids, update_timestamp=6.0),
        event(f"e {text}", {text: "x" * 20_000}, ids),
        {"name": f"n {text}", "data": text},
        {"name": "customers/events", "data": {"customer_ids": {text: text}, "event_type": {text: 1}, text: text}},
    ]


@pytest.mark.parametrize("text", HOSTILE)
async def test_text_stays_text(visitor: Visitor, text: str) -> None:
    """Names, ids and values are shown as text in every view: no script, no request, no violation of the policy."""
    await visitor.send(*commands(text))
    page = await visitor.open()
    await expect(page.locator("#events .row")).to_have_count(6)
    await check(page)
    for path in VIEWS:
        await page.goto(visitor.sandbox.url + path)
        await expect(page.locator(".connection")).to_have_text("Live")
        await expect(page.locator(".placeholder[role=status]")).to_have_count(0)
        await check(page)


@pytest.mark.parametrize("number", range(1, 7))
async def test_each_command(visitor: Visitor, number: int) -> None:
    """Each kind of hostile command can be looked at."""
    await visitor.send(*commands(IMAGE + BIDI + CONTROL))
    page = await visitor.open(f"/?entry={number}")
    panel = page.get_by_role("complementary", name="Command")
    await expect(panel.locator(".json-root, .errors").first).to_be_visible()
    await panel.get_by_role("tab", name="Request and response").click()
    await expect(panel.locator(".body").first).to_be_visible()
    await check(page)


async def test_what_is_invisible_is_shown(visitor: Visitor) -> None:
    """Control characters are shown by their codes, and text that runs from right to left is isolated."""
    for name in (BIDI, CONTROL, "\u05e9\u05dc\u05d5\u05dd"):
        await visitor.send(event(name))
    page = await visitor.open()
    names = page.locator("#events .row .name")
    await expect(names.nth(2)).to_contain_text("invoiceU+202Egpj.exeU+2066")
    await expect(names.nth(1)).to_contain_text("nulU+0000 escapeU+001B[31m delU+007F")
    await expect(names.nth(0).locator("bdi")).to_have_css("unicode-bidi", "isolate")


async def test_a_large_request(visitor: Visitor) -> None:
    """A text of a megabyte is cut, can be shown as a whole, and does not stop the page."""
    large = ("<b>" + "x" * 97) * 10_000
    await visitor.send(
        {"name": "customers/events", "data": {"event_type": "big", "customer_ids": {}, "properties": large}}
    )
    await visitor.send(event("small", {"text": "y" * 10_000}))
    page = await visitor.open("/?entry=1")
    panel = page.get_by_role("complementary", name="Command")
    await expect(panel.locator(".errors")).to_be_visible()
    await expect(panel.get_by_role("button", name="show all")).to_be_visible()
    assert len(await page.evaluate("document.body.innerText")) < 20_000
    await panel.get_by_role("button", name="show all").click()
    await expect(panel.locator(".long-text").last).to_contain_text("<b>xxx")
    await panel.get_by_role("tab", name="Request and response").click()
    await expect(panel.locator(".body").first).to_be_visible()
    await page.locator("#events-2").click()
    await expect(panel).to_contain_text("small")
    await check(page)


async def test_a_hostile_address(visitor: Visitor) -> None:
    """The address of the page, which anybody may have written, can't do more than choose what is shown."""
    query = "&".join(
        f"{name}=%3Cimg%20src%3Dx%20onerror%3Dalert(1)%3E"
        for name in ("view", "type", "project", "customer", "text", "entry", "person", "request")
    )
    page = await visitor.open(f"/?{query}")
    await expect(page.get_by_role("heading", name="No command matches these filters")).to_be_visible()
    await check(page)
    # The entry is not a number, which is an error of the address.
    visitor.watch.expect("400 (Bad Request)")


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "http://127.0.0.1:1"])
async def test_other_pages_can_do_nothing(visitor: Visitor, origin: str) -> None:
    """A page of another origin can neither read nor change anything."""
    await visitor.send(event("secret"))
    async with aiohttp.ClientSession(headers={"Origin": origin}) as session:
        for method, path in (
            ("GET", "/sandbox/log"),
            ("GET", "/sandbox/stream"),
            ("GET", "/sandbox/preview?section=inbox&id=i"),
            ("POST", "/sandbox/faults"),
            ("DELETE", "/sandbox/faults"),
            ("PUT", "/sandbox/messages"),
        ):
            async with session.request(method, visitor.sandbox.url + path, json={"kind": "drop"}) as response:
                assert response.status == 403
                assert "secret" not in json.dumps(await response.text())
    assert visitor.sandbox.faults.active == ()
