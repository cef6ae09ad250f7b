"""
How features see a subject: the customer or device that an event is about.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from copy import copy
from types import MappingProxyType
from typing import Any, Self

from exponea_async._internal.arguments import read_mapping
from exponea_async._pipeline.api import ApiClient
from exponea_async._pipeline.recorder import Drafts, EventRecorder
from exponea_async.config import Configuration
from exponea_async.devices.customers import CustomerSnapshot
from exponea_async.devices.ids import changed_ids
from exponea_async.devices.state import DeviceState
from exponea_async.devices.withdrawals import WITHDRAWN, WITHDRAWN_COUNT
from exponea_async.errors import ExponeaError, InvalidEventError, NoSubjectError
from exponea_async.models import Draft, Event, EventType, Receipt
from exponea_async.requests import ApiRequest

_NO_PROPERTIES: Mapping[str, Any] = MappingProxyType({})

#: Changes what a device remembers, at a timestamp in UNIX seconds.
Remember = Callable[[DeviceState, float], DeviceState]


class SubjectContext(ABC):
    """
    A subject, as features see it.

    Args:
        recorder: Records events.
        api: Sends requests to the platform.
        configuration: The settings.

    Attributes:
        recorder: Records events.
        configuration: The settings.
        key: The key of the device; None for a customer tracker.
        properties: The properties that are bound with the subject.
        is_device: Whether the subject is a device, which remembers things.
        is_bound: Whether there is a subject at all.
    """

    __slots__ = ("_api", "configuration", "key", "properties", "recorder")

    is_device = False
    is_bound = True

    def __init__(
        self, recorder: EventRecorder, api: ApiClient, configuration: Configuration, key: str | None = None
    ) -> None:
        self._api = api
        self.recorder = recorder
        self.configuration = configuration
        self.key = key
        self.properties: Mapping[str, Any] = _NO_PROPERTIES

    # Events

    def with_properties(self, properties: Mapping[str, Any]) -> Self:
        """Return the same subject, bound with properties for its events."""
        other = copy(self)
        other.properties = properties
        return other

    def complete(self, event: Event) -> Event:
        """
        Return an event with the properties that are bound with the subject, unless it has properties of the same names.

        Raises:
            InvalidEventError: Its own properties are not a mapping.
        """
        if not self.properties or not isinstance(event, Event):
            return event
        return Event(event.name, {**self.properties, **read_mapping(event.properties)}, event.timestamp)

    @property
    def has_subscribers(self) -> bool:
        """Whether any feature listens to the events of the subject."""
        return False

    def draft(self, kind: EventType, event: Event) -> Draft | None:
        """Check and encode an event as `EventRecorder.draft_event` does, for `record_many`."""
        return self.recorder.draft_event(kind, self.complete(event), carries_event=self.has_subscribers)

    @abstractmethod
    async def record(self, kind: EventType, event: Event) -> Receipt:
        """
        Record an event about the subject; returns once it is durable.

        Raises:
            InvalidEventError: The event can't be sent as it is.
            StorageError: The storage refused; nothing was recorded.
            LifecycleError: The client is not running.
        """

    @abstractmethod
    async def record_many(self, drafts: Drafts) -> list[Receipt]:
        """Record drafts in one commit, each about its own identity or else about the subject."""

    @abstractmethod
    async def identify(self, ids: Mapping[str, str | None], properties: Mapping[str, Any]) -> Receipt:
        """
        Record an update of the customer, who also has these ids from now on; raises as `record` does.

        Args:
            ids: The ids; those that are None are taken back.
            properties: The properties to set.
        """

    @abstractmethod
    async def record_for(
        self,
        ids: Mapping[str, str] | None,
        kind: EventType,
        event: Event,
        *,
        has_consent: bool = True,
        counts_as_activity: bool = True,
        remember: Remember | None = None,
        only_for: CustomerSnapshot | None = None,
    ) -> Receipt | None:
        """
        Record an event about the customer that something was loaded for, who may have left the device since.

        Args:
            ids: The ids of that customer; None stands for the subject's own.
            kind: The type of the event.
            event: The event.
            has_consent: Whether it may be tracked. Otherwise only `remember` takes effect, and subscribers are
                notified.
            counts_as_activity: Whether the event prolongs a device's session.
            remember: What a device remembers of it, in the same commit.
            only_for: Do nothing where the device belongs to another customer by now.

        Returns:
            The receipt, a dropped one without consent; None where the device belongs to another customer.

        Raises:
            InvalidEventError: The event can't be sent as it is.
            StorageError: The storage refused; nothing was recorded.
            LifecycleError: The client is not running.
        """

    async def record_as(
        self, ids: Mapping[str, str], kind: EventType, event: Event, *, has_consent: bool = True
    ) -> Receipt:
        """
        Record an event about the customer with these ids, independently of the subject; raises as `record` does.

        Returns:
            The receipt, a dropped one without consent.
        """
        recorder = self.recorder
        # Checked first: without consent nothing else raises where the client is not running.
        if not recorder.check_running():
            return recorder.dropped()
        if not has_consent:
            return self.without_consent()
        if recorder.is_withdrawn(ids):
            return recorder.dropped(WITHDRAWN, count=WITHDRAWN_COUNT)
        draft = recorder.draft_event(kind, event)
        return recorder.dropped() if draft is None else await recorder.record(recorder.identity(ids, None), draft)

    def without_consent(self) -> Receipt:
        """Return the receipt of an event that the customer has not consented to."""
        return self.recorder.dropped("the customer has not consented to be tracked", count="no_consent")

    # The customer

    @abstractmethod
    async def current_customer(self, *, counts_as_activity: bool = True) -> CustomerSnapshot | None:
        """
        Return the present customer; None where the integration is stopped.

        Args:
            counts_as_activity: Whether this prolongs a device's session, and creates the device if it is new.
                Background work must not.

        Raises:
            StorageError: The storage refused.
            LifecycleError: The client is not running.
        """

    async def is_current(self, customer: CustomerSnapshot) -> bool:
        """Return whether the subject is still this customer; it is not after the integration was stopped."""
        current = await self.current_customer(counts_as_activity=False)
        return current is not None and current.fingerprint == customer.fingerprint

    @abstractmethod
    async def remember(self, remember: Remember) -> None:
        """
        Change what a device remembers, which is activity of its customer; do nothing for a customer tracker.

        Raises:
            StorageError: The storage refused; nothing was changed.
            LifecycleError: The client is not running.
        """

    # The platform

    async def request(self, customer: CustomerSnapshot, request: ApiRequest) -> bytes | None:
        """
        Send a request about a customer.

        Returns:
            The body of the response; None where the integration is stopped.

        Raises:
            RequestRefusedError: The platform refused, or the host provides no token for the customer.
            UnavailableError: There was no usable response.
            LifecycleError: The client is not running, or was closed in the meantime.
        """
        if not self.recorder.check_running():
            return None
        try:
            return await self._api.request(customer.project, request, ids=customer.ids if request.is_personal else None)
        except ExponeaError:
            # The request may have failed because the client was stopped or closed in the meantime.
            if self.recorder.check_running():
                raise
            return None

    # Data beside a device's state

    @abstractmethod
    async def load_data(self, name: str) -> bytes | None:
        """Return the data that `save_data` stored for the device under a name; None for a customer tracker."""

    @abstractmethod
    async def save_data(self, name: str, data: bytes | None) -> None:
        """
        Store data for the device under a name, or delete it with None; do nothing for a customer tracker.

        The data is a cache: a failure is logged, and the data is lost.
        """


class CustomerContext(SubjectContext):
    """
    A customer with given ids, of whom nothing is remembered.

    Args:
        ids: The ids.
        recorder: Records events.
        api: Sends requests to the platform.
        configuration: The settings.
    """

    __slots__ = ("_identity", "_ids")

    def __init__(
        self, ids: Mapping[str, str], recorder: EventRecorder, api: ApiClient, configuration: Configuration
    ) -> None:
        super().__init__(recorder, api, configuration)
        self._ids = ids
        self._identity = recorder.identity(ids, None)

    async def record(self, kind: EventType, event: Event) -> Receipt:
        """Record an event about the customer."""
        draft = self.recorder.draft_event(kind, self.complete(event) if self.properties else event)
        return self.recorder.dropped() if draft is None else await self.recorder.record(self._identity, draft)

    async def record_many(self, drafts: Drafts) -> list[Receipt]:
        """Record drafts in one commit."""
        return await self.recorder.for_others.record_many(self._identity, drafts)

    async def identify(self, ids: Mapping[str, str | None], properties: Mapping[str, Any]) -> Receipt:
        """Record the update for these ids beside the customer's own; nothing is remembered."""
        for kind, value in ids.items():
            if value is None:
                trouble = "expected an id, got None: a customer tracker remembers no id that could be taken back"
                raise InvalidEventError(f"customer.ids.{kind}", trouble, "Use for_customer() without this id.")
        draft = self.recorder.draft_customer(properties)
        if draft is None:
            return self.recorder.dropped()
        return await self.recorder.record(self.recorder.identity(changed_ids(self._ids, ids), None), draft)

    async def record_for(
        self,
        ids: Mapping[str, str] | None,
        kind: EventType,
        event: Event,
        *,
        has_consent: bool = True,
        counts_as_activity: bool = True,  # noqa: ARG002 - a customer has no session
        remember: Remember | None = None,  # noqa: ARG002 - nothing is remembered
        only_for: CustomerSnapshot | None = None,  # noqa: ARG002 - the customer does not change
    ) -> Receipt | None:
        """Record an event about the customer that something was loaded for."""
        if not ids or dict(ids) == dict(self._ids):
            return await self.record_as(self._ids, kind, self.complete(event), has_consent=has_consent)
        # The properties that are bound are about the customer that is bound.
        return await self.record_as(ids, kind, event, has_consent=has_consent)

    async def current_customer(self, *, counts_as_activity: bool = True) -> CustomerSnapshot | None:  # noqa: ARG002 - a customer has no session
        """Return the customer; None where the integration is stopped."""
        if not self.recorder.check_running():
            return None
        return CustomerSnapshot(self._ids, self.configuration.project_token)

    async def remember(self, remember: Remember) -> None:
        """Do nothing: nothing is remembered of the customer."""

    async def load_data(self, name: str) -> bytes | None:  # noqa: ARG002 - nothing is stored under any name
        """Return None: nothing is stored for the customer."""
        return None

    async def save_data(self, name: str, data: bytes | None) -> None:
        """Do nothing: nothing is stored for the customer."""


