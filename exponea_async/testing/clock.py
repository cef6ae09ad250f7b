"""
A clock that tests set.
"""

import time
from datetime import datetime, timedelta

from exponea_async._internal.arguments import read_timestamp


class Clock:
    """
    A clock for ``Exponea(configuration, clock=...)`` that a test sets and moves.

    It shows the system's time until it is set, and so follows ``freezegun`` and ``time-machine``. Once it is set, it
    stands still::

        clock = Clock(1_767_225_600)
        clock.advance(timedelta(minutes=1))
        print(clock())  # 1767225660.0

    Args:
        at: The time at which it stands still, an aware datetime or UNIX seconds; None for the system's time.

    Raises:
        InvalidEventError: The time is naive, not finite, or looks like milliseconds.
    """

    def __init__(self, at: datetime | float | None = None) -> None:
        self._at: float | None = None
        self._offset = 0.0
        if at is not None:
            self.set(at)

    def __call__(self) -> float:
        """Return the time, UNIX seconds."""
        return time.time() + self._offset if self._at is None else self._at

    def __repr__(self) -> str:
        return f"<Clock {self():.6f}{'' if self._at is None else ', set'}>"

    def set(self, at: datetime | float) -> None:
        """
        Set the clock, and let it stand still.

        Args:
            at: An aware datetime or UNIX seconds.

        Raises:
            InvalidEventError: The time is naive, not finite, or looks like milliseconds.
        """
        self._at = read_timestamp(at, "clock")

    def advance(self, by: timedelta | float) -> None:
        """
        Move the clock. One that was set stands still afterwards, too; the others go on from there.

        Args:
            by: A duration, in seconds or as a timedelta; negative to move it back.
        """
        seconds = by.total_seconds() if isinstance(by, timedelta) else float(by)
        if self._at is None:
            self._offset += seconds
        else:
            self._at += seconds

    def reset(self) -> None:
        """Show the system's time again."""
        self._at, self._offset = None, 0.0
