"""
The queue's file on the disk: creating it, opening it, recognizing damage, and moving a damaged file aside.
"""

import contextlib
import os
import sqlite3
import time
from collections.abc import Callable
from itertools import count
from pathlib import Path

from exponea_async.errors import DamagedFileError, StorageError
from exponea_async.storage.sqlite import queries
from exponea_async.storage.sqlite.connection import MovedFileError, QueueConnection, primary_code
from exponea_async.storage.sqlite.folder import locked
from exponea_async.storage.sqlite.hold import Hold
from exponea_async.storage.sqlite.leftovers import DAMAGED
from exponea_async.storage.sqlite.ownership import claim, delete_companions
from exponea_async.storage.sqlite.schema import APPLICATION_ID, MOVING, migrate

#: Suffixes of the file and its companions, which exist while it is in use; the file itself is last.
SUFFIXES = ("-wal", "-shm", "")

#: The log is cut to this size when it is used from its start again, in bytes.
LOG_SIZE = 4_000_000
#: The largest file whose pages are all read when it is opened, which takes about 0.1 seconds.
MAX_CHECKED_BYTES = 64_000_000

WRITABLE = (
    "Give this process the right to write the file and its folder, or set storage or EXPONEA_STORAGE to another path."
)
#: What to do, by a part of SQLite's or the system's message.
HINTS = {
    "full": "Free some disk space.",
    "No space left": "Free some disk space.",
    "locked": "Another process holds the file for long; keep other tools off it.",
    "temporarily unavailable": "Another process has locked the folder for long; end it if it hangs.",
    "readonly": WRITABLE,
    "unable to open": WRITABLE,
}


class DamagedPageError(sqlite3.DatabaseError):
    """A page of the file is damaged, as SQLite's check says."""

    sqlite_errorcode = sqlite3.SQLITE_CORRUPT


def absolute(path: Path, *, follow_links: bool) -> Path:
    """Return a path that does not depend on the working directory, which may change."""
    return path.resolve() if follow_links else path.absolute()


def open_file(
    path: Path, connect: Callable[[], QueueConnection], *, synchronous: str, timeout: float
) -> QueueConnection:
    """
    Open the file, creating it where there is none; to be called on the connection's thread.

    Args:
        path: The file. Its folder exists.
        connect: Returns a new connection to the path.
        synchronous: The value of SQLite's setting of that name.
        timeout: How long to retry while other processes are opening the file, in seconds.

    Raises:
        DamagedFileError: The queue could not be read. It has been moved aside, unless another process was first.
        StorageError: What is at the path is not a queue, or belongs to another user. It is left as it is.
    """
    deadline = time.monotonic() + timeout
    while True:
        try:
            return _open_once(path, connect, synchronous)
        except (sqlite3.OperationalError, MovedFileError) as error:
            # Of two processes that switch a new file to its journal mode at once, SQLite refuses one without waiting.
            if not _is_transient(error) or time.monotonic() > deadline:
                raise
        time.sleep(0.01)


def _open_once(path: Path, connect: Callable[[], QueueConnection], synchronous: str) -> QueueConnection:
    inode, release = claim(path)
    with contextlib.ExitStack() as on_error:
        on_error.callback(release)
        restrict(path)
        hold = Hold.open(path)
        on_error.callback(hold.close)
        connection = connect()
        # In the reverse order: SQLite closes the file before the hold does.
        on_error.callback(connection.close)
        connection.inode = inode
        try:
            _prepare(connection, synchronous)
        except sqlite3.DatabaseError as error:
            if not is_damage(error):
                raise
            raise DamagedFileError(str(path), move_aside(path, inode), str(error)) from error
        connection.keep_log(hold)
        connection.release = release
        on_error.pop_all()
        on_error.callback(connection.close)
        connection.check_path()
        on_error.pop_all()
    return connection


