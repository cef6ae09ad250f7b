"""
How long to wait and when to stop, said once.
"""

import asyncio

from tenacity import (
    AsyncRetrying,
    RetryCallState,
    retry_if_exception,
    retry_if_exception_type,
    stop_after_attempt,
    wait_random_exponential,
)

from exponea_async._pipeline.commands import LONGEST_WAIT
from exponea_async.config import UploadSettings
from exponea_async.errors import StorageError, UnavailableError

#: A project that refuses our key is asked again after this many seconds, then ever more seldom.
PAUSE_INITIAL = 60.0
PAUSE_MAX = 3600.0
#: Who asks something waits for so long at the most, in seconds, because the platform asked for it.
PATIENCE = 30.0


class Backoff:
    """
    Full-jitter exponential waits, never shorter than what the platform asks for.

    Args:
        settings: Tells the first and the longest wait.
    """

    def __init__(self, settings: UploadSettings) -> None:
        self._wait = wait_random_exponential(multiplier=settings.backoff_initial, max=settings.backoff_max)

    def seconds(self, attempt: int, retry_after: float | None = None) -> float:
        """Tell how long to wait after the `attempt`-th failure in a row, 1 being the first."""
        state = RetryCallState(AsyncRetrying(), None, (), {})
        state.attempt_number = attempt
        return min(max(self._wait(state), retry_after or 0.0), LONGEST_WAIT)


def pause_seconds(attempt: int) -> float:
    """Tell how long a project stays paused after the `attempt`-th refusal in a row, 1 being the first."""
    return float(min(PAUSE_INITIAL * 2 ** min(attempt - 1, 16), PAUSE_MAX))


def storage_attempts() -> AsyncRetrying:
    """
    Try again while the storage refuses, without end: a verdict that is known must be written down.

    A fresh policy for each use, since tenacity keeps the state of a loop on it.
    """
    return AsyncRetrying(
        retry=retry_if_exception_type(StorageError),
        wait=wait_random_exponential(multiplier=0.1, max=5.0),
        reraise=True,
    )


def call_attempts(backoff: Backoff, tries: int) -> AsyncRetrying:
    """
    Ask again while there is no usable answer, so often at the most, with waits between.

    Where the platform wants a longer wait than `PATIENCE` nobody asks again: somebody waits for the answer.
    """

    def is_worth_it(error: BaseException) -> bool:
        return isinstance(error, UnavailableError) and (error.retry_after or 0.0) <= PATIENCE

    def wait(state: RetryCallState) -> float:
        error = state.outcome.exception() if state.outcome else None
        return backoff.seconds(state.attempt_number, getattr(error, "retry_after", None))

    return AsyncRetrying(retry=retry_if_exception(is_worth_it), wait=wait, stop=stop_after_attempt(tries), reraise=True)


class RateLimiter:
    """
    An even pace of requests.

    Args:
        per_second: How many requests a second at the most.
    """

    def __init__(self, per_second: float) -> None:
        self._interval = 1.0 / per_second
        self._next = 0.0

    async def turn(self) -> None:
        """Wait until it is our turn."""
        now = asyncio.get_running_loop().time()
        wait = max(0.0, self._next - now)
        self._next = now + wait + self._interval
        if wait:
            await asyncio.sleep(wait)
