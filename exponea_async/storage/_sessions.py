"""
Which states in memory have been without activity for longest.
"""

from collections.abc import Mapping
from heapq import heappop, heappush

from exponea_async.storage.base import State


class Sessions:
    """
    The keys of states with activity, by a moment that is never later than the true one.

    A touch only ever raises the true one, so it costs nothing here: a key is moved to its place when it comes to the
    head.

    Args:
        states: The states, as they are at any moment.
    """

    def __init__(self, states: Mapping[str, State]) -> None:
        self._states = states
        self._heap: list[tuple[float, str]] = []
        self._places: dict[str, float] = {}

    def note(self, key: str, active: float | None) -> None:
        """Hear of a state's activity."""
        place = self._places.get(key)
        if active is not None and (place is None or active < place):
            self._places[key] = active
            heappush(self._heap, (active, key))

    def expired(self, before: float, limit: int) -> list[tuple[str, State]]:
        """Tell the states without activity since a moment, earliest first."""
        found: list[tuple[str, State]] = []
        while len(found) < limit and self._heap and self._heap[0][0] < before:
            moment, key = heappop(self._heap)
            if self._places.get(key) != moment:
                # It was lowered, and had an earlier place.
                continue
            del self._places[key]
            state = self._states.get(key)
            if state and state.active == moment:
                found.append((key, state))
            elif state:
                self.note(key, state.active)
        for key, state in found:
            self.note(key, state.active)
        return found

    def clear(self) -> None:
        """Forget all."""
        self._heap.clear()
        self._places.clear()
