"""
When a client uploads: its part of the hall.
"""

from datetime import timedelta
from typing import TYPE_CHECKING

from attrs import evolve

from exponea_async._pipeline.tracker import Tracker
from exponea_async._pipeline.upload import Upload
from exponea_async.config import Configuration
from exponea_async.errors import StorageError
from exponea_async.models import FlushMode, FlushResult


class Flushes:
    """The flush modes of a client, and flushes on demand."""

    if TYPE_CHECKING:
        _configuration: Configuration
        _flush_mode: FlushMode
        _flush_period: float
        _tracker: Tracker
        _upload: Upload | None

    @property
    def flush_mode(self) -> FlushMode:
        """When queued events are uploaded."""
        return self._flush_mode

    async def set_flush_mode(self, mode: FlushMode | str) -> None:
        """
        Change when queued events are uploaded.

        Args:
            mode: A `FlushMode` or its name.

        Raises:
            ConfigurationError: It is none.
        """
        self._flush_mode = evolve(self._configuration, flush_mode=mode).flush_mode
        if self._upload is not None:
            await self._upload.flusher.set_mode(self._flush_mode)

    @property
    def flush_period(self) -> float:
        """Seconds between uploads in `FlushMode.PERIOD`."""
        return self._flush_period

    async def set_flush_period(self, period: float | timedelta) -> None:
        """
        Change the time between uploads in `FlushMode.PERIOD`; it begins anew.

        Args:
            period: Seconds, or a timedelta.

        Raises:
            ConfigurationError: It is no duration above 0.
        """
        self._flush_period = evolve(self._configuration, flush_period=period).flush_period
        if self._upload is not None:
            await self._upload.flusher.set_period(self._flush_period)

    async def flush_data(self, timeout: float | None = None) -> FlushResult:  # noqa: ASYNC109 - as asyncio.wait has it
        """
        Upload all that was written before this call, in any flush mode; flushes asked for meanwhile join in.

        It waits through outages, but not for a project that is paused because its key or address is wrong.

        Args:
            timeout: When to leave it at that, in seconds; None waits as long as it takes.

        Returns:
            What was achieved, and what remains.

        Raises:
            StorageError: The storage refused.
            LifecycleError: The client was not started, or is closed.
        """
        if not self._tracker.check_running() or self._upload is None:
            return FlushResult(0, 0, 0)
        try:
            return await self._upload.flusher.flush(timeout)
        except StorageError:
            # It may be closed because the client is.
            if self._tracker.check_running():
                raise
            return FlushResult(0, 0, 0)
