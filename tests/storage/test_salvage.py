"""
What is saved of a file that is damaged, or that was deleted with its write-ahead log while it was in use.
"""

import asyncio
import json
import os
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
from helpers.queue_file import write_version_1
from helpers.storages import (
    LEASE,
    NOW,
    OpenFile,
    bodies,
    dead,
    delivered,
    files,
    ids,
    later,
    lease,
    moved_aside,
    records,
    write_dead,
)

from exponea_async.errors import DamagedFileError
from exponea_async.storage.base import State, StateChange
from exponea_async.storage.sqlite.storage import SQLiteStorage

PAGE = 4096
#: The first byte of a page with rows of a table.
LEAF = 13

#: Opens and closes the file in another process, as a command does.
VISIT = """
import asyncio, sys
from exponea_async.storage.sqlite.storage import SQLiteStorage

async def main(path):
    storage = SQLiteStorage(path)
    await storage.open()
    await storage.aclose()

asyncio.run(main(sys.argv[1]))
"""


async def visit(path: Path) -> None:
    command = [sys.executable, "-c", VISIT, str(path)]
    await asyncio.to_thread(subprocess.run, command, check=True, stdout=subprocess.DEVNULL)


def pages_of(path: Path, table: str) -> list[int]:
    """Return the leaf pages of a table that is at most two levels deep, in order."""
    with closing(sqlite3.connect(path)) as connection:
        (root,) = connection.execute("SELECT rootpage FROM sqlite_master WHERE name = ?", (table,)).fetchone()
    page = path.read_bytes()[(root - 1) * PAGE : root * PAGE]
    if page[0] == LEAF:
        return [root]
    # An inner page: the positions of its cells follow a header of 12 bytes, and each cell begins with a page number.
    cells = [int.from_bytes(page[start : start + 2], "big") for start in range(12, 12 + 2 * page[4] + 512 * page[3], 2)]
    return [int.from_bytes(page[start : start + 4], "big") for start in (*cells, 8)]


