"""
Leasing and settling.
"""

import time
from collections.abc import Sequence

from exponea_async.storage.base import MAX_DUE_AHEAD, Leased, Settlement
from exponea_async.storage.sqlite.connection import QueueConnection, Route, chunks, numbers
from exponea_async.storage.sqlite.schema import ROUTE_SHIFT


class LeaseRequest:
    """
    What one caller would like to take.

    Args:
        limit: How many records at the most.
        due: When they fall due again, UNIX seconds.
        now: UNIX seconds.
        skip: Routes to leave alone.
        only: The one route to take from, or None.
    """

    __slots__ = ("due", "limit", "now", "only", "skip")

    def __init__(self, limit: int, due: float, now: float, skip: frozenset[str], only: str | None) -> None:
        self.limit = limit
        self.due = due
        self.now = now
        self.skip = skip
        self.only = only

    def routes(self, ledger: QueueConnection) -> Sequence[Route]:
        """Tell the routes to take from."""
        if self.only is None:
            return [route for route in ledger.numbers.values() if route.name not in self.skip]
        route = ledger.routes.get(self.only)
        return [route] if route and route.name not in self.skip else []


def has_due(ledger: QueueConnection, claim: LeaseRequest) -> bool:
    """Tell whether a lease would find anything."""
    for route in claim.routes(ledger):
        if route.last > route.cursor:
            return True
        sql = "SELECT 1 FROM taken WHERE route = ? AND (due <= ? OR due > ?) LIMIT 1"
        if ledger.execute(sql, (route.number, claim.now, claim.now + MAX_DUE_AHEAD)).fetchone():
            return True
    return False


def lease(ledger: QueueConnection, claim: LeaseRequest) -> list[Leased]:
    """Take due records; inside a transaction."""
    routes = claim.routes(ledger)
    taken: list[Leased] = []
    # Routes take turns at being first, so that a busy one does not starve the others.
    ledger.turn += 1
    for place in range(len(routes)):
        route = routes[(place + ledger.turn) % len(routes)]
        if len(taken) < claim.limit:
            taken += _lease_again(ledger, route, claim, claim.limit - len(taken))
        if len(taken) < claim.limit and route.last > route.cursor:
            taken += _lease_first(ledger, route, claim, claim.limit - len(taken))
    return taken


def _lease_again(ledger: QueueConnection, route: Route, claim: LeaseRequest, limit: int) -> list[Leased]:
    sql = "SELECT t.id, r.body, r.at, t.failures FROM taken t JOIN record r ON r.id = t.id WHERE t.route = ?"
    rows = ledger.execute(f"{sql} AND t.due <= ? ORDER BY t.due, t.id LIMIT ?", (route.number, claim.now, limit))
    found = rows.fetchall()
    if len(found) < limit:
        rows = ledger.execute(
            f"{sql} AND t.due > ? ORDER BY t.due, t.id LIMIT ?",
            (route.number, claim.now + MAX_DUE_AHEAD, limit - len(found)),
        )
        found += rows.fetchall()
    for marks, ids in chunks([row[0] for row in found]):
        ledger.execute(f"UPDATE taken SET due = ? WHERE id IN ({marks})", (claim.due, *ids))
    return [Leased(str(key), route.name, body, at, failures) for key, body, at, failures in found]


def _lease_first(ledger: QueueConnection, route: Route, claim: LeaseRequest, limit: int) -> list[Leased]:
    reach = (route.cursor, min(route.last, route.cursor + limit))
    rows = ledger.execute("SELECT id, body, at FROM record WHERE id > ? AND id <= ? ORDER BY id", reach).fetchall()
    ledger.execute(
        "INSERT INTO taken SELECT id, ?, ?, 0, '' FROM record WHERE id > ? AND id <= ?",
        (route.number, claim.due, *reach),
    )
    ledger.count_taken(len(rows))
    ledger.move_cursor(route, reach[1])
    name = route.name
    return [Leased(str(key), name, body, at, 0) for key, body, at in rows]


def settle(ledger: QueueConnection, settlements: Sequence[Settlement]) -> int:
    """Act on verdicts; inside a transaction."""
    return sum(_settle(ledger, settlement) for settlement in settlements)


def _settle(ledger: QueueConnection, settlement: Settlement) -> int:
    ids = _ever_leased(ledger, numbers(settlement.ids))
    if settlement.verdict == "later":
        _put_off(ledger, ids, settlement)
        return 0
    if settlement.verdict == "dead":
        for marks, some in chunks(ids):
            ledger.execute(
                f"INSERT OR IGNORE INTO dead SELECT id, at, body, ?, ? FROM record WHERE id IN ({marks})",
                (time.time(), settlement.reason, *some),
            )
    return ledger.remove(ids)


def _ever_leased(ledger: QueueConnection, ids: list[int]) -> list[int]:
    """Pass over records that nobody has taken yet: a hole above the cursor would be counted as a record."""
    if not ids:
        return ids
    lowest, highest = min(ids), max(ids)
    route = ledger.numbers.get(highest >> ROUTE_SHIFT)
    if route and highest <= route.cursor and lowest >> ROUTE_SHIFT == route.number:
        # The usual case: all are of one route, and taken.
        return ids
    cursors = {number: route.cursor for number, route in ledger.numbers.items()}
    return [key for key in ids if key <= cursors.get(key >> ROUTE_SHIFT, 0)]


def _put_off(ledger: QueueConnection, ids: list[int], settlement: Settlement) -> None:
    for marks, some in chunks(ids):
        ledger.execute(
            f"UPDATE taken SET due = ?, failures = ?, reason = ? WHERE id IN ({marks})",
            (settlement.due, settlement.failures, settlement.reason, *some),
        )
