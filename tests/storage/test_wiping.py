"""
Deleting everything: what goes and what stays, with readers, full disks, interruptions and other processes in the way.
"""

import asyncio
import os
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from helpers.clients import Configure, Connect
from helpers.environment import SetConstants
from helpers.queue_file import locked
from helpers.storages import OpenFile, bodies, content, dead, delivered, files, ids, lease, names_in, record, records

from exponea_async import Exponea, LifecycleError
from exponea_async.errors import StorageError, WipedFileError
from exponea_async.storage.base import StateChange
from exponea_async.storage.sqlite.storage import SQLiteStorage

SECRET = "jane@example.com"


async def fill(storage: SQLiteStorage) -> None:
    stored = await storage.load_state(SECRET)
    change = StateChange(SECRET, SECRET.encode(), stored.version if stored else 0)
    await storage.write([record(SECRET * 99) for _ in range(300)], [change])


def traces(folder: Path) -> list[str]:
    """Return the names of the files in which the secret is."""
    return [path.name for path in sorted(folder.iterdir()) if path.is_file() and SECRET.encode() in content(path)]


class TestWhatGoes:
    LEFTOVERS = (
        "queue.sqlite.damaged-20260101T000000-17",
        "queue.sqlite.damaged-20260101T000000-17-1",
        "queue.sqlite.damaged-20260101T000000-17-wal",
        "queue.sqlite.damaged-20260101T000000-17-1-shm",
    )
    FOREIGN = (
        "queue.sqlite.damaged-notes.txt",
        "queue.sqlite.damaged-20260101T000000-17.gz",
        "other.sqlite.damaged-20260101T000000-17",
        "queue.sqlite.bak",
        "orders.csv",
        "orders.csv.journal",
        "orders.csv.bad.jsonl",
        "list.journal",
    )

    async def test_copies_of_damaged_files(self, open_file: OpenFile, path: Path) -> None:
        """Copies of damaged files go with the queue; files that look similar, and those of other queues, stay."""
        storage = await open_file()
        for name in (*self.LEFTOVERS, *self.FOREIGN):
            path.with_name(name).write_text(f"{SECRET}\n")
        await storage.wipe()

        assert names_in(path.parent) & {*self.LEFTOVERS, *self.FOREIGN} == {*self.FOREIGN}

    async def test_files_of_imports(self, open_file: OpenFile, path: Path) -> None:
        """Journals and files of invalid lines that an import has left beside the queue go."""
        await (await open_file()).aclose()
        own = {
            "a.csv.journal": '{"version": 1, "about": {"file": {}}, "place": {"offset": 3}}\n',
            "a.csv.journal.new": '{"version": 1, "about": {}, "place": {}}\n',
            "a.csv.bad.jsonl": f'{{"line": 1, "reason": "no email", "text": "{SECRET}"}}\n{{"line"',
        }
        for name, text in own.items():
            path.with_name(name).write_text(text)
        await SQLiteStorage(path).wipe()

        assert not names_in(path.parent) & own.keys()

    async def test_links_and_folders_stay(self, open_file: OpenFile, path: Path) -> None:
        """A link or a folder with the name of a copy is not one."""
        storage = await open_file()
        target = path.with_name("target")
        make_link_and_folder(path, target)
        await storage.wipe()

        assert content(target) == b"of somebody"
        assert {*self.LEFTOVERS[:2]} <= names_in(path.parent)

    async def test_nothing_is_created(self, tmp_path: Path) -> None:
        """Where there is no queue, and where there is no folder, nothing is created."""
        await SQLiteStorage(tmp_path / "queue.sqlite").wipe()
        await SQLiteStorage(tmp_path / "missing" / "queue.sqlite").wipe()

        assert names_in(tmp_path) == set()

    @pytest.mark.parametrize("name", ["queue.sqlite", "queue.sqlite.exponea-wiped"])
    async def test_a_foreign_file_stays(self, tmp_path: Path, name: str) -> None:
        """What is not a queue is not wiped."""
        foreign = tmp_path / name
        foreign.write_bytes(b"id,email\n" * 1_000)
        with pytest.raises(StorageError, match="not a queue"):
            await SQLiteStorage(tmp_path / "queue.sqlite").wipe()

        assert content(foreign) == b"id,email\n" * 1_000
        assert names_in(tmp_path) == {name}


