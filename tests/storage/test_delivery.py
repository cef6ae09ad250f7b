"""
What the callers of one commit get, and when: each its own outcome, once the commit is done, whatever the others do.
"""

import asyncio
import sqlite3
import threading
from collections.abc import Iterator
from contextvars import ContextVar, copy_context
from pathlib import Path
from typing import Any

import pytest
from helpers.storages import OpenFile, bodies, delivered, ids, lease, record, records

from exponea_async.errors import StorageError
from exponea_async.storage.base import Record, StateChange, Written
from exponea_async.storage.sqlite.futures import PromptFuture
from exponea_async.storage.sqlite.storage import SQLiteStorage

USER: ContextVar[str] = ContextVar("USER")


class HeldRecords(list[Record]):
    """Records whose transaction stays open until it is released."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.is_reached, self.is_released = threading.Event(), threading.Event()

    def __iter__(self) -> Iterator[Record]:
        self.is_reached.set()
        assert self.is_released.wait(60)
        return super().__iter__()


def occupied(storage: SQLiteStorage) -> tuple[threading.Event, "asyncio.Task[bool]"]:
    """Keep the storage's thread busy until the event is set."""
    event = threading.Event()
    return event, asyncio.create_task(storage.run(lambda _: event.wait(60)))


async def run_others() -> None:
    """Let other tasks run for a few turns of the event loop."""
    for _ in range(50):
        await asyncio.sleep(0)


