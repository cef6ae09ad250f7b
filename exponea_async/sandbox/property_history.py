"""
The history of the properties of one customer, replayed from the log. Pure.
"""

from collections.abc import Iterable
from typing import Any

from attrs import frozen

from exponea_async.sandbox.journal import Entry

#: The changes that are shown, the newest ones.
MAX_CHANGES = 1000

#: The properties of a customer with the times of their updates.
Properties = dict[str, tuple[Any, float]]


@frozen
class Change:
    """
    An update of a property, applied or not.

    Attributes:
        name: The name of the property.
        at: The time of the update, UNIX seconds.
        old: The value before; None where there was none, or where it is no longer known.
        new: The value of the update.
        entry: The number of the entry.
        applied: Whether the update was stored; False for one that is older than what is stored.
        customer: The key of the customer that had the property then, who may have been merged since.
        why: ``update``, or ``merge`` for the value of a customer that was merged.
    """

    name: str
    at: float
    old: Any
    new: Any
    entry: int
    applied: bool
    customer: int
    why: str = "update"


def property_history(entries: Iterable[Entry]) -> list[Change]:
    """
    Return the changes of the properties of a customer, newest first.

    Args:
        entries: The accepted entries of the customer and of all that were merged into it, oldest first.
    """
    # By the key on arrival: until they are merged, customers have properties of their own.
    states: dict[int, Properties] = {}
    changes: list[Change] = []
    for entry in entries:
        state = states.setdefault(entry.customer, {})
        for key in entry.merged:
            changes += _merge(state, states.pop(key, {}), entry)
        if entry.kind == "customer":
            changes += _update(state, entry)
    return changes[: -MAX_CHANGES - 1 : -1]


def _update(state: Properties, entry: Entry) -> Iterable[Change]:
    at = entry.received if entry.timestamp is None else entry.timestamp
    for name, value in (entry.data.get("properties") or {}).items():
        old, stored_at = state.get(name, (None, at))
        applied = stored_at <= at
        if applied:
            state[name] = (value, at)
        yield Change(name, at, old, value, entry.id, applied, entry.customer)


def _merge(state: Properties, other: Properties, entry: Entry) -> Iterable[Change]:
    for name, (value, at) in other.items():
        # Of two values with equal times, that of the remaining customer is kept.
        if name in state and state[name][1] >= at:
            yield Change(name, at, state[name][0], value, entry.id, applied=False, customer=entry.customer, why="merge")
        else:
            old = state.get(name, (None, at))[0]
            state[name] = (value, at)
            yield Change(name, at, old, value, entry.id, applied=True, customer=entry.customer, why="merge")
