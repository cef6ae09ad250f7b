"""
Rate limits that all clients of a schema share.
"""

from exponea_async.storage.postgres.connection import Connection, Connections
from exponea_async.storage.rates import MAX_SAVED_TIME

#: The clock is read within the statement, after the row of the limit is locked.
RESERVE = """
    INSERT INTO {s}.rate_limit AS l (name, next_at)
        VALUES ($1, extract(epoch FROM clock_timestamp()) + $2::float8)
        ON CONFLICT (name) DO UPDATE SET
            next_at = greatest(l.next_at, extract(epoch FROM clock_timestamp()) - $3::float8) + $2::float8
        RETURNING next_at - $2::float8 - extract(epoch FROM clock_timestamp())
"""


async def reserve(connections: Connections, name: str, count: int, rate: float) -> float:
    """
    Reserve requests of a rate limit.

    Args:
        connections: The connections.
        name: The name of the limit.
        count: The number of requests.
        rate: The maximum number of requests per second.

    Returns:
        The seconds from now until the first of them may be sent.
    """

    async def work(connection: Connection) -> float:
        wait = await connection.fetchval(connections.sql(RESERVE), name.encode(), count / rate, MAX_SAVED_TIME)
        return max(0.0, float(wait))

    # A reservation that the server loses in a crash only lets some requests be sent too early.
    return await connections.change(work, durable=False)
