"""
The queue's file among its neighbours: made, opened, told damaged from busy, moved aside.
"""

import contextlib
import os
import sqlite3
import time
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path

from exponea_async.errors import DamagedFileError, StorageError
from exponea_async.storage.sqlite import queries as _queries
from exponea_async.storage.sqlite.connection import MovedFileError, QueueConnection
from exponea_async.storage.sqlite.schema import migrate

try:
    import fcntl
except ImportError:  # pragma: no cover - Windows, which lets nobody rename an open file
    fcntl = None  # type: ignore[assignment]

#: What lies beside the file while it is in use; the file itself is last.
PARTS = ("-wal", "-shm", "")

HINTS = {
    "full": "Free some disk space.",
    "locked": "Another process holds the file for long; keep other tools off it.",
    "readonly": "Give this process the right to write the file and its folder.",
    "unable to open": "Give this process the right to write the file and its folder.",
    "Permission denied": "Give this process the right to write the file and its folder.",
}


def open_ledger(path: Path, make: Callable[[], QueueConnection], synchronous: str, patience: float) -> QueueConnection:
    """
    Open the file, making it where it is not there; runs on the connection's thread.

    Args:
        path: The file.
        make: Makes the connection.
        synchronous: SQLite's setting of that name.
        patience: How long to go on trying while other processes are opening it too, in seconds.

    Raises:
        DamagedFileError: It could not be read, and has been moved aside if nobody was faster.
    """
    until = time.monotonic() + patience
    while True:
        try:
            return _open_once(path, make, synchronous)
        except (sqlite3.OperationalError, MovedFileError) as error:
            # Two processes that switch a new file to its journal mode at once are told so without any wait.
            if not _is_passing(error) or time.monotonic() > until:
                raise
        time.sleep(0.01)


def _open_once(path: Path, make: Callable[[], QueueConnection], synchronous: str) -> QueueConnection:
    make_file(path)
    inode = path.stat().st_ino
    with contextlib.ExitStack() as undo:
        ledger = make()
        undo.callback(ledger.close)
        ledger.path, ledger.inode = str(path), inode
        try:
            _prepare(ledger, synchronous)
        except sqlite3.DatabaseError as error:
            if not is_damage(error):
                raise
            raise DamagedFileError(str(path), move_aside(path, inode), str(error)) from error
        ledger.check_place()
        undo.pop_all()
    return ledger


def _prepare(ledger: QueueConnection, synchronous: str) -> None:
    ledger.execute("PRAGMA journal_mode = WAL")
    ledger.execute(f"PRAGMA synchronous = {synchronous}")
    migrate(ledger)
    ledger.look(_queries.pending)


def make_file(path: Path) -> None:
    """Make a file that only its owner can read; SQLite gives its companions the same mode."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    # Never opened when it is there: closing it again would end the locks that this process holds on it.
    with contextlib.suppress(FileExistsError):
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
    for part in PARTS:
        with contextlib.suppress(FileNotFoundError):
            _protect(Path(f"{path}{part}"))


def _protect(path: Path) -> None:
    if path.stat().st_mode & 0o077:
        path.chmod(0o600)


def move_aside(path: Path, inode: int) -> str:
    """
    Rename a damaged file and its companions.

    It must still be open then: SQLite, when it closes a file that has been moved, leaves the companions at the old
    place alone, which by then may be those of a fresh file.

    Args:
        path: The file.
        inode: The number of the damaged file, or 0 for whatever is there.

    Returns:
        The new name, or nothing if the damaged file is no longer there.
    """
    with _alone(path.parent):
        try:
            if inode and path.stat().st_ino != inode:
                return ""
        except FileNotFoundError:
            return ""
        target = _free_name(path)
        # The companions first: a fresh file must never meet the old one's log.
        for part in PARTS:
            with contextlib.suppress(FileNotFoundError):
                Path(f"{path}{part}").rename(f"{target}{part}")
        return target


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Keep other processes from moving files of a folder at the same time."""
    if fcntl is None:  # pragma: no cover - Windows
        yield
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _free_name(path: Path) -> str:
    name = f"{path}.damaged-{time.strftime('%Y%m%dT%H%M%S')}-{os.getpid()}"
    names = (f"{name}-{again}" if again else name for again in count())
    return next(name for name in names if not Path(name).exists())


def is_damage(error: BaseException) -> bool:
    """Tell whether an error means that the file can't be read any more."""
    return _code(error) in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


def _is_passing(error: BaseException) -> bool:
    return isinstance(error, MovedFileError) or _code(error) == sqlite3.SQLITE_BUSY


def _code(error: BaseException) -> int:
    # Errors that the sqlite3 module itself raises carry no code; the upper bits tell details.
    return int(getattr(error, "sqlite_errorcode", 0)) & 0xFF


def translated(error: Exception, path: Path | str) -> StorageError | None:
    """Make our error of one that the file or the system is to blame for; None where it is somebody else's."""
    if isinstance(error, StorageError):
        return error
    if not (isinstance(error, sqlite3.OperationalError | OSError | MovedFileError) or is_damage(error)):
        return None
    text = str(error)
    hint = next((hint for word, hint in HINTS.items() if word in text), "")
    translation = StorageError(f"The queue file {path} refused: {text}.", hint=hint)
    translation.__cause__ = error
    return translation
