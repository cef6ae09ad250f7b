"""
A broker of Taskiq whose queue is a list in Redis.
"""

from collections.abc import AsyncGenerator

from redis.asyncio import Redis
from taskiq import AsyncBroker, BrokerMessage

QUEUE = "taskiq"
#: How long one request waits for a message, in seconds.
WAIT = 1


class RedisBroker(AsyncBroker):
    """
    A broker.

    Args:
        url: The address of Redis.
    """

    def __init__(self, url: str) -> None:
        super().__init__()
        self._redis = Redis.from_url(url)

    async def kick(self, message: BrokerMessage) -> None:
        """Append a message."""
        await self._redis.rpush(QUEUE, message.message)

    async def listen(self) -> AsyncGenerator[bytes, None]:
        """Yield each message as soon as there is one."""
        while True:
            found = await self._redis.blpop([QUEUE], timeout=WAIT)
            if found is not None:
                yield found[1]

    async def shutdown(self) -> None:
        """Close the connections."""
        await super().shutdown()
        await self._redis.aclose()
