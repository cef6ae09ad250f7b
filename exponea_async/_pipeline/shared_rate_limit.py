"""
The rate limit of several clients together, whose requests come from one address.
"""

import asyncio
import logging

from exponea_async._internal.log_fields import log_fields
from exponea_async._pipeline.retry import RateLimiter
from exponea_async.errors import StorageError
from exponea_async.storage.base import Storage

LOG = logging.getLogger("exponea_async")

#: A client that is busy reserves the requests of this time at once, in seconds. By less than that it may be late with a
#: request that it has reserved.
BLOCK_TIME = 0.1
#: How long the storage may take to reserve requests, in seconds.
RESERVE_TIMEOUT = 1.0
#: How long a storage that has failed is not asked again, in seconds.
FAILURE_PAUSE = 5.0


class SharedRateLimiter(RateLimiter):
    """
    Spaces the requests of all clients of a storage that share a limit.

    The storage reserves the requests, so that the clients may be in different processes. While the storage fails, each
    client is limited to the rate by itself: the upload goes on, and the platform refuses what is too much, with a
    status that makes clients wait.

    Args:
        per_second: Maximum number of requests per second.
        storage: Where requests are reserved.
        name: The name of the limit.
    """

    def __init__(self, per_second: float, storage: Storage, name: str) -> None:
        super().__init__(per_second)
        self._per_second = per_second
        self._storage = storage
        self._name = name
        # Requests that are reserved and not used yet. `_next` is when the first of them may be sent.
        self._left = 0
        self._block = 1
        self._max_block = max(1, int(per_second * BLOCK_TIME))
        self._next_attempt = 0.0
        # Held while requests are reserved, so that callers get their turns in their order.
        self._lock = asyncio.Lock()

    async def acquire(self) -> None:
        """Wait for the turn of a request. The turn of a caller that is cancelled passes unused."""
        async with self._lock:
            # Requests whose time is long past are void: other clients have used it meanwhile.
            if not self._left or _now() - self._next > BLOCK_TIME:
                await self._reserve()
            self._left -= 1
            turn = self._next
            self._next += self._interval
        wait = turn - _now()
        if wait > 0:
            await asyncio.sleep(wait)

    async def _reserve(self) -> None:
        # Callers that come before the turn after the last one want more than the rate allows.
        is_busy = _now() < self._next
        self._block = min(2 * self._block, self._max_block) if is_busy else 1
        wait = await self._reserve_block()
        now = _now()
        # A client that is busy loses no time to the reservation itself.
        if wait or now - self._next > BLOCK_TIME:
            self._next = max(self._next, now + wait)
        self._left = self._block

    async def _reserve_block(self) -> float:
        """Return the seconds until the first request of the next block may be sent."""
        if _now() < self._next_attempt:
            return 0.0
        try:
            async with asyncio.timeout(RESERVE_TIMEOUT):
                return await self._storage.reserve(self._name, self._block, self._per_second)
        except (StorageError, TimeoutError) as error:
            self._next_attempt = _now() + FAILURE_PAUSE
            reason = str(error) or f"no answer within {RESERVE_TIMEOUT:g} s"
            LOG.warning(
                "The shared rate limit %r can't be used, and this client is limited by itself: %s",
                self._name,
                reason,
                extra=log_fields("queue_error", reason=reason),
            )
            return 0.0


def _now() -> float:
    return asyncio.get_running_loop().time()
