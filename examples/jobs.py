"""
What the examples of task queues have in common: settings, and a run with a sandbox instead of Engagement.
"""

import asyncio
import os
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from tempfile import TemporaryDirectory

from exponea_async import Configuration
from exponea_async.sandbox import Sandbox

#: How long the worker may take, in seconds.
PATIENCE = 60.0

#: The customers, each with an order.
ORDERS = {"jane@example.com": "order-1", "joe@example.com": "order-2"}


def configuration() -> Configuration:
    """Return the settings from the environment; without any, those of a sandbox."""
    return Configuration.from_env({"EXPONEA_PROJECT_TOKEN": "shop", "EXPONEA_AUTHORIZATION_TOKEN": "key", **os.environ})


async def demonstrate(command: list[str], send: Callable[[], Awaitable[None]]) -> None:
    """
    Send jobs, run a worker in a process of its own until their events have arrived, and print them.

    Args:
        command: The arguments of ``python -m`` for the worker.
        send: Sends a job for each order.
    """
    async with Sandbox() as sandbox:
        await send()
        with TemporaryDirectory() as folder:
            await _run_worker(command, sandbox, folder)
        for event in sorted(sandbox.engine.events(), key=lambda each: each.properties["order"]):
            print(event.event_type, event.properties["order"], dict(event.customer_ids))


async def _run_worker(command: list[str], sandbox: Sandbox, folder: str) -> None:
    own = {"EXPONEA_BASE_URL": sandbox.url, "EXPONEA_STORAGE": f"{folder}/queue.sqlite"}
    worker = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", *command),
        env={**os.environ, **own},
        cwd=Path(__file__).parent,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        async with asyncio.timeout(PATIENCE):
            while len(sandbox.engine.events()) < len(ORDERS):  # noqa: ASYNC110 - the sandbox has no event for it
                await asyncio.sleep(0.05)
    finally:
        worker.terminate()
        await worker.wait()
