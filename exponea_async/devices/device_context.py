"""
How the rooms see a subject: a device, which remembers things.
"""

import logging
from collections.abc import Mapping, Sequence
from types import MappingProxyType

from attrs import evolve

from exponea_async.config import ExponeaProject
from exponea_async.devices.context import ApiRequest, Shared
from exponea_async.devices.customers import CustomerSnapshot, TrackedEvent
from exponea_async.devices.impressions import purged
from exponea_async.devices.sessions import active, installed, is_idle
from exponea_async.devices.state import (
    MOMENTS,
    DeviceState,
    PendingEvent,
    ProjectRef,
    StateUpdate,
    TimestampSequence,
    UpdateResult,
    nothing,
)
from exponea_async.devices.store import CachedDevice, Devices, Drafts
from exponea_async.devices.token_events import checked
from exponea_async.errors import ExponeaError, StateConflictError, StorageError
from exponea_async.models import Draft, Event, EventType, Identity, Receipt
from exponea_async.storage.base import StateChange, StateCheck

LOG = logging.getLogger("exponea_async")

PREFIX = "device:"
#: What is stamped on each event, as those hear it who listen.
APPLICATION_ID, DEVICE_ID = "application_id", "device_id"


class BaseContext:
    """What all subjects share: the ways that lead past what they remember."""

    __slots__ = ("_devices", "configuration", "opened", "received", "recorder")

    def __init__(self, devices: Devices) -> None:
        self._devices = devices
        self.recorder = devices.recorder
        self.configuration = devices.configuration
        self.opened = devices.opened
        self.received = devices.received

    @property
    def features(self) -> Shared:
        """What rooms keep for all subjects, by its class."""
        return self._devices.features

    def of(self, key: str) -> "DeviceContext":
        """Tell the scope of a device."""
        return DeviceContext(key, self._devices)

    async def call(self, who: CustomerSnapshot, call: ApiRequest) -> bytes | None:
        """Ask the platform something about a customer."""
        if not self.recorder.check_running():
            return None
        path = call.path.format(project=who.place.project_token)
        ids = who.ids if call.is_personal else None
        try:
            return await self._devices.calls.ask(who.place, path, call.body, ids=ids, tries=call.tries)
        except ExponeaError:
            # There is no answer because the client was stopped or closed meanwhile.
            if self.recorder.check_running():
                raise
            return None

    def _main(self) -> ProjectRef:
        return ProjectRef(self.configuration.base_url, self.configuration.project_token)


