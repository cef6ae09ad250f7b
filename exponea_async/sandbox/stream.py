"""
The live stream of the log, as server-sent events.

Nothing is buffered for a reader: each one has a position in the log and reads on from there, as fast as it can. A
reader that is too slow for the log gets a ``gap``, and one that takes nothing at all is dropped.
"""

import asyncio
import time
from collections.abc import Awaitable
from contextlib import suppress
from typing import Any

from aiohttp import web
from attrs import define

from exponea_async.sandbox.encoding import encode
from exponea_async.sandbox.engine import Engine
from exponea_async.sandbox.errors import RequestError
from exponea_async.sandbox.exchanges import Exchanges
from exponea_async.sandbox.log_routes import summaries
from exponea_async.sandbox.queries import check_names, parse_number

#: The time between two messages, in seconds.
INTERVAL = 0.1
#: The entries in one message.
BATCH = 500
#: The time without a message after which a comment is sent, in seconds.
HEARTBEAT = 15.0
#: The time after which a reader that takes nothing is dropped, in seconds.
STALLED = 30.0
#: The time between two messages about forgotten entries, in seconds.
FULL_INTERVAL = 60.0
#: The number of readers; a browser opens six connections.
MAX_READERS = 64
HEADERS = {
    "Content-Type": "text/event-stream; charset=utf-8",
    "Cache-Control": "no-store",
    "X-Accel-Buffering": "no",
    "X-Content-Type-Options": "nosniff",
}


@define(eq=False)
class Reader:
    """
    A client of the stream.

    Attributes:
        response: The response to it.
        request: Its request.
        run: The run of the log that the position belongs to.
        position: The number of the latest entry that it has.
        requests: The position of the latest request that it has.
        forgotten: The number of forgotten entries that it knows of.
        full_at: The time at which it was told, monotonic.
        written_at: The time of the latest message, monotonic.
        is_waiting: Whether a message is being sent.
    """

    response: web.StreamResponse
    request: web.Request
    run: str
    position: int
    requests: int
    forgotten: int
    full_at: float = 0.0
    written_at: float = 0.0
    is_waiting: bool = False

    async def write(self, data: bytes) -> None:
        """
        Send bytes.

        Raises:
            ConnectionError: The reader has gone, or takes nothing.
        """
        self.is_waiting = True
        try:
            await asyncio.wait_for(self.response.write(data), STALLED)
        except TimeoutError:
            self.drop()
            raise ConnectionResetError("The reader takes nothing.") from None
        finally:
            self.is_waiting = False
        self.written_at = time.monotonic()

    async def send(self, event: str, data: Any, *, number: int | None = None) -> None:
        """Send a message; with the number of an entry, a reader that comes back continues after that entry."""
        line = b"" if number is None else b"id: %d-%b\n" % (number, self.run.encode())
        await self.write(b"event: %b\n%bdata: %b\n\n" % (event.encode(), line, encode(data)))

    @property
    def takes_nothing(self) -> bool:
        """Whether a message waits because the reader has not taken earlier bytes; a message also waits for its turn."""
        transport = self.request.transport
        return self.is_waiting and transport is not None and transport.get_write_buffer_size() > 0

    def drop(self) -> None:
        """Close the connection without waiting for the reader."""
        if self.request.transport is not None:
            self.request.transport.abort()


class StreamApi:
    """
    The handler of the live stream.

    Args:
        engine: The engine with the log.
        exchanges: The requests.
    """

    def __init__(self, engine: Engine, exchanges: Exchanges) -> None:
        self._engine = engine
        self._exchanges = exchanges
        self._readers: set[Reader] = set()
        self._closing = asyncio.Event()

    def routes(self) -> list[web.RouteDef]:
        """Return all routes."""
        return [web.get("/sandbox/stream", self._stream, allow_head=False)]

    def open(self) -> None:
        """Accept readers; has to be called again after `close`."""
        self._closing = asyncio.Event()

    def close(self) -> None:
        """End all streams at once, also those of readers that take nothing."""
        self._closing.set()
        for reader in self._readers:
            if reader.takes_nothing:
                reader.drop()

    async def _stream(self, request: web.Request) -> web.StreamResponse:
        check_names(request, "after")
        if len(self._readers) >= MAX_READERS:
            raise RequestError(503, f"The stream has {MAX_READERS} readers, which is the limit.")
        reader = self._reader(request)
        self._readers.add(reader)
        try:
            with suppress(ConnectionError):
                await reader.response.prepare(request)
                await reader.write(b"retry: 1000\n\n")
                await self._follow(reader)
        finally:
            self._readers.discard(reader)
        return reader.response

    def _reader(self, request: web.Request) -> Reader:
        journal = self._engine.journal
        given = request.headers.get("Last-Event-ID") or request.query.get("after", "")
        digits, _, run = given.partition("-")
        position = parse_number(digits) if given else journal.log.next - 1
        if position is None:
            raise RequestError(400, f"after: should be the id of an entry or of a message, got {given!r:.100}.")
        return Reader(
            web.StreamResponse(headers=HEADERS),
            request,
            run or journal.run,
            position,
            self._exchanges.log.next - 1,
            # A reader that was here before has not heard of what was forgotten since; a new one hears of all.
            forgotten=0,
        )

    async def _follow(self, reader: Reader) -> None:
        while not self._closing.is_set():
            await self._send_reset(reader)
            await self._send_entries(reader)
            await self._send_requests(reader)
            await self._send_full(reader)
            if time.monotonic() - reader.written_at > HEARTBEAT:
                await reader.write(b": \n\n")
            if reader.request.transport is None or reader.request.transport.is_closing():
                return
            await _wait(self._closing.wait(), INTERVAL)

    async def _send_reset(self, reader: Reader) -> None:
        journal = self._engine.journal
        # A position beyond the log is one of another run, too: the sandbox was started again.
        if reader.run != journal.run or reader.position >= journal.log.next:
            reader.run, reader.position, reader.forgotten = journal.run, 0, 0
            await reader.send("reset", {})
        reader.requests = min(reader.requests, self._exchanges.log.next - 1)

    async def _send_entries(self, reader: Reader) -> None:
        journal = self._engine.journal
        while reader.run == journal.run and reader.position < journal.log.next - 1:
            log, run = journal.log, journal.run
            if reader.position + 1 < log.oldest:
                gap = {"from": reader.position + 1, "to": log.oldest - 1}
                reader.position = gap["to"]
                await reader.send("gap", gap)
                continue
            entries = log.following(reader.position, BATCH)
            messages = await summaries(self._engine, entries)
            if run != journal.run:
                return
            reader.position = entries[-1].id
            await reader.send("entries", messages, number=reader.position)
            await asyncio.sleep(0)

    async def _send_requests(self, reader: Reader) -> None:
        while exchanges := self._exchanges.log.following(reader.requests, BATCH):
            # Requests that were forgotten meanwhile are skipped: the page reads them from the list.
            reader.requests = max(reader.requests, self._exchanges.log.oldest - 1) + len(exchanges)
            await reader.send("requests", [exchange.as_dict() for exchange in exchanges])
            await asyncio.sleep(0)

    async def _send_full(self, reader: Reader) -> None:
        log, now = self._engine.journal.log, time.monotonic()
        if log.forgotten > reader.forgotten and (not reader.full_at or now - reader.full_at >= FULL_INTERVAL):
            reader.forgotten, reader.full_at = log.forgotten, now
            await reader.send("full", {"forgotten": log.forgotten, "limit": log.max_items})


async def _wait(condition: Awaitable[Any], seconds: float) -> None:
    with suppress(TimeoutError):
        await asyncio.wait_for(condition, seconds)
