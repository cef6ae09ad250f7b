"""
The same page as an ASGI application without a framework.

Run it with ``python examples/asgi_page.py`` and stop it with Ctrl-C. It starts a sandbox instead of Engagement, and
needs uvicorn and the extra ``html``.
"""

import asyncio
import json
from collections.abc import Awaitable, Callable, MutableMapping
from contextlib import suppress
from typing import Any
from urllib.parse import parse_qs

from shop_page import DEFINITIONS, HEADERS, PLACEHOLDER, SCRIPT, ShownBlocks, closes, render

from exponea_async import Configuration, Exponea
from exponea_async.integrations.asgi import ClientLifespan, ExponeaMiddleware
from exponea_async.sandbox import Sandbox

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
#: A status, a media type and a body.
Response = tuple[int, str, str]


def customer(scope: Scope) -> str:
    """Return the id of the customer. In a real application, it is the one who is signed in."""
    query: bytes = scope["query_string"]
    return parse_qs(query.decode()).get("user", ["jane@example.com"])[0]


class ShopPage:
    """
    The application.

    Args:
        exponea: The client, to which the customer of each request is bound.
    """

    def __init__(self, exponea: Exponea) -> None:
        self._exponea = exponea
        self._shown_blocks = ShownBlocks()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a request."""
        await _send_response(send, await self._handle_request(scope, receive))

    async def _handle_request(self, scope: Scope, receive: Receive) -> Response:
        route = scope["method"], scope["path"]
        if route == ("GET", "/"):
            return await self._page(customer(scope))
        if route == ("GET", "/page.js"):
            return 200, "text/javascript", SCRIPT
        if route == ("POST", "/click"):
            return await self._click(customer(scope), json.loads(await _body(receive)))
        return 404, "text/plain", "Not found."

    async def _page(self, customer: str) -> Response:
        """Return the page with the content block of the customer."""
        block = await self._exponea.content_block(PLACEHOLDER)
        if block is not None:
            self._shown_blocks.add(customer, block)
        return 200, "text/html", render(customer, block)

    async def _click(self, customer: str, data: dict[str, str]) -> Response:
        """Track a click in a content block, and return the link to open."""
        block = self._shown_blocks.get(customer, data["block"])
        if block is None:
            return 404, "text/plain", "The content block is not shown."
        link = await self._exponea.click_content_block(PLACEHOLDER, block, data["url"])
        return 200, "application/json", json.dumps({"open": link, "closed": closes(block, data["url"])})


def make_app(configuration: Configuration) -> ClientLifespan:
    """Return the application, with a client that is opened on startup and closed on shutdown."""
    exponea = Exponea(configuration)
    return ClientLifespan(ExponeaMiddleware(ShopPage(exponea), exponea, customer=customer), exponea)


async def _body(receive: Receive) -> bytes:
    body, more = b"", True
    while more:
        message = await receive()
        body += message.get("body", b"")
        more = message.get("more_body", False)
    return body


async def _send_response(send: Send, response: Response) -> None:
    status, media_type, body = response
    headers = {"Content-Type": f"{media_type}; charset=utf-8", **HEADERS}
    encoded = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": status, "headers": encoded})
    await send({"type": "http.response.body", "body": body.encode()})


async def main(port: int = 8080) -> None:
    """Serve the page, with a sandbox instead of Engagement."""
    import uvicorn  # noqa: PLC0415 - only this server is needed here; the application runs on any ASGI server

    async with Sandbox(definitions=DEFINITIONS) as sandbox:
        settings = Configuration(
            project_token="shop", authorization_token="key", base_url=sandbox.url, storage="memory:"
        )
        print(f"http://127.0.0.1:{port}/")
        await uvicorn.Server(uvicorn.Config(make_app(settings), port=port, log_level="warning")).serve()


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        asyncio.run(main())
