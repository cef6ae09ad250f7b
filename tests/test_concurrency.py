"""
Background tasks, shared loads and locks by key.
"""

import asyncio
import gc
import logging

import pytest

from exponea_async._internal.concurrency import BackgroundTasks, KeyedLocks, SingleFlight
from exponea_async.errors import ClosedError, StorageError


async def fail(error: Exception) -> None:
    """Raise an error."""
    raise error


class Source:
    """Loads slowly and counts how often it was asked."""

    def __init__(self, error: Exception | None = None) -> None:
        self.asked = 0
        self.go = asyncio.Event()
        self._error = error

    async def load(self) -> str:
        self.asked += 1
        await self.go.wait()
        if self._error is not None:
            raise self._error
        return f"answer {self.asked}"


# Background tasks


@pytest.mark.parametrize(
    ("error", "level", "message"),
    [
        (StorageError("The disk is full."), logging.WARNING, "exponea_async: work failed: The disk is full."),
        (ClosedError("The client is closed."), logging.DEBUG, "exponea_async: work failed: The client is closed."),
        (KeyError("x"), logging.ERROR, "Unexpected error in exponea_async: work."),
    ],
)
async def test_errors_of_background_tasks_are_logged(
    caplog: pytest.LogCaptureFixture, error: Exception, level: int, message: str
) -> None:
    """The level says how unexpected an error is."""
    caplog.set_level(logging.DEBUG, "exponea_async")
    await asyncio.wait([BackgroundTasks().start(fail(error), name="work")])
    assert [(each.levelno, each.getMessage()) for each in caplog.records] == [(level, message)]


async def test_expected_errors_are_not_logged_where_the_caller_takes_them(caplog: pytest.LogCaptureFixture) -> None:
    """With `log_errors=False` only errors that are faults of the package are logged."""
    tasks = BackgroundTasks()
    expected = tasks.start(fail(StorageError("The disk is full.")), name="work", log_errors=False)
    unexpected = tasks.start(fail(KeyError("x")), name="work", log_errors=False)
    await asyncio.wait([expected, unexpected])
    assert [each.levelno for each in caplog.records] == [logging.ERROR]


async def test_closing_cancels_all_tasks_but_the_one_that_closes() -> None:
    """A task may close the tasks that it belongs to; the others have ended then."""
    tasks, closed = BackgroundTasks(), []

    async def close() -> None:
        await asyncio.sleep(0)
        await tasks.aclose()
        closed.append(other.cancelled())

    other = tasks.start(asyncio.sleep(60), name="other")
    closing = tasks.start(close(), name="closing")
    await asyncio.wait([closing])
    assert closed == [True]


# Shared loads


async def test_concurrent_callers_share_one_load() -> None:
    """All callers that ask while a load is in progress get its result."""
    source = Source()
    flight: SingleFlight[str, str] = SingleFlight(BackgroundTasks())
    loads = [flight.share("key", source.load, name="load") for _ in range(3)]
    assert len(flight) == 1
    source.go.set()
    assert await asyncio.gather(*(load.wait() for load in loads)) == [True, True, True]
    assert [load.result() for load in loads] == ["answer 1"] * 3


async def test_a_finished_load_is_dropped() -> None:
    """A caller that comes after the end of a load starts a new one."""
    source = Source()
    source.go.set()
    flight: SingleFlight[str, str] = SingleFlight(BackgroundTasks())
    first = flight.share("key", source.load, name="load")
    await first.wait()
    assert flight.get("key") is None
    second = flight.share("key", source.load, name="load")
    await second.wait()
    assert (first.result(), second.result()) == ("answer 1", "answer 2")


async def test_loads_of_different_keys_are_independent() -> None:
    """Each key has a load of its own."""
    source = Source()
    flight: SingleFlight[str, str] = SingleFlight(BackgroundTasks())
    assert flight.share("a", source.load, name="load") is not flight.share("b", source.load, name="load")
    await asyncio.sleep(0)
    assert source.asked == 2
    flight.clear()


