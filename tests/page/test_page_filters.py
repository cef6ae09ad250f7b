"""
The filters: what they choose, and that a view can be shared.
"""

import re

from helpers.browser import JANE, Visitor, customer, event, many
from playwright.async_api import Locator, Page, expect

BOB = {"registered": "bob@example.com"}


def names(page: Page) -> Locator:
    return page.locator("#events .row .name")


async def send_some(visitor: Visitor) -> None:
    await visitor.send(event("view_item", {"sku": "MUG-1"}), event("purchase", {"total_price": 5}))
    await visitor.send(event("purchase", {"total_price": "much"}, BOB), event("purchase", {}, BOB, timestamp="late"))
    await visitor.send(customer({"vip": True}, BOB), project="other")


async def test_each_filter(visitor: Visitor) -> None:
    """Each filter chooses the entries that it says, and is in the address."""
    await send_some(visitor)
    page = await visitor.open()
    await expect(names(page)).to_have_text(["customer", "purchase", "purchase", "purchase", "view_item"])
    await page.locator("#filter-type").select_option("purchase")
    await expect(names(page)).to_have_text(["purchase"] * 3)
    await page.locator(".tag", has_text="purchase").click()
    await page.locator("#filter-project").select_option("other")
    await expect(names(page)).to_have_text(["customer"])
    await page.locator("#filter-project").select_option("")
    await page.get_by_label("Customer", exact=True).fill("bob@example.com")
    await expect(names(page)).to_have_text(["customer", "purchase", "purchase"])
    await page.get_by_label("Customer", exact=True).fill("")
    await page.locator("#search").fill("mug-1")
    await expect(names(page)).to_have_text(["view_item"])
    await expect(page).to_have_url(f"{visitor.sandbox.url}/?text=mug-1")
    await page.locator("#clear-filters").click()
    await page.get_by_role("checkbox", name="rejected").check()
    await expect(names(page)).to_have_text(["purchase"])
    await expect(page).to_have_url(f"{visitor.sandbox.url}/?verdict=rejected")


async def test_a_view_can_be_shared(visitor: Visitor) -> None:
    """The address of a view shows the same entries elsewhere and after a reload, with the same filters and panel."""
    await send_some(visitor)
    page = await visitor.open("/?type=purchase&verdict=accepted&text=much&entry=3")
    for _ in range(2):
        await expect(names(page)).to_have_text(["purchase"])
        await expect(page.locator(".tag")).to_have_text(re.compile("^purchase"))
        await expect(page.locator("#search")).to_have_value("much")
        await expect(page.get_by_role("checkbox", name="accepted")).to_be_checked()
        await expect(page.get_by_role("complementary", name="Command")).to_contain_text("bob@example.com")
        await page.reload()


async def test_back_and_forward(visitor: Visitor) -> None:
    """The back button returns to the former filters and views, the forward button to the later ones."""
    await send_some(visitor)
    page = await visitor.open()
    await page.locator("#filter-type").select_option("purchase")
    await expect(names(page)).to_have_count(3)
    await page.get_by_role("checkbox", name="rejected").check()
    await expect(names(page)).to_have_count(1)
    await page.get_by_role("link", name="Faults").click()
    await expect(page.get_by_role("heading", name="Faults")).to_be_visible()
    await page.go_back()
    await expect(names(page)).to_have_count(1)
    await page.go_back()
    await expect(names(page)).to_have_count(3)
    await expect(page.get_by_role("checkbox", name="rejected")).not_to_be_checked()
    await page.go_back()
    await expect(names(page)).to_have_count(5)
    await expect(page.locator(".tag")).to_have_count(0)
    await page.go_forward()
    await expect(names(page)).to_have_count(3)


async def test_typing_is_one_step(visitor: Visitor) -> None:
    """The back button undoes a search as a whole, not each letter."""
    await send_some(visitor)
    page = await visitor.open()
    search = page.locator("#search")
    await search.press_sequentially("mu", delay=1)
    await expect(page).to_have_url(f"{visitor.sandbox.url}/?text=mu")
    await search.press_sequentially("g", delay=1)
    await expect(page).to_have_url(f"{visitor.sandbox.url}/?text=mug")
    await page.go_back()
    await expect(page).to_have_url(f"{visitor.sandbox.url}/")
    await expect(search).to_have_value("")


async def test_new_entries_are_filtered(visitor: Visitor) -> None:
    """What arrives while filters are set is shown only if the filters choose it, all of it."""
    page = await visitor.open("/?type=purchase")
    await expect(page.get_by_role("heading", name="No command matches these filters")).to_be_visible()
    await visitor.send(*many(1200), event("purchase", {"n": 1}), *many(1200), event("purchase", {"n": 2}))
    await expect(names(page)).to_have_text(["purchase", "purchase"])


async def test_the_timeline(visitor: Visitor) -> None:
    """A click or a drag on the timeline filters by time; the filter can be removed."""
    await visitor.send(*many(20), event("typo", timestamp="yesterday"))
    page = await visitor.open()
    timeline = page.get_by_role("region", name="Timeline")
    await expect(timeline.locator(".key.accepted")).to_contain_text("20")
    await expect(timeline.locator(".key.rejected")).to_contain_text("1")
    box = await page.locator(".chart .u-over").bounding_box()
    assert box is not None
    # Nothing happened at the beginning of the five minutes.
    await page.mouse.click(box["x"] + 5, box["y"] + 20)
    await expect(page.locator(".tag")).to_be_visible()
    await expect(names(page)).to_have_count(0)
    await page.locator(".tag").click()
    await expect(page.locator("#events .row").first).to_have_attribute("aria-setsize", "21")
    # From the middle to the end.
    await page.mouse.move(box["x"] + box["width"] / 2, box["y"] + 20)
    await page.mouse.down()
    await page.mouse.move(box["x"] + box["width"] - 2, box["y"] + 25, steps=4)
    await page.mouse.up()
    await expect(page.locator(".tag")).to_be_visible()
    await expect(page.locator("#events .row").first).to_have_attribute("aria-setsize", "21")


