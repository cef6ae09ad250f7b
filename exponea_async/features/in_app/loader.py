"""
In-app messages from the platform: one question at a time for each customer.
"""

import asyncio
import json
import logging
import zlib
from collections.abc import Callable

from attrs import frozen

from exponea_async._internal.concurrency import BackgroundTasks
from exponea_async.devices.context import ApiRequest, SubjectContext
from exponea_async.devices.customers import CustomerSnapshot
from exponea_async.devices.state import ProjectRef
from exponea_async.errors import ExponeaError, RequestRefusedError, StorageError
from exponea_async.features._shared.envelopes import to_thread_if_large
from exponea_async.features.in_app.cache import Cache, Loaded

LOG = logging.getLogger("exponea_async")

PATH = "/webxp/s/{project}/inappmessages?compatibility=3"
#: As often as the Android SDK asks.
TRIES = 4
#: Questions for what was tracked, that are under way or wait for their turn; for more it is too late anyway.
MOST = 1_000
#: A project that refused is left in peace for so long, in seconds, but for who asks for it.
PEACE = 60.0
#: Under which name a device's messages are stored.
NAME = "in_app_messages"
#: Answers that take more than this when they are stored are not, in bytes.
LARGEST = 1_000_000


@frozen(eq=False)
class Flight:
    """
    A question that is under way.

    Attributes:
        task: Ends with the messages, or with None where they are nobody's any more.
        asks: Whether the platform is asked where there is nothing else; otherwise only the storage is.
    """

    task: "asyncio.Task[Loaded | None]"
    asks: bool


