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
from exponea_async.devices.context import ApiRequest, SubjectContext
from exponea_async.devices.customers import CustomerSnapshot
from exponea_async.errors import ExponeaError, RequestRefusedError, StorageError
from exponea_async.features._shared.envelopes import to_thread_if_large
from exponea_async.features.in_app.cache import LoadedMessages, MessageCache

LOG = logging.getLogger("exponea_async")

PATH = "/webxp/s/{project}/inappmessages?compatibility=3"
#: Maximum number of attempts, as in the Android SDK.
MAX_ATTEMPTS = 4
#: Maximum number of loads in progress for tracked events; by the time others had their turn, it would be too late.
MAX_LOADS = 1_000
#: Seconds for which tracked events cause no requests to a project that refused one.
REFUSAL_PAUSE = 60.0
#: The name under which the messages of a device are stored.
NAME = "in_app_messages"
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
    """

    messages: LoadedMessages | None
    is_final: bool


class MessageLoader:
    """
    Loads messages.

    Args:
        cache: The messages in memory.
        tasks: Runs the loads.
        clock: Returns the time as UNIX seconds.
        platform: The platform whose messages are loaded, ``"android"`` or ``"ios"``.
        on_loaded: Called at the end of each load, synchronously, unless a later load has replaced it.

    Attributes:
        loads: The loads in progress, by the customer's fingerprint.
        max_loads: Maximum number of loads in progress for tracked events.
        max_stored_bytes: Maximum size of what is stored for a device.
    """

    def __init__(
        self,
        cache: MessageCache,
        tasks: BackgroundTasks,
        clock: Callable[[], float],
        platform: str,
        on_loaded: Callable[[SubjectContext, CustomerSnapshot, LoadResult], None],
    ) -> None:
        self._cache = cache
        self._tasks = tasks
        self._clock = clock
        self._platform = platform
        self._on_loaded = on_loaded
        self.loads: SingleFlight[str, LoadResult] = SingleFlight(tasks)
        self.max_loads = MAX_LOADS
        self.max_stored_bytes = MAX_STORED_BYTES
        self._paused_until: dict[str, float] = {}

    def is_loading(self, customer: CustomerSnapshot) -> bool:
        """Return whether a load is in progress for a customer."""
        return self.loads.get(customer.fingerprint) is not None

    def may_start(self, customer: CustomerSnapshot) -> bool:
        """Return whether a tracked event may start a load."""
        return len(self.loads) < self.max_loads and self._paused_until.get(customer.project, 0.0) <= _loop_time()

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
        work = self._load(context, customer, timestamp, allow_request=allow_request, force_request=force_request)
        return self.loads.start([customer.fingerprint], work, name="in-app messages")

    async def load(
        self, context: SubjectContext, customer: CustomerSnapshot, timestamp: float
    ) -> LoadedMessages | None:
        """
        Return a customer's messages; None if the customer has changed, or the integration was stopped.

        Raises:
            RequestRefusedError: The platform refused.
            UnavailableError: There was no usable response.
        """
        while True:
            load = self.loads.get(customer.fingerprint)
            if load is None:
                loaded = self._cache.get(customer.fingerprint)
                if loaded is not None and loaded.is_fresh_at(timestamp):
                    return loaded
                load = self.start(context, customer, timestamp)
            if not await load.wait():
                return None
            if self.loads.get(customer.fingerprint) in (None, load) and load.result().is_final:
                return load.result().messages

    def clear(self) -> None:
        """Cancel all loads, and end all pauses."""
        self.loads.clear()
        self._paused_until.clear()

    async def delete_stored(self, context: SubjectContext) -> None:
        """Delete what is stored for a device."""
        await context.save_data(NAME, None)

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
        try:
            if not force_request:
                loaded = self._cache.get(customer.fingerprint) or await self._load_stored(context, customer)
            if allow_request and (loaded is None or not loaded.is_fresh_at(timestamp)):
                loaded = None
                loaded = await self._request(context, customer)
        finally:
            is_current = self.loads.is_current(customer.fingerprint)
            result = LoadResult(loaded, is_final=allow_request and is_current)
            if is_current:
                # Before the callback: events that are tracked from now on must not wait for this load.
                self.loads.discard(customer.fingerprint)
                self._on_loaded(context, customer, result)
        return result

    async def _request(self, context: SubjectContext, customer: CustomerSnapshot) -> LoadedMessages | None:
        body = {"customer_ids": dict(customer.ids), "device": self._platform}
        try:
            response = await context.request(customer, ApiRequest(PATH, body, max_attempts=MAX_ATTEMPTS))
        except RequestRefusedError:
            self._pause(customer.project)
            raise
        if response is None:
            return None
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

    def _pause(self, project: str) -> None:
        now = _loop_time()
        self._paused_until = {each: until for each, until in self._paused_until.items() if until > now}
        self._paused_until[project] = now + REFUSAL_PAUSE


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
