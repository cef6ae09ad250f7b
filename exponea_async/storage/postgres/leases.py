"""
Leasing and settling records.
"""

import time
from collections.abc import Iterable, Sequence
from itertools import groupby
from typing import Any

from attrs import frozen

from exponea_async.storage.base import MAX_DUE_AHEAD, Leased, Settlement
from exponea_async.storage.postgres.clock import ServerClock
from exponea_async.storage.postgres.connection import Connection, Connections
from exponea_async.storage.postgres.counters import LEASE_LANE, SETTLE_LANE, add_counts
from exponea_async.storage.postgres.registration import Registration
from exponea_async.storage.postgres.removal import (
    DELIVERED,
    SETTLE_DEAD,
    SETTLE_DELIVERED,
    SETTLE_LATER,
)
from exponea_async.storage.postgres.schema import ROUTE_SHIFT

#: The queue may have been wiped: then the route is nobody's, while its records are being deleted.
_OWN = "EXISTS (SELECT FROM {s}.route WHERE id = $1 AND queue = $6)"
_RETURNING = """
    due AS MATERIALIZED (
        SELECT id, due FROM {{s}}.taken WHERE route = $1 AND due >= $9 AND due <= $2 AND {own}
            ORDER BY due LIMIT {limit} FOR UPDATE SKIP LOCKED
    ), far AS MATERIALIZED (
        SELECT id, due FROM {{s}}.taken WHERE route = $1 AND due > $3 AND {own}
            ORDER BY due LIMIT {limit} FOR UPDATE SKIP LOCKED
    ), again AS MATERIALIZED (
        SELECT * FROM due UNION ALL SELECT * FROM far LIMIT {limit}
    ), renewed AS (
        UPDATE {{s}}.taken AS t SET due = $4, reason = '' WHERE t.id = ANY (ARRAY(SELECT id FROM again))
            RETURNING t.id, t.failures
    )
"""
_COUNT = add_counts("added", "$6::integer", "$7::bigint", str(LEASE_LANE), leased="count(*)")
#: Whether a record was leased is looked up for each by its own, not by a join: the oldest are nearly all that is read.
_UNTOUCHED = f"""
    fresh AS MATERIALIZED (
        SELECT r.id FROM {{{{s}}}}.record AS r
            WHERE r.id >= greatest($1::bigint << {ROUTE_SHIFT}, $8::bigint) AND r.id < ($1::bigint + 1) << {ROUTE_SHIFT}
                AND (SELECT t.id FROM {{{{s}}}}.taken AS t WHERE t.id = r.id) IS NULL AND {{own}}
            ORDER BY r.id LIMIT {{limit}} FOR UPDATE OF r SKIP LOCKED
    ), added AS (
        INSERT INTO {{{{s}}}}.taken (id, route, due) SELECT id, $1, $4 FROM fresh ON CONFLICT DO NOTHING RETURNING id
    ), counted AS ({_COUNT.replace("{s}", "{{s}}")})
"""
#: A record is looked up for each by its own, too: a join may read all of the index where its statistics are old.
_LEASED = """
    SELECT found.id, r.at, r.body, found.failures, found.is_fresh FROM (
        SELECT id, failures, {again_first} AS place, false AS is_fresh FROM renewed
        UNION ALL SELECT id, 0, {fresh_first}, true FROM added
    ) AS found CROSS JOIN LATERAL (SELECT at, body FROM {{s}}.record WHERE id = found.id LIMIT 1) AS r
    ORDER BY found.place, array_position(ARRAY(SELECT id FROM again ORDER BY due, id), found.id), found.id
"""
_ALL, _REST = "greatest(0, $5::integer)", "greatest(0, $5::integer - (SELECT count(*) FROM {other}))"
_WITH = "WITH {}, {} {}"
LEASE = _WITH.format(
    _RETURNING.format(own=_OWN, limit=_ALL),
    _UNTOUCHED.format(own=_OWN, limit=_REST.format(other="again")),
    _LEASED.format(again_first=0, fresh_first=1),
)
LEASE_UNTOUCHED_FIRST = _WITH.format(
    _UNTOUCHED.format(own=_OWN, limit=_ALL),
    _RETURNING.format(own=_OWN, limit=_REST.format(other="fresh")),
    _LEASED.format(again_first=1, fresh_first=0),
)


#: How long leases may begin where the one before has ended, in seconds.
START_VALID = 2.0
#: How much earlier than a lease a record may become due that it has not found, in seconds: clients give records back
#: with a time of their own.
DUE_TOLERANCE = 5.0


@frozen
class Start:
    """
    Where a lease begins to look in a route.

    Deleted records stay in the indexes until no transaction of the database can see them. While one is open for long,
    looking from the beginning takes longer with each record that is delivered.

    Attributes:
        fresh: The lowest id of untouched records.
        due: The lowest due time of others, by the clock of the server.
        until: Until when it is valid, in monotonic time: records with lower ids may become visible later.
    """

    fresh: int = 0
    due: float = 0.0
    until: float = 0.0


BEGINNING = Start()


@frozen
class LeaseRequest:
    """
    The lease that one caller asks for.

    Attributes:
        limit: The maximum number of records.
        now: The present time by the clock of the server.
        due: The end of the lease, by the same clock.
        skip: Routes to leave out.
        only: The only route to lease from, or None for all.
        untouched_first: Whether untouched records come first within a route.
    """

    limit: int
    now: float
    due: float
    skip: frozenset[str]
    only: str | None
    untouched_first: bool


