"""
How content blocks are loaded: once for all who ask at the same time.
"""

import asyncio
import logging
from collections import OrderedDict, deque
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

from exponea_async._internal.concurrency import BackgroundTasks
from exponea_async.config import Configuration
from exponea_async.devices.context import ApiRequest, SubjectContext
from exponea_async.devices.customers import CustomerSnapshot
from exponea_async.devices.state import ProjectRef
from exponea_async.errors import ExponeaError, LifecycleError, RequestRefusedError
from exponea_async.features._shared.envelopes import decode_elements, read_envelope, to_thread_if_large
from exponea_async.features.content_blocks.cache import Bundle, Customers
from exponea_async.features.content_blocks.parsing import Definition, is_fresh, read_definition, read_personal
from exponea_async.messages import PersonalizedData

LOG = logging.getLogger("exponea_async")

K = TypeVar("K")
T = TypeVar("T")

#: The list of all blocks is loaded again in the background once it is older than this, in seconds: phones load it at
#: each start, and servers run for months.
MAX_AGE = 30 * 60.0
#: How long callers wait for something to be loaded, in seconds from its begin; it is loaded on for later ones. So a
#: platform that hangs slows down the pages of five seconds, and not all of them.
PATIENCE = 5.0
#: After something could not be loaded, for so many seconds nobody tries again, and nobody waits.
PAUSE = 10.0
#: How often the platform is asked, where it has no answer.
TRIES = 4
#: Projects whose blocks are kept.
MAX_PROJECTS = 64

BUNDLE = "/wxstatic/projects/{{project}}/bundle-{platform}.json?v=2"
PERSONAL = "/webxp/s/{project}/inappcontentblocks?v=2"

Found = Mapping[str, PersonalizedData]


