"""
Loading content blocks, once for concurrent callers.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any, TypeVar

from exponea_async._internal.concurrency import BackgroundTasks, SharedLoad, SingleFlight
from exponea_async._internal.lru import LruCache
from exponea_async._internal.pauses import Pauses
from exponea_async.config import Configuration
from exponea_async.devices.context import SubjectContext
from exponea_async.devices.customers import CustomerSnapshot
from exponea_async.errors import ExponeaError, LifecycleError, RequestRefusedError, UnavailableError
from exponea_async.features._shared.envelopes import decode_elements, read_envelope, to_thread_if_large
from exponea_async.features.content_blocks.cache import Bundle, CustomerCache
from exponea_async.features.content_blocks.parsing import (
    BlockDefinition,
    is_fresh,
    read_definition,
    read_personalized_data,
)
from exponea_async.messages import PersonalizedData
from exponea_async.requests import ApiRequest

LOG = logging.getLogger("exponea_async")

T = TypeVar("T")

#: Age in seconds from which a bundle is loaded again in the background: phones load it at each start, but servers run
#: for months.
MAX_AGE = 30 * 60.0
#: Time in seconds after a failed load, and one that callers have waited for too long, during which nothing is loaded,
#: and no caller waits. So a platform that does not respond delays few pages.
PAUSE = 10.0
#: Maximum number of attempts per request.
MAX_ATTEMPTS = 4
#: Maximum number of projects whose bundles are cached.
MAX_PROJECTS = 64

BUNDLE = "/wxstatic/projects/{{project}}/bundle-{platform}.json?v=2"
PERSONALIZED = "/webxp/s/{project}/inappcontentblocks?v=2"

DataById = Mapping[str, PersonalizedData]


class BlockLoader:
    """
    Loads content blocks and caches them.

    Args:
        configuration: The settings.
        clock: Returns the current time in UNIX seconds.
        tasks: The background tasks of the feature.

    Attributes:
        customers: The personalized data of customers.
        bundles: The bundles of projects.
    """

    def __init__(self, configuration: Configuration, clock: Callable[[], float], tasks: BackgroundTasks) -> None:
        self.customers = CustomerCache()
        self.bundles: LruCache[str, Bundle] = LruCache(MAX_PROJECTS)
        self._tasks = tasks
        self._bundle_path = BUNDLE.format(platform=configuration.message_platform)
        self._clock = clock
        self._bundle_loads: SingleFlight[str, Bundle | None] = SingleFlight(tasks)
        # By the customer's fingerprint and the block's id, so that callers wait for a block that is being loaded.
        self._data_loads: SingleFlight[tuple[str, str], DataById | None] = SingleFlight(tasks)
        self._max_wait = configuration.limits.content_blocks_wait
        self._pauses: Pauses[object] = Pauses()
        # The projects whose last load failed.
        self._failing: set[str] = set()

    @property
    def is_used(self) -> bool:
        """Whether a bundle was loaded."""
        return len(self.bundles) > 0

    async def bundle(self, context: SubjectContext, customer: CustomerSnapshot) -> Bundle | None:
        """
        Return the bundle of a customer's project; None where it can't be loaded now.

        Raises:
            LifecycleError: The client is not running.
        """
        bundle = self.bundles.get(customer.project)
        if bundle is None:
            load = self.renew(context, customer)
            return None if load is None else await self._wait(context, customer, load)
        if not 0 <= self._clock() - bundle.loaded_at <= MAX_AGE:
            self.renew(context, customer)
        return bundle

    def renew(self, context: SubjectContext, customer: CustomerSnapshot) -> SharedLoad[Bundle | None] | None:
        """Load the bundle of a customer's project, even if it is cached; return None during a pause."""
        project = customer.project
        load = self._bundle_loads.get(project)
        if load is None and not self._pauses.error(project, ("bundle", project), customer.fingerprint):
            work = self._load_or_pause(
                lambda: self._load_bundle(context, customer), customer, refused=("bundle", project)
            )
            load = self._bundle_loads.start([project], work, name="content blocks")
        return load

    async def personalized_data(
        self, context: SubjectContext, customer: CustomerSnapshot, definitions: Iterable[BlockDefinition]
    ) -> DataById:
        """
        Return the personalized data of blocks by their ids. What is not fresh is loaded, in one request.

        Data that can't be loaded stays as it was before.

        Raises:
            LifecycleError: The client is not running.
        """
        cached, now = self.customers.get(customer), self._clock()
        stale = [each.id for each in definitions if not is_fresh(each, cached.get(each.id), now)]
        in_progress = {each: self._data_loads.get((customer.fingerprint, each)) for each in stale}
        loads = {load for load in in_progress.values() if load is not None}
        missing = [each for each in stale if in_progress[each] is None]
        if missing and not self._pauses.error(customer.project, customer.fingerprint):
            loads.add(self._start_data_load(context, customer, missing))
        if not loads:
            return cached
        loaded: dict[str, PersonalizedData] = {}
        for load in loads:
            data = await self._wait(context, customer, load)
            loaded |= data or {}
        # Data that was just loaded counts even if its time to live is zero, or the cache had no room for it.
        return {**self.customers.get(customer), **loaded}

    def clear(self) -> None:
        """Remove everything from memory, and cancel all loads."""
        self._tasks.cancel()
        for each in (
            self.customers,
            self.bundles,
            self._bundle_loads,
            self._data_loads,
            self._pauses,
            self._failing,
        ):
            each.clear()

    def _start_data_load(
        self, context: SubjectContext, customer: CustomerSnapshot, ids: list[str]
    ) -> SharedLoad[DataById | None]:
        fingerprint = customer.fingerprint
        work = self._load_or_pause(lambda: self._load_data(context, customer, ids), customer, refused=fingerprint)
        return self._data_loads.start([(fingerprint, each) for each in ids], work, name="personal content blocks")

    async def _load_bundle(self, context: SubjectContext, customer: CustomerSnapshot) -> Bundle | None:
        response = await context.request(
            customer, ApiRequest("content_blocks", self._bundle_path, is_personal=True, max_attempts=MAX_ATTEMPTS)
        )
        if response is None:
            return None
        now = self._clock()
        bundle = await to_thread_if_large(len(response), lambda: read_bundle(response, now))
        self.bundles.put(customer.project, bundle)
        return bundle

    async def _load_data(self, context: SubjectContext, customer: CustomerSnapshot, ids: list[str]) -> DataById | None:
        body = {"customer_ids": dict(customer.ids), "content_block_ids": ids}
        response = await context.request(
            customer, ApiRequest("content_blocks", PERSONALIZED, body, is_personal=True, max_attempts=MAX_ATTEMPTS)
        )
        if response is None:
            return None
        now = self._clock()
        loaded = await to_thread_if_large(len(response), lambda: read_data(response, frozenset(ids), now))
        if not await context.is_current(customer):
            LOG.debug("Content blocks of a previous customer are discarded.")
            return None
        self.customers.put(customer, loaded)
        return loaded

    async def _load_or_pause(
        self, load: Callable[[], Awaitable[T | None]], customer: CustomerSnapshot, *, refused: object
    ) -> T | None:
        """
        Load something. After an error, log it once and begin a pause.

        Args:
            load: Loads it.
            customer: The customer that it is loaded for.
            refused: What is paused if the platform refuses the request; after other errors, it is the whole project.
        """
        try:
            result = await load()
        except LifecycleError:
            raise
        except ExponeaError as error:
            level = logging.DEBUG if customer.project in self._failing else logging.WARNING
            token = customer.project
            LOG.log(level, "Content blocks of project %s can't be loaded now: %s", token, error)
            self._failing.add(customer.project)
            self._pauses.begin(_pause_key(error, customer, refused), PAUSE, error)
            return None
        self._failing.discard(customer.project)
        self._pauses.end(customer.project)
        return result

    async def _wait(self, context: SubjectContext, customer: CustomerSnapshot, load: SharedLoad[T | None]) -> T | None:
        """
        Return the result of a load; None where there is none in time, counted from the start of the load.

        The load goes on for later callers.
        """
        deadline = load.started_at + self._max_wait
        if await load.wait(deadline - asyncio.get_running_loop().time()):
            return load.result()
        if not load.task.done():
            self._report_late(context, customer)
        return None

    def _report_late(self, context: SubjectContext, customer: CustomerSnapshot) -> None:
        context.recorder.count_not_shown("late")
        if self._pauses.error(customer.project) is None:
            token, seconds = customer.project, self._max_wait
            error = UnavailableError(f"no content blocks within {seconds:g} s (limits.content_blocks_wait)")
            LOG.warning("Content blocks of project %s are late: %s", token, error)
            self._pauses.begin(customer.project, PAUSE, error)


