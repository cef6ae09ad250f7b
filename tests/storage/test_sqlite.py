"""
The storage in a file: private, lasting, shared by its callers.
"""

import asyncio
import sqlite3
import stat
import threading
from pathlib import Path
from typing import Literal

import pytest
from stores import (
    NOW,
    OpenFile,
    aside,
    bodies,
    bury,
    content,
    create,
    delivered,
    file_opener,  # noqa: F401 - a fixture
    file_path,  # noqa: F401 - a fixture
    ids,
    later,
    on_thread,
    parts,
    record,
    records,
    take,
)

from exponea_async.errors import StorageError
from exponea_async.storage.base import State, StateChange, StateCheck
from exponea_async.storage.sqlite.schema import MIGRATIONS, migrate, schema_version
from exponea_async.storage.sqlite.storage import SQLiteStorage


class TestFile:
    async def test_only_its_owner_can_read_it(self, open_file: OpenFile, path: Path) -> None:
        """The file, its log and its index have mode 0600, and the folder that was made for them 0700."""
        storage = await open_file()
        await storage.write(records("a"))

        assert [stat.S_IMODE(each.stat().st_mode) for each in parts(path)] == [0o600] * 3
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700

    async def test_an_open_file_is_closed_to_others(self, open_file: OpenFile, path: Path) -> None:
        """A file that others could read is made private, companions included."""
        path.parent.mkdir()
        for each in parts(path):
            each.touch(mode=0o644)
            each.chmod(0o644)
        await open_file()

        assert [stat.S_IMODE(each.stat().st_mode) for each in parts(path)] == [0o600] * 3

    async def test_a_place_that_is_none(self, tmp_path: Path) -> None:
        """A path through a file, or to a folder, is refused with the path in the message."""
        (tmp_path / "file").touch()
        for place in (tmp_path / "file" / "queue.sqlite", tmp_path):
            with pytest.raises(StorageError, match=str(place)):
                await SQLiteStorage(place).open()

    @pytest.mark.parametrize("turns", [0, 1, 2, 3])
    async def test_who_gives_up_opening_can_try_again(self, path: Path, turns: int) -> None:
        """An opening that is cancelled at any moment leaves a storage that can be opened."""
        storage = SQLiteStorage(path)
        opening = asyncio.create_task(storage.open())
        for _ in range(turns):
            await asyncio.sleep(0)
        opening.cancel()
        await asyncio.wait([opening])

        await storage.open()
        await storage.write(records("a"))
        await storage.aclose()

    async def test_a_restart_keeps_everything(self, open_file: OpenFile) -> None:
        """Records under their ids, leases, failures, letters and states are there after a restart."""
        storage = await open_file()
        letters = await bury(storage, "dead", reason="odd")
        written = await storage.write(records("a", "b", "c"), [StateChange("k", b"v", 0)])
        await take(storage, 2)
        await storage.settle(later(written.ids[0], due=NOW + 10, failures=4))
        await storage.aclose()

        again = await open_file()
        assert ids(await again.waiting(10)) == written.ids
        assert await again.load_state("k") == State(b"v", 1)
        assert [(each.id, each.reason) for each in await again.dead(10)] == [(letters[0], "odd")]
        assert bodies(await take(again)) == ["c"]
        assert [each.failures for each in await take(again, now=NOW + 10)] == [4]

    async def test_new_ids_after_a_restart(self, open_file: OpenFile) -> None:
        """Ids go on after a restart, even if the queue was empty."""
        storage = await open_file()
        first = await storage.write(records("a", "b"))
        await storage.settle(delivered(*ids(await take(storage))))
        await storage.aclose()

        second = await (await open_file()).write(records("c", "d"))
        assert int(second.ids[0]) > int(first.ids[-1])

    async def test_a_wiped_file_holds_no_trace(self, open_file: OpenFile, path: Path) -> None:
        """After a wipe nothing that was ever written can be found in the file or beside it."""
        storage = await open_file()
        secret = "jane@example.com"
        await storage.write([record(secret * 99, f"route {secret}") for _ in range(500)])
        await storage.settle(delivered(*ids(await take(storage, 200))))
        await bury(storage, secret)
        await storage.write([], [StateChange(secret, secret.encode(), 0)])
        assert any(secret.encode() in each.read_bytes() for each in parts(path))
        await storage.wipe()

        assert not any(secret.encode() in each.read_bytes() for each in parts(path))
        await storage.write(records("a"))
        assert bodies(await take(storage)) == ["a"]


