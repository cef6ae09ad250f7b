"""
Disk space: limits of the file and of its log, a full disk, and space that is given back.
"""

import asyncio
import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path

import pytest
from helpers.environment import SetConstants
from helpers.storages import (
    NOW,
    MakeStorage,
    OpenFile,
    bodies,
    delivered,
    files,
    ids,
    lease,
    record,
    records,
    write_dead,
)
from helpers.waiting import until

from exponea_async.errors import QueueFullError, StorageError
from exponea_async.storage.base import Record, Storage
from exponea_async.storage.sqlite import connection as connections
from exponea_async.storage.sqlite import group_commit
from exponea_async.storage.sqlite.storage import SQLiteStorage

MEGABYTE = 1_000_000


def large(count: int, size: int = 10_000) -> list[Record]:
    return [record(f"{number:06}" + "x" * size) for number in range(count)]


def size_of(path: Path) -> int:
    return sum(each.stat().st_size for each in files(path) if each.exists())


def names_in(folder: Path) -> list[str]:
    return [each.name for each in folder.iterdir()]


async def drain(storage: Storage) -> int:
    """Lease and deliver everything; return the number of records."""
    count = 0
    while leased := await lease(storage, 500):
        count += await storage.settle(delivered(*ids(leased)))
    return count


class TestMaxBytes:
    async def test_raise(self, make_storage: MakeStorage) -> None:
        """A call that exceeds the size raises, and succeeds after records were delivered."""
        storage = await make_storage(max_bytes=2 * MEGABYTE)
        with pytest.raises(QueueFullError, match="2000000 bytes"):  # noqa: PT012 - one of many calls
            for each in large(300):
                await storage.write([each])
        count = (await storage.pending()).waiting
        assert 150 < count < 201
        assert await drain(storage) == count

        await storage.write(large(100))

    async def test_a_write_that_never_fits(self, make_storage: MakeStorage) -> None:
        """A single write that is larger than the queue may be raises, whatever happens to others."""
        for when_full in ("raise", "wait", "drop_oldest"):
            storage = await make_storage(max_bytes=2 * MEGABYTE, when_full=when_full)
            with pytest.raises(QueueFullError):
                await asyncio.wait_for(storage.write(large(400)), 60)
            await storage.wipe()

    async def test_wait(self, make_storage: MakeStorage) -> None:
        """A write waits until deliveries have made room for it."""
        storage = await make_storage(max_bytes=2 * MEGABYTE, when_full="wait")
        calls = [asyncio.create_task(storage.write([each])) for each in large(300)]
        await until(lambda: sum(call.done() for call in calls) > 100)
        delivered_count = 0
        while not all(call.done() for call in calls):
            delivered_count += await drain(storage)
            await asyncio.sleep(0.01)

        assert delivered_count + await drain(storage) == 300

    async def test_drop_oldest(self, make_storage: MakeStorage) -> None:
        """The oldest records make room for new ones, and their ids are returned."""
        storage = await make_storage(max_bytes=2 * MEGABYTE, when_full="drop_oldest")
        written = [await storage.write([each]) for each in large(400)]
        dropped = [key for each in written for key in each.dropped]
        waiting = ids(await storage.waiting(1_000))

        assert [key for each in written for key in each.ids] == [*dropped, *waiting]
        assert 150 < len(waiting) < 201


class TestSpaceIsGivenBack:
    async def test_an_idle_queue(self, open_file: OpenFile, path: Path, set_constants: SetConstants) -> None:
        """After a drain the file becomes small and the log empty, while the storage is open."""
        set_constants(group_commit, IDLE_TIME=0.05)
        storage = await open_file()
        for _ in range(4):
            await storage.write(large(200))
        await storage.write(records("kept", route="other"))
        assert size_of(path) > 8 * MEGABYTE
        leased = await storage.lease(1_000, 60.0, NOW, only="shop")
        await storage.settle(delivered(*ids(leased)))

        await until(lambda: size_of(path) < 300_000 and not files(path)[1].stat().st_size)
        assert bodies(await lease(storage)) == ["kept"]
        assert await storage.settle(delivered(*ids(await storage.waiting(1)))) == 1

    async def test_a_closed_queue(self, open_file: OpenFile, path: Path) -> None:
        """A queue that was drained is small once it is closed, and nothing lies beside it."""
        storage = await open_file()
        await storage.write(large(400))
        await drain(storage)
        await storage.aclose()

        assert size_of(path) < 300_000
        assert list(path.parent.iterdir()) == [path]

    async def test_compact(self, open_file: OpenFile, path: Path) -> None:
        """On request the file is rewritten although it is not idle, and what is in it stays."""
        storage = await open_file()
        await storage.write(large(400))
        dead = await write_dead(storage, "dead", route="other")
        leased = await storage.lease(200, 60.0, NOW, only="shop")
        await storage.settle(delivered(*ids(leased)))
        before = size_of(path)
        freed = await storage.compact()

        assert freed > 2 * MEGABYTE
        assert size_of(path) < before - 2 * MEGABYTE
        assert len(await storage.waiting(1_000)) == 200
        assert ids(await storage.dead(9)) == dead


