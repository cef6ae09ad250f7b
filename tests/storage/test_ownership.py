"""
What a storage path may lead to: only a queue is opened, and everything else is left as it is.
"""

import asyncio
import os
import socket
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from helpers.storages import OpenFile, bodies, content, files, records

from exponea_async import Configuration, QueueSettings
from exponea_async.errors import StorageError
from exponea_async.storage import create_storage
from exponea_async.storage.sqlite.schema import MIGRATIONS, migrate
from exponea_async.storage.sqlite.storage import SQLiteStorage


def snapshot(folder: Path) -> dict[str, Any]:
    """Return everything that there is to know about what a folder contains."""
    found: dict[str, Any] = {}
    for path in sorted(folder.rglob("*")):
        status = path.lstat()
        data = content(path) if stat.S_ISREG(status.st_mode) else None
        facts = (status.st_ino, status.st_mode, status.st_uid, status.st_size, status.st_mtime_ns)
        found[str(path.relative_to(folder))] = (*facts, data)
    return found


def write_text(path: Path) -> None:
    path.write_text("id,email\n1,jane@example.com\n" * 100)


def write_a_few_bytes(path: Path) -> None:
    path.write_bytes(b"\0\0\0")


def write_database(path: Path) -> None:
    with closing(sqlite3.connect(path)) as db:
        db.execute("CREATE TABLE record (id INTEGER PRIMARY KEY, name TEXT)")
        db.commit()


def write_empty_database_of_another_program(path: Path) -> None:
    with closing(sqlite3.connect(path)) as db:
        db.execute("PRAGMA application_id = 7")


def write_database_with_log(path: Path) -> None:
    """Write a database as a program leaves it that is killed: its only table is in the write-ahead log."""
    script = (
        "import os, sqlite3, sys; db = sqlite3.connect(sys.argv[1]); db.execute('PRAGMA journal_mode = WAL');"
        "db.execute('CREATE TABLE customer (email TEXT)'); db.commit(); os._exit(0)"
    )
    subprocess.run([sys.executable, "-c", script, str(path)], check=True)


def make_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))


def make_device(path: Path) -> None:
    if os.geteuid():
        pytest.skip("only root can create a device")
    os.mknod(path, stat.S_IFCHR | 0o666, os.makedev(1, 3))
    path.chmod(0o666)


def make_file_of_another_user(path: Path) -> None:
    if os.geteuid():
        pytest.skip("only root can give a file away")
    path.touch()
    os.chown(path, 54_321, 54_321)


def write_nothing(path: Path) -> None:
    path.touch(0o644)


def make_link(path: Path) -> None:
    target = path.with_name("target.sqlite")
    write_database(target)
    target.chmod(0o644)
    path.symlink_to(target)


FOREIGN: dict[str, tuple[Callable[[Path], None], str]] = {
    "text": (write_text, "not a queue"),
    "a few bytes": (write_a_few_bytes, "not a queue"),
    "a database": (write_database, "not a queue"),
    "an empty database of another program": (write_empty_database_of_another_program, "not a queue"),
    "a database with a log": (write_database_with_log, "not a queue"),
    "a directory": (lambda path: path.mkdir(), "is a directory.*path of a file in it"),
    "a socket": (make_socket, "is a socket"),
    "a pipe": (os.mkfifo, "is a named pipe"),
    "a device": (make_device, "is a device"),
    "another user's": (make_file_of_another_user, "belongs to the user with id 54321"),
    "a link": (make_link, "is a symbolic link.*follow_links=True"),
    "a link to nothing": (lambda path: path.symlink_to(path.with_name("nothing")), "is a symbolic link"),
}


class TestWhatIsNotOurs:
    @pytest.mark.parametrize("name", FOREIGN)
    async def test_it_is_refused_and_left_as_it_is(self, tmp_path: Path, name: str) -> None:
        """What is not a queue is refused with what it is and what to do; nothing is changed or created."""
        make, message = FOREIGN[name]
        path = tmp_path / "orders"
        make(path)
        if stat.S_ISREG(path.lstat().st_mode):
            path.chmod(0o644)
        before = snapshot(tmp_path)

        with pytest.raises(StorageError, match=f"(?s){message}") as refused:
            await SQLiteStorage(path).open()
        assert snapshot(tmp_path) == before
        assert str(path) in str(refused.value)
        assert refused.value.hint

    async def test_a_database_in_use(self, tmp_path: Path) -> None:
        """The database of another program that is using it is refused, and the program notices nothing."""
        path = tmp_path / "shop.sqlite"
        with closing(sqlite3.connect(path, isolation_level=None)) as db:
            db.execute("PRAGMA journal_mode = WAL")
            db.execute("CREATE TABLE customer (email TEXT)")
            before = snapshot(tmp_path)
            with pytest.raises(StorageError, match="not a queue"):
                await SQLiteStorage(path).open()

            assert snapshot(tmp_path) == before
            db.execute("INSERT INTO customer VALUES ('jane@example.com')")
            assert db.execute("PRAGMA application_id").fetchone() == (0,)

    @pytest.mark.parametrize("exists", [True, False])
    @pytest.mark.parametrize("suffix", ["-wal", "-shm", "-journal"])
    async def test_a_link_in_place_of_a_companion(
        self,
        open_file: OpenFile,
        path: Path,
        suffix: str,
        exists: bool,  # noqa: FBT001
    ) -> None:
        """A link that someone has put where SQLite keeps a file is refused, and its target is not changed."""
        await (await open_file()).aclose()
        if not exists:
            files(path)[0].unlink()
        companion = path.with_name(f"{path.name}{suffix}")
        make_link(companion)
        before = snapshot(path.parent)

        with pytest.raises(StorageError, match=f"queue.sqlite{suffix} is a symbolic link"):
            await open_file()
        assert snapshot(path.parent) == before

    @pytest.mark.parametrize("folder", ["file", "file/inner"])
    async def test_a_folder_that_cannot_exist(self, tmp_path: Path, folder: str) -> None:
        """Where the folder can't be created, the error has the path, the setting and its variable."""
        (tmp_path / "file").touch()
        path = tmp_path / folder / "queue.sqlite"

        with pytest.raises(StorageError, match=r"storage or EXPONEA_STORAGE") as refused:
            await SQLiteStorage(path).open()
        assert str(path) in str(refused.value)


