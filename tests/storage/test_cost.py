"""
What calls cost, counted in steps and not in time.
"""

import asyncio
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from stores import (
    LEASE,
    NOW,
    delivered,
    file_path,  # noqa: F401 - a fixture
    ids,
    records,
)

from exponea_async.storage.base import Record, StateChange, StateCheck
from exponea_async.storage.sqlite import leases as _claims
from exponea_async.storage.sqlite import queries as _queries
from exponea_async.storage.sqlite.connection import QueueConnection
from exponea_async.storage.sqlite.file import open_ledger
from exponea_async.storage.sqlite.writes import BatchWriter, PendingWrite


class TestCost:
    @pytest.fixture
    def ledger(self, path: Path) -> Iterator[QueueConnection]:
        ledger = open_ledger(path, lambda: QueueConnection(path, isolation_level=None), "NORMAL", 1.0)
        yield ledger
        ledger.close()

    def fill(self, ledger: QueueConnection, total: int) -> None:
        written = sum(route.last - route.cursor for route in ledger.routes.values()) + ledger.taken()
        self.write(ledger, records(*map(str, range(written, total))))

    def write(
        self, ledger: QueueConnection, records: Sequence[Record] = (), states: Sequence[StateChange | StateCheck] = ()
    ) -> None:
        entry = PendingWrite(records, states, asyncio.Future(loop=asyncio.new_event_loop()))
        entry.future.get_loop().close()
        ledger.transact(lambda ledger: BatchWriter(ledger, [entry]).run())
        assert entry.written

    def steps(self, ledger: QueueConnection, work: Callable[[], Any]) -> int:
        """Count the steps of SQLite's machine that work takes; they don't depend on the time of day."""
        count = 0

        def step() -> int:
            nonlocal count
            count += 1
            return 0

        ledger.set_progress_handler(step, 1)
        work()
        ledger.set_progress_handler(None, 1)
        return count

    def test_it_does_not_grow_with_the_queue(self, ledger: QueueConnection) -> None:
        """A look, a lease, a settlement and a write cost the same with 1,000 and with 100,000 records waiting."""
        costs = []
        for total in (1_000, 100_000):
            self.fill(ledger, total)
            costs.append([self.steps(ledger, work) for work in self.works(ledger)])

        for few, many in zip(*costs, strict=True):
            assert abs(many - few) <= few / 5

    def works(self, ledger: QueueConnection) -> list[Callable[[], Any]]:
        claim = _claims.LeaseRequest(50, NOW + LEASE, NOW, frozenset(), None)
        again = _claims.LeaseRequest(50, NOW + 2 * LEASE, NOW + LEASE, frozenset(), None)
        held: list[str] = []
        return [
            lambda: ledger.look(lambda ledger: _claims.has_due(ledger, claim)),
            lambda: held.extend(ids(ledger.transact(lambda ledger: _claims.lease(ledger, claim)))),
            lambda: ledger.transact(lambda ledger: _claims.lease(ledger, again)),
            lambda: ledger.transact(lambda ledger: _claims.settle(ledger, delivered(*held))),
            lambda: self.write(ledger, records("a")),
            lambda: ledger.look(_queries.pending),
            # What another process writes makes this one read its place again.
            lambda: ledger.transact(QueueConnection.reload),
        ]

    def test_it_does_not_grow_with_the_states(self, ledger: QueueConnection) -> None:
        """Touches, their versions known or not, and looks cost the same beside 100,000 states."""
        costs = []
        self.write(ledger, records("a"))
        for start, total in ((0, 1_000), (1_000, 100_000)):
            self.write(ledger, states=[StateChange(f"k{n}", b"v" * 99, 0, active=NOW + n) for n in range(start, total)])
            costs.append([self.steps(ledger, work) for work in self.state_works(ledger, NOW + total)])

        for few, many in zip(*costs, strict=True):
            assert abs(many - few) <= few / 5

    def state_works(self, ledger: QueueConnection, now: float) -> list[Callable[[], Any]]:
        known, unknown = ([StateCheck(f"k{n}", 1, active=now + n + more) for n in range(200, 300)] for more in (0, 1))
        return [
            lambda: ledger.look(lambda ledger: _queries.expired_sessions(ledger, NOW + 500, 100)),
            lambda: self.write(ledger, records("a"), [StateCheck("k150", 1, active=now)]),
            lambda: self.write(ledger, records("a"), known),
            ledger.versions.clear,
            lambda: self.write(ledger, records("a"), unknown),
            lambda: ledger.look(lambda ledger: _queries.load_state(ledger, "k7")),
        ]
