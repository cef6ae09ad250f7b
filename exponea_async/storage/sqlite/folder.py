"""
The lock on a queue's folder, without which no process creates, opens, moves, deletes or closes the queue's file.

SQLite itself has no lock for that. When it closes a file, it looks whether that is still at its path, and then deletes
the write-ahead log at the path, which may be the log of a new file by now.
"""

import contextlib
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

try:
    import fcntl
except ImportError:  # pragma: no cover - Windows, where an open file cannot be renamed
    fcntl = None  # type: ignore[assignment]

#: How long to wait for a process that opens, moves or wipes a queue of the same folder, in seconds.
FOLDER_TIMEOUT = 10.0
#: The same for closing, which is possible without the lock.
CLOSE_TIMEOUT = 0.5
#: The folders that a thread has locked.
_locked_folders = threading.local()


@contextlib.contextmanager
def locked(folder: Path, timeout: float | None = None) -> Iterator[None]:
    """
    Prevent other processes and threads from creating, moving and deleting files of a folder; may be nested.

    Args:
        folder: The folder.
        timeout: How long to wait for another one's lock, in seconds; None for the usual time.

    Raises:
        OSError: The folder does not exist, or another process has locked it for longer.
    """
    if folder in _locked_folders.__dict__.setdefault("all", set()) or fcntl is None:
        yield
        return
    try:
        handle = os.open(folder, os.O_RDONLY)
    except PermissionError:
        # A folder may be writable and not readable. Then it can't be locked.
        yield
        return
    try:
        _lock(handle, FOLDER_TIMEOUT if timeout is None else timeout)
        _locked_folders.all.add(folder)
        yield
    finally:
        _locked_folders.all.discard(folder)
        # Closing is not enough: a child that was forked meanwhile has a copy of the handle.
        with contextlib.suppress(OSError):
            fcntl.flock(handle, fcntl.LOCK_UN)
        os.close(handle)


@contextlib.contextmanager
def locked_if_possible(folder: Path) -> Iterator[bool]:
    """Do the same for closing a file, but without the lock where that is refused; yield whether there is one."""
    with contextlib.ExitStack() as stack:
        is_locked = True
        try:
            stack.enter_context(locked(folder, CLOSE_TIMEOUT))
        except OSError:
            is_locked = False
        yield is_locked


def _lock(handle: int, timeout: float) -> None:
    deadline = time.monotonic() + timeout
    while True:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.005)
            continue
        except OSError:
            # Some network file systems have no such locks.
            pass
        return
