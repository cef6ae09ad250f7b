"""
A worker of arq whose jobs are about the customer for whom they were enqueued.

Run it with ``python examples/arq_worker.py``. It needs a Redis at ``REDIS_URL``, by default on this machine. It starts
a sandbox instead of Engagement, enqueues two jobs, runs the worker, and ends by itself.
"""

import asyncio
import os
from typing import Any

from arq import ArqRedis, create_pool
from arq.connections import RedisSettings
from jobs import ORDERS, configuration, demonstrate

from exponea_async import Event, Exponea
from exponea_async.integrations.arq import ArqIntegration

REDIS = RedisSettings.from_dsn(os.environ.get("REDIS_URL", "redis://localhost"))

exponea = Exponea(configuration())
integration = ArqIntegration(exponea)


async def ship(ctx: dict[str, Any], order: str) -> None:
    """Ship an order."""
    await exponea.track_event(Event("shipped", {"order": order, "attempt": ctx["job_try"]}))


@integration.settings
class WorkerSettings:
    """The settings of ``arq arq_worker.WorkerSettings``."""

    functions = (ship,)
    redis_settings = REDIS
    job_completion_wait = 10


async def check_out(redis: ArqRedis, email: str, order: str) -> None:
    """Enqueue a job, as the web application does in a request of the customer."""
    with exponea.bind(exponea.for_customer({"registered": email})):
        await integration.enqueue_job(redis, "ship", order)


async def send() -> None:
    """Enqueue the jobs of the example."""
    redis = await create_pool(REDIS)
    for email, order in ORDERS.items():
        await check_out(redis, email, order)
    await redis.aclose()


if __name__ == "__main__":
    asyncio.run(demonstrate(["arq", "arq_worker.WorkerSettings"], send))
