"""
The backend that a configuration selects, and the location of its data.
"""

import asyncio
import os
import sys
from collections.abc import Callable, Iterable
from hashlib import sha256
from pathlib import Path
from types import ModuleType
from typing import cast
from urllib.parse import quote

from platformdirs import user_state_path

from exponea_async.config import Configuration, is_pool, is_postgres_url
from exponea_async.errors import ConfigurationError, StorageError
from exponea_async.storage.base import Storage
from exponea_async.storage.location import postgres_location

#: The ``storage`` setting that selects the backend without a file.
MEMORY = "memory:"
#: What to do where a path depends on the home directory, and there is none.
NO_HOME_HINT = "Set storage or EXPONEA_STORAGE to the path of a file, or the variable HOME."
#: Characters of a file's name for the project and for the app group each; both, with the suffixes that SQLite appends,
#: stay below 255, the usual limit of a file name.
MAX_NAME_LENGTH = 90


def create_storage(configuration: Configuration, report: Callable[[StorageError], None]) -> Storage:
    """
    Return the storage of a client, not yet open.

    Args:
        configuration: The client's settings.
        report: Called with a `DamagedFileError` when a damaged file was moved aside, and with a `WipedFileError` when
            another client has wiped the queue.

    Raises:
        ConfigurationError: The path depends on the home directory, and there is none; or the library for PostgreSQL is
            not installed.
    """
    queue = configuration.queue
    # Each backend is imported when it is selected: a client in memory does not pay for SQLite.
    if is_in_postgres(configuration):
        return _create_postgres_storage(configuration, report)
    if is_in_memory(configuration):
        from exponea_async.storage.memory import MemoryStorage  # noqa: PLC0415

        return MemoryStorage(max_records=queue.max_records, max_bytes=queue.max_bytes, when_full=queue.when_full)
    from exponea_async.storage.sqlite.storage import SQLiteStorage  # noqa: PLC0415

    return SQLiteStorage(
        _path(configuration),
        durability=queue.durability,
        max_records=queue.max_records,
        max_bytes=queue.max_bytes,
        when_full=queue.when_full,
        report=report,
        follow_links=queue.follow_links,
        lock_timeout=queue.lock_timeout,
    )


def queue_name(configuration: Configuration) -> str:
    """
    Return the name of a client's queue in PostgreSQL, where one schema holds those of several projects and groups.

    A project's token has no ``@``, so no two pairs of a project and a group share a name.
    """
    group = configuration.app_group
    return configuration.project_token if group is None else f"{configuration.project_token}@{group}"


def split_queue_name(name: str) -> tuple[str, str | None]:
    """Return the project's token and the app group that a queue in PostgreSQL belongs to."""
    project, separator, group = name.partition("@")
    return project, group if separator else None


def storage_location(configuration: Configuration) -> Path | str:
    """
    Return the location of a client's data, without secrets; not for the event loop's thread.

    It is the absolute path of its file, or `MEMORY`, or a string for a queue in PostgreSQL.

    Args:
        configuration: The client's settings.

    Raises:
        ConfigurationError: The path depends on the home directory, and there is none.
    """
    if is_in_postgres(configuration):
        return postgres_location(configuration.storage, configuration.postgres.schema, queue_name(configuration))
    return MEMORY if is_in_memory(configuration) else _path(configuration).resolve()


async def is_shared(configuration: Configuration, others: Iterable[Configuration]) -> bool:
    """Return whether the data of a client is where one of other clients has its data."""

    def compare() -> bool:
        location = storage_location(configuration)
        return any(storage_location(each) == location for each in others)

    return await asyncio.to_thread(compare)


def is_in_memory(configuration: Configuration) -> bool:
    """Return whether a client's data is in memory, and lost with the client."""
    storage = configuration.storage
    return isinstance(storage, str | os.PathLike) and os.fspath(storage) == MEMORY


def is_in_postgres(configuration: Configuration) -> bool:
    """Return whether a client's data is in PostgreSQL."""
    return is_postgres_url(configuration.storage) or is_pool(configuration.storage)


def _path(configuration: Configuration) -> Path:
    path = cast("str | os.PathLike[str] | None", configuration.storage)
    if path is None:
        return default_path(configuration.project_token, configuration.app_group)
    try:
        return Path(path).expanduser()
    except RuntimeError:
        raise ConfigurationError("storage", f"{path} has no home directory", NO_HOME_HINT) from None


