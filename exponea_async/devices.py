"""
Devices: what each remembers, in memory and in the storage, and how it is changed.
"""

import logging
from asyncio import Lock
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from uuid import uuid4
from weakref import WeakValueDictionary

from attrs import define, evolve

from exponea_async.config import Configuration, ExponeaProject
from exponea_async.errors import StateConflictError, StorageError
from exponea_async.features._ids import COOKIE
from exponea_async.features._notifications import checked
from exponea_async.features._scope import Street
from exponea_async.features._sessions import active, installed, is_idle
from exponea_async.features._state import MOMENTS, DeviceState, Moments, Outcome, Plan, Told, nothing
from exponea_async.features._streams import Stream
from exponea_async.models import Draft, EventType, Identity, OpenedPush, Receipt, ReceivedPush
from exponea_async.storage.base import StateChange, StateCheck, Storage

LOG = logging.getLogger("exponea_async")

#: Devices that are kept in memory, about 800 bytes each, so up to 80 MB; others are read again when they are active.
CAPACITY = 100_000
PREFIX = "device:"
NEVER = float("-inf")

Drafts = Sequence[tuple[Identity | None, Draft]]


@define(eq=False)
class Slot:
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
        street: Takes what they track.
        configuration: The settings.

    Attributes:
        opened: Presses on push notifications, of all devices.
        received: Push notifications that came, of all devices.
        present: Those in front of somebody, whose sessions go on whether or not they track anything.
    """

    def __init__(self, storage: Storage, street: Street, configuration: Configuration) -> None:
        self.storage = storage
        self.street = street
        self.configuration = configuration
        self.opened: Stream[OpenedPush] = Stream()
        self.received: Stream[ReceivedPush] = Stream()
        self.present: set[Slot] = set()
        self._slots: OrderedDict[str, Slot] = OrderedDict()
        # Only those in use, for hardly any device is ever changed by two at once.
        self._locks: WeakValueDictionary[str, Lock] = WeakValueDictionary()

    def slot(self, name: str) -> Slot:
        """Find a device's place in memory; the one that was used longest ago makes room for a new one."""
        slot = self._slots.get(name)
        if slot is not None:
            self._slots.move_to_end(name)
            return slot
        slot = self._slots[name] = Slot(name)
        if len(self._slots) > CAPACITY:
            self.present.discard(self._slots.popitem(last=False)[1])
        return slot

    def peek(self, name: str) -> Slot | None:
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
        self.opened.end()
        self.received.end()

    def rescue(self) -> None:
        """The storage has lost all states: those in memory are to be stored again."""
        for slot in self._slots.values():
            slot.lost = slot.packed or slot.lost
            slot.empty()

    def fill(self, slot: Slot, state: DeviceState, packed: bytes) -> None:
        """Put a stored state into a slot."""
        slot.packed, slot.version, slot.lost, slot.identity = packed, state.version, b"", self.identity(state)
        # Somebody may have been active while it was written or read.
        slot.last = NEVER if state.last_activity is None else max(slot.last, state.last_activity)

    def identity(self, state: DeviceState) -> Identity:
        """Make a device's identity ready for the wire."""
        moved = state.project is not None or state.mapping is not None
        routes = self.street.routes(state.project, state.mapping) if moved else None
        return self.street.identity({COOKIE: state.cookie, **state.ids}, state.device_id, routes)

    async def load(self, slot: Slot) -> DeviceState | None:
        """
        Read a device's state. To be called under its lock.

        Returns:
            The state, which for a new device is not stored yet; or None where the integration was stopped.
        """
        if slot.identity is None and self.street.check_running():
            stored = await self.storage.load_state(slot.name)
            if stored is None:
                return self._born(slot) if self.street.check_running() else None
            state = decoded(slot.name, stored.value, stored.version, stored.active)
            self.fill(slot, state, stored.value)
        return slot.state() if slot.identity is not None and self.street.check_running() else None

    async def touch(self, slot: Slot, now: float) -> None:
        """Say that a device is active now, within the session that it is known to have."""
        if slot.identity is None or slot.last == NEVER:
            return
        try:
            await self.storage.write((), slot.check(now))
        except StateConflictError:
            slot.empty()
        else:
            slot.last = max(slot.last, now)

    def _born(self, slot: Slot) -> DeviceState:
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


