"""
The one task that ends the sessions of devices that have fallen silent.
"""

import asyncio
import logging
from collections.abc import Callable
from math import inf, nextafter

from exponea_async.config import Configuration
from exponea_async.devices import Devices, Slot, decoded
from exponea_async.errors import ExponeaError, StateConflictError, StorageError
from exponea_async.features._sessions import closed
from exponea_async.features._state import DeviceState
from exponea_async.models import Event
from exponea_async.storage.base import State, StateChange

LOG = logging.getLogger("exponea_async")

#: How often silent devices are looked for, in seconds.
PERIOD = 1.0
#: How many sessions are ended in one go; others get the event loop in between.
BATCH = 100


class Sweeper:
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

    def start(self) -> None:
        """Begin to sweep, where sessions are automatic."""
        if self._configuration.automatic_session_tracking:
            self._task = asyncio.create_task(self._sweep_for_ever(), name="exponea_async: sweep")

    async def aclose(self) -> None:
        """End the task."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.wait([task])

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
        count = 0
        # What falls silent exactly now is included.
        before = inf if everyone else nextafter(self._clock() - self._configuration.session_timeout, inf)
        while silent := await self._devices.storage.expired_sessions(before, BATCH):
            ended = sum(await asyncio.gather(*[self._end(name, state) for name, state in silent]))
            count += ended
            if not ended:
                break
        return count

    async def _sweep_for_ever(self) -> None:
        while True:
            try:
                await self.sweep()
            except ExponeaError as error:
                LOG.warning("Silent sessions could not be ended, and will be later: %s", error)
            await asyncio.sleep(PERIOD)

    async def _end(self, name: str, stored: State) -> bool:
        slot = self._devices.peek(name)
        if slot is not None and stored.active is not None and slot.last > stored.active:
            # It was active just now, and that is still on its way to the storage.
            return False
        try:
            kept = decoded(name, stored.value, stored.version, stored.active)
        except StorageError as error:
            LOG.error("%s", error)  # noqa: TRY400 - it tells all there is
            return False
        return await self._close(name, kept, slot)

    async def _close(self, name: str, kept: DeviceState, slot: Slot | None) -> bool:
        street = self._devices.street
        state, told = closed(kept, self._configuration)
        change = StateChange(name, state.encode(), kept.version, active=None, seen=kept.last_activity)
        drafts = [street.draft_event(each.kind, each.event) for each in told if isinstance(each.event, Event)]
        try:
            await street.keep_all(
                self._devices.identity(kept), [(None, draft) for draft in drafts if draft is not None], (change,)
            )
        except StateConflictError:
            # It was active after all.
            return False
        if slot is not None:
            slot.empty()
        return True
