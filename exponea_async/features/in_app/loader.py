"""
Loads in-app messages: from memory, from the storage or from the platform, one load per customer at a time.
"""

import asyncio
import json
import logging
import zlib
from collections.abc import Callable

from attrs import frozen

from exponea_async._internal.concurrency import BackgroundTasks, SharedLoad, SingleFlight
from exponea_async._internal.pauses import Pauses
from exponea_async.config import Configuration
from exponea_async.devices.context import SubjectContext
from exponea_async.devices.customers import CustomerSnapshot
from exponea_async.errors import ExponeaError, RequestRefusedError, StorageError, UnavailableError
from exponea_async.features._shared.envelopes import to_thread_if_large
from exponea_async.features.in_app.cache import LoadedMessages, MessageCache
from exponea_async.features.in_app.stored import NAME, owner_of
from exponea_async.requests import ApiRequest

LOG = logging.getLogger("exponea_async")

PATH = "/webxp/s/{project}/inappmessages?compatibility=3"
#: Maximum number of attempts, as in the Android SDK.
MAX_ATTEMPTS = 4
#: Maximum number of loads in progress for tracked events; by the time others had their turn, it would be too late.
MAX_LOADS = 1_000
#: Seconds for which nothing is requested from a project that refused a request, and from one that did not respond.
REFUSAL_PAUSE, PAUSE = 60.0, 10.0
#: Maximum size of what is stored for a device, in bytes; larger responses are not stored.
MAX_STORED_BYTES = 1_000_000


@frozen(eq=False)
class LoadResult:
    """
    The result of a load.

    Attributes:
        messages: The messages; None if there are none, or if they are not the current customer's any more.
        is_final: Whether callers get it. Otherwise the platform was not requested, or a later load has replaced this
            one.
        is_failed: Whether the messages could not be loaded.
    """

    messages: LoadedMessages | None
    is_final: bool
    is_failed: bool = False