async def test_only_this_customer(visitor: Visitor) -> None:
    """A button of a command filters by its customer."""
    await send_some(visitor)
    page = await visitor.open("/?entry=1")
    await page.get_by_role("button", name="Only this customer").click()
    await expect(names(page)).to_have_text(["purchase", "view_item"])
    await expect(page.get_by_label("Customer", exact=True)).to_have_value(JANE["registered"])


async def test_several_types(visitor: Visitor) -> None:
    """Types are added one after the other and removed by their own buttons, and a shared address may have several."""
    await send_some(visitor)
    page = await visitor.open("/?type=view_item&type=never_seen")
    await expect(names(page)).to_have_text(["view_item"])
    await page.locator("#filter-type").select_option("customer")
    await expect(names(page)).to_have_text(["customer", "view_item"])
    await expect(page).to_have_url(f"{visitor.sandbox.url}/?type=view_item&type=never_seen&type=customer")
    await page.get_by_role("button", name="view_item, remove the filter of type").click()
    await expect(names(page)).to_have_text(["customer"])
    await page.locator("#events .row").click()
    await page.get_by_role("button", name="Only this type").click()
    await expect(page).to_have_url(f"{visitor.sandbox.url}/?type=customer&entry=5")


async def test_proposals_of_customers(visitor: Visitor) -> None:
    """A part of an id proposes the whole ids, since the filter takes no part; the empty list says so."""
    await send_some(visitor)
    await visitor.send(event("ping", {}, {"registered": "jane.doe@example.com", "cookie": "<i>"}))
    page = await visitor.open()
    await page.locator("#filter-customer").fill("JANE")
    proposals = page.locator("#known-customers option")
    await expect(proposals).to_have_count(2)
    assert {await each.get_attribute("value") for each in await proposals.all()} == {
        "jane@example.com",
        "jane.doe@example.com",
    }
    await expect(page.get_by_text("The filter of the customer needs a whole id")).to_be_visible()


async def test_the_project_is_the_same_everywhere(visitor: Visitor) -> None:
    """The chosen project applies to all lists, is visible in each of them, and is in the address."""
    await send_some(visitor)
    page = await visitor.open("/?project=other")
    await expect(names(page)).to_have_text(["customer"])
    for view, rows in (("Customers", "#customers .row"), ("Requests", "#requests .row")):
        await page.get_by_role("link", name=view).click()
        await expect(page.locator(rows)).to_have_count(1)
        await expect(page.locator("#filter-project")).to_have_value("other")
        await page.locator("#filter-project").select_option("")
        await expect(page.locator(rows)).not_to_have_count(1)
        await page.locator("#filter-project").select_option("other")


async def test_other_lists_can_be_shared(visitor: Visitor) -> None:
    """The search for customers and the status of requests are in the address, too."""
    await send_some(visitor)
    page = await visitor.open("/?view=customers&name=bob")
    await expect(page.locator("#search")).to_have_value("bob")
    await expect(page.locator("#customers .row")).to_have_count(2)
    await page.locator("#search").fill("jane")
    await expect(page.locator("#customers .row")).to_have_count(1)
    await expect(page).to_have_url(f"{visitor.sandbox.url}/?view=customers&name=jane")
    page = await visitor.open("/?view=requests&status=429")
    await expect(page.get_by_role("heading", name="No request matches")).to_be_visible()
    await page.locator("#filter-status").select_option("200")
    await expect(page.locator("#requests .row")).to_have_count(3)
    await expect(page).to_have_url(f"{visitor.sandbox.url}/?view=requests&status=200")


async def test_a_time_without_an_end(visitor: Visitor) -> None:
    """An address may have the beginning or the end of a time alone; the page says which, and can remove it."""
    await send_some(visitor)
    for query, words in (("since=1", "since"), ("until=1", "until"), ("since=1&until=2", " to ")):
        page = await visitor.open(f"/?{query}")
        await expect(page.locator(".tag")).to_contain_text(words)
        await expect(page.locator(".tag")).not_to_contain_text("NaN")
        await page.locator(".tag").click()
        await expect(names(page)).to_have_count(5)


async def test_a_rare_problem_is_visible_in_the_timeline(visitor: Visitor) -> None:
    """One rejected command among thousands is drawn, although its share is much smaller than a pixel."""
    page = await visitor.open()
    await visitor.send(*many(3000))
    await visitor.send(event("typo", timestamp="yesterday"), *many(49))
    await expect(page.locator(".legend .key.rejected")).to_contain_text("1")
    pixels = """() => {
        const canvas = document.querySelector(".chart canvas");
        const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
        let found = 0;
        for (let at = 0; at < data.length; at += 4) {
            found += data[at] === 192 && data[at + 1] === 43 && data[at + 2] === 43 && data[at + 3] === 255;
        }
        return found > 4;
    }"""
    await page.wait_for_function(pixels)
