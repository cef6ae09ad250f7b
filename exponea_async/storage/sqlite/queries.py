"""
Reading the queue and the states, and maintaining the dead letters.

All functions are called within a transaction.
"""

import time
from collections.abc import Iterable, Iterator, Sequence
from heapq import merge
from itertools import islice

from exponea_async.storage.base import (
    DELETED_LETTER,
    FIRST_PLAUSIBLE_TIME,
    DeadLetter,
    Pending,
    RecordStatus,
    State,
    Waiting,
    Watermark,
)
from exponea_async.storage.clock import to_unix, uptime
from exponea_async.storage.rates import advance
from exponea_async.storage.sqlite.connection import QueueConnection, Route, chunks, parse_ids
from exponea_async.storage.sqlite.marks import find_marks
from exponea_async.storage.sqlite.schema import RATE, ROUTE_SHIFT
from exponea_async.storage.sqlite.space import disk_bytes, is_out_of_space

# Columns whose values are converted: a damaged or foreign value of another type must not make other rows unreadable.
BODY = "CAST(body AS BLOB)"
AT = "CAST(at AS REAL)"
STATE = "CAST(value AS BLOB), CAST(version AS INTEGER), CASE typeof(active) WHEN 'real' THEN active END"
LOAD_STATE = f"SELECT {STATE} FROM state LEFT JOIN activity USING (id) WHERE key = ?"
#: In the order of the index, so that only states of equal times are sorted.
LISTED = "FROM activity JOIN state USING (id) WHERE listed < ? ORDER BY listed, key LIMIT ?"
EXPIRED = f"SELECT listed IS active, key, {STATE} {LISTED}"
RELIST = f"UPDATE activity SET listed = active WHERE id IN (SELECT id {LISTED}) AND listed IS NOT active"

#: Counters are integers.
MICROSECONDS = 1_000_000
#: How many activities are looked at, and listed anew, in one transaction, which takes a few milliseconds.
RELISTED = 1000
#: How many leased records are compared at most to find the oldest one.
MAX_COMPARED = 1000

_QUEUED = RecordStatus("queued")
_BY_OUTCOME = {
    "delivered": RecordStatus("delivered"),
    "rejected": RecordStatus("rejected", DELETED_LETTER),
    "dropped": RecordStatus("dropped"),
}


def watermark(connection: QueueConnection) -> Watermark:
    """Return the last id of each route, by the number of the route."""
    return {str(number): str(route.last) for number, route in connection.routes_by_number.items()}


def remaining(connection: QueueConnection, watermark: Watermark, skip: frozenset[str], limit: int) -> int:
    """Return how many records at or below a watermark are still in the queue, at most `limit`."""
    routes = [
        (route, int(watermark[str(number)]))
        for number, route in connection.routes_by_number.items()
        if str(number) in watermark and route.name not in skip
    ]
    total = sum(max(0, last - route.cursor) for route, last in routes)
    sql = "SELECT count(*) FROM (SELECT 1 FROM taken WHERE id >= ? AND id <= ? LIMIT ?)"
    for route, last in routes:
        if total >= limit:
            return limit
        first = route.number << ROUTE_SHIFT
        total += int(connection.execute(sql, (first, last, limit - total)).fetchone()[0])
    return total


def pending(connection: QueueConnection) -> Pending:
    """Return the number of records."""
    leased = dict(connection.execute("SELECT route, count(*) FROM taken GROUP BY route"))
    routes = dict.fromkeys((route.name for route in connection.routes_by_number.values()), 0)
    for number, route in connection.routes_by_number.items():
        routes[route.name] += route.last - route.cursor + leased.get(number, 0)
    dead = connection.execute("SELECT count(*) FROM dead").fetchone()[0]
    waiting = sum(routes.values())
    oldest_at = _oldest_at(connection) if waiting else None
    is_full = waiting >= connection.max_records or is_out_of_space(connection)
    return Pending(waiting, sum(leased.values()), dead, routes, oldest_at, disk_bytes(connection), is_full)


