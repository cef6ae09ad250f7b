"""
Content blocks in memory: the definitions of a project, and the personalized data of customers. Pure.
"""

from collections.abc import Iterable, Mapping
from types import MappingProxyType

from attrs import define, field, frozen

from exponea_async._internal.lru import LruCache
from exponea_async.devices.customers import CustomerSnapshot
from exponea_async.features.content_blocks.parsing import BlockDefinition, memory_size
from exponea_async.messages import PersonalizedData

#: Maximum number of customers whose data is cached, and the approximate maximum size of the data in bytes; the least
#: recently used customer is evicted first.
MAX_CUSTOMERS = 10_000
MAX_BYTES = 64_000_000
#: The approximate size of a customer without the data, in bytes.
CUSTOMER_SIZE = 500

_NO_DATA: Mapping[str, PersonalizedData] = MappingProxyType({})


@frozen
class Bundle:
    """
    The definitions of all content blocks of a project.

    Attributes:
        loaded_at: When they were loaded, UNIX seconds.
        placeholders: The blocks by the placeholder in which they may be shown.
    """

    loaded_at: float
    placeholders: Mapping[str, tuple[BlockDefinition, ...]]

    @classmethod
    def from_definitions(cls, definitions: Iterable[BlockDefinition], loaded_at: float) -> "Bundle":
        """Return a bundle; of several definitions with the same id the first one counts."""
        first: dict[str, BlockDefinition] = {}
        for each in definitions:
            first.setdefault(each.id, each)
        placeholders: dict[str, list[BlockDefinition]] = {}
        for each in first.values():
            for placeholder in dict.fromkeys(each.placeholders):
                placeholders.setdefault(placeholder, []).append(each)
        return cls(loaded_at, {name: tuple(blocks) for name, blocks in placeholders.items()})

    def blocks_for(self, placeholder: str) -> tuple[BlockDefinition, ...]:
        """Return the blocks that may be shown in a placeholder."""
        return self.placeholders.get(placeholder, ())


@define(eq=False)
class CachedCustomer:
    """
    The personalized data of one customer.

    Attributes:
        device: The key of the device, or None.
        data: The data by the id of its block.
        size: The approximate size in bytes.
    """

    device: str | None
    data: dict[str, PersonalizedData] = field(factory=dict)
    size: int = CUSTOMER_SIZE

    def update(self, loaded: Mapping[str, PersonalizedData]) -> None:
        """Add or replace data."""
        self.size += sum(memory_size(each) for each in loaded.values())
        self.size -= sum(memory_size(self.data[name]) for name in loaded if name in self.data)
        self.data.update(loaded)


class CustomerCache:
    """
    The personalized data of the customers that were used last, by the customer's fingerprint.

    Args:
        max_customers: Maximum number of customers.
        max_bytes: Approximate maximum size of all data in bytes.
    """

    def __init__(self, *, max_customers: int = MAX_CUSTOMERS, max_bytes: int = MAX_BYTES) -> None:
        self._customers: LruCache[str, CachedCustomer] = LruCache(
            max_customers,
            max_weight=max_bytes,
            weigh=lambda customer: customer.size,
            on_evict=lambda _, customer: self._unlink(customer),
        )
        # The fingerprint of the customer that a device had last.
        self._devices: dict[str, str] = {}

    def __len__(self) -> int:
        return len(self._customers)

    @property
    def size(self) -> int:
        """The approximate size of all data in bytes."""
        return self._customers.weight

    def get(self, customer: CustomerSnapshot) -> Mapping[str, PersonalizedData]:
        """Return the data of a customer by the id of its block."""
        cached = self._customers.get(customer.fingerprint)
        return _NO_DATA if cached is None else cached.data

    def put(self, customer: CustomerSnapshot, loaded: Mapping[str, PersonalizedData]) -> None:
        """Add data of a customer to what is cached."""
        self.remove_previous(customer)
        # Removed while its size changes.
        cached = self._customers.pop(customer.fingerprint) or CachedCustomer(customer.device)
        # A customer tracker with the same ids may have been first.
        cached.device = customer.device or cached.device
        cached.update(loaded)
        if not cached.data:
            return
        if customer.device is not None:
            self._devices[customer.device] = customer.fingerprint
        self._customers.put(customer.fingerprint, cached)

    def remove_previous(self, customer: CustomerSnapshot) -> None:
        """Remove the data of the customer that the device had before."""
        previous = None if customer.device is None else self._devices.get(customer.device)
        if previous is not None and previous != customer.fingerprint:
            cached = self._customers.pop(previous)
            if cached is not None:
                self._unlink(cached)

    def clear(self) -> None:
        """Remove all customers."""
        self._customers.clear()
        self._devices.clear()

    def _unlink(self, cached: CachedCustomer) -> None:
        if cached.device is not None:
            self._devices.pop(cached.device, None)
