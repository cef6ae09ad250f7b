"""
Erases what belongs to one end user, in one transaction.
"""

import asyncio
from collections.abc import Sequence

from exponea_async.storage.erasure import Erased, Erasure
from exponea_async.storage.postgres.connection import Connection, Connections
from exponea_async.storage.postgres.counters import MAINTENANCE_LANE
from exponea_async.storage.postgres.dead_letters import PURGE
from exponea_async.storage.postgres.registration import Registration
from exponea_async.storage.postgres.removal import DROPPED, REJECTED, remove
from exponea_async.storage.postgres.schema import ROUTE_SHIFT
from exponea_async.storage.postgres.transaction import LOCK_NUMBER

RECORDS = f"""
    SELECT r.id, r.body FROM {{s}}.route AS o JOIN {{s}}.record AS r
        ON r.id >= o.id::bigint << {ROUTE_SHIFT} AND r.id < (o.id::bigint + 1) << {ROUTE_SHIFT}
        WHERE o.queue = $1 AND EXISTS (SELECT FROM unnest($2::bytea[]) AS u (trace) WHERE position(trace IN r.body) > 0)
"""
LETTERS = """
    SELECT id, body FROM {s}.dead
        WHERE queue = $1 AND EXISTS (SELECT FROM unnest($2::bytea[]) AS u (trace) WHERE position(trace IN body) > 0)
"""
STATES = "SELECT key, value FROM {s}.state WHERE queue = $1"
DELETE_STATES = """
    WITH gone AS (DELETE FROM {s}.state WHERE queue = $1 AND key = ANY ($2::bytea[]) RETURNING version)
    INSERT INTO {s}.floor SELECT $1, max(version) FROM gone HAVING count(*) > 0
"""
WAIT_FOR_KEYS = f"SELECT pg_advisory_xact_lock({LOCK_NUMBER}) FROM unnest($2::bytea[]) AS u (key)"
REPLACE_STATE = """
    INSERT INTO {s}.state AS s (queue, key, value, version)
        VALUES ($1, $2, $3, 1 + coalesce((SELECT max(version) FROM {s}.floor WHERE queue = $1), 0))
        ON CONFLICT (queue, key)
        DO UPDATE SET value = excluded.value, version = s.version + 1, active = NULL, active_from = NULL
"""


async def erase(
    connection: Connection, connections: Connections, registration: Registration, erasure: Erasure
) -> Erased:
    """Erase what is selected. It takes longer the longer the queue is, since each record is looked at."""
    sql, queue, client = connections.sql, registration.queue, registration.client
    traces = list(erasure.traces)
    # The states first: a commit that changes one of them is waited for, and its records are found below.
    rows = await connection.fetch(sql(STATES), queue)
    # In threads, since there may be many: the event loop goes on.
    states = await asyncio.to_thread(_selected_states, rows, erasure)
    if states:
        await connection.execute(sql(DELETE_STATES), queue, [key.encode() for key in states])
    # They may be new: a commit that is about to create one of them must not overwrite it.
    await connection.fetch(sql(WAIT_FOR_KEYS), str(queue), sorted(key.encode() for key in erasure.states))
    for key, value in erasure.states.items():
        await connection.execute(sql(REPLACE_STATE), queue, key.encode(), value)
    rows = await connection.fetch(sql(RECORDS), queue, traces)
    records = await asyncio.to_thread(_selected, rows, erasure)
    if records:
        await remove(connection, connections, records, (queue, client, MAINTENANCE_LANE), DROPPED)
    rows = await connection.fetch(sql(LETTERS), queue, traces)
    letters = await asyncio.to_thread(_selected, rows, erasure)
    if letters:
        await connection.fetchval(sql(PURGE), queue, client, letters, REJECTED)
    return Erased(tuple(map(str, records)), tuple(map(str, letters)), tuple(states))


def _selected(rows: "Sequence[tuple[int, bytes]]", erasure: Erasure) -> list[int]:
    return sorted({key for key, body in rows if erasure.is_record(body)})


def _selected_states(rows: "Sequence[tuple[bytes, bytes]]", erasure: Erasure) -> list[str]:
    return sorted(erasure.select_states([(key.decode(), value) for key, value in rows]))
