"""
The smallest application in FastAPI whose events are tracked.

Serve it with ``uvicorn --factory --app-dir examples first_app:create_app``. It takes its settings from the environment,
and needs fastapi and uvicorn.
"""

from fastapi import FastAPI

from exponea_async import Configuration, Event, Exponea
from exponea_async.integrations.fastapi import ExponeaMiddleware, client_lifespan


def create_app(client: Exponea | None = None) -> FastAPI:
    """Return the application, by default with a client that has the settings of the environment."""
    exponea = client or Exponea(Configuration.from_env())
    app = FastAPI(lifespan=client_lifespan(exponea))
    app.add_middleware(ExponeaMiddleware, exponea=exponea, customer=lambda _scope: "jane@example.com")

    @app.post("/orders")
    async def order() -> dict[str, bool]:
        await exponea.track_event(Event("purchase", {"total_price": 7.99}))
        return {"ordered": True}

    return app
