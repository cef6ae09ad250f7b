"""
Rate limits that the clients of a storage share: when the next requests may be sent.
"""

from exponea_async.storage.values import MAX_DUE_AHEAD

#: How much unused time is saved up, in seconds: a client whose reservation took long catches up. More would let all
#: clients send a burst at once after an idle time, which the platform refuses.
MAX_SAVED_TIME = 0.1


def advance(next_at: float, now: float, count: int, rate: float) -> tuple[float, float]:
    """
    Reserve requests: return the wait until the first one, and the next value to store, both in seconds.

    Args:
        next_at: The stored value: the time from which on nothing is reserved, by the clock of `now`; 0 at first.
        now: The present time. The clock must not be changed by corrections of the system's time.
        count: The number of requests.
        rate: The maximum number of requests per second.
    """
    if next_at > now + MAX_DUE_AHEAD:
        # It was stored by another clock, for example before the machine was started.
        next_at = now
    first = max(next_at, now - MAX_SAVED_TIME)
    return max(0.0, first - now), first + count / rate
