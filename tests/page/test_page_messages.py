"""
The editor of the definitions of messages, and the preview.
"""

import json
import re

import aiohttp
from helpers.browser import JANE, Visitor, customer
from helpers.sandbox_client import ITEM, MESSAGE, PERSONAL
from playwright.async_api import expect

DEFINITIONS = {"in_app_messages": [MESSAGE], "content_blocks": [PERSONAL], "inbox": [ITEM]}


async def test_edit_and_save(visitor: Visitor) -> None:
    """What the editor saves is what the sandbox has, and the only thing that it has."""
    visitor.sandbox.messages.load({"inbox": [ITEM]})
    page = await visitor.open("/?view=messages")
    area = page.locator("#definitions")
    await expect(area).not_to_have_value("")
    assert json.loads(await area.input_value()) == {"inbox": [{"is_read": False, **ITEM}]}
    await area.fill(json.dumps({"content_blocks": [PERSONAL]}))
    await page.locator("#save-definitions").click()
    await expect(page.locator("#definitions-result")).to_contain_text("Saved.")
    assert visitor.sandbox.messages.as_dict() == {"content_blocks": [PERSONAL]}


async def test_errors(visitor: Visitor) -> None:
    """Invalid definitions change nothing, and the error names the path."""
    visitor.sandbox.messages.load({"inbox": [ITEM]})
    page = await visitor.open("/?view=messages")
    area, result = page.locator("#definitions"), page.locator("#definitions-result")
    await expect(area).not_to_have_value("")
    await area.fill('{"content_blocks": [{"id": 5}]}')
    await page.locator("#save-definitions").click()
    await expect(result).to_contain_text("content_blocks[0].id: expected a non-empty string, got 5")
    await expect(area).to_have_attribute("aria-invalid", "true")
    await area.fill('{"content_blocks": [}')
    await page.locator("#save-definitions").click()
    await expect(result).to_contain_text("This is not valid JSON")
    assert list(visitor.sandbox.messages.as_dict()) == ["inbox"]
    # The browser reports the status of the response.
    visitor.watch.expect("400 (Bad Request)")


async def test_preview(visitor: Visitor) -> None:
    """A message is previewed as the chosen customer gets it, with properties that are escaped for HTML."""
    visitor.sandbox.messages.load(DEFINITIONS)
    await visitor.send(customer({"first_name": "Jane <i>"}))
    page = await visitor.open("/?view=messages&person=shop%2F1")
    frame = page.frame_locator("#preview-frame")
    await expect(frame.locator(".card h1")).to_have_text("Hello Jane &lt;i&gt;")
    await page.locator("#preview-message").select_option(label="Content blocks: For you")
    await expect(frame.locator("b")).to_have_text("Jane <i>")
    await page.locator("#preview-customer").select_option("")
    await expect(frame.locator("b")).to_have_text("")
    await page.locator("#preview-message").select_option(label="Inbox: i1")
    await expect(frame.locator(".card h1")).to_have_text("Hi")


async def test_not_for_this_customer(visitor: Visitor) -> None:
    """The preview says so if the customer does not get the message."""
    visitor.sandbox.messages.load({"in_app_messages": [{**MESSAGE, "for": {"registered": "somebody"}}]})
    await visitor.send(customer({}, JANE))
    page = await visitor.open("/?view=messages&person=shop%2F1")
    await expect(page.frame_locator("#preview-frame").locator("body")).to_contain_text("does not get the message")


async def test_the_document(visitor: Visitor) -> None:
    """The document of a preview can't run scripts where it is opened by itself; an unknown section is an error."""
    visitor.sandbox.messages.load({"inbox": [{**ITEM, "type": "html", "content": {"message": "<h1>Hi</h1>"}}]})
    url = f"{visitor.sandbox.url}/sandbox/preview"
    async with aiohttp.ClientSession() as session:
        async with session.get(url, params={"section": "inbox", "id": "i1"}) as response:
            assert (response.status, response.content_type) == (200, "text/html")
            policy = response.headers["Content-Security-Policy"]
            assert policy.startswith("default-src 'none'; ")
            assert policy.endswith("; sandbox")
            assert "<h1>Hi</h1>" in await response.text()
        async with session.get(url, params={"section": "consents", "id": "i1"}) as response:
            assert response.status == 400
            assert "section should be one of" in await response.text()


async def test_hostile_content(visitor: Visitor) -> None:
    """Scripts of a message do not run in its preview, and it loads nothing from another host."""
    hostile = (
        '<p id="shown">Shown</p><script>parent.hacked = top.hacked = 1; alert(1)</script>'
        '<img src="http://evil.example/x.png" onerror="top.hacked = 1">'
        '<link rel="stylesheet" href="http://evil.example/x.css"><a href="javascript:top.hacked=1" id="link">link</a>'
        '<meta http-equiv="refresh" content="0; url=http://evil.example/"><form action="http://evil.example/"></form>'
    )
    block = {**PERSONAL, "personal": {**PERSONAL["personal"], "content": {"html": hostile}}}  # type: ignore[dict-item]
    visitor.sandbox.messages.load({"content_blocks": [block]})
    page = await visitor.open("/?view=messages")
    frame = page.frame_locator("#preview-frame")
    await expect(frame.locator("#shown")).to_be_visible()
    # Either of the two would be enough: the attribute of the frame, and the policy of the document.
    await expect(page.locator("#preview-frame")).to_have_attribute("sandbox", "")
    await frame.locator("#link").click()
    await expect(frame.locator("#shown")).to_be_visible()
    assert await page.evaluate("window.hacked") is None
    # The browser reports what it blocked.
    foreign = [each for each in visitor.watch.requests if "evil.example" in each.url]
    assert {each.failure for each in foreign} == {"csp"}
    visitor.watch.expect(
        "Blocked script execution",
        "Refused to execute",
        "Content Security Policy",
        "policy: ",
        "request: http://evil.example/",
    )


async def test_numbers_stay_as_they_are_written(visitor: Visitor) -> None:
    """The editor neither shows nor saves 5.0 as 5, and does not round large integers."""
    page = await visitor.open("/?view=messages")
    area = page.locator("#definitions")
    await expect(area).to_have_value("{}")
    await area.fill(
        '{"inbox": [{"id": "i", "type": "push", "content": {"a": 5.0, "b": 9007199254740993, "c": [], "d": {}}}]}'
    )
    await page.locator("#save-definitions").click()
    await expect(page.locator("#definitions-result")).to_contain_text("Saved.")
    content = visitor.sandbox.messages.as_dict()["inbox"][0]["content"]
    assert json.dumps(content) == '{"a": 5.0, "b": 9007199254740993, "c": [], "d": {}}'
    shown = await area.input_value()
    assert '"a": 5.0,\n' in shown
    assert '"b": 9007199254740993,\n' in shown
    assert '"c": [],\n' in shown


async def test_after_a_reset(visitor: Visitor) -> None:
    """The editor shows what the sandbox has after a reset, unless the user has written something."""
    page = await visitor.open("/?view=messages")
    area = page.locator("#definitions")
    await expect(area).to_have_value("{}")
    visitor.sandbox.messages.load({"inbox": [ITEM]})
    await page.reload()
    await expect(area).to_have_value(re.compile('"i1"'))
    visitor.sandbox.reset()
    await expect(area).to_have_value("{}")
    await area.fill('{"inbox": ')
    visitor.sandbox.reset()
    await visitor.send(customer({"n": 1}))
    await expect(page.locator(".totals")).to_contain_text("1 command")
    await expect(area).to_have_value('{"inbox": ')
