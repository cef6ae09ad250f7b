"""
A shop in FastAPI, whose customers and visitors are tracked.

Run it with ``python examples/fastapi_shop.py`` and stop it with Ctrl-C. It starts a sandbox instead of Engagement, and
needs fastapi and uvicorn. Its API is documented at http://127.0.0.1:8000/docs.
"""

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from secrets import token_urlsafe
from typing import Annotated, Any

import uvicorn
from fastapi import APIRouter, BackgroundTasks, Cookie, Depends, FastAPI, Request, Response

from exponea_async import Configuration, Event, Exponea
from exponea_async.integrations.fastapi import (
    ExponeaClient,
    ExponeaMiddleware,
    RequestProperties,
    bind_customer,
    client_lifespan,
    customer_from,
    identify_visitor,
)
from exponea_async.sandbox import Sandbox

router = APIRouter()
#: Who is signed in, by the value of the cookie ``session``. A real application has a database.
SESSIONS: dict[str, str] = {}


def current_user(session: Annotated[str | None, Cookie()] = None) -> str | None:
    """Return the email address of the customer who is signed in: the authentication of the application."""
    return SESSIONS.get(session or "")


def has_consent(scope: Mapping[str, Any]) -> bool:
    """Return whether the visitor may be tracked: not those whose browser says no."""
    return (b"sec-gpc", b"1") not in scope["headers"]


@router.get("/items/{item_id}")
async def view_item(item_id: str, exponea: ExponeaClient) -> dict[str, str]:
    """Show an item."""
    await exponea.track_event(Event("view_item", {"item_id": item_id}))
    return {"item_id": item_id}


@router.post("/orders")
async def order(item_id: str, exponea: ExponeaClient, tasks: BackgroundTasks) -> dict[str, str]:
    """Order an item; the confirmation is sent after the response."""
    await exponea.track_event(Event("purchase", {"item_id": item_id, "total_price": 7.99}))
    tasks.add_task(send_confirmation, exponea, item_id)
    return {"ordered": item_id}


async def send_confirmation(exponea: Exponea, item_id: str) -> None:
    """Send a confirmation. The customer of the request is still the current subject."""
    await exponea.track_event(Event("confirmation_sent", {"item_id": item_id}))


@router.post("/sign-in")
async def sign_in(email: str, request: Request, response: Response, exponea: ExponeaClient) -> dict[str, str]:
    """Sign a visitor in. A real application checks a password first."""
    session = token_urlsafe()
    SESSIONS[session] = email
    response.set_cookie("session", session, httponly=True)
    bind_customer(exponea, request.scope, email)
    await identify_visitor(exponea, request.scope)
    return {"email": email}


def create_app(configuration: Configuration) -> FastAPI:
    """Return the application, with a client of its own."""
    exponea = Exponea(configuration)
    known = customer_from(current_user, lambda email: email)
    app = FastAPI(lifespan=client_lifespan(exponea), dependencies=[Depends(known)])
    properties = RequestProperties(user_agent=True, location=["q"], utm=True)
    app.add_middleware(ExponeaMiddleware, exponea=exponea, consent=has_consent, properties=properties)
    app.include_router(router)
    return app


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
        print(f"http://127.0.0.1:{port}/docs")
        await uvicorn.Server(uvicorn.Config(create_app(settings), port=port, log_level="warning")).serve()
        for event in sandbox.engine.events():
            print(event.event_type, dict(event.customer_ids))


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        asyncio.run(main())