def make_link_and_folder(path: Path, target: Path) -> None:
    target.write_bytes(b"of somebody")
    path.with_name(TestWhatGoes.LEFTOVERS[0]).symlink_to(target)
    path.with_name(TestWhatGoes.LEFTOVERS[1]).mkdir()


class TestTraces:
    async def test_what_was_delivered(self, open_file: OpenFile, path: Path) -> None:
        """Neither delivered records, purged dead letters nor former states leave bytes in the file."""
        storage = await open_file()
        await fill(storage)
        await storage.settle(delivered(*ids(await lease(storage, 200))))
        await storage.settle(dead(*ids(await lease(storage, 200))))
        await storage.purge()
        state = await storage.load_state(SECRET)
        assert state
        await storage.write([], [StateChange(SECRET, None, state.version)])
        await storage.aclose()

        assert traces(path.parent) == []


class TestDifficulties:
    async def test_a_reader(self, open_file: OpenFile, path: Path) -> None:
        """While another program reads the file, all data goes, that in the write-ahead log too."""
        storage = await open_file()
        await fill(storage)
        with closing(sqlite3.connect(path, isolation_level=None)) as reader:
            reader.execute("BEGIN")
            assert reader.execute("SELECT count(*) FROM record").fetchone() == (300,)
            await fill(await open_file())
            assert traces(path.parent)
            await storage.wipe()

            assert traces(path.parent) == []
        await storage.write(records("a"))
        assert bodies(await storage.waiting(9)) == ["a"]

    async def test_a_writer(self, open_file: OpenFile, path: Path) -> None:
        """A program that has locked the file does not keep the data."""
        storage = await open_file(lock_timeout=0.05)
        await fill(storage)
        await storage.aclose()
        with locked(path):
            await storage.wipe()
            assert traces(path.parent) == []

    async def test_a_damaged_file(self, open_file: OpenFile, path: Path) -> None:
        """A file that cannot be read can be wiped."""
        storage = await open_file()
        await fill(storage)
        await storage.aclose()
        overwrite(path)
        await storage.wipe()

        assert traces(path.parent) == []
        await storage.open()
        assert (await storage.pending()).waiting == 0

    async def test_a_full_disk(self, path: Path) -> None:
        """Where the system gives no space, all data goes, and the new file is created at the next start."""
        path.parent.mkdir()
        output = await run_script(FULL_DISK, path)
        assert "all were deleted" in output
        assert "stopped True" in output
        assert traces(path.parent) == []
        assert names_in(path.parent) == {"queue.sqlite", "queue.sqlite.exponea-wiped"}

        storage = SQLiteStorage(path)
        await storage.open()
        await storage.write(records("a"))
        assert bodies(await storage.waiting(9)) == ["a"]
        await storage.aclose()
        assert names_in(path.parent) == {"queue.sqlite"}

    @pytest.mark.parametrize("emptied", [True, False])
    async def test_an_interrupted_wipe(self, open_file: OpenFile, path: Path, *, emptied: bool) -> None:
        """A wipe that was interrupted after the file was renamed is finished before anything else."""
        storage = await open_file()
        await fill(storage)
        await storage.run(lambda connection: connection.execute("PRAGMA wal_checkpoint").fetchall())
        await fill(await open_file())
        left = [content(each) for each in files(path)]
        await storage.aclose()
        interrupt(path, left, emptied=emptied)

        again = await open_file()
        assert ((await again.pending()).waiting, await again.load_state(SECRET)) == (0, None)
        assert traces(path.parent) == []
        assert "queue.sqlite.exponea-wiped" not in names_in(path.parent)

    async def test_data_that_cannot_be_erased(self, open_file: OpenFile, path: Path) -> None:
        """If the system does not even empty the file, the error says so, and the data is not used but erased later."""
        storage = await open_file()
        await fill(storage)
        await storage.aclose()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(os, "truncate", refuse)
            for attempt in (storage.wipe, storage.wipe, storage.open):
                with pytest.raises(StorageError, match=r"can't be erased yet.*at the next start before anything else"):
                    await attempt()
            assert traces(path.parent) == ["queue.sqlite.exponea-wiped"]

        await storage.open()
        assert ((await storage.pending()).waiting, traces(path.parent)) == (0, [])

    async def test_killed_processes(self, path: Path) -> None:
        """Wherever a process is killed, what it has wiped is gone, and the queue works at the next start."""
        path.parent.mkdir()
        for delay in range(6):
            process = other_process(WIPE_FOREVER, path)
            assert process.stdout
            lines = [await asyncio.to_thread(process.stdout.readline) for _ in range(3)]
            await asyncio.sleep(delay * 0.005)
            process.kill()
            rest, _ = await asyncio.to_thread(process.communicate)
            wiped = [line.split()[1] for line in [*lines, *rest.splitlines(keepends=True)] if line.endswith("\n")]

            storage = SQLiteStorage(path)
            await storage.open()
            assert not {*bodies(await storage.waiting(9))} & {*wiped}
            await storage.aclose()
            assert names_in(path.parent) == {"queue.sqlite"}
            assert not [body for body in wiped if body.encode() in content(path)]