class TestLog:
    async def test_a_reader_in_the_way(self, open_file: OpenFile, path: Path, set_constants: SetConstants) -> None:
        """While another program reads all the time, the log is bounded; deliveries go on, and later everything does."""
        set_constants(connections, MAX_LOG_SIZE=3 * MEGABYTE)
        storage = await open_file()
        await storage.write(records("first"))
        with closing(sqlite3.connect(path, isolation_level=None)) as reader:
            reader.execute("BEGIN")
            reader.execute("SELECT * FROM record").fetchall()
            with pytest.raises(StorageError, match="another program has been reading"):  # noqa: PT012 - one of many
                for _ in range(100):
                    await storage.write(large(20))
            assert files(path)[1].stat().st_size < 5 * MEGABYTE
            (leased,) = await lease(storage, 1)
            assert await storage.settle(delivered(leased.id)) == 1

        await storage.write(records("last"))
        assert files(path)[1].stat().st_size < MEGABYTE


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Return a folder on a disk of 16 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", str(folder)], capture_output=True, text=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"a disk can't be mounted here: {mounted.stderr}")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


async def fill(storage: Storage) -> int:
    """Write records until the disk is full; return how many were written."""
    count = 0
    with suppress(StorageError):
        while True:
            count += len((await storage.write(large(20))).ids)
    for size in (1_000, 10):
        with suppress(StorageError):
            while True:
                count += len((await storage.write(large(1, size))).ids)
    return count


class TestFullDisk:
    async def test_the_upload_makes_room(self, small_disk: Path) -> None:
        """A queue that has filled its disk can be drained, and takes new records then."""
        storage = SQLiteStorage(small_disk / "queue.sqlite")
        await storage.open()
        count = await fill(storage)
        assert count > 400
        with pytest.raises(StorageError, match="full"):
            await storage.write(records("too many"))

        assert await drain(storage) == count
        await storage.write(large(300))
        assert await drain(storage) == 300
        await storage.aclose()
        assert names_in(small_disk) == ["queue.sqlite"]

    async def test_a_file_that_is_not_a_reserve(self, open_file: OpenFile, path: Path) -> None:
        """Somebody's file of the reserve's name stays as it is."""
        storage = await open_file()
        other = Path(f"{path}-reserve")
        other.write_text("mine")  # noqa: ASYNC240 - a few bytes
        await storage.write(large(400))
        await drain(storage)
        await storage.aclose()

        assert other.read_text() == "mine"  # noqa: ASYNC240 - a few bytes

    async def test_after_a_restart(self, small_disk: Path) -> None:
        """A queue on a full disk can be opened and drained by another process, too."""
        storage = SQLiteStorage(small_disk / "queue.sqlite")
        await storage.open()
        count = await fill(storage)
        await storage.aclose()
        filler = small_disk / "filler"
        with suppress(OSError), filler.open("wb", buffering=0) as file:
            while True:
                file.write(bytes(4096))

        again = SQLiteStorage(small_disk / "queue.sqlite")
        await again.open()
        assert await drain(again) == count
        await again.write(records("after"))
        await again.aclose()

    async def test_new_records_do_not_take_the_room(self, small_disk: Path) -> None:
        """Callers that go on writing get errors, and every record that was acknowledged is delivered."""
        storage = SQLiteStorage(small_disk / "queue.sqlite")
        await storage.open()
        count = await fill(storage)
        found: list[str] = []
        while leased := await lease(storage, 50):
            found += bodies(leased)
            outcomes = await asyncio.gather(
                storage.settle(delivered(*ids(leased))),
                *(storage.write([each]) for each in large(30)),
                return_exceptions=True,
            )
            assert outcomes[0] == len(leased)
            count += sum(not isinstance(each, Exception) for each in outcomes[1:])
            if len(found) > 3_000:
                break
        found += bodies(await storage.waiting(10_000))
        await storage.aclose()
        assert len(found) == count
