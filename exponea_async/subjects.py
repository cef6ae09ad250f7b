"""
Subjects: the device or the customer that an event is about.
"""

import warnings
from collections.abc import Mapping
from contextlib import suppress
from copy import copy
from types import MappingProxyType, TracebackType
from typing import Any, NamedTuple, Protocol

from exponea_async._internal.binding import BOUND, bindings
from exponea_async._internal.closing import run_to_end
from exponea_async._internal.printable import printable
from exponea_async._pipeline.recorder import DroppingRecorder
from exponea_async.config import Configuration
from exponea_async.devices.context import CustomerContext, InvalidCustomerContext, SubjectContext
from exponea_async.devices.device_context import DeviceContext
from exponea_async.devices.ids import read_ids, read_key
from exponea_async.devices.store import DeviceHome, DeviceStore
from exponea_async.devices.withdrawals import WITHDRAWN, WITHDRAWN_COUNT
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

#: The key of the device that a client's coroutines are about when no subject is bound. It is not a key that an
#: application can use, so no visitor of that name takes the device over.
DEFAULT_DEVICE = "@default"
#: The key of the device that stands for nobody. Nothing is stored under it.
NOBODY = "@nobody"
RESERVED = (DEFAULT_DEVICE, NOBODY)
#: The name of the tasks that erase what is stored of an end user.
FORGETTING = "exponea_async: forgetting"


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
        if devices.withdrawals.includes_device(self.key):
            return DeviceContext(self.key, devices, _withdrawn(devices))
        return own

    def __repr__(self) -> str:
        return f"<Device {self.key!r}>"

    async def start(self) -> None:
        """
        Track the device again after `forget`; it begins afresh with its next event.

        Raises:
            StorageError: The storage refused.
            LifecycleError: The client was not started, or is closed.
        """
        if self._devices.recorder.check_running():
            await self._devices.withdrawals.admit_device(self.key)

    async def forget(self) -> int:
        """
        Erase everything of the device: its end user has withdrawn the consent to be tracked.

        Its waiting events, dead letters, ids, session, push token and messages are erased in one commit, and everything
        is dropped until `start`. This survives a restart, and other processes of the same file notice it within
        seconds. Events that are being sent at this moment may still arrive. What the platform has is not deleted.

        Returns:
            The number of waiting records that were erased.

        Raises:
            StorageError: The storage refused; nothing was erased.
            LifecycleError: The client was not started, or is closed.
        """
        devices = self._devices
        if not devices.recorder.check_running():
            return 0

        async def forget() -> int:
            erased = await devices.withdraw_device(self.key)
            devices.features.notify_anonymized(self._context)
            return erased

        return await run_to_end(forget, name=FORGETTING)

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
        if devices.withdrawals.includes_customer(self.ids):
            return CustomerContext(self.ids, _withdrawn(devices), devices.api, devices.configuration)
        return own

    async def start(self) -> None:
        """
        Track the customer again after `forget`.

        Raises:
            StorageError: The storage refused.
            LifecycleError: The client was not started, or is closed.
        """
        if self._devices.recorder.check_running():
            await self._devices.withdrawals.admit_customer(self.ids)

    async def forget(self) -> int:
        """
        Erase everything of the customer with any of these ids, who has withdrawn the consent to be tracked.

        Waiting events and dead letters are erased, and the devices on which the customer is identified forget
        everything and begin afresh, as nobody known. What follows with any of these ids is dropped until `start`;
        otherwise this is as `Device.forget`.

        Returns:
            The number of waiting records that were erased.

        Raises:
            StorageError: The storage refused, and not everything was erased.
            LifecycleError: The client was not started, or is closed.
        """
        devices = self._devices
        if not devices.recorder.check_running():
            return 0

        async def forget() -> int:
            erased, keys = await devices.withdraw_customer(self.ids)
            for key in keys:
                devices.features.notify_anonymized(DeviceContext(key, devices))
            return erased

        return await run_to_end(forget, name=FORGETTING)

    def _context_in(self, devices: DeviceStore) -> CustomerContext:
        if self._error is not None:
            return InvalidCustomerContext(self._error, devices.recorder, devices.api, devices.configuration)
        return CustomerContext(self.ids, devices.recorder, devices.api, devices.configuration)

    def __repr__(self) -> str:
        # The values may be personal data.
        return f"<CustomerTracker {', '.join(map(printable, self.ids))}>"


