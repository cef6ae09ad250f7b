"""
The system's time, as it is at the moment of the call.
"""

import time
from collections.abc import Callable


def system_time() -> float:
    """
    Return UNIX seconds.

    The default of a parameter must be this function, never ``time.time``: libraries such as freezegun replace
    ``time.time``, and a default that was evaluated before that would go on to return the real time.
    """
    return time.time()


def is_system_time(clock: Callable[[], float]) -> bool:
    """Return whether a clock is the system's, as it is or as a test has replaced it."""
    return clock is system_time or clock is time.time
