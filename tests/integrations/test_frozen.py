"""
Hosts that freeze a process between two calls, as those of functions do, and that may never let it go on.
"""

import asyncio
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from helpers.clients import Configure
from helpers.programs import PRELUDE, ROOT
from helpers.waiting import until

from exponea_async import Exponea
from exponea_async.sandbox import Fault, Sandbox
from exponea_async.testing import pending_records

#: A host that calls a function for each line of its input.
HOST = """
from exponea_async.portal import Portal

portal = Portal(client(flush_mode=sys.argv[3], upload=UploadSettings(request_timeout=float(sys.argv[5]))))

def handler(number):
    tracker = portal.exponea.for_customer({"registered": "jane"})
    receipt = portal.call(tracker.track_event, Event("called", {"number": number}))
    if sys.argv[4] == "flush":
        portal.call(portal.exponea.flush_data, timeout=60)
    return receipt

for line in sys.stdin:
    receipt = handler(int(line))
    print(receipt.status, flush=True)
    if sys.argv[4] == "await":
        portal.call(receipt.delivered, timeout=60)
        print(receipt.status, portal.exponea.stats().retried, flush=True)
"""


class Host:
    """A running host."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self._process = process

    async def line(self) -> str:
        """Return the next line of its output."""
        assert self._process.stdout is not None
        return (await asyncio.to_thread(self._process.stdout.readline)).strip()

    async def call(self, number: int) -> str:
        """Call the function, and return the status of its event."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{number}\n")
        self._process.stdin.flush()
        return await self.line()

    def freeze(self) -> None:
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self._process.send_signal(signal.SIGCONT)


@asynccontextmanager
async def host(sandbox: Sandbox, folder: Path, *, mode: str, after: str, limit: float = 30.0) -> AsyncIterator[Host]:
    """Run a host; in the end it is killed, frozen or not, as an instance is that is not needed any more."""
    arguments = [sandbox.url, str(folder / "queue.sqlite"), mode, after, str(limit)]
    process = subprocess.Popen(  # noqa: ASYNC220 - it returns at once
        [sys.executable, "-c", PRELUDE + HOST, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"},
        cwd=folder,
    )
    try:
        yield Host(process)
    finally:
        process.kill()
        await asyncio.to_thread(process.communicate)


def numbers(sandbox: Sandbox) -> list[int]:
    return [event.properties["number"] for event in sandbox.engine.events()]


class TestFrozenHosts:
    async def test_a_flush_before_the_end(self, sandbox: Sandbox, tmp_path: Path) -> None:
        """What a function has flushed before it returned is delivered, whatever becomes of its process."""
        async with host(sandbox, tmp_path, mode="MANUAL", after="flush") as running:
            for number in range(2):
                assert await running.call(number) == "delivered"
                running.freeze()
                assert numbers(sandbox) == list(range(number + 1))
                running.thaw()
            running.freeze()

        assert numbers(sandbox) == [0, 1]

    async def test_without_a_flush(self, configure: Configure, sandbox: Sandbox, tmp_path: Path) -> None:
        """What was not flushed is in the file, and the next process that has this file delivers it."""
        async with host(sandbox, tmp_path, mode="MANUAL", after="return") as running:
            assert await running.call(1) == "queued"
            running.freeze()
        assert numbers(sandbox) == []

        async with Exponea(configure(flush_mode="MANUAL")) as client:
            assert len(await pending_records(client)) == 1
            await client.flush_data(60)
        assert numbers(sandbox) == [1]

    async def test_frozen_during_a_request(self, sandbox: Sandbox, tmp_path: Path) -> None:
        """A request that was under way when the process was frozen gets its response afterwards."""
        async with host(sandbox, tmp_path, mode="IMMEDIATE", after="await") as running:
            sandbox.faults.add(Fault("latency", seconds=0.5))
            assert await running.call(1) == "queued"
            await until(lambda: sandbox.request_count >= 1)
            running.freeze()
            await until(lambda: numbers(sandbox) == [1])
            running.thaw()
            assert await running.line() == "delivered 0"

    async def test_frozen_for_longer_than_a_request(self, sandbox: Sandbox, tmp_path: Path) -> None:
        """If the time limit of the request has passed meanwhile, the event is sent again, and is there once."""
        async with host(sandbox, tmp_path, mode="IMMEDIATE", after="await", limit=1.0) as running:
            sandbox.faults.add(Fault("timeout", seconds=60, times=1))
            assert await running.call(1) == "queued"
            await until(lambda: sandbox.request_count >= 1)
            running.freeze()
            await asyncio.sleep(1.0)
            running.thaw()
            # On a slow machine the time limit may pass more than once.
            assert (await running.line()).startswith("delivered ")

        assert numbers(sandbox) == [1]


class TestSignals:
    @pytest.mark.parametrize("ending", ["handler", "default"])
    async def test_a_program_of_ones_own(
        self, configure: Configure, sandbox: Sandbox, tmp_path: Path, ending: str
    ) -> None:
        """With a handler of SIGTERM a program closes its client and uploads; without, its events stay in the file."""
        source = """
import signal

async def main():
    ending = asyncio.Event()
    if sys.argv[3] == "handler":
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ending.set)
    async with client(upload=UploadSettings(linger=60.0)) as exponea:
        await exponea.for_customer({"registered": "jane"}).track_event(Event("started", {"number": 1}))
        print("started", flush=True)
        await ending.wait()

asyncio.run(main())
"""
        if ending == "default":
            # The upload may look at the file for the first time after the event was written.
            sandbox.faults.add(Fault("status", status=503))
        process = subprocess.Popen(  # noqa: ASYNC220 - it returns at once
            [sys.executable, "-c", PRELUDE + source, sandbox.url, str(tmp_path / "queue.sqlite"), ending],
            stdout=subprocess.PIPE,
            text=True,
            env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"},
        )
        assert await Host(process).line() == "started"
        process.send_signal(signal.SIGTERM)
        await asyncio.to_thread(process.communicate)

        assert process.returncode == (0 if ending == "handler" else -signal.SIGTERM)
        assert numbers(sandbox) == ([1] if ending == "handler" else [])
        sandbox.faults.clear()
        async with Exponea(configure(flush_mode="MANUAL")) as client:
            await client.flush_data(60)
        assert numbers(sandbox) == [1]
