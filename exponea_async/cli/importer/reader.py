"""
Files of many lines: JSON Lines, CSV and whitespace-separated columns, read line by line from any position.
"""

import csv
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

from attrs import field, frozen

from exponea_async.cli.terminal import UsageError

#: The maximum length of a line in bytes. An event has at most 800 KB, so a longer line can't be one.
MAX_LINE_BYTES = 2_000_000
#: Why a line of CSV is invalid that the end of the file interrupts.
UNCLOSED = "a quote is not closed"
BOM = b"\xef\xbb\xbf"

FORMATS = ("jsonl", "csv", "columns")
FORMAT_OF_SUFFIX = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "jsonl",
    ".csv": "csv",
    ".tsv": "csv",
    ".txt": "columns",
    ".dat": "columns",
}

Values = dict[str, Any]


@frozen
class Line:
    """
    A line with data. In CSV, where a quoted value may contain line breaks, it may span several lines of the file.

    Attributes:
        number: The number of its first line in the file, from 1.
        raw: The line as it is in the file.
        values: The values by column; empty if the line is invalid.
        error: Why the line is invalid; empty if it is valid.
        layout: The layout that its values were read with, the names of the columns included.
    """

    number: int
    raw: str
    values: Mapping[str, Any]
    error: str = ""
    layout: "Layout | None" = None


def _tuple(names: Iterable[str]) -> tuple[str, ...]:
    return tuple(names)


@frozen
class Layout:
    """
    The layout of a file.

    Args:
        format: ``"jsonl"``, ``"csv"`` or ``"columns"``, which are separated by whitespace.
        columns: The names of the columns; empty if the first line contains them.
        delimiter: The delimiter of CSV.
        skip_lines: How many lines at the beginning of the file are skipped.
    """

    format: str
    columns: Sequence[str] = field(default=(), converter=_tuple)
    delimiter: str = ","
    skip_lines: int = 0


class _FileLines:
    """
    The lines of a file as strings, and the position up to which they were read.

    Attributes:
        offset: How many bytes were read.
        number: How many lines that makes.
    """

    def __init__(self, file: BinaryIO, offset: int, number: int) -> None:
        self.offset = offset
        self.number = number
        #: Whether more was read than there is.
        self._is_at_end = False
        #: What was read since `start_line`.
        self._read: list[bytes] = []
        self._is_too_long = False
        self._file = file
        file.seek(offset)

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        raw = self._file.readline(MAX_LINE_BYTES)
        if not raw:
            self._is_at_end = True
            raise StopIteration
        self.number += 1
        self._read.append(raw)
        if len(raw) == MAX_LINE_BYTES and not raw.endswith(b"\n"):
            self._is_too_long = True
            self._skip_rest()
        self.offset += len(raw)
        # `check` finds out what is not UTF-8, because only then it is known which lines of the file belong together.
        return (raw.removeprefix(BOM) if self.number == 1 else raw).decode("utf-8", "surrogateescape")

    def _skip_rest(self) -> None:
        while rest := self._file.readline(MAX_LINE_BYTES):
            self.offset += len(rest)
            if rest.endswith(b"\n"):
                return

    def start_line(self) -> None:
        """Start a new line with data."""
        self._read.clear()
        self._is_too_long = False

    @property
    def raw(self) -> str:
        """What was read since `start_line`."""
        return b"".join(self._read).decode("utf-8", "replace").rstrip("\r\n")

    def check(self) -> None:
        """
        Check what was read since `start_line`.

        Raises:
            ValueError: It is not UTF-8, too long, or has a quote that is not closed.
        """
        if self._is_at_end:
            # Of all lines, only one with an open quote makes the csv module ask for another one.
            raise ValueError(UNCLOSED)
        if self._is_too_long:
            raise ValueError(f"the line must have at most {MAX_LINE_BYTES:,} bytes")
        try:
            b"".join(self._read).decode()
        except UnicodeDecodeError as error:
            byte = error.object[error.start]
            raise ValueError(f"the line must be UTF-8, got byte {byte:#04x} at offset {error.start}") from None


