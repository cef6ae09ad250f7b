"""
Where a client keeps its queue, by its configuration.
"""

import os
from collections.abc import Callable
from pathlib import Path

from exponea_async.config import Configuration
from exponea_async.errors import DamagedFileError
from exponea_async.storage import default_path, open_storage
from exponea_async.storage.base import Storage

MEMORY = "memory:"


def place_of(configuration: Configuration, app_group: str | None) -> Path | str:
    """Tell where a client with this configuration keeps its queue: a file, or an address."""
    if configuration.storage is None:
        return default_path(configuration.project_token, app_group).resolve()
    storage = os.fspath(configuration.storage)
    return storage if storage == MEMORY or "://" in storage else Path(storage).resolve()


def storage_of(
    configuration: Configuration, app_group: str | None, report: Callable[[DamagedFileError], None]
) -> Storage:
    """Choose the storage of a client with this configuration; `report` hears of a damaged file."""
    return open_storage(
        configuration.storage,
        project_token=configuration.project_token,
        app_group=app_group,
        durability=configuration.queue.durability,
        max_records=configuration.queue.max_records,
        when_full=configuration.queue.when_full,
        report=report,
    )


async def wipe(configuration: Configuration, app_group: str | None) -> None:
    """
    Delete what such a client has stored; makes nothing that is not there.

    Raises:
        StorageError: The storage refused; what is stored is still there.
    """
    place = place_of(configuration, app_group)
    if isinstance(place, Path) and not place.exists():
        return
    storage = storage_of(configuration, app_group, lambda _: None)
    await storage.open()
    try:
        await storage.wipe()
    finally:
        await storage.aclose()
