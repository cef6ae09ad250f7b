"""
Whether an age can be relied on: a clock that is wrong for a moment must not make records seem old.
"""

import time
from collections.abc import Sequence

from exponea_async.storage.base import FIRST_PLAUSIBLE_TIME, Leased

#: A change of the system's clock by more than this, compared with the monotonic clock, is a jump, in seconds.
MAX_DRIFT = 60.0
#: How long no age counts after a jump, in seconds.
SETTLED = 600.0


class AgeClock:
    """Watches the system's clock for jumps; `observe` must be called often."""

    def __init__(self) -> None:
        self._start = time.time()
        self._started = time.monotonic()
        self._offset = self._start - self._started
        self._jumped_at = float("-inf")

    def observe(self) -> None:
        """Compare the system's clock with the monotonic one."""
        now = time.monotonic()
        offset = time.time() - now
        if abs(offset - self._offset) > MAX_DRIFT:
            self._jumped_at = now
        self._offset = offset

    def older(self, records: Sequence[Leased], max_age: float) -> frozenset[str]:
        """Return the ids of the records that were written further in the past than a number of seconds."""
        # Usually none is: one comparison for all.
        if not records or min([record.at for record in records]) >= time.time() - max_age:
            return frozenset()
        return frozenset(record.id for record in records if self.is_older(record.at, max_age))

    def is_older(self, at: float, max_age: float) -> bool:
        """
        Return whether a time is further in the past than a number of seconds, as far as that is reliable.

        No age is reliable if the clock has jumped shortly before. The time of an earlier run may come from another
        clock, or the present one may not have been set yet; so such a time counts only after a while.

        Args:
            at: The time, UNIX seconds.
            max_age: The number of seconds.
        """
        if at >= time.time() - max_age or at < FIRST_PLAUSIBLE_TIME:
            return False
        self.observe()
        now = time.monotonic()
        is_settled = at >= self._start or now - self._started >= min(SETTLED, max_age)
        return is_settled and now - self._jumped_at >= SETTLED
