"""
The upload as a whole: what lives from the start of a client to its end.
"""

import asyncio
import logging
from contextlib import suppress

from exponea_async._pipeline.acknowledger import Acknowledger
from exponea_async._pipeline.credentials import CredentialStore
from exponea_async._pipeline.flush import Flusher
from exponea_async._pipeline.receipts import Receipts
from exponea_async._pipeline.retry import RateLimiter
from exponea_async._pipeline.sender import Sender
from exponea_async._pipeline.transport import Transport
from exponea_async._pipeline.uploader import Uploader
from exponea_async.config import Configuration
from exponea_async.errors import StorageError
from exponea_async.hooks import Hooks
from exponea_async.models import FlushMode
from exponea_async.observability import Counters
from exponea_async.storage.base import Storage

LOG = logging.getLogger("exponea_async")

#: How long closing takes at the most to write verdicts down and give leases back, in seconds.
RELEASE_TIMEOUT = 5.0


class UploadRuntime:
    """
    Wires the parts of the upload and runs them, from its construction to `aclose`.

    Args:
        configuration: Tells projects, keys and how to send.
        storage: Where the records are.
        receipts: Learn what became of records.
        counters: Count it.
        hooks: Hear it.
        mode: The flush mode to begin with.
        period: Seconds between the uploads of `FlushMode.PERIOD`.
        written: Set by whoever has written records.
        keys: Tell which key opens which project.
        pace: Spaces requests out.
    """

    def __init__(
        self,
        *,
        configuration: Configuration,
        storage: Storage,
        receipts: Receipts,
        counters: Counters,
        hooks: Hooks,
        mode: FlushMode,
        period: float,
        written: asyncio.Event,
        keys: CredentialStore,
        pace: RateLimiter,
    ) -> None:
        settings = configuration.upload
        # Every project gets another chance.
        counters.paused.clear()
        self._transport = Transport(
            timeout=settings.request_timeout, connections=settings.concurrency, gzip=settings.gzip
        )
        self._settler = Acknowledger(storage, receipts, counters, hooks)
        sender = Sender(
            transport=self._transport,
            settler=self._settler,
            counters=counters,
            hooks=hooks,
            settings=settings,
            keys=keys,
            pace=pace,
            max_retries=configuration.flush_max_retries,
        )
        uploader = Uploader(
            storage=storage,
            sender=sender,
            settler=self._settler,
            queue=configuration.queue,
            upload=settings,
            written=written,
        )
        self.flusher = Flusher(
            storage=storage,
            uploader=uploader,
            settler=self._settler,
            counters=counters,
            mode=mode,
            period=period,
        )
        self._task = asyncio.create_task(uploader.run(), name="exponea_async: upload")
        self._task.add_done_callback(_log_end)

    async def aclose(self) -> None:
        """Break off what is under way, and give back what has no verdict."""
        await self.flusher.aclose()
        self._task.cancel()
        await asyncio.wait([self._task])
        # Where that fails the leases run out by themselves.
        with suppress(TimeoutError, StorageError):
            async with asyncio.timeout(RELEASE_TIMEOUT):
                await self._settler.release()
        await self._transport.aclose()


def _log_end(task: "asyncio.Task[None]") -> None:
    if not task.cancelled() and task.exception() is not None:
        LOG.critical("The upload has broken down; events are kept until the next start.", exc_info=task.exception())
