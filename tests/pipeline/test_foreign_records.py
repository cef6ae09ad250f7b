"""
Records that another process has written, and that the storage reports.
"""

import time
from collections.abc import Callable

import pytest
from helpers.clients import PROJECT, Connect
from helpers.environment import SetConstants
from helpers.waiting import until

from exponea_async._lifecycle import lifecycle
from exponea_async._pipeline import uploader
from exponea_async._pipeline.commands import event_command, route_of
from exponea_async.sandbox import Sandbox
from exponea_async.storage.base import Record
from exponea_async.storage.memory import MemoryStorage


class SharedStorage(MemoryStorage):
    """A storage whose records another process writes, too."""

    def __init__(self) -> None:
        super().__init__()
        self.callback: Callable[[], None] = lambda: None

    def subscribe(self, callback: Callable[[], None]) -> None:
        self.callback = callback

    async def write_as_another(self) -> None:
        """Write an event as another process does."""
        command = event_command(b'{"registered":"jane"}', b'"ping"', 1.0, b"")
        await self.write([Record(route_of(PROJECT), command, time.time())])
        self.callback()


async def test_records_of_another_process_are_sent_at_once(
    connect: Connect, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch, set_constants: SetConstants
) -> None:
    """The upload looks at the queue when the storage says so, however seldom it does by itself."""
    set_constants(uploader, IDLE_INTERVAL=3600.0)
    storage = SharedStorage()
    monkeypatch.setattr(lifecycle, "create_storage", lambda *_: storage)
    client = await connect(storage="memory:")
    for count in (1, 2):
        await storage.write_as_another()
        await until(lambda count=count: client.stats().delivered == count)  # type: ignore[misc]

    assert sandbox.request_count == 2
