"""
The location of a queue in PostgreSQL, for log lines and for comparing it with others.
"""

from typing import Any

from exponea_async.config import database_address


def postgres_location(source: Any, schema: str, queue: str) -> str:
    """
    Return what identifies a queue in PostgreSQL, without user and password.

    Args:
        source: The URL of the database, or a pool. A pool does not tell which database it is connected to, so only the
            same pool has the same location.
        schema: The schema of the tables.
        queue: The name of the queue.
    """
    database = database_address(source) if isinstance(source, str) else f"postgresql (pool {id(source):#x})"
    return f"{database} (schema {schema}, queue {queue})"
