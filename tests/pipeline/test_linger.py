"""
How long events wait for others, so that many of them leave in one request.
"""

import asyncio
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from aiohttp import web
from helpers.clients import Connect, numbered_events
from helpers.scripted_server import ReceivedRequest, ScriptedServer
from helpers.waiting import until

from exponea_async import Event, Exponea
from exponea_async.sandbox import Fault, Sandbox
from exponea_async.testing import idle

pytestmark = pytest.mark.both_storages

#: So long that a test fails which waits for it.
NEVER = 300.0
LINGER = {"linger": 0.02, "linger_max": NEVER}


async def make_busy(client: Exponea, sandbox: Sandbox) -> None:
    """Send a first event, so that those after it are not single ones."""
    # Awaited: where the notifications of other processes begin, it may not be a single one itself.
    await (await client.track_event(Event("first"))).delivered(60)
    await until(lambda: sandbox.request_count == 1)


async def leaves_soon(client: Exponea, sandbox: Sandbox) -> bool:
    """Track an event, and return whether it leaves within some seconds. Otherwise it is flushed."""
    before = len(sandbox.engine.events())
    await client.track_event(Event("single"))
    end = time.monotonic() + 20
    while time.monotonic() < end:
        if len(sandbox.engine.events()) > before:
            return True
        await asyncio.sleep(0.005)
    await client.flush_data(60)
    return False


async def track(client: Exponea, count: int, pause: float = 0.0) -> None:
    """Track events one after the other."""
    for event in numbered_events(count):
        await client.track_event(event)
        await asyncio.sleep(pause)


class TestSingleEvents:
    @pytest.mark.parametrize("linger", [0.0, 0.02])
    async def test_it_leaves_soon(self, connect: Connect, sandbox: Sandbox, linger: float) -> None:
        """The first event does not wait for others any longer than `linger`."""
        for _ in range(3):
            client = await connect(upload={"linger": linger, "linger_max": NEVER})
            # Where the notifications of other processes begin just before it, it is not a single one.
            if await leaves_soon(client, sandbox):
                return
        pytest.fail("No single event has left soon.")

    async def test_each_leaves_soon(self, connect: Connect, sandbox: Sandbox) -> None:
        """An event that comes `linger_max` after the one before is a single one, too."""
        client = await connect(upload={"linger": 0.01, "linger_max": 0.1})
        for count in (1, 2, 3):
            await client.track_event(Event("single"))
            await until(lambda count=count: len(sandbox.engine.events()) == count)  # type: ignore[misc]
            await asyncio.sleep(0.3)

        assert sandbox.request_count == 3

    async def test_without_a_longer_wait(self, connect: Connect, sandbox: Sandbox) -> None:
        """Where `linger_max` is below `linger`, no event waits longer than `linger`."""
        client = await connect(upload={"linger": 0.05, "linger_max": 0.0})
        for count in (1, 2, 3):
            await client.track_event(Event("single"))
            await until(lambda count=count: len(sandbox.engine.events()) == count)  # type: ignore[misc]


class TestManyEvents:
    async def test_a_steady_flow_makes_few_requests(self, connect: Connect, sandbox: Sandbox) -> None:
        """While events keep coming, there is a request for each `linger_max`, not for each `linger`."""
        client = await connect(upload={"linger": 0.001, "linger_max": 0.5})
        started = time.monotonic()
        await track(client, 100, pause=0.01)
        await idle(client)
        seconds = time.monotonic() - started

        assert len(sandbox.engine.events()) == 100
        # One for each period, one for each full batch, the first and the last one.
        assert sandbox.request_count <= seconds / 0.5 + 2 + 2

    async def test_they_wait_for_linger_max(self, connect: Connect, sandbox: Sandbox) -> None:
        """An event that is not a single one is sent `linger_max` after the first one of its batch."""
        client = await connect(upload={"linger": 0.0, "linger_max": 1.0})
        await make_busy(client, sandbox)
        waits: list[float] = []
        for count in (4, 7, 10):
            started = time.monotonic()
            await track(client, 3)
            await until(lambda count=count: len(sandbox.engine.events()) == count)  # type: ignore[misc]
            waits.append(time.monotonic() - started)

        # Those that are written while the queue is looked at, as it is at the start, leave earlier.
        assert max(waits) >= 1.0

    async def test_a_full_batch_does_not_wait(self, connect: Connect, sandbox: Sandbox) -> None:
        """A batch leaves as soon as it is full."""
        client = await connect(upload=LINGER)
        await make_busy(client, sandbox)
        # The first ones may leave earlier, where they are written while the queue is looked at.
        await track(client, 150)

        await until(lambda: len(sandbox.engine.events()) >= 100)

    async def test_a_smaller_batch_is_full_earlier(self, connect: Connect, sandbox: Sandbox) -> None:
        """What is full depends on `batch_size`; events of one call count, too."""
        client = await connect(upload={**LINGER, "batch_size": 5})
        await make_busy(client, sandbox)
        await client.track_many(numbered_events(5))
        await client.track_many(numbered_events(5))

        await until(lambda: len(sandbox.engine.events()) == 11)

    async def test_full_batches_have_no_remainders(self, connect: Connect) -> None:
        """Where batches are full, what was written after the last record of one is sent with the next one."""
        sizes: list[int] = []

        def respond(request: ReceivedRequest) -> web.Response:
            sizes.append(len(request.commands))
            return request.accept()

        async with ScriptedServer(respond) as server:
            client = await connect(base_url=server.url, upload={**LINGER, "batch_size": 5})
            for _ in range(100):
                await asyncio.gather(*(client.track_event(event) for event in numbered_events(7)))
            await client.flush_data(30)

        # The first requests and the last one, and those after a look at what had not been counted yet.
        assert sum(sizes) == 700
        assert sum(size < 5 for size in sizes) < 20


