"""
The storage in memory, for tests and scripts.

It is organized like the SQLite file: the records of a route are numbered from 1, the route's *cursor* is the highest
number that was ever leased, and the records at or below it that still exist are in the route's schedule, ordered by
their due time. So a lease searches nothing.
"""

import asyncio
import time
from bisect import bisect_left, insort
from collections.abc import Callable, Iterable, Iterator, Sequence
from heapq import merge, nsmallest
from itertools import count, islice
from math import inf
from typing import Literal

from exponea_async.errors import StateConflictError, StorageError
from exponea_async.storage.activity_index import ActivityIndex
from exponea_async.storage.base import (
    DELETED_LETTER,
    FIRST_PLAUSIBLE_TIME,
    MAX_DUE_AHEAD,
    DeadLetter,
    Leased,
    Pending,
    Record,
    RecordStatus,
    Settlement,
    State,
    StateChange,
    StateCheck,
    Waiting,
    Watermark,
    Written,
    queue_full,
)
from exponea_async.storage.clock import to_uptime, uptime
from exponea_async.storage.erasure import Erased, Erasure
from exponea_async.storage.memory_rows import Route, Row
from exponea_async.storage.rates import advance

#: Number of records that have left the queue of which it is known what became of them.
MAX_MARKS = 10_000


