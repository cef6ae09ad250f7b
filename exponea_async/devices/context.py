"""
The doors between the rooms, the subjects and the pipeline. They know each other through these protocols only.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, TypeVar

from attrs import frozen

from exponea_async._internal.streams import Stream
from exponea_async.config import Configuration, ExponeaProject
from exponea_async.devices.customers import CustomerSnapshot
from exponea_async.devices.state import DeviceState, ProjectRef, StateUpdate, nothing
from exponea_async.models import Draft, Event, EventType, Identity, OpenedPush, Receipt, ReceivedPush, Timestamp
from exponea_async.storage.base import StateChange, StateCheck

T = TypeVar("T")


@frozen
class ApiRequest:
    """
    A question to the platform, whose answer somebody waits for.

    Attributes:
        path: Where it goes, below the project's address; ``{project}`` in it stands for the project's token.
        body: What is asked, as JSON types; None makes it a GET.
        is_personal: Whether the customer's own token opens it, where the host provides one.
        tries: How often it is asked at the most, with waits between, where there is no usable answer.
    """

    path: str
    body: Mapping[str, Any] | None = None
    is_personal: bool = False
    tries: int = 1


class Street(Protocol):
    """Where the one-way street to the platform begins, as subjects see it."""

    #: Whether drafts carry their events along, for somebody who listens.
    has_subscribers: bool

    def stamp(self) -> float:
        """Tell the moment of a call, UNIX seconds, which no other one has."""
        ...

    def reserve(self, count: int) -> float:
        """Tell the first of some moments that follow each other closely, for what one call tracks."""
        ...

    def moment(self, timestamp: Timestamp) -> float | None:
        """
        Tell a moment that a caller gave as UNIX seconds; None is left to be stamped.

        Raises:
            InvalidEventError: It is none.
        """
        ...

    def identity(
        self,
        ids: Mapping[str, str],
        device_id: str | None,
        routes: Mapping[EventType, tuple[str, ...]] | None = None,
    ) -> Identity:
        """Make an identity ready for the wire."""
        ...

    def routes(
        self, project: ProjectRef | None, mapping: Mapping[str, Sequence[ProjectRef]] | None
    ) -> Mapping[EventType, tuple[str, ...]]:
        """Tell where each kind goes, for who has another project, or other ones beside it, than the configured."""
        ...

    def draft_event(self, kind: EventType, event: Event, *, heard: bool = False) -> Draft | None:
        """
        Check and encode an event as it is now; None where it is dropped.

        Args:
            kind: Its kind.
            event: The event.
            heard: Whether the draft is to carry the event along, also while nobody listens.

        Raises:
            InvalidEventError: It can't be sent as it is.
            LifecycleError: The client is not running.
        """
        ...

    def draft_customer(self, properties: Mapping[str, Any], *, defaults: bool = True) -> Draft | None:
        """Check and encode a customer's properties as they are now; raises as `draft_event` does."""
        ...

    def draft_click(self, url: str, properties: Mapping[str, Any]) -> Draft | None:
        """Check and encode a click of a campaign; raises as `draft_event` does."""
        ...

    async def keep(
        self,
        who: Identity,
        draft: Draft,
        states: Sequence[StateChange | StateCheck] = (),
        now: float | None = None,
    ) -> Receipt:
        """Keep one draft, stamped with `now` where it has no moment of its own; raises as `keep_all` does."""
        ...

    async def keep_all(
        self,
        who: Identity,
        drafts: Sequence[tuple[Identity | None, Draft]],
        states: Sequence[StateChange | StateCheck] = (),
    ) -> list[Receipt]:
        """
        Keep all of it in one commit, each about its own identity or else about `who`; tells the receipt of each.

        Raises:
            StateConflictError: A state is not what it was taken for; nothing was kept.
            StorageError: The storage refused; nothing was kept.
        """
        ...

    async def remember(self, projects: Sequence[ExponeaProject]) -> None:
        """Keep the keys of projects that somebody is to be switched to; raises `StorageError`."""
        ...

    def dropped(self, reason: str = "before_track returned None", *, count: str = "") -> Receipt:
        """Make the receipt for what is not kept, and count it under a name, if one is given."""
        ...

    def check_running(self) -> bool:
        """
        Tell whether verbs do anything now: not after the integration was stopped.

        Raises:
            LifecycleError: The client is not running.
        """
        ...