class DeviceScope:
    """One device, as the rooms see it."""

    __slots__ = ("_devices", "_name", "_timeout", "configuration", "opened", "received", "street")

    def __init__(self, key: str, devices: Devices) -> None:
        self.street = devices.street
        self.configuration = devices.configuration
        self.opened = devices.opened
        self.received = devices.received
        self._name = PREFIX + key
        self._devices = devices
        automatic = self.configuration.automatic_session_tracking
        self._timeout = self.configuration.session_timeout if automatic else None

    async def keep(self, draft: Draft) -> Receipt:
        """Keep a draft."""
        slot = self._devices.slot(self._name)
        identity, now = slot.identity, self.street.stamp()
        if identity is not None and self._is_awake(slot, now):
            try:
                return await self.street.keep(identity, draft, slot.check(self._touch(slot, now)), now)
            except StateConflictError:
                self._expire(slot, identity)
        return (await self._wake_with(((None, draft),)))[0]

    async def keep_all(self, drafts: Drafts) -> list[Receipt]:
        """Keep drafts in one commit."""
        first = drafts[0][0]
        if first is not None and all(who is not None for who, _ in drafts):
            # The device has no part in it, and must not come to life for it.
            return await self.street.keep_all(first, drafts)
        slot = self._devices.slot(self._name)
        identity, moments = slot.identity, Moments(self.street.reserve(len(drafts)))
        if identity is not None and self._is_awake(slot, moments.first):
            stamped = [(who, _stamped(draft, moments)) for who, draft in drafts]
            try:
                return await self.street.keep_all(identity, stamped, slot.check(self._touch(slot, moments.last)))
            except StateConflictError:
                self._expire(slot, identity)
        return await self._wake_with(drafts)

    def _is_awake(self, slot: Slot, now: float) -> bool:
        if self._timeout is None or slot in self._devices.present:
            return slot.launched
        return slot.launched and not is_idle(slot.last, now, self._timeout)

    def _touch(self, slot: Slot, now: float) -> float | None:
        if self._timeout is None:
            return None
        slot.last = max(slot.last, now)
        return now

    async def _wake_with(self, drafts: Drafts) -> list[Receipt]:
        """Keep drafts with the device's coming to life, or to another session."""

        def plan(state: DeviceState, moments: Moments) -> Outcome:
            return state, [Told(who or state, draft.kind, _stamped(draft, moments)) for who, draft in drafts]

        receipts = await self.change(plan, most=len(drafts))
        return receipts if len(receipts) == len(drafts) else [self.street.dropped() for _ in drafts]

    async def identify(self, ids: Mapping[str, str], draft: Draft) -> Receipt:
        """Remember ids and keep the update, both in one commit."""

        def plan(state: DeviceState, moments: Moments) -> Outcome:
            known = evolve(state, ids=MappingProxyType({**state.ids, **ids}))
            return known, [Told(known, draft.kind, _stamped(draft, moments))]

        return (await self.change(plan))[-1]

    async def look(self) -> DeviceState | None:
        """Bring the device to life and tell what it remembers."""
        if not self.street.check_running():
            return None
        await self.change(nothing)
        slot = self._devices.slot(self._name)
        async with self._devices.lock(self._name):
            return await self._devices.load(slot)

    async def remember(self, projects: Sequence[ExponeaProject]) -> None:
        """Keep the keys of projects that the device is to be switched to."""
        slot = self._devices.slot(self._name)
        try:
            async with self._devices.lock(self._name):
                state = await self._devices.load(slot)
            if state is not None:
                address = state.project.base_url if state.project else self.configuration.base_url
                await self.street.remember([evolve(each, base_url=each.base_url or address) for each in projects])
        except StorageError:
            # It may be closed because the client is, or was stopped.
            if self.street.check_running():
                raise

    async def change(
        self,
        plan: Plan,
        *,
        before: Plan = nothing,
        wake: bool = True,
        present: bool | None = None,
        most: int = 0,
    ) -> list[Receipt]:
        """Change what the device remembers and keep what is told of it, in one commit."""
        moments = Moments(self.street.reserve(MOMENTS + most))
        slot = self._devices.slot(self._name)
        async with self._devices.lock(self._name):
            while True:
                kept = await self._devices.load(slot)
                if kept is None:
                    return [self.street.dropped()]
                if self._is_overtaken(kept, moments.first):
                    # What is told now comes after what others have told meanwhile.
                    moments = Moments(self.street.reserve(MOMENTS + most))
                if slot in self._devices.present and kept.last_activity is not None:
                    kept = evolve(kept, last_activity=max(kept.last_activity, moments.first))
                state, told = before(kept, moments)
                if wake:
                    state, woken = self._woken(state, moments, launch=present or not slot.launched)
                    told = [*told, *woken]
                state, wanted = plan(state, moments)
                try:
                    receipts = await self._write(slot, kept, state, [*told, *wanted], moments.last)
                except StateConflictError:
                    # Another process was faster, or the sweep: see what there is now.
                    slot.empty()
                    moments = Moments(self.street.reserve(MOMENTS + most))
                    continue
                slot.launched = True
                if present is not None:
                    (self._devices.present.add if present else self._devices.present.discard)(slot)
                return receipts[len(told) :]

    def _is_overtaken(self, kept: DeviceState, first: float) -> bool:
        """Tell whether others may have told something of the device since a moment."""
        if kept.last_activity is not None:
            return kept.last_activity >= first
        # Within the timeout no session can have begun and ended.
        return self._timeout is not None and self.street.stamp() - first >= self._timeout

    def _woken(self, state: DeviceState, moments: Moments, *, launch: bool) -> Outcome:
        told: list[Told] = []
        if state.is_new:
            told.append(installed(state, moments, self.configuration))
        if self.configuration.automatic_session_tracking:
            state, more = active(state, moments, self.configuration)
            told += more
        if launch and self.configuration.automatic_push_notification:
            state, more = checked(state, moments, self.configuration)
            told += more
        return state, told

    async def _write(
        self, slot: Slot, kept: DeviceState, state: DeviceState, told: Sequence[Told], last: float
    ) -> list[Receipt]:
        identity = self._devices.identity(state)
        drafted = [(self._who(each, state, identity), self._draft(each)) for each in told]
        drafts = [(who, draft) for who, draft in drafted if draft is not None]
        if self._timeout is not None and state.last_activity is not None:
            # Its end is not to come before anything that was told within the session.
            state = evolve(state, last_activity=max(state.last_activity, last))
        packed = slot.packed
        change: StateChange | StateCheck = StateCheck(slot.name, kept.version, state.last_activity)
        if not kept.version or evolve(state, last_activity=kept.last_activity) != kept:
            packed = state.encode()
            change = StateChange(slot.name, packed, kept.version, active=state.last_activity, seen=kept.last_activity)
            state = evolve(state, version=kept.version + 1, is_new=False)
        receipts = iter(await self.street.keep_all(identity, drafts, (change,)))
        # Kept is kept: where the client was closed meanwhile, the caller is not to be told otherwise.
        self._devices.fill(slot, state, packed)
        return [self.street.dropped() if draft is None else next(receipts) for _, draft in drafted]

    def _who(self, told: Told, state: DeviceState, identity: Identity) -> Identity:
        if isinstance(told.who, Identity):
            return told.who
        return identity if told.who is state else self._devices.identity(told.who)

    def _draft(self, told: Told) -> Draft | None:
        event = told.event
        if isinstance(event, Draft):
            return event
        if told.kind is EventType.TRACK_CUSTOMER:
            draft = self.street.draft_customer(event.properties, defaults=False)
        elif told.kind is EventType.CAMPAIGN_CLICK:
            draft = self.street.draft_click(event.name, event.properties)
        else:
            return self.street.draft_event(told.kind, event)
        return draft and draft._replace(timestamp=self.street.moment(event.timestamp))

    def _expire(self, slot: Slot, identity: Identity) -> None:
        """Another process has changed the state: read it again, unless that has been done already."""
        if slot.identity is identity:
            slot.empty()


def _stamped(draft: Draft, moments: Moments) -> Draft:
    return draft if draft.timestamp is not None else draft._replace(timestamp=moments.next())
