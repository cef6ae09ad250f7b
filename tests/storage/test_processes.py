"""
Several processes on one file, and the contents of a file after its process was killed.
"""

import asyncio
import subprocess
import sys
from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from helpers.storages import (
    OpenFile,
    bodies,
)


def run(script: str, *arguments: str, **settings: Any) -> "subprocess.Popen[str]":
    """Start a script in a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-c", START + script, *arguments], stdout=subprocess.PIPE, text=True, **settings
    )


START = """
import asyncio, os, resource, sys, time
from exponea_async.errors import StorageError
from exponea_async.storage.base import Record, Settlement
from exponea_async.storage.sqlite.storage import SQLiteStorage

def report(*words):
    os.write(1, (" ".join(words) + "\\n").encode())

async def write(storage, body):
    written = await storage.write([Record("shop", body.encode(), time.time())])
    report("wrote", body)
"""

#: Writes and leases at the same time, and reports both.
SHARE = """
async def upload(storage, name):
    leased = await storage.lease(7, 60, time.time())
    for each in leased:
        report("leased", each.body.decode())
    await storage.settle([Settlement(tuple(each.id for each in leased), "delivered")])

async def main(path, name):
    storage = SQLiteStorage(path, lock_timeout=60.0)
    await storage.open()
    for step in range(20):
        await asyncio.gather(*(write(storage, f"{name}-{step}-{n}") for n in range(10)), upload(storage, name))
    await storage.aclose()

asyncio.run(main(*sys.argv[1:]))
"""

#: Reserves requests of a shared rate limit, and reports the waits.
RESERVE = """
async def main(path):
    storage = SQLiteStorage(path, lock_timeout=60.0)
    await storage.open()
    for _ in range(20):
        report("waits", str(await storage.reserve("address", 1, 0.02)))
    await storage.aclose()

asyncio.run(main(*sys.argv[1:]))
"""

#: Writes until it is killed.
WRITE = """
async def caller(storage, name):
    for step in range(1_000_000):
        await write(storage, f"{name}-{step}")

async def main(path, durability):
    storage = SQLiteStorage(path, durability=durability, lock_timeout=60.0)
    await storage.open()
    await asyncio.gather(*(caller(storage, name) for name in range(20)))

asyncio.run(main(*sys.argv[1:]))
"""

#: Writes until the system lets the file grow no further, and again once it does.
FILL = """
async def main(path):
    storage = SQLiteStorage(path, lock_timeout=60.0)
    await storage.open()
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, resource.RLIM_INFINITY))
    results = await asyncio.gather(*(write(storage, f"{n}-" + "x" * 900) for n in range(1_500)), return_exceptions=True)
    report("refused", *{type(each).__name__ for each in results if each})
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)
    await write(storage, "after")
    await storage.aclose()

asyncio.run(main(*sys.argv[1:]))
"""

#: Does not close the storage.
FORGET = """
async def main(path):
    storage = SQLiteStorage(path, lock_timeout=60.0)
    await storage.open()
    await write(storage, "a")
    return storage

kept = asyncio.run(main(*sys.argv[1:]))
"""


def reported(lines: Iterable[str], word: str) -> list[str]:
    return [line.split()[1] for line in lines if line.startswith(word) and line.endswith("\n")]


class TestProcesses:
    async def test_three_processes_on_one_file(self, open_file: OpenFile, path: Path) -> None:
        """Processes that create, fill and empty one file together lose no record and lease none twice."""
        processes = [run(SHARE, str(path), name) for name in "abc"]
        outputs = [await asyncio.to_thread(process.communicate) for process in processes]
        lines = [line for output, _ in outputs for line in output.splitlines(keepends=True)]

        assert [process.returncode for process in processes] == [0, 0, 0]
        storage = await open_file()
        left = bodies(await storage.waiting(10_000))
        leased = reported(lines, "leased")
        assert len(reported(lines, "wrote")) == 600
        assert sorted([*leased, *left]) == sorted(reported(lines, "wrote"))
        assert (await storage.pending()).waiting == len(left)

    async def test_a_shared_rate_limit(self, path: Path) -> None:
        """Requests that several processes reserve at the same time have turns of their own."""
        processes = [run(RESERVE, str(path)) for _ in range(3)]
        outputs = [await asyncio.to_thread(process.communicate) for process in processes]
        lines = [line for output, _ in outputs for line in output.splitlines(keepends=True)]
        waits = sorted(map(float, reported(lines, "waits")))

        assert len(waits) == 60
        assert waits[0] == 0.0
        assert all(later - earlier > 25.0 for earlier, later in pairwise(waits))

    @pytest.mark.parametrize("durability", ["process", "power"])
    async def test_a_killed_process(self, open_file: OpenFile, path: Path, durability: str) -> None:
        """All records that were acknowledged before a process was killed are in the file."""
        process = run(WRITE, str(path), durability)
        assert process.stdout
        lines = [await asyncio.to_thread(process.stdout.readline) for _ in range(400)]
        process.kill()
        rest, _ = await asyncio.to_thread(process.communicate)

        kept = bodies(await (await open_file()).waiting(1_000_000))
        acknowledged = reported([*lines, *rest.splitlines(keepends=True)], "wrote")
        assert len(acknowledged) >= 400
        assert set(acknowledged) <= set(kept)
        assert len(set(kept)) == len(kept)

    async def test_an_unclosed_storage(self, path: Path) -> None:
        """A process that never closes its storage can exit, and what it wrote is there."""
        process = run(FORGET, str(path), stderr=subprocess.PIPE)
        output, _ = await asyncio.to_thread(process.communicate, timeout=60)

        assert process.returncode == 0
        assert output == "wrote a\n"

    async def test_a_full_disk(self, open_file: OpenFile, path: Path) -> None:
        """Where the system lets a file grow no further, callers get an error, and what was acknowledged is there."""
        process = run(FILL, str(path))
        output, _ = await asyncio.to_thread(process.communicate)
        lines = output.splitlines(keepends=True)

        assert process.returncode == 0
        assert reported(lines, "refused") == ["StorageError"]
        wrote = reported(lines, "wrote")
        assert 0 < len(wrote) < 1_501
        assert wrote[-1] == "after"
        assert sorted(bodies(await (await open_file()).waiting(10_000))) == sorted(wrote)
