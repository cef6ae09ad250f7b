"""
Statements that take records out of the queue: with marks of what became of them, and the counters.
"""

from collections.abc import Sequence

from exponea_async.storage.postgres.connection import Connection, Connections
from exponea_async.storage.postgres.counters import add_counts
from exponea_async.storage.postgres.writes import ROW_SIZE

#: What became of records, in ``mark``: delivered, rejected with a dead letter that was deleted, or deleted unsent.
DELIVERED, REJECTED, DROPPED = b"d", b"r", b"x"

#: Marks are ranges of ids, since records are delivered almost in the order of their ids.
_MARK = """
    INSERT INTO {{s}}.mark (first, last, outcome, marked_at)
        SELECT min(id), max(id), {outcome}, extract(epoch FROM clock_timestamp())
            FROM (SELECT id, id - row_number() OVER (ORDER BY id) AS island FROM {source}) AS islands
            GROUP BY island ON CONFLICT DO NOTHING
"""


def mark(source: str, outcome: str) -> str:
    """Return a statement that marks the records of a table expression with a column ``id``."""
    return _MARK.format(source=source, outcome=outcome)


_GONE = "DELETE FROM {s}.taken WHERE id = ANY ($1::bigint[]) RETURNING id"
_SIZE = f"octet_length(r.body) + {ROW_SIZE}"
#: Not a join: where its statistics are old, the server may compare each with each.
_LEASED = "DELETE FROM {s}.record AS r WHERE r.id = ANY (ARRAY(SELECT id FROM gone))"


def _count_removed(dead: str = "0") -> str:
    """Return a statement that takes the removed records off the counters."""
    return add_counts(
        "removed",
        "$2::integer",
        "$3::bigint",
        "$4::smallint",
        waiting="-count(*)",
        leased="-count(*) FILTER (WHERE id IN (SELECT id FROM gone))",
        dead=dead,
        size="-sum(size)",
    )


#: Waits for leases that are being taken, and lets no others begin.
LOCK_RECORDS = "SELECT FROM {s}.record WHERE id = ANY ($1::bigint[]) ORDER BY id FOR UPDATE"
#: Delete records, leased or not, which are locked; returns how many.
REMOVE = f"""
    WITH gone AS ({_GONE}),
    removed AS (DELETE FROM {{s}}.record AS r WHERE r.id = ANY ($1::bigint[]) RETURNING r.id, {_SIZE} AS size),
    marked AS ({mark("removed", '$5::"char"')}),
    counted AS ({_count_removed()})
    SELECT count(*) FROM removed
"""
#: Delete records that were leased, as delivered; returns how many.
SETTLE_DELIVERED = f"""
    WITH gone AS ({_GONE}),
    removed AS ({_LEASED} RETURNING r.id, {_SIZE} AS size),
    marked AS ({mark("removed", '$5::"char"')}),
    counted AS ({_count_removed()})
    SELECT count(*) FROM removed
"""
#: Make dead letters of records that were leased; returns how many.
SETTLE_DEAD = f"""
    WITH gone AS ({_GONE}),
    removed AS ({_LEASED} RETURNING r.id, r.at, r.body, {_SIZE} AS size),
    buried AS (
        INSERT INTO {{s}}.dead (id, queue, at, body, died_at, reason)
            SELECT id, $2, at, body, $5, u.reason FROM removed
                JOIN unnest($1::bigint[], $6::text[]) AS u (id, reason) USING (id)
            ON CONFLICT DO NOTHING
    ),
    counted AS ({_count_removed(dead="count(*)")})
    SELECT count(*) FROM removed
"""
#: Delay records that were leased.
SETTLE_LATER = """
    UPDATE {s}.taken AS t SET due = u.due, failures = u.failures, reason = u.reason
        FROM unnest($1::bigint[], $2::float8[], $3::integer[], $4::text[]) AS u (id, due, failures, reason)
        WHERE t.id = u.id AND t.id = ANY ($1::bigint[])
"""


async def remove(
    connection: Connection, connections: Connections, ids: Sequence[int], owner: tuple[int, int, int], outcome: bytes
) -> int:
    """
    Delete records, leased or not.

    Args:
        connection: The connection, within a transaction.
        connections: The connections.
        ids: The ids of the records.
        owner: The queue, the client and the lane whose counters are changed.
        outcome: What becomes of the records.

    Returns:
        The number of deleted records.
    """
    # In a statement of its own: the next one sees the leases that were waited for.
    await connection.execute(connections.sql(LOCK_RECORDS), ids)
    count: int = await connection.fetchval(connections.sql(REMOVE), ids, *owner, outcome)
    return count