class MessageLoader:
    """
    Loads messages.

    Args:
        cache: The messages in memory.
        tasks: Runs the loads.
        clock: Returns the time as UNIX seconds.
        configuration: The settings.
        on_loaded: Called at the end of each load, synchronously, unless a later load has replaced it.
        on_sent: Called when the first request of a load is sent, which may have waited for its turn before.

    Attributes:
        loads: The loads in progress, by the customer's fingerprint.
        max_loads: Maximum number of loads in progress for tracked events.
        max_stored_bytes: Maximum size of what is stored for a device.
        pauses: The projects from which nothing is requested now.
    """

    def __init__(
        self,
        cache: MessageCache,
        tasks: BackgroundTasks,
        clock: Callable[[], float],
        configuration: Configuration,
        *,
        on_loaded: Callable[[SubjectContext, CustomerSnapshot, LoadResult], None],
        on_sent: Callable[[CustomerSnapshot], None],
    ) -> None:
        self._cache = cache
        self._tasks = tasks
        self._clock = clock
        self._platform = configuration.message_platform
        self._limits = configuration.limits
        self._on_loaded, self._on_sent = on_loaded, on_sent
        self.loads: SingleFlight[str, LoadResult] = SingleFlight(tasks)
        self.max_loads = MAX_LOADS
        self.max_stored_bytes = MAX_STORED_BYTES
        self.pauses: Pauses[str] = Pauses()
        # The fingerprints of the customers whose load has sent its request.
        self._sent: set[str] = set()

    def is_loading(self, customer: CustomerSnapshot) -> bool:
        """Return whether a load is in progress for a customer."""
        return self.loads.get(customer.fingerprint) is not None

    def has_sent(self, customer: CustomerSnapshot) -> bool:
        """Return whether the load in progress for a customer has sent its request."""
        return customer.fingerprint in self._sent

    def may_start(self, customer: CustomerSnapshot) -> bool:
        """Return whether a tracked event may start a load."""
        return len(self.loads) < self.max_loads and self.pauses.error(customer.project) is None

    def start(
        self,
        context: SubjectContext,
        customer: CustomerSnapshot,
        timestamp: float,
        *,
        allow_request: bool = True,
        force_request: bool = False,
    ) -> SharedLoad[LoadResult]:
        """
        Start a load, instead of one in progress, whose result is outdated.

        Args:
            context: The subject.
            customer: The customer.
            timestamp: When the messages are needed, UNIX seconds; those that are not fresh then are loaded again.
            allow_request: Whether the platform may be requested. Otherwise only memory and storage are read.
            force_request: Whether the platform is requested in any case.
        """
        self._sent.discard(customer.fingerprint)
        work = self._load(context, customer, timestamp, allow_request=allow_request, force_request=force_request)
        return self.loads.start([customer.fingerprint], work, name="in-app messages")

    async def load(
        self, context: SubjectContext, customer: CustomerSnapshot, timestamp: float
    ) -> LoadedMessages | None:
        """
        Return a customer's messages; None if the customer has changed, or the integration was stopped.

        While they can't be loaded after an identification, it is those from before. The wait is limited. After a
        failure, and a wait that was too long, nothing is requested for a while.

        Raises:
            RequestRefusedError: The platform refused.
            UnavailableError: There was no usable response in time.
        """
        try:
            return await self._load_in_time(context, customer, timestamp)
        except UnavailableError:
            loaded = self._cache.get(customer.fingerprint)
            if loaded is None or not loaded.is_fresh_at(timestamp):
                raise
            return loaded

    async def _load_in_time(
        self, context: SubjectContext, customer: CustomerSnapshot, timestamp: float
    ) -> LoadedMessages | None:
        deadline = _loop_time() + self._limits.in_app_messages_wait
        while True:
            load = self.loads.get(customer.fingerprint)
            if load is None:
                loaded = self._cache.get(customer.fingerprint)
                if loaded is not None and loaded.is_fresh_at(timestamp) and not loaded.is_inherited:
                    return loaded
            # Also while a load is in progress: its earlier callers have waited for it in vain.
            self.pauses.raise_error(customer.project)
            load = load or self.start(context, customer, timestamp)
            if not await load.wait(deadline - _loop_time()):
                if load.task.done():
                    return None
                self._end_wait(customer)
            # The result of a load that was replaced, which may be an error, is outdated.
            if not load.is_replaced and load.result().is_final:
                return load.result().messages

    def _end_wait(self, customer: CustomerSnapshot) -> None:
        seconds = self._limits.in_app_messages_wait
        error = UnavailableError(f"in-app messages were not loaded within {seconds:g} s (limits.in_app_messages_wait)")
        self.pauses.begin(customer.project, PAUSE, error)
        raise error

    def clear(self) -> None:
        """Cancel all loads, and end all pauses."""
        self.loads.clear()
        self.pauses.clear()

    def inherit(self, customer: CustomerSnapshot, previous: CustomerSnapshot) -> None:
        """
        Let an identified customer have the messages from before the identification, until new ones are loaded.

        Only if nothing but ids was added: a device that has another id or another cookie has another customer, who must
        not get the messages of the previous one.
        """
        is_same = (previous.device, previous.project) == (customer.device, customer.project)
        if not is_same or not previous.ids.items() <= customer.ids.items():
            return
        loaded = self._cache.get(previous.fingerprint)
        if loaded is not None and self._cache.get(customer.fingerprint) is None:
            self._cache.put(customer.fingerprint, loaded.messages, loaded.loaded_at, is_inherited=True)

    async def delete_stored(self, context: SubjectContext) -> None:
        """Delete what is stored for a device."""
        await context.save_data(NAME, None)

    async def delete_stored_of_others(self, context: SubjectContext, customer: CustomerSnapshot) -> None:
        """Delete what is stored for a device, unless it is the present customer's."""
        stored = await context.load_data(NAME)
        if stored is not None and owner_of(stored) != customer.fingerprint:
            await self.delete_stored(context)

    async def _load(
        self,
        context: SubjectContext,
        customer: CustomerSnapshot,
        timestamp: float,
        *,
        allow_request: bool,
        force_request: bool,
    ) -> LoadResult:
        loaded: LoadedMessages | None = None
        is_failed = True
        try:
            if not force_request:
                loaded = self._cache.get(customer.fingerprint) or await self._load_stored(context, customer)
            if allow_request and (loaded is None or loaded.is_inherited or not loaded.is_fresh_at(timestamp)):
                loaded = None
                loaded = await self._request(context, customer, ignore_pause=force_request)
            is_failed = False
        finally:
            is_current = self.loads.is_current(customer.fingerprint)
            result = LoadResult(loaded, is_final=allow_request and is_current, is_failed=is_failed)
            if is_current:
                # Before the callback: events that are tracked from now on must not wait for this load.
                self.loads.discard(customer.fingerprint)
                self._sent.discard(customer.fingerprint)
                self._on_loaded(context, customer, result)
        return result

    async def _request(
        self, context: SubjectContext, customer: CustomerSnapshot, *, ignore_pause: bool
    ) -> LoadedMessages | None:
        body = {"customer_ids": dict(customer.ids), "device": self._platform}

        def note_sending() -> None:
            # Many requests may have waited for their turn when the first of them fails.
            if not ignore_pause:
                self.pauses.raise_error(customer.project)
            if self.loads.is_current(customer.fingerprint) and customer.fingerprint not in self._sent:
                self._sent.add(customer.fingerprint)
                self._on_sent(customer)

        request = ApiRequest("in_app_messages", PATH, body, max_attempts=MAX_ATTEMPTS, before_sending=note_sending)
        try:
            response = await context.request(customer, request)
        except (RequestRefusedError, UnavailableError) as error:
            # The error may be that of a pause in progress, which must not be prolonged by it.
            if self.pauses.error(customer.project) is None:
                is_refusal = isinstance(error, RequestRefusedError)
                self.pauses.begin(customer.project, REFUSAL_PAUSE if is_refusal else PAUSE, error)
            raise
        if response is None:
            return None
        self.pauses.end(customer.project)
        messages = await to_thread_if_large(len(response), lambda: self._cache.read(response))
        if not (await context.is_current(customer) and self.loads.is_current(customer.fingerprint)):
            LOG.debug("A response with in-app messages is outdated: the customer has changed, or a later load exists.")
            return None
        loaded = self._cache.put(customer.fingerprint, messages, self._clock())
        if context.is_device:
            work = self._store(context, customer, response, loaded.loaded_at)
            self._tasks.start(work, name="storing in-app messages")
        return loaded

    async def _load_stored(self, context: SubjectContext, customer: CustomerSnapshot) -> LoadedMessages | None:
        try:
            stored = await context.load_data(NAME)
            if stored is None:
                return None
            unpacked = await to_thread_if_large(len(stored), lambda: _unpack(stored, customer.fingerprint))
            if unpacked is None:
                return None
            loaded_at, body = unpacked
            messages = await to_thread_if_large(len(body), lambda: self._cache.read(body))
        except (ExponeaError, ValueError, KeyError, TypeError, zlib.error) as error:
            LOG.warning("Stored in-app messages can't be read, and are loaded again: %s", error)
            return None
        return self._cache.put(customer.fingerprint, messages, loaded_at)

    async def _store(self, context: SubjectContext, customer: CustomerSnapshot, body: bytes, loaded_at: float) -> None:
        packed = await to_thread_if_large(len(body), lambda: pack(body, customer.fingerprint, loaded_at))
        try:
            await context.save_data(NAME, packed if len(packed) <= self.max_stored_bytes else None)
        except StorageError as error:
            LOG.warning("In-app messages could not be stored: %s", error)


def pack(body: bytes, fingerprint: str, loaded_at: float) -> bytes:
    """Return a response as it is stored: compressed, with its customer and the time it was loaded."""
    return json.dumps([fingerprint, loaded_at]).encode() + b"\n" + zlib.compress(body, 6)


def _unpack(stored: bytes, fingerprint: str) -> tuple[float, bytes] | None:
    """Return when a stored response was loaded, and the response; None if it is another customer's."""
    head, _, packed = stored.partition(b"\n")
    owner, loaded_at = json.loads(head)
    return (float(loaded_at), zlib.decompress(packed)) if owner == fingerprint else None


def _loop_time() -> float:
    return asyncio.get_running_loop().time()
