"""
Processes that die, and disks that fail, at any step of a device's change: all of it is stored, or nothing.
"""

import asyncio
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from attrs import frozen
from helpers.clients import Configure, pending_data

from exponea_async import Configuration, Customer, Device, Event, Exponea, StorageError
from exponea_async.storage.sqlite.connection import QueueConnection

JANE = {"registered": "jane"}

#: Forks a process for each step, which dies before, or right after, the statement with that number.
DIE_AT_EACH_STEP = """
import asyncio, itertools, os, shutil, sqlite3, sys
from exponea_async import Configuration, Customer, Event, Exponea
from exponea_async.storage.sqlite.connection import QueueConnection
from exponea_async.devices.expirer import SessionExpirer
from exponea_async.testing import pending_records

SessionExpirer.start = lambda self: None  # its statements would count, too

def arm(step, after):
    steps = itertools.count(1)
    def dying(method):
        def run(connection, *arguments):
            number = next(steps)
            if number == step and not after:
                os._exit(9)
            result = method(connection, *arguments)
            if number == step:
                os._exit(9)
            return result
        return run
    for name in ("execute", "executemany"):
        setattr(QueueConnection, name, dying(getattr(sqlite3.Connection, name)))

async def act(path, verb, step, after):
    client = Exponea(Configuration(project_token="shop", authorization_token="key", base_url="http://127.0.0.1:9",
                                   storage=path, flush_mode="MANUAL"))
    await client.start()
    # Behind the statements of the start, which would count, too.
    await pending_records(client)
    device = client.device("old" if verb != "first" else "new")
    if verb != "first":
        await device.open()
    arm(step, after)
    if verb == "anonymize":
        await device.anonymize()
    elif verb == "identify":
        await device.identify_customer(Customer({"crm": "1"}))
    else:
        await device.track_event(Event("ping"))
    os._exit(0)

base, verb = sys.argv[1:]
for after in (False, True):
    for step in itertools.count(1):
        path = f"{base}-{verb}-{after}-{step}"
        shutil.copy(base, path)
        child = os.fork()
        if not child:
            asyncio.run(act(path, verb, step, after))
        if os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0:
            break
        print(path)
    print(path)
"""


@frozen
class Found:
    """
    What is found of a device after a crash.

    Attributes:
        events: The types of the events, and whether each carries the cookie from before.
        ids: The ids of its next event.
    """

    events: tuple[tuple[str, bool], ...]
    ids: dict[str, str]


async def inspect(settings: Configuration, key: str, before: int, cookie: str) -> Found:
    """Start a client, and return what it finds after the events from before."""
    async with Exponea(settings) as client:
        new = (await pending_data(client))[before:]
        await client.device(key).track_event(Event("probe"))
        probe = (await pending_data(client))[-1]
    events = tuple((data.get("event_type", "identify"), data["customer_ids"]["cookie"] == cookie) for data in new)
    return Found(events, probe["customer_ids"])


async def prepare(settings: Configuration) -> tuple[int, str]:
    """Create a file with a device that was used; return the number of its events and its cookie."""
    async with Exponea(settings) as client:
        device = client.device("old")
        await device.identify_customer(Customer(JANE))
        await device.handle_push_token("T")
        return len(await pending_data(client)), await device.get_customer_cookie()


FIVE = (
    ("session_end", True),
    ("notification_state", True),
    ("installation", False),
    ("session_start", False),
    ("notification_state", False),
)
ALL = {
    "anonymize": FIVE,
    "identify": (("identify", True),),
    "first": (("installation", False), ("session_start", False), ("ping", False)),
}


def check(verb: str, found: Found, cookie: str) -> bool:
    """Check that all of a change was found, or nothing; return whether it was."""
    whole = found.events == ALL[verb]
    assert whole or not found.events
    ids = {"cookie": found.ids["cookie"], **({} if verb == "first" else JANE)}
    if whole and verb == "anonymize":
        ids = {"cookie": ids["cookie"]}
    elif whole and verb == "identify":
        ids["crm"] = "1"
    assert found.ids == ids
    assert (found.ids["cookie"] == cookie) is (verb != "first" and not (whole and verb == "anonymize"))
    return whole


@pytest.mark.parametrize("verb", ALL)
async def test_killed_at_each_step(configure: Configure, tmp_path: Path, verb: str) -> None:
    """Wherever a process dies while it writes, the next one finds the whole change or nothing of it."""
    base = tmp_path / "base"
    before, cookie = await prepare(configure(flush_mode="MANUAL", storage=base))
    command = [sys.executable, "-c", DIE_AT_EACH_STEP, str(base), verb]
    done = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, check=True)

    results: dict[bool, list[bool]] = {False: [], True: []}
    for path in done.stdout.split():
        settings = configure(flush_mode="MANUAL", storage=Path(path))
        key = "new" if verb == "first" else "old"
        results["-True-" in path].append(check(verb, await inspect(settings, key, before, cookie), cookie))
    for each in results.values():
        assert len(each) > 5
        assert each == sorted(each)
    # The commit is one statement: right after it everything is stored, before it nothing is.
    assert sum(results[True]) > sum(results[False]) == 1


class Failing:
    """Makes one of SQLite's next statements fail, whichever call it belongs to."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.left = 0
        for name in ("execute", "executemany"):
            monkeypatch.setattr(QueueConnection, name, self._wrapped(getattr(sqlite3.Connection, name)), raising=False)

    def _wrapped(self, method: Any) -> Any:
        def run(connection: QueueConnection, sql: str, *arguments: Any) -> Any:
            if sql != "ROLLBACK" and self.left:
                self.left -= 1
                if not self.left:
                    raise sqlite3.OperationalError("disk I/O error")
            return method(connection, sql, *arguments)

        return run


async def change(device: Device, verb: str) -> None:
    """Change a device."""
    if verb == "anonymize":
        await device.anonymize()
    elif verb == "identify":
        await device.identify_customer(Customer({"crm": "1"}))
    else:
        await device.track_event(Event("ping"))


@pytest.mark.parametrize("verb", ALL)
async def test_a_disk_that_fails_at_each_step(
    configure: Configure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, verb: str
) -> None:
    """Whichever statement fails, the caller gets the error, nothing is recorded, and the same client works on."""
    base, refused = tmp_path / "base", 0
    before, cookie = await prepare(configure(flush_mode="MANUAL", storage=base))
    failing = Failing(monkeypatch)
    for step in range(1, 100):
        path = tmp_path / f"copy-{step}"
        shutil.copy(base, path)
        async with Exponea(configure(flush_mode="MANUAL", storage=path)) as client:
            device = client.device("new" if verb == "first" else "old")
            if verb != "first":
                await device.open()
            failing.left = step
            try:
                await change(device, verb)
            except StorageError:
                refused += 1
                assert len(await pending_data(client)) == before
                await change(device, verb)
            left, failing.left = failing.left, 0
            new = (await pending_data(client))[before:]
        events = [(data.get("event_type", "identify"), data["customer_ids"]["cookie"] == cookie) for data in new]
        assert events == list(ALL[verb])
        if left:
            break
    assert refused > 2
