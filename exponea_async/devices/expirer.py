"""
The one task that ends the sessions of devices that have fallen silent.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence
from math import inf

from exponea_async.config import Configuration
from exponea_async.devices.sessions import closed, idle_before
from exponea_async.devices.state import DeviceState, PendingEvent
from exponea_async.devices.store import CachedDevice, Devices, Drafts, decoded
from exponea_async.errors import ExponeaError, LifecycleError, StateConflictError, StorageError
from exponea_async.models import Event
from exponea_async.storage.base import State, StateChange

LOG = logging.getLogger("exponea_async")

#: How often silent devices are looked for, in seconds.
PERIOD = 1.0
#: How many sessions are ended in one go, which takes the event loop for a millisecond. More would hardly be faster.
BATCH = 20


class SessionExpirer:
    """
    Ends sessions that nobody else will end: whatever process they began in, and whatever became of it.

    Args:
        devices: The devices.
        configuration: Tells how long a device may be silent.
        clock: Tells UNIX seconds.
    """

    def __init__(self, devices: Devices, configuration: Configuration, clock: Callable[[], float]) -> None:
        self._devices = devices
        self._configuration = configuration
        self._clock = clock
        self._task: asyncio.Task[None] | None = None
        self._hopeless: dict[str, int] = {}

    def start(self) -> None:
        """Begin to sweep, where sessions are automatic."""
        if self._configuration.automatic_session_tracking:
            self._task = asyncio.create_task(self._sweep_for_ever(), name="exponea_async: sweep")

    async def aclose(self) -> None:
        """End the task. Whatever is in front of somebody was active until now."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.wait([task])
            try:
                await self._attend()
            except StorageError as error:
                LOG.warning("The last activity of devices in front of somebody was not kept: %s", error)
            self._devices.present.clear()

    async def sweep(self, *, everyone: bool = False) -> int:
        """
        End the sessions that have been silent for too long, each at its last activity.

        Args:
            everyone: End all sessions that are open.

        Returns:
            How many were ended.

        Raises:
            StorageError: The storage refused.
        """
        # That they are there is written down a few times within the timeout.
        await self._attend(self._configuration.session_timeout / 4)
        count, passed = 0, 0
        before = inf if everyone else idle_before(self._clock(), self._configuration.session_timeout)
        # Those that could not be ended must not stand in the way of those behind them.
        while silent := await self._devices.storage.expired_sessions(before, limit := BATCH + passed):
            ended = sum(await asyncio.gather(*[self._end(name, state, before) for name, state in silent]))
            count += ended
            passed = len(silent) - ended
            if not ended and passed < limit:
                break
        return count

    async def _sweep_for_ever(self) -> None:
        while True:
            try:
                await self.sweep()
            except ExponeaError as error:
                LOG.warning("Silent sessions could not be ended, and will be later: %s", error)
            await asyncio.sleep(PERIOD)

    async def _attend(self, rest: float = 0.0) -> None:
        """Devices in front of somebody are active; write that down where it was so long ago, in seconds."""
        now = self._clock()
        late = [slot for slot in self._devices.present if now - slot.last >= rest]
        for start in range(0, len(late), BATCH):
            await asyncio.gather(*[self._devices.touch(slot, now) for slot in late[start : start + BATCH]])

    async def _end(self, name: str, stored: State, before: float) -> bool:
        slot = self._devices.peek(name)
        if slot in self._devices.present and before < inf:
            return False
        active = stored.active
        if slot is not None and active is not None and slot.last > active:
            if slot.last >= before:
                # It was active just now, and that is still on its way to the storage.
                return False
            # The verb failed, or its caller has given up. It was a sign of life all the same.
            active = slot.last
        try:
            kept = decoded(name, stored.value, stored.version, active)
            state, told = closed(kept, self._configuration)
            drafts = self._drafts(told)
        except LifecycleError:
            raise
        except Exception as error:  # noqa: BLE001 - a hook may raise anything, and others' sessions are to end
            self._complain(name, stored.version, error)
            return False
        change = StateChange(name, state.encode(), kept.version, active=None, seen=kept.last_activity)
        return await self._close(kept, drafts, change, slot)

    def _drafts(self, told: Sequence[PendingEvent]) -> Drafts:
        recorder = self._devices.recorder
        drafts = [recorder.draft_event(each.kind, each.event) for each in told if isinstance(each.event, Event)]
        return [(None, draft) for draft in drafts if draft is not None]

    def _complain(self, name: str, version: int, error: Exception) -> None:
        """Tell once what will be tried again and again."""
        if self._hopeless.get(name) != version:
            self._hopeless[name] = version
            LOG.error("The session of %r can't be ended: %s", name, error, exc_info=error)

    async def _close(self, kept: DeviceState, drafts: Drafts, change: StateChange, slot: CachedDevice | None) -> bool:
        try:
            await self._devices.recorder.keep_all(self._devices.identity(kept), drafts, (change,))
        except StateConflictError:
            # It was active after all.
            return False
        if slot is not None:
            slot.empty()
        return True
