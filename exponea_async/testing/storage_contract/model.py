"""
Any sequence of calls of a storage, compared with a model that is simple enough to be trusted.

A backend is tested by a class that says how its storage is created; hypothesis finds the sequences::

    class MyMachine(DurableStorageMachine):
        def create(self) -> Storage:
            return MyStorage(self.queue)


    TestMyModel = MyMachine.TestCase

The data of each instance of the class must be empty at its start.
"""

import asyncio
from collections.abc import Coroutine, Sequence
from typing import Any, TypeVar

from attrs import define
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from exponea_async.errors import StateConflictError
from exponea_async.storage.base import (
    DELETED_LETTER,
    MAX_DUE_AHEAD,
    Record,
    RecordStatus,
    State,
    StateChange,
    StateCheck,
    Storage,
)
from exponea_async.testing.storage_contract.builders import LEASE, NOW, dead, delivered, later

T = TypeVar("T")

ROUTES = st.sampled_from(["x", "y"])
KEYS = st.sampled_from(["k", "l"])
CHOICE = st.integers(0, 1_000)
#: Times of activity; few, so that equal ones occur.
TIMES = st.none() | st.integers(-2, 3).map(float)


@define
class ModelRecord:
    """A record in the model's queue."""

    route: str
    body: bytes
    due: float | None = None
    failures: int = 0

    def is_due(self, now: float) -> bool:
        """Return whether it can be leased."""
        return self.due is None or self.due <= now or self.due > now + MAX_DUE_AHEAD


