"""The storage of records and states: one protocol, several backends."""

from exponea_async.storage.base import count_waiting
from exponea_async.storage.selection import (
    MEMORY,
    create_storage,
    default_path,
    is_shared,
    storage_location,
    wipe_storage,
)

__all__ = ["MEMORY", "count_waiting", "create_storage", "default_path", "is_shared", "storage_location", "wipe_storage"]
