"""
The same page as a plain ASGI application, without any framework.

``python examples/asgi_page.py`` serves it with uvicorn and a sandbox of its own, until Ctrl-C. It
needs uvicorn and the extra ``html``.
"""

import asyncio
import json
from collections.abc import Awaitable, Callable, MutableMapping
from contextlib import suppress
from typing import Any
from urllib.parse import parse_qs

from shop_page import DEFINITIONS, HEADERS, PLACEHOLDER, SCRIPT, Shown, render

from exponea_async import Configuration, Exponea
from exponea_async.sandbox import Sandbox

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
#: A status, a media type and a body.
Answer = tuple[int, str, str]


class ShopPage:
    """
    The application; its client lives as long as the server does.

    Args:
        configuration: The client's settings.
    """

    def __init__(self, configuration: Configuration) -> None:
        self._exponea = Exponea(configuration)
        self._shown = Shown()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Take a request, or hear that the server starts or ends."""
        if scope["type"] == "lifespan":
            await self._live(receive, send)
        elif scope["type"] == "http":
            await _respond(send, await self._answer(scope, receive))

    async def _live(self, receive: Receive, send: Send) -> None:
        while True:
            event = (await receive())["type"]
            if event == "lifespan.startup":
                await self._exponea.start()
            else:
                await self._exponea.aclose()
            await send({"type": f"{event}.complete"})
            if event == "lifespan.shutdown":
                return

    async def _answer(self, scope: Scope, receive: Receive) -> Answer:
        # Stands for the application's own login.
        customer = parse_qs(scope["query_string"].decode()).get("user", ["jane@example.com"])[0]
        route = scope["method"], scope["path"]
        if route == ("GET", "/"):
            return await self._page(customer)
        if route == ("GET", "/page.js"):
            return 200, "text/javascript", SCRIPT
        if route == ("POST", "/pressed"):
            return await self._pressed(customer, json.loads(await _body(receive)))
        return 404, "text/plain", "There is nothing here."

    async def _page(self, customer: str) -> Answer:
        """Show the shop, with what Engagement has for this customer."""
        block = await self._exponea.for_customer({"registered": customer}).content_block(PLACEHOLDER)
        if block is not None:
            self._shown.remember(customer, block)
        return 200, "text/html", render(customer, block)

    async def _pressed(self, customer: str, told: dict[str, str]) -> Answer:
        """Take what was pressed in a block, and tell the page where to go."""
        block = self._shown.find(customer, told["block"])
        if block is None:
            return 404, "text/plain", "That block is not shown any more."
        tracker = self._exponea.for_customer({"registered": customer})
        closes = any(action.type == "CLOSE" and action.url == told["url"] for action in block.actions)
        link = await tracker.click_content_block(PLACEHOLDER, block, told["url"])
        return 200, "application/json", json.dumps({"open": link, "closed": closes})


async def _body(receive: Receive) -> bytes:
    body, more = b"", True
    while more:
        message = await receive()
        body += message.get("body", b"")
        more = message.get("more_body", False)
    return body


async def _respond(send: Send, answer: Answer) -> None:
    status, media_type, body = answer
    headers = {"Content-Type": f"{media_type}; charset=utf-8", **HEADERS}
    told = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": status, "headers": told})
    await send({"type": "http.response.body", "body": body.encode()})


async def main(port: int = 8080) -> None:
    """Serve the page, with a sandbox in the place of Engagement."""
    import uvicorn  # noqa: PLC0415 - the application itself does without; any ASGI server will do

    async with Sandbox(definitions=DEFINITIONS) as sandbox:
        settings = Configuration(
            project_token="shop", authorization_token="key", base_url=sandbox.url, storage="memory:"
        )
        print(f"http://127.0.0.1:{port}/")
        await uvicorn.Server(uvicorn.Config(ShopPage(settings), port=port, log_level="warning")).serve()


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        asyncio.run(main())
