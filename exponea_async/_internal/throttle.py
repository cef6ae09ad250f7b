"""
Log lines that must not flood the log.
"""

import time
from collections.abc import Callable

#: At most one line of a kind in this time, in seconds.
INTERVAL = 60.0


class Throttle:
    """
    Limits how often something is logged.

    Args:
        interval: The time between two lines, in seconds.
        clock: Returns seconds.
    """

    __slots__ = ("_clock", "_interval", "_next", "_suppressed")

    def __init__(self, interval: float = INTERVAL, clock: Callable[[], float] = time.monotonic) -> None:
        self._interval = interval
        self._clock = clock
        self._next = float("-inf")
        self._suppressed = 0

    def admit(self) -> str | None:
        """
        Return what to append to the line, which says how many were left out before it; None where it is left out.
        """
        now = self._clock()
        if now < self._next:
            self._suppressed += 1
            return None
        self._next, suppressed = now + self._interval, self._suppressed
        self._suppressed = 0
        return f" ({suppressed} more since the last such line)" if suppressed else ""
