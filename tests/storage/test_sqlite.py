"""
The storage in a file: private, durable, with one commit for many callers.
"""

import asyncio
import gc
import sqlite3
import stat
import threading
import warnings
from collections.abc import Coroutine
from functools import partial
from pathlib import Path
from typing import Any, Literal

import pytest
from helpers.environment import SetConstants
from helpers.queue_file import folder_locked
from helpers.storages import (
    NOW,
    OpenFile,
    bodies,
    content,
    create_states,
    delivered,
    files,
    ids,
    later,
    lease,
    moved_aside,
    names_in,
    record,
    records,
    write_dead,
)

from exponea_async.errors import StorageError
from exponea_async.storage.base import State, StateChange, StateCheck
from exponea_async.storage.sqlite import folder
from exponea_async.storage.sqlite.connection import QueueConnection
from exponea_async.storage.sqlite.file import open_file
from exponea_async.storage.sqlite.schema import APPLICATION_ID, MIGRATIONS, migrate, schema_version
from exponea_async.storage.sqlite.storage import SQLiteStorage
from exponea_async.storage.sqlite.thread import ConnectionThread


def threads() -> set[threading.Thread]:
    """Return all threads but those of asyncio, which run blocking calls and wait for processes, also of other tests."""
    return {thread for thread in threading.enumerate() if not thread.name.startswith("asyncio")}


class TestFile:
    async def test_only_its_owner_can_read_it(self, open_file: OpenFile, path: Path) -> None:
        """The file, its log and its index have mode 0600, and the folder that was created for them 0700."""
        storage = await open_file()
        await storage.write(records("a"))

        assert [stat.S_IMODE(each.stat().st_mode) for each in files(path)] == [0o600] * 3
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700

    async def test_a_readable_file_is_made_private(self, open_file: OpenFile, path: Path) -> None:
        """A file that others could read is made private, companions included."""
        path.parent.mkdir()
        for each in files(path):
            each.touch(mode=0o644)
            each.chmod(0o644)
        await open_file()

        assert [stat.S_IMODE(each.stat().st_mode) for each in files(path)] == [0o600] * 3

    async def test_an_impossible_path(self, tmp_path: Path) -> None:
        """A path through a file, or to a folder, is refused with the path in the message, and leaves no thread."""
        (tmp_path / "file").touch()
        others = threads()
        for path in (tmp_path / "file" / "queue.sqlite", tmp_path):
            with pytest.raises(StorageError, match=str(path)):
                await SQLiteStorage(path).open()
        assert threads() <= others

    @pytest.mark.parametrize("turns", [0, 1, 2, 3])
    async def test_a_cancelled_opening(self, path: Path, turns: int) -> None:
        """An opening that is cancelled at any time leaves no thread, and a storage that can be opened."""
        storage, others = SQLiteStorage(path), threads()
        opening = asyncio.create_task(storage.open())
        for _ in range(turns):
            await asyncio.sleep(0)
        opening.cancel()
        await asyncio.wait([opening])
        assert threads() <= others

        await storage.open()
        await storage.write(records("a"))
        await storage.aclose()

    async def test_a_restart_keeps_everything(self, open_file: OpenFile) -> None:
        """Records under their ids, leases, failures, dead letters and states are there after a restart."""
        storage = await open_file()
        letters = await write_dead(storage, "dead", reason="odd")
        written = await storage.write(records("a", "b", "c"), [StateChange("k", b"v", 0)])
        await lease(storage, 2)
        await storage.settle(later(written.ids[0], due=NOW + 10, failures=4))
        await storage.aclose()

        again = await open_file()
        assert ids(await again.waiting(10)) == written.ids
        assert await again.load_state("k") == State(b"v", 1)
        assert [(each.id, each.reason) for each in await again.dead(10)] == [(letters[0], "odd")]
        assert bodies(await lease(again)) == ["c"]
        assert [each.failures for each in await lease(again, now=NOW + 10)] == [4]

    async def test_new_ids_after_a_restart(self, open_file: OpenFile) -> None:
        """Ids continue after a restart, even if the queue was empty."""
        storage = await open_file()
        first = await storage.write(records("a", "b"))
        await storage.settle(delivered(*ids(await lease(storage))))
        await storage.aclose()

        second = await (await open_file()).write(records("c", "d"))
        assert int(second.ids[0]) > int(first.ids[-1])

    async def test_a_wiped_file_holds_no_trace(self, open_file: OpenFile, path: Path) -> None:
        """After a wipe nothing that was ever written can be found in the file or its companions."""
        storage = await open_file()
        secret = "jane@example.com"
        await storage.write([record(secret * 99, f"route {secret}") for _ in range(500)])
        await storage.settle(delivered(*ids(await lease(storage, 200))))
        await write_dead(storage, secret)
        await storage.write([], [StateChange(secret, secret.encode(), 0)])
        assert any(secret.encode() in each.read_bytes() for each in files(path))
        await storage.wipe()

        assert not any(secret.encode() in each.read_bytes() for each in files(path))
        await storage.write(records("a"))
        assert bodies(await lease(storage)) == ["a"]


