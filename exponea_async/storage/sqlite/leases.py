"""
Leasing and settling records.
"""

import logging
import sqlite3
import time
from collections.abc import Sequence
from contextlib import suppress
from itertools import groupby

from exponea_async.storage.base import MAX_DUE_AHEAD, Leased, Settlement
from exponea_async.storage.sqlite.connection import QueueConnection, Route, chunks, parse_ids
from exponea_async.storage.sqlite.schema import ROUTE_SHIFT

LOG = logging.getLogger("exponea_async")


class LeaseRequest:
    """
    The lease that one caller asks for.

    Args:
        limit: The maximum number of records.
        due: The end of the lease, when the records fall due again, in seconds since the start of the machine.
        now: The present time, in the same seconds.
        skip: Routes to leave out.
        only: The only route to lease from, or None for all.
        untouched_first: Whether untouched records come first within a route.
    """

    __slots__ = ("due", "limit", "now", "only", "skip", "untouched_first")

    def __init__(
        self,
        limit: int,
        due: float,
        now: float,
        skip: frozenset[str],
        only: str | None,
        *,
        untouched_first: bool = False,
    ) -> None:
        self.limit = limit
        self.due = due
        self.now = now
        self.skip = skip
        self.only = only
        self.untouched_first = untouched_first

    def routes(self, connection: QueueConnection) -> Sequence[Route]:
        """Return the routes to lease from."""
        routes = connection.routes_by_number.values()
        return [route for route in routes if route.name not in self.skip and self.only in (None, route.name)]


def has_due(connection: QueueConnection, request: LeaseRequest) -> bool:
    """Return whether a lease would find any record; within a transaction."""
    for route in request.routes(connection):
        if route.last > route.cursor:
            return True
        sql = "SELECT 1 FROM taken WHERE route = ? AND (due <= ? OR due > ?) LIMIT 1"
        if connection.execute(sql, (route.number, request.now, request.now + MAX_DUE_AHEAD)).fetchone():
            return True
    return False


def lease(connection: QueueConnection, request: LeaseRequest) -> list[Leased]:
    """Lease due records; within a write transaction."""
    routes = request.routes(connection)
    leased: list[Leased] = []
    order = (_lease_returning, _lease_untouched)
    if request.untouched_first:
        order = order[::-1]
    # Routes take turns at coming first, so that a busy one does not starve the others.
    connection.lease_count += 1
    for index in range(len(routes)):
        route = routes[(index + connection.lease_count) % len(routes)]
        for take in order:
            if len(leased) < request.limit:
                leased += take(connection, route, request, request.limit - len(leased))
    return leased


def _lease_returning(connection: QueueConnection, route: Route, request: LeaseRequest, limit: int) -> list[Leased]:
    """Lease records that were leased before and are due again, or whose due time comes from a wrong clock."""
    sql = "SELECT t.id FROM taken t JOIN record r ON r.id = t.id WHERE t.route = ?"
    due = connection.execute(f"{sql} AND t.due <= ? ORDER BY t.due, t.id LIMIT ?", (route.number, request.now, limit))
    ids = [key for (key,) in due]
    if len(ids) < limit:
        too_far_ahead = connection.execute(
            f"{sql} AND t.due > ? ORDER BY t.due, t.id LIMIT ?",
            (route.number, request.now + MAX_DUE_AHEAD, limit - len(ids)),
        )
        ids += [key for (key,) in too_far_ahead]
    leased: dict[int, Leased] = {}
    for placeholders, some in chunks(ids):
        connection.execute(f"UPDATE taken SET due = ?, reason = '' WHERE id IN ({placeholders})", (request.due, *some))
        for key, body, at in _read(connection, f"id IN ({placeholders})", some):
            leased[key] = Leased(str(key), route.name, body, at, 0)
        failed = f"SELECT id, CAST(failures AS INTEGER) FROM taken WHERE failures <> 0 AND id IN ({placeholders})"
        for key, failures in connection.execute(failed, some).fetchall():
            leased[key] = leased[key]._replace(failures=failures)
    return [leased[key] for key in ids if key in leased]


def _lease_untouched(connection: QueueConnection, route: Route, request: LeaseRequest, limit: int) -> list[Leased]:
    """Lease the records above the cursor, and move the cursor behind them."""
    if route.last <= route.cursor:
        return []
    bounds = (route.cursor, min(route.last, route.cursor + limit))
    rows = _read(connection, "id > ? AND id <= ?", bounds)
    connection.execute(
        "INSERT INTO taken SELECT id, ?, ?, 0, '' FROM record WHERE id > ? AND id <= ?",
        (route.number, request.due, *bounds),
    )
    connection.add_leased(len(rows))
    connection.move_cursor(route, bounds[1])
    name = route.name
    return [Leased(str(key), name, body, at, 0) for key, body, at in rows]


