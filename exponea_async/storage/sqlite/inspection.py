"""
Looking at a queue without changing anything: neither the file nor its companions, and nothing is created.
"""

import os
import sqlite3
from collections.abc import Mapping
from contextlib import closing, suppress
from pathlib import Path

from attrs import frozen

from exponea_async.storage.sqlite.file import MAX_CHECKED_BYTES, is_damage, storage_error
from exponea_async.storage.sqlite.folder import locked
from exponea_async.storage.sqlite.hold import SHARED_FIRST, SHARED_SIZE
from exponea_async.storage.sqlite.leftovers import DAMAGED
from exponea_async.storage.sqlite.ownership import check_existing
from exponea_async.storage.sqlite.schema import MIGRATIONS, ROUTE_SHIFT, schema_version

SQLITE_VERSION = sqlite3.sqlite_version
#: The schema version of files that this version of the package writes.
SCHEMA_VERSION = len(MIGRATIONS)
#: Where Linux lists the locks of all processes.
LOCKS = Path("/proc/locks")
#: The beginning of the keys under which projects are stored.
PROJECT = "project:"
#: How long to wait for a lock of another process, in seconds.
TIMEOUT = 2.0


@frozen(kw_only=True)
class Inspection:
    """
    What is in the file of a queue.

    Attributes:
        version: The schema version.
        damage: What SQLite reports about a damaged file; empty if it found no damage.
        is_checked: Whether all pages were read; those of a large file are not.
        waiting: The number of records in the queue, those that are leased included, by route.
        leased: How many of them have been leased at least once.
        dead: The number of dead letters.
        oldest: When the oldest record was written, UNIX seconds; None if there is no record.
        projects: The tokens of the projects whose addresses and keys are in the file.
    """

    version: int = 0
    damage: str = ""
    is_checked: bool = False
    waiting: Mapping[str, int]
    leased: int = 0
    dead: int = 0
    oldest: float | None = None
    projects: frozenset[str] = frozenset()


def inspect_queue(path: Path) -> Inspection | None:
    """
    Return what is in the file of a queue; to be called in a process that has not opened the file.

    Args:
        path: The file, which exists.

    Returns:
        The content, or None if it can't be read without creating a file: the last process has left its write-ahead log
        and not the index of the log.

    Raises:
        StorageError: What is at the path is not a queue, belongs to another user, or can't be read.
    """
    try:
        # SQLite deletes the log of a new file at the path if the one it opens was emptied, though it only reads.
        with locked(path.parent):
            check_existing(path)
            log = Path(f"{path}-wal")
            if _size(log) and not Path(f"{path}-shm").exists():
                return None
            # A file whose log is empty or missing is in no transaction. SQLite would create a log to read it, unless it
            # is declared unchangeable. Otherwise an index that can't be written keeps SQLite from repairing it.
            return _read(path, "readonly_shm=1" if _size(log) else "immutable=1")
    except (sqlite3.Error, OSError) as error:
        if is_damage(error):
            return Inspection(damage=str(error), waiting={})
        translated = storage_error(error, path)
        if translated is None:
            raise
        raise translated from error


def users_of(path: Path) -> tuple[int, ...]:
    """
    Return the ids of the processes that have a queue open, as far as the system tells them: only Linux does.

    A process of another container has no id here and is reported as 0.
    """
    with suppress(OSError):
        locks = LOCKS.read_text().splitlines()
        inode = path.stat().st_ino
        pids = {_owner(line.split(), inode) for line in locks}
        return tuple(sorted(pid for pid in pids if pid is not None and pid != os.getpid()))
    return ()


def damaged_copies(path: Path) -> list[Path]:
    """Return the copies of damaged files that are beside a queue, without their companions."""
    with suppress(OSError):
        names = [each.name for each in path.parent.iterdir() if each.name.startswith(f"{path.name}{DAMAGED}")]
        return [path.with_name(name) for name in sorted(names) if not name.endswith(("-wal", "-shm", "-journal"))]
    return []


def _owner(lock: list[str], inode: int) -> int | None:
    """Return the process of a line such as ``1: POSIX ADVISORY READ 4711 fe:00:2146339 1073741826 1073742335``."""
    # A process that waits for a lock has "->" as its second word.
    words = [word for word in lock[1:] if word != "->"]
    if len(words) < 7 or words[0] != "POSIX" or words[4].rpartition(":")[2] != str(inode):
        return None
    # The range distinguishes the file from one of another file system that happens to have the same inode.
    return max(0, int(words[3])) if words[5].isdecimal() and int(words[5]) in _SHARED else None


_SHARED = range(SHARED_FIRST, SHARED_FIRST + SHARED_SIZE)


def _read(path: Path, option: str) -> Inspection:
    uri = f"{path.absolute().as_uri()}?mode=ro&{option}"
    with closing(sqlite3.connect(uri, uri=True, timeout=TIMEOUT, isolation_level=None)) as connection:
        connection.execute("BEGIN")
        version = schema_version(connection)
        if not version:
            # Created, and nothing was written to it yet.
            return Inspection(waiting={})
        if version > SCHEMA_VERSION:
            # What its tables mean is not known.
            return Inspection(version=version, waiting={})
        damage, is_checked = _check_pages(connection)
        if damage:
            return Inspection(version=version, damage=damage, is_checked=is_checked, waiting={})
        return _count(connection, version, is_checked=is_checked)


def _check_pages(connection: sqlite3.Connection) -> tuple[str, bool]:
    (size,) = connection.execute("SELECT page_count * page_size FROM pragma_page_count, pragma_page_size").fetchone()
    if size > MAX_CHECKED_BYTES:
        return "", False
    (found,) = connection.execute("PRAGMA quick_check(1)").fetchone()
    # Other lines name the database that was checked.
    return ("" if found == "ok" else str(found).splitlines()[-1]), True


def _count(connection: sqlite3.Connection, version: int, *, is_checked: bool) -> Inspection:
    leased = dict(connection.execute("SELECT route, count(*) FROM taken GROUP BY route"))
    waiting: dict[str, int] = {}
    oldest: list[float] = []
    for number, name, cursor in connection.execute("SELECT id, name, cursor FROM route").fetchall():
        bounds = (number << ROUTE_SHIFT, (number + 1) << ROUTE_SHIFT)
        within = "FROM record WHERE id >= ? AND id < ?"
        (last,) = connection.execute(f"SELECT coalesce(max(id), 0) {within}", bounds).fetchone()
        waiting[name] = waiting.get(name, 0) + max(0, last - max(cursor, bounds[0])) + leased.get(number, 0)
        oldest += [at for (at,) in connection.execute(f"SELECT CAST(at AS REAL) {within} ORDER BY id LIMIT 1", bounds)]
    (dead,) = connection.execute("SELECT count(*) FROM dead").fetchone()
    return Inspection(
        version=version,
        is_checked=is_checked,
        waiting=waiting,
        leased=sum(leased.values()),
        dead=dead,
        oldest=min(oldest, default=None),
        projects=_projects(connection),
    )


def _projects(connection: sqlite3.Connection) -> frozenset[str]:
    keys = connection.execute(f"SELECT substr(key, {len(PROJECT) + 1}) FROM state WHERE key LIKE '{PROJECT}%'")
    return frozenset(key for (key,) in keys)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0
