"""
One change of a device: its new state and the events about it, in one commit.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

from attrs import evolve

from exponea_async._internal.closing import run_to_end
from exponea_async._pipeline.recorder import SLICE
from exponea_async.devices.impressions import unexpired
from exponea_async.devices.sessions import continue_session, installation
from exponea_async.devices.state import (
    DeviceState,
    PendingEvent,
    StateUpdate,
    TimestampSequence,
    UpdateResult,
    unchanged,
)
from exponea_async.devices.store import CachedDevice, DeviceStore
from exponea_async.devices.token_events import verified
from exponea_async.errors import StateConflictError
from exponea_async.models import Draft, EventType, Identity, Receipt
from exponea_async.storage.base import StateChange, StateCheck

#: More timestamps than the automatic events of a change and those of any verb need.
TIMESTAMPS = 8


class Change(NamedTuple):
    """
    What is to be done to a device.

    Attributes:
        update: The change.
        before: A change that precedes the device's own activity, such as that of the campaign whose link was opened: it
            becomes part of the session that starts with it.
        counts_as_activity: Whether the device is active, which continues or starts its session.
        foreground: Whether the application is in the foreground from now on; None leaves that as it is. While it is,
            the session goes on without events.
        event_count: The number of events that `update` records, where it is more than a few.
        on_commit: Called once the change is made, also if the caller is cancelled meanwhile.
    """

    update: StateUpdate
    before: StateUpdate = unchanged
    counts_as_activity: bool = True
    foreground: bool | None = None
    event_count: int = 0
    on_commit: Callable[[], None] | None = None


class _Plan(NamedTuple):
    """
    A change applied to a loaded state.

    Attributes:
        loaded: The state as it was loaded.
        state: The state after the change.
        automatic: The events of the device's own activity.
        wanted: The events of the update.
        last: The timestamp of the last event.
        identity: The device's identity after the change, encoded.
        drafts: The encoded events with their owners, in order; None for a dropped event.
        changes_state: Whether more of the state is written than the last activity.
    """

    loaded: DeviceState
    state: DeviceState
    automatic: Sequence[PendingEvent]
    wanted: Sequence[PendingEvent]
    last: float
    identity: Identity
    drafts: Sequence[tuple[Identity, Draft | None]] = ()
    changes_state: bool = True

    @property
    def events(self) -> list[PendingEvent]:
        return [*self.automatic, *self.wanted]


#: Called once per recorded event: its owner, the draft, its timestamp, and its receipt.
Publish = Callable[[DeviceState, Draft, float, Receipt], None]


class DeviceTransaction:
    """
    One change of a device.

    ::

        load ──► plan ──► encode ──► commit ──► publish
         ▲                             │
         └───────── conflict ──────────┘

    * load: read the state, under the device's lock. A stopped integration ends the transaction: everything is dropped.
    * plan: apply `Change.before`, the device's activity (installation, session, check of the push token), and
      `Change.update`, each to the state that the one before returned. Nothing is stored yet, so it can be repeated.
    * encode: check and encode the events. An invalid event ends the transaction; nothing was changed.
    * commit: write the events and the state, if it is still the one that was loaded, and update the memory. Where
      another process or the end of a session was faster, the state is discarded and loaded again. The lock is held
      until then, but not where the events only continue a session, and the state is not changed but checked: many
      callers that have waited for a new state share one commit.
    * publish: notify subscribers of the events.

    Args:
        store: All devices.
        device: The device.
        change: The change.
        publish: Notifies subscribers of a recorded event.

    Attributes:
        is_launch: Whether this was the device's first activity in this process; known once `run` has returned.
    """

    __slots__ = ("_change", "_configuration", "_device", "_publish", "_recorder", "_store", "_timestamps", "is_launch")

    def __init__(self, store: DeviceStore, device: CachedDevice, change: Change, publish: Publish) -> None:
        self._store = store
        self._device = device
        self._change = change
        self._publish = publish
        self._recorder = store.recorder
        self._configuration = store.configuration
        # Reserved before any wait, so that the timestamps are those of the call.
        self._timestamps = self._reserve()
        self.is_launch = False

    async def run(self) -> list[Receipt]:
        """
        Carry the change out.

        Returns:
            The receipts of the events of `Change.update`; a single dropped one where the integration is stopped.

        Raises:
            InvalidEventError: An event can't be sent as it is; nothing was changed.
            StorageError: The storage refused; nothing was changed.
        """
        while True:
            async with self._store.locks.for_key(self._device.name):
                plan = await self._prepare()
                if plan is None:
                    return [self._store.dropped(self._device)]
                only_continues = self._only_continues(plan)
                if only_continues:
                    self._note_activity(plan)
                receipts = None if only_continues else await self._try(plan)
            if only_continues:
                # The write begins before the next caller acquires the lock, so their order is that of the calls.
                receipts = await self._try(plan)
            if receipts is not None:
                return receipts[len(plan.automatic) :]
            self._timestamps = self._reserve()

    async def _prepare(self) -> _Plan | None:
        """Load the state, plan and encode; return None where the integration is stopped."""
        state = await self._store.load(self._device)
        if state is None:
            return None
        self._keep_order(state)
        return self._encode(self._plan(self._with_foreground_activity(state)))

    def _only_continues(self, plan: _Plan) -> bool:
        """Return whether the events only continue a session, and are few enough to be written at once."""
        is_new = not self._device.launched or bool(plan.automatic) or self._change.foreground is not None
        return not is_new and not plan.changes_state and len(plan.drafts) < SLICE

    def _note_activity(self, plan: _Plan) -> None:
        """Note the activity before it is written, so that the session does not end meanwhile."""
        if plan.state.last_activity is not None:
            self._device.last_activity = max(self._device.last_activity, plan.state.last_activity)

    async def _try(self, plan: _Plan) -> list[Receipt] | None:
        """Commit; return None where another caller has changed the state, which is discarded."""
        try:
            return await self._commit(plan)
        except StateConflictError:
            # Another call may have discarded it before, and loaded the next one.
            if self._device.version == plan.loaded.version:
                self._device.invalidate()
            return None

    def _reserve(self) -> TimestampSequence:
        return TimestampSequence(self._recorder.reserve_timestamps(TIMESTAMPS + self._change.event_count))

    def _keep_order(self, state: DeviceState) -> None:
        """Reserve new timestamps if others have recorded events in the meantime: those of this change come later."""
        if self._is_overtaken(state):
            self._timestamps = self._reserve()

    def _is_overtaken(self, state: DeviceState) -> bool:
        """Return whether others may have recorded events of the device since this change began."""
        first, timeout = self._timestamps.first, self._configuration.session_timeout
        if state.last_activity is not None:
            return state.last_activity >= first
        # No session is open now. Others may have started and ended one, which takes the timeout at least.
        automatic = self._configuration.automatic_session_tracking
        return automatic and self._recorder.timestamp() - first >= timeout

    # Plan

    def _with_foreground_activity(self, state: DeviceState) -> DeviceState:
        """Return a state with the activity of now, if the application is in the foreground."""
        if self._device in self._store.foreground and state.last_activity is not None:
            return evolve(state, last_activity=max(state.last_activity, self._timestamps.first))
        return state

    def _plan(self, state: DeviceState) -> _Plan:
        plan = self._apply(state, counts_as_activity=self._change.counts_as_activity)
        if state.is_new and not self._change.counts_as_activity and not _is_installed(plan):
            # Whatever is recorded first about a device, the installation precedes it.
            self._timestamps = self._reserve()
            plan = self._apply(state, counts_as_activity=True)
        return plan

    def _apply(self, loaded: DeviceState, *, counts_as_activity: bool) -> _Plan:
        timestamps = self._timestamps
        state, automatic = self._change.before(loaded, timestamps)
        if counts_as_activity:
            state, active = self._activity(state, timestamps)
            automatic = [*automatic, *active]
        state, wanted = self._change.update(state, timestamps)
        return _Plan(loaded, state, automatic, wanted, timestamps.last, self._store.identity(state))

    def _activity(self, state: DeviceState, timestamps: TimestampSequence) -> UpdateResult:
        configuration = self._configuration
        events: list[PendingEvent] = []
        if state.is_new:
            events.append(installation(state, timestamps, configuration))
        if configuration.automatic_session_tracking:
            state, more = continue_session(state, timestamps, configuration)
            events += more
        if self._change.foreground or not self._device.launched:
            state = _without_expired(state, timestamps.first)
            if configuration.automatic_push_notification:
                state, more = verified(state, timestamps, configuration)
                events += more
        return state, events

    # Encode

    def _encode(self, plan: _Plan) -> _Plan:
        state = plan.state
        drafts = [(self._owner(each, plan), self._draft(each)) for each in plan.events]
        if self._configuration.automatic_session_tracking and state.last_activity is not None:
            # The end of the session must not precede an event that was recorded within it.
            state = evolve(state, last_activity=max(state.last_activity, plan.last))
        loaded = plan.loaded
        changes_state = not loaded.version or evolve(state, last_activity=loaded.last_activity) != loaded
        return plan._replace(state=state, drafts=drafts, changes_state=changes_state)

    def _owner(self, event: PendingEvent, plan: _Plan) -> Identity:
        if isinstance(event.owner, Identity):
            return event.owner
        return plan.identity if event.owner is plan.state else self._store.identity(event.owner)

    def _draft(self, pending: PendingEvent) -> Draft | None:
        event, recorder = pending.event, self._recorder
        if isinstance(event, Draft):
            return event
        if pending.kind is EventType.TRACK_CUSTOMER:
            draft = recorder.draft_customer(event.properties, defaults=False)
        elif pending.kind is EventType.CAMPAIGN_CLICK:
            draft = recorder.draft_click(event.name, event.properties)
        else:
            carries_event = self._store.features.has_subscribers
            return recorder.draft_event(pending.kind, event, carries_event=carries_event)
        return draft and draft._replace(timestamp=recorder.read_timestamp(event.timestamp))

    # Commit

    async def _commit(self, plan: _Plan) -> list[Receipt]:
        if self._change.on_commit is None:
            return await self._write(plan)
        return await run_to_end(partial(self._write, plan), name="exponea_async: change of a device")

    async def _write(self, plan: _Plan) -> list[Receipt]:
        device, loaded, state = self._device, plan.loaded, plan.state
        encoded = device.encoded
        write: StateChange | StateCheck = StateCheck(device.name, loaded.version, state.last_activity)
        if plan.changes_state:
            encoded = state.encode()
            write = StateChange(
                device.name, encoded, loaded.version, active=state.last_activity, seen=loaded.last_activity
            )
            state = evolve(state, version=loaded.version + 1, is_new=False)
        drafts = [(owner, draft) for owner, draft in plan.drafts if draft is not None]
        written = iter(await self._recorder.record_many(plan.identity, drafts, (write,)))
        # What is committed stays committed: where the client was closed meanwhile, the caller gets no error.
        if plan.changes_state or device.version == state.version:
            # Otherwise another call has changed or discarded the state since it was checked.
            self._store.cache(device, state, encoded)
        receipts = [self._recorder.dropped() if draft is None else next(written) for _, draft in plan.drafts]
        self._publish_events(plan, state, receipts)
        self._note_launch()
        if self._change.on_commit is not None:
            self._change.on_commit()
        return receipts

    # Publish

    def _publish_events(self, plan: _Plan, state: DeviceState, receipts: Sequence[Receipt]) -> None:
        if not self._store.features.has_subscribers:
            return
        for pending, (_, draft), receipt in zip(plan.events, plan.drafts, receipts, strict=True):
            if draft is not None:
                about = pending.owner if isinstance(pending.owner, DeviceState) else state
                self._publish(about, draft, plan.last if draft.timestamp is None else draft.timestamp, receipt)

    def _note_launch(self) -> None:
        """Note that the device is launched, and whether its application is in the foreground."""
        self.is_launch, self._device.launched = not self._device.launched, True
        if self._change.foreground is not None:
            (self._store.foreground.add if self._change.foreground else self._store.foreground.discard)(self._device)


def _is_installed(plan: _Plan) -> bool:
    return any(each.kind is EventType.INSTALL for each in plan.wanted)


def _without_expired(state: DeviceState, now: float) -> DeviceState:
    """Forget impressions that are too old to count."""
    messages, blocks = unexpired(state.messages, now), unexpired(state.blocks, now)
    if len(messages) == len(state.messages) and len(blocks) == len(state.blocks):
        return state
    return evolve(state, messages=messages, blocks=blocks)
