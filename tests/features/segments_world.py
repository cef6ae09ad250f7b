"""
What the tests of segments share: a device whose waits are short, and a platform that can be asked about it.
"""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from helpers.app import Phone
from helpers.waiting import until

from exponea_async import Event, Exponea
from exponea_async.features.segments import watcher as _segments_device
from exponea_async.features.segments.verbs import Segments
from exponea_async.sandbox import Fault, Sandbox

#: Long enough for what happens at once to be within it, and short enough to be waited for.
DEBOUNCE = 0.2
WAITING = "waiting for uploads"

Listener = _segments_device.SegmentListener


def segment(name: str) -> dict[str, str]:
    """Make a segment."""
    return {"id": name, "segmentation_id": f"s-{name}"}


class World:
    """A device of a client that uploads only when it is told to, and the platform."""

    def __init__(self, phone: Phone, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
        self.phone = phone
        self.sandbox = sandbox
        self.monkeypatch = monkeypatch

    @property
    def client(self) -> Exponea:
        return self.phone.client

    @property
    def part(self) -> Segments:
        return self.client._features[Segments]

    def answer(self, **categories: Any) -> None:
        """Let the platform tell everybody these segments, by their names or as they are."""
        told = {
            category: [segment(each) if isinstance(each, str) else each for each in names]
            for category, names in categories.items()
        }
        self.sandbox.messages.set_response("segments", json.dumps(told))

    def fail(self, route: str, *, status: int = 500) -> None:
        """Let the platform fail."""
        self.sandbox.faults.add(Fault("status", status=status, paths=f"/{route}$"))

    def recover(self) -> None:
        """Let the platform work again."""
        self.sandbox.faults.clear()

    def asked(self) -> list[str]:
        """Tell in order what the platform was asked about segments."""
        names = [request.path.rsplit("/", 1)[1] for request in self.sandbox.requests]
        return [name for name in names if name in ("segments", "link-ids")]

    @property
    def loads(self) -> int:
        """Tell how often the platform was asked for segments."""
        return self.asked().count("segments")

    async def quiet(self) -> None:
        """Wait until nothing goes on in the background but waiting for uploads."""
        await until(lambda: all(WAITING in task.get_name() for task in self.part._tasks._tasks))

    async def upload(self) -> None:
        """Upload what waits, and wait until nothing goes on in the background."""
        await self.client.flush_data()
        await until(lambda: not self.part._tasks._tasks)

    async def listen(self, category: str = "discovery", **options: Any) -> Listener:
        """Listen, with what comes of it done."""
        stream = await self.client.segmentation_data_stream(category, **options)
        await self.upload()
        assert isinstance(stream, Listener)
        return stream

    async def track(self) -> None:
        """Track an event and have it uploaded, with what comes of it done."""
        await self.client.track_event(Event("ping"))
        await self.upload()


def held(stream: Listener) -> list[list[str]]:
    """Take from a stream what it has to tell now, by the ids of the segments."""
    told = [[each["id"] for each in value] for value in stream._pending]
    stream._pending.clear()
    return told


@asynccontextmanager
async def world_of(phone: Phone, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[World]:
    """Start a client with a device that waits shortly."""
    monkeypatch.setattr(_segments_device, "DEBOUNCE", DEBOUNCE)
    world = World(phone, sandbox, monkeypatch)
    await phone.start()
    try:
        yield world
    finally:
        await phone.aclose()
        left = [task.get_name() for task in asyncio.all_tasks() if "segments" in task.get_name()]
        assert left == [], "closing leaves no task"
