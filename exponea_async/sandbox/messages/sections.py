"""
Where definitions are kept: in order, some for one project only. No I/O.
"""

from collections.abc import Callable, Iterator, Mapping
from copy import deepcopy
from typing import Any

from attrs import frozen

from exponea_async.sandbox.messages.personalisation import CONDITION, applies, delivered
from exponea_async.sandbox.models import CustomerView

Check = Callable[[Any, str], None]
Defaults = Callable[[], Mapping[str, Any]]


@frozen(eq=False)
class Entry:
    """
    One definition.

    Attributes:
        element: What was handed over.
        project: The token of the only project that has it; None where each has.
        id: Its id, if it has one that can be told.
        checked: Whether it was checked; another of the same id then takes its place.
    """

    element: Any
    project: str | None
    id: str | None
    checked: bool


class Section:
    """
    The definitions of one kind, such as the in-app messages.

    Args:
        name: What it is called in errors.
        check: Refuses wrong elements.
        id_name: The field that holds an element's id.
        defaults: The fields that an element gets where it doesn't have them.
    """

    def __init__(self, name: str, check: Check, *, id_name: str = "id", defaults: Defaults = dict) -> None:
        self._name = name
        self._check = check
        self._id_name = id_name
        self._defaults = defaults
        self._entries: list[Entry] = []

    def put(
        self, *elements: Any, project: str | None = None, to: Mapping[str, Any] | None = None, check: bool = True
    ) -> None:
        """
        Defines elements; one whose id and condition are there already takes the place of that.

        Args:
            elements: Objects with the keys of the wire and, if one is not for everybody, ``for``; or callables that
                are given a `CustomerView` and return such an object, a list of them, or None for nothing.
            project: The token of the only project that has them; each has where None.
            to: Whom they are for, such as ``{"registered": "jane@x.com"}``.
            check: Whether they have to be right; else anything is taken, next to others of the same id, and sent as it
                is, but for ``for`` and placeholders.

        Raises:
            DefinitionError: An element is wrong. None was defined.
        """
        entries = []
        for number, each in enumerate(elements):
            element = each if to is None else _addressed(each, to)
            if check:
                self.check(element if isinstance(each, Mapping) else each, f"{self._name}[{number}]")
            entries.append(self._entry(element, project, checked=check))
        for entry in entries:
            self._keep(entry)

    def check(self, element: Any, place: str) -> None:
        """
        Checks an element, and does nothing else.

        Raises:
            DefinitionError: It is wrong.
        """
        self._check(element, place)

    def change(self, id_: str, fields: Mapping[str, Any], *, project: str | None = None) -> None:
        """
        Changes some fields of an element.

        Args:
            id_: Its id.
            fields: The fields with their new values.
            project: As it was defined.

        Raises:
            KeyError: There is no such element.
            DefinitionError: It would be wrong. Nothing was changed.
        """
        wanted = [entry for entry in self._entries if entry.id == id_ and entry.project == project]
        if not wanted:
            raise KeyError(id_)
        changed = {
            id(entry): self._entry({**entry.element, **fields}, project, checked=entry.checked) for entry in wanted
        }
        for entry in changed.values():
            if entry.checked:
                self.check(entry.element, f"{self._name}[{id_}]")
        self._entries = [changed.get(id(entry), entry) for entry in self._entries]

    def remove(self, which: str | Callable[..., Any], *, project: str | None = None) -> None:
        """
        Takes an element away.

        Args:
            which: Its id, or the callable that it is.
            project: As it was defined.

        Raises:
            KeyError: There is no such element.
        """
        gone = [
            entry
            for entry in self._entries
            if entry.project == project and (entry.id == which or entry.element is which)
        ]
        if not gone:
            raise KeyError(which)
        self._entries = [entry for entry in self._entries if entry not in gone]

    def clear(self) -> None:
        """Takes all elements away, of all projects."""
        self._entries = []

    def of(self, project: str) -> list[Entry]:
        """Tells what a project has: its own, and those of all whose id it doesn't have itself."""
        own = {entry.id for entry in self._entries if entry.project == project and entry.id is not None}
        return [
            entry
            for entry in self._entries
            if entry.project == project or (entry.project is None and entry.id not in own)
        ]

    def delivered(self, project: str, customer: CustomerView) -> list[Any]:
        """Makes what a customer gets; of several with one id, the first that is for it."""
        seen: set[str] = set()
        told = []
        for entry in self.of(project):
            if entry.checked and entry.id in seen:
                continue
            made = delivered(entry.element, customer)
            told += made
            if made and entry.id is not None:
                seen.add(entry.id)
        return told

    def elements(self, project: str) -> list[Any]:
        """Tells what a project has without a look at any customer; of several with one id, the first."""
        seen: set[str] = set()
        told = []
        for entry in self.of(project):
            if not callable(entry.element) and not (entry.checked and entry.id in seen):
                told.append(entry.element)
            if entry.id is not None:
                seen.add(entry.id)
        return told

    def told(self, project: str | None) -> list[Any]:
        """Tells the elements that were defined for just this project, or for all where None."""
        return [deepcopy(entry.element) for entry in self._entries if entry.project == project]

    @property
    def is_empty(self) -> bool:
        """Whether nothing is defined, for no project."""
        return not self._entries

    def projects(self) -> Iterator[str]:
        """Tells the projects that have elements of their own."""
        yield from (entry.project for entry in self._entries if entry.project is not None)

    def _entry(self, element: Any, project: str | None, *, checked: bool) -> Entry:
        kept = deepcopy(element)
        if not isinstance(kept, Mapping):
            return Entry(kept, project, None, checked)
        if checked:
            kept = {**self._defaults(), **kept}
        id_ = kept.get(self._id_name)
        return Entry(kept, project, id_ if isinstance(id_, str) else None, checked)

    def _keep(self, entry: Entry) -> None:
        for number, other in enumerate(self._entries):
            if _same(entry, other):
                self._entries[number] = entry
                return
        self._entries.append(entry)


