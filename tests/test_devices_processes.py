"""
Two processes that share devices and are killed now and then: no event is tracked twice or missing.
"""

import asyncio
import os
import subprocess
import sys
from collections import Counter
from itertools import pairwise
from pathlib import Path
from random import Random
from typing import Any

import pytest
from attrs import define, field
from helpers.clients import Configure, pending_data
from helpers.internals import before_storage_call

from exponea_async import Event, Exponea
from exponea_async.sandbox import Sandbox
from exponea_async.testing import end_idle_sessions

#: The number of calls of each process in the long run, which is done only if this is set.
LONG_RUN = int(os.environ.get("EXPONEA_TEST_LONG_RUN", "0"))
TIMEOUT = 0.05

PROCESS = """
import asyncio, os, random, sys
from exponea_async import Configuration, Customer, Event, Exponea, QueueSettings
from exponea_async.devices import expirer

expirer.PERIOD = 0.02

async def act(client, chance, number):
    device = client.device(f"tg:{chance.randrange(50)}")
    verb = chance.random()
    if verb < 0.7:
        await device.track_event(Event("ping", {"number": number}))
    elif verb < 0.75:
        with client.bind(device):
            await client.track_many([Event("ping", {"number": number}), Event("pong")])
    elif verb < 0.82:
        await device.identify_customer(Customer({"crm": str(chance.randrange(3))}, {"number": number}))
    elif verb < 0.87:
        await device.anonymize()
    elif verb < 0.91:
        await device.handle_push_token(str(chance.randrange(2)))
    else:
        await (device.resume() if verb < 0.95 else device.pause())
    if verb < 0.82:
        os.write(1, f"{number}\\n".encode())
    if chance.random() < 0.2:
        await asyncio.sleep(chance.random() * 0.02)

async def main(path, url, timeout, seed, start, end, is_last):
    client = Exponea(Configuration(project_token="shop", authorization_token="key", base_url=url, storage=path,
                                   flush_mode="MANUAL", session_timeout=float(timeout),
                                   queue=QueueSettings(lock_timeout=60.0)))
    await client.start()
    chance, numbers = random.Random(int(seed)), iter(range(int(start), int(end)))
    async def work():
        for number in numbers:
            await act(client, chance, number)
    await asyncio.gather(*(work() for _ in range(6)))
    if is_last == "False":
        # It may be faster than the process that kills it.
        await asyncio.Event().wait()
    await client.aclose()

asyncio.run(main(*sys.argv[1:]))
"""


