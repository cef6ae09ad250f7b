"""
The customers of one project, and how they are merged by their ids. Pure.

``cookie`` is a soft id: a customer may have many cookies, and a cookie can move to another customer. Every other kind
of id is hard: a customer has at most one value of it, and the value never moves to another one.
"""

from collections.abc import Iterable, Iterator, Mapping
from itertools import count
from typing import Any

from attrs import Factory, define

from exponea_async.sandbox.commands import IDS, CommandError, Problem
from exponea_async.sandbox.push_tokens import Tokens, update_tokens

COOKIE = "cookie"


class IdentityConflictError(CommandError):
    """The ids of one command belong to customers that can't be merged."""

    def __init__(self, kind: str, one: str, other: str) -> None:
        message = f"The ids belong to different customers: {kind!r} can't be both {one!r} and {other!r}."
        super().__init__([Problem(message, (IDS, kind))])


@define(eq=False)
class Customer:
    """
    A stored customer.

    Attributes:
        key: The number of the customer in the project.
        hard_ids: The hard ids.
        cookies: The cookies, oldest first; only the keys are used.
        properties: Each property with the UNIX second of its latest update.
        events: The numbers of the events by their digest, as far as they are kept.
        event_count: The number of events, including those that are no longer kept.
        tokens: The latest push tokens.
        read_messages: The ids of the inbox messages that the customer has read; only the keys are used.
        created_at: The time of the first command, UNIX seconds.
        seen_at: The time of the latest command, UNIX seconds.
        latest: The number of the log's entry of that command.
    """

    key: int
    hard_ids: dict[str, str] = Factory(dict)
    cookies: dict[str, None] = Factory(dict)
    properties: dict[str, tuple[Any, float]] = Factory(dict)
    events: dict[bytes, int] = Factory(dict)
    event_count: int = 0
    tokens: Tokens = Factory(dict)
    read_messages: dict[str, None] = Factory(dict)
    created_at: float = 0.0
    seen_at: float = 0.0
    latest: int = 0

    def update(self, properties: Iterable[tuple[str, tuple[Any, float]]]) -> None:
        """Store each property, unless the stored value is newer."""
        for name, update in properties:
            current = self.properties.get(name)
            if current is None or current[1] <= update[1]:
                self.properties[name] = update

    def ids(self) -> Iterator[tuple[str, str]]:
        """Iterate over all ids of the customer, as pairs of kind and value."""
        yield from self.hard_ids.items()
        yield from ((COOKIE, cookie) for cookie in self.cookies)


class Customers:
    """The customers of one project, in the order in which they were created."""

    def __init__(self) -> None:
        self._keys = count(1)
        self._owners: dict[tuple[str, str], Customer] = {}
        self._customers: dict[int, Customer] = {}
        # The keys of merged customers with those of the customers that they were merged into.
        self._merged_into: dict[int, int] = {}

    def __iter__(self) -> Iterator[Customer]:
        return iter(self._customers.values())

    def __len__(self) -> int:
        return len(self._customers)

    def current_key(self, key: int) -> int:
        """Return the key of the customer that the customer with a key was merged into; else the key itself."""
        current = key
        while current in self._merged_into:
            current = self._merged_into[current]
        if current != key:
            # The next call finds it in one step, also after a long chain of merges.
            self._merged_into[key] = current
        return current

    def by_key(self, key: int) -> Customer | None:
        """Return the customer with a key; None where it does not exist or was merged."""
        return self._customers.get(key)

    def with_value(self, value: str) -> list[Customer]:
        """Return the customers that have an id of any kind with this value."""
        owners = (owner for (_, other), owner in self._owners.items() if other == value)
        return list({owner.key: owner for owner in owners}.values())

    def find(self, ids: dict[str, str]) -> Customer | None:
        """Return the customer that has any of the ids; hard ids are tried before the cookie."""
        for pair in sorted(ids.items(), key=lambda pair: pair[0] == COOKIE):
            if pair in self._owners:
                return self._owners[pair]
        return None

    def resolve(self, ids: Mapping[str, str]) -> Customer | None:
        """
        Return the customer that `find_or_create` would return, without any change; None where it would create one.

        The cookie is ignored if the hard ids show that it belongs to another customer now.
        """
        hard_ids = _hard_ids(ids)
        for pair in hard_ids.items():
            if pair in self._owners:
                return self._owners[pair]
        return self._cookie_owner(ids, hard_ids)

    def find_or_create(self, ids: dict[str, str]) -> tuple[Customer, list[Customer]]:
        """
        Return the customer with these ids, and merge all customers that the ids identify as one.

        Returns:
            The customer, and the customers that were just merged into it; these still have their events.

        Raises:
            IdentityConflictError: The hard ids can't belong to one customer. Nothing was changed.
        """
        owners = [self._owners.get(pair) for pair in ids.items()]
        first = owners[0]
        if first is not None and all(owner is first for owner in owners):
            return first, []
        return self._merge(ids)

    def _merge(self, ids: dict[str, str]) -> tuple[Customer, list[Customer]]:
        hard_ids = _hard_ids(ids)
        owners = {owner.key: owner for pair in hard_ids.items() if (owner := self._owners.get(pair))}
        owners = dict(sorted(owners.items()))
        for owner in owners.values():
            _add_hard_ids(hard_ids, owner.hard_ids)
        # A hard id has precedence over a cookie: another customer on the same device stays another customer.
        if (visitor := self._cookie_owner(ids, hard_ids)) is not None:
            owners.setdefault(visitor.key, visitor)
        # The customer with the hard id remains, even if the anonymous one is older.
        customer, *merged = owners.values() or [self._create()]
        for other in merged:
            self._absorb(customer, other)
        self._assign_ids(customer, ids.items())
        return customer, merged

    def _cookie_owner(self, ids: Mapping[str, str], hard_ids: dict[str, str]) -> Customer | None:
        owner = self._owners.get((COOKIE, ids.get(COOKIE, "")))
        return owner if owner is not None and _are_compatible(owner.hard_ids, hard_ids) else None

    def _create(self) -> Customer:
        customer = Customer(next(self._keys))
        self._customers[customer.key] = customer
        return customer

    def _absorb(self, customer: Customer, other: Customer) -> None:
        del self._customers[other.key]
        self._merged_into[other.key] = customer.key
        self._assign_ids(customer, list(other.ids()))
        # Of two values with equal timestamps, that of the remaining customer is kept.
        own = list(customer.properties.items())
        customer.update(other.properties.items())
        customer.update(own)
        customer.created_at = min(customer.created_at or other.created_at, other.created_at)
        update_tokens(customer.tokens, other.tokens.values())
        customer.read_messages.update(other.read_messages)

    def _assign_ids(self, customer: Customer, pairs: Iterable[tuple[str, str]]) -> None:
        for kind, value in pairs:
            if kind == COOKIE:
                previous = self._owners.get((kind, value))
                if previous is not None and previous is not customer:
                    del previous.cookies[value]
                customer.cookies[value] = None
            else:
                customer.hard_ids[kind] = value
            self._owners[kind, value] = customer


def _hard_ids(ids: Mapping[str, str]) -> dict[str, str]:
    return {kind: value for kind, value in ids.items() if kind != COOKIE}


def _add_hard_ids(hard_ids: dict[str, str], others: dict[str, str]) -> None:
    for kind, value in others.items():
        if hard_ids.setdefault(kind, value) != value:
            raise IdentityConflictError(kind, hard_ids[kind], value)


def _are_compatible(one: dict[str, str], other: dict[str, str]) -> bool:
    return all(other.get(kind, value) == value for kind, value in one.items())
