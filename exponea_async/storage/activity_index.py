"""
The states with activity, in the order in which their sessions end.
"""

from collections.abc import Mapping
from heapq import heappop, heappush

from exponea_async.storage.base import State


class ActivityIndex:
    """
    The keys of the states with activity, in the order of a time that is never later than the actual one.

    Later activity of a state costs nothing here: a key moves to its actual place only when it comes first in the heap.

    Args:
        states: The states, which change.
    """

    def __init__(self, states: Mapping[str, State]) -> None:
        self._states = states
        self._heap: list[tuple[float, str]] = []
        self._noted: dict[str, float] = {}

    def note(self, key: str, active: float | None) -> None:
        """Note the activity of a state."""
        noted = self._noted.get(key)
        if active is not None and (noted is None or active < noted):
            self._noted[key] = active
            heappush(self._heap, (active, key))

    def before(self, end: float, limit: int) -> list[tuple[str, State]]:
        """Return the states whose last activity is before a time, earliest first."""
        found: list[tuple[str, State]] = []
        while len(found) < limit and self._heap and self._heap[0][0] < end:
            active, key = heappop(self._heap)
            if self._noted.get(key) != active:
                # An earlier time has been noted since, and the key was found under that.
                continue
            del self._noted[key]
            state = self._states.get(key)
            if state and state.active == active:
                found.append((key, state))
            elif state:
                self.note(key, state.active)
        for key, state in found:
            self.note(key, state.active)
        return found

    def clear(self) -> None:
        """Remove all keys."""
        self._heap.clear()
        self._noted.clear()
