"""
Clients of the sandbox: their settings, the events they track and what they deliver.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Protocol

from exponea_async import Configuration, DeliveryEvent, Event, Exponea, Hooks
from exponea_async.storage import create_storage
from exponea_async.storage.base import Storage
from exponea_async.testing import pending_records

PROJECT = "shop"
#: A customer about whom nothing is tracked except what a test tracks.
SOMEONE = {"registered": "someone"}


class Configure(Protocol):
    """Returns the configuration of a client of the sandbox; all clients of a test share one queue."""

    def __call__(self, **settings: Any) -> Configuration: ...


class Connect(Protocol):
    """
    Starts a client of the sandbox. After the test it is closed without an upload.

    A customer is bound to it; with `device` nothing is bound, and its verbs are about the default device, which also
    tracks its installation and session.
    """

    async def __call__(self, *, hooks: Hooks | None = None, device: bool = False, **settings: Any) -> Exponea: ...


def numbered_events(count: int, start: int = 0) -> list[Event]:
    """Return events with consecutive numbers as a property."""
    return [Event("ping", {"number": number}) for number in range(start, start + count)]


class DeliveryLog(list[DeliveryEvent]):
    """A delivery listener that keeps the events it is notified of."""

    def __call__(self, event: DeliveryEvent) -> None:
        """Keep an event."""
        self.append(event)

    def kinds(self) -> list[str]:
        """Return the kinds of the events, in order."""
        return [event.kind for event in self]


async def pending_data(client: Exponea) -> list[dict[str, Any]]:
    """Return the data of the records in a client's queue, in order, as it will be sent."""
    return [dict(record.data) for record in await pending_records(client)]


@asynccontextmanager
async def opened_queue(client: Exponea) -> AsyncIterator[Storage]:
    """Open the queue of a client from outside of it, as the command line does."""
    storage = create_storage(client.configuration, lambda _: None)
    await storage.open()
    try:
        yield storage
    finally:
        await storage.aclose()
