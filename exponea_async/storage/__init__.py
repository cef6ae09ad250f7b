"""Where records wait and state is remembered: one protocol, several backends."""

import os
import sys
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Literal
from urllib.parse import quote

from exponea_async.errors import ConfigurationError, DamagedFileError
from exponea_async.storage.base import Storage

__all__ = ["default_path", "open_storage"]

#: Characters of a file's name that a text may take; twice that, and what SQLite adds, stays below the usual 255.
LONGEST = 90

REDIS_SCHEMES = ("redis://", "rediss://", "unix://")


def open_storage(
    storage: str | os.PathLike[str] | None,
    *,
    project_token: str,
    app_group: str | None = None,
    durability: Literal["process", "power"],
    max_records: int,
    when_full: Literal["raise", "wait", "drop_oldest"],
    report: Callable[[DamagedFileError], None],
) -> Storage:
    """
    Choose the backend for a ``storage`` setting; the caller then awaits its ``open()``.

    Args:
        storage: A file's path, ``"memory:"``, or None for `default_path`.
        project_token: Names the default file.
        app_group: Keeps applications that share a project apart, in the default file only.
        durability: What a kept record survives: the end of the ``"process"``, or a loss of ``"power"``.
        max_records: How many records may wait.
        when_full: What happens to a write without room.
        report: Called with the error when a damaged file was moved aside.

    Raises:
        ConfigurationError: The setting asks for a backend that is not here.
    """
    # Each backend is imported when it is chosen: memory's users don't pay for SQLite.
    if storage == "memory:":
        from exponea_async.storage.memory import MemoryStorage  # noqa: PLC0415

        return MemoryStorage(max_records=max_records, when_full=when_full)
    if isinstance(storage, str) and storage.startswith(REDIS_SCHEMES):
        # What follows the scheme may hold a password and is not shown.
        raise ConfigurationError(
            "storage",
            "this release has no Redis backend yet",
            "Use a file's path, 'memory:', or None for the default file.",
        )
    from exponea_async.storage.sqlite.storage import SQLiteStorage  # noqa: PLC0415

    return SQLiteStorage(
        default_path(project_token, app_group) if storage is None else Path(storage),
        durability=durability,
        max_records=max_records,
        when_full=when_full,
        report=report,
    )


def default_path(project_token: str, app_group: str | None = None) -> Path:
    """
    Tell where a project's queue lies by default: in the user's state directory.

    Args:
        project_token: The project; its queue is ``<project_token>.sqlite``.
        app_group: The application, where several keep their data apart; its queue is
            ``<project_token>@<app_group>.sqlite``. None and ``""`` stand for no group.

    Both may be any text. What is neither an ASCII letter, a digit nor one of ``-_`` stands in the name as ``%XX``,
    byte by byte of its UTF-8, and of a name too long for a file system the end is replaced by a digest. So no name
    leaves the directory, and no two pairs share a file.
    """
    name = _file_name(project_token) + (f"@{_file_name(app_group)}" if app_group else "")
    return _state_directory() / "exponea_async" / f"{name}.sqlite"


def _file_name(text: str) -> str:
    # Dots and tildes are left alone by `quote`, yet ".." and "~" mean something to shells and file systems.
    name = quote(text, safe="", errors="surrogatepass").replace(".", "%2E").replace("~", "%7E")
    if len(name) <= LONGEST:
        return name
    digest = sha256(name.encode()).hexdigest()[:32]
    return f"{name[: LONGEST - len(digest)]}~{digest}"


def _state_directory() -> Path:
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Application Support"
    if sys.platform == "win32":
        return _directory("LOCALAPPDATA") or Path.home() / "AppData" / "Local"
    return _directory("XDG_STATE_HOME") or Path.home() / ".local" / "state"


def _directory(variable: str) -> Path | None:
    # A relative value is to be ignored, says the XDG base directory specification.
    path = Path(os.environ.get(variable, ""))
    return path if path.is_absolute() else None
