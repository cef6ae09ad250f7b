"""
Responses that come late: something newer is there already, or the user has gone on.
"""

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import aiohttp
from attrs import define, field
from helpers.browser import Visitor, event, many
from helpers.sandbox_client import ITEM
from helpers.waiting import until
from playwright.async_api import Locator, Page, Route, expect

MESSAGES = "**/sandbox/messages"
TYPED = '{"inbox": '
#: Types a character at the moment at which the page has changed its address, before it is rendered again.
TYPE_AT_CHANGE = """() => {
  const original = history.pushState;
  history.pushState = (...args) => {
    history.pushState = original;
    original.apply(history, args);
    const field = document.getElementById("search");
    field.value += "b";
    field.dispatchEvent(new Event("input", { bubbles: true }));
  };
}"""

#: Resolves after what has arrived is processed and rendered.
RENDERED = "new Promise((done) => setTimeout(() => requestAnimationFrame(() => setTimeout(done)), 50))"


# Playwright keeps what it makes of a method as an attribute.
@define(eq=False, slots=False)
class Gate:
    """
    Holds responses back.

    Attributes:
        page: The page.
        path: The pattern of their addresses.
        method: The method of their requests.
        times: How many are held back; None stands for all.
        number: How many have come to the gate.
        delivered: How many the page has got.
        is_open: Set when they may pass.
    """

    page: Page
    path: str
    method: str = "GET"
    times: int | None = None
    number: int = 0
    delivered: int = 0
    is_open: asyncio.Event = field(factory=asyncio.Event)

    async def close(self) -> "Gate":
        """Hold back what is requested from now on."""
        await self.page.route(self.path, self._hold)
        return self

    async def _hold(self, route: Route) -> None:
        if route.request.method != self.method or self.number == self.times:
            await route.continue_()
            return
        # The sandbox responds at once; what changes there from now on is not in the response.
        response = await route.fetch()
        self.number += 1
        await self.is_open.wait()
        await route.fulfill(response=response)
        self.delivered += 1

    async def wait(self, number: int = 1) -> None:
        """Wait until some responses are held back."""
        await until(lambda: self.number >= number)

    async def open(self) -> None:
        """Let all responses pass, and wait until the page shows what it makes of them."""
        self.is_open.set()
        await until(lambda: self.delivered == self.number)
        await self.page.evaluate(RENDERED)


async def open_editor(visitor: Visitor) -> tuple[Page, Locator]:
    visitor.sandbox.messages.load({"inbox": [ITEM]})
    page = await visitor.open("/?view=messages")
    area = page.locator("#definitions")
    await expect(area).to_have_value(re.compile('"i1"'))
    return page, area


class TestEditor:
    async def test_what_is_written_while_definitions_are_loaded(self, visitor: Visitor) -> None:
        """It stays."""
        page, area = await open_editor(visitor)
        gate = await Gate(page, MESSAGES).close()
        visitor.sandbox.reset()
        await gate.wait()
        await area.fill(TYPED)
        await gate.open()
        await expect(area).to_have_value(TYPED)

    async def test_what_is_written_while_definitions_are_saved(self, visitor: Visitor) -> None:
        """It stays, and the rest is saved."""
        page, area = await open_editor(visitor)
        gate = await Gate(page, MESSAGES, "PUT").close()
        await area.fill("{}")
        await page.locator("#save-definitions").click()
        await gate.wait()
        await area.fill(TYPED)
        await gate.open()
        await expect(page.locator("#definitions-result")).to_contain_text("Saved.")
        await expect(area).to_have_value(TYPED)
        assert visitor.sandbox.messages.as_dict() == {}

    async def test_older_definitions(self, visitor: Visitor) -> None:
        """They do not replace newer ones that came first."""
        page, area = await open_editor(visitor)
        gate = await Gate(page, MESSAGES, times=1).close()
        visitor.sandbox.reset()
        await gate.wait()
        visitor.sandbox.reset()
        visitor.sandbox.messages.load({"inbox": [{**ITEM, "id": "new"}]})
        await expect(area).to_have_value(re.compile('"new"'))
        await gate.open()
        await expect(area).to_have_value(re.compile('"new"'))

    async def test_a_saved_draft(self, visitor: Visitor) -> None:
        """Definitions that were on their way when the user saved do not come back."""
        page, area = await open_editor(visitor)
        gate = await Gate(page, MESSAGES).close()
        visitor.sandbox.reset()
        await gate.wait()
        await area.fill('{"inbox": [{"id": "mine", "type": "push", "content": {}}]}')
        await page.locator("#save-definitions").click()
        await expect(page.locator("#definitions-result")).to_contain_text("Saved.")
        await gate.open()
        await expect(area).to_have_value(re.compile('"mine"'))

    async def test_a_save_and_a_reset(self, visitor: Visitor) -> None:
        """After all data was deleted during a save, the definitions are loaded once more, behind it."""
        page, area = await open_editor(visitor)
        gate = await Gate(page, MESSAGES, "PUT").close()
        await area.fill('{"inbox": [{"id": "mine", "type": "push", "content": {}}]}')
        await page.locator("#save-definitions").click()
        await gate.wait()
        visitor.sandbox.reset()
        await expect(page.locator(".notices")).to_contain_text("All data was deleted.")
        await gate.open()
        await expect(area).to_have_value("{}")

    async def test_a_lost_connection(self, visitor: Visitor) -> None:
        """It is no fault of what the user has written."""
        page, area = await open_editor(visitor)
        await area.fill(TYPED)
        await page.route(MESSAGES, lambda route: route.abort())
        visitor.sandbox.reset()
        visitor.watch.expect("Failed to load resource")
        await expect(page.locator(".notices")).to_contain_text("All data was deleted.")
        await page.evaluate(RENDERED)
        await expect(area).to_have_attribute("aria-invalid", "false")
        await expect(page.locator("#definitions-result")).to_have_text("")

    async def test_another_view(self, visitor: Visitor) -> None:
        """What the user has written is there again after another view; what was only loaded is loaded again."""
        page, area = await open_editor(visitor)
        await page.get_by_role("link", name="Faults").click()
        visitor.sandbox.messages.load({"inbox": [{**ITEM, "id": "new"}]})
        await page.get_by_role("link", name="Messages").click()
        await expect(area).to_have_value(re.compile('"new"'))
        await area.fill(TYPED)
        await page.get_by_role("link", name="Faults").click()
        await page.get_by_role("link", name="Messages").click()
        await expect(page.frame_locator("#preview-frame").locator(".card h1")).to_have_text("Hi")
        await expect(area).to_have_value(TYPED)


