"""
The state of the sandbox: what the platform would store for each command. No I/O.
"""

import random
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from hashlib import blake2b
from itertools import count
from typing import Any

from attrs import evolve, frozen

from exponea_async.sandbox.commands import Command, CommandError, parse_click, parse_customer, parse_event
from exponea_async.sandbox.encoding import dumps
from exponea_async.sandbox.identity import COOKIE, Customer, Customers
from exponea_async.sandbox.models import CustomerView, PushToken, RejectedCommand, StoredEvent
from exponea_async.sandbox.push_tokens import TokenOwners, tokens_of_event, tokens_of_properties, update_tokens

MAX_REJECTED = 1000
MAX_SUMMARY_LENGTH = 300
#: The key of customers that are not stored.
UNKNOWN_CUSTOMER = 0
# A tuple, since the name in a command can be any value, including an unhashable one.
BATCH_COMMANDS = ("customers", "customers/events", "system/time")
INJECTED_ERRORS = ("rejected by fault injection",)


class ProjectData:
    """
    The customers and events of one project.

    Attributes:
        project: The token of the project.
        customers: The customers.
        events: The events by their number, in order of arrival.
        duplicates: The number of events that were not stored because their customer already had the same event.
        rejected: The number of rejected commands.
    """

    def __init__(self, project: str) -> None:
        self.project = project
        self.customers = Customers()
        self.events: dict[int, StoredEvent] = {}
        self.duplicates = 0
        self.rejected = 0
        self._unknown = Customer(UNKNOWN_CUSTOMER)
        self._token_owners = TokenOwners()

    def update_customer(self, command: Command, now: float) -> None:
        """Update the properties of a customer."""
        customer = self._find_or_create(command.ids)
        timestamp = now if command.timestamp is None else command.timestamp
        customer.update((name, (value, timestamp)) for name, value in command.properties.items())
        self._update_tokens(customer, tokens_of_properties(command.properties, timestamp))

    def add_event(self, command: Command, now: float, number: int) -> None:
        """Store an event, unless its customer already has the same event."""
        customer = self._find_or_create(command.ids) if command.ids else self._unknown
        timestamp = float(now if command.timestamp is None else command.timestamp)
        digest = _digest(command, timestamp)
        if digest in customer.events:
            self.duplicates += 1
            return
        customer.events[digest] = number
        self.events[number] = StoredEvent(
            self.project, customer.key, command.ids, command.event_type, timestamp, command.properties, now
        )
        self._update_tokens(customer, tokens_of_event(command.event_type, command.properties, timestamp))

    def view(self, customer: Customer) -> CustomerView:
        """Return the public view of a customer."""
        ids: dict[str, tuple[str, ...]] = {kind: (value,) for kind, value in customer.hard_ids.items()}
        if customer.cookies:
            ids[COOKIE] = tuple(customer.cookies)
        properties = {name: value for name, (value, _) in customer.properties.items()}
        tokens = self._token_owners.owned(customer.tokens)
        read_messages = tuple(customer.read_messages)
        return CustomerView(self.project, customer.key, ids, properties, len(customer.events), tokens, read_messages)

    def link(self, ids: dict[str, str]) -> None:
        """Merge the customers with these ids into one."""
        self._find_or_create(ids)

    def mark_read(self, ids: dict[str, str], messages: Iterable[str]) -> None:
        """Store that a customer has read messages of the inbox."""
        # Resolved first, since find_or_create() raises for ids in conflict; unknown ids can't be in conflict.
        customer = self.customers.resolve(ids) or self._find_or_create(ids)
        customer.read_messages.update(dict.fromkeys(messages))

    def _update_tokens(self, customer: Customer, updates: Iterable[PushToken]) -> None:
        tokens = tuple(updates)
        update_tokens(customer.tokens, tokens)
        self._token_owners.update(tokens)

    def _find_or_create(self, ids: dict[str, str]) -> Customer:
        customer, merged = self.customers.find_or_create(ids)
        for other in merged:
            self._move_events(customer, other)
        return customer

    def _move_events(self, customer: Customer, other: Customer) -> None:
        for digest, number in other.events.items():
            if digest in customer.events:
                # Both customers had the same event, and after the merge it is a duplicate.
                del self.events[number]
                self.duplicates += 1
            else:
                customer.events[digest] = number
                self.events[number] = evolve(self.events[number], customer=customer.key)


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


