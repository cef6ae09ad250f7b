"""
Files of many lines: JSON Lines, CSV, columns. Read piece by piece, from any place on.
"""

import csv
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

from attrs import field, frozen

from exponea_async.cli.exits import UsageError

#: What is longer is no line of data, in bytes; an event takes 800 KB at the most.
MAX_LINE = 2_000_000
BOM = b"\xef\xbb\xbf"

FORMATS = ("jsonl", "csv", "columns")
ENDINGS = {
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
    A line of data; in CSV, where a text may hold line ends, perhaps several.

    Attributes:
        number: The number of its first line in the file, from 1.
        text: The line as it stands there.
        values: What it holds, by column; empty where it is bad.
        trouble: Why it is bad; empty where it is not.
    """

    number: int
    text: str
    values: Mapping[str, Any]
    trouble: str = ""


@frozen
class Layout:
    """
    How a file is written.

    Args:
        format: ``"jsonl"``, ``"csv"`` or ``"columns"``, which are separated by any white space.
        columns: The columns' names; empty where the first line tells them.
        delimiter: What separates the columns of CSV.
        skip: How many lines at the beginning mean nothing.
    """

    format: str
    columns: Sequence[str] = field(default=(), converter=tuple)
    delimiter: str = ","
    skip: int = 0


class _Feed:
    """
    The lines of a file as texts, with the place that they were read up to.

    Attributes:
        offset: Up to which byte it was read.
        number: How many lines that makes.
        gathered: What was read since `begin`.
    """

    def __init__(self, file: BinaryIO, offset: int, number: int) -> None:
        self.offset = offset
        self.number = number
        self.gathered: list[bytes] = []
        self._too_long = False
        self._file = file
        file.seek(offset)

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        raw = self._file.readline(MAX_LINE)
        if not raw:
            raise StopIteration
        self.number += 1
        self.gathered.append(raw)
        if len(raw) == MAX_LINE and not raw.endswith(b"\n"):
            self._too_long = True
            self._skip_rest()
        self.offset += len(raw)
        # What is no UTF-8 is found out in `check`, when it is known which lines belong together.
        return (raw.removeprefix(BOM) if self.number == 1 else raw).decode("utf-8", "surrogateescape")

    def _skip_rest(self) -> None:
        while more := self._file.readline(MAX_LINE):
            self.offset += len(more)
            if more.endswith(b"\n"):
                return

    def begin(self) -> None:
        """Forget what was read: a new line of data begins."""
        self.gathered.clear()
        self._too_long = False

    @property
    def text(self) -> str:
        """What was read since `begin`."""
        return b"".join(self.gathered).decode("utf-8", "backslashreplace").rstrip("\r\n")

    def check(self) -> None:
        """
        Look at what was read since `begin`.

        Raises:
            ValueError: It is no UTF-8, or too long.
        """
        if self._too_long:
            raise ValueError(f"it is longer than {MAX_LINE:,} bytes")
        try:
            b"".join(self.gathered).decode()
        except UnicodeDecodeError as error:
            raise ValueError(f"it is no UTF-8: byte {error.object[error.start]:#04x} at {error.start}") from None


class Lines:
    """
    A file's lines of data, one after the other.

    Args:
        file: The file, open for reading bytes.
        layout: How it is written.

    Attributes:
        columns: The columns' names; empty for JSON Lines.

    Raises:
        UsageError: Its first line can't name columns.
    """

    def __init__(self, file: BinaryIO, layout: Layout) -> None:
        self._file = file
        self._layout = layout
        self._feed = _Feed(file, 0, 0)
        for _ in range(layout.skip):
            next(self._feed, "")
        self.columns = tuple(layout.columns)
        if layout.format != "jsonl" and not self.columns:
            self.columns = self._header()
        self._take = self._taker()

    @property
    def offset(self) -> int:
        """Up to which byte it was read."""
        return self._feed.offset

    @property
    def number(self) -> int:
        """How many lines of the file that makes."""
        return self._feed.number

    def go_to(self, offset: int, number: int) -> None:
        """Go on at a place that `offset` and `number` told before."""
        self._feed = _Feed(self._file, offset, number)
        self._take = self._taker()

    def __iter__(self) -> Iterator[Line]:
        return self

    def __next__(self) -> Line:
        while True:
            self._feed.begin()
            number = self._feed.number + 1
            try:
                values = self._take()
                self._feed.check()
            except (ValueError, csv.Error) as error:
                return Line(number, self._feed.text, {}, str(error))
            if values:
                return Line(number, self._feed.text, values)

    def _header(self) -> tuple[str, ...]:
        try:
            row = next(self._rows(), [])
            self._feed.check()
        except (ValueError, csv.Error) as error:
            raise UsageError(f"the first line can't be read: {error}") from None
        names = tuple(name.strip() for name in row)
        if not names or not all(names) or len(set(names)) < len(names):
            raise UsageError("the first line does not name the columns, each once; name them with --columns")
        return names

    def _taker(self) -> Callable[[], Values]:
        """Make the function that reads a line of data; it gives nothing for a blank one, and ends as `next` does."""
        if self._layout.format == "jsonl":
            return lambda: _object(next(self._feed))
        rows = self._rows()
        return lambda: _named(self.columns, next(rows))

    def _rows(self) -> Iterator[list[str]]:
        if self._layout.format == "csv":
            return csv.reader(self._feed, delimiter=self._layout.delimiter)
        return map(str.split, self._feed)


def _named(names: Sequence[str], row: Sequence[str]) -> Values:
    if row and len(row) != len(names):
        raise ValueError(f"it has {len(row)} columns instead of {len(names)}")
    return dict(zip(names, row, strict=bool(row)))


def _object(text: str) -> Values:
    if not text.strip():
        return {}
    try:
        value = json.loads(text, parse_constant=_refuse)
    except json.JSONDecodeError as error:
        raise ValueError(f"it is no JSON: {error.msg} at column {error.colno}") from None
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    if not isinstance(value, dict) or not value:
        raise ValueError("it is no JSON object with something in it")
    return value


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"it is no JSON: {constant}")


def guess(path: Path) -> str:
    """
    Tell a format by a file's ending.

    Raises:
        UsageError: The ending is not known.
    """
    try:
        return ENDINGS[path.suffix.lower()]
    except KeyError:
        raise UsageError(f"the ending of {path.name} tells no format; give --format {'|'.join(FORMATS)}") from None
