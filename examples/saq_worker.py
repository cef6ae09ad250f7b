"""
A worker of SAQ whose jobs are about the customer for whom they were enqueued.

Run it with ``python examples/saq_worker.py``. It needs a Redis at ``REDIS_URL``, by default on this machine. It starts
a sandbox instead of Engagement, enqueues two jobs, runs the worker, and ends by itself.
"""

import asyncio
import os
from typing import Any

from jobs import ORDERS, configuration, demonstrate
from saq import Queue

from exponea_async import Event, Exponea
from exponea_async.integrations.saq import SaqIntegration

exponea = Exponea(configuration())
integration = SaqIntegration(exponea)
queue = Queue.from_url(os.environ.get("REDIS_URL", "redis://localhost"))


async def ship(ctx: dict[str, Any], *, order: str) -> None:
    """Ship an order."""
    await exponea.track_event(Event("shipped", {"order": order, "attempt": ctx["job"].attempts}))


settings = integration.settings({"queue": queue, "functions": [ship]})


async def check_out(email: str, order: str) -> None:
    """Enqueue a job, as the web application does in a request of the customer."""
    with exponea.bind(exponea.for_customer({"registered": email})):
        await queue.enqueue("ship", order=order)


async def send() -> None:
    """Enqueue the jobs of the example."""
    await queue.connect()
    for email, order in ORDERS.items():
        await check_out(email, order)
    await queue.disconnect()


if __name__ == "__main__":
    asyncio.run(demonstrate(["saq", "saq_worker.settings"], send))
