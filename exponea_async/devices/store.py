"""
Devices in memory and in the storage.
"""

import logging
from collections import OrderedDict
from collections.abc import Mapping
from contextlib import suppress
from uuid import uuid4

from exponea_async._internal.concurrency import KeyedLocks
from exponea_async._internal.conformity import misfit
from exponea_async._internal.streams import Stream
from exponea_async._pipeline.api import ApiClient
from exponea_async._pipeline.recorder import EventRecorder
from exponea_async.config import Configuration
from exponea_async.devices.features import FeatureRegistry
from exponea_async.devices.state import DeviceState
from exponea_async.devices.withdrawals import DAMAGED, DEVICE_PREFIX, WITHDRAWN, WITHDRAWN_COUNT, Withdrawals
from exponea_async.errors import StateConflictError, StorageError
from exponea_async.models import Identity, OpenedPush, Receipt, ReceivedPush
from exponea_async.storage.base import State, StateChange, StateCheck, Storage, replace_state

LOG = logging.getLogger("exponea_async")

#: Devices that are cached in memory, at about 800 bytes each, so up to 80 MB; others are loaded when they are active.
CAPACITY = 100_000
NEVER = float("-inf")


class CachedDevice:
    """
    A device in memory: what each event needs, and the rest encoded as it is stored.

    Attributes:
        name: The storage key of its state.
        identity: Its identity, encoded for the wire; None while its state is not known.
        encoded: Its state as it is stored, without the last activity.
        version: The version of the state; 0 while it is not known or not stored.
        last_activity: Its last activity within an automatic session; `NEVER` where none is open.
        lost: Its encoded state, where the storage has lost it.
        launched: Whether it was active since the client was created.
    """

    __slots__ = ("__weakref__", "encoded", "identity", "last_activity", "launched", "lost", "name", "version")

    def __init__(self, name: str, *, launched: bool = False) -> None:
        self.name = name
        self.identity: Identity | None = None
        self.encoded = b""
        self.version = 0
        self.last_activity = NEVER
        self.lost = b""
        self.launched = launched

    def invalidate(self) -> None:
        """Discard what may no longer be true, so that it is loaded again."""
        self.encoded, self.version, self.identity = b"", 0, None

    def state(self) -> DeviceState:
        """Decode its state; the last activity may not be written to the storage yet."""
        return decode_state(self.name, self.encoded, self.version, self._activity)

    def lost_state(self) -> DeviceState:
        """Decode the state that the storage has lost, to be stored again."""
        return decode_state(self.name, self.lost, 0, self._activity)

    @property
    def _activity(self) -> float | None:
        return None if self.last_activity == NEVER else self.last_activity

    def check(self, active_at: float | None) -> tuple[StateCheck]:
        """
        Return the condition that no other caller has changed the state.

        It is part of each write, so that this process never continues under an identity that another process has
        replaced. With a timestamp it records activity, too.
        """
        return (StateCheck(self.name, self.version, active_at),)


