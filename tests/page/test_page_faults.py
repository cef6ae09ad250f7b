"""
The switchboard of faults, which changes what the sandbox does.
"""

import re

import aiohttp
from helpers.browser import Visitor, event
from playwright.async_api import expect

from exponea_async.sandbox import Fault


async def status(visitor: Visitor) -> int:
    url = f"{visitor.sandbox.url}/track/v2/projects/shop/batch"
    headers = {"Authorization": "Token key"}
    async with (
        aiohttp.ClientSession(headers=headers) as session,
        session.post(url, json={"commands": [event("ping")]}) as response,
    ):
        return response.status


async def test_one_click(visitor: Visitor) -> None:
    """A fault of one click happens to the next requests, and ends when it is removed."""
    page = await visitor.open("/?view=faults")
    await expect(page.locator("#no-faults")).to_be_visible()
    await page.get_by_role("button", name="Outage (503)").click()
    await expect(page.locator(".faults li")).to_have_count(1)
    assert await status(visitor) == 503
    await expect(page.locator(".faults li")).to_contain_text("1 time so far")
    await page.get_by_role("button", name=re.compile("^Remove (?!all)")).click()
    await expect(page.locator("#no-faults")).to_be_visible()
    assert await status(visitor) == 200


async def test_the_form(visitor: Visitor) -> None:
    """The form makes a fault of any kind, for the requests that it selects."""
    page = await visitor.open("/?view=faults")
    await page.locator("#fault-kind").select_option("status")
    await page.get_by_label("Status", exact=True).fill("429")
    await page.get_by_label("Retry-After, seconds").fill("1.5")
    await page.get_by_text("Which requests").click()
    await page.get_by_label("Times", exact=True).fill("2")
    await page.get_by_label("Path ends with").fill("/batch")
    await page.locator("#add-fault").click()
    await expect(page.locator(".faults li")).to_contain_text(
        "429 · Retry-After 1.5 s · 2 times left · path ends with /batch"
    )
    (fault,) = visitor.sandbox.faults.active
    assert fault == Fault("status", status=429, retry_after=1.5, times=2, path="/batch")
    assert [await status(visitor) for _ in range(3)] == [429, 429, 200]
    await expect(page.locator("#no-faults")).to_be_visible()


async def test_an_invalid_fault(visitor: Visitor) -> None:
    """An invalid value is refused with the reason of the sandbox."""
    page = await visitor.open("/?view=faults")
    await page.get_by_label("Status", exact=True).fill("9999")
    await page.locator("#add-fault").click()
    await expect(page.get_by_role("alert")).to_contain_text("status")
    assert visitor.sandbox.faults.active == ()
    # The browser reports the status of the response.
    visitor.watch.expect("400 (Bad Request)")


async def test_failed_requests_are_listed(visitor: Visitor) -> None:
    """Requests that never became commands are in the list of requests, with the fault that failed them."""
    page = await visitor.open("/?view=requests")
    visitor.sandbox.faults.add(Fault("status", status=429, times=1))
    await status(visitor)
    await status(visitor)
    rows = page.locator("#requests .row")
    await expect(rows.locator(".chip")).to_have_text(["200", "429"])
    await rows.nth(1).click()
    await expect(page.get_by_role("complementary", name="Request")).to_contain_text("injected fault status")
    await page.locator("#filter-status").select_option("429")
    await expect(rows).to_have_count(1)