class Groups:
    """
    Sections by a name, such as the segments of each category; each comes into being when it is asked for.

    Args:
        make: Makes the section of a name.
    """

    def __init__(self, make: Callable[[str], Section]) -> None:
        self._make = make
        self._sections: dict[str, Section] = {}

    def __getitem__(self, name: str) -> Section:
        if name not in self._sections:
            self._sections[name] = self._make(name)
        return self._sections[name]

    def names(self, project: str) -> list[str]:
        """Tells the names under which a project has anything; also those that are there, but empty for all."""
        return [name for name, section in self._sections.items() if section.is_empty or section.of(project)]

    def check(self, name: str, element: Any, place: str) -> None:
        """
        Checks an element for the section of a name, and does nothing else.

        Raises:
            DefinitionError: It is wrong.
        """
        self._make(name).check(element, place)

    def delivered(self, name: str, project: str, customer: CustomerView) -> list[Any]:
        """Makes what a customer gets of the section of a name, if there is one."""
        section = self._sections.get(name)
        return [] if section is None else section.delivered(project, customer)

    def items(self) -> list[tuple[str, Section]]:
        """Tells all sections with their names."""
        return list(self._sections.items())

    def clear(self) -> None:
        """Takes all elements away, of all projects."""
        self._sections.clear()


def _addressed(element: Any, to: Mapping[str, Any]) -> Any:
    if isinstance(element, Mapping):
        return {**element, CONDITION: dict(to)}
    return lambda customer: delivered(element, customer) if applies(to, customer) else None


def _same(entry: Entry, other: Entry) -> bool:
    if entry.id is None or (entry.id, entry.project) != (other.id, other.project):
        return False
    both_checked = entry.checked and other.checked
    return both_checked and bool(entry.element.get(CONDITION) == other.element.get(CONDITION))
