"""
Functions for tests of applications that use this package.

They work with a real client, for example one with the storage ``"memory:"`` and the base URL of a
`exponea_async.sandbox.Sandbox`. To control the time of events, pass ``clock=`` to the client::

    async with Sandbox() as sandbox:
        settings = Configuration(
            project_token="shop", authorization_token="key", base_url=sandbox.url, storage="memory:"
        )
        async with Exponea(settings, clock=lambda: 1000.0) as exponea:
            await exponea.track_event(Event("purchase"))  # what the application does
            await idle(exponea)
            assert sandbox.engine.events(event_type="purchase")
"""

# ruff: noqa: SLF001 - the only module that reads the private attributes of a client, so that tests need not

import asyncio
from collections.abc import Iterable, Mapping
from typing import Any, Literal, TypeVar

from attrs import frozen

from exponea_async._internal.streams import Subscription
from exponea_async._pipeline.commands import project_of, read_command
from exponea_async.client import Exponea
from exponea_async.storage.base import DeadLetter, Waiting

T = TypeVar("T")

#: Passes of the event loop without work after which a client counts as idle. A callback that a finished task has
#: scheduled, for example a receipt's, starts the next task within a few passes.
QUIET_PASSES = 5
#: How often unfinished tasks are checked, in seconds.
POLL_INTERVAL = 0.01
#: Maximum number of records that are returned.
MAX_RECORDS = 1_000_000


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
    kind: Literal["event", "customer", "click"]
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


async def idle(client: Exponea, *, timeout: float = 10.0) -> None:  # noqa: ASYNC109 - as asyncio.wait has it
    """
    Wait until nothing is under way that a client does by itself.

    That is: uploads that are due in the present flush mode, their receipts and listeners, and background work such as
    loading and showing messages. Not waited for is what cannot happen now: the upload of records in
    `FlushMode.MANUAL`, or to a project that is unavailable or paused, and work that waits for such an upload.

    Args:
        client: The client, started.
        timeout: Maximum wait in seconds.

    Raises:
        TimeoutError: The client was still busy after the timeout; the message names the work under way.
        StorageError: The storage refused.
    """
    try:
        async with asyncio.timeout(timeout):
            passes = 0
            while passes < QUIET_PASSES:
                passes = 0 if await _work(client) else passes + 1
                await asyncio.sleep(0)
    except TimeoutError:
        names = sorted(task.get_name() for task in client._components.features.active_tasks())
        trouble = f"The client was not idle after {timeout:g} seconds: {', '.join(names) or 'uploads are under way'}."
        raise TimeoutError(trouble) from None


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


async def end_idle_sessions(client: Exponea) -> int:
    """
    End the sessions that have been idle for the session timeout by the client's clock, each at its last activity.

    A running client does so about once a second.

    Args:
        client: The client, started.

    Returns:
        The number of sessions that were ended.

    Raises:
        StorageError: The storage refused.
    """
    return await client._components.session_expirer.expire()


def received(subscription: Subscription[T]) -> list[T]:
    """Return what a subscription has received and not yielded yet, without waiting; it does not yield that again."""
    values = list(subscription._pending)
    subscription._pending.clear()
    return values


async def _work(client: Exponea) -> bool:
    """Wait for what is under way; return whether there was anything."""
    upload = client._components.upload
    if upload is not None:
        await upload.flusher.wait_idle()
    tasks = client._components.features.active_tasks()
    if tasks:
        # A task may go dormant instead of ending.
        await asyncio.wait(tasks, timeout=POLL_INTERVAL)
    return bool(tasks)


def _decoded(records: Iterable[Waiting | DeadLetter], names: tuple[str, ...]) -> list[StoredRecord]:
    decoded = [_decode(record) for record in records]
    return [record for record in decoded if not names or record.name in names]


def _decode(record: Waiting | DeadLetter) -> StoredRecord:
    command = read_command(record.body)
    kinds: Mapping[str, Literal["event", "customer", "click"]] = {
        "customers/events": "event",
        "customers": "customer",
        "campaigns/clicks": "click",
    }
    reason = record.reason if isinstance(record, DeadLetter) else ""
    return StoredRecord(record.id, kinds[command["name"]], record.route, command["data"], reason)
