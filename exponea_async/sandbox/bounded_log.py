"""
A numbered log that keeps its newest items up to a number and a size. No I/O.
"""

from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any, Generic, Protocol, TypeVar

# Forgotten places are removed together, since each removal moves all items that stay.
MIN_REMOVED = 1024


class Sized(Protocol):
    """An item of a log."""

    @property
    def size(self) -> int:
        """The size of the item in bytes."""


T = TypeVar("T", bound=Sized)


class BoundedLog(Generic[T]):
    """
    Items numbered from 1 in order of arrival, of which the oldest are forgotten.

    The newest item is always kept, whatever its size.

    Args:
        max_items: The number of items that are kept.
        max_bytes: The sum of their sizes.
        on_forget: Called with each forgotten item.

    Attributes:
        bytes: The sum of the sizes of the items that are kept.
        oldest: The number of the oldest item that is kept; that of the next item where none is.
        next: The number of the next item.
    """

    def __init__(self, max_items: int, max_bytes: int, on_forget: Callable[[T], object]) -> None:
        self.max_items = max_items
        self.max_bytes = max_bytes
        self._on_forget = on_forget
        self._items: list[Any] = []
        # The index of the oldest item that is kept.
        self._start = 0
        self.bytes = 0
        self.oldest = 1
        self.next = 1

    def __len__(self) -> int:
        return self.next - self.oldest

    def __iter__(self) -> Iterator[T]:
        """Iterate over all items, oldest first; nothing may be appended meanwhile."""
        return islice(self._items, self._start, None)

    @property
    def forgotten(self) -> int:
        """The number of items that were forgotten."""
        return self.oldest - 1

    def append(self, item: T) -> None:
        """Add an item, and forget the oldest ones beyond the limits."""
        self._items.append(item)
        self.next += 1
        self.bytes += item.size
        while self.next - self.oldest > self.max_items or (self.bytes > self.max_bytes and self.next - self.oldest > 1):
            self._forget_oldest()

    def get(self, number: int) -> T | None:
        """Return an item by its number; None where it is not kept."""
        if not self.oldest <= number < self.next:
            return None
        item: T = self._items[self._start + number - self.oldest]
        return item

    def newest_first(self, *, before: int | None = None, after: int = 0) -> Iterator[tuple[int, T]]:
        """
        Iterate over items and their numbers, newest first; items may be appended meanwhile.

        Args:
            before: Only items with smaller numbers; all where None.
            after: Only items with larger numbers.
        """
        number = (self.next if before is None else min(before, self.next)) - 1
        while number > after and (item := self.get(number)) is not None:
            yield number, item
            number -= 1

    def following(self, after: int, limit: int) -> list[T]:
        """Return at most `limit` items with numbers above `after`, oldest first."""
        first = self._start + max(after + 1, self.oldest) - self.oldest
        return self._items[first : first + limit]

    def _forget_oldest(self) -> None:
        item = self._items[self._start]
        self._items[self._start] = None
        self._start += 1
        self.oldest += 1
        self.bytes -= item.size
        if self._start >= MIN_REMOVED and self._start * 2 >= len(self._items):
            del self._items[: self._start]
            self._start = 0
        self._on_forget(item)
