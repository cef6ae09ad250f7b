"""
The upload as a whole, from the start of a client to its end.
"""

import asyncio
from contextlib import AsyncExitStack, suppress

from exponea_async._internal.concurrency import RestartReport, Supervisor
from exponea_async._pipeline.acknowledger import Acknowledger
from exponea_async._pipeline.dead_letters import DeadLetterLimits
from exponea_async._pipeline.exchange import Exchange
from exponea_async._pipeline.flush import Flusher
from exponea_async._pipeline.linger import Linger
from exponea_async._pipeline.network import Network
from exponea_async._pipeline.projects import ProjectStore
from exponea_async._pipeline.receipts import Receipts
from exponea_async._pipeline.refusals import RefusalHistory
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

#: Maximum time that closing takes to store verdicts and give leased records back, in seconds.
RELEASE_TIMEOUT = 5.0


class UploadRuntime:
    """
    Creates and connects the parts of the upload, and runs them until `aclose`.

    Args:
        configuration: The settings.
        storage: Where the records are.
        receipts: Resolved when verdicts are known.
        counters: Count requests and verdicts.
        hooks: Notified of verdicts and of the state of projects.
        mode: The flush mode at first.
        period: Seconds between the uploads of `FlushMode.PERIOD` at first.
        linger: Decides how long the upload waits for more records.
        projects: The addresses and credentials of projects.
        network: The proxy and the certificates of requests.
        rate_limiter: Spaces the requests.
        report: Called when a task has ended unexpectedly; see `Supervisor`.

    Attributes:
        flusher: Decides when records are sent.
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
        linger: Linger,
        projects: ProjectStore,
        network: Network,
        rate_limiter: RateLimiter,
        report: RestartReport,
    ) -> None:
        settings = configuration.upload
        # Every project is tried again.
        counters.paused.clear()
        self._transport = Transport(settings, network, connections=settings.concurrency, is_upload=True)
        self._supervisor = Supervisor(report)
        limits = DeadLetterLimits(storage, configuration.queue, counters, hooks)
        self._acknowledger = Acknowledger(storage, receipts, counters, hooks, limits)
        receipts.leave_out(self._acknowledger.is_outstanding)
        linger.reset()
        receipts.on_await(linger.shorten)
        sender = Sender(
            exchange=Exchange(self._transport, counters, projects, rate_limiter, gzip=settings.gzip),
            acknowledger=self._acknowledger,
            counters=counters,
            hooks=hooks,
            settings=settings,
            projects=projects,
            history=RefusalHistory(storage),
            max_failures=configuration.flush_max_retries,
        )
        uploader = Uploader(
            storage=storage,
            sender=sender,
            acknowledger=self._acknowledger,
            queue=configuration.queue,
            upload=settings,
            linger=linger,
            supervisor=self._supervisor,
            limits=limits,
        )
        self.flusher = Flusher(
            storage=storage,
            uploader=uploader,
            acknowledger=self._acknowledger,
            counters=counters,
            mode=mode,
            period=period,
            enabled=settings.enabled,
            report=report,
        )
        if settings.enabled:
            uploader.start()

    async def aclose(self) -> None:
        """Cancel what is in flight, and give records without a verdict back."""
        # The last one is closed first, and the others also where this is cancelled.
        async with AsyncExitStack() as stack:
            stack.push_async_callback(self._transport.aclose)
            stack.push_async_callback(self._release)
            stack.push_async_callback(self._supervisor.aclose)
            stack.push_async_callback(self.flusher.aclose)

    async def _release(self) -> None:
        # If this fails, the leases run out.
        with suppress(TimeoutError, StorageError):
            async with asyncio.timeout(RELEASE_TIMEOUT):
                await self._acknowledger.release()

    def abandon(self) -> None:
        """Let go of everything without waiting: the event loop has ended."""
        self._transport.abandon()
