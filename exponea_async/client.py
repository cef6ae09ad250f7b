"""
The client: its public calls, and their settings.
"""

import logging
import time
import warnings
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from datetime import timedelta
from types import TracebackType
from typing import Any, Self

from attrs import evolve

from exponea_async._internal.arguments import read_timeout
from exponea_async._lifecycle.components import Components
from exponea_async._lifecycle.lifecycle import Lifecycle
from exponea_async.config import Configuration
from exponea_async.devices.context import SubjectContext, UnboundContext, no_subject
from exponea_async.devices.store import DeviceStore
from exponea_async.errors import ConfigurationError, InvalidEventError, LifecycleError, StorageError
from exponea_async.features.tracking import BulkVerbs
from exponea_async.hooks import Hooks
from exponea_async.models import FlushMode, FlushResult, Stats
from exponea_async.storage import is_shared, wipe_storage
from exponea_async.subjects import (
    DEFAULT_DEVICE,
    RESERVED,
    Binding,
    CustomerTracker,
    Device,
    DeviceVerbs,
    Nobody,
    Subject,
    bound,
)

LOG = logging.getLogger("exponea_async")

#: How long ``aclose()`` uploads what waits in the queue, in seconds.
CLOSE_TIMEOUT = 10.0
#: How long ``stop_integration(flush=True)`` uploads what waits in the queue, in seconds.
STOP_TIMEOUT = 30.0


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

    def __init__(
        self, configuration: Configuration, *, hooks: Hooks | None = None, clock: Callable[[], float] = time.time
    ) -> None:
        _check_configuration(configuration)
        self._configuration = configuration
        self._lifecycle = Lifecycle(configuration, hooks or Hooks(), clock, DEFAULT_DEVICE)
        self._home = self._lifecycle.home
        self._default = Device(DEFAULT_DEVICE, self._home)

    def __repr__(self) -> str:
        return f"<Exponea {self._configuration.project_token} {self._lifecycle.state}>"

    def __del__(self) -> None:
        if getattr(self, "_lifecycle", None) is not None and self._components.upload is not None:
            self._lifecycle.report_unclosed()
            warnings.warn(f"{self!r} was never closed; use 'async with'.", ResourceWarning, stacklevel=2, source=self)

    @property
    def _components(self) -> Components:
        return self._lifecycle.components

    @property
    def _devices(self) -> DeviceStore:
        return self._home.devices

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

        After ``stop_integration()`` this is a fresh install: everything is as the configuration says. In another event
        loop, once the first one has ended, and in a forked child, it opens the same queue anew. If it is cancelled, the
        client is not started.

        Raises:
            StorageError: The queue can't be opened.
            ConfigurationError: The ``upload.ca_file`` can't be loaded, or ``upload.session_factory`` returns no
                session.
            ClosedError: The client is closed.
            LifecycleError: The client is running in the event loop of another thread.
        """
        await self._lifecycle.start()

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

        If the call is cancelled, the upload ends at once, and the client is closed before the cancellation is raised.

        Args:
            timeout: Maximum duration of the call in seconds, after which it takes at most one more second to close;
                0 uploads nothing, None waits without a limit.
            end_sessions: Whether to end the open sessions of all devices now, each at its last activity.

        Raises:
            LifecycleError: The client is running in the event loop of another thread.
        """
        await self._lifecycle.close(read_timeout(timeout), end_sessions=end_sessions)

    async def stop_integration(
        self,
        flush: bool = False,  # noqa: FBT001, FBT002 - the vendor's signature
        *,
        timeout: float | None = STOP_TIMEOUT,  # noqa: ASYNC109 - as asyncio.wait has it
        everyone: bool = False,
    ) -> FlushResult:
        """
        Delete all data, of all end users, and stop: the consent to be tracked is withdrawn.

        All stored data is deleted: unsent events, dead letters, ids, cookies, device ids. From the beginning of the
        call every event is dropped, until `start()`, which is a fresh install. Streams and carousels end, and settings
        that were changed at run time are those of the configuration again.

        If the call is cancelled, the upload ends at once, and the data is deleted before the cancellation is raised.

        Args:
            flush: Whether to upload first what was tracked before the call. Outages are retried until the timeout;
                a project that refuses its key is not waited for. What remains is deleted, too.
            timeout: Maximum duration of the upload, in seconds; None sets no limit.
            everyone: Must be true where a subject is bound: the call deletes the data of all end users, not only its
                own.

        Returns:
            The number of records that were delivered and rejected by the upload, and that were deleted unsent.

        Raises:
            StorageError: The storage refused; the stored data is still there, and another call tries again.
            ClosedError: The client is closed.
            LifecycleError: The client is running in the event loop of another thread; or a subject is bound, and it is
                not said that everyone is meant.
        """
        if not everyone and bound(self) is not None:
            raise LifecycleError(
                "stop_integration() deletes the data of all end users, and one of them is bound.",
                hint="Use exponea.current.forget() for this one, or stop_integration(everyone=True).",
            )
        return await self._lifecycle.stop(flush=flush, timeout=read_timeout(timeout))

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
            LifecycleError: A client is running on this storage, in this or another process; use its
                ``stop_integration()``.
            StorageError: The storage refused; the stored data is still there.
        """
        _check_configuration(configuration)
        if app_group is not None:
            configuration = evolve(configuration, app_group=app_group)
        if await is_shared(configuration, [each.configuration for each in Lifecycle.running]):
            raise LifecycleError("A client is running on this storage.", hint="Await its stop_integration() instead.")
        await wipe_storage(configuration)

    # Uploads

    @property
    def flush_mode(self) -> FlushMode:
        """When queued events are uploaded."""
        return self._components.flush_mode

    async def set_flush_mode(self, mode: FlushMode | str) -> None:
        """
        Change when queued events are uploaded.

        Args:
            mode: A `FlushMode` or its name.

        Raises:
            ConfigurationError: It is not a flush mode.
        """
        checked = evolve(self._configuration, flush_mode=mode).flush_mode
        self._lifecycle.check_loop()
        self._components.flush_mode = checked
        if self._components.upload is not None:
            await self._components.upload.flusher.set_mode(checked)

    @property
    def flush_period(self) -> float:
        """Seconds between uploads in `FlushMode.PERIOD`."""
        return self._components.flush_period

    async def set_flush_period(self, period: float | timedelta) -> None:
        """
        Change the time between uploads in `FlushMode.PERIOD`; a new period begins.

        Args:
            period: Seconds, or a timedelta.

        Raises:
            ConfigurationError: It is not a duration above 0.
        """
        checked = evolve(self._configuration, flush_period=period).flush_period
        self._lifecycle.check_loop()
        self._components.flush_period = checked
        if self._components.upload is not None:
            await self._components.upload.flusher.set_period(checked)

    async def flush_data(
        self,
        timeout: float | None = None,  # noqa: ASYNC109 - as asyncio.wait has it
        *,
        projects: Iterable[str] | None = None,
    ) -> FlushResult:
        """
        Upload everything that was recorded before this call, in any flush mode; concurrent calls share the upload.

        The call waits through outages, but not for a project that is paused because its key or address is wrong.

        Args:
            timeout: Maximum duration, in seconds; None waits without a limit.
            projects: The tokens of the projects whose records are waited for, and counted as remaining; None for all.
                Those of others are uploaded meanwhile, too.

        Returns:
            The number of delivered, rejected and remaining records, and why records remain.

        Raises:
            InvalidEventError: The timeout is not a duration.
            StorageError: The storage refused.
            LifecycleError: The client was not started, or is closed.
        """
        components, limit = self._components, read_timeout(timeout)
        if not components.recorder.check_running() or components.upload is None:
            return FlushResult(0, 0, 0)
        try:
            own = None if projects is None else frozenset(projects)
            return await components.upload.flusher.flush(limit, projects=own)
        except StorageError:
            # The storage may be closed because the client is closed.
            if components.recorder.check_running():
                raise
            return FlushResult(0, 0, 0)

    # Subjects

    @property
    def _context(self) -> SubjectContext:
        subject = bound(self)
        if subject is None and not self._configuration.default_device:
            devices = self._devices
            return UnboundContext(devices.recorder, devices.api, devices.configuration)
        return (subject or self._default)._context  # noqa: SLF001 - a subject is composed of the same classes

    @property
    def current(self) -> Subject:
        """
        The subject that the client's coroutines are about, in the present task.

        Raises:
            NoSubjectError: None is bound, and ``Configuration.default_device`` is off.
        """
        if not self._context.is_bound:
            raise no_subject()
        return bound(self) or self._default

    def device(self, key: str) -> Device:
        """
        Return the device with this key, such as ``"tg:42"``.

        Raises:
            InvalidEventError: The key is not a non-empty string, or one of the client's own.
        """
        if key in RESERVED:
            trouble = f"{key!r} is the key of a device that belongs to the client itself"
            raise InvalidEventError("key", trouble, "Use another key, or the client's own coroutines.")
        return Device(key, self._home)

    def for_customer(self, ids: Mapping[str, str]) -> CustomerTracker:
        """
        Return a tracker for the customer with these ids, such as ``{"registered": "jane@example.com"}``.

        Raises:
            InvalidEventError: The ids are not a non-empty mapping of ids that the platform accepts. With
                ``Configuration(on_invalid="log")`` the events of the tracker are dropped instead.
        """
        return CustomerTracker(ids, self._home)

    def nobody(self) -> Nobody:
        """Return the subject of whom nothing is tracked: its coroutines do nothing, and what they drop is counted."""
        return Nobody(self._home)

    def bind(self, subject: Subject) -> AbstractContextManager[None]:
        """
        Make a subject the current one, in this task and those it starts, until the end of the ``with`` block.

        Args:
            subject: A `Device`, a `CustomerTracker` or `nobody()` of this client.

        Raises:
            TypeError: It is not a subject of this client.
        """
        if not isinstance(subject, Subject) or subject._home is not self._home:  # noqa: SLF001 - a class of the package
            trouble = f"subject: expected a subject of this client, got {subject!r:.60}."
            raise TypeError(f"{trouble} Use its device(key) or for_customer(ids).")
        return Binding(self, subject)

    # Settings and statistics

    @property
    def configuration(self) -> Configuration:
        """The settings that the client was created with."""
        return self._configuration

    @property
    def is_stopped(self) -> bool:
        """Whether this client, or another one of the same file, was stopped, and this one was not started since."""
        return self._lifecycle.state == "stopped"

    @property
    def default_properties(self) -> Mapping[str, Any]:
        """The properties that every event carries, unless it has properties of the same names."""
        return self._components.default_properties

    async def set_default_properties(self, properties: Mapping[str, Any]) -> None:
        """
        Replace the default properties, for all events from now on.

        Raises:
            ConfigurationError: They are not a mapping with strings as keys.
        """
        checked = evolve(self._configuration, default_properties=properties).default_properties
        self._components.set_default_properties(checked)

    def stats(self) -> Stats:
        """Return what the client has done so far, in numbers."""
        return self._lifecycle.counters.snapshot(self._lifecycle.commits)


def _check_configuration(configuration: object) -> None:
    if not isinstance(configuration, Configuration):
        trouble = f"expected a Configuration, got {type(configuration).__name__}"
        raise ConfigurationError("configuration", trouble, "Pass a Configuration(project_token=...).")