class TestOutcomes:
    async def test_no_caller_gets_the_outcome_of_a_commit_to_come(self, open_file: OpenFile) -> None:
        """A write that waited for capacity returns once it is committed, also if others are still getting results."""
        storage = await open_file(when_full="wait", max_records=100)
        await storage.write(records(*map(str, range(100))))
        settled = delivered(*ids(await lease(storage, 100)))
        reported: list[str] = []
        last = HeldRecords(records("last"))

        def report(written: Written) -> None:
            reported.extend(written.ids)

        async def hold_up_the_others() -> None:
            await storage.write((), [StateChange("k", b"", 0)])
            # The writes of the next transaction have their ids now, but are not committed.
            assert last.is_reached.wait(60)

        begin, occupation = occupied(storage)
        first = asyncio.create_task(hold_up_the_others())
        waiting = [asyncio.create_task(storage.write(records(str(number)), (), report)) for number in range(60)]
        await run_others()
        others = [asyncio.create_task(storage.settle(settled)), asyncio.create_task(storage.write(last))]
        await run_others()
        begin.set()
        await asyncio.gather(occupation, first)
        await run_others()
        is_early = [task.done() for task in waiting]
        early_reports = list(reported)
        last.is_released.set()
        written = await asyncio.gather(*waiting)
        await asyncio.gather(*others)

        assert not any(is_early)
        assert not early_reports
        assert reported == [key for each in written for key in each.ids]

    async def test_each_write_is_reported_once(self, open_file: OpenFile) -> None:
        """What is committed is reported once, before its caller goes on, also if that was cancelled meanwhile."""
        storage = await open_file()
        reported: list[str] = []
        seen: list[bool] = []

        def report(written: Written) -> None:
            reported.extend(written.ids)

        async def write(number: int) -> None:
            written = await storage.write(records(str(number)), (), report)
            seen.append(written.ids[0] in reported)

        begin, occupation = occupied(storage)
        tasks = [asyncio.create_task(write(number)) for number in range(100)]
        await run_others()
        for task in tasks[::2]:
            task.cancel()
        begin.set()
        await asyncio.gather(occupation, *tasks, return_exceptions=True)

        assert seen == [True] * 50
        assert sorted(reported) == sorted(ids(await storage.waiting(200)))
        assert len(reported) == 100

    async def test_reports_to_many_functions(self, open_file: OpenFile) -> None:
        """Each function gets what was written with it, also one that can't be hashed."""

        class Report(list[str]):
            def __call__(self, written: Written) -> None:
                self.extend(written.ids)

        storage = await open_file()
        reports = [Report([str(number)]) for number in range(100)]
        written = await asyncio.gather(*(storage.write(records("a"), (), report) for report in reports))

        assert [each[1:] for each in reports] == [list(each.ids) for each in written]

    async def test_a_caller_that_cancels_the_others(self, open_file: OpenFile) -> None:
        """A caller may cancel others that are in the same commit; all of them end, and everything is committed."""
        storage = await open_file()
        tasks: list[asyncio.Task[Any]] = []

        async def write(number: int) -> None:
            await storage.write(records(str(number)))
            if number == 0:
                for task in tasks[1:]:
                    task.cancel()

        tasks += [asyncio.create_task(write(number)) for number in range(100)]
        results = await asyncio.gather(*tasks, return_exceptions=True)

        assert [type(result) for result in results[1:]] == [asyncio.CancelledError] * 99
        assert len(await storage.waiting(200)) == 100

    async def test_a_caller_that_closes(self, open_file: OpenFile) -> None:
        """A caller may close the storage as soon as its write returns; the others of its commit get their outcome."""
        storage = await open_file()

        async def write(number: int) -> Written:
            written = await storage.write(records(str(number)))
            if number == 0:
                await storage.aclose()
            return written

        written = await asyncio.gather(*(write(number) for number in range(1_000)), return_exceptions=True)
        kept = [each.ids[0] for each in written if isinstance(each, Written)]
        assert [str(each) for each in written if not isinstance(each, Written)] == []
        assert sorted(kept) == sorted(ids(await (await open_file()).waiting(2_000)))

    @pytest.mark.parametrize("exception", [SystemExit, KeyboardInterrupt])
    def test_a_caller_that_ends_the_program(self, path: Path, exception: type[BaseException]) -> None:
        """If the first caller ends the event loop, all others have their results when it goes on."""
        storage = SQLiteStorage(path)
        loop = asyncio.new_event_loop()
        loop.run_until_complete(storage.open())

        async def write(number: int) -> Written:
            written = await storage.write(records(str(number)))
            if number == 0:
                raise exception
            return written

        tasks = [loop.create_task(write(number)) for number in range(200)]
        with pytest.raises(exception):
            loop.run_until_complete(asyncio.wait(tasks))
        others = loop.run_until_complete(asyncio.gather(*tasks[1:]))
        kept = ids(loop.run_until_complete(storage.waiting(500)))
        loop.run_until_complete(storage.aclose())
        loop.close()

        assert isinstance(tasks[0].exception(), exception)
        assert kept[1:] == tuple(each.ids[0] for each in others)

    @pytest.mark.parametrize("call", ["write", "load_state"])
    async def test_other_tasks_run_between_the_callers(self, open_file: OpenFile, call: str) -> None:
        """Of a thousand callers that go on at the same time, few do so before other tasks run."""
        storage = await open_file()
        turns: list[int] = [0]

        async def count() -> None:
            while True:
                turns.append(0)
                await asyncio.sleep(0)

        async def use(number: int) -> None:
            await (storage.load_state("k") if call == "load_state" else storage.write(records(str(number))))
            turns[-1] += 1

        begin, occupation = occupied(storage)
        tasks = [asyncio.create_task(use(number)) for number in range(1_000)]
        await run_others()
        counting = asyncio.create_task(count())
        begin.set()
        await asyncio.gather(occupation, *tasks)
        counting.cancel()

        assert sum(turns) == 1_000
        assert max(turns) <= 100