class Loader:
    """
    Loads messages: from memory, from the storage, from the platform.

    Args:
        cache: Keeps them in memory.
        tasks: Where loading goes on.
        clock: Tells UNIX seconds.
        platform: Whose messages, ``"android"`` or ``"ios"``.
        landed: Told of each end at once: with the messages or None, and whether the platform might be asked.
    """

    def __init__(
        self,
        cache: Cache,
        tasks: BackgroundTasks,
        clock: Callable[[], float],
        platform: str,
        landed: Callable[[SubjectContext, CustomerSnapshot, Loaded | None, bool], None],
    ) -> None:
        self._cache = cache
        self._tasks = tasks
        self._clock = clock
        self._platform = platform
        self._landed = landed
        self._flights: dict[str, Flight] = {}
        self._in_peace: dict[ProjectRef, float] = {}

    def is_loading(self, customer: CustomerSnapshot) -> bool:
        """Whether something is being loaded for a customer."""
        return customer.fingerprint in self._flights

    def may_start(self, customer: CustomerSnapshot) -> bool:
        """Whether loading for what was tracked makes sense."""
        return len(self._flights) < MOST and self._in_peace.get(customer.project, 0.0) <= _now()

    def start(
        self,
        context: SubjectContext,
        customer: CustomerSnapshot,
        moment: float,
        *,
        asks: bool = True,
        fresh: bool = False,
    ) -> Flight:
        """
        Begin to load, instead of what may be under way: the result of that is not wanted any more.

        Args:
            context: The subject.
            customer: The customer.
            moment: The moment that the messages are for, UNIX seconds; older ones may be too old then.
            asks: Whether the platform may be asked.
            fresh: Whether it has to be.
        """
        work = self._load(context, customer, moment, asks=asks, fresh=fresh)
        flight = self._flights[customer.fingerprint] = Flight(self._tasks.start(work, name="in-app messages"), asks)
        return flight

    async def load(self, context: SubjectContext, customer: CustomerSnapshot, moment: float) -> Loaded | None:
        """
        Give a customer's messages; None where they are somebody else's by now, or the integration was stopped.

        Raises:
            RefusedError: The platform refused.
            UnavailableError: There was no usable answer.
        """
        while True:
            flight = self._flights.get(customer.fingerprint)
            if flight is None:
                loaded = self._cache.find(customer.fingerprint)
                if loaded is not None and loaded.is_good_for(moment):
                    return loaded
                flight = self.start(context, customer, moment)
            # Whoever is cancelled here must not take it away from the others who wait.
            await asyncio.wait({flight.task})
            if flight.task.cancelled():
                return None
            if flight.asks and self._flights.get(customer.fingerprint) in (None, flight):
                return flight.task.result()

    def clear(self) -> None:
        """Forget what is under way; its tasks are somebody else's to end."""
        self._flights.clear()
        self._in_peace.clear()

    async def forget(self, context: SubjectContext) -> None:
        """Forget what is stored for a device."""
        await context.save_data(NAME, None)

    async def _load(
        self, context: SubjectContext, customer: CustomerSnapshot, moment: float, *, asks: bool, fresh: bool
    ) -> Loaded | None:
        me, loaded = asyncio.current_task(), None
        try:
            if not fresh:
                loaded = self._cache.find(customer.fingerprint) or await self._restored(context, customer)
            if asks and (loaded is None or not loaded.is_good_for(moment)):
                loaded = None
                loaded = await self._asked(context, customer)
        finally:
            flight = self._flights.get(customer.fingerprint)
            if flight is not None and flight.task is me:
                del self._flights[customer.fingerprint]
                self._landed(context, customer, loaded, asks)
        return loaded

    async def _asked(self, context: SubjectContext, customer: CustomerSnapshot) -> Loaded | None:
        body = {"customer_ids": dict(customer.ids), "device": self._platform}
        try:
            answer = await context.request(customer, ApiRequest(PATH, body, tries=TRIES))
        except RequestRefusedError:
            self._leave_in_peace(customer.project)
            raise
        if answer is None:
            return None
        content = await to_thread_if_large(len(answer), lambda: self._cache.read(answer))
        now = await context.current_customer(counts_as_activity=False)
        flight = self._flights.get(customer.fingerprint)
        if (
            now is None
            or now.fingerprint != customer.fingerprint
            or flight is None
            or flight.task is not asyncio.current_task()
        ):
            LOG.debug("In-app messages came too late: the customer is another one, or they were asked for again.")
            return None
        loaded = self._cache.put(customer.fingerprint, content, self._clock())
        if context.is_device:
            self._tasks.start(_store(context, customer, answer, loaded.at), name="storing in-app messages")
        return loaded

    async def _restored(self, context: SubjectContext, customer: CustomerSnapshot) -> Loaded | None:
        try:
            stored = await context.load_data(NAME)
            if stored is None:
                return None
            unpacked = await to_thread_if_large(len(stored), lambda: _unpacked(stored, customer.fingerprint))
            if unpacked is None:
                return None
            at, body = unpacked
            content = await to_thread_if_large(len(body), lambda: self._cache.read(body))
        except (ExponeaError, ValueError, KeyError, TypeError, zlib.error) as error:
            LOG.warning("Stored in-app messages can't be read, and are loaded again: %s", error)
            return None
        return self._cache.put(customer.fingerprint, content, at)

    def _leave_in_peace(self, place: ProjectRef) -> None:
        now = _now()
        self._in_peace = {each: until for each, until in self._in_peace.items() if until > now}
        self._in_peace[place] = now + PEACE


async def _store(context: SubjectContext, customer: CustomerSnapshot, body: bytes, at: float) -> None:
    packed = await to_thread_if_large(len(body), lambda: _packed(body, customer.fingerprint, at))
    try:
        await context.save_data(NAME, packed if len(packed) <= LARGEST else None)
    except StorageError as error:
        LOG.warning("In-app messages could not be stored: %s", error)


def _packed(body: bytes, fingerprint: str, at: float) -> bytes:
    return json.dumps([fingerprint, at]).encode() + b"\n" + zlib.compress(body, 6)


def _unpacked(stored: bytes, fingerprint: str) -> tuple[float, bytes] | None:
    head, _, packed = stored.partition(b"\n")
    owner, at = json.loads(head)
    return (float(at), zlib.decompress(packed)) if owner == fingerprint else None


def _now() -> float:
    return asyncio.get_running_loop().time()
