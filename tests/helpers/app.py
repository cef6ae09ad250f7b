"""
What the tests of a device's life share: a phone whose clock they turn.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

from attrs import frozen

from exponea_async import Exponea, Hooks
from exponea_async._pipeline.commands import read_command
from helpers.clients import Configure

#: What a device stands for in events about it, but for an ``app_version``.
DEVICE = {"sdk", "sdk_version", "os_name", "os_version", "device_type"}
STAMPS = {"application_id", "device_id"}


@frozen
class Kept:
    """
    A command that waits in the queue, as it will go over the wire.

    Attributes:
        route: Where it goes, without the host.
        data: What it says.
    """

    route: str
    data: Mapping[str, Any]

    @property
    def name(self) -> str:
        """Tell the event's type, ``"customer"`` for an update and ``"click"`` for a click of a campaign."""
        return str(self.data.get("event_type", "click" if "url" in self.data else "customer"))

    @property
    def at(self) -> float:
        """Tell its moment; those of one call differ by less than is told."""
        return round(float(self.data["timestamp" if "timestamp" in self.data else "update_timestamp"]), 3)

    @property
    def ids(self) -> dict[str, str]:
        """Tell the customer's ids."""
        return dict(self.data["customer_ids"])

    @property
    def project(self) -> str:
        """Tell its project's token."""
        return self.route.split("/projects/")[1].split("/")[0]

    @property
    def properties(self) -> dict[str, Any]:
        """Tell its properties."""
        return dict(self.data["properties"])

    @property
    def own(self) -> dict[str, Any]:
        """Tell its properties, but for the stamps and what stands for the device."""
        return {name: value for name, value in self.properties.items() if name not in DEVICE | STAMPS}


class Phone:
    """
    A client that is started, ended and started again on one queue, with a clock of its own.

    Args:
        configure: Makes the settings.

    Attributes:
        now: The clock, UNIX seconds.
        client: The client that runs now.
    """

    def __init__(self, configure: Configure) -> None:
        self.now = 1000.0
        self.client: Exponea
        self._configure = configure
        self._clients: list[Exponea] = []

    async def start(self, *, at: float | None = None, hooks: Hooks | None = None, **settings: Any) -> Exponea:
        """Start a client, beside those that run: what happens to them is as if they had been killed."""
        self.now = self.now if at is None else at
        self.client = self.make(hooks=hooks, **settings)
        await self.client.start()
        # The sweeper looks once at the start, and then when a test asks it to.
        await asyncio.sleep(0)
        return self.client

    def make(self, *, hooks: Hooks | None = None, **settings: Any) -> Exponea:
        """Make a client that is not started."""
        settings = {"flush_mode": "MANUAL", **settings}
        client = Exponea(self._configure(**settings), hooks=hooks, clock=lambda: self.now)
        self._clients.append(client)
        return client

    async def restart(self, *, at: float | None = None, **settings: Any) -> Exponea:
        """Close the client and start another one."""
        await self.client.aclose(timeout=0)
        return await self.start(at=at, **settings)

    async def expire(self, *, at: float | None = None) -> int:
        """Let the sweeper look."""
        self.now = self.now if at is None else at
        return await self.client._session_expirer.expire()

    async def kept(self, *names: str) -> list[Kept]:
        """Tell what waits in the queue, in order; all of it, or that of some types."""
        waiting = [
            Kept(record.route, read_command(record.body)["data"])
            for record in await self.client._storage.waiting(100_000)
        ]
        return [each for each in waiting if not names or each.name in names]

    async def told(self) -> list[tuple[str, float]]:
        """Tell what waits in the queue by type and moment."""
        return [(each.name, each.at) for each in await self.kept()]

    async def sessions(self) -> list[tuple[Any, ...]]:
        """Tell starts with their moments, and ends with moment and duration."""
        return [
            ("start", each.at) if each.name == "session_start" else ("end", each.at, each.own["duration"])
            for each in await self.kept("session_start", "session_end")
        ]

    async def new(self, act: Callable[[], Any], *names: str) -> list[Kept]:
        """Tell what an act adds to the queue."""
        before = len(await self.kept(*names))
        await act()
        return (await self.kept(*names))[before:]

    async def aclose(self) -> None:
        """Close all clients."""
        for client in self._clients:
            await client.aclose(timeout=0)


@asynccontextmanager
async def phone_in_hand(configure: Configure) -> AsyncIterator[Phone]:
    """Take a phone, and lay it down in the end."""
    phone = Phone(configure)
    try:
        yield phone
    finally:
        await phone.aclose()
