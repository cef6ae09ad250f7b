"""
One command: the failing value, the request and the response, and what can be copied.
"""

import ast
import json
import shlex

from helpers.browser import CLIPBOARD, JANE, Visitor, copied, customer, event
from playwright.async_api import Locator, Page, Route, expect

SECRET = "a-secret-key"
#: The properties that the SDK adds by itself.
ADDED = ("app_version", "application_id", "device_id", "device_type", "os_name", "os_version", "sdk", "sdk_version")


def panel(page: Page) -> Locator:
    return page.get_by_role("complementary", name="Command")


class TestData:
    async def test_the_failing_value_is_marked(self, visitor: Visitor) -> None:
        """Of a rejected command the reason is shown, and the value that has to be changed is marked."""
        await visitor.send(event("purchase", {"a.b": 1, "long": "x" * 20_000}))
        page = await visitor.open("/?entry=1")
        await expect(panel(page).locator(".errors li")).to_have_text(
            "The property 'long' should be smaller than 16 KB."
        )
        await expect(panel(page).locator(".json-line.failing")).to_have_count(1)
        await expect(panel(page).locator(".json-line.failing .json-name")).to_contain_text('"long"')

    async def test_long_values_are_cut(self, visitor: Visitor) -> None:
        """A long text is shown in part, and as a whole on demand."""
        await visitor.send(event("purchase", {"long": "ab" * 5_000}))
        page = await visitor.open("/?entry=1")
        text = panel(page).locator(".json-string .long-text", has_text="abab")
        assert len(await text.inner_text()) < 500
        await panel(page).get_by_role("button", name="show all 10,000 characters").click()
        await expect(text).to_have_text(json.dumps("ab" * 5_000))

    async def test_numbers_keep_their_digits(self, visitor: Visitor) -> None:
        """Large integers are not rounded, and 1.0 stays a float."""
        await visitor.send(event("purchase", {"id": 9_007_199_254_740_993, "price": 1.0}))
        page = await visitor.open("/?entry=1")
        await expect(panel(page).locator(".json-number").get_by_text("9007199254740993")).to_be_visible()
        await expect(panel(page).locator(".json-number").get_by_text("1.0", exact=True)).to_be_visible()

    async def test_a_forgotten_command(self, visitor: Visitor) -> None:
        """A shared address of a command that is gone says so."""
        page = await visitor.open("/?entry=17")
        await expect(panel(page)).to_contain_text("The sandbox does not keep this command any more.")
        # The browser reports the status of the response.
        visitor.watch.expect("404")


class TestRequest:
    async def test_request_and_response(self, visitor: Visitor) -> None:
        """The request and the response are shown as they were, but for the key."""
        await visitor.send(event("purchase", {"note": "Bonjour"}))
        page = await visitor.open("/?entry=1")
        await panel(page).get_by_role("tab", name="Request and response").click()
        await expect(panel(page).locator(".request-line")).to_have_text("POST /track/v2/projects/shop/batch")
        await expect(panel(page).locator(".body").first).to_contain_text("Bonjour")
        await expect(panel(page).locator(".body").last).to_contain_text('"success": true')
        await panel(page).locator("summary", has_text="headers").first.click()
        await expect(panel(page).locator(".headers").first).to_contain_text("Token ***")
        assert SECRET not in await page.content()


