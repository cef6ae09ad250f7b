"""
An application that cancels all tasks that it finds, as some do when they end, at any time, while it goes on.

Its own call is not cancelled. It does what it should or raises an error that says so; nothing is lost, and no task, no
thread and no file is left behind.
"""

import asyncio
import os
import sqlite3
import sys
import threading
import time
from contextlib import suppress
from functools import partial
from pathlib import Path

import pytest
from helpers.cancelling import ALL, cancel_others, pause
from helpers.clients import SOMEONE, Configure, Connect
from helpers.in_app import InAppFixture, message
from helpers.internals import receipts_of, run_statements
from helpers.storages import OpenFile, lease, records
from helpers.waiting import running, until, until_succeeds

from exponea_async import (
    ClosedError,
    DamagedFileError,
    DeliveryEvent,
    Event,
    Exponea,
    FlushMode,
    Hooks,
    LifecycleError,
    StorageError,
)
from exponea_async.sandbox import Fault, Sandbox
from exponea_async.storage.base import Record
from exponea_async.storage.sqlite.storage import SQLiteStorage
from exponea_async.storage.sqlite.wiping import wipe_unused_file


async def until_unused(path: Path) -> None:
    """Delete a queue file as soon as nothing has it open: on a slow machine it may be closed in the background."""
    wipe = partial(wipe_unused_file, path, follow_links=False)
    await until_succeeds(partial(asyncio.to_thread, wipe), LifecycleError)


