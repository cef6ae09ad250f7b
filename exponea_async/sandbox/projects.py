"""
The customers and events of one project. No I/O.
"""

from collections.abc import Iterable
from hashlib import blake2b
from typing import Any

from attrs import frozen

from exponea_async.sandbox.bounded_log import BoundedLog
from exponea_async.sandbox.commands import CLICK, Command, click_properties, trimmed_ids
from exponea_async.sandbox.identity import COOKIE, Customer, Customers
from exponea_async.sandbox.journal import Entry
from exponea_async.sandbox.models import CustomerView, PushToken, StoredEvent
from exponea_async.sandbox.push_tokens import TokenOwners, tokens_of_event, tokens_of_properties, update_tokens

#: The key of customers that are not stored.
UNKNOWN_CUSTOMER = 0


class ProjectData:
    """
    The customers and events of one project.

    Args:
        project: The token of the project.
        log: The entries of all projects, which hold the data of the events.

    Attributes:
        project: The token of the project.
        customers: The customers.
        events: The number of events, including those that are no longer kept.
        duplicates: The number of events that were not stored because their customer already had the same event.
        rejected: The number of rejected commands.
    """

    def __init__(self, project: str, log: BoundedLog[Entry]) -> None:
        self.project = project
        self.customers = Customers()
        self.events = 0
        self.duplicates = 0
        self.rejected = 0
        self._log = log
        self._unknown = Customer(UNKNOWN_CUSTOMER)
        self._token_owners = TokenOwners()

    def update_customer(self, command: Command, entry: Entry) -> None:
        """Update the properties of a customer."""
        customer = self._find_or_create(command.ids, entry)
        entry.raw, entry.timestamp = command.raw, command.timestamp
        timestamp = entry.received if command.timestamp is None else command.timestamp
        customer.update((name, (value, timestamp)) for name, value in command.properties.items())
        self._update_tokens(customer, tokens_of_properties(command.properties, timestamp))

    def add_event(self, command: Command, entry: Entry) -> None:
        """Store an event, unless its customer already has the same event."""
        customer = self._find_or_create(command.ids, entry) if command.ids else self._unknown
        entry.raw, entry.timestamp = command.raw, command.timestamp
        timestamp = float(entry.received if command.timestamp is None else command.timestamp)
        digest = _digest(command, timestamp)
        if digest in customer.events:
            self.duplicates += 1
            if not entry.merged:
                entry.verdict = "duplicate"
            return
        customer.events[digest] = entry.id
        customer.event_count += 1
        self.events += 1
        entry.digest = digest
        self._update_tokens(customer, tokens_of_event(command.event_type, command.properties, timestamp))

    def forget(self, entry: Entry) -> None:
        """Forget the event of an entry; the counts stay."""
        customer = self._owner(entry)
        if customer is not None and entry.digest is not None:
            customer.events.pop(entry.digest, None)

    def event(self, entry: Entry) -> StoredEvent:
        """Return the event of an entry."""
        key = self.customers.current_key(entry.customer)
        if entry.stored is not None and entry.stored.customer == key:
            return entry.stored
        data: dict[str, Any] = entry.data
        properties = click_properties(data) if entry.name == CLICK and entry.kind == "click" else data.get("properties")
        timestamp = float(entry.received if entry.timestamp is None else entry.timestamp)
        ids = trimmed_ids(data.get("customer_ids"))
        return StoredEvent(self.project, key, ids, entry.name, timestamp, properties or {}, entry.received)

    def view(self, customer: Customer) -> CustomerView:
        """Return the public view of a customer."""
        ids: dict[str, tuple[str, ...]] = {kind: (value,) for kind, value in list(customer.hard_ids.items())}
        if customer.cookies:
            ids[COOKIE] = tuple(customer.cookies)
        properties = {name: value for name, (value, _) in list(customer.properties.items())}
        tokens = self._token_owners.owned(customer.tokens)
        read_messages = tuple(customer.read_messages)
        return CustomerView(self.project, customer.key, ids, properties, customer.event_count, tokens, read_messages)

    def link(self, ids: dict[str, str], entry: Entry) -> None:
        """Merge the customers with these ids into one."""
        self._find_or_create(ids, entry)

    def mark_read(self, ids: dict[str, str], messages: Iterable[str], entry: Entry) -> None:
        """Store that a customer has read messages of the inbox."""
        # Resolved first, since find_or_create() raises for ids in conflict; unknown ids can't be in conflict.
        customer = self.customers.resolve(ids)
        if customer is None:
            customer = self._find_or_create(ids, entry)
        else:
            _note(customer, entry)
        customer.read_messages.update(dict.fromkeys(messages))

    def _update_tokens(self, customer: Customer, updates: Iterable[PushToken]) -> None:
        tokens = tuple(updates)
        if tokens:
            update_tokens(customer.tokens, tokens)
            self._token_owners.update(tokens)

    def _find_or_create(self, ids: dict[str, str], entry: Entry) -> Customer:
        customer, merged = self.customers.find_or_create(ids)
        if merged:
            entry.verdict, entry.merged = "merged", tuple(other.key for other in merged)
            for other in merged:
                self._move_events(customer, other)
        _note(customer, entry)
        return customer

    def _move_events(self, customer: Customer, other: Customer) -> None:
        customer.event_count += other.event_count
        for digest, number in other.events.items():
            if digest in customer.events:
                # Both customers had the same event, and after the merge it is a duplicate.
                if (entry := self._log.get(number)) is not None:
                    entry.digest = None
                customer.event_count -= 1
                self.events -= 1
                self.duplicates += 1
            else:
                customer.events[digest] = number

    def _owner(self, entry: Entry) -> Customer | None:
        if entry.customer == UNKNOWN_CUSTOMER:
            return self._unknown
        return self.customers.by_key(self.customers.current_key(entry.customer))


@frozen
class ProjectSummary:
    """
    The counts of one project.

    Attributes:
        events: The number of events.
        customers: The number of customers.
        duplicates: The number of events that were not stored because their customer already had the same event.
        rejected: The number of rejected commands.
    """

    events: int
    customers: int
    duplicates: int
    rejected: int


def _note(customer: Customer, entry: Entry) -> None:
    entry.customer = customer.key
    customer.created_at = customer.created_at or entry.received
    customer.seen_at = entry.received
    customer.latest = entry.id


def _digest(command: Command, timestamp: float) -> bytes:
    header = f"{command.event_type}\0{timestamp!r}\0".encode()
    return blake2b(header + command.canonical, digest_size=16).digest()
