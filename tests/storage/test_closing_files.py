"""
Closing files: a new file at the path, and its write-ahead log, are not touched by whoever closes the old one.
"""

import asyncio
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from helpers.environment import SetConstants
from helpers.queue_file import folder_locked, locked
from helpers.storages import OpenFile, bodies, content, files, names_in, record, records
from helpers.waiting import until

from exponea_async.errors import DamagedFileError, StorageError, WipedFileError
from exponea_async.storage.base import StateChange
from exponea_async.storage.sqlite import folder
from exponea_async.storage.sqlite.inspection import inspect_queue
from exponea_async.storage.sqlite.moving import MovableFile
from exponea_async.storage.sqlite.storage import SQLiteStorage

PAGE = 4096
SECRET = "jane@example.com"


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Read the file within the block, so that nothing of the log is copied into it."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("BEGIN")
        connection.execute("SELECT count(*) FROM record").fetchall()
        yield


class TestTheLog:
    @pytest.mark.parametrize("call", ["read", "write"])
    async def test_of_a_new_file(self, open_file: OpenFile, path: Path, call: str) -> None:
        """A client that has an emptied file open leaves the log of the file that has taken its place."""
        reported: list[StorageError] = []
        await (await open_file()).aclose()
        # With nothing in the log, SQLite takes the emptied file for one that was never written to.
        with locked(path):
            old = await open_file()
        await SQLiteStorage(path).wipe()
        new = await open_file(report=reported.append)
        await new.write(records("a"))
        _, log, index = files(path)
        before = (log.stat().st_ino, index.stat().st_ino)

        with pytest.raises(WipedFileError):
            await (old.load_state("k") if call == "read" else old.write(records("b")))
        await old.aclose()
        assert (log.stat().st_ino, index.stat().st_ino) == before
        await new.write(records("c"))
        assert bodies(await (await open_file()).waiting(9)) == ["a", "c"]
        assert reported == []

    async def test_while_the_folder_is_locked(
        self, open_file: OpenFile, path: Path, set_constants: SetConstants
    ) -> None:
        """While another process may replace the file, it is not closed."""
        set_constants(folder, CLOSE_TIMEOUT=60.0)
        storage = await open_file()
        await storage.write(records("a"))
        with folder_locked(path):
            task = asyncio.create_task(storage.aclose())
            await asyncio.wait([task], timeout=0.1)
            assert not task.done()
            assert all(map(Path.exists, files(path)))

        await task
        assert names_in(path.parent) == {path.name}

    async def test_where_the_folder_stays_locked(
        self, open_file: OpenFile, path: Path, set_constants: SetConstants
    ) -> None:
        """A file whose folder is locked for long is closed with its log in place, and nothing of it is lost."""
        set_constants(folder, CLOSE_TIMEOUT=0.05)
        storage = await open_file()
        await storage.write(records("a"))
        with folder_locked(path):
            await storage.aclose()
            assert all(map(Path.exists, files(path)))

        again = await open_file()
        assert bodies(await again.waiting(9)) == ["a"]
        await again.aclose()
        assert names_in(path.parent) == {path.name}

    async def test_a_large_one(self, open_file: OpenFile, path: Path, set_constants: SetConstants) -> None:
        """The content of a large log is in the file before the folder is needed for closing."""
        set_constants(folder, CLOSE_TIMEOUT=60.0)
        storage = await open_file()
        with reading(path):
            await storage.write([record(SECRET * 100) for _ in range(2_000)])
        file, log, _ = files(path)
        assert (size := log.stat().st_size) > 3_000_000 > file.stat().st_size
        with folder_locked(path):
            task = asyncio.create_task(storage.aclose())
            await until(lambda: file.stat().st_size > 3_000_000)
            assert log.stat().st_size == size
        await task
        assert content(file).count(SECRET.encode() * 100) == 2_000

    @pytest.mark.parametrize("use", ["move", "inspect"])
    async def test_of_a_file_that_others_may_replace(
        self, open_file: OpenFile, path: Path, monkeypatch: pytest.MonkeyPatch, use: str
    ) -> None:
        """A file is moved to another queue, or inspected, only while no other process replaces it."""
        storage = await open_file()
        await storage.write(records("a"))
        await storage.aclose()
        connected: list[object] = []
        connect = sqlite3.connect

        def note(*arguments: Any, **options: Any) -> sqlite3.Connection:
            connected.append(arguments)
            made: sqlite3.Connection = connect(*arguments, **options)
            return made

        monkeypatch.setattr(sqlite3, "connect", note)
        call = (lambda: MovableFile(path).close()) if use == "move" else (lambda: inspect_queue(path))
        with folder_locked(path):
            task = asyncio.create_task(asyncio.to_thread(call))
            await asyncio.wait([task], timeout=0.1)
            assert connected == []

        await task
        assert len(connected) == 1


