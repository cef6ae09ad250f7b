"""
Chromium for the tests of the page, and a page that notes everything that must not happen.
"""

import json
import os
import shutil
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import pytest
from attrs import field, frozen
from playwright.async_api import (
    Browser,
    BrowserContext,
    ConsoleMessage,
    Dialog,
    Page,
    Request,
    async_playwright,
    expect,
)

from exponea_async.sandbox import Sandbox

#: How long a locator waits, in milliseconds: a slow machine must not fail a test.
TIMEOUT = 30_000
BATCH = 50
#: The permissions of a context whose pages copy.
CLIPBOARD = ["clipboard-read", "clipboard-write"]
JANE = {"registered": "jane@example.com"}
#: Reports each violation of the content security policy to the console, also those of workers and frames.
REPORT_VIOLATIONS = """
document.addEventListener("securitypolicyviolation", (event) =>
    console.error(`policy: ${event.violatedDirective} ${event.blockedURI}`));
"""

expect.set_options(timeout=TIMEOUT)


@asynccontextmanager
async def chromium() -> AsyncIterator[Browser]:
    """Run Chromium; skip the test where it is not installed, but fail it where everything has to be tested."""
    program = shutil.which("chromium")
    if program is None:
        missing = "chromium is not installed; 'make programs' installs it."
        # A skipped test would go unnoticed there.
        if os.environ.get("CI"):
            pytest.fail(missing)
        pytest.skip(missing)
    # Names of other hosts do not resolve: nothing can leave this machine.
    options = ["--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"]
    if os.geteuid() == 0:
        options.append("--no-sandbox")
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=program, args=options)
        try:
            yield browser
        finally:
            await browser.close()


@frozen
class Watch:
    """
    What must not happen while a page is open.

    Attributes:
        problems: Errors, dialogs, violations of the policy, and requests to another host.
        expected: Parts of the problems that a test causes. The browser may report them later than the page shows them.
        requests: All requests.
    """

    problems: list[str] = field(factory=list)
    expected: list[str] = field(factory=list)
    requests: list[Request] = field(factory=list)

    def expect(self, *parts: str) -> None:
        """Consider problems as expected that have one of these parts."""
        self.expected.extend(parts)

    @property
    def unexpected(self) -> list[str]:
        """The problems that no test has expected."""
        return [each for each in self.problems if not any(part in each for part in self.expected)]

    def attach(self, context: BrowserContext, host: str) -> None:
        """Watch all pages of a context."""

        def on_console(message: ConsoleMessage) -> None:
            if message.type in ("error", "warning"):
                self.problems.append(f"console: {message.text}")

        def on_request(request: Request) -> None:
            self.requests.append(request)
            url = urlsplit(request.url)
            if url.scheme != "data" and url.netloc != host:
                self.problems.append(f"request: {request.url}")

        async def on_dialog(dialog: Dialog) -> None:
            self.problems.append(f"dialog: {dialog.message}")
            await dialog.dismiss()

        context.on("console", on_console)
        context.on("request", on_request)
        context.on("dialog", on_dialog)
        context.on("weberror", lambda error: self.problems.append(f"error: {error.error}"))


@frozen
class Visitor:
    """
    A browser, and a sandbox whose page it visits.

    Attributes:
        browser: The browser.
        sandbox: The sandbox.
        watch: What must not happen.
        contexts: The open contexts, which the fixture closes.
    """

    browser: Browser
    sandbox: Sandbox
    watch: Watch = field(factory=Watch)
    contexts: list[BrowserContext] = field(factory=list)

    async def open(self, path: str = "/", **options: Any) -> Page:
        """Open the page in a context of its own."""
        usual: dict[str, Any] = {"viewport": {"width": 1280, "height": 800}, "color_scheme": "light"}
        context = await self.browser.new_context(**(usual | options))
        self.contexts.append(context)
        context.set_default_timeout(TIMEOUT)
        self.watch.attach(context, urlsplit(self.sandbox.url).netloc)
        await context.add_init_script(REPORT_VIOLATIONS)
        page = await context.new_page()
        await page.goto(self.sandbox.url + path)
        await expect(page.locator(".connection")).to_have_text("Live")
        return page

    async def send(self, *commands: Mapping[str, Any], project: str = "shop") -> None:
        """Send commands as an SDK does, in batches."""
        async with aiohttp.ClientSession(headers={"Authorization": "Token a-secret-key"}) as session:
            url = f"{self.sandbox.url}/track/v2/projects/{project}/batch"
            for start in range(0, len(commands), BATCH):
                body = {"commands": commands[start : start + BATCH]}
                async with session.post(url, json=body) as response:
                    await response.read()


def event(name: str, properties: Mapping[str, Any] | None = None, ids: Mapping[str, str] = JANE, **data: Any) -> Any:
    """Return the command of an event."""
    fields = {"customer_ids": ids, "event_type": name, "properties": properties or {}, **data}
    return {"name": "customers/events", "data": fields}


def customer(properties: Mapping[str, Any], ids: Mapping[str, str] = JANE, **data: Any) -> Any:
    """Return the command of an update of a customer."""
    return {"name": "customers", "data": {"customer_ids": ids, "properties": properties, **data}}


def many(number: int) -> Iterable[Any]:
    """Return commands of different events."""
    return [event("page_visit", {"number": each}, {"registered": f"user{each % 500}"}) for each in range(number)]


async def copied(page: Page, button: str) -> str:
    """Click a button that copies, and return what is in the clipboard then."""
    # Not the word "Copied", which is there for a short time only.
    await page.evaluate("navigator.clipboard.writeText('')")
    await page.locator(button).click()
    await page.wait_for_function("async () => await navigator.clipboard.readText() !== ''")
    return str(await page.evaluate("navigator.clipboard.readText()"))


def texts(value: str) -> str:
    """Return a text as a literal of JavaScript."""
    return json.dumps(value)
