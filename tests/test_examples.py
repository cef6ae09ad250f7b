"""
The examples run as their users would run them, and what they embed is safe.
"""

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
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


class Seen(HTMLParser):
    """A reading of a page that has nothing to do with ours: its elements and attributes."""

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
    page = asgi_page.ShopPage(configuration)
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


Get = Callable[[str], Awaitable[tuple[str, Any]]]


async def get(url: str, **query: str) -> tuple[str, Any]:
    async with aiohttp.ClientSession() as session, session.get(url, params=query) as answer:
        assert answer.status == 200
        return await answer.text(), answer.headers


async def press(page: str, user: str, **told: str) -> Any:
    async with (
        aiohttp.ClientSession() as session,
        session.post(f"{page}/pressed", params={"user": user}, json=told) as answer,
    ):
        return await answer.json() if answer.status == 200 else answer.status


class TestPages:
    async def test_a_page_embeds_the_block(self, page: tuple[str, Sandbox]) -> None:
        """What Engagement has for the customer stands in the page, and that it was shown is tracked."""
        url, sandbox = page
        text, headers = await get(url, user="ann@example.com")

        assert "<b>Spring sale</b>" in text
        assert "script-src 'self'" in headers["Content-Security-Policy"]
        await until(lambda: bool(sandbox.engine.events("shop", "banner")))
        shown = sandbox.engine.events("shop", "banner")[0]
        assert shown.customer_ids == {"registered": "ann@example.com"}
        assert (shown.properties["action"], shown.properties["placeholder"]) == ("show", "home_top")

    async def test_what_is_hostile_stays_outside(self, page: tuple[str, Sandbox]) -> None:
        """Of all that was hidden in the block nothing is left that could run, load or send anything."""
        seen = Seen((await get(page[0]))[0])

        assert seen.tags.count("script") == 1
        assert [value for value in seen.values("src") if value] == ["/page.js"]
        assert not {"iframe", "svg", "form", "input", "base", "object", "embed"} & set(seen.tags)
        assert [name for name, _ in seen.attributes if name.startswith("on")] == []
        assert all(value.startswith("https://") for value in seen.values("href"))
        assert "https://evil.example" not in "".join(seen.values("href"))

    async def test_a_hostile_name_is_a_text(self, page: tuple[str, Sandbox]) -> None:
        """Who calls themselves a script is greeted as one, and nothing runs."""
        text, _ = await get(page[0], user="<script>alert(1)</script>")

        assert "Hello, &lt;script&gt;alert(1)&lt;/script&gt;" in text

    async def test_a_press_is_told(self, page: tuple[str, Sandbox]) -> None:
        """A link is tracked and opened, a close closes, and nobody presses what they were not shown."""
        url, sandbox = page
        seen = Seen((await get(url, user="ann@example.com"))[0])
        close = next(value for value in seen.values("href") if "close_action" in value)

        went = await press(url, "ann@example.com", block="greeting", url="https://shop.example/sale")
        assert went == {"open": "https://shop.example/sale", "closed": False}
        assert await press(url, "ann@example.com", block="greeting", url=close) == {"open": None, "closed": True}
        assert await press(url, "joe@example.com", block="greeting", url=close) == 404
        await until(lambda: len(sandbox.engine.events("shop", "banner")) == 3)
        actions = {event.properties["action"] for event in sandbox.engine.events("shop", "banner")}
        assert actions == {"show", "click", "close"}

    async def test_a_page_does_without_engagement(self, page: tuple[str, Sandbox]) -> None:
        """Where the platform is in trouble the page is served, without the block."""
        url, sandbox = page
        sandbox.faults.add(Fault("status", status=503))

        assert "Mugs, plates, bowls." in (await get(url))[0]


def test_the_bot_runs_by_itself(tmp_path: Path) -> None:
    """The conversation comes to its end, and shows cards, presses and the inbox in the right chats."""
    done = subprocess.run(
        [sys.executable, EXAMPLES / "support_bot.py"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )

    assert (done.returncode, done.stderr) == (0, "")
    said = done.stdout.splitlines()
    card = "bot: *Where is my parcel?* You can follow it on its way.  [Follow it]  [No, thanks]"
    assert [line for line in said if "*Where" in line] == [f"  chat:1  {card}", f"  chat:2  {card}"]
    assert "  chat:1  bot: here you are: shopbot://parcels" in said
    assert [line for line in said if "that is all" in line] == [
        "  chat:1  bot: that is all; 2 of 2 were new.",
        "  chat:1  bot: that is all; 0 of 2 were new.",
    ]
    learned = said[said.index("Engagement has learned:") + 1 :]
    assert [line.split()[:2] for line in learned] == [
        ["banner", "show"],
        ["banner", "click"],
        ["banner", "show"],
        ["banner", "close"],
        *[["campaign", "opened"]] * 4,
    ]