class BlockLoader:
    """
    Content blocks as far as they were loaded.

    Args:
        configuration: The settings.
        clock: Tells UNIX seconds.
        tasks: The background tasks of the feature.

    Attributes:
        tasks: The background tasks of the feature.
        customers: What blocks say to customers.
    """

    def __init__(self, configuration: Configuration, clock: Callable[[], float], tasks: BackgroundTasks) -> None:
        self.tasks = tasks
        self.customers = Customers()
        self._bundle_path = BUNDLE.format(platform=configuration.message_platform)
        self._clock = clock
        self._bundles: OrderedDict[ProjectRef, Bundle] = OrderedDict()
        self._bundle_loads: dict[ProjectRef, asyncio.Task[Bundle | None]] = {}
        # By customer and block, so that who asks for a block that is under way waits for that.
        self._loads: dict[tuple[str, str], asyncio.Task[Found | None]] = {}
        self._begun: WeakKeyDictionary[asyncio.Task[Any], float] = WeakKeyDictionary()
        self._pauses: dict[object, float] = {}
        self._troubled: set[ProjectRef] = set()

    @property
    def is_used(self) -> bool:
        """Whether anybody asked for a block."""
        return bool(self._bundles)

    async def bundle(self, context: SubjectContext, customer: CustomerSnapshot) -> Bundle | None:
        """
        Tell all blocks of a customer's project; None where they can't be had now.

        Raises:
            LifecycleError: The client is not running.
        """
        bundle = self._bundles.get(customer.project)
        if bundle is None:
            load = self.renew(context, customer)
            return None if load is None else await self._landed(load)
        if not 0 <= self._clock() - bundle.loaded_at <= MAX_AGE:
            self.renew(context, customer)
        return bundle

    def renew(self, context: SubjectContext, customer: CustomerSnapshot) -> "asyncio.Task[Bundle | None] | None":
        """Load all blocks of a customer's project, also where there are some; None right after that has failed."""
        load = self._bundle_loads.get(customer.project)
        if load is None and not self._is_paused(customer.project, ("bundle", customer.project), customer.fingerprint):
            work = self._guarded(
                lambda: self._load_bundle(context, customer), customer, refused=("bundle", customer.project)
            )
            load = self._start(work, "content blocks")
            _register(self._bundle_loads, [customer.project], load)
        return load

    async def personal(
        self, context: SubjectContext, customer: CustomerSnapshot, definitions: Iterable[Definition]
    ) -> Found:
        """
        Tell what blocks say to a customer, by their ids. What needs loading is loaded, in one request.

        What can't be loaded keeps what it said before.

        Raises:
            LifecycleError: The client is not running.
        """
        known, now = self.customers.get(customer), self._clock()
        wanted = [each.id for each in definitions if not is_fresh(each, known.get(each.id), now)]
        loads = {
            self._loads[customer.fingerprint, each] for each in wanted if (customer.fingerprint, each) in self._loads
        }
        missing = [each for each in wanted if (customer.fingerprint, each) not in self._loads]
        if missing and not self._is_paused(customer.project, customer.fingerprint):
            loads.add(self._begin(context, customer, missing))
        if not loads:
            return known
        found: dict[str, PersonalizedData] = {}
        for load in loads:
            found |= await self._landed(load) or {}
        # What was just loaded counts also where it holds for no time at all, or there was no room to keep it.
        return {**self.customers.get(customer), **found}

    def clear(self) -> None:
        """Forget everything, and break off what is under way."""
        self.tasks.cancel()
        self.customers.clear()
        for each in (self._bundles, self._bundle_loads, self._loads, self._pauses, self._troubled):
            each.clear()

    def _begin(
        self, context: SubjectContext, customer: CustomerSnapshot, ids: list[str]
    ) -> "asyncio.Task[Found | None]":
        work = self._guarded(
            lambda: self._load_personal(context, customer, ids), customer, refused=customer.fingerprint
        )
        load = self._start(work, "personal content blocks")
        _register(self._loads, [(customer.fingerprint, each) for each in ids], load)
        return load

    def _start(self, work: Coroutine[Any, Any, T], name: str) -> "asyncio.Task[T]":
        load = self.tasks.start(work, name=name)
        self._begun[load] = asyncio.get_running_loop().time()
        return load

    async def _load_bundle(self, context: SubjectContext, customer: CustomerSnapshot) -> Bundle | None:
        answer = await context.request(customer, ApiRequest(self._bundle_path, is_personal=True, tries=TRIES))
        if answer is None:
            return None
        now = self._clock()
        bundle = await to_thread_if_large(len(answer), lambda: _read_bundle(answer, now))
        self._bundles[customer.project] = bundle
        self._bundles.move_to_end(customer.project)
        if len(self._bundles) > MAX_PROJECTS:
            self._bundles.popitem(last=False)
        return bundle

    async def _load_personal(self, context: SubjectContext, customer: CustomerSnapshot, ids: list[str]) -> Found | None:
        body = {"customer_ids": dict(customer.ids), "content_block_ids": ids}
        answer = await context.request(customer, ApiRequest(PERSONAL, body, is_personal=True, tries=TRIES))
        if answer is None:
            return None
        now = self._clock()
        found = await to_thread_if_large(len(answer), lambda: _read_found(answer, frozenset(ids), now))
        present = await context.current_customer(counts_as_activity=False)
        if present is None or present.fingerprint != customer.fingerprint:
            LOG.debug("Content blocks of somebody else than the present customer are not kept.")
            return None
        self.customers.put(customer, found)
        return found

    async def _guarded(
        self, work: Callable[[], Awaitable[T | None]], customer: CustomerSnapshot, *, refused: object
    ) -> T | None:
        """Do some work; where it fails, say so once and pause: for all of the project, or only what was refused."""
        try:
            result = await work()
        except LifecycleError:
            raise
        except ExponeaError as error:
            level = logging.DEBUG if customer.project in self._troubled else logging.WARNING
            LOG.log(
                level, "Content blocks of project %s can't be loaded now: %s", customer.project.project_token, error
            )
            self._troubled.add(customer.project)
            self._pause(_key(error, customer, refused))
            return None
        self._troubled.discard(customer.project)
        return result

    async def _landed(self, load: "asyncio.Task[T | None]") -> T | None:
        """Wait for a load that others may wait for too; None where there is nothing, or nobody waits any longer."""
        begun = self._begun.get(load, 0.0)
        left = max(0.0, begun + PATIENCE - asyncio.get_running_loop().time())
        await asyncio.wait({load}, timeout=left)
        return None if not load.done() or load.cancelled() else load.result()

    def _pause(self, key: object) -> None:
        now = asyncio.get_running_loop().time()
        self._pauses = {each: end for each, end in self._pauses.items() if end > now} | {key: now + PAUSE}

    def _is_paused(self, *keys: object) -> bool:
        now = asyncio.get_running_loop().time()
        return any(self._pauses.get(key, now) > now for key in keys)


def _key(error: ExponeaError, customer: CustomerSnapshot, refused: object) -> object:
    """Tell what is to pause after an error."""
    if not isinstance(error, RequestRefusedError):
        return customer.project
    # Where nothing was asked, it is the host that has no token for this customer; others may have one.
    return refused if error.status else customer.fingerprint


def _register(loads: dict[K, "asyncio.Task[T]"], keys: list[K], load: "asyncio.Task[T]") -> None:
    """Let others find a load by some keys, until its end."""
    loads.update(dict.fromkeys(keys, load))

    def end(_: object) -> None:
        for key in keys:
            # Everything may have been forgotten, and another load begun, meanwhile.
            if loads.get(key) is load:
                del loads[key]

    load.add_done_callback(end)


def _read_bundle(answer: bytes, now: float) -> Bundle:
    read = decode_elements(read_envelope(answer).elements, read_definition, "content block")
    return Bundle.made((each for each in read if each.is_kept), now)


def _read_found(answer: bytes, ids: frozenset[str], now: float) -> Found:
    found: dict[str, PersonalizedData] = {}

    def read(value: Any) -> None:
        # Of what nobody asked for, and of what comes again, nothing is read, and nothing told in the log.
        if value["id"] in ids and value["id"] not in found:
            found[value["id"]] = read_personal(value, now)

    deque(decode_elements(read_envelope(answer).elements, read, "personal content block"), maxlen=0)
    return found
