"""
A device with short waits, and a sandbox that returns segments.
"""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from exponea_async import Event, Exponea
from exponea_async._internal.streams import Subscription
from exponea_async.features.segments import watcher
from exponea_async.features.segments.service import Segments
from exponea_async.sandbox import Fault, Sandbox
from exponea_async.testing import idle, received
from helpers.app import App
from helpers.environment import SetConstants
from helpers.internals import devices_of, feature_of
from helpers.waiting import running, until

#: Long enough for concurrent triggers to be within it, and short enough to wait for.
DEBOUNCE = 0.2

SegmentStream = Subscription[list[dict[str, str]]]


def segment(name: str) -> dict[str, str]:
    """Return a segment with a name as its id."""
    return {"id": name, "segmentation_id": f"s-{name}"}


def segment_ids(stream: SegmentStream) -> list[list[str]]:
    """Take the values that a stream has received, as the ids of their segments."""
    return [[each["id"] for each in value] for value in received(stream)]


class SegmentsFixture:
    """
    A client that uploads on request, and a sandbox that returns segments.

    Args:
        app: The application that runs the client.
        sandbox: The sandbox.
    """

    def __init__(self, app: App, sandbox: Sandbox) -> None:
        self.app = app
        self.sandbox = sandbox

    @property
    def client(self) -> Exponea:
        """The running client."""
        return self.app.client

    @property
    def service(self) -> Segments:
        """The client's instance of the feature."""
        return feature_of(self.client, Segments)

    def respond(self, **categories: Any) -> None:
        """Return these segments, by their names or whole, to every customer."""
        body = {
            category: [segment(each) if isinstance(each, str) else each for each in segments]
            for category, segments in categories.items()
        }
        self.sandbox.messages.set_response("segments", json.dumps(body))

    def fail(self, route: str, *, status: int = 500) -> None:
        """Make requests to a route fail."""
        self.sandbox.faults.add(Fault("status", status=status, paths=f"/{route}$"))

    def delay(self, seconds: float, *, times: int | None = None) -> None:
        """Delay the responses with segments."""
        self.sandbox.faults.add(Fault("latency", seconds=seconds, paths="/segments$", times=times))

    def recover(self) -> None:
        """Remove all faults."""
        self.sandbox.faults.clear()

    def requests(self) -> list[str]:
        """Return the requests about segments so far, ``"segments"`` or ``"link-ids"``, in order."""
        names = [request.path.rsplit("/", 1)[1] for request in self.sandbox.requests]
        return [name for name in names if name in ("segments", "link-ids")]

    @property
    def loads(self) -> int:
        """The number of requests for segments so far."""
        return self.requests().count("segments")

    async def request_arrived(self) -> None:
        """Wait until a request has arrived at the sandbox, which may delay the response."""
        before = self.sandbox.request_count
        await until(lambda: self.sandbox.request_count > before)

    async def load_is_delayed(self) -> None:
        """Wait until a load is delayed, because another trigger may follow."""
        await until(lambda: bool(running("segments, delayed load")))

    async def idle(self) -> None:
        """Wait until only tasks that wait for uploads are left."""
        await idle(self.client, timeout=60)

    async def upload(self) -> None:
        """Upload the queue, and wait for all that follows."""
        await self.client.flush_data()
        await idle(self.client, timeout=60)

    async def stream(self, category: str = "discovery", **options: Any) -> SegmentStream:
        """Return a stream after its first load."""
        stream = self.client.segmentation_data_stream(category, **options)
        # The device becomes active and begins a session, whose event is to be uploaded now, not with the next ones.
        await until(lambda: not running("segments, first load"))
        await self.upload()
        return stream

    async def track(self) -> None:
        """Track and upload an event, and wait for all that follows."""
        await self.client.track_event(Event("ping"))
        await self.upload()

    async def trigger(self) -> None:
        """Track and upload an event."""
        await self.client.track_event(Event("ping"))
        await self.client.flush_data()

    def evict_devices(self) -> None:
        """Remove all devices from memory, so that the next activity of a device is its first."""
        devices_of(self.client).clear()


@asynccontextmanager
async def started(app: App, sandbox: Sandbox, set_constants: SetConstants) -> AsyncIterator[SegmentsFixture]:
    """Start a client with short waits; closing it must leave no task of the feature."""
    set_constants(watcher, DEBOUNCE=DEBOUNCE)
    await app.start()
    try:
        yield SegmentsFixture(app, sandbox)
    finally:
        await app.aclose()
        await until(lambda: running("segments") == [])
