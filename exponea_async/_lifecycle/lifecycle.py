"""
The life cycle of a client: start, close, stop, and a start in another event loop or in a forked child.
"""

import asyncio
import atexit
import logging
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import AsyncExitStack
from functools import partial
from typing import Any, ClassVar, Literal, TypeVar
from weakref import WeakSet, ref

from attrs import evolve

from exponea_async._internal.closing import CallUnlessEnding, Deadline, run_to_end, wrong_loop
from exponea_async._internal.log_fields import log_fields
from exponea_async._internal.user_code import reliable_clock
from exponea_async._lifecycle.components import Components
from exponea_async._lifecycle.forking import ForkHandler, abandon
from exponea_async._lifecycle.turns import Turns
from exponea_async.config import Configuration
from exponea_async.devices.device_context import DeviceContext
from exponea_async.devices.store import DeviceHome
from exponea_async.errors import (
    ClosedError,
    DamagedFileError,
    LifecycleError,
    NotStartedError,
    StorageError,
    WipedFileError,
)
from exponea_async.hooks import DeliveryEvent, Hooks
from exponea_async.models import FlushMode, FlushResult
from exponea_async.observability import Counters
from exponea_async.storage import create_storage
from exponea_async.storage.base import Storage, count_waiting
from exponea_async.storage.selection import MEMORY, is_in_memory

LOG = logging.getLogger("exponea_async")

T = TypeVar("T")

#: Why records are dropped when the client is stopped.
STOPPED = "the integration was stopped"
#: When the end after another client's wipe is tried again that was cancelled, in seconds.
RETRY_DELAY = 0.1

State = Literal["not started", "open", "stopped", "closed"]


