"""
The lines that could not be imported, and why.
"""

import json
import os
from pathlib import Path
from typing import BinaryIO

from exponea_async.cli.importer.reader import Line


class BadLines:
    """
    A file of JSON Lines, each with ``line``, ``reason`` and ``text``; made with the first bad line.

    Args:
        path: The file.
        size: Up to which byte it is of this import; what follows is cut off.
    """

    def __init__(self, path: Path, size: int) -> None:
        self.path = path
        self.size = size
        self._file: BinaryIO | None = None
        if not size:
            path.unlink(missing_ok=True)

    def add(self, line: Line, reason: str) -> None:
        """Write a line down."""
        if self._file is None:
            self._file = self._open()
        told = {"line": line.number, "reason": reason, "text": line.text}
        self._file.write(json.dumps(told, ensure_ascii=False).encode("utf-8", "backslashreplace") + b"\n")

    def sync(self) -> None:
        """Make what was written durable."""
        if self._file is not None:
            self._file.flush()
            os.fsync(self._file.fileno())
            self.size = self._file.tell()

    def close(self) -> None:
        """Let go of the file."""
        if self._file is not None:
            self._file.close()

    def _open(self) -> BinaryIO:
        file = self.path.open("r+b" if self.path.exists() else "w+b")
        file.truncate(self.size)
        file.seek(self.size)
        return file
