"""
Double-entry bookkeeping for the demo: what was tracked against what the platform has.
"""

from collections.abc import Iterable
from itertools import count

from attrs import evolve, frozen

from exponea_async._pipeline.commands import read_command
from exponea_async.models import Customer, Event
from exponea_async.sandbox import Engine
from exponea_async.storage.base import DeadLetter

#: The property that tells one tracked thing from all others.
MARK = "demo_id"
#: What devices track by themselves.
LIFE = frozenset({"installation", "session_start", "session_end"})


@frozen
class Balance:
    """
    What became of everything that was tracked.

    Attributes:
        tracked: How much that was.
        delivered: Of it, what stands in the platform's books.
        rejected: What the platform refused and the dead letters hold.
        lost: What is in neither place.
    """

    tracked: int
    delivered: int
    rejected: int
    lost: int


class Books:
    """
    The shop's own book: a mark for each thing that it tracks.

    What devices track by themselves has a mark too. But it may be made more than once before it is kept, where a verb
    meets the end of a session, and then only the last mark is kept: how many there are is told by the client.
    """

    def __init__(self) -> None:
        self._marks: set[int] = set()
        self._drafts: set[int] = set()
        self._numbers = count(1)

    def mark_event(self, event: Event) -> Event:
        """Mark an event; as ``before_track`` this meets all events, those of the SDK's own too."""
        return evolve(
            event,
            properties={**event.properties, MARK: self._next(self._drafts if event.name in LIFE else self._marks)},
        )

    def mark_customer(self, customer: Customer) -> Customer:
        """Mark an update of a customer."""
        return evolve(customer, properties={**customer.properties, MARK: self._next(self._marks)})

    def balance(self, engine: Engine, dead: Iterable[DeadLetter], tracked: int) -> Balance:
        """
        Hold this book against the platform's, and against the dead letters.

        Args:
            engine: The platform's books.
            dead: The dead letters.
            tracked: How much the client has kept in its queue.
        """
        arrived = {event.properties.get(MARK) for event in engine.events()}
        arrived |= {customer.properties.get(MARK) for customer in engine.customers()}
        refused = {read_command(letter.body)["data"]["properties"].get(MARK) for letter in dead}
        delivered = (self._marks | self._drafts) & arrived
        rejected = (self._marks | self._drafts) & refused - delivered
        found = delivered | rejected
        # Each of the shop's own is looked for; of the others as many are to be found as were kept.
        lost = len(self._marks - found) + max(0, tracked - len(self._marks) - len(self._drafts & found))
        return Balance(len(found) + lost, len(delivered), len(rejected), lost)

    def _next(self, marks: set[int]) -> int:
        number = next(self._numbers)
        marks.add(number)
        return number
