"""
The rejects file: the lines that could not be imported, and why.
"""

import os
from pathlib import Path
from typing import BinaryIO

from exponea_async._internal.printable import printable_json
from exponea_async.cli.importer.reader import Line


class RejectsFile:
    """
    A file of JSON Lines, each with ``line``, ``reason`` and ``text``; created with the first invalid line.

    Args:
        path: The file.
        size: How many bytes of it belong to the import that continues; the rest is cut off.

    Attributes:
        path: The file.
        size: How many bytes of it are durable.
    """

    def __init__(self, path: Path, size: int) -> None:
        self.path = path
        self.size = size
        self._file: BinaryIO | None = None
        if not size:
            path.unlink(missing_ok=True)

    def add(self, line: Line, reason: str) -> None:
        """Write an invalid line."""
        if self._file is None:
            self._file = self._open()
        entry = {"line": line.number, "reason": reason, "text": line.raw}
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
        file = self.path.open("r+b" if self.path.exists() else "w+b")
        file.truncate(self.size)
        file.seek(self.size)
        return file
