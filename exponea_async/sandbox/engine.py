"""
The books of the sandbox: what every command would leave in the platform. No I/O.
"""

import random
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from hashlib import blake2b
from itertools import count
from typing import Any

from attrs import evolve, frozen

from exponea_async.sandbox import push_tokens as push
from exponea_async.sandbox.commands import Command, CommandError, read_click, read_customer, read_event
from exponea_async.sandbox.encoding import dumps
from exponea_async.sandbox.identity import COOKIE, Profile, Profiles
from exponea_async.sandbox.models import CustomerView, PushToken, RejectedCommand, StoredEvent

MAX_REJECTED = 1000
SUMMARY_CHARACTERS = 300
NOBODY = 0
# A tuple, since a name can be anything, a list too.
BATCH_COMMANDS = ("customers", "customers/events", "system/time")
INJECTED = ("rejected by fault injection",)


class Book:
    """One project: its customers, and its events in order of arrival."""

    def __init__(self, project: str) -> None:
        self.project = project
        self.profiles = Profiles()
        self.events: dict[int, StoredEvent] = {}
        self.duplicates = 0
        self.rejected = 0
        self._nobody = Profile(NOBODY)
        self._owners = push.Owners()

    def update(self, command: Command, now: float) -> None:
        """Applies an update of a customer."""
        profile = self._admit(command.ids)
        moment = now if command.at is None else command.at
        profile.update((name, (value, moment)) for name, value in command.properties.items())
        self._note(profile, push.told_by_properties(command.properties, moment))

    def add(self, command: Command, now: float, number: int) -> None:
        """Stores an event, unless its customer already has the very same one."""
        profile = self._admit(command.ids) if command.ids else self._nobody
        timestamp = float(now if command.at is None else command.at)
        digest = _digest(command, timestamp)
        if digest in profile.events:
            self.duplicates += 1
            return
        profile.events[digest] = number
        self.events[number] = StoredEvent(
            self.project, profile.key, command.ids, command.event_type, timestamp, command.properties, now
        )
        self._note(profile, push.told_by_event(command.event_type, command.properties, timestamp))

    def views(self) -> list[CustomerView]:
        """Tells all customers, oldest first."""
        return [self.view(profile) for profile in self.profiles]

    def view(self, profile: Profile) -> CustomerView:
        """Tells one customer."""
        ids: dict[str, tuple[str, ...]] = {kind: (value,) for kind, value in profile.hard.items()}
        if profile.cookies:
            ids[COOKIE] = tuple(profile.cookies)
        properties = {name: value for name, (value, _) in profile.properties.items()}
        tokens = self._owners.shown(profile.tokens)
        read = tuple(profile.read)
        return CustomerView(self.project, profile.key, ids, properties, len(profile.events), tokens, read)

    def link(self, ids: dict[str, str]) -> None:
        """Makes the owners of these ids one customer."""
        self._admit(ids)

    def mark_read(self, ids: dict[str, str], messages: Iterable[str]) -> None:
        """Writes down that a customer has read messages of its inbox."""
        # Ids of whom nothing is recognized can't be in conflict.
        profile = self.profiles.recognize(ids) or self._admit(ids)
        profile.read.update(dict.fromkeys(messages))

    def _note(self, profile: Profile, fresh: Iterable[PushToken]) -> None:
        told = tuple(fresh)
        push.note(profile.tokens, told)
        self._owners.note(told)

    def _admit(self, ids: dict[str, str]) -> Profile:
        profile, absorbed = self.profiles.admit(ids)
        for other in absorbed:
            self._move_events(profile, other)
        return profile

    def _move_events(self, profile: Profile, other: Profile) -> None:
        for digest, number in other.events.items():
            if digest in profile.events:
                # Two halves of one customer told the same: it happened once.
                del self.events[number]
                self.duplicates += 1
            else:
                profile.events[digest] = number
                self.events[number] = evolve(self.events[number], customer=profile.key)


@frozen
class ProjectSummary:
    """The counts of one project."""

    events: int
    customers: int
    duplicates: int
    rejected: int