async def wait_for_delivery(client: Exponea) -> None:
    await (await client.track_event(Event("awaited"))).delivered(60)


async def wait_for_decision(client: Exponea) -> None:
    await (await client.track_event(Event("awaited"))).decided(60)


async def wait_for_many(client: Exponea) -> None:
    receipts = await client.track_many(numbered_events(200))
    await receipts[-1].delivered(60)


async def wait_until_idle(client: Exponea) -> None:
    await client.track_event(Event("awaited"))
    await idle(client)


async def flush(client: Exponea) -> None:
    await client.track_event(Event("flushed"))
    assert (await client.flush_data(60)).remaining == 0


async def close(client: Exponea) -> None:
    await client.track_event(Event("last"))
    await client.aclose(timeout=60)


async def change_the_mode(client: Exponea) -> None:
    receipt = await client.track_event(Event("queued"))
    await client.set_flush_mode("MANUAL")
    await client.set_flush_mode("IMMEDIATE")
    await until(lambda: receipt.status == "delivered")


class TestShorterWaits:
    @pytest.mark.parametrize("wait", [wait_for_delivery, wait_for_decision, wait_for_many, wait_until_idle])
    async def test_awaited_events(
        self, connect: Connect, sandbox: Sandbox, wait: Callable[[Exponea], Awaitable[None]]
    ) -> None:
        """Where somebody waits for an event, it is sent after `linger`, with all others."""
        client = await connect(upload=LINGER)
        await make_busy(client, sandbox)
        await track(client, 3)
        async with asyncio.timeout(30):
            await wait(client)

        assert len(sandbox.engine.events()) >= 5

    @pytest.mark.parametrize("wait", [flush, close, change_the_mode])
    async def test_at_once(
        self, connect: Connect, sandbox: Sandbox, wait: Callable[[Exponea], Awaitable[None]]
    ) -> None:
        """A flush, closing and another flush mode end both waits."""
        client = await connect(upload={"linger": NEVER, "linger_max": NEVER})
        async with asyncio.timeout(30):
            await wait(client)

        assert len(sandbox.engine.events()) == 1

    async def test_after_an_awaited_event_the_next_ones_wait_again(self, connect: Connect, sandbox: Sandbox) -> None:
        """A receipt that is awaited ends one wait only."""
        client = await connect(upload={"linger": 0.001, "linger_max": NEVER})
        await wait_for_delivery(client)
        await track(client, 49, pause=0.01)

        # Those that are written while the queue is looked at leave earlier.
        assert sandbox.request_count < 10

    async def test_a_retry_is_not_delayed(self, connect: Connect, sandbox: Sandbox) -> None:
        """What falls due is sent although other events wait for more."""
        client = await connect(upload=LINGER)
        await make_busy(client, sandbox)
        sandbox.faults.add(Fault("status", status=400, times=1))
        # A batch that is refused is sent again in halves.
        await client.track_many(numbered_events(50))
        await until(lambda: sandbox.request_count >= 2)
        await track(client, 1)

        await until(lambda: len(sandbox.engine.events()) >= 51)

    async def test_a_probe_is_not_delayed(self, connect: Connect, sandbox: Sandbox) -> None:
        """After an outage, everything that waits for its end is sent."""
        client = await connect(upload=LINGER)
        sandbox.faults.add(Fault("status", status=503))
        await track(client, 1)
        await until(lambda: sandbox.request_count >= 2)
        await track(client, 3)
        sandbox.faults.clear()

        await until(lambda: len(sandbox.engine.events()) == 4)


WRITER = """
import asyncio, sys, time
from exponea_async import Configuration, Event, Exponea, QueueSettings

async def main(url, path, count, per_second):
    configuration = Configuration(project_token="shop", authorization_token="key", base_url=url, storage=path,
                                  queue=QueueSettings(lock_timeout=60.0))
    async with Exponea(configuration) as client:
        started = time.monotonic()
        for number in range(count):
            await asyncio.sleep(max(0.0, started + number / per_second - time.monotonic()))
            await client.track_event(Event("ping", {"number": number}))
        print(time.monotonic() - started)

asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3]), float(sys.argv[4])))
"""


@pytest.mark.file_only
@pytest.mark.parametrize("files", [1, 8])
async def test_several_processes_make_few_requests(sandbox: Sandbox, tmp_path: Path, files: int) -> None:
    """Eight processes with 50 events/s each make less than 20 requests/s together, with one file or with eight."""
    processes, events, longest, size = 8, 100, 0.5, 50
    started = [
        await asyncio.create_subprocess_exec(
            sys.executable,
            *("-c", WRITER, sandbox.url, tmp_path / f"{number % files}.sqlite", str(events), "50"),
            stdout=asyncio.subprocess.PIPE,
        )
        for number in range(processes)
    ]
    seconds = [float((await process.communicate())[0]) for process in started]

    assert sum(event.event_type == "ping" for event in sandbox.engine.events()) == processes * events
    # As many as there are periods and full batches, and the first and the last requests of each process. If the
    # machine is slow, there are more periods.
    most = sum(each / longest + events / size + 2 for each in seconds)
    assert sandbox.request_count <= most