def overwrite(path: Path, page: int) -> None:
    """Overwrite one page of a file."""
    with path.open("r+b") as file:
        file.seek((page - 1) * PAGE)
        file.write(b"\xa5garbage" * (PAGE // 8))


async def write_to_disk(storage: SQLiteStorage) -> None:
    """Copy the write-ahead log into the file, and forget what was read."""
    await storage.run(lambda connection: connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall())
    await storage.run(lambda connection: connection.execute("PRAGMA cache_size = 0"))


def halve(path: Path, zeros: int) -> None:
    """Cut off the second half of a file, and add so many times as many zeros."""
    content = path.read_bytes()
    half = content[: len(content) // PAGE // 2 * PAGE]
    path.write_bytes(half + bytes(len(half) * zeros))


class TestDamagedPages:
    @pytest.mark.parametrize("index", [0, 3, -1])
    @pytest.mark.parametrize("running", [False, True])
    async def test_a_damaged_page(self, open_file: OpenFile, path: Path, index: int, running: bool) -> None:  # noqa: FBT001
        """All records of all other pages are in the new file under their ids, and the ids of the rest are reported."""
        reported: list[DamagedFileError] = []
        storage = await open_file(report=reported.append)
        names = [f"{number:03}" + "x" * 200 for number in range(400)]
        written = (await storage.write(records(*names), [StateChange("k", b"v", 0)])).ids
        await write_to_disk(storage)
        page = pages_of(path, "record")[index]
        if not running:
            await storage.aclose()
        overwrite(path, page)
        if not running:
            storage = await open_file(report=reported.append)
        await storage.write(records("after"))

        found = await storage.waiting(1_000)
        assert 360 < len(found) < 401
        assert bodies(found)[-1] == "after"
        assert set(bodies(found)[:-1]) < set(names)
        assert dict(zip(written, names, strict=True)).items() >= {(each.id, each.body.decode()) for each in found[:-1]}
        (report,) = reported
        # The damage is met by the write only if that is in the damaged page.
        assert report.saved == len(found) - (not running or index == -1)
        if running or index != -1:
            assert sorted(report.lost) == sorted(set(written) - set(ids(found)))
        assert await storage.load_state("k") == State(b"v", 1)
        assert bodies(await lease(storage, 1_000)) == bodies(found)

    @pytest.mark.parametrize("zeros", [0, 1])
    async def test_half_of_a_file(self, open_file: OpenFile, path: Path, zeros: int) -> None:
        """Where the second half of a file is missing or zeros, what is in the first half is saved, and no more said."""
        reported: list[DamagedFileError] = []
        storage = await open_file()
        names = [f"{number:03}" + "x" * 200 for number in range(400)]
        for name in names:
            await storage.write(records(name))
        await storage.aclose()
        halve(path, zeros)

        storage = await open_file(report=reported.append)
        found = bodies(await storage.waiting(1_000))
        assert len(found) > 50
        assert set(found) < set(names)
        (report,) = reported
        assert report.saved == len(found)
        assert ", 0 are lost" not in str(report)
        await storage.write(records("after"))
        assert bodies(await lease(storage, 1_000)) == [*found, "after"]

    async def test_a_file_of_the_first_version(self, open_file: OpenFile, path: Path) -> None:
        """Records, activities and the keys of projects are saved, as if the damaged file had been migrated."""
        url = "https://h.example/track/v2/projects/outlet/batch"
        path.parent.mkdir()
        others = {f"other {number}": b"x" * 100 for number in range(200)}
        write_version_1(path, {url: 40}, {f"key:{url}": b'"secret"', **others})
        with closing(sqlite3.connect(path)) as connection:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("UPDATE state SET active = id WHERE key LIKE 'other %'")
            connection.commit()
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        overwrite(path, pages_of(path, "state")[-1])
        storage = await open_file()

        assert len(await storage.waiting(1_000)) == 40
        state = await storage.load_state("project:outlet")
        assert state is not None
        assert json.loads(state.value) == {"authorization": "secret", "base_url": "https://h.example"}
        assert await storage.load_state(f"key:{url}") is None
        assert await storage.load_state("other 0") == State(b"x" * 100, 1, 2.0)

    @pytest.mark.parametrize("table", ["taken", "state", "activity", "dead", "mark"])
    async def test_damage_of_other_tables(self, open_file: OpenFile, path: Path, table: str) -> None:
        """No record is lost because another table is damaged."""
        storage = await open_file()
        await write_dead(storage, "dead")
        await storage.write(records("a", "b", "c"), [StateChange("k", b"v", 0, active=NOW)])
        await lease(storage, 1)
        await write_to_disk(storage)
        await storage.aclose()
        overwrite(path, pages_of(path, table)[0])

        again = await open_file()
        assert bodies(await again.waiting(9)) == ["a", "b", "c"]
        assert len(moved_aside(path)) == 1

    async def test_everything_is_kept_as_it_was(self, open_file: OpenFile, path: Path) -> None:
        """Dead letters, failures, states and what was delivered are the same in the new file."""
        storage = await open_file()
        written = (await storage.write(records("a", "b", "c", "d"), [StateChange("k", b"v", 0, active=NOW)])).ids
        await lease(storage, 3)
        await storage.settle([*delivered(written[0]), *dead(written[1]), *later(written[2], due=NOW + 5, failures=2)])
        for each in files(path):
            each.unlink()

        found = await lease(storage, now=NOW + LEASE)
        assert {(each.id, each.body, each.failures) for each in found} == {
            (written[3], b"d", 0),
            (written[2], b"c", 2),
        }
        assert [each.body for each in await storage.dead(9)] == [b"b"]
        assert (await storage.find(written))[written[0]].kind == "delivered"
        assert await storage.load_state("k") == State(b"v", 1, NOW)
        assert (await storage.write(records("e"))).ids[0] not in written


class TestLostLog:
    async def test_closing_the_file_elsewhere_in_the_process(self, open_file: OpenFile, path: Path) -> None:
        """After this process has read the file, another one that closes it does not delete the log."""
        storage = await open_file()
        await storage.write(records("a"))
        path.open("rb").close()
        log = files(path)[1].stat().st_ino
        await visit(path)

        assert files(path)[1].stat().st_ino == log
        await storage.write(records("b"))
        await storage.aclose()
        assert [each.exists() for each in files(path)] == [True, False, False]
        assert bodies(await (await open_file()).waiting(9)) == ["a", "b"]

    async def test_two_clients_of_one_process(self, open_file: OpenFile, path: Path) -> None:
        """A storage that is closed does not take the locks of another one of the same process with it."""
        storage, other = await open_file(), await open_file()
        await storage.write(records("a"))
        await other.aclose()
        await visit(path)

        await storage.write(records("b"))
        await visit(path)
        assert all(map(Path.exists, files(path)))
        assert bodies(await storage.waiting(9)) == ["a", "b"]

    @pytest.mark.parametrize("suffixes", [("-wal",), ("-wal", "-shm"), (".sqlite",), (".sqlite", "-shm")])
    async def test_deleted_files(self, open_file: OpenFile, path: Path, suffixes: tuple[str, ...]) -> None:
        """Everything that was acknowledged is in the new file, and no copy of it is left."""
        reported: list[DamagedFileError] = []
        storage = await open_file(report=reported.append)
        await storage.write(records("a", "b"))
        for each in files(path):
            if each.name.endswith(suffixes):
                each.unlink()

        await storage.write(records("c"))
        assert [(each.saved, each.lost) for each in reported] == [(2, ())]
        await storage.aclose()
        assert bodies(await (await open_file()).waiting(9)) == ["a", "b", "c"]
        assert sorted(path.parent.iterdir()) == sorted(files(path))

    async def test_a_file_that_was_put_back(self, open_file: OpenFile, path: Path) -> None:
        """The log of the file that was used meanwhile is not applied to an old one that takes its place."""
        storage = await open_file()
        await storage.write(records("a"))
        old = files(path)[0].rename(path.with_name("old"))
        await storage.write(records("b"))
        log = files(path)[1].stat().st_ino
        old.replace(path)
        await storage.write(records("c"))

        assert files(path)[1].stat().st_ino != log
        assert bodies(await storage.waiting(9)) == ["a", "b", "c"]

    async def test_a_log_that_was_cut_off(self, open_file: OpenFile, path: Path) -> None:
        """The storage goes on in a new file, and says that the old one was damaged."""
        reported: list[DamagedFileError] = []
        storage, other = await open_file(report=reported.append), await open_file()
        await storage.write(records("a"))
        # Otherwise all pages would be in the memory of the first connection.
        await other.write(records("b"))
        os.truncate(files(path)[1], 0)

        await storage.write(records("c"))
        assert bodies(await storage.waiting(9))[-1] == "c"
        (report,) = reported
        assert report.moved_to

    async def test_a_new_file_beside_the_old_log(self, open_file: OpenFile, path: Path) -> None:
        """What another process does at the path of a deleted file harms none of what this one can still read."""
        storage = await open_file()
        await storage.write(records("a", "b"))
        files(path)[0].unlink()
        await visit(path)

        await storage.write(records("c"))
        assert bodies(await storage.waiting(9)) == ["a", "b", "c"]

    async def test_it_is_noticed_without_a_call(self, open_file: OpenFile, path: Path) -> None:
        """What was written just before the log was deleted is saved when the storage is closed."""
        storage = await open_file()
        await storage.write(records("a", "b"))
        files(path)[1].unlink()
        await storage.aclose()

        assert bodies(await (await open_file()).waiting(9)) == ["a", "b"]

    async def test_two_processes_lose_the_file(self, open_file: OpenFile, path: Path) -> None:
        """Each of two storages saves what the other one has not, and nothing is there twice."""
        storage, other = await open_file(), await open_file()
        await storage.write(records("a"))
        await other.write(records("b"))
        for each in files(path):
            each.unlink()
        await storage.write(records("c"))
        await other.write(records("d"))

        assert bodies(await other.waiting(9)) == ["a", "b", "c", "d"]
