"""
A shop in Starlette, whose customers and visitors are tracked.

Run it with ``python examples/starlette_shop.py`` and stop it with Ctrl-C. It starts a sandbox instead of Engagement,
and needs starlette and uvicorn.
"""

import asyncio
from contextlib import suppress

import uvicorn
from starlette.applications import Starlette
from starlette.authentication import AuthCredentials, AuthenticationBackend, BaseUser, SimpleUser
from starlette.middleware import Middleware
from starlette.middleware.authentication import AuthenticationMiddleware
from starlette.requests import HTTPConnection, Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from exponea_async import Configuration, Event, Exponea
from exponea_async.integrations.starlette import ExponeaMiddleware, client_lifespan, get_exponea
from exponea_async.sandbox import Sandbox


class Authentication(AuthenticationBackend):
    """The authentication of the application. A real one checks a session or a token."""

    async def authenticate(self, conn: HTTPConnection) -> tuple[AuthCredentials, BaseUser] | None:
        """Return the user who is signed in."""
        email = conn.cookies.get("signed_in_as")
        return (AuthCredentials(), SimpleUser(email)) if email else None


async def view_item(request: Request) -> JSONResponse:
    """Show an item."""
    exponea = await get_exponea(request)
    await exponea.track_event(Event("view_item", request.path_params))
    return JSONResponse(request.path_params)


def create_app(configuration: Configuration) -> Starlette:
    """Return the application, with a client of its own."""
    exponea = Exponea(configuration)
    return Starlette(
        routes=[Route("/items/{item_id}", view_item)],
        lifespan=client_lifespan(exponea),
        middleware=[
            Middleware(ExponeaMiddleware, exponea=exponea, customer=lambda scope: scope["user"].display_name or None),
            Middleware(AuthenticationMiddleware, backend=Authentication()),
        ],
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
