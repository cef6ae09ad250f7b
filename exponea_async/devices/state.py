"""
What a device remembers, and how a change of it is described. Pure.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple, Self

from attrs import evolve, field, frozen

from exponea_async._pipeline.clock import STEP
from exponea_async.devices.campaigns import Campaign
from exponea_async.devices.ids import COOKIE
from exponea_async.devices.impressions import Impression, as_list, from_list
from exponea_async.devices.push_tokens import TokenMemory
from exponea_async.models import Draft, Event, EventType, Identity


@frozen
class DeviceState:
    """
    What a device remembers.

    Attributes:
        cookie: The soft id.
        device_id: The device's own id, an event property.
        ids: The customer's other ids.
        session_start: When the open session began, UNIX seconds; None if none is open.
        last_activity: When the device was last active within an automatic session, UNIX seconds, or None.
        campaign: The campaign that last led the customer here.
        token: The push token that was last tracked.
        project: The token of the project that the device was switched to, instead of the configured one.
        mapping: The tokens of the additional projects by the event type's name, instead of the configured ones.
        messages: When in-app messages were shown and interacted with on this device, by message id.
        blocks: The same for content blocks.
        version: The number of changes so far; 0 while the state is not stored.
        is_new: Whether no event of the device has been recorded yet.
    """

    cookie: str
    device_id: str
    ids: Mapping[str, str] = field(factory=lambda: MappingProxyType({}))
    session_start: float | None = None
    last_activity: float | None = None
    campaign: Campaign | None = None
    token: TokenMemory | None = None
    project: str | None = None
    mapping: Mapping[str, tuple[str, ...]] | None = None
    messages: Mapping[str, Impression] = field(factory=lambda: MappingProxyType({}))
    blocks: Mapping[str, Impression] = field(factory=lambda: MappingProxyType({}))
    version: int = 0
    is_new: bool = False

    @property
    def customer_ids(self) -> dict[str, str]:
        """All ids, as the device's events carry them."""
        return {COOKIE: self.cookie, **self.ids}

    @property
    def is_switched(self) -> bool:
        """Whether the device tracks to other projects than the configured ones."""
        return self.project is not None or self.mapping is not None

    def encode(self) -> bytes:
        """Return the bytes to store; activity and version are stored beside them, and a stored state is not new."""
        stored: dict[str, Any] = {"cookie": self.cookie, "device_id": self.device_id}
        if self.ids:
            stored["ids"] = dict(self.ids)
        if self.session_start is not None:
            stored["session_start"] = self.session_start
        if self.campaign is not None:
            stored["campaign"] = self.campaign.as_dict()
        if self.token is not None:
            stored["token"] = self.token.as_dict()
        if self.messages:
            stored["messages"] = as_list(self.messages)
        if self.blocks:
            stored["blocks"] = as_list(self.blocks)
        if self.project is not None:
            stored["project"] = self.project
        if self.mapping is not None:
            stored["mapping"] = {kind: list(tokens) for kind, tokens in self.mapping.items()}
        return json.dumps(stored, separators=(",", ":")).encode()

    @classmethod
    def decode(cls, value: bytes, *, version: int, last_activity: float | None) -> Self:
        """
        Read what `encode` returned.

        Raises:
            ValueError: The bytes are not an encoded state.
        """
        try:
            stored = json.loads(value)
            mapping = stored.get("mapping")
            return cls(
                cookie=stored["cookie"],
                device_id=stored["device_id"],
                ids=MappingProxyType(stored.get("ids", {})),
                session_start=stored.get("session_start"),
                last_activity=last_activity,
                campaign=Campaign.from_dict(stored["campaign"]) if "campaign" in stored else None,
                token=TokenMemory.from_dict(stored["token"]) if "token" in stored else None,
                messages=MappingProxyType(from_list(stored.get("messages", ()))),
                blocks=MappingProxyType(from_list(stored.get("blocks", ()))),
                project=_token(stored["project"]) if "project" in stored else None,
                mapping=None
                if mapping is None
                else {kind: tuple(map(_token, projects)) for kind, projects in mapping.items()},
                version=version,
            )
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"{type(error).__name__}: {error}") from error


def _token(stored: Any) -> str:
    # In files of schema version 1, a project is a list of its address and its token.
    token = stored[1] if isinstance(stored, list) else stored
    if not isinstance(token, str):
        raise TypeError(f"expected a project token, got {token!r:.60}")
    return token


class TimestampSequence:
    """
    The timestamps of one change of a device: ascending, and reserved in advance.

    Args:
        first: The first timestamp, UNIX seconds.

    Attributes:
        first: The first timestamp.
        last: The timestamp that was returned last.
    """

    __slots__ = ("_count", "first", "last")

    def __init__(self, first: float) -> None:
        self.first = self.last = first
        self._count = 0

    def next(self) -> float:
        """Return the next timestamp."""
        self.last = self.first + self._count * STEP
        self._count += 1
        return self.last


class PendingEvent(NamedTuple):
    """
    An event that a change of a device records.

    Attributes:
        owner: The device as it was at that point, whose ids the event carries and to whose projects it goes; or
            another identity.
        kind: The type.
        event: The event, or its draft. Of an event of `EventType.TRACK_CUSTOMER` only the properties count, and of
            one of `EventType.CAMPAIGN_CLICK` the name is the link.
    """

    owner: DeviceState | Identity
    kind: EventType
    event: Event | Draft


#: The result of a change: the device after it, and the events to record, in order.
UpdateResult = tuple[DeviceState, Sequence[PendingEvent]]
#: A change of a device. It may be called more than once, where another caller changed the device in the meantime.
StateUpdate = Callable[[DeviceState, TimestampSequence], UpdateResult]


def unchanged(state: DeviceState, _: TimestampSequence) -> UpdateResult:
    """Change nothing."""
    return state, ()


def anonymized(state: DeviceState, cookie: str) -> DeviceState:
    """Return the device as a new customer's, of whom nothing is known; push token and projects stay."""
    return evolve(
        state,
        cookie=cookie,
        ids=MappingProxyType({}),
        messages=MappingProxyType({}),
        blocks=MappingProxyType({}),
        session_start=None,
        last_activity=None,
        campaign=None,
    )
