"""
The state of the sandbox: what the platform would store for each command. No I/O.
"""

import random
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from sys import intern
from typing import Any

from attrs import evolve

from exponea_async.sandbox.commands import CLICK, CommandError, Problem, parse_click, parse_customer, parse_event
from exponea_async.sandbox.encoding import dumps
from exponea_async.sandbox.journal import MAX_BYTES, MAX_ENTRIES, Entry, Journal, Kind, encode_data
from exponea_async.sandbox.models import CustomerView, RejectedCommand, StoredEvent
from exponea_async.sandbox.projects import UNKNOWN_CUSTOMER, ProjectData, ProjectSummary

MAX_REJECTED = 1000
MAX_SUMMARY_LENGTH = 300
# A tuple, since the name in a command can be any value, including an unhashable one.
BATCH_COMMANDS = ("customers", "customers/events", "system/time")
INJECTED_ERRORS = ("rejected by fault injection",)
KINDS: Mapping[str, Kind] = {"customers/events": "event", "customers": "customer", "campaigns/clicks": "click"}
Paths = tuple[tuple[str, ...], ...]


class Engine:
    """
    The state of all projects, and the commands that change it.

    Args:
        seed: The seed for the order in which the commands of a batch are executed.
        clock: Returns the current time, UNIX seconds.
        max_entries: The number of commands that are kept. The oldest are forgotten, and the events of these with them;
            an event that is sent again after that is not a duplicate. Counts include what was forgotten.
        max_bytes: The memory that these commands may take, about, in bytes.

    Attributes:
        journal: The log of the commands.

    Raises:
        ValueError: A limit is less than 1.
    """

    def __init__(
        self,
        *,
        seed: int = 0,
        clock: Callable[[], float] = time.time,
        max_entries: int = MAX_ENTRIES,
        max_bytes: int = MAX_BYTES,
    ) -> None:
        self._clock = clock
        self._seed = seed
        self.journal = Journal(max_entries, max_bytes, self._forget)
        self.reset()

    def reset(self) -> None:
        """Delete all projects, customers, events and counts."""
        self._random = random.Random(self._seed)  # noqa: S311
        self._projects: dict[str, ProjectData] = {}
        self.journal.reset()
        self._rejected: deque[RejectedCommand] = deque(maxlen=MAX_REJECTED)

    def now(self) -> float:
        """Return the time of the platform, UNIX seconds."""
        return self._clock()

    def execute(self, project: str, name: str, data: object, *, request: int | None = None) -> tuple[str, ...]:
        """
        Execute one command.

        Args:
            project: The token of the project.
            name: The name: ``customers``, ``customers/events`` or ``campaigns/clicks``.
            data: The data as sent.
            request: The number of the request with the command.

        Returns:
            The error messages; empty on success. A duplicate event is a success, and is counted.
        """
        target = self._project_data(project)
        entry = self._entry(target, name, request)
        try:
            self._apply(target, name, data, entry)
        except CommandError as error:
            self._reject(entry, name, data, error.errors, error.paths)
            return error.errors
        self.journal.append(entry)
        return ()

    def execute_batch(
        self,
        project: str,
        commands: Iterable[object],
        is_rejected: Callable[[], bool] = lambda: False,
        *,
        request: int | None = None,
    ) -> list[dict[str, Any]]:
        """
        Execute the commands of a batch in a random order.

        Args:
            project: The token of the project.
            commands: The commands as sent.
            is_rejected: Called once per command, in the order given; the command fails if it returns True.
            request: The number of the request with the batch.

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
            results[position] = self._execute_in_batch(project, command, request, rejected=rejected)
        return results

    def reject(
        self, project: str, name: str, data: object, errors: tuple[str, ...], *, request: int | None = None
    ) -> None:
        """Store a rejected command."""
        self._reject(self._entry(self._project_data(project), name, request), name, data, errors, ())

    def projects(self) -> list[str]:
        """Return the tokens of all projects that have received a command."""
        return sorted(self._projects)

    def events(self, project: str | None = None, event_type: str | None = None) -> list[StoredEvent]:
        """Return the events of one project or of all, of one type or of all, in order of arrival, as far as kept."""
        return [self._stored(entry) for entry in self.event_entries(project, event_type)]

    def event_entries(self, project: str | None = None, event_type: str | None = None) -> Iterator[Entry]:
        """Iterate over the entries of the same events, which are not decoded."""
        return (
            entry
            for entry in self.journal.log
            if entry.digest is not None
            and (project is None or entry.project == project)
            and (event_type is None or entry.name == event_type)
        )

    def event(self, entry: Entry) -> StoredEvent:
        """Return the event of an entry."""
        return self._projects[entry.project].event(entry)

    def current_customer(self, entry: Entry) -> int:
        """Return the key of the customer that an entry belongs to now; 0 without a customer."""
        return self._projects[entry.project].customers.current_key(entry.customer)

    def customer_keys(self, value: str, key: int | None) -> set[tuple[str, int]]:
        """Return the projects and keys of the customers that have any id with this value, or have this key."""
        found = {
            (project, customer.key)
            for project, data in self._projects.items()
            for customer in data.customers.with_value(value)
        }
        if key is not None:
            found |= {(project, data.customers.current_key(key)) for project, data in self._projects.items()}
        return found

    def data_of(self, project: str) -> ProjectData | None:
        """Return the data of a project; None where it has not received a command."""
        return self._projects.get(project)

    def customers(self, project: str | None = None) -> list[CustomerView]:
        """Return the customers of one project or of all, oldest first."""
        # Copied first, here and in view(): the tests of an application read this in another thread than the server's.
        return [data.view(customer) for data in self.selected(project) for customer in list(data.customers)]

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

    def link(self, project: str, ids: dict[str, str], *, request: int | None = None) -> tuple[str, ...]:
        """Merge the customers with these ids into one; return the error messages, empty on success."""
        target = self._project_data(project)
        entry = self._entry(target, "link-ids", request)
        entry.raw = encode_data({"customer_ids": ids})
        try:
            target.link(ids, entry)
        except CommandError as error:
            entry.verdict, entry.errors, entry.paths = "rejected", error.errors, error.paths
        self.journal.append(entry)
        return entry.errors

    def mark_read(
        self, project: str, ids: dict[str, str], messages: Iterable[str], *, request: int | None = None
    ) -> None:
        """Store that a customer has read messages of the inbox; an unknown customer is created."""
        messages = list(messages)
        target = self._project_data(project)
        entry = self._entry(target, "markasread", request)
        entry.raw = encode_data({"customer_ids": ids, "message_ids": messages})
        target.mark_read(ids, messages, entry)
        self.journal.append(entry)

    def summary(self) -> dict[str, ProjectSummary]:
        """Return the counts of each project."""
        return {
            project: ProjectSummary(data.events, len(data.customers), data.duplicates, data.rejected)
            for project, data in sorted(self._projects.items())
        }

    @property
    def forgotten(self) -> int:
        """The number of commands that are no longer kept, and neither are their events."""
        return self.journal.log.forgotten

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
            data = self._projects[project] = ProjectData(project, self.journal.log)
        return data

    def selected(self, project: str | None) -> Iterable[ProjectData]:
        """Return the data of one project, or of all where None."""
        if project is None:
            return self._projects.values()
        return [self._projects[project]] if project in self._projects else []

    def _apply(self, project: ProjectData, name: str, data: object, entry: Entry) -> None:
        if name == "customers/events":
            command = parse_event(data)
            # Few different types are shared by many entries.
            entry.name = intern(command.event_type)
            project.add_event(command, entry)
        elif name == "customers":
            project.update_customer(parse_customer(data), entry)
        elif name == "campaigns/clicks":
            project.add_event(parse_click(data), entry)
        else:
            raise CommandError([Problem("Unknown command.", ("name",))])

    def _entry(self, project: ProjectData, name: str, request: int | None) -> Entry:
        kind = KINDS.get(name, "other")
        label = kind if kind == "customer" else CLICK if kind == "click" else name
        return Entry(self.journal.log.next, self.now(), project.project, kind, label, request)

    def _reject(self, entry: Entry, name: str, data: object, errors: tuple[str, ...], paths: Paths) -> None:
        self._projects[entry.project].rejected += 1
        self._rejected.append(RejectedCommand(entry.project, name, _summary(data), errors, entry.received))
        entry.raw, entry.verdict, entry.errors, entry.paths = encode_data(data), "rejected", errors, paths
        if entry.kind == "event":
            # If the data can't be encoded, the type may be the reason.
            fields = data if isinstance(data, dict) and entry.raw is not None else {}
            event_type = fields.get("event_type")
            entry.name = event_type if isinstance(event_type, str) else ""
        self.journal.append(entry)

    def _forget(self, entry: Entry) -> None:
        self._projects[entry.project].forget(entry)

    def _stored(self, entry: Entry) -> StoredEvent:
        # Kept, since whoever asks for all events asks again. Over HTTP nothing is kept.
        entry.stored = self.event(entry)
        return entry.stored

    def _execute_in_batch(
        self, project: str, command: object, request: int | None, *, rejected: bool
    ) -> dict[str, Any]:
        if not isinstance(command, dict):
            return self._failure(project, "", command, ("A command should be an object.",), request)
        command_id = command.get("command_id")
        if command_id is not None and not isinstance(command_id, str | int):
            return self._failure(project, "", command, ("command_id should be a string.",), request)
        result = self._result(project, command.get("name"), command.get("data"), request, rejected=rejected)
        return result if command_id is None else {**result, "command_id": command_id}

    def _result(
        self, project: str, name: object, data: object, request: int | None, *, rejected: bool
    ) -> dict[str, Any]:
        # The batch of the platform doesn't support campaign clicks, which have a route of their own.
        if name not in BATCH_COMMANDS:
            return self._failure(project, name if isinstance(name, str) else "", data, ("Unknown command.",), request)
        if rejected:
            return self._failure(project, str(name), data, INJECTED_ERRORS, request)
        if name == "system/time":
            return {"success": True, "time": self.now()}
        errors = self.execute(project, str(name), data, request=request)
        return {"success": False, "errors": errors} if errors else {"success": True}

    def _failure(
        self, project: str, name: str, data: object, errors: tuple[str, ...], request: int | None
    ) -> dict[str, Any]:
        self.reject(project, name, data, errors, request=request)
        return {"success": False, "errors": errors}


def _summary(data: object) -> str:
    try:
        summary = dumps(data).decode()
    except ValueError:
        return "(not JSON)"
    return summary if len(summary) <= MAX_SUMMARY_LENGTH else summary[:MAX_SUMMARY_LENGTH] + "…"
