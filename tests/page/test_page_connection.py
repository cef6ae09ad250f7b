"""
What becomes of an open page when the sandbox, the network or the browser changes: restarts, failures, hidden pages.
"""

from helpers.browser import Visitor, event, many
from playwright.async_api import Locator, Page, Route, expect

from exponea_async.sandbox import Sandbox

#: The connections to one host that Chromium opens at the same time.
CONNECTIONS = 6
#: Headless pages are always visible, so the page is told that it is not.
HIDE = """state => {
    Object.defineProperty(document, "visibilityState", { value: state, configurable: true });
    document.dispatchEvent(new Event("visibilitychange"));
}"""


def names(page: Page) -> Locator:
    return page.locator("#events .row .name")


async def test_another_sandbox(visitor: Visitor) -> None:
    """After the sandbox was started anew, what is open and no longer exists is not shown as if it did."""
    await visitor.send(event("old", {"n": 1}), event("older"))
    command = await visitor.open("/?entry=2")
    request = await visitor.open("/?view=requests&request=1")
    await expect(command.locator(".panel")).to_contain_text("older")
    await expect(request.locator(".panel .body").first).to_be_visible()
    port = int(visitor.sandbox.url.rpartition(":")[2])
    await visitor.sandbox.aclose()
    async with Sandbox(port=port):
        for page in (command, request):
            await expect(page.get_by_text("All data was deleted.")).to_be_visible()
        await expect(command.locator(".panel")).to_contain_text("does not keep this command any more")
        await expect(request.locator(".panel")).to_contain_text("does not keep this request any more")
        await visitor.send(event("new"))
        await expect(command.locator("#events .row .name")).to_have_text("new")
    # The browser itself reports the requests that failed.
    visitor.watch.expect("net::ERR_", "404")


async def test_the_first_load_fails(visitor: Visitor) -> None:
    """A page that could not load the list says so, and loads all of it as soon as the sandbox is back."""

    async def fail(route: Route) -> None:
        await route.abort()

    await visitor.send(*many(30))
    page = await visitor.open("/?view=faults")
    await page.route("**/sandbox/log?*", fail)
    await page.goto(visitor.sandbox.url)
    await expect(page.get_by_role("alert")).to_contain_text("The sandbox does not respond. Is it still running?")
    await page.unroute("**/sandbox/log?*")
    await visitor.sandbox.aclose()
    await expect(page.locator(".connection")).to_have_text("Reconnecting")
    await visitor.sandbox.start()
    await expect(page.locator("#events .row").first).to_have_attribute("aria-setsize", "30")
    await expect(page.get_by_role("alert")).to_have_count(0)
    visitor.watch.expect("net::ERR_")


async def test_many_pages(visitor: Visitor) -> None:
    """Pages that are not visible give their connection back, so that more pages can be open than a browser has."""
    first = await visitor.open()
    for _ in range(CONNECTIONS - 1):
        page = await first.context.new_page()
        await page.goto(visitor.sandbox.url)
        await expect(page.locator(".connection")).to_have_text("Live")
    for page in first.context.pages:
        await page.evaluate(HIDE, "hidden")
    last = await first.context.new_page()
    await last.goto(visitor.sandbox.url)
    await expect(last.locator(".connection")).to_have_text("Live")
    await visitor.send(event("seen"), event("typo", timestamp="x"))
    await expect(last.locator("#events .row")).to_have_count(2)
    # The title is what is visible of a hidden page.
    await expect(first).to_have_title("(1 rejected) Sandbox")
    await first.evaluate(HIDE, "visible")
    await expect(names(first)).to_have_text(["typo", "seen"])
    await visitor.send(event("later"))
    await expect(names(first)).to_have_text(["later", "typo", "seen"])