class TestACopyThatFails:
    async def test_the_next_call_copies(self, open_file: OpenFile, path: Path) -> None:
        """What a deleted file held is copied by the next call, if another client has locked the new file meanwhile."""
        reported: list[DamagedFileError] = []
        storage = await open_file(report=reported.append, lock_timeout=0.2)
        await storage.write(records("a"))
        for each in files(path):
            each.unlink()
        other = await open_file()
        with locked(path), pytest.raises(StorageError, match="locked"):
            await storage.write(records("b"))

        await storage.write(records("c"))
        assert bodies(await other.waiting(9)) == ["a", "c"]
        assert [(each.saved, each.lost) for each in reported] == [(1, ())]

    async def test_while_closing(self, open_file: OpenFile, path: Path) -> None:
        """If it could not be copied before the storage is closed, that is reported."""
        reported: list[DamagedFileError] = []
        storage = await open_file(report=reported.append, lock_timeout=0.2)
        await storage.write(records("a"))
        for each in files(path):
            each.unlink()
        await open_file()
        with locked(path):
            await storage.aclose()

        await asyncio.sleep(0)
        (report,) = reported
        assert "database is locked" in str(report)
        assert "what else it held is not known" in str(report)


class TestTheWipe:
    async def test_a_deleted_file(self, open_file: OpenFile, path: Path) -> None:
        """A client whose file was wiped notices it although the file that took its place was deleted, too."""
        reported: list[StorageError] = []
        old, wiping = await open_file(report=reported.append), await open_file()
        await old.write(records(SECRET), [StateChange(SECRET, b"v", 0)])
        await wiping.wipe()
        await wiping.write(records("a"))
        for each in files(path):
            each.unlink()
        await wiping.write(records("b"))

        with pytest.raises(WipedFileError):
            await old.write(records("c"))
        assert bodies(await wiping.waiting(9)) == ["a", "b"]
        assert await wiping.load_state(SECRET) is None
        assert {type(each) for each in reported} == {WipedFileError}

    @pytest.mark.parametrize("pages", [1, 0])
    async def test_a_damaged_file(self, open_file: OpenFile, path: Path, pages: int) -> None:
        """The same, if that was damaged, and replaced by a client that was opened after the wipe, or that has wiped."""
        reported: list[DamagedFileError] = []
        old, new = await open_file(), await open_file(report=reported.append)
        await old.write(records(SECRET), [StateChange(SECRET, b"v", 0)])
        await new.wipe()
        await new.write([record("x" * 3_000) for _ in range(100)])
        await new.run(lambda connection: connection.execute("PRAGMA cache_size = 0"))
        await new.run(lambda connection: connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall())
        if pages:
            await new.aclose()
        damage(path, pages)
        if pages:
            new = await open_file(report=reported.append)
        await new.write(records("a"))

        with pytest.raises(WipedFileError):
            await old.write(records("c"))
        assert await new.load_state(SECRET) is None
        assert "a" in {*bodies(await new.waiting(999))} <= {"x" * 3_000, "a"}
        assert [bool(each.moved_to) for each in reported] == [True]


def damage(path: Path, pages: int) -> None:
    """Overwrite some pages at the end of a file, or all of it but its header."""
    size = path.stat().st_size
    start = size - pages * PAGE if pages else 104
    with path.open("r+b") as file:
        file.seek(start)
        file.write(b"\xa5" * (size - start))