class TestSchema:
    async def test_an_older_file_is_migrated(self, path: Path) -> None:
        """Migrations that a file has not had run once, and its contents stay."""
        db = sqlite3.connect(":memory:", isolation_level=None)
        migrate(db, MIGRATIONS[:1])
        db.execute("INSERT INTO record VALUES (1, 1.0, x'00')")
        newer = (*MIGRATIONS[:1], "ALTER TABLE record ADD COLUMN note TEXT; CREATE TABLE extra (id INTEGER)")
        migrate(db, newer)
        migrate(db, newer)

        assert schema_version(db) == 2
        assert db.execute("SELECT id, note FROM record").fetchall() == [(1, None)]
        assert db.execute("SELECT * FROM extra").fetchall() == []
        db.close()

    async def test_activities_of_an_older_file(self, open_file: OpenFile, path: Path) -> None:
        """States keep their last activities, and a process of the older version that goes on is refused by the file."""
        path.parent.mkdir()
        db = sqlite3.connect(path, isolation_level=None)
        migrate(db, MIGRATIONS[:5])
        rows: list[tuple[str, bytes, int, object]] = [
            (f"k{n}", b"v", n + 1, None if n % 2 else NOW - n) for n in range(6)
        ]
        rows.append(("x", b"", 1, "x"))
        db.executemany("INSERT INTO state (key, value, version, active) VALUES (?, ?, ?, ?)", rows)
        db.execute("DELETE FROM state WHERE key = 'k0'")
        storage = await open_file()

        assert await storage.expired_sessions(NOW, 9) == [
            ("k4", State(b"v", 5, NOW - 4)),
            ("k2", State(b"v", 3, NOW - 2)),
        ]
        assert [await storage.load_state(key) for key in ("k1", "x")] == [State(b"v", 2), State(b"", 1)]
        await storage.write([], [StateCheck("k1", 2, active=NOW - 5)])
        assert [key for key, _ in await storage.expired_sessions(NOW, 1)] == ["k1"]
        with pytest.raises(sqlite3.OperationalError, match="no such column: active"):
            db.execute("UPDATE state SET active = ? WHERE key = ?", (NOW, "k1"))
        db.close()

    def test_a_failed_migration_changes_nothing(self) -> None:
        """If one step of a migration fails, none is made."""
        db = sqlite3.connect(":memory:", isolation_level=None)
        with pytest.raises(sqlite3.OperationalError):
            migrate(db, ("CREATE TABLE one (id INTEGER); CREATE TABLE one (id INTEGER)",))

        assert schema_version(db) == 0
        assert db.execute("SELECT name FROM sqlite_master").fetchall() == []
        db.close()

    async def test_a_newer_file_is_refused(self, path: Path) -> None:
        """A file from a later version is not changed, and the error says what to do."""
        path.parent.mkdir()
        db = sqlite3.connect(path)
        db.execute("PRAGMA user_version = 99")
        db.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        db.close()
        before = content(path)

        with pytest.raises(StorageError, match=r"schema version 99.*Update exponea-async"):
            await SQLiteStorage(path).open()
        assert moved_aside(path) == []
        db = sqlite3.connect(path)
        assert db.execute("PRAGMA user_version").fetchone() == (99,)
        assert db.execute("SELECT count(*) FROM sqlite_master").fetchone() == (0,)
        db.close()
        assert before[:16] == content(path)[:16]


