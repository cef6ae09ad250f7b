"""
Waiting for a condition, and measuring how long the event loop is blocked.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Self, TypeVar

import pytest

T = TypeVar("T")


async def until(condition: Callable[[], bool], seconds: float = 60.0) -> None:
    """Wait until a condition is true; fail the test after some seconds."""
    end = asyncio.get_running_loop().time() + seconds
    while not condition():
        if asyncio.get_running_loop().time() > end:
            pytest.fail(f"The condition was not true within {seconds} s.")
        await asyncio.sleep(0.005)


async def until_succeeds(call: Callable[[], Awaitable[T]], error: type[Exception], seconds: float = 60.0) -> T:
    """Make a call again and again until it does not raise an error of a type; return its result."""
    end = asyncio.get_running_loop().time() + seconds
    while True:
        try:
            return await call()
        except error:
            if asyncio.get_running_loop().time() > end:
                raise
        await asyncio.sleep(0.01)


def running(text: str = "") -> list[str]:
    """Return the names of the clients' background tasks that contain a text."""
    names = [task.get_name() for task in asyncio.all_tasks()]
    return [name for name in names if name.startswith("exponea_async") and text in name]


class LoopMonitor:
    """
    Measures how long the event loop is blocked within an ``async with`` block.

    Only the CPU time of the loop's own thread counts, so that a busy machine does not change the result.

    Attributes:
        gap: The longest time between two runs of another task, in seconds of CPU time.
    """

    def __init__(self) -> None:
        self.gap = 0.0

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._tick())
        await asyncio.sleep(0)
        return self

    async def __aexit__(self, *_: object) -> None:
        await asyncio.sleep(0.002)
        self._task.cancel()

    async def _tick(self) -> None:
        last = time.thread_time()
        while True:
            await asyncio.sleep(0.001)
            last, before = time.thread_time(), last
            self.gap = max(self.gap, last - before)
