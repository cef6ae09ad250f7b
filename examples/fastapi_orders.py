"""
A shop in FastAPI and SQLAlchemy, whose events are part of the transactions of its database.

Run it with the URL of a PostgreSQL database, ``EXPONEA_STORAGE=postgresql://... python examples/fastapi_orders.py``,
and stop it with Ctrl-C. It starts a sandbox instead of Engagement, and needs fastapi, uvicorn, sqlalchemy and asyncpg.
Its API is documented at http://127.0.0.1:8000/docs.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import uvicorn
from fastapi import APIRouter, FastAPI, HTTPException, Request
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from exponea_async import Configuration, Event, Exponea
from exponea_async.integrations.fastapi import ExponeaClient, ExponeaMiddleware
from exponea_async.sandbox import Sandbox

router = APIRouter()


class Table(DeclarativeBase):
    """The tables of the shop."""


class Order(Table):
    """An order."""

    __tablename__ = "example_orders"

    id: Mapped[int] = mapped_column(primary_key=True)
    product: Mapped[str]
    email: Mapped[str]


class Stock(Table):
    """What the shop has of a product."""

    __tablename__ = "example_stock"

    product: Mapped[str] = mapped_column(primary_key=True)
    pieces: Mapped[int]


@router.post("/orders")
async def order(product: str, email: str, request: Request, exponea: ExponeaClient) -> dict[str, int]:
    """Order a product. The event exists exactly if the order does."""
    async with AsyncSession(request.app.state.engine) as session, session.begin():
        placed = Order(product=product, email=email)
        session.add(placed)
        await session.flush()
        async with exponea.transaction(session) as tracked:
            customer = tracked.for_customer({"registered": email})
            await customer.track_event(Event("purchase", {"product": product, "order": placed.id}))
        stock = await session.get(Stock, product, with_for_update=True)
        if stock is None or not stock.pieces:
            # The exception rolls the transaction back, with the order and the event.
            raise HTTPException(409, "out of stock")
        stock.pieces -= 1
        return {"order": placed.id}


def create_app(configuration: Configuration) -> FastAPI:
    """Return the application. The client and the shop use the same database."""
    exponea = Exponea(configuration)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        engine = app.state.engine = create_async_engine(
            str(configuration.storage).replace("postgresql:", "postgresql+asyncpg:")
        )
        async with engine.begin() as connection:
            await connection.run_sync(Table.metadata.create_all)
        async with AsyncSession(engine) as session, session.begin():
            await session.merge(Stock(product="mug", pieces=1))
            await session.merge(Stock(product="plate", pieces=0))
        async with exponea:
            yield
        await engine.dispose()

    app = FastAPI(lifespan=lifespan)
    app.add_middleware(ExponeaMiddleware, exponea=exponea)
    app.include_router(router)
    return app


async def main(port: int = 8000) -> None:
    """Serve the shop, with a sandbox instead of Engagement."""
    async with Sandbox() as sandbox:
        settings = Configuration.from_env(project_token="shop", authorization_token="key", base_url=sandbox.url)
        print(f"http://127.0.0.1:{port}/docs")
        await uvicorn.Server(uvicorn.Config(create_app(settings), port=port, log_level="warning")).serve()
        for event in sandbox.engine.events():
            print(event.event_type, dict(event.customer_ids), dict(event.properties))


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        asyncio.run(main())
