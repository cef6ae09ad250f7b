"""
The order of the calls that change a client.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, nullcontext

from exponea_async._internal.closing import Deadline


class Turns:
    """
    Lets one call after the other change a client.

    Args:
        loop: The event loop of the calls; None before the first one.

    Attributes:
        loop: The event loop of the calls.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop | None = None) -> None:
        self.loop = loop
        self._lock = asyncio.Lock()
        # The deadline of the call whose turn it is.
        self._present: Deadline | None = None

    @property
    def is_taken(self) -> bool:
        """Whether a call changes the client."""
        return self._lock.locked()

    async def wait(self) -> None:
        """Wait until no call changes the client; the next one may begin at once."""
        async with self._lock:
            pass

    @asynccontextmanager
    async def take(self, deadline: Deadline | None = None, *, is_urgent: bool = False) -> AsyncIterator[None]:
        """
        Wait until no other call changes the client, and keep others waiting meanwhile.

        Args:
            deadline: The deadline of the call; None if it can't be brought forward.
            is_urgent: Whether the call before must end at this one's deadline, too, and whether to go on waiting where
                this is cancelled, which brings the deadline forward.
        """
        with deadline.calling(self._hurry) if deadline and is_urgent else nullcontext():
            while not await self._acquire(ignores_cancellation=is_urgent):
                if deadline is not None:
                    deadline.expire()
        self._present = deadline
        try:
            yield
        finally:
            self._present = None
            self._lock.release()

    async def _acquire(self, *, ignores_cancellation: bool) -> bool:
        """Acquire the lock, or return whether that was cancelled."""
        try:
            await self._lock.acquire()
        except asyncio.CancelledError:
            if not ignores_cancellation:
                raise
            return False
        return True

    def _hurry(self) -> None:
        if self._present is not None:
            self._present.expire()
