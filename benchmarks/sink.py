"""
A server that accepts events without checking them: the minimum of an HTTP server, in a process of its own.

It responds to all paths and formats. With ``--record`` it keeps the requests, and tells when which events have arrived;
an event is known by a text such as ``sku-17`` or ``sku-17-1764500000.123456`` in it, with a number and perhaps the time
of the call. Whatever costs time is done when it is asked, not when a request arrives.
"""

import asyncio
import base64
import json
import re
import subprocess
import sys
import time
import urllib.request
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

COMMAND_ID = re.compile(rb'"command_id":"([^"]*)"')
#: Amplitude's client looks for a code in the body.
BODY = b'{"success":true,"code":%d,"start_time":1.0,"end_time":1.0,"results":[%b]}'
HEAD = b"HTTP/1.1 %d Sink\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b"
LENGTH = re.compile(rb"content-length: *(\d+)", re.IGNORECASE)
COMPRESSED = re.compile(rb"content-encoding: *(gzip|deflate)", re.IGNORECASE)
MARK = re.compile(rb"sku-(\d+)(?:-(\d+\.\d+))?")
#: The events of Snowplow, unless its tracker is told not to encode them.
ENCODED = re.compile(rb'"ue_px": *"([^"]+)"')
CONTROL = b"POST /sink/"


class Record:
    """The requests so far, and how the next ones are responded to."""

    def __init__(self) -> None:
        self.status = 200
        self.refused = 0
        self.requests: list[tuple[float, bytes]] = []
        #: For each request, the number of its events; for each event, its number, when it was sent and when it arrived.
        self.sizes: list[int] = []
        self.events: list[tuple[int, float, float]] = []
        self.numbers: set[int] = set()

    def add(self, request: bytes) -> None:
        """Keep a request."""
        if self.status == 200:
            self.requests.append((time.time(), request))
        else:
            self.refused += 1

    def parse(self) -> None:
        """Find the events of the requests since the last call."""
        for arrival, request in self.requests:
            found = MARK.findall(content(request))
            self.sizes.append(len(found))
            self.events += [(int(number), float(sent or 0), arrival) for number, sent in found]
            self.numbers.update(int(number) for number, _ in found)
        self.requests.clear()

    def control(self, command: str) -> Any:
        """Execute ``count``, ``report`` or ``status/503``, and return its result."""
        self.parse()
        if command == "count":
            return len(self.numbers)
        if command == "report":
            return {"sizes": self.sizes, "events": self.events, "refused": self.refused}
        self.status = int(command.removeprefix("status/"))
        return self.status


def content(request: bytes) -> bytes:
    """Return the body of a request, decompressed and decoded."""
    head, _, body = request.partition(b"\r\n\r\n")
    if COMPRESSED.search(head):
        # With the header of either gzip or zlib.
        body = zlib.decompress(body, wbits=zlib.MAX_WBITS | 32)
    return ENCODED.sub(lambda found: base64.urlsafe_b64decode(found[1]), body)


class Sink(asyncio.Protocol):
    """A connection."""

    def __init__(self, record: Record | None = None) -> None:
        self.record = record
        self.buffer = bytearray()
        self.needed = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        while self.buffer and len(self.buffer) >= self.needed:
            if not self.needed:
                end = self.buffer.find(b"\r\n\r\n")
                if end < 0:
                    return
                found = LENGTH.search(self.buffer, 0, end)
                self.needed = end + 4 + (int(found[1]) if found else 0)
                continue
            self.respond(bytes(self.buffer[: self.needed]))
            del self.buffer[: self.needed]
            self.needed = 0

    def respond(self, request: bytes) -> None:
        """Respond that each command has succeeded, or with the status that is set."""
        status = 200
        if self.record is not None:
            if request.startswith(CONTROL):
                command = request[len(CONTROL) :].split(b" ", 1)[0].decode()
                self.write(200, json.dumps(self.record.control(command)).encode())
                return
            status = self.record.status
            self.record.add(request)
        results = b",".join(b'{"success":true,"command_id":"%b"}' % key for key in COMMAND_ID.findall(request))
        self.write(status, BODY % (status, results) if status == 200 else b'{"code":%d}' % status)

    def write(self, status: int, body: bytes) -> None:
        """Write a response."""
        self.transport.write(HEAD % (status, len(body), body))  # type: ignore[attr-defined]


async def serve() -> None:
    """Listen on a free port, print it, and serve until standard input is closed."""
    record = Record() if "--record" in sys.argv else None
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Sink(record), "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await asyncio.to_thread(sys.stdin.read)
    server.close()


@contextmanager
def running(*arguments: str) -> Iterator[str]:
    """Run a sink in a process of its own and yield its address."""
    command = [sys.executable, str(Path(__file__)), *arguments]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        assert process.stdin
        yield f"http://127.0.0.1:{int(process.stdout.readline())}"
        process.stdin.close()


@dataclass
class Recorder:
    """The remote control of a sink that keeps the requests."""

    url: str

    def ask(self, command: str) -> Any:
        """Send a command to the sink, and return its response."""
        request = urllib.request.Request(f"{self.url}/sink/{command}", method="POST")
        with urllib.request.urlopen(request, timeout=60) as response:
            return json.load(response)

    def count(self) -> int:
        """Return how many different events have arrived."""
        return int(self.ask("count"))

    def report(self) -> dict[str, Any]:
        """Return the size of each request, when each event was sent and arrived, and the number of refused requests."""
        return dict(self.ask("report"))

    def respond_with(self, status: int) -> None:
        """Let the sink respond with this status from now on, and keep what it accepts only."""
        self.ask(f"status/{status}")


@contextmanager
def recording() -> Iterator[Recorder]:
    """Run a sink that keeps the requests."""
    with running("--record") as url:
        yield Recorder(url)


if __name__ == "__main__":
    asyncio.run(serve())
