"""
Deletes everything of a queue, for all clients.
"""

from exponea_async.errors import LifecycleError
from exponea_async.storage.postgres.connection import Connection, Connections
from exponea_async.storage.postgres.registration import GONE_AFTER, new_generation
from exponea_async.storage.postgres.schema import ROUTE_SHIFT

#: Waits until the transactions that are writing have ended; later ones see that the queue was wiped. Others wait behind
#: it meanwhile. It is tried for less time than it takes the server to find a deadlock, so it is never another's.
LOCK = """
    SET LOCAL lock_timeout = '500ms';
    LOCK TABLE {s}.state IN EXCLUSIVE MODE;
    LOCK TABLE {s}.record IN SHARE ROW EXCLUSIVE MODE
"""
WIPE = "UPDATE {s}.queue SET generation = $2 WHERE name = $1 RETURNING id"
WIPE_STATES = """
    WITH gone AS (DELETE FROM {s}.state WHERE queue = $1 RETURNING version)
    INSERT INTO {s}.floor SELECT $1, max(version) FROM gone HAVING count(*) > 0
"""
#: Their records are deleted afterwards: a route without a queue belongs to nobody.
WIPE_ROUTES = "UPDATE {s}.route SET queue = NULL WHERE queue = $1"
WIPE_DEAD = "DELETE FROM {s}.dead WHERE queue = $1"
WIPE_COUNTERS = "DELETE FROM {s}.counter WHERE queue = $1"
ORPHANS = "SELECT id FROM {s}.route WHERE queue IS NULL"
DELETE_RECORDS = f"""
    WITH slice AS (
        SELECT id FROM {{s}}.record WHERE id >= $1::bigint << {ROUTE_SHIFT} AND id < ($1::bigint + 1) << {ROUTE_SHIFT}
            ORDER BY id LIMIT $2
    ), gone AS (DELETE FROM {{s}}.record AS r USING slice WHERE r.id = slice.id RETURNING r.id)
    SELECT count(*) FROM gone
"""
DELETE_TAKEN = "DELETE FROM {s}.taken WHERE route = $1"
DELETE_MARKS = (
    f"DELETE FROM {{s}}.mark WHERE first >= $1::bigint << {ROUTE_SHIFT} AND first < ($1::bigint + 1) << {ROUTE_SHIFT}"
)
DELETE_ROUTE = "DELETE FROM {s}.route WHERE id = $1 AND queue IS NULL"
OPEN_CLIENTS = """
    SELECT count(*) FROM {s}.client AS c JOIN {s}.queue AS q ON q.id = c.queue
        WHERE q.name = $1 AND c.seen_at > clock_timestamp() - make_interval(secs => $2)
"""
#: Records that are deleted in one statement.
SLICE = 20_000


async def wipe(connections: Connections, name: str, *, only_if_unused: bool = False) -> int | None:
    """
    Let a queue be empty; its records are deleted by `delete_orphans`, if not here, then by another client later.

    Args:
        connections: The connections.
        name: The name of the queue.
        only_if_unused: Whether nothing is deleted while a client has the queue open.

    Returns:
        The generation of the new content; None if there is no such queue.

    Raises:
        LifecycleError: A client has the queue open; nothing was deleted.
        StorageError: The database refused; nothing was deleted.
    """

    async def work(connection: Connection) -> int | None:
        return await _wipe(connection, connections, name, only_if_unused=only_if_unused)

    return await connections.change(work, durable=True)


async def _wipe(connection: Connection, connections: Connections, name: str, *, only_if_unused: bool) -> int | None:
    sql, generation = connections.sql, new_generation()
    if only_if_unused and await connection.fetchval(sql(OPEN_CLIENTS), name, GONE_AFTER):
        raise LifecycleError(f"A client is running on the queue {name}.", hint="Await its stop_integration() instead.")
    await connection.execute(sql(LOCK))
    queue = await connection.fetchval(sql(WIPE), name, generation)
    if queue is None:
        return None
    for statement in (WIPE_STATES, WIPE_ROUTES, WIPE_DEAD, WIPE_COUNTERS):
        await connection.execute(sql(statement), queue)
    return generation


async def delete_orphans(connections: Connections) -> None:
    """Delete the records of wiped queues, a part at a time."""
    for row in await connections.fetch(ORPHANS):
        route = row["id"]

        async def delete_some(connection: Connection, route: int = route) -> int:
            count: int = await connection.fetchval(connections.sql(DELETE_RECORDS), route, SLICE)
            return count

        async def delete_rest(connection: Connection, route: int = route) -> None:
            for statement in (DELETE_TAKEN, DELETE_MARKS, DELETE_ROUTE):
                await connection.execute(connections.sql(statement), route)

        while await connections.change(delete_some):
            pass
        await connections.change(delete_rest)