async def wipe_storage(configuration: Configuration) -> None:
    """
    Delete what a client has stored, with all copies; a file or a schema that does not exist is not created.

    Args:
        configuration: The client's settings.

    Raises:
        ConfigurationError: The library for PostgreSQL is not installed.
        LifecycleError: The queue is open, in this or another process; nothing was deleted.
        StorageError: The storage refused; what is stored is still there.
    """
    if is_in_postgres(configuration):
        await _postgres().wipe_unused_queue(
            configuration.storage,
            queue_name(configuration),
            configuration.postgres,
            configuration.queue.lock_timeout,
        )
        return
    if is_in_memory(configuration):
        return
    from exponea_async.storage.sqlite.wiping import wipe_unused_file  # noqa: PLC0415

    await asyncio.to_thread(wipe_unused_file, _path(configuration), follow_links=configuration.queue.follow_links)


def _create_postgres_storage(configuration: Configuration, report: Callable[[StorageError], None]) -> Storage:
    queue = configuration.queue
    storage: Storage = _postgres().PostgresStorage(
        configuration.storage,
        queue_name(configuration),
        settings=configuration.postgres,
        durability=queue.durability,
        max_records=queue.max_records,
        max_bytes=queue.max_bytes,
        when_full=queue.when_full,
        report=report,
        lock_timeout=queue.lock_timeout,
    )
    return storage


def check_postgres_library() -> None:
    """
    Do nothing if the library for PostgreSQL is installed.

    Raises:
        ConfigurationError: It is not installed.
    """
    _postgres()


def _postgres() -> ModuleType:
    try:
        from exponea_async.storage.postgres import storage  # noqa: PLC0415 - asyncpg is an extra
    except ModuleNotFoundError as error:
        raise ConfigurationError(
            "storage", f"needs a library that is not installed, {error.name}", "pip install 'exponea-async[postgres]'"
        ) from error
    return storage


def default_path(project_token: str, app_group: str | None = None) -> Path:
    """
    Return the default path of a project's queue: a file in the user's state directory.

    Both arguments may be any string. A character that is not an ASCII letter, a digit, ``-`` or ``_`` is written as
    ``%XX``, byte by byte of its UTF-8, and the end of a name that is too long for a file system is replaced by a
    digest. So the file is always inside the directory, and no two pairs of arguments share a file.

    Args:
        project_token: The project; its queue is ``<project_token>.sqlite``.
        app_group: The application, where several keep their data apart; its queue is
            ``<project_token>@<app_group>.sqlite``. None and ``""`` mean no group.

    Raises:
        ConfigurationError: There is no home directory that the state directory could be in.
    """
    name = _file_name(project_token) + (f"@{_file_name(app_group)}" if app_group else "")
    try:
        directory = _state_directory()
    except RuntimeError:
        trouble = "must be set, because this process has no home directory for the default, a file in ~/.local/state"
        raise ConfigurationError("storage", trouble, NO_HOME_HINT) from None
    return directory / "exponea_async" / f"{name}.sqlite"


def _file_name(value: str) -> str:
    # `quote` leaves dots and tildes unchanged, but shells and file systems give ".." and "~" a meaning.
    name = quote(value, safe="", errors="surrogatepass").replace(".", "%2E").replace("~", "%7E")
    if len(name) <= MAX_NAME_LENGTH:
        return name
    digest = sha256(name.encode()).hexdigest()[:32]
    return f"{name[: MAX_NAME_LENGTH - len(digest)]}~{digest}"


def _state_directory() -> Path:
    """Return the user's state directory, which must not change with the version of platformdirs: queues are in it."""
    if sys.platform == "darwin":
        # Newer versions of platformdirs follow XDG_STATE_HOME on macOS, older ones do not.
        return Path.home() / "Library" / "Application Support"
    if sys.platform == "win32" and (local := Path(os.environ.get("LOCALAPPDATA", ""))).is_absolute():
        # platformdirs asks Windows, which does not know of a variable that was set for this process only.
        return local
    directory = user_state_path()
    # Older versions of platformdirs return a relative XDG_STATE_HOME. The XDG specification says to ignore it.
    return directory if directory.is_absolute() else Path.home() / ".local" / "state"
