"""
The ledger of the demo: compares what was tracked with what the sandbox has stored.
"""

from collections.abc import Iterable
from itertools import count

from attrs import evolve, frozen

from exponea_async._pipeline.commands import read_command
from exponea_async.models import Customer, Event
from exponea_async.sandbox import Engine
from exponea_async.storage.base import DeadLetter

#: The property with the number of an entry.
NUMBER = "demo_id"
#: The events that devices track by themselves.
LIFECYCLE_EVENTS = frozenset({"installation", "session_start", "session_end"})


@frozen
class Balance:
    """
    The result of everything that was tracked.

    Attributes:
        tracked: How many events and customer updates were tracked.
        delivered: How many of them the sandbox has stored.
        rejected: How many of them the sandbox has rejected; they are dead letters.
        lost: How many of them are neither stored nor dead letters.
    """

    tracked: int
    delivered: int
    rejected: int
    lost: int


class Ledger:
    """
    Numbers everything that the shop tracks, so that each entry can be found again.

    The events that devices track by themselves are numbered too. But a device may build such an event more than once
    before it is stored, when a call meets the end of a session, and only the last one is stored. So the ledger does not
    know how many of them were tracked; the client does.
    """

    def __init__(self) -> None:
        self._entries: set[int] = set()
        self._lifecycle_entries: set[int] = set()
        self._numbers = count(1)

    def number_event(self, event: Event) -> Event:
        """Return an event with a number; as ``before_track`` it gets every event, those of devices included."""
        entries = self._lifecycle_entries if event.name in LIFECYCLE_EVENTS else self._entries
        return evolve(event, properties={**event.properties, NUMBER: self._next(entries)})

    def number_customer(self, customer: Customer) -> Customer:
        """Return a customer update with a number."""
        return evolve(customer, properties={**customer.properties, NUMBER: self._next(self._entries)})

    def balance(self, engine: Engine, dead: Iterable[DeadLetter], tracked: int) -> Balance:
        """
        Compare the ledger with the sandbox and the dead letters.

        Args:
            engine: What the sandbox has stored.
            dead: The dead letters.
            tracked: How many events and updates the client has stored in its queue.
        """
        stored = {event.properties.get(NUMBER) for event in engine.events()}
        stored |= {customer.properties.get(NUMBER) for customer in engine.customers()}
        refused = {read_command(letter.body)["data"]["properties"].get(NUMBER) for letter in dead}
        delivered = (self._entries | self._lifecycle_entries) & stored
        rejected = (self._entries | self._lifecycle_entries) & refused - delivered
        found = delivered | rejected
        # Every entry of the shop must be found; of the events of devices, as many as the client has tracked.
        lifecycle_tracked = tracked - len(self._entries)
        lost = len(self._entries - found) + max(0, lifecycle_tracked - len(self._lifecycle_entries & found))
        return Balance(len(found) + lost, len(delivered), len(rejected), lost)

    def _next(self, entries: set[int]) -> int:
        number = next(self._numbers)
        entries.add(number)
        return number