def read_bundle(response: bytes, loaded_at: float) -> Bundle:
    """
    Read the definitions of all content blocks of a project.

    Raises:
        RequestRefusedError: The response says that the request failed.
        UnavailableError: The response can't be read.
    """
    definitions = decode_elements(read_envelope(response).elements, read_definition, "content block")
    return Bundle.from_definitions((each for each in definitions if each.is_supported), loaded_at)


def read_data(response: bytes, ids: frozenset[str], loaded_at: float) -> DataById:
    """
    Read the personalized data of the blocks with these ids.

    Raises:
        RequestRefusedError: The response says that the request failed.
        UnavailableError: The response can't be read.
    """
    data: dict[str, PersonalizedData] = {}

    def read(value: Any) -> None:
        # Blocks that were not requested and duplicates are not read, so that nothing is logged about them.
        if value["id"] in ids and value["id"] not in data:
            data[value["id"]] = read_personalized_data(value, loaded_at)

    deque(decode_elements(read_envelope(response).elements, read, "personal content block"), maxlen=0)
    return data


def _pause_key(error: ExponeaError, customer: CustomerSnapshot, refused: object) -> object:
    if not isinstance(error, RequestRefusedError):
        return customer.project
    # Without a status no request was sent, because the host has no token for this customer; others may have one.
    return refused if error.status else customer.fingerprint
