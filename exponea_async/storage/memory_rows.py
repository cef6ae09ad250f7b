"""
The records of the storage in memory, and their routes.
"""

from bisect import bisect_right
from math import inf

from attrs import define, field

from exponea_async.storage.base import MAX_DUE_AHEAD, Leased, Record, Waiting
from exponea_async.storage.clock import to_unix


@define(eq=False)
class Row:
    """A record in the queue."""

    id: str
    number: int
    route: "Route"
    record: Record
    due: float = 0.0
    failures: int = 0
    reason: str = ""

    @property
    def is_leased(self) -> bool:
        """Whether it was leased before."""
        return self.number <= self.route.cursor

    def written_at(self) -> float:
        """Return when it was written, UNIX seconds."""
        return self.record.at

    def leased(self) -> Leased:
        """Return it as a lease does."""
        return Leased(self.id, self.route.name, self.record.body, self.record.at, self.failures)

    def waiting(self) -> Waiting:
        """Return it with what became of it so far."""
        due = to_unix(self.due) if self.is_leased else 0.0
        return Waiting(self.id, self.route.name, self.record.body, self.record.at, self.failures, due, self.reason)


@define(eq=False)
class Route:
    """A route: the numbers above the cursor are untouched, the others are in the schedule with their due time."""

    name: str
    number: int
    cursor: int = 0
    last: int = 0
    schedule: list[tuple[float, int]] = field(factory=list)

    def id(self, number: int) -> str:
        """Return the id of the record with a number."""
        return f"{self.number}.{number}"

    def due(self, limit: int, now: float) -> list[int]:
        """Return the leased numbers that are due, or due so far ahead that the clock must have been set back."""
        due = self.schedule[: min(limit, bisect_right(self.schedule, (now, inf)))]
        start = bisect_right(self.schedule, (now + MAX_DUE_AHEAD, inf))
        return [number for _, number in due + self.schedule[start : start + limit - len(due)]]
