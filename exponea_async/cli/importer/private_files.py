"""
Files with lines of customers: only their owner can read them, and they are never opened through a link.
"""

import os
import stat
from errno import EPERM
from pathlib import Path
from typing import BinaryIO


def create_private(path: Path) -> BinaryIO:
    """
    Create a file that only its owner can read, in place of one that an interrupted import has left.

    Raises:
        OSError: The system refused.
    """
    # What is at the path is not opened: it may be a link that somebody has put there.
    path.unlink(missing_ok=True)
    return _open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL)


def open_private(path: Path) -> BinaryIO:
    """
    Open an existing file for reading and writing, and let only its owner read it.

    Raises:
        OSError: The system refused, or the file is a link, not a regular one, or another user's.
    """
    file = _open(path, os.O_RDWR)
    try:
        _make_private(file, path)
    except BaseException:
        file.close()
        raise
    return file


def _make_private(file: BinaryIO, path: Path) -> None:
    status = os.fstat(file.fileno())
    if not stat.S_ISREG(status.st_mode) or (hasattr(os, "geteuid") and status.st_uid != os.geteuid()):
        raise PermissionError(EPERM, "it is not a regular file of this user", str(path))
    if status.st_mode & 0o077 and hasattr(os, "fchmod"):
        os.fchmod(file.fileno(), 0o600)


def _open(path: Path, flags: int) -> BinaryIO:
    flags |= getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    return os.fdopen(os.open(path, flags, 0o600), "r+b")
