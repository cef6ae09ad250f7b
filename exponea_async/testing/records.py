"""
The records in the queue of a client, decoded, for tests that await and for those that can't.
"""

# ruff: noqa: SLF001 - this package reads the private attributes of a client, so that tests need not

import asyncio
from collections.abc import Coroutine, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Literal, TypeVar
from urllib.parse import urlsplit

from attrs import frozen

from exponea_async._lifecycle.lifecycle import Lifecycle
from exponea_async._pipeline.commands import project_of, read_command
from exponea_async.client import Exponea
from exponea_async.config import Configuration, is_pool
from exponea_async.errors import StorageError
from exponea_async.storage import create_storage, is_in_memory
from exponea_async.storage.base import DeadLetter, Storage, Waiting

T = TypeVar("T")

Kind = Literal["event", "customer", "click"]

#: Maximum number of records that are returned.
MAX_RECORDS = 1_000_000
#: How long the event loop of another thread may take to read the queue, and how often it is checked, in seconds.
READ_TIMEOUT, POLL_INTERVAL = 30.0, 0.1

_KINDS: Mapping[str, Kind] = {
    "customers/events": "event",
    "customers": "customer",
    "campaigns/clicks": "click",
}


@frozen
class StoredRecord:
    """
    An event, a customer update or a campaign click in the storage, as it is sent.

    Attributes:
        id: The record's id, one of `Receipt.ids`.
        kind: ``"event"``, ``"customer"`` or ``"click"``.
        route: The project and the endpoint that it is sent to, as in ``"shop/batch"``.
        data: The decoded data of the command.
        reason: Why it was rejected, for a dead letter; else an empty string.
    """

    id: str
    kind: Kind
    route: str
    data: Mapping[str, Any]
    reason: str = ""

    @property
    def name(self) -> str:
        """The event type; for a customer update or a click, its kind."""
        return str(self.data.get("event_type", self.kind))

    @property
    def project(self) -> str:
        """The token of the project."""
        return project_of(self.route)

    @property
    def customer_ids(self) -> dict[str, str]:
        """The ids of the customer."""
        return dict(self.data["customer_ids"])

    @property
    def properties(self) -> dict[str, Any]:
        """The properties, including those that the SDK adds."""
        return dict(self.data["properties"])

    @property
    def timestamp(self) -> float:
        """The time of the event or update, UNIX seconds."""
        return float(self.data["update_timestamp" if self.kind == "customer" else "timestamp"])


async def pending_records(client: Exponea, *names: str) -> list[StoredRecord]:
    """
    Return the records that wait for their upload, in the order in which they were recorded.

    Args:
        client: The client, started.
        names: The names to return, such as ``"purchase"`` or ``"customer"``; without any, all records.

    Raises:
        StorageError: The storage refused.
    """
    return _decoded(await client._components.storage.waiting(MAX_RECORDS), names)


async def dead_letters(client: Exponea, *names: str) -> list[StoredRecord]:
    """
    Return the records that were rejected for good, the newest first, each with its reason.

    Args:
        client: The client, started.
        names: The names to return; without any, all records.

    Raises:
        StorageError: The storage refused.
    """
    return _decoded(await client._components.storage.dead(MAX_RECORDS), names)


def life_of(client: Exponea) -> Lifecycle:
    """Return the life cycle of a client."""
    return client._lifecycle


def lives_on(url: str) -> list[Lifecycle]:
    """Return the life cycles of the clients of this process that are open and send to the server at a local URL."""
    server = _server(url)
    return [
        life
        for life in list(Lifecycle.running)
        if any(_server(project.base_url or "") == server for project in life.configuration.projects)
    ]


def _server(url: str) -> str:
    return urlsplit(url).netloc.replace("localhost", "127.0.0.1")


def read_queue(life: Lifecycle) -> tuple[list[StoredRecord], list[StoredRecord]]:
    """
    Return what waits in the queue of a client, and its dead letters, without awaiting.

    Raises:
        StorageError: The storage refused.
        TimeoutError: The client's event loop, which is that of another thread, does not respond.
    """
    waiting, dead = _read(life)
    return _decoded(waiting, ()), _decoded(reversed(dead), ())


def _read(life: Lifecycle) -> tuple[list[Waiting], list[DeadLetter]]:
    loop, storage = life.components.loop, life.components.storage
    if loop is not None and loop.is_running() and not _is_own(loop):
        return _read_in(loop, storage)
    if is_in_memory(life.configuration):
        return _result(_read_storage(storage))
    if is_pool(life.configuration.storage):
        raise StorageError(
            "A queue in PostgreSQL can't be read through a pool, whose event loop can't run now.",
            hint="Use the URL of the database in tests, or await pending_records().",
        )
    # The event loop of the client can't run while its thread is here, and so the queue is read through a connection of
    # another one.
    with ThreadPoolExecutor(1) as executor:
        return executor.submit(lambda: asyncio.run(_read_queue(life.configuration))).result(READ_TIMEOUT)


def _read_in(loop: asyncio.AbstractEventLoop, storage: Storage) -> tuple[list[Waiting], list[DeadLetter]]:
    """Read a storage in the event loop of another thread, which may end meanwhile."""
    reading = asyncio.run_coroutine_threadsafe(_read_storage(storage), loop)
    # Counted, not timed: a test may have stopped the clocks.
    for _ in range(round(READ_TIMEOUT / POLL_INTERVAL)):
        try:
            return reading.result(POLL_INTERVAL)
        except TimeoutError:
            if not loop.is_running():
                raise StorageError("The event loop of the client has ended.") from None
    raise TimeoutError(f"The event loop of the client did not respond within {READ_TIMEOUT:g} seconds.")


def _is_own(loop: asyncio.AbstractEventLoop) -> bool:
    try:
        return asyncio.get_running_loop() is loop
    except RuntimeError:
        return False


async def _read_storage(storage: Storage) -> tuple[list[Waiting], list[DeadLetter]]:
    return await storage.waiting(MAX_RECORDS), await storage.dead(MAX_RECORDS)


async def _read_queue(configuration: Configuration) -> tuple[list[Waiting], list[DeadLetter]]:
    storage = create_storage(configuration, lambda _: None)
    await storage.open()
    try:
        return await _read_storage(storage)
    finally:
        await storage.aclose()


def _result(coroutine: Coroutine[Any, Any, T]) -> T:
    """Return the result of a coroutine that never waits, as those that read a storage in memory."""
    try:
        coroutine.send(None)
    except StopIteration as done:
        return done.value  # type: ignore[no-any-return]
    coroutine.close()
    raise RuntimeError("A storage in memory had to wait.")


def _decoded(records: Iterable[Waiting | DeadLetter], names: tuple[str, ...]) -> list[StoredRecord]:
    decoded = [_decode(record) for record in records]
    return [record for record in decoded if not names or record.name in names]


def _decode(record: Waiting | DeadLetter) -> StoredRecord:
    command = read_command(record.body)
    reason = record.reason if isinstance(record, DeadLetter) else ""
    return StoredRecord(record.id, _KINDS[command["name"]], record.route, command["data"], reason)