class Lifecycle:
    """
    Opens, closes and replaces the components of a client.

    Args:
        configuration: The settings.
        hooks: The functions of the application.
        clock: Returns UNIX seconds.
        default_device: The key of the client's own device.

    Attributes:
        components: The present components.
        home: The present devices, for subjects, which outlive them.
        counters: The client's statistics.
        state: Where the client is in its life.
        running: The life cycles of all clients that are open in this process.
    """

    running: ClassVar["WeakSet[Lifecycle]"] = WeakSet()

    def __init__(
        self, configuration: Configuration, hooks: Hooks, clock: Callable[[], float], default_device: str
    ) -> None:
        self.configuration = configuration
        self._hooks = hooks
        self._clock = reliable_clock(clock)
        self._default_device = default_device
        self.counters = Counters()
        self.state: State = "not started"
        self._is_wiped = self._is_reported = False
        self._ending: asyncio.Task[None] | None = None
        # The calls of `start` that rely on the client being open.
        self._started_by: set[object] = set()
        # How many records an interrupted stop may have deleted already.
        self._deleted = 0
        self._replaced_commits = 0
        self._turns = Turns()
        self.components = self._create(self._create_storage())
        self.components.recorder.refuse(_not_started())
        self.home = DeviceHome(self.components.devices)
        self._fork_handler = ForkHandler(self._forget)

    @property
    def commits(self) -> int:
        """The number of transactions that wrote to the queue."""
        return self._replaced_commits + self.components.storage.commits

    @property
    def location(self) -> str:
        """Where the queue is, for log lines."""
        storage = self.components.storage
        return str(getattr(storage, "location", None) or getattr(storage, "path", MEMORY))

    # Components

    def _create_storage(self) -> Storage:
        return create_storage(self.configuration, _storage_report(self))

    def _create(self, storage: Storage) -> Components:
        return Components(
            self.configuration, hooks=self._hooks, counters=self.counters, clock=self._clock, storage=storage
        )

    def _replace(self, *, keep_settings: bool, keep_memory: bool = False) -> None:
        """Create all components anew, in place of those that were closed, stopped or abandoned."""
        old = self.components
        keeps_storage = keep_memory and is_in_memory(self.configuration)
        new = self._create(old.storage if keeps_storage else self._create_storage())
        if not keeps_storage:
            self._replaced_commits += old.storage.commits
        if keep_settings:
            new.set_default_properties(old.default_properties)
            new.flush_mode, new.flush_period = old.flush_mode, old.flush_period
        self.components = new
        self.home.devices = new.devices

    # Other event loops and processes

    def check_loop(self) -> None:
        """
        Let go of what belongs to an event loop that has ended.

        Raises:
            LifecycleError: The client is running in the event loop of another thread.
        """
        running, loop = asyncio.get_running_loop(), self._turns.loop
        if loop is running:
            return
        if loop is not None and loop.is_running() and (self.components.loop is loop or self._turns.is_taken):
            raise wrong_loop(loop)
        if self.components.loop is not None:
            self._leave_loop()
        # Only now: what has never ended there may go on when it is let go of, and must find other components then.
        self._turns, self._ending = Turns(running), None

    def _leave_loop(self) -> None:
        if self.state == "open":
            LOG.warning("A client was not closed before its event loop ended; its queue is %s.", self.location)
            self.state = "not started"
            self.running.discard(self)
        old = self.components
        old.abandon()
        # What is in memory would be lost with the storage.
        self._replace(keep_settings=True, keep_memory=True)
        self._refuse()

    def _forget(self) -> None:
        """Forget all components in a forked child: they are the parent's, which goes on using them."""
        abandon(self._ending)
        self._turns, self._ending = Turns(), None
        if self.components.loop is None:
            return
        abandon(self.components)
        self._replace(keep_settings=True)
        if self.state == "open":
            self.state = "not started"
            self.running.discard(self)
            self.components.recorder.refuse(
                NotStartedError(
                    "The client was started before this process was forked.", hint="Await its start() in this process."
                )
            )
        else:
            self._refuse()

    def report_unclosed(self) -> None:
        """Log once that the client was never closed, and where its events are."""
        if self._is_reported:
            return
        self._is_reported = True
        name, is_lost = self.configuration.project_token, is_in_memory(self.configuration)
        fate = "is lost with its queue in memory" if is_lost else f"stays in its queue {self.location}"
        LOG.warning(
            "The client of project %s was never closed; what was not sent %s. Use 'async with', or await its aclose().",
            name,
            fate,
            extra=log_fields("unclosed", project=name, queue=self.location),
        )
        if self.components.loop is not None and not self.components.loop.is_running():
            self.components.abandon_connections()

    @classmethod
    def report_all_unclosed(cls) -> None:
        """Do so for all open clients at the exit of the process."""
        for lifecycle in list(cls.running):
            lifecycle.report_unclosed()
            # Finalizing tasks without their event loop would print a traceback for each of them.
            abandon(lifecycle.components)

    def _refuse(self) -> None:
        """Let the present components refuse or drop calls, as the state says."""
        recorder = self.components.recorder
        if self.state == "closed":
            recorder.refuse(_closed())
        elif self.state == "stopped":
            recorder.stop()
        else:
            recorder.refuse(_not_started())

    # Start

    async def start(self) -> None:
        """Open the client; do nothing if it is open already."""
        self.check_loop()
        if self._ending is not None:
            await asyncio.wait([self._ending])
            if self._ending.cancelled():
                await self._run(self._end_after_wipe, "exponea_async: end after a wipe", lambda: None)
            self._ending = None
        # Here, where it can be cancelled: a stop may take long.
        await self._turns.wait()
        token = object()
        try:
            await self._run(partial(self._start, token), "exponea_async: starting", lambda: None)
        except (asyncio.CancelledError, LifecycleError):
            await self._run(partial(self._undo_start, token), "exponea_async: closing", lambda: None)
            raise

    async def _start(self, token: object) -> None:
        async with self._turns.take():
            if self.state == "closed":
                raise _closed()
            if self.state == "open":
                self._started_by.add(token)
                return
            if self.components.is_used:
                # A stop was interrupted, or could not delete everything.
                await self._end_stopped(self.components.receipts.aclose)
            components = self.components
            try:
                await components.open(lambda: DeviceContext(self._default_device, self.home.devices))
            except BaseException:
                if self.components is components:
                    self._replace(keep_settings=True, keep_memory=True)
                    self._refuse()
                raise
            self.state, self._is_wiped, self._deleted, self._started_by = "open", False, 0, {token}
            self.running.add(self)
        await self._log_start()

    async def _log_start(self) -> None:
        try:
            size = await self.components.monitor.measure()
        except StorageError as error:
            LOG.warning("The queue can't be read: %s", error)
            return
        LOG.info(
            "Started for project %s with the queue %s: %d records wait, %d are dead letters.",
            self.configuration.project_token,
            self.location,
            size.waiting,
            size.dead,
            extra=log_fields(
                "started",
                project=self.configuration.project_token,
                queue=self.location,
                waiting=size.waiting,
                dead=size.dead,
            ),
        )

    async def _undo_start(self, token: object) -> None:
        """Close the client again, unless another call relies on it."""
        async with self._turns.take():
            self._started_by.discard(token)
            if self.state != "open" or self._started_by:
                return
            components = self.components
            async with AsyncExitStack() as stack:
                stack.callback(self._become_not_started, components)
                stack.push_async_callback(self._shut_down, components, Deadline(0))
                stack.push_async_callback(components.receipts.aclose)
                await components.close_features(Deadline(0), _not_started())

    def _become_not_started(self, components: Components) -> None:
        if self.components is components:
            self._replace(keep_settings=True, keep_memory=True)
            self.state = "not started"
            self._refuse()

    # Close

    async def close(
        self,
        timeout: float | None,  # noqa: ASYNC109 - as asyncio.wait has it
        *,
        end_sessions: bool,
        only_started: bool,
    ) -> None:
        """Upload what waits, as far as possible, and close; do nothing if the client is closed already."""
        self.check_loop()
        deadline = Deadline(timeout)
        is_uploaded = timeout != 0
        await self._run(
            partial(
                self._close, deadline, is_uploaded=is_uploaded, end_sessions=end_sessions, only_started=only_started
            ),
            "exponea_async: closing",
            deadline.expire,
        )

    async def _close(self, deadline: Deadline, *, is_uploaded: bool, end_sessions: bool, only_started: bool) -> None:
        async with self._turns.take(deadline, is_urgent=True):
            if self.state == "closed":
                return
            was_open = self.state == "open"
            components = self.components
            if only_started and components.upload is not None:
                components.upload.flusher.stop_leasing()
            # The last one is closed first, and the others also where this is cancelled.
            async with AsyncExitStack() as stack:
                if components.upload is not None:
                    stack.push_async_callback(self._shut_down, components, deadline)
                stack.push_async_callback(components.receipts.aclose)
                try:
                    await components.close_features(deadline, _closed(), end_sessions=end_sessions and was_open)
                finally:
                    if self.components is components:
                        self.state = "closed"
                if components.upload is not None:
                    await self._upload_rest(
                        components, deadline, is_uploaded=is_uploaded and was_open, only_started=only_started
                    )

    async def _upload_rest(
        self, components: Components, deadline: Deadline, *, is_uploaded: bool, only_started: bool
    ) -> None:
        upload, waiting = components.upload, 0
        try:
            if upload is not None and only_started:
                async with deadline.limit():
                    await upload.flusher.finish_started()
            elif upload is not None and components.flush_mode is not FlushMode.MANUAL and is_uploaded:
                async with deadline.limit():
                    await upload.flusher.flush(deadline.remaining, wait_out_outages=False)
            async with deadline.limit(grace=0.5):
                waiting = (await components.monitor.measure()).waiting
                fields = log_fields("closed", queue=self.location, waiting=waiting)
                LOG.info("Closed; %d records stay in the queue %s.", waiting, self.location, extra=fields)
        except StorageError as error:
            LOG.warning("The queue could not be uploaded while closing: %s", error)

    async def _shut_down(self, components: Components, deadline: Deadline) -> None:
        # A call that the end of an event loop has left behind goes on when it is finalized, and the client may have
        # other components then, which are not its own.
        if self.components is components:
            self.running.discard(self)
        await components.shut_down(deadline)

    # Stop

    async def stop(self, *, flush: bool, timeout: float | None) -> FlushResult:  # noqa: ASYNC109 - as asyncio.wait has it
        """Delete all data and stop."""
        self.check_loop()
        deadline = Deadline(timeout if flush else 0)
        return await self._run(partial(self._stop, deadline, flush=flush), "exponea_async: stopping", deadline.expire)

    async def _stop(self, deadline: Deadline, *, flush: bool) -> FlushResult:
        async with self._turns.take(deadline):
            if self.state == "closed":
                raise _closed()
            if self._is_wiped:
                return FlushResult(0, 0, 0)
            # From here on everything is dropped: nothing can be tracked that would be deleted unsent.
            self.state = "stopped"
            components = self.components
            components.recorder.stop()
            components.features.clear()
            async with deadline.limit():
                await components.session_expirer.aclose()
            result = FlushResult(0, 0, 0)
            if flush and components.upload is not None:
                await components.upload.flusher.set_mode(FlushMode.MANUAL)
                result = await components.drain(deadline)
            # Everything under way ends first, so that nothing is sent or written after the data is deleted.
            await self._end_components(components)
            return await self._wipe(components, result, is_flush=flush)

    async def _wipe(self, components: Components, result: FlushResult, *, is_flush: bool) -> FlushResult:
        waiting = await count_waiting(components.storage)
        if waiting is not None:
            # A call that was interrupted may have deleted them.
            self._deleted = waiting = max(waiting, self._deleted)
        await components.storage.wipe()
        self._is_wiped, self._deleted = True, 0
        # The closed components are replaced also where this is cancelled.
        async with AsyncExitStack() as stack:
            stack.push_async_callback(self._renew_components, components)
            self._log_wipe(result.delivered if is_flush else None, waiting)
            remaining = result.remaining if waiting is None else waiting
            if remaining:
                self.counters.dropped["stopped"] += remaining
                self._hooks.notify(DeliveryEvent("dropped", reason=STOPPED))
            await components.receipts.drop_all(STOPPED)
        return evolve(result, remaining=remaining)

    def _log_wipe(self, delivered: int | None, waiting: int | None) -> None:
        LOG.warning(
            "The integration was stopped: %s%s were deleted unsent, and nothing is tracked.",
            "" if delivered is None else f"{delivered} records were delivered first, ",
            "all" if waiting is None else waiting,
            extra=log_fields("stopped", count=waiting),
        )

    async def _end_components(self, components: Components) -> None:
        async with AsyncExitStack() as stack:
            stack.push_async_callback(self._shut_down, components, Deadline(None))
            stack.callback(components.devices.end_streams)
            await components.features.aclose()

    async def _renew_components(self, components: Components) -> None:
        try:
            await components.receipts.aclose()
        finally:
            components.devices.clear()
            if self.components is components:
                self._replace(keep_settings=False)
                self._refuse()

    # What another client of the file has done

    def handle_storage_error(self, error: StorageError) -> None:
        """React to what the storage has found: a damaged file, or a file that another client has wiped."""
        if isinstance(error, DamagedFileError):
            self.components.replace_lost_states(error)
        elif isinstance(error, WipedFileError) and self.state == "open":
            self.state = "stopped"
            self.components.recorder.stop()
            self.components.features.clear()
            LOG.warning("%s", error, extra=log_fields("wiped", queue=self.location))
            self._hooks.notify(DeliveryEvent("wiped", reason=str(error), error=error))
            self._begin_to_end()

    def _begin_to_end(self) -> None:
        self._ending = asyncio.create_task(self._end_after_wipe(), name="exponea_async: end after a wipe")
        self._ending.add_done_callback(self._end_again)

    def _end_again(self, ending: "asyncio.Task[None]") -> None:
        # A task that is cancelled before it has begun does nothing, and callers would wait for their receipts.
        if ending.cancelled():
            CallUnlessEnding(RETRY_DELAY, self._begin_to_end)

    async def _end_after_wipe(self) -> None:
        async with self._turns.take():
            if self.state == "stopped" and self.components.is_used:
                await self._end_stopped(self.components.receipts.lose_all)

    async def _end_stopped(self, resolve: Callable[[], Awaitable[None]]) -> None:
        """End and replace the components of a client that is stopped, all of them also where this is cancelled."""
        components = self.components
        async with AsyncExitStack() as stack:
            stack.push_async_callback(self._renew_components, components)
            stack.push_async_callback(resolve)
            stack.push_async_callback(self._end_components, components)
            await components.session_expirer.aclose()

    async def _run(self, work: Callable[[], Coroutine[Any, Any, T]], name: str, on_cancel: Callable[[], None]) -> T:
        return await run_to_end(work, name=name, on_cancel=on_cancel)


atexit.register(Lifecycle.report_all_unclosed)


def _not_started() -> LifecycleError:
    return NotStartedError("The client is not started.", hint="Use 'async with' or await start().")


def _closed() -> LifecycleError:
    return ClosedError("The client is closed.", hint="Create a new client.")


def _storage_report(lifecycle: Lifecycle) -> Callable[[StorageError], None]:
    # The storage outlives a client that was never closed, and must not keep it alive.
    owner = ref(lifecycle)

    def report(error: StorageError) -> None:
        if (lifecycle := owner()) is not None:
            lifecycle.handle_storage_error(error)

    return report
