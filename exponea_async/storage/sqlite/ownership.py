"""
Whose file is at a path: what exists there is inspected before anything is created, opened, renamed or changed.
"""

import os
import stat
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from threading import Lock
from typing import BinaryIO

from exponea_async.errors import StorageError
from exponea_async.storage.sqlite.schema import APPLICATION_ID, FIRST_SCHEMA

#: Suffixes of the files that SQLite keeps beside a database.
COMPANIONS = ("-wal", "-shm", "-journal")

ELSEWHERE = "Set storage or EXPONEA_STORAGE to another path."
#: What a path that is not a regular file is, and what to do.
KINDS = (
    (stat.S_ISLNK, "a symbolic link", "Use the path of the file itself, or set QueueSettings(follow_links=True)."),
    (stat.S_ISDIR, "a directory", "Set storage or EXPONEA_STORAGE to the path of a file in it."),
    (stat.S_ISSOCK, "a socket", ELSEWHERE),
    (stat.S_ISFIFO, "a named pipe", ELSEWHERE),
    (lambda _: True, "a device", ELSEWHERE),
)

MAGIC = b"SQLite format 3\0"
#: The sizes of the headers of a write-ahead log and of each page in it.
WAL_HEADER, FRAME_HEADER = 32, 24
#: What SQLite stores of the first schema, whose files have no application id.
FIRST_STATEMENTS = tuple(statement.strip().encode() for statement in FIRST_SCHEMA.split(";") if statement.strip())

#: How many connections of this process have a file open, by device and inode.
_open: Counter[tuple[int, int]] = Counter()
_lock = Lock()


def claim(path: Path) -> tuple[int, Callable[[], None]]:
    """
    Make sure that the file at a path is a queue, or may become one; create an empty one where there is none.

    Nothing that exists is changed, but the companions of a file that does not exist any more are deleted. The file
    must be open in SQLite, or about to be opened, until it is released.

    Args:
        path: The file. Its folder exists.

    Returns:
        The inode, and a function to call after SQLite has closed the file.

    Raises:
        StorageError: What is at the path is not a queue, or belongs to another user.
    """
    with _lock:
        companions = [Path(f"{path}{suffix}") for suffix in COMPANIONS]
        for companion in companions:
            with suppress(FileNotFoundError):
                _check_file(companion, companion.lstat())
        with suppress(FileExistsError):
            # O_EXCL does not follow links.
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
            delete_companions(path)
        status = path.lstat()
        _check_file(path, status)
        key = (status.st_dev, status.st_ino)
        # Closing a file releases all locks that this process has on it, so one that SQLite has open must not be read.
        # It was inspected when it was opened.
        if not _open[key] and status.st_size:
            _check_content(path)
        _open[key] += 1

    def release() -> None:
        with _lock:
            _open[key] -= 1
            if _open[key] <= 0:
                del _open[key]

    return status.st_ino, release


def check_existing(path: Path) -> None:
    """
    Make sure that the file at a path, which exists and is not open in this process, is a queue or may become one.

    Raises:
        StorageError: What is at the path is not a queue, or belongs to another user.
    """
    for companion in (Path(f"{path}{suffix}") for suffix in COMPANIONS):
        with suppress(FileNotFoundError):
            _check_file(companion, companion.lstat())
    status = path.lstat()
    _check_file(path, status)
    if status.st_size:
        _check_content(path)


def delete_companions(path: Path) -> None:
    """
    Delete the companions of a file that was deleted.

    Whoever has the deleted file open can still read it, its log included, unless a new file is opened beside them:
    SQLite would use the same index of the log for both.
    """
    for suffix in COMPANIONS:
        Path(f"{path}{suffix}").unlink(missing_ok=True)


def _check_file(path: Path, status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode):
        kind, hint = next((kind, hint) for is_kind, kind, hint in KINDS if is_kind(status.st_mode))
        raise StorageError(f"The storage path {path} is {kind}, expected a regular file.", hint=hint)
    if hasattr(os, "geteuid") and status.st_uid != os.geteuid():
        raise StorageError(
            f"The file {path} belongs to the user with id {status.st_uid}, expected that of this process, "
            f"{os.geteuid()}.",
            hint=ELSEWHERE,
        )


def _check_content(path: Path) -> None:
    pages = list(_first_pages(path))
    if not any(map(_is_queue, pages)) and not (pages and _is_blank(pages[-1])):
        raise StorageError(
            f"The file {path} is not a queue of exponea_async; it is left as it is.",
            hint=ELSEWHERE,
        )


def _is_queue(page: bytes) -> bool:
    """Return whether a file with this first page is a queue of any version."""
    if page[68:72] == APPLICATION_ID.to_bytes(4, "big"):
        return True
    return page[68:72] == bytes(4) and all(statement in page for statement in FIRST_STATEMENTS)


def _is_blank(page: bytes) -> bool:
    """Return whether a database with this first page has neither tables nor an owner, as after an aborted creation."""
    return not any(page[60:64] + page[68:72] + page[103:105])


def _first_pages(path: Path) -> Iterator[bytes]:
    """Yield all versions of the first page that a file and its write-ahead log have, the newest last."""
    with _open_for_reading(path) as file:
        header = file.read(100)
        if not header.startswith(MAGIC):
            return
        size = int.from_bytes(header[16:18], "big")
        yield header + file.read((65_536 if size == 1 else size) - len(header))
    with suppress(FileNotFoundError), _open_for_reading(Path(f"{path}-wal")) as file:
        size = int.from_bytes(file.read(WAL_HEADER)[8:12], "big")
        while len(header := file.read(FRAME_HEADER)) == FRAME_HEADER:
            if int.from_bytes(header[:4], "big") == 1:
                yield file.read(size)
            else:
                file.seek(size, os.SEEK_CUR)


def _open_for_reading(path: Path) -> BinaryIO:
    # Neither follows a link nor waits for the other end of a pipe that was put at the path meanwhile.
    flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    return os.fdopen(os.open(path, flags), "rb")


def _after_fork_in_child() -> None:
    global _lock  # noqa: PLW0603 - a thread that does not exist in the child may hold the old one
    _lock = Lock()
    # The copies of the parent's connections are closed in the child.
    _open.clear()


if hasattr(os, "register_at_fork"):  # pragma: no branch - Windows has no fork
    os.register_at_fork(after_in_child=_after_fork_in_child)