async def test_a_cancelled_caller_does_not_cancel_the_load() -> None:
    """The other callers still get the result."""
    source = Source()
    flight: SingleFlight[str, str] = SingleFlight(BackgroundTasks())
    load = flight.share("key", source.load, name="load")
    impatient, patient = asyncio.create_task(load.wait()), asyncio.create_task(load.wait())
    await asyncio.sleep(0)
    impatient.cancel()
    await asyncio.wait([impatient])
    source.go.set()
    assert await patient
    assert load.result() == "answer 1"


async def test_every_caller_gets_the_error_of_the_load() -> None:
    """The error is raised to each of them, and its traceback does not grow with their number."""
    source = Source(StorageError("The disk is full."))
    source.go.set()
    flight: SingleFlight[str, str] = SingleFlight(BackgroundTasks(), log_errors=False)
    load = flight.share("key", source.load, name="load")
    await load.wait()
    lengths = []
    for _ in range(3):
        with pytest.raises(StorageError) as raised:
            load.result()
        lengths.append(len(raised.traceback))
    assert len(set(lengths)) == 1


async def test_a_caller_need_not_wait_to_the_end() -> None:
    """After the timeout there is no result yet, and the load goes on."""
    source = Source()
    flight: SingleFlight[str, str] = SingleFlight(BackgroundTasks())
    load = flight.share("key", source.load, name="load")
    assert not await load.wait(timeout=0.001)
    assert flight.get("key") is load
    source.go.set()
    assert await load.wait(timeout=60)


async def test_a_cancelled_load_has_no_result() -> None:
    """Clearing cancels all loads: their callers are released, and the next caller starts a new load."""
    source = Source()
    flight: SingleFlight[str, str] = SingleFlight(BackgroundTasks())
    load = flight.share("key", source.load, name="load")
    waiting = asyncio.create_task(load.wait())
    await asyncio.sleep(0)
    flight.clear()
    source.go.set()
    again = flight.share("key", source.load, name="load")
    assert again is not load
    assert not await waiting
    assert await again.wait()
    assert again.result() == "answer 2"


async def test_one_load_may_serve_several_keys() -> None:
    """A load that was started for several keys is found by each of them until its end."""
    source = Source()
    flight: SingleFlight[str, str] = SingleFlight(BackgroundTasks())
    load = flight.start(["a", "b"], source.load(), name="load")
    assert flight.get("a") is load is flight.get("b")
    source.go.set()
    await load.wait()
    assert len(flight) == 0


async def test_a_new_load_replaces_the_one_in_progress() -> None:
    """Callers find the newer load, also after the end of the older one; only the newer one is current."""
    flight: SingleFlight[str, bool] = SingleFlight(BackgroundTasks())
    go = asyncio.Event()

    async def ask() -> bool:
        await go.wait()
        return flight.is_current("key")

    old = flight.start(["key"], ask(), name="old")
    new = flight.start(["key"], ask(), name="new")
    go.set()
    await old.wait()
    assert flight.get("key") in (new, None)
    await new.wait()
    assert (old.result(), new.result()) == (False, True)


async def test_a_discarded_load_is_no_longer_found() -> None:
    """It goes on for the callers that wait already."""
    source = Source()
    flight: SingleFlight[str, str] = SingleFlight(BackgroundTasks())
    load = flight.share("key", source.load, name="load")
    flight.discard("key")
    assert flight.get("key") is None
    source.go.set()
    assert await load.wait()


# Locks by key


async def test_a_keyed_lock_excludes_tasks_with_the_same_key_only() -> None:
    """Two tasks with one key take turns; another key is free meanwhile."""
    locks: KeyedLocks[str] = KeyedLocks()
    order: list[str] = []

    async def work(name: str, key: str) -> None:
        async with locks.for_key(key):
            order.append(f"{name} in")
            await asyncio.sleep(0.001)
            order.append(f"{name} out")

    await asyncio.gather(work("first", "a"), work("second", "a"), work("other", "b"))
    assert order.index("first out") < order.index("second in")
    assert order.index("other in") < order.index("first out")


async def test_keyed_locks_exist_only_while_in_use() -> None:
    """Nothing is left of a lock that no task uses."""
    locks: KeyedLocks[str] = KeyedLocks()
    async with locks.for_key("a"):
        gc.collect()
        assert len(locks) == 1
    gc.collect()
    assert len(locks) == 0
