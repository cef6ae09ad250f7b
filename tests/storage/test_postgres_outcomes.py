"""
Commits whose connection is lost: before the server gets them, before its answer arrives, or while they are on the way.
"""

import asyncio
from collections import Counter
from collections.abc import Sequence

import pytest
from helpers.database_proxy import DatabaseProxy, Loss
from helpers.postgres_storage import OpenPostgres, Tables
from helpers.storages import delivered, lease, records
from helpers.waiting import until_succeeds

from exponea_async.errors import StorageError
from exponea_async.storage.base import Record, StateChange, Written
from exponea_async.storage.postgres.storage import PostgresStorage

LOSSES: tuple[Loss, ...] = ("unsent", "unanswered", "at once", "late")


class Callers:
    """Writes of many callers, each of one record, and what became of them."""

    def __init__(self, storage: PostgresStorage) -> None:
        self._storage = storage
        self.ids: dict[str, str] = {}
        self.failed: set[str] = set()
        self.reported: Counter[str] = Counter()

    async def write(self, *names: str, with_state: bool = False) -> None:
        """Let a caller write for each name, all at the same time."""
        await asyncio.gather(*(self._write(name, with_state=with_state) for name in names))

    async def _write(self, name: str, *, with_state: bool) -> None:
        states = [StateChange(name, b"state", 0)] if with_state else []
        try:
            written = await self._storage.write(records(name), states, lambda _: self.reported.update([name]))
        except StorageError:
            self.failed.add(name)
        else:
            self.ids[name] = written.ids[0]

    async def check(self, tables: Tables) -> None:
        """Compare what the callers were told with what is stored."""
        stored = Counter(tables.bodies())
        assert stored.keys() >= self.ids.keys()
        assert stored.keys() <= self.ids.keys() | self.failed
        assert set(stored.values()) <= {1}
        assert set(self.reported.values()) <= {1}
        assert self.reported.keys() >= self.ids.keys()
        waiting = {each.body.decode(): each.id for each in await self._storage.waiting(10_000)}
        assert {name: waiting[name] for name in self.ids} == self.ids
        tables.check_counters()


def names(prefix: str, count: int) -> list[str]:
    """Return names of callers."""
    return [f"{prefix}-{number}." for number in range(count)]


@pytest.mark.parametrize("with_state", [False, True])
@pytest.mark.parametrize("loss", LOSSES)
async def test_a_connection_that_is_lost_at_a_statement(
    open_postgres: OpenPostgres, proxy: DatabaseProxy, tables: Tables, loss: Loss, *, with_state: bool
) -> None:
    """All callers of a commit are told that it was made, and it was made once."""
    storage = await open_postgres(proxy.url)
    callers = Callers(storage)
    await callers.write(*names("first", 20), with_state=with_state)
    fault = proxy.fail(b"second-7.", loss, delay=0.2)
    await callers.write(*names("second", 20), with_state=with_state)
    await callers.write(*names("third", 20), with_state=with_state)

    assert fault.is_over
    assert callers.failed == set()
    await callers.check(tables)


@pytest.mark.parametrize("loss", LOSSES)
async def test_a_connection_that_is_lost_at_the_end_of_a_transaction(
    open_postgres: OpenPostgres, proxy: DatabaseProxy, tables: Tables, loss: Loss
) -> None:
    """States and records are written once, and their versions are right, whether the commit was made or not."""
    storage = await open_postgres(proxy.url)
    callers = Callers(storage)
    await callers.write("first", with_state=True)
    fault = proxy.fail(b"COMMIT", loss, delay=0.2)
    await callers.write(*names("second", 20), with_state=True)

    assert fault.is_over
    assert callers.failed == set()
    await callers.check(tables)
    state = await storage.load_state("second-3.")
    assert state is not None
    await storage.write([], [StateChange("second-3.", b"next", state.version)])


async def test_a_statement_that_arrives_after_its_callers_gave_up(
    open_postgres: OpenPostgres, proxy: DatabaseProxy, tables: Tables
) -> None:
    """What arrives late is written at most once, and is never taken for a later commit."""
    storage = await open_postgres(proxy.url, lock_timeout=3.0)
    callers = Callers(storage)
    await callers.write("first.")
    callers.failed.clear()
    proxy.fail(b"late-3.", "late", delay=0.6)
    waiting = asyncio.create_task(callers.write(*names("late", 10)))
    await asyncio.sleep(0.2)
    await proxy.set_mode("silent")
    await waiting
    await proxy.set_mode("open")
    # No names of callers: the limit is short, so that they may fail on a busy machine.
    for _ in range(5):
        await until_succeeds(lambda: storage.write(records("later")), StorageError)

    stored = [body for body in tables.bodies() if body.startswith("late-")]
    assert len(stored) == len(set(stored))
    assert callers.ids.keys() & set(names("late", 10)) <= set(stored)
    tables.check_counters()


