"""
Whose event is it? A device remembers who it is; a customer tracker is told, and remembers nothing.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from types import MappingProxyType
from typing import Any, NoReturn

from exponea_async.config import ExponeaProject
from exponea_async.devices.context import SubjectContext
from exponea_async.devices.customers import CustomerSnapshot
from exponea_async.devices.device_context import BaseContext, DeviceContext
from exponea_async.devices.ids import read_ids, read_key
from exponea_async.devices.state import DeviceState, StateUpdate
from exponea_async.devices.store import Devices, Drafts
from exponea_async.errors import InvalidEventError
from exponea_async.features.campaigns import CampaignVerbs
from exponea_async.features.content_blocks.verbs import ContentBlockVerbs
from exponea_async.features.fetch.verbs import FetchVerbs
from exponea_async.features.identity import IdentityVerbs
from exponea_async.features.in_app.verbs import InAppVerbs
from exponea_async.features.inbox.verbs import InboxVerbs
from exponea_async.features.push.verbs import PushVerbs
from exponea_async.features.segments.verbs import SegmentVerbs
from exponea_async.features.sessions import SessionVerbs
from exponea_async.features.tracking import TrackingVerbs
from exponea_async.models import Draft, Event, EventType, Identity, Receipt

#: The key of the device that `Exponea`'s verbs are about when nothing is bound.
DEFAULT_DEVICE = "default"


class _CustomerScope(BaseContext):
    """A customer somebody told us about, as the rooms see it."""

    __slots__ = ("_identity", "_ids")

    is_device = False
    key = None

    def __init__(self, ids: Mapping[str, str], devices: Devices) -> None:
        super().__init__(devices)
        self._ids = ids
        self._identity: Identity = self.recorder.identity(ids, None)

    async def keep(self, draft: Draft) -> Receipt:
        """Keep a draft."""
        return await self.recorder.keep(self._identity, draft)

    async def keep_all(self, drafts: Drafts) -> list[Receipt]:
        """Keep drafts in one commit."""
        return await self.recorder.keep_all(self._identity, drafts)

    async def identify(self, ids: Mapping[str, str], draft: Draft) -> Receipt:
        """Keep the update, for these ids beside the tracker's own; nothing is remembered."""
        identity = self.recorder.identity({**self._ids, **ids}, None)
        return await self.recorder.keep(identity, draft)

    async def look(self, *, wake: bool = True) -> NoReturn:  # noqa: ARG002 - the protocol has it
        """Refuse: there is nothing to see."""
        raise _nothing_remembered()

    async def remember(self, projects: Sequence[ExponeaProject]) -> NoReturn:  # noqa: ARG002 - the protocol has it
        """Refuse: nobody would ask for `projects`."""
        raise _nothing_remembered()

    async def change(self, plan: StateUpdate, **_options: Any) -> NoReturn:  # noqa: ARG002 - the protocol has it
        """Refuse: there is nothing that `plan` could change."""
        raise _nothing_remembered()

    async def who(self, *, wake: bool = True) -> CustomerSnapshot | None:  # noqa: ARG002 - the protocol has it
        """Tell who the customer is; None where the integration is stopped."""
        return CustomerSnapshot(self._ids, self._main()) if self.recorder.check_running() else None

    def anonymized(self) -> None:
        """Nobody is told: a customer stays the same one."""

    async def hear(self, kind: EventType, event: Event, *, state: DeviceState | None = None) -> None:
        """Nobody hears of a customer's events: what they lead to could not be remembered."""

    async def load(self, name: str) -> bytes | None:  # noqa: ARG002 - the protocol has it
        """Nothing is kept."""
        return None

    async def save(self, name: str, value: bytes | None) -> None:
        """Keep nothing."""


def _nothing_remembered() -> InvalidEventError:
    trouble = "a customer tracker remembers nothing: no cookie, session or push token"
    return InvalidEventError("subject", trouble, "Use a device.")


class Device(
    TrackingVerbs,
    IdentityVerbs,
    SessionVerbs,
    PushVerbs,
    CampaignVerbs,
    InAppVerbs,
    ContentBlockVerbs,
    InboxVerbs,
    SegmentVerbs,
    FetchVerbs,
):
    """
    An end user's device, or what stands for one: a bot's chat, a worker, a command-line tool.

    It remembers its cookie, the customer's ids, its own id, its session and its push token, in the queue's storage
    under its key. It comes to life with its first verb. Made by ``exponea.device(key)``.

    Attributes:
        key: Its key.
    """

    __slots__ = ("_own", "key")

    def __init__(self, key: str, devices: Devices) -> None:
        self.key = read_key(key, "key")
        self._own = DeviceContext(key, devices)

    @property
    def _context(self) -> SubjectContext:
        return self._own

    def __repr__(self) -> str:
        return f"<Device {self.key!r}>"

    async def open(self) -> None:
        """
        Bring the device to life, which its first verb does otherwise.

        Raises:
            StorageError: The storage refused.
            LifecycleError: The client was not started, or is closed.
        """
        await self._context.look()


class CustomerTracker(TrackingVerbs, InAppVerbs, ContentBlockVerbs, InboxVerbs, FetchVerbs):
    """
    A customer whose ids are given with each use; nothing is remembered. For web backends.

    Its events carry exactly these ids: never a cookie of the process, which would join strangers to one customer.
    Made by ``exponea.for_customer(ids)``.

    Attributes:
        ids: The ids.
    """

    __slots__ = ("_own", "ids")

    def __init__(self, ids: Mapping[str, str], devices: Devices) -> None:
        self.ids = MappingProxyType(read_ids(ids, "ids"))
        if not self.ids:
            raise InvalidEventError("ids", "there is none", "Give at least one, such as {'registered': 'jane@x.com'}.")
        self._own = _CustomerScope(self.ids, devices)

    @property
    def _context(self) -> SubjectContext:
        return self._own

    def __repr__(self) -> str:
        # The values may be personal data.
        return f"<CustomerTracker {', '.join(self.ids)}>"


Subject = Device | CustomerTracker

# One variable for all clients: those made on the fly are never freed.
_BOUND: ContextVar[Mapping[object, Subject]] = ContextVar("exponea_async.bound")
_NOTHING: Mapping[object, Subject] = MappingProxyType({})


def bound(owner: object) -> Subject | None:
    """Tell which subject is current for a client, here."""
    return _BOUND.get(_NOTHING).get(owner)


@contextmanager
def bind(owner: object, subject: Subject) -> Iterator[None]:
    """Make a subject current for a client, in this context, until the end of the block."""
    token = _BOUND.set({**_BOUND.get(_NOTHING), owner: subject})
    try:
        yield
    finally:
        _BOUND.reset(token)
