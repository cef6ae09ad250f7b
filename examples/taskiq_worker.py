"""
Tasks of Taskiq that are about the customer for whom they were sent.

Run it with ``python examples/taskiq_worker.py``. It starts a sandbox instead of Engagement, and ends by itself. Its
broker runs the tasks in the same process, so it needs no other program.
"""

import asyncio

from jobs import ORDERS
from taskiq import InMemoryBroker, TaskiqDepends

from exponea_async import Configuration, Event, Exponea
from exponea_async.integrations.taskiq import ExponeaMiddleware
from exponea_async.sandbox import Sandbox

broker = InMemoryBroker()


@broker.task
async def ship(order: str, exponea: Exponea = TaskiqDepends()) -> None:
    """Ship an order."""
    await exponea.track_event(Event("shipped", {"order": order}))


async def check_out(exponea: Exponea, email: str, order: str) -> None:
    """Send a task, as the web application does in a request of the customer."""
    with exponea.bind(exponea.for_customer({"registered": email})):
        await ship.kiq(order)


async def main() -> None:
    """Run the tasks of two customers, and print what has arrived."""
    async with Sandbox() as sandbox:
        settings = Configuration(
            project_token="shop", authorization_token="key", base_url=sandbox.url, storage="memory:"
        )
        async with Exponea(settings) as exponea:
            broker.add_middlewares(ExponeaMiddleware(exponea))
            await broker.startup()
            for email, order in ORDERS.items():
                await check_out(exponea, email, order)
            await broker.wait_all()
            await broker.shutdown()
        for event in sorted(sandbox.engine.events(), key=lambda each: each.properties["order"]):
            print(event.event_type, event.properties["order"], dict(event.customer_ids))


if __name__ == "__main__":
    asyncio.run(main())
