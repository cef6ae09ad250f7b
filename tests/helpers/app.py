"""
An application that starts, closes and restarts its client, with a clock that the test sets.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from attrs import frozen

from exponea_async import Exponea, Hooks
from exponea_async.testing import StoredRecord, end_idle_sessions, pending_records
from helpers.clients import Configure

#: The properties that describe a device, besides ``app_version``.
DEVICE = {"sdk", "sdk_version", "os_name", "os_version", "device_type"}
#: The properties that are added to every event.
STAMPS = {"application_id", "device_id"}


@frozen
class PendingRecord(StoredRecord):
    """A record in the queue."""

    @property
    def at(self) -> float:
        """The time in milliseconds' precision: the times of events of one call differ by less."""
        return round(self.timestamp, 3)

    @property
    def ids(self) -> dict[str, str]:
        """The ids of the customer."""
        return self.customer_ids

    @property
    def own(self) -> dict[str, Any]:
        """The properties without those that are added to every event and those that describe the device."""
        return {name: value for name, value in self.properties.items() if name not in DEVICE | STAMPS}


class App:
    """
    An application with one queue, whose clients are started one after the other or side by side.

    Args:
        configure: Returns the configuration of its clients.

    Attributes:
        now: The clock, UNIX seconds.
        client: The client that was started last.
    """

    def __init__(self, configure: Configure) -> None:
        self.now = 1000.0
        self.client: Exponea
        self._configure = configure
        self._clients: list[Exponea] = []

    async def start(self, *, at: float | None = None, hooks: Hooks | None = None, **settings: Any) -> Exponea:
        """Start a client. Those that run already are left alone, as if their processes had been killed."""
        self.now = self.now if at is None else at
        self.client = self.make(hooks=hooks, **settings)
        await self.client.start()
        # Idle sessions are ended once at the start, and then only by `expire`.
        await asyncio.sleep(0)
        return self.client

    def make(self, *, hooks: Hooks | None = None, **settings: Any) -> Exponea:
        """Return a client that is not started."""
        settings = {"flush_mode": "MANUAL", **settings}
        client = Exponea(self._configure(**settings), hooks=hooks, clock=lambda: self.now)
        self._clients.append(client)
        return client

    async def restart(self, *, at: float | None = None, **settings: Any) -> Exponea:
        """Close the client and start another one."""
        await self.client.aclose(timeout=0)
        return await self.start(at=at, **settings)

    async def expire(self, *, at: float | None = None) -> int:
        """End idle sessions, and return their number."""
        self.now = self.now if at is None else at
        return await end_idle_sessions(self.client)

    async def pending(self, *names: str) -> list[PendingRecord]:
        """Return the records in the queue, in order; all, or those with some names."""
        records = await pending_records(self.client, *names)
        return [PendingRecord(each.id, each.kind, each.route, each.data) for each in records]

    async def names(self) -> list[str]:
        """Return the names of the records in the queue, in order."""
        return [each.name for each in await self.pending()]

    async def sessions(self) -> list[tuple[Any, ...]]:
        """Return the starts of sessions with their times, and the ends with their times and durations."""
        return [
            ("start", each.at) if each.name == "session_start" else ("end", each.at, each.own["duration"])
            for each in await self.pending("session_start", "session_end")
        ]

    async def new(self, act: Callable[[], Awaitable[Any]], *names: str) -> list[PendingRecord]:
        """Call a function, and return the records that it adds to the queue."""
        before = len(await self.pending(*names))
        await act()
        return (await self.pending(*names))[before:]

    async def aclose(self) -> None:
        """Close all clients."""
        for client in self._clients:
            await client.aclose(timeout=0)