class UnboundContext(CustomerContext):
    """
    The context where no subject is bound and there is no default one: only what has an identity of its own is recorded.

    Args:
        recorder: Records events.
        api: Sends requests to the platform.
        configuration: The settings.
    """

    __slots__ = ()

    is_bound = False

    def __init__(self, recorder: EventRecorder, api: ApiClient, configuration: Configuration) -> None:
        super().__init__({}, recorder, api, configuration)

    async def record(self, kind: EventType, event: Event) -> Receipt:  # noqa: ARG002 - whatever it is
        """Raise the error."""
        raise no_subject()

    async def record_many(self, drafts: Drafts) -> list[Receipt]:
        """Record drafts, each of which must have an identity of its own."""
        if any(identity is None for identity, _ in drafts):
            raise no_subject()
        return await super().record_many(drafts)

    async def identify(self, ids: Mapping[str, str | None], properties: Mapping[str, Any]) -> Receipt:  # noqa: ARG002 - whatever they are
        """Raise the error."""
        raise no_subject()

    async def record_for(
        self,
        ids: Mapping[str, str] | None,
        kind: EventType,
        event: Event,
        *,
        has_consent: bool = True,
        counts_as_activity: bool = True,  # noqa: ARG002 - a customer has no session
        remember: Remember | None = None,  # noqa: ARG002 - nothing is remembered
        only_for: CustomerSnapshot | None = None,  # noqa: ARG002 - the customer does not change
    ) -> Receipt | None:
        """Record an event about the customer that something was loaded for, who must be known."""
        if not ids:
            raise no_subject()
        return await self.record_as(ids, kind, event, has_consent=has_consent)

    async def current_customer(self, *, counts_as_activity: bool = True) -> CustomerSnapshot | None:  # noqa: ARG002 - there is none
        """Raise the error."""
        raise no_subject()


