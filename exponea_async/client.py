"""
The hall: opens, wires and closes all parts, and alone knows every one of them.
"""

import asyncio
import logging
import time
import warnings
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from datetime import timedelta
from types import TracebackType
from typing import Any, ClassVar, Self
from weakref import WeakSet, ref

from attrs import evolve

from exponea_async._pipeline.api import ApiClient
from exponea_async._pipeline.credentials import CredentialStore
from exponea_async._pipeline.receipts import Receipts
from exponea_async._pipeline.recorder import EventRecorder
from exponea_async._pipeline.retry import RateLimiter
from exponea_async._pipeline.runtime import UploadRuntime
from exponea_async.config import Configuration
from exponea_async.devices.context import SubjectContext
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
from exponea_async.features.content_blocks.verbs import ContentBlocks
from exponea_async.features.in_app.service import InAppMessages
from exponea_async.features.inbox.verbs import Inbox
from exponea_async.features.segments.verbs import Segments
from exponea_async.features.tracking import BulkVerbs
from exponea_async.hooks import DeliveryEvent, Hooks
from exponea_async.models import FlushMode, FlushResult, Stats
from exponea_async.observability import Counters
from exponea_async.storage import create_storage, storage_location, wipe_storage
from exponea_async.subjects import DEFAULT_DEVICE, CustomerTracker, Device, DeviceVerbs, Subject, bind, bound

LOG = logging.getLogger("exponea_async")

#: How long ``aclose()`` tries to upload what waits, in seconds.
CLOSE_TIMEOUT = 10.0


