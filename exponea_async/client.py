"""
The client: creates, connects and shuts down all components.
"""

import asyncio
import logging
import time
import warnings
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from datetime import timedelta
from types import TracebackType
from typing import Any, ClassVar, Self
from weakref import WeakSet, ref

from attrs import evolve

from exponea_async._internal.concurrency import RestartReport
from exponea_async._internal.user_code import reliable_clock
from exponea_async._pipeline.api import ApiClient
from exponea_async._pipeline.projects import ProjectStore
from exponea_async._pipeline.receipts import Receipts
from exponea_async._pipeline.recorder import EventRecorder
from exponea_async._pipeline.retry import RateLimiter
from exponea_async._pipeline.runtime import UploadRuntime
from exponea_async.config import Configuration
from exponea_async.devices.context import SubjectContext
from exponea_async.devices.device_context import DeviceContext
from exponea_async.devices.expirer import SessionExpirer
from exponea_async.devices.features import FeatureRegistry
from exponea_async.devices.store import DeviceStore
from exponea_async.errors import (
    ClosedError,
    ConfigurationError,
    DamagedFileError,
    LifecycleError,
    NotStartedError,
    StorageError,
)
from exponea_async.features.content_blocks.service import ContentBlocks
from exponea_async.features.in_app.service import InAppMessages
from exponea_async.features.inbox.service import Inbox
from exponea_async.features.segments.service import Segments
from exponea_async.features.tracking import BulkVerbs
from exponea_async.hooks import DeliveryEvent, Hooks
from exponea_async.models import FlushMode, FlushResult, Stats
from exponea_async.observability import Counters
from exponea_async.storage import create_storage, storage_location, wipe_storage
from exponea_async.subjects import DEFAULT_DEVICE, CustomerTracker, Device, DeviceVerbs, Subject, bind, bound

LOG = logging.getLogger("exponea_async")

#: How long ``aclose()`` uploads what waits in the queue, in seconds.
CLOSE_TIMEOUT = 10.0


