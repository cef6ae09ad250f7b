"""
The live list: what arrives, its verdicts, the pause, and very many entries.
"""

from helpers.browser import JANE, Visitor, event, many
from playwright.async_api import Locator, Page, expect

from exponea_async import Configuration, Customer, Event, Exponea

#: Rows in the document, at a height of 800 pixels and rows of 36 pixels, with a margin.
MAX_ROWS = 60
MAX_SCROLLS = 5000


def rows(page: Page) -> Locator:
    return page.locator("#events .row")


def chip(page: Page, index: int) -> Locator:
    return rows(page).nth(index).locator(".chip")


class TestLive:
    async def test_what_the_sdk_sends(self, visitor: Visitor) -> None:
        """What a client tracks is on the page without a reload, newest first."""
        page = await visitor.open()
        await expect(page.get_by_role("heading", name="No event yet")).to_be_visible()
        settings = Configuration(
            project_token="shop", authorization_token="key", base_url=visitor.sandbox.url, storage="memory:"
        )
        async with Exponea(settings) as exponea:
            jane = exponea.for_customer(JANE)
            await jane.track_event(Event("purchase", {"total_price": 7.99}))
            await exponea.flush_data()
            await expect(rows(page)).to_have_count(1)
            await jane.identify_customer(Customer(JANE, {"first_name": "Jane"}))
            await exponea.flush_data()
        await expect(rows(page)).to_have_count(2)
        await expect(rows(page).nth(0).locator(".name")).to_have_text("customer")
        await expect(rows(page).nth(1).locator(".name")).to_have_text("purchase")
        await expect(rows(page).nth(1).locator(".customer")).to_have_text("jane@example.com")
        await expect(rows(page).nth(1).locator(".preview")).to_contain_text("total_price: 7.99")

    async def test_verdicts(self, visitor: Visitor) -> None:
        """Each verdict has a chip of its own, and a rejected command says why."""
        page = await visitor.open()
        await visitor.send(event("seen", {"n": 1}, timestamp=1_790_000_000.0))
        await visitor.send(event("seen", {"n": 1}, timestamp=1_790_000_000.0))
        await visitor.send(event("typo", timestamp="yesterday"))
        await visitor.send(event("cookie", {}, {"cookie": "c-1"}), event("both", {}, {"cookie": "c-1", **JANE}))
        await expect(rows(page)).to_have_count(5)
        await expect(chip(page, 0)).to_have_text("merged")
        await expect(chip(page, 1)).to_have_text("accepted")
        await expect(chip(page, 2)).to_have_text("rejected")
        await expect(chip(page, 3)).to_have_text("duplicate")
        await expect(rows(page).nth(2).locator(".reason")).to_have_text("timestamp should be a number of seconds.")

    async def test_the_title_counts_rejected_commands(self, visitor: Visitor) -> None:
        """The title of the window has the number of rejected commands, also while the page is not looked at."""
        page = await visitor.open()
        await expect(page).to_have_title("Sandbox")
        await visitor.send(event("typo", timestamp="yesterday"), event("fine"), event(""))
        await expect(page).to_have_title("(2 rejected) Sandbox")

    async def test_after_a_reset(self, visitor: Visitor) -> None:
        """The list is empty after all data was deleted, and continues with what arrives then."""
        await visitor.send(event("before"))
        page = await visitor.open()
        await expect(rows(page)).to_have_count(1)
        visitor.sandbox.reset()
        await expect(page.get_by_text("All data was deleted.")).to_be_visible()
        await expect(rows(page)).to_have_count(0)
        await visitor.send(event("after"))
        await expect(rows(page).locator(".name")).to_have_text("after")

    async def test_after_an_outage(self, visitor: Visitor) -> None:
        """The page says that the connection is lost, reconnects, and shows what arrived meanwhile."""
        page = await visitor.open()
        await visitor.send(event("before"))
        await expect(rows(page)).to_have_count(1)
        await visitor.sandbox.aclose()
        await expect(page.get_by_text("The connection to the sandbox is lost")).to_be_visible()
        await visitor.sandbox.start()
        await visitor.send(event("after"))
        await expect(rows(page)).to_have_count(2)
        await expect(page.locator(".connection")).to_have_text("Live")
        # The browser itself reports the requests that failed meanwhile.
        visitor.watch.expect("net::ERR_")


class TestPause:
    async def test_new_entries_wait(self, visitor: Visitor) -> None:
        """A paused list counts what arrives, and shows it when it is resumed."""
        page = await visitor.open()
        await visitor.send(event("first"))
        await expect(rows(page)).to_have_count(1)
        await page.locator("#pause").click()
        await visitor.send(*many(7))
        await expect(page.locator(".paused-bar")).to_contain_text("7 new")
        await expect(rows(page)).to_have_count(1)
        await page.locator(".paused-bar").click()
        await expect(rows(page)).to_have_count(8)
        await expect(page.locator(".paused-bar")).to_have_count(0)

    async def test_pause_and_reset(self, visitor: Visitor) -> None:
        """A list that is paused stays paused when all data is deleted."""
        page = await visitor.open()
        await visitor.send(event("first"))
        await expect(rows(page)).to_have_count(1)
        await page.keyboard.press("p")
        visitor.sandbox.reset()
        await visitor.send(event("second"), event("third"))
        await expect(page.locator(".paused-bar")).to_contain_text("2 new")
        await expect(rows(page)).to_have_count(0)
        await page.keyboard.press("p")
        await expect(rows(page)).to_have_count(2)

    async def test_what_is_read_stays_in_place(self, visitor: Visitor) -> None:
        """New entries do not move the rows that the user has scrolled to."""
        await visitor.send(*many(200))
        page = await visitor.open()
        await page.locator("#events").evaluate("box => { box.scrollTop = 36 * 100; }")
        middle = page.locator("#events-100")
        await expect(middle).to_be_visible()
        before = await middle.bounding_box()
        await visitor.send(*many(150))
        await expect(page.locator(".totals")).to_contain_text("350 commands")
        await expect(rows(page).first).to_have_attribute("aria-setsize", "350")
        assert await middle.bounding_box() == before


class TestMany:
    async def test_fifty_thousand(self, visitor: Visitor) -> None:
        """Of 50,000 entries only the visible rows are in the document, from the first to the last entry."""
        await visitor.send(*many(50_000))
        page = await visitor.open()
        await expect(page.locator("#events-50000")).to_be_visible()
        box = page.locator("#events")
        for _ in range(MAX_SCROLLS):
            if await page.locator("#events-1").count():
                break
            assert await rows(page).count() < MAX_ROWS
            await box.evaluate("box => { box.scrollTop = box.scrollHeight; }")
            # A frame, in which the page renders.
            await page.evaluate("() => new Promise(requestAnimationFrame)")
        await expect(page.locator("#events-1")).to_be_visible()
        assert await rows(page).count() < MAX_ROWS
        await box.evaluate("box => { box.scrollTop = 0; }")
        await expect(page.locator("#events-50000")).to_be_visible()

    async def test_fifty_thousand_live(self, visitor: Visitor) -> None:
        """The page follows 50,000 commands that arrive as fast as they can, and misses none."""
        page = await visitor.open()
        await visitor.send(*many(50_000))
        await expect(page.locator("#events-50000")).to_be_visible()
        await expect(rows(page).first).to_have_attribute("aria-setsize", "50000")
        assert await rows(page).count() < MAX_ROWS
