"""
The time of the last activity of a state, in a file: durable, shared by processes, and cheap.
"""

import asyncio

import pytest
from helpers.storages import (
    NOW,
    OpenFile,
    bodies,
    create_states,
    expired_keys,
    last_activity,
    records,
)

from exponea_async.errors import StateConflictError
from exponea_async.storage.base import State, StateChange, StateCheck, Storage


class TestInAFile:
    async def test_after_a_restart(self, open_file: OpenFile) -> None:
        """Activity is the same after a restart, to the last bit."""
        storage = await open_file()
        active = NOW + 1 / 3
        await create_states(storage, active, NOW, None)
        await storage.write([], [StateCheck("k1", 1, active=active + 1)])
        await storage.aclose()

        again = await open_file()
        assert await again.expired_sessions(NOW + 9, 9) == [
            ("k0", State(b"v", 1, active)),
            ("k1", State(b"v", 1, active + 1)),
        ]

    async def test_two_connections(self, open_file: OpenFile) -> None:
        """Activity that one connection stores counts for the other: in expired sessions, and in conditions."""
        one, two = await open_file(), await open_file()
        await create_states(one, NOW - 5, NOW - 4)
        assert await expired_keys(two) == ["k0", "k1"]
        await one.write([], [StateCheck("k0", 1, active=NOW)])

        assert await expired_keys(two) == ["k1"]
        with pytest.raises(StateConflictError):
            await two.write([], [StateChange("k0", b"", 1, seen=NOW - 5)])
        await two.write([], [StateCheck("k0", 1, active=NOW - 1)])
        assert await last_activity(one, "k0") == NOW

    async def test_one_state_is_written_once_a_transaction(self, open_file: OpenFile) -> None:
        """However many callers there are, a transaction writes the activity of a state once, if it is later."""
        storage = await open_file()
        await create_states(storage, NOW)
        written: list[str] = []
        await storage.run(lambda connection: connection.set_trace_callback(written.append))
        before = storage.commits
        checks = [[StateCheck("k0", 1, active=NOW + n % 7)] for n in range(1_000)]
        await asyncio.gather(*(storage.write(records("a"), check) for check in checks))

        assert len([sql for sql in written if sql.startswith("INSERT INTO activity")]) == storage.commits - before
        assert await last_activity(storage, "k0") == NOW + 6

    async def test_many_states_are_written_together(self, open_file: OpenFile) -> None:
        """A transaction reads the versions of all its states at once, and writes each state once, by their keys."""
        storage, other = await open_file(), await open_file()
        await create_states(other, *[NOW] * 400)
        statements: list[str] = []
        await storage.run(lambda connection: connection.set_trace_callback(statements.append))
        before = storage.commits
        checks = [[StateCheck(f"k{n % 400}", 1, active=NOW + n)] for n in range(500)]
        await asyncio.gather(*(storage.write(records("a"), check) for check in checks))

        assert storage.commits - before == 1
        assert len([sql for sql in statements if sql.startswith("SELECT key, CAST")]) == 1
        touched = [sql for sql in statements if sql.startswith("INSERT INTO activity")]
        assert len(touched) == 400
        assert touched == sorted(touched, key=lambda sql: sql.partition("key = ")[2])
        assert await last_activity(storage, "k0") == NOW + 400

    async def test_idle_sessions_among_active_ones(self, open_file: OpenFile) -> None:
        """The earliest idle sessions are found although others, many of them, were idle once and were active since."""
        storage = await open_file()
        await create_states(storage, *[NOW + n for n in range(3_000)])
        raised = {n: NOW + 10_000 + n % 5 if n % 3 else NOW + 6_000 - n for n in range(3_000) if n % 10}
        await storage.write([], [StateCheck(f"k{n}", 1, active=active) for n, active in raised.items()])
        times = {f"k{n}": raised.get(n, NOW + n) for n in range(3_000)}
        expected = sorted(times, key=lambda key: (times[key], key))

        for end, limit in ((NOW + 4_000, 5), (NOW + 2_500, 5_000), (NOW + 10_002, 2_500), (NOW + 10_002, 5_000)):
            assert await expired_keys(storage, end, limit) == [key for key in expected if times[key] < end][:limit]

    async def test_activity_that_does_not_change_the_order_writes_no_index(self, open_file: OpenFile) -> None:
        """Idle sessions are looked for without writing as long as none was active since it would have been idle."""
        storage = await open_file()
        await create_states(storage, NOW, NOW + 1)
        await storage.write([], [StateCheck("k0", 1, active=NOW + 2)])
        statements: list[str] = []
        await storage.run(lambda connection: connection.set_trace_callback(statements.append))
        assert await expired_keys(storage, NOW) == []
        assert not [sql for sql in statements if sql.startswith("UPDATE")]
        for _ in range(3):
            assert await expired_keys(storage, NOW + 2) == ["k1"]

        assert len([sql for sql in statements if sql.startswith("UPDATE activity")]) == 1

    async def test_a_deleted_state_leaves_no_activity(self, open_file: OpenFile) -> None:
        """A new state has no activity of a deleted one, however that was deleted."""
        storage = await open_file()
        await create_states(storage, NOW)
        await storage.write([], [StateChange("k0", None, 1)])
        await create_states(storage, None)
        assert await last_activity(storage, "k0") is None
        await storage.run(lambda connection: connection.execute("DELETE FROM state"))

        assert await storage.run(lambda connection: connection.execute("SELECT * FROM activity").fetchall()) == []

    async def test_a_bad_time_fails_its_own_write_only(self, open_file: OpenFile) -> None:
        """Activity that SQLite cannot store fails its own write; those that share its commit are written."""
        storage = await open_file()
        await create_states(storage, NOW, NOW)
        results = await asyncio.gather(
            storage.write(records("a"), [StateCheck("k0", 1, active=1 << 70)]),
            storage.write(records("b"), [StateCheck("k1", 1, active=NOW + 1)]),
            return_exceptions=True,
        )

        assert isinstance(results[0], OverflowError)
        assert [await last_activity(storage, "k0"), await last_activity(storage, "k1")] == [NOW, NOW + 1]
        assert bodies(await storage.waiting(9)) == ["b"]

    async def test_more_states_than_the_cache_holds(self, open_file: OpenFile) -> None:
        """Callers that use more states in turn than the cache can hold still find some in it, and all is right."""
        storage = await open_file()
        await storage.run(lambda connection: setattr(connection, "max_cached_versions", 40))
        for n in range(50):
            await storage.write([], [StateChange(f"k{n}", b"v", 0)])
        statements: list[str] = []
        await storage.run(lambda connection: connection.set_trace_callback(statements.append))
        for _ in range(3):
            await self.round(storage)

        assert 0 < len([sql for sql in statements if sql.startswith("SELECT key, CAST")]) < 3 * 50
        assert len(await storage.run(lambda connection: connection.versions)) <= 40

    async def round(self, storage: Storage) -> None:
        for n in range(50):
            await storage.write([], [StateCheck(f"k{n}", 1, active=NOW)])
