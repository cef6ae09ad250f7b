"""
The live stream of the sandbox's log, over real HTTP.
"""

import asyncio
import socket
import time
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing, contextmanager, suppress

import aiohttp
import pytest
from helpers.environment import SetConstants
from helpers.sandbox_engine import track
from helpers.sandbox_page import Message, Page, event
from helpers.waiting import until

from exponea_async.sandbox import Sandbox, stream


@pytest.fixture
def page(sandbox: Sandbox, session: aiohttp.ClientSession) -> Page:
    return Page(session, sandbox.url)


class Follower:
    """
    A reader of the stream in a task of its own.

    Attributes:
        messages: What it has received.
        task: The task, which ends with the stream.
    """

    def __init__(self, page: Page, after: str | int | None = None, last_id: str = "") -> None:
        self.messages: list[Message] = []
        self.task = asyncio.create_task(self._read(page.messages(after, last_id)))

    async def _read(self, messages: AsyncGenerator[Message, None]) -> None:
        async for message in messages:
            self.messages.append(message)

    @property
    def is_connected(self) -> bool:
        return bool(self.messages)

    @property
    def entries(self) -> list[int]:
        return [entry["id"] for each in self.messages if each.event == "entries" for entry in each.data]

    @property
    def last_id(self) -> str:
        return next((each.id for each in reversed(self.messages) if each.id), "")

    def kinds(self) -> list[str]:
        return [each.event for each in self.messages if each.event]

    async def stop(self) -> None:
        self.task.cancel()
        await asyncio.wait([self.task])


async def send(page: Page, first: int, last: int) -> None:
    """Send events with these timestamps."""
    await page.send_commands(*[event({"cookie": "c"}, timestamp=number) for number in range(first, last)])


async def connected(page: Page, after: int | None = None) -> Follower:
    """Return a reader that has got a place, for which it may have to wait."""
    for _ in range(1_000):
        follower = Follower(page, after)
        await until(lambda follower=follower: follower.is_connected or follower.task.done())  # type: ignore[misc]
        if follower.is_connected:
            return follower
        assert isinstance(follower.task.exception(), AssertionError)
        await asyncio.sleep(0.02)
    pytest.fail("No place was free.")


@contextmanager
def idle_reader(sandbox: Sandbox) -> Iterator[socket.socket]:
    """Open the stream from its beginning, without taking anything from it."""
    with socket.socket() as opened:
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        opened.settimeout(60)
        opened.connect(("127.0.0.1", int(sandbox.url.rpartition(":")[2])))
        opened.sendall(b"GET /sandbox/stream?after=0 HTTP/1.1\r\nHost: localhost\r\n\r\n")
        yield opened


def read_all(opened: socket.socket) -> bytes:
    """Read until the end of a connection."""
    received = b""
    with suppress(ConnectionResetError):
        while part := opened.recv(1_000_000):
            received += part
    return received


class TestMessages:
    async def test_entries_and_requests(self, page: Page) -> None:
        """New entries arrive in order, as in the list, with the requests that carried them."""
        await send(page, 0, 3)
        follower = Follower(page)
        await until(lambda: follower.is_connected)
        await send(page, 3, 6)
        await until(lambda: "requests" in follower.kinds())

        listed = (await page.get("log?limit=3"))["entries"]
        (requests,) = (await page.get("requests?limit=1"))["requests"]

        assert follower.entries == [4, 5, 6]
        entries = next(each for each in follower.messages if each.event == "entries")
        assert entries.data == listed[::-1]
        assert next(each.data for each in follower.messages if each.event == "requests") == [requests]
        await follower.stop()

    async def test_a_reset(self, page: Page, sandbox: Sandbox) -> None:
        """After a reset the reader is told so, and gets the entries from the first one."""
        await send(page, 0, 3)
        follower = Follower(page, after=0)
        await until(lambda: len(follower.entries) == 3)

        sandbox.reset()
        await send(page, 0, 2)
        await until(lambda: len(follower.entries) == 5)

        assert follower.entries == [1, 2, 3, 1, 2]
        assert [kind for kind in follower.kinds() if kind != "requests"] == ["entries", "reset", "entries"]
        await follower.stop()

    async def test_a_comment_when_nothing_happens(self, page: Page, set_constants: SetConstants) -> None:
        """Without news a comment is sent, by which dead connections are found."""
        set_constants(stream, HEARTBEAT=0.01)
        follower = Follower(page)

        await until(lambda: len(follower.messages) >= 3)

        assert follower.kinds() == []
        await follower.stop()

    async def test_the_limit_of_readers(self, page: Page, set_constants: SetConstants) -> None:
        """Beyond the limit of readers the response is 503, until one has gone."""
        set_constants(stream, MAX_READERS=1, HEARTBEAT=0.01)
        follower = Follower(page)
        await until(lambda: follower.is_connected)
        await page.get("stream", 503)

        await follower.stop()

        await (await connected(page)).stop()


