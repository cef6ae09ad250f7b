"""The storage of records and states: one protocol, several backends."""

from exponea_async.storage.base import count_waiting
from exponea_async.storage.selection import (
    MEMORY,
    check_postgres_library,
    create_storage,
    default_path,
    is_in_memory,
    is_in_postgres,
    is_shared,
    queue_name,
    split_queue_name,
    storage_location,
    wipe_storage,
)

__all__ = [
    "MEMORY",
    "check_postgres_library",
    "count_waiting",
    "create_storage",
    "default_path",
    "is_in_memory",
    "is_in_postgres",
    "is_shared",
    "queue_name",
    "split_queue_name",
    "storage_location",
    "wipe_storage",
]