class Exponea(DeviceVerbs, BulkVerbs):
    """
    A client of Bloomreach Engagement.

    An async context manager: it is open inside the ``async with`` block. Its coroutines are about the current subject,
    by default about one device of its own.

    Args:
        configuration: The settings.
        hooks: Functions that change events before they are recorded, and that are notified of what became of them.
        clock: Returns the time of events, UNIX seconds; for tests. Waits do not depend on it.
    """

    _running: ClassVar["WeakSet[Exponea]"] = WeakSet()

    def __init__(
        self, configuration: Configuration, *, hooks: Hooks | None = None, clock: Callable[[], float] = time.time
    ) -> None:
        _check_configuration(configuration)
        clock = reliable_clock(clock)
        self._configuration = configuration
        self._hooks = hooks or Hooks()
        self._counters = Counters()
        self._storage = create_storage(configuration, _damage_report(self))
        self._receipts = Receipts(self._storage, self._counters, self._hooks)
        self._written = asyncio.Event()
        self._projects = ProjectStore(configuration, self._storage)
        self._recorder = EventRecorder(
            configuration=configuration,
            hooks=self._hooks,
            storage=self._storage,
            receipts=self._receipts,
            counters=self._counters,
            clock=clock,
            wake=self._written.set,
            projects=self._projects,
        )
        self._recorder.refuse(NotStartedError("The client is not started.", hint="Use 'async with' or await start()."))
        self._rate_limiter = RateLimiter(configuration.upload.requests_per_second)
        self._api = ApiClient(configuration, self._projects, self._rate_limiter)
        self._features = FeatureRegistry(
            [
                InAppMessages(configuration, clock),
                ContentBlocks(configuration, clock),
                Inbox(configuration, clock),
                Segments(clock),
            ]
        )
        self._devices = DeviceStore(self._storage, self._recorder, configuration, self._features, self._api)
        self._restart_report = _restart_report(self)
        self._session_expirer = SessionExpirer(self._devices, configuration, clock, self._restart_report)
        self._default = Device(DEFAULT_DEVICE, self._devices)
        self._default_properties = configuration.default_properties
        self._flush_mode = configuration.flush_mode
        self._flush_period = configuration.flush_period
        self._life_cycle = asyncio.Lock()
        self._upload: UploadRuntime | None = None
        self._stopped = self._wiped = self._closed = False

    def __repr__(self) -> str:
        state = "closed" if self._closed else "stopped" if self._stopped else "open" if self._upload else "not started"
        return f"<Exponea {self._configuration.project_token} {state}>"

    def __del__(self) -> None:
        if getattr(self, "_upload", None) is not None:
            warnings.warn(f"{self!r} was never closed; use 'async with'.", ResourceWarning, stacklevel=2, source=self)

    # Life cycle

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    async def start(self) -> None:
        """
        Open the queue and start to upload; do nothing if the client is started already.

        After ``stop_integration()`` this is a fresh install.

        Raises:
            StorageError: The queue can't be opened.
            ClosedError: The client is closed.
        """
        async with self._life_cycle:
            if self._closed:
                raise ClosedError("The client is closed.", hint="Create a new client.")
            if self._upload is not None:
                return
            await self._storage.open()
            await self._update_addresses()
            self._upload = self._launch()
            self._running.add(self)
            self._stopped = self._wiped = False
            self._receipts.open()
            self._recorder.accept()
            self._api.open()
            await self._upload.flusher.start()
            self._session_expirer.start()
            self._features.start(DeviceContext(DEFAULT_DEVICE, self._devices))

    async def _update_addresses(self) -> None:
        try:
            await self._projects.update_addresses()
        except StorageError as error:
            LOG.warning("Addresses that have changed could not be stored, and will be at the next start: %s", error)

    def _launch(self) -> UploadRuntime:
        settings = self._configuration
        return UploadRuntime(
            configuration=settings,
            storage=self._storage,
            receipts=self._receipts,
            counters=self._counters,
            hooks=self._hooks,
            mode=self._flush_mode,
            period=self._flush_period,
            written=self._written,
            projects=self._projects,
            rate_limiter=self._rate_limiter,
            report=self._restart_report,
        )

    async def aclose(
        self,
        timeout: float | None = CLOSE_TIMEOUT,  # noqa: ASYNC109 - as asyncio.wait has it
        *,
        end_sessions: bool = False,
    ) -> None:
        """
        Upload what waits in the queue, as far as possible, and close. The rest stays in the queue for the next start.

        Nothing is uploaded in `FlushMode.MANUAL`, and a project that does not respond is not waited for. Open sessions
        stay open: a device that is active again in time continues its session, and the others are ended after the
        next start. Do nothing if the client is closed already.

        Args:
            timeout: Maximum duration of the upload, in seconds; 0 uploads nothing, None waits without a limit.
            end_sessions: Whether to end the open sessions of all devices now, each at its last activity.
        """
        async with self._life_cycle:
            upload = self._upload
            await self._session_expirer.aclose()
            if upload is not None and end_sessions and not self._closed:
                await self._end_sessions()
            self._closed = True
            self._recorder.refuse(ClosedError("The client is closed.", hint="Create a new client."))
            await self._features.aclose()
            self._devices.end_streams()
            if upload is None:
                await self._receipts.aclose()
                return
            try:
                if self._flush_mode is not FlushMode.MANUAL and timeout != 0:
                    await upload.flusher.flush(timeout, wait_out_outages=False)
                left = await self._storage.pending()
                LOG.log(
                    logging.INFO if left.waiting else logging.DEBUG,
                    "Closed with %d records in the queue.",
                    left.waiting,
                )
            except StorageError as error:
                LOG.warning("The queue could not be uploaded while closing: %s", error)
            finally:
                await self._receipts.aclose()
                await self._shut_down(upload)

    async def _end_sessions(self) -> None:
        try:
            await self._session_expirer.expire(all_sessions=True)
        except StorageError as error:
            LOG.warning("The sessions could not be ended while closing, and will be after the next start: %s", error)

    async def _shut_down(self, upload: UploadRuntime) -> None:
        self._upload = None
        self._running.discard(self)
        await self._api.aclose()
        await upload.aclose()
        await self._storage.aclose()

    async def stop_integration(self, flush: bool = False) -> None:  # noqa: FBT001, FBT002 - the vendor's signature
        """
        Delete all data and stop: the customer has withdrawn the consent to be tracked.

        All stored data is deleted: unsent events, dead letters, ids, cookies, device ids. Nothing is tracked or sent,
        and every event is dropped until `start()`, which is a fresh install.

        Args:
            flush: Whether to upload what waits in the queue first, as far as possible.

        Raises:
            StorageError: The storage refused; the stored data is still there.
            ClosedError: The client is closed.
        """
        async with self._life_cycle:
            if self._closed:
                raise ClosedError("The client is closed.", hint="Create a new client.")
            if self._wiped:
                return
            upload = self._upload
            if upload is not None and flush:
                await upload.flusher.set_mode(FlushMode.MANUAL)
                await upload.flusher.flush(None, wait_out_outages=False)
            self._stopped = True
            self._recorder.stop()
            self._features.clear()
            await self._session_expirer.aclose()
            # Everything under way ends first, so that nothing is sent or written after the data is deleted.
            if upload is not None:
                await self._shut_down(upload)
            await self._storage.open()
            try:
                await self._wipe()
            finally:
                await self._storage.aclose()

    async def _wipe(self) -> None:
        waiting = (await self._storage.pending()).waiting
        await self._storage.wipe()
        self._wiped = True
        self._devices.clear()
        reason = "the integration was stopped"
        await self._receipts.drop_all(reason)
        LOG.warning("The integration was stopped: %d records were deleted, and nothing is tracked any more.", waiting)
        if waiting:
            self._counters.dropped["stopped"] += waiting
            self._hooks.notify(DeliveryEvent("dropped", reason=reason))

    @classmethod
    async def clear_local_customer_data(cls, configuration: Configuration, app_group: str | None = None) -> None:
        """
        Delete all data that a client with this configuration has stored; nothing is tracked or sent.

        Args:
            configuration: The client's configuration.
            app_group: The application group whose data is deleted, instead of ``configuration.app_group``; ``""`` for
                the data that belongs to no group.

        Raises:
            ConfigurationError: It is not a `Configuration`, or the group has no data of its own, because
                ``configuration.storage`` is a path.
            LifecycleError: Such a client is running; use its ``stop_integration()``.
            StorageError: The storage refused; the stored data is still there.
        """
        _check_configuration(configuration)
        if app_group is not None:
            configuration = evolve(configuration, app_group=app_group)
        if await asyncio.to_thread(_is_running, configuration, [each.configuration for each in cls._running]):
            raise LifecycleError("A client is running on this storage.", hint="Await its stop_integration() instead.")
        await wipe_storage(configuration)

    # Uploads

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
            ConfigurationError: It is not a flush mode.
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
        Change the time between uploads in `FlushMode.PERIOD`; a new period begins.

        Args:
            period: Seconds, or a timedelta.

        Raises:
            ConfigurationError: It is not a duration above 0.
        """
        self._flush_period = evolve(self._configuration, flush_period=period).flush_period
        if self._upload is not None:
            await self._upload.flusher.set_period(self._flush_period)

    async def flush_data(self, timeout: float | None = None) -> FlushResult:  # noqa: ASYNC109 - as asyncio.wait has it
        """
        Upload everything that was recorded before this call, in any flush mode; concurrent calls share the upload.

        The call waits through outages, but not for a project that is paused because its key or address is wrong.

        Args:
            timeout: Maximum duration, in seconds; None waits without a limit.

        Returns:
            The number of delivered, rejected and remaining records.

        Raises:
            StorageError: The storage refused.
            LifecycleError: The client was not started, or is closed.
        """
        if not self._recorder.check_running() or self._upload is None:
            return FlushResult(0, 0, 0)
        try:
            return await self._upload.flusher.flush(timeout)
        except StorageError:
            # The storage may be closed because the client is closed.
            if self._recorder.check_running():
                raise
            return FlushResult(0, 0, 0)

    # Subjects

    @property
    def _context(self) -> SubjectContext:
        return self.current._context  # noqa: SLF001 - a subject is composed of the same classes

    @property
    def current(self) -> Subject:
        """The subject that the client's coroutines are about, in the present task."""
        return bound(self) or self._default

    def device(self, key: str) -> Device:
        """
        Return the device with this key, such as ``"tg:42"``.

        Raises:
            InvalidEventError: The key is not a non-empty string.
        """
        return Device(key, self._devices)

    def for_customer(self, ids: Mapping[str, str]) -> CustomerTracker:
        """
        Return a tracker for the customer with these ids, such as ``{"registered": "jane@example.com"}``.

        Raises:
            InvalidEventError: The ids are not a non-empty mapping of non-empty strings.
        """
        return CustomerTracker(ids, self._devices)

    def bind(self, subject: Subject) -> AbstractContextManager[None]:
        """
        Make a subject the current one, in this task and those it starts, until the end of the ``with`` block.

        Args:
            subject: A `Device` or `CustomerTracker` of this client.

        Raises:
            TypeError: It is not a subject of this client.
        """
        if not isinstance(subject, Subject) or subject._devices is not self._devices:  # noqa: SLF001 - a class of the package
            trouble = f"subject: expected a subject of this client, got {subject!r:.60}."
            raise TypeError(f"{trouble} Use its device(key) or for_customer(ids).")
        return bind(self, subject)

    # Settings and statistics

    @property
    def configuration(self) -> Configuration:
        """The settings that the client was created with."""
        return self._configuration

    @property
    def is_stopped(self) -> bool:
        """Whether ``stop_integration()`` was called and the client was not started since."""
        return self._stopped

    @property
    def default_properties(self) -> Mapping[str, Any]:
        """The properties that every event carries, unless it has properties of the same names."""
        return self._default_properties

    async def set_default_properties(self, properties: Mapping[str, Any]) -> None:
        """
        Replace the default properties, for all events from now on.

        Raises:
            ConfigurationError: They are not a mapping with strings as keys.
        """
        self._default_properties = evolve(self._configuration, default_properties=properties).default_properties
        self._recorder.set_default_properties(self._default_properties)

    def stats(self) -> Stats:
        """Return what the client has done so far, in numbers."""
        return self._counters.snapshot(self._storage.commits)

    def _note_restart(self, task: str, error: BaseException | None) -> None:
        self._counters.restarts += 1
        reason = f"the task {task!r} " + ("was cancelled or has ended" if error is None else f"failed: {error!r:.300}")
        self._hooks.notify(DeliveryEvent("restarted", reason=reason))

    def _replace_lost_states(self, error: DamagedFileError) -> None:
        """Keep the devices' states in memory: the queue file was damaged or lost, and a new one replaces it."""
        self._devices.rescue()
        self._receipts.report_lost(error.lost, "the queue file was damaged or deleted, and they could not be read")
        self._receipts.check_all()
        self._written.set()
        self._hooks.notify(DeliveryEvent("damaged", reason=str(error), error=error))


def _is_running(configuration: Configuration, running: Iterable[Configuration]) -> bool:
    location = storage_location(configuration)
    return any(storage_location(each) == location for each in running)


def _check_configuration(configuration: object) -> None:
    if not isinstance(configuration, Configuration):
        trouble = f"expected a Configuration, got {type(configuration).__name__}"
        raise ConfigurationError("configuration", trouble, "Pass a Configuration(project_token=...).")


def _restart_report(client: Exponea) -> RestartReport:
    # The tasks outlive a client that was never closed, and must not keep it alive.
    owner = ref(client)

    def report(task: str, error: BaseException | None) -> None:
        if (client := owner()) is not None:
            client._note_restart(task, error)  # noqa: SLF001 - a method of the client

    return report


def _damage_report(client: Exponea) -> Callable[[DamagedFileError], None]:
    # The storage outlives a client that was never closed, and must not keep it alive.
    owner = ref(client)

    def report(error: DamagedFileError) -> None:
        if (client := owner()) is not None:
            client._replace_lost_states(error)  # noqa: SLF001 - a method of the client

    return report
