"""
The worker of Taskiq that the tests run.
"""

import asyncio
import os

from helpers.redis_broker import RedisBroker
from taskiq import Context, SimpleRetryMiddleware, TaskiqDepends, TaskiqEvents, TaskiqState

from exponea_async import Configuration, Event, Exponea
from exponea_async.integrations.taskiq import ExponeaMiddleware

client = Exponea(Configuration.from_env())
broker = RedisBroker(os.environ["REDIS_URL"])
broker.add_middlewares(ExponeaMiddleware(client), SimpleRetryMiddleware(default_retry_count=2))


@broker.task("visit")
async def visit(user: str, kind: str, exponea: Exponea = TaskiqDepends(), context: Context = TaskiqDepends()) -> None:
    """Track an event, and end in one of the ways in which tasks end."""
    attempt = int(context.message.labels.get("_retries", 0))
    await asyncio.sleep(0)
    await exponea.track_event(Event("visit", {"user": user, "kind": kind, "attempt": attempt}))
    if kind in ("fail", "retry"):
        raise ValueError(user)
    if kind == "spawn":
        await asyncio.create_task(track(user, "spawned"))
    if kind == "send":
        await visit.kiq(user, "sent")
    if kind == "hang":
        await asyncio.Event().wait()


async def track(user: str, kind: str) -> None:
    """Track an event."""
    await client.track_event(Event("visit", {"user": user, "kind": kind}))


@broker.on_event(TaskiqEvents.WORKER_STARTUP)
async def startup(_: TaskiqState) -> None:
    """Track the start of the worker, with the client that is open already."""
    await client.for_customer({"registered": "worker"}).track_event(Event("started"))


@broker.on_event(TaskiqEvents.WORKER_SHUTDOWN)
async def shutdown(_: TaskiqState) -> None:
    """Track the end of the worker, with the client that is still open."""
    await client.for_customer({"registered": "worker"}).track_event(Event("stopped"))
