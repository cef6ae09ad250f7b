"""
How long the upload waits for more events, so that many of them leave in one request.
"""

import asyncio
from collections.abc import Callable
from math import inf

from exponea_async.config import UploadSettings


class Linger:
    """
    Decides when the upload looks at the queue again.

    A batch begins with the first record that is written after a look. It is busy if that happens less than `linger_max`
    after a look that found records, or that followed writes; otherwise the first record is a lone one. The next look is
    made in the first of these cases that applies:

    ====================================================  =======================================================
    a flush, another flush mode, or the end of a probe    at once
    no batch has begun                                    when something falls due, or when an idle upload looks
    the batch has `batch_size` records of this process    `linger` after the beginning of the batch
    a caller waits for a receipt                          `linger` after the beginning of the batch
    the batch is not busy                                 `linger` after the beginning of the batch
    the batch is busy                                     `linger_max` after the beginning of the batch, or earlier
                                                          when something falls due, but not before `linger` after it
    ====================================================  =======================================================

    A `linger_max` below `linger` counts as `linger`.

    A look for a full batch takes full batches only: the few records that were written after the last of them would make
    a request of their own, and begin the next batch instead. Any other look takes all records, and there is one every
    `linger_max`, since the count is only of what this process has written.

    All methods are called in the event loop of the upload.

    Args:
        settings: The waits, and the size of a full batch.
    """

    def __init__(self, settings: UploadSettings) -> None:
        self._shortest = settings.linger
        self._longest = max(settings.linger, settings.linger_max)
        self._full = settings.batch_size
        self.reset()

    def reset(self) -> None:
        """Begin anew, maybe in another event loop: look at once."""
        # When the batch began, in event-loop time; None where there is none.
        self._began: float | None = None
        # The records of the batch that this process has written.
        self._count = 0
        self._is_short = False
        self._is_expedited = True
        # When there was the last look that found records, or that followed writes.
        self._last_active = -inf
        # When a look last left nothing.
        self._emptied_at = -inf
        self._sleeper: asyncio.Future[None] | None = None

    # What happens

    def note_written(self, count: int) -> None:
        """State that this process has written records."""
        before = self._count
        self._count = after = before + count
        if self._began is None:
            self._begin()
        elif before < self._full <= after:
            self.recheck()

    def note_others(self) -> None:
        """State that another process has written records; how many is not known."""
        if self._began is None:
            self._begin()

    def shorten(self) -> None:
        """State that a caller waits for records that were written."""
        if self._began is not None and not self._is_short:
            self._is_short = True
            self.recheck()

    def expedite(self) -> None:
        """Look at once."""
        self._is_expedited = True
        self.recheck()

    def recheck(self) -> None:
        """Decide again how long to wait, since what falls due next may have changed."""
        if self._sleeper is not None and not self._sleeper.done():
            self._sleeper.set_result(None)

    def begin_look(self, limit: int) -> int:
        """
        State that a look begins: what is written from now on is of the next batch.

        Args:
            limit: The maximum number of records to take.

        Returns:
            How many records to take.
        """
        now = asyncio.get_running_loop().time()
        if self._began is not None:
            self._last_active = now
        takes_all = self._is_expedited or self._is_short or now - self._emptied_at >= self._longest
        self._is_short = self._is_expedited = False
        if takes_all or self._count < self._full:
            self._began, self._count = None, 0
            return limit
        limit = min(limit, self._count - self._count % self._full)
        self._began, self._count = now, self._count - limit
        return limit

    def end_look(self, found: int, limit: int) -> None:
        """
        State that a look has ended.

        Args:
            found: How many records it took.
            limit: How many it would have taken.
        """
        now = asyncio.get_running_loop().time()
        if found:
            self._last_active = now
        if found < limit:
            self._emptied_at = now

    def _begin(self) -> None:
        self._began = asyncio.get_running_loop().time()
        self._is_short = self._began - self._last_active >= self._longest
        self.recheck()

    # Waiting

    async def wait(self, next_due: Callable[[], float], idle: float) -> None:
        """
        Wait until it is time for a look.

        Args:
            next_due: Returns when a retried record or a probe falls due, in event-loop time.
            idle: When to look if nothing happens.
        """
        loop = asyncio.get_running_loop()
        while (look_at := self._next_look(next_due(), idle)) > loop.time():
            self._sleeper = loop.create_future()
            timer = loop.call_at(look_at, self.recheck)
            try:
                await self._sleeper
            finally:
                timer.cancel()
                self._sleeper = None

    def _next_look(self, due: float, idle: float) -> float:
        if self._is_expedited:
            return -inf
        if self._began is None:
            return min(due, idle)
        earliest = self._began + self._shortest
        if self._is_short or self._count >= self._full:
            return earliest
        return min(self._began + self._longest, max(due, earliest))