class Exponea(DeviceVerbs, BulkVerbs):
    """
    A client of Bloomreach Engagement.

    An async context manager: it is open inside the ``async with`` block. Its verbs are about the current subject, by
    default about one device of its own.

    Args:
        configuration: The settings.
        hooks: Change events before they are kept; hear what becomes of them.
        clock: Tells the time of events, UNIX seconds; for tests. Waits do not depend on it.
    """

    _running: ClassVar["WeakSet[Exponea]"] = WeakSet()

    def __init__(
        self, configuration: Configuration, *, hooks: Hooks | None = None, clock: Callable[[], float] = time.time
    ) -> None:
        if not isinstance(configuration, Configuration):
            raise ConfigurationError(
                "configuration", "it is no Configuration", "Give Configuration(project_token=...)."
            )
        self._configuration = configuration
        self._hooks = hooks or Hooks()
        self._counters = Counters()
        self._storage = create_storage(configuration, configuration.app_group, _damage_report(self))
        self._receipts = Receipts(self._storage)
        self._written = asyncio.Event()
        self._credentials = CredentialStore(configuration.projects, self._storage)
        self._recorder = EventRecorder(
            configuration=configuration,
            hooks=self._hooks,
            storage=self._storage,
            receipts=self._receipts,
            counters=self._counters,
            clock=clock,
            wake=self._written.set,
            credentials=self._credentials,
        )
        self._recorder.refuse(NotStartedError("The client is not started.", hint="Use 'async with' or await start()."))
        self._rate_limiter = RateLimiter(configuration.upload.requests_per_second)
        self._api = ApiClient(configuration, self._credentials, self._rate_limiter)
        self._features = FeatureRegistry(
            part(configuration, clock) for part in (InAppMessages, ContentBlocks, Inbox, Segments)
        )
        self._devices = DeviceStore(self._storage, self._recorder, configuration, self._features, self._api)
        self._session_expirer = SessionExpirer(self._devices, configuration, clock)
        self._default = Device(DEFAULT_DEVICE, self._devices)
        self._default_properties = configuration.default_properties
        self._flush_mode = configuration.flush_mode
        self._flush_period = configuration.flush_period
        self._door = asyncio.Lock()
        self._upload: UploadRuntime | None = None
        self._stopped = self._wiped = self._closed = False

    def __repr__(self) -> str:
        state = "closed" if self._closed else "stopped" if self._stopped else "open" if self._upload else "not started"
        return f"<Exponea {self._configuration.project_token} {state}>"

    def __del__(self) -> None:
        if getattr(self, "_upload", None) is not None:
            warnings.warn(f"{self!r} was never closed; use 'async with'.", ResourceWarning, stacklevel=2, source=self)

    # Life

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    async def start(self) -> None:
        """
        Open the queue and begin to upload; does nothing where that is so already.

        After ``stop_integration()`` it is a fresh install.

        Raises:
            StorageError: The queue can't be opened.
            ClosedError: The client is closed.
        """
        async with self._door:
            if self._closed:
                raise ClosedError("The client is closed.", hint="Make a new one.")
            if self._upload is not None:
                return
            await self._storage.open()
            self._upload = self._launch()
            self._running.add(self)
            self._stopped = self._wiped = False
            self._receipts.open()
            self._recorder.accept()
            self._api.open()
            await self._upload.flusher.start()
            self._session_expirer.start()
            self._features.start(self._default._context)  # noqa: SLF001 - composed of the same verbs

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
            keys=self._credentials,
            pace=self._rate_limiter,
        )

    async def aclose(
        self,
        timeout: float | None = CLOSE_TIMEOUT,  # noqa: ASYNC109 - as asyncio.wait has it
        *,
        end_sessions: bool = False,
    ) -> None:
        """
        Upload what waits, as far as it goes, and close. What is left stays in the queue for the next start.

        Nothing is uploaded in `FlushMode.MANUAL`. A project that does not answer is not waited for. Open sessions
        stay open: devices that are active again in time go on with theirs, and the others' are ended at the next
        start. Does nothing where the client is closed already.

        Args:
            timeout: How long to upload at the most, in seconds; 0 uploads nothing, None waits as long as it takes.
            end_sessions: End the open sessions of all devices now, each at its last activity.
        """
        async with self._door:
            upload = self._upload
            await self._session_expirer.aclose()
            if upload is not None and end_sessions and not self._closed:
                await self._end_sessions()
            self._closed = True
            self._recorder.refuse(ClosedError("The client is closed.", hint="Make a new one."))
            await self._features.aclose()
            self._devices.end_streams()
            if upload is None:
                await self._receipts.aclose()
                return
            try:
                if self._flush_mode is not FlushMode.MANUAL and timeout != 0:
                    await upload.flusher.flush(timeout, insist=False)
                left = await self._storage.pending()
                LOG.log(logging.INFO if left.waiting else logging.DEBUG, "Closed; %d records wait.", left.waiting)
            except StorageError as error:
                LOG.warning("The queue could not be uploaded on closing: %s", error)
            finally:
                await self._receipts.aclose()
                await self._shut(upload)

    async def _end_sessions(self) -> None:
        try:
            await self._session_expirer.expire(all_sessions=True)
        except StorageError as error:
            LOG.warning("The sessions could not be ended on closing, and will be at the next start: %s", error)

    async def _shut(self, upload: UploadRuntime) -> None:
        self._upload = None
        self._running.discard(self)
        await self._api.aclose()
        await upload.aclose()
        await self._storage.aclose()

    async def stop_integration(self, flush: bool = False) -> None:  # noqa: FBT001, FBT002 - the vendor's signature
        """
        Forget everything and stop: the customer has withdrawn the consent to be tracked.

        All that is stored is wiped: unsent events, dead letters, ids, cookies, device ids. Nothing is tracked or
        sent, and every verb is dropped until `start()`, which is a fresh install.

        Args:
            flush: Upload what waits first, as far as it goes.

        Raises:
            StorageError: The storage refused; what is stored is still there.
            ClosedError: The client is closed.
        """
        async with self._door:
            if self._closed:
                raise ClosedError("The client is closed.", hint="Make a new one.")
            if self._wiped:
                return
            upload = self._upload
            if upload is not None and flush:
                await upload.flusher.set_mode(FlushMode.MANUAL)
                await upload.flusher.flush(None, insist=False)
            self._stopped = True
            self._recorder.stop()
            self._features.clear()
            await self._session_expirer.aclose()
            # First all that is under way comes to its end, so that nothing is sent or written after the wipe.
            if upload is not None:
                await self._shut(upload)
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
        self._credentials.forget()
        reason = "the integration was stopped"
        self._receipts.drop_all(reason)
        LOG.warning("The integration was stopped: %d records were wiped, and nothing is tracked any more.", waiting)
        if waiting:
            self._counters.dropped["stopped"] += waiting
            self._hooks.tell(DeliveryEvent("dropped", reason=reason))

    @classmethod
    async def clear_local_customer_data(cls, configuration: Configuration, app_group: str | None = None) -> None:
        """
        Wipe all that a client with this configuration has stored; nothing is tracked or sent.

        Args:
            configuration: The client's configuration.
            app_group: Wipe this application group's data, instead of that of ``configuration.app_group``.

        Raises:
            LifecycleError: Such a client is running; stop it with ``stop_integration()``.
            StorageError: The storage refused; what is stored is still there.
        """
        group = configuration.app_group if app_group is None else app_group
        location = storage_location(configuration, group)
        if any(storage_location(each.configuration, each.configuration.app_group) == location for each in cls._running):
            raise LifecycleError("A client is running on this storage.", hint="Await its stop_integration() instead.")
        await wipe_storage(configuration, group)

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
        if not self._recorder.check_running() or self._upload is None:
            return FlushResult(0, 0, 0)
        try:
            return await self._upload.flusher.flush(timeout)
        except StorageError:
            # It may be closed because the client is.
            if self._recorder.check_running():
                raise
            return FlushResult(0, 0, 0)

    # Subjects

    @property
    def _context(self) -> SubjectContext:
        return self.current._context  # noqa: SLF001 - composed of the same verbs

    @property
    def current(self) -> Subject:
        """The subject that the client's verbs are about, here and now."""
        return bound(self) or self._default

    def device(self, key: str) -> Device:
        """
        Tell a device by its key, such as ``"tg:42"``.

        Raises:
            InvalidEventError: The key is no non-empty text.
        """
        return Device(key, self._devices)

    def for_customer(self, ids: Mapping[str, str]) -> CustomerTracker:
        """
        Make a tracker for a customer with these ids, such as ``{"registered": "jane@example.com"}``.

        Raises:
            InvalidEventError: The ids are no mapping of non-empty texts.
        """
        return CustomerTracker(ids, self._devices)

    def bind(self, subject: Subject) -> AbstractContextManager[None]:
        """
        Make a subject current in this task, and those it starts, for the length of a ``with`` block.

        Args:
            subject: A `Device` or `CustomerTracker` of this client.
        """
        if not isinstance(subject, Subject) or subject._context.recorder is not self._recorder:  # noqa: SLF001 - our own
            raise TypeError(f"{subject!r:.60} is no subject of this client. Use its device(key) or for_customer(ids).")
        return bind(self, subject)

    # Settings and numbers

    @property
    def configuration(self) -> Configuration:
        """The settings that the client was made with."""
        return self._configuration

    @property
    def is_stopped(self) -> bool:
        """Whether ``stop_integration()`` was called and the client not started since."""
        return self._stopped

    @property
    def default_properties(self) -> Mapping[str, Any]:
        """The properties under those of every event."""
        return self._default_properties

    async def set_default_properties(self, properties: Mapping[str, Any]) -> None:
        """
        Replace the default properties, for what is tracked from now on.

        Raises:
            ConfigurationError: They are no mapping with texts as keys.
        """
        self._default_properties = evolve(self._configuration, default_properties=properties).default_properties
        self._recorder.set_default_properties(self._default_properties)

    def stats(self) -> Stats:
        """Tell in numbers what the client has done."""
        return self._counters.snapshot(self._storage.commits)

    def _heal(self, error: DamagedFileError) -> None:
        """The queue's file was damaged and is a fresh one now: devices stay who they are."""
        self._devices.rescue()
        self._hooks.tell(DeliveryEvent("damaged", reason=str(error), error=error))


def _damage_report(client: Exponea) -> Callable[[DamagedFileError], None]:
    # The storage outlives a client that nobody closed, and must not keep it alive.
    owner = ref(client)

    def report(error: DamagedFileError) -> None:
        if (client := owner()) is not None:
            client._heal(error)  # noqa: SLF001 - the client's own

    return report