class TestWaitingForCapacity:
    async def test_the_others_after_a_failure(self, open_file: OpenFile, path: Path) -> None:
        """Where a transaction of writes that wait for capacity fails, the others are tried again without a new call."""
        storage, other = await open_file(when_full="wait", max_records=100, lock_timeout=0.1), await open_file()
        await storage.write(records(*map(str, range(100))))
        leased = await lease(other, 100)
        waiting = [asyncio.create_task(storage.write(records(str(number)))) for number in range(1_200)]
        await asyncio.sleep(0.1)
        lock = sqlite3.connect(path, isolation_level=None)
        lock.execute("BEGIN IMMEDIATE")
        failed, _ = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        lock.close()
        await other.settle(delivered(*ids(leased)))
        assert [type(task.exception()) for task in failed] == [StorageError] * len(failed)

        left = set(waiting)
        while left:
            _, left = await asyncio.wait(left, return_when=asyncio.FIRST_COMPLETED)
            await other.settle(delivered(*ids(await lease(other, 100))))
        written = [key for task in waiting if not task.exception() for key in task.result().ids]
        assert written == sorted(written, key=int)

    async def test_opening_while_a_cancelled_closing_goes_on(self, open_file: OpenFile) -> None:
        """A storage that is opened again after a cancelled closing completes the calls that were made before it."""
        storage = await open_file()
        begin, occupation = occupied(storage)
        writes = [asyncio.create_task(storage.write(records(str(number)))) for number in range(1_000)]
        await run_others()
        closing = asyncio.create_task(storage.aclose())
        await run_others()
        closing.cancel()
        await asyncio.wait([closing])
        opening = asyncio.create_task(storage.open())
        await run_others()
        begin.set()
        await asyncio.gather(occupation, opening, *writes)

        assert len(bodies(await storage.waiting(2_000))) == 1_000


class TestKindsOfTasks:
    """The tasks of callers, as asyncio and others make them."""

    @pytest.mark.parametrize("is_debug", [False, True])
    @pytest.mark.parametrize("kind", ["plain", "python", "eager"])
    async def test_each_caller_has_its_context(self, open_file: OpenFile, kind: str, *, is_debug: bool) -> None:
        """Each caller goes on as its own task, with its own context variables, whatever makes the tasks."""
        loop = asyncio.get_running_loop()
        loop.set_debug(is_debug)
        if kind == "python":
            loop.set_task_factory(_python_task)
        elif kind == "eager":
            loop.set_task_factory(getattr(asyncio, "eager_task_factory", None))
        storage = await open_file()
        seen: list[tuple[str, str]] = []

        async def use(number: int) -> None:
            USER.set(str(number))
            for _ in range(3):
                await storage.write(records(str(number)))
                task = asyncio.current_task()
                assert task is not None
                seen.append((USER.get(), task.get_name()))

        await asyncio.gather(*(asyncio.create_task(use(number), name=str(number)) for number in range(100)))
        loop.set_task_factory(None)

        assert sorted(seen) == sorted([(str(number), str(number)) for number in range(100)] * 3)
        assert len(await storage.waiting(500)) == 300

    async def test_functions_of_asyncio(self, open_file: OpenFile) -> None:
        """A write can be waited for in all ways that asyncio has."""
        storage = await open_file()
        async with asyncio.timeout(60):
            await storage.write(records("a"))
        await asyncio.wait_for(storage.write(records("b")), 60)
        await asyncio.shield(storage.write(records("c")))
        await asyncio.wait([asyncio.ensure_future(storage.write(records("d")))])
        async with asyncio.TaskGroup() as group:
            group.create_task(storage.write(records("e")))
        for write in asyncio.as_completed([storage.write(records("f"))]):
            await write
        begin, occupation = occupied(storage)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(storage.write(records("late")), 0.001)
        begin.set()
        await occupation

        assert [*bodies(await storage.waiting(10))][:6] == list("abcdef")


def _python_task(loop: asyncio.AbstractEventLoop, coroutine: Any, **options: Any) -> Any:
    """Make a task of the implementation in Python, which is used where there is none in C."""
    return getattr(asyncio.tasks, "_PyTask")(coroutine, loop=loop, **options)  # noqa: B009 - not in its annotations


