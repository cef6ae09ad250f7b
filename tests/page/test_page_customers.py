"""
The view of a customer: identities, properties, sessions, push tokens and messages.
"""

from helpers.browser import JANE, Visitor, customer, event, many
from playwright.async_api import Locator, Page, expect

COOKIE = {"cookie": "cookie-of-jane"}
PHONE = {"cookie": "cookie-of-her-phone"}


def panel(page: Page) -> Locator:
    return page.get_by_role("complementary", name="Customer")


def block(page: Page, title: str) -> Locator:
    return panel(page).locator(".block", has=page.get_by_role("heading", name=title, exact=True))


async def send_jane(visitor: Visitor) -> None:
    await visitor.send(event("page_visit", {"n": 1}, COOKIE))
    await visitor.send(event("page_visit", {"n": 2}, PHONE))
    await visitor.send(
        customer({"first_name": "Jane", "city": "Bratislava"}, {**COOKIE, **JANE}, update_timestamp=100.0)
    )
    await visitor.send(event("login", {}, {**PHONE, **JANE}))
    await visitor.send(customer({"city": "Brno"}, update_timestamp=200.0))
    await visitor.send(customer({"city": "Prague"}, update_timestamp=150.0))


async def test_identities(visitor: Visitor) -> None:
    """The ids of a customer are a graph of which id was joined with which, when and by which command."""
    await send_jane(visitor)
    page = await visitor.open("/?view=customers")
    await page.locator("#customers .row", has_text="jane@example.com").click()
    nodes = block(page, "Identities").locator(".node")
    await expect(nodes).to_have_count(3)
    await expect(block(page, "Identities").locator(".node.soft .value")).to_have_text(
        ["cookie-of-jane", "cookie-of-her-phone"]
    )
    await expect(block(page, "Identities").locator(".node.hard .value")).to_have_text(["jane@example.com"])
    await expect(block(page, "Identities").locator(".edge path")).to_have_count(2)
    joins = block(page, "Identities").locator(".joins li")
    await expect(joins).to_have_count(2)
    await expect(joins.first).to_contain_text("identified")
    await expect(joins.last).to_contain_text("sent together in an event")
    await expect(joins.last).to_contain_text("was merged")
    await joins.last.get_by_role("link").click()
    await expect(page.get_by_role("complementary", name="Command")).to_contain_text("login")


async def test_a_shared_address_of_a_merged_customer(visitor: Visitor) -> None:
    """The address of a customer who was merged leads to the remaining one."""
    await send_jane(visitor)
    page = await visitor.open("/?view=customers&person=shop%2F2")
    await expect(panel(page)).to_contain_text("was merged into this one")
    await expect(panel(page).get_by_role("heading", level=2)).to_have_text("jane@example.com")


async def test_history_of_properties(visitor: Visitor) -> None:
    """Each change of a property is listed with the difference, also one that was too old to apply."""
    await send_jane(visitor)
    page = await visitor.open("/?view=customers&person=shop%2F1")
    rows = block(page, "History of properties").locator("tbody tr")
    await expect(rows.filter(has_text="city")).to_have_count(3)
    changed = rows.filter(has=page.locator("del"))
    await expect(changed.locator("del")).to_have_text("atislava")
    await expect(changed.locator("ins")).to_have_text("no")
    await expect(rows.filter(has_text="not applied")).to_contain_text("Prague")
    await expect(block(page, "Properties").locator(".json-string")).to_have_text(['"Jane"', '"Brno"'])


async def test_sessions_tokens_and_messages(visitor: Visitor) -> None:
    """The events of each session are bars; push tokens and shown messages are listed."""
    ids = {**JANE}
    await visitor.send(
        event("session_start", {}, ids, timestamp=1000.0),
        event("page_visit", {"n": 1}, ids, timestamp=1030.0),
        event("session_end", {"duration": 60}, ids, timestamp=1060.0),
        event(
            "banner",
            {"action": "show", "banner_name": "Spring sale", "banner_type": "content block"},
            ids,
            timestamp=1040.0,
        ),
        customer({"google_push_notification_id": "fcm-token"}, ids),
        event(
            "notification_state", {"push_notification_token": "fcm-token", "platform": "android", "valid": True}, ids
        ),
    )
    page = await visitor.open("/?view=customers&person=shop%2F1")
    first = block(page, "Sessions").locator("li", has_text="1 min 0 s")
    await expect(first.locator(".mark-event")).to_have_count(4)
    await expect(block(page, "Push tokens").locator("tbody tr")).to_have_count(1)
    await expect(block(page, "Push tokens").locator("tbody")).to_contain_text("fcm-token")
    await expect(block(page, "Messages").locator("tbody tr")).to_contain_text("Spring sale")
    await first.locator(".mark-event").first.click()
    await expect(page.get_by_role("complementary", name="Command")).to_contain_text("session_start")


async def test_search_and_live_updates(visitor: Visitor) -> None:
    """The list of customers can be searched, and the open customer follows what arrives."""
    await visitor.send(*many(500))
    await send_jane(visitor)
    page = await visitor.open("/?view=customers")
    await page.locator("#search").fill("jane@")
    await expect(page.locator("#customers .row")).to_have_count(1)
    await page.locator("#customers .row").click()
    await expect(panel(page).locator(".facts")).to_contain_text("3")
    await visitor.send(customer({"tier": "gold"}))
    await expect(block(page, "Properties")).to_contain_text("gold")
    await panel(page).locator(".facts a").click()
    await expect(page.locator("#events .row .name")).to_have_text(
        ["customer", "customer", "customer", "login", "customer", "page_visit", "page_visit"]
    )


async def test_a_long_list_stays_loaded(visitor: Visitor) -> None:
    """What was loaded while scrolling stays there when customers further up are active."""
    await visitor.send(*(event("ping", {}, {"registered": f"user{number}"}) for number in range(500)))
    page = await visitor.open("/?view=customers")
    rows, box = page.locator("#customers .row"), page.locator("#customers")
    await expect(rows.first).to_have_attribute("aria-setsize", "200")
    await box.evaluate("box => { box.scrollTop = box.scrollHeight; }")
    await expect(rows.first).to_have_attribute("aria-setsize", "400")
    await visitor.send(event("ping", {}, {"registered": "user450"}), event("ping", {}, {"registered": "new"}))
    await expect(rows.first).to_have_attribute("aria-setsize", "401")
    await box.evaluate("box => { box.scrollTop = 0; }")
    await expect(rows.nth(0)).to_contain_text("new")
    await expect(rows.nth(1)).to_contain_text("user450")


async def test_long_ids_stay_in_their_boxes(visitor: Visitor) -> None:
    """An id in the graph is cut where its box ends, however wide its letters are."""
    await visitor.send(event("login", {}, {"registered": "W" * 60, "cookie": "i" * 60}))
    page = await visitor.open("/?view=customers&person=shop%2F1")
    for kind in ("soft", "hard"):
        node = page.locator(f".node.{kind}")
        box, text = await node.locator("rect").bounding_box(), await node.locator(".value").bounding_box()
        assert box is not None
        assert text is not None
        assert box["x"] < text["x"]
        assert text["x"] + text["width"] < box["x"] + box["width"]
        await expect(node.locator(".value")).to_have_css("text-overflow", "ellipsis")
