"""
The background tasks of a queue in PostgreSQL: when they are cancelled, closed or left in an event loop that ends.
"""

import asyncio
import gc
from collections import Counter
from collections.abc import Callable

import pytest
from helpers.database_proxy import DatabaseProxy
from helpers.postgres_storage import OpenPostgres, storage_creator
from helpers.storages import records
from helpers.waiting import running, until, until_succeeds

from exponea_async.errors import StorageError

#: Returns what Python has complained of so far: connections and sockets that nobody has closed.
Warned = Callable[[], list[str]]


@pytest.fixture
def warned(recwarn: pytest.WarningsRecorder) -> Warned:
    """What Python complains of during a test."""

    def find() -> list[str]:
        gc.collect()
        return [str(each.message) for each in recwarn.list if each.category is ResourceWarning]

    return find


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


@pytest.mark.parametrize("steps", range(30))
async def test_a_cancelled_close(open_postgres: OpenPostgres, warned: Warned, steps: int) -> None:
    """If an application cancels all tasks while the storage is being closed, no task and no connection is left."""
    storage = await open_postgres()
    await asyncio.gather(*(storage.load_state(str(number)) for number in range(3)))
    write = asyncio.ensure_future(storage.write(records("a")))
    closing = asyncio.create_task(storage.aclose(2.0))
    await asyncio.sleep(0)
    for _ in range(steps):
        await asyncio.sleep(0)
    cancel()
    async with asyncio.timeout(60):
        await asyncio.wait([closing, write])

    # A task that is started again is so after a tenth of a second.
    await asyncio.sleep(0.5)
    await until(lambda: running() == [])
    assert write.cancelled() or write.exception() is not None or write.result()
    assert warned() == []


@pytest.mark.parametrize("again", range(1, 4))
@pytest.mark.parametrize("steps", range(1, 40, 2))
async def test_all_tasks_are_cancelled_twice(
    open_postgres: OpenPostgres, warned: Warned, steps: int, again: int
) -> None:
    """An application that cancels all tasks twice, while connections are being made and given back, gets them all."""
    storage = await open_postgres(postgres={"max_connections": 2})
    reads = [asyncio.ensure_future(storage.load_state(str(number))) for number in range(6)]
    for _ in range(steps):
        await asyncio.sleep(0 if steps < 20 else 0.001)
    cancel()
    for _ in range(again):
        await asyncio.sleep(0)
    cancel()
    async with asyncio.timeout(60):
        await asyncio.gather(*reads)
        # Each connection is lent again.
        await asyncio.gather(*(storage.load_state(str(number)) for number in range(6)))
    await storage.aclose(2.0)
    await until(lambda: running() == [])

    assert warned() == []


async def test_a_connection_is_made_while_the_task_is_cancelled_twice(
    open_postgres: OpenPostgres, proxy: DatabaseProxy, warned: Warned
) -> None:
    """A connection that listens is closed, although what waits for it is cancelled twice while it is being made."""
    storage = await open_postgres(proxy.url)
    await proxy.set_mode("silent")
    proxy.lose_connections()
    count = proxy.count
    await until(lambda: proxy.count > count)
    for _ in range(2):
        cancel("listening")
        await asyncio.sleep(0)
    await proxy.set_mode("open")
    await until_succeeds(lambda: storage.load_state("a"), StorageError)
    await storage.aclose(2.0)
    await until(lambda: running() == [])

    assert warned() == []


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


@pytest.mark.parametrize("steps", range(30))
def test_the_event_loop_ends_during_the_close(
    postgres_url: str, postgres_schema: str, warned: Warned, steps: int
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

    assert warned() == []