def no_subject() -> NoSubjectError:
    """Return the error for a call without a subject."""
    return NoSubjectError(
        "No subject is bound, and the client has no device of its own.",
        hint="Use device(key) or for_customer(ids), or bind one of them: with exponea.bind(subject).",
    )


class InvalidCustomerContext(CustomerContext):
    """
    A customer whose ids are invalid, where that must not be raised: nothing is tracked, and there are no messages.

    Args:
        error: What is wrong with the ids. Each event is dropped with it.
        recorder: Records events.
        api: Sends requests to the platform.
        configuration: The settings.
    """

    __slots__ = ("_error",)

    def __init__(
        self, error: InvalidEventError, recorder: EventRecorder, api: ApiClient, configuration: Configuration
    ) -> None:
        super().__init__({}, recorder, api, configuration)
        self._error = error

    async def record(self, kind: EventType, event: Event) -> Receipt:  # noqa: ARG002 - whatever it is
        """Drop an event."""
        return self._drop()

    async def record_many(self, drafts: Drafts) -> list[Receipt]:
        """Record the drafts that have an identity of their own, and drop the others."""
        own = [(identity, draft) for identity, draft in drafts if identity is not None]
        recorded = iter(await self.recorder.record_many(own[0][0], own) if own else ())
        return [self._drop() if identity is None else next(recorded) for identity, _ in drafts]

    async def identify(self, ids: Mapping[str, str | None], properties: Mapping[str, Any]) -> Receipt:  # noqa: ARG002 - whatever they are
        """Drop the update: valid ids beside the invalid ones may be those of another customer."""
        return self._drop()

    async def record_for(
        self,
        ids: Mapping[str, str] | None,
        kind: EventType,
        event: Event,
        *,
        has_consent: bool = True,
        counts_as_activity: bool = True,  # noqa: ARG002 - a customer has no session
        remember: Remember | None = None,  # noqa: ARG002 - nothing is remembered
        only_for: CustomerSnapshot | None = None,  # noqa: ARG002 - the customer does not change
    ) -> Receipt | None:
        """Record an event about the customer that something was loaded for, or drop it where there was none."""
        return await self.record_as(ids, kind, event, has_consent=has_consent) if ids else self._drop()

    async def current_customer(self, *, counts_as_activity: bool = True) -> CustomerSnapshot | None:  # noqa: ARG002 - a customer has no session
        """Return None."""
        self.recorder.check_running()
        return None

    def _drop(self) -> Receipt:
        if not self.recorder.check_running():
            return self.recorder.dropped()
        # The error is that of each event; its traceback would grow with each.
        error = InvalidEventError(self._error.path, self._error.trouble, self._error.hint)
        error.__cause__ = self._error.__cause__
        return self.recorder.invalid(error)