class MemoryStorage:
    """
    A storage whose contents are lost at the end of the process.

    Args:
        max_records: The capacity of the queue.
        max_bytes: The same for the size of all records' bodies, or None.
        when_full: What happens to a write that exceeds it: ``"raise"``, ``"wait"`` or ``"drop_oldest"``.
    """

    def __init__(
        self,
        *,
        max_records: int = 1_000_000,
        max_bytes: int | None = None,
        when_full: Literal["raise", "wait", "drop_oldest"] = "raise",
    ) -> None:
        self.commits = 0
        self.number = -1
        self._max_records = max_records
        self._max_bytes = max_bytes
        self._bytes = 0
        self._when_full = when_full
        self._is_open = False
        self._route_numbers = count(1)
        self._lease_count = 0
        self._rows: dict[str, Row] = {}
        # The routes that new records get, by name, and all routes by number: several may have the same name.
        self._routes: dict[str, Route] = {}
        self._routes_by_number: dict[int, Route] = {}
        self._dead: dict[str, DeadLetter] = {}
        # What became of the last records that left the queue.
        self._marks: dict[str, RecordStatus] = {}
        self._states: dict[str, State] = {}
        self._activity = ActivityIndex(self._states)
        # The highest version of a deleted state.
        self._deleted_version = 0
        self._generation = time.time_ns()
        # When the next request of a shared rate limit may be sent, by its name.
        self._rates: dict[str, float] = {}
        # Held by the write that waits for capacity, so that none behind it can overtake.
        self._turn = asyncio.Lock()
        self._capacity_freed = asyncio.Event()

    async def open(self) -> None:
        """Open the storage, possibly in another event loop than before."""
        if not self._is_open:
            self._is_open, self._turn, self._capacity_freed = True, asyncio.Lock(), asyncio.Event()
            self.number += 1

    async def aclose(self, timeout: float | None = None) -> None:  # noqa: ARG002, ASYNC109 - there is no lock
        """Close the storage; writes that wait for capacity get an error."""
        self._is_open = False
        self._capacity_freed.set()

    def abandon(self) -> None:
        """Close the storage without waiting: the event loop has ended."""
        self._is_open = False

    def _check_open(self) -> None:
        if not self._is_open:
            raise StorageError("The storage is closed.")

    # Writing

    async def write(
        self,
        records: Sequence[Record],
        states: Sequence[StateChange | StateCheck] = (),
        on_commit: Callable[[Written], None] | None = None,
    ) -> Written:
        """Write records and states."""
        self._check_open()
        written = await self._write_in_turn(records, states) if records else self._write((), states)
        if on_commit is not None:
            on_commit(written)
        return written

    async def _write_in_turn(self, records: Sequence[Record], states: Sequence[StateChange | StateCheck]) -> Written:
        async with self._turn:
            self._check_states(states)
            while self._when_full == "wait" and self._can_fit(records) and not self._has_room(records):
                # Checked here too: this write may have got its turn because the storage was closed.
                self._check_open()
                self._capacity_freed.clear()
                await self._capacity_freed.wait()
                self._check_states(states)
            self._check_open()
            return self._write(records, states)

    def _write(self, records: Sequence[Record], states: Sequence[StateChange | StateCheck]) -> Written:
        self._check_states(states)
        dropped = self._make_capacity(records) if records and not self._has_room(records) else ()
        for state in states:
            if isinstance(state, StateChange):
                self._change(state)
            elif state.active is not None:
                self._raise_activity(state.key, state.active)
        self.commits += 1
        return Written(tuple(map(self._add, records)), dropped)

    def _change(self, change: StateChange) -> None:
        if change.value is None:
            self._states.pop(change.key, None)
            # The versions of new states are higher, so that none of them is mistaken for the deleted one.
            self._deleted_version = max(self._deleted_version, change.version)
        else:
            self._states[change.key] = State(change.value, (change.version or self._deleted_version) + 1, change.active)
            self._activity.note(change.key, change.active)

    def _raise_activity(self, key: str, active: float) -> None:
        state = self._states.get(key)
        if state and (state.active is None or state.active < active):
            self._states[key] = State(state.value, state.version, active)
            self._activity.note(key, active)

    def _check_states(self, states: Sequence[StateChange | StateCheck]) -> None:
        for state in states:
            stored = self._states.get(state.key)
            if (stored.version if stored else 0) != state.version:
                raise StateConflictError(state.key)
            seen = state.seen if isinstance(state, StateChange) else None
            if seen is not None and stored and stored.active is not None and stored.active > seen:
                raise StateConflictError(state.key)

    def _has_room(self, records: Sequence[Record]) -> bool:
        fits = self._max_bytes is None or self._bytes + _size(records) <= self._max_bytes
        return fits and len(self._rows) + len(records) <= self._max_records

    def _can_fit(self, records: Sequence[Record]) -> bool:
        fits = self._max_bytes is None or _size(records) <= self._max_bytes
        return fits and len(records) <= self._max_records

    def _make_capacity(self, records: Sequence[Record]) -> tuple[str, ...]:
        """Return the ids of the records that were dropped for a write."""
        if not self._can_fit(records) or self._when_full != "drop_oldest":
            raise queue_full(self._max_records, self._max_bytes)
        dropped: list[str] = []
        oldest = self._oldest()
        while not self._has_room(records):
            row = next(oldest)
            row.route.cursor = max(row.route.cursor, row.number)
            dropped.append(self._remove(row))
        for key in dropped:
            self._mark(key, RecordStatus("dropped"))
        return tuple(dropped)

    def _oldest(self) -> Iterator[Row]:
        """Yield untouched records first, from all routes by age; leased ones only where there are no others."""
        yield from merge(*map(self._untouched, self._routes_by_number.values()), key=Row.written_at)
        yield from sorted(self._rows.values(), key=Row.written_at)

    def _untouched(self, route: Route) -> Iterator[Row]:
        return (self._rows[route.id(number)] for number in range(route.cursor + 1, route.last + 1))

    def _add(self, record: Record) -> str:
        route = self._routes.get(record.route)
        if route is None:
            # The number is new even after a wipe, so that no id is given twice.
            route = self._routes[record.route] = Route(record.route, next(self._route_numbers))
            self._routes_by_number[route.number] = route
        route.last += 1
        key = route.id(route.last)
        self._rows[key] = Row(key, route.last, route, record)
        self._bytes += len(record.body)
        return key

    def _remove(self, row: Row) -> str:
        self._unschedule(row)
        del self._rows[row.id]
        self._bytes -= len(row.record.body)
        return row.id

    # Leasing and settling

    async def lease(
        self,
        limit: int,
        seconds: float,
        now: float,
        *,
        skip: Iterable[str] = (),
        only: str | None = None,
        untouched_first: bool = False,
    ) -> list[Leased]:
        """Lease due records."""
        self._check_open()
        names = self._routes.keys() - set(skip) if only is None else {only} - set(skip)
        routes = [route for route in self._routes_by_number.values() if route.name in names]
        leased: list[Row] = []
        # Routes take turns at coming first, so that a busy one does not starve the others.
        self._lease_count += 1
        for index in range(len(routes)):
            if len(leased) >= limit:
                break
            route = routes[(index + self._lease_count) % len(routes)]
            leased += self._lease(route, limit - len(leased), now, untouched_first=untouched_first)
        for row in leased:
            self._schedule(row, to_uptime(now) + min(seconds, MAX_DUE_AHEAD))
            row.reason = ""
        return list(map(Row.leased, leased))

    def _lease(self, route: Route, limit: int, now: float, *, untouched_first: bool) -> list[Row]:
        due = route.due(limit - (min(limit, route.last - route.cursor) if untouched_first else 0), to_uptime(now))
        untouched = range(route.cursor + 1, min(route.last, route.cursor + limit - len(due)) + 1)
        route.cursor += len(untouched)
        numbers = (*untouched, *due) if untouched_first else (*due, *untouched)
        return [self._rows[route.id(number)] for number in numbers]

    def _schedule(self, row: Row, due: float) -> None:
        self._unschedule(row)
        row.due = due
        insort(row.route.schedule, (due, row.number))

    def _unschedule(self, row: Row) -> None:
        entry, schedule = (row.due, row.number), row.route.schedule
        index = bisect_left(schedule, entry)
        if schedule[index : index + 1] == [entry]:
            del schedule[index]

    async def settle(self, settlements: Sequence[Settlement]) -> int:
        """Store the outcome of leased records."""
        self._check_open()
        before = len(self._rows)
        for settlement in settlements:
            for row in self._leased_rows(settlement.ids):
                self._settle(row, settlement)
        self.commits += 1
        self._capacity_freed.set()
        return before - len(self._rows)

    def _leased_rows(self, ids: Iterable[str]) -> list[Row]:
        return [row for key in dict.fromkeys(ids) if (row := self._rows.get(key)) and row.is_leased]

    def _settle(self, row: Row, settlement: Settlement) -> None:
        if settlement.verdict == "later":
            self._schedule(row, to_uptime(settlement.due))
            row.failures = settlement.failures
            row.reason = settlement.reason
            return
        self._remove(row)
        if settlement.verdict == "delivered":
            self._mark(row.id, RecordStatus("delivered"))
        else:
            record = row.record
            self._dead[row.id] = DeadLetter(
                row.id, row.route.name, record.body, record.at, time.time(), settlement.reason
            )

    # Reading

    async def find(self, ids: Iterable[str]) -> dict[str, RecordStatus]:
        """Return what became of records, by id."""
        self._check_open()
        return {key: status for key in ids if (status := self._status(key))}

    def _status(self, key: str) -> RecordStatus | None:
        if key in self._rows:
            return RecordStatus("queued")
        if key in self._dead:
            return RecordStatus("rejected", self._dead[key].reason)
        return self._marks.get(key)

    def _mark(self, key: str, status: RecordStatus) -> None:
        self._marks[key] = status
        if len(self._marks) > MAX_MARKS:
            del self._marks[next(iter(self._marks))]

    async def watermark(self) -> Watermark:
        """Return the watermark of all records written so far."""
        self._check_open()
        return {str(number): str(route.last) for number, route in self._routes_by_number.items()}

    async def remaining(self, watermark: Watermark, *, skip: Iterable[str] = (), at_most: int | None = None) -> int:
        """Return how many records at or below a watermark are still in the queue."""
        self._check_open()
        total = 0
        skipped = frozenset(skip)
        for number, route in self._routes_by_number.items():
            last = watermark.get(str(number))
            if last is not None and route.name not in skipped:
                total += max(0, int(last) - route.cursor) + sum(each <= int(last) for _, each in route.schedule)
        return total if at_most is None else min(total, at_most)

    async def pending(self) -> Pending:
        """Return the number of records."""
        self._check_open()
        routes = dict.fromkeys((route.name for route in self._routes_by_number.values()), 0)
        for route in self._routes_by_number.values():
            routes[route.name] += route.last - route.cursor + len(route.schedule)
        leased = sum(len(route.schedule) for route in self._routes_by_number.values())
        # Rows are in the order in which they were written or revived.
        oldest_at = next((row.record.at for row in self._rows.values()), None)
        is_full = len(self._rows) >= self._max_records or self._bytes >= (self._max_bytes or inf)
        return Pending(len(self._rows), leased, len(self._dead), routes, oldest_at, self._bytes, is_full)

    async def waiting(self, limit: int) -> list[Waiting]:
        """Return the oldest records of the queue."""
        self._check_open()
        return list(map(Row.waiting, nsmallest(limit, self._rows.values(), key=Row.written_at)))

    async def dead(self, limit: int) -> list[DeadLetter]:
        """Return the newest dead letters."""
        self._check_open()
        return list(islice(reversed(self._dead.values()), limit))

    async def load_state(self, key: str) -> State | None:
        """Return a state, or None."""
        self._check_open()
        return self._states.get(key)

    async def expired_sessions(self, before: float, limit: int) -> list[tuple[str, State]]:
        """Return the states whose last activity is before a time."""
        self._check_open()
        return self._activity.before(before, limit)

    # Maintenance

    async def revive(self, ids: Iterable[str] | None = None) -> int:
        """Put dead letters back into the queue."""
        self._check_open()
        letters = self._pop_dead(ids)
        for letter in letters:
            route_number, _, number = letter.id.partition(".")
            route = self._routes_by_number[int(route_number)]
            record = Record(route.name, letter.body, time.time())
            row = self._rows[letter.id] = Row(letter.id, int(number), route, record)
            self._bytes += len(record.body)
            self._schedule(row, 0.0)
        return len(letters)

    async def purge(self, ids: Iterable[str] | None = None) -> int:
        """Delete dead letters."""
        self._check_open()
        letters = self._pop_dead(ids)
        for letter in letters:
            self._mark(letter.id, RecordStatus("rejected", DELETED_LETTER))
        return len(letters)

    async def prune(self, *, max_count: int | None = None, before: float = 0.0) -> tuple[str, ...]:
        """Delete the oldest dead letters."""
        self._check_open()
        excess = 0 if max_count is None else max(0, len(self._dead) - max_count)
        old = [key for key, each in self._dead.items() if FIRST_PLAUSIBLE_TIME <= each.died_at < before]
        ids = tuple(dict.fromkeys([*islice(self._dead, excess), *old]))
        await self.purge(ids)
        return ids

    async def rename_route(self, old: str, new: str) -> None:
        """Give the records of a route another one."""
        self._check_open()
        for route in self._routes_by_number.values():
            if route.name == old:
                route.name = new
        self._routes = {route.name: route for route in self._routes_by_number.values()}
        for key, letter in self._dead.items():
            if letter.route == old:
                self._dead[key] = letter._replace(route=new)

    async def drop_waiting(self, routes: Iterable[str]) -> int:
        """Delete the records of some routes."""
        self._check_open()
        names = frozenset(routes)
        rows = [row for row in self._rows.values() if row.route.name in names]
        for row in rows:
            row.route.cursor = row.route.last
            self._mark(self._remove(row), RecordStatus("dropped"))
        self._capacity_freed.set()
        return len(rows)

    async def erase(self, erasure: Erasure) -> Erased:
        """Erase records, dead letters and states, and store others."""
        self._check_open()

        def is_selected(body: bytes) -> bool:
            return erasure.has_trace(body) and erasure.is_record(body)

        rows = [row for row in self._rows.values() if is_selected(row.record.body)]
        for route in {row.route.number: row.route for row in rows}.values():
            self._count_singly(route)
        for row in rows:
            self._mark(self._remove(row), RecordStatus("dropped"))
        letters = tuple(key for key, each in self._dead.items() if is_selected(each.body))
        await self.purge(letters)
        states = tuple(erasure.select_states([(key, state.value) for key, state in self._states.items()]))
        for key in states:
            self._change(StateChange(key, None, self._states[key].version))
        for key, value in erasure.states.items():
            before = self._states.get(key)
            self._change(StateChange(key, value, before.version if before else 0))
        self.commits += 1
        self._capacity_freed.set()
        return Erased(tuple(row.id for row in rows), letters, states)

    def _count_singly(self, route: Route) -> None:
        """Put each untouched row of a route into its schedule: untouched ones are a range without gaps."""
        for row in self._untouched(route):
            insort(route.schedule, (0.0, row.number))
        route.cursor = route.last

    def _pop_dead(self, ids: Iterable[str] | None) -> list[DeadLetter]:
        wanted = list(self._dead) if ids is None else [key for key in dict.fromkeys(ids) if key in self._dead]
        return [self._dead.pop(key) for key in wanted]

    async def reserve(self, name: str, count: int, rate: float) -> float:
        """Reserve requests of a shared rate limit."""
        self._check_open()
        wait, self._rates[name] = advance(self._rates.get(name, 0.0), uptime(), count, rate)
        return wait

    def subscribe(self, callback: Callable[[], None]) -> None:
        """Do nothing: no other process can write records."""

    async def generation(self) -> int:
        """Return the number that identifies the content."""
        self._check_open()
        return self._generation

    async def compact(self) -> int:
        """Return 0: there is no file."""
        self._check_open()
        return 0

    async def wipe(self) -> None:
        """Delete everything; also while the storage is closed."""
        self._generation += 1
        self._deleted_version = max(self._deleted_version, *(state.version for state in self._states.values()), 0)
        for content in (
            self._rows,
            self._routes,
            self._routes_by_number,
            self._dead,
            self._marks,
            self._states,
            self._activity,
        ):
            content.clear()
        self._capacity_freed.set()


def _size(records: Sequence[Record]) -> int:
    return sum(len(record.body) for record in records)