class TestThread:
    def test_the_end_of_the_event_loop(self, tmp_path: Path) -> None:
        """A call whose event loop has ended meanwhile ends quietly: an exception of the thread would fail the test."""
        storage = SQLiteStorage(tmp_path / "queue.sqlite")
        entered, proceed, others = threading.Event(), threading.Event(), set(threading.enumerate())

        async def begin() -> None:
            await storage.open()
            calls = [asyncio.ensure_future(storage.run(work)) for _ in range(3)]
            await asyncio.to_thread(entered.wait, 20)
            assert not any(call.done() for call in calls)

        def work(_: object) -> None:
            entered.set()
            proceed.wait(60)

        asyncio.run(begin())
        threads = set(threading.enumerate()) - others
        proceed.set()
        storage.abandon()
        for thread in threads:
            thread.join(60)
        assert [thread.is_alive() for thread in threads] == [False]

    @pytest.mark.parametrize("steps", range(1, 30))
    def test_the_event_loop_ends_during_the_close(self, tmp_path: Path, steps: int) -> None:
        """The end of the event loop, which cancels the closing of a storage at any step, leaves no file open."""
        path, others = tmp_path / "queue.sqlite", threads()

        async def begin_to_close() -> "list[asyncio.Task[object]]":
            storage = SQLiteStorage(path)
            await storage.open()
            await storage.write([record("1")])
            # Two of three closings have something to commit first.
            writes = [storage.write([record(str(each))]) for each in range(steps % 3)]
            calls: list[Coroutine[Any, Any, object]] = [*writes, storage.aclose(2.0)]
            under_way = [asyncio.create_task(each) for each in calls]
            for _ in range(steps):
                await asyncio.sleep(0)
            return under_way

        assert all(each.done() for each in asyncio.run(begin_to_close()))
        for thread in threads() - others:
            thread.join(60)
            assert not thread.is_alive()
        # The last one to close a file removes its log.
        assert [each.name for each in tmp_path.iterdir()] == [path.name]

    def test_the_event_loop_is_closed_during_the_close(self, tmp_path: Path, set_constants: SetConstants) -> None:
        """An event loop that is closed without an end of its tasks leaves neither a thread nor a file open."""
        set_constants(folder, CLOSE_TIMEOUT=60.0)
        path, others = tmp_path / "queue.sqlite", threads()
        storage = SQLiteStorage(path)
        loop = asyncio.new_event_loop()
        loop.run_until_complete(storage.open())
        with folder_locked(path):
            task = loop.create_task(storage.aclose())
            # Long enough for the thread to wait for the folder; if it is not, it closes the file later.
            loop.run_until_complete(asyncio.wait([task], timeout=0.2))
            assert not task.done()
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ResourceWarning)
                # asyncio says that the task is destroyed.
                loop.set_exception_handler(lambda *_: None)
                loop.close()
                del task
                gc.collect()

        for thread in threads() - others:
            thread.join(60)
            assert not thread.is_alive()
        assert [each.name for each in tmp_path.iterdir()] == [path.name]

    async def test_a_cancelled_close(self, path: Path, set_constants: SetConstants) -> None:
        """A connection whose closing is cancelled is closed when that ends."""
        set_constants(folder, CLOSE_TIMEOUT=60.0)
        path.parent.mkdir()
        connect = partial(QueueConnection, path)
        connection = ConnectionThread(partial(open_file, path, connect, synchronous="NORMAL", timeout=60.0))
        await connection.open()
        with folder_locked(path):
            task = asyncio.create_task(connection.close())
            for _ in range(3):
                await asyncio.sleep(0)
                task.cancel()
            await asyncio.wait([task], timeout=0.05)
            assert not task.done()

        with pytest.raises(asyncio.CancelledError):
            await task
        assert names_in(path.parent) == {path.name}