def refuse(*_: Any) -> None:
    raise OSError(28, "No space left on device")


def overwrite(path: Path) -> None:
    size = path.stat().st_size
    with path.open("r+b") as file:
        file.seek(104)
        file.write(b"\xa5" * 20_000)
    assert path.stat().st_size == size


def interrupt(path: Path, left: list[bytes], *, emptied: bool) -> None:
    """Leave the files as a wipe does whose process dies after the renaming."""
    path.unlink()
    Path(f"{path}.exponea-wiped").write_bytes(b"" if emptied else left[0])
    for each, data in zip(files(path)[1:], left[1:], strict=True):
        each.write_bytes(data)


#: Stops a client with 902 events while no file may be written.
FULL_DISK = """
import asyncio, logging, resource, sys
from exponea_async import Configuration, Event, Exponea

async def main(path):
    logging.basicConfig(stream=sys.stdout)
    settings = Configuration(project_token="p", authorization_token="k", storage=path, flush_mode="MANUAL")
    async with Exponea(settings) as client:
        device = client.for_customer({"registered": "jane@example.com"})
        await asyncio.gather(*(device.track_event(Event("ping")) for _ in range(902)))
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))
        await client.stop_integration()
        print("stopped", client.is_stopped)

asyncio.run(main(sys.argv[1]))
"""

#: Writes and wipes until it is killed, and reports what it has wiped.
WIPE_FOREVER = """
import asyncio, itertools, os, sys
from exponea_async.storage.base import Record
from exponea_async.storage.sqlite.storage import SQLiteStorage

async def main(path):
    storage = SQLiteStorage(path, lock_timeout=60.0)
    await storage.open()
    print("open", flush=True)
    for number in itertools.count():
        body = f"record-{os.getpid()}-{number}-end"
        await storage.write([Record("shop", body.encode(), 1.0)])
        await storage.wipe()
        print("wiped", body, flush=True)

asyncio.run(main(sys.argv[1]))
"""

#: Keeps a client open until its input ends.
CLIENT = """
import asyncio, sys
from exponea_async import Configuration, Event, Exponea, QueueSettings

async def main(path):
    settings = Configuration(project_token="p", authorization_token="k", storage=path, flush_mode="MANUAL",
                             queue=QueueSettings(lock_timeout=60.0))
    async with Exponea(settings) as client:
        await client.track_event(Event("ping"))
        print("open", flush=True)
        await asyncio.to_thread(sys.stdin.read)

asyncio.run(main(sys.argv[1]))
"""


