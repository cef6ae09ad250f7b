"""
Files that are damaged, moved or deleted while they are in use.
"""

import asyncio
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from helpers.storages import (
    LEASE,
    NOW,
    OpenFile,
    bodies,
    content,
    delivered,
    files,
    ids,
    lease,
    moved_aside,
    records,
)

from exponea_async.errors import DamagedFileError, StorageError
from exponea_async.storage.base import StateChange, StateCheck
from exponea_async.storage.sqlite.file import move_aside
from exponea_async.storage.sqlite.storage import SQLiteStorage


def overwrite(path: Path, start: int = 0) -> None:
    """Overwrite a file with garbage from an offset on."""
    size = max(path.stat().st_size, 8192)
    with path.open("r+b") as file:
        file.seek(start)
        file.write(b"\xa5garbage" * ((size - start) // 8))


class TestDamage:
    @pytest.mark.parametrize("start", [104, 4096])
    async def test_damage_found_when_opening(self, open_file: OpenFile, path: Path, start: int) -> None:
        """A damaged file is moved aside as it is and reported once, and a new one is used."""
        storage = await open_file()
        await storage.write(records(*map(str, range(2_000))))
        await storage.aclose()
        overwrite(path, start)
        damaged = content(path)
        reported: list[DamagedFileError] = []

        again = await open_file(report=reported.append)
        await again.write(records("a"))
        assert bodies(await lease(again)) == ["a"]
        assert [(each.path, each.moved_to) for each in reported] == [(str(path), str(*moved_aside(path)))]
        assert content(Path(reported[0].moved_to)) == damaged
        await again.aclose()
        assert bodies(await (await open_file(report=reported.append)).waiting(9)) == ["a"]
        assert len(reported) == 1

    async def test_a_file_that_is_not_recognized(self, open_file: OpenFile, path: Path) -> None:
        """A file whose header is damaged may be anyone's: it is refused and left as it is."""
        await (await open_file()).aclose()
        overwrite(path)
        damaged = content(path)

        with pytest.raises(StorageError, match="not a queue of exponea_async"):
            await open_file()
        assert content(path) == damaged
        assert moved_aside(path) == []

    @pytest.mark.parametrize("busy", [1, 100])
    async def test_damage_found_while_running(self, open_file: OpenFile, path: Path, busy: int) -> None:
        """Writers that find the damage do not notice: their records are in a new file."""
        reported: list[DamagedFileError] = []
        storage = await open_file(report=reported.append)
        await storage.write(records(*map(str, range(2_000))), [StateChange("k", b"", 0)])
        generation = await storage.generation()
        await self.damage(storage, path)

        written = await asyncio.gather(*(storage.write(records(str(number))) for number in range(busy)))
        assert len({each.ids for each in written}) == busy
        assert (await storage.pending()).waiting == busy
        assert len(reported) == 1
        assert moved_aside(path) == [Path(reported[0].moved_to)]
        assert (await storage.write([], [StateChange("k", b"", 0)])).ids == ()
        assert await storage.generation() != generation

    async def damage(self, storage: SQLiteStorage, path: Path) -> None:
        """Damage the file of an open connection."""
        await storage.run(lambda connection: connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall())
        await storage.run(lambda connection: connection.execute("PRAGMA cache_size = 0"))
        overwrite(path, 4096)

    @pytest.mark.parametrize("call", ["lease", "pending", "settle"])
    async def test_damage_found_by_other_calls(self, open_file: OpenFile, path: Path, call: str) -> None:
        """A lease, a read and a settlement that find the damage act on the new file, which is empty."""
        reported: list[DamagedFileError] = []
        storage = await open_file(report=reported.append)
        await storage.write(records(*map(str, range(500))))
        leased = await lease(storage)
        await self.damage(storage, path)

        if call == "lease":
            assert await lease(storage, now=NOW + LEASE) == []
        elif call == "settle":
            assert await storage.settle(delivered(*ids(leased))) == 0
        assert (await storage.pending()).waiting == 0
        assert len(reported) == 1

    async def test_damage_found_by_a_cancelled_caller(self, open_file: OpenFile, path: Path) -> None:
        """The new file is opened although the caller was cancelled, and other callers are served."""
        storage = await open_file()
        await storage.write(records(*map(str, range(500))))
        await self.damage(storage, path)
        cancelled = asyncio.create_task(storage.write(records("a")))
        await asyncio.sleep(0)
        cancelled.cancel()

        await storage.write(records("b"))
        assert "b" in bodies(await lease(storage))

    async def test_versions_do_not_match_in_the_new_file(self, open_file: OpenFile, path: Path) -> None:
        """A version read from the damaged file does not match a new state under its key."""
        storage = await open_file()
        await storage.write(records(*map(str, range(500))), [StateChange("k", b"old", 0)])
        await self.damage(storage, path)
        await storage.write(records("a"))
        await storage.write([], [StateChange("k", b"new", 0)])

        with pytest.raises(StorageError, match="has changed since it was read"):
            await storage.write([], [StateCheck("k", 1)])

    async def test_a_file_moved_by_another_process(self, open_file: OpenFile, path: Path) -> None:
        """After another process has moved the file, writes go to the new file, and what the old one held is there."""
        reported: list[DamagedFileError] = []
        storage = await open_file(report=reported.append)
        await storage.write(records("a"))
        moved = Path(move_aside(path, 0))
        other = await open_file()
        await other.write(records("b"))

        await storage.write(records("c"))
        assert [(each.saved, each.lost) for each in reported] == [(1, ())]
        assert sorted(bodies(await other.waiting(9))) == ["a", "b", "c"] == sorted(bodies(await storage.waiting(9)))
        await storage.aclose()
        assert all(map(Path.exists, files(path)))
        db = sqlite3.connect(moved)
        assert (b"a",) in db.execute("SELECT body FROM record").fetchall()
        db.close()

    async def test_a_deleted_file(self, open_file: OpenFile, path: Path) -> None:
        """A file that is deleted while it is open is created again, with its folder and what it held."""
        reported: list[DamagedFileError] = []
        storage = await open_file(report=reported.append)
        await storage.write(records("a"))
        for each in files(path):
            each.unlink()
        path.parent.rmdir()

        await storage.write(records("b"))
        assert bodies(await storage.waiting(9)) == ["a", "b"]
        assert all(map(Path.exists, files(path)))
        assert [(each.saved, each.lost, each.moved_to) for each in reported] == [(1, (), "")]

    @pytest.mark.parametrize("untouched", [False, True])
    @pytest.mark.parametrize(
        "change",
        ["body = CAST(body AS TEXT)", "at = 'soon'", "at = x'00'", "body = CAST(x'ff' AS TEXT)", "body = 5"],
    )
    async def test_a_record_of_another_type(self, open_file: OpenFile, change: str, untouched: bool) -> None:  # noqa: FBT001
        """A record with a value of another type becomes a dead letter, alone, and the others are leased."""
        storage = await open_file()
        written = (await storage.write(records("a", "b", "c"))).ids
        if not untouched:
            await lease(storage)
        await storage.run(
            lambda connection: connection.execute(f"UPDATE record SET {change} WHERE id = ?", (int(written[1]),))
        )
        assert len(await storage.waiting(9)) == 3

        assert bodies(await lease(storage, now=NOW + LEASE)) == ["a", "c"]
        (letter,) = await storage.dead(9)
        assert (letter.id, type(letter.at), type(letter.body)) == (written[1], float, bytes)
        assert "damaged" in letter.reason
        count = await storage.pending()
        assert (count.waiting, count.leased, count.dead) == (2, 2, 1)

    @pytest.mark.parametrize("change", ["version = 'x'", "active = 'x'", "value = 'x'", "active = x'00'"])
    async def test_a_state_of_another_type(self, open_file: OpenFile, path: Path, change: str) -> None:
        """A state with a value of another type can be read, checked, replaced and searched."""
        storage = await open_file()
        await storage.write([], [StateChange("k", b"x", 0, NOW)])
        with closing(sqlite3.connect(path, isolation_level=None)) as connection:
            table = "activity" if change.startswith("active") else "state"
            connection.execute(f"UPDATE {table} SET {change}")

        await storage.expired_sessions(NOW + 1, 9)
        state = await storage.load_state("k")
        assert state
        assert (type(state.value), type(state.version)) == (bytes, int)
        await storage.write(records("a"), [StateCheck("k", state.version, NOW)])
        await storage.write([], [StateChange("k", b"y", state.version, NOW + 5, seen=NOW)])
        again = await storage.load_state("k")
        assert again
        assert (again.value, again.active) == (b"y", NOW + 5)

    async def test_records_of_another_type_are_dropped_for_new_ones(self, open_file: OpenFile) -> None:
        """The oldest records are found although one of them has a text for a time."""
        storage = await open_file(max_records=3, when_full="drop_oldest")
        written = (await storage.write([*records("a"), *records("b", route="other"), *records("c")])).ids
        await storage.run(
            lambda connection: connection.execute("UPDATE record SET at = 'soon' WHERE id = ?", (int(written[0]),))
        )

        assert (await storage.write(records("d"))).dropped == (written[0],)

    def test_moved_once(self, path: Path) -> None:
        """Of two processes that find the same damage one moves the file, and the new file stays."""
        path.parent.mkdir()
        path.write_bytes(b"damaged")
        inode = path.stat().st_ino

        assert move_aside(path, inode) == str(*moved_aside(path))
        assert move_aside(path, inode) == ""
        path.write_bytes(b"new")
        assert move_aside(path, inode) == ""
        assert path.read_bytes() == b"new"
        assert Path(move_aside(path, 0)).read_bytes() == b"new"
        assert len(moved_aside(path)) == 2