class Engine:
    """
    The state of all projects, and the commands that change it.

    Args:
        seed: The seed for the order in which the commands of a batch are executed.
        clock: Returns the current time, UNIX seconds.
    """

    def __init__(self, *, seed: int = 0, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._seed = seed
        self.reset()

    def reset(self) -> None:
        """Delete all projects, customers, events and counts."""
        self._random = random.Random(self._seed)  # noqa: S311
        self._projects: dict[str, ProjectData] = {}
        self._event_numbers = count(1)
        self._rejected: deque[RejectedCommand] = deque(maxlen=MAX_REJECTED)

    def now(self) -> float:
        """Return the time of the platform, UNIX seconds."""
        return self._clock()

    def execute(self, project: str, name: str, data: object) -> tuple[str, ...]:
        """
        Execute one command.

        Args:
            project: The token of the project.
            name: The name: ``customers``, ``customers/events`` or ``campaigns/clicks``.
            data: The data as sent.

        Returns:
            The error messages; empty on success. A duplicate event is a success, and is counted.
        """
        try:
            self._apply(self._project_data(project), name, data)
        except CommandError as error:
            self.reject(project, name, data, error.errors)
            return error.errors
        return ()

    def execute_batch(
        self, project: str, commands: Iterable[object], is_rejected: Callable[[], bool] = lambda: False
    ) -> list[dict[str, Any]]:
        """
        Execute the commands of a batch in a random order.

        Args:
            project: The token of the project.
            commands: The commands as sent.
            is_rejected: Called once per command, in the order given; the command fails if it returns True.

        Returns:
            One result per command, in the order given.
        """
        pending = [(command, is_rejected()) for command in commands]
        order = list(range(len(pending)))
        # The platform guarantees no order; the random order reveals clients that depend on one.
        self._random.shuffle(order)
        results: list[dict[str, Any]] = [{}] * len(pending)
        for position in order:
            command, rejected = pending[position]
            results[position] = self._execute_in_batch(project, command, rejected=rejected)
        return results

    def reject(self, project: str, name: str, data: object, errors: tuple[str, ...]) -> None:
        """Store a rejected command."""
        self._project_data(project).rejected += 1
        self._rejected.append(RejectedCommand(project, name, _summary(data), errors, self.now()))

    def projects(self) -> list[str]:
        """Return the tokens of all projects that have received a command."""
        return sorted(self._projects)

    def events(self, project: str | None = None, event_type: str | None = None) -> list[StoredEvent]:
        """Return the events of one project or of all, of one type or of all, in order of arrival."""
        numbered = [pair for data in self._selected(project) for pair in data.events.items()]
        if project is None:
            numbered.sort(key=lambda pair: pair[0])
        return [event for _, event in numbered if event_type is None or event.event_type == event_type]

    def customers(self, project: str | None = None) -> list[CustomerView]:
        """Return the customers of one project or of all, oldest first."""
        return [data.view(customer) for data in self._selected(project) for customer in data.customers]

    def customer(self, project: str, ids: dict[str, str]) -> CustomerView | None:
        """Return the customer that has any of the ids; hard ids are tried before the cookie."""
        data = self._projects.get(project)
        customer = data.customers.find(ids) if data else None
        return data.view(customer) if data and customer else None

    def resolve(self, project: str, ids: Mapping[str, str]) -> CustomerView:
        """
        Return the customer that a request with these ids is about; nothing is stored.

        The ids of the view include those of the request. The key of a customer that is not stored is 0.
        """
        data = self._projects.get(project)
        customer = data.customers.resolve(ids) if data else None
        if data is None or customer is None:
            view = CustomerView(project, UNKNOWN_CUSTOMER, {}, {}, 0)
        else:
            view = data.view(customer)
        added = {kind: (value,) for kind, value in ids.items() if kind not in view.ids}
        return evolve(view, ids={**view.ids, **added})

    def link(self, project: str, ids: dict[str, str]) -> tuple[str, ...]:
        """Merge the customers with these ids into one; return the error messages, empty on success."""
        try:
            self._project_data(project).link(ids)
        except CommandError as error:
            return error.errors
        return ()

    def mark_read(self, project: str, ids: dict[str, str], messages: Iterable[str]) -> None:
        """Store that a customer has read messages of the inbox; an unknown customer is created."""
        self._project_data(project).mark_read(ids, messages)

    def summary(self) -> dict[str, ProjectSummary]:
        """Return the counts of each project."""
        return {
            project: ProjectSummary(len(data.events), len(data.customers), data.duplicates, data.rejected)
            for project, data in sorted(self._projects.items())
        }

    @property
    def duplicates(self) -> int:
        """The number of events that were not stored because their customer already had the same event."""
        return sum(data.duplicates for data in self._projects.values())

    @property
    def rejected(self) -> list[RejectedCommand]:
        """The latest 1,000 rejected commands, oldest first."""
        return list(self._rejected)

    @property
    def rejected_count(self) -> int:
        """The number of rejected commands."""
        return sum(data.rejected for data in self._projects.values())

    def _project_data(self, project: str) -> ProjectData:
        data = self._projects.get(project)
        if data is None:
            data = self._projects[project] = ProjectData(project)
        return data

    def _selected(self, project: str | None) -> Iterable[ProjectData]:
        if project is None:
            return self._projects.values()
        return [self._projects[project]] if project in self._projects else []

    def _apply(self, project: ProjectData, name: str, data: object) -> None:
        if name == "customers/events":
            project.add_event(parse_event(data), self.now(), next(self._event_numbers))
        elif name == "customers":
            project.update_customer(parse_customer(data), self.now())
        elif name == "campaigns/clicks":
            project.add_event(parse_click(data), self.now(), next(self._event_numbers))
        else:
            raise CommandError(["Unknown command."])

    def _execute_in_batch(self, project: str, command: object, *, rejected: bool) -> dict[str, Any]:
        if not isinstance(command, dict):
            return self._failure(project, "", command, ("A command should be an object.",))
        command_id = command.get("command_id")
        if command_id is not None and not isinstance(command_id, str | int):
            return self._failure(project, "", command, ("command_id should be a string.",))
        result = self._result(project, command.get("name"), command.get("data"), rejected=rejected)
        return result if command_id is None else {**result, "command_id": command_id}

    def _result(self, project: str, name: object, data: object, *, rejected: bool) -> dict[str, Any]:
        # The batch of the platform doesn't support campaign clicks, which have a route of their own.
        if name not in BATCH_COMMANDS:
            return self._failure(project, name if isinstance(name, str) else "", data, ("Unknown command.",))
        if rejected:
            return self._failure(project, str(name), data, INJECTED_ERRORS)
        if name == "system/time":
            return {"success": True, "time": self.now()}
        errors = self.execute(project, str(name), data)
        return {"success": False, "errors": errors} if errors else {"success": True}

    def _failure(self, project: str, name: str, data: object, errors: tuple[str, ...]) -> dict[str, Any]:
        self.reject(project, name, data, errors)
        return {"success": False, "errors": errors}


def _digest(command: Command, timestamp: float) -> bytes:
    header = f"{command.event_type}\0{timestamp!r}\0".encode()
    return blake2b(header + command.canonical, digest_size=16).digest()


def _summary(data: object) -> str:
    try:
        summary = dumps(data).decode()
    except ValueError:
        return "(not JSON)"
    return summary if len(summary) <= MAX_SUMMARY_LENGTH else summary[:MAX_SUMMARY_LENGTH] + "…"