class Calls(Protocol):
    """Who asks the platform."""

    async def ask(
        self,
        project: ProjectRef,
        path: str,
        body: Mapping[str, Any] | None,
        *,
        ids: Mapping[str, str] | None = None,
        tries: int = 1,
    ) -> bytes:
        """Ask about something of a project; raises as `SubjectContext.call` does."""
        ...


class Shared(Protocol):
    """What rooms keep for all subjects of a client."""

    def __getitem__(self, kind: type[T]) -> T:
        """Find a room's part by its class."""
        ...


class SubjectContext(Protocol):
    """Whom the verbs of a room are about."""

    @property
    def recorder(self) -> Street:
        """The way to the platform."""
        ...

    async def keep(self, draft: Draft) -> Receipt:
        """Keep a draft about this scope's subject."""
        ...

    async def keep_all(self, drafts: Sequence[tuple[Identity | None, Draft]]) -> list[Receipt]:
        """Keep drafts in one commit, each about its own identity, or else about this scope's subject."""
        ...

    async def identify(self, ids: Mapping[str, str], draft: Draft) -> Receipt:
        """Keep an update of the subject, which has these ids from now on."""
        ...

    @property
    def configuration(self) -> Configuration:
        """The settings."""
        ...

    @property
    def opened(self) -> Stream[OpenedPush]:
        """Presses on push notifications."""
        ...

    @property
    def received(self) -> Stream[ReceivedPush]:
        """Push notifications that came."""
        ...

    async def change(
        self, plan: StateUpdate, *, before: StateUpdate = nothing, wake: bool = True, present: bool | None = None
    ) -> list[Receipt]:
        """
        Change what the subject remembers and keep what is told of it, in one commit.

        Args:
            plan: The change.
            before: A change that comes before the subject's own sign of life.
            wake: Whether the change is a sign of life, which starts a session and so on.
            present: Whether the application is in front of somebody from now on. While it is, its session goes on by
                itself; that it is now counts as a start, too. None leaves things as they are.

        Returns:
            The receipts of what the plan told.

        Raises:
            InvalidEventError: The subject remembers nothing.
            StorageError: The storage refused; nothing was changed or kept.
        """
        ...

    async def look(self, *, wake: bool = True) -> DeviceState | None:
        """
        Tell what the subject remembers; None where the integration is stopped.

        Args:
            wake: Whether to bring it to life for that, as each verb does; background work must not.

        Raises:
            InvalidEventError: The subject remembers nothing.
        """
        ...

    async def remember(self, projects: Sequence[ExponeaProject]) -> None:
        """
        Keep the keys of projects that the subject is to be switched to.

        One without an address is reached where the subject's own project is.

        Raises:
            InvalidEventError: The subject remembers nothing.
            StorageError: The storage refused.
        """
        ...

    # For rooms that load something

    @property
    def features(self) -> Shared:
        """What rooms keep for all subjects, by its class."""
        ...

    @property
    def key(self) -> str | None:
        """The key of the device; None for a customer tracker."""
        ...

    @property
    def is_device(self) -> bool:
        """Whether the subject is a device, which remembers things."""
        ...

    def of(self, key: str) -> "SubjectContext":
        """Tell the scope of a device, by its key."""
        ...

    async def who(self, *, wake: bool = True) -> CustomerSnapshot | None:
        """
        Tell who the subject is now; None where the integration is stopped.

        Args:
            wake: Whether to bring a device to life for it, as each verb does; background work must not.

        Raises:
            StorageError: The storage refused.
            LifecycleError: The client is not running.
        """
        ...

    async def call(self, who: CustomerSnapshot, call: ApiRequest) -> bytes | None:
        """
        Ask the platform something about a customer.

        Returns:
            The body of its answer; None where the integration is stopped.

        Raises:
            RefusedError: The platform refused, or the host provides no token for the customer.
            UnavailableError: There was no usable answer.
            LifecycleError: The client is not running, or was closed meanwhile.
        """
        ...

    def anonymized(self) -> None:
        """Let the rooms know that the device is another customer's from now on."""
        ...

    async def hear(self, kind: EventType, event: Event, *, state: DeviceState | None = None) -> None:
        """
        Let the rooms hear of something that may not be tracked, for want of consent.

        Args:
            kind: Its kind.
            event: The event.
            state: The device as it was then; None is as it is now.
        """
        ...

    async def load(self, name: str) -> bytes | None:
        """Read what `save` kept for the device under a name; nothing where the subject remembers nothing."""
        ...

    async def save(self, name: str, value: bytes | None) -> None:
        """Keep something for the device beside its state, or forget it; what can't be kept is logged, and lost."""
        ...
