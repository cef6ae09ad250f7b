"""
Sessions: started and ended explicitly, or continued by each activity.
"""

import logging

from attrs import evolve

from exponea_async.devices.device_context import DeviceContext
from exponea_async.devices.sessions import session_end, session_start
from exponea_async.devices.state import DeviceState, PendingEvent, TimestampSequence, UpdateResult, unchanged
from exponea_async.features._shared.verbs import SubjectVerbs, drops_invalid
from exponea_async.models import Receipt, Timestamp

LOG = logging.getLogger("exponea_async")

AUTOMATIC = "sessions are tracked automatically"
NOT_OPEN = "no session is open"


class SessionVerbs(SubjectVerbs):
    """The sessions of a device."""

    __slots__ = ()

    @drops_invalid
    async def track_session_start(self, timestamp: Timestamp = None) -> Receipt:
        """
        Start a session, where sessions are not tracked automatically.

        An open session is ended first, unless ``manual_session_auto_close=False``: then its end is never tracked.

        Args:
            timestamp: When the session starts; by default the time of the call.

        Returns:
            The receipt of the start; a dropped one where sessions are automatic.

        Raises:
            InvalidEventError: The timestamp is not a timestamp, or the subject is a customer tracker.
            StorageError: The storage refused; nothing was recorded.
            LifecycleError: The client was not started, or is closed.
        """
        context = self._device_context
        if await _is_ignored(context, "track_session_start"):
            return context.recorder.dropped(AUTOMATIC)
        started_at = context.recorder.read_timestamp(timestamp)

        def update(state: DeviceState, timestamps: TimestampSequence) -> UpdateResult:
            at = timestamps.next() if started_at is None else started_at
            events: list[PendingEvent] = []
            if state.session_start is not None and context.configuration.manual_session_auto_close:
                events.append(session_end(state, at, context.configuration))
            state, started = session_start(state, at, context.configuration)
            return evolve(state, last_activity=None), [*events, started]

        return (await context.transact(update))[-1]

    @drops_invalid
    async def track_session_end(self, timestamp: Timestamp = None) -> Receipt:
        """
        End the session, where sessions are not tracked automatically.

        Args:
            timestamp: When the session ends; by default the time of the call.

        Returns:
            The receipt of the end; a dropped one where sessions are automatic, or no session is open.

        Raises:
            InvalidEventError: The timestamp is not a timestamp, or the subject is a customer tracker.
            StorageError: The storage refused; nothing was recorded.
            LifecycleError: The client was not started, or is closed.
        """
        context = self._device_context
        if await _is_ignored(context, "track_session_end"):
            return context.recorder.dropped(AUTOMATIC)
        ended_at = context.recorder.read_timestamp(timestamp)

        def update(state: DeviceState, timestamps: TimestampSequence) -> UpdateResult:
            if state.session_start is None:
                LOG.warning("track_session_end() is ignored: %s.", NOT_OPEN)
                return state, ()
            event = session_end(state, timestamps.next() if ended_at is None else ended_at, context.configuration)
            return evolve(state, session_start=None, last_activity=None), [event]

        receipts = await context.transact(update)
        return receipts[-1] if receipts else context.recorder.dropped(NOT_OPEN)

    async def resume(self) -> None:
        """
        Note that the application is in the foreground: a session continues or starts, and the push token is verified.

        Until `pause()`, or the end of the client, the session continues without events.

        Raises:
            InvalidEventError: The subject is a customer tracker.
            StorageError: The storage refused; nothing was recorded.
            LifecycleError: The client was not started, or is closed.
        """
        await self._device_context.transact(unchanged, foreground=True)

    async def pause(self) -> None:
        """
        Note that the application is in the background: the session ends here, unless the application returns in time.

        Raises:
            InvalidEventError: The subject is a customer tracker.
            StorageError: The storage refused; nothing was recorded.
            LifecycleError: The client was not started, or is closed.
        """
        await self._device_context.transact(unchanged, foreground=False)


async def _is_ignored(context: DeviceContext, name: str) -> bool:
    if not context.recorder.check_running():
        return True
    if not context.configuration.automatic_session_tracking:
        return False
    # The call is activity all the same.
    await context.transact(unchanged)
    LOG.warning("%s() is ignored: %s.", name, AUTOMATIC)
    return True
