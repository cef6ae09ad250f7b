"""
The task that ends the sessions of idle devices.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence
from math import inf

from attrs import evolve

from exponea_async._internal.concurrency import RestartReport, Supervisor
from exponea_async._pipeline.recorder import Drafts
from exponea_async.config import Configuration
from exponea_async.devices.sessions import end_session, idle_before
from exponea_async.devices.state import DeviceState, PendingEvent
from exponea_async.devices.store import CachedDevice, DeviceStore, decode_stored
from exponea_async.errors import ExponeaError, LifecycleError, StateConflictError, StorageError
from exponea_async.models import Event
from exponea_async.storage.base import State, StateChange

LOG = logging.getLogger("exponea_async")

#: Seconds between two searches for idle sessions.
PERIOD = 1.0
#: Sessions that are ended at once, which takes the event loop for about a millisecond. More would hardly be faster.
BATCH = 20


class SessionExpirer:
    """
    Ends the sessions of idle devices, whichever process they began in.

    Args:
        store: All devices.
        configuration: Gives the session timeout.
        clock: Returns UNIX seconds.
        report: Called when the task has ended unexpectedly; see `Supervisor`.
    """

    def __init__(
        self,
        store: DeviceStore,
        configuration: Configuration,
        clock: Callable[[], float],
        report: RestartReport,
    ) -> None:
        self._store = store
        self._configuration = configuration
        self._clock = clock
        self._report_restart = report
        self._task: Supervisor | None = None
        # The version of each state whose session could not be ended, so that each is reported once.
        self._failed: dict[str, int] = {}

    def start(self) -> None:
        """Start the task, if sessions are automatic."""
        if self._configuration.automatic_session_tracking:
            self._task = Supervisor(self._report_restart)
            self._task.start(self._run, name="exponea_async: session expirer")

    async def aclose(self) -> None:
        """Stop the task, and write down that devices in the foreground were active until now."""
        task, self._task = self._task, None
        if task is not None:
            await task.aclose()
            try:
                await self._write_foreground_activity()
            except StorageError as error:
                LOG.warning("The last activity of devices in the foreground was not stored: %s", error)
            self._store.foreground.clear()

    async def _run(self) -> None:
        while True:
            try:
                await self.expire()
            except ExponeaError as error:
                LOG.warning("Idle sessions could not be ended; trying again later: %s", error)
            await asyncio.sleep(PERIOD)

    async def expire(self, *, all_sessions: bool = False) -> int:
        """
        End the sessions that have been idle for the session timeout, each at its last activity.

        Args:
            all_sessions: End all open sessions, idle or not.

        Returns:
            The number of sessions that were ended.

        Raises:
            StorageError: The storage refused.
        """
        # Another process may have erased what belongs to an end user.
        await self._store.withdrawals.refresh()
        # The activity of devices in the foreground is written down a few times within the timeout.
        await self._write_foreground_activity(self._configuration.session_timeout / 4)
        count, skipped = 0, 0
        before = inf if all_sessions else idle_before(self._clock(), self._configuration.session_timeout)
        # Sessions that can't be ended must not block those behind them.
        while idle := await self._store.storage.expired_sessions(before, limit := BATCH + skipped):
            ended = sum(await asyncio.gather(*[self._end(name, state, before) for name, state in idle]))
            count += ended
            skipped = len(idle) - ended
            if not ended and skipped < limit:
                break
        return count

    async def _write_foreground_activity(self, interval: float = 0.0) -> None:
        """Write down the activity of devices in the foreground whose last one is at least `interval` seconds old."""
        now = self._clock()
        due = [device for device in self._store.foreground if now - device.last_activity >= interval]
        for start in range(0, len(due), BATCH):
            await asyncio.gather(*[self._store.write_activity(device, now) for device in due[start : start + BATCH]])

    async def _end(self, name: str, stored: State, before: float) -> bool:
        device = self._store.peek(name)
        if device in self._store.foreground and before < inf:
            return False
        active = stored.active
        if device is not None and active is not None and device.last_activity > active:
            if device.last_activity >= before:
                # The device was active just now, and that is still on its way to the storage.
                return False
            # The call failed, or its caller has given up, but it was activity all the same.
            active = device.last_activity
        try:
            loaded = evolve(decode_stored(name, stored), last_activity=active)
        except StorageError as error:
            await self._store.set_aside(name, stored, error)
            return False
        try:
            state, events = end_session(loaded, self._configuration)
            drafts = self._drafts(events)
        except LifecycleError:
            raise
        except ExponeaError as error:  # other sessions must still end
            self._report(name, stored.version, error)
            return False
        change = StateChange(name, state.encode(), loaded.version, active=None, seen=loaded.last_activity)
        return await self._write(loaded, drafts, change, device)

    def _drafts(self, events: Sequence[PendingEvent]) -> Drafts:
        recorder = self._store.recorder
        drafts = [recorder.draft_event(each.kind, each.event) for each in events if isinstance(each.event, Event)]
        return [(None, draft) for draft in drafts if draft is not None]

    def _report(self, name: str, version: int, error: ExponeaError) -> None:
        """Log once an error that occurs at each attempt."""
        if self._failed.get(name) != version:
            self._failed[name] = version
            LOG.error("The session of %r can't be ended: %s", name, error, exc_info=error)

    async def _write(
        self, loaded: DeviceState, drafts: Drafts, change: StateChange, device: CachedDevice | None
    ) -> bool:
        try:
            await self._store.recorder.record_many(self._store.identity(loaded), drafts, (change,))
        except StateConflictError:
            # The device was active after all.
            return False
        if device is not None:
            device.invalidate()
        return True
