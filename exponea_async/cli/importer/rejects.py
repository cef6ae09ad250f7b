"""
The rejects file: the lines that could not be imported, and why; it can be corrected and imported itself.
"""

import json
import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

from exponea_async._internal.printable import printable_json
from exponea_async.cli.importer.private_files import create_private, open_private
from exponea_async.cli.importer.reader import MAX_LINE_BYTES, Layout, Line, LineReader, parse_text
from exponea_async.cli.terminal import UsageError
from exponea_async.storage.sqlite.leftovers import is_rejects_file

#: The format of a rejects file that is imported.
REJECTS = "rejects"
#: Stands for each byte that is not UTF-8.
REPLACEMENT = "\ufffd"


class RejectsFile:
    """
    A file of JSON Lines, created with the first invalid line.

    Each has ``line``, ``reason``, and the line itself: as ``values`` by column, or where its columns can't be told, as
    ``text`` with its ``layout``.

    Args:
        path: The file.
        size: How many bytes of it belong to the import that continues; the rest is cut off.

    Attributes:
        path: The file.
        size: How many bytes of it are durable.

    Raises:
        UsageError: There is a file that is not the rejects file of an import; it is left as it is.
        OSError: The system refused.
    """

    def __init__(self, path: Path, size: int) -> None:
        self.path = path
        self.size = size
        self._file: BinaryIO | None = None
        if os.path.lexists(path):
            if not (stat.S_ISREG(path.lstat().st_mode) and is_rejects_file(path)):
                trouble = "must be a file that an import has written, or not exist yet"
                raise UsageError(path, trouble, "Pass --bad to choose another file.")
            if not size:
                path.unlink()

    def add(self, line: Line, reason: str) -> None:
        """Write an invalid line."""
        if self._file is None:
            self._file = self._open()
        entry = {"line": line.number, "reason": reason, **_content(line)}
        self._file.write(printable_json(entry).encode() + b"\n")

    def sync(self) -> None:
        """Make what was written durable."""
        if self._file is not None:
            self._file.flush()
            os.fsync(self._file.fileno())
            self.size = self._file.tell()

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()

    def _open(self) -> BinaryIO:
        if not self.size or not os.path.lexists(self.path):
            return create_private(self.path)
        file = open_private(self.path)
        file.truncate(self.size)
        file.seek(self.size)
        return file


def _content(line: Line) -> dict[str, Any]:
    # Only one of both: after a correction of one, nobody could tell which of them counts.
    if line.values:
        return {"values": dict(line.values)}
    layout = line.layout or Layout("jsonl")
    described = {"format": layout.format, "columns": list(layout.columns), "delimiter": layout.delimiter}
    return {"text": line.raw, "layout": described}


class RejectsReader(LineReader):
    """
    Iterates over the corrected lines of a rejects file; each has the number that it had in the original file.

    Args:
        file: The file, open for reading bytes.
    """

    def __init__(self, file: BinaryIO) -> None:
        super().__init__(file, Layout("jsonl"))

    def __next__(self) -> Line:
        line = super().__next__()
        if line.error:
            return line
        number = line.values.get("line")
        number = number if isinstance(number, int) and not isinstance(number, bool) else line.number
        values, layout = line.values.get("values"), line.layout
        if isinstance(values, dict) and values:
            return Line(number, line.raw, values, "", layout)
        text = line.values.get("text")
        if not isinstance(text, str):
            return Line(number, line.raw, {}, "the line must have an object 'values' or a string 'text'", layout)
        try:
            layout = _layout(line.values.get("layout"))
            return Line(number, text, _parse_corrected(text, layout), "", layout)
        except ValueError as error:
            return Line(number, text, {}, str(error), layout)


def _parse_corrected(text: str, layout: Layout) -> dict[str, Any]:
    if REPLACEMENT in text:
        raise ValueError(f"text must be corrected: {REPLACEMENT} stands for bytes that are not UTF-8")
    values = parse_text(text, layout)
    if not values:
        raise ValueError("text must not be empty; delete the line instead")
    return values


def _layout(described: Any) -> Layout:
    """Return the layout of a text. Files of earlier versions of this package have none, and may be JSON Lines."""
    if not isinstance(described, Mapping):
        return Layout("jsonl")
    file_format, columns, delimiter = (described.get(name) for name in ("format", "columns", "delimiter"))
    if not (isinstance(columns, list) and isinstance(delimiter, str) and len(delimiter) == 1):
        raise ValueError("'layout' must be as it was written")
    return Layout(str(file_format), [str(name) for name in columns], delimiter)


def is_rejects(path: Path) -> bool:
    """Return whether a file that is to be imported is a rejects file: its first line has the keys of one."""
    try:
        if not path.is_file():
            # Opening a pipe may take forever.
            return False
        with path.open("rb") as file:
            entry = json.loads(file.readline(MAX_LINE_BYTES))
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(entry, dict) and {"line", "reason"} <= entry.keys() and bool({"values", "text"} & entry.keys())
