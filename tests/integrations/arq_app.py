"""
The worker of arq that the tests run.
"""

import asyncio
import os
from typing import Any

from arq import Retry, cron
from arq.connections import RedisSettings
from arq.worker import func
from helpers.job_users import TIME_LIMIT

from exponea_async import Configuration, Event, Exponea
from exponea_async.integrations.arq import ArqIntegration

exponea = Exponea(Configuration.from_env())
integration = ArqIntegration(exponea)


async def visit(ctx: dict[str, Any], user: str, kind: str = "") -> None:
    """Track an event, and end in one of the ways in which jobs end."""
    await asyncio.sleep(0)
    await exponea.track_event(Event("visit", {"user": user, "kind": kind, "attempt": ctx["job_try"]}))
    if kind == "fail":
        raise ValueError(user)
    if kind == "retry" and ctx["job_try"] == 1:
        raise Retry
    if kind == "spawn":
        await asyncio.create_task(track(user))
    if kind == "enqueue":
        await integration.enqueue_job(ctx["redis"], "visit", user, "enqueued")


async def hang(ctx: dict[str, Any], user: str) -> None:
    """Track an event, wait until the job is cancelled, and track another one."""
    await exponea.track_event(Event("visit", {"user": user, "kind": "hang"}))
    print("tracked", flush=True)  # noqa: T201 - the test waits for it
    try:
        await asyncio.Event().wait()
    finally:
        await exponea.track_event(Event("visit", {"user": user, "kind": "cancelled"}))


async def track(user: str) -> None:
    """Track an event, in a task of its own."""
    await exponea.track_event(Event("visit", {"user": user, "kind": "spawned"}))


async def every_day(ctx: dict[str, Any]) -> None:
    """Track an event, as a cron job."""
    await exponea.track_event(Event("visit", {"user": "", "kind": "cron"}))


async def startup(ctx: dict[str, Any]) -> None:
    """Track the start of the worker, with the client that is open already."""
    await ctx["exponea"].for_customer({"registered": "worker"}).track_event(Event("started"))


async def shutdown(ctx: dict[str, Any]) -> None:
    """Track the end of the worker, with the client that is still open."""
    await ctx["exponea"].for_customer({"registered": "worker"}).track_event(Event("stopped"))


@integration.settings
class WorkerSettings:
    """The settings."""

    functions = (visit, func(hang, timeout=TIME_LIMIT))
    cron_jobs = (cron(every_day, run_at_startup=True),)
    on_startup = startup
    on_shutdown = shutdown
    redis_settings = RedisSettings.from_dsn(os.environ["REDIS_URL"])
    max_jobs = 50
    # Without it, arq's own shutdown fails where it cancels the storing of a result, and on_shutdown does not run.
    job_completion_wait = 60
    poll_delay = 0.01
