"""
Applications in servers of their own, as in production: started as users start them, called over HTTP, and killed.
"""

import asyncio
import itertools
import os
import re
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
from attrs import define, field

from helpers.waiting import until

ROOT = Path(__file__).parent.parent.parent
APPS = ROOT / "tests" / "integrations" / "apps"
ADDRESS = re.compile(r"http://127\.0\.0\.1:\d+")
#: How long a server may take to start or to end, in seconds.
PATIENCE = 90.0
#: The number of customers who visit.
CUSTOMERS = 7


@define
class AppServer:
    """
    A running server.

    Attributes:
        url: Its address.
        process: The process that was started; its workers are others.
        log: The file with its output.
    """

    url: str
    process: "subprocess.Popen[bytes]"
    log: Path

    async def stop(self) -> int:
        """Ask the server to end, as a container's host does, and return its exit code."""
        self.process.send_signal(signal.SIGTERM)
        return await asyncio.to_thread(self.process.wait, PATIENCE)


@asynccontextmanager
async def app_server(folder: Path, *command: str, env: Mapping[str, str]) -> AsyncIterator[AppServer]:
    """Run ``python -m`` with a command that serves one of the applications on a free port of 127.0.0.1."""
    log, path = folder / "server.log", os.pathsep.join(map(str, (ROOT, APPS)))
    environment = {"PYTHONPATH": path, "PATH": "/usr/bin:/bin", "HOME": str(folder), "PYTHONUNBUFFERED": "1", **env}
    with log.open("wb") as output:
        process = subprocess.Popen(  # noqa: ASYNC220 - it returns at once
            [sys.executable, "-m", *command],
            stdout=output,
            stderr=subprocess.STDOUT,
            env=environment,
            cwd=folder,
            # A group of its own, so that the workers are ended, too.
            start_new_session=True,
        )
    try:
        await until(lambda: process.poll() is not None or ADDRESS.search(log.read_text()) is not None, PATIENCE)
        found = ADDRESS.search(log.read_text())
        assert found is not None, log.read_text()
        yield AppServer(found.group(), process, log)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        await asyncio.to_thread(process.wait)


@define
class Visits:
    """
    Numbered requests to a server, whose application answers with the id of its process.

    Attributes:
        url: The address, to which the number is appended.
        answered: The numbers of the requests that were answered with 200.
        failed: The numbers of the others, such as those whose worker was killed.
        errors: The statuses of the answers other than 200.
        workers: The ids of the processes that have answered.
    """

    url: str
    answered: set[int] = field(factory=set)
    failed: set[int] = field(factory=set)
    errors: list[int] = field(factory=list)
    workers: set[int] = field(factory=set)

    async def make(self, count: int, *, concurrency: int = 16) -> None:
        """Make requests until a number of them were answered."""
        numbers = itertools.count()
        # A connection for each request, so that all workers get some.
        connector = aiohttp.TCPConnector(force_close=True)
        async with aiohttp.ClientSession(connector=connector) as session, asyncio.timeout(PATIENCE + count / 10):

            async def visitor() -> None:
                while len(self.answered) < count:
                    await self._visit(session, next(numbers))

            await asyncio.gather(*(visitor() for _ in range(concurrency)))

    async def _visit(self, session: aiohttp.ClientSession, number: int) -> None:
        headers = {"X-Customer": customer_of(number)}
        try:
            # A GET would be repeated by aiohttp itself after a lost connection.
            async with session.post(f"{self.url}{number}", headers=headers) as response:
                text, status = await response.text(), response.status
        except aiohttp.ClientError:
            self.failed.add(number)
            # Until another worker accepts connections.
            await asyncio.sleep(0.05)
            return
        if status == 200:
            self.answered.add(number)
            self.workers.add(int(text))
        else:
            self.failed.add(number)
            self.errors.append(status)

    async def end_workers(self, count: int, times: int, is_over: Callable[[], bool]) -> list[signal.Signals]:
        """
        End one worker after another while requests are made: with SIGKILL, with SIGTERM, and so on.

        Args:
            count: The number of requests that are made.
            times: How many workers are ended.
            is_over: Whether all requests were made.

        Returns:
            The signals that were sent.
        """
        ended: dict[int, signal.Signals] = {}
        for turn in range(times):
            due = count * (turn + 1) // (times + 1)
            await until(lambda due=due: is_over() or self._is_due(due, ended), PATIENCE)  # type: ignore[misc]
            worker = min(self.workers - ended.keys())
            ended[worker] = (signal.SIGKILL, signal.SIGTERM)[turn % 2]
            os.kill(worker, ended[worker])
        return list(ended.values())

    def _is_due(self, count: int, ended: Mapping[int, signal.Signals]) -> bool:
        return len(self.answered) >= count and bool(self.workers - ended.keys())


def customer_of(number: int) -> str:
    """Return the customer who makes a request."""
    return f"c{number % CUSTOMERS}"
