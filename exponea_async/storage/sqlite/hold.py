"""
A lock on an open file that keeps its write-ahead log alive.

SQLite deletes the log when a connection closes and finds no lock of another one. Its own locks are POSIX locks, and the
system drops them when their process closes the file anywhere, such as after copying it. The last process to close then
deletes a log that is still written to. So each process also has a lock that belongs to an open file description, which
nothing but closing that description releases. Where the system has no such locks, the lost log is only noticed; see
`connection.QueueConnection.check_path`.
"""

import os
import struct
from contextlib import suppress
from pathlib import Path
from threading import Lock

try:
    import fcntl
except ImportError:  # pragma: no cover - Windows, where an open file cannot be deleted
    fcntl = None  # type: ignore[assignment]

#: The bytes that SQLite locks for as long as a file is open: SHARED_FIRST and SHARED_SIZE.
SHARED_FIRST, SHARED_SIZE = 0x40000002, 510
_IS_SUPPORTED = hasattr(fcntl, "F_OFD_SETLK")

_held: dict[tuple[int, int, int], "Hold"] = {}
_lock = Lock()


class Hold:
    """
    The lock of this process on a file, shared by all of its connections to the file.

    A child process that was forked has holds of its own.
    """

    def __init__(self, key: tuple[int, int, int], handle: int) -> None:
        self._key = key
        self._handle = handle
        self._users = 0
        self._locked = 0

    @staticmethod
    def open(path: Path) -> "Hold":
        """Open a file that exists, before SQLite opens it; the file is not locked yet."""
        with _lock:
            status = path.stat()
            key = (os.getpid(), status.st_dev, status.st_ino)
            hold = _held.get(key)
            if hold is None:
                hold = _held[key] = Hold(key, os.open(path, os.O_RDONLY) if _IS_SUPPORTED else -1)
            hold._users += 1
            return hold

    def lock(self) -> None:
        """Keep the log from now on. SQLite has switched the file to a log by now, which needs all locks for itself."""
        with _lock:
            self._locked += 1
            if self._locked == 1:
                self._set("F_RDLCK")

    def unlock(self) -> None:
        """Let SQLite delete the log when it closes the last connection."""
        with _lock:
            self._locked -= 1
            if not self._locked:
                self._set("F_UNLCK")

    def close(self) -> None:
        """Close the file, after SQLite has closed it: closing it releases all other locks of this process on it."""
        with _lock:
            self._users -= 1
            if not self._users:
                del _held[self._key]
                if self._handle >= 0:
                    os.close(self._handle)

    def _set(self, kind: str) -> None:
        if self._handle < 0:
            return
        # The fields of the C structure `flock`: type, whence, start, length, process.
        request = struct.pack("hhqqi4x", getattr(fcntl, kind), os.SEEK_SET, SHARED_FIRST, SHARED_SIZE, 0)
        # Some network file systems have no such locks.
        with suppress(OSError):
            fcntl.fcntl(self._handle, fcntl.F_OFD_SETLK, request)
