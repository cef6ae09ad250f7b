"""
Events in the application's own transaction: they exist exactly if it commits.
"""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

from exponea_async._pipeline.outbox import ROLLED_BACK, ROLLED_BACK_COUNT, OutboxRecorder
from exponea_async.devices.context import SubjectContext, UnboundContext
from exponea_async.devices.outbox import OutboxDevices, OutboxFeatures
from exponea_async.devices.store import DeviceHome, DeviceStore
from exponea_async.errors import ConfigurationError
from exponea_async.features.tracking import BulkVerbs
from exponea_async.storage.base import TransactionalStorage
from exponea_async.subjects import (
    DEFAULT_DEVICE,
    CustomerTracker,
    Device,
    DeviceVerbs,
    bound,
    check_device_key,
    subject_in,
)


class TransactionTracker(DeviceVerbs, BulkVerbs):
    """
    Tracks in a transaction of the application; what it tracks exists if the transaction commits.

    Its coroutines are those of the client, about the same current subject. Those that show or load messages, segments
    or content blocks raise a `LifecycleError`: they would keep the transaction open while they wait for the platform.
    Use ``async with exponea.transaction(connection) as tracked`` to get one.
    """

    __slots__ = ("_client", "_home")

    def __init__(self, client: object, home: DeviceHome) -> None:
        self._client = client
        self._home = home

    @property
    def _devices(self) -> DeviceStore:
        return self._home.devices

    @property
    def _context(self) -> SubjectContext:
        source = bound(self._client)
        if source is not None:
            context = subject_in(source.subject(), self._home)._context  # noqa: SLF001 - composed of the same classes
            properties = source.properties()
            return context.with_properties(properties) if properties else context
        devices = self._home.devices
        if devices.configuration.default_device:
            return Device(DEFAULT_DEVICE, self._home)._context  # noqa: SLF001 - see above
        return UnboundContext(devices.recorder, devices.api, devices.configuration)

    def device(self, key: str) -> Device:
        """
        Return the device with this key; what is tracked about it is part of the transaction.

        Raises:
            InvalidEventError: The key is not a non-empty string, or one of the client's own.
        """
        check_device_key(key)
        return Device(key, self._home)

    def for_customer(self, ids: Mapping[str, str]) -> CustomerTracker:
        """
        Return a tracker for the customer with these ids; what it tracks is part of the transaction.

        Raises:
            InvalidEventError: The ids are not a non-empty mapping of ids that the platform accepts. With
                ``Configuration(on_invalid="log")`` the events of the tracker are dropped instead.
        """
        return CustomerTracker(ids, self._home)

    def __repr__(self) -> str:
        return "<TransactionTracker>"


@asynccontextmanager
async def track_within(client: object, devices: DeviceStore, connection: object) -> AsyncIterator[TransactionTracker]:
    """
    Track in the transaction of the application on a connection.

    Args:
        client: The client, to which subjects are bound.
        devices: The devices of the client.
        connection: The connection of the application.

    Raises:
        ConfigurationError: The client's storage is not in PostgreSQL.
        LifecycleError: The client is not running, or the connection is not in a transaction.
        StorageError: It is not a connection to the database of the queue.
        TypeError: It is not a connection of a supported library.
    """
    if not isinstance(devices.storage, TransactionalStorage):
        trouble = "must be in PostgreSQL for transaction(), and is not"
        raise ConfigurationError("storage", trouble, "Use the URL of the application's own database.")
    recorder = devices.recorder
    if not recorder.check_running():
        # The integration is stopped, so everything is dropped.
        yield TransactionTracker(client, DeviceHome(devices))
        return

    def drop(ids: tuple[str, ...]) -> None:
        recorder.report_erased(ids, ROLLED_BACK, count=ROLLED_BACK_COUNT)

    storage = devices.storage.within(connection, drop)
    await storage.begin()
    features = OutboxFeatures(devices)
    own = OutboxRecorder(recorder, storage, features.publish)
    try:
        yield TransactionTracker(client, DeviceHome(OutboxDevices(devices, storage, own, features)))
    finally:
        own.end()
        storage.end()
