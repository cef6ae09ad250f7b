"""
The queue in memory, for tests and scripts.

It is laid out as the SQLite file is: within a route records are numbered by one, a *cursor* is the last number ever
leased, and what is below it and still here stands in the route's agenda. So a claim never searches.
"""

import asyncio
import time
from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterable, Sequence
from heapq import merge, nsmallest
from itertools import count, islice
from math import inf
from typing import Literal

from attrs import define, field

from exponea_async.errors import QueueFullError, StateConflictError, StorageError
from exponea_async.storage._sessions import Sessions
from exponea_async.storage.base import (
    MAX_DUE_AHEAD,
    DeadLetter,
    Leased,
    Pending,
    Record,
    Settlement,
    State,
    StateChange,
    StateCheck,
    Watermark,
    Written,
)


@define(eq=False)
class _Row:
    """A record and what is known about it."""

    id: str
    seq: int
    route: "_Route"
    record: Record
    due: float = 0.0
    failures: int = 0

    @property
    def taken(self) -> bool:
        return self.seq <= self.route.cursor


@define(eq=False)
class _Route:
    """The records of one route: those above the cursor untouched, the others in the agenda by their due moment."""

    name: str
    number: int
    cursor: int = 0
    last: int = 0
    agenda: list[tuple[float, int]] = field(factory=list)

    def key(self, seq: int) -> str:
        return f"{self.number}.{seq}"

    def due(self, limit: int, now: float) -> list[int]:
        """Tell the taken numbers that are due, or due so late that the clock must have been set back."""
        ripe = self.agenda[: min(limit, bisect_right(self.agenda, (now, inf)))]
        start = bisect_right(self.agenda, (now + MAX_DUE_AHEAD, inf))
        return [seq for _, seq in ripe + self.agenda[start : start + limit - len(ripe)]]