class DeviceStore:
    """
    All devices: those used last in memory, all in the storage.

    Args:
        storage: The storage.
        recorder: Records their events.
        configuration: The settings.
        features: The features of the client.
        api: Sends requests to the platform.

    Attributes:
        opened: Push notifications that were opened, of all devices.
        received: Push notifications that were received, of all devices.
        withdrawals: The end users of whom nothing is tracked.
        foreground: The devices whose application is in the foreground; their sessions go on without events.
        locks: The lock to hold while a device's state is loaded or changed, by its storage key.
    """

    def __init__(
        self,
        storage: Storage,
        recorder: EventRecorder,
        configuration: Configuration,
        features: FeatureRegistry,
        api: ApiClient,
    ) -> None:
        self.storage = storage
        self.recorder = recorder
        self.configuration = configuration
        self.features = features
        self.api = api
        self.withdrawals = Withdrawals(storage)
        recorder.is_withdrawn = self.withdrawals.includes_customer
        self.opened: Stream[OpenedPush] = Stream()
        self.received: Stream[ReceivedPush] = Stream()
        self.foreground: set[CachedDevice] = set()
        self.locks: KeyedLocks[str] = KeyedLocks()
        self._cached: OrderedDict[str, CachedDevice] = OrderedDict()

    # In memory

    def cached(self, name: str) -> CachedDevice:
        """Return a device's entry in memory; a new entry replaces the one that was used longest ago."""
        device = self._cached.get(name)
        if device is not None:
            self._cached.move_to_end(name)
            return device
        device = self._cached[name] = CachedDevice(name)
        if len(self._cached) > CAPACITY:
            self.foreground.discard(self._cached.popitem(last=False)[1])
        return device

    def peek(self, name: str) -> CachedDevice | None:
        """Return a device's entry in memory if there is one."""
        return self._cached.get(name)

    def cache(self, device: CachedDevice, state: DeviceState, encoded: bytes) -> None:
        """Put a stored state into a device's entry in memory."""
        device.encoded, device.version, device.lost = encoded, state.version, b""
        device.identity = self.identity(state)
        # The device may have been active while its state was written or loaded.
        last = state.last_activity
        device.last_activity = NEVER if last is None else max(device.last_activity, last)

    def clear(self) -> None:
        """Forget all devices in memory."""
        for device in self._cached.values():
            device.invalidate()
            device.lost = b""
        self._cached.clear()
        self.foreground.clear()

    def rescue(self) -> None:
        """Keep the states in memory to store them again: the storage has lost all of them."""
        for device in self._cached.values():
            device.lost = device.encoded or device.lost
            device.invalidate()

    def end_streams(self) -> None:
        """End the streams of push notifications."""
        self.opened.close()
        self.received.close()

    # End users who have withdrawn their consent

    async def withdraw_device(self, key: str) -> int:
        """
        Erase everything of a device, and drop what follows.

        Returns:
            The number of records that were waiting.

        Raises:
            StorageError: The storage refused; nothing was erased.
        """
        name = DEVICE_PREFIX + key
        async with self.locks.for_key(name):
            device = self.cached(name)
            state = await self.load(device)
            erased = await self.withdrawals.withdraw_device(key, None if state is None or state.is_new else state)
            self._forget(device)
        self.recorder.report_erased(erased.records, WITHDRAWN, count=WITHDRAWN_COUNT)
        return len(erased.records)

    async def withdraw_customer(self, ids: Mapping[str, str]) -> tuple[int, set[str]]:
        """
        Erase everything of a customer who has any of these ids, and drop what follows.

        Returns:
            The number of records that were waiting, and the keys of the devices in memory that were erased.

        Raises:
            StorageError: The storage refused, and the rest was not erased.
        """
        count, keys = 0, set()
        # A second time, for what callers were just about to write when the first one began.
        for _ in range(2):
            erased = await self.withdrawals.withdraw_customer(ids)
            for name in erased.states:
                if (device := self.peek(name)) is not None:
                    self._forget(device)
                    keys.add(name.removeprefix(DEVICE_PREFIX))
            self.recorder.report_erased(erased.records, WITHDRAWN, count=WITHDRAWN_COUNT)
            count += len(erased.records)
        return count, keys

    def _forget(self, device: CachedDevice) -> None:
        device.invalidate()
        device.lost = b""
        device.last_activity = NEVER
        self.foreground.discard(device)
        self._cached.pop(device.name, None)

    def dropped(self, device: CachedDevice) -> Receipt:
        """Return the receipt of an event of a device that was not loaded."""
        if self.withdrawals.includes_device(device.name.removeprefix(DEVICE_PREFIX)):
            return self.recorder.dropped(WITHDRAWN, count=WITHDRAWN_COUNT)
        return self.recorder.dropped()

    # Identities

    def identity(self, state: DeviceState) -> Identity:
        """Encode a device's identity for the wire."""
        return self.identity_of(state, state.customer_ids)

    def identity_of(self, state: DeviceState, ids: dict[str, str]) -> Identity:
        """Encode the identity of a customer with these ids on a device."""
        routes = self.recorder.routes(state.project, state.mapping) if state.is_switched else None
        return self.recorder.identity(ids, state.device_id, routes)

    # In the storage

    async def load(self, device: CachedDevice) -> DeviceState | None:
        """
        Return a device's state, loaded if it is not in memory. The caller must hold the device's lock.

        Returns:
            The state, which is not stored yet for a new device; None where the integration was stopped.
        """
        if device.identity is None and self.recorder.check_running():
            stored = await self.storage.load_state(device.name)
            if stored is None:
                if await self._is_erased(device):
                    return None
                return self._created(device) if self.recorder.check_running() else None
            try:
                state = decode_stored(device.name, stored)
            except StorageError as error:
                await self.set_aside(device.name, stored, error)
                return self._created(device) if self.recorder.check_running() else None
            self.cache(device, state, stored.value)
        return device.state() if device.identity is not None and self.recorder.check_running() else None

    async def _is_erased(self, device: CachedDevice) -> bool:
        """Return whether a device that is not stored was erased, by this process or another one."""
        try:
            await self.withdrawals.refresh()
        except StorageError:
            # The storage may be closed because the client is closed or stopped.
            if self.recorder.check_running():
                raise
        return self.withdrawals.includes_device(device.name.removeprefix(DEVICE_PREFIX))

    def _created(self, device: CachedDevice) -> DeviceState:
        if device.lost:
            return device.lost_state()
        return DeviceState(cookie=str(uuid4()), device_id=str(uuid4()), is_new=True)

    async def set_aside(self, name: str, stored: State, error: StorageError) -> None:
        """
        Move a stored state that can't be used to a key of its own, so that the device starts afresh.

        Raises:
            StorageError: The storage refused.
        """
        aside = f"{DAMAGED}{name}"
        before = await self.storage.load_state(aside)
        changes = (
            StateChange(aside, stored.value, before.version if before else 0),
            StateChange(name, None, stored.version),
        )
        # Another caller or process may have been first.
        with suppress(StateConflictError):
            await self.storage.write((), changes)
            LOG.error("%s It is set aside as %r, and the device starts afresh.", error, aside)
            self.recorder.report_damage(error)

    async def write_activity(self, device: CachedDevice, now: float) -> None:
        """Write down that a device is active now, within its known session."""
        if device.identity is None or device.last_activity == NEVER:
            return
        try:
            await self.storage.write((), device.check(now))
        except StateConflictError:
            device.invalidate()
        else:
            device.last_activity = max(device.last_activity, now)

    async def load_data(self, name: str) -> bytes | None:
        """Return the data that is stored beside a device's state."""
        stored = await self.storage.load_state(name)
        return stored.value if stored is not None else None

    async def save_data(self, name: str, data: bytes | None) -> None:
        """
        Store data beside a device's state, or delete it with None; the last write wins.

        Raises:
            StorageError: The storage refused.
        """
        await replace_state(self.storage, name, data)


def decode_stored(name: str, stored: State) -> DeviceState:
    """
    Decode a state as it is stored, and check that each of its values has the type that it must have.

    Raises:
        StorageError: It is not what this package stores.
    """
    state = decode_state(name, stored.value, stored.version, stored.active)
    if (wrong := misfit(state)) is not None:
        raise StorageError(f"The stored state {name!r} can't be used: its field {wrong!r} has another type.")
    return state


class DeviceHome:
    """
    The devices of a client, which are replaced where the client begins anew; the subjects outlive them.

    Attributes:
        devices: The present ones.
    """

    __slots__ = ("devices",)

    def __init__(self, devices: DeviceStore) -> None:
        self.devices = devices


def decode_state(name: str, value: bytes, version: int, last_activity: float | None) -> DeviceState:
    """
    Decode a stored state.

    Raises:
        StorageError: It can't be decoded.
    """
    try:
        return DeviceState.decode(value, version=version, last_activity=last_activity)
    except ValueError as error:
        raise StorageError(f"The stored state {name!r} can't be decoded: {error}.") from error
