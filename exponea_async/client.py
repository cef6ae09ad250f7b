"""
The client: its public calls, and their settings.
"""

import logging
import warnings
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from datetime import timedelta
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from attrs import evolve

from exponea_async._internal.arguments import read_mapping, read_timeout
from exponea_async._internal.encoding import plain_object
from exponea_async._internal.lazy import LazyModule
from exponea_async._internal.system_time import system_time
from exponea_async._lifecycle.components import Components
from exponea_async._lifecycle.health import examine
from exponea_async._lifecycle.lifecycle import Lifecycle
from exponea_async.config import Configuration
from exponea_async.devices.context import SubjectContext, UnboundContext, no_subject
from exponea_async.devices.store import DeviceStore
from exponea_async.errors import ConfigurationError, LifecycleError, StorageError
from exponea_async.features.tracking import BulkVerbs
from exponea_async.hooks import Hooks
from exponea_async.models import FlushMode, FlushResult
from exponea_async.observability import Health, Stats
from exponea_async.storage import is_shared, wipe_storage
from exponea_async.subjects import (
    DEFAULT_DEVICE,
    Binding,
    CustomerTracker,
    Device,
    DeviceVerbs,
    FixedSource,
    Nobody,
    Subject,
    bound,
    check_device_key,
)

if TYPE_CHECKING:
    from exponea_async import transactions
else:
    transactions = LazyModule("exponea_async.transactions")

LOG = logging.getLogger("exponea_async")