async def drive(arguments: list[object], chance: Random, start: int, count: int, lifetimes: int) -> set[int]:
    """Run one process after the other, killing all but the last; return the numbers of the acknowledged calls."""
    acknowledged: set[int] = set()
    for lifetime in range(lifetimes):
        span = (start + count * lifetime // lifetimes, start + count * (lifetime + 1) // lifetimes)
        is_last = lifetime == lifetimes - 1
        command = [sys.executable, "-c", PROCESS, *map(str, [*arguments, chance.randrange(1 << 30), *span, is_last])]
        child = await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE)
        assert child.stdout
        if not is_last:
            for _ in range((span[1] - span[0]) // 2):
                acknowledged.add(int(await child.stdout.readline()))
            child.kill()
        rest, _ = await child.communicate()
        acknowledged |= set(map(int, rest.split()))
        assert (child.returncode == 0) is is_last
    return acknowledged


@define
class CustomerHistory:
    """The events of one customer of a device, in the order of the commits."""

    session: dict[str, Any] | None = None
    last: float = 0.0
    counts: Counter[str] = field(factory=Counter)
    sessions: list[tuple[float, str]] = field(factory=list)

    def check_next(self, name: str, at: float, data: dict[str, Any]) -> None:
        """Check the next event: it is within an open session, except the installation."""
        self.counts[name] += 1
        assert (name == "installation") is (self.counts.total() == 1)
        if name == "session_start":
            assert self.session is None
            self.session, self.last = data, at
        elif name == "session_end":
            assert self.session is not None
            duration = data["properties"]["duration"]
            assert duration >= 0
            assert at >= self.last > 0
            assert abs(at - self.session["timestamp"] - duration) < 0.002
            self.session = None
        elif name != "installation" and not self.is_invalidation(data):
            assert self.session is not None
            assert at > self.session["timestamp"]
            self.last = max(self.last, at)
        if name.startswith("session"):
            self.sessions.append((at, name))

    def is_invalidation(self, data: dict[str, Any]) -> bool:
        """Return whether an event invalidates the old customer's token, which follows the end of the session."""
        return bool(self.session is None and data["properties"].get("description") == "Invalidated")

    def check(self) -> None:
        """Check that all sessions have ended, and follow each other by their timestamps, too."""
        assert self.session is None
        assert [name for _, name in self.sessions] == ["session_start", "session_end"] * self.counts["session_end"]
        assert all(one < other for (one, _), (other, _) in pairwise(self.sessions))


def check_histories(commands: list[dict[str, Any]]) -> int:
    """Check that each device had one customer after the other; return the number of customers."""
    lifetimes: dict[str, CustomerHistory] = {}
    devices: dict[str, str] = {}
    past: set[str] = set()
    for data in commands:
        cookie = data["customer_ids"]["cookie"]
        name = data.get("event_type", "identify")
        device = data["properties"].get("device_id")
        if device is not None and devices.get(device) != cookie:
            assert name == "installation"
            assert cookie not in past
            past.add(devices.get(device, ""))
            devices[device] = cookie
            lifetimes[cookie] = CustomerHistory()
        assert cookie not in past
        lifetimes[cookie].check_next(name, data["timestamp" if "timestamp" in data else "update_timestamp"], data)
    for lifetime in lifetimes.values():
        lifetime.check()
    return len(lifetimes)


@pytest.mark.parametrize("count", [1500, *([LONG_RUN] if LONG_RUN else [])])
async def test_fifty_devices(configure: Configure, sandbox: Sandbox, tmp_path: Path, count: int) -> None:
    """However two processes share devices and are killed, each device has one complete history per customer."""
    arguments = [tmp_path / "queue.sqlite", sandbox.url, TIMEOUT]
    lifetimes = 3 if count < 5000 else 12
    results = await asyncio.gather(*(drive(arguments, Random(each), each * count, count, lifetimes) for each in (0, 1)))
    acknowledged = set().union(*results)

    for _ in range(2):
        async with Exponea(configure(flush_mode="MANUAL", session_timeout=1000)) as client:
            await client.aclose(end_sessions=True)
    async with Exponea(configure(flush_mode="MANUAL", session_timeout=1000)) as client:
        commands = await pending_data(client)
        customers = check_histories(commands)
        await client.flush_data(300)

    numbers = Counter(data["properties"]["number"] for data in commands if "number" in data["properties"])
    assert acknowledged <= set(numbers)
    assert set(numbers.values()) == {1}
    # Each process that was killed may have written six calls that were not acknowledged.
    assert len(numbers) <= len(acknowledged) + 12 * lifetimes
    events = [data for data in commands if "event_type" in data]
    assert (len(sandbox.engine.events()), sandbox.engine.duplicates) == (len(events), 0)
    ends = sum(data.get("event_type") == "session_end" for data in commands)
    assert ends > customers > 50


async def test_a_wait_longer_than_the_timeout(configure: Configure) -> None:
    """A call that waits while another process starts and ends a session tracks the session after it."""
    settings, now = configure(flush_mode="MANUAL", session_timeout=60), 1_700_000_000.0
    async with Exponea(settings, clock=lambda: now) as client:

        async def use_elsewhere() -> None:
            nonlocal now
            async with Exponea(settings, clock=lambda: now) as other:
                now += 1
                await other.get_customer_cookie()
                now += 60
                await end_idle_sessions(other)

        before_storage_call(client, "load_state", use_elsewhere)
        await client.track_event(Event("ping"))
        acknowledged = sorted(await pending_data(client), key=lambda data: float(data["timestamp"]))

    expected = ["installation", "session_start", "session_end", "session_start", "ping"]
    assert [data["event_type"] for data in acknowledged] == expected
