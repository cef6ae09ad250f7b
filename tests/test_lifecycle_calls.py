"""
Calls that change a client: several at once, interrupted ones, and those that an event loop leaves behind.
"""

import asyncio
import gc
from collections.abc import Callable, Coroutine, Iterator
from contextlib import suppress
from typing import Any

import pytest
from helpers.cancelling import cancel_others, pause
from helpers.clients import SOMEONE, Configure
from helpers.internals import before_storage_call
from helpers.waiting import running, until

from exponea_async import (
    ClosedError,
    DeliveryEvent,
    Event,
    Exponea,
    Hooks,
    LifecycleError,
    StorageError,
)
from exponea_async.sandbox import Fault, Sandbox

CALLS: dict[str, Callable[[Exponea], Coroutine[Any, Any, object]]] = {
    "start": lambda client: client.start(),
    "aclose": lambda client: client.aclose(3),
    "stop": lambda client: client.stop_integration(),
    "stop and flush": lambda client: client.stop_integration(flush=True, timeout=3),
}


async def track(client: Exponea) -> str:
    return (await client.for_customer(SOMEONE).track_event(Event("ping"))).status


@pytest.fixture
def collected() -> Iterator[None]:
    """Finalize what a test has left behind with it, not during another test."""
    yield
    gc.collect()
    gc.collect()


class TestSeveralAtOnce:
    @pytest.mark.parametrize("steps", range(0, 40, 2))
    async def test_a_cancelled_start(self, configure: Configure, steps: int) -> None:
        """It does not close the client for another start that has returned."""
        client = Exponea(configure(flush_mode="MANUAL"))
        first = asyncio.create_task(client.start())
        await asyncio.sleep(0)
        second = asyncio.create_task(client.start())
        await pause(steps)
        first.cancel()
        await asyncio.wait([first, second])
        assert second.exception() is None
        assert await track(client) == "queued"
        await client.aclose(0)

    async def test_a_close_behind_a_stop(self, configure: Configure) -> None:
        """The stop ends at the deadline of the close."""
        client = Exponea(configure(base_url="http://127.0.0.1:9"))
        await client.start()
        await track(client)
        stopping = asyncio.create_task(client.stop_integration(flush=True, timeout=None))
        await until(lambda: client.is_stopped)
        await client.aclose(0.1)
        assert (await stopping).remaining == 1
        assert repr(client) == "<Exponea shop closed>"

    async def test_a_cancelled_close_behind_a_stop(self, configure: Configure) -> None:
        """The stop and the close end at once."""
        client = Exponea(configure(base_url="http://127.0.0.1:9"))
        await client.start()
        await track(client)
        stopping = asyncio.create_task(client.stop_integration(flush=True, timeout=None))
        await until(lambda: client.is_stopped)
        closing = asyncio.create_task(client.aclose(None))
        await pause(5)
        closing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await closing
        assert (await stopping).remaining == 1
        assert repr(client) == "<Exponea shop closed>"

    async def test_a_cancelled_start_behind_a_stop(self, configure: Configure) -> None:
        """The start ends at once, and the stop goes on."""
        client = Exponea(configure(base_url="http://127.0.0.1:9"))
        await client.start()
        await track(client)
        stopping = asyncio.create_task(client.stop_integration(flush=True, timeout=None))
        await until(lambda: client.is_stopped)
        starting = asyncio.create_task(client.start())
        await pause(5)
        starting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await starting
        assert not stopping.done()
        await client.aclose(0)
        await stopping

    @pytest.mark.parametrize("steps", range(1, 12))
    async def test_an_interrupted_close_behind_a_stop(self, configure: Configure, steps: int) -> None:
        """The client is closed all the same."""
        client = Exponea(configure(base_url="http://127.0.0.1:9"))
        await client.start()
        await track(client)
        stopping = asyncio.create_task(client.stop_integration(flush=True, timeout=60), name="the application's")
        await until(lambda: client.is_stopped)
        closing = asyncio.create_task(client.aclose(60), name="the application's")
        await pause(steps)
        cancel_others()
        await asyncio.wait([stopping, closing])
        for each in (stopping, closing):
            with suppress(LifecycleError):
                each.result()
        assert repr(client) == "<Exponea shop closed>"
        await until(lambda: running() == [])