class TestClient:
    @pytest.mark.parametrize("steps", range(30))
    @pytest.mark.both_storages
    async def test_closing(self, connect: Connect, configure: Configure, steps: int) -> None:
        """The client is closed, though the close says that it was interrupted; everything is in the queue."""
        client = await connect(flush_mode="MANUAL")
        await client.track_event(Event("ping"))
        closing = asyncio.create_task(client.aclose(5.0), name="the application's")
        await pause(steps)
        cancel_others()
        await asyncio.wait([closing], timeout=60)
        with suppress(LifecycleError):
            closing.result()
        await client.aclose(5.0)

        assert repr(client) == "<Exponea shop closed>"
        await until(lambda: running() == [])
        storage = configure().storage
        if isinstance(storage, Path):
            async with Exponea(configure(flush_mode="MANUAL")) as again:
                assert again.stats().tracked == 0
            await until_unused(storage)

    @pytest.mark.parametrize("steps", range(20))
    async def test_streams_end(self, connect: Connect, steps: int) -> None:
        """A stream ends, and a call is refused as by a closed client, also if the close was interrupted."""
        client = await connect(device=True)
        stream = client.opened_push_stream()

        async def read() -> None:
            async for _ in stream:
                pass

        reading = asyncio.create_task(read(), name="the application's")
        closing = asyncio.create_task(client.aclose(5.0), name="the application's")
        await pause(steps)
        cancel_others()
        await asyncio.wait([closing], timeout=60)
        with suppress(LifecycleError):
            closing.result()
        await client.aclose()

        async with asyncio.timeout(60):
            await reading
        with pytest.raises(ClosedError):
            await client.track_event(Event("late"))
        await until(lambda: running() == [])

    @pytest.mark.parametrize("steps", range(30))
    async def test_starting(self, configure: Configure, steps: int) -> None:
        """The client is started, or is not and can be; nothing keeps its file afterwards."""
        client = Exponea(configure())
        starting = asyncio.create_task(client.start(), name="the application's")
        await pause(steps)
        cancel_others()
        await asyncio.wait([starting], timeout=60)
        if starting.exception() is not None:
            assert isinstance(starting.exception(), LifecycleError | StorageError)
            assert repr(client) == "<Exponea shop not started>"
            await until(lambda: running() == [])
        await client.start()
        await client.track_event(Event("ping"))
        await client.aclose(5.0)
        path = configure().storage
        assert isinstance(path, Path)
        await until_unused(path)

    @pytest.mark.parametrize("steps", range(0, 30, 2))
    async def test_stopping(self, connect: Connect, sandbox: Sandbox, steps: int) -> None:
        """If the stop was interrupted, it can be called again; nothing is sent then."""
        client = await connect(flush_mode="MANUAL")
        await client.track_event(Event("ping"))
        stopping = asyncio.create_task(client.stop_integration(everyone=True), name="the application's")
        await pause(steps)
        cancel_others()
        await asyncio.wait([stopping], timeout=60)
        with suppress(LifecycleError, StorageError):
            stopping.result()
        await client.stop_integration(everyone=True)
        await client.aclose()

        await until(lambda: running() == [])
        assert sandbox.engine.events() == []

    async def test_the_probe_of_a_route(self, connect: Connect, sandbox: Sandbox) -> None:
        """A route whose circuit is open is probed and sent to again, however often the leasing task is cancelled."""
        sandbox.faults.add(Fault("drop", times=3, paths="clicks"), Fault("latency", seconds=0.05, paths="batch"))
        settings = {"concurrency": 1, "batch_size": 1, "backoff_initial": 0.1, "backoff_max": 0.1}
        client = await connect(device=True, upload=settings)
        await client.handle_campaign_click("https://shop.example/?xnpe_cmp=abc&utm_campaign=c")
        for number in range(60):
            await client.for_customer(SOMEONE).track_event(Event("ping", {"number": number}))
        for _ in range(20):
            await asyncio.sleep(0.13)
            cancel_others("leasing")
        assert (await client.flush_data(60)).remaining == 0

    async def test_a_look_for_lost_records(self, connect: Connect) -> None:
        """Lost records are found, though the task was cancelled that looks for them, and nobody waits for them."""
        client = await connect(flush_mode="MANUAL")
        receipt = await client.track_event(Event("ping"))
        await run_statements(client, "DELETE FROM record")
        receipts_of(client).check_all()
        await pause(3)
        cancel_others("receipts")
        await until(lambda: receipt.status == "lost")
        assert client.stats().lost == 1

    @pytest.mark.parametrize("steps", range(1, 40, 3))
    async def test_the_end_after_the_wipe_of_another(self, connect: Connect, configure: Configure, steps: int) -> None:
        """Callers that wait for an event which another client has wiped are told so, and the client can be started."""
        client = await connect(flush_mode="MANUAL")
        receipt = await client.track_event(Event("a"))
        waiting = asyncio.create_task(receipt.decided(), name="the application's")
        await (await connect(flush_mode="MANUAL")).stop_integration(everyone=True)
        with suppress(StorageError):
            await client.track_event(Event("b"))
        await until(lambda: client.is_stopped)
        await pause(steps)
        cancel_others()
        await asyncio.wait([waiting], timeout=60)

        assert waiting.done()
        assert receipt.status == "lost"
        await client.start()
        await client.track_event(Event("c"))

    @pytest.mark.parametrize("steps", range(8))
    async def test_the_last_steps_of_the_end_after_a_wipe(self, connect: Connect, steps: int) -> None:
        """The same, if callers know already."""
        client = await connect(flush_mode="MANUAL")
        receipt = await client.track_event(Event("a"))
        waiting = asyncio.create_task(receipt.decided(), name="the application's")
        await (await connect(flush_mode="MANUAL")).stop_integration(everyone=True)
        with suppress(StorageError):
            await client.track_event(Event("b"))
        await asyncio.wait([waiting], timeout=60)
        await pause(steps)
        cancel_others()

        assert receipt.status == "lost"
        await client.start()
        await client.track_event(Event("c"))

    @pytest.mark.parametrize("steps", range(40))
    async def test_starting_after_an_interrupted_stop(self, connect: Connect, steps: int) -> None:
        """The client can be started, whether the stop has deleted everything or not."""
        client = await connect(flush_mode="MANUAL")
        await client.track_event(Event("a"))
        stopping = asyncio.create_task(client.stop_integration(everyone=True), name="the application's")
        await pause(steps)
        cancel_others()
        await asyncio.wait([stopping], timeout=60)
        with suppress(LifecycleError, StorageError):
            stopping.result()

        await client.start()
        await client.track_event(Event("b"))
        assert not client.is_stopped

    @pytest.mark.parametrize("steps", range(8))
    async def test_the_last_steps_of_a_stop(self, connect: Connect, steps: int) -> None:
        """A stop whose receipts are resolved has deleted and reported everything, and the client can be started."""
        reported: list[DeliveryEvent] = []
        client = await connect(flush_mode="MANUAL", hooks=Hooks(listeners=[reported.append]))
        receipt = await client.track_event(Event("a"))
        waiting = asyncio.create_task(receipt.decided(), name="the application's")
        await pause(5)
        stopping = asyncio.create_task(client.stop_integration(everyone=True), name="the application's")
        await asyncio.wait([waiting], timeout=60)
        await pause(steps)
        cancel_others()
        await asyncio.wait([stopping], timeout=60)

        assert receipt.status == "dropped"
        with suppress(LifecycleError):
            stopping.result()
        assert [each.reason for each in reported if each.kind == "dropped"] == ["the integration was stopped"]
        await client.start()
        await client.track_event(Event("b"))

    async def test_the_end_after_a_wipe_that_has_not_begun(self, connect: Connect) -> None:
        """The same, if the task for it is cancelled before it begins, without another call of the client."""
        loop = asyncio.get_running_loop()

        def cancel(event: DeliveryEvent) -> None:
            if event.kind == "wiped":
                loop.call_soon(cancel_others, "end after a wipe")

        client = await connect(flush_mode="MANUAL", hooks=Hooks(listeners=[cancel]))
        receipt = await client.track_event(Event("a"))
        await (await connect(flush_mode="MANUAL")).stop_integration(everyone=True)
        with suppress(StorageError):
            await client.track_event(Event("b"))

        async with asyncio.timeout(60):
            await receipt.decided()
        assert receipt.status == "lost"

    async def test_two_starts(self, configure: Configure) -> None:
        """A start that is cancelled does not close the client that another call has started."""
        client = Exponea(configure())
        first, second = (asyncio.create_task(client.start()) for _ in range(2))
        await asyncio.sleep(0)
        second.cancel()
        await asyncio.wait([first, second])

        assert second.cancelled()
        await client.track_event(Event("ping"))
        await client.aclose()

    @pytest.mark.parametrize("steps", range(6))
    async def test_changing_the_mode(self, connect: Connect, sandbox: Sandbox, steps: int) -> None:
        """A change of the flush mode whose caller is cancelled is made, or is not."""
        client = await connect(flush_mode="PERIOD", flush_period=600.0)
        await client.track_event(Event("ping"))
        changing = asyncio.create_task(client.set_flush_mode("IMMEDIATE"))
        await pause(steps)
        changing.cancel()
        await asyncio.wait([changing])
        if client.flush_mode is FlushMode.IMMEDIATE:
            await until(lambda: len(sandbox.engine.events()) == 1)
        else:
            assert running("period")

    async def test_an_identify(self, in_app: InAppFixture) -> None:
        """Messages are shown for a device although the task that waits for its identification was cancelled."""
        client = await in_app.start(message())
        await client.identify_customer(SOMEONE)
        cancel_others("in-app messages after an identify")
        await in_app.idle()
        await client.track_event(Event("x"))

        assert [each.id for each in await in_app.received()] == ["m"]


