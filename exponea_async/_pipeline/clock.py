"""
Timestamps of events: unique within a process.
"""

from collections.abc import Callable

#: The difference between two consecutive timestamps, in seconds.
STEP = 1e-6
#: A clock that is set back by more than this, in seconds, is followed: it was wrong before.
CORRECTION = 1.0


class UniqueClock:
    """
    A clock that never returns the same timestamp twice.

    The platform removes events that are identical byte for byte, timestamp included. That makes retried uploads
    harmless, and two equal events that really happened must therefore differ in their timestamps.

    Args:
        clock: Returns UNIX seconds.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._last = float("-inf")

    def next(self) -> float:
        """Return the current timestamp, moved forward by `STEP` where the clock stands still."""
        now = float(self._clock())
        if now <= self._last and self._last - now < CORRECTION:
            now = self._last + STEP
        self._last = now
        return now

    def reserve(self, count: int) -> float:
        """Return the first of `count` timestamps at intervals of `STEP`; no other caller gets one of them."""
        first = self.next()
        self._last = first + (count - 1) * STEP
        return first
