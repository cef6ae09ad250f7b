"""
No call of a client accesses files in the event loop's thread: with a disk that stalls, the loop would hang.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from helpers.clients import Configure

from exponea_async import Customer, Event, Exponea
from exponea_async.sandbox import Sandbox

#: Functions of the system's module that access files.
FILE_CALLS = frozenset(
    [
        "access",
        "chmod",
        "chown",
        "fdatasync",
        "fsync",
        "ftruncate",
        "link",
        "listdir",
        "lstat",
        "mkdir",
        "open",
        "pread",
        "pwrite",
        "read",
        "readlink",
        "remove",
        "rename",
        "replace",
        "rmdir",
        "scandir",
        "stat",
        "statvfs",
        "symlink",
        "truncate",
        "unlink",
        "utime",
        "write",
    ]
)


@contextmanager
def traced_file_calls() -> Iterator[list[str]]:
    """Collect the calls that access files in this thread within the block, but for those of the import system."""
    found: list[str] = []

    def trace(frame: FrameType, kind: str, function: Any) -> None:
        if kind != "c_call":
            return
        module, name = getattr(function, "__module__", None), getattr(function, "__name__", "")
        is_file = (module in ("posix", "nt") and name in FILE_CALLS) or (module in ("io", "_io") and name == "open")
        if (is_file or module in ("sqlite3", "_sqlite3")) and "importlib" not in frame.f_code.co_filename:
            found.append(f"{name} in {frame.f_code.co_filename}:{frame.f_lineno}")

    sys.setprofile(trace)
    try:
        yield found
    finally:
        sys.setprofile(None)


def test_the_trace_finds_file_calls(tmp_path: Path) -> None:
    """The trace shows each kind of access that the package uses."""
    with traced_file_calls() as found:
        tmp_path.joinpath("a").write_text("a")
        tmp_path.joinpath("a").exists()
        tmp_path.resolve()

    assert {"open", "stat", "lstat"} <= {each.partition(" ")[0] for each in found}


async def test_all_calls_of_a_client(configure: Configure, sandbox: Sandbox, tmp_path: Path) -> None:
    """Neither starting, tracking, uploading, closing nor deleting access a file in the event loop's thread."""
    path = tmp_path / "new" / "queue.sqlite"
    settings = configure(storage=path)
    # What is imported at first use is imported now.
    async with Exponea(settings) as client:
        await client.track_event(Event("ping"))
        await client.flush_data(60)
    await Exponea.clear_local_customer_data(settings)

    with traced_file_calls() as found:
        async with Exponea(settings) as client:
            await client.identify_customer(Customer({"registered": "jane@example.com"}))
            await client.track_many([Event("ping")] * 500)
            await client.flush_data(60)
            await client.anonymize()
            await client.stop_integration()
            await client.start()
            await client.track_event(Event("ping"))
        await Exponea.clear_local_customer_data(settings)

    assert found == []
    assert len(sandbox.engine.events(event_type="ping")) >= 501
