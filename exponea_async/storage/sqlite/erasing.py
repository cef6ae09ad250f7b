"""
Erases what belongs to one end user, in one transaction.
"""

from collections.abc import Iterator

from exponea_async.storage.erasure import Erased, Erasure
from exponea_async.storage.sqlite.connection import QueueConnection, Route
from exponea_async.storage.sqlite.queries import purge
from exponea_async.storage.sqlite.schema import ROUTE_SHIFT
from exponea_async.storage.sqlite.writes import change_state


def erase(connection: QueueConnection, erasure: Erasure) -> Erased:
    """Erase what is selected. It takes longer the longer the queue is, since each record is looked at."""
    records = _selected(connection, "record", erasure)
    if records:
        for number in {key >> ROUTE_SHIFT for key in records}:
            _count_singly(connection, connection.routes_by_number[number])
        connection.remove(records, "dropped")
    letters = _selected(connection, "dead", erasure)
    if letters:
        purge(connection, map(str, letters))
    states = tuple(_erase_states(connection, erasure))
    for key, value in erasure.states.items():
        connection.load_versions({key})
        change_state(connection, key, value, connection.versions[key])
    return Erased(tuple(map(str, records)), tuple(map(str, letters)), states)


def _selected(connection: QueueConnection, table: str, erasure: Erasure) -> list[int]:
    found: set[int] = set()
    for trace in erasure.traces:
        rows = connection.execute(f"SELECT id, body FROM {table} WHERE instr(body, ?)", (trace,))
        found |= {key for key, body in rows if isinstance(body, bytes) and erasure.is_record(body)}
    return sorted(found)


def _count_singly(connection: QueueConnection, route: Route) -> None:
    """
    Give each untouched record of a route a row in ``taken``.

    Untouched records are counted by a subtraction of ids, which is right only as long as none of them is missing.
    """
    bounds = (route.cursor, route.end)
    taken = connection.execute(
        "INSERT INTO taken (id, route, due, failures, reason)"
        f" SELECT id, id >> {ROUTE_SHIFT}, 0, 0, '' FROM record WHERE id > ? AND id < ?",
        bounds,
    ).rowcount
    connection.add_leased(taken)
    connection.move_cursor(route, route.last)


def _erase_states(connection: QueueConnection, erasure: Erasure) -> Iterator[str]:
    rows = connection.execute("SELECT key, value FROM state WHERE typeof(value) = 'blob'")
    for key in sorted(erasure.select_states(rows)):
        connection.load_versions({key})
        change_state(connection, key, None, connection.versions[key])
        yield key
