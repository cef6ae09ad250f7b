"""
Whose event is it? A device remembers who it is; a customer tracker is told, and remembers nothing.
"""

import asyncio
import json
import logging
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from types import MappingProxyType
from uuid import uuid4

from attrs import define, evolve, field, frozen

from exponea_async.errors import InvalidEventError, StateConflictError, StorageError
from exponea_async.features._ids import COOKIE, read_ids
from exponea_async.features._scope import Scope, Street
from exponea_async.features.identity import IdentityVerbs
from exponea_async.features.tracking import TrackingVerbs
from exponea_async.models import Draft, Identity, Receipt
from exponea_async.storage.base import StateChange, StateCheck, Storage

LOG = logging.getLogger("exponea_async")

#: The key of the device that `Exponea`'s verbs are about when nothing is bound.
DEFAULT_DEVICE = "default"
#: Devices whose state is kept in memory; that of others is read again when they are active.
CAPACITY = 10_000

Drafts = Sequence[tuple[Identity | None, Draft]]


@frozen
class DeviceState:
    """
    What a device remembers.

    Attributes:
        cookie: Its soft id.
        ids: The customer's other ids.
        device_id: Its own id, an event property.
        version: How often it has changed; 0 while it is not stored.
    """

    cookie: str
    ids: Mapping[str, str]
    device_id: str
    version: int = 0

    def encode(self) -> bytes:
        """Make the bytes to store."""
        return json.dumps({"cookie": self.cookie, "ids": dict(self.ids), "device_id": self.device_id}).encode()


@define(eq=False)
class _Slot:
    """
    One device in memory.

    Attributes:
        identity: Its identity, ready for the wire, or None while its state is not known.
        state: What it remembers.
        lost: What it remembered, where the storage has lost it.
        conditions: That nobody has changed the state since. It rides on each write, so that this process never goes
            on under an identity that another one has replaced.
        lock: Held while the state is read or changed.
    """

    identity: Identity | None = None
    state: DeviceState | None = None
    lost: DeviceState | None = None
    conditions: tuple[StateCheck, ...] = ()
    lock: asyncio.Lock = field(factory=asyncio.Lock)


class Devices:
    """
    The states of all devices: the latest used in memory, all in the storage.

    Args:
        storage: Where they are kept.
        street: Makes identities of them.
    """

    def __init__(self, storage: Storage, street: Street) -> None:
        self.storage = storage
        self.street = street
        self._slots: OrderedDict[str, _Slot] = OrderedDict()

    def slot(self, key: str) -> _Slot:
        """Find a device's place in memory; the one that was used longest ago makes room for a new one."""
        slot = self._slots.get(key)
        if slot is not None:
            self._slots.move_to_end(key)
            return slot
        slot = self._slots[key] = _Slot()
        if len(self._slots) > CAPACITY:
            self._slots.popitem(last=False)
        return slot

    def forget_all(self) -> None:
        """Keep nothing in memory."""
        for slot in self._slots.values():
            slot.state = slot.identity = None
        self._slots.clear()

    def rescue(self) -> None:
        """The storage has lost all states: those in memory are to be stored again."""
        for slot in self._slots.values():
            slot.lost = slot.state or slot.lost
            slot.state = slot.identity = None

    def fill(self, key: str, slot: _Slot, state: DeviceState) -> None:
        """Put a stored state into a slot."""
        slot.state, slot.lost = state, None
        slot.identity = self.street.identity({COOKIE: state.cookie, **state.ids}, state.device_id)
        slot.conditions = (StateCheck(state_key(key), state.version),)

    async def load(self, key: str, slot: _Slot) -> DeviceState | None:
        """
        Read a device's state; a new device gets one. To be called under the slot's lock.

        Returns:
            The state, or None where the integration was stopped meanwhile.
        """
        while slot.state is None and self.street.check_running():
            stored = await self.storage.load_state(state_key(key))
            if stored is not None:
                self.fill(key, slot, _decoded(key, stored.value, stored.version))
            elif self.street.check_running():
                await self._make(key, slot)
        return slot.state

    async def _make(self, key: str, slot: _Slot) -> None:
        fresh = slot.lost or DeviceState(str(uuid4()), {}, str(uuid4()))
        # On a conflict another process was faster.
        with suppress(StateConflictError):
            await self.storage.write((), (StateChange(state_key(key), fresh.encode(), 0),))
            self.fill(key, slot, evolve(fresh, version=1))


def state_key(device: str) -> str:
    """Tell under which key a device's state is stored."""
    return f"device:{device}"


def _decoded(key: str, value: bytes, version: int) -> DeviceState:
    try:
        kept = json.loads(value)
        return DeviceState(kept["cookie"], MappingProxyType(kept["ids"]), kept["device_id"], version)
    except (ValueError, KeyError, TypeError) as error:
        raise StorageError(f"The stored state of the device {key!r} can't be read: {error}.") from error


