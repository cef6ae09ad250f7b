"""
When the queue is uploaded: flush modes, and flushes on request.
"""

import asyncio
import logging
from collections.abc import Collection
from collections.abc import Set as AbstractSet
from contextlib import suppress

from exponea_async._internal.concurrency import RestartReport, Supervisor
from exponea_async._pipeline.acknowledger import Acknowledger
from exponea_async._pipeline.commands import project_of
from exponea_async._pipeline.uploader import Uploader
from exponea_async.errors import StorageError
from exponea_async.models import FlushMode, FlushResult
from exponea_async.observability import Counters
from exponea_async.storage.base import Storage, Watermark

LOG = logging.getLogger("exponea_async")

#: How often a flush counts what remains, in seconds, even if no verdict was stored: another process may send records.
POLL_INTERVAL = 0.25
#: Why records remain where nothing is uploaded.
DISABLED = "this client does not upload (UploadSettings.enabled); another process on the same queue has to"


class Flusher:
    """
    Activates the uploader: always in `FlushMode.IMMEDIATE`, in the other modes for the length of a flush.

    Args:
        storage: Where the records are.
        uploader: Sends them.
        acknowledger: Says when verdicts were stored.
        counters: Say how many records were delivered and rejected.
        mode: The flush mode at first.
        period: Seconds between the uploads of `FlushMode.PERIOD` at first.
        enabled: Whether anything is uploaded at all; otherwise another process does it.
        report: Called when a task has ended unexpectedly; see `Supervisor`.

    Attributes:
        mode: The flush mode.
        period: Seconds between the uploads of `FlushMode.PERIOD`.
    """

    def __init__(
        self,
        *,
        storage: Storage,
        uploader: Uploader,
        acknowledger: Acknowledger,
        counters: Counters,
        mode: FlushMode,
        period: float,
        enabled: bool = True,
        report: RestartReport,
    ) -> None:
        self.mode = mode
        self.period = period
        self._storage = storage
        self._uploader = uploader
        self._acknowledger = acknowledger
        self._counters = counters
        self._is_enabled = enabled
        # Number of flushes in progress.
        self._flushes = 0
        self._report = report
        # The task of `FlushMode.PERIOD`.
        self._timer: Supervisor | None = None
        self._is_closed = False

    async def start(self) -> None:
        """Begin in the present mode."""
        await self._apply_mode()

    async def set_mode(self, mode: FlushMode) -> None:
        """Change the mode. A flush in progress goes on."""
        self.mode = mode
        await self._apply_mode()

    async def set_period(self, seconds: float) -> None:
        """Change the period, which begins anew."""
        self.period = seconds
        await self._apply_mode()

    def stop_leasing(self) -> None:
        """Lease nothing more, in any mode, and give back what no request has been made for."""
        self._uploader.stop_leasing()

    async def finish_started(self) -> None:
        """Wait until the requests under way have ended, and their verdicts are stored, after `stop_leasing`."""
        await self._uploader.finish_started()

    async def aclose(self) -> None:
        """End the task of `FlushMode.PERIOD` for good."""
        self._is_closed = True
        await self._apply_mode()

    async def flush(
        self,
        timeout: float | None,  # noqa: ASYNC109 - as asyncio.wait has it
        *,
        wait_out_outages: bool = True,
        projects: Collection[str] | None = None,
    ) -> FlushResult:
        """
        Upload all records that were written before the call.

        Args:
            timeout: Maximum duration in seconds; None sets no limit.
            wait_out_outages: Whether to wait until a project that is unavailable responds again. Otherwise its records
                are left for later once it did not respond. A paused project is never waited for.
            projects: The tokens of the projects whose records are waited for, and counted as remaining; None for all.
        """
        started = asyncio.get_running_loop().time()
        delivered, rejected, lost = self._counters.delivered, self._counters.dead, self._counters.lost
        watermark = await self._storage.watermark()
        others = await self._routes_of_others(projects)
        if not self._is_enabled:
            remaining = await self._storage.remaining(watermark, skip=others)
            return FlushResult(0, 0, remaining, reasons=await self._reasons_of_disabled(others))
        self._flushes += 1
        self._update_uploader()
        self._uploader.expedite_probes()
        try:
            with suppress(TimeoutError):
                async with asyncio.timeout(timeout):
                    await self._wait_until_uploaded(watermark, started, paused_only=wait_out_outages, skip=others)
        finally:
            self._flushes -= 1
            self._update_uploader()
        return FlushResult(
            delivered=self._counters.delivered - delivered,
            rejected=max(0, self._counters.dead - rejected),
            remaining=await self._storage.remaining(watermark, skip=others),
            lost=self._counters.lost - lost,
            reasons=await self._reasons(),
        )

    async def drain(self, timeout: float | None) -> FlushResult:  # noqa: ASYNC109 - as asyncio.wait has it
        """
        Upload everything that is in the queue, also what is written during the call, through outages.

        The waits between attempts begin anew: what was to be sent later is tried at once.

        Args:
            timeout: Maximum duration in seconds; None sets no limit.
        """
        loop = asyncio.get_running_loop()
        end = None if timeout is None else loop.time() + timeout
        delivered, rejected, lost = self._counters.delivered, self._counters.rejected, self._counters.lost
        self._uploader.expedite_all()
        while True:
            # Behind the writes of calls that were made before, so that the flush includes them.
            await self._storage.write((), ())
            result = await self.flush(None if end is None else max(0.0, end - loop.time()))
            remaining = (await self._storage.pending()).waiting
            if not remaining or not result.delivered + result.rejected or (end is not None and loop.time() >= end):
                return FlushResult(
                    delivered=self._counters.delivered - delivered,
                    rejected=self._counters.rejected - rejected,
                    remaining=remaining,
                    lost=self._counters.lost - lost,
                    reasons=result.reasons,
                )

    async def _routes_of_others(self, projects: Collection[str] | None) -> frozenset[str]:
        if projects is None:
            return frozenset()
        routes = (await self._storage.pending()).routes
        return frozenset(route for route in routes if project_of(route) not in projects)

    def open_circuits(self) -> dict[str, str]:
        """Return why routes are not sent to now, by route."""
        return self._uploader.open_circuits()

    async def _reasons(self) -> dict[str, str]:
        """Return why records are not sent now, by the token of their project."""
        circuits = self.open_circuits()
        waiting = (await self._storage.pending()).routes if circuits else {}
        return {project_of(route): reason for route, reason in circuits.items() if waiting.get(route)}

    async def _reasons_of_disabled(self, skip: AbstractSet[str]) -> dict[str, str]:
        waiting = (await self._storage.pending()).routes
        return {project_of(route): DISABLED for route, count in waiting.items() if count and route not in skip}

    async def wait_idle(self) -> None:
        """
        Wait until all records that can be sent now were sent, and their verdicts are published.

        Records that an outage or a pause holds up are not waited for, and none where nothing is sent in this mode.
        """
        if self._is_active:
            now = asyncio.get_running_loop().time()
            self._uploader.shorten_linger()
            await self._wait_until_uploaded(await self._storage.watermark(), now, paused_only=False)
        while self._acknowledger.outstanding and self._uploader.is_running:
            await self._acknowledger.wait_stored()

    async def _wait_until_uploaded(
        self, watermark: Watermark, since: float, *, paused_only: bool, skip: AbstractSet[str] = frozenset()
    ) -> None:
        while self._uploader.is_running and not self._uploader.is_finishing:
            blocked = self._uploader.blocked_routes(since, paused_only=paused_only)
            remaining = await self._storage.remaining(watermark, skip=blocked | skip, at_most=1)
            if not remaining and not self._acknowledger.is_reviving:
                return
            with suppress(TimeoutError):
                async with asyncio.timeout(POLL_INTERVAL):
                    await self._acknowledger.wait_stored()

    async def _apply_mode(self) -> None:
        # Without a wait up to here, so that a caller that is cancelled has changed all of it.
        former, self._timer = self._timer, None
        if self.mode is FlushMode.PERIOD and self._is_enabled and not self._is_closed:
            self._timer = Supervisor(self._report)
            self._timer.start(self._flush_periodically, name="exponea_async: period")
        self._update_uploader()
        if former is not None:
            await former.aclose()

    @property
    def _is_active(self) -> bool:
        return self._is_enabled and (self._flushes > 0 or self.mode is FlushMode.IMMEDIATE)

    def _update_uploader(self) -> None:
        if self._is_active:
            self._uploader.activate()
        else:
            self._uploader.deactivate()

    async def _flush_periodically(self) -> None:
        while True:
            await asyncio.sleep(self.period)
            try:
                await self.flush(None)
            except StorageError as error:
                LOG.warning("The queue can't be read, and is not uploaded this time: %s", error)