class TestCopy:
    async def test_pytest(self, visitor: Visitor) -> None:
        """A command is copied as an assertion with literals of Python, without the properties that the SDK adds."""
        properties = {
            "total_price": 7.5,
            "vip": True,
            "coupon": None,
            "note": 'a "b" \u202e\U0001f600',
            "platform": "x",
        }
        properties |= dict.fromkeys(ADDED, "x")
        await visitor.send(event("purchase", properties, {**JANE, "cookie": "c-1"}))
        page = await visitor.open("/?entry=1", permissions=CLIPBOARD)
        text = await copied(page, "#copy-pytest")
        call = ast.parse(text).body[0]
        assert isinstance(call, ast.Expr)
        assert isinstance(call.value, ast.Call)
        for name in ADDED:
            del properties[name]
        assert ast.unparse(call.value.func) == "assert_tracked"
        assert [ast.literal_eval(each) for each in call.value.args] == ["purchase", properties]
        assert {each.arg: ast.literal_eval(each.value) for each in call.value.keywords} == {"customer": JANE}
        assert "\u202e" not in text

    async def test_pytest_of_other_commands(self, visitor: Visitor) -> None:
        """A rejected command is copied as the assertion that nothing was tracked, an update under its own name."""
        await visitor.send(customer({"vip": True}), event("typo", timestamp="yesterday"))
        page = await visitor.open("/?entry=1", permissions=CLIPBOARD)
        expected = 'assert_tracked("customer", {"vip": True}, customer={"registered": "jane@example.com"})'
        assert await copied(page, "#copy-pytest") == expected
        await page.locator("#events-2").click()
        await expect(panel(page).locator(".chip")).to_have_text("rejected")
        assert await copied(page, "#copy-pytest") == (
            'assert_not_tracked("typo", customer={"registered": "jane@example.com"})'
        )

    async def test_python(self, visitor: Visitor) -> None:
        """A command is copied as a call of this SDK."""
        await visitor.send(event("purchase", {"total_price": 7.5}, timestamp=1_790_000_000.5), customer({"vip": True}))
        page = await visitor.open("/?entry=1", permissions=CLIPBOARD)
        assert await copied(page, "#copy-python") == (
            'await exponea.for_customer({"registered": "jane@example.com"}).track_event(\n'
            '    Event("purchase", {"total_price": 7.5}, timestamp=1790000000.5)\n'
            ")"
        )
        await page.locator("#events-2").click()
        await expect(panel(page)).to_contain_text("vip")
        assert "identify_customer" in await copied(page, "#copy-python")

    async def test_python_of_a_click(self, visitor: Visitor) -> None:
        """A click on a campaign link is copied as the call that handles the link."""
        link = "https://shop.example/?xnpe_cmp=a%20'b'"
        data = {"customer_ids": JANE, "url": link, "timestamp": 1_790_000_000.5}
        await visitor.send({"name": "campaigns/clicks", "data": data})
        page = await visitor.open("/?entry=1", permissions=CLIPBOARD)
        assert await copied(page, "#copy-python") == (
            f'await exponea.for_customer({{"registered": "jane@example.com"}}).handle_campaign_click("{link}", '
            "timestamp=1790000000.5)"
        )

    async def test_curl(self, visitor: Visitor) -> None:
        """A request is copied as a command of a shell that sends the same, without the key."""
        await visitor.send(event("it's", {"note": "a'b\u202e $HOME `ls`\n"}))
        page = await visitor.open("/?view=requests&request=1", permissions=CLIPBOARD)
        text = await copied(page, "#copy-curl")
        words = shlex.split(text.replace("\\\n", ""))
        assert words[:5] == ["curl", "--globoff", "-X", "POST", f"{visitor.sandbox.url}/track/v2/projects/shop/batch"]
        assert "Authorization: Token ***" in words
        assert SECRET not in text
        body = json.loads(words[words.index("--data-raw") + 1])
        assert body == {"commands": [event("it's", {"note": "a'b\u202e $HOME `ls`\n"})]}

    async def test_keys_are_masked_twice(self, visitor: Visitor) -> None:
        """The page itself masks keys, too: it neither shows nor copies one that it gets."""

        async def unmask(route: Route) -> None:
            response = await route.fetch()
            await route.fulfill(response=response, body=(await response.text()).replace("Token ***", f"Token {SECRET}"))

        await visitor.send(event("purchase"))
        page = await visitor.open(permissions=CLIPBOARD)
        await page.route("**/sandbox/requests/1", unmask)
        await page.locator("#events-1").click()
        await panel(page).get_by_role("tab", name="Request and response").click()
        await panel(page).locator("summary", has_text="headers").first.click()
        await expect(panel(page).locator(".headers").first).to_contain_text("Token ***")
        assert SECRET not in await page.content()
        text = await copied(page, "#copy-curl")
        assert "Authorization: Token ***" in text
        assert SECRET not in text