class TestSchema:
    async def test_an_older_file_is_brought_up_to_date(self, path: Path) -> None:
        """Migrations that a file has not seen run once, and keep what is in it."""
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

    def test_a_failed_migration_changes_nothing(self) -> None:
        """If one step of a migration fails, none is made."""
        db = sqlite3.connect(":memory:", isolation_level=None)
        with pytest.raises(sqlite3.OperationalError):
            migrate(db, ("CREATE TABLE one (id INTEGER); CREATE TABLE one (id INTEGER)",))

        assert schema_version(db) == 0
        assert db.execute("SELECT name FROM sqlite_master").fetchall() == []
        db.close()

    async def test_a_newer_file_is_refused(self, path: Path) -> None:
        """A file from a later version is left alone, and the error says what to do."""
        path.parent.mkdir()
        db = sqlite3.connect(path)
        db.execute("PRAGMA user_version = 99")
        db.close()
        before = content(path)

        with pytest.raises(StorageError, match=r"schema version 99.*Update exponea-async"):
            await SQLiteStorage(path).open()
        assert aside(path) == []
        db = sqlite3.connect(path)
        assert db.execute("PRAGMA user_version").fetchone() == (99,)
        assert db.execute("SELECT count(*) FROM sqlite_master").fetchone() == (0,)
        db.close()
        assert before[:16] == content(path)[:16]


