"""
Which records and states are to be erased, because an end user has withdrawn consent.
"""

from collections.abc import Callable, Collection, Iterable, Mapping
from types import MappingProxyType
from typing import NamedTuple


class Erasure(NamedTuple):
    """
    A selection of records, dead letters and states, and what is stored in the same commit.

    Attributes:
        traces: Byte strings; what contains none of them is left alone without a closer look.
        is_record: Returns whether the record or dead letter with this body is erased.
        select_states: Called with the keys and values of all states; returns the keys of those that are erased.
        states: New values of states, by key, whatever is stored there.
    """

    traces: tuple[bytes, ...]
    is_record: Callable[[bytes], bool]
    select_states: Callable[[Iterable[tuple[str, bytes]]], Collection[str]]
    states: Mapping[str, bytes] = MappingProxyType({})

    def has_trace(self, value: bytes) -> bool:
        """Return whether a value contains any of the traces."""
        return any(trace in value for trace in self.traces)


class Erased(NamedTuple):
    """
    What was erased.

    Attributes:
        records: The ids of the records that were waiting.
        letters: The ids of the dead letters.
        states: The keys of the states.
    """

    records: tuple[str, ...]
    letters: tuple[str, ...]
    states: tuple[str, ...]
