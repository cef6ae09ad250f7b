"""
How features see a device.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from attrs import evolve

from exponea_async._pipeline.recorder import APPLICATION_ID, DEVICE_ID, SLICE, Drafts, EventRecorder
from exponea_async.devices.context import Remember, SubjectContext
from exponea_async.devices.customers import CustomerSnapshot, TrackedEvent
from exponea_async.devices.ids import changed_ids
from exponea_async.devices.sessions import is_idle
from exponea_async.devices.state import (
    DeviceState,
    PendingEvent,
    StateUpdate,
    TimestampSequence,
    UpdateResult,
    unchanged,
)
from exponea_async.devices.store import NEVER, CachedDevice, DeviceStore
from exponea_async.devices.transaction import Change, DeviceTransaction
from exponea_async.devices.withdrawals import DEVICE_PREFIX, WITHDRAWN, WITHDRAWN_COUNT
from exponea_async.errors import StateConflictError, StorageError
from exponea_async.models import Draft, Event, EventType, Identity, Receipt
from exponea_async.projects import ExponeaProject
from exponea_async.storage.base import StateCheck

LOG = logging.getLogger("exponea_async")


class DeviceContext(SubjectContext):
    """
    A device, as features see it.

    Args:
        key: Its key.
        store: All devices.
        recorder: Records events; by default that of all devices.
    """

    __slots__ = ("_name", "_store", "_timeout")

    key: str
    is_device = True

    def __init__(self, key: str, store: DeviceStore, recorder: EventRecorder | None = None) -> None:
        super().__init__(recorder or store.recorder, store.api, store.configuration, key)
        self._store = store
        self._name = DEVICE_PREFIX + key
        automatic = self.configuration.automatic_session_tracking
        self._timeout = self.configuration.session_timeout if automatic else None

    # Events

    @property
    def has_subscribers(self) -> bool:
        """Whether any feature listens to the events of the device."""
        return self._store.features.has_subscribers

    async def record(self, kind: EventType, event: Event) -> Receipt:
        """Record an event about the device's customer."""
        recorder = self.recorder
        event = self.complete(event) if self.properties else event
        draft = recorder.draft_event(kind, event, carries_event=self._store.features.has_subscribers)
        if draft is None:
            return recorder.dropped()
        device = self._store.cached(self._name)
        identity, now = device.identity, recorder.timestamp()
        # The usual, fast case: the event continues an open session, so the state is not changed but only checked.
        if identity is not None and self._is_active(device, now):
            customer = self._snapshot(device.state()) if draft.event is not None else None
            try:
                receipt = await recorder.record(identity, draft, self._check(device, now), now)
            except StateConflictError:
                _invalidate(device, identity)
            else:
                if customer is not None:
                    self._publish(customer, draft, now if draft.timestamp is None else draft.timestamp, receipt)
                return receipt
        return (await self._record_with_activity(((None, draft),)))[0]

    async def record_many(self, drafts: Drafts) -> list[Receipt]:
        """Record drafts in one commit."""
        first = drafts[0][0]
        if first is not None and all(own is not None for own, _ in drafts):
            # None of them is about the device, which must not be created for them.
            return await self.recorder.for_others.record_many(first, drafts)
        device = self._store.cached(self._name)
        if len(drafts) > SLICE and not self._is_active(device, self.recorder.timestamp()):
            # The installation and the session are recorded on their own, so that the rest need not be at once.
            await self._record_with_activity(())
        timestamps = TimestampSequence(self.recorder.reserve_timestamps(len(drafts)))
        stamped = await _stamp(drafts, timestamps)
        identity = device.identity
        if identity is not None and self._is_active(device, timestamps.first):
            state = device.state() if self.has_subscribers else None
            try:
                receipts = await self.recorder.record_many(identity, stamped, self._check(device, timestamps.last))
            except StateConflictError:
                _invalidate(device, identity)
            else:
                if state is not None:
                    self._publish_own(self._snapshot(state), stamped, receipts)
                return receipts
        return await self._record_with_activity(drafts)

    def _is_active(self, device: CachedDevice, now: float) -> bool:
        """Return whether an event only continues what is open: the device is launched, its session is not idle."""
        if not device.launched or self._timeout is None:
            return device.launched
        if device.last_activity == NEVER:
            # Another process may have ended the session of a device that is in the foreground.
            return False
        return not is_idle(device.last_activity, now, self._timeout) or device in self._store.foreground

    def _check(self, device: CachedDevice, now: float) -> tuple[StateCheck]:
        """Note the activity in memory, and return the condition to record under, which stores the activity, too."""
        if self._timeout is None:
            return device.check(None)
        device.last_activity = max(device.last_activity, now)
        return device.check(now)

    async def _record_with_activity(self, drafts: Drafts) -> list[Receipt]:
        """Record drafts after the installation or the start of a session."""

        def update(state: DeviceState, timestamps: TimestampSequence) -> UpdateResult:
            return state, [PendingEvent(own or state, draft.kind, _stamped(draft, timestamps)) for own, draft in drafts]

        receipts = await self._run(Change(update, event_count=len(drafts)))
        return receipts if len(receipts) == len(drafts) else await self._record_others(drafts, receipts)

    async def _record_others(self, drafts: Drafts, dropped: list[Receipt]) -> list[Receipt]:
        """
        Record the drafts about customers, where nothing is tracked about the device.

        Args:
            drafts: All drafts.
            dropped: The receipt of one that is about the device.
        """
        others = [(own, draft) for own, draft in drafts if own is not None]
        device, missing = self._store.cached(self._name), len(drafts) - len(others) - len(dropped)
        about_device = iter([*dropped, *(self._store.dropped(device) for _ in range(missing))])
        recorded = iter(await self.recorder.record_many(others[0][0], others) if others else ())
        return [next(about_device if own is None else recorded) for own, _ in drafts]

    async def identify(self, ids: Mapping[str, str | None], properties: Mapping[str, Any]) -> Receipt:
        """Remember the ids, forget those that are None, and record the update, in one commit."""
        draft = self.recorder.draft_customer(properties)
        if draft is None:
            return self.recorder.dropped()
        if self._store.withdrawals.includes_customer(ids):
            return self.recorder.dropped(WITHDRAWN, count=WITHDRAWN_COUNT)
        previous: CustomerSnapshot | None = None

        def update(state: DeviceState, timestamps: TimestampSequence) -> UpdateResult:
            nonlocal previous
            previous = self._snapshot(state)
            known = MappingProxyType(changed_ids(state.ids, ids))
            identified = evolve(state, ids=known, blocks=MappingProxyType({}))
            return identified, [PendingEvent(identified, draft.kind, _stamped(draft, timestamps))]

        receipt = (await self.transact(update))[-1]
        self._store.features.notify_identified(self, receipt, previous)
        return receipt

    async def record_for(
        self,
        ids: Mapping[str, str] | None,
        kind: EventType,
        event: Event,
        *,
        has_consent: bool = True,
        counts_as_activity: bool = True,
        remember: Remember | None = None,
        only_for: CustomerSnapshot | None = None,
    ) -> Receipt | None:
        """Record an event about the customer that something was loaded for, and what the device remembers of it."""
        if not self.recorder.check_running():
            return self.recorder.dropped()
        found: DeviceState | None = None
        completed = self.complete(event)

        def update(state: DeviceState, timestamps: TimestampSequence) -> UpdateResult:
            nonlocal found
            found = state if only_for is None or state.customer_ids == only_for.ids else None
            if found is None:
                return state, ()
            at = timestamps.next()
            changed = remember(state, at) if remember else state
            owner = self._owner(changed, ids)
            own = completed if owner is changed else event
            return changed, [PendingEvent(owner, kind, evolve(own, timestamp=at))] if has_consent else []

        receipts = await self.transact(update, counts_as_activity=counts_as_activity)
        if receipts:
            # That of the event, or a dropped one where the integration was stopped before the update was called.
            return receipts[-1]
        if found is None:
            return None if self.recorder.check_running() else self.recorder.dropped()
        await self.publish(kind, completed, state=found)
        if only_for is not None and await self._is_taken_from(only_for):
            return None
        return self.without_consent()

    def _owner(self, state: DeviceState, ids: Mapping[str, str] | None) -> DeviceState | Identity:
        """Return whom an event is about that belongs to the customer with these ids."""
        if not ids or dict(ids) == state.customer_ids:
            return state
        return self._store.identity_of(state, dict(ids))

    async def _is_taken_from(self, customer: CustomerSnapshot) -> bool:
        current = await self.current_customer(counts_as_activity=False)
        return current is not None and current.ids != customer.ids

    # State

    async def transact(
        self,
        update: StateUpdate,
        *,
        before: StateUpdate = unchanged,
        counts_as_activity: bool = True,
        foreground: bool | None = None,
        on_commit: Callable[[], None] | None = None,
    ) -> list[Receipt]:
        """
        Change what the device remembers and record the events about it, in one commit.

        Args:
            update: The change.
            before: A change that precedes the device's own activity.
            counts_as_activity: Whether the change is activity, which continues or starts a session.
            foreground: Whether the application is in the foreground from now on; None leaves that as it is.
            on_commit: Called once the change is made, also if the caller is cancelled meanwhile.

        Returns:
            The receipts of the events of `update`; a single dropped one where the integration is stopped.

        Raises:
            InvalidEventError: An event can't be sent as it is; nothing was changed.
            StorageError: The storage refused; nothing was changed.
            LifecycleError: The client is not running.
        """
        return await self._run(Change(update, before, counts_as_activity, foreground, on_commit=on_commit))

    async def _run(self, change: Change) -> list[Receipt]:
        if not self.recorder.check_running():
            return [self.recorder.dropped()]
        transaction = DeviceTransaction(self._store, self._store.cached(self._name), change, self._publish_about)
        receipts = await transaction.run()
        if transaction.is_launch:
            self._store.features.notify_launched(self)
        return receipts

    async def load_state(self, *, counts_as_activity: bool = True) -> DeviceState | None:
        """
        Return what the device remembers; None where the integration is stopped.

        Args:
            counts_as_activity: As in `current_customer`.
        """
        if not self.recorder.check_running():
            return None
        if counts_as_activity:
            await self.transact(unchanged)
        device = self._store.cached(self._name)
        async with self._store.locks.for_key(self._name):
            return await self._store.load(device)

    async def load_customer(
        self, *, counts_as_activity: bool = True
    ) -> tuple[CustomerSnapshot, DeviceState] | tuple[None, None]:
        """Return the present customer with what the device remembers; None where the integration is stopped."""
        state = await self.load_state(counts_as_activity=counts_as_activity)
        return (None, None) if state is None else (self._snapshot(state), state)

    async def remember(self, remember: Remember) -> None:
        """Change what the device remembers."""
        if self.recorder.check_running():
            await self.transact(lambda state, timestamps: (remember(state, timestamps.next()), ()))

    async def current_customer(self, *, counts_as_activity: bool = True) -> CustomerSnapshot | None:
        """Return the device's present customer."""
        state = await self.load_state(counts_as_activity=counts_as_activity)
        return None if state is None else self._snapshot(state)

    def _snapshot(self, state: DeviceState) -> CustomerSnapshot:
        project = state.project or self.configuration.project_token
        return CustomerSnapshot(state.customer_ids, project, self.key, state.device_id)

    async def store_projects(self, uses: Sequence[tuple[str, ExponeaProject]]) -> None:
        """
        Store the addresses and keys of projects that the device is to be switched to.

        Args:
            uses: The projects, each with its place in the caller's argument for errors. One without an address gets
                the one that an earlier switch gave to it, or else to the device's present project.

        Raises:
            ConfigurationError: A project is configured otherwise.
            StorageError: The storage refused.
        """
        if not self.recorder.check_running():
            return
        device = self._store.cached(self._name)
        try:
            async with self._store.locks.for_key(self._name):
                state = await self._store.load(device)
            if state is not None:
                await self.recorder.store_projects(uses, state.project)
        except StorageError:
            # The storage may be closed because the client is closed or stopped.
            if self.recorder.check_running():
                raise

    def notify_anonymized(self) -> None:
        """Notify features that the device belongs to another customer from now on, or to none."""
        self._store.features.notify_anonymized(self)

    # Subscribers

    async def publish(self, kind: EventType, event: Event, *, state: DeviceState | None = None) -> None:
        """Notify subscribers of an event that must not be recorded, for want of consent."""
        if not self.has_subscribers:
            return
        draft = self.recorder.draft_event(kind, event, carries_event=True)
        if state is None:
            customer = await self.current_customer(counts_as_activity=False)
        else:
            customer = self._snapshot(state)
        if draft is not None and customer is not None:
            at = self.recorder.timestamp() if draft.timestamp is None else draft.timestamp
            self._publish(customer, draft, at, None)

    def _publish(self, customer: CustomerSnapshot, draft: Draft, at: float, receipt: Receipt | None) -> None:
        """Notify subscribers of an event, with all the properties that it is sent with."""
        if draft.event is not None:
            properties = {**draft.event.properties, APPLICATION_ID: self.configuration.application_id}
            if customer.device_id is not None:
                properties[DEVICE_ID] = customer.device_id
            event = evolve(draft.event, properties=properties, timestamp=at)
            self._store.features.notify_tracked(self, TrackedEvent(draft.kind, event, customer, receipt))

    def _publish_about(self, state: DeviceState, draft: Draft, at: float, receipt: Receipt) -> None:
        self._publish(self._snapshot(state), draft, at, receipt)

    def _publish_own(self, customer: CustomerSnapshot, drafts: Drafts, receipts: Sequence[Receipt]) -> None:
        """Notify subscribers of the drafts that are about the device's own customer."""
        for (own, draft), receipt in zip(drafts, receipts, strict=True):
            if own is None:
                self._publish(customer, draft, draft.timestamp or 0.0, receipt)

    # Data beside the state

    async def load_data(self, name: str) -> bytes | None:
        """Return the data that `save_data` stored for the device under a name."""
        return await self._store.load_data(f"{name}:{self.key}") if self.recorder.check_running() else None

    async def save_data(self, name: str, data: bytes | None) -> None:
        """Store data for the device under a name, or delete it with None; a failure is logged."""
        try:
            if self.recorder.check_running():
                await self._store.save_data(f"{name}:{self.key}", data)
        except StorageError as error:
            LOG.warning("The %s of device %r could not be stored: %s", name, self.key, error)


async def _stamp(drafts: Drafts, timestamps: TimestampSequence) -> list[tuple[Identity | None, Draft]]:
    """Return drafts with timestamps, and let other tasks run now and then."""
    stamped: list[tuple[Identity | None, Draft]] = []
    for own, draft in drafts:
        stamped.append((own, _stamped(draft, timestamps)))
        if len(stamped) % SLICE == 0:
            await asyncio.sleep(0)
    return stamped


def _stamped(draft: Draft, timestamps: TimestampSequence) -> Draft:
    return draft if draft.timestamp is not None else draft._replace(timestamp=timestamps.next())


def _invalidate(device: CachedDevice, identity: Identity) -> None:
    """Discard a state that another process has changed, unless another call has done so already."""
    if device.identity is identity:
        device.invalidate()
