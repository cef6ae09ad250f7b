"""
What everybody needs: the keyboard alone, both themes, wide and narrow, a screen reader, and the first event.
"""

import asyncio
import re
import sys

import pytest
from helpers.browser import JANE, Visitor, customer, event
from helpers.programs import ROOT
from playwright.async_api import Page, expect

from exponea_async.sandbox import Fault

PATHS = [
    "/",
    "/?entry=1",
    "/?view=customers&person=shop%2F1",
    "/?view=requests&request=1",
    "/?view=faults",
    "/?view=messages",
]
#: The least contrast of text, as the guidelines for accessibility (AA) say.
CONTRAST = 4.5
#: Returns the elements with text whose contrast to the first opaque background behind them is below a limit.
LOW_CONTRAST = """
limit => {
    const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
    const rgba = colour => {
        canvas.clearRect(0, 0, 1, 1);
        canvas.fillStyle = colour;
        canvas.fillRect(0, 0, 1, 1);
        return [...canvas.getImageData(0, 0, 1, 1).data];
    };
    const light = ([r, g, b]) => {
        const [x, y, z] = [r, g, b].map(each => each / 255)
            .map(each => each <= 0.04045 ? each / 12.92 : ((each + 0.055) / 1.055) ** 2.4);
        return 0.2126 * x + 0.7152 * y + 0.0722 * z;
    };
    const behind = element => {
        for (let each = element; each; each = each.parentElement) {
            const colour = rgba(getComputedStyle(each).backgroundColor);
            if (colour[3] === 255) return colour;
        }
        return [255, 255, 255, 255];
    };
    const found = [];
    for (const element of document.querySelectorAll("#page *")) {
        const own = [...element.childNodes].some(node => node.nodeType === 3 && node.data.trim());
        if (!own || element.closest("svg, .visually-hidden, dialog") || !element.checkVisibility()) continue;
        const [one, two] = [light(rgba(getComputedStyle(element).color)), light(behind(element))];
        const contrast = (Math.max(one, two) + 0.05) / (Math.min(one, two) + 0.05);
        const name = `${element.className} ${element.textContent.slice(0, 30)}`;
        if (contrast < limit) found.push(`${name} ${contrast.toFixed(2)}`);
    }
    return found;
}
"""


async def send_some(visitor: Visitor) -> None:
    await visitor.send(event("seen", {"n": 1}, timestamp=5.0), event("seen", {"n": 1}, timestamp=5.0))
    await visitor.send(customer({"first_name": "Jane"}), event("typo", timestamp="x"))
    await visitor.send(event("both", {"total_price": 7.99, "items": ["a" * 300]}, {**JANE, "cookie": "c" * 100}))


async def focused(page: Page) -> str:
    return str(await page.evaluate("document.activeElement.id || document.activeElement.getAttribute('aria-label')"))