async def test_connections_that_are_lost_again_and_again(
    open_postgres: OpenPostgres, proxy: DatabaseProxy, tables: Tables
) -> None:
    """However often the connections are lost, what was acknowledged is stored once."""
    storage = await open_postgres(proxy.url)
    callers = Callers(storage)

    async def disturb() -> None:
        while True:
            await asyncio.sleep(0.1)
            proxy.lose_connections()

    disturbing = asyncio.create_task(disturb())
    for number in range(4):
        await callers.write(*names(f"step-{number}", 30), with_state=bool(number % 2))
    disturbing.cancel()

    await callers.check(tables)
    pending = await storage.pending()
    assert pending.waiting == len(tables.bodies())


async def test_a_reservation_of_ids_that_is_lost(
    open_postgres: OpenPostgres, proxy: DatabaseProxy, tables: Tables
) -> None:
    """A route and its ids are not used where it is not known that they were stored."""
    storage = await open_postgres(proxy.url, lock_timeout=2.0)
    proxy.fail(b"COMMIT", "unsent")
    await proxy.set_mode("silent")
    with pytest.raises(StorageError):
        await storage.write(records("a", route="new"))
    await proxy.set_mode("open")
    await until_succeeds(lambda: storage.write(records("b", route="new")), StorageError)

    waiting = await until_succeeds(lambda: storage.waiting(9), StorageError)
    assert {each.route for each in waiting if each.body == b"b"} == {"new"}
    tables.check_counters()


async def test_settlements_whose_answer_is_lost(
    open_postgres: OpenPostgres, proxy: DatabaseProxy, tables: Tables
) -> None:
    """The counters are right, whether a settlement was made once or tried twice."""
    storage = await open_postgres(proxy.url)
    written = await storage.write(records(*"abcdef"))
    assert len(await lease(storage)) == 6
    for loss, key in zip(LOSSES, written.ids, strict=False):
        proxy.fail(b"COMMIT", loss, delay=0.1)
        await storage.settle(delivered(key))

    assert tables.bodies() == ["e", "f"]
    tables.check_counters()


async def test_a_commit_that_is_canceled_by_its_caller(
    open_postgres: OpenPostgres, proxy: DatabaseProxy, tables: Tables
) -> None:
    """The other callers of the same commit are not disturbed."""
    storage = await open_postgres(proxy.url)
    callers = Callers(storage)
    await proxy.set_mode("silent")
    calls = [asyncio.create_task(callers.write(name)) for name in names("a", 20)]
    await asyncio.sleep(0.05)
    for call in calls[::2]:
        call.cancel()
    await proxy.set_mode("open")
    await asyncio.wait(calls)

    assert set(callers.ids) == set(names("a", 20)[1::2])
    assert set(tables.bodies()) >= set(callers.ids)
    tables.check_counters()


def written_ids(results: Sequence[Written]) -> list[str]:
    """Return the ids of several writes."""
    return [key for written in results for key in written.ids]


async def test_ids_that_a_server_has_forgotten(open_postgres: OpenPostgres, tables: Tables) -> None:
    """
    Ids are not used that a standby does not know to be reserved, and none is given to two records.

    A standby that takes over may have lost the last commits: reservations, new routes and clients.
    """
    storage, other = await open_postgres(), await open_postgres()
    first = await storage.write(records("a", "b"))
    tables.run("UPDATE {s}.route SET next = 1")
    second = await other.write(records("c"), [])
    third = await storage.write(records("d"))
    tables.run("DELETE FROM {s}.route; DELETE FROM {s}.record; DELETE FROM {s}.counter; DELETE FROM {s}.client")
    fourth = [await each.write([Record("shop", name.encode(), 1.0)]) for each, name in ((storage, "e"), (other, "f"))]

    ids = written_ids([first, second, third, *fourth])
    assert len(set(ids)) == len(ids)
    assert [each.body for each in await storage.waiting(9)] == [b"e", b"f"]
    tables.check_counters()
