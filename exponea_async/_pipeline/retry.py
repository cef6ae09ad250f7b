"""
How long to wait between attempts, and when to stop.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable

from tenacity import (
    AsyncRetrying,
    RetryCallState,
    retry_if_exception,
    retry_if_exception_type,
    stop_after_attempt,
    wait_random_exponential,
)

from exponea_async.config import UploadSettings
from exponea_async.errors import StorageError, UnavailableError

#: The longest wait that the platform has not asked for, in seconds.
MAX_WAIT = 1800.0
#: A project that refuses its key is tried again after this many seconds, doubled after each refusal.
PAUSE_INITIAL = 60.0
PAUSE_MAX = 3600.0
#: A request whose caller waits is not repeated if the platform asks for a longer wait than this, in seconds.
MAX_REQUEST_WAIT = 30.0
#: No power of two beyond this is computed; the wait has long reached its maximum.
_MAX_EXPONENT = 64


class Backoff:
    """
    Exponential back-off with full jitter, never shorter than the wait that the platform asks for.

    Args:
        settings: They give the first and the longest wait.
        uniform: Return a random number between two bounds.
    """

    def __init__(self, settings: UploadSettings, uniform: Callable[[float, float], float] = random.uniform) -> None:
        self._initial = settings.backoff_initial
        self._max = settings.backoff_max
        self._uniform = uniform

    def seconds(self, attempt: int, retry_after: float | None = None) -> float:
        """
        Return how long to wait, in seconds.

        Args:
            attempt: Number of failures in a row, at least 1.
            retry_after: The wait that the platform asks for, in seconds.
        """
        ceiling = min(self._initial * 2.0 ** min(attempt - 1, _MAX_EXPONENT), self._max)
        return max(min(self._uniform(0.0, ceiling), MAX_WAIT), retry_after or 0.0)


def pause_seconds(attempt: int) -> float:
    """Return how long a project stays paused after a number of refusals in a row, at least 1; in seconds."""
    return min(PAUSE_INITIAL * 2.0 ** min(attempt - 1, _MAX_EXPONENT), PAUSE_MAX)


def storage_attempts() -> AsyncRetrying:
    """
    Return a retry loop that repeats while the storage fails, without end: a known verdict must be stored.

    Each call returns a loop of its own, since tenacity keeps the state of the loop on it.
    """
    return AsyncRetrying(
        retry=retry_if_exception_type(StorageError),
        wait=wait_random_exponential(multiplier=0.1, max=5.0),
        reraise=True,
    )


def request_attempts(backoff: Backoff, max_attempts: int, pause: Callable[[float], Awaitable[None]]) -> AsyncRetrying:
    """
    Return a retry loop for a request whose caller waits: it repeats while there is no usable response.

    It does not repeat if the platform asks for a longer wait than `MAX_REQUEST_WAIT`.

    Args:
        backoff: The waits between attempts.
        max_attempts: The number of attempts.
        pause: Waits for a number of seconds. If it raises, there is no further attempt.
    """

    def is_retryable(error: BaseException) -> bool:
        return isinstance(error, UnavailableError) and (error.retry_after or 0.0) <= MAX_REQUEST_WAIT

    def wait(state: RetryCallState) -> float:
        error = state.outcome.exception() if state.outcome else None
        return backoff.seconds(state.attempt_number, getattr(error, "retry_after", None))

    return AsyncRetrying(
        sleep=pause,
        retry=retry_if_exception(is_retryable),
        wait=wait,
        stop=stop_after_attempt(max_attempts),
        reraise=True,
    )


class RateLimiter:
    """
    Spaces requests evenly. Idle time is not saved up for a burst.

    Args:
        per_second: Maximum number of requests per second.
    """

    def __init__(self, per_second: float) -> None:
        self._interval = 1.0 / per_second
        self._next = 0.0

    async def acquire(self) -> None:
        """Wait for the turn of a request. The turn of a caller that is cancelled passes unused."""
        now = asyncio.get_running_loop().time()
        wait = max(0.0, self._next - now)
        self._next = now + wait + self._interval
        if wait:
            await asyncio.sleep(wait)