class TestPromptFuture:
    """The future of one call."""

    @pytest.fixture
    async def future(self) -> "PromptFuture[str]":
        return PromptFuture(asyncio.get_running_loop())

    async def waiter(self, future: "PromptFuture[str]") -> str:
        return await future

    async def test_several_waiters(self, future: "PromptFuture[str]") -> None:
        """The first of several tasks goes on at once, and the others soon."""
        tasks = [asyncio.create_task(self.waiter(future)) for _ in range(3)]
        await asyncio.sleep(0)
        asyncio.get_running_loop().call_soon(future.resolve_now, "a")

        assert await asyncio.gather(*tasks) == ["a"] * 3
        assert await future == "a"

    async def test_a_waiter_that_is_cancelled(self, future: "PromptFuture[str]") -> None:
        """A waiter that is cancelled ends, and cancels the future as that of asyncio does."""
        task = asyncio.create_task(self.waiter(future))
        await asyncio.sleep(0)
        task.cancel("enough")
        with pytest.raises(asyncio.CancelledError, match="enough"):
            await task

        assert future.cancelled()
        assert not future.cancel()

    @pytest.mark.parametrize("way", ["set_result", "set_exception"])
    async def test_an_outcome_in_the_usual_way(self, future: "PromptFuture[str]", way: str) -> None:
        """All waiters get an outcome that is set as that of any future."""
        tasks = [asyncio.create_task(self.waiter(future)) for _ in range(2)]
        await asyncio.sleep(0)
        if way == "set_result":
            future.set_result("a")
        else:
            future.set_exception(ValueError("a"))
        results = await asyncio.gather(*tasks, return_exceptions=True)

        assert [str(result) for result in results] == ["a"] * 2

    async def test_functions_of_asyncio(self, future: "PromptFuture[str]") -> None:
        """Functions of asyncio take the future itself, and remove their callbacks."""
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(asyncio.shield(future), 0.001)
        done, _ = await asyncio.wait([future], timeout=0.001)
        assert not done
        waiting = asyncio.gather(future, self.waiter(future), asyncio.shield(future))
        await asyncio.sleep(0)
        asyncio.get_running_loop().call_soon(future.resolve_now, "a")

        assert [*await waiting] == ["a"] * 3

    async def test_a_removed_callback(self, future: "PromptFuture[str]") -> None:
        """A callback that was removed is not called, however it was added."""
        seen: list[object] = []
        future.add_done_callback(seen.append, context=copy_context())
        future.add_done_callback(seen.append)

        assert future.remove_done_callback(seen.append) == 2
        assert future.remove_done_callback(seen.append) == 0
        future.resolve_now("a")
        await asyncio.sleep(0)
        assert not seen

    async def test_a_callback_after_the_end(self, future: "PromptFuture[str]") -> None:
        """A callback that is added after the outcome is called soon, not at once."""
        seen: list[object] = []
        future.resolve_now("a")
        future.add_done_callback(seen.append, context=copy_context())
        assert not seen
        await asyncio.sleep(0)
        assert seen == [future]


class TestWindow:
    async def test_a_single_caller(self, open_file: OpenFile) -> None:
        """One caller that makes one call after the other gets a commit for each, and waits for no further calls."""
        storage = await open_file()
        before = storage.commits
        for number in range(50):
            await storage.write([record(str(number))])

        assert storage.commits - before == 50

    async def test_callers_that_never_stop(self, open_file: OpenFile) -> None:
        """While writes keep coming, leases, settlements and reads get their turn."""
        storage = await open_file()
        is_over = False

        async def write_on() -> None:
            while not is_over:
                await storage.write(records("a"))

        writers = [asyncio.create_task(write_on()) for _ in range(300)]
        for _ in range(20):
            leased = await lease(storage, 50)
            await storage.settle(delivered(*ids(leased)))
            await storage.load_state("k")
        is_over = True
        await asyncio.gather(*writers)
