"""
Access to the inside of a client, for tests of parts that have no public name; no other module of the tests needs it.
"""

import asyncio
import threading
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from exponea_async import CustomerTracker, Device, Exponea
from exponea_async._pipeline.receipts import Receipts
from exponea_async.devices.context import SubjectContext
from exponea_async.devices.device_context import DeviceContext
from exponea_async.devices.features import Feature, FeatureRegistry
from exponea_async.devices.store import DeviceStore
from exponea_async.storage.sqlite.storage import SQLiteStorage
from exponea_async.subjects import DEFAULT_DEVICE

F = TypeVar("F", bound=Feature)


def context_of(subject: Exponea | Device | CustomerTracker) -> SubjectContext:
    """Return the context of a subject, or of a client's current subject."""
    return subject._context


def device_context(client: Exponea, key: str = DEFAULT_DEVICE) -> DeviceContext:
    """Return the context of a device."""
    device = client._default if key == DEFAULT_DEVICE else client.device(key)
    return device._device_context


def features_of(client: Exponea) -> FeatureRegistry:
    """Return the features of a client."""
    return client._components.features


def feature_of(client: Exponea, kind: type[F]) -> F:
    """Return a client's instance of a feature."""
    return client._components.features[kind]


def devices_of(client: Exponea) -> DeviceStore:
    """Return the devices of a client."""
    return client._devices


def before_storage_call(client: Exponea, operation: str, action: Callable[[], Awaitable[object]]) -> None:
    """Await an action before each call of one of the operations of a client's storage."""
    storage = client._components.storage
    call = getattr(storage, operation)

    async def intercepted(*arguments: Any, **options: Any) -> Any:
        await action()
        return await call(*arguments, **options)

    setattr(storage, operation, intercepted)


def disable_session_expirer(client: Exponea) -> None:
    """Let idle sessions end only with the next activity of their device; to be called before the client is started."""
    client._components.session_expirer._run = asyncio.Event().wait  # type: ignore[method-assign, assignment]


async def run_statements(client: Exponea, *statements: str) -> None:
    """Run SQL statements on the connection that a client has to its file."""
    storage = client._components.storage
    assert isinstance(storage, SQLiteStorage)
    for statement in statements:
        await storage.run(lambda connection, sql=statement: connection.execute(sql).fetchall())  # type: ignore[misc]


def receipts_of(client: Exponea) -> Receipts:
    """Return the receipts of a client."""
    return client._components.receipts


def held_records(client: Exponea) -> int:
    """Return the number of records whose receipts are referenced and have no verdict."""
    return len(client._components.receipts)


def occupy_storage(client: Exponea, is_over: threading.Event) -> "asyncio.Future[bool]":
    """Keep the thread of a client's file busy until an event is set; calls that are made afterwards wait for it."""
    storage = client._components.storage
    assert isinstance(storage, SQLiteStorage)
    return asyncio.ensure_future(storage.run(lambda _: is_over.wait(60)))
