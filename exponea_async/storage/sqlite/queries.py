"""
Looking at the queue, and repairing it by hand.
"""

from collections.abc import Iterable, Iterator, Sequence
from heapq import merge
from itertools import islice

from exponea_async.storage.base import DeadLetter, Leased, Pending, State, Watermark
from exponea_async.storage.sqlite.connection import QueueConnection, Route, chunks, numbers
from exponea_async.storage.sqlite.schema import ROUTE_SHIFT


def watermark(ledger: QueueConnection) -> Watermark:
    """Tell each route's last id."""
    return {name: str(route.last) for name, route in ledger.routes.items()}


def remaining(ledger: QueueConnection, watermark: Watermark, skip: frozenset[str]) -> int:
    """Count what is left at or below a mark."""
    left = 0
    for name in watermark.keys() & ledger.routes.keys() - skip:
        route, end = ledger.routes[name], int(watermark[name])
        if end >> ROUTE_SHIFT == route.number:
            sql = "SELECT count(*) FROM taken WHERE route = ? AND id <= ?"
            left += max(0, end - route.cursor) + int(ledger.execute(sql, (route.number, end)).fetchone()[0])
    return left


def pending(ledger: QueueConnection) -> Pending:
    """Count everything."""
    held = dict(ledger.execute("SELECT route, count(*) FROM taken GROUP BY route"))
    routes = {route.name: route.last - route.cursor + held.get(number, 0) for number, route in ledger.numbers.items()}
    dead = ledger.execute("SELECT count(*) FROM dead").fetchone()[0]
    return Pending(sum(routes.values()), sum(held.values()), dead, routes)


def find(ledger: QueueConnection, ids: Iterable[str]) -> dict[str, str]:
    """Tell the fate of records."""
    fates: dict[str, str] = {}
    for marks, some in chunks(numbers(ids)):
        for (key,) in ledger.execute(f"SELECT id FROM record WHERE id IN ({marks})", some):
            fates[str(key)] = "queued"
        for key, reason in ledger.execute(f"SELECT id, reason FROM dead WHERE id IN ({marks})", some):
            fates[str(key)] = reason
    return fates


def waiting(ledger: QueueConnection, limit: int) -> list[Leased]:
    """Look at the oldest records."""
    found = merge(*(_waiting(ledger, route) for route in ledger.numbers.values()), key=_age)
    return list(islice(found, limit))


def _waiting(ledger: QueueConnection, route: Route) -> Iterator[Leased]:
    sql = (
        "SELECT r.id, r.body, r.at, coalesce(t.failures, 0) FROM record r LEFT JOIN taken t ON t.id = r.id"
        " WHERE r.id >= ? AND r.id < ? ORDER BY r.id"
    )
    for key, body, at, failures in ledger.execute(sql, (route.number << ROUTE_SHIFT, route.end)):
        yield Leased(str(key), route.name, body, at, failures)


def _age(record: Leased) -> float:
    return record.at


def dead(ledger: QueueConnection, limit: int) -> list[DeadLetter]:
    """Look at the newest dead letters."""
    rows = ledger.execute(
        "SELECT id, body, at, died_at, reason FROM dead ORDER BY died_at DESC, id DESC LIMIT ?", (limit,)
    )
    return [DeadLetter(str(key), ledger.numbers[key >> ROUTE_SHIFT].name, *rest) for key, *rest in rows]


def load_state(ledger: QueueConnection, key: str) -> State | None:
    """Look a state up."""
    row = ledger.execute("SELECT value, version, active FROM state WHERE key = ?", (key,)).fetchone()
    return State(*row) if row else None


def expired_sessions(ledger: QueueConnection, before: float, limit: int) -> list[tuple[str, State]]:
    """Look at the states without activity since a moment."""
    # The order of the index: nothing is sorted.
    sql = "SELECT key, value, version, active FROM state WHERE active < ? ORDER BY active, key LIMIT ?"
    return [(key, State(*rest)) for key, *rest in ledger.execute(sql, (before, max(0, limit)))]


def revive(ledger: QueueConnection, ids: Iterable[str] | None) -> int:
    """Put dead letters back, due at once; inside a transaction."""
    # Below the cursor again, so they need their rows in `taken`.
    revived = 0
    for clause, values in _selection(ids):
        ledger.execute(f"INSERT INTO record SELECT id, at, body FROM dead{clause}", values)
        ledger.execute(f"INSERT INTO taken SELECT id, id >> {ROUTE_SHIFT}, 0, 0, '' FROM dead{clause}", values)
        revived += ledger.execute(f"DELETE FROM dead{clause}", values).rowcount
    ledger.count_taken(revived)
    return revived


def purge(ledger: QueueConnection, ids: Iterable[str] | None) -> int:
    """Delete dead letters; inside a transaction."""
    return sum(ledger.execute(f"DELETE FROM dead{clause}", values).rowcount for clause, values in _selection(ids))


def _selection(ids: Iterable[str] | None) -> Iterator[tuple[str, Sequence[int]]]:
    """Make the WHERE clauses that name some dead letters, or all."""
    if ids is None:
        yield "", ()
        return
    for marks, some in chunks(numbers(ids)):
        yield f" WHERE id IN ({marks})", some


def wipe(ledger: QueueConnection) -> None:
    """Delete everything, from the disk too; outside a transaction."""
    ledger.transact(_forget)
    # The bytes are still in free pages and in the write-ahead log.
    ledger.execute("VACUUM")
    ledger.execute("PRAGMA wal_checkpoint(TRUNCATE)")


def _forget(ledger: QueueConnection) -> None:
    highest = ledger.execute("SELECT coalesce(max(version), 0) FROM state").fetchone()[0]
    ledger.set_counter("state", max(ledger.counter("state"), highest))
    for table in ("record", "taken", "dead", "state", "route"):
        ledger.execute(f"DELETE FROM {table}")
    ledger.reload()
