"""
The counters of records, by route, whose sums are the size of the queue.

A row is written by one lane of one client: by one connection at a time. So no two transactions wait for the same row.
The transactions of applications have rows of their own.
"""

from exponea_async.storage.postgres.schema import ROUTE_SHIFT

#: The lanes: commits, leases, settlements and maintenance.
WRITE_LANE, LEASE_LANE, SETTLE_LANE, MAINTENANCE_LANE = range(4)

#: What adds the numbers of new rows to those that exist.
ADD = """
    ON CONFLICT (queue, client, lane, route) DO UPDATE SET
        waiting = t.waiting + excluded.waiting, leased = t.leased + excluded.leased,
        dead = t.dead + excluded.dead, size = t.size + excluded.size
"""
_ADD_COUNTS = f"""
    INSERT INTO {{{{s}}}}.counter AS t (queue, client, lane, route, waiting, leased, dead, size)
        SELECT {{queue}}, {{client}}, {{lane}}, id >> {ROUTE_SHIFT}, {{waiting}}, {{leased}}, {{dead}}, {{size}}
            FROM {{source}} GROUP BY id >> {ROUTE_SHIFT}
    {ADD}
"""


def add_counts(
    source: str,
    queue: str,
    client: str,
    lane: str,
    *,
    waiting: str = "0",
    leased: str = "0",
    dead: str = "0",
    size: str = "0",
) -> str:
    """Return a statement that adds to the counters, by the routes of a table expression with a column ``id``."""
    return _ADD_COUNTS.format(
        source=source,
        queue=queue,
        client=client,
        lane=lane,
        waiting=waiting,
        leased=leased,
        dead=dead,
        size=size,
    )
