"""
Two processes that share devices and are killed now and then: nobody's life is told twice, or in part.
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
from helpers.clients import Configure, kept

from exponea_async import Event, Exponea
from exponea_async.sandbox import Sandbox

#: How many verbs each process does in the long run, for which there is time only where this is set.
LONG_RUN = int(os.environ.get("EXPONEA_TEST_LONG_RUN", "0"))
TIMEOUT = 0.05

LIVE = """
import asyncio, os, random, sys
from exponea_async import Configuration, Customer, Event, Exponea
from exponea_async.devices import expirer as sweeper

sweeper.PERIOD = 0.02

async def live(client, dice, number):
    device = client.device(f"tg:{dice.randrange(50)}")
    verb = dice.random()
    if verb < 0.7:
        await device.track_event(Event("ping", {"number": number}))
    elif verb < 0.75:
        with client.bind(device):
            await client.track_many([Event("ping", {"number": number}), Event("pong")])
    elif verb < 0.82:
        await device.identify_customer(Customer({"crm": str(dice.randrange(3))}, {"number": number}))
    elif verb < 0.87:
        await device.anonymize()
    elif verb < 0.91:
        await device.handle_push_token(str(dice.randrange(2)))
    else:
        await (device.resume() if verb < 0.95 else device.pause())
    if verb < 0.82:
        os.write(1, f"{number}\\n".encode())
    if dice.random() < 0.2:
        await asyncio.sleep(dice.random() * 0.02)

async def main(path, url, timeout, seed, start, end):
    client = Exponea(Configuration(project_token="shop", authorization_token="key", base_url=url, storage=path,
                                   flush_mode="MANUAL", session_timeout=float(timeout)))
    await client.start()
    dice, numbers = random.Random(int(seed)), iter(range(int(start), int(end)))
    async def work():
        for number in numbers:
            await live(client, dice, number)
    await asyncio.gather(*(work() for _ in range(6)))
    await client.aclose()

asyncio.run(main(*sys.argv[1:]))
"""


async def drive(arguments: list[object], dice: Random, start: int, count: int, lives: int) -> set[int]:
    """Let one process after the other do verbs, killing all but the last; tells the numbers that were acknowledged."""
    told: set[int] = set()
    for life in range(lives):
        span = (start + count * life // lives, start + count * (life + 1) // lives)
        command = [sys.executable, "-c", LIVE, *map(str, [*arguments, dice.randrange(1 << 30), *span])]
        child = await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE)
        assert child.stdout
        if life < lives - 1:
            for _ in range((span[1] - span[0]) // 2):
                told.add(int(await child.stdout.readline()))
            child.kill()
        rest, _ = await child.communicate()
        told |= set(map(int, rest.split()))
        assert (child.returncode == 0) is (life == lives - 1)
    return told


@define
class Life:
    """One customer of a device, as the queue tells of them in the order of the commits."""

    session: dict[str, Any] | None = None
    last: float = 0.0
    names: Counter[str] = field(factory=Counter)
    moments: list[tuple[float, str]] = field(factory=list)

    def go_on(self, name: str, at: float, data: dict[str, Any]) -> None:
        """Take the next event; it stands within an open session, but for the installation."""
        self.names[name] += 1
        assert (name == "installation") is (self.names.total() == 1)
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
        elif name != "installation" and not self.is_farewell(data):
            assert self.session is not None
            assert at > self.session["timestamp"]
            self.last = max(self.last, at)
        if name.startswith("session"):
            self.moments.append((at, name))

    def is_farewell(self, data: dict[str, Any]) -> bool:
        """Tell whether an event says that the token is no longer the customer's, which follows the session's end."""
        return bool(self.session is None and data["properties"].get("description") == "Invalidated")

    def check(self) -> None:
        """Make sure that it is over, and that its sessions follow each other by their moments too."""
        assert self.session is None
        assert [name for _, name in self.moments] == ["session_start", "session_end"] * self.names["session_end"]
        assert all(one < other for (one, _), (other, _) in pairwise(self.moments))


def check_lives(commands: list[dict[str, Any]]) -> int:
    """Make sure that each device was one customer after the other; tells how many customers there were."""
    lives: dict[str, Life] = {}
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
            lives[cookie] = Life()
        assert cookie not in past
        lives[cookie].go_on(name, data["timestamp" if "timestamp" in data else "update_timestamp"], data)
    for life in lives.values():
        life.check()
    return len(lives)


@pytest.mark.parametrize("count", [1500, *([LONG_RUN] if LONG_RUN else [])])
async def test_fifty_devices(configure: Configure, sandbox: Sandbox, tmp_path: Path, count: int) -> None:
    """However two processes share devices and are killed, each device has one life after the other, and whole ones."""
    arguments = [tmp_path / "queue.sqlite", sandbox.url, TIMEOUT]
    lives = 3 if count < 5000 else 12
    told = await asyncio.gather(*(drive(arguments, Random(each), each * count, count, lives) for each in (0, 1)))
    acknowledged = set().union(*told)

    async with Exponea(configure(flush_mode="MANUAL", session_timeout=TIMEOUT)) as client:
        await client._session_expirer.expire(all_sessions=True)
        assert await client._session_expirer.expire(all_sessions=True) == 0
        commands = await kept(client)
        customers = check_lives(commands)
        await client.flush_data(300)

    numbers = Counter(data["properties"]["number"] for data in commands if "number" in data["properties"])
    assert acknowledged <= set(numbers)
    assert set(numbers.values()) == {1}
    # Each process that was killed may have written what six callers were not told of.
    assert len(numbers) <= len(acknowledged) + 12 * lives
    events = [data for data in commands if "event_type" in data]
    assert (len(sandbox.engine.events()), sandbox.engine.duplicates) == (len(events), 0)
    ends = sum(data.get("event_type") == "session_end" for data in commands)
    assert ends > customers > 50


async def test_a_wait_longer_than_the_timeout(configure: Configure, monkeypatch: pytest.MonkeyPatch) -> None:
    """A verb that waits while another process begins and ends a session tells of the one after it."""
    settings, now = configure(flush_mode="MANUAL", session_timeout=60), 1_700_000_000.0
    async with Exponea(settings, clock=lambda: now) as client:
        load = client._storage.load_state

        async def slow(name: str) -> Any:
            nonlocal now
            async with Exponea(settings, clock=lambda: now) as other:
                now += 1
                await other.device("default").open()
                now += 60
                await other._session_expirer.expire()
            return await load(name)

        monkeypatch.setattr(client._storage, "load_state", slow)
        await client.track_event(Event("ping"))
        told = sorted(await kept(client), key=lambda data: float(data["timestamp"]))

    wanted = ["installation", "session_start", "session_end", "session_start", "ping"]
    assert [data["event_type"] for data in told] == wanted