class MemoryStorage:
    """
    A storage that forgets everything at the end of the process.

    Args:
        max_records: How many records may wait.
        when_full: What happens to a write without room: ``"raise"``, ``"wait"`` or ``"drop_oldest"``.
    """

    def __init__(
        self, *, max_records: int = 1_000_000, when_full: Literal["raise", "wait", "drop_oldest"] = "raise"
    ) -> None:
        self.commits = 0
        self._max_records = max_records
        self._when_full = when_full
        self._opened = False
        self._numbers = count(1)
        self._turn = 0
        self._rows: dict[str, _Row] = {}
        self._routes: dict[str, _Route] = {}
        self._dead: dict[str, DeadLetter] = {}
        self._states: dict[str, State] = {}
        self._sessions = Sessions(self._states)
        self._base = 0
        # Held by the writer that waits for room, so that those behind it can't overtake.
        self._door = asyncio.Lock()
        self._freed = asyncio.Event()

    async def open(self) -> None:
        """Make ready."""
        self._opened = True

    async def aclose(self) -> None:
        """Let go; who still waits for room gets an error."""
        self._opened = False
        self._freed.set()

    def _check_open(self) -> None:
        if not self._opened:
            raise StorageError("The storage is closed.")

    # Writing

    async def write(self, records: Sequence[Record], states: Sequence[StateChange | StateCheck] = ()) -> Written:
        """Keep records and states."""
        self._check_open()
        if not records:
            return self._keep((), states)
        async with self._door:
            self._check_states(states)
            while self._when_full == "wait" and len(self._rows) + len(records) > self._max_records >= len(records):
                # Asked here too: this writer may have come to the head of the line by the closing.
                self._check_open()
                self._freed.clear()
                await self._freed.wait()
                self._check_states(states)
            self._check_open()
            return self._keep(records, states)

    def _keep(self, records: Sequence[Record], states: Sequence[StateChange | StateCheck]) -> Written:
        self._check_states(states)
        dropped = self._make_room(len(records))
        for state in states:
            if isinstance(state, StateChange):
                self._change(state)
            elif state.active is not None:
                self._touch(state.key, state.active)
        self.commits += 1
        return Written(tuple(map(self._add, records)), dropped)

    def _change(self, change: StateChange) -> None:
        if change.value is None:
            self._states.pop(change.key, None)
            # The next state under any key begins above, so that nobody takes it for the one that they knew.
            self._base = max(self._base, change.version)
        else:
            self._states[change.key] = State(change.value, (change.version or self._base) + 1, change.active)
            self._sessions.note(change.key, change.active)

    def _touch(self, key: str, active: float) -> None:
        state = self._states.get(key)
        if state and (state.active is None or state.active < active):
            self._states[key] = State(state.value, state.version, active)
            self._sessions.note(key, active)

    def _check_states(self, states: Sequence[StateChange | StateCheck]) -> None:
        for state in states:
            known = self._states.get(state.key)
            if (known.version if known else 0) != state.version:
                raise StateConflictError(state.key)
            seen = state.seen if isinstance(state, StateChange) else None
            if seen is not None and known and known.active is not None and known.active > seen:
                raise StateConflictError(state.key)

    def _make_room(self, wanted: int) -> tuple[str, ...]:
        missing = wanted - max(0, self._max_records - len(self._rows))
        if not wanted or missing <= 0:
            return ()
        if wanted > self._max_records or self._when_full != "drop_oldest":
            raise QueueFullError(
                f"The queue is full: it may hold {self._max_records} records.",
                hint='Wait for uploads, raise QueueSettings.max_records, or set when_full to "wait" or "drop_oldest".',
            )
        # Untouched ones first, route by route in step; those in somebody's hands only when no others are left.
        oldest = list(islice(merge(*map(self._untouched, self._routes.values()), key=_age), missing))
        for row in oldest:
            row.route.cursor = row.seq
        dropped = [self._remove(row) for row in oldest]
        # Whoever is left by now is in somebody's hands.
        dropped += map(self._remove, nsmallest(missing - len(dropped), self._rows.values(), key=_age))
        return tuple(dropped)

    def _untouched(self, route: _Route) -> Iterable[_Row]:
        return (self._rows[route.key(seq)] for seq in range(route.cursor + 1, route.last + 1))

    def _add(self, record: Record) -> str:
        route = self._routes.get(record.route)
        if route is None:
            # The number is new even after a wipe, so that no id ever comes twice.
            route = self._routes[record.route] = _Route(record.route, next(self._numbers))
        route.last += 1
        key = route.key(route.last)
        self._rows[key] = _Row(key, route.last, route, record)
        return key

    def _remove(self, row: _Row) -> str:
        self._unschedule(row)
        del self._rows[row.id]
        return row.id

    # Leasing and settling

    async def lease(
        self, limit: int, seconds: float, now: float, *, skip: Iterable[str] = (), only: str | None = None
    ) -> list[Leased]:
        """Take due records."""
        self._check_open()
        skipped = frozenset(skip)
        routes = [route for name, route in self._routes.items() if name not in skipped and only in (None, name)]
        taken: list[_Row] = []
        # Routes take turns at being first, so that a busy one does not starve the others.
        self._turn += 1
        for place in range(len(routes)):
            if len(taken) >= limit:
                break
            route = routes[(place + self._turn) % len(routes)]
            taken += self._claim(route, limit - len(taken), now)
        for row in taken:
            self._schedule(row, now + min(seconds, MAX_DUE_AHEAD))
        return list(map(_leased, taken))

    def _claim(self, route: _Route, limit: int, now: float) -> list[_Row]:
        numbers = route.due(limit, now)
        end = min(route.last, route.cursor + limit - len(numbers))
        numbers += range(route.cursor + 1, end + 1)
        route.cursor = max(end, route.cursor)
        return [self._rows[route.key(seq)] for seq in numbers]

    def _schedule(self, row: _Row, due: float) -> None:
        self._unschedule(row)
        row.due = due
        insort(row.route.agenda, (due, row.seq))

    def _unschedule(self, row: _Row) -> None:
        entry, agenda = (row.due, row.seq), row.route.agenda
        place = bisect_left(agenda, entry)
        if agenda[place : place + 1] == [entry]:
            del agenda[place]

    async def settle(self, settlements: Sequence[Settlement]) -> int:
        """Act on verdicts."""
        self._check_open()
        before = len(self._rows)
        for settlement in settlements:
            for row in self._known(settlement.ids):
                self._settle(row, settlement)
        self.commits += 1
        self._freed.set()
        return before - len(self._rows)

    def _known(self, ids: Iterable[str]) -> list[_Row]:
        return [row for key in dict.fromkeys(ids) if (row := self._rows.get(key)) and row.taken]

    def _settle(self, row: _Row, settlement: Settlement) -> None:
        if settlement.verdict == "later":
            self._schedule(row, settlement.due)
            row.failures = settlement.failures
            return
        self._remove(row)
        if settlement.verdict == "dead":
            record = row.record
            self._dead[row.id] = DeadLetter(
                row.id, record.route, record.body, record.at, time.time(), settlement.reason
            )

    # Looking

    async def find(self, ids: Iterable[str]) -> dict[str, str]:
        """Tell the fate of records."""
        self._check_open()
        fates = {key: "queued" if key in self._rows else self._dead.get(key) for key in ids}
        return {key: fate if isinstance(fate, str) else fate.reason for key, fate in fates.items() if fate is not None}

    async def watermark(self) -> Watermark:
        """Draw a line under what is written."""
        self._check_open()
        return {name: route.key(route.last) for name, route in self._routes.items()}

    async def remaining(self, watermark: Watermark, *, skip: Iterable[str] = ()) -> int:
        """Count what is left from before a mark."""
        self._check_open()
        left = 0
        for name in watermark.keys() & self._routes.keys() - set(skip):
            route = self._routes[name]
            number, _, end = watermark[name].partition(".")
            if number == str(route.number):
                left += max(0, int(end) - route.cursor) + sum(seq <= int(end) for _, seq in route.agenda)
        return left

    async def pending(self) -> Pending:
        """Count what is here."""
        self._check_open()
        routes = {name: route.last - route.cursor + len(route.agenda) for name, route in self._routes.items()}
        taken = sum(len(route.agenda) for route in self._routes.values())
        return Pending(len(self._rows), taken, len(self._dead), routes)

    async def waiting(self, limit: int) -> list[Leased]:
        """Look at the oldest waiting records."""
        self._check_open()
        return list(map(_leased, nsmallest(limit, self._rows.values(), key=_age)))

    async def dead(self, limit: int) -> list[DeadLetter]:
        """Look at the newest dead letters."""
        self._check_open()
        return list(islice(reversed(self._dead.values()), limit))

    async def load_state(self, key: str) -> State | None:
        """Look a remembered value up."""
        self._check_open()
        return self._states.get(key)

    async def expired_sessions(self, before: float, limit: int) -> list[tuple[str, State]]:
        """Look at the states without activity since a moment."""
        self._check_open()
        return self._sessions.expired(before, limit)

    # Repair

    async def revive(self, ids: Iterable[str] | None = None) -> int:
        """Put dead letters back into the queue."""
        self._check_open()
        letters = self._take_dead(ids)
        for letter in letters:
            route = self._routes[letter.route]
            record = Record(letter.route, letter.body, letter.at)
            row = self._rows[letter.id] = _Row(letter.id, int(letter.id.partition(".")[2]), route, record)
            self._schedule(row, 0.0)
        return len(letters)

    async def purge(self, ids: Iterable[str] | None = None) -> int:
        """Delete dead letters."""
        self._check_open()
        return len(self._take_dead(ids))

    def _take_dead(self, ids: Iterable[str] | None) -> list[DeadLetter]:
        wanted = list(self._dead) if ids is None else [key for key in dict.fromkeys(ids) if key in self._dead]
        return [self._dead.pop(key) for key in wanted]

    async def wipe(self) -> None:
        """Forget everything."""
        self._check_open()
        self._base = max(self._base, *(state.version for state in self._states.values()), 0)
        for content in (self._rows, self._routes, self._dead, self._states, self._sessions):
            content.clear()
        self._freed.set()


def _age(row: _Row) -> float:
    return row.record.at


def _leased(row: _Row) -> Leased:
    return Leased(row.id, row.record.route, row.record.body, row.record.at, row.failures)
