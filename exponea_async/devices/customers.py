"""
The customer that something is about, and the events that subscribers are notified of. Pure.
"""

import json
from collections.abc import Mapping
from hashlib import blake2b
from typing import NamedTuple, cast

from attrs import field, frozen

from exponea_async.models import Event, EventType, Receipt


@frozen
class CustomerSnapshot:
    """
    A customer of a project at one point in time. What was loaded for one snapshot belongs to no other fingerprint.

    Attributes:
        ids: The ids, with the cookie if there is one.
        project: The token of the project.
        device: The key of the device; None for a customer tracker.
        device_id: The device's own id, an event property; None for a customer tracker.
        fingerprint: A digest of ids and project; a different one means a different customer.
    """

    ids: Mapping[str, str]
    project: str
    device: str | None = None
    device_id: str | None = None
    fingerprint: str = field(init=False, repr=False)

    def __attrs_post_init__(self) -> None:
        content = json.dumps([self.project, sorted(self.ids.items())])
        digest = blake2b(content.encode(errors="surrogatepass"), digest_size=16).hexdigest()
        object.__setattr__(self, "fingerprint", digest)


class TrackedEvent(NamedTuple):
    """
    An event of a device that was recorded, or that would have been recorded with the customer's consent.

    Attributes:
        kind: The type.
        event: The event with all its properties, and its timestamp as UNIX seconds.
        customer: The customer it is about.
        receipt: The receipt; None where the event was not recorded.
    """

    kind: EventType
    event: Event
    customer: CustomerSnapshot
    receipt: Receipt | None = None

    @property
    def timestamp(self) -> float:
        """When it happened, UNIX seconds."""
        return cast("float", self.event.timestamp)
