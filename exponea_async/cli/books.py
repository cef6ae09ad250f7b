"""
Double-entry bookkeeping for the demo: what was tracked against what the platform has.
"""

from collections.abc import Iterable
from itertools import count

from attrs import evolve, frozen

from exponea_async._pipeline.wire import read_command
from exponea_async.models import Customer, Event
from exponea_async.sandbox import Engine
from exponea_async.storage.base import DeadLetter

#: The property that tells one tracked thing from all others.
MARK = "demo_id"


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
    """The shop's own book: a mark for each thing that it tracks."""

    def __init__(self) -> None:
        self._marks: set[int] = set()
        self._numbers = count(1)

    def mark_event(self, event: Event) -> Event:
        """Mark an event; as ``before_track`` this meets all events, those of the SDK's own too."""
        return evolve(event, properties={**event.properties, MARK: self._next()})

    def mark_customer(self, customer: Customer) -> Customer:
        """Mark an update of a customer."""
        return evolve(customer, properties={**customer.properties, MARK: self._next()})

    def balance(self, engine: Engine, dead: Iterable[DeadLetter]) -> Balance:
        """Hold this book against the platform's, and against the dead letters."""
        arrived = {event.properties.get(MARK) for event in engine.events()}
        arrived |= {customer.properties.get(MARK) for customer in engine.customers()}
        refused = {read_command(letter.body)["data"]["properties"].get(MARK) for letter in dead}
        delivered = self._marks & arrived
        rejected = (self._marks & refused) - delivered
        lost = self._marks - delivered - rejected
        return Balance(len(self._marks), len(delivered), len(rejected), len(lost))

    def _next(self) -> int:
        number = next(self._numbers)
        self._marks.add(number)
        return number
