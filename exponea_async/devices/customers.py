"""
Whom something is about, and what is heard of them. Pure.
"""

import json
from collections.abc import Mapping
from hashlib import blake2b
from typing import cast

from attrs import field, frozen

from exponea_async.devices.state import ProjectRef
from exponea_async.models import Event, EventType, Receipt


@frozen
class CustomerSnapshot:
    """
    A customer of a project, as it was known at one moment; what was loaded for one `CustomerSnapshot` is for no other.

    Attributes:
        ids: The ids, the cookie among them where there is one.
        place: The project.
        device: The key of the device; None for a customer tracker.
        device_id: The device's own id, an event property; None for a customer tracker.
        mark: Stands for ids and project; who has another one is somebody else.
    """

    ids: Mapping[str, str]
    place: ProjectRef
    device: str | None = None
    device_id: str | None = None
    mark: str = field(init=False, repr=False)

    def __attrs_post_init__(self) -> None:
        told = json.dumps([self.place.base_url, self.place.project_token, sorted(self.ids.items())])
        object.__setattr__(self, "mark", blake2b(told.encode(errors="surrogatepass"), digest_size=16).hexdigest())


@frozen
class TrackedEvent:
    """
    Something that was tracked on a device, or would have been, had there been consent.

    Attributes:
        kind: Its kind.
        event: The event with all its properties, and its moment as UNIX seconds.
        who: Whom it is about.
        receipt: Its receipt; None where it was not kept.
    """

    kind: EventType
    event: Event
    who: CustomerSnapshot
    receipt: Receipt | None = None

    @property
    def timestamp(self) -> float:
        """When it happened, UNIX seconds."""
        return cast("float", self.event.timestamp)
