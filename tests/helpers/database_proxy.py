"""
A TCP proxy in front of a database that loses, holds back or refuses what goes through it.
"""

import asyncio
from collections.abc import Coroutine
from contextlib import suppress
from types import TracebackType
from typing import Any, Literal, Self
from urllib.parse import urlsplit

from attrs import define

from helpers.server_process import free_port

#: What happens at a statement: the connection ends before the server gets it, or when the server has answered, before
#: the client gets the answer; or the client's side ends at once, while the server gets the statement, or gets it late;
#: or the connection stays, and nothing more is forwarded.
Loss = Literal["unsent", "unanswered", "at once", "late", "silent"]
#: Whether connections are made, are not accepted, or are accepted and then nothing is forwarded.
Mode = Literal["open", "refusing", "silent"]


@define
class Fault:
    """
    A loss that happens once.

    Attributes:
        text: It happens at what a client sends with this in it.
        loss: What happens.
        delay: How late the server gets it, in seconds.
        is_over: Whether it has happened.
    """

    text: bytes
    loss: Loss
    delay: float = 0.0
    is_over: bool = False


class DatabaseProxy:
    """
    A proxy on a free port of 127.0.0.1 while it is entered.

    Args:
        url: The URL of the database.

    Attributes:
        url: The URL of the database through the proxy.
        mode: What it does with connections: those that it has, and new ones.
        faults: The losses that are to happen, and those that have.
        target: The port of the database.
        count: How many connections were accepted.
    """

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        assert parts.port
        self.target, self._port = parts.port, free_port()
        self.url = url.replace(f":{parts.port}/", f":{self._port}/")
        self.mode: Mode = "open"
        self.faults: list[Fault] = []
        self.count = 0
        self._open = asyncio.Event()
        self._open.set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._writers: set[asyncio.StreamWriter] = set()
        self._connections: set[_Connection] = set()
        self._server: asyncio.Server | None = None

    async def __aenter__(self) -> Self:
        await self._listen()
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.set_mode("refusing")
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def set_mode(self, mode: Mode) -> None:
        """Change what happens to connections; those that exist are lost, unless they get silent or go on."""
        self.mode = mode
        if mode == "open":
            self._open.set()
            await self._listen()
        elif mode == "silent":
            self._open.clear()
        else:
            if self._server is not None:
                self._server.close()
                self._server = None
            self.lose_connections()
            self._open.set()

    def lose_connections(self) -> None:
        """End all connections."""
        for writer in list(self._writers):
            writer.transport.abort()

    def silence_connections(self) -> None:
        """Forward nothing more on the connections that there are, without ending them."""
        for connection in self._connections:
            connection.is_silent = True

    def fail(self, text: bytes, loss: Loss, delay: float = 0.0) -> Fault:
        """Let something happen once."""
        fault = Fault(text, loss, delay)
        self.faults.append(fault)
        return fault

    async def _listen(self) -> None:
        if self._server is None:
            self._server = await asyncio.start_server(self._accept, "127.0.0.1", self._port)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.count += 1
        self._start(self._serve(reader, writer))

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        try:
            await self._open.wait()
            server_reader, server_writer = await asyncio.open_connection("127.0.0.1", self.target)
        except OSError:
            writer.transport.abort()
            return
        finally:
            self._writers.discard(writer)
        connection = _Connection(self, reader, writer, server_reader, server_writer)
        self._writers |= {writer, server_writer}
        self._connections.add(connection)
        try:
            await connection.run()
        finally:
            self._connections.discard(connection)
            self._writers -= {writer, server_writer}
            writer.transport.abort()
            server_writer.close()

    async def passing(self) -> None:
        """Wait until something may be forwarded."""
        await self._open.wait()

    def fault_at(self, chunk: bytes) -> Fault | None:
        """Return the loss that is to happen at what a client has sent."""
        for fault in self.faults:
            if not fault.is_over and fault.text in chunk:
                fault.is_over = True
                return fault
        return None


class _Connection:
    """One connection through the proxy."""

    def __init__(
        self,
        proxy: DatabaseProxy,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        server_reader: asyncio.StreamReader,
        server_writer: asyncio.StreamWriter,
    ) -> None:
        self._proxy = proxy
        self._reader, self._writer = reader, writer
        self._server_reader, self._server_writer = server_reader, server_writer
        self._fault: Fault | None = None
        self.is_silent = False

    async def run(self) -> None:
        """Forward in both directions until one side ends."""
        ways = [asyncio.create_task(self._forward()), asyncio.create_task(self._answer())]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)

    async def _forward(self) -> None:
        with suppress(OSError):
            while chunk := await self._reader.read(1 << 20):
                await self._passing()
                fault = self._fault = self._proxy.fault_at(chunk)
                if fault is None or fault.loss == "unanswered":
                    self._server_writer.write(chunk)
                    await self._server_writer.drain()
                    continue
                if fault.loss == "silent":
                    await asyncio.Event().wait()
                self._writer.transport.abort()
                if fault.loss != "unsent":
                    await asyncio.sleep(fault.delay)
                    self._server_writer.write(chunk)
                    # The server does not learn that the client is gone before it has answered.
                    await asyncio.Event().wait()
                return

    async def _passing(self) -> None:
        await self._proxy.passing()
        if self.is_silent:
            await asyncio.Event().wait()

    async def _answer(self) -> None:
        with suppress(OSError):
            while chunk := await self._server_reader.read(1 << 20):
                await self._passing()
                if self._fault is not None:
                    return
                self._writer.write(chunk)
                await self._writer.drain()
