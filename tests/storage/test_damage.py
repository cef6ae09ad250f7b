"""
Files that are damaged, moved or deleted under those who use them.
"""

import asyncio
import sqlite3
from pathlib import Path

import pytest
from stores import (
    LEASE,
    NOW,
    OpenFile,
    aside,
    bodies,
    content,
    delivered,
    file_opener,  # noqa: F401 - a fixture
    file_path,  # noqa: F401 - a fixture
    ids,
    on_thread,
    parts,
    records,
    take,
)

from exponea_async.errors import DamagedFileError, StorageError
from exponea_async.storage.base import StateChange, StateCheck
from exponea_async.storage.sqlite.file import move_aside
from exponea_async.storage.sqlite.storage import SQLiteStorage


def scribble(path: Path, start: int = 0) -> None:
    """Overwrite a file with garbage from a place on."""
    size = max(path.stat().st_size, 8192)
    with path.open("r+b") as file:
        file.seek(start)
        file.write(b"\xa5garbage" * ((size - start) // 8))


class TestDamage:
    @pytest.mark.parametrize("start", [0, 4096])
    async def test_found_at_the_opening(self, open_file: OpenFile, path: Path, start: int) -> None:
        """A damaged file is moved aside as it is, reported once, and tracking goes on in a fresh one."""
        storage = await open_file()
        await storage.write(records(*map(str, range(2_000))))
        await storage.aclose()
        scribble(path, start)
        damaged = content(path)
        told: list[DamagedFileError] = []

        again = await open_file(report=told.append)
        await again.write(records("a"))
        assert bodies(await take(again)) == ["a"]
        assert [(each.path, each.moved_to) for each in told] == [(str(path), str(*aside(path)))]
        assert content(Path(told[0].moved_to)) == damaged
        await again.aclose()
        assert bodies(await (await open_file(report=told.append)).waiting(9)) == ["a"]
        assert len(told) == 1

    @pytest.mark.parametrize("busy", [1, 100])
    async def test_found_while_running(self, open_file: OpenFile, path: Path, busy: int) -> None:
        """Writers who meet the damage don't notice: they are written to a fresh file."""
        told: list[DamagedFileError] = []
        storage = await open_file(report=told.append)
        await storage.write(records(*map(str, range(2_000))), [StateChange("k", b"", 0)])
        await self.damage(storage, path)

        written = await asyncio.gather(*(storage.write(records(str(number))) for number in range(busy)))
        assert len({each.ids for each in written}) == busy
        assert (await storage.pending()).waiting == busy
        assert len(told) == 1
        assert aside(path) == [Path(told[0].moved_to)]
        assert (await storage.write([], [StateChange("k", b"", 0)])).ids == ()

    async def damage(self, storage: SQLiteStorage, path: Path) -> None:
        """Spoil the file under an open connection."""
        await on_thread(storage, lambda ledger: ledger.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall())
        await on_thread(storage, lambda ledger: ledger.execute("PRAGMA cache_size = 0"))
        scribble(path, 4096)

    @pytest.mark.parametrize("call", ["lease", "pending", "settle"])
    async def test_whoever_finds_it(self, open_file: OpenFile, path: Path, call: str) -> None:
        """A lease, a look and a settlement that meet the damage find the fresh file, which is empty."""
        told: list[DamagedFileError] = []
        storage = await open_file(report=told.append)
        await storage.write(records(*map(str, range(500))))
        held = await take(storage)
        await self.damage(storage, path)

        if call == "lease":
            assert await take(storage, now=NOW + LEASE) == []
        elif call == "settle":
            assert await storage.settle(delivered(*ids(held))) == 0
        assert (await storage.pending()).waiting == 0
        assert len(told) == 1

    async def test_a_caller_gone_meanwhile(self, open_file: OpenFile, path: Path) -> None:
        """The mending goes on though its caller was cancelled, and others are served."""
        storage = await open_file()
        await storage.write(records(*map(str, range(500))))
        await self.damage(storage, path)
        gone = asyncio.create_task(storage.write(records("a")))
        await asyncio.sleep(0)
        gone.cancel()

        await storage.write(records("b"))
        assert "b" in bodies(await take(storage))

    async def test_versions_do_not_fit_the_fresh_file(self, open_file: OpenFile, path: Path) -> None:
        """A state of the damaged file is not taken for a new one under its key."""
        storage = await open_file()
        await storage.write(records(*map(str, range(500))), [StateChange("k", b"old", 0)])
        await self.damage(storage, path)
        await storage.write(records("a"))
        await storage.write([], [StateChange("k", b"new", 0)])

        with pytest.raises(StorageError, match="has changed since it was read"):
            await storage.write([], [StateCheck("k", 1)])

    async def test_a_file_moved_by_another_process(self, open_file: OpenFile, path: Path) -> None:
        """Who goes on in a file that somebody else has moved notices, and nothing acknowledged lies elsewhere."""
        told: list[DamagedFileError] = []
        storage = await open_file(report=told.append)
        await storage.write(records("a"))
        moved = Path(move_aside(path, 0))
        other = await open_file()
        await other.write(records("b"))

        await storage.write(records("c"))
        assert told == []
        assert bodies(await other.waiting(9)) == ["b", "c"] == bodies(await storage.waiting(9))
        await storage.aclose()
        assert all(map(Path.exists, parts(path)))
        db = sqlite3.connect(moved)
        assert (b"a",) in db.execute("SELECT body FROM record").fetchall()
        db.close()

    async def test_a_deleted_file(self, open_file: OpenFile, path: Path) -> None:
        """A file deleted under an open storage is made anew, folder included."""
        storage = await open_file()
        await storage.write(records("a"))
        for each in parts(path):
            each.unlink()
        path.parent.rmdir()

        await storage.write(records("b"))
        assert bodies(await storage.waiting(9)) == ["b"]
        assert all(map(Path.exists, parts(path)))

    def test_moved_once(self, path: Path) -> None:
        """Of two processes that find the same damage one moves the file, and the fresh one stays."""
        path.parent.mkdir()
        path.write_bytes(b"damaged")
        inode = path.stat().st_ino

        assert move_aside(path, inode) == str(*aside(path))
        assert move_aside(path, inode) == ""
        path.write_bytes(b"fresh")
        assert move_aside(path, inode) == ""
        assert path.read_bytes() == b"fresh"
        assert Path(move_aside(path, 0)).read_bytes() == b"fresh"
        assert len(aside(path)) == 2
