"""
A bounded cache that evicts the least recently used entries.
"""

from collections import OrderedDict
from collections.abc import Callable, ItemsView, Iterator, ValuesView
from typing import Generic, TypeVar

K = TypeVar("K")
V = TypeVar("V")


class LruCache(Generic[K, V]):
    """
    A mapping bounded by the number of its entries, their weight, or both.

    `get` and `put` mark an entry as the most recently used one. Iteration goes from the least to the most recently
    used entry. A value must not be None. Not thread-safe.

    Args:
        max_items: Maximum number of entries.
        max_weight: Maximum weight of all entries together; None sets no bound.
        weigh: Return the weight of a value, which must stay the same while the value is cached.
        on_evict: Called with the key and the value of each entry that is evicted for lack of room; not for those that
            are removed or replaced by the caller.
        keep_latest: Whether the entry that was put last stays even if it alone weighs more than `max_weight`. Otherwise
            such an entry is evicted at once, together with all others.

    Attributes:
        weight: Weight of all entries together; 0 without `weigh`.
    """

    def __init__(
        self,
        max_items: int | None = None,
        *,
        max_weight: int | None = None,
        weigh: Callable[[V], int] = lambda _: 0,
        on_evict: Callable[[K, V], object] = lambda _key, _value: None,
        keep_latest: bool = False,
    ) -> None:
        self._max_items = max_items
        self._max_weight = max_weight
        self._weigh = weigh
        self._on_evict = on_evict
        self._min_items = int(keep_latest)
        self._entries: OrderedDict[K, V] = OrderedDict()
        self.weight = 0

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, key: object) -> bool:
        return key in self._entries

    def __iter__(self) -> Iterator[K]:
        return iter(self._entries)

    def items(self) -> ItemsView[K, V]:
        """Return a view of keys and values."""
        return self._entries.items()

    def values(self) -> ValuesView[V]:
        """Return a view of the values."""
        return self._entries.values()

    def get(self, key: K) -> V | None:
        """Return the value of a key, or None, and mark it as used."""
        value = self._entries.get(key)
        if value is not None:
            self._entries.move_to_end(key)
        return value

    def peek(self, key: K) -> V | None:
        """Return the value of a key, or None, without marking it as used."""
        return self._entries.get(key)

    def put(self, key: K, value: V) -> None:
        """Store a value, instead of an earlier one, and evict what no longer fits."""
        self.pop(key)
        self._entries[key] = value
        self.weight += self._weigh(value)
        while self._is_too_large() and len(self._entries) > self._min_items:
            self._on_evict(*self.pop_oldest())

    def pop(self, key: K) -> V | None:
        """Remove a key and return its value, or None."""
        value = self._entries.pop(key, None)
        if value is not None:
            self.weight -= self._weigh(value)
        return value

    def pop_oldest(self) -> tuple[K, V]:
        """
        Remove the least recently used entry and return its key and value.

        Raises:
            KeyError: The cache is empty.
        """
        key, value = self._entries.popitem(last=False)
        self.weight -= self._weigh(value)
        return key, value

    def clear(self) -> None:
        """Remove all entries."""
        self._entries.clear()
        self.weight = 0

    def _is_too_large(self) -> bool:
        if self._max_items is not None and len(self._entries) > self._max_items:
            return True
        return self._max_weight is not None and self.weight > self._max_weight