def _read(connection: QueueConnection, condition: str, values: Sequence[int]) -> list[tuple[int, bytes, float]]:
    """Return the records that meet a condition, in order; those that can't be sent become dead letters first."""
    sql = f"SELECT id, body, at FROM record WHERE {condition} ORDER BY id"
    # The sqlite3 module raises an OperationalError for a text that is not UTF-8.
    with suppress(sqlite3.OperationalError):
        rows: list[tuple[int, bytes, float]] = connection.execute(sql, values).fetchall()
        if all(type(body) is bytes and type(at) is float for _, body, at in rows):
            return rows
    _bury_misfits(connection, condition, values)
    return connection.execute(sql, values).fetchall()


def _bury_misfits(connection: QueueConnection, condition: str, values: Sequence[int]) -> None:
    """Make dead letters of records with values of other types than this package writes."""
    misfit = f"({condition}) AND (typeof(body) <> 'blob' OR typeof(at) <> 'real')"
    now, reason = time.time(), "the stored record is damaged: a value has another type"
    connection.execute(
        "INSERT OR REPLACE INTO dead"
        " SELECT id, CASE typeof(at) WHEN 'real' THEN at ELSE ? END, CAST(body AS BLOB), ?, ?"
        f" FROM record WHERE {misfit}",
        (now, now, reason, *values),
    )
    ids = [key for (key,) in connection.execute(f"SELECT id FROM record WHERE {misfit}", values)]
    connection.remove(ids, None)
    LOG.error("%d damaged records of the queue have become dead letters.", len(ids))


def settle(connection: QueueConnection, settlements: Sequence[tuple[Settlement, float]]) -> int:
    """
    Store the outcome of leased records; within a write transaction.

    Args:
        connection: The connection.
        settlements: The outcomes, each with its due time in seconds since the start of the machine.

    Returns:
        How many records left the queue.
    """
    removed = 0
    for is_delivered, group in groupby(settlements, lambda each: each[0].verdict == "delivered"):
        if is_delivered:
            # Batches that are delivered at the same time are next to each other in the queue, as a rule.
            ids = parse_ids(key for settlement, _ in group for key in settlement.ids)
            removed += connection.remove(_ever_leased(connection, ids), "delivered")
        else:
            removed += sum(_settle(connection, settlement, due) for settlement, due in group)
    return removed


def _settle(connection: QueueConnection, settlement: Settlement, due: float) -> int:
    """Store that records are to be sent later, or have become dead letters."""
    ids = _ever_leased(connection, parse_ids(settlement.ids))
    if settlement.verdict == "later":
        _delay(connection, ids, settlement, due)
        return 0
    for placeholders, some in chunks(ids):
        connection.execute(
            f"INSERT OR IGNORE INTO dead SELECT id, at, body, ?, ? FROM record WHERE id IN ({placeholders})",
            (time.time(), settlement.reason, *some),
        )
    return connection.remove(ids, None)


def _ever_leased(connection: QueueConnection, ids: list[int]) -> list[int]:
    """Leave out untouched records: all ids above the cursor are counted as records, so none of them may be removed."""
    if not ids:
        return ids
    lowest, highest = min(ids), max(ids)
    route = connection.routes_by_number.get(highest >> ROUTE_SHIFT)
    if route and highest <= route.cursor and lowest >> ROUTE_SHIFT == route.number:
        # The usual case: all are of one route, and leased.
        return ids
    cursors = {number: route.cursor for number, route in connection.routes_by_number.items()}
    return [key for key in ids if key <= cursors.get(key >> ROUTE_SHIFT, 0)]


def _delay(connection: QueueConnection, ids: list[int], settlement: Settlement, due: float) -> None:
    for placeholders, some in chunks(ids):
        connection.execute(
            f"UPDATE taken SET due = ?, failures = ?, reason = ? WHERE id IN ({placeholders})",
            (due, settlement.failures, settlement.reason, *some),
        )


def halves(settlements: Sequence[Settlement]) -> Sequence[Sequence[Settlement]]:
    """Split settlements, or one of several records; return nothing where there is only one record."""
    if len(settlements) > 1:
        middle = len(settlements) // 2
        return (settlements[:middle], settlements[middle:])
    ids = settlements[0].ids if settlements else ()
    middle = len(ids) // 2
    return [[settlements[0]._replace(ids=part)] for part in (ids[:middle], ids[middle:])] if middle else ()