async def test_typing_on_while_the_list_is_filtered(visitor: Visitor) -> None:
    """A character that is typed when the filter is set is not taken back."""
    await visitor.send(event("abc"), event("axx"))
    page = await visitor.open()
    await page.evaluate(TYPE_AT_CHANGE)
    await page.locator("#search").fill("a")
    await expect(page.locator("#events .row .name")).to_have_text(["abc"])
    await expect(page.locator("#search")).to_have_value("ab")
    await page.go_back()
    await expect(page.locator("#search")).to_have_value("")


async def test_counts_of_what_arrives_while_they_are_loaded(visitor: Visitor) -> None:
    """The counts are loaded once more."""
    page = await visitor.open()
    await expect(page.locator("#announcement")).to_have_attribute("data-known", "true")
    gate = await Gate(page, "**/sandbox/facets", times=1).close()
    await visitor.send(event("first"))
    await gate.wait()
    await visitor.send(event("second"))
    await expect(page.locator("#events .row")).to_have_count(2)
    await gate.open()
    await expect(page.locator(".totals")).to_contain_text("2 commands")


async def test_more_requests_of_another_list(visitor: Visitor) -> None:
    """Older requests that were on their way when the user chose another status are not added to the new list."""
    async with aiohttp.ClientSession() as session:
        for number in range(410):
            status = "batch" if number < 5 else "nothing"
            async with session.post(f"{visitor.sandbox.url}/track/v2/projects/shop/{status}", json={"commands": []}):
                pass
    page = await visitor.open("/?view=requests")
    rows, box = page.locator("#requests .row"), page.locator("#requests")
    await expect(rows.first).to_have_attribute("aria-setsize", "200")
    gate = await Gate(page, "**/sandbox/requests?*before=*").close()
    await box.evaluate("box => { box.scrollTop = box.scrollHeight; }")
    await gate.wait()
    await page.locator("#filter-status").select_option("401")
    await expect(rows).to_have_count(5)
    await gate.open()
    await expect(rows).to_have_count(5)


async def test_more_entries_of_another_list(visitor: Visitor) -> None:
    """Older entries of another list that are on their way do not keep those of the present one from being loaded."""
    await visitor.send(*many(1250), *(event("other") for _ in range(1250)))
    page = await visitor.open()
    rows, box = page.locator("#events .row"), page.locator("#events")
    await expect(rows.first).to_have_attribute("aria-setsize", "1000")
    gate = await Gate(page, "**/sandbox/log?*before=*", times=1).close()
    await box.evaluate("box => { box.scrollTop = box.scrollHeight; }")
    await gate.wait()
    await page.locator("#filter-type").select_option("page_visit")
    await expect(rows.first.locator(".name")).to_have_text("page_visit")
    await expect(rows.first).to_have_attribute("aria-posinset", "1")
    await box.evaluate("box => { box.scrollTop = box.scrollHeight; }")
    await expect(rows.first).to_have_attribute("aria-setsize", "1250")
    await gate.open()
    await expect(rows.first).to_have_attribute("aria-setsize", "1250")


@asynccontextmanager
async def traffic(visitor: Visitor) -> AsyncIterator[None]:
    """Send commands without a pause."""

    async def send() -> None:
        while True:
            await visitor.send(event("ping"))

    sending = asyncio.create_task(send())
    try:
        yield
    finally:
        sending.cancel()
        with suppress(asyncio.CancelledError):
            await sending


async def test_responses_slower_than_the_traffic(visitor: Visitor) -> None:
    """What is shown follows the traffic, though new commands arrive faster than responses."""

    async def delay(route: Route) -> None:
        response = await route.fetch()
        await asyncio.sleep(0.5)
        await route.fulfill(response=response)

    await visitor.send(event("ping"))
    page = await visitor.open("/?view=customers&person=shop%2F1")
    events = page.get_by_role("complementary", name="Customer").locator(".facts a")
    await expect(events).to_have_text("1")
    await page.route("**/sandbox/customers*", delay)
    await page.route("**/sandbox/customers/**", delay)
    async with traffic(visitor):
        await expect(events).not_to_have_text("1")