class DeviceContext(BaseContext):
    """One device, as the rooms see it."""

    __slots__ = ("_key", "_name", "_timeout")

    is_device = True

    def __init__(self, key: str, devices: Devices) -> None:
        super().__init__(devices)
        self._key = key
        self._name = PREFIX + key
        automatic = self.configuration.automatic_session_tracking
        self._timeout = self.configuration.session_timeout if automatic else None

    @property
    def key(self) -> str:
        """The key of the device."""
        return self._key

    async def keep(self, draft: Draft) -> Receipt:
        """Keep a draft."""
        slot = self._devices.slot(self._name)
        identity, now = slot.identity, self.recorder.stamp()
        if identity is not None and self._is_awake(slot, now):
            who = self._who_of(slot.state()) if draft.event is not None else None
            try:
                receipt = await self.recorder.keep(identity, draft, slot.check(self._touch(slot, now)), now)
            except StateConflictError:
                self._expire(slot, identity)
            else:
                if who is not None:
                    self._tell(who, draft, now if draft.timestamp is None else draft.timestamp, receipt)
                return receipt
        return (await self._wake_with(((None, draft),)))[0]

    async def keep_all(self, drafts: Drafts) -> list[Receipt]:
        """Keep drafts in one commit."""
        first = drafts[0][0]
        if first is not None and all(who is not None for who, _ in drafts):
            # The device has no part in it, and must not come to life for it.
            return await self.recorder.keep_all(first, drafts)
        slot = self._devices.slot(self._name)
        identity, moments = slot.identity, TimestampSequence(self.recorder.reserve(len(drafts)))
        if identity is not None and self._is_awake(slot, moments.first):
            stamped = [(who, _stamped(draft, moments)) for who, draft in drafts]
            state = slot.state() if self.recorder.has_subscribers else None
            try:
                receipts = await self.recorder.keep_all(identity, stamped, slot.check(self._touch(slot, moments.last)))
            except StateConflictError:
                self._expire(slot, identity)
            else:
                if state is not None:
                    self._tell_own(self._who_of(state), stamped, receipts)
                return receipts
        return await self._wake_with(drafts)

    def _tell_own(self, who: CustomerSnapshot, drafts: Drafts, receipts: Sequence[Receipt]) -> None:
        """Let the rooms hear of what is about the device itself."""
        for (other, draft), receipt in zip(drafts, receipts, strict=True):
            if other is None and draft.event is not None:
                self._tell(who, draft, draft.timestamp or 0.0, receipt)

    def _is_awake(self, slot: CachedDevice, now: float) -> bool:
        if self._timeout is None or slot in self._devices.present:
            return slot.launched
        return slot.launched and not is_idle(slot.last, now, self._timeout)

    def _touch(self, slot: CachedDevice, now: float) -> float | None:
        if self._timeout is None:
            return None
        slot.last = max(slot.last, now)
        return now

    async def _wake_with(self, drafts: Drafts) -> list[Receipt]:
        """Keep drafts with the device's coming to life, or to another session."""

        def plan(state: DeviceState, moments: TimestampSequence) -> UpdateResult:
            return state, [PendingEvent(who or state, draft.kind, _stamped(draft, moments)) for who, draft in drafts]

        receipts = await self.change(plan, most=len(drafts))
        return receipts if len(receipts) == len(drafts) else [self.recorder.dropped() for _ in drafts]

    async def identify(self, ids: Mapping[str, str], draft: Draft) -> Receipt:
        """Remember ids and keep the update, both in one commit."""

        def plan(state: DeviceState, moments: TimestampSequence) -> UpdateResult:
            known = evolve(state, ids=MappingProxyType({**state.ids, **ids}), blocks=MappingProxyType({}))
            return known, [PendingEvent(known, draft.kind, _stamped(draft, moments))]

        receipt = (await self.change(plan))[-1]
        self._devices.features.identified(self, receipt)
        return receipt

    async def look(self, *, wake: bool = True) -> DeviceState | None:
        """Tell what the device remembers."""
        if not self.recorder.check_running():
            return None
        if wake:
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
                await self.recorder.remember([evolve(each, base_url=each.base_url or address) for each in projects])
        except StorageError:
            # It may be closed because the client is, or was stopped.
            if self.recorder.check_running():
                raise

    async def change(
        self,
        plan: StateUpdate,
        *,
        before: StateUpdate = nothing,
        wake: bool = True,
        present: bool | None = None,
        most: int = 0,
    ) -> list[Receipt]:
        """Change what the device remembers and keep what is told of it, in one commit."""
        moments = TimestampSequence(self.recorder.reserve(MOMENTS + most))
        slot = self._devices.slot(self._name)
        async with self._devices.lock(self._name):
            while True:
                kept = await self._devices.load(slot)
                if kept is None:
                    return [self.recorder.dropped()]
                if self._is_overtaken(kept, moments.first):
                    # What is told now comes after what others have told meanwhile.
                    moments = TimestampSequence(self.recorder.reserve(MOMENTS + most))
                if slot in self._devices.present and kept.last_activity is not None:
                    kept = evolve(kept, last_activity=max(kept.last_activity, moments.first))
                state, told = before(kept, moments)
                if wake:
                    state, woken = self._woken(state, moments, launch=present or not slot.launched)
                    told = [*told, *woken]
                state, wanted = plan(state, moments)
                if kept.is_new and not wake and all(each.kind is not EventType.INSTALL for each in wanted):
                    # Whatever is told first of a device, it comes to life with that.
                    wake, moments = True, TimestampSequence(self.recorder.reserve(MOMENTS + most))
                    continue
                try:
                    receipts = await self._write(slot, kept, state, [*told, *wanted], moments.last)
                except StateConflictError:
                    # Another process was faster, or the sweep: see what there is now.
                    slot.empty()
                    moments = TimestampSequence(self.recorder.reserve(MOMENTS + most))
                    continue
                launched, slot.launched = slot.launched, True
                if present is not None:
                    (self._devices.present.add if present else self._devices.present.discard)(slot)
                if not launched:
                    self._devices.features.launched(self)
                return receipts[len(told) :]

    def _is_overtaken(self, kept: DeviceState, first: float) -> bool:
        """Tell whether others may have told something of the device since a moment."""
        if kept.last_activity is not None:
            return kept.last_activity >= first
        # Within the timeout no session can have begun and ended.
        return self._timeout is not None and self.recorder.stamp() - first >= self._timeout

    def _woken(self, state: DeviceState, moments: TimestampSequence, *, launch: bool) -> UpdateResult:
        told: list[PendingEvent] = []
        if state.is_new:
            told.append(installed(state, moments, self.configuration))
        if self.configuration.automatic_session_tracking:
            state, more = active(state, moments, self.configuration)
            told += more
        if launch:
            state = _tidied(state, moments.first)
            if self.configuration.automatic_push_notification:
                state, more = checked(state, moments, self.configuration)
                told += more
        return state, told

    async def _write(
        self, slot: CachedDevice, kept: DeviceState, state: DeviceState, told: Sequence[PendingEvent], last: float
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
        kept_now = await self.recorder.keep_all(identity, drafts, (change,))
        # Kept is kept: where the client was closed meanwhile, the caller is not to be told otherwise.
        self._devices.fill(slot, state, packed)
        receipts = iter(kept_now)
        tracked = [self.recorder.dropped() if draft is None else next(receipts) for _, draft in drafted]
        if self.recorder.has_subscribers:
            for each, (_, draft), receipt in zip(told, drafted, tracked, strict=True):
                if draft is not None and draft.event is not None:
                    about = each.who if isinstance(each.who, DeviceState) else state
                    self._tell(
                        self._who_of(about), draft, last if draft.timestamp is None else draft.timestamp, receipt
                    )
        return tracked

    def _who(self, told: PendingEvent, state: DeviceState, identity: Identity) -> Identity:
        if isinstance(told.who, Identity):
            return told.who
        return identity if told.who is state else self._devices.identity(told.who)

    def _draft(self, told: PendingEvent) -> Draft | None:
        event = told.event
        if isinstance(event, Draft):
            return event
        if told.kind is EventType.TRACK_CUSTOMER:
            draft = self.recorder.draft_customer(event.properties, defaults=False)
        elif told.kind is EventType.CAMPAIGN_CLICK:
            draft = self.recorder.draft_click(event.name, event.properties)
        else:
            return self.recorder.draft_event(told.kind, event)
        return draft and draft._replace(timestamp=self.recorder.moment(event.timestamp))

    # What rooms load and hear

    async def who(self, *, wake: bool = True) -> CustomerSnapshot | None:
        """Tell who the device is now."""
        state = await self.look(wake=wake)
        return None if state is None else self._who_of(state)

    def _who_of(self, state: DeviceState) -> CustomerSnapshot:
        return CustomerSnapshot(state.customer_ids, state.project or self._main(), self.key, state.device_id)

    def _tell(self, who: CustomerSnapshot, draft: Draft, at: float, receipt: Receipt | None) -> None:
        """Let the rooms hear of an event, with all the properties that it goes out with."""
        if draft.event is not None:
            properties = {**draft.event.properties, APPLICATION_ID: self.configuration.application_id}
            if who.device_id is not None:
                properties[DEVICE_ID] = who.device_id
            event = evolve(draft.event, properties=properties, timestamp=at)
            self._devices.tell(self, TrackedEvent(draft.kind, event, who, receipt))

    async def hear(self, kind: EventType, event: Event, *, state: DeviceState | None = None) -> None:
        """Let the rooms hear of something that may not be tracked, for want of consent."""
        if not self.recorder.has_subscribers:
            return
        draft = self.recorder.draft_event(kind, event)
        who = await self.who(wake=False) if state is None else self._who_of(state)
        if draft is not None and who is not None:
            self._tell(who, draft, self.recorder.stamp() if draft.timestamp is None else draft.timestamp, None)

    def anonymized(self) -> None:
        """Let the rooms know that the device is another customer's from now on."""
        self._devices.features.anonymized(self)

    async def load(self, name: str) -> bytes | None:
        """Read what `save` kept for the device under a name."""
        return await self._devices.load_beside(f"{name}:{self.key}") if self.recorder.check_running() else None

    async def save(self, name: str, value: bytes | None) -> None:
        """Keep something for the device beside its state, or forget it."""
        try:
            if self.recorder.check_running():
                await self._devices.save_beside(f"{name}:{self.key}", value)
        except StorageError as error:
            LOG.warning("%s of device %r could not be kept: %s", name, self.key, error)

    def _expire(self, slot: CachedDevice, identity: Identity) -> None:
        """Another process has changed the state: read it again, unless that has been done already."""
        if slot.identity is identity:
            slot.empty()


def _stamped(draft: Draft, moments: TimestampSequence) -> Draft:
    return draft if draft.timestamp is not None else draft._replace(timestamp=moments.next())


def _tidied(state: DeviceState, now: float) -> DeviceState:
    """Forget what was shown so long ago that it does not count any more."""
    messages, blocks = purged(state.messages, now), purged(state.blocks, now)
    if len(messages) == len(state.messages) and len(blocks) == len(state.blocks):
        return state
    return evolve(state, messages=messages, blocks=blocks)