class TestInterrupted:
    @pytest.mark.parametrize("steps", range(16))
    async def test_streams_of_a_closed_client(self, configure: Configure, sandbox: Sandbox, steps: int) -> None:
        """All streams end, though one feature was still loading when the close was interrupted."""
        sandbox.faults.add(Fault("latency", seconds=60, paths="inappmessages|webxp"))
        client = Exponea(configure())
        await client.start()
        device = client.device("tg:1")
        await device.open()

        async def read(stream: Any) -> None:
            async for _ in stream:
                pass

        streams = (device.segmentation_data_stream("discovery"), device.in_app_messages())
        reading = [asyncio.create_task(read(each), name="the application's") for each in streams]
        loading = asyncio.create_task(device.in_app_message_for(Event("x")), name="the application's")
        await until(lambda: len(sandbox.requests) > 0)
        closing = asyncio.create_task(client.aclose(5), name="the application's")
        await pause(steps)
        cancel_others()
        await asyncio.wait([closing])
        with suppress(LifecycleError):
            closing.result()
        await client.aclose()
        await asyncio.wait([*reading, loading], timeout=60)
        assert [each.done() for each in (*reading, loading)] == [True, True, True]
        for each in (*reading, loading):
            with suppress(LifecycleError):
                each.result()

    @pytest.mark.parametrize("steps", range(0, 40, 2))
    async def test_the_numbers_of_a_stop(self, configure: Configure, steps: int) -> None:
        """The second call counts and reports what the first one has deleted, and only once."""
        reported: list[DeliveryEvent] = []
        client = Exponea(configure(flush_mode="MANUAL"), hooks=Hooks(listeners=[reported.append]))
        await client.start()
        await track(client)
        stopping = asyncio.create_task(client.stop_integration(), name="the application's")
        await pause(steps)
        cancel_others()
        await asyncio.wait([stopping])
        with suppress(LifecycleError):
            stopping.result()
        await client.stop_integration()
        assert client.stats().dropped["stopped"] == 1
        assert [each.kind for each in reported] == ["dropped"]
        await client.aclose()

    async def test_a_stop_that_fails(self, configure: Configure, sandbox: Sandbox) -> None:
        """What was delivered after a stop that could delete nothing is not counted as deleted by the next one."""
        client = Exponea(configure(flush_mode="MANUAL"))
        await client.start()
        await track(client)

        async def refuse() -> None:
            raise StorageError("refused")

        before_storage_call(client, "wipe", refuse)
        with pytest.raises(StorageError, match="refused"):
            await client.stop_integration()
        await client.start()
        assert (await client.flush_data(60)).delivered == 1
        assert (await client.stop_integration()).remaining == 0
        assert client.stats().dropped == {}
        assert len(sandbox.engine.events()) == 1
        await client.aclose()


class TestEventLoops:
    @pytest.mark.parametrize("is_closed", [True, False], ids=["closed", "left open"])
    def test_a_start_after_the_wipe_of_another_client(self, configure: Configure, *, is_closed: bool) -> None:
        """A client whose file was wiped is started in the next event loop, and tracks."""
        client, other = (Exponea(configure(flush_mode="MANUAL")) for _ in range(2))

        async def wipe() -> None:
            await client.start()
            async with other:
                receipt = await client.for_customer(SOMEONE).track_event(Event("ping"))
                await other.stop_integration()
            with suppress(StorageError):
                await track(client)
            await receipt.decided(60)
            assert receipt.status == "lost"
            await until(lambda: running() == [])

        async def start_again() -> str:
            await asyncio.wait_for(client.start(), 60)
            status = await track(client)
            await client.aclose()
            return status

        loop = asyncio.new_event_loop()
        loop.run_until_complete(wipe())
        if is_closed:
            loop.close()
        assert asyncio.run(start_again()) == "queued"
        loop.close()

    def test_concurrent_calls_in_each(self, configure: Configure) -> None:
        """Calls that wait for each other do so in the next event loop, too."""
        client = Exponea(configure(flush_mode="MANUAL"))

        async def stop() -> None:
            await client.start()
            await asyncio.gather(client.stop_integration(), client.stop_integration())

        async def start() -> str:
            await asyncio.gather(client.start(), client.start())
            status = await track(client)
            await client.aclose()
            return status

        asyncio.run(stop())
        assert asyncio.run(start()) == "queued"

    @pytest.mark.parametrize("steps", range(0, 24, 2))
    @pytest.mark.parametrize("name", CALLS)
    @pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
    @pytest.mark.usefixtures("collected")
    def test_a_call_that_is_left_behind(self, configure: Configure, name: str, steps: int) -> None:
        """A call that never ends, since its event loop was closed, does not change the client that is started again."""
        client = Exponea(configure(flush_mode="MANUAL"))
        calls: list[asyncio.Future[object]] = []

        async def begin() -> bool:
            if name != "start":
                await client.start()
            calls.append(asyncio.ensure_future(CALLS[name](client)))
            await pause(steps)
            return calls[0].done()

        async def go_on() -> None:
            try:
                await client.start()
            except ClosedError:
                return
            calls.clear()
            gc.collect()
            assert await track(client) == "queued"
            assert repr(client) == "<Exponea shop open>"
            await client.aclose()
            await until(lambda: running() == [])

        loop = asyncio.new_event_loop()
        loop.run_until_complete(begin())
        loop.close()
        asyncio.run(go_on())

    def test_a_cancelled_start_with_a_queue_in_memory(self, configure: Configure) -> None:
        """What is in memory stays there."""
        client = Exponea(configure(flush_mode="MANUAL", storage="memory:"))

        async def leave() -> None:
            await client.start()
            await track(client)

        async def go_on() -> int:
            starting = asyncio.create_task(client.start())
            await asyncio.sleep(0)
            starting.cancel()
            await asyncio.wait([starting])
            async with client:
                await client.health()
                return client.stats().waiting

        asyncio.run(leave())
        assert asyncio.run(go_on()) == 1