#: How long ``aclose()`` uploads what waits in the queue, in seconds.
CLOSE_TIMEOUT = 10.0
#: How long a record may wait until `Exponea.health` calls that a problem, in seconds.
MAX_AGE = 300.0
#: How long the queue may take to answer to `Exponea.health`, in seconds.
HEALTH_TIMEOUT = 5.0
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
        self, configuration: Configuration, *, hooks: Hooks | None = None, clock: Callable[[], float] = system_time
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
            LifecycleError: The client is running in the event loop of another thread; or a task of it was cancelled
                meanwhile, and it is not started.
        """
        await self._lifecycle.start()

    async def aclose(
        self,
        timeout: float | None = CLOSE_TIMEOUT,  # noqa: ASYNC109 - as asyncio.wait has it
        *,
        end_sessions: bool = False,
        only_started: bool = False,
    ) -> None:
        """
        Upload what waits in the queue, as far as possible, and close. The rest stays in the queue for the next start.

        Nothing is uploaded in `FlushMode.MANUAL`, and a project that does not respond is not waited for. Open sessions
        stay open: a device that is active again in time continues its session, and the others are ended after the
        next start. Do nothing if the client is closed already.

        If the call is cancelled, the upload ends at once, and the client is closed before the cancellation is raised.

        Args:
            timeout: Maximum duration of the call in seconds, after which it takes at most one more second to close;
                0 uploads nothing, None waits without a limit. The upload of another call that closes or stops the
                client ends then, too.
            end_sessions: Whether to end the open sessions of all devices now, each at its last activity.
            only_started: Whether to wait only for requests that are under way, in any flush mode. Everything else stays
                in the queue, where other processes can send it at once.

        Raises:
            LifecycleError: The client is running in the event loop of another thread; or a task of it was cancelled
                meanwhile. It is closed all the same, but less may have been uploaded.
        """
        await self._lifecycle.close(read_timeout(timeout), end_sessions=end_sessions, only_started=only_started)

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
                not said that everyone is meant; or a task of the client was cancelled meanwhile, and another call tries
                again.
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
            LifecycleError: The client was not started, or is closed, also during the upload while records remain.
        """
        components, limit = self._components, read_timeout(timeout)
        if not components.recorder.check_running() or components.upload is None:
            return FlushResult(0, 0, 0)
        try:
            own = None if projects is None else frozenset(projects)
            result = await components.upload.flusher.flush(limit, projects=own)
        except StorageError:
            # The storage may be closed because the client is closed.
            if components.recorder.check_running():
                raise
            return FlushResult(0, 0, 0)
        if result.remaining:
            # The close ends a flush early, which must not look like an upload that took too long.
            components.recorder.check_running()
        return result

    # Subjects

    @property
    def _context(self) -> SubjectContext:
        source = bound(self)
        if source is not None:
            context = source.subject()._context  # noqa: SLF001 - a subject is composed of the same classes
            properties = source.properties()
            return context.with_properties(properties) if properties else context
        if self._configuration.default_device:
            return self._default._context  # noqa: SLF001
        devices = self._devices
        return UnboundContext(devices.recorder, devices.api, devices.configuration)

    @property
    def current(self) -> Subject:
        """
        The subject that the client's coroutines are about, in the present task.

        Raises:
            NoSubjectError: None is bound, and ``Configuration.default_device`` is off.
        """
        source = bound(self)
        if source is not None:
            return source.subject()
        if not self._configuration.default_device:
            raise no_subject()
        return self._default

    def device(self, key: str) -> Device:
        """
        Return the device with this key, such as ``"tg:42"``.

        Raises:
            InvalidEventError: The key is not a non-empty string, or one of the client's own.
        """
        check_device_key(key)
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

    def bind(self, subject: Subject, *, properties: Mapping[str, Any] | None = None) -> AbstractContextManager[None]:
        """
        Make a subject the current one, in this task and those it starts, until the end of the ``with`` block.

        Args:
            subject: A `Device`, a `CustomerTracker` or `nobody()` of this client.
            properties: Properties for the events that are tracked about it through the client's own coroutines within
                the block, such as the address of a request. Those of an event take precedence over them, and they take
                precedence over the default properties. A customer's properties do not get them, nor do the events that
                a device tracks automatically.

        Raises:
            TypeError: It is not a subject of this client.
            InvalidEventError: The properties can't be sent as they are; the error names the path.
        """
        if not isinstance(subject, Subject) or subject._home is not self._home:  # noqa: SLF001 - a class of the package
            trouble = f"subject: expected a subject of this client, got {subject!r:.60}."
            raise TypeError(f"{trouble} Use its device(key) or for_customer(ids).")
        given = plain_object(read_mapping(properties), "properties", self._configuration.encoder) if properties else {}
        return Binding(self, FixedSource(subject, given))

    def transaction(self, connection: object) -> "AbstractAsyncContextManager[transactions.TransactionTracker]":
        """
        Track in the transaction of the application on a connection: an event exists exactly if the transaction commits.

        The client's storage must be in the same PostgreSQL database. Use a block within each transaction; it does not
        begin or end the transaction. Receipts are "queued" until the transaction is known to be committed, and dropped
        if it is rolled back. What devices remember is part of the transaction, too: until it ends, other calls about
        the same device wait, up to ``QueueSettings.lock_timeout``.

        Args:
            connection: A connection of asyncpg; an ``AsyncSession`` or ``AsyncConnection`` of SQLAlchemy with the
                driver asyncpg or psycopg; or an ``AsyncConnection`` or ``Connection`` of psycopg 3.

        Returns:
            An asynchronous context manager that returns a `TransactionTracker`, and raises on entering:
            `ConfigurationError` if the client's storage is not in PostgreSQL; `LifecycleError` if the client is not
            running or the connection is not in a transaction; `StorageError` if it is not one to the database of the
            queue; ``TypeError`` if it is of another library.
        """
        return transactions.track_within(self, self._devices, connection)

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
        """Return what the client has done so far, in numbers, and what was in its queue a few seconds ago."""
        return self._lifecycle.counters.snapshot(self._lifecycle.commits)

    async def health(
        self,
        *,
        max_age: float | None = MAX_AGE,
        timeout: float | None = HEALTH_TIMEOUT,  # noqa: ASYNC109 - as asyncio.wait has it
    ) -> Health:
        """
        Return whether events can be recorded and are being delivered, and what is wrong, for the probes of a service.

        Nothing else is raised: a client that is not started, or a queue that can't be written, is a problem in the
        result. Use `Health.is_ready` for a readiness probe: it stays true in an outage of Engagement, in which events
        are kept.

        Args:
            max_age: How long a record may wait, beyond the flush period, until that is a problem, in seconds; None for
                any time.
            timeout: How long the queue may take to answer, in seconds; None for any time.

        Raises:
            InvalidEventError: An argument is not a duration.
        """
        limits = {"max_age": read_timeout(max_age, "max_age"), "timeout": read_timeout(timeout)}
        return await examine(self._lifecycle, **limits)


def _check_configuration(configuration: object) -> None:
    if not isinstance(configuration, Configuration):
        trouble = f"expected a Configuration, got {type(configuration).__name__}"
        raise ConfigurationError("configuration", trouble, "Pass a Configuration(project_token=...).")