class TestResuming:
    async def test_nothing_is_lost_or_repeated(self, page: Page) -> None:
        """A reader that comes back again and again, while entries arrive, gets each entry exactly once."""
        total = 1_500
        received: list[int] = []

        async def produce() -> None:
            for first in range(0, total, 30):
                await send(page, first, first + 30)
                await asyncio.sleep(0)

        producer = asyncio.create_task(produce())
        last_id, visits = "0", 0
        while len(received) < total:
            visits += 1
            assert visits < 500
            async with aclosing(page.messages(last_id=last_id)) as messages:
                async for message in messages:
                    if message.event == "entries":
                        received += [entry["id"] for entry in message.data]
                        last_id = message.id
                        break
        await producer

        assert received == list(range(1, total + 1))
        assert visits > 1

    async def test_a_gap(self, session: aiohttp.ClientSession) -> None:
        """A reader that comes back too late is told which entries are no longer kept, and goes on after them."""
        async with Sandbox(max_entries=10) as sandbox:
            page = Page(session, sandbox.url)
            await send(page, 0, 25)
            follower = Follower(page, after=5)
            await until(lambda: "full" in follower.kinds())

            first, second = [each for each in follower.messages if each.event in ("gap", "entries")]
            assert (first.event, first.data) == ("gap", {"from": 6, "to": 15})
            assert [entry["id"] for entry in second.data] == list(range(16, 26))
            full = next(each for each in follower.messages if each.event == "full")
            assert full.data == {"forgotten": 15, "limit": 10}
            # Told once: what is forgotten after that is told a minute later.
            await send(page, 25, 30)
            await until(lambda: follower.entries[-1] == 30)
            assert follower.kinds().count("full") == 1
            await follower.stop()

    async def test_after_a_restart(self, session: aiohttp.ClientSession) -> None:
        """A reader of an earlier sandbox, or of data before a reset, is told to start again."""
        async with Sandbox() as sandbox:
            page = Page(session, sandbox.url)
            await send(page, 0, 5)
            run = (await page.get("log"))["run"]
            sandbox.reset()
            await send(page, 0, 8)
            followers = [Follower(page, after=f"5-{run}"), Follower(page, last_id=f"5-{run}"), Follower(page, after=99)]
            for follower in followers:
                await until(lambda follower=follower: len(follower.entries) == 8)  # type: ignore[misc]
                assert follower.kinds()[:2] == ["reset", "entries"]
                await follower.stop()


class TestReaders:
    async def test_a_reader_that_takes_nothing(self, page: Page, sandbox: Sandbox, set_constants: SetConstants) -> None:
        """A reader that takes nothing is dropped; its place is free for another one, who gets everything."""
        # The only place is free as soon as the first reader was dropped.
        set_constants(stream, STALLED=0.2, MAX_READERS=1, HEARTBEAT=0.01)
        total = 20_000
        with idle_reader(sandbox) as idle:
            for number in range(total):
                # More than the buffers of the system hold: the name of an event is in each message.
                track(sandbox.engine, {"cookie": "c"}, "x" * 250, timestamp=number)
            await (await connected(page)).stop()
            # The next reader is slow on a busy machine, but it takes something.
            set_constants(stream, STALLED=60.0)
            follower = await connected(page, after=0)
            await until(lambda: len(follower.entries) == total)
            received = await asyncio.to_thread(read_all, idle)

        assert received.count(b'"id":') < total
        # It was dropped in the middle, and did not get the end of the response.
        assert not received.endswith(b"0\r\n\r\n")
        await follower.stop()

    async def test_closing_is_quick(self, page: Page, sandbox: Sandbox) -> None:
        """When the sandbox is closed, the streams end at once and in order."""
        followers = [Follower(page) for _ in range(3)]
        for follower in followers:
            await until(lambda follower=follower: follower.is_connected)  # type: ignore[misc]
        started = time.perf_counter()

        await sandbox.aclose()

        # The server waits for 60 seconds for requests that do not end.
        assert time.perf_counter() - started < 40
        for follower in followers:
            await asyncio.wait_for(follower.task, 60)
