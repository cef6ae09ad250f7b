"""
The storage of definitions: in order, and some for one project only. No I/O.
"""

from collections.abc import Callable, Iterator, Mapping
from copy import deepcopy
from typing import Any

from attrs import frozen

from exponea_async.sandbox.messages.personalisation import CONDITION, is_met, personalise
from exponea_async.sandbox.models import CustomerView

Check = Callable[[Any, str], None]
Defaults = Callable[[], Mapping[str, Any]]


@frozen(eq=False)
class Entry:
    """
    One stored definition.

    Attributes:
        element: The object, callable or unchecked value that was defined.
        project: The token of the only project that has it; None where every project has it.
        id: The id of the element; None where it has none.
        checked: Whether the element was checked; a checked element replaces another one with the same id.
    """

    element: Any
    project: str | None
    id: str | None
    checked: bool


class Section:
    """
    The definitions of one kind, such as the in-app messages.

    Args:
        name: The name in errors.
        check: Raises for an invalid element; called with the element and its path.
        id_name: The field with the id of an element.
        defaults: Returns the values of fields that an element doesn't have.
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
        Define elements; an element replaces the one with the same id and condition.

        Args:
            elements: Objects with the keys of the API and, if an element is not for every customer, ``for``; or
                callables that take a `CustomerView` and return such an object, a list of them, or None for nothing.
            project: The token of the only project that has them; every project where None.
            to: The condition that customers have to meet, such as ``{"registered": "jane@x.com"}``.
            check: Whether to check the elements. Without it, any value is accepted, also next to others with the same
                id, and sent unchanged except for ``for`` and placeholders.

        Raises:
            DefinitionError: An element is invalid. Nothing was defined.
        """
        entries = []
        for number, each in enumerate(elements):
            element = each if to is None else _with_condition(each, to)
            if check:
                self.check(element if isinstance(each, Mapping) else each, f"{self._name}[{number}]")
            entries.append(self._entry(element, project, checked=check))
        for entry in entries:
            self._store(entry)

    def check(self, element: Any, path: str) -> None:
        """
        Check an element without defining it.

        Raises:
            DefinitionError: The element is invalid.
        """
        self._check(element, path)

    def change(self, id_: str, fields: Mapping[str, Any], *, project: str | None = None) -> None:
        """
        Change some fields of an element.

        Args:
            id_: The id of the element.
            fields: The fields with their new values.
            project: The project for which the element was defined; None where it was for every project.

        Raises:
            KeyError: There is no such element.
            DefinitionError: The changed element would be invalid. Nothing was changed.
        """
        found = [entry for entry in self._entries if entry.id == id_ and entry.project == project]
        if not found:
            raise KeyError(id_)
        changed = {
            id(entry): self._entry({**entry.element, **fields}, project, checked=entry.checked) for entry in found
        }
        for entry in changed.values():
            if entry.checked:
                self.check(entry.element, f"{self._name}[{id_}]")
        self._entries = [changed.get(id(entry), entry) for entry in self._entries]

    def remove(self, which: str | Callable[..., Any], *, project: str | None = None) -> None:
        """
        Remove an element.

        Args:
            which: The id of the element, or the callable itself.
            project: The project for which the element was defined; None where it was for every project.

        Raises:
            KeyError: There is no such element.
        """
        removed = [
            entry
            for entry in self._entries
            if entry.project == project and (entry.id == which or entry.element is which)
        ]
        if not removed:
            raise KeyError(which)
        self._entries = [entry for entry in self._entries if entry not in removed]

    def clear(self) -> None:
        """Remove all elements of all projects."""
        self._entries = []

    def entries(self, project: str) -> list[Entry]:
        """Return the entries of a project: its own, and those for every project whose id it doesn't have itself."""
        own_ids = {entry.id for entry in self._entries if entry.project == project and entry.id is not None}
        return [
            entry
            for entry in self._entries
            if entry.project == project or (entry.project is None and entry.id not in own_ids)
        ]

    def for_customer(self, project: str, customer: CustomerView) -> list[Any]:
        """Return what a customer gets; of several elements with one id, the first whose condition is met."""
        found_ids: set[str] = set()
        result = []
        for entry in self.entries(project):
            if entry.checked and entry.id in found_ids:
                continue
            personalised = personalise(entry.element, customer)
            result += personalised
            if personalised and entry.id is not None:
                found_ids.add(entry.id)
        return result

    def elements(self, project: str) -> list[Any]:
        """Return the elements of a project for no particular customer; of several with one id, the first."""
        found_ids: set[str] = set()
        result = []
        for entry in self.entries(project):
            if not callable(entry.element) and not (entry.checked and entry.id in found_ids):
                result.append(entry.element)
            if entry.id is not None:
                found_ids.add(entry.id)
        return result

    def as_list(self, project: str | None) -> list[Any]:
        """Return copies of the elements that were defined for this project only, or for every project where None."""
        return [deepcopy(entry.element) for entry in self._entries if entry.project == project]

    @property
    def is_empty(self) -> bool:
        """Whether nothing is defined for any project."""
        return not self._entries

    def projects(self) -> Iterator[str]:
        """Iterate over the projects that have elements of their own."""
        yield from (entry.project for entry in self._entries if entry.project is not None)

    def _entry(self, element: Any, project: str | None, *, checked: bool) -> Entry:
        copied = deepcopy(element)
        if not isinstance(copied, Mapping):
            return Entry(copied, project, None, checked)
        if checked:
            copied = {**self._defaults(), **copied}
        id_ = copied.get(self._id_name)
        return Entry(copied, project, id_ if isinstance(id_, str) else None, checked)

    def _store(self, entry: Entry) -> None:
        for number, other in enumerate(self._entries):
            if _replaces(entry, other):
                self._entries[number] = entry
                return
        self._entries.append(entry)