class Engine:
    """
    All projects' books, and the commands that write into them.

    Args:
        seed: Of the order in which the commands of a batch are carried out.
        clock: Tells the UNIX second.
    """

    def __init__(self, *, seed: int = 0, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._seed = seed
        self.reset()

    def reset(self) -> None:
        """Empties the books."""
        self._random = random.Random(self._seed)  # noqa: S311
        self._books: dict[str, Book] = {}
        self._numbers = count(1)
        self._rejected: deque[RejectedCommand] = deque(maxlen=MAX_REJECTED)

    def now(self) -> float:
        """Tells the platform's time, UNIX seconds."""
        return self._clock()

    def execute(self, project: str, name: str, data: object) -> tuple[str, ...]:
        """
        Carries out one command: ``customers``, ``customers/events`` or ``campaigns/clicks``.

        Returns:
            Its errors; none where it succeeded. A duplicate event succeeds, and is counted.
        """
        book = self._book(project)
        try:
            self._write(book, name, data)
        except CommandError as error:
            self.reject(project, name, data, error.errors)
            return error.errors
        return ()

    def execute_batch(
        self, project: str, commands: Iterable[object], refused: Callable[[], bool] = lambda: False
    ) -> list[dict[str, Any]]:
        """
        Carries out the commands of a batch in an order of its own.

        Args:
            project: The token of the project.
            commands: The commands as sent.
            refused: Asked once per command, in the order given; where true, that command fails.

        Returns:
            One result per command, in the order given.
        """
        waiting = [(command, refused()) for command in commands]
        order = list(range(len(waiting)))
        # The platform promises no order, and a client that leans on one should notice here.
        self._random.shuffle(order)
        results: list[dict[str, Any]] = [{}] * len(waiting)
        for position in order:
            results[position] = self._result(project, *waiting[position])
        return results

    def reject(self, project: str, name: str, data: object, errors: tuple[str, ...]) -> None:
        """Writes down a command that was refused."""
        self._book(project).rejected += 1
        self._rejected.append(RejectedCommand(project, name, _summary(data), errors, self.now()))

    def projects(self) -> list[str]:
        """Tells the tokens of all projects that have been written to."""
        return sorted(self._books)

    def events(self, project: str | None = None, event_type: str | None = None) -> list[StoredEvent]:
        """Tells the stored events in order of arrival, of one project or type or of all."""
        numbered = [pair for book in self._chosen(project) for pair in book.events.items()]
        if project is None:
            numbered.sort(key=lambda pair: pair[0])
        return [event for _, event in numbered if event_type is None or event.event_type == event_type]

    def customers(self, project: str | None = None) -> list[CustomerView]:
        """Tells the customers of one project or of all, oldest first."""
        return [view for book in self._chosen(project) for view in book.views()]

    def customer(self, project: str, ids: dict[str, str]) -> CustomerView | None:
        """Finds a customer by any of the ids, a hard one before the cookie."""
        book = self._books.get(project)
        profile = book.profiles.find(ids) if book else None
        return book.view(profile) if book and profile else None

    def recognize(self, project: str, ids: Mapping[str, str]) -> CustomerView:
        """
        Tells the customer who asks for something with these ids, which are added to those known of it.

        Whom the books don't know has the key 0.
        """
        book = self._books.get(project)
        profile = book.profiles.recognize(ids) if book else None
        view = CustomerView(project, NOBODY, {}, {}, 0) if book is None or profile is None else book.view(profile)
        fresh = {kind: (value,) for kind, value in ids.items() if kind not in view.ids}
        return evolve(view, ids={**view.ids, **fresh})

    def link(self, project: str, ids: dict[str, str]) -> tuple[str, ...]:
        """Makes the owners of these ids one customer; tells the errors, none where it succeeded."""
        try:
            self._book(project).link(ids)
        except CommandError as error:
            return error.errors
        return ()

    def mark_read(self, project: str, ids: dict[str, str], messages: Iterable[str]) -> None:
        """Writes down that a customer has read messages of its inbox; one that the books don't know is created."""
        self._book(project).mark_read(ids, messages)

    def summary(self) -> dict[str, ProjectSummary]:
        """Tells the counts of each project."""
        return {
            project: ProjectSummary(len(book.events), len(book.profiles), book.duplicates, book.rejected)
            for project, book in sorted(self._books.items())
        }

    @property
    def duplicates(self) -> int:
        """How many events were not stored because their customer had the very same one."""
        return sum(book.duplicates for book in self._books.values())

    @property
    def rejected(self) -> list[RejectedCommand]:
        """The latest 1,000 refused commands, oldest first."""
        return list(self._rejected)

    @property
    def rejected_count(self) -> int:
        """How many commands were refused."""
        return sum(book.rejected for book in self._books.values())

    def _book(self, project: str) -> Book:
        book = self._books.get(project)
        if book is None:
            book = self._books[project] = Book(project)
        return book

    def _chosen(self, project: str | None) -> Iterable[Book]:
        if project is None:
            return self._books.values()
        return [self._books[project]] if project in self._books else []

    def _write(self, book: Book, name: str, data: object) -> None:
        if name == "customers/events":
            book.add(read_event(data), self.now(), next(self._numbers))
        elif name == "customers":
            book.update(read_customer(data), self.now())
        elif name == "campaigns/clicks":
            book.add(read_click(data), self.now(), next(self._numbers))
        else:
            raise CommandError(["Unknown command."])

    def _result(self, project: str, command: object, refused: bool) -> dict[str, Any]:  # noqa: FBT001
        if not isinstance(command, dict):
            return self._failure(project, "", command, ("A command should be an object.",))
        mark = command.get("command_id")
        if mark is not None and not isinstance(mark, str | int):
            return self._failure(project, "", command, ("command_id should be a string.",))
        result = self._outcome(project, command.get("name"), command.get("data"), refused)
        return result if mark is None else {**result, "command_id": mark}

    def _outcome(self, project: str, name: object, data: object, refused: bool) -> dict[str, Any]:  # noqa: FBT001
        # A click is a request of its own; the platform's batch doesn't know it.
        if name not in BATCH_COMMANDS:
            return self._failure(project, name if isinstance(name, str) else "", data, ("Unknown command.",))
        if refused:
            return self._failure(project, str(name), data, INJECTED)
        if name == "system/time":
            return {"success": True, "time": self.now()}
        errors = self.execute(project, str(name), data)
        return {"success": False, "errors": errors} if errors else {"success": True}

    def _failure(self, project: str, name: str, data: object, errors: tuple[str, ...]) -> dict[str, Any]:
        self.reject(project, name, data, errors)
        return {"success": False, "errors": errors}


def _digest(command: Command, timestamp: float) -> bytes:
    head = f"{command.event_type}\0{timestamp!r}\0".encode()
    return blake2b(head + command.canonical, digest_size=16).digest()


def _summary(data: object) -> str:
    try:
        text = dumps(data).decode()
    except ValueError:
        return "(no JSON)"
    return text if len(text) <= SUMMARY_CHARACTERS else text[:SUMMARY_CHARACTERS] + "…"