async def started_task(name: str) -> "asyncio.Task[None]":
    """Return the task of a name as soon as it is started."""
    while True:
        for task in asyncio.all_tasks():
            if task.get_name() == name:
                return task
        await asyncio.sleep(0)


class TestGroupCommit:
    async def test_writers_share_a_transaction(self, open_file: OpenFile) -> None:
        """A thousand writers at once take a few transactions, and each is served."""
        storage = await open_file()
        before = storage.commits
        written = await asyncio.gather(*(storage.write([record(str(number))]) for number in range(1_000)))

        assert storage.commits - before <= 5
        assert len({each.ids for each in written}) == 1_000
        assert (await storage.pending()).waiting == 1_000

    async def test_settlements_share_the_transaction(self, open_file: OpenFile) -> None:
        """A settlement, a lease and writes at the same time are one transaction."""
        storage = await open_file()
        await storage.write(records("a"))
        (leased,) = await lease(storage)
        before = storage.commits
        results = await asyncio.gather(
            storage.write(records("b")),
            storage.settle(delivered(leased.id)),
            lease(storage),
            storage.write(records("c")),
        )

        assert storage.commits - before == 1
        assert bodies(results[2]) == ["b", "c"]

    async def test_a_settlement_frees_capacity_in_its_transaction(self, open_file: OpenFile) -> None:
        """The capacity that a settlement frees is there for the writes of its transaction."""
        storage = await open_file(max_records=1)
        await storage.write(records("a"))
        (leased,) = await lease(storage)
        _, written = await asyncio.gather(storage.settle(delivered(leased.id)), storage.write(records("b")))

        assert len(written.ids) == 1

    async def test_an_idle_queue_is_not_written_to(self, open_file: OpenFile) -> None:
        """Leases that find nothing take no transaction."""
        storage = await open_file()
        await storage.write(records("a"))
        await lease(storage)
        before = storage.commits
        for _ in range(20):
            assert await lease(storage) == []

        assert storage.commits == before

    async def test_a_state_is_read_once(self, open_file: OpenFile) -> None:
        """However many writes check a state, it is read once, until another process writes to the file."""
        storage, other = await open_file(), await open_file()
        await storage.write([], [StateChange("k", b"v", 0)])
        await other.write([], [StateCheck("k", 1)])
        statements: list[str] = []
        await other.run(lambda connection: connection.set_trace_callback(statements.append))
        for _ in range(5):
            await asyncio.gather(*(other.write(records("a"), [StateCheck("k", 1)]) for _ in range(50)))
        assert not [sql for sql in statements if "FROM state" in sql]

        await storage.write([], [StateChange("k", b"w", 1)])
        with pytest.raises(StorageError, match="has changed since it was read"):
            await other.write(records("a"), [StateCheck("k", 1)])
        assert len([sql for sql in statements if "FROM state" in sql]) == 1

    async def test_reads_share_a_transaction(self, open_file: OpenFile) -> None:
        """A thousand reads at once are one read transaction, and each caller gets its own result."""
        storage = await open_file()
        await create_states(storage, *range(1_000))
        seen: list[str] = []
        await storage.run(lambda connection: connection.set_trace_callback(seen.append))
        states = await asyncio.gather(*(storage.load_state(f"k{n}") for n in range(1_000)))

        assert [state and state.active for state in states] == list(range(1_000))
        assert seen.count("BEGIN") == 1

    async def test_reads_without_a_transaction(self, open_file: OpenFile) -> None:
        """Where no read transaction is possible each caller gets its own error, and the write of the batch is done."""
        storage = await open_file()
        begins = iter([sqlite3.SQLITE_DENY])

        def authorize(action: int, *_: str | None) -> int:
            return next(begins, sqlite3.SQLITE_OK) if action == sqlite3.SQLITE_TRANSACTION else sqlite3.SQLITE_OK

        await storage.run(lambda connection: connection.set_authorizer(authorize))
        reads = [storage.load_state("k"), storage.pending(), storage.load_state("l")]
        results = await asyncio.gather(*reads, storage.write(records("a")), return_exceptions=True)

        assert [type(result) for result in results[:3]] == [sqlite3.DatabaseError] * 3
        assert len(set(map(id, results))) == 4
        assert bodies(await storage.waiting(9)) == ["a"]

    async def test_the_loop_never_waits_for_the_disk(self, open_file: OpenFile) -> None:
        """No statement runs on the event loop's thread, whatever is called, opening and closing included."""
        threads: set[int] = set()
        storage = await open_file()
        await storage.run(
            lambda connection: connection.set_trace_callback(lambda _: threads.add(threading.get_ident()))
        )
        letters = await write_dead(storage, "a")
        await storage.write(records("b"), [StateChange("k", b"", 0)])
        await storage.find(letters)
        await storage.remaining(await storage.watermark())
        for read in (storage.pending(), storage.waiting(1), storage.dead(1), storage.load_state("k")):
            await read
        for change in (storage.revive(letters), storage.purge(), storage.wipe()):
            await change
        await storage.aclose()

        assert len(threads) == 1
        assert threading.get_ident() not in threads

    async def test_waiting_in_order_beside_a_bad_value(self, open_file: OpenFile) -> None:
        """Writers that wait for capacity keep their order even if one of them cannot be written."""
        storage = await open_file(when_full="wait", max_records=1)
        await storage.write(records("first"))
        bad = asyncio.create_task(storage.write(records("bad", route="\ud800")))
        writers = [asyncio.create_task(storage.write(records(name))) for name in "abc"]
        seen: list[str] = []
        while len(seen) < 4:
            leased = await lease(storage)
            await storage.settle(delivered(*ids(leased)))
            seen += bodies(leased)

        assert seen == ["first", *"abc"]
        with pytest.raises(UnicodeEncodeError):
            await bad
        await asyncio.gather(*writers)

    @pytest.mark.parametrize("turns", [0, 1, 20])
    async def test_a_cancelled_repair(self, open_file: OpenFile, path: Path, turns: int) -> None:
        """If the task that continues in a new file is cancelled, no caller waits for ever, and others go on."""
        storage = await open_file()
        await storage.write(records("a"))
        await asyncio.to_thread(path.rename, path.with_suffix(".moved"))
        writers = [asyncio.create_task(storage.write(records(name))) for name in "bc"]
        repair = await started_task("exponea_async: commits")
        for _ in range(turns):
            await asyncio.sleep(0)
        repair.cancel()

        results = await asyncio.gather(*writers, return_exceptions=True)
        assert [str(result) for result in results] == ["The commit was interrupted."] * 2
        await storage.write(records("d"))
        assert "d" in bodies(await storage.waiting(10))

    async def test_all_tasks_are_cancelled(self, open_file: OpenFile) -> None:
        """If everything is cancelled, as at the end of a program, the storage still works and closes."""
        storage = await open_file(when_full="wait", max_records=1)
        await storage.write(records("a"))
        waiting = [asyncio.create_task(storage.write(records(name))) for name in "bc"]
        await asyncio.sleep(0.01)
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            task.cancel()

        results = await asyncio.gather(*waiting, return_exceptions=True)
        assert [type(result) for result in results] == [asyncio.CancelledError] * 2
        assert bodies(await storage.waiting(10)) == ["a"]
        await storage.aclose()
        with pytest.raises(StorageError, match="closed"):
            await storage.pending()

    @pytest.mark.parametrize(("durability", "level"), [("process", 1), ("power", 2)])
    async def test_durability(self, open_file: OpenFile, durability: Literal["process", "power"], level: int) -> None:
        """``"power"`` waits for the disk at each commit; ``"process"`` does not."""
        storage = await open_file(durability=durability)
        found = await storage.run(lambda connection: connection.execute("PRAGMA synchronous").fetchone())

        assert found == (level,)
