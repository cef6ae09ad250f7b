"""
Work that ends although its caller is cancelled.
"""

import asyncio
import threading

import pytest

from exponea_async._internal.closing import run_thread_to_end, wait_until_done


async def test_a_thread_ends_before_its_cancelled_caller() -> None:
    """However often the caller is cancelled, it goes on only after the work in the thread has ended."""
    go, ended = threading.Event(), threading.Event()

    def work() -> None:
        go.wait(60)
        ended.set()

    caller = asyncio.create_task(run_thread_to_end(work))
    for _ in range(3):
        await asyncio.sleep(0.01)
        caller.cancel()
    assert not caller.done()
    go.set()
    with pytest.raises(asyncio.CancelledError):
        await caller
    assert ended.is_set()


async def test_a_thread_ends_before_the_event_loop() -> None:
    """The end of the event loop, which cancels all tasks, waits for the work in the thread."""
    began, go, ended = threading.Event(), threading.Event(), threading.Event()

    def work() -> None:
        began.set()
        go.wait(60)
        ended.set()

    async def call() -> bool:
        try:
            await run_thread_to_end(work)
        finally:
            states.append(ended.is_set())
        return True

    async def begin() -> None:
        calls.append(asyncio.create_task(call()))
        await asyncio.to_thread(began.wait, 60)
        threading.Timer(0.1, go.set).start()

    calls: list[asyncio.Task[bool]] = []
    states: list[bool] = []
    await asyncio.to_thread(asyncio.run, begin())

    assert states == [True]
    assert calls[0].cancelled()


async def test_the_result_of_a_thread() -> None:
    """Without a cancellation, the result or the error of the work is that of the call."""
    assert await run_thread_to_end(lambda: 7) == 7
    with pytest.raises(ZeroDivisionError):
        await run_thread_to_end(lambda: 1 // 0)


async def test_waiting_for_a_future() -> None:
    """The function for a cancellation is called each time, and an error that nobody wants is not logged by asyncio."""
    future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    told: list[None] = []
    waiting = asyncio.create_task(wait_until_done(future, on_cancel=lambda: told.append(None)))
    for _ in range(2):
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.sleep(0)
    assert not waiting.done()
    future.set_exception(ZeroDivisionError())
    await asyncio.wait([waiting])
    del future

    assert waiting.cancelled()
    assert len(told) == 2