class TestKeyboard:
    async def test_a_walk(self, visitor: Visitor) -> None:
        """Everything that matters can be reached without a mouse: move, open, close, search, pause, help."""
        await send_some(visitor)
        page = await visitor.open()
        await expect(page.locator("#events .row")).to_have_count(5)
        await page.keyboard.press("j")
        assert await focused(page) == "events"
        await expect(page.locator("#events .row[aria-selected=true] .name")).to_have_text("both")
        await page.keyboard.press("j")
        await expect(page.locator("#events .row[aria-selected=true] .name")).to_have_text("typo")
        active = await page.locator("#events").get_attribute("aria-activedescendant")
        await expect(page.locator(f"#{active}")).to_contain_text("typo")
        await page.keyboard.press("Enter")
        panel = page.get_by_role("complementary", name="Command")
        await expect(panel).to_be_focused()
        await expect(panel).to_contain_text("timestamp should be a number of seconds.")
        await page.keyboard.press("k")
        await expect(panel).to_contain_text("both")
        assert await focused(page) == "events"
        await page.keyboard.press("Escape")
        await expect(panel).to_have_count(0)
        assert await focused(page) == "events"
        await page.keyboard.press("/")
        assert await focused(page) == "search"
        await page.keyboard.type("pj?")
        await expect(page.locator("#search")).to_have_value("pj?")
        await page.keyboard.press("Escape")
        await page.keyboard.press("p")
        await expect(page.locator("#pause")).to_have_attribute("aria-pressed", "true")
        await page.keyboard.press("?")
        await expect(page.get_by_role("dialog", name="Keys")).to_be_visible()
        await page.keyboard.press("Escape")
        await expect(page.get_by_role("dialog", name="Keys")).not_to_be_visible()
        await page.keyboard.press("4")
        await expect(page.get_by_role("heading", name="Faults")).to_be_visible()

    async def test_c_copies(self, visitor: Visitor) -> None:
        """The key c copies the open command."""
        await send_some(visitor)
        page = await visitor.open("/?entry=3", permissions=["clipboard-read", "clipboard-write"])
        await expect(page.locator("#copy-pytest")).to_be_visible()
        await page.keyboard.press("c")
        # Not the word "Copied", which is there for a short time only.
        await page.wait_for_function("async () => (await navigator.clipboard.readText()).startsWith('assert_tracked(')")
        assert str(await page.evaluate("navigator.clipboard.readText()")).startswith('assert_tracked("customer"')

    async def test_the_focus_after_buttons_that_go_away(self, visitor: Visitor) -> None:
        """A button that is gone after it was pressed leaves the focus at a place from which the user can go on."""
        await send_some(visitor)
        page = await visitor.open("/?entry=3&type=customer")
        await page.get_by_role("button", name="Close (Esc)").press("Enter")
        await expect(page.locator("#events")).to_be_focused()
        await page.locator(".tag").press("Enter")
        await expect(page.locator("#search")).to_be_focused()
        visitor.sandbox.faults.add(Fault("drop", path="x"))
        await page.get_by_role("link", name="Faults").click()
        await page.get_by_role("button", name="Remove Drop").press("Enter")
        await expect(page.locator("#no-faults")).to_be_visible()
        await expect(page.locator("#active-title")).to_be_focused()

    async def test_the_ends_of_the_list(self, visitor: Visitor) -> None:
        """Home, End and the page keys move in a list of which only a part is in the document."""
        await visitor.send(*(event("ping", {"n": number}) for number in range(500)))
        page = await visitor.open()
        await page.locator("#events-500").wait_for()
        await page.locator("#events").focus()
        await page.keyboard.press("End")
        await expect(page.locator("#events-1")).to_have_attribute("aria-selected", "true")
        await expect(page.locator("#events-1")).to_be_in_viewport()
        await page.keyboard.press("PageUp")
        await page.keyboard.press("ArrowDown")
        await page.keyboard.press("Home")
        await expect(page.locator("#events-500")).to_have_attribute("aria-selected", "true")
        await expect(page.locator("#events-500")).to_be_in_viewport()

    async def test_the_focus_is_visible(self, visitor: Visitor) -> None:
        """Each stop of the tab key has an outline, and the first one skips to the content."""
        await send_some(visitor)
        page = await visitor.open()
        await page.keyboard.press("Tab")
        await expect(page.get_by_role("link", name="Skip to the content")).to_be_focused()
        seen = set()
        for _ in range(24):
            await page.keyboard.press("Tab")
            # The outline of a checkbox is that of its label.
            width = await page.evaluate(
                "(element => Math.max(...[element, element.nextElementSibling].filter(Boolean)"
                ".map(each => parseFloat(getComputedStyle(each).outlineWidth))))(document.activeElement)"
            )
            seen.add(await focused(page))
            assert width >= 1
        assert {"search", "events", "pause", "theme"} <= seen


