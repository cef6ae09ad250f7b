"""
The examples run as users run them, and the HTML that they embed is safe.
"""

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import uvicorn
from aiohttp import web
from helpers.waiting import until

from exponea_async import Configuration
from exponea_async.sandbox import Fault, Sandbox

EXAMPLES = Path(__file__).parent.parent / "examples"
sys.path.insert(0, str(EXAMPLES))

import aiohttp_page  # noqa: E402 - found only now
import asgi_page  # noqa: E402
import shop_page  # noqa: E402


class ParsedPage(HTMLParser):
    """The elements and attributes of a page, from an HTML parser that the SDK does not use."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]

    def values(self, name: str) -> list[str]:
        return [value for each, value in self.attributes if each == name]


@asynccontextmanager
async def served_by_aiohttp(configuration: Configuration) -> AsyncIterator[str]:
    runner = web.AppRunner(aiohttp_page.make_app(configuration), access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    await runner.cleanup()


@asynccontextmanager
async def served_by_uvicorn(configuration: Configuration) -> AsyncIterator[str]:
    page = asgi_page.make_app(configuration)
    server = uvicorn.Server(uvicorn.Config(page, port=0, log_level="warning", ws="none"))
    task = asyncio.create_task(server.serve())
    await until(lambda: server.started)
    yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    server.should_exit = True
    await task


@pytest.fixture(params=[served_by_aiohttp, served_by_uvicorn], ids=["aiohttp", "asgi"])
async def page(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[tuple[str, Sandbox]]:
    async with Sandbox(definitions=shop_page.DEFINITIONS) as sandbox:
        settings = Configuration(
            project_token="shop", authorization_token="key", base_url=sandbox.url, storage=tmp_path / "queue.sqlite"
        )
        async with request.param(settings) as url:
            yield url, sandbox


async def get(url: str, **query: str) -> tuple[str, Any]:
    async with aiohttp.ClientSession() as session, session.get(url, params=query) as response:
        assert response.status == 200
        return await response.text(), response.headers


async def click(page: str, user: str, **data: str) -> Any:
    async with (
        aiohttp.ClientSession() as session,
        session.post(f"{page}/click", params={"user": user}, json=data) as response,
    ):
        return await response.json() if response.status == 200 else response.status


class TestPages:
    async def test_page_shows_the_block(self, page: tuple[str, Sandbox]) -> None:
        """The page contains the content block of the customer, and showing it is tracked."""
        url, sandbox = page
        text, headers = await get(url, user="ann@example.com")

        assert "<b>Spring sale</b>" in text
        assert "script-src 'self'" in headers["Content-Security-Policy"]
        await until(lambda: bool(sandbox.engine.events("shop", "banner")))
        shown = sandbox.engine.events("shop", "banner")[0]
        assert shown.customer_ids == {"registered": "ann@example.com"}
        assert (shown.properties["action"], shown.properties["placeholder"]) == ("show", "home_top")

    async def test_hostile_html_is_removed(self, page: tuple[str, Sandbox]) -> None:
        """Nothing in the content block can run a script, load a resource or send a form."""
        parsed = ParsedPage((await get(page[0]))[0])

        assert parsed.tags.count("script") == 1
        assert [value for value in parsed.values("src") if value] == ["/page.js"]
        assert not {"iframe", "svg", "form", "input", "base", "object", "embed"} & set(parsed.tags)
        assert [name for name, _ in parsed.attributes if name.startswith("on")] == []
        assert all(value.startswith(("https://", "#close_action_")) for value in parsed.values("href"))
        assert "https://evil.example" not in "".join(parsed.values("href"))

    async def test_hostile_name_is_escaped(self, page: tuple[str, Sandbox]) -> None:
        """A name that contains a script is shown as text."""
        text, _ = await get(page[0], user="<script>alert(1)</script>")

        assert "Hello, &lt;script&gt;alert(1)&lt;/script&gt;" in text

    async def test_click_is_tracked(self, page: tuple[str, Sandbox]) -> None:
        """A link is tracked and opened, a close link closes the block, and a block not shown can't be clicked."""
        url, sandbox = page
        parsed = ParsedPage((await get(url, user="ann@example.com"))[0])
        close = next(value for value in parsed.values("href") if "close_action" in value)

        result = await click(url, "ann@example.com", block="greeting", url="https://shop.example/sale")
        assert result == {"open": "https://shop.example/sale", "closed": False}
        assert await click(url, "ann@example.com", block="greeting", url=close) == {"open": None, "closed": True}
        assert await click(url, "joe@example.com", block="greeting", url=close) == 404
        await until(lambda: len(sandbox.engine.events("shop", "banner")) == 3)
        actions = {event.properties["action"] for event in sandbox.engine.events("shop", "banner")}
        assert actions == {"show", "click", "close"}

    async def test_page_without_engagement(self, page: tuple[str, Sandbox]) -> None:
        """If the platform is unavailable, the page is served without the content block."""
        url, sandbox = page
        sandbox.faults.add(Fault("status", status=503))

        assert "Mugs, plates, bowls." in (await get(url))[0]


def test_bot_runs_by_itself(tmp_path: Path) -> None:
    """The conversation ends by itself and shows cards, clicks and the inbox in the right chats."""
    done = subprocess.run(
        [sys.executable, EXAMPLES / "support_bot.py"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )

    assert (done.returncode, done.stderr) == (0, "")
    output = done.stdout.splitlines()
    card = "bot: *Where is my parcel?* You can track it on its way.  [Track it]  [No, thanks]"
    assert [line for line in output if "*Where" in line] == [f"  chat:1  {card}", f"  chat:2  {card}"]
    assert "  chat:1  bot: shopbot://parcels" in output
    assert [line for line in output if "unread" in line] == [
        "  chat:1  bot: 2 of 2 messages were unread.",
        "  chat:1  bot: 0 of 2 messages were unread.",
    ]
    events = output[output.index("Events in Engagement:") + 1 :]
    assert [line.split()[:2] for line in events] == [
        ["banner", "show"],
        ["banner", "click"],
        ["banner", "show"],
        ["banner", "close"],
        *[["campaign", "opened"]] * 4,
    ]