async def run_script(script: str, path: Path) -> str:
    """Run a script with a path, and return what it prints."""
    command = [sys.executable, "-c", script, str(path)]
    done = await asyncio.to_thread(subprocess.run, command, check=True, stdout=subprocess.PIPE, text=True, timeout=60)
    return done.stdout


class TestOtherClients:
    async def test_they_must_be_opened_again(self, open_file: OpenFile, path: Path) -> None:
        """A client of a queue that another one wipes stores nothing more until it is opened again."""
        reported: list[StorageError] = []
        one, two = await open_file(), await open_file(report=reported.append)
        await two.write(records("a", "b"), [StateChange("k", b"v", 0)])
        leased = await lease(two, 1)
        await one.wipe()

        for _ in range(2):
            with pytest.raises(WipedFileError, match="deleted by another process") as refused:
                await two.write(records("c"))
            assert not refused.value.retryable
        assert await two.settle(delivered(*ids(leased))) == 0
        assert {type(each) for each in reported} == {WipedFileError}
        assert (await one.waiting(9), traces(path.parent)) == ([], [])
        await two.aclose()
        await two.open()
        await two.write(records("d"))
        assert bodies(await one.waiting(9)) == ["d"]

    async def test_they_notice_it_when_they_read(self, open_file: OpenFile) -> None:
        """Reading a file that another client has wiped says so, whether SQLite returns old data or an error."""
        one, two, three = await open_file(), await open_file(), await open_file()
        await fill(one)
        assert await two.load_state(SECRET)
        await one.wipe()

        for storage in (two, three):
            for _ in range(2):
                with pytest.raises(WipedFileError):
                    await storage.load_state(SECRET)

    async def test_a_client_opens_in_the_middle(self, open_file: OpenFile, path: Path) -> None:
        """Clients that are opened while others wipe find a queue that works, and no process waits for another."""
        await fill(await open_file())

        async def open_and_write(number: int) -> None:
            storage = SQLiteStorage(path)
            await storage.open()
            try:
                await storage.write(records(str(number)))
            except WipedFileError:
                await storage.aclose()
                return
            await storage.aclose()

        wipes = [SQLiteStorage(path).wipe() for _ in range(5)]
        await asyncio.gather(*(open_and_write(number) for number in range(10)), *wipes)

        assert traces(path.parent) == []
        await (await open_file()).write(records("a"))

    @pytest.mark.parametrize("program", ["client", "reader"])
    async def test_clearing_a_file_that_is_open(self, configure: Configure, tmp_path: Path, program: str) -> None:
        """``clear_local_customer_data()`` refuses a file that another process has open, and nothing is deleted."""
        async with Exponea(configure(flush_mode="MANUAL")) as client:
            cookie = await client.get_customer_cookie()
        with other_process(CLIENT if program == "client" else READER, tmp_path / "queue.sqlite") as process:
            with pytest.raises(LifecycleError, match="open in another process"):
                await Exponea.clear_local_customer_data(configure())
            process.communicate("")

        async with Exponea(configure(flush_mode="MANUAL")) as client:
            assert await client.get_customer_cookie() == cookie
        await Exponea.clear_local_customer_data(configure())
        async with Exponea(configure(flush_mode="MANUAL")) as client:
            assert await client.get_customer_cookie() != cookie

    async def test_a_fork_during_a_wipe(self, path: Path) -> None:
        """A fork waits for a thread that wipes; the child has no lock of it, and opens the queue itself."""
        path.parent.mkdir()
        assert await run_script(FORK_DURING_WIPE, path) == "parent opened\nchild opened\nparent opened\n"

    async def test_a_process_that_only_tracks(self, connect: Connect, tmp_path: Path) -> None:
        """A process that notices by itself that another one was stopped stops, and drops its events."""
        client = await connect(device=True)
        with other_process(TRACK_UNTIL_STOPPED, tmp_path / "queue.sqlite") as process:
            await client.stop_integration()
            output, _ = await asyncio.to_thread(process.communicate)

        assert output == "stopped dropped\n"


