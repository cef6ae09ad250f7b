"""
What a device remembers, and how a verb tells what is to be tracked. Pure.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Self

from attrs import astuple, evolve, field, frozen

from exponea_async.devices.campaigns import Campaign
from exponea_async.devices.ids import COOKIE
from exponea_async.devices.impressions import Impression, as_list, from_list
from exponea_async.devices.push_tokens import TokenMemory
from exponea_async.models import Draft, Event, EventType, Identity

#: Two moments of one change differ by this, in seconds.
STEP = 1e-6
#: More than any change needs: an end, an installation, a start, a token, and what was asked for.
MOMENTS = 8


@frozen
class ProjectRef:
    """
    A project, as it is remembered: without its key.

    Attributes:
        base_url: Where it is reached.
        project_token: Its token.
    """

    base_url: str
    project_token: str


@frozen
class DeviceState:
    """
    What a device remembers.

    Attributes:
        cookie: Its soft id.
        device_id: Its own id, an event property.
        ids: The customer's other ids.
        session_start: When the open session began, UNIX seconds; None where none is open.
        last_activity: When the device was active last within an automatic session, UNIX seconds, or None.
        campaign: The campaign that brought the customer here last.
        token: The push token that was tracked last.
        project: The project that it was switched to, instead of the configured one.
        mapping: The projects beside it by event type's name, instead of the configured ones.
        messages: When in-app messages were shown and pressed here, by their ids.
        blocks: The same of content blocks.
        version: How often it was changed; 0 while it is not stored.
        is_new: Whether nothing has been told of it yet.
    """

    cookie: str
    device_id: str
    ids: Mapping[str, str] = field(factory=lambda: MappingProxyType({}))
    session_start: float | None = None
    last_activity: float | None = None
    campaign: Campaign | None = None
    token: TokenMemory | None = None
    project: ProjectRef | None = None
    mapping: Mapping[str, tuple[ProjectRef, ...]] | None = None
    messages: Mapping[str, Impression] = field(factory=lambda: MappingProxyType({}))
    blocks: Mapping[str, Impression] = field(factory=lambda: MappingProxyType({}))
    version: int = 0
    is_new: bool = False

    @property
    def customer_ids(self) -> dict[str, str]:
        """All its ids, as they go out with what it tracks."""
        return {COOKIE: self.cookie, **self.ids}

    def encode(self) -> bytes:
        """Make the bytes to store; activity and version are stored beside them, and what is stored is not new."""
        kept: dict[str, Any] = {"cookie": self.cookie, "device_id": self.device_id}
        if self.ids:
            kept["ids"] = dict(self.ids)
        if self.session_start is not None:
            kept["session_start"] = self.session_start
        if self.campaign is not None:
            kept["campaign"] = self.campaign.as_dict()
        if self.token is not None:
            kept["token"] = self.token.as_dict()
        if self.messages:
            kept["messages"] = as_list(self.messages)
        if self.blocks:
            kept["blocks"] = as_list(self.blocks)
        if self.project is not None:
            kept["project"] = list(astuple(self.project))
        if self.mapping is not None:
            kept["mapping"] = {
                kind: [[at.base_url, at.project_token] for at in it] for kind, it in self.mapping.items()
            }
        return json.dumps(kept, separators=(",", ":")).encode()

    @classmethod
    def decode(cls, value: bytes, *, version: int, last_activity: float | None) -> Self:
        """
        Read what `encode` made.

        Raises:
            ValueError: It is something else.
        """
        try:
            kept = json.loads(value)
            mapping = kept.get("mapping")
            return cls(
                cookie=kept["cookie"],
                device_id=kept["device_id"],
                ids=MappingProxyType(kept.get("ids", {})),
                session_start=kept.get("session_start"),
                last_activity=last_activity,
                campaign=Campaign.from_dict(kept["campaign"]) if "campaign" in kept else None,
                token=TokenMemory.from_dict(kept["token"]) if "token" in kept else None,
                messages=MappingProxyType(from_list(kept.get("messages", ()))),
                blocks=MappingProxyType(from_list(kept.get("blocks", ()))),
                project=ProjectRef(*kept["project"]) if "project" in kept else None,
                mapping=None
                if mapping is None
                else {kind: tuple(ProjectRef(*at) for at in it) for kind, it in mapping.items()},
                version=version,
            )
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"{type(error).__name__}: {error}") from error


def _places(kept: list[list[str]]) -> tuple[ProjectRef, ...]:
    return tuple(ProjectRef(*at) for at in kept)


class TimestampSequence:
    """
    The moments of one change, in order, no two equal.

    Args:
        first: The first of them, UNIX seconds.

    Attributes:
        first: The first of them.
        last: The last one that was told.
    """

    def __init__(self, first: float) -> None:
        self.first = self.last = first
        self._told = 0

    def next(self) -> float:
        """Tell the next one."""
        self.last = self.first + self._told * STEP
        self._told += 1
        return self.last


@frozen
class PendingEvent:
    """
    Something that a change of a device tracks.

    Attributes:
        who: The device as it was then, whose ids it carries and to whose projects it goes; or another identity.
        kind: Its kind.
        event: The event, or the draft of one. Of an event of `EventType.TRACK_CUSTOMER` only the properties count,
            and of one of `EventType.CAMPAIGN_CLICK` the name is the link.
    """

    who: DeviceState | Identity
    kind: EventType
    event: Event | Draft


#: What comes of a change: the device as it is then, and what is tracked, in order.
UpdateResult = tuple[DeviceState, Sequence[PendingEvent]]
#: How a verb changes a device. It may be asked more than once, where somebody else changed the device meanwhile.
StateUpdate = Callable[[DeviceState, TimestampSequence], UpdateResult]


def nothing(state: DeviceState, _: TimestampSequence) -> UpdateResult:
    """Change nothing."""
    return state, ()


def renewed(state: DeviceState, cookie: str) -> DeviceState:
    """Make the device another customer's, of whom nothing is known; token and projects stay."""
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
