"""
Closing that waits only for the requests under way, and leaves the rest of the queue to other processes.
"""

import asyncio
from collections.abc import AsyncIterator

import pytest
from aiohttp import web
from helpers.clients import Connect, numbered_events
from helpers.scripted_server import ReceivedRequest, ScriptedServer
from helpers.waiting import until

from exponea_async import ClosedError, Event, Exponea, FlushResult
from exponea_async.sandbox import Sandbox

#: Two requests at a time with one event each, so that most of the queue waits.
NARROW = {"batch_size": 1, "concurrency": 2}


class SlowPlatform(ScriptedServer):
    """A platform that responds once it is released."""

    def __init__(self) -> None:
        super().__init__(self._respond)
        self.released = asyncio.Event()

    async def _respond(self, request: ReceivedRequest) -> web.Response:
        await self.released.wait()
        return request.accept()


@pytest.fixture
async def platform() -> AsyncIterator[SlowPlatform]:
    async with SlowPlatform() as running:
        yield running
        running.released.set()


async def start_requests(connect: Connect, platform: SlowPlatform) -> Exponea:
    """Return a client with 10 events, two of which are being sent."""
    client = await connect(base_url=platform.url, upload=NARROW)
    await client.track_many(numbered_events(10))
    await until(lambda: len(platform.requests) == 2)
    return client


async def test_what_is_under_way_is_finished(connect: Connect, sandbox: Sandbox, platform: SlowPlatform) -> None:
    """The requests under way get their verdicts; the rest is free for another client while they are waited for."""
    client = await start_requests(connect, platform)
    closing = asyncio.create_task(client.aclose(None, only_started=True))
    await connect(upload=NARROW)
    await until(lambda: len(sandbox.engine.events()) == 8)
    assert not closing.done()
    platform.released.set()
    await closing

    assert len(platform.requests) == 2
    assert client.stats().delivered == 2
    again = await connect(flush_mode="MANUAL")
    assert (await again.flush_data(60)).remaining == 0
    sent = [number for request in platform.requests for number in request.numbers]
    arrived = [event.properties["number"] for event in sandbox.engine.events()]
    assert sorted([*sent, *arrived]) == list(range(10))


@pytest.mark.parametrize("seconds", [0.1, 0])
async def test_the_timeout(connect: Connect, sandbox: Sandbox, platform: SlowPlatform, seconds: float) -> None:
    """Requests that take longer are cancelled, and their events stay in the queue, too."""
    client = await start_requests(connect, platform)
    await client.aclose(seconds, only_started=True)

    assert client.stats().delivered == 0
    again = await connect(flush_mode="MANUAL")
    assert (await again.flush_data(60)).delivered == 10


async def test_nothing_is_under_way(connect: Connect, sandbox: Sandbox) -> None:
    """Nothing is sent, not even in a mode that uploads at the end."""
    client = await connect(flush_mode="APP_CLOSE")
    await client.track_event(Event("x"))
    await client.aclose(None, only_started=True)

    assert sandbox.request_count == 0


async def test_a_flush_in_progress(connect: Connect, platform: SlowPlatform) -> None:
    """A flush that is in progress ends, and begins no further request."""
    client = await connect(base_url=platform.url, flush_mode="MANUAL", upload=NARROW)
    await client.track_many(numbered_events(10))
    flush = asyncio.create_task(client.flush_data())
    await until(lambda: len(platform.requests) == 2)
    closing = asyncio.create_task(client.aclose(None, only_started=True))
    await asyncio.sleep(0)
    platform.released.set()
    await closing
    (result,) = await asyncio.gather(flush, return_exceptions=True)

    # Which one depends on whether it can still count what remains.
    assert isinstance(result, FlushResult | ClosedError)
    assert len(platform.requests) == 2
    assert client.stats().delivered == 2


async def test_halves_of_a_refused_batch(connect: Connect, sandbox: Sandbox) -> None:
    """Where a batch is refused as a whole, its halves are left to other processes."""
    refused, released = asyncio.Event(), asyncio.Event()

    async def refuse(_: ReceivedRequest) -> web.Response:
        refused.set()
        await released.wait()
        return web.json_response({"success": False, "error": "too large"}, status=413)

    async with ScriptedServer(refuse) as platform:
        client = await connect(base_url=platform.url, upload={"concurrency": 1})
        await client.track_many(numbered_events(4))
        await refused.wait()
        closing = asyncio.create_task(client.aclose(None, only_started=True))
        await asyncio.sleep(0)
        released.set()
        await closing
        assert len(platform.requests) == 1

    again = await connect(flush_mode="MANUAL")
    assert (await again.flush_data(60)).delivered == 4


async def test_a_client_that_only_records(connect: Connect, sandbox: Sandbox) -> None:
    """It has no requests under way, so there is nothing to wait for."""
    client = await connect(upload={"enabled": False})
    await client.track_event(Event("x"))
    await client.aclose(None, only_started=True)

    assert sandbox.request_count == 0