def _oldest_at(connection: QueueConnection) -> float | None:
    """
    Return when the oldest record was written, UNIX seconds.

    Revived records were written again, but have their old ids, so that the order of ids is not that of time among the
    leased records. Only the first ones are compared: nothing is written while all of them would be read.
    """
    untouched = f"SELECT {AT} FROM record WHERE id > ? AND id < ? ORDER BY id LIMIT 1"
    leased = (
        f"SELECT min({AT}) FROM record WHERE id IN (SELECT id FROM taken WHERE id >= ? AND id < ? ORDER BY id LIMIT ?)"
    )
    limit = MAX_COMPARED // max(1, len(connection.routes_by_number)) + 1
    found = []
    for number, route in connection.routes_by_number.items():
        first = number << ROUTE_SHIFT
        found.append(connection.execute(untouched, (max(route.cursor, first), route.end)).fetchone())
        found.append(connection.execute(leased, (first, route.end, limit)).fetchone())
    return min((row[0] for row in found if row and row[0] is not None), default=None)


def find(connection: QueueConnection, ids: Iterable[str]) -> dict[str, RecordStatus]:
    """Return what became of records, by id."""
    statuses: dict[int, RecordStatus] = {}
    numbers = parse_ids(ids)
    for placeholders, some in chunks(numbers):
        for (key,) in connection.execute(f"SELECT id FROM record WHERE id IN ({placeholders})", some):
            statuses[key] = _QUEUED
        for key, reason in connection.execute(f"SELECT id, reason FROM dead WHERE id IN ({placeholders})", some):
            statuses[key] = RecordStatus("rejected", reason)
    outcomes = find_marks(connection, [key for key in numbers if key not in statuses])
    statuses.update((key, _BY_OUTCOME[outcome]) for key, outcome in outcomes.items())
    return {str(key): status for key, status in statuses.items()}


def waiting(connection: QueueConnection, limit: int) -> list[Waiting]:
    """Return the oldest records."""
    by_age = merge(*(_waiting(connection, route) for route in connection.routes_by_number.values()), key=_written_at)
    return list(islice(by_age, limit))


def _waiting(connection: QueueConnection, route: Route) -> Iterator[Waiting]:
    sql = (
        f"SELECT r.id, {BODY}, {AT}, CAST(coalesce(t.failures, 0) AS INTEGER), CAST(t.due AS REAL),"
        " CAST(coalesce(t.reason, '') AS TEXT)"
        " FROM record r LEFT JOIN taken t ON t.id = r.id WHERE r.id >= ? AND r.id < ? ORDER BY r.id"
    )
    for key, body, at, failures, due, reason in connection.execute(sql, (route.number << ROUTE_SHIFT, route.end)):
        yield Waiting(str(key), route.name, body, at, failures, 0.0 if due is None else to_unix(due), reason)


def _written_at(record: Waiting) -> float:
    return record.at


def dead(connection: QueueConnection, limit: int) -> list[DeadLetter]:
    """Return the newest dead letters."""
    rows = connection.execute(
        f"SELECT id, {BODY}, {AT}, CAST(died_at AS REAL), CAST(reason AS TEXT) FROM dead"
        " ORDER BY died_at DESC, id DESC LIMIT ?",
        (limit,),
    )
    routes = connection.routes_by_number
    return [
        DeadLetter(str(key), route.name if (route := routes.get(key >> ROUTE_SHIFT)) else "", *others)
        for key, *others in rows
    ]


def load_state(connection: QueueConnection, key: str) -> State | None:
    """Return a state, or None."""
    row = connection.execute(LOAD_STATE, (key,)).fetchone()
    return State(*row) if row else None


def expired_sessions(connection: QueueConnection, before: float, limit: int) -> list[tuple[str, State]] | None:
    """
    Return the states whose last activity is before a time, the earliest first.

    Returns:
        The states; None where one of the first was active after its listed time, so that `relist` must be called.
    """
    rows = connection.execute(EXPIRED, (before, max(0, limit))).fetchall()
    return [(key, State(*others)) for _, key, *others in rows] if all(row[0] for row in rows) else None


