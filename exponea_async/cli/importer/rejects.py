"""
The rejects file: the lines that could not be imported, and why.
"""

import os
import stat
from pathlib import Path
from typing import BinaryIO

from exponea_async._internal.printable import printable_json
from exponea_async.cli.importer.private_files import create_private, open_private
from exponea_async.cli.importer.reader import Line
from exponea_async.cli.terminal import UsageError
from exponea_async.storage.sqlite.leftovers import is_rejects_file


class RejectsFile:
    """
    A file of JSON Lines, each with ``line``, ``reason`` and ``text``; created with the first invalid line.

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
        if not self.size or not os.path.lexists(self.path):
            return create_private(self.path)
        file = open_private(self.path)
        file.truncate(self.size)
        file.seek(self.size)
        return file
