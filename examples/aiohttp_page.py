"""
A page of an aiohttp application that shows a content block.

Run it with ``python examples/aiohttp_page.py`` and stop it with Ctrl-C. It starts a sandbox instead of Engagement, and
needs the extra ``html``.
"""

import asyncio
from contextlib import suppress

from aiohttp import web
from shop_page import DEFINITIONS, HEADERS, PLACEHOLDER, SCRIPT, ShownBlocks, closes, render

from exponea_async import Configuration, Exponea
from exponea_async.integrations.aiohttp import CLIENT, setup
from exponea_async.sandbox import Sandbox

SHOWN_BLOCKS = web.AppKey("shown_blocks", ShownBlocks)


def make_app(configuration: Configuration) -> web.Application:
    """Return the application, which opens the client on startup and closes it on cleanup."""
    app = web.Application()
    app[SHOWN_BLOCKS] = ShownBlocks()
    setup(app, Exponea(configuration), customer=customer_of)
    app.add_routes([web.get("/", page), web.get("/page.js", script), web.post("/click", click)])
    return app


def customer_of(request: web.Request) -> str:
    """Return the id of the customer: in a real application, of the one who is logged in."""
    return request.query.get("user", "jane@example.com")


async def page(request: web.Request) -> web.Response:
    """Return the page with the content block of the customer."""
    customer = customer_of(request)
    block = await request.app[CLIENT].content_block(PLACEHOLDER)
    if block is not None:
        request.app[SHOWN_BLOCKS].add(customer, block)
    return web.Response(text=render(customer, block), content_type="text/html", headers=HEADERS)


async def script(_: web.Request) -> web.Response:
    """Return the script of the page."""
    return web.Response(text=SCRIPT, content_type="text/javascript", headers=HEADERS)


async def click(request: web.Request) -> web.Response:
    """Track a click in a content block, and return the link to open."""
    data = await request.json()
    block = request.app[SHOWN_BLOCKS].get(customer_of(request), data["block"])
    if block is None:
        raise web.HTTPNotFound
    link = await request.app[CLIENT].click_content_block(PLACEHOLDER, block, data["url"])
    return web.json_response({"open": link, "closed": closes(block, data["url"])})


async def main(port: int = 8080) -> None:
    """Serve the page, with a sandbox instead of Engagement."""
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
