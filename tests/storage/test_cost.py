"""
The cost of calls, counted in SQLite's steps and not in time.
"""

import asyncio
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import pytest
from helpers.storages import (
    LEASE,
    NOW,
    delivered,
    ids,
    records,
)

from exponea_async.storage.base import Record, StateChange, StateCheck
from exponea_async.storage.sqlite import leases, queries
from exponea_async.storage.sqlite.connection import QueueConnection
from exponea_async.storage.sqlite.file import open_file
from exponea_async.storage.sqlite.writes import BatchWriter, PendingWrite

T = TypeVar("T")


class TestCost:
    @pytest.fixture
    def connection(self, path: Path) -> Iterator[QueueConnection]:
        path.parent.mkdir()
        connection = open_file(path, lambda: QueueConnection(path), synchronous="NORMAL", timeout=1.0)
        yield connection
        connection.close()

    def fill(self, connection: QueueConnection, total: int) -> None:
        count = sum(route.last - route.cursor for route in connection.routes.values()) + connection.leased()
        self.write(connection, records(*map(str, range(count, total))))

    def write(
        self,
        connection: QueueConnection,
        records: Sequence[Record] = (),
        states: Sequence[StateChange | StateCheck] = (),
    ) -> None:
        write = PendingWrite(records, states, None, asyncio.new_event_loop())
        write.get_loop().close()
        with connection.write_transaction():
            BatchWriter(connection, [write]).run()
        assert write.written

    def change(self, connection: QueueConnection, work: Callable[[QueueConnection], T]) -> T:
        with connection.write_transaction():
            return work(connection)

    def read(self, connection: QueueConnection, work: Callable[[QueueConnection], T]) -> T:
        with connection.read_transaction():
            return work(connection)

    def steps(self, connection: QueueConnection, work: Callable[[], Any]) -> int:
        """Return the steps of SQLite's virtual machine that work takes; they do not depend on the time of day."""
        count = 0

        def step() -> int:
            nonlocal count
            count += 1
            return 0

        connection.set_progress_handler(step, 1)
        work()
        connection.set_progress_handler(None, 1)
        return count

    def test_it_does_not_grow_with_the_queue(self, connection: QueueConnection) -> None:
        """A read, a lease, a settlement and a write cost the same with 1,000 and with 100,000 records in the queue."""
        costs = []
        for total in (1_000, 100_000):
            self.fill(connection, total)
            costs.append([self.steps(connection, work) for work in self.works(connection)])

        for few, many in zip(*costs, strict=True):
            assert abs(many - few) <= few / 5

    def works(self, connection: QueueConnection) -> list[Callable[[], Any]]:
        first = leases.LeaseRequest(50, NOW + LEASE, NOW, frozenset(), None)
        again = leases.LeaseRequest(50, NOW + 2 * LEASE, NOW + LEASE, frozenset(), None)
        held: list[str] = []
        return [
            lambda: self.read(connection, lambda connection: leases.has_due(connection, first)),
            lambda: held.extend(ids(self.change(connection, lambda connection: leases.lease(connection, first)))),
            lambda: self.change(connection, lambda connection: leases.lease(connection, again)),
            lambda: self.change(
                connection, lambda connection: leases.settle(connection, [(each, 0.0) for each in delivered(*held)])
            ),
            lambda: self.write(connection, records("a")),
            lambda: self.read(connection, queries.pending),
            # After another process has written, the cached values are read again.
            lambda: self.change(connection, QueueConnection.reload),
        ]

    def test_reading_of_leased_records(self, connection: QueueConnection) -> None:
        """The numbers of the queue read no record for each leased one, only the index that counts them."""
        self.fill(connection, 21_000)
        costs = []
        for limit in (1_000, 20_000):
            request = leases.LeaseRequest(limit, NOW + LEASE, NOW, frozenset(), None)
            self.change(connection, partial(leases.lease, request=request))
            costs.append(self.steps(connection, lambda: self.read(connection, queries.pending)))

        assert (costs[1] - costs[0]) / 20_000 < 12

    def test_it_does_not_grow_with_the_states(self, connection: QueueConnection) -> None:
        """Activity, with versions cached or not, and reads cost the same beside 1,000 and 100,000 states."""
        costs = []
        self.write(connection, records("a"))
        for start, total in ((0, 1_000), (1_000, 100_000)):
            created = [StateChange(f"k{n}", b"v" * 99, 0, active=NOW + n) for n in range(start, total)]
            self.write(connection, states=created)
            costs.append([self.steps(connection, work) for work in self.state_works(connection, NOW + total)])

        for few, many in zip(*costs, strict=True):
            assert abs(many - few) <= few / 5

    def state_works(self, connection: QueueConnection, now: float) -> list[Callable[[], Any]]:
        cached, unknown = ([StateCheck(f"k{n}", 1, active=now + n + more) for n in range(200, 300)] for more in (0, 1))
        return [
            lambda: self.read(connection, lambda connection: queries.expired_sessions(connection, NOW + 500, 100)),
            lambda: self.write(connection, records("a"), [StateCheck("k150", 1, active=now)]),
            lambda: self.write(connection, records("a"), cached),
            connection.versions.clear,
            lambda: self.write(connection, records("a"), unknown),
            lambda: self.read(connection, lambda connection: queries.load_state(connection, "k7")),
        ]
