"""
Subjects: the device or the customer that an event is about.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from types import MappingProxyType

from exponea_async._internal.printable import printable
from exponea_async.config import Configuration
from exponea_async.devices.context import CustomerContext, InvalidCustomerContext, SubjectContext
from exponea_async.devices.device_context import DeviceContext
from exponea_async.devices.ids import read_ids, read_key
from exponea_async.devices.store import DeviceHome, DeviceStore
from exponea_async.errors import InvalidEventError
from exponea_async.features.content_blocks.verbs import ContentBlockVerbs
from exponea_async.features.fetch.verbs import FetchVerbs
from exponea_async.features.identity import IdentityVerbs
from exponea_async.features.in_app.verbs import InAppStreamVerbs, InAppVerbs
from exponea_async.features.inbox.verbs import InboxVerbs
from exponea_async.features.push.verbs import PushVerbs
from exponea_async.features.segments.verbs import SegmentVerbs
from exponea_async.features.sessions import SessionVerbs
from exponea_async.features.tracking import CampaignVerbs, TrackingVerbs

#: The key of the device that a client's coroutines are about when no subject is bound.
DEFAULT_DEVICE = "default"


class CustomerVerbs(TrackingVerbs, CampaignVerbs, InAppVerbs, ContentBlockVerbs, InboxVerbs, FetchVerbs):
    """The public coroutines of every subject."""

    __slots__ = ()


class DeviceVerbs(CustomerVerbs, IdentityVerbs, SessionVerbs, PushVerbs, InAppStreamVerbs, SegmentVerbs):
    """The public coroutines of a device: those of every subject, and those that need what a device remembers."""

    __slots__ = ()


class Device(DeviceVerbs):
    """
    An end user's device, or what stands for one: a chat of a bot, a worker, a command-line tool.

    It remembers its cookie, the customer's ids, its own id, its session and its push token, in the queue's storage
    under its key. It is created by its first event. Use ``exponea.device(key)`` to get one.

    Attributes:
        key: Its key.
    """

    __slots__ = ("_home", "_own", "key")

    def __init__(self, key: str, home: DeviceHome) -> None:
        self.key = read_key(key, "key")
        self._home = home
        self._own = DeviceContext(key, home.devices)

    @property
    def _devices(self) -> DeviceStore:
        return self._home.devices

    @property
    def _context(self) -> DeviceContext:
        own, devices = self._own, self._home.devices
        if own.recorder is not devices.recorder:
            own = self._own = DeviceContext(self.key, devices)
        return own

    def __repr__(self) -> str:
        return f"<Device {self.key!r}>"

    async def open(self) -> None:
        """
        Create the device if it is new, and count as its activity, as its first event does otherwise.

        Raises:
            StorageError: The storage refused.
            LifecycleError: The client was not started, or is closed.
        """
        await self._context.load_state()


class CustomerTracker(CustomerVerbs):
    """
    A customer whose ids are given with each use, for web backends; nothing is remembered.

    Its events carry exactly these ids: never a cookie of the process, which would merge strangers into one customer.
    Use ``exponea.for_customer(ids)`` to get one.

    Attributes:
        ids: The ids; empty where they are invalid, with ``Configuration(on_invalid="log")``.
    """

    __slots__ = ("_error", "_home", "_own", "ids")

    def __init__(self, ids: Mapping[str, str], home: DeviceHome) -> None:
        devices = home.devices
        self._error: InvalidEventError | None = None
        self.ids: Mapping[str, str] = MappingProxyType({})
        try:
            self.ids = _read_ids(ids, devices.configuration)
        except InvalidEventError as error:
            if devices.configuration.on_invalid == "raise":
                raise
            self._error = error.with_traceback(None)
        self._home = home
        self._own = self._context_in(devices)

    @property
    def _devices(self) -> DeviceStore:
        return self._home.devices

    @property
    def _context(self) -> SubjectContext:
        own, devices = self._own, self._home.devices
        if own.recorder is not devices.recorder:
            own = self._own = self._context_in(devices)
        return own

    def _context_in(self, devices: DeviceStore) -> CustomerContext:
        if self._error is not None:
            return InvalidCustomerContext(self._error, devices.recorder, devices.api, devices.configuration)
        return CustomerContext(self.ids, devices.recorder, devices.api, devices.configuration)

    def __repr__(self) -> str:
        # The values may be personal data.
        return f"<CustomerTracker {', '.join(map(printable, self.ids))}>"


def _read_ids(ids: Mapping[str, str], configuration: Configuration) -> Mapping[str, str]:
    found = read_ids(ids, "ids", configuration.normalize_id)
    if not found:
        hint = "Use at least one id, such as {'registered': 'jane@example.com'}."
        raise InvalidEventError("ids", "must not be empty", hint)
    return MappingProxyType(found)


Subject = Device | CustomerTracker

# One variable serves all clients: a context variable that is created dynamically is never freed.
_BOUND: ContextVar[Mapping[object, Subject]] = ContextVar("exponea_async.bound")
_NOTHING: Mapping[object, Subject] = MappingProxyType({})


def bound(client: object) -> Subject | None:
    """Return the subject that is bound to a client in the present context."""
    return _BOUND.get(_NOTHING).get(client)


@contextmanager
def bind(client: object, subject: Subject) -> Iterator[None]:
    """Bind a subject to a client, in this context, until the end of the block."""
    token = _BOUND.set({**_BOUND.get(_NOTHING), client: subject})
    try:
        yield
    finally:
        _BOUND.reset(token)
