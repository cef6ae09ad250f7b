"""
The sandbox in a thread, and the settings of clients that send to it.
"""

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from urllib.request import urlopen

import pytest
from helpers.waiting import until

from exponea_async import Event, Exponea, FlushMode
from exponea_async.sandbox import Fault, Sandbox
from exponea_async.testing import SandboxThread, assert_not_tracked, assert_tracked, sandbox_configuration


def threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name == "exponea_async sandbox"]


def test_it_serves_code_that_is_not_asynchronous() -> None:
    """Inside the block the sandbox answers requests, and after it the thread and the server are gone."""
    with SandboxThread() as sandbox:
        with urlopen(f"{sandbox.url}/sandbox/projects") as response:
            assert response.status == 200
        assert threads() == ["exponea_async sandbox"]

    assert threads() == []
    with pytest.raises(OSError, match="refused"):
        urlopen(sandbox.url)


def test_it_outlives_event_loops() -> None:
    """Clients of several event loops, one after the other, use one sandbox."""

    async def track(sandbox: Sandbox, name: str) -> None:
        async with Exponea(sandbox_configuration(sandbox)) as client:
            await client.track_event(Event(name))
            await client.flush_data()

    with SandboxThread() as sandbox:
        asyncio.run(track(sandbox, "first"))
        asyncio.run(track(sandbox, "second"))
        assert_tracked(sandbox, "first", count=1)
        assert_tracked(sandbox, "second", count=1)


def test_it_starts_again() -> None:
    """A sandbox that is given keeps its data and its port from one block to the next."""
    thread = SandboxThread(Sandbox(rate_limit=5))
    with thread as sandbox:
        url = sandbox.url
        sandbox.engine.execute("shop", "customers", {"customer_ids": {"registered": "jane"}, "properties": {}})
    with thread as again:
        assert (again, again.url) == (sandbox, url)
        assert len(again.engine.customers()) == 1


def test_a_port_that_is_in_use() -> None:
    """The error of the start is raised at the beginning of the block."""
    with SandboxThread() as sandbox:
        port = int(sandbox.url.rpartition(":")[2])
        with pytest.raises(OSError, match="address"):
            SandboxThread(Sandbox(port=port)).__enter__()
    assert threads() == []


def test_requests_under_way_end() -> None:
    """A request that is delayed does not keep the block from ending."""
    with SandboxThread() as sandbox:
        sandbox.faults.add(Fault("latency", seconds=60))

        async def track() -> None:
            async with Exponea(sandbox_configuration(sandbox, flush_mode="IMMEDIATE")) as client:
                await client.track_event(Event("visit"))
                await until(lambda: sandbox.request_count >= 1)
                await client.aclose(timeout=0)

        asyncio.run(track())
    assert threads() == []


def test_it_may_be_read_while_it_works() -> None:
    """A test that looks at the data while requests arrive gets data, and never an error."""

    async def track(sandbox: Sandbox) -> None:
        async with Exponea(sandbox_configuration(sandbox, flush_mode="IMMEDIATE")) as client:
            for number in range(30):
                await client.track_many(
                    ({"registered": f"{number}-{each}"}, Event("visit", {"n": each})) for each in range(50)
                )
            await client.flush_data()

    with SandboxThread() as sandbox, ThreadPoolExecutor(1) as executor:
        tracking = executor.submit(lambda: asyncio.run(track(sandbox)))
        while not tracking.done():
            sandbox.engine.events()
            sandbox.engine.customers()
            assert_not_tracked(sandbox, "purchase")
        tracking.result()
        assert len(assert_tracked(sandbox, "visit")) == len(sandbox.engine.customers()) == 1500


async def test_settings(sandbox: Sandbox) -> None:
    """The settings are those of the sandbox, a queue in memory and uploads on demand, except what is given."""
    settings = sandbox_configuration(sandbox)
    assert (settings.base_url, settings.storage, settings.flush_mode) == (sandbox.url, "memory:", FlushMode.MANUAL)

    changed = sandbox_configuration(sandbox, project_token="shop", session_timeout=5)
    assert (changed.project_token, changed.session_timeout, changed.base_url) == ("shop", 5.0, sandbox.url)
