"""
A page of an aiohttp application with a content block in it.

``python examples/aiohttp_page.py`` serves it with a sandbox of its own, until Ctrl-C. It needs the extra
``html``.
"""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import suppress

from aiohttp import web
from shop_page import DEFINITIONS, HEADERS, PLACEHOLDER, SCRIPT, Shown, render

from exponea_async import Configuration, Exponea
from exponea_async.sandbox import Sandbox

CLIENT = web.AppKey("client", Exponea)
SHOWN = web.AppKey("shown", Shown)


def make_app(configuration: Configuration) -> web.Application:
    """Make the application; its client lives as long as it does."""

    async def client(app: web.Application) -> AsyncIterator[None]:
        async with Exponea(configuration) as exponea:
            app[CLIENT] = exponea
            yield

    app = web.Application()
    app[SHOWN] = Shown()
    app.cleanup_ctx.append(client)
    app.add_routes([web.get("/", page), web.get("/page.js", script), web.post("/pressed", pressed)])
    return app


async def page(request: web.Request) -> web.Response:
    """Show the shop, with what Engagement has for this customer."""
    customer = _customer(request)
    tracker = request.app[CLIENT].for_customer({"registered": customer})
    block = await tracker.content_block(PLACEHOLDER)
    if block is not None:
        request.app[SHOWN].remember(customer, block)
    return web.Response(text=render(customer, block), content_type="text/html", headers=HEADERS)


async def script(_: web.Request) -> web.Response:
    """Give out the page's own script."""
    return web.Response(text=SCRIPT, content_type="text/javascript", headers=HEADERS)


async def pressed(request: web.Request) -> web.Response:
    """Take what was pressed in a block, and tell the page where to go."""
    customer, told = _customer(request), json.loads(await request.text())
    block = request.app[SHOWN].find(customer, told["block"])
    if block is None:
        raise web.HTTPNotFound
    tracker = request.app[CLIENT].for_customer({"registered": customer})
    closes = any(action.type == "CLOSE" and action.url == told["url"] for action in block.actions)
    return web.json_response(
        {"open": await tracker.click_content_block(PLACEHOLDER, block, told["url"]), "closed": closes}
    )


def _customer(request: web.Request) -> str:
    # Stands for the application's own login.
    return request.query.get("user", "jane@example.com")


async def main(port: int = 8080) -> None:
    """Serve the page, with a sandbox in the place of Engagement."""
    async with Sandbox(definitions=DEFINITIONS) as sandbox:
        settings = Configuration(
            project_token="shop", authorization_token="key", base_url=sandbox.url, storage="memory:"
        )
        runner = web.AppRunner(make_app(settings))
        await runner.setup()
        try:
            await web.TCPSite(runner, "127.0.0.1", port).start()
            print(f"http://127.0.0.1:{port}/")
            await asyncio.Event().wait()
        finally:
            await runner.cleanup()


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        asyncio.run(main())
