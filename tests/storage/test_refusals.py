"""
Disks that are full, files that are locked or can only be read.
"""

import asyncio
import sqlite3
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
from stores import (
    OpenFile,
    bodies,
    bury,
    delivered,
    file_opener,  # noqa: F401 - a fixture
    file_path,  # noqa: F401 - a fixture
    on_thread,
    record,
    records,
    take,
)

from exponea_async.errors import StorageError
from exponea_async.storage.base import State, StateChange
from exponea_async.storage.sqlite.connection import QueueConnection


class TestRefusals:
    async def test_a_full_file(self, open_file: OpenFile) -> None:
        """Callers of a transaction that found no space each get an error; nothing of it is kept, and it goes on."""
        storage = await open_file()
        await storage.write(records("first"), [StateChange("k", b"v", 0)])
        await on_thread(storage, lambda ledger: limit_pages(ledger, 0))
        (held,) = await take(storage)
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
        await on_thread(storage, lambda ledger: limit_pages(ledger, 1_000))
        assert len((await storage.write(large, [StateChange("k", b"w", 1)])).ids) == 40
        assert await storage.settle(delivered(held.id)) == 1
        assert (await storage.pending()).waiting == 40

    @pytest.mark.parametrize("call", ["write", "settle", "lease", "revive", "purge", "wipe"])
    async def test_a_locked_file(self, open_file: OpenFile, path: Path, call: str) -> None:
        """While another program holds the file, changes fail after a while; looking works; then all goes on."""
        storage = await open_file(lock_timeout=0.05)
        await bury(storage, "dead")
        await storage.write(records("a", "b"))
        (held,) = await take(storage, 1)
        calls: dict[str, Callable[[], Coroutine[Any, Any, Any]]] = {
            "write": lambda: storage.write(records("c"), [StateChange("k", b"", 0)]),
            "settle": lambda: storage.settle(delivered(held.id)),
            "lease": lambda: take(storage),
            "revive": storage.revive,
            "purge": storage.purge,
            "wipe": storage.wipe,
        }
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StorageError, match=r"locked.*Another process"):
            await asyncio.wait_for(calls[call](), timeout=30)
        count = await storage.pending()
        assert (count.waiting, count.leased, count.dead) == (2, 1, 1)

        other.execute("ROLLBACK")
        other.close()
        await calls[call]()

    async def test_a_lock_that_is_held_briefly(self, open_file: OpenFile, path: Path) -> None:
        """A writer waits for another program's short transaction and is then written."""
        storage = await open_file(lock_timeout=30.0)
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        writer = asyncio.create_task(storage.write(records("a")))
        await asyncio.sleep(0.02)
        assert not writer.done()
        other.execute("ROLLBACK")
        other.close()

        assert len((await writer).ids) == 1

    async def test_a_read_only_file(self, open_file: OpenFile) -> None:
        """A file that can only be read refuses writers with a hint, can be looked at, and goes on later."""
        storage = await open_file()
        await storage.write(records("a"))
        await on_thread(storage, lambda ledger: ledger.execute("PRAGMA query_only = ON"))
        with pytest.raises(StorageError, match=r"readonly.*right to write"):
            await storage.write(records("b"))
        assert bodies(await storage.waiting(9)) == ["a"]

        await on_thread(storage, lambda ledger: ledger.execute("PRAGMA query_only = OFF"))
        await storage.write(records("c"))
        assert bodies(await take(storage)) == ["a", "c"]

    async def test_errors_keep_their_cause(self, open_file: OpenFile) -> None:
        """What SQLite said is the cause of the error that a caller gets."""
        storage = await open_file()
        await on_thread(storage, lambda ledger: ledger.execute("PRAGMA query_only = ON"))
        results = await asyncio.gather(*(storage.write(records("b")) for _ in range(3)), return_exceptions=True)

        assert {type(each.__cause__) for each in results if isinstance(each, StorageError)} == {
            sqlite3.OperationalError
        }


def limit_pages(ledger: QueueConnection, more: int) -> None:
    """Let the file grow by so many pages and no more."""
    (pages,) = ledger.execute("PRAGMA page_count").fetchone()
    ledger.execute(f"PRAGMA max_page_count = {pages + more}")
