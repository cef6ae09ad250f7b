"""
How a client is, for the probes of an application.
"""

import asyncio
import time
from collections.abc import Iterator

from exponea_async._lifecycle.lifecycle import Lifecycle
from exponea_async._pipeline.commands import project_of
from exponea_async.errors import StorageError
from exponea_async.models import FlushMode
from exponea_async.observability import Health, QueueSize


async def examine(
    lifecycle: Lifecycle,
    *,
    max_age: float | None,
    timeout: float | None,  # noqa: ASYNC109 - as asyncio.wait has it
) -> Health:
    """
    Return how a client is. Nothing is raised: what goes wrong is a problem.

    Args:
        lifecycle: The client's life cycle.
        max_age: How long a record may wait before that is a problem, in seconds; None for any time.
        timeout: How long the queue may take to answer, in seconds; None for any time.
    """
    size, obstacles = await _measure(lifecycle, timeout)
    problems = list(obstacles)
    if size is not None:
        problems += _troubles(lifecycle, size, max_age)
    stats = lifecycle.counters.snapshot(lifecycle.commits)
    return Health(not obstacles, not problems, tuple(problems), stats)


async def _measure(
    lifecycle: Lifecycle,
    timeout: float | None,  # noqa: ASYNC109 - see above
) -> tuple[QueueSize | None, list[str]]:
    """Measure the queue; return the result, and why no event can be recorded."""
    if lifecycle.state != "open":
        return None, [f"the client is {lifecycle.state}"]
    if lifecycle.components.loop is not asyncio.get_running_loop():
        return None, ["the client was started in another event loop or process"]
    try:
        async with asyncio.timeout(timeout):
            size = await lifecycle.components.monitor.measure()
            # A transaction without content: a file can be readable and still be locked, or on a disk that is read-only.
            await lifecycle.components.storage.write((), ())
    except TimeoutError:
        return None, [f"the queue {lifecycle.location} did not answer within {timeout:g} seconds"]
    except StorageError as error:
        return None, [f"the queue {lifecycle.location} can't be used: {error}"]
    is_refused = size.is_full and lifecycle.configuration.queue.when_full != "drop_oldest"
    return size, [f"the queue {lifecycle.location} is full: {size.waiting:,} records wait"] if is_refused else []


def _troubles(lifecycle: Lifecycle, size: QueueSize, max_age: float | None) -> Iterator[str]:
    """Yield why what is in the queue is not being delivered."""
    upload = lifecycle.components.upload
    paused = lifecycle.counters.paused
    for project, pause in paused.items():
        yield f"project {project} has been paused for {time.time() - pause.at:.0f} seconds: {pause.reason}"
    for route, reason in upload.flusher.open_circuits().items() if upload else ():
        if project_of(route) not in paused:
            yield f"project {project_of(route)} is unavailable: {reason}"
    limit = _age_limit(lifecycle, max_age)
    age = 0.0 if size.oldest_at is None else time.time() - size.oldest_at
    if limit is not None and age > limit:
        yield f"the oldest of {size.waiting:,} records has been waiting for {age:.0f} seconds"


def _age_limit(lifecycle: Lifecycle, max_age: float | None) -> float | None:
    """Return how old a record may become, in seconds; None for any age, and where nothing is sent by itself."""
    components = lifecycle.components
    if max_age is None or not lifecycle.configuration.upload.enabled:
        return None
    if components.flush_mode is FlushMode.PERIOD:
        return max_age + components.flush_period
    return max_age if components.flush_mode is FlushMode.IMMEDIATE else None
