"""
What a client does by itself: wait until it is done, and end idle sessions at once.
"""

# ruff: noqa: SLF001 - this package reads the private attributes of a client, so that tests need not

import asyncio
from typing import TypeVar

from exponea_async._internal.streams import Subscription
from exponea_async.client import Exponea

T = TypeVar("T")

#: Passes of the event loop without work after which a client counts as idle. A callback that a finished task has
#: scheduled, for example a receipt's, starts the next task within a few passes.
QUIET_PASSES = 5
#: How often unfinished tasks are checked, in seconds.
POLL_INTERVAL = 0.01


async def idle(client: Exponea, *, timeout: float = 30.0) -> None:  # noqa: ASYNC109 - as asyncio.wait has it
    """
    Wait until nothing is under way that a client does by itself.

    That is: uploads that are due in the present flush mode, their receipts and listeners, and background work such as
    loading and showing messages. Not waited for is what cannot happen now: the upload of records in
    `FlushMode.MANUAL`, or to a project that is unavailable or paused, and work that waits for such an upload.

    Args:
        client: The client, started.
        timeout: Maximum wait in seconds.

    Raises:
        TimeoutError: The client was still busy after the timeout; the message names the work under way.
        StorageError: The storage refused.
    """
    try:
        async with asyncio.timeout(timeout):
            passes = 0
            while passes < QUIET_PASSES:
                passes = 0 if await _work(client) else passes + 1
                await asyncio.sleep(0)
    except TimeoutError:
        names = sorted(task.get_name() for task in client._components.features.active_tasks())
        trouble = f"The client was not idle after {timeout:g} seconds: {', '.join(names) or 'uploads are under way'}."
        raise TimeoutError(trouble) from None


async def end_idle_sessions(client: Exponea) -> int:
    """
    End the sessions that have been idle for the session timeout by the client's clock, each at its last activity.

    A running client does so about once a second.

    Args:
        client: The client, started.

    Returns:
        The number of sessions that were ended.

    Raises:
        StorageError: The storage refused.
    """
    return await client._components.session_expirer.expire()


def received(subscription: Subscription[T]) -> list[T]:
    """Return what a subscription has received and not yielded yet, without waiting; it does not yield that again."""
    values = list(subscription._pending)
    subscription._pending.clear()
    return values


async def _work(client: Exponea) -> bool:
    """Wait for what is under way; return whether there was anything."""
    upload = client._components.upload
    if upload is not None:
        await upload.flusher.wait_idle()
    tasks = client._components.features.active_tasks()
    if tasks:
        # A task may go dormant instead of ending.
        await asyncio.wait(tasks, timeout=POLL_INTERVAL)
    return bool(tasks)
