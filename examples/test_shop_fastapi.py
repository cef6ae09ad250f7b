"""
A test of an application in FastAPI, with the middleware that finds out who makes a request.
"""

# mypy: allow-untyped-defs, allow-untyped-calls

from fastapi import FastAPI
from httpx import ASGITransport, AsyncClient

from exponea_async import Event, Exponea
from exponea_async.integrations.fastapi import ExponeaClient, ExponeaMiddleware, client_lifespan

USERS = {"secret": "jane@example.com"}


def authenticated(scope):
    """Return the customer of a request. An application would ask its own authentication."""
    return USERS.get(dict(scope["headers"]).get(b"x-key", b"").decode())


def make_app(exponea: Exponea) -> FastAPI:
    """Return the application."""
    app = FastAPI(lifespan=client_lifespan(exponea))
    app.add_middleware(ExponeaMiddleware, exponea=exponea, customer=authenticated)

    @app.post("/orders")
    async def order(exponea: ExponeaClient) -> None:
        await exponea.track_event(Event("purchase", {"total_price": 7.99}))

    return app


async def test_order(exponea, assert_tracked, assert_not_tracked):
    browser = AsyncClient(transport=ASGITransport(make_app(exponea)), base_url="http://shop")
    await browser.post("/orders")
    assert_not_tracked("purchase")

    await browser.post("/orders", headers={"x-key": "secret"})
    assert_tracked("purchase", {"total_price": 7.99}, customer={"registered": "jane@example.com"})
