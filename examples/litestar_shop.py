"""
A shop in Litestar, whose customers and visitors are tracked.

Run it with ``python examples/litestar_shop.py`` and stop it with Ctrl-C. It starts a sandbox instead of Engagement, and
needs litestar and uvicorn.
"""

import asyncio
from contextlib import suppress
from typing import Any

import uvicorn
from litestar import Litestar, Request, get, post
from litestar.connection import ASGIConnection
from litestar.middleware import AbstractAuthenticationMiddleware, AuthenticationResult, DefineMiddleware

from exponea_async import Configuration, Event, Exponea
from exponea_async.integrations.litestar import ExponeaClient, ExponeaPlugin, identify_visitor
from exponea_async.sandbox import Sandbox


class Authentication(AbstractAuthenticationMiddleware):
    """The authentication of the application. A real one checks a session or a token."""

    async def authenticate_request(self, connection: ASGIConnection[Any, Any, Any, Any]) -> AuthenticationResult:
        """Return the user who is signed in."""
        return AuthenticationResult(connection.cookies.get("signed_in_as"), None)


@get("/items/{item_id:str}")
async def view_item(request: Request[Any, Any, Any], exponea: ExponeaClient) -> dict[str, str]:
    """Show an item."""
    await exponea.track_event(Event("view_item", request.path_params))
    return request.path_params


@post("/welcome")
async def welcome(request: Request[Any, Any, Any], exponea: ExponeaClient) -> dict[str, str]:
    """Tell Engagement, once after a sign-in, that the customer and the visitor are the same."""
    receipt = await identify_visitor(exponea, request.scope)
    return {"status": receipt.status}


def create_app(configuration: Configuration) -> Litestar:
    """Return the application, with a client of its own."""
    return Litestar(
        route_handlers=[view_item, welcome],
        middleware=[DefineMiddleware(Authentication)],
        plugins=[ExponeaPlugin(Exponea(configuration), customer=lambda scope: scope["user"])],
    )


async def main(port: int = 8000) -> None:
    """Serve the shop, with a sandbox instead of Engagement."""
    async with Sandbox() as sandbox:
        settings = Configuration(
            project_token="shop",
            authorization_token="key",
            base_url=sandbox.url,
            storage="memory:",
            default_device=False,
        )
        print(f"http://127.0.0.1:{port}/items/mug")
        await uvicorn.Server(uvicorn.Config(create_app(settings), port=port, log_level="warning")).serve()


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        asyncio.run(main())