class _DeviceScope:
    """One device, as the rooms see it."""

    __slots__ = ("_devices", "_key", "street")

    def __init__(self, key: str, devices: Devices) -> None:
        self.street = devices.street
        self._key = key
        self._devices = devices

    async def keep(self, draft: Draft) -> Receipt:
        """Keep a draft."""
        slot = self._devices.slot(self._key)
        identity = slot.identity
        if identity is not None:
            try:
                return await self.street.keep(identity, draft, slot.conditions)
            except StateConflictError:
                self._expire(slot, identity)
        return (await self.keep_all(((None, draft),)))[0]

    async def keep_all(self, drafts: Drafts) -> list[Receipt]:
        """Keep drafts in one commit."""
        first = drafts[0][0]
        if first is not None and all(who is not None for who, _ in drafts):
            # The device has no part in it, and must not come to life for it.
            return await self.street.keep_all(first, drafts)
        while True:
            slot = self._devices.slot(self._key)
            if slot.identity is None:
                async with slot.lock:
                    if await self._devices.load(self._key, slot) is None:
                        return [self.street.dropped() for _ in drafts]
            identity, conditions = slot.identity, slot.conditions
            if identity is None:
                continue  # a conflict elsewhere emptied the slot meanwhile
            try:
                return await self.street.keep_all(identity, drafts, conditions)
            except StateConflictError:
                self._expire(slot, identity)

    async def identify(self, ids: Mapping[str, str], draft: Draft) -> Receipt:
        """Remember ids and keep the update, both in one commit."""
        while True:
            slot = self._devices.slot(self._key)
            async with slot.lock:
                state = await self._devices.load(self._key, slot)
                if state is None:
                    return self.street.dropped()
                changed = evolve(state, ids=MappingProxyType({**state.ids, **ids}), version=state.version + 1)
                identity = self.street.identity({COOKIE: changed.cookie, **changed.ids}, changed.device_id)
                change = StateChange(state_key(self._key), changed.encode(), state.version)
                try:
                    receipt = await self.street.keep(identity, draft, (change,))
                except StateConflictError:
                    self._expire(slot, slot.identity)
                    continue
                self._devices.fill(self._key, slot, changed)
                return receipt

    async def cookie(self) -> str:
        """Tell the device's cookie."""
        if not self.street.check_running():
            return ""
        slot = self._devices.slot(self._key)
        async with slot.lock:
            state = await self._devices.load(self._key, slot)
        return state.cookie if state else ""

    def _expire(self, slot: _Slot, identity: Identity | None) -> None:
        """Another process has changed the state: read it again, unless that has been done already."""
        if slot.identity is identity:
            slot.state = slot.identity = None


class _CustomerScope:
    """A customer somebody told us about, as the rooms see it."""

    __slots__ = ("_identity", "street")

    def __init__(self, identity: Identity, street: Street) -> None:
        self.street = street
        self._identity = identity

    async def keep(self, draft: Draft) -> Receipt:
        """Keep a draft."""
        return await self.street.keep(self._identity, draft)

    async def keep_all(self, drafts: Drafts) -> list[Receipt]:
        """Keep drafts in one commit."""
        return await self.street.keep_all(self._identity, drafts)

    async def identify(self, ids: Mapping[str, str], draft: Draft) -> Receipt:
        """Keep the update, for these ids beside the tracker's own; nothing is remembered."""
        identity = self.street.identity({**self._identity.ids, **ids}, None)
        return await self.street.keep(identity, draft)

    async def cookie(self) -> str:
        """Refuse: there is none."""
        raise InvalidEventError("subject", "a customer tracker has no cookie", "Ask a device.")


class Device(TrackingVerbs, IdentityVerbs):
    """
    An end user's device, or what stands for one: a bot's chat, a worker, a command-line tool.

    It remembers its cookie, the customer's ids and its own id, in the queue's storage under its key. Made by
    ``exponea.device(key)``.

    Attributes:
        key: Its key.
    """

    __slots__ = ("_own", "key")

    def __init__(self, key: str, devices: Devices) -> None:
        if not isinstance(key, str) or not key:
            raise InvalidEventError("key", f"{key!r:.60} is no non-empty text", "Give a text, such as 'tg:42'.")
        self.key = key
        self._own = _DeviceScope(key, devices)

    @property
    def _scope(self) -> Scope:
        return self._own

    def __repr__(self) -> str:
        return f"<Device {self.key!r}>"

    async def open(self) -> None:
        """
        Bring the device to life, which its first verb does otherwise.

        Raises:
            StorageError: The storage refused.
            LifecycleError: The client was not started, or is closed.
        """
        await self._scope.cookie()


class CustomerTracker(TrackingVerbs):
    """
    A customer whose ids are given with each use; nothing is remembered. For web backends.

    Its events carry exactly these ids: never a cookie of the process, which would join strangers to one customer.
    Made by ``exponea.for_customer(ids)``.

    Attributes:
        ids: The ids.
    """

    __slots__ = ("_own", "ids")

    def __init__(self, ids: Mapping[str, str], street: Street) -> None:
        self.ids = MappingProxyType(read_ids(ids, "ids"))
        if not self.ids:
            raise InvalidEventError("ids", "there is none", "Give at least one, such as {'registered': 'jane@x.com'}.")
        self._own = _CustomerScope(street.identity(self.ids, None), street)

    @property
    def _scope(self) -> Scope:
        return self._own

    def __repr__(self) -> str:
        # The values may be personal data.
        return f"<CustomerTracker {', '.join(self.ids)}>"


Subject = Device | CustomerTracker

# One variable for all clients: those made on the fly are never freed.
_BOUND: ContextVar[Mapping[object, Subject]] = ContextVar("exponea_async.bound")
_NOTHING: Mapping[object, Subject] = MappingProxyType({})


def bound(owner: object) -> Subject | None:
    """Tell which subject is current for a client, here."""
    return _BOUND.get(_NOTHING).get(owner)


@contextmanager
def bind(owner: object, subject: Subject) -> Iterator[None]:
    """Make a subject current for a client, in this context, until the end of the block."""
    token = _BOUND.set({**_BOUND.get(_NOTHING), owner: subject})
    try:
        yield
    finally:
        _BOUND.reset(token)
