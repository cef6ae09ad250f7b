"""
What is kept in memory of content blocks: the list of all, and what they say to each customer. Pure.
"""

from collections import OrderedDict
from collections.abc import Iterable, Mapping
from types import MappingProxyType

from attrs import define, field, frozen

from exponea_async.devices.customers import CustomerSnapshot
from exponea_async.features.content_blocks.parsing import Definition, weight
from exponea_async.messages import PersonalizedData

#: Customers whose content is kept, and about how much memory it takes, in bytes; whoever was asked for longest ago
#: makes room.
MAX_CUSTOMERS = 10_000
MAX_BYTES = 64_000_000
#: What a customer takes beside the content, in bytes.
FRAME = 500

_NOTHING: Mapping[str, PersonalizedData] = MappingProxyType({})


@frozen
class Bundle:
    """
    All content blocks of a project.

    Attributes:
        loaded_at: When it was loaded, UNIX seconds.
        placeholders: The blocks by the placeholder that they may be shown in.
    """

    loaded_at: float
    placeholders: Mapping[str, tuple[Definition, ...]]

    @classmethod
    def made(cls, definitions: Iterable[Definition], loaded_at: float) -> "Bundle":
        """Make one of the blocks in it; of several with one id the first counts."""
        first: dict[str, Definition] = {}
        for each in definitions:
            first.setdefault(each.id, each)
        places: dict[str, list[Definition]] = {}
        for each in first.values():
            for placeholder in dict.fromkeys(each.placeholders):
                places.setdefault(placeholder, []).append(each)
        return cls(loaded_at, {name: tuple(blocks) for name, blocks in places.items()})

    def of(self, placeholder: str) -> tuple[Definition, ...]:
        """Tell the blocks that may be shown in a placeholder."""
        return self.placeholders.get(placeholder, ())


@define(eq=False)
class Customer:
    """
    What blocks say to one customer.

    Attributes:
        device: The key of the device, or None.
        blocks: What they say, by the block's id.
        size: About how much memory it takes, in bytes.
    """

    device: str | None
    blocks: dict[str, PersonalizedData] = field(factory=dict)
    size: int = FRAME

    def put(self, found: Mapping[str, PersonalizedData]) -> None:
        """Take in what was loaded; what else is known stays."""
        self.size += sum(weight(each) for each in found.values())
        self.size -= sum(weight(self.blocks[name]) for name in found if name in self.blocks)
        self.blocks.update(found)


class Customers:
    """What blocks say to the customers who were asked for last, by the customer's fingerprint."""

    def __init__(self) -> None:
        self._customers: OrderedDict[str, Customer] = OrderedDict()
        # A device is one customer at a time.
        self._devices: dict[str, str] = {}
        self.size = 0

    def __len__(self) -> int:
        return len(self._customers)

    def get(self, snapshot: CustomerSnapshot) -> Mapping[str, PersonalizedData]:
        """Tell what blocks say to a customer, by their ids."""
        customer = self._customers.get(snapshot.fingerprint)
        if customer is None:
            return _NOTHING
        self._customers.move_to_end(snapshot.fingerprint)
        return customer.blocks

    def put(self, snapshot: CustomerSnapshot, found: Mapping[str, PersonalizedData]) -> None:
        """Keep what blocks say to a customer, beside what is known already."""
        self.settle(snapshot)
        customer = self._customers.pop(snapshot.fingerprint, None) or Customer(snapshot.device)
        # A customer tracker may have come first, with the same ids.
        customer.device = snapshot.device or customer.device
        self.size -= customer.size if customer.blocks else 0
        customer.put(found)
        if not customer.blocks:
            return
        self._customers[snapshot.fingerprint] = customer
        self.size += customer.size
        if snapshot.device is not None:
            self._devices[snapshot.device] = snapshot.fingerprint
        while len(self._customers) > MAX_CUSTOMERS or self.size > MAX_BYTES:
            self._drop(next(iter(self._customers)))

    def settle(self, snapshot: CustomerSnapshot) -> None:
        """Forget what was kept for whoever the device was before."""
        before = None if snapshot.device is None else self._devices.get(snapshot.device)
        if before is not None and before != snapshot.fingerprint:
            self._drop(before)

    def clear(self) -> None:
        """Forget everybody."""
        self._customers.clear()
        self._devices.clear()
        self.size = 0

    def _drop(self, fingerprint: str) -> None:
        customer = self._customers.pop(fingerprint)
        self.size -= customer.size
        if customer.device is not None:
            self._devices.pop(customer.device, None)
