"""
From a line of a file to an event: which column means what.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from attrs import frozen

from exponea_async.cli.exits import UsageError
from exponea_async.cli.importer.reader import Line
from exponea_async.cli.importer.timestamps import Format
from exponea_async.models import Event

_INTEGER = re.compile(r"[+-]?\d{1,19}", re.ASCII)
_NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d{1,3})?", re.ASCII)


def _integer(value: Any) -> int | None:
    text = str(value).strip()
    if not text:
        return None
    if not _INTEGER.fullmatch(text):
        raise ValueError(f"{text[:60]!r} is no integer")
    return int(text)


def _number(value: Any) -> int | float | None:
    text = str(value).strip()
    if not text:
        return None
    if not _NUMBER.fullmatch(text):
        raise ValueError(f"{text[:60]!r} is no number")
    return int(text) if _INTEGER.fullmatch(text) else float(text)


def _text(value: Any) -> str:
    if isinstance(value, dict | list):
        raise ValueError(f"{value!r:.60} is no text")  # noqa: TRY004 - of a value from a file
    return str(value)


#: An empty number is left out; an empty text is an empty text.
TYPES: Mapping[str, Callable[[Any], Any]] = {"number": _number, "integer": _integer, "text": _text}


@frozen
class Source:
    """
    Where a property comes from.

    Attributes:
        name: The property.
        column: The column.
        type: A name of `TYPES`; None leaves the value as it is.
    """

    name: str
    column: str
    type: str | None = None

    def read(self, values: Mapping[str, Any]) -> Any:
        """
        Read it out of a line; None where there is nothing.

        Raises:
            ValueError: It is not of its type.
        """
        value = values.get(self.column)
        if value is None or self.type is None:
            return value
        try:
            return TYPES[self.type](value)
        except ValueError as error:
            raise ValueError(f"{self.column}: {error}") from None


@frozen
class Plan:
    """
    What becomes of a line.

    Attributes:
        event: The type of all events, or None where `event_column` tells it.
        event_column: The column that tells the event type.
        ids: The columns of the customer's ids, by kind.
        timestamp: The column that tells when.
        moments: How that is written.
        properties: The properties.
        line_number: The property that tells the line's number, or None.
    """

    event: str | None
    event_column: str | None
    ids: Mapping[str, str]
    timestamp: str
    moments: Format
    properties: Sequence[Source]
    line_number: str | None

    def check(self, columns: Sequence[str]) -> None:
        """
        Compare it with the columns that there are.

        Raises:
            UsageError: There is no such column.
        """
        wanted = [*self.ids.values(), self.timestamp, *(each.column for each in self.properties)]
        for name in [*wanted, *([self.event_column] if self.event_column else [])]:
            if name not in columns:
                raise UsageError(f"there is no column {name!r}; there are {', '.join(map(repr, columns))}")

    def carry_out(self, line: Line) -> tuple[Mapping[str, str], Event]:
        """
        Make a customer's ids and an event of a line.

        Raises:
            ValueError: Something is missing or wrong; says what.
        """
        if line.trouble:
            raise ValueError(line.trouble)
        values = line.values
        ids = {kind: _identifier(values, column) for kind, column in self.ids.items()}
        name = _identifier(values, self.event_column) if self.event_column else self.event
        try:
            at = self.moments.read(_needed(values, self.timestamp))
        except (ValueError, OverflowError, OSError) as error:
            raise ValueError(f"{self.timestamp}: {error}") from None
        properties = {each.name: each.read(values) for each in self.properties}
        if self.line_number:
            properties[self.line_number] = line.number
        return ids, Event(name or "", properties, at)


def _needed(values: Mapping[str, Any], column: str) -> Any:
    value = values.get(column)
    if value is None or value == "":
        raise ValueError("it is missing")
    return value


def _identifier(values: Mapping[str, Any], column: str) -> str:
    """Read what names somebody or something; a number does too."""
    value = values.get(column)
    if value is None or isinstance(value, bool) or not isinstance(value, str | int):
        raise ValueError(f"{column}: {'it is missing' if value is None else f'{value!r:.60} is no text'}")
    text = str(value).strip()
    if not text:
        raise ValueError(f"{column}: it is missing")
    return text
