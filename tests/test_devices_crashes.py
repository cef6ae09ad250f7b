"""
Devices whose process dies, or whose disk fails, at any step of a change: all of it is there afterwards, or none.
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
from helpers.clients import Configure, kept

from exponea_async import Configuration, Customer, Device, Event, Exponea, StorageError
from exponea_async.storage.sqlite.connection import QueueConnection

JANE = {"registered": "jane"}

#: Each step is one process, forked from this one: it dies before, or right after, the statement of that number.
DIE_AT_EACH_STEP = """
import asyncio, itertools, os, shutil, sqlite3, sys
from exponea_async import Configuration, Customer, Event, Exponea
from exponea_async.storage.sqlite.connection import QueueConnection
from exponea_async.devices.expirer import SessionExpirer

SessionExpirer.start = lambda self: None  # it would make steps of its own

def arm(step, after):
    steps = itertools.count(1)
    def deadly(method):
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
        setattr(QueueConnection, name, deadly(getattr(sqlite3.Connection, name)))

async def live(path, verb, step, after):
    client = Exponea(Configuration(project_token="shop", authorization_token="key", base_url="http://127.0.0.1:9",
                                   storage=path, flush_mode="MANUAL"))
    await client.start()
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
            asyncio.run(live(path, verb, step, after))
        if os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0:
            break
        print(path)
    print(path)
"""


@frozen
class Found:
    """
    What a device is found with after a crash.

    Attributes:
        told: The events' types and whether each carries the cookie from before.
        ids: The ids that its next event carries.
    """

    told: tuple[tuple[str, bool], ...]
    ids: dict[str, str]


async def look(settings: Configuration, key: str, before: int, cookie: str) -> Found:
    """Start a client anew and see what it finds, past the events from before."""
    async with Exponea(settings) as client:
        new = (await kept(client))[before:]
        await client.device(key).track_event(Event("probe"))
        probe = (await kept(client))[-1]
    told = tuple((data.get("event_type", "identify"), data["customer_ids"]["cookie"] == cookie) for data in new)
    return Found(told, probe["customer_ids"])


async def prepare(settings: Configuration) -> tuple[int, str]:
    """Make a file with a device that has been used; tells how many events wait in it, and its cookie."""
    async with Exponea(settings) as client:
        device = client.device("old")
        await device.identify_customer(Customer(JANE))
        await device.handle_push_token("T")
        return len(await kept(client)), await device.get_customer_cookie()


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
    """Make sure that all of a change was found, or none; tells which."""
    whole = found.told == ALL[verb]
    assert whole or not found.told
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
    """Wherever in its writing a process dies, the next one finds the whole change or nothing of it."""
    base = tmp_path / "base"
    before, cookie = await prepare(configure(flush_mode="MANUAL", storage=base))
    command = [sys.executable, "-c", DIE_AT_EACH_STEP, str(base), verb]
    told = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, check=True)

    results: dict[bool, list[bool]] = {False: [], True: []}
    for path in told.stdout.split():
        settings = configure(flush_mode="MANUAL", storage=Path(path))
        key = "new" if verb == "first" else "old"
        results["-True-" in path].append(check(verb, await look(settings, key, before, cookie), cookie))
    for each in results.values():
        assert len(each) > 5
        assert each == sorted(each)
    # The commit is one statement: right after it, all is there; before it, nothing was.
    assert sum(results[True]) > sum(results[False]) == 1


class Failing:
    """Lets one of SQLite's statements fail; whose it is depends on who comes first."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.left = 0
        for name in ("execute", "executemany"):
            monkeypatch.setattr(QueueConnection, name, self._wrapped(getattr(sqlite3.Connection, name)), raising=False)

    def _wrapped(self, method: Any) -> Any:
        def run(ledger: QueueConnection, sql: str, *arguments: Any) -> Any:
            if sql != "ROLLBACK" and self.left:
                self.left -= 1
                if not self.left:
                    raise sqlite3.OperationalError("disk I/O error")
            return method(ledger, sql, *arguments)

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
    """Whichever statement fails, the caller is told, nothing is kept, and the same client goes on as before."""
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
                assert len(await kept(client)) == before
                await change(device, verb)
            beyond, failing.left = failing.left, 0
            new = (await kept(client))[before:]
        told = [(data.get("event_type", "identify"), data["customer_ids"]["cookie"] == cookie) for data in new]
        assert told == list(ALL[verb])
        if beyond:
            break
    assert refused > 2
