"""The storage of records and states: one protocol, several backends."""

from exponea_async.storage.selection import MEMORY, create_storage, default_path, storage_location, wipe_storage

__all__ = ["MEMORY", "create_storage", "default_path", "storage_location", "wipe_storage"]
