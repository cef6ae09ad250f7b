"""
Makes room in a full queue by deleting its oldest records.
"""

from math import inf

from exponea_async.storage.postgres.capacity import TOTALS, Capacity
from exponea_async.storage.postgres.connection import Connection, Connections
from exponea_async.storage.postgres.counters import WRITE_LANE
from exponea_async.storage.postgres.registration import Registration
from exponea_async.storage.postgres.removal import DROPPED, remove
from exponea_async.storage.postgres.schema import ROUTE_SHIFT
from exponea_async.storage.postgres.writes import ROW_SIZE

#: The oldest untouched records, and the oldest others behind them.
OLDEST_UNTOUCHED = f"""
    SELECT r.id, octet_length(r.body) + {ROW_SIZE} AS size
        FROM (SELECT id AS route FROM {{s}}.route WHERE queue = $1) AS u CROSS JOIN LATERAL (
            SELECT id, at, body FROM {{s}}.record
                WHERE id >= u.route::bigint << {ROUTE_SHIFT} AND id < (u.route::bigint + 1) << {ROUTE_SHIFT}
                    AND (SELECT t.id FROM {{s}}.taken AS t WHERE t.id = record.id) IS NULL
                ORDER BY id LIMIT $2
        ) AS r ORDER BY r.at, r.id LIMIT $2
"""
OLDEST_LEASED = f"""
    SELECT r.id, octet_length(r.body) + {ROW_SIZE} AS size
        FROM {{s}}.taken AS t JOIN {{s}}.record AS r ON r.id = t.id
        WHERE t.route IN (SELECT id FROM {{s}}.route WHERE queue = $1) ORDER BY r.at, r.id LIMIT $2
"""
#: Records that are looked at beyond the number that is needed, since more may be needed for their size.
MORE = 100


async def drop_oldest(
    connection: Connection, connections: Connections, registration: Registration, count: float, size: float
) -> tuple[str, ...]:
    """
    Delete the oldest untouched records, and leased ones, oldest first, only where there are no others.

    Args:
        connection: The connection, within a transaction.
        connections: The connections.
        registration: The client.
        count: How many at least.
        size: How many bytes at least.

    Returns:
        The ids of the deleted records, oldest first.
    """
    dropped: list[int] = []
    for statement in (OLDEST_UNTOUCHED, OLDEST_LEASED):
        while count > 0 or size > 0:
            limit = max(0, int(count)) + MORE
            rows = await connection.fetch(connections.sql(statement), registration.queue, limit)
            chosen = []
            for row in rows:
                if count <= 0 and size <= 0:
                    break
                chosen.append(row["id"])
                count, size = count - 1, size - row["size"]
            if not chosen:
                break
            owner = registration.queue, registration.client, WRITE_LANE
            await remove(connection, connections, chosen, owner, DROPPED)
            dropped += chosen
    return tuple(map(str, dropped))


async def drop_excess(
    connection: Connection, connections: Connections, registration: Registration, capacity: Capacity
) -> tuple[str, ...]:
    """
    Delete what exceeds the capacity, as `drop_oldest` does; the transactions of applications may have exceeded it.

    Args:
        connection: The connection, within a transaction.
        connections: The connections.
        registration: The client.
        capacity: The limits of the queue.

    Returns:
        The ids of the deleted records, oldest first.
    """
    records, size = await connection.fetchrow(connections.sql(TOTALS), registration.queue)
    max_bytes = inf if capacity.max_bytes is None else capacity.max_bytes
    return await drop_oldest(connection, connections, registration, records - capacity.max_records, size - max_bytes)
