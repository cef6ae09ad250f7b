"""
A provider of customer tokens that blocks requests.
"""

import asyncio
from collections.abc import Mapping


class BlockingTokenProvider:
    """
    A ``customer_token_provider`` whose calls, and so the requests of a client, wait until a test unblocks them.

    Args:
        free: The number of calls that return at once.

    Attributes:
        ids: The ids of each call.
    """

    def __init__(self, free: int = 0) -> None:
        self.ids: list[Mapping[str, str]] = []
        self._free = free
        self._is_open = asyncio.Event()
        self._is_blocking = asyncio.Event()

    async def __call__(self, ids: Mapping[str, str]) -> str:
        """Return a token, once it is unblocked."""
        self.ids.append(ids)
        if len(self.ids) > self._free:
            self._is_blocking.set()
            await self._is_open.wait()
        return "token"

    def unblock(self) -> None:
        """Let all calls return."""
        self._is_open.set()

    def block(self) -> None:
        """Make later calls wait again."""
        self._is_open.clear()
        self._is_blocking.clear()

    async def blocks(self) -> None:
        """Wait until a call waits."""
        async with asyncio.timeout(60):
            await self._is_blocking.wait()