class TestWhatIsOurs:
    async def test_an_empty_file(self, open_file: OpenFile, path: Path) -> None:
        """An empty regular file becomes a queue that only its owner can read."""
        path.parent.mkdir()
        write_nothing(path)

        storage = await open_file()
        await storage.write(records("a"))
        assert bodies(await storage.waiting(9)) == ["a"]
        assert [stat.S_IMODE(each.stat().st_mode) for each in files(path)] == [0o600] * 3

    async def test_it_is_marked_from_the_beginning(self, open_file: OpenFile, path: Path) -> None:
        """The header of a new file has the mark, also while all else is in the write-ahead log."""
        await (await open_file()).write(records("a"))

        assert content(path)[68:72] == b"ExpQ"

    async def test_no_two_files_have_the_same_generation(self, tmp_path: Path) -> None:
        """Files that are created at the same time have different generations."""
        storages = [SQLiteStorage(tmp_path / str(number)) for number in range(9)]
        await asyncio.gather(*(storage.open() for storage in storages))
        generations = await asyncio.gather(*(storage.generation() for storage in storages))
        await asyncio.gather(*(storage.aclose() for storage in storages))

        assert len(set(generations)) == 9

    @pytest.mark.parametrize("killed", [True, False])
    async def test_a_file_of_the_first_version(self, open_file: OpenFile, path: Path, *, killed: bool) -> None:
        """A file of version 1, which has no mark, is recognized by its tables, also in the log, and gets the mark."""
        path.parent.mkdir()
        source = path.with_name("source.sqlite")
        with closing(sqlite3.connect(source, isolation_level=None)) as db:
            db.execute("PRAGMA journal_mode = WAL")
            migrate(db, MIGRATIONS[:1])
            db.execute("INSERT INTO route VALUES (1, 'shop', 0)")
            db.execute(f"INSERT INTO record VALUES ({(1 << 44) + 1}, 1.0, CAST('a' AS BLOB))")
            if not killed:
                db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            for old, new in zip(files(source), files(path), strict=True):
                new.write_bytes(content(old))
        assert content(path)[68:72] == bytes(4)

        storage = await open_file()
        assert bodies(await storage.waiting(9)) == ["a"]
        await storage.aclose()
        assert content(path)[68:72] == b"ExpQ"

    async def test_an_aborted_creation(self, open_file: OpenFile, path: Path) -> None:
        """A database without tables and without an owner is used."""
        path.parent.mkdir()
        with closing(sqlite3.connect(path)) as db:
            db.execute("PRAGMA journal_mode = WAL")
        assert content(path)

        await (await open_file()).write(records("a"))

    async def test_a_link_that_is_allowed(self, tmp_path: Path) -> None:
        """With ``follow_links`` a link is followed, and companions are beside the file that it leads to."""
        (tmp_path / "data").mkdir()
        link, target = tmp_path / "link.sqlite", tmp_path / "data" / "queue.sqlite"
        link.symlink_to(target)
        settings = Configuration(
            project_token="token",
            authorization_token="key",
            storage=link,
            queue=QueueSettings(follow_links=True),
        )
        for body in ("a", "b"):
            storage = create_storage(settings, lambda _: None)
            await storage.open()
            await storage.write(records(body))
            assert all(map(Path.exists, files(target)))
            await storage.aclose()

        assert {name for name in snapshot(tmp_path) if "/" not in name} == {"data", "link.sqlite"}
        assert link.is_symlink()

    async def test_a_second_client_does_not_release_locks(self, open_file: OpenFile, path: Path) -> None:
        """Opening a file twice leaves its locks alone: another process that closes it leaves the log to us."""
        first = await open_file()
        await first.write(records("a"))
        second = await open_file()
        script = "import sqlite3, sys; db = sqlite3.connect(sys.argv[1]); db.execute('SELECT 1 FROM route'); db.close()"
        await asyncio.to_thread(subprocess.run, [sys.executable, "-c", script, str(path)], check=True)

        assert all(map(Path.exists, files(path)))
        await second.write(records("b"))
        await asyncio.to_thread(subprocess.run, [sys.executable, "-c", script, str(path)], check=True)
        assert bodies(await first.waiting(9)) == ["a", "b"]

    async def test_the_working_directory_may_change(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """A relative path is that of one file, also after the process has changed its working directory."""
        (tmp_path / "other").mkdir()
        monkeypatch.chdir(tmp_path)
        storage = SQLiteStorage("queue.sqlite")
        await storage.open()
        await storage.write(records("a"))
        monkeypatch.chdir(tmp_path / "other")
        await storage.write(records("b"))

        assert bodies(await storage.waiting(9)) == ["a", "b"]
        await storage.aclose()
        assert snapshot(tmp_path / "other") == {}
