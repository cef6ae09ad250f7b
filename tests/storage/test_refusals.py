"""
Full disks, locked files and read-only files.
"""

import asyncio
import sqlite3
import time
from collections.abc import Awaitable, Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
from helpers.queue_file import locked
from helpers.storages import (
    OpenFile,
    bodies,
    delivered,
    lease,
    record,
    records,
    write_dead,
)

from exponea_async.errors import StorageError
from exponea_async.storage.base import State, StateChange
from exponea_async.storage.sqlite.connection import QueueConnection


class TestRefusals:
    async def test_a_full_disk(self, open_file: OpenFile) -> None:
        """Callers whose transaction found no space each get an error, nothing is stored, and later calls succeed."""
        storage = await open_file()
        await storage.write(records("first"), [StateChange("k", b"v", 0)])
        await storage.run(lambda connection: limit_pages(connection, 0))
        (leased,) = await lease(storage)
        large = [record("x" * 900) for _ in range(40)]
        results = await asyncio.gather(
            storage.write(large, [StateChange("k", b"w", 1)]),
            *(storage.write(large) for _ in range(4)),
            return_exceptions=True,
        )

        assert all(isinstance(each, StorageError) and "Free some disk space" in str(each) for each in results)
        assert len(set(map(id, results))) == 5
        assert (await storage.pending()).waiting == 1
        assert await storage.load_state("k") == State(b"v", 1)
        await storage.run(lambda connection: limit_pages(connection, 1_000))
        assert len((await storage.write(large, [StateChange("k", b"w", 1)])).ids) == 40
        assert await storage.settle(delivered(leased.id)) == 1
        assert (await storage.pending()).waiting == 40

    @pytest.mark.parametrize("call", ["write", "settle", "lease", "revive", "purge"])
    async def test_a_locked_file(self, open_file: OpenFile, path: Path, call: str) -> None:
        """While another program holds the file, changes fail after a while, reads succeed, and later all calls do."""
        storage = await open_file(lock_timeout=0.05)
        await write_dead(storage, "dead")
        await storage.write(records("a", "b"))
        (leased,) = await lease(storage, 1)
        calls: dict[str, Callable[[], Coroutine[Any, Any, Any]]] = {
            "write": lambda: storage.write(records("c"), [StateChange("k", b"", 0)]),
            "settle": lambda: storage.settle(delivered(leased.id)),
            "lease": lambda: lease(storage),
            "revive": storage.revive,
            "purge": storage.purge,
        }
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StorageError, match=r"locked.*Another process"):
            await asyncio.wait_for(calls[call](), timeout=60)
        count = await storage.pending()
        assert (count.waiting, count.leased, count.dead) == (2, 1, 1)

        other.execute("ROLLBACK")
        other.close()
        await calls[call]()

    async def test_a_lock_that_is_held_briefly(self, open_file: OpenFile, path: Path) -> None:
        """A writer waits for another program's short transaction and is then served."""
        storage = await open_file(lock_timeout=30.0)
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        writer = asyncio.create_task(storage.write(records("a")))
        await asyncio.sleep(0.02)
        assert not writer.done()
        other.execute("ROLLBACK")
        other.close()

        assert len((await writer).ids) == 1

    async def test_many_callers_wait_at_the_same_time(self, open_file: OpenFile, path: Path) -> None:
        """Thousands of callers wait for a lock as long as one does, although they need many transactions."""
        storage = await open_file(lock_timeout=4.0)
        with locked(path):
            started = time.monotonic()
            calls = (storage.write(records(str(number))) for number in range(5_000))
            results = await asyncio.gather(*calls, return_exceptions=True)
            waited = time.monotonic() - started
        assert {type(each) for each in results} == {StorageError}
        # A transaction has at most 500 of them.
        assert 4.0 <= waited < 10 * 4.0 / 2

        await storage.write(records("after"))
        assert bodies(await storage.waiting(9)) == ["after"]

    async def test_each_caller_has_its_own_time(self, open_file: OpenFile, path: Path) -> None:
        """A caller that came later waits on when those before it have waited enough, and is then served."""
        storage = await open_file(lock_timeout=2.0)
        with locked(path):
            # More than one transaction takes, so that the rest of them shares one with the later caller.
            first = [asyncio.create_task(storage.write(records("first"))) for _ in range(600)]
            await asyncio.sleep(1.0)
            others = [
                asyncio.create_task(waited_for(call)) for call in (storage.write(records("later")), lease(storage))
            ]
            results = await asyncio.gather(*first, return_exceptions=True)
            assert {type(each) for each in results} == {StorageError}

        # On a machine that stops for a second, they may have waited enough, too, but not for less than the limit.
        waits = await asyncio.gather(*others)
        assert all(wait is None or wait >= 2.0 for wait in waits)
        assert bodies(await storage.waiting(9)) == ([] if waits[0] else ["later"])

    async def test_closing_while_the_file_is_locked(self, open_file: OpenFile, path: Path) -> None:
        """Closing with a time limit ends the wait of all calls, also of one that waits already."""
        storage = await open_file(lock_timeout=600.0)
        with locked(path):
            calls = [asyncio.create_task(storage.write(records(str(number)))) for number in range(2_000)]
            await asyncio.sleep(0.05)
            await asyncio.wait_for(storage.aclose(0.1), 60)
            results = await asyncio.gather(*calls, return_exceptions=True)
        assert {type(each) for each in results} == {StorageError}

        await storage.open()
        assert (await storage.write(records("again"))).ids

    async def test_a_read_only_file(self, open_file: OpenFile) -> None:
        """A read-only file refuses writes with a hint, can be read, and can be written once it is writable."""
        storage = await open_file()
        await storage.write(records("a"))
        await storage.run(lambda connection: connection.execute("PRAGMA query_only = ON"))
        with pytest.raises(StorageError, match=r"readonly.*right to write"):
            await storage.write(records("b"))
        assert bodies(await storage.waiting(9)) == ["a"]

        await storage.run(lambda connection: connection.execute("PRAGMA query_only = OFF"))
        await storage.write(records("c"))
        assert bodies(await lease(storage)) == ["a", "c"]

    async def test_the_cause_of_an_error(self, open_file: OpenFile) -> None:
        """SQLite's error is the cause of the error that a caller gets."""
        storage = await open_file()
        await storage.run(lambda connection: connection.execute("PRAGMA query_only = ON"))
        results = await asyncio.gather(*(storage.write(records("b")) for _ in range(3)), return_exceptions=True)

        assert {type(each.__cause__) for each in results if isinstance(each, StorageError)} == {
            sqlite3.OperationalError
        }


async def waited_for(call: Awaitable[object]) -> float | None:
    """Return how long a call has waited before it was refused, in seconds; None if it was served."""
    started = time.monotonic()
    try:
        await call
    except StorageError:
        return time.monotonic() - started
    return None


def limit_pages(connection: QueueConnection, more: int) -> None:
    """Let the file grow by this many pages and no more."""
    (pages,) = connection.execute("PRAGMA page_count").fetchone()
    connection.execute(f"PRAGMA max_page_count = {pages + more}")
