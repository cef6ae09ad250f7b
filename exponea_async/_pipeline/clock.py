"""
Timestamps of events: no two of them are equal.
"""

import math
from collections.abc import Callable
from math import ceil, inf
from threading import Lock
from weakref import WeakKeyDictionary

from exponea_async._internal.system_time import is_system_time

#: The resolution of UNIX seconds as a float, in seconds, until the year 2038.
UNIT = 2.0**-22
#: The number of openings of a storage that have timestamps of their own.
SLOTS = 8
#: The difference between two consecutive timestamps of a client, in seconds: about 2 microseconds.
STEP = SLOTS * UNIT
_STEPS_PER_SECOND = 1 / STEP
#: A clock that is set back by more than this, in seconds, is followed: it was wrong before.
CORRECTION = 1.0
#: Seconds of which it is remembered which timestamps were given.
MAX_SECONDS = 10_000


class UniqueClock:
    """
    A clock that never returns the same timestamp twice.

    The platform removes events that are identical byte for byte, timestamp included. That makes retried uploads
    harmless, and two equal events that really happened must therefore differ in their timestamps. Neither do two
    clients of a process return the same one if they have the same clock, nor do processes that share a queue file: the
    readings of the system's clock are rounded up to multiples of `STEP`, and each opening of a file adds its own number
    of units. A clock of the application, for tests, is not rounded.

    Args:
        clock: Returns UNIX seconds.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._is_rounded = is_system_time(clock)
        self._offset = 0.0
        self._last = -math.inf
        self._given = _given_by(clock)

    def use_slot(self, number: int) -> None:
        """Return timestamps that differ from those of clocks with another number; 8 numbers can be told apart."""
        self._offset = number % SLOTS * UNIT

    def next(self) -> float:
        """Return the current timestamp, moved forward in steps of `STEP` where it has been returned before."""
        # As `_read`, which takes as long to call as the rest.
        now, last = self._clock(), self._last
        if self._is_rounded:
            now = ceil(now * _STEPS_PER_SECOND) * STEP + self._offset
        if now <= last and last - now < CORRECTION:
            now = last + STEP
        given = self._given
        second = now // 1
        with given.lock:
            if given.last.get(second, inf) < now:
                # The usual case, without a search.
                self._last = given.last[second] = now
                return now
        self._last = now = given.claim_many(now, 1)
        return now

    def reserve(self, count: int) -> float:
        """Return the first of `count` timestamps at intervals of `STEP`; no other caller gets one of them."""
        first = self._given.claim_many(self._read(), count)
        self._last = first + (count - 1) * STEP
        return first

    def _read(self) -> float:
        now = self._clock()
        if self._is_rounded:
            now = ceil(now * _STEPS_PER_SECOND) * STEP + self._offset
        last = self._last
        return last + STEP if now <= last and last - now < CORRECTION else now


class _Given:
    """
    The timestamps that were given.

    Attributes:
        last: The last one of each second.
        lock: Held while `last` is used.
    """

    def __init__(self) -> None:
        self.last: dict[float, float] = {}
        # A process may have several event loops, in threads.
        self.lock = Lock()

    def claim_many(self, first: float, count: int) -> float:
        """Return the first timestamp from which on none of `count` has been given, by moving on in steps."""
        with self.lock:
            while (last := self._find_last(first, count)) >= first:
                first += (math.floor((last - first) / STEP) + 1) * STEP
            end = first + (count - 1) * STEP
            self.last.update((second, min(end, second + 1)) for second in _seconds(first, end))
            if len(self.last) > MAX_SECONDS:
                for oldest in list(self.last)[: MAX_SECONDS // 2]:
                    del self.last[oldest]
            return first

    def _find_last(self, first: float, count: int) -> float:
        return max(self.last.get(second, -math.inf) for second in _seconds(first, first + (count - 1) * STEP))


def _seconds(first: float, last: float) -> range:
    return range(math.floor(first), math.floor(last) + 1)


# By clock: clocks that are given by tests, and stand still, must not affect each other.
_all_given: WeakKeyDictionary[Callable[[], float], _Given] = WeakKeyDictionary()


def _given_by(clock: Callable[[], float]) -> _Given:
    original = getattr(clock, "__wrapped__", clock)
    try:
        return _all_given.setdefault(original, _Given())
    except TypeError:  # some functions written in C can't be referenced weakly
        return _Given()
