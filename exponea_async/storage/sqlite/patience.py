"""
How long callers wait for another program's lock on the file.
"""

import time
from math import inf


class Patience:
    """
    How long a connection waits for another program's lock: until a time that can be changed while it waits.

    Args:
        timeout: The longest wait of a caller, in seconds.
    """

    __slots__ = ("_end", "_since", "_timeout")

    def __init__(self, timeout: float) -> None:
        self._timeout = timeout
        self._since = 0.0
        self._end = inf

    def begin(self, since: float) -> None:
        """Begin to wait for callers of whom the first made its call at this monotonic time."""
        self._since = since

    def end_within(self, seconds: float) -> None:
        """Wait no longer than this from now on, whoever waits, until `reset`."""
        self._end = time.monotonic() + seconds

    def reset(self) -> None:
        """Wait as long as the timeout again."""
        self._end = inf

    def is_over(self, since: float | None = None) -> bool:
        """Return whether a caller that made its call at a monotonic time, or the first one, has waited enough."""
        return time.monotonic() >= min(self._end, (self._since if since is None else since) + self._timeout)