class LineReader:
    """
    Iterates over the lines of a file that contain data.

    Args:
        file: The file, open for reading bytes.
        layout: Its layout.

    Attributes:
        columns: The names of the columns; empty for JSON Lines.

    Raises:
        UsageError: The first line does not contain names of columns.
    """

    def __init__(self, file: BinaryIO, layout: Layout) -> None:
        self._file = file
        self._layout = layout
        self._lines = _FileLines(file, 0, 0)
        for _ in range(layout.skip_lines):
            next(self._lines, "")
        self.columns = tuple(layout.columns)
        if layout.format != "jsonl" and not self.columns:
            self.columns = self._read_header()
        self._read_values = self._values_reader()
        self._line_layout = Layout(layout.format, self.columns, layout.delimiter)

    @property
    def offset(self) -> int:
        """How many bytes of the file were read."""
        return self._lines.offset

    @property
    def line_number(self) -> int:
        """How many lines of the file were read."""
        return self._lines.number

    def seek(self, offset: int, line_number: int) -> None:
        """Continue at a position that `offset` and `line_number` returned earlier."""
        self._lines = _FileLines(self._file, offset, line_number)
        self._read_values = self._values_reader()

    def __iter__(self) -> Iterator[Line]:
        return self

    def __next__(self) -> Line:
        while True:
            self._lines.start_line()
            number = self._lines.number + 1
            try:
                values = self._read_values()
                self._lines.check()
            except (ValueError, csv.Error) as error:
                return Line(number, self._lines.raw, {}, _reason(error), self._line_layout)
            if values:
                return Line(number, self._lines.raw, values, "", self._line_layout)

    def _read_header(self) -> tuple[str, ...]:
        hint = "Correct it, or name the columns with --columns."
        try:
            row = next(self._rows(), [])
            self._lines.check()
        except (ValueError, csv.Error) as error:
            raise UsageError("FILE", f"the first line can't be read: {_reason(error)}", hint) from None
        names = tuple(name.strip() for name in row)
        if not names or not all(names) or len(set(names)) < len(names):
            raise UsageError("FILE", f"the first line must name each column once, got {', '.join(names)!r:.60}", hint)
        return names

    def _values_reader(self) -> Callable[[], Values]:
        """Return a function that reads one line: a blank one is empty, and at the end it raises StopIteration."""
        if self._layout.format == "jsonl":
            return lambda: _parse_object(next(self._lines))
        rows = self._rows()
        return lambda: _by_column(self.columns, next(rows))

    def _rows(self) -> Iterator[list[str]]:
        if self._layout.format == "csv":
            return csv.reader(self._lines, delimiter=self._layout.delimiter)
        return map(str.split, self._lines)


def parse_text(text: str, layout: Layout) -> Values:
    """
    Return the values of one line by column.

    Args:
        text: The line.
        layout: Its layout, with the names of the columns.

    Raises:
        ValueError: The line is invalid.
    """
    if layout.format == "jsonl":
        return _parse_object(text)
    return _by_column(layout.columns, text.split() if layout.format == "columns" else _parse_csv(text, layout))


def _parse_csv(text: str, layout: Layout) -> list[str]:
    # The second line is read only if the first one has an open quote.
    lines = iter((text, ""))
    try:
        row = next(csv.reader(lines, delimiter=layout.delimiter))
    except csv.Error as error:
        raise ValueError(_reason(error)) from None
    if next(lines, None) is None:
        raise ValueError(UNCLOSED)
    return row


def _reason(error: Exception) -> str:
    """Return why a line is invalid, in plain words also where the csv module has found it."""
    if isinstance(error, csv.Error) and "field limit" in str(error):
        return f"a value must have at most {csv.field_size_limit():,} characters; is a quote not closed?"
    return str(error)


def _by_column(names: Sequence[str], row: Sequence[str]) -> Values:
    if row and len(row) != len(names):
        raise ValueError(f"the line must have {len(names)} columns, got {len(row)}")
    return dict(zip(names, row, strict=bool(row)))


def _parse_object(string: str) -> Values:
    if not string.strip():
        return {}
    expected = "the line must be a JSON object that is not empty"
    try:
        value = json.loads(string, parse_constant=_refuse_constant)
    except json.JSONDecodeError as error:
        raise ValueError(f"{expected}, got invalid JSON: {error.msg} at column {error.colno}") from None
    except RecursionError:
        raise ValueError(f"{expected}, got JSON that is nested too deeply") from None
    if not isinstance(value, dict) or not value:
        raise ValueError(f"{expected}, got {value!r:.60}")
    return value


def _refuse_constant(constant: str) -> NoReturn:
    raise ValueError(f"the line must be a JSON object that is not empty, got {constant}, which is not JSON")


def guess_format(path: Path) -> str:
    """
    Return the format of a file by its suffix.

    Raises:
        UsageError: The suffix is unknown.
    """
    try:
        return FORMAT_OF_SUFFIX[path.suffix.lower()]
    except KeyError:
        raise UsageError(
            "--format", f"the format of {path.name} is unknown", f"Pass --format {'|'.join(FORMATS)}."
        ) from None