class UnknownCustomer(CustomerTracker):
    """
    A customer whose ids are not known because of an error. Nothing is tracked of one.

    Its coroutines raise the error, or log it with ``Configuration(on_invalid="log")``.
    """

    __slots__ = ()

    def __init__(self, error: InvalidEventError, home: DeviceHome) -> None:
        self._error = error
        self._home = home
        self.ids = MappingProxyType({})
        self._own = self._context_in(home.devices)


class Nobody(DeviceVerbs):
    """
    Nobody in particular: nothing is tracked, and there are no messages. Each dropped event is counted.

    Use ``exponea.nobody()`` to get it, for example for visitors who have not consented.
    """

    __slots__ = ("_home",)

    def __init__(self, home: DeviceHome) -> None:
        self._home = home

    @property
    def _devices(self) -> DeviceStore:
        return self._home.devices

    @property
    def _context(self) -> DeviceContext:
        devices = self._home.devices
        recorder = DroppingRecorder(devices.recorder, "the subject is nobody", "nobody")
        return DeviceContext(NOBODY, devices, recorder)

    def __repr__(self) -> str:
        return "<Nobody>"


def _withdrawn(devices: DeviceStore) -> DroppingRecorder:
    return DroppingRecorder(devices.recorder, WITHDRAWN, WITHDRAWN_COUNT)


def _read_ids(ids: Mapping[str, str], configuration: Configuration) -> Mapping[str, str]:
    found = read_ids(ids, "ids", configuration.normalize_id)
    if not found:
        hint = "Use at least one id, such as {'registered': 'jane@example.com'}."
        raise InvalidEventError("ids", "must not be empty", hint)
    return MappingProxyType(found)


Subject = Device | CustomerTracker | Nobody


def subject_in(subject: Subject, home: DeviceHome) -> Subject:
    """Return the same subject among other devices, such as those of a transaction."""
    other = copy(subject)
    other._home = home  # noqa: SLF001 - a class of this module
    return other


def check_device_key(key: str) -> None:
    """
    Refuse the keys of the client's own devices.

    Raises:
        InvalidEventError: It is one of them.
    """
    if key in RESERVED:
        trouble = f"{key!r} is the key of a device that belongs to the client itself"
        raise InvalidEventError("key", trouble, "Use another key, or the client's own coroutines.")


class SubjectSource(Protocol):
    """What is bound to a client: it names the current subject whenever that is needed."""

    def subject(self) -> Subject:
        """Return the current subject."""

    def properties(self) -> Mapping[str, Any]:
        """Return the properties that the events of the current subject carry."""


class FixedSource(NamedTuple):
    """
    One subject, as it is bound by ``exponea.bind()``.

    Attributes:
        of: The subject.
        given: The properties.
    """

    of: Subject
    given: Mapping[str, Any]

    def subject(self) -> Subject:
        """Return the subject."""
        return self.of

    def properties(self) -> Mapping[str, Any]:
        """Return the properties."""
        return self.given


def bound(client: object) -> SubjectSource | None:
    """Return what is bound to a client in the present context."""
    return bindings().get(client)


class Binding:
    """
    The binding of a subject to a client, in the context of a ``with`` block.

    Args:
        client: The client.
        source: Names the subject.
    """

    __slots__ = ("_client", "_is_entered", "_source", "_token")

    def __init__(self, client: object, source: SubjectSource) -> None:
        self._client = client
        self._source = source
        self._is_entered = False

    def __enter__(self) -> None:
        self._is_entered = True
        self._token = BOUND.set({**bindings(), self._client: self._source})

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        # A framework may run the two halves of a plain generator in different contexts; then there is nothing to undo.
        with suppress(ValueError):
            BOUND.reset(self._token)

    def __del__(self) -> None:
        if not getattr(self, "_is_entered", True):
            text = "bind() was used without 'with', and has no effect."
            warnings.warn(text, RuntimeWarning, stacklevel=2, source=self)