def relist(connection: QueueConnection, before: float, limit: int) -> None:
    """Set listed times to the last activities, at least those of the states that `expired_sessions` looks at."""
    connection.execute(RELIST, (before, max(limit, RELISTED)))


def reserve(connection: QueueConnection, name: str, count: int, rate: float) -> float:
    """Reserve requests of a shared rate limit; return the wait until the first one, in seconds."""
    counter = f"{RATE}{name}"
    wait, next_at = advance(connection.counter(counter) / MICROSECONDS, uptime(), count, rate)
    connection.set_counter(counter, round(next_at * MICROSECONDS))
    return wait


def generation(connection: QueueConnection) -> int:
    """Return the number that identifies the content of the file."""
    return connection.counter("generation")


def revive(connection: QueueConnection, ids: Iterable[str] | None) -> int:
    """Put dead letters back into the queue, due at once; return their number."""
    revived = 0
    for clause, values in _where(ids):
        # As if written now: a record that was given up for its age must not be given up again before it is sent.
        connection.execute(f"INSERT INTO record SELECT id, ?, body FROM dead{clause}", (time.time(), *values))
        # Their ids are at or below the cursor again, so they need rows in `taken`.
        connection.execute(f"INSERT INTO taken SELECT id, id >> {ROUTE_SHIFT}, 0, 0, '' FROM dead{clause}", values)
        revived += connection.execute(f"DELETE FROM dead{clause}", values).rowcount
    connection.add_leased(revived)
    return revived


def purge(connection: QueueConnection, ids: Iterable[str] | None) -> int:
    """Delete dead letters; return their number."""
    purged = 0
    for clause, values in _where(ids):
        found = [key for (key,) in connection.execute(f"SELECT id FROM dead{clause} ORDER BY id", values)]
        if found:
            connection.mark(found, "rejected")
            purged += connection.execute(f"DELETE FROM dead{clause}", values).rowcount
    return purged


def must_prune(connection: QueueConnection, max_count: int, before: float) -> bool:
    """Return whether `prune` would delete any dead letter."""
    sql = "SELECT (SELECT count(*) FROM dead) > ? OR EXISTS (SELECT 1 FROM dead WHERE died_at >= ? AND died_at < ?)"
    return bool(connection.execute(sql, (max_count, FIRST_PLAUSIBLE_TIME, before)).fetchone()[0])


def prune(connection: QueueConnection, max_count: int, before: float) -> tuple[str, ...]:
    """Delete the oldest dead letters, and return their ids."""
    sql = (
        "SELECT id FROM dead WHERE died_at >= ? AND died_at < ? UNION ALL"
        " SELECT id FROM (SELECT id FROM dead ORDER BY died_at DESC, id DESC LIMIT -1 OFFSET ?)"
    )
    found = {key for (key,) in connection.execute(sql, (FIRST_PLAUSIBLE_TIME, before, max_count))}
    ids = tuple(map(str, sorted(found)))
    purge(connection, ids)
    return ids


def rename_route(connection: QueueConnection, old: str, new: str) -> None:
    """Give all records and dead letters of a route another one; they keep their ids."""
    connection.execute("UPDATE route SET name = ? WHERE name = ?", (new, old))
    connection.reload()


def drop_waiting(connection: QueueConnection, names: frozenset[str]) -> int:
    """Delete the records of some routes; return their number."""
    dropped = 0
    for route in [route for route in connection.routes_by_number.values() if route.name in names]:
        bounds = (route.number << ROUTE_SHIFT, route.end)
        ids = [key for (key,) in connection.execute("SELECT id FROM record WHERE id >= ? AND id < ?", bounds)]
        connection.move_cursor(route, route.last)
        dropped += connection.remove(ids, "dropped")
    return dropped


def _where(ids: Iterable[str] | None) -> Iterator[tuple[str, Sequence[int]]]:
    """Yield the WHERE clauses, with their values, that select dead letters: some, or for None all."""
    if ids is None:
        yield "", ()
        return
    for placeholders, some in chunks(parse_ids(ids)):
        yield f" WHERE id IN ({placeholders})", some
