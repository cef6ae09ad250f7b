"""
Any sequence of calls, held against a model simple enough to be believed.
"""

import asyncio
import tempfile
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, TypeVar

from attrs import define
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from stores import LEASE, NOW, dead, delivered, later

from exponea_async.errors import StateConflictError
from exponea_async.storage.base import HORIZON, Record, StateChange, StateCheck, Storage
from exponea_async.storage.memory import MemoryStorage
from exponea_async.storage.sqlite import SQLiteStorage

T = TypeVar("T")

ROUTES = st.sampled_from(["x", "y"])
KEYS = st.sampled_from(["k", "l"])
CHOICE = st.integers(0, 1_000)


@define
class Known:
    """What the model knows of a record that waits."""

    route: str
    body: bytes
    due: float | None = None
    failures: int = 0

    def is_due(self, now: float) -> bool:
        return self.due is None or self.due <= now or self.due > now + HORIZON


class StorageMachine(RuleBasedStateMachine):
    """A storage and its model, side by side."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.folder = tempfile.TemporaryDirectory()
        self.now = NOW
        self.count = 0
        self.waiting: dict[str, Known] = {}
        self.letters: dict[str, tuple[Known, str]] = {}
        self.states: dict[str, tuple[bytes, int]] = {}
        self.seen: set[str] = set()
        self.open()

    def run_(self, work: Coroutine[Any, Any, T]) -> T:
        return self.loop.run_until_complete(work)

    def make(self, path: Path) -> Storage:
        raise NotImplementedError

    def open(self) -> None:
        self.storage = self.make(Path(self.folder.name) / "queue.sqlite")
        self.run_(self.storage.open())

    def teardown(self) -> None:
        self.run_(self.storage.aclose())
        self.loop.close()
        self.folder.cleanup()

    def some(self, among: dict[str, Any], choice: int) -> list[str]:
        """Chooses some of the keys, by the bits of a number."""
        return [key for place, key in enumerate(among) if choice >> (place % 10) & 1]

    def in_hand(self) -> dict[str, Known]:
        return {key: known for key, known in self.waiting.items() if known.due is not None}

    @rule(routes=st.lists(ROUTES, max_size=6))
    def write(self, routes: list[str]) -> None:
        """Records get new ids."""
        bodies = [f"{self.count + place}".encode() for place in range(len(routes))]
        records = [Record(route, body, self.now) for route, body in zip(routes, bodies, strict=True)]
        written = self.run_(self.storage.write(records))

        assert self.seen.isdisjoint(written.ids)
        assert len(set(written.ids)) == len(routes)
        self.seen.update(written.ids)
        self.count += len(routes)
        self.waiting.update(zip(written.ids, map(Known, routes, bodies), strict=True))

    @rule(limit=st.integers(0, 8), skip=st.sets(ROUTES, max_size=1), only=st.none() | ROUTES)
    def lease(self, limit: int, skip: set[str], only: str | None) -> None:
        """As many due records are leased as there are, none twice, each as it is known."""
        fit = {
            key
            for key, known in self.waiting.items()
            if known.is_due(self.now) and known.route not in skip and only in (None, known.route)
        }
        taken = self.run_(self.storage.lease(limit, LEASE, self.now, skip=skip, only=only))

        assert len(taken) == min(limit, len(fit))
        assert len({each.id for each in taken}) == len(taken)
        for each in taken:
            known = self.waiting[each.id]
            assert each.id in fit
            assert (each.route, each.body, each.failures) == (known.route, known.body, known.failures)
            known.due = self.now + LEASE

    @rule(choice=CHOICE, cut=st.integers(0, 8), reason=st.sampled_from(["odd", "late"]))
    def settle(self, choice: int, cut: int, reason: str) -> None:
        """Verdicts of all kinds act on records in hand, and on no others."""
        chosen = self.some(self.waiting, choice)
        gone, off, died = chosen[:cut], chosen[cut : 2 * cut], chosen[2 * cut :]
        held = self.in_hand()
        settlements = [*delivered(*gone), *later(*off, due=self.now + 30, failures=cut), *dead(*died, reason=reason)]
        left = self.run_(self.storage.settle(settlements))

        assert left == len([key for key in gone + died if key in held])
        for key in filter(held.__contains__, gone):
            del self.waiting[key]
        for key in filter(held.__contains__, off):
            held[key].due, held[key].failures = self.now + 30, cut
        for key in filter(held.__contains__, died):
            self.letters[key] = (self.waiting.pop(key), reason)

    @rule(choice=st.none() | CHOICE)
    def revive(self, choice: int | None) -> None:
        """Letters come back under their ids."""
        chosen = list(self.letters) if choice is None else self.some(self.letters, choice)
        assert self.run_(self.storage.revive(None if choice is None else chosen)) == len(chosen)
        for key in chosen:
            known, _ = self.letters.pop(key)
            self.waiting[key] = Known(known.route, known.body, 0.0)

    @rule(choice=st.none() | CHOICE)
    def purge(self, choice: int | None) -> None:
        """Letters are deleted."""
        chosen = list(self.letters) if choice is None else self.some(self.letters, choice)
        assert self.run_(self.storage.purge(None if choice is None else chosen)) == len(chosen)
        for key in chosen:
            del self.letters[key]

    @rule(seconds=st.sampled_from([1.0, 30.0, 61.0, -20.0, -2 * HORIZON, 2 * HORIZON]))
    def turn_clock(self, seconds: float) -> None:
        """Time passes, or the clock is set."""
        self.now += seconds

    @rule(key=KEYS, wrong=st.booleans(), checked=st.booleans(), value=st.none() | st.binary(max_size=3))
    def change_state(self, key: str, *, wrong: bool, checked: bool, value: bytes | None) -> None:
        """A state changes if its version is right, and only then is the record written that comes with it."""
        version = self.states.get(key, (b"", 0))[1] + wrong
        state = StateCheck(key, version) if checked else StateChange(key, value, version)
        body = f"{self.count}".encode()
        self.count += 1
        try:
            written = self.run_(self.storage.write([Record("x", body, self.now)], [state]))
        except StateConflictError:
            assert wrong
            return
        assert not wrong
        self.waiting[written.ids[0]] = Known("x", body)
        if isinstance(state, StateChange):
            self.follow(state)

    def follow(self, change: StateChange) -> None:
        if change.value is None:
            self.states.pop(change.key, None)
            return
        stored = self.run_(self.storage.load_state(change.key))
        assert stored is not None
        assert stored.version == change.version + 1 or change.version == 0
        self.states[change.key] = (change.value, stored.version)

    @rule()
    @precondition(lambda self: self.count % 3 == 0)
    def wipe(self) -> None:
        """Everything is forgotten."""
        self.run_(self.storage.wipe())
        for content in (self.waiting, self.letters, self.states):
            content.clear()

    @invariant()
    def agrees(self) -> None:
        """Counts, fates and states are as the model has them."""
        count = self.run_(self.storage.pending())
        assert (count.waiting, count.taken, count.dead) == (len(self.waiting), len(self.in_hand()), len(self.letters))
        assert sum(count.routes.values()) == count.waiting
        fates = dict.fromkeys(self.waiting, "queued") | {key: reason for key, (_, reason) in self.letters.items()}
        assert self.run_(self.storage.find(self.seen | fates.keys())) == fates
        for key in ("k", "l"):
            state = self.run_(self.storage.load_state(key))
            assert (state and (state.value, state.version)) == self.states.get(key)

    @invariant()
    def everything_remains(self) -> None:
        """A mark made now counts what waits, and all of that can be seen."""
        assert self.run_(self._remaining()) == len(self.waiting)
        seen = self.run_(self.storage.waiting(1_000))
        assert {each.id: each.body for each in seen} == {key: known.body for key, known in self.waiting.items()}

    async def _remaining(self) -> int:
        return await self.storage.remaining(await self.storage.mark())


class MemoryMachine(StorageMachine):
    """The storage in memory."""

    def make(self, path: Path) -> Storage:
        return MemoryStorage()


class SQLiteMachine(StorageMachine):
    """The storage in a file, which can be closed and opened again at any moment."""

    def make(self, path: Path) -> Storage:
        return SQLiteStorage(path)

    @rule()
    def reopen(self) -> None:
        """A restart changes nothing."""
        self.run_(self.storage.aclose())
        self.open()


PACE = settings(max_examples=25, stateful_step_count=30, deadline=None, suppress_health_check=[HealthCheck.too_slow])

TestMemoryModel = MemoryMachine.TestCase
TestMemoryModel.settings = PACE
TestSQLiteModel = SQLiteMachine.TestCase
TestSQLiteModel.settings = PACE
