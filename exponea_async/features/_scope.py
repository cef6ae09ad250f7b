"""
The doors between the rooms, the subjects and the pipeline. They know each other through these protocols only.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from exponea_async.models import Draft, Event, EventType, Identity, Receipt
from exponea_async.storage.base import StateChange, StateCheck


class Street(Protocol):
    """Where the one-way street to the platform begins, as subjects see it."""

    def identity(self, ids: Mapping[str, str], device_id: str | None) -> Identity:
        """Make an identity ready for the wire."""
        ...

    def draft_event(self, kind: EventType, event: Event) -> Draft | None:
        """
        Check and encode an event as it is now; None where it is dropped.

        Raises:
            InvalidEventError: It can't be sent as it is.
            LifecycleError: The client is not running.
        """
        ...

    def draft_customer(self, properties: Mapping[str, Any]) -> Draft | None:
        """Check and encode a customer's properties as they are now; raises as `draft_event` does."""
        ...

    async def keep(self, who: Identity, draft: Draft, states: Sequence[StateChange | StateCheck] = ()) -> Receipt:
        """Keep one draft; raises as `keep_all` does."""
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

    def dropped(self) -> Receipt:
        """Make the receipt for what is not kept."""
        ...

    def check_running(self) -> bool:
        """
        Tell whether verbs do anything now: not after the integration was stopped.

        Raises:
            LifecycleError: The client is not running.
        """
        ...


class Scope(Protocol):
    """Whom the verbs of a room are about."""

    @property
    def street(self) -> Street:
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

    async def cookie(self) -> str:
        """
        Tell the subject's cookie.

        Raises:
            InvalidEventError: The subject has none.
        """
        ...
