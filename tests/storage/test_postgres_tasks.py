"""
The background tasks of a queue in PostgreSQL: when they are cancelled, closed or left in an event loop that ends.
"""

import asyncio
import gc
from collections import Counter

import pytest
from helpers.postgres_storage import OpenPostgres, storage_creator
from helpers.storages import records
from helpers.waiting import running, until


def cancel(*names: str) -> None:
    """Cancel the tasks with these names, or all tasks of the package."""
    for task in asyncio.all_tasks():
        name = task.get_name().removeprefix("exponea_async: ")
        if name != task.get_name() and (not names or name in names):
            task.cancel()


@pytest.mark.parametrize("steps", range(1, 12))
async def test_a_cancelled_commit(open_postgres: OpenPostgres, steps: int) -> None:
    """If an application cancels the task that commits, its callers get an error, and the next ones are served."""
    storage = await open_postgres()
    writes = [asyncio.ensure_future(storage.write(records(str(number)))) for number in range(3)]
    for _ in range(steps):
        await asyncio.sleep(0)
    cancel("commits")
    async with asyncio.timeout(60):
        results = await asyncio.gather(*writes, return_exceptions=True)
        await storage.write(records("next"))

    errors = {str(each).partition(",")[0] for each in results if isinstance(each, BaseException)}
    assert errors <= {"The commit was interrupted.", "The commit was interrupted"}


@pytest.mark.parametrize("steps", range(1, 30, 2))
async def test_a_cancelled_close(open_postgres: OpenPostgres, steps: int) -> None:
    """If an application cancels all tasks while the storage is being closed, no task is left."""
    storage = await open_postgres()
    await asyncio.gather(*(storage.load_state(str(number)) for number in range(3)))
    closing = asyncio.create_task(storage.aclose(2.0))
    await asyncio.sleep(0)
    for _ in range(steps):
        await asyncio.sleep(0)
    cancel()
    await asyncio.wait([closing])

    # A task that is started again is so after a tenth of a second.
    await asyncio.sleep(0.5)
    await until(lambda: running() == [])


async def test_a_close_while_tasks_wait_to_be_started(open_postgres: OpenPostgres) -> None:
    """Once the storage was closed and opened again, there is one of each task, also of those that waited to restart."""
    storage = await open_postgres()
    ended = asyncio.Event()

    async def ignore() -> None:
        try:
            await ended.wait()
        except asyncio.CancelledError:
            await ended.wait()

    # It looks as if the event loop were about to end, so the tasks are not started again soon.
    ignoring = asyncio.create_task(ignore())
    await asyncio.sleep(0)
    ignoring.cancel()
    cancel()
    await asyncio.sleep(0.2)
    await storage.aclose()
    await storage.open()
    ended.set()
    await ignoring
    await asyncio.sleep(0.5)

    assert set(Counter(running()).values()) == {1}
    await storage.aclose()
    await until(lambda: running() == [])


@pytest.mark.parametrize("steps", range(1, 30))
def test_the_event_loop_ends_during_the_close(
    postgres_url: str, postgres_schema: str, recwarn: pytest.WarningsRecorder, steps: int
) -> None:
    """The end of the event loop, which cancels the closing of a storage at any step, leaves no connection open."""

    async def begin_to_close() -> "asyncio.Task[None]":
        storage = storage_creator(postgres_schema)(postgres_url)
        await storage.open()
        await asyncio.gather(*(storage.load_state(str(number)) for number in range(3)))
        closing = asyncio.create_task(storage.aclose(2.0))
        for _ in range(steps):
            await asyncio.sleep(0)
        return closing

    assert asyncio.run(begin_to_close()).done()
    gc.collect()

    assert [each for each in recwarn.list if each.category is ResourceWarning] == []