class StorageMachine(RuleBasedStateMachine):
    """A storage and its model."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.now = NOW
        self.count = 0
        self.waiting: dict[str, ModelRecord] = {}
        self.dead_letters: dict[str, tuple[ModelRecord, str]] = {}
        self.gone: dict[str, RecordStatus] = {}
        self.states: dict[str, State] = {}
        self.seen: set[str] = set()
        self.open()

    def run_(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine of the storage."""
        return self.loop.run_until_complete(work)

    def create(self) -> Storage:
        """Return a new storage of the machine's data, which is not open."""
        raise NotImplementedError

    def open(self) -> None:
        """Open a new storage."""
        self.storage = self.create()
        self.run_(self.storage.open())

    def teardown(self) -> None:
        """Close the storage."""
        self.run_(self.storage.aclose())
        self.loop.close()

    def some(self, among: dict[str, Any], choice: int) -> list[str]:
        """Return some of the keys, selected by the bits of a number."""
        return [key for index, key in enumerate(among) if choice >> (index % 10) & 1]

    def leased(self) -> dict[str, ModelRecord]:
        """Return the records that were leased before."""
        return {key: known for key, known in self.waiting.items() if known.due is not None}

    @rule(routes=st.lists(ROUTES, max_size=6))
    def write(self, routes: list[str]) -> None:
        """Records get new ids."""
        bodies = [f"{self.count + index}".encode() for index in range(len(routes))]
        records = [Record(route, body, self.now) for route, body in zip(routes, bodies, strict=True)]
        written = self.run_(self.storage.write(records))

        assert self.seen.isdisjoint(written.ids)
        assert len(set(written.ids)) == len(routes)
        self.seen.update(written.ids)
        self.count += len(routes)
        self.waiting.update(zip(written.ids, map(ModelRecord, routes, bodies), strict=True))

    @rule(limit=st.integers(0, 8), skip=st.sets(ROUTES, max_size=1), only=st.none() | ROUTES)
    def lease(self, limit: int, skip: set[str], only: str | None) -> None:
        """As many due records are leased as there are, none twice, each with its known values."""
        due = {
            key
            for key, known in self.waiting.items()
            if known.is_due(self.now) and known.route not in skip and only in (None, known.route)
        }
        leased = self.run_(self.storage.lease(limit, LEASE, self.now, skip=skip, only=only))

        assert len(leased) == min(limit, len(due))
        assert len({each.id for each in leased}) == len(leased)
        for each in leased:
            known = self.waiting[each.id]
            assert each.id in due
            assert (each.route, each.body, each.failures) == (known.route, known.body, known.failures)
            known.due = self.now + LEASE

    @rule(choice=CHOICE, cut=st.integers(0, 8), reason=st.sampled_from(["odd", "late"]))
    def settle(self, choice: int, cut: int, reason: str) -> None:
        """Verdicts of all kinds apply to leased records, and to no others."""
        chosen = self.some(self.waiting, choice)
        gone, delayed, died = chosen[:cut], chosen[cut : 2 * cut], chosen[2 * cut :]
        leased = self.leased()
        settlements = [
            *delivered(*gone),
            *later(*delayed, due=self.now + 30, failures=cut),
            *dead(*died, reason=reason),
        ]
        left = self.run_(self.storage.settle(settlements))

        assert left == len([key for key in gone + died if key in leased])
        for key in filter(leased.__contains__, gone):
            del self.waiting[key]
            self.gone[key] = RecordStatus("delivered")
        for key in filter(leased.__contains__, delayed):
            leased[key].due, leased[key].failures = self.now + 30, cut
        for key in filter(leased.__contains__, died):
            self.dead_letters[key] = (self.waiting.pop(key), reason)

    @rule(choice=st.none() | CHOICE)
    def revive(self, choice: int | None) -> None:
        """Dead letters come back under their ids."""
        chosen = list(self.dead_letters) if choice is None else self.some(self.dead_letters, choice)
        assert self.run_(self.storage.revive(None if choice is None else chosen)) == len(chosen)
        for key in chosen:
            known, _ = self.dead_letters.pop(key)
            self.waiting[key] = ModelRecord(known.route, known.body, 0.0)

    @rule(choice=st.none() | CHOICE)
    def purge(self, choice: int | None) -> None:
        """Dead letters are deleted."""
        chosen = list(self.dead_letters) if choice is None else self.some(self.dead_letters, choice)
        assert self.run_(self.storage.purge(None if choice is None else chosen)) == len(chosen)
        for key in chosen:
            del self.dead_letters[key]
            self.gone[key] = RecordStatus("rejected", DELETED_LETTER)

    @rule(seconds=st.sampled_from([1.0, 30.0, 61.0, -20.0, -2 * MAX_DUE_AHEAD, 2 * MAX_DUE_AHEAD]))
    def set_clock(self, seconds: float) -> None:
        """Time passes, or the clock is set."""
        self.now += seconds

    @rule(key=KEYS, wrong=st.booleans(), value=st.none() | st.binary(max_size=3), active=TIMES, seen=TIMES)
    def change_state(
        self, key: str, *, wrong: bool, value: bytes | None, active: float | None, seen: float | None
    ) -> None:
        """A state changes if its version is the stored one, and only then the record of the same write is stored."""
        known = self.states.get(key)
        late = seen is not None and known is not None and known.active is not None and known.active > seen
        change = StateChange(key, value, (known.version if known else 0) + wrong, active, seen)
        is_written = self.writes([change])
        assert is_written is not (wrong or late)
        if is_written:
            self.follow(change)

    @rule(wanted=st.lists(st.tuples(KEYS, TIMES), min_size=1, max_size=4), wrong=st.booleans())
    def raise_activity(self, wanted: list[tuple[str, float | None]], *, wrong: bool) -> None:
        """Checks raise the activity of the states that exist: all of them or, in a conflict, none."""
        versions = {key: state.version for key, state in self.states.items()}
        checks = [StateCheck(key, versions.get(key, 0), active) for key, active in wanted]
        checks += [StateCheck("m", 1, 9.0)] * wrong
        assert self.writes(checks) is not wrong
        for key, active in () if wrong else wanted:
            known = self.states.get(key)
            if known and active is not None and (known.active is None or known.active < active):
                self.states[key] = State(known.value, known.version, active)

    def writes(self, states: Sequence[StateChange | StateCheck]) -> bool:
        """Write a record under conditions; return whether they held."""
        body = f"{self.count}".encode()
        self.count += 1
        try:
            written = self.run_(self.storage.write([Record("x", body, self.now)], states))
        except StateConflictError:
            return False
        self.waiting[written.ids[0]] = ModelRecord("x", body)
        return True

    def follow(self, change: StateChange) -> None:
        """Change the model as the storage has changed."""
        if change.value is None:
            self.states.pop(change.key, None)
            return
        stored = self.run_(self.storage.load_state(change.key))
        assert stored is not None
        assert stored.version == change.version + 1 or change.version == 0
        self.states[change.key] = State(change.value, stored.version, change.active)

    @rule(before=TIMES, limit=st.integers(0, 3))
    def expire(self, before: float | None, limit: int) -> None:
        """Expired sessions are returned by their activity, and no others."""
        before = 9.0 if before is None else before
        late = [(s.active, key, s) for key, s in self.states.items() if s.active is not None and s.active < before]
        late.sort(key=lambda each: each[:2])

        found = self.run_(self.storage.expired_sessions(before, limit))
        assert found == [(key, state) for _, key, state in late][:limit]

    @rule()
    @precondition(lambda self: self.count % 3 == 0)
    def wipe(self) -> None:
        """Everything is deleted."""
        self.run_(self.storage.wipe())
        for content in (self.waiting, self.dead_letters, self.states, self.gone):
            content.clear()

    @invariant()
    def agrees(self) -> None:
        """Numbers, statuses and states are those of the model."""
        count = self.run_(self.storage.pending())
        assert (count.waiting, count.leased, count.dead) == (
            len(self.waiting),
            len(self.leased()),
            len(self.dead_letters),
        )
        assert sum(count.routes.values()) == count.waiting
        statuses = (
            self.gone
            | dict.fromkeys(self.waiting, RecordStatus("queued"))
            | {key: RecordStatus("rejected", reason) for key, (_, reason) in self.dead_letters.items()}
        )
        assert self.run_(self.storage.find(self.seen | statuses.keys())) == statuses
        for key in ("k", "l"):
            assert self.run_(self.storage.load_state(key)) == self.states.get(key)

    @invariant()
    def everything_remains(self) -> None:
        """A watermark counts all waiting records, and all of them can be read."""
        assert self.run_(self._remaining()) == len(self.waiting)
        seen = self.run_(self.storage.waiting(1_000))
        assert {each.id: each.body for each in seen} == {key: known.body for key, known in self.waiting.items()}

    async def _remaining(self) -> int:
        return await self.storage.remaining(await self.storage.watermark())


class DurableStorageMachine(StorageMachine):
    """A storage whose data outlasts the process: it can be closed and opened again at any time."""

    @rule()
    def reopen(self) -> None:
        """A restart changes nothing."""
        self.run_(self.storage.aclose())
        self.open()