#: Forks while another thread is in the middle of a wipe.
FORK_DURING_WIPE = """
import asyncio, os, sys, threading
from exponea_async.storage.sqlite.storage import SQLiteStorage

async def use(path, name):
    storage = SQLiteStorage(path)
    await storage.open()
    await storage.wipe()
    await storage.aclose()
    os.write(1, f"{name} opened\\n".encode())

def main(path):
    asyncio.run(use(path, "parent"))
    wiping, forked = threading.Event(), threading.Event()
    thread = threading.Thread(target=asyncio.run, args=(SQLiteStorage(path).wipe(),))

    def pause(event, args):
        if event == "open" and str(args[0]) == path and not wiping.is_set():
            wiping.set()
            forked.wait()

    sys.addaudithook(pause)
    thread.start()
    wiping.wait()
    from_parent, to_child = os.pipe()
    from_child, to_parent = os.pipe()
    # The wipe goes on when the fork has begun.
    threading.Timer(0.5, forked.set).start()
    child = os.fork()
    assert forked.is_set()
    if child == 0:
        os.read(from_parent, 1)
        asyncio.run(use(path, "child"))
        os.write(to_parent, b"1")
        # It lives on, with all that it has inherited.
        os.read(from_parent, 1)
        os._exit(0)
    thread.join()
    os.write(to_child, b"1")
    os.read(from_child, 1)
    asyncio.run(use(path, "parent"))
    os.write(to_child, b"1")
    os.waitpid(child, 0)

main(sys.argv[1])
"""

#: Tracks nothing, until it notices that another client was stopped.
TRACK_UNTIL_STOPPED = """
import asyncio, sys
from exponea_async import Configuration, Event, Exponea, QueueSettings

async def main(path):
    settings = Configuration(project_token="p", authorization_token="k", storage=path, base_url="http://127.0.0.1:9",
                             queue=QueueSettings(lock_timeout=60.0))
    async with Exponea(settings) as client:
        print("open", flush=True)
        while not client.is_stopped:
            await asyncio.sleep(0.01)
        print("stopped", (await client.track_event(Event("ping"))).status)

asyncio.run(main(sys.argv[1]))
"""

#: Reads a file once, and keeps it open until its input ends.
READER = """
import sqlite3, sys
db = sqlite3.connect(sys.argv[1])
db.execute("SELECT count(*) FROM record").fetchall()
print("open", flush=True)
sys.stdin.read()
"""


def other_process(script: str, path: Path) -> "subprocess.Popen[str]":
    """Start a script that opens a file, and wait until it has."""
    process = subprocess.Popen(
        [sys.executable, "-c", script, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout
    assert process.stdout.readline() == "open\n"
    return process


class TestTheEventLoop:
    CALLS = (
        "stat",
        "lstat",
        "open",
        "scandir",
        "listdir",
        "mkdir",
        "rename",
        "truncate",
        "unlink",
        "chmod",
        "readlink",
    )

    async def test_it_makes_no_file_call(
        self, configure: Configure, tmp_path: Path, set_constants: SetConstants
    ) -> None:
        """A client's life, its stop and a clearing make all of their file calls on other threads."""
        loop_thread = threading.get_ident()
        seen: dict[bool, set[str]] = {True: set(), False: set()}

        def traced(name: str, call: Callable[..., Any]) -> Callable[..., Any]:
            def run(*args: Any, **options: Any) -> Any:
                if any(str(tmp_path) in str(argument) for argument in args):
                    seen[threading.get_ident() == loop_thread].add(name)
                return call(*args, **options)

            return run

        set_constants(os, **{name: traced(name, getattr(os, name)) for name in self.CALLS})
        settings = configure(flush_mode="MANUAL")
        async with Exponea(settings) as client:
            await client.get_customer_cookie()
            await client.stop_integration()
            await client.start()
        await Exponea.clear_local_customer_data(settings)

        assert {"lstat", "open", "scandir", "rename", "truncate", "unlink"} <= seen[False]
        assert seen[True] == set()