class Leases:
    """
    Leases and settles records.

    Args:
        connections: The connections.
        registration: The client.
        clock: The clock of the server.
    """

    def __init__(self, connections: Connections, registration: Registration, clock: ServerClock) -> None:
        self._connections = connections
        self._registration = registration
        self._clock = clock
        self._count = 0
        self._starts: dict[int, Start] = {}

    async def lease(
        self, limit: int, seconds: float, now: float, *, skip: Iterable[str], only: str | None, untouched_first: bool
    ) -> list[Leased]:
        """Lease due records."""
        start = self._clock.to_server(now)
        due = start + min(seconds, MAX_DUE_AHEAD)
        request = LeaseRequest(limit, start, due, frozenset(skip), only, untouched_first)
        if limit <= 0:
            return []
        # If the server loses a lease in a crash, the records are only sent once more.
        return await self._connections.change(lambda connection: self._lease(connection, request), durable=False)

    def _routes(self, request: LeaseRequest) -> list[tuple[int, str]]:
        """Return the routes to lease from, each first in its turn, so that a busy one does not starve the others."""
        routes = [
            (number, name)
            for number, name in self._registration.routes.items()
            if name not in request.skip and request.only in (None, name)
        ]
        self._count += 1
        first = self._count % len(routes) if routes else 0
        return routes[first:] + routes[:first]

    async def _lease(self, connection: Connection, request: LeaseRequest) -> list[Leased]:
        # Another process may have created or renamed some, and this one may write nothing itself.
        await self._registration.read_routes(connection)
        leased: list[Leased] = []
        for number, name in self._routes(request):
            limit = request.limit - len(leased)
            if limit <= 0:
                break
            rows = await self._lease_from(connection, request, number, limit)
            leased += [Leased(str(key), name, body, at, failures) for key, at, body, failures, _ in rows]
        return leased

    async def _lease_from(self, connection: Connection, request: LeaseRequest, route: int, limit: int) -> list[Any]:
        """Lease records of a route, from where the last lease has ended; from the beginning if there are too few."""
        start = self._starts.pop(route, BEGINNING)
        rows = []
        if start.until > time.monotonic():
            rows = await self._fetch(connection, request, route, limit, start)
        else:
            start = Start(until=time.monotonic() + START_VALID)
        if len(rows) < limit:
            rows += await self._fetch(connection, request, route, limit - len(rows), BEGINNING)
        if len(rows) == limit:
            self._starts[route] = _next_start(request, rows, start)
        return rows

    async def _fetch(
        self, connection: Connection, request: LeaseRequest, route: int, limit: int, start: Start
    ) -> list[Any]:
        statement = self._connections.sql(LEASE_UNTOUCHED_FIRST if request.untouched_first else LEASE)
        rows: list[Any] = await connection.fetch(
            statement,
            route,
            request.now,
            request.now + MAX_DUE_AHEAD,
            request.due,
            limit,
            self._registration.queue,
            self._registration.client,
            start.fresh,
            start.due,
        )
        return rows

    # Settling

    async def settle(self, settlements: Sequence[Settlement]) -> int:
        """Store the outcome of leased records; return how many left the queue."""
        # Now, since the system's clock may be set while this waits for the database.
        timed = [(each, self._clock.to_server(each.due)) for each in settlements if each.ids]
        return await self._connections.change(lambda connection: self._settle(connection, timed))

    async def _settle(self, connection: Connection, timed: Sequence[tuple[Settlement, float]]) -> int:
        count = 0
        for verdict, group in groupby(timed, key=lambda each: each[0].verdict):
            if verdict == "later":
                await self._delay(connection, list(group))
            elif verdict == "delivered":
                ids = [key for settlement, _ in group for key in parse_ids(settlement.ids)]
                count += await connection.fetchval(
                    self._connections.sql(SETTLE_DELIVERED), ids, *self._owner(), DELIVERED
                )
            else:
                count += await self._bury(connection, [settlement for settlement, _ in group])
        return count

    def _owner(self) -> tuple[int, int, int]:
        return self._registration.queue, self._registration.client, SETTLE_LANE

    async def _delay(self, connection: Connection, group: Sequence[tuple[Settlement, float]]) -> None:
        rows = {
            key: (due, settlement.failures, printable_reason(settlement.reason))
            for settlement, due in group
            for key in parse_ids(settlement.ids)
        }
        ids = sorted(rows)
        columns = zip(*(rows[key] for key in ids), strict=True) if ids else ((), (), ())
        await connection.execute(self._connections.sql(SETTLE_LATER), ids, *map(list, columns))

    async def _bury(self, connection: Connection, settlements: Sequence[Settlement]) -> int:
        reasons = {
            key: printable_reason(settlement.reason)
            for settlement in reversed(settlements)
            for key in parse_ids(settlement.ids)
        }
        count: int = await connection.fetchval(
            self._connections.sql(SETTLE_DEAD), list(reasons), *self._owner(), time.time(), list(reasons.values())
        )
        return count


def _next_start(request: LeaseRequest, rows: list[Any], start: Start) -> Start:
    """Return where the lease after a full one begins."""
    fresh = [row["id"] for row in rows if row["is_fresh"]]
    if not fresh or request.untouched_first:
        return start
    # The others come first, so there were none left that are due.
    return Start(max(fresh) + 1, request.now - DUE_TOLERANCE, start.until)


def parse_ids(ids: Iterable[str]) -> list[int]:
    """Return ids as numbers, each once, without strings that are not ids of this storage."""
    numbers = {int(key) for key in ids if key.isascii() and key.isdigit() and len(key) < 20}
    return sorted(number for number in numbers if number < 1 << 63)


def printable_reason(reason: str) -> str:
    """Return a reason as text that PostgreSQL can store."""
    return reason.replace("\0", "\N{REPLACEMENT CHARACTER}").encode(errors="replace").decode()