class TestThemes:
    @pytest.mark.parametrize("path", PATHS)
    @pytest.mark.parametrize("theme", ["light", "dark"])
    async def test_contrast(self, visitor: Visitor, path: str, theme: str) -> None:
        """All text has the contrast that the guidelines for accessibility ask for."""
        await send_some(visitor)
        page = await visitor.open(path, color_scheme=theme)
        await expect(page.locator(".placeholder[role=status]")).to_have_count(0)
        assert await page.evaluate(LOW_CONTRAST, CONTRAST) == []

    async def test_the_system_and_the_switch(self, visitor: Visitor) -> None:
        """The page has the theme of the system, until the user chooses the other one, which it remembers."""
        page = await visitor.open(color_scheme="dark")
        dark = "rgb(18, 21, 27)"
        await expect(page.locator("body")).to_have_css("background-color", dark)
        await page.emulate_media(color_scheme="light")
        await expect(page.locator("body")).to_have_css("background-color", "rgb(246, 247, 249)")
        await page.locator("#theme").click()
        await expect(page.locator("body")).to_have_css("background-color", dark)
        await page.reload()
        await expect(page.locator("body")).to_have_css("background-color", dark)
        await expect(page.locator("#theme")).to_have_text("Light")


class TestWidths:
    @pytest.mark.parametrize("path", PATHS)
    @pytest.mark.parametrize("width", [320, 390, 768, 1920])
    async def test_no_horizontal_scroll(self, visitor: Visitor, path: str, width: int) -> None:
        """The page is as wide as the window, down to a small phone."""
        await send_some(visitor)
        page = await visitor.open(path, viewport={"width": width, "height": 740})
        await expect(page.locator(".placeholder[role=status]")).to_have_count(0)
        assert await page.evaluate("document.documentElement.scrollWidth") <= width

    async def test_a_command_on_a_phone(self, visitor: Visitor) -> None:
        """On a narrow window a command takes the place of the list, and the back button returns to it."""
        await send_some(visitor)
        page = await visitor.open(viewport={"width": 390, "height": 740})
        await page.locator("#events .row").first.click()
        await expect(page.get_by_role("complementary", name="Command")).to_be_visible()
        await expect(page.locator("#events")).not_to_be_visible()
        await page.go_back()
        await expect(page.locator("#events")).to_be_visible()


class TestScreenReader:
    async def test_roles(self, visitor: Visitor) -> None:
        """The page has landmarks, a heading, a list with positions, and a name for each control."""
        await send_some(visitor)
        page = await visitor.open("/?entry=3")
        for role in ("banner", "navigation", "main", "complementary", "search"):
            await expect(page.get_by_role(role)).to_have_count(1)
        await expect(page.get_by_role("heading", level=1)).to_have_text("Sandbox")
        options = page.get_by_role("listbox").get_by_role("option")
        await expect(options.first).to_have_attribute("aria-posinset", "1")
        await expect(options.first).to_have_attribute("aria-setsize", "5")
        for control in await page.locator("button, input, select, textarea, a[href]").all():
            name = await control.evaluate(
                "each => each.ariaLabel || each.innerText || each.labels?.[0]?.textContent || ''"
            )
            assert name.strip()

    async def test_counts_are_announced(self, visitor: Visitor) -> None:
        """New commands are announced together, politely."""
        await visitor.send(event("first"))
        page = await visitor.open()
        announced = page.locator("#announcement")
        # The first look at the counts is the one that later ones are compared with.
        await expect(announced).to_have_attribute("data-known", "true")
        await visitor.send(*(event("ping", {"n": number}) for number in range(9)), event("typo", timestamp="x"))
        await expect(announced).to_have_text("10 new commands, 1 rejected.")


class TestFirstEvent:
    async def test_the_program_works(self, visitor: Visitor) -> None:
        """The program on the empty page sends an event to this sandbox, as it is copied."""
        page = await visitor.open(permissions=["clipboard-read", "clipboard-write"])
        await page.get_by_role("button", name="Copy").click()
        await page.wait_for_function("async () => (await navigator.clipboard.readText()).includes('exponea_async')")
        program = str(await page.evaluate("navigator.clipboard.readText()"))
        assert len(re.findall(r"\S.*\n?", program)) <= 10
        process = await asyncio.create_subprocess_exec(sys.executable, "-c", program, env={"PYTHONPATH": str(ROOT)})
        assert await process.wait() == 0
        await expect(page.locator("#events .row .name")).to_have_text("purchase")
