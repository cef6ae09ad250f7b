"""
When the queue is uploaded: the flush modes, and flushes that somebody asks for.
"""

import asyncio
import logging
from contextlib import suppress

from exponea_async._pipeline.acknowledger import Acknowledger
from exponea_async._pipeline.uploader import Uploader
from exponea_async.errors import StorageError
from exponea_async.models import FlushMode, FlushResult
from exponea_async.observability import Counters
from exponea_async.storage.base import Storage, Watermark

LOG = logging.getLogger("exponea_async")

#: How often a flush looks at what is left by itself, in seconds: another process may send some of it.
LOOK = 0.25


class Flusher:
    """
    Tells the uploader when it is wanted.

    Args:
        storage: Where the records are.
        uploader: Sends them.
        settler: Tells when there is news.
        counters: Tell what was delivered.
        mode: The flush mode to begin with.
        period: Seconds between the uploads of `FlushMode.PERIOD`.
    """

    def __init__(
        self,
        *,
        storage: Storage,
        uploader: Uploader,
        settler: Acknowledger,
        counters: Counters,
        mode: FlushMode,
        period: float,
    ) -> None:
        self.mode = mode
        self.period = period
        self._storage = storage
        self._uploader = uploader
        self._settler = settler
        self._counters = counters
        self._running = 0
        self._periodic: asyncio.Task[None] | None = None
        self._changing = asyncio.Lock()
        self._closed = False

    async def start(self) -> None:
        """Begin, in the present mode."""
        await self._restart()

    async def set_mode(self, mode: FlushMode) -> None:
        """Change the mode; a flush that is running goes on."""
        self.mode = mode
        await self._restart()

    async def set_period(self, seconds: float) -> None:
        """Change the period, which begins anew."""
        self.period = seconds
        await self._restart()

    async def aclose(self) -> None:
        """End the period's task, for good."""
        self._closed = True
        await self._restart()

    async def _restart(self) -> None:
        # One after another: each would start a task of its own.
        async with self._changing:
            if self._periodic is not None:
                self._periodic.cancel()
                await asyncio.wait([self._periodic])
                self._periodic = None
            if self.mode is FlushMode.PERIOD and not self._closed:
                self._periodic = asyncio.create_task(self._flush_periodically(), name="exponea_async: period")
            self._tell()

    def _tell(self) -> None:
        self._uploader.want(self._running > 0 or self.mode is FlushMode.IMMEDIATE)

    async def _flush_periodically(self) -> None:
        while True:
            await asyncio.sleep(self.period)
            try:
                await self.flush(None)
            except StorageError as error:
                LOG.warning("The queue can't be read, so that it is not uploaded now: %s", error)

    async def flush(self, timeout: float | None, *, insist: bool = True) -> FlushResult:  # noqa: ASYNC109 - as asyncio.wait has it
        """
        Upload all that was written before.

        Args:
            timeout: When to leave it at that, in seconds; None waits as long as it takes.
            insist: Wait through an outage; else a project is left alone once it did not answer.
        """
        started = asyncio.get_running_loop().time()
        delivered, rejected = self._counters.delivered, self._counters.rejected
        watermark = await self._storage.watermark()
        self._running += 1
        self._tell()
        self._uploader.nudge()
        try:
            with suppress(TimeoutError):
                async with asyncio.timeout(timeout):
                    await self._drain(watermark, started, insist=insist)
        finally:
            self._running -= 1
            self._tell()
        return FlushResult(
            delivered=self._counters.delivered - delivered,
            rejected=self._counters.rejected - rejected,
            remaining=await self._storage.remaining(watermark),
        )

    async def _drain(self, watermark: Watermark, started: float, *, insist: bool) -> None:
        while self._uploader.is_running and await self._left(watermark, started, insist=insist):
            with suppress(TimeoutError):
                async with asyncio.timeout(LOOK):
                    await self._settler.news()

    async def _left(self, watermark: Watermark, started: float, *, insist: bool) -> int:
        return await self._storage.remaining(watermark, skip=self._uploader.stuck(started, paused_only=insist))
