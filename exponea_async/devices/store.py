"""
Devices: what each remembers, in memory and in the storage, and how it is changed.
"""

import logging
from asyncio import Lock
from collections import OrderedDict
from collections.abc import Sequence
from uuid import uuid4
from weakref import WeakValueDictionary

from attrs import define

from exponea_async._internal.streams import Stream
from exponea_async.config import Configuration
from exponea_async.devices.context import Calls, Street, SubjectContext
from exponea_async.devices.customers import TrackedEvent
from exponea_async.devices.features import FeatureRegistry
from exponea_async.devices.state import DeviceState
from exponea_async.errors import StateConflictError, StorageError
from exponea_async.models import Draft, Identity, OpenedPush, ReceivedPush
from exponea_async.storage.base import StateCheck, Storage, replace_state

LOG = logging.getLogger("exponea_async")

#: Devices that are kept in memory, about 800 bytes each, so up to 80 MB; others are read again when they are active.
CAPACITY = 100_000
PREFIX = "device:"
NEVER = float("-inf")

Drafts = Sequence[tuple[Identity | None, Draft]]


@define(eq=False)
class CachedDevice:
    """
    One device in memory: what each event needs, and the rest packed as it is stored.

    Attributes:
        name: Under which key its state is stored.
        identity: Its identity, ready for the wire, or None while its state is not known.
        packed: What it remembers, but for its activity.
        version: The version of that; 0 while it is not known or not stored.
        last: Its last activity within an automatic session; far in the past where none is open.
        lost: What it remembered, where the storage has lost it.
        launched: Whether it has come to life since the client was made.
    """

    name: str
    identity: Identity | None = None
    packed: bytes = b""
    version: int = 0
    last: float = NEVER
    lost: bytes = b""
    launched: bool = False

    def empty(self) -> None:
        """Forget what may no longer be true."""
        self.packed, self.version, self.identity = b"", 0, None

    def state(self) -> DeviceState:
        """Unpack what it remembers; its last activity may be on its way to the storage still."""
        return decoded(self.name, self.packed, self.version, None if self.last == NEVER else self.last)

    def check(self, now: float | None) -> tuple[StateCheck]:
        """
        Make the condition that nobody has changed the state since.

        It rides on each write, so that this process never goes on under an identity that another one has replaced.
        With a moment it is a sign of life, too.
        """
        return (StateCheck(self.name, self.version, now),)


class Devices:
    """
    All devices: the latest used in memory, all in the storage.

    Args:
        storage: Where they are kept.
        recorder: Takes what they track.
        configuration: The settings.
        parts: What rooms keep for all subjects.
        calls: Asks the platform.

    Attributes:
        opened: Presses on push notifications, of all devices.
        received: Push notifications that came, of all devices.
        present: Those in front of somebody, whose sessions go on whether or not they track anything.
    """

    def __init__(
        self, storage: Storage, recorder: Street, configuration: Configuration, parts: FeatureRegistry, calls: Calls
    ) -> None:
        self.storage = storage
        self.recorder = recorder
        self.configuration = configuration
        self.features = parts
        self.calls = calls
        self.opened: Stream[OpenedPush] = Stream()
        self.received: Stream[ReceivedPush] = Stream()
        self.present: set[CachedDevice] = set()
        self._slots: OrderedDict[str, CachedDevice] = OrderedDict()
        # Only those in use, for hardly any device is ever changed by two at once.
        self._locks: WeakValueDictionary[str, Lock] = WeakValueDictionary()

    def slot(self, name: str) -> CachedDevice:
        """Find a device's place in memory; the one that was used longest ago makes room for a new one."""
        slot = self._slots.get(name)
        if slot is not None:
            self._slots.move_to_end(name)
            return slot
        slot = self._slots[name] = CachedDevice(name)
        if len(self._slots) > CAPACITY:
            self.present.discard(self._slots.popitem(last=False)[1])
        return slot

    def peek(self, name: str) -> CachedDevice | None:
        """Find a device's place in memory, where it has one."""
        return self._slots.get(name)

    def lock(self, name: str) -> Lock:
        """Find the lock to hold while a device's state is read or changed; to be held on to meanwhile."""
        lock = self._locks.get(name)
        if lock is None:
            lock = self._locks[name] = Lock()
        return lock

    def forget_all(self) -> None:
        """Keep nothing in memory."""
        for slot in self._slots.values():
            slot.empty()
            slot.lost = b""
        self._slots.clear()
        self.present.clear()

    def end_streams(self) -> None:
        """Let whoever listens go."""
        self.opened.close()
        self.received.close()

    def rescue(self) -> None:
        """The storage has lost all states: those in memory are to be stored again."""
        for slot in self._slots.values():
            slot.lost = slot.packed or slot.lost
            slot.empty()

    def fill(self, slot: CachedDevice, state: DeviceState, packed: bytes) -> None:
        """Put a stored state into a slot."""
        slot.packed, slot.version, slot.lost, slot.identity = packed, state.version, b"", self.identity(state)
        # Somebody may have been active while it was written or read.
        slot.last = NEVER if state.last_activity is None else max(slot.last, state.last_activity)

    def identity(self, state: DeviceState) -> Identity:
        """Make a device's identity ready for the wire."""
        moved = state.project is not None or state.mapping is not None
        routes = self.recorder.routes(state.project, state.mapping) if moved else None
        return self.recorder.identity(state.customer_ids, state.device_id, routes)

    async def load(self, slot: CachedDevice) -> DeviceState | None:
        """
        Read a device's state. To be called under its lock.

        Returns:
            The state, which for a new device is not stored yet; or None where the integration was stopped.
        """
        if slot.identity is None and self.recorder.check_running():
            stored = await self.storage.load_state(slot.name)
            if stored is None:
                return self._born(slot) if self.recorder.check_running() else None
            state = decoded(slot.name, stored.value, stored.version, stored.active)
            self.fill(slot, state, stored.value)
        return slot.state() if slot.identity is not None and self.recorder.check_running() else None

    async def touch(self, slot: CachedDevice, now: float) -> None:
        """Say that a device is active now, within the session that it is known to have."""
        if slot.identity is None or slot.last == NEVER:
            return
        try:
            await self.storage.write((), slot.check(now))
        except StateConflictError:
            slot.empty()
        else:
            slot.last = max(slot.last, now)

    def tell(self, context: SubjectContext, heard: TrackedEvent) -> None:
        """Let the rooms that listen hear of something."""
        self.features.heard(context, heard)
        self.recorder.has_subscribers = self.features.is_listening

    async def load_beside(self, name: str) -> bytes | None:
        """Read what is kept for a device beside its state."""
        stored = await self.storage.load_state(name)
        return stored.value if stored is not None else None

    async def save_beside(self, name: str, value: bytes | None) -> None:
        """
        Keep something for a device beside its state, or forget it; whoever comes last is right.

        Raises:
            StorageError: The storage refused.
        """
        await replace_state(self.storage, name, value)

    def _born(self, slot: CachedDevice) -> DeviceState:
        if slot.lost:
            return decoded(slot.name, slot.lost, 0, None if slot.last == NEVER else slot.last)
        return DeviceState(cookie=str(uuid4()), device_id=str(uuid4()), is_new=True)


def decoded(name: str, value: bytes, version: int, last_activity: float | None) -> DeviceState:
    """
    Read a stored state.

    Raises:
        StorageError: It can't be read.
    """
    try:
        return DeviceState.decode(value, version=version, last_activity=last_activity)
    except ValueError as error:
        raise StorageError(f"The stored state {name!r} can't be read: {error}.") from error
