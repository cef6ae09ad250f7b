"""
From a line of a file to an event: the meaning of the columns.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from attrs import frozen

from exponea_async.cli.importer.reader import Line
from exponea_async.cli.importer.timestamps import TimestampFormat
from exponea_async.cli.terminal import UsageError
from exponea_async.models import Customer, Event

#: The ids of a customer, and an event of this customer.
CustomerEvent = tuple[Mapping[str, str], Event]

#: What separates columns where it is not the comma, as it is written on the command line.
DELIMITERS = {";": "';'", "|": "'|'", "\t": "tab"}

_INTEGER = re.compile(r"[+-]?\d{1,19}", re.ASCII)
_NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d{1,3})?", re.ASCII)


def _integer(value: Any) -> int | None:
    string = str(value).strip()
    if not string:
        return None
    if not _INTEGER.fullmatch(string):
        raise ValueError(f"must be an integer, got {string[:60]!r}")
    return int(string)


def _number(value: Any) -> int | float | None:
    string = str(value).strip()
    if not string:
        return None
    if not _NUMBER.fullmatch(string):
        raise ValueError(f"must be a number, got {string[:60]!r}")
    return int(string) if _INTEGER.fullmatch(string) else float(string)


def _string(value: Any) -> str:
    if isinstance(value, dict | list):
        raise ValueError(f"must be a string, got {value!r:.60}")  # noqa: TRY004 - a value of a file
    return str(value)


#: The types of ``--property NAME=COLUMN:TYPE``. An empty number is omitted; an empty string is an empty string.
TYPES: Mapping[str, Callable[[Any], Any]] = {"number": _number, "integer": _integer, "text": _string}


@frozen
class PropertySource:
    """
    Where the value of a property comes from.

    Attributes:
        name: The property.
        column: The column.
        type: A key of `TYPES`; None keeps the value as it is.
    """

    name: str
    column: str
    type: str | None = None

    def read(self, values: Mapping[str, Any]) -> Any:
        """
        Return the value of a line, or None without one.

        Raises:
            ValueError: The value does not have the type.
        """
        value = values.get(self.column)
        if value is None or self.type is None:
            return value
        try:
            return TYPES[self.type](value)
        except ValueError as error:
            raise ValueError(f"{self.column}: {error}") from None


@frozen
class ColumnMapping:
    """
    Which columns make up an event, or an update of a customer.

    Attributes:
        event: The type of all events, or None where `event_column` contains it.
        event_column: The column with the event type.
        is_customers: Whether each line is an update of a customer instead.
        ids: The columns with the ids of the customer, by kind of id.
        timestamp: The column with the timestamp; None for updates of customers.
        timestamp_format: The format of the timestamps.
        format_column: The column with the format of each timestamp, or None.
        properties: The properties of the event or the customer.
        line_number: The property for the line number, or None.
    """

    event: str | None
    event_column: str | None
    is_customers: bool
    ids: Mapping[str, str]
    timestamp: str | None
    timestamp_format: TimestampFormat
    format_column: str | None
    properties: Sequence[PropertySource]
    line_number: str | None

    def check_columns(self, columns: Sequence[str]) -> None:
        """
        Check that all columns exist.

        Raises:
            UsageError: A column does not exist.
        """
        needed = [
            *(("--id", column) for column in self.ids.values()),
            *([("--timestamp", self.timestamp)] if self.timestamp else []),
            *([("--timestamp-format-column", self.format_column)] if self.format_column else []),
            *(("--property", each.column) for each in self.properties),
            *([("--event-column", self.event_column)] if self.event_column else []),
        ]
        for option, column in needed:
            if column not in columns:
                hint = f"Choose one of {', '.join(map(repr, columns))}."
                for character, name in DELIMITERS.items() if len(columns) == 1 else ():
                    if character in columns[0]:
                        hint = f"The first line has one column, {columns[0]!r:.60}. Pass --delimiter {name}."
                raise UsageError(option, f"the file has no column {column!r}", hint)

    def read(self, line: Line) -> CustomerEvent | Customer:
        """
        Return the ids of the customer and the event of a line, or the update of a customer.

        Raises:
            ValueError: The line is invalid; the message names the column.
        """
        if line.error:
            raise ValueError(line.error)
        values = line.values
        ids = {kind: _identifier(values, column) for kind, column in self.ids.items()}
        event_type = _identifier(values, self.event_column) if self.event_column else self.event
        timestamp = self._timestamp(values)
        properties = {each.name: each.read(values) for each in self.properties}
        if self.line_number:
            properties[self.line_number] = line.number
        if self.is_customers:
            return Customer(ids, properties)
        return ids, Event(event_type or "", properties, timestamp)

    def _timestamp(self, values: Mapping[str, Any]) -> float | None:
        if self.timestamp is None:
            return None
        try:
            name = values.get(self.format_column) if self.format_column else None
            return self.timestamp_format.parse(_required(values, self.timestamp), name)
        except (ValueError, OverflowError, OSError) as error:
            raise ValueError(f"{self.timestamp}: {error}") from None


def _required(values: Mapping[str, Any], column: str) -> Any:
    value = values.get(column)
    if value is None or value == "":
        raise ValueError("is missing")
    return value


def _identifier(values: Mapping[str, Any], column: str) -> str:
    """Return the string or the integer of a column as a string."""
    value = values.get(column)
    if value is None or isinstance(value, bool) or not isinstance(value, str | int):
        raise ValueError(f"{column}: {'is missing' if value is None else f'must be a string, got {value!r:.60}'}")
    string = str(value).strip()
    if not string:
        raise ValueError(f"{column}: is missing")
    return string
