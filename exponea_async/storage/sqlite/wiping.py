"""
Deleting everything that a queue has stored, also where the disk is full and where other programs read the file.

The file is not changed through SQLite, which would need free space, and which could not remove from the write-ahead
log what a reader still uses. Instead, the file is renamed, emptied and deleted, and a new file takes its place. The
renamed file is the mark of a wipe that was interrupted: the next process that opens the queue finishes it. The new file
has the number of the wipe, by which other processes notice that they must stop.
"""

import os
import sqlite3
import stat
import time
from contextlib import closing, suppress
from functools import partial
from pathlib import Path

from exponea_async.errors import LifecycleError, StorageError
from exponea_async.storage.sqlite.connection import QueueConnection
from exponea_async.storage.sqlite.file import absolute, is_busy, open_file, storage_error
from exponea_async.storage.sqlite.folder import locked
from exponea_async.storage.sqlite.forking import call_between_forks
from exponea_async.storage.sqlite.leftovers import delete_leftovers
from exponea_async.storage.sqlite.ownership import COMPANIONS, claim

#: The suffix of a file whose content must not be used any more.
MARK = ".exponea-wiped"
#: How long the creation of the new file waits for other processes, in seconds.
TIMEOUT = 5.0


def wipe(path: Path, *, only_if_unused: bool = False) -> None:
    """
    Delete a queue and all copies of it; nothing is created where there is no queue.

    Args:
        path: The file. Connections to it must be opened again.
        only_if_unused: Whether a file that is open anywhere else is refused.

    Raises:
        LifecycleError: The file is open, and must not be.
        StorageError: What is at the path is not a queue, or the system refused, and nothing was deleted; or the system
            refused to erase the data, which the message says.
    """
    try:
        if path.parent.exists():
            _wipe(path, only_if_unused=only_if_unused)
    except OSError as error:
        raise storage_error(error, path) or error from error


def _wipe(path: Path, *, only_if_unused: bool) -> None:
    with locked(path.parent):
        finish_wipe(path)
        if os.path.lexists(path):
            _, release = claim(path)
            release()
            if only_if_unused:
                _check_unused(path)
            path.rename(f"{path}{MARK}")
            finish_wipe(path)
        delete_leftovers(path)


def wipe_unused_file(path: Path, *, follow_links: bool) -> None:
    """
    Delete a queue and all copies of it, unless it is open; a file that does not exist is not created.

    Args:
        path: The file.
        follow_links: Whether the path may be that of a symbolic link.

    Raises:
        LifecycleError: The file is open, in this or another process; nothing was deleted.
        StorageError: What is at the path is not a queue, or the system refused; nothing was deleted.
    """
    call_between_forks(wipe, absolute(path, follow_links=follow_links), only_if_unused=True)


def finish_wipe(path: Path) -> None:
    """
    Finish a wipe that was interrupted, if there is one; a new file is left, unless there is no space for it.

    Args:
        path: The file. Its folder is locked.
    """
    mark = Path(f"{path}{MARK}")
    if not os.path.lexists(mark):
        return
    _, release = claim(mark)
    release()
    try:
        os.truncate(mark, 0)
    except OSError as error:
        raise StorageError(
            f"The data of {path} was set aside as {mark.name}, but can't be erased yet: {error}.",
            hint="It is erased by the next call, or at the next start before anything else.",
        ) from error
    if not os.path.lexists(path):
        for suffix in COMPANIONS:
            _delete_companion(Path(f"{path}{suffix}"))
    # Where there is no space, the mark stays, and the next process that opens the queue creates the file.
    with suppress(sqlite3.OperationalError, OSError):
        _create(path)
        mark.unlink()


def _delete_companion(path: Path) -> None:
    with suppress(FileNotFoundError):
        if stat.S_ISREG(path.lstat().st_mode):
            # A program that has the log open must not keep its content. The index is mapped into memory, where a
            # process that reads it would be killed.
            if not path.name.endswith("-shm"):
                os.truncate(path, 0)
            path.unlink()


def _create(path: Path) -> None:
    connect = partial(QueueConnection, path)
    with closing(open_file(path, connect, synchronous="NORMAL", timeout=TIMEOUT)) as connection:
        connection.raise_state_versions()
        with connection.write_transaction():
            connection.set_counter("wiped", time.time_ns())


def _check_unused(path: Path) -> None:
    """Raise a `LifecycleError` if any other connection to a file is open, in this or in another process."""
    with closing(sqlite3.connect(path, timeout=0.0, isolation_level=None)) as connection:
        try:
            connection.execute("PRAGMA locking_mode = EXCLUSIVE")
            connection.execute("BEGIN IMMEDIATE")
            connection.execute("ROLLBACK")
        except sqlite3.DatabaseError as error:
            # A damaged file, or one on a full disk, can be deleted all the same.
            if is_busy(error):
                raise LifecycleError(
                    f"The queue file {path} is open in another process.",
                    hint="End that process, or await its client's stop_integration() instead.",
                ) from None