class TestGroupCommit:
    async def test_writers_share_a_transaction(self, open_file: OpenFile) -> None:
        """A thousand writers at once take a few transactions, and each is in one."""
        storage = await open_file()
        before = storage.commits
        written = await asyncio.gather(*(storage.write([record(str(number))]) for number in range(1_000)))

        assert storage.commits - before <= 5
        assert len({each.ids for each in written}) == 1_000
        assert (await storage.pending()).waiting == 1_000

    async def test_verdicts_ride_along(self, open_file: OpenFile) -> None:
        """A settlement, a lease and writes at the same time are one transaction."""
        storage = await open_file()
        await storage.write(records("a"))
        (held,) = await take(storage)
        before = storage.commits
        results = await asyncio.gather(
            storage.write(records("b")), storage.settle(delivered(held.id)), take(storage), storage.write(records("c"))
        )

        assert storage.commits - before == 1
        assert bodies(results[2]) == ["b", "c"]

    async def test_a_settlement_makes_room_in_its_transaction(self, open_file: OpenFile) -> None:
        """What a settlement frees is there for the writers beside it."""
        storage = await open_file(max_records=1)
        await storage.write(records("a"))
        (held,) = await take(storage)
        _, written = await asyncio.gather(storage.settle(delivered(held.id)), storage.write(records("b")))

        assert len(written.ids) == 1

    async def test_an_idle_queue_is_not_written_to(self, open_file: OpenFile) -> None:
        """Leases that find nothing take no transaction."""
        storage = await open_file()
        await storage.write(records("a"))
        await take(storage)
        before = storage.commits
        for _ in range(20):
            assert await take(storage) == []

        assert storage.commits == before

    async def test_a_state_is_looked_up_once(self, open_file: OpenFile) -> None:
        """However many writes check a state, it is read once, until somebody else writes to the file."""
        storage, other = await open_file(), await open_file()
        await storage.write([], [StateChange("k", b"v", 0)])
        await other.write([], [StateCheck("k", 1)])
        looked: list[str] = []
        await on_thread(other, lambda ledger: ledger.set_trace_callback(looked.append))
        for _ in range(5):
            await asyncio.gather(*(other.write(records("a"), [StateCheck("k", 1)]) for _ in range(50)))
        assert not [sql for sql in looked if "FROM state" in sql]

        await storage.write([], [StateChange("k", b"w", 1)])
        with pytest.raises(StorageError, match="has changed since it was read"):
            await other.write(records("a"), [StateCheck("k", 1)])
        assert len([sql for sql in looked if "FROM state" in sql]) == 1

    async def test_looks_share_a_transaction(self, open_file: OpenFile) -> None:
        """A thousand looks at once are one transaction of reading, and each gets its own answer."""
        storage = await open_file()
        await create(storage, *range(1_000))
        seen: list[str] = []
        await on_thread(storage, lambda ledger: ledger.set_trace_callback(seen.append))
        states = await asyncio.gather(*(storage.load_state(f"k{n}") for n in range(1_000)))

        assert [state and state.active for state in states] == list(range(1_000))
        assert seen.count("BEGIN") == 1

    async def test_looks_without_a_transaction(self, open_file: OpenFile) -> None:
        """Where no look is possible each caller hears it, in an error of its own, and the writer beside them not."""
        storage = await open_file()
        begins = iter([sqlite3.SQLITE_DENY])

        def authorize(action: int, *_: str | None) -> int:
            return next(begins, sqlite3.SQLITE_OK) if action == sqlite3.SQLITE_TRANSACTION else sqlite3.SQLITE_OK

        await on_thread(storage, lambda ledger: ledger.set_authorizer(authorize))
        looks = [storage.load_state("k"), storage.pending(), storage.load_state("l")]
        results = await asyncio.gather(*looks, storage.write(records("a")), return_exceptions=True)

        assert [type(result) for result in results[:3]] == [sqlite3.DatabaseError] * 3
        assert len(set(map(id, results))) == 4
        assert bodies(await storage.waiting(9)) == ["a"]

    async def test_the_loop_never_waits_for_the_disk(self, open_file: OpenFile) -> None:
        """No statement runs on the event loop's thread, whatever is called, opening and closing included."""
        threads: set[int] = set()
        storage = await open_file()
        await on_thread(storage, lambda ledger: ledger.set_trace_callback(lambda _: threads.add(threading.get_ident())))
        letters = await bury(storage, "a")
        await storage.write(records("b"), [StateChange("k", b"", 0)])
        await storage.find(letters)
        await storage.remaining(await storage.watermark())
        for look in (storage.pending(), storage.waiting(1), storage.dead(1), storage.load_state("k")):
            await look
        for change in (storage.revive(letters), storage.purge(), storage.wipe()):
            await change
        await storage.aclose()

        assert len(threads) == 1
        assert threading.get_ident() not in threads

    async def test_waiting_in_order_beside_a_bad_value(self, open_file: OpenFile) -> None:
        """Writers that wait for room keep their order though one among them can't be written."""
        storage = await open_file(when_full="wait", max_records=1)
        await storage.write(records("first"))
        bad = asyncio.create_task(storage.write(records("bad", route="\ud800")))
        writers = [asyncio.create_task(storage.write(records(name))) for name in "abc"]
        seen: list[str] = []
        while len(seen) < 4:
            taken = await take(storage)
            await storage.settle(delivered(*ids(taken)))
            seen += bodies(taken)

        assert seen == ["first", *"abc"]
        with pytest.raises(UnicodeEncodeError):
            await bad
        await asyncio.gather(*writers)

    async def test_a_writer_whose_task_dies(self, open_file: OpenFile) -> None:
        """If the loop ends the committing task, nobody waits for ever, and the storage can still be closed."""
        storage = await open_file(when_full="wait", max_records=1)
        await storage.write(records("a"))
        waiting = [asyncio.create_task(storage.write(records(name))) for name in "bc"]
        await asyncio.sleep(0.01)
        (task,) = [each for each in asyncio.all_tasks() if each.get_name() == "exponea_async: commits"]
        task.cancel()

        results = await asyncio.gather(*waiting, return_exceptions=True)
        assert [type(result) for result in results] == [StorageError] * 2
        with pytest.raises(StorageError, match="closed"):
            await storage.pending()
        await storage.aclose()

    @pytest.mark.parametrize(("durability", "level"), [("process", 1), ("power", 2)])
    async def test_durability(self, open_file: OpenFile, durability: Literal["process", "power"], level: int) -> None:
        """``"power"`` waits for the disk at each commit; ``"process"`` does not."""
        storage = await open_file(durability=durability)
        found = await on_thread(storage, lambda ledger: ledger.execute("PRAGMA synchronous").fetchone())

        assert found == (level,)