class TestFile:
    @pytest.mark.parametrize("steps", range(0, 100, 4))
    async def test_the_file_is_replaced(self, open_file: OpenFile, path: Path, steps: int) -> None:
        """
        What a deleted file held is in the new one, and is reported, though the task that copies it is cancelled.

        The same for what is being written: the caller gets an error only if it is not in the file.
        """
        reported: list[DamagedFileError] = []
        storage = await open_file(report=reported.append)
        for _ in range(4):
            await storage.write(records(*map(str, range(500))))
        for each in path.parent.iterdir():
            each.unlink()
        # Large, so that some of the steps are during the commit.
        write = asyncio.ensure_future(storage.write(records(*["x" * 20_000] * 400)))
        await pause(steps)
        cancel_others(ALL, keep={write})
        with suppress(StorageError):
            await write

        written = 400 if write.exception() is None else 0
        assert (await storage.pending()).waiting == 2_000 + written
        assert len(reported) == 1

    @pytest.mark.parametrize("steps", range(15))
    async def test_leasing(self, open_file: OpenFile, steps: int) -> None:
        """Records that are leased for a caller who was cancelled can be leased again at once."""
        storage = await open_file()
        await storage.write(records("a", "b"))
        leasing = asyncio.create_task(lease(storage))
        await pause(steps)
        leasing.cancel()
        await asyncio.wait([leasing])
        if leasing.cancelled():
            # Behind the lease.
            await storage.write([])
            assert len(await lease(storage)) == 2

    @pytest.mark.parametrize("steps", range(20))
    async def test_opening(self, path: Path, steps: int) -> None:
        """The file is not in use after an opening that was cancelled at any step."""
        storage = SQLiteStorage(path)
        opening = asyncio.create_task(storage.open())
        await pause(steps)
        cancel_others(ALL)
        await asyncio.wait([opening])
        await storage.aclose()
        await until_unused(path)

    @pytest.mark.parametrize("attempt", range(10))
    async def test_a_fork_while_the_file_is_being_closed(self, path: Path, attempt: int) -> None:
        """A child that is forked before a storage that was let go of is closed has no copy of its connection."""
        storage = SQLiteStorage(path)
        await storage.open()
        connection = await storage.run(lambda connection: connection)
        calls = [asyncio.ensure_future(storage.run(lambda _: time.sleep(0.002 * attempt))) for _ in range(2)]
        await asyncio.sleep(0.002)
        storage.abandon()
        pid = os.fork()
        if pid == 0:
            try:
                connection.execute("SELECT 1")
            finally:
                # It has not raised, or it has because it is closed.
                os._exit(isinstance(sys.exc_info()[1], sqlite3.ProgrammingError) or 9)
        _, status = await asyncio.to_thread(os.waitpid, pid, 0)
        await asyncio.gather(*calls)

        assert os.waitstatus_to_exitcode(status) == 1
        await until(lambda: running() == [])

    @pytest.mark.parametrize("count", [0, 1, 4])
    async def test_letting_go_while_calls_wait(self, path: Path, count: int) -> None:
        """A storage that is let go of in its event loop completes the calls, accepts no more, and closes the file."""
        storage, others = SQLiteStorage(path), set(threading.enumerate())
        await storage.open()
        writes = [asyncio.create_task(storage.write([Record("r", b"x", 1.0)] * 250)) for _ in range(count)]
        await asyncio.sleep(0)
        storage.abandon()
        with pytest.raises(StorageError, match="closed"):
            await storage.write(records("late"))
        await asyncio.gather(*writes)
        await until(lambda: not [each for each in threading.enumerate() if each not in others and each.daemon])
        await until_unused(path)
        await storage.open()
        await storage.aclose()

    @pytest.mark.parametrize("steps", range(1, 12))
    @pytest.mark.parametrize("count", [1, 4])
    async def test_closing_while_calls_wait(self, path: Path, steps: int, count: int) -> None:
        """The calls are completed, and the file is closed then, though the closing was cancelled."""
        storage, others = SQLiteStorage(path), set(threading.enumerate())
        await storage.open()
        part = [Record("r", b"x", 1.0)] * 250
        writes = [asyncio.create_task(storage.write(part)) for _ in range(count)]
        await asyncio.sleep(0)
        closing = asyncio.create_task(storage.aclose(5.0))
        await pause(steps)
        closing.cancel()
        await asyncio.wait([closing, *writes])
        assert all(write.exception() is None for write in writes)
        await until(lambda: not [each for each in threading.enumerate() if each not in others and each.daemon])
        await until_unused(path)