class SectionGroup:
    """
    Sections by name, such as the segments of each category; a section is created when it is first used.

    Args:
        create: Creates the section of a name.
    """

    def __init__(self, create: Callable[[str], Section]) -> None:
        self._create = create
        self._sections: dict[str, Section] = {}

    def __getitem__(self, name: str) -> Section:
        if name not in self._sections:
            self._sections[name] = self._create(name)
        return self._sections[name]

    def put(self, name: str, *elements: Any, project: str | None = None) -> None:
        """
        Define elements in the section of a name, which exists from then on, even without elements.

        Raises:
            DefinitionError: An element is invalid. Nothing was defined.
        """
        self[name].put(*elements, project=project)

    def names(self, project: str) -> list[str]:
        """Return the names of the sections with elements of a project, and of those that are empty for all."""
        return [name for name, section in self._sections.items() if section.is_empty or section.entries(project)]

    def check(self, name: str, element: Any, path: str) -> None:
        """
        Check an element for the section of a name without defining it.

        Raises:
            DefinitionError: The element is invalid.
        """
        self._create(name).check(element, path)

    def for_customer(self, name: str, project: str, customer: CustomerView) -> list[Any]:
        """Return what a customer gets of the section of a name; nothing where there is no such section."""
        section = self._sections.get(name)
        return [] if section is None else section.for_customer(project, customer)

    def items(self) -> list[tuple[str, Section]]:
        """Return all sections with their names."""
        return list(self._sections.items())

    def clear(self) -> None:
        """Remove all sections."""
        self._sections.clear()


def _with_condition(element: Any, condition: Mapping[str, Any]) -> Any:
    if isinstance(element, Mapping):
        return {**element, CONDITION: dict(condition)}
    return lambda customer: personalise(element, customer) if is_met(condition, customer) else None


def _replaces(entry: Entry, other: Entry) -> bool:
    if entry.id is None or (entry.id, entry.project) != (other.id, other.project):
        return False
    both_checked = entry.checked and other.checked
    return both_checked and bool(entry.element.get(CONDITION) == other.element.get(CONDITION))