def _prepare(connection: QueueConnection, synchronous: str) -> None:
    if connection.execute("PRAGMA page_count").fetchone() == (0,):
        # Stored before the file has a write-ahead log, and so in the file itself, by which it is recognized.
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute(f"PRAGMA synchronous = {synchronous}")
    # What was delivered must not be left in free pages; the default of SQLite depends on how it was built.
    connection.execute("PRAGMA secure_delete = ON")
    connection.execute(f"PRAGMA journal_size_limit = {LOG_SIZE}")
    migrate(connection)
    if connection.counter(MOVING):
        # A part of the content may be in both places.
        raise StorageError(
            f"The content of the queue file {connection.path} is being moved to another queue, which was interrupted.",
            hint="Run 'exponea-async queue move' again with the same arguments.",
        )
    # Reads from the tables, so that damage is found now.
    with connection.read_transaction():
        queries.pending(connection)
        _check_pages(connection)
    connection.check_due_times()


def _check_pages(connection: QueueConnection) -> None:
    """
    Read all pages of a file that is not large: a damaged one that is met later might be read in part, and be believed.

    Raises:
        DatabaseError: A page is damaged.
    """
    (size,) = connection.execute("SELECT page_count * page_size FROM pragma_page_count, pragma_page_size").fetchone()
    if size <= MAX_CHECKED_BYTES:
        (found,) = connection.execute("PRAGMA quick_check(1)").fetchone()
        if found != "ok":
            raise DamagedPageError(found)


def restrict(path: Path) -> None:
    """Make a queue and its companions readable for their owner only; SQLite gives new companions the same mode."""
    for suffix in SUFFIXES:
        each = Path(f"{path}{suffix}")
        with contextlib.suppress(FileNotFoundError):
            if each.lstat().st_mode & 0o077:
                each.chmod(0o600)


def move_aside(path: Path, inode: int, log_inode: int = 0) -> str:
    """
    Rename a damaged file and its companions. If the file was deleted or replaced, its companions are deleted.

    The file must still be open: when SQLite closes a file that has been moved, it leaves alone the companions at the
    old path, which may be those of a new file by then.

    Args:
        path: The file.
        inode: The inode of the damaged file, or 0 for any file at the path.
        log_inode: The inode of its write-ahead log, or 0 if it is not known.

    Returns:
        The new name, or ``""`` if the damaged file is not at the path any more.
    """
    if not path.parent.exists():
        return ""
    with locked(path.parent):
        try:
            if inode and path.stat().st_ino != inode:
                with contextlib.suppress(FileNotFoundError):
                    # SQLite would apply the log of the one file to the other.
                    if Path(f"{path}-wal").stat().st_ino == log_inode:
                        delete_companions(path)
                return ""
        except FileNotFoundError:
            delete_companions(path)
            return ""
        target = _unused_name(path)
        # The companions first: a new file must never be opened with the log of the old one.
        for suffix in SUFFIXES:
            with contextlib.suppress(FileNotFoundError):
                Path(f"{path}{suffix}").rename(f"{target}{suffix}")
        return target


def _unused_name(path: Path) -> str:
    name = f"{path}{DAMAGED}{time.strftime('%Y%m%dT%H%M%S')}-{os.getpid()}"
    names = (f"{name}-{number}" if number else name for number in count())
    return next(name for name in names if not Path(name).exists())


def is_damage(error: BaseException) -> bool:
    """Return whether an error means that the file is damaged, or that it or its log was cut off."""
    is_cut = getattr(error, "sqlite_errorcode", 0) == sqlite3.SQLITE_IOERR_SHORT_READ
    return is_cut or primary_code(error) in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


def is_busy(error: BaseException) -> bool:
    """Return whether an error means that another connection has locked the file."""
    return primary_code(error) == sqlite3.SQLITE_BUSY


def is_disk_full(error: BaseException) -> bool:
    """Return whether an error means that there is no space for what is written."""
    return primary_code(error) == sqlite3.SQLITE_FULL


def _is_transient(error: BaseException) -> bool:
    return isinstance(error, MovedFileError) or is_busy(error)


def storage_error(error: Exception, path: Path | str) -> StorageError | None:
    """Return the `StorageError` for an error of the file or the system, or None for an error of the caller."""
    if isinstance(error, StorageError):
        return error
    if not (isinstance(error, sqlite3.OperationalError | OSError | MovedFileError) or is_damage(error)):
        return None
    message = str(error)
    hints = (hint for part, hint in HINTS.items() if part in message)
    hint = next(hints, WRITABLE if isinstance(error, OSError) else "")
    translated = StorageError(f"The queue file {path} cannot be used: {message}.", hint=hint)
    translated.__cause__ = error
    return translated
