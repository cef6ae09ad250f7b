"""
Sessions: started and ended by hand, or going on with each sign of life.
"""

import logging
from typing import TYPE_CHECKING

from attrs import evolve

from exponea_async.devices.context import SubjectContext
from exponea_async.devices.sessions import begun, ended
from exponea_async.devices.state import DeviceState, TimestampSequence, UpdateResult, nothing
from exponea_async.models import Receipt, Timestamp

LOG = logging.getLogger("exponea_async")

AUTOMATIC = "sessions are tracked automatically"
NONE_OPEN = "no session is open"


class SessionVerbs:
    """The verbs of sessions."""

    __slots__ = ()

    if TYPE_CHECKING:

        @property
        def _context(self) -> SubjectContext: ...

    async def track_session_start(self, timestamp: Timestamp = None) -> Receipt:
        """
        Start a session by hand, where sessions are not tracked automatically.

        One that is open is ended first, unless ``manual_session_auto_close=False``: then its end is never told.

        Args:
            timestamp: When; by default the moment of the call.

        Returns:
            The receipt of the start; a dropped one where sessions are automatic.

        Raises:
            InvalidEventError: The timestamp is no moment, or the subject remembers nothing.
            StorageError: The storage refused; nothing was kept.
            LifecycleError: The client was not started, or is closed.
        """
        context = self._context
        if await _is_ignored(context, "track_session_start"):
            return context.recorder.dropped(AUTOMATIC)
        moment = context.recorder.moment(timestamp)

        def plan(state: DeviceState, moments: TimestampSequence) -> UpdateResult:
            at = moments.next() if moment is None else moment
            told = []
            if state.session_start is not None and context.configuration.manual_session_auto_close:
                told.append(ended(state, at, context.configuration))
            state, started = begun(state, at, context.configuration)
            return evolve(state, last_activity=None), [*told, started]

        return (await context.change(plan))[-1]

    async def track_session_end(self, timestamp: Timestamp = None) -> Receipt:
        """
        End the session by hand, where sessions are not tracked automatically.

        Args:
            timestamp: When; by default the moment of the call.

        Returns:
            The receipt of the end; a dropped one where sessions are automatic, or none is open.

        Raises:
            InvalidEventError: The timestamp is no moment, or the subject remembers nothing.
            StorageError: The storage refused; nothing was kept.
            LifecycleError: The client was not started, or is closed.
        """
        context = self._context
        if await _is_ignored(context, "track_session_end"):
            return context.recorder.dropped(AUTOMATIC)
        moment = context.recorder.moment(timestamp)

        def plan(state: DeviceState, moments: TimestampSequence) -> UpdateResult:
            if state.session_start is None:
                LOG.warning("track_session_end() is ignored: %s.", NONE_OPEN)
                return state, ()
            told = ended(state, moments.next() if moment is None else moment, context.configuration)
            return evolve(state, session_start=None, last_activity=None), [told]

        receipts = await context.change(plan)
        return receipts[-1] if receipts else context.recorder.dropped(NONE_OPEN)

    async def resume(self) -> None:
        """
        Tell that the application came in front of somebody: a session goes on or starts, and the push token is checked.

        Until `pause()`, or the end of the client, the session goes on by itself, whether or not anything is tracked.

        Raises:
            InvalidEventError: The subject remembers nothing.
            StorageError: The storage refused; nothing was kept.
            LifecycleError: The client was not started, or is closed.
        """
        await self._context.change(nothing, present=True)

    async def pause(self) -> None:
        """
        Tell that the application went away: that is the session's last activity, unless it comes back in time.

        Raises:
            InvalidEventError: The subject remembers nothing.
            StorageError: The storage refused; nothing was kept.
            LifecycleError: The client was not started, or is closed.
        """
        await self._context.change(nothing, present=False)


async def _is_ignored(context: SubjectContext, verb: str) -> bool:
    if not context.recorder.check_running():
        return True
    if not context.configuration.automatic_session_tracking:
        return False
    # A sign of life it is, and a subject without sessions refuses it.
    await context.change(nothing)
    LOG.warning("%s() is ignored: %s.", verb, AUTOMATIC)
    return True
