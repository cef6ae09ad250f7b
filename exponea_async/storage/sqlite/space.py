"""
Disk space: what is given back when it is not used any more, and what is kept for the upload when the disk is full.
"""

import os
import sqlite3
import stat
import time
from contextlib import suppress
from pathlib import Path

from exponea_async.storage.sqlite.connection import QueueConnection, primary_code

#: The file is rewritten when it is idle and has at least this much unused space, in bytes, and few used pages.
MIN_UNUSED = 1_000_000
#: How often it is tried to free space for writes that find the disk full, in seconds.
RECLAIM_INTERVAL = 1.0
#: A file with less room than this for further records is full, in bytes: two pages.
MIN_ROOM = 8192
#: The size of the reserve, and the size of the log from which on there is one, in bytes.
RESERVE_SIZE, RESERVE_FROM = 4_000_000, 1_000_000
#: The log is copied into the file before the folder is locked for closing if it is larger than this, in bytes.
MAX_LOG_AT_CLOSE = 1_000_000


def tidy(connection: QueueConnection) -> None:
    """Give unused space back to the system as far as that takes little time; outside of a transaction."""
    # It does not matter if another process is busy with the file, or the disk is full.
    with suppress(sqlite3.OperationalError):
        empty_log(connection)
        shrink(connection)


def tidy_before_close(connection: QueueConnection) -> None:
    """
    Do the same at the end, but for the log, which is emptied by closing.

    Raises:
        MovedFileError: The file is not at its path any more.
    """
    connection.check_path()
    with suppress(sqlite3.OperationalError):
        shrink(connection)
        if connection.log_size > MAX_LOG_AT_CLOSE:
            connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()


def empty_log(connection: QueueConnection) -> None:
    """Copy the log into the file and cut it, unless another process reads from it."""
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    connection.measure_log()


def shrink(connection: QueueConnection) -> None:
    """Rewrite the file if most of it is unused, which takes as long as reading the rest."""
    total, unused, size = (_pragma(connection, name) for name in ("page_count", "freelist_count", "page_size"))
    if unused * size >= MIN_UNUSED and unused >= total * 3 // 4:
        connection.execute("VACUUM")
        empty_log(connection)
    if (total - unused) * size < RESERVE_FROM:
        spend_reserve(connection)


def compact(connection: QueueConnection) -> int:
    """Rewrite the file without unused space, and return how many bytes of the disk are free again."""
    paths = (Path(connection.path), Path(f"{connection.path}-wal"), _reserve(connection))
    before = sum(map(_size, paths))
    connection.patiently(lambda: connection.execute("VACUUM"))
    empty_log(connection)
    shrink(connection)
    return before - sum(map(_size, paths))


def disk_bytes(connection: QueueConnection) -> int:
    """Return the size of the file and its log on the disk, in bytes."""
    return sum(map(_size, (Path(connection.path), Path(f"{connection.path}-wal"))))


def is_out_of_space(connection: QueueConnection) -> bool:
    """Return whether the disk is full, or the file nearly as large as it may be."""
    limit = connection.max_bytes
    return connection.is_disk_full or (limit is not None and used_bytes(connection) > limit - MIN_ROOM)


def used_bytes(connection: QueueConnection) -> int:
    """Return the size of all pages with content, in bytes; within a transaction."""
    return (_pragma(connection, "page_count") - _pragma(connection, "freelist_count")) * _pragma(
        connection, "page_size"
    )


def _pragma(connection: QueueConnection, name: str) -> int:
    return int(connection.execute(f"PRAGMA {name}").fetchone()[0])


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


# The reserve: a file beside the queue whose space is used for the upload when the disk is full. Leasing records and
# deleting delivered ones write to the log before they make room.


def prepare_disk(connection: QueueConnection) -> None:
    """Keep the log small and the reserve there, as far as needed, before a transaction; usually two comparisons."""
    if connection.is_disk_full:
        with suppress(sqlite3.OperationalError):
            empty_log(connection)
        connection.is_disk_full = not keep_reserve(connection)
    elif connection.log_size > RESERVE_FROM and not connection.has_reserve:
        # Not tried again for each commit where there is no space for it.
        keep_reserve(connection)
        connection.has_reserve = True
    if connection.log_size > connection.max_log_size:
        with suppress(sqlite3.OperationalError):
            empty_log(connection)


def make_room(connection: QueueConnection, error: sqlite3.OperationalError, *, for_upload: bool) -> bool:
    """
    Free space if an error means that the disk is full, and return whether the transaction is worth another attempt.

    After the reserve was spent, new records are refused until there is space for it again: otherwise they would take
    what it has freed.
    """
    if primary_code(error) != sqlite3.SQLITE_FULL:
        return False
    if for_upload and spend_reserve(connection):
        connection.is_disk_full = True
        with suppress(sqlite3.OperationalError):
            empty_log(connection)
        return True
    return _reclaim(connection)


def _reclaim(connection: QueueConnection) -> bool:
    """Free what this file does not use, and return whether it was anything; not more often than once a second."""
    now = time.monotonic()
    if now < connection.next_reclaim:
        return False
    connection.next_reclaim = now + RECLAIM_INTERVAL
    paths = (Path(connection.path), Path(f"{connection.path}-wal"))
    before = sum(map(_size, paths))
    tidy(connection)
    return sum(map(_size, paths)) < before


def keep_reserve(connection: QueueConnection) -> bool:
    """Create the reserve if there is none, and return whether there is one now."""
    path = _reserve(connection)
    try:
        handle = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | getattr(os, "O_NOFOLLOW", 0), 0o600)
    except FileExistsError:
        return True
    except OSError:
        return False
    try:
        # Written, not only sized: a file with holes takes no space.
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(handle, 0, RESERVE_SIZE)
        else:
            os.write(handle, bytes(RESERVE_SIZE))
    except OSError:
        path.unlink(missing_ok=True)
        return False
    finally:
        os.close(handle)
    return True


def spend_reserve(connection: QueueConnection) -> bool:
    """Delete the reserve, and return whether there was one."""
    path = _reserve(connection)
    try:
        # A file of another kind or size is not a reserve, and stays.
        status = path.lstat()
        if not stat.S_ISREG(status.st_mode) or status.st_size != RESERVE_SIZE:
            return False
        path.unlink()
    except OSError:
        return False
    connection.has_reserve = False
    return True


def _reserve(connection: QueueConnection) -> Path:
    return Path(f"{connection.path}-reserve")
