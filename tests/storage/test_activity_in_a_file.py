"""
The moment of last activity beside a state, in a file: lasting, shared, cheap.
"""

import asyncio

import pytest
from stores import (
    NOW,
    OpenFile,
    active,
    bodies,
    create,
    expired,
    file_opener,  # noqa: F401 - a fixture
    file_path,  # noqa: F401 - a fixture
    on_thread,
    records,
)

from exponea_async.errors import StateConflictError
from exponea_async.storage.base import State, StateChange, StateCheck, Storage
from exponea_async.storage.sqlite import connection as _ledger


class TestInAFile:
    async def test_after_a_restart(self, open_file: OpenFile) -> None:
        """Activity is there after a restart, to the last bit."""
        storage = await open_file()
        moment = NOW + 1 / 3
        await create(storage, moment, NOW, None)
        await storage.write([], [StateCheck("k1", 1, active=moment + 1)])
        await storage.aclose()

        again = await open_file()
        assert await again.expired_sessions(NOW + 9, 9) == [
            ("k0", State(b"v", 1, moment)),
            ("k1", State(b"v", 1, moment + 1)),
        ]

    async def test_two_on_one_file(self, open_file: OpenFile) -> None:
        """What one connection touches another sees: in what is expired, and in what it has seen."""
        one, two = await open_file(), await open_file()
        await create(one, NOW - 5, NOW - 4)
        assert await expired(two) == ["k0", "k1"]
        await one.write([], [StateCheck("k0", 1, active=NOW)])

        assert await expired(two) == ["k1"]
        with pytest.raises(StateConflictError):
            await two.write([], [StateChange("k0", b"", 1, seen=NOW - 5)])
        await two.write([], [StateCheck("k0", 1, active=NOW - 1)])
        assert await active(one, "k0") == NOW

    async def test_one_device_is_touched_once_a_transaction(self, open_file: OpenFile) -> None:
        """However many callers touch one state, a transaction writes it once; and not at all if it is no later."""
        storage = await open_file()
        await create(storage, NOW)
        written: list[str] = []
        await on_thread(storage, lambda ledger: ledger.set_trace_callback(written.append))
        before = storage.commits
        checks = [[StateCheck("k0", 1, active=NOW + n % 7)] for n in range(1_000)]
        await asyncio.gather(*(storage.write(records("a"), check) for check in checks))

        assert len([sql for sql in written if sql.startswith("UPDATE state")]) == storage.commits - before
        assert await active(storage, "k0") == NOW + 6

    async def test_many_devices_are_touched_together(self, open_file: OpenFile) -> None:
        """A transaction looks the versions of all its states up at once, writes each once, by their keys."""
        storage, other = await open_file(), await open_file()
        await create(other, *[NOW] * 400)
        seen: list[str] = []
        await on_thread(storage, lambda ledger: ledger.set_trace_callback(seen.append))
        before = storage.commits
        checks = [[StateCheck(f"k{n % 400}", 1, active=NOW + n)] for n in range(500)]
        await asyncio.gather(*(storage.write(records("a"), check) for check in checks))

        assert storage.commits - before == 1
        assert len([sql for sql in seen if sql.startswith("SELECT key, version")]) == 1
        touched = [sql for sql in seen if sql.startswith("UPDATE state")]
        assert len(touched) == 400
        assert touched == sorted(touched, key=lambda sql: sql.partition("key = ")[2])
        assert await active(storage, "k0") == NOW + 400

    async def test_a_bad_moment_fails_its_author_only(self, open_file: OpenFile) -> None:
        """Activity that SQLite can't take fails its author; those beside it are written."""
        storage = await open_file()
        await create(storage, NOW, NOW)
        results = await asyncio.gather(
            storage.write(records("a"), [StateCheck("k0", 1, active=1 << 70)]),
            storage.write(records("b"), [StateCheck("k1", 1, active=NOW + 1)]),
            return_exceptions=True,
        )

        assert isinstance(results[0], OverflowError)
        assert [await active(storage, "k0"), await active(storage, "k1")] == [NOW, NOW + 1]
        assert bodies(await storage.waiting(9)) == ["b"]

    async def test_round_and_round(self, open_file: OpenFile, monkeypatch: pytest.MonkeyPatch) -> None:
        """Who goes round more states than there is room for still finds some, and all is right."""
        monkeypatch.setattr(_ledger, "MAX_CACHED_VERSIONS", 40)
        storage = await open_file()
        for n in range(50):
            await storage.write([], [StateChange(f"k{n}", b"v", 0)])
        looked: list[str] = []
        await on_thread(storage, lambda ledger: ledger.set_trace_callback(looked.append))
        for _ in range(3):
            await self.round(storage)

        assert 0 < len([sql for sql in looked if sql.startswith("SELECT key, version")]) < 3 * 50
        assert len(await on_thread(storage, lambda ledger: ledger.versions)) <= 40

    async def round(self, storage: Storage) -> None:
        for n in range(50):
            await storage.write([], [StateCheck(f"k{n}", 1, active=NOW)])
