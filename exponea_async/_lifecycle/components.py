"""
The components of a client: created together, from the configuration alone, and discarded together.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any

from exponea_async._internal.closing import Deadline
from exponea_async._internal.lazy import LazyModule, import_in_thread
from exponea_async._lifecycle.features import create_features
from exponea_async._pipeline.api import ApiClient
from exponea_async._pipeline.linger import Linger
from exponea_async._pipeline.monitor import QueueMonitor
from exponea_async._pipeline.network import Network
from exponea_async._pipeline.projects import ProjectStore
from exponea_async._pipeline.receipts import Receipts
from exponea_async._pipeline.recorder import EventRecorder
from exponea_async._pipeline.retry import RateLimiter
from exponea_async._pipeline.shared_rate_limit import SharedRateLimiter
from exponea_async.config import Configuration, UploadSettings
from exponea_async.devices.context import SubjectContext
from exponea_async.devices.expirer import SessionExpirer
from exponea_async.devices.store import DeviceStore
from exponea_async.errors import DamagedFileError, LifecycleError, StorageError
from exponea_async.hooks import DeliveryEvent, Hooks
from exponea_async.models import FlushResult
from exponea_async.observability import Counters
from exponea_async.storage.base import Storage

if TYPE_CHECKING:
    from exponea_async._pipeline import runtime
else:
    runtime = LazyModule("exponea_async._pipeline.runtime")

LOG = logging.getLogger("exponea_async")

#: How long closing may take after its timeout, in seconds: what is in flight is cancelled, and the file is closed.
CLOSE_GRACE = 1.0


class Components:
    """
    Creates and connects the components of a client, and opens and closes them.

    Settings that are changed at run time are part of it. So a client whose components are replaced, for example after
    the integration was stopped, is as a new one.

    Args:
        configuration: The settings.
        hooks: The functions of the application.
        counters: The client's statistics, which outlive its components.
        clock: Returns UNIX seconds.
        storage: The storage, not yet open.

    Attributes:
        storage: The storage.
        receipts: The receipts of events.
        recorder: Records events.
        projects: The addresses and credentials of projects.
        api: Sends requests to the platform.
        features: The features.
        devices: The devices.
        monitor: Measures the queue.
        session_expirer: Ends idle sessions.
        upload: The upload; None while the client is not running.
        is_used: Whether they were opened or shut down. They can't be opened again then.
        loop: The event loop in which the components were opened; None before that.
        flush_mode: When queued events are uploaded.
        flush_period: Seconds between uploads in `FlushMode.PERIOD`.
    """

    def __init__(
        self,
        configuration: Configuration,
        *,
        hooks: Hooks,
        counters: Counters,
        clock: Callable[[], float],
        storage: Storage,
    ) -> None:
        self._configuration = configuration
        self._hooks = hooks
        self._counters = counters
        self.storage = storage
        self.receipts = Receipts(storage, counters, hooks)
        self._linger = Linger(configuration.upload)
        storage.subscribe(self._linger.note_others)
        self.projects = ProjectStore(configuration, storage)
        self.recorder = EventRecorder(
            configuration=configuration,
            hooks=hooks,
            storage=storage,
            receipts=self.receipts,
            counters=counters,
            clock=clock,
            note_written=self._linger.note_written,
            projects=self.projects,
        )
        self._rate_limiter = _rate_limiter(configuration.upload, storage)
        self._network = Network(configuration.upload, hooks.report if hooks.on_request else None)
        self.api = ApiClient(configuration, self.projects, self._network, self._rate_limiter)
        self._clock = clock
        self.features = create_features(configuration, clock)
        self.devices = DeviceStore(storage, self.recorder, configuration, self.features, self.api)
        self.monitor = QueueMonitor(storage, counters, self._note_restart)
        self.session_expirer = SessionExpirer(self.devices, configuration, clock, self._note_restart)
        self._default_properties = configuration.default_properties
        self.flush_mode = configuration.flush_mode
        self.flush_period = configuration.flush_period
        self.upload: runtime.UploadRuntime | None = None
        self.is_used = False
        self.loop: asyncio.AbstractEventLoop | None = None

    @property
    def default_properties(self) -> Mapping[str, Any]:
        """The properties that every event carries."""
        return self._default_properties

    def set_default_properties(self, properties: Mapping[str, Any]) -> None:
        """Replace the default properties, which are valid."""
        self.recorder.set_default_properties(properties)
        self._default_properties = properties

    # Opening

    async def open(self, context: Callable[[], SubjectContext]) -> None:
        """
        Open everything. If that fails or is cancelled, everything is closed again.

        Args:
            context: Returns the subject with which the features make requests about the project itself.

        Raises:
            StorageError: The storage can't be opened.
            ConfigurationError: The certificates can't be loaded, or there is no session to make requests with.
        """
        self.loop = asyncio.get_running_loop()
        self.is_used = True
        await import_in_thread(runtime.__name__)
        await self._network.open()
        await self.storage.open()
        try:
            await self._update_addresses()
            await self.devices.withdrawals.refresh()
            self.upload = self._launch()
            self.receipts.open()
            self.api.open()
            await self.upload.flusher.start()
            self.session_expirer.start()
            self.monitor.start()
            self.features.start(context(), self._clock())
            self.recorder.accept()
        except BaseException:
            await self.receipts.aclose()
            await self.shut_down(Deadline(0))
            raise

    async def _update_addresses(self) -> None:
        try:
            await self.projects.update_addresses()
        except StorageError as error:
            LOG.warning("Addresses that have changed could not be stored, and will be at the next start: %s", error)

    def _launch(self) -> "runtime.UploadRuntime":
        return runtime.UploadRuntime(
            configuration=self._configuration,
            storage=self.storage,
            receipts=self.receipts,
            counters=self._counters,
            hooks=self._hooks,
            mode=self.flush_mode,
            period=self.flush_period,
            linger=self._linger,
            projects=self.projects,
            network=self._network,
            rate_limiter=self._rate_limiter,
            report=self._note_restart,
        )

    def _note_restart(self, task: str, error: BaseException | None) -> None:
        self._counters.restarts += 1
        reason = f"the task {task!r} " + ("was cancelled or has ended" if error is None else f"failed: {error!r:.300}")
        self._hooks.notify(DeliveryEvent("restarted", reason=reason))

    def replace_lost_states(self, error: DamagedFileError) -> None:
        """Keep the devices' states in memory: the queue file was damaged or lost, and a new one replaces it."""
        self.devices.rescue()
        self.receipts.report_lost(error.lost, "the queue file was damaged or deleted, and they could not be read")
        self.receipts.check_all()
        self._linger.expedite()
        self._hooks.notify(DeliveryEvent("damaged", reason=str(error), error=error))

    # Closing

    async def close_features(self, deadline: Deadline, refusal: LifecycleError, *, end_sessions: bool = False) -> None:
        """Refuse all verbs from now on, and end everything but the upload."""
        # The last one is done first, and the others also where this is cancelled.
        async with AsyncExitStack() as stack:
            stack.callback(self.devices.end_streams)
            stack.push_async_callback(self._limited, self.features.aclose, deadline)
            stack.callback(self.recorder.refuse, refusal)
            async with deadline.limit(CLOSE_GRACE):
                await self.session_expirer.aclose()
                if end_sessions:
                    await self._end_sessions()

    async def _end_sessions(self) -> None:
        try:
            await self.session_expirer.expire(all_sessions=True)
        except StorageError as error:
            LOG.warning("The sessions could not be ended while closing, and will be after the next start: %s", error)

    async def drain(self, deadline: Deadline) -> FlushResult:
        """Upload all that waits, with retries, until the deadline. New events must be refused already."""
        result = FlushResult(0, 0, 0)
        if self.upload is None:
            return result
        try:
            async with deadline.limit():
                result = await self.upload.flusher.drain(deadline.remaining)
        except StorageError as error:
            LOG.warning("The queue could not be uploaded while stopping: %s", error)
        return result

    async def shut_down(self, deadline: Deadline) -> None:
        """Cancel what is in flight, and close the storage."""
        upload, self.upload = self.upload, None
        self.is_used = True
        # The last one is closed first, and the others also where this is cancelled.
        async with AsyncExitStack() as stack:
            stack.push_async_callback(self._close_storage, deadline)
            stack.push_async_callback(self.devices.withdrawals.aclose)
            if upload is not None:
                stack.push_async_callback(self._limited, upload.aclose, deadline)
            stack.push_async_callback(self._limited, self.api.aclose, deadline)
            stack.push_async_callback(self.monitor.aclose)

    async def _limited(self, close: Callable[[], Awaitable[None]], deadline: Deadline) -> None:
        async with deadline.limit(CLOSE_GRACE):
            await close()

    async def _close_storage(self, deadline: Deadline) -> None:
        closing = asyncio.create_task(self.storage.aclose(CLOSE_GRACE), name="exponea_async: closing the storage")
        closing.add_done_callback(self._end_closing)
        async with deadline.limit(CLOSE_GRACE):
            # Waited for, not awaited: the file must be closed in the end, however long another process locks it.
            await asyncio.wait([closing])
        if not closing.done():
            _CLOSING.add(closing)
            closing.add_done_callback(_CLOSING.discard)
            LOG.warning("The queue is still busy; it is closed in the background.")
        elif not closing.cancelled():
            closing.result()

    def _end_closing(self, closing: "asyncio.Task[None]") -> None:
        if closing.cancelled():
            # Perhaps before it has begun, and then it has done nothing.
            self.storage.abandon()

    def abandon_connections(self) -> None:
        """Let go of the HTTP connections without waiting. Otherwise aiohttp complains of them, and names no client."""
        self.api.abandon()
        if self.upload is not None:
            self.upload.abandon()

    def abandon(self) -> None:
        """Let go of everything without waiting: the event loop in which it was opened has ended."""
        self.abandon_connections()
        self.upload = None
        self.recorder.stop()
        self.receipts.abandon()
        self.devices.end_streams()
        self.storage.abandon()


def _rate_limiter(settings: UploadSettings, storage: Storage) -> RateLimiter:
    if settings.shared_rate_limit is None:
        return RateLimiter(settings.requests_per_second)
    return SharedRateLimiter(settings.requests_per_second, storage, settings.shared_rate_limit)


#: The storages that are being closed after the client's own end.
_CLOSING: set["asyncio.Task[None]"] = set()
