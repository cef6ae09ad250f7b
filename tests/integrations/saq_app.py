"""
The worker of SAQ that the tests run.
"""

import asyncio
import os
from typing import Any

from saq import CronJob, Queue

from exponea_async import Configuration, Event, Exponea
from exponea_async.integrations.saq import SaqIntegration

exponea = Exponea(Configuration.from_env())
integration = SaqIntegration(exponea)
queue = Queue.from_url(os.environ["REDIS_URL"])


async def visit(ctx: Any, *, user: str, kind: str = "") -> None:
    """Track an event, and end in one of the ways in which jobs end."""
    await asyncio.sleep(0)
    await exponea.track_event(Event("visit", {"user": user, "kind": kind, "attempt": ctx["job"].attempts}))
    if kind == "fail" or (kind == "retry" and ctx["job"].attempts == 1):
        raise ValueError(user)
    if kind == "spawn":
        await asyncio.create_task(track(user, "spawned"))
    if kind == "enqueue":
        await queue.enqueue("visit", user=user, kind="enqueued")


async def hang(ctx: Any, *, user: str) -> None:
    """Track an event, wait until the job is cancelled, and track another one."""
    await track(user, "hang")
    try:
        await asyncio.Event().wait()
    finally:
        await track(user, "cancelled")


async def every_day(ctx: Any) -> None:
    """Track an event, as a cron job."""
    await track("", "cron")


async def track(user: str, kind: str) -> None:
    """Track an event."""
    await exponea.track_event(Event("visit", {"user": user, "kind": kind}))


async def startup(ctx: Any) -> None:
    """Track the start of the worker, with the client that is open already."""
    await ctx["exponea"].for_customer({"registered": "worker"}).track_event(Event("started"))


async def shutdown(ctx: Any) -> None:
    """Track the end of the worker, with the client that is still open."""
    await ctx["exponea"].for_customer({"registered": "worker"}).track_event(Event("stopped"))


settings = integration.settings(
    {
        "queue": queue,
        "functions": [visit, hang],
        "cron_jobs": [CronJob(every_day, cron="* * * * * */1")],
        "startup": startup,
        "shutdown": shutdown,
        "concurrency": 50,
    }
)
